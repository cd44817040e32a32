"""The one simulator: B eyes, each before its own scene, moved step by step.

The single env holds one lane of it, the vector env N; neither has physics of its own. A simulator owns its lanes:
``state`` is a live view of them, in the manner of a physics engine's data, and ``state.clone()`` keeps a moment. (A
fresh copy of every scene and belief at every step would cost more than the step.)
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidValueError
from foveasim.eye import belief as beliefs
from foveasim.eye.retina import Prepared, Retina, SensePlan, as_glimpse, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.images.picture import CACHE_BYTES, Picture
from foveasim.rng import Key, Stream
from foveasim.scenes.source import open_scenes
from foveasim.simulator.lane_loops import (
    BufferPool,
    LaneRange,
    LaneThreads,
    lane_ranges,
    measure,
    sense_and_integrate,
    sense_and_widen,
)
from foveasim.simulator.lane_state import draw_first, draw_further, lane_seeds, start_px
from foveasim.simulator.scene_cache import SceneCache
from foveasim.types import Belief, Glimpse, Saccade, Scene, State

__all__ = ["Simulator"]

_SCATTER = int(Stream.SCATTER)
_VIEWS = {"seed", "episode", "step_count", "key", "fixation_px", "start_px", "target_px", "amplitude_deg"}
_VIEWS |= {"duration_ms", "clock_ms", "_sensed_ms", "coverage", "coverage_before", "_kernels", "measured"}
_VIEWS |= {"_prepared", "_plan", "_remembered"}
_NOTHING = (np.empty((0, 0, 0, 3), np.uint8), np.empty((0, 0, 0), np.uint8))


class Simulator:
    """Eyes before scenes.

    Attributes:
        measured: The lanes' numbers as they are stored: arrays with kernels, else tensors. Live until the next glimpse.

    Args:
        scenes: A scene source, or what ``open_scenes`` takes: a name, a path, an array.
        retina: A retina or its name.
        lanes: B.
        size: (H, W) to which scenes are fitted; None leaves one lane's scene as it is.
        fit: "crop", "pad" or "stretch".
        saccades: What the eyes can do.
        half_life_ms: Time after which half of belief's acuity is forgotten; None: nothing is.
        remember: Whether belief keeps images; acuity is kept in any case.
        copy_belief: Whether each glimpse copies belief for :attr:`remembered`, at half of what it costs afterwards.
        cache_bytes: Bound on the scenes that are cached for the next episode, see ``SceneCache``.
        threads: On the CPU, how many threads share the lanes, where there are many; what they work out is the same.
        device: Where the lanes live.
        kernels: Whether the CPU uses its kernels; False takes the path of a GPU there, to compare the two.

    Raises:
        InvalidValueError: An option out of range.
        SceneError: Scenes that cannot be read.

    Example:
        >>> eyes = Simulator("noise", "disc", lanes=2, size=(96, 96))
        >>> eyes.reset(seed=0)
        >>> eyes.step(torch.tensor([[10.0, 10.0], [80.0, 20.0]])).amplitude_deg.shape
        torch.Size([2])
    """

    def __init__(
        self,
        scenes: object = "photos",
        retina: str | Retina = "pyramid",
        lanes: int = 1,
        *,
        size: tuple[int, int] | None = None,
        fit: str = "crop",
        saccades: Saccades | None = None,
        half_life_ms: float | None = None,
        remember: bool = True,
        copy_belief: bool = False,
        cache_bytes: int = CACHE_BYTES,
        threads: int = 1,
        device: torch.device | str = "cpu",
        kernels: bool = True,
    ) -> None:
        self.scenes, self.retina = open_scenes(scenes), make_retina(retina)
        self.lanes = validation.whole("lanes", lanes, 1, 1 << 20)
        self.saccades = Saccades() if saccades is None else saccades
        if half_life_ms is not None:
            validation.number("half_life_ms", half_life_ms, 1e-3, 1e15)
        self.half_life_ms, self.remember = half_life_ms, remember
        self.device = validation.torch_device("device", device)
        self._on_cpu = self.device.type == "cpu" and kernels
        if size is None and self.lanes > 1:
            raise InvalidValueError("size must be given for more than one lane, e.g. size=(96, 96).")
        fixed = None if size is None else validation.size_hw("size", size)
        if fixed is not None:
            validation.check_lane_memory(self.lanes, fixed)
        self._scene_cache = SceneCache(
            self.scenes, self.retina, self.lanes, fixed, fit, cache_bytes, self.device, share=self._on_cpu
        )
        self._copies = copy_belief and remember and self._on_cpu
        self._threads, self._buffers = LaneThreads(threads), BufferPool()
        self._limits = np.array(self.saccades.limits, np.float32)
        self._start_lanes()
        self.size, self._seeded = (0, 0), False

    def __repr__(self) -> str:
        return f"Simulator({self.lanes} lanes, {self.scenes!r}, {self.retina!r}, size={self._scene_cache.size})"

    def _start_lanes(self) -> None:
        lanes, device = self.lanes, self.device
        self._key = torch.zeros(3, lanes, dtype=torch.int64, device=device)
        self.index, self.label = torch.zeros(2, lanes, dtype=torch.int64, device=device).unbind(0)
        self._points = torch.zeros(3, lanes, 2, device=device)
        self._reals = torch.zeros(4, lanes, device=device)
        self._clocks = torch.zeros(2, lanes, dtype=torch.float64, device=device)
        self._forgetting: beliefs.Forgetting | None = None
        self._glimpse: Glimpse | None = None
        self.names: list[str] = [""] * lanes
        self._bind()

    def _bind(self) -> None:
        """Make the views that share memory, of rows of one tensor, and NumPy's of tensors; and what no copy shares."""
        self._plan: SensePlan | None = None
        self._remembered: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self.seed, self.episode, self.step_count = self._key.unbind(0)
        self.fixation_px, self.start_px, self.target_px = self._points.unbind(0)
        self.amplitude_deg, self.duration_ms, self.coverage, self.coverage_before = self._reals.unbind(0)
        self.clock_ms, self._sensed_ms = self._clocks.unbind(0)
        if not self._on_cpu:
            return
        # Here, not at the top: numba takes 0.4 s to import, and a GPU does without.
        self._kernels: ModuleType = importlib.import_module("foveasim.eye.kernels.step")
        self._np_all = np.ones(self.lanes, np.bool_)
        self._np_key, self._np_reals, self._np_clocks = (x.numpy() for x in (self._key, self._reals, self._clocks))
        self._np_index, self._np_label = self.index.numpy(), self.label.numpy()
        self._np_points = self._points.numpy()
        self._np_fixation, self._np_covered = self._np_points[0], self._np_reals[2:]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what shares memory: a copy makes views of its own."""
        return {name: value for name, value in vars(self).items() if name not in _VIEWS and not name.startswith("_np_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        vars(self).update(state)
        self._bind()
        self._bind_scene()

    def _allocate_beliefs(self, size: tuple[int, int]) -> None:
        """Lay out the lanes' beliefs for a size."""
        self.size = size
        self._centre = geometry.centre_px(size).to(self.device)
        self.belief = beliefs.empty(self.lanes, size, self.device)
        if self.half_life_ms is not None:
            self._forgetting = beliefs.Forgetting(self.lanes, size, self.half_life_ms, self.device)
        self._bind_scene()

    def _bind_scene(self) -> None:
        """Make the views of what depends on the scenes' size; there is none before the first reset."""
        if self.size == (0, 0):
            return
        self._bind_scenes()
        if self._on_cpu:
            self._np_size, self._np_centre = np.array(self.size, np.int64), self._centre.numpy()
            image, acuity = self.belief.image.numpy(), self.belief.acuity.numpy()
            self._np_belief = (image.reshape(self.lanes, self.size[0], -1), acuity)
            self.measured = measure(image, acuity, self._np_points, self._np_reals, self._np_clocks, self._np_key)
        else:
            self._measure_tensors()

    def _measure_tensors(self) -> None:
        numbers = self._points, self._reals, self._clocks, self._key
        self.measured = measure(self.belief.image, self.belief.acuity, *numbers)

    # Episodes

    def reset(
        self,
        seed: int | Sequence[int] | NDArray[np.int64] | None = None,
        lanes: NDArray[np.bool_] | None = None,
        *,
        index: int | Sequence[int] | None = None,
        fixation_px: Tensor | None = None,
    ) -> None:
        """Begin episodes: draw scenes, put the eyes at their start, and take a glimpse.

        Args:
            seed: Lane i is seeded ``seed + i``, or by the i-th of a sequence; None goes on to each lane's next episode.
            lanes: (B,) bool, which lanes begin anew; None for all.
            index: Scene of every lane that begins, or of each; None draws it.
            fixation_px: (B, 2) float32, px, where the eyes start; None for the centre.

        Raises:
            InvalidValueError: Wrong shapes, a fixation outside the scene, an index out of range.
            SceneError: A scene that cannot be read.
        """
        self.begin(seed, lanes, index=index, fixation_px=fixation_px)
        self.sense()

    def begin(
        self,
        seed: int | Sequence[int] | NDArray[np.int64] | None = None,
        lanes: NDArray[np.bool_] | None = None,
        *,
        index: int | Sequence[int] | None = None,
        pictures: Sequence[Picture] | None = None,
        fixation_px: Tensor | None = None,
    ) -> None:
        """Do what :meth:`reset` does, without a glimpse; ``pictures`` puts given ones before the lanes that begin."""
        which = np.arange(self.lanes) if lanes is None else np.flatnonzero(lanes)
        if which.size == 0:
            return
        # Whole-lane assignment is several times cheaper than an index, and one lane is always whole.
        at = slice(None) if len(which) == self.lanes else self._as_lane_array(which)
        key: Any = self._np_key if self._on_cpu else self._key
        if seed is None and self._seeded:
            key[1][at] += 1
        else:
            key[0, at] = self._as_lane_array(which if seed is None else lane_seeds(seed, which))
            key[1, at] = 0
        self._seeded, key[2, at] = True, 0
        for numbers in (self._np_reals, self._np_clocks) if self._on_cpu else (self._reals, self._clocks):
            numbers[:, at] = 0
        self._place_scenes(which, at, index, pictures)
        (self._np_points if self._on_cpu else self._points)[:, at] = self._start(which, fixation_px)
        self.measured.belief_acuity[at] = 0
        if self._forgetting is not None:
            self._forgetting.exact[at] = 0
        if self.remember:
            self.measured.belief[at] = beliefs.UNSEEN

    def _as_lane_array(self, values: NDArray[np.int64] | Sequence[int]) -> Any:
        """Return whole numbers as the lanes' are stored: an array with kernels, whose views cost a tenth of torch's."""
        return np.asarray(values) if self._on_cpu else torch.as_tensor(values, device=self.device)

    def _start(self, which: NDArray[np.int64], fixation_px: Tensor | None) -> Any:
        if fixation_px is None:
            return self._np_centre if self._on_cpu else self._centre
        point = start_px(fixation_px, which, self.lanes, self.size)
        return point.numpy() if self._on_cpu else point.to(self.device)

    def _place_scenes(
        self,
        which: NDArray[np.int64],
        at: Any,
        index: int | Sequence[int] | None,
        pictures: Sequence[Picture] | None,
    ) -> None:
        keys = self._np_key if self._on_cpu else self._key
        draws = (lambda: draw_first(keys[:, at])), functools.partial(draw_further, self._key)
        chosen, scene_labels = self._scene_cache.place_all(which.tolist(), index, pictures, *draws)
        numbers, labels = (self._np_index, self._np_label) if self._on_cpu else (self.index, self.label)
        numbers[at] = self._as_lane_array(chosen)
        labels[at] = self._as_lane_array([scene_label.label for scene_label in scene_labels])
        for lane, scene_label in zip(which.tolist(), scene_labels, strict=True):
            self.names[lane] = scene_label.name
        self._bind_scenes()
        if self._prepared.size != self.size:
            self._allocate_beliefs(self._prepared.size)

    def _bind_scenes(self) -> None:
        """Bind the scenes that stand before the lanes: one lane borrows something else each time."""
        self._prepared, self._plan = cast("Prepared", self._scene_cache.current), None  # there is something by now
        if self._on_cpu:
            self._np_px_per_deg = self._prepared.scale

    # Steps

    def step(self, target_px: Tensor, zoom: Tensor | None = None) -> Saccade:
        """Move every eye, let time pass, and take a glimpse.

        Args:
            target_px: (B, 2) float32, px. Gaze stops at the edge of the scene.
            zoom: (B,) float32, for retinas that are ``zoomable``; None for 1.

        Returns:
            The saccades that were made.

        Raises:
            InvalidValueError: Wrong shape, or not finite.
        """
        self.advance(validation.points("target_px", target_px, self.lanes).to(self.device))
        self.sense(zoom)
        return self.saccade.clone()

    def advance(self, target_px: Tensor | NDArray[np.float32], moving: NDArray[np.bool_] | None = None) -> None:
        """Move eyes and let time pass, without a glimpse yet.

        Args:
            target_px: (B, 2) float32, px, finite; on the CPU also as an array.
            moving: (B,) bool; the other lanes stay as they are, and no time passes for them. None: all move.
        """
        if self._on_cpu:
            aim = target_px.numpy() if isinstance(target_px, Tensor) else target_px
            self._advance_arrays(aim, self._kernels.PX, moving)
        else:
            self._advance_tensors(torch.as_tensor(target_px, device=self.device), moving)
        if self.scenes.moving:
            self.refresh()

    def advance_norm(
        self, aim: NDArray[np.float32], moving: NDArray[np.bool_] | None = None, *, away: bool = False
    ) -> bool:
        """Do what :meth:`advance` does by normalised aims. With kernels only.

        Args:
            aim: (B, 2) float32, each of (x, y) in [-1, 1].
            moving: (B,) bool, or None: all move.
            away: Whether the aims are displacements from the fixation.

        Returns:
            Whether all aims are in range; NaN is not. Otherwise no eye has moved.
        """
        done = self._advance_arrays(aim, self._kernels.NORM_AWAY if away else self._kernels.NORM, moving)
        if done and self.scenes.moving:
            self.refresh()
        return done

    def _advance_arrays(self, aim: NDArray[np.float32], unit: int, moving: NDArray[np.bool_] | None) -> bool:
        return self._kernels.move_lanes(  # type: ignore[no-any-return]
            self._np_points,
            aim,
            unit,
            self._np_all if moving is None else moving,
            self._np_size,
            self._np_px_per_deg,
            self._np_key,
            _SCATTER,
            self._limits,
            self.saccades.dwell_ms,
            self._np_reals,
            self._np_clocks[0],
        )

    def _advance_tensors(self, target_px: Tensor, moving: NDArray[np.bool_] | None) -> None:
        """Do what ``_advance_arrays`` does, in torch."""
        every = torch.ones(self.lanes, dtype=torch.bool, device=self.device)
        move = every if moving is None else torch.from_numpy(moving).to(self.device)
        here = self.fixation_px.clone()
        made = self.saccades.fly(here, target_px, self.size, self._prepared.px_per_deg, self.key)
        self.start_px.copy_(here)
        self.target_px.copy_(torch.where(move[:, None], made.target_px, here))
        self.fixation_px.copy_(torch.where(move[:, None], made.landing_px, here))
        self.amplitude_deg.copy_(torch.where(move, made.amplitude_deg, 0))
        self.duration_ms.copy_(torch.where(move, made.duration_ms, 0))
        self.clock_ms += torch.where(move, made.duration_ms.to(torch.float64) + self.saccades.dwell_ms, 0)
        self.step_count += move

    def refresh(self) -> None:
        """Bring every lane's scene to the frame of its clock."""
        for lane, (index, time_ms) in enumerate(zip(self.index.tolist(), self.clock_ms.tolist(), strict=True)):
            if index >= 0:
                self._scene_cache.place(lane, index, time_ms)
        self._bind_scenes()

    def sense(self, zoom: Tensor | None = None) -> None:
        """Take a glimpse at the fixation of every lane and integrate it into belief.

        Args:
            zoom: (B,) float32, for retinas that are ``zoomable``.
        """
        if self._forgetting is not None:
            self._forgetting.decay(self.belief.acuity, (self.clock_ms - self._sensed_ms).to(torch.float32))
            self._sensed_ms.copy_(self.clock_ms)
        if self._on_cpu:
            self._sense_arrays(zoom)
        else:
            self.coverage_before.copy_(self.coverage)
            self._glimpse = self.retina.sense(self._prepared, self.fixation_px, self.key, zoom)
            self.belief = beliefs.integrate(self.belief, self._glimpse)
            self._measure_tensors()
            self.coverage.copy_(beliefs.coverage(self.belief))
        if self._forgetting is not None:
            self._forgetting.update(self.belief.acuity, self.glimpse.acuity)

    def _sense_arrays(self, zoom: Tensor | None) -> None:
        plan = self._make_plan(zoom)
        # Let go of the last glimpse before there is a new one: many lanes' take as much as everything else.
        self._seen, self._glimpse, self._remembered = _NOTHING, None, None
        if plan is None:
            self._glimpse = self.retina.sense(self._prepared, self.fixation_px, self.key, zoom)
            self._seen = self._glimpse.image.numpy(), self._glimpse.acuity.numpy()
        else:
            self._seen = self._buffers.allocate(self.lanes, self.size)
        if self._copies:
            self._remembered = self._buffers.allocate(self.lanes, self.size)
        self._sense_range(plan, (0, self.lanes))

    def _make_plan(self, zoom: Tensor | None) -> SensePlan | None:
        if zoom is None and self._plan is not None:
            return self._plan
        plan = self.retina.plan(self._prepared, self._np_fixation, self.key, None if zoom is None else zoom.numpy())
        self._plan = plan if plan is not None and plan.reusable and zoom is None else None
        return plan

    def _sense_range(self, plan: SensePlan | None, lane_range: LaneRange) -> None:
        """Let some lanes sense, without a plan what is in ``_seen``, and integrate it into belief."""
        if self.remember:
            belief_arrays = (self._np_belief, self._np_covered, self._remembered)
            self._threads.run(lane_range, sense_and_integrate, plan, self._seen, *belief_arrays)
        elif self.lanes == 1:
            sense_and_widen(plan, self._seen, self._np_belief[1], self._np_covered, *lane_range)
        else:
            self._threads.run(lane_range, sense_and_widen, plan, self._seen, self._np_belief[1], self._np_covered)

    def sense_lanes(self, lanes: NDArray[np.bool_]) -> None:
        """Sense in some lanes, after they began anew within a step; the glimpses of the others stay.

        What :attr:`seen` and :attr:`remembered` gave since the last glimpse is overwritten in these lanes, (B,) bool,
        unless all take one: to copy the others would cost as much as a step.
        """
        if np.count_nonzero(lanes) == self.lanes:
            self.sense()
            return
        plan = self._make_plan(None) if self._on_cpu else None
        if plan is None:
            self._sense_lanes_tensors(lanes)
        if self._on_cpu:
            for lane_range in lane_ranges(lanes):
                self._sense_range(plan, lane_range)
        if self._forgetting is not None:
            at = torch.from_numpy(np.flatnonzero(lanes)).to(self.device)
            self._forgetting.exact[at] = self.belief.acuity[at].to(torch.float32)

    def _sense_lanes_tensors(self, lanes: NDArray[np.bool_]) -> None:
        """Sense in some lanes by the retina's ``sense``; with kernels, integrating it into belief is left to them."""
        at = torch.from_numpy(np.flatnonzero(lanes)).to(self.device)
        key = Key(self.seed[at], self.episode[at], self.step_count[at])
        fresh = self.retina.sense(self._prepared.take(at), self.fixation_px[at], key)
        seen = self.glimpse
        patch = None if seen.patch is None or fresh.patch is None else seen.patch.index_copy(0, at, fresh.patch)
        merged = Glimpse(seen.image.index_copy(0, at, fresh.image), seen.acuity.index_copy(0, at, fresh.acuity), patch)
        self._glimpse = merged
        if self._on_cpu:
            self._seen = (merged.image.numpy(), merged.acuity.numpy())
            return
        self.belief.acuity[at] = fresh.acuity
        self.belief.image[at] = fresh.image
        self.coverage[at] = beliefs.coverage(Belief(fresh.image, fresh.acuity))
        self.coverage_before[at] = 0

    # What is known

    @property
    def seen(self) -> tuple[Any, Any]:
        """Image and acuity of :attr:`glimpse`: arrays with kernels, tensors without. See :meth:`sense_lanes`."""
        return self._seen if self._on_cpu else (self.glimpse.image, self.glimpse.acuity)

    @property
    def remembered(self) -> tuple[Any, Any]:
        """Image and acuity of belief: arrays with kernels, tensors without. See :meth:`sense_lanes`."""
        if not self._on_cpu:
            return self.belief.image, self.belief.acuity
        if self._remembered is None:
            return self.measured.belief.copy(), self.measured.belief_acuity.copy()
        return self._remembered

    @property
    def prepared(self) -> Prepared:
        """What the retina has worked out of the scenes, lane by lane: a live view, or of shared scenes a copy."""
        return self._prepared.unshared()

    def scene_image(self, lane: int) -> Tensor:
        """Return the scene before one lane at this moment, (H, W, 3) uint8: a live view."""
        return self._prepared.image[lane if self._prepared.rows is None else int(self._prepared.rows[lane])]

    @property
    def glimpse(self) -> Glimpse:
        """What the eyes see now. It is not written to again but by :meth:`sense_lanes`."""
        if self._glimpse is None:
            self._glimpse = as_glimpse(*self._seen)
        return self._glimpse

    @functools.cached_property
    def key(self) -> Key:
        """The key of this step's random numbers, lane by lane: a live view."""
        return Key(self.seed, self.episode, self.step_count)

    @property
    def scene(self) -> Scene:
        """The scenes at this moment: a live view, but for a copy of the images where lanes share scenes."""
        image = self._prepared.by_lane(self._prepared.image)
        return Scene(image, self.label, self._prepared.px_per_deg, tuple(self.names), self.clock_ms)

    @property
    def saccade(self) -> Saccade:
        """The last saccades: a live view."""
        return Saccade(self.start_px, self.target_px, self.fixation_px, self.amplitude_deg, self.duration_ms)

    @property
    def state(self) -> State:
        """Everything about the lanes: a live view, which later steps change. ``clone()`` keeps a moment."""
        return State(self.scene, self.fixation_px, self.belief, self.clock_ms, self.step_count, self.episode, self.seed)
