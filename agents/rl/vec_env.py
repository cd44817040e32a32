"""Many eyes as stable-baselines3 wants them: a Gymnasium vector env behind its ``VecEnv`` interface."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from foveasim.errors import InvalidTypeError, InvalidValueError, MissingDependencyError

try:
    from stable_baselines3.common.env_util import is_wrapped
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise MissingDependencyError(
        f"foveasim.agents.rl.vec_env needs stable-baselines3 ({error}). Install it: pip install 'foveasim[rl]'"
    ) from error

__all__ = ["GlimpseVecEnv"]


class GlimpseVecEnv(VecEnv):
    """Shows a Gymnasium vector env to PPO, SAC, RecurrentPPO, MaskablePPO and the wrappers of stable-baselines3.

    All lanes take one batched step; Python visits only the lanes that ended.

    Convention: stable-baselines3's, which lets lanes begin anew in the step in which they end. The observation of such
    a lane is already the first of its next episode. The last of the old one is in its info::

        terminal_observation   what it saw last, without the lane axis
        TimeLimit.truncated    True where it was cut off, so that algorithms bootstrap; a budget that ran out is an end
        episode                {"r": return, "l": length, "t": seconds since this was made}, as Monitor gives it
        ...                    and what the vector env put into final_info, of this lane

    Infos of lanes that go on are empty; the vector env's own batched info of the last step is in ``info``. Infos of
    resets are in ``reset_infos``.

    Observations are handed on as they come, without a copy, and belong to the caller: stable-baselines3 keeps them
    until the next step, so the vector env must give fresh arrays each time, as foveasim's does. A terminal observation
    may be a view of a whole batch. Rewards and dones are fresh, for stable-baselines3 adds to rewards. Tensors become
    arrays, of a device at the cost of a copy.

    Attributes and methods of lanes (``get_attr``, ``env_method``): Gymnasium's ``SyncVectorEnv`` and
    ``AsyncVectorEnv`` are asked lane by lane. Of any other vector env, or a wrapper around it, an attribute counts for
    all lanes, and a method is called once for all and returns None or one thing for each, along its first axis: an
    ``action_masks()`` that returns (B, n) bool is what MaskablePPO looks for.

    Args:
        envs: A vector env with ``autoreset_mode`` "SameStep".
        monitor: Whether infos have ``episode``. stable-baselines3 then finds that there is a Monitor, which its
            evaluation wants and ``VecMonitor`` warns of: pass False below a ``VecMonitor``.

    Raises:
        InvalidTypeError: Not a vector env.
        InvalidValueError: Another autoreset mode, or one that hands out the same arrays again.

    Attributes:
        envs: The vector env.
        info: Its info of the last step or reset, batched.

    Example:
        >>> envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=2, retina="disc", autoreset_mode="SameStep")
        >>> lanes = GlimpseVecEnv(envs)
        >>> lanes.reset()["glimpse"].shape
        (2, 96, 96, 3)
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], *, monitor: bool = True) -> None:
        if not isinstance(envs, VectorEnv):
            raise InvalidTypeError(
                f"envs must be a Gymnasium vector env; got {type(envs).__name__}. Make one by gym.make_vec, or give a "
                "single env to stable-baselines3 as it is."
            )
        mode = envs.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise InvalidValueError(
                f"envs must begin anew in the step in which they end, as stable-baselines3 does; its autoreset_mode is "
                f"{mode}. gym.make_vec(id, autoreset_mode='SameStep') for foveasim's envs; vector_kwargs="
                "{'autoreset_mode': gym.vector.AutoresetMode.SAME_STEP} for sync and async ones."
            )
        if isinstance(envs.unwrapped, SyncVectorEnv | AsyncVectorEnv) and not envs.unwrapped.copy:
            raise InvalidValueError(
                "envs must give fresh observations at every step, for stable-baselines3 keeps the last ones; this one "
                "was made with copy=False. Make it with copy=True."
            )
        self.envs = envs
        self.info: dict[str, Any] = {}
        self._monitor, self._began_s = monitor, time.perf_counter()
        self._returns, self._lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
        self._actions: NDArray[Any] | None = None
        self._shared_options: dict[str, Any] | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Begin all lanes, with the seeds and options that were set for this reset."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, self.info = self.envs.reset(seed=seeds, options=self._shared_options)  # type: ignore[arg-type]
        self._reset_seeds()
        self._shared_options = None
        self._returns[:], self._lengths[:] = 0, 0
        self.reset_infos = _lanes(self.info, np.arange(self.num_envs))
        return _arrays(observation)  # type: ignore[no-any-return]

    def set_options(self, options: Sequence[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Set the options of the next reset, the same for all lanes.

        Raises:
            InvalidTypeError: Options of their own for each lane.
        """
        if options is not None and not isinstance(options, dict):
            raise InvalidTypeError(f"options must be one dict for all lanes; got {type(options).__name__}.")
        self._shared_options = None if options is None else dict(options)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Take the actions of the next step, (B, …)."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Move every lane.

        Returns:
            Observations, rewards (B,) float32, dones (B,) bool, and B infos.
        """
        observation, reward, terminated, truncated, self.info = self.envs.step(self._actions)
        tensors = isinstance(reward, torch.Tensor)
        reward, ends, cuts = _arrays(reward), _arrays(terminated), _arrays(truncated)
        dones = np.logical_or(ends, cuts)
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]  # not one for all: callbacks write into them
        done = np.flatnonzero(dones)
        if done.size:
            self._finish(infos, done, cuts & ~ends, tensors)
        return _arrays(observation), reward.astype(np.float32), dones, infos

    def _finish(
        self, infos: list[dict[str, Any]], done: NDArray[np.intp], cut: NDArray[np.bool_], tensors: bool
    ) -> None:
        """Fill in the infos of the lanes that ended, and of their resets."""
        final = _lanes(self.info["final_info"], done)
        fresh = _lanes({key: value for key, value in self.info.items() if key not in _FINAL}, done)
        seconds = round(time.perf_counter() - self._began_s, 6)
        rows = zip(done.tolist(), final, fresh, self._returns[done].tolist(), self._lengths[done].tolist(), strict=True)
        for lane, last, first, total, length in rows:
            seen = self.info["final_obs"][lane]
            last["terminal_observation"] = _arrays(seen) if tensors else seen
            last["TimeLimit.truncated"] = bool(cut[lane])
            if self._monitor:
                last["episode"] = {"r": total, "l": length, "t": seconds}
            infos[lane], self.reset_infos[lane] = last, first
        self._returns[done], self._lengths[done] = 0, 0

    def close(self) -> None:
        """Close the vector env."""
        self.envs.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return a picture of each lane, (H, W, 3) uint8; None where the vector env was not made to draw."""
        return self.envs.render() or [None] * self.num_envs  # type: ignore[return-value]

    # What stable-baselines3 asks of its lanes

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each lane; see the class.

        Raises:
            AttributeError: There is none of that name.
        """
        base = self.envs.unwrapped
        if isinstance(base, SyncVectorEnv):
            return [base.envs[lane].get_wrapper_attr(attr_name) for lane in self._get_indices(indices)]
        if isinstance(base, AsyncVectorEnv):
            return self._pick(base.get_attr(attr_name), indices)
        return self._pick([getattr(self._owner(attr_name), attr_name)] * self.num_envs, indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of lanes, of all of them where they are one vector env.

        Raises:
            AttributeError: A vector env has none of that name.
            InvalidValueError: Only some lanes of a vector env.
        """
        base, chosen = self.envs.unwrapped, list(self._get_indices(indices))
        if isinstance(base, SyncVectorEnv):
            for lane in chosen:
                base.envs[lane].set_wrapper_attr(attr_name, value)
        elif sorted(chosen) != list(range(self.num_envs)):
            raise InvalidValueError(f"indices must be None: {base} has {attr_name} for all lanes; got {indices}.")
        elif isinstance(base, AsyncVectorEnv):
            base.set_attr(attr_name, value)
        else:
            setattr(self._owner(attr_name), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of lanes and return what each returns; see the class.

        Raises:
            AttributeError: There is none of that name.
            InvalidValueError: A vector env's does not return one thing for each lane.
        """
        base = self.envs.unwrapped
        if isinstance(base, SyncVectorEnv):
            found = self.get_attr(method_name, indices)
            return [method(*method_args, **method_kwargs) for method in found]
        if isinstance(base, AsyncVectorEnv):
            return self._pick(base.call(method_name, *method_args, **method_kwargs), indices)
        results = _arrays(getattr(self._owner(method_name), method_name)(*method_args, **method_kwargs))
        if results is None:
            return self._pick([None] * self.num_envs, indices)
        if not isinstance(results, np.ndarray | list | tuple) or np.ndim(results) == 0 or len(results) != self.num_envs:
            came = f"shape {results.shape}" if isinstance(results, np.ndarray) else f"{results!r}"
            raise InvalidValueError(
                f"{method_name}() of {base} must return None or {self.num_envs} things, one for each lane; got {came}."
            )
        return self._pick(results, indices)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return whether each lane has a wrapper; ``Monitor`` stands for ``monitor``."""
        base = self.envs.unwrapped
        around = any(isinstance(layer, wrapper_class) for layer in self._layers())
        around = around or (self._monitor and wrapper_class is Monitor)
        chosen = list(self._get_indices(indices))
        if isinstance(base, SyncVectorEnv):
            return [around or is_wrapped(base.envs[lane], wrapper_class) for lane in chosen]
        return [around] * len(chosen)

    def _pick(self, values: Sequence[Any] | NDArray[Any], indices: VecEnvIndices) -> list[Any]:
        return [values[lane] for lane in self._get_indices(indices)]

    def _layers(self) -> Iterator[VectorEnv[Any, Any, Any]]:
        layer = self.envs
        yield layer
        while isinstance(layer, VectorWrapper):
            layer = layer.env
            yield layer

    def _owner(self, name: str) -> VectorEnv[Any, Any, Any]:
        """Return the outermost layer of the vector env that has an attribute."""
        for layer in self._layers():
            if hasattr(layer, name):
                return layer
        raise AttributeError(f"{self.envs} has no attribute {name!r}, nor has what it wraps.")


_FINAL = ("final_obs", "_final_obs", "final_info", "_final_info")


def _arrays(value: Any) -> Any:
    """Return tensors as arrays, also in a dict or tuple, and anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy()
    if isinstance(value, dict):
        return {key: _arrays(one) for key, one in value.items()}
    return tuple(map(_arrays, value)) if isinstance(value, tuple) else value


def _lanes(info: Mapping[str, Any], lanes: NDArray[np.intp]) -> list[dict[str, Any]]:
    """Return the infos of some lanes from a vector env's: a key is in those for which its mask ``_key`` is set.

    Numbers come as Python's, as single envs give them.
    """
    made: list[dict[str, Any]] = [{} for _ in lanes]
    for key, value in info.items():
        if key.startswith("_") and key[1:] in info:
            continue
        if isinstance(value, Mapping):
            parts: Sequence[Any] = _lanes(value, lanes)
        else:
            whole = np.asarray(_arrays(value))
            taken = whole[lanes] if whole.ndim else np.full(len(lanes), whole)
            parts = taken.tolist() if taken.ndim == 1 else list(taken)
        mask = info.get("_" + key)
        has = [True] * len(made) if mask is None else np.asarray(_arrays(mask))[lanes].tolist()
        for own, part, mine in zip(made, parts, has, strict=True):
            if mine:
                own[key] = part
    return made
