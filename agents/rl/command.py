"""Training of gaze policies by reinforcement learning: ``foveasim train``.

``foveasim train --preset ppo --data natural.tar@train --validate natural.tar@val --out runs/gaze``

Eyes look at scenes; a frozen network predicts what they do not see, and how much each saccade lowers its error is the
reward. The policy sees features of the same prediction (:mod:`foveasim.agents.gaze_policy.features`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.evaluation.search_slopes import Slope, Trials, draw_slopes, read_trials, search_slope
from foveasim.agents.evaluation.stopping import (
    Glimpses,
    Stopping,
    accuracy_by_glimpse,
    draw_glimpses,
    record_glimpses,
    stop_as_requested,
    stop_early,
    threshold_within,
)
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.tasks import ClassifyTask, SearchTask, open_training_task
from foveasim.agents.rollout import rollout
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.runs.whole_files import write_atomically
from foveasim.validation import check_device

__all__ = ["Run", "TrainConfig", "record", "run", "run_test"]

_LOSS = 0.01  # of accuracy, that stopping early may cost
_LANES = 40


def run_test(config: TrainConfig, out: Path) -> int:
    """Test agents on scenes that no training sees.

    Args:
        config: Its ``test`` names the agents; all else makes the env as in training.
        out: Folder for ``test.json`` and the pictures.

    Returns:
        0.

    Raises:
        FoveasimError: An agent, an option or data that cannot be used.
    """
    task = open_training_task(replace(config, lanes=1, validate_limit=1))
    entries = task.open_baselines(config.test)
    console = Console()
    if isinstance(task, SearchTask):
        found = _test_search(task, entries, config, out, console)
    elif isinstance(task, ClassifyTask):
        found = _test_classify(task, entries, config, out, console)
    else:
        raise InvalidValueError(f"test is for the tasks search and classify; got {config.task!r}.")
    try:
        summary = {"config": asdict(config), **found}
        write_atomically(out / "test.json", (json.dumps(summary, indent=1) + "\n").encode())
    except OSError as error:
        raise WeightsError(f"cannot write into {out}: {error.strerror or error}. Free some space.") from error
    console.print(f"wrote {out / 'test.json'}", markup=False, highlight=False)
    return 0


def _test_search(
    task: SearchTask, entries: Sequence[Entry], config: TrainConfig, out: Path, console: Console
) -> dict[str, Any]:
    """Search displays of every kind, and fit how search time grows with their size."""
    table = Table("kind", "agent", "found", "saccades", "slope, ms an item", "95 %")
    slopes: dict[str, dict[str, Slope]] = {}
    for kind in task.make_envs(1).source.kinds:  # type: ignore[attr-defined]
        for entry in entries:
            envs = task.make_envs(min(_LANES, config.test_episodes), kinds=kind, split="test")
            agent = entry.make(config.seed)
            with torch.inference_mode():
                trials = read_trials(rollout(agent, envs, episodes=config.test_episodes, seed=config.seed))
            slope = search_slope(trials)
            slopes.setdefault(kind, {})[entry.label] = slope
            table.add_row(
                kind,
                entry.label,
                f"{100 * slope.found_share:.0f} %",
                _with_interval(trials),
                f"{slope.ms_per_item:.0f}",
                f"{slope.low:.0f} to {slope.high:.0f}",
            )
    console.print(table)
    rows = {kind: {label: _plain(slope) for label, slope in each.items()} for kind, each in slopes.items()}
    for kind, each in slopes.items():
        draw_slopes(out / f"slopes-{kind}.png", each, kind)
    return {"slopes": rows}


def _with_interval(trials: Trials) -> str:
    count = trials.fixations.astype(float)
    half = 1.96 * float(count.std(ddof=1)) / np.sqrt(len(count))
    return f"{count.mean():.2f} ± {half:.2f}"


def _plain(slope: Slope) -> dict[str, Any]:
    values = asdict(slope)
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _test_classify(
    task: ClassifyTask, entries: Sequence[Entry], config: TrainConfig, out: Path, console: Console
) -> dict[str, Any]:
    """Look at every scene until the budget is spent, then stop early by a threshold that was chosen on validation."""
    table = Table("agent", *(f"{n}" for n in range(1, config.budget + 2)), title="accuracy, %, after so many glimpses")
    stops = Table("agent", "stops", "glimpses", "accuracy", "95 %", "beside all glimpses")
    known: dict[str, Glimpses] = {}
    rows: dict[str, Any] = {}
    for entry in entries:
        known[entry.label] = tested = record(task, entry, "test", config)
        chosen = threshold_within(record(task, entry, "held_out", config), _LOSS)
        accuracy = accuracy_by_glimpse(tested)
        early = stop_early(tested, [chosen])
        table.add_row(entry.label, *(f"{100 * value:.1f}" for value in accuracy[:, 0]))
        rows[entry.label] = row = {
            "accuracy": accuracy.tolist(),
            "log_likelihood": tested.log_likelihood.mean(0).tolist(),
            "threshold": chosen,
            "early": _one(early),
        }
        full = float(accuracy[-1, 0])
        stops.add_row(entry.label, f"at {chosen:.2f}", *_stopped(row["early"], full))
        if tested.stop_requested is not None:
            row["learned"] = _one(stop_as_requested(tested))
            stops.add_row(entry.label, "as it learned", *_stopped(row["learned"], full))
    console.print(table)
    console.print(stops)
    draw_glimpses(out / "glimpses.png", known)
    first = entries[0].label
    for label, one in known.items():
        rows[label][f"accuracy above {first}"] = _paired(one.correct, known[first].correct)
        rows[label][f"log_likelihood above {first}"] = _paired(one.log_likelihood, known[first].log_likelihood)
    return {"agents": rows, "scenes": len(known[first])}


def record(task: ClassifyTask, entry: Entry, part: str, config: TrainConfig) -> Glimpses:
    """Look at scenes of a part: at each once where there are no more than asked for, else at draws of them."""
    there = len(task.images(part)) if task.data is not None else None
    count = None if there is not None and there <= config.test_episodes else config.test_episodes
    lanes = min(_LANES, there if count is None and there is not None else config.test_episodes)
    envs = task.make_envs(lanes, part, stop=False, autoreset_mode="Disabled")
    return record_glimpses(entry.make(config.seed), envs, count, seed=config.seed)


def _one(stopping: Stopping) -> list[float]:
    return [float(column[0]) for column in (stopping.glimpses, stopping.accuracy, stopping.low, stopping.high)]


def _stopped(early: Sequence[float], full: float) -> tuple[str, ...]:
    glimpses, accuracy, low, high = early
    return (
        f"{glimpses:.2f}",
        f"{100 * accuracy:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * (accuracy - full):+.1f} points",
    )


def _paired(one: NDArray[Any], other: NDArray[Any]) -> list[list[float]]:
    """Return by how much something is greater after each glimpse, and the half of its 95 % interval over scenes."""
    more: NDArray[np.float64] = one.astype(float) - other
    half = 1.96 * more.std(0, ddof=1) / np.sqrt(len(more))
    return [[float(a), float(b)] for a, b in zip(more.mean(0), half, strict=True)]


class Run(Protocol):
    """A run that was opened."""

    def run(self) -> int:
        """Train, and return the exit status."""


def run(config: TrainConfig, open_run: Callable[[TrainConfig, Path, InterruptFlag], Run] | None = None) -> int:
    """Train a gaze policy. Ctrl-C ends the run after a step, with everything written.

    Args:
        config: Options of the run.
        open_run: What builds the run from config, folder and what asks for an end; None goes by ``config.engine``.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM. In ``out``: ``policy.safetensors``, the best on the scenes of validation (the
        last without any), ``last.safetensors``, ``checkpoint.safetensors`` (for ``resume``), ``train.json`` and
        ``curve.png``.

    Raises:
        FoveasimError: An option that cannot be used, data that cannot be read, a folder that holds a run already.
        MissingDependencyError: stable-baselines3 or sb3-contrib is not installed, or Ray for the engine rllib.
    """
    check_device(config.device)
    out = _check_folder(config)
    threads = torch.get_num_threads()
    stop = InterruptFlag("stopping after this step; Ctrl-C again stops at once")
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with stop.listening(), _own_random_state():
            if config.test:
                return run_test(config, out)
            training = (open_run or _open_run)(config, out, stop)
            if config.overwrite:  # or a run that is killed before its first checkpoint would leave that of another
                (out / "checkpoint.safetensors").unlink(missing_ok=True)
            stop.graceful = True  # until now there is nothing to keep
            return training.run()
    finally:
        torch.set_num_threads(threads)


def _open_run(config: TrainConfig, out: Path, stop: InterruptFlag) -> Run:
    if config.engine == "rllib":
        from foveasim.agents.rl.engine_rllib import RllibTraining  # here: it needs Ray

        return RllibTraining(config, out, stop)
    from foveasim.agents.rl.engine_sb3 import Training  # here: it needs stable-baselines3

    return Training(config, out, stop)


def _check_folder(config: TrainConfig) -> Path:
    """Return the folder of a run; refuse one that cannot be written to, that holds something already, or that is read.

    Raises:
        InvalidValueError: See above.
    """
    sources = config.data, config.validate
    if config.test:  # writes no policy, so that what is tested may lie in the folder
        return check_folder(config.out, find_inputs(sources=sources), overwrite=config.overwrite)
    options = config.retina_options, config.task_options, config.policy_options, config.imitation
    reads = find_inputs(config.network, config.against, config.retina, *options, sources=sources)
    out = Path(config.out).expanduser()
    if config.resume and not (out / "checkpoint.safetensors").exists():
        raise InvalidValueError(
            f"there is nothing to resume in {out}: no checkpoint.safetensors. Leave out --resume, or begin anew by "
            "--overwrite."
        )
    return check_folder(out, reads, resume=config.resume, overwrite=config.overwrite)


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Put the global random state back, which stable-baselines3 seeds and draws from."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
