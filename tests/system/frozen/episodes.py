"""Short episodes of every env, to the bit; and what a seed stands for."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from foveasim.envs import FoveaEnv, FoveateObservation, FoveateVectorObservation, FoveaVectorEnv
from foveasim.envs.rewards import REWARDS
from foveasim.eye.retina import make_retina
from foveasim.eye.saccade import Saccades
from foveasim.rng import Key, Stream
from foveasim.scenes.search import SEARCH_KINDS, SearchScenes
from foveasim.scenes.source import SceneSource, open_scenes
from frozen.digest import close, digest, here, numbers

__all__ = [
    "PAINTED",
    "SEARCH_KINDS",
    "TINY",
    "Pixels",
    "classify",
    "options",
    "play",
    "retina",
    "rewards",
    "search",
    "seeds",
    "wrappers",
]

LANES, STEPS, SEED = 8, 20, 11
TINY: dict[str, Any] = {"size": (48, 48), "budget": 5}
MODES = list(AutoresetMode)
SOURCES = ("noise", "shapes", "photos")
PAINTED = ("noise", "shapes", "gratings", "uniform", "checkerboard", "search", "signs")
GRID: dict[str, Any] = {"action_mode": "grid", "grid": (4, 5)}
ACTIONS: dict[str, dict[str, Any]] = {
    "absolute": {},
    "absolute stop": {"stop": True},
    "absolute zoom": {"zoom": True},
    "absolute zoom stop": {"zoom": True, "stop": True},
    "relative": {"action_mode": "relative"},
    "relative stop": {"action_mode": "relative", "stop": True},
    "relative zoom": {"action_mode": "relative", "zoom": True},
    "grid": GRID,
    "grid stop": {**GRID, "stop": True},
    "grid zoom": {**GRID, "zoom": True},
    "grid zoom stop": {**GRID, "zoom": True, "stop": True},
}


@cache
def scenes(name: str) -> SceneSource:
    """Return a source that all episodes share, so that its pictures are made once."""
    return open_scenes(name) if name == "photos" else open_scenes(name, size=(64, 64), count=30, seed=0)


def actions(space: gym.Space[Any], draws: np.random.Generator, lanes: int, stop: bool) -> Any:
    """Draw actions of B lanes by NumPy alone; of those that can stop, one in six does."""
    if isinstance(space, gym.spaces.Dict):
        return {key: actions(one, draws, lanes, stop) for key, one in space.spaces.items()}
    if isinstance(space, gym.spaces.Discrete):
        return draws.integers(0, int(space.n), lanes)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return draws.integers(0, space.nvec, (lanes, len(space.nvec)))
    assert isinstance(space, gym.spaces.Box)
    drawn = draws.uniform(-1, 1, (lanes, *space.shape)).astype(np.float32)
    if stop:
        drawn[:, -1] = np.where(draws.uniform(size=lanes) < 1 / 6, 0.5, -0.5)
    return drawn


def play(env: Any, *, steps: int = STEPS, stop: bool = False, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Play a vector env with drawn actions.

    Returns:
        Digests of all observations, rewards, ends and infos; and the rewards and how many episodes ended.
    """
    draws, mode = np.random.default_rng(SEED), env.metadata["autoreset_mode"]
    observation, info = env.reset(seed=SEED)
    parts: dict[str, list[Any]] = {"observations": [observation], "rewards": [], "ends": [], "infos": [info]}
    ended, total = 0, 0.0
    for _ in range(steps):
        observation, reward, over, cut, info = env.step(actions(env.single_action_space, draws, env.num_envs, stop))
        parts["observations"].append({key: value for key, value in observation.items() if key not in without})
        parts["rewards"].append(reward)
        parts["ends"].append((over, cut))
        parts["infos"].append(info)
        done = np.asarray(over) | np.asarray(cut)
        ended, total = ended + int(done.sum()), total + float(reward.sum())
        if mode == AutoresetMode.DISABLED and done.any():
            observation, info = env.reset(options={"reset_mask": done})
            parts["observations"].append({key: value for key, value in observation.items() if key not in without})
            parts["infos"].append(info)
        # Arrays may be filled anew by the next step: what is kept is a digest of each.
        parts = {
            name: [value if isinstance(value, str) else digest(value) for value in all_] for name, all_ in parts.items()
        }
    env.close()
    return {
        "exact": " ".join(f"{name} {digest(all_)}" for name, all_ in parts.items()),
        "episodes": ended,
        "reward": total,
    }


def _line(found: dict[str, Any]) -> str:
    return f"{found['exact']} episodes {found['episodes']}"


def retina(name: str) -> dict[str, Any]:
    """Return episodes with a retina: every action mode, every autoreset mode, with and without belief, and options."""
    eye, found, turn = make_retina(name), dict[str, Any](), 0
    for label, chosen in ACTIONS.items():
        if chosen.get("zoom") and not eye.zoomable:
            continue
        for mode in MODES:
            belief, source, turn = turn % 2 == 0, SOURCES[turn % 3], turn + 1
            env = FoveaVectorEnv(
                LANES, retina=name, scenes=scenes(source), belief=belief, autoreset_mode=mode, **TINY, **chosen
            )
            line = _line(play(env, stop=bool(chosen.get("stop")) and "grid" not in label))
            found[f"{label}, {mode.value}, {source}{', belief' if belief else ''}"] = line
    for label, chosen in options(name).items():
        found[label] = _line(play(FoveaVectorEnv(LANES, retina=name, **{"scenes": scenes("shapes"), **TINY, **chosen})))
    found["single"] = single(FoveaEnv(retina=name, scenes=scenes("shapes"), belief=True, **TINY))
    return found


def options(name: str) -> dict[str, dict[str, Any]]:
    """Return other options of the env that are tried with every retina."""
    found: dict[str, dict[str, Any]] = {
        "forgetting": {"half_life_ms": 400.0, "belief": True},
        "saccades": {"saccades": Saccades(max_amplitude_deg=9.0, scatter=0.15)},
        "saccades, forgetting, SameStep": {
            "saccades": Saccades(max_amplitude_deg=9.0, scatter=0.15, dwell_ms=180.0),
            "half_life_ms": 900.0,
            "autoreset_mode": "SameStep",
            "belief": True,
            "privileged": True,
        },
        "random start": {"start": "random", "scenes": scenes("photos"), "privileged": True},
        "padded": {"fit": "pad", "scenes": scenes("photos"), "size": (40, 56)},
        "stretched": {"fit": "stretch", "scenes": scenes("photos"), "size": (40, 56)},
        "torch": {"output": "torch", "belief": True},
    }
    if name in ("window", "multiscale", "log_polar"):
        found["patch"] = {"patch": True}
        found["patch, zoom, belief, SameStep"] = {
            "patch": True,
            "zoom": True,
            "belief": True,
            "autoreset_mode": "SameStep",
        }
    return found


def single(env: gym.Env[Any, Any]) -> str:
    """Return the digest of three episodes of a single env."""
    draws, parts = np.random.default_rng(SEED), list[str]()
    for episode in range(3):
        observation, info = env.reset(seed=None if episode else SEED)
        parts.append(digest(observation, info))
        over = False
        while not over:
            action = draws.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            observation, reward, over, cut, info = env.step(action)
            parts.append(digest(observation, reward, over, cut, info))
    env.close()
    return digest(parts)


def rewards() -> dict[str, Any]:
    """Return episodes judged by every registered reward, and by options of them."""
    found = {}
    for name in REWARDS:
        for mode in MODES:
            played = play(FoveaVectorEnv(LANES, scenes=scenes("shapes"), reward=name, autoreset_mode=mode, **TINY))
            found[f"{name}, {mode.value}"] = {"exact": _line(played), "sum": close([played["reward"]], 1e-3)}
    dear = FoveaVectorEnv(
        LANES, scenes=scenes("shapes"), reward="coverage", reward_options={"cost_per_deg": 0.01}, **TINY
    )
    found["coverage, dear"] = {"exact": _line(played := play(dear)), "sum": close([played["reward"]], 1e-3)}
    return found


def search() -> dict[str, Any]:
    """Return episodes of visual search, of all kinds."""
    found = {}
    for place, kind in enumerate(SEARCH_KINDS):
        mode, stop = MODES[place % 3], place % 2 == 1
        more = {"set_sizes": (4, 8), "count": 12, "autoreset_mode": mode, "stop": stop, "budget": 6, "belief": True}
        env = gym.make_vec("foveasim/Search-v0", num_envs=4, kinds=kind, **more)
        found[f"{kind}, {mode.value}{', stop' if stop else ''}"] = _line(play(env, stop=stop, steps=14))
    source = SearchScenes(kinds=("colour", "shape"), size=(64, 64), set_sizes=(3, 5), count=9, seed=4, split="test")
    env = gym.make_vec("foveasim/Search-v0", num_envs=4, scenes=source, size=(64, 64), cost_per_s=0.3, retina="disc")
    found["a source of one's own"] = _line(play(env, steps=20))
    found["single"] = single(gym.make("foveasim/Search-v0", kinds="letters", count=6, budget=4).unwrapped)
    return found


def classify() -> dict[str, Any]:
    """Return episodes of classification by the readout without a network."""
    found = {}
    for mode in MODES:
        env = gym.make_vec("foveasim/Classify-v0", num_envs=4, budget=5, size=(48, 48), autoreset_mode=mode)
        played = play(env, stop=True, steps=12)
        found[mode.value] = {
            "episodes": played["episodes"],
            "exact": here(_line(played)),
            "sum": close([played["reward"]], 1e-2),
        }
    env = gym.make("foveasim/Classify-v0", budget=5, size=(48, 48), split="test", cost_per_glimpse=0.2, lapse=0.1)
    observation, info = env.reset(seed=SEED)
    found["posterior"] = close(observation["posterior"], 1e-4)
    found["keys"] = {"observation": list(observation), "info": list(info)}
    found["single"] = here(single(env.unwrapped))
    return found


class Pixels(gym.Env[Any, Any]):
    """A game of moving stripes, 40 x 48; the action shifts them, and seven steps are an episode."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (40, 48, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self._at, self._count = 0, 0

    def _frame(self) -> np.ndarray[Any, Any]:
        rows, columns = np.mgrid[:40, :48]
        levels = (rows * 5 + columns * 3 + self._at * 17) % 256
        return np.stack((levels, 255 - levels, (levels * 7) % 256), 2).astype(np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._at, self._count = int(self.np_random.integers(100)), 0
        return self._frame(), {"at": self._at}

    def step(self, action: Any) -> Any:
        self._at, self._count = self._at + int(action) - 1, self._count + 1
        return self._frame(), float(action), self._count >= 7, False, {"at": self._at}


def wrappers() -> dict[str, Any]:
    """Return episodes of a game seen through eyes, alone and many at once."""
    found: dict[str, Any] = {}
    chosen: dict[str, dict[str, Any]] = {
        "pyramid": {},
        "disc, relative, belief": {"retina": "disc", "gaze": "relative", "belief": True},
        "log_polar, patch, flat": {"retina": "log_polar", "patch": True, "flat": True, "grid": (3, 4)},
        "pyramid, nothing forgotten, scatter": {
            "half_life_ms": None,
            "belief": True,
            "saccades": Saccades(8.0, 0.1),
            "step_ms": 50.0,
            "px_per_deg": 2.0,
        },
    }
    for label, more in chosen.items():
        env = FoveateObservation(Pixels(), **more)
        draws, parts = np.random.default_rng(SEED), [digest(*env.reset(seed=SEED))]
        for step in range(16):
            if step % 8 == 7:
                parts.append(digest(*env.reset()))
            drawn = actions(env.action_space, draws, 1, False)
            drawn = {key: one[0] for key, one in drawn.items()} if isinstance(drawn, dict) else drawn[0]
            parts.append(digest(*env.step(drawn)))
        found[label] = {"space": repr(env.observation_space), "actions": repr(env.action_space), "exact": digest(parts)}
        for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            envs = SyncVectorEnv([Pixels, Pixels, Pixels], autoreset_mode=mode)
            found[f"{label}, {mode.value}"] = _line(play(FoveateVectorObservation(envs, **more), steps=12))
    return found


def seeds() -> dict[str, Any]:
    """Return what seeds stand for: streams of numbers, first scenes, their order, starts, pictures."""
    found: dict[str, Any] = {"streams": {}, "normal": {}, "first scenes": {}, "scenes": {}, "starts": {}}
    for stream in Stream:
        key = Key.of(7, 3, step=2)
        found["streams"][f"{stream.name} = {int(stream)}"] = digest(key.uniform(stream, 5))
        found["normal"][stream.name] = close(key.normal(stream, 3), 1e-5)
    for source in SOURCES:
        env = FoveaVectorEnv(
            4, scenes=scenes(source), budget=1, size=(48, 48), autoreset_mode="SameStep", start="random"
        )
        _, info = env.reset(seed=[0, 1, 2, 1_000_003])
        order, starts = [list(info["scene"])], [info["fixation_px"]]
        for _ in range(5):
            *_, info = env.step(np.zeros((4, 2), np.float32))
            order.append(list(info["scene"]))
            starts.append(info["fixation_px"])
        found["first scenes"][source] = {
            f"lane {i}": ", ".join(map(str, lane)) for i, lane in enumerate(zip(*order, strict=True))
        }
        found["starts"][source] = close(np.stack(starts), 1e-3)
    for name in PAINTED:
        source_ = open_scenes(name, size=(64, 72), count=6, seed=5)
        pictures = [source_.picture(index) for index in range(3)]
        found["scenes"][name] = {
            "exact": digest([np.asarray(one.image) for one in pictures]),
            "about": [[one.name, one.label, round(float(one.px_per_deg), 5)] for one in pictures],
            "numbers": numbers(np.stack([np.asarray(one.image) for one in pictures]), 1.0),
        }
    photos = open_scenes("photos")
    found["photos"] = [photos.picture(index).name for index in range(len(photos))]
    moving = open_scenes("gratings", size=(40, 48), seed=5)
    if moving.moving:
        found["gratings later"] = digest(np.asarray(moving.picture(1, 300.0).image))
    return found
