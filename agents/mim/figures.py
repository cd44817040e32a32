"""Figures as PNG files: confusion matrices, accuracies with their intervals, curves over training.

matplotlib is imported inside the functions and drawn on without pyplot, so that no window and no global state is
touched, and a program that plots for itself stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["Bar", "Curve", "accuracies_figure", "confusion_figure", "curves_figure"]

# Okabe and Ito (2008), Color Universal Design: told apart without colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 150
MOST_NAMED = 40  # classes whose names and counts still fit


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: For the legend.
        x: Where it was measured.
        y: What was measured, as many; a gap where NaN.
        spread: Half the height of a band around it, as many, or None.
        dashed: For what a curve is to be compared with: drawn without marks, in the colour of the curve before it.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] | None = None
    dashed: bool = False

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
    """

    name: str
    value: float
    low: float
    high: float


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    if Path(path).suffix.lower() != ".png":
        raise InvalidValueError(f"path must end in .png; got {os.fspath(path)!r}.")
    figure.savefig(path, format="png")


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
    named = size <= MOST_NAMED
    side = min(4.0 + 0.42 * size, 20.0) if named else 10.0
    figure = _figure(side, side * 0.92)
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
    _save(figure, path)


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
    if not bars or not all(0 <= b.low <= b.value <= b.high <= 1 for b in bars):
        raise InvalidValueError(f"bars must have 0 <= low <= value <= high <= 1, at least one; got {list(bars)}.")
    figure = _figure(max(4.0, 1.5 + 1.1 * len(bars)), 4.0)
    axes = figure.subplots()
    values = np.array([[b.value, b.low, b.high] for b in bars]).T * 100
    axes.bar(range(len(bars)), values[0], color=COLOURS[0], width=0.65)
    axes.errorbar(
        range(len(bars)), values[0], yerr=[values[0] - values[1], values[2] - values[0]], fmt="none", color="black"
    )
    for place, (value, _, high) in enumerate(values.T):
        axes.text(place, high + 0.8, f"{value:.1f}", ha="center", fontsize="small")
    if chance is not None:
        axes.axhline(100 * chance, color="black", linestyle="--", linewidth=1)
        beside = axes.get_yaxis_transform()
        axes.text(1.01, 100 * chance, "chance", va="center", fontsize="small", transform=beside)
    axes.set_xticks(range(len(bars)), [b.name for b in bars], rotation=25, ha="right", rotation_mode="anchor")
    axes.set(ylabel="test accuracy, %", ylim=(0, min(100.0, 1.15 * float(values[2].max()) + 2)))
    axes.set_title(title, fontsize="medium")
    _plain(axes)
    _save(figure, path)


def curves_figure(
    path: str | os.PathLike[str], panels: Mapping[str, Sequence[Curve]], x_label: str, *, columns: int = 2
) -> None:
    """Draw curves, one panel for each title, with one legend.

    Args:
        path: The file, ``….png``.
        panels: Title → curves. A curve keeps its colour through all panels.
        x_label: Below the lowest row.
        columns: Panels side by side.

    Raises:
        InvalidValueError: No panel, or another ending.
        OSError: The file cannot be written.
    """
    if not panels or columns < 1:
        raise InvalidValueError(f"panels must name at least one, columns be at least 1; got {len(panels)}, {columns}.")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = _figure(4.2 * columns, 2.9 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    order = list(dict.fromkeys(c.name for curves in panels.values() for c in curves if not c.dashed))
    handles: dict[str, Line2D] = {}
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        colour = COLOURS[0]
        for curve in curves:
            colour = colour if curve.dashed else COLOURS[order.index(curve.name) % len(COLOURS)]
            style = {"linestyle": "--", "linewidth": 1.0} if curve.dashed else {"marker": "o", "markersize": 3.5}
            (line,) = axes.plot(curve.x, curve.y, color=colour, **style)
            handles.setdefault(curve.name, line)
            if curve.spread is not None:
                y, spread = np.asarray(curve.y, float), np.asarray(curve.spread, float)
                axes.fill_between(curve.x, y - spread, y + spread, color=colour, alpha=0.2, linewidth=0)
        axes.set_title(title, fontsize="medium")
        _plain(axes)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    names, lines = list(handles), list(handles.values())
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize="small")
    _save(figure, path)
