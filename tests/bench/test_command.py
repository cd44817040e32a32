"""foveasim bench: how it measures, what it writes, and what it calls slower; every kind of case runs once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from foveasim.bench import command as bench
from foveasim.bench import table
from foveasim.bench.command import BenchConfig, list_cases, measure, select_cases
from foveasim.bench.eyes import EPISODE, NoOpEnv, NoOpVectorEnv, glimpse_spaces
from foveasim.bench.peers import check_ap_gym, focusmim_cases, load_masked_dataset
from foveasim.bench.table import Report, Row
from foveasim.bench.timing import Case, Setting, SkippedError, Spread, pictures, rate, rate_case, spread
from foveasim.bench.window import frame_spreads, memory_case
from foveasim.cli.commands import main
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError

QUICK = Setting(seconds=0.001, repeats=2)


def console() -> Console:
    return Console(quiet=True)


# Measuring


def test_rate_counts_work_over_time_and_leaves_the_warm_up_out() -> None:
    now, slow = 0.0, True

    def work() -> int:  # ten things take 1 s in the first two calls, 0.1 s later
        nonlocal now, slow
        now += 1.0 if slow else 0.1
        slow = now < 2
        return 10

    got = rate(work, Setting(seconds=2.0, repeats=3), clock=lambda: now)
    assert (got.low, got.value, got.high) == pytest.approx((100, 100, 100))


def test_rate_takes_one_slow_call_as_a_repeat() -> None:
    now, calls = 0.0, 0

    def work() -> int:
        nonlocal now, calls
        now, calls = now + 5, calls + 1
        return 20

    assert rate(work, Setting(seconds=0.1, repeats=4), clock=lambda: now).value == pytest.approx(4)
    assert calls == 1 + 4 or calls == 2 + 4  # the first, perhaps one more of the warm-up, and the repeats


def test_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 4, 2, 3]) == Spread(3, 2, 4)
    assert spread([7]) == Spread(7, 7, 7)


def test_frames_are_judged_within_and_between_repeats() -> None:
    got = frame_spreads([[1.0] * 99 + [50.0], [3.0] * 99 + [90.0]])
    assert got["p50"] == Spread(2, 1.5, 2.5)
    assert got["p99"].value > 2  # the one late frame is in it


def test_pictures_are_the_same_for_the_same_seed_and_cannot_be_written() -> None:
    one = pictures(32, 10, 0)
    pictures.cache_clear()
    assert np.array_equal(one, pictures(32, 10, 0))
    assert not np.array_equal(one, pictures(32, 10, 1))
    assert one.shape == (10, 32, 32, 3)
    assert one.std() > 10
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 0


def test_the_do_nothing_envs_keep_to_the_rules_and_have_our_spaces() -> None:
    from gymnasium.utils.env_checker import check_env

    observed, acted = glimpse_spaces(96)
    check_env(NoOpEnv(observed, acted), skip_render_check=True)
    ours = gym.make("foveasim/Glimpse-v0", retina="disc")
    assert ours.observation_space == observed
    assert ours.action_space == acted
    ours.close()
    env = NoOpEnv(observed, acted)
    env.reset()
    ends = [env.step(acted.sample())[2] for _ in range(EPISODE)]
    assert ends == [False] * (EPISODE - 1) + [True]
    lanes = NoOpVectorEnv(3, observed, acted)
    first, second = lanes.reset()[0], lanes.step(lanes.action_space.sample())[0]
    assert lanes.observation_space.contains(first)
    assert not np.shares_memory(first["glimpse"], second["glimpse"])


# What there is


def test_goals_name_rows_that_there_are(tmp_path: Path) -> None:
    endings = {"window/real": [f"/{kind}/{q}" for kind in ("interval", "work") for q in ("p50", "p99")]}
    cases = [*list_cases(BenchConfig()), *_peers(tmp_path)]
    names = [f"{case.name}{ending}" for case in cases for ending in endings.get(case.name, [""])]
    assert len(set(names)) == len(names)
    named = {name for goal in table.GOALS for name in (goal.over, goal.under) if name}
    assert named <= set(names)
    assert {case.ratio_to for case in cases if case.ratio_to} <= set(names)
    assert len({goal.name for goal in table.GOALS}) == len(table.GOALS)


def _peers(tmp_path: Path) -> list[Case]:
    from foveasim.bench.peers import ap_gym_cases

    return [*ap_gym_cases(), *focusmim_cases(_checkout(tmp_path))]


# The command


def test_options_are_checked() -> None:
    for wrong in ({"seconds": 0}, {"repeats": 0}, {"threads": 0}, {"tolerance": 1.0}, {"seconds": float("nan")}):
        with pytest.raises(InvalidValueError):
            BenchConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError):
        BenchConfig(only=" ,")


def test_only_takes_patterns() -> None:
    cases = [Case(name, "", "ms", lambda setting: {}) for name in ("a/1", "a/2", "b/1")]
    assert [case.name for case in select_cases(cases, "*/1")] == ["a/1", "b/1"]
    assert [case.name for case in select_cases(cases, "b/*, a/2")] == ["a/2", "b/1"]
    with pytest.raises(InvalidValueError, match=r"There are a/\*, b/\*"):
        select_cases(cases, "c")


def test_the_command_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    out = capsys.readouterr().out
    for name in ("floor/copy/96x96", "retina/pyramid/512x512/64", "env/vector/disc/4096", "memory/4096", "window/real"):
        assert re.search(f"^{re.escape(name)} ", out, re.MULTILINE)


def test_the_command_measures_writes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    options = ["bench", "--only", "floor/*,env/single/disc/96x96", "--seconds", "0.01", "--repeats", "2"]
    assert main([*options, "--out", str(path)]) == 0
    out = capsys.readouterr().out
    assert "floor/copy/96x96" in out
    assert "single disc, in copies of its glimpse" in out
    found = Report.read(path)
    assert [one.name for one in found.rows if one.group != "goal"] == [
        "floor/copy/96x96",
        "floor/copy/512x512",
        "floor/env",
        "floor/vector/256",
        "env/single/disc/96x96",
    ]
    assert all(0 < one.low <= one.value <= one.high for one in found.rows)
    env, copy = found.row("env/single/disc/96x96"), found.row("floor/copy/96x96")
    assert env is not None
    assert copy is not None
    assert env.ratio == pytest.approx(env.value / copy.value)
    assert {"cpu", "cores", "threads", "load_before", "load_after", "system"} <= set(found.machine)
    assert {"foveasim", "torch", "numpy", "python"} <= set(found.versions)
    assert found.options["seconds"] == 0.01

    def scaled(factor: float) -> str:
        rows = [
            replace(one, value=one.value * factor, low=one.low * factor, high=one.high * factor) for one in found.rows
        ]
        replace(found, rows=tuple(one for one in rows if one.group != "goal")).write(tmp_path / "b.json")
        return str(tmp_path / "b.json")

    assert main([*options, "--against", scaled(1000)]) == 1
    out = capsys.readouterr().out
    assert "1 slower, 0 faster" in out
    assert "the machine itself is quicker or slower" in out
    assert main([*options, "--against", scaled(0.001)]) == 0
    assert "0 slower, 1 faster" in capsys.readouterr().out


def test_what_is_not_there_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("it measured"))
    monkeypatch.setitem(sys.modules, "ap_gym", None)
    assert main(["bench", "--only", "floor/*", "--against", str(tmp_path / "none.json")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert main(["bench", "--only", "floor/*", "--out", str(tmp_path)]) == 1
    assert "it is a folder. Name a file" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["bench", "--only", "floor/*", "--out", str(tmp_path / "file" / "a.json")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert main(["bench", "--peers"]) == 1
    assert "pip install ap_gym" in capsys.readouterr().err
    assert main(["bench", "--focusmim", str(tmp_path)]) == 1
    assert "git clone" in capsys.readouterr().err
    assert main(["bench", "--only", "nonesuch"]) == 1
    assert "fits none" in capsys.readouterr().err


def test_ctrl_c_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(setting: Setting) -> dict[str, Spread]:
        raise KeyboardInterrupt

    cases = [Case("a/1", "", "ms", lambda setting: {"": Spread(2, 1, 3)}), Case("a/2", "", "ms", stop)]
    monkeypatch.setattr(bench, "list_cases", lambda config: cases)
    path = tmp_path / "a.json"
    assert bench.run(BenchConfig(out=str(path))) == 130
    found = Report.read(path)
    assert found.interrupted
    assert found.rows == (Row("a/1", "a", "ms", 2, 1, 3),)


def test_one_case_that_fails_or_cannot_run_costs_no_other() -> None:
    def fail(setting: Setting) -> dict[str, Spread]:
        raise RuntimeError("too many eyes")

    def skip(setting: Setting) -> dict[str, Spread]:
        raise SkippedError("no screen")

    cases = [
        Case("a/1", "", "ms", fail),
        Case("a/2", "", "ms", skip),
        Case("a/3", "", "ms", lambda s: {"": spread([1])}),
    ]
    found = measure(BenchConfig(), cases, console())
    assert "RuntimeError: too many eyes" in found.failed["a/1"]
    assert found.skipped == {"a/2": "no screen"}
    assert [one.name for one in found.rows] == ["a/3"]


def test_a_failure_is_the_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(setting: Setting) -> dict[str, Spread]:
        raise RuntimeError("too many eyes")

    monkeypatch.setattr(bench, "list_cases", lambda config: [Case("a/1", "", "ms", fail)])
    assert bench.run(BenchConfig()) == 1
    assert "failed a/1" in capsys.readouterr().out


def test_threads_are_set_for_the_cases_and_put_back() -> None:
    import torch

    before = torch.get_num_threads()
    seen = []

    def look(setting: Setting) -> dict[str, Spread]:
        seen.append(torch.get_num_threads())
        return {}

    measure(BenchConfig(threads=before + 1), [Case("a/1", "", "ms", look)], console())
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


# Every kind of case

SAMPLES = (
    "floor/env",
    "floor/vector/256",
    "retina/patches/96x96/1",
    "retina/disc/512x512/1",
    "prepare/pyramid/96x96",
    "env/single/pyramid/96x96/belief",
    "env/vector/disc/16",
    "env/vector/disc/256/torch",
    "env/sync/disc/16",
    "env/sb3/nothing/64",
    "env/sb3/disc/64",
    "env/prediction/lean/64",
    "network/lean/predict/1",
    "network/lean/train",
    "pipeline/foveate/prepared",
    "pipeline/periphery/crops",
    "ppo/compact/nothing",
    "ppo/compact/disc",
)


@pytest.mark.parametrize("name", SAMPLES)
def test_cases_measure(name: str) -> None:
    case = next(case for case in list_cases(BenchConfig()) if case.name == name)
    figure = case.measure(replace(QUICK, repeats=1))[""]
    assert 0 < figure.low <= figure.value <= figure.high < 1e9


def test_the_window_without_a_screen_is_skipped_and_its_drawing_is_timed() -> None:
    cases = {case.name: case for case in list_cases(BenchConfig())}
    with pytest.raises(SkippedError, match="display"):
        cases["window/real"].measure(QUICK)
    figures = cases["window/headless"].measure(replace(QUICK, repeats=1))
    assert 0 < figures["p50"].value <= figures["p99"].value


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb")
def test_the_window_is_timed_on_xvfb(tmp_path: Path) -> None:
    path, hidden = tmp_path / "a.json", ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY")
    command = [
        sys.executable,
        "-m",
        "foveasim",
        "bench",
        "--only",
        "window/real",
        "--seconds",
        "0.1",
        "--out",
        str(path),
    ]
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    figures = {
        row.name.removeprefix("window/real/"): row.value for row in Report.read(path).rows if row.group != "goal"
    }
    assert set(figures) == {"interval/p50", "interval/p99", "work/p50", "work/p99"}
    assert 10 < figures["interval/p50"] < 200  # 60 a second at most
    assert 0 < figures["work/p50"] <= figures["interval/p99"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_memory_is_that_of_a_process_of_its_own() -> None:
    small = memory_case(lanes=2, scenes=20, episodes=2)
    assert small.name == "memory/2"
    assert 50 < small.measure(QUICK)[""].value < 4000


def test_a_rate_case_cleans_up() -> None:
    log = []

    def prepare(setting: Setting) -> Any:
        log.append("made")
        yield lambda: 5
        log.append("closed")

    case = rate_case("a/b", "", "things/s", prepare)
    assert case.group == "a"
    assert case.measure(QUICK)[""].value > 0
    assert log == ["made", "closed"]


# Peers

DATASET = """
import torch
from data.preprocess import shade

class MaskedDataset(torch.utils.data.Dataset):
    def __init__(self, data, masking_mode="None", masking_ratio=0.5, random_crop=False, seed=0):
        self.data = list(data)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image = torch.full((3, 96, 96), shade)
        return image, image, self.data[index][1], image
"""


def _checkout(folder: Path, dataset: str = DATASET) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "dataset.py").write_text(dataset)
    (folder / "data" / "preprocess.py").write_text("shade = 0.5\n")
    return folder


def test_focusmim_is_imported_from_its_checkout_and_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    mine = types.ModuleType("data")
    monkeypatch.setitem(sys.modules, "data", mine)
    paths = list(sys.path)
    cases = focusmim_cases(_checkout(tmp_path))
    assert sys.modules["data"] is mine
    assert "data.dataset" not in sys.modules
    assert sys.path == paths
    assert [case.name for case in cases][:2] == ["peer/focusmim/foveate/crops", "peer/focusmim/foveate/whole"]
    assert cases[0].measure(QUICK)[""].value > 0


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("import torchvisionaries", "needs torchvisionaries.*pip install torchvisionaries"),
        ("", "no attribute 'MaskedDataset'"),
        ("raise RuntimeError('another torch')", "another torch"),
    ],
)
def test_a_checkout_that_cannot_be_used_says_why(tmp_path: Path, dataset: str, says: str) -> None:
    paths = list(sys.path)
    with pytest.raises(FoveasimError, match=says):
        load_masked_dataset(_checkout(tmp_path, dataset))
    assert sys.path == paths
    assert not [name for name in sys.modules if name == "data" or name.startswith("data.")]


def test_ap_gym_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ap_gym", None)
    with pytest.raises(
        FoveasimError, match=r"ap_gym is not installed.*pip install ap_gym==0\.7\.1 Pillow aiohttp scipy"
    ):
        check_ap_gym()
    monkeypatch.delitem(sys.modules, "ap_gym")
    (tmp_path / "ap_gym.py").write_text("import aiohttpless")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FoveasimError, match="it needs aiohttpless"):
        check_ap_gym()


@pytest.mark.parametrize("kind", ["single", "vector"])
def test_ap_gym_is_measured_on_the_same_images(kind: str) -> None:
    pytest.importorskip("ap_gym", reason="needs an environment of its own: ap_gym, see foveasim.bench.peers")
    from foveasim.bench import peers

    case = next(case for case in peers.ap_gym_cases() if case.name == f"peer/ap_gym/{kind}/12x12")
    assert case.measure(replace(QUICK, repeats=1))[""].value > 0
    seen, _ = peers._ap_gym_config(12, 0).dataset[3]
    np.testing.assert_allclose(seen, pictures(96, 256, 0)[3] / 255, atol=1e-6)
