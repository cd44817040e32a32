"""Seed → episode is the same to the bit: alone, in any lane, in another process, drawn or not, after partial resets."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from foveasim.envs import FoveaEnv, FoveaVectorEnv
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades
from foveasim.simulator.simulator import Simulator

ID = "foveasim/Glimpse-v0"
PICTURES = np.random.default_rng(0).integers(0, 256, (40, 48, 48, 3), dtype=np.uint8)
SEEDS = [5, 9, 5, 1_000_003]
MODES = list(AutoresetMode)
BUSY = {"budget": 4, "saccades": Saccades(scatter=0.1), "half_life_ms": 900.0, "start": "random", "stop": True}
SMALL: dict[str, Any] = {"scenes": PICTURES, "size": (48, 48), "belief": True, "privileged": True}
TASKS: dict[str, dict[str, Any]] = {
    "Glimpse": {**SMALL, **BUSY},
    "Search": {**BUSY, "count": 20, "belief": True},
    "Classify": {**BUSY},
}
INFO = ("fixation_px", "target_px", "amplitude_deg", "duration_ms", "clock_ms", "coverage")


def action(seed: int, episode: int, step: int, size: int = 3) -> np.ndarray:
    """What is done in an episode, whoever plays it; three in ten stop it."""
    drawn = np.random.default_rng([seed, episode, step]).uniform(-1, 1, size).astype(np.float32)
    drawn[-1] -= np.float32(0.4) * (drawn[-1] > -0.6)
    return drawn


def digest(*values: Any) -> str:
    """A hash of numbers and arrays, of their dtypes and shapes too."""
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        array = np.asarray(value)
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def seen(observation: dict[str, Any], lane: int | None = None) -> str:
    pick: Callable[[Any], Any] = (lambda value: value) if lane is None else (lambda value: value[lane])
    return digest(*(pick(observation[key]) for key in sorted(observation)))


def told(info: dict[str, Any], lane: int | None = None) -> str:
    """A hash of what info says; the single env gives numbers of Python, others float32."""
    said = [info[name] if lane is None else info[name][lane] for name in INFO]
    return digest(*(np.asarray(value, np.float64) for value in said))


class Alone:
    """Plays episodes in the single env, each once, and keeps their hashes."""

    def __init__(self, task: str = "Glimpse", **more: Any) -> None:
        self.env = gym.make(f"foveasim/{task}-v0", **{**TASKS[task], **more}).unwrapped
        self.size = self.env.action_space.shape[0]
        self.played: dict[int, list[list[tuple[str, ...]]]] = {}

    def steps(self, seed: int, episode: int) -> list[tuple[str, ...]]:
        """The reset and every step of an episode: hashes of observation, info, reward and end."""
        if len(self.played.get(seed, [])) <= episode:
            self.played[seed] = [self.play(seed, number) for number in range(episode + 4)]
        return self.played[seed][episode]

    def play(self, seed: int, episode: int) -> list[tuple[str, ...]]:
        observation, info = self.env.reset(seed=None if episode else seed)
        assert (info["seed"], info["episode_number"]) == (seed, episode)
        found = [(seen(observation), told(info), info["scene"])]
        over = False
        while not over:
            observation, reward, over, _, info = self.env.step(action(seed, episode, len(found) - 1, self.size))
            found.append((seen(observation), told(info), digest(np.float64(reward)), str(over)))
        return found


class Lane:
    """Where one lane of a vector env stands, and what it must deliver next."""

    def __init__(self, alone: Alone, seed: int, size: int = 3) -> None:
        self.alone, self.seed, self.episode, self.step, self.size = alone, seed, 0, 0, size

    @property
    def next_action(self) -> np.ndarray:
        return action(self.seed, self.episode, self.step, self.size)

    def began(self, observation: dict[str, Any], info: dict[str, Any], lane: int) -> None:
        expected = self.alone.steps(self.seed, self.episode)[0]
        assert (seen(observation, lane), told(info, lane), info["scene"][lane]) == expected
        assert (info["seed"][lane], info["episode_number"][lane]) == (self.seed, self.episode)

    def stepped(self, observation: str, info: str, reward: Any, over: Any) -> None:
        self.step += 1
        expected = self.alone.steps(self.seed, self.episode)[self.step]
        assert (observation, info, digest(np.float64(reward)), str(bool(over))) == expected

    def go_on(self) -> None:
        self.episode, self.step = self.episode + 1, 0


def compare(env: Any, alone: Alone, seeds: list[int], steps: int) -> int:
    """Play a vector env whose every lane must do what the single env does; returns the episodes that ended."""
    mode, lanes = env.metadata["autoreset_mode"], [Lane(alone, seed) for seed in seeds]
    observation, info = env.reset(seed=seeds)
    for number, lane in enumerate(lanes):
        lane.began(observation, info, number)
    ended, waiting = 0, np.zeros(len(lanes), bool)
    for _ in range(steps):
        observation, reward, over, cut, info = env.step(np.stack([lane.next_action for lane in lanes]))
        assert not cut.any()
        for number, lane in enumerate(lanes):
            if waiting[number]:
                assert (reward[number], over[number]) == (0, False)
                lane.go_on()
                lane.began(observation, info, number)
            elif over[number] and mode == AutoresetMode.SAME_STEP:
                last, said = info["final_obs"][number], info["final_info"]
                lane.stepped(seen(last), told(said, number), reward[number], True)
                lane.go_on()
                lane.began(observation, info, number)
            else:
                lane.stepped(seen(observation, number), told(info, number), reward[number], over[number])
        ended += int(over.sum())
        if mode == AutoresetMode.DISABLED and over.any():
            observation, info = env.reset(options={"reset_mask": over.copy()})
            for number in np.flatnonzero(over).tolist():
                lanes[number].go_on()
                lanes[number].began(observation, info, number)
        waiting = over.copy() if mode == AutoresetMode.NEXT_STEP else waiting & False
    return ended


@pytest.fixture(scope="module")
def alone() -> dict[str, Alone]:
    """The single env with each retina."""
    return {retina: Alone(retina=retina) for retina in RETINAS}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("retina", list(RETINAS))
def test_every_lane_is_the_single_env(retina: str, mode: AutoresetMode, alone: dict[str, Alone]) -> None:
    env = FoveaVectorEnv(len(SEEDS), retina=retina, autoreset_mode=mode, **TASKS["Glimpse"])
    assert compare(env, alone[retina], SEEDS, 12) >= 8


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("task", ["Search", "Classify"])
def test_every_lane_of_a_task_is_the_single_env(task: str, mode: AutoresetMode) -> None:
    env = gym.make_vec(f"foveasim/{task}-v0", num_envs=len(SEEDS), autoreset_mode=mode, **TASKS[task])
    assert compare(env, Alone(task), SEEDS, 12) >= 8


@pytest.mark.parametrize("retina", list(RETINAS))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_drawing_changes_nothing(retina: str, mode: AutoresetMode, alone: dict[str, Alone]) -> None:
    env = FoveaVectorEnv(2, retina=retina, autoreset_mode=mode, render_mode="rgb_array", **TASKS["Glimpse"])
    step = env.step

    def step_and_draw(actions: Any) -> Any:
        env.draw(1, (160, 160))
        return step(actions)

    env.step = step_and_draw  # type: ignore[method-assign]
    assert compare(env, alone[retina], SEEDS[:2], 6) >= 2


@pytest.mark.parametrize("render_mode", ["rgb_array", "rgb_array_list", "human"])
@pytest.mark.parametrize("belief", [False, True])
def test_drawing_changes_nothing_alone(render_mode: str, belief: bool) -> None:
    plain = Alone(belief=belief)
    drawn = Alone(belief=belief, render_mode=render_mode, render_size=(160, 160))
    drawn.env.metadata = {**drawn.env.metadata, "render_fps": 1000}
    for episode in range(3):
        assert plain.play(7, episode) == drawn.play(7, episode)
        drawn.env.render()
    drawn.env.close()


@pytest.mark.parametrize("retina", list(RETINAS))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_lanes_begin_anew_at_any_time(retina: str, mode: AutoresetMode, alone: dict[str, Alone]) -> None:
    """Some in the middle of an episode, some with new seeds; the others go on as if nothing had happened."""
    env = FoveaVectorEnv(len(SEEDS), retina=retina, autoreset_mode=mode, **TASKS["Glimpse"] | {"stop": False})
    there = Alone(retina=retina, stop=False)
    lanes = [Lane(there, seed, size=2) for seed in SEEDS]
    rng = np.random.default_rng(3)
    env.reset(seed=SEEDS)
    for turn in range(12):
        over = np.array([lane.step == 4 for lane in lanes])
        mask = over | (rng.random(len(lanes)) < 0.4)
        if mask.any():
            fresh = [int(seed) if turn % 3 == 0 else None for seed in rng.integers(2**40, size=len(lanes))]
            given: list[int] | None = None if turn % 3 else [seed or 0 for seed in fresh]
            observation, info = env.reset(seed=given, options={"reset_mask": mask})
            for number in np.flatnonzero(mask).tolist():
                lane = lanes[number]
                if given is not None:
                    lanes[number] = Lane(there, given[number], size=2)
                else:
                    lane.go_on()
                lanes[number].began(observation, info, number)
        observation, reward, ended, _, info = env.step(np.stack([lane.next_action for lane in lanes]))
        for number, lane in enumerate(lanes):
            if ended[number] and mode == AutoresetMode.SAME_STEP:
                last = info["final_obs"][number], info["final_info"]
                lane.stepped(seen(last[0]), told(last[1], number), reward[number], True)
                lane.go_on()
            else:
                lane.stepped(seen(observation, number), told(info, number), reward[number], ended[number])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_and_many_lanes_change_nothing(threads: int, alone: dict[str, Alone]) -> None:
    seeds = [SEEDS[lane % len(SEEDS)] for lane in range(66)]
    for retina in ("pyramid", "patches"):
        env = FoveaVectorEnv(len(seeds), retina=retina, threads=threads, **TASKS["Glimpse"])
        assert compare(env, alone[retina], seeds, 6) > 0


def test_a_small_cache_changes_nothing(alone: dict[str, Alone]) -> None:
    env = FoveaVectorEnv(len(SEEDS), cache_mb=0, **TASKS["Glimpse"])
    assert compare(env, alone["pyramid"], SEEDS, 12) >= 8


def test_a_seed_that_was_drawn_is_told() -> None:
    env = FoveaEnv(**SMALL)
    observation, info = env.reset()
    again, _ = env.reset(seed=info["seed"])
    assert seen(observation) == seen(again)
    many = FoveaVectorEnv(3, **SMALL)
    observation, info = many.reset(seed=[4, None, None])
    again, _ = many.reset(seed=info["seed"].tolist())
    assert seen(observation) == seen(again)


def test_what_is_given_at_the_reset_is_the_same_in_every_lane() -> None:
    there = {"scene": 7, "fixation": (0.3, -0.9)}
    one = FoveaEnv(**TASKS["Glimpse"])
    many = FoveaVectorEnv(3, **TASKS["Glimpse"])
    observation, _ = many.reset(seed=[1, 2, 3], options=there)
    for lane, seed in enumerate((1, 2, 3)):
        assert seen(one.reset(seed=seed, options=there)[0]) == seen(observation, lane)


def episodes_of_every_retina() -> dict[str, list[list[tuple[str, ...]]]]:
    """Two episodes with each retina, played here; :data:`ELSEWHERE` plays them in another process."""
    return {retina: [one.play(11, 0), one.play(11, 1)] for retina in RETINAS if (one := Alone(retina=retina))}


ELSEWHERE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("seeds", sys.argv[1])
seeds = importlib.util.module_from_spec(spec)
sys.modules["seeds"] = seeds
spec.loader.exec_module(seeds)
print(json.dumps(seeds.episodes_of_every_retina()))
"""


@pytest.mark.slow
def test_another_process_plays_the_same_episodes() -> None:
    command = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).resolve())]
    # Another hash seed, another number of threads, another folder: nothing of these may matter.
    surroundings = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings, cwd="/")
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert theirs == json.loads(json.dumps(episodes_of_every_retina()))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.value)
def test_spawned_workers_play_the_same_episodes(mode: AutoresetMode, alone: dict[str, Alone]) -> None:
    maker = functools.partial(gym.make, "foveasim:foveasim/Glimpse-v0", **TASKS["Glimpse"])
    env = AsyncVectorEnv([maker, maker], context="spawn", autoreset_mode=mode)
    try:
        assert compare(env, alone["pyramid"], SEEDS[:2], 9) >= 2
    finally:
        env.close()


GREY_LEVELS, PX = 1, 1e-3
"""How far a GPU, or torch on the CPU, may be from the kernels of the CPU."""


def near(one: Any, two: Any, most: float) -> bool:
    return bool(np.abs(np.asarray(one, np.float64) - np.asarray(two, np.float64)).max() <= most)


@pytest.mark.parametrize("retina", list(RETINAS))
def test_torch_is_within_a_grey_level_of_the_kernels(retina: str) -> None:
    """What a GPU computes, computed on the CPU: the same operators in the same order."""
    one, two = (
        Simulator(PICTURES, retina, 3, size=(48, 48), saccades=Saccades(scatter=0.1), kernels=kernels)
        for kernels in (True, False)
    )
    for eyes in (one, two):
        eyes.reset(seed=5)
    for aim in np.random.default_rng(2).uniform(0, 48, (4, 3, 2)).astype(np.float32):
        for eyes in (one, two):
            eyes.step(torch.from_numpy(aim))
        assert near(one.fixation_px, two.fixation_px, PX)
        assert near(one.glimpse.image, two.glimpse.image, GREY_LEVELS)
        assert near(one.glimpse.acuity, two.glimpse.acuity, GREY_LEVELS)
        assert near(one.belief.acuity, two.belief.acuity, GREY_LEVELS)


@pytest.mark.gpu
@pytest.mark.parametrize("retina", list(RETINAS))
def test_a_gpu_is_within_a_grey_level_of_the_cpu_and_repeats_itself(retina: str) -> None:
    more = {"retina": retina, **TASKS["Glimpse"], "half_life_ms": None}
    envs = [FoveaVectorEnv(3, device=device, **more) for device in ("cpu", "cuda", "cuda")]
    shown = [env.reset(seed=5)[0] for env in envs]
    for turn in range(12):
        host, first, second = shown
        for key, value in host.items():
            there = first[key].cpu().numpy()
            assert np.array_equal(there, second[key].cpu().numpy()), key
            assert near(value, there, GREY_LEVELS if value.dtype == np.uint8 else 1e-4), key
        moves = np.stack([action(lane, 0, turn) for lane in range(3)])
        shown = [env.step(moves if env is envs[0] else torch.from_numpy(moves).cuda())[0] for env in envs]
