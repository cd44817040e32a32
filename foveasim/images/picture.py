"""One picture: what a scene source delivers, how a file becomes one, and how it is fitted to a size."""

from __future__ import annotations

import functools
import io
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.geometry import MIN_SIDE_PX, resolution
from foveasim.trust import FORMATS

__all__ = [
    "CACHE_BYTES",
    "FITS",
    "MAX_PIXELS",
    "Picture",
    "PictureCache",
    "check_fit",
    "check_header",
    "check_index",
    "describe_source",
    "fit_picture",
    "flatten",
    "open_checked",
    "open_image",
    "read_picture",
]

MAX_PIXELS = 100_000_000
"""Largest picture that is decoded, px: 300 MB as RGB. A small file can claim far more (a decompression bomb)."""

CACHE_BYTES = 1 << 30
"""Default bound on the decoded pictures that a source keeps."""

MID_GREY = 128
"""What lies behind transparent pixels and in the bars of ``fit="pad"``: black and white content both stay visible on it
and, unlike a mean colour, it reveals nothing about pixels that the eye has not seen."""

FITS = ("crop", "pad", "stretch")
"""The ways of :func:`fit_picture`."""


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """One scene as an image, before it is put on a lane.

    Attributes:
        image: (H, W, 3) uint8, C-contiguous, sRGB. It may be shared with a cache: do not write to it.
        label: Index into the source's ``labels``, -1 where unknown.
        name: For people.
        px_per_deg: Pixels of ``image`` for one degree of visual angle.

    Raises:
        InvalidTypeError: ``image`` is no uint8 array.
        InvalidValueError: ``image`` is not (H, W, 3), or ``px_per_deg`` is not a positive number from 1e-9 to 1e12.
    """

    image: NDArray[np.uint8]
    label: int
    name: str
    px_per_deg: float

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            came = f"{type(image).__name__} of {image.dtype}" if hasattr(image, "dtype") else type(image).__name__
            raise InvalidTypeError(f"image of picture {self.name!r} must be a uint8 array (H, W, 3); got {came}.")
        if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE_PX:
            raise InvalidValueError(
                f"image of picture {self.name!r} must be (H, W, 3) with sides of at least {MIN_SIDE_PX} px; "
                f"got {image.shape}."
            )
        if not image.flags.c_contiguous:
            object.__setattr__(self, "image", np.ascontiguousarray(image))
        validation.number(
            "px_per_deg", self.px_per_deg, 1e-9, 1e12
        )  # beyond those of a source, for fitting scales them

    def __repr__(self) -> str:
        """Say its name, size and scale."""
        label = "" if self.label < 0 else f", label={self.label}"
        return f"Picture({self.name!r}, size={self.size}{label}, px_per_deg={self.px_per_deg:.4g})"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in px."""
        return self.image.shape[0], self.image.shape[1]


class PictureCache:
    """Caches the pictures that were used last, up to a number of bytes. Safe to use from several threads.

    Pickled or copied, it becomes an empty cache with the same bound: a worker process must not get decoded pictures.

    Args:
        max_bytes: Bound on the sum of the images' sizes. 0 caches nothing.

    Raises:
        InvalidTypeError: ``max_bytes`` is not a number.
        InvalidValueError: ``max_bytes`` is negative.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = int(validation.number("cache_bytes", max_bytes, 0))
        self.bytes = 0
        self._cached: OrderedDict[int, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[PictureCache], tuple[int]]:
        return PictureCache, (self.max_bytes,)

    def __len__(self) -> int:
        """Number of cached pictures."""
        return len(self._cached)

    def get(self, key: int) -> Picture | None:
        """Return the picture cached under ``key``, which becomes the most recently used one, or None."""
        with self._lock:
            found = self._cached.get(key)
            if found is not None:
                self._cached.move_to_end(key)
            return found

    def put(self, key: int, picture: Picture) -> None:
        """Cache ``picture``; the least recently used ones make room. One larger than the bound is not cached."""
        size = picture.image.nbytes
        if size > self.max_bytes:
            return
        with self._lock:
            before = self._cached.pop(key, None)
            self.bytes += size - (0 if before is None else before.image.nbytes)
            self._cached[key] = picture
            while self.bytes > self.max_bytes:
                _, dropped = self._cached.popitem(last=False)
                self.bytes -= dropped.image.nbytes


def check_index(index: int, count: int) -> int:
    """Return ``index`` as the number of a picture, 0 to ``count`` - 1.

    Raises:
        InvalidTypeError: Not a whole number.
        InvalidValueError: Out of range.
    """
    if isinstance(index, bool) or not isinstance(index, int | np.integer):
        raise InvalidTypeError(f"index must be a whole number; got {index!r} ({type(index).__name__}).")
    if not 0 <= index < count:
        raise InvalidValueError(f"index must be from 0 to {count - 1} (this source has {count} pictures); got {index}.")
    return int(index)


def describe_source(source: Sized, *facts: str) -> str:
    """Return the ``repr`` of a scene source: its class, how many scenes it has, its classes, and other facts.

    Example:
        >>> describe_source([1, 2], "size=(96, 96)")
        'list(2 scenes, size=(96, 96))'
    """
    labels: tuple[str, ...] = getattr(source, "labels", ())
    count = "1 scene" if len(source) == 1 else f"{len(source)} scenes"
    parts = (count, *([f"{len(labels)} classes"] if labels else []), *facts)
    return f"{type(source).__name__}({', '.join(parts)})"


@functools.cache
def _formats() -> tuple[str, ...]:
    """:data:`FORMATS` that this Pillow has, as it calls them: AVIF came with 11.3, and MPO is opened as JPEG."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _foreign_format(start: bytes) -> str | None:
    """Return the name of another format that Pillow would take a file for by its first bytes, opening nothing.

    CUR is left out: it begins as TGA does.
    """
    for name, (_, accepts) in Image.OPEN.items():
        try:
            if name not in (*FORMATS, "CUR") and accepts is not None and accepts(start):
                return name
        except Exception:  # of too few bytes
            continue
    return None


def open_image(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Open an image, reading no more than its header, if it is of one of :data:`FORMATS`. Everything here does it so.

    Pillow itself goes by the content, not by the name, and knows forty formats: EPS starts Ghostscript, an interpreter
    of a language that writes and deletes files; others open what they contain by rules of their own. TGA has no mark,
    and is taken for it only what is called so.

    Args:
        source: A file, or its content.
        name: For messages, with the ending; the path where None.

    Raises:
        SceneError: Missing, of another format, damaged, or larger than Pillow's bound.
    """
    name = str(source) if name is None else name
    formats = [form for form in _formats() if form != "TGA" or name.lower().endswith(FORMATS["TGA"])]
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats)
    except Image.DecompressionBombError as error:
        raise SceneError(f"{name}: larger than {MAX_PIXELS // 10**6} megapixels. Scale it down first.") from error
    except FileNotFoundError as error:
        raise SceneError(f"{name}: no such file. Check the path.") from error
    except UnidentifiedImageError as error:
        raise SceneError(f"{name}: not an image that can be read {_why_not(source)}") from error
    except Exception as error:  # Pillow's readers raise whatever a damaged header makes them stumble over
        raise SceneError(
            f"{name}: not an image that can be read ({error}). Remove it, or save it again as PNG or JPEG."
        ) from error


def _why_not(source: Path | bytes) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            source = file.read(16)
    found = _foreign_format(source[:16])
    known = ", ".join(FORMATS)
    if found is None:
        return f"(damaged, or none of {known}). Remove it, or save it again as PNG or JPEG."
    return f"(its content is {found}; {known} are read). Convert it to PNG or JPEG."


def open_checked(source: Path | bytes, name: str | None = None) -> Image.Image:
    """Open an image as :func:`open_image` does, and refuse one of a size that cannot be used.

    Raises:
        SceneError: As there, or under 8 px a side or over 100 megapixels.
    """
    name = str(source) if name is None else name
    with warnings.catch_warnings():
        # Pillow warns from 89 megapixels on; the bound here is MAX_PIXELS, checked below.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = open_image(source, name)
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise SceneError(
            f"{name}: {width} x {height} px is more than {MAX_PIXELS // 10**6} megapixels. Scale it down first."
        )
    if min(width, height) < MIN_SIDE_PX:
        image.close()
        raise SceneError(
            f"{name}: {width} x {height} px is too small; each side needs at least {MIN_SIDE_PX} px. Scale it up first."
        )
    return image


def check_header(path: Path) -> None:
    """Check that a file is an image of a usable size, without decoding it.

    Raises:
        SceneError: Not an image, under 8 px a side or over 100 megapixels.
    """
    open_checked(path).close()


def flatten(image: Image.Image) -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode into RGB.

    Transparent pixels are laid over mid-grey (128). 16-bit grey is scaled, 65535 becoming 255, and float grey is taken
    as 0 to 1. CMYK is converted without a colour profile, as Pillow does.

    Returns:
        (H, W, 3) uint8, C-contiguous.

    Raises:
        InvalidValueError: 32-bit grey beyond 16 bits, or float grey outside of 0 to 1: their scale is unknown.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidValueError(f"32-bit grey from {values.min()} to {values.max()}; convert it to 8 or 16 bits")
        return _grey_to_rgb(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        levels = np.asarray(image)
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 1):
            raise InvalidValueError("float grey outside of 0 to 1; convert it to 8 or 16 bits")
        return _grey_to_rgb(np.rint(levels * 255).astype(np.uint8))
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (MID_GREY, MID_GREY, MID_GREY, 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def read_picture(path: Path, *, label: int = -1, name: str | None = None, px_per_deg: float | None = None) -> Picture:
    """Decode an image file: turned upright by its EXIF orientation, first frame of an animation, RGB (:func:`flatten`).

    Args:
        path: A file of one of :data:`FORMATS`.
        label: Class, -1 where unknown.
        name: The picture's name; the file's where None.
        px_per_deg: Of the file's pixels; None makes its short side span 27.4 degrees.

    Raises:
        SceneError: Missing, truncated, not an image, under 8 px a side or over 100 megapixels.
    """
    with open_checked(path) as image:
        try:
            array = flatten(ImageOps.exif_transpose(image))
        except Exception as error:  # as in open_image
            raise SceneError(
                f"{path}: damaged or of an unusable kind ({error}). Remove it, or save it again as PNG or JPEG."
            ) from error
    size = (array.shape[0], array.shape[1])
    return Picture(array, label, path.name if name is None else name, resolution(px_per_deg, size))


def check_fit(size: tuple[int, int] | None, fit: str) -> tuple[int, int] | None:
    """Return ``size`` as (H, W) or None.

    Raises:
        InvalidTypeError: ``size`` is not a pair of whole numbers.
        InvalidValueError: A side is under 8 px or over 16384 px, or ``fit`` is not one of :data:`FITS`.
    """
    validation.choice("fit", fit, FITS)
    return None if size is None else validation.size_hw("size", size, MIN_SIDE_PX)


def fit_picture(picture: Picture, size: tuple[int, int] | None, fit: str = "crop") -> Picture:
    """Bring a picture to a size.

    Shrinking averages areas, enlarging interpolates cubically. ``px_per_deg`` is scaled along.

    Args:
        picture: Any size.
        size: (H, W) in px; None leaves the picture as it is.
        fit: ``"crop"`` scales until the size is covered and keeps the centre. ``"pad"`` scales until the picture fits
            inside and adds mid-grey (128) bars. ``"stretch"`` scales both sides on their own; ``px_per_deg`` is then
            scaled by the geometric mean of the two factors.

    Returns:
        A picture of ``size``. One that already has it is returned itself, not copied.

    Raises:
        InvalidTypeError: ``size`` is not a pair of whole numbers.
        InvalidValueError: A side of ``size`` is out of range, or ``fit`` is unknown.

    Example:
        >>> wide = Picture(np.zeros((48, 128, 3), np.uint8), -1, "wide", 2.0)
        >>> crop = fit_picture(wide, (96, 96))
        >>> crop.size, crop.px_per_deg
        ((96, 96), 4.0)
        >>> fit_picture(wide, (96, 96), "pad").px_per_deg
        1.5
    """
    size = check_fit(size, fit)
    if size is None or size == picture.size:
        return picture
    scale_y, scale_x = size[0] / picture.size[0], size[1] / picture.size[1]
    if fit == "crop":
        scale = max(scale_y, scale_x)
        image = _crop(picture.image, size, scale)
    elif fit == "pad":
        scale = min(scale_y, scale_x)
        image = _pad(picture.image, size, scale)
    else:
        scale = math.sqrt(scale_y * scale_x)
        image = _resize(picture.image, size)
    return replace(picture, image=image, px_per_deg=picture.px_per_deg * scale)


def _crop(image: NDArray[np.uint8], size: tuple[int, int], scale: float) -> NDArray[np.uint8]:
    """Cut the rows and columns that will be seen, scale them, and trim what rounding outwards added.

    Scaling the whole picture first would make a long thin one of 100 megapixels many gigabytes.
    """
    cuts: list[tuple[slice, int, slice]] = []
    for side, target in zip(image.shape[:2], size, strict=True):
        start = (side - target / scale) / 2
        first, last = max(0, math.floor(start + 1e-6)), min(side, math.ceil(side - start - 1e-6))
        scaled = max(target, round((last - first) * scale))
        offset = (scaled - target) // 2
        cuts.append((slice(first, last), scaled, slice(offset, offset + target)))
    rows, cols = cuts
    scaled_image = _resize(image[rows[0], cols[0]], (rows[1], cols[1]))
    return np.ascontiguousarray(scaled_image[rows[2], cols[2]])


def _pad(image: NDArray[np.uint8], size: tuple[int, int], scale: float) -> NDArray[np.uint8]:
    height, width = (
        min(maximum, max(1, round(side * scale))) for side, maximum in zip(image.shape[:2], size, strict=True)
    )
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    padded = np.full((*size, 3), MID_GREY, np.uint8)
    padded[top : top + height, left : left + width] = _resize(image, (height, width))
    return padded


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale to (H, W): first the sides that shrink, by areas, then those that grow, cubically."""
    import cv2  # not at the top: it would add 60 ms to `import foveasim`

    shrunk = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
    result: Any = image
    if shrunk != image.shape[:2]:
        result = cv2.resize(result, (shrunk[1], shrunk[0]), interpolation=cv2.INTER_AREA)
    if size != shrunk:
        result = cv2.resize(result, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(result, dtype=np.uint8)
