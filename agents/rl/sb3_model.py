"""Checkpoints of stable-baselines3 models without pickle: safetensors, with the state of the run as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from foveasim.agents.gaze_policy.network import Actor, ActorConfig, Trunk
from foveasim.agents.mim.weights_file import read_tensors, write_tensors
from foveasim.errors import InvalidValueError, MissingDependencyError, WeightsError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

__all__ = [
    "ALGORITHMS",
    "CellPolicy",
    "MaskableCellPolicy",
    "actor_of",
    "algorithm_options",
    "make_model",
    "optimizers",
    "restore_model",
    "save_model",
]

try:
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MissingDependencyError(
        f"foveasim train needs stable-baselines3 and sb3-contrib ({error}). Install them: pip install 'foveasim[rl]'"
    ) from error

__all__ = ["ALGORITHMS", "CellPolicy", "MaskableCellPolicy", "actor_of", "algorithm_options", "make_model"]

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO,
    "maskable_ppo": MaskablePPO,
    "recurrent_ppo": RecurrentPPO,
    "sac": SAC,
}


class FeatureTrunk(BaseFeaturesExtractor):
    """A :class:`Trunk` on a Dict of ``maps`` and ``numbers``."""

    def __init__(self, observation_space: gym.Space[Any], config: ActorConfig) -> None:
        trunk = Trunk(config)
        super().__init__(observation_space, trunk.features)
        self.trunk = trunk

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return (B, features)."""
        found: Tensor = self.trunk(observations["maps"], observations["numbers"])
        return found


class CellHeads(nn.Module):
    """Takes the scores of the cells for the policy, and a value from the summary behind them."""

    def __init__(self, cells: int, summary: int, hidden: int) -> None:
        super().__init__()
        self.cells = cells
        self.value = nn.Sequential(nn.Linear(summary, hidden), nn.ReLU())
        self.latent_dim_pi, self.latent_dim_vf = cells, hidden

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        """Return the scores, (B, cells)."""
        return features[:, : self.cells]

    def forward_critic(self, features: Tensor) -> Tensor:
        """Return what the value is made of, (B, hidden)."""
        found: Tensor = self.value(features[:, self.cells :])
        return found


class _Cells:
    """What both policies of cells share: the scores of the trunk are the logits as they are."""

    features_dim: int
    action_space: gym.Space[Any]
    mlp_extractor: Any
    action_net: nn.Module
    optimizer: torch.optim.Optimizer
    optimizer_kwargs: dict[str, Any]
    device: torch.device

    def _build_mlp_extractor(self) -> None:
        if not isinstance(self.action_space, gym.spaces.Discrete):
            raise InvalidValueError(f"a policy of cells acts in Discrete(rows * columns); got {self.action_space}.")
        cells = int(self.action_space.n)
        self.mlp_extractor = CellHeads(cells, self.features_dim - cells, 64).to(self.device)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.action_net = nn.Identity()
        policy: Any = self
        self.optimizer = policy.optimizer_class(policy.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class CellPolicy(_Cells, ActorCriticPolicy):
    """A policy of cells for PPO."""


class MaskableCellPolicy(_Cells, MaskableActorCriticPolicy):
    """A policy of cells for MaskablePPO."""


def make_model(
    algorithm: str, envs: VecEnv, actor: ActorConfig, *, seed: int, device: str, options: dict[str, Any]
) -> BaseAlgorithm:
    """Build what stable-baselines3 trains.

    Args:
        algorithm: A name of ``ALGORITHMS``.
        envs: Shows ``maps`` and ``numbers``.
        actor: Form of the policy.
        seed: Of everything random in it. stable-baselines3 sets the global generators by it.
        device: Where the policy computes.
        options: Of the algorithm; ``policy_kwargs`` are added to those that the form needs.

    Raises:
        InvalidValueError: An algorithm that cannot train such a policy, or an option that it does not take.
    """
    if algorithm not in ALGORITHMS:
        raise InvalidValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}; got {algorithm!r}.")
    given = algorithm_options(options)
    kwargs: dict[str, Any] = {
        "features_extractor_class": FeatureTrunk,
        "features_extractor_kwargs": {"config": actor},
        "normalize_images": False,
        **given.pop("policy_kwargs", {}),
    }
    policy: Any = {"recurrent_ppo": "MultiInputLstmPolicy"}.get(algorithm, "MultiInputPolicy")
    if algorithm != "sac":
        kwargs |= {"share_features_extractor": False}
    if actor.kind == "cells":
        if algorithm not in ("ppo", "maskable_ppo"):
            raise InvalidValueError(f"a policy of cells is trained by ppo or maskable_ppo; got {algorithm!r}.")
        policy = CellPolicy if algorithm == "ppo" else MaskableCellPolicy
        kwargs |= {"net_arch": [], "ortho_init": False}
    else:
        activation = nn.ReLU if actor.activation == "relu" else nn.Tanh
        kwargs |= {"net_arch": list(actor.hidden), "activation_fn": activation}
        if algorithm == "recurrent_ppo":
            kwargs |= {"lstm_hidden_size": actor.memory, "n_lstm_layers": 1}
    make: Any = ALGORITHMS[algorithm]
    try:
        model: BaseAlgorithm = make(policy, envs, seed=seed, device=device, policy_kwargs=kwargs, **given)
    except (TypeError, AssertionError) as error:  # stable-baselines3 asserts what its options must be
        raise InvalidValueError(f"options do not suit {algorithm}: {error}.") from error
    return model


def algorithm_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as stable-baselines3 takes them: ``lin_0.001`` falls to 0 along the run."""
    made: dict[str, Any] = {}
    for name, value in options.items():
        made[name] = value
        if isinstance(value, str):
            linear = value.startswith("lin_")
            try:
                number = float(value.removeprefix("lin_"))
            except ValueError:
                continue
            made[name] = _Linear(number) if linear else number
    return made


class _Linear:
    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, left: float) -> float:
        return self.start * max(left, 0.0)  # the last rollout may reach beyond the end of the run


def actor_of(model: BaseAlgorithm, config: ActorConfig) -> Actor:
    """Take the actor out of a model that :func:`make_model` built: a copy, in evaluation mode, on the CPU.

    Its answers are those of ``model.predict(…, deterministic=True)``.
    """
    with torch.random.fork_rng(devices=[]):  # fresh weights that are overwritten
        actor = Actor(config)
    policy: Any = model.policy
    if isinstance(model, SAC):
        source = policy.actor
        parts = {"trunk": source.features_extractor.trunk, "mlp": source.latent_pi, "head": source.mu}
    else:
        parts = {"trunk": policy.pi_features_extractor.trunk}
        if config.kind != "cells":
            parts |= {"mlp": policy.mlp_extractor.policy_net, "head": policy.action_net}
        if config.memory:
            parts["lstm"] = policy.lstm_actor
    for name, part in parts.items():
        getattr(actor, name).load_state_dict({key: value.detach().cpu() for key, value in part.state_dict().items()})
    return actor.eval().requires_grad_(False)


FORMAT = "foveasim-rl-checkpoint-1"


def save_model(path: str | os.PathLike[str], model: BaseAlgorithm, run_state: Mapping[str, Any]) -> None:
    """Write the weights of a model and the state of its optimizers, so that ``path`` holds a whole file at any time.

    A replay buffer is not written: SAC fills it again.

    Args:
        path: The file.
        model: PPO, MaskablePPO, RecurrentPPO or SAC.
        run_state: What else belongs to the run; anything that JSON can hold.

    Raises:
        WeightsError: The file cannot be written.
    """
    # Copies, for a policy may hold one tensor under two names, which a file cannot.
    tensors = {f"policy.{name}": value.detach().cpu().clone() for name, value in model.policy.state_dict().items()}
    log_entropy = getattr(model, "log_ent_coef", None)
    if log_entropy is not None:
        tensors["log_ent_coef"] = log_entropy.detach().cpu().clone()
    for kind, optimizer in optimizers(model).items():
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{kind}.{number}.{name}"] = torch.as_tensor(value).detach().cpu().clone()
    updates = int(getattr(model, "_n_updates", 0))
    counted = {"algorithm": type(model).__name__, "steps": int(model.num_timesteps), "updates": updates}
    metadata = {"format": FORMAT, "told": json.dumps(dict(run_state)), "counted": json.dumps(counted)}
    write_tensors(path, tensors, metadata)


def restore_model(path: str | os.PathLike[str], model: BaseAlgorithm) -> dict[str, Any]:
    """Give a model of the same form the state of a checkpoint.

    Returns:
        What else was saved of the run.

    Raises:
        WeightsError: Missing, damaged, or of another form; the model is then of no use.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is no checkpoint of 'foveasim train'. Begin anew by --overwrite, or in another --out."
        )
    try:
        run_state: dict[str, Any] = json.loads(metadata["told"])
        counted = json.loads(metadata["counted"])
        if counted["algorithm"] != type(model).__name__:
            raise ValueError(f"it is of {counted['algorithm']}, and this run trains {type(model).__name__}")
        policy = {name.removeprefix("policy."): value for name, value in tensors.items() if name.startswith("policy.")}
        model.policy.load_state_dict(policy)
        log_entropy = getattr(model, "log_ent_coef", None)
        if log_entropy is not None:
            log_entropy.data.copy_(tensors["log_ent_coef"])
        for kind, optimizer in optimizers(model).items():
            optimizer.load_state_dict(
                {"state": _states(tensors, kind), "param_groups": optimizer.state_dict()["param_groups"]}
            )
        model.num_timesteps = int(counted["steps"])
        if hasattr(model, "_n_updates"):
            model._n_updates = int(counted["updates"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not fit this run: {' '.join(str(error).split())[:300]}. Give the options of the run that it "
            "is of, or begin anew by --overwrite."
        ) from error
    return run_state


def _states(tensors: Mapping[str, Tensor], kind: str) -> dict[int, dict[str, Tensor]]:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"optimizer.{kind}."):
            number, name = key.removeprefix(f"optimizer.{kind}.").split(".", 1)
            states.setdefault(int(number), {})[name] = value
    return states


def optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    """Return all optimizers of a model by what they move."""
    policy: Any = model.policy
    found: dict[str, Any] = {"policy": getattr(policy, "optimizer", None)}
    for part in ("actor", "critic"):
        found[part] = getattr(getattr(policy, part, None), "optimizer", None)
    found["ent_coef"] = getattr(model, "ent_coef_optimizer", None)
    return {name: optimizer for name, optimizer in found.items() if isinstance(optimizer, torch.optim.Optimizer)}
