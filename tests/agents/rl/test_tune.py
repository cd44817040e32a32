"""``foveasim tune``: what is searched, that a search prunes, goes on and leaves options that ``train`` takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import save_network
from foveasim.agents.rl.config import PRESETS, TrainConfig
from foveasim.agents.rl.tune import SPACES, TuneConfig, run, suggest
from foveasim.cli import commands
from foveasim.errors import InvalidValueError, UnknownNameError

SPACE: dict[str, Any] = {
    "options.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "linear": True},
    "options.n_epochs": {"low": 1, "high": 2},
    "policy_options.width": [4, 8],
    "budget": [2, 3],
}

VIEWING = [name for name in PRESETS.names() if PRESETS.values(name).get("task", "view") == "view"]


class Asked:
    """Answers as a trial does, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.asked.append((name, choices))
        return choices[-1]

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        self.asked.append((name, low, high, log))
        return high

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        self.asked.append((name, low, high, log))
        return low


def test_a_trial_is_asked_for_what_the_space_says() -> None:
    trial = Asked()
    found = suggest(trial, SPACE)
    assert found == {
        "options.learning_rate": "lin_0.0001",
        "options.n_epochs": 2,
        "policy_options.width": 8,
        "budget": 3,
    }
    assert trial.asked == [
        ("options.learning_rate", 1e-4, 1e-2, True),
        ("options.n_epochs", 1, 2, False),
        ("policy_options.width", [4, 8]),
        ("budget", [2, 3]),
    ]


@pytest.mark.parametrize("preset", VIEWING)
def test_the_usual_space_of_every_preset_can_be_trained(preset: str) -> None:
    config = TuneConfig(preset=preset)
    assert config.domains() == SPACES[PRESETS.values(preset)["algorithm"]]
    training = config.training(suggest(Asked(), config.domains()))
    assert training.steps == config.steps
    assert training.options["gamma"] == 0.9
    before = PRESETS.values(preset)
    assert training.options.keys() == before["options"].keys() | {
        name.partition(".")[2] for name in config.domains() if name.startswith("options.")
    }
    assert training.policy_options["width"] == 32


def test_options_go_over_the_preset_and_what_is_found_over_both() -> None:
    config = TuneConfig(train={"retina": "pyramid", "budget": 5}, space={"budget": [7]}, data="photos", seed=3)
    made = config.options({"budget": 7, "options.gamma": 0.0})
    assert (made["retina"], made["budget"], made["seed"]) == ("pyramid", 7, 3)
    assert made["options"] == {**PRESETS.values("ppo")["options"], "gamma": 0.0}
    assert PRESETS.values("ppo")["options"]["gamma"] != 0.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trials": 0}, InvalidValueError, "trials"),
        ({"minutes": float("nan")}, InvalidValueError, "minutes"),
        ({"validate": []}, InvalidValueError, "validate must name scenes"),
        ({"preset": "pp"}, UnknownNameError, "Did you mean 'ppo'"),
        ({"train": {"steps": 3}}, InvalidValueError, "must not set 'steps'"),
        ({"train": {"budgets": 3}}, InvalidValueError, "no option 'budgets'"),
        ({"space": {"option.gamma": [0.5]}}, InvalidValueError, "no option 'option'"),
        ({"train": {"budget": 0}}, InvalidValueError, "budget"),
        ({"space": {"options.gamma": 0.5}}, InvalidValueError, "options.gamma must be a list"),
        ({"space": {"options.gamma": []}}, InvalidValueError, "options.gamma must be a list"),
        ({"space": {"options.gamma": {"low": 0.5}}}, InvalidValueError, "options.gamma must be a list"),
        ({"space": {"options.gamma": {"low": 0.5, "high": 0.1}}}, InvalidValueError, "high of options.gamma"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TuneConfig(**options)


def test_three_trials_leave_options_that_train_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(tmp_path / "net.safetensors", make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    fixed = {
        "limit": 2,
        "validate_limit": 2,
        "size": [48, 48],
        "network": str(tmp_path / "net.safetensors"),
        "lanes": 4,
        "features": {"cells": 4},
        "options": {"n_steps": 4, "batch_size": 16},
    }

    def search(trials: int, *, resume: bool = False) -> None:
        options: dict[str, Any] = {"steps": 32, "evaluate_steps": 16, "trials": trials, "train": fixed}
        assert run(TuneConfig(**options, space=SPACE, out=str(tmp_path / "tune"), resume=resume)) == 0

    search(2)
    first = json.loads((tmp_path / "tune" / "tune.json").read_text())
    with pytest.raises(InvalidValueError, match=r"is not empty: it holds best\.yaml.* by --resume"):
        search(3)
    search(3, resume=True)
    rows = json.loads((tmp_path / "tune" / "tune.json").read_text())
    assert rows[:2] == first
    assert [row["state"] for row in rows] == ["complete"] * 3
    for row in rows:
        assert row["error"] == min(row["validation"])
        assert len(row["validation"]) == 2
        assert row["options"].keys() == SPACE.keys()
    best = min(rows, key=lambda row: row["error"])
    text = (tmp_path / "tune" / "best.yaml").read_text()
    assert f"trial {best['trial']}:" in text.splitlines()[0]
    config = TrainConfig(**yaml.safe_load(text))
    assert config.options["learning_rate"] == best["options"]["options.learning_rate"]
    assert config.budget == best["options"]["budget"]
    out = tmp_path / "train"
    arguments = ["--config", str(tmp_path / "tune" / "best.yaml"), "--steps=16", "--validate=[]", f"--out={out}"]
    assert commands.main(["train", *arguments]) == 0
    assert (out / "policy.safetensors").is_file()
    assert "is the best" in capsys.readouterr().out


def test_a_trial_that_validates_badly_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    from foveasim.agents.rl import engine_sb3 as training

    class Doomed:
        """Learns for four validations, each time worse than the trial before it."""

        made = 0

        def __init__(self, config: TrainConfig, out: Path, stop: Any) -> None:
            self.history: dict[str, Any] = {"validation": []}
            self.model = self
            self.num_timesteps = 0
            self.number = Doomed.made
            Doomed.made += 1

        def validate(self, when: str = "") -> None:
            self.history["validation"].append({"error": 0.1 * (self.number + 1)})

        def run(self) -> int:
            for when in ("start", "", "", "", "end"):
                self.validate(when)
            return 0

    monkeypatch.setattr(training, "Training", Doomed)
    assert run(TuneConfig(trials=6, out=str(tmp_path))) == 0
    rows = json.loads((tmp_path / "tune.json").read_text())
    assert [row["state"] for row in rows] == ["complete"] * 4 + ["pruned"] * 2
    assert [len(row["validation"]) for row in rows] == [4] * 4 + [1] * 2
    assert "trial 0:" in (tmp_path / "best.yaml").read_text()
    assert optuna.__version__


def test_ctrl_c_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")

    def stop(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("foveasim.agents.rl.tune._try", stop)
    assert run(TuneConfig(trials=1, out=str(tmp_path))) == 130
    printed = capfd.readouterr()
    assert printed.out == f"stopped; go on with what is in {tmp_path} by --resume\n"
    assert printed.err == ""
    for kept in ("trial-0", "trial-mine"):
        (tmp_path / kept).mkdir(exist_ok=True)
    assert run(TuneConfig(trials=1, out=str(tmp_path), overwrite=True)) == 130  # only what a search wrote goes
    assert not (tmp_path / "trial-0").exists() and (tmp_path / "trial-mine").exists()


def test_without_optuna_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert commands.main(["tune", f"--out={tmp_path}"]) == 1
    assert "pip install 'foveasim[tune]'" in capsys.readouterr().err
