"""Tables of text: decoded, split into stripped cells, their numbers read; every fault told with file and row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

from foveasim.errors import InvalidValueError

__all__ = ["read_number", "read_rows", "read_table", "read_text", "with_header"]

_LARGEST = 1e20  # ns of an epoch are 1.7e18; a float32 px would be infinite from 3.4e38 on
_COMMA = re.compile(r"[+-]?\d+,\d+")


def read_text(path: Path, encoding: str | None = None) -> str:
    """Read a file as text: UTF-8 with or without a byte order mark, UTF-16 with one, or another encoding by name.

    Raises:
        InvalidValueError: No such file, a NUL, or another encoding; the message names the row.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidValueError(f"cannot read scanpaths from {path}: {error.strerror}.") from error
    if encoding is None:
        encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except LookupError as error:
        raise InvalidValueError(
            f"encoding must be one that Python knows, such as 'cp1252'; got {encoding!r}."
        ) from error
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n") + 1
        raise InvalidValueError(
            f"{path} row {row}: byte 0x{raw[error.start]:02x} is not {encoding.removesuffix('-sig').upper()}, so that "
            "this is not a CSV file in UTF-8. Save it as UTF-8, or give its encoding, such as encoding='cp1252', to "
            "read_scanpaths."
        ) from error
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise InvalidValueError(
            f"{path} row {row}: holds a NUL, which no table of text does. The file is damaged, or UTF-16 without a "
            "byte order mark: then give encoding='utf-16-le' to read_scanpaths."
        )
    return text


def read_rows(path: Path, text: str, delimiter: str, first: int = 1) -> list[tuple[int, list[str]]]:
    """Split text into rows of stripped cells, each with its number; rows without any content are left out.

    Args:
        path: The file, for the message.
        text: Its rows.
        delimiter: Between the cells.
        first: Number of the first row.

    Raises:
        InvalidValueError: No CSV; the message names the row.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    try:
        for number, row in enumerate(reader, start=first):
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((number, cells))
    except csv.Error as error:
        raise InvalidValueError(
            f"{path} row {first + reader.line_num - 1} is not a row of a CSV file: {error}."
        ) from error
    return rows


def read_table(
    path: Path, delimiter: str = ",", *, encoding: str | None = None, pad: bool = False
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV file as text.

    Args:
        path: The file.
        delimiter: Between the fields.
        encoding: See :func:`read_text`.
        pad: Whether a row may have fewer fields than the header, the others being empty.

    Returns:
        The names in the first row, and the other rows that are not empty, each with its number and with stripped
        cells. Row 1 is the header.

    Raises:
        InvalidValueError: No such file, no CSV, two columns of one name, or a row with more or fewer fields than the
            header.
    """
    rows = read_rows(path, read_text(path, encoding), delimiter)
    return with_header(path, rows, pad=pad)


def with_header(
    path: Path, rows: Sequence[tuple[int, list[str]]], *, pad: bool = False
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Part the header from the rows and check that they fit, as :func:`read_table` does."""
    if not rows:
        return [], []
    first, header = rows[0]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InvalidValueError(
            f"{path} row {first}: two columns are named {', '.join(map(repr, twice))}. Give each a name of its own."
        )
    count = len(header)
    fitted = []
    for line, row in rows[1:]:
        if len(row) == count:
            fitted.append((line, row))
            continue
        cells = row[:count] if not any(row[count:]) else row
        if len(cells) > count or (len(cells) < count and not pad):
            raise InvalidValueError(
                f"{path} row {line}: {len(row)} fields where the header has {count}. "
                "Give each row as many, and put text that holds the delimiter in quotes."
            )
        fitted.append((line, cells + [""] * (count - len(cells))))
    return header, fitted


def read_number(path: Path, line: int, column: str, text: str, minimum: float = -math.inf, decimal: str = ".") -> float:
    """Read a number out of a row of a file.

    Args:
        path: The file, for the message.
        line: Number of the row, for the message.
        column: Name of the column, for the message.
        text: The cell.
        minimum: Least value.
        decimal: The decimal point: a point or a comma.

    Raises:
        InvalidValueError: Not a finite number of a sensible size, or below ``minimum``; the message names row and
            column.
    """
    try:
        value = math.nan if "_" in text else float(text.replace(",", ".", 1) if decimal == "," else text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST or value < minimum:
        expected = "a finite number" if minimum == -math.inf else f"{minimum:g} or more"
        comma = " Should it be a decimal comma, give decimal=',' to read_scanpaths." if _COMMA.fullmatch(text) else ""
        raise InvalidValueError(f"{path} row {line}, column {column}: expected {expected}; got {text!r}.{comma}")
    return value
