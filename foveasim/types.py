"""The values that pass between modules: frozen dataclasses of torch tensors with a leading lane axis B.

Convention:
    Images are contiguous uint8 (B, H, W, 3), sRGB 0-255. Points are (x, y) float32 in px, x right, y down. Pixel
    centres lie at +0.5: the middle of the first pixel of a row is x = 0.5, the right edge of the last one is x = W.
    Sizes are (H, W). A physical quantity carries its unit in its name. Amplitudes and durations of saccades are
    float32; a moment on a clock is float64 ms: a float32 no longer tells 5 ms apart after a day.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidValueError

__all__ = ["Belief", "Frame", "Glimpse", "LaneMeasurements", "Lanes", "Prediction", "Saccade", "Scene", "State"]


@dataclass(frozen=True)
class Frame:
    """What the numbers of a point mean: the picture that they count the pixels of, and the size of a degree in it.

    Attributes:
        size: (H, W) px of the picture or screen.
        px_per_deg: Pixels of one degree of visual angle; None where nobody has said.

    Raises:
        InvalidTypeError: Not whole numbers, or a scale that is no number.
        InvalidValueError: A side out of range, or a scale of 0 or less.

    Example:
        >>> Frame((600, 800), 24).px_per_deg
        24.0
    """

    size: tuple[int, int]
    px_per_deg: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", validation.size_hw("size", self.size, 1))
        if self.px_per_deg is not None:
            scale = validation.number("px_per_deg", self.px_per_deg, 0, open_low=True)
            object.__setattr__(self, "px_per_deg", scale)

    def resize(self, size: tuple[int, int]) -> Frame:
        """Return the frame of the same picture at another size, a degree growing with it.

        Where the sides grow unequally a degree has no one size any more, and ``px_per_deg`` is None.

        Example:
            >>> Frame((600, 800), 24.0).resize((300, 400))
            Frame(size=(300, 400), px_per_deg=12.0)
        """
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        even = self.px_per_deg is not None and math.isclose(down, across, rel_tol=0.01)
        return Frame(size, self.px_per_deg * (down + across) / 2 if even and self.px_per_deg else None)


class Lanes:
    """Base of the dataclasses below: whatever they hold, lane by lane.

    Example:
        >>> Glimpse(torch.zeros(2, 96, 96, 3, dtype=torch.uint8), torch.zeros(2, 96, 96, dtype=torch.uint8))
        Glimpse(image=uint8 (2, 96, 96, 3), acuity=uint8 (2, 96, 96), patch=None)
    """

    def __repr__(self) -> str:
        held: Any = self  # every subclass is a dataclass
        parts = (f"{field.name}={_brief(getattr(self, field.name))}" for field in fields(held))
        return f"{type(self).__name__}({', '.join(parts)})"

    def select(self, lanes: Tensor, other: Self) -> Self:
        """Take ``other`` in the lanes that are marked and ``self`` in the rest.

        Args:
            lanes: (B,) bool, True where ``other`` is taken.
            other: The same type with the same B and shapes.

        Returns:
            A new value; neither input is changed.

        Raises:
            InvalidValueError: Only one of the two has what the other leaves out.
        """
        selected: dict[str, object] = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if (mine is None) != (theirs is None):
                raise InvalidValueError(
                    f"{field.name} must be given in both {type(self).__name__}s or in neither; got it in "
                    f"{'the other' if mine is None else 'this'} one only. Leave it out, or give it to both."
                )
            if isinstance(mine, Tensor):
                mask = lanes.reshape(-1, *[1] * (mine.ndim - 1))
                selected[field.name] = torch.where(mask, theirs, mine)
            elif isinstance(mine, Lanes):
                selected[field.name] = mine.select(lanes, theirs)
            elif isinstance(mine, tuple):
                selected[field.name] = tuple(
                    t if k else m for k, m, t in zip(lanes.tolist(), mine, theirs, strict=True)
                )
            else:
                selected[field.name] = mine
        return type(self)(**selected)

    def clone(self) -> Self:
        """Return a deep copy that later steps of a simulator do not change."""
        copied: dict[str, object] = {}
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            copied[field.name] = value.clone() if isinstance(value, Tensor | Lanes) else value
        return type(self)(**copied)


def _brief(value: object) -> str:
    if isinstance(value, Tensor):
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{device}"
    if isinstance(value, tuple) and len(value) > 3:  # names of lanes
        return f"({', '.join(map(repr, value[:2]))}, … {len(value)} in all)"
    return repr(value)


@dataclass(frozen=True, repr=False)
class Scene(Lanes):
    """What there is to see, at one moment.

    Attributes:
        image: (B, H, W, 3) uint8.
        label: (B,) int64, -1 where unknown.
        px_per_deg: (B,) float32, pixels of ``image`` for one degree of visual angle.
        name: B names, for people.
        time_ms: (B,) float64, the moment of the frame; 0 for a still image.
        objects: (B, H, W) uint8, how surely each pixel belongs to the main object, 255 where certain; None where
            it is unknown. It is what a teacher knows: no observation holds it.
    """

    image: Tensor
    label: Tensor
    px_per_deg: Tensor
    name: tuple[str, ...]
    time_ms: Tensor
    objects: Tensor | None = None


@dataclass(frozen=True, repr=False)
class Glimpse(Lanes):
    """What the eye delivers at one fixation, registered with the scene.

    Attributes:
        image: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8, 255 where sharp, 0 where nothing was seen.
        patch: (B, S, h, w, 3) uint8, what a sensor with a geometry of its own delivers (``window``, ``multiscale``,
            ``log_polar``): S crops or views of h x w; None for the others.
    """

    image: Tensor
    acuity: Tensor
    patch: Tensor | None = None


@dataclass(frozen=True, repr=False)
class Belief(Lanes):
    """The sharpest view of every pixel so far.

    Attributes:
        image: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8, 255 where sharp, 0 where nothing was seen.
    """

    image: Tensor
    acuity: Tensor


@dataclass(frozen=True, repr=False)
class Saccade(Lanes):
    """One movement of the eye.

    Attributes:
        start_px: (B, 2) float32.
        target_px: (B, 2) float32, where it was aimed.
        landing_px: (B, 2) float32, where it landed.
        amplitude_deg: (B,) float32, from start to landing.
        duration_ms: (B,) float32.
    """

    start_px: Tensor
    target_px: Tensor
    landing_px: Tensor
    amplitude_deg: Tensor
    duration_ms: Tensor


@dataclass(frozen=True, repr=False)
class Prediction(Lanes):
    """What a network believes about the whole scene.

    Attributes:
        image: (B, H, W, 3) float32 in [0, 1].
        std: (B, H, W) float32, the network's own uncertainty of ``image``, or None.
        latent: (B, ...) float32, the network's code, or None.
    """

    image: Tensor
    std: Tensor | None = None
    latent: Tensor | None = None


@dataclass(frozen=True, repr=False)
class State(Lanes):
    """Everything that a simulator knows about its lanes.

    Attributes:
        scene: The scenes at this moment.
        fixation_px: (B, 2) float32.
        belief: What has been seen in this episode.
        clock_ms: (B,) float64, time since the episode began.
        step: (B,) int64, saccades made in this episode.
        episode: (B,) int64, episodes finished since the lane was seeded.
        seed: (B,) int64.
    """

    scene: Scene
    fixation_px: Tensor
    belief: Belief
    clock_ms: Tensor
    step: Tensor
    episode: Tensor
    seed: Tensor


class LaneMeasurements(NamedTuple):
    """What a simulator measures of its lanes: NumPy arrays where its kernels run, tensors elsewhere.

    Attributes:
        belief: (B, H, W, 3) uint8.
        belief_acuity: (B, H, W) uint8.
        fixation_px: (B, 2) float32.
        target_px: (B, 2) float32.
        amplitude_deg: (B,) float32.
        duration_ms: (B,) float32.
        clock_ms: (B,) float64.
        step: (B,) int64.
        coverage: (B,) float32, acuity-weighted share of the scene seen so far.
        coverage_before: (B,) float32, before the last saccade.
    """

    belief: Any
    belief_acuity: Any
    fixation_px: Any
    target_px: Any
    amplitude_deg: Any
    duration_ms: Any
    clock_ms: Any
    step: Any
    coverage: Any
    coverage_before: Any
