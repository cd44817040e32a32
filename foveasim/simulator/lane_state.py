"""What episodes begin with: the seeds of their lanes and where their eyes are, checked, and the draws of scenes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidValueError
from foveasim.rng import Key, Stream

__all__ = ["draw_first", "draw_further", "lane_seeds", "start_px"]


def lane_seeds(seed: int | Sequence[int] | NDArray[np.int64], which: NDArray[np.int64]) -> list[int]:
    """Return the seed of each lane that begins: ``seed + lane``, or those of a sequence.

    Raises:
        InvalidTypeError: Not whole numbers.
        InvalidValueError: Out of range, or not as many as lanes.
    """
    if isinstance(seed, int | np.integer):
        first = validation.seed_value("seed", seed, int(which[-1]) + 1)
        return [first + lane for lane in which.tolist()]
    if len(seed) != len(which):
        raise InvalidValueError(f"seed must be one number or {len(which)}, one for each lane; got {len(seed)}.")
    return [validation.seed_value("seed", one) for one in seed]


def start_px(fixation_px: Tensor, which: NDArray[np.int64], lanes: int, size: tuple[int, int]) -> Tensor:
    """Return where the eyes of the lanes that begin start, (K, 2) float32, px, of points for all, (B, 2).

    Raises:
        InvalidValueError: A wrong shape, not finite, or outside of the scene.
    """
    point = validation.points("fixation_px", fixation_px, lanes)[which]
    if not torch.equal(geometry.clamp_px(point, size), point):
        raise InvalidValueError(
            f"fixation_px must lie in the scene, x from 0 to {size[1]} and y from 0 to {size[0]} px; "
            f"got {point.tolist()}."
        )
    return point


def draw_first(keys: NDArray[np.int64] | Tensor) -> list[float]:
    """Draw one number in [0, 1) for each lane that begins, for its scene.

    Args:
        keys: (3, K) int64: seed, episode, step; of an array the kernels draw, of a tensor torch: the same numbers.
    """
    if isinstance(keys, Tensor):
        first: list[float] = Key(*keys.unbind(0)).uniform(Stream.SCENE, 1)[:, 0].tolist()
        return first
    from foveasim.eye.kernels.step import draw_uniform  # at first use: numba takes 0.4 s to import

    draws = np.empty((keys.shape[1], 1))
    draw_uniform(keys, int(Stream.SCENE), draws)
    drawn: list[float] = draws[:, 0].tolist()
    return drawn


def draw_further(keys: Tensor, lane: int, attempt: int) -> float:
    """Draw another number for one of the lanes of (3, B) keys; :func:`draw_first` was attempt 0."""
    key = Key(*keys[:, lane : lane + 1].unbind(0))
    return float(key.uniform(Stream.SCENE, attempt + 1)[0, attempt])
