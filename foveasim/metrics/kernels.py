"""The inner loops of scanpath metrics, in numba: alignments of strings and of saccades, and mean shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.jit import jit

__all__ = ["align_strings", "edit_strings", "embed_paths", "match_paths", "shift_means"]

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
                    minimum = np.inf
                    for j in range(m - k + 1):
                        windows[i, j] += distance[i + k - 1, j + k - 1]
                        minimum = min(minimum, windows[i, j])
                    mean += minimum / k
                total += np.exp(-mean / (n - k + 1))
            out[p, q] = total / shortest


@jit
def shift_means(points: F64, bandwidth: float, max_moves: int, means: F64, counts: I64) -> None:
    """Move a mean from each point uphill until it rests: the mean of all points within the bandwidth, again and again.

    Args:
        points: (N, 2) float64.
        bandwidth: Radius of the flat kernel; a mean rests when it moves by no more than a thousandth of it.
        max_moves: Moves after which a mean is taken as it is.
        means: (N, 2) float64, written: where the mean that began at each point came to rest.
        counts: (N,) int64, written: how many points are within the bandwidth of the last position but one.
    """
    for s in range(len(points)):
        x, y = points[s, 0], points[s, 1]
        for step in range(max_moves + 1):
            total_x, total_y, count = 0.0, 0.0, 0
            for i in range(len(points)):
                dx, dy = points[i, 0] - x, points[i, 1] - y
                if dx * dx + dy * dy <= bandwidth * bandwidth:
                    total_x, total_y, count = total_x + points[i, 0], total_y + points[i, 1], count + 1
            moved = np.hypot(total_x / count - x, total_y / count - y)
            x, y = total_x / count, total_y / count
            counts[s] = count
            if moved <= 1e-3 * bandwidth or step == max_moves:
                break
        means[s, 0], means[s, 1] = x, y


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
                    minimum = np.inf
                    if i > 0 and j > 0:
                        minimum = cost[i - 1, j - 1]
                    if i > 0:
                        minimum = min(minimum, cost[i - 1, j])
                    if j > 0:
                        minimum = min(minimum, cost[i, j - 1])
                    cost[i, j] = shape[i, j] + minimum if i + j > 0 else 0.0
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
