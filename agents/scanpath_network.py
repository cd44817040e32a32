"""What draws people's gaze, as far as a small network can tell from what an eye has seen so far.

A belief is shrunk to a short side of 96 px and turned into nine maps at half of that: colour, acuity, contrasts and the
spectral residual. Three levels of convolutions make of them one number for each cell of a grid of 24 along the short
side: how much more likely people look there than their centre bias says, as a log probability.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["INPUTS", "SalienceNetwork", "salience_inputs"]

INPUTS = 9
"""Maps: red, green, blue, acuity, fine and coarse luminance contrast, red-green, blue-yellow, spectral residual."""


class SalienceNetwork(nn.Module):
    """Three levels of 3 x 3 convolutions, joined on the finest: 97,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(INPUTS, 32, 5, stride=2, padding=2)
        self.fine = nn.Conv2d(32, 32, 3, padding=1)
        self.middle = nn.ModuleList([nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)])
        self.coarse = nn.ModuleList([nn.Conv2d(48, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)])
        self.join = nn.Conv2d(32 + 48 + 48, 32, 1)
        self.leave = nn.Conv2d(32, 1, 1)
        self.drop = nn.Dropout2d(0.15)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return log salience (B, rows, columns) from maps (B, 9, 2 rows, 2 columns), of (B, H, W) images."""
        levels = [torch.relu(self.fine(torch.relu(self.enter(inputs))))]
        for convolutions in (self.middle, self.coarse):
            maps = F.avg_pool2d(levels[-1], 2, ceil_mode=True)
            for convolution in convolutions:
                maps = torch.relu(convolution(maps))
            levels.append(maps)
        size = levels[0].shape[-2:]
        wide = [levels[0], *(F.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in levels[1:])]
        found: Tensor = self.leave(torch.relu(self.join(self.drop(torch.cat(wide, 1)))))
        return found[:, 0]


def salience_inputs(image: Tensor, acuity: Tensor) -> Tensor:
    """Return what the network sees of a picture.

    Args:
        image: (B, H, W, 3) uint8, about 96 px on the short side.
        acuity: (B, H, W) uint8, 0 where nothing is known; there the mean of what is known stands.

    Returns:
        (B, 9, h, w) float32, half as large, about -1 to 1.
    """
    known = acuity[:, None].float() / 255
    rgb = image.permute(0, 3, 1, 2).float() / 255
    seen = (known > 0).float()
    mean = (rgb * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp_min(1)
    rgb = torch.where(known > 0, rgb, mean)
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    opponent = torch.cat((rgb.mean(1, keepdim=True), red - green, blue - (red + green) / 2), 1)
    small = F.avg_pool2d(opponent, 2)
    wide = _spread(small, 5)
    fine = F.avg_pool2d((opponent[:, :1] - _spread(opponent[:, :1], 3)).abs(), 2)
    contrast = (small - wide).abs()
    return torch.cat(
        (
            2 * F.avg_pool2d(rgb, 2) - 1,
            F.avg_pool2d(known, 2),
            8 * fine,
            4 * contrast,
            _residual(small[:, :1]),
        ),
        1,
    )


def _spread(maps: Tensor, reach: int) -> Tensor:
    return F.avg_pool2d(F.pad(maps, (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)


def _residual(grey: Tensor) -> Tensor:
    """Return the spectral residual, the square root of its energy over the mean (Hou and Zhang 2007)."""
    margin = 8
    padded = F.pad(grey - grey.mean((2, 3), keepdim=True), (margin,) * 4, mode="replicate")
    height, width = padded.shape[-2:]
    padded = padded * _fade(height, margin, grey)[:, None] * _fade(width, margin, grey)
    spectrum = torch.fft.fft2(padded)
    log_amplitude = torch.log(spectrum.abs().clamp_min(1e-4))
    average = F.avg_pool2d(F.pad(log_amplitude, (1, 1, 1, 1), mode="circular"), 3, 1)
    energy = torch.fft.ifft2(torch.polar(torch.exp(log_amplitude - average), spectrum.angle())).abs().square()
    smooth = _spread(_spread(energy, 2), 2)[..., margin:-margin, margin:-margin]
    return (smooth / smooth.mean((2, 3), keepdim=True).clamp_min(1e-12)).sqrt().clamp_max(4) / 2 - 0.5


def _fade(extent: int, margin: int, like: Tensor) -> Tensor:
    ramp = torch.arange(extent, device=like.device, dtype=like.dtype)
    return (torch.minimum(ramp + 1, extent - ramp) / (margin + 1)).clamp_max(1)
