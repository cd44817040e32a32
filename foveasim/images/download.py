"""``foveasim data get``: download a data set, check it, unpack it. Nothing is downloaded without this command."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from foveasim import __version__
from foveasim.errors import FoveasimError, InvalidValueError, SceneError, UnknownNameError
from foveasim.runs.interrupts import InterruptFlag, defer_signals

__all__ = [
    "DATASETS",
    "WAITS_S",
    "DataConfig",
    "Dataset",
    "DownloadError",
    "DownloadProgress",
    "describe_partial",
    "disk",
    "fetch",
    "get",
    "partial_bytes",
    "run",
]

LINE_EVERY_S = 15.0


class DownloadProgress:
    """Shows bytes that come in.

    Args:
        console: Where to; standard output where None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console() if console is None else console
        self._bars = Progress(
            TextColumn("{task.description:11}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self.report: Callable[[int], None] = lambda count: None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def print(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a piece of work.

        Args:
            what: A word for it.
            total: Its bytes.
            done: Those that were done before.

        Yields:
            Takes the bytes that were done since it was called last; it is ``report`` of this object as well.
        """
        task = self._bars.add_task(what, total=total, completed=done)
        printed_s = time.monotonic()

        def report(count: int) -> None:
            nonlocal done, printed_s
            done += count
            self._bars.update(task, completed=done)
            if not self._console.is_terminal and time.monotonic() - printed_s >= LINE_EVERY_S:
                printed_s = time.monotonic()
                self.print(f"{what}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

        self.report = report
        yield report
        self._bars.update(task, total=done, completed=done)  # unpacking knows only a bound on its total


TIMEOUT_S = 30.0  # without a byte
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before a lost connection is tried again; a try that brings :data:`PROGRESS_BYTES` starts them anew."""
PROGRESS_BYTES = 1 << 20
READ_BYTES = 1 << 18
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP status of faults that may be over in a moment


class DownloadError(FoveasimError, OSError):
    """A data set could not be fetched or stored. The message says what is saved and how to go on."""


def fetch(url: str, part: Path, size: int, progress: DownloadProgress, waits_s: Sequence[float] = WAITS_S) -> None:
    """Bring ``part`` to ``size`` bytes, through lost connections.

    Args:
        url: Where from.
        part: The file, which may hold the beginning already.
        size: Of the whole, bytes.
        progress: Shows how far it is.
        waits_s: Pauses in s before a lost connection is tried again.

    Raises:
        DownloadError: It could not be done.
    """
    if partial_bytes(part) > size:
        progress.print(f"{part.name} is longer than the archive; beginning again")
        part.unlink()
    with progress.bar("downloading", size, partial_bytes(part)):
        waits = iter(waits_s)
        while (had := partial_bytes(part)) < size:
            try:
                _transfer(url, part, had, size, progress)
                fault = "the server closed the connection"
            except FoveasimError:
                raise
            except HTTPError as error:
                error.close()
                if error.code not in PASSING:
                    raise _refused(url, part, error) from error
                fault = f"HTTP {error.code} {error.reason}"
            except URLError as error:
                fault = str(error.reason)
            except (HTTPException, OSError) as error:  # disk errors have become DownloadErrors
                fault = str(error) or type(error).__name__
            have = partial_bytes(part)
            if have == size:
                break
            if have - had >= PROGRESS_BYTES:
                waits = iter(waits_s)
            wait_s = next(waits, None)
            if wait_s is None:
                raise DownloadError(
                    f"cannot fetch {url}: {fault}. {describe_partial(part)} Check the connection (behind a proxy, "
                    f"https_proxy) and run the same command again, which goes on from there; or put the archive itself "
                    f"into {part.parent} and run it."
                )
            progress.print(f"{fault} at {have / 1e6:,.1f} of {size / 1e6:,.1f} MB; trying again in {wait_s:g} s")
            time.sleep(wait_s)


def _transfer(url: str, part: Path, have: int, size: int, progress: DownloadProgress) -> None:
    """Append what one connection delivers."""
    headers = {"User-Agent": f"foveasim/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        start = _start(response, url, have, size)
        if start < have:
            progress.print("the server cannot go on in the middle; beginning again")
            progress.report(-have)
        # Unbuffered, so that what a full disk refuses is noticed here and not when the file is closed.
        with disk(part):
            file = part.open("ab" if start else "wb", buffering=0)
        with file:
            left = size - start
            while left and (block := response.read1(READ_BYTES)):
                if len(block) > left:
                    raise DownloadError(f"{url} delivers more than {size:,} bytes: it is another file.")
                with disk(part):
                    _write(file, block)
                left -= len(block)
                progress.report(len(block))


def _start(response: HTTPResponse, url: str, have: int, size: int) -> int:
    """Return where the response's first byte belongs, 0 where the server does not do ranges."""
    start, total = 0, response.headers.get("Content-Length", str(size))
    if response.status == 206:
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = int(span.partition("-")[0]) if span.partition("-")[0].isdigit() else -1
        if start != have:
            raise DownloadError(
                f"{url}: requested bytes from {have}, the server sent {span or 'others'}. Try a mirror."
            )
    if total not in (str(size), "*"):
        kind = response.headers.get("Content-Type", "unknown")
        raise DownloadError(
            f"{url} is {total} bytes of {kind}, not the {size:,} of the data set: a proxy's page, or the file has "
            "changed. Try a mirror by --url, or put the archive itself into the folder."
        )
    return start


def _refused(url: str, part: Path, error: HTTPError) -> DownloadError:
    why = "its file is shorter than what is here; it is another one" if error.code == 416 else error.reason
    return DownloadError(
        f"{url}: the server refuses, HTTP {error.code} ({why}). {describe_partial(part)} Try a mirror by --url, or put "
        f"the archive itself into {part.parent} and run the same command again."
    )


def _write(file: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def partial_bytes(part: Path) -> int:
    """Return the size of what has come so far, bytes."""
    return part.stat().st_size if part.exists() else 0


def describe_partial(part: Path) -> str:
    """Return a sentence on what is there to go on with: the whole file or its part."""
    whole = part.with_suffix("")
    found = whole if whole.exists() else part
    return (
        f"{partial_bytes(found) / 1e6:,.1f} MB are saved in {found}." if partial_bytes(found) else "Nothing was saved."
    )


@contextlib.contextmanager
def disk(part: Path) -> Iterator[None]:
    """Turn the errors of a disk into one that says how to go on.

    Raises:
        DownloadError: The disk is full or cannot be written to.
    """
    try:
        yield
    except FoveasimError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"the disk of {part.parent} is full. {describe_partial(part)} Free some space and run the same "
                "command again, which goes on from there."
            ) from error
        raise DownloadError(
            f"cannot write to {error.filename or part.parent}: {error.strerror or error}. Choose another folder."
        ) from error


@dataclass(frozen=True)
class Dataset:
    """What can be downloaded.

    Attributes:
        title: For people.
        url: Of the archive, ``http`` or ``https``.
        bytes: Of the archive.
        sha256: Of the archive, in hexadecimal.
        folder: What the archive unpacks to.
        unpacked_bytes: Upper bound on the sum of the unpacked files.
        holds: Pattern below ``folder`` → how many files fit it, and the bytes of each where they are known.
        terms: On what terms it may be used.
        opened_by: A line of Python that reads it; ``{path}`` is where it lies.
    """

    title: str
    url: str
    bytes: int
    sha256: str
    folder: str
    unpacked_bytes: int
    holds: dict[str, tuple[int, int | None]]
    terms: str
    opened_by: str


DATASETS = {
    "stl10": Dataset(
        title="STL-10",
        url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        bytes=2_640_397_119,
        # of TensorFlow Datasets; torchvision pins the same size and the MD5 91f7769df0f17e558f3565bffb0c7dfb
        sha256="f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
        folder="stl10_binary",
        unpacked_bytes=3_130_000_000,
        holds={
            "unlabeled_X.bin": (1, 100_000 * 27_648),
            "train_X.bin": (1, 5_000 * 27_648),
            "train_y.bin": (1, 5_000),
            "test_X.bin": (1, 8_000 * 27_648),
            "test_y.bin": (1, 8_000),
            "class_names.txt": (1, None),
        },
        terms="images from ImageNet, for non-commercial research",
        opened_by='open_scenes("stl10", path={path!r}, split="unlabeled")',
    ),
    "imagenette": Dataset(
        title="Imagenette, 160 px",
        url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
        bytes=99_003_388,
        # of TensorFlow Datasets; torchvision pins the MD5 e793b78cc4c9e9a4ccc0c1155377a412
        sha256="64d0c4859f35a461889e0147755a999a48b49bf38a7e0f9bd27003f10db02fe5",
        folder="imagenette2-160",
        unpacked_bytes=200_000_000,
        holds={"train/*/*.JPEG": (9_469, None), "val/*/*.JPEG": (3_925, None)},
        terms="images from ImageNet, for non-commercial research",
        opened_by='open_scenes("imagenette", path={path!r}, split="train")',
    ),
}
"""Data sets by name."""


@dataclass(frozen=True)
class DataConfig:
    """How to get a data set: ``foveasim data get stl10 DIR``.

    Attributes:
        action: ``get``: download, check and unpack. Broken off at any moment, the same command goes on.
        dataset: ``stl10`` (2.6 GB to download, 3.1 GB unpacked) or ``imagenette`` (0.1 GB).
        folder: Where to; made where it does not exist. An archive that already lies there is not downloaded again.
        url: A mirror to download from; the archive must be the same to the bit.
        keep_archive: Keep the archive after unpacking it.
    """

    action: Literal["get"]
    dataset: str
    folder: str = "data"
    url: str | None = None
    keep_archive: bool = False


def run(config: DataConfig) -> int:
    """Run ``foveasim data``.

    Returns:
        0.

    Raises:
        UnknownNameError: No such data set.
        DownloadError: See :func:`get`.
        SceneError: See :func:`get`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a line that says what is saved.
    """
    if config.dataset not in DATASETS:
        near = get_close_matches(config.dataset, DATASETS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(f"there is no data set {config.dataset!r}.{hint} Choose from {', '.join(DATASETS)}.")
    dataset = DATASETS[config.dataset]
    with InterruptFlag().listening():
        path = get(dataset, Path(config.folder).expanduser(), url=config.url, keep_archive=config.keep_archive)
    print(f"{dataset.title} is at {path} ({dataset.terms}).")
    print("Use it: from foveasim.scenes.source import open_scenes")
    print(f"        {dataset.opened_by.format(path=str(path))}")
    return 0


def get(
    dataset: Dataset,
    folder: Path,
    *,
    url: str | None = None,
    keep_archive: bool = False,
    waits_s: Sequence[float] = WAITS_S,
) -> Path:
    """Download, check and unpack a data set.

    What is there is used: the unpacked data set, its archive, or the beginning of the archive (``….part``), which is
    gone on with by an HTTP range. The archive gets its name once its SHA-256 is right, and the unpacked folder its own
    once everything is in it, so that neither is ever half of itself.

    Args:
        dataset: Which.
        folder: Where to; made where it does not exist.
        url: A mirror, or None for the data set's own address.
        keep_archive: Whether to keep the archive after unpacking it.
        waits_s: Pauses in s before a lost connection is tried again.

    Returns:
        The unpacked folder.

    Raises:
        DownloadError: No connection, the disk is full or cannot be written to, the server's file is another one, or
            another process is at work in ``folder``.
        SceneError: The archive cannot be unpacked safely, or what lies in ``folder`` already is not whole.
        InvalidValueError: ``url`` is neither http nor https.
        KeyboardInterrupt: Ctrl-C, after a line that says what is saved.
    """
    address = dataset.url if url is None else url
    if urlsplit(address).scheme not in ("http", "https"):
        raise InvalidValueError(f"url must begin with http:// or https://; got {address!r}.")
    target = folder / dataset.folder
    archive = folder / urlsplit(dataset.url).path.rpartition("/")[2]
    unfinished = target.with_name(f".{target.name}.unfinished")
    if target.exists():
        missing = _missing(dataset, target)
        if missing:
            raise SceneError(f"{target} is there but not whole: {missing}. Remove it and run the same command again.")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed just before it was done
        return target
    part = archive.with_name(archive.name + ".part")
    with disk(part):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder), DownloadProgress() as progress:
            try:
                if (unfinished / archive.name).exists():  # of a run that was killed just before the data set was whole
                    (unfinished / archive.name).replace(archive)
                if archive.exists():
                    _check_sum(archive, dataset, progress)
                    _check_space(folder, dataset.unpacked_bytes)
                else:
                    _check_space(folder, dataset.bytes - partial_bytes(part) + dataset.unpacked_bytes)
                    progress.print(f"{dataset.title}: {dataset.bytes / 1e6:,.0f} MB from {address} ({dataset.terms})")
                    if part.exists():
                        progress.print(f"going on at {partial_bytes(part) / 1e6:,.1f} MB")
                    fetch(address, part, dataset.bytes, progress, waits_s)
                    _check_sum(part, dataset, progress)
                    part.rename(archive)
                _unpack(dataset, archive, target, unfinished, progress, keep_archive=keep_archive)
            except KeyboardInterrupt:
                progress.print(f"{describe_partial(part)} The same command goes on from there.")
                raise
    return target


def _unpack(
    dataset: Dataset,
    archive: Path,
    target: Path,
    unfinished: Path,
    progress: DownloadProgress,
    *,
    keep_archive: bool,
) -> None:
    from foveasim.images.archives import unpack  # brings torch, which `--help` need not load

    if unfinished.exists():  # of a run that was killed
        shutil.rmtree(unfinished)
    try:
        with progress.bar("unpacking", dataset.unpacked_bytes) as report:
            unpack(archive, unfinished, max_bytes=dataset.unpacked_bytes, report=report)
        missing = _missing(dataset, unfinished / dataset.folder)
        if missing:
            raise SceneError(f"{archive}: does not hold the whole data set: {missing}. Remove it and get it again.")
        if sys.platform != "win32":
            os.sync()  # thousands of files: or a power cut could leave the folder's name without their content
        # The archive goes to what is unfinished, or a kill between the two could leave one that nobody would remove. A
        # run that finds it there takes it back.
        with defer_signals():
            if not keep_archive:
                archive.rename(unfinished / archive.name)
            try:
                (unfinished / dataset.folder).rename(target)
            except OSError:
                if not keep_archive:
                    (unfinished / archive.name).rename(archive)
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _missing(dataset: Dataset, folder: Path) -> str:
    """Say what a folder lacks of a data set, or nothing."""
    for pattern, (count, size) in dataset.holds.items():
        found = list(folder.glob(pattern))
        if len(found) != count:
            return f"{len(found):,} of {count:,} files {pattern}"
        for file in found:
            if size is not None and file.stat().st_size != size:
                return f"{file.name} has {file.stat().st_size:,} of {size:,} bytes"
    return ""


def _check_sum(path: Path, dataset: Dataset, progress: DownloadProgress) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as file, progress.bar("checking", path.stat().st_size) as report:
        while block := file.read(1 << 20):
            digest.update(block)
            report(len(block))
    if digest.hexdigest() != dataset.sha256:
        if path.suffix == ".part":  # there is nothing to go on with
            path.unlink()
        state = "was removed" if path.suffix == ".part" else "was not touched: remove it"
        raise DownloadError(
            f"{path}: SHA-256 is {digest.hexdigest()}, not {dataset.sha256}: damaged on its way, or another file. "
            f"It {state}; run the same command to download it anew, by --url from a mirror if it happens again."
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: {free / 1e9:,.1f} GB are free, {needed / 1e9:,.1f} GB are needed. Free some, or name a folder "
            "on another disk."
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse to work in a folder that another process is downloading to; the lock ends with the process."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"another process is getting data to {folder}. Wait for it.") from error
        except OSError:
            pass  # a network disk without locks; two downloads at once would still end at the checksum
        yield
    finally:
        os.close(handle)
