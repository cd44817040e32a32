"""Scanpaths of other people's files: any eye tracker's by one function, OSIE's and MIT1003's Matlab files.

Matlab files need scipy, which is not installed with foveasim. CAT2000 keeps its scanpaths in a Matlab
``containers.Map``, which nothing but Matlab reads; write it as a table there, and read that with
:func:`read_scanpaths`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from foveasim import check
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.fixations import find_fixations_ivt
from foveasim.scanpath import Scanpath, read_csv
from foveasim.text_table import read_text
from foveasim.trackers.begaze import is_begaze, read_begaze
from foveasim.trackers.bids import is_bids, read_bids
from foveasim.trackers.columns import read_columns
from foveasim.trackers.door import Look, admit, check_plausible, distinct_trials, within
from foveasim.trackers.eyelink import is_eyelink, read_eyelink
from foveasim.trackers.gazepoint import is_gazepoint, read_gazepoint
from foveasim.trackers.options import FORMATS, Options
from foveasim.trackers.pupil import is_neon, is_pupil_core, read_neon, read_pupil_core
from foveasim.trackers.tables import first_rows
from foveasim.trackers.tobii import is_tobii, read_tobii
from foveasim.types import Frame

__all__ = ["read_mit1003", "read_osie_mat", "read_scanpaths", "recognise"]

_OSIE = Frame((600, 800), 24.0)  # Xu et al. (2014), Methods: 800 x 600 px, about 24 px to a degree
_MIT1003_HZ = 240.0  # DatabaseCode of the data set
_MIT1003_PX_PER_DEG = 35.0  # Judd et al. (2009), section 3: one degree is about 35 px


def recognise(path: Path, text: str) -> str:
    """Return the format of a file by what stands in it.

    Args:
        path: The file; of BIDS, whose tables have no header, the name counts.
        text: What it holds.

    Raises:
        InvalidValueError: None of the formats; the message says what was found and how to name the columns.
    """
    if is_bids(path):
        return "bids"
    if is_eyelink(text):
        return "eyelink"
    if is_begaze(text):
        return "begaze"
    headers = [cells for _, _, cells in first_rows(text)]
    for name, is_header in _HEADERS.items():
        if any(is_header(cells) for cells in headers):
            return name
    widest = max(headers, key=len, default=[])
    raise InvalidValueError(
        f"{path} is none of the files that are known: {', '.join(FORMATS)}. Its columns are "
        f"{', '.join(filter(None, widest)) or 'not to be seen'}. Name those that hold fixations: "
        "columns={'image': ..., 'subject': ..., 'x': ..., 'y': ..., 'onset': 'NAME [ms]', 'duration': 'NAME [ms]'}."
    )


def read_scanpaths(
    path: str | Path,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, object] | None = None,
    image: str | None = None,
    subject: str | None = None,
    trial: str | None = None,
    eye: Literal["left", "right"] | None = None,
    image_message: str | None = None,
    trial_message: str | None = None,
    fixations: Literal["file", "ivt", "idt"] | None = None,
    units: Literal["px", "fraction", "deg"] = "px",
    y_up: bool = False,
    deg_origin_px: tuple[float, float] | None = None,
    onset_unit: Literal["s", "ms", "us", "ns"] | None = None,
    duration_unit: Literal["s", "ms", "us", "ns"] | None = None,
    end_unit: Literal["s", "ms", "us", "ns"] | None = None,
    trial_ms: float | None = None,
    decimal: Literal[".", ","] = ".",
    delimiter: str | None = None,
    encoding: str | None = None,
    screen_px: tuple[int, int] | None = None,
    screen_width_cm: float | None = None,
    distance_cm: float | None = None,
    px_per_deg: float | None = None,
    origin_px: tuple[float, float] | Literal["centre"] | None = None,
    image_size: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    outside: Literal["keep", "drop", "error"] = "keep",
    plausible: bool = True,
) -> list[Scanpath]:
    """Read scanpaths from a file of any eye tracker, or of foveasim, as it was written.

    The format is recognised by what stands in the file. docs/metrics.md has a table of formats, with one line for each.
    An option that a format has no use for is refused.

    Convention:
        Sizes are (H, W), points (x, y) from the top-left corner, y down. Screens count in px of the screen: an image
        that is a part of it is said by ``image_size``, its size there, and ``origin_px``, where its corner is: with
        (560, 240) the middle of a 1920 x 1080 screen is (400, 300) of an image of 600 x 800. Degrees count from the
        middle of the screen, or of the image where nothing is said of a screen, or from ``deg_origin_px``: on 600 x 800
        with ``px_per_deg=24`` the point (1, -2) deg is (424, 252) px, and (424, 348) with ``y_up=True``.

    Args:
        path: The file. Of BIDS, the ``_physio`` or ``_physioevents`` one; the others are found beside it.
        format: A name out of ``foveasim``, ``eyelink``, ``tobii``, ``pupil_core``, ``neon``, ``gazepoint``, ``begaze``,
            ``bids`` and ``table``; None recognises it.
        columns: For any other table, which column holds what: ``x`` and ``y``, of the times ``duration``, ``onset`` and
            ``duration``, ``onset`` and ``end``, or ``onset`` with ``trial_ms``, and ``image``, ``subject``, ``trial``
            where there are such. A time's unit may stand behind its name, as in ``"start_timestamp[s]"``.
        where: Which rows of a table count: a value, or several, by column, as ``{"Eye movement type": "Fixation"}``.
        image: Name of the image where the file has none.
        subject: Name of the subject, likewise.
        trial: Name of the trial, likewise.
        eye: Which one, where both were recorded.
        image_message: Regular expression for the messages that name the image, in its one group.
        trial_message: Likewise for those with which a trial begins.
        fixations: "file": those of the file; "ivt" or "idt": found in the samples; None: the file's, and I-VT where it
            has only samples.
        units: Of x and y in ``columns``: "fraction" of the screen, or of the image where nothing is said of a screen.
        y_up: Whether y grows upwards in ``columns``.
        deg_origin_px: Where degrees count from, px.
        onset_unit: Of the column of onsets; None is ms, or what stands behind its name.
        duration_unit: Likewise.
        end_unit: Likewise.
        trial_ms: When a trial ends on the clock of ``onset``: a fixation lasts to the next one's onset.
        decimal: The decimal point.
        delimiter: Between cells; None for comma, tab or semicolon, whichever makes a header.
        encoding: Of the text; None for UTF-8, or UTF-16 with a byte order mark.
        screen_px: (H, W) of the screen, or of the scene camera, where the file does not say.
        screen_width_cm: Width of the screen; with ``distance_cm`` and its px it makes ``px_per_deg``.
        distance_cm: From eye to screen.
        px_per_deg: Pixels of a degree of visual angle.
        origin_px: (x, y) of the image's corner on the screen, or "centre".
        image_size: (H, W) of the image on the screen, or of each by its name.
        outside: What to do with fixations beyond the image: ``Scanpath.outside`` tells which they are.
        plausible: Whether to refuse what cannot be right: a fixation of over a minute, none over 5 ms, all of them
            within one pixel, most of them outside.

    Returns:
        One scanpath for each trial. Trials that share image and subject and have no name of their own are numbered.
        The frame is the image's where it is known, else the screen's, else None.

    Raises:
        InvalidTypeError: An option of another type.
        InvalidValueError: No such file, an unknown format, a missing or contradictory option, or a wrong row; the
            message names the row or says what to give.
    """
    path = Path(path)
    options = Options(
        columns, where, image, subject, trial, eye, image_message, trial_message, fixations, units, y_up, deg_origin_px,
        onset_unit, duration_unit, end_unit, trial_ms, decimal, delimiter, encoding, screen_px, screen_width_cm,
        distance_cm, px_per_deg, origin_px, image_size, outside, plausible,
    )  # fmt: skip
    if format is not None:
        check.choice("format", format, FORMATS)
    elif columns is not None:
        format = "table"
    _refuse_binary(path)
    text = "" if is_bids(path) else read_text(path, encoding)
    name = format or recognise(path, text)
    options.check_for(path, name)
    if name == "foveasim":
        own = _own(path, options)
        if plausible and not {"image_width_px", "px_per_deg"} & set(text.partition("\n")[0].split(",")):
            check_plausible(path, own)  # somebody else's, or an old one: what foveasim writes states its frame
        return distinct_trials(within(path, own, options))
    looks = read_bids(path, options) if name == "bids" else _READERS[name](path, text, options)
    return admit(path, name, looks, options)


def _refuse_binary(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InvalidValueError(f"cannot read scanpaths from {path}: {error.strerror}.") from error
    if head.startswith(b"SR_RESEARCH"):
        raise InvalidValueError(
            f"{path} is EyeLink's binary EDF; convert it by SR Research's edf2asc and give the .asc."
        )
    if head.startswith((b"MATLAB", b"\x89HDF")):
        raise InvalidValueError(f"{path} is a Matlab or HDF5 file, not a table of text; export it as CSV.")


def _own(path: Path, options: Options) -> list[Scanpath]:
    size = options.image_size
    if isinstance(size, Mapping):
        found = read_csv(path)
        absent = sorted({one.image for one in found} - set(size))
        if absent:
            raise InvalidValueError(f"image_size must hold every image of {path}; got none for {absent[0]!r}. Add it.")
        return [one.with_frame(Frame(size[one.image], options.px_per_deg)) for one in found]
    if size is None and options.px_per_deg is not None:
        found = read_csv(path)
        if any(one.frame is None for one in found):
            raise InvalidValueError(f"px_per_deg needs the size of the images, too: give image_size=(H, W) for {path}.")
        return [one.with_frame(Frame(one.frame.size, options.px_per_deg)) for one in found if one.frame is not None]
    return read_csv(path, frame=None if size is None else Frame(size, options.px_per_deg))


def _is_own(cells: Sequence[str]) -> bool:
    return {"image", "subject", "index", "duration_ms"} <= set(cells)


_HEADERS: dict[str, Callable[[list[str]], bool]] = {
    "foveasim": _is_own,
    "gazepoint": is_gazepoint,
    "pupil_core": is_pupil_core,
    "neon": is_neon,
    "tobii": is_tobii,
}
_READERS: dict[str, Callable[[Path, str, Options], list[Look]]] = {
    "eyelink": read_eyelink,
    "tobii": read_tobii,
    "pupil_core": read_pupil_core,
    "neon": read_neon,
    "gazepoint": read_gazepoint,
    "begaze": read_begaze,
    "table": read_columns,
}


def _scanpath(values: np.ndarray[Any, Any], image: str, subject: str, frame: Frame) -> Scanpath:
    tensor = torch.from_numpy(values.astype(np.float64)).reshape(-1, 4)
    return Scanpath(tensor[:, :2], tensor[:, 2], tensor[:, 3], image, subject, "", frame)


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
            found.append(_scanpath(np.stack((x, y, np.cumsum(lasts) - lasts, lasts), 1), name, str(subject), _OSIE))
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
    does (:func:`foveasim.fixations.find_fixations_ivt`, 35 px to a degree), so that fixations differ a little from
    published ones.

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
