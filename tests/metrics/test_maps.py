from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.metrics.maps import (
    auc,
    conditional_scores,
    fixation_density,
    fixation_map,
    information_gain,
    nss,
    shuffled_auc,
)
from foveasim.scanpath.scanpath import Scanpath

SIZE = (30, 40)
FIXATIONS = torch.tensor([[3.5, 4.5], [20.0, 29.9], [39.9, 0.0], [40.0, 30.0]])


def random_map(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).random(SIZE)


def test_a_constant_map_says_nothing() -> None:
    for level in (0.0, 0.1, 7.0):
        flat = np.full(SIZE, level)
        assert auc(flat, FIXATIONS).tolist() == [0.5] * 4
        assert shuffled_auc(flat, FIXATIONS, torch.rand(50, 2) * 30).tolist() == [0.5] * 4
        assert nss(flat, FIXATIONS).tolist() == [0] * 4
    uniform = np.full(SIZE, 1 / 1200)
    assert information_gain(uniform, uniform, FIXATIONS).tolist() == [0] * 4


def test_a_map_of_one_pixel() -> None:
    one = np.zeros((10, 10))
    one[4, 7] = 1
    there, elsewhere = torch.tensor([[7.99, 4.0]]), torch.tensor([[4.0, 7.0]])  # (x, y), so that row 4 is y = 4
    assert nss(one, there)[0] == pytest.approx(0.99 / np.sqrt(0.0099))
    assert nss(one, elsewhere)[0] == pytest.approx(-0.01 / np.sqrt(0.0099))
    assert auc(one, there)[0] == pytest.approx(0.995)
    assert auc(one, elsewhere)[0] == pytest.approx(0.495)
    assert shuffled_auc(one, there, elsewhere)[0] == 1
    assert shuffled_auc(one, there, there)[0] == 0.5


def test_area_is_the_share_of_smaller_values() -> None:
    assert auc(np.array([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 1.0]]))[0] == 0.875
    saliency = np.random.default_rng(0).integers(0, 6, SIZE).astype(float)  # with ties
    points = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([40.0, 30.0])
    values = saliency[points[:, 1].long(), points[:, 0].long()]
    # The area under hits against false alarms, by the trapezium rule
    levels = np.concatenate(([np.inf], np.arange(6)[::-1]))
    hits = [(values >= level).mean() for level in levels]
    alarms = [(saliency >= level).mean() for level in levels]
    area = sum((alarms[i + 1] - alarms[i]) * (hits[i + 1] + hits[i]) / 2 for i in range(6))
    assert auc(saliency, points).mean() == pytest.approx(area)


def test_scale_does_not_matter_to_nss_nor_order_to_areas() -> None:
    saliency = random_map(1)
    assert np.allclose(nss(saliency * 9 + 4, FIXATIONS), nss(saliency, FIXATIONS))
    assert np.array_equal(auc(np.exp(5 * saliency), FIXATIONS), auc(saliency, FIXATIONS))
    assert np.allclose(auc(-saliency, FIXATIONS), 1 - auc(saliency, FIXATIONS))


def test_the_centre_alone_has_no_shuffled_area() -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:300, :400]
    centre = np.exp(-((x - 200) ** 2 + (y - 150) ** 2) / 6000)
    points = torch.from_numpy(np.clip(rng.normal((200, 150), 50, (4000, 2)), 0, (399, 299)))
    assert auc(centre, points[:2000]).mean() > 0.8
    assert abs(shuffled_auc(centre, points[:2000], points[2000:]).mean() - 0.5) < 0.02


def test_bits_are_doublings() -> None:
    density = np.full((2, 2), 1 / 4)
    density[0] = (0.5, 0.0625)
    density[1] = (0.4375, 1e-9)
    uniform = np.full((2, 2), 0.25)
    assert information_gain(density, uniform, torch.tensor([[0.0, 0.0], [1.0, 0.0]])).tolist() == [1, -2]
    with pytest.raises(InvalidValueError, match=r"density must sum to 1; it sums to 2"):
        information_gain(density * 2, uniform, FIXATIONS)
    with pytest.raises(InvalidValueError, match="not positive at fixation 1"):
        information_gain(np.eye(2) / 2, uniform, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


def test_one_map_for_each_fixation_equals_one_by_one() -> None:
    maps = np.stack([random_map(seed) for seed in range(4)])
    maps /= maps.sum((1, 2), keepdims=True)
    uniform, elsewhere = np.full(SIZE, 1 / 1200), torch.rand(30, 2) * 30
    for together, one in (
        (nss(maps, FIXATIONS), nss),
        (auc(maps, FIXATIONS), auc),
        (shuffled_auc(maps, FIXATIONS, elsewhere), lambda m, f: shuffled_auc(m, f, elsewhere)),
        (information_gain(maps, uniform, FIXATIONS), lambda m, f: information_gain(m, uniform, f)),
    ):
        assert np.allclose(together, [one(maps[i], FIXATIONS[i : i + 1])[0] for i in range(4)])


def test_a_map_that_follows_the_eye_is_scored_from_the_second_fixation_on() -> None:
    path = Scanpath(FIXATIONS, torch.zeros(4), torch.ones(4))
    maps = torch.rand(3, *SIZE, dtype=torch.float64)
    maps /= maps.sum((1, 2), keepdim=True)
    uniform = np.full(SIZE, 1 / 1200)
    scores = conditional_scores(maps, path, uniform)
    assert np.array_equal(scores.nss, nss(maps, FIXATIONS[1:]))
    assert np.array_equal(scores.auc, auc(maps, FIXATIONS[1:]))
    assert np.array_equal(scores.information_gain, information_gain(maps, uniform, FIXATIONS[1:]))
    with pytest.raises(InvalidValueError, match="3 of them"):
        conditional_scores(torch.ones(4, *SIZE), path, uniform)
    with pytest.raises(InvalidValueError, match="2 or more fixations"):
        conditional_scores(maps[:0], Scanpath(FIXATIONS[:1], torch.zeros(1), torch.ones(1)), uniform)
    with pytest.raises(InvalidTypeError, match="path must be a Scanpath"):
        conditional_scores(maps, FIXATIONS, uniform)  # type: ignore[arg-type]


def test_maps_of_fixations_are_sums_of_gaussians() -> None:
    size, sigma = (60, 80), 4.0
    middle = fixation_map([[40.7, 30.2]], size, sigma)
    y, x = np.mgrid[:60, :80]
    gaussian = np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / (2 * sigma**2))
    assert np.allclose(middle, gaussian / gaussian.sum(), atol=1e-9)
    corner = fixation_map([[0.0, 0.0]], size, sigma)
    assert 0.25 < corner.sum() < 0.35
    points = np.random.default_rng(0).random((150, 2)) * (80, 60)
    many = fixation_map(points, size, sigma)  # enough to go by counts
    assert np.allclose(many, sum(fixation_map([point.tolist()], size, sigma) for point in points))


def test_densities_sum_to_one_and_mix_in_a_prior() -> None:
    points = np.random.default_rng(1).random((20, 2)) * (40, 30)
    centre_bias = fixation_density(points, SIZE, 2.0)
    assert centre_bias.sum() == pytest.approx(1)
    assert centre_bias.min() >= 0.001 / 1200
    mixed = fixation_density([[1.0, 1.0]], SIZE, 2.0, centre_bias, 0.1)
    assert mixed.sum() == pytest.approx(1)
    assert np.allclose(fixation_density([[1.0, 1.0]], SIZE, 2.0, centre_bias, 1.0), centre_bias)
    assert mixed[25, 35] == pytest.approx(0.1 * centre_bias[25, 35], rel=1e-6)
    with pytest.raises(InvalidValueError, match="weight"):
        fixation_density(points, SIZE, 2.0, weight=0.0)
    with pytest.raises(InvalidValueError, match="prior must be"):
        fixation_density(points, SIZE, 2.0, np.zeros(SIZE))
    with pytest.raises(InvalidValueError, match="at least one fixation"):
        fixation_density(np.zeros((0, 2)), SIZE, 2.0)


def test_wrong_maps_and_points_are_refused() -> None:
    saliency = random_map(0)
    with pytest.raises(InvalidValueError, match="saliency must be finite; it holds 1"):
        nss(np.where(saliency == saliency[0, 0], np.nan, saliency), FIXATIONS)
    with pytest.raises(InvalidValueError, match=r"one map \(H, W\), or 4 of them"):
        auc(np.zeros((3, *SIZE)), FIXATIONS)
    with pytest.raises(InvalidTypeError, match="saliency must be a map"):
        nss("map", FIXATIONS)
    with pytest.raises(InvalidValueError, match="fixation_px must be finite"):
        nss(saliency, [[0.0, float("nan")]])
    with pytest.raises(InvalidValueError, match="elsewhere_px must hold"):
        shuffled_auc(saliency, FIXATIONS, np.zeros((0, 2)))
