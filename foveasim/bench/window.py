"""How long the window takes for a frame, and what a run of many lanes takes of memory."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from foveasim.bench.timing import Case, Setting, SkippedError, Spread, spread
from foveasim.drawing.canvas import Image
from foveasim.drawing.env_render import display_driver
from foveasim.drawing.render import render
from foveasim.viewer.compile_kernels import compile_kernels
from foveasim.viewer.config import LookConfig
from foveasim.viewer.window import FPS, Window

__all__ = ["MEMORY_CASE", "frame_spreads", "memory_case", "window_cases"]

_SIZE = (720, 1280)
_LONGER = 5  # a repeat holds so many times the usual seconds: 300 frames, of which a 99th percentile says something
MEMORY_CASE = "memory/4096"
_MEMORY_LANES, _MEMORY_SCENES, _MEMORY_EPISODES = 4096, 100_000, 25


def frame_spreads(repeats: list[list[float]]) -> dict[str, Spread]:
    """Return median and 99th percentile of times, each a median between quartiles over the repeats.

    Example:
        >>> frame_spreads([[1.0, 2.0, 3.0]])["p50"]
        Spread(value=2.0, low=2.0, high=2.0)
    """
    return {f"p{q}": spread([float(np.percentile(times, q)) for times in repeats]) for q in (50, 99)}


class _TimedWindow(Window):
    """A window that notes when its frames were shown and how long each took, and closes after a while."""

    until = 0.0

    def run_for(self, seconds: float) -> None:
        """Show the session for some seconds.

        Raises:
            KeyboardInterrupt: The person ended it: the window takes Ctrl-C for its own.
        """
        self.displayed_s: list[float] = []
        self.work_ms: list[float] = []
        self.until = time.perf_counter() + seconds
        self.running = True
        self.run()
        if time.perf_counter() < self.until:
            raise KeyboardInterrupt

    def draw(self, dt_ms: float) -> Image:
        start = time.perf_counter()
        picture = super().draw(dt_ms)
        self.work_ms.append(1000 * (time.perf_counter() - start))
        return picture

    def show(self) -> None:
        super().show()
        self.displayed_s.append(time.perf_counter())
        self.running = self.running and self.displayed_s[-1] < self.until


@contextmanager
def _screen() -> Iterator[None]:
    """See that there is a display: the person's own, or Xvfb's for as long as the block lasts.

    Raises:
        SkippedError: There is neither.
    """
    if display_driver() is not None:
        yield
        return
    if "SDL_VIDEODRIVER" in os.environ or shutil.which("Xvfb") is None:
        raise SkippedError("there is no display: unset SDL_VIDEODRIVER and install Xvfb, or run it in a desktop")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{_SIZE[1]}x{_SIZE[0]}x24", "-nolisten", "tcp"]
    before, quiet = os.environ.get("DISPLAY"), subprocess.DEVNULL
    # In a session of its own, Ctrl-C in the terminal does not end it under the window's feet.
    server = subprocess.Popen(command, pass_fds=(write,), stdout=quiet, stderr=quiet, start_new_session=True)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise SkippedError("Xvfb did not start")
        os.environ["DISPLAY"] = f":{number}"
        if display_driver() is None:
            raise SkippedError("pygame found no display on Xvfb")
        yield
    finally:
        _leave_display()
        os.environ.pop("DISPLAY", None)
        if before is not None:
            os.environ["DISPLAY"] = before
        server.terminate()
        server.wait()


def _leave_display() -> None:
    """Close pygame's connection, if there is one: Xlib ends a process whose server is gone."""
    import pygame

    pygame.display.quit()


def _window(setting: Setting) -> dict[str, Spread]:
    """Time the window itself, as ``foveasim watch`` opens it, the unet predicting beside it."""
    config, seconds = LookConfig(seed=setting.seed), _LONGER * setting.seconds
    between, work = [], []
    with _screen():
        compile_kernels()
        window = _TimedWindow(config.open_session(threaded=True), size=_SIZE)
        try:
            window.run_for(seconds / 2)
            for _ in range(setting.repeats):
                window.run_for(seconds)
                between.append((1000 * np.diff(window.displayed_s)).tolist())
                work.append(window.work_ms)
        finally:
            window.close()
    return {
        **{f"interval/{name}": figure for name, figure in frame_spreads(between).items()},
        **{f"work/{name}": figure for name, figure in frame_spreads(work).items()},
    }


def _headless(setting: Setting) -> dict[str, Spread]:
    """Time what the window does for a frame but showing it, as quick as it goes; each frame is 1/60 s of its time."""
    compile_kernels()
    session = LookConfig(seed=setting.seed).open_session(threaded=True)
    try:
        repeats = []
        for number in range(setting.repeats + 1):
            times: list[float] = []
            until = time.perf_counter() + _LONGER * setting.seconds * (1 if number else 0.5)
            while not times or time.perf_counter() < until:
                start = time.perf_counter()
                session.advance(1000 / FPS)
                render(session.current_view(), _SIZE)
                times.append(1000 * (time.perf_counter() - start))
            repeats.append(times)
    finally:
        session.close()
    return frame_spreads(repeats[1:])


def window_cases() -> list[Case]:
    """Return the frame times of the window, with and without a screen."""
    height, width = _SIZE
    about = f"a frame of {width}x{height}, prediction on"
    return [
        Case("window/headless", f"{about}, drawn and not shown", "ms", _headless),
        Case("window/real", f"{about}, in the window, between frames and at work", "ms", _window),
    ]


def _memory(lanes: int, scenes: int, episodes: int, setting: Setting) -> dict[str, Spread]:
    """Run many lanes in a process of its own and ask for the most memory that it ever held."""
    if sys.platform == "win32":
        raise SkippedError("peak memory is read from getrusage, which Windows lacks")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.raw"
        numbers = [str(number) for number in (lanes, scenes, episodes, setting.seed)]
        command = [sys.executable, "-m", "foveasim.bench.envs", str(path), *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SkippedError(f"its process ended with {done.returncode}: {(done.stderr.strip() or '?').splitlines()[-1]}")
    peak = float(done.stdout)
    return {"": Spread(peak, peak, peak)}


def memory_case(lanes: int = _MEMORY_LANES, scenes: int = _MEMORY_SCENES, episodes: int = _MEMORY_EPISODES) -> Case:
    """Return the case of how much host memory a run takes whose scenes are in a memory-mapped file.

    Args:
        lanes: B.
        scenes: In the file, 96x96.
        episodes: That every lane plays.
    """
    about = f"most memory held: {lanes:,} lanes, {scenes:,} scenes of 96x96 in a mapped file, {episodes} episodes"
    return Case(f"memory/{lanes}", about, "MB", functools.partial(_memory, lanes, scenes, episodes))
