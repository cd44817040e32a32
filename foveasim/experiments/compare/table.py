"""The table of a comparison, for a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from foveasim.agents.evaluation.measures import MEASURES
from foveasim.experiments.compare.statistics import ComparisonResult, Interval

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["GAP", "WIDE", "show_table"]

WIDE, GAP = 118, 18
"""Columns of a terminal from which on everything is shown, and what the gap takes; the files hold it in any case."""

LABEL = 20
"""Columns that an agent's name takes at most, before it is broken."""


def show_table(console: Console, result: ComparisonResult, measure: str, scenes: int, seeds: int) -> None:
    """Print one row for each agent, the best first.

    Args:
        console: Where to.
        result: What was found.
        measure: By which the rows are sorted.
        scenes: How many, for the title.
        seeds: How many runs on each.
    """
    from rich.table import Table
    from rich.text import Text

    spec = MEASURES[measure]
    n = result.shares.shape[1]
    scope = f"{scenes} scene{'s'[: scenes > 1]} × {seeds} seed{'s'[: seeds > 1]}, {n} fixation{'s'[: n > 1]}"
    table = Table(title=f"{spec.title}{f' ({spec.unit})' if spec.unit else ''}: {scope}", title_justify="left")
    longest = max(len(label) for label in result.labels) + 2 * any(result.privileged)
    table.add_column("agent", overflow="fold", min_width=min(longest, LABEL))
    gap = result.ceiling is not None
    heads = [f"after {n}", "mean", f"mean − {result.reference}", *(["gap closed"] if gap else [])]
    wide = console.width >= WIDE + GAP * gap
    others = [name for name in ("relative", "psnr", "ssim") if name != measure] if wide else []
    for head in (*heads, *others, "sharp", *(("saccade", "returns", "ms") if wide else ())):
        table.add_column(head, justify="right", no_wrap=True)
    at = result.labels.index(result.reference)
    order = sorted(range(len(result.labels)), key=lambda i: _rank(result.area[measure][i, 0], spec.lower_is_better))
    for i in order:
        scale, digits = spec.scale, spec.digits
        difference = Interval(*(scale * result.differences["area"][measure][i, at]).tolist())
        style = ""
        if i != at and difference.clear:
            style = "green" if (difference.value < 0) == spec.lower_is_better else "red"
        cells = [
            Text(result.labels[i] + (" *" if result.privileged[i] else "")),
            Text(_interval(Interval(*(scale * result.curves[measure][i, -1]).tolist()), digits)),
            Text(_interval(Interval(*(scale * result.area[measure][i]).tolist()), digits)),
            Text("" if i == at else _interval(difference, digits, signed=True), style),
        ]
        if gap:
            cells.append(Text(_interval(Interval(*result.gap["area"][measure][i].tolist()), 2)))
        for name in others:
            other = MEASURES[name]
            cells.append(Text(_number(other.scale * float(result.curves[name][i, -1, 0]), other.digits)))
        figures = result.saccades[i]
        moves = [
            f"{100 * figures.sharp:.0f} %",
            f"{_number(figures.amplitude_median_deg, 1)}°",
            f"{_number(100 * figures.return_rate, 0)} %",
            f"{figures.act_ms:.2f}",
        ]
        cells += [Text(move) for move in (moves if wide else moves[:1])]
        table.add_row(*cells)
    if console.measure(table, options=console.options.update(width=10 * WIDE)).maximum > console.width:
        table.padding = 0  # 80 columns hold the gap, too
    console.print(table)
    notes = ["mean: over the fixations; brackets: 95 % bootstrap intervals over scenes; green, red: clear of zero"]
    if any(result.privileged):
        notes.append("* sees the hidden scene")
    if gap:
        notes.append(f"gap closed: 0 is {result.reference}, 1 is {result.ceiling}")
    if wide:
        notes.append(f"ms: the agent's time for a step of one eye, of {result.saccades[0].lanes} at once")
    console.print("\n".join(notes), style="dim", markup=False, highlight=False)


def _rank(value: float, lower_is_better: bool) -> float:
    return math.inf if math.isnan(value) else value if lower_is_better else -value


def _number(value: float, digits: int, *, signed: bool = False) -> str:
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) + 0.0  # no minus zero
    return f"{rounded:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _interval(interval: Interval, digits: int, *, signed: bool = False) -> str:
    value = _number(interval.value, digits, signed=signed)
    if math.isnan(interval.low):
        return value
    low, high = (_number(end, digits, signed=signed) for end in interval[1:])
    return f"{value}\n[{low}, {high}]"
