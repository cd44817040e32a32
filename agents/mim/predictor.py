"""From what has been seen to a picture of the whole scene: sharp where seen, predicted where not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.ensemble import Ensemble
from foveasim.agents.mim.expected_gain import BeliefState, at_working_size, gain_map, measure_acuity_table
from foveasim.agents.mim.network import MIN_SIDE_PX, MimNetwork, Output, fill_unseen, to_float
from foveasim.agents.mim.resize import shrink
from foveasim.agents.mim.weights_file import load_network, read_card
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.types import Prediction

__all__ = [
    "PRECISIONS",
    "TRAINED_PX",
    "BeliefPrediction",
    "BeliefPredictor",
    "Predictor",
    "compose",
    "predict_at",
    "read_belief_state_on_device",
]

PRECISIONS = ("float32", "bfloat16")

_AT_ONCE = {"cpu": 64}  # pictures at a time: more make it no quicker on a core (2.8 ms each for 16 as for 64)
_AT_ONCE_ELSEWHERE = 1024


@dataclass(frozen=True, eq=False)
class BeliefPrediction:
    """What B eyes know and what they expect, at the size at which agents think (96 px along the short side at most).

    Attributes:
        seen: Belief, its acuity, the present glimpse's acuity, fixation.
        image: (B, H, W, 3) float32 in [0, 1], the predicted scene, what was seen sharply in it.
        variance: (B, H, W) float32, of the prediction's error in a colour, 0 where it was seen sharply.
        latent: (B, C, h, w) float32, or None where a predictor has none.
        time: (B, 1) float32, what is left of the budget.
    """

    seen: BeliefState
    image: Tensor
    variance: Tensor
    latent: Tensor | None
    time: Tensor

    @cached_property
    def acuity_table(self) -> Tensor:
        """What a glimpse shows by the distance from its fixation, (B, H, W) float32."""
        return measure_acuity_table(self.seen.glimpse_acuity, self.seen.fixation)

    @cached_property
    def gain(self) -> Tensor:
        """The variance that a glimpse would remove, summed over the scene, (B, rows, columns) float32.

        See :func:`foveasim.agents.mim.expected_gain.gain_map`.
        """
        return gain_map(self.variance, self.seen.acuity, self.acuity_table)

    def lanes(self, which: Tensor | slice) -> Self:
        """Return some of the lanes, or all in another order."""
        seen = BeliefState(
            *(getattr(self.seen, name)[which] for name in ("belief", "acuity", "glimpse_acuity", "fixation"))
        )
        latent = None if self.latent is None else self.latent[which]
        return type(self)(seen, self.image[which], self.variance[which], latent, self.time[which])


class BeliefPredictor:
    """Predicts from observations with a frozen network, and remembers its last prediction.

    Args:
        network: A network that predicts a standard deviation, the name of a shipped one, or a ``.safetensors`` file.
        device: Where to compute.
        precision: "float32", or "bfloat16" for the network: twice as quick on CPUs with AMX (2.8 ms instead of 6.0 for
            a picture of 96 x 96), slow on others.

    Raises:
        AgentError: The network predicts no standard deviation.
        InvalidValueError: Another precision.
        WeightsError: The file cannot be used.
    """

    def __init__(
        self,
        network: MimNetwork | str = "unet",
        device: str | torch.device = "cpu",
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise InvalidValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
        with torch.random.fork_rng(devices=[]):  # weights about to be overwritten are drawn from the global state
            self.predictor = Predictor(network, device)
        if not self.predictor.network.predicts_std:
            raise AgentError(
                f"the network {self.predictor.name!r} predicts no standard deviation, which a gaze policy needs. "
                "Use one that does, such as the shipped network='unet'."
            )
        self.predictor.network.requires_grad_(False)
        self.device, self.precision = self.predictor.device, precision
        self._last: tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def predict_from(self, observation: Mapping[str, Any]) -> BeliefPrediction:
        """Predict what is behind an observation.

        Args:
            observation: ``belief``, ``belief_acuity``, ``acuity``, ``fixation`` and ``time``, arrays or tensors.
        """
        seen = read_belief_state_on_device(observation, self.device)
        image, std, latent = self.predict(seen.belief, seen.acuity)
        time = torch.as_tensor(observation["time"]).to(self.device, torch.float32)
        return BeliefPrediction(seen, image, std.square(), latent, time)

    def predict(self, belief: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict scenes from beliefs (B, H, W, 3) and (B, H, W), uint8, on the device.

        The last answer is cached: an agent that asks what an env's readout has asked before has it at once.

        Returns:
            Image (B, H, W, 3), standard deviation (B, H, W) and latent (B, C, h, w), all float32; not to be written to.
        """
        last = self._last
        if last is not None and torch.equal(last[0], belief) and torch.equal(last[1], acuity):
            return last[2]
        many = _AT_ONCE.get(self.device.type, _AT_ONCE_ELSEWHERE)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            chunks = zip(torch.split(belief, many), torch.split(acuity, many), strict=True)
            parts = [self.predictor.predict(*chunk) for chunk in chunks]
        image = torch.cat([part.image.float() for part in parts])
        std = torch.cat([part.std.float() for part in parts if part.std is not None])
        latent = torch.cat([part.latent.float() for part in parts if part.latent is not None])
        self._last = belief.clone(), acuity.clone(), (image, std, latent)
        return image, std, latent


def read_belief_state_on_device(observation: Mapping[str, Any], device: torch.device) -> BeliefState:
    """Take what an agent goes by out of an observation, without leaving the device on which it lies.

    Raises:
        InvalidValueError: A key is missing.
        InvalidTypeError: An image that is not uint8.
    """
    for key in ("belief", "belief_acuity", "acuity", "fixation", "time"):
        if key not in observation:
            raise InvalidValueError(
                f"the observation must have {key!r}; it has {', '.join(observation)}. Make the env with belief=True."
            )
    belief = validation.image_batch("belief", torch.as_tensor(observation["belief"])).to(device)
    known, glimpse = (
        torch.as_tensor(observation[key]).to(device).reshape(belief.shape[:3]) for key in ("belief_acuity", "acuity")
    )
    fixation = torch.as_tensor(observation["fixation"]).to(device, torch.float32)
    return at_working_size(belief, known, glimpse, fixation)


TRAINED_PX = 96
"""Short side of what the shipped networks were trained on."""


def compose(image: Tensor, acuity: Tensor, reconstruction: Tensor) -> Tensor:
    """Put what was seen sharply over what was predicted.

    A blurred view is replaced by the prediction, not mixed with it: ``unet`` weights its own residual by 1 - acuity,
    and after one ``pyramid`` fixation its mean squared error over the scene was 0.0110, that of the mixture
    acuity * view + (1 - acuity) * prediction 0.0112, of the view 0.0160 (validation scenes, 96 px).

    Args:
        image: (B, 3, H, W) float in [0, 1], what was seen.
        acuity: (B, 1, H, W) float in [0, 1].
        reconstruction: (B, 3, H, W) float in [0, 1].

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    return torch.where(acuity >= 1, image, reconstruction)


def predict_at(network: MimNetwork, image: Tensor, acuity: Tensor, short_side_px: int | None) -> Output:
    """Let a network predict at a smaller size, and scale back.

    Where nothing was seen, that is the whole prediction; elsewhere it is what the prediction adds to the view, which
    keeps the detail that the smaller size cannot hold. The standard deviation is that of the smaller picture: it knows
    nothing of detail that this cannot hold.

    Args:
        network: The network.
        image: (B, 3, H, W) float in [0, 1], what was seen.
        acuity: (B, 1, H, W) float in [0, 1].
        short_side_px: Images with a longer short side are shrunk to it; None never shrinks.
    """
    height, width = image.shape[2:]
    short = min(height, width)
    if short_side_px is None or short <= short_side_px:
        return Output(*network(image, acuity))
    scale = short_side_px / short
    small, small_acuity = shrink(image, acuity, (round(height * scale), round(width * scale)))
    predicted, latent, std = Output(*network(fill_unseen(small, small_acuity), small_acuity))
    predicted = compose(small, small_acuity, predicted)
    added = torch.where(small_acuity > 0, predicted - small, 0.0)
    both = F.interpolate(torch.cat((predicted, added), 1), image.shape[2:], mode="bilinear")
    picture = torch.where(acuity > 0, (image + both[:, 3:]).clamp(0, 1), both[:, :3])
    if std is not None:
        std = torch.where(acuity < 1, F.interpolate(std, image.shape[2:], mode="bilinear"), 0.0)
    return Output(picture, latent, std)


class Predictor:
    """Predicts scenes from observations.

    Args:
        network: A network, the name of a shipped one or a ``.safetensors`` file; or a list of them, an
            :class:`~foveasim.agents.mim.ensemble.Ensemble`.
        device: Where to compute.
        short_side_px: Scenes with a longer short side are shrunk to it for the network, whose prediction is scaled back
            and laid under what was seen at full resolution. Shipped networks were trained at 96 px. None never shrinks.

    Raises:
        WeightsError: The file cannot be used.
        InvalidValueError: ``short_side_px`` under 32.

    Attributes:
        name: The network's.
        retinas: Names of the retinas that it was trained on, by its card, or that all of them were; ()
            where that is not known.

    Example:
        >>> from foveasim.agents.mim.network import make_network
        >>> predictor = Predictor(make_network("unet"))
        >>> seen = {"belief": torch.zeros(1, 64, 96, 3).byte(), "belief_acuity": torch.zeros(1, 64, 96, 1).byte()}
        >>> predictor.imagine(seen).image.shape
        torch.Size([1, 64, 96, 3])
    """

    def __init__(
        self,
        network: MimNetwork | str | os.PathLike[str] | Sequence[MimNetwork | str | os.PathLike[str]] = "unet",
        device: str | torch.device = "cpu",
        *,
        short_side_px: int | None = TRAINED_PX,
    ) -> None:
        if short_side_px is not None:
            validation.number("short_side_px", short_side_px, MIN_SIDE_PX)
        self.device = torch.device(device)
        given = [network] if isinstance(network, MimNetwork | str | os.PathLike) else list(network)
        networks = [one if isinstance(one, MimNetwork) else load_network(one) for one in given]
        self.network = networks[0] if len(networks) == 1 else Ensemble(networks)
        # Images come channels-last: weights that lie so, too, save a third of the time of a batch.
        self.network.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.short_side_px = short_side_px
        self.name = self.network.name
        trained = [() if isinstance(one, MimNetwork) else tuple(read_card(one).get("retinas", ())) for one in given]
        self.retinas = tuple(name for name in trained[0] if all(name in others for others in trained))

    def __repr__(self) -> str:
        return f"Predictor({self.network!r}, device={str(self.device)!r}, short_side_px={self.short_side_px})"

    def imagine(self, observation: Mapping[str, Any]) -> Prediction:
        """Predict the scene behind an observation.

        Args:
            observation: ``belief`` (B, H, W, 3) and ``belief_acuity`` (B, H, W, 1), uint8, where it has them, otherwise
                ``glimpse`` and ``acuity``; arrays or tensors. The last axis of acuity may be left out.

        Returns:
            ``image`` (B, H, W, 3) float32 in [0, 1] on the predictor's device, equal to what was seen where acuity is
            255; ``std`` (B, H, W) float32 of each of its channels, 0 there, None where the network predicts none;
            ``latent`` (B, C, h, w).

        Raises:
            InvalidTypeError: Not uint8.
            InvalidValueError: A key is missing, or wrong shapes.
        """
        keys = ("belief", "belief_acuity") if "belief" in observation else ("glimpse", "acuity")
        for key in keys:
            if key not in observation:
                raise InvalidValueError(f"observation must have {key!r}; it has {', '.join(sorted(observation))}.")
        image, acuity = (torch.as_tensor(observation[key]) for key in keys)
        return self.predict(image, acuity[..., 0] if acuity.ndim == 4 else acuity)

    def predict(self, image: Tensor, acuity: Tensor) -> Prediction:
        """Predict the scene from what was seen of it; see :meth:`imagine`.

        Args:
            image: (B, H, W, 3) uint8; pixels of acuity 0 may hold anything, the network never sees them.
            acuity: (B, H, W) uint8.
        """
        if not isinstance(image, Tensor) or not isinstance(acuity, Tensor):
            raise InvalidTypeError("image and acuity must be tensors; use imagine() for arrays.")
        with torch.inference_mode():
            seen, sharp = to_float(image.to(self.device), acuity.to(self.device))
            picture, latent, std = predict_at(self.network, self._filled(seen, sharp), sharp, self.short_side_px)
            picture = compose(seen, sharp, picture)
        return Prediction(picture.permute(0, 2, 3, 1), None if std is None else std[:, 0], latent)

    def _filled(self, seen: Tensor, sharp: Tensor) -> Tensor:
        return seen if self.network.fills_unseen else fill_unseen(seen, sharp)
