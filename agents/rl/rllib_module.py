"""What Ray's processes build of a training: the policy's network as an ``RLModule``, and the eyes that it looks with.

Ray is no dependency of foveasim. It is imported by name, so that what is missing is said in one line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from foveasim.agents.gaze_policy.network import Actor, ActorConfig, Trunk
from foveasim.agents.mim.predictor import Foresight
from foveasim.agents.rl.course import make_lanes, read_training
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.agents.rl.train_config import TrainConfig
from foveasim.errors import MissingDependencyError

__all__ = ["GazeModule", "make_eyes", "ray_part"]


def ray_part(name: str) -> Any:
    """Import a module of Ray.

    Raises:
        MissingDependencyError: Ray is not installed, or without RLlib.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            f"the engine rllib needs Ray RLlib ({error}). Install it: pip install 'foveasim[ray]'"
        ) from error


try:
    _RLModule: Any = importlib.import_module("ray.rllib.core.rl_module.torch.torch_rl_module").TorchRLModule
    _Value: Any = importlib.import_module("ray.rllib.core.rl_module.apis").ValueFunctionAPI
except ImportError:  # the engine says so where it is asked for; a module that only documents itself needs no Ray
    _RLModule, _Value = nn.Module, object


class GazeModule(_RLModule, _Value):  # type: ignore[misc]
    """The policy of :class:`foveasim.agents.gaze_policy.network.Actor`, and beside it a value of the same form.

    Its ``model_config`` holds the actor's :class:`ActorConfig` under ``actor``.
    """

    def setup(self) -> None:
        """Build the networks."""
        config: ActorConfig = self.model_config["actor"]
        self.actor = Actor(config)
        self.trunk = Trunk(config)
        self.value = nn.Sequential(nn.Linear(self.trunk.features, 64), nn.ReLU(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(torch.full((2,), -0.7)) if config.outputs == 2 else None

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        """Return the scores of the cells; or of points the mean, and the logarithm of the standard deviation."""
        seen = batch["obs"]
        answer, _ = self.actor(seen["maps"], seen["numbers"])
        if self.log_std is not None:
            answer = torch.cat((answer, self.log_std.expand_as(answer)), 1)
        return {"action_dist_inputs": answer}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> Tensor:
        """Return what is still to be earned, (B,)."""
        seen = batch["obs"]
        found: Tensor = self.value(self.trunk(seen["maps"], seen["numbers"]))
        return found[:, 0]


class _Silent(FeatureObservation):
    """Tells nothing but what a policy sees: RLlib would take the infos apart lane by lane, and nobody reads them."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return super().reset(seed=seed, options=options)[0], {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        *found, _ = super().step(actions)
        return found[0], found[1], found[2], found[3], {}


def make_eyes(context: Mapping[str, Any]) -> FeatureObservation:
    """Build the lanes of one process, as RLlib's ``vector_entry_point`` asks for them.

    Each process reads the scenes by itself, predicts for its lanes in one pass, and begins lanes anew in the step after
    an end, as RLlib does. It computes on the CPU.

    Args:
        context: Ray's ``EnvContext``: ``config``, the :class:`TrainConfig`; ``num_envs``, how many lanes.
    """
    config: TrainConfig = context["config"]
    torch.set_num_threads(1 if config.threads is None else config.threads)
    config = replace(config, lanes=int(context["num_envs"]), device="cpu")
    scenes, _ = read_training(replace(config, validate=[]))
    eyes = make_lanes(config, scenes, Foresight(config.network, "cpu", config.precision), "NextStep")
    return _Silent(eyes.envs, eyes.config, config.acts_in, least_gain=eyes.least_gain)
