"""Text, lines, discs and colour maps on RGB arrays, antialiased at any size, drawn in place and clipped at the edges.

Convention:
    A canvas is (H, W, 3) uint8. Points are (x, y) in px, and pixel centres lie at +0.5.
"""

from __future__ import annotations

import math
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

__all__ = [
    "Colour",
    "Image",
    "Rect",
    "blend_rect",
    "colour_map",
    "disc",
    "fit_text",
    "fit_to",
    "lines",
    "ring",
    "text",
    "text_width",
    "wrap_text",
]

Image: TypeAlias = NDArray[np.uint8]
Colour: TypeAlias = tuple[int, int, int]

_MAX_RESIZED = 16  # resized pictures: those of the panels, twice over
_FINE = 4  # text is drawn this many times larger than it is shown
_SHIFT = 4  # cv2 takes fractional coordinates as integers with this many binary places
_GLYPHS = frozenset(map(chr, range(32, 127))) | frozenset("·±°…“”‘’")  # what Pillow's built-in font can show


class Rect(NamedTuple):
    """A rectangle in whole px."""

    x: int
    y: int
    width: int
    height: int

    def contains(self, x: float, y: float) -> bool:
        """Whether a point lies inside; the left and upper edges belong to it, the others do not."""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height

    def crop(self, canvas: Image) -> Image:
        """Return the part of a canvas under the rectangle, not a copy."""
        return canvas[self.y : self.y + self.height, self.x : self.x + self.width]


@lru_cache(maxsize=64)
def _font(px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "Pillow was built without FreeType; install a Pillow wheel: pip install --force-reinstall Pillow"
        )
    return font


def _plain(string: str) -> str:
    """Replace what the font cannot show: accents are dropped, other letters become question marks."""
    if all(c in _GLYPHS for c in string):
        return string
    apart = unicodedata.normalize("NFKD", string)
    return "".join(c if c in _GLYPHS else "?" for c in apart if not unicodedata.combining(c))


@lru_cache(maxsize=4096)
def text_width(string: str, px: int) -> int:
    """Return how wide a line of text is, in px."""
    return math.ceil(_font(px * _FINE).getlength(_plain(string)) / _FINE)


@lru_cache(maxsize=2048)
def _stamp(string: str, px: int, colour: Colour) -> tuple[NDArray[np.uint16], NDArray[np.uint16], int, int]:
    """Return 255 minus the coverage, colour times coverage, and the offset of the ink from the baseline."""
    # Drawn large and averaged down: at text sizes the font's own hinting closes the spaces between words.
    mask, (left, top) = _font(px * _FINE).getmask2(_plain(string), mode="L", anchor="ls")
    width, height = mask.size
    x0, y0 = math.floor(left / _FINE), math.floor(top / _FINE)
    x1, y1 = math.ceil((left + width) / _FINE), math.ceil((top + height) / _FINE)
    large = np.zeros(((y1 - y0) * _FINE, (x1 - x0) * _FINE), np.uint8)
    row, column = round(top - y0 * _FINE), round(left - x0 * _FINE)
    large[row : row + height, column : column + width] = np.asarray(mask, dtype=np.uint8).reshape(height, width)
    cover = cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)[..., None].astype(np.uint16)
    return 255 - cover, cover * np.array(colour, np.uint16) + 127, x0, y0


def text(
    canvas: Image,
    x: float,
    y: float,
    string: str,
    px: int,
    colour: Colour,
    *,
    align: str = "left",
    middle: bool = False,
) -> int:
    """Draw one line of text.

    Args:
        canvas: Drawn on in place.
        x: Its left edge, its centre or its right edge, as ``align`` says.
        y: Its baseline, or the middle of its capitals where ``middle`` is set.
        string: The text. What Pillow's font does not have is shown without its accent or as a question mark.
        px: Font size.
        colour: RGB.
        align: ``"left"``, ``"centre"`` or ``"right"``.
        middle: See ``y``.

    Returns:
        How wide it is, px.
    """
    width = text_width(string, px)
    if not string.strip():
        return width
    inverse_cover, ink, left, top = _stamp(string, px, colour)
    x0 = round(x - {"left": 0.0, "centre": width / 2, "right": float(width)}[align]) + left
    y0 = round(y + (0.36 * px if middle else 0)) + top  # capitals of the font are 0.72 of its size
    height, wide = inverse_cover.shape[:2]
    top_row, left_column = max(0, -y0), max(0, -x0)
    bottom_row, right_column = min(height, canvas.shape[0] - y0), min(wide, canvas.shape[1] - x0)
    if top_row < bottom_row and left_column < right_column:
        under = canvas[y0 + top_row : y0 + bottom_row, x0 + left_column : x0 + right_column]
        part = slice(top_row, bottom_row), slice(left_column, right_column)
        under[:] = ((under * inverse_cover[part] + ink[part]) // 255).astype(np.uint8)
    return width


def fit_text(string: str, px: int, width: float) -> str:
    """Shorten a line with an ellipsis until it is at most ``width`` px wide; empty if not even that fits."""
    if text_width(string, px) <= width:
        return string
    low, high = 0, len(string)
    while low < high:
        half = (low + high + 1) // 2
        if text_width(string[:half].rstrip() + "…", px) <= width:
            low = half
        else:
            high = half - 1
    return string[:low].rstrip() + "…" if low else ""


def wrap_text(string: str, px: int, width: float, max_rows: int) -> list[str]:
    """Break a text at its spaces into at most ``max_rows`` lines of at most ``width`` px, the last one shortened."""
    rows: list[str] = []
    words = string.split()
    while words and len(rows) < max_rows:
        count = 1
        while count < len(words) and text_width(" ".join(words[: count + 1]), px) <= width:
            count += 1
        row_words = words if len(rows) == max_rows - 1 else words[:count]
        rows.append(fit_text(" ".join(row_words), px, width))
        words = words[len(row_words) :]
    return rows


def _fixed(points: NDArray[np.float32] | Sequence[Sequence[float]]) -> NDArray[np.int32]:
    # cv2 counts from the middle of the first pixel, this package from its edge
    return np.round((np.asarray(points, np.float64) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def lines(
    canvas: Image, points: NDArray[np.float32] | Sequence[Sequence[float]], colour: Colour, width_px: float
) -> None:
    """Draw a polyline through points (N, 2)."""
    if len(points) > 1:
        thickness = max(1, round(width_px))
        cv2.polylines(canvas, [_fixed(points).reshape(-1, 1, 2)], False, colour, thickness, cv2.LINE_AA, _SHIFT)


def disc(canvas: Image, x: float, y: float, radius_px: float, colour: Colour) -> None:
    """Draw a filled disc."""
    _circle(canvas, x, y, radius_px, colour, -1)


def ring(canvas: Image, x: float, y: float, radius_px: float, colour: Colour, width_px: float) -> None:
    """Draw a circle."""
    _circle(canvas, x, y, radius_px, colour, max(1, round(width_px)))


def _circle(canvas: Image, x: float, y: float, radius_px: float, colour: Colour, thickness: int) -> None:
    centre = _fixed([[x, y]])[0]
    radius = round(radius_px * (1 << _SHIFT))
    cv2.circle(canvas, (int(centre[0]), int(centre[1])), radius, colour, thickness, cv2.LINE_AA, _SHIFT)


def blend_rect(canvas: Image, rect: Rect, colour: Colour, opacity: float) -> None:
    """Lay a translucent colour over a rectangle that lies inside the canvas."""
    under = rect.crop(canvas)
    if under.size:
        cv2.addWeighted(under, 1 - opacity, np.full_like(under, colour), opacity, 0, dst=under)


@lru_cache(maxsize=8)
def _table(name: str) -> Image:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    maps = {"inferno": cv2.COLORMAP_INFERNO, "viridis": cv2.COLORMAP_VIRIDIS, "magma": cv2.COLORMAP_MAGMA}
    table = cv2.applyColorMap(ramp, maps[name])[:, 0, ::-1]
    return np.ascontiguousarray(table)


def colour_map(values: NDArray[np.uint8], name: str = "inferno") -> Image:
    """Colour an (H, W) uint8 map: perceptually uniform and readable without colour vision.

    Returns:
        (H, W, 3) uint8.
    """
    table = _table(name)
    return table[values]


_fitted: OrderedDict[tuple[int, int, int], tuple[Image, Image]] = OrderedDict()


def fit_to(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an (H, W) or (H, W, 3) uint8 picture for the screen, averaged when it shrinks and smooth when it grows.

    The last results for read-only arrays are cached (resizing five takes 6 ms of a frame's 16), so whoever marks
    an array read-only promises not to change it by another view either.

    Args:
        image: The picture.
        size: (H, W) wanted.

    Returns:
        The resized picture, which must not be written to.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    key = (id(image), height, width)
    if key in _fitted and _fitted[key][0] is image:
        _fitted.move_to_end(key)
        return _fitted[key][1]
    shrinks = height < image.shape[0] or width < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC if min(image.shape[:2]) < 200 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=interpolation).astype(np.uint8, copy=False)
    if not image.flags.writeable:
        _fitted[key] = image, resized
        while len(_fitted) > _MAX_RESIZED:
            _fitted.popitem(last=False)
    return resized
