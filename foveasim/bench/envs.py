"""The envs, their memory, what a prediction at every step costs them, and learning by stable-baselines3."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

import foveasim  # noqa: F401  # registers the ids
from foveasim.bench.eyes import NoOpVectorEnv, copy_name, glimpse_spaces, steps
from foveasim.bench.timing import EPISODE, Case, Setting, SkippedError, pictures, rate_case
from foveasim.scenes.source import ArrayScenes

__all__ = ["env_cases", "peak_mb", "play"]

_SIDE = 96
_BUDGET = 2  # short episodes: memory comes of new scenes, not of steps


def play(path: Path, lanes: int, scenes: int, episodes: int, seed: int) -> int:
    """Play episodes before scenes that are mapped from a file; return the number of steps.

    Args:
        path: File of the scenes, made here. It is sparse: what the scenes show makes no difference to memory.
        lanes: B.
        scenes: How many.
        episodes: That every lane plays.
        seed: Of the scenes drawn and the actions.
    """
    with path.open("wb") as file:
        file.truncate(scenes * _SIDE * _SIDE * 3)
    images = np.memmap(path, np.uint8, "r", shape=(scenes, _SIDE, _SIDE, 3))
    source = ArrayScenes(images)
    options: dict[str, Any] = {
        "scenes": source,
        "retina": "pyramid",
        "size": (_SIDE, _SIDE),
        "budget": _BUDGET,
        "belief": True,
    }
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=lanes, **options)
    envs.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(episodes * (_BUDGET + 1)):
        envs.step(rng.uniform(-1, 1, (lanes, 2)).astype(np.float32))
    envs.close()
    return episodes * _BUDGET * lanes


def peak_mb() -> float:
    """Return the most memory that this process ever held, MB of 10^6 bytes; pages of mapped files count."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:6]))
    print(peak_mb())


RETINAS = ("pyramid", "disc")
VECTOR_LANES = (1, 16, 64, 256, 4096)
SYNC_LANES = 16
PREDICTING_LANES = 64
SB3_LANES = 64
PPO_LANES = 16
_N_IMAGES = {96: 256, 512: 16}
_CELLS = 6  # of the compact observation, a side


def _options(retina: str, side: int, seed: int) -> dict[str, Any]:
    return {"scenes": pictures(side, _N_IMAGES[side], seed), "retina": retina, "size": (side, side), "budget": EPISODE}


def _single(retina: str, side: int, belief: bool, setting: Setting) -> Iterator[Callable[[], int]]:
    env = gym.make("foveasim/Glimpse-v0", belief=belief, **_options(retina, side, setting.seed))
    env.reset(seed=setting.seed)
    rng = np.random.default_rng(setting.seed)
    actions = rng.uniform(-1, 1, (EPISODE, 2)).astype(np.float32)
    yield lambda: steps(env, actions, 4)
    env.close()


def _vector(retina: str, lanes: int, mode: str | None, more: dict[str, Any], setting: Setting) -> Iterator[Any]:
    """Whole episodes, the step in which lanes begin anew included; see ``gym.make_vec`` for the mode."""
    options = {**_options(retina, 96, setting.seed), **more}
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=lanes, vectorization_mode=mode, **options)
    envs.reset(seed=setting.seed)
    rng = np.random.default_rng(setting.seed)
    actions = rng.uniform(-1, 1, (EPISODE + 1, lanes, 2)).astype(np.float32)

    def work() -> int:
        for action in actions:
            envs.step(action)
        return EPISODE * lanes

    yield work
    envs.close()


def _predicting(network: str, setting: Setting) -> Iterator[Callable[[], int]]:
    from foveasim.agents.mim.network import make_network
    from foveasim.agents.mim.predictor import Predictor
    from foveasim.agents.mim.weights_file import shipped_networks

    predictor = Predictor(network if network in shipped_networks() else make_network(network))
    options = _options("pyramid", 96, setting.seed)
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=PREDICTING_LANES, belief=True, **options)
    envs.reset(seed=setting.seed)
    rng = np.random.default_rng(setting.seed)
    actions = rng.uniform(-1, 1, (PREDICTING_LANES, 2)).astype(np.float32)

    def work() -> int:
        predictor.imagine(envs.step(actions)[0])
        return PREDICTING_LANES

    yield work
    envs.close()


class _NoOpLanes(NoOpVectorEnv):
    """Nothing, as the adapter to stable-baselines3 wants it; its episodes never end."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  # Gymnasium's own form


class _Compact(VectorWrapper):  # not generic before gymnasium 1.3
    """Shows a glimpse as the mean colours and acuities of a few cells, with the fixation and the time left."""

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(envs)
        self.single_observation_space = _compact_space()
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _compact(observation), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move every eye."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        if "final_obs" in info:
            finals = info["final_obs"].copy()
            for lane in np.flatnonzero(info["_final_obs"]):
                finals[lane] = _compact({key: value[None] for key, value in finals[lane].items()})[0]
            info = {**info, "final_obs": finals}
        return _compact(observation), reward, terminated, truncated, info


def _compact(observation: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return (B, 4 cells² + 3) float32 in [-1, 1]."""
    made = np.empty((len(observation["time"]), 4 * _CELLS**2 + 3), np.float32)
    made[:, -3:-1], made[:, -1:] = observation["fixation"], observation["time"]
    start, cells = 0, (_CELLS, _CELLS)
    for key, channels in (("glimpse", 3), ("acuity", 1)):
        end = start + channels * _CELLS**2
        for row, image in zip(made, observation[key], strict=True):
            row[start:end] = cv2.resize(image, cells, interpolation=cv2.INTER_AREA).ravel()
        start = end
    made[:, :-3] /= 255
    return made


def _compact_space() -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, (4 * _CELLS**2 + 3,), np.float32)


def _require_sb3() -> None:
    if find_spec("stable_baselines3") is None:
        raise SkippedError("needs stable-baselines3: pip install 'foveasim[rl]'")


def _lanes(retina: str | None, lanes: int, compact: bool, seed: int) -> VectorEnv[Any, Any, Any]:
    """Return lanes that stable-baselines3 can learn on; with no retina they do nothing."""
    observed, action_space = glimpse_spaces(96)
    if retina is None:
        return _NoOpLanes(lanes, _compact_space() if compact else observed, action_space)
    envs: VectorEnv[Any, Any, Any] = gym.make_vec(
        "foveasim/Glimpse-v0", num_envs=lanes, autoreset_mode="SameStep", **_options(retina, 96, seed)
    )
    return _Compact(envs) if compact else envs


def _sb3(retina: str | None, setting: Setting) -> Iterator[Callable[[], int]]:
    """Whole episodes behind the adapter to stable-baselines3, resets included."""
    _require_sb3()
    from foveasim.agents.rl.vec_env import GlimpseVecEnv

    envs = GlimpseVecEnv(_lanes(retina, SB3_LANES, False, setting.seed))
    envs.seed(setting.seed)
    envs.reset()
    rng = np.random.default_rng(setting.seed)
    actions = rng.uniform(-1, 1, (EPISODE, SB3_LANES, 2)).astype(np.float32)

    def work() -> int:
        for action in actions:
            envs.step(action)
        return EPISODE * SB3_LANES

    yield work
    envs.close()


def _ppo(compact: bool, real: bool, setting: Setting) -> Iterator[Callable[[], int]]:
    """Frames in which PPO plays and learns: its own defaults but for shorter rollouts, on the CPU."""
    _require_sb3()
    from stable_baselines3 import PPO

    from foveasim.agents.rl.vec_env import GlimpseVecEnv

    envs = GlimpseVecEnv(_lanes("disc" if real else None, PPO_LANES, compact, setting.seed))
    policy = "MlpPolicy" if compact else "MultiInputPolicy"
    model = PPO(policy, envs, n_steps=EPISODE, device="cpu", seed=setting.seed)

    def work() -> int:
        model.learn(PPO_LANES * EPISODE, reset_num_timesteps=False)
        return PPO_LANES * EPISODE

    yield work
    envs.close()


def env_cases() -> list[Case]:
    """Return the envs, single, vector and synchronous, with prediction, and under PPO."""
    cases = []
    for retina in RETINAS:
        for side, belief in ((96, False), (96, True), (512, False)):
            about = f"one eye through gym.make, {EPISODE}-step episodes, resets included{', belief on' * belief}"
            name = f"env/single/{retina}/{side}x{side}{'/belief' * belief}"
            work = functools.partial(_single, retina, side, belief)
            cases.append(rate_case(name, about, "steps/s", work, copy_name(side)))
    for retina in RETINAS:
        cases += [_vector_case(f"env/vector/{retina}/{lanes}", retina, lanes) for lanes in VECTOR_LANES]
        for ending, options in (("belief", {"belief": True}), ("torch", {"output": "torch"})):
            cases.append(_vector_case(f"env/vector/{retina}/256/{ending}", retina, 256, **options))
        name, about = f"env/sync/{retina}/{SYNC_LANES}", f"Gymnasium's SyncVectorEnv of {SYNC_LANES} single envs"
        play = functools.partial(_vector, retina, SYNC_LANES, "sync", {})
        cases.append(rate_case(name, about, "steps/s", play, f"env/vector/{retina}/{SYNC_LANES}"))
    about = f"{SB3_LANES} lanes behind the adapter to stable-baselines3"
    nothing = f"env/sb3/nothing/{SB3_LANES}"
    cases.append(rate_case(nothing, f"{about} that do nothing", "steps/s", functools.partial(_sb3, None)))
    for retina in RETINAS:
        play = functools.partial(_sb3, retina)
        name, raw = f"env/sb3/{retina}/{SB3_LANES}", f"env/vector/{retina}/{SB3_LANES}"
        cases.append(rate_case(name, f"{about}, resets included", "steps/s", play, raw))
    for network in ("unet", "lean"):
        name, about = (
            f"env/prediction/{network}/{PREDICTING_LANES}",
            "vector env step + one batched prediction of belief",
        )
        predict = functools.partial(_predicting, network)
        cases.append(rate_case(name, about, "steps/s", predict, f"network/{network}/predict/64"))
    for compact, seen in ((False, "pixels"), (True, "compact")):
        about = f"stable-baselines3 PPO, playing and learning, {PPO_LANES} lanes"
        play = functools.partial(_ppo, compact, False)
        cases.append(rate_case(f"ppo/{seen}/nothing", f"{about} that do nothing", "frames/s", play))
        play = functools.partial(_ppo, compact, True)
        cases.append(rate_case(f"ppo/{seen}/disc", about, "frames/s", play, f"ppo/{seen}/nothing"))
    return cases


def _vector_case(name: str, retina: str, lanes: int, **options: Any) -> Case:
    extra = f", {', '.join(f'{key} {value}' for key, value in options.items())}" if options else ""
    work = functools.partial(_vector, retina, lanes, None, options)
    return rate_case(name, f"{lanes} lanes through gym.make_vec{extra}", "steps/s", work, copy_name(96))
