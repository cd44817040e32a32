"""The sequence score: scanpaths compared as strings of the regions that people fixate on an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.metrics.pairs import pack_paths
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["FixationClusters", "cluster_points", "estimate_bandwidth", "fit_clusters", "sequence_score"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FACTORS = (0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 1.8)  # Yang et al. (2020)
_MAX_MOVES = 300  # of a mean in scikit-learn's MeanShift, as is the quantile below
_QUANTILE = 0.3


@dataclass(frozen=True)
class FixationClusters:
    """The regions of one image that people fixate.

    They come from the people whom an agent is compared with: never show them to the agent.

    Attributes:
        centre_px: (C, 2) float64, px.
        bandwidth_px: Radius with which they were found.
    """

    centre_px: F64
    bandwidth_px: float

    def assign(self, fixation_px: F64) -> I64:
        """Return the cluster whose centre is nearest to each of (N, 2) points, (N,) int64."""
        squared = ((fixation_px[:, None] - self.centre_px) ** 2).sum(2)
        nearest: I64 = squared.argmin(1)
        return nearest


def estimate_bandwidth(points: F64) -> float:
    """Return the mean distance of a point to its k-th nearest: k = 0.3 N rounded down, and the point itself the first.

    Args:
        points: (N, 2) float64.

    Raises:
        InvalidValueError: No points.

    Reference:
        scikit-learn's ``sklearn.cluster.estimate_bandwidth`` with its defaults.

    Example:
        >>> x = np.array([0.0, 3.0, 4.0, 9.0, 9.0, 8.0, 16.0])
        >>> estimate_bandwidth(np.stack((x, x * 0), 1))  # 3, 1, 1, 0, 0, 1 and 7 to the second nearest
        1.857...
    """
    points = _points(points)
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(2))
    nth = max(1, int(len(points) * _QUANTILE))
    return float(np.partition(distances, nth - 1, axis=1)[:, nth - 1].mean())


def cluster_points(points: F64, bandwidth_px: float) -> FixationClusters:
    """Find clusters by mean shift with a flat kernel.

    A mean begins at every point and moves to the mean of all points within the bandwidth until it rests. Of means
    nearer to each other than the bandwidth the one with most points within it stays.

    Args:
        points: (N, 2) float64.
        bandwidth_px: Radius.

    Raises:
        InvalidTypeError: ``bandwidth_px`` is not a number.
        InvalidValueError: No points, or a bandwidth of 0 or less.

    Reference:
        Comaniciu and Meer (2002), Mean shift: a robust approach toward feature space analysis, IEEE PAMI 24(5); the
        same clusters as scikit-learn's ``MeanShift``.
    """
    from foveasim.metrics.kernels import shift_means

    points = _points(points)
    validation.number("bandwidth_px", bandwidth_px, 0, open_low=True)
    means, counts = np.empty_like(points), np.empty(len(points), np.int64)
    shift_means(points, float(bandwidth_px), _MAX_MOVES, means, counts)
    order = np.lexsort((means[:, 1], means[:, 0], counts))[::-1]
    left, centres = means[order], []
    while len(left):
        centres.append(left[0])
        left = left[((left - left[0]) ** 2).sum(1) > bandwidth_px**2]
    return FixationClusters(np.array(centres), float(bandwidth_px))


def _points(points: object) -> F64:
    array = np.ascontiguousarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not np.isfinite(array).all():
        raise InvalidValueError(f"points must be (N, 2), finite, at least one; got {array.shape}.")
    return array


def fit_clusters(people: Sequence[Scanpath]) -> FixationClusters:
    """Find the regions of an image from all the scanpaths of people on it.

    Of seven bandwidths, 0.2 to 1.8 times :func:`estimate_bandwidth`, the one is taken with the greatest (saccades
    between clusters - saccades within one) / number of clusters.

    Raises:
        InvalidTypeError: Not scanpaths.
        InvalidValueError: No scanpath, or fixations too few or too alike to have a bandwidth.

    Reference:
        Yang et al. (2020), Predicting goal-directed human attention using inverse reinforcement learning, CVPR,
        section 4.2; after Borji, Tavakoli, Sihite and Itti (2013), Analysis of scores, datasets, and models in visual
        saliency prediction, ICCV, section 3.4.
    """
    paths = pack_paths("people", people)
    if not len(paths.fixation_px):
        raise InvalidValueError("people must have fixations; all scanpaths are empty.")
    bandwidth = estimate_bandwidth(paths.fixation_px)
    if bandwidth == 0:
        raise InvalidValueError(
            f"the {len(paths.fixation_px)} fixations of people are too few or too alike to be clustered: their "
            "bandwidth is 0. Give the scanpaths of several people on the same image."
        )
    path = np.repeat(np.arange(len(people)), paths.lengths)
    inner = path[1:] == path[:-1]  # saccades, and not the jump from one scanpath to the next
    found, rates = [], []
    for factor in _FACTORS:
        clusters = cluster_points(paths.fixation_px, bandwidth * factor)
        same = np.diff(clusters.assign(paths.fixation_px))[inner] == 0
        found.append(clusters)
        rates.append(((~same).sum() - same.sum()) / len(clusters.centre_px))
    return found[int(np.argmax(rates))]


def sequence_score(
    first: Sequence[Scanpath],
    second: Sequence[Scanpath],
    clusters: FixationClusters,
    *,
    bin_ms: float | None = None,
    max_fixations: int | None = 16,
) -> F64:
    """Return the sequence score of every pair of scanpaths.

    Each fixation becomes the cluster whose centre is nearest. Two strings are aligned so that as many equal symbols as
    possible face each other (Needleman-Wunsch: match 1, mismatch 0, gap 0); their number is divided by the length of
    the longer string.

    Convention:
        Clusters 0, 1, 2 against 0, 2: 2 / 3. With ``bin_ms=50`` a fixation of 120 ms is written int(120 / 50) = 2
        times, one of 149 ms twice: cut off, where ScanMatch rounds.

    Args:
        first: N scanpaths, px.
        second: M scanpaths of the same image.
        clusters: Of :func:`fit_clusters`.
        bin_ms: None: one symbol a fixation. A number: one symbol for each so many ms; 50 is usual.
        max_fixations: Both are cut off after so many fixations; None: never.

    Returns:
        (N, M) float64, 0 to 1; nan where a string is empty.

    Raises:
        InvalidTypeError: Not scanpaths, or a setting of another type.
        InvalidValueError: No scanpath, or a setting out of range.

    Reference:
        Yang et al. (2020), CVPR, section 4.2.
    """
    from foveasim.metrics.kernels import align_strings

    if not isinstance(clusters, FixationClusters):
        raise InvalidTypeError(f"clusters must come from fit_clusters; got {type(clusters).__name__}.")
    strings = []
    for name, scanpaths in (("first", first), ("second", second)):
        paths = pack_paths(name, scanpaths)
        times = np.ones(len(paths.fixation_px), np.int64)
        if bin_ms is not None:
            validation.number("bin_ms", bin_ms, 0, open_low=True)
            times = (paths.duration_ms / bin_ms).astype(np.int64)
        if max_fixations is not None:
            validation.whole("max_fixations", max_fixations, 1, 10**6)
            index = np.arange(len(times)) - np.repeat(paths.start[:-1], paths.lengths)
            times = np.where(index < max_fixations, times, 0)
        ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(times)))
        strings.append((np.repeat(clusters.assign(paths.fixation_px), times), ends[paths.start]))
    (a, start_a), (b, start_b) = strings
    scores = np.empty((len(first), len(second)), np.float64)
    align_strings(a, start_a, b, start_b, np.eye(len(clusters.centre_px)), 0.0, scores)
    return scores / np.maximum(1, np.maximum.outer(np.diff(start_a), np.diff(start_b)))
