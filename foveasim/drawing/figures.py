"""Figures as PNG files: confusion matrices, accuracies with their intervals, curves over training.

matplotlib is imported inside the functions and drawn on without pyplot, so that no window and no global state is
touched, and a program that plots for itself stays as it is.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError
from foveasim.runs.whole_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "Bar",
    "Curve",
    "Style",
    "accuracies_figure",
    "blank_figure",
    "confusion_figure",
    "curves_figure",
    "panels_figure",
    "save_figure",
    "styles",
]

# Okabe and Ito (2008), Color Universal Design: told apart without colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150
MAX_NAMED = 40  # classes whose names and counts still fit
MANY = 10_000  # from here on numbers on an axis are written 10k
LETTERS_PER_IN = 12  # of a title
SLOT_IN = 0.84  # width of a bar and what is around it, inches

# As wide as these marks are, they do not reach the neighbouring bars.
BAR_WIDTH = 0.6
MARK_FROM, MARK_TO = 0.33, 0.5


@dataclass(frozen=True)
class Style:
    """How a curve or a bar looks.

    Attributes:
        colour: As matplotlib takes it.
        line: Of a curve: ``-``, ``--``, ``:`` or ``-.``. A bar is solid with ``-`` and pale with the others.
        marker: Of a curve.
    """

    colour: str
    line: str = "-"
    marker: str = "o"


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: For the legend.
        x: Where it was measured.
        y: What was measured, as many; a gap where NaN.
        spread: Half the height of a band around it, as many, or None.
        dashed: For what a curve is to be compared with: drawn without marks, in the colour of the curve before it.
        style: Its look; None takes the next colour.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    dashed: bool = False
    style: Style | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.y if self.spread is None else self.spread)}
        if len(lengths) > 1 or not self.x:
            raise InvalidValueError(
                f"curve {self.name!r} must have as many x as y and spread, at least one; got {sorted(lengths)}."
            )


@dataclass(frozen=True)
class Bar:
    """One accuracy.

    Attributes:
        name: Below the bar.
        value: In [0, 1].
        low: Lower end of its interval.
        high: Upper end.
        dots: What it is the mean of.
        mark: A value from elsewhere, drawn beside it.
        style: Its look; None takes the first colour.
    """

    name: str
    value: float
    low: float
    high: float
    dots: Sequence[float] = ()
    mark: float | None = None
    style: Style | None = None


def blank_figure(width: float, height: float) -> Figure:
    """Return a figure without axes, inches, that no window knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a whole, or not at all.

    Raises:
        InvalidValueError: The path does not end in ``.png``.
        OSError: The file cannot be written.
    """
    if Path(path).suffix.lower() != ".png":
        raise InvalidValueError(f"path must end in .png; got {os.fspath(path)!r}.")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(Path(path), content.getvalue())


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def confusion_figure(
    path: str | os.PathLike[str], counts: NDArray[np.int64], classes: Sequence[str], title: str = ""
) -> None:
    """Draw a confusion matrix: each row is a true class, coloured by the share of its images, with their number.

    Args:
        path: The file, ``….png``.
        counts: (C, C), images of true class i (rows) called class j (columns).
        classes: C names.
        title: Above it.

    Raises:
        InvalidValueError: Shapes that do not belong together, or another ending.
        OSError: The file cannot be written.
    """
    size = len(classes)
    if counts.shape != (size, size) or size == 0 or counts.min() < 0:
        raise InvalidValueError(f"counts must be ({size}, {size}) numbers >= 0 for {size} classes; got {counts.shape}.")
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = size <= MAX_NAMED
    side = min(4.0 + 0.42 * size, 20.0) if named else 10.0
    figure = blank_figure(side, side * 0.92)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true class")
    axes.set(xlabel="called", ylabel="true")
    axes.set_title(title, fontsize="medium")
    if named:
        axes.set_xticks(range(size), classes, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), classes)
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "black" if share[row, column] > 0.6 else "white"
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    save_figure(figure, path)


def accuracies_figure(
    path: str | os.PathLike[str], bars: Sequence[Bar], *, chance: float | None = None, title: str = ""
) -> None:
    """Draw accuracies with their intervals.

    Args:
        path: The file, ``….png``.
        bars: In their order.
        chance: What the best constant answer would get, a dashed line.
        title: Above it.

    Raises:
        InvalidValueError: No bar, one whose value lies outside its interval, or another ending.
        OSError: The file cannot be written.
    """
    if not bars:
        raise InvalidValueError("bars must have at least one; got none.")
    figure = blank_figure(max(4.0, 1.5 + 1.1 * len(bars)), 4.0)
    axes = figure.subplots()
    top = _draw_bars(axes, bars)
    if chance is not None:
        axes.axhline(100 * chance, color="black", linestyle="--", linewidth=1)
        beside = axes.get_yaxis_transform()
        axes.text(1.01, 100 * chance, "chance", va="center", fontsize="small", transform=beside)
    axes.set_xticks(range(len(bars)), [b.name for b in bars], rotation=25, ha="right", rotation_mode="anchor")
    axes.set_ylabel("test accuracy, %")
    _percent(axes, 1.15 * top + 2)
    axes.set_title(title, fontsize="medium")
    _plain(axes)
    save_figure(figure, path)


def _draw_bars(axes: Axes, bars: Sequence[Bar | None]) -> float:
    """Draw bars at 0, 1, ..., leaving out the places of None, and return the highest value drawn, %.

    Raises:
        InvalidValueError: A value that lies outside its interval.
    """
    top = 0.0
    for place, bar in enumerate(bars):
        if bar is None:
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # no line through the letters
            text = axes.text(place, 1.5, "not run", ha="center", va="bottom", rotation=90, bbox=behind)
            text.set(fontsize="small", color="0.45")
            continue
        if not 0 <= bar.low <= bar.value <= bar.high <= 1:
            raise InvalidValueError(f"bars must have 0 <= low <= value <= high <= 1; got {bar}.")
        value, low, high = 100 * bar.value, 100 * bar.low, 100 * bar.high
        style = bar.style or Style(COLOURS[0])
        axes.bar(place, value, color=style.colour if style.line == "-" else _pale(style.colour), width=BAR_WIDTH)
        axes.errorbar(place, value, yerr=[[value - low], [high - value]], fmt="none", color="black", capsize=2.5)
        if bar.dots:
            # Beside each other, so that seeds of about the same accuracy are all seen, and beside the interval's line.
            across = place - 0.2 + 0.08 * (np.arange(len(bar.dots)) % 6 - min(len(bar.dots) - 1, 5) / 2) * 0.6
            dots = [100 * dot for dot in bar.dots]
            axes.plot(across, dots, "o", markersize=4, color="white", markeredgecolor="black", markeredgewidth=0.8)
        if bar.mark is not None:
            axes.plot([place + MARK_FROM, place + MARK_TO], [100 * bar.mark] * 2, color="0.55", linewidth=2.2)
        highest = max(high, *(100 * dot for dot in bar.dots), 0.0)
        axes.annotate(
            f"{value:.1f}", (place, highest), (0, 3), textcoords="offset points", ha="center", fontsize="small"
        )
        top = max(top, highest, 100 * (bar.mark or 0.0))
    return top


def _percent(axes: Axes, top: float) -> None:
    """Let the axis end at ``top``, above 100 % too, where names of bars need the room, with marks up to 100 %."""
    axes.set_ylim(0, top)
    axes.set_yticks([mark for mark in axes.get_yticks() if mark <= min(top, 100)])


def _pale(colour: str) -> tuple[float, ...]:
    """Half way to white: unlike alpha, it does not let the grid through."""
    from matplotlib.colors import to_rgb

    return tuple(0.5 + 0.5 * part for part in to_rgb(colour))


def panels_figure(
    path: str | os.PathLike[str],
    rows: Mapping[str, Mapping[str, Sequence[Bar | None]]],
    lines: Mapping[str, Mapping[str, float]],
    *,
    labels: Mapping[str, str],
) -> None:
    """Draw accuracies with their intervals, in rows of panels.

    Args:
        path: The file, ``….png``.
        rows: Name of the row → title of the panel → bars. All rows have the same panels with as many bars; None leaves
            a place empty.
        lines: Name of the row → name of a dashed line through all its panels → accuracy in [0, 1].
        labels: What ``dots``, ``interval`` and ``mark`` of the bars are, for the legend.

    Raises:
        InvalidValueError: No row, rows of different panels, a value outside its interval, or another ending.
        OSError: The file cannot be written.
    """
    shapes = [[(title, len(bars)) for title, bars in panels.items()] for panels in rows.values()]
    if not shapes or not shapes[0] or any(shape != shapes[0] or not all(n for _, n in shape) for shape in shapes):
        raise InvalidValueError(f"rows must be at least one, all of the same panels with bars; got {shapes}.")
    counts = [count for _, count in shapes[0]]
    width = max(7.0, 2.4 + SLOT_IN * sum(counts) + 0.35 * len(counts))  # the legend takes 7 inches
    figure = blank_figure(width, 3.3 * len(rows) + 0.5)
    grid = figure.subplots(
        len(rows), len(counts), squeeze=False, sharey="row", width_ratios=[count + 0.3 for count in counts]
    )
    for across, (name, panels) in zip(grid, rows.items(), strict=True):
        levels = lines.get(name, {})
        top = max([_draw_bars(axes, bars) for axes, bars in zip(across, panels.values(), strict=True)])
        top = 1.13 * max(top, *(100 * level for level in levels.values()), 0.0) + 2
        for axes, (title, bars) in zip(across, panels.items(), strict=True):
            axes.set_xticks(range(len(bars)), _names(rows, title), fontsize="small")
            axes.set_xlim(-0.6, len(bars) - 0.4)
            _percent(axes, top)
            axes.set_title(textwrap.fill(title, int(LETTERS_PER_IN * SLOT_IN * (len(bars) + 0.4))), fontsize="medium")
            axes.tick_params(axis="x", length=0)
            axes.tick_params(axis="y", length=3.5 if axes is across[0] else 0)
            _plain(axes)
        across[0].set_ylabel(f"{name}\ntest accuracy, %" if name else "test accuracy, %")
        _draw_levels(figure, list(across), levels, top)
    _legend(figure, labels)
    save_figure(figure, path)


def _names(rows: Mapping[str, Mapping[str, Sequence[Bar | None]]], title: str) -> list[str]:
    """The names below the bars of a panel, each from the first row in which it is not missing."""
    places = zip(*(panels[title] for panels in rows.values()), strict=True)
    return [next((bar.name for bar in place if bar is not None), "") for place in places]


def _draw_levels(figure: Figure, across: Sequence[Axes], levels: Mapping[str, float], top: float) -> None:
    """Draw lines through a row of panels, their names at its right end, apart where the lines are close."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import offset_copy

    line_end = across[-1].get_yaxis_transform()
    beside = offset_copy(line_end, figure, x=12, units="points")
    at, minimum_gap = -np.inf, 0.055 * top
    dashes = ((0, (5, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.5)))
    looks = {name: dashes[number % len(dashes)] for number, name in enumerate(levels)}
    for name, level in sorted(levels.items(), key=lambda item: item[1]):
        for axes in across:
            line = axes.axhline(100 * level, color="0.15", linestyle=looks[name], linewidth=1)
            line.set_path_effects([withStroke(linewidth=2, foreground="white")])  # to be seen on dark bars
        at = max(100 * level, at + minimum_gap)
        across[-1].annotate(
            f"{name} {100 * level:.1f}",
            (1.0, 100 * level),
            (1.0, at),
            xycoords=line_end,
            textcoords=beside,
            va="center",
            fontsize="small",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.25", "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 0},
        )


def _legend(figure: Figure, labels: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    looks: dict[str, dict[str, Any]] = {
        "dots": {"marker": "o", "linestyle": "", "color": "white", "markeredgecolor": "black", "markersize": 5},
        "interval": {"marker": "|", "linestyle": "-", "color": "black", "markersize": 7},
        "mark": {"color": "0.55", "linewidth": 2.2},
    }
    handles = [Line2D([], [], label=text, **looks[name]) for name, text in labels.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small", frameon=False)


def curves_figure(
    path: str | os.PathLike[str],
    panels: Mapping[str, Sequence[Curve]],
    x_label: str,
    *,
    columns: int = 2,
    logarithmic: Collection[str] = (),
) -> None:
    """Draw curves, one panel for each title, with one legend.

    Args:
        path: The file, ``….png``.
        panels: Title → curves. A curve keeps its colour through all panels.
        x_label: Below the lowest row.
        columns: Panels side by side.
        logarithmic: Titles of the panels with a logarithmic y-axis.

    Raises:
        InvalidValueError: No panel, or another ending.
        OSError: The file cannot be written.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    if not panels or columns < 1:
        raise InvalidValueError(f"panels must name at least one, columns be at least 1; got {len(panels)}, {columns}.")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank_figure(4.2 * columns, 2.9 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    order = list(dict.fromkeys(c.name for curves in panels.values() for c in curves if not (c.dashed or c.style)))
    many = max(max(c.x) for curves in panels.values() for c in curves) >= MANY
    handles: dict[str, Line2D] = {}
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        colour = COLOURS[0]
        for curve in curves:
            if curve.style is not None:
                colour = curve.style.colour
            elif not curve.dashed:
                colour = COLOURS[order.index(curve.name) % len(COLOURS)]
            look = curve.style or Style(colour)
            style = (
                {"linestyle": "--", "linewidth": 1.0}
                if curve.dashed
                else {"linestyle": look.line, "marker": look.marker, "markersize": 3.5}
            )
            (line,) = axes.plot(curve.x, curve.y, color=colour, **style)
            handles.setdefault(curve.name, line)
            if curve.spread is not None:
                y, spread = np.asarray(curve.y, float), np.asarray(curve.spread, float)
                axes.fill_between(curve.x, y - spread, y + spread, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(title, fontsize="medium")
        if title in logarithmic:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        if many:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _plain(axes)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    names, lines = list(handles), list(handles.values())
    figure.legend(lines, names, loc="outside lower center", ncols=max(3, columns), fontsize="small", frameon=False)
    save_figure(figure, path)


_LINES = ("-", "--", ":", "-.")
_MARKERS = "os^Dv<>PX*"


def styles(labels: tuple[str, ...]) -> list[Style]:
    """Return a look for each agent, in their order: colours first, then other lines and marks with the same colours."""
    hues = (*COLOURS[:6], "#4D4D4D")
    return [
        Style(hues[i % len(hues)], _LINES[i // len(hues) % len(_LINES)], _MARKERS[i % len(_MARKERS)])
        for i in range(len(labels))
    ]
