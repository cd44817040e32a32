from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.metrics.sequence_score import (
    FixationClusters,
    cluster_points,
    estimate_bandwidth,
    fit_clusters,
    sequence_score,
)
from foveasim.scanpath.scanpath import Scanpath

# scikit-learn 1.9.1, estimate_bandwidth(X) and MeanShift(bandwidth=factor * that).fit(X) on ``formula()``
BANDWIDTH = 238.62471176428897
CENTRES = {
    1.0: [(411.315789, 343.526316), (609.823529, 179.352941), (216.8125, 204.8125)],
    0.5: [
        *[(282.125, 272.375), (381.166667, 395.5), (750.0, 148.4), (565.0, 35.4), (514.0, 383.6), (533.5, 171.0)],
        *[(328.75, 514.75), (283.333333, 54.666667), (123.333333, 44.666667), (180.0, 376.0), (26.0, 216.0)],
        *[(672.0, 488.0), (557.0, 527.0)],
    ],
}
LABELS = {
    1.0: [*map(int, "2220212111001220010020011202110220112102")],
    0.5: [int(letter, 16) for letter in "8904830255443a7b62c17013294723100652036a"],
}


def formula() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    i = np.arange(40) + 1
    return np.stack((37.0 * i * i % 800, 53.0 * i**3 % 600), 1)


def path(points: object, duration_ms: float = 200.0) -> Scanpath:
    xy = torch.tensor(np.asarray(points), dtype=torch.float32).reshape(-1, 2)
    lasts = torch.full((len(xy),), duration_ms)
    return Scanpath(xy, torch.cumsum(lasts, 0) - lasts, lasts)


def corners(*numbers: int, duration_ms: float = 200.0) -> Scanpath:
    places = np.array([(100, 100), (700, 100), (100, 500), (700, 500)])
    return path(places[list(numbers)], duration_ms)


@pytest.mark.parametrize("factor", CENTRES)
def test_clusters_of_scikit_learn(factor: float) -> None:
    points = formula()
    assert estimate_bandwidth(points) == pytest.approx(BANDWIDTH, rel=1e-12)
    clusters = cluster_points(points, BANDWIDTH * factor)
    assert np.allclose(clusters.centre_px, CENTRES[factor], atol=1e-5)
    assert clusters.assign(points).tolist() == LABELS[factor]


def test_agrees_with_scikit_learn_on_random_points() -> None:
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn: foveasim[test]")
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        points = (rng.random((count, 2)) * (800, 600))[rng.integers(0, count, 90)] + rng.normal(0, 50, (90, 2))
        width = cluster.estimate_bandwidth(points)
        assert estimate_bandwidth(points) == pytest.approx(width)
        for factor in (0.2, 0.8, 1.5):
            theirs = cluster.MeanShift(bandwidth=width * factor).fit(points)
            ours = cluster_points(points, width * factor)
            assert np.allclose(ours.centre_px, theirs.cluster_centers_)
            assert np.array_equal(ours.assign(points), theirs.labels_)


def test_places_far_apart_are_clusters_of_their_own() -> None:
    rng = np.random.default_rng(1)
    people = []
    for _ in range(15):
        order = rng.permutation(4)
        visited = corners(*np.concatenate((order, order)))
        people.append(path(visited.fixation_px.numpy() + rng.normal(0, 8, (8, 2))))
    clusters = fit_clusters(people)
    assert len(clusters.centre_px) == 4
    for centre in [(100, 100), (700, 100), (100, 500), (700, 500)]:
        assert np.linalg.norm(clusters.centre_px - centre, axis=1).min() < 8


def test_the_bandwidth_is_the_best_of_seven_by_saccades_and_not_by_jumps_between_people() -> None:
    taken, with_jumps = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        people = [path(rng.normal((400, 300), 120, (1, 2)) + rng.normal(0, 60, (2, 2))) for _ in range(12)]
        points = np.concatenate([one.fixation_px.numpy() for one in people]).astype(float)
        width = estimate_bandwidth(points)
        rates = []
        for factor in (0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 1.8):
            clusters = cluster_points(points, width * factor)
            strings = [clusters.assign(one.fixation_px.numpy().astype(float)) for one in people]
            rates.append(
                [
                    sum(1 if a != b else -1 for string in group for a, b in pairwise(string)) / len(clusters.centre_px)
                    for group in (strings, [np.concatenate(strings)])
                ]
            )
        best, other = np.array(rates).argmax(0)
        taken.append(fit_clusters(people).bandwidth_px == width * (0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 1.8)[best])
        with_jumps.append(best != other)
    assert all(taken)
    assert any(with_jumps)


KNOWN = FixationClusters(np.array([(100.0, 100), (700, 100), (100, 500), (700, 500)]), 100.0)


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [((0, 1, 2), (0, 2), 2 / 3), ((0, 1, 2), (0, 1, 2), 1), ((0, 1), (2, 3), 0), ((0, 1), (1, 0), 0.5)],
)
def test_scores_that_one_can_work_out(first: tuple[int, ...], second: tuple[int, ...], score: float) -> None:
    assert sequence_score([corners(*first)], [corners(*second)], KNOWN)[0, 0] == pytest.approx(score)


def test_only_the_region_matters() -> None:
    rng = np.random.default_rng(3)
    paths = [corners(*rng.integers(0, 4, 9)) for _ in range(5)]
    moved = [path(one.fixation_px.numpy() + rng.uniform(-40, 40, (9, 2))) for one in paths]
    assert np.array_equal(sequence_score(paths, paths, KNOWN), sequence_score(moved, moved, KNOWN))


def test_both_are_cut_off_at_sixteen() -> None:
    long = corners(*[0] * 16, *[1] * 30)
    other = corners(*[0] * 16, *[2] * 30)
    assert sequence_score([long], [other], KNOWN)[0, 0] == 1
    assert sequence_score([long], [other], KNOWN, max_fixations=None)[0, 0] == pytest.approx(16 / 46)
    assert sequence_score([long], [other], KNOWN, max_fixations=20)[0, 0] == pytest.approx(16 / 20)


def test_time_is_cut_off_where_scanmatch_rounds() -> None:
    held = corners(0, duration_ms=149.0)
    long = corners(0, duration_ms=500.0)
    assert sequence_score([held], [long], KNOWN, bin_ms=50)[0, 0] == pytest.approx(2 / 10)
    assert np.isnan(sequence_score([corners(0, duration_ms=49.0)], [long], KNOWN, bin_ms=50)[0, 0])


def test_too_little_to_cluster_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="too few or too alike"):
        fit_clusters([path([(5, 5), (9, 9)])])
    with pytest.raises(InvalidValueError, match="all scanpaths are empty"):
        fit_clusters([path([])])
    with pytest.raises(InvalidValueError, match="points must be"):
        cluster_points(np.zeros((0, 2)), 1.0)
    with pytest.raises(InvalidValueError, match="bandwidth_px"):
        cluster_points(np.zeros((3, 2)), 0.0)
    with pytest.raises(InvalidTypeError, match="clusters must come from fit_clusters; got ndarray"):
        sequence_score([corners(0)], [corners(0)], KNOWN.centre_px)  # type: ignore[arg-type]
