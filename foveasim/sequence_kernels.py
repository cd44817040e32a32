"""Strings and windows of scanpaths compared pair by pair, and mean shift, in numba.

This module is imported by whoever needs it, when it needs it: numba takes 0.4 s to import.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.eye.kernels.step import jit

__all__ = ["align_strings", "edit_strings", "embed_paths", "shift_means"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@jit
def align_strings(first: I64, start1: I64, second: I64, start2: I64, table: F64, gap: float, out: F64) -> None:
    """Align every string of one group with every string of another, by Needleman and Wunsch.

    Args:
        first: (F,) int64, the symbols of N strings, one string after the other.
        start1: (N + 1,) int64, where each begins.
        second: (G,) int64, the symbols of M strings.
        start2: (M + 1,) int64.
        table: (S, S) float64, the score of putting one symbol against another.
        gap: Score of a symbol that stands against none.
        out: (N, M) float64, written: the best total score, nan where a string is empty.
    """
    longest = 0
    for q in range(start2.size - 1):
        longest = max(longest, start2[q + 1] - start2[q])
    row = np.empty(longest + 1, np.float64)
    for p in range(start1.size - 1):
        a = first[start1[p] : start1[p + 1]]
        for q in range(start2.size - 1):
            b = second[start2[q] : start2[q + 1]]
            if a.size == 0 or b.size == 0:
                out[p, q] = np.nan
                continue
            for j in range(b.size + 1):
                row[j] = gap * j
            for i in range(a.size):
                scores = table[a[i]]
                diagonal, left = row[0], gap * (i + 1)
                row[0] = left
                for j in range(b.size):
                    above = row[j + 1]
                    left = max(diagonal + scores[b[j]], max(above, left) + gap)
                    row[j + 1] = left
                    diagonal = above
            out[p, q] = row[b.size]


@jit
def edit_strings(first: I64, start1: I64, second: I64, start2: I64, out: F64) -> None:
    """Count the edits that turn one string into another, for every pair; the arguments of :func:`align_strings`."""
    longest = 0
    for q in range(start2.size - 1):
        longest = max(longest, start2[q + 1] - start2[q])
    row = np.empty(longest + 1, np.int64)
    for p in range(start1.size - 1):
        a = first[start1[p] : start1[p + 1]]
        for q in range(start2.size - 1):
            b = second[start2[q] : start2[q + 1]]
            for j in range(b.size + 1):
                row[j] = j
            for i in range(a.size):
                diagonal, left = row[0], i + 1
                row[0] = left
                for j in range(b.size):
                    above = row[j + 1]
                    left = min(diagonal + (0 if a[i] == b[j] else 1), min(above, left) + 1)
                    row[j + 1] = left
                    diagonal = above
            out[p, q] = row[b.size]


@jit
def embed_paths(first: F64, start1: I64, second: F64, start2: I64, out: F64) -> None:
    """Compare windows of every length of one scanpath with the nearest of another, for every pair.

    Args:
        first: (F, 2) float64, the scaled fixations of N scanpaths, one after the other.
        start1: (N + 1,) int64.
        second: (G, 2) float64, of M scanpaths.
        start2: (M + 1,) int64.
        out: (N, M) float64, written, nan where a scanpath is empty.
    """
    for p in range(start1.size - 1):
        a = first[start1[p] : start1[p + 1]]
        for q in range(start2.size - 1):
            b = second[start2[q] : start2[q + 1]]
            n, m = len(a), len(b)
            if n == 0 or m == 0:
                out[p, q] = np.nan
                continue
            distance = np.empty((n, m), np.float64)
            for i in range(n):
                for j in range(m):
                    distance[i, j] = np.hypot(a[i, 0] - b[j, 0], a[i, 1] - b[j, 1])
            windows = np.zeros((n, m), np.float64)  # [i, j]: summed distance of the k fixations from i and from j on
            shortest = min(n, m)
            total = 0.0
            for k in range(1, shortest + 1):
                mean = 0.0
                for i in range(n - k + 1):
                    least = np.inf
                    for j in range(m - k + 1):
                        windows[i, j] += distance[i + k - 1, j + k - 1]
                        least = min(least, windows[i, j])
                    mean += least / k
                total += np.exp(-mean / (n - k + 1))
            out[p, q] = total / shortest


@jit
def shift_means(points: F64, bandwidth: float, most: int, means: F64, counts: I64) -> None:
    """Move a mean from each point uphill until it rests: the mean of all points within the bandwidth, again and again.

    Args:
        points: (N, 2) float64.
        bandwidth: Radius of the flat kernel; a mean rests when it moves by no more than a thousandth of it.
        most: Moves after which a mean is taken as it is.
        means: (N, 2) float64, written: where the mean that began at each point came to rest.
        counts: (N,) int64, written: how many points are within the bandwidth of the last position but one.
    """
    for s in range(len(points)):
        x, y = points[s, 0], points[s, 1]
        for step in range(most + 1):
            total_x, total_y, count = 0.0, 0.0, 0
            for i in range(len(points)):
                dx, dy = points[i, 0] - x, points[i, 1] - y
                if dx * dx + dy * dy <= bandwidth * bandwidth:
                    total_x, total_y, count = total_x + points[i, 0], total_y + points[i, 1], count + 1
            moved = np.hypot(total_x / count - x, total_y / count - y)
            x, y = total_x / count, total_y / count
            counts[s] = count
            if moved <= 1e-3 * bandwidth or step == most:
                break
        means[s, 0], means[s, 1] = x, y
