"""Checkpoints of stable-baselines3 models without pickle: safetensors with what else there is to know as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveasim.agents.mim.weights_file import read_tensors, write_tensors
from foveasim.errors import WeightsError

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

__all__ = ["optimizers", "restore_model", "save_model"]

FORMAT = "foveasim-rl-checkpoint-1"


def save_model(path: str | os.PathLike[str], model: BaseAlgorithm, told: Mapping[str, Any]) -> None:
    """Write the weights of a model and the state of its optimizers, so that ``path`` holds a whole file at any time.

    A replay buffer is not written: SAC fills it again.

    Args:
        path: The file.
        model: PPO, MaskablePPO, RecurrentPPO or SAC.
        told: What else belongs to the run; anything that JSON can hold.

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
    metadata = {"format": FORMAT, "told": json.dumps(dict(told)), "counted": json.dumps(counted)}
    write_tensors(path, tensors, metadata)


def restore_model(path: str | os.PathLike[str], model: BaseAlgorithm) -> dict[str, Any]:
    """Give a model of the same form the state of a checkpoint.

    Returns:
        What was told of the run.

    Raises:
        WeightsError: Missing, damaged, or of another form; the model is then of no use.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is no checkpoint of 'foveasim train'. Begin anew by --overwrite, or in another --out."
        )
    try:
        told: dict[str, Any] = json.loads(metadata["told"])
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
    return told


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
