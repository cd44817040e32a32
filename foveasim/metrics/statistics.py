"""How sure a number is that was estimated from a sample: intervals of means and of proportions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError

__all__ = ["Z_95", "resample", "wilson"]

Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def resample(scenes: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw how often each scene stands in each bootstrap sample, (R, S) float64; rows sum to S.

    Reference:
        Efron and Tibshirani 1993, An introduction to the bootstrap, section 13.3 (percentile intervals).
    """
    draws = np.random.default_rng(seed).multinomial(scenes, np.full(scenes, 1 / scenes), size=resamples)
    return draws.astype(np.float64)


def wilson(right: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, 95 % by default.

    Args:
        right: Successes.
        count: Trials, at least 1.
        z: Quantile of the normal distribution.

    Raises:
        InvalidValueError: Not 0 <= right <= count, or no trial.

    Reference:
        Wilson (1927), Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22.

    Example:
        >>> low, high = wilson(50, 100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if count < 1 or not 0 <= right <= count:
        raise InvalidValueError(f"right must be from 0 to count, and count at least 1; got {right} of {count}.")
    share, weight = right / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    # At 0 and 1 the ends are exactly there; rounding would put the share outside its interval.
    low, high = (0.0 if right == 0 else middle - half), (1.0 if right == count else middle + half)
    return low, high
