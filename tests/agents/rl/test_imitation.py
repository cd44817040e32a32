"""The one-step oracle as a teacher: its gains are those that the env then pays, and a policy learns their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.agents.gaze_policy.features import FeatureConfig, Features
from foveasim.agents.gaze_policy.rewards import PredictionReward, RewardWeights
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.agents.rl.imitation import (
    Demonstrations,
    ImitationConfig,
    collect_oracle_demonstrations,
    fit,
    near_cells,
    true_gains,
)
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidValueError
from foveasim.scenes.source import ArrayScenes


def eyes(privileged: bool = True, actions: str = "cell") -> FeatureObservation:
    torch.manual_seed(0)
    ahead = BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)))
    coarse = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    images = coarse.repeat(12, 1).repeat(12, 2)
    lanes = FoveaVectorEnv(
        4,
        scenes=ArrayScenes(images),
        size=(48, 48),
        retina="disc",
        budget=3,
        belief=True,
        privileged=privileged,
        autoreset_mode="SameStep",
    )
    weights = RewardWeights(prediction_gain=1.0 if privileged else 0.0, coverage=1.0)
    return FeatureObservation(PredictionReward(lanes, ahead, weights), FeatureConfig(cells=6), actions)  # type: ignore[arg-type]


def test_true_gains_are_what_the_env_pays() -> None:
    lanes = eyes()
    lanes.reset(seed=0)
    draws = np.random.default_rng(0)
    for _ in range(3):
        cells = draws.integers(0, 36, 4)
        point = lanes.current_features.points[torch.arange(4), torch.from_numpy(cells)][:, None]
        with torch.inference_mode():
            envs = lanes.envs
            foretold = true_gains(envs.belief_predictor, envs.current_prediction, envs.scene, point)[:, 0]
        paid = lanes.step(cells)[4]["reward_terms"]["prediction_gain"]
        # Foretold from the acuity of another fixation, whose disc may have a pixel more or less at its edge.
        np.testing.assert_allclose(foretold.numpy(), paid, atol=1e-3)
        assert np.abs(paid).max() > 5e-3


@pytest.mark.parametrize("actions", ["cell", "point"])
def test_demonstrations_hold_every_moment_of_the_episodes(actions: str) -> None:
    options, shares = ImitationConfig(candidates=5), []
    lanes = eyes(actions=actions)

    def act(observation: dict[str, np.ndarray]) -> np.ndarray:
        assert observation["maps"].shape == (4, 10, 6, 6)
        return np.zeros(4, np.int64) if actions == "cell" else np.zeros((4, 2), np.float32)

    found = collect_oracle_demonstrations(lanes, act, 5, options, on_progress=shares.append)
    again = collect_oracle_demonstrations(lanes, act, 5, options)
    assert found.gains.shape == (2 * 3 * 4, 5)  # two rounds of four lanes for five episodes
    assert found.maps.shape == (24, 10, 6, 6)
    assert found.points.shape == (24, 5, 2)
    assert all(len(row.unique()) == 5 for row in found.cells)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    torch.testing.assert_close(found.gains, again.gains, rtol=0, atol=0)
    assert found.maps.requires_grad is False


def test_near_candidates_are_drawn_by_the_softmax_of_their_gain() -> None:
    gain = torch.tensor([0.0, 0.5, 1.0, 0.9, 0.95]).expand(20_000, -1)
    features = Features(*(torch.zeros(()),) * 3, gain)
    cells = near_cells(features, 2, 5.0, torch.Generator().manual_seed(0))
    assert (cells == 2).any(1).all()
    other = cells[cells != 2]
    share = torch.bincount(other, minlength=5) / len(other)
    expected = torch.where(torch.arange(5) == 2, -torch.inf, 5 * gain[0]).softmax(0)
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0)
    every = near_cells(features, 9, 5.0, torch.Generator().manual_seed(0))
    assert (every.sort(1).values == torch.arange(5)).all()


def demonstrations(count: int = 400) -> Demonstrations:
    """The true gain of a cell is its second map, of which the gain map knows nothing."""
    draws = torch.Generator().manual_seed(0)
    maps = torch.rand(count, 2, 3, 3, generator=draws)
    cells = torch.rand(count, 9, generator=draws).argsort(1)[:, :4]
    points = torch.stack((cells % 3 - 1.0, cells // 3 - 1.0), 2)
    gains = maps[:, 1].flatten(1).gather(1, cells)
    return Demonstrations(maps, torch.zeros(count, 1), cells, points, gains)


def test_scores_learn_the_order_of_the_candidates() -> None:
    torch.manual_seed(0)
    net = torch.nn.Conv2d(2, 1, 1)
    torch.nn.init.zeros_(net.weight)
    found = fit(
        demonstrations(),
        lambda maps, numbers: net(maps).flatten(1),
        net.parameters(),
        ImitationConfig(epochs=40, lr=0.05),
    )
    assert found["after"] > 0.98
    assert found["after"] > found["before"] + 0.1
    assert found["random"] == pytest.approx(0.5 / 0.8, abs=0.05)  # the mean, and the best of four, of a uniform draw


def test_points_learn_the_best_candidate() -> None:
    torch.manual_seed(0)
    taught = demonstrations()
    best = taught.points.gather(1, taught.gains.argmax(1)[:, None, None].expand(-1, 1, 2))[:, 0]
    aside = torch.cat((taught.maps.flatten(1), best), 1)[:, :, None, None]
    taught = Demonstrations(aside, taught.numbers, taught.cells, taught.points, taught.gains)
    net = torch.nn.Linear(20, 2)
    options = ImitationConfig(epochs=60, lr=0.02)
    found = fit(taught, lambda maps, numbers: net(maps.flatten(1)), net.parameters(), options)
    assert found["after"] < 0.01 < found["before"]
    assert "random" not in found


def test_what_teaches_nothing_leaves_a_policy_as_it_was() -> None:
    """The policy knows the true order of the moments that are held out; all others were shuffled."""
    taught = demonstrations()
    draws = torch.Generator().manual_seed(1)
    taught.gains[:360] = torch.rand(360, 4, generator=draws)
    net = torch.nn.Conv2d(2, 1, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([0.0, 5.0])[None, :, None, None])
    before = net.weight.clone()
    options = ImitationConfig(epochs=3, lr=0.05)
    found = fit(taught, lambda maps, numbers: net(maps).flatten(1), net.parameters(), options)
    assert found["epoch"] == 0
    assert found["after"] == found["before"] == 1
    assert torch.equal(net.weight, before)


def test_a_teacher_that_does_not_know_the_scene_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="privileged=True"):
        collect_oracle_demonstrations(
            eyes(privileged=False), lambda observation: np.zeros(4, np.int64), 1, ImitationConfig()
        )
    with pytest.raises(InvalidValueError, match="candidates"):
        ImitationConfig(candidates=1)
    with pytest.raises(InvalidValueError, match="lr"):
        ImitationConfig(lr=0)
