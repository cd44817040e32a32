"""Where the panels of the window lie, for any window size and any shape of scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from foveasim import validation
from foveasim.drawing.canvas import Rect

__all__ = ["MIN_SIDE_PX", "Layout", "arrange"]

MIN_SIDE_PX = 160
"""Shortest side of a window in px: below it nothing can be read."""


@dataclass(frozen=True)
class Layout:
    """Rectangles of the panels, in px of the window.

    Attributes:
        size: (H, W) of the window.
        scale: Size of text and lines; 1 for 1280 x 720.
        title_px: Height of the row of titles above each panel.
        images: Each has the shape of the scene. First the two large ones, scene and prediction, then the small ones.
        plot: The running plot.
        status: The line at the bottom.
    """

    size: tuple[int, int]
    scale: float
    title_px: int
    images: tuple[Rect, ...]
    plot: Rect
    status: Rect

    def px(self, length: float) -> int:
        """Scale a length that was chosen for a 1280 x 720 window; at least 1 px."""
        return max(1, round(length * self.scale))

    def scene_point(self, x: float, y: float, size: tuple[int, int]) -> tuple[float, float] | None:
        """Return the point of the scene under a point of the window, or None where no image panel is.

        Args:
            x: px of the window.
            y: px of the window.
            size: (H, W) of the scene.
        """
        for rect in self.images:
            if rect.contains(x, y):
                return (x - rect.x) / rect.width * size[1], (y - rect.y) / rect.height * size[0]
        return None

    def scene_point_clamped(self, x: float, y: float, size: tuple[int, int], panel: int) -> tuple[float, float]:
        """Return the point of the scene nearest to a point of the window, seen through one panel: for dragging."""
        rect = self.images[panel]
        across = min(max((x - rect.x) / rect.width, 0.0), 1.0)
        down = min(max((y - rect.y) / rect.height, 0.0), 1.0)
        return across * size[1], down * size[0]

    def panel_at(self, x: float, y: float) -> int | None:
        """Return the index of the image panel under a point of the window, or None."""
        return next((i for i, rect in enumerate(self.images) if rect.contains(x, y)), None)


# A template takes the height of a large panel, the scene's width / height, the number of small panels, the gap and the
# title height, all in px, and returns the rectangles (images, plot) from (0, 0), or None where that cannot be.
_Rects = tuple[tuple[Rect, ...], Rect]
_Template = Callable[[int, float, int, int, int], _Rects]


def _under(height: int, aspect: float, small: int, gap: int, title: int) -> _Rects:
    """Two large panels side by side, beneath them the small ones and the plot."""
    width = max(1, round(height * aspect))
    total = 2 * width + gap
    low = max(1, min(round(0.4 * height), round(0.68 * total / small / aspect)))
    wide = max(1, round(low * aspect))
    y = title + height + gap + title
    large = Rect(0, title, width, height), Rect(width + gap, title, width, height)
    row = tuple(Rect(i * (wide + gap), y, wide, low) for i in range(small))
    return (*large, *row), Rect(small * (wide + gap), y, total - small * (wide + gap), low)


def _beside(height: int, aspect: float, small: int, gap: int, title: int) -> _Rects:
    """Two large panels, the plot beneath them, and a column of the small ones over the whole height."""
    width = max(1, round(height * aspect))
    low = (height + max(round(0.24 * height), 3 * title) - (small - 2) * (gap + title)) // small
    low = max(1, low)
    plot = small * low + (small - 2) * (gap + title) - height  # so that column and plot end on one line
    wide = max(1, round(low * aspect))
    x = 2 * (width + gap)
    large = Rect(0, title, width, height), Rect(width + gap, title, width, height)
    column = tuple(Rect(x, title + i * (low + gap + title), wide, low) for i in range(small))
    return (*large, *column), Rect(0, 2 * title + height + gap, x - gap, plot)


def _tiered(height: int, aspect: float, small: int, gap: int, title: int) -> _Rects:
    """Two large panels side by side, a row of small ones as wide as both, then the plot."""
    width = max(1, round(height * aspect))
    total = 2 * width + gap
    wide = max(1, (total - (small - 1) * gap) // small)
    low = max(1, round(wide / aspect))
    y = 2 * title + height + gap
    large = Rect(0, title, width, height), Rect(width + gap, title, width, height)
    row = tuple(Rect(i * (wide + gap), y, wide, low) for i in range(small))
    return (*large, *row), Rect(0, y + low + gap + title, total, max(round(0.35 * height), 3 * title))


def _stacked(height: int, aspect: float, small: int, gap: int, title: int) -> _Rects:
    """Two large panels one above the other, then a row of small ones, then the plot."""
    width = max(1, round(height * aspect))
    wide = max(1, (width - (small - 1) * gap) // small)
    low = max(1, round(wide / aspect))
    y = 3 * title + 2 * (height + gap)
    large = Rect(0, title, width, height), Rect(0, 2 * title + height + gap, width, height)
    row = tuple(Rect(i * (wide + gap), y, wide, low) for i in range(small))
    return (*large, *row), Rect(0, y + low + gap + title, width, max(round(0.35 * height), 3 * title))


@lru_cache(maxsize=64)
def arrange(size: tuple[int, int], scene_size: tuple[int, int], small: int = 3) -> Layout:
    """Place the panels so that the large ones are as large as can be.

    Args:
        size: (H, W) of the window, px.
        scene_size: (H, W) of the scene; only its shape matters.
        small: Number of small image panels.

    Raises:
        InvalidValueError: A side shorter than :data:`MIN_SIDE_PX`.
    """
    height, width = validation.size_hw("size", size, minimum=MIN_SIDE_PX)
    scale = min(max(math.sqrt(height * width / (720 * 1280)), 0.6), 6.0)
    margin, gap, title, status = (max(1, round(v * scale)) for v in (20, 16, 26, 34))
    aspect = scene_size[1] / scene_size[0]
    available = width - 2 * margin, height - margin - status - max(1, round(10 * scale))
    every = [
        _largest(template, available, aspect, small, gap, title) for template in (_under, _beside, _tiered, _stacked)
    ]
    fitting = [rects for rects in every if all(a <= b for a, b in zip(_extent(rects), available, strict=True))]
    images, plot = max(fitting, key=lambda rects: sum(r.width * r.height for r in rects[0]))
    block = _extent((images, plot))
    if all(
        rect.y + rect.height <= plot.y for rect in images
    ):  # a plot of its own row takes what is left, within reason
        plot = plot._replace(height=plot.height + min(max(0, available[1] - block[1]), plot.height))
        block = _extent((images, plot))
    x, y = margin + max(0, available[0] - block[0]) // 2, margin // 2 + max(0, available[1] - block[1]) // 2
    images = tuple(Rect(r.x + x, r.y + y, r.width, r.height) for r in images)
    plot = Rect(plot.x + x, plot.y + y, plot.width, plot.height)
    return Layout((height, width), scale, title, images, plot, Rect(margin, height - status, available[0], status))


def _largest(
    template: _Template, available: tuple[int, int], aspect: float, small: int, gap: int, title: int
) -> _Rects:
    """Fill a template with the largest panels that fit: a block grows with their height, so halving finds it."""
    low, high = 1, max(available)
    while low < high:
        half = (low + high + 1) // 2
        width, height = _extent(template(half, aspect, small, gap, title))
        low, high = (half, high) if width <= available[0] and height <= available[1] else (low, half - 1)
    return template(low, aspect, small, gap, title)


def _extent(rects: _Rects) -> tuple[int, int]:
    every = (*rects[0], rects[1])
    return max(r.x + r.width for r in every), max(r.y + r.height for r in every)
