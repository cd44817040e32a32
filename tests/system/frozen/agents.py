"""What every registered agent does on fixed scenes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from foveasim.agents.builtin.human import Human
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.interface import agent_action_mode, agent_grid, agent_needs, agent_size
from foveasim.agents.loading import AGENTS, agent_factory, make_agent
from foveasim.agents.rollout import rollout
from foveasim.envs import FoveaVectorEnv
from frozen.digest import close, defaults, digest, here
from frozen.episodes import scenes
from frozen.paths import RECORDED

__all__ = ["agents", "names", "privileged"]

LANES, SEED = 3, 5
EXACT = ("centre", "raster", "spiral", "human", "human_replay", "random")
"""Agents whose fixations come of additions, multiplications and counted bits alone."""


def names() -> list[str]:
    """Return every registered agent."""
    return list(AGENTS)


def _arguments(name: str) -> dict[str, Any]:
    """Let the small recorded network predict for whoever takes one."""
    takes = defaults(agent_factory(name))
    return {"network": str(RECORDED / "networks" / "unet.safetensors")} if "network" in takes else {}


def agents(name: str) -> dict[str, Any]:
    """Return the fixations and returns of a short rollout, and what the agent declares."""
    agent = make_agent(name, seed=SEED, **_arguments(name))
    return _rolled(agent, name in EXACT)


def privileged() -> dict[str, Any]:
    """Return the same of the agents that may see the hidden scene."""
    chosen = [name for name in AGENTS if "privileged" in defaults(agent_factory(name))]
    return {name: _rolled(make_agent(name, seed=SEED, privileged=True, **_arguments(name)), False) for name in chosen}


def _rolled(agent: Any, exact: bool) -> dict[str, Any]:
    needs, size = agent_needs(agent), agent_size(agent) or (48, 64)
    found: dict[str, Any] = {
        "name": agent.name if isinstance(getattr(agent, "name", None), str) else "",
        "needs": list(needs),
        "action mode": agent_action_mode(agent),
        "grid": list(agent_grid(agent)),
    }
    common: dict[str, Any] = {"num_envs": LANES, "budget": 4, "autoreset_mode": "SameStep"}
    if "target" in needs:
        env = gym.make_vec("foveasim/Search-v0", kinds="conjunction", count=9, belief=True, **common)
    else:
        env = FoveaVectorEnv(
            scenes=scenes("shapes"),
            retina="disc",
            size=size,
            belief="belief" in needs,
            privileged="scene" in needs,
            action_mode=agent_action_mode(agent),
            grid=agent_grid(agent),
            **common,
        )
    played = rollout(agent, env, steps=6, seed=SEED)
    env.close()
    found["lanes"], found["length"] = played.lane.tolist(), played.length.tolist()
    found["fixations"] = close(played.fixation_norm, 1e-3)
    found["returns"] = close(played.returns, 1e-3)
    found["exact"] = digest(played.fixation_norm) if exact else here(played.fixation_norm, played.returns)
    if isinstance(agent, Human):
        agent.point(0.25, -0.5)
        found["pointed"] = agent.act({"fixation": np.zeros((2, 2), np.float32)}).tolist()
    if hasattr(agent, "imagine"):
        (observation,) = make_synthetic_observations(2, 1, size=(48, 64), needs=("belief", "scene", "target"))
        predicted = agent.imagine(observation)
        found["imagines"] = close(
            [predicted.image.mean(), predicted.image.std(), *predicted.image[0, ::20, 30, 1]], 1e-3
        )
        found["imagines exactly"] = here(predicted.image, predicted.std)
        found["is unsure"] = None if predicted.std is None else close([predicted.std.mean(), predicted.std.max()], 1e-3)
    assert np.isfinite(played.returns).all()
    return found
