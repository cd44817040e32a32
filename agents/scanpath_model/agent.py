"""An agent whose gaze was fitted to that of people, and which sees no more than they did: ``scanpath``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.mim.expected_gain import cell_grid
from foveasim.agents.mim.memo import MapMemory
from foveasim.agents.mim.weights_file import read_tensors
from foveasim.agents.noise import LaneNoise
from foveasim.agents.scanpath_model.network import SalienceNetwork
from foveasim.agents.scanpath_model.prior import (
    FEATURES,
    MEMORY,
    SamplingParameters,
    Tables,
    draw_points,
    features,
    log_priority,
)
from foveasim.errors import WeightsError
from foveasim.geometry import DEFAULT_SHORT_SIDE_DEG

__all__ = ["FittedScanpathModel", "ScanpathAgent", "load_scanpath"]

_AT_ONCE = 4  # pictures in the network at a time: 7.9 ms each, 9.2 by sixteen, whose maps leave the cache


class ScanpathAgent:
    """Looks as people do who view photographs freely: a guess of a person's next fixation, drawn at random.

    How likely each place is follows from what the eye has seen so far, its belief, and from how people's eyes move:
    salience as a network was taught it by people's fixations, their centre bias, the sizes and directions of their
    saccades, and how they return. See docs/humans.md for how near it comes. Its eye for faces, writing and things comes
    from a network that was trained to name things (:mod:`foveasim.agents.scanpath_model.backbone`); how people look
    it knows from 500 photographs only.

    Args:
        privileged: Whether it sees the whole scene sharply, as published models of scanpaths do. It cheats then.
        sharpness: Times the weights of salience and centre when a fixation is drawn. 1 draws as likely as the model
            says; more repeats itself more. None takes what was best on the validation images. It has no part in
            :meth:`priority`.
        short_side_deg: Visual angle of the scene's short side, degrees; observations do not hold it.
        weights: A file that was fitted by :mod:`foveasim.agents.scanpath_model.fit`; None takes the shipped one.
        seed: Seed of lane 0; lane i has ``seed + i``.

    Raises:
        InvalidValueError: A number out of range.
        WeightsError: The file cannot be used.
    """

    name = "scanpath"
    __repr__ = describe_agent

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
        fitted = load_scanpath(None if weights is None else str(weights))
        parameters = fitted.sampling["scene" if privileged else "belief"]
        self.network, self._maps = fitted.network, fitted.maps
        self.tables = replace(fitted.tables, weights=parameters.weights, amplitude=parameters.amplitude)
        self._sharpness = validation.number(
            "sharpness", parameters.sharpness if sharpness is None else sharpness, 0, 20
        )
        self._short_side_deg = validation.number("short_side_deg", short_side_deg, 0, 360, open_low=True)
        self._noise = LaneNoise(seed)
        self._past = torch.zeros(0, MEMORY, 2)
        self._count = torch.zeros(0, dtype=torch.int64)
        self._dwell_ms = np.zeros(0, np.float32)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear where the marked lanes, (B,) bool, have looked."""
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
        point = draw_points(likely.flatten(1), torch.from_numpy(drawn[:, :3]), (likely.shape[1], likely.shape[2]))
        quantiles = self.tables.duration_ms.numpy()
        at = drawn[:, 3] * (len(quantiles) - 1)
        self._dwell_ms = np.interp(at, np.arange(len(quantiles)), quantiles).astype(np.float32)
        return point.numpy()

    def dwell_ms(self) -> NDArray[np.float32]:
        """Return how long the fixations last that the last ``act`` chose, (B,) float32 ms."""
        return self._dwell_ms

    def priority(self, observation: Observation) -> NDArray[np.float32]:
        """Return how likely each cell is to be fixated next, (B, rows, columns) float32, each lane's sum 1."""
        self._noise.check(len(observed(observation, "fixation")))
        return self._likely(observation, None).exp().numpy()

    def _likely(self, observation: Observation, sharpness: float | None) -> Tensor:
        """Return log probabilities of the cells, (B, rows, columns), and go on to the next step."""
        key = self.needs[0]
        with torch.inference_mode():
            image = validation.image_batch(key, torch.from_numpy(observed(observation, key)))
            acuity = None
            if key == "belief":
                acuity = torch.from_numpy(observed(observation, "belief_acuity")).reshape(image.shape[:3])
            fixation = torch.from_numpy(observed(observation, "fixation").astype(np.float32))
            size = (image.shape[1], image.shape[2])
            grid = cell_grid(size)
            self._past = torch.cat((fixation[:, None], self._past[:, :-1]), 1)
            self._count = (self._count + 1).clamp_max(MEMORY)
            known = features(
                self._maps.look_up(image, acuity), self._past, self._count, self.tables, size, self._short_side_deg
            )
            likely = log_priority(known, self.tables, sharpness).reshape(-1, *grid)
        self._noise.tick()
        return likely


@dataclass(frozen=True, eq=False)
class FittedScanpathModel:
    """What a file of the agent holds.

    Attributes:
        network: Backbone and head.
        tables: Centre bias, saccades and durations; without weights.
        sampling: How to draw, by ``belief`` and ``scene``.
        maps: The network's answers to the last pictures.
    """

    network: SalienceNetwork
    tables: Tables
    sampling: Mapping[str, SamplingParameters]
    maps: MapMemory


@lru_cache(maxsize=4)
def load_scanpath(path: str | None) -> FittedScanpathModel:
    """Return what a file holds; None for the shipped one.

    Raises:
        WeightsError: The file cannot be used.
    """
    if path is None:
        with as_file(files("foveasim.agents.scanpath_model") / "weights" / "scanpath.safetensors") as shipped:
            tensors, metadata = read_tensors(shipped)
    else:
        tensors, metadata = read_tensors(path)
    try:
        metadata_json = json.loads(metadata["scanpath"])
        network = _network({name[8:]: tensor for name, tensor in tensors.items() if name.startswith("network.")})
        sampling = {
            name: SamplingParameters(
                tensors[f"{name}.weights"].float(), tensors[f"{name}.amplitude"].float(), float(sharpness)
            )
            for name, sharpness in metadata_json["sharpness"].items()
        }
        centre, saccade, duration_ms = (tensors[name].float() for name in ("centre", "saccade", "duration_ms"))
        nothing = torch.zeros(len(FEATURES)), torch.zeros_like(sampling["scene"].amplitude)
        tables = Tables(centre, saccade, float(metadata_json["cell_deg"]), *nothing, duration_ms)
        sampling["belief"]
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path or 'the shipped scanpath.safetensors'} is no file of the agent 'scanpath' ({error}). "
            "Fit one by foveasim.agents.scanpath_model.fit."
        ) from error

    def salience(image: Tensor, acuity: Tensor | None) -> Tensor:
        sharp = torch.full_like(image[..., 0], 255) if acuity is None else acuity
        grid = cell_grid((image.shape[1], image.shape[2]))
        parts = zip(torch.split(image, _AT_ONCE), torch.split(sharp, _AT_ONCE), strict=True)
        return torch.cat([network(pixels, seen, grid) for pixels, seen in parts])

    return FittedScanpathModel(network, tables, sampling, MapMemory(salience))


def _network(state: Mapping[str, Tensor]) -> SalienceNetwork:
    """Return a network with a state, whose weights may be copied and trained also if it is built while one infers."""
    # Weights about to be overwritten are drawn from the global state.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        network = SalienceNetwork()
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        network.eval().requires_grad_(False)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
