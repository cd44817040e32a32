"""The scenes before the lanes: fitted to a size, worked out by a retina, shared, and kept for the next episode."""

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

__all__ = ["Stage", "Title"]

_DRAWS = 100  # scenes drawn for a lane before its source is given up as unreadable
_MAPPED_AT_ONCE = 1 << 21  # bytes: the largest piece of a file that Linux maps around the page that was read


class Title(NamedTuple):
    """What people and readouts are told of a scene: its name and its class, -1 where unknown."""

    name: str
    label: int


class Stage:
    """The scenes of a source as a retina needs them, and which of them stands before which lane.

    One lane borrows what is kept. Several share it where the retina ``shares``: each scene is held once, however many
    lanes look at it. Otherwise each lane has a copy.

    Attributes:
        shown: What stands before the lanes; None before the first scene.
        skipped: What was wrong with each scene that could not be read, by index.

    Args:
        source: Where the pictures come from.
        retina: Whose ``prepare`` is called.
        lanes: B.
        size: (H, W) to which pictures are fitted; None, for one lane, leaves each as it is.
        fit: "crop", "pad" or "stretch".
        cache_bytes: Bound on what is kept for the next episode, prepared and, where not all of it fits, as fitted
            pictures, each taking half. Lanes that share hold as many scenes as there are lanes in any case. Moving
            scenes are not kept.
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
        self.shown: Prepared | None = None
        self._cache_bytes = int(validation.number("cache_bytes", cache_bytes, 0))
        self._fitted = FittedScenes(source, size, fit, cache_bytes=0)
        self._shares = share and retina.shares and lanes > 1
        self._pool: _Pool | None = None
        self._kept: dict[int, tuple[Title, Prepared]] = {}
        self._room = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept for later: a copy begins with the scenes that stand before its lanes."""
        room = self._room + sum(prepared.nbytes for _, prepared in self._kept.values())
        return {**vars(self), "_kept": {}, "_room": room, "shown": None if self._pool else self.shown}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        vars(self).update(state)
        if self._pool is not None:
            self.shown = self._pool.shown

    def show(self, lane: int, index: int, time_ms: float = 0.0) -> Title:
        """Put a scene before a lane.

        Raises:
            InvalidValueError: The index is out of range.
            SceneError: It cannot be read.
        """
        if index in self.skipped:
            raise SceneError(self.skipped[index])
        key = None if self.source.moving else index
        if self._pool is not None:
            title = self._pool.reuse(lane, key)
            return title or self._put(lane, self._fitted.picture(index, time_ms), key)
        found = self._kept.get(index)
        if found is None:
            return self._put(lane, self._fitted.picture(index, time_ms), key)
        self._hold(lane, found[1])
        return found[0]

    def put_all(
        self,
        lanes: list[int],
        index: int | Sequence[int] | None,
        pictures: Sequence[Picture] | None,
        first: Callable[[], list[float]],
        further: Callable[[int, int], float],
    ) -> tuple[list[int], list[Title]]:
        """Put a scene before each of some lanes.

        Args:
            lanes: Which.
            index: The scene of all of them, or of each; None draws it.
            pictures: Given ones instead, one for each.
            first: Returns a random number in [0, 1) for each of them.
            further: As in :meth:`draw`.

        Returns:
            The scenes' indices, -1 of given pictures, and their titles.

        Raises:
            InvalidValueError: An index out of range, or not as many as lanes.
            SceneError: A scene that cannot be read.
        """
        if pictures is not None:
            titles = [self.show_picture(lane, picture) for lane, picture in zip(lanes, pictures, strict=True)]
            return [-1] * len(lanes), titles
        if index is None:
            drawn = [self.draw(lane, draw, further) for lane, draw in zip(lanes, first(), strict=True)]
            return [index for index, _ in drawn], [title for _, title in drawn]
        chosen = [int(index)] * len(lanes) if isinstance(index, int | np.integer) else [int(i) for i in index]
        if len(chosen) != len(lanes):
            raise InvalidValueError(f"index must be one number or {len(lanes)}; got {len(chosen)}.")
        return chosen, [self.show(lane, i) for lane, i in zip(lanes, chosen, strict=True)]

    def draw(self, lane: int, first: float, further: Callable[[int, int], float]) -> tuple[int, Title]:
        """Put a random scene before a lane; one that cannot be read is skipped, with a warning, and another one drawn.

        Args:
            lane: Which.
            first: A random number in [0, 1).
            further: Returns the lane's further ones, from number 1 on.

        Returns:
            The scene's index and title.

        Raises:
            SceneError: None can be read, or no more were found in 100 draws.
        """
        count = len(self.source)
        draw, attempt = first, 1
        while True:
            index = int(draw * count)
            try:
                return index, self.show(lane, index)
            except SceneError as error:
                self._skip(index, error)
                if attempt == _DRAWS or len(self.skipped) == count:
                    raise
            draw, attempt = further(lane, attempt), attempt + 1

    def show_picture(self, lane: int, picture: Picture) -> Title:
        """Put a given picture before a lane."""
        return self._put(lane, picture, None)

    def _skip(self, index: int, error: SceneError) -> None:
        """Note that a scene cannot be read, and warn of it once, naming and counting it."""
        if index not in self.skipped:
            self.skipped[index] = str(error)
            warnings.warn(
                f"skipped a scene, number {len(self.skipped)} of {len(self.source)} that cannot be read: {error}",
                UserWarning,
                stacklevel=2,
            )

    def _put(self, lane: int, picture: Picture, key: int | None) -> Title:
        """Prepare a picture and put it before a lane; under a key it is kept for the next episode."""
        fitted = fit_picture(picture, self.size, self.fit)
        title, prepared = Title(fitted.name, fitted.label), self.retina.prepare(self._as_scene(fitted))
        _let_go(picture.image)
        if self.shown is None:
            self._make_room(prepared)
        if self._pool is not None:
            self._pool.put(lane, key, title, prepared)
            return title
        # Once full, the cache stays as it is: scenes are drawn at random, so evicting one for another gains nothing.
        if key is not None and prepared.nbytes <= self._room:
            self._kept[key] = title, prepared
            self._room -= prepared.nbytes
        self._hold(lane, prepared)
        return title

    def _make_room(self, like: Prepared) -> None:
        room, whole = self._cache_bytes, len(self.source) * like.nbytes
        if self.size is not None and whole > room and not self.source.moving:
            room //= 2
            self._fitted = FittedScenes(self.source, self.size, self.fit, cache_bytes=room)
        self._room = room
        if self._shares:
            kept = 0 if self.source.moving else min(len(self.source), room // like.nbytes)
            self._pool = _Pool(like, self.lanes, max(kept, self.lanes))
            self.shown = self._pool.shown
        else:
            self.shown = like if self.lanes == 1 else like.room(self.lanes)

    def _hold(self, lane: int, prepared: Prepared) -> None:
        if self.lanes == 1 or self.shown is None:
            self.shown = prepared
        else:
            self.shown.put(lane, prepared)
            self.shown.px_per_deg[lane] = prepared.px_per_deg[0]

    def _as_scene(self, picture: Picture) -> Scene:
        return Scene(
            torch.from_numpy(np.require(picture.image, requirements="W")[None]).to(self.device),
            torch.tensor([picture.label], device=self.device),
            torch.tensor([picture.px_per_deg], dtype=torch.float32, device=self.device),
            (picture.name,),
            torch.zeros(1, device=self.device),
        )


def _let_go(image: NDArray[np.uint8]) -> None:
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


class _Pool:
    """Prepared scenes that lanes share, on the CPU.

    A place is free, or taken by a scene before one lane or several, or idle: its scene waits to be drawn again. When no
    place is free, the one that has been idle for longest is taken.

    Args:
        like: One prepared scene.
        lanes: B.
        places: How many scenes there is room for, at least B.
    """

    def __init__(self, like: Prepared, lanes: int, places: int) -> None:
        self.shown = like.room(places, lanes)
        self._scale = np.zeros(places, np.float32)  # px_per_deg
        self._titles: list[Title] = [Title("", -1)] * places
        self._keys: list[int | None] = [None] * places
        self._place_of: dict[int, int] = {}
        self._lookers = [0] * places
        self._free = list(range(places - 1, -1, -1))
        self._idle: dict[int, None] = {}  # in the order in which they became it
        self._of_lane = [-1] * lanes
        self._rows, self._lane_scale = self.shown.scenes, self.shown.px_per_deg.numpy()

    def __getstate__(self) -> dict[str, Any]:
        """Keep the scenes that lanes look at, so that a copy takes no more than it needs."""
        seen = [(lane, place) for lane, place in enumerate(self._of_lane) if place >= 0]
        scenes = {place: self._alone(place) for _, place in seen}
        given = [(lane, self._keys[place], self._titles[place], place) for lane, place in seen]
        return {"lanes": len(self._of_lane), "places": len(self._keys), "scenes": scenes, "given": given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy."""
        scenes = state["scenes"]
        self.__init__(next(iter(scenes.values())), state["lanes"], state["places"])  # type: ignore[misc]
        for lane, key, title, place in state["given"]:
            if self.reuse(lane, key) is None:
                self.put(lane, key, title, scenes[place])

    def _alone(self, place: int) -> Prepared:
        """Return a copy of one scene."""
        scale, row = torch.from_numpy(self._scale[place : place + 1].copy()), torch.tensor([place])
        return replace(self.shown, px_per_deg=scale, rows=row).unshared()

    def reuse(self, lane: int, key: int | None) -> Title | None:
        """Put a scene that is here before a lane and return its title; None where it is not here."""
        place = None if key is None else self._place_of.get(key)
        if place is None:
            return None
        self._leave(lane)
        self._enter(lane, place)
        return self._titles[place]

    def put(self, lane: int, key: int | None, title: Title, prepared: Prepared) -> None:
        """Take in a scene and put it before a lane; without a key it is let go of when no lane looks at it."""
        self._leave(lane)
        place = self._free.pop() if self._free else next(iter(self._idle))
        old = self._keys[place]
        if old is not None:
            del self._place_of[old]
            self._idle.pop(place)
        self.shown.put(place, prepared)
        self._scale[place] = float(prepared.px_per_deg[0])
        self._titles[place], self._keys[place] = title, key
        if key is not None:
            self._place_of[key] = place
        self._enter(lane, place)

    def _enter(self, lane: int, place: int) -> None:
        if self._lookers[place] == 0:
            self._idle.pop(place, None)
        self._lookers[place] += 1
        self._of_lane[lane] = place
        self._rows[lane] = place
        self._lane_scale[lane] = self._scale[place]

    def _leave(self, lane: int) -> None:
        place = self._of_lane[lane]
        if place < 0:
            return
        self._lookers[place] -= 1
        if self._lookers[place] == 0:
            if self._keys[place] is None:
                self._free.append(place)
            else:
                self._idle[place] = None
