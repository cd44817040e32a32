"""The scenes before the lanes: fitted to a size, worked out by a retina, shared, and cached for the next episode."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidValueError, SceneError
from foveasim.eye.retina import Prepared, Retina
from foveasim.images.picture import Picture, fit_picture
from foveasim.scenes.source import FittedScenes, SceneSource
from foveasim.types import Scene

__all__ = ["SceneCache", "SceneLabel"]

_DRAWS = 100  # scenes drawn for a lane before its source is given up as unreadable
_MAPPED_AT_ONCE = 1 << 21  # bytes: the largest piece of a file that Linux maps around the page that was read


class SceneLabel(NamedTuple):
    """What people and readouts know of a scene: its name and its class, -1 where unknown."""

    name: str
    label: int


class SceneCache:
    """The scenes of a source as a retina needs them, and which of them stands before which lane.

    One lane borrows what is cached. Several share it where the retina ``shares``: each scene is held once, however many
    lanes look at it. Otherwise each lane has a copy.

    Attributes:
        current: What stands before the lanes; None before the first scene.
        skipped: What was wrong with each scene that could not be read, by index.

    Args:
        source: Where the pictures come from.
        retina: Whose ``prepare`` is called.
        lanes: B.
        size: (H, W) to which pictures are fitted; None, for one lane, leaves each as it is.
        fit: "crop", "pad" or "stretch".
        cache_bytes: Bound on what is cached for the next episode, prepared and, where not all of it fits, as fitted
            pictures, each taking half. Lanes that share hold as many scenes as there are lanes in any case. Moving
            scenes are not cached.
        device: Where prepared scenes live.
        share: Whether lanes may share.

    Raises:
        InvalidValueError: An option out of range.
    """

    def __init__(
        self,
        source: SceneSource,
        retina: Retina,
        lanes: int,
        size: tuple[int, int] | None,
        fit: str,
        cache_bytes: int,
        device: torch.device,
        *,
        share: bool,
    ) -> None:
        self.source, self.retina, self.lanes, self.size, self.fit = source, retina, lanes, size, fit
        self.device = device
        self.skipped: dict[int, str] = {}
        self.current: Prepared | None = None
        self._cache_bytes = int(validation.number("cache_bytes", cache_bytes, 0))
        self._fitted = FittedScenes(source, size, fit, cache_bytes=0)
        self._shares_scenes = share and retina.shares and lanes > 1
        self._shared: _SharedScenes | None = None
        self._cached: dict[int, tuple[SceneLabel, Prepared]] = {}
        self._free_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is cached for later: a copy begins with the scenes that stand before its lanes."""
        free_bytes = self._free_bytes + sum(prepared.nbytes for _, prepared in self._cached.values())
        return {
            **vars(self),
            "_cached": {},
            "_free_bytes": free_bytes,
            "current": None if self._shared else self.current,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        vars(self).update(state)
        if self._shared is not None:
            self.current = self._shared.current

    def place(self, lane: int, index: int, time_ms: float = 0.0) -> SceneLabel:
        """Put a scene before a lane.

        Raises:
            InvalidValueError: The index is out of range.
            SceneError: It cannot be read.
        """
        if index in self.skipped:
            raise SceneError(self.skipped[index])
        key = None if self.source.moving else index
        if self._shared is not None:
            scene_label = self._shared.reuse(lane, key)
            return scene_label or self._prepare_and_place(lane, self._fitted.picture(index, time_ms), key)
        found = self._cached.get(index)
        if found is None:
            return self._prepare_and_place(lane, self._fitted.picture(index, time_ms), key)
        self._attach(lane, found[1])
        return found[0]

    def place_all(
        self,
        lanes: list[int],
        index: int | Sequence[int] | None,
        pictures: Sequence[Picture] | None,
        first: Callable[[], list[float]],
        further: Callable[[int, int], float],
    ) -> tuple[list[int], list[SceneLabel]]:
        """Put a scene before each of some lanes.

        Args:
            lanes: Which.
            index: The scene of all of them, or of each; None draws it.
            pictures: Given ones instead, one for each.
            first: Returns a random number in [0, 1) for each of them.
            further: As in :meth:`place_random`.

        Returns:
            The scenes' indices, -1 of given pictures, and their labels.

        Raises:
            InvalidValueError: An index out of range, or not as many as lanes.
            SceneError: A scene that cannot be read.
        """
        if pictures is not None:
            scene_labels = [self.place_picture(lane, picture) for lane, picture in zip(lanes, pictures, strict=True)]
            return [-1] * len(lanes), scene_labels
        if index is None:
            drawn = [self.place_random(lane, draw, further) for lane, draw in zip(lanes, first(), strict=True)]
            return [index for index, _ in drawn], [scene_label for _, scene_label in drawn]
        chosen = [int(index)] * len(lanes) if isinstance(index, int | np.integer) else [int(i) for i in index]
        if len(chosen) != len(lanes):
            raise InvalidValueError(f"index must be one number or {len(lanes)}; got {len(chosen)}.")
        return chosen, [self.place(lane, i) for lane, i in zip(lanes, chosen, strict=True)]

    def place_random(self, lane: int, first: float, further: Callable[[int, int], float]) -> tuple[int, SceneLabel]:
        """Put a random scene before a lane; one that cannot be read is skipped, with a warning, and another one drawn.

        Args:
            lane: Which.
            first: A random number in [0, 1).
            further: Returns the lane's further ones, from number 1 on.

        Returns:
            The scene's index and label.

        Raises:
            SceneError: None can be read, or no more were found in 100 draws.
        """
        count = len(self.source)
        draw, attempt = first, 1
        while True:
            index = int(draw * count)
            try:
                return index, self.place(lane, index)
            except SceneError as error:
                self._skip(index, error)
                if attempt == _DRAWS or len(self.skipped) == count:
                    raise
            draw, attempt = further(lane, attempt), attempt + 1

    def place_picture(self, lane: int, picture: Picture) -> SceneLabel:
        """Put a given picture before a lane."""
        return self._prepare_and_place(lane, picture, None)

    def _skip(self, index: int, error: SceneError) -> None:
        """Note that a scene cannot be read, and warn of it once, naming and counting it."""
        if index not in self.skipped:
            self.skipped[index] = str(error)
            warnings.warn(
                f"skipped a scene, number {len(self.skipped)} of {len(self.source)} that cannot be read: {error}",
                UserWarning,
                stacklevel=2,
            )

    def _prepare_and_place(self, lane: int, picture: Picture, key: int | None) -> SceneLabel:
        """Prepare a picture and put it before a lane; under a key it is cached for the next episode."""
        fitted = fit_picture(picture, self.size, self.fit)
        scene_label, prepared = SceneLabel(fitted.name, fitted.label), self.retina.prepare(self._as_scene(fitted))
        _unmap(picture.image)
        if self.current is None:
            self._allocate(prepared)
        if self._shared is not None:
            self._shared.add(lane, key, scene_label, prepared)
            return scene_label
        # Once full, the cache stays as it is: scenes are drawn at random, so evicting one for another gains nothing.
        if key is not None and prepared.nbytes <= self._free_bytes:
            self._cached[key] = scene_label, prepared
            self._free_bytes -= prepared.nbytes
        self._attach(lane, prepared)
        return scene_label

    def _allocate(self, like: Prepared) -> None:
        free_bytes, whole = self._cache_bytes, len(self.source) * like.nbytes
        if self.size is not None and whole > free_bytes and not self.source.moving:
            free_bytes //= 2
            self._fitted = FittedScenes(self.source, self.size, self.fit, cache_bytes=free_bytes)
        self._free_bytes = free_bytes
        if self._shares_scenes:
            capacity = 0 if self.source.moving else min(len(self.source), free_bytes // like.nbytes)
            self._shared = _SharedScenes(like, self.lanes, max(capacity, self.lanes))
            self.current = self._shared.current
        else:
            self.current = like if self.lanes == 1 else like.room(self.lanes)

    def _attach(self, lane: int, prepared: Prepared) -> None:
        if self.lanes == 1 or self.current is None:
            self.current = prepared
        else:
            self.current.put(lane, prepared)
            self.current.px_per_deg[lane] = prepared.px_per_deg[0]

    def _as_scene(self, picture: Picture) -> Scene:
        return Scene(
            torch.from_numpy(np.require(picture.image, requirements="W")[None]).to(self.device),
            torch.tensor([picture.label], device=self.device),
            torch.tensor([picture.px_per_deg], dtype=torch.float32, device=self.device),
            (picture.name,),
            torch.zeros(1, device=self.device),
        )


def _unmap(image: NDArray[np.uint8]) -> None:
    """Unmap what was read of a file that is mapped for reading: otherwise a process grows until it holds the file.

    It stays in the system's own cache, from where it is mapped again in a few microseconds.
    """
    array: Any = image
    mode = None
    while isinstance(array, np.ndarray):
        mode = getattr(array, "mode", mode)
        array = array.base
    if not isinstance(array, mmap.mmap) or mode != "r" or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = image.__array_interface__["data"][0] - np.frombuffer(array, np.uint8).__array_interface__["data"][0]
    begin, end = begin // _MAPPED_AT_ONCE * _MAPPED_AT_ONCE, begin + image.nbytes
    array.madvise(mmap.MADV_DONTNEED, begin, min(-(-end // _MAPPED_AT_ONCE) * _MAPPED_AT_ONCE, len(array)) - begin)


class _SharedScenes:
    """Prepared scenes that lanes share, on the CPU.

    A slot is free, or taken by a scene before one lane or several, or idle: its scene waits to be drawn again. When no
    slot is free, the one that has been idle for longest is taken.

    Args:
        like: One prepared scene.
        lanes: B.
        slots: How many scenes there is room for, at least B.
    """

    def __init__(self, like: Prepared, lanes: int, slots: int) -> None:
        self.current = like.room(slots, lanes)
        self._scale = np.zeros(slots, np.float32)  # px_per_deg
        self._scene_labels: list[SceneLabel] = [SceneLabel("", -1)] * slots
        self._keys: list[int | None] = [None] * slots
        self._slot_of_key: dict[int, int] = {}
        self._lane_counts = [0] * slots
        self._free = list(range(slots - 1, -1, -1))
        self._idle: dict[int, None] = {}  # in the order in which they became it
        self._slot_of_lane = [-1] * lanes
        self._rows, self._lane_scale = self.current.scenes, self.current.px_per_deg.numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Keep the scenes that lanes look at, so that a copy takes no more than it needs."""
        seen = [(lane, slot) for lane, slot in enumerate(self._slot_of_lane) if slot >= 0]
        scenes = {slot: self._copy_scene(slot) for _, slot in seen}
        attached = [(lane, self._keys[slot], self._scene_labels[slot], slot) for lane, slot in seen]
        return {"lanes": len(self._slot_of_lane), "slots": len(self._keys), "scenes": scenes, "attached": attached}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        scenes = state["scenes"]
        self.__init__(next(iter(scenes.values())), state["lanes"], state["slots"])  # type: ignore[misc]
        for lane, key, scene_label, slot in state["attached"]:
            if self.reuse(lane, key) is None:
                self.add(lane, key, scene_label, scenes[slot])

    def _copy_scene(self, slot: int) -> Prepared:
        """Return a copy of one scene."""
        scale, row = torch.from_numpy(self._scale[slot : slot + 1].copy()), torch.tensor([slot])
        return replace(self.current, px_per_deg=scale, rows=row).unshared()

    def reuse(self, lane: int, key: int | None) -> SceneLabel | None:
        """Put a scene that is here before a lane and return its label; None where it is not here."""
        slot = None if key is None else self._slot_of_key.get(key)
        if slot is None:
            return None
        self._detach_lane(lane)
        self._attach_lane(lane, slot)
        return self._scene_labels[slot]

    def add(self, lane: int, key: int | None, scene_label: SceneLabel, prepared: Prepared) -> None:
        """Take in a scene and put it before a lane; without a key it is dropped when no lane looks at it."""
        self._detach_lane(lane)
        slot = self._free.pop() if self._free else next(iter(self._idle))
        old = self._keys[slot]
        if old is not None:
            del self._slot_of_key[old]
            self._idle.pop(slot)
        self.current.put(slot, prepared)
        self._scale[slot] = float(prepared.px_per_deg[0])
        self._scene_labels[slot], self._keys[slot] = scene_label, key
        if key is not None:
            self._slot_of_key[key] = slot
        self._attach_lane(lane, slot)

    def _attach_lane(self, lane: int, slot: int) -> None:
        if self._lane_counts[slot] == 0:
            self._idle.pop(slot, None)
        self._lane_counts[slot] += 1
        self._slot_of_lane[lane] = slot
        self._rows[lane] = slot
        self._lane_scale[lane] = self._scale[slot]

    def _detach_lane(self, lane: int) -> None:
        slot = self._slot_of_lane[lane]
        if slot < 0:
            return
        self._lane_counts[slot] -= 1
        if self._lane_counts[slot] == 0:
            if self._keys[slot] is None:
                self._free.append(slot)
            else:
                self._idle[slot] = None
