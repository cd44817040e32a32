"""Whose word runs code: of a command only what was typed, unless ``--trust`` was typed as well.

A name ``package.module:Class`` imports a module, which runs it. In a Python program its author wrote the name. A
command also reads files that may come from elsewhere (a YAML config, a recorded episode, a policy), and whoever wrote
them must not choose what runs: under :func:`guarded` such a name is taken from what was typed as a thing of the same
kind, as an agent by ``--agent mine:Agent``, and from files only with ``--trust``. A pickled file, such as a model that
stable-baselines3 saved, runs code when it is opened, wherever its name stands, and so always needs ``--trust``.

Pictures are opened as one of :data:`FORMATS` and nothing else, whatever they are called.

The guard holds for the process, threads included, because what it protects is the process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from foveasim.errors import UntrustedError

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "check_code", "check_pickle", "guarded"]

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "JPEG2000": (".jp2",),
    "AVIF": (".avif",),
    "TGA": (".tga",),
}
"""The formats that are read, as Pillow calls them, and their endings. Each is decoded within the process, from its own
bytes alone: none starts a program or opens another file."""

IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Endings of the files that a folder or an archive is searched for. A file named on its own may have any ending."""


@dataclass(frozen=True)
class _Guard:
    typed: Mapping[str, Collection[str]]
    trusts: bool


_guards: list[_Guard] = []


@contextmanager
def guarded(typed: Mapping[str, Collection[str]], *, trusts: bool = False) -> Iterator[None]:
    """Within it, names of code count only where they were typed, or where the person trusts the files.

    Args:
        typed: Names of code on the command line, by the kind of thing that each stands for there.
        trusts: Whether ``--trust`` was among its words.

    Example:
        >>> with guarded({"agent": ["mine:Agent"]}):
        ...     check_code("mine:Agent", "agent")
    """
    _guards.append(_Guard(typed, trusts))
    try:
        yield
    finally:
        _guards.pop()


def check_code(path: str, kind: str) -> None:
    """Refuse to import ``package.module:Name`` on the word of a file.

    Args:
        path: The name.
        kind: What it is to be: "agent", "retina", "scene source", ...

    Raises:
        UntrustedError: A command runs, the name was not typed as a thing of this kind, and ``--trust`` was not typed.
    """
    if _guards and not _guards[-1].trusts and path not in _guards[-1].typed.get(kind, ()):
        option = "scenes" if kind == "scene source" else kind
        raise UntrustedError(
            f"{path!r} names code, which would be imported and run, and no option on the command line has it as "
            f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}: it stands in a file, or elsewhere. A file from elsewhere "
            f"can name anything. If you trust it, add --trust, or type the name yourself, as in --{option} {path}."
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
