"""How many steps a second the envs make here, on one thread: best of several rounds, resets included.

python examples/steps_per_second.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gymnasium as gym
import torch

import foveasim  # noqa: F401  # registers the ids

EPISODE, LANES, ROUNDS = 16, 256, 12


def best(work: Callable[[], int]) -> float:
    """Return steps a second of the fastest round, after one to warm up."""
    work()
    rates = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        steps = work()
        rates.append(steps / (time.perf_counter() - start))
    return max(rates)


def single(retina: str) -> float:
    """One eye through gym.make."""
    env = gym.make("foveasim/Glimpse-v0", retina=retina, budget=EPISODE)
    env.reset(seed=0)
    action = env.action_space.sample()

    def work() -> int:
        for _ in range(40):
            env.reset()
            for _ in range(EPISODE):
                env.step(action)
        return 40 * EPISODE

    return best(work)


def many(retina: str) -> float:
    """Many eyes through gym.make_vec."""
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=LANES, retina=retina, budget=EPISODE)
    envs.reset(seed=0)
    actions = envs.action_space.sample()

    def work() -> int:
        for _ in range(EPISODE + 1):
            envs.step(actions)
        return EPISODE * LANES

    return best(work)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{'96 x 96':10} {'one eye':>12} {f'{LANES} eyes':>12}   steps/s")
    for retina in ("pyramid", "disc"):
        print(f"{retina:10} {single(retina):12,.0f} {many(retina):12,.0f}")
