"""Validation at public doors. Every message names the argument, what was expected, what came and what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError

__all__ = ["image_batch", "number", "points", "seed_value", "size_hw", "whole"]


def number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a finite float in a range.

    Args:
        name: The argument's name, for the message.
        value: What the caller gave.
        low: Least value.
        high: Greatest value.
        open_low: Whether ``low`` itself is refused.
        open_high: Whether ``high`` itself is refused.

    Raises:
        InvalidTypeError: Not a number.
        InvalidValueError: NaN, infinite or out of range.

    Example:
        >>> number("hidden_ratio", 0.8, 0, 1)
        0.8
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidTypeError(f"{name} must be a number; got {value!r} ({type(value).__name__}).")
    result = float(value)
    above = low < result or (result == low and not open_low)
    below = result < high or (result == high and not open_high)
    if not math.isfinite(result) or not (above and below):
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise InvalidValueError(f"{name} must be a finite number in {left}{low:g}, {high:g}{right}; got {value!r}.")
    return result


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` as a whole number in a range.

    Raises:
        InvalidTypeError: Not a whole number.
        InvalidValueError: Out of range.

    Example:
        >>> whole("levels", 6, 2, 10)
        6
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be a whole number; got {value!r} ({type(value).__name__}).")
    if not low <= int(value) <= high:
        raise InvalidValueError(f"{name} must be a whole number from {low} to {high}; got {value!r}.")
    return int(value)


def size_hw(name: str, value: object, least: int = 8, most: int = 16384) -> tuple[int, int]:
    """Return ``value`` as (H, W) in pixels.

    Raises:
        InvalidTypeError: Not a pair of whole numbers.
        InvalidValueError: A side shorter than ``least`` or longer than ``most``.

    Example:
        >>> size_hw("size", (96, 128))
        (96, 128)
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise InvalidTypeError(f"{name} must be a pair (H, W) of whole numbers; got {value!r}.")
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in value):
        raise InvalidTypeError(f"{name} must be a pair (H, W) of whole numbers; got {value!r}.")
    height, width = int(value[0]), int(value[1])
    if not (least <= height <= most and least <= width <= most):
        raise InvalidValueError(f"{name} must have sides of {least} to {most} px; got {value!r}.")
    return height, width


def points(name: str, value: object, lanes: int | None = None) -> Tensor:
    """Return ``value`` as finite points, (B, 2) float32.

    Args:
        name: The argument's name, for the message.
        value: A tensor, an array or nested sequences.
        lanes: B, where it is known.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: Wrong shape, NaN or infinite.

    Example:
        >>> points("fixation_px", [[48.5, 48.5]]).shape
        torch.Size([1, 2])
    """
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be points (B, 2) of numbers; got {value!r}.") from error
    tensor = tensor.to(torch.float32)
    expected = f"({'B' if lanes is None else lanes}, 2)"
    if tensor.ndim == 1 and tensor.shape == (2,):
        raise InvalidValueError(f"{name} must be {expected}; got (2,). Add a batch axis: {name}[None].")
    if tensor.ndim != 2 or tensor.shape[1] != 2 or (lanes is not None and tensor.shape[0] != lanes):
        raise InvalidValueError(f"{name} must be {expected}; got {tuple(tensor.shape)}.")
    if not bool(torch.isfinite(tensor).all()):
        lane = int((~torch.isfinite(tensor).all(1)).nonzero()[0, 0])
        raise InvalidValueError(f"{name} must be finite; lane {lane} is {tensor[lane].tolist()}.")
    return tensor


def image_batch(name: str, value: object) -> Tensor:
    """Return ``value`` as a contiguous image batch, (B, H, W, 3) uint8.

    Raises:
        InvalidTypeError: Not a uint8 tensor or array.
        InvalidValueError: Wrong shape.
    """
    tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype == np.uint8 else value
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.uint8:
        came = f"{type(value).__name__} of {value.dtype}" if hasattr(value, "dtype") else type(value).__name__
        raise InvalidTypeError(f"{name} must be uint8 (B, H, W, 3), 0-255; got {came}.")
    if tensor.ndim == 3 and tensor.shape[-1] == 3:
        raise InvalidValueError(
            f"{name} must be (B, H, W, 3); got {tuple(tensor.shape)}. Add a batch axis: {name}[None]."
        )
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or 0 in tensor.shape:
        hint = " Channels come last: use .permute(0, 2, 3, 1)." if tensor.ndim == 4 and tensor.shape[1] == 3 else ""
        raise InvalidValueError(f"{name} must be (B, H, W, 3); got {tuple(tensor.shape)}.{hint}")
    return tensor.contiguous()


def seed_value(name: str, value: object) -> int:
    """Return ``value`` as a seed, a whole number from 0 to 2**63 - 1.

    Raises:
        InvalidTypeError: Not a whole number.
        InvalidValueError: Out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be a whole number; got {value!r} ({type(value).__name__}).")
    if not 0 <= int(value) < 2**63:
        raise InvalidValueError(f"{name} must be from 0 to 2**63 - 1; got {value!r}.")
    return int(value)
