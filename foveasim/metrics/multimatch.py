"""Scanpaths compared in five respects: MultiMatch, and windows of every length: scaled time-delay embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.metrics.pairs import pack_paths
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["MULTIMATCH", "multimatch", "time_delay_embedding"]

F64 = NDArray[np.float64]

MULTIMATCH = ("shape", "direction", "length", "position", "duration")
"""What the five numbers of MultiMatch are, in order."""


def multimatch(first: Sequence[Scanpath], second: Sequence[Scanpath], size: tuple[int, int]) -> F64:
    """Return the five MultiMatch similarities of every pair of scanpaths.

    The saccades of both are aligned so that the summed length of their differences is least: a way from the first pair
    to the last through the matrix of all pairs, in steps right, down or both, which costs the pairs that it enters.
    Over the aligned saccades u and v, which leave the fixations f and g, the median is taken of

    - shape: 1 - |u - v| / (2 D), with D the diagonal of the image
    - direction: 1 - angle between u and v / pi; a saccade of length 0 points right
    - length: 1 - ||u| - |v|| / D
    - position: 1 - |f - g| / D
    - duration: 1 - |difference| / longer of the two fixations; 1 where both are 0

    Nothing is simplified before: the thresholds of the original toolbox are off, as in all published work on OSIE. The
    last fixation counts only as the end of the last saccade. Where several ways cost the same, the one with the most
    steps to both is taken.

    Convention:
        D is 1000 px on a 600 x 800 image. Two paths that differ by a shift of 100 px score 1 / 1 / 1 / 0.9 / 1. Random
        scanpaths score near 0.9 in shape and length: these two say little, compare them with baselines.

    Args:
        first: N scanpaths, px of an image of ``size``.
        second: M scanpaths, of the same image.
        size: (H, W), px.

    Returns:
        (N, M, 5) float64, 0 to 1 for fixations inside the image, in the order of :data:`MULTIMATCH`; nan where a
        scanpath has fewer than 3 fixations. What is published as one MultiMatch number is the mean of the five.

    Raises:
        InvalidTypeError: Not scanpaths.
        InvalidValueError: No scanpath, or a size out of range.

    Reference:
        Jarodzka, Holmqvist and Nystrom (2010), A vector-based, multidimensional scanpath similarity measure; Dewhurst
        et al. (2012), It depends on how you look at it, Behavior Research Methods 44. Equal to
        ``multimatch_gaze.docomparison(..., grouping=False)`` (Wagner, Halchenko and Hanke 2019).
    """
    from foveasim.metrics.kernels import match_paths

    size = validation.size_hw("size", size, minimum=1)
    a, b = pack_paths("first", first), pack_paths("second", second)
    differences = np.empty((len(first), len(second), 5), np.float64)
    match_paths(a.fixation_px, a.duration_ms, a.start, b.fixation_px, b.duration_ms, b.start, differences)
    diagonal = math.hypot(*size)
    similarities: F64 = 1 - differences / np.array([2 * diagonal, math.pi, diagonal, diagonal, 1])
    return similarities


def time_delay_embedding(model: Sequence[Scanpath], people: Sequence[Scanpath], size: tuple[int, int]) -> F64:
    """Return the scaled time-delay embedding (STDE) of every pair of scanpaths.

    Coordinates are divided by the longer side of the image. For every k from 1 to the length of the shorter scanpath,
    each window of k successive fixations of the model is compared with the nearest window of the person: the mean of
    the k distances. The mean over the model's windows is t_k, and the score is the mean of exp(-t_k) over k.

    Convention:
        1 where the model's path is a part of the person's. It is not symmetric: the windows are the model's, and short
        paths are easily found in long ones. A path at (0, 0) against one at (800, 0) scores exp(-1) = 0.368.

    Args:
        model: N scanpaths, px of an image of ``size``.
        people: M scanpaths, of the same image.
        size: (H, W), px.

    Returns:
        (N, M) float64, 0 to 1; nan where a scanpath is empty.

    Raises:
        InvalidTypeError: Not scanpaths.
        InvalidValueError: No scanpath, or a size out of range.

    Reference:
        Wang, Chen, Wang, Jiang, Fang and Yao (2011), Simulating human saccadic scanpaths on natural images, CVPR; in
        the form of Zanca, Serchi, Piu, Rosini and Rufa (2018), FixaTons.
    """
    from foveasim.metrics.kernels import embed_paths

    size = validation.size_hw("size", size, minimum=1)
    a, b = pack_paths("model", model), pack_paths("people", people)
    scores = np.empty((len(model), len(people)), np.float64)
    embed_paths(a.fixation_px / max(size), a.start, b.fixation_px / max(size), b.start, scores)
    return scores
