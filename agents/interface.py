"""Who looks: the protocol of an agent, and what one may say of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foveasim.errors import AgentError, FoveasimError
from foveasim.types import Prediction
from foveasim.validation import size_hw

__all__ = [
    "ACTION_MODES",
    "DEFAULT_GRID",
    "EXTRA_KEYS",
    "Agent",
    "Imagines",
    "Observation",
    "agent_action_mode",
    "agent_grid",
    "agent_name",
    "agent_needs",
    "agent_size",
    "describe_agent",
    "explain_missing_need",
    "observed",
]

Observation: TypeAlias = Mapping[str, Any]
"""NumPy arrays (or torch tensors, where a GPU env was asked for them) by key, each with a leading lane axis B."""

ACTION_MODES = ("absolute", "relative", "grid")
"""How an action is read: a place in the scene, a displacement from the fixation, or a cell of a grid."""

EXTRA_KEYS = ("belief", "scene", "patch", "target")
"""What an agent may ask for on top of the usual observation. ``scene`` holds hidden pixels; ``patch`` is there with the
retinas that have receptors: ``window``, ``multiscale``, ``log_polar``; ``target``, what to look for, with scenes that
have one: those of ``foveasim/Search-v0``, and ``search`` in the window."""

DEFAULT_GRID = (8, 8)
"""(rows, cols) of the grid of an agent with ``action_mode`` ``"grid"`` that does not say."""


@runtime_checkable
class Agent(Protocol):
    """Something that looks. Any class with these two methods is one; nothing has to be inherited.

    Observations carry the lane axis also for one eye: ``glimpse`` (B, H, W, 3) uint8, ``acuity`` (B, H, W, 1) uint8,
    ``fixation`` (B, 2) float32 in [-1, 1], ``time`` (B, 1) float32, what is left of the budget, in [0, 1].

    An agent may also have the attributes ``needs``, a tuple of further keys (``("belief",)`` adds ``belief``
    (B, H, W, 3) and ``belief_acuity`` (B, H, W, 1); ``("scene",)`` adds ``scene`` (B, H, W, 3); ``("patch",)`` adds
    ``patch`` (B, h, w, 3 S) uint8; ``("target",)`` adds ``target`` (B, S, S, 3) uint8, where there is one),
    ``action_mode``, one of :data:`ACTION_MODES`, ``grid``, (rows, cols) of its cells, ``size``, (H, W) of the only
    scenes it can see or None, and ``name``, for people.

    Example:
        >>> class Corner:
        ...     def reset(self, lanes): ...
        ...     def act(self, observation):
        ...         return np.full((len(observation["fixation"]), 2), -1, np.float32)
        >>> isinstance(Corner(), Agent)
        True
    """

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, and clear what was remembered of the last one.

        Args:
            lanes: (B,) bool. All True before the first ``act``.
        """

    def act(self, observation: Observation) -> NDArray[Any]:
        """Choose the next fixation of every lane.

        Returns:
            (B, 2) float32 in [-1, 1], normalised scene coordinates (x, y), (-1, -1) the top-left corner; or what the
            action space of its ``action_mode`` says.
        """


@runtime_checkable
class Imagines(Protocol):
    """An agent that also predicts what it does not see."""

    def imagine(self, observation: Observation) -> Prediction:
        """Predict the whole scene of every lane: an image (B, H, W, 3) float32 in [0, 1]."""


def agent_needs(agent: object) -> tuple[str, ...]:
    """Return the extra observation keys that an agent asks for, in the order of :data:`EXTRA_KEYS`.

    Raises:
        AgentError: ``needs`` is not a tuple of known keys.
    """
    needs = getattr(agent, "needs", ())
    if isinstance(needs, str) or not isinstance(needs, tuple | list | set | frozenset):
        raise AgentError(
            f"needs of {agent_name(agent)} must be a tuple of keys; got {needs!r}. "
            f"Write needs = ({needs!r},), with the comma."
            if isinstance(needs, str)
            else f"needs of {agent_name(agent)} must be a tuple of keys such as ('belief',); got {needs!r}."
        )
    unknown = [key for key in needs if key not in EXTRA_KEYS]
    if unknown:
        raise AgentError(
            f"needs of {agent_name(agent)} names {unknown!r}; choose from {', '.join(EXTRA_KEYS)}. "
            "glimpse, acuity, fixation and time are always there."
        )
    return tuple(key for key in EXTRA_KEYS if key in needs)


def agent_action_mode(agent: object) -> str:
    """Return how an agent's actions are read, ``"absolute"`` where it does not say.

    Raises:
        AgentError: ``action_mode`` is none of :data:`ACTION_MODES`.
    """
    mode = getattr(agent, "action_mode", "absolute")
    if mode not in ACTION_MODES:
        raise AgentError(f"action_mode of {agent_name(agent)} must be one of {', '.join(ACTION_MODES)}; got {mode!r}.")
    return cast("str", mode)


def describe_agent(agent: object) -> str:
    """Return the ``repr`` of an agent: its class and name, what it needs, how it acts, and who predicts for it.

    Example:
        >>> from foveasim.agents import make_agent
        >>> make_agent("walk"), make_agent("uncertainty")
        (Walk('walk'), Uncertainty('uncertainty', needs=('belief',), network='unet'))
    """
    needs, mode = agent_needs(agent), agent_action_mode(agent)
    predictor = getattr(agent, "predictor", None)
    parts = [repr(agent_name(agent))]
    parts += [f"needs={needs}"] if needs else []
    parts += [f"action_mode={mode!r}"] if mode != "absolute" else []
    parts += [f"network={getattr(predictor, 'name', type(predictor).__name__)!r}"] if predictor is not None else []
    return f"{type(agent).__name__}({', '.join(parts)})"


def agent_grid(agent: object) -> tuple[int, int]:
    """Return (rows, cols) of the cells that an agent chooses among, ``(8, 8)`` where it does not say.

    Raises:
        AgentError: ``grid`` is not two whole numbers from 1 to 256.
    """
    try:
        return size_hw("grid", getattr(agent, "grid", DEFAULT_GRID), 1, 256)
    except FoveasimError as error:
        raise AgentError(f"{agent_name(agent)}: {error}") from error


def agent_size(agent: object) -> tuple[int, int] | None:
    """Return (H, W) in px of the only scenes that an agent can see, or None where any will do.

    Raises:
        AgentError: ``size`` is neither None nor (height, width).
    """
    size = getattr(agent, "size", None)
    try:
        return None if size is None else size_hw("size", size)
    except FoveasimError as error:
        raise AgentError(f"{agent_name(agent)}: {error}") from error


def agent_name(agent: object) -> str:
    """Return what to call an agent in a status line: its ``name``, or the name of its class."""
    name = getattr(agent, "name", None)
    return name if isinstance(name, str) and name else type(agent).__name__


def observed(observation: Observation, key: str) -> NDArray[Any]:
    """Return one entry of an observation as a NumPy array, wherever the env keeps it.

    Raises:
        AgentError: The observation has no such key.
    """
    if key not in observation:
        wanted = "belief" if "belief" in key else key
        options = {"belief": "belief=True", "scene": "privileged=True", "patch": "patch=True and a retina that has one"}
        hint = (
            f" Declare needs = ({wanted!r},) on the agent, or make the env with {options[wanted]}."
            if wanted in options
            else ""
        )
        raise AgentError(f"the observation must have {key!r}; it has {', '.join(observation)}.{hint}")
    value = observation[key]
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def explain_missing_need(error: BaseException) -> str:
    """Return what to do about an agent that looked for a part of the observation that it did not ask for, or "".

    Example:
        >>> explain_missing_need(KeyError("belief_acuity"))
        "Ask for it: needs = ('belief',)."
        >>> explain_missing_need(KeyError("beleif"))
        ''
    """
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    wanted = "belief" if key == "belief_acuity" else key
    return f"Ask for it: needs = ({wanted!r},)." if wanted in EXTRA_KEYS else ""
