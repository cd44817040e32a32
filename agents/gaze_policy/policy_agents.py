"""The agents that run trained policies: they look freely, search, or look for a scene's class and stop."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.builtin.predictive_base import PredictiveAgent
from foveasim.agents.gaze_policy.classify_features import ClassifyFeatureConfig, ClassifyFeatureExtractor
from foveasim.agents.gaze_policy.features import FeatureExtractor, featurise
from foveasim.agents.gaze_policy.network import Memory
from foveasim.agents.gaze_policy.policy_files import Policy, fingerprint_weights, load_policy, shipped_policy
from foveasim.agents.gaze_policy.search_features import SearchFeatureConfig, SearchFeatureExtractor
from foveasim.agents.interface import Agent, Imagines, Observation, describe_agent, observed
from foveasim.agents.mim.belief_readout import load_belief_readout
from foveasim.agents.mim.expected_gain import BeliefState
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.mim.predictor import BeliefPrediction, BeliefPredictor
from foveasim.agents.noise import LaneNoise
from foveasim.envs.tasks.cell_readout import Readout
from foveasim.errors import AgentError, FoveasimError
from foveasim.types import Prediction
from foveasim.validation import number

__all__ = ["GazePolicy", "PolicyAgent", "PredictiveTaskAgent", "SearchPolicy", "TaskAgent", "policy_factory"]


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
        belief_predictor: A network at hand in place of the one that the file names.
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
        belief_predictor: BeliefPredictor | None = None,
        name: str = "policy",
    ) -> None:
        self.policy = policy = policy if isinstance(policy, Policy) else load_policy(policy)
        if policy.task == "view":
            raise AgentError(
                "the policy was trained on free viewing: use foveasim.agents.gaze_policy.policy_agents.PolicyAgent."
            )
        self._actor = policy.actor.to(device)
        if stop and not self._actor.config.stop:
            raise AgentError("the policy was not trained to stop: use stop=False, or train it with a stop action.")
        self.name, self.device, self._stop = name, torch.device(device), stop
        self._patience, self._deterministic = number("patience", patience), deterministic
        self._noise = LaneNoise(seed)
        self.extractor: FeatureExtractor = _make_extractor(policy, device, belief_predictor)
        self.needs = self.extractor.needs

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin a new episode in the marked lanes, (B,) bool."""
        self._noise.reset(lanes)
        self.extractor.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next fixation of every lane, (B, 2) float32 in [-1, 1], or with the wish to stop, (B, 3).

        Raises:
            AgentError: The observation lacks what the task shows.
        """
        with torch.inference_mode():
            size = observation["belief"].shape[1:3] if "belief" in observation else (96, 96)
            features = self.extractor.extract_features(
                observation, self.policy.features.grid((int(size[0]), int(size[1])))
            )
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


class PredictiveTaskAgent(TaskAgent):
    """A :class:`TaskAgent` whose network also predicts the scene, to be displayed."""

    def imagine(self, observation: Observation) -> Prediction:
        """Predict the whole scene of every lane."""
        return cast("ClassifyFeatureExtractor", self.extractor).belief_predictor.predictor.imagine(observation)


class SearchPolicy(TaskAgent):
    """The learned search that ships, ``search_policy``: looks for the target of ``foveasim/Search-v0``.

    Trained by ``foveasim train --preset search``; ``agents/gaze_policy/weights/search.md`` tells how and how well it
    does.

    Args:
        device: Where to compute.
        deterministic: Take the likeliest cell; otherwise cells are drawn.
        seed: Seed of lane 0; lane i has ``seed + i``.
    """

    needs: tuple[str, ...] = ("belief", "target")

    def __init__(self, device: str = "cpu", deterministic: bool = True, seed: int = 0) -> None:
        super().__init__(shipped_policy("search"), device, deterministic, seed, name="search_policy")


def _make_extractor(policy: Policy, device: str, belief_predictor: BeliefPredictor | None) -> FeatureExtractor:
    if policy.task == "search":
        return SearchFeatureExtractor(cast("SearchFeatureConfig", policy.features), device)
    if belief_predictor is None:
        belief_predictor = BeliefPredictor(policy.network, device)
        found = fingerprint_weights(belief_predictor.predictor.network)
        if policy.fingerprint and found != policy.fingerprint:
            warnings.warn(
                f"the policy was trained with other weights of the network {policy.network!r} than those found here. "
                "It works, perhaps less well; train it again with 'foveasim train'.",
                stacklevel=4,
            )
    config = cast("ClassifyFeatureConfig", policy.features)
    return ClassifyFeatureExtractor(config, belief_predictor, _LazyReadout(policy.readout) if policy.readout else None)


class _LazyReadout:
    """A readout's file that is read at its first use, where the observation has no posterior."""

    def __init__(self, path: str) -> None:
        self._path, self._readout = path, cast("Readout | None", None)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._loaded().classes

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        return self._loaded()(image, acuity)

    def _loaded(self) -> Readout:
        if self._readout is None:
            try:
                self._readout = load_belief_readout(self._path)
            except FoveasimError as error:
                raise AgentError(
                    f"the observation has no 'posterior', and the policy's own readout cannot be used: {error}"
                ) from error
        return self._readout


def policy_factory(path: str) -> Callable[..., Agent]:
    """Return what builds the agent of a policy's file, read once.

    Its arguments are those of :class:`PolicyAgent`, or of
    :class:`foveasim.agents.gaze_policy.policy_agents.TaskAgent` where the policy was trained on a task.

    Raises:
        WeightsError: The file cannot be used.
    """
    policy = load_policy(path)
    if policy.task == "view":
        return functools.partial(PolicyAgent, policy, name=Path(path).stem)
    return functools.partial(
        TaskAgent if policy.task == "search" else PredictiveTaskAgent, policy, name=Path(path).stem
    )


class PolicyAgent(PredictiveAgent):
    """Looks where a trained policy says, at scenes of any size.

    It asks for ``belief``, lets the network that its file names predict, and sees what the policy saw in training:
    :class:`foveasim.agents.gaze_policy.features.Features`. Where the policy chooses cells, gaze goes to the place of
    greatest gain in the cell of the highest score.

    Args:
        policy: A policy or its file.
        device: Where to compute.
        deterministic: Take the likeliest cell. Otherwise cells are sampled, repeatably by ``seed``.
        seed: Seed of lane 0; lane i has ``seed + i``.
        predictor: What to look ahead with in place of the network that the file names.
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
        predictor: Imagines | MimNetwork | str | None = None,
        name: str = "policy",
    ) -> None:
        policy = policy if isinstance(policy, Policy) else load_policy(policy)
        if policy.task != "view":
            raise AgentError(
                f"the policy was trained to {policy.task}. Build it by make_agent of its file, or by "
                "foveasim.agents.gaze_policy.policy_agents.TaskAgent."
            )
        super().__init__(policy.network if predictor is None else predictor, device, seed)
        config = policy.actor.config
        if not deterministic and config.outputs == 2:
            raise AgentError("a policy of points has no cells to sample from: use deterministic=True.")
        self.name, self.policy = name, policy
        found = getattr(self.predictor, "network", None)
        known = fingerprint_weights(found) if isinstance(found, MimNetwork) and predictor is None else ""
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

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the next fixations, (B, 2) float32 in [-1, 1]."""
        prediction = self.predict(seen.belief, seen.acuity)
        time = torch.from_numpy(observed(observation, "time")).to(self.device, torch.float32)
        latent = None if prediction.latent is None else prediction.latent.to(self.device, torch.float32)
        image = prediction.image.to(self.device, torch.float32)
        belief_prediction = BeliefPrediction(seen, image, self.std(prediction).square(), latent, time)
        config = self._actor.config
        features = featurise(belief_prediction, self.policy.features, config.grid if config.rigid else None)
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

    Trained by ``foveasim train --preset imitate``; ``agents/gaze_policy/weights/gaze.md`` tells how and how well it
    does.

    Args:
        device: Where to compute.
        deterministic: Take the likeliest cell; otherwise cells are drawn.
        seed: Seed of lane 0; lane i has ``seed + i``.
    """

    def __init__(self, device: str = "cpu", deterministic: bool = True, seed: int = 0) -> None:
        super().__init__(shipped_policy("gaze"), device, deterministic, seed, name="gaze_policy")
