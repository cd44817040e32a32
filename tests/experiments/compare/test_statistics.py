"""What a comparison says of numbers whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from foveasim.agents.evaluation.measures import NUMBERS
from foveasim.agents.evaluation.scene_runner import AgentRun
from foveasim.errors import InvalidValueError
from foveasim.experiments.compare.statistics import summarise, summarise_saccades
from foveasim.metrics.statistics import resample

SIZE = (96, 96)  # 3.5 px a degree


def agent_run(label: str, mse: Any, *, points: Any = None, **others: Any) -> AgentRun:
    """An agent with given numbers, (K, S, N) or what broadcasts to ``mse``; all others are 1."""
    mse = np.asarray(mse, np.float64)
    numbers = {name: np.ones_like(mse) for name in NUMBERS} | {"mse": mse}
    numbers |= {name: np.broadcast_to(np.asarray(value, np.float64), mse.shape) for name, value in others.items()}
    points = np.zeros((*mse.shape, 2), np.float32) if points is None else np.asarray(points, np.float32)
    amplitude = (np.linalg.norm(np.diff(points, axis=2), axis=-1) / 3.5).astype(np.float32)
    return AgentRun(label, label, False, numbers, points, amplitude, 0.5, 4, {})


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).uniform(0.1, 1, shape)


def test_means_areas_and_paired_differences() -> None:
    base = noise(2, 30, 4)
    result = summarise([agent_run("a", base), agent_run("b", base + 0.25)], SIZE, reference="a")
    curve = base.mean((0, 1))
    assert result.curves["mse"][0, :, 0] == pytest.approx(curve)
    expected = (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2) / 3  # trapezoids
    assert result.area["mse"][0, 0] == pytest.approx(expected)
    for when in ("last", "area"):  # paired: what is the same in every scene has no spread
        found = result.difference(when, "mse", "b", "a")
        assert tuple(found) == pytest.approx((0.25, 0.25, 0.25))
        assert found.clear
        assert result.difference(when, "mse", "a", "b").value == pytest.approx(-0.25)
        assert not result.difference(when, "mse", "a", "a").clear


def test_intervals_are_those_of_the_mean_over_scenes() -> None:
    values = np.random.default_rng(1).normal(size=(1, 400, 1))
    low, high = summarise([agent_run("a", values)], SIZE, reference="a", resamples=4000).curves["mse"][0, 0, 1:]
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_seeds_are_averaged_first() -> None:
    scenes = np.linspace(0, 1, 20)[None, :, None]
    swing = np.array([-5.0, 5.0])[:, None, None]  # the seeds differ much more than the scenes
    apart = summarise([agent_run("a", scenes + swing)], SIZE, reference="a").curves["mse"]
    alone = summarise([agent_run("a", scenes)], SIZE, reference="a").curves["mse"]
    assert apart == pytest.approx(alone)


def test_relative_error_is_a_ratio_of_sums() -> None:
    one = agent_run("a", np.ones((1, 2, 1)), hidden_error=[[[1.0], [3.0]]], fill_error=[[[10.0], [2.0]]])
    assert summarise([one], SIZE, reference="a").curves["relative"][0, 0, 0] == pytest.approx(4 / 12)


def test_share_of_the_gap() -> None:
    base = noise(1, 25, 3) + 1
    agents = [agent_run("random", base), agent_run("half", base - 0.2), agent_run("oracle", base - 0.4)]
    result = summarise(agents, SIZE, reference="random", ceiling="oracle")
    assert result.gap["last"]["mse"] == pytest.approx(np.array([[0.0] * 3, [0.5] * 3, [1.0] * 3]))
    assert np.isnan(summarise(agents, SIZE, reference="random").gap["last"]["mse"]).all()


def test_area_by_share_is_taken_where_all_that_move_have_been() -> None:
    # both lose 1 for each share of 1, so over the same shares they are equal, though one gets further
    far = agent_run("far", [[[1.0, 0.8, 0.6]]], sharp=[[[0.0, 0.2, 0.4]]])
    near = agent_run("near", [[[1.0, 0.9, 0.8]]], sharp=[[[0.0, 0.1, 0.2]]])
    stays = agent_run("stays", [[[1.0, 1.0, 1.0]]], sharp=0.0)
    result = summarise([far, near, stays], SIZE, reference="far")
    assert result.share_range == pytest.approx((0.0, 0.2))
    assert result.share_area["mse"][:2] == pytest.approx([0.9, 0.9])
    assert math.isnan(result.share_area["mse"][2])


def test_what_cannot_be_measured_is_nan_and_nothing_warns() -> None:
    perfect = agent_run("a", np.zeros((1, 3, 2)), psnr=math.inf, hidden_px=0.0, hidden_error=0.0, hidden_psnr=math.nan)
    result = summarise([perfect, agent_run("b", noise(1, 3, 2))], SIZE, reference="b", ceiling="a")
    assert math.isinf(result.curves["psnr"][0, 0, 0])
    assert math.isnan(result.curves["hidden_mse"][0, 0, 0])
    assert math.isnan(result.difference("last", "hidden_mse", "a", "b").value)


def test_the_same_seed_gives_the_same_intervals() -> None:
    agents = [agent_run("a", noise(1, 9, 2))]
    first, again, other = (summarise(agents, SIZE, reference="a", seed=seed).curves["mse"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (resample(7, 50, 0).sum(1) == 7).all()


def test_unknown_names_and_unlike_agents_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="reference must be among a"):
        summarise([agent_run("a", noise(1, 2, 2))], SIZE, reference="b")
    with pytest.raises(InvalidValueError, match="ceiling"):
        summarise([agent_run("a", noise(1, 2, 2))], SIZE, reference="a", ceiling="b")
    with pytest.raises(InvalidValueError, match="same seeds"):
        summarise([agent_run("a", noise(1, 2, 2)), agent_run("b", noise(1, 3, 2))], SIZE, reference="a")


def test_saccades_of_a_known_path() -> None:
    # right by 10 deg, up by 10 deg, back to the start
    path = [[[[20, 60], [55, 60], [55, 25], [20, 60]]]]
    found = summarise_saccades(agent_run("a", np.ones((1, 1, 4)), points=path, sharp=0.5, coverage=0.25), SIZE)
    assert found.amplitude_mean_deg == pytest.approx((20 + 10 * math.sqrt(2)) / 3, rel=1e-6)
    assert found.amplitude_median_deg == pytest.approx(10)
    assert found.return_rate == pytest.approx(1 / 3)
    assert (found.sharp, found.coverage) == (0.5, 0.25)
    share = {place: value for place, value in enumerate(found.direction.tolist()) if value}
    assert share == pytest.approx({0: 1 / 3, 4: 1 / 3, 10: 1 / 3})  # right, up, down left; y runs down
    assert found.amplitude.sum() == pytest.approx(1)
    assert found.amplitude_edges_deg[-1] == pytest.approx(96 * math.sqrt(2) / 3.5)


def test_an_eye_that_stays_returns_always_and_one_fixation_has_no_saccade() -> None:
    stays = summarise_saccades(agent_run("a", np.ones((1, 2, 3))), SIZE)
    assert (stays.amplitude_mean_deg, stays.return_rate, stays.direction.sum()) == (0, 1, 0)
    once = summarise_saccades(agent_run("a", np.ones((1, 2, 1))), SIZE)
    assert math.isnan(once.amplitude_mean_deg)
    assert math.isnan(once.return_rate)
