"""What was seen, made smaller by areas on the CPU, an eighth of the time that :func:`shrink` takes there."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["shrink_acuity", "shrink_views"]

_LEAST_SHARE = 1e-6


def shrink_views(
    image: NDArray[np.uint8], acuity: NDArray[np.uint8], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Do what :func:`foveasim.agents.mim.imagine.shrink` does, where sides are no whole multiples more exactly.

    There a pixel that lies across a border counts in full on both sides of it, here by the part on each side. 300 x 400
    px take 0.9 ms a lane instead of 4.4 to 7.

    Args:
        image: (B, H, W, 3).
        acuity: (B, H, W).
        size: (h, w), px, no larger than (H, W).

    Returns:
        (B, h, w, 3) the mean colour of the pixels seen in each area, 0 to 255, and (B, h, w) their acuity on the new
        grid times their share of the area, 0 to 1, 0 where nothing was seen.
    """
    colours = np.empty((len(image), *size, 3), np.float32)
    sharp = np.empty((len(image), *size), np.float32)
    for lane, (picture, known) in enumerate(zip(image, acuity, strict=True)):
        colour, share = picture.astype(np.float32), _seen_share(known, size)
        if share is not None:
            colour *= (known > 0)[..., None]
        sharp[lane] = _sharpness(known, share, size)
        small = _by_area(colour, size)
        colours[lane] = small if share is None else small / np.maximum(share, _LEAST_SHARE)[..., None]
    return colours, sharp


def shrink_acuity(acuity: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the second part of :func:`shrink_views` alone, (B, h, w), from (B, H, W)."""
    return np.stack([_sharpness(known, _seen_share(known, size), size) for known in acuity])


def _seen_share(known: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32] | None:
    """Return how much of each area was seen, None where all was."""
    return None if known.all() else _by_area((known > 0).astype(np.float32), size)


def _sharpness(
    known: NDArray[np.uint8], share: NDArray[np.float32] | None, size: tuple[int, int]
) -> NDArray[np.float32]:
    growth = (known.size / (size[0] * size[1])) ** 0.5 / 255
    found = growth * _by_area(known.astype(np.float32), size)
    kept: NDArray[np.float32] = np.minimum(found if share is None else found / np.maximum(share, _LEAST_SHARE), 1)
    if share is not None:
        kept *= share
        kept[kept <= _LEAST_SHARE] = 0
    return kept


def _by_area(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return found
