from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveasim.agents.builtin.human import Human
from foveasim.errors import AgentError, FoveasimError, InvalidTypeError, InvalidValueError, SceneError, UnknownNameError
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades
from foveasim.types import Prediction
from foveasim.viewer.display_eye import DISPLAY_LONG_SIDE_PX
from foveasim.viewer.session import Session


class Corners:
    """Looks at the corners in turn and notes what it saw."""

    def __init__(self) -> None:
        self.resets = 0
        self.seen: list[dict[str, Any]] = []

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        assert lanes.shape == (1,)
        self.resets += 1

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        self.seen.append(dict(observation))
        return np.array([[(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)][len(self.seen) % 4]], np.float32)


class Grey:
    """Predicts mid-grey, with an uncertainty."""

    def imagine(self, observation: Mapping[str, Any]) -> Prediction:
        shape = observation["belief"].shape
        return Prediction(torch.full(shape, 0.5), torch.full(shape[:3], 0.1))


def noise(count: int = 3, size: tuple[int, int] = (120, 180)) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (count, *size, 3), np.uint8)


def make(agent: object = None, scenes: object = None, **options: Any) -> Session:
    options.setdefault("threaded", False)
    return Session(noise() if scenes is None else scenes, Corners() if agent is None else agent, "disc", **options)


def test_time_makes_fixations_and_saccades() -> None:
    session = make(dwell_ms=200, px_per_deg=4.0)
    assert (session.fixations, session.gaze_px, session.in_flight) == (1, (90, 60), False)
    session.advance(199)
    assert not session.in_flight
    session.advance(2)
    assert session.in_flight
    session.advance(1000)
    (path,) = session.scanpaths()
    # From (90, 60) to (135, 30): 13.5 degrees, so 2.2 * 13.5 + 21 ms.
    amplitude = math.hypot(45, 30) / 4
    assert path.fixation_px[1].tolist() == [135, 30]
    assert path.duration_ms[:2].tolist() == pytest.approx([200, 200])
    assert float(path.onset_ms[1]) == pytest.approx(200 + 2.2 * amplitude + 21, abs=1e-3)


def test_a_saccade_is_a_smooth_movement_on_a_straight_line() -> None:
    session = make(dwell_ms=100)
    session.advance(100.001)
    places = []
    while session.in_flight:
        places.append(session.gaze_px)
        session.advance(2)
    along = np.array([(x - 90) / 45 for x, _ in places])
    across = np.array([(60 - y) / 30 for _, y in places])
    assert len(places) > 10
    assert np.allclose(along, across, atol=1e-5)
    assert (np.diff(along) > 0).all()
    steps = np.diff(along)
    assert steps[len(steps) // 2] > 3 * steps[0]


def test_frames_do_not_change_what_happens() -> None:
    one, many = make(), make()
    one.advance(3000)
    for _ in range(300):
        many.advance(10)
    a, b = one.scanpaths(), many.scanpaths()
    assert torch.equal(a[0].fixation_px, b[0].fixation_px)
    assert torch.allclose(a[0].onset_ms, b[0].onset_ms, atol=0.01)


def test_the_same_seed_repeats_every_picture() -> None:
    def run() -> list[NDArray[np.uint8]]:
        session = Session(noise(), "random", "patches", Grey(), seed=3, threaded=False, saccades=Saccades(scatter=0.1))
        panels = []
        for _ in range(30):
            session.advance(60)
            view = session.current_view()
            assert view.prediction is not None
            panels += [view.glimpse, view.prediction]
        return panels

    assert all(np.array_equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_the_agent_sees_small_and_only_what_it_may() -> None:
    agent = Corners()
    session = make(agent, budget=4)
    session.advance(1500)
    assert agent.resets == 1
    first, second = agent.seen[:2]
    assert set(first) == {"glimpse", "acuity", "fixation", "time"}
    assert first["glimpse"].shape == (1, 96, 144, 3)
    assert first["fixation"].tolist() == [[0, 0]]
    assert second["fixation"] == pytest.approx(np.array([[0.5, -0.5]]), abs=1e-6)
    assert [float(seen["time"][0, 0]) for seen in agent.seen[:3]] == [1, 0.75, 0.5]
    hidden = first["acuity"][0, :, :, 0] == 0
    assert hidden.any()
    assert len(np.unique(first["glimpse"][0][hidden], axis=0)) == 1


def test_needs_are_met() -> None:
    class Needy(Corners):
        needs = ("belief", "scene")

    agent = Needy()
    make(agent)
    assert {"belief", "belief_acuity", "scene"} <= set(agent.seen[0])


@pytest.mark.parametrize(("mode", "action", "landing"), [("relative", [[0.5, 0.0]], (135, 60)), ("grid", [0], (11, 8))])
def test_other_action_modes_are_understood(mode: str, action: object, landing: tuple[int, int]) -> None:
    class Other(Corners):
        action_mode = mode

        def act(self, observation: Mapping[str, Any]) -> NDArray[Any]:
            return np.array(action, np.float32 if mode == "relative" else np.int64)

    session = make(Other(), dwell_ms=100)
    session.advance(101)
    session.advance(200)
    x, y = session.scanpaths()[0].fixation_px[1].tolist()
    assert (round(x), round(y)) == pytest.approx(landing, abs=1)


def test_pointing_moves_the_gaze_at_once_and_the_agent_goes_on() -> None:
    session = make()
    session.advance(310)
    assert session.in_flight
    session.point(20, 30)
    assert (session.in_flight, session.gaze_px, session.fixations) == (False, (20, 30), 2)
    assert session.current_view().glimpse[30, 20].tolist() == session.current_view().scene[30, 20].tolist()
    session.point(25, 35, drag=True)
    assert (session.gaze_px, session.fixations) == ((25, 35), 2)
    session.point(-50, 1e6)
    assert session.gaze_px == (0, 120)
    session.advance(310)
    assert session.in_flight
    with pytest.raises(InvalidValueError, match="x_px"):
        session.point(math.nan, 0)


def test_a_held_eye_stays() -> None:
    session = make()
    session.hold(True)
    session.advance(5000)
    assert session.fixations == 1
    session.hold(False)
    session.advance(400)
    assert session.fixations == 2


def test_pause_and_single_steps() -> None:
    session = make()
    session.set_paused(True)
    session.advance(5000)
    assert session.fixations == 1
    session.point(10, 10)
    assert session.fixations == 2
    session.single_step()
    session.advance(10)
    assert session.in_flight
    session.advance(500)
    assert (session.fixations, session.paused, session.in_flight) == (3, True, False)
    session.advance(5000)
    assert session.fixations == 3
    session.set_paused(False)
    session.single_step()
    session.advance(1000)
    assert (session.fixations, session.paused) == (4, True)


def test_speed_stretches_time() -> None:
    session = make(dwell_ms=100)
    session.set_speed(0.5)
    session.advance(199)
    assert not session.in_flight
    session.advance(2)
    assert session.in_flight
    assert session.change_speed(1) == 1
    assert [session.change_speed(5), session.change_speed(-20)] == [8, 0.1]
    with pytest.raises(InvalidValueError, match="speed"):
        session.set_speed(0)


def test_the_budget_ends_a_scene_and_a_new_one_begins() -> None:
    agent = Corners()
    session = make(agent, budget=3)
    for _ in range(250):
        session.advance(10)
    paths = session.scanpaths()
    assert session.index == 1
    assert [len(path) for path in paths][:1] == [3]
    assert [path.image for path in paths] == ["array 0", "array 1"]
    assert agent.resets == 2
    assert len(session.current_view().past_errors) == 1
    for _ in range(3):
        session.next_scene()
    assert session.index == 1


def test_without_a_budget_a_scene_stays() -> None:
    session = make(budget=0)
    session.advance(20_000)
    assert session.index == 0
    assert session.fixations > 30


def test_the_human_agent_waits_for_the_person() -> None:
    session = make("human", budget=2)
    session.advance(5000)
    assert session.fixations == 1
    for x in (10, 20, 30):
        session.point(x, 20)
        session.advance(2000)
    assert (session.fixations, session.index) == (4, 0)
    session.single_step()
    session.advance(10)
    session.set_agent("centre")
    session.advance(1000)
    assert session.index == 1
    assert not isinstance(session.agent, Human)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (ValueError("no idea"), "raised ValueError: no idea"),
        (np.zeros(2, np.float32), "shape"),
        (np.full((1, 2), np.nan), "finite"),
        (np.full((1, 2), 1.5), "finite and in"),
    ],
)
def test_an_agent_that_fails_is_named_and_the_eye_stays_usable(action: object, message: str) -> None:
    class Broken(Corners):
        def act(self, observation: Mapping[str, Any]) -> Any:
            if isinstance(action, Exception):
                raise action
            return action

    session = make(Broken())
    assert message in session.alert
    assert session.current_view().alert == session.alert
    session.advance(2000)
    assert session.fixations == 1
    session.point(10, 10)
    assert session.gaze_px == (10, 10)
    session.single_step()
    session.advance(100)
    session.set_agent("centre")
    session.advance(400)
    assert (session.alert, session.fixations) == ("", 3)


def test_what_predicts_is_shown_and_scored() -> None:
    scenes = np.full((1, 96, 96, 3), 128, np.uint8)
    scenes[:, :, 48:] = 0
    session = make(scenes=scenes, network=Grey())
    session.point(0, 48)
    view = session.current_view()
    assert view.prediction is not None and view.heat is not None
    assert np.abs(view.prediction[:, :10].astype(int) - 128).max() <= 1
    assert np.abs(view.prediction[:, 90:].astype(int) - 128).max() <= 1  # the hidden dark half is guessed grey
    assert view.heat.values[48, 90] == 255
    assert view.heat.values[48, 5] < 10
    right, middle = math.sqrt(0.5) * 128, session.errors[-1]
    assert 0.5 * right < middle < right
    assert [session.next_heat() for _ in range(3)] == ["acuity", "uncertainty", "error"]


def test_without_a_network_there_is_no_prediction_but_an_error() -> None:
    session = make()
    assert session.current_view().prediction is None
    assert math.isfinite(session.errors[0])
    assert [session.next_heat() for _ in range(2)] == ["acuity", "error"]


def test_an_agent_that_imagines_is_asked_first() -> None:
    class Dreamer(Corners, Grey):
        pass

    class Never:
        def imagine(self, observation: Mapping[str, Any]) -> Prediction:
            raise AssertionError

    session = make(Dreamer(), network=Never())
    assert session.alert == ""
    assert session.current_view().prediction is not None


def test_a_predictor_that_fails_leaves_the_agent_looking() -> None:
    class Wrong:
        def imagine(self, observation: Mapping[str, Any]) -> Prediction:
            return Prediction(torch.zeros(1, 4, 4, 3))

    session = make(network=Wrong())
    assert "imagine() must return" in session.alert
    session.advance(1000)
    assert session.fixations > 1


def test_the_shipped_network_predicts() -> None:
    session = make(scenes="photos", network="unet")
    assert session.alert == ""
    first = session.errors[0]
    session.advance(3000)
    assert session.errors[-1] < first


def test_the_predictor_never_sees_the_scene() -> None:
    class Peeping(Grey):
        def imagine(self, observation: Mapping[str, Any]) -> Prediction:
            assert "scene" not in observation
            return super().imagine(observation)

    assert make(network=Peeping()).alert == ""


def test_reward_is_that_of_the_env() -> None:
    session = make("human", px_per_deg=4.0)
    assert session.current_view().reward is None
    session.point(*session.gaze_px)
    assert session.current_view().reward == 0
    session.point(session.gaze_px[0] + 40, session.gaze_px[1])
    first = session.current_view().reward
    assert first is not None and 0 < first < 0.2  # the disc hides 0.8 of the scene
    session.point(session.gaze_px[0] - 40, session.gaze_px[1])
    assert session.current_view().reward == pytest.approx(-0.0005 * 10, rel=1e-3)


def test_forgetting_blurs_what_is_remembered() -> None:
    session = make("human", half_life_ms=1000.0)
    session.advance(1000)
    session.point(170, 110)
    session.next_heat()
    heat = session.current_view().heat
    assert heat is not None
    assert int(heat.values[48, 72]) == pytest.approx(127, abs=1)


@pytest.mark.parametrize("name", list(RETINAS))
def test_every_retina_can_be_worn(name: str) -> None:
    session = make(network=Grey())
    session.set_retina(name)
    session.advance(1000)
    assert session.retina.name == name
    assert session.alert == ""
    assert session.fixations > 1


def test_a_second_spot_lies_at_one_place_for_eye_and_agent() -> None:
    agent = Corners()
    session = Session(noise(size=(192, 192)), agent, "two_spot", threaded=False)
    session.point(30, 40)
    small = agent.seen[-1]["acuity"][0, :, :, 0] > 0
    large = session.current_view().glimpse
    hidden = np.all(large == large[~np.kron(small, np.ones((2, 2), bool))][0], axis=2)
    assert np.mean(hidden == ~np.kron(small, np.ones((2, 2), bool))) > 0.97


def test_the_fovea_grows_and_shrinks_within_limits() -> None:
    session = Session(noise(size=(240, 240)), "human", "pyramid", threaded=False)
    before = session.current_view().fovea_px
    session.point(50, 60)
    assert session.scale_fovea(2.0)
    assert session.gaze_px == (50, 60)
    assert session.current_view().fovea_px == pytest.approx(2 * before, rel=0.2)
    assert session.scale_fovea(2.0)
    assert not session.scale_fovea(2.0)
    assert session.scale_fovea(0.25)
    assert session.fovea_scale == 1
    session.set_retina("full")
    assert not session.scale_fovea(2.0)
    assert session.current_view().fovea_px == 0


def test_large_scenes_are_shrunk_and_small_ones_kept() -> None:
    assert make(scenes=noise(1, (1000, 2000))).size == (DISPLAY_LONG_SIDE_PX // 2, DISPLAY_LONG_SIDE_PX)
    assert make(scenes=noise(1, (40, 70))).size == (40, 70)


def test_files_are_looked_at_or_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    session = make()
    with pytest.raises(SceneError):
        session.load_file(tmp_path / "bad.png")
    with pytest.raises(SceneError):
        session.load_file(tmp_path / "none.png")
    assert session.scene_name == "array 0"
    session.load_file(tmp_path / "good.png")
    assert session.scene_name.startswith("good")
    assert [path.image for path in session.scanpaths()] == ["array 0", session.scene_name]


def test_a_moving_scene_moves_before_a_resting_eye() -> None:
    class Film:
        moving = True
        labels = ()

        def __len__(self) -> int:
            return 1

        def picture(self, index: int, time_ms: float = 0.0) -> Any:
            from foveasim.images.picture import Picture

            return Picture(np.full((96, 96, 3), int(time_ms / 100), np.uint8), -1, "film", 3.5)

    session = make("human", scenes=Film())
    session.advance(1050)
    view = session.current_view()
    assert (view.scene == 10).all()
    assert view.glimpse[48, 48].tolist() == [10, 10, 10]
    session.set_paused(True)
    session.advance(1000)
    assert (session.current_view().scene == 10).all()


def test_what_cannot_be_used_is_refused() -> None:
    for options, kind in (
        ({"agent": "nobody"}, UnknownNameError),
        ({"scenes": "nowhere/none.png"}, SceneError),
        ({"network": 3}, InvalidTypeError),
        ({"budget": -1}, InvalidValueError),
        ({"dwell_ms": 0}, InvalidValueError),
        ({"half_life_ms": -1.0}, InvalidValueError),
    ):
        with pytest.raises(kind):
            make(**options)  # type: ignore[arg-type]
    session = make()
    for call in (lambda: session.set_agent("nobody"), lambda: session.set_retina("nothing")):
        with pytest.raises(FoveasimError):
            call()
    with pytest.raises(AgentError):
        session.set_agent(object())
    session.advance(1000)
    assert session.fixations > 1


def test_work_beside_the_caller_comes_to_the_same() -> None:
    session = make("raster", network=Grey(), threaded=True)
    alone = make("raster", network=Grey())
    alone.advance(1000)
    for _ in range(200):
        session.advance(5)
        while session.busy:
            time.sleep(0.001)
            session.advance(0)
    assert np.allclose(session.scanpaths()[0].fixation_px, alone.scanpaths()[0].fixation_px)
    assert session.errors == pytest.approx(alone.errors)
    session.close()


def test_a_slow_agent_does_not_hold_up_the_caller() -> None:
    class Slow(Corners):
        def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
            time.sleep(0.3)
            return super().act(observation)

    session = make(Slow(), network=Grey(), threaded=True)
    start = time.perf_counter()
    for x in range(20):
        session.point(10 + x, 20)
        session.advance(16)
    assert time.perf_counter() - start < 3  # 20 predictions take 6 s, on a busy machine as well
    assert session.gaze_px == (29, 20)
    session.close()
