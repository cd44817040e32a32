"""Runs an agent on an env and records what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from foveasim.agents.interface import Agent, Observation, observed
from foveasim.errors import InvalidValueError
from foveasim.validation import number

__all__ = ["OneLane", "Rollout", "add_lane", "rollout", "single_to_batch"]


@dataclass(frozen=True, repr=False)
class Rollout:
    """N episodes, each padded with NaN to the length L of the longest.

    Attributes:
        returns: (N,) float64, sum of rewards.
        length: (N,) int64, steps.
        finished: (N,) bool; False for an episode that was still running when the rollout stopped.
        lane: (N,) int64, where it ran.
        fixation_norm: (N, L + 1, 2) float32 in [-1, 1]; the first is where the eye began.
        reward: (N, L) float64.
        info: (N, L) float64 for every number that the env reports at each step.
    """

    returns: NDArray[np.float64]
    length: NDArray[np.int64]
    finished: NDArray[np.bool_]
    lane: NDArray[np.int64]
    fixation_norm: NDArray[np.float32]
    reward: NDArray[np.float64]
    info: Mapping[str, NDArray[np.float64]]

    def __repr__(self) -> str:
        done, steps = int(self.finished.sum()), float(self.length.mean()) if len(self.length) else 0.0
        mean = float(self.returns.mean()) if len(self.returns) else 0.0
        return f"Rollout({len(self.returns)} episodes, {done} finished, {steps:.3g} steps each, mean return {mean:.3g})"


def rollout(
    agent: Agent,
    env: VectorEnv[Any, Any, Any] | gymnasium.Env[Any, Any],
    *,
    episodes: int | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Rollout:
    """Let an agent look, in every lane at once.

    Args:
        agent: It is reset first. It must suit the env: see ``agent_needs`` and ``agent_action_mode``.
        env: A vector env in any autoreset mode, or a single env. It is reset with ``seed`` and left open.
        episodes: How many finished episodes to keep. Each lane gives its share, its first ones: keeping whichever end
            first would favour short ones.
        steps: Or how many steps to make in every lane; all episodes are returned, the unfinished ones too.
        seed: Of the env.

    Raises:
        InvalidValueError: Not exactly one of ``episodes`` and ``steps``, or less than 1.
    """
    if (episodes is None) == (steps is None):
        raise InvalidValueError(f"give either episodes or steps; got episodes={episodes!r}, steps={steps!r}.")
    number("episodes" if steps is None else "steps", steps if episodes is None else episodes, 1)
    batch = single_to_batch(env) if isinstance(env, gymnasium.Env) else env
    lanes = batch.num_envs
    mode = batch.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    quota = [(episodes or 0) // lanes + (lane < (episodes or 0) % lanes) for lane in range(lanes)]

    observation, _ = batch.reset(seed=seed)
    agent.reset(np.ones(lanes, np.bool_))
    recorded: list[list[_Episode]] = [
        [_Episode(lane, start)] for lane, start in enumerate(observed(observation, "fixation"))
    ]
    waiting = np.zeros(lanes, np.bool_)
    made = 0
    while made < steps if steps is not None else any(len(k) <= q for k, q in zip(recorded, quota, strict=True)):
        observation, reward, terminated, truncated, info = batch.step(agent.act(observation))
        made += 1
        rewards, ended = _array(reward), _array(terminated) | _array(truncated)
        landed = observed(observation, "fixation")
        for lane in np.flatnonzero(~waiting).tolist():
            last = mode == AutoresetMode.SAME_STEP and bool(ended[lane])
            step_info = info.get("final_info", {}) if last else info
            end = _final_fixation(info["final_obs"], lane) if last else landed[lane]
            recorded[lane][-1].add(end, float(rewards[lane]), _numbers(step_info, lane))
            recorded[lane][-1].finished = bool(ended[lane])
        begun = waiting if mode == AutoresetMode.NEXT_STEP else ended
        waiting = ended & ~waiting if mode == AutoresetMode.NEXT_STEP else waiting
        if mode == AutoresetMode.DISABLED and ended.any():
            observation, _ = batch.reset(options={"reset_mask": ended})
        if begun.any():
            agent.reset(begun.copy())
            first = observed(observation, "fixation")
            for lane in np.flatnonzero(begun).tolist():
                recorded[lane].append(_Episode(lane, first[lane]))
    chosen = [e for k, q in zip(recorded, quota, strict=True) for e in (k if episodes is None else k[:q]) if e.reward]
    return _packed(chosen)


def single_to_batch(env: gymnasium.Env[Any, Any]) -> OneLane:
    """Show a single env as a vector env of one lane."""
    return OneLane(env)


def add_lane(observation: Observation) -> dict[str, NDArray[Any]]:
    """Give the observation of a single env the lane axis that agents expect.

    Example:
        >>> add_lane({"fixation": np.zeros(2, np.float32)})["fixation"].shape
        (1, 2)
    """
    return {key: observed(observation, key)[None] for key in observation}


class OneLane(VectorEnv[Any, Any, Any]):
    """A single env with the lane axis added to its observations and removed from its actions.

    It resets by itself at the step after an episode's end (``AutoresetMode.NEXT_STEP``).

    Args:
        env: A Gymnasium env with a Dict of observations.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self.env = env
        self.num_envs = 1
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, 1)
        self.action_space = batch_space(env.action_space, 1)
        self._ended = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode; ``seed`` may be a list of one."""
        observation, info = self.env.reset(seed=seed[0] if isinstance(seed, list) else seed, options=options)
        self._ended = False
        return add_lane(observation), self._add_info({}, info, 0)

    def step(
        self, actions: Any
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Make one step, or begin the next episode if the last one has ended."""
        if self._ended:
            observation, infos = self.reset()
            return observation, np.zeros(1), np.zeros(1, np.bool_), np.zeros(1, np.bool_), infos
        action = np.asarray(actions)[0]
        if isinstance(self.env.action_space, gymnasium.spaces.Discrete):
            action = int(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._ended = bool(terminated or truncated)
        infos = self._add_info({}, info, 0)
        return add_lane(observation), np.array([float(reward)]), np.array([terminated]), np.array([truncated]), infos


@dataclass
class _Episode:
    lane: int
    start: NDArray[Any]
    fixation: list[NDArray[Any]] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    info: list[dict[str, float]] = field(default_factory=list)
    finished: bool = False

    def __post_init__(self) -> None:
        self.fixation.append(np.array(self.start))

    def add(self, fixation: NDArray[Any], reward: float, info: dict[str, float]) -> None:
        self.fixation.append(np.array(fixation))  # a copy: an env may reuse its buffers
        self.reward.append(reward)
        self.info.append(info)


def _array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _final_fixation(final: Any, lane: int) -> NDArray[Any]:
    """Read one lane of ``final_obs``, which Gymnasium keeps as a dict of arrays or as an array of dicts."""
    return _array(final["fixation"][lane] if isinstance(final, Mapping) else final[lane]["fixation"])


def _numbers(info: Mapping[str, Any], lane: int) -> dict[str, float]:
    """Pick the numbers that an env's info holds for one lane."""
    found = {}
    for key, value in info.items():
        if key.startswith("_") or not isinstance(value, np.ndarray | torch.Tensor) or value.ndim != 1:
            continue
        values, given = _array(value), info.get(f"_{key}")
        if values.dtype.kind in "biuf" and (given is None or bool(given[lane])):
            found[key] = float(values[lane])
    return found


def _packed(episodes: list[_Episode]) -> Rollout:
    longest = max(len(e.reward) for e in episodes)
    reward = np.full((len(episodes), longest), np.nan)
    fixation = np.full((len(episodes), longest + 1, 2), np.nan, np.float32)
    keys = sorted({key for e in episodes for info in e.info for key in info})
    info = {key: np.full((len(episodes), longest), np.nan) for key in keys}
    for row, episode in enumerate(episodes):
        reward[row, : len(episode.reward)] = episode.reward
        fixation[row, : len(episode.fixation)] = episode.fixation
        for column, step_info in enumerate(episode.info):
            for key, value in step_info.items():
                info[key][row, column] = value
    return Rollout(
        returns=np.nansum(reward, 1),
        length=np.array([len(e.reward) for e in episodes], np.int64),
        finished=np.array([e.finished for e in episodes], np.bool_),
        lane=np.array([e.lane for e in episodes], np.int64),
        fixation_norm=fixation,
        reward=reward,
        info=info,
    )
