"""The networks that predict a scene from what the eye has seen of it: what all have in common.

A network is a frozen dataclass of numbers (its config) and a module built from it, in a file of its own, and one line
in :data:`NETWORKS`. Its door is :func:`to_float`, the only place where uint8 becomes float:

    image, acuity = to_float(belief.image, belief.acuity)
    reconstruction, latent, std = network(fill_unseen(image, acuity), acuity)

Convention:
    Networks take (B, C, H, W) float in [0, 1]. A contiguous uint8 (B, H, W, 3) image seen through
    ``permute(0, 3, 1, 2)`` already lies channels-last in memory, so that nothing is copied but the conversion itself.
    A pixel that was not seen has the colour that the retina fills it with, or that of :func:`fill_unseen`, never that
    of an empty belief: a network that reads only the image could not distinguish it from a thing of that colour.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.registry import Registry

__all__ = [
    "MIN_SIDE_PX",
    "NETWORKS",
    "MimNetwork",
    "Output",
    "check_input",
    "fill_unseen",
    "make_network",
    "margin",
    "to_float",
    "visible_mean",
]

MIN_SIDE_PX = 32
"""Smallest height and width of an image: two cells of the coarsest grid, stride 16."""


def to_float(image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor]:
    """Turn what the eye has seen into what a network takes.

    Args:
        image: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8.

    Returns:
        (B, 3, H, W) float32 in [0, 1], channels-last in memory, and (B, 1, H, W) float32 in [0, 1].

    Raises:
        InvalidTypeError: Not uint8.
        InvalidValueError: Shapes that do not belong together.
    """
    for name, value in (("image", image), ("acuity", acuity)):
        if value.dtype != torch.uint8:
            raise InvalidTypeError(f"{name} must be uint8, 0-255; got {value.dtype}. Floats go to the network itself.")
    if image.ndim != 4 or image.shape[-1] != 3 or acuity.shape != image.shape[:3]:
        raise InvalidValueError(
            f"image must be (B, H, W, 3) and acuity (B, H, W); got {tuple(image.shape)} and {tuple(acuity.shape)}."
        )
    return image.permute(0, 3, 1, 2).float() / 255, acuity[:, None].float() / 255


def visible_mean(image: Tensor, acuity: Tensor) -> Tensor:
    """Return the mean colour of what was seen, weighted by acuity.

    Args:
        image: (B, 3, H, W) float.
        acuity: (B, 1, H, W) float in [0, 1]; pixels of acuity 0 have no influence.

    Returns:
        (B, 3, 1, 1) float; mid-grey 0.5 where nothing was seen.
    """
    seen = acuity.sum((2, 3), keepdim=True)
    mean = torch.where(acuity > 0, image * acuity, 0.0).sum((2, 3), keepdim=True) / seen.clamp(min=1e-6)
    return torch.where(seen > 0, mean, 0.5)


def fill_unseen(image: Tensor, acuity: Tensor) -> Tensor:
    """Give every pixel that was not seen the mean colour of what was, see :func:`visible_mean`.

    Args:
        image: (B, 3, H, W) float.
        acuity: (B, 1, H, W) float in [0, 1].

    Returns:
        (B, 3, H, W) float: the image where acuity is above 0, elsewhere the mean.

    Example:
        >>> fill_unseen(torch.tensor([0.2, 0.9]).expand(1, 3, 1, 2), torch.tensor([[[[1.0, 0.0]]]]))[0, 0]
        tensor([[0.2000, 0.2000]])
    """
    return torch.where(acuity > 0, image, visible_mean(image, acuity))


def check_input(image: Tensor, acuity: Tensor) -> None:
    """Refuse what no network takes.

    Raises:
        InvalidTypeError: The image is not float.
        InvalidValueError: Wrong shapes or a side under 32 px.
    """
    if image.ndim != 4 or image.shape[1] != 3 or acuity.shape != (image.shape[0], 1, *image.shape[2:]):
        raise InvalidValueError(
            "image must be (B, 3, H, W) and acuity (B, 1, H, W); "
            f"got {tuple(image.shape)} and {tuple(acuity.shape)}. to_float() makes both from uint8."
        )
    if not image.is_floating_point():
        raise InvalidTypeError(f"image must be float in [0, 1]; got {image.dtype}. to_float() makes it from uint8.")
    if min(image.shape[2:]) < MIN_SIDE_PX:
        raise InvalidValueError(f"image must have sides of at least {MIN_SIDE_PX} px; got {tuple(image.shape[2:])}.")


def margin(image: Tensor, multiple: int) -> tuple[int, int, int, int]:
    """Return the padding (left, right, top, bottom) of a (B, C, H, W) image that brings both sides to a multiple.

    Example:
        >>> margin(torch.zeros(1, 3, 33, 48), 8)
        (0, 0, 0, 7)
    """
    return (0, -image.shape[3] % multiple, 0, -image.shape[2] % multiple)


class Output(NamedTuple):
    """What a network makes of what was seen.

    Attributes:
        image: (B, 3, H, W) float in [0, 1], the reconstruction.
        latent: (B, C, h, w) float.
        std: (B, 1, H, W) float32, the standard deviation that the network expects of its error in each channel, 0 where
            acuity is 1; None where it predicts none.
    """

    image: Tensor
    latent: Tensor
    std: Tensor | None = None


class MimNetwork(nn.Module, ABC):
    """Base of the networks: reconstruct a scene from what was seen of it.

    Subclasses set ``config_type`` and ``name``, take a config as their only argument, implement :meth:`forward`, and
    :meth:`encode` where the latent can be had for less.

    Attributes:
        config: Its config.
        reads_acuity: Whether what it predicts depends on acuity, or only on the image.
        fills_unseen: Whether it does the work of :func:`fill_unseen` itself.
    """

    config_type: ClassVar[type[Any]]
    name: ClassVar[str]
    reads_acuity: bool = True
    fills_unseen: ClassVar[bool] = False

    @property
    def predicts_std(self) -> bool:
        """Whether it predicts a standard deviation."""
        return False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def __repr__(self) -> str:
        """Say its name and size; ``torch.nn.Module.__repr__(network)`` lists its layers."""
        size = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({self.name!r}, {size:,} parameters)"

    def encode(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the latent alone, in networks that override this without the cost of decoding it.

        Args:
            image: (B, 3, H, W) float in [0, 1], H and W at least 32.
            acuity: (B, 1, H, W) float in [0, 1].

        Returns:
            (B, C, h, w) float, the same as :meth:`forward` returns.

        Raises:
            InvalidValueError: Wrong shapes or a side under 32 px.
        """
        return self(image, acuity)[1]  # type: ignore[no-any-return]

    @abstractmethod
    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        """Predict the whole scene.

        Args:
            image: (B, 3, H, W) float in [0, 1], H and W at least 32.
            acuity: (B, 1, H, W) float in [0, 1].

        Returns:
            The reconstruction, the latent and, in networks that predict it, the standard deviation.

        Raises:
            InvalidValueError: Wrong shapes or a side under 32 px.
        """

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of the latent of an image of a size (H, W), px, by encoding a black one.

        Raises:
            InvalidValueError: A side under 32 px.
        """
        parameter = next(self.parameters())
        black = torch.zeros(1, 4, *size, dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad():
            _, channels, height, width = self.encode(black[:, :3], black[:, 3:]).shape
        return channels, height, width

    def config_dict(self) -> dict[str, Any]:
        """Return the config as what JSON can hold."""
        return asdict(self.config)


NETWORKS: Registry[MimNetwork] = Registry("network")
"""Every network by name. A class of your own inherits :class:`MimNetwork`."""
NETWORKS.add("paper", "foveasim.agents.mim.networks.paper:PaperNetwork")
NETWORKS.add("lean", "foveasim.agents.mim.networks.lean:LeanNetwork")
NETWORKS.add("unet", "foveasim.agents.mim.networks.unet:UNetNetwork")
NETWORKS.add("vit", "foveasim.agents.mim.networks.vit:ViTNetwork")


def make_network(name: str, /, **options: object) -> MimNetwork:
    """Build a network with fresh weights.

    Args:
        name: A name of ``NETWORKS`` or ``package.module:Class``.
        **options: Fields of its config.

    Raises:
        UnknownNameError: Unknown name.
        InvalidTypeError: A field that its config does not have.

    Example:
        >>> make_network("unet").latent_shape((96, 96))
        (160, 6, 6)
    """
    cls: Any = NETWORKS.factory(name)
    try:
        config = cls.config_type(**options)
    except TypeError as error:
        fields = ", ".join(cls.config_type.__dataclass_fields__)
        raise InvalidTypeError(f"network {name!r}: {error}. Its config has {fields}.") from error
    network: MimNetwork = cls(config)
    return network
