"""A vector env of a task that shows a policy features, and reads its cells and its wish to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.gaze_policy.features import Features, TaskSense
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.errors import InvalidValueError

__all__ = ["TaskObservation"]


class TaskObservation(FeatureObservation):
    """Shows :class:`Features` of a task's observation; the reward is the task's own.

    Where the env has a stop action, the choice behind the last cell stops.

    Args:
        envs: Of ``foveasim/Search-v0`` or ``foveasim/Classify-v0``, with ``belief``, begun anew in the same step.
        sense: What makes the features.
        form: As of :class:`foveasim.agents.rl.feature_env.FeatureObservation`.
        least_gain: Likewise.

    Raises:
        InvalidValueError: An env whose actions are not places in the scene, or that shows no belief.

    Attributes:
        stops: Whether there is a stop action.
        observed: The present observation of the env itself.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        sense: TaskSense,
        form: Literal["maps", "flat"] = "maps",
        least_gain: float = 0.0,
    ) -> None:
        VectorWrapper.__init__(self, envs)
        if form not in ("maps", "flat"):
            raise InvalidValueError(f"form must be one of maps, flat; got {form!r}.")
        space = envs.single_observation_space
        keys = tuple(space.spaces) if isinstance(space, gym.spaces.Dict) else ()
        if "belief" not in keys:
            raise InvalidValueError(f"envs must show belief; it shows {', '.join(keys) or space}. Use belief=True.")
        code = getattr(envs.unwrapped, "actions", None)
        if code is None or code.mode != "absolute" or code.zoom:
            raise InvalidValueError(
                f"envs must take places in the scene; got {envs.single_action_space} of mode "
                f"{getattr(code, 'mode', None)!r}. Make it with action_mode='absolute' and zoom=False."
            )
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise InvalidValueError(
                "envs must begin anew in the step in which they end: gym.make_vec(…, autoreset_mode='SameStep'); got "
                f"{envs.metadata.get('autoreset_mode')}."
            )
        self.sense, self.config, self.form = sense, sense.config, form
        self.actions: Literal["cell", "point"] = "cell"
        self.stops = bool(code.stop)
        self.least_gain = validation.number("least_gain", least_gain, 0, 1)
        self.grid = self.config.grid(space["belief"].shape[:2])  # type: ignore[index]
        foresight = getattr(sense, "foresight", None)
        latent = 0
        if foresight is not None and "latent" in self.config.numbers:
            latent = foresight.imaginer.network.latent_shape((32, 32))[0]
        self.count = self.config.count(latent)
        self.features: Features | None = None
        self.observed: Mapping[str, Any] = {}
        self._single_observation_space = self._space()
        self._observation_space = batch_space(self._single_observation_space, self.num_envs)
        self._single_action_space = gym.spaces.Discrete(self.grid[0] * self.grid[1] + self.stops)
        self._action_space = batch_space(self._single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; see the env's own ``reset``."""
        observation, info = self.env.reset(seed=seed, options=options)
        mask = None if options is None else options.get("reset_mask")
        self.sense.reset(np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask))
        return self._take(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move every eye.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A choice that there is not.
        """
        observation, reward, terminated, truncated, info = self.env.step(self.places(actions))
        if "_final_obs" in info:
            which = np.flatnonzero(info["_final_obs"])
            rows = [info["final_obs"][lane] for lane in which]
            seen = {key: _stack([row[key] for row in rows]) for key in rows[0]}
            with torch.inference_mode():
                last = self._shown(self.sense.see(seen, self.grid, which))
            finals = np.full(self.num_envs, None, dtype=object)
            for row, lane in enumerate(which.tolist()):
                finals[lane] = {k: v[row] for k, v in last.items()} if isinstance(last, dict) else last[row]
            info = {**info, "final_obs": finals}
            self.sense.reset(np.asarray(info["_final_obs"]))
        return self._take(observation), reward, terminated, truncated, info

    def places(self, actions: Any) -> NDArray[np.float32] | Tensor:
        """Return the env's actions, (B, 2) places in [-1, 1], or (B, 3) with the wish to stop.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A choice that there is not.
        """
        if not self.stops:
            return super().places(actions)
        cells, count = torch.as_tensor(actions), self.grid[0] * self.grid[1]
        if cells.ndim != 1 or cells.is_floating_point() or bool(((cells < 0) | (cells > count)).any()):
            raise InvalidValueError(f"actions must be ({self.num_envs},) whole numbers from 0 to {count}.")
        stop = cells == count
        where = torch.as_tensor(super().places(torch.where(stop, 0, cells)))
        column = torch.where(stop, 1.0, -1.0).to(where)[:, None]
        return self._taken(torch.cat((where, column), 1))

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the choices that are worth making, (B, choices) bool; to stop always is."""
        found: NDArray[np.bool_] = self.seen.worth(self.least_gain).cpu().numpy()
        if self.stops:
            found = np.concatenate((found, np.ones((len(found), 1), np.bool_)), 1)
        return found

    def _taken(self, places: Tensor) -> NDArray[np.float32] | Tensor:
        device = self.env.unwrapped.simulator.device  # type: ignore[attr-defined]
        return places.cpu().numpy() if device.type == "cpu" else places.to(device)

    def _take(self, observation: Mapping[str, Any]) -> Any:
        thought = getattr(self.env.unwrapped, "thought", ())
        self.observed = observation
        known = {"thought": thought} if thought and hasattr(self.sense, "foresight") else {}
        with torch.inference_mode():
            self.features = self.sense.see(observation, self.grid, **known)
        return self._shown(self.features)


def _stack(values: list[Any]) -> Any:
    return torch.stack(values) if isinstance(values[0], Tensor) else np.stack(values)
