"""The alignment of MultiMatch, pair by pair, in numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.eye.kernels.step import jit

__all__ = ["match_paths"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@jit
def _median(values: F64) -> float:
    values.sort()
    middle = values.size // 2
    return float(values[middle] if values.size % 2 else (values[middle - 1] + values[middle]) / 2)


@jit
def match_paths(first: F64, duration1: F64, start1: I64, second: F64, duration2: F64, start2: I64, out: F64) -> None:
    """Align the saccades of every pair of scanpaths and take the median differences along the alignment.

    Args:
        first: (F, 2) float64, px, the fixations of N scanpaths, one after the other.
        duration1: (F,) float64, ms.
        start1: (N + 1,) int64.
        second: (G, 2) float64, of M scanpaths.
        duration2: (G,) float64.
        start2: (M + 1,) int64.
        out: (N, M, 5) float64, written: shape in px, direction in radians, length in px, position in px, duration as a
            share of the longer; nan where a scanpath has fewer than 3 fixations.
    """
    for p in range(start1.size - 1):
        a, a_ms = first[start1[p] : start1[p + 1]], duration1[start1[p] : start1[p + 1]]
        for q in range(start2.size - 1):
            b, b_ms = second[start2[q] : start2[q + 1]], duration2[start2[q] : start2[q + 1]]
            if len(a) < 3 or len(b) < 3:
                out[p, q] = np.nan
                continue
            n, m = len(a) - 1, len(b) - 1
            shape = np.empty((n, m), np.float64)
            cost = np.empty((n, m), np.float64)  # the cheapest way from (0, 0), where one begins at no cost
            for i in range(n):
                ux, uy = a[i + 1, 0] - a[i, 0], a[i + 1, 1] - a[i, 1]
                for j in range(m):
                    vx, vy = b[j + 1, 0] - b[j, 0], b[j + 1, 1] - b[j, 1]
                    shape[i, j] = np.sqrt((ux - vx) ** 2 + (uy - vy) ** 2)
                    least = np.inf
                    if i > 0 and j > 0:
                        least = cost[i - 1, j - 1]
                    if i > 0:
                        least = min(least, cost[i - 1, j])
                    if j > 0:
                        least = min(least, cost[i, j - 1])
                    cost[i, j] = shape[i, j] + least if i + j > 0 else 0.0
            found = np.empty((5, n + m - 1), np.float64)
            count, i, j = 0, n - 1, m - 1
            while True:
                ux, uy = a[i + 1, 0] - a[i, 0], a[i + 1, 1] - a[i, 1]
                vx, vy = b[j + 1, 0] - b[j, 0], b[j + 1, 1] - b[j, 1]
                angle = abs(np.arctan2(uy, ux) - np.arctan2(vy, vx))
                longest = max(a_ms[i], b_ms[j])
                found[0, count] = shape[i, j]
                found[1, count] = min(angle, 2 * np.pi - angle)
                found[2, count] = abs(np.sqrt(ux * ux + uy * uy) - np.sqrt(vx * vx + vy * vy))
                found[3, count] = np.sqrt((a[i, 0] - b[j, 0]) ** 2 + (a[i, 1] - b[j, 1]) ** 2)
                found[4, count] = abs(a_ms[i] - b_ms[j]) / longest if longest > 0 else 0.0
                count += 1
                if i == 0 and j == 0:
                    break
                if i == 0:
                    j -= 1
                elif j == 0:
                    i -= 1
                elif cost[i - 1, j - 1] <= cost[i - 1, j] and cost[i - 1, j - 1] <= cost[i, j - 1]:
                    i, j = i - 1, j - 1
                elif cost[i - 1, j] <= cost[i, j - 1]:
                    i -= 1
                else:
                    j -= 1
            for k in range(5):
                out[p, q, k] = _median(found[k, :count])
