"""The window itself: pygame shows a session and passes on what the person does."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from foveasim.drawing.canvas import Image, disc, ring
from foveasim.drawing.layout import MIN_SIDE_PX, Layout
from foveasim.drawing.movie import Mp4Movie, save_png
from foveasim.drawing.render import GAZE, INK, View, layout_of, render
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.eye.retina import RETINAS
from foveasim.runs.interrupts import InterruptFlag
from foveasim.viewer.config import reachable_fovea
from foveasim.viewer.session import Session

__all__ = ["KEYS", "FramePacer", "Window"]

FPS = 60
_MOVIE_FPS = 30
_TOAST_S = 2.5
_LONGEST_STEP_MS = 100.0  # after a stall (the window was dragged, the machine slept) time goes on, it does not leap
_FOVEA_STEP = 2**0.25
_HUMAN = "human"  # whoever else has to give way, the person keeps a key

KEYS: tuple[tuple[str, str], ...] = (
    ("click, drag", "move the gaze"),
    ("Space", "pause, go on"),
    ("right arrow", "one fixation"),
    ("N", "next scene"),
    ("R", "next retina"),
    ("H", "heat map: error, acuity, uncertainty"),
    ("+  -", "size of the fovea"),
    ("[  ]", "slower, faster"),
    ("S", "screenshot"),
    ("V", "record video, stop"),
    ("drop a file", "look at it"),
    ("?", "this help"),
    ("Esc", "quit"),
)
"""The controls and what they do; the agents of the keys 1 to 9 come on top."""

_AGENT_KEYS = (
    *("uncertainty", "information", "surprise", "saliency", "scanpath", "random", "walk", "spiral"),
    _HUMAN,
)
"""Agents of the keys 1 to 9."""


class FramePacer:
    """Waits until the next frame is due: frames are due at equal distances.

    A late frame moves none of those after it, unless it is so late that the next one would be late as well.

    Args:
        fps: Frames per second.
        clock: Returns the time, s.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        fps: float,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._period_s, self._clock, self._sleep = 1 / fps, clock, sleep
        self._due_s = clock()

    def wait(self) -> None:
        """Return when the next frame is due, at once where it is late."""
        self._due_s += self._period_s
        left = self._due_s - self._clock()
        if left > 0:
            self._sleep(left)
        elif left < -self._period_s:
            self._due_s -= left


class Window:
    """A pygame window on a session.

    Args:
        session: What to show; it should think beside the window (``threaded``). The window closes it.
        size: (H, W) of the window, px.
        fullscreen: Fill the screen instead.
        folder: Where screenshots and videos go.
        agent: The name by which the session's agent was asked for, for the keys 1 to 9.
    """

    def __init__(
        self,
        session: Session,
        *,
        size: tuple[int, int] = (720, 1280),
        fullscreen: bool = False,
        folder: str | Path = ".",
        agent: str = "saliency",
    ) -> None:
        import pygame

        self._pygame = pygame
        self.folder = Path(folder)
        self.session = session
        pygame.display.init()
        pygame.display.set_icon(pygame.image.frombuffer(_icon().tobytes(), (64, 64), "RGB"))
        flags = pygame.RESIZABLE | (pygame.FULLSCREEN if fullscreen else 0)
        pygame.display.set_mode((0, 0) if fullscreen else (size[1], size[0]), flags)
        pygame.display.set_caption("foveasim")
        pygame.key.set_repeat(400, 120)
        self.agents = _agents(agent)
        self.running = True
        self.fps: float | None = None
        self.toast = ""
        self.help = False
        self._toast_until = 0.0
        self._movie: Mp4Movie | None = None
        self._movie_due = 0.0
        self._dragging: int | None = None
        self._retina_changed = False
        self._view = self.session.current_view()

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of what can be drawn on, px."""
        width, height = self._pygame.display.get_surface().get_size()
        return max(MIN_SIDE_PX, height), max(MIN_SIDE_PX, width)

    @property
    def layout(self) -> Layout:
        """Where the panels lie."""
        return layout_of(self._view, self.size)

    @property
    def recording(self) -> bool:
        """Whether a video is being recorded."""
        return self._movie is not None

    def run(self) -> None:
        """Show the session until the window is closed."""
        switching, threads = sys.getswitchinterval(), cv2.getNumThreads()
        # An agent written in Python may hold the interpreter no longer than that: a frame asks for it about 60 times.
        sys.setswitchinterval(0.0001)
        cv2.setNumThreads(1)  # a frame would wait for threads that wait for a core which the mind has
        stop = InterruptFlag()
        stop.graceful = True
        try:
            with stop.listening():
                self._loop(stop)
        except KeyboardInterrupt:
            pass  # Ctrl-C in the terminal closes the window like Esc
        finally:
            sys.setswitchinterval(switching)
            cv2.setNumThreads(threads)

    def _loop(self, stop: InterruptFlag) -> None:
        clock, pacer = self._pygame.time.Clock(), FramePacer(FPS)
        before = time.perf_counter()
        while self.running and not stop.requested:
            for event in self._pygame.event.get():
                self.handle(event)
            now = time.perf_counter()
            self.draw((now - before) * 1000)
            before = now
            pacer.wait()  # before it is shown, not after: then a frame that took longer to draw is not shown later
            self.show()
            clock.tick()
            self.fps = clock.get_fps() or None
        self.running = False

    def tick(self, dt_ms: float) -> Image:
        """Let time pass and show the next frame at once; returns it, (H, W, 3) uint8."""
        picture = self.draw(dt_ms)
        self.show()
        return picture

    def draw(self, dt_ms: float) -> Image:
        """Let time pass and draw the next frame, without showing it yet; returns it, (H, W, 3) uint8."""
        self._retina_changed = False
        try:
            self.session.advance(min(dt_ms, _LONGEST_STEP_MS))
        except FoveasimError as error:
            self.show_message(str(error))
        if time.perf_counter() > self._toast_until:
            self.toast = ""
        self._view = self._full_view()
        picture = render(self._view, self.size)
        if self._movie is not None:
            self._add_to_movie(picture)
        surface = self._pygame.display.get_surface()
        frame = self._pygame.image.frombuffer(picture.data, picture.shape[1::-1], "RGB")
        surface.blit(frame, (0, 0))
        self.session.poll_agent()  # now, for what the eye sees when it lands takes long to draw, on the same cores
        return picture

    def show(self) -> None:
        """Show what was drawn last."""
        self._pygame.display.flip()

    def _full_view(self) -> View:
        return replace(
            self.session.current_view(),
            fps=self.fps,
            recording=self.recording,
            toast=self.toast,
            help=self._help_rows() if self.help else (),
        )

    def _help_rows(self) -> tuple[tuple[str, str], ...]:
        named = [f"{i + 1} {name}" for i, name in enumerate(self.agents)]
        half = (len(named) + 1) // 2
        agents = (("1 - 9", "agent: " + "  ".join(named[:half])), ("", "  ".join(named[half:])))
        return (*KEYS[:4], *agents, *KEYS[4:])

    def show_message(self, message: str) -> None:
        """Show a short message for a while."""
        self.toast = message
        self._toast_until = time.perf_counter() + max(_TOAST_S, 0.05 * len(message))

    # What the person does

    def handle(self, event: Any) -> None:
        """Do what a pygame event asks for. What goes wrong is shown in the window, which stays open."""
        pygame = self._pygame
        try:
            if event.type == pygame.QUIT:
                self.running = False
            elif event.type == pygame.KEYDOWN:
                self._press(event.key, getattr(event, "unicode", ""))
            elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                self._grab(*event.pos)
            elif event.type == pygame.MOUSEMOTION and self._dragging is not None:
                self._drag(*event.pos)
            elif event.type == pygame.MOUSEBUTTONUP and event.button == 1:
                self._dragging = None
                self.session.hold(False)
            elif event.type == pygame.DROPFILE:
                self._look_at(Path(event.file))
        except FoveasimError as error:
            self.show_message(str(error))

    def _look_at(self, path: Path) -> None:
        with warnings.catch_warnings(record=True) as caught:  # files that were skipped
            warnings.simplefilter("always", UserWarning)
            self.session.load_file(path)
        self.show_message(
            "; ".join([f"looking at {path.name}", *(one_line(str(warning.message)) for warning in caught)])
        )

    def _grab(self, x: float, y: float) -> None:
        panel = self.layout.panel_at(x, y)
        point = self.layout.scene_point(x, y, self.session.size)
        if panel is not None and point is not None:
            self._dragging = panel
            self.session.hold(True)
            self.session.point(*point)

    def _drag(self, x: float, y: float) -> None:
        if self._dragging is not None and self._dragging < len(self.layout.images):
            point = self.layout.scene_point_clamped(x, y, self.session.size, self._dragging)
            self.session.point(*point, drag=True)

    def _press(self, key: int, character: str) -> None:
        pygame = self._pygame
        session = self.session
        if key == pygame.K_ESCAPE:
            self.running = False
        elif key == pygame.K_SPACE:
            session.set_paused(not session.paused)
        elif key == pygame.K_RIGHT:
            session.single_step()
        elif key == pygame.K_n:
            session.next_scene()
        elif key == pygame.K_r:
            self._next_retina()
        elif key == pygame.K_h:
            self.show_message(f"heat map: {session.next_heat()}")
        elif key == pygame.K_s:
            self._screenshot()
        elif key == pygame.K_v:
            self._toggle_movie()
        elif character == "?" or key == pygame.K_F1:
            self.help = not self.help
        elif character in ("+", "=") or key == pygame.K_KP_PLUS:
            self._scale_fovea(_FOVEA_STEP)
        elif character in ("-", "_") or key == pygame.K_KP_MINUS:
            self._scale_fovea(1 / _FOVEA_STEP)
        elif character in ("[", "]"):
            self.show_message(f"speed {session.change_speed(1 if character == ']' else -1):g}")
        elif character and character in "123456789":
            self._choose_agent(int(character) - 1)

    def _choose_agent(self, number: int) -> None:
        if number >= len(self.agents):
            raise InvalidValueError(f"there are {len(self.agents)} agents, keys 1 to {len(self.agents)}.")
        self.session.set_agent(self.agents[number])
        hint = ": click or drag to look" if self.agents[number] == _HUMAN else ""
        self.show_message(f"agent {self.agents[number]}{hint}")

    def _next_retina(self) -> None:
        """Change to the next retina. Presses of R that came in meanwhile are dropped, not caught up with."""
        if self._retina_changed:
            return
        self._retina_changed = True
        names = RETINAS.names()
        now = self.session.retina.name
        at = names.index(now) if now in names else -1
        self.session.set_retina(names[(at + 1) % len(names)])
        self.show_message(f"retina {self.session.retina.name}")
        pygame = self._pygame
        for event in pygame.event.get(pygame.KEYDOWN):
            if event.key != pygame.K_r:
                pygame.event.post(event)

    def _scale_fovea(self, factor: float) -> None:
        session = self.session
        before, eye = session.fovea_scale, session.retina
        if eye.scaled(2.0) == eye and eye.scaled(0.5) == eye:
            self.show_message(f"the fovea of {eye.name} stays as it is")
        elif eye.scaled(factor) == eye:  # a disc that hides nothing cannot grow
            self.show_message(f"the fovea of {eye.name} is at its {'largest' if factor > 1 else 'smallest'}")
        elif not session.scale_fovea(reachable_fovea(eye, factor)):
            self.show_message(f"fovea {before:.2f}x is the {'largest' if factor > 1 else 'smallest'}")
        else:
            reached = reachable_fovea(eye, factor) != factor
            end = "" if not reached else f", its {'largest' if factor > 1 else 'smallest'}"
            self.show_message(f"fovea {session.fovea_scale:.2f}x{end}")

    def _screenshot(self) -> None:
        view = replace(self._full_view(), toast="", help=())
        path = self._free_name("png")
        try:
            save_png(path, render(view, self.size))
        except OSError as error:
            raise FoveasimError(f"cannot write {path}: {error.strerror or error}.") from error
        self.show_message(f"saved {path}")

    def _toggle_movie(self) -> None:
        if self._movie is None:
            self._movie = Mp4Movie(self._free_name("mp4"), _MOVIE_FPS, self.size)
            self._movie_due = time.perf_counter()
            self.show_message("recording; V stops")
        else:
            movie, self._movie = self._movie, None
            path = movie.close()
            self.show_message(f"saved {path}" if path else "nothing was recorded")

    def _add_to_movie(self, picture: Image) -> None:
        """Add as many frames as are due, so that the video runs as fast as the window did."""
        movie = self._movie
        if movie is None:
            return
        now = time.perf_counter()
        try:
            while self._movie_due <= now:
                movie.add(picture if picture.shape[:2] == movie.size else render(self._view, movie.size))
                self._movie_due += 1 / _MOVIE_FPS
        except FoveasimError as error:
            self._movie = None
            self.show_message(str(error))

    def _free_name(self, suffix: str) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FoveasimError(f"cannot make the folder {self.folder}: {error.strerror}.") from error
        numbered = (self.folder / f"foveasim-{number:04d}.{suffix}" for number in count(1))
        return next(path for path in numbered if not os.path.lexists(path))

    def close(self) -> None:
        """Finish a recording, end the session and close the window."""
        try:
            if self._movie is not None:
                self._toggle_movie()
        finally:
            self.session.close()
            self._pygame.display.quit()


def _icon() -> Image:
    """Return the window's icon: a fovea and its fixation, (64, 64, 3) uint8."""
    icon = np.full((64, 64, 3), INK, np.uint8)
    ring(icon, 32, 32, 22, GAZE, 5)
    disc(icon, 32, 32, 8, GAZE)
    return icon


def one_line(message: str) -> str:
    """Join the lines of a message."""
    return " ".join(message.split())


def _agents(first: str) -> list[str]:
    """Return the agents of the keys 1 to 9: the one that was asked for, where it is not among the usual, and those."""
    if first in _AGENT_KEYS:
        return list(_AGENT_KEYS)
    return [first, *_AGENT_KEYS[: len(_AGENT_KEYS) - 2], _HUMAN]
