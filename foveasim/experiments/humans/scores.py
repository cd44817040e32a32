"""Scores of scanpaths against those of people, image by image, and over all images with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveasim import metrics
from foveasim.experiments.humans.free_viewing import CONDITIONAL_SCORES, AgentScanpaths
from foveasim.metrics import Estimate
from foveasim.metrics.people import People
from foveasim.metrics.statistics import resample
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["IMAGE_SCORES", "POOLED_SCORES", "SCORES", "ScanpathScorer", "ScanpathScores", "ScoreSpec"]

Paths = Sequence[Sequence[Scanpath]]
F64 = NDArray[np.float64]

_SHARE = 0.1  # of the centre bias in the density of samples


@dataclass(frozen=True)
class ScoreSpec:
    """What a score is called and how it is read.

    Attributes:
        title: For people.
        digits: Printed digits after the point.
        better: 1 more is better, -1 less is, 0 the nearer to people the better.
    """

    title: str
    digits: int = 3
    better: int = 1


IMAGE_SCORES = {
    "scanmatch": ScoreSpec("ScanMatch"),
    "scanmatch_duration": ScoreSpec("ScanMatch with duration"),
    **{f"multimatch_{name}": ScoreSpec(f"MultiMatch {name}") for name in metrics.MULTIMATCH},
    "edits": ScoreSpec("string edit distance", 2, -1),
    "edits_best": ScoreSpec("string edit distance to the nearest person", 2, -1),
    "edits_normalised": ScoreSpec("string edit distance, normalised", 3, -1),
    "sequence": ScoreSpec("sequence score"),
    "sequence_duration": ScoreSpec("sequence score with duration"),
    "stde": ScoreSpec("time-delay embedding"),
    "nss_path": ScoreSpec("NSS of its fixations on people's map", 2),
    "nss_map": ScoreSpec("NSS of people's fixations on its map", 2),
    "auc": ScoreSpec("AUC of its map"),
    "sauc": ScoreSpec("shuffled AUC of its map"),
    "information": ScoreSpec("information gain of its map, bits", 2),
    "self_scanmatch": ScoreSpec("ScanMatch among its own", 3, 0),
    "dss": ScoreSpec("diversity-aware ScanMatch"),
    "cnss": ScoreSpec("NSS of its map, given the person's path", 2),
    "cauc": ScoreSpec("AUC of its map, given the person's path"),
    "cig": ScoreSpec("information gain of its map, given the person's path, bits", 2),
}
"""Scores that every image has, with bootstrap intervals over images."""

POOLED_SCORES = {
    "amplitude_js": ScoreSpec("amplitude JS, bits", 3, -1),
    "direction_js": ScoreSpec("direction JS, bits", 3, -1),
    "amplitude_kl": ScoreSpec("amplitude KL from people, bits", 3, -1),
    "direction_kl": ScoreSpec("direction KL from people, bits", 3, -1),
    "scanmatch_kl": ScoreSpec("SM-KL, nats", 3, -1),
}
"""Scores of the saccades and pairs of all images together; drawing images anew would bias them, so they have none."""

SCORES: Mapping[str, ScoreSpec] = {**IMAGE_SCORES, **POOLED_SCORES}
"""All scores by name."""


@dataclass(frozen=True, eq=False)
class ScanpathScores:
    """How one agent, baseline or the people themselves score.

    Attributes:
        label: What it is called.
        kind: "people", "agent" or "floor", which is a baseline.
        privileged: Whether it saw the hidden scene.
        own_durations: Whether the durations are its own.
        images: Name of an image score → (S,) float64, nan where an image has none.
        estimates: Name of an image score → mean over the images and 95 % interval; None where no image has it.
        pooled: Name of a pooled score → value.
        undefined: Share of pairs without a MultiMatch, for fewer than 3 fixations.
        amplitude: (30,) counts of saccades, bins of 20 px of 600 x 800.
        direction: (36,) counts.
        paths: What was scored.
    """

    label: str
    kind: str
    privileged: bool
    own_durations: bool
    images: Mapping[str, F64]
    estimates: Mapping[str, Estimate | None]
    pooled: Mapping[str, float]
    undefined: float
    amplitude: NDArray[np.int64]
    direction: NDArray[np.int64]
    paths: Paths


class ScanpathScorer:
    """Scores scanpaths on the images of people.

    Args:
        people: With whom agents are compared.
        resamples: Bootstrap samples of the images.
        seed: Of the bootstrap.
    """

    def __init__(self, people: People, resamples: int = 2000, seed: int = 0) -> None:
        self.people, self._resamples, self._seed = people, resamples, seed
        self._clusters = [metrics.fit_clusters(paths) for paths in people.paths]
        self._points_px = [[people.to_image_px(path.fixation_px.numpy()) for path in paths] for paths in people.paths]
        self._maps = [self._map(np.concatenate(points)) for points in self._points_px]
        self._among = [metrics.scanmatch(paths, paths, people.size) for paths in people.paths]
        self._amplitude = self._amplitudes(people.paths)
        self._direction = metrics.direction_counts(_flat(people.paths))

    def people_scores(self) -> ScanpathScores:
        """Score each person against the others, and on the map of the others.

        The divergences of saccades are those of as many training people on other images: what two samples of people
        come to.
        """
        people = self.people
        images = [
            self._pairs(place, paths, same=True) | self._own_maps(place) for place, paths in enumerate(people.paths)
        ]
        count = min(sum(map(len, people.paths)), len(people.training))
        chosen = np.random.default_rng((self._seed, 1)).permutation(len(people.training))[:count]
        others = [[people.training[i] for i in chosen]]
        return self._scored("people", "people", False, True, images, people.paths, others, 0.0)

    def score(self, scanpaths: AgentScanpaths, kind: str = "agent") -> ScanpathScores:
        """Score what an agent did."""
        images = []
        for place, paths in enumerate(scanpaths.paths):
            found = self._pairs(place, paths, same=False) | self._maps_of(place, paths)
            if scanpaths.conditional is not None:
                found |= dict(zip(CONDITIONAL_SCORES, scanpaths.conditional[place].tolist(), strict=True))
            images.append(found)
        against = np.concatenate(
            [
                metrics.scanmatch(mine, theirs, self.people.size).ravel()
                for mine, theirs in zip(scanpaths.paths, self.people.paths, strict=True)
            ]
        )
        among = np.concatenate([scores[np.triu_indices(len(scores), 1)] for scores in self._among])
        divergence = metrics.scanmatch_kl(among, against)
        facts = (scanpaths.label, kind, scanpaths.privileged, scanpaths.own_durations)
        return self._scored(*facts, images, scanpaths.paths, scanpaths.paths, divergence)

    def _scored(
        self,
        label: str,
        kind: str,
        privileged: bool,
        own_durations: bool,
        images: Sequence[Mapping[str, float]],
        paths: Paths,
        saccades: Paths,
        divergence: float,
    ) -> ScanpathScores:
        columns = {name: np.array([image.get(name, math.nan) for image in images]) for name in IMAGE_SCORES}
        estimates = {name: self._estimate(values) for name, values in columns.items()}
        amplitude, direction = self._amplitudes(saccades), metrics.direction_counts(_flat(saccades))
        pooled = {
            "amplitude_js": metrics.js_divergence(self._amplitude, amplitude),
            "direction_js": metrics.js_divergence(self._direction, direction),
            "amplitude_kl": metrics.kl_divergence(self._amplitude, amplitude),
            "direction_kl": metrics.kl_divergence(self._direction, direction),
            "scanmatch_kl": divergence,
        }
        undefined = float(np.mean([image["undefined"] for image in images]))
        return ScanpathScores(
            label, kind, privileged, own_durations, columns, estimates, pooled, undefined, amplitude, direction, paths
        )

    def _estimate(self, values: F64) -> Estimate | None:
        """Do what ``metrics.bootstrap_mean`` does, for all samples at once."""
        known = values[~np.isnan(values)]
        if not known.size:
            return None
        low, high = np.quantile(resample(known.size, self._resamples, self._seed) @ known / known.size, (0.025, 0.975))
        return Estimate(float(known.mean()), float(low), float(high), known.size)

    def _pairs(self, place: int, paths: Sequence[Scanpath], *, same: bool) -> dict[str, float]:
        theirs, size = self.people.paths[place], self.people.size
        clusters, among = self._clusters[place], self._among[place]

        def mean(scores: F64) -> float:
            return metrics.mean_pairs(scores, same=same).mean

        plain = among if same else metrics.scanmatch(paths, theirs, size)
        own = among if same else metrics.scanmatch(paths, paths, size)
        alike = metrics.multimatch(paths, theirs, size)
        first = metrics.mean_pairs(alike[..., 0], same=same)
        edits = metrics.string_edit_distance(paths, theirs, size)
        return {
            "scanmatch": mean(plain),
            "scanmatch_duration": mean(metrics.scanmatch(paths, theirs, size, bin_ms=50)),
            **{f"multimatch_{name}": mean(alike[..., k]) for k, name in enumerate(metrics.MULTIMATCH)},
            "edits": mean(edits),
            "edits_best": float(metrics.nearest_distances(edits, same=same).mean()),
            "edits_normalised": mean(metrics.string_edit_distance(paths, theirs, size, normalised=True)),
            "sequence": mean(metrics.sequence_score(paths, theirs, clusters)),
            "sequence_duration": mean(metrics.sequence_score(paths, theirs, clusters, bin_ms=50)),
            "stde": mean(metrics.time_delay_embedding(paths, theirs, size)),
            "self_scanmatch": metrics.mean_pairs(own, same=True).mean if len(paths) > 1 else math.nan,
            "dss": metrics.diversity_score(plain, own, among) if not same else mean(plain),
            "undefined": first.undefined / first.pairs,
        }

    def _maps_of(self, place: int, paths: Sequence[Scanpath]) -> dict[str, float]:
        """Score an agent's fixations on people's map, and people's fixations on the map of the agent's."""
        people, theirs = self.people, np.concatenate(self._points_px[place])
        mine = [people.to_image_px(path.fixation_px.numpy()) for path in paths]
        on_people = [
            metrics.nss(
                self._maps[place] - self._map(self._points_px[place][k % len(self._points_px[place])]), points
            ).mean()
            for k, points in enumerate(mine)
        ]
        return {"nss_path": float(np.mean(on_people)), **self._map_scores(np.concatenate(mine), theirs)}

    def _own_maps(self, place: int) -> dict[str, float]:
        """Score each person's fixations on the map of the others'."""
        rows = []
        for k, points in enumerate(self._points_px[place]):
            others = np.concatenate([other for i, other in enumerate(self._points_px[place]) if i != k])
            rows.append(self._map_scores(others, points))
        found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return {"nss_path": found["nss_map"], **found}

    def _map_scores(self, samples_px: NDArray[np.float32], fixation_px: NDArray[np.float32]) -> dict[str, float]:
        people = self.people
        smooth = self._map(samples_px)
        density = metrics.fixation_density(samples_px, people.image_size, people.sigma_px, people.centre_bias, _SHARE)
        return {
            "nss_map": float(metrics.nss(smooth, fixation_px).mean()),
            "auc": float(metrics.auc(smooth, fixation_px).mean()),
            "sauc": float(metrics.shuffled_auc(smooth, fixation_px, people.elsewhere_px).mean()),
            "information": float(metrics.information_gain(density, people.centre_bias, fixation_px).mean()),
        }

    def _map(self, fixation_px: NDArray[np.float32]) -> F64:
        return metrics.fixation_map(fixation_px, self.people.image_size, self.people.sigma_px)

    def _amplitudes(self, paths: Paths) -> NDArray[np.int64]:
        return metrics.amplitude_counts(_flat(paths), bin_px=self.people.px_per_deg / 24 * 20)


def _flat(paths: Paths) -> list[Scanpath]:
    return [path for group in paths for path in group]
