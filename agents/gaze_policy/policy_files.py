"""Trained gaze policies as files.

A policy is a safetensors file with its form, what it sees and the name of the network it looks ahead with as JSON
metadata. Nothing is unpickled, and running it needs no stable-baselines3. Its file's name is the name of an agent::

    foveasim watch --agent runs/train/policy.safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch

from foveasim.agents.gaze_policy.classify_features import ClassifyFeatureConfig
from foveasim.agents.gaze_policy.features import FeatureConfig
from foveasim.agents.gaze_policy.network import Actor, ActorConfig
from foveasim.agents.gaze_policy.search_features import SearchFeatureConfig
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.mim.weights_file import build_to_fit, read_tensors, shipped_networks, write_tensors
from foveasim.errors import InvalidValueError, WeightsError

__all__ = ["FEATURE_CONFIGS", "Policy", "fingerprint_weights", "load_policy", "save_policy", "shipped_policy"]

FORMAT = "foveasim-policy-1"

FEATURE_CONFIGS: dict[str, type[FeatureConfig]] = {
    "view": FeatureConfig,
    "search": SearchFeatureConfig,
    "classify": ClassifyFeatureConfig,
}
"""What a policy of each task sees."""


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """A trained policy.

    Attributes:
        actor: Its network, in evaluation mode.
        features: What it sees.
        network: Name or file of the network that it looks ahead with.
        fingerprint: Of that network's weights, "" where it is not known.
        task: What it does: "view", "search" or "classify".
        readout: File of the readout that "classify" was trained with, "" where there is none.
        card: How it was trained and how well it does; anything that JSON can hold.
    """

    actor: Actor
    features: FeatureConfig
    network: str
    fingerprint: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)
    task: str = "view"
    readout: str = ""

    def __repr__(self) -> str:
        return f"Policy(task={self.task!r}, network={self.network!r}, {type(self.actor).__name__})"

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: The actor was made for other features, or the features for another task.
        """
        if self.task not in FEATURE_CONFIGS or type(self.features) is not FEATURE_CONFIGS[self.task]:
            raise InvalidValueError(
                f"task must be one of {', '.join(FEATURE_CONFIGS)}, and the features its own; got {self.task!r} and "
                f"{type(self.features).__name__}."
            )
        config = self.actor.config
        if config.channels != self.features.channels or config.gain_channel != self.features.channel("gain"):
            raise InvalidValueError(
                f"the actor must take the maps {', '.join(self.features.maps)}, {self.features.channels} channels; it "
                f"takes {config.channels}, the gain in {config.gain_channel}."
            )


def fingerprint_weights(network: MimNetwork) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_policy(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write a policy, so that ``path`` holds either the old file or the whole new one.

    Raises:
        InvalidValueError: A parameter that is not finite.
        WeightsError: The file cannot be written.
    """
    tensors = {name: value.detach().cpu().clone() for name, value in policy.actor.state_dict().items()}
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InvalidValueError(f"parameter {name!r} is not finite. Training diverged: lower its learning_rate.")
    metadata = {
        "format": FORMAT,
        "actor": json.dumps(asdict(policy.actor.config)),
        "features": json.dumps(asdict(policy.features)),
        "network": policy.network,
        "fingerprint": policy.fingerprint,
        "task": policy.task,
        "readout": policy.readout,
        "card": json.dumps(dict(policy.card)),
    }
    write_tensors(path, tensors, metadata)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy.

    Raises:
        WeightsError: Missing, truncated, no policy, or with tensors that are missing, superfluous, of another shape or
            not finite.
    """
    path = Path(path)
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
        there = f" There are {', '.join(others)}." if others else ""
        raise WeightsError(f"no policy file {str(path)!r}.{there} Train one by 'foveasim train'.")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} holds no gaze policy (format {metadata.get('format')!r}, expected {FORMAT!r}). A network that "
            "predicts is given to an agent: --agent uncertainty --network FILE. A checkpoint of a training run lies "
            "beside its policy.safetensors: use that file."
        )
    try:
        form = ActorConfig(**json.loads(metadata["actor"]))
        actor = build_to_fit(path, "its policy", lambda: Actor(form), tensors)
        task = metadata.get("task", "view")
        features = FEATURE_CONFIGS[task](**json.loads(metadata["features"]))
        card = json.loads(metadata["card"])
    except WeightsError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: its description is missing or damaged ({error}). Copy or train it again."
        ) from error
    actor.load_state_dict(tensors)
    actor.eval().requires_grad_(False)
    network, readout = (_beside(metadata.get(name, ""), path) for name in ("network", "readout"))
    return Policy(actor, features, network, metadata.get("fingerprint", ""), card, task, readout)


def shipped_policy(name: str) -> Policy:
    """Return a policy that ships, ``gaze`` or ``search``."""
    with as_file(files(__name__.rpartition(".")[0]) / "weights" / f"{name}.safetensors") as path:
        return load_policy(path)


def _beside(named: str, path: Path) -> str:
    """Return the network or readout of a policy's file: shipped, where it says, or beside the policy."""
    if not named or named in shipped_networks() or Path(named).is_file():
        return named
    beside = path.parent / Path(named).name
    return str(beside) if beside.is_file() else named
