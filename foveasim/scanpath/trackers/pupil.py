"""Pupil Labs: ``fixations.csv`` of Core, also on a surface, and of Neon and Invisible.

Core counts onsets in s and durations in ms, and places in fractions from the bottom left of the scene camera's picture
or of the surface. Neon counts in ns and px of the scene camera's picture.

Reference:
    docs.pupil-labs.com: Core, Data Format; Neon, Data Format, fixations.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.trackers.door import Look
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import Table, find_table

__all__ = ["is_neon", "is_pupil_core", "read_neon", "read_pupil_core"]

_CORE = {"start_timestamp", "duration", "norm_pos_x", "norm_pos_y"}
_NEON = {"start timestamp [ns]", "duration [ms]", "fixation x [px]", "fixation y [px]"}


def is_pupil_core(cells: Sequence[str]) -> bool:
    """Whether cells are the header of Pupil Core's fixations."""
    return set(cells) >= _CORE


def is_neon(cells: Sequence[str]) -> bool:
    """Whether cells are the header of Neon's fixations."""
    return set(cells) >= _NEON


def read_pupil_core(path: Path, text: str, options: Options) -> list[Look]:
    """Read Core's fixations. Of those on a surface each is taken once, and only where it lies on the surface.

    Raises:
        InvalidValueError: A wrong cell; the message names row and column.
    """
    table = _open(path, text, options, _CORE)
    at = {name: table.header.index(name) for name in _CORE}
    names = [name for name in ("id", "fixation_id") if name in table.header]
    on_surface = table.header.index("on_surf") if "on_surf" in table.header else None
    found: dict[str, tuple[float, ...]] = {}
    for line, row in table.rows:
        key = row[table.header.index(names[0])] if names else str(line)
        if key in found or (on_surface is not None and row[on_surface].lower() not in ("true", "1")):
            continue
        found[key] = (
            table.number(line, row, at["norm_pos_x"]),
            table.number(line, row, at["norm_pos_y"]),
            table.time_ms(line, row, at["start_timestamp"], "s"),
            table.time_ms(line, row, at["duration"], "ms", 0),
        )
    return [_look(("", "", ""), list(found.values()), "fraction", y_up=True)] if found else []


def read_neon(path: Path, text: str, options: Options) -> list[Look]:
    """Read Neon's fixations: the recording's id is the subject, the section's the trial.

    Raises:
        InvalidValueError: A wrong cell; the message names row and column.
    """
    table = _open(path, text, options, _NEON)
    at = {name: table.header.index(name) for name in _NEON}
    places = [table.header.index(name) if name in table.header else None for name in ("recording id", "section id")]
    found: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
    for line, row in table.rows:
        names = ("", *("" if place is None else row[place] for place in places))
        found.setdefault(names, []).append(
            (
                table.number(line, row, at["fixation x [px]"]),
                table.number(line, row, at["fixation y [px]"]),
                table.time_ms(line, row, at["start timestamp [ns]"], "ns"),
                table.time_ms(line, row, at["duration [ms]"], "ms", 0),
            )
        )
    return [_look(names, rows, "px", y_up=False) for names, rows in found.items()]


def _open(path: Path, text: str, options: Options, names: Iterable[str]) -> Table:
    wanted = set(names)
    table = find_table(
        path, text, lambda cells: set(cells) >= wanted, delimiter=options.delimiter, decimal=options.decimal
    )
    if table is None:
        raise InvalidValueError(f"{path} must have the columns {', '.join(sorted(wanted))}; got another header.")
    return table.where(options.where)


def _look(names: Sequence[str], rows: Sequence[tuple[float, ...]], units: str, *, y_up: bool) -> Look:
    image, subject, trial = names
    x, y, onset, lasts = np.array(rows, np.float64).T
    return Look(image, subject, trial, x, y, onset, lasts, units, y_up)
