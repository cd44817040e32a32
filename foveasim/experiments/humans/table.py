"""The table of agents against people, for a terminal, and what speaks against taking a score at its word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from foveasim.experiments.humans.scores import SCORES, ScanpathScores

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LIKE_PEOPLE", "cautions", "in_order", "show_humans", "value_of"]

LIKE_PEOPLE = {"self_scanmatch": 0.50, "amplitude_js": 0.05}
"""Most that a score may be before it shows that an agent is unlike people, whatever its ScanMatch: people reach 0.40
among themselves, and one person's saccades differ by 0.025 from those of the others."""

_COLUMNS = ("scanmatch", "scanmatch_duration", "self_scanmatch", "amplitude_js", "direction_js", "scanmatch_kl")
_WIDE = ("nss_path", "nss_map", "auc", "sauc", "information", "cig", "sequence", "stde")
_HEADS = {
    "scanmatch": "ScanMatch",
    "scanmatch_duration": "timed",
    "self_scanmatch": "selfSM",
    "amplitude_js": "ampl JS",
    "direction_js": "dir JS",
    "scanmatch_kl": "SM-KL",
    "nss_path": "NSS path",
    "nss_map": "NSS map",
    "auc": "AUC",
    "sauc": "sAUC",
    "information": "IG",
    "cig": "cIG",
    "sequence": "SS",
    "stde": "STDE",
}

NARROW, WIDE = 96, 140
"""Columns of a terminal from which on all divergences are shown, and then the maps; the files hold everything."""


def value_of(scores: ScanpathScores, name: str) -> float:
    """Return a score, the mean over the images where it has one; nan where it has none."""
    if name in scores.pooled:
        return scores.pooled[name]
    estimate = scores.estimates[name]
    return math.nan if estimate is None else estimate.mean


def in_order(scores: Sequence[ScanpathScores]) -> list[ScanpathScores]:
    """Return people first, then agents and baselines together, by ScanMatch."""
    return sorted(scores, key=lambda one: (one.kind != "people", -value_of(one, "scanmatch")))


def cautions(scores: ScanpathScores) -> list[str]:
    """Return what speaks against taking an agent's ScanMatch as likeness to people, in words; none for people.

    A mean over pairs has no ceiling at what people reach: an agent that always looks at the one best place scores as
    people do.
    """
    if scores.kind == "people":
        return []
    found = []
    own, amplitude = value_of(scores, "self_scanmatch"), value_of(scores, "amplitude_js")
    if own > LIKE_PEOPLE["self_scanmatch"]:
        found.append(f"makes much the same scanpath again and again (selfSM {own:.2f})")
    if amplitude > LIKE_PEOPLE["amplitude_js"]:
        found.append(f"its saccades have other amplitudes than people's (JS {amplitude:.2f})")
    return found


def show_humans(console: Console, scores: Sequence[ScanpathScores], images: int, count: int) -> None:
    """Print one row for people, each agent and each baseline, and what speaks against them.

    Args:
        console: Where to.
        scores: People among them.
        images: How many, for the title.
        count: Scanpaths of an agent on each.
    """
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= WIDE
    narrow = [
        name for name in _COLUMNS if console.width >= NARROW or name not in ("scanmatch_duration", "direction_js")
    ]
    names = [*narrow, *(_WIDE if wide else ())]
    table = Table(title=f"against people: {images} images, {count} scanpaths on each", title_justify="left")
    table.add_column("", overflow="fold", min_width=12)
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    rows = in_order(scores)
    for one in rows:
        style = {"people": "bold", "floor": "dim"}.get(one.kind, "")
        marks = ("!" if cautions(one) and one.kind == "agent" else "") + ("*" if one.privileged else "")
        cells = [Text(f"{one.label} {marks}".strip())]
        for name in names:
            value, bad = value_of(one, name), LIKE_PEOPLE.get(name, math.inf)
            colour = "red" if value > bad and one.kind == "agent" else ""
            cells.append(Text(_cell(one, name), colour))
        table.add_row(*cells, style=style)
    console.print(table)
    notes = [
        "ScanMatch: mean over images [95 % interval]; timed: with duration; selfSM: among an agent's own scanpaths, "
        "near that of people is good; JS, SM-KL: less is better",
        "no agent is like people by ScanMatch alone: look at selfSM, ampl JS and SM-KL beside it",
    ]
    if any(one.privileged for one in rows):
        notes.append("* sees the hidden scene")
    notes += [f"! {one.label}: {'; '.join(cautions(one))}" for one in rows if one.kind == "agent" and cautions(one)]
    drawn = [one.label for one in rows if one.kind == "agent" and not one.own_durations]
    notes.append("all lengths are drawn from the training people")
    if drawn:
        notes.append(f"and so are the durations of {', '.join(drawn)}")
    console.print("\n".join(notes), style="dim", markup=False, highlight=False)


def _cell(scores: ScanpathScores, name: str) -> str:
    digits = SCORES[name].digits
    text = number(value_of(scores, name), digits)
    estimate = scores.estimates.get(name)
    if name != "scanmatch" or estimate is None:
        return text
    return f"{text} [{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def number(value: float, digits: int) -> str:
    """Return a number as people read it, "–" for nan."""
    if math.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
