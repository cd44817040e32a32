"""Files that are whole: the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it; its folder is made if it is missing.

    Raises:
        OSError: The folder cannot be written to or the disk is full; an older file is untouched then.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except BaseException:  # Ctrl-C, too, leaves no part behind
        with suppress(OSError):
            part.unlink()
        raise
