"""Images for pretraining and evaluation: read once from tar files, folders and STL-10, kept as uint8 in one block."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.mim.sources import SPLITS, SUFFIXES, Source, split_names
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.picture import Picture, fit_picture

__all__ = ["SPLITS", "ImagePool", "centred", "crops", "read_pool", "split_names"]


@dataclass(frozen=True, eq=False, repr=False)
class ImagePool:
    """Images in one block of memory, or in a file that is mapped into it. :meth:`of` makes one of single images.

    Attributes:
        pixels: Flat uint8, RGB: all images one after the other, each H * W * 3 bytes in C order.
        offset: (N,) int64, where in ``pixels`` each begins.
        size: (N, 2) int32, (H, W) of each, px.
        names: Path of each inside its source.
        source: (N,) int64, which of the sources it came from.
        objects: Flat uint8, one byte a pixel in the order of ``pixels``: how surely it belongs to the image's main
            object, 0 to 255. None where no image has a mask.
        has_object: (N,) bool, whether an image has a mask; None stands for none.

    Raises:
        InvalidTypeError: ``pixels`` or ``objects`` is not uint8.
        InvalidValueError: Lengths that do not fit each other.
    """

    pixels: NDArray[np.uint8]
    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    names: tuple[str, ...]
    source: NDArray[np.int64]
    objects: NDArray[np.uint8] | None = None
    has_object: NDArray[np.bool_] = None  # type: ignore[assignment]  # __post_init__ puts an array

    def __repr__(self) -> str:
        masks = f", {int(self.has_object.sum())} masks" if self.objects is not None else ""
        return f"ImagePool({len(self)} images{masks})"

    def __post_init__(self) -> None:
        count = len(self.offset)
        if self.has_object is None:
            object.__setattr__(self, "has_object", np.zeros(count, np.bool_))
        for name, flat in (("pixels", self.pixels), ("objects", self.objects)):
            if flat is not None and flat.dtype != np.uint8:
                raise InvalidTypeError(f"{name} must be uint8, 0-255; got {flat.dtype}.")
        shapes = {"size": (count, 2), "source": (count,), "has_object": (count,), "names": (count,)}
        for name, shape in shapes.items():
            came = (len(self.names),) if name == "names" else getattr(self, name).shape
            if came != shape:
                raise InvalidValueError(f"{name} must be {shape}, one for each offset; got {came}.")
        bytes_needed = int((self.offset + self.size.astype(np.int64).prod(1) * 3).max(initial=0))
        if self.pixels.ndim != 1 or self.pixels.size < bytes_needed:
            raise InvalidValueError(f"pixels must be flat and at least {bytes_needed:,}; got {self.pixels.shape}.")
        if self.objects is not None and (self.objects.ndim != 1 or self.objects.size < bytes_needed // 3):
            raise InvalidValueError(
                f"objects must be flat and at least {bytes_needed // 3:,}, a byte a pixel; got {self.objects.shape}."
            )
        if self.objects is None and self.has_object.any():
            raise InvalidValueError("has_object marks images but objects is None; give their masks.")

    @classmethod
    def of(
        cls,
        images: Sequence[NDArray[np.uint8]],
        names: Sequence[str] | None = None,
        source: NDArray[np.int64] | None = None,
        objects: Sequence[NDArray[np.uint8] | None] | None = None,
    ) -> ImagePool:
        """Build a pool of images in memory.

        Args:
            images: Each (H, W, 3) uint8.
            names: One for each; numbers where None.
            source: (N,) int64; zeros where None.
            objects: For each image (H, W) uint8, or None where it has no mask.

        Raises:
            InvalidTypeError: Something is not uint8.
            InvalidValueError: An image that is not (H, W, 3), or a mask that does not fit its image.

        Example:
            >>> pool = ImagePool.of([np.zeros((4, 6, 3), np.uint8)])
            >>> len(pool), pool.size.tolist(), pool.images[0].shape
            (1, [[4, 6]], (4, 6, 3))
        """
        for number, image in enumerate(images):
            if image.dtype != np.uint8:
                raise InvalidTypeError(f"images must be uint8, 0-255; image {number} is {image.dtype}.")
            if image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise InvalidValueError(f"images must be (H, W, 3); image {number} is {image.shape}.")
        size = np.array([image.shape[:2] for image in images], np.int32).reshape(-1, 2)
        masks: NDArray[np.uint8] | None = None
        has_object = np.zeros(len(images), np.bool_)
        if objects is not None:
            if len(objects) != len(images):
                raise InvalidValueError(f"objects must be one for each of {len(images)} images; got {len(objects)}.")
            for number, (image, mask) in enumerate(zip(images, objects, strict=True)):
                if mask is not None and mask.dtype != np.uint8:
                    raise InvalidTypeError(f"objects must be uint8, 0-255; mask {number} is {mask.dtype}.")
                if mask is not None and mask.shape != image.shape[:2]:
                    raise InvalidValueError(
                        f"mask {number} must be {image.shape[:2]} like its image; got {mask.shape}."
                    )
            flat = [
                np.zeros(h * w, np.uint8) if m is None else m.reshape(-1)
                for m, (h, w) in zip(objects, size, strict=True)
            ]
            masks = np.concatenate([np.zeros(0, np.uint8), *flat])
            has_object = np.array([mask is not None for mask in objects], np.bool_)
        return cls(
            pixels=np.concatenate([np.zeros(0, np.uint8), *(image.reshape(-1) for image in images)]),
            offset=offsets(size),
            size=size,
            names=tuple(str(n) for n in range(len(images))) if names is None else tuple(names),
            source=np.zeros(len(images), np.int64) if source is None else np.asarray(source, np.int64),
            objects=masks,
            has_object=has_object,
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.offset)

    @functools.cached_property
    def images(self) -> tuple[NDArray[np.uint8], ...]:
        """Each image, (H, W, 3) uint8, as a view."""
        sizes = self.size.tolist()
        return tuple(
            self.pixels[start : start + 3 * h * w].reshape(h, w, 3)
            for start, (h, w) in zip(self.offset.tolist(), sizes, strict=True)
        )


def offsets(size: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return where images of these sizes, (N, 2), begin when they stand one after the other: (N,) int64, bytes."""
    ends = np.cumsum(3 * size.astype(np.int64).prod(1))
    return np.concatenate([np.zeros(min(len(size), 1), np.int64), ends[:-1]])


def read_pool(specs: str | Sequence[str], *, cache: str | Path | None = None, progress: bool = False) -> ImagePool:
    """Read images into memory.

    Args:
        specs: Each a folder or a tar archive of images, ``PATH`` or ``PATH@SPLIT`` (see :func:`split_names`), or a
            folder with STL-10's binary files, ``PATH@unlabeled`` (also where no split is given), ``PATH@train`` or
            ``PATH@test``. One may come as a plain string.
        cache: A folder where the decoded images are kept. They are then mapped into memory instead of read, now and
            the next time, so that they may be more than the memory holds. Sources that have changed are read anew.
        progress: Show a bar while decoding, where there is a terminal.

    Returns:
        The images of all of them. Files that cannot be decoded are skipped with a warning that names them. STL-10's
        labelled images are called ``SPLIT/CLASS/NUMBER``, those without labels ``unlabeled_NUMBER``.

    Raises:
        InvalidValueError: Unknown split, or no source at all.
        SceneError: A source is missing or holds no readable image, or the cache cannot be written.
    """
    from foveasim.agents.mim.pool_cache import open_pool, write_pool

    if isinstance(specs, str):
        specs = [specs] if specs else []
    if not specs:
        raise InvalidValueError("data must name at least one folder or tar archive of images; got none.")
    sources = [Source.of(spec) for spec in specs]
    if cache is None:
        return _gather(_read(sources, progress))
    folder = Path(cache).expanduser()
    return open_pool(folder, sources) or write_pool(folder, sources, _read(sources, progress))


def _read(sources: Sequence[Source], progress: bool) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """Yield number of the source, name and image of everything that can be decoded."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal)) as bar:
        for number, source in enumerate(sources):
            task = bar.add_task(f"decoding {source.path.name}", total=None)
            damaged: list[str] = []
            good = 0

            def found(count: int, task: TaskID = task) -> None:
                bar.update(task, total=count)

            for name, image in source.read(found):
                bar.advance(task)
                if image is None:
                    damaged.append(name)
                    continue
                good += 1
                yield number, name, image
            if damaged:
                listed = ", ".join(damaged[:5])
                warnings.warn(f"{source.spec}: skipped {len(damaged)} damaged images: {listed}", stacklevel=4)
            if not good:
                raise SceneError(
                    f"{source.spec}: no readable image ({', '.join(SUFFIXES)}). Check the path and the split."
                )


def _gather(read: Iterator[tuple[int, str, NDArray[np.uint8]]]) -> ImagePool:
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    source: list[int] = []
    for number, name, image in read:
        images.append(image)
        names.append(name)
        source.append(number)
    size = np.array([image.shape[:2] for image in images], np.int32)
    offset = offsets(size)
    pixels = np.empty(3 * int(size.astype(np.int64).prod(1).sum()), np.uint8)
    images.reverse()
    for start in offset.tolist():  # each image is let go as soon as it is copied, so that memory holds them once
        flat = images.pop().reshape(-1)
        pixels[start : start + flat.size] = flat
    return ImagePool(pixels, offset, size, tuple(names), np.array(source, np.int64))


def crops(
    pool: ImagePool,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    shares: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Draw random resized crops, half of them mirrored; :class:`foveasim.agents.mim.views.Views` does more.

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
    from foveasim.agents.mim.views import Views

    drawn = Views(pool, size, scale=scale, mirror=True, shares=shares).draw(rng, count)
    return drawn.image.numpy()


def centred(pool: ImagePool, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop every image around its centre and scale it by areas, (N, H, W, 3) uint8.

    Where all have that size already it is a view of the pool: do not write to it.
    """
    lengths = 3 * size[0] * size[1]
    if len(pool) and (pool.size == size).all() and (np.diff(pool.offset) == lengths).all():
        start = int(pool.offset[0])
        return pool.pixels[start : start + len(pool) * lengths].reshape(-1, *size, 3)
    return np.stack(
        [
            fit_picture(Picture(image, -1, name, 1.0), size, "crop").image
            for image, name in zip(pool.images, pool.names, strict=True)
        ]
    )
