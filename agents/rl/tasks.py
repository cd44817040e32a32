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
from foveasim.agents.gaze_policy.classify_features import ClassifyFeatureConfig, ClassifySense, ThinkingReadout
from foveasim.agents.gaze_policy.features import FeatureConfig, TaskSense
from foveasim.agents.gaze_policy.network import Actor
from foveasim.agents.gaze_policy.policy_agents import PolicyAgent, TaskAgent, WatchfulAgent
from foveasim.agents.gaze_policy.policy_files import Policy, fingerprint
from foveasim.agents.gaze_policy.rewards import PredictionReward
from foveasim.agents.gaze_policy.search_features import SearchFeatureConfig, SearchSense
from foveasim.agents.interface import Agent
from foveasim.agents.mim.belief_readout import load_belief_readout
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.readout.labelled import LabelledData, LabelledImages, read_labelled
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.evaluation import TaskValidator, Validator
from foveasim.agents.rl.feature_env import FeatureObservation, TaskObservation
from foveasim.agents.rl.imitation import ImitationConfig, Lessons, candidate_cells, collect, supposed
from foveasim.envs.tasks.classify import ClassifyVectorEnv
from foveasim.envs.tasks.search import SearchVectorEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.scenes.source import ArrayScenes

__all__ = [
    "ClassifyCourse",
    "Course",
    "SearchCourse",
    "ViewCourse",
    "make_lanes",
    "open_course",
    "read_training",
    "retina_of",
]

_VALIDATION_SEED = 1_000_003  # of the displays that search is validated on: training draws others
_FEWEST = 20  # episodes of validation


Act: TypeAlias = Callable[[dict[str, NDArray[np.float32]]], NDArray[Any]]
"""From what the policy sees to what it does, drawn."""


class Judge(Protocol):
    """Lets agents show what they can, on what is not trained on."""

    def score(self, label: str, make: Callable[[int], Agent]) -> Any:
        """Return a :class:`Score` or :class:`TaskScore`."""


class Course:
    """What is trained on.

    Attributes:
        about: What that is, for people.
        lanes: The eyes that are trained with.
        belief_predictor: The frozen network, or None where none is needed.
        validator: Judges on what is not trained on, or None.
    """

    about: str
    lanes: Any  # a FeatureObservation, of the tasks a TaskObservation
    belief_predictor: BeliefPredictor | None
    validator: Judge | None

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    def stops(self) -> bool:
        """Whether stopping is one of the choices."""
        return isinstance(self.lanes, TaskObservation) and self.lanes.stops

    @property
    def sees(self) -> FeatureConfig:
        """What the policy sees."""
        seen: FeatureConfig = self.lanes.config
        return seen

    def policy(self, actor: Actor, card: Mapping[str, Any]) -> Policy:
        """Return an actor as a policy that can be saved."""
        config, known = self.config, ""
        if self.belief_predictor is not None:
            known = fingerprint(self.belief_predictor.predictor.network)
        readout = config.task_options.get("readout", "")
        named = config.network if self.belief_predictor is not None else ""
        return Policy(actor, self.sees, named, known, card, config.task, readout if isinstance(readout, str) else "")

    def agent(self, policy: Policy, seed: int) -> Agent:
        """Return the agent of a policy."""
        if self.belief_predictor is None:
            return TaskAgent(policy, self.config.device, seed=seed)
        return WatchfulAgent(policy, self.config.device, seed=seed, belief_predictor=self.belief_predictor)

    def lessons(
        self, act: Act, episodes: int, how: ImitationConfig, seed: int, tell: Callable[[float], None]
    ) -> Lessons:
        """Walk through episodes beside someone who knows where to look; see :func:`foveasim.agents.rl.imitation.fit`.

        Raises:
            InvalidValueError: Nobody knows.
        """
        raise InvalidValueError(f"nobody knows where to look in the task {self.config.task!r}: use --imitate 0.")

    def references(self, words: Sequence[str]) -> list[Entry]:
        """Return the agents that validation compares with."""
        common: dict[str, object] = {"retina": retina_of(self.config), "device": self.config.device}
        if self.belief_predictor is not None:
            common |= {"network": self.belief_predictor.predictor.network, "belief_predictor": self.belief_predictor}
        return open_entries(words, {}, common)[0] if words else []


class ViewCourse(Course):
    """Free viewing: a frozen network's error is to fall."""

    belief_predictor: BeliefPredictor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.belief_predictor = BeliefPredictor(config.network, config.device, config.precision)
        scenes, held_out = read_training(config)
        self.lanes = make_lanes(config, scenes, self.belief_predictor)
        self.validator = None
        self.about = f"{len(scenes.name):,} scenes"
        if held_out is not None:
            self.validator = Validator(
                held_out, retina_of(config), self.belief_predictor.predictor, budget=config.budget, seed=config.seed
            )
            self.about += f", {len(held_out.name):,} for validation"

    def agent(self, policy: Policy, seed: int) -> Agent:
        """Return the agent of a policy."""
        return PolicyAgent(
            policy, str(self.belief_predictor.device), seed=seed, predictor=self.belief_predictor.predictor
        )

    def lessons(
        self, act: Act, episodes: int, how: ImitationConfig, seed: int, tell: Callable[[float], None]
    ) -> Lessons:
        """Walk through episodes beside the one-step oracle."""
        return collect(self.lanes, act, episodes, how, seed, tell)


class SearchCourse(Course):
    """``foveasim/Search-v0``: the target is to be found."""

    belief_predictor = None

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        sees = config.sees()
        if not isinstance(sees, SearchFeatureConfig):
            raise InvalidValueError(f"features must be those of search; got {type(sees).__name__}.")
        self.envs_of_lanes = envs = self.envs(config.lanes)
        self.lanes = _lanes(config, envs, SearchSense(sees, config.device))
        count = max(_FEWEST, config.validate_limit or 100)
        self.validator = TaskValidator(self.envs(count, scene_seed=_VALIDATION_SEED), config.seed)
        source = envs.source
        self.about = f"{len(source):,} displays, {count} for validation"

    def lessons(
        self, act: Act, episodes: int, how: ImitationConfig, seed: int, tell: Callable[[float], None]
    ) -> Lessons:
        """Walk through episodes by the policy alone, beside someone who knows where the target lies.

        A cell whose place lies on the target has the gain 1; where none does, the nearest has a half, for looking there
        shows the target sharply.
        """
        kept: list[tuple[Tensor, ...]] = []
        observation, info = self.lanes.reset(seed=seed)
        size = torch.tensor([self.config.size[1], self.config.size[0]], dtype=torch.float32)
        ended, source = 0, self.envs_of_lanes.source
        while ended < episodes:
            seen = self.lanes.seen
            sought = torch.from_numpy(np.asarray(info["sought_px"], np.float32))
            points = seen.points.cpu()
            away = ((points + 1) * (size / 2) - sought[:, None]).norm(dim=2)
            gains = (away <= source.display(0).radius_px).float()
            near = torch.zeros_like(gains).scatter_(1, away.argmin(1, keepdim=True), 0.5)
            cells = torch.arange(gains.shape[1]).expand(len(gains), -1)
            gains = torch.where(gains.amax(1, keepdim=True) > 0, gains, near)
            kept.append((seen.maps.cpu(), seen.numbers.cpu(), cells, points, gains))
            observation, _, terminated, _, info = self.lanes.step(act(observation))
            ended += int(np.count_nonzero(terminated))
            tell(min(ended / episodes, 1.0))
        return Lessons(*(torch.cat(column).clone() for column in zip(*kept, strict=True)))

    def envs(self, lanes: int, **options: Any) -> SearchVectorEnv:
        """Make envs of the config's options and others that come before them."""
        return SearchVectorEnv(lanes, **{**_common(self.config), **self.config.task_options, **options})


class ClassifyCourse(Course):
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
            self._options["readout"] = ThinkingReadout(
                load_belief_readout(readout, config.device), self.belief_predictor
            )
        # The scene itself is for whoever knows best (lessons); the policy never sees it.
        self.envs_of_lanes = envs = self.envs(config.lanes, "train", privileged=config.imitate > 0)
        sees = config.sees(classes=len(envs.classes))
        if not isinstance(sees, ClassifyFeatureConfig):
            raise InvalidValueError(f"features must be those of classify; got {type(sees).__name__}.")
        self.lanes = _lanes(config, envs, ClassifySense(sees, self.belief_predictor))
        count = max(_FEWEST, config.validate_limit or 100)
        self.validator = TaskValidator(self.envs(count, "validation"), config.seed)
        self.about = f"{len(envs.simulator.scenes):,} scenes of {len(envs.classes)} classes, {count} for validation"

    def lessons(
        self, act: Act, episodes: int, how: ImitationConfig, seed: int, tell: Callable[[float], None]
    ) -> Lessons:
        """Walk through episodes beside someone who knows scene and class and tries places.

        The gain of a place is by how much a glimpse of it would raise the logarithm of the class's probability, less
        the cost of a glimpse. To stop gains nothing: it is better than any place where a glimpse is worth less than it
        costs.
        """
        kept: list[tuple[Tensor, ...]] = []
        draws = torch.Generator().manual_seed(seed)
        self.lanes.reset(seed=seed)
        envs, ended = self.envs_of_lanes, 0
        while ended < episodes:
            seen, present = self.lanes.seen, self.lanes.observed
            with torch.inference_mode():
                cells = candidate_cells(seen, how.candidates, draws)
                points = seen.points.gather(1, cells[:, :, None].expand(-1, -1, 2))
                scene = torch.as_tensor(present["scene"]).to(self.belief_predictor.device)
                beliefs, known = supposed(self.belief_predictor.predict_from(present), scene, points)
                said = envs.posterior_of(beliefs.flatten(0, 1), known.flatten(0, 1)).reshape(*cells.shape, -1)
            label = envs.as_array(envs.simulator.label)
            right = np.take_along_axis(said, label[:, None, None], 2)[:, :, 0]
            before = np.take_along_axis(np.asarray(present["posterior"]), label[:, None], 1)
            gains = torch.from_numpy(np.log(right) - np.log(before)) - envs.cost_per_glimpse
            best = cells.cpu().gather(1, gains.argmax(1, keepdim=True))[:, 0].numpy()
            if self.stops:
                cells = torch.cat((cells, torch.full_like(cells[:, :1], seen.gain.shape[1])), 1)
                points = torch.cat((points, torch.zeros_like(points[:, :1])), 1)
                gains = torch.cat((gains, torch.zeros_like(gains[:, :1])), 1)
            kept.append(tuple(one.cpu() for one in (seen.maps, seen.numbers, cells, points, gains)))
            led = (torch.rand(len(best), generator=draws) < how.oracle_share).numpy()
            shown = {"maps": seen.maps.cpu().numpy(), "numbers": seen.numbers.cpu().numpy()}
            _, _, terminated, _, _ = self.lanes.step(np.where(led, best, act(shown)))
            ended += int(np.count_nonzero(terminated))
            tell(min(ended / episodes, 1.0))
        # Lane by lane: what is held out at the end then are whole episodes.
        return Lessons(*(torch.stack(column, 1).flatten(0, 1) for column in zip(*kept, strict=True)))

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

    def envs(self, lanes: int, part: str, **options: Any) -> ClassifyVectorEnv:
        """Make envs on a part of the data, "train", "validation" or "test"."""
        scenes: dict[str, Any] = {"split": "test" if part == "test" else "train"}
        if self.data is not None:
            shown = self.images(part)
            scenes = {"scenes": ArrayScenes(shown.images, label=shown.labels.tolist(), labels=self.data.classes)}
        given = {**_common(self.config), **scenes, **self._options, **options}
        del given["belief"]
        return ClassifyVectorEnv(lanes, **given)


def open_course(config: TrainConfig) -> Course:
    """Open what a config trains on.

    Raises:
        FoveasimError: An option that cannot be used, or data that cannot be read.
    """
    kinds: dict[str, type[Course]] = {"view": ViewCourse, "search": SearchCourse, "classify": ClassifyCourse}
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


def _lanes(config: TrainConfig, envs: SearchVectorEnv | ClassifyVectorEnv, sense: TaskSense) -> TaskObservation:
    least = config.actor(sense.config.grid(config.size), 0).least_gain
    return TaskObservation(envs, sense, least_gain=least)


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


def read_training(config: TrainConfig) -> tuple[Scenes, Scenes | None]:
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


def make_lanes(
    config: TrainConfig, scenes: Scenes, belief_predictor: BeliefPredictor, autoreset_mode: str = "SameStep"
) -> FeatureObservation:
    """Build the eyes that a policy is trained with: features of the network, and its reward."""
    weights = config.weights()
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
    sees = config.sees()
    least = config.actor(sees.grid(config.size), 0).least_gain
    return FeatureObservation(PredictionReward(envs, belief_predictor, weights), sees, config.acts_in, least_gain=least)
