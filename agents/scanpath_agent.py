"""An agent whose gaze was fitted to that of people, and which sees no more than they did: ``scanpath``."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check
from foveasim.agents.base import Observation, observed
from foveasim.agents.mim.files import read_tensors
from foveasim.agents.noise import LaneNoise
from foveasim.agents.predictive_gain import cell_grid, see, shrink_pixels
from foveasim.agents.scanpath_network import SalienceNetwork, salience_inputs
from foveasim.agents.scanpath_prior import MEMORY, Tables, features, log_priority
from foveasim.errors import WeightsError
from foveasim.geometry import DEFAULT_SHORT_SIDE_DEG, grid_norm

__all__ = ["ScanpathAgent", "load_scanpath"]

_AT_ONCE = 32  # pictures in the network at a time, so that their maps stay in the cache
_WORKING_SIDE = 96


class ScanpathAgent:
    """Looks as people do who view photographs freely: a guess of a person's next fixation, drawn at random.

    How likely each place is follows from what the eye has seen so far, its belief, and from how people's eyes move:
    salience as a small network was taught it by people's fixations, their centre bias, the sizes and directions of
    their saccades, and how they return. See docs/humans.md for how near it comes, and what it lacks: it knows no
    objects, faces or words but by what a network of 97,000 parameters could learn from 500 photographs.

    Args:
        privileged: Whether it sees the whole scene sharply, as published models of scanpaths do. It cheats then.
        sharpness: Times the weights of salience and centre when a fixation is drawn. 1 draws as likely as the model
            says; more repeats itself more. None takes what was best on the validation images. It has no part in
            :meth:`priority`.
        short_side_deg: Visual angle of the scene's short side, degrees; observations do not tell it.
        weights: A file that was fitted by :mod:`foveasim.agents.scanpath_fit`; None takes the shipped one.
        seed: Seed of lane 0; lane i has ``seed + i``.

    Raises:
        InvalidValueError: A number out of range.
        WeightsError: The file cannot be used.
    """

    name = "scanpath"

    def __init__(
        self,
        privileged: bool = False,
        sharpness: float | None = None,
        short_side_deg: float = DEFAULT_SHORT_SIDE_DEG,
        weights: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.needs: tuple[str, ...] = ("scene",) if privileged else ("belief",)
        if privileged:
            self.name = f"{self.name} (privileged)"
        self.network, self.tables, fitted = load_scanpath(None if weights is None else str(weights))
        self._sharpness = check.number("sharpness", fitted if sharpness is None else sharpness, 0, 20)
        self._short_side_deg = check.number("short_side_deg", short_side_deg, 0, 360, open_low=True)
        self._noise = LaneNoise(seed)
        self._past = torch.zeros(0, MEMORY, 2)
        self._count = torch.zeros(0, dtype=torch.int64)
        self._dwell_ms = np.zeros(0, np.float32)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Forget where the marked lanes, (B,) bool, have looked."""
        self._noise.reset(lanes)
        if len(self._count) != len(lanes):
            self._past = torch.zeros(len(lanes), MEMORY, 2)
            self._count = torch.zeros(len(lanes), dtype=torch.int64)
        fresh = torch.from_numpy(np.array(lanes))
        self._count = torch.where(fresh, 0, self._count)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next fixations, (B, 2) float32 in [-1, 1], anywhere within the cells that were drawn."""
        self._noise.check(len(observed(observation, "fixation")))
        drawn = self._noise.uniform(4)
        likely = self._likely(observation, self._sharpness)
        share = likely.flatten(1).double().exp().cumsum(1)
        level = torch.from_numpy(drawn[:, :1]) * share[:, -1:]
        place = torch.searchsorted(share, level, right=True).clamp_max(share.shape[1] - 1)[:, 0]
        rows, columns = likely.shape[1:]
        inside = (drawn[:, 1:3] - 0.5) * (2 / np.array([columns, rows]))
        point = grid_norm(rows, columns)[place].numpy() + inside
        quantiles = self.tables.duration_ms.numpy()
        at = drawn[:, 3] * (len(quantiles) - 1)
        self._dwell_ms = np.interp(at, np.arange(len(quantiles)), quantiles).astype(np.float32)
        return np.clip(point, -1, 1).astype(np.float32)

    def dwell_ms(self) -> NDArray[np.float32]:
        """Return how long the fixations last that the last ``act`` chose, (B,) float32 ms."""
        return self._dwell_ms

    def priority(self, observation: Observation) -> NDArray[np.float32]:
        """Return how likely each cell is to be fixated next, (B, rows, columns) float32, each lane's sum 1."""
        self._noise.check(len(observed(observation, "fixation")))
        return self._likely(observation, 1.0).exp().numpy()

    def _likely(self, observation: Observation, sharpness: float) -> Tensor:
        """Return log probabilities of the cells, (B, rows, columns), and go on to the next step."""
        with torch.inference_mode():
            image, acuity, fixation = self._seen(observation)
            size = (image.shape[1], image.shape[2])
            self._past = torch.cat((fixation[:, None], self._past[:, :-1]), 1)
            self._count = (self._count + 1).clamp_max(MEMORY)
            parts = [slice(start, start + _AT_ONCE) for start in range(0, len(image), _AT_ONCE)]
            salience = torch.cat([self.network(salience_inputs(image[part], acuity[part])) for part in parts])
            grid = cell_grid(size)
            if salience.shape[1:] != grid:
                salience = F.interpolate(salience[:, None], grid, mode="bilinear", align_corners=False)[:, 0]
            known = features(salience, self._past, self._count, self.tables, size, self._short_side_deg)
            likely = log_priority(known, self.tables, sharpness).reshape(-1, *grid)
        self._noise.tick()
        return likely

    def _seen(self, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Return image (B, H, W, 3) and acuity (B, H, W) uint8 at the size at which it thinks, and the fixations."""
        if "belief" in self.needs:
            seen = see(observation, torch.device("cpu"))
            return seen.belief, seen.acuity, seen.fixation
        scene = check.image_batch("scene", torch.from_numpy(observed(observation, "scene")))
        height, width = scene.shape[1:3]
        scale = min(1.0, _WORKING_SIDE / min(height, width))
        image = shrink_pixels(scene, (round(height * scale), round(width * scale)))
        fixation = torch.from_numpy(observed(observation, "fixation").astype(np.float32))
        return image, torch.full(image.shape[:3], 255, dtype=torch.uint8), fixation


@lru_cache(maxsize=4)
def load_scanpath(path: str | None) -> tuple[SalienceNetwork, Tables, float]:
    """Return the network, the tables and the sharpness of a file; None for the shipped one.

    Raises:
        WeightsError: The file cannot be used.
    """
    if path is None:
        with as_file(files("foveasim.agents") / "weights" / "scanpath.safetensors") as shipped:
            tensors, metadata = read_tensors(shipped)
    else:
        tensors, metadata = read_tensors(path)
    with torch.random.fork_rng(devices=[]):  # weights about to be overwritten are drawn from the global state
        network = SalienceNetwork()
    try:
        facts = json.loads(metadata["scanpath"])
        network.load_state_dict(
            {name[8:]: tensor.float() for name, tensor in tensors.items() if name.startswith("network.")}
        )
        parts = [tensors[name].float() for name in ("centre", "saccade", "weights", "duration_ms")]
        tables = Tables(parts[0], parts[1], float(facts["cell_deg"]), parts[2], parts[3])
        sharpness = float(facts["sharpness"])
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{path or 'the shipped scanpath.safetensors'} is no file of the agent 'scanpath' ({error}). "
            "Fit one by foveasim.agents.scanpath_fit."
        ) from error
    return network.eval().requires_grad_(False), tables, sharpness
