from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidValueError
from foveasim.metrics.saccades import (
    amplitude_counts,
    direction_counts,
    diversity_score,
    js_divergence,
    kl_divergence,
    saccades_px,
    scanmatch_kl,
)
from foveasim.scanpath.scanpath import Scanpath


def path(*points: tuple[float, float]) -> Scanpath:
    xy = torch.tensor(points, dtype=torch.float32).reshape(-1, 2)
    return Scanpath(xy, torch.zeros(len(xy)), torch.zeros(len(xy)))


def test_saccades_do_not_lead_from_one_scanpath_to_the_next() -> None:
    steps = saccades_px([path((0, 0), (3, 4)), path(), path((9, 9)), path((5, 5), (5, 6), (7, 6))])
    assert steps.tolist() == [[3, 4], [0, 1], [2, 0]]
    assert saccades_px([path((1, 1))]).shape == (0, 2)


def test_amplitudes_fall_into_their_bins_and_the_last_is_open() -> None:
    counts = amplitude_counts([path((0, 0), (19.5, 0), (39.5, 0)), path((0, 0), (700, 0)), path((0, 0), (0, 590))])
    assert counts.shape == (30,)
    assert counts[[0, 1, 29]].tolist() == [1, 1, 2]
    assert counts.sum() == 4
    assert amplitude_counts([path((0, 0), (10, 0))], bin_px=10, bins=2).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("step", "place"),
    [((9, 0), 18), ((0, 9), 27), ((0, -9), 9), ((-9, 0), 0), ((-9, -0.1), 0), ((-9, 0.1), 35), ((9, 9.1), 22)],
)
def test_directions_begin_at_the_left_and_turn_over_the_top(step: tuple[float, float], place: int) -> None:
    counts = direction_counts([path((100, 100), (100 + step[0], 100 + step[1]), (100 + step[0], 100 + step[1]))])
    assert counts.sum() == 1  # the second saccade is of length 0
    assert counts.argmax() == place


def test_divergences_in_closed_form() -> None:
    assert js_divergence([3, 0], [3, 0]) == 0
    assert kl_divergence([1, 0], [0, 1]) == pytest.approx(0.5 * math.log2(3))
    assert kl_divergence([1, 0], [0, 1], nats=True) == pytest.approx(0.5 * math.log(3))
    apart = js_divergence([10**9, 0], [0, 10**9])
    assert 0.999 < apart <= 1
    p, q = [5, 1, 7], [2, 9, 0]
    assert js_divergence(p, q) == pytest.approx(js_divergence(q, p))
    assert kl_divergence(p, q) != pytest.approx(kl_divergence(q, p))
    assert 0 < js_divergence(p, q) < 1


def test_divergence_of_the_same_distribution_falls_with_the_sample() -> None:
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(30))
    small, large = (
        np.mean([js_divergence(rng.multinomial(n, share), rng.multinomial(n, share)) for _ in range(20)])
        for n in (100, 5000)
    )
    assert large < small / 10


@pytest.mark.parametrize(("p", "q"), [([1, -1], [1, 1]), ([1], [1, 1]), ([math.nan], [1]), ([], [])])
def test_what_is_no_histogram_is_refused(p: list[float], q: list[float]) -> None:
    with pytest.raises(InvalidValueError):
        js_divergence(p, q)


def test_distribution_of_scores() -> None:
    rng = np.random.default_rng(1)
    people, same, other = rng.beta(4, 6, 900), rng.beta(4, 6, 900), rng.beta(2, 8, 900)
    assert scanmatch_kl(people, people) == 0
    assert scanmatch_kl(people, same) < 0.05 < scanmatch_kl(people, other)
    assert scanmatch_kl(np.array([0.0, 1.0, np.nan]), np.array([0.0, 1.0])) == 0
    with pytest.raises(InvalidValueError, match="policy must hold scores from 0 to 1"):
        scanmatch_kl(people, people + 1)
    with pytest.raises(InvalidValueError, match="people"):
        scanmatch_kl(np.array([np.nan]), people)


def test_diversity_lowers_what_is_too_like_itself() -> None:
    among = 0.4 + 0.6 * np.eye(5)
    alike = 0.7 + 0.3 * np.eye(3)
    against = np.full((3, 5), 0.4)
    assert diversity_score(against, alike, among) == pytest.approx(0.4 / 1.3)
    assert diversity_score(against, 0.4 * np.ones((3, 3)), among) == pytest.approx(0.4)
    assert math.isnan(diversity_score(against, np.ones((1, 1)), among))
