"""How well an agent does a task: its return, and what that stands for, on episodes that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from foveasim.agents.interface import Agent, Observation, agent_name
from foveasim.agents.rollout import Rollout, rollout

__all__ = ["OnlyLooks", "TaskScore", "TaskValidator"]


@dataclass(frozen=True, eq=False)
class TaskScore:
    """How well an agent did.

    Attributes:
        returns: (N,) float64, of each episode, by lane.
        told: What that stands for, such as the share that was found, by name.
    """

    returns: NDArray[np.float64]
    told: dict[str, float]

    @property
    def error(self) -> float:
        """Minus the mean return: less is better."""
        return -float(self.returns.mean())

    @property
    def curve(self) -> list[float]:
        """Nothing: a task has one number an episode."""
        return []

    @property
    def said(self) -> str:
        """The same for people."""
        more = ", ".join(f"{name} {value:.3g}" for name, value in self.told.items())
        return f"return {-self.error:.3f} ({more})"

    def less_than(self, other: TaskScore) -> tuple[float, float]:
        """Return by how much the return is greater than another's, and the half of its 95 % interval.

        The interval is that of the mean of paired differences, 1.96 standard errors over episodes.
        """
        more = self.returns - other.returns
        spread = more.std(ddof=1) if len(more) > 1 else math.nan
        return float(more.mean()), float(1.96 * spread / math.sqrt(len(more)))

    @staticmethod
    def said_less(mean: float, half: float) -> str:
        """The same for people."""
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
            agent = OnlyLooks(agent)
        with torch.inference_mode():
            played = rollout(agent, self._envs, episodes=self._envs.num_envs, seed=self._seed)
        order = np.argsort(played.lane, kind="stable")
        return TaskScore(played.returns[order], _told(played))


class OnlyLooks:
    """An agent that may have no wish to stop, where actions have one: it then never does."""

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


def _told(played: Rollout) -> dict[str, float]:
    last = played.length - 1
    ends = {name: values[np.arange(len(last)), last] for name, values in played.info.items()}
    told = {}
    if "found" in ends:
        told = {"found": float(ends["found"].mean()), "saccades": float(played.length.mean())}
        told["seconds"] = float(ends["reaction_ms"].mean() / 1000)
    elif "correct" in ends:
        told = {"accuracy": float(ends["correct"].mean()), "glimpses": float(ends["glimpses"].mean())}
    return told
