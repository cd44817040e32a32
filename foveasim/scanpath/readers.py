"""Scanpaths of two data sets out of their own Matlab files: OSIE and MIT1003.

:func:`foveasim.read_scanpaths` calls these by itself. Matlab files need scipy, which is not installed with foveasim.
CAT2000 keeps its scanpaths in a Matlab ``containers.Map``, which nothing but Matlab reads; write it as a table there,
and read that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.scanpath.fixations import find_fixations_ivt
from foveasim.scanpath.scanpath import Scanpath
from foveasim.types import Frame

__all__ = ["MIT1003_PX_PER_DEG", "read_mit1003", "read_osie_mat"]

MIT1003_PX_PER_DEG = 35.0
"""Judd et al. (2009), section 3: one degree is about 35 px."""

_OSIE = Frame((600, 800), 24.0)  # Xu et al. (2014), Methods: 800 x 600 px, about 24 px to a degree
_MIT1003_HZ = 240.0  # DatabaseCode of the data set


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
        MIT1003_PX_PER_DEG,
        image=file.stem,
        subject=file.parent.name,
    )
    first = int(drop_first)
    return Scanpath(path.fixation_px[first:], path.onset_ms[first:], path.duration_ms[first:], path.image, path.subject)
