"""Retinas: what an eye delivers of a scene when it fixates a point.

A retina is a masking technique with a gaze. It works in two steps: ``prepare`` does once for each scene what does not
depend on the fixation (pyramids, mean colours), ``sense`` does the rest at every glimpse. Calling the retina does both.

Convention:
    Gaze is resolved to the pixel in which the fixation lies, so acuity is greatest at that pixel. Acuity is uint8, 255
    where the glimpse is as sharp as the scene, 0 where nothing of the scene can be read from it. On the CPU the kernels
    of ``foveasim.retina_kernels`` do the work, elsewhere torch; the two agree to one grey level.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check, geometry
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
    "as_glimpse",
    "fresh_arrays",
    "load_kernels",
    "make_retina",
]


@dataclass(frozen=True)
class Prepared:
    """What a retina has worked out of its scenes beforehand; only that retina can use it.

    Attributes:
        image: (B, H, W, 3) uint8, the scene.
        px_per_deg: (B,) float32.
        parts: Further tensors with a leading lane axis, by the retina's own order.
    """

    image: Tensor
    px_per_deg: Tensor
    parts: tuple[Tensor, ...] = ()

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene."""
        return self.image.shape[1], self.image.shape[2]

    @functools.cached_property
    def stored(self) -> tuple[Any, ...]:
        """Image, px_per_deg and what is in the parts: on the CPU as NumPy views, which cost a tenth of torch's."""
        kept = [part for part in (self.image, self.px_per_deg, *self.parts) if part.numel() > 0]
        return tuple(part.numpy() for part in kept) if self.image.device.type == "cpu" else tuple(kept)

    @functools.cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The image and the parts as NumPy views, CPU only: images (…, H, W, 3) as rows (…, H, 3 W) for the kernels."""
        return tuple(
            part.view(*part.shape[:-2], part.shape[-2] * part.shape[-1]).numpy() if part.ndim > 3 else part.numpy()
            for part in (self.image, *self.parts)
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views: those of a copy would show other memory than its tensors."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def put(self, lane: int, other: Prepared) -> None:
        """Overwrite a lane in place.

        Args:
            lane: Which.
            other: One lane of the same retina and size.
        """
        for here, there in zip(self.stored, other.stored, strict=True):
            here[lane] = there[0]

    def take(self, lanes: Tensor) -> Prepared:
        """Return a copy of some lanes, (K,) int64."""
        return Prepared(self.image[lanes], self.px_per_deg[lanes], tuple(part[lanes] for part in self.parts))


@dataclass(frozen=True)
class Retina(ABC):
    """Base of every retina.

    Attributes:
        name: Its name in ``RETINAS``.
        needs_key: Whether it draws random numbers.
    """

    name: ClassVar[str]
    needs_key: ClassVar[bool] = False

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

    def sense_arrays(
        self, prepared: Prepared, fixation_px: NDArray[np.float32], key: Key, zoom: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Deliver image and acuity of :meth:`sense` on the CPU without torch, whose views cost more than a kernel.

        Returns:
            (B, H, W, 3) and (B, H, W) uint8; None where the retina has no such path.
        """
        return None

    def look_arrays(
        self,
        prepared: Prepared,
        fixation_px: NDArray[np.float32],
        key: Key,
        zoom: NDArray[np.float32] | None,
        known: NDArray[np.uint8],
        coverage: NDArray[np.float32],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Do what :meth:`sense_arrays` does and note what has been seen, which some retinas do on the way.

        Args:
            prepared: As in :meth:`sense`, as are ``fixation_px``, ``key`` and ``zoom``.
            fixation_px: (B, 2) float32, px.
            key: For retinas that draw random numbers.
            zoom: (B,) float32, or None for 1.
            known: (B, H, W) uint8, the greatest acuity of each pixel so far, updated.
            coverage: (2, B) float32, its mean afterwards and before, 0 to 1, written.
        """
        seen = self.sense_arrays(prepared, fixation_px, key, zoom)
        if seen is not None:
            load_kernels().widen_coverage(known, seen[1], coverage)
        return seen

    def scaled(self, factor: float) -> Self:
        """Return this retina with its fovea made larger or smaller by a factor."""
        check.number("factor", factor, 0, open_low=True)
        return self

    def at_scale(self, factor: float) -> Self | None:
        """Return this retina for the same scene at another number of pixels, so that it delivers the same in degrees.

        Args:
            factor: How many times as many pixels a side of the scene has; below 1 for fewer.

        Returns:
            The retina; None where there is none that delivers the same, because its lengths are in pixels.
        """
        check.number("factor", factor, 0, open_low=True)
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
        image = check.image_batch("scene.image", scene.image)
        lanes = len(image)
        point = check.points("fixation_px", fixation_px, lanes).to(image.device)
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
"""Tells a kernel of :meth:`Retina.look_arrays` to sense only."""

RETINAS = Registry[Retina]("retina", group="foveasim.retinas")
RETINAS.add("pyramid", "foveasim.retina_pyramid:Pyramid")
RETINAS.add("disc", "foveasim.retina_masks:Disc")
RETINAS.add("two_spot", "foveasim.retina_masks:TwoSpot")
RETINAS.add("patches", "foveasim.retina_masks:Patches")
RETINAS.add("window", "foveasim.retina_receptors:Window")
RETINAS.add("multiscale", "foveasim.retina_receptors:Multiscale")
RETINAS.add("log_polar", "foveasim.retina_receptors:LogPolar")


def make_retina(retina: str | Retina, **options: object) -> Retina:
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
        raise InvalidTypeError(f"retina must be a name or a foveasim.retina.Retina; got {made!r}.")
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
        return Glimpse(prepared.image.clone(), torch.full_like(prepared.image[..., 0], 255))


def fresh_arrays(lanes: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an unwritten image, (B, H, W, 3), and acuity, (B, H, W), for a kernel to write."""
    height, width = size
    return np.empty((lanes, height, width, 3), np.uint8), np.empty((lanes, height, width), np.uint8)


@functools.cache
def load_kernels() -> ModuleType:
    """Return ``foveasim.retina_kernels``. At first use: numba takes 0.4 s to import; an import statement 0.3 us."""
    return importlib.import_module("foveasim.retina_kernels")


def as_glimpse(image: NDArray[np.uint8], acuity: NDArray[np.uint8]) -> Glimpse:
    """Return what a kernel wrote as a glimpse."""
    return Glimpse(torch.from_numpy(image), torch.from_numpy(acuity))
