"""The paper's convolutional autoencoder.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), Masked Image Modeling as a Framework for Self-Supervised Learning
    across Eye Movements, arXiv:2404.08526.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim.agents.mim.network import MimNetwork, Output, check_input, margin
from foveasim.errors import InvalidValueError

__all__ = ["PaperConfig", "PaperNetwork"]


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


# The backward pass of a 1x1 convolution with a stride from, and of a transposed one to, fewer than 16 channels-last
# channels writes outside its buffers (torch 2.13, CPU, float32), and a 1x1 kernel counts as channels-last or not by
# strides that .contiguous() leaves alone. The skips therefore convolve without a stride: the encoder's takes every
# second pixel before, the decoder's puts its pixels on every second one after.


class _Encode(nn.Module):
    """Residual block of two 3x3 convolutions; a strided 1x1 convolution on the skip where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.skip(x[:, :, :: self.stride, :: self.stride]))


class _Decode(nn.Module):
    """Residual block of two 3x3 transposed convolutions; a strided 1x1 one on the skip where the width changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, 3, stride, 1, output_padding=stride - 1)
        self.conv2 = nn.ConvTranspose2d(outputs, outputs, 3, 1, 1)
        self.skip = nn.ConvTranspose2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.conv1(x))
        if self.skip is None:
            return x + self.conv2(y)  # type: ignore[no-any-return]
        # Between the pixels of the skip there is its bias, which joins that of conv2.
        bias = self.conv2.bias + self.skip.bias  # type: ignore[operator]  # bias=True
        y = F.conv_transpose2d(y, self.conv2.weight, bias, 1, 1)
        y[:, :, :: self.stride, :: self.stride] += F.conv_transpose2d(x, self.skip.weight)
        return y


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
        self.reads_acuity = config.in_channels == 4
        down = (config.in_channels, 32, 32, 32, 64, 64, 64, 128, 128, 128)
        up = (128, 128, 128, 64, 64, 64, 32, 32, 32, 3)
        self.encoder = nn.Sequential(*(_Encode(down[i], down[i + 1], 2 if i in (0, 3, 6) else 1) for i in range(9)))
        self.decoder = nn.ModuleList(_Decode(up[i], up[i + 1], 2 if i in (2, 5, 8) else 1) for i in range(9))

    def encode(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the latent, (B, 128, ceil(H / 8), ceil(W / 8)) float, at least 0; see :meth:`MimNetwork.encode`."""
        check_input(image, acuity)
        if self.reads_acuity:
            image = torch.cat((image, acuity), 1)
        return self.encoder(F.pad(image, margin(image, 8), mode="replicate"))  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction of a latent, (B, 3, 8 h, 8 w) float in [0, 1]."""
        *blocks, last = self.decoder
        for block in blocks:
            latent = F.relu(block(latent))
        return torch.sigmoid(last(latent))

    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        """Predict the whole scene; see :meth:`MimNetwork.forward`. Sides are padded to multiples of 8 inside."""
        latent = self.encode(image, acuity)
        return Output(self.decode(latent)[:, :, : image.shape[2], : image.shape[3]], latent)
