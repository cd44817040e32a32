"""Footprints: what a retina does at every offset from the fixated pixel, tabulated once and shifted at every glimpse.

A table belongs to a scene size, a px_per_deg and a zoom. So that scenes of many sizes share tables, px_per_deg is taken
to three significant digits (the acuity of no pixel moves by more than 0.5 %) and zoom to two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Footprints", "offset_distance_px", "offset_index"]

Build = Callable[[tuple[int, int], float, float], tuple[NDArray[np.generic], ...]]


def offset_distance_px(size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the distance from the fixated pixel by (|dy|, dx): (H, 2 W - 1) float64, px; dx = 0 in the middle."""
    height, width = size
    return np.hypot(np.arange(height)[:, None], np.arange(1 - width, width)[None])


def offset_index(gaze: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where each pixel's offset stands in a table flattened from (H, 2 W - 1).

    Args:
        gaze: (B, 2) int64, (column, row) of the fixated pixel.
        size: (H, W).

    Returns:
        (B, H, W) int64.
    """
    height, width = size
    y = torch.arange(height, device=gaze.device)
    x = torch.arange(width, device=gaze.device)
    away = (y[None] - gaze[:, 1:2]).abs() * (2 * width - 1)
    return away[:, :, None] + (x[None] - gaze[:, 0:1] + width - 1)[:, None, :]


class Footprints:
    """The tables that a retina has needed so far.

    Args:
        build: Makes the arrays of one table from (size, px_per_deg, zoom).
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._index: dict[tuple[tuple[int, int], float, float], int] = {}
        self._tables: dict[tuple[int, int], tuple[NDArray[np.generic], ...]] = {}
        self._on_device: dict[tuple[tuple[int, int], str], tuple[int, tuple[Tensor, ...]]] = {}

    def lookup(self, size: tuple[int, int], px_per_deg: Tensor, zoom: Tensor | None = None) -> Tensor:
        """Return the table of each lane, (B,) int64, building what is missing.

        Args:
            size: (H, W) of the scenes.
            px_per_deg: (B,) float32.
            zoom: (B,) float32, or None for 1.
        """
        zooms = [1.0] * len(px_per_deg) if zoom is None else zoom.tolist()
        found = [self._number(size, float(f"{p:.3g}"), float(f"{z:.2g}")) for p, z in zip(px_per_deg.tolist(), zooms, strict=True)]
        return torch.tensor(found, dtype=torch.int64, device=px_per_deg.device)

    def arrays(self, size: tuple[int, int]) -> tuple[NDArray[np.generic], ...]:
        """Return the tables of a size, stacked: each (T, …)."""
        return self._tables[size]

    def tensors(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
        """Return :meth:`arrays` as tensors on a device."""
        count = len(self._tables[size][0])
        cached = self._on_device.get((size, str(device)))
        if cached is None or cached[0] != count:
            cached = (count, tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in self._tables[size]))
            self._on_device[(size, str(device))] = cached
        return cached[1]

    def _number(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> int:
        key = (size, px_per_deg, zoom)
        number = self._index.get(key)
        if number is None:
            new = tuple(np.ascontiguousarray(a)[None] for a in self._build(size, px_per_deg, zoom))
            old = self._tables.get(size)
            self._tables[size] = new if old is None else tuple(np.concatenate(p) for p in zip(old, new, strict=True))
            number = len(self._tables[size][0]) - 1
            self._index[key] = number
        return number
