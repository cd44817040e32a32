"""A table inside a text file: its header found below a preamble, its columns by name, its times in ms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from foveasim.errors import InvalidValueError
from foveasim.scanpath.text_table import read_number, read_rows, with_header

__all__ = ["TIME_UNITS", "Table", "find_table", "first_rows", "key_of", "time_unit"]

TIME_UNITS = {"s": 3, "ms": 0, "us": -3, "ns": -6}
"""Power of ten by which a number of a unit becomes ms."""

_SPELLINGS = {"µs": "us", "μs": "us", "sec": "s", "seconds": "s", "milliseconds": "ms", "microseconds": "us"}
_SPELLINGS |= {"second": "s", "millisecond": "ms", "microsecond": "us", "nanosecond": "ns", "nanoseconds": "ns"}
_BRACKET = re.compile(r"\s*[\[(]([^\])]*)[\])]\s*$")
_HEADER_LINES = 200  # a preamble of Tobii Studio has 30, of SMI 40


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Attributes:
        path: The file.
        header: Names of the columns.
        rows: The rows that are not empty, each with its number in the file and as many cells as the header.
        decimal: The decimal point.
    """

    path: Path
    header: list[str]
    rows: list[tuple[int, list[str]]]
    decimal: str = "."

    def number(self, line: int, row: Sequence[str], at: int, minimum: float = -math.inf) -> float:
        """Return the number in column ``at`` of a row."""
        return read_number(self.path, line, self.header[at], row[at], minimum, self.decimal)

    def number_or_nan(self, line: int, row: Sequence[str], at: int) -> float:
        """Return the number in column ``at`` of a row, NaN where the cell is empty or says that there is none."""
        missing = row[at].lower() in ("", "-", ".", "nan", "n/a", "null")
        return math.nan if missing else self.number(line, row, at)

    def time_ms(self, line: int, row: Sequence[str], at: int, unit: str, minimum: float = -math.inf) -> float:
        """Return the time in column ``at`` of a row in ms, to the last digit: 0.28 s is 280 ms exactly."""
        value = self.number(line, row, at, minimum)
        if unit == "ms":
            return value
        return float(Decimal(row[at].replace(",", ".") if self.decimal == "," else row[at]).scaleb(TIME_UNITS[unit]))

    def where(self, wanted: Mapping[str, object] | None) -> Table:
        """Return the table with only those rows whose cells are as wanted: a value, or one of several, by column.

        Raises:
            InvalidValueError: No such column, or no row is left.
        """
        if not wanted:
            return self
        absent = [name for name in wanted if name not in self.header]
        if absent:
            raise InvalidValueError(
                f"where must name columns of {self.path}; got {', '.join(map(repr, absent))}. The columns are "
                f"{', '.join(filter(None, self.header))}."
            )
        rows = self.rows
        for name, value in wanted.items():
            several = isinstance(value, Sequence | set | frozenset) and not isinstance(value, str)
            words = {str(word) for word in value} if several else {str(value)}  # type: ignore[attr-defined]
            at = self.header.index(name)
            left = [(line, row) for line, row in rows if row[at] in words]
            if rows and not left:
                came = sorted({row[at] for _, row in rows})[:8]
                raise InvalidValueError(
                    f"where: no row of {self.path} has {' or '.join(sorted(words))} in column {name!r}; its cells are "
                    f"{', '.join(map(repr, came))}. Write a value as the file does."
                )
            rows = left
        return Table(self.path, self.header, rows, self.decimal)


def key_of(name: str) -> tuple[str, str]:
    """Return a column's name without case, blanks and unit, and the unit that stands in brackets behind it.

    Example:
        >>> key_of("Fixation point X [MCS px]"), key_of("FixationPointX (MCSpx)")
        (('fixationpointx', 'mcspx'), ('fixationpointx', 'mcspx'))
    """
    found = _BRACKET.search(name)
    bare = name[: found.start()] if found else name
    return re.sub(r"[\s_]", "", bare).lower(), re.sub(r"\s", "", found[1]).lower() if found else ""


def time_unit(text: str) -> str | None:
    """Return the unit of time that a text names, as in :data:`TIME_UNITS`; None if it names none.

    Example:
        >>> time_unit("μs"), time_unit("px")
        ('us', None)
    """
    unit = _SPELLINGS.get(text.strip().lower(), text.strip().lower())
    return unit if unit in TIME_UNITS else None


def first_rows(text: str, delimiter: str | None = None) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the first lines split by each delimiter that they hold: number of the line, delimiter, stripped cells."""
    for number, line in enumerate(text.splitlines()[:_HEADER_LINES], start=1):
        for between in (delimiter,) if delimiter else (",", "\t", ";"):
            if between in line:
                yield number, between, [cell.strip().strip('"') for cell in line.split(between)]


def find_table(
    path: Path,
    text: str,
    is_header: Callable[[list[str]], bool],
    *,
    delimiter: str | None = None,
    decimal: str = ".",
) -> Table | None:
    """Return the table under the first line that is a header, however many lines stand before it.

    Args:
        path: The file, for messages.
        text: What it holds.
        is_header: Whether stripped cells are the header.
        delimiter: Between the cells; None for comma, tab or semicolon, whichever makes a header.
        decimal: The decimal point.

    Returns:
        The table; None where no line of the first 200 is a header.

    Raises:
        InvalidValueError: Two columns of one name, or a row with more cells than the header.
    """
    for number, between, cells in first_rows(text, delimiter):
        if is_header(cells):
            rest = "".join(text.splitlines(keepends=True)[number - 1 :])
            return Table(path, *with_header(path, read_rows(path, rest, between, number), pad=True), decimal)
    return None
