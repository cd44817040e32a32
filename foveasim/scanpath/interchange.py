"""Scanpaths to and from the objects of pysaliency and pymovements, by their structure: neither is imported.

Convention:
    pysaliency keeps times in seconds, and image and subject as numbers; pymovements keeps times in ms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.scanpath import Scanpath, distinct_trials
from foveasim.types import Frame

__all__ = ["from_pymovements", "from_pysaliency", "to_pymovements", "to_pysaliency"]


def to_pysaliency(scanpaths: Sequence[Scanpath], images: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of pysaliency's ``FixationTrains``: ``pysaliency.FixationTrains(**to_pysaliency(...))``.

    Args:
        scanpaths: Px of the stimuli.
        images: Name of each stimulus, in the order of pysaliency's ``Stimuli``.

    Returns:
        ``train_xs``, ``train_ys`` and ``train_ts`` (s), (N, longest) float64, NaN behind a scanpath's end; ``train_ns``
        and ``train_subjects``, (N,) int64, subjects numbered in the order in which they come; and ``durations`` (s)
        among ``scanpath_fixation_attributes``.

    Raises:
        InvalidValueError: A scanpath on an image that is not among ``images``, or without a fixation.
    """
    number = {name: place for place, name in enumerate(images)}
    for path in scanpaths:
        if path.image not in number:
            raise InvalidValueError(f"images must hold every scanpath's image; got none called {path.image!r}. Add it.")
        if not len(path):
            raise InvalidValueError(
                f"scanpaths must have fixations for pysaliency; that of {path.subject!r} on {path.image!r} has none. "
                "Leave it out."
            )
    subjects = {name: place for place, name in enumerate(dict.fromkeys(path.subject for path in scanpaths))}
    longest = max(map(len, scanpaths), default=0)
    tables = np.full((4, len(scanpaths), longest), np.nan)
    for row, path in enumerate(scanpaths):
        values = (*path.fixation_px.unbind(1), path.onset_ms / 1000, path.duration_ms / 1000)
        for table, value in zip(tables, values, strict=True):
            table[row, : len(path)] = value.numpy()
    return {
        "train_xs": tables[0],
        "train_ys": tables[1],
        "train_ts": tables[2],
        "train_ns": np.array([number[path.image] for path in scanpaths], np.int64),
        "train_subjects": np.array([subjects[path.subject] for path in scanpaths], np.int64),
        "scanpath_fixation_attributes": {"durations": tables[3]},
    }


def from_pysaliency(
    fixations: Any, images: Sequence[str], sizes: Sequence[tuple[int, int]], px_per_deg: float | None = None
) -> list[Scanpath]:
    """Return the scanpaths of a ``FixationTrains``, or of any object with its attributes ``train_xs`` and so on.

    Args:
        fixations: With ``train_xs``, ``train_ys``, ``train_ts``, ``train_ns`` and ``train_subjects``, and durations
            (s) among ``scanpath_fixation_attributes``. Without them each fixation lasts to the next one's onset, the
            last as long as the middle one of the scanpath.
        images: Name of each stimulus.
        sizes: (H, W) of each, as ``stimuli.sizes`` has them.
        px_per_deg: Of the stimuli, where it is known.

    Raises:
        InvalidTypeError: An object without those attributes.
        InvalidValueError: A stimulus that has no name or size.
    """
    names = ("train_xs", "train_ys", "train_ts", "train_ns", "train_subjects")
    absent = [name for name in names if not hasattr(fixations, name)]
    if absent:
        raise InvalidTypeError(
            f"fixations must have {', '.join(names)}, as pysaliency's FixationTrains has; got "
            f"{type(fixations).__name__} without {', '.join(absent)}. Use FixationTrains(scanpath_fixations.scanpaths)."
        )
    lasts = (getattr(fixations, "scanpath_fixation_attributes", None) or {}).get("durations")
    found = []
    for row in range(len(fixations.train_xs)):
        stimulus = int(fixations.train_ns[row])
        if not 0 <= stimulus < min(len(images), len(sizes)):
            raise InvalidValueError(
                f"images and sizes must hold every stimulus; got {len(images)} and {len(sizes)}, and a scanpath on "
                f"number {stimulus}. Give both for all of them."
            )
        x, y, t = (np.asarray(getattr(fixations, name)[row], np.float64) for name in names[:3])
        there = np.isfinite(x)
        points, onset = np.stack((x, y), 1)[there], t[there] * 1000
        last = _to_next(onset) if lasts is None else np.asarray(lasts[row], np.float64)[: len(x)][there] * 1000
        frame = Frame((int(sizes[stimulus][0]), int(sizes[stimulus][1])), px_per_deg)
        place, begin, long = (torch.from_numpy(value) for value in (points, onset, last))
        found.append(Scanpath(place, begin, long, images[stimulus], str(fixations.train_subjects[row]), "", frame))
    return distinct_trials(found)


def _to_next(onset_ms: Any) -> Any:
    steps = np.diff(onset_ms)
    return np.append(steps, np.median(steps) if len(steps) else 0.0)


def to_pymovements(scanpaths: Sequence[Scanpath]) -> dict[str, list[Any]]:
    """Return the columns of pymovements' events: ``pymovements.Events(polars.DataFrame(to_pymovements(paths)))``.

    Returns:
        ``name`` ("fixation"), ``onset``, ``offset`` and ``duration`` in ms, ``location`` as [x, y] px, and ``subject``,
        ``stimulus`` and ``trial``.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("name", "onset", "offset", "duration", "location")}
    columns |= {name: [] for name in ("subject", "stimulus", "trial")}
    for path in scanpaths:
        columns["name"] += ["fixation"] * len(path)
        columns["onset"] += path.onset_ms.tolist()
        columns["offset"] += (path.onset_ms + path.duration_ms).tolist()
        columns["duration"] += path.duration_ms.tolist()
        columns["location"] += path.fixation_px.tolist()
        for name, value in (("subject", path.subject), ("stimulus", path.image), ("trial", path.trial)):
            columns[name] += [value] * len(path)
    return columns


def from_pymovements(
    events: Any, frame: Frame | None = None, *, image: str = "stimulus", subject: str = "subject", trial: str = "trial"
) -> list[Scanpath]:
    """Return the scanpaths of pymovements' events.

    Args:
        events: ``Events``, its ``frame``, or any table whose columns are taken by name, also a dict of lists. It needs
            ``name``, ``onset`` and ``duration`` or ``offset`` in ms, and ``location`` or ``location_x`` and
            ``location_y`` in px, which ``events.compute_properties("location")`` of a gaze adds. Only what is called
            fixation, also with a method behind it as in ``fixation.ivt``, is taken.
        frame: What the pixels are counted in: usually the screen.
        image: Column with the image, if there is one.
        subject: Likewise, with the subject.
        trial: Likewise, with the trial.

    Raises:
        InvalidValueError: A column is missing.
    """
    table = getattr(events, "frame", events)
    names = list(table.keys() if isinstance(table, Mapping) else table.columns)
    location = ["location"] if "location" in names else ["location_x", "location_y"]
    lasts = "duration" if "duration" in names else "offset"
    missing = [name for name in ("name", "onset", lasts, *location) if name not in names]
    if missing:
        raise InvalidValueError(
            f"events must have the columns {', '.join(missing)}; got {', '.join(map(str, names))}. Locations are added "
            "by gaze.compute_event_properties('location')."
        )
    own = {name: list(table[name]) for name in ("name", "onset", lasts, *location)}
    about = [list(table[name]) if name in names else [""] * len(own["name"]) for name in (image, subject, trial)]
    groups: dict[tuple[str, ...], list[tuple[float, float, float, float]]] = {}
    for row, kind in enumerate(own["name"]):
        if not str(kind).startswith("fixation"):
            continue
        x, y = own["location"][row] if len(location) == 1 else (own["location_x"][row], own["location_y"][row])
        onset = float(own["onset"][row])
        long = float(own[lasts][row]) - (onset if lasts == "offset" else 0)
        groups.setdefault(tuple(str(column[row]) for column in about), []).append((float(x), float(y), onset, long))
    found = []
    for key, rows in groups.items():
        values = torch.tensor(sorted(rows, key=lambda row: row[2]), dtype=torch.float64)
        of_image, of_subject, of_trial = key
        found.append(Scanpath(values[:, :2], values[:, 2], values[:, 3], of_image, of_subject, of_trial, frame))
    return found
