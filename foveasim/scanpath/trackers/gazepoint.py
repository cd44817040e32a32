"""Gazepoint's CSV: FPOGX and FPOGY are fractions of the screen from its top left, FPOGS and FPOGD seconds.

One row a sample (``…_all_gaze.csv``) or one row a fixation (``…_fixations.csv``). Places and durations of a fixation
grow truer while it lasts: the last valid row of each counts.

Reference:
    Open Gaze API by Gazepoint, section 3.3, Fixation POG.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.trackers.door import Look
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import find_table

__all__ = ["is_gazepoint", "read_gazepoint"]

_COLUMNS = ("FPOGX", "FPOGY", "FPOGS", "FPOGD")


def is_gazepoint(cells: Sequence[str]) -> bool:
    """Whether cells are the header of such a table."""
    return set(cells) >= set(_COLUMNS)


def read_gazepoint(path: Path, text: str, options: Options) -> list[Look]:
    """Read fixations; each medium (MEDIA_NAME, or else MEDIA_ID) is a trial of its own.

    Raises:
        InvalidValueError: A wrong cell; the message names row and column.
    """
    table = find_table(path, text, is_gazepoint, delimiter=options.delimiter, decimal=options.decimal)
    if table is None:
        raise InvalidValueError(f"{path} must have the columns {', '.join(_COLUMNS)}; got another header.")
    table = table.where(options.where)
    bare = [re.sub(r"\(.*", "", name) for name in table.header]
    at = {name: bare.index(name) for name in (*_COLUMNS, "FPOGID", "FPOGV", "MEDIA_NAME", "MEDIA_ID") if name in bare}
    medium = at.get("MEDIA_NAME", at.get("MEDIA_ID"))
    looks: list[tuple[str, dict[str, tuple[float, ...]]]] = []
    for line, row in table.rows:
        if "FPOGV" in at and row[at["FPOGV"]] in ("0", ""):
            continue
        image = "" if medium is None else row[medium]
        if not looks or looks[-1][0] != image:
            looks.append((image, {}))
        x, y = (table.number(line, row, at[name]) for name in ("FPOGX", "FPOGY"))
        times = (table.time_ms(line, row, at["FPOGS"], "s"), table.time_ms(line, row, at["FPOGD"], "s", 0))
        # Without an id, samples of one fixation still share its begin
        key = row[at["FPOGID"]] if "FPOGID" in at else row[at["FPOGS"]]
        looks[-1][1][key] = (x, y, *times)
    found = []
    for image, fixations in looks:
        x_, y_, onset, lasts = np.array(list(fixations.values()), np.float64).T
        found.append(Look(image, "", "", x_, y_, onset, lasts, "fraction"))
    return found
