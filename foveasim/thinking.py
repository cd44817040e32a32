"""What goes on behind the eye: the network predicts and the agent chooses, beside the window, so that it never waits.

A :class:`Percept` goes in; a :class:`Thought` and, where the agent was asked, a :class:`Choice` come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import geometry
from foveasim.agents.base import Agent, Imagines, agent_action_mode, agent_name, agent_needs
from foveasim.agents.human import Human
from foveasim.envs.actions import ActionCode
from foveasim.errors import FoveasimError
from foveasim.types import Prediction

__all__ = ["HEAT_GREY_LEVELS", "Choice", "Percept", "Thinker", "Thought", "compose_sharp", "picture_error"]

HEAT_GREY_LEVELS = 64
"""Error at the high end of the heat map: a quarter of the range, which a good prediction seldom exceeds."""

Image = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Percept:
    """A moment, copied out of the simulators.

    Attributes:
        moment: Which one; the thought about it carries the same number.
        observation: What the mind's eye delivers, every key with its lane axis: glimpse, acuity, fixation, time,
            belief, belief_acuity, scene, and patch where the retina has one.
        belief: (H, W, 3) uint8 at the resolution of the window.
        belief_acuity: (H, W) uint8, likewise.
        choose: Whether the agent is asked where to look next.
        reset: Whether the agent is told first that a new scene began.
    """

    moment: int
    observation: dict[str, NDArray[Any]]
    belief: Image
    belief_acuity: Image
    choose: bool
    reset: bool


@dataclass(frozen=True)
class Choice:
    """Where an agent looks next.

    Attributes:
        moment: That of the percept.
        target_norm: (x, y), normalised; None where it failed.
        failure: What it did wrong, "" if nothing.
    """

    moment: int
    target_norm: tuple[float, float] | None
    failure: str


@dataclass(frozen=True)
class Thought:
    """What the mind makes of a percept. It comes first: predicting is quick, and an agent may take its time.

    Attributes:
        moment: That of the percept.
        prediction: (H, W, 3) uint8 at the resolution of the window, sharp where seen; None without a network.
        error: (h, w) uint8, see :func:`picture_error`, 255 for :data:`HEAT_GREY_LEVELS` or more.
        std: (h, w) uint8, the network's own uncertainty on the same scale, or None.
        rmse: Root mean square of that error over the scene, grey levels.
        failure: What whoever predicts did wrong, "" if nothing.
    """

    moment: int
    prediction: Image | None
    error: Image
    std: Image | None
    rmse: float
    failure: str


def picture_error(prediction: NDArray[np.float32], belief: Image, acuity: Image, scene: Image) -> NDArray[np.float32]:
    """Return how far the mind's picture is from the scene.

    The mind's picture is what was seen where it was seen sharply, and the prediction everywhere else: a network
    corrects a blurred view too, and mixing the two by acuity measured worse. Its root mean square over the scene
    falls both when the eye sees more and when the network guesses better.

    Args:
        prediction: (H, W, 3) float32 in [0, 1].
        belief: (H, W, 3) uint8, what was seen.
        acuity: (H, W) uint8, how sharply.
        scene: (H, W, 3) uint8.

    Returns:
        (H, W) float32, grey levels of 255, root-mean-square over the colours.

    Example:
        >>> black, unseen = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
        >>> float(picture_error(np.ones((8, 8, 3), np.float32), black, unseen, black).max())
        255.0
    """
    picture = np.where(acuity[..., None] == 255, belief, 255 * prediction)
    error: NDArray[np.float32] = np.sqrt(((picture - scene) ** 2).mean(2)).astype(np.float32)
    return error


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


class Thinker:
    """Runs one agent and one predictor on percepts, in a thread of its own or at once.

    Args:
        agent: Who looks; its own ``imagine`` is used where it has one.
        predictor: What predicts otherwise, or None.
        threaded: Whether to think beside the caller; at once, and so repeatably, if not.
    """

    def __init__(self, agent: Agent, predictor: Imagines | None, *, threaded: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "foveasim-thinker") if threaded else None
        self._running: Future[None] | None = None
        self._waiting: Percept | None = None
        self._ready: SimpleQueue[Thought | Choice] = SimpleQueue()
        self._predictor = predictor
        self.set_agent(agent)

    def set_agent(self, agent: Agent) -> None:
        """Let another agent look. Ask it only with percepts that say ``reset`` first.

        Raises:
            AgentError: Its ``needs`` or ``action_mode`` cannot be met.
        """
        self._looker = _Looker(agent, agent_needs(agent), ActionCode(agent_action_mode(agent)))

    @property
    def agent(self) -> Agent:
        """Who looks."""
        return self._looker.agent

    @property
    def predicts(self) -> bool:
        """Whether thoughts hold predictions."""
        return self._predictor is not None or isinstance(self._looker.agent, Imagines)

    @property
    def busy(self) -> bool:
        """Whether a thought is under way."""
        return self._running is not None or self._waiting is not None

    def consider(self, percept: Percept) -> None:
        """Think about a percept; an earlier one that still waits for its turn is dropped, but not its ``reset``."""
        if self._pool is None:
            self._think(percept, self._looker)
            return
        if self._waiting is not None and self._waiting.reset and not percept.reset:
            percept = Percept(
                percept.moment, percept.observation, percept.belief, percept.belief_acuity, percept.choose, True
            )
        self._waiting = percept
        self._start()

    def collect(self) -> Iterator[Thought | Choice]:
        """Yield what is ready, oldest first, without waiting."""
        if self._running is not None and self._running.done():
            self._running.result()  # raises what went wrong in this module
            self._running = None
        self._start()
        while not self._ready.empty():
            yield self._ready.get()

    def close(self) -> None:
        """Finish the thought under way and end the thread."""
        self._waiting = None
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _start(self) -> None:
        if self._pool is not None and self._running is None and self._waiting is not None:
            percept, self._waiting = self._waiting, None
            self._running = self._pool.submit(self._think, percept, self._looker)

    def _think(self, percept: Percept, looker: _Looker) -> None:
        agent, failures = looker.agent, list[str]()
        if percept.reset:
            _guard(lambda: agent.reset(np.ones(1, np.bool_)), agent, failures)
        self._ready.put(self._predict(percept, looker))
        if percept.choose and not isinstance(agent, Human):
            target = None if failures else _guard(lambda: looker.choose(percept.observation), agent, failures)
            self._ready.put(Choice(percept.moment, target, failures[0] if failures else ""))

    def _predict(self, percept: Percept, looker: _Looker) -> Thought:
        seen, failures = percept.observation, list[str]()
        prediction = self._imagine(seen, looker, failures)
        scene, belief, acuity = seen["scene"][0], seen["belief"][0], seen["belief_acuity"][0, :, :, 0]
        guess = belief.astype(np.float32) / 255 if prediction is None else prediction.image[0].cpu().numpy()
        shown = None if prediction is None else compose_sharp(guess, belief, percept.belief, percept.belief_acuity)
        error = picture_error(guess, belief, acuity, scene)
        std = None if prediction is None or prediction.std is None else prediction.std[0].cpu().numpy()
        return Thought(
            percept.moment,
            shown,
            _heat(error),
            None if std is None else _heat(255 * std),
            float(np.sqrt((error**2).mean())),
            failures[0] if failures else "",
        )

    def _imagine(self, seen: dict[str, NDArray[Any]], looker: _Looker, failures: list[str]) -> Prediction | None:
        imaginer = looker.agent if isinstance(looker.agent, Imagines) else self._predictor
        if imaginer is None:
            return None
        allowed = {key: value for key, value in seen.items() if key != "scene" or "scene" in looker.needs}
        prediction = _guard(lambda: imaginer.imagine(allowed), imaginer, failures)
        if prediction is None:
            return None
        if tuple(prediction.image.shape) != seen["belief"].shape:
            came = tuple(prediction.image.shape)
            failures.append(f"{agent_name(imaginer)}: imagine() must return {seen['belief'].shape}; got {came}.")
            return None
        return prediction


@dataclass(frozen=True)
class _Looker:
    """An agent and what it says about itself, so that a thought under way is not mixed up with the next agent."""

    agent: Agent
    needs: tuple[str, ...]
    code: ActionCode

    def choose(self, seen: dict[str, NDArray[Any]]) -> tuple[float, float]:
        allowed = {"glimpse", "acuity", "fixation", "time", "patch"}
        for key in self.needs:
            allowed |= {"belief", "belief_acuity"} if key == "belief" else {key}
        action = self.code.validate(self.agent.act({k: v for k, v in seen.items() if k in allowed}), 1)
        size = seen["scene"].shape[1], seen["scene"].shape[2]
        half_px = np.array([size[1] / 2, size[0] / 2], np.float32)
        fixation_px = (seen["fixation"] + 1) * half_px
        target = torch.as_tensor(self.code.intent(action, fixation_px, half_px, size).target_px)
        x, y = geometry.px_to_norm(geometry.clamp_px(target, size), size)[0].tolist()
        return x, y


def _guard(call: Callable[[], T], who: object, failures: list[str]) -> T | None:
    """Run someone else's code: whatever it raises becomes a message."""
    try:
        with torch.inference_mode():
            return call()
    except FoveasimError as error:
        failures.append(f"{agent_name(who)}: {error}")
    except Exception as error:  # a user's agent may raise anything, and the window must live on
        failures.append(f"{agent_name(who)} raised {type(error).__name__}: {error}")
    return None


def _heat(values: NDArray[np.float32]) -> Image:
    heat: Image = np.clip(values * (255 / HEAT_GREY_LEVELS), 0, 255).astype(np.uint8)
    heat.flags.writeable = False
    return heat
