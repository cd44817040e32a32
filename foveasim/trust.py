"""Whose word runs code: of a command only what was typed, unless ``--trust`` was typed as well.

A name ``package.module:Class`` imports a module, which runs it. In a Python program its author wrote the name. A
command also reads files that may come from elsewhere (a YAML config, a recorded episode, a policy), and whoever wrote
them must not choose what runs: under :func:`guarded` such a name is taken from what was typed, and from files only
with ``--trust``. A pickled file, such as a model that stable-baselines3 saved, runs code when it is opened, wherever
its name stands, and so always needs ``--trust``.

The guard holds for the process, threads included, because what it protects is the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from foveasim.errors import UntrustedError

__all__ = ["check_code", "check_pickle", "guarded"]


@dataclass(frozen=True)
class _Guard:
    typed: frozenset[str]
    trusts: bool


_guards: list[_Guard] = []


def _names(words: Sequence[str]) -> frozenset[str]:
    """Return what could be names of code in some words: ``--agent=mine:Agent``, ``LABEL=mine:Agent``, ``[a:A,b:B]``.

    A file is not: the name of one that came along with a config must not let it name code.
    """
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    spoken = [value for value in values if len(value) > 255 or not Path(value).exists()]
    return frozenset(name for value in spoken for name in re.findall(r"[\w.]+:[\w.]+", value))


@contextmanager
def guarded(typed: Sequence[str], *, trusts: bool = False) -> Iterator[None]:
    """Within it, names of code count only where they were typed, or where the person trusts the files.

    Args:
        typed: The words of the command line.
        trusts: Whether ``--trust`` was among them.

    Example:
        >>> with guarded(["--agent", "mine:Agent"]):
        ...     check_code("mine:Agent")
    """
    _guards.append(_Guard(_names(typed), trusts))
    try:
        yield
    finally:
        _guards.pop()


def check_code(path: str) -> None:
    """Refuse to import ``package.module:Name`` on the word of a file.

    Raises:
        UntrustedError: A command runs, its words do not hold the name, and ``--trust`` is not among them.
    """
    if _guards and not _guards[-1].trusts and path not in _guards[-1].typed:
        raise UntrustedError(
            f"{path!r} names code, which would be imported and run, and it stands in a file, not on the command line. "
            "A file from elsewhere can name anything. If you trust it, add --trust, or type the name yourself, as in "
            f"--agent {path}."
        )


def check_pickle(path: str) -> None:
    """Refuse to open a pickled file.

    Raises:
        UntrustedError: No command runs, or ``--trust`` is not among its words.
    """
    if not (_guards and _guards[-1].trusts):
        raise UntrustedError(
            f"{path!r} is a model of stable-baselines3. It holds pickled objects, which can run any code when they are "
            "opened. If you made it yourself or trust who did, add --trust to the command; in Python, load it and pass "
            f"the model: make_agent(PPO.load({path!r})). Policies of 'foveasim train' are safetensors and run none."
        )
