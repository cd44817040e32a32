"""What has been seen so far: the sharpest view of every pixel, with optional forgetting."""

from __future__ import annotations

import torch
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.types import Belief, Glimpse

__all__ = ["UNSEEN", "Forgetting", "coverage", "empty", "integrate", "retained_share"]

UNSEEN = 127
"""Grey level of a pixel that was never seen."""


def empty(lanes: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Belief:
    """Return the belief of an eye that has seen nothing: mid-grey, acuity 0.

    Example:
        >>> empty(2, (96, 96)).acuity.shape
        torch.Size([2, 96, 96])
    """
    height, width = validation.size_hw("size", size)
    image = torch.full((lanes, height, width, 3), UNSEEN, dtype=torch.uint8, device=device)
    return Belief(image, torch.zeros(lanes, height, width, dtype=torch.uint8, device=device))


def retained_share(elapsed_ms: Tensor, half_life_ms: float | None) -> Tensor:
    """Return the share of acuity that is left after a time.

    Args:
        elapsed_ms: (B,) float32.
        half_life_ms: Time after which half of it is left; None forgets nothing.

    Returns:
        (B,) float32, 0 to 1.

    Raises:
        InvalidValueError: A half-life that is not above 0.

    Example:
        >>> retained_share(torch.tensor([0.0, 500.0, 1000.0]), 500).tolist()
        [1.0, 0.5, 0.25]
    """
    if half_life_ms is None:
        return torch.ones_like(elapsed_ms)
    validation.number("half_life_ms", half_life_ms, 1e-3, 1e15)
    return torch.exp2(-elapsed_ms / half_life_ms)


class Forgetting:
    """The exact acuity behind a belief that forgets.

    ``Belief.acuity`` counts in whole steps of 255. Forgetting a little at every glimpse would lose up to a step each
    time, so what is left is stored here exactly, and belief holds it rounded down.

    Args:
        lanes: B.
        size: (H, W), px.
        half_life_ms: Time after which half of it is left.
        device: Where it lives.
    """

    def __init__(self, lanes: int, size: tuple[int, int], half_life_ms: float, device: torch.device | str) -> None:
        self.half_life_ms = half_life_ms
        self.exact = torch.zeros(lanes, *size, device=device)

    def decay(self, acuity: Tensor, elapsed_ms: Tensor) -> None:
        """Let time pass.

        Args:
            acuity: (B, H, W) uint8, of the belief, updated in place.
            elapsed_ms: (B,) float32, since the last glimpse.
        """
        self.exact *= retained_share(elapsed_ms, self.half_life_ms)[:, None, None]
        acuity.copy_(self.exact)

    def update(self, acuity: Tensor, new_acuity: Tensor) -> None:
        """Update it after a glimpse was integrated.

        Args:
            acuity: (B, H, W) uint8, of the belief, with the glimpse.
            new_acuity: (B, H, W) uint8, of the glimpse.
        """
        self.exact = torch.where(acuity == new_acuity, new_acuity.to(torch.float32), self.exact)


def integrate(belief: Belief, glimpse: Glimpse) -> Belief:
    """Take over every pixel that is now seen at least as sharply as it is remembered.

    A view that is exactly as sharp as the remembered one replaces it, so belief follows a scene that moves, and what no
    eye has seen yet is filled as in the newest glimpse. What is left of a remembered acuity is rounded down, so that
    everything is forgotten in the end.

    Args:
        belief: B lanes; not changed.
        glimpse: B lanes of the same size.

    Returns:
        The new belief.

    Raises:
        InvalidValueError: Sizes that do not fit.
    """
    if belief.image.shape != glimpse.image.shape:
        raise InvalidValueError(
            f"glimpse.image must have the belief's shape {tuple(belief.image.shape)}; got {tuple(glimpse.image.shape)}."
        )
    newer = glimpse.acuity >= belief.acuity
    image = torch.where(newer[..., None], glimpse.image, belief.image)
    return Belief(image, torch.where(newer, glimpse.acuity, belief.acuity))


def coverage(belief: Belief) -> Tensor:
    """Return the acuity-weighted share of the scene that has been seen, (B,) float32 in [0, 1]."""
    height, width = belief.acuity.shape[1:]
    total = belief.acuity.sum((1, 2), dtype=torch.int64).to(torch.float64)
    return (total / (255.0 * height * width)).to(torch.float32)
