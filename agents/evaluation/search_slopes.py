"""How the time that visual search takes grows with the number of items."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.rollout import Rollout
from foveasim.drawing.figures import COLOURS, blank_figure, save_figure
from foveasim.errors import InvalidValueError
from foveasim.metrics.statistics import Z_95

__all__ = ["Slope", "Trials", "draw_slopes", "read_trials", "search_slope"]


@dataclass(frozen=True)
class Trials:
    """N searches.

    Attributes:
        set_size: (N,) int64, items in the display.
        found: (N,) bool.
        reaction_ms: (N,) float64, simulated time until gaze landed on the target, or until the search ended without.
        fixations: (N,) int64, saccades until then.
    """

    set_size: NDArray[np.int64]
    found: NDArray[np.bool_]
    reaction_ms: NDArray[np.float64]
    fixations: NDArray[np.int64]

    def __len__(self) -> int:
        """N."""
        return len(self.set_size)


def read_trials(played: Rollout) -> Trials:
    """Read the searches off what an agent did on ``foveasim/Search-v0``; unfinished episodes are left out.

    Args:
        played: Of :func:`foveasim.agents.rollout.rollout`.

    Raises:
        InvalidValueError: Episodes of another env, or none that is finished.
    """
    missing = [key for key in ("found", "set_size", "reaction_ms") if key not in played.info]
    if missing:
        raise InvalidValueError(f"played must be of foveasim/Search-v0; its info lacks {', '.join(missing)}.")
    rows = np.flatnonzero(played.finished)
    if not rows.size:
        raise InvalidValueError("played must have at least one finished episode; got none. Play more steps.")
    last = played.length[rows] - 1
    ends = {key: played.info[key][rows, last] for key in ("found", "set_size", "reaction_ms")}
    return Trials(
        ends["set_size"].astype(np.int64), ends["found"].astype(np.bool_), ends["reaction_ms"], played.length[rows]
    )


@dataclass(frozen=True)
class Slope:
    """How search time grows with set size: reaction time = intercept + slope x set size.

    Attributes:
        ms_per_item: The search slope.
        low: Lower end of its 95 % interval.
        high: Upper end.
        intercept_ms: Time that does not depend on set size.
        found_share: Share of the trials in which the target was found.
        set_sizes: The K set sizes.
        mean_ms: (K,) mean reaction time at each.
        half_ms: (K,) half of its 95 % interval, NaN for a single trial.
        fixations: (K,) mean number of saccades at each.
        found: (K,) share found at each.
    """

    ms_per_item: float
    low: float
    high: float
    intercept_ms: float
    found_share: float
    set_sizes: NDArray[np.int64]
    mean_ms: NDArray[np.float64]
    half_ms: NDArray[np.float64]
    fixations: NDArray[np.float64]
    found: NDArray[np.float64]


def search_slope(trials: Trials, *, misses: str = "count") -> Slope:
    """Fit the search slope by least squares, with an interval that lets the spread grow with set size.

    Args:
        trials: At least three, of at least two set sizes.
        misses: What becomes of searches that ended without the target. "count" takes the time that they took, less than
            they would have needed: the slope of a searcher who often fails comes out too small. "drop" leaves them
            out, as studies of people do with their few errors, which makes it smaller still.

    Raises:
        InvalidValueError: Too few trials or set sizes, or an unknown way.

    Reference:
        Wolfe 1998, What can 1 million trials tell us about visual search?, Psychological Science 9:33-39. White 1980, A
        heteroskedasticity-consistent covariance matrix estimator, Econometrica 48:817-838; MacKinnon and White 1985, J.
        Econometrics 29:305-325 (HC1: times N / (N - 2)).

    Example:
        >>> sizes = np.array([4, 4, 8, 8])
        >>> line = search_slope(Trials(sizes, np.ones(4, bool), 300.0 + 25 * sizes, sizes // 2))
        >>> round(line.ms_per_item), round(line.intercept_ms)
        (25, 300)
    """
    if misses not in ("count", "drop"):
        raise InvalidValueError(f"misses must be 'count' or 'drop'; got {misses!r}.")
    counted = np.ones(len(trials), bool) if misses == "count" else trials.found
    sizes, times = trials.set_size[counted].astype(float), trials.reaction_ms[counted]
    known = np.unique(trials.set_size[counted])
    if len(sizes) < 3 or len(known) < 2:
        raise InvalidValueError(
            f"trials must be at least 3 of at least 2 set sizes; got {len(sizes)} of {known.tolist()}."
        )
    away = sizes - sizes.mean()
    square = float(away @ away)
    slope = float(away @ times) / square
    intercept = float(times.mean() - slope * sizes.mean())
    left = times - intercept - slope * sizes
    error = math.sqrt(float((away * left) @ (away * left)) * len(sizes) / (len(sizes) - 2)) / square
    groups = [times[sizes == size] for size in known]
    half = [Z_95 * float(g.std(ddof=1)) / math.sqrt(len(g)) if len(g) > 1 else math.nan for g in groups]
    return Slope(
        slope,
        slope - Z_95 * error,
        slope + Z_95 * error,
        intercept,
        float(trials.found.mean()),
        known,
        np.array([group.mean() for group in groups]),
        np.array(half),
        np.array([trials.fixations[counted & (trials.set_size == size)].mean() for size in known]),
        np.array([trials.found[trials.set_size == size].mean() for size in known]),
    )


def draw_slopes(path: str | os.PathLike[str], slopes: Mapping[str, Slope], title: str = "") -> None:
    """Draw reaction time, saccades and the share found against set size, a line for each agent.

    Args:
        path: The file, ``….png``.
        slopes: By the agent's name, at least one.
        title: Above the figure.

    Raises:
        InvalidValueError: No slopes, or another ending.
        OSError: The file cannot be written.
    """
    if not slopes:
        raise InvalidValueError("slopes must hold at least one agent's; got none.")
    figure = blank_figure(11.0, 3.8)
    times, counts, shares = figure.subplots(1, 3)
    for number_, (name, one) in enumerate(slopes.items()):
        colour = COLOURS[number_ % len(COLOURS)]
        label = f"{name}: {one.ms_per_item:.0f} ms/item [{one.low:.0f}, {one.high:.0f}]"
        line = one.intercept_ms + one.ms_per_item * one.set_sizes
        times.plot(one.set_sizes, line, color=colour, linewidth=1.3)
        times.errorbar(one.set_sizes, one.mean_ms, np.nan_to_num(one.half_ms), fmt="o", color=colour, label=label)
        counts.plot(one.set_sizes, one.fixations, "o-", color=colour)
        shares.plot(one.set_sizes, 100 * one.found, "o-", color=colour)
    sizes = sorted({int(size) for one in slopes.values() for size in one.set_sizes})
    for axes, name in ((times, "reaction time, ms"), (counts, "saccades"), (shares, "found, %")):
        axes.set(title=name, xlabel="set size", xticks=sizes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.set_ylim(bottom=0)
    shares.set_ylim(0, 105)
    times.legend(fontsize="small", frameon=False)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)
