"""Colour jitter of whole batches: brightness, contrast, saturation and hue, in an order of its own for each image.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526. The definitions are those of torchvision's
    ``ColorJitter(0.8, 0.8, 0.8, 0.2)``: grey is 0.2989 R + 0.587 G + 0.114 B, contrast mixes with the mean grey,
    saturation with that of each pixel, hue turns in HSV, and values are cut off at 0 and 255 after each change.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["shake"]

CHANCE = 0.8
STRENGTH = 0.8
HUE_STRENGTH = 0.2  # of the circle
GREY = (0.2989, 0.587, 0.114)


def shake(image: Tensor, rng: np.random.Generator, lanes: int | None = None, part: slice = slice(None)) -> None:
    """Change the colours of four images in five, in place.

    Brightness, contrast and saturation are multiplied by 0.2 to 1.8, the hue is turned by up to a fifth of the circle.
    On the CPU a kernel does it (48 us an image of 96 x 96), elsewhere torch; the two agree to one grey level.

    Args:
        image: (B, H, W, 3) uint8, contiguous.
        rng: Source of randomness.
        lanes: Size of the batch that the images are of; None where they are all of it.
        part: Which of its lanes they are.
    """
    lanes = len(image) if lanes is None else lanes
    applied = rng.uniform(size=lanes) < CHANCE
    factors = np.empty((lanes, 4), np.float32)
    factors[:, :3] = rng.uniform(1 - STRENGTH, 1 + STRENGTH, (lanes, 3))
    factors[:, 3] = rng.uniform(-HUE_STRENGTH, HUE_STRENGTH, lanes)
    order = rng.permuted(np.tile(np.arange(4), (lanes, 1)), axis=1)
    factors, order, applied = factors[part], order[part], applied[part]
    if image.device.type == "cpu":
        from foveasim.agents.mim.views_kernels import jitter_lanes

        jitter_lanes(image.flatten(1).numpy(), factors, order, applied)
    else:
        _by_torch(image, factors, order, applied)


def _by_torch(
    image: Tensor, factors: NDArray[np.float32], order: NDArray[np.int64], applied: NDArray[np.bool_]
) -> None:
    """Do what ``jitter_lanes`` does, in torch, one change of all lanes that have it in the same place at a time."""
    values = image.to(torch.float32)
    for place in range(4):
        for change, function in enumerate((_brighten, _contrast, _saturate, _turn)):
            lanes = np.flatnonzero(applied & (order[:, place] == change))
            if len(lanes):
                rows = torch.from_numpy(lanes).to(image.device)
                factor = torch.from_numpy(factors[lanes, change]).to(image.device)
                values[rows] = function(values[rows], factor.view(-1, 1, 1, 1))
    image.copy_((values + 0.5).to(torch.uint8))


def _grey(values: Tensor) -> Tensor:
    return (values * torch.tensor(GREY, device=values.device)).sum(3, keepdim=True)


def _brighten(values: Tensor, factor: Tensor) -> Tensor:
    return (values * factor).clamp(0, 255)


def _contrast(values: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(values).mean((1, 2), keepdim=True), values, factor).clamp(0, 255)


def _saturate(values: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(values), values, factor).clamp(0, 255)


def _turn(values: Tensor, turn: Tensor) -> Tensor:
    red, green, blue = values.unbind(3)
    most, least = values.amax(3), values.amin(3)
    chroma = most - least
    span = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        most == red,
        (green - blue) / span,
        torch.where(most == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    at = (hue + 6 * turn[..., 0])[..., None] + torch.tensor([5.0, 3.0, 1.0], device=values.device)
    at = at.remainder(6)
    return most[..., None] - chroma[..., None] * torch.minimum(at, 4 - at).clamp(0, 1)
