"""Tables of what a retina does at every offset from the fixated pixel, made once and shifted at every glimpse.

A table belongs to a scene size, a px_per_deg and a zoom. So that scenes of many sizes share tables, px_per_deg is taken
to three significant digits (the acuity of no pixel moves by more than 0.5 %) and zoom to two.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.errors import InvalidValueError

__all__ = ["AcuityTables", "offset_distance_px", "offset_index", "signed_offset_index"]

Build = Callable[[tuple[int, int], float, float], tuple[NDArray[Any], ...]]


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


def signed_offset_index(gaze: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where each pixel's offset stands in a table flattened from (2 H - 1, 2 W - 1), by (dy, dx).

    Args:
        gaze: (B, 2) int64, (column, row) of the fixated pixel.
        size: (H, W).

    Returns:
        (B, H, W) int64.
    """
    height, width = size
    y = torch.arange(height, device=gaze.device)
    x = torch.arange(width, device=gaze.device)
    down = (y[None] - gaze[:, 1:2] + height - 1) * (2 * width - 1)
    return down[:, :, None] + (x[None] - gaze[:, 0:1] + width - 1)[:, None, :]


class AcuityTables:
    """The tables that a retina has needed so far.

    Args:
        build: Makes the arrays of one table from (size, px_per_deg, zoom).
        max_bytes: Bound on the size of the tables. Those of the sizes not used for longest go first, and are built
            again when they are needed; those of the size in use stay, whatever they take.
    """

    def __init__(self, build: Build, max_bytes: int = 1 << 28) -> None:
        self._build = build
        self._max_bytes = max_bytes
        self._numbers: dict[tuple[int, int], dict[tuple[float, float], int]] = {}
        self._tables: OrderedDict[tuple[int, int], tuple[NDArray[Any], ...]] = OrderedDict()
        self._on_device: dict[tuple[tuple[int, int], str], tuple[int, tuple[Tensor, ...]]] = {}

    def lookup(self, size: tuple[int, int], px_per_deg: Tensor, zoom: Tensor | None = None) -> Tensor:
        """Return the table of each lane, (B,) int64.

        Args:
            size: (H, W) of the scenes.
            px_per_deg: (B,) float32.
            zoom: (B,) float32, or None for 1.
        """
        numbers = self._numbers.setdefault(size, {})
        zooms = [1.0] * len(px_per_deg) if zoom is None else zoom.tolist()
        found = [
            numbers.setdefault((float(f"{p:.3g}"), float(f"{z:.2g}")), len(numbers))
            for p, z in zip(px_per_deg.tolist(), zooms, strict=True)
        ]
        return torch.tensor(found, dtype=torch.int64, device=px_per_deg.device)

    def arrays(self, size: tuple[int, int]) -> tuple[NDArray[Any], ...]:
        """Return the tables of a size, stacked, each (T, …), building what is missing.

        Raises:
            InvalidValueError: No scene of this size was looked up.
        """
        numbers = self._numbers.get(size)
        if numbers is None:
            raise InvalidValueError(
                "prepared comes from another retina; sense with the retina whose prepare() made it."
            )
        tables = self._tables.get(size)
        if tables is None or len(tables[0]) < len(numbers):
            tables = self._extend(size, tables, list(numbers))
        return tables

    def tensors(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
        """Return :meth:`arrays` as tensors on a device."""
        tables = self.arrays(size)
        cached = self._on_device.get((size, str(device)))
        if cached is None or cached[0] != len(tables[0]):
            cached = (len(tables[0]), tuple(torch.from_numpy(table).to(device) for table in tables))
            self._on_device[(size, str(device))] = cached
        return cached[1]

    def _extend(
        self, size: tuple[int, int], tables: tuple[NDArray[Any], ...] | None, keys: list[tuple[float, float]]
    ) -> tuple[NDArray[Any], ...]:
        built = [] if tables is None else [tables]
        for px_per_deg, zoom in keys[0 if tables is None else len(tables[0]) :]:
            built.append(tuple(np.ascontiguousarray(a)[None] for a in self._build(size, px_per_deg, zoom)))
        extended = tuple(np.concatenate(parts) for parts in zip(*built, strict=True))
        self._tables[size] = extended
        self._tables.move_to_end(size)
        total = sum(table.nbytes for tables in self._tables.values() for table in tables)
        while total > self._max_bytes and len(self._tables) > 1:
            old, dropped = self._tables.popitem(last=False)
            total -= sum(table.nbytes for table in dropped)
            self._on_device = {key: value for key, value in self._on_device.items() if key[0] != old}
        return extended
