"""The figures of a comparison with people, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveasim import metrics
from foveasim.drawing.figures import COLOURS, blank_figure, save_figure, styles
from foveasim.experiments.humans.scores import SCORES, ScanpathScores
from foveasim.experiments.humans.table import LIKE_PEOPLE, in_order, value_of
from foveasim.metrics.people import People

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_densities", "draw_distributions", "draw_scores"]

_PANELS = ("scanmatch", "self_scanmatch", "amplitude_js", "scanmatch_kl", "nss_path", "information")
_MAX_DENSITIES = 12  # densities side by side; more would be stamps


def draw_scores(path: Path, scores: Sequence[ScanpathScores]) -> None:
    """Draw the main scores of everybody, with 95 % intervals over images, people as a line.

    Args:
        path: The file, ``….png``.
        scores: People, agents and baselines.

    Raises:
        OSError: The file cannot be written.
    """
    rows = [one for one in in_order(scores) if one.kind != "people"][::-1]
    people = next(one for one in scores if one.kind == "people")
    figure = blank_figure(13, 2.2 + 2 * 0.24 * len(rows))
    grid = figure.subplots(2, 3, sharey=True)
    for axes, name in zip(grid.ravel(), _PANELS, strict=True):
        for at, one in enumerate(rows):
            colour = "0.6" if one.kind == "floor" else COLOURS[0]
            if one.kind == "agent" and value_of(one, name) > LIKE_PEOPLE.get(name, math.inf):
                colour = COLOURS[1]
            estimate = one.estimates.get(name)
            if estimate is not None:
                axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=2)
            axes.plot([value_of(one, name)], [at], "o", color=colour, markersize=5)
        axes.axvline(value_of(people, name), color="black", linewidth=0.9, linestyle="--")
        axes.set_yticks(range(len(rows)), [one.label + (" *" if one.privileged else "") for one in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_title(SCORES[name].title, fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    starred = "; * sees the hidden scene" if any(one.privileged for one in rows) else ""
    figure.suptitle(
        f"dashed: people; grey: baselines; orange: unlike people whatever its ScanMatch{starred}", fontsize="medium"
    )
    save_figure(figure, path)


def draw_distributions(path: Path, scores: Sequence[ScanpathScores], people: People) -> None:
    """Draw how amplitudes and directions of saccades are distributed, those of people behind each agent's.

    Args:
        path: The file, ``….png``.
        scores: People, agents and baselines.
        people: With whom agents were compared, for the degrees.

    Raises:
        OSError: The file cannot be written.
    """
    amplitude = metrics.amplitude_counts(
        [p for group in people.paths for p in group], bin_px=people.px_per_deg / 24 * 20
    )
    direction = metrics.direction_counts([p for group in people.paths for p in group])
    rows = [one for one in in_order(scores) if one.kind != "people"]
    columns = min(5, len(rows))
    lines = -(-len(rows) // columns)
    figure = blank_figure(max(2.4 * columns, 7.0), 3.9 * lines + 0.4)  # the title takes 6.6
    agents = [one for one in rows if one.kind == "agent"]
    highest = _highest(amplitude, [one.amplitude for one in agents])
    furthest = _highest(direction, [one.direction for one in agents])
    edges_deg = np.arange(len(amplitude) + 1) * 20 / 24
    hues = styles(tuple(one.label for one in rows))
    for place, (one, style) in enumerate(zip(rows, hues, strict=True)):
        row, column = divmod(place, columns)
        flat = figure.add_subplot(2 * lines, columns, 2 * row * columns + column + 1)
        rose = figure.add_subplot(2 * lines, columns, (2 * row + 1) * columns + column + 1, projection="polar")
        flat.stairs(_share(one.amplitude), edges_deg, fill=True, color=style.colour, alpha=0.75)
        flat.stairs(_share(amplitude), edges_deg, color="black", linewidth=1)
        flat.set(xlim=(0, edges_deg[-1]), xlabel="deg", ylim=(0, highest))
        flat.set_title(f"{one.label}\nJS {one.pooled['amplitude_js']:.3f}", fontsize="medium")
        flat.tick_params(labelsize="x-small")
        flat.spines[["top", "right"]].set_visible(False)
        _draw_rose(rose, one.direction, direction, style.colour, furthest)
        rose.set_title(f"JS {one.pooled['direction_js']:.3f}", fontsize="small")
    figure.suptitle("saccades: share of each amplitude and direction (up is up); black: people", fontsize="medium")
    save_figure(figure, path)


def _highest(people: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> float:
    """Return the end of all axes: room for the greatest share, but no more than people can still be read beside."""
    top = _share(people).max()
    return float(min(max([1.2 * top, *(1.05 * _share(counts).max() for counts in others)]), 2.2 * top))


def _draw_rose(axes: Axes, counts: NDArray[np.int64], people: NDArray[np.int64], colour: str, furthest: float) -> None:
    bins = len(counts)
    angle = -(np.arange(bins) * 2 * math.pi / bins - math.pi + math.pi / bins)  # y runs down in the counts
    axes.bar(angle, _share(counts), width=2 * math.pi / bins, color=colour, alpha=0.75)
    around = np.append(angle, angle[0])
    axes.plot(around, np.append(_share(people), _share(people)[0]), color="black", linewidth=1)
    axes.set_ylim(0, furthest)
    axes.set_xticks(np.arange(4) * math.pi / 2, ["right", "up", "left", "down"], fontsize="x-small")
    axes.set_yticks([])


def draw_densities(path: Path, scores: Sequence[ScanpathScores], people: People, report_images: Sequence[int]) -> None:
    """Draw where people, agents and baselines looked on some images: Gaussians of one degree on their fixations.

    Args:
        path: The file, ``….png``.
        scores: People, agents and baselines.
        people: With whom agents were compared.
        report_images: Numbers of the images.

    Raises:
        OSError: The file cannot be written.
    """
    rows = [one for one in in_order(scores) if one.kind != "floor"]
    rows = [*rows, *(one for one in in_order(scores) if one.kind == "floor")][:_MAX_DENSITIES]
    height, width = people.image_size
    figure = blank_figure(1.75 * (len(rows) + 1), 1.75 * height / width * len(report_images) + 0.5)
    grid = figure.subplots(len(report_images), len(rows) + 1, squeeze=False)
    for line, place in zip(grid, report_images, strict=True):
        line[0].imshow(people.image[place])
        for axes, one in zip(line[1:], rows, strict=True):
            points = np.concatenate([people.to_image_px(path.fixation_px.numpy()) for path in one.paths[place]])
            density = metrics.fixation_map(points, people.image_size, people.sigma_px)
            axes.imshow(people.image[place].mean(2), cmap="gray", vmin=-80, vmax=335)
            axes.imshow(density, cmap="inferno", alpha=np.clip(density / density.max(), 0, 1) ** 0.5 * 0.85)
        for axes in line:
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("image", *(one.label for one in rows)), strict=True):
        axes.set_title(title, fontsize="small")
    save_figure(figure, path)


def _share(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(int(counts.sum()), 1)
    return shares
