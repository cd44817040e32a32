"""The fit of the agent ``scanpath``: it finds what was put in, goes on from what lies there, and its file works."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.loading import make_agent
from foveasim.agents.scanpath_model import fit as scanpath_fit
from foveasim.agents.scanpath_model.agent import load_scanpath
from foveasim.agents.scanpath_model.fit import FitConfig, densities, fit, fit_head, fit_tables, main
from foveasim.agents.scanpath_model.prior import FEATURES, MEMORY
from foveasim.agents.scanpath_model.sampling import choose_sampling, draw_scanpaths
from foveasim.agents.scanpath_model.training_views import (
    Beliefs,
    collect_beliefs,
    hash_inputs,
    histories,
    read_beliefs,
    write_beliefs,
)
from foveasim.errors import InvalidValueError
from foveasim.eye.retina import make_retina
from foveasim.metrics.people import People, read_people
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths

SIZE = (600, 800)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 60 x 80 px with one red square each, at which three people look."""
    root = tmp_path_factory.mktemp("people")
    (root / "images").mkdir()
    draws, paths = np.random.default_rng(0), []
    for number in range(4):
        picture = draws.integers(100, 120, (60, 80, 3), dtype=np.uint8)
        x, y = draws.integers(10, 60), draws.integers(10, 40)
        picture[y : y + 10, x : x + 10] = (255, 0, 0)
        Image.fromarray(picture).save(root / "images" / f"s{number}.png")
        for person in range(3):
            points = np.clip(draws.normal((10 * x + 50, 10 * y + 50), 25, (4 + person, 2)), 0, (799, 599))
            duration = torch.full((len(points),), 150.0 + 50 * person)
            onset = torch.cumsum(duration, 0) - duration
            paths.append(Scanpath(torch.tensor(points).float(), onset, duration, f"s{number}", f"p{person}"))
    write_scanpaths(root / "fixations.csv", paths)
    (root / "splits.json").write_text(json.dumps({"train": ["s0", "s1"], "val": ["s2", "s3"]}))
    return root


@pytest.fixture(scope="module")
def people(folder: Path) -> People:
    return read_people(folder, split="train", training="val")


@pytest.fixture(scope="module")
def seen(people: People) -> Beliefs:
    return collect_beliefs(people, make_retina("pyramid"), load_scanpath(None).network, people.training, seed=1)


def test_beliefs_are_those_before_each_fixation(people: People, seen: Beliefs) -> None:
    persons = {int(row[0]): int(row[1]) for row in seen.rows if row[1] >= 0}
    lengths = [len(people.paths[image][persons[image]]) for image in (0, 1)]
    assert 2 + 4 + 4 <= len(seen.rows) <= 2 + sum(lengths)  # those who led made four fixations or more
    assert len(seen.rows) == len(seen.acuity)
    assert [tuple(maps.shape[2:]) for maps in seen.levels] == [(18, 24), (18, 24), (9, 12), (9, 12)]
    whole, led = seen.acuity[seen.rows[:, 2] < 0], seen.acuity[seen.rows[:, 2] == 0]
    assert whole.min() == 1
    assert led[:, 0, 12, 16].min() > led[:, 0, 0, 0].max()  # the first view is from the centre
    past = histories(people, seen)
    third = int(((seen.rows[:, 0] == 0) & (seen.rows[:, 2] == 2)).nonzero()[0, 0])
    norm = people.paths[0][persons[0]].fixation_px / torch.tensor([400, 300]) - 1
    assert torch.allclose(past.past[third, :3], torch.stack((norm[1], norm[0], torch.zeros(2))))
    assert past.count[third] == 3 and torch.allclose(past.target[third], norm[2])


def corner(image: str, x: float, y: float) -> Scanpath:
    duration = torch.full((5,), 200.0)
    return Scanpath(torch.tensor([[x, y]]).expand(5, 2), torch.arange(5) * 200.0, duration, image, "p")


def test_what_was_seen_says_nothing_of_where_people_looked(people: People) -> None:
    network, retina = load_scanpath(None).network, make_retina("pyramid")
    guide_paths = [corner("s0", 10, 10), corner("s1", 790, 590)]
    found = collect_beliefs(people, retina, network, guide_paths, seed=2)
    later = found.rows[:, 2] == 3
    first, second = (found.acuity[later & (found.rows[:, 0] == image)][0, 0] for image in (0, 1))
    assert first[-1, -1] > 0.7 > first[0, 0] and second[0, 0] > 0.7 > second[-1, -1]  # each led along the other's
    # Other people who looked elsewhere: the same was seen.
    elsewhere = replace(people, paths=tuple(tuple(corner(name, 400, 5) for _ in "abc") for name in people.name))
    again = collect_beliefs(elsewhere, retina, network, guide_paths, seed=2)
    shared = [place for place, row in enumerate(found.rows) if (again.rows == row).all(1).any()]
    assert len(shared) > 8
    for place in shared:
        other = (again.rows == found.rows[place]).all(1).nonzero()[0, 0]
        assert torch.equal(found.acuity[place], again.acuity[other])
        assert all(torch.equal(a[place], b[other]) for a, b in zip(found.levels, again.levels, strict=True))
    with pytest.raises(InvalidValueError, match="other images than 's1'"):
        collect_beliefs(people, retina, network, guide_paths[1:], seed=2)


def test_beliefs_are_written_and_read(people: People, seen: Beliefs, tmp_path: Path) -> None:
    inputs_hash = hash_inputs(people, people.training, "pyramid", 1)
    write_beliefs(tmp_path / "seen.safetensors", seen, inputs_hash)
    again = read_beliefs(tmp_path / "seen.safetensors", inputs_hash)
    assert torch.equal(again.rows, seen.rows) and torch.equal(again.acuity, seen.acuity)
    assert all(torch.equal(a, b) for a, b in zip(again.levels, seen.levels, strict=True))
    for other in (hash_inputs(people, people.training, "disc", 1), hash_inputs(people, people.paths[0], "pyramid", 1)):
        with pytest.raises(InvalidValueError, match="by another eye or with another seed"):
            read_beliefs(tmp_path / "seen.safetensors", other)


def test_tables_hold_people(people: People) -> None:
    tables = fit_tables(people)
    grid = (24, 32)
    assert tables.centre.shape == grid and tables.centre.mean() == pytest.approx(0, abs=1e-4)
    assert tables.saccade.shape == (47, 63)
    assert tables.saccade[23, 31] == tables.saccade.max()  # these people hardly move
    assert tables.duration_ms[0] == 150 and tables.duration_ms[-1] == 250
    goal = densities(people)
    assert goal.shape == (2, 2, *grid) and goal.sum((2, 3)) == pytest.approx(torch.ones(2, 2), abs=1e-4)


def test_a_head_learns_where_people_look(people: People, seen: Beliefs) -> None:
    messages: list[str] = []
    fit_head((people, seen), (people, seen), fit_tables(people), epochs=12, on_message=messages.append)
    losses = [float(line.rsplit(" ", 1)[1]) for line in messages]
    assert losses[-1] < losses[0] - 0.3 and min(losses) < math.log(768) - 1


def test_draws_have_people_s_amplitudes_and_repeat(people: People) -> None:
    tables = fit_tables(people)
    weights = torch.tensor([float(name in ("saccade", "amplitude")) for name in FEATURES])
    tables = replace(tables, weights=weights)
    maps = torch.zeros(2, 1, 2, 24, 32)
    made = draw_scanpaths(maps, people, tables, 1.0, count=3, seed=4)
    again = draw_scanpaths(maps, people, tables, 1.0, count=3, seed=4)
    assert [len(group) for group in made] == [3, 3]
    assert all(torch.equal(a.fixation_px, b.fixation_px) for a, b in zip(made[0], again[0], strict=True))
    assert not torch.equal(made[0][0].fixation_px[0], made[0][1].fixation_px[0])
    chosen = choose_sampling(maps, people, tables)
    assert chosen.amplitude.abs().max() > 0.1 and len(chosen.amplitude) == 30
    assert MEMORY == 16


def test_one_command_fits_and_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, work = tmp_path / "mine.safetensors", tmp_path / "work"
    words = ["--data", str(folder), "--out", str(out), "--work", str(work), "--epochs", "1"]
    assert main(words) == 0
    assert {file.stem for file in work.iterdir()} == {"training", "validation"}
    agent = make_agent("scanpath", weights=out, privileged=True)
    (observation,) = make_synthetic_observations(1, 1, needs=("scene",), size=(96, 128))
    agent.reset(np.ones(1, np.bool_))
    assert np.abs(agent.act(observation)).max() <= 1

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("what was seen lies there")

    monkeypatch.setattr(scanpath_fit, "collect_beliefs", refuse)
    first = out.read_bytes()
    again = FitConfig(data=str(folder), out=str(out), work=str(work), epochs=1, overwrite=True)
    fit(again, on_message=lambda line: None)
    assert out.read_bytes() == first


def test_misuse_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="data must name a folder"):
        FitConfig()
    assert main(["--data", str(tmp_path)]) == 1
    assert "splits.json" in capsys.readouterr().err
