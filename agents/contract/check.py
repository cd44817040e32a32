"""What every agent must keep to: ``foveasim check``, and tests to inherit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch

from foveasim.agents.contract.rules import BASIC, COMPARING, RULES, AgentMaker, RuleContext, RuleResult, report_error
from foveasim.agents.loading import agent_factory, make_agent
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.validation import number, seed_value, size_hw

__all__ = ["RULES", "AgentContract", "CheckConfig", "RuleResult", "check", "check_agent"]


def check_agent(
    agent: object,
    *,
    seed: int = 0,
    size: tuple[int, int] = (96, 96),
    limit_ms: float = 50.0,
    only: Sequence[str] | None = None,
) -> list[RuleResult]:
    """Try every rule of the contract on an agent.

    Args:
        agent: A function from a seed to a new agent, a class, a name or ``package.module:Class``, or an agent, which is
            copied for every try.
        seed: The first seed to build it with.
        size: (H, W) of the observations, px, for an agent that declares no ``size`` of its own.
        limit_ms: Time that one ``act`` with one lane should take at most; more is a warning.
        only: Names of :data:`RULES` to try; None: all. Those that the others rest on are always tried.

    Returns:
        One result a rule, in order. Rules that rest on one that failed are left out. What the agent raises becomes a
        result, and the global random state is put back.

    Raises:
        InvalidValueError: A name in ``only`` that is no rule; a size, seed or limit out of range.

    Example:
        >>> {result.level for result in check_agent("centre")} <= {"pass", "note"}
        True
    """
    context = RuleContext(
        _maker(agent), seed_value("seed", seed), size_hw("size", size), number("limit_ms", limit_ms, 0)
    )
    unknown = [name for name in only or () if name not in RULES]
    if unknown:
        raise InvalidValueError(f"only must name rules; got {unknown!r}. Choose from {', '.join(RULES)}.")
    wanted = None if only is None else {*only, *BASIC, *(["repeats"] if set(only) & set(COMPARING) else [])}
    results: list[RuleResult] = []
    unrepeatable = False
    for name, rule in RULES.items():
        if wanted is not None and name not in wanted:
            continue
        if name in COMPARING and unrepeatable:
            continue
        with _own_random_state():
            try:
                result = rule(context)
            except Exception as error:  # whatever the agent raises is a result, not a crash of the check
                result = report_error(name, error)
        if result is not None:
            results.append(result)
            unrepeatable |= result.level == "fail" and name == "repeats"
            if result.level == "fail" and name in BASIC:
                break
    return results


@dataclass
class CheckConfig:
    """Try the contract on an agent.

    Args:
        agent: A name, or package.module:Class.
        arguments: Arguments of the agent.
        seed: The first seed to build it with.
        size: Height and width of the observations, px, for an agent that declares none.
        limit_ms: Time that one act with one lane should take at most; more is a warning.
    """

    agent: str
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    size: tuple[int, int] = (96, 96)
    limit_ms: float = 50.0


def check(config: CheckConfig) -> int:
    """Try the contract on an agent and print a table; ``foveasim check``.

    Returns:
        0 if no rule fails, 1 otherwise.

    Raises:
        UnknownNameError: No agent of that name.
        AgentError: ``agent`` names a file, or a module that cannot be imported.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    agent_factory(config.agent)  # a misspelt name is no fault of an agent
    results = check_agent(
        lambda seed: make_agent(config.agent, seed=seed, **config.arguments),
        seed=config.seed,
        size=config.size,
        limit_ms=config.limit_ms,
    )
    colours = {"pass": "green", "note": "cyan", "warn": "yellow", "fail": "bold red"}
    table = Table(title=f"contract of {config.agent}", title_justify="left", show_lines=True)
    for heading in ("rule", "", "outcome, and what to do"):
        table.add_column(heading, overflow="fold")
    for result in results:
        text = Text(result.message)
        if result.remedy:
            text.append(f"\n→ {result.remedy}", style="bold")
        table.add_row(result.rule, Text(result.level, style=colours[result.level]), text)
    failed = [result.rule for result in results if result.level == "fail"]
    stop = [name for name in failed if name in (*BASIC, "repeats")]
    console = Console()
    console.print(table)
    if failed:
        console.print(Text(f"{config.agent} breaks the contract: {', '.join(failed)}.", style="bold red"))
        if stop:
            console.print(f"Rules that rest on {stop[0]!r} were not tried.")
        return 1
    console.print(Text(f"{config.agent} keeps the contract.", style="green"))
    return 0


class AgentContract:
    """Tests to inherit: a class with ``make`` gets one test for every rule.

    Example:
        >>> class TestMine(AgentContract):
        ...     make = staticmethod(lambda seed: make_agent("random", seed=seed))
        >>> TestMine().test_repeats()
    """

    make: ClassVar[AgentMaker]
    size: ClassVar[tuple[int, int]] = (96, 96)
    limit_ms: ClassVar[float] = 50.0

    def try_rule(self, name: str) -> None:
        """Try one rule.

        Raises:
            AssertionError: It fails, or one that it rests on does.
        """
        for result in check_agent(type(self).make, size=self.size, limit_ms=self.limit_ms, only=(name,)):
            if result.level == "fail":
                raise AssertionError(f"{result.rule}: {result.message}\n→ {result.remedy}")


def _test_of(name: str) -> Callable[[AgentContract], None]:
    def test(self: AgentContract) -> None:
        self.try_rule(name)

    test.__doc__ = f"The rule {name!r}."
    return test


for _name in RULES:
    setattr(AgentContract, f"test_{_name.replace(' ', '_')}", _test_of(_name))


def _maker(agent: object) -> AgentMaker:
    if isinstance(agent, str | type):
        return lambda seed: make_agent(agent, seed=seed)
    if callable(getattr(agent, "act", None)):
        return lambda seed: copy.deepcopy(agent)
    if callable(agent):
        return cast("AgentMaker", agent)
    raise InvalidTypeError(
        f"agent must be a function from a seed to an agent, a class, a name or an agent; got {agent!r}. "
        "Give it a class or a name to hear what it lacks."
    )


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Put the global random state back: a check leaves no trace in the program that runs it."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
