"""The person at the mouse, as an agent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.validation import number

__all__ = ["Human"]


class Human:
    """Looks where a person points, and stays where it is when nobody does.

    Example:
        >>> agent = Human()
        >>> agent.point(0.5, -0.25)
        >>> seen = {"fixation": np.zeros((1, 2), np.float32)}
        >>> agent.act(seen).tolist(), agent.act(seen).tolist()
        ([[0.5, -0.25]], [[0.0, 0.0]])
    """

    name = "human"
    __repr__ = describe_agent

    def __init__(self) -> None:
        self._pointed: tuple[float, float] | None = None

    def point(self, x_norm: float, y_norm: float) -> None:
        """Set the next fixation of every lane, normalised scene coordinates. A later point replaces it.

        Raises:
            InvalidTypeError: Not numbers.
            InvalidValueError: Outside [-1, 1], or NaN.
        """
        self._pointed = number("x_norm", x_norm, -1, 1), number("y_norm", y_norm, -1, 1)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Forget a point that was not looked at, if every lane begins anew."""
        if np.asarray(lanes).all():
            self._pointed = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the point, once, or else each lane's present fixation: (B, 2) float32 in [-1, 1]."""
        action = observed(observation, "fixation").astype(np.float32)  # astype copies
        if self._pointed is not None:
            action[:] = self._pointed
            self._pointed = None
        return action
