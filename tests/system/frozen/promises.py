"""What foveasim promises in public: ids, spaces, keys, names, commands with their options, presets."""

from __future__ import annotations

import importlib
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np

from foveasim.agents.loading import AGENTS, agent_factory
from foveasim.agents.mim.network import NETWORKS
from foveasim.agents.mim.weights_file import load_network, shipped_networks
from foveasim.agents.readout.command import FEATURES, PROBES
from foveasim.cli.commands import COMMANDS, GROUPS
from foveasim.envs import FoveateObservation, FoveaVectorEnv
from foveasim.envs.rewards import REWARDS
from foveasim.experiments.compare.files import SCHEMA as COMPARE_SCHEMA
from foveasim.experiments.humans.files import SCHEMA as HUMANS_SCHEMA
from foveasim.eye.retina import RETINAS
from foveasim.rng import Stream
from foveasim.scenes.source import SCENES
from frozen.digest import defaults, json_digest
from frozen.episodes import ACTIONS, Pixels

__all__ = ["commands", "entry_points", "env_ids", "infos", "names", "options", "presets", "spaces"]


def env_ids() -> dict[str, Any]:
    """Return what is registered with Gymnasium."""
    found = {}
    for name, spec in sorted(gym.registry.items()):
        if name.startswith("foveasim/"):
            found[name] = {
                "vector": spec.vector_entry_point is not None,
                "kwargs": dict(spec.kwargs),
                "max_episode_steps": spec.max_episode_steps,
            }
    return found


def spaces() -> dict[str, Any]:
    """Return the spaces of envs, by option."""
    chosen: dict[str, dict[str, Any]] = {
        "plain": {},
        "belief": {"belief": True},
        "privileged": {"privileged": True},
        "patch, window": {"patch": True, "retina": "window"},
        "patch, multiscale": {"patch": True, "retina": "multiscale"},
        "patch, log_polar": {"patch": True, "retina": "log_polar"},
        "size": {"size": (40, 56)},
    }
    found: dict[str, Any] = {"observation": {}, "action": {}, "tasks": {}, "batch": {}, "metadata": {}}
    for label, more in chosen.items():
        env = gym.make("foveasim/Glimpse-v0", scenes="uniform", **more)
        found["observation"][label] = {key: repr(one) for key, one in env.observation_space.items()}
    for label, more in ACTIONS.items():
        env = FoveaVectorEnv(2, scenes="uniform", size=(32, 32), **more)
        found["action"][label] = f"{env.single_action_space!r} {env.action_space!r}"
    for task in ("Search", "Classify"):
        env = gym.make_vec(f"foveasim/{task}-v0", num_envs=2)
        found["tasks"][task] = {key: repr(one) for key, one in env.single_observation_space.items()}
        found["tasks"][task]["(actions)"] = repr(env.single_action_space)
        found["metadata"][task] = {key: str(value) for key, value in env.metadata.items()}
    many = gym.make_vec("foveasim/Glimpse-v0", num_envs=2, scenes="uniform")
    found["batch"] = {key: repr(one) for key, one in many.observation_space.items()}
    found["metadata"]["Glimpse"] = {key: str(value) for key, value in many.metadata.items()}
    alone = gym.make("foveasim/Glimpse-v0", scenes="uniform")
    found["metadata"]["single"] = {key: str(value) for key, value in alone.unwrapped.metadata.items()}
    return found


def _kinds(info: dict[str, Any]) -> dict[str, str]:
    """Return the keys of an info in their order, with type, dtype and shape."""
    return {
        key: f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        for key, value in info.items()
    }


def infos() -> dict[str, Any]:
    """Return the keys of infos and observations, in their order."""
    found: dict[str, Any] = {}
    for task in ("Glimpse", "Search", "Classify"):
        env = gym.make(f"foveasim/{task}-v0", budget=1)
        observation, info = env.reset(seed=0)
        found[f"{task}, observation"] = {key: f"{one.dtype} {one.shape}" for key, one in observation.items()}
        found[f"{task}, reset"] = _kinds(info)
        *_, info = env.step(np.full(env.action_space.shape, -0.5, np.float32))
        found[f"{task}, step"] = {**_kinds(info), "reward_terms": list(info["reward_terms"])}
        many = gym.make_vec(f"foveasim/{task}-v0", num_envs=2, budget=1, autoreset_mode="SameStep")
        found[f"{task}, reset of many"] = _kinds(many.reset(seed=0)[1])
        *_, info = many.step(np.full(many.action_space.shape, -0.5, np.float32))
        found[f"{task}, end of many"] = _kinds(info)
        found[f"{task}, final_info"] = _kinds(info["final_info"])
    eye = FoveateObservation(Pixels())
    found["wrapper, reset"] = _kinds(eye.reset(seed=0)[1])
    found["wrapper, step"] = _kinds(eye.step({"motor": 1, "gaze": np.zeros(2, np.float32)})[4])
    return found


def names() -> dict[str, Any]:
    """Return every name that a user may give, in order."""
    registries = {"agents": AGENTS, "retinas": RETINAS, "scenes": SCENES, "rewards": REWARDS, "networks": NETWORKS}
    found: dict[str, Any] = {label: list(registry) for label, registry in registries.items()}
    found["probes"], found["features"], found["shipped networks"] = list(PROBES), list(FEATURES), shipped_networks()
    found["commands"] = list(COMMANDS)
    found["groups of commands"] = {group: list(several) for group, several in GROUPS.items()}
    found["streams"] = {stream.name: int(stream) for stream in Stream}
    found["schemas"] = {"compare": COMPARE_SCHEMA, "humans": HUMANS_SCHEMA}
    return found


def entry_points() -> dict[str, Any]:
    """Return the groups in which other packages announce what is theirs."""
    return {"agents": AGENTS.group, "retinas": RETINAS.group, "rewards": REWARDS.group, "scenes": SCENES.group}


def options() -> dict[str, Any]:
    """Return the arguments of everything that has a name, and their defaults."""
    found: dict[str, Any] = {"envs": {}, "networks": {}}
    for label, registry in (("retinas", RETINAS), ("rewards", REWARDS), ("scenes", SCENES)):
        found[label] = {name: defaults(registry.factory(name)) for name in registry}
    found["agents"] = {name: defaults(agent_factory(name)) for name in AGENTS}
    for name in NETWORKS:
        made: Any = NETWORKS.factory(name)
        found["networks"][name] = _fields(made.config_type)
    for name in shipped_networks():
        found["networks"][f"shipped {name}"] = json_digest(load_network(name).config_dict())
    for name, spec in sorted(gym.registry.items()):
        if name.startswith("foveasim/"):
            found["envs"][name] = defaults(gym.envs.registration.load_env_creator(str(spec.entry_point)))
            vector = gym.envs.registration.load_env_creator(str(spec.vector_entry_point))
            found["envs"][f"{name}, many"] = defaults(vector)
    return found


def _fields(config: Any) -> dict[str, str]:
    found = {}
    for one in fields(config):
        kind = one.type if isinstance(one.type, str) else getattr(one.type, "__name__", str(one.type))
        default = one.default if one.default_factory is MISSING else one.default_factory()
        value = default.value if isinstance(default, Enum) else default
        found[one.name] = f"{kind} = {'required' if value is MISSING else repr(value)}"
    return found


def commands() -> dict[str, Any]:
    """Return every command with its options, their types and defaults, and its examples."""
    found = {}
    for name, command in COMMANDS.items():
        config = getattr(importlib.import_module(command.module), command.config)
        found[name] = {
            "positionals": list(command.positionals),
            "presets": bool(command.presets),
            "summary": command.summary,
            "options": _fields(config),
        }
    return found


def presets() -> dict[str, Any]:
    """Return every preset with a digest of what it sets."""
    found: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        if command.presets:
            there = importlib.import_module(command.presets).PRESETS
            found[name] = {
                preset: f"{json_digest(there.values(preset))}: {_set(there.values(preset))}" for preset in there.names()
            }
    return found


def _set(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())
