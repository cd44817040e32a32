"""The single env: Gymnasium's rules, actions, rewards, resets and errors."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from foveasim.envs import FoveaEnv
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError, UnknownNameError
from foveasim.eye.retina import RETINAS

ID = "foveasim/Glimpse-v0"
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
EXTRAS = [{}, {"zoom": True}, {"stop": True}, {"zoom": True, "stop": True}]


def make(**options: Any) -> FoveaEnv:
    return FoveaEnv(**{"scenes": PICTURES, **options})


@pytest.mark.parametrize("mode", ["absolute", "relative", "grid"])
@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_both_checkers_pass_without_a_warning(mode: str, extra: dict[str, bool]) -> None:
    env = gym.make(ID, scenes=PICTURES, action_mode=mode, belief=True, **extra).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env, skip_render_check=True)


@pytest.mark.parametrize("retina", list(RETINAS))
def test_every_retina_serves_the_env(retina: str) -> None:
    env = make(retina=retina, belief=True)
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)


def test_render_modes_pass_the_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, scenes=PICTURES, render_mode="rgb_array").unwrapped)


def test_absolute_action_is_the_next_fixation() -> None:
    env = make(size=(64, 128), budget=4)
    env.reset(seed=0)
    observation, _, _, _, info = env.step(np.array([0.5, -0.5], np.float32))
    np.testing.assert_allclose(observation["fixation"], [0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(info["fixation_px"], [96, 16], atol=1e-4)


def test_relative_action_is_a_displacement_and_stops_at_the_edge() -> None:
    env = make(action_mode="relative", budget=4)
    env.reset(seed=0, options={"fixation": (0.5, 0.0)})
    observation, _, _, _, info = env.step(np.array([-0.25, 0.125], np.float32))
    np.testing.assert_allclose(observation["fixation"], [0.25, 0.125], atol=1e-6)
    observation, _, _, _, info = env.step(np.array([1.0, 0.0], np.float32))
    assert observation["fixation"][0] == pytest.approx(1.0)
    assert info["target_px"][0] > info["fixation_px"][0] == pytest.approx(96)


def test_grid_action_is_a_cell() -> None:
    env = make(action_mode="grid", grid=(2, 4), budget=3)
    env.reset(seed=0)
    observation, *_ = env.step(5)  # second row, second column
    np.testing.assert_allclose(observation["fixation"], [-0.25, 0.5], atol=1e-6)


def test_stop_ends_the_episode_without_moving() -> None:
    env = make(stop=True, budget=9)
    env.reset(seed=0, options={"fixation": (0.25, 0.25)})
    observation, reward, terminated, truncated, info = env.step(np.array([1, 1, 1], np.float32))
    assert terminated
    assert not truncated
    assert reward == 0
    assert info["amplitude_deg"] == 0
    np.testing.assert_allclose(observation["fixation"], [0.25, 0.25], atol=1e-6)


def test_stop_cell_of_the_grid() -> None:
    env = make(action_mode="grid", grid=(2, 2), stop=True)
    env.reset(seed=0)
    assert env.step(3)[2] is False
    assert env.step(4)[2] is True


def test_zoom_trades_breadth_for_detail() -> None:
    env = make(retina="window", retina_options={"size_deg": None, "patch_px": 16}, zoom=True, budget=4)
    env.reset(seed=0)
    covered = {z: int((env.step(np.array([0, 0, z], np.float32))[0]["acuity"] > 0).sum()) for z in (0.0, -1.0)}
    assert covered[0.0] == 16 * 16
    assert covered[-1.0] == 32 * 32


def test_budget_terminates_and_is_observed() -> None:
    env = make(budget=3)
    observation, _ = env.reset(seed=0)
    left = [float(observation["time"][0])]
    ends = []
    for _ in range(3):
        observation, _, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        left.append(float(observation["time"][0]))
        ends.append((terminated, truncated))
    np.testing.assert_allclose(left, [1, 2 / 3, 1 / 3, 0], atol=1e-6)
    assert ends == [(False, False), (False, False), (True, False)]


def test_reward_is_coverage_gain_minus_the_cost_of_moving() -> None:
    env = make(retina="disc", retina_options={"hidden_ratio": 0.9}, reward_options={"cost_per_deg": 0.01})
    env.reset(seed=0)
    before = env.simulator.coverage.item()
    _, reward, _, _, info = env.step(np.array([0.9, 0.9], np.float32))
    terms = info["reward_terms"]
    assert terms["coverage_gain"] == pytest.approx(info["coverage"] - before, abs=1e-6)
    assert terms["saccade_cost"] == pytest.approx(-0.01 * info["amplitude_deg"], rel=1e-6)
    assert reward == pytest.approx(sum(terms.values()), abs=1e-6)


def test_looking_twice_at_one_place_gains_nothing() -> None:
    env = make(retina="disc")
    env.reset(seed=0)
    _, reward, *_ = env.step(np.zeros(2, np.float32))
    assert reward == 0


def test_full_retina_covers_everything_at_once() -> None:
    env = make(retina="full")
    env.reset(seed=0)
    assert env.simulator.coverage.item() == 1


def test_clock_follows_the_main_sequence() -> None:
    env = make()
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.array([1, 0], np.float32))
    assert info["duration_ms"] == pytest.approx(2.2 * info["amplitude_deg"] + 21, rel=1e-5)
    assert info["clock_ms"] == pytest.approx(info["duration_ms"] + 250, rel=1e-5)


def test_same_seed_same_episode_and_the_next_one_differs() -> None:
    env = make(scenes=np.random.default_rng(1).integers(0, 256, (500, 16, 16, 3), dtype=np.uint8), size=(16, 16))
    first = env.reset(seed=7)[0]["glimpse"]
    second = env.reset()[0]["glimpse"]
    again = env.reset(seed=7)[0]["glimpse"]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, env.reset()[0]["glimpse"])


@pytest.mark.parametrize("retina", [name for name in RETINAS if name != "full"])
def test_hidden_pixels_never_reach_an_observation(retina: str) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    path = [np.array(p, np.float32) for p in ((0.3, -0.2), (-0.9, 0.8), (1.0, 1.0))]

    def episode(image: np.ndarray) -> list[dict[str, np.ndarray]]:
        env = make(retina=retina, belief=True)
        seen = [env.reset(seed=3, options={"scene": image})[0]]
        return seen + [env.step(action)[0] for action in path]

    seen = episode(scene)
    hidden = seen[-1]["belief_acuity"][..., 0] == 0
    altered = scene.copy()
    altered[hidden] = 255 - altered[hidden]
    for before, after in zip(seen, episode(altered), strict=True):
        for key in before:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)


def test_observations_are_never_written_to_again() -> None:
    env = make(belief=True, privileged=True)
    observation, _ = env.reset(seed=0)
    before = {key: value.copy() for key, value in observation.items()}
    env.step(np.array([0.7, 0.1], np.float32))
    env.reset()
    for key, value in before.items():
        np.testing.assert_array_equal(observation[key], value)


def test_reset_options_choose_scene_and_fixation(tmp_path: Any) -> None:
    image = np.full((96, 96, 3), 77, np.uint8)
    env = make()
    observation, info = env.reset(seed=0, options={"scene": image, "fixation": (-0.5, 0.25)})
    assert (observation["glimpse"] == 77).all()
    np.testing.assert_allclose(observation["fixation"], [-0.5, 0.25], atol=1e-6)
    assert info["label"] == -1
    one, _ = env.reset(options={"scene": 3})
    two, _ = env.reset(options={"scene": 3})
    np.testing.assert_array_equal(one["glimpse"], two["glimpse"])
    from PIL import Image

    Image.fromarray(image).save(tmp_path / "grey.png")
    observation, info = env.reset(options={"scene": tmp_path / "grey.png"})
    assert info["scene"] == "grey.png"
    assert (observation["glimpse"] == 77).all()


def test_patch_is_observed_where_asked_for() -> None:
    env = make(retina="multiscale", patch=True)
    observation, _ = env.reset(seed=0)
    assert observation["patch"].shape == (12, 12, 12)
    with pytest.raises(InvalidValueError, match="has no patch"):
        make(retina="disc", patch=True)


def test_random_start_is_seeded() -> None:
    env = make(start="random")
    first = env.reset(seed=5)[0]["fixation"]
    second = env.reset()[0]["fixation"]
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, env.reset(seed=5)[0]["fixation"])


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        ([np.nan, 0], InvalidValueError, "finite"),
        ([np.inf, 0], InvalidValueError, "finite"),
        ([1.01, 0], InvalidValueError, r"in \[-1, 1\]"),
        ([0.0, 0.0, 0.0], InvalidValueError, r"shape \(2,\); got \(3,\)"),
        (0.5, InvalidValueError, r"shape \(2,\); got \(\)"),
        (["left", "up"], InvalidTypeError, "numbers"),
    ],
)
def test_bad_actions_are_refused_and_the_episode_goes_on(action: Any, error: type[Exception], message: str) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.step(action)
    assert env.step(np.zeros(2, np.float32))[4]["clock_ms"] == pytest.approx(250)


@pytest.mark.parametrize("action", [-1, 64, 1.5, [1]])
def test_bad_grid_actions_are_refused(action: Any) -> None:
    env = make(action_mode="grid")
    env.reset(seed=0)
    with pytest.raises((InvalidValueError, InvalidTypeError), match="action must"):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"retina": "piramid"}, UnknownNameError, "Did you mean 'pyramid'"),
        ({"action_mode": "polar"}, InvalidValueError, "absolute, relative, grid"),
        ({"size": (4, 4)}, InvalidValueError, "sides of 8"),
        ({"budget": 0}, InvalidValueError, "budget"),
        ({"retina": "disc", "zoom": True}, InvalidValueError, "has no zoom"),
        ({"reward": "covrage"}, UnknownNameError, "coverage"),
        ({"render_mode": "ansi"}, InvalidValueError, "render_mode"),
        ({"num_envs": 3}, InvalidValueError, "make_vec"),
        ({"scenes": "/no/such/folder"}, SceneError, "/no/such/folder"),
        ({"fit": "squeeze"}, InvalidValueError, "fit"),
        ({"grid": 4}, InvalidTypeError, "grid must be a pair"),
        ({"budget": 2.5}, InvalidTypeError, "whole number"),
        ({"saccades": {"scatter": 0.1}}, InvalidTypeError, "Saccades"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_bad_reset_options_are_named() -> None:
    env = make()
    with pytest.raises(InvalidValueError, match="scene, fixation"):
        env.reset(options={"scenes": 1})
    with pytest.raises(InvalidValueError, match="normalised"):
        env.reset(options={"fixation": (48, 48)})
    with pytest.raises(InvalidValueError, match="from 0 to"):
        env.reset(options={"scene": 10**6})
    with pytest.raises(InvalidTypeError, match=r"\(x, y\)"):
        env.reset(options={"fixation": "mid"})


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        make().step(np.zeros(2, np.float32))


def test_step_after_the_end_is_refused() -> None:
    env = make(budget=1)
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(np.zeros(2, np.float32))


def test_belief_fades_with_its_half_life() -> None:
    env = make(retina="disc", belief=True, half_life_ms=271 / 2, budget=4)
    env.reset(seed=0, options={"fixation": (-0.5, 0)})
    _, _, _, _, info = env.step(np.array([0.5, 0], np.float32))
    left = int(env.simulator.state.belief.acuity[0, 48, 24])
    assert left == int(255 * 2 ** (-info["clock_ms"] / (271 / 2)))


def test_torch_twin_of_the_kernels_gives_the_same_episode() -> None:
    from foveasim.simulator.simulator import Simulator

    one, two = (Simulator(PICTURES, "disc", 3, size=(48, 64), half_life_ms=900.0, kernels=k) for k in (True, False))
    targets = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([64.0, 48.0])
    for simulator in (one, two):
        simulator.reset(seed=4)
    for target in targets:
        first, second = one.step(target), two.step(target)
        torch.testing.assert_close(first.landing_px, second.landing_px)
        torch.testing.assert_close(first.duration_ms, second.duration_ms)
        torch.testing.assert_close(one.coverage, two.coverage)
        assert (one.glimpse.image.int() - two.glimpse.image.int()).abs().max() <= 1
        assert (one.belief.acuity.int() - two.belief.acuity.int()).abs().max() <= 1


def test_unreadable_scenes_are_named_counted_and_skipped(tmp_path: Any) -> None:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(PICTURES[0]).save(data, "PNG")
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes(data.getvalue())
    (tmp_path / "b.png").write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env = make(scenes=str(tmp_path), size=(48, 48))
        seen = {env.reset(seed=seed)[1]["scene"] for seed in range(20)}
    assert seen == {"a.png", "c.png"}
    assert [("b.png" in str(each.message), "number 1 of 3" in str(each.message)) for each in caught] == [(True, True)]
    with pytest.raises(SceneError, match=r"b\.png"):
        env.reset(options={"scene": 1})


def test_stopping_forgets_nothing() -> None:
    env = make(retina="disc", stop=True, half_life_ms=300.0, budget=4)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.array([0.5, 0.5, 1.0], np.float32))
    assert terminated
    assert reward == 0
    assert info["clock_ms"] == 0


class Camera:
    """A source that has to be closed."""

    moving, labels, closed = False, (), False

    def __len__(self) -> int:
        return 1

    def picture(self, index: int, time_ms: float = 0.0) -> Any:
        from foveasim.images.picture import Picture

        return Picture(PICTURES[0], -1, "camera", 3.5)

    def close(self) -> None:
        self.closed = True


def test_closing_closes_the_scenes_that_the_env_opened() -> None:
    env = make()
    camera = Camera()
    env.simulator.scenes = camera
    env.close()
    assert camera.closed
    handed = Camera()
    other = make(scenes=handed)
    other.close()
    assert not handed.closed
