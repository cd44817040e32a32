"""Eyes for the lanes of any Gymnasium vector env with pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from foveasim.envs.observation import batch_observations
from foveasim.envs.resets import chosen_lanes
from foveasim.envs.wrappers.foveation import Foveation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.retina import Retina

__all__ = ["FoveateVectorObservation"]


class FoveateVectorObservation(VectorWrapper):  # not generic before gymnasium 1.3
    """Gives an eye to every lane of a vector env with pixels.

    Everything is as in :class:`foveasim.envs.wrappers.observation.FoveateObservation`, with a lane axis: lane i sees
    what a single env sees whose eye has the seed ``seed + i``. All lanes look at once. Gymnasium's autoreset rules
    hold: where lanes begin anew in the step after an end (``NEXT_STEP``), their gaze action counts as little as
    their motor action; where they begin anew in the same step (``SAME_STEP``), what the eye saw last is in
    ``final_obs`` and ``final_info``.

    Args:
        envs: Any vector env with pixels, whose ``autoreset_mode`` is in its metadata.
        retina: A retina or its name.
        gaze: "absolute" or "relative".
        flat: Whether an action is one array.
        **options: Of ``FoveateObservation``.

    Raises:
        InvalidTypeError: An option of the wrong type, or not a vector env.
        InvalidValueError: An option out of range, or an env whose spaces do not fit; the message says what to do.
        UnknownNameError: An unknown retina or key.
    """

    def __init__(
        self,
        envs: VectorEnv[Any, Any, Any],
        *,
        retina: str | Retina = "pyramid",
        gaze: str = "absolute",
        flat: bool = False,
        **options: Any,
    ) -> None:
        if not isinstance(envs, VectorEnv):
            raise InvalidTypeError(f"envs must be a vector env; got {envs!r}. Use FoveateObservation for single envs.")
        super().__init__(envs)
        mode = envs.metadata.get("autoreset_mode")
        if mode is None:
            raise InvalidValueError(
                f"envs must say when lanes begin anew; its metadata has no 'autoreset_mode': {envs}. "
                "Set envs.metadata['autoreset_mode'] to a gymnasium.vector.AutoresetMode."
            )
        self.autoreset_mode = AutoresetMode(mode)
        self.foveation = Foveation(envs, envs.num_envs, retina=retina, gaze=gaze, flat=flat, **options)
        sight = self.foveation
        self.single_observation_space = sight.observation_space
        self.single_action_space = sight.action_space
        seen = batch_observations(sight.eyes.space(), envs.num_envs)
        passed_on = {name: cast("gym.spaces.Dict", envs.observation_space)[name] for name in sight.keep}
        self.observation_space = gym.spaces.Dict({**seen.spaces, **passed_on})
        self.action_space = batch_space(sight.action_space, envs.num_envs)
        self._done = np.zeros(envs.num_envs, bool)
        self._every = np.ones(envs.num_envs, bool)
        self._began = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin episodes, with the eyes at the centre.

        Args:
            seed: As Gymnasium's: lane i is seeded ``seed + i``, or by the i-th of a list.
            options: Handed on to the env; ``reset_mask``: (B,) bool, which lanes begin anew.

        Returns:
            Observation and info.

        Raises:
            InvalidTypeError: A mask or seed of the wrong type.
            InvalidValueError: A mask of the wrong length, or one that leaves out lanes that never began.
        """
        mask, given = self._every, None if options is None else dict(options)  # a copy: Gymnasium takes the mask out
        if given is not None and given.get("reset_mask") is not None:
            mask = chosen_lanes(given["reset_mask"], self.num_envs)
        if not (self._began or mask.all()):
            raise InvalidValueError("the first reset must begin all lanes; give it no reset_mask.")
        observation, info = self.env.reset(seed=cast("Any", seed), options=given)
        eyes = self.foveation.eyes
        eyes.begin(mask, seed)
        frames = self.foveation.pixels.read(observation)
        if mask.all():
            eyes.sense(frames)
        else:
            eyes.sense_lanes(frames, mask)
        self._began = True
        self._done = self._done & ~mask
        return self.foveation.observe(observation), {**info, **self._info(mask)}

    def step(self, actions: Any) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Let all lanes take their motor actions, move the eyes, and look.

        Args:
            actions: Of the action space.

        Returns:
            Observation, the env's rewards and ends, and info.

        Raises:
            InvalidTypeError: Actions that are no Dict of motor and gaze, or not numbers.
            InvalidValueError: Actions of the wrong shape or NaN, or gaze out of range. The env has then not moved.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if not self._began:
            raise gym.error.ResetNeeded("call reset() before step().")
        sight = self.foveation
        motor, gaze = sight.actions.split(actions, self.num_envs)
        observation, reward, terminated, truncated, info = self.env.step(motor)
        frames = sight.pixels.read(observation)
        done = np.asarray(terminated) | np.asarray(truncated)
        sight.aim(gaze)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._done.any():
            sight.eyes.begin(self._done)
        self._done = done
        if self.autoreset_mode == AutoresetMode.SAME_STEP and done.any():
            info = self._finish(observation, frames, done, info)
        else:
            sight.eyes.sense(frames)
        return sight.observe(observation), reward, terminated, truncated, {**info, **self._info(self._every)}

    def _finish(self, observation: Any, frames: Any, done: NDArray[np.bool_], info: dict[str, Any]) -> dict[str, Any]:
        """Look at the last frames of lanes that have ended, then at the first ones of their next episodes."""
        if info.get("final_obs") is None:
            raise InvalidValueError(
                f"{self.env} began lanes anew without final_obs in its info, as SAME_STEP wants it."
            )
        sight, lanes = self.foveation, np.flatnonzero(done)
        key, names = sight.pixels.key, sight.keep
        finals = [info["final_obs"][lane] for lane in lanes]
        pictures = np.stack([final[key] if key else final for final in finals])
        last = frames.clone()
        last[lanes] = sight.pixels.read({key: pictures} if key else pictures)
        sight.eyes.sense(last)
        seen, step_info = sight.eyes.observe(), self._info(done)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for lane, final in zip(lanes, finals, strict=True):
            final_obs[lane] = {**{name: value[lane] for name, value in seen.items()}, **{n: final[n] for n in names}}
        sight.eyes.begin(done)
        sight.eyes.sense_lanes(frames, done)
        final_info = {**info.get("final_info", {}), **step_info}
        return {**info, "final_obs": final_obs, "final_info": final_info}

    def render(self) -> tuple[Any, ...] | None:
        """Return a picture of frame and glimpse for each lane; or what the env returns in another render mode."""
        if self.render_mode != "rgb_array":
            return self.env.render()
        if not self._began:
            raise gym.error.ResetNeeded("call reset() before render().")
        return tuple(self.foveation.draw(lane) for lane in range(self.num_envs))

    def _info(self, lanes: NDArray[np.bool_]) -> dict[str, Any]:
        info: dict[str, Any] = {}
        for name, value in self.foveation.eyes.info().items():
            info[name], info["_" + name] = value, lanes.copy()
        return info
