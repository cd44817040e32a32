"""One eye, one agent, one scene after the other: what happens over time, without a window.

Time is given from outside by :meth:`Session.advance`, so a session runs live or frame by frame.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from foveasim import validation
from foveasim.agents.builtin.human import Human
from foveasim.agents.interface import Agent, Imagines, agent_name
from foveasim.agents.loading import make_agent
from foveasim.drawing.render import LATEST, Heat, View
from foveasim.errors import AgentError, FoveasimError, SceneError
from foveasim.eye.retina import Retina, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.scanpath.scanpath import Scanpath
from foveasim.viewer.agent_worker import HEAT_GREY_LEVELS, AgentWorker, PredictionResult, Snapshot, open_predictor
from foveasim.viewer.display_eye import DisplayEye, ScenePreloader, close_source, open_source
from foveasim.viewer.scanpath_recorder import OngoingSaccade, ScanpathRecorder, StatusMessages

__all__ = ["HEATS", "Session"]

HEATS = ("error", "acuity", "uncertainty")
"""Heat maps, in the order in which they are switched."""

_SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_FOVEA_LIMITS = (0.25, 4.0)
_MAX_PAST_CURVES = 6  # curves of earlier scenes in the plot
_LAST_DWELL_FACTOR = 3  # dwells of the last fixation: time to take it in before the scene changes


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
        SceneError: No scene can be used.
        AgentError: The agent cannot be used.
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
        self.seed = validation.seed_value("seed", seed)
        self.budget = int(validation.number("budget", budget, 0))
        self.dwell_ms = validation.number("dwell_ms", dwell_ms, 0, open_low=True)
        if half_life_ms is not None:
            validation.number("half_life_ms", half_life_ms, 1e-3, 1e15)
        self._px_per_deg, self._threaded = px_per_deg, threaded
        self._preloader = ScenePreloader(Saccades() if saccades is None else saccades, half_life_ms, self.seed)
        self._source = open_source(scenes, px_per_deg, self.seed)
        self._unscaled_retina, self.fovea_scale = make_retina(retina), 1.0
        self._agent_name, self.index, self._moment = _name(agent), 0, 0
        self.paused = self.held = self._single_step = False
        self.speed, self.heat, self.alert = 1.0, HEATS[0], ""
        self._messages, self._recorder = StatusMessages(), ScanpathRecorder()
        self._past_errors: list[tuple[float, ...]] = []
        self._past_scanpaths: list[Scanpath] = []
        self._saccade: OngoingSaccade | None = None
        self._prediction_result: PredictionResult | None = None
        self._target_px: tuple[float, float] | None = None
        self._dwell_left_ms = self._clock_ms = 0.0
        self._reward: float | None = None
        self._agent_failed, self._agent_needs_reset, self._choice_deferred = False, True, False
        self._worker = AgentWorker(make_agent(agent, seed=self.seed), open_predictor(network), threaded=threaded)
        try:
            self.index, self._display_eye = self._find_scene(0)
            self._start()
        except FoveasimError:
            self._worker.close()
            raise
        self.poll_agent()

    # What is there

    def __repr__(self) -> str:
        return f"Session({self._source!r}, {self.agent!r}, {self.retina!r}, {self.fixations} fixations)"

    @property
    def agent(self) -> Agent:
        """Who looks."""
        return self._worker.agent

    @property
    def retina(self) -> Retina:
        """The retina, its fovea scaled."""
        return self._display_eye.retina

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the scene as the eye sees it, px; points are given in it."""
        return self._display_eye.size

    @property
    def scene_name(self) -> str:
        """Name of the scene."""
        return self._display_eye.name

    @property
    def fixations(self) -> int:
        """Fixations on this scene so far."""
        return len(self._recorder.points_px)

    @property
    def gaze_px(self) -> tuple[float, float]:
        """Where the eye points at this moment."""
        return self._saccade.gaze() if self._saccade is not None else self._recorder.points_px[-1]

    @property
    def status_message(self) -> str:
        """What is shown for a while, such as which scenes were skipped; "" if nothing."""
        return self._messages.text

    @property
    def in_flight(self) -> bool:
        """Whether a saccade is under way."""
        return self._saccade is not None

    @property
    def busy(self) -> bool:
        """Whether agent or network are at work."""
        return self._worker.busy

    @property
    def errors(self) -> tuple[float, ...]:
        """Prediction error after each fixation on this scene, grey levels; NaN where it is not known (yet)."""
        return tuple(self._recorder.errors)

    def scanpaths(self) -> list[Scanpath]:
        """Return the scanpaths of every scene so far, the present one last, in px of the scene as the eye sees it."""
        return [*self._past_scanpaths, self._recorder.scanpath(self._clock_ms, self.scene_name, self._agent_name)]

    def current_view(self) -> View:
        """Return what there is to see at this moment."""
        result, display_eye = self._prediction_result, self._display_eye
        heat: Heat | None = None
        if self.heat == "acuity":
            heat = Heat("acuity", display_eye.agent_acuity, "0", "1")
        elif result is not None:
            values = result.std if self.heat == "uncertainty" else result.error
            heat = None if values is None else Heat(self.heat, values, "0", f"{HEAT_GREY_LEVELS}")
        prediction = display_eye.displayed[1] if result is None or result.prediction is None else result.prediction
        return View(
            scene=display_eye.scene,
            glimpse=display_eye.displayed[0],
            belief=display_eye.displayed[1],
            prediction=None if self._worker.predictor is None else prediction,
            heat=heat,
            fixation_px=np.array(self._recorder.points_px[-LATEST:], np.float32),
            gaze_px=self.gaze_px,
            moving=self.in_flight,
            fovea_px=display_eye.fovea_px,
            earlier=max(0, self.fixations - LATEST),
            errors=tuple(self._recorder.errors[-LATEST:]),
            past_errors=tuple(self._past_errors),
            budget=self.budget,
            agent=self._agent_name,
            retina=self.retina.name if self.fovea_scale == 1 else f"{self.retina.name} {self.fovea_scale:.2f}x",
            scene_name=self.scene_name,
            reward=self._reward,
            target=display_eye.target,
            found=display_eye.found and not self.in_flight,
            speed=self.speed,
            paused=self.paused,
            alert=self.alert or self.status_message,
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
        self._saccade = None
        self._display_eye.start_saccade((validation.number("x_px", x_px), validation.number("y_px", y_px)))
        self._land(new=not drag)

    def hold(self, held: bool) -> None:
        """Keep the agent from moving the eye, and from being asked where to, as long as a mouse button is down."""
        self.held = held
        if not held and self._choice_deferred:
            self._submit_snapshot(choose=True)

    def set_paused(self, paused: bool) -> None:
        """Stop or go on."""
        self.paused = paused
        self._single_step = False

    def single_step(self) -> None:
        """Make one saccade, then stand still."""
        self._single_step = True

    def set_speed(self, speed: float) -> None:
        """Set how fast time runs, 1 for real time."""
        self.speed = validation.number("speed", speed, 0, 100, open_low=True)

    def change_speed(self, steps: int) -> float:
        """Go up or down the ladder of speeds; returns the new one."""
        nearest = min(range(len(_SPEEDS)), key=lambda i: abs(_SPEEDS[i] - self.speed))
        self.speed = _SPEEDS[min(max(nearest + steps, 0), len(_SPEEDS) - 1)]
        return self.speed

    def next_heat(self) -> str:
        """Switch to the next heat map that there is; returns its name."""
        uncertain = self._prediction_result is not None and self._prediction_result.std is not None
        known = [name for name in HEATS if uncertain or name != "uncertainty"]
        self.heat = known[(known.index(self.heat) + 1) % len(known)] if self.heat in known else known[0]
        return self.heat

    def set_agent(self, spec: object) -> None:
        """Let another agent look, from what has been seen so far.

        The scene begins anew at the present gaze if the agent takes observations of one size only, or the last one did.

        Raises:
            UnknownNameError: No agent of that name.
            AgentError: It is no agent, or the scene cannot be shown at the size that it takes.
        """
        before = self._worker.agent, self._worker.size
        self._worker.set_agent(make_agent(spec, seed=self.seed))
        if self._worker.size != before[1]:
            try:
                display_eye = self._open_scene()
            except FoveasimError as error:
                self._worker.set_agent(before[0])
                raise AgentError(f"{_name(spec)} cannot look at this scene: {error}") from error
            self._begin_scene(display_eye, _name(spec))
            return
        self._agent_name, self.alert = _name(spec), ""
        self._agent_failed, self._agent_needs_reset = False, True
        self._report_untrained_retina()
        self._submit_snapshot(choose=True, new=True)

    def set_retina(self, retina: str | Retina) -> None:
        """See with another retina, the scene begun anew at the present gaze.

        Raises:
            UnknownNameError: No retina of that name.
            FoveasimError: It cannot work on this scene.
        """
        self._replace_retina(make_retina(retina), self.fovea_scale)

    def scale_fovea(self, factor: float) -> bool:
        """Make the fovea larger or smaller, the scene begun anew at the present gaze.

        Returns:
            False where the retina has no fovea to scale, or the limit (a quarter, four times) is reached.
        """
        scale = self.fovea_scale * validation.number("factor", factor, 0, open_low=True)
        scale = 1.0 if abs(scale - 1) < 1e-6 else scale  # up and down again is where it was
        low, high = _FOVEA_LIMITS
        if not low * 0.999 <= scale <= high * 1.001 or self._unscaled_retina.scaled(2.0) == self._unscaled_retina:
            return False
        self._replace_retina(self._unscaled_retina, scale)
        return True

    def _replace_retina(self, retina: Retina, fovea_scale: float) -> None:
        """Begin the scene anew with a retina; it stays as it was if the retina cannot work on it."""
        before = self._unscaled_retina, self.fovea_scale
        self._unscaled_retina, self.fovea_scale = retina, fovea_scale
        try:
            display_eye = self._open_scene()
        except FoveasimError:
            self._unscaled_retina, self.fovea_scale = before
            raise
        self._begin_scene(display_eye)

    def next_scene(self) -> None:
        """Go on to the next scene that can be used; a status message names those that cannot.

        Raises:
            SceneError: None can.
        """
        self.index, display_eye = self._find_scene(self.index + 1)
        self._begin_scene(display_eye)

    def load_file(self, path: str | Path) -> None:
        """Look at an image, a video or a folder instead; the present scenes stay if it cannot be used.

        Raises:
            SceneError: It cannot be used.
        """
        source = open_source(Path(path), self._px_per_deg, self.seed)
        before = self._source, self.index
        self._source = source
        try:
            self.index, display_eye = self._find_scene(0)
        except FoveasimError:
            self._source, self.index = before
            close_source(source)
            raise
        close_source(before[0])
        self._begin_scene(display_eye)
        self._past_errors = []

    def close(self) -> None:
        """End the threads, without waiting for an agent that takes long, and let go of a camera."""
        self._worker.close()
        self._preloader.close()
        close_source(self._source)

    # What happens

    def advance(self, dt_ms: float) -> None:
        """Let time pass.

        Args:
            dt_ms: Time since the last call, ms, before ``speed`` is applied.

        Raises:
            SceneError: The next scene is due and none can be read.
        """
        left = validation.number("dt_ms", dt_ms, 0) * self.speed
        self._messages.pass_time(dt_ms)
        self._display_eye.show()
        self.poll_agent()
        while left > 0 and (not self.paused or self._single_step):
            due = self._due_ms()
            spent = min(left, due)
            left -= spent
            self._clock_ms += spent
            if self._saccade is not None:
                self._saccade.elapsed_ms += spent
            elif not self.held:
                self._dwell_left_ms = max(0.0, self._dwell_left_ms - spent)
            if spent >= due and not self._run_due_event():
                self._clock_ms += left  # the eye waits for the agent, and time goes on
                break
        if self._source.moving and not self.paused:
            self._refresh_scene()

    def _refresh_scene(self) -> None:
        """Bring a moving scene to the present; one that can no longer be read is over."""
        try:
            changed = self._display_eye.refresh(self._clock_ms, resting=self._saccade is None)
        except SceneError as error:
            self._messages.add(str(error))
            self.next_scene()
            return
        if changed and not self._worker.predicting:
            self._submit_snapshot(choose=False)

    def _due_ms(self) -> float:
        """Time until the next thing happens."""
        if self._saccade is not None:
            return self._saccade.duration_ms - self._saccade.elapsed_ms
        return math.inf if self.held else 0.0 if self._single_step else self._dwell_left_ms

    def _run_due_event(self) -> bool:
        """Land or leave; returns False where the eye cannot leave yet."""
        if self._saccade is not None:
            self._saccade = None
            self._land(new=True, show_later=self._threaded)
            if self._single_step:
                self._single_step, self.paused = False, True
            return True
        human = isinstance(self.agent, Human)
        if self._scene_finished and not human and not self._single_step:
            self.next_scene()
            return True
        self.poll_agent()
        if self._target_px is None:
            if self._agent_failed or human:
                self._single_step = False  # nobody will ever say where to
            return False
        self._recorder.end(self._clock_ms)
        duration_ms = self._display_eye.start_saccade(self._target_px)
        self._target_px = None
        self._saccade = OngoingSaccade(self._recorder.points_px[-1], self._display_eye.fixation_px, duration_ms)
        return True

    @property
    def _scene_finished(self) -> bool:
        return bool(self.budget and self.fixations >= self.budget) or self._display_eye.found

    def _find_scene(self, start: int) -> tuple[int, DisplayEye]:
        """Return the first usable scene from ``start`` on and its number; a status message counts the others."""
        index, display_eye, unusable = self._preloader.open_first_usable(
            self._source, start, self._scaled_retina, self._worker.size
        )
        self._messages.add_count("scenes skipped", unusable)
        return index, display_eye

    def _open_scene(self) -> DisplayEye:
        retina, gaze = self._scaled_retina, self._display_eye.to_norm(self.gaze_px)
        return self._preloader.open(self._source, self.index, retina, self._worker.size, gaze)

    @property
    def _scaled_retina(self) -> Retina:
        return self._unscaled_retina if self.fovea_scale == 1 else self._unscaled_retina.scaled(self.fovea_scale)

    def _report_untrained_retina(self) -> None:
        """Report once where the network was not trained on the retina."""
        predictor = self._worker.predictor
        known = getattr(predictor, "retinas", ())
        message = f"{agent_name(predictor)} was not trained on {self.retina.name}, only on {', '.join(known)}"
        if known and self.retina.name not in known:
            self._messages.add_once(message)

    def _begin_scene(self, display_eye: DisplayEye, agent_name: str = "") -> None:
        """Store the scanpath and the course of the error, and look at another scene."""
        self._past_scanpaths.append(self._recorder.scanpath(self._clock_ms, self.scene_name, self._agent_name))
        if any(math.isfinite(error) for error in self.errors):
            self._past_errors = [*self._past_errors, self.errors][-_MAX_PAST_CURVES:]
        self._display_eye, self._agent_name = display_eye, agent_name or self._agent_name
        self._start()

    def _start(self) -> None:
        self._recorder, self._saccade, self._prediction_result = ScanpathRecorder(), None, None
        self._clock_ms = 0.0
        self._agent_failed, self._agent_needs_reset = False, True
        self.alert = ""
        self._report_untrained_retina()
        self._record_glimpse(new=True)

    def _land(self, *, new: bool, show_later: bool = False) -> None:
        self._display_eye.sense(self._clock_ms, show_later=show_later)
        self._record_glimpse(new=new)

    def _record_glimpse(self, *, new: bool) -> None:
        """Note a glimpse and hand it to agent and network."""
        if new:
            self._recorder.begin(self._display_eye.fixation_px, self._clock_ms)
            self._reward = self._display_eye.reward if self.fixations > 1 else None
        else:
            self._recorder.points_px[-1] = self._display_eye.fixation_px
        self._dwell_left_ms = self.dwell_ms * (_LAST_DWELL_FACTOR if self._scene_finished else 1)
        if self._scene_finished and new and self._threaded and not self._source.moving:
            self._preloader.preload(self._source, self.index + 1, self._scaled_retina, self._worker.size)
        self._submit_snapshot(choose=not self._agent_failed, new=True)

    def _submit_snapshot(self, *, choose: bool, new: bool = False) -> None:
        """Hand the present moment to agent and network; of what came before a new one, nothing counts any more."""
        if new:
            self._moment += 1
            self._target_px = None
        self._choice_deferred = self.held and (choose or self._choice_deferred)
        choose = choose and not self.held
        left = max(0.0, 1 - (self.fixations - 1) / self.budget) if self.budget else 1.0
        needs_reset, self._agent_needs_reset = self._agent_needs_reset, False
        display_eye, seen = self._display_eye, self._display_eye.observation(left)
        self._worker.submit(
            Snapshot(self._moment, seen, display_eye.scene, display_eye.belief, display_eye.acuity, choose, needs_reset)
        )
        if not self._threaded:
            self.poll_agent()

    def poll_agent(self) -> None:
        """Begin the work on what is new and take in the results that are ready; :meth:`advance` does so first."""
        for result in self._worker.collect():
            if result.moment != self._moment:
                continue  # about a fixation that is over
            if result.failure:
                self.alert = result.failure
            if isinstance(result, PredictionResult):
                self._prediction_result = result
                self._recorder.errors[-1] = result.rmse
            elif result.target_norm is None:
                self._agent_failed = True
            else:
                self._target_px = self._display_eye.to_px(result.target_norm)


def _name(spec: object) -> str:
    """Return what to call an agent: as it was asked for, where that was by name."""
    return spec if isinstance(spec, str) else agent_name(spec)
