"""The rules that every agent keeps to, each of which can be tried on anyone's agent.

They need no env: they show the agent observations made for the purpose and compare what it does.
"""

from __future__ import annotations

import copy
import inspect
import random
import statistics
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.contract.observations import PATCH_SHAPE, make_synthetic_observations
from foveasim.agents.interface import (
    Imagines,
    agent_action_mode,
    agent_grid,
    agent_name,
    agent_needs,
    agent_size,
    explain_missing_need,
)
from foveasim.envs.actions import ActionCode
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.types import Prediction

__all__ = ["BASIC", "COMPARING", "RULES", "AgentMaker", "Level", "RuleContext", "RuleResult", "report_error"]

Level: TypeAlias = Literal["pass", "note", "warn", "fail"]
AgentMaker: TypeAlias = Callable[[int], Any]
Observations: TypeAlias = list[dict[str, NDArray[Any]]]


@dataclass(frozen=True)
class RuleResult:
    """The outcome of one rule.

    Attributes:
        rule: A key of :data:`RULES`.
        level: ``"fail"`` breaks the contract; ``"warn"`` and ``"note"`` do not.
        message: What was expected and what came.
        remedy: What to do.
    """

    rule: str
    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class RuleContext:
    """What the rules work with.

    Attributes:
        make: Builds a new agent from a seed.
        seed: The first seed.
        size: (H, W) of the observations, px, for an agent that declares none.
        limit_ms: Time that one ``act`` with one lane should take at most.
    """

    make: AgentMaker
    seed: int
    size: tuple[int, int]
    limit_ms: float

    def make_observations(self, agent: object, lanes: int = 3, steps: int = 4, seed: int = 0) -> Observations:
        """Make observations that suit the agent."""
        size, needs = agent_size(agent) or self.size, agent_needs(agent)
        patch_shape = getattr(agent, "patch_shape", None) or PATCH_SHAPE
        return make_synthetic_observations(lanes, steps, size=size, needs=needs, patch_shape=patch_shape, seed=seed)

    def run_episode(
        self, agent: Any, observations: Observations, resets: dict[int, NDArray[np.bool_]] | None = None
    ) -> Any:
        """Return the actions of one episode, (steps, B, ...), with further resets before the steps named."""
        agent.reset(np.ones(len(observations[0]["fixation"]), np.bool_))
        actions = []
        for step, observation in enumerate(observations):
            if resets and step in resets:
                agent.reset(resets[step].copy())
            actions.append(_array(agent.act(copy.deepcopy(observation))).copy())
        return np.stack(actions)


def _builds(context: RuleContext) -> RuleResult:
    try:
        context.make(context.seed)
    except Exception as error:
        return report_error("builds", error)
    return RuleResult("builds", "pass", "it can be built")


def _methods(context: RuleContext) -> RuleResult:
    agent = context.make(context.seed)
    for name, argument in (("reset", "lanes"), ("act", "observation"), ("imagine", "observation")):
        method = getattr(agent, name, None)
        if method is None and name == "imagine":
            continue
        if not callable(method):
            return RuleResult(
                "methods", "fail", f"{type(agent).__name__} has no {name}().", f"Add: def {name}(self, {argument}): ..."
            )
        try:
            inspect.signature(method).bind(None)
        except TypeError:
            came = f"{name}{inspect.signature(method)}"
            message = f"{name} must take one argument, {argument}; it is {came}."
            return RuleResult("methods", "fail", message, f"Write def {name}(self, {argument}): ...")
    return RuleResult("methods", "pass", "reset(lanes) and act(observation) are there")


def _declares(context: RuleContext) -> RuleResult:
    agent = context.make(context.seed)
    needs, code, size = agent_needs(agent), _code(agent), agent_size(agent)  # each raises with what to do
    grid = f" of {code.grid[0]} x {code.grid[1]}" if code.mode == "grid" else ""
    message = f"{agent_name(agent)}: {code.mode} actions{grid}" + (f", needs {', '.join(needs)}" if needs else "")
    message += f", size {size[0]} x {size[1]}" if size else ""
    if "scene" in needs:
        return RuleResult("declares", "note", f"{message}: privileged, it sees what is hidden.")
    return RuleResult("declares", "pass", message)


def _acts(context: RuleContext) -> RuleResult:
    for lanes in (1, 5):
        agent = context.make(context.seed)
        agent.reset(np.ones(lanes, np.bool_))
        for step, observation in enumerate(context.make_observations(agent, lanes)):
            found = _action_fault(agent.act(observation), lanes, _code(agent))
            if found:
                return RuleResult("acts", "fail", f"step {step}, {lanes} lane{'s'[: lanes > 1]}: {found[0]}", found[1])
    return RuleResult("acts", "pass", "an env takes its actions: shape, finite, in range, for 1 and 5 lanes")


def _code(agent: object) -> ActionCode:
    """Return the actions that an agent declares."""
    return ActionCode(agent_action_mode(agent), agent_grid(agent))


def _action_fault(action: Any, lanes: int, code: ActionCode) -> tuple[str, str] | None:
    """Return what is wrong with an action and what to do, or None: what an env takes is right."""
    shape = f"({lanes},) integers" if code.mode == "grid" else f"({lanes}, 2) floats"
    if action is None:
        return f"act must return {shape}; it returned None.", "Return the action: is a 'return' missing at its end?"
    try:
        code.validate(action, lanes)
    except InvalidTypeError as error:
        return f"act must return {shape}: {error}", "Return a NumPy array of one action for each lane."
    except InvalidValueError as error:
        return f"act must return {shape}: {error}", _remedy(_array(action), lanes, code)
    return None


def _remedy(value: NDArray[Any], lanes: int, code: ActionCode) -> str:
    """Return what to do about an action of a wrong shape or range."""
    if code.mode == "grid":
        rows, cols = code.grid
        if value.shape != (lanes,):
            return "Return one cell for each lane."
        return f"Count from 0, row by row. Another grid than {rows} x {cols} is declared by grid = (rows, cols)."
    if value.shape != (lanes, 2):
        return "Add the lane axis: action[None]." if value.shape == (2,) else "Return one (x, y) for each lane."
    if not np.isfinite(value).all():
        return "Look for 0 / 0 and the log of 0, such as normalising a map that is 0 everywhere."
    return "Actions are normalised, not px: x_norm = 2 * x_px / width - 1. Stay inside with np.clip(action, -1, 1)."


def _keeps_inputs(context: RuleContext) -> RuleResult:
    agent = context.make(context.seed)
    agent.reset(np.ones(3, np.bool_))
    for observation in context.make_observations(agent):
        before = copy.deepcopy(observation)
        agent.act(observation)
        if isinstance(agent, Imagines):
            agent.imagine(observation)
        changed = [key for key in before if not np.array_equal(before[key], observation.get(key, np.nan))]
        if changed or set(observation) != set(before):
            names = ", ".join(changed) or "its keys"
            return RuleResult(
                "keeps inputs",
                "fail",
                f"the observation was changed: {names}.",
                "Copy before writing: x = observation[key].copy(). Beware of -=, *= and out=, also on views of it.",
            )
    return RuleResult("keeps inputs", "pass", "observations are left as they are")


def _partial_resets(context: RuleContext) -> RuleResult:
    one = np.array([False, True, False])
    agent = context.make(context.seed)
    observations = context.make_observations(agent, steps=5)
    plain = context.run_episode(agent, observations)
    cut = context.run_episode(context.make(context.seed), observations, {2: one})
    fault = _action_fault(cut[-1], 3, _code(agent))
    if fault:
        return RuleResult("partial resets", "fail", f"after a reset of one lane: {fault[0]}", fault[1])
    if not _same(plain[:, ~one], cut[:, ~one]):
        return RuleResult(
            "partial resets",
            "fail",
            "after reset(lanes) with one lane marked, lanes that were not marked acted differently.",
            "Reset only the marked ones: state[lanes] = start. Draw noise by lane, not from one generator whose "
            "position depends on who was reset; foveasim.agents.noise.LaneNoise does so.",
        )
    return RuleResult("partial resets", "pass", "a lane that is reset leaves the others alone")


def _repeats(context: RuleContext) -> RuleResult:
    first = context.make(context.seed)
    observations = context.make_observations(first, steps=6)
    actions = context.run_episode(first, observations)
    # Another place in the global random streams: whoever draws from them acts differently.
    random.random(), np.random.random(), torch.rand(())  # noqa: NPY002
    again = context.run_episode(context.make(context.seed), observations)
    if not _same(actions, again):
        return RuleResult(
            "repeats",
            "fail",
            "two agents with the same seed, given the same observations, acted differently.",
            "Take a seed in __init__ and draw from it, by np.random.default_rng(seed) or LaneNoise(seed), not from "
            "np.random, random or torch.rand, whose state is global.",
        )
    if _same(actions, context.run_episode(context.make(context.seed + 1), observations)):
        return RuleResult(
            "repeats", "note", "the same seed gives the same actions; so does another seed: it draws nothing."
        )
    return RuleResult("repeats", "pass", "the same seed gives the same actions, another seed others")


def _own_noise(context: RuleContext) -> RuleResult:
    before = _random_state()
    agent = context.make(context.seed)
    context.run_episode(agent, context.make_observations(agent))
    touched = [name for name, state in _random_state().items() if state != before[name]]
    if touched:
        return RuleResult(
            "own noise",
            "warn",
            f"the global random state of {', '.join(touched)} was changed.",
            "Draw from a generator of your own; seeding or using a global one disturbs whoever else draws from it.",
        )
    return RuleResult("own noise", "pass", "global random state is left alone")


def _forgets(context: RuleContext) -> RuleResult:
    agents = [context.make(context.seed) for _ in range(2)]
    ahead = context.make_observations(agents[0], seed=100)
    for history, agent in enumerate(agents):
        context.run_episode(agent, context.make_observations(agent, steps=5, seed=1 + history))
    if not _same(*(context.run_episode(agent, ahead) for agent in agents)):
        return RuleResult(
            "forgets",
            "fail",
            "after a reset of all lanes, what was seen in the episode before still changed the actions.",
            "In reset(lanes), clear all that was learnt from observations in the lanes marked: maps, recurrent states, "
            "lists of fixations.",
        )
    return RuleResult("forgets", "pass", "a reset forgets the episode before")


def _lanes(context: RuleContext) -> RuleResult:
    agent = context.make(context.seed)
    mine, others = (
        context.make_observations(agent, lanes=4, steps=5),
        context.make_observations(agent, lanes=4, steps=5, seed=50),
    )
    mixed = [{k: np.concatenate((a[k][:1], b[k][1:])) for k in a} for a, b in zip(mine, others, strict=True)]
    together = context.run_episode(agent, mine)[:, 0]
    if not _same(together, context.run_episode(context.make(context.seed), mixed)[:, 0]):
        return RuleResult(
            "lanes",
            "fail",
            "what lane 0 did depended on what the other lanes saw.",
            "Compute lane by lane: a mean, maximum or argmax without axis=, batch normalisation when training or one "
            "state for all lanes mixes them.",
        )
    alone = [{k: a[k][:1] for k in a} for a in mine]
    if not _same(together, context.run_episode(context.make(context.seed), alone)[:, 0]):
        return RuleResult(
            "lanes",
            "note",
            "lanes are independent, but lane 0 of four draws other noise than one eye with the same seed.",
            "Draw from LaneNoise(seed): then a batch repeats single episodes.",
        )
    return RuleResult("lanes", "pass", "lanes are independent, and lane 0 of four does what one eye does")


def _imagines(context: RuleContext) -> RuleResult | None:
    agent = context.make(context.seed)
    if not isinstance(agent, Imagines):
        return None
    remedy = "Return foveasim.types.Prediction(image=...), float32 (B, H, W, 3), channels last, in [0, 1]."
    agent = cast("Any", agent)
    for lanes in (1, 5):
        agent.reset(np.ones(lanes, np.bool_))
        for observation in context.make_observations(agent, lanes, steps=2):
            prediction = agent.imagine(observation)
            if not isinstance(prediction, Prediction):
                came = type(prediction).__name__
                return RuleResult(
                    "imagines", "fail", f"imagine must return a Prediction; it returned a {came}.", remedy
                )
            expected = observation["glimpse"].shape
            image, std = prediction.image, prediction.std
            if tuple(image.shape) != expected or not image.dtype.is_floating_point:
                came = f"{tuple(image.shape)} {image.dtype}"
                return RuleResult("imagines", "fail", f"image must be {expected} float32; it is {came}.", remedy)
            if not bool(torch.isfinite(image).all()) or float(image.min()) < 0 or float(image.max()) > 1:
                came = f"from {float(image.min()):.3g} to {float(image.max()):.3g}"
                return RuleResult("imagines", "fail", f"image must be finite and in [0, 1]; it goes {came}.", remedy)
            if std is not None and (tuple(std.shape) != expected[:3] or not bool((std >= 0).all())):
                message = f"std must be {expected[:3]}, 0 or more, or None; it is {tuple(std.shape)}."
                return RuleResult("imagines", "fail", message, "Return one number a pixel, or std=None.")
            agent.act(observation)
    return RuleResult("imagines", "pass", "predictions have the right shape, are finite and in [0, 1]")


def _quick(context: RuleContext) -> RuleResult:
    agent = context.make(context.seed)
    agent.reset(np.ones(1, np.bool_))
    taken_ms = []
    for observation in context.make_observations(agent, lanes=1, steps=8):
        start = time.perf_counter()
        agent.act(observation)
        taken_ms.append(1000 * (time.perf_counter() - start))
    usual = statistics.median(taken_ms)
    message = f"act takes {usual:.2g} ms with one lane"
    if usual > context.limit_ms:
        remedy = "The window keeps working, but gaze lags behind it. Compute on a smaller picture, or once an episode."
        return RuleResult("quick", "warn", f"{message}, more than {context.limit_ms:g} ms.", remedy)
    return RuleResult("quick", "pass", message)


RULES: dict[str, Callable[[RuleContext], RuleResult | None]] = {
    "builds": _builds,
    "methods": _methods,
    "declares": _declares,
    "acts": _acts,
    "repeats": _repeats,
    "own noise": _own_noise,
    "keeps inputs": _keeps_inputs,
    "partial resets": _partial_resets,
    "forgets": _forgets,
    "lanes": _lanes,
    "imagines": _imagines,
    "quick": _quick,
}
"""The rules in the order in which they are tried; ``imagines`` finds nothing where there is no ``imagine``."""

BASIC = ("builds", "methods", "declares", "acts")
"""Rules without which no other can be tried."""

COMPARING = ("partial resets", "forgets", "lanes")
"""Rules that compare two agents with one seed, and so mean nothing unless the agent ``repeats``."""


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    # Batches of another size may round differently; a different choice differs by more.
    return np.allclose(a, b, atol=1e-4) if a.dtype.kind == "f" else np.array_equal(a, b)


def _array(value: Any) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def report_error(rule: str, error: Exception) -> RuleResult:
    """Turn what an agent raised into a result that shows where."""
    if isinstance(error, AgentError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what was raised while it was built
    where = traceback.format_exception(type(error), error, error.__traceback__)[-2].rstrip()
    remedy = explain_missing_need(error) or "Mend what raises; an agent raises nothing on a valid observation."
    return RuleResult(rule, "fail", f"{type(error).__name__}: {error}\n{where}", remedy)


def _random_state() -> dict[str, str]:
    return {
        "random": repr(random.getstate()),
        "np.random": repr([np.asarray(part).tobytes() for part in np.random.get_state()]),  # noqa: NPY002
        "torch": repr(torch.random.get_rng_state().numpy().tobytes()),
    }
