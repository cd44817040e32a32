"""What the options of ``reset`` mean."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.picture import Picture
from foveasim.scenes.source import open_scenes

__all__ = ["chosen_lanes", "is_indices", "one_picture", "scene_index", "scene_indices", "start_px"]


def chosen_lanes(mask: object, lanes: int) -> NDArray[np.bool_]:
    """Return which lanes begin anew, (B,) bool: those of ``reset_mask``.

    Raises:
        InvalidTypeError: Not a bool array.
        InvalidValueError: Of the wrong length, or it marks no lane.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise InvalidTypeError(f"options['reset_mask'] must be a bool array ({lanes},); got {mask!r}.")
    if mask.shape != (lanes,) or not mask.any():
        raise InvalidValueError(f"options['reset_mask'] must mark at least one of {lanes} lanes; got {mask}.")
    return mask


def start_px(fixation: object, lanes: int, size: tuple[int, int]) -> Tensor:
    """Return where the eyes start, (B, 2) float32, px, from one normalised point (x, y) or one for each lane.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: Of the wrong shape, NaN, or outside of the scene.
    """
    try:
        with np.errstate(over="ignore"):  # too large becomes infinite, which is refused below
            point = np.asarray(fixation, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"options['fixation'] must be (x, y), normalised; got {fixation!r}.") from error
    point = np.broadcast_to(point, (lanes, 2)) if point.shape == (2,) else point
    norm = validation.points("options['fixation']", point.copy(), lanes)
    if not bool((norm.abs() <= 1).all()):
        raise InvalidValueError(
            f"options['fixation'] must be normalised, each of (x, y) in [-1, 1]; got {norm.tolist()}. "
            "Convert pixels with foveasim.geometry.px_to_norm."
        )
    return geometry.norm_to_px(norm, size)


def scene_index(index: int, count: int) -> int:
    """Return an index into the scenes.

    Raises:
        InvalidValueError: Out of range.
    """
    if not 0 <= index < count:
        raise InvalidValueError(f"options['scene'] must be from 0 to {count - 1}; got {index}.")
    return index


def is_indices(scene: object) -> TypeGuard[NDArray[np.integer]]:
    """Whether these are indices into the scenes, one for each lane, rather than an image."""
    return isinstance(scene, np.ndarray) and scene.ndim == 1 and np.issubdtype(scene.dtype, np.integer)


def scene_indices(index: NDArray[np.integer], lanes: int, count: int) -> NDArray[np.int64]:
    """Return indices into the scenes, (B,).

    Raises:
        InvalidValueError: Not one for each lane, or out of range.
    """
    if len(index) != lanes:
        raise InvalidValueError(f"options['scene'] must be one index, or one for each of {lanes} lanes; got {index}.")
    return np.array([scene_index(int(one), count) for one in index], np.int64)


def one_picture(scene: object) -> Picture:
    """Return the one picture of a path or an image.

    Raises:
        InvalidValueError: It holds several scenes, or one that moves.
        SceneError: It cannot be read.
    """
    source = open_scenes(scene)
    if source.moving or len(source) != 1:
        raise InvalidValueError(
            f"options['scene'] must be one still image or an index; got {len(source)} scenes"
            f"{' that move' if source.moving else ''}. Give a folder or a video as scenes= when you make the env."
        )
    return source.picture(0)
