"""What episodes begin with, checked: the seeds of their lanes and where their eyes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check, geometry
from foveasim.errors import InvalidValueError

__all__ = ["lane_seeds", "start_px"]


def lane_seeds(seed: int | Sequence[int] | NDArray[np.int64], which: NDArray[np.int64]) -> list[int]:
    """Return the seed of each lane that begins: ``seed + lane``, or those of a sequence.

    Raises:
        InvalidTypeError: Not whole numbers.
        InvalidValueError: Out of range, or not as many as lanes.
    """
    if isinstance(seed, int | np.integer):
        first = check.seed_value("seed", seed)
        return [first + lane for lane in which.tolist()]
    if len(seed) != len(which):
        raise InvalidValueError(f"seed must be one number or {len(which)}, one for each lane; got {len(seed)}.")
    return [check.seed_value("seed", one) for one in seed]


def start_px(fixation_px: Tensor, which: NDArray[np.int64], lanes: int, size: tuple[int, int]) -> Tensor:
    """Return where the eyes of the lanes that begin start, (K, 2) float32, px, of points for all, (B, 2).

    Raises:
        InvalidValueError: A wrong shape, not finite, or outside of the scene.
    """
    point = check.points("fixation_px", fixation_px, lanes)[which]
    if not torch.equal(geometry.clamp_px(point, size), point):
        raise InvalidValueError(
            f"fixation_px must lie in the scene, x from 0 to {size[1]} and y from 0 to {size[0]} px; "
            f"got {point.tolist()}."
        )
    return point
