"""Tobii Studio's and Tobii Pro Lab's TSV: one row a sample, or one row a fixation below a preamble.

Column names are compared without case, blanks and unit, so that ``FixationPointX (MCSpx)`` of Studio and ``Fixation
point X [MCS px]`` of Pro Lab are one. Points of the medium (MCS, Mapped) are taken before those of the screen.

Reference:
    Tobii Pro Lab User Manual, section Data Export; Tobii Studio User Manual 3.4, section Exporting Data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.trackers.door import F64, Look
from foveasim.scanpath.trackers.options import Options
from foveasim.scanpath.trackers.tables import Table, find_table, key_of, time_unit
from foveasim.types import Frame

__all__ = ["is_tobii", "read_tobii"]

_TIME = ("recordingtimestamp", "timestamp")
_TYPE = ("eyemovementtype", "gazeeventtype")
_INDEX = ("fixationindex", "eyemovementtypeindex")
_LASTS = ("gazeeventduration", "eyemovementeventduration", "fixationduration")
_MEDIUM = ("presentedstimulusname", "presentedmedianame", "medianame", "stimuliname", "stimulusname")
_FIXATION, _GAZE = "fixationpoint", "gazepoint"
_MISSING = ("", "-")
_LOST = ("4", "invalid")


@dataclass(frozen=True)
class _Point:
    """Two columns of a point: where they stand, and whether they count on the screen and in fractions."""

    x: int
    y: int
    on_screen: bool
    units: str


@dataclass(frozen=True)
class _Row:
    """What a row says of a fixation or sample, and of what was shown."""

    onset_ms: float
    lasts_ms: float
    x: float
    y: float
    shown: tuple[str, str, str]
    size: tuple[int, int] | None
    corner: tuple[float, float] | None


def is_tobii(cells: Sequence[str]) -> bool:
    """Whether cells are the header of such a table."""
    keys = {key_of(cell)[0] for cell in cells}
    points = {f"{kind}x" for kind in (_FIXATION, f"mapped{_FIXATION}", _GAZE)}
    return any(name in keys for name in _TIME) and bool(points & keys)


def read_tobii(path: Path, text: str, options: Options) -> list[Look]:
    """Read a table of Tobii's.

    A trial is an unbroken presentation of one medium; rows of one fixation are taken once. ``Recording timestamp`` is
    µs in Pro Lab where the column does not say otherwise, and ms in Studio; durations are ms.

    Raises:
        InvalidValueError: A missing column, a wrong cell, or a unit of time that the durations contradict.
    """
    table = find_table(path, text, is_tobii, delimiter=options.delimiter, decimal=options.decimal)
    if table is None:
        raise InvalidValueError(f"{path} has no header of a Tobii table. Export with a timestamp and fixation points.")
    lines = text.splitlines()
    preamble = lines[: next(number for number, line in enumerate(lines) if is_tobii(re.split("[\t,;]", line)))]
    reader = _Reader(table.where(options.where), preamble, options)
    events = options.fixations in (None, "file") and reader.fixation is not None
    if not events and reader.gaze is None:
        raise InvalidValueError(f"{path} has no gaze points to find fixations in. Export the gaze points, too.")
    if not events and options.fixations == "file":
        raise InvalidValueError(f"{path} has no fixation points. Export them, or give fixations='ivt'.")
    rows = list(reader.fixations() if events else reader.samples())
    point = reader.fixation if events else reader.gaze
    looks = []
    for (subject, recording, medium), some in groupby(rows, key=lambda row: row.shown):
        looks.append(_look(subject, recording, medium, list(some), reader, point, events))
    return looks


def _look(
    subject: str, recording: str, medium: str, rows: list[_Row], reader: _Reader, point: _Point | None, events: bool
) -> Look:
    on_screen, units = point is None or point.on_screen, "px" if point is None else point.units
    values: F64 = np.array([(row.x, row.y, row.onset_ms, row.lasts_ms) for row in rows], np.float64)
    x, y, onset, lasts = values.T
    size, corner = rows[0].size, rows[0].corner
    if on_screen and units == "px" and size is not None and corner is not None:
        # The screen's pixels, and where the medium stood on it: pixels of the medium as it was shown
        x, y, on_screen = x - corner[0], y - corner[1], False
    on_screen = on_screen or size is None
    frame_size = reader.screen if on_screen else size
    frame = None if frame_size is None else Frame(frame_size)
    return Look(medium, subject, recording, x, y, onset, lasts if events else None, units, False, frame, on_screen)


class _Reader:
    """Finds the columns of a table once, and then reads its rows."""

    def __init__(self, table: Table, preamble: Sequence[str], options: Options) -> None:
        self.table, self.options = table, options
        keys = [key_of(name) for name in table.header]
        self._keys = [key for key, _ in keys]
        self._units = [unit for _, unit in keys]
        self.fixation = self._point(_FIXATION)
        self.gaze = self._point(_GAZE)
        time, lasts = self._find(*_TIME), self._find(*_LASTS)
        if time is None:
            raise InvalidValueError(f"{table.path} has no column of times. Export the recording timestamp.")
        self._time, self._lasts = time, lasts
        if self.fixation is not None and lasts is None:
            raise InvalidValueError(
                f"{table.path} has no column of durations such as 'Gaze event duration'. Export it as well."
            )
        self._time_unit = self._unit_of_time()
        self._type, self._index = self._find(*_TYPE), self._find(*_INDEX)
        self._medium = self._find(*_MEDIUM)
        self._subject, self._recording = self._find("participantname", "participant"), self._find("recordingname")
        self._width, self._height = (
            self._find(f"presentedmedia{side}", f"media{side}") for side in ("width", "height")
        )
        self._corner = tuple(
            self._find(f"presentedmediaposition{axis}", f"mediapos{axis}", f"mediaposition{axis}") for axis in "xy"
        )
        self._sensor = self._find("sensor")
        self._validity = [at for at in (self._find("validityleft"), self._find("validityright")) if at is not None]
        said: dict[str, str] = {}
        for line in preamble:
            name, between, value = line.partition(":")
            if between:
                said.setdefault(name.strip().lower(), value.strip())
        self._said_subject = said.get("participant", said.get("subject", ""))
        self._said_recording = said.get("recording name", said.get("recording", ""))
        self.screen = self._screen(said)

    def _find(self, *names: str) -> int | None:
        return next((self._keys.index(name) for name in names if name in self._keys), None)

    def _point(self, name: str) -> _Point | None:
        """Return the columns of a point: px of the medium, else px of the screen, else fractions of the medium."""
        candidates = []
        for at, (key, unit) in enumerate(zip(self._keys, self._units, strict=True)):
            if key not in (f"{name}x", f"mapped{name}x"):
                continue
            pair = [i for i, other in enumerate(self._keys) if other == f"{key[:-1]}y" and self._units[i] == unit]
            if not pair or "mm" in unit:
                continue
            medium = key.startswith("mapped") or "mcs" in unit
            rank = 2 if "norm" in unit else 0 if medium else 1
            candidates.append((rank, _Point(at, pair[0], not medium, "fraction" if rank == 2 else "px")))
        return min(candidates, key=lambda one: one[0])[1] if candidates else None

    def _unit_of_time(self) -> str:
        unit = self.options.onset_unit or time_unit(self._units[self._time])
        if unit is None:
            # Studio writes RecordingTimestamp or Timestamp, in ms; Pro Lab writes Recording timestamp, in µs
            unit = "us" if " " in self.table.header[self._time].strip() else "ms"
        return unit

    def _screen(self, said: dict[str, str]) -> tuple[int, int] | None:
        text = said.get("recording resolution") or said.get("screen resolution") or ""
        at = self._find("recordingresolution")
        if not text and at is not None:
            text = next((row[at] for _, row in self.table.rows if row[at]), "")
        sides = [self._find(f"recordingresolution{side}") for side in ("width", "height")]
        if not text and None not in sides:
            found = (" x ".join(row[at] for at in sides if at is not None) for _, row in self.table.rows)
            text = next((one for one in found if one.strip(" x")), "")
        hit = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text)
        return (int(hit[2]), int(hit[1])) if hit else None

    def _shown(self, row: Sequence[str]) -> tuple[str, str, str]:
        places = (self._subject, self._recording, self._medium)
        subject, recording, medium = ("" if at is None else str(row[at]) for at in places)
        return subject or self._said_subject, recording or self._said_recording, "" if medium == "-" else medium

    def _row(self, line: int, row: Sequence[str], point: _Point, lasts_ms: float) -> _Row:
        table = self.table
        x, y = (table.number_or_nan(line, row, at) for at in (point.x, point.y))
        sides = [math.nan if at is None else table.number_or_nan(line, row, at) for at in (self._height, self._width)]
        size = (round(sides[0]), round(sides[1])) if min(sides) >= 1 else None
        place = [math.nan if at is None else table.number_or_nan(line, row, at) for at in self._corner]
        corner = None if any(map(math.isnan, place)) else (place[0], place[1])
        onset_ms = table.time_ms(line, row, self._time, self._time_unit)
        return _Row(onset_ms, lasts_ms, x, y, self._shown(row), size, corner)

    def fixations(self) -> Iterator[_Row]:
        """Yield each fixation once, at the time of its first row that has a place."""
        point, lasts_at = self.fixation, self._lasts
        if point is None or lasts_at is None:
            return
        seen: set[tuple[str, ...]] = set()
        spans: dict[tuple[str, ...], tuple[float, float, float]] = {}
        run = 0
        before: tuple[str, ...] = ()
        for line, row in self.table.rows:
            cells = (row[point.x], row[point.y], row[lasts_at])
            kind = row[self._type] if self._type is not None else "Fixation"
            index = row[self._index] if self._index is not None else ""
            if kind and (kind.lower() != "fixation" or (self._index is not None and index in _MISSING)):
                before = ()
                continue
            if not kind or any(cell in _MISSING for cell in cells):
                continue
            if self._index is None and cells != before:
                run, before = run + 1, cells
            subject, recording, _ = self._shown(row)
            key = (subject, recording, index or str(run))
            onset_ms = self.table.time_ms(line, row, self._time, self._time_unit)
            first, _, lasts_ms = spans.get(key, (onset_ms, onset_ms, self.table.number(line, row, lasts_at, 0)))
            spans[key] = (first, onset_ms, lasts_ms)
            if key not in seen:
                seen.add(key)
                yield self._row(line, row, point, lasts_ms)
        self._check_unit(list(spans.values()))

    def _check_unit(self, spans: Sequence[tuple[float, float, float]]) -> None:
        """Refuse a unit of time in which rows of a fixation lie further apart, or nearer, than its duration."""
        shares = [(last - first) / lasts for first, last, lasts in spans if last > first and lasts > 0]
        if len(shares) < 3:
            return
        share = float(np.median(shares))
        if 0.02 < share < 50:
            return
        right = "us" if share > 50 else "ms"
        raise InvalidValueError(
            f"{self.table.path}: the rows of a fixation span {share:.3g} of its duration, with timestamps read as "
            f"{self._time_unit}. Give onset_unit={right!r}."
        )

    def samples(self) -> Iterator[_Row]:
        """Yield every sample of the tracker, NaN where it lost the eyes."""
        if self.gaze is None:
            return
        for line, row in self.table.rows:
            if self._sensor is not None and row[self._sensor].lower() not in ("", "eye tracker"):
                continue
            if row[self._time] in _MISSING or (self._validity and not any(row[at] for at in self._validity)):
                continue
            found = self._row(line, row, self.gaze, math.nan)
            if self._validity and all(row[at].lower() in _LOST for at in self._validity):
                found = _Row(found.onset_ms, math.nan, math.nan, math.nan, found.shown, found.size, found.corner)
            yield found
