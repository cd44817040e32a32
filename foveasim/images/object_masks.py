"""Masks of the main object: one greyscale PNG for each image, found by the image's name and read into its pool.

Convention:
    A mask is (H, W) uint8, how surely each pixel belongs to the main object, 255 where certain. That of the image
    ``n01440764/12.JPEG`` of a source is ``FOLDER/n01440764/12.png``. ``foveasim segment`` makes such folders, and
    any other tool may.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError, SceneError
from foveasim.eye.masks import OBJECT_SURE
from foveasim.images.picture import open_image
from foveasim.images.pool import ImagePool
from foveasim.images.splits import SUFFIXES

__all__ = [
    "MAX_OBJECT_SHARE",
    "MIN_OBJECT_PX",
    "Unmasked",
    "is_usable",
    "mask_paths",
    "read_mask",
    "read_masks",
    "with_masks",
]

Unmasked = Literal["keep", "drop"]

MIN_OBJECT_PX = 100
"""A mask with fewer sure pixels is of no use, as in the paper (96 x 96 px)."""

MAX_OBJECT_SHARE = 0.9
"""A mask with a greater share of sure pixels separates no object from what surrounds it."""

_READ_AT_ONCE = 512


def is_usable(mask: NDArray[np.uint8]) -> bool:
    """Whether a mask singles out an object: 100 sure pixels or more, and nine tenths of the picture at most.

    Args:
        mask: (H, W) uint8. A pixel is sure from 204 on, 0.8 of 255.

    Reference:
        Weiler et al. (2024) drop masks with fewer than 100 pixels of confidence 0.8 or more.
    """
    sure = int(np.count_nonzero(mask >= OBJECT_SURE))
    return MIN_OBJECT_PX <= sure <= MAX_OBJECT_SHARE * mask.size


def mask_paths(folder: str | Path, names: Sequence[str]) -> list[Path]:
    """Return where the masks of images lie, whether they exist or not.

    Args:
        folder: The masks' folder.
        names: Of the images inside their sources; the ending of an image file is left out.

    Raises:
        SceneError: Two images would share a mask, or a name leads out of the folder.

    Example:
        >>> mask_paths("masks", ["val/tench/1.JPEG", "unlabeled_000007"])[0].as_posix()
        'masks/val/tench/1.png'
    """
    stems: list[PurePosixPath] = []
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise SceneError(f"the image {name!r} has a name that leads out of a folder of masks. Pack the data anew.")
        stems.append(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)
    twice = next((stem for stem, count in Counter(stems).items() if count > 1), None)
    if twice is not None:
        raise SceneError(
            f"several images would share the mask {twice}.png, which goes by an image's name without its ending. "
            "Rename them, or take one source at a time."
        )
    return [Path(folder) / f"{stem}.png" for stem in stems]


def read_mask(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Read a mask and bring it to the size of its image.

    Args:
        path: The file.
        size: (H, W) of the image, px. A mask of the same shape and another size is scaled; one px may be missing to
            the same shape.

    Returns:
        (H, W) uint8; None where there is no such file.

    Raises:
        SceneError: Not an 8-bit greyscale picture, damaged, of a format that is not read, or of another shape.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        open_image(content.tobytes(), str(path)).close()
    except SceneError as error:
        raise SceneError(f"{error} Or delete it and run `foveasim segment` again.") from error
    mask = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise SceneError(f"{path}: damaged, or not a picture. Delete it and run `foveasim segment` again.")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise SceneError(
            f"{path}: a mask must be 8-bit greyscale, 255 where the object is; got {mask.dtype} {mask.shape}. "
            "Save the mask, not the picture cut out by it."
        )
    height, width = size
    if mask.shape != size:
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(*size, *mask.shape):
            raise SceneError(
                f"{path}: the mask is {mask.shape[0]} x {mask.shape[1]} px and its image {height} x {width}, another "
                "shape. It belongs to another image or to a crop of this one; make it anew."
            )
        method = cv2.INTER_AREA if mask.shape[0] > height else cv2.INTER_LINEAR
        mask = cv2.resize(mask, (width, height), interpolation=method)
    return np.ascontiguousarray(mask, np.uint8)


def read_masks(
    folder: str | Path, names: Sequence[str], sizes: Sequence[tuple[int, int]] | NDArray[np.int32]
) -> Iterator[NDArray[np.uint8] | None]:
    """Yield the mask of each image, in order.

    Args:
        folder: The masks' folder.
        names: Of the images inside their sources.
        sizes: (N, 2), (H, W) of each image, px.

    Yields:
        (H, W) uint8 of the image's size; None where the image has no mask.

    Raises:
        SceneError: There is no such folder, or a mask that cannot be used; see :func:`read_mask`.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise SceneError(
            f"{folder}: no such folder of masks. Check the path, or make them: foveasim segment DATA {folder}"
        )
    pairs = zip(mask_paths(folder, names), ((int(h), int(w)) for h, w in sizes), strict=True)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # OpenCV decodes without the interpreter's lock
        while chunk := list(itertools.islice(pairs, _READ_AT_ONCE)):
            yield from threads.map(read_mask, *zip(*chunk, strict=True))


def with_masks(pool: ImagePool, folder: str | Path, unmasked: Unmasked = "keep") -> ImagePool:
    """Give the images of a pool the masks of a folder.

    Args:
        pool: The images.
        folder: The masks' folder.
        unmasked: What becomes of images without a usable mask (:func:`is_usable`): "keep" them, with every pixel
            counting as their object and ``has_object`` False, or "drop" them.

    Returns:
        A pool with ``objects`` and ``has_object``, its pixels shared with ``pool``.

    Raises:
        InvalidValueError: ``unmasked`` is neither.
        SceneError: There is no such folder, a mask that cannot be used, or no usable mask at all.
    """
    if unmasked not in ("keep", "drop"):
        raise InvalidValueError(f"unmasked must be 'keep' or 'drop'; got {unmasked!r}.")
    objects = np.empty(pool.pixels.size // 3, np.uint8)
    usable, found = np.zeros(len(pool), np.bool_), 0
    starts, sizes = (pool.offset // 3).tolist(), pool.size.tolist()
    for number, mask in enumerate(read_masks(folder, pool.names, pool.size)):
        usable[number] = mask is not None and is_usable(mask)
        found += mask is not None
        place = objects[starts[number] : starts[number] + sizes[number][0] * sizes[number][1]]
        place[:] = mask.reshape(-1) if mask is not None and usable[number] else 255
    if not usable.any():
        raise SceneError(
            f"{folder}: no usable mask for any of {len(pool)} images ({found} have one). The first image's would be "
            f"{mask_paths(folder, pool.names[:1])[0]}, and a usable one has {MIN_OBJECT_PX} sure pixels or more. "
            "`foveasim segment` makes masks of the data that it is given."
        )
    if unmasked == "keep":
        return replace(pool, objects=objects, has_object=usable)
    return replace(
        pool,
        offset=pool.offset[usable],
        size=pool.size[usable],
        names=tuple(itertools.compress(pool.names, usable.tolist())),
        source=pool.source[usable],
        objects=objects,
        has_object=usable[usable],
    )
