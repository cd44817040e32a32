"""Scanpaths with their frame, and the CSV files that hold them.

Convention:
    One row a fixation, with the columns ``image,subject,trial,index,x_px,y_px,duration_ms,onset_ms`` and the frame in
    ``image_width_px,image_height_px,px_per_deg``, empty where nobody has said. ``index`` counts from 0 within a
    scanpath; x and y are px of the image, x right, y down. Numbers are the shortest decimals to 0.001 px and 0.001 ms.
    Cells are stripped of blanks. Names that begin with ``= + - @`` get a ``'`` before them, which the reader takes
    away: a spreadsheet would work them out as formulas.

    Files with ``x,y`` and without trial, onsets or frame are read as well: the public fixation data of OSIE (Xu et al.
    2014, Journal of Vision 14(1):28) is, as it is.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.geometry import rescale_px
from foveasim.runs.whole_files import write_atomically
from foveasim.scanpath.text_table import read_number, read_table
from foveasim.types import Frame

__all__ = ["COLUMNS", "Scanpath", "distinct_trials", "read_csv", "write_scanpaths"]

COLUMNS = (
    "image",
    "subject",
    "trial",
    "index",
    "x_px",
    "y_px",
    "duration_ms",
    "onset_ms",
    "image_width_px",
    "image_height_px",
    "px_per_deg",
)
"""Columns that are written; ``trial``, ``onset_ms`` and the frame may be missing in what is read, others may follow."""

_OLD_NAMES = {"x_px": "x", "y_px": "y"}
_NEEDED = ("image", "subject", "index", "x_px", "y_px", "duration_ms")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True, eq=False, repr=False)
class Scanpath:
    """Where one subject looked on one image, in order.

    Attributes:
        fixation_px: (N, 2) float32, (x, y), px of ``frame``.
        onset_ms: (N,) float64, when each fixation began; never falling.
        duration_ms: (N,) float64, how long each lasted, 0 or more.
        image: What was looked at.
        subject: Who looked.
        trial: Which of several looks of one subject at one image.
        frame: What the pixels are counted in; None only where a file does not say, see :meth:`with_frame`.

    Raises:
        InvalidTypeError: Not numbers, a name that is not text, or a frame that is no Frame.
        InvalidValueError: Lengths that differ, a value that is not finite, or times that run backwards.

    Example:
        >>> Scanpath(torch.rand(2, 2), torch.tensor([0.0, 250.0]), torch.tensor([200.0, 300.0]), "beach", "ann")
        Scanpath(image='beach', subject='ann', 2 fixations, 0.55 s)
    """

    fixation_px: Tensor
    onset_ms: Tensor
    duration_ms: Tensor
    image: str = ""
    subject: str = ""
    trial: str = ""
    frame: Frame | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixation_px", validation.points("fixation_px", self.fixation_px))
        for name in ("onset_ms", "duration_ms"):
            object.__setattr__(self, name, _times(name, getattr(self, name), len(self)))
        if bool((self.duration_ms < 0).any()):
            raise InvalidValueError(f"duration_ms must be 0 or more; got {float(self.duration_ms.min())}.")
        if bool((self.onset_ms.diff() < 0).any()):
            first = int((self.onset_ms.diff() < 0).nonzero()[0, 0])
            raise InvalidValueError(f"onset_ms must never fall; fixation {first + 1} begins before fixation {first}.")
        for name in ("image", "subject", "trial"):
            if not isinstance(getattr(self, name), str):
                raise InvalidTypeError(f"{name} must be text; got {getattr(self, name)!r}.")
        if self.frame is not None and not isinstance(self.frame, Frame):
            raise InvalidTypeError(
                f"frame must be a Frame such as Frame((600, 800), 24.0), or None; got {self.frame!r}."
            )

    def __len__(self) -> int:
        """Return N, the number of fixations."""
        return self.fixation_px.shape[0]

    def __repr__(self) -> str:
        """Say who looked at what, and how long."""
        seconds = float(self.onset_ms[-1] + self.duration_ms[-1] - self.onset_ms[0]) / 1000 if len(self) else 0.0
        named = "".join(f"{name}={value!r}, " for name, value in (("image", self.image), ("subject", self.subject)))
        return f"Scanpath({named}{len(self)} fixation{'s' * (len(self) != 1)}, {seconds:.2f} s)"

    def with_frame(self, frame: Frame) -> Self:
        """Say what the pixels are counted in, where the file did not.

        Args:
            frame: Its ``px_per_deg`` is taken where the scanpath has none.

        Raises:
            InvalidValueError: The scanpath states another frame. :meth:`rescale` carries it over to one.

        Example:
            >>> path = Scanpath([[400.0, 300.0]], [0.0], [200.0]).with_frame(Frame((600, 800), 24.0))
            >>> path.rescale(Frame((300, 400))).fixation_px.tolist()
            [[200.0, 150.0]]
        """
        own = self.frame
        scales = [found.px_per_deg for found in (own, frame) if found is not None and found.px_per_deg is not None]
        unequal = len(scales) == 2 and not math.isclose(*scales, rel_tol=1e-6)
        if own is not None and (own.size != frame.size or unequal):
            raise InvalidValueError(
                f"frame must be the one that the scanpath states, {own}; got {frame}. Use rescale(frame) to carry the "
                "scanpath over to another size."
            )
        return replace(self, frame=Frame(frame.size, scales[0] if scales else None))

    def rescale(self, frame: Frame) -> Self:
        """Carry the scanpath over to the same image at another size.

        Args:
            frame: In which it is wanted. Without ``px_per_deg`` a degree grows with the image.

        Raises:
            InvalidValueError: The scanpath has no frame. Say it by :meth:`with_frame`.
        """
        own = self._known_frame()
        wanted = own.resize(frame.size) if frame.px_per_deg is None else frame
        return replace(self, fixation_px=rescale_px(self.fixation_px, own.size, frame.size), frame=wanted)

    def outside(self) -> Tensor:
        """Return which fixations lie beyond the edges of the frame, (N,) bool.

        Raises:
            InvalidValueError: The scanpath has no frame. Say it by :meth:`with_frame`.
        """
        height, width = self._known_frame().size
        x, y = self.fixation_px.unbind(1)
        return (x < 0) | (x > width) | (y < 0) | (y > height)

    def inside(self) -> Self:
        """Return the scanpath without the fixations that lie beyond the edges of the frame.

        Raises:
            InvalidValueError: The scanpath has no frame. Say it by :meth:`with_frame`.
        """
        kept = ~self.outside()
        values = (self.fixation_px[kept], self.onset_ms[kept], self.duration_ms[kept])
        return replace(self, fixation_px=values[0], onset_ms=values[1], duration_ms=values[2])

    def _known_frame(self) -> Frame:
        if self.frame is None:
            raise InvalidValueError(
                f"the scanpath of {self.subject!r} on {self.image!r} must have a frame, the size of the image in which "
                "its pixels are counted; its file does not state one. Give it: path.with_frame(Frame((H, W)))."
            )
        return self.frame


def distinct_trials(scanpaths: Sequence[Scanpath]) -> list[Scanpath]:
    """Number the trials of those that share image, subject and trial: the second gets 2 behind its trial's name."""
    seen: dict[tuple[str, str, str], int] = {}
    apart = []
    for path in scanpaths:
        key = (path.image, path.subject, path.trial)
        seen[key] = seen.get(key, 0) + 1
        apart.append(path if seen[key] == 1 else replace(path, trial=f"{path.trial} {seen[key]}".strip()))
    return apart


def _times(name: str, value: object, count: int) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, np.float64))
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be ({count},) numbers; got {value!r}.") from error
    tensor = tensor.to(torch.float64)
    if tensor.shape != (count,):
        raise InvalidValueError(f"{name} must be ({count},), one for each fixation; got {tuple(tensor.shape)}.")
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidValueError(f"{name} must be finite; got {tensor.tolist()}.")
    return tensor


def _decimal(value: float) -> str:
    """Return the shortest decimal to 0.001."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _cell(name: str) -> str:
    """Return a name as a cell, which no spreadsheet takes for a formula."""
    name = name.strip().replace("\0", "")
    return f"'{name}" if _FORMULA.match(name) else name


def _name(cell: str) -> str:
    """Return the name of a cell; the inverse of ``_cell``."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_scanpaths(path: str | Path, scanpaths: Iterable[Scanpath]) -> Path:
    """Write scanpaths to a CSV file, whole or not at all.

    Args:
        path: The file. It is written under a temporary name and renamed, so that a crash leaves the old file as it was.
        scanpaths: In the order in which they are written. Two that follow each other must differ in image, subject or
            trial, or a reader could not tell them apart.

    Returns:
        ``path``.

    Raises:
        InvalidValueError: No such folder, no permission, or two neighbours that share image, subject and trial.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidValueError(f"cannot write {path}: the folder {path.parent} does not exist. Create it first.")
    rows: list[tuple[str, ...]] = []
    last: tuple[str, ...] | None = None
    for scanpath in scanpaths:
        names = tuple(map(_cell, (scanpath.image, scanpath.subject, scanpath.trial)))
        if last == names:
            raise InvalidValueError(
                f"scanpaths that follow each other must differ in image, subject or trial; both are {names}. "
                "Number the trials: dataclasses.replace(path, trial='2')."
            )
        last, frame = names, _frame_cells(scanpath.frame)
        points = scanpath.fixation_px.to(torch.float64)
        values = torch.cat((points, scanpath.duration_ms[:, None], scanpath.onset_ms[:, None]), 1).tolist()
        rows.extend((*names, str(i), *map(_decimal, row), *frame) for i, row in enumerate(values))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    try:
        # A file name that is no UTF-8 comes as half a character each byte, which UTF-8 cannot hold
        write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise InvalidValueError(f"cannot write {path}: {error.strerror}.") from error
    return path


def _frame_cells(frame: Frame | None) -> tuple[str, str, str]:
    if frame is None:
        return "", "", ""
    height, width = frame.size
    return (
        str(width),
        str(height),
        "" if frame.px_per_deg is None else np.format_float_positional(frame.px_per_deg, trim="-"),
    )


def read_csv(path: str | Path, *, frame: Frame | None = None) -> list[Scanpath]:
    """Read the scanpaths of a CSV file in foveasim's own columns.

    Args:
        path: The file. Without a column ``onset_ms`` each fixation begins when the one before it ends, the flights
            between them counted as nothing, because such files do not hold their times.
        frame: Size of the images in which the fixations are given, for a file that does not state it.

    Returns:
        One scanpath for each run of rows with the same image, subject and trial whose index counts up from 0. Where
        neither the file nor ``frame`` says it, their frame is None.

    Raises:
        InvalidValueError: No such file, a wrong row, or a frame that contradicts the file's; the message names row and
            column. Row 1 is the header.
    """
    path = Path(path)
    header, rows = read_table(path)
    column = {name: header.index(name) for name in COLUMNS if name in header}
    column |= {new: header.index(old) for new, old in _OLD_NAMES.items() if old in header and new not in column}
    missing = [name for name in _NEEDED if name not in column]
    if missing:
        raise InvalidValueError(
            f"{path} row 1: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; the header must name "
            f"{', '.join(_NEEDED)}; got {', '.join(header) or 'nothing'}. An eye tracker's file, or a table with other "
            "columns, is read by foveasim.read_scanpaths."
        )
    if ("image_width_px" in column) != ("image_height_px" in column):
        raise InvalidValueError(
            f"{path} row 1: image_width_px and image_height_px must come together; got one of them."
        )
    found = _group(path, header, column, rows)
    return found if frame is None else [scanpath.with_frame(frame) for scanpath in found]


def _group(
    path: Path, header: Sequence[str], column: Mapping[str, int], rows: Sequence[tuple[int, list[str]]]
) -> list[Scanpath]:
    numbers = [(name, column[name]) for name in ("x_px", "y_px", "duration_ms", "onset_ms") if name in column]
    of_frame = [(name, column[name]) for name in COLUMNS[-3:] if name in column]
    frames: dict[tuple[str, ...], Frame | None] = {}  # nearly always one: to make it anew for each row takes as long
    found: list[tuple[tuple[str, ...], Frame | None, list[list[float]]]] = []
    for line, row in rows:
        names = tuple(_name(row[column[name]]) if name in column else "" for name in ("image", "subject", "trial"))
        values = [
            read_number(path, line, header[at], row[at], 0 if name == "duration_ms" else -math.inf)
            for name, at in numbers
        ]
        index = read_number(path, line, "index", row[column["index"]])
        stated = tuple(row[at] for _, at in of_frame)
        if stated not in frames:
            frames[stated] = _row_frame(path, line, {name: row[at] for name, at in of_frame})
        frame = frames[stated]
        if index == 0:
            found.append((names, frame, []))
        if not found or found[-1][0] != names or index != len(found[-1][2]):
            due = len(found[-1][2]) if found and found[-1][0] == names else 0
            raise InvalidValueError(
                f"{path} row {line}, column index: expected {due} as the next fixation of subject {names[1]!r} on "
                f"image {names[0]!r}; got {row[column['index']]!r}. "
                "Rows of a scanpath must stand together and count from 0."
            )
        if found[-1][1] != frame:
            raise InvalidValueError(f"{path} row {line}: states another frame than the row above; got {frame}.")
        if len(values) == 4 and found[-1][2] and values[3] < found[-1][2][-1][3]:
            raise InvalidValueError(
                f"{path} row {line}, column onset_ms: must not begin before the fixation in the row above."
            )
        found[-1][2].append(values)
    return [_scanpath(names, frame, torch.tensor(values, dtype=torch.float64)) for names, frame, values in found]


def _row_frame(path: Path, line: int, cells: Mapping[str, str]) -> Frame | None:
    if not any(cells.values()):
        return None
    minimum = {"image_width_px": 1.0, "image_height_px": 1.0, "px_per_deg": 1e-6}
    known = {name: read_number(path, line, name, cell, minimum[name]) for name, cell in cells.items() if cell}
    width, height = known.get("image_width_px"), known.get("image_height_px")
    if width is None or height is None or width % 1 or height % 1 or max(width, height) > 16384:
        raise InvalidValueError(
            f"{path} row {line}, columns image_width_px and image_height_px: expected whole numbers of px up to 16384; "
            f"got {cells.get('image_width_px')!r} and {cells.get('image_height_px')!r}."
        )
    return Frame((int(height), int(width)), known.get("px_per_deg"))


def _scanpath(names: tuple[str, ...], frame: Frame | None, values: Tensor) -> Scanpath:
    duration_ms = values[:, 2]
    onset_ms = values[:, 3] if values.shape[1] == 4 else torch.cumsum(duration_ms, 0) - duration_ms
    image, subject, trial = names
    return Scanpath(values[:, :2], onset_ms, duration_ms, image, subject, trial, frame)
