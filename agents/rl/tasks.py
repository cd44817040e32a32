"""What a gaze policy is trained on: free viewing or a task, with its lanes, its validation and its agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.evaluation.entries import open_entries
from foveasim.agents.evaluation.judge import Scenes
from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.evaluation.scenes import read_scenes
from foveasim.agents.gaze_policy.classify_features import (
    ClassifyFeatureConfig,
    ClassifyFeatureExtractor,
    PredictingReadout,
)
from foveasim.agents.gaze_policy.features import FeatureConfig, FeatureExtractor
from foveasim.agents.gaze_policy.network import Actor
from foveasim.agents.gaze_policy.policy_agents import PolicyAgent, PredictiveTaskAgent, TaskAgent
from foveasim.agents.gaze_policy.policy_files import Policy, fingerprint_weights
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.agents.gaze_policy.search_features import SearchFeatureConfig, SearchFeatureExtractor
from foveasim.agents.interface import Agent
from foveasim.agents.mim.belief_readout import load_belief_readout
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.readout.labelled import LabelledData, LabelledImages, read_labelled
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.evaluation import TaskValidator, Validator
from foveasim.agents.rl.feature_env import FeatureObservation, TaskObservation
from foveasim.agents.rl.imitation import (
    Demonstrations,
    ImitationConfig,
    candidate_cells,
    collect_oracle_demonstrations,
    hypothetical_beliefs,
)
from foveasim.envs.tasks.classify import ClassifyVectorEnv
from foveasim.envs.tasks.search import SearchVectorEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.scenes.source import ArrayScenes

__all__ = [
    "ClassifyTask",
    "FreeViewingTask",
    "SearchTask",
    "TrainingTask",
    "make_feature_env",
    "open_training_task",
    "read_training_scenes",
    "retina_of",
]

_VALIDATION_SEED = 1_000_003  # of the displays that search is validated on: training draws others
_MIN_EPISODES = 20  # episodes of validation


Act: TypeAlias = Callable[[dict[str, NDArray[np.float32]]], NDArray[Any]]
"""From what the policy sees to what it does, drawn."""


class AgentScorer(Protocol):
    """Scores agents on scenes that no training uses."""

    def score(self, label: str, make: Callable[[int], Agent]) -> Any:
        """Return a :class:`Score` or :class:`TaskScore`."""


class TrainingTask:
    """What is trained on.

    Attributes:
        description: What it is, in a few words.
        feature_env: The eyes that are trained with, and what the policy sees of them.
        belief_predictor: The frozen network, or None where none is needed.
        validator: Scores agents on scenes that no training uses, or None.
    """

    description: str
    feature_env: Any  # a FeatureObservation, of the tasks a TaskObservation
    belief_predictor: BeliefPredictor | None
    validator: AgentScorer | None

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    def stops(self) -> bool:
        """Whether stopping is one of the choices."""
        return isinstance(self.feature_env, TaskObservation) and self.feature_env.stops

    @property
    def feature_config(self) -> FeatureConfig:
        """What the policy sees."""
        config: FeatureConfig = self.feature_env.config
        return config

    def make_policy(self, actor: Actor, card: Mapping[str, Any]) -> Policy:
        """Return an actor as a policy that can be saved."""
        config, known = self.config, ""
        if self.belief_predictor is not None:
            known = fingerprint_weights(self.belief_predictor.predictor.network)
        readout = config.task_options.get("readout", "")
        named = config.network if self.belief_predictor is not None else ""
        return Policy(
            actor, self.feature_config, named, known, card, config.task, readout if isinstance(readout, str) else ""
        )

    def make_agent(self, policy: Policy, seed: int) -> Agent:
        """Return the agent of a policy."""
        if self.belief_predictor is None:
            return TaskAgent(policy, self.config.device, seed=seed)
        return PredictiveTaskAgent(policy, self.config.device, seed=seed, belief_predictor=self.belief_predictor)

    def collect_demonstrations(
        self, act: Act, episodes: int, imitation: ImitationConfig, seed: int, on_progress: Callable[[float], None]
    ) -> Demonstrations:
        """Walk through episodes beside an expert who knows where to look.

        See :func:`foveasim.agents.rl.imitation.fit`.

        Raises:
            InvalidValueError: The task has no expert.
        """
        raise InvalidValueError(f"there is no expert to imitate in the task {self.config.task!r}: use --imitate 0.")

    def open_baselines(self, words: Sequence[str]) -> list[Entry]:
        """Open the agents that validation compares with."""
        common: dict[str, object] = {"retina": retina_of(self.config), "device": self.config.device}
        if self.belief_predictor is not None:
            common |= {"network": self.belief_predictor.predictor.network, "belief_predictor": self.belief_predictor}
        return open_entries(words, {}, common)[0] if words else []


class FreeViewingTask(TrainingTask):
    """Free viewing: a frozen network's error is to fall."""

    belief_predictor: BeliefPredictor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.belief_predictor = BeliefPredictor(config.network, config.device, config.precision)
        scenes, held_out = read_training_scenes(config)
        self.feature_env = make_feature_env(config, scenes, self.belief_predictor)
        self.validator = None
        self.description = f"{len(scenes.name):,} scenes"
        if held_out is not None:
            self.validator = Validator(
                held_out, retina_of(config), self.belief_predictor.predictor, budget=config.budget, seed=config.seed
            )
            self.description += f", {len(held_out.name):,} for validation"

    def make_agent(self, policy: Policy, seed: int) -> Agent:
        """Return the agent of a policy."""
        return PolicyAgent(
            policy, str(self.belief_predictor.device), seed=seed, predictor=self.belief_predictor.predictor
        )

    def collect_demonstrations(
        self, act: Act, episodes: int, imitation: ImitationConfig, seed: int, on_progress: Callable[[float], None]
    ) -> Demonstrations:
        """Walk through episodes beside the one-step oracle."""
        return collect_oracle_demonstrations(self.feature_env, act, episodes, imitation, seed, on_progress)


class SearchTask(TrainingTask):
    """``foveasim/Search-v0``: the target is to be found."""

    belief_predictor = None

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        feature_config = config.feature_config()
        if not isinstance(feature_config, SearchFeatureConfig):
            raise InvalidValueError(f"features must be those of search; got {type(feature_config).__name__}.")
        self.task_envs = envs = self.make_envs(config.lanes)
        self.feature_env = _make_task_env(config, envs, SearchFeatureExtractor(feature_config, config.device))
        count = max(_MIN_EPISODES, config.validate_limit or 100)
        self.validator = TaskValidator(self.make_envs(count, scene_seed=_VALIDATION_SEED), config.seed)
        source = envs.source
        self.description = f"{len(source):,} displays, {count} for validation"

    def collect_demonstrations(
        self, act: Act, episodes: int, imitation: ImitationConfig, seed: int, on_progress: Callable[[float], None]
    ) -> Demonstrations:
        """Walk through episodes by the policy alone, beside an expert who knows where the target lies.

        A cell whose place lies on the target has the gain 1; where none does, the nearest has a half, for looking there
        shows the target sharply.
        """
        collected: list[tuple[Tensor, ...]] = []
        observation, info = self.feature_env.reset(seed=seed)
        size = torch.tensor([self.config.size[1], self.config.size[0]], dtype=torch.float32)
        ended, source = 0, self.task_envs.source
        while ended < episodes:
            seen = self.feature_env.current_features
            sought = torch.from_numpy(np.asarray(info["sought_px"], np.float32))
            points = seen.points.cpu()
            away = ((points + 1) * (size / 2) - sought[:, None]).norm(dim=2)
            gains = (away <= source.display(0).radius_px).float()
            near = torch.zeros_like(gains).scatter_(1, away.argmin(1, keepdim=True), 0.5)
            cells = torch.arange(gains.shape[1]).expand(len(gains), -1)
            gains = torch.where(gains.amax(1, keepdim=True) > 0, gains, near)
            collected.append((seen.maps.cpu(), seen.numbers.cpu(), cells, points, gains))
            observation, _, terminated, _, info = self.feature_env.step(act(observation))
            ended += int(np.count_nonzero(terminated))
            on_progress(min(ended / episodes, 1.0))
        return Demonstrations(*(torch.cat(column).clone() for column in zip(*collected, strict=True)))

    def make_envs(self, lanes: int, **options: Any) -> SearchVectorEnv:
        """Make envs of the config's options and others that come before them."""
        return SearchVectorEnv(lanes, **{**_common(self.config), **self.config.task_options, **options})


class ClassifyTask(TrainingTask):
    """``foveasim/Classify-v0``: a readout's probability of the right class is to rise, and looking costs."""

    belief_predictor: BeliefPredictor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.belief_predictor = BeliefPredictor(config.network, config.device, config.precision)
        self.data = _labelled(config)
        if self.data is not None and len(self.data.validation) < 2:
            raise InvalidValueError(
                f"data must have at least two validation images, to train on one half of them and to validate on the "
                f"other; got {len(self.data.validation)} of {config.data!r}. Give more images."
            )
        self._options = dict(config.task_options)
        readout = self._options.get("readout", "cells")
        if isinstance(readout, str) and readout != "cells":
            self._options["readout"] = PredictingReadout(
                load_belief_readout(readout, config.device), self.belief_predictor
            )
        # The scene itself is for the expert (demonstrations); the policy never sees it.
        self.task_envs = envs = self.make_envs(config.lanes, "train", privileged=config.imitate > 0)
        feature_config = config.feature_config(classes=len(envs.classes))
        if not isinstance(feature_config, ClassifyFeatureConfig):
            raise InvalidValueError(f"features must be those of classify; got {type(feature_config).__name__}.")
        self.feature_env = _make_task_env(config, envs, ClassifyFeatureExtractor(feature_config, self.belief_predictor))
        count = max(_MIN_EPISODES, config.validate_limit or 100)
        self.validator = TaskValidator(self.make_envs(count, "validation"), config.seed)
        self.description = (
            f"{len(envs.simulator.scenes):,} scenes of {len(envs.classes)} classes, {count} for validation"
        )

    def collect_demonstrations(
        self, act: Act, episodes: int, imitation: ImitationConfig, seed: int, on_progress: Callable[[float], None]
    ) -> Demonstrations:
        """Walk through episodes beside an expert who knows scene and class and tries places.

        The gain of a place is by how much a glimpse of it would raise the logarithm of the class's probability, less
        the cost of a glimpse. To stop gains nothing: it is better than any place where a glimpse is worth less than it
        costs.
        """
        collected: list[tuple[Tensor, ...]] = []
        draws = torch.Generator().manual_seed(seed)
        self.feature_env.reset(seed=seed)
        envs, ended = self.task_envs, 0
        while ended < episodes:
            seen, observed = self.feature_env.current_features, self.feature_env.observed
            with torch.inference_mode():
                cells = candidate_cells(seen, imitation.candidates, draws)
                points = seen.points.gather(1, cells[:, :, None].expand(-1, -1, 2))
                scene = torch.as_tensor(observed["scene"]).to(self.belief_predictor.device)
                beliefs, known = hypothetical_beliefs(self.belief_predictor.predict_from(observed), scene, points)
                posteriors = envs.posterior_of(beliefs.flatten(0, 1), known.flatten(0, 1)).reshape(*cells.shape, -1)
            label = envs.as_array(envs.simulator.label)
            right = np.take_along_axis(posteriors, label[:, None, None], 2)[:, :, 0]
            before = np.take_along_axis(np.asarray(observed["posterior"]), label[:, None], 1)
            gains = torch.from_numpy(np.log(right) - np.log(before)) - envs.cost_per_glimpse
            best = cells.cpu().gather(1, gains.argmax(1, keepdim=True))[:, 0].numpy()
            if self.stops:
                cells = torch.cat((cells, torch.full_like(cells[:, :1], seen.gain.shape[1])), 1)
                points = torch.cat((points, torch.zeros_like(points[:, :1])), 1)
                gains = torch.cat((gains, torch.zeros_like(gains[:, :1])), 1)
            collected.append(tuple(one.cpu() for one in (seen.maps, seen.numbers, cells, points, gains)))
            by_expert = (torch.rand(len(best), generator=draws) < imitation.oracle_share).numpy()
            features = {"maps": seen.maps.cpu().numpy(), "numbers": seen.numbers.cpu().numpy()}
            _, _, terminated, _, _ = self.feature_env.step(np.where(by_expert, best, act(features)))
            ended += int(np.count_nonzero(terminated))
            on_progress(min(ended / episodes, 1.0))
        # Lane by lane: what is held out at the end then are whole episodes.
        return Demonstrations(*(torch.stack(column, 1).flatten(0, 1) for column in zip(*collected, strict=True)))

    def images(self, part: str) -> LabelledImages:
        """Return the images of a part of labelled data: "test", "held_out" for those of validation, or a half of these.

        Of the images that the readout was fitted to it is surer than of others: a glimpse of them is worth less.
        Policies train on every other image that it was chosen by, mirrored too, and are validated on the rest.
        """
        data = cast("LabelledData", self.data)
        if part in ("test", "held_out"):
            return data.test if part == "test" else data.validation
        half = data.validation.take(np.arange(part == "validation", len(data.validation), 2))
        if part == "validation" or not self.config.mirror:
            return half
        both = np.concatenate((half.images, half.images[:, :, ::-1]))
        return LabelledImages(both, np.tile(half.labels, 2), half.names * 2)

    def make_envs(self, lanes: int, part: str, **options: Any) -> ClassifyVectorEnv:
        """Make envs on a part of the data, "train", "validation" or "test"."""
        scenes: dict[str, Any] = {"split": "test" if part == "test" else "train"}
        if self.data is not None:
            labelled = self.images(part)
            scenes = {"scenes": ArrayScenes(labelled.images, label=labelled.labels.tolist(), labels=self.data.classes)}
        given = {**_common(self.config), **scenes, **self._options, **options}
        del given["belief"]
        return ClassifyVectorEnv(lanes, **given)


def open_training_task(config: TrainConfig) -> TrainingTask:
    """Open what a config trains on.

    Raises:
        FoveasimError: An option that cannot be used, or data that cannot be read.
    """
    kinds: dict[str, type[TrainingTask]] = {"view": FreeViewingTask, "search": SearchTask, "classify": ClassifyTask}
    return kinds[config.task](config)


def _common(config: TrainConfig) -> dict[str, Any]:
    return {
        "retina": retina_of(config),
        "size": config.size,
        "budget": config.budget,
        "start": config.start,
        "belief": True,
        "autoreset_mode": "SameStep",
        "device": config.device,
    }


def _make_task_env(
    config: TrainConfig, envs: SearchVectorEnv | ClassifyVectorEnv, extractor: FeatureExtractor
) -> TaskObservation:
    least_gain = config.actor_config(extractor.config.grid(config.size), 0).least_gain
    return TaskObservation(envs, extractor, least_gain=least_gain)


def _labelled(config: TrainConfig) -> LabelledData | None:
    """Read the labelled images, or return None where the scenes are to be the task's own.

    Raises:
        InvalidValueError: More than one source.
    """
    named = [config.data] if isinstance(config.data, str) else list(config.data)
    if not named:
        return None
    if len(named) > 1:
        raise InvalidValueError(f"data must be one labelled data set for classify; got {', '.join(named)}.")
    return read_labelled(named[0], config.size)


def retina_of(config: TrainConfig) -> Retina:
    """Build the retina that a config describes."""
    usual = {"hidden_ratio": 0.8} if config.retina == "disc" else {}
    return make_retina(config.retina, **(usual if config.retina_options is None else config.retina_options))


def read_training_scenes(config: TrainConfig) -> tuple[Scenes, Scenes | None]:
    """Read the scenes to train on, and those of validation.

    Raises:
        FoveasimError: They cannot be read.
    """
    train = read_scenes(config.data or ["photos"], config.size, limit=config.limit, seed=config.seed)
    if config.mirror:
        names = (*train.name, *(f"{name}, mirrored" for name in train.name))
        train = Scenes(np.concatenate((train.image, train.image[:, :, ::-1])), names)
    if not config.validate:
        return train, None
    limit = config.validate_limit
    return train, read_scenes(config.validate, config.size, limit=limit, seed=config.seed)


def make_feature_env(
    config: TrainConfig, scenes: Scenes, belief_predictor: BeliefPredictor, autoreset_mode: str = "SameStep"
) -> FeatureObservation:
    """Build the eyes that a policy is trained with: features of the network, and its reward."""
    weights = config.reward_weights()
    envs = FoveaVectorEnv(
        config.lanes,
        scenes=ArrayScenes(scenes.image),
        retina=retina_of(config),
        size=config.size,
        budget=config.budget,
        belief=True,
        privileged=bool(weights.prediction_gain) or config.imitate > 0,
        start=config.start,
        autoreset_mode=autoreset_mode,
        device=config.device,
    )
    feature_config = config.feature_config()
    least_gain = config.actor_config(feature_config.grid(config.size), 0).least_gain
    return FeatureObservation(
        PredictionReward(envs, belief_predictor, weights), feature_config, config.acts_in, least_gain=least_gain
    )
