"""``foveasim train --engine rllib``: what it refuses, how options reach Ray RLlib, and a run with two runners."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.gaze_policy.policy_agents import PolicyAgent
from foveasim.agents.gaze_policy.policy_files import load_policy
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import save_network
from foveasim.agents.rl.config import PRESETS, TrainConfig
from foveasim.cli import commands
from foveasim.errors import InvalidValueError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs an environment of its own: foveasim[ray]"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "sac", "policy": "point"}, "algorithm must be 'ppo'"),
        ({"imitate": 5}, "imitate must be 0"),
        ({"resume": True}, "resume must be False"),
        ({"tensorboard": True}, "tensorboard must be False"),
        ({"lanes": 3, "env_runners": 4}, "lanes must be at least env_runners"),
        ({"env_runners": -1}, "env_runners"),
        ({"engine": "ray"}, "engine must be one of sb3, rllib"),
    ],
)
def test_what_rllib_does_not_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TrainConfig(**{"engine": "rllib", **options})


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray.rllib.algorithms.ppo", None)
    assert commands.main(["train", "--engine=rllib", "--env-runners=2", f"--out={tmp_path}"]) == 1
    assert "pip install 'foveasim[ray]'" in capsys.readouterr().err


@needs_ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own making
def test_options_are_told_by_the_names_of_rllib() -> None:
    from foveasim.agents.rl.engine_rllib import ppo_config

    config = TrainConfig(**{**PRESETS.values("ppo"), "engine": "rllib", "env_runners": 3, "lanes": 64, "steps": 1000})
    made = ppo_config(config, config.actor_config((12, 12), 6))
    assert made.num_envs_per_env_runner == 22  # 64 lanes in three parts, rounded up
    assert made.train_batch_size_per_learner == 16 * 66
    assert (made.minibatch_size, made.num_epochs, made.gamma, made.lambda_) == (256, 4, 0.6, 0.95)
    assert made.lr == [[0, 0.001], [1000, 0.0]]
    assert (made.clip_param, made.entropy_coeff, made.vf_loss_coeff, made.grad_clip) == (0.2, 0.002, 0.5, 0.5)
    with pytest.raises(InvalidValueError, match="no 'target_kl'"):
        ppo_config(replace(config, options={"target_kl": 0.1}), config.actor_config((12, 12), 6))


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["cells", "point"])
def test_two_env_runners_train_a_policy_that_foveasim_runs(policy: str, tmp_path: Path) -> None:
    """In a process of its own: Ray starts others, and talks to them by the network of this machine."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(tmp_path / "net.safetensors", make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    out = tmp_path / "run"
    options = [
        "--engine=rllib",
        "--env-runners=2",
        "--data=photos",
        "--limit=4",
        "--validate=photos",
        "--validate_limit=2",
        "--evaluate_steps=48",
        "--size=48x48",
        "--budget=3",
        "--lanes=4",
        "--steps=96",
        f"--policy={policy}",
        f"--network={tmp_path / 'net.safetensors'}",
        "--features={cells: 6}",
        "--options={n_steps: 8, batch_size: 16, n_epochs: 2}",
        f"--out={out}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "foveasim", "train", *options], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 env runners of 2 lanes" in done.stdout
    found = json.loads((out / "train.json").read_text())
    assert found["training"][-1]["steps"] >= 96
    assert np.isfinite(found["training"][-1]["return"])
    assert [row["steps"] >= at for row, at in zip(found["validation"], (0, 48, 96), strict=True)] == [True] * 3
    assert (out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    first, last = (load_policy(out / f"{name}.safetensors") for name in ("policy", "last"))
    assert first.actor.config == last.actor.config
    head = last.actor.head.weight if policy == "point" else last.actor.trunk.net.head.weight  # type: ignore[union-attr]
    assert bool(head.isfinite().all())
    assert bool(head.any())  # 0 before it has learned
    seen = {
        "glimpse": np.zeros((1, 64, 48, 3), np.uint8),
        "acuity": np.full((1, 64, 48, 1), 255, np.uint8),
        "belief": np.zeros((1, 64, 48, 3), np.uint8),
        "belief_acuity": np.zeros((1, 64, 48, 1), np.uint8),
        "fixation": np.zeros((1, 2), np.float32),
        "time": np.ones((1, 1), np.float32),
    }
    agent = PolicyAgent(last)
    agent.reset(np.ones(1, np.bool_))
    action = agent.act(seen)
    assert action.shape == (1, 2) and bool((np.abs(action) <= 1).all())
