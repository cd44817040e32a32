"""EyeLink ASC, as ``edf2asc`` writes it: parsed events and samples, of one eye or both, with messages.

Reference:
    SR Research, EyeLink 1000 Plus User Manual, section 4.9 (ASC file format).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from foveasim.errors import InvalidValueError
from foveasim.scanpath.trackers.door import Look
from foveasim.scanpath.trackers.messages import Message, blocks_as_trials, find_marks, group, label
from foveasim.scanpath.trackers.options import Options
from foveasim.types import Frame

__all__ = ["is_eyelink", "read_eyelink"]

_TRIAL = r"^TRIALID\b\s*(.*)$"
_IMAGE = r"^!V IMGLOAD (?:CENTER|FILL|TOP_LEFT)\s+(\S+)"
_COORDS = re.compile(r"(?:GAZE|DISPLAY)_COORDS[\s=]+" + r"[\s,]+".join([r"(-?[\d.]+)"] * 4))
_EYES = {"L": "left", "R": "right"}


@dataclass
class _Recording:
    """What stands in a file: fixations and samples by eye, messages, blocks, and what is known of the screen."""

    fixations: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    samples: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    blinks: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    resolutions: list[float] = field(default_factory=list)
    coords: tuple[float, float, float, float] | None = None
    source: str = ""
    kind: str = "GAZE"
    eyes: tuple[str, ...] = ()


def is_eyelink(text: str) -> bool:
    """Whether a text is an ASC file: its preamble, or lines that only such a file has."""
    head = text[:20000]
    return bool(re.search(r"^\*\* .*(EDF_FILE|EYELINK)|^(START|EFIX [LR]|SFIX [LR]|MSG)\s+\d+", head, re.MULTILINE))


def read_eyelink(path: Path, text: str, options: Options) -> list[Look]:
    """Read an ASC file.

    Fixations are the tracker's own (EFIX), or found in the samples where there are none or ``fixations`` asks for it.
    Trials begin at ``TRIALID`` messages, or else with each block of recording. What was fixated before the first
    ``TRIALID`` is a trial without a name. A degree is as long as the file's ``RES`` says, the mean of its blocks.

    Raises:
        InvalidValueError: A damaged line, both eyes and no choice, or an eye that is not there.
    """
    # Samples take most of the time, and are not needed where there are fixations
    events = options.fixations in (None, "file") and re.search(r"^EFIX\s", text, re.MULTILINE) is not None
    found = _parse(path, text, samples=not events)
    if not events and options.fixations == "file":
        raise InvalidValueError(
            f"{path} holds no fixations (lines EFIX), only samples. Give fixations='ivt', or convert it with events."
        )
    eye = _choose_eye(path, sorted(found.fixations if events else found.samples), options.eye)
    trials = find_marks(found.messages, options.trial_message or _TRIAL)
    if options.trial_message is not None and not trials:
        raise InvalidValueError(
            f"{path} has no message that fits trial_message={options.trial_message!r}; its messages begin with "
            f"{', '.join(_kinds(found.messages))}. Mend the pattern."
        )
    trials = trials or blocks_as_trials(found.starts, found.ends)
    images = find_marks(found.messages, options.image_message or _IMAGE)
    if options.image_message is not None and not images:
        raise InvalidValueError(
            f"{path} has no message that fits image_message={options.image_message!r}; its messages begin with "
            f"{', '.join(_kinds(found.messages))}. Mend the pattern."
        )
    rows = np.array(found.fixations[eye] if events else _seeing(found, eye), np.float64)
    rows = rows.reshape(-1, 4 if events else 3)
    frame, left, top = _frame(found)
    looks = []
    for one, places in group(label(rows[:, 0], trials, images)):
        part = rows[places]
        lasts, points = (part[:, 1], part[:, 2:]) if events else (None, part[:, 1:])
        x, y = points[:, 0] - left, points[:, 1] - top
        looks.append(Look(one.image, found.source, one.trial, x, y, part[:, 0], lasts, frame=frame))
    return looks


def _parse(path: Path, text: str, *, samples: bool) -> _Recording:
    found = _Recording()
    for line, raw in enumerate(text.splitlines(), start=1):
        words = raw.split()
        if not words or (raw[0].isdigit() and not samples):
            continue
        try:
            _take_line(found, words, raw)
        except (ValueError, LookupError) as error:
            raise InvalidValueError(
                f"{path} row {line}: expected a line {words[0]} of an EyeLink ASC file; got {raw[:80]!r}. The file is "
                "damaged: convert the EDF anew by edf2asc."
            ) from error
    if found.kind != "GAZE":
        raise InvalidValueError(
            f"{path} holds {found.kind} positions, which are not px of a screen. Convert the EDF with gaze positions."
        )
    return found


def _take_line(found: _Recording, words: list[str], raw: str) -> None:
    word = words[0]
    if raw[0].isdigit():  # lines of a calibration begin with blanks
        _take_sample(found, words)
    elif word == "EFIX":
        _take_fixation(found, words)
    elif word == "EBLINK":
        found.blinks.setdefault(_EYES[words[1]], []).append((float(words[2]), float(words[3])))
    elif word == "MSG":
        parts = raw.split(maxsplit=2)
        body = parts[2].strip() if len(parts) > 2 else ""
        found.messages.append(Message(_number(parts[1]), body))
        coords = _COORDS.search(body)
        if coords is not None:
            found.coords = (float(coords[1]), float(coords[2]), float(coords[3]), float(coords[4]))
    elif word == "START":
        found.starts.append(_number(words[1]))
        found.eyes = _named_eyes(words) or found.eyes
    elif word == "END":
        found.ends.append(_number(words[1]))
        if "RES" in words:
            across, down = (float(value) for value in words[words.index("RES") + 1 :][:2])
            found.resolutions.append((across + down) / 2)
    elif word in ("SAMPLES", "EVENTS"):
        found.kind = words[1]
        if word == "SAMPLES":
            found.eyes = _named_eyes(words) or found.eyes
    elif word == "**" and "CONVERTED FROM" in raw:
        name = re.search(r"CONVERTED FROM (.+?\.edf)", raw, re.IGNORECASE)
        found.source = PureWindowsPath(name[1]).stem if name else ""


def _named_eyes(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(eye for eye in ("left", "right") if eye.upper() in words)


def _take_fixation(found: _Recording, words: Sequence[str]) -> None:
    eye, begin, _, lasts, x, y = words[1:7]
    if "." in (x, y):
        return  # the tracker has no place for it
    row = (_number(begin), _number(lasts), _number(x), _number(y))
    found.fixations.setdefault(_EYES[eye], []).append(row)


def _take_sample(found: _Recording, words: Sequence[str]) -> None:
    eyes = found.eyes or ("left",)
    for number, eye in enumerate(eyes):
        x, y = (math.nan if value == "." else _number(value) for value in words[1 + 3 * number : 3 + 3 * number])
        found.samples.setdefault(eye, []).append((_number(words[0]), x, y))


def _number(text: str) -> float:
    value = float(text)
    if not abs(value) <= 1e15:
        raise ValueError(text)
    return value


def _seeing(found: _Recording, eye: str) -> list[tuple[float, float, float]]:
    """Return the samples of an eye in order of time, without places while it blinks."""
    rows = sorted(found.samples[eye])
    blinks = found.blinks.get(eye, [])
    if blinks:
        time = np.array([row[0] for row in rows])
        shut = np.zeros(len(rows), bool)
        for begin, end in blinks:
            shut |= (time >= begin) & (time <= end)
        rows = [(row[0], math.nan, math.nan) if lost else row for row, lost in zip(rows, shut, strict=True)]
    return rows


def _choose_eye(path: Path, eyes: Sequence[str], wanted: str | None) -> str:
    if not eyes:
        raise InvalidValueError(
            f"{path} is an EyeLink file without fixations and samples; expected lines EFIX or samples. Convert the EDF "
            "anew by edf2asc."
        )
    if wanted is None and len(eyes) > 1:
        raise InvalidValueError(f"{path} holds both eyes; give eye='left' or eye='right'.")
    if wanted is not None and wanted not in eyes:
        raise InvalidValueError(f"{path} holds the {eyes[0]} eye only; got eye={wanted!r}. Use eye={eyes[0]!r}.")
    return wanted or eyes[0]


def _frame(found: _Recording) -> tuple[Frame | None, float, float]:
    """Return the screen and the coordinates of its corner.

    By the manual right and bottom are the last pixel, 1279 of 1280; some programs write 1280. Screens have even sides.
    """
    scale = sum(found.resolutions) / len(found.resolutions) if found.resolutions else None
    if found.coords is None:
        return None, 0.0, 0.0
    left, top, right, bottom = found.coords
    sides = [round(last - first) for first, last in ((top, bottom), (left, right))]
    height, width = (side + side % 2 for side in sides)
    return (Frame((height, width), scale) if min(height, width) > 0 else None), left, top


def _kinds(messages: Sequence[Message]) -> list[str]:
    words = dict.fromkeys(message.text.split()[0] for message in messages if message.text.split())
    return list(words)[:12] or ["nothing"]
