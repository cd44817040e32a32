"""The floor under every figure, and the retinas alone: what is to be measured of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from foveasim.bench.timing import EPISODE, Case, Setting, pictures, rate_case
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import RETINAS, Retina, make_retina
from foveasim.rng import Key

__all__ = ["NoOpEnv", "NoOpVectorEnv", "copy_name", "eye_cases", "glimpse_spaces", "make_no_op_env", "steps"]

SIDES = (96, 512)
LANES = (1, 64)
VECTOR_LANES = 256
_N_IMAGES = {96: 256, 512: 16}
"""Images by their side, px: enough that the processor's cache does not hold them all."""


def copy_name(side: int) -> str:
    """Return the row of copying a glimpse of that side."""
    return f"floor/copy/{side}x{side}"


def glimpse_spaces(side: int) -> tuple[gym.spaces.Dict, gym.spaces.Box]:
    """Return the observation and the action space of ``foveasim/Glimpse-v0`` at a side, px."""
    observation = gym.spaces.Dict(
        {
            "glimpse": gym.spaces.Box(0, 255, (side, side, 3), np.uint8),
            "acuity": gym.spaces.Box(0, 255, (side, side, 1), np.uint8),
            "fixation": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
            "time": gym.spaces.Box(0.0, 1.0, (1,), np.float32),
        }
    )
    return observation, gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


def _copy_observation(observation: Any) -> Any:
    """Return a copy of an observation, a dict of arrays or an array: an env must not hand out the same one twice."""
    return (
        {key: value.copy() for key, value in observation.items()}
        if isinstance(observation, dict)
        else (observation.copy())
    )


class NoOpEnv(gym.Env[Any, Any]):
    """An env that does nothing: what Gymnasium itself costs, and an observation copied for whoever asked.

    Args:
        observation_space: Of the one observation that it always returns.
        action_space: Of the actions that it ignores.
    """

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        observation_space.seed(0)
        self._observation, self._step = observation_space.sample(), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._step = 0
        return _copy_observation(self._observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count a step; episodes have :data:`EPISODE`."""
        self._step += 1
        return _copy_observation(self._observation), 0.0, self._step >= EPISODE, False, {}


class NoOpVectorEnv(VectorEnv[Any, Any, Any]):
    """A vector env that does nothing but hand out a copy of its observation.

    Args:
        num_envs: B.
        observation_space: Of one lane.
        action_space: Of one lane.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, num_envs: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.observation_space.seed(0)
        self._observation = self.observation_space.sample()
        self._reward, self._never = np.zeros(num_envs), np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin."""
        return _copy_observation(self._observation), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return what it always returns, copied."""
        return _copy_observation(self._observation), self._reward, self._never, self._never, {}


def make_no_op_env(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> gym.Env[Any, Any]:
    """Return a do-nothing env as ``gym.make`` wraps it."""
    make: Any = functools.partial(NoOpEnv, observation_space, action_space)
    return gym.make(EnvSpec("foveasim-bench/Nothing-v0", entry_point=make))


def steps(env: gym.Env[Any, Any], actions: NDArray[Any], episodes: int) -> int:
    """Play whole episodes of :data:`EPISODE` steps, resets included; return the number of steps.

    Args:
        env: Whose episodes are so long.
        actions: (N, …), N at least :data:`EPISODE`.
        episodes: How many.
    """
    for _ in range(episodes):
        env.reset()
        for action in actions[:EPISODE]:
            env.step(action)
    return episodes * EPISODE


def _copy(side: int, setting: Setting) -> Iterator[Callable[[], int]]:
    images = pictures(side, _N_IMAGES[side], setting.seed)
    rows = [np.ascontiguousarray(image) for image in images]
    out = np.empty_like(rows[0])

    def work() -> int:
        for row in rows:
            np.copyto(out, row)
        return len(rows)

    yield work


def _nothing_single(setting: Setting) -> Iterator[Callable[[], int]]:
    env = make_no_op_env(*glimpse_spaces(96))
    env.action_space.seed(setting.seed)
    actions = np.stack([env.action_space.sample() for _ in range(EPISODE)])
    yield lambda: steps(env, actions, 8)
    env.close()


def _nothing_vector(setting: Setting) -> Iterator[Callable[[], int]]:
    make: Any = functools.partial(NoOpVectorEnv, observation_space=glimpse_spaces(96)[0])
    spec = EnvSpec("foveasim-bench/NothingVector-v0", vector_entry_point=make)
    envs = gym.make_vec(spec, num_envs=VECTOR_LANES, action_space=glimpse_spaces(96)[1])
    envs.reset(seed=setting.seed)
    actions = envs.action_space.sample()

    def work() -> int:
        envs.step(actions)
        return VECTOR_LANES

    yield work
    envs.close()


def _sense(name: str, side: int, lanes: int, setting: Setting) -> Iterator[Callable[[], int]]:
    """Glimpses as ``Simulator.sense`` takes them: by arrays where the retina can, each at another fixation."""
    retina: Retina = make_retina(name)
    images = pictures(side, _N_IMAGES[side], setting.seed)
    prepared = retina.prepare(as_scene(images[np.arange(lanes) % len(images)]))
    rng = np.random.default_rng(setting.seed)
    points = [rng.uniform(0, side, (lanes, 2)).astype(np.float32) for _ in range(max(2, 64 // lanes))]
    tensors = [torch.from_numpy(point) for point in points]
    key = Key.of(setting.seed, lanes)
    if retina.sense_arrays(prepared, points[0], key, None) is None:

        def work() -> int:
            for point in tensors:
                retina.sense(prepared, point, key)
            return lanes * len(tensors)
    else:

        def work() -> int:
            for point in points:
                retina.sense_arrays(prepared, point, key, None)
            return lanes * len(points)

    yield work


def _prepare(name: str, side: int, setting: Setting) -> Iterator[Callable[[], int]]:
    retina: Retina = make_retina(name)
    scenes = [as_scene(image[None].copy()) for image in pictures(side, 8, setting.seed)]

    def work() -> int:
        for scene in scenes:
            retina.prepare(scene)
        return len(scenes)

    yield work


def eye_cases() -> list[Case]:
    """Return the floor, and every registered retina: one glimpse, many, and a scene prepared for it."""
    cases = [
        rate_case(
            copy_name(side), f"copy a glimpse's {3 * side**2:,} bytes", "copies/s", functools.partial(_copy, side)
        )
        for side in SIDES
    ]
    cases += [
        rate_case(
            "floor/env",
            "a do-nothing env through gym.make, the same spaces, observations copied",
            "steps/s",
            _nothing_single,
        ),
        rate_case(
            f"floor/vector/{VECTOR_LANES}",
            f"a do-nothing vector env of {VECTOR_LANES} lanes, observations copied",
            "steps/s",
            _nothing_vector,
        ),
    ]
    for name in RETINAS:
        for side in SIDES:
            size = f"{side}x{side}"
            for lanes in LANES:
                about = "glimpses of one lane" if lanes == 1 else f"glimpses of {lanes} lanes at once"
                sense = functools.partial(_sense, name, side, lanes)
                cases.append(rate_case(f"retina/{name}/{size}/{lanes}", about, "glimpses/s", sense, copy_name(side)))
            ready = functools.partial(_prepare, name, side)
            cases.append(
                rate_case(f"prepare/{name}/{size}", "a new scene for the eye", "scenes/s", ready, copy_name(side))
            )
    return cases
