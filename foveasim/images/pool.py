"""Many images in one block of memory, or in a file that is mapped into it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.picture import Picture, fit_picture

__all__ = ["ImagePool", "centred", "offsets"]


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
