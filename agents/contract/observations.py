"""Observations to try an agent on, made without an env: seeded scenes of patches, seen through a disc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveasim.scenes.search import TARGET_SIDE_PX

__all__ = ["PATCH_SHAPE", "make_synthetic_observations"]

PATCH_SHAPE = (12, 12, 12)
"""(h, w, 3 S) of ``patch`` for agents that do not say: that of the retina ``multiscale``."""


def make_synthetic_observations(
    lanes: int,
    steps: int,
    *,
    size: tuple[int, int] = (96, 96),
    needs: Sequence[str] = (),
    patch_shape: tuple[int, int, int] = PATCH_SHAPE,
    seed: int = 0,
) -> list[dict[str, NDArray[Any]]]:
    """Make the observations of one episode, with fixations of their own whatever the agent answers.

    Args:
        lanes: B; every lane sees another scene.
        steps: How many observations.
        size: (H, W) in px.
        needs: Extra keys, as an agent declares them.
        patch_shape: (h, w, 3 S) of ``patch``, where it is needed.
        seed: Another seed, other scenes and fixations.

    Returns:
        Observations as an env gives them, with ``belief`` and ``belief_acuity``, ``scene``, ``patch`` or ``target``
        where asked for. The receptors of ``patch`` are nested squares around the fixation, each twice as wide as the
        one before, read at the nearest pixel.

    Example:
        >>> sorted(make_synthetic_observations(2, 1, size=(32, 48))[0])
        ['acuity', 'fixation', 'glimpse', 'time']
    """
    draws = np.random.default_rng(seed)
    height, width = size
    scene = np.stack([_patchwork(draws, height, width) for _ in range(lanes)])
    belief = np.full_like(scene, 127)
    belief_acuity = np.zeros((lanes, height, width), np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    observations: list[dict[str, NDArray[Any]]] = []
    for step in range(steps):
        fixation = draws.uniform(-1, 1, (lanes, 2)).astype(np.float32)
        centre = (fixation + 1) * np.array([width, height]) / 2
        distance = np.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None])
        acuity = np.where(distance < min(size) / 4, 255, 0).astype(np.uint8)
        glimpse = np.where(acuity[..., None] > 0, scene, 127).astype(np.uint8)
        belief = np.where(acuity[..., None] > 0, scene, belief).astype(np.uint8)
        belief_acuity = np.maximum(belief_acuity, acuity)
        time = np.full((lanes, 1), 1 - step / steps, np.float32)
        observation: dict[str, NDArray[Any]] = {
            "glimpse": glimpse,
            "acuity": acuity[..., None],
            "fixation": fixation,
            "time": time,
        }
        if "belief" in needs:
            observation |= {"belief": belief.copy(), "belief_acuity": belief_acuity[..., None].copy()}
        if "scene" in needs:
            observation["scene"] = scene.copy()
        if "patch" in needs:
            observation["patch"] = _patch(scene, centre, patch_shape)
        if "target" in needs:
            observation["target"] = _target(scene)
        observations.append(observation)
    return observations


def _patch(scene: NDArray[np.uint8], centre_px: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    rows, cols, channels = shape
    lane = np.arange(len(scene))[:, None, None]
    squares = []
    for scale in range(channels // 3):
        y = centre_px[:, 1, None] + (np.arange(rows) - (rows - 1) / 2) * 2**scale
        x = centre_px[:, 0, None] + (np.arange(cols) - (cols - 1) / 2) * 2**scale
        row = np.clip(y.astype(np.int64), 0, scene.shape[1] - 1)
        col = np.clip(x.astype(np.int64), 0, scene.shape[2] - 1)
        squares.append(scene[lane, row[:, :, None], col[:, None, :]])
    return np.concatenate(squares, 3)


def _target(scene: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a corner of each scene on grey."""
    target = np.full((len(scene), TARGET_SIDE_PX, TARGET_SIDE_PX, 3), 128, np.uint8)
    item = scene[:, :12, :12]
    first = (TARGET_SIDE_PX - 12) // 2
    target[:, first : first + item.shape[1], first : first + item.shape[2]] = item
    return target


def _patchwork(draws: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    image = np.empty((height, width, 3))
    image[:] = draws.integers(0, 256, 3)
    for _ in range(12):
        top, left = draws.integers(0, height), draws.integers(0, width)
        image[top : top + draws.integers(2, height), left : left + draws.integers(2, width)] = draws.integers(0, 256, 3)
    return np.clip(image + draws.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
