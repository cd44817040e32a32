"""Visual search: an agent that goes by what it looks for."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.noise import LaneNoise
from foveasim.errors import AgentError
from foveasim.validation import number

__all__ = ["Seek", "at_search_size"]

WORKING_SIDE = 96
"""Short side in px at which the target is looked for; larger scenes are averaged down to it first."""

CHUNK = 16  # lanes matched at a time

_GREY = 128  # behind the target in its picture
_GROUND = 0.3  # weight of the ground around the target in a comparison, beside the target's own pixels
_TIE = 1e-3  # noise that settles ties, beside the 1 of plain ground


class Seek:
    """Looks at the place that most resembles the target, in what it has seen.

    Every place of belief is compared with the picture of the target. The sharper it was seen, the more the comparison
    counts; what was not seen counts as ``doubt``. A place that gaze has landed on is not the target, or the episode
    would be over, and is left out. The agent is the baseline of ``foveasim/Search-v0``: guidance by the target's looks,
    without learning.

    Args:
        doubt: How much an unseen place is supposed to differ from the target, as a mean squared difference; that of
            plain ground is 1. Small, and gaze explores; large, and it tries first what looks a little like the target.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        InvalidValueError: ``doubt`` out of range.

    Reference:
        Rao, Zelinsky, Hayhoe and Ballard 2002, Eye movements in iconic visual search, Vision Research 42:1447-1463
        (gaze goes to the places that resemble the target most, as far as the periphery shows them).
    """

    name = "seek"
    needs: tuple[str, ...] = ("belief", "target")
    __repr__ = describe_agent

    def __init__(self, doubt: float = 0.6, seed: int = 0) -> None:
        self._doubt = number("doubt", doubt, 0, 100)
        self._noise = LaneNoise(seed)
        self._tried: list[list[NDArray[np.float32]]] = []

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear where the marked lanes, (B,) bool, have looked."""
        self._noise.reset(lanes)
        if len(self._tried) != len(lanes):
            self._tried = [[] for _ in lanes]
        for lane in np.flatnonzero(lanes).tolist():
            self._tried[lane] = []

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the place that most resembles the target, (B, 2) float32 in [-1, 1].

        Raises:
            AgentError: The observation has no ``target`` or no ``belief``.
        """
        if "target" not in observation:
            raise AgentError(
                f"the agent {self.name!r} looks for a 'target', and the observation has {', '.join(observation)}. "
                "It is for foveasim/Search-v0, and for watching with --scenes search."
            )
        fixation = observed(observation, "fixation").astype(np.float32)
        self._noise.check(len(fixation))
        image, target = (torch.as_tensor(observed(observation, key)) for key in ("belief", "target"))
        acuity = torch.as_tensor(observed(observation, "belief_acuity")).reshape(image.shape[:3])
        for lane, point in enumerate(fixation):
            self._tried[lane].append(point)
        with torch.inference_mode():
            chunks = [slice(start, start + CHUNK) for start in range(0, len(image), CHUNK)]
            found = [_likeness(image[part], acuity[part], target[part], self._doubt) for part in chunks]
        unlike = torch.cat([one for one, _ in found]).numpy()
        radius = torch.cat([one for _, one in found]).numpy()
        rows, cols = unlike.shape[1:]
        y, x = ((np.arange(n) + 0.5) * 2 / n - 1 for n in (rows, cols))
        unlike = unlike + _TIE * self._noise.uniform(rows * cols).reshape(unlike.shape)
        for lane, points in enumerate(self._tried):
            for px, py in points:
                away = np.hypot((x - px)[None] * (cols / 2), (y - py)[:, None] * (rows / 2))
                unlike[lane][away <= radius[lane]] = math.inf
        best = unlike.reshape(len(unlike), -1).argmin(1)
        self._noise.tick()
        return np.stack((x[best % cols], y[best // cols]), 1).astype(np.float32)


def at_search_size(scene: Tensor, sharp: Tensor, look: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shrink scenes of a longer short side to ``WORKING_SIDE``, and what is sought by the same factor.

    Args:
        scene: (B, 3, H, W) float.
        sharp: (B, 1, H, W) float, its acuity.
        look: (B, 3, S, S) float, the target.
        own: (B, 1, S, S) float, what of that is the item.
    """
    scale = WORKING_SIDE / min(scene.shape[2:])
    if scale >= 1:
        return scene, sharp, look, own
    height, width = (max(1, round(side * scale)) for side in scene.shape[2:])
    side = max(2, round(look.shape[2] * scale))
    scene, sharp = (F.interpolate(x, (height, width), mode="area") for x in (scene, sharp))
    look, own = (F.interpolate(x, (side, side), mode="area") for x in (look, own))
    return scene, sharp, look, own


def _likeness(image: Tensor, acuity: Tensor, target: Tensor, doubt: float) -> tuple[Tensor, Tensor]:
    """Return how much every place differs from the target, (B, h, w), and the target's radius, (B,), in its px."""
    scene, sharp = image.permute(0, 3, 1, 2).float() / 255, acuity[:, None].float() / 255
    look = target.permute(0, 3, 1, 2).float() / 255
    own = ((target.int() - _GREY).abs().amax(3) > 4).float()[:, None]
    scene, sharp, look, own = at_search_size(scene, sharp, look, own)
    # The middle alone: a comparison of all 36 px takes eight times as long as that of an item of 12.
    side = look.shape[2]
    away = (torch.arange(side) + 0.5 - side / 2).abs()
    reach = (own[:, 0] * torch.maximum(away[:, None], away[None])).amax((1, 2)) + 0.5
    half = min(side // 2, math.ceil(float(reach.max())) + 1)
    middle = slice(side // 2 - half, side - side // 2 + half)
    look, weight = look[:, :, middle, middle], _GROUND + (1 - _GROUND) * own[:, :, middle, middle]
    weight = weight / weight.sum((2, 3), keepdim=True) / 3
    square = _slide(scene.square().sum(1, keepdim=True), weight)
    across = _slide(scene, weight * look)
    unlike = square - 2 * across + (weight * look.square()).sum((1, 2, 3))[:, None, None]
    ground = (weight * (look - _GREY / 255).square()).sum((1, 2, 3)).clamp(min=1e-4)[:, None, None]
    seen = _slide(sharp, 3 * weight)
    return seen * unlike.clamp(min=0) / ground + (1 - seen) * doubt, reach


def _slide(maps: Tensor, windows: Tensor) -> Tensor:
    """Sum maps (B, C, H, W) under windows (B, C, s, s) laid over every place, each lane its own, (B, H, W)."""
    lanes, channels, side, _ = windows.shape
    before, after = (side - 1) // 2, side // 2
    padded = F.pad(maps, (before, after, before, after), mode="replicate")
    return F.conv2d(padded.reshape(1, lanes * channels, *padded.shape[2:]), windows, groups=lanes)[0]
