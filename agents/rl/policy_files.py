"""Trained gaze policies as files, and the agent that runs one.

A policy is a safetensors file with its form, what it sees and the name of the network it looks ahead with as JSON
metadata. Nothing is unpickled, and running it needs no stable-baselines3. Its file's name is the name of an agent::

    foveasim watch --agent runs/train/policy.safetensors
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.base import Agent, Imagines, Observation, observed
from foveasim.agents.mim.files import build_to_fit, read_tensors, shipped_networks, write_tensors
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.predictive_gain import Seen
from foveasim.agents.predictive_mind import Mind
from foveasim.agents.rl.actors import Actor, ActorConfig, Memory
from foveasim.agents.rl.classify_features import ClassifyFeatureConfig
from foveasim.agents.rl.features import FeatureConfig, featurise
from foveasim.agents.rl.outlook import Outlook
from foveasim.agents.rl.search_features import SearchFeatureConfig
from foveasim.errors import AgentError, InvalidValueError, WeightsError

__all__ = [
    "SEES",
    "GazePolicy",
    "Policy",
    "PolicyAgent",
    "fingerprint",
    "load_policy",
    "policy_factory",
    "save_policy",
    "shipped_policy",
]

FORMAT = "foveasim-policy-1"

SEES: dict[str, type[FeatureConfig]] = {
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
        if self.task not in SEES or type(self.features) is not SEES[self.task]:
            raise InvalidValueError(
                f"task must be one of {', '.join(SEES)}, and the features its own; got {self.task!r} and "
                f"{type(self.features).__name__}."
            )
        config = self.actor.config
        if config.channels != self.features.channels or config.gain_channel != self.features.channel("gain"):
            raise InvalidValueError(
                f"the actor must take the maps {', '.join(self.features.maps)}, {self.features.channels} channels; it "
                f"takes {config.channels}, the gain in {config.gain_channel}."
            )


def fingerprint(network: MimNetwork) -> str:
    """Return what tells a network's weights from others, 16 letters and digits."""
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
        features = SEES[task](**json.loads(metadata["features"]))
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
    with as_file(files("foveasim.agents.rl") / "weights" / f"{name}.safetensors") as path:
        return load_policy(path)


def policy_factory(path: str) -> Callable[..., Agent]:
    """Return what builds the agent of a policy's file, read once.

    Its arguments are those of :class:`PolicyAgent`, or of :class:`foveasim.agents.rl.task_agent.TaskAgent` where the
    policy was trained on a task.

    Raises:
        WeightsError: The file cannot be used.
    """
    policy = load_policy(path)
    if policy.task == "view":
        return functools.partial(PolicyAgent, policy, name=Path(path).stem)
    from foveasim.agents.rl.task_agent import TaskAgent, WatchfulAgent  # here: it imports this module

    return functools.partial(TaskAgent if policy.task == "search" else WatchfulAgent, policy, name=Path(path).stem)


class PolicyAgent(Mind):
    """Looks where a trained policy says, at scenes of any size.

    It asks for ``belief``, lets the network that its file names predict, and sees what the policy saw in training:
    :class:`foveasim.agents.rl.features.Features`. Where the policy chooses cells, gaze goes to the place of greatest
    gain in the cell of the highest score.

    Args:
        policy: A policy or its file.
        device: Where to compute.
        deterministic: Take the likeliest cell. Otherwise cells are sampled, repeatably by ``seed``.
        seed: Seed of lane 0; lane i has ``seed + i``.
        imaginer: What to look ahead with in place of the network that the file names.
        name: For people.

    Raises:
        AgentError: A policy of points cannot be sampled from; the network predicts no standard deviation; or the policy
            was trained on a task.
        WeightsError: The policy or its network cannot be used.
    """

    name = "policy"

    def __init__(
        self,
        policy: Policy | str | os.PathLike[str],
        device: str = "cpu",
        deterministic: bool = True,
        seed: int = 0,
        imaginer: Imagines | MimNetwork | str | None = None,
        name: str = "policy",
    ) -> None:
        policy = policy if isinstance(policy, Policy) else load_policy(policy)
        if policy.task != "view":
            raise AgentError(
                f"the policy was trained to {policy.task}. Build it by make_agent of its file, or by "
                "foveasim.agents.rl.task_agent.TaskAgent."
            )
        super().__init__(policy.network if imaginer is None else imaginer, device, seed)
        config = policy.actor.config
        if not deterministic and config.outputs == 2:
            raise AgentError("a policy of points has no cells to sample from: use deterministic=True.")
        self.name, self.policy = name, policy
        found = getattr(self.imaginer, "network", None)
        known = fingerprint(found) if isinstance(found, MimNetwork) and imaginer is None else ""
        if known and policy.fingerprint and known != policy.fingerprint:
            warnings.warn(
                f"policy {name!r} was trained with other weights of the network {policy.network!r} than those found "
                "here. It works, perhaps less well; train it again with 'foveasim train'.",
                stacklevel=2,
            )
        self._actor = policy.actor.to(self.device)
        self._deterministic = deterministic
        self._fresh = np.zeros(0, np.bool_)
        self._memory: Memory | None = None

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Forget in the marked lanes, (B,) bool, what a recurrent policy remembers."""
        super().reset(lanes)
        same = len(self._fresh) == len(lanes)
        self._fresh = self._fresh | lanes if same else np.array(lanes)
        self._memory = self._memory if same else None

    def look(self, seen: Seen, observation: Observation) -> Tensor:
        """Return the next fixations, (B, 2) float32 in [-1, 1]."""
        prediction = self.predict(seen.belief, seen.acuity)
        time = torch.from_numpy(observed(observation, "time")).to(self.device, torch.float32)
        latent = None if prediction.latent is None else prediction.latent.to(self.device, torch.float32)
        image = prediction.image.to(self.device, torch.float32)
        outlook = Outlook(seen, image, self.std(prediction).square(), latent, time)
        config = self._actor.config
        features = featurise(outlook, self.policy.features, config.grid if config.rigid else None)
        if self._memory is not None and self._fresh.any():
            keep = torch.from_numpy(~self._fresh).to(self.device)[None, :, None]
            hidden, cell = self._memory
            self._memory = hidden * keep, cell * keep
        self._fresh = np.zeros_like(self._fresh)
        answer: Tensor
        answer, self._memory = self._actor(features.maps, features.numbers, self._memory)
        if config.outputs == 2:
            return answer.clamp(-1, 1)  # as stable-baselines3 does with an action space of these bounds
        answer = answer.masked_fill(~features.worth(config.least_gain), -torch.inf)
        if not self._deterministic:
            answer = answer - (-self.ties(answer.shape[1]).clamp_min(1e-20).log()).log()  # Gumbel: a draw by softmax
        return features.points[torch.arange(len(answer), device=self.device), answer.argmax(1)]


class GazePolicy(PolicyAgent):
    """The learned gaze that ships, ``gaze_policy``: looks where the prediction will gain most, through ``pyramid``.

    Trained by ``foveasim train --preset imitate``; ``agents/rl/weights/gaze.md`` tells how and how well it does.

    Args:
        device: Where to compute.
        deterministic: Take the likeliest cell; otherwise cells are drawn.
        seed: Seed of lane 0; lane i has ``seed + i``.
    """

    def __init__(self, device: str = "cpu", deterministic: bool = True, seed: int = 0) -> None:
        super().__init__(shipped_policy("gaze"), device, deterministic, seed, name="gaze_policy")


def _beside(named: str, path: Path) -> str:
    """Return the network or readout of a policy's file: shipped, where it says, or beside the policy."""
    if not named or named in shipped_networks() or Path(named).is_file():
        return named
    beside = path.parent / Path(named).name
    return str(beside) if beside.is_file() else named
