"""Several networks that predict together: where they disagree, none of them knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveasim.agents.mim.network import MimNetwork, Output
from foveasim.errors import InvalidValueError

__all__ = ["Ensemble", "EnsembleConfig"]


@dataclass(frozen=True)
class EnsembleConfig:
    """Config of :class:`Ensemble`.

    Attributes:
        members: Names of its networks.
    """

    members: tuple[str, ...]


class Ensemble(MimNetwork):
    """An equal mixture of the Gaussians that several networks predict.

    Its image is the mean of theirs, its variance the mean of theirs plus the variance of their images: what the
    networks cannot know and what they have not learned. Networks without a standard deviation make one together, of
    their disagreement alone. The latent is that of the first. It is no file: save its networks, each by itself.

    Args:
        networks: At least two.

    Raises:
        InvalidValueError: Fewer.

    Reference:
        Lakshminarayanan, Pritzel, Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
        ensembles, section 2.4.
    """

    config_type = EnsembleConfig
    name = "ensemble"

    def __init__(self, networks: Sequence[MimNetwork]) -> None:
        if len(networks) < 2:
            raise InvalidValueError(f"networks must be at least two; got {len(networks)}.")
        super().__init__(EnsembleConfig(tuple(network.name for network in networks)))
        self.networks = nn.ModuleList(networks)
        self.reads_acuity = any(network.reads_acuity for network in networks)

    @property
    def predicts_std(self) -> bool:
        """Whether it predicts a standard deviation: always."""
        return True

    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        """Predict the whole scene; see :meth:`MimNetwork.forward`."""
        outputs = [Output(*network(image, acuity)) for network in self.networks]
        images = torch.stack([output.image for output in outputs])
        variance = images.var(0, correction=0).mean(1, keepdim=True).float()
        own = [output.std.square() for output in outputs if output.std is not None]
        if len(own) == len(outputs):
            variance = variance + torch.stack(own).mean(0)
        return Output(images.mean(0), outputs[0].latent, torch.where(acuity < 1, variance.sqrt(), 0.0))
