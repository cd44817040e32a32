"""Files that are whole: under its name stands the old file or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "exists",
    "is_file",
    "is_folder",
    "make_folder",
    "move_new",
    "part_path",
    "remove_parts",
    "try_lock",
    "whole_file",
    "write_atomically",
]

_SUFFIX = ".part"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it; its folder is made if it is missing.

    Raises:
        OSError: The folder cannot be written to or the disk is full; an older file is untouched then.
    """
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file piece by piece; it gets its name at the end of the block, and is removed if that raises.

    What is written lies in ``.NAME.part`` meanwhile. A killed process leaves that behind; whoever writes the same file
    next writes over it. Two that write at once each have a part of their own, and the last that ends stays.

    Args:
        path: The file; its folder is made if it is missing.

    Yields:
        A file to write bytes to.

    Raises:
        OSError: The folder cannot be written to or the disk is full; an older file is untouched then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _open_part(path)
    part = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the content
            if sys.platform != "win32":  # while it is locked, so that nobody takes it for a part that was left behind
                part.replace(path)
        if sys.platform == "win32":  # which renames no open file
            part.replace(path)
    except BaseException:  # Ctrl-C, too, leaves no part behind
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and see that files can be written into it: ask before long work, not after it.

    Raises:
        OSError: It cannot be made, or nothing can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(4)}{_SUFFIX}"
    probe.write_bytes(b"?")
    probe.unlink()


def move_new(part: Path, path: Path) -> None:
    """Rename a file, but replace none, not even one that another process writes at this moment.

    Raises:
        FileExistsError: There is a file of that name.
        OSError: It cannot be renamed.
    """
    if sys.platform == "win32":
        part.rename(path)  # which replaces nothing there
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        part.replace(path)
        return
    part.unlink()


def part_path(path: Path) -> Path:
    """Return where a file lies while it is written. Long names are cut, for a name has 255 bytes at most."""
    return path.with_name(f".{path.name[:48]}{_SUFFIX}")


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left of files in a folder; what a living one is writing stays.

    Raises:
        OSError: The folder cannot be read.
    """
    if not folder.is_dir():
        return
    for part in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError), part.open("r+b") as file:
            if try_lock(file):
                part.unlink()


def try_lock(file: BinaryIO) -> bool:
    """Lock a file for this process until it is closed; say whether no other one has it.

    On disks and systems without locks, nobody is taken to have it.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _open_part(path: Path) -> BinaryIO:
    """Open the part of a file, empty and locked: the one that a killed process left, too."""
    part = part_path(path)
    while True:
        try:
            file = open(part, "ab", opener=_open_no_follow)  # noqa: SIM115
        except OSError:
            if not (part.exists() or part.is_symlink()) or not os.access(part.parent, os.W_OK):
                raise
            break  # of another user, or something else that stays
        if not try_lock(file):
            file.close()
            break
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                file.truncate(0)
                return file
        file.close()  # another process has renamed it between its opening and its locking
    beside = part.with_name(f"{part.name.removesuffix(_SUFFIX)}.{secrets.token_hex(4)}{_SUFFIX}")
    file = beside.open("xb")
    try_lock(file)
    return file


def _open_no_follow(name: str, flags: int) -> int:
    """Open a file, but not what a link of its name points to: where all may write, anybody can lay one."""
    return os.open(name, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _sync_folder(folder: Path) -> None:
    """See that a power cut does not undo a renaming, where the system can."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # a network disk may not know how; the file is whole either way
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def exists(path: Path) -> bool:
    """Whether something has that path, as far as one may know: a folder that may not be entered shows nothing."""
    return _ask(path.exists)


def is_file(path: Path) -> bool:
    """Whether it is a file, as far as one may know."""
    return _ask(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as one may know."""
    return _ask(path.is_dir)


def _ask(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except (OSError, ValueError):  # of pathlib: no permission, a name that is too long, a NUL
        return False
