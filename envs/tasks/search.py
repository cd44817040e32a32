"""Visual search: find the target among distractors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.envs.resets import is_indices
from foveasim.envs.single import FoveaEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scenes.search import SearchScenes, SearchSource

__all__ = ["SearchEnv", "SearchVectorEnv"]

_NOT_TAKEN = ("reward", "reward_options", "fit")
_OF_SCENES = ("kinds", "set_sizes", "item_px", "split", "scene_seed", "photos", "count")


class SearchVectorEnv(FoveaVectorEnv):
    """Visual search with B eyes, each before a display of its own.

    ## Description
    One target lies among distractors. The agent is shown what to look for, and moves its eye until gaze lands on it.
    How long that takes against the number of items, the search slope, tells how well a policy guides gaze:
    :func:`foveasim.agents.evaluation.search_slopes.search_slope`.

    ## Observation Space
    As of ``foveasim/Glimpse-v0``, and ``target`` (S, S, 3) uint8: what to look for, on grey, as large as in the scene,
    upright. S is 36 px, or one and a half items where that is more. It says nothing about where the target lies.

    ## Action Space
    As of ``foveasim/Glimpse-v0``. With ``stop=True`` the agent may give up.

    ## Rewards
    1 for landing on the target, no farther from its middle than its radius, as the term ``found``; and the term
    ``time_cost``, minus ``cost_per_s`` for each second of simulated time: saccades and fixations, not computing. The
    return of an episode in which the target is found after t seconds is 1 - cost_per_s t.

    ## Starting State
    A display drawn by (seed, episode); the eye at the scene's centre, where no item lies. An item that the eye rests on
    without having moved there, with ``start="random"``, is not found yet.
    ``reset(options={"scene": index, "fixation": (x, y)})`` fixes either; other pictures have no target and are refused.

    ## Episode End
    When the target is found, after ``budget`` saccades, or by a stop action, the episode *terminates*.

    ``info`` has, beside what ``foveasim/Glimpse-v0`` reports: ``found``; ``set_size``, the number of items;
    ``reaction_ms``, the time since the episode began, at whose last step the target was found where ``found`` says so;
    ``sought_px`` (2,), the middle of the target, and ``distance_deg`` of gaze from it, which are for analysis: they
    give the answer away.

    ## Arguments
    See below; ``gym.make_vec("foveasim/Search-v0", num_envs=64, kinds="conjunction", set_sizes=(4, 8, 16))``.

    ## Version History
    * v0: first version.

    Args:
        num_envs: B.
        scenes: A search source, such as ``SearchScenes``; None makes ``SearchScenes`` of the next arguments.
        kinds: What is searched for, see :class:`foveasim.scenes.search.SearchScenes`.
        set_sizes: How many items there may be.
        item_px: Diameter of an item, px.
        split: "train" or "test", which share no display and no photograph.
        photos: Photographs of the kind "photos".
        count: Number of displays.
        scene_seed: Of the displays. The seed of ``reset`` chooses among them.
        size: (H, W) of the observation, px.
        budget: Saccades an episode.
        cost_per_s: Cost of a second of simulated time.
        **options: Of ``FoveaVectorEnv``, but for its reward and fit.

    Raises:
        InvalidTypeError: ``scenes`` is no search source.
        InvalidValueError: An option out of range, or one that cannot be given along with another.
        UnknownNameError: An unknown name.
        SceneError: Photographs that cannot be read.

    Reference:
        Treisman and Gelade 1980, A feature-integration theory of attention, Cognitive Psychology 12:97-136. Najemnik
        and Geisler 2005, Optimal eye movement strategies in visual search, Nature 434:387-391.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scenes: SearchSource | None = None,
        kinds: str | Sequence[str] | None = None,
        set_sizes: Sequence[int] | None = None,
        item_px: int | None = None,
        split: str | None = None,
        photos: object = None,
        count: int | None = None,
        scene_seed: int | None = None,
        size: tuple[int, int] = (96, 96),
        budget: int = 16,
        cost_per_s: float = 0.1,
        **options: Any,
    ) -> None:
        refused = sorted(set(_NOT_TAKEN) & set(options))
        if refused:
            raise InvalidValueError(f"{', '.join(refused)}: not for this task, whose reward and displays are its own.")
        num_envs = validation.whole("num_envs", num_envs, 1, 1 << 20)
        validation.check_lane_memory(num_envs, size)
        self.cost_per_s = validation.number("cost_per_s", cost_per_s, 0, 1e6)
        requested = dict(zip(_OF_SCENES, (kinds, set_sizes, item_px, split, scene_seed, photos, count), strict=True))
        self.source = _source(scenes, size, {name: value for name, value in requested.items() if value is not None})
        side = self.source.display(0).target.shape[0]
        self._targets = np.zeros((num_envs, side, side, 3), np.uint8)
        self._sought_px = np.zeros((num_envs, 2), np.float32)
        self._radius_px = np.zeros(num_envs, np.float32)
        self._px_per_deg = np.ones(num_envs, np.float32)
        self._set_size = np.zeros(num_envs, np.int64)
        self._found = np.zeros(num_envs, bool)
        self._clock_ms = np.zeros(num_envs, np.float64)
        super().__init__(num_envs, scenes=self.source, size=size, budget=budget, **options)

    def begin(self, seed: Any, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        """Begin episodes; see ``FoveaVectorEnv.begin``."""
        scene = (options or {}).get("scene")
        known = isinstance(scene, int | np.integer) and not isinstance(scene, bool)
        if scene is not None and not known and not is_indices(scene):
            raise InvalidValueError(
                f"options['scene'] must be the index of a display, for another picture has no target; got {scene!r}. "
                "Pictures of your own are a SearchSource, given as scenes= when you make the env."
            )
        return super().begin(seed, options)

    def on_begin(self, lanes: NDArray[np.bool_]) -> None:
        """Take note of what the marked lanes, (B,) bool, are to find."""
        index = self.simulator.index.tolist()
        for lane in np.flatnonzero(lanes).tolist():
            display = self.source.display(index[lane])
            self._targets[lane] = display.target
            self._sought_px[lane] = display.items_px[0]
            self._radius_px[lane] = display.radius_px
            self._px_per_deg[lane] = display.px_per_deg
            self._set_size[lane] = display.set_size
        self._found &= ~lanes
        self._clock_ms[lanes] = 0

    def score_saccades(self) -> tuple[dict[str, Any], NDArray[np.bool_]]:
        """Return the terms ``found`` and ``time_cost``, and which lanes, (B,) bool, have found their target."""
        clock = self.as_array(self.simulator.measured.clock_ms)
        passed = (clock - self._clock_ms).astype(np.float32)
        self._found = (passed > 0) & (self._distance_px() <= self._radius_px)
        self._clock_ms = clock.copy()
        terms = {
            "found": self.as_output(self._found.astype(np.float32)),
            "time_cost": self.as_output(passed * np.float32(-self.cost_per_s / 1000)),
        }
        return terms, self._found

    def task_spaces(self) -> dict[str, gym.Space[Any]]:
        """Return the space of ``target``."""
        return {"target": gym.spaces.Box(0, 255, self._targets.shape[1:], np.uint8)}

    def task_observation(self) -> dict[str, Any]:
        """Return ``target`` of every lane."""
        return {"target": self.as_output(self._targets.copy())}

    def task_info(self) -> dict[str, NDArray[Any]]:
        """Return what ``info`` says about the search, lane by lane."""
        return {
            "found": self._found.copy(),
            "set_size": self._set_size.copy(),
            "reaction_ms": self.as_array(self.simulator.measured.clock_ms).copy(),
            "sought_px": self._sought_px.copy(),
            "distance_deg": self._distance_px() / self._px_per_deg,
        }

    def task_view(self, lane: int) -> dict[str, Any]:
        """Return what is to be found, and whether it was."""
        target, reach = self._targets[lane], math.ceil(1.5 * float(self._radius_px[lane]))
        middle = slice(max(0, len(target) // 2 - reach), len(target) // 2 + reach)
        return {"target": target[middle, middle], "found": bool(self._found[lane])}

    def _distance_px(self) -> NDArray[np.float32]:
        away = self.as_array(self.simulator.measured.fixation_px) - self._sought_px
        return np.hypot(away[:, 0], away[:, 1])


class SearchEnv(FoveaEnv):
    """Visual search with one eye.

    Everything is as in :class:`SearchVectorEnv`, which this env holds one lane of, without the lane axis and in NumPy:
    its sections Description, Observation Space, Action Space, Rewards, Starting State, Episode End and Arguments hold
    here too.

    ## Version History
    * v0: first version.

    Args:
        render_mode: See ``FoveaEnv``.
        render_size: (H, W) of what is drawn, px.
        **options: Of ``SearchVectorEnv``.

    Example:
        >>> env = gym.make("foveasim/Search-v0", kinds="colour", set_sizes=(8,))
        >>> observation, info = env.reset(seed=0)
        >>> observation["target"].shape, info["set_size"]
        ((36, 36, 3), 8)
    """

    many = SearchVectorEnv


def _source(scenes: object, size: tuple[int, int], requested: dict[str, Any]) -> SearchSource:
    if scenes is None:
        if "scene_seed" in requested:
            requested["seed"] = requested.pop("scene_seed")
        return SearchScenes(size=size, **requested)
    if isinstance(scenes, type) or not isinstance(scenes, SearchSource):
        raise InvalidTypeError(
            f"scenes must be a search source, which defines the target; got {scenes!r} ({type(scenes).__name__}"
            "). Make one: foveasim.scenes.search.SearchScenes(photos='folder', kinds='photos')."
        )
    if requested:
        raise InvalidValueError(f"{', '.join(requested)}: cannot be given along with scenes; give them to the source.")
    if tuple(scenes.size) != tuple(size):
        raise InvalidValueError(f"size must be that of the displays, {tuple(scenes.size)}; got {tuple(size)}.")
    return scenes
