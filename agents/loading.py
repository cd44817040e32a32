"""The names of the built-in agents, and how a name, a file, a class or a model becomes an agent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from foveasim.agents.interface import Agent
from foveasim.errors import AgentError, FoveasimError
from foveasim.registry import Registry, build, describe, load_object
from foveasim.validation import seed_value

__all__ = ["AGENTS", "agent_factory", "make_agent"]

AGENTS = Registry[Agent]("agent", group="foveasim.agents", failure=AgentError)
"""Every agent that has a name. Other packages announce theirs by an entry point of the group ``foveasim.agents``."""

for _name, _class in {
    "centre": "foveasim.agents.builtin.scripted:Centre",
    "random": "foveasim.agents.builtin.scripted:Random",
    "gaussian": "foveasim.agents.builtin.scripted:Gaussian",
    "raster": "foveasim.agents.builtin.scripted:Raster",
    "spiral": "foveasim.agents.builtin.scripted:Spiral",
    "walk": "foveasim.agents.builtin.scripted:Walk",
    "saliency": "foveasim.agents.builtin.saliency:IttiKoch",
    "itti_koch": "foveasim.agents.builtin.saliency:IttiKoch",
    "spectral_residual": "foveasim.agents.builtin.saliency:SpectralResidual",
    "uncertainty": "foveasim.agents.builtin.predictive:Uncertainty",
    "surprise": "foveasim.agents.builtin.predictive:Surprise",
    "information": "foveasim.agents.builtin.predictive:Information",
    "oracle": "foveasim.agents.builtin.oracle:Oracle",
    "beam_oracle": "foveasim.agents.builtin.oracle:BeamOracle",
    "human": "foveasim.agents.builtin.human:Human",
    "human_replay": "foveasim.agents.builtin.human_replay:HumanReplay",
    "saliency_centre": "foveasim.agents.builtin.saliency_centre:SaliencyCentre",
    "scanpath": "foveasim.agents.scanpath_model.agent:ScanpathAgent",
    "seek": "foveasim.agents.builtin.seek:Seek",
    "gaze_policy": "foveasim.agents.gaze_policy.policy_agents:GazePolicy",
    "search_policy": "foveasim.agents.gaze_policy.policy_agents:SearchPolicy",
}.items():
    AGENTS.add(_name, _class)

_FILES = {
    ".safetensors": "foveasim.agents.gaze_policy.policy_agents:policy_factory",
    ".zip": "foveasim.agents.rl.sb3_agent:model_factory",
}
"""What reads the file of an agent, by its ending; imported when needed, so that a plain agent does not load it."""

_MODELS = {"stable-baselines3": "foveasim.agents.rl.sb3_agent:SB3Agent"}
"""What a model in hand is seen through, likewise."""


def make_agent(spec: object, /, *, seed: int = 0, **arguments: object) -> Agent:
    """Turn what a user names into an agent.

    Args:
        spec: A registered name, ``package.module:Class``, the file of a trained policy, a class, an agent (returned as
            it is), or a stable-baselines3 model in hand (seen through
            :class:`foveasim.agents.rl.sb3_agent.SB3Agent`, which calls its ``predict``).
            ``package.module:function`` and a function are called, and may return an agent or such a model.
        seed: Seed of lane 0; lane i has ``seed + i``. A class or function without a ``seed`` argument gets none.
        **arguments: Passed on to the class or function, or to ``SB3Agent`` for a model in hand. A function that
            returns a model trained on relative actions, or on a grid that is not square, wraps it itself:
            ``SB3Agent(model, action_mode="relative")``.

    Raises:
        UnknownNameError: No agent of that name; the message lists the choices.
        InvalidTypeError: An argument that the class does not take.
        AgentError: What was built is no agent, ``spec`` is nothing that can become one, or its module or its class
            raised something; the message says where.

    Example:
        >>> import numpy as np
        >>> make_agent("centre").act({"fixation": np.zeros((2, 2), np.float32)}).tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    seed = seed_value("seed", seed)
    if isinstance(spec, str | Path):
        return _build(str(spec), agent_factory(str(spec)), seed, arguments)
    if isinstance(spec, type):
        return _build(spec.__name__, spec, seed, arguments)
    if _is_model(spec):
        return _wrap_model(spec, seed, arguments)
    if callable(spec) and not hasattr(spec, "act"):
        return _build(getattr(spec, "__name__", type(spec).__name__), spec, seed, arguments)
    if arguments:
        raise AgentError(f"an agent that is already built takes no arguments; got {', '.join(sorted(arguments))}.")
    return _check_agent(spec, type(spec).__name__)


def agent_factory(name: str) -> Callable[..., Agent]:
    """Return the class behind a registered name, ``package.module:Class`` or a policy's file, without building it.

    Raises:
        UnknownNameError: No agent of that name; the message lists the choices.
        AgentError: A file of another kind, and the message says what is accepted; or a module that cannot be imported.
        WeightsError: A ``.safetensors`` file that is missing, damaged or no policy.
        UntrustedError: A ``.zip`` of stable-baselines3 without ``--trust``, or ``module:Class`` out of a file; see
            :mod:`foveasim.trust`.
    """
    if name in AGENTS:
        return AGENTS.factory(name)
    for ending, opener in _FILES.items():
        if name.endswith(ending):
            return cast("Callable[..., Agent]", cast("Callable[[str], object]", load_object(opener, AgentError))(name))
    _refuse_files(name)
    return AGENTS.factory(name)


def _build(name: str, factory: Callable[..., object], seed: int, arguments: Mapping[str, object]) -> Agent:
    """Call a class or a function; a fault of its own becomes an AgentError that says where."""
    try:
        built = build("agent", name, factory, _with_seed(factory, seed, arguments))
    except FoveasimError:
        raise
    except Exception as error:
        raise AgentError(
            f"agent {name!r} could not be built: {describe(error)}. Mend what raises there, or give other arguments."
        ) from error
    return _wrap_model(built, seed, {}) if _is_model(built) else _check_agent(built, name)


def _is_model(thing: object) -> bool:
    """Whether this is a model in the way of stable-baselines3 rather than an agent."""
    if isinstance(thing, type) or hasattr(thing, "act"):
        return False
    return callable(getattr(thing, "predict", None)) and hasattr(thing, "observation_space")


def _wrap_model(model: object, seed: int, arguments: Mapping[str, object]) -> Agent:
    adapter = cast("Callable[..., object]", load_object(_MODELS["stable-baselines3"], AgentError))
    return _check_agent(build("agent", "SB3Agent", adapter, {"model": model, "seed": seed, **arguments}), "model")


def _with_seed(factory: Callable[..., object], seed: int, arguments: Mapping[str, object]) -> dict[str, object]:
    """Add the seed for whoever takes one. ``**kwargs`` counts: a wrong guess there is loud, a missed seed is not."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a builtin without a signature
        return dict(arguments)
    takes = any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters)
    return {"seed": seed, **arguments} if takes else dict(arguments)


def _refuse_files(text: str) -> None:
    """Name the way out for a path where an agent's name belongs.

    Raises:
        AgentError: ``text`` is a file.
    """
    accepted = (
        f"Accepted are a name ({', '.join(AGENTS)}), 'package.module:Class', a policy.safetensors, and a model.zip of "
        "stable-baselines3 with --trust."
    )
    path, _, attribute = text.partition(":")
    if path.endswith(".py"):
        module = ".".join(Path(path).with_suffix("").parts).lstrip("./")
        raise AgentError(
            f"an agent in a file is named by its module; got {text!r}. Write {module}:{attribute or 'Class'}."
        )
    if path.endswith((".pt", ".pth", ".pkl", ".pickle", ".ckpt")):
        raise AgentError(f"{text!r} is a pickled file, which can run any code and is never opened. {accepted}")


def _check_agent(built: object, name: str) -> Agent:
    missing = [method for method in ("reset", "act") if not callable(getattr(built, method, None))]
    if missing:
        raise AgentError(
            f"{name} is no agent: a {type(built).__name__} without {' and '.join(f'{m}()' for m in missing)}. "
            "An agent has reset(lanes) and act(observation); see foveasim.agents.interface.Agent."
        )
    return cast("Agent", built)
