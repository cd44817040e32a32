"""Figures of a benchmark: ratios, goals, the file they are stored in, and what is called slower."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foveasim.bench.table import Goal, Report, Row, add_ratios, compare_reports, compute_goals, higher_is_better
from foveasim.errors import InvalidValueError


def row(name: str, value: float, low: float | None = None, high: float | None = None, **more: Any) -> Row:
    group = name.partition("/")[0]
    values = (value, value if low is None else low, value if high is None else high)
    return Row(name, group, more.pop("unit", "steps/s"), *values, **more)


def report(*rows: Row, cpu: str = "one", threads: int = 1) -> Report:
    return Report({"foveasim": "0"}, {"cpu": cpu, "threads": threads}, {"repeats": 5, "seconds": 1.0}, rows)


def test_ratios_are_to_a_row_of_the_same_run() -> None:
    rows = add_ratios([row("a", 10), row("b", 30, ratio_to="a"), row("c", 1, ratio_to="gone"), row("d", 1)])
    assert [one.ratio for one in rows] == [None, 3, None, None]


@pytest.mark.parametrize(("value", "met"), [(20, True), (19.9, False)])
def test_goals_are_at_least(value: float, met: bool) -> None:
    made = compute_goals([row("a", value), row("b", 2, 1, 4)], [Goal("goal/x", "a", "b", 10, "x")])
    assert (made[0].value, made[0].low, made[0].high) == (value / 2, value / 4, value)
    assert (made[0].goal, made[0].met) == (">= 10", met)


@pytest.mark.parametrize(("rate_", "met"), [(50, True), (49, False)])
def test_copies_and_times_are_at_most(rate_: float, met: bool) -> None:
    made = compute_goals([row("copy", 1000), row("env", rate_)], [Goal("goal/x", "copy", "env", 20, "copies")])
    assert (made[0].goal, made[0].met) == ("<= 20", met)
    assert made[0].value == 1000 / rate_


def test_goals_without_their_parts_are_left_out() -> None:
    goals = [Goal("goal/x", "a", "b", 1, "x"), Goal("goal/y", "b", "", 1, "x"), Goal("goal/z", "a", "", 1, "x")]
    assert [one.name for one in compute_goals([row("a", 1)], goals)] == ["goal/z"]


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    written = replace(report(row("a/b", 1.5, 1, 2), row("c", 3, unit="ms")), skipped={"d": "no screen"})
    written.write(path)
    assert Report.read(path) == written
    assert json.loads(path.read_text())["schema"] == 1
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "schema 1; got None"),
        ('{"schema": 99}', "schema 1; got 99"),
        ('{"schema": 1}', "damaged"),
        ('{"schema": 1, "rows": [{"name": "a"}]}', "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidValueError, match=re.escape(says)):
        Report.read(path)


def test_nan_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    report(row("a", 1.0)).write(path)
    path.write_text(path.read_text().replace('"value": 1.0', '"value": NaN'))
    with pytest.raises(InvalidValueError, match="finite"):
        Report.read(path)
    with pytest.raises(InvalidValueError, match="cannot be read"):
        Report.read(tmp_path / "none.json")


# What got slower


@pytest.mark.parametrize(
    ("before", "now", "unit", "verdict", "gain"),
    [
        ((100, 99, 101), (80, 79, 81), "steps/s", "slower", 0.8),
        ((100, 99, 101), (125, 120, 130), "steps/s", "faster", 1.25),
        ((100, 99, 101), (95, 94, 96), "steps/s", "same", 0.95),  # within the tolerance
        ((100, 75, 105), (80, 70, 90), "steps/s", "same", 0.8),  # within the spread
        ((100, 99, 101), (90, 90, 90), "steps/s", "same", 0.9),  # the tolerance itself is allowed
        ((10, 10, 10), (12, 12, 12), "ms", "slower", 10 / 12),
        ((10, 10, 10), (8, 8, 8), "ms", "faster", 1.25),
        ((10, 10, 10), (8, 8, 8), "MB", "faster", 1.25),
    ],
)
def test_verdicts(before: tuple[float, ...], now: tuple[float, ...], unit: str, verdict: str, gain: float) -> None:
    found = compare_reports(report(row("a", *before, unit=unit)), report(row("a", *now, unit=unit)), 0.1)[0]
    assert (found.verdict, found.gain) == (verdict, pytest.approx(gain))


def test_units_tell_what_is_better() -> None:
    assert [higher_is_better(unit) for unit in ("steps/s", "x", "ms", "MB", "copies")] == [True] * 2 + [False] * 3


def test_rows_of_one_run_only_or_of_another_unit_are_not_compared() -> None:
    old, new = report(row("a", 1), row("b", 1, unit="ms")), report(row("b", 1), row("c", 1))
    assert compare_reports(old, new, 0.1) == []


@pytest.mark.parametrize("other", [{"cpu": "two"}, {"threads": 2}])
def test_between_machines_only_ratios_are_compared(other: dict[str, Any]) -> None:
    def run(scale: float, env: float, **machine: Any) -> Report:
        rows = add_ratios([row("floor/x", 10 * scale), row("env", env * scale, ratio_to="floor/x")])
        return report(*rows, *compute_goals(rows, [Goal("goal/g", "floor/x", "env", 3, "copies")]), **machine)

    found = {one.name: one for one in compare_reports(run(1, 5), run(0.25, 5, **other), 0.1)}
    assert set(found) == {"env", "goal/g"}
    assert {one.verdict for one in found.values()} == {"same"}
    found = {one.name: one for one in compare_reports(run(1, 5), run(4, 2.5, **other), 0.1)}
    assert (found["env"].before, found["env"].now, found["env"].verdict) == (0.5, 0.25, "slower")
    assert found["goal/g"].verdict == "slower"


def test_tolerance_is_checked() -> None:
    with pytest.raises(InvalidValueError, match="tolerance"):
        compare_reports(report(), report(), 1.0)


def test_what_is_not_ours_cannot_get_slower() -> None:
    names = ("floor/copy/96x96", "peer/ap_gym/single/12x12", "ppo/pixels/nothing", "ppo/pixels/disc")
    found = compare_reports(report(*(row(name, 10) for name in names)), report(*(row(name, 1) for name in names)), 0.1)
    assert [one.name for one in found] == ["ppo/pixels/disc"]
