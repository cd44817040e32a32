"""The inner loops of the readout of cells on the CPU, in numba, one lane after the other.

A lane's answer has the same bits whatever lanes are beside it, which torch's matrix products do not promise: they add
up in another order for another number of rows (measured: 4e-7 between 1 and 4 lanes), and an episode would not repeat.

This module is imported by whoever needs it, when it needs it: numba takes 0.4 s to import.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.jit import jit

__all__ = ["sum_cells", "weigh_classes"]

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@jit
def sum_cells(image: U8, acuity: U8, colour: F64, weight: F64) -> None:
    """Average what was seen of each cell. Cells share the pixels that their borders cut, as adaptive pooling's do.

    Args:
        image: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8.
        colour: (B, 3, rows, cols) float64, written: mean colour weighted by acuity, 0 to 1; 0 where nothing was seen.
        weight: (B, rows, cols) float64, written: mean acuity, 0 to 1.
    """
    height, width = acuity.shape[1], acuity.shape[2]
    rows, cols = weight.shape[1], weight.shape[2]
    for b in range(len(acuity)):
        for r in range(rows):
            top, bottom = r * height // rows, -(-(r + 1) * height // rows)
            for c in range(cols):
                left, right = c * width // cols, -(-(c + 1) * width // cols)
                sharp, red, green, blue = 0, 0, 0, 0
                for y in range(top, bottom):
                    line, clear = image[b, y], acuity[b, y]
                    for x in range(left, right):
                        share = int(clear[x])
                        sharp += share
                        red += share * line[x, 0]
                        green += share * line[x, 1]
                        blue += share * line[x, 2]
                weight[b, r, c] = sharp / (255.0 * (bottom - top) * (right - left))
                whole = 255.0 * max(sharp, 1)
                colour[b, 0, r, c], colour[b, 1, r, c], colour[b, 2, r, c] = red / whole, green / whole, blue / whole


@jit
def weigh_classes(colour: F64, weight: F64, mean: F32, std: F32, temperature: float, out: F32) -> None:
    """Write the logarithm of each class's probability, (B, C) float32; see ``CellReadout``.

    Args:
        colour: (B, 3, rows, cols) float64, of :func:`sum_cells`, as is ``weight``.
        weight: (B, rows, cols) float64.
        mean: (C, 3, rows, cols) float32.
        std: (3, rows, cols) float32.
        temperature: Weight of the evidence.
        out: (B, C) float32, written.
    """
    score = np.empty(len(mean))
    for b in range(len(out)):
        for k in range(len(mean)):
            total = 0.0
            for i in range(mean.shape[1]):
                for r in range(mean.shape[2]):
                    for c in range(mean.shape[3]):
                        away = (colour[b, i, r, c] - mean[k, i, r, c]) / std[i, r, c]
                        total += weight[b, r, c] * away * away
            score[k] = -0.5 * temperature * total
        max_score, total_share = score.max(), 0.0
        for k in range(len(mean)):
            total_share += np.exp(score[k] - max_score)
        for k in range(len(mean)):
            out[b, k] = np.float32(score[k] - max_score - np.log(total_share))
