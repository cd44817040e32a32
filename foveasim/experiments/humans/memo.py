"""Predictions that are made once for what many eyes see: the eyes of one agent on one image often see the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from foveasim.agents.builtin.predictive_base import PredictiveAgent
from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.interface import Agent
from foveasim.agents.mim.memo import MapMemory
from foveasim.agents.mim.predictor import Predictor
from foveasim.types import Prediction

__all__ = ["CachedPredictor", "cache_predictions"]

_MAX_CACHED = 500  # 230 kB each at 96 x 128 px


class CachedPredictor:
    """Predicts as another predictor does, and computes only what it was not asked for lately.

    Args:
        predictor: Who predicts, on the CPU.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.name = predictor.name
        self._predictor = predictor
        self._memory = MapMemory(self._packed, _MAX_CACHED)
        self._shapes: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}  # of the parts, by that of the picture

    def imagine(self, observation: Mapping[str, Any]) -> Prediction:
        """Predict the scene behind a belief; see :meth:`foveasim.agents.mim.predictor.Predictor.imagine`.

        Args:
            observation: With ``belief`` (B, H, W, 3) and ``belief_acuity`` (B, H, W, 1) uint8; without them it is left
                to the predictor.
        """
        if "belief" not in observation:
            return self._predictor.imagine(observation)
        image, acuity = (torch.as_tensor(observation[key]) for key in ("belief", "belief_acuity"))
        packed = self._memory.look_up(image, acuity.reshape(image.shape[:3]))
        shapes = self._shapes[tuple(image.shape[1:3])]
        parts = torch.split(packed, [torch.Size(shape).numel() for shape in shapes.values()], 1)
        return Prediction(**{name: part.reshape(-1, *shapes[name]) for name, part in zip(shapes, parts, strict=True)})

    def _packed(self, image: Tensor, acuity: Tensor | None) -> Tensor:
        made = self._predictor.imagine({"belief": image, "belief_acuity": acuity})
        parts = {"image": made.image, "std": made.std, "latent": made.latent}
        known = {name: part for name, part in parts.items() if part is not None}
        self._shapes[tuple(image.shape[1:3])] = {name: tuple(part.shape[1:]) for name, part in known.items()}
        return torch.cat([part.flatten(1).float() for part in known.values()], 1)


def cache_predictions(entry: Entry) -> Entry:
    """Let an agent that predicts share its predictions among all that are built of it; leave others as they are."""
    cached: list[CachedPredictor] = []

    def make(seed: int) -> Agent:
        agent = entry.make(seed)
        if isinstance(agent, PredictiveAgent) and type(agent.predictor) is Predictor and agent.device.type == "cpu":
            if not cached:
                cached.append(CachedPredictor(agent.predictor))
            agent.predictor = cached[0]
        return agent

    return Entry(entry.label, entry.spec, make)
