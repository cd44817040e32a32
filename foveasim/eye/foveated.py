"""From a picture in memory to what an eye sees of it, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.geometry import MIN_SIDE_PX, resolution
from foveasim.rng import Key
from foveasim.types import Scene

__all__ = ["as_scene", "foveate"]


def as_scene(image: NDArray[np.uint8] | Tensor, px_per_deg: float | None = None) -> Scene:
    """Put images before an eye.

    Args:
        image: (B, H, W, 3) uint8.
        px_per_deg: Pixels for one degree of visual angle; None makes the short side span 27.4 degrees.

    Returns:
        The scenes of B lanes: still images of an unknown class, without names.

    Example:
        >>> as_scene(np.zeros((1, 96, 128, 3), np.uint8)).px_per_deg
        tensor([3.5000])
    """
    tensor = torch.as_tensor(image).contiguous()
    lanes, device = len(tensor), tensor.device
    return Scene(
        image=tensor,
        label=torch.full((lanes,), -1, dtype=torch.int64, device=device),
        px_per_deg=torch.full((lanes,), resolution(px_per_deg, (tensor.shape[1], tensor.shape[2])), device=device),
        name=("",) * lanes,
        time_ms=torch.zeros(lanes, dtype=torch.float64, device=device),
    )


@overload
def foveate(
    image: NDArray[Any],
    fixation_px: object,
    retina: str | Retina = ...,
    px_per_deg: float | None = ...,
    *,
    retina_options: Mapping[str, object] | None = ...,
    seed: int = ...,
) -> NDArray[Any]: ...


@overload
def foveate(
    image: Tensor,
    fixation_px: object,
    retina: str | Retina = ...,
    px_per_deg: float | None = ...,
    *,
    retina_options: Mapping[str, object] | None = ...,
    seed: int = ...,
) -> Tensor: ...


def foveate(
    image: NDArray[Any] | Tensor,
    fixation_px: object,
    retina: str | Retina = "pyramid",
    px_per_deg: float | None = None,
    *,
    retina_options: Mapping[str, object] | None = None,
    seed: int = 0,
) -> NDArray[Any] | Tensor:
    """Show what an eye sees of a picture.

    Convention:
        Channels come last, in tensors too: one picture is (H, W, 3), a batch is (B, H, W, 3), sRGB. Grey pictures are
        refused rather than guessed: give them three channels, ``np.stack([grey] * 3, -1)``. Whole numbers are uint8, 0
        to 255; floats lie in [0, 1], and are rounded to the 256 levels of uint8 on the way. A fixation is (x, y) in px,
        x right, y down, pixel centres at +0.5: in a picture of 480 x 640 the middle is (320, 240), that of the first
        pixel (0.5, 0.5).

    Args:
        image: One picture or a batch, an array or a tensor on any device. It is left as it is, and no gradient flows.
        fixation_px: (2,) for one picture, (B, 2) for a batch. Gaze beyond the edge stops at the edge.
        retina: A name of a retina, ``package.module:Class``, or a :class:`~foveasim.eye.retina.Retina`.
        px_per_deg: Pixels for one degree of visual angle, the same for all pictures: how large they are to the eye.
            None, where nobody knows, makes the short side span 27.4 degrees, as for scenes.
        retina_options: Options of the retina, such as ``{"hidden_ratio": 0.8}`` of ``disc``.
        seed: Of retinas that draw random numbers; picture i has ``seed + i``.

    Returns:
        The view: shape, dtype, library and device of ``image``.

    Raises:
        InvalidTypeError: ``image`` is no array or tensor of uint8 or floats, or an option of a wrong type.
        InvalidValueError: A wrong shape, floats outside [0, 1], NaN, or an option out of range.
        UnknownNameError: No retina of that name.

    Example:
        >>> picture = np.random.default_rng(0).random((48, 64, 3))
        >>> seen = foveate(picture, (10.5, 20.5), "disc", retina_options={"hidden_ratio": 0.9})
        >>> seen.shape, bool(np.abs(seen - picture)[20, 10].max() <= 0.5 / 255)
        ((48, 64, 3), True)
    """
    made = make_retina(retina, **validation.options("retina_options", retina_options))
    levels = _levels(image.detach() if isinstance(image, Tensor) else image)
    batch = levels if levels.ndim == 4 else levels[None]
    points = _points(fixation_px, None if levels.ndim == 3 else len(batch))
    first = validation.seed_value("seed", seed, len(batch))
    key = Key.of(first, len(batch), device=batch.device) if made.needs_key else None
    with torch.no_grad():
        seen = made(as_scene(batch, px_per_deg), points, key).image
    view = seen if levels.ndim == 4 else seen[0]
    if isinstance(image, Tensor):
        wide = torch.promote_types(image.dtype, torch.float32)
        return (view.to(wide) / 255).to(image.dtype) if image.is_floating_point() else view
    array: NDArray[Any] = view.numpy()
    return array if image.dtype == np.uint8 else (array / 255).astype(image.dtype)


def _levels(image: object) -> Tensor:
    """Return (H, W, 3) or (B, H, W, 3) uint8, on the device of ``image``."""
    if not isinstance(image, np.ndarray | Tensor):
        raise InvalidTypeError(
            f"image must be an array or a tensor, (H, W, 3) or (B, H, W, 3); got {type(image).__name__}. "
            "Convert it: np.asarray(image)."
        )
    floats = image.is_floating_point() if isinstance(image, Tensor) else np.issubdtype(image.dtype, np.floating)
    if not floats and image.dtype != (torch.uint8 if isinstance(image, Tensor) else np.uint8):
        raise InvalidTypeError(f"image must be uint8, 0 to 255, or floats, 0 to 1; got {image.dtype}. Convert it.")
    shape = tuple(image.shape)
    if image.ndim not in (3, 4) or shape[-1] != 3 or shape[0] == 0 or min(shape[-3:-1]) < MIN_SIDE_PX:
        raise InvalidValueError(
            f"image must be (H, W, 3) or (B, H, W, 3), with sides of at least {MIN_SIDE_PX} px; got {shape}."
            f"{_shape_remedy(shape, 'torch' if isinstance(image, Tensor) else 'np')}"
        )
    if floats:
        low, high = float(image.min()), float(image.max())  # NaN, where there is one
        if not (low >= 0 and high <= 1):
            raise InvalidValueError(
                f"image must lie in [0, 1] where it is {image.dtype}; got values from {low:g} to {high:g}. "
                f"{'Fill what is missing.' if low != low else 'Scale it, or give uint8 from 0 to 255.'}"
            )
    if isinstance(image, Tensor):
        return (image.to(torch.float32) * 255).round().to(torch.uint8) if floats else image
    # A copy where torch cannot take the array: flipped, or not to be written to, as np.asarray makes of Pillow's
    array = np.rint(image * 255.0).astype(np.uint8) if floats else image
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _shape_remedy(shape: tuple[int, ...], library: str) -> str:
    if len(shape) in (3, 4) and shape[-3] == 3:
        return f" Channels come last: {library}.moveaxis(image, -3, -1)."
    if len(shape) == 2:
        return f" Give grey three channels: {library}.stack([image] * 3, -1)."
    if len(shape) in (3, 4) and shape[-1] == 1:
        return f" Give grey three channels: {library}.concatenate([image] * 3, -1)."
    return " Leave out what is not red, green or blue: image[..., :3]." if shape[-1:] == (4,) else ""


def _points(fixation_px: object, lanes: int | None) -> Tensor:
    """Return (B, 2) float32, of one picture (1, 2), with errors in terms of what was given."""
    try:
        given = fixation_px if isinstance(fixation_px, Tensor) else np.asarray(fixation_px)
    except ValueError:  # rows of different lengths
        return validation.points("fixation_px", fixation_px, lanes)
    shape = tuple(given.shape)
    if lanes is None:
        if shape != (2,):
            remedy = "Take its row, fixation_px[0]" if shape == (1, 2) else "Give one point"
            raise InvalidValueError(
                f"fixation_px must be (2,), (x, y), for one picture; got {shape}. {remedy}, or give several pictures."
            )
        return validation.points("fixation_px", given[None], 1)
    if shape == (2,) and lanes > 1:
        raise InvalidValueError(
            f"fixation_px must be ({lanes}, 2), one for each picture; got (2,). "
            f"Repeat it: np.tile(fixation_px, ({lanes}, 1))."
        )
    return validation.points("fixation_px", given, lanes)
