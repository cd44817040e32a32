"""What a task adds to an env: the hooks that a task of one's own overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from foveasim.envs.rewards import Reward
    from foveasim.simulator.simulator import Simulator

__all__ = ["Task"]


class Task:
    """The part of ``FoveaVectorEnv`` that a task overrides; without it there is nothing to do but look.

    What goes out is as long as there are lanes and fresh each time. Visual search
    (:class:`foveasim.envs.tasks.search.SearchVectorEnv`) and classification
    (:class:`foveasim.envs.tasks.classify.ClassifyVectorEnv`) are two examples.

    Attributes:
        simulator: The eyes and their scenes.
        reward: What scores a saccade where :meth:`score_saccades` does not.
    """

    simulator: Simulator
    reward: Reward

    def on_begin(self, lanes: NDArray[np.bool_]) -> None:
        """Prepare for the episodes that begin in some lanes, (B,) bool: scenes are set, there is no glimpse yet."""

    def score_saccades(self) -> tuple[dict[str, Any], NDArray[np.bool_] | None]:
        """Score the saccades that were just made.

        Returns:
            The reward's terms, each (B,) float32, see :meth:`as_output`; and which lanes, (B,) bool, have done what the
            task asks for, which ends their episode, or None. Lanes that have only begun in this step get no reward
            and do not end.
        """
        return self.reward(self.simulator), None

    def task_spaces(self) -> dict[str, gym.Space[Any]]:
        """Return the spaces of one lane that the task adds to the observation, Boxes by key."""
        return {}

    def task_observation(self) -> dict[str, Any]:
        """Return what the task adds to the observation, by key, see :meth:`as_output`."""
        return {}

    def task_info(self) -> dict[str, NDArray[Any]]:
        """Return what the task adds to ``info``, arrays (B, ...) by key."""
        return {}

    def task_view(self, lane: int) -> dict[str, Any]:
        """Return what the task adds to a lane's picture: fields of :class:`foveasim.drawing.render.View` by name."""
        return {}

    def as_array(self, values: Any) -> NDArray[Any]:
        """Return what the simulator measured as an array, wherever it is."""
        found: NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        return found

    def as_output(self, values: NDArray[Any]) -> Any:
        """Return an array as the env returns things: on another device than the CPU, a tensor there."""
        device = self.simulator.device
        return values if device.type == "cpu" else torch.from_numpy(values).to(device)
