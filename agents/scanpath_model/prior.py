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

from foveasim.agents.mim.expected_gain import cell_grid
from foveasim.agents.scanpath_model.network import EARLY
from foveasim.geometry import grid_norm

__all__ = [
    "AMPLITUDE_DEG",
    "FEATURES",
    "MEMORY",
    "NEAR_DEG",
    "SamplingParameters",
    "Tables",
    "draw_points",
    "features",
    "log_priority",
]

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
    "amplitude",
)
"""Log salience, also at the first and at the next two choices · log centre bias, also at the first · log odds of the
saccade, also at the first · cosine of the turn and of twice the turn · nearness to the present fixation, and to those
one, two, three to five, and more before it · a correction by the size of the saccade, for draws only."""

MEMORY = 16
"""Fixations that are remembered; those before are forgotten."""

NEAR_DEG = 1.5
"""Standard deviation of nearness."""

AMPLITUDE_DEG = 20 / 24
"""Width of a bin of the correction by amplitude, of 30: those of :func:`foveasim.metrics.amplitude_counts` on OSIE."""

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
        amplitude: (A,) float32, added to the log probability of saccades in bins of ``AMPLITUDE_DEG`` when one is
            drawn, so that those drawn are distributed as people's; the last bin is open.
        duration_ms: (Q,) float32, evenly spaced quantiles of fixation durations.
    """

    centre: Tensor
    saccade: Tensor
    cell_deg: float
    weights: Tensor
    amplitude: Tensor
    duration_ms: Tensor


@dataclass(frozen=True, eq=False)
class SamplingParameters:
    """How fixations are drawn by an agent that sees belief, or by one that sees the scene.

    Attributes:
        weights: (F,) float32 by ``FEATURES``.
        amplitude: (A,) float32, see :class:`Tables`.
        sharpness: See :func:`log_priority`.
    """

    weights: Tensor
    amplitude: Tensor
    sharpness: float


def features(
    salience: Tensor, past: Tensor, count: Tensor, tables: Tables, size: tuple[int, int], short_side_deg: float
) -> Tensor:
    """Return what is known of every cell, (B, F, K) float32 by ``FEATURES``.

    Args:
        salience: (B, 2, rows, columns) float32, log: of the first ``EARLY`` fixations, and of later ones.
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
    bright = torch.where((count <= EARLY)[:, None], salience[:, 0].flatten(1), salience[:, 1].flatten(1))
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
        tables.amplitude[(away[:, 0].norm(dim=2) / AMPLITUDE_DEG).long().clamp_max(len(tables.amplitude) - 1)],
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


def log_priority(known: Tensor, tables: Tables, sharpness: float | None = None) -> Tensor:
    """Return log probabilities of the cells, (B, K) float32, from :func:`features`.

    Args:
        known: (B, F, K) float32.
        tables: With weights.
        sharpness: To draw by: times the weights of salience and centre, and with the correction by amplitude. None is
            what is most likely of people.
    """
    if sharpness is None:
        shares = [float(name != "amplitude") for name in FEATURES]
    else:
        shares = [sharpness if name.startswith(("salience", "centre")) else 1.0 for name in FEATURES]
    return torch.log_softmax((known * (torch.tensor(shares) * tables.weights)[:, None]).sum(1), 1)


def draw_points(likely: Tensor, drawn: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return fixations drawn from log probabilities of cells, anywhere within the cells, (B, 2) float32 in [-1, 1].

    Args:
        likely: (B, K) float32 log probabilities.
        drawn: (B, 3) float64 in [0, 1): for the cell, and for x and y within it.
        grid: (rows, columns), K cells.
    """
    share = likely.double().exp().cumsum(1)
    place = torch.searchsorted(share, drawn[:, :1] * share[:, -1:], right=True).clamp_max(share.shape[1] - 1)[:, 0]
    rows, columns = grid
    inside = (drawn[:, 1:3] - 0.5) * (2 / torch.tensor([columns, rows]))
    return (grid_norm(rows, columns)[place] + inside).clamp(-1, 1).float()
