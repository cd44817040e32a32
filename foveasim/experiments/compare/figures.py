"""The figures of a comparison, as PNG files."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.evaluation.measures import MEASURES, Measure
from foveasim.drawing.figures import COLOURS, blank_figure, save_figure, styles
from foveasim.experiments.compare.statistics import DIRECTIONS, ComparisonResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_differences", "draw_saccades", "draw_shares"]

_PANELS = ("relative", "mse", "ssim")
_ABREAST = 5  # histograms side by side


def draw_curves(path: Path, result: ComparisonResult, measure: str) -> None:
    """Draw measures against the number of fixations, with the 95 % bands of the scenes.

    Args:
        path: The file, ``….png``.
        result: What was found.
        measure: The measure of the first panel; two others follow.

    Raises:
        OSError: The file cannot be written.
    """
    fixations = np.arange(1, result.shares.shape[1] + 1)
    _panels(path, result, measure, lambda agent: fixations, "fixations", bands=True)


def draw_shares(path: Path, result: ComparisonResult, measure: str) -> None:
    """Draw measures against the share of pixels seen sharply; see :func:`draw_curves`."""
    _panels(path, result, measure, lambda agent: 100 * result.shares[agent], "pixels seen sharply, %", bands=False)


def _panels(path: Path, result: ComparisonResult, measure: str, x_of: Any, x_label: str, *, bands: bool) -> None:
    names = list(dict.fromkeys((measure, *_PANELS)))[:3]
    figure = blank_figure(4.4 * len(names), 3.8 + 0.2 * math.ceil(len(result.labels) / 6))
    grid = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        _draw_measure(axes, result, MEASURES[name], x_of, bands)
        axes.set_xlabel(x_label)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small", frameon=False)
    save_figure(figure, path)


def _draw_measure(axes: Axes, result: ComparisonResult, measure: Measure, x_of: Any, bands: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for agent, (label, style) in enumerate(zip(result.labels, styles(result.labels), strict=True)):
        value, low, high = (measure.scale * result.curves[measure.name][agent]).T
        axes.plot(
            x_of(agent),
            _drawable(value),
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markersize=4,
            linewidth=1.3,
            label=label,
        )
        if bands:
            axes.fill_between(x_of(agent), _drawable(low), _drawable(high), color=style.colour, alpha=0.1, linewidth=0)
    title = f"{measure.title}{f', {measure.unit}' if measure.unit else ''}"
    axes.set_title(textwrap.fill(title, 44), fontsize="medium")
    if bands:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)


def draw_differences(path: Path, result: ComparisonResult, measure: str) -> None:
    """Draw each agent's difference to the reference with its interval, best on top: the last fixation and the area.

    Args:
        path: The file, ``….png``.
        result: What was found.
        measure: Which measure.

    Raises:
        OSError: The file cannot be written.
    """
    spec = MEASURES[measure]
    others = [i for i, label in enumerate(result.labels) if label != result.reference]
    figure = blank_figure(10.5, 1.6 + 0.32 * max(len(others), 2))
    grid = figure.subplots(1, 2, squeeze=False)[0]
    titles = {"last": f"after {result.shares.shape[1]} fixations", "area": "mean over the fixations"}
    at = result.labels.index(result.reference)
    for axes, (when, title) in zip(grid, titles.items(), strict=True):
        table = spec.scale * result.differences[when][measure][:, at]
        worst_first = sorted(others, key=lambda i: table[i, 0] if not spec.lower_is_better else -table[i, 0])
        for row, agent in enumerate(worst_first):
            value, low, high = table[agent].tolist()
            if not all(map(math.isfinite, (value, low, high))):
                continue
            good = (high < 0) if spec.lower_is_better else (low > 0)
            colour = COLOURS[2] if good else COLOURS[1] if low > 0 or high < 0 else "0.5"
            axes.plot([low, high], [row, row], color=colour, linewidth=2)
            axes.plot([value], [row], "o", color=colour, markersize=5)
        axes.axvline(0, color="black", linewidth=0.8)
        names = [result.labels[i] + (" *" if result.privileged[i] else "") for i in worst_first]
        axes.set_yticks(range(len(worst_first)), names)
        axes.set_ylim(-0.7, max(len(worst_first), 1) - 0.3)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel(f"minus {result.reference}{f', {spec.unit}' if spec.unit else ''}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    better = "left of zero is better" if spec.lower_is_better else "right of zero is better"
    starred = "; * sees the hidden scene" if any(result.privileged) else ""
    figure.suptitle(f"{spec.title}: {better}, lines are 95 % intervals over scenes{starred}", fontsize="medium")
    save_figure(figure, path)


def draw_saccades(path: Path, result: ComparisonResult) -> None:
    """Draw histograms of the amplitude, and roses of the direction, of each agent's saccades.

    Args:
        path: The file, ``….png``.
        result: What was found.

    Raises:
        OSError: The file cannot be written.
    """
    count = len(result.labels)
    columns = min(_ABREAST, count)
    rows = -(-count // columns)
    figure = blank_figure(max(2.3 * columns, 4.6), 3.9 * rows + 0.4)
    for agent, (label, style) in enumerate(zip(result.labels, styles(result.labels), strict=True)):
        row, column = divmod(agent, columns)
        flat = figure.add_subplot(2 * rows, columns, 2 * row * columns + column + 1)
        rose = figure.add_subplot(2 * rows, columns, (2 * row + 1) * columns + column + 1, projection="polar")
        _draw_saccades(figure, flat, rose, result, agent, label, style.colour)
    figure.suptitle("saccades: share of each amplitude, and of each direction (up is up)", fontsize="medium")
    save_figure(figure, path)


def _draw_saccades(
    figure: Figure, flat: Axes, rose: Axes, result: ComparisonResult, agent: int, label: str, colour: str
) -> None:
    figures = result.saccades[agent]
    edges = figures.amplitude_edges_deg
    flat.stairs(figures.amplitude, edges, fill=True, color=colour)
    if math.isfinite(figures.amplitude_median_deg):
        flat.axvline(figures.amplitude_median_deg, color="black", linewidth=0.8, linestyle="--")
    flat.set(xlim=(0, edges[-1]), xlabel="deg")
    flat.set_title(label, fontsize="medium")
    flat.tick_params(labelsize="x-small")
    _plain(flat)
    width = 2 * math.pi / DIRECTIONS
    rose.bar(np.arange(DIRECTIONS) * width, figures.direction, width=0.9 * width, color=colour)
    rose.set_xticks(np.arange(4) * math.pi / 2, ["right", "up", "left", "down"], fontsize="x-small")
    rose.set_yticks([])


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _drawable(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave a gap where a value is not finite, such as the PSNR of a picture without error."""
    return np.where(np.isfinite(values), values, np.nan)
