"""How likely people look where next, from what is salient and from how eyes move: a log-linear model.

The log probability of a cell is a weighted sum of what is known of it: how salient it is, how near to the centre, how
often people make saccades of that size and direction from here, whether it goes on or turns back, and when the eye was
there last. The weights are those under which the next fixations of people are most likely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim.agents.predictive_gain import cell_grid
from foveasim.geometry import grid_norm

__all__ = ["FEATURES", "MEMORY", "NEAR_DEG", "Tables", "features", "log_priority"]

FEATURES = (
    "salience",
    "salience_first",
    "salience_early",
    "centre",
    "centre_first",
    "saccade",
    "saccade_first",
    "onward",
    "collinear",
    "here",
    "back_1",
    "back_2",
    "back_3",
    "back_4",
)
"""Log salience, also at the first and at the next two choices · log centre bias, also at the first · log odds of the
saccade, also at the first · cosine of the turn and of twice the turn · nearness to the present fixation, and to those
one, two, three to five, and more before it."""

MEMORY = 16
"""Fixations that are remembered; those before are forgotten."""

NEAR_DEG = 1.5
"""Standard deviation of nearness."""

_GROUPS = ((1, 2), (2, 3), (3, 6), (6, MEMORY))


@dataclass(frozen=True)
class Tables:
    """What is known of people's eyes.

    Attributes:
        centre: (24, 32) float32, log density of fixations over the scene, mean 0.
        saccade: (47, 63) float32, log odds of the displacement (rows, columns) from the middle entry, in cells of
            ``cell_deg``, against two fixations drawn independently of each other.
        cell_deg: Degrees to a cell.
        weights: (F,) float32 by ``FEATURES``.
        duration_ms: (Q,) float32, evenly spaced quantiles of fixation durations.
    """

    centre: Tensor
    saccade: Tensor
    cell_deg: float
    weights: Tensor
    duration_ms: Tensor


def features(
    salience: Tensor, past: Tensor, count: Tensor, tables: Tables, size: tuple[int, int], short_side_deg: float
) -> Tensor:
    """Return what is known of every cell, (B, F, K) float32 by ``FEATURES``.

    Args:
        salience: (B, rows, columns) float32, log.
        past: (B, N, 2) float32 normalised: the fixations so far, the present one first, the start among them.
        count: (B,) int64, how many of them there are, at least 1.
        tables: What is known of people's eyes.
        size: (H, W) of the scene, any unit.
        short_side_deg: Visual angle of its short side.
    """
    rows, columns = cell_grid(size)
    cells = grid_norm(rows, columns)
    half = torch.tensor([size[1], size[0]]) * (short_side_deg / min(size) / 2)
    away = (cells[None, None] - past[:, :, None]) * half  # (B, N, K, 2), degrees
    known = (torch.arange(past.shape[1]) < count[:, None])[:, :, None]
    near = torch.exp(-away.square().sum(3) / (2 * NEAR_DEG**2)) * known
    first = (count == 1).float()[:, None]
    early = ((count == 2) | (count == 3)).float()[:, None]
    bright = salience.flatten(1)
    centre = F.interpolate(tables.centre[None, None], (rows, columns), mode="bilinear", align_corners=False)
    middle = centre.flatten(1).expand(len(past), -1)
    saccade = _look_up(tables, away[:, 0])
    onward, collinear = _turn(away[:, 0], past, count, half)
    back = [
        near[:, start:stop].amax(1) if past.shape[1] > start else torch.zeros_like(bright) for start, stop in _GROUPS
    ]
    found = (
        bright,
        bright * first,
        bright * early,
        middle,
        middle * first,
        saccade,
        saccade * first,
        onward,
        collinear,
        near[:, 0],
        *back,
    )
    return torch.stack(found, 1)


def _look_up(tables: Tables, away_deg: Tensor) -> Tensor:
    """Return the log odds of displacements (B, K, 2) in degrees, (B, K); beyond the table those of its edge."""
    reach = torch.tensor([(side - 1) / 2 * tables.cell_deg for side in tables.saccade.shape[::-1]])
    place = (away_deg / reach)[:, None]
    table = tables.saccade.expand(len(away_deg), 1, -1, -1)
    odds = F.grid_sample(table, place, mode="bilinear", padding_mode="border", align_corners=True)
    return odds[:, 0, 0]


def _turn(away_deg: Tensor, past: Tensor, count: Tensor, half_deg: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine of the turn from the last saccade to each place, and of twice the turn; 0 without one.

    The start at the centre is imposed, and the way from there a saccade like any other.
    """
    if past.shape[1] < 2:
        nothing = torch.zeros(away_deg.shape[:2])
        return nothing, nothing
    last = (past[:, 0] - past[:, 1]) * half_deg
    made = ((count > 1) & (last.square().sum(1) > 0.01)).float()[:, None]
    length = away_deg.norm(dim=2).clamp_min(1e-6) * last.norm(dim=1).clamp_min(1e-6)[:, None]
    cosine = (away_deg * last[:, None]).sum(2) / length * made
    # Within half a degree a direction means nothing.
    cosine = cosine * (away_deg.norm(dim=2) / 0.5).clamp_max(1)
    return cosine, (2 * cosine.square() - 1) * made


def log_priority(known: Tensor, tables: Tables, sharpness: float = 1.0) -> Tensor:
    """Return log probabilities of the cells, (B, K) float32, from :func:`features`.

    Args:
        known: (B, F, K) float32.
        tables: With weights.
        sharpness: Times the weights of salience and centre.
    """
    content = torch.tensor([name.startswith(("salience", "centre")) for name in FEATURES])
    weights = torch.where(content, sharpness * tables.weights, tables.weights)
    return torch.log_softmax((known * weights[:, None]).sum(1), 1)
