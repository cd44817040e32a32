"""``foveasim train``: options, presets, runs, resuming, Ctrl-C, and that a policy learns."""

from __future__ import annotations

import json
import runpy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.gaze_policy.policy_files import load_policy
from foveasim.agents.rl.command import run
from foveasim.agents.rl.config import PRESETS, TrainConfig
from foveasim.agents.rl.engine_sb3 import Training
from foveasim.agents.rl.evaluation import Score
from foveasim.agents.rl.sb3_model import algorithm_options, restore_model, save_model
from foveasim.cli import commands
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError, WeightsError
from foveasim.runs.interrupts import InterruptFlag

PPO = {"n_steps": 4, "batch_size": 16, "n_epochs": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {"options": PPO, "features": {"cells": 6}},
    "maskable_ppo": {"options": PPO, "features": {"cells": 6}},
    "recurrent_ppo": {"options": PPO, "policy": "point", "policy_options": {"hidden": [8], "memory": 8}},
    "sac": {
        "options": {"buffer_size": 500, "learning_starts": 16, "batch_size": 16, "train_freq": 4},
        "policy": "flat",
        "features": {"cells": 4},
    },
}


def config(network: str, out: Path, **options: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "data": "photos",
        "limit": 4,
        "size": (48, 48),
        "network": network,
        "budget": 3,
        "lanes": 4,
        "steps": 64,
        "out": str(out),
        **OPTIONS[options.get("algorithm", "ppo")],
    }
    return TrainConfig(**(given | options))


@pytest.mark.parametrize("algorithm", list(OPTIONS))
def test_every_algorithm_trains_and_leaves_a_policy(algorithm: str, network: str, tmp_path: Path) -> None:
    before = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    assert run(config(network, tmp_path, algorithm=algorithm)) == 0
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])
    policy = load_policy(tmp_path / "policy.safetensors")
    assert policy.card["steps"] >= 64
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["training"][-1]["steps"] >= 64
    assert found["config"]["algorithm"] == algorithm
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob("*.part"))


def test_a_run_repeats_by_its_seed(network: str, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(config(network, tmp_path / name, seed=seed))
        weights.append(load_policy(tmp_path / name / "last.safetensors").actor.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_validation_compares_and_keeps_the_best(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(network, tmp_path, validate="photos", validate_limit=3, evaluate_steps=16))
    found = json.loads((tmp_path / "train.json").read_text())
    rows = found["validation"]
    assert [row["steps"] for row in rows] == [0, 16, 32, 48, 64]
    assert len(rows[0]["curve"]) == 4
    assert set(rows[0]["less_than"]) == {"random", "uncertainty"}
    assert rows[0]["error"] == pytest.approx(np.mean(rows[0]["curve"][1:]))
    assert load_policy(tmp_path / "policy.safetensors").card["config"]["budget"] == 3
    printed = capsys.readouterr().out
    assert "less than uncertainty" in printed


def test_imitation_comes_before(network: str, tmp_path: Path) -> None:
    run(config(network, tmp_path, imitate=4, imitation={"candidates": 4, "epochs": 2}))
    found = json.loads((tmp_path / "train.json").read_text())["imitation"]
    assert found["moments"] == 12
    assert {"random", "before", "after", "epoch"} <= set(found)
    for name, options in (("sac", OPTIONS["sac"]), ("ppo", {"policy": "point", "options": PPO})):
        run(config(network, tmp_path / name, algorithm=name, **options, imitate=4, imitation={"candidates": 4}))


@pytest.mark.parametrize("algorithm", ["ppo", "recurrent_ppo", "sac"])
def test_a_checkpoint_brings_back_all_weights_and_optimizers(algorithm: str, network: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        made = [
            Training(config(network, tmp_path, algorithm=algorithm, seed=seed), tmp_path, InterruptFlag())
            for seed in (0, 5)
        ]
        first, second = (training.model for training in made)
        first.learn(48)
        save_model(tmp_path / "model.safetensors", first, {"what": [1, 2]})
        assert restore_model(tmp_path / "model.safetensors", second) == {"what": [1, 2]}
    assert second.num_timesteps == first.num_timesteps
    for name, value in first.policy.state_dict().items():
        torch.testing.assert_close(second.policy.state_dict()[name], value, rtol=0, atol=0)
    optimizer = "actor" if algorithm == "sac" else "policy"
    one, other = (
        (model.policy.actor if optimizer == "actor" else model.policy).optimizer.state_dict()["state"]  # type: ignore[union-attr]
        for model in (first, second)
    )
    assert one.keys() == other.keys()
    assert one
    for number, state in one.items():
        for key, value in state.items():
            torch.testing.assert_close(other[number][key], value, rtol=0, atol=0)
    if algorithm == "sac":
        assert torch.equal(first.log_ent_coef, second.log_ent_coef)  # type: ignore[attr-defined]


def test_a_run_goes_on_where_it_was(network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(config(network, tmp_path, validate="photos", validate_limit=2))
    with pytest.raises(InvalidValueError, match=r"is not empty: it holds checkpoint\.safetensors"):
        run(config(network, tmp_path))
    capsys.readouterr()
    run(config(network, tmp_path, resume=True, steps=128, validate="photos", validate_limit=2, lanes=8))
    assert "other than in the run so far: lanes 8 instead of 4" in capsys.readouterr().out
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["training"][-1]["steps"] == 128
    assert [row["steps"] for row in found["validation"]] == [0, 64, 128]
    minutes = [row["minutes"] for row in found["validation"]]
    assert minutes == sorted(minutes)
    with pytest.raises(WeightsError, match="does not fit this run"):
        run(config(network, tmp_path, resume=True, policy_options={"width": 8}))
    with pytest.raises(WeightsError, match="this run trains MaskablePPO"):
        run(config(network, tmp_path, resume=True, algorithm="maskable_ppo"))
    run(config(network, tmp_path, overwrite=True))
    assert json.loads((tmp_path / "train.json").read_text())["training"][-1]["steps"] == 64
    with pytest.raises(InvalidValueError, match="nothing to resume"):
        run(config(network, tmp_path / "new", resume=True))


def test_ctrl_c_ends_a_run_in_order(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    from foveasim.runs.progress import TrainingDisplay

    def count(self: TrainingDisplay, done: int) -> None:
        taken.append(done)
        if len(taken) == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TrainingDisplay, "update_steps", count)
    before = signal.getsignal(signal.SIGINT)
    assert run(config(network, tmp_path, steps=10_000)) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert len(taken) == 6
    stopped = load_policy(tmp_path / "last.safetensors").card["steps"]
    assert stopped == 24
    monkeypatch.undo()
    assert run(config(network, tmp_path, resume=True, steps=48)) == 0


def test_time_ends_a_run(network: str, tmp_path: Path) -> None:
    run(config(network, tmp_path, steps=10**8, minutes=1e-6))
    assert json.loads((tmp_path / "train.json").read_text())["training"][-1]["steps"] < 100


def test_presets_are_whole() -> None:
    assert {"ppo", "imitate", "maskable_ppo", "recurrent_ppo", "sac"} <= set(PRESETS.names())
    for name in PRESETS.names():
        made = TrainConfig(**PRESETS.values(name))
        assert made.options["gamma"] < 1
        assert PRESETS.file(name).is_file()
    with pytest.raises(UnknownNameError, match="Did you mean 'ppo'"):
        PRESETS.file("ppp")


def test_the_command_line_takes_presets_and_options(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train --preset ppo --network {network} --limit 2 --size 48x48 --lanes 4 --steps 16 --budget 2"
    options = ["--options", json.dumps({**PPO, "learning_rate": "lin_0.001"}), "--out", str(tmp_path / "run")]
    assert commands.main([*words.split(), *options]) == 0
    assert "wrote" in capsys.readouterr().out
    agent = tmp_path / "run" / "policy.safetensors"
    assert commands.main(["check", str(agent), "--size", "48x48", "--limit_ms", "1000"]) == 0
    words = f"compare random gaze={agent} --data photos --limit 2 --size 48x48 --network {network} --fixations 3"
    assert (
        commands.main([*words.split(), "--seeds", "1", "--resamples", "100", "--out", str(tmp_path / "compare")]) == 0
    )
    assert "gaze" in json.dumps(json.loads((tmp_path / "compare" / "compare.json").read_text()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "dqn"}, "algorithm must be one of ppo"),
        ({"algorithm": "sac"}, "policy 'cells' chooses cells"),
        ({"algorithm": "sac", "policy": "flat", "actions": "cell"}, "sac chooses points"),
        ({"algorithm": "maskable_ppo", "policy": "point"}, "maskable_ppo chooses cells"),
        ({"algorithm": "recurrent_ppo", "policy": "point", "imitate": 3}, "imitate must be 0"),
        ({"policy_options": {"memory": 3}}, "memory is for recurrent_ppo"),
        ({"rewards": {}}, "at least one term"),
        ({"features": {"maps": ["std"]}, "policy_options": {"prior": 1.0}}, "prior goes by the map"),
        ({"budget": 0}, "budget"),
        ({"minutes": 0.0}, "minutes"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TrainConfig(**options)


def test_unknown_options_are_refused_by_name(network: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="rewards: there is no 'suprise'"):
        TrainConfig(rewards={"suprise": 1.0})
    with pytest.raises(InvalidTypeError, match="policy_options: there is no 'wide'"):
        TrainConfig(policy_options={"wide": 1})
    with pytest.raises(InvalidValueError, match="options do not suit ppo"):
        run(config(network, tmp_path, options={"n_stepz": 3}))


def test_a_learning_rate_may_fall() -> None:
    made = algorithm_options({"learning_rate": "lin_1e-3", "clip_range": "0.2", "ent_coef": "auto", "n_steps": 8})
    assert made["learning_rate"](0.25) == pytest.approx(2.5e-4)
    assert made["learning_rate"](-3.0) == 0  # a rollout that reaches beyond the end must not climb the loss
    assert made["clip_range"] == 0.2
    assert (made["ent_coef"], made["n_steps"]) == ("auto", 8)


def test_a_learning_rate_is_never_negative_in_a_run_that_overshoots(network: str, tmp_path: Path) -> None:
    """One saccade is asked for, and a rollout is 16 long: the rate has then fallen to 0, and not below."""
    options = {**PPO, "learning_rate": "lin_0.001"}
    with torch.random.fork_rng():
        training = Training(config(network, tmp_path, steps=1, options=options), tmp_path, InterruptFlag())
        assert training.run() == 0
    assert training.model.num_timesteps == 16
    rates = [group["lr"] for group in training.model.policy.optimizer.param_groups]
    assert rates == [0.0]


def test_scores_are_compared_scene_by_scene() -> None:
    ours = Score(np.array([[9.0, 1.0, 3.0], [9.0, 2.0, 2.0]]))
    theirs = Score(np.array([[9.0, 3.0, 5.0], [9.0, 3.0, 3.0]]))
    assert ours.error == 2
    assert ours.curve == [9, 1.5, 2.5]
    mean, half = ours.improvement_over(theirs)
    assert mean == 1.5
    assert half == pytest.approx(1.96 * np.std([2, 1], ddof=1) / np.sqrt(2))


def test_a_policy_learns(network: str, tmp_path: Path) -> None:
    """From no preference at all, on one photo: it begins as random gaze and comes near to the greedy choice."""
    made = config(
        network,
        tmp_path,
        limit=1,
        mirror=False,
        lanes=16,
        steps=1600,
        features={"cells": 4, "maps": ["gain", "acuity", "place", "std"]},
        policy_options={"prior": 0.0},
        rewards={"information_gain": 100.0},
        options={"n_steps": 12, "batch_size": 64, "n_epochs": 4, "learning_rate": 0.01, "gamma": 0.6},
    )
    with torch.random.fork_rng():
        training = Training(made, tmp_path, InterruptFlag())
        seen: list[float] = []
        lanes, greedy = training.feature_env, 0.0
        lanes.reset(seed=0)
        for _ in range(made.budget):
            greedy += float(lanes.step(lanes.current_features.gain.argmax(1).numpy())[1].mean())

        def watch(local: dict[str, Any], _: Any) -> bool:
            seen.extend(info["episode"]["r"] for info in local["infos"] if "episode" in info)
            return True

        training.model.learn(made.steps, callback=watch)
    early, late = np.mean(seen[:100]), np.mean(seen[-100:])
    assert early < 0.88 * greedy
    assert late > 0.95 * greedy


def test_the_example_trains_saves_and_compares(
    network: str, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = runpy.run_path(str(root / "examples" / "train_saccades.py"))
    out = str(tmp_path / "gaze.safetensors")
    options = program["Options"](steps=128, lanes=8, budget=2, network=network, size=48, out=out)
    with torch.random.fork_rng():
        program["main"](options)
    printed = capsys.readouterr().out
    assert printed.count("after 2 saccades") == 3
    assert load_policy(out).features.cells == 12


@pytest.mark.slow
def test_a_policy_learns_to_look_at_photos(tmp_path: Path) -> None:
    """With the shipped network on the bundled photos: it begins as random gaze and becomes clearly better."""
    made = TrainConfig(
        data="photos",
        validate="photos",
        against=["random"],
        budget=4,
        lanes=32,
        steps=3840,
        evaluate_steps=1920,
        features={"cells": 8},
        policy_options={"prior": 0.0},
        options={"n_steps": 12, "batch_size": 96, "n_epochs": 4, "learning_rate": 0.003, "gamma": 0.6},
        out=str(tmp_path),
        threads=1,
    )
    assert run(made) == 0
    found = json.loads((tmp_path / "train.json").read_text())
    errors = [row["error"] for row in found["validation"]]
    assert errors[0] > errors[1] > errors[2]
    last = found["validation"][-1]["less_than"]["random"]
    assert last["mean"] > last["half"] > 0
    assert found["validation"][-1]["error"] < 0.8 * found["references"]["random"]["error"]
