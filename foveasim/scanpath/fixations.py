"""Fixations out of raw gaze samples: by velocity (I-VT) and by dispersion (I-DT).

Convention:
    Samples are (T, 2) px with their times in ms. Each stands for one interval, the median time from a sample to the
    next: 200 samples at 1,000 a second are a fixation of 200 ms. A fixation lies at the mean of its samples. What the
    tracker lost (a blink, gaze beside the screen) is nan in x or y, or has no sample at all; no fixation goes on
    through it, but I-VT joins what belongs together on both sides.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["find_fixations_idt", "find_fixations_ivt"]

F64 = NDArray[np.float64]
BOOL = NDArray[np.bool_]

_HOLE = 1.5  # intervals between two samples from which on one is missing between them


def _samples(time_ms: object, gaze_px: object) -> tuple[F64, F64, float]:
    try:
        time, gaze = np.asarray(time_ms, np.float64), np.asarray(gaze_px, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError("time_ms must be (T,) numbers and gaze_px (T, 2) numbers.") from error
    if time.ndim != 1 or gaze.shape != (len(time), 2) or len(time) < 2:
        raise InvalidValueError(
            f"time_ms must be (T,) and gaze_px (T, 2), T at least 2; got {time.shape} and {gaze.shape}."
        )
    if not np.isfinite(time).all():
        where = int(np.flatnonzero(~np.isfinite(time))[0])
        raise InvalidValueError(f"time_ms must be finite; sample {where} is {time[where]}.")
    if (np.diff(time) <= 0).any():
        where = int(np.flatnonzero(np.diff(time) <= 0)[0]) + 1
        raise InvalidValueError(f"time_ms must rise; sample {where} is at {time[where]}, after {time[where - 1]}.")
    if np.isinf(gaze).any():
        raise InvalidValueError(
            "gaze_px must be finite, or nan where the tracker lost the eye; it holds infinite values."
        )
    return time, gaze, float(np.median(np.diff(time)))


def _lost(gaze: F64) -> BOOL:
    return np.isnan(gaze[:, 0]) | np.isnan(gaze[:, 1])


def _runs(lost: BOOL, time: F64, interval: float) -> list[tuple[int, int]]:
    """Return where samples that are not lost follow each other without a hole, as (first, last + 1)."""
    breaks = np.flatnonzero(
        np.concatenate(([True], (lost[1:] != lost[:-1]) | (np.diff(time) > _HOLE * interval), [True]))
    )
    return [(int(a), int(b)) for a, b in pairwise(breaks) if not lost[a]]


def _scanpath(
    found: list[tuple[int, int]], time: F64, gaze: F64, interval: float, image: str, subject: str
) -> Scanpath:
    points = np.array([np.nanmean(gaze[a:b], 0) for a, b in found], np.float64).reshape(-1, 2)
    onset = np.array([time[a] for a, _ in found], np.float64)
    duration = np.array([time[b - 1] - time[a] + interval for a, b in found], np.float64)
    fixation_px, onset_ms, duration_ms = (torch.from_numpy(values) for values in (points, onset, duration))
    return Scanpath(fixation_px, onset_ms, duration_ms, image, subject)


def _velocity(time: F64, gaze: F64, window_ms: float) -> F64:
    """Return the speed at each sample in px/ms, over the window around it and never less than both its neighbours."""
    index = np.arange(len(time))
    first = np.minimum(np.searchsorted(time, time - window_ms / 2 - 1e-9), np.maximum(index - 1, 0))
    last = np.maximum(
        np.searchsorted(time, time + window_ms / 2 + 1e-9, "right") - 1, np.minimum(index + 1, len(time) - 1)
    )
    lost = np.concatenate(([0], np.cumsum(_lost(gaze))))
    # Beside lost samples only the part of the window on this side of them counts
    whole = lost[last + 1] == lost[first]
    before = np.where(whole, first, np.maximum(index - 1, 0))
    after = np.where(whole, last, np.minimum(index + 1, len(time) - 1))
    speed = np.hypot(*(gaze[after] - gaze[before]).T) / (time[after] - time[before])
    step = np.hypot(*np.diff(gaze, axis=0).T) / np.diff(time)
    beside = np.fmin(np.concatenate(([np.nan], step)), np.concatenate((step, [np.nan])))
    return np.where(np.isnan(speed), beside, speed)


def find_fixations_ivt(
    time_ms: object,
    gaze_px: object,
    px_per_deg: float,
    *,
    velocity_deg_s: float = 30.0,
    window_ms: float = 20.0,
    merge_ms: float = 75.0,
    merge_deg: float = 0.5,
    min_ms: float = 60.0,
    image: str = "",
    subject: str = "",
) -> Scanpath:
    """Find fixations by velocity: what moves more slowly than a threshold.

    Fixations that lie near each other in time and place are then joined, as a blink or a noisy sample splits them, and
    what is still shorter than ``min_ms`` is left out.

    Args:
        time_ms: (T,), rising.
        gaze_px: (T, 2), nan where the eye was lost.
        px_per_deg: Pixels of a degree of visual angle.
        velocity_deg_s: Threshold.
        window_ms: Velocity is taken over so long a time around each sample, and at least from the sample before to the
            one after. Begin and end of a fixation are off by up to half of it: a longer window bears more noise.
        merge_ms: Longest gap between fixations that are joined.
        merge_deg: Greatest distance between them.
        min_ms: Least duration.
        image: Name that the scanpath gets.
        subject: Likewise.

    Returns:
        The fixations in order; none at all is a scanpath of length 0.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: Shapes that do not fit, times that do not rise, or a setting out of range.

    Reference:
        Salvucci and Goldberg (2000), Identifying fixations and saccades in eye-tracking protocols, ETRA; window,
        joining and defaults: Olsen (2012), The Tobii I-VT fixation filter.
    """
    time, gaze, interval = _samples(time_ms, gaze_px)
    scale = validation.number("px_per_deg", px_per_deg, 0, open_low=True)
    validation.number("velocity_deg_s", velocity_deg_s, 0, open_low=True)
    for name, value in (("window_ms", window_ms), ("merge_ms", merge_ms), ("merge_deg", merge_deg), ("min_ms", min_ms)):
        validation.number(name, value, 0)
    slow = _velocity(time, gaze, window_ms) * 1000 / scale < velocity_deg_s
    fast = _lost(gaze) | ~slow
    joined: list[tuple[int, int]] = []
    for start, stop in _runs(fast, time, interval):
        if joined:
            a, b = joined[-1]
            apart = math.dist(np.nanmean(gaze[a:b], 0), np.nanmean(gaze[start:stop], 0)) / scale
            if time[start] - time[b - 1] - interval <= merge_ms and apart <= merge_deg:
                joined[-1] = (a, stop)
                continue
        joined.append((start, stop))
    lasting = [(a, b) for a, b in joined if time[b - 1] - time[a] + interval >= min_ms - 1e-6]
    return _scanpath(lasting, time, gaze, interval, image, subject)


def find_fixations_idt(
    time_ms: object,
    gaze_px: object,
    px_per_deg: float,
    *,
    dispersion_deg: float = 1.0,
    min_ms: float = 100.0,
    image: str = "",
    subject: str = "",
) -> Scanpath:
    """Find fixations by dispersion: where samples stay together.

    A window of ``min_ms`` slides over the samples until its dispersion, (greatest x - least x) + (greatest y - least
    y), is at most the threshold; it then grows while that holds, and is a fixation.

    It opens on the slow end of a saccade already, so that noise may split a long fixation whose dispersion then comes
    near the threshold: raise the threshold, or find fixations by velocity.

    Args:
        time_ms: (T,), rising.
        gaze_px: (T, 2), nan where the eye was lost.
        px_per_deg: Pixels of a degree of visual angle.
        dispersion_deg: Threshold.
        min_ms: Least duration.
        image: Name that the scanpath gets.
        subject: Likewise.

    Returns:
        The fixations in order; none at all is a scanpath of length 0.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: Shapes that do not fit, times that do not rise, or a setting out of range.

    Reference:
        Salvucci and Goldberg (2000), ETRA, table 5.
    """
    time, gaze, interval = _samples(time_ms, gaze_px)
    max_px = validation.number("px_per_deg", px_per_deg, 0, open_low=True) * validation.number(
        "dispersion_deg", dispersion_deg, 0
    )
    width = max(1, math.ceil(validation.number("min_ms", min_ms, 0) / interval - 1e-6))
    found: list[tuple[int, int]] = []
    for start, stop in _runs(_lost(gaze), time, interval):
        if stop - start >= width:
            found += [(start + a, start + b) for a, b in _together(gaze[start:stop], width, max_px)]
    return _scanpath(found, time, gaze, interval, image, subject)


def _together(gaze: F64, width: int, max_px: float) -> list[tuple[int, int]]:
    windows = np.lib.stride_tricks.sliding_window_view(gaze, width, axis=0)
    begins = np.flatnonzero((windows.max(2) - windows.min(2)).sum(1) <= max_px)
    found: list[tuple[int, int]] = []
    at = 0
    while True:
        later = np.searchsorted(begins, at)
        if later == len(begins):
            return found
        start = int(begins[later])
        stop = start + width
        (left, top), (right, bottom) = gaze[start:stop].min(0).tolist(), gaze[start:stop].max(0).tolist()
        while stop < len(gaze):
            x, y = float(gaze[stop, 0]), float(gaze[stop, 1])
            left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
            if right - left + bottom - top > max_px:
                break
            stop += 1
        found.append((start, stop))
        at = stop
