from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from foveasim.cli.watch import WatchConfig, open_window, watch
from foveasim.drawing.env_render import FrameWindow, display_driver
from foveasim.errors import NoDisplayError
from foveasim.viewer.window import KEYS, FramePacer, Window

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pygame.*")


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Window]]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened: list[Window] = []

    def make(**options: Any) -> Window:
        settings = {"network": None, "size": (360, 640), "folder": str(tmp_path / "captures"), **options}
        opened.append(open_window(WatchConfig(**settings)))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def pacer(self, fps: float = 50) -> FramePacer:
        return FramePacer(fps, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def display_times(time: Time, pacer: FramePacer, work_s: list[float]) -> list[float]:
    """Return when frames are shown, in s from the start, whose drawing takes so long."""
    times = []
    for each in work_s:
        time.now += each
        pacer.wait()
        times.append(round(time.now - 100, 9))
    return times


def test_frames_are_shown_at_equal_distances_however_long_they_took_to_draw() -> None:
    time = Time()
    assert display_times(time, time.pacer(), [0.001, 0.019, 0.002, 0.018]) == [0.02, 0.04, 0.06, 0.08]


def test_a_late_frame_does_not_move_the_others() -> None:
    time = Time()
    assert display_times(time, time.pacer(), [0.005, 0.03, 0.005, 0.005]) == [0.02, 0.05, 0.06, 0.08]


def test_frames_are_not_made_up_for_after_a_stall() -> None:
    time = Time()
    assert display_times(time, time.pacer(), [0.005, 1.0, 0.005, 0.005]) == [0.02, 1.02, 1.04, 1.06]


def test_a_frame_is_drawn_then_waited_for_then_shown(
    window: Callable[..., Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, did = window(agent="raster"), list[str]()
    monkeypatch.setattr(FramePacer, "wait", lambda self: did.append("wait"))
    for name in ("draw", "show"):
        work = getattr(made, name)

        def note(*arguments: float, name: str = name, work: Callable[..., Any] = work) -> Any:
            did.append(name)
            made.running = len(did) < 6
            return work(*arguments)

        monkeypatch.setattr(made, name, note)
    made.run()
    assert did == ["draw", "wait", "show"] * 2


def test_the_window_leaves_no_setting_behind(window: Callable[..., Window]) -> None:
    made, seen = window(agent="raster"), list[tuple[float, int]]()
    before = sys.getswitchinterval(), cv2.getNumThreads()
    show = made.show

    def look() -> None:
        seen.append((sys.getswitchinterval(), cv2.getNumThreads()))
        made.running = False
        show()

    made.show = look  # type: ignore[method-assign]
    made.run()
    assert seen[0] == (pytest.approx(0.0001), 1)
    assert (sys.getswitchinterval(), cv2.getNumThreads()) == before


def press(window: Window, key: str = "", character: str = "") -> None:
    import pygame

    code = getattr(pygame, f"K_{key}") if key else pygame.K_UNKNOWN
    post(window, pygame.KEYDOWN, key=code, unicode=character or (key if len(key) == 1 else ""), mod=0)


def post(window: Window, kind: int, **values: Any) -> None:
    import pygame

    pygame.event.clear()
    pygame.event.post(pygame.event.Event(kind, **values))
    for event in pygame.event.get():
        window.handle(event)


def mouse(window: Window, kind: str, x: float, y: float) -> None:
    import pygame

    values: dict[str, Any] = {"pos": (round(x), round(y))}
    values |= {"rel": (0, 0), "buttons": (1, 0, 0)} if kind == "MOUSEMOTION" else {"button": 1}
    post(window, getattr(pygame, kind), **values)


def settle(window: Window) -> None:
    deadline = time.monotonic() + 10
    while window.session.busy and time.monotonic() < deadline:
        time.sleep(0.002)
        window.session.advance(0)


def test_a_click_moves_the_gaze_through_every_panel(window: Callable[..., Window]) -> None:
    made = window()
    made.tick(16)
    height, width = made.session.size
    for rect in made.layout.images:
        mouse(made, "MOUSEBUTTONDOWN", rect.x + rect.width * 0.25, rect.y + rect.height * 0.75)
        x, y = made.session.gaze_px
        assert abs(x - width * 0.25) <= 2 * width / rect.width
        assert abs(y - height * 0.75) <= 2 * height / rect.height
        mouse(made, "MOUSEBUTTONUP", 0, 0)
    before = made.session.gaze_px
    mouse(made, "MOUSEBUTTONDOWN", made.layout.plot.x + 5, made.layout.plot.y + 5)
    assert made.session.gaze_px == before


def test_dragging_carries_the_gaze_along_and_then_the_agent_goes_on(window: Callable[..., Window]) -> None:
    made = window(agent="raster")
    made.tick(16)
    rect = made.layout.images[0]
    mouse(made, "MOUSEBUTTONDOWN", rect.x + 20, rect.y + 20)
    count = made.session.fixations
    for x in (30, 40, 50):
        mouse(made, "MOUSEMOTION", rect.x + x, rect.y + 20)
    assert made.session.fixations == count
    assert made.session.gaze_px[0] == pytest.approx(50 / rect.width * made.session.size[1])
    mouse(made, "MOUSEMOTION", -500, rect.y + 20)
    assert made.session.gaze_px[0] == 0
    settle(made)
    for _ in range(10):
        made.tick(100)
    assert made.session.fixations == count
    mouse(made, "MOUSEBUTTONUP", 0, 0)
    for _ in range(10):
        settle(made)
        made.tick(100)
    assert made.session.fixations > count
    mouse(made, "MOUSEMOTION", rect.x, rect.y)  # no button is down: nothing moves
    assert made.session.gaze_px != (0, 0)


def test_every_key_does_what_the_help_says(window: Callable[..., Window]) -> None:
    made = window(agent="raster")
    session = made.session
    press(made, "SPACE")
    assert session.paused
    count = session.fixations
    settle(made)
    press(made, "RIGHT")
    for _ in range(5):
        made.tick(100)
    assert (session.fixations, session.paused) == (count + 1, True)
    press(made, "SPACE")
    assert not session.paused
    press(made, "n")
    assert session.index == 1
    press(made, "r")
    assert session.retina.name != "pyramid"
    press(made, "h")
    assert session.heat == "acuity"
    session.set_retina("pyramid")
    press(made, character="+")
    assert session.fovea_scale > 1
    press(made, character="-")
    press(made, character="-")
    assert session.fovea_scale < 1
    press(made, character="]")
    assert session.speed == 2
    press(made, character="[")
    press(made, character="[")
    assert session.speed == 0.5
    press(made, character="?")
    assert made.help
    made.tick(16)
    press(made, character="?")
    assert not made.help
    press(made, "ESCAPE")
    assert not made.running
    named = " ".join(key for key, _ in KEYS)
    for key in ("Space", "right arrow", "N", "R", "H", "+", "-", "[", "]", "S", "V", "drop", "?", "Esc", "click"):
        assert key in named


def test_number_keys_choose_agents_the_human_among_them(window: Callable[..., Window]) -> None:
    made = window()
    assert len(made.agents) == len(set(made.agents)) <= 9
    assert "human" in made.agents
    for number, name in enumerate(made.agents, start=1):
        press(made, str(number))
        assert made.session.current_view().agent == name
        assert name in made.toast


def test_an_agent_of_ones_own_has_a_key(window: Callable[..., Window]) -> None:
    made = window(agent="foveasim.agents.builtin.scripted:Raster")
    assert made.agents[0] == "foveasim.agents.builtin.scripted:Raster"
    assert made.agents[-1] == "human"
    assert len(made.agents) <= 9


def test_screenshots_are_named_and_numbered(window: Callable[..., Window]) -> None:
    made = window()
    for number in (1, 2):
        press(made, "s")
        path = made.folder / f"foveasim-{number:04d}.png"
        assert str(path) in made.toast
        with Image.open(path) as image:
            assert image.size == (640, 360)


def test_a_recording_is_a_whole_movie(window: Callable[..., Window]) -> None:
    import cv2

    made = window()
    press(made, "v")
    assert made.recording
    for _ in range(10):
        made.tick(16)
        time.sleep(0.02)
    press(made, "v")
    assert not made.recording
    (path,) = made.folder.glob("*.mp4")
    movie = cv2.VideoCapture(str(path))
    assert movie.read()[1].shape == (360, 640, 3)
    assert movie.get(cv2.CAP_PROP_FRAME_COUNT) >= 5
    movie.release()
    assert [p.name for p in made.folder.iterdir()] == [path.name]


def test_a_dropped_file_is_looked_at_and_a_bad_one_is_said(window: Callable[..., Window], tmp_path: Path) -> None:
    import pygame

    made = window()
    picture = tmp_path / "dropped.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(picture)
    post(made, pygame.DROPFILE, file=str(picture))
    assert made.session.scene_name.startswith("dropped")
    (tmp_path / "notes.txt").write_text("no picture")
    post(made, pygame.DROPFILE, file=str(tmp_path / "notes.txt"))
    assert "notes.txt" in made.toast
    assert made.session.scene_name.startswith("dropped")
    made.tick(16)


def test_what_cannot_be_saved_is_said(window: Callable[..., Window], tmp_path: Path) -> None:
    made = window()
    (tmp_path / "captures").write_text("a file where the folder should be")
    press(made, "s")
    assert "cannot make the folder" in made.toast
    press(made, "v")
    assert not made.recording
    made.tick(16)


def test_the_picture_follows_the_size_of_the_window(window: Callable[..., Window]) -> None:
    import pygame

    made = window()
    assert made.tick(16).shape == (360, 640, 3)
    pygame.display.set_mode((500, 800), pygame.RESIZABLE)
    assert made.tick(16).shape == (800, 500, 3)
    pygame.display.set_mode((50, 40), pygame.RESIZABLE)
    made.tick(16)


def test_what_is_on_the_screen_is_the_picture(window: Callable[..., Window]) -> None:
    import pygame

    made = window()
    picture = made.tick(16)
    shown = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    assert np.array_equal(shown, picture)


def test_toasts_fade(window: Callable[..., Window], monkeypatch: pytest.MonkeyPatch) -> None:
    made = window()
    made.show_message("hello")
    made.tick(16)
    assert made.toast == "hello"
    later = time.perf_counter() + 60
    monkeypatch.setattr("foveasim.viewer.window.time.perf_counter", lambda: later)
    made.tick(16)
    assert made.toast == ""


def test_run_ends_when_the_window_is_closed(window: Callable[..., Window]) -> None:
    import pygame

    made = window()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    made.run()
    assert not made.running


def test_without_a_display_the_view_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)
    assert display_driver() is None
    assert watch(WatchConfig(network=None, size=(180, 320), seconds=0.3)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foveasim.gif", "foveasim.mp4"]
    said = capsys.readouterr().out
    assert "no display" in said
    assert "foveasim.mp4" in said and "foveasim.gif" in said


def test_headless_records_on_purpose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "frames"
    config = WatchConfig(network=None, size=(180, 320), seconds=0.2, headless=True, out=str(out))
    assert watch(config) == 0
    assert len(list(out.iterdir())) == 6
    assert "no display" not in capsys.readouterr().out


def test_presses_of_r_do_not_pile_up(window: Callable[..., Window], monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    made = window()
    changes: list[Any] = []
    change = made.session.set_retina

    def slow(retina: Any) -> None:
        changes.append(retina)
        for key in (pygame.K_r, pygame.K_h, pygame.K_r):  # what is pressed while it compiles
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
        change(retina)

    monkeypatch.setattr(made.session, "set_retina", slow)
    heat = made.session.heat
    press(made, "r")
    press_r = pygame.event.Event(pygame.KEYDOWN, key=pygame.K_r, unicode="r", mod=0)
    made.handle(press_r)
    assert len(changes) == 1
    waiting = pygame.event.get(pygame.KEYDOWN)
    assert [event.key for event in waiting] in ([], [pygame.K_h])
    for event in waiting:
        made.handle(event)
    made.tick(16)
    made.handle(press_r)
    assert len(changes) == 2
    assert heat != made.session.heat or not waiting


def test_the_limits_of_the_fovea_are_named(window: Callable[..., Window]) -> None:
    made = window(retina="disc")
    for _ in range(12):
        press(made, character="+")
    assert "largest" in made.toast
    assert made.session.fovea_scale == pytest.approx(5**0.5, rel=1e-4)  # hidden_ratio has come down from 0.8 to 0
    made = window(retina="pyramid")
    for _ in range(12):
        press(made, character="-")
    assert "0.25x" in made.toast and "smallest" in made.toast
    made = window(retina="full")
    press(made, character="+")
    assert "stays as it is" in made.toast


def test_a_dropped_folder_says_what_was_skipped(window: Callable[..., Window], tmp_path: Path) -> None:
    import pygame

    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"no picture")
    made = window()
    post(made, pygame.DROPFILE, file=str(folder))
    assert "looking at mixed" in made.toast
    assert "skipped 1 of 2" in made.toast
    assert "\n" not in made.toast


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_sigterm_closes_the_window_and_finishes_the_recording(window: Callable[..., Window]) -> None:
    made = window()
    press(made, "v")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    made.run()
    assert not made.running
    made.close()
    assert [path.suffix for path in made.folder.iterdir()] == [".mp4"]


def test_a_second_frame_window_is_refused_and_the_first_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    first = FrameWindow((120, 160), 60)
    with pytest.raises(NoDisplayError, match="another env shows its window"):
        FrameWindow((120, 160), 60)
    first.show(np.zeros((120, 160, 3), np.uint8))
    first.close()
    second = FrameWindow((120, 160), 60)
    first.close()  # again: the display is no longer its own
    second.show(np.zeros((120, 160, 3), np.uint8))
    del second
    FrameWindow((120, 160), 60).close()
