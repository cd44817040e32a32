from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.saccade import progress
from foveasim.scanpath.fixations import find_fixations_idt, find_fixations_ivt
from foveasim.scanpath.scanpath import Scanpath

PX_PER_DEG = 24.0
EVENTS = [((400, 300), 220.0), ((520, 310), 180.0), ((700, 100), 400.0), ((90, 550), 120.0), ((150, 500), 300.0)]
FINDERS: dict[str, Callable[..., Scanpath]] = {"ivt": find_fixations_ivt, "idt": find_fixations_idt}

F64 = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def gaze(
    events: Sequence[tuple[tuple[float, float], float]], hz: float, noise_deg: float = 0.0
) -> tuple[F64, F64, list[tuple[float, float]]]:
    """Gaze that rests and makes saccades of minimum jerk on the main sequence, and when each rest begins and ends."""
    times, points, rests, clock = [0.0], [events[0][0]], [], 0.0
    before: tuple[float, float] | None = None
    for place, lasts in events:
        if before is not None:
            flight = 2.2 * float(np.hypot(place[0] - before[0], place[1] - before[1])) / PX_PER_DEG + 21
            for share in np.linspace(0, 1, 200)[1:]:
                way = progress(float(share))
                times.append(clock + share * flight)
                points.append((before[0] + way * (place[0] - before[0]), before[1] + way * (place[1] - before[1])))
            clock += flight
        rests.append((clock, clock + lasts))
        clock += lasts
        times.append(clock)
        points.append(place)
        before = place
    at = np.arange(0, clock, 1000 / hz)
    track = np.stack([np.interp(at, times, [point[k] for point in points]) for k in (0, 1)], 1)
    return at, track + np.random.default_rng(0).normal(0, noise_deg * PX_PER_DEG, track.shape), rests


@pytest.mark.parametrize("hz", [60, 240, 500, 1000])
@pytest.mark.parametrize("name", FINDERS)
def test_every_known_fixation_is_found(name: str, hz: int) -> None:
    at, track, rests = gaze(EVENTS, hz, noise_deg=0.02)
    path = FINDERS[name](at, track, PX_PER_DEG, image="sky", subject="7")
    assert (path.image, path.subject) == ("sky", "7")
    assert len(path) == len(EVENTS)
    # The slow ends of a saccade are not told from rest, and I-VT looks 10 ms around; a sample more or less besides.
    most_ms = (25 if name == "ivt" else 35) + 1000 / hz
    for found, (x, y), onset, lasts, (begin, end) in zip(
        path.fixation_px.tolist(),
        [place for place, _ in EVENTS],
        path.onset_ms.tolist(),
        path.duration_ms.tolist(),
        rests,
        strict=True,
    ):
        assert np.hypot(found[0] - x, found[1] - y) < 0.25 * PX_PER_DEG
        assert abs(onset - begin) < most_ms
        assert abs(onset + lasts - end) < most_ms


def test_velocity_finds_the_ends_to_half_its_window() -> None:
    at, track, rests = gaze(EVENTS, 1000)
    path = find_fixations_ivt(at, track, PX_PER_DEG, window_ms=0, velocity_deg_s=10)
    for onset, lasts, (begin, end) in zip(path.onset_ms.tolist(), path.duration_ms.tolist(), rests, strict=True):
        assert abs(onset - begin) < 6
        assert abs(onset + lasts - end) < 6


@pytest.mark.parametrize("name", FINDERS)
def test_an_eye_at_rest_is_one_fixation_of_known_length(name: str) -> None:
    at = np.arange(200.0)
    path = FINDERS[name](at, np.full((200, 2), 55.5), PX_PER_DEG)
    assert path.duration_ms.tolist() == [200]
    assert path.onset_ms.tolist() == [0]
    assert path.fixation_px.tolist() == [[55.5, 55.5]]


@pytest.mark.parametrize("name", FINDERS)
@pytest.mark.parametrize("dropped", [False, True], ids=["nan", "no samples"])
def test_a_blink_splits_or_is_bridged(name: str, dropped: bool) -> None:
    at, track, _ = gaze([((400, 300), 600.0)], 500)
    blink = (at >= 250) & (at < 310)
    if dropped:
        at, track = at[~blink], track[~blink]
    else:
        track[blink] = np.nan
    if name == "ivt":
        joined = find_fixations_ivt(at, track, PX_PER_DEG)
        assert joined.duration_ms.tolist() == [600]
        path = find_fixations_ivt(at, track, PX_PER_DEG, merge_ms=40)
    else:
        path = find_fixations_idt(at, track, PX_PER_DEG)
    assert path.onset_ms.tolist() == [0, 310]
    assert path.duration_ms.tolist() == [250, 290]


def test_what_is_near_in_time_but_not_in_place_stays_apart() -> None:
    at, track, _ = gaze([((400, 300), 300.0), ((430, 300), 300.0)], 500)
    assert len(find_fixations_ivt(at, track, PX_PER_DEG)) == 2
    assert len(find_fixations_ivt(at, track, PX_PER_DEG, merge_deg=2)) == 1


@pytest.mark.parametrize("name", FINDERS)
def test_what_is_too_short_is_left_out(name: str) -> None:
    at, track, _ = gaze([((100, 100), 300.0), ((500, 100), 40.0), ((100, 500), 300.0)], 1000)
    assert len(FINDERS[name](at, track, PX_PER_DEG, min_ms=100)) == 2
    assert len(FINDERS[name](at, track, PX_PER_DEG, min_ms=30)) == 3
    assert len(FINDERS[name](at, track, PX_PER_DEG, min_ms=400)) == 0


def test_pursuit_is_no_fixation() -> None:
    at = np.arange(0, 1000, 2.0)
    sweep = np.stack((at * 1.0, at * 0), 1)  # 1000 px/s: 42 deg/s
    assert len(find_fixations_ivt(at, sweep, PX_PER_DEG)) == 0
    assert len(find_fixations_idt(at, sweep, PX_PER_DEG)) == 0


def test_dispersion_is_a_threshold_on_both_axes_together() -> None:
    at = np.arange(100.0)
    track = np.zeros((100, 2))
    track[::2] = (10, 10)
    assert len(find_fixations_idt(at, track, 10.0, dispersion_deg=2.0)) == 1
    assert len(find_fixations_idt(at, track, 10.0, dispersion_deg=1.99)) == 0


def test_lost_samples_alone_are_no_fixation() -> None:
    at = np.arange(50.0)
    for find in FINDERS.values():
        assert len(find(at, np.full((50, 2), np.nan), PX_PER_DEG)) == 0


def test_wrong_samples_are_refused() -> None:
    at, track = np.arange(5.0), np.zeros((5, 2))
    for find in FINDERS.values():
        with pytest.raises(InvalidValueError, match=r"sample 3 is at 1\.0, after 2\.0"):
            find([0, 1, 2, 1, 4], track, PX_PER_DEG)
        with pytest.raises(InvalidValueError, match="sample 1 is nan"):
            find([0, np.nan, 2, 3, 4], track, PX_PER_DEG)
        with pytest.raises(InvalidValueError, match="nan where the tracker lost the eye"):
            find(at, np.full((5, 2), np.inf), PX_PER_DEG)
        with pytest.raises(InvalidValueError, match=r"gaze_px \(T, 2\)"):
            find(at, np.zeros((4, 2)), PX_PER_DEG)
        with pytest.raises(InvalidTypeError, match="numbers"):
            find(["now"] * 5, track, PX_PER_DEG)
        with pytest.raises(InvalidValueError, match="px_per_deg"):
            find(at, track, 0.0)
        with pytest.raises(InvalidValueError, match="min_ms"):
            find(at, track, PX_PER_DEG, min_ms=-1.0)
