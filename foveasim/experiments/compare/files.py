"""The files of a comparison: JSON, CSV for each fixation, scene and pair of agents, and what a resumed run needs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import __version__
from foveasim.agents.evaluation.agent_cache import AgentCache
from foveasim.agents.evaluation.judge import Scenes
from foveasim.agents.evaluation.measures import MEASURES, NUMBERS
from foveasim.agents.evaluation.scene_runner import AgentRun, Entry, FixationFrame
from foveasim.agents.mim.network import MimNetwork
from foveasim.experiments.compare.statistics import WHEN, ComparisonResult, SaccadeStatistics
from foveasim.runs.whole_files import write_atomically

__all__ = ["SCHEMA", "AgentRunCache", "Comparison", "as_json", "versions", "write_tables"]

_PICTURES = ("glimpse", "belief", "prediction", "std")


class AgentRunCache:
    """Cache of the agents of a comparison that are done, in a folder of their own.

    Args:
        out: Of the comparison; they lie in ``.unfinished`` below it.
        options: Of the comparison, all that its numbers depend on; anything that JSON can hold.
        scenes: Those of the comparison.
        network: The one that judges.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], scenes: Scenes, network: MimNetwork) -> None:
        digest = hashlib.sha256(json.dumps([__version__, dict(options), list(scenes.name)], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(scenes.image).data)
        for name, value in network.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        self._files = AgentCache(out, digest.hexdigest(), "other scenes, another network or other options")

    def load(self, entry: Entry) -> AgentRun | None:
        """Return what an agent did before the comparison was interrupted, None where it was not done.

        Raises:
            InvalidValueError: It was saved by another comparison.
        """
        found = self._files.load(_name(entry))
        if found is None:
            return None
        tensors, metadata = found
        arrays = {name: value.numpy() for name, value in tensors.items()}
        frames: dict[int, list[FixationFrame]] = {int(scene): [] for scene in metadata["moments"]}
        for scene, rows in metadata["moments"].items():
            for place, (x, y, numbers) in enumerate(rows):
                pictures: dict[str, Any] = {name: arrays.get(f"{scene} {place} {name}") for name in _PICTURES}
                frames[int(scene)].append(FixationFrame(fixation_px=(x, y), numbers=numbers, **pictures))
        return AgentRun(
            entry.label,
            entry.spec,
            metadata["privileged"],
            {name: arrays[f"number {name}"] for name in NUMBERS},
            arrays["fixation_px"],
            arrays["amplitude_deg"],
            metadata["act_ms"],
            metadata["lanes"],
            frames,
        )

    def save(self, run: AgentRun) -> None:
        """Save what an agent did.

        Raises:
            WeightsError: It cannot be written.
        """
        tensors: dict[str, Tensor] = {
            **{f"number {name}": _tensor(values) for name, values in run.numbers.items()},
            "fixation_px": _tensor(run.fixation_px),
            "amplitude_deg": _tensor(run.amplitude_deg),
        }
        for scene, rows in run.frames.items():
            for place, frame in enumerate(rows):
                for name in _PICTURES:
                    if (picture := getattr(frame, name)) is not None:
                        tensors[f"{scene} {place} {name}"] = _tensor(picture)
        metadata = {
            "privileged": run.privileged,
            "act_ms": run.act_ms,
            "lanes": run.lanes,
            "moments": {
                scene: [(*frame.fixation_px, dict(frame.numbers)) for frame in rows]
                for scene, rows in run.frames.items()
            },
        }
        self._files.save(_name(run), tensors, metadata)

    def clear(self) -> None:
        """Remove everything that was saved."""
        self._files.clear()


def _name(entry: Entry | AgentRun) -> str:
    return f"{entry.label}={entry.spec}"


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


SCHEMA = 1
"""Version of the JSON; a change that an older reader would misread raises it."""

_PACKAGES = ("torch", "numpy", "numba", "opencv-python-headless")


def versions() -> dict[str, str]:
    """Return the versions that the figures may depend on."""
    found = {"foveasim": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed under another name, as opencv-python is
            continue
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What a comparison found.

    Attributes:
        config: The options.
        network: Name of the network that judged.
        scenes: Those that agents were run on.
        seeds: Each agent was run once on each scene with each.
        runs: What each agent did.
        result: What it says.
        whole: False where it was ended early.
    """

    config: Mapping[str, Any]
    network: str
    scenes: Scenes
    seeds: tuple[int, ...]
    runs: tuple[AgentRun, ...]
    result: ComparisonResult
    whole: bool

    def __repr__(self) -> str:
        agents, scenes = ", ".join(one.label for one in self.runs), len(self.scenes.name)
        return f"Comparison({agents}; {scenes} scenes, {len(self.seeds)} seeds, network={self.network!r})"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return all numbers of a comparison as JSON can hold them; what is not finite is null."""
    runs, result = comparison.runs, comparison.result
    agents = {}
    for place, one in enumerate(runs):
        agents[one.label] = {
            "agent": one.spec,
            "privileged": one.privileged,
            "curves": {name: _triples(curve[place]) for name, curve in result.curves.items()},
            "sharp": result.shares[place].tolist(),
            "area": {name: _triple(area[place]) for name, area in result.area.items()},
            "area_by_sharp": {name: float(area[place]) for name, area in result.share_area.items()},
            "gap": {when: {n: _triple(gap[place]) for n, gap in result.gap[when].items()} for when in WHEN},
            "saccades": _saccades(result.saccades[place]),
            "scenes": {name: values.tolist() for name, values in one.numbers.items()},
            "fixation_px": one.fixation_px.tolist(),
        }
    found = {
        "schema": SCHEMA,
        "versions": versions(),
        "config": dict(comparison.config),
        "network": comparison.network,
        "whole": comparison.whole,
        "seeds": list(comparison.seeds),
        "scenes": list(comparison.scenes.name),
        "reference": result.reference,
        "ceiling": result.ceiling,
        "sharp_range": list(result.share_range),
        "measures": {
            name: {"title": measure.title, "lower_is_better": measure.lower_is_better}
            for name, measure in MEASURES.items()
        },
        "agents": agents,
        "differences": {
            when: {
                name: {
                    row: {column: _triple(pairs[i, j]) for j, column in enumerate(result.labels) if j != i}
                    for i, row in enumerate(result.labels)
                }
                for name, pairs in result.differences[when].items()
            }
            for when in WHEN
        },
    }
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def write_tables(folder: Path, comparison: Comparison) -> None:
    """Write ``curves.csv``, ``fixations.csv``, ``differences.csv`` and, last of all, ``compare.json``.

    Args:
        folder: Where to.
        comparison: What was found.

    Raises:
        OSError: A file cannot be written; older ones are whole then.
    """
    result = comparison.result
    ends = ("value", "low", "high")
    head = ["agent", "fixation", "sharp", *(f"{name}_{end}" for name in MEASURES for end in ends)]
    curves = [
        [label, n + 1, result.shares[a, n], *(v for curve in result.curves.values() for v in curve[a, n].tolist())]
        for a, label in enumerate(result.labels)
        for n in range(result.shares.shape[1])
    ]
    pairs = [
        [when, name, row, column, *table[i, j].tolist()]
        for when in WHEN
        for name, table in result.differences[when].items()
        for i, row in enumerate(result.labels)
        for j, column in enumerate(result.labels)
        if i != j
    ]
    content = as_json(comparison)
    files = {
        "curves.csv": _csv(head, curves),
        "fixations.csv": _csv(
            ["agent", "scene", "name", "seed", "fixation", "x_px", "y_px", "amplitude_deg", *NUMBERS],
            _fixations(comparison),
        ),
        "differences.csv": _csv(["when", "measure", "agent", "minus", *ends], pairs),
        "compare.json": (json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n").encode(),
    }
    for name, text in files.items():
        write_atomically(folder / name, text)


def _fixations(comparison: Comparison) -> Iterable[list[Any]]:
    for one in comparison.runs:
        columns = [one.numbers[name] for name in NUMBERS]
        for k, seed in enumerate(comparison.seeds):
            for scene, name in enumerate(comparison.scenes.name):
                for n, (x, y) in enumerate(one.fixation_px[k, scene].tolist()):
                    amplitude = "" if n == 0 else f"{one.amplitude_deg[k, scene, n - 1]:.5g}"
                    numbers = [f"{column[k, scene, n]:.7g}" for column in columns]
                    yield [one.label, scene, name, seed, n + 1, f"{x:.3f}", f"{y:.3f}", amplitude, *numbers]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue().encode()


def _saccades(figures: SaccadeStatistics) -> dict[str, Any]:
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in vars(figures).items()}


def _triple(values: Any) -> dict[str, float]:
    value, low, high = values.tolist()
    return {"value": value, "low": low, "high": high}


def _triples(curve: Any) -> list[dict[str, float]]:
    return [_triple(point) for point in curve]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
