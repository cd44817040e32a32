"""Scenes made ready for an eye: fitted to a size, worked out by a retina, and kept for the next episode."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from foveasim import check
from foveasim.errors import SceneError
from foveasim.picture import Picture, fit_picture
from foveasim.retina import Prepared, Retina
from foveasim.scenes import FittedScenes, SceneSource
from foveasim.types import Scene

__all__ = ["Stage"]


class Stage:
    """The scenes of a source as a retina needs them.

    Attributes:
        skipped: What was wrong with each scene that could not be read, by index.

    Args:
        source: Where the pictures come from.
        retina: Whose ``prepare`` is called.
        size: (H, W) to which pictures are fitted; None leaves each as it is.
        fit: "crop", "pad" or "stretch".
        cache_bytes: Bound on what is kept prepared, and again on the fitted pictures. Moving scenes are not kept.
        device: Where prepared scenes live.

    Raises:
        InvalidValueError: An option out of range.
    """

    def __init__(
        self,
        source: SceneSource,
        retina: Retina,
        size: tuple[int, int] | None,
        fit: str,
        cache_bytes: int,
        device: torch.device,
    ) -> None:
        self.source, self.retina, self.size, self.fit, self.device = source, retina, size, fit, device
        self._room = int(check.number("cache_bytes", cache_bytes, 0))
        self._fitted = FittedScenes(source, size, fit, cache_bytes=self._room)
        self._kept: dict[int, tuple[Picture, Prepared]] = {}
        self.skipped: dict[int, str] = {}

    def load(self, index: int, time_ms: float = 0.0) -> tuple[Picture, Prepared]:
        """Return a scene by its index: the fitted picture, and one prepared lane.

        Raises:
            InvalidValueError: The index is out of range.
            SceneError: It cannot be read.
        """
        found = self._kept.get(index)
        if found is not None:
            return found
        if index in self.skipped:
            raise SceneError(self.skipped[index])
        loaded = self.prepare([self._fitted.picture(index, time_ms)])[0]
        taken = sum(part.nbytes for part in (loaded[1].image, *loaded[1].parts))
        # Once full, the cache stays as it is: scenes are drawn at random, so evicting one for another gains nothing.
        if not self.source.moving and taken <= self._room:
            self._kept[index] = loaded
            self._room -= taken
        return loaded

    def skip(self, index: int, error: SceneError) -> None:
        """Note that a scene cannot be read, and warn of it once, naming and counting it."""
        if index not in self.skipped:
            self.skipped[index] = str(error)
            warnings.warn(
                f"skipped a scene, number {len(self.skipped)} of {len(self.source)} that cannot be read: {error}",
                UserWarning,
                stacklevel=2,
            )

    def prepare(self, pictures: Sequence[Picture]) -> list[tuple[Picture, Prepared]]:
        """Fit and prepare given pictures."""
        ready = []
        for picture in pictures:
            fitted = fit_picture(picture, self.size, self.fit)
            ready.append((fitted, self.retina.prepare(self._as_scene(fitted))))
        return ready

    def _as_scene(self, picture: Picture) -> Scene:
        return Scene(
            torch.from_numpy(np.require(picture.image, requirements="W")[None]).to(self.device),
            torch.tensor([picture.label], device=self.device),
            torch.tensor([picture.px_per_deg], dtype=torch.float32, device=self.device),
            (picture.name,),
            torch.zeros(1, device=self.device),
        )
