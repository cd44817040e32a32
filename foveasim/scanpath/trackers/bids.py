"""BIDS eye tracking: samples in ``_physio.tsv.gz``, events in ``_physioevents.tsv.gz``, each with its JSON beside it.

The tables have no header: ``Columns`` of the JSON names their columns, and an entry of each column's name its
``Units``. The screen stands in ``StimulusPresentation`` of the JSON or of the run's ``_events.json``.

Reference:
    BIDS specification, Physiological recordings, section Eye tracking (BEP 020).
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.text_table import read_rows
from foveasim.scanpath.trackers.door import F64, Look
from foveasim.scanpath.trackers.messages import Message, find_marks, group, label
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import TIME_UNITS, Table, time_unit
from foveasim.types import Frame

__all__ = ["is_bids", "read_bids"]

_NAME = re.compile(r"(.*)_(physio|physioevents|eyetrack)\.(tsv\.gz|tsv|json)")
_X = ("x_coordinate", "eye1_x_coordinate", "gaze_x", "x")
_PX, _DEG = ("pixel", "pixels", "px"), ("deg", "degree", "degrees", "°")
_Values = tuple[F64, F64, F64, F64 | None]
_LARGEST_BYTES = 4 << 30  # unpacked: a bomb is refused, ten hours at 2000 Hz are 3 GB


def is_bids(path: Path) -> bool:
    """Whether a file's name is that of such a recording."""
    return _NAME.fullmatch(path.name) is not None


def read_bids(path: Path, options: Options) -> list[Look]:
    """Read a recording by any of its files.

    Fixations are those of the events, at the mean of their samples, or found in the samples where there are none.

    Raises:
        InvalidValueError: A missing file or column, no unit, or a wrong cell; the message names what.
    """
    hit = _NAME.fullmatch(path.name)
    if hit is None:
        raise InvalidValueError(f"{path} must be called …_physio.tsv.gz or …_physioevents.tsv.gz, as BIDS has it.")
    stem = path.parent / hit[1]
    kind = "eyetrack" if hit[2] == "eyetrack" else "physio"
    table, about = _open(stem, kind)
    x_at = next((table.header.index(name) for name in _X if name in table.header), None)
    y_at = None if x_at is None else _index(table, re.sub(r"x(?=_coordinate$|$)", "y", table.header[x_at]))
    if x_at is None or y_at is None:
        raise InvalidValueError(
            f"{table.path} has no columns x_coordinate and y_coordinate; Columns are {', '.join(table.header)}."
        )
    units = _units(table.path, about, table.header[x_at])
    unit = _unit_of_time(table, about)
    time = _times(table, about, unit)
    x, y = (np.array([table.number_or_nan(line, row, at) for line, row in table.rows]) for at in (x_at, y_at))
    fixations, messages = _events(stem, unit)
    events = options.fixations in (None, "file") and bool(fixations)
    if options.fixations == "file" and not fixations:
        raise InvalidValueError(f"{path} has no fixations in a _physioevents.tsv.gz. Give fixations='ivt'.")
    trials = find_marks(messages, options.trial_message or r"^TRIALID\b\s*(.*)$")
    images = find_marks(messages, options.image_message) if options.image_message else []
    frame, subject = _frame(stem, about), _entity(stem.name, "sub")
    run = _entity(stem.name, "run")
    moments = np.array([onset for onset, _ in fixations]) if events else time
    looks = []
    for one, places in group(label(moments, trials, images)):
        if events:
            rows = [_mean(table.path, time, x, y, *fixations[place]) for place in places]
            onset = moments[places]
            lasts = np.array([fixations[place][1] for place in places])
            values = np.array(rows, np.float64).reshape(-1, 2)
            kept = np.isfinite(values).all(1)
            points = values[kept].T
            values_of: _Values = (points[0], points[1], onset[kept], lasts[kept])
        else:
            values_of = (x[places], y[places], time[places], None)
        looks.append(Look(one.image, subject, one.trial or run, *values_of, units, frame=frame))
    return looks


def _open(stem: Path, kind: str) -> tuple[Table, dict[str, Any]]:
    """Return a table and what its JSON says."""
    candidates = [stem.with_name(f"{stem.name}_{kind}.{ending}") for ending in ("tsv.gz", "tsv")]
    path = next((one for one in candidates if one.is_file()), candidates[0])
    about = _json(stem.with_name(f"{stem.name}_{kind}.json"))
    columns = about.get("Columns")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise InvalidValueError(
            f"{stem.name}_{kind}.json must name the table's columns in 'Columns'; got {columns!r}. Add them."
        )
    rows = read_rows(path, _text(path), "\t")
    ragged = next(((line, row) for line, row in rows if len(row) != len(columns)), None)
    if ragged is not None:
        raise InvalidValueError(
            f"{path} row {ragged[0]}: {len(ragged[1])} fields where 'Columns' of its JSON names {len(columns)}."
        )
    return Table(path, columns, rows), about


def _text(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                raw = file.read(_LARGEST_BYTES + 1)
        else:
            raw = path.read_bytes()
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidValueError(f"cannot read scanpaths from {path}: {reason}. Check the file.") from error
    if len(raw) > _LARGEST_BYTES:
        raise InvalidValueError(f"{path} must hold at most {_LARGEST_BYTES >> 30} GiB; got more. Cut the recording.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise InvalidValueError(f"{path} row {row}: is not UTF-8, as BIDS asks. Write it anew.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidValueError(f"{path} must stand beside its table; {error.strerror}.") from error
    except ValueError as error:
        raise InvalidValueError(f"{path} is not a JSON file: {error}. Mend it.") from error
    return found if isinstance(found, dict) else {}


def _index(table: Table, name: str) -> int | None:
    return table.header.index(name) if name in table.header else None


def _column(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = about.get(name)
    return found if isinstance(found, Mapping) else {}


def _units(path: Path, about: Mapping[str, Any], column: str) -> str:
    said = str(_column(about, column).get("Units", "")).strip().lower()
    if said in _PX:
        return "px"
    if said in _DEG:
        return "deg"
    if said.startswith(("norm", "fraction")):
        return "fraction"
    raise InvalidValueError(
        f"{path}: Units of {column} in its JSON must be pixel, deg or normalized; got {said or 'nothing'!r}. Add it."
    )


def _unit_of_time(table: Table, about: Mapping[str, Any]) -> str:
    """Return the unit of timestamps: the one that is stated, or in which they come at the sampling frequency."""
    said = time_unit(str(_column(about, "timestamp").get("Units", "")))
    at, rate = _index(table, "timestamp"), about.get("SamplingFrequency")
    if said is not None or at is None or len(table.rows) < 2:
        return said or "s"
    ticks = float(np.median(np.diff([table.number(line, row, at) for line, row in table.rows[:1000]])))
    if isinstance(rate, int | float) and rate > 0 and ticks > 0:
        for unit, power in TIME_UNITS.items():
            if 0.8 < ticks * 10.0**power * rate / 1000 < 1.25:
                return unit
    raise InvalidValueError(
        f"{table.path}: its JSON must state the Units of timestamp, s, ms, us or ns, or a SamplingFrequency that fits "
        f"them; got {rate!r} Hz and steps of {ticks:g}. Add 'timestamp': {{'Units': 'ms'}}."
    )


def _times(table: Table, about: Mapping[str, Any], unit: str) -> F64:
    at = _index(table, "timestamp")
    if at is not None:
        return np.array([table.time_ms(line, row, at, unit) for line, row in table.rows], np.float64)
    rate, start = about.get("SamplingFrequency"), about.get("StartTime", 0)
    if not isinstance(rate, int | float) or not rate > 0 or not isinstance(start, int | float):
        raise InvalidValueError(
            f"{table.path} has no column timestamp, so that its JSON must have SamplingFrequency in Hz; got {rate!r}."
        )
    return np.arange(len(table.rows), dtype=np.float64) * (1000.0 / rate) + 1000.0 * start


def _events(stem: Path, unit: str) -> tuple[list[tuple[float, float]], list[Message]]:
    """Return onsets and durations of the fixations in ms, and the messages; nothing where there is no such file."""
    if not any(stem.with_name(f"{stem.name}_physioevents.{ending}").is_file() for ending in ("tsv.gz", "tsv")):
        return [], []
    table, about = _open(stem, "physioevents")
    onset_unit = time_unit(str(_column(about, "onset").get("Units", ""))) or unit
    lasts_unit = time_unit(str(_column(about, "duration").get("Units", ""))) or onset_unit
    onset, lasts, kind, text = (_index(table, name) for name in ("onset", "duration", "trial_type", "message"))
    if onset is None:
        raise InvalidValueError(f"{table.path} has no column onset; 'Columns' names {', '.join(table.header)}.")
    fixations, messages = [], []
    for line, row in table.rows:
        begins = table.time_ms(line, row, onset, onset_unit)
        if kind is not None and lasts is not None and row[kind].lower() == "fixation":
            fixations.append((begins, table.time_ms(line, row, lasts, lasts_unit, 0)))
        if text is not None and row[text] not in ("", "n/a"):
            messages.append(Message(begins, row[text]))
    return fixations, messages


def _mean(path: Path, time: Any, x: Any, y: Any, onset: float, lasts: float) -> tuple[float, float]:
    during = (time >= onset) & (time <= onset + lasts) & np.isfinite(x) & np.isfinite(y)
    if not during.any():
        return math.nan, math.nan
    return float(x[during].mean()), float(y[during].mean())


def _entity(name: str, entity: str) -> str:
    hit = re.search(rf"(?:^|_){entity}-([A-Za-z0-9]+)", name)
    return hit[1] if hit else ""


def _frame(stem: Path, about: Mapping[str, Any]) -> Frame | None:
    """Return the screen as ``StimulusPresentation`` has it: px, m and m."""
    run, task = re.sub(r"_recording-[A-Za-z0-9]+", "", stem.name), _entity(stem.name, "task")
    screen = _column(about, "StimulusPresentation")
    # A file higher up holds for all runs below it: subject's folder, session's, that of the data
    for folder in (stem.parent, *list(stem.parent.parents)[:3]):
        for name in (f"{run}_events.json", f"task-{task}_events.json"):
            if not screen and (folder / name).is_file():
                screen = _column(_json(folder / name), "StimulusPresentation")
    pixels, metres, away = (screen.get(name) for name in ("ScreenResolution", "ScreenSize", "ScreenDistance"))
    if not isinstance(pixels, list) or len(pixels) != 2:
        return None
    scale = None
    if isinstance(metres, list) and metres and isinstance(away, int | float) and away > 0 and metres[0] > 0:
        scale = pixels[0] / metres[0] * 2 * away * math.tan(math.radians(0.5))
    # Converters write the last pixel, 1919, for the size; screens have even sides
    width, height = (int(side) + int(side) % 2 for side in pixels)
    return Frame((height, width), scale)
