"""Wrappers that give an eye to any Gymnasium env with pixels."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from foveasim.envs.wrappers.foveation import Foveation
from foveasim.envs.wrappers.vector import FoveateVectorObservation
from foveasim.errors import InvalidTypeError
from foveasim.eye.retina import Retina

__all__ = ["FoveateObservation", "FoveateVectorObservation"]


class FoveateObservation(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """Gives an eye to an env with pixels: it sees sharply only where it looks, and looking is part of its action.

    For vector envs there is :class:`FoveateVectorObservation`.

    ## Description
    One step does this, in this order: the env takes the motor action and makes its next frame; the eye makes its
    saccade; the eye looks at *that* frame. So gaze is chosen before the frame is there that it reveals. The env's own
    reward and its ends are handed on as they are.

    Time is the env's: a step takes ``step_ms``, and a saccade is over within it. How long a person's would take is in
    ``info["duration_ms"]``.

    ## Observation Space
    ``Dict`` as in ``foveasim/Glimpse-v0``, without ``time``: ``glimpse`` (H, W, 3) uint8, ``acuity`` (H, W, 1) uint8,
    ``fixation`` (2,) float32 in [-1, 1], and on request ``belief`` (H, W, 3) and ``belief_acuity`` (H, W, 1), and
    ``patch`` (h, w, 3 S). Pixels whose acuity is 0 change nothing of it (but for a retina that ``leaks``). Entries of
    the env's own Dict observation are dropped unless they are named in ``keep``: positions would reveal what is hidden.

    Frames are (H, W, 3), or grey as (H, W, 1) or (H, W), of which all three channels of the glimpse are equal. Their
    bounds say what their numbers mean: 0 to 255 of any dtype, or 0 to 1. Stacks of frames are refused, because they
    show at one fixation what the eye did not look at when it was there: stack what the eye has seen
    (``gymnasium.wrappers.FrameStackObservation`` around this one).

    ## Action Space
    ``Dict(motor=the env's own, gaze=Box(-1, 1, (2,)))``. With ``flat=True`` one array, for programs that cannot act by
    a Dict, such as stable-baselines3: where the env's actions are a Box, the motor action and then (x, y); where they
    are discrete, a ``MultiDiscrete`` of the motor action and then the cell of a grid.

    ``gaze="absolute"``: (x, y) is the next fixation in normalised coordinates of the frame, (-1, -1) its top-left
    corner. ``"relative"``: the displacement in the same units, so (1, 0) is half the frame's width to the right; gaze
    stops at the edge. The cells of the grid stand for their centres, also as displacements: of a 5 x 5 grid cell 12 is
    (0, 0).

    ## Starting State
    The env's own; the eye at the centre, and the first glimpse is part of the reset.

    ## Info
    ``fixation_px`` (2,), ``target_px`` (2,), ``amplitude_deg``, ``duration_ms`` beside the env's own. The env's info is
    handed on as it is: whether it reveals what is hidden is the env's affair.

    ## Rendering
    With ``render_mode="rgb_array"`` the frame, and beside it what the eye sees, both marked with the fixation. Other
    modes show what the env itself shows.

    ## Version History
    * v0: first version.

    Args:
        env: Any env with pixels. For one that only draws itself: ``AddRenderObservation(gym.make(…, render_mode=
            "rgb_array"))``.
        retina: A retina or its name.
        gaze: "absolute" or "relative".
        flat: Whether an action is one array.
        **options: ``retina_options`` (dict): of a retina given by name. ``grid`` ((rows, columns), (5, 5)): of the gaze
            in a flat action that is discrete. ``key`` (str): which entry of a Dict observation is the picture; not
            needed where only one can be. ``keep`` (names): entries of a Dict observation that are handed on.
            ``belief`` (bool): whether belief is observed. ``half_life_ms`` (500): time after which half of its acuity
            is forgotten, for games move; None forgets nothing. ``step_ms``: how long a step takes; None goes by the
            env's ``render_fps``. ``patch`` (bool): whether the retina's receptors are observed. ``saccades``
            (``Saccades``): what the eye can do. ``px_per_deg``: None lets the frame's short side span 27.4 degrees.
            ``render_height_px`` (360): of what is drawn.

    Raises:
        InvalidTypeError: An option of the wrong type, or not a single env.
        InvalidValueError: An option out of range, or an env whose spaces do not fit; the message says what to do.
        UnknownNameError: An unknown retina or key.

    Example:
        >>> game = gym.make("CartPole-v1", render_mode="rgb_array")
        >>> env = FoveateObservation(gym.wrappers.AddRenderObservation(game), retina="disc", gaze="relative")
        >>> observation, info = env.reset(seed=0)
        >>> observation["glimpse"].shape, info["fixation_px"].tolist()
        ((400, 600, 3), [300.0, 200.0])
        >>> observation, *_, info = env.step({"motor": 1, "gaze": np.array([0.5, 0], np.float32)})
        >>> info["fixation_px"].tolist()
        [450.0, 200.0]
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        retina: str | Retina = "pyramid",
        gaze: str = "absolute",
        flat: bool = False,
        **options: Any,
    ) -> None:
        if isinstance(env, gym.vector.VectorEnv):
            raise InvalidTypeError(
                f"env must be a single env; got {env}. Use FoveateVectorObservation for vector envs."
            )
        gym.utils.RecordConstructorArgs.__init__(self, retina=retina, gaze=gaze, flat=flat, **options)
        gym.Wrapper.__init__(self, env)
        self.foveation = Foveation(env, 1, retina=retina, gaze=gaze, flat=flat, **options)
        self.observation_space = self.foveation.observation_space
        self.action_space = self.foveation.action_space
        self._began = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode of the env, with the eye at the centre.

        Args:
            seed: Of the env and of the eye's noise.
            options: Handed on to the env.

        Returns:
            Observation and info.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self.foveation.eyes.begin(np.ones(1, bool), seed)
        self._began = True
        return self._observe(observation), {**info, **self._info()}

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], Any, bool, bool, dict[str, Any]]:
        """Let the env take the motor action, move the eye, and look at the frame that came of it.

        Args:
            action: Of the action space.

        Returns:
            Observation, the env's reward and ends, and info.

        Raises:
            InvalidTypeError: An action that is no Dict of motor and gaze, or not numbers.
            InvalidValueError: An action of the wrong shape or NaN, or gaze out of range. The env has then not moved.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if not self._began:
            raise gym.error.ResetNeeded("call reset() before step().")
        motor, gaze = self.foveation.actions.split(action, 1, batched=False)
        observation, reward, terminated, truncated, info = self.env.step(motor)
        self.foveation.aim(gaze)
        return self._observe(observation), reward, terminated, truncated, {**info, **self._info()}

    def render(self) -> Any:
        """Return a picture of frame and glimpse, (H, W, 3) uint8; or what the env returns in another render mode."""
        if self.render_mode != "rgb_array":
            return self.env.render()
        if not self._began:
            raise gym.error.ResetNeeded("call reset() before render().")
        return self.foveation.draw(0)

    def _observe(self, observation: Any) -> dict[str, NDArray[Any]]:
        sight = self.foveation
        key = sight.pixels.key
        frame = observation[key] if key else observation
        batch = np.asarray(frame)[None]
        sight.eyes.sense(sight.pixels.read({key: batch} if key else batch))
        seen = {name: value[0] for name, value in sight.eyes.observe().items()}
        return {**seen, **{name: observation[name] for name in sight.keep}}

    def _info(self) -> dict[str, Any]:
        info = self.foveation.eyes.info()
        return {name: value[0] if value.ndim > 1 else value.item() for name, value in info.items()}
