"""Every pair of two groups of scanpaths, the means over them, and how sure such a mean is.

Convention:
    A pair metric takes two groups of N and M scanpaths on one image and gives (N, M) scores. For an agent against
    people every score counts; for people among themselves, as for an agent against itself, only those of different
    scanpaths: 15 people make 105 pairs. The mean of an image is taken first, then the mean over images, and intervals
    come from drawing images anew.

    >>> scores = np.array([[1.0, 0.25, 0.5], [0.25, 1.0, np.nan], [0.5, np.nan, 1.0]])
    >>> mean_pairs(scores, same=True)
    PairMean(mean=0.375, pairs=3, undefined=1)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["Estimate", "PackedPaths", "PairMean", "bootstrap_mean", "group_by_image", "mean_pairs", "pack_paths"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class PackedPaths:
    """Scanpaths one after the other in flat arrays, as kernels take them.

    Attributes:
        fixation_px: (F, 2) float64.
        duration_ms: (F,) float64.
        start: (N + 1,) int64; scanpath i holds the fixations ``start[i]`` to ``start[i + 1]``.
    """

    fixation_px: F64
    duration_ms: F64
    start: I64

    @property
    def lengths(self) -> I64:
        """(N,) int64, the number of fixations of each."""
        return np.diff(self.start)


def pack_paths(name: str, scanpaths: Sequence[Scanpath]) -> PackedPaths:
    """Lay scanpaths one after the other.

    Args:
        name: The argument's name, for the message.
        scanpaths: N of them.

    Raises:
        InvalidTypeError: Not a sequence of scanpaths.
        InvalidValueError: None at all.
    """
    if isinstance(scanpaths, Scanpath):
        raise InvalidTypeError(f"{name} must be a sequence of Scanpath; got one Scanpath. Write [{name}].")
    if not isinstance(scanpaths, Sequence) or not all(isinstance(path, Scanpath) for path in scanpaths):
        raise InvalidTypeError(f"{name} must be a sequence of Scanpath; got {type(scanpaths).__name__}.")
    if not scanpaths:
        raise InvalidValueError(f"{name} must hold at least one scanpath; got none.")
    start = np.zeros(len(scanpaths) + 1, np.int64)
    np.cumsum([len(path) for path in scanpaths], out=start[1:])
    points = np.concatenate([path.fixation_px.cpu().numpy() for path in scanpaths]).astype(np.float64)
    duration_ms = np.concatenate([path.duration_ms.cpu().numpy() for path in scanpaths]).astype(np.float64)
    return PackedPaths(points, duration_ms, start)


def group_by_image(scanpaths: Iterable[Scanpath]) -> dict[str, list[Scanpath]]:
    """Sort scanpaths by the image that was looked at, images and scanpaths in the order in which they came."""
    groups: dict[str, list[Scanpath]] = {}
    for path in scanpaths:
        groups.setdefault(path.image, []).append(path)
    return groups


@dataclass(frozen=True)
class PairMean:
    """The mean of a pair metric over the pairs of one image.

    Attributes:
        mean: Over the defined pairs; nan where there is none.
        pairs: How many pairs there are.
        undefined: How many of them have no score: a scanpath too short, or a string without symbols.
    """

    mean: float
    pairs: int
    undefined: int


def mean_pairs(scores: F64, *, same: bool = False) -> PairMean:
    """Average a pair metric over one image, leaving out the pairs that have no score.

    Args:
        scores: (N, M) float64, nan where undefined.
        same: Whether both groups are the same scanpaths. Then a scanpath is not compared with itself, and each pair of
            different ones counts with the mean of its two orders, which differ for metrics that are not symmetric.

    Raises:
        InvalidValueError: Not a matrix, or not square where ``same``.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or (same and scores.shape[0] != scores.shape[1]):
        hint = " Of MultiMatch give one of its numbers, scores[..., k]." if scores.ndim == 3 else ""
        raise InvalidValueError(f"scores must be {'(N, N)' if same else '(N, M)'}; got {scores.shape}.{hint}")
    if same:
        rows, columns = np.triu_indices(len(scores), 1)
        chosen = (scores[rows, columns] + scores[columns, rows]) / 2
    else:
        chosen = scores.ravel()
    defined = chosen[~np.isnan(chosen)]
    mean = float(defined.mean()) if defined.size else math.nan
    return PairMean(mean, chosen.size, chosen.size - defined.size)


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its bootstrap interval.

    Attributes:
        mean: Over the images.
        low: Lower end of the interval.
        high: Upper end.
        count: Number of images.
    """

    mean: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: Sequence[float] | F64, seed: int, *, draws: int = 2000, level: float = 0.95) -> Estimate:
    """Return the mean over images with its percentile bootstrap interval.

    Images are what is drawn anew: scanpaths on one image are not independent of each other. For the difference of two
    agents give the differences image by image; the interval of a difference is much narrower than two intervals side
    by side suggest.

    Args:
        values: (I,) one value an image.
        seed: The same seed draws the same images.
        draws: Bootstrap samples.
        level: Share of them inside the interval.

    Raises:
        InvalidTypeError: A setting of another type.
        InvalidValueError: No value, one that is not finite, or a setting out of range.

    Reference:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3.

    Example:
        >>> bootstrap_mean([0.25, 0.25], seed=0)
        Estimate(mean=0.25, low=0.25, high=0.25, count=2)
    """
    array = np.asarray(values, np.float64)
    validation.seed_value("seed", seed)
    validation.whole("draws", draws, 1, 10**6)
    validation.number("level", level, 0, 1, open_low=True, open_high=True)
    if array.ndim != 1 or not array.size:
        raise InvalidValueError(f"values must be (I,), one for each image, at least one; got {array.shape}.")
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise InvalidValueError(
            f"values must be finite; value {where} is {array[where]}. Leave out the images without a score, and say so."
        )
    rng = np.random.default_rng(seed)
    means = np.array([array[rng.integers(0, array.size, array.size)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(array.mean()), float(low), float(high), array.size)
