"""The agent that was fitted to people: its tables in closed form, its draws, and what it may not see."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from foveasim.agents import scanpath_agent
from foveasim.agents.base import make_agent
from foveasim.agents.practice import practice_observations
from foveasim.agents.scanpath_agent import ScanpathAgent, load_scanpath
from foveasim.agents.scanpath_fit import Beliefs, cells_of, fit_weights, save_scanpath
from foveasim.agents.scanpath_network import INPUTS, SalienceNetwork, salience_inputs
from foveasim.agents.scanpath_prior import FEATURES, MEMORY, Tables, features, log_priority
from foveasim.agents.scanpath_saliency import SaliencyCentre
from foveasim.errors import InvalidValueError, WeightsError

SIZE = (96, 128)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tables(**weights: float) -> Tables:
    """Flat tables but for odds of 1 to the right of the middle."""
    saccade = torch.zeros(47, 63)
    saccade[:, 32:] = 1
    chosen = torch.tensor([weights.get(name, 0.0) for name in FEATURES])
    return Tables(torch.zeros(24, 32), saccade, 1.0, chosen, torch.linspace(100, 300, 65))


def known(past: list[tuple[float, float]], flat: Tables, salience: torch.Tensor | None = None) -> torch.Tensor:
    seen = torch.zeros(1, MEMORY, 2)
    seen[0, : len(past)] = torch.tensor(past)
    bright = torch.zeros(1, 24, 32) if salience is None else salience
    return features(bright, seen, torch.tensor([len(past)]), flat, SIZE, 24.0)[0].reshape(len(FEATURES), 24, 32)


def feature(name: str, past: list[tuple[float, float]]) -> torch.Tensor:
    return known(past, tables())[FEATURES.index(name)]


# what is known of a cell: 24 degrees on the short side, so that a cell is a degree wide


def test_nearness_to_where_the_eye_is_and_was() -> None:
    here = feature("here", [(1 / 32, 1 / 24)])  # the middle of cell (12, 16)
    assert here[12, 16] == pytest.approx(1)
    assert here[12, 19] == pytest.approx(math.exp(-(3**2) / (2 * 1.5**2)))
    path = [(0.0, 0.0)] * 3 + [(1 / 32, 1 / 24)]
    assert feature("back_3", path)[12, 16] == pytest.approx(1)
    assert feature("back_4", path).max() == 0  # no fixation so long ago
    assert feature("back_1", [(0.0, 0.0)]).max() == 0


def test_the_turn_from_the_last_saccade() -> None:
    rightward = [(1 / 32, 1 / 24), (-0.5, 1 / 24)]
    onward, collinear = feature("onward", rightward), feature("collinear", rightward)
    assert onward[12, 24] == pytest.approx(1) and onward[12, 8] == pytest.approx(-1)
    assert onward[4, 16] == pytest.approx(0, abs=1e-6)
    assert collinear[12, 24] == collinear[12, 8] == pytest.approx(1)
    assert collinear[4, 16] == pytest.approx(-1)
    assert feature("onward", [(0.0, 0.0)]).abs().max() == 0


def test_the_first_choices_are_told_apart() -> None:
    bright = torch.rand(1, 24, 32)
    for count, first, early in ((1, 1, 0), (2, 0, 1), (3, 0, 1), (4, 0, 0)):
        found = known([(0.0, 0.0)] * count, tables(), bright)
        assert torch.equal(found[FEATURES.index("salience_first")], first * bright[0])
        assert torch.equal(found[FEATURES.index("salience_early")], early * bright[0])


def test_saccades_are_looked_up_by_degrees() -> None:
    odds = feature("saccade", [(1 / 32, 1 / 24)])
    assert odds[12, 18:].min() == 1 and odds[12, :16].max() == 0
    half = features(torch.zeros(1, 24, 32), torch.zeros(1, 1, 2), torch.tensor([1]), tables(), SIZE, 12.0)
    assert half.shape == (1, len(FEATURES), 768)


def test_probabilities_are_those_of_the_weights() -> None:
    bright = torch.zeros(1, 24, 32)
    bright[0, 3, 4] = math.log(5)
    flat = tables(salience=1.0)
    share = log_priority(known([(0.0, 0.0)], flat, bright).reshape(1, len(FEATURES), -1), flat).exp().reshape(24, 32)
    assert share.sum() == pytest.approx(1)
    assert share[3, 4] / share[0, 0] == pytest.approx(5)
    sharp = log_priority(known([(0.0, 0.0)], flat, bright).reshape(1, len(FEATURES), -1), flat, 2.0).exp()
    assert sharp.max() / sharp.min() == pytest.approx(25, rel=1e-4)


def test_weights_are_found_again() -> None:
    draws = torch.Generator().manual_seed(0)
    bright = torch.randn(3000, 24, 32, generator=draws)
    true = tables(salience=0.7)
    past, count = torch.zeros(3000, MEMORY, 2), torch.full((3000,), 5)
    likely = log_priority(features(bright, past, count, true, SIZE, 24.0), true).exp()
    cell = torch.multinomial(likely, 1, generator=draws)[:, 0]
    target = torch.stack(((cell % 32 + 0.5) / 16 - 1, (cell // 32 + 0.5) / 12 - 1), 1)
    assert torch.equal(cells_of(target, (24, 32)), cell)
    nothing = np.zeros((0, 96, 128, 3), np.uint8)
    seen = Beliefs(nothing, nothing[..., 0], np.zeros(0, np.int64), past, count, target)
    found = fit_weights(bright, seen, tables(), SIZE, 24.0)
    assert found.weights[0] == pytest.approx(0.7, abs=0.08)
    assert found.weights[FEATURES.index("saccade")].abs() < 0.2


# the network


def test_inputs_of_a_grey_picture_are_flat() -> None:
    grey = torch.full((2, 96, 128, 3), 128, dtype=torch.uint8)
    full = torch.full((2, 96, 128), 255, dtype=torch.uint8)
    found = salience_inputs(grey, full)
    assert found.shape == (2, INPUTS, 48, 64)
    assert found[:, 4:8].abs().max() < 1e-5
    assert torch.isfinite(found).all()
    assert SalienceNetwork().eval()(found).shape == (2, 24, 32)


def test_hidden_pixels_are_not_looked_at() -> None:
    draws = np.random.default_rng(0)
    image = torch.from_numpy(draws.integers(0, 256, (1, 96, 128, 3), dtype=np.uint8))
    acuity = torch.zeros(1, 96, 128, dtype=torch.uint8)
    acuity[:, :, :64] = 255
    other = image.clone()
    other[:, :, 64:] = 7
    assert torch.equal(salience_inputs(image, acuity), salience_inputs(other, acuity))


# the agent


def test_draws_follow_the_priority() -> None:
    (observation,) = practice_observations(1, 1, needs=("belief",), size=SIZE)
    many = {key: np.repeat(value, 400, 0) for key, value in observation.items()}
    agent, other = ScanpathAgent(sharpness=1.0, seed=1), ScanpathAgent(seed=1)
    for one in (agent, other):
        one.reset(np.ones(400, np.bool_))
    likely = other.priority(many)[0]
    assert likely.sum() == pytest.approx(1, abs=1e-4)
    points = torch.from_numpy(agent.act(many))
    assert points.abs().max() <= 1
    mean = np.log(likely.ravel())[cells_of(points, (24, 32)).numpy()]
    expected, spread = (likely * np.log(likely)).sum(), np.log(likely)
    error = math.sqrt((likely * spread**2).sum() - expected**2) / 20
    assert mean.mean() == pytest.approx(expected, abs=4 * error)
    assert len(np.unique(points.numpy(), axis=0)) == 400
    durations = agent.dwell_ms()
    assert durations.shape == (400,) and durations.min() > 0 and 150 < durations.mean() < 300


def test_sharper_is_less_varied() -> None:
    (observation,) = practice_observations(1, 1, needs=("belief",), size=SIZE)
    many = {key: np.repeat(value, 200, 0) for key, value in observation.items()}
    cells = []
    for sharpness in (1.0, 6.0):
        agent = ScanpathAgent(sharpness=sharpness)
        agent.reset(np.ones(200, np.bool_))
        cells.append(len(cells_of(torch.from_numpy(agent.act(many)), (24, 32)).unique()))
    assert cells[1] < cells[0]


def test_what_it_needs_and_refuses(tmp_path: Path) -> None:
    assert make_agent("scanpath").needs == ("belief",)  # type: ignore[attr-defined]
    assert make_agent("scanpath", privileged=True).needs == ("scene",)  # type: ignore[attr-defined]
    with pytest.raises(InvalidValueError, match="sharpness"):
        ScanpathAgent(sharpness=math.nan)
    with pytest.raises(WeightsError, match="no weights file"):
        ScanpathAgent(weights=tmp_path / "nothing.safetensors")
    network, found, sharpness = load_scanpath(None)
    save_scanpath(tmp_path / "copy.safetensors", network, found, sharpness)
    again = load_scanpath(str(tmp_path / "copy.safetensors"))
    assert torch.equal(again[1].weights, found.weights) and again[2] == sharpness
    shipped = Path(scanpath_agent.__file__).parent / "weights" / "scanpath.safetensors"
    assert shipped.stat().st_size < 3_000_000


# salience times the centre


def test_salience_at_the_centre_is_looked_at_and_then_inhibited() -> None:
    scene = np.full((1, 96, 128, 3), 128, np.uint8)
    scene[:, 40:46, 60:66] = (255, 0, 0)
    scene[:, 4:10, 4:10] = (255, 0, 0)  # as salient, and far from the centre
    observation = {"scene": scene, "acuity": np.zeros((1, 96, 128, 1), np.uint8)}
    agent = SaliencyCentre(privileged=True)
    agent.reset(np.ones(1, np.bool_))
    away = np.array([[0.9, 0.9]], np.float32)
    first = agent.act({**observation, "fixation": away})
    assert np.abs(first - [[-0.016, -0.104]]).max() < 0.12
    second = agent.act({**observation, "fixation": first})
    assert np.abs(second - first).max() > 0.05
    likely = agent.priority({**observation, "fixation": second})
    assert likely.shape == (1, 24, 32) and likely.min() > 0


def test_salience_that_is_none() -> None:
    with pytest.raises(InvalidValueError, match="itti_koch, spectral_residual"):
        SaliencyCentre(salience="colour")
    with pytest.raises(InvalidValueError, match="a pair"):
        SaliencyCentre(centre_sd=0.4)  # type: ignore[arg-type]
