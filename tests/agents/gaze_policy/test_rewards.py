"""Rewards of a frozen network: known values, sums over episodes, resets, and one prediction a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.gaze_policy.rewards import PredictionReward, RewardWeights
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import AgentError, InvalidValueError
from foveasim.scenes.source import ArrayScenes

ALL = RewardWeights(prediction_gain=100, surprise=1, information_gain=50, coverage=2, saccade_ms=0.01)
STD = 0.2  # an untrained network fills what was not seen with the mean of what was, and says this of all of it


def belief_predictor() -> BeliefPredictor:
    torch.manual_seed(0)
    return BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)))


def scenes(count: int = 5, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return coarse.repeat(12, 1).repeat(12, 2)


def envs(images: np.ndarray | None = None, lanes: int = 3, mode: str = "SameStep", **options: Any) -> FoveaVectorEnv:
    given: dict[str, Any] = {"belief": True, "privileged": True, "retina": "disc", "budget": 3, "size": (48, 48)}
    source = ArrayScenes(scenes() if images is None else images)
    return FoveaVectorEnv(lanes, scenes=source, autoreset_mode=mode, **(given | options))


def actions(steps: int, lanes: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (steps, lanes, 2)).astype(np.float32)


def test_a_uniform_scene_is_predicted_at_once_and_its_uncertainty_goes_with_what_is_hidden() -> None:
    lanes = PredictionReward(envs(np.full((1, 48, 48, 3), 90, np.uint8)), belief_predictor(), ALL)
    seen, _ = lanes.reset(seed=0)
    before = seen["belief_acuity"].astype(float).mean((1, 2, 3)) / 255
    seen, reward, _, _, info = lanes.step(actions(1)[0])
    after = seen["belief_acuity"].astype(float).mean((1, 2, 3)) / 255
    terms = info["reward_terms"]
    assert np.abs(terms["prediction_gain"]).max() < 1e-6
    assert np.abs(terms["surprise"]).max() < 1e-6
    assert after.max() > before.max()
    np.testing.assert_allclose(terms["coverage"], 2 * (after - before), atol=1e-6)
    np.testing.assert_allclose(
        terms["information_gain"], 50 * STD**2 * (after - before), atol=1e-5
    )  # disc: all or none
    np.testing.assert_allclose(terms["saccade_cost"], -0.01 * info["duration_ms"], rtol=1e-6)
    np.testing.assert_allclose(reward, sum(terms.values()), rtol=1e-5)
    assert reward.dtype == np.float64


def test_surprise_is_the_squared_error_over_the_variance_where_something_was_revealed() -> None:
    """Left black, right white: what is seen on the left foretells black, and the next glimpse is wrong."""
    image = np.zeros((1, 48, 48, 3), np.uint8)
    image[:, :, 24:] = 255
    lanes = PredictionReward(envs(image, lanes=1, retina_options={"hidden_ratio": 0.95}), belief_predictor(), ALL)
    lanes.reset(seed=0, options={"fixation": (-0.8, 0.0)})
    seen, _, _, _, info = lanes.step(np.array([[0.6, 0.0]], np.float32))
    share = (seen["acuity"] == 255).mean()
    assert info["reward_terms"]["surprise"][0] == pytest.approx(share / (STD**2 + 0.02**2), rel=1e-3)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep"])
def test_prediction_gain_sums_to_what_the_error_fell_over_an_episode(mode: str) -> None:
    lanes = PredictionReward(
        envs(mode=mode), belief_predictor(), RewardWeights(prediction_gain=1.0, information_gain=1.0)
    )
    _, info = lanes.reset(seed=4)
    begin, total, ends = info["prediction_error"].copy(), np.zeros(3), 0
    for action in actions(9):
        _, reward, terminated, _, info = lanes.step(action)
        total += info["reward_terms"]["prediction_gain"]
        if terminated.any():
            last = info.get("final_info", info)
            np.testing.assert_allclose(total, begin - last["prediction_error"], atol=1e-6)
            assert "information_gain" in last["reward_terms"]
            total, ends = np.zeros(3), ends + 1
            if mode == "SameStep":
                begin = lanes.error.numpy().copy()
            else:
                _, reward, _, _, info = lanes.step(action)
                assert not reward.any()  # the step in which lanes begin anew earns nothing
                begin = info["prediction_error"]
    assert ends == 3


def test_an_episode_earns_the_same_in_every_autoreset_mode() -> None:
    found = []
    for mode in ("SameStep", "NextStep", "Disabled"):
        lanes = PredictionReward(envs(mode=mode), belief_predictor(), ALL)
        lanes.reset(seed=7)
        found.append(np.stack([lanes.step(action)[1] for action in actions(3)]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)


def test_lanes_of_different_length_are_judged_by_their_own_ends() -> None:
    """A stop action ends one lane early; the others go on, and each sum telescopes."""
    lanes = PredictionReward(envs(stop=True, budget=4), belief_predictor(), RewardWeights(prediction_gain=1.0))
    _, info = lanes.reset(seed=2)
    begin, total = info["prediction_error"].astype(float), np.zeros(3)
    checked = 0
    for step, place in enumerate(actions(8)):
        stop = np.full((3, 1), -1, np.float32)
        stop[step % 3] = 1 if step % 2 else -1
        _, reward, terminated, _, info = lanes.step(np.concatenate((place, stop), 1))
        total += reward
        ended = np.flatnonzero(terminated)
        if len(ended):
            assert lanes.final is not None
            assert lanes.final[0].tolist() == ended.tolist()
            fall = begin - info["final_info"]["prediction_error"]
            np.testing.assert_allclose(total[ended], fall[ended], atol=1e-6)
            total[ended], begin[ended] = 0, lanes.error.numpy()[ended]
            checked += len(ended) < 3
    assert checked


def test_a_step_is_one_prediction_of_all_lanes_and_of_those_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, batches = belief_predictor(), []
    real = ahead.predict
    monkeypatch.setattr(ahead, "predict", lambda belief, acuity: batches.append(len(belief)) or real(belief, acuity))
    lanes = PredictionReward(envs(), ahead, ALL)
    lanes.reset(seed=0)
    for action in actions(4):
        lanes.step(action)
    assert batches == [3, 3, 3, 6, 3]


def test_what_is_hidden_changes_neither_observation_nor_the_rewards_that_need_no_truth() -> None:
    weights = RewardWeights(prediction_gain=0, surprise=1, information_gain=1, coverage=1)
    plain = scenes(1)[0]
    seen = []
    for change in (False, True):
        lanes = PredictionReward(envs(lanes=1), belief_predictor(), weights)
        image = plain.copy()
        if change:
            image[:4, :4] = 255 - image[:4, :4]  # beyond the disc around the centre and to the right of it
        first, _ = lanes.reset(seed=0, options={"scene": image})
        assert "scene" not in first
        assert first["belief_acuity"][0, :4, :4].max() == 0
        observation, reward, _, _, _ = lanes.step(np.array([[0.4, 0.0]], np.float32))
        seen.append((observation, reward, lanes.prediction.image.numpy()))
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    np.testing.assert_array_equal(seen[0][2], seen[1][2])
    for key, value in seen[0][0].items():
        np.testing.assert_array_equal(value, seen[1][0][key])


def test_tensors_stay_tensors() -> None:
    lanes = PredictionReward(envs(output="torch"), belief_predictor(), ALL)
    lanes.reset(seed=0)
    for action in actions(4):
        seen, reward, _, _, info = lanes.step(torch.from_numpy(action))
        assert isinstance(seen["belief"], torch.Tensor)
        assert isinstance(reward, torch.Tensor)
        assert all(isinstance(term, torch.Tensor) for term in info["reward_terms"].values())


def test_only_what_has_a_weight_is_computed() -> None:
    lanes = PredictionReward(envs(privileged=False), belief_predictor(), RewardWeights(prediction_gain=0, coverage=1.0))
    lanes.reset(seed=0)
    info = lanes.step(actions(1)[0])[4]
    assert list(info["reward_terms"]) == ["coverage"]
    assert "prediction_error" not in info


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"belief": False}, ALL, "must show belief"),
        ({"privileged": False}, ALL, "privileged=True"),
    ],
)
def test_an_env_that_does_not_show_enough_is_refused(
    options: dict[str, Any], weights: RewardWeights, message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        PredictionReward(envs(**options), belief_predictor(), weights)


def test_weights_and_networks_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one"):
        RewardWeights(prediction_gain=0)
    with pytest.raises(InvalidValueError, match="coverage"):
        RewardWeights(coverage=float("nan"))
    with pytest.raises(InvalidValueError, match="saccade_ms"):
        RewardWeights(saccade_ms=-1)
    with pytest.raises(AgentError, match="predicts no standard deviation"):
        BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0), std=False))
    with pytest.raises(InvalidValueError, match="precision"):
        BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), precision="float16")
