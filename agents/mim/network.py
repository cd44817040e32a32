"""The networks that predict a scene from what the eye has seen of it.

A network is a frozen dataclass of numbers (its config) and a module built from it, listed in :data:`NETWORKS`. Its door
is :func:`to_float`, the only place where uint8 becomes float:

    reconstruction, latent = network(*to_float(belief.image, belief.acuity))

Convention:
    Networks take (B, C, H, W) float in [0, 1]. A contiguous uint8 (B, H, W, 3) image seen through
    ``permute(0, 3, 1, 2)`` already lies channels-last in memory, so that nothing is copied but the conversion itself.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), Masked Image Modeling as a Framework for Self-Supervised Learning
    across Eye Movements, arXiv:2404.08526 (``paper``). Ronneberger, Fischer, Brox (2015), U-Net; Shi et al. (2016),
    Real-time single image super-resolution using sub-pixel convolution; Zhang, Dauphin, Ma (2019), Fixup (``lean``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.registry import Registry

__all__ = [
    "NETWORKS",
    "LeanConfig",
    "LeanNetwork",
    "MimNetwork",
    "PaperConfig",
    "PaperNetwork",
    "make_network",
    "to_float",
    "visible_mean",
]

LEAST_SIDE_PX = 32
"""Least height and width of an image: two cells of the coarsest grid, stride 16."""


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


class MimNetwork(nn.Module, ABC):
    """Base of the networks: reconstruct a scene from what was seen of it.

    Subclasses set ``config_type``, take a config as their only argument, and implement :meth:`forward`.
    """

    config_type: ClassVar[type[Any]]
    name: ClassVar[str]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the whole scene.

        Args:
            image: (B, 3, H, W) float in [0, 1], H and W at least 32.
            acuity: (B, 1, H, W) float in [0, 1].

        Returns:
            The reconstruction, (B, 3, H, W) float in [0, 1], and the latent, (B, C, h, w) float.

        Raises:
            InvalidValueError: Wrong shapes or a side under 32 px.
        """

    def config_dict(self) -> dict[str, Any]:
        """Return the config as what JSON can hold."""
        return asdict(self.config)


NETWORKS: Registry[MimNetwork] = Registry("network")
"""Every network by name. A class of your own inherits :class:`MimNetwork`."""


def make_network(name: str, **options: object) -> MimNetwork:
    """Build a network with fresh weights.

    Args:
        name: ``lean``, ``paper`` or ``package.module:Class``.
        **options: Fields of its config.

    Raises:
        UnknownNameError: Unknown name.
        InvalidTypeError: A field that its config does not have.

    Example:
        >>> sum(p.numel() for p in make_network("lean").parameters()) < 2_400_000
        True
    """
    cls: Any = NETWORKS.factory(name)
    try:
        config = cls.config_type(**options)
    except TypeError as error:
        fields = ", ".join(cls.config_type.__dataclass_fields__)
        raise InvalidTypeError(f"network {name!r}: {error}. Its config has {fields}.") from error
    network: MimNetwork = cls(config)
    return network


def _check(image: Tensor, acuity: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or acuity.shape != (image.shape[0], 1, *image.shape[2:]):
        raise InvalidValueError(
            "image must be (B, 3, H, W) and acuity (B, 1, H, W); "
            f"got {tuple(image.shape)} and {tuple(acuity.shape)}. to_float() makes both from uint8."
        )
    if not image.is_floating_point():
        raise InvalidTypeError(f"image must be float in [0, 1]; got {image.dtype}. to_float() makes it from uint8.")
    if min(image.shape[2:]) < LEAST_SIDE_PX:
        raise InvalidValueError(f"image must have sides of at least {LEAST_SIDE_PX} px; got {tuple(image.shape[2:])}.")


def _margin(image: Tensor, multiple: int) -> tuple[int, int, int, int]:
    """Padding (left, right, top, bottom) that brings both sides to a multiple."""
    return (0, -image.shape[3] % multiple, 0, -image.shape[2] % multiple)


@dataclass(frozen=True)
class PaperConfig:
    """Config of :class:`PaperNetwork`.

    Attributes:
        in_channels: 3 as published; 4 gives acuity as a fourth channel.
    """

    in_channels: int = 3

    def __post_init__(self) -> None:
        if self.in_channels not in (3, 4):
            raise InvalidValueError(f"in_channels must be 3 (the paper's) or 4 (with acuity); got {self.in_channels}.")


class _Encode(nn.Module):
    """Residual block of two 3x3 convolutions; a 1x1 convolution on the skip where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # The skip takes every second pixel by slicing: the backward pass of a strided 1x1 convolution from 3
        # channels-last channels writes outside its buffers (torch 2.13, CPU).
        kept = x[:, :, :: self.stride, :: self.stride].contiguous() if self.stride > 1 else x
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.skip(kept))


class _Decode(nn.Module):
    """Residual block of two 3x3 transposed convolutions; a strided 1x1 one on the skip where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, 3, stride, 1, output_padding=stride - 1)
        self.conv2 = nn.ConvTranspose2d(outputs, outputs, 3, 1, 1)
        self.skip: nn.Module = (
            nn.ConvTranspose2d(inputs, outputs, 1, stride, output_padding=stride - 1)
            if inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.conv1.out_channels == 3:
            return self._planar(x)
        skip: Tensor = self.skip(x)
        main: Tensor = self.conv2(F.relu(self.conv1(x)))
        return main + skip

    def _planar(self, x: Tensor) -> Tensor:
        """The same with every tensor planar: transposed convolutions to 3 channels-last channels corrupt memory."""

        def planar(layer: nn.ConvTranspose2d, value: Tensor, padding: int) -> Tensor:
            stride = layer.stride[0]
            return F.conv_transpose2d(value, layer.weight.contiguous(), layer.bias, stride, padding, stride - 1)

        x = x.contiguous()
        main = planar(self.conv2, F.relu(planar(self.conv1, x, 1)), 1)
        return main + planar(self.skip, x, 0) if isinstance(self.skip, nn.ConvTranspose2d) else main + x


@NETWORKS.register("paper")
class PaperNetwork(MimNetwork):
    """The paper's convolutional autoencoder: 96x96x3 to 12x12x128 and back.

    The 1x1 convolutions that the authors' code builds but does not use (skips of blocks that keep their width) are
    left out: 1,997,466 parameters here, 2,084,378 there. It reads only the image unless ``in_channels`` is 4, so hidden
    pixels must be filled by the retina.

    Reference:
        Weiler et al. (2024), architecture as in the authors' published code FocusMIM.
    """

    config_type = PaperConfig
    name = "paper"

    def __init__(self, config: PaperConfig | None = None) -> None:
        config = PaperConfig() if config is None else config
        super().__init__(config)
        down = (config.in_channels, 32, 32, 32, 64, 64, 64, 128, 128, 128)
        up = (128, 128, 128, 64, 64, 64, 32, 32, 32, 3)
        self.encoder = nn.Sequential(*(_Encode(down[i], down[i + 1], 2 if i in (0, 3, 6) else 1) for i in range(9)))
        self.decoder = nn.ModuleList(_Decode(up[i], up[i + 1], 2 if i in (2, 5, 8) else 1) for i in range(9))

    def forward(self, image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the whole scene; see :meth:`MimNetwork.forward`. Sides are padded to multiples of 8 inside."""
        _check(image, acuity)
        height, width = image.shape[2:]
        if self.config.in_channels == 4:
            image = torch.cat((image, acuity), 1)
        latent: Tensor = self.encoder(F.pad(image, _margin(image, 8), mode="replicate"))
        x = latent
        for index, block in enumerate(self.decoder):
            x = block(x)
            x = F.relu(x) if index < len(self.decoder) - 1 else torch.sigmoid(x)
        return x[:, :, :height, :width], latent


@dataclass(frozen=True)
class LeanConfig:
    """Config of :class:`LeanNetwork`.

    Attributes:
        widths: Channels at strides 4, 8 and 16.
        blocks: Residual blocks at strides 4, 8 and 16; those at 4 and 8 stand on the way down and again on the way up.
    """

    widths: tuple[int, int, int] = (48, 96, 160)
    blocks: tuple[int, int, int] = (1, 1, 3)

    def __post_init__(self) -> None:
        for name, value, least in (("widths", self.widths, 8), ("blocks", self.blocks, 0)):
            if len(value) != 3 or not all(isinstance(n, int) and n >= least for n in value):
                raise InvalidValueError(f"{name} must be three whole numbers of at least {least}; got {value!r}.")
            object.__setattr__(self, name, tuple(value))  # JSON gives lists


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), the identity at the start of training (Fixup: no normalisation is needed)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]  # bias=True
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))  # type: ignore[no-any-return]


@NETWORKS.register("lean")
class LeanNetwork(MimNetwork):
    """A residual U-Net on a 4-pixel grid, quick enough for a live window.

    The image enters with its hidden pixels (acuity 0) set to the mean colour of what was seen, and that colour
    subtracted, so a hidden pixel is 0 and cannot leak; acuity is the fourth channel. What comes out is weighted by
    1 - acuity, so that sharp pixels stay as they are, and added to the same image: an untrained network answers "the
    mean of what I saw". The latent is the grid at stride 16, before decoding.
    """

    config_type = LeanConfig
    name = "lean"

    def __init__(self, config: LeanConfig | None = None) -> None:
        config = LeanConfig() if config is None else config
        super().__init__(config)
        (c4, c8, c16), (n4, n8, n16) = config.widths, config.blocks

        def stage(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(_Residual(width) for _ in range(count)))

        self.stem = nn.Conv2d(4 * 16, c4, 1)
        self.down4, self.down8 = stage(c4, n4), stage(c8, n8)
        self.to8, self.to16 = nn.Conv2d(4 * c4, c8, 1), nn.Conv2d(4 * c8, c16, 1)
        self.middle = stage(c16, n16)
        self.from16, self.from8 = nn.Conv2d(c16, 4 * c8, 1), nn.Conv2d(c8, 4 * c4, 1)
        self.up8, self.up4 = stage(c8, n8), stage(c4, n4)
        self.head = nn.Conv2d(c4, 3 * 16, 3, 1, 1)  # 3x3: with 1x1 the borders of the 4 px cells show
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # bias=True

    def forward(self, image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the whole scene; see :meth:`MimNetwork.forward`. Sides are padded to multiples of 16 inside."""
        _check(image, acuity)
        height, width = image.shape[2:]
        mean = visible_mean(image, acuity)
        base = torch.where(acuity > 0, image, mean)
        seen = F.pad(torch.cat((base - mean, acuity), 1), _margin(image, 16))  # the margin is hidden, too
        at4 = self.down4(self.stem(F.pixel_unshuffle(seen, 4)))
        at8 = self.down8(self.to8(F.pixel_unshuffle(at4, 2)))
        latent: Tensor = self.middle(self.to16(F.pixel_unshuffle(at8, 2)))
        x = self.up8(at8 + F.pixel_shuffle(self.from16(F.relu(latent)), 2))
        x = self.up4(at4 + F.pixel_shuffle(self.from8(F.relu(x)), 2))
        residual = F.pixel_shuffle(self.head(F.relu(x)), 4)[:, :, :height, :width]
        # Without the factor an unasked-for residual of 0.05 (rms) falls on sharp pixels, where the loss has no weight.
        return (base + (1 - acuity) * residual.to(base.dtype)).clamp(0, 1), latent
