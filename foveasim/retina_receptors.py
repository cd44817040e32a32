"""Retinas with a geometry of their own: grids of receptors, each of which averages a box of the scene.

Averages come from a summed-area table (Crow 1984), so a receptor of any size costs four look-ups, its box filter keeps
it from aliasing, and it depends on no pixel outside its box. What the receptors report is ``Glimpse.patch``; ``Glimpse.image``
shows it back in the scene, each pixel by the receptor that covers it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from foveasim import check, geometry
from foveasim.retina import Prepared, Retina
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

__all__ = ["LogPolar", "Multiscale", "Receptors", "Window"]

_OUTSIDE = 127  # grey level that a receptor beyond the scene's edge reports


def _box_means(table: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """Average boxes of the scene.

    Args:
        table: (B, H + 1, W + 1, 3) int32, summed areas.
        left: (B, N) int64, first column of each box; the others alike, ``right`` and ``bottom`` exclusive. What lies
            beyond the scene's edge does not count.

    Returns:
        (B, N, 3) uint8; mid-grey where no pixel of the box is in the scene.
    """
    lanes, height, width = len(table), table.shape[1] - 1, table.shape[2] - 1
    left, right = left.clamp(0, width), right.clamp(0, width)
    top, bottom = top.clamp(0, height), bottom.clamp(0, height)
    lane = torch.arange(lanes, device=table.device)[:, None]
    total = table[lane, bottom, right] - table[lane, top, right] - table[lane, bottom, left] + table[lane, top, left]
    area = ((right - left).clamp_min(0) * (bottom - top).clamp_min(0))[..., None]
    mean = (2 * total + area) // (2 * area).clamp_min(1)
    return torch.where(area > 0, mean, _OUTSIDE).to(torch.uint8)


@dataclass(frozen=True)
class Receptors(Retina):
    """Base of the retinas that are grids of receptors."""

    @property
    def zoomable(self) -> bool:
        """Whether ``sense`` takes a zoom: it does."""
        return True

    def prepare(self, scene: Scene) -> Prepared:
        """Sum areas."""
        table = torch.nn.functional.pad(scene.image.to(torch.int32), (0, 0, 1, 0, 1, 0))
        return Prepared(scene.image, scene.px_per_deg, (table.cumsum(1).cumsum(2, dtype=torch.int32),))

    @abstractmethod
    def view(self, prepared: Prepared, gaze: Tensor, zoom: Tensor) -> Glimpse:
        """Read the receptors and show them back in the scene; (B, 2) int64 pixels and (B,) zooms."""

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Read the receptors and show them back in the scene."""
        if zoom is None:
            zoom = torch.ones(len(fixation_px), device=fixation_px.device)
        return self.view(prepared, geometry.pixel_index(fixation_px, prepared.size), zoom)


@dataclass(frozen=True)
class Window(Receptors):
    """A square crop around the fixation, seen through a grid of receptors; everything else is hidden.

    Attributes:
        size_deg: Side of the crop in degrees; None takes one scene pixel for each receptor.
        patch_px: Receptors along a side.
        scales: Crops, each twice as wide as the one before.

    Reference:
        Mnih et al. (2014), Recurrent models of visual attention, section 3.1 (for more than one scale).
    """

    name: ClassVar[str] = "window"

    size_deg: float | None = 9.0
    patch_px: int = 32
    scales: int = 1

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An option out of range.
        """
        if self.size_deg is not None:
            check.number("size_deg", self.size_deg, 0, open_low=True)
        check.number("patch_px", self.patch_px, 1, 1024)
        check.number("scales", self.scales, 1, 8)

    def scaled(self, factor: float) -> Self:
        """Return this retina with its crops made wider by a factor; a crop in pixels gets more receptors."""
        check.number("factor", factor, 0, open_low=True)
        if self.size_deg is None:
            return replace(self, patch_px=max(round(self.patch_px * factor), 1))
        return replace(self, size_deg=self.size_deg * factor)

    def view(self, prepared: Prepared, gaze: Tensor, zoom: Tensor) -> Glimpse:
        """Read the crops, finest first, and show the finest that covers each pixel."""
        lanes, height, width, _ = prepared.image.shape
        side = self.patch_px
        device = gaze.device
        pitch = zoom if self.size_deg is None else prepared.px_per_deg * self.size_deg / side * zoom
        edge = torch.arange(side + 1, device=device, dtype=torch.float32)
        patches = []
        image = torch.zeros_like(prepared.image)
        acuity = torch.zeros(lanes, height, width, dtype=torch.uint8, device=device)
        lane = torch.arange(lanes, device=device)[:, None, None]
        for scale in range(self.scales):
            step = pitch * 2**scale
            # A grid of an even number of receptors has its centre between two of them, on the fixated pixel's corner.
            start = gaze - (step[:, None] * (side / 2)).floor().to(torch.int64)
            bound = (edge * step[:, None]).floor().to(torch.int64)
            first, last = bound[:, :-1], torch.maximum(bound[:, 1:], bound[:, :-1] + 1)
            left, right = start[:, :1] + first, start[:, :1] + last
            top, bottom = start[:, 1:] + first, start[:, 1:] + last
            grid = (lanes, side, side)
            patch = _box_means(
                prepared.parts[0],
                left[:, None].expand(grid).flatten(1),
                top[:, :, None].expand(grid).flatten(1),
                right[:, None].expand(grid).flatten(1),
                bottom[:, :, None].expand(grid).flatten(1),
            ).view(*grid, 3)
            patches.append(patch)
            column = _covering(torch.arange(width, device=device)[None] - start[:, :1], bound)
            row = _covering(torch.arange(height, device=device)[None] - start[:, 1:], bound)
            inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None]
            new = inside & (acuity == 0)
            shown = patch[lane, row.clamp(0, side - 1)[:, :, None], column.clamp(0, side - 1)[:, None]]
            image = torch.where(new[..., None], shown, image)
            detail = (255 / step.clamp_min(1)).round().clamp_min(1).to(torch.uint8)
            acuity = torch.where(new, detail[:, None, None], acuity)
        return Glimpse(_fill_hidden(image, acuity), acuity, torch.stack(patches, 1))


def _covering(offset: Tensor, bound: Tensor) -> Tensor:
    """Return which receptor of a row covers each offset: (B, N) int64, -1 before the first, ``side`` after the last."""
    return torch.searchsorted(bound.contiguous(), offset.contiguous(), right=True) - 1


def _fill_hidden(image: Tensor, acuity: Tensor) -> Tensor:
    """Fill what is hidden with the mean colour of what is seen."""
    seen = (acuity > 0)[..., None]
    count = seen.sum((1, 2))
    total = torch.where(seen, image, 0).sum((1, 2), dtype=torch.int64)
    mean = torch.where(count > 0, (2 * total + count) // (2 * count).clamp_min(1), _OUTSIDE).to(torch.uint8)
    return torch.where(seen, image, mean[:, None, None])


@dataclass(frozen=True)
class Multiscale(Window):
    """Concentric crops at doubling scales, all with the same number of receptors: the recurrent attention model's glimpse.

    Attributes:
        size_deg: Side of the finest crop in degrees; None takes one scene pixel for each receptor.
        patch_px: Receptors along a side, at every scale.
        scales: Number of crops.

    Reference:
        Mnih et al. (2014), Recurrent models of visual attention, section 3.1.
    """

    name: ClassVar[str] = "multiscale"

    size_deg: float | None = 3.5
    patch_px: int = 12
    scales: int = 4


@dataclass(frozen=True)
class LogPolar(Receptors):
    """The cortical image: receptors on rings and wedges whose size grows with eccentricity.

    Position in the cortex follows w = log(z + a): the ring at eccentricity e is log(1 + e / a).

    Attributes:
        rings: Receptors from the fovea to the farthest corner of the scene.
        wedges: Receptors around.
        fovea_deg: a, the eccentricity below which magnification hardly changes, degrees.

    Reference:
        Schwartz (1980), Computational anatomy and functional architecture of striate cortex, equation 1 (monopole).
    """

    name: ClassVar[str] = "log_polar"

    rings: int = 32
    wedges: int = 64
    fovea_deg: float = 1.0

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An option out of range.
        """
        check.number("rings", self.rings, 2, 1024)
        check.number("wedges", self.wedges, 4, 4096)
        check.number("fovea_deg", self.fovea_deg, 0, open_low=True)

    def scaled(self, factor: float) -> Self:
        """Return this retina with its fovea made wider by a factor."""
        check.number("factor", factor, 0, open_low=True)
        return replace(self, fovea_deg=self.fovea_deg * factor)

    def view(self, prepared: Prepared, gaze: Tensor, zoom: Tensor) -> Glimpse:
        """Read rings and wedges; patch is (B, 1, rings, wedges, 3), the fovea first, wedges clockwise from the left."""
        lanes, height, width, _ = prepared.image.shape
        device = gaze.device
        a_px = (self.fovea_deg * prepared.px_per_deg * zoom)[:, None]
        growth = torch.log1p(math.hypot(height, width) / a_px) / self.rings  # (B, 1)
        inner = a_px * torch.expm1(torch.arange(self.rings, device=device) * growth)
        outer = a_px * torch.expm1((torch.arange(self.rings, device=device) + 1) * growth)
        radius = (inner + outer) / 2
        side = torch.sqrt((outer - inner) * (radius * (2 * math.pi / self.wedges))).clamp_min(1)  # (B, rings)
        angle = (torch.arange(self.wedges, device=device) + 0.5) * (2 * math.pi / self.wedges) - math.pi
        x = gaze[:, :1, None] + 0.5 + radius[:, :, None] * torch.cos(angle)
        y = gaze[:, 1:, None] + 0.5 + radius[:, :, None] * torch.sin(angle)
        half = (side / 2)[:, :, None]
        left, top = (x - half + 0.5).floor().to(torch.int64), (y - half + 0.5).floor().to(torch.int64)
        extent = side.round().to(torch.int64)[:, :, None]
        patch = _box_means(
            prepared.parts[0], left.flatten(1), top.flatten(1), (left + extent).flatten(1), (top + extent).flatten(1)
        ).view(lanes, self.rings, self.wedges, 3)
        dx = (torch.arange(width, device=device)[None] - gaze[:, :1])[:, None].to(torch.float32)
        dy = (torch.arange(height, device=device)[None] - gaze[:, 1:])[:, :, None].to(torch.float32)
        ring = (torch.log1p(torch.hypot(dx, dy) / a_px[..., None]) / growth[..., None]).floor().to(torch.int64)
        ring = ring.clamp_max(self.rings - 1)
        wedge = ((torch.atan2(dy, dx) + math.pi) * (self.wedges / (2 * math.pi))).floor().to(torch.int64)
        wedge = wedge % self.wedges
        lane = torch.arange(lanes, device=device)[:, None, None]
        detail = (255 / side).round().clamp_min(1).to(torch.uint8)
        return Glimpse(patch[lane, ring, wedge], detail[lane, ring], patch[:, None])
