"""Episodes as files: what was seen and done, step by step.

An episode file is JSON. It holds what makes the episode (the env's id and arguments with its seed and options, or the
config of a recorded session), every action, and instead of the observations a hash of each of their parts; and the
versions of what played it. It holds no code. :mod:`foveasim.recording.replay` records and plays episodes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

import foveasim
from foveasim import validation
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.runs.whole_files import write_atomically

__all__ = [
    "ENV",
    "SCENE",
    "SESSION",
    "Action",
    "Episode",
    "Step",
    "as_json",
    "digests",
    "read_action",
    "read_episode",
    "versions_here",
    "write_action",
]

ENV, SESSION = "env", "session"
SCENE = "(scene)"
"""What the hash of the scene itself is stored under; no key of an observation is called so."""

_FORMAT, _FORMAT_VERSION = "foveasim episode", 1
_MAX_BYTES = 1 << 28
_PACKAGES = ("torch", "numpy", "numba", "gymnasium", "opencv-python-headless", "pillow")

Action: TypeAlias = "float | int | list[Any]"


def versions_here() -> dict[str, str]:
    """Return the versions of what plays episodes here, by name."""
    found = {"foveasim": foveasim.__version__, "python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def digests(observation: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of every part of an observation, of its dtype, shape and bytes: 16 hexadecimal digits of BLAKE2b.

    Example:
        >>> digests({"time": np.ones(1, np.float32)})
        {'time': '1714d9efae302404'}
    """
    found = {}
    for key, value in observation.items():
        array = np.ascontiguousarray(value)
        about = f"{array.dtype.str} {np.shape(value)}".encode()
        found[key] = hashlib.blake2b(about + array.tobytes(), digest_size=8).hexdigest()
    return found


@dataclass(frozen=True)
class Step:
    """A moment of an episode.

    Attributes:
        observation: Hashes of what was seen, see :func:`digests`.
        action: What was done then; None at the end of an episode.
        reward: Of the action before, None at the beginning and in sessions.
        ended: Whether the episode ended with it.
        begins: Whether a scene begins with it.
    """

    observation: Mapping[str, str]
    action: Action | None = None
    reward: float | None = None
    ended: bool = False
    begins: bool = False


@dataclass(frozen=True, repr=False)
class Episode:
    """An episode of an env, or the scenes of a recorded session.

    Attributes:
        kind: ``ENV`` or ``SESSION``.
        made: What makes it. Of an env ``id`` and ``kwargs``, ``seed``, ``episode_number`` and the ``options`` of its
            reset. Of a session ``config``, the fields of
            :class:`foveasim.viewer.config.LookConfig`, ``fps`` and ``frames``.
        steps: What happened.
        versions: Of what played it.
    """

    kind: str
    made: Mapping[str, Any]
    steps: tuple[Step, ...]
    versions: Mapping[str, str] = field(default_factory=versions_here)

    def __repr__(self) -> str:
        what = self.made.get("id", "")
        steps = "1 step" if len(self.steps) == 1 else f"{len(self.steps)} steps"
        return f"Episode({', '.join([repr(self.kind), *([repr(what)] if what else []), steps])})"

    def write(self, path: str | Path) -> None:
        """Write a file; an older one is replaced when this one is whole.

        Raises:
            InvalidValueError: Something that JSON cannot hold, or a place that cannot be written to.
        """
        content: dict[str, Any] = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "versions": self.versions}
        content |= {"kind": self.kind, "made": self.made}
        head = as_json(content)[:-1]
        steps = ",\n  ".join(as_json(asdict(step)) for step in self.steps)
        try:
            write_atomically(Path(path), f'{head}, "steps": [\n  {steps}\n]}}\n'.encode())
        except OSError as error:
            raise InvalidValueError(f"cannot write {path}: {error.strerror or error}.") from error


def read_episode(path: str | Path) -> Episode:
    """Read an episode's file. Nothing that it names is opened or imported yet.

    Raises:
        InvalidValueError: It cannot be read, is no episode, is damaged, or comes from a later version of foveasim.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidValueError(f"{path} is no episode: it has more than {_MAX_BYTES >> 20} MiB.")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidValueError(f"cannot read {path}: {error.strerror or error}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, FoveasimError):
            raise
        raise InvalidValueError(
            f"{path} is no episode, or not whole: it is no JSON ({error}). 'foveasim record' writes one beside a video."
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InvalidValueError(
            f"{path} is no episode: 'format' must be {_FORMAT!r}. 'foveasim record' writes one beside a video."
        )
    if content.get("format_version") != _FORMAT_VERSION:
        raise InvalidValueError(
            f"{path}: format_version must be {_FORMAT_VERSION}; got {content.get('format_version')!r}. Update foveasim."
        )
    try:
        return _checked(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidValueError(f"{path} is no whole episode: {missing}. Record it again.") from error


def _checked(content: Mapping[str, Any]) -> Episode:
    kind, made, versions = content["kind"], content["made"], content["versions"]
    if kind not in (ENV, SESSION):
        raise ValueError(f"kind must be {ENV!r} or {SESSION!r}; got {kind!r}")
    needed = {
        ENV: {"id": str, "kwargs": dict, "seed": int, "episode_number": int, "options": dict},
        SESSION: {"config": dict, "fps": float, "frames": int, "action_mode": str, "grid": list},
    }[kind]
    for name, form in needed.items():
        if not isinstance(made[name], form) or isinstance(made[name], bool):
            raise TypeError(f"{name} must be of type {form.__name__}; got {made[name]!r}")
    if kind == ENV:
        validation.seed_value("seed", made["seed"])
        validation.whole("episode_number", made["episode_number"], 0, 2**62)
    else:
        validation.number("fps", made["fps"], 1, 120)
        validation.whole("frames", made["frames"], 0, 3600 * 120)
    if not all(isinstance(value, str) for value in versions.values()):
        raise TypeError("versions must be text")
    steps = tuple(_step(number, each) for number, each in enumerate(content["steps"]))
    if not steps:
        raise ValueError("it has no steps")
    return Episode(kind, made, steps, versions)


def _step(number: int, content: Mapping[str, Any]) -> Step:
    unknown = set(content) - {one.name for one in fields(Step)}
    if unknown:
        raise ValueError(f"step {number} has the unknown {', '.join(sorted(unknown))}")
    step = Step(**content)
    if not all(isinstance(value, str) for value in step.observation.values()):
        raise TypeError(f"the observation of step {number} must be hashes by key")
    if step.reward is not None and not (isinstance(step.reward, float) and math.isfinite(step.reward)):
        raise ValueError(f"the reward of step {number} must be a finite number; got {step.reward!r}")
    return step


def write_action(action: Any) -> Action:
    """Return an action as JSON holds it: whole numbers, or the float32 that the env makes of others."""
    array = np.asarray(action)
    plain: Action = (array if np.issubdtype(array.dtype, np.integer) else array.astype(np.float32)).tolist()
    return plain


def read_action(action: object, *, whole: bool) -> NDArray[Any]:
    """Return an action as an env or an agent's env takes it.

    Args:
        action: Of a :class:`Step`.
        whole: Whether actions are whole numbers.

    Raises:
        InvalidValueError: Not numbers.
    """
    try:
        return np.asarray(action, np.int64 if whole else np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValueError(f"action must be numbers; got {action!r}. The file is damaged.") from error


def as_json(value: object) -> str:
    """Return plain values as JSON, in one line.

    Raises:
        InvalidValueError: Something else, NaN or infinity.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"an episode must hold plain values only; {error}.") from error
