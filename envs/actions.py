"""What an action means: the action space of each mode, and the way from an action to a target in pixels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.errors import InvalidTypeError, InvalidValueError

__all__ = ["ACTION_MODES", "ZOOMS", "ActionCode", "GazeCommand"]

ACTION_MODES = ("absolute", "relative", "grid")
ZOOMS = (0.5, 1.0, 2.0)
"""Zooms of the grid's second choice. The zoom axis of the other modes runs continuously from the last to the first."""


class GazeCommand(NamedTuple):
    """What the actions of B lanes request.

    Attributes:
        target_px: (B, 2) float32; it may lie outside of the scene where the mode is relative.
        zoom: (B,) float32, or None without a zoom axis.
        stop: (B,) bool, or None without a stop action.
    """

    target_px: Any
    zoom: Any
    stop: Any


@dataclass(frozen=True)
class ActionCode:
    """The actions of an env.

    Attributes:
        mode: "absolute": the next fixation in normalised scene coordinates, (-1, -1) the top-left corner, (1, 1) the
            bottom-right. "relative": the displacement from the fixation in the same units, so (1, 0) is half the
            scene's width to the right. "grid": the number of a cell, row by row.
        grid: (rows, columns) of the grid mode.
        zoom: Whether there is a zoom axis: -1 to 1 doubles to halves every length of the retina (0 leaves it as it
            is); in grid mode one of ``ZOOMS``.
        stop: Whether there is a stop action: a last axis above 0; in grid mode the cell after the last one.
    """

    mode: str = "absolute"
    grid: tuple[int, int] = (8, 8)
    zoom: bool = False
    stop: bool = False

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An unknown mode or an empty grid.
        """
        validation.choice("action_mode", self.mode, ACTION_MODES)
        validation.flag("zoom", self.zoom)
        validation.flag("stop", self.stop)
        validation.size_hw("grid", self.grid, 1, 256)

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return self.grid[0] * self.grid[1]

    @functools.cached_property
    def _shape(self) -> tuple[int, ...]:
        if self.mode == "grid":
            return (2,) if self.zoom else ()
        return (2 + self.zoom + self.stop,)

    def space(self) -> gym.Space[Any]:
        """Return the action space of one lane."""
        if self.mode != "grid":
            return gym.spaces.Box(-1.0, 1.0, self._shape, np.float32)
        choices = self.cells + self.stop
        return gym.spaces.MultiDiscrete([choices, len(ZOOMS)]) if self.zoom else gym.spaces.Discrete(choices)

    @functools.cached_property
    def bare(self) -> bool:
        """Whether an action is two numbers in [-1, 1] and nothing else, which a simulator takes as they are."""
        return self.mode != "grid" and not self.zoom and not self.stop

    def validate(self, action: object, lanes: int, values: bool = True) -> NDArray[Any] | Tensor:
        """Return the actions of B lanes as an array or tensor of the right shape and range.

        Args:
            action: Of B lanes.
            lanes: B.
            values: Whether to check the range; without, only the shape.

        Raises:
            InvalidTypeError: Not numbers, or not whole numbers in grid mode.
            InvalidValueError: Wrong shape, NaN, infinite or out of range.
        """
        if isinstance(action, Tensor) and action.device.type != "cpu":
            return self._validate_on_device(action, lanes)
        whole = self.mode == "grid"
        try:
            array = np.asarray(action.detach().numpy() if isinstance(action, Tensor) else action)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"action must be numbers; got {action!r}.") from error
        if whole and not np.issubdtype(array.dtype, np.integer):
            raise InvalidTypeError(f"action must be whole numbers in grid mode; got {array.dtype}.")
        if not whole:
            # A copy, because kernels are compiled for arrays that are contiguous and may be written to.
            array = array.copy() if array.dtype == np.float32 else _as_float32(array)
        if array.shape != (lanes, *self._shape):
            raise InvalidValueError(f"action must have the shape {(lanes, *self._shape)}; got {array.shape}.")
        if whole:
            maximum = (
                np.array([self.cells + self.stop - 1, len(ZOOMS) - 1]) if self.zoom else self.cells + self.stop - 1
            )
            if not bool(((array >= 0) & (array <= maximum)).all()):
                raise InvalidValueError(f"action must be from 0 to {maximum}; got {array.tolist()}.")
        elif values and not _within_one(array):
            lane = int(np.argmin((np.abs(array) <= 1).all(1)))
            raise InvalidValueError(
                f"action must be finite and in [-1, 1]; lane {lane} is {array[lane].tolist()}. "
                "Clip or squash it (np.clip, tanh)."
            )
        return array

    def _validate_on_device(self, action: Tensor, lanes: int) -> Tensor:
        """Check the shape here and the values on the device, without waiting for it."""
        if tuple(action.shape) != (lanes, *self._shape):
            raise InvalidValueError(f"action must have the shape {(lanes, *self._shape)}; got {tuple(action.shape)}.")
        if self.mode != "grid":
            torch._assert_async((action.abs() <= 1).all())
        return action

    def decode(
        self, action: NDArray[Any] | Tensor, fixation_px: Any, half_px: Any, size: tuple[int, int]
    ) -> GazeCommand:
        """Turn validated actions into targets.

        Args:
            action: From :meth:`validate`.
            fixation_px: (B, 2) float32, where the eyes are.
            half_px: (2,) or (1, 2) float32, half the scene's width and height; an array or a tensor, as the rest.
            size: (H, W) of the scene, px.
        """
        if self.mode == "grid":
            return self._decode_cells(action, fixation_px, size)
        origin = half_px if self.mode == "absolute" else fixation_px
        if not (self.zoom or self.stop):
            return GazeCommand(action * half_px + origin, None, None)
        zoom = 2.0 ** -action[:, 2] if self.zoom else None
        stop = action[:, -1] > 0 if self.stop else None
        return GazeCommand(action[:, :2] * half_px + origin, zoom, stop)

    def _decode_cells(self, action: Any, fixation_px: Any, size: tuple[int, int]) -> GazeCommand:
        cell = torch.as_tensor(action[:, 0] if self.zoom else action).long()
        centres = geometry.norm_to_px(geometry.grid_norm(*self.grid), size).to(cell.device)
        stop = cell == self.cells
        target = torch.where(stop[:, None], torch.as_tensor(fixation_px), centres[cell.clamp_max(self.cells - 1)])
        zoom = torch.tensor(ZOOMS, device=cell.device)[torch.as_tensor(action[:, 1]).long()] if self.zoom else None
        if isinstance(action, Tensor):
            return GazeCommand(target, zoom, stop if self.stop else None)
        zooms = None if zoom is None else zoom.numpy()
        return GazeCommand(target.numpy(), zooms, stop.numpy() if self.stop else None)


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return a contiguous copy; NumPy itself would take words, truth values and complex numbers for numbers."""
    if array.dtype.kind not in "fiu":
        nothing = array.dtype == object and array.shape == () and array.item() is None
        came = "None. Does act() return what it chose?" if nothing else f"an array of {array.dtype}."
        raise InvalidTypeError(f"action must be real numbers; got {came}")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused with the others
        return array.astype(np.float32, order="C")


def _within_one(array: NDArray[np.float32]) -> bool:
    """Whether every number lies in [-1, 1]; NaN does not. For one lane Python is faster than NumPy."""
    if len(array) == 1:
        for value in array[0].tolist():  # noqa: SIM110  # a generator costs as much again
            if not -1 <= value <= 1:
                return False
        return True
    return bool((np.abs(array) <= 1).all())
