"""Train a gaze policy with stable-baselines3, as it is, and watch what it has learned: to look where it has not been.

python examples/train_ppo.py --steps 20000
foveasim watch --agent gaze.zip --trust --retina disc
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import FilterObservation
from stable_baselines3 import PPO

import foveasim  # noqa: F401  # registers the ids


def mean_return(env: gym.Env[Any, Any], choose: Callable[[Any], Any], episodes: int = 20) -> float:
    """Let somebody look at scenes that are the same for all, and return what an episode brings on average."""
    returns = []
    for seed in range(1000, 1000 + episodes):
        observation, _ = env.reset(seed=seed)
        done, total = False, 0.0
        while not done:
            observation, reward, terminated, truncated, _ = env.step(choose(observation))
            done, total = terminated or truncated, total + float(reward)
        returns.append(total)
    return float(np.mean(returns))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="gaze.zip")
    options = parser.parse_args()
    torch.set_num_threads(1)  # images of 48 x 48 are too small to be shared out

    eye = gym.make("foveasim/Glimpse-v0", retina="disc", size=(48, 48), belief=True, action_mode="grid", grid=(6, 6))
    # The reward is what is newly seen: for that, how sharply each place was seen so far says everything.
    env = FilterObservation(eye, ["belief_acuity", "time"])
    ppo: dict[str, Any] = {"n_steps": 256, "batch_size": 64, "n_epochs": 4, "learning_rate": 1e-3, "gamma": 0.5}
    model = PPO("MultiInputPolicy", env, seed=options.seed, verbose=1, device="cpu", ent_coef=0.001, **ppo)
    model.learn(options.steps, progress_bar=False)
    model.save(options.out)

    env.action_space.seed(options.seed)
    print(f"random gaze: return {mean_return(env, lambda _: env.action_space.sample()):.3f}")
    print(f"learned: return {mean_return(env, lambda seen: model.predict(seen, deterministic=True)[0]):.3f}")
    print(f"wrote {options.out}; foveasim watch --agent {options.out} --trust --retina disc")
