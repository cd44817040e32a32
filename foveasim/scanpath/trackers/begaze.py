"""SMI's event export, of BeGaze and of the IDF converter: fixations, saccades and blinks in tables one after the other.

Times are µs. Every row begins with its type, ``Fixation L``; a header for each type stands above them all. What is
shown is told by the column Image, else by the last ``# Message: NAME.jpg`` before, else by ``Stimulus:`` at the top.

Reference:
    SMI BeGaze 3.7 Manual, section Export Event Data; SMI IDF Converter Manual, section Event text file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.text_table import read_rows
from foveasim.scanpath.trackers.door import Look
from foveasim.scanpath.trackers.messages import Message, find_marks
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import Table
from foveasim.types import Frame

__all__ = ["is_begaze", "read_begaze"]

_IMAGE = r"(?i)^# Message: (.*\.(?:bmp|jpe?g|png|tiff?|gif|webp|avi|mp4|wmv))$"
_EYES = {"L": "left", "R": "right", "B": "both"}


def is_begaze(text: str) -> bool:
    """Whether a text is such an export."""
    return "Table Header for Fixations:" in text[:20000]


def read_begaze(path: Path, text: str, options: Options) -> list[Look]:
    """Read the fixations of one eye; each number in the column Trial is a trial.

    Raises:
        InvalidValueError: No fixations, both eyes and no choice, or a wrong cell; the message names row and column.
    """
    lines = text.splitlines()
    header, delimiter = _header(path, lines, "Fixations")
    begin = next(i for i, line in enumerate(lines) if line.startswith(("Fixation", "Saccade", "Blink", "UserEvent")))
    rows = read_rows(path, "\n".join(lines[begin:]) + "\n", delimiter, begin + 1)
    said = _preamble(lines[:begin])
    table = Table(path, header, [(line, row) for line, row in rows if row[0].startswith("Fixation ")])
    eye = _choose_eye(path, sorted({row[0].split()[-1] for _, row in table.rows}), options.eye)
    names = ("Location X", "Location Y", "Start", "Duration")
    missing = [name for name in (*names, "Trial") if name not in header]
    if missing:
        raise InvalidValueError(
            f"{path} has no column {', '.join(missing)} in its table of fixations. Export it as well."
        )
    at = {name: header.index(name) for name in (*names, "Trial")}
    image_at = header.index("Image") if "Image" in header else None
    marks = find_marks(_messages(path, lines, rows), options.image_message or _IMAGE)
    looks: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for line, row in table.rows:
        if row[0].split()[-1] != eye:
            continue
        if len(row) < len(header):
            raise InvalidValueError(f"{path} row {line}: {len(row)} fields where a fixation has {len(header)}.")
        onset = table.time_ms(line, row, at["Start"], "us")
        image = row[image_at] if image_at is not None else "-"
        if image in ("", "-"):
            shown = [mark.text for mark in marks if mark.time_ms <= onset]
            image = shown[-1] if shown else said.get("stimulus", "")
        x, y = (table.number(line, row, at[name]) for name in names[:2])
        lasts = table.time_ms(line, row, at["Duration"], "us", 0)
        looks.setdefault((image, row[at["Trial"]]), []).append((x, y, onset, lasts))
    found = []
    for (image, trial), values in looks.items():
        x_, y_, onset_, lasts_ = np.array(values, np.float64).T
        found.append(Look(image, said.get("subject", ""), trial, x_, y_, onset_, lasts_, frame=_frame(said)))
    return found


def _header(path: Path, lines: Sequence[str], kind: str) -> tuple[list[str], str]:
    """Return the names of the columns of a kind of event, and what stands between them."""
    for number, line in enumerate(lines):
        if line.strip().removeprefix("##").strip() == f"Table Header for {kind}:" and number + 1 < len(lines):
            header = lines[number + 1].strip()
            delimiter = "\t" if "\t" in header else ";" if ";" in header else ","
            return [name.strip() for name in header.split(delimiter)], delimiter
    raise InvalidValueError(f"{path} has no 'Table Header for {kind}:'. Export the events with their headers.")


def _messages(path: Path, lines: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> list[Message]:
    events = [(line, row) for line, row in rows if row[0] == "UserEvent"]
    if not events:
        return []
    table = Table(path, _header(path, lines, "User Events")[0], events)
    start, text = table.header.index("Start"), table.header.index("Description")
    return [Message(table.time_ms(line, row, start, "us"), row[text]) for line, row in events if len(row) > text]


def _preamble(lines: Sequence[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for line in lines:
        name, between, value = line.strip().removeprefix("##").partition(":")
        if between:
            said.setdefault(name.strip().lower(), value.strip())
    return said


def _choose_eye(path: Path, eyes: Sequence[str], wanted: str | None) -> str:
    there = {_EYES.get(eye, eye): eye for eye in eyes}
    if not there:
        raise InvalidValueError(f"{path} has no rows of fixations. Export events with fixations.")
    if wanted is not None and wanted not in there:
        raise InvalidValueError(f"{path} holds {' and '.join(sorted(there))}; got eye={wanted!r}. Use another eye.")
    if wanted is None and len(there) > 1:
        raise InvalidValueError(f"{path} holds both eyes; give eye='left' or eye='right'.")
    return there[wanted] if wanted is not None else eyes[0]


def _frame(said: dict[str, str]) -> Frame | None:
    """Return the screen and its degrees, where the preamble of the IDF converter says them."""
    numbers = {name: [float(found) for found in re.findall(r"\d+(?:\.\d+)?", value)] for name, value in said.items()}
    area = numbers.get("calibration area", [])
    if len(area) < 2 or min(area[-2:]) < 1:
        return None
    width, height = area[-2:]
    mm, away = numbers.get("stimulus dimension [mm]", []), numbers.get("head distance [mm]", [])
    scale = None
    if len(mm) == 2 and mm[0] > 0 and away and away[0] > 0:
        scale = width / mm[0] * 2 * away[0] * math.tan(math.radians(0.5))
    return Frame((round(height), round(width)), scale)
