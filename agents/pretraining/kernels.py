"""The inner loops of pretraining batches on the CPU: crops, colour jitter, fills and the way to float, in numba.

Loops run over slices of rows, which is what LLVM turns into vector instructions; see :mod:`foveasim.eye.kernels.step`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.jit import jit

__all__ = ["crop_lanes", "fill_unseen", "jitter_lanes", "widen"]

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
BOOL = NDArray[np.bool_]


@jit
def widen(source: U8, out: F32) -> None:
    """Divide bytes by 255.

    Args:
        source: (N, M) uint8.
        out: (N, M) float32, written; equal to the bit to what torch's division gives, at half its time and less.
    """
    whole = np.float32(255)
    for n in range(source.shape[0]):
        here, there = source[n], out[n]
        for i in range(here.size):
            there[i] = np.float32(here[i]) / whole


@jit
def _set_taps(first: I64, weight: F32, extent: int) -> int:
    """Write a triangle filter that is as wide as the step, and return how many taps each output has.

    Args:
        first: (N,) int64, written: the first input of each output.
        weight: (T, N) float32, written; what T leaves unused is 0.
        extent: Inputs.
    """
    count = first.size
    step = extent / count
    support = max(step, 1.0)
    taps = min(int(np.ceil(2 * support)) + 1 if step > 1 else 2, extent)
    for i in range(count):
        middle = (i + 0.5) * step
        begin = min(max(int(np.floor(middle - support + 0.5)), 0), extent - taps)
        total = 0.0
        for k in range(taps):
            total += max(1 - abs(begin + k + 0.5 - middle) / support, 0.0)
        for k in range(taps):
            weight[k, i] = np.float32(max(1 - abs(begin + k + 0.5 - middle) / support, 0.0) / total)
        first[i] = begin
    return taps


@jit
def _count_taps(extent: int, count: int) -> int:
    return int(np.ceil(2 * max(extent / count, 1.0))) + 1


@jit
def crop_lanes(pixels: U8, start: I64, width: I64, box: I64, mirrored: BOOL, channels: int, out: U8) -> None:
    """Cut a box out of one image for each lane and scale it, bilinear and antialiased.

    Rows are mixed first, over whole contiguous rows, then columns.

    Args:
        pixels: Flat uint8, images of C channels one after the other.
        start: (B,) int64, where in it each lane's image begins.
        width: (B,) int64, its width, px.
        box: (B, 4) int64: top, left, height, width of the crop, px, inside of the image.
        mirrored: (B,) bool, left and right exchanged.
        channels: C.
        out: (B, H, C W) uint8, written.
    """
    lanes, height, columns = out.shape
    across = columns // channels
    tall, broad = 1, 1
    for b in range(lanes):
        tall, broad = max(tall, box[b, 2]), max(broad, box[b, 3])
    first_row, first_column = np.empty(height, np.int64), np.empty(across, np.int64)
    row_weight = np.empty((_count_taps(tall, height), height), np.float32)
    column_weight = np.empty((_count_taps(broad, across), across), np.float32)
    at, weight = np.empty(columns, np.uint32), np.empty((column_weight.shape[0], columns), np.float32)
    mixed, total = np.empty(broad * channels, np.float32), np.empty(columns, np.float32)
    for b in range(lanes):
        stride, wide = width[b] * channels, box[b, 3] * channels
        corner = start[b] + box[b, 0] * stride + box[b, 1] * channels
        row_taps = _set_taps(first_row, row_weight, box[b, 2])
        column_taps = _set_taps(first_column, column_weight, box[b, 3])
        for x in range(across):
            source = across - 1 - x if mirrored[b] else x
            for c in range(channels):
                at[x * channels + c] = first_column[source] * channels + c
                for k in range(column_taps):
                    weight[k, x * channels + c] = column_weight[k, source]
        row = mixed[:wide]
        for y in range(height):
            here = corner + first_row[y] * stride
            line, share = pixels[here : here + wide], row_weight[0, y]
            for i in range(wide):
                row[i] = share * np.float32(line[i])
            for k in range(1, row_taps):
                here += stride
                line, share = pixels[here : here + wide], row_weight[k, y]
                for i in range(wide):
                    row[i] += share * np.float32(line[i])
            out_row, shares = out[b, y], weight[0]
            if column_taps == 2:
                beside, next_shares = row[channels:], weight[1]
                for j in range(columns):
                    out_row[j] = np.uint8(row[at[j]] * shares[j] + beside[at[j]] * next_shares[j] + np.float32(0.5))
            else:
                for j in range(columns):
                    total[j] = row[at[j]] * shares[j]
                for k in range(1, column_taps):
                    beside, next_shares = row[k * channels :], weight[k]
                    for j in range(columns):
                        total[j] += beside[at[j]] * next_shares[j]
                for j in range(columns):
                    out_row[j] = np.uint8(total[j] + np.float32(0.5))


@jit
def _brighten(planes: F32, factor: np.float32) -> None:
    for c in range(3):
        plane = planes[c]
        for i in range(plane.size):
            value = plane[i] * factor
            plane[i] = value if value < np.float32(255) else np.float32(255)


@jit
def _mix_grey(planes: F32, factor: np.float32, level: np.float32) -> None:
    """Blend with a grey level, or where that is negative with each pixel's own grey."""
    red, green, blue = planes[0], planes[1], planes[2]
    own = np.float32(1) if level < 0 else np.float32(0)
    rest = np.float32(1) - factor
    base = np.float32(0) if level < 0 else level
    for i in range(red.size):
        r, g, b = red[i], green[i], blue[i]
        grey = own * (np.float32(0.2989) * r + np.float32(0.587) * g + np.float32(0.114) * b) + base
        r, g, b = factor * r + rest * grey, factor * g + rest * grey, factor * b + rest * grey
        r, g, b = r if r > 0 else np.float32(0), g if g > 0 else np.float32(0), b if b > 0 else np.float32(0)
        red[i] = r if r < np.float32(255) else np.float32(255)
        green[i] = g if g < np.float32(255) else np.float32(255)
        blue[i] = b if b < np.float32(255) else np.float32(255)


@jit
def _mean_grey(planes: F32) -> np.float32:
    sums = np.zeros(3)
    for c in range(3):
        plane, total = planes[c], 0.0
        for i in range(plane.size):
            total += plane[i]
        sums[c] = total
    return np.float32((0.2989 * sums[0] + 0.587 * sums[1] + 0.114 * sums[2]) / planes.shape[1])


@jit
def _turn_hue(planes: F32, turn: np.float32) -> None:
    """Turn the hue of HSV by a share of the circle, -1 to 1.

    With V the largest channel and C its distance to the smallest, a channel is V - C max(0, min(k, 4 - k, 1)), where k
    is 5, 3 or 1 plus six times the hue, modulo 6: no branches, so that the loop becomes vector instructions.
    """
    red, green, blue = planes[0], planes[1], planes[2]
    zero, one, four, six = np.float32(0), np.float32(1), np.float32(4), np.float32(6)
    for i in range(red.size):
        r, g, b = red[i], green[i], blue[i]
        maximum = r if r > g else g
        maximum = maximum if maximum > b else b
        minimum = r if r < g else g
        minimum = minimum if minimum < b else b
        chroma = maximum - minimum
        scale = one / (chroma if chroma > zero else one)
        hue = (g - b) * scale if maximum == r else ((b - r) * scale + 2 if maximum == g else (r - g) * scale + 4)
        hue = np.float32(hue) + six * turn
        hue = hue - six * np.floor(hue / six)
        k = hue + np.float32(5)
        k = k - six if k >= six else k
        f = k if k < four - k else four - k
        f = f if f < one else one
        red[i] = maximum - chroma * (f if f > zero else zero)
        k = hue + np.float32(3)
        k = k - six if k >= six else k
        f = k if k < four - k else four - k
        f = f if f < one else one
        green[i] = maximum - chroma * (f if f > zero else zero)
        k = hue + one
        k = k - six if k >= six else k
        f = k if k < four - k else four - k
        f = f if f < one else one
        blue[i] = maximum - chroma * (f if f > zero else zero)


@jit
def jitter_lanes(image: U8, factors: F32, order: I64, applied: BOOL) -> None:
    """Change brightness, contrast, saturation and hue, in place.

    Args:
        image: (B, 3 N) uint8, RGB.
        factors: (B, 4) float32: of brightness, contrast and saturation, 1 for none; turn of the hue, 0 for none.
        order: (B, 4) int64, a permutation of 0 to 3: which of them comes first, second, ...
        applied: (B,) bool; the other lanes stay as they are.
    """
    count = image.shape[1] // 3
    planes = np.empty((3, count), np.float32)
    for b in range(image.shape[0]):
        if not applied[b]:
            continue
        row = image[b]
        red, green, blue = planes[0], planes[1], planes[2]
        for i in range(count):
            red[i], green[i], blue[i] = row[3 * i], row[3 * i + 1], row[3 * i + 2]
        for place in range(4):
            change = order[b, place]
            factor = factors[b, change]
            if change == 0:
                _brighten(planes, factor)
            elif change == 1:
                _mix_grey(planes, factor, _mean_grey(planes))
            elif change == 2:
                _mix_grey(planes, factor, np.float32(-1))
            else:
                _turn_hue(planes, factor)
        half = np.float32(0.5)
        for i in range(count):
            row[3 * i], row[3 * i + 1] = np.uint8(red[i] + half), np.uint8(green[i] + half)
            row[3 * i + 2] = np.uint8(blue[i] + half)


@jit
def fill_unseen(image: U8, acuity: U8) -> None:
    """Paint what was not seen in the mean colour of what was, weighted by acuity; 127 where nothing was. In place.

    Args:
        image: (B, H, 3 W) uint8.
        acuity: (B, H, W) uint8.
    """
    lanes, height, width = acuity.shape
    for b in range(lanes):
        red = green = blue = weight = np.int64(0)
        hidden = False
        for y in range(height):
            seen, row = acuity[b, y], image[b, y]
            r = g = u = w = np.uint32(0)  # 16,384 px of 255 times 255 fit
            for x in range(width):
                a = np.uint32(seen[x])
                r += a * np.uint32(row[3 * x])
                g += a * np.uint32(row[3 * x + 1])
                u += a * np.uint32(row[3 * x + 2])
                w += a
                hidden |= seen[x] == 0
            red, green, blue, weight = red + r, green + g, blue + u, weight + w
        if not hidden:
            continue
        if weight == 0:
            red = green = blue = np.int64(127)
            weight = np.int64(1)
        red, green = (2 * red + weight) // (2 * weight), (2 * green + weight) // (2 * weight)
        blue = (2 * blue + weight) // (2 * weight)
        for y in range(height):
            seen, row = acuity[b, y], image[b, y]
            for x in range(width):
                if seen[x] == 0:
                    row[3 * x], row[3 * x + 1], row[3 * x + 2] = np.uint8(red), np.uint8(green), np.uint8(blue)
