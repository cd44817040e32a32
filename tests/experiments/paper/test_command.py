from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from foveasim.agents.pretraining.config import PRESETS
from foveasim.errors import FoveasimError, InvalidValueError, UnknownNameError, WeightsError
from foveasim.experiments.paper import run as paper_run
from foveasim.experiments.paper.command import PaperConfig, run
from foveasim.experiments.paper.run import Job, pretrain_config, run_job

TINY: dict[str, Any] = {"network_options": {"width": 8, "code": 8, "neck": (8, 8), "blocks": (0, 0)}, "batch": 8}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that a linear readout tells apart: bright above, bright below."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 8)):
        for name in ("above", "below"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 80, (40, 44, 3), dtype=np.uint8)
                image[(slice(0, 20) if name == "above" else slice(20, 40))] += 150
                assert cv2.imwrite(str(folder / split / name / f"{i}.png"), image)
    return folder


def config(labelled: Path, out: Path, **changes: Any) -> PaperConfig:
    values: dict[str, Any] = {
        "data": str(labelled),
        "out": str(out),
        "conditions": ["paper/periphery", "paper/autoencoder"],
        "seeds": [0],
        "epochs": 1,
        "recipe": "quick",
        "options": TINY,
        "probes": ["ridge"],
        "snapshots": 1,
        "size": 32,
        "threads": 1,
    }
    return PaperConfig(**{**values, **changes})


def test_one_run_is_measured_and_comes_back_as_it_was(labelled: Path, tmp_path: Path) -> None:
    shared = config(labelled, tmp_path, probes=["ridge", "adam"]).shared_options()
    job = Job("lean", "paper/periphery", 3)
    assert not job.done(shared) and job.progress(shared) == 0.0
    line = run_job(job, shared)
    assert line.startswith("lean paper/periphery seed 3: ")
    assert job.done(shared) and job.progress(shared) == 1.0
    found = job.result(shared)
    assert (found.network, found.condition, found.seed, found.images_seen) == ("lean", "paper/periphery", 3, 24)
    assert found.probe == "ridge" and list(found.others) == ["adam"]
    assert found.tested == len(found.right) == 8 and found.accuracy == pytest.approx(found.right.mean())
    assert found.low <= found.accuracy <= found.high and found.chance == 0.5
    assert [point.images_seen for point in found.latent] == [0, 24]
    assert found.masked_error is not None and 0 < found.masked_error < 1
    pixels = Job("lean", "pixels", 0)
    run_job(pixels, shared)
    assert pixels.result(shared).accuracy == 1.0 and pixels.result(shared).parameters == 0


def test_a_stopped_run_goes_on_from_its_checkpoint(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, job = config(labelled, tmp_path, epochs=3).shared_options(), Job("lean", "paper/periphery", 0)
    run_job(job, shared)
    whole = job.result(shared)
    (job.folder(shared) / "result.json").unlink()
    seen: list[bool] = []
    train = paper_run.train

    def watched(options: Any, *rest: Any, **more: Any) -> Any:
        seen.append(options.resume)
        return train(options, *rest, **more)

    monkeypatch.setattr(paper_run, "train", watched)
    run_job(job, shared)
    again = job.result(shared)
    assert seen == [True]
    assert (again.accuracy, again.masked_error, again.latent) == (whole.accuracy, whole.masked_error, whole.latent)


def test_a_comparison_runs_reports_and_is_not_run_twice(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(labelled, tmp_path))
    assert "4 runs, 0 of them done" in capsys.readouterr().out
    for name in ("paper.csv", "accuracy.png", "latent.png", "reconstructions.png", "report.md", "paper.json"):
        assert (tmp_path / name).stat().st_size > 0
    with (tmp_path / "paper.csv").open(encoding="utf-8") as file:
        conditions = {row["condition"] for row in csv.DictReader(file)}
    assert conditions == {"random", "pixels", "paper/periphery", "paper/autoencoder"}
    result = tmp_path / "lean" / "paper/periphery" / "seed-0" / "result.json"
    before = result.stat().st_mtime_ns
    with pytest.raises(InvalidValueError, match=r"is not empty: .* by --resume"):
        run(config(labelled, tmp_path))
    run(config(labelled, tmp_path, resume=True))
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    assert result.stat().st_mtime_ns == before
    with pytest.raises(WeightsError, match="differs in epochs"):
        run(config(labelled, tmp_path, epochs=2, resume=True))


def test_a_run_that_fails_does_not_take_the_others_with_it(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsError, match="1 of 4 runs failed: lean paper/periphery_object seed 0"):
        (tmp_path / "masks").mkdir()
        some = {"conditions": ["paper/periphery_object", "paper/autoencoder"], "masks": str(tmp_path / "masks")}
        run(config(labelled, tmp_path / "out", **some))
    output = capsys.readouterr().out
    assert "foveasim segment" in output and "lean paper/autoencoder seed 0: " in output
    assert (tmp_path / "out" / "report.md").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": ["paper/covert_object"]}, "foveasim segment"),
        ({"networks": ["nonet"]}, "unknown network"),
        ({"data": "nowhere/at/all"}, "foveasim data get"),
        ({"unlabelled": ["nowhere/at/all"]}, "foveasim data get"),
        ({"options": {"retinas": {"disc": {"hiden": 1}}}}, "hiden"),
    ],
)
def test_what_would_stop_a_run_stops_the_comparison_before_it_begins(
    labelled: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(FoveasimError, match=message):
        run(config(labelled, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "message"), [("foo", "none of that name"), ("steps", "the comparison sets it")])
def test_options_that_would_do_nothing_are_refused(labelled: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        config(labelled, tmp_path, options={name: 3})


def test_stl10_is_pretrained_on_what_has_no_label(tmp_path: Path) -> None:
    binary = tmp_path / "stl10_binary"
    binary.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("unlabeled", 16), ("train", 30), ("test", 20)):
        rng.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8).tofile(binary / f"{part}_X.bin")
        if part != "unlabeled":
            (np.arange(count) % 10 + 1).astype(np.uint8).tofile(binary / f"{part}_y.bin")
    (binary / "class_names.txt").write_text("\n".join("abcdefghij") + "\n", encoding="utf-8")
    shared, job = config(tmp_path, tmp_path / "out").shared_options(), Job("lean", "paper/periphery", 0)
    assert pretrain_config(job, shared).data == [f"{tmp_path}@unlabeled"]
    run_job(job, shared)
    found = job.result(shared)
    assert (found.images_seen, found.tested, found.chance) == (16, 20, 0.1)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(labelled: Path, tmp_path: Path) -> None:
    options = json.dumps({**TINY, "checkpoint_steps": 5})
    words = [str(labelled), "--out", str(tmp_path), "--epochs", "100000", "--options", options, "--threads", "1"]
    words += ["--conditions", "[paper/periphery]", "--seeds", "[0]", "--size", "32", "--recipe", "quick"]
    # a session of its own, so that its workers can be found
    process = subprocess.Popen([sys.executable, "-m", "foveasim", "paper", *words], start_new_session=True)
    checkpoint = tmp_path / "lean" / "paper/periphery" / "seed-0" / "checkpoint.safetensors"
    until = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert checkpoint.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("a worker outlived the process that started it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ""}, "labelled images"),
        ({"conditions": []}, "at least one"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [-1]}, "seeds"),
        ({"epochs": 0}, "epochs"),
        ({"probes": ["svm"]}, "adam, lbfgs, ridge"),
        ({"snapshots": 0}, "snapshots"),
        ({"recipe": "slow"}, "published or quick"),
    ],
)
def test_config_errors(labelled: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        config(labelled, tmp_path, **changes)


def test_an_unknown_condition_names_the_nearest(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="paper/periphery"):
        config(labelled, tmp_path, conditions=["paper/perifery"])


def test_the_published_recipe_is_that_of_the_preset(labelled: Path, tmp_path: Path) -> None:
    published = pretrain_config(
        Job("paper", "paper/periphery", 0), config(labelled, tmp_path, recipe="published", options={}).shared_options()
    )
    assert (published.optimizer, published.lr, published.batch, published.ema_decay) == ("adam", 1e-4, 512, 0.0)
    quick = pretrain_config(Job("paper", "paper/periphery", 0), config(labelled, tmp_path, options={}).shared_options())
    assert quick.optimizer == "adamw" and quick.retinas == published.retinas and quick.gaze == "centre"


def test_one_seed_of_everything_comes_before_the_next(labelled: Path, tmp_path: Path) -> None:
    jobs = config(labelled, tmp_path, conditions=PRESETS.names(), seeds=[0, 1], networks=["lean", "vit"]).jobs()
    trained = [job for job in jobs if job.condition not in ("random", "pixels")]
    assert [job.seed for job in trained] == sorted(job.seed for job in trained)
    assert [job for job in jobs if job.condition == "pixels"] == [Job("lean", "pixels", 0)]
    assert len(jobs) == len(set(jobs))
