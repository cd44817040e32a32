"""One eye, one mind, one scene after the other: what happens over time, without a window.

Time is given from outside by :meth:`Session.advance`, so a session runs live or frame by frame.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from foveasim import check, geometry
from foveasim.agents.base import Agent, Imagines, agent_name, make_agent
from foveasim.agents.human import Human
from foveasim.errors import FoveasimError, InvalidTypeError, SceneError
from foveasim.render import Heat, View
from foveasim.retina import Retina, make_retina
from foveasim.saccade import Saccades
from foveasim.scanpath import Scanpath
from foveasim.scenes import SceneSource, open_scenes
from foveasim.sight import Sight
from foveasim.thinking import HEAT_GREY_LEVELS, Percept, Thinker, Thought
from foveasim.trail import Flight, Trail

__all__ = ["HEATS", "Session"]

HEATS = ("error", "acuity", "uncertainty")
"""Heat maps, in the order in which they are switched."""

_SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_FOVEA_LIMITS = (0.25, 4.0)
_KEEP_PAST = 6  # curves of earlier scenes in the plot
_LAST_DWELL = 3  # dwells of the last fixation: time to take it in before the scene changes


class Session:
    """An eye that looks at scenes.

    Args:
        scenes: What ``open_scenes`` takes.
        agent: What ``make_agent`` takes.
        retina: A retina or its name.
        network: Something with ``imagine``, the name or file of a network, or None for no prediction.
        seed: Of everything random.
        budget: Fixations on each scene; 0 for no end.
        dwell_ms: How long a fixation lasts.
        half_life_ms: Time after which half of what was seen is forgotten; None forgets nothing.
        px_per_deg: Of the scenes; None makes their short side span 27.4 degrees.
        saccades: What the eye can do; its ``dwell_ms`` is not used.
        threaded: Whether agent and network work beside the caller. If not, a session repeats itself exactly.

    Raises:
        SceneError: No scene can be read.
        UnknownNameError: An unknown name.
        WeightsError: A network that cannot be read.
        InvalidValueError: A number out of range.
    """

    def __init__(
        self,
        scenes: object = "photos",
        agent: object = "saliency",
        retina: str | Retina = "pyramid",
        network: Imagines | str | Path | None = None,
        *,
        seed: int = 0,
        budget: int = 12,
        dwell_ms: float = 300.0,
        half_life_ms: float | None = None,
        px_per_deg: float | None = None,
        saccades: Saccades | None = None,
        threaded: bool = True,
    ) -> None:
        self.seed = check.seed_value("seed", seed)
        self.budget = int(check.number("budget", budget, 0))
        self.dwell_ms = check.number("dwell_ms", dwell_ms, 0, open_low=True)
        if half_life_ms is not None:
            check.number("half_life_ms", half_life_ms, 0, open_low=True)
        self._half_life_ms = half_life_ms
        self._px_per_deg = px_per_deg
        self._saccades = Saccades() if saccades is None else saccades
        self._source = _open(scenes, px_per_deg, self.seed)
        self._plain_retina = make_retina(retina)
        self.fovea_scale = 1.0
        self._agent_name = _name(agent)
        predictor = _predictor(network)
        self.index = 0
        self.paused = False
        self.held = False
        self.speed = 1.0
        self.heat = HEATS[0]
        self.alert = ""
        self._single = False
        self._moment = 0
        self._trail = Trail()
        self._past_errors: list[tuple[float, ...]] = []
        self._past_scanpaths: list[Scanpath] = []
        self._flight: Flight | None = None
        self._thought: Thought | None = None
        self._target_px: tuple[float, float] | None = None
        self._rest_ms = self._clock_ms = 0.0
        self._reward: float | None = None
        self._agent_failed, self._fresh_agent = False, True
        self._thinker = Thinker(make_agent(agent, seed=self.seed), predictor, threaded=threaded)
        try:
            self._sight = self._open_scene(None)
            self._begin_scene()
        except FoveasimError:
            self._thinker.close()
            raise

    # What is there

    @property
    def agent(self) -> Agent:
        """Who looks."""
        return self._thinker.agent

    @property
    def retina(self) -> Retina:
        """The retina, its fovea scaled."""
        return self._sight.retina

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene as the eye sees it, px; points are given in it."""
        return self._sight.size

    @property
    def scene_name(self) -> str:
        """Name of the scene."""
        return self._sight.name

    @property
    def fixations(self) -> int:
        """Fixations on this scene so far."""
        return len(self._trail.points_px)

    @property
    def gaze_px(self) -> tuple[float, float]:
        """Where the eye points at this moment."""
        return self._flight.gaze() if self._flight is not None else self._trail.points_px[-1]

    @property
    def in_flight(self) -> bool:
        """Whether a saccade is under way."""
        return self._flight is not None

    @property
    def thinking(self) -> bool:
        """Whether agent or network are at work."""
        return self._thinker.busy

    @property
    def errors(self) -> tuple[float, ...]:
        """Prediction error after each fixation on this scene, grey levels; NaN where it is not known (yet)."""
        return tuple(self._trail.errors)

    def scanpaths(self) -> list[Scanpath]:
        """Return the scanpaths of every scene so far, the present one last, in px of the scene as the eye sees it."""
        return [*self._past_scanpaths, self._trail.scanpath(self._clock_ms, self.scene_name, self._agent_name)]

    def view(self) -> View:
        """Return what there is to see at this moment."""
        thought, sight = self._thought, self._sight
        heat: Heat | None = None
        if self.heat == "acuity":
            heat = Heat("acuity", sight.acuity, "0", "1")
        elif thought is not None:
            values = thought.std if self.heat == "uncertainty" else thought.error
            heat = None if values is None else Heat(self.heat, values, "0", f"{HEAT_GREY_LEVELS}")
        prediction = None
        if self._thinker.predicts:
            known = thought is not None and thought.prediction is not None
            prediction = thought.prediction if thought is not None and known else sight.belief
        return View(
            scene=sight.scene,
            glimpse=sight.glimpse,
            belief=sight.belief,
            prediction=prediction,
            heat=heat,
            fixation_px=np.array(self._trail.points_px, np.float32),
            gaze_px=self.gaze_px,
            moving=self.in_flight,
            fovea_px=sight.fovea_px,
            errors=self.errors,
            past_errors=tuple(self._past_errors),
            budget=self.budget,
            agent=self._agent_name,
            retina=self.retina.name if self.fovea_scale == 1 else f"{self.retina.name} {self.fovea_scale:.2f}x",
            scene_name=self.scene_name,
            reward=self._reward,
            speed=self.speed,
            paused=self.paused,
            alert=self.alert,
        )

    # What the person does

    def point(self, x_px: float, y_px: float, *, drag: bool = False) -> None:
        """Move the gaze at once; the agent goes on from there.

        Args:
            x_px: px of the scene as the eye sees it, see :attr:`size`. Gaze stops at the edge of the scene.
            y_px: Likewise.
            drag: Whether this follows a moving pointer: the fixation moves along and no new one begins.

        Raises:
            InvalidValueError: Not finite.
        """
        self._flight = None
        self._sight.depart((check.number("x_px", x_px), check.number("y_px", y_px)))
        self._land(new=not drag)

    def hold(self, held: bool) -> None:
        """Keep the agent from moving the eye, as long as a mouse button is down."""
        self.held = held

    def set_paused(self, paused: bool) -> None:
        """Stop or go on."""
        self.paused = paused
        self._single = False

    def single_step(self) -> None:
        """Make one saccade, then stand still."""
        self._single = True

    def set_speed(self, speed: float) -> None:
        """Set how fast time runs, 1 for real time."""
        self.speed = check.number("speed", speed, 0, 100, open_low=True)

    def change_speed(self, steps: int) -> float:
        """Go up or down the ladder of speeds; returns the new one."""
        nearest = min(range(len(_SPEEDS)), key=lambda i: abs(_SPEEDS[i] - self.speed))
        self.speed = _SPEEDS[min(max(nearest + steps, 0), len(_SPEEDS) - 1)]
        return self.speed

    def next_heat(self) -> str:
        """Switch to the next heat map that there is; returns its name."""
        uncertain = self._thought is not None and self._thought.std is not None
        known = [name for name in HEATS if uncertain or name != "uncertainty"]
        self.heat = known[(known.index(self.heat) + 1) % len(known)] if self.heat in known else known[0]
        return self.heat

    def set_agent(self, spec: object) -> None:
        """Let another agent look, from what has been seen so far.

        Raises:
            UnknownNameError: No agent of that name.
            AgentError: It is no agent.
        """
        self._thinker.set_agent(make_agent(spec, seed=self.seed))
        self._agent_name = _name(spec)
        self.alert = ""
        self._agent_failed, self._fresh_agent = False, True
        self._perceive(choose=True)

    def set_retina(self, retina: str | Retina) -> None:
        """See with another retina, the scene begun anew at the present gaze.

        Raises:
            UnknownNameError: No retina of that name.
        """
        before = self._plain_retina
        self._plain_retina = make_retina(retina)
        try:
            sight = self._open_scene(self.gaze_px)
        except FoveasimError:
            self._plain_retina = before
            raise
        self._file_away()
        self._sight = sight
        self._begin_scene()

    def scale_fovea(self, factor: float) -> bool:
        """Make the fovea larger or smaller, the scene begun anew at the present gaze.

        Returns:
            False where the retina has no fovea to scale, or the limit (a quarter, four times) is reached.
        """
        scale = self.fovea_scale * check.number("factor", factor, 0, open_low=True)
        scale = 1.0 if abs(scale - 1) < 1e-6 else scale  # up and down again is where it was
        low, high = _FOVEA_LIMITS
        if not low * 0.999 <= scale <= high * 1.001 or self._plain_retina.scaled(2.0) == self._plain_retina:
            return False
        self.fovea_scale = scale
        self.set_retina(self._plain_retina)
        return True

    def next_scene(self) -> None:
        """Go on to the next scene that can be read.

        Raises:
            SceneError: None can.
        """
        for attempt in range(1, len(self._source) + 1):
            index = (self.index + attempt) % len(self._source)
            try:
                sight = self._open_scene(None, index)
            except SceneError:
                if attempt == len(self._source):
                    raise
                continue
            self._file_away()
            self.index, self._sight = index, sight
            self._begin_scene()
            return

    def load_file(self, path: str | Path) -> None:
        """Look at an image, a video or a folder instead; the present scenes stay if it cannot be read.

        Raises:
            SceneError: It cannot be read.
        """
        source = _open(Path(path), self._px_per_deg, self.seed)
        before = self._source, self.index
        self._source, self.index = source, 0
        try:
            sight = self._open_scene(None)
        except FoveasimError:
            self._source, self.index = before
            raise
        _close(before[0])
        self._file_away()
        self._past_errors = []
        self._sight = sight
        self._begin_scene()

    def close(self) -> None:
        """End the thread and let go of a camera."""
        self._thinker.close()
        _close(self._source)

    # What happens

    def advance(self, dt_ms: float) -> None:
        """Let time pass.

        Args:
            dt_ms: Time since the last call, ms, before ``speed`` is applied.

        Raises:
            SceneError: The next scene is due and none can be read.
        """
        left = check.number("dt_ms", dt_ms, 0) * self.speed
        self._take_thoughts()
        while left > 0 and (not self.paused or self._single):
            due = self._due_ms()
            spent = min(left, due)
            left -= spent
            self._clock_ms += spent
            if self._flight is not None:
                self._flight.elapsed_ms += spent
            elif not self.held:
                self._rest_ms = max(0.0, self._rest_ms - spent)
            if spent >= due and not self._happen():
                self._clock_ms += left  # the eye waits for the agent, and time goes on
                break
        if self._source.moving and not self.paused:
            saw = self._sight.watch(self._clock_ms, resting=self._flight is None)
            if saw and not self._thinker.busy:
                self._perceive(choose=False)

    def _due_ms(self) -> float:
        """Time until the next thing happens."""
        if self._flight is not None:
            return self._flight.duration_ms - self._flight.elapsed_ms
        if self.held:
            return math.inf
        return 0.0 if self._single else self._rest_ms

    def _happen(self) -> bool:
        """Land or leave; returns False where the eye cannot leave yet."""
        if self._flight is not None:
            self._flight = None
            self._land(new=True)
            if self._single:
                self._single, self.paused = False, True
            return True
        human = isinstance(self.agent, Human)
        if self.budget and self.fixations >= self.budget and not human and not self._single:
            self.next_scene()
            return True
        self._take_thoughts()
        if self._target_px is None:
            if self._agent_failed or human:
                self._single = False  # nobody will ever say where to
            return False
        start = self._trail.points_px[-1]
        self._trail.end(self._clock_ms)
        duration_ms = self._sight.depart(self._target_px)
        self._target_px = None
        self._flight = Flight(start, self._sight.fixation_px, duration_ms)
        return True

    def _open_scene(self, gaze_px: tuple[float, float] | None, index: int | None = None) -> Sight:
        retina = self._plain_retina if self.fovea_scale == 1 else self._plain_retina.scaled(self.fovea_scale)
        return Sight(
            self._source,
            self.index if index is None else index,
            retina,
            saccades=self._saccades,
            half_life_ms=self._half_life_ms,
            seed=self.seed,
            fixation_px=gaze_px,
        )

    def _file_away(self) -> None:
        """Keep what is over: the scanpath and the course of the error."""
        self._past_scanpaths.append(self._trail.scanpath(self._clock_ms, self.scene_name, self._agent_name))
        if any(math.isfinite(error) for error in self.errors):
            self._past_errors = [*self._past_errors, self.errors][-_KEEP_PAST:]

    def _begin_scene(self) -> None:
        self._trail = Trail()
        self._flight = None
        self._thought = None
        self._clock_ms = 0.0
        self._agent_failed, self._fresh_agent = False, True
        self.alert = ""
        self._settle(new=True)

    def _land(self, *, new: bool) -> None:
        self._sight.look(self._clock_ms)
        self._settle(new=new)

    def _settle(self, *, new: bool) -> None:
        """Note a glimpse and think about it."""
        if new:
            self._trail.begin(self._sight.fixation_px, self._clock_ms)
            self._reward = self._sight.gain
        else:
            self._trail.points_px[-1] = self._sight.fixation_px
        last = self.budget and self.fixations >= self.budget
        self._rest_ms = self.dwell_ms * (_LAST_DWELL if last else 1)
        self._perceive(choose=not self._agent_failed)

    def _perceive(self, *, choose: bool) -> None:
        """Hand the present moment to agent and network."""
        if choose:
            self._moment += 1
            self._target_px = None
        left = max(0.0, 1 - (self.fixations - 1) / self.budget) if self.budget else 1.0
        fresh, self._fresh_agent = self._fresh_agent, False
        sight = self._sight
        seen = sight.observation(left)
        self._thinker.consider(Percept(self._moment, seen, sight.belief, sight.acuity, choose, fresh))
        self._take_thoughts()

    def _take_thoughts(self) -> None:
        for result in self._thinker.collect():
            if result.moment != self._moment:
                continue  # about a fixation that is over
            if result.failure:
                self.alert = result.failure
            if isinstance(result, Thought):
                self._thought = result
                self._trail.errors[-1] = result.rmse
            elif result.target_norm is None:
                self._agent_failed = True
            else:
                point = geometry.norm_to_px(torch.tensor(result.target_norm), self.size)
                self._target_px = float(point[0]), float(point[1])


def _open(scenes: object, px_per_deg: float | None, seed: int) -> SceneSource:
    if isinstance(scenes, SceneSource) and not isinstance(scenes, type):
        return scenes  # its px_per_deg was given where it was opened
    return open_scenes(scenes, px_per_deg=px_per_deg, seed=seed)


def _close(source: SceneSource) -> None:
    closes = getattr(source, "close", None)  # a camera has one
    if callable(closes):
        closes()


def _name(spec: object) -> str:
    """Return what to call an agent: as it was asked for, where that was by name."""
    return spec if isinstance(spec, str) else agent_name(spec)


def _predictor(network: Imagines | str | Path | None) -> Imagines | None:
    if isinstance(network, str | Path):
        from foveasim.agents.mim.imagine import Imaginer  # here, so that a session without a network loads none

        return Imaginer(network)
    if network is not None and not isinstance(network, Imagines):
        raise InvalidTypeError(f"network must have imagine(observation), or be a name or a file; got {network!r}.")
    return network
