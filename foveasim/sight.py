"""One eye seen at two resolutions: the scene's own for people, a small one for agent and network.

Both look at the same scene from the same fixations, so what is shown is crisp while the mind works on little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry
from foveasim.envs.observation import ObservationCode
from foveasim.picture import Picture, fit_picture
from foveasim.retina import Retina
from foveasim.saccade import Saccades
from foveasim.scenes import SceneSource
from foveasim.simulator import Simulator

__all__ = ["EYE_LONG_SIDE_PX", "MIND_SHORT_SIDE_PX", "Sight"]

EYE_LONG_SIDE_PX = 720
"""Longest side at which the eye works. Larger scenes are shrunk, to keep 60 frames a second; no panel shows more."""

MIND_SHORT_SIDE_PX = 96
"""Short side at which agent and network work; the shipped networks were trained at it."""

Image = NDArray[np.uint8]


class _Resized:
    """A source whose pictures are brought to a size that depends on theirs."""

    def __init__(self, source: SceneSource, rule: Callable[[tuple[int, int]], tuple[int, int]]) -> None:
        self._source, self._rule = source, rule

    @property
    def moving(self) -> bool:
        return self._source.moving

    @property
    def labels(self) -> tuple[str, ...]:
        return self._source.labels

    def __len__(self) -> int:
        return len(self._source)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        picture = self._source.picture(index, time_ms)
        return fit_picture(picture, self._rule(picture.size), "stretch")


def _eye_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, EYE_LONG_SIDE_PX / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def _mind_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = MIND_SHORT_SIDE_PX / min(size)
    return max(8, round(size[0] * scale / 8) * 8), max(8, round(size[1] * scale / 8) * 8)


class Sight:
    """An eye before one scene.

    Args:
        source: Where the scene comes from.
        index: Which one.
        retina: What the eye delivers.
        saccades: What it can do; its ``dwell_ms`` is not used, time is given from outside.
        half_life_ms: Time after which half of what was seen is forgotten, or None.
        seed: Of the retina's and the saccades' random numbers.
        fixation_px: (x, y) where it starts, px of the scene as the eye sees it; None for the centre.

    Raises:
        SceneError: The scene cannot be read.

    Attributes:
        scene: (H, W, 3) uint8, the scene at the eye's resolution. These arrays are read-only and replaced, not changed.
        glimpse: (H, W, 3) uint8, what the eye sees.
        belief: (H, W, 3) uint8, what it has seen so far.
        acuity: (H, W) uint8, how sharply.
        fovea_px: How far from the fixation the eye sees at half acuity or better; 0 where it does so everywhere.
    """

    def __init__(
        self,
        source: SceneSource,
        index: int,
        retina: Retina,
        *,
        saccades: Saccades,
        half_life_ms: float | None = None,
        seed: int = 0,
        fixation_px: tuple[float, float] | None = None,
    ) -> None:
        able = Saccades(
            saccades.max_amplitude_deg, saccades.scatter, saccades.slope_ms_per_deg, saccades.intercept_ms, dwell_ms=0
        )
        exact = Saccades(dwell_ms=0)
        self._eye = Simulator(_Resized(source, _eye_size), retina, saccades=able, half_life_ms=half_life_ms)
        self._mind = Simulator(_Resized(source, _mind_size), retina, saccades=exact, half_life_ms=half_life_ms)
        start = None if fixation_px is None else torch.tensor([fixation_px], dtype=torch.float32)
        self._eye.begin(seed, index=index, fixation_px=start)
        self._mind.begin(seed, index=index)
        self._mind.fixation_px.copy_(geometry.rescale_px(self._eye.fixation_px, self._eye.size, self._mind.size))
        self.retina = retina
        self.name = self._eye.names[0]
        self._looked_ms = 0.0
        self._show_scene()
        self._look(0.0)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene as the eye sees it, px."""
        return self._eye.size

    @property
    def fixation_px(self) -> tuple[float, float]:
        """Where the eye is, or lands."""
        x, y = self._eye.fixation_px[0].tolist()
        return x, y

    @property
    def gain(self) -> float:
        """How much the last glimpse added to the acuity-weighted share of the scene that has been seen."""
        return float(self._mind.coverage[0] - self._mind.coverage_before[0])

    def depart(self, target_px: tuple[float, float]) -> float:
        """Move the eye, without looking yet.

        Args:
            target_px: (x, y), px of the scene. Gaze stops at its edge.

        Returns:
            How long the saccade takes, ms.
        """
        self._eye.advance(torch.tensor([target_px], dtype=torch.float32))
        return float(self._eye.duration_ms[0])

    def look(self, at_ms: float) -> None:
        """Take a glimpse from where the eye now is.

        Args:
            at_ms: Time since the scene began; forgetting goes by it.
        """
        self._follow()
        self._look(at_ms)

    def watch(self, at_ms: float, *, resting: bool) -> bool:
        """Bring a moving scene to the present.

        Args:
            at_ms: Time since the scene began.
            resting: Whether the eye rests, and so sees the movement.

        Returns:
            Whether the eye saw something new.
        """
        for simulator in (self._eye, self._mind):
            simulator.clock_ms.fill_(at_ms)
            simulator.refresh()
        changed = not np.array_equal(self.scene, self._eye.prepared.image[0].numpy())
        if changed:
            self._show_scene()
        if changed and resting:
            self._look(at_ms)
        return changed and resting

    def observation(self, time_left: float) -> dict[str, NDArray[Any]]:
        """Return everything that an agent may ask for, with its lane axis.

        Args:
            time_left: Share of the budget that is left, 0 to 1.
        """
        code = ObservationCode(belief=True, patch=self._mind.glimpse.patch is not None, scene=True)
        half = np.array([self._mind.size[1] / 2, self._mind.size[0] / 2], np.float32)
        return code.build(self._mind, half, np.array([[time_left]], np.float32))

    def _follow(self) -> None:
        self._mind.advance(geometry.rescale_px(self._eye.fixation_px, self._eye.size, self._mind.size))

    def _look(self, at_ms: float) -> None:
        for simulator in (self._eye, self._mind):
            simulator.duration_ms.fill_(at_ms - self._looked_ms)
            simulator.look()
        self._looked_ms = at_ms
        self.glimpse = _frozen(self._eye.glimpse.image)
        self.fovea_px = _fovea_px(self._eye.glimpse.acuity[0].numpy() >= 128, self.fixation_px)
        self.belief = _frozen(self._eye.belief.image.clone())
        self.acuity = _frozen(self._eye.belief.acuity.clone())

    def _show_scene(self) -> None:
        self.scene = _frozen(self._eye.prepared.image.clone())


def _fovea_px(sharp: NDArray[np.bool_], fixation_px: tuple[float, float]) -> float:
    """Return the shortest run of sharp pixels up, down, left or right that ends inside the scene; 0 where none does.

    The shortest, because another sharp spot may join the fovea on one side.
    """
    column = min(int(fixation_px[0]), sharp.shape[1] - 1)
    row = min(int(fixation_px[1]), sharp.shape[0] - 1)
    ways = (sharp[row, column:], sharp[row, column::-1], sharp[row:, column], sharp[row::-1, column])
    return float(min((int(np.argmin(way)) for way in ways if not way.all()), default=0))


def _frozen(lane: Tensor) -> Image:
    image: Image = lane[0].numpy()
    image.flags.writeable = False
    return image
