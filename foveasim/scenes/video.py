"""Scene sources that move: a video file, an animated GIF, a webcam."""

from __future__ import annotations

import math
import threading
import time
import warnings
from bisect import bisect_right
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import SceneError
from foveasim.geometry import MIN_SIDE_PX, resolution
from foveasim.images.picture import MAX_PIXELS, Picture, check_index, describe_source, flatten, open_checked

__all__ = ["VideoScenes", "WebcamScenes", "is_animated"]

_SEEK_FRAMES = 64
"""Jumps ahead by more frames than this seek; shorter ones read on, which is exact in every format and as quick."""

_INEXACT_SEEK = frozenset((".mpg", ".mpeg"))
"""Containers without an index, where half of OpenCV's seeks land some frames beside their target (measured on MPEG-2);
they are read from their start instead."""

_COUNT_SLACK = 3
"""Frames by which containers overstate their length without the video being broken off (seen with AVI and WebM)."""

_MAX_FPS = 240.0
"""Beyond it the frame rate is a container's time base (1000 in browsers' WebM recordings), not a frame rate."""

_GIF_DEFAULT_MS = 100
"""How long a frame is shown where a GIF says 0 ms, as in browsers."""


def is_animated(path: Path) -> bool:
    """Whether an image file holds more than one frame.

    Raises:
        SceneError: Not an image.
    """
    with open_checked(path) as image:
        try:
            return bool(getattr(image, "is_animated", False))
        except Exception:  # it looks at the second frame: there is one, but damaged, of which VideoScenes warns
            return True


class _Clip(Protocol):
    """Numbered frames and when each is shown."""

    count: int | None

    def duration_ms(self) -> float: ...

    def number_at(self, time_ms: float) -> int: ...

    def read(self, number: int) -> NDArray[np.uint8] | None: ...

    def readable(self) -> int: ...


class VideoScenes:
    """One video as one moving scene, which starts with each episode's clock.

    Frame n is shown from n / fps on (a GIF's frames for as long as it says). A video that breaks off before the length
    that its container claims holds its last good frame for the rest of it, with one warning.

    Args:
        path: A file that OpenCV's FFmpeg reads, or an animated GIF, which Pillow reads.
        px_per_deg: Of the video's pixels; None makes the short side span 27.4 degrees.
        loop: Whether it starts again after its end; else it holds its last frame.

    Raises:
        SceneError: Missing, not a video, without a readable frame or a frame rate, under 8 px a side or over 100
            megapixels.
    """

    moving = True
    labels: tuple[str, ...] = ()

    def __init__(self, path: str | Path, *, px_per_deg: float | None = None, loop: bool = True) -> None:
        self._path = Path(path).expanduser()
        if not self._path.is_file():
            raise SceneError(f"{self._path}: no such file. Check the path.")
        resolution(px_per_deg, (1, 1))
        self._given_px_per_deg = px_per_deg
        self._loop = bool(loop)
        self._open()

    def _open(self) -> None:
        self._clip: _Clip = _GifClip(self._path) if self._path.suffix.lower() == ".gif" else _FileClip(self._path)
        first = self._clip.read(0)
        if first is None:
            raise SceneError(f"{self._path}: no frame can be read. Convert it to MP4: ffmpeg -i IN OUT.mp4")
        _check_frame(first, str(self._path))
        self._frame, self._number = first, 0
        self._readable: int | None = None
        self._px_per_deg = resolution(self._given_px_per_deg, (first.shape[0], first.shape[1]))

    def __getstate__(self) -> dict[str, object]:
        """Leave the open file behind: a copy, in a worker process for instance, opens it again."""
        left = ("_clip", "_frame", "_number", "_readable")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Open the file again."""
        self.__dict__.update(state)
        self._open()

    def __repr__(self) -> str:
        return describe_source(self, f"of {self._path}")

    def __len__(self) -> int:
        """Return 1."""
        return 1

    @property
    def duration_ms(self) -> float:
        """Length of the video, ms; infinite where its container does not say and the end has not been met yet."""
        return self._clip.duration_ms()

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return the frame that is shown at ``time_ms``. Going on in time reads on, going back seeks.

        Raises:
            InvalidValueError: ``index`` is not 0, or ``time_ms`` is negative or not finite.
            SceneError: The file can no longer be read.
        """
        check_index(index, 1)
        time_ms = validation.number("time_ms", time_ms, 0)
        number = self._wanted(time_ms)
        if number != self._number:
            frame = self._clip.read(number)
            if frame is None:
                self._meet_end()
                number = self._wanted(time_ms)
                frame = self._clip.read(number)
            if frame is None:
                raise SceneError(f"{self._path}: frame {number} can no longer be read. Is the file still there?")
            self._frame, self._number = frame, number
        return Picture(self._frame, -1, self._path.name, self._px_per_deg)

    def _wanted(self, time_ms: float) -> int:
        duration = self._clip.duration_ms()
        number = self._clip.number_at(time_ms % duration if self._loop and time_ms >= duration else time_ms)
        if self._clip.count is not None:
            number = min(number, self._clip.count - 1)
        return number if self._readable is None else min(number, self._readable - 1)

    def _meet_end(self) -> None:
        """Learn from a failed read where the frames end, and whether the container claimed more."""
        readable = self._readable = max(1, self._clip.readable())
        claimed = self._clip.count
        if claimed is None or claimed - readable <= _COUNT_SLACK:
            self._clip.count = readable
        else:
            warnings.warn(
                f"{self._path} breaks off after frame {readable} of {claimed}; its last good frame is held.",
                UserWarning,
                stacklevel=3,
            )


def _check_frame(frame: NDArray[np.uint8], name: str) -> None:
    height, width = frame.shape[:2]
    if min(height, width) < MIN_SIDE_PX or height * width > MAX_PIXELS:
        raise SceneError(
            f"{name}: frames of {width} x {height} px; sides of at least {MIN_SIDE_PX} px and at most "
            f"{MAX_PIXELS // 10**6} megapixels can be used. Scale it first."
        )


class _FileClip:
    """Frames of a video file by OpenCV."""

    def __init__(self, path: Path) -> None:
        import cv2

        self._cv2 = cv2
        self._path = path
        self._next = 0  # the frame that the capture would read now
        self._rewind()
        claimed = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.count = int(claimed) if math.isfinite(claimed) and claimed >= 1 else None
        self._fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        if not 0 < self._fps <= _MAX_FPS:
            raise SceneError(
                f"{path}: no usable frame rate ({self._fps:g} frames per second). Give it a constant one: "
                "ffmpeg -i IN -r 30 OUT.mp4"
            )

    def duration_ms(self) -> float:
        return math.inf if self.count is None else self.count * 1000 / self._fps

    def number_at(self, time_ms: float) -> int:
        return int(time_ms * self._fps / 1000 + 1e-6)  # so that n * 1000 / fps shows frame n despite rounding

    def readable(self) -> int:
        return self._next

    def read(self, number: int) -> NDArray[np.uint8] | None:
        """Return a frame, or None where the file ends before; :meth:`readable` then returns where."""
        if number < self._next or number > self._next + _SEEK_FRAMES:
            frame = self._seek(number)
            if frame is not None:
                self._next = number + 1
                return frame
            self._rewind()
        while self._next < number:
            if not self._capture.grab():
                return None
            self._next += 1
        frame = self._decode()
        self._next += frame is not None
        return frame

    def _seek(self, number: int) -> NDArray[np.uint8] | None:
        if self._path.suffix.lower() in _INEXACT_SEEK:
            return None
        self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, number)
        at = round(self._capture.get(self._cv2.CAP_PROP_POS_FRAMES))
        return self._decode() if at == number else None

    def _decode(self) -> NDArray[np.uint8] | None:
        good, frame = self._capture.read()
        if not good:
            return None
        return np.asarray(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def _rewind(self) -> None:
        self._capture = self._cv2.VideoCapture(str(self._path))
        if not self._capture.isOpened():
            raise SceneError(
                f"{self._path}: not a video that can be read. Check that it plays elsewhere, or convert it: "
                "ffmpeg -i IN OUT.mp4"
            )
        self._next = 0


class _GifClip:
    """Frames of an animated GIF by Pillow."""

    def __init__(self, path: Path) -> None:
        open_checked(path).close()
        self._path = path
        stored = path.read_bytes()  # so that no file is left open
        self._image = open_checked(stored, str(path))
        self._ends_ms: list[float] = []
        try:
            while True:
                self._image.load()
                self._ends_ms.append(self.duration_ms() + (self._image.info.get("duration") or _GIF_DEFAULT_MS))
                self._image.seek(len(self._ends_ms))
        except EOFError:
            pass
        except Exception as error:  # Pillow's readers raise whatever damaged data makes them stumble over
            if not self._ends_ms:
                raise SceneError(f"{path}: damaged ({error}). Remove it, or save it again.") from error
            warnings.warn(
                f"{path} breaks off after frame {len(self._ends_ms)}; it ends there.", UserWarning, stacklevel=4
            )
            self._image = open_checked(stored, str(path))  # the damage has left the first one in an unknown state
        self.count: int | None = len(self._ends_ms)

    def duration_ms(self) -> float:
        return self._ends_ms[-1] if self._ends_ms else 0.0

    def number_at(self, time_ms: float) -> int:
        return bisect_right(self._ends_ms, time_ms)

    def readable(self) -> int:
        return len(self._ends_ms)

    def read(self, number: int) -> NDArray[np.uint8] | None:
        try:
            self._image.seek(number)
            return flatten(self._image)
        except Exception as error:  # as above
            raise SceneError(f"{self._path}: frame {number} is damaged ({error}). Save it again.") from error


class WebcamScenes:
    """The newest frame of a webcam. A thread reads it all the time, so that no frame waits in a buffer.

    Args:
        device: Number of the camera, 0 the first.
        px_per_deg: Of the camera's pixels; None makes the short side span 27.4 degrees.
        timeout_s: How long to wait for the first frame.

    Raises:
        SceneError: No camera, or no frame from it within ``timeout_s``.
    """

    moving = True
    labels: tuple[str, ...] = ()

    def __init__(self, device: int = 0, *, px_per_deg: float | None = None, timeout_s: float = 5.0) -> None:
        device = check_index(device, 1 << 16)
        resolution(px_per_deg, (1, 1))
        timeout_s = validation.number("timeout_s", timeout_s, 0)
        import cv2

        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error below says it better
        try:
            capture = cv2.VideoCapture(device)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not capture.isOpened():
            raise SceneError(
                f"webcam {device} cannot be opened. Connect one, close other programs that use it, or give a picture "
                "or a video instead."
            )
        self._device = device
        self._px_per_deg = 0.0
        self._newest: NDArray[np.uint8] | None = None
        self._lost = False
        self._warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(capture, cv2), name="webcam", daemon=True)
        self._thread.start()
        until = time.monotonic() + timeout_s
        while self._newest is None and not self._lost and time.monotonic() < until:
            time.sleep(0.005)
        first = self._newest
        if first is None:
            self.close()
            raise SceneError(f"webcam {device} gives no picture within {timeout_s:g} s. Is its cover open?")
        _check_frame(first, f"webcam {device}")
        self._px_per_deg = resolution(px_per_deg, (first.shape[0], first.shape[1]))

    def _run(self, capture: Any, cv2: Any) -> None:
        while not self._stop.is_set():
            good, frame = capture.read()
            if not good:
                self._lost = True
                break
            self._newest = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        capture.release()

    def __repr__(self) -> str:
        return describe_source(self, f"device={self._device}")

    def __len__(self) -> int:
        """Return 1."""
        return 1

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return the newest frame, whatever ``time_ms`` is.

        A camera that was unplugged holds its last frame, with one warning.

        Raises:
            InvalidValueError: ``index`` is not 0.
        """
        check_index(index, 1)
        if self._lost and not self._warned:
            self._warned = True
            warnings.warn(
                f"webcam {self._device} gives no more pictures; its last one is held.", UserWarning, stacklevel=2
            )
        if self._newest is None:  # the first frame was awaited in __init__
            raise SceneError(f"webcam {self._device} has given no picture yet.")
        return Picture(self._newest, -1, f"webcam {self._device}", self._px_per_deg)

    def close(self) -> None:
        """Let go of the camera."""
        self._stop.set()
        self._thread.join(timeout=2.0)
