"""What a policy sees: known values, every size and form, and cells that lead where the agent ``uncertainty`` looks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from foveasim.agents.builtin.predictive import Uncertainty
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.gaze_policy.features import FeatureConfig, featurise
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.agents.mim.expected_gain import cell_points
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.agents.rl.vec_env import GlimpseVecEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scenes.source import ArrayScenes


def belief_predictor() -> BeliefPredictor:
    torch.manual_seed(0)
    return BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)))


def scenes(count: int = 5, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return coarse.repeat(12, 1).repeat(12, 2)


def envs(images: np.ndarray | None = None, lanes: int = 3, **options: Any) -> FoveaVectorEnv:
    given: dict[str, Any] = {"belief": True, "privileged": True, "retina": "disc", "budget": 3, "size": (48, 48)}
    source = ArrayScenes(scenes() if images is None else images)
    return FoveaVectorEnv(lanes, scenes=source, autoreset_mode="SameStep", **(given | options))


def lanes(config: FeatureConfig | None = None, lanes: int = 3, **options: Any) -> FeatureObservation:
    names = ("actions", "form", "least_gain")
    shown = {name: options.pop(name) for name in names if name in options}
    return FeatureObservation(PredictionReward(envs(lanes=lanes, **options), belief_predictor()), config, **shown)


def test_maps_and_numbers_of_a_uniform_scene_are_known() -> None:
    grey = np.full((1, 48, 48, 3), 51, np.uint8)
    eyes = FeatureObservation(
        PredictionReward(envs(grey, lanes=1), belief_predictor()),
        FeatureConfig(cells=6, numbers=("fixation", "time", "coverage")),
    )
    seen, _ = eyes.reset(seed=0, options={"fixation": (0.5, -0.5)})
    maps = dict(
        zip(["r", "g", "b", "contrast", "std", "acuity", "gain", "distance", "x", "y"], seen["maps"][0], strict=True)
    )
    np.testing.assert_allclose(maps["r"], 2 * 0.2 - 1, atol=1e-6)
    np.testing.assert_allclose(maps["contrast"], 0, atol=1e-3)
    np.testing.assert_allclose(maps["std"], 5 * 0.2 * np.sqrt(1 - maps["acuity"]), atol=1e-4)  # a disc: all or none
    assert maps["gain"].max() == 1
    np.testing.assert_allclose(maps["x"][0], (np.arange(6) + 0.5) / 3 - 1, atol=1e-6)
    np.testing.assert_allclose(maps["y"][:, 0], (np.arange(6) + 0.5) / 3 - 1, atol=1e-6)
    away = np.hypot(maps["x"] - 0.5, maps["y"] + 0.5) / 2  # in short sides, of which -1 to 1 is one
    np.testing.assert_allclose(maps["distance"], away, atol=1e-6)
    x, y, time, coverage = seen["numbers"][0]
    assert (x, y, time) == (0.5, -0.5, 1.0)
    assert coverage == pytest.approx(maps["acuity"].mean(), abs=1e-6)


def test_the_cell_of_greatest_gain_is_where_the_agent_uncertainty_looks() -> None:
    ahead = BeliefPredictor("unet")
    agent = Uncertainty(ahead.predictor.network, seed=0)
    for size in ((96, 96), (64, 101)):
        agent.reset(np.ones(4, np.bool_))
        for observation in make_synthetic_observations(4, 3, size=size, needs=("belief",)):
            prediction = ahead.predict_from(observation)
            for cells in (8, 12, 24):
                features = featurise(prediction, FeatureConfig(cells=cells))
                ours = features.points[torch.arange(4), features.gain.argmax(1)]
                points = cell_points(prediction.seen.size, torch.device("cpu"))
                gain = prediction.gain.flatten(1)
                theirs = torch.from_numpy(agent.act(observation))
                found = [
                    gain[torch.arange(4), torch.cdist(place[:, None], points[None])[:, 0].argmin(1)]
                    for place in (ours, theirs)
                ]
                np.testing.assert_allclose(found[0], found[1], rtol=2e-3)  # ties are settled by noise of a thousandth
                np.testing.assert_allclose(found[0], gain.amax(1), rtol=1e-6)


def test_places_lie_in_their_cells() -> None:
    for size in ((96, 96), (64, 101), (480, 640)):
        prediction = BeliefPredictor("unet").predict_from(
            make_synthetic_observations(2, 1, size=size, needs=("belief",))[0]
        )
        rows, columns = FeatureConfig(cells=8).grid(size)
        points = featurise(prediction, FeatureConfig(cells=8)).points.reshape(2, rows, columns, 2)
        column = (points[..., 0] + 1) / 2 * columns - 0.5
        row = (points[..., 1] + 1) / 2 * rows - 0.5
        assert (column - torch.arange(columns)).abs().max() < 1.01  # adaptive pooling may reach over an edge by a cell
        assert (row - torch.arange(rows)[:, None]).abs().max() < 1.01
        if size == (96, 96):
            assert (column - torch.arange(columns)).abs().max() < 0.5


def test_both_forms_hold_the_same_and_fit_their_spaces() -> None:
    config = FeatureConfig(cells=6, numbers=("fixation", "time", "latent"))
    maps, flat = lanes(config), lanes(config, form="flat")
    one, _ = maps.reset(seed=3)
    other, _ = flat.reset(seed=3)
    for step in range(4):
        assert maps.observation_space.contains(one)
        assert flat.observation_space.contains(other)
        np.testing.assert_array_equal(np.concatenate((one["maps"].reshape(3, -1), one["numbers"]), 1), other)
        action = np.array([step, 7, 35])
        one, *_, info = maps.step(action)
        other, *_, flat_info = flat.step(action)
    assert one["numbers"].shape == (3, 2 + 1 + 8)
    assert "final_obs" not in info
    assert "final_obs" not in flat_info


def test_the_end_of_an_episode_is_shown_as_features_too() -> None:
    eyes = lanes(FeatureConfig(cells=6))
    eyes.reset(seed=1)
    for _ in range(3):
        seen, _, terminated, _, info = eyes.step(np.array([0, 20, 35]))
    assert terminated.all()
    for lane in range(3):
        final = info["final_obs"][lane]
        assert eyes.single_observation_space.contains(final)
        assert final["numbers"][2] == 0  # no time is left
        assert seen["numbers"][lane, 2] == 1  # all of it is again


def test_cells_and_points_lead_to_the_same() -> None:
    by_cell, by_point = lanes(), lanes(actions="point")
    by_cell.reset(seed=5)
    by_point.reset(seed=5)
    for step in range(4):
        cells = np.array([10 * step, 143 - step, 70])
        where = by_cell.current_features.points[torch.arange(3), torch.from_numpy(cells)].numpy()
        one, earned, *_ = by_cell.step(cells)
        other, also, *_ = by_point.step(where)
        np.testing.assert_array_equal(one["maps"], other["maps"])
        np.testing.assert_array_equal(earned, also)


def test_stable_baselines3_sees_features_masks_and_episodes() -> None:
    eyes = GlimpseVecEnv(lanes(least_gain=0.3))
    seen = eyes.reset()
    masks = np.array(eyes.env_method("action_masks"))
    assert masks.shape == (3, 144)
    assert masks.any(1).all()
    np.testing.assert_array_equal(masks.reshape(3, 12, 12), seen["maps"][:, 6] >= np.float32(0.3))
    assert not masks.all()
    for _ in range(3):
        seen, _, dones, infos = eyes.step(np.array([1, 2, 3]))
    assert dones.all()
    assert set(infos[0]["terminal_observation"]) == {"maps", "numbers"}
    assert "prediction_gain" in infos[0]["reward_terms"]
    assert infos[0]["episode"]["l"] == 3


def test_where_nothing_is_hidden_every_cell_may_be_chosen() -> None:
    eyes = lanes(retina="full", retina_options={})
    seen, _ = eyes.reset(seed=0)
    assert np.isfinite(seen["maps"]).all()
    assert np.isfinite(seen["numbers"]).all()
    assert eyes.action_masks().all()


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"maps must be among.*'colour'"):
        FeatureConfig(maps=("colour",))
    with pytest.raises(InvalidValueError, match="once"):
        FeatureConfig(numbers=("time", "time"))
    with pytest.raises(InvalidValueError, match="at least one"):
        FeatureConfig(maps=())
    with pytest.raises(InvalidValueError, match="cells"):
        FeatureConfig(cells=25)
    with pytest.raises(InvalidTypeError, match="PredictionReward"):
        FeatureObservation(envs())  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="places in the scene"):
        lanes(action_mode="relative")
    with pytest.raises(InvalidValueError, match="form"):
        lanes(form="image")
    eyes = lanes()
    with pytest.raises(gym.error.ResetNeeded):
        eyes.step(np.zeros(3, int))
    eyes.reset(seed=0)
    with pytest.raises(InvalidValueError, match="from 0 to 143"):
        eyes.step(np.array([0, 1, 144]))
    with pytest.raises(InvalidValueError, match="whole numbers"):
        eyes.step(np.zeros((3, 2), np.float32))


def test_large_scenes_are_seen_at_the_size_at_which_agents_think() -> None:
    images = scenes().repeat(4, 1).repeat(4, 2)
    eyes = FeatureObservation(PredictionReward(envs(images, size=(192, 192)), BeliefPredictor("unet")))
    seen, info = eyes.reset(seed=0)
    assert seen["maps"].shape == (3, 10, 12, 12)
    assert eyes.envs.current_prediction.image.shape == (3, 96, 96, 3)
    assert info["prediction_error"].min() > 0
