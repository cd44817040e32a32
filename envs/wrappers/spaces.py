"""What an eye for another env needs of its spaces: where its pixels are, and how motor and gaze share an action."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.envs.actions import ActionCode
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError

__all__ = ["MotorAndGaze", "Pixels"]

_GAZES = ("absolute", "relative")


@dataclass(frozen=True)
class Pixels:
    """Where an observation holds the picture that the eye looks at, and what its numbers mean.

    Attributes:
        key: Under which key of a Dict; "" where the observation is the picture.
        shape: Of one picture: (H, W, 3), (H, W, 1) or (H, W).
        white: The number that means white: 255, or 1 for floats in [0, 1]. Black is 0.
        exact: Whether it is uint8 from 0 to 255 already.
    """

    key: str
    shape: tuple[int, ...]
    white: float
    exact: bool

    @classmethod
    def find(cls, space: gym.Space[Any], key: str | None) -> Self:
        """Return where the pixels are.

        Args:
            space: Of one observation.
            key: A key of a Dict space; None takes the one that holds a picture.

        Raises:
            UnknownNameError: The space has no such key.
            InvalidValueError: There are no pixels, several pictures to choose from, or pixels in a form of which one
                cannot know how to show them; the message says what to do.
        """
        if not isinstance(space, Dict):
            if key is not None:
                raise InvalidValueError(f"key must be None where the observation is no Dict; got {key!r} and {space}.")
            return cls._of("the observation", "", space)
        if key is not None:
            if key not in space.spaces:
                raise UnknownNameError(f"key must be one of {', '.join(space.spaces)}; got {key!r}.")
            return cls._of(f"observation[{key!r}]", key, space[key])
        found = {name: part for name, part in space.items() if not _fault(part)}
        if len(found) != 1:
            raise InvalidValueError(
                f"key must say which of {', '.join(space.spaces)} is the picture; {len(found)} could be one."
                + ("" if found else " Where none is, use gymnasium.wrappers.AddRenderObservation(env) first.")
            )
        name, part = next(iter(found.items()))
        return cls._of(f"observation[{name!r}]", name, part)

    @classmethod
    def _of(cls, title: str, key: str, space: gym.Space[Any]) -> Self:
        fault = _fault(space)
        if fault or not isinstance(space, Box):
            raise InvalidValueError(f"{title} must be a picture (H, W, 3), (H, W, 1) or (H, W); {fault}")
        white = float(space.high.flat[0])
        return cls(key, space.shape, white, space.dtype == np.uint8 and white == 255)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), px."""
        return self.shape[0], self.shape[1]

    def read(self, observation: Any) -> Tensor:
        """Return the pictures of a batch of observations, (B, H, W, 3) uint8; grey ones have three equal channels.

        Raises:
            InvalidValueError: Of another shape than the space says, NaN, or out of its bounds.
        """
        image = np.asarray(observation[self.key] if self.key else observation)
        if image.shape[1:] != self.shape:
            raise InvalidValueError(
                f"the env's picture must be {self.shape}, as its space says; got {image.shape[1:]}."
            )
        if not self.exact:
            low, high = image.min(), image.max()
            if not (low >= 0 and high <= self.white):
                raise InvalidValueError(
                    f"the env's picture must lie in [0, {self.white:g}], as its space says; got {low} to {high}."
                )
            image = np.round(image * (255 / self.white)).astype(np.uint8)
        if len(self.shape) == 2:
            image = image[..., None]
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        return torch.from_numpy(np.require(image, np.uint8, ["C", "W"]))  # torch warns of arrays that are read-only


def _fault(space: gym.Space[Any]) -> str:
    """Return why a space is no picture, or nothing."""
    shape = space.shape or ()
    if not isinstance(space, Box) or len(shape) < 2:
        return (
            f"it is {space}. For an env that draws itself, make it with render_mode='rgb_array' and use "
            "gymnasium.wrappers.AddRenderObservation(env) first."
        )
    if len(shape) > 3 or (len(shape) == 3 and shape[2] not in (1, 3)):
        return (
            f"it is {shape}. A stack of frames holds what the eye did not look at when it was there: give the eye to "
            "the env first and stack afterwards. Where channels come first, move them last "
            "(gymnasium.wrappers.TransformObservation)."
        )
    if min(shape[:2]) < 8:
        return f"it is {shape}, with a side shorter than 8 px."
    low, high = float(space.low.min()), float(space.high.max())
    if low != 0 or high not in (1, 255) or float(space.low.max()) != low or float(space.high.min()) != high:
        return (
            f"its bounds are {low:g} to {high:g}, so nothing says which number is white. Give pictures from 0 to 255 "
            "or from 0 to 1 (gymnasium.wrappers.RescaleObservation)."
        )
    return ""


@dataclass(frozen=True)
class MotorAndGaze:
    """Actions that move the body and the eye.

    Attributes:
        motor: The env's own action space.
        gaze: What (x, y) of the gaze means, "absolute" or "relative", as in :class:`foveasim.envs.actions.ActionCode`.
        flat: Whether an action is one array, as most programs need it, not a Dict of ``motor`` and ``gaze``: the motor
            action and then (x, y), a ``Box``; or where the motor action is discrete, its choices and then the cell of
            a grid, a ``MultiDiscrete``.
        grid: (rows, columns) of that grid. Its cells' centres stand for (x, y), row by row; an odd grid has one at (0,
            0), which is no movement where gaze is relative.
    """

    motor: gym.Space[Any]
    gaze: str
    flat: bool
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: An unknown gaze, an empty grid, or a motor action that cannot be flattened.
        """
        if self.gaze not in _GAZES:
            raise InvalidValueError(f"gaze must be one of {', '.join(_GAZES)}; got {self.gaze!r}.")
        validation.size_hw("grid", self.grid, 1, 256)
        floats = isinstance(self.motor, Box) and np.issubdtype(self.motor.dtype or np.int8, np.floating)
        if self.flat and not (floats or isinstance(self.motor, Discrete | MultiDiscrete | MultiBinary)):
            raise InvalidValueError(
                f"flat=True needs actions that are a Box of floats, Discrete, MultiDiscrete or MultiBinary; the env's "
                f"are {self.motor}. Use flat=False, whose actions are a Dict of motor and gaze."
            )

    def space(self) -> gym.Space[Any]:
        """Return the space of one action."""
        gaze = Box(-1.0, 1.0, (2,), np.float32)
        if not self.flat:
            return Dict({"motor": self.motor, "gaze": gaze})
        if isinstance(self.motor, Box):
            low, high = ((-1, -1), (1, 1))
            return Box(
                np.concatenate((self.motor.low.ravel(), low)).astype(np.float32),
                np.concatenate((self.motor.high.ravel(), high)).astype(np.float32),
                dtype=np.float32,
            )
        return MultiDiscrete([*self._choices.tolist(), self.grid[0] * self.grid[1]])

    @functools.cached_property
    def _choices(self) -> NDArray[np.int64]:
        if isinstance(self.motor, Discrete):
            return np.array([self.motor.n])
        counts = self.motor.nvec if isinstance(self.motor, MultiDiscrete) else np.full(self.motor.shape or (), 2)
        return np.asarray(counts, np.int64).ravel()

    @functools.cached_property
    def _code(self) -> ActionCode:
        return ActionCode(self.gaze)

    @functools.cached_property
    def _cells(self) -> NDArray[np.float32]:
        return geometry.grid_norm(*self.grid).numpy()

    def split(self, action: Any, lanes: int, batched: bool = True) -> tuple[Any, NDArray[np.float32]]:
        """Take an action apart.

        Args:
            action: Of B lanes; of one without the lane axis where not ``batched``.
            lanes: B.
            batched: Whether there is a lane axis.

        Returns:
            The env's own action, with a lane axis where there was one, and the gaze's (x, y), (B, 2) float32.

        Raises:
            InvalidTypeError: No Dict of motor and gaze, or not numbers.
            InvalidValueError: Wrong shape, NaN or infinite, or gaze out of range.
        """
        if not self.flat:
            if not isinstance(action, Mapping) or action.keys() != {"motor", "gaze"}:
                raise InvalidTypeError(f"action must be a dict of 'motor' and 'gaze'; got {action!r}.")
            return action["motor"], self._aim(np.asarray(action["gaze"]), lanes, batched)
        try:
            array = np.asarray(action, np.float32) if isinstance(self.motor, Box) else np.asarray(action)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"action must be numbers; got {action!r}.") from error
        array = array if batched else array[None]
        parts = int(np.prod(self.motor.shape or ())) + 2 if isinstance(self.motor, Box) else len(self._choices) + 1
        if array.shape != (lanes, parts):
            raise InvalidValueError(f"action must have the shape {(lanes, parts)[not batched :]}; got {array.shape}.")
        if isinstance(self.motor, Box):
            if not bool(np.isfinite(array).all()):
                raise InvalidValueError(f"action must be finite; got {array.tolist()}.")
            motor = array[:, :-2].reshape(lanes, *self.motor.shape).astype(self.motor.dtype)
            return motor if batched else motor[0], self._aim(array[:, -2:], lanes)
        motor, cell = self._chosen(array)
        return motor if batched else motor[0], self._cells[cell]

    def _aim(self, gaze: NDArray[Any], lanes: int, batched: bool = True) -> NDArray[np.float32]:
        try:
            return np.asarray(self._code.validate(gaze if batched else gaze[None], lanes))
        except (InvalidTypeError, InvalidValueError) as error:
            raise type(error)(f"gaze: {error}") from error

    def _chosen(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the env's own discrete actions, and the cells."""
        if not np.issubdtype(array.dtype, np.integer):
            raise InvalidTypeError(f"action must be whole numbers; got {array.dtype}.")
        counts = np.append(self._choices, len(self._cells))
        if not bool(((array >= 0) & (array < counts)).all()):
            raise InvalidValueError(f"action must be from 0 to {(counts - 1).tolist()}; got {array.tolist()}.")
        motor = array[:, :-1]
        if isinstance(self.motor, Discrete):
            motor = motor[:, 0] + self.motor.start
        elif isinstance(self.motor, MultiDiscrete | MultiBinary):
            motor = motor.reshape(len(array), *self.motor.shape)
            motor = motor + self.motor.start if isinstance(self.motor, MultiDiscrete) else motor
        return motor.astype(self.motor.dtype), array[:, -1]

    def target_px(
        self, aim: NDArray[np.float32], fixation_px: Tensor, half_px: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Return where gaze is aimed, (B, 2) float32, px; where it is relative, that may lie outside of the frame.

        Args:
            aim: From :meth:`split`.
            fixation_px: (B, 2) float32, where the eyes are.
            half_px: (1, 2) float32, half the frame's width and height.
            size: (H, W) of the frame, px.
        """
        target: Tensor = self._code.decode(torch.from_numpy(aim), fixation_px, half_px, size).target_px
        return target
