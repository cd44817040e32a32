"""Any table of fixations, one row each: you say which column holds what, and in what unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import numpy as np

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.trackers.door import Look
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import Table, find_table, first_rows, time_unit

__all__ = ["read_columns"]

ROLES = ("image", "subject", "trial", "x", "y", "onset", "duration", "end")
_TIMES = ("onset", "duration", "end")
_UNIT = re.compile(r"(.*?)\s*\[([^\]]*)\]")


def read_columns(path: Path, text: str, options: Options) -> list[Look]:
    """Read a table whose columns ``options.columns`` names.

    Rows of a trial stand together, in order; a new one begins where image, subject or trial change.

    Raises:
        InvalidTypeError: ``columns`` does not map roles to names.
        InvalidValueError: No such column, times that do not fit each other, or a wrong row; the message names row and
            column.
    """
    wanted = _roles(options)
    table, at, units = _open(path, text, wanted, options)
    rows = []
    for line, row in table.where(options.where).rows:
        names = tuple(row[at[role]] if role in at else "" for role in ("image", "subject", "trial"))
        point = [table.number(line, row, at[role]) for role in ("x", "y")]
        clock = {
            role: table.time_ms(line, row, at[role], units[role], 0 if role == "duration" else -math.inf)
            for role in _TIMES
            if role in at
        }
        rows.append((names, line, point, clock))
    looks = []
    for names, some in groupby(rows, key=lambda row: row[0]):
        values: list[list[float]] = []
        for _, line, point, clock in some:
            values.append([*point, *_times(table, line, clock, values, options.trial_ms)])
        x, y, onset, lasts = np.array(values, np.float64).T
        image, subject, trial = names
        looks.append(Look(image, subject, trial, x, y, onset, lasts, options.units, options.y_up))
    return looks


def _times(
    table: Table, line: int, clock: Mapping[str, float], before: list[list[float]], trial_ms: float | None
) -> tuple[float, float]:
    """Return when a fixation begins and how long it lasts, and end the one before where it lasts until here."""
    last = before[-1] if before else None
    if "onset" in clock and last is not None and clock["onset"] < last[2]:
        raise InvalidValueError(
            f"{table.path} row {line}: its onset lies before that of the row above. Rows of a trial must stand in "
            "order; should a new trial begin here, name the column that tells: columns={'trial': ...}."
        )
    begins = clock["onset"] if "onset" in clock else (last[2] + last[3] if last is not None else 0.0)
    lasts = clock.get("duration", clock["end"] - begins if "end" in clock else math.nan)
    if lasts < 0:
        raise InvalidValueError(f"{table.path} row {line}: ends before it begins.")
    if trial_ms is not None:
        lasts = trial_ms - begins
        if lasts < 0:
            raise InvalidValueError(f"{table.path} row {line}: begins after the trial's {trial_ms:g} ms.")
        if last is not None:
            last[3] = begins - last[2]
    return begins, lasts


def _roles(options: Options) -> dict[str, str]:
    columns = options.columns
    if not columns:
        raise InvalidValueError(
            "columns must name what the table holds: columns={'image': 'TRIAL', 'x': 'X', 'y': 'Y', 'onset': 'T [ms]', "
            "'duration': 'D [ms]'}; got none."
        )
    wrong = [role for role in columns if role not in ROLES]
    if wrong:
        raise InvalidValueError(f"columns must map {', '.join(ROLES)} to names of columns; got {', '.join(wrong)}.")
    if not all(isinstance(name, str) for name in columns.values()):
        raise InvalidTypeError(f"columns must map to names, which are text; got {dict(columns)!r}.")
    if "x" not in columns or "y" not in columns:
        raise InvalidValueError(f"columns must name x and y; got {', '.join(columns)}.")
    kinds = {role for role in _TIMES if role in columns} | ({"trial_ms"} if options.trial_ms is not None else set())
    if kinds not in ({"duration"}, {"onset", "duration"}, {"onset", "end"}, {"onset", "trial_ms"}):
        raise InvalidValueError(
            f"times must be duration, onset and duration, onset and end, or onset and trial_ms; got "
            f"{' and '.join(sorted(kinds)) or 'none'}. Onsets alone do not tell how long the last fixation lasts."
        )
    return dict(columns)


def _open(
    path: Path, text: str, wanted: Mapping[str, str], options: Options
) -> tuple[Table, dict[str, int], dict[str, str]]:
    """Return the table, where each role stands in it, and the unit of each time."""

    def is_header(cells: list[str]) -> bool:
        return all(_split(name, cells)[0] in cells for name in wanted.values())

    table = find_table(path, text, is_header, delimiter=options.delimiter, decimal=options.decimal)
    if table is None:
        found = max((cells for _, _, cells in first_rows(text, options.delimiter)), key=len, default=[])
        missing = [name for name in wanted.values() if _split(name, found)[0] not in found]
        raise InvalidValueError(
            f"{path}: no column {', '.join(map(repr, missing))}; the columns are "
            f"{', '.join(filter(None, found)) or 'none'}. Name yours in columns=, and the delimiter, should it be no "
            "comma, tab or semicolon."
        )
    at, units = {}, {}
    for role, name in wanted.items():
        bare, said = _split(name, table.header)
        at[role] = table.header.index(bare)
        if role in _TIMES:
            units[role] = getattr(options, f"{role}_unit") or time_unit(said) or "ms"
    return table, at, units


def _split(name: str, header: list[str]) -> tuple[str, str]:
    """Return a column's name as the header has it, and the unit behind it, as in ``start_timestamp[s]``."""
    hit = _UNIT.fullmatch(name)
    if hit is None:
        return name, ""
    return (name if name in header else hit[1]), hit[2]
