"""What goes on behind the eye: network and agent work beside the window, which never waits for them.

A :class:`Snapshot` goes in; a :class:`PredictionResult` and, where the agent was asked, a :class:`Choice` come out.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.agents.builtin.human import Human
from foveasim.agents.interface import Agent, Imagines, agent_action_mode, agent_name, agent_needs, explain_missing_need
from foveasim.envs.actions import ActionCode
from foveasim.errors import AgentError, FoveasimError, InvalidTypeError
from foveasim.types import Prediction

__all__ = [
    "HEAT_GREY_LEVELS",
    "AgentWorker",
    "Choice",
    "PredictionResult",
    "Snapshot",
    "check_prediction",
    "compose_sharp",
    "open_predictor",
    "picture_error",
]

HEAT_GREY_LEVELS = 64
"""Error at the high end of the heat map: a quarter of the range, which a good prediction seldom exceeds."""

_JOIN_TIMEOUT_S = 0.5  # most work is over by then
_NICENESS = 5  # a thread's niceness: a frame and the display's server, which shows it, get a core at once

Image = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Snapshot:
    """A moment, copied out of the simulators.

    Attributes:
        moment: Which one; results about it carry the same number.
        observation: What the agent's eye delivers, every key with its lane axis: glimpse, acuity, fixation, time,
            belief, belief_acuity, scene, and patch where the retina has one.
        scene: (H, W, 3) uint8 at the resolution of the window, to judge by.
        belief: (H, W, 3) uint8, likewise.
        belief_acuity: (H, W) uint8, likewise.
        choose: Whether the agent is asked where to look next.
        reset: Whether the agent is reset first, as a new scene began.
    """

    moment: int
    observation: dict[str, NDArray[Any]]
    scene: Image
    belief: Image
    belief_acuity: Image
    choose: bool
    reset: bool


@dataclass(frozen=True)
class Choice:
    """Where an agent looks next.

    Attributes:
        moment: That of the snapshot.
        target_norm: (x, y), normalised; None where it failed.
        failure: What it did wrong, "" if nothing.
    """

    moment: int
    target_norm: tuple[float, float] | None
    failure: str


@dataclass(frozen=True)
class PredictionResult:
    """What the network, or an agent that predicts, makes of a snapshot.

    Attributes:
        moment: That of the snapshot.
        prediction: (H, W, 3) uint8 at the resolution of the window, sharp where seen; None without a network.
        error: (h, w) uint8 at the agent's size, see :func:`picture_error`, 255 for :data:`HEAT_GREY_LEVELS` or more.
        std: (h, w) uint8, the network's own uncertainty on the same scale, or None.
        rmse: Root mean square of the error of the picture shown, grey levels.
        failure: What whoever predicts did wrong, "" if nothing.
    """

    moment: int
    prediction: Image | None
    error: Image
    std: Image | None
    rmse: float
    failure: str


def picture_error(displayed: Image, scene: Image, size: tuple[int, int]) -> tuple[NDArray[np.float32], float]:
    """Return how far a picture is from the scene.

    Args:
        displayed: (H, W, 3) uint8.
        scene: (H, W, 3) uint8.
        size: (h, w) of the map.

    Returns:
        (h, w) float32, grey levels of 255, root mean square over the colours and over an area; and that of the whole.

    Example:
        >>> black = np.zeros((8, 8, 3), np.uint8)
        >>> error, rmse = picture_error(black + np.uint8(30), black, (4, 4))
        >>> error.shape, float(error.max()), rmse
        ((4, 4), 30.0, 30.0)
    """
    away = cv2.absdiff(displayed, scene)
    squares = cv2.multiply(away, away, dtype=cv2.CV_32F)
    small = cv2.resize(squares, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    error: NDArray[np.float32] = np.sqrt(small.mean(2)).astype(np.float32)
    return error, float(np.sqrt(np.mean(cv2.mean(squares)[:3])))


def check_prediction(prediction: object, shape: tuple[int, ...]) -> Prediction:
    """Return what an ``imagine`` delivered, if it is of use.

    Args:
        prediction: What it delivered.
        shape: (B, H, W, 3) that is needed.

    Raises:
        AgentError: No prediction, or one with a wrong type, shape or value; the message says what to do.
    """
    if not isinstance(prediction, Prediction):
        got = "None" if prediction is None else f"a {type(prediction).__name__}"
        raise AgentError(
            f"imagine() must return a Prediction; got {got}. Return foveasim.types.Prediction(image), image a tensor "
            f"{shape} in [0, 1]; whoever predicts nothing has no imagine()."
        )
    _check_part("image", prediction.image, shape, 1.0)
    if prediction.std is not None:
        _check_part("std", prediction.std, shape[:3], np.inf)
    return prediction


def _check_part(name: str, value: object, shape: tuple[int, ...], maximum: float) -> None:
    if not isinstance(value, Tensor):
        hint = " Use torch.from_numpy(...)." if isinstance(value, np.ndarray) else ""
        raise AgentError(f"imagine() must return {name} as a torch tensor {shape}; got {type(value).__name__}.{hint}")
    if tuple(value.shape) != shape:
        hint = " Channels come last: use .permute(0, 2, 3, 1)." if _channels_first(tuple(value.shape), shape) else ""
        raise AgentError(f"imagine() must return {shape} as {name}; got {tuple(value.shape)}.{hint}")
    if not value.is_floating_point():
        raise AgentError(f"imagine() must return {name} as float in [0, 1]; got {value.dtype}. Divide by 255.")
    if value.requires_grad:
        raise AgentError(
            f"imagine() must return {name} without gradient. Call .detach(), or use torch.inference_mode()."
        )
    if not bool(torch.isfinite(value).all()):
        raise AgentError(f"imagine() must return finite numbers as {name}; got NaN or infinity.")
    low, high = float(value.min()), float(value.max())
    if low < 0 or high > maximum:
        limits = f"in [0, {maximum:g}]" if np.isfinite(maximum) else "of 0 or more"
        raise AgentError(
            f"imagine() must return {name} {limits}; it goes from {low:.3g} to {high:.3g}. Rescale or clamp it."
        )


def _channels_first(got: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and got == (shape[0], shape[3], shape[1], shape[2])


def compose_sharp(prediction: NDArray[np.float32], belief_small: Image, belief: Image, belief_acuity: Image) -> Image:
    """Lay a small prediction under what was seen at full resolution.

    Where nothing was seen, the enlarged prediction is shown. Elsewhere it corrects what was seen, the less the sharper
    it was seen: its difference from the small belief is enlarged and added, so the details of the belief stay.

    Args:
        prediction: (h, w, 3) float32 in [0, 1].
        belief_small: (h, w, 3) uint8, what the prediction was made from.
        belief: (H, W, 3) uint8.
        belief_acuity: (H, W) uint8.

    Returns:
        (H, W, 3) uint8, read-only.
    """
    size = belief.shape[1], belief.shape[0]  # cv2's order
    small = prediction * np.float32(255)
    hidden = cv2.merge([255 - belief_acuity] * 3)
    correction = cv2.resize(small - belief_small.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    correction = cv2.multiply(correction, hidden, scale=1 / 255, dtype=cv2.CV_32F)
    sharp = cv2.add(correction, belief, dtype=cv2.CV_8U)  # rounds, and saturates at black and white
    unseen = (belief_acuity == 0).astype(np.uint8)
    if unseen.any():
        enlarged = cv2.resize(np.clip(small, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_CUBIC)
        sharp = cv2.copyTo(enlarged, unseen, sharp)
    sharp.flags.writeable = False
    return sharp.astype(np.uint8, copy=False)


class AgentWorker:
    """Runs one agent and one predictor on snapshots, each in a thread of its own, or both at once.

    A slow agent so never holds up prediction, except one that predicts itself: an object is used by one thread only.

    Args:
        agent: Who looks; its own ``imagine`` is used where it has one.
        predictor: What predicts otherwise, or None.
        threaded: Whether to work beside the caller; at once, and so repeatably, if not.

    Raises:
        AgentError: The agent's ``needs``, ``action_mode``, ``size`` or ``grid`` cannot be met.
    """

    def __init__(self, agent: Agent, predictor: Imagines | None, *, threaded: bool) -> None:
        self._predictor = predictor
        self._ready: SimpleQueue[PredictionResult | Choice] = SimpleQueue()
        self.set_agent(agent)
        cores = max(1, torch.get_num_threads() // 2)  # for each; whoever shows the results needs some too
        self._prediction_queue = _SnapshotQueue(self._predict, "foveasim-predictor" if threaded else None, cores)
        self._choice_queue = _SnapshotQueue(self._choose, "foveasim-agent" if threaded else None, cores)

    def set_agent(self, agent: Agent) -> None:
        """Let another agent look. Submit only snapshots that say ``reset`` first.

        Raises:
            AgentError: Its ``needs``, ``action_mode``, ``size`` or ``grid`` cannot be met.
        """
        self._agent_spec = _AgentSpec.of(agent)

    @property
    def agent(self) -> Agent:
        """Who looks."""
        return self._agent_spec.agent

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the only observations that the agent takes, px; None where it takes any."""
        return self._agent_spec.size

    @property
    def predictor(self) -> Imagines | None:
        """Who predicts."""
        agent = self._agent_spec.agent
        return agent if isinstance(agent, Imagines) else self._predictor

    @property
    def predicting(self) -> bool:
        """Whether a prediction is under way."""
        return self._current_prediction_queue.busy

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return self._prediction_queue.busy or self._choice_queue.busy

    @property
    def _current_prediction_queue(self) -> _SnapshotQueue:
        """Where predictions are made."""
        return self._choice_queue if isinstance(self._agent_spec.agent, Imagines) else self._prediction_queue

    def submit(self, snapshot: Snapshot) -> None:
        """Work on a snapshot, in threads from the next :meth:`collect` on.

        An earlier one that still waits for its turn is dropped, but not its ``reset``.
        """
        self._current_prediction_queue.submit(snapshot, self._agent_spec)
        if self._current_prediction_queue is not self._choice_queue and (snapshot.reset or snapshot.choose):
            self._choice_queue.submit(snapshot, self._agent_spec)

    def collect(self) -> Iterator[PredictionResult | Choice]:
        """Begin what waits and yield what is ready, oldest first, without waiting."""
        self._prediction_queue.start_pending()
        self._choice_queue.start_pending()
        while not self._ready.empty():
            yield self._ready.get()

    def close(self) -> None:
        """End the threads, leaving alone what takes long: it ends with the process at the latest."""
        self._prediction_queue.close()
        self._choice_queue.close()
        torch.set_num_threads(torch.get_num_threads())  # for threads to come, to which theirs would be passed on

    def _choose(self, snapshot: Snapshot, agent_spec: _AgentSpec) -> None:
        agent, failures = agent_spec.agent, list[str]()
        if snapshot.reset:
            _guard(lambda: agent.reset(np.ones(1, np.bool_)), agent, failures)
        if isinstance(agent, Imagines):
            self._predict(snapshot, agent_spec)
        target = None
        if snapshot.choose and not failures and not isinstance(agent, Human):
            target = _guard(lambda: agent_spec.choose(snapshot.observation), agent, failures)
        if target is not None or failures:
            self._ready.put(Choice(snapshot.moment, target, failures[0] if failures else ""))

    def _predict(self, snapshot: Snapshot, agent_spec: _AgentSpec) -> None:
        seen, failures = snapshot.observation, list[str]()
        prediction = self._imagine(seen, agent_spec, failures)
        small, displayed, std = seen["belief"][0], None, None
        if prediction is not None:
            image = prediction.image[0].cpu().numpy().astype(np.float32, copy=False)
            displayed = compose_sharp(image, small, snapshot.belief, snapshot.belief_acuity)
            std = None if prediction.std is None else _heat(255 * prediction.std[0].float().cpu().numpy())
        size = (small.shape[0], small.shape[1])
        error, rmse = picture_error(snapshot.belief if displayed is None else displayed, snapshot.scene, size)
        failure = failures[0] if failures else ""
        self._ready.put(PredictionResult(snapshot.moment, displayed, _heat(error), std, rmse, failure))

    def _imagine(self, seen: dict[str, NDArray[Any]], agent_spec: _AgentSpec, failures: list[str]) -> Prediction | None:
        predictor = agent_spec.agent if isinstance(agent_spec.agent, Imagines) else self._predictor
        if predictor is None:
            return None
        allowed = {key: value for key, value in seen.items() if key != "scene" or "scene" in agent_spec.needs}
        shape = seen["belief"].shape
        return _guard(lambda: check_prediction(predictor.imagine(allowed), shape), predictor, failures)


class _WorkCancelled(BaseException):
    """Ends work that nobody waits for any more; no agent's ``except Exception`` catches it."""


class _SnapshotQueue:
    """Works on one snapshot after the other; of those that come meanwhile, the newest waits.

    Args:
        process: What is done with each.
        name: Of the thread; None works at once.
        cores: That torch uses in the thread.
    """

    def __init__(self, process: Callable[[Snapshot, _AgentSpec], None], name: str | None, cores: int) -> None:
        self._process, self._cores = process, cores
        self._pending: tuple[Snapshot, _AgentSpec] | None = None
        self._running = False
        self._tasks: SimpleQueue[tuple[Snapshot, _AgentSpec] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread: Thread | None = None
        if name is not None:
            self._thread = Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a snapshot is worked on or waits."""
        return self._running or self._pending is not None

    def submit(self, snapshot: Snapshot, agent_spec: _AgentSpec) -> None:
        """Work on a snapshot, in a thread from the next :meth:`start_pending` on.

        It takes the place of one that waits, whose ``reset`` and ``choose`` it takes over.
        """
        if self._thread is None:
            self._process(snapshot, agent_spec)
            return
        if self._pending is not None:
            pending = self._pending[0]
            snapshot = replace(
                snapshot, reset=snapshot.reset or pending.reset, choose=snapshot.choose or pending.choose
            )
        self._pending = snapshot, agent_spec

    def start_pending(self) -> None:
        """Take note of what is done and begin what waits.

        Raises:
            BaseException: What the work raised.
        """
        if self._running and not self._done.empty():
            self._running = False
            error = self._done.get()
            if error is not None:
                raise error
        if self._pending is not None and not self._running:
            self._running = True
            self._tasks.put(self._pending)
            self._pending = None

    def close(self) -> None:
        """Drop what waits and end the thread; what does not end within a second ends with the process."""
        self._pending = None
        if self._thread is not None:
            self._tasks.put(None)
            self._thread.join(_JOIN_TIMEOUT_S)
            if self._thread.is_alive() and self._thread.ident is not None:
                # An interpreter that ends while a thread is inside torch aborts: end the thread between two calls.
                raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
                raise_in(ctypes.c_ulong(self._thread.ident), ctypes.py_object(_WorkCancelled))
                self._thread.join(_JOIN_TIMEOUT_S)

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere it would be the whole process that gives way
            os.nice(_NICENESS)
        # Here, because a thread that has used torch once keeps its own number, whatever the others set later.
        torch.set_num_threads(self._cores)
        with suppress(_WorkCancelled):
            while (task := self._tasks.get()) is not None:
                try:
                    self._process(*task)
                except _WorkCancelled:
                    raise
                except BaseException as error:  # the caller's thread raises it
                    self._done.put(error)
                else:
                    self._done.put(None)


def open_predictor(network: Imagines | str | Path | None) -> Imagines | None:
    """Return what predicts.

    Args:
        network: Something with ``imagine``, the name or file of a network, or None for nothing.

    Raises:
        InvalidTypeError: None of these.
        WeightsError: A network that cannot be read.
    """
    if isinstance(network, str | Path):
        from foveasim.agents.mim.predictor import Predictor  # here, so that a session without a network loads none

        return Predictor(network)
    if network is not None and not isinstance(network, Imagines):
        raise InvalidTypeError(f"network must have imagine(observation), or be a name or a file; got {network!r}.")
    return network


@dataclass(frozen=True)
class _AgentSpec:
    """An agent and what it says about itself, so that work under way is not mixed up with the next agent."""

    agent: Agent
    needs: tuple[str, ...]
    code: ActionCode
    size: tuple[int, int] | None

    @classmethod
    def of(cls, agent: Agent) -> _AgentSpec:
        """Read what an agent says about itself.

        Raises:
            AgentError: What it says cannot be met.
        """
        needs, mode = agent_needs(agent), agent_action_mode(agent)
        size = getattr(agent, "size", None)
        try:
            code = ActionCode(mode, tuple(getattr(agent, "grid", (8, 8))))
            return cls(agent, needs, code, None if size is None else validation.size_hw("size", tuple(size), 8, 1024))
        except (FoveasimError, TypeError) as error:
            raise AgentError(f"what {agent_name(agent)} was trained on cannot be shown here: {error}") from error

    def choose(self, seen: dict[str, NDArray[Any]]) -> tuple[float, float]:
        allowed = {"glimpse", "acuity", "fixation", "time", "patch"}
        for key in self.needs:
            allowed |= {"belief", "belief_acuity"} if key == "belief" else {key}
        action = self.code.validate(self.agent.act({k: v for k, v in seen.items() if k in allowed}), 1)
        size = seen["scene"].shape[1], seen["scene"].shape[2]
        half_px = np.array([size[1] / 2, size[0] / 2], np.float32)
        fixation_px = (seen["fixation"] + 1) * half_px
        target = torch.as_tensor(self.code.decode(action, fixation_px, half_px, size).target_px)
        x, y = geometry.px_to_norm(geometry.clamp_px(target, size), size)[0].tolist()
        return x, y


def _guard(call: Callable[[], T], who: object, failures: list[str]) -> T | None:
    """Run someone else's code: whatever it raises becomes a message."""
    try:
        with torch.inference_mode():
            return call()
    except FoveasimError as error:
        failures.append(f"{agent_name(who)}: {error}")
    except (Exception, SystemExit) as error:  # a user's agent may raise anything, and the window must live on
        remedy = explain_missing_need(error)
        failures.append(f"{agent_name(who)} raised {type(error).__name__}: {error}{f'. {remedy}' if remedy else ''}")
    return None


def _heat(values: NDArray[np.float32]) -> Image:
    heat: Image = np.clip(values * (255 / HEAT_GREY_LEVELS), 0, 255).astype(np.uint8)
    heat.flags.writeable = False
    return heat
