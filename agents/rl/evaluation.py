"""Validation of a gaze policy: the looks and the judge of ``foveasim compare``, on scenes that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.evaluation.judge import Judge, Scenes
from foveasim.agents.evaluation.scene_runner import Entry, Looker
from foveasim.agents.interface import Agent
from foveasim.agents.mim.predictor import Predictor
from foveasim.eye.retina import Retina

__all__ = ["Score", "Validator"]


@dataclass(frozen=True, eq=False)
class Score:
    """How well an agent looked.

    Attributes:
        mse: (S, N) float64, mean squared error of the predicted scene after each fixation; the first is the start.
    """

    mse: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Mean over scenes and all fixations but the first, in image units squared: less is better."""
        return float(self.mse[:, 1:].mean())

    @property
    def curve(self) -> list[float]:
        """Mean over scenes after each fixation, N numbers."""
        return [float(value) for value in self.mse.mean(0)]

    @property
    def said(self) -> str:
        """The error for people."""
        return f"error {1000 * self.error:.3f} × 10⁻³"

    @staticmethod
    def said_less(mean: float, half: float) -> str:
        """What :meth:`less_than` returns, for people."""
        return f"{1000 * mean:+.3f} ± {1000 * half:.3f} less than"

    def less_than(self, other: Score) -> tuple[float, float]:
        """Return by how much the error is less than another's on the same scenes, and the half of its 95 % interval.

        The interval is that of the mean of paired differences, 1.96 standard errors over scenes.
        """
        less = other.mse[:, 1:].mean(1) - self.mse[:, 1:].mean(1)
        spread = less.std(ddof=1) if len(less) > 1 else math.nan
        return float(less.mean()), float(1.96 * spread / math.sqrt(len(less)))


class Validator:
    """Lets agents look at the scenes of validation, from their centres.

    Args:
        scenes: Of one size.
        retina: The eye.
        imaginer: The network that judges.
        budget: Saccades on each scene.
        lanes: Scenes at a time.
        seed: Of the agents.
    """

    def __init__(
        self, scenes: Scenes, retina: Retina, imaginer: Predictor, *, budget: int, lanes: int = 50, seed: int = 0
    ) -> None:
        judge = Judge(imaginer, scenes, lanes)
        self._looker = Looker(scenes, retina, judge, fixations=budget + 1, seeds=(seed,), lanes=lanes)

    def score(self, label: str, make: Callable[[int], Agent]) -> Score:
        """Let an agent look, built from a seed.

        Raises:
            AgentError: It fails.
        """
        looked = self._looker.look(Entry(label, label, make))
        return Score(looked.numbers["mse"][0])
