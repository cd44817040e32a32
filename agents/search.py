"""Visual search: an agent that goes by what it looks for, and how search time grows with the number of items."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.base import Observation, describe_agent, observed
from foveasim.agents.mim.figures import COLOURS, blank_figure, save_figure
from foveasim.agents.noise import LaneNoise
from foveasim.agents.runner import Rollout
from foveasim.check import number
from foveasim.errors import AgentError, InvalidValueError

__all__ = ["Seek", "Slope", "Trials", "at_search_size", "draw_slopes", "read_trials", "search_slope"]

WORKING_SIDE = 96
"""Short side in px at which the target is looked for; larger scenes are averaged down to it first."""

CHUNK = 16  # lanes matched at a time

_GREY = 128  # behind the target in its picture
_GROUND = 0.3  # weight of the ground around the target in a comparison, beside the target's own pixels
_TIE = 1e-3  # noise that settles ties, beside the 1 of plain ground
_Z_95 = 1.959963984540054


class Seek:
    """Looks at the place that most resembles the target, in what it has seen.

    Every place of belief is compared with the picture of the target. The sharper it was seen, the more the comparison
    counts; what was not seen counts as ``doubt``. A place that gaze has landed on is not the target, or the episode
    would be over, and is left out. The agent is the baseline of ``foveasim/Search-v0``: guidance by the target's looks,
    without learning.

    Args:
        doubt: How much an unseen place is supposed to differ from the target, as a mean squared difference; that of
            plain ground is 1. Small, and gaze explores; large, and it tries first what looks a little like the target.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        InvalidValueError: ``doubt`` out of range.

    Reference:
        Rao, Zelinsky, Hayhoe and Ballard 2002, Eye movements in iconic visual search, Vision Research 42:1447-1463
        (gaze goes to the places that resemble the target most, as far as the periphery shows them).
    """

    name = "seek"
    needs: tuple[str, ...] = ("belief", "target")
    __repr__ = describe_agent

    def __init__(self, doubt: float = 0.6, seed: int = 0) -> None:
        self._doubt = number("doubt", doubt, 0, 100)
        self._noise = LaneNoise(seed)
        self._tried: list[list[NDArray[np.float32]]] = []

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Forget where the marked lanes, (B,) bool, have looked."""
        self._noise.reset(lanes)
        if len(self._tried) != len(lanes):
            self._tried = [[] for _ in lanes]
        for lane in np.flatnonzero(lanes).tolist():
            self._tried[lane] = []

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the place that most resembles the target, (B, 2) float32 in [-1, 1].

        Raises:
            AgentError: The observation has no ``target`` or no ``belief``.
        """
        if "target" not in observation:
            raise AgentError(
                f"the agent {self.name!r} looks for a 'target', and the observation has {', '.join(observation)}. "
                "It is for foveasim/Search-v0, and for watching with --scenes search."
            )
        fixation = observed(observation, "fixation").astype(np.float32)
        self._noise.check(len(fixation))
        image, target = (torch.as_tensor(observed(observation, key)) for key in ("belief", "target"))
        acuity = torch.as_tensor(observed(observation, "belief_acuity")).reshape(image.shape[:3])
        for lane, point in enumerate(fixation):
            self._tried[lane].append(point)
        with torch.inference_mode():
            chunks = [slice(start, start + CHUNK) for start in range(0, len(image), CHUNK)]
            found = [_likeness(image[part], acuity[part], target[part], self._doubt) for part in chunks]
        unlike = torch.cat([one for one, _ in found]).numpy()
        radius = torch.cat([one for _, one in found]).numpy()
        rows, cols = unlike.shape[1:]
        y, x = ((np.arange(n) + 0.5) * 2 / n - 1 for n in (rows, cols))
        unlike = unlike + _TIE * self._noise.uniform(rows * cols).reshape(unlike.shape)
        for lane, points in enumerate(self._tried):
            for px, py in points:
                away = np.hypot((x - px)[None] * (cols / 2), (y - py)[:, None] * (rows / 2))
                unlike[lane][away <= radius[lane]] = math.inf
        best = unlike.reshape(len(unlike), -1).argmin(1)
        self._noise.tick()
        return np.stack((x[best % cols], y[best // cols]), 1).astype(np.float32)


def at_search_size(scene: Tensor, sharp: Tensor, look: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shrink scenes of a longer short side to ``WORKING_SIDE``, and what is sought by the same factor.

    Args:
        scene: (B, 3, H, W) float.
        sharp: (B, 1, H, W) float, its acuity.
        look: (B, 3, S, S) float, the target.
        own: (B, 1, S, S) float, what of that is the item.
    """
    scale = WORKING_SIDE / min(scene.shape[2:])
    if scale >= 1:
        return scene, sharp, look, own
    height, width = (max(1, round(side * scale)) for side in scene.shape[2:])
    side = max(2, round(look.shape[2] * scale))
    scene, sharp = (F.interpolate(x, (height, width), mode="area") for x in (scene, sharp))
    look, own = (F.interpolate(x, (side, side), mode="area") for x in (look, own))
    return scene, sharp, look, own


def _likeness(image: Tensor, acuity: Tensor, target: Tensor, doubt: float) -> tuple[Tensor, Tensor]:
    """Return how much every place differs from the target, (B, h, w), and the target's radius, (B,), in its px."""
    scene, sharp = image.permute(0, 3, 1, 2).float() / 255, acuity[:, None].float() / 255
    look = target.permute(0, 3, 1, 2).float() / 255
    own = ((target.int() - _GREY).abs().amax(3) > 4).float()[:, None]
    scene, sharp, look, own = at_search_size(scene, sharp, look, own)
    # The middle alone: a comparison of all 36 px takes eight times as long as that of an item of 12.
    side = look.shape[2]
    away = (torch.arange(side) + 0.5 - side / 2).abs()
    reach = (own[:, 0] * torch.maximum(away[:, None], away[None])).amax((1, 2)) + 0.5
    half = min(side // 2, math.ceil(float(reach.max())) + 1)
    middle = slice(side // 2 - half, side - side // 2 + half)
    look, weight = look[:, :, middle, middle], _GROUND + (1 - _GROUND) * own[:, :, middle, middle]
    weight = weight / weight.sum((2, 3), keepdim=True) / 3
    square = _slide(scene.square().sum(1, keepdim=True), weight)
    across = _slide(scene, weight * look)
    unlike = square - 2 * across + (weight * look.square()).sum((1, 2, 3))[:, None, None]
    ground = (weight * (look - _GREY / 255).square()).sum((1, 2, 3)).clamp(min=1e-4)[:, None, None]
    seen = _slide(sharp, 3 * weight)
    return seen * unlike.clamp(min=0) / ground + (1 - seen) * doubt, reach


def _slide(maps: Tensor, windows: Tensor) -> Tensor:
    """Sum maps (B, C, H, W) under windows (B, C, s, s) laid over every place, each lane its own, (B, H, W)."""
    lanes, channels, side, _ = windows.shape
    before, after = (side - 1) // 2, side // 2
    padded = F.pad(maps, (before, after, before, after), mode="replicate")
    return F.conv2d(padded.reshape(1, lanes * channels, *padded.shape[2:]), windows, groups=lanes)[0]


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
        played: Of :func:`foveasim.agents.runner.rollout`.

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
    kept = np.ones(len(trials), bool) if misses == "count" else trials.found
    sizes, times = trials.set_size[kept].astype(float), trials.reaction_ms[kept]
    known = np.unique(trials.set_size[kept])
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
    half = [_Z_95 * float(g.std(ddof=1)) / math.sqrt(len(g)) if len(g) > 1 else math.nan for g in groups]
    return Slope(
        slope,
        slope - _Z_95 * error,
        slope + _Z_95 * error,
        intercept,
        float(trials.found.mean()),
        known,
        np.array([group.mean() for group in groups]),
        np.array(half),
        np.array([trials.fixations[kept & (trials.set_size == size)].mean() for size in known]),
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
