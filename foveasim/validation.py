"""Validation at public doors. Every message names the argument, what was expected, what came and what to do."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError

__all__ = [
    "check_device",
    "check_lane_memory",
    "check_memory",
    "choice",
    "flag",
    "image_batch",
    "number",
    "options",
    "points",
    "seed_value",
    "size_hw",
    "torch_device",
    "whole",
]

GIB = 1 << 30
_FOR_TORCH: tuple[Literal["C", "W"], ...] = ("C", "W")  # contiguous and writeable: torch takes or warns of nothing else


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
        low: Smallest value.
        high: Largest value.
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


def flag(name: str, value: object) -> bool:
    """Return ``value`` as True or False; a number would be used as one somewhere further in.

    Raises:
        InvalidTypeError: Neither.

    Example:
        >>> flag("zoom", False)
        False
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidTypeError(f"{name} must be True or False; got {value!r} ({type(value).__name__}).")
    return bool(value)


def choice(name: str, value: object, among: Iterable[str]) -> str:
    """Return ``value``, one of some words.

    Raises:
        InvalidValueError: Another word, or no text.

    Example:
        >>> choice("start", "centre", ("centre", "random"))
        'centre'
    """
    words = tuple(among)
    if not isinstance(value, str) or value not in words:  # an array would be compared element by element
        raise InvalidValueError(f"{name} must be one of {', '.join(words)}; got {value!r}.")
    return value


def options(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``value``, options by name, as a dict; None is none of them.

    Raises:
        InvalidTypeError: No dict, or a key that is no text.

    Example:
        >>> options("retina_options", None)
        {}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidTypeError(f"{name} must be a dict of options by name, or None; got {value!r}.")
    return dict(value)


def torch_device(name: str, value: object) -> torch.device:
    """Return ``value`` as a device that is there.

    Raises:
        InvalidTypeError: Neither a name nor a device.
        InvalidValueError: An unknown one, or one that is not here.

    Example:
        >>> torch_device("device", "cpu")
        device(type='cpu')
    """
    if not isinstance(value, str | torch.device):
        raise InvalidTypeError(f"{name} must be a device such as 'cpu' or 'cuda'; got {value!r}.")
    try:
        found = torch.device(value)
        torch.zeros(1, device=found).cpu()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError, as the backend likes
        raise InvalidValueError(
            f"{name} must be a device that is there, such as 'cpu'; got {str(value)!r} "
            f"({str(error).strip().partition(chr(10))[0]})."
        ) from error
    return found


def check_memory(name: str, needed_bytes: float, remedy: str) -> None:
    """Refuse what this machine has no memory for, before it is allocated and the system ends the process.

    Args:
        name: The arguments that ask for it, for the message.
        needed_bytes: What they ask for at least.
        remedy: What to do, a sentence.

    Raises:
        InvalidValueError: More than the machine's memory.
    """
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return  # Windows does not lend what it does not have, but says so at once
    there_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed_bytes > there_bytes > 0:
        raise InvalidValueError(
            f"{name} must fit in this machine's memory of {there_bytes / GIB:.1f} GiB; got what takes at least "
            f"{needed_bytes / GIB:,.1f} GiB. {remedy}"
        )


def check_lane_memory(lanes: int, size: object) -> None:
    """Refuse more lanes (num_envs), of a size (H, W) in px, than there is memory for.

    Raises:
        InvalidTypeError: ``size`` is not a pair of whole numbers.
        InvalidValueError: A side out of range, or glimpse, its acuity and that of belief take more than there is.
    """
    height, width = size_hw("size", size)
    check_memory("num_envs (lanes) and size", 5 * lanes * height * width, "Ask for fewer lanes.")


def size_hw(name: str, value: object, minimum: int = 8, maximum: int = 16384) -> tuple[int, int]:
    """Return ``value`` as (H, W) in pixels.

    Raises:
        InvalidTypeError: Not a pair of whole numbers.
        InvalidValueError: A side shorter than ``minimum`` or longer than ``maximum``.

    Example:
        >>> size_hw("size", (96, 128))
        (96, 128)
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise InvalidTypeError(f"{name} must be a pair (H, W) of whole numbers; got {value!r}.")
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) for side in value):
        raise InvalidTypeError(f"{name} must be a pair (H, W) of whole numbers; got {value!r}.")
    height, width = int(value[0]), int(value[1])
    if not (minimum <= height <= maximum and minimum <= width <= maximum):
        raise InvalidValueError(f"{name} must have sides of {minimum} to {maximum} px; got {value!r}.")
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
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.require(value, np.float32, _FOR_TORCH))
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
    fits = isinstance(value, np.ndarray) and value.dtype == np.uint8
    tensor = torch.from_numpy(np.require(value, None, _FOR_TORCH)) if fits else value
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


def seed_value(name: str, value: object, lanes: int = 1) -> int:
    """Return ``value`` as a seed, a whole number from 0 to 2**63 - ``lanes``: lane i has ``seed + i``.

    Raises:
        InvalidTypeError: Not a whole number.
        InvalidValueError: Out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidTypeError(f"{name} must be a whole number; got {value!r} ({type(value).__name__}).")
    if not 0 <= int(value) <= 2**63 - lanes:
        raise InvalidValueError(f"{name} must be from 0 to 2**63 - {lanes}; got {value!r}.")
    return int(value)


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        InvalidValueError: Unknown to torch, or there is none of it.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InvalidValueError(f"device must be one that is there; got {device!r}. Use --device cpu.") from error
