"""What a gaze policy sees: maps of a few cells and a few numbers, from the prediction that the reward is made of.

A policy that sees belief at full size must learn to see before it can learn to look, and costs a network's pass of its
own. These features hold what the frozen network makes of belief already, at 12 cells along the short side of a scene of
any size and shape.

A policy of cells says in which cell to look; where in it is the place of greatest gain by
:func:`foveasim.agents.mim.expected_gain.gain_map`, on its finer grid. So the cells need not be small, and a policy that
takes the cell of greatest ``gain`` looks where the agent ``uncertainty`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.expected_gain import CELLS, cell_points
from foveasim.agents.mim.predictor import BeliefPrediction
from foveasim.errors import InvalidValueError
from foveasim.geometry import grid_norm

__all__ = ["MAPS", "NUMBERS", "FeatureConfig", "FeatureExtractor", "Features", "featurise"]

MAPS = {"prediction": 3, "contrast": 1, "std": 1, "acuity": 1, "gain": 1, "distance": 1, "place": 2}
"""Every map and its channels, averaged over cells.

``prediction``: colours, from -1 to 1; ``contrast``: 5 times the standard deviation of the brightness within a cell, of
what is seen or predicted there; ``std``: 5 times the square root of the mean predicted variance; ``acuity``: of belief;
``gain``: of the best place in a cell, relative to the best of all, 0 to 1; ``distance``: from the fixation, in short
sides; ``place``: x and y of the cell, -1 to 1.
"""

NUMBERS = {"fixation": 2, "time": 1, "coverage": 1, "variance": 1, "best_gain": 1, "latent": 0}
"""Every number and how many it is; ``latent`` is as many as the network's latent has channels, averaged over the scene.

``fixation``: x and y, -1 to 1; ``time``: what is left, 0 to 1; ``coverage``: mean acuity of belief; ``variance``: the
tenth of its natural logarithm, averaged over the scene before; ``best_gain``: the same of the share of it that the best
glimpse would remove.
"""

_MIN_VARIANCE = 1e-6  # variance of a scene that is as good as known: a quarter of a grey level


@dataclass(frozen=True)
class FeatureConfig:
    """What a policy sees.

    Attributes:
        cells: Along the scene's short side; its long side has as many more as it is longer.
        maps: Names of :data:`MAPS`, in their order.
        numbers: Names of :data:`NUMBERS`, in their order.
    """

    known_maps: ClassVar[Mapping[str, int]] = MAPS
    known_numbers: ClassVar[Mapping[str, int]] = NUMBERS

    cells: int = 12
    maps: tuple[str, ...] = tuple(MAPS)
    numbers: tuple[str, ...] = ("fixation", "time", "coverage", "variance", "best_gain")

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: Cells that are no whole number.
            InvalidValueError: Out of range, an unknown name, one that stands twice, or no map at all.
        """
        validation.whole("cells", self.cells, 2, CELLS)
        for field, known in (("maps", self.known_maps), ("numbers", self.known_numbers)):
            names = tuple(getattr(self, field))
            object.__setattr__(self, field, names)  # YAML and JSON give lists
            unknown = [name for name in names if name not in known]
            if unknown:
                raise InvalidValueError(f"{field} must be among {', '.join(known)}; got {unknown[0]!r}.")
            if len(set(names)) < len(names):
                raise InvalidValueError(f"{field} must name each once; got {', '.join(names)}.")
        if not self.maps:
            raise InvalidValueError(f"maps must name at least one of {', '.join(self.known_maps)}; got none.")

    @property
    def channels(self) -> int:
        """How many channels the maps have."""
        return sum(self.known_maps[name] for name in self.maps)

    def channel(self, name: str) -> int | None:
        """Return the first channel of a map, or None where it is not shown."""
        if name not in self.maps:
            return None
        return sum(self.known_maps[before] for before in self.maps[: self.maps.index(name)])

    def count(self, latent: int) -> int:
        """Return how many numbers there are, with a latent of so many channels."""
        return sum(latent if name == "latent" else self.known_numbers[name] for name in self.numbers)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) for a scene of (H, W) px: cells that are as square as can be.

        Example:
            >>> FeatureConfig().grid((96, 96)), FeatureConfig(cells=6).grid((480, 640))
            ((12, 12), (6, 8))
        """
        short = min(size)
        return round(size[0] * self.cells / short), round(size[1] * self.cells / short)


@dataclass(frozen=True, eq=False)
class Features:
    """What a policy sees of B lanes.

    Attributes:
        maps: (B, C, rows, columns) float32.
        numbers: (B, K) float32.
        points: (B, rows * columns, 2) float32 in [-1, 1], the best place of each cell, row by row.
        gain: (B, rows * columns) float32, what a glimpse there would remove, relative to the best of all; 0 to 1.
    """

    maps: Tensor
    numbers: Tensor
    points: Tensor
    gain: Tensor

    def worth(self, minimum: float) -> Tensor:
        """Return which cells gain at least a share of what the best does, (B, cells) bool; all where nothing does."""
        return (self.gain >= minimum) | (self.gain.amax(1, keepdim=True) <= 0)


def featurise(prediction: BeliefPrediction, config: FeatureConfig, grid: tuple[int, int] | None = None) -> Features:
    """Bring a prediction down to what a policy sees.

    Args:
        prediction: Of B lanes.
        config: What it sees.
        grid: (rows, columns) of the cells; None takes ``config.grid`` of the scene's size.

    Raises:
        InvalidValueError: The latent is asked for, and the network gives none.
    """
    size = prediction.seen.size
    rows, columns = config.grid(size) if grid is None else grid
    fine = prediction.gain
    best, index = F.adaptive_max_pool2d(fine[:, None], (rows, columns), return_indices=True)
    points = cell_points(size, fine.device)[index[:, 0].flatten(1)]
    peak = best.amax((2, 3), keepdim=True)
    gain = torch.where(peak > 0, best / peak.clamp_min(1e-30), 0.0)
    cells = _Cells(prediction, (rows, columns), gain, peak.flatten(1))
    maps = torch.cat([_MAPS[name](cells) for name in config.maps], 1)
    numbers = [_NUMBERS[name](cells) for name in config.numbers]
    many = torch.cat(numbers, 1) if numbers else maps.new_zeros(len(maps), 0)
    return Features(maps, many, points, gain.flatten(1))


@dataclass(frozen=True, eq=False)
class _Cells:
    """A prediction and the cells over which it is averaged; ``peak`` is (B, 1), the gain of the best place."""

    prediction: BeliefPrediction
    grid: tuple[int, int]
    gain: Tensor
    peak: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Average (B, C, H, W) over the cells."""
        return F.adaptive_avg_pool2d(values, self.grid)

    def place(self) -> Tensor:
        """Return x and y of the cells, (1, 2, rows, columns)."""
        return grid_norm(*self.grid).to(self.gain.device).T.reshape(1, 2, *self.grid)


def _contrast(cells: _Cells) -> Tensor:
    grey = cells.prediction.image.mean(3)[:, None]
    return 5 * (cells.mean(grey.square()) - cells.mean(grey).square()).clamp_min(0).sqrt()


def _distance(cells: _Cells) -> Tensor:
    height, width = cells.prediction.seen.size
    sides = torch.tensor([width, height], device=cells.gain.device) / (2 * min(height, width))
    away = (cells.place() - cells.prediction.seen.fixation[:, :, None, None]) * sides[:, None, None]
    return away.square().sum(1, keepdim=True).sqrt()


def _best_gain(cells: _Cells) -> Tensor:
    # gain is summed over the fine grid, variance averaged over pixels
    total = cells.prediction.variance.mean((1, 2))[:, None] * cells.prediction.gain[0].numel()
    return 0.1 * ((cells.peak + _MIN_VARIANCE) / (total + _MIN_VARIANCE)).log()


def _latent(cells: _Cells) -> Tensor:
    if cells.prediction.latent is None:
        raise InvalidValueError("the numbers name 'latent', and this network gives none. Leave it out.")
    return cells.prediction.latent.mean((2, 3))


_MAPS: Mapping[str, Callable[[_Cells], Tensor]] = {
    "prediction": lambda cells: 2 * cells.mean(cells.prediction.image.permute(0, 3, 1, 2)) - 1,
    "contrast": _contrast,
    "std": lambda cells: 5 * cells.mean(cells.prediction.variance[:, None]).sqrt(),
    "acuity": lambda cells: cells.mean(cells.prediction.seen.acuity[:, None].float()) / 255,
    "gain": lambda cells: cells.gain,
    "distance": _distance,
    "place": lambda cells: cells.place().expand(len(cells.gain), -1, -1, -1),
}

_NUMBERS: Mapping[str, Callable[[_Cells], Tensor]] = {
    "fixation": lambda cells: cells.prediction.seen.fixation,
    "time": lambda cells: cells.prediction.time,
    "coverage": lambda cells: cells.prediction.seen.acuity.float().mean((1, 2))[:, None] / 255,
    "variance": lambda cells: 0.1 * (cells.prediction.variance.mean((1, 2))[:, None] + _MIN_VARIANCE).log(),
    "best_gain": _best_gain,
    "latent": _latent,
}


class FeatureExtractor(Protocol):
    """What makes features of a task's observations, for training and for the trained policy alike."""

    needs: tuple[str, ...]

    @property
    def config(self) -> FeatureConfig:
        """What it makes."""
        ...

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""

    def extract_features(
        self, observation: Mapping[str, Any], grid: tuple[int, int], lanes: NDArray[np.intp] | None = None
    ) -> Features:
        """Return what the policy sees; of ``lanes``, whose episodes have ended, without remembering it."""
        ...
