"""Names for scenes, retinas, rewards and agents; a name or ``package.module:Class`` becomes an object in one place."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from foveasim.errors import FoveasimError, InvalidTypeError, UnknownNameError
from foveasim.trust import check_code

__all__ = ["Registry", "build", "describe", "load_object"]

T = TypeVar("T")

# A fault is shown where its author can mend it, not in a library (or in foveasim) that it called wrongly.
_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))


def load_object(path: str, failure: type[FoveasimError] = FoveasimError) -> object:
    """Import what ``package.module:Name`` names. This runs the module's code.

    Args:
        path: The module, a colon, and the name in it.
        failure: What to raise where the module is there but cannot be imported.

    Raises:
        UnknownNameError: The module or the name in it does not exist.
        FoveasimError: The module raised something when it was imported; the message says what and where, and the
            cause is chained.
    """
    module_name, _, attribute = path.partition(":")
    if not all(module_name.split(".")) or not all(attribute.split(".")):
        raise UnknownNameError(f"{path!r} names nothing; write 'package.module:Name', a module, a colon, a name in it.")
    try:
        module = importlib.import_module(module_name)
    except FoveasimError:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise UnknownNameError(
                f"cannot import {module_name!r} of {path!r}: no module named {missing!r}. "
                "Run from the folder that holds it, or install it with 'pip install -e .'."
            ) from error
        if missing is not None:
            raise failure(
                f"cannot import {module_name!r} of {path!r}: it imports {missing!r}, and there is no such module"
                f"{_place(error)}. Install {missing!r}, or mend its name."
            ) from error
        raise failure(
            f"cannot import {module_name!r} of {path!r}: {describe(error)}. Mend what raises there; "
            f"python -c 'import {module_name}' shows all of it."
        ) from error
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")], 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"{module_name!r} has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


def build(kind: str, name: str, factory: Callable[..., T], arguments: Mapping[str, object]) -> T:
    """Call a factory with arguments that were compared with its signature first.

    Raises:
        InvalidTypeError: An argument that it does not take, or one that is missing.
    """
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise InvalidTypeError(f"{kind} {name!r}: {error}. It takes {name}{inspect.signature(factory)}.") from error
    except ValueError:
        pass  # a builtin without a signature: let the call itself complain
    return factory(**arguments)


def describe(error: BaseException) -> str:
    """Say in a line what someone else's code raised, and where in it.

    Example:
        >>> describe(ValueError("too many eyes"))
        'ValueError: too many eyes'
    """
    message = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}{f': {message}' if message else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return the file and line of what someone else wrote wrong: the last place outside of libraries."""
    if isinstance(error, SyntaxError) and error.filename is not None and not error.filename.startswith("<"):
        return f" ({error.filename}, line {error.lineno})"
    ours, places = __name__.partition(".")[0], []
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
        if not file.startswith("<"):
            mendable = not file.startswith(_INSTALLED) and module.partition(".")[0] != ours
            places.append((mendable, f" ({file}, line {line})"))
    theirs = [place for mendable, place in places if mendable] or [place for _, place in places]
    return theirs[-1] if theirs else ""


class Registry(Generic[T]):
    """Names of one kind of thing.

    Args:
        kind: What the names stand for, for messages: "retina".
        group: Entry-point group in which other packages may announce theirs, or None.
        failure: What to raise where the module that a path names cannot be imported.

    Example:
        >>> letters = Registry[str]("letter")
        >>> letters.add("a", lambda: "A")
        >>> letters.make("a")
        'A'
    """

    def __init__(self, kind: str, group: str | None = None, failure: type[FoveasimError] = FoveasimError) -> None:
        self.kind = kind
        self.group = group
        self.failure = failure
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
            UntrustedError: The path stands in a file that a command read, see :mod:`foveasim.trust`.
            FoveasimError: The module that the path names cannot be imported; its kind is ``failure``.
        """
        found: object = self._factories.get(name) or self._plugins().get(name) or (name if ":" in name else None)
        if found is None:
            near = difflib.get_close_matches(name, self.names(), 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}.{hint} Choose from {', '.join(self.names())}, "
                "or name a class of your own as 'package.module:Class'."
            )
        if found == name:
            check_code(name, self.kind)
        if isinstance(found, str):
            found = load_object(found, self.failure)
        if not callable(found):
            raise InvalidTypeError(f"{name!r} must name a class or a function that makes a {self.kind}; got {found!r}.")
        return cast("Callable[..., T]", found)

    def make(self, name: str, /, **arguments: object) -> T:
        """Build what ``name`` names.

        Raises:
            UnknownNameError: Unknown name.
            InvalidTypeError: An argument that it does not take.
        """
        return build(self.kind, name, self.factory(name), arguments)

    def _plugins(self) -> dict[str, str]:
        if self.group is None:
            return {}
        return {point.name: point.value for point in entry_points(group=self.group)}
