"""The inner loops of the retinas on the CPU: numba over uint8 rows, one lane after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.kernels import jit

__all__ = [
    "blend_levels",
    "cover_spots",
    "extrapolate_levels",
    "hide_patches",
    "read_boxes",
    "read_sectors",
    "show_receptors",
    "sum_areas",
]

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


_VECTOR = 16  # bytes; 32 and 64 measure alike


@jit
def _pixel(position: float, extent: int) -> int:
    return min(max(int(np.floor(position)), 0), extent - 1)


@jit
def _copy_run(out: U8, source: U8) -> None:
    """Copy; numba's own slice assignment guards against overlap with a temporary array, at several times the cost."""
    for i in range(out.size):
        out[i] = source[i]


@jit
def _set_run(out: U8, value: int) -> None:
    for i in range(out.size):
        out[i] = value


@jit
def blend_levels(
    levels: U8, fixation: F32, table: I64, weights: U8, acuities: U8, edges: I64, out: U8, out_acuity: U8
) -> None:
    """Blend two neighbouring pyramid levels at every pixel, by its offset from the fixated pixel.

    Each row is swept from left to right, one run for each pair of levels on the way in and on the way out. A run is
    rounded up to whole vectors of _VECTOR bytes; what it writes too far, the next run or row overwrites. So no run
    has a scalar remainder, which would cost more than the run (measured at 96 x 96: 7 us; exact runs, drawn as
    annuli: 22 us).

    Args:
        levels: (B, L, H, 3 W) uint8, the pyramid, every level at full size.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which footprint each lane uses.
        weights: (T, H, 3 (2 W - 1)) uint8, share of the coarser level in 256ths, by (|dy|, dx), each repeated for the
            three channels; dx = 0 stands in the middle.
        acuities: (T, H, 2 W - 1) uint8, by (|dy|, dx).
        edges: (T, H, L - 1) int64: at |dy|, the first |dx| whose finer level is beyond l.
        out: (B, H, 3 W) uint8, written.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, depth, height, bytes_wide = levels.shape
    width = bytes_wide // 3
    plane, table_wide = height * bytes_wide, 3 * (2 * width - 1)
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        first = width - 1 - column
        source, flat_out = levels[b].reshape(depth * plane), out[b].reshape(plane)
        flat_weights = weights[t].reshape(height * table_wide)
        for y in range(height):
            away = abs(y - row)
            _copy_run(out_acuity[b, y], acuities[t, away][first : first + width])
            edge_row = edges[t, away]
            at = y * bytes_wide
            weight_at = away * table_wide + 3 * first
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
                # Written here, not as a function or behind a branch: either costs four times the arithmetic.
                for j in range(count):
                    w = np.uint16(weight[j])
                    run[j] = np.uint8(
                        (np.uint16(near[j]) * (np.uint16(256) - w) + np.uint16(far[j]) * w + np.uint16(128)) >> 8
                    )
                done = stop


@jit
def extrapolate_levels(
    levels: U8, fixation: F32, table: I64, weights: I16, acuities: U8, finer: U8, out: U8, out_acuity: U8
) -> None:
    """Do what :func:`blend_levels` does with weights outside of 0 to 256, pixel by pixel.

    Args:
        levels: (B, L, H, 3 W) uint8.
        fixation: (B, 2) float32, px.
        table: (B,) int64.
        weights: (T, H, 3 (2 W - 1)) int16.
        acuities: (T, H, 2 W - 1) uint8.
        finer: (T, H, 2 W - 1) uint8, the finer level of the pair.
        out: (B, H, 3 W) uint8, written.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, _, height, bytes_wide = levels.shape
    width = bytes_wide // 3
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        first = width - 1 - column
        for y in range(height):
            away = abs(y - row)
            _copy_run(out_acuity[b, y], acuities[t, away][first : first + width])
            weight, level = weights[t, away][3 * first : 3 * (first + width)], finer[t, away][first : first + width]
            out_row = out[b, y]
            for x in range(width):
                near, far = levels[b, level[x], y], levels[b, level[x] + 1, y]
                for j in range(3 * x, 3 * x + 3):
                    n, f = np.int32(near[j]), np.int32(far[j])
                    mixed = ((n << 8) + (f - n) * np.int32(weight[j]) + 128) >> 8
                    out_row[j] = np.uint8(0 if mixed < 0 else 255 if mixed > 255 else mixed)


@jit
def _fill_row(row: U8, colour: U8) -> None:
    for x in range(row.size // 3):
        row[3 * x], row[3 * x + 1], row[3 * x + 2] = colour[0], colour[1], colour[2]


@jit
def _sum_run(run: U8, total: I64) -> None:
    red = green = blue = 0
    for x in range(run.size // 3):
        red += run[3 * x]
        green += run[3 * x + 1]
        blue += run[3 * x + 2]
    total[0] += red
    total[1] += green
    total[2] += blue


@jit
def _mean_colour(total: I64, count: int, colour: U8) -> None:
    for c in range(3):
        colour[c] = np.uint8((2 * total[c] + count) // (2 * count)) if count > 0 else np.uint8(127)


@jit
def cover_spots(
    image: U8, spots: F32, table: I64, halves: I64, mean: U8, behind: U8, hidden_acuity: int, out: U8, out_acuity: U8
) -> None:
    """Show one or two sharp discs and hide the rest.

    Args:
        image: (B, H, 3 W) uint8.
        spots: (B, S, 2) float32, px, the centres of the discs, S at most 2.
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
            _set_run(out_acuity[b, y], hidden_acuity)
        for y in range(height):
            for s in range(count_spots):
                start, stop = starts[y, s], stops[y, s]
                if stop > start:
                    _copy_run(out[b, y][3 * start : 3 * stop], image[b, y][3 * start : 3 * stop])
                    _set_run(out_acuity[b, y][start:stop], 255)


@jit
def hide_patches(
    image: U8, draws: F64, hidden: int, patch: int, mean: U8, behind: U8, hidden_acuity: int, out: U8, out_acuity: U8
) -> None:
    """Hide the patches with the smallest draws.

    Args:
        image: (B, H, 3 W) uint8.
        draws: (B, patches) float64, one for each patch, row by row.
        hidden: How many are hidden.
        patch: Side of a patch in px.
        mean: As in :func:`cover_spots`.
        behind: As in :func:`cover_spots`.
        hidden_acuity: Acuity of what is hidden.
        out: (B, H, 3 W) uint8, written.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, height, bytes_wide = image.shape
    width = bytes_wide // 3
    across = -(-width // patch)
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    for b in range(lanes):
        shown = np.ones(draws.shape[1], np.bool_)
        if hidden > 0:
            shown = draws[b] > np.partition(draws[b], hidden - 1)[hidden - 1]
        if behind.size == 0:
            if mean.size == 0:
                total[:] = 0
                count = 0
                for y in range(height):
                    for i in range(across):
                        if shown[y // patch * across + i]:
                            start, stop = i * patch, min(i * patch + patch, width)
                            _sum_run(image[b, y][3 * start : 3 * stop], total)
                            count += stop - start
                _mean_colour(total, count, colour)
            else:
                colour[:] = mean[b]
        for y in range(height):
            for i in range(across):
                start, stop = i * patch, min(i * patch + patch, width)
                run, seen = out[b, y][3 * start : 3 * stop], out_acuity[b, y][start:stop]
                if shown[y // patch * across + i]:
                    _copy_run(run, image[b, y][3 * start : 3 * stop])
                    _set_run(seen, 255)
                else:
                    if behind.size == 0:
                        _fill_row(run, colour)
                    else:
                        _copy_run(run, behind[b, y][3 * start : 3 * stop])
                    _set_run(seen, hidden_acuity)


@jit
def sum_areas(image: U8, sums: I32) -> None:
    """Sum the scene over every rectangle that begins at its upper left corner, modulo 2**32 (Crow 1984).

    Args:
        image: (B, H, 3 W) uint8.
        sums: (B, H + 1, 3 (W + 1)) int32, written.
    """
    lanes, height, bytes_wide = image.shape
    for b in range(lanes):
        sums[b, 0, :] = 0
        for y in range(height):
            above, below, row = sums[b, y], sums[b, y + 1], image[b, y]
            red = green = blue = np.int32(0)
            below[:3] = 0
            for x in range(0, bytes_wide, 3):
                red, green, blue = red + row[x], green + row[x + 1], blue + row[x + 2]
                below[x + 3], below[x + 4], below[x + 5] = above[x + 3] + red, above[x + 4] + green, above[x + 5] + blue


@jit
def read_boxes(sums: I32, fixation: F32, table: I64, boxes: I32, patch: U8) -> None:
    """Average a box of the scene for each receptor.

    Args:
        sums: (B, H + 1, 3 (W + 1)) int32, from :func:`sum_areas`.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which footprint each lane uses.
        boxes: (T, N, 4) int32: left, top, right, bottom from the fixated pixel, the last two exclusive.
        patch: (B, 3 N) uint8, written: what the receptors report; 127 where their box is outside of the scene.
    """
    height, width = sums.shape[1] - 1, sums.shape[2] // 3 - 1
    for b in range(sums.shape[0]):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        for n in range(boxes.shape[1]):
            box = boxes[table[b], n]
            left, right = min(max(column + box[0], 0), width), min(max(column + box[2], 0), width)
            top, bottom = min(max(row + box[1], 0), height), min(max(row + box[3], 0), height)
            area = np.uint64((right - left) * (bottom - top))
            for c in range(3):
                if area == 0:
                    patch[b, 3 * n + c] = 127
                else:
                    lower = np.int64(sums[b, bottom, 3 * right + c]) - sums[b, bottom, 3 * left + c]
                    upper = np.int64(sums[b, top, 3 * right + c]) - sums[b, top, 3 * left + c]
                    inside = np.uint64((lower - upper) & 0xFFFFFFFF)
                    patch[b, 3 * n + c] = (2 * inside + area) // (2 * area)


@jit
def read_sectors(image: U8, fixation: F32, table: I64, covering: I16 | I32, nearest: I32, patch: U8) -> None:
    """Average the pixels that each receptor covers.

    Args:
        image: (B, H, 3 W) uint8.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which footprint each lane uses.
        covering: As in :func:`show_receptors`.
        nearest: (T, N, 2) int32: the pixel, (x, y) from the fixated one, that a receptor reports which covers none.
        patch: (B, 3 N) uint8, written: what the receptors report; 127 where they lie outside of the scene.
    """
    lanes, height, bytes_wide = image.shape
    width, count = bytes_wide // 3, nearest.shape[1]
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        total, area = np.zeros(3 * count, np.int64), np.zeros(count, np.int64)
        for y in range(height):
            shown = covering[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column]
            row_bytes = image[b, y]
            for x in range(width):
                covers = np.int64(shown[x])
                if covers >= 0:
                    area[covers] += 1
                    for c in range(3):
                        total[3 * covers + c] += row_bytes[3 * x + c]
        for n in range(count):
            dx, dy = nearest[t, n, 0], nearest[t, n, 1]
            at, down = column + dx, row + dy
            inside = 0 <= at < width and 0 <= down < height
            seen = inside and covering[t, dy + height - 1, dx + width - 1] >= 0
            for c in range(3):
                if area[n] > 0:
                    patch[b, 3 * n + c] = (2 * total[3 * n + c] + area[n]) // (2 * area[n])
                else:
                    patch[b, 3 * n + c] = image[b, down, 3 * at + c] if seen else np.uint8(127)


@jit
def show_receptors(
    fixation: F32, table: I64, covering: I16 | I32, acuities: U8, patch: U8, out: U8, out_acuity: U8
) -> None:
    """Show at every pixel what the receptor that covers it reports.

    Args:
        fixation: (B, 2) float32, px.
        table: (B,) int64, which footprint each lane uses.
        covering: (T, 2 H - 1, 2 W - 1): by offset from the fixated pixel, the receptor shown there, -1 where hidden.
        acuities: (T, 2 H - 1, 2 W - 1) uint8, 0 where hidden.
        patch: (B, 3 N) uint8, what the receptors report.
        out: (B, H, 3 W) uint8, written; the mean colour of what is seen stands where it is hidden.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, height, bytes_wide = out.shape
    width = bytes_wide // 3
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        total[:] = 0
        count = 0
        reports = patch[b]
        for y in range(height):
            shown = covering[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column]
            _copy_run(out_acuity[b, y], acuities[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column])
            out_row = out[b, y]
            for x in range(width):
                report = 3 * np.int64(shown[x])
                if report >= 0:
                    count += 1
                    for c in range(3):
                        out_row[3 * x + c] = reports[report + c]
                        total[c] += reports[report + c]
        if count < height * width:
            _mean_colour(total, count, colour)
            for y in range(height):
                seen, out_row = out_acuity[b, y], out[b, y]
                for x in range(width):
                    if seen[x] == 0:
                        for c in range(3):
                            out_row[3 * x + c] = colour[c]
