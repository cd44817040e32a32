"""The agent that was fitted to people: its tables in closed form, its draws, and what it may not see."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from foveasim.agents.builtin.saliency_centre import SaliencyCentre
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.loading import make_agent
from foveasim.agents.mim.memo import MapMemory
from foveasim.agents.scanpath_model import agent as scanpath_agent
from foveasim.agents.scanpath_model.agent import ScanpathAgent, load_scanpath
from foveasim.agents.scanpath_model.backbone import LEVELS, SIDE_PX, Backbone, backbone_inputs
from foveasim.agents.scanpath_model.fit import cells_of, fit_weights, save_scanpath
from foveasim.agents.scanpath_model.prior import FEATURES, MEMORY, Tables, draw_points, features, log_priority
from foveasim.agents.scanpath_model.training_views import Histories
from foveasim.errors import InvalidValueError, WeightsError

SIZE = (96, 128)

pytestmark = pytest.mark.usefixtures("one_thread")


def tables(**weights: float) -> Tables:
    """Flat tables but for odds of 1 to the right of the middle."""
    saccade = torch.zeros(47, 63)
    saccade[:, 32:] = 1
    chosen = torch.tensor([weights.get(name, 0.0) for name in FEATURES])
    return Tables(torch.zeros(24, 32), saccade, 1.0, chosen, torch.zeros(30), torch.linspace(100, 300, 65))


def known(past: list[tuple[float, float]], flat: Tables, salience: torch.Tensor | None = None) -> torch.Tensor:
    seen = torch.zeros(1, MEMORY, 2)
    seen[0, : len(past)] = torch.tensor(past)
    bright = torch.zeros(1, 24, 32) if salience is None else salience
    bright = bright if bright.ndim == 4 else torch.stack((bright, bright), 1)
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


def test_early_and_late_fixations_have_maps_of_their_own() -> None:
    maps = torch.stack((torch.full((1, 24, 32), 2.0), torch.full((1, 24, 32), 3.0)), 1)
    for count, bright in ((1, 2), (2, 2), (3, 3), (9, 3)):
        assert known([(0.0, 0.0)] * count, tables(), maps)[FEATURES.index("salience")].unique().tolist() == [bright]


def test_saccades_are_corrected_by_amplitude_when_drawn() -> None:
    flat = replace(tables(amplitude=1.0), amplitude=torch.tensor([0.0, 0.0, math.log(3)]))  # from 40 / 24 degrees on
    found = known([(1 / 32, 1 / 24)], flat).reshape(1, len(FEATURES), -1)
    drawn = log_priority(found, flat, 1.0).exp().reshape(24, 32)
    assert drawn[12, 18] / drawn[12, 17] == pytest.approx(3, rel=1e-4)
    assert drawn[12, 30] / drawn[12, 18] == pytest.approx(1, rel=1e-4)
    assert log_priority(found, flat).exp().unique().numel() == 1


def test_points_are_drawn_within_their_cells() -> None:
    share = torch.tensor([[0.0, 0.25, 0.75, 0.0]]).expand(4, -1).log()
    drawn = torch.tensor([[0.0, 0.5, 0.5], [0.24, 0.0, 0.5], [0.26, 0.5, 0.5], [0.99, 0.5, 0.999]], dtype=torch.float64)
    found = draw_points(share, drawn, (2, 2))
    assert found[:, 0].tolist() == pytest.approx([0.5, 0, -0.5, -0.5])
    assert found[:, 1].tolist() == pytest.approx([-0.5, -0.5, 0.5, 0.999], abs=1e-3)


def test_saccades_are_looked_up_by_degrees() -> None:
    odds = feature("saccade", [(1 / 32, 1 / 24)])
    assert odds[12, 18:].min() == 1 and odds[12, :16].max() == 0
    half = features(torch.zeros(1, 2, 24, 32), torch.zeros(1, 1, 2), torch.tensor([1]), tables(), SIZE, 12.0)
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
    bright = torch.randn(1500, 24, 32, generator=draws)
    true = tables(salience=0.7)
    past, count = torch.zeros(1500, MEMORY, 2), torch.full((1500,), 5)
    bright = torch.stack((bright, bright), 1)
    likely = log_priority(features(bright, past, count, true, SIZE, 24.0), true).exp()
    cell = torch.multinomial(likely, 1, generator=draws)[:, 0]
    target = torch.stack(((cell % 32 + 0.5) / 16 - 1, (cell // 32 + 0.5) / 12 - 1), 1)
    assert torch.equal(cells_of(target, (24, 32)), cell)
    found = fit_weights(bright, Histories(past, count, target), tables(), SIZE, 24.0)
    assert found.weights[0] == pytest.approx(0.7, abs=0.1)
    assert found.weights[FEATURES.index("saccade")].abs() < 0.2
    assert found.weights[FEATURES.index("amplitude")] == 1


# the network


def test_levels_of_the_backbone() -> None:
    backbone = Backbone()
    assert sum(weight.numel() for weight in backbone.parameters()) == 692_688
    with torch.inference_mode():
        found = backbone(torch.zeros(1, 3, 144, 192))
    assert [tuple(maps.shape[1:]) for maps in found] == [(24, 18, 24), (40, 18, 24), (80, 9, 12), (112, 9, 12)]
    assert [maps.shape[1] for maps in found] == list(LEVELS)


def test_the_shipped_backbone_is_the_published_one() -> None:
    """Mean magnitudes of the levels, as a program of its own computes them from the published weights in float32."""
    y, x = torch.meshgrid(torch.arange(144.0), torch.arange(192.0), indexing="ij")
    image = torch.stack((torch.sin(x / 7), torch.sin(y / 5), torch.sin((x + y) / 11)))[None]
    with torch.inference_mode():
        found = load_scanpath(None).network.backbone(image)
    means = [maps.abs().mean().item() for maps in found[1:]]
    assert means == pytest.approx([7.770, 6.727, 4.636], rel=0.01)  # the file holds half precision


def test_hidden_pixels_are_not_looked_at() -> None:
    draws = np.random.default_rng(0)
    image = torch.from_numpy(draws.integers(0, 256, (1, 300, 400, 3), dtype=np.uint8))
    acuity = torch.zeros(1, 300, 400, dtype=torch.uint8)
    acuity[:, :, :200] = 255
    other = image.clone()
    other[:, :, 200:] = 7
    for size in (slice(None), slice(96)):  # shrunk, and enlarged
        pixels, sharp = backbone_inputs(image[:, size], acuity[:, size])
        again, _ = backbone_inputs(other[:, size], acuity[:, size])
        assert torch.equal(pixels, again)
        assert min(pixels.shape[2:]) == SIDE_PX and pixels.shape[2:] == sharp.shape[2:]
        assert sharp[0, 0, :, 0].min() == pytest.approx(1) and sharp[0, 0, :, -1].max() == 0


# what is remembered


def test_maps_are_made_once_for_each_picture() -> None:
    asked = []

    def compute(image: torch.Tensor, acuity: torch.Tensor | None) -> torch.Tensor:
        asked.append(len(image))
        return image[..., 0].float().mean((1, 2)) + (0 if acuity is None else acuity.float().mean((1, 2)))

    memory = MapMemory(compute, max_entries=2)
    picture = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 4, 4, 3)
    twice = torch.cat((picture[:2], picture[:2]))
    assert memory.look_up(twice).tolist() == [0, 1, 0, 1]
    assert memory.look_up(twice.flip(0)).tolist() == [1, 0, 1, 0]
    assert asked == [2]
    sharp = torch.full((2, 4, 4), 9, dtype=torch.uint8)
    assert memory.look_up(picture[:2], sharp).tolist() == [9, 10]  # another acuity is another view
    assert memory.look_up(picture[2:]).tolist() == [2]
    assert memory.look_up(picture[:1]).tolist() == [0]  # forgotten by now
    assert asked == [2, 2, 1, 1]


# the agent


def test_draws_follow_the_priority() -> None:
    (observation,) = make_synthetic_observations(1, 1, needs=("belief",), size=SIZE)
    many = {key: np.repeat(value, 400, 0) for key, value in observation.items()}
    agent, other = ScanpathAgent(sharpness=1.0, seed=1), ScanpathAgent(seed=1)
    for one in (agent, other):
        one.tables = replace(one.tables, amplitude=torch.zeros(30))  # in which draws differ from the priority
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
    (observation,) = make_synthetic_observations(1, 1, needs=("belief",), size=SIZE)
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
    found = load_scanpath(None)
    save_scanpath(tmp_path / "copy.safetensors", found.network, found.tables, found.sampling)
    again = load_scanpath(str(tmp_path / "copy.safetensors"))
    for mode in ("belief", "scene"):
        assert torch.equal(again.sampling[mode].weights, found.sampling[mode].weights)
        assert again.sampling[mode].sharpness == found.sampling[mode].sharpness > 0
    assert torch.equal(again.tables.saccade, found.tables.saccade)
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
