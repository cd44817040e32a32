"""Whether the findings of the paper held in a comparison: differences of accuracy and latent measures with intervals.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, results. Efron, Tibshirani (1993), An Introduction
    to the Bootstrap, percentile intervals, chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError
from foveasim.experiments.paper.run import UNTRAINED, RunResult

__all__ = [
    "PUBLISHED",
    "TITLES",
    "VERDICTS",
    "ClaimResult",
    "IntervalEstimate",
    "Runs",
    "evaluate_claims",
    "spearman",
    "title_of",
]

DRAWS = 2000
CHUNK = 100  # draws at a time: a few megabytes for 10,000 test images
NO_COVARIANCE = 1e-9  # of a latent that has died it is 0, which has no logarithm
MIN_RANKED = 4  # conditions: three have so few orders that chance makes them agree one time in six

TITLES = {
    "paper/random_patches": "random patches",
    "paper/periphery": "masked periphery",
    "paper/covert_random": "covert attention, random",
    "paper/covert_object": "covert attention, object",
    "paper/fovea_filter": "fovea filter",
    "paper/autoencoder": "plain autoencoder",
    "foveasim/best": "foveasim/best",
    "paper/periphery_no_crops": "periphery, no crops",
    "paper/periphery_jitter": "periphery, jitter only",
    "paper/periphery_crops_jitter": "periphery, crops + jitter",
    "paper/random_patches_blurry": "random patches, blurry",
    "paper/random_patches_object": "random patches, object loss",
    "paper/periphery_blurry": "periphery, blurry",
    "paper/periphery_object": "periphery, object loss",
    "paper/periphery_published_fill": "periphery, published fill",
    "random": "random network",
    "pixels": "raw pixels",
}
"""What conditions are called, in the order of the report. Others keep their own names."""

PUBLISHED = {
    "paper/random_patches": 0.703,
    "paper/periphery": 0.68,
    "paper/periphery_no_crops": 0.567,
    "paper/fovea_filter": 0.50,
    "paper/random_patches_blurry": 0.565,
    "paper/periphery_blurry": 0.49,
    "paper/autoencoder": 0.47,
    "pixels": 0.36,
}
"""Test accuracy of the linear readout on STL-10, read off the published figure, ± 0.007."""

VERDICTS = ("held", "did not hold", "not decided", "reported", "not run")

PATCHES, PERIPHERY, NO_CROPS = "paper/random_patches", "paper/periphery", "paper/periphery_no_crops"
AUTOENCODER, BEST = "paper/autoencoder", "foveasim/best"

# (claim, what is to be higher, what is to be lower, whether the paper or we claim it)
PAIRS = (
    *(
        (f"{TITLES[high]} above {TITLES[low]}", high, low, True)
        for high in (PATCHES, PERIPHERY)
        for low in (NO_CROPS, "paper/fovea_filter", AUTOENCODER, "pixels")
        if (high, low) != (PERIPHERY, NO_CROPS)
    ),
    ("crops help masked periphery", PERIPHERY, NO_CROPS, True),
    ("uniform above blurry mask: random patches", PATCHES, "paper/random_patches_blurry", True),
    ("uniform above blurry mask: periphery", PERIPHERY, "paper/periphery_blurry", True),
    ("loss on the main object helps random patches", "paper/random_patches_object", PATCHES, True),
    ("loss on the main object helps periphery", "paper/periphery_object", PERIPHERY, True),
    ("ours: foveasim/best above random patches", BEST, PATCHES, True),
    ("jitter instead of nothing, periphery", "paper/periphery_jitter", NO_CROPS, False),
    ("jitter besides crops, periphery", "paper/periphery_crops_jitter", PERIPHERY, False),
    ("published instead of visible mean as fill", "paper/periphery_published_fill", PERIPHERY, False),
    ("covert attention, random place, against none", "paper/covert_random", PERIPHERY, False),
    ("covert attention, object, against none", "paper/covert_object", PERIPHERY, False),
)


def title_of(condition: str) -> str:
    """Return what a condition is called."""
    return TITLES.get(condition, condition)


@dataclass(frozen=True)
class IntervalEstimate:
    """A number and its 95 % interval.

    Attributes:
        value: The number.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: NDArray[np.float64]) -> IntervalEstimate:
        """Take the percentile interval of bootstrap draws; none where a draw is not a number."""
        low, high = np.quantile(draws, (0.025, 0.975)) if np.isfinite(draws).all() else (math.nan, math.nan)
        return cls(value, float(low), float(high))

    def verdict(self) -> str:
        """``held`` above 0, ``did not hold`` below, otherwise ``not decided``."""
        if self.low > 0:
            return "held"
        return "did not hold" if self.high < 0 else "not decided"


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claim.

    Attributes:
        claim: What is claimed.
        network: Of which network, or networks.
        verdict: One of ``VERDICTS``; ``reported`` where nothing is claimed.
        estimate: The difference that decided, or None where it was not run.
        figures: Its numbers in words.
        claimed: Whether the paper or we claim it, or only the difference is of interest.
    """

    claim: str
    network: str
    verdict: str
    estimate: IntervalEstimate | None
    figures: str
    claimed: bool = True


class Runs:
    """The runs of a comparison, and bootstrap draws of their accuracies.

    A draw takes as many test images with replacement as there are, the same for all runs, and as many seeds of each
    condition, independently. An interval thus covers both which images were tested and which seeds were run. With n
    seeds the spread between them comes out too narrow by the square root of (n - 1) / n, as in every bootstrap.

    Args:
        results: At least one.
        seed: Of the draws.
        draws: How many.

    Raises:
        InvalidValueError: No run, runs of different test images, or a run that is there twice.
    """

    def __init__(self, results: Sequence[RunResult], seed: int = 0, draws: int = DRAWS) -> None:
        tested = {len(result.right) for result in results}
        if len(tested) != 1 or 0 in tested:
            raise InvalidValueError(
                f"results must be at least one, all of the same test images; got {sorted(tested)} test images. "
                "Report runs of one comparison."
            )
        self.seed, self.draws = seed, draws
        self.networks = list(dict.fromkeys(result.network for result in results))
        known = [*TITLES, *dict.fromkeys(r.condition for r in results if r.condition not in TITLES)]
        self.conditions = [c for c in known if any(r.condition == c for r in results)]
        self._runs: dict[tuple[str, str], list[int]] = {}
        for place, result in enumerate(results):
            members = self._runs.setdefault((result.network, result.condition), [])
            if any(results[other].seed == result.seed for other in members):
                name = f"{result.network} {result.condition} seed {result.seed}"
                raise InvalidValueError(f"results must have each run once; got {name} twice.")
            members.append(place)
        self._results = list(results)
        self._counts = self._over_images(np.stack([result.right for result in results]).astype(np.float32))

    def _over_images(self, right: NDArray[np.float32]) -> NDArray[np.float64]:
        """How many of the resampled test images each run named rightly, (draws, runs)."""
        rng, count = np.random.default_rng((self.seed, 0)), right.shape[1]
        parts = []
        for start in range(0, self.draws, CHUNK):
            lanes = min(CHUNK, self.draws - start)
            drawn = rng.integers(count, size=(lanes, count)) + count * np.arange(lanes)[:, None]
            times = np.bincount(drawn.ravel(), minlength=lanes * count).reshape(lanes, count)
            parts.append((times.astype(np.float32) @ right.T).astype(np.float64))
        return np.concatenate(parts)

    def of(self, network: str, condition: str) -> list[RunResult]:
        """Return the runs of a condition, by seed; raw pixels are the same for every network."""
        return [self._results[place] for place in self._places(network, condition)]

    def _places(self, network: str, condition: str) -> list[int]:
        found = self._runs.get((network, condition), [])
        if not found and condition == "pixels":
            found = next((places for (_, name), places in self._runs.items() if name == "pixels"), [])
        return sorted(found, key=lambda place: self._results[place].seed)

    def trained(self, network: str) -> list[str]:
        """Return the conditions that a network was trained under."""
        return [c for c in self.conditions if c not in UNTRAINED and self.of(network, c)]

    def _seeds(self, network: str, condition: str, count: int) -> NDArray[np.float64]:
        """How often each seed of a condition is in every draw, (draws, seeds)."""
        # Of a condition's own: what is drawn for it does not depend on which others were run.
        name = [ord(letter) for letter in f"{network} {condition}"]
        rng = np.random.default_rng((self.seed, 1, *name))
        return rng.multinomial(count, np.full(count, 1 / count), size=self.draws).astype(np.float64)

    def bootstrap_accuracy(self, network: str, condition: str) -> NDArray[np.float64]:
        """Return bootstrap draws of the accuracy of a condition that was run, (draws,)."""
        places = self._places(network, condition)
        # Whole numbers up to the division: equal conditions differ by 0, not by a rounding error of one sign.
        right = (self._counts[:, places] * self._seeds(network, condition, len(places))).sum(1)
        return np.asarray(right / (len(places) * len(self._results[0].right)))

    def bootstrap_seed_mean(self, network: str, condition: str, values: Sequence[float]) -> NDArray[np.float64]:
        """Return bootstrap draws of the mean of one number for each seed, (draws,); NaN where there is one seed."""
        if len(values) < 2:
            return np.full(self.draws, math.nan)
        return np.asarray(self._seeds(network, condition, len(values)) @ np.asarray(values, float) / len(values))

    def accuracy(self, network: str, condition: str) -> IntervalEstimate:
        """Return the mean accuracy over seeds of a condition that was run."""
        mean = float(np.mean([result.right.mean() for result in self.of(network, condition)]))
        return IntervalEstimate.of(mean, self.bootstrap_accuracy(network, condition))

    def difference(self, network: str, high: str, low: str) -> IntervalEstimate:
        """Return by how much one condition is above another; both were run."""
        value = self.accuracy(network, high).value - self.accuracy(network, low).value
        return IntervalEstimate.of(
            value, self.bootstrap_accuracy(network, high) - self.bootstrap_accuracy(network, low)
        )


def evaluate_claims(runs: Runs) -> list[ClaimResult]:
    """Return what became of every claim, for every network, then for every pair of networks."""
    found = [finding for network in runs.networks for finding in _of_network(runs, network)]
    return [*found, *_between_networks(runs)]


def _of_network(runs: Runs, network: str) -> Iterator[ClaimResult]:
    yield from (_pair(runs, network, *pair) for pair in PAIRS if pair[3])
    for condition in (PATCHES, PERIPHERY):
        yield _falls(runs, network, condition, f"covariance falls: {title_of(condition)}", -1.0)
    yield _falls(runs, network, AUTOENCODER, "covariance does not fall: plain autoencoder", 1.0)
    for condition in (PATCHES, PERIPHERY):
        yield _falls_further(runs, network, condition)
    yield from (_pair(runs, network, *pair) for pair in PAIRS if not pair[3])
    for condition in (PATCHES, PERIPHERY, AUTOENCODER):
        for measure, name in (("unit_sparsity", "units"), ("population_sparsity", "population")):
            yield _rises(runs, network, condition, measure, f"sparsity of {name}: {title_of(condition)}")


def _missing(claim: str, network: str, claimed: bool = True) -> ClaimResult:
    return ClaimResult(claim, network, "not run", None, "", claimed)


def _pair(runs: Runs, network: str, claim: str, high: str, low: str, claimed: bool) -> ClaimResult:
    if not runs.of(network, high) or not runs.of(network, low):
        return _missing(claim, network, claimed)
    first, second = (runs.accuracy(network, name).value for name in (high, low))
    found = runs.difference(network, high, low)
    figures = (
        f"{100 * first:.1f} - {100 * second:.1f} = {100 * found.value:+.1f} "
        f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"
    )
    seen = [max(result.images_seen for result in runs.of(network, name)) for name in (high, low)]
    if high == BEST and abs(seen[0] - seen[1]) > 0.01 * max(seen):
        unequal = f"{figures}; but {seen[0]:,} and {seen[1]:,} images seen"
        return ClaimResult(claim, network, "not decided", found, unequal)
    return ClaimResult(claim, network, found.verdict() if claimed else "reported", found, figures, claimed)


def _series(runs: Runs, network: str, condition: str, measure: str) -> list[list[float]]:
    """A measure over training, one list for each seed, where there are at least two points."""
    found = []
    for result in runs.of(network, condition):
        points = sorted(result.latent, key=lambda point: point.images_seen)
        if len(points) > 1:
            found.append([point.measures[measure] for point in points])
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _log_ratios(series: list[list[float]]) -> list[float]:
    return [math.log(max(values[-1], NO_COVARIANCE) / max(values[0], NO_COVARIANCE)) for values in series]


def _interval(estimate: IntervalEstimate, format_number: Callable[[float], str]) -> str:
    if math.isnan(estimate.low):
        return "(no interval)"
    return f"[{format_number(estimate.low)}, {format_number(estimate.high)}]"


def _times(log_ratio: float) -> str:
    return f"{math.exp(log_ratio):.2f}"


def _falls(runs: Runs, network: str, condition: str, claim: str, sign: float) -> ClaimResult:
    """Whether covariance falls (sign -1) or not (1), from the untrained network to the last."""
    series = _series(runs, network, condition, "covariance")
    if not series:
        return _missing(claim, network)
    ratios = _log_ratios(series)
    draws = runs.bootstrap_seed_mean(network, condition, ratios)
    ratio = IntervalEstimate.of(_mean(ratios), draws)
    decided = IntervalEstimate.of(sign * ratio.value, sign * draws)
    first, early, last, peak = map(_mean, zip(*((v[0], v[1], v[-1], max(v)) for v in series), strict=True))
    figures = (
        f"{first:.1f} untrained, {early:.1f} at the first snapshot, {peak:.1f} at most, {last:.1f} at the end: "
        f"× {_times(ratio.value)} {_interval(ratio, _times)}"
    )
    constant = _mean([values[-1] for values in _series(runs, network, condition, "constant_share")])
    if constant > 0.01:
        figures += f"; {100 * constant:.0f} % of the units are constant, which lowers it without decorrelating"
    return ClaimResult(claim, network, decided.verdict(), decided, figures)


def _falls_further(runs: Runs, network: str, condition: str) -> ClaimResult:
    claim = f"covariance falls further than in the plain autoencoder: {title_of(condition)}"
    ours, plain = (_log_ratios(_series(runs, network, name, "covariance")) for name in (condition, AUTOENCODER))
    if not ours or not plain:
        return _missing(claim, network)
    draws = runs.bootstrap_seed_mean(network, AUTOENCODER, plain) - runs.bootstrap_seed_mean(network, condition, ours)
    found = IntervalEstimate.of(_mean(plain) - _mean(ours), draws)
    figures = (
        f"× {_times(_mean(ours))} against × {_times(_mean(plain))}: "
        f"lower by a factor of {_times(found.value)} {_interval(found, _times)}"
    )
    return ClaimResult(claim, network, found.verdict(), found, figures)


def _rises(runs: Runs, network: str, condition: str, measure: str, claim: str) -> ClaimResult:
    series = _series(runs, network, condition, measure)
    if not series:
        return _missing(claim, network, False)
    rises = [values[-1] - values[0] for values in series]
    found = IntervalEstimate.of(_mean(rises), runs.bootstrap_seed_mean(network, condition, rises))
    first, last = _mean([v[0] for v in series]), _mean([v[-1] for v in series])
    figures = f"{first:.3f} to {last:.3f} = {found.value:+.3f} {_interval(found, '{:+.3f}'.format)}"
    return ClaimResult(claim, network, "reported", found, figures, False)


def _between_networks(runs: Runs) -> Iterator[ClaimResult]:
    for first, second in combinations(runs.networks, 2):
        both = [c for c in runs.trained(first) if runs.of(second, c)]
        claim, names = "the order of the conditions carries over", f"{first} and {second}"
        if len(both) < MIN_RANKED:
            yield ClaimResult(
                claim, names, "not run", None, f"{len(both)} conditions in common, {MIN_RANKED} are needed"
            )
            continue
        means = [np.array([[runs.accuracy(n, c).value for c in both]]) for n in (first, second)]
        draws = [np.stack([runs.bootstrap_accuracy(n, c) for c in both], 1) for n in (first, second)]
        found = IntervalEstimate.of(float(spearman(*means)[0]), spearman(*draws))
        figures = f"Spearman's rank correlation {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        yield ClaimResult(claim, names, found.verdict(), found, f"{figures} over {len(both)} conditions")


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank correlation of each row, ties at their mean rank.

    Args:
        a: (N, C).
        b: (N, C).

    Returns:
        (N,); NaN where a row is all ties.
    """
    ranks = [(x[:, :, None] > x[:, None]).sum(2) + 0.5 * (x[:, :, None] == x[:, None]).sum(2) for x in (a, b)]
    first, second = (r - r.mean(1, keepdims=True) for r in ranks)
    power = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return np.asarray(np.divide((first * second).sum(1), power, out=np.full(len(a), np.nan), where=power > 0))
