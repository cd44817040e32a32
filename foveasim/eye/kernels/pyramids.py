"""The inner loops of the pyramids on the CPU, the Gaussian one and the paper's: numba over uint8 rows.

Vertical sums come first where an image is halved and last where it is doubled, so that they run over whole contiguous
rows; horizontal ones are made for every pixel of a padded row and then thinned out or interleaved. So all loops but the
last are wide vector instructions (six levels at 96 x 96 and 512 x 512: 0.10 and 1.0 ms; by pixels: 0.17 and 4.0 ms).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.jit import jit

__all__ = ["build_by_taps", "build_pyramid", "extrapolate_runs"]

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
I16 = NDArray[np.int16]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]

# Unsigned, so that numba does not look for negative indices, which would keep loops from becoming vector instructions.
_1, _2, _3, _4, _5, _6 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4), np.uint64(5), np.uint64(6)
_7, _8, _9, _10, _11 = np.uint64(7), np.uint64(8), np.uint64(9), np.uint64(10), np.uint64(11)
_VECTOR = 16  # bytes, as in retina_kernels.blend_levels


@jit
def _copy_run(out: U8, source: U8) -> None:
    for i in range(out.size):
        out[i] = source[i]


@jit
def _mirrored(index: int, extent: int) -> int:
    if extent == 1:
        return 0
    index = abs(index) % (2 * extent - 2)
    return index if index < extent else 2 * extent - 2 - index


@jit
def _sum_five(above: U8, over: U8, here: U8, under: U8, below: U8, out: U16) -> None:
    for x in range(out.size):
        inner = np.uint16(over[x]) + np.uint16(under[x])
        out[x] = np.uint16(above[x]) + np.uint16(below[x]) + 4 * inner + 6 * np.uint16(here[x])


@jit
def _filter_row(far_left: U16, left: U16, here: U16, right: U16, far_right: U16, out: U8) -> None:
    for x in range(out.size):
        total = far_left[x] + far_right[x] + 4 * (left[x] + right[x]) + 6 * here[x]
        out[x] = np.uint8(np.uint16(total + 128) >> 8)  # 256 * 255 + 128 still fits 16 bits


@jit
def _halve(source: U8, out: U8, sums: U16, scratch: U8) -> None:
    """Filter by (1, 4, 6, 4, 1) / 16 in both directions and keep every second pixel of every second row."""
    height, count = source.shape
    width = count // 3
    row = sums[: count + 12]  # two mirrored pixels on either side
    for i in range(out.shape[0]):
        _sum_five(
            source[_mirrored(2 * i - 2, height)],
            source[_mirrored(2 * i - 1, height)],
            source[2 * i],
            source[_mirrored(2 * i + 1, height)],
            source[_mirrored(2 * i + 2, height)],
            row[6 : count + 6],
        )
        for c in range(3):
            row[c] = row[6 + 3 * _mirrored(-2, width) + c]
            row[3 + c] = row[6 + 3 * _mirrored(-1, width) + c]
            row[count + 6 + c] = row[6 + 3 * _mirrored(width, width) + c]
            row[count + 9 + c] = row[6 + 3 * _mirrored(width + 1, width) + c]
        whole = scratch[:count]
        _filter_row(row, row[3:], row[6:], row[9:], row[12:], whole)
        out_row = out[i]
        for j in range(out_row.size // 3):
            at, by = 3 * j, 6 * j
            out_row[at], out_row[at + 1], out_row[at + 2] = whole[by], whole[by + 1], whole[by + 2]


@jit
def _even_columns(left: U8, here: U8, right: U8, out: U16) -> None:
    for x in range(out.size):
        out[x] = np.uint16(left[x]) + np.uint16(right[x]) + 6 * np.uint16(here[x])


@jit
def _odd_columns(here: U8, right: U8, out: U16) -> None:
    for x in range(out.size):
        out[x] = 4 * (np.uint16(here[x]) + np.uint16(right[x]))


@jit
def _interleave(even: U16, odd: U16, out: U16) -> None:
    for j in range(even.size // 3):
        at, by = 6 * j, 3 * j
        out[at], out[at + 1], out[at + 2] = even[by], even[by + 1], even[by + 2]
        out[at + 3], out[at + 4], out[at + 5] = odd[by], odd[by + 1], odd[by + 2]


@jit
def _widen_row(source: U8, out: U16, padded: U8, even: U16, odd: U16) -> None:
    """Double a row: 8 times (1, 6, 1) / 8 at even pixels and 8 times (4, 4) / 8 at odd ones."""
    count = source.size
    for c in range(3):
        padded[c], padded[count + 3 + c] = source[c], source[count - 3 + c]
    _copy_run(padded[3 : count + 3], source)
    _even_columns(padded, padded[3:], padded[6:], even[:count])
    _odd_columns(padded[3:], padded[6:], odd[:count])
    _interleave(even[:count], odd[:count], out)


@jit
def _even_row(over: U16, here: U16, under: U16, out: U8) -> None:
    for x in range(out.size):
        total = over[x] + under[x] + 6 * here[x]
        out[x] = np.uint8(np.uint16(total + 32) >> 6)


@jit
def _odd_row(here: U16, under: U16, out: U8) -> None:
    for x in range(out.size):
        total = 4 * (here[x] + under[x])
        out[x] = np.uint8(np.uint16(total + 32) >> 6)


@jit
def _double(source: U8, out: U8, wide: U16, padded: U8, halves: U16) -> None:
    """Interpolate to twice the size; ``wide`` holds the three doubled rows around the current one."""
    height = source.shape[0]
    even, odd = halves[0], halves[1]
    _widen_row(source[0], wide[0], padded, even, odd)
    for i in range(height):
        last = min(i + 1, height - 1)
        if last > i:
            _widen_row(source[last], wide[last % 3], padded, even, odd)
        over, here, under = wide[max(i - 1, 0) % 3], wide[i % 3], wide[last % 3]
        _even_row(over, here, under, out[2 * i])
        if 2 * i + 1 < out.shape[0]:
            _odd_row(here, under, out[2 * i + 1])


@jit
def build_pyramid(image: U8, levels: U8) -> None:
    """Build a Gaussian pyramid (Burt and Adelson 1983) with every level brought back to full size.

    Args:
        image: (B, H, 3 W) uint8.
        levels: (B, L, H, 3 W) uint8, written from level 1 on. Level 0 is the image, and the caller's to copy.
    """
    lanes, depth, height, bytes_wide = levels.shape
    sums, scratch = np.empty(bytes_wide + 12, np.uint16), np.empty(bytes_wide + 6, np.uint8)
    wide, halves = np.empty((3, bytes_wide + 3), np.uint16), np.empty((2, bytes_wide), np.uint16)
    heights, widths = np.empty(depth, np.int64), np.empty(depth, np.int64)
    heights[0], widths[0] = height, bytes_wide // 3
    for level in range(1, depth):
        heights[level], widths[level] = (heights[level - 1] + 1) // 2, (widths[level - 1] + 1) // 2
    for b in range(lanes):
        small = image[b]
        for level in range(1, depth):
            smaller = np.empty((heights[level], 3 * widths[level]), np.uint8)
            _halve(small, smaller, sums, scratch)
            small = smaller
            grown = small
            for upper in range(level - 1, 0, -1):
                larger = np.empty((heights[upper], 3 * widths[upper]), np.uint8)
                _double(grown, larger, wide, scratch, halves)
                grown = larger
            _double(grown, levels[b, level], wide, scratch, halves)


@jit
def _mix_three_columns(row: F32, at: I64, weight: F32, out: F32) -> None:
    """Write sums of three neighbouring pixels of a row.

    Pixel by pixel: a gather of vectors, channel by channel, costs half as much again.

    Args:
        row: (3 W + 12,) float32; what lies beyond the pixels must be finite.
        at: (N,) int64, the first pixel.
        weight: (3, N) float32.
        out: (3 N,) float32, written.
    """
    one, two, three = weight[0], weight[1], weight[2]
    for x in range(at.size):
        b, t = _3 * np.uint64(at[x]), _3 * np.uint64(x)
        p, q, r = one[x], two[x], three[x]
        v0 = p * row[b] + q * row[b + _3] + r * row[b + _6]
        v1 = p * row[b + _1] + q * row[b + _4] + r * row[b + _7]
        v2 = p * row[b + _2] + q * row[b + _5] + r * row[b + _8]
        out[t], out[t + _1], out[t + _2] = v0, v1, v2


@jit
def _mix_four_columns(row: F32, at: I64, weight: F32, out: F32) -> None:
    """Do what :func:`_mix_three_columns` does with four pixels."""
    one, two, three, four = weight[0], weight[1], weight[2], weight[3]
    for x in range(at.size):
        b, t = _3 * np.uint64(at[x]), _3 * np.uint64(x)
        p, q, r, s = one[x], two[x], three[x], four[x]
        v0 = p * row[b] + q * row[b + _3] + r * row[b + _6] + s * row[b + _9]
        v1 = p * row[b + _1] + q * row[b + _4] + r * row[b + _7] + s * row[b + _10]
        v2 = p * row[b + _2] + q * row[b + _5] + r * row[b + _8] + s * row[b + _11]
        out[t], out[t + _1], out[t + _2] = v0, v1, v2


@jit
def _mix_bytes(one: U8, two: U8, three: U8, four: U8, share: F32, out: F32) -> None:
    p, q, r, s = share[0], share[1], share[2], share[3]
    for i in range(out.size):
        upper = p * np.float32(one[i]) + q * np.float32(two[i])
        out[i] = upper + (r * np.float32(three[i]) + s * np.float32(four[i]))


@jit
def _mix_rows(one: F32, two: F32, three: F32, four: F32, share: F32, out: F32) -> None:
    p, q, r, s = share[0], share[1], share[2], share[3]
    for i in range(out.size):
        out[i] = p * one[i] + q * two[i] + (r * three[i] + s * four[i])


@jit
def _mix_to_bytes(one: F32, two: F32, three: F32, share: F32, out: U8) -> None:
    p, q, r, half = share[0], share[1], share[2], np.float32(0.5)
    for i in range(out.size):
        out[i] = np.uint8(p * one[i] + q * two[i] + (r * three[i] + half))


@jit
def build_by_taps(
    image: U8,
    levels: U8,
    heights: I64,
    widths: I64,
    half_row: I64,
    half_row_weight: F32,
    half_column: I64,
    half_column_weight: F32,
    full_row: I64,
    full_row_weight: F32,
    full_column: I64,
    full_column_weight: F32,
) -> None:
    """Build a pyramid whose steps are any linear filters of few taps, brought back to full size.

    Level l is level l - 1, unrounded, filtered by four taps a side and made smaller; from there one filter of three
    taps a side leads to full size. Rows are mixed before columns on the way down and after them on the way up, where
    there are few of them.

    Args:
        image: (B, H, 3 W) uint8.
        levels: (B, L, H, 3 W) uint8, written from level 1 on. Level 0 is the image, and the caller's to copy.
        heights: (L,) int64, px; 0 is the image.
        widths: (L,) int64, px.
        half_row: (L, H) int64, on the way down: the first row that a row of level l takes from level l - 1.
        half_row_weight: (L, H, 4) float32, weights of that row and those below it; 0 for what lies beyond the last.
        half_column: (L, W) int64, the same of columns.
        half_column_weight: (L, 4, W) float32.
        full_row: (L, H) int64, on the way up: the first row that a row at full size takes from level l.
        full_row_weight: (L, H, 3) float32.
        full_column: (L, W) int64.
        full_column_weight: (L, 3, W) float32.
    """
    lanes, depth, height, bytes_wide = levels.shape
    # What lies beyond a row is read with weight 0, so it must be a number.
    rows = np.zeros((2, height, bytes_wide + 12), np.float32)
    wide, mixed = np.empty((height, bytes_wide), np.float32), np.zeros(bytes_wide + 12, np.float32)
    for b in range(lanes):
        for level in range(1, depth):
            before, count = 3 * widths[level - 1], widths[level]
            source, target = rows[(level - 1) % 2], rows[level % 2]
            first, share, last = half_row[level], half_row_weight[level], heights[level - 1] - 1
            at, weight = half_column[level][:count], half_column_weight[level][:, :count]
            line = mixed[:before]
            for y in range(heights[level]):
                i = first[y]
                j, k, m = min(i + 1, last), min(i + 2, last), min(i + 3, last)
                if level == 1:
                    _mix_bytes(image[b, i], image[b, j], image[b, k], image[b, m], share[y], line)
                else:
                    _mix_rows(source[i], source[j], source[k], source[m], share[y], line)
                _mix_four_columns(mixed, at, weight, target[y])
            at, weight = full_column[level], full_column_weight[level]
            for y in range(heights[level]):
                _mix_three_columns(target[y], at, weight, wide[y])
            first, share, last = full_row[level], full_row_weight[level], heights[level] - 1
            for y in range(height):
                i = first[y]
                j, k = min(i + 1, last), min(i + 2, last)
                _mix_to_bytes(wide[i], wide[j], wide[k], share[y], levels[b, level, y])


@jit
def extrapolate_runs(
    levels: U8,
    scenes: I64,
    fixation: F32,
    table: I64,
    weights: I16,
    acuities: U8,
    edges: I64,
    out: U8,
    out_acuity: U8,
    begin: int,
    end: int,
) -> None:
    """Do what ``retina_kernels.blend_levels`` does with weights outside of 0 to 256, which 16 bits do not hold.

    Args:
        levels: (N, L, H, 3 W) uint8, the pyramids, every level at full size.
        scenes: (B,) int64, which of them each lane looks at.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which acuity table each lane uses.
        weights: (T, H, 3 (2 W - 1)) int16, share of the coarser level in 256ths, by (|dy|, dx).
        acuities: (T, H, 2 W - 1) uint8, by (|dy|, dx).
        edges: (T, H, L - 1) int64: at |dy|, the first |dx| whose finer level is beyond l.
        out: (B, H, W, 3) uint8, written.
        out_acuity: (B, H, W) uint8, written.
        begin: The first lane.
        end: The lane behind the last.
    """
    _, depth, height, bytes_wide = levels.shape
    width = bytes_wide // 3
    plane, table_wide = height * bytes_wide, 3 * (2 * width - 1)
    for b in range(begin, end):
        column = min(max(int(np.floor(fixation[b, 0])), 0), width - 1)
        row = min(max(int(np.floor(fixation[b, 1])), 0), height - 1)
        t = table[b]
        first = width - 1 - column
        source, flat_out = levels[scenes[b]].reshape(depth * plane), out[b].reshape(plane)
        flat_weights = weights[t].reshape(height * table_wide)
        for y in range(height):
            away = abs(y - row)
            _copy_run(out_acuity[b, y], acuities[t, away][first : first + width])
            edge_row = edges[t, away]
            at, weight_at = y * bytes_wide, away * table_wide + 3 * first
            done = 0
            for i in range(2 * depth - 3):
                if i < depth - 2:  # on the way in: up to where the pair of levels ends on the left
                    level = depth - 2 - i
                    stop = 3 * max(column - edge_row[level - 1] + 1, 0)
                else:  # through the middle and on the way out
                    level = i - (depth - 2)
                    stop = bytes_wide if level == depth - 2 else 3 * min(column + edge_row[level], width)
                if stop <= done:
                    continue
                count = (stop - done + _VECTOR - 1) // _VECTOR * _VECTOR
                count = min(count, plane - at - done, flat_weights.size - weight_at - done)
                start = at + done
                run = flat_out[start : start + count]
                near = source[level * plane + start : level * plane + start + count]
                far = source[(level + 1) * plane + start : (level + 1) * plane + start + count]
                weight = flat_weights[weight_at + done : weight_at + done + count]
                for j in range(count):
                    n, f = np.int32(near[j]), np.int32(far[j])
                    mixed = np.int32((n << 8) + (f - n) * np.int32(weight[j]) + 128) >> 8
                    mixed = mixed if mixed > 0 else np.int32(0)
                    run[j] = np.uint8(mixed if mixed < 255 else np.int32(255))
                done = stop
