"""Search for the options of a training: ``foveasim tune --preset ppo --data A --validate B --out runs/tune``.

Optuna proposes options, short trainings try them, and those that validate badly are ended early. The best is written as
YAML, which ``foveasim train --config runs/tune/best.yaml`` takes.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from foveasim import validation
from foveasim.agents.rl import command as train
from foveasim.agents.rl.config import PRESETS, TrainConfig
from foveasim.errors import InvalidValueError, MissingDependencyError
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.runs.whole_files import write_atomically

__all__ = ["SPACES", "TuneConfig", "run", "suggest"]

_PPO: dict[str, Any] = {
    "options.learning_rate": {"low": 1e-4, "high": 3e-3, "log": True, "linear": True},
    "options.gamma": [0.0, 0.3, 0.6, 0.8, 0.9],
    "options.n_steps": [8, 16, 32],
    "options.n_epochs": {"low": 2, "high": 8},
    "options.ent_coef": {"low": 1e-4, "high": 1e-2, "log": True},
    "options.clip_range": [0.1, 0.2, 0.3],
    "policy_options.width": [8, 16, 32],
}
_SAC: dict[str, Any] = {
    "options.learning_rate": {"low": 1e-4, "high": 3e-3, "log": True},
    "options.tau": {"low": 0.003, "high": 0.05, "log": True},
    "options.gradient_steps": [4, 8, 16, 32],
    **{name: _PPO[name] for name in ("options.gamma", "policy_options.width")},
}
SPACES: dict[str, dict[str, Any]] = {"ppo": _PPO, "maskable_ppo": _PPO, "recurrent_ppo": _PPO, "sac": _SAC}
"""What is searched for each algorithm: an option, ``options.NAME`` one in it, and a list of choices or a range.

A range has ``low`` and ``high``, whole numbers or not; with ``log`` its logarithm is drawn evenly; with ``linear`` the
option is written as ``lin_X``, which falls to 0 along the run.
"""


@dataclass
class TuneConfig:
    """What to search for, and for how long.

    Attributes:
        preset: Of ``foveasim train``, whose options hold for all that is not searched.
        data: Scenes to train on, as of ``train``.
        validate: Scenes for validation: what is tuned for is the error there.
        steps: Saccades of one trial.
        evaluate_steps: Saccades between the validations at which a trial may be ended.
        trials: How many, those that are in ``out`` already included.
        minutes: Or until so much time is over, whichever comes first; null for no limit.
        train: Further options of ``train`` that hold for all trials, such as {retina: pyramid, lanes: 16}.
        space: What is searched, in place of the usual for the algorithm, such as {options.gamma: [0.3, 0.6],
            options.ent_coef: {low: 0.0001, high: 0.01, log: true}}.
        out: Folder for best.yaml, tune.json and study.db, by which a search goes on.
        resume: Go on with the search in ``out``.
        overwrite: Begin anew in a folder that is not empty, and remove a search there.
        seed: Of the search, and of every training.
    """

    preset: str = "ppo"
    data: list[str] | str = field(default_factory=lambda: ["photos"])
    validate: list[str] | str = field(default_factory=lambda: ["photos"])
    steps: int = 40_000
    evaluate_steps: int = 10_000
    trials: int = 20
    minutes: float | None = None
    train: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] | None = None
    out: str = "runs/tune"
    resume: bool = False
    overwrite: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "evaluate_steps", "trials"):
            validation.whole(name, getattr(self, name), 1, 2**31)
        if self.minutes is not None:
            validation.number("minutes", self.minutes, 0, open_low=True)
        validation.seed_value("seed", self.seed)
        if not self.validate:
            raise InvalidValueError("validate must name scenes: without any there is nothing to tune for; got none.")
        mine = {"data", "validate", "steps", "evaluate_steps", "out", "seed", "engine", "resume", "overwrite"}
        taken = sorted(mine & self.train.keys())
        if taken:
            raise InvalidValueError(f"train must not set {taken[0]!r}: tune sets it for every trial. Leave it out.")
        known = {one.name for one in fields(TrainConfig)}
        for name, domain in self.domains().items():
            _check_domain(name, domain)
        for name in (*self.train, *(searched.partition(".")[0] for searched in self.domains())):
            if name not in known:
                raise InvalidValueError(f"foveasim train has no option {name!r}, which train or space names.")
        self.training({})

    def domains(self) -> dict[str, Any]:
        """Return what is searched."""
        if self.space is not None:
            return self.space
        return SPACES[{**PRESETS.values(self.preset), **self.train}.get("algorithm", "ppo")]

    def options(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a training, with what was found in the search in its place."""
        made: dict[str, Any] = {**PRESETS.values(self.preset), **self.train}
        for name, value in found.items():
            outer, _, inner = name.partition(".")
            made[outer] = {**made.get(outer, {}), inner: value} if inner else value
        return {**made, "data": self.data, "validate": self.validate, "seed": self.seed}

    def training(self, found: Mapping[str, Any], out: str = "runs/train") -> TrainConfig:
        """Return the config of a trial.

        Raises:
            FoveasimError: An option that there is not, or a value that cannot be.
        """
        short = {"steps": self.steps, "evaluate_steps": self.evaluate_steps, "out": out, "overwrite": True}
        return TrainConfig(**{"against": [], **self.options(found), **short})


def _check_domain(name: str, domain: Any) -> None:
    if isinstance(domain, list) and domain:
        return
    keys = domain.keys() if isinstance(domain, Mapping) else set()
    if not ({"low", "high"} <= keys <= {"low", "high", "log", "linear"}):
        raise InvalidValueError(
            f"space: {name} must be a list of choices or {{low: …, high: …, log: true, linear: true}}; got {domain!r}."
        )
    validation.number(
        f"space: high of {name}", domain["high"], validation.number(f"space: low of {name}", domain["low"])
    )


def suggest(trial: Any, domains: Mapping[str, Any]) -> dict[str, Any]:
    """Let a trial of Optuna choose a value for everything that is searched."""
    found: dict[str, Any] = {}
    for name, domain in domains.items():
        if isinstance(domain, list):
            found[name] = trial.suggest_categorical(name, domain)
            continue
        low, high, log = domain["low"], domain["high"], bool(domain.get("log", False))
        whole = isinstance(low, int) and isinstance(high, int)
        value = (trial.suggest_int if whole else trial.suggest_float)(name, low, high, log=log)
        found[name] = f"lin_{value:.4g}" if domain.get("linear") else value
    return found


def run(config: TuneConfig) -> int:
    """Search; Ctrl-C ends it with everything written, and ``resume`` goes on.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM. In ``out``: ``best.yaml``, ``tune.json`` with all trials, ``study.db``, and a
        folder for each training.

    Raises:
        FoveasimError: An option that cannot be used, data that cannot be read, a folder that holds a search already.
        MissingDependencyError: Optuna is not installed, or stable-baselines3.
    """
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise MissingDependencyError(
            f"foveasim tune needs Optuna ({error}). Install it: pip install 'foveasim[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it would warn of an end by Ctrl-C, with a traceback
    reads = find_inputs(config.train, sources=(config.data, config.validate))
    out = check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    if config.overwrite:
        _remove_search(out)
    study = optuna.create_study(
        study_name="foveasim",
        storage=f"sqlite:///{out / 'study.db'}",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(deepcopy=False, states=ended))
    if done < config.trials:
        try:
            study.optimize(
                lambda trial: _try(config, trial, out / f"trial-{trial.number}", optuna.TrialPruned),
                n_trials=config.trials - done,
                timeout=None if config.minutes is None else 60 * config.minutes,
                callbacks=[lambda study, trial: _write(config, out, study)],
                catch=(InvalidValueError,),  # training diverged
            )
        except KeyboardInterrupt:
            print(f"stopped; go on with what is in {out} by --resume")
            return 130
    _write(config, out, study)
    best = study.best_trial
    print(f"trial {best.number} is the best, error {1000 * best.value:.3f} × 10⁻³; wrote {out / 'best.yaml'}")
    return 0


def _remove_search(out: Path) -> None:
    """Remove the files of an earlier search, whose trials would count in a new one."""
    for name in ("best.yaml", "tune.json", "study.db"):
        (out / name).unlink(missing_ok=True)
    for trial in out.glob("trial-*"):
        if re.fullmatch(r"trial-\d+", trial.name) and trial.is_dir() and not trial.is_symlink():
            shutil.rmtree(trial)


def _try(config: TuneConfig, trial: Any, out: Path, pruned: type[Exception]) -> float:
    """Train with what a trial chooses; return the least error of validation."""
    from foveasim.agents.rl.engine_sb3 import Training  # here: it needs stable-baselines3

    found = suggest(trial, config.domains())
    trial.set_user_attr("options", found)
    print(f"trial {trial.number}: " + ", ".join(f"{name} {value}" for name, value in found.items()))
    errors: list[float] = []

    class PrunedTraining(Training):
        """Is ended where it validates worse than half of the trials did by then."""

        def validate(self, when: str = "") -> None:
            super().validate(when)
            if when not in ("", "end"):
                return
            errors.append(self.history["validation"][-1]["error"])
            trial.report(errors[-1], len(errors))
            if not when and trial.should_prune():
                raise pruned(f"error {errors[-1]} at {self.model.num_timesteps} saccades")

    if train.run(config.training(found, str(out)), PrunedTraining):
        raise KeyboardInterrupt
    return min(errors)


def _write(config: TuneConfig, out: Path, study: Any) -> None:
    """Write all trials and the best one's options.

    Raises:
        InvalidValueError: No trial came to its end.
    """
    from foveasim.yaml_core import dump_yaml

    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "error": trial.value,
            "validation": list(trial.intermediate_values.values()),
            "options": trial.user_attrs.get("options"),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    write_atomically(out / "tune.json", (json.dumps(rows, indent=1) + "\n").encode())
    whole = [row for row in rows if row["state"] == "complete"]
    if not whole:
        return
    best = min(whole, key=lambda row: float(row["error"]))
    header = f"# {config.preset}, trial {best['trial']}: error {best['error']:.6f} after {config.steps:,} saccades\n"
    text = header + dump_yaml(config.options(best["options"]))
    write_atomically(out / "best.yaml", text.encode())
