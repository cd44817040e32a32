"""Writes pictures to an MP4 file, a GIF or a folder of PNG frames. A file appears under its name when it is whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Protocol, Self

import numpy as np
from PIL import Image as PillowImage

from foveasim import validation
from foveasim.drawing.canvas import Image, fit_to
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.runs.interrupts import defer_signals
from foveasim.runs.outputs import Inputs, check_folder, check_output, rename_part
from foveasim.runs.whole_files import part_path, try_lock

__all__ = ["GIF_MAX_BYTES", "FrameFolder", "GifMovie", "Movie", "Mp4Movie", "check_frames", "open_movie", "save_png"]

GIF_MAX_BYTES = 5_000_000
"""A GIF is made smaller until it is no larger than this: what mail and code hosting sites show without complaint."""

_FRAME = re.compile(r"frame-\d{6}\.png|\..*\.part")
_GIF_WIDTH = 720
_GIF_MIN_WIDTH = 160
_GIF_FPS = 15
_GIF_COLOURS = 256


class Movie(Protocol):
    """Something that pictures are written to, one after the other."""

    path: Path
    frames: int

    def add(self, picture: Image) -> None:
        """Append a picture, (H, W, 3) uint8 of the size that the movie was opened with."""

    def close(self) -> Path | None:
        """Finish. Returns the path, or None where there was no picture and so no file."""

    def discard(self) -> None:
        """Give up and leave nothing behind."""

    def __enter__(self) -> Self:
        """Keep what was added when the block ends, even by Ctrl-C; discard it where foveasim itself failed."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See ``__enter__``."""


class _Movie(ABC):
    """What the kinds of movie share: checks, counting, and use as a context manager that keeps what there is."""

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.fps = validation.number("fps", fps, 1, 240)
        self.size = validation.size_hw("size", size, minimum=16)
        self.frames = 0
        self._open, self._overwrite = True, overwrite
        self._check_path()
        self._lock: BinaryIO | None = None
        self._claim: BinaryIO | None = None

    def _check_path(self) -> None:
        check_output(self.path, overwrite=self._overwrite)

    def add(self, picture: Image) -> None:
        """Append a picture, (H, W, 3) uint8 of the size that the movie was opened with.

        Raises:
            InvalidValueError: Another size, or the movie is closed.
            FoveasimError: It cannot be written: the disk is full, say.
        """
        if not self._open:
            raise InvalidValueError(f"{self.path} is closed; open a new movie.")
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
            raise InvalidTypeError(f"picture must be a uint8 array (H, W, 3); got {type(picture).__name__}.")
        if picture.shape != (*self.size, 3):
            raise InvalidValueError(f"picture must be {(*self.size, 3)}; got {picture.shape}.")
        try:
            self._write(picture)
        except OSError as error:
            raise self._failed(error) from error
        self.frames += 1

    def close(self) -> Path | None:
        """Finish the file and give it its name.

        Returns:
            The path, or None where no picture was added: then no file is made. It has a number where somebody else has
            written a file of that name meanwhile.

        Raises:
            FoveasimError: It cannot be written.
        """
        if self._open:
            self._open = False
            if not self.frames:
                self._discard()
            else:
                try:
                    with defer_signals():  # an interrupted end would leave half a file
                        self._finish()
                except OSError as error:
                    raise self._failed(error) from error
        return self.path if self.frames else None

    def discard(self) -> None:
        """Give up and leave nothing behind; a finished movie stays."""
        if self._open:
            self._open = False
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, FoveasimError):
            self.close()  # also when interrupted: what was recorded is a whole movie
        else:
            self.discard()

    def _failed(self, error: OSError) -> FoveasimError:
        self._open = False
        self._discard()
        return FoveasimError(f"cannot write {self.path} after {self.frames} pictures: {error.strerror or error}.")

    def _part(self) -> Path:
        return self.path.with_name(f".{self.path.stem}.{os.getpid()}.part{self.path.suffix}")

    def _begin_part(self) -> None:
        """Make the unfinished file, and remove what killed recordings left of the same one."""
        name, end = f".{self.path.stem}.", f".part{self.path.suffix}"
        try:
            for old in self.path.parent.iterdir():
                if old.name.startswith(name) and old.name.removeprefix(name).removesuffix(end).isdigit():
                    with contextlib.suppress(OSError), old.open("r+b") as file:
                        if try_lock(file):
                            old.unlink()
            self._lock = self._part().open("wb")
        except OSError as error:
            raise InvalidValueError(f"cannot write {self.path}: {error.strerror or error}.") from error
        try_lock(self._lock)

    def _end_part(self, *, save: bool) -> None:
        """Give the unfinished file its name, or remove it."""
        if self._lock is not None:
            self._lock.close()  # before: Windows moves no open file
        if save:
            self.path = rename_part(self._part(), self.path, overwrite=self._overwrite)
        else:
            self._part().unlink(missing_ok=True)

    @abstractmethod
    def _write(self, picture: Image) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...


class Mp4Movie(_Movie):
    """H.264 in MP4, yuv420p with the index in front, so that browsers and slides play it.

    Args:
        path: The file.
        fps: Frames per second.
        size: (H, W), px. yuv420p needs even sides; an odd one loses its last row or column.
        overwrite: Replace a file of that name.

    Raises:
        InvalidValueError: The file exists, the folder is missing or not writable, or a number is out of range.
        FoveasimError: No ffmpeg.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int], *, overwrite: bool = False) -> None:
        super().__init__(path, fps, size, overwrite=overwrite)
        import imageio_ffmpeg  # it searches for ffmpeg on import

        try:
            program = imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as error:
            raise FoveasimError(
                f"cannot write {self.path}: no ffmpeg. Install it with 'pip install --force-reinstall imageio-ffmpeg', "
                "or name a .gif file instead."
            ) from error
        height, width = self.size
        self._begin_part()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the movie
        command = [
            program,
            "-y",
            "-loglevel",
            "error",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
        ]
        command += ["-r", f"{self.fps:g}", "-i", "-", "-an", "-vf", f"crop={width // 2 * 2}:{height // 2 * 2}:0:0"]
        command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"]
        command += ["-movflags", "+faststart", "-f", "mp4", str(self._part())]
        # In a session of its own, or the terminal's Ctrl-C would end ffmpeg before the file is whole.
        self._ffmpeg = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._log, start_new_session=True
        )

    def _write(self, picture: Image) -> None:
        _pipe(self._ffmpeg).write(np.ascontiguousarray(picture).data)

    def _finish(self) -> None:
        _pipe(self._ffmpeg).close()
        if self._ffmpeg.wait():
            raise OSError(self._reason())
        self._log.close()
        self._end_part(save=True)

    def _failed(self, error: OSError) -> FoveasimError:
        self._ffmpeg.wait()  # a broken pipe says nothing; ffmpeg's own message does
        reason = self._reason()
        return super()._failed(OSError(reason) if reason else error)

    def _reason(self) -> str:
        if self._log.closed:
            return ""
        self._log.seek(0)
        messages = self._log.read().decode(errors="replace").strip().splitlines()
        return messages[0] if messages else ""

    def _discard(self) -> None:
        self._ffmpeg.kill()
        self._ffmpeg.wait()
        pipe = _pipe(self._ffmpeg)
        with contextlib.suppress(BrokenPipeError):  # what the pipe still held has nowhere to go
            pipe.close()
        self._log.close()
        self._end_part(save=False)


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    """Return the pipe of a process that was started with one."""
    if process.stdin is None:
        raise FoveasimError("the process was started without a pipe.")
    return process.stdin


class GifMovie(_Movie):
    """An endless GIF of at most 15 pictures per second and :data:`GIF_MAX_BYTES`, 720 px wide or less.

    All frames share one palette without dithering, so what stands still costs nothing.

    Args:
        path: The file.
        fps: At which pictures are added; those that are too many are left out.
        size: (H, W), px.
        overwrite: Replace a file of that name.

    Raises:
        InvalidValueError: The file exists, the folder is missing or not writable, or a number is out of range.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int], *, overwrite: bool = False) -> None:
        super().__init__(path, fps, size, overwrite=overwrite)
        width = min(_GIF_WIDTH, self.size[1])
        self._small = max(1, round(self.size[0] * width / self.size[1])), width
        self._every = max(1, round(self.fps / _GIF_FPS))
        self._begin_part()
        self._spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the movie
        self._frame_count = 0

    def _write(self, picture: Image) -> None:
        if self.frames % self._every == 0:
            self._spool.write(np.ascontiguousarray(fit_to(picture, self._small)).data)
            self._frame_count += 1

    def _finish(self) -> None:
        height, width = self._small
        self._spool.flush()
        pictures = np.memmap(self._spool, np.uint8, "r", shape=(self._frame_count, height, width, 3))
        scale = 1.0
        while True:
            wide = max(_GIF_MIN_WIDTH, round(width * scale)) if scale < 1 else width
            self._encode(pictures, (max(1, round(height * wide / width)), wide))
            size = self._part().stat().st_size
            if size <= GIF_MAX_BYTES or wide <= _GIF_MIN_WIDTH:
                break
            scale = wide / width * min(0.9, (GIF_MAX_BYTES / size) ** 0.5)
        del pictures
        self._spool.close()
        self._end_part(save=True)

    def _encode(self, pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], size: tuple[int, int]) -> None:
        sample = np.concatenate(
            [fit_to(pictures[i], (90, 160)) for i in np.linspace(0, len(pictures) - 1, 12).astype(int)]
        )
        palette = PillowImage.fromarray(sample).quantize(_GIF_COLOURS, PillowImage.Quantize.MEDIANCUT)
        frames = (
            PillowImage.fromarray(fit_to(np.asarray(picture), size)).quantize(
                palette=palette, dither=PillowImage.Dither.NONE
            )
            for picture in pictures
        )
        # GIF counts in hundredths of a second, so the durations take turns and the sum stays right.
        ends = np.round(np.arange(len(pictures) + 1) * self._every * 100 / self.fps).astype(int)
        durations = [int(d) * 10 for d in np.maximum(np.diff(ends), 2)]
        next(frames).save(
            self._part(),
            "GIF",
            save_all=True,
            append_images=frames,
            duration=durations,
            loop=0,
            optimize=False,
            disposal=1,
        )

    def _discard(self) -> None:
        self._spool.close()
        self._end_part(save=False)


class FrameFolder(_Movie):
    """A folder of ``frame-000001.png`` and so on.

    Args:
        path: The folder. It is made; one that exists must be empty.
        fps: Not used, there for symmetry with the other movies.
        size: (H, W), px.
        overwrite: Replace the frames in a folder that holds nothing else.

    Raises:
        InvalidValueError: The folder is not empty, its parent is missing or not writable, or a number is out of range.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int], *, overwrite: bool = False) -> None:
        super().__init__(path, fps, size, overwrite=overwrite)
        self._made = not self.path.exists()
        try:
            self.path.mkdir(exist_ok=True)
            for old in self.path.iterdir():
                old.unlink()
        except OSError as error:
            raise InvalidValueError(f"cannot write frames to {self.path}: {error.strerror or error}.") from error

    def _check_path(self) -> None:
        check_frames(self.path, overwrite=self._overwrite)

    def _write(self, picture: Image) -> None:
        save_png(self.path / f"frame-{self.frames + 1:06d}.png", picture)

    def _finish(self) -> None:
        pass

    def _discard(self) -> None:
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)


def check_frames(path: Path, inputs: Inputs = Inputs(), *, overwrite: bool = False) -> None:  # noqa: B008  # frozen
    """Refuse a folder that frames cannot be written to, that is read, or that holds anything but frames to replace.

    Args:
        path: The folder.
        inputs: What is read.
        overwrite: Whether frames that lie there may be replaced.

    Raises:
        InvalidValueError: See above.
    """
    if not path.is_dir():
        check_output(path, inputs)  # as its name is that of a file
        return
    there = [entry.name for entry in path.iterdir()]
    other = next((name for name in there if not _FRAME.fullmatch(name)), None)
    if there and not (overwrite and other is None):
        remedy = "Choose another --out, or replace them by --overwrite."
        if other is not None:
            remedy = f"It holds {other}, which is no frame: --overwrite does not replace it. Choose another --out."
        raise InvalidValueError(f"cannot write frames to {path}: it exists and is not an empty folder. {remedy}")
    check_folder(path, inputs, overwrite=overwrite)


def save_png(path: Path, picture: Image) -> None:
    """Write one picture, (H, W, 3) uint8, as PNG, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    part = part_path(path)  # without waiting for the disk, as other files do: frames come thirty times a second
    try:
        PillowImage.fromarray(picture).save(part, "PNG", compress_level=4)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


_KINDS: dict[str, type[_Movie]] = {".mp4": Mp4Movie, ".m4v": Mp4Movie, ".gif": GifMovie, "": FrameFolder}


def open_movie(path: str | Path, fps: float, size: tuple[int, int], *, overwrite: bool = False) -> Movie:
    """Open a movie of the kind that the path's ending names.

    Args:
        path: ``.mp4`` or ``.m4v``, ``.gif``, or a name without an ending for a folder of PNG frames.
        fps: Frames per second.
        size: (H, W) of the pictures, px.
        overwrite: Replace what has that name.

    Raises:
        InvalidValueError: It exists, another ending, a missing folder, or a number out of range.
        FoveasimError: No ffmpeg.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _KINDS:
        raise InvalidValueError(
            f"cannot write {path}: unknown ending {suffix!r}. Choose .mp4, .gif, or none for a folder of PNG frames."
        )
    return _KINDS[suffix](path, fps, size, overwrite=overwrite)
