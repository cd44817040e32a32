"""Agents tested on a task: ``foveasim train --task search --test random --test gaze=policy.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

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
    stop_as_wished,
    stop_early,
    threshold_within,
)
from foveasim.agents.rl.course import ClassifyCourse, SearchCourse, open_course
from foveasim.agents.rl.train_config import TrainConfig
from foveasim.agents.rollout import rollout
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.runs.whole_files import write_atomically

__all__ = ["record", "run_test"]

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
    course = open_course(replace(config, lanes=1, validate_limit=1))
    entries = course.references(config.test)
    console = Console()
    if isinstance(course, SearchCourse):
        found = _test_search(course, entries, config, out, console)
    elif isinstance(course, ClassifyCourse):
        found = _test_classify(course, entries, config, out, console)
    else:
        raise InvalidValueError(f"test is for the tasks search and classify; got {config.task!r}.")
    try:
        told = {"config": asdict(config), **found}
        write_atomically(out / "test.json", (json.dumps(told, indent=1) + "\n").encode())
    except OSError as error:
        raise WeightsError(f"cannot write into {out}: {error.strerror or error}. Free some space.") from error
    console.print(f"wrote {out / 'test.json'}", markup=False, highlight=False)
    return 0


def _test_search(
    course: SearchCourse, entries: Sequence[Entry], config: TrainConfig, out: Path, console: Console
) -> dict[str, Any]:
    """Search displays of every kind, and fit how search time grows with their size."""
    table = Table("kind", "agent", "found", "saccades", "slope, ms an item", "95 %")
    slopes: dict[str, dict[str, Slope]] = {}
    for kind in course.envs(1).source.kinds:  # type: ignore[attr-defined]
        for entry in entries:
            envs = course.envs(min(_LANES, config.test_episodes), kinds=kind, split="test")
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
    course: ClassifyCourse, entries: Sequence[Entry], config: TrainConfig, out: Path, console: Console
) -> dict[str, Any]:
    """Look at every scene until the budget is spent, then stop early by a threshold that was chosen on validation."""
    table = Table("agent", *(f"{n}" for n in range(1, config.budget + 2)), title="accuracy, %, after so many glimpses")
    stops = Table("agent", "stops", "glimpses", "accuracy", "95 %", "beside all glimpses")
    known: dict[str, Glimpses] = {}
    rows: dict[str, Any] = {}
    for entry in entries:
        known[entry.label] = tested = record(course, entry, "test", config)
        chosen = threshold_within(record(course, entry, "held_out", config), _LOSS)
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
        if tested.wished is not None:
            row["learned"] = _one(stop_as_wished(tested))
            stops.add_row(entry.label, "as it learned", *_stopped(row["learned"], full))
    console.print(table)
    console.print(stops)
    draw_glimpses(out / "glimpses.png", known)
    first = entries[0].label
    for label, one in known.items():
        rows[label][f"accuracy above {first}"] = _paired(one.correct, known[first].correct)
        rows[label][f"log_likelihood above {first}"] = _paired(one.log_likelihood, known[first].log_likelihood)
    return {"agents": rows, "scenes": len(known[first])}


def record(course: ClassifyCourse, entry: Entry, part: str, config: TrainConfig) -> Glimpses:
    """Look at scenes of a part: at each once where there are no more than asked for, else at draws of them."""
    there = len(course.images(part)) if course.data is not None else None
    count = None if there is not None and there <= config.test_episodes else config.test_episodes
    lanes = min(_LANES, there if count is None and there is not None else config.test_episodes)
    envs = course.envs(lanes, part, stop=False, autoreset_mode="Disabled")
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
