"""What a glimpse would add, for every place where gaze could go next.

An agent does not know its retina, and need not: the acuity of every glimpse shows it. A retina does
the same at every fixation, on the left what it does on the right, so that the acuity around the present fixation,
folded over it, is a table of what the eye would see at any distance from the next one. It fits the retina in use,
however large its fovea has just been made, and however large the scene is to the eye.

Seeing a pixel more sharply lowers the variance that a network predicts there. How far is a matter of the acuity only:

    variance left at acuity a  =  variance at acuity 0 * hidden(a),    hidden(a) = (1 - a) ** 2.5

so that a place that was seen before promises little, and inhibition of return needs no map of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim import validation
from foveasim.agents.interface import observed
from foveasim.agents.mim.resize import shrink, shrink_acuity, shrink_views
from foveasim.geometry import grid_norm, norm_to_px, pixel_index

__all__ = [
    "CELLS",
    "BeliefState",
    "at_working_size",
    "cell_grid",
    "cell_points",
    "gain_map",
    "hidden",
    "measure_acuity_table",
    "pool",
    "read_belief_state",
    "shift_acuity_table",
    "shrink_pixels",
]

WORKING_SIDE = 96
"""Short side in px at which agents think; larger scenes are averaged down to it first. Shipped networks have it."""

CELLS = 24
"""Cells along the short side of the grid of candidate fixations: 4 px at 96."""

# Squared error of ``unet`` after 1 to 8 pyramid fixations, by acuity (60 natural validation scenes): 0.0115 at 0.10,
# 0.0042 at 0.31, 0.0034 at 0.47, 0.0015 at 0.63, 0.00040 at 0.79, 0.00015 at 0.87. Exponents from 2.2 to 3.7 join them.
_HIDDEN_EXPONENT = 2.5

# Candidates times cells computed at a time, 1.6 MB: lane by lane, 32 lanes of 96 x 96 took 15 ms, eight at a time 36.
_ROOM = 400_000


@dataclass(frozen=True)
class BeliefState:
    """What an agent knows, at the size at which it thinks.

    Attributes:
        belief: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8, of the belief.
        glimpse_acuity: (B, H, W) uint8, of the present glimpse.
        fixation: (B, 2) float32 in [-1, 1].
    """

    belief: Tensor
    acuity: Tensor
    glimpse_acuity: Tensor
    fixation: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), px."""
        return self.belief.shape[1], self.belief.shape[2]


def read_belief_state(observation: Mapping[str, Any], device: torch.device) -> BeliefState:
    """Take what an agent goes by out of an observation.

    Args:
        observation: With ``belief``, ``belief_acuity``, ``acuity`` and ``fixation``.
        device: Where to compute.

    Raises:
        AgentError: A key is missing; the message says how to request it.
        InvalidTypeError: An image that is not uint8.
        InvalidValueError: An image that is not (B, H, W, 3).
    """
    belief = validation.image_batch("belief", torch.from_numpy(observed(observation, "belief"))).to(device)
    planes = [torch.from_numpy(observed(observation, key)).to(device) for key in ("belief_acuity", "acuity")]
    acuity, glimpse = (plane.reshape(belief.shape[:3]) for plane in planes)
    fixation = torch.from_numpy(observed(observation, "fixation")).to(device, torch.float32)
    return at_working_size(belief, acuity, glimpse, fixation)


def at_working_size(belief: Tensor, acuity: Tensor, glimpse: Tensor, fixation: Tensor) -> BeliefState:
    """Return what was seen at the size at which it is thought about: a short side of ``WORKING_SIDE`` px at most.

    Args:
        belief: (B, H, W, 3) uint8.
        acuity: (B, H, W) uint8, that of belief.
        glimpse: (B, H, W) uint8, that of the present glimpse.
        fixation: (B, 2) float32.
    """
    height, width = belief.shape[1:3]
    scale = WORKING_SIDE / min(height, width)
    if scale < 1:
        size = round(height * scale), round(width * scale)
        glimpse = _shrink_acuity(glimpse, size)
        belief, acuity = _shrink_seen(belief, acuity, size)
    return BeliefState(belief, acuity, glimpse, fixation)


def _shrink_seen(image: Tensor, acuity: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Do what :func:`foveasim.agents.mim.resize.shrink` does for uint8 (B, H, W, 3) and (B, H, W)."""
    if image.device.type == "cpu":
        colour, known = (torch.from_numpy(part) for part in shrink_views(image.numpy(), acuity.numpy(), size))
    else:
        planes, known = shrink(image.permute(0, 3, 1, 2).float(), acuity[:, None].float() / 255, size)
        colour, known = planes.permute(0, 2, 3, 1), known[:, 0]
    return colour.round().clamp(0, 255).to(torch.uint8).contiguous(), (255 * known).round().to(torch.uint8)


def _shrink_acuity(acuity: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the second part of :func:`_shrink_seen` alone."""
    if acuity.device.type == "cpu":
        known = torch.from_numpy(shrink_acuity(acuity.numpy(), size))
    else:
        plane = acuity[:, None].float() / 255
        known = shrink(torch.zeros_like(plane).expand(-1, 3, -1, -1), plane, size)[1][:, 0]
    return (255 * known).round().to(torch.uint8)


def shrink_pixels(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink a (B, H, W, 3) uint8 image of which everything is known by areas; at its own size it stays as it is."""
    if image.shape[1:3] == size:
        return image
    return _shrink_seen(image, torch.full_like(image[..., 0], 255), size)[0]


def hidden(acuity: Tensor) -> Tensor:
    """Return the share of the variance that is left where something was seen with an acuity in [0, 1], float32.

    Example:
        >>> hidden(torch.tensor([0.0, 0.75, 1.0])).tolist()
        [1.0, 0.03125, 0.0]
    """
    return (1 - acuity).clamp_min(0) ** _HIDDEN_EXPONENT


def measure_acuity_table(acuity: Tensor, fixation: Tensor) -> Tensor:
    """Tabulate the acuity of a glimpse by the distance from the fixated pixel.

    What lies above and below, left and right of the fixation is averaged. Distances that the glimpse does not reach
    have the acuity of the greatest that it does.

    Args:
        acuity: (B, H, W) uint8, of one glimpse.
        fixation: (B, 2) float32 in [-1, 1], where it was taken.

    Returns:
        (B, H, W) float32 in [0, 1], by (|dy|, |dx|) in px.

    Example:
        >>> row = torch.tensor([[[0, 200, 255, 200]]], dtype=torch.uint8)  # the second pixel of four from the right
        >>> (255 * measure_acuity_table(row, torch.tensor([[0.25, 0.0]]))).round().tolist()
        [[[255.0, 200.0, 0.0, 0.0]]]
    """
    size = (acuity.shape[1], acuity.shape[2])
    column, row = pixel_index(norm_to_px(fixation, size), size).unbind(1)
    down = _fold(acuity.float() / 255, row)
    return _fold(down.transpose(1, 2), column).transpose(1, 2).contiguous()


def _fold(values: Tensor, centre: Tensor) -> Tensor:
    """Average (B, N, M) at equal distances from an index (B,) of its middle axis, by distance 0 to N - 1."""
    extent = values.shape[1]
    reach = torch.maximum(centre, extent - 1 - centre)[:, None]
    distance = torch.minimum(torch.arange(extent, device=values.device), reach)
    total, count = torch.zeros_like(values), torch.zeros_like(values[:, :, :1])
    for index in (centre[:, None] + distance, centre[:, None] - distance):
        inside = ((index >= 0) & (index < extent)).float()[:, :, None]
        total += inside * values.gather(1, index.clamp(0, extent - 1)[:, :, None].expand_as(values))
        count += inside
    return total / count


def shift_acuity_table(table: Tensor, points: Tensor) -> Tensor:
    """Return the acuity of the glimpses that the eye would take at other fixations.

    Args:
        table: (B, H, W) float, from :func:`measure_acuity_table`.
        points: (B, K, 2) float32 in [-1, 1].

    Returns:
        (B, K, H, W) uint8.
    """
    lanes, height, width = table.shape
    column, row = pixel_index(norm_to_px(points, (height, width)), (height, width)).unbind(2)
    down = (torch.arange(height, device=table.device) - row[:, :, None]).abs()
    across = (torch.arange(width, device=table.device) - column[:, :, None]).abs()
    lane = torch.arange(lanes, device=table.device)[:, None, None, None]
    return (255 * table).round().to(torch.uint8)[lane, down[:, :, :, None], across[:, :, None, :]]


def cell_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the candidate fixations of a scene of (H, W) px.

    Example:
        >>> cell_grid((96, 128))
        (24, 32)
    """
    short = min(size)
    cells = min(CELLS, short)
    return round(size[0] * cells / short), round(size[1] * cells / short)


def cell_points(size: tuple[int, int], device: torch.device) -> Tensor:
    """Return the middles of the cells of :func:`cell_grid`, row by row, (K, 2) float32 in [-1, 1]."""
    return grid_norm(*cell_grid(size)).to(device)


def pool(values: Tensor) -> Tensor:
    """Average (B, H, W) float over the cells of :func:`cell_grid`, (B, rows, columns)."""
    return F.adaptive_avg_pool2d(values, cell_grid((values.shape[1], values.shape[2])))


def gain_map(variance: Tensor, acuity: Tensor, table: Tensor, *, at_acuity: bool = True) -> Tensor:
    """Return the variance that a glimpse at each cell would remove: the sum over the scene.

    A pixel seen with acuity b, of which a glimpse would show f, loses ``variance * (1 - hidden(f) / hidden(b))`` where
    f > b, and nothing elsewhere.

    Args:
        variance: (B, H, W) float, 0 or more, what is left at the present acuity; or what there would be at acuity 0.
        acuity: (B, H, W) uint8, of the belief.
        table: (B, H, W) float, from :func:`measure_acuity_table`.
        at_acuity: Whether it is the former.

    Returns:
        (B, rows, columns) float32 over the cells of :func:`cell_grid`; exact for what is equal throughout a cell.
    """
    size = (variance.shape[1], variance.shape[2])
    left = pool(hidden(acuity.float() / 255))
    weight = pool(variance)
    if at_acuity:
        weight = torch.where(left > 0, weight / left.clamp_min(1e-6), 0.0)
    rows, columns = cell_grid(size)
    down, across = (_distance_bins(*axis).to(table.device) for axis in zip(size, (rows, columns), strict=True))
    quadrant = down @ hidden(table) @ across.T
    half = torch.cat((quadrant[:, 1:].flip(1), quadrant), 1)
    signed = torch.cat((half[:, :, 1:].flip(2), half), 2)
    maps, many = [], max(1, _ROOM // (rows * columns) ** 2)
    for start in range(0, len(variance), many):
        part = slice(start, start + many)
        # Window (i, j) is what the eye would leave hidden from the cell as far from the last as i, j is from the first.
        would = signed[part].unfold(1, rows, 1).unfold(2, columns, 1)
        removed = (left[part, None, None] - would).clamp_min_(0)
        found = removed.flatten(1, 2).flatten(2) @ weight[part].flatten(1)[:, :, None]
        maps.append(found.reshape(-1, rows, columns).flip(1, 2))
    return torch.cat(maps)


@lru_cache(maxsize=32)
def _distance_bins(extent: int, cells: int) -> Tensor:
    """Return how to average a table by distance in px, 0 to extent - 1, over cells: (cells, extent) float32.

    Cell i lies around the distance i times its side; that at 0 reaches to both sides.
    """
    side = extent / cells
    pixel = torch.arange(extent, dtype=torch.float64)
    cell = side * torch.arange(cells, dtype=torch.float64)[:, None]
    shares = torch.zeros(cells, extent, dtype=torch.float64)
    for signed in (pixel, -pixel[1:]):
        low = torch.maximum(signed - 0.5, cell - side / 2)
        high = torch.minimum(signed + 0.5, cell + side / 2)
        shares[:, extent - len(signed) :] += (high - low).clamp_min(0)
    return (shares / shares.sum(1, keepdim=True)).float()
