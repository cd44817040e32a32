"""Agents that do not look at what they see: the baselines that any gaze policy must beat.

All are batched over lanes, and lane i does what a single eye with the seed ``seed + i`` does.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.noise import LaneNoise
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.geometry import DEFAULT_SHORT_SIDE_DEG, grid_norm
from foveasim.validation import number

__all__ = ["Centre", "Gaussian", "Random", "Raster", "Spiral", "Walk"]


class Centre:
    """Looks at the centre of the scene, always."""

    name = "centre"
    __repr__ = describe_agent

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Do nothing: there is nothing to forget."""

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the centre, (B, 2) float32 of zeros."""
        return np.zeros((len(observed(observation, "fixation")), 2), np.float32)


class Random:
    """Looks anywhere, uniformly.

    Args:
        seed: Seed of lane 0; lane i has ``seed + i``.
    """

    name = "random"
    __repr__ = describe_agent

    def __init__(self, seed: int = 0) -> None:
        self._noise = LaneNoise(seed)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self._noise.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return (B, 2) float32, uniform in [-1, 1]."""
        self._noise.check(len(observed(observation, "fixation")))
        drawn = self._noise.uniform(2)
        self._noise.tick()
        return (2 * drawn - 1).astype(np.float32)


class Gaussian:
    """Looks near the centre: a normal distribution cut off at the scene's edge.

    People's fixations gather at the centre whatever the scene shows, so that this is the baseline to beat on
    photographs.

    Args:
        sd: Standard deviation before the cut, normalised units: one number, or one each for x and y.
        seed: Seed of lane 0; lane i has ``seed + i``.

    Raises:
        InvalidTypeError: ``sd`` is neither a number nor a pair.
        InvalidValueError: ``sd`` is not above 0 and at most 100.

    Reference:
        Tatler 2007, The central fixation bias in scene viewing, Journal of Vision 7(14):4.
    """

    name = "gaussian"
    __repr__ = describe_agent

    # The default rounds the standard deviations of 70,145 fixations on the 500 training images of OSIE: 0.43 and 0.39.
    def __init__(self, sd: float | tuple[float, float] = 0.4, seed: int = 0) -> None:
        pair = tuple(sd) if isinstance(sd, tuple | list) else (sd, sd)
        if len(pair) != 2:
            raise InvalidTypeError(f"sd must be a number or a pair (x, y); got {sd!r}.")
        self._sd = np.array([number("sd", value, 0, 100, open_low=True) for value in pair])
        self._noise = LaneNoise(seed)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self._noise.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return (B, 2) float32 in [-1, 1], drawn by inverting the cumulative distribution."""
        self._noise.check(len(observed(observation, "fixation")))
        below = torch.special.ndtr(torch.from_numpy(-1 / self._sd)).numpy()
        level = below + self._noise.uniform(2) * (1 - 2 * below)
        drawn: NDArray[np.float64] = torch.special.ndtri(torch.from_numpy(level)).numpy() * self._sd
        self._noise.tick()
        # Rounding alone can pass the edge, by 1e-16, or to infinity where sd is tiny and the level rounds to 0.
        return np.clip(drawn, -1, 1).astype(np.float32)


class _Tour:
    """Visits a list of places in order, then begins again. An eye that rests on the first begins with the second."""

    _THERE = 0.01  # normalised units: half a pixel of a scene of 96
    __repr__ = describe_agent

    def __init__(self, places: NDArray[np.float32]) -> None:
        self.places = places
        self._noise = LaneNoise(0)
        self._ahead = np.zeros(0, np.bool_)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Return to the first place in the marked lanes, (B,) bool."""
        self._noise.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return each lane's next place, (B, 2) float32 in [-1, 1]."""
        fixation = observed(observation, "fixation")
        self._noise.check(len(fixation))
        there = np.abs(fixation - self.places[0]).max(1) < self._THERE
        going = self._ahead if len(self._ahead) == len(there) else np.zeros_like(there)
        self._ahead = np.where(self._noise.step == 0, there, going)
        place: NDArray[np.float32] = self.places[(self._noise.step + self._ahead) % len(self.places)]
        self._noise.tick()
        return place


class Raster(_Tour):
    """Reads the scene like a page: the cells of a grid, left to right, row by row.

    Args:
        rows: Cells from top to bottom.
        cols: Cells from left to right.

    Raises:
        InvalidValueError: Not whole numbers from 1 to 1000.

    Example:
        >>> agent = Raster(rows=1, cols=2)
        >>> agent.reset(np.ones(1, bool))
        >>> agent.act({"fixation": np.zeros((1, 2), np.float32)}).tolist()
        [[-0.5, 0.0]]
    """

    name = "raster"

    def __init__(self, rows: int = 4, cols: int = 4) -> None:
        for side, count in (("rows", rows), ("cols", cols)):
            if number(side, count, 1, 1000) != int(count):
                raise InvalidValueError(f"{side} must be a whole number from 1 to 1000; got {count!r}.")
        super().__init__(grid_norm(int(rows), int(cols)).numpy())


class Spiral(_Tour):
    """Winds outward from the centre on Archimedes' spiral, then begins again at the centre.

    An eye that rests at the centre when an episode begins starts with the next place.

    Successive fixations lie about as far apart along the spiral as its arms do from each other; what falls outside the
    scene is left out, so that the last arms visit the corners.

    Args:
        pitch: Distance between arms, normalised units.

    Raises:
        InvalidValueError: ``pitch`` outside [0.02, 2].
    """

    name = "spiral"

    def __init__(self, pitch: float = 0.4) -> None:
        pitch = number("pitch", pitch, 0.02, 2)
        # r = pitch θ / 2π has arc length ≈ pitch θ² / 4π, so steps of one pitch along it lie at θ = sqrt(4π k).
        angle = np.sqrt(4 * math.pi * np.arange(math.ceil(2 * math.pi / pitch**2) + 1))
        places = (pitch * angle / (2 * math.pi))[:, None] * np.stack((np.cos(angle), np.sin(angle)), 1)
        super().__init__(places[(np.abs(places) <= 1).all(1)].astype(np.float32))


class Walk:
    """Moves as people's eyes do, blind to the scene.

    Amplitudes are gamma distributed. Directions prefer the horizontal to the vertical and both to the oblique, and
    keep on or turn back rather than aside. The farther from the centre, the more, and the longer, the saccades that
    lead back to it. A saccade that would leave the scene is reflected at its edge. What separates a scanpath from this
    one is what the scene shows.

    Observations carry no px_per_deg: how large a scene is to the eye is not known. Its amplitudes are fractions
    of a scene whose short side spans 27.4 degrees, which every scene does that comes without a px_per_deg of its own.
    Where another is given, give its short side in px over it: ``Walk(short_side_deg=480 / 24)``.

    Args:
        amplitude_deg: Mean amplitude of a saccade from the centre, degrees.
        short_side_deg: Visual angle of the scene's short side, degrees.
        seed: Seed of lane 0; lane i has ``seed + i``.

    Raises:
        InvalidValueError: An angle out of range.

    Reference:
        Tatler and Vincent 2009, The prominence of behavioural biases in eye guidance, Visual Cognition 17:1029-1054
        (amplitude and direction biases); Bahill, Adler and Stark 1975, Most naturally occurring human saccades have
        magnitudes of 15 degrees or less, Investigative Ophthalmology 14:468-469.
    """

    name = "walk"

    # Maximum likelihood on 53,833 saccades of 0.2 degrees or more, each after another one, of 15 people on the 500
    # training images of OSIE (Xu et al. 2014; 24 px a degree). Direction θ has log density ∝ a₂cos 2θ + a₄cos 4θ +
    # t₁cos Δ + t₂cos 2Δ + c·e·cos(θ - θ_centre), Δ the turn from the saccade before and e the eccentricity in the
    # picture in degrees: log-likelihood -4.11 a saccade in 72 bins, -4.28 if uniform. Given the last term, amplitude
    # does not depend on the turn (exponent 0.01). Without it, gamma fits better than log-normal (-2.79, -2.86).
    _HORIZONTAL, _CARDINAL = 0.28, 0.33
    _ONWARD, _COLLINEAR = 0.30, 0.28
    _CENTRE_PER_DEG = 0.073
    _SHAPE = 1.53
    _LONGER_PER_DEG = 0.080
    _BINS = 72
    __repr__ = describe_agent

    def __init__(
        self, amplitude_deg: float = 4.6, short_side_deg: float = DEFAULT_SHORT_SIDE_DEG, seed: int = 0
    ) -> None:
        self._amplitude_deg = number("amplitude_deg", amplitude_deg, 0, 180, open_low=True)
        self._short_side_deg = number("short_side_deg", short_side_deg, 0, 360, open_low=True)
        self._noise = LaneNoise(seed)
        self._direction = np.zeros(0)
        self._bins = np.arange(self._BINS) * (2 * math.pi / self._BINS)
        self._anywhere = self._HORIZONTAL * np.cos(2 * self._bins) + self._CARDINAL * np.cos(4 * self._bins)
        quantile = torch.linspace(0, 20, 4096, dtype=torch.float64)
        shape = torch.tensor(self._SHAPE, dtype=torch.float64)
        self._gamma = torch.special.gammainc(shape, quantile).numpy(), quantile.numpy() / self._SHAPE

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool: the first saccade follows no other."""
        self._noise.reset(lanes)
        if len(self._direction) != len(lanes):
            self._direction = np.zeros(len(lanes))

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the end of the next saccade, (B, 2) float32 in [-1, 1]."""
        fixation = observed(observation, "fixation").astype(np.float64)
        self._noise.check(len(fixation))
        height, width = observed(observation, "acuity").shape[1:3]
        half_deg = np.array([width, height]) * (self._short_side_deg / min(height, width) / 2)
        to_centre = -fixation * half_deg
        drawn = self._noise.uniform(3)

        turn = self._bins - self._direction[:, None]
        after = self._ONWARD * np.cos(turn) + self._COLLINEAR * np.cos(2 * turn)
        towards = to_centre[:, :1] * np.cos(self._bins) + to_centre[:, 1:] * np.sin(self._bins)
        log_density = self._anywhere + self._CENTRE_PER_DEG * towards + after * (self._noise.step > 0)[:, None]
        share = np.exp(log_density).cumsum(1)
        chosen = (share <= drawn[:, :1] * share[:, -1:]).sum(1)
        direction = (chosen + drawn[:, 1] - 0.5) * (2 * math.pi / self._BINS)

        heading = np.stack((np.cos(direction), np.sin(direction)), 1)
        mean_deg = self._amplitude_deg * np.exp(self._LONGER_PER_DEG * (to_centre * heading).sum(1))
        amplitude_deg = mean_deg * np.interp(drawn[:, 2], *self._gamma)
        aimed = fixation + amplitude_deg[:, None] * heading / half_deg
        landing: NDArray[np.float64] = 1 - np.abs((aimed + 1) % 4 - 2)  # a triangle wave: reflection at -1 and 1
        moved = (landing - fixation) * half_deg
        self._direction = np.arctan2(moved[:, 1], moved[:, 0])
        self._noise.tick()
        return landing.astype(np.float32)
