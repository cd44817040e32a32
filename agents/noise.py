"""Seeded noise for agents: what a lane draws depends on its own seed, episode and step only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import AgentError
from foveasim.eye.kernels.step import mix
from foveasim.jit import jit
from foveasim.rng import Stream
from foveasim.validation import seed_value

__all__ = ["LaneNoise"]


class LaneNoise:
    """Counts the episodes and steps of B lanes and draws noise keyed by them.

    Lane i has the seed ``seed + i``: it draws what a single eye with that seed draws, whatever happens in the other
    lanes, partial resets included.

    Args:
        seed: Seed of lane 0.

    Example:
        >>> noise = LaneNoise(seed=7)
        >>> noise.reset(np.ones(3, bool))
        >>> one = LaneNoise(seed=9)
        >>> one.reset(np.ones(1, bool))
        >>> bool((noise.uniform(4)[2] == one.uniform(4)[0]).all())
        True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed_value("seed", seed)
        self._seeds = np.zeros(0, np.int64)
        self.episode = np.zeros(0, np.int64)
        self.step = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return B, 0 before the first reset."""
        return len(self.step)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes.

        Args:
            lanes: (B,) bool. A new B, with all lanes marked, starts from the first episode.

        Raises:
            AgentError: Not (B,) bool, or a new B while some lanes go on.
        """
        lanes = np.asarray(lanes)
        if lanes.ndim != 1 or lanes.dtype != np.bool_:
            raise AgentError(f"lanes must be (B,) bool; got {lanes.shape} {lanes.dtype}. Use np.ones(B, bool).")
        if len(lanes) != len(self):
            if not lanes.all():
                raise AgentError(
                    f"lanes must be ({len(self)},), or all True to begin anew; got {lanes.tolist()}. "
                    "Call reset(np.ones(B, bool)) before the first act."
                )
            self._seeds = self.seed + np.arange(len(lanes), dtype=np.int64)
            self.episode = np.full(len(lanes), -1, np.int64)
            self.step = np.zeros(len(lanes), np.int64)
        self.episode = self.episode + lanes
        self.step = np.where(lanes, 0, self.step)

    def check(self, lanes: int) -> None:
        """Refuse an observation that does not fit the lanes reset.

        Raises:
            AgentError: Another number of lanes than the last reset had.
        """
        if lanes != len(self):
            raise AgentError(
                f"the observation has {lanes} lanes, the last reset had {len(self)}. "
                f"Call reset(np.ones({lanes}, bool)) before the first act."
            )

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Draw (B, count) float64 in [0, 1) for the present step; the same until :meth:`tick`."""
        out = np.empty((len(self), count))
        _fill(self._seeds, self.episode, self.step, int(Stream.AGENT), out)
        return out

    def tick(self) -> None:
        """Go on to the next step in every lane."""
        self.step = self.step + 1


@jit
def _fill(
    seeds: NDArray[np.int64],
    episode: NDArray[np.int64],
    step: NDArray[np.int64],
    stream: int,
    out: NDArray[np.float64],
) -> None:
    for lane in range(out.shape[0]):
        for index in range(out.shape[1]):
            out[lane, index] = mix(seeds[lane], episode[lane], step[lane], stream, index)
