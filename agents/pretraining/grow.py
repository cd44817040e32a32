"""A larger network that begins with what a smaller one knows."""

from __future__ import annotations

import torch

from foveasim.agents.mim.network import MimNetwork
from foveasim.errors import InvalidValueError

__all__ = ["grow"]


def grow(network: MimNetwork, smaller: MimNetwork) -> None:
    """Give a network the weights of a smaller one of its kind, in place.

    The channels of the smaller become the first of the larger. They take nothing from the new ones, so that the larger
    predicts what the smaller did, as long as what only it has (residual blocks, the std) begins as nothing.

    Args:
        network: The larger, or one of the same size.
        smaller: Of the same class.

    Raises:
        InvalidValueError: Another class, or a parameter that the larger has not or has smaller.

    Reference:
        Chen, Goodfellow, Shlens (2016), Net2Net: accelerating learning via knowledge transfer.
    """
    own = dict(network.named_parameters())
    for name, value in smaller.named_parameters():
        new = own.get(name)
        if (
            type(network) is not type(smaller)
            or new is None
            or any(ours < theirs for ours, theirs in zip(new.shape, value.shape, strict=True))
        ):
            raise InvalidValueError(
                f"it is a {smaller.name!r} with {smaller.config}, which is not within {network.name!r} with "
                f"{network.config}."
            )
        with torch.no_grad():
            new[: len(value)] = 0
            new[tuple(slice(side) for side in value.shape)] = value
