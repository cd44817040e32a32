"""Images for pretraining and evaluation: read once from tar files and folders, kept as uint8, cropped in batches."""

from __future__ import annotations

import lzma
import math
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError, SceneError
from foveasim.picture import Picture, fit_picture

__all__ = ["SPLITS", "ImagePool", "centred", "crops", "read_pool", "split_names"]

SPLITS = ("all", "train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RATIO = (3 / 4, 4 / 3)  # aspect ratios of random resized crops, as in the paper


@dataclass(frozen=True)
class ImagePool:
    """Images in memory.

    Attributes:
        images: Each (H, W, 3) uint8 RGB, sizes as they come.
        names: Path of each inside its source.
        source: (N,) int, which of the sources it came from.
    """

    images: tuple[NDArray[np.uint8], ...]
    names: tuple[str, ...]
    source: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


def split_names(names: Sequence[str], split: str) -> list[str]:
    """Choose the names of one split, sorted.

    Where folders called ``train`` or ``val`` stand in the names, ``train`` is the first, and in each folder below
    ``val`` the even positions validate and the odd ones test. Elsewhere, of nine names in sorted order the first is
    test, the second validation and the others training.

    Args:
        names: Paths with forward slashes.
        split: ``"all"``, ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        InvalidValueError: Unknown split.

    Example:
        >>> split_names([f"{i:02d}.jpg" for i in range(18)], "test")
        ['00.jpg', '09.jpg']
        >>> split_names(["a/train/x/1.jpg", "a/val/x/1.jpg", "a/val/x/2.jpg"], "val")
        ['a/val/x/1.jpg']
    """
    if split not in SPLITS:
        raise InvalidValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}.")
    ordered = sorted(names)
    if split == "all":
        return ordered
    folders = {name: name.split("/")[:-1] for name in ordered}
    if any("train" in parts or "val" in parts for parts in folders.values()):
        if split == "train":
            return [name for name in ordered if "train" in folders[name]]
        chosen: list[str] = []
        groups: dict[tuple[str, ...], int] = {}
        for name in ordered:
            if "val" in folders[name]:
                position = groups.get(tuple(folders[name]), 0)
                groups[tuple(folders[name])] = position + 1
                if position % 2 == (split == "test"):
                    chosen.append(name)
        return chosen
    rest = {"test": (0,), "val": (1,), "train": range(2, 9)}[split]
    return [name for position, name in enumerate(ordered) if position % 9 in rest]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.rsplit("/", 1)[-1].startswith(".")


def _contents(path: Path, split: str) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and _is_image(p.name)]
        for name in split_names(names, split):
            yield name, (path / name).read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            members = {m.name: m for m in archive.getmembers() if m.isfile() and _is_image(m.name)}
            # in the order of the archive: seeking back and forth in a compressed one would read it again and again
            for name in sorted(split_names(list(members), split), key=lambda n: members[n].offset):
                file = archive.extractfile(members[name])
                if file is not None:
                    yield name, file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise SceneError(f"{path}: not a folder or a tar archive that can be read ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """Return the first line of what tarfile says: one more follows for each way of packing that it tried."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(": ")


def read_pool(specs: str | Sequence[str]) -> ImagePool:
    """Read images into memory.

    Args:
        specs: Each a folder or a tar archive of images, ``PATH`` or ``PATH@SPLIT`` (see :func:`split_names`). One may
            come as a plain string.

    Returns:
        The images of all of them. Files that cannot be decoded are skipped with a warning that names them.

    Raises:
        InvalidValueError: Unknown split, or no source at all.
        SceneError: A source is missing or holds no readable image.
    """
    if isinstance(specs, str):
        specs = [specs] if specs else []
    if not specs:
        raise InvalidValueError("data must name at least one folder or tar archive of images; got none.")
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    source: list[int] = []
    for number, spec in enumerate(specs):
        text, _, split = spec.rpartition("@") if "@" in spec and not Path(spec).exists() else (spec, "", "all")
        path = Path(text).expanduser()
        if not path.exists():
            raise SceneError(f"{text}: no such folder or tar archive. Check the path.")
        damaged: list[str] = []
        before = len(images)
        for name, content in _contents(path, split):
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
            if decoded is None:
                damaged.append(name)
                continue
            images.append(np.ascontiguousarray(decoded[:, :, ::-1], dtype=np.uint8))
            names.append(name)
            source.append(number)
        if damaged:
            warnings.warn(f"{spec}: skipped {len(damaged)} damaged images: {', '.join(damaged[:5])}", stacklevel=2)
        if len(images) == before:
            raise SceneError(f"{spec}: no readable image ({', '.join(SUFFIXES)}). Check the path and the split.")
    return ImagePool(tuple(images), tuple(names), np.array(source))


def crops(
    pool: ImagePool,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    shares: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Draw random resized crops, half of them mirrored.

    Args:
        pool: The images.
        rng: Source of randomness.
        count: B.
        size: (H, W) in px.
        scale: Least and greatest share of an image's area.
        shares: How often each source is drawn from; None draws every image equally often.

    Returns:
        (B, H, W, 3) uint8.

    Raises:
        InvalidValueError: ``shares`` do not fit the sources.
    """
    if shares is None:
        chosen = rng.integers(len(pool), size=count)
    else:
        weights = np.asarray(shares, float)
        if weights.shape != (int(pool.source.max()) + 1,) or not (weights >= 0).all() or weights.sum() <= 0:
            raise InvalidValueError(f"shares must be one number >= 0 for each source; got {list(shares)!r}.")
        chances = (weights / np.bincount(pool.source) / weights.sum())[pool.source]
        chosen = rng.choice(len(pool), size=count, p=chances)
    batch = np.empty((count, *size, 3), np.uint8)
    areas = rng.uniform(scale[0], scale[1], size=count)
    ratios = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), size=count)) * size[1] / size[0]
    offsets, mirrored = rng.uniform(size=(count, 2)), rng.uniform(size=count) < 0.5
    for lane in range(count):
        image = pool.images[chosen[lane]]
        height, width = image.shape[:2]
        area = areas[lane] * height * width
        # The ratio bends where the crop would not fit, so that the area is kept: a long thin image is seen whole.
        ratio = min(max(ratios[lane], area / height**2), width**2 / area)
        h, w = min(height, max(1, round((area / ratio) ** 0.5))), min(width, max(1, round((area * ratio) ** 0.5)))
        top, left = int(offsets[lane, 0] * (height - h + 1)), int(offsets[lane, 1] * (width - w + 1))
        part = image[top : top + h, left : left + w]
        method = cv2.INTER_AREA if h >= size[0] and w >= size[1] else cv2.INTER_LINEAR
        scaled = cv2.resize(part, (size[1], size[0]), interpolation=method)
        batch[lane] = scaled[:, ::-1] if mirrored[lane] else scaled
    return batch


def centred(pool: ImagePool, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop every image around its centre and scale it by areas, (N, H, W, 3) uint8."""
    return np.stack(
        [
            fit_picture(Picture(image, -1, name, 1.0), size, "crop").image
            for image, name in zip(pool.images, pool.names, strict=True)
        ]
    )
