"""A vector env that shows a policy features of a network's prediction, and reads its cells."""

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
from foveasim.agents.gaze_policy.features import FeatureConfig, FeatureExtractor, Features, featurise
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.errors import InvalidTypeError, InvalidValueError

__all__ = ["FeatureObservation", "TaskObservation"]


class FeatureObservation(VectorWrapper):  # not generic before gymnasium 1.3
    """Shows a policy :class:`Features`, and reads its cells, on top of a :class:`PredictionReward`.

    Args:
        envs: With the frozen network, whose prediction of this step is used; nothing is predicted again.
        config: What the policy sees.
        actions: "cell": ``Discrete(rows * columns)``, the best place in a cell; "point": ``Box(-1, 1, (2,))``, the
            place itself.
        form: "maps": a Dict of ``maps`` (C, rows, columns) and ``numbers`` (K,); "flat": both in one row, for programs
            that want a Box.
        least_gain: A cell is masked out for MaskablePPO where its gain is below this share of the best cell's.

    Raises:
        InvalidTypeError: ``envs`` is no :class:`PredictionReward`.
        InvalidValueError: An unknown form or kind of action, or an env whose actions are not places in the scene.

    Attributes:
        features: Of the present observation.
        grid: (rows, columns).
        count: How many numbers there are.
    """

    def __init__(
        self,
        envs: PredictionReward,
        config: FeatureConfig | None = None,
        actions: Literal["cell", "point"] = "cell",
        form: Literal["maps", "flat"] = "maps",
        least_gain: float = 0.05,
    ) -> None:
        if not isinstance(envs, PredictionReward):
            raise InvalidTypeError(f"envs must be a PredictionReward; got {type(envs).__name__}. Wrap it in one first.")
        for name, value, known in (("actions", actions, ("cell", "point")), ("form", form, ("maps", "flat"))):
            if value not in known:
                raise InvalidValueError(f"{name} must be one of {', '.join(known)}; got {value!r}.")
        super().__init__(envs)
        self.envs, self.config = envs, FeatureConfig() if config is None else config
        code = getattr(envs.unwrapped, "actions", None)
        if code is None or not code.bare or code.mode != "absolute":
            raise InvalidValueError(
                f"envs must take places in the scene, Box(-1, 1, (2,)); got {envs.single_action_space} of mode "
                f"{getattr(code, 'mode', None)!r}. Make it with action_mode='absolute', zoom=False and stop=False."
            )
        self.actions, self.form = actions, form
        self.least_gain = validation.number("least_gain", least_gain, 0, 1)
        self.grid = self.config.grid(envs.single_observation_space["belief"].shape[:2])  # type: ignore[index]
        latent = 0
        if "latent" in self.config.numbers:
            latent = envs.belief_predictor.predictor.network.latent_shape((32, 32))[0]
        self.count = self.config.count(latent)
        self.features: Features | None = None
        self._single_observation_space = self._space()
        self._observation_space = batch_space(self._single_observation_space, self.num_envs)
        if actions == "cell":
            self._single_action_space = gym.spaces.Discrete(self.grid[0] * self.grid[1])
            self._action_space = batch_space(self._single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; see the env's own ``reset``."""
        _, info = self.envs.reset(seed=seed, options=options)
        return self._extract(), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move every eye.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A cell that there is not.
        """
        _, reward, terminated, truncated, info = self.envs.step(self.places(actions))
        if self.envs.final is not None:
            which, prediction = self.envs.final
            with torch.inference_mode():
                last = self._to_arrays(featurise(prediction, self.config, self.grid))
            finals = np.full(self.num_envs, None, dtype=object)
            for row, lane in enumerate(which.tolist()):
                finals[lane] = {k: v[row] for k, v in last.items()} if isinstance(last, dict) else last[row]
            info = {**info, "final_obs": finals}
        return self._extract(), reward, terminated, truncated, info

    def places(self, actions: Any) -> NDArray[np.float32] | Tensor:
        """Return where actions lead to, (B, 2) in [-1, 1].

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A cell that there is not.
        """
        points = self.current_features.points
        if self.actions == "point":
            return self._to_env_actions(torch.as_tensor(actions))
        cells = torch.as_tensor(actions)
        if cells.shape != points.shape[:1] or cells.is_floating_point():
            raise InvalidValueError(f"actions must be ({len(points)},) whole numbers; got {actions!r}.")
        if bool(((cells < 0) | (cells >= points.shape[1])).any()):
            raise InvalidValueError(f"actions must be from 0 to {points.shape[1] - 1}; got {cells.tolist()}.")
        where = points[torch.arange(len(points), device=points.device), cells.to(points.device)]
        return self._to_env_actions(where)

    @property
    def current_features(self) -> Features:
        """The features of the present observation.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self.features is None:
            raise gym.error.ResetNeeded("call reset() first.")
        return self.features

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the cells that are worth a look, (B, rows * columns) bool; all of them where nothing is.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        found: NDArray[np.bool_] = self.current_features.worth(self.least_gain).cpu().numpy()
        return found

    def _to_env_actions(self, places: Tensor) -> NDArray[np.float32] | Tensor:
        """Return places as the env takes them: a tensor on its device, or an array."""
        device = self.envs.unwrapped.simulator.device  # type: ignore[attr-defined]
        return places.cpu().numpy() if device.type == "cpu" else places.to(device)

    def _space(self) -> gym.Space[Any]:
        channels, count = self.config.channels, self.count
        far = np.float32(np.inf)
        if self.form == "flat":
            return gym.spaces.Box(-far, far, (channels * self.grid[0] * self.grid[1] + count,), np.float32)
        maps = gym.spaces.Box(-far, far, (channels, *self.grid), np.float32)
        return gym.spaces.Dict({"maps": maps, "numbers": gym.spaces.Box(-far, far, (count,), np.float32)})

    def _extract(self) -> Any:
        with torch.inference_mode():
            self.features = featurise(self.envs.current_prediction, self.config, self.grid)
        return self._to_arrays(self.features)

    def _to_arrays(self, features: Features) -> dict[str, NDArray[np.float32]] | NDArray[np.float32]:
        maps, numbers = features.maps.cpu().numpy(), features.numbers.cpu().numpy()
        if self.form == "flat":
            return np.concatenate((maps.reshape(len(maps), -1), numbers), 1)
        return {"maps": maps, "numbers": numbers}


class TaskObservation(FeatureObservation):
    """Shows :class:`Features` of a task's observation; the reward is the task's own.

    Where the env has a stop action, the choice behind the last cell stops.

    Args:
        envs: Of ``foveasim/Search-v0`` or ``foveasim/Classify-v0``, with ``belief``, begun anew in the same step.
        extractor: What makes the features.
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
        extractor: FeatureExtractor,
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
        self.extractor, self.config, self.form = extractor, extractor.config, form
        self.actions: Literal["cell", "point"] = "cell"
        self.stops = bool(code.stop)
        self.least_gain = validation.number("least_gain", least_gain, 0, 1)
        self.grid = self.config.grid(space["belief"].shape[:2])  # type: ignore[index]
        belief_predictor = getattr(extractor, "belief_predictor", None)
        latent = 0
        if belief_predictor is not None and "latent" in self.config.numbers:
            latent = belief_predictor.predictor.network.latent_shape((32, 32))[0]
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
        self.extractor.reset(np.ones(self.num_envs, np.bool_) if mask is None else np.asarray(mask))
        return self._update(observation), info

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
                last = self._to_arrays(self.extractor.extract_features(seen, self.grid, which))
            finals = np.full(self.num_envs, None, dtype=object)
            for row, lane in enumerate(which.tolist()):
                finals[lane] = {k: v[row] for k, v in last.items()} if isinstance(last, dict) else last[row]
            info = {**info, "final_obs": finals}
            self.extractor.reset(np.asarray(info["_final_obs"]))
        return self._update(observation), reward, terminated, truncated, info

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
        return self._to_env_actions(torch.cat((where, column), 1))

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the choices that are worth making, (B, choices) bool; to stop always is."""
        found: NDArray[np.bool_] = self.current_features.worth(self.least_gain).cpu().numpy()
        if self.stops:
            found = np.concatenate((found, np.ones((len(found), 1), np.bool_)), 1)
        return found

    def _to_env_actions(self, places: Tensor) -> NDArray[np.float32] | Tensor:
        device = self.env.unwrapped.simulator.device  # type: ignore[attr-defined]
        return places.cpu().numpy() if device.type == "cpu" else places.to(device)

    def _update(self, observation: Mapping[str, Any]) -> Any:
        predicted = getattr(self.env.unwrapped, "thought", ())
        self.observed = observation
        known = {"predicted": predicted} if predicted and hasattr(self.extractor, "belief_predictor") else {}
        with torch.inference_mode():
            self.features = self.extractor.extract_features(observation, self.grid, **known)
        return self._to_arrays(self.features)


def _stack(values: list[Any]) -> Any:
    return torch.stack(values) if isinstance(values[0], Tensor) else np.stack(values)
