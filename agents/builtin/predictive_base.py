"""What agents that predict have in common: a network behind the eye, and the choice of the best place."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.interface import Imagines, Observation, describe_agent, observed
from foveasim.agents.mim.expected_gain import BeliefState, read_belief_state
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.mim.predictor import Predictor
from foveasim.agents.noise import LaneNoise
from foveasim.errors import AgentError, InvalidTypeError
from foveasim.types import Prediction

__all__ = ["Network", "PredictiveAgent", "best_place", "in_chunks", "spread_places"]

Network: TypeAlias = Imagines | MimNetwork | str | os.PathLike[str]

_AT_ONCE = 64  # pictures that a network predicts at a time: its maps then take about 30 MB at 96 x 96

_TIE = 1e-3  # noise that settles ties, as a share of the best place's value


class PredictiveAgent(ABC):
    """Base of the agents that predict.

    Args:
        network: A network, the name of a shipped one, a ``.safetensors`` file, or anything with ``imagine``.
        device: Where to compute.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        AgentError: The agent goes by the standard deviation of the prediction, and the network predicts none.
        WeightsError: The file cannot be used.
        InvalidTypeError: ``network`` is none of these.
    """

    name = "predictive"
    needs: tuple[str, ...] = ("belief",)
    needs_std = True
    __repr__ = describe_agent

    def __init__(self, network: Network = "unet", device: str = "cpu", seed: int = 0) -> None:
        self.predictor: Imagines
        if isinstance(network, MimNetwork | str | os.PathLike):
            with torch.random.fork_rng(devices=[]):  # weights about to be overwritten are drawn from the global state
                self.predictor = made = Predictor(network, device)
            if self.needs_std and not made.network.predicts_std:
                raise self._no_std(made.name)
        elif isinstance(network, Imagines):
            self.predictor = network
        else:
            raise InvalidTypeError(
                "network must be a network, the name of a shipped one, a .safetensors file or something with "
                f"imagine(observation); got {network!r}."
            )
        self.device = torch.device(device)
        self.noise = LaneNoise(seed)
        self._last: tuple[Tensor, Tensor, Prediction] | None = None

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self.noise.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next fixation of every lane, (B, 2) float32 in [-1, 1].

        Raises:
            AgentError: The observation lacks what the agent needs, or the network predicts no standard deviation.
        """
        with torch.inference_mode():
            seen = read_belief_state(observation, self.device)
            self.noise.check(len(seen.fixation))
            point = self.choose_fixations(seen, observation)
        self.noise.tick()
        return cast("NDArray[np.float32]", point.cpu().numpy())

    @abstractmethod
    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the next fixations, (B, 2) float32 in [-1, 1]."""

    def imagine(self, observation: Observation) -> Prediction:
        """Predict the whole scene of every lane from ``belief`` where the observation has it, else from ``glimpse``."""
        keys = ("belief", "belief_acuity") if "belief" in observation else ("glimpse", "acuity")
        image, acuity = (torch.from_numpy(observed(observation, key)) for key in keys)
        with torch.inference_mode():
            return self.predict(image.to(self.device), acuity.reshape(image.shape[:-1]).to(self.device))

    def predict(self, belief: Tensor, acuity: Tensor) -> Prediction:
        """Predict what is behind a belief, and remember the last answer.

        The window asks for a prediction and then for an action: the second time it costs nothing.

        Args:
            belief: (B, H, W, 3) uint8.
            acuity: (B, H, W) uint8.
        """
        last = self._last
        if last is None or last[0].shape != belief.shape or not torch.equal(last[0], belief):
            last = None
        if last is None or not torch.equal(last[1], acuity):
            last = (belief.clone(), acuity.clone(), self.predict_uncached(belief, acuity))
            self._last = last
        return last[2]

    def predict_uncached(self, belief: Tensor, acuity: Tensor) -> Prediction:
        """Predict what is behind a hypothetical belief, without remembering the answer."""
        return self.predictor.imagine({"belief": belief, "belief_acuity": acuity[..., None]})

    def std(self, prediction: Prediction) -> Tensor:
        """Return the standard deviation of a prediction, (B, H, W) float32.

        Raises:
            AgentError: There is none.
        """
        if prediction.std is None:
            raise self._no_std(getattr(self.predictor, "name", type(self.predictor).__name__))
        return prediction.std.to(self.device, torch.float32)

    def ties(self, count: int) -> Tensor:
        """Return seeded noise in [0, 1), (B, count) float32, the same until the next action."""
        return torch.from_numpy(self.noise.uniform(count).astype(np.float32)).to(self.device)

    def _no_std(self, network: str) -> AgentError:
        return AgentError(
            f"the agent {self.name!r} goes by how sure a network is of its prediction, and the network {network!r} "
            "predicts no standard deviation. Use one that does, such as the shipped network='unet'."
        )


def best_place(value: Tensor, ties: Tensor) -> Tensor:
    """Return the index of the greatest of K values, (B,) int64, near ties settled by noise.

    Args:
        value: (B, K) float, 0 or more. Where all are 0, noise alone decides.
        ties: (B, K) float in [0, 1).

    Example:
        >>> best_place(torch.tensor([[0.2, 0.9], [0.0, 0.0]]), torch.tensor([[0.9, 0.1], [0.7, 0.2]]))
        tensor([1, 0])
    """
    return _relative(value, ties).argmax(1)


def _relative(value: Tensor, ties: Tensor) -> Tensor:
    peak = value.amax(1, keepdim=True)
    return torch.where(peak > 0, value / peak.clamp_min(1e-30), 0.0) + _TIE * ties


def spread_places(value: Tensor, ties: Tensor, points: Tensor, count: int, distance: float) -> Tensor:
    """Return the best places of a map that are not close to one another: the best, the best beyond it, and so on.

    Args:
        value: (B, K) float, 0 or more.
        ties: (B, K) float in [0, 1).
        points: (K, 2) float, where they are.
        count: N, how many; K at most.
        distance: No two places are nearer than this, in the unit of ``points``, until there are no others left.

    Returns:
        (B, N) int64.

    Example:
        >>> line = torch.stack((torch.arange(5.0), torch.zeros(5)), 1)
        >>> spread_places(torch.tensor([[0.0, 8.0, 9.0, 3.0, 2.0]]), torch.zeros(1, 5), line, 3, 1.5)
        tensor([[2, 4, 0]])
    """
    rank = _relative(value, ties)
    near = torch.cdist(points, points) < distance
    found = []
    for _ in range(min(count, len(points))):
        best = rank.argmax(1)
        found.append(best)
        rank = torch.where(near[best], rank - 4, rank)
        rank.scatter_(1, best[:, None], -torch.inf)
    return torch.stack(found, 1)


def in_chunks(*counts: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield all combinations of indices, the last one fastest, about as many at a time as a network should take.

    Example:
        >>> [[part.tolist() for part in chunk] for chunk in in_chunks(2, 2)]
        [[[0, 0, 1, 1], [0, 1, 0, 1]]]
    """
    total = int(np.prod(counts))
    for start in range(0, total, _AT_ONCE):
        flat = torch.arange(start, min(start + _AT_ONCE, total))
        yield torch.unravel_index(flat, counts)
