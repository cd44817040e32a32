"""What a policy that searches sees: at a few cells, how much the places of belief resemble the target.

The picture of the target is compared with belief at every other pixel: as it is and turned by quarters (a letter may be
turned in the scene), and by the direction of its gradients (of a grating one knows the direction and not the phase).
Each cell has the values of its most promising place, and a policy that takes the cell of greatest ``gain`` looks about
where the scripted agent :class:`foveasim.agents.builtin.seek.Seek` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.builtin.seek import at_search_size
from foveasim.agents.gaze_policy.features import FeatureConfig, Features
from foveasim.errors import AgentError
from foveasim.geometry import grid_norm

__all__ = ["SEARCH_MAPS", "SEARCH_NUMBERS", "SearchFeatureConfig", "SearchFeatureExtractor"]

SEARCH_MAPS = {
    "gain": 1,
    "likeness": 1,
    "turned": 1,
    "texture": 1,
    "contrast": 1,
    "acuity": 1,
    "tried": 1,
    "distance": 1,
    "place": 2,
}
"""Every map and its channels, the values of the best place of each cell unless it says otherwise.

``gain``: what ``Seek`` goes by, relative to the best cell, 0 where gaze has landed; ``likeness``: to the target
upright, ``turned``: to that of its quarter turns that fits best, ``texture``: in the direction of its gradients, each
from 0 to 1; ``contrast``: 4 times the standard deviation of the colours over an item's width; ``acuity``: of belief;
``tried``: how much of the cell gaze has landed on; ``distance``: from the fixation, in short sides; ``place``: x and y
of the cell.
"""

SEARCH_NUMBERS = {"fixation": 2, "time": 1, "coverage": 1, "best_gain": 1, "target": 6}
"""Every number and how many it is.

``best_gain``: of the best cell, 0 to 1; ``target``: its mean colour beside grey, its contrast, and the two components
of the direction of its gradients.
"""

_GREY = 128 / 255  # behind the target in its picture
_GROUND = 0.3  # weight of the ground around the target in a comparison, as in Seek
_DOUBT = 0.6  # by which a place that was not seen differs from the target; Seek's
_SLOPE = 3.0  # likeness exp(-3 x): 0.05 for plain ground, 0.17 for a place that was not seen
_AT_ONCE = 8  # lanes compared at a time, so that what is compared stays in the cache


@dataclass(frozen=True)
class SearchFeatureConfig(FeatureConfig):
    """What a policy that searches sees; see :class:`foveasim.agents.gaze_policy.features.FeatureConfig`.

    Attributes:
        maps: Names of :data:`SEARCH_MAPS`, in their order.
        numbers: Names of :data:`SEARCH_NUMBERS`, in their order.
    """

    known_maps: ClassVar[Mapping[str, int]] = SEARCH_MAPS
    known_numbers: ClassVar[Mapping[str, int]] = SEARCH_NUMBERS

    maps: tuple[str, ...] = tuple(SEARCH_MAPS)
    numbers: tuple[str, ...] = tuple(SEARCH_NUMBERS)


class SearchFeatureExtractor:
    """Makes features of the observations of ``foveasim/Search-v0``, and remembers where gaze has landed.

    Args:
        config: What to make.
        device: Where to compute.
    """

    needs: tuple[str, ...] = ("belief", "target")

    def __init__(self, config: SearchFeatureConfig | None = None, device: torch.device | str = "cpu") -> None:
        self.config = SearchFeatureConfig() if config is None else config
        self.device = torch.device(device)
        self._tried: Tensor | None = None
        self._fresh = np.zeros(0, np.bool_)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear where gaze has landed in the marked lanes, (B,) bool."""
        if len(lanes) != len(self._fresh):
            self._tried, self._fresh = None, np.array(lanes)
        self._fresh = self._fresh | lanes

    def extract_features(
        self, observation: Mapping[str, Any], grid: tuple[int, int], lanes: NDArray[np.intp] | None = None
    ) -> Features:
        """Return what the policy sees, on a grid of (rows, columns).

        Args:
            observation: Of the env.
            grid: (rows, columns).
            lanes: Which lanes the observation is of, for a last look at those that have ended; None for all, whose
                fixations are remembered.

        Raises:
            AgentError: The observation lacks the target or belief, or has another number of lanes.
        """
        for key in ("target", "belief", "belief_acuity", "fixation", "time"):
            if key not in observation:
                raise AgentError(
                    f"a policy that searches needs {key!r}, and the observation has {', '.join(observation)}. It is "
                    "for foveasim/Search-v0 made with belief=True, and for watching with --scenes search."
                )
        image, target = (torch.as_tensor(observation[key]).to(self.device) for key in ("belief", "target"))
        acuity = torch.as_tensor(observation["belief_acuity"]).to(self.device).reshape(image.shape[:3])
        fixation, time = (
            torch.as_tensor(observation[key]).to(self.device, torch.float32) for key in ("fixation", "time")
        )
        parts = [slice(first, first + _AT_ONCE) for first in range(0, len(image), _AT_ONCE)]
        comparisons = [_compare(image[part], acuity[part], target[part]) for part in parts]
        maps = {name: torch.cat([one.maps[name] for one in comparisons]) for name in comparisons[0].maps}
        radius, sought = (torch.cat([getattr(one, name) for one in comparisons]) for name in ("radius", "target"))
        tried = self._visited(fixation, radius, maps["likeness"].shape[1:], lanes)
        return _cells(maps, tried, fixation, time, sought, self.config, grid)

    def _visited(
        self,
        fixation: Tensor,
        radius: Tensor,
        shape: torch.Size,
        lanes: NDArray[np.intp] | None,
    ) -> Tensor:
        """Return which places gaze has landed on, (B, h, w) bool, those of now among them."""
        rows, cols = shape
        x, y = _axis(cols, self.device), _axis(rows, self.device)
        right = (x[None] - fixation[:, :1]) * (cols / 2)
        down = (y[None] - fixation[:, 1:]) * (rows / 2)
        now = right.square()[:, None] + down.square()[:, :, None] <= radius.square()[:, None, None]
        if lanes is not None:
            return now if self._tried is None else now | self._tried[torch.from_numpy(lanes)]
        if len(self._fresh) != len(fixation):
            raise AgentError(
                f"the last reset had {len(self._fresh)} lanes, and the observation has {len(fixation)}. "
                "Call reset(np.ones(B, bool)) first."
            )
        before = self._tried
        if before is None or before.shape != now.shape:
            before = torch.zeros_like(now)
        keep = torch.from_numpy(~self._fresh).to(self.device)[:, None, None]
        self._tried = (before & keep) | now
        self._fresh = np.zeros_like(self._fresh)
        return self._tried


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Maps (B, h, w) at every other pixel, the target's radius (B,) in their steps, what the target is like (B, 6)."""

    maps: dict[str, Tensor]
    radius: Tensor
    target: Tensor


def _compare(image: Tensor, acuity: Tensor, target: Tensor) -> _Comparison:
    """Compare belief, (B, H, W, 3) and (B, H, W) uint8, with the target, (B, S, S, 3) uint8."""
    scene, sharp = image.permute(0, 3, 1, 2).float() / 255, acuity[:, None].float() / 255
    look = target.permute(0, 3, 1, 2).float() / 255
    own = ((look - _GREY).abs().amax(1, keepdim=True) > 4 / 255).float()
    scene, sharp, look, own = at_search_size(scene, sharp, look, own)
    edge = look.shape[2]
    away = (torch.arange(edge, device=look.device) + 0.5 - edge / 2).abs()
    reach = (own[:, 0] * torch.maximum(away[:, None], away[None])).amax((1, 2)) + 0.5
    small, small_sharp, small_look, small_own = (_halve(x) for x in (scene, sharp, look, own))
    half = max(1, min(small_look.shape[2] // 2, math.ceil(float(reach.max()) / 2) + 1))
    middle = slice(small_look.shape[2] // 2 - half, small_look.shape[2] // 2 + half)
    window, mask = small_look[:, :, middle, middle], _GROUND + (1 - _GROUND) * small_own[:, :, middle, middle]
    mask = sum((torch.rot90(mask, turn, (2, 3)) for turn in range(1, 4)), mask) / 4  # of all turns alike
    unlike, seen = _unlike(small, small_sharp, window, mask / mask.sum((2, 3), keepdim=True))
    upright, turned = unlike[:, 0], unlike.amin(1)
    width = max(2, round(float(reach.max())))  # half of an item's width, in px of the full grid
    shape = (upright.shape[1], upright.shape[2])
    tensor = _gradients(scene)
    texture = _slide(tensor, 2 * width, shape)
    aim = _gradients(look)[:, :, edge // 2 - width : edge // 2 + width, edge // 2 - width : edge // 2 + width]
    aim = aim.mean((2, 3))[:, :, None, None]
    differs = (texture - aim).square().sum(1) / (aim.square().sum(1) + 1e-6)
    mean, power = _slide(small, width, shape, 1), _slide(small.square(), width, shape, 1)
    spread = (power - mean.square()).clamp_min(0).sum(1).sqrt()
    colour = (window * mask).sum((2, 3)) / mask.sum((2, 3)) - _GREY
    strength = (mask * (window - _GREY).square()).sum((1, 2, 3))[:, None] / mask.sum((1, 2, 3))[:, None]
    lean = aim[:, :2, 0, 0] / (aim[:, 2, 0] + 1e-4)
    maps = {
        "gain": (-_SLOPE * (seen * upright + (1 - seen) * _DOUBT)).exp(),
        "likeness": (-_SLOPE * upright).exp(),
        "turned": (-_SLOPE * turned).exp(),
        "texture": (-_SLOPE * differs).exp(),
        "contrast": 4 * spread,
        "acuity": seen,
    }
    return _Comparison(maps, reach / 2, torch.cat((3 * colour, strength.sqrt() * 3, lean), 1))


def _unlike(scene: Tensor, sharp: Tensor, window: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much places differ from a window and its quarter turns, (B, 4, h, w), and how well they were seen.

    1 is the difference of plain grey ground. A place is the far corner of the pixel left of and above the window's
    middle. By Fourier transforms, which take a fifth of the time of sums over windows.
    """
    side = window.shape[2]
    height, width = scene.shape[2:]
    windows = torch.stack([torch.rot90(window, turn, (2, 3)) for turn in range(4)], 1)
    before, after = side // 2 - 1, side // 2
    maps = torch.cat((scene, scene.square().sum(1, keepdim=True), sharp), 1)
    maps = F.pad(maps, (before, after, before, after), mode="replicate")
    size = (maps.shape[2], maps.shape[3])
    spectra = torch.fft.rfft2(maps)
    templates = torch.cat(((mask[:, None] * windows).flatten(1, 2), mask), 1)
    filters = torch.fft.rfft2(templates, s=size).conj()
    colours = filters[:, :12].unflatten(1, (4, 3))
    products = torch.cat(((colours * spectra[:, None, :3]).sum(2), filters[:, 12:] * spectra[:, 3:]), 1)
    found = torch.fft.irfft2(products, s=size)[:, :, :height, :width]
    own = (mask * window.square()).sum((1, 2, 3))[:, None, None, None]
    ground = (mask * (window - _GREY).square()).sum((1, 2, 3)).clamp_min(3e-4)[:, None, None, None]
    return ((found[:, 4:5] - 2 * found[:, :4] + own) / ground).clamp_min(0), found[:, 5]


def _gradients(image: Tensor) -> Tensor:
    """Return direction and strength of the brightness gradient, (B, 5, H, W).

    The square of the gradient times 1, and times cos and sin of twice and of four times its angle. Averaged over an
    item, twice the angle tells how a grating lies; four times the angle tells a square, whose edges lie a quarter turn
    apart, from a disc.
    """
    grey = image.mean(1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    x = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    y = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    cos, sin, power = x.square() - y.square(), 2 * x * y, x.square() + y.square()
    scale = power.clamp_min(1e-8)
    return torch.cat((cos, sin, power, (cos.square() - sin.square()) / scale, 2 * cos * sin / scale), 1)


def _slide(values: Tensor, width: int, shape: tuple[int, int], stride: int = 2) -> Tensor:
    """Average (B, C, H, W) under a square laid around every place, (B, C, *shape); places lie as in ``_unlike``."""
    before = max(0, width // 2 - stride)
    after = [
        max(0, (side - 1) * stride + width - before - given)
        for side, given in zip(shape, values.shape[2:], strict=True)
    ]
    # Differences of running sums: avg_pool2d takes ten times as long.
    sums = F.pad(values, (before, after[1], before, after[0]), mode="replicate")
    for axis, side in ((2, shape[0]), (3, shape[1])):
        total = F.pad(sums.cumsum(axis), (1, 0) if axis == 3 else (0, 0, 1, 0))
        ends = torch.arange(side, device=values.device) * stride
        sums = total.index_select(axis, ends + width) - total.index_select(axis, ends)
    return sums / width**2


def _halve(values: Tensor) -> Tensor:
    """Average (B, C, H, W) over squares of 2 px; a last odd row or column stands for two."""
    height, width = values.shape[2:]
    if height % 2 or width % 2:
        values = F.pad(values, (0, width % 2, 0, height % 2), mode="replicate")
    rows = values[:, :, ::2] + values[:, :, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _axis(count: int, device: torch.device) -> Tensor:
    """Return where places lie along an axis, (count,) in [-1, 1]: at the far edge of their step, the last at 1."""
    return (torch.arange(count, device=device) + 1) * 2 / count - 1


def _cells(
    maps: dict[str, Tensor],
    tried: Tensor,
    fixation: Tensor,
    time: Tensor,
    target: Tensor,
    config: SearchFeatureConfig,
    grid: tuple[int, int],
) -> Features:
    """Bring maps down to cells."""
    lanes, height, width = tried.shape
    gain = maps["gain"].masked_fill(tried, 0)
    # Where nothing resembles the target yet, the place of most contrast is an item's middle.
    promise = gain + 0.1 * maps["texture"] + 0.1 * maps["contrast"].clamp_max(1) - tried.float()
    _, index = F.adaptive_max_pool2d(promise[:, None], grid, return_indices=True)
    flat = index[:, 0].flatten(1)
    best = {name: value.flatten(1).gather(1, flat) for name, value in {**maps, "gain": gain}.items()}
    x, y = _axis(width, fixation.device)[flat % width], _axis(height, fixation.device)[flat // width]
    peak = best["gain"].amax(1, keepdim=True)
    relative = torch.where(peak > 0, best["gain"] / peak.clamp_min(1e-30), 0.0)
    sides = torch.tensor([width, height], device=fixation.device) / (2 * min(height, width))
    points = torch.stack((x, y), 2)
    best["gain"] = relative
    best["tried"] = F.adaptive_avg_pool2d(tried.float()[:, None], grid).flatten(1)
    best["distance"] = ((points - fixation[:, None]) * sides).norm(dim=2)
    cell_maps = {name: value.float().reshape(lanes, 1, *grid) for name, value in best.items()}
    cell_maps["place"] = grid_norm(*grid).to(fixation.device).T.reshape(1, 2, *grid).expand(lanes, -1, -1, -1)
    numbers = {
        "fixation": fixation,
        "time": time.reshape(lanes, 1),
        "coverage": maps["acuity"].mean((1, 2))[:, None],
        "best_gain": peak,
        "target": target,
    }
    many = [numbers[name] for name in config.numbers]
    return Features(
        torch.cat([cell_maps[name] for name in config.maps], 1),
        torch.cat(many, 1) if many else fixation.new_zeros(lanes, 0),
        points.contiguous(),
        relative,
    )
