"""Names that a package offers without importing what they stand for, after SPEC 1 of Scientific Python.

A package's ``__init__`` holds one table; the file ``__init__.pyi`` beside it says the same to type checkers and
editors, and a test holds the two equal. An object is imported when somebody first asks for it, and is an ordinary
attribute from then on.

Reference:
    Scientific Python, SPEC 1: Lazy loading of submodules and functions, https://scientific-python.org/specs/spec-0001.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, table: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: Its ``__name__``.
        table: What each name stands for: ``package.module:attribute``, or ``package.module`` for a whole module. A name
            must not be that of another module of the package, which would take its place once it is imported.

    Example:
        >>> ask, names = lazy_names("foveasim", {"Saccades": "foveasim.eye.saccade:Saccades"})
        >>> ask("Saccades")()
        Saccades(max_amplitude_deg=None, scatter=0.0, slope_ms_per_deg=2.2, intercept_ms=21.0, dwell_ms=250.0)
    """

    def find(name: str) -> Any:
        if name not in table:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; dir({package}) lists what it has.",
                name=name,
                obj=sys.modules[package],
            )
        module, _, attribute = table[name].partition(":")
        loaded = importlib.import_module(module)
        found = getattr(loaded, attribute) if attribute else loaded
        setattr(sys.modules[package], name, found)  # the next time, Python finds it without asking here
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *table})

    return find, names
