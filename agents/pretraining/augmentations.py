"""Batches of views of a pool of images: crops, mirrored or not, their colours shaken.

On the CPU one kernel cuts a whole batch out of the pool. On another device the pool is brought there once and torch
cuts the batch; a pool that is too large for that stays in memory, and what the kernel cut is sent.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526: random resized crops of 8 to 100 % of the area, ratio
    3/4 to 4/3.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.picture import Picture, fit_picture
from foveasim.images.pool import ImagePool, centred

__all__ = ["RESIDENT_BYTES", "AugmentedBatch", "AugmentedBatches", "as_float", "crops", "shake"]

CHANCE = 0.8
STRENGTH = 0.8
HUE_STRENGTH = 0.2  # of the circle
GREY = (0.2989, 0.587, 0.114)


def shake(image: Tensor, rng: np.random.Generator, lanes: int | None = None, part: slice = slice(None)) -> None:
    """Change the colours of four images in five, in place.

    Brightness, contrast and saturation are multiplied by 0.2 to 1.8, the hue is turned by up to a fifth of the circle.
    On the CPU a kernel does it (48 us an image of 96 x 96), elsewhere torch; the two agree to one grey level.

    Args:
        image: (B, H, W, 3) uint8, contiguous.
        rng: Source of randomness.
        lanes: Size of the batch that the images are of; None where they are all of it.
        part: Which of its lanes they are.
    """
    lanes = len(image) if lanes is None else lanes
    applied = rng.uniform(size=lanes) < CHANCE
    factors = np.empty((lanes, 4), np.float32)
    factors[:, :3] = rng.uniform(1 - STRENGTH, 1 + STRENGTH, (lanes, 3))
    factors[:, 3] = rng.uniform(-HUE_STRENGTH, HUE_STRENGTH, lanes)
    order = rng.permuted(np.tile(np.arange(4), (lanes, 1)), axis=1)
    factors, order, applied = factors[part], order[part], applied[part]
    if image.device.type == "cpu":
        from foveasim.agents.pretraining.kernels import jitter_lanes

        jitter_lanes(image.flatten(1).numpy(), factors, order, applied)
    else:
        _by_torch(image, factors, order, applied)


def _by_torch(
    image: Tensor, factors: NDArray[np.float32], order: NDArray[np.int64], applied: NDArray[np.bool_]
) -> None:
    """Do what ``jitter_lanes`` does, in torch, one change of all lanes that have it in the same place at a time."""
    values = image.to(torch.float32)
    for place in range(4):
        for change, function in enumerate((_brighten, _contrast, _saturate, _turn)):
            lanes = np.flatnonzero(applied & (order[:, place] == change))
            if len(lanes):
                rows = torch.from_numpy(lanes).to(image.device)
                factor = torch.from_numpy(factors[lanes, change]).to(image.device)
                values[rows] = function(values[rows], factor.view(-1, 1, 1, 1))
    image.copy_((values + 0.5).to(torch.uint8))


def _grey(values: Tensor) -> Tensor:
    return (values * torch.tensor(GREY, device=values.device)).sum(3, keepdim=True)


def _brighten(values: Tensor, factor: Tensor) -> Tensor:
    return (values * factor).clamp(0, 255)


def _contrast(values: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(values).mean((1, 2), keepdim=True), values, factor).clamp(0, 255)


def _saturate(values: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(values), values, factor).clamp(0, 255)


def _turn(values: Tensor, turn: Tensor) -> Tensor:
    red, green, blue = values.unbind(3)
    maximum, minimum = values.amax(3), values.amin(3)
    chroma = maximum - minimum
    span = torch.where(chroma > 0, chroma, 1.0)
    hue = torch.where(
        maximum == red,
        (green - blue) / span,
        torch.where(maximum == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    at = (hue + 6 * turn[..., 0])[..., None] + torch.tensor([5.0, 3.0, 1.0], device=values.device)
    at = at.remainder(6)
    return maximum[..., None] - chroma[..., None] * torch.minimum(at, 4 - at).clamp(0, 1)


RATIO = (3 / 4, 4 / 3)

RESIDENT_BYTES = 16 << 30
"""Largest pool that is brought to a device; STL-10's unlabelled images are 2.8 GB."""


@dataclass(frozen=True)
class AugmentedBatch:
    """A batch of views.

    Attributes:
        image: (B, H, W, 3) uint8, contiguous, on the device.
        objects: (B, H, W) uint8, how surely each pixel belongs to the main object, 0 where the image has no mask; None
            where the pool has none.
        index: (B,) int64, which images of the pool they are of.
    """

    image: Tensor
    objects: Tensor | None
    index: NDArray[np.int64]


@dataclass(frozen=True)
class _Boxes:
    """Where the crops of a batch lie: ``box`` (B, 4) int64, top, left, height, width; ``mirrored`` (B,) bool."""

    index: NDArray[np.int64]
    box: NDArray[np.int64]
    mirrored: NDArray[np.bool_]

    def take(self, part: slice) -> _Boxes:
        return _Boxes(self.index[part], self.box[part], self.mirrored[part])


class AugmentedBatches:
    """Draws augmented batches from a pool.

    Args:
        pool: The images.
        size: (H, W) of the views that are drawn, px.
        crops: Random resized crops; otherwise the whole picture around its centre, see
            :func:`foveasim.images.pool.centred`, made at the first batch and kept.
        scale: Smallest and largest share of an image's area in a crop. The ratio of the sides is that of ``size`` times
            3/4 to 4/3, evenly in its logarithm; it bends where such a crop would not fit, so that the area is kept.
        mirror: Exchange left and right in every second view.
        jitter: Change brightness, contrast, saturation and hue, in random order, of four views in five; as
            torchvision's ``ColorJitter(0.8, 0.8, 0.8, 0.2)`` in floats.
        shares: How often each source of the pool is drawn from; None draws every image equally often.
        device: Where the batches are made.

    Raises:
        InvalidTypeError: A size that is not whole.
        InvalidValueError: An empty pool, or an option out of range.
    """

    def __init__(
        self,
        pool: ImagePool,
        size: tuple[int, int] = (96, 96),
        *,
        crops: bool = True,
        scale: tuple[float, float] = (0.08, 1.0),
        mirror: bool = False,
        jitter: bool = False,
        shares: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(pool):
            raise InvalidValueError("pool must hold at least one image; got none.")
        low, high = scale
        validation.number("scale", low, 0, 1, open_low=True)
        validation.number("scale", high, low, 1)
        self.pool, self.size = pool, validation.size_hw("size", size)
        self.crops, self.scale, self.mirror, self.jitter = crops, (low, high), mirror, jitter
        self.device = torch.device(device)
        self._chances = None if shares is None else _chances(pool, shares)
        self._whole: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        self._resident: dict[int, Tensor] = {}

    def draw(
        self,
        rng: np.random.Generator,
        count: int,
        size: tuple[int, int] | None = None,
        part: slice = slice(None),
    ) -> AugmentedBatch:
        """Draw a batch.

        Args:
            rng: The source of all randomness: the same state draws the same batch.
            count: B.
            size: (H, W) of this batch, px; None for that of the other batches.
            part: Which of its lanes to make; the random numbers of all are drawn.

        Raises:
            InvalidTypeError: A count or a size that is not whole.
            InvalidValueError: A count or a size out of range, or no lane in the part.
        """
        count = validation.whole("count", count, 1, 2**20)
        size = self.size if size is None else validation.size_hw("size", size)
        if self._chances is None:
            index = rng.integers(len(self.pool), size=count)
        else:
            index = rng.choice(len(self.pool), size=count, p=self._chances)
        if not len(index[part]):
            raise InvalidValueError(f"part must hold at least one of the {count} lanes; got {part}.")
        if self.crops:
            boxes = self._boxes(rng, index, size).take(part)
            image = self._cut(boxes, size, of_objects=False)
            objects = None if self.pool.objects is None else self._cut(boxes, size, of_objects=True)
        else:
            image, objects = self.take(index[part], size)
            if self.mirror:
                turned = torch.from_numpy((rng.uniform(size=count) < 0.5)[part]).to(self.device)
                image = torch.where(turned[:, None, None, None], image.flip(2), image)
                objects = None if objects is None else torch.where(turned[:, None, None], objects.flip(2), objects)
        if self.jitter:
            shake(image, rng, count, part)
        return AugmentedBatch(image, objects, index[part])

    def take(self, index: NDArray[np.int64], size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor | None]:
        """Return whole pictures and their objects, cropped around the centre, by index.

        Args:
            index: (B,) int64.
            size: (H, W), px; None for that of the other batches.

        Returns:
            (B, H, W, 3) uint8, and (B, H, W) uint8 or None; copies on the device.
        """
        size = self.size if size is None else size
        if size not in self._whole:
            images, objects = centred(self.pool, size), _centred_objects(self.pool, size)
            masks = None if objects is None else _tensor(objects).to(self.device)
            self._whole[size] = _tensor(images).to(self.device), masks
        pictures, masks = self._whole[size]
        rows = torch.from_numpy(index).to(self.device)
        return pictures.index_select(0, rows), None if masks is None else masks.index_select(0, rows)

    def _boxes(self, rng: np.random.Generator, index: NDArray[np.int64], size: tuple[int, int]) -> _Boxes:
        count = len(index)
        height, width = self.pool.size[index].astype(np.float64).T
        area = rng.uniform(*self.scale, size=count) * height * width
        ratio = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), size=count)) * size[1] / size[0]
        place, mirrored = rng.uniform(size=(count, 2)), rng.uniform(size=count) < 0.5
        # The ratio bends where the crop would not fit, so that the area is kept: a long thin image is seen whole.
        ratio = np.minimum(np.maximum(ratio, area / height**2), width**2 / area)
        h = np.minimum(np.maximum(np.rint(np.sqrt(area / ratio)), 1), height)
        w = np.minimum(np.maximum(np.rint(np.sqrt(area * ratio)), 1), width)
        top, left = np.floor(place[:, 0] * (height - h + 1)), np.floor(place[:, 1] * (width - w + 1))
        return _Boxes(index, np.stack((top, left, h, w), 1).astype(np.int64), mirrored & self.mirror)

    def _cut(self, boxes: _Boxes, size: tuple[int, int], *, of_objects: bool) -> Tensor:
        """Cut the boxes out of the images, (B, H, W, 3), or out of their objects, (B, H, W)."""
        if self.device.type != "cpu" and self.pool.pixels.size <= RESIDENT_BYTES:
            return self._cut_there(boxes, size, of_objects=of_objects)
        return self._cut_here(boxes, size, of_objects=of_objects).to(self.device)

    def _cut_here(self, boxes: _Boxes, size: tuple[int, int], *, of_objects: bool) -> Tensor:
        from foveasim.agents.pretraining.kernels import crop_lanes

        flat, channels = self._flat(of_objects)
        out = np.empty((len(boxes.index), size[0], channels * size[1]), np.uint8)
        start = self.pool.offset[boxes.index] // 3 * channels
        width = self.pool.size[boxes.index, 1].astype(np.int64)
        crop_lanes(flat, start, width, boxes.box, boxes.mirrored, channels, out)
        return torch.from_numpy(out if of_objects else out.reshape(-1, *size, 3))

    def _cut_there(self, boxes: _Boxes, size: tuple[int, int], *, of_objects: bool) -> Tensor:
        """Do what ``crop_lanes`` does in torch, on a pool that lies on the device."""
        flat, channels = self._flat(of_objects)
        if channels not in self._resident:
            self._resident[channels] = _tensor(flat).to(self.device).view(-1, channels)
        pixels = self._resident[channels]
        top, left, height, width = boxes.box.T
        stride = self.pool.size[boxes.index, 1].astype(np.int64)
        corner = self.pool.offset[boxes.index] // 3 + top * stride + left
        rows, row_share = _taps(height, size[0])
        columns, column_share = _taps(width, size[1])
        for of_columns in (columns, column_share):
            of_columns[boxes.mirrored] = of_columns[boxes.mirrored, ::-1]
        at_rows, by_rows, at_columns, by_columns = (
            torch.from_numpy(array).to(self.device)
            for array in (corner[:, None, None] + rows * stride[:, None, None], row_share, columns, column_share)
        )
        total = torch.zeros(len(boxes.index), *size, channels, device=self.device)
        for k in range(rows.shape[2]):
            mixed = torch.zeros_like(total)
            for j in range(columns.shape[2]):
                at = at_rows[:, :, None, k] + at_columns[:, None, :, j]
                mixed += pixels[at] * by_columns[:, None, :, j, None]
            total += mixed * by_rows[:, :, None, k, None]
        cut = (total + 0.5).to(torch.uint8)
        return cut[..., 0] if of_objects else cut

    def _flat(self, of_objects: bool) -> tuple[NDArray[np.uint8], int]:
        """Return the flat bytes to cut from and how many a pixel has."""
        if of_objects and self.pool.objects is not None:
            return self.pool.objects, 1
        return self.pool.pixels, 3


def as_float(values: Tensor) -> Tensor:
    """Turn bytes into what a network takes: float32, 0 to 1, of the same shape and order in memory.

    On the CPU a kernel, bit by bit what torch's division gives (measured on one core for 96 x 96 x 3: 5 us;
    ``.float() / 255``: 89 us, because two large blocks of memory are allocated anew each time).

    Args:
        values: uint8, any shape. An image (B, H, W, 3) stays so: ``as_float(image).permute(0, 3, 1, 2)`` is what a
            network calls channels-last.

    Raises:
        InvalidTypeError: Not uint8.
    """
    if values.dtype != torch.uint8:
        raise InvalidTypeError(f"values must be uint8, 0-255; got {values.dtype}.")
    if values.device.type != "cpu" or not values.is_contiguous() or values.ndim < 2:
        return values.to(torch.float32).div_(255)
    from foveasim.agents.pretraining.kernels import widen

    out = torch.empty(values.shape, dtype=torch.float32)
    widen(values.flatten(1).numpy(), out.flatten(1).numpy())
    return out


def _chances(pool: ImagePool, shares: Sequence[float]) -> NDArray[np.float64]:
    weights = np.asarray(shares, float)
    if weights.shape != (int(pool.source.max()) + 1,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise InvalidValueError(f"shares must be one number >= 0 for each source; got {list(shares)!r}.")
    chances: NDArray[np.float64] = (weights / np.bincount(pool.source) / weights.sum())[pool.source]
    return chances


def _taps(extent: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return inputs and weights, both (B, count, T), of a triangle filter that is as wide as the step."""
    step = (extent / count)[:, None]
    support = np.maximum(step, 1.0)
    taps = np.minimum(np.where(step > 1, np.ceil(2 * support) + 1, 2), extent[:, None])
    middle = (np.arange(count) + 0.5) * step
    begin = np.minimum(np.maximum(np.floor(middle - support + 0.5), 0), extent[:, None] - taps)
    at = begin[:, :, None] + np.arange(int(taps.max()))
    weight = np.maximum(1 - np.abs(at + 0.5 - middle[:, :, None]) / support[:, :, None], 0)
    weight *= at < extent[:, None, None]
    weight /= weight.sum(2, keepdims=True)
    return np.minimum(at, extent[:, None, None] - 1).astype(np.int64), weight.astype(np.float32)


def _tensor(array: NDArray[np.uint8]) -> Tensor:
    """Return an array as a tensor that is only read: it may be a read-only map of a file, of which torch warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


def _centred_objects(pool: ImagePool, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    if pool.objects is None:
        return None
    out = np.zeros((len(pool), *size), np.uint8)
    for number in np.flatnonzero(pool.has_object).tolist():
        (height, width), start = pool.size[number].tolist(), int(pool.offset[number]) // 3
        mask = pool.objects[start : start + height * width].reshape(height, width, 1)
        fitted = fit_picture(Picture(np.repeat(mask, 3, 2), -1, pool.names[number], 1.0), size, "crop")
        out[number] = fitted.image[..., 0]
    return out


def crops(
    pool: ImagePool,
    rng: np.random.Generator,
    count: int,
    size: tuple[int, int],
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    shares: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Draw random resized crops, half of them mirrored; :class:`AugmentedBatches` does more.

    Args:
        pool: The images.
        rng: Source of randomness.
        count: B.
        size: (H, W) in px.
        scale: Smallest and largest share of an image's area.
        shares: How often each source is drawn from; None draws every image equally often.

    Returns:
        (B, H, W, 3) uint8.

    Raises:
        InvalidValueError: ``shares`` do not fit the sources.
    """
    drawn = AugmentedBatches(pool, size, scale=scale, mirror=True, shares=shares).draw(rng, count)
    return drawn.image.numpy()
