"""Trials and images out of the messages that a stimulus program sent to the tracker."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PureWindowsPath

import numpy as np

from foveasim.scanpath.trackers.door import F64

__all__ = ["Label", "Message", "blocks_as_trials", "find_marks", "group", "label"]

_OFFSET = re.compile(r"(-?\d+)\s+(.*)")


@dataclass(frozen=True)
class Message:
    """A text and the time at which it was sent, ms."""

    time_ms: float
    text: str


@dataclass(frozen=True)
class Label:
    """To which trial something belongs: its number, -1 before the first, its name, and the image shown."""

    number: int
    trial: str
    image: str


def find_marks(messages: Sequence[Message], pattern: str) -> list[Message]:
    """Return what the group of a pattern finds in messages, in order of time.

    A number before a message's text is an offset that EyeLink programs send: the moment meant lies so many ms before
    that of the message.
    """
    regex, found = re.compile(pattern), []
    for message in messages:
        hit, time_ms = regex.search(message.text), message.time_ms
        offset = _OFFSET.fullmatch(message.text)
        if hit is None and offset is not None:
            hit, time_ms = regex.search(offset[2]), message.time_ms - int(offset[1])
        if hit is not None:
            found.append(Message(time_ms, (hit[1] or "").strip()))
    return sorted(found, key=lambda mark: mark.time_ms)


def label(onset_ms: F64, trials: Sequence[Message], images: Sequence[Message]) -> list[Label]:
    """Say to which trial and image each moment belongs.

    A trial lasts to the next one. Its image is the last that was named in it before the moment, or else the first that
    is named in it later: some programs name it when the trial is over.

    Args:
        onset_ms: (N,) moments.
        trials: Names of trials at their begins, in order of time.
        images: Names of images, likewise. Of a path only the last part is taken.
    """
    begins = np.array([mark.time_ms for mark in trials], np.float64)
    shown: dict[int, list[Message]] = {}
    for mark in images:
        shown.setdefault(int(np.searchsorted(begins, mark.time_ms, "right")) - 1, []).append(mark)
    labels = []
    numbers = (np.searchsorted(begins, onset_ms, "right") - 1).tolist()
    for moment, number in zip(onset_ms.tolist(), numbers, strict=True):
        own = shown.get(number, [])
        before = [mark for mark in own if mark.time_ms <= moment]
        name = before[-1].text if before else own[0].text if own else ""
        # A Windows path parts at both kinds of slash
        labels.append(Label(number, trials[number].text if number >= 0 else "", PureWindowsPath(name).name))
    return labels


def group(labels: Sequence[Label]) -> list[tuple[Label, list[int]]]:
    """Return runs of moments with one label, with their places."""
    runs = groupby(range(len(labels)), key=lambda place: labels[place])
    return [(one, list(places)) for one, places in runs]


def blocks_as_trials(starts: Sequence[float], ends: Sequence[float]) -> list[Message]:
    """Return blocks of recording as trials "1", "2", ..., each from the end of the one before; one alone is none."""
    if len(starts) < 2:
        return []
    begins = [-math.inf, *(max((end for end in ends if end <= start), default=start) for start in starts[1:])]
    return [Message(begin, str(number)) for number, begin in enumerate(begins, start=1)]
