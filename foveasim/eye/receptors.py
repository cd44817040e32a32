"""Retinas with a geometry of their own: grids of receptors, each of which averages the pixels that it covers.

Averaging keeps them from aliasing, and a receptor depends on no pixel beyond its own. What the receptors report is
``Glimpse.patch``; ``Glimpse.image`` shows it back in the scene, each pixel by the receptor that covers it.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.eye.acuity_tables import AcuityTables, signed_offset_index
from foveasim.eye.retina import Prepared, Retina, as_glimpse, fresh_arrays
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

__all__ = ["LogPolar", "Multiscale", "Receptors", "Window"]

_OUTSIDE = 127  # grey level that a receptor beyond the scene's edge reports
_WHOLE = 1e-6  # a pitch of a whole number of pixels stays one in spite of rounding


def _detail(side_px: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the acuity of receptors by their sides in px."""
    return np.clip(np.round(255 / np.maximum(side_px, 1)), 1, 255).astype(np.uint8)


def _sum_areas(image: Tensor) -> Tensor:
    """Return the summed areas of (B, H, W, 3) uint8, modulo 2**32: (B, H + 1, W + 1, 3) int32."""
    lanes, height, width, _ = image.shape
    if image.device.type == "cpu":
        from foveasim.eye.kernels.masks import sum_areas

        sums = np.empty((lanes, height + 1, 3 * (width + 1)), np.int32)
        sum_areas(image.contiguous().view(lanes, height, -1).numpy(), sums)
        return torch.from_numpy(sums.reshape(lanes, height + 1, width + 1, 3))
    rows = image.to(torch.int32).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    return torch.nn.functional.pad(rows, (0, 0, 1, 0, 1, 0)).contiguous()


def _index_type(count: int) -> type[np.int16 | np.int32]:
    return np.int16 if count <= np.iinfo(np.int16).max else np.int32


@dataclass(frozen=True)
class Receptors(Retina):
    """Base of the retinas that are grids of receptors. A subclass says where they lie around the fixated pixel."""

    @property
    def zoomable(self) -> bool:
        """Whether ``sense`` takes a zoom: it does."""
        return True

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(S, h, w) of ``Glimpse.patch``."""

    @abstractmethod
    def receptors(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        """Lay out the receptors.

        Args:
            size: (H, W) of the scene.
            px_per_deg: Pixels for one degree.
            zoom: How far the retina is stretched.

        Returns:
            places: (N, ...) int32: where each receptor reads, for :meth:`read` and :meth:`read_torch`.
            covering: (2 H - 1, 2 W - 1) int16 or int32: by offset from the fixated pixel, the receptor shown, or -1.
            acuity: (2 H - 1, 2 W - 1) uint8, 0 where ``covering`` is -1.
        """

    @abstractmethod
    def read(self, prepared: Prepared, fixation_px: NDArray[np.float32], table: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return what the receptors report, (B, 3 N) uint8, on the CPU; 127 where they are outside of the scene."""

    @abstractmethod
    def read_torch(self, prepared: Prepared, gaze: Tensor, table: Tensor) -> Tensor:
        """Return what the receptors report, (B, N, 3) uint8, by (B, 2) int64 fixated pixels."""

    @functools.cached_property
    def _acuity_tables(self) -> AcuityTables:
        return AcuityTables(self.receptors)

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Read the receptors and show them back in the scene."""
        table = prepared.by_lane(prepared.parts[0])
        if zoom is not None:
            table = self._acuity_tables.lookup(prepared.size, prepared.px_per_deg, zoom)
        if prepared.image.device.type == "cpu":
            return self._sense_kernel(prepared, fixation_px, table)
        return self._sense_torch(prepared, fixation_px, table)

    def _sense_kernel(self, prepared: Prepared, fixation_px: Tensor, table: Tensor) -> Glimpse:
        from foveasim.eye.kernels.sense import show_receptors

        size, gaze, tables = prepared.size, fixation_px.contiguous().numpy(), table.numpy()
        _, covering, acuities = self._acuity_tables.arrays(size)
        image, acuity = fresh_arrays(len(gaze), size)
        patch = self.read(prepared, gaze, tables)
        show_receptors(gaze, tables, covering, acuities, patch, image, acuity)
        seen = as_glimpse(image.reshape(-1, *size, 3), acuity)
        return replace(seen, patch=torch.from_numpy(patch.reshape(-1, *self.shape, 3)))

    def _sense_torch(self, prepared: Prepared, fixation_px: Tensor, table: Tensor) -> Glimpse:
        """Do what ``show_receptors`` does, in torch."""
        gaze = geometry.pixel_index(fixation_px, prepared.size)
        patch = self.read_torch(prepared, gaze, table)
        _, covering, acuities = self._acuity_tables.tensors(prepared.size, gaze.device)
        index = signed_offset_index(gaze, prepared.size) + (table * acuities[0].numel())[:, None, None]
        receptor = covering.flatten()[index].to(torch.int64)
        seen = (receptor >= 0)[..., None]
        lane = torch.arange(len(gaze), device=gaze.device)[:, None, None]
        image = torch.where(seen, patch[lane, receptor.clamp_min(0)], 0)
        mean = _mean(image.sum((1, 2), dtype=torch.int64), seen.sum((1, 2)))
        image = torch.where(seen, image, mean[:, None, None])
        return Glimpse(image, acuities.flatten()[index], patch.view(-1, *self.shape, 3))


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Divide int64 sums by counts, rounded; mid-grey where there is nothing."""
    return torch.where(count > 0, (2 * total + count) // (2 * count).clamp_min(1), _OUTSIDE).to(torch.uint8)


@dataclass(frozen=True)
class Window(Receptors):
    """A square crop around the fixation, seen through a grid of receptors; everything else is hidden.

    A grid of an even number of pixels has its centre between two of them, on the fixated pixel's upper left corner.

    Attributes:
        size_deg: Side of the crop in degrees; None takes one scene pixel for each receptor.
        patch_px: Receptors along a side.
        scales: Crops, each twice as wide as the one before.

    Reference:
        Mnih et al. (2014), Recurrent models of visual attention, section 3.1 (for more than one scale).
    """

    name: ClassVar[str] = "window"
    shares: ClassVar[bool] = True

    size_deg: float | None = 9.0
    patch_px: int = 32
    scales: int = 1

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: An option of the wrong type.
            InvalidValueError: An option out of range.
        """
        if self.size_deg is not None:
            validation.number("size_deg", self.size_deg, 0, 10_000, open_low=True)
        validation.whole("patch_px", self.patch_px, 1, 1024)
        validation.whole("scales", self.scales, 1, 8)

    def prepare(self, scene: Scene) -> Prepared:
        """Sum areas (Crow 1984), so that a receptor of any size costs four look-ups."""
        table = self._acuity_tables.lookup((scene.image.shape[1], scene.image.shape[2]), scene.px_per_deg)
        return Prepared(scene.image, scene.px_per_deg, (table, _sum_areas(scene.image)))

    def read(self, prepared: Prepared, fixation_px: NDArray[np.float32], table: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Average boxes, on the CPU."""
        from foveasim.eye.kernels.sense import read_boxes

        boxes = self._acuity_tables.arrays(prepared.size)[0]
        patch = np.empty((len(table), 3 * boxes.shape[1]), np.uint8)
        read_boxes(prepared.arrays[2], prepared.scenes, fixation_px, table, boxes, patch)
        return patch

    def read_torch(self, prepared: Prepared, gaze: Tensor, table: Tensor) -> Tensor:
        """Average boxes."""
        height, width = prepared.size
        boxes = self._acuity_tables.tensors(prepared.size, gaze.device)[0][table].to(torch.int64)
        left, top, right, bottom = (boxes + gaze.repeat(1, 2)[:, None]).unbind(2)
        left, right = left.clamp(0, width), right.clamp(0, width)
        top, bottom = top.clamp(0, height), bottom.clamp(0, height)
        lane, sums = torch.arange(len(gaze), device=gaze.device)[:, None], prepared.parts[1]
        lower = sums[lane, bottom, right].to(torch.int64) - sums[lane, bottom, left]
        upper = sums[lane, top, right].to(torch.int64) - sums[lane, top, left]
        return _mean((lower - upper) & 0xFFFFFFFF, ((right - left) * (bottom - top))[..., None])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, h, w) of ``Glimpse.patch``."""
        return self.scales, self.patch_px, self.patch_px

    def scaled(self, factor: float) -> Self:
        """Return this retina with its crops made wider by a factor; a crop in pixels gets more receptors."""
        validation.number("factor", factor, 0, open_low=True)
        if self.size_deg is None:
            return replace(self, patch_px=max(round(self.patch_px * factor), 1))
        return replace(self, size_deg=self.size_deg * factor)

    def at_scale(self, factor: float) -> Self | None:
        """Return this retina, or None where its crop is in pixels; see :meth:`Retina.at_scale`."""
        same = super().at_scale(factor)
        return None if self.size_deg is None else same

    def receptors(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        """Lay out the crops, finest first; each pixel is shown by the finest that covers it."""
        (height, width), side = size, self.patch_px
        pitch = zoom if self.size_deg is None else px_per_deg * self.size_deg / side * zoom
        covering = np.full((2 * height - 1, 2 * width - 1), -1, _index_type(self.scales * side**2))
        acuity = np.zeros(covering.shape, np.uint8)
        boxes = np.empty((self.scales, side, side, 4), np.int32)
        for scale in range(self.scales):
            step = pitch * 2**scale
            edge = np.floor(np.arange(side + 1) * step + _WHOLE).astype(np.int64)
            edge[-1] = max(edge[-1], edge[-2] + 1)  # the last receptor's pixel counts as seen
            edge -= math.floor(step * side / 2 + _WHOLE)
            stop = np.maximum(edge[1:], edge[:-1] + 1)  # receptors narrower than a pixel share it
            boxes[scale, ..., 0], boxes[scale, ..., 1] = edge[None, :-1], edge[:-1, None]
            boxes[scale, ..., 2], boxes[scale, ..., 3] = stop[None], stop[:, None]
            column = np.searchsorted(edge, np.arange(1 - width, width), side="right") - 1
            row = np.searchsorted(edge, np.arange(1 - height, height), side="right") - 1
            inside = ((row >= 0) & (row < side))[:, None] & ((column >= 0) & (column < side))[None]
            new = inside & (covering < 0)
            covering[new] = (scale * side**2 + row[:, None] * side + column[None])[new]
            acuity[new] = _detail(np.array(step))
        return boxes.reshape(-1, 4), covering, acuity


@dataclass(frozen=True)
class Multiscale(Window):
    """Concentric crops at doubling scales, all with as many receptors: the glimpse of the recurrent attention model.

    Attributes:
        size_deg: Side of the finest crop in degrees; None takes one scene pixel for each receptor.
        patch_px: Receptors along a side, at every scale.
        scales: Number of crops.

    Reference:
        Mnih et al. (2014), Recurrent models of visual attention, section 3.1.
    """

    name: ClassVar[str] = "multiscale"
    shares: ClassVar[bool] = True

    size_deg: float | None = 3.5
    patch_px: int = 12
    scales: int = 4


@dataclass(frozen=True)
class LogPolar(Receptors):
    """The cortical image: receptors on rings and wedges whose size grows with eccentricity.

    Rings grow as log(1 + e / a) and wedges are equal angles: along any meridian the magnification is that of Schwartz's
    log(z + a) along the horizontal one, without the singularity of log(z) at the fovea and without the monopole's
    shearing of angles. A receptor covers the pixels of its ring and wedge, or reports the nearest pixel where there is
    none.

    Attributes:
        rings: Receptors from the fovea to the length of the scene's diagonal.
        wedges: Receptors around. The view is symmetric where they are a multiple of 8 and the first ring is narrower
            than a pixel (the fixated pixel lies in every wedge and counts to the one on the right).
        fovea_deg: a, the eccentricity below which magnification hardly changes, degrees.

    Reference:
        Schwartz (1980), Computational anatomy and functional architecture of striate cortex: the logarithmic map.
    """

    name: ClassVar[str] = "log_polar"
    shares: ClassVar[bool] = True

    rings: int = 32
    wedges: int = 64
    fovea_deg: float = 1.0

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: An option of the wrong type.
            InvalidValueError: An option out of range.
        """
        validation.whole("rings", self.rings, 2, 1024)
        validation.whole("wedges", self.wedges, 4, 4096)
        validation.number("fovea_deg", self.fovea_deg, 0, open_low=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, rings, wedges) of ``Glimpse.patch``: the fovea first, wedges clockwise from the left."""
        return 1, self.rings, self.wedges

    def scaled(self, factor: float) -> Self:
        """Return this retina with its fovea made wider by a factor."""
        validation.number("factor", factor, 0, open_low=True)
        return replace(self, fovea_deg=self.fovea_deg * factor)

    def receptors(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        """Lay out rings and wedges; what lies beyond the last ring of a zoom below 1 is hidden."""
        height, width = size
        a_px = self.fovea_deg * px_per_deg
        growth = math.log1p(math.hypot(height, width) / a_px) / self.rings
        edge = zoom * a_px * np.expm1(np.arange(self.rings + 1) * growth)
        radius, turn = (edge[:-1] + edge[1:]) / 2, 2 * math.pi / self.wedges
        side = np.sqrt((edge[1:] - edge[:-1]) * radius * turn)
        angle = np.arange(self.wedges) * turn - math.pi
        centre = np.stack((radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)), -1)
        dy, dx = np.arange(1 - height, height)[:, None], np.arange(1 - width, width)[None]
        ring = np.floor(np.log1p(np.hypot(dy, dx) / (zoom * a_px)) / growth).astype(np.int64)
        wedge = np.round((np.arctan2(dy, dx) + math.pi) / turn).astype(np.int64) % self.wedges
        seen, ring = ring < self.rings, np.minimum(ring, self.rings - 1)
        covering = np.where(seen, ring * self.wedges + wedge, -1).astype(_index_type(self.rings * self.wedges))
        acuity = np.where(seen, _detail(side)[ring], 0).astype(np.uint8)
        limit = np.array([width - 1, height - 1])  # of the tables; what lies beyond them is outside of the scene
        nearest = np.clip(np.round(centre), -limit, limit).astype(np.int32).reshape(-1, 2)
        return nearest, covering, acuity

    def prepare(self, scene: Scene) -> Prepared:
        """Find the tables."""
        table = self._acuity_tables.lookup((scene.image.shape[1], scene.image.shape[2]), scene.px_per_deg)
        return Prepared(scene.image, scene.px_per_deg, (table,))

    def read(self, prepared: Prepared, fixation_px: NDArray[np.float32], table: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Average sectors, on the CPU."""
        from foveasim.eye.kernels.sense import read_sectors

        nearest, covering, _ = self._acuity_tables.arrays(prepared.size)
        patch = np.empty((len(table), 3 * nearest.shape[1]), np.uint8)
        read_sectors(prepared.arrays[0], prepared.scenes, fixation_px, table, covering, nearest, patch)
        return patch

    def read_torch(self, prepared: Prepared, gaze: Tensor, table: Tensor) -> Tensor:
        """Average sectors."""
        (height, width), lanes, device = prepared.size, len(gaze), gaze.device
        nearest, covering, _ = self._acuity_tables.tensors(prepared.size, device)
        count = nearest.shape[1]
        index = signed_offset_index(gaze, prepared.size) + (table * covering[0].numel())[:, None, None]
        receptor = covering.flatten()[index].to(torch.int64).flatten(1)
        receptor = torch.where(receptor < 0, count, receptor)  # the hidden ones gather in one place more
        pixels = prepared.image.flatten(1, 2).to(torch.int64)
        total = torch.zeros(lanes, count + 1, 3, dtype=torch.int64, device=device)
        total.scatter_add_(1, receptor[..., None].expand(-1, -1, 3), pixels)
        area = torch.zeros(lanes, count + 1, dtype=torch.int64, device=device)
        area.scatter_add_(1, receptor, torch.ones_like(receptor))
        dx, dy = nearest[table].to(torch.int64).unbind(2)
        x, y = gaze[:, :1] + dx, gaze[:, 1:] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        inside &= covering[table[:, None], dy + height - 1, dx + width - 1] >= 0
        lane = torch.arange(lanes, device=device)[:, None]
        alone = prepared.image[lane, y.clamp(0, height - 1), x.clamp(0, width - 1)]
        alone = torch.where(inside[..., None], alone, _OUTSIDE)
        return torch.where(area[:, :count, None] > 0, _mean(total, area[..., None])[:, :count], alone)
