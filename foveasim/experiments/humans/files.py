"""The files of a comparison with people: scores as CSV and JSON, every scanpath, and what a resumed run needs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveasim import __version__
from foveasim.agents.evaluation.agent_cache import AgentCache
from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.experiments.compare.files import versions
from foveasim.experiments.humans.free_viewing import AgentScanpaths, make_scanpath
from foveasim.experiments.humans.scores import IMAGE_SCORES, SCORES, ScanpathScores
from foveasim.experiments.humans.table import cautions, in_order, value_of
from foveasim.metrics.people import People
from foveasim.runs.whole_files import write_atomically
from foveasim.scanpath.scanpath import write_scanpaths

__all__ = ["SCHEMA", "HumanComparison", "ScanpathCache", "as_json", "write_humans"]


class ScanpathCache:
    """Cache of the agents of a comparison with people that are done.

    Args:
        out: Folder of the comparison.
        options: Of the comparison, all that scanpaths depend on; anything that JSON can hold.
        people: With whom agents are compared.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], people: People) -> None:
        self._people = people
        facts = [__version__, dict(options), list(people.name), list(people.size), people.px_per_deg]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(people.image).data)
        for path in (*(path for group in people.paths for path in group), *people.training):
            # As float32, whose digest runs of 0.1 wrote down
            digest.update(path.fixation_px.numpy().tobytes() + path.duration_ms.numpy().astype(np.float32).tobytes())
        self._files = AgentCache(out, digest.hexdigest(), "other people or other options")

    def load(self, entry: Entry) -> AgentScanpaths | None:
        """Return what an agent did before the comparison was interrupted, None where it was not done.

        Raises:
            InvalidValueError: It was saved by another comparison.
        """
        found = self._files.load(f"{entry.label}={entry.spec}")
        if found is None:
            return None
        tensors, metadata = found
        count, lengths = tensors["counts"].shape[1], tensors["counts"].flatten().tolist()
        points, durations = (torch.split(tensors[name], lengths) for name in ("fixation_px", "duration_ms"))
        paths = [
            make_scanpath(point, duration, self._people.name[i // count], f"{i % count}")
            for i, (point, duration) in enumerate(zip(points, durations, strict=True))
        ]
        grouped = tuple(tuple(paths[i : i + count]) for i in range(0, len(paths), count))
        conditional = tensors["conditional"].numpy() if "conditional" in tensors else None
        return AgentScanpaths(
            entry.label, entry.spec, metadata["privileged"], metadata["own_durations"], grouped, conditional
        )

    def save(self, scanpaths: AgentScanpaths) -> None:
        """Save what an agent did.

        Raises:
            WeightsError: It cannot be written.
        """
        every = [path for group in scanpaths.paths for path in group]
        tensors = {
            "counts": torch.tensor([[len(path) for path in group] for group in scanpaths.paths]),
            "fixation_px": torch.cat([path.fixation_px for path in every]),
            "duration_ms": torch.cat([path.duration_ms for path in every]),
        }
        if scanpaths.conditional is not None:
            tensors["conditional"] = torch.from_numpy(scanpaths.conditional)
        metadata = {"privileged": scanpaths.privileged, "own_durations": scanpaths.own_durations}
        self._files.save(f"{scanpaths.label}={scanpaths.spec}", tensors, metadata)

    def clear(self) -> None:
        """Remove everything that was saved."""
        self._files.clear()


SCHEMA = 1
"""Version of the JSON; a change that an older reader would misread raises it."""


@dataclass(frozen=True, eq=False)
class HumanComparison:
    """What a comparison with people found.

    Attributes:
        config: The options.
        people: With whom agents were compared.
        scores: The people themselves, agents and baselines.
        whole: False where it was ended early.
    """

    config: Mapping[str, Any]
    people: People
    scores: tuple[ScanpathScores, ...]
    whole: bool


def as_json(found: HumanComparison) -> dict[str, Any]:
    """Return all scores as JSON can hold them; what is not finite is null."""
    rows = {}
    for one in in_order(found.scores):
        rows[one.label] = {
            "kind": one.kind,
            "privileged": one.privileged,
            "own_durations": one.own_durations,
            "cautions": cautions(one),
            "scores": {name: _score(one, name) for name in SCORES},
            "images": {name: values.tolist() for name, values in one.images.items()},
            "undefined": one.undefined,
            "amplitude": one.amplitude.tolist(),
            "direction": one.direction.tolist(),
        }
    content = {
        "schema": SCHEMA,
        "versions": versions(),
        "config": dict(found.config),
        "whole": found.whole,
        "images": list(found.people.name),
        "measures": {name: {"title": score.title, "better": score.better} for name, score in SCORES.items()},
        "rows": rows,
    }
    cleaned: dict[str, Any] = _finite(content)
    return cleaned


def _score(one: ScanpathScores, name: str) -> dict[str, float | int]:
    estimate = one.estimates.get(name)
    if estimate is None:
        return {"value": value_of(one, name)}
    return {"value": estimate.mean, "low": estimate.low, "high": estimate.high, "images": estimate.count}


def write_humans(folder: Path, found: HumanComparison) -> None:
    """Write ``scores.csv``, ``images.csv``, ``scanpaths.csv`` and, last of all, ``humans.json``.

    Args:
        folder: Where to.
        found: What was found.

    Raises:
        OSError: A file cannot be written; older ones are whole then.
        InvalidValueError: The folder of the scanpaths cannot be written to.
    """
    order = in_order(found.scores)
    scores = [
        [one.label, one.kind, name, *(_score(one, name).get(end, "") for end in ("value", "low", "high", "images"))]
        for one in order
        for name in SCORES
        if not math.isnan(value_of(one, name))
    ]
    images = [
        [one.label, one.kind, image, *(_known(one.images[name][place]) for name in IMAGE_SCORES)]
        for one in order
        for place, image in enumerate(found.people.name)
    ]
    write_atomically(folder / "scores.csv", _csv(["who", "kind", "score", "value", "low", "high", "images"], scores))
    write_atomically(folder / "images.csv", _csv(["who", "kind", "image", *IMAGE_SCORES], images))
    write_scanpaths(
        folder / "scanpaths.csv",
        (
            replace(path, image=found.people.name[place], subject=f"{one.label} {k + 1}")
            for one in order
            for place, paths in enumerate(one.paths)
            for k, path in enumerate(paths)
        ),
    )
    write_atomically(
        folder / "humans.json", (json.dumps(as_json(found), allow_nan=False, ensure_ascii=False) + "\n").encode()
    )


def _known(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{value:.7g}" if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue().encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
