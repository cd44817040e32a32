"""How an eye gets from one fixation to the next: amplitude limit, endpoint scatter, main sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidValueError
from foveasim.rng import Key, Stream
from foveasim.types import Saccade

__all__ = ["Saccades", "progress"]


@dataclass(frozen=True)
class Saccades:
    """What an eye can do.

    Attributes:
        max_amplitude_deg: Longest saccade, before scatter; a farther target is undershot along the same direction.
            None: no limit.
        scatter: Standard deviation of the landing point around the target in each direction, as a share of the
            amplitude; 0 lands exactly. People's scatter grows with amplitude (van Beers 2007, The sources of
            variability in saccadic eye movements).
        slope_ms_per_deg: Duration for each degree of amplitude.
        intercept_ms: Duration of an infinitely small saccade.
        dwell_ms: How long the eye rests at a fixation before it may move on. People who view photographs rest for
            215 ms on average (70,145 fixations of OSIE's training split), searching eyes longer.

    Reference:
        Carpenter (1988), Movements of the Eyes: duration = 2.2 A + 21 ms.
    """

    max_amplitude_deg: float | None = None
    scatter: float = 0.0
    slope_ms_per_deg: float = 2.2
    intercept_ms: float = 21.0
    dwell_ms: float = 250.0

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An option out of range.
        """
        if self.max_amplitude_deg is not None:
            validation.number("max_amplitude_deg", self.max_amplitude_deg, 0, 1e9, open_low=True)
        validation.number("scatter", self.scatter, 0, 1)
        validation.number("slope_ms_per_deg", self.slope_ms_per_deg, 0, 1e9)
        validation.number("intercept_ms", self.intercept_ms, 0, 1e9)
        validation.number("dwell_ms", self.dwell_ms, 0, 1e9)

    @property
    def limits(self) -> tuple[float, float, float, float]:
        """Greatest amplitude in deg, scatter, slope in ms/deg, intercept in ms: what the kernel takes."""
        max_deg = math.inf if self.max_amplitude_deg is None else self.max_amplitude_deg
        return max_deg, self.scatter, self.slope_ms_per_deg, self.intercept_ms

    def execute(
        self,
        start_px: Tensor,
        target_px: Tensor,
        size: tuple[int, int],
        px_per_deg: Tensor,
        key: Key | None = None,
    ) -> Saccade:
        """Move eyes. Gaze stops at the edge of the scene: a landing point beyond it is held there.

        Args:
            start_px: (B, 2) float32.
            target_px: (B, 2) float32.
            size: (H, W) of the scene, px.
            px_per_deg: (B,) float32.
            key: For the scatter; needed where ``scatter`` is above 0.

        Returns:
            The saccades. One of no amplitude takes no time.

        Raises:
            InvalidValueError: Wrong shapes, points that are not finite, or a missing key.

        Example:
            >>> start, target = torch.tensor([[48.0, 48.0]]), torch.tensor([[83.0, 48.0]])
            >>> saccade = Saccades().execute(start, target, (96, 96), torch.tensor([3.5]))
            >>> saccade.amplitude_deg.item(), round(saccade.duration_ms.item(), 1)
            (10.0, 43.0)
        """
        start = validation.points("start_px", start_px)
        target = validation.points("target_px", target_px, len(start))
        if self.scatter > 0 and (key is None or len(key.seed) != len(start)):
            came = "None" if key is None else f"one of {len(key.seed)} lanes"
            raise InvalidValueError(
                f"scatter draws random numbers; key must be Key.of(seed, {len(start)}); got {came}."
            )
        return self.fly(start, target, size, px_per_deg, key)

    def fly(self, start: Tensor, target: Tensor, size: tuple[int, int], px_per_deg: Tensor, key: Key | None) -> Saccade:
        """Do what :meth:`execute` does, of arguments that are known to be good: checking waits for a device."""
        move = target - start
        reach = torch.linalg.vector_norm(move, dim=1)
        max_deg, scatter, slope, intercept = self.limits
        if math.isfinite(max_deg):
            move = move * (max_deg * px_per_deg / reach.clamp_min(1e-12)).clamp_max(1)[:, None]
            reach = torch.minimum(reach, max_deg * px_per_deg)
        if scatter > 0 and key is not None:
            move = move + (key.normal(Stream.SCATTER, 2) * (scatter * reach)[:, None]).to(torch.float32)
        landing = geometry.clamp_px(start + move, size)
        amplitude = geometry.distance_deg(landing, start, px_per_deg)
        duration = torch.where(amplitude > 0, slope * amplitude + intercept, 0.0)
        return Saccade(start, target, landing, amplitude, duration)


def progress(share_of_duration: float) -> float:
    """Return how far along its path an eye is: minimum jerk, 0 to 1.

    Args:
        share_of_duration: Time since the start over the saccade's duration, 0 to 1.

    Reference:
        Flash and Hogan (1985), The coordination of arm movements: an experimentally confirmed mathematical model.

    Example:
        >>> progress(0.5)
        0.5
    """
    t = min(max(share_of_duration, 0.0), 1.0)
    return t * t * t * (10 - 15 * t + 6 * t * t)
