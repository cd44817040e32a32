"""The inner loops on the CPU: numba kernels over uint8 rows, one lane after the other.

Every kernel slices a row before it indexes it: numba then knows that the slice is contiguous and LLVM vectorises the
loop over its bytes; signed offsets into a flat array would block that (measured: 5 to 18 times slower). Compiled code
is cached beside this file, so only the first run after an installation pays for compiling.

This module is imported by whoever needs it, when it needs it: numba takes 0.4 s to import.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from foveasim.rng import GOLDEN, MIX1, MIX2, UNIT

__all__ = [
    "blend_levels",
    "build_pyramid",
    "cover_spots",
    "execute_saccades",
    "integrate_belief",
    "mask_pixels",
    "mix",
    "widen_coverage",
]

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]
U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]

_jit = numba.njit(cache=True, nogil=True, error_model="numpy")


@_jit
def _finalise(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX2)
    return z ^ (z >> np.uint64(31))


@_jit
def mix(seed: int, episode: int, step: int, stream: int, index: int) -> float:
    """Draw one uniform number in [0, 1). Equals ``rng.uniform(...)[lane, index]``."""
    golden = np.uint64(GOLDEN)
    key = _finalise(np.uint64(seed) + golden)
    key = _finalise((key ^ np.uint64(episode)) + golden)
    key = _finalise((key ^ np.uint64(step)) + golden)
    key = _finalise((key ^ np.uint64(stream)) + golden)
    value = _finalise(key + np.uint64(index + 1) * golden)
    return float(value >> np.uint64(11)) * UNIT


@_jit
def _pixel(position: float, extent: int) -> int:
    return min(max(np.int64(np.floor(position)), 0), extent - 1)


@_jit
def _copy_run(out: U8, source: U8) -> None:
    """Copy; numba's own slice assignment guards against overlap with a temporary array, at several times the cost."""
    for i in range(out.size):
        out[i] = source[i]


@_jit
def _set_run(out: U8, value: int) -> None:
    for i in range(out.size):
        out[i] = value


@_jit
def _blend_run(out: U8, near: U8, far: U8, weight: U8) -> None:
    for i in range(out.size):
        w = np.uint16(weight[i])
        out[i] = np.uint8((np.uint16(near[i]) * (np.uint16(256) - w) + np.uint16(far[i]) * w + np.uint16(128)) >> 8)


@_jit
def _extrapolate_run(out: U8, near: U8, far: U8, weight: I16) -> None:
    for i in range(out.size):
        w, finer, coarser = np.int32(weight[i]), np.int32(near[i]), np.int32(far[i])
        out[i] = np.uint8(min(max(((finer << 8) + (coarser - finer) * w + 128) >> 8, 0), 255))


@_jit
def blend_levels(
    levels: U8, fixation: F32, table: I64, weights: U8 | I16, acuities: U8, edges: I64, out: U8, out_acuity: U8
) -> None:
    """Blend two neighbouring pyramid levels at every pixel, by its offset from the fixated pixel.

    Each row is painted from the coarsest pair of levels, over its whole span, to the finest: every run is contiguous,
    and the middle of a coarse one is painted over (measured at 96 x 96: 22 us; annuli with their holes cut out: 38 us).

    Args:
        levels: (B, L, H, 3 W) uint8, the pyramid, every level at full size.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which footprint each lane uses.
        weights: (T, H, 3 (2 W - 1)) uint8, share of the coarser level in 256ths, by (|dy|, dx), each repeated for the
            three channels; dx = 0 stands in the middle. As int16 it may lie outside 0 to 256 and extrapolates.
        acuities: (T, H, 2 W - 1) uint8, by (|dy|, dx).
        edges: (T, H, L - 1) int64: at |dy|, the first |dx| whose finer level is beyond l.
        out: (B, H, 3 W) uint8, written.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, depth, height, bytes_wide = levels.shape
    width = bytes_wide // 3
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        first = width - 1 - column
        reach = max(column, first)
        for y in range(height):
            away = abs(y - row)
            weight_row = weights[t, away][3 * first : 3 * (first + width)]
            out_row = out[b, y]
            _copy_run(out_acuity[b, y], acuities[t, away][first : first + width])
            edge_row = edges[t, away]
            for level in range(depth - 2, -1, -1):
                outer = edge_row[level]
                inner = edge_row[level - 1] if level > 0 else 0
                if outer <= inner or inner > reach:
                    continue
                start, stop = max(column - outer + 1, 0) * 3, min(column + outer, width) * 3
                near, far = levels[b, level, y], levels[b, level + 1, y]
                if weights.itemsize == 1:  # known when compiled: the 16-bit arithmetic of uint8 is twice as fast
                    _blend_run(out_row[start:stop], near[start:stop], far[start:stop], weight_row[start:stop])
                else:
                    _extrapolate_run(out_row[start:stop], near[start:stop], far[start:stop], weight_row[start:stop])


@_jit
def _fill_row(row: U8, colour: U8) -> None:
    for x in range(row.size // 3):
        row[3 * x], row[3 * x + 1], row[3 * x + 2] = colour[0], colour[1], colour[2]


@_jit
def _sum_run(run: U8, total: I64) -> None:
    red = green = blue = 0
    for x in range(run.size // 3):
        red += run[3 * x]
        green += run[3 * x + 1]
        blue += run[3 * x + 2]
    total[0] += red
    total[1] += green
    total[2] += blue


@_jit
def _mean_colour(total: I64, count: int, colour: U8) -> None:
    for c in range(3):
        colour[c] = np.uint8((2 * total[c] + count) // (2 * count)) if count > 0 else np.uint8(127)


@_jit
def cover_spots(
    image: U8, spots: F32, table: I64, halves: I64, mean: U8, behind: U8, hidden_acuity: int, out: U8, out_acuity: U8
) -> None:
    """Show one or more sharp discs and hide the rest.

    Args:
        image: (B, H, 3 W) uint8.
        spots: (B, S, 2) float32, px, the centres of the discs.
        table: (B,) int64, which footprint each lane uses.
        halves: (T, H) int64: at |dy|, the half-width of the disc in px, -1 where the row is outside.
        mean: (B, 3) uint8, the colour of what is hidden; (0, 3): take the mean of the visible pixels.
        behind: (B, H, 3 W) uint8, shown where hidden; (0, 0, 0): a colour is.
        hidden_acuity: Acuity of what is hidden.
        out: (B, H, 3 W) uint8, written.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, height, bytes_wide = image.shape
    width = bytes_wide // 3
    count_spots = spots.shape[1]
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    starts, stops = np.zeros((height, count_spots), np.int64), np.zeros((height, count_spots), np.int64)
    for b in range(lanes):
        half = halves[table[b]]
        for s in range(count_spots):
            column, row = _pixel(spots[b, s, 0], width), _pixel(spots[b, s, 1], height)
            for y in range(height):
                reach = half[abs(y - row)]
                starts[y, s] = max(column - reach, 0) if reach >= 0 else 0
                stops[y, s] = min(column + reach + 1, width) if reach >= 0 else 0
        if count_spots == 2:
            for y in range(height):  # where two runs meet they become one, so that no pixel counts twice
                if stops[y, 0] > 0 and stops[y, 1] > 0 and starts[y, 1] <= stops[y, 0] and starts[y, 0] <= stops[y, 1]:
                    starts[y, 0], stops[y, 0] = min(starts[y, 0], starts[y, 1]), max(stops[y, 0], stops[y, 1])
                    starts[y, 1] = stops[y, 1] = 0
        if behind.size == 0:
            if mean.size == 0:
                total[:] = 0
                count = 0
                for s in range(count_spots):
                    for y in range(height):
                        _sum_run(image[b, y][3 * starts[y, s] : 3 * stops[y, s]], total)
                        count += stops[y, s] - starts[y, s]
                _mean_colour(total, count, colour)
            else:
                colour[:] = mean[b]
        for y in range(height):
            if behind.size == 0:
                if y == 0:
                    _fill_row(out[b, 0], colour)
                else:
                    _copy_run(out[b, y], out[b, 0])
            else:
                _copy_run(out[b, y], behind[b, y])
            _set_run(out_acuity[b, y], np.uint8(hidden_acuity))
        for y in range(height):
            for s in range(count_spots):
                start, stop = starts[y, s], stops[y, s]
                if stop > start:
                    _copy_run(out[b, y][3 * start : 3 * stop], image[b, y][3 * start : 3 * stop])
                    _set_run(out_acuity[b, y][start:stop], np.uint8(255))


@_jit
def mask_pixels(image: U8, mean: U8, behind: U8, hidden_acuity: int, acuity: U8, out: U8) -> None:
    """Hide every pixel whose acuity is below 255.

    Args:
        image: (B, H, 3 W) uint8.
        mean: As in :func:`cover_spots`.
        behind: As in :func:`cover_spots`.
        hidden_acuity: Acuity of what is hidden.
        acuity: (B, H, W) uint8, 255 where visible; the rest is set to ``hidden_acuity``.
        out: (B, H, 3 W) uint8, written.
    """
    lanes, height, bytes_wide = image.shape
    width = bytes_wide // 3
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    for b in range(lanes):
        if behind.size == 0 and mean.size == 0:
            total[:] = 0
            count = 0
            for y in range(height):
                seen, row = acuity[b, y], image[b, y]
                for x in range(width):
                    if seen[x] == 255:
                        count += 1
                        for c in range(3):
                            total[c] += row[3 * x + c]
            _mean_colour(total, count, colour)
        elif behind.size == 0:
            colour[:] = mean[b]
        for y in range(height):
            seen, row, out_row = acuity[b, y], image[b, y], out[b, y]
            for x in range(width):
                if seen[x] == 255:
                    for c in range(3):
                        out_row[3 * x + c] = row[3 * x + c]
                else:
                    seen[x] = np.uint8(hidden_acuity)
                    for c in range(3):
                        out_row[3 * x + c] = colour[c] if behind.size == 0 else behind[b, y, 3 * x + c]


@_jit
def integrate_belief(image: U8, acuity: U8, new_image: U8, new_acuity: U8, keep: F32, coverage: F32) -> None:
    """Take over every pixel that is now seen at least as sharply as it is remembered, in place.

    Args:
        image: (B, H, 3 W) uint8, updated.
        acuity: (B, H, W) uint8, updated.
        new_image: (B, H, 3 W) uint8, the glimpse.
        new_acuity: (B, H, W) uint8.
        keep: (B,) float32, the share of acuity that is left since the last glimpse; 1 forgets nothing.
        coverage: (B,) float32, written: mean acuity afterwards, 0 to 1.
    """
    lanes, height, width = acuity.shape
    for b in range(lanes):
        total = 0
        share = keep[b]
        for y in range(height):
            old, new, row, new_row = acuity[b, y], new_acuity[b, y], image[b, y], new_image[b, y]
            if share < 1:
                for x in range(width):
                    old[x] = np.uint8(np.float32(old[x]) * share)
            for x in range(width):
                if new[x] >= old[x]:
                    old[x] = new[x]
                    row[3 * x], row[3 * x + 1], row[3 * x + 2] = new_row[3 * x], new_row[3 * x + 1], new_row[3 * x + 2]
            for x in range(width):
                total += old[x]
        coverage[b] = np.float32(total / (255.0 * height * width))


@_jit
def widen_coverage(acuity: U8, new_acuity: U8, keep: F32, coverage: F32) -> None:
    """Do what :func:`integrate_belief` does, for acuity alone."""
    lanes, height, width = acuity.shape
    for b in range(lanes):
        total = 0
        share = keep[b]
        for y in range(height):
            old, new = acuity[b, y], new_acuity[b, y]
            if share < 1:
                for x in range(width):
                    old[x] = np.uint8(np.float32(old[x]) * share)
            for x in range(width):
                old[x] = max(old[x], new[x])
            for x in range(width):
                total += old[x]
        coverage[b] = np.float32(total / (255.0 * height * width))


@_jit
def execute_saccades(
    start: F32,
    target: F32,
    size: I64,
    px_per_deg: F32,
    key: I64,
    stream: int,
    limits: F32,
    landing: F32,
    amplitude: F32,
    duration: F32,
) -> None:
    """Land eyes where they are aimed, within what an eye can do. The twin of ``Saccades.execute``.

    Args:
        start: (B, 2) float32, px.
        target: (B, 2) float32, px.
        size: (2,) int64, (H, W).
        px_per_deg: (B,) float32.
        key: (3, B) int64: seed, episode, step.
        stream: Stream of the endpoint scatter.
        limits: (4,) float32: greatest amplitude in deg (infinite: none), scatter, slope in ms/deg, intercept in ms.
        landing: (B, 2) float32, px, written.
        amplitude: (B,) float32, deg, written.
        duration: (B,) float32, ms, written.
    """
    height, width = np.float32(size[0]), np.float32(size[1])
    for b in range(start.shape[0]):
        dx, dy = target[b, 0] - start[b, 0], target[b, 1] - start[b, 1]
        reach = np.sqrt(dx * dx + dy * dy)
        most = limits[0] * px_per_deg[b]
        if reach > most:
            dx, dy, reach = dx * (most / reach), dy * (most / reach), most
        if limits[1] > 0 and reach > 0:
            u = mix(key[0, b], key[1, b], key[2, b], stream, 0)
            angle = 2 * np.pi * mix(key[0, b], key[1, b], key[2, b], stream, 1)
            spread = np.sqrt(-2 * np.log1p(-u)) * limits[1] * reach
            dx += np.float32(spread * np.cos(angle))
            dy += np.float32(spread * np.sin(angle))
        x = min(max(start[b, 0] + dx, np.float32(0)), width)
        y = min(max(start[b, 1] + dy, np.float32(0)), height)
        landing[b, 0], landing[b, 1] = x, y
        dx, dy = x - start[b, 0], y - start[b, 1]
        degrees = np.sqrt(dx * dx + dy * dy) / px_per_deg[b]
        amplitude[b] = degrees
        duration[b] = limits[2] * degrees + limits[3] if degrees > 0 else np.float32(0)


@_jit
def _reflect(index: int, extent: int) -> int:
    if extent == 1:
        return 0
    index = abs(index) % (2 * extent - 2)
    return index if index < extent else 2 * extent - 2 - index


@_jit
def _halve(source: U8, out: U8, column: U16) -> None:
    height, bytes_wide = source.shape
    width = bytes_wide // 3
    for i in range(out.shape[0]):
        above, over = source[_reflect(2 * i - 2, height)], source[_reflect(2 * i - 1, height)]
        here = source[2 * i]
        under, below = source[_reflect(2 * i + 1, height)], source[_reflect(2 * i + 2, height)]
        for x in range(bytes_wide):
            column[x] = np.uint16(
                np.uint16(above[x]) + np.uint16(below[x]) + 4 * (np.uint16(over[x]) + np.uint16(under[x])) + 6 * here[x]
            )
        out_row = out[i]
        for j in range(out.shape[1] // 3):
            l2, l1 = 3 * _reflect(2 * j - 2, width), 3 * _reflect(2 * j - 1, width)
            r1, r2 = 3 * _reflect(2 * j + 1, width), 3 * _reflect(2 * j + 2, width)
            for c in range(3):
                value = (
                    np.uint32(column[l2 + c])
                    + column[r2 + c]
                    + 4 * (np.uint32(column[l1 + c]) + column[r1 + c])
                    + 6 * np.uint32(column[6 * j + c])
                )
                out_row[3 * j + c] = np.uint8((value + 128) >> 8)


@_jit
def _double(source: U8, out: U8, column: U16) -> None:
    height, bytes_wide = source.shape
    width = bytes_wide // 3
    for y in range(out.shape[0]):
        i = y // 2
        here, under = source[i], source[min(i + 1, height - 1)]
        if y % 2 == 0:
            over = source[max(i - 1, 0)]
            for x in range(bytes_wide):
                column[x] = np.uint16(np.uint16(over[x]) + np.uint16(under[x]) + 6 * np.uint16(here[x]))
        else:
            for x in range(bytes_wide):
                column[x] = np.uint16(4 * (np.uint16(here[x]) + np.uint16(under[x])))
        out_row = out[y]
        for x in range(out.shape[1] // 3):
            j = x // 2
            left, mid, right = 3 * max(j - 1, 0), 3 * j, 3 * min(j + 1, width - 1)
            if x % 2 == 0:
                for c in range(3):
                    value = np.uint32(column[left + c]) + column[right + c] + 6 * np.uint32(column[mid + c])
                    out_row[3 * x + c] = np.uint8((value + 32) >> 6)
            else:
                for c in range(3):
                    value = 4 * (np.uint32(column[mid + c]) + column[right + c])
                    out_row[3 * x + c] = np.uint8((value + 32) >> 6)


@_jit
def build_pyramid(image: U8, levels: U8) -> None:
    """Build a Gaussian pyramid (Burt and Adelson 1983) with every level brought back to full size.

    Args:
        image: (B, H, 3 W) uint8.
        levels: (B, L, H, 3 W) uint8, written. Level 0 is the image.
    """
    lanes, depth, height, bytes_wide = levels.shape
    column = np.empty(bytes_wide + 6, np.uint16)
    for b in range(lanes):
        for y in range(height):
            _copy_run(levels[b, 0, y], image[b, y])
        small = image[b]
        heights, widths = np.empty(depth, np.int64), np.empty(depth, np.int64)
        heights[0], widths[0] = height, bytes_wide // 3
        for level in range(1, depth):
            heights[level], widths[level] = (heights[level - 1] + 1) // 2, (widths[level - 1] + 1) // 2
            smaller = np.empty((heights[level], 3 * widths[level]), np.uint8)
            _halve(small, smaller, column)
            small = smaller
            grown = small
            for upper in range(level - 1, 0, -1):
                larger = np.empty((heights[upper], 3 * widths[upper]), np.uint8)
                _double(grown, larger, column)
                grown = larger
            _double(grown, levels[b, level], column)
