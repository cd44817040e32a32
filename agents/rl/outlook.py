"""What a frozen network makes of what eyes have seen: computed once a step, for rewards and for what a policy sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.imagine import Predictor
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.predictive_gain import Seen, at_working_size, gain_map, measure_footprint
from foveasim.errors import AgentError, InvalidValueError

__all__ = ["PRECISIONS", "Foresight", "Outlook", "belief_of"]

PRECISIONS = ("float32", "bfloat16")

_AT_ONCE = {"cpu": 64}  # pictures at a time: more make it no quicker on a core (2.8 ms each for 16 as for 64)
_AT_ONCE_ELSEWHERE = 1024


@dataclass(frozen=True, eq=False)
class Outlook:
    """What B eyes know and what they expect, at the size at which agents think (96 px along the short side at most).

    Attributes:
        seen: Belief, its acuity, the present glimpse's acuity, fixation.
        image: (B, H, W, 3) float32 in [0, 1], the predicted scene, what was seen sharply in it.
        variance: (B, H, W) float32, of the prediction's error in a colour, 0 where it was seen sharply.
        latent: (B, C, h, w) float32, or None where a predictor has none.
        time: (B, 1) float32, what is left of the budget.
    """

    seen: Seen
    image: Tensor
    variance: Tensor
    latent: Tensor | None
    time: Tensor

    @cached_property
    def footprint(self) -> Tensor:
        """What a glimpse shows by the distance from its fixation, (B, H, W) float32."""
        return measure_footprint(self.seen.glimpse_acuity, self.seen.fixation)

    @cached_property
    def gain(self) -> Tensor:
        """The variance that a glimpse would remove, summed over the scene, (B, rows, columns) float32.

        See :func:`foveasim.agents.predictive_gain.gain_map`.
        """
        return gain_map(self.variance, self.seen.acuity, self.footprint)

    def lanes(self, which: Tensor | slice) -> Self:
        """Return some of the lanes, or all in another order."""
        seen = Seen(*(getattr(self.seen, name)[which] for name in ("belief", "acuity", "glimpse_acuity", "fixation")))
        latent = None if self.latent is None else self.latent[which]
        return type(self)(seen, self.image[which], self.variance[which], latent, self.time[which])


class Foresight:
    """Looks ahead from observations with a frozen network.

    Args:
        network: A network that tells how sure it is, the name of a shipped one, or a ``.safetensors`` file.
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
            self.imaginer = Predictor(network, device)
        if not self.imaginer.network.predicts_std:
            raise AgentError(
                f"the network {self.imaginer.name!r} does not tell how sure it is, which a gaze policy goes by. "
                "Use one that does, such as the shipped network='unet'."
            )
        self.imaginer.network.requires_grad_(False)
        self.device, self.precision = self.imaginer.device, precision
        self._last: tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def look(self, observation: Mapping[str, Any]) -> Outlook:
        """Predict what is behind an observation.

        Args:
            observation: ``belief``, ``belief_acuity``, ``acuity``, ``fixation`` and ``time``, arrays or tensors.
        """
        seen = belief_of(observation, self.device)
        image, std, latent = self.predict(seen.belief, seen.acuity)
        time = torch.as_tensor(observation["time"]).to(self.device, torch.float32)
        return Outlook(seen, image, std.square(), latent, time)

    def predict(self, belief: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict scenes from beliefs (B, H, W, 3) and (B, H, W), uint8, on the device.

        The last answer is kept: who is asked the same again, by an env's readout and then by an agent, has it at once.

        Returns:
            Image (B, H, W, 3), standard deviation (B, H, W) and latent (B, C, h, w), all float32; not to be written to.
        """
        last = self._last
        if last is not None and torch.equal(last[0], belief) and torch.equal(last[1], acuity):
            return last[2]
        many = _AT_ONCE.get(self.device.type, _AT_ONCE_ELSEWHERE)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            chunks = zip(torch.split(belief, many), torch.split(acuity, many), strict=True)
            parts = [self.imaginer.predict(*chunk) for chunk in chunks]
        image = torch.cat([part.image.float() for part in parts])
        std = torch.cat([part.std.float() for part in parts if part.std is not None])
        latent = torch.cat([part.latent.float() for part in parts if part.latent is not None])
        self._last = belief.clone(), acuity.clone(), (image, std, latent)
        return image, std, latent


def belief_of(observation: Mapping[str, Any], device: torch.device) -> Seen:
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
