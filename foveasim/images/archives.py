"""Tar archives: images that are read in place, and unpacking that cannot write outside of its folder."""

from __future__ import annotations

import contextlib
import tarfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from foveasim.errors import SceneError
from foveasim.geometry import resolution
from foveasim.images.picture import (
    CACHE_BYTES,
    Picture,
    PictureCache,
    check_index,
    describe_source,
    flatten,
    open_checked,
)

__all__ = ["CarefulEntry", "TarScenes", "unpack"]

BLOCK_BYTES = 1 << 20
MAX_ENTRIES = 2_000_000
MAX_HEADER_BYTES = 1 << 20
_LONG_HEADERS = frozenset(
    (
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    )
)
DAMAGED = (tarfile.TarError, EOFError, zlib.error, LZMAError)
"""What reading a damaged archive raises, besides OSErrors without a number."""


class CarefulEntry(tarfile.TarInfo):
    """An entry whose header is no bomb: ``tarfile.open(path, tarinfo=CarefulEntry)``.

    tarfile reads an extended header (long names, attributes) into memory whole, however long it says it is, and keeps
    every entry: compressed, gigabytes of either take a few megabytes of file.
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG_HEADERS and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an entry's header of {self.size:,} bytes")
        if len(archive.members) > MAX_ENTRIES:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"more than {MAX_ENTRIES:,} entries")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # meant to be overridden
        return found


class TarScenes:
    """Image files inside an archive, decoded when they are first used.

    Args:
        path: The archive.
        places: Of each image, (offset, size) in bytes in an uncompressed archive, or its encoded content.
        names: A name for each.
        label: A class for each.
        labels: Names of the classes.
        px_per_deg: Of the files' pixels; None makes each short side span 27.4 degrees.
        cache_bytes: Bound on the decoded pictures that are cached.

    Raises:
        SceneError: No image with a readable header. Unreadable ones among others are skipped with one warning.
    """

    moving = False

    def __init__(
        self,
        path: Path,
        places: Sequence[tuple[int, int] | bytes],
        *,
        names: Sequence[str],
        label: Sequence[int],
        labels: tuple[str, ...],
        px_per_deg: float | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        resolution(px_per_deg, (1, 1))
        self.path = path
        self.labels = labels
        self._px_per_deg = px_per_deg
        self._cache = PictureCache(cache_bytes)
        self._files: list[tuple[tuple[int, int] | bytes, str, int]] = []
        broken: list[str] = []
        for file in zip(places, names, label, strict=True):
            try:
                self._open(file[0], file[1]).close()
                self._files.append(file)
            except SceneError as error:
                broken.append(str(error))
        listed = "\n  ".join([*broken[:5], *([f"and {len(broken) - 5} more"] if len(broken) > 5 else [])])
        if not self._files:
            raise SceneError(f"{path}: no image that can be read.{f' {listed}' if broken else ''}")
        if broken:
            warnings.warn(f"skipped {len(broken)} of {len(names)} image files:\n  {listed}", stacklevel=3)

    def __repr__(self) -> str:
        return describe_source(self, f"of {self.path}")

    def __len__(self) -> int:
        """Return the number of readable images."""
        return len(self._files)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return an image; see :meth:`foveasim.scenes.source.SceneSource.picture`."""
        index = check_index(index, len(self))
        found = self._cache.get(index)
        if found is None:
            place, name, label = self._files[index]
            with self._open(place, name) as image:
                try:
                    array = flatten(ImageOps.exif_transpose(image))
                except Exception as error:  # Pillow's readers raise whatever damaged content makes them stumble over
                    raise SceneError(f"{self.path}: {name} is damaged ({error}). Get the archive again.") from error
            found = Picture(array, label, name, resolution(self._px_per_deg, (array.shape[0], array.shape[1])))
            self._cache.put(index, found)
        return found

    def _open(self, place: tuple[int, int] | bytes, name: str) -> Image.Image:
        """Read an image's header, by the rules of ``picture.check_header``."""
        if isinstance(place, tuple):
            try:
                with self.path.open("rb") as file:
                    file.seek(place[0])
                    place = file.read(place[1])
            except OSError as error:
                raise SceneError(f"{self.path}: {name} cannot be read ({error.strerror or error}).") from error
        return open_checked(place, f"{self.path}: {name}")


def unpack(path: Path, folder: Path, *, max_bytes: int, report: Callable[[int], None] = lambda written: None) -> None:
    """Unpack a tar archive, compressed or not, into an empty folder.

    Plain files and folders only. Nothing is written where a link, a device, an absolute path, ``..``, a backslash or a
    drive letter asks for it, nothing is overwritten, and of owners, permissions and times none are taken over.

    Args:
        path: The archive.
        folder: Where to; made where it does not exist.
        max_bytes: Bound on the sum of the files, against archives that unpack to far more than they should.
        report: Called with the bytes written since the last call.

    Raises:
        SceneError: Truncated, damaged, too large, or with an entry of the above kinds. ``folder`` then holds what was
            unpacked before.
        OSError: The folder cannot be written to, or its disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = max_bytes
    try:
        with tarfile.open(path, tarinfo=CarefulEntry) as archive:
            for member in archive:
                target = folder.joinpath(*_safe_parts(path, member, folder))
                if not target.parent.resolve().is_relative_to(folder.resolve()):
                    raise SceneError(
                        f"{path}: {member.name!r} would follow a link that lies in {folder}; it was not unpacked. "
                        "Give an empty folder."
                    )
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                left -= member.size
                if left < 0:
                    raise SceneError(
                        f"{path}: unpacks to more than {max_bytes:,} bytes. Remove it; it is not the data."
                    )
                _write_member(archive, member, target, report)
            # tarfile stops at the end marker; the checksum of a compressed archive comes after it.
            while archive.fileobj is not None and left >= 0 and (rest := archive.fileobj.read(BLOCK_BYTES)):
                left -= len(rest)
    except (*DAMAGED, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise SceneError(f"{path}: not a whole tar archive ({error}). Remove it and get it again.") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise SceneError(f"{path}: not a whole tar archive ({error}). Remove it and get it again.") from error


def _safe_parts(path: Path, member: tarfile.TarInfo, folder: Path) -> tuple[str, ...]:
    name = PurePosixPath(member.name)
    if member.issparse() or not (member.isreg() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "no plain file"
        raise SceneError(f"{path}: {member.name!r} is {kind}; it was not unpacked. Remove the archive.")
    if name.is_absolute() or ".." in name.parts or set(member.name) & {"\\", ":", "\0"} or not member.name:
        raise SceneError(f"{path}: {member.name!r} leads out of the folder; it was not unpacked. Remove the archive.")
    # The standard library's own opinion as well, where it has one (3.11.4).
    if hasattr(tarfile, "data_filter"):
        tarfile.data_filter(member, str(folder))
    return name.parts


def _write_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, report: Callable[[int], None]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = archive.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name} has no content")
    written = 0
    with target.open("xb") as file, contextlib.closing(source):
        while block := source.read(BLOCK_BYTES):
            file.write(block)
            written += len(block)
            report(len(block))
    if written != member.size:
        raise tarfile.ReadError(f"{member.name} ends after {written:,} of {member.size:,} bytes")
