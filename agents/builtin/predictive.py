"""Agents that look where their own prediction says that looking pays.

Each imagines the scene behind what it has seen, by a network that also tells how sure it is (``Prediction.std``), and
asks what a glimpse would change. What was seen sharply has no variance, so gaze does not return to it: inhibition of
return follows from belief. None of them sees a hidden pixel; :mod:`foveasim.agents.builtin.oracle` does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.builtin.predictive_base import Network, PredictiveAgent, best_place, in_chunks, spread_places
from foveasim.agents.interface import Observation
from foveasim.agents.mim.expected_gain import (
    BeliefState,
    cell_grid,
    cell_points,
    gain_map,
    measure_acuity_table,
    pool,
    shift_acuity_table,
)
from foveasim.agents.mim.network import fill_unseen, to_float
from foveasim.agents.mim.networks.vit import ViTNetwork
from foveasim.agents.mim.predictor import Predictor
from foveasim.errors import AgentError

__all__ = ["AttentionEntropy", "Information", "Surprise", "Uncertainty"]

_APART = 1 / 12  # least distance of imagined places, in short sides: 8 px at 96, where two glimpses differ by little
_PRIOR = 0.05  # share of what is around a place that must be revealed for half of its surprise to count


class Uncertainty(PredictiveAgent):
    """Looks where a glimpse would remove most of the variance that the network predicts.

    The variance is weighted by what the retina would show of every pixel that is not known yet, and summed, for every
    cell of a grid of 24 along the short side (:func:`foveasim.agents.mim.expected_gain.gain_map`). Where nothing is
    left to gain, gaze goes anywhere.

    Arguments and errors are those of :class:`foveasim.agents.builtin.predictive_base.PredictiveAgent`.
    """

    name = "uncertainty"

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the fixations of greatest gain, (B, 2) float32 in [-1, 1]."""
        variance = self.std(self.predict(seen.belief, seen.acuity)).square()
        gain = gain_map(variance, seen.acuity, measure_acuity_table(seen.glimpse_acuity, seen.fixation)).flatten(1)
        return cell_points(seen.size, self.device)[best_place(gain, self.ties(gain.shape[1]))]


class Surprise(PredictiveAgent):
    """Returns to where its prediction failed, as long as there is something left to see.

    After each glimpse the prediction made before it is compared with what was revealed. A pixel's surprise is its
    squared error relative to the variance that was predicted, ``(belief - mean)² / (std² + floor²)``, averaged over
    colours: 1 where the network was as wrong as it expected to be. Each pixel counts by the acuity that it gained. Over
    an episode this makes a map of what was revealed and how surprising it was, spread to its surroundings by a Gaussian
    G of sum 1:

        surprise nearby = (G * (gain · surprise)) / (G * gain + 0.05)

    Gaze goes where a glimpse would remove most of *surprise nearby times predicted variance*: near the place of the
    failure, at detail that is still hidden. Far from all that was revealed the product is 0. As long as nothing was
    revealed that had been predicted, at the first action of an episode, it does what :class:`Uncertainty` does.

    Args:
        network: As for :class:`foveasim.agents.builtin.predictive_base.PredictiveAgent`, as are ``device``,
            ``seed`` and the errors.
        device: Where to compute.
        spread: Standard deviation of the Gaussian, in short sides of the scene.
        floor: Added to the predicted standard deviation, in image units: 0.02 is 5 grey levels.
        seed: Seed of lane 0.

    Raises:
        InvalidValueError: ``spread`` or ``floor`` out of range.

    Reference:
        Itti and Baldi 2009, Bayesian surprise attracts human attention, Vision Research 49:1295-1306. There surprise is
        the change of a belief over models; here, the error of one that said how wrong it might be.
    """

    name = "surprise"

    def __init__(
        self,
        network: Network = "unet",
        device: str = "cpu",
        spread: float = 0.125,
        floor: float = 0.02,
        seed: int = 0,
    ) -> None:
        super().__init__(network, device, seed)
        self._spread = validation.number("spread", spread, 0, 10, open_low=True)
        self._floor = validation.number("floor", floor, 0, 1, open_low=True)
        self._fresh = np.zeros(0, np.bool_)
        self._expected: tuple[Tensor, Tensor, Tensor] | None = None  # image, variance and acuity before the glimpse
        self._revealed = torch.zeros(0)  # (2, B, rows, columns): gain · surprise and gain, over the episode

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear in the marked lanes, (B,) bool, what was expected and what came."""
        super().reset(lanes)
        same = len(self._fresh) == len(lanes)
        self._fresh = self._fresh | lanes if same else np.array(lanes)
        self._expected = self._expected if same else None

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the fixations of greatest gain where prediction failed, (B, 2) float32 in [-1, 1]."""
        prediction = self.predict(seen.belief, seen.acuity)
        variance = self.std(prediction).square()
        self._compare(seen)
        self._expected = (prediction.image.to(self.device), variance, seen.acuity.clone())
        self._fresh = np.zeros_like(self._fresh)
        worth = pool(variance) * self._nearby(seen.size)
        worth = F.interpolate(worth[:, None], seen.size, mode="nearest")[:, 0]
        gain = gain_map(worth, seen.acuity, measure_acuity_table(seen.glimpse_acuity, seen.fixation)).flatten(1)
        return cell_points(seen.size, self.device)[best_place(gain, self.ties(gain.shape[1]))]

    def _compare(self, seen: BeliefState) -> None:
        """Add what the last glimpse revealed to what the episode has shown."""
        if self._expected is None or self._expected[2].shape != seen.acuity.shape:
            self._revealed = torch.zeros(2, len(seen.acuity), *cell_grid(seen.size), device=self.device)
            return
        image, variance, acuity = self._expected
        gain = (seen.acuity.float() - acuity.float()).clamp_min(0) / 255
        surprise = (seen.belief.float() / 255 - image).square().mean(3) / (variance + self._floor**2)
        going = torch.from_numpy(~self._fresh).to(self.device)[:, None, None]
        revealed = torch.stack((pool(gain * surprise), pool(gain)))
        self._revealed = torch.where(going, self._revealed + revealed, 0.0)

    def _nearby(self, size: tuple[int, int]) -> Tensor:
        """Return the surprise around each cell, (B, rows, columns), or 1 in lanes to which nothing was revealed."""
        short = min(size)
        down, across = (
            _gaussian(cells, self._spread * short / side * cells).to(self.device)
            for cells, side in zip(cell_grid(size), size, strict=True)
        )
        failed, evidence = down @ self._revealed @ across.T
        return torch.where(evidence.amax((1, 2), keepdim=True) > 0, failed / (evidence + _PRIOR), 1.0)


class Information(PredictiveAgent):
    """Looks where, as it imagines, least would remain uncertain over the whole scene.

    For each of the most promising places by :class:`Uncertainty`, no two within a twelfth of the short side, the
    glimpse there is imagined: as sharp as the retina would show it, and filled with what the network predicts now. The
    network looks at all these beliefs at once, and gaze goes where the variance that it would then predict, summed over
    the scene, is least. Unlike :class:`Uncertainty` this counts what one place tells of the others. A glimpse filled
    with the mean of what is possible never surprises, so that this is the expected variance as far as it does not
    depend on what is found.

    Args:
        network: As for :class:`foveasim.agents.builtin.predictive_base.PredictiveAgent`, as are ``device``,
            ``seed`` and the errors.
        device: Where to compute.
        candidates: How many places to imagine; an action costs as many predictions and one more.
        seed: Seed of lane 0.

    Raises:
        InvalidTypeError: ``candidates`` is no whole number.
        InvalidValueError: Not 1 to 1000 candidates.
    """

    name = "information"

    def __init__(self, network: Network = "unet", device: str = "cpu", candidates: int = 6, seed: int = 0) -> None:
        super().__init__(network, device, seed)
        self._candidates = validation.whole("candidates", candidates, 1, 1000)

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the fixations after which least would remain uncertain, (B, 2) float32 in [-1, 1]."""
        prediction = self.predict(seen.belief, seen.acuity)
        table = measure_acuity_table(seen.glimpse_acuity, seen.fixation)
        gain = gain_map(self.std(prediction).square(), seen.acuity, table).flatten(1)
        ties, points = self.ties(gain.shape[1]), cell_points(seen.size, self.device)
        height, width = seen.size
        places = points * torch.tensor([width, height], device=self.device) / (2 * min(seen.size))
        found = spread_places(gain, ties, places, self._candidates, _APART)

        guess = (255 * prediction.image.to(self.device)).round().to(torch.uint8)
        glimpse = shift_acuity_table(table, points[found])
        left = []
        for lane, place in in_chunks(*found.shape):
            glimpse_acuity, known = glimpse[lane, place], seen.acuity[lane]
            belief = torch.where((glimpse_acuity > known)[..., None], guess[lane], seen.belief[lane])
            imagined = self.predict_uncached(belief, torch.maximum(glimpse_acuity, known))
            left.append(self.std(imagined).square().mean((1, 2)))
        remaining = torch.cat(left).reshape(found.shape)
        chosen = best_place(remaining.amax(1, keepdim=True) - remaining, ties.gather(1, found))
        return points[found.gather(1, chosen[:, None])[:, 0]]


class AttentionEntropy(PredictiveAgent):
    """Looks where the attention of a transformer is spread most widely.

    A token of the decoder's last layer that finds what it needs asks few others; one that does not asks everywhere. The
    entropy of what each token asks, summed over heads, stands in for the variance of :class:`Uncertainty`: it counts as
    far as a patch is not known, and is summed over what a glimpse would show. The paper, whose glimpses are squares of
    patches, sets known patches to 0 and averages over the square.

    Args:
        network: A ``.safetensors`` file of a ``vit``, or such a network. None is shipped.
        device: Where to compute.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        AgentError: The network is no ``vit``.
        WeightsError: The file cannot be used.

    Reference:
        Pardyl, Rypeść, Kurzejamski, Zieliński, Trzciński 2023, Active visual exploration based on attention-map
        entropy, IJCAI, https://doi.org/10.24963/ijcai.2023/145; the layer and the sum over heads as in the authors'
        code.
    """

    name = "attention_entropy"
    needs_std = False

    def __init__(self, network: Network, device: str = "cpu", seed: int = 0) -> None:
        super().__init__(network, device, seed)
        inner = self.predictor.network if isinstance(self.predictor, Predictor) else None
        if not isinstance(inner, ViTNetwork):
            name = getattr(self.predictor, "name", type(self.predictor).__name__)
            raise AgentError(
                f"the agent {self.name!r} goes by the attention of a transformer, and {name!r} has none. "
                "Train one by 'foveasim pretrain --network vit', and give its .safetensors file."
            )
        self._vit = inner

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the fixations of greatest entropy, (B, 2) float32 in [-1, 1]."""
        image, acuity = to_float(seen.belief, seen.acuity)
        entropy = self._vit.attention_entropy(fill_unseen(image, acuity), acuity)
        entropy = entropy.repeat_interleave(self._vit.config.patch, 1).repeat_interleave(self._vit.config.patch, 2)
        table = measure_acuity_table(seen.glimpse_acuity, seen.fixation)
        worth = entropy[:, : seen.size[0], : seen.size[1]]
        gain = gain_map(worth, seen.acuity, table, at_acuity=False).flatten(1)
        return cell_points(seen.size, self.device)[best_place(gain, self.ties(gain.shape[1]))]


def _gaussian(cells: int, sd: float) -> Tensor:
    """Return the matrix that blurs a row of cells, (cells, cells) float32; what leaves the scene is lost."""
    at = torch.arange(cells, dtype=torch.float32)
    density = torch.exp(-((at[:, None] - at) ** 2) / (2 * sd**2))
    return density / (sd * math.sqrt(2 * math.pi))
