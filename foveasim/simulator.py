"""The one simulator: B eyes, each before its own scene, moved step by step.

The single env holds one lane of it, the vector env N; neither has physics of its own. A simulator owns its lanes: ``state``
is a live view of them, in the manner of a physics engine's data, and ``state.clone()`` keeps a moment. (A fresh copy of
every scene and belief at every step would cost more than the step.)
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import belief as beliefs
from foveasim import check, geometry
from foveasim.errors import InvalidValueError
from foveasim.picture import Picture, fit_picture
from foveasim.retina import Prepared, Retina, as_glimpse, make_retina
from foveasim.rng import Key, Stream, uniform
from foveasim.saccade import Saccades
from foveasim.scenes import SceneSource, open_scenes
from foveasim.types import Belief, Glimpse, Saccade, Scene, State

__all__ = ["Simulator"]

_MAX_CACHE_BYTES = 1 << 30


class Simulator:
    """Eyes before scenes.

    Args:
        scenes: A scene source, or what ``open_scenes`` takes: a name, a path, an array.
        retina: A retina or its name.
        lanes: B.
        size: (H, W) to which scenes are fitted; None leaves one lane's scene as it is.
        fit: "crop", "pad" or "stretch".
        saccades: What the eyes can do.
        half_life_ms: Time after which half of belief's acuity is forgotten; None: nothing is.
        remember: Whether belief keeps images; acuity is kept in any case.
        cache_bytes: Bound on the prepared scenes that are kept for the next episode.
        device: Where the lanes live.

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
        cache_bytes: int = _MAX_CACHE_BYTES,
        device: torch.device | str = "cpu",
    ) -> None:
        self.scenes: SceneSource = open_scenes(scenes)
        self.retina = make_retina(retina)
        self.lanes = int(check.number("lanes", lanes, 1))
        self.fit = fit
        self.saccades = Saccades() if saccades is None else saccades
        if half_life_ms is not None:
            check.number("half_life_ms", half_life_ms, 0, open_low=True)
        self.half_life_ms = half_life_ms
        self.remember = remember
        self.device = torch.device(device)
        if size is None and lanes > 1:
            raise InvalidValueError("size must be given for more than one lane, e.g. size=(96, 96).")
        self._fixed_size = None if size is None else check.size_hw("size", size)
        self._cache: OrderedDict[int, tuple[Picture, Prepared]] = OrderedDict()
        self._cache_room = int(check.number("cache_bytes", cache_bytes, 0))
        self._limits = np.array(self.saccades.limits, np.float32)
        self._start_lanes()
        self.size = (0, 0)
        self._seeded = False

    def _start_lanes(self) -> None:
        lanes, device = self.lanes, self.device

        def whole() -> Tensor:
            return torch.zeros(lanes, dtype=torch.int64, device=device)

        def real(*shape: int) -> Tensor:
            return torch.zeros(lanes, *shape, device=device)

        self._key = torch.zeros(3, lanes, dtype=torch.int64, device=device)
        self.seed, self.episode, self.step_count = self._key.unbind(0)
        self.index, self.label = whole(), whole()
        self.fixation_px, self.start_px, self.target_px = real(2), real(2), real(2)
        self.amplitude_deg, self.duration_ms, self.clock_ms = real(), real(), real()
        self.coverage, self.coverage_before = real(), real()
        self._glimpse: Glimpse | None = None
        self.names: list[str] = [""] * lanes
        self._ones = torch.ones(lanes, device=device)
        self._on_cpu = device.type == "cpu"
        if self._on_cpu:
            self._np_key, self._np_fixation, self._np_start = self._key.numpy(), self.fixation_px.numpy(), self.start_px.numpy()
            self._np_target = self.target_px.numpy()
            self._np_amplitude, self._np_duration = self.amplitude_deg.numpy(), self.duration_ms.numpy()
            self._np_clock, self._np_step = self.clock_ms.numpy(), self._np_key[2]
            self._np_coverage, self._np_before = self.coverage.numpy(), self.coverage_before.numpy()
            self._np_ones = self._ones.numpy()

    def _make_room(self, size: tuple[int, int], like: Prepared) -> None:
        """Lay out the lanes' scenes and beliefs for a size."""
        self.size = size
        self._np_size = np.array(size, np.int64)
        shape = self.lanes

        def room(part: Tensor) -> Tensor:
            return torch.zeros(shape, *part.shape[1:], dtype=part.dtype, device=self.device)

        self.prepared = Prepared(room(like.image), room(like.px_per_deg), tuple(room(part) for part in like.parts))
        self.belief = beliefs.empty(self.lanes, size, self.device)
        self._np_px_per_deg = self.prepared.px_per_deg.numpy() if self._on_cpu else None
        if self._on_cpu:
            self._np_belief = (self.belief.image.view(shape, size[0], -1).numpy(), self.belief.acuity.numpy())

    # Episodes

    def reset(
        self,
        seed: int | Sequence[int] | NDArray[np.int64] | None = None,
        lanes: NDArray[np.bool_] | None = None,
        *,
        index: int | Sequence[int] | None = None,
        fixation_px: Tensor | None = None,
    ) -> None:
        """Begin episodes: draw scenes, put the eyes at their start, and look.

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
        self.look()

    def begin(
        self,
        seed: int | Sequence[int] | NDArray[np.int64] | None = None,
        lanes: NDArray[np.bool_] | None = None,
        *,
        index: int | Sequence[int] | None = None,
        pictures: Sequence[Picture] | None = None,
        fixation_px: Tensor | None = None,
    ) -> None:
        """Do what :meth:`reset` does without looking yet; ``pictures`` puts given ones before the lanes that begin."""
        which = np.arange(self.lanes) if lanes is None else np.flatnonzero(lanes)
        if which.size == 0:
            return
        at = torch.from_numpy(which).to(self.device)
        if seed is not None:
            seeds = [check.seed_value("seed", seed) + int(i) for i in which] if isinstance(seed, int | np.integer) else seed
            if len(seeds) != len(which):
                raise InvalidValueError(f"seed must be one number or {len(which)}, one for each lane; got {len(seeds)}.")
            self.seed[at] = torch.tensor([check.seed_value("seed", s) for s in seeds], device=self.device)
            self.episode[at] = 0
            self._seeded = True
        elif self._seeded:
            self.episode[at] += 1
        else:
            self.seed[at] = at
        self.step_count[at] = 0
        self.clock_ms[at] = 0
        for tensor in (self.amplitude_deg, self.duration_ms, self.coverage, self.coverage_before):
            tensor[at] = 0
        self._seeded = True
        self._place_scenes(which, at, index, pictures)
        if fixation_px is None:
            self.fixation_px[at] = geometry.centre_px(self.size, len(which)).to(self.device)
        else:
            point = check.points("fixation_px", fixation_px, self.lanes)[which]
            if not torch.equal(geometry.clamp_px(point, self.size), point):
                raise InvalidValueError(
                    f"fixation_px must lie in the scene, x from 0 to {self.size[1]} and y from 0 to {self.size[0]} px; "
                    f"got {point.tolist()}."
                )
            self.fixation_px[at] = point.to(self.device)
        self.start_px[at] = self.fixation_px[at]
        self.target_px[at] = self.fixation_px[at]
        self.belief.acuity[at] = 0
        self.belief.image[at] = 127

    def _place_scenes(
        self,
        which: NDArray[np.int64],
        at: Tensor,
        index: int | Sequence[int] | None,
        pictures: Sequence[Picture] | None,
    ) -> None:
        if pictures is not None:
            chosen = [-1] * len(which)
        elif index is None:
            share = uniform(self.seed[at], self.episode[at], torch.zeros_like(at), Stream.SCENE, 1)[:, 0]
            chosen = (share * len(self.scenes)).long().tolist()
        else:
            chosen = [int(index)] * len(which) if isinstance(index, int | np.integer) else [int(i) for i in index]
            if len(chosen) != len(which):
                raise InvalidValueError(f"index must be one number or {len(which)}; got {len(chosen)}.")
        self.index[at] = torch.tensor(chosen, device=self.device)
        loaded = [self._load(i) for i in chosen] if pictures is None else self._prepare(list(pictures))
        for place, lane in enumerate(which.tolist()):
            picture, prepared = loaded[place]
            if prepared.size != self.size:
                self._make_room(prepared.size, prepared)
            self.names[lane] = picture.name
            self.label[lane] = picture.label
            self.prepared.put(torch.tensor([lane]), prepared)

    def _load(self, index: int) -> tuple[Picture, Prepared]:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        loaded = self._prepare([self.scenes.picture(index)])[0]
        size = sum(part.nbytes for part in (loaded[1].image, *loaded[1].parts))
        if not self.scenes.moving and size <= self._cache_room:
            self._cache[index] = loaded
            self._cache_room -= size
        return loaded

    def _prepare(self, pictures: list[Picture]) -> list[tuple[Picture, Prepared]]:
        fitted = [fit_picture(picture, self._fixed_size, self.fit) for picture in pictures]
        prepared = self.retina.prepare(_as_scene(fitted, self.device))
        if len(fitted) == 1:
            return [(fitted[0], prepared)]
        return [(picture, prepared.take(torch.tensor([i]))) for i, picture in enumerate(fitted)]

    # Steps

    def step(self, target_px: Tensor, zoom: Tensor | None = None) -> Saccade:
        """Move every eye, let time pass, and look.

        Args:
            target_px: (B, 2) float32, px. Gaze stops at the edge of the scene.
            zoom: (B,) float32, for retinas that are ``zoomable``; None for 1.

        Returns:
            The saccades that were made.

        Raises:
            InvalidValueError: Wrong shape, or not finite.
        """
        self.advance(check.points("target_px", target_px, self.lanes).to(self.device))
        self.look(zoom)
        return self.saccade.clone()

    def advance(self, target_px: Tensor, moving: Tensor | None = None) -> None:
        """Move eyes and let time pass, without looking yet.

        Args:
            target_px: (B, 2) float32, px, finite.
            moving: (B,) bool; the other lanes stay as they are, and no time passes for them. None: all move.
        """
        saccades = self.saccades
        if self._on_cpu and moving is None:
            from foveasim.kernels import execute_saccades

            np.copyto(self._np_start, self._np_fixation)
            np.copyto(self._np_target, target_px.numpy())
            execute_saccades(
                self._np_start,
                self._np_target,
                self._np_size,
                self._np_px_per_deg,
                self._np_key,
                int(Stream.SCATTER),
                self._limits,
                self._np_fixation,
                self._np_amplitude,
                self._np_duration,
            )
            self._np_clock += self._np_duration
            self._np_clock += saccades.dwell_ms
            self._np_step += 1
        else:
            move = torch.ones(self.lanes, dtype=torch.bool, device=self.device) if moving is None else moving
            made = saccades.execute(
                self.fixation_px.clone(), target_px, self.size, self.prepared.px_per_deg, self.key
            )
            self.start_px.copy_(torch.where(move[:, None], made.start_px, self.fixation_px))
            self.target_px.copy_(torch.where(move[:, None], made.target_px, self.fixation_px))
            self.fixation_px.copy_(torch.where(move[:, None], made.landing_px, self.fixation_px))
            self.amplitude_deg.copy_(torch.where(move, made.amplitude_deg, 0))
            self.duration_ms.copy_(torch.where(move, made.duration_ms, 0))
            self.clock_ms += torch.where(move, made.duration_ms + saccades.dwell_ms, 0)
            self.step_count += move
        if self.scenes.moving:
            self.refresh()

    def refresh(self) -> None:
        """Bring every lane's scene to the frame of its clock."""
        for lane, (index, time_ms) in enumerate(zip(self.index.tolist(), self.clock_ms.tolist(), strict=True)):
            if index >= 0:
                _, prepared = self._prepare([self.scenes.picture(index, time_ms)])[0]
                self.prepared.put(torch.tensor([lane]), prepared)

    def look(self, zoom: Tensor | None = None) -> None:
        """Take a glimpse at the fixation of every lane and integrate it into belief.

        Args:
            zoom: (B,) float32, for retinas that are ``zoomable``.
        """
        if not self._on_cpu:
            self._glimpse = self.retina.sense(self.prepared, self.fixation_px, self.key, zoom)
            self.coverage_before.copy_(self.coverage)
            kept = None if self.half_life_ms is None else self._kept()
            self.belief = beliefs.integrate(self.belief, self._glimpse, kept)
            self.coverage.copy_(beliefs.coverage(self.belief))
            return
        from foveasim.kernels import integrate_belief, widen_coverage

        zooms = None if zoom is None else zoom.numpy()
        seen = self.retina.sense_arrays(self.prepared, self._np_fixation, self.key, zooms)
        self._glimpse = None
        if seen is None:
            self._glimpse = self.retina.sense(self.prepared, self.fixation_px, self.key, zoom)
            seen = (self._glimpse.image.numpy(), self._glimpse.acuity.numpy())
        self.glimpse_arrays = seen
        np.copyto(self._np_before, self._np_coverage)
        keep = self._np_ones if self.half_life_ms is None else self._kept().numpy()
        image, acuity = self._np_belief
        if self.remember:
            new_image = seen[0].reshape(self.lanes, self.size[0], -1)
            integrate_belief(image, acuity, new_image, seen[1], keep, self._np_coverage)
        else:
            widen_coverage(acuity, seen[1], keep, self._np_coverage)

    def _kept(self) -> Tensor:
        elapsed = torch.where(self.step_count > 0, self.duration_ms + self.saccades.dwell_ms, 0)
        return beliefs.remembered(elapsed, self.half_life_ms)

    # What is known

    @property
    def glimpse(self) -> Glimpse:
        """What the eyes see now. It is not written to again."""
        if self._glimpse is None:
            self._glimpse = as_glimpse(*self.glimpse_arrays)
        return self._glimpse

    @functools.cached_property
    def key(self) -> Key:
        """The key of this step's random numbers, lane by lane: a live view."""
        return Key(self.seed, self.episode, self.step_count)

    @property
    def scene(self) -> Scene:
        """The scenes at this moment: a live view."""
        return Scene(
            self.prepared.image, self.label, self.prepared.px_per_deg, tuple(self.names), self.clock_ms
        )

    @property
    def saccade(self) -> Saccade:
        """The last saccades: a live view."""
        return Saccade(self.start_px, self.target_px, self.fixation_px, self.amplitude_deg, self.duration_ms)

    @property
    def state(self) -> State:
        """Everything about the lanes: a live view, which later steps change. ``clone()`` keeps a moment."""
        return State(
            self.scene, self.fixation_px, self.belief, self.clock_ms, self.step_count, self.episode, self.seed
        )


def _as_scene(pictures: list[Picture], device: torch.device) -> Scene:
    image = np.stack([picture.image for picture in pictures]) if len(pictures) > 1 else pictures[0].image[None]
    return Scene(
        torch.from_numpy(image).to(device),
        torch.tensor([picture.label for picture in pictures], device=device),
        torch.tensor([picture.px_per_deg for picture in pictures], dtype=torch.float32, device=device),
        tuple(picture.name for picture in pictures),
        torch.zeros(len(pictures), device=device),
    )
