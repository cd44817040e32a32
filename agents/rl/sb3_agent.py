"""A model of stable-baselines3, in hand or in its file, seen as an agent."""

from __future__ import annotations

import functools
import importlib
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from foveasim import trust
from foveasim.agents.interface import ACTION_MODES, DEFAULT_GRID, Agent, Observation, describe_agent, observed
from foveasim.errors import AgentError, FoveasimError, InvalidValueError, MissingDependencyError
from foveasim.registry import describe
from foveasim.validation import seed_value, size_hw

__all__ = ["SB3Agent", "algorithm_of", "model_factory"]

_MAX_JSON_BYTES = 1 << 26  # a model's settings take some 50 kB; a zip of a few bytes can claim to hold gigabytes

_BY_POLICY = {
    "sb3_contrib.common.recurrent.": "sb3_contrib:RecurrentPPO",
    "sb3_contrib.common.maskable.": "sb3_contrib:MaskablePPO",
    "sb3_contrib.crossq.": "sb3_contrib:CrossQ",
    "sb3_contrib.qrdqn.": "sb3_contrib:QRDQN",
    "sb3_contrib.tqc.": "sb3_contrib:TQC",
    "stable_baselines3.dqn.": "stable_baselines3:DQN",
    "stable_baselines3.sac.": "stable_baselines3:SAC",
    "stable_baselines3.td3.": "stable_baselines3:TD3",
}
"""The algorithm by the module of its policy class."""

_BY_SETTING = {
    "cg_max_steps": "sb3_contrib:TRPO",
    "clip_range": "stable_baselines3:PPO",
    "gae_lambda": "stable_baselines3:A2C",
    "target_entropy": "stable_baselines3:SAC",
    "target_policy_noise": "stable_baselines3:TD3",
    "exploration_fraction": "stable_baselines3:DQN",
}
"""Else, for policies of one's own, by a setting that no algorithm after it in this order has."""


def algorithm_of(path: str) -> str:
    """Return the algorithm that saved a model, ``package:Class``, from the zip's JSON alone: nothing is unpickled.

    Raises:
        AgentError: No such file, no zip, or none of stable-baselines3; or an algorithm that is not known here.
    """
    try:
        with zipfile.ZipFile(Path(path).expanduser()) as archive:
            size = archive.getinfo("data").file_size
            if size > _MAX_JSON_BYTES:
                raise ValueError(f"its settings claim {size:,} bytes")
            settings = json.loads(archive.read("data"))
        module = str(settings["policy_class"]["__module__"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError, NotImplementedError, zipfile.BadZipFile) as error:
        raise AgentError(
            f"{path!r} must be a zip that stable-baselines3 saved; it is none ({error}). Save the model again by "
            "model.save(path)."
        ) from error
    for prefix, name in _BY_POLICY.items():
        if f"{module}.".startswith(prefix):
            return name
    for setting, name in _BY_SETTING.items():
        if setting in settings:
            return name
    raise AgentError(
        f"{path!r} must be of an algorithm of stable-baselines3 or sb3-contrib; its policy is of {module!r}. Load it "
        "in Python and pass the model to make_agent."
    )


def model_factory(path: str) -> Callable[..., Agent]:
    """Return what builds the agent of a saved model, read once: its arguments are those of ``SB3Agent``.

    Raises:
        UntrustedError: The person did not type ``--trust``.
        AgentError: The file is no such model, or cannot be loaded here.
        MissingDependencyError: Its package is not installed.
    """
    trust.check_pickle(path)
    package, _, name = algorithm_of(path).partition(":")
    try:
        algorithm: Any = getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise MissingDependencyError(
            f"{path!r} needs {package.replace('_', '-')}, which is not installed. Install it: pip install foveasim[rl]"
        ) from error
    try:
        model = algorithm.load(Path(path).expanduser(), device="cpu")
    except Exception as error:  # a pickle raises whatever it likes
        raise AgentError(
            f"{path!r} cannot be loaded as {name}: {describe(error)}. Load it where it was saved, by the same versions "
            "of stable-baselines3, torch and numpy."
        ) from error
    return functools.partial(SB3Agent, model)


_CHANNELS = {"glimpse": 3, "acuity": 1, "belief": 3, "belief_acuity": 1, "scene": 3}
"""The maps of an observation, all of the scene's size, and their channels."""

_NEEDED = {"belief": "belief", "belief_acuity": "belief", "scene": "scene", "patch": "patch"}
"""Under which key an agent asks for what is not always there."""

_TASK_KEYS = ("target", "posterior")
"""What the observations of ``foveasim/Search-v0`` and ``foveasim/Classify-v0`` have besides, without a request."""

_KEYS = (*_CHANNELS, "fixation", "time", "patch", *_TASK_KEYS)


class SB3Agent:
    """Calls the ``predict`` of a model that was trained on a foveasim env, or of anything that has the same method.

    What the model must see and how its actions are read follow from its spaces. One thing does not: displacements
    and places have the same action space, so a model trained with ``action_mode="relative"`` must say so here, or its
    displacements are taken for places.

    Recurrent models (sb3-contrib) keep their state from step to step and lose it at a lane's reset. Images are given
    channels first to a model that was trained so, as stable-baselines3 does. The model is used as it is; nothing is
    read from a file.

    Args:
        model: Has ``predict(observation, state, episode_start, deterministic)``, ``observation_space`` (a Dict) and
            ``action_space``: ``Box(-1, 1, (2,))`` or ``Discrete(rows * cols)``; with a stop action ``Box(-1, 1, (3,))``
            or ``Discrete(rows * cols + 1)``.
        deterministic: Take the likeliest action. Otherwise actions are sampled, repeatably by ``seed``.
        action_mode: How the actions are read; None: ``"grid"`` for a Discrete action space, otherwise ``"absolute"``.
        grid: (rows, cols) of a Discrete action space; None: as many rows as columns.
        seed: Seed of the sampling.
        stop: What becomes of a stop action. None hands it on if the model was trained on a task (it sees ``target`` or
            ``posterior``) and refuses it otherwise, for a third number may be a zoom as well; True hands it on; False
            drops it, so that the model only looks, in the window, say, or in an env without a stop action.

    Attributes:
        action_mode: "absolute", "relative" or "grid".
        grid: (rows, cols) that its cells are counted in; (8, 8) where it does not choose cells.
        size: (H, W) of the scenes it was trained on, px; None where it sees no map.
        patch_shape: (h, w, 3 S) of the receptors it was trained on; None where it sees none.
        needs: Extra observation keys, from the model's observation space.
        keys: Every key of that space.

    Raises:
        AgentError: The model does not see a Dict of observations by name, sees something that no foveasim env shows, or
            acts in a way that an agent cannot: by zoom, by a stop action outside of a task, or in a grid of unknown
            sides.
        InvalidValueError: An unknown action mode, or one that does not fit the action space.
    """

    __repr__ = describe_agent

    def __init__(
        self,
        model: Any,
        deterministic: bool = True,
        action_mode: str | None = None,
        grid: tuple[int, int] | None = None,
        seed: int = 0,
        stop: bool | None = None,
    ) -> None:
        space = model.observation_space
        if not isinstance(space, spaces.Dict):
            raise AgentError(
                f"the model must see a Dict of observations by name (glimpse, acuity, ...); it sees {space}. "
                "Train it on a foveasim env with MultiInputPolicy, without flattening the observation."
            )
        _refuse_normalised(model)
        self.keys = tuple(space.spaces)
        self.needs = _needs(self.keys)
        self.size, self.patch_shape = _size(space.spaces), _patch_shape(space.spaces)
        stops = any(key in self.keys for key in _TASK_KEYS) if stop is None else True
        self.action_mode, self.grid = _actions(model.action_space, action_mode, grid, stops)
        self._drops = stop is False
        self.name = type(model).__name__
        self._model = model
        self._shapes = {key: box.shape or () for key, box in space.spaces.items()}
        self._deterministic = deterministic
        self._draws = torch.Generator().manual_seed(seed_value("seed", seed))
        self._state: tuple[NDArray[Any], ...] | None = None
        self._start = np.zeros(0, np.bool_)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Mark the lanes, (B,) bool, whose recurrent state the model forgets at the next ``act``."""
        lanes = np.asarray(lanes)
        if len(lanes) != len(self._start):
            self._state = None
            self._start = np.zeros(len(lanes), np.bool_)
        self._start = self._start | lanes

    def act(self, observation: Observation) -> NDArray[Any]:
        """Return the model's actions: (B, 2) float32, (B, 3) with a stop action, or (B,) integers that are cells.

        Raises:
            AgentError: The observation lacks a key that the model was trained on, or has another size.
        """
        seen = {key: _fit(key, observed(observation, key), shape) for key, shape in self._shapes.items()}
        if any(len(value) != len(self._start) for value in seen.values()):
            raise AgentError(f"the last reset had {len(self._start)} lanes. Call reset(np.ones(B, bool)) first.")
        # predict samples from torch's global generators: they are set for the call and put back after it.
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()), enabled=not self._deterministic):
            if not self._deterministic:
                torch.manual_seed(int(torch.randint(2**62, (), generator=self._draws)))
            action, self._state = self._model.predict(
                seen, state=self._state, episode_start=self._start, deterministic=self._deterministic
            )
        self._start = np.zeros_like(self._start)
        action = np.asarray(action)
        return _without_stop(action, observed(observation, "fixation"), self.grid) if self._drops else action


def _refuse_normalised(model: Any) -> None:
    """Raise AgentError for a model whose training normalised what it saw: here it would see something else."""
    normaliser = getattr(model, "get_vec_normalize_env", lambda: None)()
    if normaliser is not None and normaliser.norm_obs:
        raise AgentError(
            "the model was trained on observations normalised by VecNormalize, which an agent does not see. "
            "Train it with VecNormalize(..., norm_obs=False); images are scaled by its policy anyway."
        )


def _needs(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return what to ask for so that every key is there."""
    unknown = [key for key in keys if key not in _KEYS]
    if unknown:
        raise AgentError(
            f"the model was trained to see {', '.join(map(repr, unknown))}, which no foveasim env shows; there are "
            f"{', '.join(_KEYS)}. Train it without the wrapper that adds it."
        )
    return tuple(dict.fromkeys(_NEEDED[key] for key in keys if key in _NEEDED))


def _size(boxes: Mapping[str, gymnasium.Space[Any]]) -> tuple[int, int] | None:
    """Return (H, W) of the maps, channels last or first."""
    found: dict[str, tuple[int, int]] = {}
    for key, channels in _CHANNELS.items():
        if key not in boxes:
            continue
        shape = boxes[key].shape or ()
        if len(shape) == 3 and shape[2] == channels:
            found[key] = shape[0], shape[1]
        elif len(shape) == 3 and shape[0] == channels:
            found[key] = shape[1], shape[2]
        else:
            raise AgentError(
                f"the model's {key} must be (H, W, {channels}) or ({channels}, H, W); it is {shape}. "
                "Train it without wrappers that resize, flatten or stack frames (VecFrameStack)."
            )
    if len(set(found.values())) > 1:
        raise AgentError(f"the maps that the model sees must have one size; they have {found}.")
    return next(iter(found.values()), None)


def _patch_shape(boxes: Mapping[str, gymnasium.Space[Any]]) -> tuple[int, int, int] | None:
    """Return (h, w, 3 S), in the order of the maps, or without any by stable-baselines3's rule: fewest are channels."""
    if "patch" not in boxes:
        return None
    shape = boxes["patch"].shape or ()
    if len(shape) != 3:
        raise AgentError(f"the model's patch must be (h, w, 3 S); it is {shape}.")
    maps = [boxes[key].shape or () for key in _CHANNELS if key in boxes]
    channels_first = maps[0][0] in (1, 3) if maps else shape[0] == min(shape)
    return (shape[1], shape[2], shape[0]) if channels_first else (shape[0], shape[1], shape[2])


def _without_stop(action: NDArray[Any], fixation: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[Any]:
    """Return where the model looks, wish to stop or not; a cell that stops becomes the one that gaze is in."""
    if action.ndim == 2:
        return action[:, :2]
    rows, cols = grid
    at = np.floor((fixation + 1) / 2 * (cols, rows)).astype(np.int64).clip(0, (cols - 1, rows - 1))
    return np.where(action == rows * cols, at[:, 1] * cols + at[:, 0], action)


def _actions(
    space: gymnasium.Space[Any], mode: str | None, grid: tuple[int, int] | None, stops: bool
) -> tuple[str, tuple[int, int]]:
    """Return how actions of this space are read: the action mode and (rows, cols); one more may be to stop."""
    if mode is not None and mode not in ACTION_MODES:
        raise InvalidValueError(f"action_mode must be one of {', '.join(ACTION_MODES)}; got {mode!r}.")
    if isinstance(space, spaces.Discrete):
        if mode not in (None, "grid"):
            raise InvalidValueError(f"action_mode must be 'grid' for a model that acts in {space}; got {mode!r}.")
        return "grid", _sides(int(space.n), grid, stops)
    sizes = ((2,), (3,)) if stops else ((2,),)
    if isinstance(space, spaces.MultiDiscrete) or (
        isinstance(space, spaces.Box) and space.shape in ((3,), (4,)) and space.shape not in sizes
    ):
        raise AgentError(
            f"the model acts in {space}, with a zoom or stop action, and an agent only says where to look. "
            "Train it on an env with zoom=False and stop=False; or, if the third number is the wish to stop, give "
            "stop=True."
        )
    if (
        not isinstance(space, spaces.Box)
        or space.shape not in sizes
        or (space.low != -1).any()
        or (space.high != 1).any()
    ):
        raise AgentError(
            f"the model must act in Box(-1, 1, (2,)) or Discrete(rows * cols); it acts in {space}. "
            "Train it on a foveasim env without wrappers that change the action."
        )
    if mode == "grid" or grid is not None:
        raise InvalidValueError(f"a grid is for a model that acts in Discrete(rows * cols); this one acts in {space}.")
    return mode or "absolute", DEFAULT_GRID


def _sides(cells: int, grid: tuple[int, int] | None, stops: bool) -> tuple[int, int]:
    """Return (rows, cols) of so many cells, of which one more may be to stop."""
    if grid is not None:
        try:
            rows, cols = size_hw("grid", grid, 1, 256)
        except FoveasimError as error:
            raise AgentError(str(error)) from error
    else:
        rows = cols = math.isqrt(cells)
    if rows * cols == cells or (stops and rows * cols == cells - 1):
        return rows, cols
    if rows * cols == cells - 1:
        raise AgentError(
            f"the model chooses among {cells} actions, one more than the {rows} x {cols} cells of its grid: a stop "
            "action, and an agent only says where to look. Give stop=True to hand it on, or train it on an env with "
            "stop=False" + ("." if grid is not None else ", or give its grid=(rows, cols).")
        )
    came = f"grid=({rows}, {cols}) has {rows * cols}" if grid is not None else "no square grid has so many"
    raise AgentError(
        f"the model chooses among {cells} cells; {came}. Give the grid=(rows, cols) that the model was trained with."
    )


def _fit(key: str, value: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return one observation as the model wants it: channels first where it was trained so."""
    if value.shape[1:] == shape:
        return value
    if value.ndim == 4 and (moved := np.moveaxis(value, -1, 1)).shape[1:] == shape:
        return moved
    raise AgentError(
        f"the model was trained on {key} of shape {shape}; the observation has {value.shape[1:]}. "
        "Use the size and retina it was trained with."
    )
