"""One eye seen at two resolutions: the scene's own for people, a small one for agent and network.

Both look at the same scene from the same fixations, and see as much of it in degrees of visual angle, so what is shown
is crisp while the mind works on little. A retina whose lengths are in pixels is shown at the mind's resolution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry
from foveasim.envs.observation import ObservationCode
from foveasim.envs.rewards import Coverage
from foveasim.errors import FoveasimError, SceneError
from foveasim.eye.retina import Retina
from foveasim.eye.saccade import Saccades
from foveasim.images.picture import Picture, fit_picture
from foveasim.scenes.search import TARGET_SIDE_PX, Display, SearchSource
from foveasim.scenes.source import SceneSource, open_scenes
from foveasim.simulator.simulator import Simulator

__all__ = [
    "EYE_LONG_SIDE_PX",
    "MAX_ASPECT",
    "MIND_SHORT_SIDE_PX",
    "FirstSight",
    "Opener",
    "Sight",
    "close_source",
    "open_source",
]

EYE_LONG_SIDE_PX = 720
"""Longest side at which the eye works. Larger scenes are shrunk, to keep 60 frames a second; no panel shows more."""

MIND_SHORT_SIDE_PX = 96
"""Short side at which agent and network work; the shipped networks were trained at it."""

MAX_ASPECT = 8
"""How many times as long as wide a scene may be: beyond it, the mind would work on more than 768 px, and slowly."""

Image = NDArray[np.uint8]


FirstSight: TypeAlias = "tuple[int, Sight, list[str]]"
"""The number of the first scene that can be used, its sight, and what is wrong with those before it."""


def open_source(scenes: object, px_per_deg: float | None, seed: int) -> SceneSource:
    """Open scenes as ``open_scenes`` does; an opened source keeps the px_per_deg that it was opened with."""
    if isinstance(scenes, SceneSource) and not isinstance(scenes, type):
        return scenes
    return open_scenes(scenes, px_per_deg=px_per_deg, seed=seed)


def close_source(source: SceneSource) -> None:
    """Close a source that can be closed, such as a camera."""
    closes = getattr(source, "close", None)
    if callable(closes):
        closes()


class _Resized:
    """A source whose pictures are brought to a size that depends on theirs, ``came`` for the last one."""

    def __init__(self, source: SceneSource, rule: Callable[[tuple[int, int]], tuple[int, int]]) -> None:
        self._source, self._rule = source, rule
        self.came = (0, 0)

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
        if max(picture.size) > MAX_ASPECT * min(picture.size):
            raise SceneError(
                f"{picture.name}: {picture.size[1]} x {picture.size[0]} px is too long and thin; its long side may be "
                f"{MAX_ASPECT} times its short side. Crop it first."
            )
        self.came = picture.size
        return fit_picture(picture, self._rule(picture.size), "stretch")


def _eye_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, EYE_LONG_SIDE_PX / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def _mind_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = MIND_SHORT_SIDE_PX / min(size)
    return max(8, round(size[0] * scale / 8) * 8), max(8, round(size[1] * scale / 8) * 8)


def _given_size(size: tuple[int, int], _: tuple[int, int]) -> tuple[int, int]:
    return size


class Sight:
    """An eye before one scene.

    Args:
        source: Where the scene comes from.
        index: Which one.
        retina: What the eye delivers.
        saccades: What it can do; its ``dwell_ms`` is not used, time is given from outside.
        half_life_ms: Time after which half of what was seen is forgotten, or None.
        seed: Of the retina's and the saccades' random numbers.
        fixation_norm: (x, y) where it starts, normalised; None for the centre.
        mind_size: (H, W) in px at which the mind works, whatever the scene's aspect; None makes it fit the scene.

    Raises:
        SceneError: The scene cannot be read, or is too long and thin.
        InvalidValueError: The retina cannot work at the size of the eye or the mind.

    Attributes:
        scene: (H, W, 3) uint8, the scene at the eye's resolution. These arrays are read-only and replaced, not changed.
        glimpse: (H, W, 3) uint8, what the eye sees.
        belief: (H, W, 3) uint8, what it has seen so far.
        shown: Glimpse and belief that people see, these or those before.
        acuity: (H, W) uint8, how sharply.
        mind_acuity: (h, w) uint8, how sharply the mind has seen so far, on its own grid.
        fovea_px: How far from the fixation the mind sees at half acuity or better, px of the scene as the eye sees it;
            0 where it does so everywhere.
        target: (S, S, 3) uint8, what is to be found in the scene, seen closely; None where nothing is.
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
        fixation_norm: tuple[float, float] | None = None,
        mind_size: tuple[int, int] | None = None,
    ) -> None:
        able = Saccades(
            saccades.max_amplitude_deg, saccades.scatter, saccades.slope_ms_per_deg, saccades.intercept_ms, dwell_ms=0
        )
        exact = Saccades(dwell_ms=0)
        mind_rule = _mind_size if mind_size is None else functools.partial(_given_size, mind_size)
        small = _Resized(source, mind_rule)
        self._mind = Simulator(small, retina, saccades=exact, half_life_ms=half_life_ms)
        self._mind.begin(seed, index=index)
        eye_size, size = _eye_size(small.came), self._mind.size
        eye_retina = retina.at_scale(math.sqrt(eye_size[0] * eye_size[1] / (size[0] * size[1])))
        eye_rule = mind_rule if eye_retina is None else _eye_size
        self._eye = Simulator(
            _Resized(source, eye_rule), eye_retina or retina, saccades=able, half_life_ms=half_life_ms
        )
        self._eye.begin(seed, index=index)
        if fixation_norm is not None:
            start = torch.tensor([fixation_norm], dtype=torch.float64)  # float32 would not give the same pixel back
            self._eye.fixation_px.copy_(geometry.norm_to_px(start, self._eye.size))
        self._mind.fixation_px.copy_(geometry.rescale_px(self._eye.fixation_px, self._eye.size, self._mind.size))
        self._display = source.display(index) if isinstance(source, SearchSource) else None
        self._source_size = source.size if isinstance(source, SearchSource) else self._eye.size
        self.target = None if self._display is None else _close(self._display)
        self.retina = retina
        self.name = self._eye.names[0]
        self.shown: tuple[Image, Image]
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

    def to_norm(self, point_px: tuple[float, float]) -> tuple[float, float]:
        """Return a point of the scene as the eye sees it in normalised coordinates."""
        x, y = geometry.px_to_norm(torch.tensor(point_px, dtype=torch.float64), self.size).tolist()
        return x, y

    def to_px(self, point_norm: tuple[float, float]) -> tuple[float, float]:
        """Return a normalised point in px of the scene as the eye sees it."""
        x, y = geometry.norm_to_px(torch.tensor(point_norm), self.size).tolist()
        return x, y

    @property
    def reward(self) -> float:
        """What the last saccade earns in an env: the gain of acuity-weighted coverage minus the cost of moving."""
        return sum(float(term[0]) for term in Coverage()(self._mind).values())

    @property
    def found(self) -> bool:
        """Whether the eye has moved to the target, as in ``foveasim/Search-v0``."""
        if self._display is None or not int(self._eye.step_count[0]):
            return False
        gaze = geometry.rescale_px(self._eye.fixation_px, self._eye.size, self._source_size)[0].numpy()
        return bool(np.hypot(*(gaze - self._display.items_px[0])) <= self._display.radius_px)

    def depart(self, target_px: tuple[float, float]) -> float:
        """Move the eye, without looking yet.

        Args:
            target_px: (x, y), px of the scene. Gaze stops at its edge.

        Returns:
            How long the saccade takes, ms.
        """
        self._eye.advance(torch.tensor([target_px], dtype=torch.float32))
        return float(self._eye.duration_ms[0])

    def look(self, at_ms: float, *, show_later: bool = False) -> None:
        """Take a glimpse from where the eye now is.

        Args:
            at_ms: Time since the scene began; forgetting goes by it.
            show_later: Whether :attr:`shown` waits for :meth:`show`: to see and to draw what is seen takes long for one
                frame.
        """
        before = self.shown
        self._follow()
        self._look(at_ms)
        self.shown = before if show_later else self.shown

    def show(self) -> None:
        """Show the glimpse that was taken last."""
        self.shown = self.glimpse, self.belief

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
        seen = code.build(self._mind, half, np.array([[time_left]], np.float32))
        if self._display is not None:
            seen["target"] = _at_scale(self._display, self._mind.size[0] / self._source_size[0])[None]
        return seen

    def _follow(self) -> None:
        self._mind.advance(geometry.rescale_px(self._eye.fixation_px, self._eye.size, self._mind.size))
        self._mind.step_count.copy_(self._eye.step_count)  # an interrupted saccade counts, and both draw by the count

    def _look(self, at_ms: float) -> None:
        for simulator in (self._eye, self._mind):
            simulator.clock_ms.fill_(at_ms)
            simulator.look()
        self.glimpse = _frozen(self._eye.glimpse.image)
        x, y = self._mind.fixation_px[0].tolist()
        sharp = self._mind.glimpse.acuity[0].numpy() >= 128
        self.fovea_px = _fovea_px(sharp, (x, y)) * max(self._eye.size) / max(self._mind.size)
        self.belief = _frozen(self._eye.belief.image.clone())
        self.acuity = _frozen(self._eye.belief.acuity.clone())
        self.mind_acuity = _frozen(self._mind.belief.acuity.clone())
        self.show()

    def _show_scene(self) -> None:
        self.scene = _frozen(self._eye.prepared.image.clone())


class Opener:
    """Opens the scenes of sources as sights; on request ahead of time, in a thread, so that no frame waits for one.

    One thread at a time uses a source: whatever is opened waits for what is opened ahead.

    Args:
        saccades: See :class:`Sight`.
        half_life_ms: Likewise.
        seed: Likewise.
    """

    def __init__(self, saccades: Saccades, half_life_ms: float | None, seed: int) -> None:
        self._saccades, self._half_life_ms, self._seed = saccades, half_life_ms, seed
        self._thread: Thread | None = None
        self._ahead: tuple[_Wanted, FirstSight | Exception] | None = None

    def open(
        self,
        source: SceneSource,
        index: int,
        retina: Retina,
        mind_size: tuple[int, int] | None,
        fixation_norm: tuple[float, float] | None = None,
    ) -> Sight:
        """Open one scene; arguments and errors as in :class:`Sight`."""
        self.close()
        return self._open(source, index, retina, mind_size, fixation_norm)

    def first(self, source: SceneSource, start: int, retina: Retina, mind_size: tuple[int, int] | None) -> FirstSight:
        """Open the first scene from ``start`` on that can be used; after the last comes the first.

        Returns:
            Its number, the sight, and what is wrong with those that came before it.

        Raises:
            SceneError: None can be used.
        """
        self.close()
        wanted = _Wanted(source, start, retina, mind_size)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == wanted and ahead[0].source is source:
            found = ahead[1]
            if isinstance(found, Exception):
                raise found
            return found
        return self._first(wanted)

    def prepare(self, source: SceneSource, start: int, retina: Retina, mind_size: tuple[int, int] | None) -> None:
        """Begin to do what :meth:`first` will be asked for; what it raises, :meth:`first` raises."""
        self.close()
        wanted = _Wanted(source, start, retina, mind_size)

        def work() -> None:
            try:
                self._ahead = wanted, self._first(wanted)
            except Exception as error:  # whatever it is, it belongs to whoever asks for the scene
                self._ahead = wanted, error

        self._thread = Thread(target=work, name="foveasim-opener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for what is opened ahead."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _first(self, wanted: _Wanted) -> FirstSight:
        count, unusable = len(wanted.source), list[str]()
        for index in ((wanted.start + attempt) % count for attempt in range(count)):
            try:
                return index, self._open(wanted.source, index, wanted.retina, wanted.mind_size, None), unusable
            except FoveasimError as error:
                unusable.append(str(error))
        many = f"none of {count} scenes can be used. The first: " if count > 1 else ""
        raise SceneError(many + unusable[0])

    def _open(
        self,
        source: SceneSource,
        index: int,
        retina: Retina,
        mind_size: tuple[int, int] | None,
        fixation_norm: tuple[float, float] | None,
    ) -> Sight:
        return Sight(
            source,
            index,
            retina,
            saccades=self._saccades,
            half_life_ms=self._half_life_ms,
            seed=self._seed,
            fixation_norm=fixation_norm,
            mind_size=mind_size,
        )


@dataclass(frozen=True)
class _Wanted:
    """What an opener was asked for."""

    source: SceneSource = field(compare=False)  # by identity, whatever sources themselves think
    start: int
    retina: Retina
    mind_size: tuple[int, int] | None


def _close(display: Display) -> Image:
    """Return what is to be found with little ground around it."""
    margin = max(0, (len(display.target) - math.ceil(3 * display.radius_px)) // 2)
    return display.target[margin : len(display.target) - margin, margin : len(display.target) - margin]


def _at_scale(display: Display, scale: float) -> Image:
    """Return what is to be found as large as where the scene is scaled, (S, S, 3) uint8, on its own ground."""
    target = display.target
    if scale == 1:
        return target
    side = max(1, round(len(target) * scale))
    small = cv2.resize(target, (side, side), interpolation=cv2.INTER_AREA)
    ground = np.empty((max(side, TARGET_SIDE_PX),) * 2 + (3,), np.uint8)
    ground[:] = target[0, 0]
    first = (len(ground) - side) // 2
    ground[first : first + side, first : first + side] = small
    return ground


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
