"""A vector env that shows a policy features of a network's prediction, and reads its cells."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.gaze_policy.features import FeatureConfig, Features, featurise
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.errors import InvalidTypeError, InvalidValueError

__all__ = ["FeatureObservation"]


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
            latent = envs.foresight.imaginer.network.latent_shape((32, 32))[0]
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
        return self._see(), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move every eye.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A cell that there is not.
        """
        _, reward, terminated, truncated, info = self.envs.step(self.places(actions))
        if self.envs.final is not None:
            which, outlook = self.envs.final
            with torch.inference_mode():
                last = self._shown(featurise(outlook, self.config, self.grid))
            finals = np.full(self.num_envs, None, dtype=object)
            for row, lane in enumerate(which.tolist()):
                finals[lane] = {k: v[row] for k, v in last.items()} if isinstance(last, dict) else last[row]
            info = {**info, "final_obs": finals}
        return self._see(), reward, terminated, truncated, info

    def places(self, actions: Any) -> NDArray[np.float32] | Tensor:
        """Return where actions lead to, (B, 2) in [-1, 1].

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InvalidValueError: A cell that there is not.
        """
        points = self.seen.points
        if self.actions == "point":
            return self._taken(torch.as_tensor(actions))
        cells = torch.as_tensor(actions)
        if cells.shape != points.shape[:1] or cells.is_floating_point():
            raise InvalidValueError(f"actions must be ({len(points)},) whole numbers; got {actions!r}.")
        if bool(((cells < 0) | (cells >= points.shape[1])).any()):
            raise InvalidValueError(f"actions must be from 0 to {points.shape[1] - 1}; got {cells.tolist()}.")
        where = points[torch.arange(len(points), device=points.device), cells.to(points.device)]
        return self._taken(where)

    @property
    def seen(self) -> Features:
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
        found: NDArray[np.bool_] = self.seen.worth(self.least_gain).cpu().numpy()
        return found

    def _taken(self, places: Tensor) -> NDArray[np.float32] | Tensor:
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

    def _see(self) -> Any:
        with torch.inference_mode():
            self.features = featurise(self.envs.present, self.config, self.grid)
        return self._shown(self.features)

    def _shown(self, features: Features) -> dict[str, NDArray[np.float32]] | NDArray[np.float32]:
        maps, numbers = features.maps.cpu().numpy(), features.numbers.cpu().numpy()
        if self.form == "flat":
            return np.concatenate((maps.reshape(len(maps), -1), numbers), 1)
        return {"maps": maps, "numbers": numbers}
