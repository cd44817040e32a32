"""What a comparison says: curves, areas, paired differences with bootstrap intervals over scenes, and saccades."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.evaluation.measures import MEASURES, Measure
from foveasim.agents.evaluation.scene_runner import AgentRun
from foveasim.errors import InvalidValueError
from foveasim.geometry import default_px_per_deg
from foveasim.metrics.statistics import resample

__all__ = [
    "DIRECTIONS",
    "RETURN_DEG",
    "WHEN",
    "ComparisonResult",
    "Interval",
    "SaccadeStatistics",
    "summarise",
    "summarise_saccades",
]

WHEN = ("last", "area")
"""A difference of agents is taken after the last fixation, or of the mean height of their curves (``area``)."""

RETURN_DEG = 2.0
"""A fixation this close to an earlier one is a return: within it both fall into one fovea."""

DIRECTIONS = 16
"""Bins of the histogram of directions; the first is centred on "to the right", the others follow anticlockwise."""

_CHUNK = 1000  # resamples at a time, which bounds the memory


class Interval(NamedTuple):
    """An estimate with its 95 % bootstrap interval; NaN where it cannot be had."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, eq=False)
class SaccadeStatistics:
    """How one agent's eye moved. NaN where it made no saccade.

    Attributes:
        amplitude_mean_deg: Of all saccades.
        amplitude_median_deg: Of all saccades.
        return_rate: Share of saccades that land within ``RETURN_DEG`` of an earlier fixation of the scene.
        coverage: Mean acuity of what was seen of a scene in the end, 0 to 1.
        sharp: Share of its pixels that were seen at half of full acuity or better.
        direction: (16,) share of the saccades in each direction; those of less than 0.1 deg have none.
        amplitude_edges_deg: (21,) edges of the bins of ``amplitude``.
        amplitude: (20,) share of the saccades of each amplitude.
        act_ms: Time for a step of one eye, of ``lanes`` at once.
        lanes: How many.
    """

    amplitude_mean_deg: float
    amplitude_median_deg: float
    return_rate: float
    coverage: float
    sharp: float
    direction: NDArray[np.float64]
    amplitude_edges_deg: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    act_ms: float
    lanes: int


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """What a comparison found. A agents, N fixations; every last axis of 3 is value, low and high of an interval.

    Attributes:
        labels: A names.
        reference: The one that the others are compared with.
        ceiling: The one whose lead over the reference is the whole gap, or None.
        privileged: Whether each saw the hidden scene.
        curves: Measure → (A, N, 3).
        shares: (A, N) mean share of pixels seen at half of full acuity or better.
        area: Measure → (A, 3), mean height of the curve over the fixations (trapezoids).
        share_range: Shares that all moving agents passed through, over which ``share_area`` is taken; NaN without.
        share_area: Measure → (A,), mean height of the curve over that range of shares; NaN for an agent that stayed.
        differences: "last" or "area" → measure → (A, A, 3), row minus column.
        gap: "last" or "area" → measure → (A, 3), share of the way from the reference to the ceiling; NaN without.
        saccades: One for each agent.
    """

    labels: tuple[str, ...]
    reference: str
    ceiling: str | None
    privileged: tuple[bool, ...]
    curves: Mapping[str, NDArray[np.float64]]
    shares: NDArray[np.float64]
    area: Mapping[str, NDArray[np.float64]]
    share_range: tuple[float, float]
    share_area: Mapping[str, NDArray[np.float64]]
    differences: Mapping[str, Mapping[str, NDArray[np.float64]]]
    gap: Mapping[str, Mapping[str, NDArray[np.float64]]]
    saccades: tuple[SaccadeStatistics, ...]

    def difference(self, when: str, measure: str, agent: str, other: str) -> Interval:
        """Return agent minus other."""
        row, column = self.labels.index(agent), self.labels.index(other)
        return Interval(*self.differences[when][measure][row, column].tolist())


def summarise(
    runs: Sequence[AgentRun],
    size: tuple[int, int],
    *,
    reference: str,
    ceiling: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> ComparisonResult:
    """Work out what a comparison says.

    The seeds of a scene are averaged first; scenes are then drawn anew, the same ones for all agents, so that
    differences are paired.

    Args:
        runs: One for each agent, on the same scenes with as many seeds and fixations.
        size: (H, W) of the scenes, px.
        reference: Label of the agent that the others are compared with.
        ceiling: Label of an upper reference, or None.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.

    Raises:
        InvalidValueError: No agent, an unknown reference or ceiling, or runs on different scenes, seeds or fixations.
    """
    labels = tuple(one.label for one in runs)
    for name, value in (("reference", reference), ("ceiling", ceiling)):
        if value is not None and value not in labels:
            raise InvalidValueError(f"{name} must be among {', '.join(labels) or 'the agents'}; got {value!r}.")
    shapes = {one.fixation_px.shape for one in runs}
    if len(shapes) != 1:
        raise InvalidValueError(f"runs must be of the same seeds, scenes and fixations; got {sorted(shapes)}.")
    scenes = runs[0].fixation_px.shape[1]
    weights = resample(scenes, resamples, seed)
    shares = np.stack([one.numbers["sharp"].mean((0, 1)) for one in runs])
    curves, area, share_area = {}, {}, {}
    differences: dict[str, dict[str, NDArray[np.float64]]] = {when: {} for when in WHEN}
    gap: dict[str, dict[str, NDArray[np.float64]]] = {when: {} for when in WHEN}
    span = _share_range(shares)
    at = labels.index(reference)
    top = None if ceiling is None or ceiling == reference else labels.index(ceiling)
    for name, measure in MEASURES.items():
        curve, drawn = _curves(runs, measure, weights)
        curves[name] = _intervals(curve, drawn)
        share_area[name] = np.array([_mean_height(x, y, span) for x, y in zip(shares, curve, strict=True)])
        heights = {"last": (curve[:, -1], drawn[..., -1]), "area": (_height(curve), _height(drawn))}
        area[name] = _intervals(*heights["area"])
        for when, (level, sample) in heights.items():
            with np.errstate(invalid="ignore", divide="ignore"):  # infinite PSNR
                differences[when][name] = _intervals(level[:, None] - level[None], sample[:, :, None] - sample[:, None])
                if top is not None:
                    gap[when][name] = _intervals(
                        (level - level[at]) / (level[top] - level[at]),
                        (sample - sample[:, at, None]) / (sample[:, top, None] - sample[:, at, None]),
                    )
                else:
                    gap[when][name] = np.full((len(labels), 3), np.nan)
    return ComparisonResult(
        labels,
        reference,
        ceiling,
        tuple(one.privileged for one in runs),
        curves,
        shares,
        area,
        span,
        share_area,
        differences,
        gap,
        tuple(summarise_saccades(one, size) for one in runs),
    )


def _curves(
    runs: Sequence[AgentRun], measure: Measure, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a measure of each agent after each fixation, (A, N), and in each bootstrap sample, (R, A, N)."""
    above = np.stack([one.numbers[measure.numerator].mean(0) for one in runs])  # (A, S, N)
    agents, scenes, n = above.shape
    flat = above.transpose(1, 0, 2).reshape(scenes, -1)
    below = np.ones_like(flat)
    if measure.denominator:
        stacked = np.stack([one.numbers[measure.denominator].mean(0) for one in runs])
        below = stacked.transpose(1, 0, 2).reshape(scenes, -1)
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing hidden, or nothing wrong
        value = flat.sum(0) / below.sum(0)
        drawn = [(part @ flat) / (part @ below) for part in np.split(weights, range(_CHUNK, len(weights), _CHUNK))]
    return value.reshape(agents, n), np.concatenate(drawn).reshape(-1, agents, n)


def _intervals(value: NDArray[np.float64], drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return value, low and high on a new last axis, from samples on the first axis of ``drawn``."""
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    return np.stack((value, low, high), -1)


def _height(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean height over the last axis, by trapezoids; of a single point its own."""
    if curve.shape[-1] == 1:
        return curve[..., 0]
    found: NDArray[np.float64] = ((curve[..., 1:] + curve[..., :-1]) / 2).mean(-1)
    return found


def _share_range(shares: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of shares that every agent passed through that saw more in the end than at first."""
    moved = shares[shares[:, -1] > shares[:, 0] + 1e-9]
    if not len(moved):
        return math.nan, math.nan
    low, high = float(moved[:, 0].max()), float(moved[:, -1].min())
    return (low, high) if high > low else (math.nan, math.nan)


def _mean_height(x: NDArray[np.float64], y: NDArray[np.float64], span: tuple[float, float]) -> float:
    """Return the mean height of the broken line through (x, y), x rising, over a part of x; NaN where it ends short."""
    low, high = span
    if not (math.isfinite(low) and x[0] <= low + 1e-9 and x[-1] >= high - 1e-9):
        return math.nan
    inside = x[(x > low) & (x < high)]
    at = np.concatenate(([low], inside, [high]))
    heights = np.interp(at, x, y)
    return float(((heights[1:] + heights[:-1]) / 2 * np.diff(at)).sum() / (high - low))


def summarise_saccades(run: AgentRun, size: tuple[int, int]) -> SaccadeStatistics:
    """Summarise how an agent's eye moved.

    Convention: an eye that stays where it is makes a saccade of 0 degrees, which is a return.

    Args:
        run: What it did.
        size: (H, W) of the scenes, px; their short side spans 27.4 degrees.
    """
    amplitude = run.amplitude_deg.astype(np.float64).ravel()
    scale = default_px_per_deg(size)
    longest = math.hypot(*size) / scale
    edges = np.linspace(0, longest, 21)
    none = amplitude.size == 0
    points = run.fixation_px.astype(np.float64)
    moved = np.diff(points, axis=2)
    angle = np.arctan2(-moved[..., 1], moved[..., 0]).ravel()[amplitude >= 0.1]
    bins = np.round(angle / (2 * math.pi / DIRECTIONS)).astype(np.int64) % DIRECTIONS
    direction = np.bincount(bins, minlength=DIRECTIONS) / max(len(bins), 1)
    histogram = np.histogram(np.minimum(amplitude, longest), edges)[0] / max(amplitude.size, 1)
    return SaccadeStatistics(
        math.nan if none else float(amplitude.mean()),
        math.nan if none else float(np.median(amplitude)),
        math.nan if none else _return_rate(points, RETURN_DEG * scale),
        float(run.numbers["coverage"][..., -1].mean()),
        float(run.numbers["sharp"][..., -1].mean()),
        direction,
        edges,
        histogram,
        run.act_ms,
        run.lanes,
    )


def _return_rate(points: NDArray[np.float64], radius_px: float) -> float:
    """Return the share of fixations but the first that lie within a radius of an earlier one; points (K, S, N, 2)."""
    count = points.shape[2]
    distance = np.linalg.norm(points[:, :, :, None] - points[:, :, None], axis=-1)
    earlier = np.tri(count, k=-1, dtype=bool)
    return float(((distance <= radius_px) & earlier).any(-1)[:, :, 1:].mean())
