"""``foveasim data get``: download a data set, check it, unpack it. Nothing is downloaded unless this is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from foveasim.download_fetch import WAITS_S, DownloadError, disk, fetch, kept, kept_bytes
from foveasim.download_progress import DownloadProgress
from foveasim.errors import InvalidValueError, SceneError, UnknownNameError
from foveasim.runs.interrupts import Stop, held

__all__ = ["DATASETS", "DataConfig", "Dataset", "DownloadError", "get", "run"]


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
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a line that says what is kept.
    """
    if config.dataset not in DATASETS:
        near = get_close_matches(config.dataset, DATASETS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(f"there is no data set {config.dataset!r}.{hint} Choose from {', '.join(DATASETS)}.")
    dataset = DATASETS[config.dataset]
    with Stop().listening():
        path = get(dataset, Path(config.folder).expanduser(), url=config.url, keep_archive=config.keep_archive)
    print(f"{dataset.title} is at {path} ({dataset.terms}).")
    print("Use it: from foveasim.scenes import open_scenes")
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
        KeyboardInterrupt: Ctrl-C, after a line that says what is kept.
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
                    _check_space(folder, dataset.bytes - kept_bytes(part) + dataset.unpacked_bytes)
                    progress.say(f"{dataset.title}: {dataset.bytes / 1e6:,.0f} MB from {address} ({dataset.terms})")
                    if part.exists():
                        progress.say(f"going on at {kept_bytes(part) / 1e6:,.1f} MB")
                    fetch(address, part, dataset.bytes, progress, waits_s)
                    _check_sum(part, dataset, progress)
                    part.rename(archive)
                _unpack(dataset, archive, target, unfinished, progress, keep_archive=keep_archive)
            except KeyboardInterrupt:
                progress.say(f"{kept(part)} The same command goes on from there.")
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
    from foveasim.archives import unpack  # brings torch, which `--help` need not load

    if unfinished.exists():  # of a run that was killed
        shutil.rmtree(unfinished)
    try:
        with progress.bar("unpacking", dataset.unpacked_bytes) as report:
            unpack(archive, unfinished, most_bytes=dataset.unpacked_bytes, report=report)
        missing = _missing(dataset, unfinished / dataset.folder)
        if missing:
            raise SceneError(f"{archive}: does not hold the whole data set: {missing}. Remove it and get it again.")
        if sys.platform != "win32":
            os.sync()  # thousands of files: or a power cut could leave the folder's name without their content
        # The archive goes to what is unfinished, or a kill between the two could leave one that nobody would remove. A
        # run that finds it there takes it back.
        with held():
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
        kept = "was removed" if path.suffix == ".part" else "was not touched: remove it"
        raise DownloadError(
            f"{path}: SHA-256 is {digest.hexdigest()}, not {dataset.sha256}: damaged on its way, or another file. "
            f"It {kept}; run the same command to download it anew, by --url from a mirror if it happens again."
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
