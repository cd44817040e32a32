"""Saccades: the main sequence, the amplitude limit, endpoint scatter, the edge of the scene."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.saccade import Saccades, progress
from foveasim.rng import Key

SIZE = (96, 96)


def points(*xy: tuple[float, float]) -> Tensor:
    return torch.tensor(xy, dtype=torch.float32)


@pytest.mark.parametrize(("amplitude_deg", "duration_ms"), [(1, 23.2), (5, 32.0), (10, 43.0), (20, 65.0)])
def test_the_main_sequence(amplitude_deg: float, duration_ms: float) -> None:
    for x, y in ((1.0, 0.0), (0.6, 0.8), (0.0, 1.0)):
        target = points((2 * amplitude_deg * x, 2 * amplitude_deg * y))
        made = Saccades().execute(points((0, 0)), target, SIZE, torch.tensor([2.0]))
        assert made.amplitude_deg.item() == pytest.approx(amplitude_deg, rel=1e-5)
        assert made.duration_ms.item() == pytest.approx(duration_ms, rel=1e-5)


def test_no_amplitude_takes_no_time() -> None:
    made = Saccades(scatter=0.2).execute(points((3, 4)), points((3, 4)), SIZE, torch.ones(1), Key.of(0))
    assert made.amplitude_deg.item() == made.duration_ms.item() == 0
    assert made.landing_px.tolist() == [[3, 4]]


def test_without_scatter_eyes_land_where_they_are_aimed() -> None:
    target = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 96
    made = Saccades().execute(torch.full((50, 2), 48.0), target, SIZE, torch.full((50,), 3.5))
    torch.testing.assert_close(made.landing_px, target)
    assert torch.equal(made.target_px, target)


def test_the_amplitude_limit_keeps_the_direction() -> None:
    start, target = points((50, 50), (50, 50), (50, 50)), points((80, 90), (50, 20), (52, 50))
    made = Saccades(max_amplitude_deg=5).execute(start, target, SIZE, torch.tensor([2.0, 2.0, 2.0]))
    torch.testing.assert_close(made.amplitude_deg, torch.tensor([5.0, 5.0, 1.0]))
    torch.testing.assert_close(made.landing_px, points((56, 58), (50, 40), (52, 50)))


def test_scatter_has_the_size_it_says_in_both_directions() -> None:
    lanes = 20_000
    start, target = torch.full((lanes, 2), 200.0), torch.full((lanes, 2), 200.0)
    target[:, 0] += 100
    made = Saccades(scatter=0.08).execute(start, target, (400, 500), torch.ones(lanes), Key.of(0, lanes))
    error = (made.landing_px - target).double()
    # Standard errors of a mean and of a standard deviation: s/sqrt(n) and s/sqrt(2n).
    assert bool((error.mean(0).abs() < 5 * 8 / math.sqrt(lanes)).all())
    assert bool(((error.std(0) - 8).abs() < 5 * 8 / math.sqrt(2 * lanes)).all())
    assert abs(float(torch.corrcoef(error.T)[0, 1])) < 5 / math.sqrt(lanes)


def test_scatter_repeats_by_key_and_lane() -> None:
    eye, start, target = Saccades(scatter=0.1), torch.full((4, 2), 20.0), torch.full((4, 2), 70.0)
    scale = torch.full((4,), 3.5)
    made = eye.execute(start, target, SIZE, scale, Key.of(9, 4, step=2))
    again = eye.execute(start, target, SIZE, scale, Key.of(9, 4, step=2))
    assert torch.equal(made.landing_px, again.landing_px)
    assert len(made.landing_px.unique(dim=0)) == 4
    alone = eye.execute(start[:1], target[:1], SIZE, scale[:1], Key.of(11, 1, step=2))
    assert torch.equal(alone.landing_px[0], made.landing_px[2])
    later = eye.execute(start, target, SIZE, scale, Key.of(9, 4, step=3))
    assert not bool((later.landing_px == made.landing_px).any())


def test_gaze_stops_at_the_edge_and_amplitude_is_what_was_made() -> None:
    start = points((90, 50), (90, 50), (0, 0))
    made = Saccades().execute(start, points((200, 50), (90, 500), (-5, -5)), SIZE, torch.ones(3))
    assert made.landing_px.tolist() == [[96, 50], [90, 96], [0, 0]]
    assert made.amplitude_deg.tolist() == [6, 46, 0]
    assert made.duration_ms[2] == 0
    wild = Saccades(scatter=1.0).execute(
        torch.full((500, 2), 5.0), torch.full((500, 2), 91.0), SIZE, torch.ones(500), Key.of(0, 500)
    )
    assert bool(((wild.landing_px >= 0) & (wild.landing_px <= 96)).all())


@pytest.mark.parametrize(
    "options",
    [
        {"max_amplitude_deg": 0}, {"max_amplitude_deg": -1}, {"scatter": -0.1}, {"scatter": 1.1}, {"scatter": math.nan},
        {"slope_ms_per_deg": -1}, {"intercept_ms": -1}, {"dwell_ms": -1}, {"dwell_ms": math.inf},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        Saccades(**options)
    with pytest.raises(InvalidTypeError, match=next(iter(options))):
        Saccades(**dict.fromkeys(options, "much"))


def test_arguments_are_checked() -> None:
    eye, scale = Saccades(), torch.ones(1)
    with pytest.raises(InvalidValueError, match=r"target_px must be \(1, 2\)"):
        eye.execute(points((1, 1)), points((1, 1), (2, 2)), SIZE, scale)
    with pytest.raises(InvalidValueError, match="target_px must be finite"):
        eye.execute(points((1, 1)), points((1, math.nan)), SIZE, scale)
    with pytest.raises(InvalidValueError, match=r"key must be Key.of\(seed, 2\); got None"):
        Saccades(scatter=0.1).execute(torch.ones(2, 2), torch.ones(2, 2), SIZE, torch.ones(2))
    with pytest.raises(InvalidValueError, match="got one of 1 lanes"):
        Saccades(scatter=0.1).execute(torch.ones(2, 2), torch.ones(2, 2), SIZE, torch.ones(2), Key.of(0))


def test_progress_is_smooth_and_symmetric() -> None:
    assert [progress(share) for share in (-1, 0, 0.5, 1, 2)] == [0, 0, 0.5, 1, 1]
    assert progress(0.25) == pytest.approx(0.103515625)
    shares = [i / 100 for i in range(101)]
    assert all(progress(b) >= progress(a) for a, b in itertools.pairwise(shares))
    assert all(progress(s) + progress(1 - s) == pytest.approx(1) for s in shares)
