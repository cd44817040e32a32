"""What agent and predictor deliver: composed, judged, refused, and never waited for."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveasim.types import Prediction
from foveasim.viewer.agent_worker import compose_sharp, picture_error
from foveasim.viewer.session import Session


def test_composing_keeps_detail_and_shows_the_guess() -> None:
    detail = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    acuity = np.zeros((64, 64), np.uint8)
    acuity[:, :32] = 255
    guess = np.full((8, 8, 3), 0.25, np.float32)
    displayed = compose_sharp(guess, np.zeros((8, 8, 3), np.uint8), detail, acuity)
    assert np.array_equal(displayed[:, :32], detail[:, :32])
    assert (np.abs(displayed[:, 32:].astype(int) - 64) <= 1).all()


def test_the_error_is_that_of_the_picture_shown() -> None:
    scene = np.full((8, 8, 3), 200, np.uint8)
    displayed = scene.copy()
    displayed[4:] = 0
    error, rmse = picture_error(displayed, scene, (4, 4))
    assert error[:2].max() == 0
    assert error[2:].min() == pytest.approx(200)
    assert rmse == pytest.approx(200 / math.sqrt(2))


class Looker:
    """Looks at the centre."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.calls = 0

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        pass

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        self.calls += 1
        for _ in range(round(self.pause_s / 0.01)):
            time.sleep(0.01)
        return np.zeros((1, 2), np.float32)


class Dreamer:
    """Predicts what it is given."""

    def __init__(self, dream: Any) -> None:
        self.dream = dream

    def imagine(self, observation: Mapping[str, Any]) -> Any:
        if isinstance(self.dream, BaseException):
            raise self.dream
        return self.dream


SCENE = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
WHOLE = torch.full((1, 96, 96, 3), 0.5)


@pytest.mark.parametrize(
    ("dream", "message"),
    [
        (None, r"must return a Prediction; got None.*Return foveasim.types.Prediction"),
        (WHOLE, "must return a Prediction; got a Tensor"),
        (Prediction(WHOLE.numpy()), "from_numpy"),  # type: ignore[arg-type]
        (Prediction(torch.nn.Parameter(WHOLE)), "detach"),
        (Prediction(WHOLE.permute(0, 3, 1, 2)), r"permute\(0, 2, 3, 1\)"),
        (Prediction(WHOLE[0]), r"must return \(1, 96, 96, 3\)"),
        (Prediction(WHOLE * math.nan), "finite"),
        (Prediction(WHOLE * 255), r"goes from 128 to 128. Rescale"),
        (Prediction(WHOLE.byte()), "Divide by 255"),
        (Prediction(WHOLE, torch.zeros(1, 96, 96, 1)), "as std"),
        (Prediction(WHOLE, torch.full((1, 96, 96), -1.0)), "std of 0 or more"),
        (Prediction(WHOLE, 3), "std as a torch tensor"),  # type: ignore[arg-type]
        (SystemExit(3), "raised SystemExit"),
        (ValueError("oh"), "raised ValueError: oh"),
    ],
)
@pytest.mark.parametrize("threaded", [False, True])
def test_a_bad_prediction_is_an_alert(dream: Any, message: str, threaded: bool) -> None:
    session = Session(SCENE, Looker(), network=Dreamer(dream), threaded=threaded)
    settle(session)
    assert re.search(message, session.alert), session.alert
    assert math.isfinite(session.errors[0])
    session.advance(400)
    settle(session)
    assert session.in_flight or session.fixations > 1
    session.close()


def settle(session: Session) -> None:
    deadline = time.perf_counter() + 5
    while session.busy and time.perf_counter() < deadline:
        time.sleep(0.002)
        session.advance(0)


@pytest.mark.parametrize("threaded", [False, True])
def test_an_agent_cannot_exit_but_a_person_can_interrupt(threaded: bool) -> None:
    class Exits(Looker):
        error: BaseException = SystemExit(1)

        def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
            raise self.error

    session = Session(SCENE, Exits(), threaded=threaded)
    settle(session)
    assert "raised SystemExit" in session.alert
    session.close()
    Exits.error = KeyboardInterrupt()

    def watch() -> None:
        again = Session(SCENE, Exits(), threaded=threaded)
        try:
            settle(again)
        finally:
            again.close()

    with pytest.raises(KeyboardInterrupt):
        watch()


def test_a_slow_agent_holds_up_neither_prediction_nor_the_end() -> None:
    agent = Looker(pause_s=3.0)
    session = Session(SCENE, agent, network=Dreamer(Prediction(WHOLE)))
    start = time.perf_counter()
    for x in (20, 40, 60):
        session.point(x, 50)
        deadline = time.perf_counter() + 1
        while math.isnan(session.errors[-1]) and time.perf_counter() < deadline:
            time.sleep(0.002)
            session.advance(1)
        assert math.isfinite(session.errors[-1])
    assert agent.calls == 1
    session.close()
    assert time.perf_counter() - start < 2.9


def test_an_agent_that_never_ends_is_left_behind() -> None:
    class Endless(Looker):
        def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
            while True:
                torch.rand(8, 8).sum()

    def at_work() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("foveasim-")]

    session = Session(SCENE, Endless())
    assert at_work() == ["foveasim-predictor", "foveasim-agent"]
    session.close()
    assert at_work() == []


def test_an_agent_is_asked_once_after_the_mouse_is_let_go() -> None:
    agent = Looker()
    session = Session(SCENE, agent, network=Dreamer(Prediction(WHOLE)), threaded=False)
    calls = agent.calls
    session.hold(True)
    session.point(10, 10)
    for x in range(11, 40):
        session.point(x, 10, drag=True)
        session.advance(16)
        assert math.isfinite(session.errors[-1])
    assert agent.calls == calls
    session.hold(False)
    session.hold(False)
    assert agent.calls == calls + 1
    session.advance(310)
    assert session.in_flight


def test_a_retina_that_the_network_does_not_know_is_named_once() -> None:
    session = Session(SCENE, "human", "log_polar", "unet", threaded=False)
    assert session.status_message == "unet was not trained on log_polar, only on disc, pyramid"
    session.advance(7000)
    session.set_retina("disc")
    session.set_retina("log_polar")
    assert session.status_message == session.alert == ""


@pytest.mark.parametrize("retina", ["pyramid", "disc"])
def test_what_the_mind_predicts_is_better_than_what_the_eye_has_seen(retina: str) -> None:
    seen, guessed = [], []
    session = Session("photos", "human", retina, "unet", threaded=False)
    for _ in range(8):
        session.point(0.4 * session.size[1], 0.6 * session.size[0])
        view = session.current_view()
        assert view.prediction is not None
        seen.append(picture_error(view.belief, view.scene, (8, 8))[1])
        guessed.append(picture_error(view.prediction, view.scene, (8, 8))[1])
        assert session.errors[-1] == guessed[-1]
        session.next_scene()
    assert np.mean(guessed) < (0.92 if retina == "pyramid" else 0.97) * np.mean(seen)


def test_agent_and_network_leave_cores_to_the_window() -> None:
    """Whatever thread asks, torch goes by what was set in it, or before it first used torch."""
    used: list[int] = []

    class Counts(Looker):
        def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
            used.append(torch.get_num_threads())
            return super().act(observation)

    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        session = Session("noise", Counts(), "disc", None, threaded=True)
        wait_for(lambda: bool(used))
        session.close()
        assert used[0] == 3
        with ThreadPoolExecutor(1) as pool:
            assert (torch.get_num_threads(), pool.submit(torch.get_num_threads).result()) == (6, 6)
    finally:
        torch.set_num_threads(before)


def test_work_beside_the_caller_begins_when_the_caller_says_so() -> None:
    looker = Looker()
    session = Session("noise", looker, "disc", None, threaded=True)
    wait_for(lambda: looker.calls == 1)
    session.point(5, 5)
    time.sleep(0.05)
    assert looker.calls == 1
    session.poll_agent()
    wait_for(lambda: looker.calls == 2)
    session.close()
    assert looker.calls == 2


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happens() and time.monotonic() < deadline:
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where a thread has a niceness of its own")
def test_agent_and_network_give_way_to_the_window() -> None:
    found: list[int] = []

    class Noting(Looker):
        def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
            found.append(os.getpriority(os.PRIO_PROCESS, 0))
            return super().act(observation)

    session = Session("noise", Noting(), "disc")
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        session.advance(1)
        time.sleep(0.001)
    session.close()
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert found[0] > mine or mine == 19  # the lowest priority there is
