"""The agents that run policies which were trained on a task: they search, or look for a scene's class and stop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.base import Observation, describe_agent
from foveasim.agents.noise import LaneNoise
from foveasim.agents.rl.classify_features import ClassifyFeatureConfig, ClassifySense
from foveasim.agents.rl.outlook import Foresight
from foveasim.agents.rl.policy_files import Policy, fingerprint, load_policy, shipped_policy
from foveasim.agents.rl.search_features import SearchFeatureConfig, SearchSense
from foveasim.agents.rl.task_env import TaskSense
from foveasim.check import number
from foveasim.envs.cell_readout import Readout
from foveasim.errors import AgentError, FoveasimError
from foveasim.registry import load_object
from foveasim.types import Prediction

__all__ = ["SearchPolicy", "TaskAgent", "WatchfulAgent"]


class TaskAgent:
    """Looks where a policy says that was trained on a task.

    Args:
        policy: A policy or its file.
        device: Where to compute.
        deterministic: Take the likeliest cell, and stop where that is likelier than not. Otherwise both are drawn,
            repeatably by ``seed``.
        seed: Seed of lane 0; lane i has ``seed + i``.
        stop: Whether actions have the wish to stop behind x and y; None where the policy was trained with it and the
            observation is of its task. With False it only looks.
        patience: Added to the logarithm of the odds that stopping must have: above 0 it stops later, below 0 earlier.
        foresight: A network at hand in place of the one that the file names.
        name: For people.

    Raises:
        AgentError: A policy of free viewing, for which there is ``PolicyAgent``; or to stop is asked for of one that
            was not trained to.
        WeightsError: The policy or its network cannot be used.
    """

    __repr__ = describe_agent

    def __init__(
        self,
        policy: Policy | str | os.PathLike[str],
        device: str = "cpu",
        deterministic: bool = True,
        seed: int = 0,
        stop: bool | None = None,
        patience: float = 0.0,
        foresight: Foresight | None = None,
        name: str = "policy",
    ) -> None:
        self.policy = policy = policy if isinstance(policy, Policy) else load_policy(policy)
        if policy.task == "view":
            raise AgentError("the policy was trained on free viewing: use foveasim.agents.rl.policy_files.PolicyAgent.")
        self._actor = policy.actor.to(device)
        if stop and not self._actor.config.stop:
            raise AgentError("the policy was not trained to stop: use stop=False, or train it with a stop action.")
        self.name, self.device, self._stop = name, torch.device(device), stop
        self._patience, self._deterministic = number("patience", patience), deterministic
        self._noise = LaneNoise(seed)
        self.sense: TaskSense = _sense(policy, device, foresight)
        self.needs = self.sense.needs

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self._noise.reset(lanes)
        self.sense.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next fixation of every lane, (B, 2) float32 in [-1, 1], or with the wish to stop, (B, 3).

        Raises:
            AgentError: The observation lacks what the task shows.
        """
        with torch.inference_mode():
            size = observation["belief"].shape[1:3] if "belief" in observation else (96, 96)
            features = self.sense.see(observation, self.policy.features.grid((int(size[0]), int(size[1]))))
            self._noise.check(len(features.points))
            answer, _ = self._actor(features.maps, features.numbers)
            cells = answer[:, : features.points.shape[1]]
            odds = answer[:, -1] - cells.logsumexp(1) - self._patience
            cells = cells.masked_fill(~features.worth(self._actor.config.least_gain), -torch.inf)
            if not self._deterministic:
                drawn = self._draws(cells.shape[1] + 1)
                cells = cells - (-drawn[:, 1:].clamp_min(1e-20).log()).log()  # Gumbel: a draw by softmax
                odds = odds - (drawn[:, 0] / (1 - drawn[:, 0])).clamp_min(1e-20).log()
            where = features.points[torch.arange(len(cells)), cells.argmax(1)]
            stops = self._stop if self._stop is not None else self._actor.config.stop and self._of_task(observation)
            if stops:
                where = torch.cat((where, torch.where(odds > 0, 1.0, -1.0).to(where)[:, None]), 1)
        self._noise.tick()
        return cast("NDArray[np.float32]", where.cpu().numpy())

    def _of_task(self, observation: Observation) -> bool:
        return ("target" if self.policy.task == "search" else "posterior") in observation

    def _draws(self, count: int) -> Tensor:
        return torch.from_numpy(self._noise.uniform(count).astype(np.float32)).to(self.device)


class WatchfulAgent(TaskAgent):
    """A :class:`TaskAgent` whose network also predicts the scene, for those who watch."""

    def imagine(self, observation: Observation) -> Prediction:
        """Predict the whole scene of every lane."""
        return cast("ClassifySense", self.sense).foresight.imaginer.imagine(observation)


class SearchPolicy(TaskAgent):
    """The learned search that ships, ``search_policy``: looks for the target of ``foveasim/Search-v0``.

    Trained by ``foveasim train --preset search``; ``agents/rl/weights/search.md`` tells how and how well it does.

    Args:
        device: Where to compute.
        deterministic: Take the likeliest cell; otherwise cells are drawn.
        seed: Seed of lane 0; lane i has ``seed + i``.
    """

    needs: tuple[str, ...] = ("belief", "target")

    def __init__(self, device: str = "cpu", deterministic: bool = True, seed: int = 0) -> None:
        super().__init__(shipped_policy("search"), device, deterministic, seed, name="search_policy")


def _sense(policy: Policy, device: str, foresight: Foresight | None) -> TaskSense:
    if policy.task == "search":
        return SearchSense(cast("SearchFeatureConfig", policy.features), device)
    if foresight is None:
        foresight = Foresight(policy.network, device)
        found = fingerprint(foresight.imaginer.network)
        if policy.fingerprint and found != policy.fingerprint:
            warnings.warn(
                f"the policy was trained with other weights of the network {policy.network!r} than those found here. "
                "It works, perhaps less well; train it again with 'foveasim train'.",
                stacklevel=4,
            )
    config = cast("ClassifyFeatureConfig", policy.features)
    return ClassifySense(config, foresight, _LateReadout(policy.readout) if policy.readout else None)


class _LateReadout:
    """A readout's file that is only read where nobody else says how probable the classes are."""

    def __init__(self, path: str) -> None:
        self._path, self._readout = path, cast("Readout | None", None)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._loaded().classes

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        return self._loaded()(image, acuity)

    def _loaded(self) -> Readout:
        if self._readout is None:
            load = cast(
                "Callable[[str], Readout]", load_object("foveasim.agents.mim.belief_readout:load_belief_readout")
            )
            try:
                self._readout = load(self._path)
            except FoveasimError as error:
                raise AgentError(
                    f"the observation has no 'posterior', and the policy's own readout cannot be used: {error}"
                ) from error
        return self._readout
