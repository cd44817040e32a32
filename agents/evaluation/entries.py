"""Who takes part in a comparison: from what was typed to agents that can be built for each seed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.interface import Agent, agent_needs
from foveasim.agents.loading import AGENTS, agent_factory, make_agent
from foveasim.errors import AgentError, FoveasimError, InvalidValueError

__all__ = ["choose_references", "default_agents", "open_entries"]


def open_entries(
    words: Sequence[str], arguments: Mapping[str, Mapping[str, Any]], common: Mapping[str, object]
) -> tuple[list[Entry], list[str]]:
    """Return who takes part. Each is built once, so that a mistake is reported before anything runs.

    Args:
        words: Agents, or LABEL=AGENT; none for :func:`default_agents`, of which those that cannot be built here are
            left out.
        arguments: Of agents, by label.
        common: What agents get that take an argument of that name, such as the network.

    Returns:
        The agents, and a line for each that was left out.

    Raises:
        AgentError: No agent at all.
        InvalidValueError: Two of one label, or arguments for nobody.
        FoveasimError: One that cannot be built.
    """
    chosen = words or default_agents()
    left_out: list[str] = []
    entries: list[Entry] = []
    for word in chosen:
        label, equals, spec = word.partition("=")
        spec = spec if equals else word
        entry = Entry(label, spec, _maker(spec, arguments.get(label, {}), common))
        if any(label == other.label for other in entries):
            raise InvalidValueError(
                f"agents must have different labels; {label!r} stands twice. Write OTHER={spec} for the second."
            )
        try:
            entry.make(0)
        except FoveasimError as error:
            if words:
                raise
            left_out.append(f"left out {label}: {error}")
            continue
        entries.append(entry)
    if not entries:
        raise AgentError("no agent can take part; name one, such as random.")
    unknown = [label for label in arguments if label not in [entry.label for entry in entries]]
    if unknown:
        raise InvalidValueError(
            f"agent_arguments must be for agents that take part; got {unknown[0]!r} beside "
            f"{', '.join(entry.label for entry in entries)}."
        )
    return entries, left_out


def default_agents() -> list[str]:
    """Return the names of all agents that look by themselves, with the eye alone, at any scene; each once."""
    names, known = [], []
    for name in AGENTS:
        try:
            factory = agent_factory(name)
        except FoveasimError:  # of another package that is broken here
            continue
        special = name in ("human", "human_replay") or {"scene", "target"} & set(agent_needs(factory))
        if not special and factory not in known:
            names.append(name)
            known.append(factory)
    return names


def _maker(spec: str, arguments: Mapping[str, Any], common: Mapping[str, object]) -> Callable[[int], Agent]:
    """Return what builds an agent from a seed."""
    factory = agent_factory(spec)
    try:
        takes = set(inspect.signature(factory).parameters)
    except ValueError:  # a builtin without a signature
        takes = set()
    given = {name: value for name, value in common.items() if name in takes}
    return lambda seed: make_agent(spec, **{"seed": seed, **given, **arguments})


def choose_references(labels: Sequence[str], reference: str | None, ceiling: str | None) -> tuple[str, str | None]:
    """Choose the reference and the ceiling.

    Args:
        labels: Who takes part, at least one.
        reference: The requested one; None takes ``random``, or the first.
        ceiling: The requested one; None takes ``oracle`` where it takes part.

    Raises:
        InvalidValueError: The requested one takes no part.
    """
    for name, value in (("reference", reference), ("ceiling", ceiling)):
        if value is not None and value not in labels:
            raise InvalidValueError(f"{name} must be among the agents, {', '.join(labels)}; got {value!r}.")
    reference = reference or ("random" if "random" in labels else labels[0])
    return reference, ceiling or ("oracle" if "oracle" in labels and reference != "oracle" else None)
