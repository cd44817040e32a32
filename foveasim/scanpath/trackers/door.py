"""The door through which every recording comes in: from the tracker's numbers to scanpaths in a frame that is known.

Readers hand over a :class:`Look` for each trial, in whatever the file counts in. Here it becomes px of the image, gaze
samples become fixations, and what cannot be right is refused before anybody computes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError
from foveasim.scanpath.fixations import find_fixations_idt, find_fixations_ivt
from foveasim.scanpath.scanpath import Scanpath, distinct_trials
from foveasim.scanpath.trackers.options import Options
from foveasim.types import Frame

__all__ = ["F64", "Look", "admit", "check_plausible", "within"]

F64 = NDArray[np.float64]

_LONGEST_MS = 60_000.0  # nobody fixates for a minute; 250 ms read as s are 250,000
_SHORTEST_MS = 5.0  # no fixation is shorter; 0.25 s read as ms are 0.25


@dataclass(frozen=True)
class Look:
    """One trial as its file has it.

    Attributes:
        image: Name of what was looked at, "" where the file does not say.
        subject: Likewise, who looked.
        trial: Likewise, which time.
        x: (N,) in ``units``, of fixations or samples; NaN where the eye was lost, in samples only.
        y: (N,).
        onset_ms: (N,) begin of the fixations, or times of the samples.
        duration_ms: (N,) of the fixations; None for samples.
        units: "px", "fraction" of the frame or "deg" from its middle.
        y_up: Whether y grows upwards.
        frame: What the file says that the numbers count in; None where it does not.
        on_screen: Whether that is the screen, of which an image may be a part; otherwise it is the image itself.
    """

    image: str
    subject: str
    trial: str
    x: F64
    y: F64
    onset_ms: F64
    duration_ms: F64 | None
    units: str = "px"
    y_up: bool = False
    frame: Frame | None = None
    on_screen: bool = True


def admit(path: Path, format: str, looks: Sequence[Look], options: Options) -> list[Scanpath]:
    """Turn what a reader found into scanpaths.

    Args:
        path: The file, for messages.
        format: Its name, for messages.
        looks: Its trials.
        options: What the user says beside the file.

    Returns:
        One scanpath for each trial, px of the image.

    Raises:
        InvalidValueError: A frame or scale that is missing or contradictory, or numbers that cannot be right; the
            message names the option.
    """
    scanpaths = []
    for look in looks:
        named = replace(
            look,
            image=look.image or options.image or "",
            subject=look.subject or options.subject or "",
            trial=look.trial or options.trial or "",
        )
        scanpaths.append(_placed(path, format, named, options))
    if options.plausible:
        check_plausible(path, scanpaths)
    return distinct_trials(within(path, scanpaths, options))


# Places


def _placed(path: Path, format: str, look: Look, options: Options) -> Scanpath:
    """Carry a trial over to px of its image."""
    own = look.frame
    if not look.on_screen and (options.origin_px is not None or options.image_size is not None):
        raise InvalidValueError(
            f"{path} gives px of the image itself, so that origin_px and image_size have no use; remove them."
        )
    screen = _screen_size(path, look, options)
    image_size = _image_size(path, look.image, options)
    whole = screen if screen is not None else image_size
    scale = options.scale(screen if look.on_screen else options.screen_px)
    if scale is None and own is not None:
        scale = own.px_per_deg
    x, y = _in_px(path, format, look, options, whole, scale)
    size = whole
    if options.origin_px is not None:
        if image_size is None:
            raise InvalidValueError(
                f"{path}: origin_px says where the image begins on the screen; give image_size=(H, W), its size there, "
                "as well."
            )
        left, top = _origin(path, options.origin_px, screen, image_size)
        x, y, size = x - left, y - top, image_size
    elif image_size is not None and screen is not None and image_size != screen:
        raise InvalidValueError(
            f"{path}: the image of {image_size} is a part of the screen of {screen}; say where: origin_px='centre', or "
            "origin_px=(x, y) of its top-left corner."
        )
    frame = None if size is None else Frame(size, scale)
    if look.duration_ms is not None:
        points = torch.from_numpy(np.stack((x, y), 1))
        order = np.argsort(look.onset_ms, kind="stable")
        times = torch.from_numpy(look.onset_ms[order]), torch.from_numpy(look.duration_ms[order])
        return Scanpath(points[torch.from_numpy(order)], *times, look.image, look.subject, look.trial, frame)
    return replace(_fixations(path, look, x, y, scale, options), trial=look.trial, frame=frame)


def _screen_size(path: Path, look: Look, options: Options) -> tuple[int, int] | None:
    """Return (H, W) of the screen: the file's, or the user's, which may not contradict it by more than a pixel."""
    own = look.frame.size if look.frame is not None else None
    given = options.screen_px
    if not look.on_screen or given is None:
        return own
    if own is not None and max(abs(own[0] - given[0]), abs(own[1] - given[1])) > 1:
        raise InvalidValueError(
            f"{path} states a screen of (H, W) = {own}; screen_px={tuple(given)} contradicts it. Remove screen_px."
        )
    return (given[0], given[1])


def _image_size(path: Path, image: str, options: Options) -> tuple[int, int] | None:
    sizes = options.image_size
    if not isinstance(sizes, Mapping):
        return None if sizes is None else (sizes[0], sizes[1])
    if image not in sizes:
        raise InvalidValueError(
            f"image_size must hold every image of {path}; got none for {image!r}. Add it, or leave out its rows."
        )
    return sizes[image][0], sizes[image][1]


def _origin(
    path: Path, origin_px: tuple[float, float] | str, screen: tuple[int, int] | None, image_size: tuple[int, int]
) -> tuple[float, float]:
    if not isinstance(origin_px, str):
        return origin_px
    if screen is None:
        raise InvalidValueError(f"{path}: origin_px='centre' needs the screen's size: give screen_px=(H, W).")
    return (screen[1] - image_size[1]) / 2, (screen[0] - image_size[0]) / 2


def _in_px(
    path: Path, format: str, look: Look, options: Options, whole: tuple[int, int] | None, scale: float | None
) -> tuple[F64, F64]:
    """Return x and y in px of the screen, or of the image where nothing is said of a screen."""
    x, y = look.x, look.y
    if look.units == "px" and not look.y_up:
        return x, y
    if whole is None and not (look.units == "deg" and options.deg_origin_px is not None):
        what = {"px": "px that grow upwards", "fraction": "fractions of the screen", "deg": "degrees from its middle"}
        raise InvalidValueError(
            f"{path} ({format}) holds {what[look.units]}: give screen_px=(H, W), such as screen_px=(1080, 1920), or "
            "image_size=(H, W) where they are those of the image."
        )
    height, width = whole if whole is not None else (0, 0)
    if look.units == "deg":
        if scale is None:
            raise InvalidValueError(
                f"{path} ({format}) holds degrees: give px_per_deg=, or screen_px=, screen_width_cm= and distance_cm=."
            )
        zero = options.deg_origin_px or (width / 2, height / 2)
        return zero[0] + scale * x, zero[1] + (-scale if look.y_up else scale) * y
    if look.units == "fraction":
        return x * width, (1 - y if look.y_up else y) * height
    return x, height - y


def _fixations(path: Path, look: Look, x: F64, y: F64, scale: float | None, options: Options) -> Scanpath:
    if scale is None:
        raise InvalidValueError(
            f"{path} has gaze samples to find fixations in, which needs the size of a degree: give px_per_deg=, or "
            "screen_px=, screen_width_cm= and distance_cm=."
        )
    find: Callable[..., Scanpath] = find_fixations_idt if options.fixations == "idt" else find_fixations_ivt
    rising = np.concatenate(([True], np.diff(look.onset_ms) > 0)) if len(x) else np.zeros(0, bool)
    time, gaze = look.onset_ms[rising], np.stack((x, y), 1)[rising]
    if len(time) < 2:
        return Scanpath(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0), look.image, look.subject)
    return find(time, gaze, scale, image=look.image, subject=look.subject)


# Plausibility


def check_plausible(path: Path, scanpaths: Sequence[Scanpath]) -> None:
    """Refuse what cannot be right: the wrong unit of time or of place, or another frame.

    Raises:
        InvalidValueError: The message names the likely cause and the option that mends it.
    """
    points = np.concatenate([one.fixation_px.numpy() for one in scanpaths]) if scanpaths else np.zeros((0, 2))
    lasts = np.concatenate([one.duration_ms.numpy() for one in scanpaths]) if scanpaths else np.zeros(0)
    if not len(points):
        return
    remedy = "If it is right nevertheless, give plausible=False."
    if lasts.max() > _LONGEST_MS:
        raise InvalidValueError(
            f"{path}: a fixation lasts {lasts.max() / 1000:g} s; durations must be given in their own unit, so give "
            f"duration_unit='ms', 'us' or 'ns' for what the column holds (onsets have onset_unit). {remedy}"
        )
    if 0 < lasts.max() < _SHORTEST_MS:
        raise InvalidValueError(
            f"{path}: no fixation lasts longer than {lasts.max():g} ms; durations must be given in their own unit, so "
            f"give duration_unit='s' if the column holds seconds. {remedy}"
        )
    if len(points) > 2 and float(np.abs(points - points[0]).max()) < 1:
        raise InvalidValueError(
            f"{path}: all {len(points)} fixations lie within one pixel of ({points[0, 0]:g}, {points[0, 1]:g}); they "
            "may be fractions of the screen: give units='fraction' and screen_px=(H, W), or degrees: units='deg'. "
            f"{remedy}"
        )
    known = [one for one in scanpaths if one.frame is not None]
    count = sum(len(one) for one in known)
    beyond = sum(int(one.outside().sum()) for one in known)
    if beyond > max(2, count / 2):
        sizes = sorted({one.frame.size for one in known if one.frame is not None})
        raise InvalidValueError(
            f"{path}: {beyond} of {count} fixations lie outside of (H, W) = {', '.join(map(str, sizes[:3]))}; check "
            "that screen_px or image_size is (height, width), and where the image is on the screen: origin_px. "
            f"{remedy}"
        )


def within(path: Path, scanpaths: Sequence[Scanpath], options: Options) -> list[Scanpath]:
    """Do with fixations beyond the image what ``options.outside`` says."""
    if options.outside == "keep":
        return list(scanpaths)
    if any(one.frame is None for one in scanpaths):
        raise InvalidValueError(
            f"outside={options.outside!r} needs the size of the image, which {path} does not state: give "
            "image_size=(H, W) or screen_px=(H, W)."
        )
    counts = [int(one.outside().sum()) for one in scanpaths]
    if options.outside == "error" and any(counts):
        worst = scanpaths[int(np.argmax(counts))]
        raise InvalidValueError(
            f"{path}: {sum(counts)} of {sum(map(len, scanpaths))} fixations lie outside of the image, most of them on "
            f"{worst.image!r} by {worst.subject!r}. Use outside='drop' to leave them out, or outside='keep'."
        )
    return [one.inside() for one in scanpaths]
