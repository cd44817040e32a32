"""The eccentricity-blur retina: sharp where it fixates, coarser with every degree away from there."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidValueError
from foveasim.eye.acuity_tables import AcuityTables, offset_distance_px, offset_index
from foveasim.eye.gaussian_pyramid import gaussian_pyramid
from foveasim.eye.retina import Prepared, Retina, SensePlan, load_kernels, run_plan
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

__all__ = ["Pyramid", "paper_blend", "relative_resolution"]

# The published fovea filter: PAPER "The fovea filter, exactly as published".
_PAPER_SIGMA = 0.248
_PAPER_LEVELS = 6
_PAPER_HALF_DEG = 2.5
_PAPER_PX_PER_DEG = 3.5


def relative_resolution(eccentricity_deg: NDArray[np.float64], half_deg: float) -> NDArray[np.float64]:
    """Return R(e) = e2 / (e2 + e), the resolution at an eccentricity relative to that of the fovea.

    Args:
        eccentricity_deg: Any shape, degrees.
        half_deg: e2, the eccentricity at which resolution has halved.

    Reference:
        Geisler and Perry (1998), A real-time foveated multiresolution system: e2 = 2.3 degrees.

    Example:
        >>> relative_resolution(np.array([0.0, 2.3]), 2.3).tolist()
        [1.0, 0.5]
    """
    return half_deg / (half_deg + eccentricity_deg)


def paper_blend(distance_px: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return what the published fovea filter shows at a distance from the fixation.

    Args:
        distance_px: Any shape, px.

    Returns:
        near: The finer of two neighbouring levels, counted from 0.
        share: How much of the coarser one is added. It lies between 0 and 1.37: the published band edges are stretched
            to run from 0 to 1 and its transfer functions are not, so that parts of each band extrapolate.

    Reference:
        Weiler et al. (2024), fovea filter; constants as in the published code.
    """
    r = relative_resolution(distance_px / _PAPER_PX_PER_DEG, _PAPER_HALF_DEG)
    number = np.arange(1, _PAPER_LEVELS)
    octave = 2.0 ** (number - 3)
    edge = np.append(_PAPER_SIGMA * np.sqrt(np.log(2)) / (octave * np.sqrt(0.5)), 0.0)
    edge = (edge - edge.min()) / (edge.max() - edge.min())
    transfer = [np.exp(-0.5 * (o * r / _PAPER_SIGMA) ** 2) for o in octave] + [np.zeros_like(r)]
    near, share = np.zeros(r.shape, np.int64), np.zeros_like(r)
    for i in number[1:]:  # the higher layer where two meet, so later ones overwrite
        inside = (edge[i] <= r) & (r <= edge[i - 1])
        blend = (0.5 - transfer[i]) / (transfer[i - 1] - transfer[i] + 1e-5)
        near, share = np.where(inside, i - 2, near), np.where(inside, 1 - blend, share)
    return near, share


@dataclass(frozen=True)
class Pyramid(Retina):
    """Eccentricity blur: a linear blend of the two nearest levels of a Gaussian pyramid.

    Acuity is the relative resolution R(e), see :func:`relative_resolution`, down to that of the coarsest level; level
    -log2 R is shown.

    Attributes:
        half_deg: e2, the half-resolution eccentricity in degrees.
        levels: Depth of the pyramid; beyond the coarsest level nothing gets coarser.
        preset: "geisler_perry", or "paper" for the fovea filter of Weiler et al. (2024) with its own constants (e2 =
            2.5 degrees, 3.5 px/deg, six hardly antialiased levels), whatever the scene's px_per_deg.

    Reference:
        Geisler and Perry (1998), A real-time foveated multiresolution system for low-bandwidth video communication.
    """

    name: ClassVar[str] = "pyramid"
    shares: ClassVar[bool] = True
    half_deg: float = 2.3
    levels: int = 6
    preset: Literal["geisler_perry", "paper"] = "geisler_perry"

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An option out of range.
        """
        validation.number("half_deg", self.half_deg, 0, open_low=True)
        validation.whole("levels", self.levels, 2, 10)
        validation.choice("preset", self.preset, ("geisler_perry", "paper"))

    def scaled(self, factor: float) -> Self:
        """Return this retina with e2 multiplied by a factor; the paper's preset has constants and stays."""
        validation.number("factor", factor, 0, open_low=True)
        return self if self.preset == "paper" else replace(self, half_deg=self.half_deg * factor)

    def at_scale(self, factor: float) -> Self | None:
        """Return the retina that blurs the periphery over as many degrees; see :meth:`Retina.at_scale`.

        Blur is relative to the pixel. With e2 / factor, R(e) well beyond e2 is 1 / factor of what it was, and so the
        same in degrees; the fovea is as sharp as the pixels allow. The paper's preset has constants: None.
        """
        validation.number("factor", factor, 0, open_low=True)
        if self.preset == "paper":
            return None
        levels = min(max(self.levels + math.ceil(math.log2(factor)), 2), 10)
        return replace(self, half_deg=self.half_deg / factor, levels=levels)

    @property
    def zoomable(self) -> bool:
        """Whether ``sense`` takes a zoom; the paper's preset has constants."""
        return self.preset != "paper"

    @property
    def depth(self) -> int:
        """Levels of the pyramid."""
        return _PAPER_LEVELS if self.preset == "paper" else self.levels

    @functools.cached_property
    def _acuity_tables(self) -> AcuityTables:
        return AcuityTables(self._build)

    def _build(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        distance = offset_distance_px(size)
        if self.preset == "paper":
            near, share = paper_blend(distance)
            resolution = _never_rising(2.0 ** -np.maximum(near + share, 0), distance)
            weight = np.round(share * 256).astype(np.int16)
        else:
            resolution = np.minimum(relative_resolution(distance / (px_per_deg * zoom), self.half_deg) / zoom, 1)
            level = np.minimum(-np.log2(resolution), self.depth - 1)
            resolution = np.maximum(resolution, 2.0 ** (1 - self.depth))
            near = np.minimum(np.floor(level), self.depth - 2).astype(np.int64)
            weight = np.minimum(np.round((level - near) * 256), 255).astype(np.uint8)
        half = near[:, size[1] - 1 :]
        edges = np.stack([(half <= level).sum(1) for level in range(self.depth - 1)], 1).astype(np.int64)
        acuity = np.maximum(np.round(255 * resolution), 1).astype(np.uint8)
        return np.repeat(weight, 3, axis=1), acuity, edges, near.astype(np.uint8)

    def prepare(self, scene: Scene) -> Prepared:
        """Build the pyramids."""
        levels = _paper_pyramid(scene.image) if self.preset == "paper" else gaussian_pyramid(scene.image, self.depth)
        size = (scene.image.shape[1], scene.image.shape[2])
        table = self._acuity_tables.lookup(size, scene.px_per_deg)
        return Prepared(levels[:, 0], scene.px_per_deg, (levels, table), nested=True)

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Blend the two levels nearest to each pixel's resolution."""
        if prepared.image.device.type == "cpu":
            zooms = None if zoom is None else zoom.numpy()
            plan = self.plan(prepared, fixation_px.contiguous().numpy(), key, zooms)
            return run_plan(plan, len(fixation_px), prepared.size)
        table = prepared.parts[1]
        if zoom is not None:
            table = self._acuity_tables.lookup(prepared.size, prepared.px_per_deg, zoom)
        return self._sense_torch(prepared, fixation_px, table)

    def plan(
        self,
        prepared: Prepared,
        fixation_px: NDArray[np.float32],
        key: Key | None,
        zoom: NDArray[np.float32] | None,
    ) -> SensePlan:
        """Blend on the CPU."""
        size, scenes, (_, levels, tables) = prepared.size, prepared.scenes, prepared.arrays
        if zoom is not None:
            table = self._acuity_tables.lookup(size, prepared.px_per_deg, torch.from_numpy(zoom)).numpy()
        else:
            table = tables if prepared.rows is None else tables[scenes]
        weights, acuities, edges, _ = self._acuity_tables.arrays(size)
        arguments = (levels, scenes, fixation_px, table, weights, acuities, edges)
        if self.preset == "paper":
            from foveasim.eye.kernels.pyramids import extrapolate_runs

            return SensePlan(extrapolate_runs, arguments, reusable=zoom is None)
        return SensePlan(load_kernels().blend_levels, arguments, widens=True, reusable=zoom is None)

    def _sense_torch(self, prepared: Prepared, fixation_px: Tensor, table: Tensor) -> Glimpse:
        """Do what ``blend_levels`` does, in torch."""
        levels, size = prepared.parts[0], prepared.size
        weights, acuities, _, near = self._acuity_tables.tensors(size, prepared.image.device)
        index = offset_index(geometry.pixel_index(fixation_px, size), size).flatten(1)
        per_table = acuities.shape[1] * acuities.shape[2]
        index = index + (table * per_table)[:, None]
        shape = prepared.image.shape[:3]
        weight = weights[..., ::3].flatten()[index].view(*shape, 1).to(torch.int32)
        level = near.flatten()[index].view(shape[0], 1, *shape[1:], 1).to(torch.int64).expand(-1, -1, -1, -1, 3)
        finer, coarser = levels.gather(1, level)[:, 0], levels.gather(1, level + 1)[:, 0]
        image = ((finer.to(torch.int32) * (256 - weight) + coarser.to(torch.int32) * weight + 128) >> 8).clamp(0, 255)
        return Glimpse(image.to(torch.uint8), acuities.flatten()[index].view(shape))


def _never_rising(resolution: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hold resolution at its minimum so far going outwards: the paper's bands extrapolate where one ends."""
    order = distance.argsort(axis=None, kind="stable")
    held = np.empty_like(resolution)
    held.flat[order] = np.minimum.accumulate(resolution.flat[order])
    return held


def _paper_pyramid(image: Tensor) -> Tensor:
    """Build the published pyramid: blurred by a 5 x 5 Gaussian of 0.248 px, halved and doubled bilinearly."""
    height, width = size = (image.shape[1], image.shape[2])
    if min(size) >> (_PAPER_LEVELS - 2) < 3:
        raise InvalidValueError(
            f"the paper's fovea filter needs scenes of at least 48 px a side; got {height} x {width}."
        )
    if image.device.type != "cpu":
        return _paper_pyramid_torch(image)
    from foveasim.eye.kernels.pyramids import build_by_taps

    levels = torch.empty(len(image), _PAPER_LEVELS, *size, 3, dtype=torch.uint8)
    levels[:, 0] = image
    build_by_taps(image.contiguous().flatten(2).numpy(), levels.flatten(3).numpy(), *_paper_filters(size))
    return levels


def _paper_pyramid_torch(image: Tensor) -> Tensor:
    """Do what ``build_by_taps`` does with the filters of :func:`_paper_filters`, in torch, step by step."""
    interpolate = functools.partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=image.device, dtype=torch.float32) / _PAPER_SIGMA) ** 2)
    taps = (taps / taps.sum()).expand(3, 1, 1, 5)
    level = image.permute(0, 3, 1, 2).to(torch.float32)
    sizes, grown = [], [image]
    for _ in range(1, _PAPER_LEVELS):
        sizes.append(level.shape[-2:])
        padded = torch.nn.functional.pad(level, (2, 2, 2, 2), mode="reflect")
        blurred = torch.nn.functional.conv2d(padded, taps, groups=3)
        blurred = torch.nn.functional.conv2d(blurred, taps.transpose(2, 3), groups=3)
        level = interpolate(blurred, size=(max(level.shape[2] // 2, 1), max(level.shape[3] // 2, 1)))
        larger = level
        for size in reversed(sizes):
            larger = interpolate(larger, size=size)
        grown.append(larger.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(grown, 1)


@functools.lru_cache(maxsize=64)
def _paper_filters(size: tuple[int, int]) -> tuple[NDArray[Any], ...]:
    """Return what ``build_by_taps`` takes between image and levels.

    Blurring and halving are one filter of four taps a side, and all doublings from a level to full size are one of
    three, whatever the size: what repeated doubling does is a quadratic spline.
    """
    extents = [[side >> level for level in range(_PAPER_LEVELS)] for side in size]
    ways: list[NDArray[Any]] = []
    for taps in (4, 3):
        for side, of_levels in zip(size, extents, strict=True):
            first = np.zeros((_PAPER_LEVELS, side), np.int64)
            weight = np.zeros((_PAPER_LEVELS, taps, side), np.float32)
            for level in range(1, _PAPER_LEVELS):
                begin, share = _filters(of_levels, level, up=taps == 3)
                first[level, : len(begin)] = begin
                weight[level, : len(share), : len(begin)] = share
            rows = side == size[0] and len(ways) % 4 == 0
            ways += [first, np.ascontiguousarray(weight.transpose(0, 2, 1)) if rows else weight]
    return (*(np.array(of_levels) for of_levels in extents), *ways)


def _filters(extents: list[int], level: int, *, up: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return first input (N,) and weights (T, N) of the filter that leads to a level, or from it to full size."""
    if up:
        matrix = np.eye(extents[level])
        for upper in range(level - 1, -1, -1):
            matrix = _bilinear(extents[upper + 1], extents[upper]) @ matrix
    else:
        matrix = _bilinear(extents[level - 1], extents[level]) @ _blur(extents[level - 1])
    used = matrix > 1e-7  # the Gaussian's outermost taps, 7e-15, would double the work
    begin = used.argmax(1)
    taps = int((matrix.shape[1] - used[:, ::-1].argmax(1) - begin).max())
    begin = np.minimum(begin, matrix.shape[1] - taps)
    shares = matrix[np.arange(len(matrix)), begin + np.arange(taps)[:, None]]
    return begin, shares / shares.sum(0)


def _bilinear(extent: int, count: int) -> NDArray[np.float64]:
    """Return the (count, extent) matrix of bilinear interpolation without antialiasing."""
    at = np.clip((np.arange(count) + 0.5) * extent / count - 0.5, 0, extent - 1)
    matrix: NDArray[np.float64] = np.maximum(1 - np.abs(at[:, None] - np.arange(extent)), 0.0)
    return matrix


def _blur(extent: int) -> NDArray[np.float64]:
    """Return the (extent, extent) matrix of the published blur, mirrored at the border."""
    taps = np.exp(-0.5 * (np.arange(-2, 3) / _PAPER_SIGMA) ** 2)
    matrix = np.zeros((extent, extent))
    for shift, tap in zip(range(-2, 3), taps / taps.sum(), strict=True):
        at = np.abs(np.arange(extent) + shift)
        np.add.at(matrix, (np.arange(extent), np.minimum(at, 2 * extent - 2 - at)), tap)
    return matrix
