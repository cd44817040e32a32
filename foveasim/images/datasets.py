"""Scene sources for the data sets of the paper's experiments: STL-10's binary files, Imagenette's folders and archives.

Nothing is downloaded here: what is missing raises an error that names the command which gets it, ``foveasim data get``.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.geometry import resolution
from foveasim.images.archives import DAMAGED, CarefulEntry, TarScenes
from foveasim.images.files import FileScenes, list_folder
from foveasim.images.picture import CACHE_BYTES, Picture, check_index, describe_source
from foveasim.trust import IMAGE_SUFFIXES

__all__ = [
    "IMAGENETTE_CLASSES",
    "IMAGENETTE_SPLITS",
    "STL10_SPLITS",
    "Stl10Scenes",
    "open_imagenette",
]

STL10_SPLITS = ("unlabeled", "train", "test")
"""100,000, 5,000 and 8,000 images; the first has no labels."""

STL10_FOLDER = "stl10_binary"
SIDE_PX = 96
IMAGE_BYTES = 3 * SIDE_PX * SIDE_PX

IMAGENETTE_SPLITS = ("train", "val", "test", "all")
"""``val`` and ``test`` are the even and the odd files of each class of Imagenette's ``val`` folder, sorted by name."""

IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""WordNet number to name, in the order of the labels: that of the numbers, as everywhere in the literature."""

IMAGENETTE_FOLDERS = ("imagenette2-160", "imagenette2-320", "imagenette2", "imagenette")
UNPACKED_BYTES = 1 << 30  # maximum held in memory of a compressed archive; Imagenette at 320 px is 0.34 GB


def _command(dataset: str, folder: Path) -> str:
    return f"Get it: foveasim data get {dataset} {shlex.quote(str(folder))}"


class Stl10Scenes:
    """STL-10's images, 96 x 96 px, straight from its binary files.

    The file is memory-mapped: opening takes no memory, and reading a picture reads its 27,648 bytes. Copies and worker
    processes map the file anew instead of getting its content.

    Convention:
        An image is three planes, red, green, blue, each column by column: byte ``c * 9216 + x * 96 + y`` is channel c
        of pixel (x, y). Classes count from 1 in the files and from 0 here.

    Args:
        path: The folder ``stl10_binary``, or the one that holds it. ``foveasim data get stl10`` puts it into ``data``.
        split: ``"unlabeled"``, ``"train"`` or ``"test"``.
        px_per_deg: Of the images' pixels; None makes their side span 27.4 degrees.

    Raises:
        SceneError: A file is missing, empty or truncated, or the labels do not fit the images.
        InvalidValueError: Unknown split.

    Reference:
        Coates, Lee, Ng (2011), An analysis of single-layer networks in unsupervised feature learning, AISTATS; file
        format: https://cs.stanford.edu/~acoates/stl10/.
    """

    moving = False

    def __init__(self, path: str | Path = "data", *, split: str = "unlabeled", px_per_deg: float | None = None) -> None:
        if split not in STL10_SPLITS:
            raise InvalidValueError(f"split must be one of {', '.join(STL10_SPLITS)}; got {split!r}.")
        self._px_per_deg = resolution(px_per_deg, (SIDE_PX, SIDE_PX))
        self.split = split
        given = Path(path).expanduser()
        folder = _stl10_folder(given)
        self._file = folder / f"{split}_X.bin"
        self._command = _command("stl10", folder.parent if folder.name == STL10_FOLDER else given)
        count, rest = divmod(self._bytes(self._file), IMAGE_BYTES)
        if rest or not count:
            raise SceneError(
                f"{self._file}: {count * IMAGE_BYTES + rest:,} bytes are no whole number of images of {IMAGE_BYTES:,} "
                f"bytes; the file is truncated or another one. Remove {folder}. {self._command}"
            )
        self._images = self._map()
        self.labels: tuple[str, ...] = ()
        self._label: NDArray[np.int64] = np.full(count, -1)
        if split != "unlabeled":
            self.labels = self._class_names(folder / "class_names.txt")
            self._label = self._classes(folder / f"{split}_y.bin", count)

    def __repr__(self) -> str:
        return describe_source(self, f"split={self.split!r}")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._label)

    @property
    def label(self) -> NDArray[np.int64]:
        """(N,) int64, the class of every image, -1 where unknown. A copy."""
        return self._label.copy()

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return an image; see :meth:`foveasim.scenes.source.SceneSource.picture`."""
        index = check_index(index, len(self))
        name = f"STL-10 {self.split} {index}"
        return Picture(_upright(self._images[index]), int(self._label[index]), name, self._px_per_deg)

    def batch(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Return several images at once.

        Args:
            indices: (B,) whole numbers, in any order, repeated ones too.

        Returns:
            (B, 96, 96, 3) uint8, C-contiguous, a new array.

        Raises:
            InvalidTypeError: Not whole numbers.
            InvalidValueError: Not one axis, or an index out of range.
        """
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        if not np.issubdtype(chosen.dtype, np.integer):
            raise InvalidTypeError(f"indices must be whole numbers; got {chosen.dtype}.")
        if chosen.ndim != 1:
            raise InvalidValueError(f"indices must be (B,); got {chosen.shape}.")
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InvalidValueError(f"indices must be from 0 to {len(self) - 1}; got {chosen.min()} to {chosen.max()}.")
        images = np.empty((len(chosen), SIDE_PX, SIDE_PX, 3), np.uint8)
        for lane, index in enumerate(chosen.tolist()):
            _upright(self._images[index], images[lane])
        return images

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._images = self._map()

    def _map(self) -> NDArray[np.uint8]:
        # as a plain view: a memmap's own indexing is three times as slow
        return np.asarray(np.memmap(self._file, np.uint8, "r")).reshape(-1, 3, SIDE_PX, SIDE_PX)

    def _bytes(self, file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError as error:
            raise SceneError(f"{file}: cannot be read ({error.strerror}). {self._command}") from error

    def _read(self, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise SceneError(f"{file}: cannot be read ({error.strerror}). {self._command}") from error

    def _class_names(self, file: Path) -> tuple[str, ...]:
        names = tuple(self._read(file).decode("utf-8", "replace").split())
        if not names:
            raise SceneError(f"{file}: holds no class names. Remove {file.parent}. {self._command}")
        return names

    def _classes(self, file: Path, count: int) -> NDArray[np.int64]:
        classes = np.frombuffer(self._read(file), np.uint8).astype(np.int64) - 1
        if len(classes) != count:
            raise SceneError(
                f"{file}: {len(classes):,} labels for {count:,} images in {self._file.name}; one of the files is "
                f"truncated. Remove {file.parent}. {self._command}"
            )
        if classes.min() < 0 or classes.max() >= len(self.labels):
            raise SceneError(
                f"{file}: classes must be from 1 to {len(self.labels)}; got {classes.min() + 1} to "
                f"{classes.max() + 1}. Remove {file.parent}. {self._command}"
            )
        return classes


def _stl10_folder(path: Path) -> Path:
    """Return the folder of the .bin files."""
    if path.is_file():
        raise SceneError(
            f"{path}: a file; STL-10 is read from the folder {STL10_FOLDER}. If it is the archive, "
            f"'foveasim data get stl10 {shlex.quote(str(path.parent))}' unpacks it without a download."
        )
    if not path.is_dir():
        raise SceneError(f"{path}: no such folder. {_command('stl10', path)}")
    for folder in (path / STL10_FOLDER, path):
        if any(folder.glob("*_X.bin")):
            return folder
    raise SceneError(f"{path}: no STL-10 in this folder (unlabeled_X.bin, train_X.bin, ...). {_command('stl10', path)}")


def _upright(planes: NDArray[np.uint8], into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Turn (3, W, H) into (H, W, 3). Five times as fast as NumPy's transposed copy (29,000 a second on one core)."""
    turned: Any = cv2.transpose(cv2.merge((planes[0], planes[1], planes[2])), into)
    result: NDArray[np.uint8] = turned
    return result


@dataclass(frozen=True)
class _Entry:
    """An image file of Imagenette: below which split and class folder it lies, and how to find it."""

    split: str
    folder: str
    file: str
    where: Path | bytes | tuple[int, int]


def open_imagenette(
    path: str | Path = "data",
    *,
    split: str = "all",
    px_per_deg: float | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> FileScenes | TarScenes:
    """Open Imagenette, any of its sizes, from its folder or from an archive.

    Pictures are sorted by split, class and name. An uncompressed archive is read in place; of a compressed one the
    encoded files are held in memory (Imagenette at 160 px: 0.1 GB).

    Args:
        path: The folder with ``train`` and ``val``, the one that holds it (``imagenette2-160``, ...), or a ``.tar`` or
            ``.tgz``. Class folders are called by WordNet number (``n01440764``) or by name (``cassette_player``).
        split: ``"train"``, ``"val"``, ``"test"`` (see :data:`IMAGENETTE_SPLITS`) or ``"all"``.
        px_per_deg: Of the files' pixels; None makes each short side span 27.4 degrees.
        cache_bytes: Bound on the decoded pictures that are cached.

    Returns:
        A scene source. Its ``labels`` are the ten names of :data:`IMAGENETTE_CLASSES`, whatever the split holds.

    Raises:
        SceneError: Missing, empty or damaged, or a class folder that is none of Imagenette's.
        InvalidValueError: Unknown split.

    Reference:
        Howard (2019), Imagenette, https://github.com/fastai/imagenette.
    """
    validation.choice("split", split, IMAGENETTE_SPLITS)
    place = Path(path).expanduser()
    if not place.exists():
        raise SceneError(f"{place}: no such folder or archive. {_command('imagenette', place)}")
    if place.is_dir():
        place = _imagenette_folder(place)
    entries = sorted(_folder_entries(place) if place.is_dir() else _tar_entries(place), key=lambda e: _key(place, e))
    chosen = [entry for entry, part in zip(entries, _parts(entries), strict=True) if split in (part, "all")]
    if not chosen:
        folder = place.parent
        raise SceneError(f"{place}: no image in train/CLASS or val/CLASS. {_command('imagenette', folder)}")
    names = [f"{entry.split}/{entry.folder}/{entry.file}" for entry in chosen]
    label = [_key(place, entry)[1] for entry in chosen]
    labels = tuple(IMAGENETTE_CLASSES.values())
    files = [entry.where for entry in chosen if isinstance(entry.where, Path)]
    if files:
        return FileScenes(
            files,
            names=names,
            label=label,
            labels=labels,
            px_per_deg=px_per_deg,
            skip_unreadable=True,
            cache_bytes=cache_bytes,
        )
    places = [entry.where for entry in chosen if not isinstance(entry.where, Path)]
    return TarScenes(
        place, places, names=names, label=label, labels=labels, px_per_deg=px_per_deg, cache_bytes=cache_bytes
    )


def _key(place: Path, entry: _Entry) -> tuple[str, int, str]:
    names = [name.lower().replace(" ", "_") for name in IMAGENETTE_CLASSES.values()]
    for known in (list(IMAGENETTE_CLASSES), names):
        if entry.folder.lower() in known:
            return entry.split, known.index(entry.folder.lower()), entry.file
    raise SceneError(
        f"{place}: {entry.split}/{entry.folder} is no class of Imagenette ({', '.join(names)}, or their WordNet "
        f"numbers). A folder of other classes is opened by its own path, as a labelled folder."
    )


def _parts(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield the split of each of the sorted files: of every class below ``val``, the odd ones are for the test."""
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.split == "train":
            yield "train"
            continue
        position = seen.get(entry.folder, 0)
        seen[entry.folder] = position + 1
        yield ("val", "test")[position % 2]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _imagenette_folder(path: Path) -> Path:
    if any((path / split).is_dir() for split in ("train", "val")):
        return path
    inside = [path / name for name in IMAGENETTE_FOLDERS if (path / name).is_dir()]
    if len(inside) > 1:
        raise SceneError(f"{path}: holds {', '.join(folder.name for folder in inside)}. Give the path of one of them.")
    if not inside:
        raise SceneError(f"{path}: no Imagenette in this folder (imagenette2-160). {_command('imagenette', path)}")
    return inside[0]


def _folder_entries(folder: Path) -> Iterator[_Entry]:
    for split in ("train", "val"):
        classes = list_folder(folder / split) if (folder / split).is_dir() else []
        for of_class in (entry for entry in classes if entry.is_dir()):
            for file in list_folder(of_class):
                if _is_image(file.name) and file.is_file():
                    yield _Entry(split, of_class.name, file.name, file)


def _tar_entries(path: Path) -> list[_Entry]:
    try:
        with tarfile.open(path, "r:", tarinfo=CarefulEntry) as archive:
            return list(_members(archive, lambda member: (member.offset_data, member.size)))
    except tarfile.ReadError:
        pass  # compressed, or not an archive at all, which the second attempt finds out
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    total = 0

    def content(member: tarfile.TarInfo) -> bytes:
        nonlocal total
        total += member.size
        if total > UNPACKED_BYTES:
            raise SceneError(f"{path}: more than {UNPACKED_BYTES >> 30} GiB of images. Unpack it, and open the folder.")
        file = archive.extractfile(member)
        return b"" if file is None else file.read()

    try:
        with tarfile.open(path, tarinfo=CarefulEntry) as archive:
            return list(_members(archive, content))
    except (*DAMAGED, OSError) as error:
        raise SceneError(
            f"{path}: not a whole tar archive ({error}). Remove it. {_command('imagenette', path.parent)}"
        ) from error


def _members(archive: tarfile.TarFile, where: Callable[[tarfile.TarInfo], tuple[int, int] | bytes]) -> Iterator[_Entry]:
    for member in archive:
        parts = PurePosixPath(member.name).parts
        if member.isreg() and not member.issparse() and len(parts) >= 3 and _is_image(parts[-1]):
            split, folder, file = parts[-3:]
            if split in ("train", "val"):
                yield _Entry(split, folder, file, where(member))
