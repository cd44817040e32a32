"""One run of ``foveasim train``: stable-baselines3's loop with validation, checkpoints, a log and an orderly end."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from torch import Tensor

from foveasim.agents.gaze_policy.policy_files import Policy, save_policy
from foveasim.agents.interface import Agent
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.imitation import fit
from foveasim.agents.rl.sb3_model import actor_of, make_model, optimizers, restore_model, save_model
from foveasim.agents.rl.tasks import open_training_task
from foveasim.agents.rl.vec_env import GlimpseVecEnv
from foveasim.drawing.training_curve import draw_curve
from foveasim.errors import WeightsError
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.progress import TrainingDisplay
from foveasim.runs.whole_files import write_atomically

__all__ = ["Training"]

NOTE_EVERY_S = 15.0


class Training:
    """A run.

    Args:
        config: Options of the run.
        out: Its folder, which is there.
        stop: Whether to end early.
    """

    def __init__(self, config: TrainConfig, out: Path, stop: InterruptFlag) -> None:
        self.config, self.out, self.stop = config, out, stop
        self.task = open_training_task(config)
        self.feature_env = self.task.feature_env
        self.actor = config.actor_config(
            self.feature_env.grid, self.feature_env.count, self.task.feature_config, self.task.stops
        )
        self.display = TrainingDisplay(config.steps)
        self.model = make_model(
            config.algorithm,
            GlimpseVecEnv(self.feature_env),
            self.actor,
            seed=config.seed,
            device=config.device,
            options=config.options,
        )
        self.model.set_logger(configure(str(out), ["tensorboard"] if config.tensorboard else []))
        self.validator = self.task.validator
        self.baseline_scores: dict[str, Any] = {}
        parameters = sum(value.numel() for value in actor_of(self.model, self.actor).parameters())
        described_network = f"; the network {config.network!r}" if self.task.belief_predictor is not None else ""
        self.display.print_line(
            f"{self.task.description}; {config.algorithm}, a policy of {config.policy} with {parameters:,} "
            f"parameters on a grid of {self.feature_env.grid[0]} x {self.feature_env.grid[1]}{described_network}"
        )
        self.history: dict[str, Any] = {"training": [], "validation": [], "imitation": None}
        self.before_s, self.best = 0.0, float("inf")
        self._updating = False
        self.began_s = self.noted_s = self.saved_s = time.monotonic()
        self.noted_steps = 0

    @property
    def elapsed_s(self) -> float:
        """Time of the whole run so far, the parts before a resume too."""
        return self.before_s + time.monotonic() - self.began_s

    def run(self) -> int:
        """Train; see :func:`foveasim.agents.rl.command.run`.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM before anything was learned, or in the midst of an update.
        """
        config, model = self.config, self.model
        if config.resume:
            run_state = restore_model(self.out / "checkpoint.safetensors", model)
            self.history, self.before_s, self.best = run_state["history"], run_state["elapsed_s"], run_state["best"]
            now = json.loads(json.dumps(asdict(config)))
            for name in sorted(now.keys() - {"resume", "overwrite", "out", "steps", "minutes"}):
                was = run_state["config"].get(name, now[name])  # a run of an older version had fewer options
                if now[name] != was:
                    self.display.print_line(f"other than in the run so far: {name} {now[name]} instead of {was}")
            self._seed_further()
            self.display.print_line(f"going on after {model.num_timesteps:,} saccades")
        self.noted_steps = model.num_timesteps
        with self.display:
            try:
                self._train()
            except KeyboardInterrupt:
                self.stop.requested = self.stop.finishing = True
                nothing = not config.resume and not model.num_timesteps and self.history["imitation"] is None
                if nothing or self._updating:
                    raise
            self.stop.finishing = True
            self.save()
        self.feature_env.close()
        if not self.stop.requested:
            self.display.print_line(f"wrote {self.out / 'policy.safetensors'}")
            return 0
        self.display.print_line(f"stopped after {model.num_timesteps:,} saccades; go on with --resume")
        return 130

    def _train(self) -> None:
        config, model = self.config, self.model
        with self.stop.interruptible():
            self._score_baselines()
            if not config.resume and config.imitate:
                self.validate("before")
                self._imitate()
            if not config.resume:
                self.validate("start")
        left = config.steps - model.num_timesteps
        if left > 0:
            for optimizer in optimizers(model).values():
                optimizer.register_step_pre_hook(self._begin_update)
                optimizer.register_step_post_hook(self._end_update)
            model.learn(left, callback=_TrainingCallback(self), log_interval=1, reset_num_timesteps=False)
        else:
            self.display.print_line(f"nothing is left to do after {model.num_timesteps:,} saccades; raise --steps")
        past = self.history["validation"]
        if past and past[-1]["steps"] < model.num_timesteps and not self.stop.requested:
            self.validate("end")

    def _begin_update(self, *of: object) -> None:
        self._updating = True

    def _end_update(self, *of: object) -> None:
        """End between two updates where that is asked for: an algorithm makes many before it asks its callbacks again.

        Raises:
            KeyboardInterrupt: It is.
        """
        self._updating = False
        if self.stop.requested and not self.stop.finishing:
            raise KeyboardInterrupt

    def begin_anew(self) -> None:
        """Begin all episodes anew, as a run does that is resumed from the checkpoint of this moment.

        So the two come to the same policy, to the bit on a CPU; but for SAC, whose replay buffer is not kept.
        """
        self._seed_further()
        model: Any = self.model
        model._last_obs = model.env.reset()
        model._last_episode_starts = np.ones(model.env.num_envs, np.bool_)

    def _seed_further(self) -> None:
        """Seed what draws episodes and actions, otherwise than at the beginning of the run."""
        self.model.set_random_seed((self.config.seed + self.model.num_timesteps) % 2**31)

    def policy(self) -> Policy:
        """Return the policy as it is now."""
        card = {
            "steps": int(self.model.num_timesteps),
            "minutes": round(self.elapsed_s / 60, 2),
            "config": asdict(self.config),
            "validation": self.history["validation"][-1:],
        }
        return self.task.make_policy(actor_of(self.model, self.actor), card)

    def validate(self, when: str = "") -> None:
        """Let the policy look at the scenes of validation; keep it as the best where it is."""
        if self.validator is None:
            return
        policy = self.policy()

        def make(seed: int) -> Agent:
            return self.task.make_agent(policy, seed)

        with self.stop.interruptible():
            score = self.validator.score("policy", make)
        improvements = {label: score.improvement_over(other) for label, other in self.baseline_scores.items()}
        self.history["validation"].append(
            {
                "steps": int(self.model.num_timesteps),
                "minutes": self.elapsed_s / 60,
                "when": when,
                "error": score.error,
                "curve": score.curve,
                "told": getattr(score, "summary", {}),
                "less_than": {label: {"mean": mean, "half": half} for label, (mean, half) in improvements.items()},
            }
        )
        beside = "".join(
            f"; {score.describe_improvement(mean, half)} {label}" for label, (mean, half) in improvements.items()
        )
        self.display.print_line(
            f"{self.model.num_timesteps:,} saccades: {score.message}{beside}" + (f" ({when})" if when else "")
        )
        if score.error < self.best:
            self.best = score.error
            save_policy(self.out / "policy.safetensors", self.policy())

    def note(self) -> None:
        """Write down what stable-baselines3 found since the last note."""
        now, steps = time.monotonic(), self.model.num_timesteps
        row: dict[str, Any] = {
            "steps": int(steps),
            "minutes": self.elapsed_s / 60,
            "saccades_s": (steps - self.noted_steps) / max(now - self.noted_s, 1e-9),
        }
        episodes = self.model.ep_info_buffer
        if episodes:
            row["return"] = float(np.mean([episode["r"] for episode in episodes]))
        for name, value in self.model.logger.name_to_value.items():
            if name.startswith("train/") and isinstance(value, int | float | np.number):
                row[name.removeprefix("train/")] = float(value)
        self.noted_s, self.noted_steps = now, steps
        self.history["training"].append(row)
        self.display.update_figures(row)

    def save(self) -> None:
        """Write checkpoint, last policy, history and picture."""
        self.saved_s = time.monotonic()
        run_state = {
            "history": self.history,
            "elapsed_s": self.elapsed_s,
            "best": self.best,
            "config": asdict(self.config),
        }
        save_policy(self.out / "last.safetensors", self.policy())
        if self.validator is None:
            save_policy(self.out / "policy.safetensors", self.policy())
        save_model(self.out / "checkpoint.safetensors", self.model, run_state)
        whole = {
            **self.history,
            "config": asdict(self.config),
            "references": {label: {"error": s.error, "curve": s.curve} for label, s in self.baseline_scores.items()},
            "task": self.config.task,
        }
        try:
            write_atomically(self.out / "train.json", (json.dumps(whole, indent=1) + "\n").encode())
            draw_curve(self.out / "curve.png", whole)
        except OSError as error:
            raise WeightsError(f"cannot write into {self.out}: {error.strerror or error}. Free some space.") from error

    def _score_baselines(self) -> None:
        """Let the agents that the policy is compared with look at the scenes of validation, once."""
        if self.validator is None:
            return
        for entry in self.task.open_baselines(self.config.against):
            self.baseline_scores[entry.label] = score = self.validator.score(entry.label, entry.make)
            self.display.print_line(f"{entry.label}: {score.message}")

    def _imitate(self) -> None:
        """Learn from the one-step oracle."""
        config = self.config
        policy: Any = self.model.policy
        imitation, model = config.imitation_config(), self.model

        def act(observation: dict[str, NDArray[np.float32]]) -> NDArray[Any]:
            actions, _ = model.predict(observation, deterministic=False)
            return actions

        def answer(maps: Tensor, numbers: Tensor) -> Tensor:
            seen = {"maps": maps, "numbers": numbers}
            if config.algorithm == "sac":
                return policy.actor(seen, deterministic=True)  # type: ignore[no-any-return]
            drawn = policy.get_distribution(seen).distribution
            return drawn.logits if config.acts_in == "cell" else drawn.mean  # type: ignore[no-any-return]

        self.display.print_line(f"imitating the expert for {config.imitate} episodes")

        on_progress = self.display.update_share
        demonstrations = self.task.collect_demonstrations(act, config.imitate, imitation, config.seed, on_progress)
        found = fit(
            demonstrations,
            answer,
            policy.parameters(),
            imitation,
            seed=config.seed,
            device=model.device,
            on_progress=on_progress,
        )
        self.history["imitation"] = {"moments": len(demonstrations.gains), **found}
        self.display.print_line(", ".join(f"{name} {value:.3f}" for name, value in found.items()))


class _TrainingCallback(BaseCallback):
    """Looks after a run between its rollouts."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        self._validated = training.model.num_timesteps

    def _on_rollout_start(self) -> None:
        run, config = self.training, self.training.config
        now = time.monotonic()
        if self.num_timesteps > run.noted_steps and now - run.noted_s >= NOTE_EVERY_S:
            run.note()
        if self.num_timesteps - self._validated >= config.evaluate_steps:
            self._validated = self.num_timesteps
            run.validate()
            run.save()
            run.begin_anew()
        if now - run.saved_s >= 60 * config.checkpoint_minutes:
            run.save()

    def _on_step(self) -> bool:
        run = self.training
        run.display.update_steps(self.num_timesteps)
        late = run.config.minutes is not None and run.elapsed_s >= 60 * run.config.minutes
        return not (run.stop.requested or late)

    def _on_training_end(self) -> None:
        if self.num_timesteps > self.training.noted_steps:
            self.training.note()
