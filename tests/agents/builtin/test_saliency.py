"""Salience: what pops out, what must not, and what is not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveasim.agents.builtin import saliency
from foveasim.agents.builtin.saliency import (
    IttiKoch,
    SpectralResidual,
    fill_hidden,
    itti_koch_map,
    spectral_residual_map,
)
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.loading import make_agent
from foveasim.errors import AgentError, InvalidValueError

MAPS = [itti_koch_map, spectral_residual_map]
AGENT_CLASSES = [IttiKoch, SpectralResidual]

pytestmark = pytest.mark.usefixtures("one_thread")


def squares(size=(96, 96), colour=(60, 60, 60), odd=(150, 15, 15), odd_at=(4, 1)):
    """A grid of dark squares on grey, one of them red and as dark; the image and the odd one's centre, px."""
    image = np.full((*size, 3), 90, np.uint8)
    for column in range(8, size[1] - 8, 16):
        for row in range(8, size[0] - 8, 16):
            image[row : row + 6, column : column + 6] = colour
    x, y = 8 + 16 * odd_at[0], 8 + 16 * odd_at[1]
    image[y : y + 6, x : x + 6] = odd
    return image, (x + 3, y + 3)


def bars(odd_at=(3, 2)):
    """A grid of vertical bars, one of them horizontal."""
    image = np.full((96, 96, 3), 90, np.uint8)
    for column in range(12, 90, 18):
        for row in range(12, 90, 18):
            if (column - 12) // 18 == odd_at[0] and (row - 12) // 18 == odd_at[1]:
                image[row - 1 : row + 2, column - 5 : column + 6] = 220
            else:
                image[row - 5 : row + 6, column - 1 : column + 2] = 220
    return image, (12 + 18 * odd_at[0], 12 + 18 * odd_at[1])


def peak(found, size):
    """The most salient place of each map, (B, 2) px."""
    rows, cols = found.shape[1:]
    best = found.flatten(1).argmax(1)
    x, y = (best % cols + 0.5) * size[1] / cols, (best // cols + 0.5) * size[0] / rows
    return torch.stack((x, y), 1).numpy()


def seen(belief, fixation=None):
    belief = np.asarray(belief)
    lanes = len(belief)
    return {
        "belief": belief,
        "belief_acuity": np.full((*belief.shape[:3], 1), 255, np.uint8),
        "fixation": np.zeros((lanes, 2), np.float32) if fixation is None else np.asarray(fixation, np.float32),
    }


def disc(radius_px=24, size=96):
    y, x = np.mgrid[:size, :size] + 0.5
    return (np.hypot(x - size / 2, y - size / 2) < radius_px)[None]


@pytest.mark.parametrize("compute", MAPS)
@pytest.mark.parametrize("value", [0, 128, (200, 30, 30)])
def test_nothing_stands_out_in_a_uniform_scene(compute, value):
    image = torch.empty((2, 96, 120, 3), dtype=torch.uint8)
    image[:] = torch.tensor(value, dtype=torch.uint8)
    assert compute(image).abs().max() == 0


@pytest.mark.parametrize("odd_at", [(4, 1), (1, 3)])
def test_an_odd_colour_pops_out(odd_at):
    image, where = squares(odd_at=odd_at)
    found = peak(itti_koch_map(torch.from_numpy(image)[None]), (96, 96))[0]
    assert np.hypot(*(found - where)) < 8


def test_an_odd_orientation_pops_out():
    image, where = bars()
    found = peak(itti_koch_map(torch.from_numpy(image)[None]), (96, 96))[0]
    assert np.hypot(*(found - where)) < 8


@pytest.mark.parametrize("compute", MAPS)
@pytest.mark.parametrize("size", [(96, 96), (80, 140), (240, 320)])
def test_a_lone_spot_pops_out(compute, size):
    image = np.random.default_rng(0).normal(100, 4, (*size, 3)).astype(np.uint8)
    x, y = size[1] // 4, size[0] // 3
    half = size[0] // 32
    image[y - half : y + half, x - half : x + half] = 230
    found = compute(torch.from_numpy(image)[None])
    assert found.min() >= 0 and found.max() == 1
    assert np.hypot(*(peak(found, size)[0] - (x, y))) < size[0] / 12


def test_many_peaks_promote_less_than_one():
    one, many = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20)
    one[..., 10, 10] = 3
    many[..., 2::4, 2::4] = 3
    assert saliency._promote(one).max() == 1  # (1 - 0)²
    assert saliency._promote(many).max() == 0  # (1 - 1)²
    many[..., 10, 10] = 6  # the highest 1, all others 0.5: (1 - 0.5)²
    torch.testing.assert_close(saliency._promote(many).max(), torch.tensor(0.25))


def test_the_neighbourhood_maximum_is_that_of_max_pool():
    maps = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(saliency._highest_around(maps), F.max_pool2d(maps, 7, 1, 3))


def test_filling_keeps_what_was_seen_and_continues_it():
    draws = torch.Generator().manual_seed(0)
    image, trust = torch.rand(2, 3, 33, 50, generator=draws), torch.from_numpy(disc(12, 50)[:, :33]).float()[None]
    filled = fill_hidden(image * trust, trust.expand(2, 1, 33, 50))
    shown = trust.bool().expand_as(image)
    torch.testing.assert_close(filled[shown], image[shown])
    assert filled.min() >= 0 and filled.max() <= 1
    constant = fill_hidden(0.25 * trust, trust)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.25))
    assert fill_hidden(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)).abs().max() == 0


@pytest.mark.parametrize("compute", MAPS)
def test_hidden_pixels_change_nothing(compute):
    shown = disc()
    scene = make_synthetic_observations(1, 1, needs=("scene",))[0]["scene"]
    maps = []
    for behind in (scene[:, ::-1], np.zeros_like(scene), np.full_like(scene, 127)):
        belief = np.where(shown[..., None], scene, behind)
        maps.append(compute(torch.from_numpy(belief), torch.from_numpy(shown * np.uint8(255))))
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


@pytest.mark.parametrize("compute", MAPS)
def test_the_border_of_the_seen_does_not_stand_out(compute):
    shown = disc()
    belief = np.where(shown[..., None], np.uint8(220), np.uint8(0)) * np.ones(3, np.uint8)
    assert compute(torch.from_numpy(belief), torch.from_numpy(shown * np.uint8(255))).abs().max() == 0
    image, where = squares(odd_at=(3, 2))  # the odd one is inside the disc: it wins, not the border
    belief = np.where(shown[..., None], image, 255)
    found = compute(torch.from_numpy(belief), torch.from_numpy(shown * np.uint8(255)))
    if compute is itti_koch_map:
        assert np.hypot(*(peak(found, (96, 96))[0] - where)) < 8


@pytest.mark.parametrize("cls", AGENT_CLASSES)
def test_gaze_does_not_return_to_what_is_inhibited(cls):
    image, _ = squares()
    agent, at = cls(ior_half_life=1e6), np.zeros((1, 2), np.float32)
    agent.reset(np.ones(1, bool))
    path = [at]
    for _ in range(5):
        at = agent.act(seen(image[None], fixation=at))
        path.append(at)
    points = np.concatenate(path)
    assert (np.abs(points) <= 1).all()
    # Inhibition is 1 - 1/e at one radius, a third of the half side: nothing lands well inside of it.
    apart = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))[np.triu_indices(len(points), 1)]
    assert apart.min() > 1 / 6


def test_inhibition_fades_by_its_half_life():
    agent = IttiKoch(ior_half_life=2)
    agent.reset(np.ones(1, bool))
    image, _ = squares()
    for at in ((-0.99, -0.99), (0.99, 0.99), (0.99, 0.99)):
        agent.act(seen(image[None], fixation=[at]))
    np.testing.assert_allclose(float(agent._inhibition[0, 0, 0]), 0.5, atol=0.01)
    np.testing.assert_allclose(float(agent._inhibition[0, -1, -1]), 1, atol=0.01)
    agent.reset(np.ones(1, bool))
    assert float(agent._inhibition.max()) == 0


@pytest.mark.parametrize("cls", AGENT_CLASSES)
def test_a_scene_without_salience_is_still_explored(cls):
    agent = cls(seed=4)
    agent.reset(np.ones(3, bool))
    actions = agent.act(seen(np.full((3, 96, 96, 3), 128, np.uint8)))
    assert len(np.unique(actions, axis=0)) == 3
    assert (np.hypot(*actions.T) > 0.1).all()


@pytest.mark.parametrize("cls", AGENT_CLASSES)
def test_a_lane_does_what_a_single_eye_with_its_seed_does(cls, monkeypatch):
    monkeypatch.setattr(saliency, "CHUNK", 2)
    observations = make_synthetic_observations(3, 4, needs=("belief",), size=(64, 96))
    batch, cut = cls(seed=5), np.array([False, True, False])
    singles = [cls(seed=5 + lane) for lane in range(3)]
    batch.reset(np.ones(3, bool))
    for single in singles:
        single.reset(np.ones(1, bool))
    for step, observation in enumerate(observations):
        if step == 2:
            batch.reset(cut)
            singles[1].reset(np.ones(1, bool))
        together = batch.act(observation)
        for lane, single in enumerate(singles):
            alone = single.act({key: value[lane : lane + 1] for key, value in observation.items()})
            np.testing.assert_array_equal(together[lane], alone[0])


@pytest.mark.parametrize("cls", AGENT_CLASSES)
def test_privileged_says_so(cls):
    plain, privileged = cls(), cls(privileged=True)
    assert (plain.needs, privileged.needs) == (("belief",), ("scene",))
    assert privileged.name == f"{plain.name} (privileged)"
    observation = make_synthetic_observations(2, 1, needs=("scene",))[0]
    privileged.reset(np.ones(2, bool))
    assert privileged.act(observation).shape == (2, 2)
    plain.reset(np.ones(2, bool))
    with pytest.raises(AgentError, match=r"needs 'belief'.*belief=True"):
        plain.act(observation)


def test_tensors_are_taken_too():
    observation = make_synthetic_observations(2, 1, needs=("belief",))[0]
    agents = [IttiKoch(), IttiKoch()]
    for agent in agents:
        agent.reset(np.ones(2, bool))
    tensors = {key: torch.from_numpy(value) for key, value in observation.items()}
    np.testing.assert_array_equal(agents[0].act(observation), agents[1].act(tensors))


@pytest.mark.parametrize("arguments", [{"ior_radius": 0}, {"ior_half_life": -1}, {"ior_half_life": float("nan")}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(InvalidValueError, match="ior_"):
        make_agent("saliency", **arguments)
