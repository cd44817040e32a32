"""Salience times people's centre bias, with inhibition of return: what a learned model of gaze has to beat."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.builtin.saliency import MAP_MEMORY, itti_koch_map, spectral_residual_map
from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.mim.expected_gain import cell_grid
from foveasim.agents.noise import LaneNoise
from foveasim.errors import InvalidValueError
from foveasim.geometry import grid_norm
from foveasim.validation import image_batch, number

__all__ = ["SALIENCE", "SaliencyCentre"]

SALIENCE = {"itti_koch": itti_koch_map, "spectral_residual": spectral_residual_map}
"""Maps by name."""

_TIE = 1e-3  # share of the highest priority by which near ties are settled


class SaliencyCentre:
    """Looks at the most salient place near the centre that it has not looked at lately.

    Priority is salience times a Gaussian around the centre, as wide as people's fixations on OSIE, times what
    inhibition of return leaves. The highest takes all, so that the scanpaths of several seeds are nearly the same:
    compare its ScanMatch among its own with that of people before anything is made of its ScanMatch against them.

    Args:
        salience: ``itti_koch`` or ``spectral_residual``.
        privileged: Whether salience is that of the whole scene, as in the published baselines. It cheats then.
        centre_sd: Standard deviations of the Gaussian in x and y, normalised units.
        ior_sd: Standard deviation of the inhibition around each fixation, short sides of the scene: 0.08 is 2 degrees
            of 25.
        ior_half_life: Fixations after which half of the inhibition is left.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        InvalidValueError: An unknown map, or a number out of range.

    Reference:
        Itti, Koch and Niebur 1998, IEEE TPAMI 20:1254-1259 (winner takes all, inhibition of return); Tatler 2007, The
        central fixation bias in scene viewing, Journal of Vision 7(14):4.
    """

    name = "saliency_centre"
    __repr__ = describe_agent

    # The Gaussian has the standard deviations of 70,145 fixations on the 500 training images of OSIE.
    def __init__(
        self,
        salience: str = "itti_koch",
        privileged: bool = False,
        centre_sd: tuple[float, float] = (0.43, 0.39),
        ior_sd: float = 0.08,
        ior_half_life: float = 4.0,
        seed: int = 0,
    ) -> None:
        if salience not in SALIENCE:
            raise InvalidValueError(f"salience must be one of {', '.join(SALIENCE)}; got {salience!r}.")
        if not isinstance(centre_sd, tuple | list) or len(centre_sd) != 2:
            raise InvalidValueError(f"centre_sd must be a pair (x, y); got {centre_sd!r}.")
        self.needs: tuple[str, ...] = ("scene",) if privileged else ("belief",)
        self.name = f"{salience} x centre{' (privileged)' if privileged else ''}"
        self._maps = MAP_MEMORY[salience]
        self._centre_sd = torch.tensor([number("centre_sd", sd, 0, 100, open_low=True) for sd in centre_sd])
        self._ior_sd = number("ior_sd", ior_sd, 0, 10, open_low=True)
        self._keep = 0.5 ** (1 / number("ior_half_life", ior_half_life, 0, open_low=True))
        self._noise = LaneNoise(seed)
        self._inhibition = torch.zeros(0, 1, 1)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear where the marked lanes, (B,) bool, have looked."""
        self._noise.reset(lanes)
        if len(self._inhibition) == len(lanes):
            self._inhibition = self._inhibition * ~torch.from_numpy(np.array(lanes))[:, None, None]
        else:
            self._inhibition = torch.zeros(len(lanes), 1, 1)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the place of highest priority, (B, 2) float32 in [-1, 1]."""
        self._noise.check(len(observed(observation, "fixation")))
        height, width = observed(observation, "acuity").shape[1:3]
        rows, columns = cell_grid((height, width))
        ties = torch.from_numpy(self._noise.uniform(rows * columns).astype(np.float32))
        likely = self._likely(observation).flatten(1)
        likely = likely + _TIE * likely.amax(1, keepdim=True) * ties
        return grid_norm(rows, columns)[likely.argmax(1)].numpy()

    def priority(self, observation: Observation) -> NDArray[np.float32]:
        """Return the priority of every cell, (B, rows, columns) float32, 0 or more, and a little everywhere."""
        self._noise.check(len(observed(observation, "fixation")))
        likely = self._likely(observation)
        return (likely + _TIE * likely.amax((1, 2), keepdim=True).clamp_min(1e-6)).numpy()

    def _likely(self, observation: Observation) -> Tensor:
        key = self.needs[0]
        with torch.inference_mode():
            image = image_batch(key, torch.from_numpy(observed(observation, key)))
            seen = None
            if key == "belief":
                seen = torch.from_numpy(observed(observation, "belief_acuity")).reshape(image.shape[:3])
            salience = self._maps.look_up(image, seen)
            size = (image.shape[1], image.shape[2])
            rows, columns = grid = cell_grid(size)
            salience = F.interpolate(salience[:, None], grid, mode="bilinear", align_corners=False)[:, 0]
            cells = grid_norm(rows, columns)
            centre = torch.exp(-(cells / self._centre_sd).square().sum(1) / 2).reshape(grid)
            fixation = torch.from_numpy(observed(observation, "fixation").astype(np.float32))
            half = torch.tensor([size[1], size[0]]) / (2 * min(size))  # short sides
            away = ((cells - fixation[:, None]) * half).square().sum(2).reshape(-1, *grid)
            here = torch.exp(-away / (2 * self._ior_sd**2))
            self._inhibition = torch.maximum(self._inhibition * self._keep, here)
            likely = salience * centre * (1 - self._inhibition)
        self._noise.tick()
        return likely
