"""Where commands write: what is there is replaced only if that was asked for, and what a command reads never is."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, count, pairwise
from pathlib import Path

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.runs.whole_files import exists, is_file, is_folder, make_folder, move_new, remove_parts
from foveasim.trust import IMAGE_SUFFIXES

__all__ = [
    "UNFINISHED",
    "Inputs",
    "check_folder",
    "check_output",
    "check_outputs",
    "choose_final_path",
    "config_files",
    "episode_beside",
    "find_free_names",
    "find_inputs",
    "reading",
    "rename_part",
]

UNFINISHED = ".unfinished"
"""Folder in which a run stores what is done until all is; the only hidden one that makes a folder count as taken."""


@dataclass(frozen=True)
class Inputs:
    """What a command reads.

    Attributes:
        files: Files of any kind.
        folders: Folders, whose pictures are read.
    """

    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()


_NOTHING = Inputs()
_WRITTEN = {".csv", ".db", ".html", ".json", ".jsonl", ".md", ".png", ".safetensors"}
_WRITTEN_NAMES = {"best.yaml"}  # of tune; other YAML files in a folder are people's own
_config_inputs: list[Path] = []


@contextmanager
def reading(paths: Iterable[str | Path]) -> Iterator[None]:
    """Within it, these files are read by whatever runs, such as the config file of a command."""
    added = [Path(path) for path in paths]
    _config_inputs.extend(added)
    try:
        yield
    finally:
        del _config_inputs[len(_config_inputs) - len(added) :]


def find_inputs(*values: object, sources: object = ()) -> Inputs:
    """Return what of some options is a file, and so is read.

    Args:
        values: Options that may name a file, or hold some that do in lists and dicts, however deep: networks, agents
            (``LABEL=AGENT``, ``package.module:Class``), their arguments. Names of anything else, and folders, do not
            count.
        sources: The same for scenes and data (``PATH@SPLIT``), of which folders count, too.
    """
    files = [path for value in (values, sources) for path in _paths(value) if is_file(path)]
    folders = [path for path in _paths(sources) if is_folder(path)]
    return Inputs((*files, *_config_inputs), tuple(folders))


def _paths(value: object) -> Iterator[Path]:
    """Yield the paths that a value may mean."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list | tuple | set):
        for inner in value:
            yield from _paths(inner)
    elif isinstance(value, os.PathLike):
        yield Path(value)
    elif isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value:
        for text in {value, value.partition("=")[2]} - {""}:
            yield Path(text).expanduser()
            if "@" in text:
                yield Path(text.rpartition("@")[0] or ".").expanduser()
            module = re.fullmatch(r"([\w.]+):\w+", text)
            if module:
                yield Path(f"{module[1].replace('.', '/')}.py")


def check_output(
    path: str | Path, inputs: Inputs = _NOTHING, *, overwrite: bool = False, make_parent: bool = False
) -> Path:
    """Refuse a file that could not be written at the end, that is there already, or that is read: before long work.

    Args:
        path: The file.
        inputs: What is read. That is not replaced, whatever else is asked for: links and other spellings of its name
            do not hide it.
        overwrite: Whether another file may be replaced.
        make_parent: Whether the folder may be made.

    Returns:
        The path.

    Raises:
        InvalidTypeError: No name.
        InvalidValueError: See above.
    """
    if not isinstance(path, str | Path) or not str(path) or "\0" in str(path):
        raise InvalidTypeError(f"out must name a file; got {path!r}.")
    path = Path(path)
    if is_folder(path):
        raise InvalidValueError(f"cannot write {path}: it is a folder. Name a file.")
    if make_parent:
        try:
            make_folder(path.parent)
        except OSError as error:
            raise InvalidValueError(f"cannot write {path}: {error.strerror or error}. Name another file.") from error
    if not is_folder(path.parent):
        raise InvalidValueError(f"cannot write {path}: the folder {path.parent} does not exist. Create it first.")
    _check_replaced(path, inputs, overwrite)
    if not os.access(path.parent, os.W_OK) or (exists(path) and not os.access(path, os.W_OK)):
        raise InvalidValueError(f"cannot write {path}: no permission in {path.parent}.")
    return path


def _check_replaced(path: Path, inputs: Inputs, overwrite: bool) -> None:
    """Refuse to replace what is read, with or without ``overwrite``, and without it anything that is there."""
    if not os.path.lexists(path):
        return
    for source in (*inputs.files, *(_pictures(inputs.folders) if overwrite else ())):
        if exists(path) and exists(source) and path.samefile(source):
            raise InvalidValueError(
                f"cannot write {path}: it is read by the same command, as {source}, and an input is never replaced. "
                "Name another file."
            )
    if not overwrite:
        raise InvalidValueError(f"cannot write {path}: it exists. Name another file, or replace it by --overwrite.")


def _pictures(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the pictures in folders, however deep."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (Path(place) / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def check_outputs(
    paths: Mapping[str, str | Path | None], inputs: Inputs = _NOTHING, *, overwrite: bool = False
) -> None:
    """Check several files of one command, each by itself as :func:`check_output` does, and against each other.

    Args:
        paths: By the options that name them; None writes none.
        inputs: What is read.
        overwrite: Whether other files may be replaced.

    Raises:
        InvalidTypeError: No name.
        InvalidValueError: See above, or two that are one file.
    """
    named = {name: check_output(path, inputs, overwrite=overwrite) for name, path in paths.items() if path is not None}
    for (one, first), (two, second) in combinations(named.items(), 2):
        if _same(first, second):
            raise InvalidValueError(
                f"{one} and {two} must be different files; got {first} and {second}. Name another file for one of them."
            )


def _same(one: Path, two: Path) -> bool:
    """Whether two paths are one file, or would be."""
    if exists(one) and exists(two):
        return one.samefile(two)
    names = [str(path.parent.resolve() / path.name) for path in (one, two)]
    if sys.platform in ("darwin", "win32"):  # whose disks take no difference between small and large letters
        names = [name.casefold() for name in names]
    return names[0] == names[1]


def check_folder(out: str | Path, inputs: Inputs = _NOTHING, *, overwrite: bool, resume: bool | None = None) -> Path:
    """Make the folder of a run; refuse one that cannot be written to, that holds something already, or that is read.

    Args:
        out: The folder.
        inputs: What is read. A folder with a file in it that is read, and of a kind that runs write, is refused,
            whatever else is asked for.
        overwrite: Whether files in it may be replaced.
        resume: Whether a run there is to go on; None for commands that cannot.

    Returns:
        The folder.

    Raises:
        InvalidTypeError: No name.
        InvalidValueError: See above.
    """
    if not isinstance(out, str | Path) or not str(out):
        raise InvalidTypeError(f"out must name a folder; got {out!r}.")
    if resume and overwrite:
        raise InvalidValueError("give --resume or --overwrite, not both.")
    folder = Path(out).expanduser()
    holds = _holds(folder)
    if holds:
        _check_not_read(folder, inputs)
    if holds and not (resume or overwrite):
        ways = "Write into it" if resume is None else "Go on with a run there by --resume, begin anew"
        raise InvalidValueError(
            f"{folder} is not empty: it holds {', '.join(holds[:3])}{', ...' if len(holds) > 3 else ''}. "
            f"{ways} by --overwrite, or choose another --out."
        )
    try:
        make_folder(folder)
        remove_parts(folder)  # of a run that was killed while it wrote
    except OSError as error:
        raise InvalidValueError(
            f"out must be a folder that can be written to; got {folder}: {error.strerror or error}. "
            "Choose another --out."
        ) from error
    return folder


def _holds(folder: Path) -> list[str]:
    """Return the names of what a folder holds; hidden files, of systems and killed runs, do not count."""
    if not is_folder(folder):
        return []
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []  # make_folder says why
    return [name for name in names if not name.startswith(".") or name == UNFINISHED]


def _check_not_read(folder: Path, inputs: Inputs) -> None:
    """Refuse a folder that is read, or in which a file is that runs write the like of."""
    for source in inputs.folders:
        inside = folder.resolve().is_relative_to(source.resolve())
        if folder.samefile(source) or (inside and any(_pictures([folder]))):
            raise InvalidValueError(
                f"cannot write to {folder}: {source}, which the same command reads, is or holds it, with pictures in "
                "it, and an input is never replaced. Choose another --out."
            )
    for file in inputs.files:
        if file.suffix.lower() not in _WRITTEN and file.name not in _WRITTEN_NAMES:
            continue
        if folder.samefile(file.parent) or folder.samefile(file.resolve().parent):
            raise InvalidValueError(
                f"cannot write to {folder}: the same command reads {file}, and an input is never replaced. Choose "
                "another --out."
            )


def episode_beside(movie: str | Path) -> Path:
    """Return where the episode of a movie lies: ``look.mp4.episode.json``, so that ``look.gif`` has another."""
    movie = Path(movie)
    return movie.with_name(f"{movie.name}.episode.json")


def find_free_names(*names: str) -> list[Path]:
    """Number files that nobody named so that none is replaced; those of one run have one number.

    Args:
        names: As they are called where nothing of that name is there.

    Returns:
        The names, or all of them with the first number from 2 on that is free: ``foveasim-2.mp4``.
    """
    for number in count(1):
        free = [_numbered(Path(name), number) for name in names]
        if not any(os.path.lexists(path) for each in free for path in (each, episode_beside(each))):
            return free
    raise AssertionError


def _numbered(path: Path, number: int) -> Path:
    """Return a name with a number, before its ending; 1 changes nothing.

    Example:
        >>> _numbered(Path("look.mp4"), 2).name
        'look-2.mp4'
    """
    return path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def choose_final_path(path: Path, *, overwrite: bool) -> Path:
    """Return where to write what is done: elsewhere where somebody else has written a file of that name meanwhile.

    So that neither is lost, it gets a number then, and a warning says so.
    """
    if overwrite or not os.path.lexists(path):
        return path
    free = find_free_names(str(path))[0]
    _warn(path, free)
    return free


def rename_part(part: Path, path: Path, *, overwrite: bool) -> Path:
    """Give a file that is whole its name, or a numbered one where somebody else has taken the name meanwhile.

    Args:
        part: The file, in the same folder.
        path: Its name.
        overwrite: Whether to replace what has that name.

    Returns:
        Its name.

    Raises:
        OSError: It cannot be renamed.
    """
    if overwrite:
        part.replace(path)
        return path
    for number in count(1):
        name = _numbered(path, number)
        try:
            move_new(part, name)
        except FileExistsError:
            continue
        if name != path:
            _warn(path, name)
        return name
    raise AssertionError


def _warn(path: Path, name: Path) -> None:
    warnings.warn(f"{path} has been written by somebody else meanwhile; this is {name}.", UserWarning, stacklevel=3)


def config_files(words: Sequence[str]) -> list[str]:
    """Return the config files that the words of a command name.

    Example:
        >>> config_files(["--config", "a.yaml", "--seed", "1", "--config=b.yaml"])
        ['a.yaml', 'b.yaml']
        >>> config_files([])
        []
    """
    return [
        after if word == "--config" else word.partition("=")[2]
        for word, after in pairwise([*words, ""])
        if word == "--config" or word.startswith("--config=")
    ]
