"""A person's scanpath, replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from foveasim.agents.builtin.human_replay import HumanReplay
from foveasim.agents.loading import make_agent
from foveasim.cli.commands import main
from foveasim.errors import AgentError, InvalidValueError
from foveasim.scanpath.scanpath import Scanpath, read_csv, write_scanpaths
from foveasim.viewer.session import Session

POINTS = {
    ("a", "p"): [[80.0, 60.0], [160.0, 0.0], [40.0, 90.0]],
    ("a", "q"): [[0.0, 120.0]],
    ("b", "p"): [[165.0, 60.0]],
}
SIZE = (120, 160)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    paths = []
    for (image, subject), points in POINTS.items():
        duration = torch.arange(1.0, len(points) + 1) * 100
        onset = torch.cumsum(duration, 0) - duration
        paths.append(Scanpath(torch.tensor(points), onset, duration, image, subject))
    return write_scanpaths(tmp_path / "fixations.csv", paths)


def look(agent: HumanReplay, lanes: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    agent.reset(np.ones(lanes, np.bool_))
    seen = {"fixation": np.zeros((lanes, 2), np.float32)}
    found = []
    for _ in range(steps):
        action = agent.act(seen)
        found.append((action, agent.dwell_ms()[:, None]))
    return np.stack([a for a, _ in found], 1), np.stack([d for _, d in found], 1)[..., 0]


def test_it_looks_where_the_person_looked_and_stays(file: Path) -> None:
    agent = HumanReplay(file, "a", "p", SIZE)
    assert len(agent) == 3
    points, durations = look(agent, 2, 5)
    expected = [[0, 0], [1, -1], [-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]]
    assert points.tolist() == [expected, expected]
    assert durations.tolist() == [[100, 200, 300, 300, 300]] * 2
    assert agent.name == "human_replay (a, p)"


def test_lanes_that_begin_anew_begin_at_the_first_fixation(file: Path) -> None:
    agent = HumanReplay(file, "a", "p", SIZE)
    look(agent, 2, 2)
    agent.reset(np.array([False, True]))
    assert agent.act({"fixation": np.zeros((2, 2), np.float32)}).tolist() == [[-0.5, 0.5], [0, 0]]


def test_the_first_subject_where_none_is_named_and_the_edge_holds_gaze(file: Path) -> None:
    assert len(HumanReplay(file, "a", size=SIZE)) == 3
    assert look(HumanReplay(file, "b", size=SIZE), 1, 1)[0].tolist() == [[[1, 0]]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "image must name one of 2 images"),
        ({"image": "c"}, "has no scanpath on image 'c'; it has those on a, b"),
        ({"image": "a", "subject": "r"}, "no scanpath of subject 'r' on 'a'; it has p, q"),
        ({"image": "a", "size": (20, 30)}, "Give size, the height and width"),
    ],
)
def test_what_is_not_there_is_told(file: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(AgentError) as caught:
        HumanReplay(file, **{"size": SIZE, **arguments})
    assert message in str(caught.value)


def test_a_file_that_is_missing_and_a_choice_without_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="cannot read scanpaths"):
        HumanReplay(tmp_path / "nothing.csv", "a")
    with pytest.raises(AgentError, match="give scanpaths"):
        HumanReplay(image="a")


def test_a_session_sees_what_the_person_saw(file: Path) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    agent = make_agent("human_replay", scanpaths=str(file), image="a", subject="p", size=SIZE)
    session = Session(scene, agent, "disc", budget=4, dwell_ms=100, threaded=False)
    for _ in range(40):
        session.advance(20)
        if session.fixations == 4:
            break
    found = session.scanpaths()[-1].fixation_px[:4]
    assert found.tolist() == [[40, 30], [40, 30], [80, 0], [20, 45]]  # the start, and the path at half the size


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_names_of_digits_are_of_that_person_and_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote: str
) -> None:
    monkeypatch.chdir(tmp_path)
    right, wrong = torch.tensor([[120.0, 60.0]]), torch.tensor([[20.0, 60.0]])
    named = [("000000000012", "007"), ("000000000012", "7"), ("10", "7"), ("12", "7"), ("12", "007"), ("10", "007")]
    paths = [
        Scanpath(right if number == 0 else wrong, torch.zeros(1), torch.full((1,), 100.0), image, subject)
        for number, (image, subject) in enumerate(named)
    ]
    write_scanpaths(tmp_path / "people.csv", [*paths[1:], paths[0]])
    image, subject = f"{quote}000000000012{quote}", f"{quote}007{quote}"
    arguments = f"scanpaths: people.csv, image: {image}, subject: {subject}, size: [120, 160]"
    (tmp_path / "config.yaml").write_text(f"agent_arguments: {{{arguments}}}\n", encoding="utf-8")
    dotted = [f"--agent_arguments.{part.replace(': ', '=')}" for part in arguments.split(", ", 3)]
    for words in (["--agent_arguments", f"{{{arguments}}}"], ["--config", "config.yaml"], dotted):
        out = ["record", "uniform", "--out=out.gif", "--scanpath=out.csv", "--overwrite", "--network", "none"]
        shown = ["--size", "240x320", "--seconds", "0.5", "--fps", "10", "--dwell_ms", "100"]
        assert main([*out, *shown, "--agent", "human_replay", *words]) == 0
        found = read_csv(tmp_path / "out.csv")[0].fixation_px[-1]
        assert found.tolist() == [192, 128], words  # in the scene of 256 x 256 px
