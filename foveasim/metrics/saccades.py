"""Distributions of saccades and of scores, and how far two of them are apart.

A mean score over pairs of scanpaths has no ceiling at what people reach: a policy that always takes the one best place
scores as people do among themselves on OSIE (ScanMatch 0.40), and is nothing like them (0.68 with itself, where people
have 0.40). What is here shows such a collapse.

Convention:
    Directions are atan2(dy, dx) with y down: 0 points right, 90 degrees down, -90 degrees up. A histogram gets 0.5 in
    every bin before it is made a distribution, so that no bin is empty: counts 3, 0, 0 become 7 / 9,
    1 / 9, 1 / 9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.metrics.pairs import mean_pairs, pack_paths
from foveasim.scanpath.scanpath import Scanpath

__all__ = [
    "amplitude_counts",
    "direction_counts",
    "diversity_score",
    "js_divergence",
    "kl_divergence",
    "saccades_px",
    "scanmatch_kl",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_PRIOR = 0.5  # in every bin: the Krichevsky-Trofimov estimate


def saccades_px(scanpaths: Sequence[Scanpath]) -> F64:
    """Return all saccades of all scanpaths, (S, 2) float64, px: from each fixation to the next of the same scanpath.

    Raises:
        InvalidTypeError: Not scanpaths.
        InvalidValueError: No scanpath.
    """
    paths = pack_paths("scanpaths", scanpaths)
    path = np.repeat(np.arange(len(scanpaths)), paths.lengths)
    steps: F64 = np.diff(paths.fixation_px, axis=0)[path[1:] == path[:-1]]
    return steps


def amplitude_counts(scanpaths: Sequence[Scanpath], *, bin_px: float = 20.0, bins: int = 30) -> I64:
    """Count saccades by amplitude, (bins,) int64; the last bin is open.

    Args:
        scanpaths: Pooled over images and subjects.
        bin_px: Width of a bin. The default fits images of 600 x 800 px with 24 px to a degree; scale it with the image.
        bins: Number of bins.

    Raises:
        InvalidTypeError: Not scanpaths, or a setting of another type.
        InvalidValueError: No scanpath, or a setting out of range.
    """
    validation.number("bin_px", bin_px, 0, open_low=True)
    bins = validation.whole("bins", bins, 2, 10**4)
    amplitude = np.hypot(*saccades_px(scanpaths).T)
    counts: I64 = np.bincount(np.minimum(amplitude // bin_px, bins - 1).astype(np.int64), minlength=bins)
    return counts


def direction_counts(scanpaths: Sequence[Scanpath], *, bins: int = 36) -> I64:
    """Count saccades by direction, (bins,) int64; saccades of length 0 have none and are left out.

    Args:
        scanpaths: Pooled over images and subjects.
        bins: Number of bins; the first begins at -180 degrees, which points left.

    Raises:
        InvalidTypeError: Not scanpaths, or a setting of another type.
        InvalidValueError: No scanpath, or a setting out of range.
    """
    bins = validation.whole("bins", bins, 2, 10**4)
    steps = saccades_px(scanpaths)
    steps = steps[(steps != 0).any(1)]
    turn = (np.arctan2(steps[:, 1], steps[:, 0]) + math.pi) / (2 * math.pi)
    counts: I64 = np.bincount(np.floor(turn * bins).astype(np.int64) % bins, minlength=bins)
    return counts


def _distributions(p: object, q: object) -> tuple[F64, F64]:
    found = []
    for name, value in (("p", p), ("q", q)):
        counts = np.asarray(value, np.float64)
        if counts.ndim != 1 or not counts.size or not np.isfinite(counts).all() or (counts < 0).any():
            raise InvalidValueError(f"{name} must be (bins,) counts, 0 or more; got {value!r}.")
        counts = counts + _PRIOR
        found.append(counts / counts.sum())
    if found[0].shape != found[1].shape:
        raise InvalidValueError(f"p and q must have the same bins; got {found[0].size} and {found[1].size}.")
    return found[0], found[1]


def kl_divergence(p: Sequence[float] | I64 | F64, q: Sequence[float] | I64 | F64, *, nats: bool = False) -> float:
    """Return the Kullback-Leibler divergence of two histograms, p from q.

    Args:
        p: (bins,) counts, for instance people's.
        q: (bins,) counts in the same bins, the policy's.
        nats: Whether in nats; otherwise in bits.

    Raises:
        InvalidValueError: Not counts, or not the same bins.

    Reference:
        Kullback and Leibler (1951), On information and sufficiency.

    Example:
        >>> kl_divergence([1, 0], [0, 1])  # (0.75, 0.25) from (0.25, 0.75): 0.5 log2 3
        0.792...
    """
    a, b = _distributions(p, q)
    divergence = float((a * np.log(a / b)).sum())
    return divergence if nats else divergence / math.log(2)


def js_divergence(p: Sequence[float] | I64 | F64, q: Sequence[float] | I64 | F64) -> float:
    """Return the Jensen-Shannon divergence of two histograms, in bits, 0 to 1.

    It depends on the number of counts: 600 human scanpaths against 600 of other images score 0.002 in amplitude and in
    direction, one person's 40 against the others 0.025 and 0.022. Compare equal numbers of scanpaths.

    Args:
        p: (bins,) counts.
        q: (bins,) counts in the same bins.

    Raises:
        InvalidValueError: Not counts, or not the same bins.

    Reference:
        Lin (1991), Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37(1).

    Example:
        >>> js_divergence([5, 5, 2], [5, 5, 2])
        0.0
    """
    a, b = _distributions(p, q)
    middle = (a + b) / 2
    return float((a * np.log2(a / middle)).sum() + (b * np.log2(b / middle)).sum()) / 2


def scanmatch_kl(people: F64, policy: F64, *, bins: int = 25) -> float:
    """Return how far a policy's ScanMatch scores against people are distributed from those of people, in nats (SM-KL).

    Args:
        people: Scores of people against other people, any shape; of all images together.
        policy: Scores of the policy against people.
        bins: Equal bins on [0, 1]. The number is ours; the paper does not state its own.

    Raises:
        InvalidTypeError: ``bins`` is not a whole number.
        InvalidValueError: A score outside [0, 1], or none at all. Pairs without a score (nan) are left out.

    Reference:
        D'Amelio, Cartella, Cuculo, Lucchi, Cornia, Cucchiara and Boccignone (2025), TPP-Gaze: modelling gaze dynamics
        in space and time with neural temporal point processes, WACV.
    """
    bins = validation.whole("bins", bins, 2, 10**4)
    counts = []
    for name, value in (("people", people), ("policy", policy)):
        scores = np.asarray(value, np.float64).ravel()
        scores = scores[~np.isnan(scores)]
        if not scores.size or scores.min() < 0 or scores.max() > 1:
            raise InvalidValueError(f"{name} must hold scores from 0 to 1, at least one; got {value!r}.")
        counts.append(np.bincount(np.minimum((scores * bins).astype(np.int64), bins - 1), minlength=bins))
    return kl_divergence(counts[0], counts[1], nats=True)


def diversity_score(against_people: F64, among_policy: F64, among_people: F64) -> float:
    """Return the likeness to people on one image, lowered by how much too like or unlike each other the paths are.

    S(policy, people) / (1 + |S(policy, policy) - S(people, people)|), each S the mean of a pair metric (DSS).

    Convention:
        0.4 against people, 0.7 among itself where people have 0.4: 0.4 / 1.3 = 0.308.

    Args:
        against_people: (N, M) scores of a pair metric.
        among_policy: (N, N) scores of the policy's own scanpaths; those of different ones count.
        among_people: (M, M) scores.

    Returns:
        nan where no pair has a score.

    Raises:
        InvalidValueError: Not matrices.

    Reference:
        Cartella et al. (2025), Modeling human gaze behavior with diffusion models for unified scanpath prediction
        (ScanDiff), ICCV.
    """
    own = mean_pairs(among_policy, same=True).mean - mean_pairs(among_people, same=True).mean
    return mean_pairs(against_people).mean / (1 + abs(own))
