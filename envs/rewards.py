"""Rewards that need no network."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.registry import Registry
from foveasim.simulator.simulator import Simulator

__all__ = ["REWARDS", "Coverage", "Reward", "make_reward"]


class Reward(Protocol):
    """Judges the saccade that was just made."""

    def __call__(self, simulator: Simulator) -> dict[str, Any]:
        """Return the reward's terms by name, each (B,) float32; the reward is their sum, and ``info`` shows each."""


REWARDS = Registry[Reward]("reward", group="foveasim.rewards")


def make_reward(reward: str | Reward, /, **options: object) -> Reward:
    """Return a reward by name, by ``package.module:Class``, or as it is.

    Raises:
        UnknownNameError: Unknown name; the message lists the choices.
        InvalidTypeError: No reward: it cannot be called.
        InvalidValueError: Options along with a reward that is made already.
    """
    if isinstance(reward, str):
        return REWARDS.make(reward, **options)
    if not callable(reward) or isinstance(reward, type):
        raise InvalidTypeError(
            f"reward must be a name ({', '.join(REWARDS)}), 'package.module:Class' or a function of the simulator; got "
            f"{reward!r}."
        )
    if options:
        raise InvalidValueError(
            f"reward_options are for a reward given by name; got {', '.join(options)} beside {reward!r}."
        )
    return reward


@REWARDS.register("coverage")
@dataclass(frozen=True)
class Coverage:
    """How much more of the scene has been seen, weighted by acuity, minus a cost of moving.

    Attributes:
        cost_per_deg: Cost of a degree of saccade. The default makes a saccade of 10 degrees cost what seeing half a
            percent of the scene earns.
    """

    cost_per_deg: float = 0.0005

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: A negative cost.
        """
        validation.number("cost_per_deg", self.cost_per_deg, 0)

    @functools.cached_property
    def _gain_per_deg(self) -> NDArray[np.float32]:
        return np.array([-self.cost_per_deg], np.float32)  # NumPy is twice as fast on arrays as on a number

    def __call__(self, simulator: Simulator) -> dict[str, Any]:
        """Return the terms ``coverage_gain`` and ``saccade_cost``."""
        seen = simulator.measured
        degrees = seen.amplitude_deg
        return {
            "coverage_gain": seen.coverage - seen.coverage_before,
            "saccade_cost": degrees * (self._gain_per_deg if isinstance(degrees, np.ndarray) else -self.cost_per_deg),
        }
