"""The config of a gaze policy's training: :class:`TrainConfig`, and the presets, YAML files in ``presets/``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from foveasim import validation
from foveasim.agents.gaze_policy.features import FeatureConfig
from foveasim.agents.gaze_policy.network import ActorConfig
from foveasim.agents.gaze_policy.policy_files import FEATURE_CONFIGS
from foveasim.agents.gaze_policy.rewards import RewardWeights
from foveasim.agents.mim.predictor import PRECISIONS
from foveasim.agents.rl.imitation import ImitationConfig
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.presets import Presets

__all__ = ["PRESETS", "TrainConfig"]

_TASKS = ("view", "search", "classify")
_ALGORITHMS = ("ppo", "maskable_ppo", "recurrent_ppo", "sac")


@dataclass
class TrainConfig:
    """How to train a gaze policy.

    Attributes:
        task: view, where a frozen network's error is to fall; search, ``foveasim/Search-v0``; or classify,
            ``foveasim/Classify-v0``.
        task_options: Of the env of the task, such as kinds and set_sizes, or readout and cost_per_glimpse.
        data: Scenes to train on: folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``, or one name; empty for
            the bundled photos. Of classify one labelled data set, which is parted as ``foveasim readout`` does; empty
            for signs. Search has its own displays.
        test: Agents to test in place of training, on the task's test scenes: names, LABEL=AGENT, policies' files.
        test_episodes: Scenes or searches of that.
        validate: Scenes for validation, as ``data``; empty for none.
        limit: The first so many scenes of ``data``; null for all, and 100 of those that are made and have no end.
        validate_limit: The first so many of ``validate``.
        mirror: Show the scenes mirrored, too.
        size: Height and width to which scenes are cropped and scaled, px.
        retina: Name of a retina.
        retina_options: Its options; null gives disc the ``hidden_ratio`` 0.8 of the published figures, and others none.
        network: The frozen network: a shipped name or a weights file.
        precision: Of that network in training: float32, or bfloat16, quick on GPUs and on CPUs with AMX, slow on
            others.
        budget: Saccades an episode.
        start: Where episodes begin: centre or random.
        rewards: Weights of the reward's terms: prediction_gain, surprise, information_gain, coverage, saccade_ms.
        features: What the policy sees: cells, maps, numbers.
        algorithm: ppo, maskable_ppo, recurrent_ppo or sac.
        policy: Its form. cells chooses among cells by a convolutional network that scores them, by ppo or
            maskable_ppo; point and flat choose a place, or a cell with ``actions: cell``.
        actions: What it chooses: cell or point; null for what is usual with its form: cell for cells, else point.
        policy_options: width, prior, hidden, activation, memory of the policy's network, and least_gain, below which
            maskable_ppo masks a cell.
        options: Of the algorithm, by the names of stable-baselines3. A learning_rate or clip_range of ``lin_0.001``
            falls to 0 along the run.
        imitate: Episodes in which whoever knows best is imitated before: the one-step oracle, who sees the scene, in
            search whoever knows where the target lies, in classify whoever knows scene and class. 0 for none.
        imitation: How: candidates, epochs, batch, lr, oracle_share.
        lanes: Eyes at once.
        steps: Saccades in all, of all eyes.
        minutes: Or until so much time is over, whichever comes first; null for no limit.
        evaluate_steps: Saccades between validations.
        against: Agents with which validation compares.
        out: Folder for the policy, the checkpoint, the log and the picture.
        resume: Go on from the checkpoint in ``out``.
        overwrite: Begin anew in a folder that is not empty, and replace files of a run there.
        checkpoint_minutes: Time between checkpoints.
        tensorboard: Also log there; needs tensorboard.
        seed: Of everything random.
        threads: CPU threads, or null for torch's own choice.
        device: Where network, eyes and policy are.
        engine: sb3, stable-baselines3 in one process; or rllib, Ray RLlib in many, on one machine or a cluster.
        env_runners: Processes of rllib that look, with ``lanes`` shared out among them; 0 looks in the learner's own.
    """

    task: Literal["view", "search", "classify"] = "view"
    task_options: dict[str, Any] = field(default_factory=dict)
    data: list[str] | str = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    test_episodes: int = 240
    validate: list[str] | str = field(default_factory=list)
    limit: int | None = None
    validate_limit: int | None = 100
    mirror: bool = True
    size: tuple[int, int] = (96, 96)
    retina: str = "disc"
    retina_options: dict[str, Any] | None = None
    network: str = "unet"
    precision: Literal["float32", "bfloat16"] = "float32"
    budget: int = 8
    start: Literal["centre", "random"] = "centre"
    rewards: dict[str, Any] = field(default_factory=lambda: {"prediction_gain": 100.0})
    features: dict[str, Any] = field(default_factory=dict)
    algorithm: Literal["ppo", "maskable_ppo", "recurrent_ppo", "sac"] = "ppo"
    policy: Literal["cells", "point", "flat"] = "cells"
    actions: Literal["cell", "point"] | None = None
    policy_options: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    imitate: int = 0
    imitation: dict[str, Any] = field(default_factory=dict)
    lanes: int = 32
    steps: int = 200_000
    minutes: float | None = None
    evaluate_steps: int = 25_000
    against: list[str] = field(default_factory=lambda: ["random", "uncertainty"])
    out: str = "runs/train"
    resume: bool = False
    overwrite: bool = False
    checkpoint_minutes: float = 2.0
    tensorboard: bool = False
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    engine: Literal["sb3", "rllib"] = "sb3"
    env_runners: int = 2

    def __post_init__(self) -> None:
        for name, known in (
            ("task", _TASKS),
            ("algorithm", _ALGORITHMS),
            ("policy", ("cells", "point", "flat")),
            ("actions", (None, "cell", "point")),
            ("precision", PRECISIONS),
            ("start", ("centre", "random")),
            ("engine", ("sb3", "rllib")),
        ):
            if getattr(self, name) not in known:
                raise InvalidValueError(
                    f"{name} must be one of {', '.join(map(str, known))}; got {getattr(self, name)!r}."
                )
        for name, minimum in (
            ("budget", 1),
            ("lanes", 1),
            ("steps", 1),
            ("evaluate_steps", 1),
            ("imitate", 0),
            ("threads", 1),
            ("limit", 1),
            ("validate_limit", 1),
            ("test_episodes", 4),
            ("env_runners", 0),
        ):
            if getattr(self, name) is not None:
                validation.whole(name, getattr(self, name), minimum, 2**31)
        for name in ("minutes", "checkpoint_minutes"):
            if getattr(self, name) is not None:
                validation.number(name, getattr(self, name), 0, open_low=True)
        validation.seed_value("seed", self.seed)
        self._check_task()
        if self.policy == "cells" and (self.algorithm in ("recurrent_ppo", "sac") or self.actions == "point"):
            raise InvalidValueError(
                f"policy 'cells' chooses cells, by ppo or maskable_ppo; got {self.algorithm} and actions "
                f"{self.actions}. Use --policy point or flat."
            )
        if self.algorithm == "sac" and self.acts_in != "point":
            raise InvalidValueError("sac chooses points: use --actions point, or ppo for cells.")
        if self.algorithm == "maskable_ppo" and self.acts_in != "cell":
            raise InvalidValueError("maskable_ppo chooses cells: use --actions cell, or ppo for points.")
        if self.imitate and self.algorithm == "recurrent_ppo":
            raise InvalidValueError("imitate must be 0 with recurrent_ppo: single moments say nothing of a memory.")
        if self.engine == "rllib":
            self._check_rllib()
        self.reward_weights(), self.imitation_config()
        self.actor_config((1, 1), 0)

    def _check_rllib(self) -> None:
        for name, usual in (("algorithm", "ppo"), ("imitate", 0), ("resume", False), ("tensorboard", False)):
            if getattr(self, name) != usual:
                raise InvalidValueError(
                    f"{name} must be {usual!r} with the engine rllib; got {getattr(self, name)!r}. Use --engine sb3."
                )
        if self.lanes < self.env_runners:
            raise InvalidValueError(f"lanes must be at least env_runners, {self.env_runners}; got {self.lanes}.")

    def _check_task(self) -> None:
        if self.task == "view":
            for name, what in (("task_options", self.task_options), ("test", self.test)):
                if what:
                    raise InvalidValueError(
                        f"{name} is for the tasks search and classify; got {what!r}. Free viewing is compared by "
                        "'foveasim compare'."
                    )
            return
        if self.policy != "cells" or self.engine != "sb3":
            raise InvalidValueError(
                f"task {self.task!r} is trained by a policy of cells and the engine sb3; got {self.policy!r} and "
                f"{self.engine!r}."
            )
        if self.task == "search" and self.data:
            raise InvalidValueError(f"search has its own displays; got data {self.data!r}. Use --task_options.")
        if self.validate:
            raise InvalidValueError(
                f"validate is for free viewing: {self.task} keeps a part of its own scenes; got {self.validate!r}."
            )
        taken = {"retina", "size", "budget", "start", "belief", "autoreset_mode", "device", "split", "scenes"}
        known = sorted(taken & set(self.task_options))
        if known:
            raise InvalidValueError(f"task_options must leave {', '.join(known)} to the options of training.")

    @property
    def acts_in(self) -> Literal["cell", "point"]:
        """What the policy chooses."""
        return self.actions or ("cell" if self.policy == "cells" else "point")

    def reward_weights(self) -> RewardWeights:
        """Return the reward's weights."""
        made: RewardWeights = _made("rewards", RewardWeights, {"prediction_gain": 0.0, **self.rewards})
        return made

    def feature_config(self, **more: Any) -> FeatureConfig:
        """Return what the policy sees; ``more`` follows from the data."""
        made: FeatureConfig = _made("features", FEATURE_CONFIGS[self.task], {**self.features, **more})
        return made

    def imitation_config(self) -> ImitationConfig:
        """Return how the oracle is imitated."""
        made: ImitationConfig = _made("imitation", ImitationConfig, self.imitation)
        return made

    def actor_config(
        self, grid: tuple[int, int], numbers: int, feature_config: FeatureConfig | None = None, stop: bool = False
    ) -> ActorConfig:
        """Return the form of the policy's network on a grid, with so many numbers to see, and perhaps a stop action."""
        feature_config = self.feature_config() if feature_config is None else feature_config
        sac = self.algorithm == "sac"
        usual: dict[str, Any] = {}
        if self.policy != "cells":
            usual = {"hidden": (64, 64), "activation": "relu" if sac else "tanh"}
        usual["least_gain"] = 0.05 if self.algorithm == "maskable_ppo" else 0.0
        usual["memory"] = 64 if self.algorithm == "recurrent_ppo" else 0
        gain = feature_config.channel("gain")
        usual["prior"] = 20.0 if gain is not None and self.policy != "flat" else 0.0
        cells = max(grid[0] * grid[1], 4)
        outputs = cells if self.acts_in == "cell" else 2
        found: ActorConfig = _made(
            "policy_options",
            ActorConfig,
            {
                **usual,
                **self.policy_options,
                "kind": self.policy,
                "grid": grid,
                "channels": feature_config.channels,
                "numbers": numbers,
                "gain_channel": gain,
                "outputs": outputs,
                "squash": sac,
                "stop": stop,
            },
        )
        if bool(found.memory) != (self.algorithm == "recurrent_ppo"):
            raise InvalidValueError(f"memory is for recurrent_ppo, and it needs one; got {found.memory}.")
        return found


def _made(name: str, kind: type[Any], values: dict[str, Any]) -> Any:
    """Build one of the dataclasses that an option stands for."""
    try:
        return kind(**values)
    except InvalidTypeError:
        raise
    except TypeError as error:
        known = [one.name for one in fields(kind)]
        unknown = [key for key in values if key not in known]
        what = f"there is no {unknown[0]!r}" if unknown else str(error)
        raise InvalidTypeError(f"{name}: {what}. Choose from {', '.join(known)}.") from error


PRESETS = Presets("foveasim.agents.rl", TrainConfig)
"""Those that ship."""
