"""Images for pretraining and evaluation: read once from tar files, folders and STL-10, stored as uint8 in one block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError, SceneError
from foveasim.images.pool import ImagePool, offsets
from foveasim.images.pool_cache import open_pool, write_pool
from foveasim.images.splits import SPLITS, SUFFIXES, ImageSource, split_names

__all__ = ["SPLITS", "read_pool", "split_names"]


def read_pool(specs: str | Sequence[str], *, cache: str | Path | None = None, progress: bool = False) -> ImagePool:
    """Read images into memory.

    Args:
        specs: Each a folder or a tar archive of images, ``PATH`` or ``PATH@SPLIT`` (see :func:`split_names`), or a
            folder with STL-10's binary files, ``PATH@unlabeled`` (also where no split is given), ``PATH@train`` or
            ``PATH@test``. One may come as a plain string.
        cache: A folder where the decoded images are cached. They are then mapped into memory instead of read, now and
            the next time, so that they may be more than the memory holds. Sources that have changed are read anew.
        progress: Show a bar while decoding, where there is a terminal.

    Returns:
        The images of all of them. Files that cannot be decoded are skipped with a warning that names them and
        says why. STL-10's labelled images are called ``SPLIT/CLASS/NUMBER``, those without labels ``unlabeled_NUMBER``.

    Raises:
        InvalidValueError: Unknown split, or no source at all.
        SceneError: A source is missing or holds no readable image, or the cache cannot be written.
    """
    if isinstance(specs, str):
        specs = [specs] if specs else []
    if not specs:
        raise InvalidValueError("data must name at least one folder or tar archive of images; got none.")
    sources = [ImageSource.of(spec) for spec in specs]
    if cache is None:
        return _gather(_read(sources, progress))
    folder = Path(cache).expanduser()
    return open_pool(folder, sources) or write_pool(folder, sources, _read(sources, progress))


def _read(sources: Sequence[ImageSource], progress: bool) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """Yield number of the source, name and image of everything that can be decoded."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (progress and console.is_terminal)) as bar:
        for number, source in enumerate(sources):
            task = bar.add_task(f"decoding {source.path.name}", total=None)
            damaged: list[str] = []
            reason = ""
            good = 0

            def found(count: int, task: TaskID = task) -> None:
                bar.update(task, total=count)

            for name, image in source.read(found):
                bar.advance(task)
                if isinstance(image, SceneError):
                    damaged.append(name)
                    reason = reason or str(image)
                    continue
                good += 1
                yield number, name, image
            if damaged:
                listed = ", ".join(damaged[:5])
                warnings.warn(
                    f"{source.spec}: skipped {len(damaged)} images that cannot be read: {listed}\n  {reason}",
                    stacklevel=4,
                )
            if not good:
                raise SceneError(
                    f"{source.spec}: no readable image ({', '.join(SUFFIXES)}). Check the path and the split."
                    + (f"\n  {reason}" if reason else "")
                )


def _gather(read: Iterator[tuple[int, str, NDArray[np.uint8]]]) -> ImagePool:
    images: list[NDArray[np.uint8]] = []
    names: list[str] = []
    source: list[int] = []
    for number, name, image in read:
        images.append(image)
        names.append(name)
        source.append(number)
    size = np.array([image.shape[:2] for image in images], np.int32)
    offset = offsets(size)
    pixels = np.empty(3 * int(size.astype(np.int64).prod(1).sum()), np.uint8)
    images.reverse()
    for start in offset.tolist():  # each image is let go as soon as it is copied, so that memory holds them once
        flat = images.pop().reshape(-1)
        pixels[start : start + flat.size] = flat
    return ImagePool(pixels, offset, size, tuple(names), np.array(source, np.int64))
