"""Agents that look where their own prediction says that looking pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.agents.builtin.predictive import AttentionEntropy, Information, Surprise, Uncertainty
from foveasim.agents.builtin.predictive_base import best_place, in_chunks, spread_places
from foveasim.agents.contract.check import check_agent
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.mim.expected_gain import (
    cell_grid,
    cell_points,
    gain_map,
    hidden,
    measure_acuity_table,
    read_belief_state,
    shift_acuity_table,
)
from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.eye import belief as beliefs
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import make_retina
from foveasim.geometry import norm_to_px, px_to_norm
from foveasim.types import Prediction

pytestmark = pytest.mark.usefixtures("one_thread")


def small(name: str = "unet", **options: object) -> MimNetwork:
    """A network so small that it is quick, with weights that make its answers depend on what was seen."""
    if name == "unet":
        options = {"widths": (8, 16, 16), "blocks": (1, 0, 1), **options}
    with torch.random.fork_rng(devices=[]):
        network = make_network(name, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            spread = 0.5 * (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            if key != "head.bias":  # where a network of this size says how sure it is
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return network


class Guess:
    """Predicts one grey everywhere that is not sharp, with a standard deviation that a function of acuity gives."""

    name = "guess"

    def __init__(self, std=lambda acuity: torch.full_like(acuity, 0.2), grey=0.5):
        self.of, self.grey, self.asked = std, grey, []

    def imagine(self, observation):
        acuity = torch.as_tensor(observation["belief_acuity"])[..., 0].float() / 255
        self.asked.append(len(acuity))
        image = torch.as_tensor(observation["belief"]).float() / 255
        image = torch.where(acuity[..., None] < 1, torch.full_like(image, self.grey), image)
        std = self.of(acuity)
        return Prediction(image, None if std is None else torch.where(acuity < 1, std, 0.0))


class Eye:
    """Looks at scenes by a retina and makes the observations that an env would."""

    def __init__(self, image, retina="disc", **options):
        self.scene = as_scene(np.ascontiguousarray(image))
        self.retina = make_retina(retina, **options)
        self.size = self.scene.image.shape[1:3]
        self.belief = beliefs.empty(len(image), self.size)

    def look(self, fixation):
        fixation = torch.as_tensor(np.asarray(fixation, np.float32))
        glimpse = self.retina(self.scene, norm_to_px(fixation, self.size))
        self.belief = beliefs.integrate(self.belief, glimpse)
        return {
            "glimpse": glimpse.image.numpy(),
            "acuity": glimpse.acuity.numpy()[..., None],
            "fixation": fixation.numpy(),
            "time": np.ones((len(fixation), 1), np.float32),
            "belief": self.belief.image.numpy(),
            "belief_acuity": self.belief.acuity.numpy()[..., None],
        }


def noise(lanes=1, size=(48, 48), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (lanes, *size, 3), dtype=np.uint8)


def begun(agent, lanes=1):
    agent.reset(np.ones(lanes, np.bool_))
    return agent


MAKERS = {
    "uncertainty": lambda seed: Uncertainty(small(), seed=seed),
    "surprise": lambda seed: Surprise(small(), seed=seed),
    "information": lambda seed: Information(small(), candidates=3, seed=seed),
    "attention_entropy": lambda seed: AttentionEntropy(small("vit", dim=16, depth=1, decoder_depth=1), seed=seed),
}


# What a glimpse would add


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
@pytest.mark.parametrize("size", [(40, 40), (36, 60)])
def test_the_acuity_table_of_one_glimpse_foretells_every_other(retina, size):
    eye = make_retina(retina)
    scene = as_scene(noise(1, size))
    here = torch.tensor([[-0.99, -0.99]])  # from a corner, every distance is seen
    table = measure_acuity_table(eye(scene, norm_to_px(here, size)).acuity, here)
    places = torch.tensor([[0.0, 0.0], [0.3, -0.8], [0.99, 0.99], [-1.0, 0.4]])
    foretold = shift_acuity_table(table, places[None])[0]
    for place, acuity in zip(places, foretold, strict=True):
        assert torch.equal(acuity, eye(scene, norm_to_px(place[None], size)).acuity[0])


def test_distances_that_were_not_seen_have_the_acuity_of_the_greatest_that_was():
    acuity = torch.arange(0, 250, 10, dtype=torch.uint8).flip(0).expand(1, 5, 25).contiguous()
    table = measure_acuity_table(acuity, torch.tensor([[0.0, 0.0]]))
    row = (255 * table[0, 0]).round()
    assert row[0] == 120 and torch.equal(row[:13], torch.full((13,), 120.0))  # what is left and right is averaged
    assert torch.equal(row[12:], row[12].expand(13))


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
def test_the_gain_is_exact_where_a_cell_is_a_pixel(retina):
    size = (24, 31)
    rng = np.random.default_rng(1)
    eye, scene = make_retina(retina), as_scene(noise(2, size))
    here = torch.tensor([[-0.99, -0.99], [0.99, -0.99]])
    seen = eye(scene, norm_to_px(here, size)).acuity
    known = torch.maximum(seen, eye(scene, norm_to_px(torch.tensor([[0.2, 0.5], [0.0, 0.0]]), size)).acuity)
    variance = torch.from_numpy(rng.uniform(0.1, 1, (2, *size)).astype(np.float32))
    variance = torch.where(known < 255, variance, 0.0)
    found = gain_map(variance, known, measure_acuity_table(seen, here))
    assert cell_grid(size) == size and found.shape == (2, *size)

    left = hidden(known.float() / 255)
    points = norm_to_px(cell_points(size, torch.device("cpu")), size)
    for index, point in enumerate(points):
        would = eye(scene, point.expand(2, 2)).acuity.float() / 255
        share = torch.where(left > 0, (1 - hidden(would) / left.clamp_min(1e-9)).clamp_min(0), 0.0)
        expected = (variance * share).sum((1, 2))
        torch.testing.assert_close(found.flatten(1)[:, index], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("retina", "size"), [("disc", (96, 96)), ("pyramid", (96, 96)), ("disc", (70, 110))])
def test_the_gain_over_cells_finds_nearly_the_best_pixel(retina, size):
    eye = Eye(noise(1, size), retina)
    observation = eye.look([[0.0, 0.0]])
    seen = read_belief_state(observation, torch.device("cpu"))
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    variance = (torch.exp(-((y - 20.0) ** 2 + (x - 60.0) ** 2) / 400) + 0.01)[None]
    variance = torch.where(seen.acuity < 255, variance, 0.0)
    found = gain_map(variance, seen.acuity, measure_acuity_table(seen.glimpse_acuity, seen.fixation))
    left, true = hidden(seen.acuity.float() / 255), []
    points = norm_to_px(cell_points(size, torch.device("cpu")), size)
    prepared = eye.retina.prepare(eye.scene)
    for point in points:
        would = eye.retina.sense(prepared, point[None].contiguous()).acuity.float() / 255
        true.append((variance * (1 - hidden(would) / left.clamp_min(1e-9)).clamp_min(0)).sum())
    true = torch.stack(true)
    assert true[found.flatten().argmax()] > 0.97 * true.max()
    assert np.corrcoef(true, found.flatten())[0, 1] > 0.995


def test_what_is_sharp_promises_nothing():
    acuity = torch.full((1, 48, 48), 255, dtype=torch.uint8)
    table = measure_acuity_table(acuity, torch.zeros(1, 2))
    assert gain_map(torch.zeros(1, 48, 48), acuity, table).abs().max() == 0


def test_large_scenes_are_thought_about_at_96_px():
    eye = Eye(noise(1, (192, 288)))
    seen = read_belief_state(eye.look([[0.0, 0.0]]), torch.device("cpu"))
    assert seen.size == (96, 144) and seen.belief.dtype == torch.uint8
    share = float((eye.belief.acuity > 0).float().mean())
    assert float(seen.acuity.float().mean() / 255) == pytest.approx(share, abs=0.01)


# Choices


def test_near_ties_are_settled_by_noise_and_others_are_not():
    value = torch.tensor([[1.0, 0.98, 0.0], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0]])
    ties = torch.tensor([[0.0, 0.9, 0.9], [0.1, 0.9, 0.9], [0.3, 0.1, 0.9]])
    assert best_place(value, ties).tolist() == [0, 1, 2]


def test_places_are_spread_and_never_repeated():
    points = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
    value = torch.rand(3, 25, generator=torch.Generator().manual_seed(0))
    found = spread_places(value, torch.zeros(3, 25), points, 4, 1.5)
    assert torch.equal(found[:, 0], value.argmax(1))
    for lane in found:
        apart = torch.cdist(points[lane], points[lane]) + 9 * torch.eye(4)
        assert apart.min() >= 1.5
    every = spread_places(value, torch.zeros(3, 25), points, 99, 1.5)
    assert every.shape == (3, 25) and all(len(set(lane.tolist())) == 25 for lane in every)


def test_chunks_cover_every_combination_once():
    got = [tuple(index.tolist()) for chunk in in_chunks(5, 3, 9) for index in torch.stack(chunk, 1)]
    assert got == [(a, b, c) for a in range(5) for b in range(3) for c in range(9)]


# Agents


@pytest.mark.parametrize(("name", "size"), [*((name, (36, 44)) for name in MAKERS), ("uncertainty", (130, 104))])
def test_every_agent_keeps_the_contract(name, size):
    results = {result.rule: result for result in check_agent(MAKERS[name], size=size, limit_ms=10_000)}
    assert {result.level for result in results.values()} <= {"pass", "note"}, results
    assert results["lanes"].level == "pass"  # lane 0 of four does what one eye does
    assert "imagines" in results


@pytest.mark.parametrize("agent", [Uncertainty, Surprise, Information])
def test_gaze_goes_to_the_one_place_that_is_unsure(agent):
    def spots(acuity):
        std = torch.full_like(acuity, 0.01)
        std[0, 6:12, 30:36] = 0.3
        std[1, 34:40, 4:10] = 0.3
        return std

    eye = Eye(noise(2))
    chosen = begun(agent(Guess(spots)), 2)
    if agent is Information:
        chosen.predictor = Guess(lambda acuity: spots(acuity) if len(acuity) == 2 else torch.full_like(acuity, 0.1))
    fixation = norm_to_px(torch.from_numpy(chosen.act(eye.look(np.zeros((2, 2))))), (48, 48))
    away = (fixation - torch.tensor([[33.0, 9.0], [7.0, 37.0]])).norm(dim=1)
    assert bool((away < 9).all()), fixation  # the disc has a radius of 12 px


def test_where_nothing_is_left_gaze_goes_anywhere_by_the_seed():
    observation = Eye(noise(), "full").look([[0.0, 0.0]])
    first, again, other = (begun(Uncertainty(Guess(), seed=seed)).act(observation) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("agent", [Uncertainty, Information])
def test_gaze_does_not_return_to_what_was_seen(agent):
    eye = Eye(noise(3, (48, 64)))
    looking, fixation = begun(agent(Guess()), 3), np.zeros((3, 2), np.float32)
    shares = []
    for _ in range(6):
        observation = eye.look(fixation)
        shares.append((eye.belief.acuity > 0).float().mean((1, 2)))
        fixation = looking.act(observation)
    assert bool((shares[4] > 0.72).all())  # of discs that show a fifth, five cannot show more than 0.98
    assert bool((torch.diff(torch.stack(shares), dim=0) > 0.02).all())


def test_the_first_action_of_surprise_is_that_of_uncertainty():
    observation = Eye(noise(2)).look(np.zeros((2, 2)))
    network = small()
    assert np.array_equal(begun(Surprise(network), 2).act(observation), begun(Uncertainty(network), 2).act(observation))


def test_gaze_returns_to_where_prediction_failed():
    # Grey, as predicted, but for a corner of black and white. Two glimpses at grey, then one that meets the corner.
    image = np.full((2, 96, 96, 3), 128, np.uint8)
    image[0, :40, 56:] = 255 * np.random.default_rng(0).integers(0, 2, (40, 40, 1))
    image[1, 56:, :40] = 255 * np.random.default_rng(1).integers(0, 2, (40, 40, 1))
    eye, agent = Eye(image), begun(Surprise(Guess(grey=128 / 255)), 2)
    corners = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)
    agent.act(eye.look(np.zeros((2, 2))))
    fixation = agent.act(eye.look(0.45 * corners))
    assert (fixation * corners).sum(1).min() > 0.6  # to the corner, not to the three that are as unsure
    aside = agent.act(eye.look(-0.9 * corners))  # elsewhere all is as predicted: gaze returns to the failure
    assert (aside * corners).sum(1).min() > 0.6


def test_surprise_forgets_the_lanes_that_are_reset():
    network, places = small(), np.array([[0.4, -0.3], [0.4, -0.3]])
    eye, again = Eye(noise(2)), Eye(noise(2, seed=9)).look(places)
    agent = begun(Surprise(network), 2)
    agent.act(eye.look(np.zeros((2, 2))))
    agent.act(eye.look(places))
    revealed = agent._revealed.clone()
    agent.reset(np.array([False, True]))
    agent.act(again)
    assert agent._revealed[1, 0].sum() >= revealed[1, 0].sum() > 0  # the amount revealed only grows
    assert agent._revealed[:, 1].abs().max() == 0


def test_information_counts_what_one_place_tells_of_the_others():
    # Whoever sees the pixel (10, 40) knows everything; nothing in the variance itself points there.
    def key_place(acuity):
        return torch.where(acuity[:, 10:11, 40:41] == 1, 0.01, 0.2).expand_as(acuity)

    observation = Eye(noise()).look([[-0.2, 0.2]])
    guess = Guess(key_place)
    fixation = begun(Information(guess, candidates=40)).act(observation)
    away = norm_to_px(torch.from_numpy(fixation), (48, 48))[0] - torch.tensor([40.0, 10.0])
    assert away.norm() <= 13
    assert guess.asked == [1, 40]  # all candidates in one forward pass
    plain = begun(Uncertainty(Guess(key_place))).act(observation)
    assert not np.array_equal(plain, fixation)


def test_a_prediction_is_made_once_for_the_window_and_the_choice():
    observation = Eye(noise()).look([[0.0, 0.0]])
    guess = Guess()
    agent = begun(Uncertainty(guess))
    shown = agent.imagine(observation)
    agent.act(observation)
    assert guess.asked == [1]
    assert torch.equal(agent.imagine(observation).image, shown.image)
    agent.imagine({**observation, "belief": 255 - observation["belief"]})
    agent.imagine({**observation, "belief_acuity": observation["belief_acuity"] // 2})
    agent.imagine({key: observation[key] for key in ("glimpse", "acuity")})
    assert guess.asked == [1, 1, 1, 1]


@pytest.mark.parametrize("name", MAKERS)
def test_no_hidden_pixel_has_a_part_in_the_choice(name):
    observation = Eye(noise(2)).look(np.zeros((2, 2)))
    painted = observation["belief"].copy()
    painted[observation["belief_acuity"][..., 0] == 0] = 77
    changed = {**observation, "belief": painted, "glimpse": painted}
    assert not np.array_equal(painted, observation["belief"])
    assert np.array_equal(begun(MAKERS[name](0), 2).act(observation), begun(MAKERS[name](0), 2).act(changed))


@pytest.mark.parametrize("agent", [Uncertainty, Surprise, Information])
def test_a_network_that_does_not_tell_how_sure_it_is_is_refused(agent):
    with pytest.raises(AgentError, match=r"network 'lean' predicts no standard deviation\. .* network='unet'"):
        agent(make_network("lean"))
    with pytest.raises(AgentError, match="network 'unet' predicts no standard deviation"):
        agent(make_network("unet", std=False))
    unsure = begun(agent(Guess(lambda acuity: None)))
    with pytest.raises(AgentError, match="network 'guess' predicts no standard deviation"):
        unsure.act(Eye(noise()).look([[0.0, 0.0]]))


def test_what_cannot_be_used_is_explained():
    with pytest.raises(InvalidTypeError, match="network must be a network, the name"):
        Uncertainty(7)
    with pytest.raises(InvalidValueError, match="candidates"):
        Information(Guess(), candidates=0)
    with pytest.raises(InvalidValueError, match="spread"):
        Surprise(Guess(), spread=0)
    with pytest.raises(
        AgentError, match=r"goes by the attention of a transformer, and .unet. has none.* --network vit"
    ):
        AttentionEntropy(small())
    observation = make_synthetic_observations(1, 1, size=(32, 32))[0]
    with pytest.raises(AgentError, match="needs = "):
        begun(Uncertainty(Guess())).act(observation)
    with pytest.raises(AgentError, match="the observation has 1 lanes, the last reset had 2"):
        begun(Uncertainty(Guess()), 2).act(Eye(noise()).look([[0.0, 0.0]]))


# Attention


def test_attention_is_what_the_last_layer_goes_by():
    network = small("vit", dim=16, heads=2, depth=1, decoder_depth=2)
    image, acuity = torch.rand(2, 3, 40, 52), (torch.rand(2, 1, 40, 52) > 0.5).float()
    with torch.no_grad():
        weights = network.attention(image, acuity)
        assert weights.shape == (2, 2, 35, 35)
        torch.testing.assert_close(weights.sum(3), torch.ones(2, 2, 35))
        latent = network.encode(image, acuity)
        tokens = network._placed(latent.flatten(2).transpose(1, 2), latent.shape[2:])
        last = network.decoder[1]
        x = last.norm1(network.decoder[0](tokens))
        values = last.attention.value(x).unflatten(-1, (2, -1)).transpose(1, 2)
        found = last.attention.out((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(found, last.attention(x))
        entropy = network.attention_entropy(image, acuity)
    assert entropy.shape == (2, 5, 7)
    assert entropy.min() > 0 and entropy.max() <= 2 * np.log(35) + 1e-4


def test_attention_entropy_goes_where_attention_is_spread(monkeypatch):
    network = small("vit", dim=16, depth=1, decoder_depth=1)
    agent = begun(AttentionEntropy(network))
    spread = torch.zeros(1, 6, 6)
    spread[0, 0, 5] = 3.0
    monkeypatch.setattr(type(network), "attention_entropy", lambda self, image, acuity: spread)
    observation = Eye(noise()).look([[0.0, 0.0]])
    fixation = agent.act(observation)
    wanted = px_to_norm(torch.tensor([44.0, 4.0]), (48, 48)).numpy()
    assert np.abs(fixation[0] - wanted).max() < 12 / 24
