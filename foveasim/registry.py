"""Names for scenes, retinas, rewards and agents; a name or ``package.module:Class`` becomes an object in one place."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from foveasim.errors import InvalidTypeError, UnknownNameError

__all__ = ["Registry", "load_object"]

T = TypeVar("T")


def load_object(path: str) -> object:
    """Import what ``package.module:Name`` names. This runs the module's code.

    Raises:
        UnknownNameError: The module or the name in it does not exist.
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownNameError(
            f"cannot import {module_name!r} of {path!r}: no module named {error.name!r}. "
            "Run from the folder that holds it, or install it with 'pip install -e .'."
        ) from error
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"{module_name!r} has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


class Registry(Generic[T]):
    """Names of one kind of thing.

    Args:
        kind: What the names stand for, for messages: "retina".
        group: Entry-point group in which other packages may announce theirs, or None.

    Example:
        >>> letters = Registry[str]("letter")
        >>> letters.add("a", lambda: "A")
        >>> letters.make("a")
        'A'
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, Callable[..., T] | str] = {}

    def add(self, name: str, factory: Callable[..., T] | str) -> None:
        """Register ``factory``, a callable or the path ``package.module:Name`` of one, which is imported when needed.

        Raises:
            UnknownNameError: The name is taken.
        """
        if name in self._factories:
            raise UnknownNameError(f"{self.kind} {name!r} is already registered; choose another name.")
        self._factories[name] = factory

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that registers a class under ``name``."""

        def decorate(cls: type[T]) -> type[T]:
            self.add(name, cls)
            return cls

        return decorate

    def names(self) -> list[str]:
        """Return every known name: built-in ones in their order, then those of other packages."""
        return [*self._factories, *(name for name in self._plugins() if name not in self._factories)]

    def __contains__(self, name: object) -> bool:
        """Whether ``name`` is registered."""
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.names())

    def factory(self, name: str) -> Callable[..., T]:
        """Return the callable behind a name or a path ``package.module:Name``.

        Raises:
            UnknownNameError: Unknown; the message lists the choices and the nearest one.
            InvalidTypeError: The path names something that cannot be called.
        """
        found: object = self._factories.get(name) or self._plugins().get(name) or (name if ":" in name else None)
        if found is None:
            near = difflib.get_close_matches(name, self.names(), 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}.{hint} Choose from {', '.join(self.names())}, "
                "or name a class of your own as 'package.module:Class'."
            )
        if isinstance(found, str):
            found = load_object(found)
        if not callable(found):
            raise InvalidTypeError(f"{name!r} must name a class or a function that makes a {self.kind}; got {found!r}.")
        return cast("Callable[..., T]", found)

    def make(self, name: str, **arguments: object) -> T:
        """Build what ``name`` names.

        Raises:
            UnknownNameError: Unknown name.
            InvalidTypeError: An argument that it does not take.
        """
        factory = self.factory(name)
        try:
            inspect.signature(factory).bind(**arguments)
        except TypeError as error:
            raise InvalidTypeError(
                f"{self.kind} {name!r}: {error}. It takes {name}{inspect.signature(factory)}."
            ) from error
        except ValueError:
            pass  # a builtin without a signature: let the call itself complain
        return factory(**arguments)

    def _plugins(self) -> dict[str, str]:
        if self.group is None:
            return {}
        return {point.name: point.value for point in entry_points(group=self.group)}
