"""Counter-based noise: exact to the published generator, uniform, normal, independent, and blind to the other lanes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from foveasim.rng import Key, Stream, bits, normal, uniform

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
# What SplitMix64 gives from state 0: the test vector of java.util.SplittableRandom and of Vigna's splitmix64.c.
PUBLISHED = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
MANY = 200_000


def finalise(z: int) -> int:
    """SplitMix64's finaliser in exact arithmetic."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference(seed: int, episode: int, step: int, stream: int, index: int) -> int:
    """The definition of ``bits`` in exact arithmetic."""
    key = finalise((seed + GOLDEN) & MASK)
    for part in (episode, step, stream):
        key = finalise(((key ^ part) + GOLDEN) & MASK)
    return finalise((key + (index + 1) * GOLDEN) & MASK)


def key(*numbers: int) -> Tensor:
    """One part of a key, one number a lane."""
    return torch.tensor(numbers, dtype=torch.int64)


def long_draw(seed: int = 0, stream: Stream = Stream.MASK) -> Tensor:
    """Many uniform numbers of one lane."""
    return uniform(key(seed), key(0), key(0), stream, MANY)[0]


def test_the_reference_is_the_published_generator() -> None:
    assert tuple(finalise((i + 1) * GOLDEN & MASK) for i in range(3)) == PUBLISHED


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31, 2**62 + 3, 2**63 - 1])
@pytest.mark.parametrize(
    ("episode", "step", "stream"), [(0, 0, Stream.SCENE), (3, 7, Stream.MASK), (10**6, 255, Stream.AGENT)]
)
def test_bits_are_exact(seed: int, episode: int, step: int, stream: Stream) -> None:
    drawn = bits(key(seed), key(episode), key(step), stream, 5)[0].tolist()
    assert [value & MASK for value in drawn] == [reference(seed, episode, step, stream, i) for i in range(5)]


def test_the_kernel_draws_what_torch_draws() -> None:
    from foveasim.eye.kernels.step import mix

    for seed, episode, step in itertools.product((0, 5, 2**63 - 1), (0, 4), (0, 9)):
        drawn = uniform(key(seed), key(episode), key(step), Stream.SCATTER, 8)[0].tolist()
        assert [mix(seed, episode, step, int(Stream.SCATTER), i) for i in range(8)] == drawn


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    for seed in (0, 1, 2**40):
        u = long_draw(seed)
        assert float(u.min()) >= 0
        assert float(u.max()) < 1
        # The standard error of a mean of n uniform numbers is 1/sqrt(12 n), that of a bin's count sqrt(n p (1 - p)).
        assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * MANY)
        counts = torch.histc(u, bins=64, min=0, max=1)
        chi2 = float(((counts - MANY / 64) ** 2 / (MANY / 64)).sum())
        assert 63 - 5 * math.sqrt(126) < chi2 < 63 + 5 * math.sqrt(126)


def test_every_bit_is_as_often_one_as_zero() -> None:
    drawn = bits(key(3), key(0), key(0), Stream.CONTENT, MANY)[0]
    ones = torch.stack([((drawn >> bit) & 1).to(torch.float64).mean() for bit in range(64)])
    assert float((ones - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(MANY)


def test_numbers_do_not_predict_the_next() -> None:
    u = long_draw() - 0.5
    for lag in (1, 2, 3, 96):
        correlation = float((u[lag:] * u[:-lag]).mean() * 12)
        assert abs(correlation) < 5 / math.sqrt(MANY)


def test_streams_are_independent() -> None:
    draws = torch.stack([long_draw(stream=stream) for stream in Stream]) - 0.5
    correlation = draws @ draws.T * 12 / MANY
    off_diagonal = correlation - torch.diag(torch.diag(correlation))
    assert float(off_diagonal.abs().max()) < 5 / math.sqrt(MANY)


def test_neighbouring_keys_are_independent() -> None:
    lanes = torch.arange(MANY // 100, dtype=torch.int64)
    zero = torch.zeros_like(lanes)
    for parts in ((lanes, zero, zero), (zero, lanes, zero), (zero, zero, lanes)):
        u = uniform(*parts, Stream.FIXATION, 4) - 0.5
        assert abs(float(u.mean())) < 5 / math.sqrt(12 * u.numel())
        assert abs(float((u[1:] * u[:-1]).mean() * 12)) < 5 / math.sqrt(u.numel())


def test_no_part_of_the_key_can_stand_for_another() -> None:
    seen = {
        tuple(bits(key(a), key(b), key(c), stream, 2)[0].tolist())
        for a, b, c in itertools.product(range(4), repeat=3)
        for stream in Stream
    }
    assert len(seen) == 4**3 * len(Stream)


def test_a_lane_draws_the_same_whatever_stands_beside_it() -> None:
    seed, episode, step = key(5, 6, 7, 8), key(0, 3, 0, 1), key(1, 1, 9, 0)
    batch = uniform(seed, episode, step, Stream.SCENE, 6)
    for lane in range(4):
        alone = uniform(seed[lane, None], episode[lane, None], step[lane, None], Stream.SCENE, 6)
        assert torch.equal(alone[0], batch[lane])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(uniform(seed[order], episode[order], step[order], Stream.SCENE, 6), batch[order])


def test_drawing_more_leaves_the_first_ones_as_they_were() -> None:
    few, many = (uniform(key(9), key(0), key(0), Stream.MASK, count) for count in (3, 50))
    assert torch.equal(few[0], many[0, :3])
    assert torch.equal(
        normal(key(9), key(0), key(0), Stream.MASK, 3)[0], normal(key(9), key(0), key(0), Stream.MASK, 50)[0, :3]
    )


def test_normal_numbers_have_the_moments_of_a_normal() -> None:
    z = normal(key(1), key(0), key(0), Stream.SCATTER, MANY)[0]
    assert bool(torch.isfinite(z).all())
    # Standard errors of the first four moments of n standard normal numbers: sqrt of 1, 2, 15, 96 over n.
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - expected) < 5 * math.sqrt(variance / MANY)
    assert abs(float((z.abs() < 1).to(torch.float64).mean()) - math.erf(1 / math.sqrt(2))) < 5 * 0.5 / math.sqrt(MANY)
    pairs = z.reshape(-1, 2)
    assert abs(float((pairs[:, 0] * pairs[:, 1]).mean())) < 5 / math.sqrt(MANY / 2)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shapes_and_dtypes(count: int) -> None:
    parts = key(1, 2), key(0, 0), key(0, 0)
    assert bits(*parts, Stream.MASK, count).dtype == torch.int64
    for draw in (uniform, normal):
        assert draw(*parts, Stream.MASK, count).shape == (2, count)
        assert draw(*parts, Stream.MASK, count).dtype == torch.float64


def test_key_draws_what_the_functions_draw() -> None:
    made = Key.of(40, lanes=3, step=2)
    assert made.seed.tolist() == [40, 41, 42]
    assert made.episode.tolist() == [0, 0, 0]
    assert made.step.tolist() == [2, 2, 2]
    for draw, method in ((uniform, made.uniform), (normal, made.normal)):
        assert torch.equal(method(Stream.AGENT, 4), draw(key(40, 41, 42), key(0, 0, 0), key(2, 2, 2), Stream.AGENT, 4))


def test_nothing_touches_the_global_generators() -> None:
    before = torch.get_rng_state()
    normal(key(1), key(0), key(0), Stream.MASK, 100)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    parts = key(1, 2**62), key(0, 5), key(3, 4)
    there = [part.cuda() for part in parts]
    assert torch.equal(bits(*there, Stream.MASK, 100).cpu(), bits(*parts, Stream.MASK, 100))
    assert torch.equal(uniform(*there, Stream.MASK, 100).cpu(), uniform(*parts, Stream.MASK, 100))
    torch.testing.assert_close(normal(*there, Stream.MASK, 100).cpu(), normal(*parts, Stream.MASK, 100))
