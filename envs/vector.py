"""Many eyes at once: a native Gymnasium vector env over one simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from foveasim import geometry, validation
from foveasim.envs.actions import ActionCode
from foveasim.envs.observation import ObservationCode, as_torch, batch_observations
from foveasim.envs.resets import chosen_lanes, is_indices, one_picture, scene_index, scene_indices, start_px
from foveasim.envs.rewards import Reward, make_reward
from foveasim.envs.task import Task
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.rng import Stream, uniform
from foveasim.scenes.source import SceneSource
from foveasim.simulator.simulator import Simulator

__all__ = ["FoveaVectorEnv"]

_OPTIONS = ("scene", "fixation", "reset_mask")


class FoveaVectorEnv(Task, VectorEnv[Any, Any, Any]):
    """Free viewing with B eyes, each before a scene of its own.

    ## Description
    An eye looks at an image or a video and moves by saccades. It sees sharply only around the point it fixates. One
    step is one saccade and the glimpse that follows it; time passes as the main sequence and the fixation's dwell say.

    ## Observation Space
    ``Dict``, see :class:`foveasim.envs.observation.ObservationCode`: ``glimpse`` (H, W, 3) uint8, ``acuity`` (H, W, 1)
    uint8, ``fixation`` (2,) float32 in [-1, 1], ``time`` (1,) float32 in [0, 1], and where asked for ``belief`` (H,
    W, 3) and ``belief_acuity`` (H, W, 1), ``patch`` (h, w, 3 S), ``scene`` (H, W, 3).

    ## Action Space
    See :class:`foveasim.envs.actions.ActionCode`. Default ``Box(-1, 1, (2,))``: the next fixation in normalised scene
    coordinates (x, y), (-1, -1) the top-left corner. A relative action may aim beyond the scene: gaze stops at its
    edge, and ``info["target_px"]`` shows where it was aimed.

    ## Rewards
    ``coverage``: the gain of acuity-weighted coverage minus a cost per degree of saccade. Each term is in
    ``info["reward_terms"]``.

    ## Starting State
    A scene drawn by (seed, episode); the eye at its centre, or anywhere with ``start="random"``. The first glimpse is
    part of the reset. ``reset(options={"scene": path | array | index, "fixation": (x, y)})`` fixes either; the
    fixation is normalised as actions are.

    ## Episode End
    After ``budget`` saccades, or by a stop action, the episode *terminates*: the budget is part of the task, and
    ``time`` shows what is left of it.

    ## Arguments
    See below; ``gym.make_vec("foveasim/Glimpse-v0", num_envs=64, retina="disc", budget=16)``.

    ## Version History
    * v0: first version.

    Args:
        num_envs: B.
        scenes: A scene source, or what ``open_scenes`` takes: "photos", a file, a folder, an array, a video.
        retina: A retina or its name.
        retina_options: Options of a retina given by name.
        size: (H, W) of the observation, px.
        fit: How scenes are fitted to it: "crop", "pad" or "stretch".
        budget: Saccades an episode.
        action_mode: "absolute", "relative" or "grid".
        grid: (rows, columns) of the grid mode.
        zoom: Whether there is a zoom axis; for retinas that are ``zoomable``.
        stop: Whether there is a stop action.
        belief: Whether belief is observed.
        patch: Whether the retina's own receptors are observed.
        privileged: Whether the hidden scene is observed.
        reward: A reward or its name.
        reward_options: Options of a reward given by name.
        start: Where episodes start, "centre" or "random".
        saccades: What the eyes can do.
        half_life_ms: Forgetting, see ``Simulator``.
        cache_mb: Bound on the scenes kept ready for the next episode, MB of 2**20 bytes; see ``SceneCache``.
        threads: On the CPU, how many threads share the lanes, where there are 32 or more; what they see is the same.
        autoreset_mode: Gymnasium's: next step, same step or disabled.
        output: "numpy" or "torch"; on another device than the CPU always torch.
        device: Where the lanes live.
        render_mode: None or "rgb_array", which draws each lane.

    Raises:
        InvalidValueError: An option out of range.
        UnknownNameError: An unknown name.
        SceneError: Scenes that cannot be read.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012  # Gymnasium's own form

    def __init__(
        self,
        num_envs: int = 1,
        *,
        scenes: object = "photos",
        retina: str | Retina = "pyramid",
        retina_options: dict[str, Any] | None = None,
        size: tuple[int, int] = (96, 96),
        fit: str = "crop",
        budget: int = 8,
        action_mode: str = "absolute",
        grid: tuple[int, int] = (8, 8),
        zoom: bool = False,
        stop: bool = False,
        belief: bool = False,
        patch: bool = False,
        privileged: bool = False,
        reward: str | Reward = "coverage",
        reward_options: dict[str, Any] | None = None,
        start: Literal["centre", "random"] = "centre",
        saccades: Saccades | None = None,
        half_life_ms: float | None = None,
        cache_mb: float = 1024,
        threads: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        output: Literal["numpy", "torch"] = "numpy",
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = validation.whole("num_envs", num_envs, 1, 1 << 20)
        self.budget = validation.whole("budget", budget, 1, 1_000_000)
        validation.choice("start", start, ("centre", "random"))
        validation.choice("output", output, ("numpy", "torch"))
        if render_mode is not None:
            validation.choice("render_mode", render_mode, ("rgb_array",))
        if not isinstance(autoreset_mode, AutoresetMode):
            validation.choice("autoreset_mode", autoreset_mode, [mode.value for mode in AutoresetMode])
        validation.flag("zoom", zoom)
        for name, options in (("retina_options", retina_options), ("reward_options", reward_options)):
            validation.options(name, options)
        self.start, self.output, self.render_mode = start, output, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        eye = make_retina(retina, **(retina_options or {}))
        if zoom and not eye.zoomable:
            raise InvalidValueError(
                f"retina {eye.name!r} has no zoom; use zoom=False, or pyramid, window, multiscale or log_polar."
            )
        self.actions = ActionCode(action_mode, grid, zoom, stop)
        self.observations = ObservationCode(belief, patch, privileged)
        self.reward = make_reward(reward, **(reward_options or {}))
        if not isinstance(saccades, Saccades | None):
            raise InvalidTypeError(f"saccades must be foveasim.eye.saccade.Saccades(…); got {saccades!r}.")
        self._owns_scenes = not isinstance(scenes, SceneSource)
        self.simulator = Simulator(
            scenes,
            eye,
            self.num_envs,
            size=size,
            fit=fit,
            saccades=saccades,
            half_life_ms=half_life_ms,
            remember=belief or render_mode is not None,
            copy_belief=belief,
            cache_bytes=int(validation.number("cache_mb", cache_mb, 0) * (1 << 20)),
            threads=validation.whole("threads", threads, 1, 1024),
            device=device,
        )
        self.simulator.reset(seed=0)
        self._arrays = isinstance(self.simulator.measured.step, np.ndarray)
        self._steps = np.zeros(self.num_envs, np.int64)  # known without asking a device, which would wait for it
        seen = self.observations.space(self.simulator)
        self.single_observation_space = gym.spaces.Dict({**seen.spaces, **self.task_spaces()})
        self.observation_space = batch_observations(self.single_observation_space, self.num_envs)
        self.single_action_space = self.actions.space()
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        height, width = self.simulator.size
        half = np.array([[width / 2, height / 2]], np.float32)  # (1, 2): NumPy is twice as fast on equal shapes
        self._bare, self._away = self._arrays and self.actions.bare, self.actions.mode == "relative"
        self._half = half if self._arrays else torch.from_numpy(half).to(self.simulator.device)
        left = 1 - np.arange(self.budget + 1, dtype=np.float32)[:, None] / self.budget
        self._left = left if self._arrays else torch.from_numpy(left).to(self.simulator.device)
        self._budgets = np.full(self.num_envs, self.budget)  # against an array NumPy compares faster than a number
        self._done = np.zeros(self.num_envs, bool)
        self._any_done = False
        self._every = np.ones(self.num_envs, bool)
        self._never = np.zeros(self.num_envs, bool)
        self._running = False
        self._paths: list[list[tuple[float, float]]] = [[] for _ in range(self.num_envs)]
        self._coverages: list[list[float]] = [[] for _ in range(self.num_envs)]
        self._last_reward: list[float | None] = [None] * self.num_envs

    # Gymnasium

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: Lane i is seeded ``seed + i``, or by the i-th of a list, in which None draws one. None goes on to the
                next episode of each lane's seed; a vector env that was never seeded draws one.
            options: ``scene``: an index into the scenes, or (B,) int, one for each lane, a path or an image (H, W, 3)
                uint8; ``fixation``: (x, y) or (B, 2), normalised; ``reset_mask``: (B,) bool, which lanes begin anew.

        Returns:
            Observation and info.

        Raises:
            InvalidTypeError: A seed, mask or scene of the wrong type.
            InvalidValueError: Unknown options, a mask that marks no lane, a fixation outside of the scene.
            SceneError: A scene that cannot be read.
        """
        mask = self.begin(seed, options)
        return self.observe(), self._reset_info(mask)

    def begin(self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None) -> NDArray[np.bool_]:
        """Do the work of :meth:`reset` and leave out its observation and info; return which lanes began anew."""
        options = validation.options("options", options)
        if options.keys() - _OPTIONS:
            raise InvalidValueError(f"options must be among {', '.join(_OPTIONS)}; got {', '.join(options)}.")
        mask = self._every if options.get("reset_mask") is None else chosen_lanes(options["reset_mask"], self.num_envs)
        seeds = self._seeds(seed, mask)
        self._begin(mask, seeds, options.get("scene"), options.get("fixation"))
        self._running = True
        if mask is self._every:
            self._done, self._any_done = self._never.copy(), False
        else:
            self._done &= ~mask
            self._any_done = bool(np.count_nonzero(self._done))
        self.simulator.sense()
        if self.render_mode is not None:
            self._trace_start(mask)
        return mask

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Move every eye.

        Args:
            actions: (B, …) of the action space.

        Returns:
            Observation, reward (B,) float64, terminated and truncated (B,) bool, info. On another device than the CPU
            they are tensors.

        Raises:
            InvalidTypeError: Actions that are not numbers.
            InvalidValueError: Actions of the wrong shape, NaN or out of range.
            gymnasium.error.ResetNeeded: Before the first reset, or with autoreset disabled, after an episode's end.
        """
        if not self._running:
            raise gym.error.ResetNeeded("call reset() before step().")
        terms, reward, terminated, again = self.move(actions)
        info = self._step_info()
        info["reward_terms"], info["_reward_terms"] = terms, self._every if again is None else ~again
        if again is not None:
            info |= self._reset_info(again)
        if self._any_done and self.autoreset_mode == AutoresetMode.SAME_STEP:
            info = self._reset_now(terminated, info)
            self._done, self._any_done = np.zeros(self.num_envs, bool), False
        observation = self.observe()
        reward = reward.astype(np.float64) if self._arrays else reward
        return self._result(observation, reward, terminated, info)

    def move(self, actions: Any) -> tuple[dict[str, Any], Any, NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Do the work of :meth:`step` and leave out its observation and info.

        Returns:
            The reward's terms and the reward, (B,) float32 each; which lanes have ended, (B,) bool; and which began
            anew in this step, or None.
        """
        simulator, again = self.simulator, self._done if self._any_done else None
        action = self.actions.validate(actions, self.num_envs, not self._bare)
        if again is not None and self.autoreset_mode == AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                "the episode is over; call reset() first."
                if self.num_envs == 1
                else f"lanes {np.flatnonzero(again).tolist()} are done; call reset(options={{'reset_mask': mask}})."
            )
        moving = None if again is None else ~again
        zoom, stopped = None, None
        if self._bare and isinstance(action, np.ndarray):
            if not simulator.advance_norm(action, moving, away=self._away):
                self.actions.validate(action, self.num_envs)  # which says what is wrong
        else:
            seen = simulator.measured
            aim, zoom, stopped = self.actions.decode(action, seen.fixation_px, self._half, simulator.size)
            if stopped is not None:
                stopped = stopped if self._arrays else stopped.cpu().numpy()
                moving = ~stopped if moving is None else moving & ~stopped
            zoom = None if zoom is None else torch.as_tensor(zoom, dtype=torch.float32)
            simulator.advance(aim, moving)
            self._steps += 1 if moving is None else moving
        if again is not None:
            self._begin(again, None, None, None)
            if zoom is not None:
                zoom = torch.where(torch.from_numpy(again).to(zoom.device), 1.0, zoom)
        simulator.sense(zoom)
        terms, reached = self.score_saccades()
        parts = iter(terms.values())
        reward = sum(parts, next(parts))
        terminated: NDArray[np.bool_] = (simulator.measured.step if self._arrays else self._steps) >= self._budgets
        if stopped is not None:
            terminated |= stopped
        if reached is not None:
            terminated |= reached
        if again is not None:
            terminated &= ~again
            reward = reward * (~again if self._arrays else torch.from_numpy(~again).to(reward.device))
        self._done = terminated
        self._any_done = bool(np.count_nonzero(terminated))  # any() takes 1 us
        if self.render_mode is not None:
            self._trace(again, reward)
        return terms, reward, terminated, again

    def close_extras(self, **kwargs: Any) -> None:
        """Close the scene source, such as a webcam, unless it was handed in open."""
        # Gymnasium before 1.3 closes what could not be made, too.
        close = getattr(getattr(getattr(self, "simulator", None), "scenes", None), "close", None)
        if close is not None and self._owns_scenes:
            close()

    @property
    def seeded(self) -> bool:
        """Whether a reset has given or drawn a seed."""
        return self._running

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Draw every lane, (H, W, 3) uint8 each, where ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            return None
        return tuple(self.draw(lane) for lane in range(self.num_envs))

    def draw(self, lane: int = 0, size: tuple[int, int] = (480, 854)) -> NDArray[np.uint8]:
        """Draw one lane: scene with scanpath, glimpse, belief and acuity, (H, W, 3) uint8 of a size."""
        from foveasim.drawing.env_render import render_lane  # here: it draws, and most envs are never drawn

        return render_lane(
            self.simulator,
            lane,
            self._paths[lane],
            self._coverages[lane],
            size,
            self.budget,
            self._last_reward[lane],
            self.task_view(lane),
        )

    # Inside

    def _seeds(self, seed: int | Sequence[int | None] | None, mask: NDArray[np.bool_]) -> list[int] | None:
        if seed is None:
            if self._running:
                return None
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        lanes = np.flatnonzero(mask)
        if isinstance(seed, int | np.integer):
            first = validation.seed_value("seed", seed, self.num_envs)
            return [first + int(lane) for lane in lanes]
        seed = seed.tolist() if isinstance(seed, np.ndarray) else seed
        if not isinstance(seed, Sequence) or isinstance(seed, str | bytes):
            raise InvalidTypeError(f"seed must be a whole number or a list of {self.num_envs}; got {seed!r}.")
        if len(seed) != self.num_envs:
            raise InvalidValueError(f"seed must be a number or a list of {self.num_envs}; got {len(seed)}.")
        fresh = np.random.SeedSequence().generate_state(len(lanes)).tolist()
        chosen = [seed[lane] for lane in lanes.tolist()]
        return [
            drawn if one is None else validation.seed_value("seed", one)
            for one, drawn in zip(chosen, fresh, strict=True)
        ]

    def _begin(self, mask: NDArray[np.bool_], seeds: list[int] | None, scene: object, fixation: object) -> None:
        simulator = self.simulator
        lanes = self.num_envs if mask is self._every else np.count_nonzero(mask)
        which = None if lanes == self.num_envs else mask
        index: int | list[int] | None = None
        pictures = None
        if isinstance(scene, int | np.integer) and not isinstance(scene, bool):
            index = scene_index(int(scene), len(simulator.scenes))
        elif is_indices(scene):
            index = scene_indices(scene, self.num_envs, len(simulator.scenes))[mask].tolist()
        elif scene is not None:
            pictures = [one_picture(scene)] * lanes
        start = None
        if fixation is not None:
            start = start_px(fixation, self.num_envs, simulator.size)
        simulator.begin(seeds, which, index=index, pictures=pictures, fixation_px=start)
        self._steps[mask] = 0
        if self.render_mode is not None:
            for lane in np.flatnonzero(mask):
                self._paths[lane], self._coverages[lane], self._last_reward[lane] = [], [], None
        if fixation is None and self.start == "random":
            key = simulator.key
            drawn = uniform(key.seed, key.episode, key.step * 0, Stream.FIXATION, 2).to(torch.float32)
            place = geometry.norm_to_px(2 * drawn - 1, simulator.size)
            chosen = torch.from_numpy(mask).to(place.device)[:, None]
            for point in (simulator.fixation_px, simulator.start_px, simulator.target_px):
                point.copy_(torch.where(chosen, place, point))
        self.on_begin(mask)

    def _trace_start(self, mask: NDArray[np.bool_]) -> None:
        points, coverage = self.simulator.fixation_px.tolist(), self.simulator.coverage.tolist()
        for lane in np.flatnonzero(mask):
            self._paths[lane], self._coverages[lane] = [tuple(points[lane])], [coverage[lane]]

    def _trace(self, again: NDArray[np.bool_] | None, reward: Any) -> None:
        """Keep the scanpaths that ``draw`` shows."""
        points, coverage = self.simulator.fixation_px.tolist(), self.simulator.coverage.tolist()
        for lane, (x, y) in enumerate(points):
            self._paths[lane].append((x, y))
            self._coverages[lane].append(coverage[lane])
            began = again is not None and bool(again[lane])
            self._last_reward[lane] = None if began else float(reward[lane])

    def observe(self) -> dict[str, Any]:
        """Return the observation of this moment."""
        simulator = self.simulator
        step, steps_left = simulator.measured.step, self._left
        # take() is twice as quick as [].
        left = steps_left.take(step, 0) if isinstance(steps_left, np.ndarray) else steps_left[step]
        observation = self.observations.build(simulator, self._half, left)
        observation.update(self.task_observation())
        return observation

    def _result(
        self, observation: dict[str, Any], reward: Any, terminated: NDArray[np.bool_], info: dict[str, Any]
    ) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        if self.output == "torch" or not self._arrays:
            never = torch.zeros(2, self.num_envs, dtype=torch.bool, device=self.simulator.device)
            ended = torch.from_numpy(terminated).to(never.device, copy=True) if terminated.any() else never[0]
            return as_torch(observation), torch.as_tensor(reward), ended, never[1], info
        return observation, reward, terminated.copy(), self._never.copy(), info

    def _step_info(self) -> dict[str, Any]:
        seen = self.simulator.measured
        every = self._every
        copied = {
            "fixation_px": seen.fixation_px,
            "target_px": seen.target_px,
            "amplitude_deg": seen.amplitude_deg,
            "duration_ms": seen.duration_ms,
            "clock_ms": seen.clock_ms,
            "coverage": seen.coverage,
        }
        info: dict[str, Any] = {}
        for name, value in copied.items():
            info[name] = value.copy() if self._arrays else value.clone()
            info["_" + name] = every
        for name, value in self.task_info().items():
            info[name], info["_" + name] = value, every
        return info

    def _reset_info(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        simulator = self.simulator
        info = self._step_info()
        names = np.array(simulator.names, dtype=object)
        names[~mask] = None
        values = {
            "scene": names,
            "label": simulator.label.cpu().numpy().copy(),
            "seed": simulator.seed.cpu().numpy().copy(),
        }
        values["episode_number"] = simulator.episode.cpu().numpy().copy()
        for name, value in values.items():
            info[name], info["_" + name] = value, mask.copy()
        return info

    def _reset_now(self, done: NDArray[np.bool_], info: dict[str, Any]) -> dict[str, Any]:
        """Begin finished lanes at once; what they saw last goes to ``final_obs`` and ``final_info``."""
        lanes = np.flatnonzero(done)
        # Where all look again they do so in fresh arrays; otherwise in the same ones, so that what was there is copied.
        last = self.observe()
        if len(lanes) < self.num_envs:
            last = {key: value[lanes] for key, value in last.items()}
        finals = np.full(self.num_envs, None, dtype=object)
        for row, lane in enumerate(lanes.tolist()):
            finals[lane] = {key: value[row] for key, value in last.items()}
        final_info = {**info, "_reward_terms": done.copy()}
        self._begin(done, None, None, None)
        self.simulator.sense_lanes(done)
        if self.render_mode is not None:
            self._trace_start(done)
        return {
            **info,
            **self._reset_info(done),
            "_reward_terms": ~done,
            "final_obs": finals,
            "_final_obs": done.copy(),
            "final_info": final_info,
            "_final_info": done.copy(),
        }
