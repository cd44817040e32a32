"""The numba kernels of a step against their twins in torch: noise, saccades, belief."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foveasim.eye import belief as beliefs
from foveasim.eye.kernels.sense import widen_coverage
from foveasim.eye.kernels.step import (
    NORM,
    NORM_AWAY,
    PX,
    draw_uniform,
    execute_saccades,
    integrate_belief,
    move_lanes,
    remember_glimpses,
)
from foveasim.eye.saccade import Saccades
from foveasim.rng import Key, Stream
from foveasim.types import Belief, Glimpse

SIZES = [(1, 1), (8, 8), (17, 33), (96, 96), (61, 130)]


def test_noise_is_drawn_as_by_torch() -> None:
    key = Key.of(2**62, lanes=5, step=7)
    drawn = np.empty((5, 33))
    draw_uniform(torch.stack((key.seed, key.episode, key.step)).numpy(), int(Stream.MASK), drawn)
    assert np.array_equal(drawn, key.uniform(Stream.MASK, 33).numpy())


@pytest.mark.parametrize("size", SIZES)
def test_belief_is_integrated_as_by_torch(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    lanes = 3
    there = Belief(torch.full((lanes, *size, 3), 127, dtype=torch.uint8), torch.zeros(lanes, *size, dtype=torch.uint8))
    image, acuity = there.image.flatten(2).numpy().copy(), there.acuity.numpy().copy()
    remembered, remembered_acuity, covered = image.copy(), acuity.copy(), np.zeros((2, lanes), np.float32)
    copied, copied_acuity = np.zeros((lanes, *size, 3), np.uint8), np.zeros((lanes, *size), np.uint8)
    acuity_alone, coverage, coverage_alone = (
        acuity.copy(),
        np.zeros(lanes, np.float32),
        np.zeros((2, lanes), np.float32),
    )
    for _ in range(5):
        new_image = rng.integers(0, 256, (lanes, *size, 3), dtype=np.uint8)
        # Few values, so that many pixels tie.
        new_acuity = rng.choice(np.array([0, 1, 90, 200, 255], np.uint8), (lanes, *size))
        before = coverage.copy()
        integrate_belief(image, acuity, new_image.reshape(lanes, size[0], -1), new_acuity, coverage)
        widen_coverage(acuity_alone, new_acuity, coverage_alone, 0, 1)
        widen_coverage(acuity_alone, new_acuity, coverage_alone, 1, lanes)
        for lane in range(lanes):
            more = (covered, copied, copied_acuity, lane, lane + 1)
            remember_glimpses(remembered, remembered_acuity, new_image, new_acuity, *more)
        glimpse = Glimpse(torch.from_numpy(new_image), torch.from_numpy(new_acuity))
        there = beliefs.integrate(there, glimpse)
        assert np.array_equal(image, there.image.flatten(2).numpy())
        assert np.array_equal(acuity, there.acuity.numpy())
        assert np.array_equal(acuity_alone, acuity)
        assert np.array_equal(coverage, beliefs.coverage(there).numpy())
        assert np.array_equal(coverage_alone, (coverage, before))
        assert np.array_equal(covered, coverage_alone)
        assert np.array_equal(remembered, image) and np.array_equal(copied.reshape(image.shape), image)
        assert np.array_equal(remembered_acuity, acuity) and np.array_equal(copied_acuity, acuity)


@pytest.mark.parametrize(("lanes", "size"), [(152, (96, 96)), (178, (61, 130)), (9, (24, 40))])
def test_copies_of_belief_are_whole_however_they_are_written(lanes: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    new_image = rng.integers(0, 256, (lanes, *size, 3), dtype=np.uint8)
    new_acuity = rng.integers(0, 256, (lanes, *size), dtype=np.uint8)
    image, acuity = np.zeros((lanes, size[0], 3 * size[1]), np.uint8), np.zeros((lanes, *size), np.uint8)
    # Room before and behind shows what is written too far; 152 and 178 lanes are written past the cache.
    room = [np.full(lanes * size[0] * size[1] * channels + 32, 7, np.uint8) for channels in (3, 1)]
    copied = [flat[16:-16].reshape(new.shape) for flat, new in zip(room, (new_image, new_acuity), strict=True)]
    covered = np.zeros((2, lanes), np.float32)
    remember_glimpses(image, acuity, new_image, new_acuity, covered, *copied, 1, lanes)
    assert np.array_equal(copied[0][1:], new_image[1:]) and np.array_equal(copied[1][1:], new_acuity[1:])
    for flat, new in zip(room, (new_image, new_acuity), strict=True):
        assert (flat[: 16 + new[0].size] == 7).all() and (flat[-16:] == 7).all()


@pytest.mark.parametrize(
    "eye",
    [
        Saccades(),
        Saccades(max_amplitude_deg=4.0),
        Saccades(scatter=0.1),
        Saccades(max_amplitude_deg=6.0, scatter=0.3, slope_ms_per_deg=2.7, intercept_ms=37.0),
    ],
)
def test_saccades_are_executed_as_by_torch(eye: Saccades) -> None:
    lanes, size = 500, (60, 90)
    rng = np.random.default_rng(1)
    start = (rng.random((lanes, 2)) * (90, 60)).astype(np.float32)
    target = (rng.random((lanes, 2)) * (130, 100) - 20).astype(np.float32)
    target[::7] = start[::7]
    px_per_deg = rng.uniform(1, 9, lanes).astype(np.float32)
    key = Key.of(5, lanes, step=3)
    landing, amplitude, duration = (
        np.empty((lanes, 2), np.float32),
        np.empty(lanes, np.float32),
        np.empty(lanes, np.float32),
    )
    keys = torch.stack((key.seed, key.episode, key.step)).numpy()
    limits = np.array(eye.limits, np.float32)
    execute_saccades(
        start, target, np.array(size), px_per_deg, keys, int(Stream.SCATTER), limits, landing, amplitude, duration
    )
    made = eye.execute(torch.from_numpy(start), torch.from_numpy(target), size, torch.from_numpy(px_per_deg), key)
    np.testing.assert_allclose(landing, made.landing_px.numpy(), atol=2e-5)
    np.testing.assert_allclose(amplitude, made.amplitude_deg.numpy(), atol=2e-5)
    np.testing.assert_allclose(duration, made.duration_ms.numpy(), atol=1e-4)
    assert (duration[::7] == 0).all()
    assert np.isfinite(landing).all()
    assert math.isinf(eye.limits[0]) == (eye.max_amplitude_deg is None)


def moved(aim: np.ndarray, unit: int) -> tuple[bool, np.ndarray, np.ndarray]:
    """Move two lanes, of which the first moves, from the same place in a scene of 40 x 60."""
    points, reals, key = np.full((3, 2, 2), 10, np.float32), np.zeros((2, 2), np.float32), np.zeros((3, 2), np.int64)
    about = (
        np.array([40, 60]),
        np.ones(2, np.float32),
        key,
        int(Stream.SCATTER),
        np.array(Saccades().limits, np.float32),
    )
    done = move_lanes(points, aim.astype(np.float32), unit, np.array([True, False]), *about, 250.0, reals, np.zeros(2))
    return done, points, key


@pytest.mark.parametrize(("unit", "aim"), [(PX, (45, 10)), (NORM, (0.5, -0.5)), (NORM_AWAY, (35 / 30, 0.0))])
def test_aims_are_understood_in_their_unit(unit: int, aim: tuple[float, float]) -> None:
    inside = unit == PX or max(map(abs, aim)) <= 1
    done, points, key = moved(np.array([aim, aim]), unit)
    assert done == inside
    assert key[2].tolist() == [int(inside), 0]
    np.testing.assert_allclose(points[0], [(45, 10) if inside else (10, 10), (10, 10)], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.0001, -2.0])
def test_an_aim_out_of_range_moves_no_lane(bad: float) -> None:
    done, points, key = moved(np.array([[0.1, 0.1], [0.0, bad]]), NORM)
    assert not done
    assert (points == 10).all()
    assert not key.any()
