"""What draws people's gaze, as far as it follows from what an eye has seen so far.

A belief, shrunk to a short side of 144 px, goes through a frozen network that knows pictures in general
(:mod:`foveasim.agents.scanpath_model.backbone`). A small one on top of it, which people's fixations taught, makes of
its maps two numbers for each cell of a grid of 24 along the short side: how much more likely people look there than
their centre bias says, among their first two fixations and among the later ones, as log probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim.agents.scanpath_model.backbone import LEVELS, Backbone, backbone_inputs

__all__ = ["EARLY", "SalienceHead", "SalienceNetwork"]

EARLY = 2
"""Fixations of a scanpath that the first of the two maps is for."""

_WIDTH, _LAST = 48, 32


class SalienceHead(nn.Module):
    """Two maps of log salience from the levels of a backbone: 27,000 parameters.

    Attributes:
        mean: (C,) float32 of all channels in their order, over training pictures.
        spread: (C,) float32, their standard deviation.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(sum(LEVELS)))
        self.register_buffer("spread", torch.ones(sum(LEVELS)))
        self.enter = nn.ModuleList([nn.Conv2d(channels, _WIDTH, 1) for channels in LEVELS])
        self.sharp = nn.Conv2d(1, _WIDTH, 1)
        self.around = nn.Conv2d(_WIDTH, _LAST, 3, padding=1)
        self.leave = nn.Conv2d(_LAST, 2, 1)
        self.drop = nn.Dropout2d(0.3)
        self.drop_late = nn.Dropout2d(0.2)

    def forward(self, levels: Sequence[Tensor], acuity: Tensor) -> Tensor:
        """Return log salience, early and late, (B, 2, rows, columns).

        Args:
            levels: (B, C, h, w) float32 for the C of ``LEVELS``.
            acuity: (B, 1, rows, columns) float32 in [0, 1], of the cells.
        """
        total = self.sharp(acuity)
        places = torch.tensor([0, *LEVELS]).cumsum(0).tolist()
        for place, (maps, convolution) in enumerate(zip(levels, self.enter, strict=True)):
            part = slice(places[place], places[place + 1])
            scaled = (maps - self.mean[part, None, None]) / self.spread[part, None, None]
            narrow = convolution(self.drop(scaled))
            total = total + F.interpolate(narrow, acuity.shape[2:], mode="bilinear", align_corners=False)
        found: Tensor = self.leave(torch.relu(self.around(self.drop_late(torch.relu(total)))))
        return found


class SalienceNetwork(nn.Module):
    """The backbone and the head on it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = SalienceHead()

    def levels(self, image: Tensor, acuity: Tensor, grid: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        """Return what the head works on: maps at several scales, and the acuity of each cell, (B, 1, rows, columns).

        Args:
            image: (B, H, W, 3) uint8.
            acuity: (B, H, W) uint8.
            grid: (rows, columns).
        """
        pixels, sharp = backbone_inputs(image, acuity)
        return self.backbone(pixels), F.adaptive_avg_pool2d(sharp, grid)

    def forward(self, image: Tensor, acuity: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return log salience, early and late, (B, 2, rows, columns); see :meth:`levels`."""
        found: Tensor = self.head(*self.levels(image, acuity, grid))
        return found
