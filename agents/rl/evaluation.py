"""Validation of a gaze policy on scenes that it does not train on: as ``foveasim compare`` does, or by its task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from foveasim.agents.evaluation.judge import BeliefJudge, Scenes
from foveasim.agents.evaluation.scene_runner import Entry, SceneRunner
from foveasim.agents.interface import Agent, Observation, agent_name
from foveasim.agents.mim.predictor import Predictor
from foveasim.agents.rollout import Rollout, rollout
from foveasim.eye.retina import Retina

__all__ = ["NonStoppingAgent", "Score", "TaskScore", "TaskValidator", "Validator"]


@dataclass(frozen=True, eq=False)
class TaskScore:
    """How well an agent did.

    Attributes:
        returns: (N,) float64, of each episode, by lane.
        summary: What the returns stand for, such as the share that was found, by name.
    """

    returns: NDArray[np.float64]
    summary: dict[str, float]

    @property
    def error(self) -> float:
        """Minus the mean return: less is better."""
        return -float(self.returns.mean())

    @property
    def curve(self) -> list[float]:
        """Nothing: a task has one number an episode."""
        return []

    @property
    def message(self) -> str:
        """The same in words."""
        more = ", ".join(f"{name} {value:.3g}" for name, value in self.summary.items())
        return f"return {-self.error:.3f} ({more})"

    def improvement_over(self, other: TaskScore) -> tuple[float, float]:
        """Return by how much the return is greater than another's, and the half of its 95 % interval.

        The interval is that of the mean of paired differences, 1.96 standard errors over episodes.
        """
        more = self.returns - other.returns
        spread = more.std(ddof=1) if len(more) > 1 else math.nan
        return float(more.mean()), float(1.96 * spread / math.sqrt(len(more)))

    @staticmethod
    def describe_improvement(mean: float, half: float) -> str:
        """The same in words."""
        return f"{mean:+.3f} ± {half:.3f} more than"


class TaskValidator:
    """Lets agents do episodes of a task, one in each lane, the same for all of them.

    Args:
        envs: Begun anew in the same step.
        seed: Of the envs and the agents.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], seed: int = 0) -> None:
        self._envs, self._seed = envs, seed

    def score(self, label: str, make: Callable[[int], Agent]) -> TaskScore:
        """Let an agent do them, built from a seed.

        Raises:
            AgentError: It fails.
        """
        agent = make(self._seed)
        code = getattr(self._envs.unwrapped, "actions", None)
        if code is not None and code.stop:
            agent = NonStoppingAgent(agent)
        with torch.inference_mode():
            played = rollout(agent, self._envs, episodes=self._envs.num_envs, seed=self._seed)
        order = np.argsort(played.lane, kind="stable")
        return TaskScore(played.returns[order], _summarise(played))


class NonStoppingAgent:
    """An agent in an env with a stop action; where the agent itself has none, it never stops."""

    def __init__(self, agent: Agent) -> None:
        self._agent, self.name = agent, agent_name(agent)
        self.needs = getattr(agent, "needs", ())

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes."""
        self._agent.reset(lanes)

    def act(self, observation: Observation) -> NDArray[Any]:
        """Return what the agent does, (B, 3)."""
        action = np.asarray(self._agent.act(observation), np.float32)
        if action.shape[1] == 2:
            action = np.concatenate((action, np.full((len(action), 1), -1, np.float32)), 1)
        return action


def _summarise(played: Rollout) -> dict[str, float]:
    last = played.length - 1
    ends = {name: values[np.arange(len(last)), last] for name, values in played.info.items()}
    summary = {}
    if "found" in ends:
        summary = {"found": float(ends["found"].mean()), "saccades": float(played.length.mean())}
        summary["seconds"] = float(ends["reaction_ms"].mean() / 1000)
    elif "correct" in ends:
        summary = {"accuracy": float(ends["correct"].mean()), "glimpses": float(ends["glimpses"].mean())}
    return summary


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
    def message(self) -> str:
        """The error in words."""
        return f"error {1000 * self.error:.3f} × 10⁻³"

    @staticmethod
    def describe_improvement(mean: float, half: float) -> str:
        """What :meth:`improvement_over` returns, in words."""
        return f"{1000 * mean:+.3f} ± {1000 * half:.3f} less than"

    def improvement_over(self, other: Score) -> tuple[float, float]:
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
        predictor: The network that judges.
        budget: Saccades on each scene.
        lanes: Scenes at a time.
        seed: Of the agents.
    """

    def __init__(
        self, scenes: Scenes, retina: Retina, predictor: Predictor, *, budget: int, lanes: int = 50, seed: int = 0
    ) -> None:
        judge = BeliefJudge(predictor, scenes, lanes)
        self._runner = SceneRunner(scenes, retina, judge, fixations=budget + 1, seeds=(seed,), lanes=lanes)

    def score(self, label: str, make: Callable[[int], Agent]) -> Score:
        """Let an agent look, built from a seed.

        Raises:
            AgentError: It fails.
        """
        run = self._runner.run(Entry(label, label, make))
        return Score(run.numbers["mse"][0])
