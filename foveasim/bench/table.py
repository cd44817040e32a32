"""What a benchmark has measured: rows, ratios and goals, as JSON, and what got slower since an earlier one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.runs.whole_files import write_atomically

__all__ = [
    "GOALS",
    "SCHEMA",
    "Change",
    "Goal",
    "Report",
    "Row",
    "add_ratios",
    "compare_reports",
    "compute_goals",
    "higher_is_better",
    "same_machine",
]

SCHEMA = 1
"""Version of the JSON; a change that an older reader would misread raises it."""

_LOWER_IS_BETTER = frozenset(("ms", "MB", "copies"))


def higher_is_better(unit: str) -> bool:
    """Whether more of a unit is better: rates and speed-ups are, times, memory and copies are not.

    Example:
        >>> higher_is_better("steps/s"), higher_is_better("ms")
        (True, False)
    """
    return unit not in _LOWER_IS_BETTER


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: "env/single/pyramid/96x96".
        group: First part of the name.
        unit: "steps/s", "ms", ...
        value: Median over the repeats.
        low: Lower quartile.
        high: Upper quartile.
        ratio_to: Row that it is compared with, "" for none.
        ratio: ``value`` over that row's; None where that was not measured.
        goal: What is asked of it, such as ">= 20"; "" for nothing.
        met: Whether the goal is met; None without a goal.
    """

    name: str
    group: str
    unit: str
    value: float
    low: float
    high: float
    ratio_to: str = ""
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None

    @property
    def own(self) -> bool:
        """Whether foveasim itself is what was timed."""
        return self.group not in ("floor", "peer") and not self.name.endswith("/nothing")


@dataclass(frozen=True)
class Goal:
    """A bound on one row, or on one row over another of the same run.

    Attributes:
        name: What the computed row is called.
        over: Name of a row.
        under: Name of the row that it is divided by; "" for none.
        bound: At least so much, or at most, as :func:`higher_is_better` says of the unit.
        unit: Of the result: "x" for so many times as quick, "copies" for so many times as slow.
    """

    name: str
    over: str
    under: str
    bound: float
    unit: str


@dataclass(frozen=True)
class Report:
    """A run of ``foveasim bench``.

    Attributes:
        versions: Of foveasim, python, torch, numpy, ...
        machine: ``cpu``, ``cores``, ``system``, ``load`` before and after, threads.
        options: Of the command.
        rows: What was measured.
        skipped: What cannot be measured here, and why, by name.
        failed: What raised an error, and which, by name.
        interrupted: Whether Ctrl-C ended it early.
        schema: Version of the JSON.
    """

    versions: dict[str, str]
    machine: dict[str, Any]
    options: dict[str, Any]
    rows: tuple[Row, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    schema: int = SCHEMA

    def row(self, name: str) -> Row | None:
        """Return the row of a name, None where there is none."""
        return next((row for row in self.rows if row.name == name), None)

    def write(self, path: str | Path) -> None:
        """Write it as JSON; a file that is there is replaced at once, or not at all.

        Raises:
            InvalidValueError: The file cannot be written.
        """
        path = Path(path)
        try:
            write_atomically(path, (json.dumps(asdict(self), indent=1, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise _unwritable(path, error) from error

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Read what :meth:`write` wrote.

        Raises:
            InvalidValueError: No such file, not of this command, or of a schema that this version does not know.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidValueError(f"{path}: cannot be read ({error.strerror}). Make one by --out {path}.") from error
        except ValueError as error:
            raise InvalidValueError(f"{path}: not JSON ({error}). Make one by --out.") from error
        schema = found.get("schema") if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise InvalidValueError(
                f"{path}: must be of foveasim bench, schema {SCHEMA}; got {schema!r}. Make one by --out."
            )
        try:
            rows = tuple(_row(row) for row in found["rows"])
            return cls(**{**{f.name: found[f.name] for f in fields(cls)}, "rows": rows})
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValueError(f"{path}: damaged ({error!r}). Make it anew by --out.") from error


def _unwritable(path: Path, error: OSError) -> InvalidValueError:
    return InvalidValueError(f"out must be a file that can be written; got {path} ({error.strerror}). Name another.")


def _row(values: dict[str, Any]) -> Row:
    row = Row(**values)
    for name in ("value", "low", "high"):
        validation.number(f"{row.name}.{name}", getattr(row, name))
    return row


def add_ratios(rows: Iterable[Row]) -> list[Row]:
    """Work out ``ratio`` of every row that is compared with another one of them."""
    listed = list(rows)
    values = {row.name: row.value for row in listed}

    def ratio(row: Row) -> float | None:
        other = values.get(row.ratio_to, 0.0)
        return row.value / other if other else None

    return [replace(row, ratio=ratio(row)) for row in listed]


def compute_goals(rows: Iterable[Row], goals: Sequence[Goal]) -> list[Row]:
    """Compute the rows of the goals whose parts were all measured.

    The spread of a ratio is as wide as the two quartiles of its parts allow.

    Args:
        rows: What was measured.
        goals: What is asked.

    Example:
        >>> rows = [Row("a", "a", "steps/s", 30.0, 28.0, 32.0), Row("b", "b", "steps/s", 10.0, 8.0, 16.0)]
        >>> made = compute_goals(rows, [Goal("goal/a over b", "a", "b", 2, "x")])[0]
        >>> made.value, made.low, made.high, made.goal, made.met
        (3.0, 1.75, 4.0, '>= 2', True)
    """
    named = {row.name: row for row in rows}
    made = []
    for goal in goals:
        over, under = named.get(goal.over), named.get(goal.under)
        if over is None or (goal.under and under is None):
            continue
        value, low, high = over.value, over.low, over.high
        if under is not None:
            if min(under.low, under.value) <= 0:
                continue
            value, low, high = value / under.value, low / under.high, high / under.low
        more = higher_is_better(goal.unit)
        bound = f"{'>=' if more else '<='} {goal.bound:g}"
        met = value >= goal.bound if more else value <= goal.bound
        made.append(Row(goal.name, "goal", goal.unit, value, low, high, goal=bound, met=met))
    return made


def same_machine(one: Report, other: Report) -> bool:
    """Whether two runs had the same processor and as many threads, so that their absolute figures can be compared."""
    return all(one.machine.get(key) == other.machine.get(key) for key in ("cpu", "threads"))


@dataclass(frozen=True)
class Change:
    """What became of a figure.

    Attributes:
        name: Of the row.
        unit: Of the figures; "of ROW" where ratios are compared.
        before: In the earlier run.
        now: In this one.
        gain: How many times as good it is now: above 1 better, below 1 worse, whatever the unit.
        apart: Whether the two spreads do not overlap.
        verdict: "slower", "faster" or "same".
    """

    name: str
    unit: str
    before: float
    now: float
    gain: float
    apart: bool
    verdict: str


def compare_reports(before: Report, now: Report, tolerance: float) -> list[Change]:
    """Compare two runs, row by row.

    A row got slower, or faster, where its medians differ by more than the tolerance and its spreads, from quartile to
    quartile, do not overlap. Between different machines, or numbers of threads, only ratios are compared: those that
    have a ``ratio``, and the goals that are ratios.

    Args:
        before: The earlier run.
        now: This one.
        tolerance: Share by which a figure may be worse, in [0, 1).

    Returns:
        One for each row that both have in the same unit, in the order of ``now``.

    Raises:
        InvalidValueError: ``tolerance`` out of range.
    """
    validation.number("tolerance", tolerance, 0, 1, open_high=True)
    absolute = same_machine(before, now)
    found = []
    for row in now.rows:
        old = before.row(row.name)
        if old is None or old.unit != row.unit or not row.own:
            continue
        pair = (old, row) if absolute else (_relative(old), _relative(row))
        if pair[0] is not None and pair[1] is not None:
            found.append(_change(pair[0], pair[1], tolerance))
    return found


def _relative(row: Row) -> Row | None:
    """Return a row in units of what it is compared with; None where it has no such unit."""
    if row.group == "goal":
        return row if row.unit in ("x", "copies") else None
    if row.ratio is None or row.value == 0:
        return None
    scale = row.ratio / row.value
    return replace(row, value=row.ratio, low=row.low * scale, high=row.high * scale)


def _change(old: Row, row: Row, tolerance: float) -> Change:
    more = higher_is_better(row.unit)
    better, worse = (row.value, old.value) if more else (old.value, row.value)
    gain = better / worse if worse else (math.inf if better else 1.0)
    apart = row.low > old.high or row.high < old.low
    verdict = "same"
    if apart and gain < 1 - tolerance:
        verdict = "slower"
    elif apart and gain > 1 / (1 - tolerance):
        verdict = "faster"
    return Change(row.name, row.unit, old.value, row.value, gain, apart, verdict)


_COPY, _AP = "floor/copy/96x96", "peer/ap_gym"
_FOCUSMIM = {"foveate": (35, 45), "random_patches": (10, 12), "periphery": (10, 14)}
"""How many times as quick as the published pipeline, with crops and without."""


def _goals() -> tuple[Goal, ...]:
    made = []
    single = {"pyramid": (20, 20, 2_000), "disc": (10, 45, 8_000)}
    for retina, (copies, peer, large) in single.items():
        env = f"env/single/{retina}/96x96"
        made += [
            Goal(f"goal/single {retina}, in copies of its glimpse", _COPY, env, copies, "copies"),
            Goal(f"goal/single {retina} to ap_gym's, sensor 12x12", env, f"{_AP}/single/12x12", peer, "x"),
            Goal(f"goal/single {retina} 512x512", f"env/single/{retina}/512x512", "", large, "steps/s"),
        ]
    vector = {"pyramid": (12, 140), "disc": (60, 600)}
    for retina, (small, whole) in vector.items():
        env = f"env/vector/{retina}/256"
        made += [
            Goal(f"goal/256 lanes {retina} to ap_gym's, sensor 12x12", env, f"{_AP}/vector/12x12", small, "x"),
            Goal(f"goal/256 lanes {retina} to ap_gym's, sensor 96x96", env, f"{_AP}/vector/96x96", whole, "x"),
            Goal(f"goal/256 lanes {retina} with belief to without", f"{env}/belief", env, 0.5, "x"),
        ]
    made += [
        Goal("goal/window, median time between frames", "window/real/interval/p50", "", 17.0, "ms"),
        Goal("goal/window, 99th percentile between frames", "window/real/interval/p99", "", 20.0, "ms"),
        Goal("goal/memory of 4,096 lanes and 100,000 scenes", "memory/4096", "", 4000.0, "MB"),
        Goal("goal/lean to paper network, predictions", "network/lean/predict/64", "network/paper/predict/64", 5, "x"),
        Goal("goal/lean to paper network, training", "network/lean/train", "network/paper/train", 8, "x"),
    ]
    for technique, (crops, whole) in _FOCUSMIM.items():
        for variant, bound in (("crops", crops), ("whole", whole)):
            over, under = f"pipeline/{technique}/{variant}", f"peer/focusmim/{technique}/{variant}"
            made.append(Goal(f"goal/pipeline {technique}, {variant}, to FocusMIM's", over, under, bound, "x"))
    over, under = "pipeline/foveate/prepared", "peer/focusmim/foveate/whole"
    return (*made, Goal("goal/pipeline foveate, prepared once, to FocusMIM's", over, under, 100, "x"))


GOALS = _goals()
"""Each is computed where its parts were measured in the run."""
