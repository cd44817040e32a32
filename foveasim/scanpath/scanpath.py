"""Scanpaths, and the CSV files that hold them.

Convention:
    One row a fixation, with the columns ``image,subject,index,x,y,duration_ms`` and, where the file knows it,
    ``onset_ms``. ``index`` counts from 0 within a scanpath; x and y are px of the image, x right, y down. The public
    fixation data of OSIE (Xu et al. 2014, Journal of Vision 14(1):28) in this layout is read as it is.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.geometry import rescale_px
from foveasim.runs.whole_files import write_atomically

__all__ = ["COLUMNS", "Scanpath", "read_csv", "read_number", "read_table", "write_scanpaths"]

COLUMNS = ("image", "subject", "index", "x", "y", "duration_ms")
"""Columns that a file must have; ``onset_ms`` may follow, and others are passed over."""


@dataclass(frozen=True, eq=False, repr=False)
class Scanpath:
    """Where one subject looked on one image, in order.

    Attributes:
        fixation_px: (N, 2) float32, (x, y).
        onset_ms: (N,) float32, when each fixation began; never falling.
        duration_ms: (N,) float32, how long each lasted, 0 or more.
        image: What was looked at.
        subject: Who looked.

    Raises:
        InvalidTypeError: Not numbers, or a name that is not text.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixation_px", validation.points("fixation_px", self.fixation_px))
        for name in ("onset_ms", "duration_ms"):
            object.__setattr__(self, name, _times(name, getattr(self, name), len(self)))
        if bool((self.duration_ms < 0).any()):
            raise InvalidValueError(f"duration_ms must be 0 or more; got {float(self.duration_ms.min())}.")
        if bool((self.onset_ms.diff() < 0).any()):
            first = int((self.onset_ms.diff() < 0).nonzero()[0, 0])
            raise InvalidValueError(f"onset_ms must never fall; fixation {first + 1} begins before fixation {first}.")
        for name in ("image", "subject"):
            if not isinstance(getattr(self, name), str):
                raise InvalidTypeError(f"{name} must be text; got {getattr(self, name)!r}.")

    def __len__(self) -> int:
        """Return N, the number of fixations."""
        return self.fixation_px.shape[0]

    def __repr__(self) -> str:
        """Say who looked at what, and how long."""
        seconds = float(self.onset_ms[-1] + self.duration_ms[-1] - self.onset_ms[0]) / 1000 if len(self) else 0.0
        named = "".join(f"{name}={value!r}, " for name, value in (("image", self.image), ("subject", self.subject)))
        return f"Scanpath({named}{len(self)} fixation{'s' * (len(self) != 1)}, {seconds:.2f} s)"

    def rescale(self, size: tuple[int, int], new_size: tuple[int, int]) -> Self:
        """Carry the scanpath over to the same image at another size.

        Args:
            size: (H, W) of the image in which ``fixation_px`` is given.
            new_size: (H, W) in which it is wanted.
        """
        fixation_px = rescale_px(self.fixation_px, size, new_size)
        return type(self)(fixation_px, self.onset_ms, self.duration_ms, self.image, self.subject)


def _times(name: str, value: object, count: int) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, np.float32))
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be ({count},) numbers; got {value!r}.") from error
    tensor = tensor.to(torch.float32)
    if tensor.shape != (count,):
        raise InvalidValueError(f"{name} must be ({count},), one for each fixation; got {tuple(tensor.shape)}.")
    if not bool(torch.isfinite(tensor).all()):
        raise InvalidValueError(f"{name} must be finite; got {tensor.tolist()}.")
    return tensor


def _text(value: float) -> str:
    """Shortest decimal that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), trim="-")


def write_scanpaths(path: str | Path, scanpaths: Iterable[Scanpath]) -> Path:
    """Write scanpaths to a CSV file, whole or not at all.

    Args:
        path: The file. It is written under a temporary name and renamed, so that a crash leaves the old file as it was.
        scanpaths: In the order in which they are written. Two that follow each other must differ in image or subject,
            or a reader could not tell them apart.

    Returns:
        ``path``.

    Raises:
        InvalidValueError: No such folder, no permission, or two neighbours that share image and subject.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidValueError(f"cannot write {path}: the folder {path.parent} does not exist. Create it first.")
    rows: list[tuple[str, ...]] = []
    last: tuple[str, str] | None = None
    for scanpath in scanpaths:
        if last == (scanpath.image, scanpath.subject):
            raise InvalidValueError(
                f"scanpaths that follow each other must differ in image or subject; both are {last}. "
                "Name the second subject otherwise."
            )
        last = (scanpath.image, scanpath.subject)
        values = torch.cat((scanpath.fixation_px, scanpath.duration_ms[:, None], scanpath.onset_ms[:, None]), 1)
        rows.extend((*last, str(i), *(_text(value) for value in row)) for i, row in enumerate(values.tolist()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*COLUMNS, "onset_ms"))
    writer.writerows(rows)
    try:
        write_atomically(path, text.getvalue().encode())
    except OSError as error:
        raise InvalidValueError(f"cannot write {path}: {error.strerror}.") from error
    return path


def read_csv(path: str | Path) -> list[Scanpath]:
    """Read the scanpaths of a CSV file.

    Args:
        path: The file. Without a column ``onset_ms`` each fixation begins when the one before it ends, the flights
            between them counted as nothing, because such files do not hold their times.

    Returns:
        One scanpath for each run of rows with the same image and subject whose index counts up from 0.

    Raises:
        InvalidValueError: No such file, or a wrong row; the message names row and column. Row 1 is the header.
    """
    path = Path(path)
    header, rows = read_table(path)
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InvalidValueError(
            f"{path} row 1: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; the header must name "
            f"{', '.join(COLUMNS)}; got {', '.join(header) or 'nothing'}. Where a table has other columns, "
            "say which holds what: read_scanpaths(path, image='TRIAL', x='FPOGX', …)."
        )
    return _group(path, header, rows)


def read_table(path: Path, delimiter: str = ",") -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV file as text.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.
        delimiter: Between the fields.

    Returns:
        The names in the first row, and the other rows that are not empty, each with its number. Row 1 is the header.

    Raises:
        InvalidValueError: No such file, no CSV, or a row with more or fewer fields than the header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.reader(file, delimiter=delimiter, strict=True))
    except OSError as error:
        raise InvalidValueError(f"cannot read scanpaths from {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidValueError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    header = [name.strip() for name in table[0]] if table else []
    rows = [(line, row) for line, row in enumerate(table[1:], start=2) if row]
    for line, row in rows:
        if len(row) != len(header):
            raise InvalidValueError(
                f"{path} row {line}: {len(row)} fields where the header has {len(header)}. "
                "Give each row as many, and put text that holds the delimiter in quotes."
            )
    return header, rows


def _group(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> list[Scanpath]:
    column = {name: header.index(name) for name in (*COLUMNS, "onset_ms") if name in header}
    numbers = [name for name in ("x", "y", "duration_ms", "onset_ms") if name in column]
    found: list[tuple[str, str, list[list[float]]]] = []
    for line, row in rows:
        image, subject = row[column["image"]], row[column["subject"]]
        values = [
            read_number(path, line, name, row[column[name]], 0 if name == "duration_ms" else -math.inf)
            for name in numbers
        ]
        index = read_number(path, line, "index", row[column["index"]])
        if index == 0:
            found.append((image, subject, []))
        if not found or found[-1][:2] != (image, subject) or index != len(found[-1][2]):
            due = len(found[-1][2]) if found and found[-1][:2] == (image, subject) else 0
            raise InvalidValueError(
                f"{path} row {line}, column index: expected {due} as the next fixation of subject {subject!r} on image "
                f"{image!r}; got {row[column['index']]!r}. Rows of a scanpath must stand together and count from 0."
            )
        if len(values) == 4 and found[-1][2] and values[3] < found[-1][2][-1][3]:
            raise InvalidValueError(
                f"{path} row {line}, column onset_ms: must not begin before the fixation in the row above."
            )
        found[-1][2].append(values)
    return [_scanpath(image, subject, torch.tensor(values)) for image, subject, values in found]


def _scanpath(image: str, subject: str, values: Tensor) -> Scanpath:
    duration_ms = values[:, 2]
    onset_ms = values[:, 3] if values.shape[1] == 4 else torch.cumsum(duration_ms, 0) - duration_ms
    return Scanpath(values[:, :2], onset_ms, duration_ms, image, subject)


def read_number(path: Path, line: int, column: str, text: str, least: float = -math.inf) -> float:
    """Read a number out of a row of a file.

    Raises:
        InvalidValueError: Not a finite number, or below ``least``; the message names row and column.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least:
        expected = "a finite number" if least == -math.inf else f"{least:g} or more"
        raise InvalidValueError(f"{path} row {line}, column {column}: expected {expected}; got {text!r}.")
    return value
