"""Retinas that hide: what they show is as sharp as the scene, the rest is filled."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.acuity_tables import AcuityTables, offset_distance_px, offset_index
from foveasim.eye.retina import Prepared, Retina, SensePlan, load_kernels, run_plan
from foveasim.rng import Key, Stream
from foveasim.types import Glimpse, Scene

__all__ = [
    "OBJECT_SURE",
    "Attend",
    "Disc",
    "Fill",
    "Masking",
    "Patches",
    "TwoSpot",
    "disc_radius_px",
    "object_centre_px",
]

Fill = Literal["visible_mean", "image_mean", "blur"]
Attend = Literal["random", "object"]

OBJECT_SURE = 204
"""From here on a pixel surely belongs to the main object: 0.8 of 255, the paper's confidence."""

# The paper's blurry mask: a 33-tap Gaussian of sigma 100, all but a box of 33 px, so a 33rd of the detail survives.
_BLUR_TAPS = 33
_BLUR_SIGMA = 100.0
_BLUR_ACUITY = round(255 / _BLUR_TAPS)


def disc_radius_px(size: tuple[int, int], hidden_ratio: float) -> int:
    """Return the radius of the sharp disc that hides a share of the scene.

    Args:
        size: (H, W), px.
        hidden_ratio: r, 0 to 1.

    Returns:
        ``int(sqrt(H W (1 - r) / pi))``, px.

    Reference:
        Weiler et al. (2024), masked periphery.

    Example:
        >>> disc_radius_px((96, 96), 0.8)
        24
    """
    return int(math.sqrt(size[0] * size[1] * (1 - hidden_ratio) / math.pi))


def _mirrored(extent: int) -> NDArray[np.int64]:
    """Return the pixel that stands at -16, -15, … extent + 16 of a row mirrored at the middle of its end pixels."""
    period = max(2 * extent - 2, 1)
    index = np.abs(np.arange(-(_BLUR_TAPS // 2), extent + _BLUR_TAPS // 2 + 1)) % period
    return np.minimum(index, np.abs(period - index)) if extent > 1 else np.zeros_like(index)


def _blurred(image: Tensor) -> Tensor:
    """Blur (B, H, W, 3) uint8 as the paper's blurry mask does, mirrored at the border."""
    return _blur_kernel(image) if image.device.type == "cpu" else _blur_torch(image)


def _blur_kernel(image: Tensor) -> Tensor:
    """Blur on the CPU: 44 us for 96 x 96 (measured; 5,600 in torch, 460 by OpenCV's GaussianBlur)."""
    from foveasim.eye.kernels.masks import blur_images

    # So little of a Gaussian of sigma 100 fits into 33 taps that a parabola is its like: no tap is off by more than
    # 2e-5 of itself, 0.004 grey levels.
    squares = np.arange(-(_BLUR_TAPS // 2), _BLUR_TAPS // 2 + 1, dtype=np.float64) ** 2
    taps = np.exp(-0.5 * squares / _BLUR_SIGMA**2)
    slope, flat = np.polyfit(squares, taps / taps.sum(), 1)
    lanes, height, width = image.shape[:3]
    rows = image.contiguous().view(lanes, height, 3 * width).numpy()
    out = np.empty_like(rows)
    blur_images(rows, _mirrored(width), _mirrored(height), _BLUR_TAPS, float(flat), float(-slope), out)
    return torch.from_numpy(out).view(image.shape)


def _blur_torch(image: Tensor) -> Tensor:
    """Do what ``blur_images`` does, in torch, with the Gaussian itself."""
    at = torch.arange(_BLUR_TAPS, device=image.device, dtype=torch.float32) - _BLUR_TAPS // 2
    taps = torch.exp(-0.5 * (at / _BLUR_SIGMA) ** 2)
    taps = taps / taps.sum()
    blurred = image.to(torch.float32)
    for axis in (1, 2):
        index = torch.from_numpy(_mirrored(image.shape[axis])[:-1]).to(image.device)
        blurred = blurred.index_select(axis, index).unfold(axis, _BLUR_TAPS, 1) @ taps
    return blurred.round().clamp(0, 255).to(torch.uint8)


def _uniform(key: Key, count: int) -> Tensor:
    """Do what ``key.uniform(Stream.MASK, count)`` does, on the CPU (measured for two numbers: 8 us instead of 130)."""
    from foveasim.eye.kernels.step import draw_uniform

    draws = np.empty((len(key.seed), count))
    draw_uniform(torch.stack((key.seed, key.episode, key.step)).numpy(), int(Stream.MASK), draws)
    return torch.from_numpy(draws)


@dataclass(frozen=True)
class Masking(Retina):
    """Base of the retinas that hide.

    Attributes:
        fill: What is shown where the scene is hidden: "visible_mean" the mean colour of the visible pixels,
            "image_mean" that of the whole scene, as the paper's code has it, which leaks a little of what is hidden,
            "blur" the scene blurred by the paper's 33 px kernel, with the acuity of that blur.
    """

    fill: Fill = "visible_mean"

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An option out of range.
        """
        validation.choice("fill", self.fill, ("visible_mean", "image_mean", "blur"))

    @property
    def leaks(self) -> bool:
        """Whether a glimpse depends on pixels whose acuity is 0: the mean of the whole scene does."""
        return self.fill == "image_mean"

    def at_scale(self, factor: float) -> Self | None:
        """Return this retina, or None where its fill is blurred over pixels; see :meth:`Retina.at_scale`."""
        return None if self.fill == "blur" else super().at_scale(factor)

    @property
    def hidden_acuity(self) -> int:
        """Acuity of what is hidden."""
        return _BLUR_ACUITY if self.fill == "blur" else 0

    @abstractmethod
    def tables(self, scene: Scene) -> Tensor:
        """Return the acuity table of each lane, (B,) int64."""

    def prepare(self, scene: Scene) -> Prepared:
        """Work out the fill."""
        lanes = len(scene.image)
        device = scene.image.device
        mean = torch.empty(lanes, 0, dtype=torch.uint8, device=device)
        behind = torch.empty(lanes, 0, 0, 3, dtype=torch.uint8, device=device)
        if self.fill == "image_mean":
            mean = scene.image.flatten(1, 2).to(torch.float32).mean(1).round().to(torch.uint8)
        elif self.fill == "blur":
            behind = _blurred(scene.image)
        return Prepared(scene.image, scene.px_per_deg, (self.tables(scene), mean, behind))

    def hide(self, prepared: Prepared, visible: Tensor) -> Glimpse:
        """Fill what is not visible, in torch.

        Args:
            prepared: From :meth:`prepare`.
            visible: (B, H, W) bool.
        """
        image, (_, mean, behind) = prepared.image, prepared.parts[:3]
        mask = visible[..., None]
        if self.fill == "visible_mean":
            total = torch.where(mask, image, 0).sum((1, 2), dtype=torch.int64)
            count = visible.sum((1, 2))[:, None]
            mean = torch.where(count > 0, (2 * total + count) // (2 * count).clamp_min(1), 127).to(torch.uint8)
        filling = behind if self.fill == "blur" else mean[:, None, None, :]
        acuity = torch.where(visible, 255, self.hidden_acuity).to(torch.uint8)
        return Glimpse(torch.where(mask, image, filling), acuity)


@dataclass(frozen=True)
class Disc(Masking):
    """Masked periphery: a sharp disc around the fixation, everything else hidden.

    Attributes:
        hidden_ratio: Share of the scene that is hidden when the disc lies inside it.
        radius_deg: Radius in degrees instead; None goes by ``hidden_ratio``.

    Reference:
        Weiler et al. (2024), masked periphery: a pixel is visible where its squared distance is at most radius**2.
    """

    name: ClassVar[str] = "disc"
    shares: ClassVar[bool] = True

    hidden_ratio: float = 0.8
    radius_deg: float | None = None

    def __post_init__(self) -> None:
        """Validate."""
        super().__post_init__()
        validation.number("hidden_ratio", self.hidden_ratio, 0, 1, open_high=True)
        if self.radius_deg is not None:
            validation.number("radius_deg", self.radius_deg, 0)

    def scaled(self, factor: float) -> Self:
        """Return this retina with the disc's radius multiplied by a factor; a ``hidden_ratio`` ends at 0."""
        validation.number("factor", factor, 0, open_low=True)
        if self.radius_deg is not None:
            return replace(self, radius_deg=self.radius_deg * factor)
        return replace(self, hidden_ratio=max(1 - (1 - self.hidden_ratio) * factor**2, 0.0))

    @functools.cached_property
    def _acuity_tables(self) -> AcuityTables:
        return AcuityTables(self._build)

    def _build(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        if self.radius_deg is None:
            radius = float(disc_radius_px(size, self.hidden_ratio))
        else:
            radius = self.radius_deg * px_per_deg
        inside = offset_distance_px(size) <= radius
        return inside[:, size[1] - 1 :].sum(1).astype(np.int64) - 1, inside

    def tables(self, scene: Scene) -> Tensor:
        """Return the acuity table of each lane."""
        return self._acuity_tables.lookup((scene.image.shape[1], scene.image.shape[2]), scene.px_per_deg)

    def spots(self, prepared: Prepared, fixation_px: Tensor, key: Key | None) -> Tensor:
        """Return the centres of the discs, (B, S, 2) float32, px."""
        return fixation_px[:, None]

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Show the discs."""
        spots = self.spots(prepared, fixation_px, key)
        if prepared.image.device.type == "cpu":
            return run_plan(self._cover(prepared, spots.numpy()), len(spots), prepared.size)
        return self._sense_torch(prepared, spots)

    def plan(
        self,
        prepared: Prepared,
        fixation_px: NDArray[np.float32],
        key: Key | None,
        zoom: NDArray[np.float32] | None,
    ) -> SensePlan:
        """Show the disc on the CPU."""
        return self._cover(prepared, fixation_px[:, None], reusable=True)

    def _cover(self, prepared: Prepared, spots: NDArray[np.float32], reusable: bool = False) -> SensePlan:
        scene, table, mean, behind = prepared.arrays[:4]
        half = self._acuity_tables.arrays(prepared.size)[0]
        arguments = (scene, prepared.scenes, spots, table, half, mean, behind, self.hidden_acuity)
        return SensePlan(load_kernels().cover_spots, arguments, True, reusable)

    def _sense_torch(self, prepared: Prepared, spots: Tensor) -> Glimpse:
        """Do what ``cover_spots`` does, in torch."""
        size, table = prepared.size, prepared.parts[0]
        inside = self._acuity_tables.tensors(size, prepared.image.device)[1].flatten(1)
        visible = torch.zeros(prepared.image.shape[:3], dtype=torch.bool, device=prepared.image.device)
        for spot in spots.unbind(1):
            index = offset_index(geometry.pixel_index(spot, size), size)
            visible |= inside[table[:, None, None], index]
        return self.hide(prepared, visible)


def object_centre_px(objects: Tensor) -> Tensor:
    """Return the most object-like pixel of each lane: the one that lies deepest inside the main object.

    Of the pixels that surely belong to the object, 204 (0.8 of 255) or more, it is the one whose distance to the
    nearest other pixel, or to the edge of the scene, is greatest; the first such pixel, row by row, where several are.
    Where no pixel of a lane reaches 204, its most confident pixels count in place of the sure ones; so a lane in which
    nothing is an object, all 0, is attended at the middle of the scene, as is one that is all object.

    Args:
        objects: (B, H, W) uint8, how surely each pixel belongs to the main object.

    Returns:
        (B, 2) float32, px, on the device of ``objects``.

    Example:
        >>> square = torch.zeros(1, 20, 30, dtype=torch.uint8)
        >>> square[0, 4:9, 10:15] = 255
        >>> object_centre_px(square)
        tensor([[12.5000,  6.5000]])
    """
    from foveasim.eye.kernels.masks import find_deepest

    point = np.empty((len(objects), 2), np.float32)
    find_deepest(objects.cpu().contiguous().numpy(), OBJECT_SURE, point)
    return torch.from_numpy(point).to(objects.device)


@dataclass(frozen=True)
class TwoSpot(Disc):
    """Two sharp discs: one at the fixation and one that is attended covertly.

    Attributes:
        hidden_ratio: Share of the scene hidden by *one* such disc alone.
        attend: Where the second disc is: "random" at a random place of each step, "object" at the most object-like
            pixel of ``scene.objects`` (:func:`object_centre_px`), the same at every step.

    Reference:
        Weiler et al. (2024), covert attention.
    """

    name: ClassVar[str] = "two_spot"
    shares: ClassVar[bool] = True

    attend: Attend = "random"

    def __post_init__(self) -> None:
        """Validate."""
        super().__post_init__()
        validation.choice("attend", self.attend, ("random", "object"))

    @property
    def needs_key(self) -> bool:  # type: ignore[override]  # of other retinas it is a constant of the class
        """Whether it draws random numbers: where the second disc is at random."""
        return self.attend == "random"

    def prepare(self, scene: Scene) -> Prepared:
        """Work out the fill and, where the object is attended, its place.

        Raises:
            InvalidTypeError: ``scene.objects`` is not uint8.
            InvalidValueError: ``scene.objects`` is missing where it is needed, or of another shape.
        """
        prepared = super().prepare(scene)
        if self.attend == "random":
            return prepared
        objects, expected = scene.objects, tuple(scene.image.shape[:3])
        if objects is None:
            raise InvalidValueError(
                f"retina 'two_spot' with attend='object' needs scene.objects, {expected} uint8, how surely each pixel "
                "belongs to the main object; got None. `foveasim segment` makes such masks; or use attend='random'."
            )
        if objects.dtype != torch.uint8:
            raise InvalidTypeError(f"scene.objects must be uint8, 0-255; got {objects.dtype}.")
        if tuple(objects.shape) != expected:
            raise InvalidValueError(f"scene.objects must be {expected}, as its image; got {tuple(objects.shape)}.")
        return replace(prepared, parts=(*prepared.parts, object_centre_px(objects).to(scene.image.device)))

    def spots(self, prepared: Prepared, fixation_px: Tensor, key: Key | None) -> Tensor:
        """Return the fixation and the place attended, (B, 2, 2) float32, px."""
        if self.attend == "object":
            if len(prepared.parts) < 4:
                raise InvalidValueError(
                    "prepared comes from another retina; sense with the retina whose prepare() made it."
                )
            return torch.stack((fixation_px, prepared.by_lane(prepared.parts[3])), 1)
        if key is None:
            raise InvalidValueError("retina 'two_spot' draws random numbers; give key=Key.of(seed, lanes).")
        draws = _uniform(key, 2) if fixation_px.device.type == "cpu" else key.uniform(Stream.MASK, 2)
        extent = torch.tensor(prepared.size[::-1], dtype=torch.float32, device=fixation_px.device)
        return torch.stack((fixation_px, draws.to(torch.float32) * extent), 1)

    def plan(
        self,
        prepared: Prepared,
        fixation_px: NDArray[np.float32],
        key: Key | None,
        zoom: NDArray[np.float32] | None,
    ) -> SensePlan:
        """Show both discs on the CPU."""
        return self._cover(prepared, self.spots(prepared, torch.from_numpy(fixation_px), key).numpy())


@dataclass(frozen=True)
class Patches(Masking):
    """Random patches: squares of the scene are hidden at random, anew at every step, wherever the eye looks.

    Attributes:
        hidden_ratio: Share r of the n patches that is hidden, ``int(n r)`` of them.
        patch_px: Side of a patch in px; patches at the right and lower edge may be cut.

    Reference:
        Weiler et al. (2024), random patches: 144 of 8 x 8 px at 96 x 96.
    """

    name: ClassVar[str] = "patches"
    shares: ClassVar[bool] = True
    needs_key: ClassVar[bool] = True

    hidden_ratio: float = 0.6
    patch_px: int = 8

    def __post_init__(self) -> None:
        """Validate."""
        super().__post_init__()
        validation.number("hidden_ratio", self.hidden_ratio, 0, 1, open_high=True)
        validation.whole("patch_px", self.patch_px, 1, 16384)

    def at_scale(self, factor: float) -> Self | None:
        """Return None: patches and their number are in pixels; see :meth:`Retina.at_scale`."""
        validation.number("factor", factor, 0, open_low=True)
        return None

    def tables(self, scene: Scene) -> Tensor:
        """Return zeros: there is no table."""
        return torch.zeros(len(scene.image), dtype=torch.int64, device=scene.image.device)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return how many patches a scene has, (down, across)."""
        return -(-size[0] // self.patch_px), -(-size[1] // self.patch_px)

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Hide patches."""
        if prepared.image.device.type == "cpu":
            return run_plan(self.plan(prepared, fixation_px, key, None), len(fixation_px), prepared.size)
        return self._sense_torch(prepared, self._known(key))

    def plan(
        self,
        prepared: Prepared,
        fixation_px: NDArray[np.float32] | Tensor,
        key: Key | None,
        zoom: NDArray[np.float32] | None,
    ) -> SensePlan:
        """Hide patches on the CPU."""
        scene, _, mean, behind = prepared.arrays
        count = math.prod(self.grid(prepared.size))
        draws = _uniform(self._known(key), count).numpy()
        hidden = int(count * self.hidden_ratio)
        arguments = (scene, prepared.scenes, draws, hidden, self.patch_px, mean, behind, self.hidden_acuity)
        return SensePlan(load_kernels().hide_patches, arguments)

    def _known(self, key: Key | None) -> Key:
        if key is None:
            raise InvalidValueError("retina 'patches' draws random numbers; give key=Key.of(seed, lanes).")
        return key

    def _sense_torch(self, prepared: Prepared, key: Key) -> Glimpse:
        """Do what ``hide_patches`` does, in torch."""
        size, (down, across) = prepared.size, self.grid(prepared.size)
        order = key.uniform(Stream.MASK, down * across).argsort(1)
        visible = torch.ones_like(order, dtype=torch.bool)
        visible.scatter_(1, order[:, : int(down * across * self.hidden_ratio)], value=False)
        whole = visible.view(-1, down, across).repeat_interleave(self.patch_px, 1).repeat_interleave(self.patch_px, 2)
        return self.hide(prepared, whole[:, : size[0], : size[1]])
