"""Decoded images cached in a file, which the next run maps into memory instead of decoding them again.

A pool of one list of sources is two files, ``SOURCES-STATE.raw``, all pixels one after the other, and
``SOURCES-STATE.json``, the rest. SOURCES stands for their paths and splits, STATE for names, sizes and times of their
files: when those change, so does the name, and the old files are removed once the new ones are whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import SceneError
from foveasim.images.pool import ImagePool, offsets
from foveasim.images.splits import ImageSource
from foveasim.runs.whole_files import remove_parts, whole_file, write_atomically

__all__ = ["open_pool", "write_pool"]

FORMAT = 1  # part of every name, so that a change of the format makes older caches stale


def open_pool(folder: Path, sources: Sequence[ImageSource]) -> ImagePool | None:
    """Map the cached images of these sources.

    Args:
        folder: Of the cache.
        sources: What would be read otherwise.

    Returns:
        The pool, its ``pixels`` a read-only memory map; None where nothing is cached, or of another state of the
        sources, or not all of it.
    """
    stem = folder / "-".join(_stem(sources))
    try:
        metadata = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        size = np.array(metadata["size"], np.int32).reshape(-1, 2)
        names, source = tuple(map(str, metadata["names"])), np.array(metadata["source"], np.int64)
        pixels = np.memmap(stem.with_suffix(".raw"), np.uint8, "r")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = pixels.size == 3 * int(size.astype(np.int64).prod(1).sum())
    if not whole or not len(size) == len(names) == len(source):
        return None
    return ImagePool(np.asarray(pixels), offsets(size), size, names, source)


def write_pool(
    folder: Path, sources: Sequence[ImageSource], read: Iterator[tuple[int, str, NDArray[np.uint8]]]
) -> ImagePool:
    """Cache the images of these sources, and map the cache.

    Args:
        folder: Of the cache; made where it is missing.
        sources: What is read.
        read: Number of the source, name and image, (H, W, 3) uint8, of each. They are written as they come, so that
            memory never holds them all.

    Raises:
        SceneError: The folder cannot be written, or the disk is full. Nothing is left behind then.
    """
    own, state = _stem(sources)
    stem = folder / f"{own}-{state}"
    raw = stem.with_suffix(".raw")
    size: list[tuple[int, int]] = []
    names: list[str] = []
    source: list[int] = []
    try:
        remove_parts(folder)  # of runs that were killed: they may be as large as the pool
        with whole_file(raw) as file:
            for number, name, image in read:
                file.write(image.reshape(-1).data)
                size.append((image.shape[0], image.shape[1]))
                names.append(name)
                source.append(number)
        metadata = json.dumps({"size": size, "names": names, "source": source})
        write_atomically(stem.with_suffix(".json"), metadata.encode())
        for old in folder.glob(f"{own}-*"):
            if old.suffix in (".raw", ".json") and old.stem != stem.name:
                old.unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            raw.unlink()
        raise SceneError(
            f"cannot cache the decoded images in {folder} ({error.strerror}). Make room, or give another folder as "
            "cache, or none."
        ) from error
    pool = open_pool(folder, sources)
    if pool is None:
        raise SceneError(
            f"{', '.join(s.spec for s in sources)}: changed while being read into {folder}. Read it again."
        )
    return pool


def _stem(sources: Sequence[ImageSource]) -> tuple[str, str]:
    """Return what stands for the sources, and what for their state."""
    own, state = hashlib.sha256(f"{FORMAT}".encode()), hashlib.sha256()
    for source in sources:
        own.update(f"{source.path.resolve()}\0{source.split}\0".encode())
        for path in source.files():
            about = path.stat()
            state.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0".encode())
    return own.hexdigest()[:16], state.hexdigest()[:16]
