"""Scanpaths compared as strings of grid cells: ScanMatch and the string edit distance.

Convention:
    A grid is (columns, rows). A fixation belongs to the column floor(x columns / W), and likewise to a row; points on
    or beyond an edge belong to the cell at that edge.

    ========================  ================  =====  =========
    on a 600 x 800 image       grid              cell   symbol
    ========================  ================  =====  =========
    (0, 0)                     (16, 12)          0, 0   0
    (49.9, 50)                 (16, 12)          0, 1   16
    (800, 600)                 (16, 12)          15, 11 191
    (400, 300)                 (5, 5)            2, 2   12
    ========================  ================  =====  =========
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError
from foveasim.metrics.pairs import PackedPaths, pack_paths
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["nearest_distances", "scanmatch", "string_edit_distance"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def _grid(value: object) -> tuple[int, int]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidTypeError(f"grid must be a pair (columns, rows) of whole numbers; got {value!r}.")
    return validation.whole("grid[0]", value[0], 1, 100), validation.whole("grid[1]", value[1], 1, 100)


def _symbols(paths: PackedPaths, size: tuple[int, int], grid: tuple[int, int]) -> I64:
    place = np.floor(paths.fixation_px * (np.array(grid) / np.array([size[1], size[0]])))
    cells: I64 = np.clip(place, 0, np.array(grid) - 1).astype(np.int64)
    symbols: I64 = cells[:, 0] + grid[0] * cells[:, 1]
    return symbols


def _repeat(symbols: I64, times: I64, start: I64) -> tuple[I64, I64]:
    ends = np.concatenate(([0], np.cumsum(times)))
    return np.repeat(symbols, times), ends[start]


def scanmatch(
    first: Sequence[Scanpath],
    second: Sequence[Scanpath],
    size: tuple[int, int],
    *,
    grid: tuple[int, int] = (16, 12),
    threshold: float = 3.5,
    gap: float = 0.0,
    bin_ms: float | None = None,
) -> F64:
    """Return the ScanMatch score of every pair of scanpaths.

    Each scanpath becomes a string of the grid cells that it fixates. Two strings are aligned so that the sum of their
    scores is greatest (Needleman-Wunsch): two cells that face each other score ``threshold`` minus their distance in
    cells, a cell that faces none scores ``gap``. The sum is divided by ``threshold`` times the length of the longer
    string, so that equal strings score 1. With ``gap=0`` no score is below 0. The score moves a lot with the grid
    (people on OSIE: 0.39 with 16 x 12 cells, 0.50 with 8 x 6): never compare scores of different grids.

    Convention:
        Cells (0, 0) and (1, 1) score 3.5 - 1.41 = 2.09 against each other; alone in their strings 2.09 / 3.5 = 0.596.
        With ``bin_ms=50`` a fixation of 120 ms is written round(120 / 50) = 2 times, one of 125 ms twice (half to
        even), one of less than 25 ms not at all.

    Args:
        first: N scanpaths, px of an image of ``size``.
        second: M scanpaths, of the same image.
        size: (H, W), px.
        grid: (columns, rows). The default, with the threshold and the gap, is the one of the work on OSIE.
        threshold: Distance in cells at which two cells no longer score more than none. Cristino et al. advise two
            standard deviations of the saccade amplitude, which on OSIE would be 5.2; 3.5 is what others use there.
        gap: 0 or less.
        bin_ms: None: one symbol a fixation. A number: one symbol for each so many ms, on the duration without
            fractions of a ms; 50 is usual.

    Returns:
        (N, M) float64; nan where a string is empty.

    Raises:
        InvalidTypeError: Not scanpaths, or a setting of another type.
        InvalidValueError: No scanpath, or a setting out of range.

    Reference:
        Cristino, Mathot, Theeuwes and Gilchrist (2010), ScanMatch: a novel method for comparing fixation sequences,
        Behavior Research Methods 42(3). Settings: Chen et al. (2021), Predicting human scanpaths in visual question
        answering.
    """
    from foveasim.metrics.kernels import align_strings

    size, grid = validation.size_hw("size", size, minimum=1), _grid(grid)
    validation.number("threshold", threshold, 0, open_low=True)
    validation.number("gap", gap, high=0)
    strings = []
    for name, scanpaths in (("first", first), ("second", second)):
        paths = pack_paths(name, scanpaths)
        symbols, start = _symbols(paths, size, grid), paths.start
        if bin_ms is not None:
            validation.number("bin_ms", bin_ms, 0, open_low=True)
            times = np.rint(np.trunc(paths.duration_ms) / bin_ms).astype(np.int64)
            symbols, start = _repeat(symbols, times, start)
        strings.append((symbols, start))
    cell = np.arange(grid[0] * grid[1])
    column, row = cell % grid[0], cell // grid[0]
    table = threshold - np.hypot(column[:, None] - column, row[:, None] - row)
    (a, start_a), (b, start_b) = strings
    scores = np.empty((len(first), len(second)), np.float64)
    align_strings(a, start_a, b, start_b, table, float(gap), scores)
    return scores / (threshold * np.maximum(1, np.maximum.outer(np.diff(start_a), np.diff(start_b))))


def string_edit_distance(
    first: Sequence[Scanpath],
    second: Sequence[Scanpath],
    size: tuple[int, int],
    *,
    grid: tuple[int, int] = (5, 5),
    normalised: bool = False,
) -> F64:
    """Return how many fixations must be put in, left out or moved to another cell to turn one scanpath into another.

    The Levenshtein distance of the strings of grid cells, at unit costs; 0 where the strings are equal.

    Convention:
        Cells 0, 6, 12 against 0, 12: 1 edit. Normalised, 1 / 3. Work on scanpaths reports the raw number, which grows
        with the length; the best of several people is the minimum over them (:func:`nearest_distances`).

    Args:
        first: N scanpaths, px of an image of ``size``.
        second: M scanpaths, of the same image.
        size: (H, W), px.
        grid: (columns, rows).
        normalised: Whether to divide by the length of the longer one.

    Returns:
        (N, M) float64, edits; normalised 0 to 1, nan where both are empty.

    Raises:
        InvalidTypeError: Not scanpaths, or a setting of another type.
        InvalidValueError: No scanpath, or a setting out of range.

    Reference:
        Levenshtein (1966), Binary codes capable of correcting deletions, insertions and reversals; for scanpaths Brandt
        and Stark (1997), Spontaneous eye movements during visual imagery.
    """
    from foveasim.metrics.kernels import edit_strings

    size, grid = validation.size_hw("size", size, minimum=1), _grid(grid)
    a, b = pack_paths("first", first), pack_paths("second", second)
    edits = np.empty((len(first), len(second)), np.float64)
    edit_strings(_symbols(a, size, grid), a.start, _symbols(b, size, grid), b.start, edits)
    if not normalised:
        return edits
    longer = np.maximum.outer(a.lengths, b.lengths).astype(np.float64)
    return np.divide(edits, longer, out=np.full_like(edits, np.nan), where=longer > 0)


def nearest_distances(distances: F64, *, same: bool = False) -> F64:
    """Return the distance of each scanpath to the nearest one of the other group.

    Args:
        distances: (N, M) float64.
        same: Whether both groups are the same scanpaths; each is then compared with the others only.

    Returns:
        (N,) float64.

    Example:
        >>> nearest_distances(np.array([[0.0, 4.0, 3.0], [4.0, 0.0, 5.0], [3.0, 5.0, 0.0]]), same=True).tolist()
        [3.0, 4.0, 3.0]
    """
    distances = np.array(distances, np.float64)
    if same:
        np.fill_diagonal(distances, np.inf)
    nearest: F64 = distances.min(1)
    return nearest
