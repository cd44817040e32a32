"""Agents that see the hidden scene: they find what trying everything by hand finds."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from foveasim.agents.builtin.oracle import BeamOracle, Oracle, _distinct_best, blur_to_acuity
from foveasim.agents.contract.check import check_agent
from foveasim.agents.loading import AGENTS, make_agent
from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.mim.predictor import Predictor
from foveasim.agents.rollout import rollout
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye import belief as beliefs
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import make_retina
from foveasim.geometry import grid_norm, norm_to_px

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> MimNetwork:
    with torch.random.fork_rng(devices=[]):
        made = make_network("unet", widths=(8, 16, 16), blocks=(1, 0, 1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            spread = 0.5 * (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return made


def scenes(lanes, size):
    """Smooth colours with a little noise: what is seen foretells some of what is not."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.uniform(0, 255, (lanes, 3, 4, 4)).astype(np.float32))
    image = torch.nn.functional.interpolate(coarse, size, mode="bicubic").permute(0, 2, 3, 1)
    return as_scene((image + torch.from_numpy(rng.normal(0, 8, image.shape))).clamp(0, 255).to(torch.uint8))


def first_look(scene, retina, fixation=(0.1, -0.2)):
    """Return the belief of one glimpse, and the observation of it."""
    lanes, size = len(scene.image), scene.image.shape[1:3]
    here = torch.tensor([fixation]).expand(lanes, 2)
    glimpse = retina(scene, norm_to_px(here, size))
    belief = beliefs.integrate(beliefs.empty(lanes, size), glimpse)
    return belief, {
        "glimpse": glimpse.image.numpy(),
        "acuity": glimpse.acuity.numpy()[..., None],
        "fixation": here.numpy(),
        "time": np.ones((lanes, 1), np.float32),
        "belief": belief.image.numpy(),
        "belief_acuity": belief.acuity.numpy()[..., None],
        "scene": scene.image.numpy(),
    }


def error_after(scene, retina, belief, points, predictor):
    """Return what is left after glimpses at points, one after the other: the error after each, (steps, B)."""
    size, errors = scene.image.shape[1:3], []
    for point in points:
        belief = beliefs.integrate(belief, retina(scene, norm_to_px(point.expand(len(scene.image), 2), size)))
        image = predictor.predict(belief.image, belief.acuity).image
        errors.append((image - scene.image.float() / 255).square().mean((1, 2, 3)))
    return torch.stack(errors)


@pytest.mark.parametrize("name", ["disc", "pyramid"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
def test_the_oracle_takes_the_best_of_what_it_could_do(network, name, given, size):
    scene, retina, predictor = scenes(3, size), make_retina(name), Predictor(network)
    belief, observation = first_look(scene, retina, (-0.98, -0.98))  # from a corner every distance is seen
    points = grid_norm(3, 4)
    errors = torch.stack([error_after(scene, retina, belief, [point], predictor)[0] for point in points], 1)
    agent = Oracle(network, grid=(3, 4), retina=name if given else None)
    agent.reset(np.ones(3, np.bool_))
    action = torch.from_numpy(agent.act(observation))
    chosen = (action[:, None] - points).abs().sum(2).argmin(1)
    assert torch.equal(action, points[chosen])
    best = errors.amin(1)
    near = 1.002 if name == "pyramid" and not given else 1 + 1e-5  # a grey level of difference
    assert bool((errors[torch.arange(3), chosen] <= near * best).all())
    assert bool((errors.amax(1) > 1.01 * best).all())  # there was something to choose


def test_every_sequence_is_tried_where_the_beam_is_wide_enough(network):
    scene, retina, predictor = scenes(2, (40, 40)), make_retina("disc"), Predictor(network)
    belief, observation = first_look(scene, retina)
    points = grid_norm(2, 2)
    sequences = list(product(range(4), repeat=2))
    sums = torch.stack([error_after(scene, retina, belief, points[list(s)], predictor).sum(0) for s in sequences], 1)
    agent = BeamOracle(network, grid=(2, 2), depth=2, width=16)
    agent.reset(np.ones(2, np.bool_))
    made = [torch.from_numpy(agent.act(observation)) for _ in range(2)]  # the plan is carried out as it is
    for lane in range(2):
        path = tuple(int((action[lane] - points).abs().sum(1).argmin()) for action in made)
        found = sums[lane, sequences.index(path)]
        assert found <= sums[lane].min() * (1 + 1e-5)


def test_a_beam_of_one_step_is_the_oracle(network):
    scene, retina = scenes(2, (40, 40)), make_retina("pyramid")
    _, observation = first_look(scene, retina)
    agents = Oracle(network, grid=(3, 3), seed=4), BeamOracle(network, (3, 3), depth=1, width=5, seed=4)
    actions = []
    for agent in agents:
        agent.reset(np.ones(2, np.bool_))
        actions.append(agent.act(observation))
    assert np.array_equal(*actions)


def test_plans_are_made_lane_by_lane(network):
    scene, retina = scenes(2, (40, 40)), make_retina("disc")
    _, observation = first_look(scene, retina)
    agent = BeamOracle(network, grid=(2, 2), depth=2, width=2)
    agent.reset(np.ones(2, np.bool_))
    plan = [agent.act(observation) for _ in range(2)]
    agent.reset(np.ones(2, np.bool_))
    again = [agent.act(observation)]
    agent.reset(np.array([True, False]))
    again.append(agent.act(observation))
    assert np.array_equal(plan[0], again[0])
    assert np.array_equal(again[1], [plan[0][0], plan[1][1]])


def test_the_same_places_in_another_order_are_kept_once():
    total = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]])
    paths = torch.tensor([[[0, 1], [2, 1], [1, 2], [0, 0], [0, 2]]])
    assert _distinct_best(total, paths, 3).tolist() == [[1, 0, 4]]
    assert _distinct_best(total, paths, 9).tolist() == [[1, 0, 4, 3, 2]]


def test_a_view_of_an_acuity_is_what_the_pyramid_shows():
    scene, retina = scenes(2, (48, 60)), make_retina("pyramid")
    glimpse = retina(scene, torch.tensor([[10.0, 10.0], [50.0, 30.0]]))
    view = blur_to_acuity(scene.image, glimpse.acuity[:, None])[:, 0]
    away = (view.int() - glimpse.image.int()).abs()
    assert int(away.max()) <= 4 and float(away.float().mean()) < 0.6
    sharp = blur_to_acuity(scene.image, torch.full((2, 3, 48, 60), 255, dtype=torch.uint8))
    assert torch.equal(sharp, scene.image[:, None].expand(-1, 3, -1, -1, -1))


def test_another_metric_makes_another_choice(network):
    scene, retina = scenes(1, (48, 48)), make_retina("disc")
    _, observation = first_look(scene, retina)

    def corner(prediction, truth):  # cares for the bottom right alone
        return (prediction - truth)[:, 30:, 30:].abs().mean((1, 2, 3))

    agent = Oracle(network, grid=(4, 4), metric=corner)
    agent.reset(np.ones(1, np.bool_))
    assert agent.act(observation)[0].min() > 0.2
    for name in ("mse", "mae"):
        Oracle(network, metric=name)


@pytest.mark.parametrize(
    "make",
    [
        lambda network, seed: Oracle(network, grid=(2, 3), seed=seed),
        lambda network, seed: BeamOracle(network, grid=(2, 2), depth=2, width=2, seed=seed),
    ],
)
def test_both_keep_the_contract(network, make):
    results = {f.rule: f for f in check_agent(lambda seed: make(network, seed), size=(32, 40), limit_ms=10_000)}
    assert {result.level for result in results.values()} <= {"pass", "note"}, results
    assert results["lanes"].level == "pass" and "privileged" in results["declares"].message


def test_an_oracle_in_an_env_beats_an_eye_that_stays(network):
    def after(agent):
        env = FoveaVectorEnv(4, scenes="shapes", size=(48, 48), budget=9, belief=True, privileged=True)
        rollout(agent, env, steps=4, seed=1)
        seen = env.simulator.belief
        image = Predictor(network).predict(seen.image, seen.acuity).image
        error = float((image - env.simulator.scene.image.float() / 255).square().mean())
        env.close()
        return error

    assert after(Oracle(network, grid=(4, 4))) < 0.95 * after(make_agent("centre"))


def test_what_cannot_be_used_is_explained(network):
    with pytest.raises(InvalidValueError, match="metric must be one of mse, mae"):
        Oracle(network, metric="ssim")
    with pytest.raises(InvalidTypeError, match="metric must be a name or a function"):
        Oracle(network, metric=3)
    with pytest.raises(InvalidValueError, match="'patches' draws random numbers"):
        Oracle(network, retina="patches")
    with pytest.raises(UnknownNameError, match="Did you mean 'disc'"):
        Oracle(network, retina="disk")
    with pytest.raises(InvalidValueError, match="grid"):
        Oracle(network, grid=(0, 3))
    with pytest.raises(InvalidValueError, match="depth"):
        BeamOracle(network, depth=0)
    agent = Oracle(network)
    agent.reset(np.ones(1, np.bool_))
    _, observation = first_look(scenes(1, (40, 40)), make_retina("disc"))
    del observation["scene"]
    with pytest.raises(AgentError, match="privileged=True"):
        agent.act(observation)


def test_they_are_registered_and_ask_for_the_scene():
    for name in ("oracle", "beam_oracle"):
        assert "scene" in AGENTS.factory(name).needs  # type: ignore[attr-defined]
