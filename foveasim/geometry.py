"""The only place that converts between pixels, degrees of visual angle and normalised scene coordinates.

Convention:
    Points are (x, y), x right, y down; sizes are (H, W). In px the left edge of a scene is x = 0, its right edge x = W,
    and the middle of the first pixel x = 0.5. Normalised, the same edges are -1 and 1:

    ======================  ======================  ==================
    of a 96 x 128 scene      px                      normalised
    ======================  ======================  ==================
    top-left corner         (0, 0)                  (-1, -1)
    middle of first pixel   (0.5, 0.5)              (-0.9922, -0.9896)
    centre                  (64, 48)                (0, 0)
    bottom-right corner     (128, 96)               (1, 1)
    ======================  ======================  ==================

    Degrees are px / px_per_deg: the small-angle form that eye-tracking toolboxes use for screens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from foveasim import validation

__all__ = [
    "DEFAULT_SHORT_SIDE_DEG",
    "MIN_SIDE_PX",
    "centre_px",
    "clamp_px",
    "default_px_per_deg",
    "distance_deg",
    "grid_norm",
    "norm_to_px",
    "pixel_index",
    "px_to_norm",
    "rescale_px",
    "resolution",
]

MIN_SIDE_PX = 8
"""Shortest side of a picture: below it there is nothing to foveate."""

DEFAULT_SHORT_SIDE_DEG = 96 / 3.5
"""Visual angle of a scene's short side by default: 96 px at 3.5 px/deg (Weiler et al. 2024, fovea
filter)."""


def _extent(size: tuple[int, int], like: Tensor) -> Tensor:
    return torch.tensor([size[1], size[0]], dtype=like.dtype, device=like.device)


def norm_to_px(point_norm: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert normalised points to pixels.

    Args:
        point_norm: (..., 2) float, -1 to 1 inside the scene.
        size: (H, W) of the scene in px.

    Returns:
        (..., 2), px.

    Example:
        >>> norm_to_px(torch.tensor([0.0, 0.0]), (96, 128)).tolist()
        [64.0, 48.0]
    """
    return (point_norm + 1) * (_extent(size, point_norm) / 2)


def px_to_norm(point_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Convert pixels to normalised points; the inverse of :func:`norm_to_px`."""
    return point_px * (2 / _extent(size, point_px)) - 1


def rescale_px(point_px: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Carry points over to the same scene at another size."""
    return point_px * (_extent(new_size, point_px) / _extent(size, point_px))


def centre_px(size: tuple[int, int], lanes: int = 1) -> Tensor:
    """Return the centre of a scene, (lanes, 2) float32, px."""
    return torch.tensor([[size[1] / 2, size[0] / 2]], dtype=torch.float32).expand(lanes, 2).clone()


def clamp_px(point_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Hold points inside the scene: gaze stops at its edge."""
    # Numbers, not a tensor made of them: to bring that to a device waits for the device.
    return torch.stack((point_px[..., 0].clamp(0, size[1]), point_px[..., 1].clamp(0, size[0])), -1)


def pixel_index(point_px: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pixel in which each point lies.

    Args:
        point_px: (..., 2) float, px. Points on or beyond the right and lower edge belong to the last pixel.
        size: (H, W) of the scene in px.

    Returns:
        (..., 2) int64, (column, row).

    Example:
        >>> pixel_index(torch.tensor([0.99, 96.0]), (96, 96)).tolist()
        [0, 95]
    """
    index = point_px.floor().to(torch.int64)
    return torch.stack((index[..., 0].clamp(0, size[1] - 1), index[..., 1].clamp(0, size[0] - 1)), -1)


def distance_deg(a_px: Tensor, b_px: Tensor, px_per_deg: Tensor | float) -> Tensor:
    """Return the distance between points (..., 2) in degrees of visual angle."""
    distance: Tensor = torch.linalg.vector_norm(a_px - b_px, dim=-1)
    return distance / px_per_deg


def default_px_per_deg(size: tuple[int, int]) -> float:
    """Return px_per_deg of a scene whose viewing distance is unknown: its short side spans 27.4 degrees.

    Example:
        >>> default_px_per_deg((96, 128))
        3.5
    """
    return min(size) / DEFAULT_SHORT_SIDE_DEG


def resolution(px_per_deg: float | None, size: tuple[int, int]) -> float:
    """Return ``px_per_deg``, or where it is None that of a short side of 27.4 degrees (:data:`DEFAULT_SHORT_SIDE_DEG`).

    Raises:
        InvalidTypeError: Not a number.
        InvalidValueError: Not from 0.001 to 1e6; beyond, times and places would not stay finite in float32.
    """
    if px_per_deg is None:
        return default_px_per_deg(size)
    return validation.number("px_per_deg", px_per_deg, 1e-3, 1e6)


def grid_norm(rows: int, cols: int) -> Tensor:
    """Return the cell centres of a grid over the scene, row by row, (rows * cols, 2) float32, normalised.

    Example:
        >>> grid_norm(1, 2).tolist()
        [[-0.5, 0.0], [0.5, 0.0]]
    """
    y = (torch.arange(rows, dtype=torch.float32) + 0.5) * 2 / rows - 1
    x = (torch.arange(cols, dtype=torch.float32) + 0.5) * 2 / cols - 1
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x.flatten(), grid_y.flatten()), 1)
