"""What an agent gets to see: the observation's spaces and how it is filled."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.simulator.simulator import Simulator

__all__ = ["BatchedBox", "ObservationCode", "as_torch", "batch_observations"]


class BatchedBox(gym.spaces.Box):
    """The Box of B lanes, whose bounds are views of one lane's.

    Gymnasium's ``batch_space`` copies the bounds for every lane: four arrays of the observation's shape, 1.2 GB for
    4,096 lanes of glimpse and belief at 96 x 96.

    Args:
        lane: The Box of one lane.
        lanes: B.
    """

    def __init__(self, lane: gym.spaces.Box, lanes: int) -> None:
        super().__init__(lane.low, lane.high, dtype=lane.dtype, seed=copy.deepcopy(lane.np_random))
        self.lane = lane
        self._shape = (lanes, *lane.shape)
        self._widen()

    def _widen(self) -> None:
        for name in _BOUNDS:
            setattr(self, name, np.broadcast_to(getattr(self.lane, name), self._shape))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the bounds: a copy of a view would be of full size."""
        return {name: value for name, value in vars(self).items() if name not in _BOUNDS}

    def __setstate__(self, state: Any) -> None:
        """Restore a copy."""
        vars(self).update(state)
        self._widen()

    def __eq__(self, other: object, /) -> bool:
        """Compare as a Box does, with another one of lanes without going through every lane."""
        if isinstance(other, BatchedBox):
            return self.shape == other.shape and self.lane == other.lane
        return super().__eq__(other)


_BOUNDS = ("low", "high", "bounded_below", "bounded_above")


def batch_observations(space: gym.spaces.Dict, lanes: int) -> gym.spaces.Dict:
    """Return the space of B lanes' observations: what ``batch_space`` returns, in the memory of one lane."""
    boxes: dict[str, gym.Space[Any]] = {
        key: BatchedBox(cast("gym.spaces.Box", box), lanes) for key, box in space.items()
    }
    return gym.spaces.Dict(boxes, seed=copy.deepcopy(space.np_random))


@dataclass(frozen=True)
class ObservationCode:
    """The keys of an observation.

    ``glimpse`` (H, W, 3) uint8 and ``acuity`` (H, W, 1) uint8 are what the eye delivers; ``fixation`` (2,) float32 is
    where it looks, normalised; ``time`` (1,) float32 is what is left of the budget. Everything depends on the scene
    only through what was seen: changing pixels whose acuity is 0 changes nothing, but for ``scene``.

    Attributes:
        belief: Adds ``belief`` (H, W, 3) and ``belief_acuity`` (H, W, 1), the sharpest view of every pixel so far.
        patch: Adds ``patch`` (h, w, 3 S) uint8, the receptors of ``window``, ``multiscale`` or ``log_polar``, S
            scales behind one another.
        scene: Adds ``scene`` (H, W, 3), the hidden truth: for privileged agents, which must say so.
    """

    belief: bool = False
    patch: bool = False
    scene: bool = False

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: Neither True nor False.
        """
        for name, value in (("belief", self.belief), ("patch", self.patch), ("privileged", self.scene)):
            validation.flag(name, value)

    def space(self, simulator: Simulator) -> gym.spaces.Dict:
        """Return the space of one lane. The simulator must have looked once."""
        height, width = simulator.size
        image = gym.spaces.Box(0, 255, (height, width, 3), np.uint8)
        map_ = gym.spaces.Box(0, 255, (height, width, 1), np.uint8)
        spaces: dict[str, gym.Space[Any]] = {
            "glimpse": image,
            "acuity": map_,
            "fixation": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
            "time": gym.spaces.Box(0.0, 1.0, (1,), np.float32),
        }
        if self.belief:
            spaces |= {"belief": image, "belief_acuity": map_}
        if self.patch:
            patch = simulator.glimpse.patch
            if patch is None:
                raise InvalidValueError(
                    f"retina {simulator.retina.name!r} has no patch; use patch=False or window, multiscale, log_polar."
                )
            spaces["patch"] = gym.spaces.Box(0, 255, (*patch.shape[2:4], 3 * patch.shape[1]), np.uint8)
        if self.scene:
            spaces["scene"] = image
        return gym.spaces.Dict(spaces)

    def build(self, simulator: Simulator, half_px: Any, time_left: Any) -> dict[str, Any]:
        """Return the observation of all lanes: fresh arrays, or tensors where the simulator runs without its kernels.

        Args:
            simulator: After it looked.
            half_px: (1, 2) float32, half the scene's width and height.
            time_left: (B, 1) float32.
        """
        seen = simulator.measured
        image, acuity = simulator.seen
        fixation = seen.fixation_px - half_px
        fixation /= half_px
        observation = {
            "glimpse": image,
            "acuity": acuity[..., None],
            "fixation": fixation,
            "time": time_left,
        }
        if self.belief:
            belief, belief_acuity = simulator.remembered
            observation["belief"], observation["belief_acuity"] = belief, belief_acuity[..., None]
        if self.patch:
            patch = cast("Tensor", simulator.glimpse.patch)  # space() refused retinas without one
            stacked = patch.permute(0, 2, 3, 1, 4).flatten(3)
            observation["patch"] = stacked.numpy() if isinstance(image, np.ndarray) else stacked
        if self.scene:
            scene = simulator.scene.image
            observation["scene"] = scene.numpy().copy() if isinstance(image, np.ndarray) else scene.clone()
        return observation


def as_torch(observation: dict[str, Any]) -> dict[str, Tensor]:
    """Return an observation as tensors that share its memory."""
    return {key: torch.as_tensor(value) for key, value in observation.items()}
