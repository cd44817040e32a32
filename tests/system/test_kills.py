"""Ctrl-C, SIGTERM and kill -9: what is written is whole, what was earned is kept, and a run goes on to the same end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foveasim.agents.evaluation.scene_runner import AgentRun, Entry, SceneRunner
from foveasim.agents.mim.weights_file import read_tensors
from foveasim.agents.pretraining import command as pretrain
from foveasim.agents.pretraining.trainer import Trainer
from foveasim.agents.rl.command import run as train
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.engine_sb3 import Training
from foveasim.cli.commands import main
from foveasim.images import download
from foveasim.runs import interrupts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Ctrl-C and SIGTERM as a terminal has them, and the number of threads as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for number, handler in before.items():
        signal.signal(number, handler)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# pretrain


TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [0, 0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    draws = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path / f"{i}.png")
    return path


def pretraining(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("pretrain", f"--data={folder}", f"--out={out}", "--steps=6", "--batch=4", "--size=32", "--threads=1"),
        *(f"--network_options={json.dumps(TINY)}", *more),
    ]


def step_of(out: Path) -> int:
    return int(json.loads(read_tensors(out / "checkpoint.safetensors")[1]["counters"])["step"])


def same(one: Path, two: Path) -> None:
    expected, found = read_tensors(one)[0], read_tensors(two)[0]
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_sigterm_ends_pretraining_after_its_step(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.train_step

    def asked(self: Trainer) -> torch.Tensor:
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", asked)
    assert main(pretraining(folder, tmp_path / "cut")) == 130
    assert step_of(tmp_path / "cut") == 4
    assert "Go on with --resume true" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(pretraining(folder, tmp_path / "cut", "--resume")) == 0
    assert main(pretraining(folder, tmp_path / "whole")) == 0
    same(tmp_path / "cut" / "lean.safetensors", tmp_path / "whole" / "lean.safetensors")


def test_a_step_that_is_too_slow_for_sigterm_is_given_up(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.train_step

    def slow(self: Trainer) -> torch.Tensor:
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(10)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", slow)
    monkeypatch.setattr(interrupts, "GRACE_S", 0.05)
    assert main(pretraining(folder, tmp_path, "--checkpoint_steps=2")) == 130
    assert step_of(tmp_path) == 2
    assert "stopped in the middle of a step. Go on from" in capsys.readouterr().out


def test_a_validation_does_not_hold_up_the_end(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*of: object, **named: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on to validate")

    monkeypatch.setattr(pretrain, "evaluate", asked)
    assert main(pretraining(folder, tmp_path, f"--validate={folder}")) == 130
    assert step_of(tmp_path) == 6
    monkeypatch.undo()
    assert main(pretraining(folder, tmp_path, f"--validate={folder}", "--resume")) == 0
    assert main(pretraining(folder, tmp_path / "whole")) == 0
    same(tmp_path / "lean.safetensors", tmp_path / "whole" / "lean.safetensors")


# train


def training(network: str, out: Path, **options: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "data": "photos",
        "limit": 3,
        "size": (48, 48),
        "network": network,
        "budget": 3,
        "lanes": 4,
        "steps": 48,
        "evaluate_steps": 16,
        "options": {"n_steps": 4, "batch_size": 8, "n_epochs": 2},
        "features": {"cells": 4},
        "threads": 1,
        "against": [],
        "out": str(out),
    }
    return TrainConfig(**(given | options))


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo"])
def test_a_policy_goes_on_from_its_checkpoint_to_the_same_end(
    network: str, tmp_path: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"algorithm": algorithm}
    if algorithm == "recurrent_ppo":
        options |= {"policy": "point", "policy_options": {"hidden": [8], "memory": 8}, "features": {}}
    begin = Training.begin_anew

    def copied(self: Training) -> None:
        if self.model.num_timesteps == 32:  # as a kill at this moment would leave it
            shutil.copytree(self.out, tmp_path / "killed")
        begin(self)

    monkeypatch.setattr(Training, "begin_anew", copied)
    assert train(training(network, tmp_path / "whole", **options)) == 0
    monkeypatch.undo()
    assert train(training(network, tmp_path / "killed", resume=True, **options)) == 0
    for name in ("checkpoint.safetensors", "policy.safetensors", "last.safetensors"):
        same(tmp_path / "whole" / name, tmp_path / "killed" / name)


def test_a_policy_is_kept_whole_when_its_update_is_cut_short(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step, made = torch.optim.Adam.step, iter(range(1, 1000))

    def asked(self: torch.optim.Adam, *of: Any) -> Any:
        if next(made) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *of)

    monkeypatch.setattr(torch.optim.Adam, "step", asked)
    assert train(training(network, tmp_path)) == 130
    assert next(made) == 4  # none after the one in which the end was asked for
    said = capfd.readouterr()
    assert "go on with --resume" in said.out and "stopping after this step" in said.err
    monkeypatch.undo()
    assert {"checkpoint.safetensors", "last.safetensors", "train.json", "curve.png"} <= set(listing(tmp_path))
    assert train(training(network, tmp_path, resume=True)) == 0


def test_before_anything_is_learned_there_is_nothing_to_keep(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SceneRunner, "run", lambda *of: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(training(network, tmp_path, against=["random"], validate="photos", validate_limit=2))
    assert listing(tmp_path) == []


def test_a_validation_of_a_policy_does_not_hold_up_the_end(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original_run, runs = SceneRunner.run, iter(range(1, 1000))

    def asked(self: SceneRunner, *of: Any) -> AgentRun:
        if next(runs) == 2:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("went on to validate")
        return original_run(self, *of)

    monkeypatch.setattr(SceneRunner, "run", asked)
    assert train(training(network, tmp_path, validate="photos", validate_limit=2)) == 130
    assert json.loads((tmp_path / "train.json").read_text())["validation"][-1]["steps"] == 0
    assert json.loads(read_tensors(tmp_path / "checkpoint.safetensors")[1]["counted"])["steps"] == 16


# compare, data get


def test_sigterm_keeps_the_agents_that_are_done(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original_run = SceneRunner.run

    def asked(self: SceneRunner, entry: Entry, *of: Any) -> AgentRun:
        if entry.label == "walk":
            signal.raise_signal(signal.SIGTERM)
        return original_run(self, entry, *of)

    monkeypatch.setattr(SceneRunner, "run", asked)
    words = ["compare", "centre", "walk", "--data=noise", "--limit=2", "--size=48x48", f"--network={network}"]
    words += ["--fixations=2", "--seeds=1", "--show=1", "--resamples=100", f"--out={tmp_path / 'out'}"]
    assert main(words) == 130
    assert list(json.loads((tmp_path / "out" / "compare.json").read_text())["agents"]) == ["centre"]
    assert "Go on with --resume" in " ".join(capsys.readouterr().out.split())
    assert main(words) == 1
    assert (
        "it holds .unfinished, compare.json, curves.csv, .... Go on with a run there by --resume"
        in capsys.readouterr().err
    )
    assert main([*words, "--resume", "--seed=1"]) == 1
    assert "of other scenes, another network or other options" in capsys.readouterr().err
    monkeypatch.setattr(
        SceneRunner, "run", lambda self, entry, *of: original_run(self, entry, *of) if entry.label == "walk" else 0
    )
    assert main([*words, "--resume"]) == 0
    assert "centre was done before" in capsys.readouterr().out
    monkeypatch.undo()
    whole = [*words[:-1], f"--out={tmp_path / 'whole'}"]
    assert main(whole) == 0
    for name in ("curves.csv", "fixations.csv", "differences.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert listing(tmp_path / "out") == listing(tmp_path / "whole")
    assert main([*words, "--overwrite", "--resume"]) == 1


def test_sigterm_says_what_is_kept_of_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(url: str, part: Path, *of: object) -> None:
        part.write_bytes(bytes(300_000))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(download, "fetch", asked)
    assert main(["data", "get", "imagenette", str(tmp_path)]) == 130
    assert "0.3 MB are saved" in " ".join(capsys.readouterr().out.split())
    assert download.partial_bytes(tmp_path / "imagenette2-160.tgz.part") == 300_000


# all of it, at random


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_runs_that_are_killed_at_random_moments_end_as_others(root: Path) -> None:
    command = [sys.executable, str(root / "tests" / "stress" / "kill.py"), "--kills", "6", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_sigterm_ends_the_workers_of_a_paper_in_order(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("one", "two"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(8):
                image = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / "data" / split / name / f"{i}.png")
    out, options = tmp_path / "out", json.dumps({"network_options": TINY, "batch": 4, "checkpoint_steps": 10**6})
    words = ["paper", str(tmp_path / "data"), f"--out={out}", "--conditions=[paper/periphery]", "--seeds=[0]"]
    words += ["--epochs=100000", "--recipe=quick", f"--options={options}", "--probes=[ridge]", "--size=32"]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "foveasim", *words, "--threads=1"], stdout=said, stderr=said, start_new_session=True
        )
    run = out / "lean" / "paper/periphery" / "seed-0"
    until_s = time.monotonic() + 200
    while not (run / "log.jsonl").exists() and time.monotonic() < until_s and process.poll() is None:
        time.sleep(0.05)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)  # all of them, as a terminal does
    began_s = time.monotonic()
    assert process.wait(60) == 130
    assert time.monotonic() - began_s < 20  # more than five, for many may share the processor
    text = (tmp_path / "said").read_text()
    assert "2 of 3 runs are done" in text and "Go on with --resume" in text and "Traceback" not in text
    assert step_of(run) > 0  # no checkpoint was due: it was written at the end
