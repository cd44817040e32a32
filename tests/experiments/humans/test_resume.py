"""A comparison with people that was killed goes on, and comes to what an undisturbed one does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveasim.agents.evaluation.agent_cache import cache_folder
from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.loading import make_agent
from foveasim.errors import InvalidValueError
from foveasim.experiments.humans.command import HumansConfig, run
from foveasim.experiments.humans.files import ScanpathCache
from foveasim.experiments.humans.free_viewing import FreeViewingRunner
from foveasim.eye.retina import make_retina
from foveasim.metrics.people import People, read_people
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths

SIZE = (120, 160)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of 60 x 80 px that two people viewed."""
    root = tmp_path_factory.mktemp("people")
    (root / "images").mkdir()
    draws, paths = np.random.default_rng(0), []
    for name in ("a", "b", "c"):
        Image.fromarray(draws.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        for person in ("p", "q"):
            points = torch.from_numpy(draws.uniform(0, 119, (5, 2)).astype(np.float32))
            duration = torch.full((5,), 200.0)
            paths.append(Scanpath(points, torch.arange(5) * 200.0, duration, name, person))
    write_scanpaths(root / "fixations.csv", paths)
    (root / "splits.json").write_text(json.dumps({"test": ["a", "b"], "train": ["c"]}))
    return root


@pytest.fixture(scope="module")
def people(folder: Path) -> People:
    return read_people(folder, size=SIZE, px_per_deg=6.0)


def config_of(folder: Path, out: Path, *agents: str, **options: Any) -> HumansConfig:
    values = {"size": SIZE, "px_per_deg": 6.0, "count": 3, "resamples": 100, "show": 0, "lanes": 2, "jobs": 1}
    return HumansConfig(list(agents), data=str(folder), out=str(out), floors=False, **{**values, **options})


class Ramp:
    """Draws anywhere, says where people look, and how long it stays."""

    def __init__(self, seed: int = 0) -> None:
        self._draws, self._lanes = np.random.default_rng(seed), 0

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        self._lanes = len(lanes)

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return self._draws.uniform(-1, 1, (self._lanes, 2)).astype(np.float32)

    def dwell_ms(self) -> NDArray[np.float32]:
        return self._draws.uniform(100, 300, self._lanes).astype(np.float32)

    def priority(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.tile(np.array([[1, 2]], np.float32), (self._lanes, 1, 1))


@pytest.mark.parametrize("agent", ["random", Ramp])
def test_scanpaths_that_are_cached_are_the_same(people: People, tmp_path: Path, agent: Any) -> None:
    entry = Entry("mine", "mine", lambda seed: make_agent(agent, seed=seed))
    found = FreeViewingRunner(people, make_retina("pyramid"), 3, lanes=4).run(entry)
    cache = ScanpathCache(tmp_path, {"count": 3}, people)
    assert cache.load(entry) is None
    cache.save(found)
    again = cache.load(entry)
    assert again is not None
    assert (again.privileged, again.own_durations) == (found.privileged, found.own_durations)
    assert (again.conditional is None) == (found.conditional is None) == (agent == "random")
    if found.conditional is not None:
        assert np.array_equal(again.conditional, found.conditional)
    for group, other in zip(found.paths, again.paths, strict=True):
        for one, same in zip(group, other, strict=True):
            assert (one.image, one.subject) == (same.image, same.subject)
            assert torch.equal(one.fixation_px, same.fixation_px)
            assert torch.equal(one.duration_ms, same.duration_ms) and torch.equal(one.onset_ms, same.onset_ms)


@pytest.mark.parametrize("change", [{"count": 4}, {"people": True}])
def test_another_comparison_is_not_gone_on_with(people: People, tmp_path: Path, change: dict[str, Any]) -> None:
    entry = Entry("mine", "random", lambda seed: make_agent("random", seed=seed))
    ScanpathCache(tmp_path, {"count": 3}, people).save(FreeViewingRunner(people, make_retina("disc"), 3).run(entry))
    others = replace(people, training=people.paths[0]) if "people" in change else people
    options = {"count": change.get("count", 3)}
    with pytest.raises(InvalidValueError, match="other people or other options"):
        ScanpathCache(tmp_path, options, others).load(entry)


def test_a_run_that_ended_early_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(config_of(folder, whole, "random", "spiral")) == 0
    assert not cache_folder(whole).exists()
    capsys.readouterr()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveasim.agents.builtin.scripted.Spiral.act", interrupt)
        assert run(config_of(folder, out, "random", "spiral")) == 130
    assert "Go on with --resume" in " ".join(capsys.readouterr().out.split())
    assert len(list(cache_folder(out).iterdir())) == 1
    with pytest.raises(InvalidValueError, match=r"is not empty: it holds \.unfinished"):
        run(config_of(folder, out, "random", "spiral"))
    with pytest.raises(InvalidValueError, match="other people or other options"):
        run(config_of(folder, out, "random", "spiral", resume=True, count=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveasim.agents.builtin.scripted.Random.act", interrupt)  # it is not asked again
        assert run(config_of(folder, out, "random", "spiral", resume=True)) == 0
    assert "random was done before" in capsys.readouterr().out
    assert not cache_folder(out).exists()
    first, again = (json.loads((place / "humans.json").read_text()) for place in (whole, out))
    assert again["whole"] and first["rows"] == again["rows"]
    for name in ("scanpaths.csv", "scores.csv", "images.csv"):
        assert (whole / name).read_bytes() == (out / name).read_bytes()


def test_an_end_is_asked_for_between_fixations(people: People) -> None:
    """Not only after a whole batch of scanpaths: a slow agent's would take longer than a signal's sender waits."""
    progress: list[int] = []
    runner = FreeViewingRunner(people, make_retina("disc"), 3, lanes=6)
    runner.run(Entry("mine", "mine", Ramp), progress.append)
    assert sum(progress) == 6 and progress.count(0) == 5 + 5  # one batch of five steps, and one that is led


def test_baselines_and_agents_end_soon_after_a_signal(folder: Path, tmp_path: Path) -> None:
    """The other agents' threads are waited for: they end at the next fixation, not at the end of their work."""
    began = threading.Event()
    calls = []

    def slow(self: Any, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        calls.append(len(observation["fixation"]))
        began.set()
        time.sleep(0.5)
        return np.zeros((len(observation["fixation"]), 2), np.float32)

    def fail(self: Any, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        began.wait(10)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveasim.agents.builtin.scripted.Spiral.act", slow)
        patch.setattr("foveasim.agents.builtin.scripted.Random.act", fail)
        with pytest.raises(KeyboardInterrupt):
            run(config_of(folder, tmp_path, "random", "spiral", jobs=2, count=60, lanes=120))
    assert 1 <= len(calls) < 5 and calls[0] == 120  # of a batch of five steps
