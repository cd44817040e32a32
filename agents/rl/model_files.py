"""Models that stable-baselines3 saved, opened as agents: ``foveasim watch --agent model.zip --trust``.

Such a zip holds pickled objects, so that opening one can run any code. This is the only place that does, and only for
a person who typed ``--trust`` (:mod:`foveasim.trust`). Which algorithm saved it is told by plain JSON inside.
"""

from __future__ import annotations

import functools
import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foveasim import trust
from foveasim.agents.interface import Agent
from foveasim.agents.rl.adapter import PredictAgent
from foveasim.errors import AgentError, MissingDependencyError
from foveasim.registry import describe

__all__ = ["algorithm_of", "model_factory"]

_MOST_JSON_BYTES = 1 << 26  # a model's settings take some 50 kB; a zip of a few bytes can claim to hold gigabytes

_BY_POLICY = {
    "sb3_contrib.common.recurrent.": "sb3_contrib:RecurrentPPO",
    "sb3_contrib.common.maskable.": "sb3_contrib:MaskablePPO",
    "sb3_contrib.crossq.": "sb3_contrib:CrossQ",
    "sb3_contrib.qrdqn.": "sb3_contrib:QRDQN",
    "sb3_contrib.tqc.": "sb3_contrib:TQC",
    "stable_baselines3.dqn.": "stable_baselines3:DQN",
    "stable_baselines3.sac.": "stable_baselines3:SAC",
    "stable_baselines3.td3.": "stable_baselines3:TD3",
}
"""The algorithm by the module of its policy class."""

_BY_SETTING = {
    "cg_max_steps": "sb3_contrib:TRPO",
    "clip_range": "stable_baselines3:PPO",
    "gae_lambda": "stable_baselines3:A2C",
    "target_entropy": "stable_baselines3:SAC",
    "target_policy_noise": "stable_baselines3:TD3",
    "exploration_fraction": "stable_baselines3:DQN",
}
"""Else, for policies of one's own, by a setting that no algorithm after it in this order has."""


def algorithm_of(path: str) -> str:
    """Return the algorithm that saved a model, ``package:Class``, from the zip's JSON alone: nothing is unpickled.

    Raises:
        AgentError: No such file, no zip, or none of stable-baselines3; or an algorithm that is not known here.
    """
    try:
        with zipfile.ZipFile(Path(path).expanduser()) as archive:
            size = archive.getinfo("data").file_size
            if size > _MOST_JSON_BYTES:
                raise ValueError(f"its settings claim {size:,} bytes")
            settings = json.loads(archive.read("data"))
        module = str(settings["policy_class"]["__module__"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError, NotImplementedError, zipfile.BadZipFile) as error:
        raise AgentError(
            f"{path!r} must be a zip that stable-baselines3 saved; it is none ({error}). Save the model again by "
            "model.save(path)."
        ) from error
    for prefix, name in _BY_POLICY.items():
        if f"{module}.".startswith(prefix):
            return name
    for setting, name in _BY_SETTING.items():
        if setting in settings:
            return name
    raise AgentError(
        f"{path!r} must be of an algorithm of stable-baselines3 or sb3-contrib; its policy is of {module!r}. Load it "
        "in Python and pass the model to make_agent."
    )


def model_factory(path: str) -> Callable[..., Agent]:
    """Return what builds the agent of a saved model, read once: its arguments are those of ``PredictAgent``.

    Raises:
        UntrustedError: The person did not type ``--trust``.
        AgentError: The file is no such model, or cannot be loaded here.
        MissingDependencyError: Its package is not installed.
    """
    trust.check_pickle(path)
    package, _, name = algorithm_of(path).partition(":")
    try:
        algorithm: Any = getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path!r} needs {package.replace('_', '-')}, which is not installed. Install it: pip install foveasim[rl]"
        ) from error
    try:
        model = algorithm.load(Path(path).expanduser(), device="cpu")
    except Exception as error:  # a pickle raises whatever it likes
        raise AgentError(
            f"{path!r} cannot be loaded as {name}: {describe(error)}. Load it where it was saved, by the same versions "
            "of stable-baselines3, torch and numpy."
        ) from error
    return functools.partial(PredictAgent, model)
