"""What a person may say about a recording that its file does not, checked once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.trackers.tables import TIME_UNITS

__all__ = ["FORMATS", "Options"]

_OUTSIDE = {"outside"}
_TEXT_FILE = _OUTSIDE | {"image", "subject", "trial", "encoding", "plausible"}
_GEOMETRY = {"screen_px", "screen_width_cm", "distance_cm", "px_per_deg", "origin_px", "image_size"}
_TABLE = {"delimiter", "decimal", "where"}
_SAMPLES = {"fixations"}
_MESSAGES = {"image_message", "trial_message"}
_TAKES = {
    "foveasim": _TEXT_FILE | {"px_per_deg", "image_size"},
    "eyelink": _TEXT_FILE | _GEOMETRY | _SAMPLES | _MESSAGES | {"eye"},
    "tobii": _TEXT_FILE | _GEOMETRY | _SAMPLES | _TABLE | {"onset_unit"},
    "pupil_core": _TEXT_FILE | _GEOMETRY | _TABLE,
    "neon": _TEXT_FILE | _GEOMETRY | _TABLE,
    "gazepoint": _TEXT_FILE | _GEOMETRY | _TABLE,
    "begaze": _TEXT_FILE | _GEOMETRY | {"eye", "image_message"},
    "bids": _TEXT_FILE | _GEOMETRY | _SAMPLES | _MESSAGES,
    "table": _TEXT_FILE
    | _GEOMETRY
    | _TABLE
    | {"columns", "units", "y_up", "deg_origin_px", "onset_unit", "duration_unit", "end_unit", "trial_ms"},
    "osie": _OUTSIDE,
    "mit1003": _OUTSIDE | {"image_size", "drop_first"},
}
FORMATS = tuple(_TAKES)


@dataclass(frozen=True)
class Options:
    """All that :func:`foveasim.read_scanpaths` may be given; see there for what each means.

    Raises:
        InvalidTypeError: An option of another type.
        InvalidValueError: One out of range, or two that contradict each other.
    """

    columns: Mapping[str, str] | None = None
    where: Mapping[str, object] | None = None
    image: str | None = None
    subject: str | None = None
    trial: str | None = None
    eye: str | None = None
    image_message: str | None = None
    trial_message: str | None = None
    fixations: str | None = None
    units: str = "px"
    y_up: bool = False
    deg_origin_px: tuple[float, float] | None = None
    onset_unit: str | None = None
    duration_unit: str | None = None
    end_unit: str | None = None
    trial_ms: float | None = None
    decimal: str = "."
    delimiter: str | None = None
    encoding: str | None = None
    screen_px: tuple[int, int] | None = None
    screen_width_cm: float | None = None
    distance_cm: float | None = None
    px_per_deg: float | None = None
    origin_px: tuple[float, float] | str | None = None
    image_size: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None
    outside: str = "keep"
    plausible: bool = True
    drop_first: bool = True

    def __post_init__(self) -> None:
        for name in ("image", "subject", "trial", "image_message", "trial_message", "delimiter", "encoding"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidTypeError(f"{name} must be text; got {value!r}.")
        for name, words in _CHOICES.items():
            if getattr(self, name) is not None:
                validation.choice(name, getattr(self, name), words)
        for name in ("screen_width_cm", "distance_cm", "px_per_deg"):
            if getattr(self, name) is not None:
                validation.number(name, getattr(self, name), 0, open_low=True)
        if self.trial_ms is not None:
            validation.number("trial_ms", self.trial_ms)
        for name in ("y_up", "plausible", "drop_first"):
            validation.flag(name, getattr(self, name))
        for name in ("columns", "where"):
            validation.options(name, getattr(self, name))
        self._check_places()
        self._check_patterns()
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise InvalidValueError(f"delimiter must be one character, such as ';'; got {self.delimiter!r}.")

    def _check_places(self) -> None:
        if self.screen_px is not None:
            validation.size_hw("screen_px", self.screen_px, 1)
        sizes = self.image_size.values() if isinstance(self.image_size, Mapping) else [self.image_size]
        for size in sizes:
            if size is not None:
                validation.size_hw("image_size", size, 1)
        for name in ("origin_px", "deg_origin_px"):
            place = getattr(self, name)
            if place is None or (name == "origin_px" and place == "centre"):
                continue
            if isinstance(place, str) or not isinstance(place, Sequence) or len(place) != 2:
                word = " or 'centre'" if name == "origin_px" else ""
                raise InvalidTypeError(f"{name} must be a pair (x, y) of numbers{word}; got {place!r}.")
            for axis in range(2):
                validation.number(f"{name}[{axis}]", place[axis])
        if self.px_per_deg is not None and (self.screen_width_cm is not None or self.distance_cm is not None):
            raise InvalidValueError(
                "px_per_deg must be given alone, or worked out of screen_width_cm and distance_cm; got both. Give one."
            )
        if (self.screen_width_cm is None) != (self.distance_cm is None):
            raise InvalidValueError("screen_width_cm and distance_cm must come together; got one of them only.")

    def _check_patterns(self) -> None:
        for name in ("image_message", "trial_message"):
            pattern = getattr(self, name)
            try:
                groups = 1 if pattern is None else re.compile(pattern).groups
            except re.error as error:
                raise InvalidValueError(f"{name} must be a regular expression; got {pattern!r} ({error}).") from error
            if groups != 1:
                raise InvalidValueError(
                    f"{name} must hold one group, the name: {name}='TRIALID (.*)'; got {groups} in {pattern!r}."
                )

    def check_for(self, path: Path, format: str) -> None:
        """Refuse what a format has no use for.

        Raises:
            InvalidValueError: An option that this format does not take.
        """
        plain = Options()
        given = {field.name for field in fields(self) if getattr(self, field.name) != getattr(plain, field.name)}
        wrong = sorted(given - _TAKES[format])
        if wrong:
            text = _TAKES[format] >= _TEXT_FILE
            instead = ", or give format='table' and columns= to name the columns yourself" if text else ""
            raise InvalidValueError(
                f"{path} is read as {format}, which has no use for {', '.join(wrong)}; it takes "
                f"{', '.join(sorted(_TAKES[format]))}. Remove {'them' if len(wrong) > 1 else 'it'}"
                f"{instead}."
            )

    def scale(self, screen: tuple[int, int] | None) -> float | None:
        """Return pixels of a degree as given, or worked out at the middle of a screen of (H, W) px; None if unknown.

        Raises:
            InvalidValueError: The screen's width in cm is given, and not in px.
        """
        if self.px_per_deg is not None or self.screen_width_cm is None or self.distance_cm is None:
            return self.px_per_deg
        if screen is None:
            raise InvalidValueError(
                "screen_width_cm and distance_cm need the screen's pixels: give screen_px=(H, W), such as (1080, 1920)."
            )
        return screen[1] / self.screen_width_cm * 2 * self.distance_cm * math.tan(math.radians(0.5))


_CHOICES = {
    "eye": ("left", "right"),
    "fixations": ("file", "ivt", "idt"),
    "units": ("px", "fraction", "deg"),
    "onset_unit": tuple(TIME_UNITS),
    "duration_unit": tuple(TIME_UNITS),
    "end_unit": tuple(TIME_UNITS),
    "decimal": (".", ","),
    "outside": ("keep", "drop", "error"),
}
