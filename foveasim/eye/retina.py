"""Retinas: what an eye delivers of a scene when it fixates a point.

A retina is a masking technique with a gaze. It works in two steps: ``prepare`` does once for each scene what does not
depend on the fixation (pyramids, mean colours), ``sense`` does the rest at every glimpse. Calling the retina does both.

Convention:
    Gaze is resolved to the pixel in which the fixation lies, so acuity is greatest at that pixel. Acuity is uint8, 255
    where the glimpse is as sharp as the scene, 0 where nothing of the scene can be read from it. On the CPU the kernels
    of ``foveasim.eye.kernels.sense`` do the work, elsewhere torch; the two agree to one grey level.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.registry import Registry
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

__all__ = [
    "NOTHING_KNOWN",
    "RETINAS",
    "Full",
    "Prepared",
    "Retina",
    "SensePlan",
    "as_glimpse",
    "fresh_arrays",
    "load_kernels",
    "make_retina",
    "run_plan",
]


@dataclass(frozen=True)
class Prepared:
    """What a retina has worked out of its scenes beforehand; only that retina can use it.

    Lanes may share scenes: with ``rows``, image and parts hold N scenes, and each of B lanes stands before one of them.
    Without, lane b stands before scene b, and N is B.

    Attributes:
        image: (N, H, W, 3) uint8, the scenes.
        px_per_deg: (B,) float32.
        parts: Further tensors with a leading scene axis, by the retina's own order.
        nested: Whether ``image`` is no tensor of its own but ``parts[0][:, 0]``.
        rows: (B,) int64, the scene of each lane, or None.
    """

    image: Tensor
    px_per_deg: Tensor
    parts: tuple[Tensor, ...] = ()
    nested: bool = False
    rows: Tensor | None = None

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scenes."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of image and parts."""
        return sum(part.nbytes for part in self.parts) + (0 if self.nested else self.image.nbytes)

    @functools.cached_property
    def stored(self) -> tuple[Any, ...]:
        """What is held of each scene: on the CPU as NumPy views, which cost a tenth of torch's."""
        whole = self.parts if self.nested else (self.image, *self.parts)
        parts = [part for part in whole if part.numel() > 0]
        return tuple(part.numpy() for part in parts) if self.image.device.type == "cpu" else tuple(parts)

    @functools.cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The image and the parts as NumPy views, CPU only: images (…, H, W, 3) as rows (…, H, 3 W) for the kernels."""
        return tuple(
            part.view(*part.shape[:-2], part.shape[-2] * part.shape[-1]).numpy() if part.ndim > 3 else part.numpy()
            for part in (self.image, *self.parts)
        )

    @functools.cached_property
    def scale(self) -> NDArray[np.float32]:
        """A view of ``px_per_deg`` as an array, CPU only."""
        return self.px_per_deg.numpy()

    @functools.cached_property
    def scenes(self) -> NDArray[np.int64]:
        """(B,) int64, the scene of each lane, CPU only; a view of ``rows`` where there are some."""
        return np.arange(len(self.px_per_deg)) if self.rows is None else self.rows.numpy()

    def by_lane(self, part: Tensor) -> Tensor:
        """Return the image or one of the parts, lane by lane: a copy where lanes share scenes."""
        return part if self.rows is None else part[self.rows]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views: those of a copy would show other memory than its tensors."""
        names = [field.name for field in fields(self) if not (self.nested and field.name == "image")]
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        vars(self).update(state)
        if self.nested:
            vars(self)["image"] = self.parts[0][:, 0]

    def room(self, scenes: int, lanes: int | None = None) -> Prepared:
        """Return room for scenes like these: unwritten memory, of which the system takes what is written.

        Args:
            scenes: N.
            lanes: B lanes that share the scenes, all of them before the first; None gives each scene a lane.
        """

        def empty(part: Tensor, count: int = scenes) -> Tensor:
            return torch.empty(count, *part.shape[1:], dtype=part.dtype, device=part.device)

        parts = tuple(empty(part) for part in self.parts)
        image = parts[0][:, 0] if self.nested else empty(self.image)
        rows = None if lanes is None else torch.zeros(lanes, dtype=torch.int64, device=self.image.device)
        return Prepared(image, empty(self.px_per_deg, lanes or scenes), parts, self.nested, rows)

    def put(self, scene: int, other: Prepared) -> None:
        """Overwrite a scene in place, but for its lanes' ``px_per_deg``.

        Args:
            scene: Which.
            other: One scene of the same retina and size.
        """
        for here, there in zip(self.stored, other.stored, strict=True):
            here[scene] = there[0]

    def take(self, lanes: Tensor) -> Prepared:
        """Return some lanes, (K,) int64: a copy of their scenes, or where scenes are shared the same ones."""
        if self.rows is not None:
            return replace(self, px_per_deg=self.px_per_deg[lanes], rows=self.rows[lanes])
        parts = tuple(part[lanes] for part in self.parts)
        image = parts[0][:, 0] if self.nested else self.image[lanes]
        return Prepared(image, self.px_per_deg[lanes], parts, self.nested)

    def unshared(self) -> Prepared:
        """Return the same with a copy of its scene for each lane, where scenes are shared."""
        if self.rows is None:
            return self
        parts = tuple(part[self.rows] for part in self.parts)
        image = parts[0][:, 0] if self.nested else self.image[self.rows]
        return Prepared(image, self.px_per_deg.clone(), parts, self.nested)


class SensePlan(NamedTuple):
    """How the CPU makes a glimpse: a kernel and all that it reads.

    Attributes:
        kernel: Called as ``kernel(*arguments, image, acuity, first, last)`` it writes (B, H, W, 3) and (B, H, W) uint8
            in the lanes from first to last, without the interpreter's lock. One that ``widens`` takes ``known`` and
            ``coverage`` of ``retina_kernels.widen_coverage`` behind ``acuity`` and does its work on the way, or none
            where they are ``NOTHING_KNOWN``.
        arguments: What it reads.
        widens: Whether it does.
        reusable: Whether it serves later glimpses too, for as long as the same scenes stand before the lanes: it holds
            the fixations that it was given, which change in place, and nothing that was drawn for one glimpse.
    """

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    widens: bool = False
    reusable: bool = False


@dataclass(frozen=True)
class Retina(ABC):
    """Base of every retina.

    Attributes:
        name: Its name in ``RETINAS``.
        needs_key: Whether it draws random numbers.
        shares: Whether on the CPU it uses ``Prepared.rows``, so that lanes can share scenes. It is not inherited: a
            subclass that does declares it itself.
    """

    name: ClassVar[str]
    needs_key: ClassVar[bool] = False
    shares: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Reset what a base class declares of sharing, as a subclass may read scenes in its own way."""
        super().__init_subclass__(**kwargs)
        cls.shares = bool(cls.__dict__.get("shares", False))

    @property
    def zoomable(self) -> bool:
        """Whether ``sense`` takes a zoom."""
        return False

    @property
    def leaks(self) -> bool:
        """Whether a glimpse depends on pixels whose acuity is 0."""
        return False

    @abstractmethod
    def prepare(self, scene: Scene) -> Prepared:
        """Work out what does not depend on the fixation."""

    @abstractmethod
    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Deliver a glimpse.

        Args:
            prepared: From :meth:`prepare`.
            fixation_px: (B, 2) float32, px.
            key: For retinas that draw random numbers.
            zoom: (B,) float32, how far every length of the retina is stretched over the scene, coarsening what is seen
                by the same factor; None for 1.
        """

    def plan(
        self, prepared: Prepared, fixation_px: NDArray[np.float32], key: Key, zoom: NDArray[np.float32] | None
    ) -> SensePlan | None:
        """Return how :meth:`sense` works on the CPU, for callers to whom torch's views cost more than a kernel.

        Args:
            prepared: As in :meth:`sense`.
            fixation_px: (B, 2) float32, px.
            key: For retinas that draw random numbers.
            zoom: (B,) float32, or None for 1.

        Returns:
            The plan; None where the retina has none.
        """
        return None

    def sense_arrays(
        self, prepared: Prepared, fixation_px: NDArray[np.float32], key: Key, zoom: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Do what :meth:`plan` says.

        Returns:
            (B, H, W, 3) and (B, H, W) uint8; None where there is no plan.
        """
        plan = self.plan(prepared, fixation_px, key, zoom)
        return None if plan is None else _run(plan, len(fixation_px), prepared.size)

    def scaled(self, factor: float) -> Self:
        """Return this retina with its fovea made larger or smaller by a factor."""
        validation.number("factor", factor, 0, open_low=True)
        return self

    def at_scale(self, factor: float) -> Self | None:
        """Return this retina for the same scene at another number of pixels, so that it delivers the same in degrees.

        Args:
            factor: How many times as many pixels a side of the scene has; below 1 for fewer.

        Returns:
            The retina; None where there is none that delivers the same, because its lengths are in pixels.
        """
        validation.number("factor", factor, 0, open_low=True)
        return self

    def __call__(self, scene: Scene, fixation_px: Tensor, key: Key | None = None) -> Glimpse:
        """Look at scenes.

        Args:
            scene: B lanes.
            fixation_px: (B, 2) float32, px. Gaze beyond the scene's edge stops at the edge.
            key: For retinas that draw random numbers: ``Key.of(seed, lanes)``.

        Returns:
            The glimpse, of the scene's size.

        Raises:
            InvalidTypeError: The scene's image is not uint8.
            InvalidValueError: A wrong shape, a fixation or px_per_deg that cannot be used, or a key that is missing or
                has another number of lanes.
        """
        image = validation.image_batch("scene.image", scene.image)
        lanes = len(image)
        point = validation.points("fixation_px", fixation_px, lanes).to(image.device)
        point = geometry.clamp_px(point, (image.shape[1], image.shape[2])).contiguous()
        scale = scene.px_per_deg
        if scale.shape != (lanes,) or not bool(((scale > 0) & scale.isfinite()).all()):
            raise InvalidValueError(f"scene.px_per_deg must be ({lanes},), finite and above 0; got {scale.tolist()}.")
        if self.needs_key:
            if key is None:
                raise InvalidValueError(f"retina {self.name!r} draws random numbers; give key=Key.of(seed, lanes).")
            if len(key.seed) != lanes:
                raise InvalidValueError(f"key must have {lanes} lanes; got {len(key.seed)}. Use Key.of(seed, lanes).")
        return self.sense(self.prepare(replace(scene, image=image)), point, key)


NOTHING_KNOWN: tuple[NDArray[np.uint8], NDArray[np.float32]] = (
    np.empty((0, 0, 0), np.uint8),
    np.empty((2, 0), np.float32),
)
"""Makes the kernel of a :class:`SensePlan` sense only."""

RETINAS = Registry[Retina]("retina", group="foveasim.retinas")
RETINAS.add("pyramid", "foveasim.eye.pyramid:Pyramid")
RETINAS.add("disc", "foveasim.eye.masks:Disc")
RETINAS.add("two_spot", "foveasim.eye.masks:TwoSpot")
RETINAS.add("patches", "foveasim.eye.masks:Patches")
RETINAS.add("window", "foveasim.eye.receptors:Window")
RETINAS.add("multiscale", "foveasim.eye.receptors:Multiscale")
RETINAS.add("log_polar", "foveasim.eye.receptors:LogPolar")


def make_retina(retina: str | Retina, /, **options: object) -> Retina:
    """Build a retina.

    Args:
        retina: A name of ``RETINAS``, ``package.module:Class``, or a retina, which is returned as it is.
        **options: Passed to the class.

    Raises:
        UnknownNameError: Unknown name; the message lists the choices.
        InvalidTypeError: An option that it does not take, or not a retina.
        InvalidValueError: An option out of range.

    Example:
        >>> make_retina("disc", hidden_ratio=0.8).name
        'disc'
    """
    made = RETINAS.make(retina, **options) if isinstance(retina, str) else retina
    if not isinstance(made, Retina):
        raise InvalidTypeError(f"retina must be a name or a foveasim.eye.retina.Retina; got {made!r}.")
    if isinstance(retina, str) or not options:
        return made
    known = [field.name for field in fields(made)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InvalidTypeError(
            f"retina {made.name!r} has no option {unknown[0]!r}. It takes {', '.join(known) or 'none'}."
        )
    return replace(made, **options)


@RETINAS.register("full")
@dataclass(frozen=True)
class Full(Retina):
    """Sees everything sharply, wherever it looks."""

    name: ClassVar[str] = "full"
    shares: ClassVar[bool] = True

    def prepare(self, scene: Scene) -> Prepared:
        """Keep the scene."""
        return Prepared(scene.image, scene.px_per_deg)

    def sense(
        self,
        prepared: Prepared,
        fixation_px: Tensor,
        key: Key | None = None,
        zoom: Tensor | None = None,
    ) -> Glimpse:
        """Deliver the scene."""
        image = prepared.image.clone() if prepared.rows is None else prepared.by_lane(prepared.image)
        return Glimpse(image, torch.full_like(image[..., 0], 255))


def fresh_arrays(lanes: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an unwritten image, (B, H, W, 3), and acuity, (B, H, W), for a kernel to write."""
    height, width = size
    return np.empty((lanes, height, width, 3), np.uint8), np.empty((lanes, height, width), np.uint8)


@functools.cache
def load_kernels() -> ModuleType:
    """Return ``foveasim.eye.kernels.sense``. At first use: numba takes 0.4 s to import; an import statement 0.3 us."""
    return importlib.import_module("foveasim.eye.kernels.sense")


def _run(plan: SensePlan, lanes: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image, acuity = fresh_arrays(lanes, size)
    plan.kernel(*plan.arguments, image, acuity, *(NOTHING_KNOWN if plan.widens else ()), 0, lanes)
    return image, acuity


def run_plan(plan: SensePlan, lanes: int, size: tuple[int, int]) -> Glimpse:
    """Return the glimpses of B lanes, of scenes of a size, (H, W), that a plan makes."""
    return as_glimpse(*_run(plan, lanes, size))


def as_glimpse(image: NDArray[np.uint8], acuity: NDArray[np.uint8]) -> Glimpse:
    """Return what a kernel wrote as a glimpse."""
    return Glimpse(torch.from_numpy(image), torch.from_numpy(acuity))
