"""Programs and games with an eye: stable-baselines3, a single-file PPO, CartPole, Atari, CarRacing, the page's code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AddRenderObservation, ResizeObservation
from stable_baselines3 import PPO

from foveasim.agents.rl.vec_env import GlimpseVecEnv
from foveasim.envs.wrappers.foveation import draw_gaze
from foveasim.envs.wrappers.observation import FoveateObservation, FoveateVectorObservation


def changed(before: list[torch.Tensor], model: Any) -> bool:
    after = [part.detach() for part in model.parameters()]
    assert all(bool(part.isfinite().all()) for part in after)
    return any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))


def drawn(env_id: str) -> gym.Env[Any, Any]:
    """Return an env whose observation is what it draws, 40 x 56 px."""
    return ResizeObservation(AddRenderObservation(gym.make(env_id, render_mode="rgb_array")), (40, 56))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("many", [False, True], ids=["single", "vector"])
def test_ppo_of_stable_baselines3_trains_on_flat_actions(env_id: str, many: bool) -> None:
    env: Any
    if many:
        envs = SyncVectorEnv([lambda: drawn(env_id)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
        env = GlimpseVecEnv(FoveateVectorObservation(envs, retina="disc", flat=True))
    else:
        env = FoveateObservation(drawn(env_id), retina="disc", flat=True)
    assert isinstance(env.action_space, Box if env_id == "Pendulum-v1" else MultiDiscrete)
    model = PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = [part.detach().clone() for part in model.policy.parameters()]
    model.learn(2 * 8 * (2 if many else 1))
    assert model._n_updates == 2
    assert changed(before, model.policy)


def test_a_single_file_ppo_written_for_gymnasium_trains_on_glimpse(root: Path) -> None:
    program = runpy.run_path(str(root / "tests" / "single_file_ppo.py"))
    options = {"retina": "disc", "size": (16, 16)}
    torch.manual_seed(0)
    before = [part.detach().clone() for part in program["Agent"](16 * 16 * 4 + 3, 2).parameters()]
    with torch.random.fork_rng():
        agent = program["train"]("foveasim/Glimpse-v0", updates=2, seed=0, **options)
    assert changed(before, agent)


def test_cart_pole_through_its_picture() -> None:
    game = AddRenderObservation(gym.make("CartPole-v1", render_mode="rgb_array"), render_only=False)
    env = FoveateObservation(game, retina="disc", keep=("state",))
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    assert env.step({"motor": 1, "gaze": np.array([0, 0.2], np.float32)})[0]["state"].shape == (4,)


def test_atari() -> None:
    ale = pytest.importorskip("ale_py")
    gym.register_envs(ale)
    env = FoveateObservation(gym.make("ALE/Pong-v5"), retina="pyramid", flat=True, belief=True, step_ms=1000 / 15)
    seen, _ = env.reset(seed=0)
    assert env.action_space == MultiDiscrete([6, 25])
    assert env.observation_space.contains(seen)
    assert env.step(np.array([2, 24]))[0]["glimpse"].shape == (210, 160, 3)


def test_the_car_racing_example_runs(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("Box2D")
    program = runpy.run_path(str(root / "examples" / "foveate_carracing.py"))
    options = program["Options"](steps=16, drive=12, lanes=2, rollout=4, out=str(tmp_path / "drive.gif"))
    program["main"](options)
    from PIL import Image

    with Image.open(tmp_path / "drive.gif") as picture:
        assert picture.n_frames > 2


def test_the_example_that_learns_to_drive_runs(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("Box2D")
    program = runpy.run_path(str(root / "examples" / "learn_to_drive.py"))
    options = program["Options"](steps=16, lanes=2, rollout=4, drives=2, length=8, out=str(tmp_path / "drive.gif"))
    program["main"](options)
    assert "of 2 drives" in capsys.readouterr().out
    assert (tmp_path / "drive.gif").stat().st_size > 1000
    racing = program["QuickRacing"](patience=3)
    genuine = program["CarRacing"](continuous=False)
    seen, small = genuine.reset(seed=0)[0], racing.reset(seed=0)[0]
    total, earned = 0.0, []
    for action in (3, 3, 1, 4):
        for _ in range(4):
            seen, reward, *_ = genuine.step(action)
            total += reward
        small, reward, *_ = racing.step(action)
        earned.append(reward)
        assert np.abs(seen.astype(int) - small).mean() < 3
    assert sum(earned) == pytest.approx(total)
    cut = [racing.step(4)[3] for _ in range(4)]
    assert cut[-1] and not cut[0]


def test_the_code_of_the_page_runs(root: Path) -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("Box2D")
    page = (root / "docs" / "wrappers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 4
    assert names["racing"].action_space.shape == (5,)
    assert names["picture"].shape[0] == 360
    assert names["eyes"].reset(seed=0)[0]["glimpse"].shape == (4, 210, 160, 3)


def test_the_ring_encloses_what_is_sharp() -> None:
    frame, acuity = np.zeros((90, 90, 3), np.uint8), np.zeros((90, 90), np.uint8)
    y, x = np.mgrid[:90, :90] - 44.5
    acuity[np.hypot(x, y) < 20] = 255
    picture = draw_gaze(frame, frame, acuity, np.array([[45, 45]], np.float32), 360)
    row = picture[180, 180:360].sum(1)
    assert abs(int(row[10:].argmax()) + 10 - 80) <= 3  # 20 px at four times the size


def test_vector_envs_are_drawn_lane_by_lane() -> None:
    envs = FoveateVectorObservation(SyncVectorEnv([lambda: drawn("CartPole-v1")] * 2), retina="disc")
    envs.reset(seed=0)
    pictures = envs.render()
    assert pictures is not None
    assert [picture.shape for picture in pictures] == [pictures[0].shape] * 2
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.skipif(
    gym.__version__.startswith(("1.1", "1.2")), reason="AddRenderObservation notes an argument there that it has not"
)
def test_a_wrapped_env_is_made_again_from_its_spec() -> None:
    game = gym.make("CartPole-v1", render_mode="rgb_array")
    env = FoveateObservation(AddRenderObservation(game), retina="disc", gaze="relative", flat=True, grid=(3, 3))
    again = gym.make(env.spec)
    assert again.action_space == env.action_space == MultiDiscrete([2, 9])
    np.testing.assert_array_equal(env.reset(seed=3)[0]["glimpse"], again.reset(seed=3)[0]["glimpse"])
