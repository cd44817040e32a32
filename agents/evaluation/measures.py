"""How far a predicted scene is from the true one: over the whole scene, and where the eye did not see sharply."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.mim.network import fill_unseen, to_float

__all__ = ["MEASURES", "NUMBERS", "Measure", "measure_predictions"]

HALF = 128
"""A pixel counts as seen sharply from half of full acuity on: no pixel of a blurred retina need reach all of it."""

_WINDOW_PX = 11
"""Side of SSIM's Gaussian window of 1.5 px (Wang, Bovik, Sheikh and Simoncelli 2004, IEEE TIP 13:600-612, III-C)."""


@dataclass(frozen=True)
class Measure:
    """A measure of a prediction.

    Over several scenes it is the sum of ``numerator`` divided by that of ``denominator``, or the mean of ``numerator``
    where there is no denominator. Both are keys of :data:`NUMBERS`.

    Attributes:
        name: Its key in files.
        title: For people.
        numerator: What is summed over scenes.
        denominator: What that is divided by, or "" for the number of scenes.
        lower_is_better: Which direction is good.
        scale: Factor that makes figures readable in a table; the title of a table's column says it.
        unit: Of the scaled figures.
        digits: After the point, of the scaled figures.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    lower_is_better: bool
    scale: float = 1.0
    unit: str = ""
    digits: int = 3


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("mse", "squared error, whole scene", "mse", "", True, 1000, "× 10⁻³", 2),
        Measure("hidden_mse", "squared error of a hidden pixel", "hidden_error", "hidden_px", True, 1000, "× 10⁻³", 2),
        Measure("relative", "error on hidden pixels ÷ that of filling", "hidden_error", "fill_error", True),
        Measure("psnr", "PSNR, whole scene", "psnr", "", False, 1, "dB", 2),
        Measure("hidden_psnr", "PSNR of hidden pixels", "hidden_psnr", "", False, 1, "dB", 2),
        Measure("ssim", "SSIM, whole scene", "ssim", "", False),
        Measure("hidden_ssim", "SSIM of hidden pixels", "hidden_similarity", "hidden_px", False),
    )
}
"""Every measure by its name. Hidden pixels are weighted by 1 - acuity. ``relative`` divides by the error of filling
what was not seen with the mean colour of what was; with a blurred view that covers the scene, by the error of that
view."""

NUMBERS = (
    *("mse", "psnr", "ssim", "hidden_error", "fill_error", "hidden_px", "hidden_psnr", "hidden_similarity"),
    *("sharp", "coverage"),
)
"""What is measured of each belief and its prediction.

``mse``, ``psnr`` (dB) and ``ssim`` (kornia's, mean over colours) over the whole scene; ``hidden_error`` and
``fill_error``, squared errors summed over hidden pixels and averaged over channels; ``hidden_px``, number of hidden
pixels; ``hidden_psnr``;
``hidden_similarity``, SSIM summed over hidden pixels; ``sharp``, share of pixels seen at half of full acuity or
better; ``coverage``, mean acuity. Images are in [0, 1].
"""


def measure_predictions(predicted: Tensor, truth: Tensor, seen: Tensor, acuity: Tensor) -> NDArray[np.float64]:
    """Measure predictions against the scenes.

    Args:
        predicted: (B, H, W, 3) float32 in [0, 1], on the CPU as the rest.
        truth: (B, H, W, 3) uint8.
        seen: (B, H, W, 3) uint8, the belief's image.
        acuity: (B, H, W) uint8, the belief's.

    Returns:
        (B, K), one column for each of :data:`NUMBERS`. PSNR is infinite where nothing is wrong, and NaN where nothing
        is hidden.
    """
    from kornia.metrics import ssim  # 0.2 s to import

    with torch.inference_mode():
        image, sharpness = to_float(seen, acuity)
        target = truth.permute(0, 3, 1, 2).float() / 255
        guess = predicted.permute(0, 3, 1, 2)
        error = (guess - target).square().mean(1).double()
        filling = (fill_unseen(image, sharpness) - target).square().mean(1).double()
        hidden = (1 - sharpness[:, 0]).double()
        sums = [(error * hidden).sum((1, 2)), (filling * hidden).sum((1, 2)), hidden.sum((1, 2))]
        mse = error.mean((1, 2)).numpy()
        hidden_error, fill_error, hidden_px = (part.numpy() for part in sums)
        likeness = ssim(guess, target, _WINDOW_PX).mean(1).double()
        similarity, hidden_similarity = likeness.mean((1, 2)).numpy(), (likeness * hidden).sum((1, 2)).numpy()
        sharp = (acuity >= HALF).double().mean((1, 2)).numpy()
        coverage = sharpness.double().mean((1, 2, 3)).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        psnr, hidden_psnr = -10 * np.log10(mse), -10 * np.log10(hidden_error / hidden_px)
    found = {
        "mse": mse,
        "psnr": psnr,
        "ssim": similarity,
        "hidden_error": hidden_error,
        "fill_error": fill_error,
        "hidden_px": hidden_px,
        "hidden_psnr": hidden_psnr,
        "hidden_similarity": hidden_similarity,
        "sharp": sharp,
        "coverage": coverage,
    }
    return np.stack([found[name] for name in NUMBERS], 1)
