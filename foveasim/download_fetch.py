"""Fetching a file over HTTP through lost connections: what has come is kept, and gone on with by a range."""

from __future__ import annotations

import contextlib
import errno
import time
import urllib.request
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path
from urllib.error import HTTPError, URLError

from foveasim import __version__
from foveasim.download_progress import DownloadProgress
from foveasim.errors import FoveasimError

__all__ = ["WAITS_S", "DownloadError", "disk", "fetch", "kept", "kept_bytes"]

TIMEOUT_S = 30.0  # without a byte
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before a lost connection is tried again; a try that brings :data:`PROGRESS_BYTES` starts them anew."""
PROGRESS_BYTES = 1 << 20
READ_BYTES = 1 << 18
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP status of faults that may be over in a moment


class DownloadError(FoveasimError, OSError):
    """A data set could not be fetched or stored. The message says what is kept and how to go on."""


def fetch(url: str, part: Path, size: int, progress: DownloadProgress, waits_s: Sequence[float] = WAITS_S) -> None:
    """Bring ``part`` to ``size`` bytes, through lost connections.

    Args:
        url: Where from.
        part: The file, which may hold the beginning already.
        size: Of the whole, bytes.
        progress: Told how far it is.
        waits_s: Pauses in s before a lost connection is tried again.

    Raises:
        DownloadError: It could not be done.
    """
    if kept_bytes(part) > size:
        progress.say(f"{part.name} is longer than the archive; beginning again")
        part.unlink()
    with progress.bar("downloading", size, kept_bytes(part)):
        waits = iter(waits_s)
        while (had := kept_bytes(part)) < size:
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
            have = kept_bytes(part)
            if have == size:
                break
            if have - had >= PROGRESS_BYTES:
                waits = iter(waits_s)
            wait_s = next(waits, None)
            if wait_s is None:
                raise DownloadError(
                    f"cannot fetch {url}: {fault}. {kept(part)} Check the connection (behind a proxy, https_proxy) "
                    f"and run the same command again, which goes on from there; or put the archive itself into "
                    f"{part.parent} and run it."
                )
            progress.say(f"{fault} at {have / 1e6:,.1f} of {size / 1e6:,.1f} MB; trying again in {wait_s:g} s")
            time.sleep(wait_s)


def _transfer(url: str, part: Path, have: int, size: int, progress: DownloadProgress) -> None:
    """Append what one connection delivers."""
    headers = {"User-Agent": f"foveasim/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        start = _start(response, url, have, size)
        if start < have:
            progress.say("the server cannot go on in the middle; beginning again")
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
                f"{url}: asked for bytes from {have}, the server sent {span or 'others'}. Try a mirror."
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
        f"{url}: the server refuses, HTTP {error.code} ({why}). {kept(part)} Try a mirror by --url, or put the "
        f"archive itself into {part.parent} and run the same command again."
    )


def _write(file: FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def kept_bytes(part: Path) -> int:
    """Return the size of what has come so far, bytes."""
    return part.stat().st_size if part.exists() else 0


def kept(part: Path) -> str:
    """Say what there is to go on with: the whole file or its part."""
    whole = part.with_suffix("")
    found = whole if whole.exists() else part
    return f"{kept_bytes(found) / 1e6:,.1f} MB are kept in {found}." if kept_bytes(found) else "Nothing was kept."


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
                f"the disk of {part.parent} is full. {kept(part)} Free some space and run the same command again, "
                "which goes on from there."
            ) from error
        raise DownloadError(
            f"cannot write to {error.filename or part.parent}: {error.strerror or error}. Choose another folder."
        ) from error
