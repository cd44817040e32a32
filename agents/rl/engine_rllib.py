"""Training in many processes, on one machine or a cluster: ``foveasim train --engine rllib --env_runners N``.

Ray RLlib's PPO; env runners look and predict, one learner learns. The policy is the one that the engine sb3 trains, and
so is its file.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from foveasim.agents.evaluation.entries import open_entries
from foveasim.agents.gaze_policy.network import Actor, ActorConfig, Trunk
from foveasim.agents.gaze_policy.policy_agents import PolicyAgent
from foveasim.agents.gaze_policy.policy_files import Policy, fingerprint_weights, save_policy
from foveasim.agents.interface import Agent
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.evaluation import Score, Validator
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.agents.rl.tasks import make_feature_env, read_training_scenes, retina_of
from foveasim.drawing.training_curve import draw_curve
from foveasim.errors import InvalidValueError, MissingDependencyError
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.progress import TrainingDisplay
from foveasim.runs.whole_files import write_atomically

__all__ = ["GazeModule", "RllibTraining", "make_eyes", "ppo_config", "ray_part"]

_OPTIONS = {
    "batch_size": "minibatch_size",
    "n_epochs": "num_epochs",
    "gamma": "gamma",
    "gae_lambda": "lambda_",
    "clip_range": "clip_param",
    "ent_coef": "entropy_coeff",
    "vf_coef": "vf_loss_coeff",
    "max_grad_norm": "grad_clip",
}
"""The options of PPO by the names of stable-baselines3, as presets have them, and by those of RLlib."""


class RllibTraining:
    """A run.

    Args:
        config: Options of the run.
        out: Its folder, which is there.
        stop: Whether to end early.

    Raises:
        FoveasimError: An option that cannot be used, data that cannot be read.
        MissingDependencyError: Ray is not installed.
    """

    def __init__(self, config: TrainConfig, out: Path, stop: InterruptFlag) -> None:
        ray_part("ray.rllib.algorithms.ppo")  # before anything that takes time
        self.config, self.out, self.stop = config, out, stop
        self.belief_predictor = BeliefPredictor(config.network, config.device, config.precision)
        network = self.belief_predictor.predictor.network
        self.fingerprint = fingerprint_weights(network)
        feature_config = config.feature_config()
        latent = network.latent_shape((32, 32))[0] if "latent" in feature_config.numbers else 0
        self.actor = config.actor_config(feature_config.grid(config.size), feature_config.count(latent))
        _, held_out = read_training_scenes(replace(config, limit=1, mirror=False))
        self.validator = None
        if held_out is not None:
            self.validator = Validator(
                held_out, retina_of(config), self.belief_predictor.predictor, budget=config.budget, seed=config.seed
            )
        self.baseline_scores: dict[str, Score] = {}
        self.history: dict[str, Any] = {"training": [], "validation": [], "imitation": None}
        self.display, self.best, self.steps, self.validated = TrainingDisplay(config.steps), float("inf"), 0, 0
        self.began_s = time.monotonic()

    def run(self) -> int:
        """Train; see :func:`foveasim.agents.rl.command.run`."""
        ray: Any = ray_part("ray")
        mine = not ray.is_initialized()
        if mine:  # a cluster where RAY_ADDRESS names one, else this machine
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
            # A runner that finds no free core would be waited for without end.
            cores = None if "RAY_ADDRESS" in os.environ else max(os.cpu_count() or 1, self.config.env_runners + 1)
            ray.init(num_cpus=cores, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        try:
            cores = int(ray.cluster_resources().get("CPU", 0))
            if cores < self.config.env_runners + 1:
                raise InvalidValueError(
                    f"env_runners must leave a core to the learner: this cluster has {cores} cores in all; got "
                    f"{self.config.env_runners}. Start more machines, or lower --env_runners."
                )
            algorithm = ppo_config(self.config, self.actor).build_algo()
            try:
                with self.display:
                    return self._run(algorithm, cores)
            finally:
                algorithm.stop()
        finally:
            if mine:
                ray.shutdown()

    def _run(self, algorithm: Any, cores: int) -> int:
        config = self.config
        self.display.print_line(
            f"ppo of RLlib, a policy of {config.policy} on a grid of {self.actor.grid[0]} x {self.actor.grid[1]}; "
            f"{config.env_runners} env runners of {_share(config)} lanes, {cores} cores in Ray; "
            f"the network {config.network!r}"
        )
        if self.validator is not None and config.against:
            common = {
                "network": self.belief_predictor.predictor.network,
                "retina": retina_of(config),
                "device": config.device,
            }
            for entry in open_entries(config.against, {}, common)[0]:
                self.baseline_scores[entry.label] = score = self.validator.score(entry.label, entry.make)
                self.display.print_line(f"{entry.label}: error {1000 * score.error:.3f} × 10⁻³")
        self._validate(algorithm, "start")
        while self.steps < config.steps and not (self.stop.requested or self._late()):
            self._note(algorithm.train())
            if self.steps - self.validated >= config.evaluate_steps:
                self._validate(algorithm)
                self._save(algorithm)
        if self.validated < self.steps and not self.stop.requested:
            self._validate(algorithm, "end")
        self.stop.finishing = True
        self._save(algorithm)
        if not self.stop.requested:
            self.display.print_line(f"wrote {self.out / 'policy.safetensors'}")
            return 0
        self.display.print_line(f"stopped after {self.steps:,} saccades")
        return 130

    @property
    def elapsed_s(self) -> float:
        """Time of the run so far."""
        return time.monotonic() - self.began_s

    def _late(self) -> bool:
        return self.config.minutes is not None and self.elapsed_s >= 60 * self.config.minutes

    def policy(self, algorithm: Any) -> Policy:
        """Return the policy as the learner has it now."""
        state = algorithm.learner_group.get_weights()["default_policy"]
        with torch.random.fork_rng(devices=[]):  # fresh weights that are overwritten
            actor = Actor(self.actor)
        mine = {name.removeprefix("actor."): value for name, value in state.items() if name.startswith("actor.")}
        actor.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in mine.items()})
        card = {
            "steps": self.steps,
            "minutes": round(self.elapsed_s / 60, 2),
            "config": asdict(self.config),
            "validation": self.history["validation"][-1:],
        }
        actor.eval().requires_grad_(False)
        return Policy(actor, self.config.feature_config(), self.config.network, self.fingerprint, card)

    def _validate(self, algorithm: Any, when: str = "") -> None:
        """Let the policy look at the scenes of validation; keep it as the best where it is."""
        self.validated = self.steps
        if self.validator is None:
            return
        policy, predictor = self.policy(algorithm), self.belief_predictor.predictor

        def make(seed: int) -> Agent:
            return PolicyAgent(policy, str(self.belief_predictor.device), seed=seed, predictor=predictor)

        score = self.validator.score("policy", make)
        improvements = {label: score.improvement_over(other) for label, other in self.baseline_scores.items()}
        self.history["validation"].append(
            {
                "steps": self.steps,
                "minutes": self.elapsed_s / 60,
                "when": when,
                "error": score.error,
                "curve": score.curve,
                "less_than": {label: {"mean": mean, "half": half} for label, (mean, half) in improvements.items()},
            }
        )
        beside = "".join(
            f"; {1000 * mean:+.3f} ± {1000 * half:.3f} less than {label}"
            for label, (mean, half) in improvements.items()
        )
        self.display.print_line(f"{self.steps:,} saccades: error {1000 * score.error:.3f} × 10⁻³{beside}")
        if score.error < self.best:
            self.best = score.error
            save_policy(self.out / "policy.safetensors", self.policy(algorithm))

    def _note(self, result: dict[str, Any]) -> None:
        """Write down what RLlib found in an iteration."""
        looked = result["env_runners"]
        steps = int(looked["num_env_steps_sampled_lifetime"])
        seconds = self.elapsed_s
        before = self.history["training"][-1]["minutes"] * 60 if self.history["training"] else 0.0
        row = {
            "steps": steps,
            "minutes": seconds / 60,
            "saccades_s": (steps - self.steps) / max(seconds - before, 1e-9),
        }
        if math.isfinite(looked.get("episode_return_mean", math.nan)):  # NaN before the first episode ends
            row["return"] = float(looked["episode_return_mean"])
        learned = result["learners"]["default_policy"]
        for name, key in (("explained_variance", "vf_explained_var"), ("entropy", "entropy")):
            if math.isfinite(learned.get(key, math.nan)):
                row[name] = float(learned[key])
        self.steps = steps
        self.history["training"].append(row)
        self.display.update_steps(steps)
        self.display.update_figures(row)

    def _save(self, algorithm: Any) -> None:
        """Write the last policy, history and picture."""
        names = ["last"] if self.validator is not None else ["last", "policy"]
        for name in names:
            save_policy(self.out / f"{name}.safetensors", self.policy(algorithm))
        whole = {
            **self.history,
            "config": asdict(self.config),
            "references": {label: {"error": s.error, "curve": s.curve} for label, s in self.baseline_scores.items()},
        }
        write_atomically(self.out / "train.json", (json.dumps(whole, indent=1) + "\n").encode())
        draw_curve(self.out / "curve.png", whole)


def _share(config: TrainConfig) -> int:
    """Return how many lanes a process has: those of all, shared out and rounded up."""
    return -(-config.lanes // max(config.env_runners, 1))


def ppo_config(config: TrainConfig, actor: ActorConfig) -> Any:
    """Return RLlib's ``PPOConfig`` of a training.

    Args:
        config: How to train.
        actor: Form of the policy's network.

    Raises:
        InvalidValueError: An option that RLlib's PPO has no counterpart of.
        MissingDependencyError: Ray is not installed.
    """
    given = {"n_steps": 16, "learning_rate": 3e-4, "n_epochs": 4, "batch_size": 256, **config.options}
    # RLlib calls these by other names, and clips the value's error unless an option forbids it.
    rllib_options: dict[str, Any] = {"use_kl_loss": False, "kl_coeff": 0.0, "vf_clip_param": float("inf")}
    batch = int(given.pop("n_steps")) * _share(config) * max(config.env_runners, 1)
    rate = given.pop("learning_rate")
    if isinstance(rate, str) and rate.startswith("lin_"):
        rllib_options["lr"] = [[0, float(rate.removeprefix("lin_"))], [max(config.steps, 1), 0.0]]
    else:
        rllib_options["lr"] = float(rate)
    for name, value in given.items():
        if name not in _OPTIONS:
            known = ", ".join(["n_steps", "learning_rate", *_OPTIONS])
            raise InvalidValueError(f"options: the engine rllib has no {name!r}. Choose from {known}.")
        rllib_options[_OPTIONS[name]] = value
    rllib_options["minibatch_size"] = min(int(rllib_options["minibatch_size"]), batch)
    made: Any = ray_part("ray.rllib.algorithms.ppo").PPOConfig()
    spec: Any = ray_part("ray.rllib.core.rl_module.rl_module").RLModuleSpec
    ray_part("ray.tune.registry").register_env("foveasim", make_eyes)
    gpu = config.device.startswith("cuda")
    return (
        made.environment(env="foveasim", env_config={"config": config})
        .env_runners(
            num_env_runners=config.env_runners,
            num_envs_per_env_runner=_share(config),
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .learners(num_learners=0, num_gpus_per_learner=int(gpu))
        .rl_module(rl_module_spec=spec(module_class=GazeModule, model_config={"actor": actor}))
        .training(train_batch_size_per_learner=batch, **rllib_options)
        .debugging(seed=config.seed, log_level="ERROR")
    )


def ray_part(name: str) -> Any:
    """Import a module of Ray.

    Raises:
        MissingDependencyError: Ray is not installed, or without RLlib.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine rllib needs Ray RLlib ({error}). Install it: pip install 'foveasim[ray]'"
        ) from error


try:
    _RLModule: Any = importlib.import_module("ray.rllib.core.rl_module.torch.torch_rl_module").TorchRLModule
    _Value: Any = importlib.import_module("ray.rllib.core.rl_module.apis").ValueFunctionAPI
except ImportError:  # the engine says so where it is asked for; a module that only documents itself needs no Ray
    _RLModule, _Value = nn.Module, object


class GazeModule(_RLModule, _Value):  # type: ignore[misc]
    """The policy of :class:`foveasim.agents.gaze_policy.network.Actor`, and beside it a value of the same form.

    Its ``model_config`` holds the actor's :class:`ActorConfig` under ``actor``.
    """

    def setup(self) -> None:
        """Build the networks."""
        config: ActorConfig = self.model_config["actor"]
        self.actor = Actor(config)
        self.trunk = Trunk(config)
        self.value = nn.Sequential(nn.Linear(self.trunk.features, 64), nn.ReLU(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((2,), -0.7)) if config.outputs == 2 else None

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return the scores of the cells; or of points the mean, and the logarithm of the standard deviation."""
        seen = batch["obs"]
        answer, _ = self.actor(seen["maps"], seen["numbers"])
        if self.log_std is not None:
            answer = torch.cat((answer, self.log_std.expand_as(answer)), 1)
        return {"action_dist_inputs": answer}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> Tensor:
        """Return what is still to be earned, (B,)."""
        seen = batch["obs"]
        found: Tensor = self.value(self.trunk(seen["maps"], seen["numbers"]))
        return found[:, 0]


class _Silent(FeatureObservation):
    """Returns nothing but what a policy sees: RLlib would take the infos apart lane by lane, and nobody reads them."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed, options=options)[0], {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        *found, _ = super().step(actions)
        return found[0], found[1], found[2], found[3], {}


def make_eyes(context: Mapping[str, Any]) -> FeatureObservation:
    """Build the lanes of one process, as RLlib's ``vector_entry_point`` asks for them.

    Each process reads the scenes by itself, predicts for its lanes in one pass, and begins lanes anew in the step after
    an end, as RLlib does. It computes on the CPU.

    Args:
        context: Ray's ``EnvContext``: ``config``, the :class:`TrainConfig`; ``num_envs``, how many lanes.
    """
    config: TrainConfig = context["config"]
    torch.set_num_threads(1 if config.threads is None else config.threads)
    config = replace(config, lanes=int(context["num_envs"]), device="cpu")
    scenes, _ = read_training_scenes(replace(config, validate=[]))
    eyes = make_feature_env(config, scenes, BeliefPredictor(config.network, "cpu", config.precision), "NextStep")
    return _Silent(eyes.envs, eyes.config, config.acts_in, least_gain=eyes.least_gain)
