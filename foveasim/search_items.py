"""What visual search displays are made of: discs, squares, letters, gratings and round crops, painted antialiased."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "GREY", "SHAPES", "Item", "paint_item", "portrait"]

GREY = 0.5
"""Level of the ground on which items lie, in all three channels."""

SHAPES = ("disc", "square", "T", "L", "grating", "crop")

COLOURS = (
    (0.86, 0.20, 0.18),  # red
    (0.16, 0.62, 0.22),  # green
    (0.20, 0.36, 0.92),  # blue
    (0.88, 0.76, 0.12),  # yellow
    (0.74, 0.24, 0.78),  # magenta
    (0.12, 0.72, 0.78),  # cyan
)
"""Hues a sixth of a turn apart, so that any two differ."""

_DISC, _SQUARE = 0.88, 0.78  # of the radius; equal areas: pi 0.88² = (2 x 0.78)²
_LONG, _THICK = 0.85, 0.2  # half length and half thickness of a letter's bars, of the radius
_WAVE = 0.7  # wavelength of a grating, of the radius
_CONTRAST = 0.42
_FEATHER_PX = 2.0  # the rim over which a crop fades

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Item:
    """One thing of a search display.

    Attributes:
        shape: One of :data:`SHAPES`.
        colour: (R, G, B) in [0, 1]; without meaning for gratings and crops.
        angle: Of letters and gratings, radians, clockwise as y points down.
        phase: Of a grating, radians.
        crop: (d, d, 3) float64 in [0, 1], what a crop shows, d twice the radius.
    """

    shape: str
    colour: tuple[float, float, float] = (GREY, GREY, GREY)
    angle: float = 0.0
    phase: float = 0.0
    crop: Float | None = None


def paint_item(levels: Float, item: Item, centre_px: tuple[float, float], radius_px: float) -> None:
    """Paint an item into a picture, in place, clipped at the edges.

    Args:
        levels: (H, W, 3) float64.
        item: What to paint.
        centre_px: (x, y), px.
        radius_px: Of the circle that it fills, px.
    """
    reach = radius_px + 1
    left, top = (max(0, math.floor(at - reach)) for at in centre_px)
    window = levels[top : max(0, math.ceil(centre_px[1] + reach)), left : max(0, math.ceil(centre_px[0] + reach))]
    y, x = np.mgrid[0 : window.shape[0], 0 : window.shape[1]] + 0.5
    x, y = x + (left - centre_px[0]), y + (top - centre_px[1])
    if item.crop is not None:
        cover = np.clip((radius_px - np.hypot(x, y)) / _FEATHER_PX, 0, 1)[..., None]
        column = np.clip((x[0] + radius_px).astype(int), 0, item.crop.shape[1] - 1)
        row = np.clip((y[:, 0] + radius_px).astype(int), 0, item.crop.shape[0] - 1)
        ink: Float | tuple[float, float, float] = item.crop[np.ix_(row, column)]
    elif item.shape == "grating":
        cover = _cover(np.hypot(x, y) - radius_px)
        along = math.cos(item.angle) * x + math.sin(item.angle) * y
        ink = (GREY + _CONTRAST * np.sin(along * (2 * math.pi / (_WAVE * radius_px)) + item.phase))[..., None]
    else:
        cover, ink = _cover(_distance(item, x / radius_px, y / radius_px) * radius_px), item.colour
    window *= 1 - cover
    window += np.asarray(ink) * cover


def _cover(outside_px: Float) -> Float:
    """Share of a pixel that lies inside, from its signed distance: antialiased over one pixel."""
    return np.clip(0.5 - outside_px, 0, 1)[..., None]


def _distance(item: Item, x: Float, y: Float) -> Float:
    """Signed distance from the outline, in radii, of points in radii."""
    if item.shape == "disc":
        return np.hypot(x, y) - _DISC
    if item.shape == "square":
        return _bar(x, y, _SQUARE, _SQUARE)
    cos, sin = math.cos(item.angle), math.sin(item.angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    end = _LONG - _THICK
    if item.shape == "T":
        return np.minimum(_bar(x, y + end, _LONG, _THICK), _bar(x, y, _THICK, _LONG))
    return np.minimum(_bar(x, y - end, _LONG, _THICK), _bar(x + end, y, _THICK, _LONG))


def _bar(x: Float, y: Float, half_width: float, half_height: float) -> Float:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def portrait(item: Item, radius_px: float, side_px: int) -> NDArray[np.uint8]:
    """Return an item in the middle of a grey square, (side, side, 3) uint8: what to look for, as large as it is."""
    levels = np.full((side_px, side_px, 3), GREY)
    # On the same pixel phase as in the display, where items begin at whole pixels.
    middle = round(side_px / 2 - radius_px) + radius_px
    paint_item(levels, item, (middle, middle), radius_px)
    shown: NDArray[np.uint8] = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    return shown
