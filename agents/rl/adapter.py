"""A stable-baselines3 model in hand, seen as an agent."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.base import ACTION_MODES, EXTRA_KEYS, Observation, observed
from foveasim.check import seed_value
from foveasim.errors import AgentError, InvalidValueError

__all__ = ["PredictAgent"]


class PredictAgent:
    """Calls the ``predict`` of a model that was trained on a foveasim env, or of anything that has the same method.

    Recurrent models (sb3-contrib) keep their state from step to step and lose it at a lane's reset. The model is used
    as it is; nothing is read from a file.

    Args:
        model: Has ``predict(observation, state, episode_start, deterministic)``, ``observation_space`` (a Dict) and
            ``action_space``.
        deterministic: Take the likeliest action. Otherwise actions are sampled, repeatably by ``seed``.
        action_mode: How the actions are read; None: ``"grid"`` for a Discrete action space, otherwise ``"absolute"``.
            A model trained on ``action_mode="relative"`` must say so here.
        seed: Seed of the sampling.

    Raises:
        AgentError: The model does not see a Dict of observations by name.
        InvalidValueError: An unknown action mode.
    """

    def __init__(self, model: Any, deterministic: bool = True, action_mode: str | None = None, seed: int = 0) -> None:
        space = model.observation_space
        if not isinstance(space, gymnasium.spaces.Dict):
            raise AgentError(
                f"the model must see a Dict of observations by name (glimpse, acuity, ...); it sees {space}. "
                "Train it on a foveasim env with MultiInputPolicy, without flattening the observation."
            )
        if action_mode is not None and action_mode not in ACTION_MODES:
            raise InvalidValueError(f"action_mode must be one of {', '.join(ACTION_MODES)}; got {action_mode!r}.")
        discrete = isinstance(model.action_space, gymnasium.spaces.Discrete)
        self.action_mode = action_mode or ("grid" if discrete else "absolute")
        self.keys = tuple(space.spaces)
        self.needs = tuple(key for key in EXTRA_KEYS if key in self.keys)
        self.name = type(model).__name__
        self._model = model
        self._deterministic = deterministic
        self._draws = torch.Generator().manual_seed(seed_value("seed", seed))
        self._state: tuple[NDArray[Any], ...] | None = None
        self._start = np.zeros(0, np.bool_)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Mark the lanes, (B,) bool, whose recurrent state the model forgets at the next ``act``."""
        lanes = np.asarray(lanes)
        if len(lanes) != len(self._start):
            self._state = None
            self._start = np.zeros(len(lanes), np.bool_)
        self._start = self._start | lanes

    def act(self, observation: Observation) -> NDArray[Any]:
        """Return the model's actions, (B, ...), as its action space says.

        Raises:
            AgentError: The observation lacks a key that the model was trained on.
        """
        seen = {key: observed(observation, key) for key in self.keys}
        if any(len(value) != len(self._start) for value in seen.values()):
            raise AgentError(f"the last reset had {len(self._start)} lanes. Call reset(np.ones(B, bool)) first.")
        # predict samples from torch's global generators: they are set for the call and put back after it.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()), enabled=not self._deterministic):
            if not self._deterministic:
                torch.manual_seed(int(torch.randint(2**62, (), generator=self._draws)))
            action, self._state = self._model.predict(
                seen, state=self._state, episode_start=self._start, deterministic=self._deterministic
            )
        self._start = np.zeros_like(self._start)
        return np.asarray(action)
