"""The files of a comparison with people: scores as CSV and JSON, and every scanpath."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foveasim.agents.humans_scores import IMAGE_SCORES, SCORES, Scored
from foveasim.agents.humans_table import cautions, in_order, value_of
from foveasim.experiments.compare.files import versions
from foveasim.metrics.people import People
from foveasim.runs.whole_files import write_atomically
from foveasim.scanpath.scanpath import write_scanpaths

__all__ = ["SCHEMA", "Against", "as_json", "write_humans"]

SCHEMA = 1
"""Version of the JSON; a change that an older reader would misread raises it."""


@dataclass(frozen=True, eq=False)
class Against:
    """What a comparison with people found.

    Attributes:
        config: The options.
        people: Who was compared with.
        scored: The people themselves, agents and floors.
        whole: False where it was ended early.
    """

    config: Mapping[str, Any]
    people: People
    scored: tuple[Scored, ...]
    whole: bool


def as_json(found: Against) -> dict[str, Any]:
    """Return all scores as JSON can hold them; what is not finite is null."""
    rows = {}
    for one in in_order(found.scored):
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


def _score(one: Scored, name: str) -> dict[str, float | int]:
    estimate = one.estimates.get(name)
    if estimate is None:
        return {"value": value_of(one, name)}
    return {"value": estimate.mean, "low": estimate.low, "high": estimate.high, "images": estimate.count}


def write_humans(folder: Path, found: Against) -> None:
    """Write ``scores.csv``, ``images.csv``, ``scanpaths.csv`` and, last of all, ``humans.json``.

    Args:
        folder: Where to.
        found: What was found.

    Raises:
        OSError: A file cannot be written; older ones are whole then.
        InvalidValueError: The folder of the scanpaths cannot be written to.
    """
    order = in_order(found.scored)
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
