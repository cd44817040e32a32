"""Labelled procedural scenes whose class shows at a few places only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.images.picture import Picture, check_index
from foveasim.rng import uniform
from foveasim.scenes.procedural import ProceduralScenes
from foveasim.scenes.search import GREY, SEARCH_SPLITS

__all__ = ["SignScenes"]

_STEP = 0.3  # of a light or dark disc from the ground
_SPREAD = 0.1  # range of the ground's level, and of each disc's
_DISC = 0.88  # diameter of a disc, in cells
_CODE = -1  # number of the draw that places the class; displays count from 0

Float = NDArray[np.float64]


class SignScenes(ProceduralScenes):
    """Light and dark discs in the cells of a grid, of which a few encode the class and the others nothing.

    Class c is written in binary: one cell for each bit, light for 1. The other cells are light or dark at random. Where
    the cells of the code lie depends on the seed alone, so that a gaze policy can learn to look there. They lie at the
    border of the grid, away from the middle, where eyes start, and no two side by side as long as there is room.

    Args:
        classes: Number of classes, equally frequent.
        cells: (rows, columns) of the grid.
        split: "train" or "test": scenes of different draws, of the same code.
        size: (H, W) in px.
        count: Number of scenes; scene i is of class i modulo ``classes``.
        seed: Different seeds give other scenes and another code.
        px_per_deg: Of the scenes' pixels; None makes the short side span 27.4 degrees.
        cache_bytes: Bound on the pictures that are cached.

    Raises:
        InvalidTypeError: An argument of a wrong type.
        InvalidValueError: An argument out of range, or too few cells for the code.

    Example:
        >>> scenes = SignScenes(classes=4)
        >>> scenes.labels[scenes.picture(5).label], scenes.code_norm.shape
        ('sign 1', (2, 2))
    """

    kind = "sign"

    def __init__(
        self,
        *,
        classes: int = 4,
        cells: tuple[int, int] = (5, 5),
        split: str = "train",
        size: tuple[int, int] = (96, 96),
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(size=size, count=count, seed=seed, px_per_deg=px_per_deg, cache_bytes=cache_bytes)
        classes = validation.whole("classes", classes, 2, 256)
        self.cells = validation.size_hw("cells", cells, 1, 64)
        self.split = validation.choice("split", split, SEARCH_SPLITS)
        self.labels = tuple(f"sign {number}" for number in range(classes))
        bits = math.ceil(math.log2(classes))
        rows, cols = self.cells
        row, col = np.divmod(np.arange(rows * cols), cols)
        border = np.flatnonzero((row == 0) | (row == rows - 1) | (col == 0) | (col == cols - 1))
        if len(border) < bits or min(self.cells) < 3:
            raise InvalidValueError(
                f"cells must be at least (3, 3), with {bits} at the border for {classes} classes; got {self.cells}."
            )
        drawn = border[np.argsort(self._draw(uniform, _CODE, 0, len(border)))]
        self._where = np.array(_apart(drawn.tolist(), cols)[:bits])
        high, wide = self.size[0] / rows, self.size[1] / cols
        y, x = np.mgrid[0 : self.size[0], 0 : self.size[1]] + 0.5
        self._cell = (y // high).astype(int) * cols + (x // wide).astype(int)
        outside = np.hypot(y % high - high / 2, x % wide - wide / 2) - _DISC * min(high, wide) / 2
        self._cover = np.clip(0.5 - outside, 0, 1)  # antialiased over one pixel

    @property
    def code_norm(self) -> NDArray[np.float32]:
        """(bits, 2) float32, normalised: the middles of the cells that encode the class, the highest bit first."""
        rows, cols = self.cells
        row, col = np.divmod(self._where, cols)
        return np.stack(((2 * col + 1) / cols - 1, (2 * row + 1) / rows - 1), 1).astype(np.float32)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return a scene with its class; see :meth:`foveasim.scenes.source.SceneSource.picture`."""
        label = check_index(index, len(self)) % len(self.labels)
        return replace(super().picture(index), label=label, name=f"{self.kind} {label}, {index}")

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64 in [0, 1]."""
        rows, cols = self.cells
        u = self._draw(uniform, 2 * index + SEARCH_SPLITS.index(self.split), 1, 2 * rows * cols + 1)
        light = u[: rows * cols] < 0.5
        bits = len(self._where)
        label = index % len(self.labels)
        light[self._where] = [(label >> (bits - 1 - bit)) & 1 for bit in range(bits)]
        ground = GREY + _SPREAD * (u[-1] - 0.5)
        level = ground + np.where(light, _STEP, -_STEP) + _SPREAD * (u[rows * cols : -1] - 0.5)
        grey = ground + self._cover * (level[self._cell] - ground)
        return np.repeat(grey[..., None], 3, axis=2)


def _apart(cells: list[int], cols: int) -> list[int]:
    """Return cells in their order, but those that touch an earlier one last."""
    first: list[int] = []
    for cell in cells:
        row, col = divmod(cell, cols)
        if all(max(abs(row - one // cols), abs(col - one % cols)) > 1 for one in first):
            first.append(cell)
    return [*first, *(cell for cell in cells if cell not in first)]
