"""The inner loops of the retinas on the CPU: numba over uint8 rows, one lane after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.eye.kernels.step import copy_bytes, mean_acuity
from foveasim.jit import jit

__all__ = [
    "blend_levels",
    "cover_spots",
    "hide_patches",
    "read_boxes",
    "read_sectors",
    "show_receptors",
    "widen_coverage",
]

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
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
def _set_run(out: U8, value: int) -> None:
    for i in range(out.size):
        out[i] = value


@jit
def _widen(known: U8, seen: U8) -> np.float32:
    """Keep the greater acuity of each pixel of a lane, (H, W), and return the mean, 0 to 1."""
    flat, fresh = known.reshape(known.size), seen.reshape(seen.size)
    for i in range(flat.size):
        flat[i] = max(flat[i], fresh[i])
    return mean_acuity(flat)


@jit
def widen_coverage(known: U8, seen: U8, coverage: F32, begin: int, end: int) -> None:
    """Do what ``kernels.integrate_belief`` does, for acuity alone.

    Args:
        known: (B, H, W) uint8, the greatest acuity of each pixel so far, updated.
        seen: (B, H, W) uint8, that of the glimpse.
        coverage: (2, B) float32, mean acuity afterwards and before, 0 to 1, written.
        begin: The first lane.
        end: The lane behind the last.
    """
    for b in range(begin, end):
        coverage[1, b] = coverage[0, b]
        coverage[0, b] = _widen(known[b], seen[b])


@jit
def blend_levels(
    levels: U8,
    scenes: I64,
    fixation: F32,
    table: I64,
    weights: U8,
    acuities: U8,
    edges: I64,
    out: U8,
    out_acuity: U8,
    known: U8,
    coverage: F32,
    begin: int,
    end: int,
) -> None:
    """Blend two neighbouring pyramid levels at every pixel, by its offset from the fixated pixel.

    Each row is swept from left to right, one run for each pair of levels on the way in and on the way out. A run is
    rounded up to whole vectors of _VECTOR bytes; what it writes too far, the next run or row overwrites. So no run
    has a scalar remainder, which would cost more than the run (measured at 96 x 96: 7 us; exact runs, drawn as
    annuli: 22 us).

    Args:
        levels: (N, L, H, 3 W) uint8, the pyramids, every level at full size.
        scenes: (B,) int64, which of them each lane looks at.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which acuity table each lane uses.
        weights: (T, H, 3 (2 W - 1)) uint8, share of the coarser level in 256ths, by (|dy|, dx), each repeated for the
            three channels; dx = 0 stands in the middle.
        acuities: (T, H, 2 W - 1) uint8, by (|dy|, dx).
        edges: (T, H, L - 1) int64: at |dy|, the first |dx| whose finer level is beyond l.
        out: (B, H, W, 3) uint8, written.
        out_acuity: (B, H, W) uint8, written.
        known: As in :func:`widen_coverage`, or (0, 0, 0): nothing is widened.
        coverage: As in :func:`widen_coverage`, as are ``begin`` and ``end``.
        begin: The first lane.
        end: The lane behind the last.
    """
    _, depth, height, bytes_wide = levels.shape
    width = bytes_wide // 3
    plane, table_wide = height * bytes_wide, 3 * (2 * width - 1)
    for b in range(begin, end):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        first = width - 1 - column
        source, flat_out = levels[scenes[b]].reshape(depth * plane), out[b].reshape(plane)
        flat_weights = weights[t].reshape(height * table_wide)
        for y in range(height):
            away = abs(y - row)
            copy_bytes(out_acuity[b, y], acuities[t, away][first : first + width])
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
        if known.size > 0:
            coverage[1, b] = coverage[0, b]
            coverage[0, b] = _widen(known[b], out_acuity[b])


@jit
def _fill_row(row: U8, colour: U8) -> None:
    red, green, blue = colour[0], colour[1], colour[2]
    for x in range(row.size // 3):
        row[3 * x], row[3 * x + 1], row[3 * x + 2] = red, green, blue


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
def _mean(total: int, count: int) -> np.uint8:
    return np.uint8((2 * total + count) // (2 * count)) if count > 0 else np.uint8(127)


@jit
def _mean_colour(total: I64, count: int, colour: U8) -> None:
    for c in range(3):
        colour[c] = _mean(total[c], count)


@jit
def _add_run(sums: U32, run: U8) -> None:
    for i in range(run.size):
        sums[i] += np.uint32(run[i])


@jit
def _find_runs(half: I64, column: int, row: int, width: int, starts: I64, stops: I64) -> None:
    """Find the pixels of each row that lie in a disc; none: 0 to 0."""
    for y in range(starts.size):
        reach = half[abs(y - row)]
        starts[y] = max(column - reach, 0) if reach >= 0 else 0
        stops[y] = min(column + reach + 1, width) if reach >= 0 else 0


@jit
def _mean_of_runs(image: U8, starts: I64, stops: I64, sums: U32, colour: U8) -> None:
    """Take the mean of the pixels in all runs. Rows are added to one another: to sum each would cost twice as much."""
    for i in range(sums.size):
        sums[i] = np.uint32(0)
    count = 0
    for s in range(starts.shape[0]):
        for y in range(starts.shape[1]):
            start, stop = starts[s, y], stops[s, y]
            if stop > start:
                _add_run(sums, image[y][3 * start : 3 * stop])
                count += stop - start
    red = green = blue = 0
    for x in range(sums.size // 3):  # 32 bits do not hold the sum of a large picture
        red += int(np.int64(sums[3 * x]))
        green += int(np.int64(sums[3 * x + 1]))
        blue += int(np.int64(sums[3 * x + 2]))
    colour[0], colour[1], colour[2] = _mean(red, count), _mean(green, count), _mean(blue, count)


@jit
def cover_spots(
    image: U8,
    scenes: I64,
    spots: F32,
    table: I64,
    halves: I64,
    mean: U8,
    behind: U8,
    hidden_acuity: int,
    out: U8,
    out_acuity: U8,
    known: U8,
    coverage: F32,
    begin: int,
    end: int,
) -> None:
    """Show one or two sharp discs and hide the rest.

    Args:
        image: (N, H, 3 W) uint8.
        scenes: (B,) int64, which of them each lane looks at.
        spots: (B, S, 2) float32, px, the centres of the discs, S at most 2.
        table: (N,) int64, which acuity table each scene uses.
        halves: (T, H) int64: at |dy|, the half-width of the disc in px, -1 where the row is outside.
        mean: (N, 3) uint8, the colour of what is hidden; (0, 3): take the mean of the visible pixels.
        behind: (N, H, 3 W) uint8, shown where hidden; (0, 0, 0): a colour is.
        hidden_acuity: Acuity of what is hidden.
        out: (B, H, W, 3) uint8, written.
        out_acuity: (B, H, W) uint8, written.
        known: As in :func:`blend_levels`, as is ``coverage``.
        coverage: (2, B) float32.
        begin: The first lane.
        end: The lane behind the last.
    """
    _, height, bytes_wide = image.shape
    width, count_spots = bytes_wide // 3, spots.shape[1]
    colour, sums = np.empty(3, np.uint8), np.empty(bytes_wide, np.uint32)
    filling = np.empty(bytes_wide, np.uint8)
    starts, stops = np.empty((count_spots, height), np.int64), np.empty((count_spots, height), np.int64)
    for b in range(begin, end):
        n = scenes[b]
        half, scene, seen, glimpse = halves[table[n]], image[n], out_acuity[b], out[b].reshape(height, bytes_wide)
        for s in range(count_spots):
            column, row = _pixel(spots[b, s, 0], width), _pixel(spots[b, s, 1], height)
            _find_runs(half, column, row, width, starts[s], stops[s])
        if count_spots == 2:
            for y in range(height):  # where two runs meet they become one, so that no pixel counts twice
                if stops[0, y] > 0 and stops[1, y] > 0 and starts[1, y] <= stops[0, y] and starts[0, y] <= stops[1, y]:
                    starts[0, y], stops[0, y] = min(starts[0, y], starts[1, y]), max(stops[0, y], stops[1, y])
                    starts[1, y] = stops[1, y] = 0
        if behind.size == 0:
            if mean.size == 0:
                _mean_of_runs(scene, starts, stops, sums, colour)
            else:
                copy_bytes(colour, mean[n])
            _fill_row(filling, colour)
        for y in range(height):
            row_out, row_seen = glimpse[y], seen[y]
            if behind.size == 0:
                copy_bytes(row_out, filling)
            else:
                copy_bytes(row_out, behind[n, y])
            _set_run(row_seen, hidden_acuity)
            for s in range(count_spots):
                start, stop = starts[s, y], stops[s, y]
                if stop > start:
                    copy_bytes(row_out[3 * start : 3 * stop], scene[y][3 * start : 3 * stop])
                    _set_run(row_seen[start:stop], 255)
                    if known.size > 0:
                        _set_run(known[b, y][start:stop], 255)
        if known.size > 0:
            coverage[1, b] = coverage[0, b]
            if hidden_acuity > 0:
                coverage[0, b] = _widen(known[b], seen)
            else:
                coverage[0, b] = mean_acuity(known[b].reshape(known[b].size))


@jit
def hide_patches(
    image: U8,
    scenes: I64,
    draws: F64,
    hidden: int,
    patch: int,
    mean: U8,
    behind: U8,
    hidden_acuity: int,
    out: U8,
    out_acuity: U8,
    begin: int,
    end: int,
) -> None:
    """Hide the patches with the smallest draws.

    Args:
        image: (N, H, 3 W) uint8.
        scenes: (B,) int64, which of them each lane looks at.
        draws: (B, patches) float64, one for each patch, row by row.
        hidden: How many are hidden.
        patch: Side of a patch in px.
        mean: As in :func:`cover_spots`.
        behind: As in :func:`cover_spots`.
        hidden_acuity: Acuity of what is hidden.
        out: (B, H, W, 3) uint8, written.
        out_acuity: (B, H, W) uint8, written.
        begin: The first lane.
        end: The lane behind the last.
    """
    _, height, bytes_wide = image.shape
    width = bytes_wide // 3
    across = -(-width // patch)
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    for b in range(begin, end):
        scene = image[scenes[b]]
        visible = np.ones(draws.shape[1], np.bool_)
        if hidden > 0:
            visible = draws[b] > np.partition(draws[b], hidden - 1)[hidden - 1]
        if behind.size == 0:
            if mean.size == 0:
                total[:] = 0
                count = 0
                for y in range(height):
                    for i in range(across):
                        if visible[y // patch * across + i]:
                            start, stop = i * patch, min(i * patch + patch, width)
                            _sum_run(scene[y][3 * start : 3 * stop], total)
                            count += stop - start
                _mean_colour(total, count, colour)
            else:
                colour[:] = mean[scenes[b]]
        glimpse = out[b].reshape(height, bytes_wide)
        for y in range(height):
            for i in range(across):
                start, stop = i * patch, min(i * patch + patch, width)
                run, seen = glimpse[y][3 * start : 3 * stop], out_acuity[b, y][start:stop]
                if visible[y // patch * across + i]:
                    copy_bytes(run, scene[y][3 * start : 3 * stop])
                    _set_run(seen, 255)
                else:
                    if behind.size == 0:
                        _fill_row(run, colour)
                    else:
                        copy_bytes(run, behind[scenes[b], y][3 * start : 3 * stop])
                    _set_run(seen, hidden_acuity)


@jit
def read_boxes(sums: I32, scenes: I64, fixation: F32, table: I64, boxes: I32, patch: U8) -> None:
    """Average a box of the scene for each receptor.

    Args:
        sums: (N, H + 1, 3 (W + 1)) int32, from ``mask_kernels.sum_areas``.
        scenes: (B,) int64, which of them each lane looks at.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which acuity table each lane uses.
        boxes: (T, N, 4) int32: left, top, right, bottom from the fixated pixel, the last two exclusive.
        patch: (B, 3 N) uint8, written: what the receptors report; 127 where their box is outside of the scene.
    """
    height, width = sums.shape[1] - 1, sums.shape[2] // 3 - 1
    for b in range(fixation.shape[0]):
        areas = sums[scenes[b]]
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
                    lower = np.int64(areas[bottom, 3 * right + c]) - areas[bottom, 3 * left + c]
                    upper = np.int64(areas[top, 3 * right + c]) - areas[top, 3 * left + c]
                    inside = np.uint64((lower - upper) & 0xFFFFFFFF)
                    patch[b, 3 * n + c] = (2 * inside + area) // (2 * area)


@jit
def read_sectors(
    image: U8, scenes: I64, fixation: F32, table: I64, covering: I16 | I32, nearest: I32, patch: U8
) -> None:
    """Average the pixels that each receptor covers.

    Args:
        image: (N, H, 3 W) uint8.
        scenes: (B,) int64, which of them each lane looks at.
        fixation: (B, 2) float32, px.
        table: (B,) int64, which acuity table each lane uses.
        covering: As in :func:`show_receptors`.
        nearest: (T, N, 2) int32: the pixel, (x, y) from the fixated one, that a receptor reports which covers none.
        patch: (B, 3 N) uint8, written: what the receptors report; 127 where they lie outside of the scene.
    """
    _, height, bytes_wide = image.shape
    width, count = bytes_wide // 3, nearest.shape[1]
    for b in range(fixation.shape[0]):
        scene = image[scenes[b]]
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        total, area = np.zeros(3 * count, np.int64), np.zeros(count, np.int64)
        for y in range(height):
            receptor = covering[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column]
            row_bytes = scene[y]
            for x in range(width):
                covers = np.int64(receptor[x])
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
                    patch[b, 3 * n + c] = scene[down, 3 * at + c] if seen else np.uint8(127)


@jit
def show_receptors(
    fixation: F32, table: I64, covering: I16 | I32, acuities: U8, patch: U8, out: U8, out_acuity: U8
) -> None:
    """Show at every pixel what the receptor that covers it reports.

    Args:
        fixation: (B, 2) float32, px.
        table: (B,) int64, which acuity table each lane uses.
        covering: (T, 2 H - 1, 2 W - 1): by offset from the fixated pixel, the receptor shown there, -1 where hidden.
        acuities: (T, 2 H - 1, 2 W - 1) uint8, 0 where hidden.
        patch: (B, 3 N) uint8, what the receptors report.
        out: (B, H, W, 3) uint8, written; the mean colour of what is seen stands where it is hidden.
        out_acuity: (B, H, W) uint8, written.
    """
    lanes, height, width = out_acuity.shape
    colour, total = np.zeros(3, np.uint8), np.zeros(3, np.int64)
    for b in range(lanes):
        column, row = _pixel(fixation[b, 0], width), _pixel(fixation[b, 1], height)
        t = table[b]
        total[:] = 0
        count = 0
        reports, glimpse = patch[b], out[b].reshape(height, 3 * width)
        for y in range(height):
            receptor = covering[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column]
            copy_bytes(out_acuity[b, y], acuities[t, y - row + height - 1][width - 1 - column : 2 * width - 1 - column])
            out_row = glimpse[y]
            for x in range(width):
                report = 3 * np.int64(receptor[x])
                if report >= 0:
                    count += 1
                    for c in range(3):
                        out_row[3 * x + c] = reports[report + c]
                        total[c] += reports[report + c]
        if count < height * width:
            _mean_colour(total, count, colour)
            for y in range(height):
                seen, out_row = out_acuity[b, y], glimpse[y]
                for x in range(width):
                    if seen[x] == 0:
                        for c in range(3):
                            out_row[3 * x + c] = colour[c]
