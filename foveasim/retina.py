"""Retinas: what an eye delivers of a scene when it fixates a point.

A retina is a masking technique with a gaze. It works in two steps: ``prepare`` does once for each scene what does not
depend on the fixation (pyramids, mean colours), ``sense`` does the rest at every glimpse. Calling the retina does both.

Convention:
    Gaze is resolved to the pixel in which the fixation lies, so acuity is greatest at that pixel. Acuity is uint8, 255
    where the glimpse is as sharp as the scene, 0 where nothing of the scene can be read from it. On the CPU the kernels of
    ``foveasim.kernels`` do the work, elsewhere torch; the two agree to one grey level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from foveasim import check
from foveasim.errors import InvalidValueError
from foveasim.registry import Registry
from foveasim.rng import Key
from foveasim.types import Glimpse, Scene

__all__ = ["RETINAS", "Full", "Prepared", "Retina", "fresh_glimpse", "make_retina", "rows"]


@dataclass(frozen=True)
class Prepared:
    """What a retina has worked out of its scenes beforehand.

    Attributes:
        image: (B, H, W, 3) uint8, the scene.
        px_per_deg: (B,) float32.
        parts: Further tensors with a leading lane axis, by the retina's own order.
    """

    image: Tensor
    px_per_deg: Tensor
    parts: tuple[Tensor, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene."""
        return self.image.shape[1], self.image.shape[2]

    def put(self, lanes: Tensor, other: Prepared) -> None:
        """Overwrite lanes in place.

        Args:
            lanes: (K,) int64, which lanes.
            other: K lanes of the same retina and size.
        """
        for mine, theirs in zip((self.image, self.px_per_deg, *self.parts), (other.image, other.px_per_deg, *other.parts), strict=True):
            mine[lanes] = theirs

    def take(self, lanes: Tensor) -> Prepared:
        """Return a copy of some lanes, (K,) int64."""
        return Prepared(self.image[lanes], self.px_per_deg[lanes], tuple(part[lanes] for part in self.parts))


@dataclass(frozen=True)
class Retina(ABC):
    """Base of every retina.

    Attributes:
        name: Its name in ``RETINAS``.
        zoomable: Whether ``sense`` takes a zoom.
        needs_key: Whether it draws random numbers.
    """

    name: ClassVar[str]
    zoomable: ClassVar[bool] = False
    needs_key: ClassVar[bool] = False

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
        out: Glimpse | None = None,
    ) -> Glimpse:
        """Deliver a glimpse.

        Args:
            prepared: From :meth:`prepare`.
            fixation_px: (B, 2) float32, px.
            key: For retinas that draw random numbers.
            zoom: (B,) float32, how far every length of the retina is stretched over the scene, coarsening what is seen
                by the same factor; None for 1.
            out: Written and returned where given; a fresh glimpse otherwise.
        """

    def scaled(self, factor: float) -> Self:
        """Return this retina with its fovea made larger or smaller by a factor."""
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
            InvalidValueError: A wrong shape, a fixation that is not finite, or a key that is missing.
        """
        check.image_batch("scene.image", scene.image)
        point = check.points("fixation_px", fixation_px, len(scene.image)).to(scene.image.device)
        if self.needs_key and key is None:
            raise InvalidValueError(f"retina {self.name!r} draws random numbers; give key=Key.of(seed, lanes).")
        return self.sense(self.prepare(scene), point, key)


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
        InvalidTypeError: An option that it does not take.
        InvalidValueError: An option out of range.

    Example:
        >>> make_retina("disc", hidden_ratio=0.8).name
        'disc'
    """
    if isinstance(retina, str):
        return RETINAS.make(retina, **options)
    return replace(retina, **options) if options else retina


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
        out: Glimpse | None = None,
    ) -> Glimpse:
        """Deliver the scene."""
        out = fresh_glimpse(prepared) if out is None else out
        out.image.copy_(prepared.image)
        out.acuity.fill_(255)
        return out


def fresh_glimpse(prepared: Prepared) -> Glimpse:
    """Return an unwritten glimpse of the size of its scenes."""
    image = prepared.image
    return Glimpse(torch.empty_like(image), torch.empty(image.shape[:3], dtype=torch.uint8, device=image.device))


def rows(image: Tensor) -> Tensor:
    """View (..., H, W, 3) as (..., H, 3 W), the form that kernels take."""
    return image.view(*image.shape[:-2], image.shape[-2] * image.shape[-1])



