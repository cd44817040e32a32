"""Many eyes at once: a native vector env, a scripted agent, and how much each of them sees.

python examples/many_eyes.py
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import foveasim  # noqa: F401  # registers the ids
from foveasim.agents import agent_needs, make_agent

LANES, STEPS = 64, 8

for name in ("centre", "random", "walk", "raster", "spiral"):
    agent = make_agent(name, seed=0)
    belief = "belief" in agent_needs(agent)
    env = gym.make_vec("foveasim/Glimpse-v0", num_envs=LANES, retina="disc", budget=STEPS, belief=belief)
    observation, _ = env.reset(seed=0)
    agent.reset(np.ones(LANES, bool))
    for _ in range(STEPS):
        observation, reward, terminated, truncated, info = env.step(agent.act(observation))
    print(f"{name:8} has seen {info['coverage'].mean():.0%} of its scenes after {STEPS} saccades")
