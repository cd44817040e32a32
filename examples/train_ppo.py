"""Train a gaze policy with stable-baselines3, as it is, and watch what it has learned.

python examples/train_ppo.py --steps 20000
"""

from __future__ import annotations

import argparse

import gymnasium as gym
from stable_baselines3 import PPO

import foveasim  # noqa: F401  # registers the ids

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    env = gym.make("foveasim/Glimpse-v0", retina="disc", size=(48, 48), belief=True)
    model = PPO("MultiInputPolicy", env, n_steps=512, seed=options.seed, verbose=1, device="cpu")
    model.learn(options.steps, progress_bar=False)

    observation, _ = env.reset(seed=1)
    done, total = False, 0.0
    while not done:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        done, total = terminated or truncated, total + float(reward)
        print(f"looked at {info['fixation_px']} px, seen so far {info['coverage']:.0%}")
    print(f"return {total:.3f}")
