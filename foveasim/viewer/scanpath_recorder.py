"""What an eye has done before one scene, the saccade that it is just making, and what there is to say about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from foveasim.eye.saccade import progress
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["OngoingSaccade", "ScanpathRecorder", "StatusMessages"]

_MESSAGE_MS = 6000.0


@dataclass
class OngoingSaccade:
    """A saccade under way.

    Attributes:
        start_px: (x, y).
        landing_px: (x, y).
        duration_ms: How long it takes.
        elapsed_ms: How long it has been going on.
    """

    start_px: tuple[float, float]
    landing_px: tuple[float, float]
    duration_ms: float
    elapsed_ms: float = 0.0

    def gaze(self) -> tuple[float, float]:
        """Return where the eye points now: on a straight line, by the minimum-jerk profile."""
        along = progress(self.elapsed_ms / self.duration_ms) if self.duration_ms > 0 else 1.0
        (x0, y0), (x1, y1) = self.start_px, self.landing_px
        return x0 + (x1 - x0) * along, y0 + (y1 - y0) * along


@dataclass
class ScanpathRecorder:
    """The fixations on one scene, as they come.

    Attributes:
        points_px: (x, y) of each.
        onsets_ms: When each began.
        ends_ms: When each ended; one less than the others while the last one lasts.
        errors: Prediction error after each, NaN until it is known.
    """

    points_px: list[tuple[float, float]] = field(default_factory=list)
    onsets_ms: list[float] = field(default_factory=list)
    ends_ms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    def begin(self, point_px: tuple[float, float], at_ms: float) -> None:
        """Begin a fixation, and end the one before if it still lasts."""
        self.end(at_ms)
        self.points_px.append(point_px)
        self.onsets_ms.append(at_ms)
        self.errors.append(math.nan)

    def end(self, at_ms: float) -> None:
        """End the last fixation."""
        if len(self.ends_ms) < len(self.points_px):
            self.ends_ms.append(at_ms)

    def scanpath(self, until_ms: float, image: str, subject: str) -> Scanpath:
        """Return what there is so far, the last fixation lasting until ``until_ms`` if it has not ended."""
        onset = torch.tensor(self.onsets_ms, dtype=torch.float64)
        ends = torch.tensor([*self.ends_ms, until_ms][: len(onset)], dtype=torch.float64)
        return Scanpath(torch.tensor(self.points_px), onset, (ends - onset).clamp_min(0), image, subject)


class StatusMessages:
    """What a person should know, each shown for six seconds.

    Attributes:
        text: What is shown now; "" if nothing.
    """

    def __init__(self) -> None:
        self.text = ""
        self._left_ms = 0.0
        self._reported: set[str] = set()
        self._once = ""

    def add(self, message: str) -> None:
        """Show a message, beside one that is still shown."""
        self.text = f"{self.text} · {message}" if self.text else message
        self._left_ms = _MESSAGE_MS

    def add_once(self, message: str) -> None:
        """Show a message unless it was shown before, in place of the last one that was to be shown once."""
        if message not in self._reported:
            self._reported.add(message)
            self.text = " · ".join(part for part in self.text.split(" · ") if part != self._once)
            self._once = message
            self.add(message)

    def add_count(self, what: str, messages: list[str]) -> None:
        """Show how many messages are new, and the first of them."""
        new = [message for message in messages if message not in self._reported]
        self._reported.update(new)
        if new:
            self.add(f"{what}: {len(new)}. {new[0]}")

    def pass_time(self, dt_ms: float) -> None:
        """Let time pass."""
        self._left_ms -= dt_ms
        if self._left_ms <= 0:
            self.text = ""
