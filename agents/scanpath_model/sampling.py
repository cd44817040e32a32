"""How sharply the agent ``scanpath`` draws: chosen by the scanpaths that come out.

Fixations drawn just as likely as the model says are too varied, as every model is less sure than people; drawn too
sharply they become one scanpath again and again. Either changes how large the saccades are. A correction by amplitude
is therefore fitted for each sharpness, and the sharpness taken whose scanpaths are most like people's by ScanMatch
among those that stay as varied as people's and whose saccades are as large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import metrics
from foveasim.agents.mim.expected_gain import cell_grid
from foveasim.agents.scanpath_model.prior import MEMORY, SamplingParameters, Tables, draw_points, features, log_priority
from foveasim.metrics.people import People
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["choose_sampling", "draw_scanpaths"]

MAX_SELF_SCANMATCH, MAX_AMPLITUDE_JS = 0.47, 0.03
"""Of ScanMatch among its own and of the divergence of amplitudes: below the 0.50 and 0.05 from which on ``foveasim
humans`` warns, as other images bring others."""

SHARPNESS = (1.0, 1.3, 1.6, 1.9, 2.2, 2.6, 3.0)
_ROUNDS, _STEP, _MAX_CORRECTION = 3, 0.8, 2.5


def draw_scanpaths(
    maps: Tensor, people: People, tables: Tables, sharpness: float, *, count: int = 4, seed: int = 0
) -> list[list[Scanpath]]:
    """Draw scanpaths on images by maps that were made beforehand.

    What the eye has seen is not followed: at each step the map is that of an eye which was led along a scanpath from
    another image.

    Args:
        maps: (S, T, 2, rows, columns) log salience by step; after T steps the last one's.
        people: Of the S images; the lengths are those of the training people.
        tables: With weights.
        sharpness: Of the draws.
        count: Scanpaths on each image.
        seed: Of the draws.
    """
    draws = np.random.default_rng((seed, count))
    scenes, steps = maps.shape[:2]
    grid, lanes = cell_grid(people.image_size), scenes * count
    scene = torch.arange(scenes).repeat_interleave(count)
    lengths = draws.choice(people.lengths, lanes)
    past, angle = torch.zeros(lanes, MEMORY, 2), min(people.size) / people.px_per_deg
    points = []
    for step in range(int(lengths.max())):
        seen = maps[scene, min(step, steps - 1)]
        counted = torch.full((lanes,), min(step + 1, MEMORY))
        known = features(seen, past, counted, tables, people.image_size, angle)
        drawn = torch.from_numpy(draws.random((lanes, 3)))
        point = draw_points(log_priority(known, tables, sharpness), drawn, grid)
        points.append(point)
        past = torch.cat((point[:, None], past[:, :-1]), 1)
    every = (torch.stack(points, 1) + 1) / 2 * torch.tensor(people.size[::-1], dtype=torch.float32)
    made = []
    for lane, length in enumerate(lengths.tolist()):
        duration = torch.full((length,), 200.0)
        onset = torch.cumsum(duration, 0) - duration
        made.append(Scanpath(every[lane, :length], onset, duration, people.name[lane // count], f"{lane % count}"))
    return [made[i * count : (i + 1) * count] for i in range(scenes)]


def choose_sampling(
    maps: Tensor,
    people: People,
    tables: Tables,
    *,
    seed: int = 0,
    on_message: Callable[[str], None] = lambda line: None,
) -> SamplingParameters:
    """Return how to draw: the sharpness with the highest ScanMatch of those that are not unlike people otherwise.

    Args:
        maps: (S, T, 2, rows, columns) log salience by step.
        people: Of the S images.
        tables: With weights.
        seed: Of the draws.
        on_message: Takes one line for each sharpness.
    """
    best, chosen = -1.0, SamplingParameters(tables.weights, tables.amplitude, 0.0)
    for sharpness in SHARPNESS:
        tables, made = _matched(maps, people, tables, sharpness, seed)  # begins with the last one's correction
        score, self_score, amplitude = _score_against_people(made, people)
        on_message(
            f"sharpness {sharpness:g}: ScanMatch {score:.3f}, among its own {self_score:.3f}, "
            f"amplitude JS {amplitude:.3f}"
        )
        if not chosen.sharpness or (
            score > best and self_score <= MAX_SELF_SCANMATCH and amplitude <= MAX_AMPLITUDE_JS
        ):
            best, chosen = score, SamplingParameters(tables.weights, tables.amplitude, sharpness)
        if self_score > MAX_SELF_SCANMATCH:
            break
    return chosen


def _matched(
    maps: Tensor, people: People, tables: Tables, sharpness: float, seed: int
) -> tuple[Tables, list[list[Scanpath]]]:
    """Return tables by which saccades are as large as people's, and scanpaths that were drawn by them."""
    goal, made = _shares(people.training, people), []
    for turn in range(_ROUNDS):
        made = draw_scanpaths(maps, people, tables, sharpness, seed=seed + turn)
        if turn == _ROUNDS - 1:
            break
        wrong = np.log(goal / _shares([path for group in made for path in group], people))
        amplitude = (tables.amplitude + _STEP * torch.from_numpy(wrong).float()).clamp(
            -_MAX_CORRECTION, _MAX_CORRECTION
        )
        tables = replace(tables, amplitude=amplitude)
    return tables, made


def _shares(paths: list[Scanpath] | tuple[Scanpath, ...], people: People) -> NDArray[np.float64]:
    counts = metrics.amplitude_counts(paths, bin_px=people.px_per_deg / 24 * 20) + 5.0
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _score_against_people(made: list[list[Scanpath]], people: People) -> tuple[float, float, float]:
    """Return ScanMatch against people, ScanMatch among its own and the divergence of amplitudes."""
    pairs = list(zip(made, people.paths, strict=True))
    score = np.mean([metrics.mean_pairs(metrics.scanmatch(mine, theirs, people.size)).mean for mine, theirs in pairs])
    self_score = np.mean([metrics.mean_pairs(metrics.scanmatch(m, m, people.size), same=True).mean for m in made])
    counts = [
        metrics.amplitude_counts([path for group in groups for path in group], bin_px=people.px_per_deg / 24 * 20)
        for groups in (made, people.paths)
    ]
    return float(score), float(self_score), metrics.js_divergence(*counts)
