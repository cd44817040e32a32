"""One eye at two resolutions: what is shown is what the agent gets, in degrees; and scenes that cannot be shown."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveasim.errors import AgentError, SceneError
from foveasim.eye.retina import make_retina
from foveasim.eye.saccade import Saccades
from foveasim.images.picture import Picture
from foveasim.scenes.search import SearchScenes
from foveasim.scenes.source import open_scenes
from foveasim.viewer.display_eye import DisplayEye, ScenePreloader
from foveasim.viewer.session import Session


def display_eye(retina: str, scenes: object = "photos", **options: object) -> DisplayEye:
    return DisplayEye(open_scenes(scenes), 0, make_retina(retina, **options), saccades=Saccades())


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.sqrt(((a.astype(float) - b) ** 2).mean()))


def shrunk(image: NDArray[np.uint8], like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, like.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.parametrize("place", [(0.5, 0.5), (0.2, 0.7), (0.0, 0.0)])
def test_the_eye_shows_what_the_agent_gets(place: tuple[float, float]) -> None:
    eye = display_eye("pyramid")
    eye.start_saccade((place[0] * eye.size[1], place[1] * eye.size[0]))
    eye.sense(100.0)
    seen = eye.observation(1.0)
    glimpse, scene = seen["glimpse"][0], seen["scene"][0]
    assert eye.size == (512, 512) and glimpse.shape[:2] == (96, 96)
    # Measured: 4.5 grey levels at the centre; 36 when both had the same e2 in degrees, blurred relative to the pixel.
    assert difference(shrunk(eye.glimpse, glimpse), glimpse) < 0.2 * difference(glimpse, scene)
    column, row = (min(int(v), 511) for v in eye.fixation_px)
    assert np.array_equal(eye.glimpse[row, column], eye.scene[row, column])


def test_lengths_in_pixels_are_shown_at_the_size_of_the_agent() -> None:
    for eye in (display_eye("patches"), display_eye("window", size_deg=None), display_eye("pyramid", preset="paper")):
        eye.start_saccade((10.0, 20.0))
        eye.start_saccade((30.0, 50.0))  # a saccade that is interrupted
        eye.sense(100.0)
        seen = eye.observation(1.0)
        assert eye.size == (96, 96)
        assert np.array_equal(eye.glimpse, seen["glimpse"][0])
        assert np.array_equal(eye.acuity, seen["belief_acuity"][0, :, :, 0])


def test_a_retina_at_another_scale() -> None:
    pyramid = make_retina("pyramid").at_scale(4.0)
    assert pyramid == make_retina("pyramid", half_deg=0.575, levels=8)
    assert make_retina("pyramid").at_scale(0.25) == make_retina("pyramid", half_deg=9.2, levels=4)
    for name in ("disc", "two_spot", "full", "window", "multiscale", "log_polar"):
        assert make_retina(name).at_scale(5.0) == make_retina(name)
    assert make_retina("disc", fill="blur").at_scale(2.0) is None
    with pytest.raises(ValueError, match="factor"):
        make_retina("disc").at_scale(0.0)


def test_the_fovea_is_that_of_the_agent() -> None:
    eye = display_eye("pyramid")
    # Half acuity lies at e2 = 2.3 degrees; the short side, 512 px, spans 27.4.
    assert eye.fovea_px == pytest.approx(2.3 * 512 / 27.43, abs=512 / 96)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in (("a", (8, 300)), ("b", (60, 80)), ("c", (400, 40)), ("d", (40, 320))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_scenes_that_cannot_be_shown_are_skipped_and_named(folder: Path) -> None:
    session = Session(folder, "human", threaded=False)
    assert session.scene_name.startswith("b")
    assert (
        session.status_message.startswith("scenes skipped: 1.")
        and "300 x 8 px is too long and thin" in session.status_message
    )
    assert session.current_view().alert == session.status_message and session.alert == ""
    session.next_scene()
    assert session.scene_name.startswith("d") and session.size == (40, 320)
    assert "40 x 400" in session.status_message
    session.advance(7000)
    assert session.status_message == ""
    session.next_scene()
    assert session.scene_name.startswith("b") and session.status_message == ""  # said once


def test_only_without_any_usable_scene_is_there_an_error(folder: Path) -> None:
    for name in "bd":
        (folder / f"{name}.png").unlink()
    with pytest.raises(SceneError, match=r"none of 2 scenes.*too long and thin"):
        Session(folder, "human", threaded=False)
    session = Session(np.zeros((40, 40, 3), np.uint8), "human", threaded=False)
    with pytest.raises(SceneError, match=r"^a.*300 x 8"):
        session.load_file(folder / "a.png")
    assert session.scene_name == "array 0"
    session.next_scene()


class Sized:
    """Takes scenes of 40 x 48 px only, and chooses a cell of a 2 x 3 grid."""

    action_mode = "grid"
    size: Any = (40, 48)
    grid: Any = (2, 3)

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        pass

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.int64]:
        self.shapes.add(observation["glimpse"].shape)
        return np.array([5])


def test_an_agent_that_takes_one_size_gets_it() -> None:
    agent = Sized()
    session = Session(np.zeros((100, 300, 3), np.uint8), "raster", threaded=False)
    session.point(30, 70)
    session.set_agent(agent)
    assert (session.gaze_px, session.fixations, session.alert) == ((30, 70), 1, "")
    session.advance(600)
    assert agent.shapes == {(1, 40, 48, 3)}
    assert session.scanpaths()[-1].fixation_px[1].tolist() == pytest.approx([250, 75])
    session.set_agent("centre")
    assert session.fixations == 1
    assert session.current_view().heat is not None
    assert math.isfinite(session.errors[0])


def test_a_size_that_cannot_be_had_is_refused() -> None:
    session = Session(np.zeros((100, 300, 3), np.uint8), "raster", threaded=False)
    for attribute, value in (("size", 5), ("size", (4, 4)), ("grid", (0, 3))):
        agent = Sized()
        setattr(agent, attribute, value)
        with pytest.raises(AgentError, match="Sized"):
            session.set_agent(agent)
    session.set_retina(make_retina("pyramid", preset="paper"))
    with pytest.raises(AgentError, match="Sized cannot look at this scene"):
        session.set_agent(Sized())
    assert type(session.agent).__name__ == "Raster"
    session.advance(1000)
    assert session.fixations > 1


class Watched:
    """Pictures of noise, and which thread asked for which; the first cannot be read."""

    moving = False
    labels: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.requests: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return 4

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        self.requests.append((index, threading.current_thread().name))
        if index == 0:
            raise SceneError("scene 0 is torn")
        image = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        return Picture(image, -1, f"noise {index}", 3.5)


def test_what_was_opened_ahead_is_what_would_have_been_opened() -> None:
    eye, plain, early = make_retina("disc"), ScenePreloader(Saccades(), None, 0), ScenePreloader(Saccades(), None, 0)
    source = Watched()
    early.preload(source, 0, eye, None)
    early.close()
    requests = len(source.requests)
    assert {name for _, name in source.requests} == {"foveasim-preloader"}
    index, got, unusable = early.open_first_usable(source, 0, make_retina("disc"), None)
    assert len(source.requests) == requests  # nothing was opened again
    want = plain.open_first_usable(Watched(), 0, eye, None)
    assert (index, unusable) == (want[0], want[2]) == (1, ["scene 0 is torn"])
    assert np.array_equal(got.glimpse, want[1].glimpse)
    early.open_first_usable(source, 0, eye, None)
    assert len(source.requests) > requests  # it is given out once


@pytest.mark.parametrize("other", ["start", "retina", "size", "source"])
def test_what_was_opened_ahead_for_something_else_is_not_used(other: str) -> None:
    source, preloader, eye = Watched(), ScenePreloader(Saccades(), None, 0), make_retina("disc")
    preloader.preload(source, 1, eye, None)
    start, retina = (2 if other == "start" else 1), (make_retina("pyramid") if other == "retina" else eye)
    requests = Watched() if other == "source" else source
    index, got, _ = preloader.open_first_usable(requests, start, retina, (64, 96) if other == "size" else None)
    assert requests.requests[-1] == (start, "MainThread")
    assert (index, got.retina) == (start, retina)


def test_what_cannot_be_opened_ahead_is_said_to_whoever_asks() -> None:
    class Torn(Watched):
        def picture(self, index: int, time_ms: float = 0.0) -> Picture:
            raise SceneError(f"scene {index} is torn")

    source, preloader, eye = Torn(), ScenePreloader(Saccades(), None, 0), make_retina("disc")
    preloader.preload(source, 1, eye, None)
    with pytest.raises(SceneError, match=r"none of 4 scenes can be used\. The first: scene 1 is torn"):
        preloader.open_first_usable(source, 1, eye, None)


def test_a_session_beside_a_window_opens_the_next_scene_on_the_last_fixation() -> None:
    source = Watched()
    session = Session(source, "raster", "disc", budget=2, dwell_ms=100, threaded=True)
    before = [index for index, name in source.requests if name == "foveasim-preloader"]
    assert (session.scene_name, before) == ("noise 1", [])
    deadline = time.monotonic() + 10
    while session.fixations < 2 and time.monotonic() < deadline:
        session.advance(10)
    session.set_paused(True)
    session._preloader.close()
    assert {index for index, name in source.requests if name == "foveasim-preloader"} == {2}
    opened = len(source.requests)
    session.next_scene()
    assert (session.scene_name, len(source.requests)) == ("noise 2", opened)
    session.close()


@pytest.mark.parametrize("threaded", [True, False])
def test_beside_a_window_what_is_seen_is_shown_a_frame_after_the_landing(threaded: bool) -> None:
    session = Session(Watched(), "raster", "disc", dwell_ms=100, threaded=threaded)
    before = session.current_view()
    while session.fixations < 2:
        session.advance(5)
        time.sleep(0.001)
    landed = session.current_view()
    assert np.array_equal(landed.glimpse, before.glimpse) == threaded
    assert np.array_equal(landed.belief, before.belief) == threaded
    session.advance(1)
    after = session.current_view()
    assert not np.array_equal(after.glimpse, before.glimpse)
    assert not np.array_equal(after.belief, before.belief)
    session.point(5, 5)
    assert not np.array_equal(session.current_view().glimpse, after.glimpse)  # a person sees at once where they point
    session.close()


# what is to be found


def test_a_target_is_found_by_moving_onto_it_as_in_the_env() -> None:
    scenes = SearchScenes(kinds="colour", set_sizes=(4,))
    display = scenes.display(0)
    x, y = display.items_px[0].tolist()
    eye = display_eye("pyramid", scenes)
    assert eye.target is not None and eye.target.shape == (18, 18, 3)  # one and a half items of 12 px
    assert np.array_equal(eye.observation(1.0)["target"], display.target[None])
    assert not eye.found
    for away, found in ((display.radius_px + 0.1, False), (display.radius_px - 0.1, True)):
        eye.start_saccade((x + away * (1 if x < 48 else -1), y))
        assert eye.found == found
    resting = DisplayEye(scenes, 0, make_retina("pyramid"), saccades=Saccades(), fixation_norm=(x / 48 - 1, y / 48 - 1))
    assert not resting.found


def test_a_target_is_as_large_as_the_agent_sees_the_scene() -> None:
    display = (large := SearchScenes(kinds="colour", size=(384, 512), set_sizes=(4,))).display(0)
    eye = display_eye("pyramid", large)
    (target,) = eye.observation(1.0)["target"]
    assert eye.size == (384, 512) and target.shape == (36, 36, 3)
    own = (np.abs(target.astype(int) - 128).max(2) > 8).sum()
    area = math.pi * (display.radius_px / 4) ** 2 if own < 140 else (display.radius_px / 2) ** 2  # a disc or a square
    assert own == pytest.approx(area, rel=0.2)
    eye.start_saccade((float(display.items_px[0, 0]), float(display.items_px[0, 1])))
    assert eye.found


def test_other_scenes_have_no_target() -> None:
    eye = display_eye("disc")
    eye.start_saccade((10.0, 10.0))
    assert eye.target is None and not eye.found and "target" not in eye.observation(1.0)


class Finds:
    """Knows where the target lies, and looks beside it first."""

    needs = ("target",)

    def __init__(self, scenes: SearchScenes) -> None:
        self.scenes, self.seen, self.shapes = scenes, -1, list[tuple[int, ...]]()

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        self.seen, self.requests = self.seen + 1, 0

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        self.shapes.append(observation["target"].shape)
        self.requests += 1
        x, y = self.scenes.display(self.seen).items_px[0] / 48 - 1
        return np.array([(0.0, 0.0) if self.requests == 1 else (x, y)], np.float32)


def test_a_search_goes_on_to_the_next_display_when_the_target_is_found() -> None:
    scenes = SearchScenes(kinds="colour")
    agent = Finds(scenes)
    session = Session(scenes, agent, "disc", dwell_ms=100, threaded=False)
    states = []
    for _ in range(120):
        view = session.current_view()
        states.append((session.scene_name, session.fixations, view.found))
        assert view.target is not None
        session.advance(10)
    assert set(agent.shapes) == {(1, 36, 36, 3)}
    assert ("search 0", 2, False) in states and ("search 0", 3, True) in states and ("search 1", 1, False) in states
    assert not any(name == "search 0" and count > 3 for name, count, _ in states)
    assert sum(entry == ("search 0", 3, True) for entry in states) >= 29  # time to take it in: three dwells


def test_who_looks_for_a_target_says_so_before_scenes_without_one() -> None:
    session = Session("noise", "seek", threaded=False)
    assert "looks for a 'target'" in session.alert and "--scenes search" in session.alert
