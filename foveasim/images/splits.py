"""Where images come from: folders, tar archives and STL-10's binary files, and their splits."""

from __future__ import annotations

import itertools
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError, SceneError
from foveasim.images.archives import CarefulEntry
from foveasim.images.datasets import STL10_FOLDER, STL10_SPLITS, Stl10Scenes
from foveasim.images.files import PHOTOS
from foveasim.images.picture import MAX_PIXELS, open_image

__all__ = ["SPLITS", "SUFFIXES", "ImageSource", "remedy", "split_names"]

SPLITS = ("all", "train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DECODED_AT_ONCE = 256  # files that wait for the decoding threads; 25 MB of JPEGs


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


@dataclass(frozen=True)
class ImageSource:
    """A folder, a tar archive or STL-10's binary files, and which part of it.

    Attributes:
        spec: As it was given.
        path: Of the folder or archive.
        split: Which part.
        stl10: Whether it is STL-10.
    """

    spec: str
    path: Path
    split: str
    stl10: bool

    @classmethod
    def of(cls, spec: str) -> ImageSource:
        """Read ``PATH`` or ``PATH@SPLIT``; ``photos``, where there is no such path, are those that come with foveasim.

        Raises:
            InvalidValueError: Unknown split.
            SceneError: There is no such path.
        """
        text, _, split = (
            spec.rpartition("@") if "@" in spec and not Path(spec).expanduser().exists() else (spec, "", "")
        )
        path = Path(text).expanduser()
        if text == PHOTOS.name and not path.exists():
            path = PHOTOS
        if not path.exists():
            raise SceneError(f"{text}: no such folder or tar archive. {remedy(path)}")
        stl10 = path.is_dir() and any(any(f.glob("*_X.bin")) for f in (path / STL10_FOLDER, path))
        split = split or ("unlabeled" if stl10 else "all")
        known = STL10_SPLITS if stl10 else SPLITS
        if split not in known:
            raise InvalidValueError(f"split of {text} must be one of {', '.join(known)}; got {split!r}.")
        return cls(spec, path, split, stl10)

    def files(self) -> list[Path]:
        """Return the files whose change makes what was read from them stale."""
        if self.stl10:
            folder = self.path / STL10_FOLDER
            return sorted(p for f in (folder, self.path) for p in f.glob(f"{self.split}_*.bin"))
        return sorted(_image_files(self.path)) if self.path.is_dir() else [self.path]

    def read(self, found: Callable[[int], None]) -> Iterator[tuple[str, NDArray[np.uint8] | SceneError]]:
        """Yield name and image, (H, W, 3) uint8, of each; where it cannot be decoded, the error that says why.

        Args:
            found: Called with how many there are, before the first.
        """
        if self.stl10:
            yield from _stl10(self.path, self.split, found)
            return
        contents = _contents(self.path, self.split, found)
        # OpenCV decodes without the interpreter's lock
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as threads:
            while chunk := list(itertools.islice(contents, DECODED_AT_ONCE)):
                yield from zip([name for name, _ in chunk], threads.map(_decode, chunk), strict=True)


def remedy(path: Path) -> str:
    """Return what to do about data that are missing."""
    for dataset in ("stl10", "imagenette"):
        if dataset in path.name.lower():
            folder = path if path.name.lower() == dataset else path.parent
            return f"Check the path, or get it: foveasim data get {dataset} {folder}"
    return "Check the path, or get a data set: foveasim data get stl10|imagenette DIR"


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.rsplit("/", 1)[-1].startswith(".")


def _image_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and _is_image(p.name)]


def _contents(path: Path, split: str, found: Callable[[int], None]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        names = _published_split(path, [p.relative_to(path).as_posix() for p in _image_files(path)], split)
        found(len(names))
        for name in names:
            try:
                content = (path / name).read_bytes()
            except OSError as error:
                raise SceneError(f"{path / name}: cannot be read ({error.strerror}). Check its permissions.") from error
            yield name, content
        return
    try:
        with tarfile.open(path, tarinfo=CarefulEntry) as archive:
            members = {m.name: m for m in archive.getmembers() if m.isfile() and _is_image(m.name)}
            names = split_names(list(members), split)
            found(len(names))
            # in the order of the archive: seeking back and forth in a compressed one would read it again and again
            for name in sorted(names, key=lambda n: members[n].offset):
                file = archive.extractfile(members[name])
                if file is not None:
                    yield name, file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise SceneError(f"{path}: not a folder or a tar archive that can be read ({_reason(error)}).") from error


def _published_split(folder: Path, names: Sequence[str], split: str) -> list[str]:
    """Choose by the ``splits.json`` of the folder or the one above, otherwise by :func:`split_names`.

    ``{"train": ["1001", ...], "val": ...}`` are file names without their endings.
    """
    file = next((f for f in (folder / "splits.json", folder.parent / "splits.json") if f.is_file()), None)
    if file is None or split == "all":
        return split_names(names, split)
    try:
        chosen = {str(name) for name in json.loads(file.read_text(encoding="utf-8"))[split]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SceneError(
            f"{file}: has no list {split!r} ({type(error).__name__}: {error}). Mend it, or leave the split out."
        ) from error
    return sorted(name for name in names if Path(name).stem in chosen)


def _decode(file: tuple[str, bytes]) -> NDArray[np.uint8] | SceneError:
    name, content = file
    try:  # OpenCV would decode gigabytes out of a few bytes; reading the header takes 0.05 ms
        with open_image(content, name) as header:
            if header.width * header.height > MAX_PIXELS:
                return SceneError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels. Scale it down first.")
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except SceneError as error:
        return error
    except Exception as error:  # OpenCV raises whatever damaged content makes it stumble over
        return SceneError(f"{name}: damaged ({error}). Remove it, or save it again.")
    if decoded is None:
        return SceneError(f"{name}: damaged. Remove it, or save it again.")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _stl10(path: Path, split: str, found: Callable[[int], None]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    scenes = Stl10Scenes(path, split=split)
    found(len(scenes))
    label = scenes.label
    for start in range(0, len(scenes), DECODED_AT_ONCE):
        chosen = np.arange(start, min(start + DECODED_AT_ONCE, len(scenes)))
        for index, image in zip(chosen.tolist(), scenes.batch(chosen), strict=True):
            # classes are folders here as everywhere; what has none lies in no folder
            name = f"{split}/{scenes.labels[label[index]]}/{index:06d}" if scenes.labels else f"{split}_{index:06d}"
            yield name, image


def _reason(error: Exception) -> str:
    """Return the first line of what tarfile says: one more follows for each way of packing that it tried."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(": ")
