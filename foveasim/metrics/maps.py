"""Maps compared with where people looked: NSS, AUC, shuffled AUC and information gain, fixation by fixation.

Convention:
    A map is (H, W), and a fixation (x, y) in px of that map lies in the pixel (floor x, floor y); points on or beyond
    the right and lower edge belong to the last pixel. Scale fixations to the map, never the map to the fixations
    (:meth:`Scanpath.rescale`). Every score comes as one value for each fixation, (N,): their mean is the score of the
    image, and the mean over images that of an agent. (pysaliency's default averages over the fixations of all images.)

    With one map for each fixation, (N, H, W), the same functions give the conditional scores (see
    :func:`conditional_scores`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.geometry import pixel_index
from foveasim.scanpath.scanpath import Scanpath

__all__ = [
    "ConditionalScores",
    "auc",
    "conditional_scores",
    "fixation_density",
    "fixation_map",
    "information_gain",
    "nss",
    "shuffled_auc",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def _index(name: str, fixation_px: object, size: tuple[int, int]) -> tuple[I64, I64]:
    points = validation.points(name, fixation_px)
    index = pixel_index(points.cpu(), size).numpy()
    return index[:, 0], index[:, 1]


def _maps(name: str, value: object, count: int) -> F64:
    try:
        source = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        array = np.asarray(source, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(f"{name} must be a map (H, W) of numbers; got {type(value).__name__}.") from error
    if array.ndim not in (2, 3) or 0 in array.shape[-2:] or (array.ndim == 3 and len(array) != count):
        raise InvalidValueError(
            f"{name} must be one map (H, W), or {count} of them, one for each fixation; got {array.shape}."
        )
    if not np.isfinite(array).all():
        raise InvalidValueError(f"{name} must be finite; it holds {int((~np.isfinite(array)).sum())} nan or infinite.")
    return array


def _values_at(maps: F64, x: I64, y: I64) -> F64:
    found: F64 = maps[y, x] if maps.ndim == 2 else maps[np.arange(len(x)), y, x]
    return found


def fixation_map(fixation_px: object, size: tuple[int, int], sigma_px: float) -> F64:
    """Return the fixations of people as a smooth map: a Gaussian on the pixel of each, added up.

    Nothing comes back from beyond the edges (zero padding). The kernel is not cut off.

    Convention:
        One fixation far from the edges gives a map that sums to 1, one in a corner to little more than 1/4. On OSIE
        24 px of 600 x 800, which is 12 px of 300 x 400 and one degree.

    Args:
        fixation_px: (N, 2), px of the map.
        size: (H, W) of the map.
        sigma_px: Standard deviation of the Gaussian, px of the map.

    Returns:
        (H, W) float64.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: A shape or range that cannot be used.
    """
    size = validation.size_hw("size", size, minimum=1)
    sigma = validation.number("sigma_px", sigma_px, 0, open_low=True)
    x, y = _index("fixation_px", fixation_px, size)
    if len(x) < min(size):
        return _gaussians(y, size[0], sigma) @ _gaussians(x, size[1], sigma).T
    counts = np.bincount(y * size[1] + x, minlength=size[0] * size[1]).reshape(size).astype(np.float64)
    return _gaussians(np.arange(size[0]), size[0], sigma) @ counts @ _gaussians(np.arange(size[1]), size[1], sigma).T


def _gaussians(places: I64, length: int, sigma: float) -> F64:
    """Return Gaussians on a line of pixels, one for each place, (length, places); far from the ends each sums to 1."""
    away = np.arange(-length + 1, length)
    gaussian = np.exp(-(away**2) / (2 * sigma**2))
    gaussians: F64 = (gaussian / gaussian.sum())[np.arange(length)[:, None] - places + length - 1]
    return gaussians


def fixation_density(
    fixation_px: object, size: tuple[int, int], sigma_px: float, prior: F64 | None = None, weight: float = 0.001
) -> F64:
    """Return the density of fixations: (1 - weight) of their smooth map and ``weight`` of a prior, which sum to 1.

    Convention:
        The centre bias on OSIE is that of all training fixations with 0.1 % uniform (``weight=0.001``); the density of
        people, and of an agent of which there are only samples, is 90 % theirs and 10 % the centre bias
        (``prior=centre_bias, weight=0.1``). Information gain depends on both choices: keep them.

    Args:
        fixation_px: (N, 2), px of the map.
        size: (H, W) of the map.
        sigma_px: Standard deviation of the Gaussian, px of the map.
        prior: (H, W), positive; None: uniform.
        weight: Share of the prior, above 0, so that no pixel is impossible.

    Returns:
        (H, W) float64, sums to 1.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: No fixation, or a shape or range that cannot be used.
    """
    validation.number("weight", weight, 0, 1, open_low=True)
    kernel = fixation_map(fixation_px, size, sigma_px)
    if not kernel.sum() > 0:
        raise InvalidValueError("fixation_px must hold at least one fixation; got none.")
    if prior is None:
        prior = np.ones(size)
    elif np.shape(prior) != tuple(size) or not np.isfinite(prior).all() or not (np.asarray(prior) > 0).all():
        raise InvalidValueError(f"prior must be {tuple(size)}, positive everywhere; got {np.shape(prior)}.")
    density: F64 = (1 - weight) * kernel / kernel.sum() + weight * prior / prior.sum()
    return density


def nss(saliency: object, fixation_px: object) -> F64:
    """Return the normalised scanpath saliency at each fixation: (S - mean S) / standard deviation of S.

    Two uses, never to be mixed: *NSS-path*, an agent's fixations on the map of people (for a person the map of the
    others), works for any agent; *NSS-map*, people's fixations on the agent's own map.

    Convention:
        The standard deviation is that of the population. A map that is constant gives 0 everywhere. Of 100 pixels one
        is 1 and the others 0: a fixation there scores (1 - 0.01) / 0.0995 = 9.95, elsewhere -0.1005.

    Args:
        saliency: (H, W), or (N, H, W), one map for each fixation.
        fixation_px: (N, 2), px of the map.

    Returns:
        (N,) float64, in standard deviations.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: A shape that cannot be used, or a value that is not finite.

    Reference:
        Peters, Iyer, Itti and Koch (2005), Components of bottom-up gaze allocation in natural images, Vision Research
        45(18).
    """
    points = validation.points("fixation_px", fixation_px)
    maps = _maps("saliency", saliency, len(points))
    x, y = _index("fixation_px", points, (maps.shape[-2], maps.shape[-1]))
    mean, spread = maps.mean((-2, -1)), maps.std((-2, -1))
    # A constant map may have a spread of rounding errors
    flat = spread <= 1e-12 * np.abs(maps).max((-2, -1))
    return np.where(flat, 0.0, (_values_at(maps, x, y) - mean) / np.where(flat, 1.0, spread))


def _share_below(values: F64, others: F64) -> F64:
    """Return how much of ``others`` lies below each value, ties counted half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * others.size)


def auc(saliency: object, fixation_px: object) -> F64:
    """Return, for each fixation, the share of all pixels with less saliency: its mean is AUC-Judd.

    The area under the curve of hits against false alarms is the probability that a fixated pixel has more saliency
    than any pixel at random, ties counted half (Mann and Whitney), and so a mean over fixations. All pixels are
    negatives, also fixated ones. The original sweeps the values at fixations only, leaves fixated pixels out of the
    negatives and adds noise against ties; it differs in the third decimal.

    Convention:
        0.5 on a constant map. On a map of 4 pixels 1, 2, 3, 4 a fixation of the 4 scores (3 + 0.5) / 4 = 0.875.

    Args:
        saliency: (H, W), or (N, H, W), one map for each fixation.
        fixation_px: (N, 2), px of the map.

    Returns:
        (N,) float64, 0 to 1.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: A shape that cannot be used, or a value that is not finite.

    Reference:
        Judd, Ehinger, Durand and Torralba (2009), Learning to predict where humans look, ICCV; pysaliency with
        ``nonfixations='uniform'``.
    """
    points = validation.points("fixation_px", fixation_px)
    maps = _maps("saliency", saliency, len(points))
    x, y = _index("fixation_px", points, (maps.shape[-2], maps.shape[-1]))
    values = _values_at(maps, x, y)
    if maps.ndim == 2:
        return _share_below(values, maps.ravel())
    fixated = values[:, None, None]
    shares: F64 = ((maps < fixated).mean((1, 2)) + (maps <= fixated).mean((1, 2))) / 2
    return shares


def shuffled_auc(saliency: object, fixation_px: object, elsewhere_px: object) -> F64:
    """Return, for each fixation, the share of fixations of other images where the map has less: its mean is sAUC.

    What looks at the centre alone scores 0.5, since people do so on every image.

    Args:
        saliency: (H, W), or (N, H, W), one map for each fixation.
        fixation_px: (N, 2), px of the map.
        elsewhere_px: (E, 2), fixations on other images, carried over to the size of this map: a fixed draw, the same
            for all agents (on OSIE 20,000 of the training split).

    Returns:
        (N,) float64, 0 to 1.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: A shape that cannot be used, or a value that is not finite.

    Reference:
        Tatler, Baddeley and Gilchrist (2005), Visual correlates of fixation selection, Vision Research 45(5); Zhang,
        Tong, Marks, Shan and Cottrell (2008), SUN, Journal of Vision 8(7):32.
    """
    points = validation.points("fixation_px", fixation_px)
    maps = _maps("saliency", saliency, len(points))
    size = (maps.shape[-2], maps.shape[-1])
    x, y = _index("fixation_px", points, size)
    other_x, other_y = _index("elsewhere_px", elsewhere_px, size)
    if not other_x.size:
        raise InvalidValueError("elsewhere_px must hold at least one fixation of another image; got none.")
    values = _values_at(maps, x, y)
    if maps.ndim == 2:
        return _share_below(values, maps[other_y, other_x])
    others = maps[:, other_y, other_x]
    shares: F64 = ((others < values[:, None]).mean(1) + (others <= values[:, None]).mean(1)) / 2
    return shares


def information_gain(density: object, baseline: object, fixation_px: object) -> F64:
    """Return how many bits better than a baseline each fixation was predicted: log2 p - log2 p of the baseline.

    Convention:
        Both sum to 1 over the pixels. 1 bit: the fixated pixel was twice as likely as under the centre bias. pysaliency
        without a baseline compares with the uniform density: a gain of another kind, 0.6 bits more on OSIE.

    Args:
        density: (H, W), or (N, H, W), one for each fixation; positive at the fixations, sums to 1.
        baseline: (H, W) or (N, H, W), likewise; usually the centre bias of the training split.
        fixation_px: (N, 2), px of the map.

    Returns:
        (N,) float64, bits.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: A shape that cannot be used, a density that does not sum to 1, or one that is 0 at a
            fixation: mix it with the centre bias (:func:`fixation_density`).

    Reference:
        Kümmerer, Wallis and Bethge (2015), Information-theoretic model comparison unifies saliency metrics, PNAS
        112(52).
    """
    points = validation.points("fixation_px", fixation_px)
    logs = []
    for name, value in (("density", density), ("baseline", baseline)):
        maps = _maps(name, value, len(points))
        total = maps.sum((-2, -1))
        if not np.allclose(total, 1, atol=1e-3):
            raise InvalidValueError(f"{name} must sum to 1; it sums to {np.ravel(total)[0]:.4g}. Divide it by its sum.")
        x, y = _index("fixation_px", points, (maps.shape[-2], maps.shape[-1]))
        fixated = _values_at(maps, x, y)
        if not (fixated > 0).all():
            where = int(np.flatnonzero(~(fixated > 0))[0])
            raise InvalidValueError(f"{name} is not positive at fixation {where}. Mix it with the centre bias.")
        logs.append(np.log2(fixated))
    return logs[0] - logs[1]


@dataclass(frozen=True)
class ConditionalScores:
    """What a priority map that follows a person scores, for each of that person's fixations after the first.

    Attributes:
        nss: (n - 1,) float64.
        auc: (n - 1,) float64.
        information_gain: (n - 1,) float64, bits.
    """

    nss: F64
    auc: F64
    information_gain: F64


def conditional_scores(maps: object, path: Scanpath, baseline: object) -> ConditionalScores:
    """Score an agent that predicts where a person looks next from where that person has looked so far.

    Nothing is generated, so that neither the length nor the durations of a scanpath matter: the best comparison for an
    agent that has a priority map.

    Args:
        maps: (n - 1, H, W) densities, each positive and summing to 1: map i - 1 for fixation i of the path, made from
            its fixations 0 to i - 1 only.
        path: n fixations, px of the maps.
        baseline: (H, W) density, usually the centre bias of the training split.

    Raises:
        InvalidTypeError: Not a scanpath, or not numbers.
        InvalidValueError: A path of fewer than 2 fixations, or maps that cannot be used.

    Reference:
        Kümmerer and Bethge (2021), State-of-the-art in human scanpath prediction, arXiv:2102.12239.
    """
    if not isinstance(path, Scanpath):
        raise InvalidTypeError(f"path must be a Scanpath; got {type(path).__name__}.")
    if len(path) < 2:
        raise InvalidValueError(f"path must have 2 or more fixations, the first is given; got {len(path)}.")
    later = path.fixation_px[1:]
    given = _maps("maps", maps, len(later))
    if given.ndim != 3:
        raise InvalidValueError(f"maps must be (n - 1, H, W), one for each fixation but the first; got {given.shape}.")
    return ConditionalScores(nss(given, later), auc(given, later), information_gain(given, baseline, later))
