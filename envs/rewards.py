"""Rewards that need no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from foveasim import check
from foveasim.registry import Registry
from foveasim.simulator import Simulator

__all__ = ["REWARDS", "Coverage", "Reward", "make_reward"]


class Reward(Protocol):
    """Judges the saccade that was just made."""

    def __call__(self, simulator: Simulator) -> dict[str, Any]:
        """Return the reward's terms by name, each (B,) float32; the reward is their sum, and ``info`` shows each."""


REWARDS = Registry[Reward]("reward", group="foveasim.rewards")


def make_reward(reward: str | Reward, **options: object) -> Reward:
    """Return a reward by name, by ``package.module:Class``, or as it is.

    Raises:
        UnknownNameError: Unknown name; the message lists the choices.
    """
    return REWARDS.make(reward, **options) if isinstance(reward, str) else reward


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
        check.number("cost_per_deg", self.cost_per_deg, 0)

    def __call__(self, simulator: Simulator) -> dict[str, Any]:
        """Return the terms ``coverage_gain`` and ``saccade_cost``."""
        seen = simulator.measured
        return {
            "coverage_gain": seen.coverage - seen.coverage_before,
            "saccade_cost": seen.amplitude_deg * -self.cost_per_deg,
        }
