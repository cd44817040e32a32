"""Classification from glimpses: an agent that stops when it is sure, and what accuracy costs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from foveasim.agents.interface import (
    Agent,
    Observation,
    agent_action_mode,
    agent_grid,
    agent_name,
    agent_needs,
    describe_agent,
    observed,
)
from foveasim.agents.loading import make_agent
from foveasim.drawing.figures import COLOURS, blank_figure, save_figure
from foveasim.envs.tasks.classify import ClassifyVectorEnv
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.metrics.statistics import wilson
from foveasim.validation import number, whole

__all__ = [
    "Glimpses",
    "StopWhenSure",
    "Stopping",
    "accuracy_by_glimpse",
    "draw_glimpses",
    "record_glimpses",
    "stop_as_requested",
    "stop_early",
    "threshold_within",
]


class StopWhenSure:
    """Looks where another agent looks, and stops when one class is probable enough.

    The baseline of ``foveasim/Classify-v0``: the sequential probability ratio test in its simplest form, one threshold
    on the posterior.

    Args:
        gaze: An agent or its name, which chooses where to look.
        threshold: Probability of the most probable class at which to stop, 0 to 1.
        seed: Of an agent given by name.

    Raises:
        InvalidValueError: ``threshold`` out of range.
        UnknownNameError: No agent of that name.

    Reference:
        Wald 1945, Sequential tests of statistical hypotheses, Annals of Mathematical Statistics 16:117-186; for more
        than two classes the threshold on the posterior: Baum and Veeravalli 1994, IEEE Trans. Inf. Theory 40:1994-2007.
    """

    __repr__ = describe_agent

    def __init__(self, gaze: object = "random", threshold: float = 0.9, seed: int = 0) -> None:
        self.threshold = number("threshold", threshold, 0, 1)
        self.gaze: Agent = make_agent(gaze, seed=seed) if isinstance(gaze, str | type) else make_agent(gaze)
        self.name = f"{agent_name(self.gaze)}, stops at {self.threshold:g}"
        self.needs = agent_needs(self.gaze)
        self.action_mode, self.grid = agent_action_mode(self.gaze), agent_grid(self.gaze)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self.gaze.reset(lanes)

    def act(self, observation: Observation) -> NDArray[Any]:
        """Return the gaze agent's choice with a stop: (B, 3) float32, (x, y, stop), or (B,) cells, the last one stops.

        Raises:
            AgentError: The observation has no ``posterior``.
        """
        if "posterior" not in observation:
            raise AgentError(
                f"the agent {self.name!r} needs a 'posterior', and the observation has {', '.join(observation)}. "
                "It is for foveasim/Classify-v0."
            )
        sure = observed(observation, "posterior").max(1) >= self.threshold
        chosen = np.asarray(self.gaze.act(observation))
        if self.action_mode == "grid":
            return np.where(sure, self.grid[0] * self.grid[1], chosen)
        stop = np.where(sure, np.float32(1), np.float32(-1))
        return np.concatenate((chosen.astype(np.float32), stop[:, None]), 1)


@dataclass(frozen=True)
class Glimpses:
    """What was known after each of T glimpses of N scenes.

    Attributes:
        posterior: (N, T, C) float32.
        label: (N,) int64.
        stop_requested: (N, T) bool, whether the agent requested to stop there; None of one that only looks.
    """

    posterior: NDArray[np.float32]
    label: NDArray[np.int64]
    stop_requested: NDArray[np.bool_] | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N, T) whether the most probable class was the true one."""
        right: NDArray[np.bool_] = self.posterior.argmax(2) == self.label[:, None]
        return right

    @property
    def log_likelihood(self) -> NDArray[np.float64]:
        """(N, T) the logarithm of the true class's probability, nats."""
        true = np.take_along_axis(self.posterior, self.label[:, None, None], 2)[:, :, 0]
        known: NDArray[np.float64] = np.log(true.astype(np.float64))
        return known

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N, T) the probability of the most probable class."""
        highest: NDArray[np.float32] = self.posterior.max(2)
        return highest

    def __len__(self) -> int:
        """N."""
        return len(self.label)


def record_glimpses(agent: object, env: ClassifyVectorEnv, episodes: int | None = None, *, seed: int = 0) -> Glimpses:
    """Let an agent look until its budget is spent, and record what was known after each glimpse.

    Stopping at any threshold follows from this by arithmetic, since an agent does the same until then:
    :func:`stop_early`; and so does stopping where the agent itself requests it: :func:`stop_as_requested`.

    Args:
        agent: An agent or its name.
        env: Of ``foveasim/Classify-v0``, made with ``stop=False`` and ``autoreset_mode="Disabled"``. With the same seed
            agents look at the same scenes.
        episodes: How many scenes to draw, at least 1; the lanes share them. None shows each of the env's scenes once.
        seed: Of the env, and of an agent given by name.

    Returns:
        Of T = budget + 1 glimpses, the first at the start included.

    Raises:
        InvalidTypeError: Another env.
        InvalidValueError: An env that stops or begins anew by itself.
    """
    base = getattr(env, "unwrapped", env)
    if not isinstance(base, ClassifyVectorEnv):
        raise InvalidTypeError(f"env must be a vector env of foveasim/Classify-v0; got {type(base).__name__}.")
    if base.actions.stop or base.autoreset_mode != AutoresetMode.DISABLED:
        raise InvalidValueError(
            "env must neither stop nor begin anew: gym.make_vec('foveasim/Classify-v0', stop=False, "
            f"autoreset_mode='Disabled'); got stop={base.actions.stop}, {base.autoreset_mode}."
        )
    available = len(base.simulator.scenes)
    count = available if episodes is None else whole("episodes", episodes, 1, 2**31)
    gazer = make_agent(agent, seed=seed) if isinstance(agent, str | type) else make_agent(agent)
    rounds: list[tuple[NDArray[Any], ...]] = []
    for first in range(0, count, base.num_envs):
        # Of a last round that is not full, what comes behind the end is left out again.
        which = None if episodes is not None else {"scene": np.arange(first, first + base.num_envs) % available}
        observation, info = env.reset(seed=seed if first == 0 else None, options=which)
        gazer.reset(np.ones(base.num_envs, np.bool_))
        known, requests = [], []
        for left in range(base.budget, -1, -1):
            known.append(observed(observation, "posterior").copy())
            action, stop_requested = _split_request(gazer.act(observation), base.actions.mode)
            requests.append(stop_requested)
            if left:
                observation, *_ = env.step(action)
        rounds.append((np.stack(known, 1), np.asarray(info["label"], np.int64), *_stacked(requests)))
    return Glimpses(*(np.concatenate(column)[:count] for column in zip(*rounds, strict=True)))


def _split_request(action: object, mode: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Separate the request to stop from where an agent looks."""
    given = np.asarray(action)
    if mode == "grid" or given.ndim != 2 or given.shape[1] != 3:
        return given, None
    return given[:, :2], given[:, 2] > 0


def _stacked(requests: list[NDArray[np.bool_] | None]) -> tuple[NDArray[np.bool_], ...]:
    given = [stop_requested for stop_requested in requests if stop_requested is not None]
    return (np.stack(given, 1),) if given else ()


def accuracy_by_glimpse(glimpses: Glimpses) -> NDArray[np.float64]:
    """Return the accuracy after each glimpse and its 95 % interval (Wilson), (T, 3): value, low, high."""
    right = glimpses.correct.sum(0)
    return np.array([(n / len(glimpses), *wilson(int(n), len(glimpses))) for n in right])


@dataclass(frozen=True)
class Stopping:
    """What stopping early costs and saves, at K thresholds.

    Attributes:
        threshold: (K,) probability at which looking stops.
        glimpses: (K,) mean number of glimpses, the first included.
        accuracy: (K,) share of right answers at the glimpse at which looking stopped.
        low: (K,) lower end of its 95 % interval (Wilson).
        high: (K,) upper end.
    """

    threshold: NDArray[np.float64]
    glimpses: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def stop_early(glimpses: Glimpses, thresholds: Sequence[float] | None = None) -> Stopping:
    """Stop at the first glimpse at which one class is probable enough, or at the last one.

    Args:
        glimpses: What was known.
        thresholds: In [0, 1]; above any confidence means never. None tries 41 from 0 to the greatest confidence.

    Raises:
        InvalidValueError: A threshold out of range, or none.
    """
    tried = _THRESHOLDS if thresholds is None else [number("thresholds", t, 0, 1) for t in thresholds]
    if not len(tried):
        raise InvalidValueError("thresholds must be at least one number; got none.")
    rows = [(threshold, *_stopped(glimpses, glimpses.confidence >= threshold)) for threshold in tried]
    return Stopping(*np.array(rows).T)


def stop_as_requested(glimpses: Glimpses) -> Stopping:
    """Stop at the first glimpse at which the agent requested it, or at the last one; K is 1, the threshold NaN.

    Raises:
        InvalidValueError: The agent only looked.
    """
    if glimpses.stop_requested is None:
        raise InvalidValueError("glimpses must be of an agent that may request to stop; this one only looked.")
    return Stopping(*np.array([(math.nan, *_stopped(glimpses, glimpses.stop_requested))]).T)


def _stopped(glimpses: Glimpses, stops: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return mean glimpses, accuracy and its interval, of stopping at the first glimpse that is marked, (N, T)."""
    stopped, correct = _at_stop(glimpses, stops)
    right = int(correct.sum())
    return float(stopped.mean()) + 1, right / len(glimpses), *wilson(right, len(glimpses))


def _at_stop(glimpses: Glimpses, stops: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return after which glimpse, from 0, each scene is left, and whether the answer then is right, (N,) each."""
    stopped = np.where(stops.any(1), stops.argmax(1), stops.shape[1] - 1)
    return stopped, glimpses.correct[np.arange(len(glimpses)), stopped]


# Even steps of log-odds, for confidence crowds near 1.
_THRESHOLDS = [0.0, *(1 / (1 + math.exp(-x)) for x in np.linspace(-2.5, 5, 39)), 1.0]


def threshold_within(glimpses: Glimpses, loss: float = 0.01, sure: float = 1.96) -> float:
    """Return the lowest threshold that keeps accuracy within ``loss`` of that after the last glimpse, all but surely.

    Choose it on validation scenes, and test it on others by ``stop_early(others, [threshold])``. The lowest of many
    thresholds that only seem to keep it loses more on other scenes; so the loss may be this many standard errors
    greater than it seems.

    Args:
        glimpses: What was known, on validation scenes.
        loss: Share of right answers that may be lost, 0.01 for one point.
        sure: Standard errors of the mean difference over scenes, 1.96 for the end of its 95 % interval; 0 takes
            what it seems.

    Raises:
        InvalidValueError: A number out of range.
    """
    loss, sure = number("loss", loss, 0, 1), number("sure", sure, 0, 100)
    for threshold in sorted(_THRESHOLDS):
        right = _at_stop(glimpses, glimpses.confidence >= threshold)[1].astype(float)
        more = right - glimpses.correct[:, -1]
        error = float(more.std(ddof=1)) / math.sqrt(len(more)) if len(more) > 1 else 0.0
        if float(more.mean()) - sure * error >= -loss - 1e-12:
            return threshold
    return max(_THRESHOLDS)


def draw_glimpses(path: str | os.PathLike[str], agents: Mapping[str, Glimpses], title: str = "") -> None:
    """Draw accuracy against the number of glimpses, and against their mean number when stopping early.

    A star is where an agent stops that may request it.

    Args:
        path: The file, ``….png``.
        agents: What was known, by the agent's name, at least one.
        title: Above the figure.

    Raises:
        InvalidValueError: No agents, or another ending.
        OSError: The file cannot be written.
    """
    if not agents:
        raise InvalidValueError("agents must hold at least one agent's glimpses; got none.")
    figure = blank_figure(9.0, 3.9)
    fixed, early = figure.subplots(1, 2, sharey=True)
    for place, (name, glimpses) in enumerate(agents.items()):
        colour = COLOURS[place % len(COLOURS)]
        value, low, high = 100 * accuracy_by_glimpse(glimpses).T
        count = np.arange(1, len(value) + 1)
        fixed.plot(count, value, "o-", color=colour, markersize=4, linewidth=1.3, label=name)
        fixed.fill_between(count, low, high, color=colour, alpha=0.12, linewidth=0)
        curve = stop_early(glimpses)
        order = np.argsort(curve.glimpses, kind="stable")
        early.plot(curve.glimpses[order], 100 * curve.accuracy[order], ".-", color=colour, linewidth=1.3)
        early.fill_between(
            curve.glimpses[order],
            100 * curve.low[order],
            100 * curve.high[order],
            color=colour,
            alpha=0.12,
            linewidth=0,
        )
        if glimpses.stop_requested is not None:
            stop_requested = stop_as_requested(glimpses)
            early.plot(
                stop_requested.glimpses,
                100 * stop_requested.accuracy,
                "*",
                color=colour,
                markersize=12,
                markeredgecolor="white",
                zorder=5,
            )
    fixed.set(title="as many for every scene", xlabel="glimpses", ylabel="accuracy, %")
    early.set(title="stopping early", xlabel="mean glimpses")
    for axes in (fixed, early):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    fixed.legend(fontsize="small", frameon=False)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)
