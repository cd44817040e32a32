"""Scanpaths from files: foveasim's own, a table of your own eye tracker, OSIE's and MIT1003's Matlab files.

:func:`read_scanpaths` reads them all, each by its reader. Matlab files need scipy, which is not installed with
foveasim. CAT2000 keeps its scanpaths in a Matlab ``containers.Map``, which nothing but Matlab reads; write it as a
table there, and read that.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch

from foveasim import validation
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.scanpath.fixations import find_fixations_ivt
from foveasim.scanpath.scanpath import Scanpath, read_csv, read_number, read_table

__all__ = ["ReadOptions", "read_mit1003", "read_osie_mat", "read_scanpaths", "read_tracker_csv"]

_MIT1003_HZ = 240.0  # DatabaseCode of the data set
_MIT1003_PX_PER_DEG = 35.0  # Judd et al. (2009), section 3: one degree is about 35 px


class ReadOptions(TypedDict, total=False):
    """What :func:`read_scanpaths` must be told of some files.

    Of a table: ``image subject x y onset duration end trial_ms seconds units origin_px px_per_deg y_up delimiter``, see
    :func:`read_tracker_csv`. Of MIT1003: ``drop_first``, see :func:`read_mit1003`.
    """

    image: str
    subject: str
    x: str
    y: str
    onset: str
    duration: str
    end: str
    trial_ms: float
    seconds: bool
    units: Literal["px", "deg"]
    origin_px: tuple[float, float]
    px_per_deg: float
    y_up: bool
    delimiter: str
    drop_first: bool


def read_scanpaths(path: str | Path, **options: Unpack[ReadOptions]) -> list[Scanpath]:
    r"""Read the scanpaths of a file or folder.

    ============================  =====================================================================================
    a CSV file, without options   foveasim's own columns, ``image,subject,index,x,y,duration_ms`` and ``onset_ms`` where
                                  it has them; OSIE is published in these
    a text file, with options     a table of fixations, one row each, as eye trackers export it: you say which column
                                  holds what, see :func:`read_tracker_csv`
    a ``.mat`` file               OSIE's ``fixations.mat``, see :func:`read_osie_mat`
    a folder                      MIT1003's ``DATA``, raw gaze, see :func:`read_mit1003`
    ============================  =====================================================================================

    Args:
        path: The file or folder.
        **options: Of a table: ``image``, ``subject``, ``x``, ``y``, ``onset``, ``duration``, ``end``, ``trial_ms``,
            ``seconds``, ``units``, ``origin_px``, ``px_per_deg``, ``y_up``, ``delimiter``. Of MIT1003: ``drop_first``.

    Returns:
        The scanpaths, in px of the image.

    Raises:
        InvalidTypeError: An option that there is not, or of another type.
        InvalidValueError: No such file, an option that does not belong to such a file, or a wrong row; the message
            names row and column. Row 1 is the header.
        FoveasimError: scipy is not installed, and the file is Matlab's.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "export.csv"
        >>> _ = file.write_text("TRIAL;USER;FPOGX;FPOGY;FPOGD\nbeach;ann;400;300;0.2\n")
        >>> columns = {"image": "TRIAL", "subject": "USER", "x": "FPOGX", "y": "FPOGY", "duration": "FPOGD"}
        >>> read_scanpaths(file, **columns, seconds=True, delimiter=";")[0].duration_ms
        tensor([200.])
    """
    path = Path(path)
    unknown = sorted(options.keys() - ReadOptions.__annotations__.keys())
    if unknown:
        raise InvalidTypeError(
            f"read_scanpaths() has no option {unknown[0]!r}. It takes {', '.join(ReadOptions.__annotations__)}."
        )
    folder, matlab = path.is_dir(), path.suffix.lower() == ".mat"
    takes = {"drop_first"} if folder else set() if matlab else ReadOptions.__annotations__.keys() - {"drop_first"}
    foreign = sorted(options.keys() - takes)
    if foreign:
        kind = "MIT1003's folder" if folder else "OSIE's fixations.mat" if matlab else "a table"
        raise InvalidValueError(f"{foreign[0]} must not be given for {path}, which is read as {kind}. Leave it out.")
    if folder:
        return read_mit1003(path, **options)  # type: ignore[misc]  # drop_first at most
    if matlab:
        return read_osie_mat(path)
    return read_tracker_csv(path, **options) if options else read_csv(path)  # type: ignore[misc]  # no drop_first


def read_tracker_csv(
    path: str | Path,
    *,
    image: str = "image",
    subject: str = "subject",
    x: str = "x",
    y: str = "y",
    onset: str | None = None,
    duration: str | None = None,
    end: str | None = None,
    trial_ms: float | None = None,
    seconds: bool = False,
    units: Literal["px", "deg"] = "px",
    origin_px: tuple[float, float] | None = None,
    px_per_deg: float | None = None,
    y_up: bool = False,
    delimiter: str = ",",
) -> list[Scanpath]:
    """Read a table of fixations, one row each, with a header, as eye trackers export it.

    You say which column holds what, nothing is guessed. Rows of a scanpath stand together, in order; a new one begins
    where image or subject change. Of the times, give the columns that you have:

    ================================  ==================================================================
    ``duration``                      fixations follow each other, the flights between them count as nothing
    ``onset`` and ``duration``        both are taken as they are
    ``onset`` and ``end``             duration = end - onset
    ``onset`` and ``trial_ms``        a fixation lasts to the next onset, flight included, the last to the end of trial
    ================================  ==================================================================

    Convention:
        px count from the top-left corner of the image, y down. Where they count from the corner of the screen,
        ``origin_px`` is the place of the image's corner on it: ``(560, 240)`` for an 800 x 600 image in the middle of
        1920 x 1080. Degrees count from a point that you name in px of the image, usually its centre: with
        ``origin_px=(400, 300)`` and ``px_per_deg=24`` the point (1, -2) deg is (424, 252) px, and (424, 348) with
        ``y_up=True``.

    Args:
        path: The file, UTF-8.
        image: Name of the column with the image.
        subject: Name of the column with the subject.
        x: Name of the column with x.
        y: Name of the column with y.
        onset: Name of the column with the time at which a fixation begins.
        duration: Name of the column with its duration.
        end: Name of the column with the time at which it ends.
        trial_ms: When a trial ends on the clock of ``onset``, always in ms; only with ``onset`` alone.
        seconds: Whether the times in the file are seconds; otherwise ms.
        units: Of x and y.
        origin_px: For px what is taken away from both, by default (0, 0); for degrees where they count from.
        px_per_deg: Needed for degrees.
        y_up: Whether y grows upwards; for degrees only.
        delimiter: Between the fields: comma, semicolon, tab.

    Returns:
        The scanpaths in px of the image. Fixations beside the image are kept.

    Raises:
        InvalidTypeError: A setting of another type.
        InvalidValueError: Settings that do not fit each other, no such file or column, or a wrong row; the message
            names row and column. Row 1 is the header.
    """
    path = Path(path)
    times = _time_columns(onset, duration, end, trial_ms)
    scale, origin = _space(units, origin_px, px_per_deg, y_up)
    header, rows = read_table(path, delimiter)
    wanted = [image, subject, x, y, *times.values()]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise InvalidValueError(
            f"{path} row 1: no column {', '.join(map(repr, missing))}; the columns are {', '.join(header) or 'none'}. "
            "Name yours, for instance x='FPOGX', and the delimiter, should it not be a comma."
        )
    place = {name: header.index(name) for name in wanted}
    found: list[tuple[tuple[str, str], list[list[float]]]] = []
    factor = 1000.0 if seconds else 1.0
    for line, row in rows:
        names = (row[place[image]], row[place[subject]])
        point = [read_number(path, line, name, row[place[name]]) for name in (x, y)]
        point = [value * by + shift for value, by, shift in zip(point, scale, origin, strict=True)]
        clock = {
            kind: factor * read_number(path, line, name, row[place[name]], 0 if kind == "duration" else -math.inf)
            for kind, name in times.items()
        }
        if not found or found[-1][0] != names:
            found.append((names, []))
        before = found[-1][1][-1] if found[-1][1] else None
        if "onset" in clock and before is not None and clock["onset"] < before[2]:
            raise InvalidValueError(
                f"{path} row {line}, column {onset}: begins before the fixation in the row above. Rows of a scanpath "
                "must stand in order; should a new trial begin here, tell it by image or subject."
            )
        begins = clock["onset"] if "onset" in clock else (before[2] + before[3] if before is not None else 0.0)
        lasts = clock.get("duration", clock["end"] - begins if "end" in clock else math.nan)
        if lasts < 0:
            raise InvalidValueError(f"{path} row {line}, column {end}: ends before it begins.")
        if trial_ms is not None:
            lasts = trial_ms - begins
            if lasts < 0:
                raise InvalidValueError(f"{path} row {line}, column {onset}: begins after the trial's {trial_ms:g} ms.")
            if before is not None:
                before[3] = begins - before[2]
        found[-1][1].append([*point, begins, lasts])
    return [_scanpath(np.array(values), *names) for names, values in found]


def _time_columns(onset: str | None, duration: str | None, end: str | None, trial_ms: float | None) -> dict[str, str]:
    given = {kind: name for kind, name in (("onset", onset), ("duration", duration), ("end", end)) if name is not None}
    kinds = set(given) | ({"trial_ms"} if trial_ms is not None else set())
    if kinds not in ({"duration"}, {"onset", "duration"}, {"onset", "end"}, {"onset", "trial_ms"}):
        raise InvalidValueError(
            f"times must be duration, onset and duration, onset and end, or onset and trial_ms; got "
            f"{' and '.join(sorted(kinds)) or 'none'}. Onsets alone do not tell how long the last fixation lasts."
        )
    if trial_ms is not None:
        validation.number("trial_ms", trial_ms)
    return given


def _space(
    units: str, origin_px: tuple[float, float] | None, px_per_deg: float | None, y_up: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return what x and y are multiplied with, and what is then added."""
    if origin_px is not None:
        if not isinstance(origin_px, tuple) or len(origin_px) != 2:
            raise InvalidTypeError(f"origin_px must be a pair (x, y) of numbers; got {origin_px!r}.")
        origin_px = validation.number("origin_px[0]", origin_px[0]), validation.number("origin_px[1]", origin_px[1])
    if units == "px":
        if px_per_deg is not None or y_up:
            raise InvalidValueError("px_per_deg and y_up are for units='deg'; got them with px.")
        left, top = origin_px or (0.0, 0.0)
        return (1.0, 1.0), (-left, -top)
    if units != "deg":
        raise InvalidValueError(f"units must be 'px' or 'deg'; got {units!r}.")
    if origin_px is None or px_per_deg is None:
        raise InvalidValueError(
            "units='deg' needs origin_px, where degrees count from (usually the centre of the image), and px_per_deg."
        )
    scale = validation.number("px_per_deg", px_per_deg, 0, open_low=True)
    return (scale, -scale if y_up else scale), origin_px


def _scanpath(values: np.ndarray[Any, Any], image: str, subject: str) -> Scanpath:
    tensor = torch.from_numpy(values.astype(np.float32)).reshape(-1, 4)
    return Scanpath(tensor[:, :2], tensor[:, 2], tensor[:, 3], image, subject)


def _load_mat(path: Path) -> Mapping[str, Any]:
    try:
        io = importlib.import_module("scipy.io")
    except ImportError as error:
        raise FoveasimError(f"cannot read {path}: Matlab files need scipy. Install it: pip install scipy") from error
    try:
        content: Mapping[str, Any] = io.loadmat(path, simplify_cells=True)
    except OSError as error:
        raise InvalidValueError(f"cannot read scanpaths from {path}: {error}.") from error
    except Exception as error:  # scipy has errors of its own, and passes on those of zlib and struct
        raise InvalidValueError(f"{path} is not a Matlab file of version 4 to 7.2: {error}.") from error
    return content


def read_osie_mat(path: str | Path) -> list[Scanpath]:
    """Read OSIE's own ``fixations.mat``.

    Args:
        path: ``data/eye/fixations.mat`` of the data set's repository. Needs scipy.

    Returns:
        The scanpaths, px of the 600 x 800 images, numbers unchanged; image ``"1001"`` for ``1001.jpg``, subjects
        ``"1"`` to ``"15"`` in the order of the file. Onsets are not in it: fixations follow each other.

    Raises:
        FoveasimError: scipy is not installed.
        InvalidValueError: No such file, or another layout; the message names image and subject.

    Reference:
        Xu, Jiang, Wang, Kankanhalli and Zhao (2014), Predicting human gaze beyond pixels, Journal of Vision 14(1):28.
    """
    path = Path(path)
    found = []
    for number, stimulus in enumerate(_entries(path, _load_mat(path), "fixations", "the file"), start=1):
        place = f"fixations{{{number}}}"
        name = Path(str(_field(path, stimulus, "img", place))).stem
        for subject, data in enumerate(_entries(path, stimulus, "subjects", place), start=1):
            where = f"{place}.subjects{{{subject}}}"
            columns = [
                np.atleast_1d(np.asarray(_field(path, data, field, where), np.float64))
                for field in ("fix_x", "fix_y", "fix_duration")
            ]
            if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
                raise InvalidValueError(f"{path}: {where} has fix_x, fix_y and fix_duration of different lengths.")
            x, y, lasts = columns
            found.append(_scanpath(np.stack((x, y, np.cumsum(lasts) - lasts, lasts), 1), name, str(subject)))
    return found


def _field(path: Path, value: Any, name: str, place: str) -> Any:
    if not isinstance(value, Mapping) or name not in value:
        raise InvalidValueError(f"{path} is not laid out as OSIE's fixations.mat: {place} has no field {name!r}.")
    return value[name]


def _entries(path: Path, value: Any, name: str, place: str) -> Sequence[Any]:
    entries = _field(path, value, name, place)
    return [entries] if isinstance(entries, Mapping) else list(np.atleast_1d(np.asarray(entries, dtype=object)))


def read_mit1003(folder: str | Path, *, drop_first: bool = True) -> list[Scanpath]:
    """Read MIT1003's eye data and find the fixations in it by velocity.

    The data set holds raw gaze at 240 samples a second. Its Matlab code finds fixations in a way of its own; here I-VT
    does (:func:`foveasim.scanpath.fixations.find_fixations_ivt`, 35 px to a degree), so that fixations differ a
    little from published ones.

    Args:
        folder: The folder ``DATA`` of the data set: one folder a subject, in it one ``.mat`` an image. Needs scipy.
        drop_first: Whether to leave out the first fixation, which rests where the fixation cross was, as Judd et al.
            do.

    Returns:
        The scanpaths, px of the images, images by their name without ``.mat``; onsets count from the first sample.
        Gaze beside the image is kept but for negative coordinates, which mark lost samples.

    Raises:
        FoveasimError: scipy is not installed.
        InvalidValueError: No such folder, nothing in it, or a file of another layout.

    Reference:
        Judd, Ehinger, Durand and Torralba (2009), Learning to predict where humans look, ICCV.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*/*.mat"))
    if not files:
        raise InvalidValueError(f"no files SUBJECT/IMAGE.mat in {folder}. Give the folder DATA of MIT1003.")
    return [_mit1003_path(file, drop_first) for file in files]


def _mit1003_path(file: Path, drop_first: bool) -> Scanpath:
    # The one variable is called like the image, cut off at Matlab's 63 characters
    content = [value for name, value in _load_mat(file).items() if not name.startswith("__")]
    trial = content[0].get("DATA") if len(content) == 1 and isinstance(content[0], Mapping) else None
    trial = trial if isinstance(trial, Mapping) else (trial[0] if trial is not None and len(trial) else None)
    if not isinstance(trial, Mapping) or "eyeData" not in trial:
        raise InvalidValueError(f"{file} is not laid out as MIT1003's: it has no NAME.DATA.eyeData.")
    samples = np.array(trial["eyeData"], np.float64)
    if samples.ndim != 2 or samples.shape[1] < 2 or len(samples) < 2:
        raise InvalidValueError(f"{file}: eyeData must be (samples, 2) or more; got {samples.shape}.")
    gaze = samples[:, :2]
    gaze[(gaze < 0).any(1)] = np.nan
    path = find_fixations_ivt(
        np.arange(len(gaze)) * (1000 / _MIT1003_HZ),
        gaze,
        _MIT1003_PX_PER_DEG,
        image=file.stem,
        subject=file.parent.name,
    )
    first = int(drop_first)
    return Scanpath(path.fixation_px[first:], path.onset_ms[first:], path.duration_ms[first:], path.image, path.subject)
