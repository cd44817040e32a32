"""Scene sources that read image files: files, a folder, a folder of classes, the bundled photographs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from foveasim.errors import SceneError
from foveasim.geometry import resolution
from foveasim.images.picture import (
    CACHE_BYTES,
    Picture,
    PictureCache,
    check_header,
    check_index,
    describe_source,
    read_picture,
)
from foveasim.trust import IMAGE_SUFFIXES

__all__ = [
    "PHOTOS",
    "FileScenes",
    "is_labelled_folder",
    "list_folder",
    "open_file",
    "open_folder",
    "open_labelled",
    "open_photos",
]

PHOTOS = Path(__file__).parent / "photos"
"""The folder of the photographs that come with foveasim."""


class FileScenes:
    """Image files, decoded when they are first used.

    Opening reads every file's header (0.05 ms each where they are in the disk cache), which finds empty files, other
    files in disguise and pictures that are too small or too large. A file whose pixels turn out to be damaged raises
    :class:`SceneError` in :meth:`picture`; nothing is put in its place.

    Args:
        paths: The files.
        names: A name for each, the file's own where None.
        label: A class for each, -1 where None.
        labels: Names of the classes.
        px_per_deg: Of the files' pixels; None makes each short side span 27.4 degrees.
        skip_unreadable: Drop files with an unreadable header, with one warning that names and counts them, instead of
            raising.
        cache_bytes: Bound on the decoded pictures that are cached.

    Raises:
        SceneError: No file, none that can be read, or one that cannot be read and must not be skipped.
    """

    moving = False

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        names: Sequence[str] | None = None,
        label: Sequence[int] | None = None,
        labels: tuple[str, ...] = (),
        px_per_deg: float | None = None,
        skip_unreadable: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if not paths:
            raise SceneError("no image file was given. Give at least one.")
        resolution(px_per_deg, (1, 1))
        readable: list[tuple[Path, str, int]] = []
        broken: list[SceneError] = []
        for number, path in enumerate(paths):
            try:
                check_header(path)
            except SceneError as error:
                if not skip_unreadable:
                    raise
                broken.append(error)
                continue
            readable.append(
                (path, path.name if names is None else names[number], -1 if label is None else label[number])
            )
        if broken:
            first = "\n  ".join(str(error) for error in broken[:5])
            rest = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
            if not readable:
                raise SceneError(f"none of {len(broken)} image files can be read:\n  {first}{rest}")
            warnings.warn(
                f"skipped {len(broken)} of {len(paths)} image files:\n  {first}{rest}", UserWarning, stacklevel=3
            )
        self.labels = labels
        self._files = readable
        self._px_per_deg = px_per_deg
        self._cache = PictureCache(cache_bytes)

    def __repr__(self) -> str:
        return describe_source(self, f"of {self._files[0][0].parent}")

    def __len__(self) -> int:
        """Return the number of readable files."""
        return len(self._files)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return a file's picture; see :meth:`SceneSource.picture`."""
        index = check_index(index, len(self))
        found = self._cache.get(index)
        if found is None:
            path, name, label = self._files[index]
            found = read_picture(path, label=label, name=name, px_per_deg=self._px_per_deg)
            self._cache.put(index, found)
        return found


def open_photos(*, px_per_deg: float | None = None, cache_bytes: int = CACHE_BYTES) -> FileScenes:
    """Open the photographs that come with foveasim; ``photos/LICENSES.md`` names their authors."""
    paths = _image_files(PHOTOS)
    names = [path.stem.replace("_", " ") for path in paths]
    return FileScenes(paths, names=names, px_per_deg=px_per_deg, cache_bytes=cache_bytes)


def open_file(path: str | Path, *, px_per_deg: float | None = None, cache_bytes: int = CACHE_BYTES) -> FileScenes:
    """Open one image file.

    Raises:
        SceneError: It cannot be read.
    """
    return FileScenes([Path(path).expanduser()], px_per_deg=px_per_deg, cache_bytes=cache_bytes)


def open_folder(path: str | Path, *, px_per_deg: float | None = None, cache_bytes: int = CACHE_BYTES) -> FileScenes:
    """Open the images that lie directly in a folder, sorted by name.

    Files with an unreadable header are skipped with one warning that names and counts them. Hidden files and files
    without an image's ending (:data:`foveasim.trust.IMAGE_SUFFIXES`) are none of its business.

    Raises:
        SceneError: No folder, or no readable image in it.
    """
    folder = Path(path).expanduser()
    return FileScenes(_image_files(folder), px_per_deg=px_per_deg, skip_unreadable=True, cache_bytes=cache_bytes)


def open_labelled(path: str | Path, *, px_per_deg: float | None = None, cache_bytes: int = CACHE_BYTES) -> FileScenes:
    """Open a folder of classes: every sub-folder that holds image files is one, and its name is the class's.

    Classes are sorted by name, images within a class as well. Unreadable files are skipped as by :func:`open_folder`; a
    class stays in ``labels`` even where all its files are unreadable, so that the numbers do not shift.

    Raises:
        SceneError: No folder, or no sub-folder with a readable image.
    """
    folder = Path(path).expanduser()
    classes = _class_folders(folder)
    if not classes:
        raise SceneError(f"{folder}: no sub-folder holds an image. {_nested_hint(folder)}")
    paths = [(number, file) for number, (_, files) in enumerate(classes) for file in files]
    return FileScenes(
        [file for _, file in paths],
        names=[f"{file.parent.name}/{file.name}" for _, file in paths],
        label=[number for number, _ in paths],
        labels=tuple(name for name, _ in classes),
        px_per_deg=px_per_deg,
        skip_unreadable=True,
        cache_bytes=cache_bytes,
    )


def is_labelled_folder(folder: Path) -> bool:
    """Whether a folder holds no image files itself but sub-folders that do.

    Raises:
        SceneError: Not a folder that can be read.
    """
    return not any(_is_image(entry) for entry in list_folder(folder)) and bool(_class_folders(folder))


def list_folder(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted by name, without hidden files.

    Raises:
        SceneError: Not a folder that can be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise SceneError(f"{folder}: not a folder that can be read ({error.strerror}). Check the path.") from error


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _class_folders(folder: Path) -> list[tuple[str, list[Path]]]:
    inside = [
        (entry.name, [f for f in list_folder(entry) if _is_image(f)]) for entry in list_folder(folder) if entry.is_dir()
    ]
    return [(name, files) for name, files in inside if files]


def _image_files(folder: Path) -> list[Path]:
    files = [entry for entry in list_folder(folder) if _is_image(entry)]
    if not files:
        raise SceneError(f"{folder}: no image in this folder. {_nested_hint(folder)}")
    return files


def _nested_hint(folder: Path) -> str:
    for entry in list_folder(folder):
        if entry.is_dir() and _class_folders(entry):
            return f"Its sub-folder {entry.name!r} is a labelled folder: open {entry} instead."
    return f"It needs files ending in {', '.join(sorted(IMAGE_SUFFIXES))}, in it or in sub-folders named after classes."
