"""The vector env: parity with the single one, autoreset, partial resets, output, stable-baselines3."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from foveasim.envs import FoveaEnv, FoveaVectorEnv
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades

ID = "foveasim/Glimpse-v0"
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)


def options(**more: Any) -> dict[str, Any]:
    return {"scenes": PICTURES, "size": (48, 48), "budget": 3, "belief": True, **more}


def walk(lanes: int, steps: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (steps, lanes, 2)).astype(np.float32)


@pytest.mark.parametrize("retina", list(RETINAS))
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_lane_i_is_the_single_env(retina: str, mode: str) -> None:
    lanes, steps = 3, 8
    more = {"retina": retina, "start": "random", "saccades": Saccades(scatter=0.1), "half_life_ms": 700.0}
    many = FoveaVectorEnv(lanes, autoreset_mode=AutoresetMode(mode), **options(**more))
    ones = [FoveaEnv(**options(**more)) for _ in range(lanes)]
    observation, info = many.reset(seed=11)
    actions = walk(lanes, steps)
    for lane, env in enumerate(ones):
        alone, alone_info = env.reset(seed=11 + lane)
        for key, value in alone.items():
            np.testing.assert_array_equal(observation[key][lane], value, err_msg=key)
        assert info["scene"][lane] == alone_info["scene"]
    done = [False] * lanes
    for action in actions:
        observation, reward, terminated, truncated, info = many.step(action)
        assert not truncated.any()
        for lane, env in enumerate(ones):
            if done[lane] and mode == "NextStep":
                alone, _ = env.reset()
                gain, ended = 0.0, False
            else:
                alone, gain, ended, _, _ = env.step(action[lane])
            if ended and mode == "SameStep":
                for key, value in alone.items():
                    np.testing.assert_array_equal(info["final_obs"][lane][key], value, err_msg=f"final {key}")
                alone, _ = env.reset()
            for key, value in alone.items():
                np.testing.assert_array_equal(observation[key][lane], value, err_msg=key)
            assert reward[lane] == pytest.approx(gain, abs=1e-7)
            assert terminated[lane] == ended
            done[lane] = ended and mode == "NextStep"


@pytest.mark.parametrize("retina", list(RETINAS))
@pytest.mark.parametrize("half_life_ms", [None, 700.0])
def test_lanes_that_end_at_odds_begin_anew_in_the_same_step(retina: str, half_life_ms: float | None) -> None:
    """Only they look again; what they and the others were given before stays as it was."""
    lanes, more = 4, {"retina": retina, "half_life_ms": half_life_ms, "stop": True, "privileged": True}
    many = FoveaVectorEnv(lanes, autoreset_mode=AutoresetMode.SAME_STEP, **options(**more))
    ones = [FoveaEnv(**options(**more)) for _ in range(lanes)]
    many.reset(seed=5)
    for lane, env in enumerate(ones):
        env.reset(seed=5 + lane)
    rng, saved, partial = np.random.default_rng(2), [], 0
    for _ in range(9):
        action = rng.uniform(-1, 1, (lanes, 3)).astype(np.float32)
        observation, reward, terminated, _, info = many.step(action)
        partial += 0 < terminated.sum() < lanes
        np.testing.assert_array_equal(info["_reward_terms"], ~terminated)
        for lane, env in enumerate(ones):
            alone, gain, ended, _, tale = env.step(action[lane])
            if ended:
                final, final_info = info["final_obs"][lane], info["final_info"]
                saved.append((final, copy.deepcopy(final)))
                for key, value in alone.items():
                    np.testing.assert_array_equal(final[key], value, err_msg=f"final {key}")
                assert final_info["_reward_terms"][lane]
                assert final_info["reward_terms"]["coverage_gain"][lane] == tale["reward_terms"]["coverage_gain"]
                alone, tale = env.reset()
            saved.append((observation, copy.deepcopy(observation)))
            for key, value in alone.items():
                np.testing.assert_array_equal(observation[key][lane], value, err_msg=key)
            assert info["coverage"][lane] == tale["coverage"]
            assert reward[lane] == pytest.approx(gain, abs=1e-7)
            assert terminated[lane] == ended
    assert partial > 2
    for now, then in saved:
        for key, value in then.items():
            np.testing.assert_array_equal(now[key], value, err_msg=key)


def test_reward_terms_are_of_the_lanes_that_made_a_saccade() -> None:
    env = FoveaVectorEnv(2, **options(stop=True))
    assert "_reward_terms" not in env.reset(seed=0)[1]
    assert env.step(np.array([[0, 0, 1], [0, 0, -1]], np.float32))[4]["_reward_terms"].all()
    assert env.step(np.array([[0, 0, -1], [0, 0, -1]], np.float32))[4]["_reward_terms"].tolist() == [False, True]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("retina", ["disc", "log_polar"])
def test_one_lanes_scene_is_shown_without_a_copy(lanes: int, retina: str) -> None:
    simulator = FoveaVectorEnv(lanes, **options(retina=retina)).simulator
    simulator.reset(index=list(range(7, 7 + lanes)))
    for lane in range(lanes):
        observed = simulator.scene_image(lane)
        np.testing.assert_array_equal(observed.numpy(), PICTURES[7 + lane])
        assert observed.data_ptr() == simulator.scene_image(lane).data_ptr()


def test_partial_reset_leaves_the_other_lanes_alone() -> None:
    env = gym.make_vec(ID, num_envs=3, **options(), autoreset_mode="Disabled")
    env.reset(seed=0)
    for action in walk(3, 3):
        before, *_ = env.step(action)
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1, 2\]"):
        env.step(walk(3, 1)[0])
    mask = np.array([True, False, True])
    after, info = env.reset(options={"reset_mask": mask})
    for key in before:
        np.testing.assert_array_equal(before[key][1], after[key][1], err_msg=key)
    assert (after["time"][mask] == 1).all()
    np.testing.assert_array_equal(info["_scene"], mask)


def test_gymnasium_makes_it_natively_and_its_spaces_hold() -> None:
    env = gym.make_vec(ID, num_envs=5, **options())
    assert isinstance(env.unwrapped, FoveaVectorEnv)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for _ in range(8):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation)
        assert reward.shape == terminated.shape == truncated.shape == (5,)
        assert info["coverage"].shape == (5,)


def test_vector_wrappers_of_gymnasium_work() -> None:
    env = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec(ID, num_envs=4, **options()))
    env.reset(seed=0)
    lengths = []
    for action in walk(4, 9):
        info = env.step(action)[4]
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert lengths
    assert set(lengths) == {3}


def test_torch_output_shares_the_numbers() -> None:
    arrays, tensors = (FoveaVectorEnv(2, output=kind, **options()) for kind in ("numpy", "torch"))
    arrays.reset(seed=0), tensors.reset(seed=0)
    action = walk(2, 1)[0]
    one, two = arrays.step(action), tensors.step(torch.from_numpy(action))
    for key in one[0]:
        assert isinstance(two[0][key], torch.Tensor)
        np.testing.assert_array_equal(one[0][key], two[0][key].numpy())
    np.testing.assert_allclose(one[1], two[1].numpy())
    assert two[2].dtype == torch.bool


def test_seeds_may_be_a_list() -> None:
    env = FoveaVectorEnv(3, **options())
    one, _ = env.reset(seed=[5, 9, 5])
    np.testing.assert_array_equal(one["glimpse"][0], one["glimpse"][2])
    two, _ = env.reset(seed=5)
    np.testing.assert_array_equal(one["glimpse"][0], two["glimpse"][0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seed": [1, 2]}, InvalidValueError, "a list of 3"),
        ({"seed": 1.5}, InvalidTypeError, "whole number"),
        ({"seed": -1}, InvalidValueError, "from 0"),
        ({"options": {"reset_mask": [True, True, True]}}, InvalidTypeError, "bool array"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, InvalidValueError, "at least one"),
        ({"options": {"fixation": (np.nan, 0)}}, InvalidValueError, "finite"),
    ],
)
def test_bad_resets_are_refused(arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        FoveaVectorEnv(3, **options()).reset(**arguments)


def test_wrong_number_of_actions_is_refused() -> None:
    env = FoveaVectorEnv(3, **options())
    env.reset(seed=0)
    with pytest.raises(InvalidValueError, match=r"\(3, 2\)"):
        env.step(np.zeros((2, 2), np.float32))


def test_a_video_moves_on_during_the_flight(tmp_path: Any) -> None:
    import cv2

    path = tmp_path / "brightening.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 64))
    for level in range(0, 200, 4):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    env = FoveaEnv(scenes=str(path), size=(64, 64), retina="full", budget=6)
    levels = [float(env.reset(seed=0)[0]["glimpse"].mean())]
    for _ in range(5):
        observation, _, _, _, info = env.step(np.zeros(2, np.float32))
        levels.append(float(observation["glimpse"].mean()))
        assert levels[-1] == pytest.approx(4 * int(info["clock_ms"] / 50), abs=6)
    assert all(later > earlier for earlier, later in pairwise(levels))


def test_spawned_worker_sees_the_same_episode() -> None:
    code = (
        "import gymnasium as gym, numpy as np, hashlib\n"
        "env = gym.make('foveasim:foveasim/Glimpse-v0', scenes='photos', size=(48, 48))\n"
        "o, _ = env.reset(seed=3); o = env.step(np.array([0.3, -0.6], np.float32))[0]\n"
        "print(hashlib.sha256(b''.join(o[k].tobytes() for k in sorted(o))).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    import hashlib

    env = FoveaEnv(scenes="photos", size=(48, 48))
    env.reset(seed=3)
    observation = env.step(np.array([0.3, -0.6], np.float32))[0]
    here = hashlib.sha256(b"".join(observation[key].tobytes() for key in sorted(observation))).hexdigest()
    assert printed == here


def test_ppo_trains_on_it_unmodified() -> None:
    from stable_baselines3 import PPO

    env = gym.make(ID, **options(retina="disc"))
    model = PPO("MultiInputPolicy", env, n_steps=32, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = [p.clone() for p in model.policy.parameters()]
    model.learn(64)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_alone(duplicate: Callable[[FoveaVectorEnv], FoveaVectorEnv]) -> None:
    env = FoveaVectorEnv(2, **options(retina="disc"))
    env.reset(seed=0)
    first, second, third = walk(2, 3)
    env.step(first)
    twin = duplicate(env)
    one, two = env.step(second), twin.step(second)
    for key in one[0]:
        np.testing.assert_array_equal(one[0][key], two[0][key], err_msg=key)
    saved = env.simulator.state.clone()
    twin.step(third)
    assert torch.equal(env.simulator.state.fixation_px, saved.fixation_px)
    assert torch.equal(env.simulator.state.belief.acuity, saved.belief.acuity)
    assert not torch.equal(twin.simulator.state.fixation_px, saved.fixation_px)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("retina", ["disc", "pyramid"])
def test_a_copy_sees_the_scenes_of_its_next_episodes(
    duplicate: Callable[[FoveaVectorEnv], FoveaVectorEnv], retina: str
) -> None:
    env = FoveaVectorEnv(2, **options(retina=retina, budget=2))
    env.reset(seed=0)
    moves = walk(2, 8)
    env.step(moves[0])
    twin = duplicate(env)
    for move in moves[1:]:
        one, two = env.step(move), twin.step(move)
        for key in one[0]:
            np.testing.assert_array_equal(one[0][key], two[0][key], err_msg=key)
    assert one[4]["coverage"].tolist() == two[4]["coverage"].tolist()


@pytest.mark.parametrize("retina", list(RETINAS))
@pytest.mark.parametrize("belief", [False, True])
def test_threads_change_nothing(retina: str, belief: bool) -> None:
    more = options(retina=retina, belief=belief, scenes=PICTURES[:7])
    one, two = (FoveaVectorEnv(50, threads=threads, **more) for threads in (1, 3))
    first, second = one.reset(seed=3)[0], two.reset(seed=3)[0]
    for action in walk(50, 5):
        for key in first:
            np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        (first, reward, *_), (second, other, *_) = one.step(action), two.step(action)
        np.testing.assert_array_equal(reward, other)


@pytest.mark.parametrize("cache_mb", [0, 0.1])
def test_a_small_cache_changes_nothing(cache_mb: float) -> None:
    one, two = FoveaVectorEnv(4, **options()), FoveaVectorEnv(4, cache_mb=cache_mb, **options())
    first, second = one.reset(seed=3)[0], two.reset(seed=3)[0]
    for action in walk(4, 12):
        for key in first:
            np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        first, second = one.step(action)[0], two.step(action)[0]


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
def test_observations_of_many_lanes_are_never_written_to_again(retina: str) -> None:
    env = FoveaVectorEnv(20, **options(retina=retina, privileged=True))
    observed = [env.reset(seed=0)[0]]
    saved = [{key: value.copy() for key, value in observed[0].items()}]
    for action in walk(20, 7):
        observed.append(env.step(action)[0])
        saved.append({key: value.copy() for key, value in observed[-1].items()})
    for there, then in zip(observed, saved, strict=True):
        for key in then:
            np.testing.assert_array_equal(there[key], then[key], err_msg=key)


@pytest.mark.parametrize("bad", [{"threads": 0}, {"threads": 1.5}, {"cache_mb": -1}, {"cache_mb": float("nan")}])
def test_bad_limits_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match=next(iter(bad))):
        FoveaVectorEnv(2, **options(**bad))


def test_the_space_of_many_lanes_is_gymnasiums_in_the_memory_of_one() -> None:
    env = FoveaVectorEnv(64, **options())
    ours, theirs = env.observation_space, batch_space(env.single_observation_space, 64)
    assert ours == theirs
    assert theirs == ours
    assert repr(ours) == repr(theirs)
    assert ours != batch_space(env.single_observation_space, 63)
    glimpse = ours["glimpse"]
    assert glimpse.low.strides[0] == glimpse.bounded_above.strides[0] == 0
    assert len(pickle.dumps(ours)) < 200_000 < glimpse.low.size
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert twin == ours
        assert twin["glimpse"].low.strides[0] == 0
    ours.seed(4), theirs.seed(4)
    mine, other = ours.sample(), theirs.sample()
    for key in mine:
        np.testing.assert_array_equal(mine[key], other[key], err_msg=key)
    assert ours.contains(mine)
    assert theirs.contains(mine)
    mine["fixation"][5, 0] = 1.5
    assert not ours.contains(mine)


@pytest.mark.parametrize("action", [np.full((3, 2), np.nan), np.full((3, 2), 2.0), np.full((3, 2), -1.01)])
@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_actions_out_of_range_name_the_lane_and_move_nothing(action: np.ndarray, mode: str) -> None:
    env = FoveaVectorEnv(3, **options(action_mode=mode))
    env.reset(seed=0)
    action[:2] = 0.5
    with pytest.raises(InvalidValueError, match="lane 2"):
        env.step(action)
    assert (env.simulator.step_count == 0).all()
    assert (env.simulator.fixation_px == 24).all()


def test_actions_may_be_read_only_and_strided() -> None:
    one, two = FoveaVectorEnv(3, **options()), FoveaVectorEnv(3, **options())
    one.reset(seed=0), two.reset(seed=0)
    strided = np.random.default_rng(0).uniform(-1, 1, (2, 3)).T
    strided.flags.writeable = False
    expected = one.step(strided.astype(np.float32).copy())[0]
    for key, value in two.step(strided)[0].items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_each_lane_begins_with_its_own_scene() -> None:
    scenes = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (10, 20, 30, 40)])
    env = gym.make_vec("foveasim/Glimpse-v0", num_envs=3, scenes=scenes, size=(32, 32), retina="full")
    observation, _ = env.reset(seed=0, options={"scene": np.array([3, 0, 2])})
    assert observation["glimpse"][:, 0, 0, 0].tolist() == [40, 10, 30]
    mask = np.array([False, True, True])
    observation, _ = env.reset(options={"scene": np.array([0, 1, 1]), "reset_mask": mask})
    assert observation["glimpse"][:, 0, 0, 0].tolist() == [40, 20, 20]
    with pytest.raises(InvalidValueError, match="one for each of 3 lanes"):
        env.reset(options={"scene": np.array([0, 1])})
    with pytest.raises(InvalidValueError, match="from 0 to 3; got 4"):
        env.reset(options={"scene": np.array([0, 1, 4])})
