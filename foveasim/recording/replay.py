"""Records episodes and plays them again: does every observation come out the same, to the bit?

What is played again needs neither the agent nor the network: an episode holds the actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from numpy.typing import NDArray

from foveasim import validation
from foveasim.agents.interface import Agent, Imagines, Observation, agent_action_mode, agent_grid, agent_needs
from foveasim.envs.single import FoveaEnv
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.eye.saccade import Saccades
from foveasim.recording.episode import (
    ENV,
    SCENE,
    Episode,
    Step,
    as_json,
    digests,
    read_action,
    versions_here,
    write_action,
)
from foveasim.trust import guarded
from foveasim.types import Prediction
from foveasim.viewer.config import LookConfig

__all__ = ["Outcome", "RecordEpisode", "RecordingAgent", "play", "record_agent", "replay_episode"]

_TYPED = {"saccades": Saccades}  # arguments of an env that are no plain values


@dataclass(frozen=True)
class Outcome:
    """What came of playing an episode again.

    Attributes:
        steps: How many steps the episode has.
        first: The first step that differs, from 0; None where all are identical.
        parts: What differs there: keys of the observation, "action", "reward", "ended" or "begins"; "(scene)" is the
            scene itself.
        versions: What has another version now, (then, now) by name.
    """

    steps: int
    first: int | None = None
    parts: tuple[str, ...] = ()
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether every observation was identical."""
        return self.first is None

    def __str__(self) -> str:
        """Say it in a line or two."""
        changed = ", ".join(f"{name} {then} (now {now})" for name, (then, now) in self.versions.items())
        if self.first is None:
            return f"identical: {self.steps} steps" + (f". It was played with {changed}" if changed else "")
        other = {SCENE, "scene"} & {*self.parts}
        scene = f" The scene itself {'differs: is it the same file?' if other else 'is the same.'}"
        why = f" It was played with {changed}." if changed else " All versions are the same."
        what = ", ".join(part for part in self.parts if part != SCENE) or "the scene"
        return f"differs: step {self.first} of 0 to {self.steps - 1} is the first, in {what}.{scene}{why}"


class RecordEpisode(gym.Wrapper[dict[str, NDArray[Any]], Any, dict[str, NDArray[Any]], Any]):
    """Records the present episode of an env of foveasim, to be written as a file and played again.

    It goes around the env itself, inside all wrappers that change observations or actions. A lane of a vector env plays
    the episode that the single env plays with its seed: ``info["seed"][lane]`` and ``info["episode_number"][lane]``.

    Args:
        env: From ``gym.make("foveasim/…")``.

    Raises:
        InvalidTypeError: Another env, or one that was not made by its id.
        InvalidValueError: It was made with something that JSON cannot hold, such as an array of scenes.

    Example:
        >>> env = RecordEpisode(gym.make("foveasim/Glimpse-v0", scenes="noise", retina="disc", budget=2))
        >>> _ = env.reset(seed=3)
        >>> for action in ((0.5, 0.0), (-0.5, 0.0)):
        ...     _ = env.step(np.array(action, np.float32))
        >>> print(replay_episode(env.episode))
        identical: 3 steps
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[Any]], Any]) -> None:
        super().__init__(env)
        inside: gym.Env[Any, Any] = env
        while isinstance(inside, PassiveEnvChecker | OrderEnforcing):
            inside = inside.env
        if not isinstance(inside, FoveaEnv) or env.spec is None:
            raise InvalidTypeError(
                f"env must be from gym.make('foveasim/…'), without wrappers inside this one; got {env}."
            )
        self._eye = inside
        kwargs = {name: _plain(name, value) for name, value in env.spec.kwargs.items() if name not in _RENDER_ARGUMENTS}
        self._made: dict[str, Any] = {"id": env.spec.id, "kwargs": kwargs}
        self._steps: list[Step] = []

    @property
    def episode(self) -> Episode:
        """The present episode, so far.

        Raises:
            InvalidValueError: None has begun.
        """
        if not self._steps:
            raise InvalidValueError("no episode has begun; call reset() first.")
        return Episode(ENV, self._made, tuple(self._steps))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode; see ``FoveaEnv.reset``.

        Raises:
            InvalidValueError: Options that JSON cannot hold, such as an array as the scene.
        """
        plain_options = {name: _plain(f"options[{name!r}]", value) for name, value in (options or {}).items()}
        observation, info = self.env.reset(seed=seed, options=options)
        reset_values = {"seed": info["seed"], "episode_number": info["episode_number"], "options": plain_options}
        self._made = {"id": self._made["id"], "kwargs": self._made["kwargs"], **reset_values}
        self._steps = [Step(_hash_observation(self._eye, observation), begins=True)]
        return observation, info

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Move the eye; see ``FoveaEnv.step``."""
        result = self.env.step(action)
        observation, reward, terminated, truncated, _ = result
        before = self._steps[-1]
        self._steps[-1] = Step(before.observation, write_action(action), before.reward, before.ended, before.begins)
        self._steps.append(
            Step(_hash_observation(self._eye, observation), None, float(reward), bool(terminated or truncated))
        )
        return result  # type: ignore[return-value]


_RENDER_ARGUMENTS = ("render_mode", "render_size")


def _hash_observation(eye: FoveaEnv, observation: Mapping[str, Any]) -> dict[str, str]:
    return digests({**observation, SCENE: eye.simulator.scene_image(0).numpy()})


class RecordingAgent:
    """Passes everything on to an agent, and records what there was to see and what the agent did.

    Args:
        agent: Of one lane.
        name: What to call it.

    Attributes:
        steps: What was recorded.
    """

    def __init__(self, agent: Agent, name: str) -> None:
        self.name, self.steps = name, list[Step]()
        self._agent, self._begins = agent, True
        self._allowed = {"glimpse", "acuity", "fixation", "time", "patch", *agent_needs(agent)}
        self._allowed |= {"belief_acuity"} if "belief" in self._allowed else set()
        self.needs = tuple(dict.fromkeys((*agent_needs(agent), "belief", "scene", "target")))
        self.action_mode, self.grid = agent_action_mode(agent), agent_grid(agent)
        self.size, self.retinas = getattr(agent, "size", None), getattr(agent, "retinas", ())

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Pass on that a scene begins."""
        self._begins = True
        self._agent.reset(lanes)

    def act(self, observation: Observation) -> NDArray[Any]:
        """Return what the agent does."""
        action = self._agent.act({key: value for key, value in observation.items() if key in self._allowed})
        try:
            self.steps.append(Step(digests(observation), write_action(action), begins=self._begins))
        except (TypeError, ValueError):
            return action  # no action: whoever asked for one refuses it
        self._begins = False
        return action


class _RecordingPredictor(RecordingAgent):
    """An agent that also predicts."""

    def imagine(self, observation: Observation) -> Prediction:
        """Return what the agent predicts; whoever asks takes out what it may not see, but for ``scene``."""
        predictor = self._agent
        if not isinstance(predictor, Imagines):
            raise InvalidTypeError(f"{self.name} must have imagine(observation).")
        hidden = set() if "scene" in self._allowed else {"scene"}
        return predictor.imagine({key: value for key, value in observation.items() if key not in hidden})


def record_agent(agent: Agent, name: str) -> RecordingAgent:
    """Return an agent that is recorded, and that predicts where the agent does."""
    return _RecordingPredictor(agent, name) if isinstance(agent, Imagines) else RecordingAgent(agent, name)


class _ReplayAgent:
    """Does what was done in an episode; where it has ended, nothing more."""

    name = "replay"

    def __init__(self, episode: Episode) -> None:
        made = episode.made
        self._actions = [step.action for step in episode.steps]
        self.action_mode, self.grid = str(made["action_mode"]), validation.size_hw("grid", made["grid"], 1, 256)
        self.size = None if made["size"] is None else validation.size_hw("size", made["size"])
        self._made = 0

    @property
    def over(self) -> bool:
        return self._made >= len(self._actions)

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Observation) -> NDArray[Any]:
        if self.over:
            return np.zeros(1, np.int64) if self.action_mode == "grid" else np.zeros((1, 2), np.float32)
        self._made += 1
        return read_action(self._actions[self._made - 1], whole=self.action_mode == "grid")


def replay_episode(episode: Episode, *, trust: bool = False) -> Outcome:
    """Play an episode again and compare every observation, bit by bit.

    Args:
        episode: From :func:`read_episode`, :attr:`RecordEpisode.episode` or a recording.
        trust: Whether classes that the episode names as ``package.module:Class``, such as a retina of its own, may be
            imported, which runs code.

    Returns:
        Whether it came out the same, or which step differs first.

    Raises:
        UntrustedError: It names code, and is not trusted.
        FoveasimError: It cannot be played here: its scenes are gone, its env or retina is unknown, it is of a camera.
    """
    with guarded({}, trusts=trust):
        return play(episode)


def play(episode: Episode) -> Outcome:
    """Do what :func:`replay_episode` does, with the trust of whoever calls it."""
    played = _play_env(episode) if episode.kind == ENV else _play_session(episode)
    here = versions_here()
    other = {name: (then, here.get(name, "none")) for name, then in episode.versions.items() if then != here.get(name)}
    for number, (then, now) in enumerate(zip(episode.steps, played, strict=False)):
        parts = _difference(then, now)
        if parts:
            return Outcome(len(episode.steps), number, parts, other)
    if len(played) < len(episode.steps):
        return Outcome(len(episode.steps), len(played), ("ended",), other)
    return Outcome(len(episode.steps), None, (), other)


def _difference(then: Step, now: Step) -> tuple[str, ...]:
    keys = [*then.observation, *(key for key in now.observation if key not in then.observation)]
    parts = [key for key in keys if then.observation.get(key) != now.observation.get(key)]
    parts += [name for name in ("reward", "ended", "begins") if getattr(then, name) != getattr(now, name)]
    return tuple(parts)


def _play_env(episode: Episode) -> list[Step]:
    made = episode.made
    if not made["id"].startswith("foveasim/"):
        raise InvalidValueError(f"id must be of an env of foveasim, as 'foveasim/Glimpse-v0'; got {made['id']!r}.")
    kwargs = {name: _restored(name, value) for name, value in made["kwargs"].items()}
    try:
        env = gym.make(made["id"], **kwargs)
    except gym.error.Error as error:
        raise InvalidValueError(f"there is no env {made['id']!r} here: {error}") from error
    eye = env.unwrapped
    if not isinstance(eye, FoveaEnv):
        raise InvalidValueError(f"id must be of an env of foveasim, as 'foveasim/Glimpse-v0'; got {made['id']!r}.")
    whole = eye.lanes.actions.mode == "grid"
    try:
        number, options = made["episode_number"], {**made["options"]}
        if number == 0:
            observation, _ = env.reset(seed=made["seed"], options=options)
        else:
            env.reset(seed=made["seed"])
            eye.simulator.episode.fill_(number - 1)  # what came before leaves nothing behind but its number
            observation, _ = env.reset(options=options)
        steps = [Step(_hash_observation(eye, observation), begins=True)]
        for step in episode.steps[:-1]:
            if steps[-1].ended or step.action is None:
                break
            observation, reward, terminated, truncated, _ = env.step(read_action(step.action, whole=whole))
            steps.append(Step(_hash_observation(eye, observation), None, float(reward), bool(terminated or truncated)))
    finally:
        env.close()
    return steps


def _play_session(episode: Episode) -> list[Step]:
    made = episode.made
    known = {one.name for one in fields(LookConfig)}
    unknown = sorted(set(made["config"]) - known)
    if unknown:
        raise InvalidValueError(f"config has the unknown {', '.join(unknown)}; it may have {', '.join(sorted(known))}.")
    config = LookConfig(**made["config"])
    if config.scenes == "webcam":
        raise InvalidValueError("scenes are of a webcam, which shows something else now; this cannot be played again.")
    replay_agent = _ReplayAgent(episode)
    recording_agent = RecordingAgent(replay_agent, replay_agent.name)
    # Nobody has to predict: what the eye sees does not depend on it.
    config.agent, config.agent_arguments, config.network = recording_agent, {}, None  # type: ignore[assignment]
    session = config.open_session(threaded=False)
    try:
        # One frame more: a recording may have been interrupted within one.
        for _ in range(made["frames"] + 1):
            if replay_agent.over or session.alert:
                break
            session.advance(1000 / made["fps"])
        if session.alert:
            raise FoveasimError(session.alert)
    finally:
        session.close()
    return recording_agent.steps


def _plain(name: str, value: object) -> object:
    """Return an argument as JSON holds it.

    Raises:
        InvalidValueError: It cannot hold it.
    """
    if type(value) in _TYPED.values():
        return asdict(value)  # type: ignore[call-overload]
    value = str(value) if isinstance(value, Path) else value
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) and value.size <= 4096 else value
    try:
        as_json(value)
    except InvalidValueError as error:
        raise InvalidValueError(
            f"{name} must be a plain value to be written to a file; got {type(value).__name__}. "
            "Name scenes by a path or a name, and a retina by its name with retina_options."
        ) from error
    return value


def _restored(name: str, value: Any) -> Any:
    if name in _TYPED and isinstance(value, dict):
        kind = _TYPED[name]
        unknown = sorted(set(value) - {one.name for one in fields(kind)})
        if unknown:
            raise InvalidValueError(f"{name} has the unknown {', '.join(unknown)}. The file is damaged.")
        return kind(**value)
    return tuple(value) if isinstance(value, list) and name in ("size", "grid", "set_sizes") else value
