"""One eye seen at two resolutions: the scene's own for people, a small one for agent and network.

Both look at the same scene from the same fixations, and see as much of it in degrees of visual angle, so what is shown
is crisp while the agent works on little. A retina whose lengths are in pixels is shown at the agent's resolution.
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
    "AGENT_SHORT_SIDE_PX",
    "DISPLAY_LONG_SIDE_PX",
    "MAX_ASPECT",
    "DisplayEye",
    "FirstUsableScene",
    "ScenePreloader",
    "close_source",
    "open_source",
]

DISPLAY_LONG_SIDE_PX = 720
"""Longest side at which the eye works. Larger scenes are shrunk, to keep 60 frames a second; no panel shows more."""

AGENT_SHORT_SIDE_PX = 96
"""Short side at which agent and network work; the shipped networks were trained at it."""

MAX_ASPECT = 8
"""How many times as long as wide a scene may be: beyond it, the agent would work on more than 768 px, and slowly."""

Image = NDArray[np.uint8]


FirstUsableScene: TypeAlias = "tuple[int, DisplayEye, list[str]]"
"""The number of the first scene that can be used, its eye, and what is wrong with those before it."""


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
    """A source whose pictures are brought to a size that depends on theirs, ``last_size`` for the last one."""

    def __init__(self, source: SceneSource, rule: Callable[[tuple[int, int]], tuple[int, int]]) -> None:
        self._source, self._rule = source, rule
        self.last_size = (0, 0)

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
        self.last_size = picture.size
        return fit_picture(picture, self._rule(picture.size), "stretch")


def _display_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, DISPLAY_LONG_SIDE_PX / max(size))
    return max(8, round(size[0] * scale)), max(8, round(size[1] * scale))


def _agent_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = AGENT_SHORT_SIDE_PX / min(size)
    return max(8, round(size[0] * scale / 8) * 8), max(8, round(size[1] * scale / 8) * 8)


def _fixed_size(size: tuple[int, int], _: tuple[int, int]) -> tuple[int, int]:
    return size


class DisplayEye:
    """An eye before one scene, at the display's resolution and at the agent's.

    Args:
        source: Where the scene comes from.
        index: Which one.
        retina: What the eye delivers.
        saccades: What it can do; its ``dwell_ms`` is not used, time is given from outside.
        half_life_ms: Time after which half of what was seen is forgotten, or None.
        seed: Of the retina's and the saccades' random numbers.
        fixation_norm: (x, y) where it starts, normalised; None for the centre.
        agent_size: (H, W) in px at which the agent works, whatever the scene's aspect; None makes it fit the scene.

    Raises:
        SceneError: The scene cannot be read, or is too long and thin.
        InvalidValueError: The retina cannot work at the size of the eye or the agent.

    Attributes:
        scene: (H, W, 3) uint8, the scene at the eye's resolution. These arrays are read-only and replaced, not changed.
        glimpse: (H, W, 3) uint8, what the eye sees.
        belief: (H, W, 3) uint8, what it has seen so far.
        displayed: Glimpse and belief that people see, these or those before.
        acuity: (H, W) uint8, how sharply.
        agent_acuity: (h, w) uint8, how sharply the agent has seen so far, on its own grid.
        fovea_px: How far from the fixation the agent sees at half acuity or better, px of the scene as the eye sees it;
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
        agent_size: tuple[int, int] | None = None,
    ) -> None:
        without_dwell = Saccades(
            saccades.max_amplitude_deg, saccades.scatter, saccades.slope_ms_per_deg, saccades.intercept_ms, dwell_ms=0
        )
        exact_saccades = Saccades(dwell_ms=0)
        agent_rule = _agent_size if agent_size is None else functools.partial(_fixed_size, agent_size)
        agent_scenes = _Resized(source, agent_rule)
        self._agent_simulator = Simulator(agent_scenes, retina, saccades=exact_saccades, half_life_ms=half_life_ms)
        self._agent_simulator.begin(seed, index=index)
        display_size, size = _display_size(agent_scenes.last_size), self._agent_simulator.size
        display_retina = retina.at_scale(math.sqrt(display_size[0] * display_size[1] / (size[0] * size[1])))
        display_rule = agent_rule if display_retina is None else _display_size
        self._simulator = Simulator(
            _Resized(source, display_rule), display_retina or retina, saccades=without_dwell, half_life_ms=half_life_ms
        )
        self._simulator.begin(seed, index=index)
        if fixation_norm is not None:
            start = torch.tensor([fixation_norm], dtype=torch.float64)  # float32 would not give the same pixel back
            self._simulator.fixation_px.copy_(geometry.norm_to_px(start, self._simulator.size))
        self._agent_simulator.fixation_px.copy_(
            geometry.rescale_px(self._simulator.fixation_px, self._simulator.size, self._agent_simulator.size)
        )
        self._search_display = source.display(index) if isinstance(source, SearchSource) else None
        self._source_size = source.size if isinstance(source, SearchSource) else self._simulator.size
        self.target = None if self._search_display is None else _crop_target(self._search_display)
        self.retina = retina
        self.name = self._simulator.names[0]
        self.displayed: tuple[Image, Image]
        self._show_scene()
        self._sense(0.0)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene as the eye sees it, px."""
        return self._simulator.size

    @property
    def fixation_px(self) -> tuple[float, float]:
        """Where the eye is, or lands."""
        x, y = self._simulator.fixation_px[0].tolist()
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
        return sum(float(term[0]) for term in Coverage()(self._agent_simulator).values())

    @property
    def found(self) -> bool:
        """Whether the eye has moved to the target, as in ``foveasim/Search-v0``."""
        if self._search_display is None or not int(self._simulator.step_count[0]):
            return False
        gaze = geometry.rescale_px(self._simulator.fixation_px, self._simulator.size, self._source_size)[0].numpy()
        return bool(np.hypot(*(gaze - self._search_display.items_px[0])) <= self._search_display.radius_px)

    def start_saccade(self, target_px: tuple[float, float]) -> float:
        """Move the eye, without looking yet.

        Args:
            target_px: (x, y), px of the scene. Gaze stops at its edge.

        Returns:
            How long the saccade takes, ms.
        """
        self._simulator.advance(torch.tensor([target_px], dtype=torch.float32))
        return float(self._simulator.duration_ms[0])

    def sense(self, at_ms: float, *, show_later: bool = False) -> None:
        """Take a glimpse from where the eye now is.

        Args:
            at_ms: Time since the scene began; forgetting goes by it.
            show_later: Whether :attr:`displayed` waits for :meth:`show`: to sense and to draw takes long for one
                frame.
        """
        before = self.displayed
        self._move_agent_simulator()
        self._sense(at_ms)
        self.displayed = before if show_later else self.displayed

    def show(self) -> None:
        """Show the glimpse that was taken last."""
        self.displayed = self.glimpse, self.belief

    def refresh(self, at_ms: float, *, resting: bool) -> bool:
        """Bring a moving scene to the present.

        Args:
            at_ms: Time since the scene began.
            resting: Whether the eye rests, and so sees the movement.

        Returns:
            Whether the eye saw something new.
        """
        for simulator in (self._simulator, self._agent_simulator):
            simulator.clock_ms.fill_(at_ms)
            simulator.refresh()
        changed = not np.array_equal(self.scene, self._simulator.prepared.image[0].numpy())
        if changed:
            self._show_scene()
        if changed and resting:
            self._sense(at_ms)
        return changed and resting

    def observation(self, time_left: float) -> dict[str, NDArray[Any]]:
        """Return everything that an agent may ask for, with its lane axis.

        Args:
            time_left: Share of the budget that is left, 0 to 1.
        """
        code = ObservationCode(belief=True, patch=self._agent_simulator.glimpse.patch is not None, scene=True)
        half = np.array([self._agent_simulator.size[1] / 2, self._agent_simulator.size[0] / 2], np.float32)
        seen = code.build(self._agent_simulator, half, np.array([[time_left]], np.float32))
        if self._search_display is not None:
            scale = self._agent_simulator.size[0] / self._source_size[0]
            seen["target"] = _scale_target(self._search_display, scale)[None]
        return seen

    def _move_agent_simulator(self) -> None:
        self._agent_simulator.advance(
            geometry.rescale_px(self._simulator.fixation_px, self._simulator.size, self._agent_simulator.size)
        )
        # An interrupted saccade counts, and both draw by the count.
        self._agent_simulator.step_count.copy_(self._simulator.step_count)

    def _sense(self, at_ms: float) -> None:
        for simulator in (self._simulator, self._agent_simulator):
            simulator.clock_ms.fill_(at_ms)
            simulator.sense()
        self.glimpse = _as_read_only(self._simulator.glimpse.image)
        x, y = self._agent_simulator.fixation_px[0].tolist()
        sharp = self._agent_simulator.glimpse.acuity[0].numpy() >= 128
        self.fovea_px = _fovea_px(sharp, (x, y)) * max(self._simulator.size) / max(self._agent_simulator.size)
        self.belief = _as_read_only(self._simulator.belief.image.clone())
        self.acuity = _as_read_only(self._simulator.belief.acuity.clone())
        self.agent_acuity = _as_read_only(self._agent_simulator.belief.acuity.clone())
        self.show()

    def _show_scene(self) -> None:
        self.scene = _as_read_only(self._simulator.prepared.image.clone())


class ScenePreloader:
    """Opens scenes, each with its eye; on request ahead of time, in a thread, so that no frame waits for one.

    One thread at a time uses a source: whatever is opened waits for what is opened ahead.

    Args:
        saccades: See :class:`DisplayEye`.
        half_life_ms: Likewise.
        seed: Likewise.
    """

    def __init__(self, saccades: Saccades, half_life_ms: float | None, seed: int) -> None:
        self._saccades, self._half_life_ms, self._seed = saccades, half_life_ms, seed
        self._thread: Thread | None = None
        self._preloaded: tuple[_Request, FirstUsableScene | Exception] | None = None

    def open(
        self,
        source: SceneSource,
        index: int,
        retina: Retina,
        agent_size: tuple[int, int] | None,
        fixation_norm: tuple[float, float] | None = None,
    ) -> DisplayEye:
        """Open one scene; arguments and errors as in :class:`DisplayEye`."""
        self.close()
        return self._open(source, index, retina, agent_size, fixation_norm)

    def open_first_usable(
        self, source: SceneSource, start: int, retina: Retina, agent_size: tuple[int, int] | None
    ) -> FirstUsableScene:
        """Open the first scene from ``start`` on that can be used; after the last comes the first.

        Returns:
            Its number, the eye, and what is wrong with those that came before it.

        Raises:
            SceneError: None can be used.
        """
        self.close()
        request = _Request(source, start, retina, agent_size)
        preloaded, self._preloaded = self._preloaded, None
        if preloaded is not None and preloaded[0] == request and preloaded[0].source is source:
            found = preloaded[1]
            if isinstance(found, Exception):
                raise found
            return found
        return self._open_first_usable(request)

    def preload(self, source: SceneSource, start: int, retina: Retina, agent_size: tuple[int, int] | None) -> None:
        """Begin to open what :meth:`open_first_usable` will return; that raises what goes wrong."""
        self.close()
        request = _Request(source, start, retina, agent_size)

        def work() -> None:
            try:
                self._preloaded = request, self._open_first_usable(request)
            except Exception as error:  # whatever it is, it belongs to whoever asks for the scene
                self._preloaded = request, error

        self._thread = Thread(target=work, name="foveasim-preloader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for what is opened ahead."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _open_first_usable(self, request: _Request) -> FirstUsableScene:
        count, unusable = len(request.source), list[str]()
        for index in ((request.start + attempt) % count for attempt in range(count)):
            try:
                return index, self._open(request.source, index, request.retina, request.agent_size, None), unusable
            except FoveasimError as error:
                unusable.append(str(error))
        many = f"none of {count} scenes can be used. The first: " if count > 1 else ""
        raise SceneError(many + unusable[0])

    def _open(
        self,
        source: SceneSource,
        index: int,
        retina: Retina,
        agent_size: tuple[int, int] | None,
        fixation_norm: tuple[float, float] | None,
    ) -> DisplayEye:
        return DisplayEye(
            source,
            index,
            retina,
            saccades=self._saccades,
            half_life_ms=self._half_life_ms,
            seed=self._seed,
            fixation_norm=fixation_norm,
            agent_size=agent_size,
        )


@dataclass(frozen=True)
class _Request:
    """What a preloader was asked for."""

    source: SceneSource = field(compare=False)  # by identity, whatever sources themselves think
    start: int
    retina: Retina
    agent_size: tuple[int, int] | None


def _crop_target(display: Display) -> Image:
    """Return what is to be found with little ground around it."""
    margin = max(0, (len(display.target) - math.ceil(3 * display.radius_px)) // 2)
    return display.target[margin : len(display.target) - margin, margin : len(display.target) - margin]


def _scale_target(display: Display, scale: float) -> Image:
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


def _as_read_only(lane: Tensor) -> Image:
    image: Image = lane[0].numpy()
    image.flags.writeable = False
    return image
