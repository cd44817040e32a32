"""The adapter to stable-baselines3: parity with the vector env, ends of episodes, what is asked of lanes, learning."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from foveasim.envs import FoveaVectorEnv
from foveasim.errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from foveasim.eye.retina import make_retina
from foveasim.eye.saccade import Saccades

sb3 = pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO, SAC  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import (  # noqa: E402
    DummyVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from foveasim.agents.rl.vec_env import GlimpseVecEnv  # noqa: E402

ID = "foveasim/Glimpse-v0"
PICTURES = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
SAME = AutoresetMode.SAME_STEP


def options(**more: Any) -> dict[str, Any]:
    return {"scenes": PICTURES, "size": (40, 40), "retina": "disc", "budget": 3, **more}


def eyes(lanes: int = 3, **more: Any) -> VectorEnv[Any, Any, Any]:
    return FoveaVectorEnv(lanes, autoreset_mode=SAME, **options(**more))


def walk(steps: int, lanes: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (steps, lanes, 2)).astype(np.float32)


def same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same(value, other[key])
    else:
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


# What a step gives


@pytest.mark.parametrize("more", [{"belief": True}, {"output": "torch"}, {"retina": make_retina("pyramid")}])
def test_it_is_the_vector_env(more: dict[str, Any]) -> None:
    raw, lanes = eyes(**more), GlimpseVecEnv(eyes(**more))
    lanes.seed(5)
    seen, raw_info = raw.reset(seed=[5, 6, 7])
    same(lanes.reset(), {key: np.asarray(value) for key, value in seen.items()})
    assert [info["scene"] for info in lanes.reset_infos] == raw_info["scene"].tolist()
    for action in walk(7):
        seen, reward, terminated, truncated, info = raw.step(action)
        got, got_reward, done, infos = lanes.step(action)
        same(got, {key: np.asarray(value) for key, value in seen.items()})
        assert got_reward.dtype == np.float32
        np.testing.assert_array_equal(got_reward, np.asarray(reward).astype(np.float32))
        np.testing.assert_array_equal(done, np.asarray(terminated) | np.asarray(truncated))
        assert lanes.observation_space.contains({key: value[0] for key, value in got.items()})
        np.testing.assert_array_equal(lanes.info["coverage"], info["coverage"])
        for lane, ended in enumerate(done):
            if ended:
                same(
                    infos[lane]["terminal_observation"], {k: np.asarray(v) for k, v in info["final_obs"][lane].items()}
                )
                assert infos[lane]["coverage"] == info["final_info"]["coverage"][lane]
                assert lanes.reset_infos[lane]["coverage"] == info["coverage"][lane] < infos[lane]["coverage"]
                assert lanes.reset_infos[lane]["scene"] == info["scene"][lane]
            else:
                assert infos[lane] == {}


def test_it_is_dummy_vec_env_of_single_envs() -> None:
    """Infos too, but for those of lanes that go on, which are empty here."""
    ours = GlimpseVecEnv(eyes(stop=True))
    ones = DummyVecEnv([lambda: Monitor(gym.make(ID, **options(stop=True)))] * 3)
    for envs in (ours, ones):
        envs.seed(3)
    same(ours.reset(), dict(ones.reset()))
    assert [info["scene"] for info in ours.reset_infos] == [info["scene"] for info in ones.reset_infos]
    rng, ended = np.random.default_rng(0), 0
    for _ in range(12):
        action = rng.uniform(-1, 1, (3, 3)).astype(np.float32)  # the last axis above 0 stops: lanes end at odds
        (seen, reward, done, infos), (alone, gain, over, tales) = ours.step(action), ones.step(action)
        same(seen, dict(alone))
        same(reward, gain)
        same(done, over)
        for lane in np.flatnonzero(done):
            ended += 1
            mine, theirs = infos[lane], tales[lane]
            episode, other = mine.pop("episode"), theirs.pop("episode")
            assert episode["l"] == other["l"]
            assert episode["r"] == pytest.approx(other["r"], abs=1e-5)
            assert episode["t"] >= 0
            same(mine, theirs)
            ours.reset_infos[lane].pop(
                "reward_terms", None
            )  # the step's, which the vector env gives beside the reset's
            same(ours.reset_infos[lane], ones.reset_infos[lane])
    assert ended > 6


def test_what_was_given_is_the_callers() -> None:
    lanes = GlimpseVecEnv(eyes())
    lanes.reset()
    first = lanes.step(walk(1)[0])
    kept = {key: value.copy() for key, value in first[0].items()}
    first[1][:] = 9
    first[3][0]["mine"] = True
    second = lanes.step(walk(1)[0])
    same(first[0], kept)
    assert not any(np.shares_memory(first[0][key], second[0][key]) for key in kept)
    assert (second[1] != 9).all()
    assert second[3] == [{}, {}, {}]


class Counter(gym.Env[Any, Any]):
    """Shows how many steps it made; ends after 5, is cut off after ``limit``."""

    observation_space = gym.spaces.Box(0, 9, (1,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, limit: int, render_mode: str | None = None) -> None:
        self.limit, self.render_mode, self.at = limit, render_mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = 0 if options is None else options["at"]
        return np.array([self.at], np.float32), {"began": self.at}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.at += 1
        tale = {"even": True} if self.at % 2 == 0 else {}
        return np.array([self.at], np.float32), 1.0, self.at >= 5, self.at >= self.limit, tale

    def render(self) -> Any:
        return np.full((2, 2, 3), self.at, np.uint8)

    def action_masks(self) -> np.ndarray:
        return np.array([True, self.at > 0, False])


@pytest.mark.parametrize("limit", [3, 5, 9])
def test_an_end_that_is_the_tasks_is_no_time_limit(limit: int) -> None:
    lanes = GlimpseVecEnv(SyncVectorEnv([lambda: Counter(limit)] * 2, autoreset_mode=SAME))
    lanes.reset()
    for step in range(1, min(limit, 5) + 1):
        seen, _, done, infos = lanes.step(np.array([0, 0]))
        assert done.tolist() == [step == min(limit, 5)] * 2
    assert seen.tolist() == [[0], [0]]
    assert infos[0]["terminal_observation"].tolist() == [min(limit, 5)]
    assert infos[0]["TimeLimit.truncated"] is (limit < 5)
    assert infos[0]["episode"]["r"] == infos[0]["episode"]["l"] == min(limit, 5)
    assert lanes.reset_infos == [{"began": 0}, {"began": 0}]


def test_infos_go_to_the_lanes_that_have_them() -> None:
    lanes = GlimpseVecEnv(SyncVectorEnv([lambda: Counter(2), lambda: Counter(3)], autoreset_mode=SAME), monitor=False)
    lanes.reset()
    lanes.step(np.array([0, 0]))
    _, _, done, infos = lanes.step(np.array([0, 0]))
    assert done.tolist() == [True, False]
    assert infos[1] == {}
    assert infos[0].keys() == {"even", "terminal_observation", "TimeLimit.truncated"}
    _, _, done, infos = lanes.step(np.array([0, 0]))
    assert done.tolist() == [False, True]
    assert infos[1].keys() == {"terminal_observation", "TimeLimit.truncated"}


def test_seeds_and_options_are_for_one_reset() -> None:
    lanes = GlimpseVecEnv(eyes(saccades=Saccades(scatter=0.2)))

    def episode() -> Any:
        first = lanes.reset()
        return first["glimpse"], lanes.step(walk(1)[0])[0]["glimpse"]

    assert lanes.seed(7) == [7, 8, 9]
    one, next_one = episode(), episode()
    lanes.seed(7)
    again = episode()
    same(dict(enumerate(one)), dict(enumerate(again)))
    assert not np.array_equal(one[0], next_one[0])
    lanes.set_options({"scene": 4, "fixation": (0.5, 0.5)})
    lanes.reset()
    assert [info["fixation_px"].tolist() for info in lanes.reset_infos] == [[30, 30]] * 3
    lanes.reset()
    assert [info["fixation_px"].tolist() for info in lanes.reset_infos] == [[20, 20]] * 3
    with pytest.raises(InvalidTypeError, match="one dict for all lanes"):
        lanes.set_options([{}, {}, {}])


# What is asked of lanes


class Masked(FoveaVectorEnv):
    """Says which cells of its grid may be chosen."""

    def action_masks(self) -> np.ndarray:
        return np.arange(self.num_envs)[:, None] >= np.arange(4)

    def several(self) -> list[str]:
        return ["only", "two"]


def test_lanes_of_a_vector_env_answer_as_one() -> None:
    env = Masked(3, autoreset_mode=SAME, **options(action_mode="grid", grid=(2, 2)))
    lanes = GlimpseVecEnv(env)
    assert lanes.has_attr("action_masks")
    assert not lanes.has_attr("nonesuch")
    masks = np.stack(lanes.env_method("action_masks"))
    np.testing.assert_array_equal(masks, env.action_masks())
    assert [mask.tolist() for mask in lanes.env_method("action_masks", indices=[2, 0])] == masks[[2, 0]].tolist()
    assert lanes.get_attr("budget") == [3, 3, 3]
    assert lanes.get_attr("budget", 1) == [3]
    lanes.set_attr("render_mode", None)
    with pytest.raises(InvalidValueError, match="for all lanes"):
        lanes.set_attr("budget", 4, indices=[0])
    with pytest.raises(InvalidValueError, match=r"3 things, one for each lane; got \['only', 'two'\]"):
        lanes.env_method("several")
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        lanes.env_method("nonesuch")
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        lanes.set_attr("nonesuch", 1)
    assert lanes.env_method("close") == [None] * 3
    assert env.closed


def test_wrappers_around_a_vector_env_are_looked_through() -> None:
    class Half(gym.vector.VectorRewardWrapper):  # type: ignore[type-arg]
        def rewards(self, rewards: Any) -> Any:
            return rewards / 2

    raw, lanes = eyes(), GlimpseVecEnv(Half(eyes()))
    raw.reset(seed=0)
    lanes.seed(0)
    lanes.reset()
    np.testing.assert_allclose(lanes.step(walk(1)[0])[1], raw.step(walk(1)[0])[1] / 2, rtol=1e-6)
    assert lanes.get_attr("budget") == [3, 3, 3]
    assert lanes.env_is_wrapped(Half) == [True] * 3
    assert lanes.env_is_wrapped(gym.wrappers.TimeLimit) == [False] * 3


def test_single_envs_are_asked_one_by_one() -> None:
    def make() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(Counter(9, "rgb_array"), 4)

    lanes = GlimpseVecEnv(SyncVectorEnv([make, make], autoreset_mode=SAME))
    lanes.set_options({"at": 2})
    assert lanes.reset().tolist() == [[2], [2]]
    assert np.stack(lanes.env_method("action_masks")).tolist() == [[True, True, False]] * 2
    lanes.set_attr("at", 0, indices=1)
    assert lanes.get_attr("at") == [2, 0]
    assert lanes.env_is_wrapped(gym.wrappers.TimeLimit, indices=[0]) == [True]
    assert lanes.env_is_wrapped(Monitor) == [True, True]
    assert lanes.render_mode == "rgb_array"
    lanes.close()


def test_envs_in_other_processes() -> None:
    envs = gym.make_vec(
        "CartPole-v1", num_envs=2, vectorization_mode="async", vector_kwargs={"autoreset_mode": SAME, "context": "fork"}
    )
    lanes = GlimpseVecEnv(envs)
    lanes.seed(0)
    assert lanes.reset().shape == (2, 4)
    while not (ended := lanes.step(np.array([0, 1])))[2].any():
        pass
    lane = int(np.argmax(ended[2]))
    assert ended[3][lane]["terminal_observation"].shape == (4,)
    assert abs(ended[3][lane]["terminal_observation"][2]) > 0.2 > abs(ended[0][lane, 2])
    assert lanes.get_attr("gravity", [1]) == [9.8]
    lanes.set_attr("gravity", 1.6)
    assert lanes.get_attr("gravity") == [1.6, 1.6]
    assert lanes.env_method("has_wrapper_attr", "gravity", indices=[0]) == [True]
    lanes.close()


def test_it_draws() -> None:
    lanes = GlimpseVecEnv(eyes(2, render_mode="rgb_array"))
    lanes.reset()
    assert len(lanes.get_images()) == 2
    picture = lanes.render()
    assert picture is not None
    assert picture.shape == (2 * 480, 854, 3)


# What cannot be used


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(InvalidTypeError, match=r"a Gymnasium vector env; got OrderEnforcing.*make_vec"):
        GlimpseVecEnv(gym.make(ID, **options()))  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="autoreset_mode='SameStep'"):
        GlimpseVecEnv(FoveaVectorEnv(2, **options()))
    with pytest.raises(InvalidValueError, match="copy=True"):
        GlimpseVecEnv(SyncVectorEnv([lambda: Counter(3)], autoreset_mode=SAME, copy=False))


def test_without_stable_baselines3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "stable_baselines3"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "foveasim.agents.rl.vec_env")
    with pytest.raises(MissingDependencyError, match=r"pip install 'foveasim\[rl\]'"):
        importlib.import_module("foveasim.agents.rl.vec_env")


# With stable-baselines3's own


def test_its_wrappers_take_it() -> None:
    stacked = VecFrameStack(GlimpseVecEnv(eyes()), 2, channels_order="last")
    assert stacked.reset()["glimpse"].shape == (3, 40, 40, 6)
    for action in walk(3):
        seen, _, done, infos = stacked.step(action)
    assert done.all()
    assert infos[0]["terminal_observation"]["glimpse"].shape == (40, 40, 6)
    assert (seen["glimpse"][..., :3] == 0).all()

    monitored, plain = VecMonitor(GlimpseVecEnv(eyes(), monitor=False)), GlimpseVecEnv(eyes())
    for envs in (monitored, plain):
        envs.seed(0)
        envs.reset()
        for action in walk(3):
            infos = envs.step(action)[3]
        assert infos[1]["episode"]["l"] == 3
        total = infos[1]["episode"]["r"] if envs is monitored else total  # noqa: F821
        assert infos[1]["episode"]["r"] == pytest.approx(total, abs=1e-6)

    normal = VecNormalize(GlimpseVecEnv(eyes()), norm_obs_keys=["fixation", "time"])
    normal.reset()
    for action in walk(3):
        seen, _, _, infos = normal.step(action)
    assert infos[0]["terminal_observation"]["time"] < 0 < seen["time"][0]
    moved = VecTransposeImage(GlimpseVecEnv(eyes()))
    assert moved.reset()["glimpse"].shape == (3, 3, 40, 40)


class Notes(BaseCallback):
    """Keeps the info of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.gains: list[np.ndarray] = []

    def _on_step(self) -> bool:
        envs = self.training_env.unwrapped
        assert isinstance(envs, GlimpseVecEnv)
        self.gains.append(envs.info["reward_terms"]["coverage_gain"])
        return True


def test_ppo_and_its_evaluation_run_on_it() -> None:
    torch.set_num_threads(1)
    lanes = GlimpseVecEnv(eyes(4))
    model = PPO("MultiInputPolicy", lanes, n_steps=6, batch_size=12, n_epochs=2, seed=0, device="cpu")
    notes = Notes()
    model.learn(48, callback=notes)
    assert model.num_timesteps == 48
    assert len(notes.gains) == 12
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) == 4 * 4
    rewards, lengths = evaluate_policy(model, lanes, n_eval_episodes=8, return_episode_rewards=True)
    assert lengths == [3] * 8
    assert all(np.isfinite(rewards))  # type: ignore[arg-type]


class Compact(gym.vector.VectorWrapper):  # type: ignore[type-arg]
    """Shows only where the eye is and what time is left."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.single_observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = gym.spaces.Box(-1, 1, (env.num_envs, 3), np.float32)

    def reset(self, **options: Any) -> Any:
        seen, info = self.env.reset(**options)
        return self._show(seen), info

    def step(self, actions: Any) -> Any:
        seen, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            finals = info["final_obs"].copy()
            for lane in np.flatnonzero(info["_final_obs"]):
                finals[lane] = self._show(finals[lane])
            info = {**info, "final_obs": finals}
        return self._show(seen), reward, terminated, truncated, info

    def _show(self, seen: Any) -> np.ndarray:
        return np.concatenate([seen["fixation"], seen["time"]], -1)


def test_ppo_learns_on_it() -> None:
    """One saccade, and a policy that stays put gains nothing: it finds out that there is more to see inwards."""
    torch.set_num_threads(1)
    more: dict[str, Any] = {"budget": 1, "action_mode": "relative", "start": "random"}
    lanes = GlimpseVecEnv(Compact(eyes(64, **more)))
    model = PPO("MlpPolicy", lanes, n_steps=8, batch_size=64, n_epochs=10, learning_rate=0.01, seed=0, device="cpu")
    before = evaluate_policy(model, lanes, n_eval_episodes=64)[0]
    model.learn(2 * 8 * 64)
    after = evaluate_policy(model, lanes, n_eval_episodes=64)[0]
    assert before < 0.02
    assert after > 0.1, (before, after)
    corners = np.array([[0.9, 0.9, 1], [-0.9, -0.9, 1]], np.float32)
    assert np.sign(model.predict(corners, deterministic=True)[0]).tolist() == [[-1, -1], [1, 1]]


def test_sac_learns_from_the_last_observations() -> None:
    torch.set_num_threads(1)
    lanes = GlimpseVecEnv(Compact(eyes(2)))
    model = SAC("MlpPolicy", lanes, buffer_size=200, learning_starts=8, seed=0, device="cpu")
    model.learn(24)
    kept = model.replay_buffer
    assert kept is not None
    ended = kept.dones[: kept.pos].astype(bool)
    assert ended.sum() == 8
    assert (kept.next_observations[: kept.pos][ended][:, 2] == 0).all()  # what came after the end is not in it
    assert (kept.observations[: kept.pos][..., 2].max(1) > 0).all()
