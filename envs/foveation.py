"""An eye for somebody else's env: what the single and the vector wrapper share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import geometry, validation
from foveasim.envs.wrappers_eyes import FrameEyes
from foveasim.envs.wrappers_spaces import MotorAndGaze, Pixels
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye.retina import Retina, make_retina
from foveasim.eye.saccade import Saccades

__all__ = ["Foveation", "draw_gaze"]

_GAZE, _INK, _BACK = (255, 181, 71), (18, 20, 26), (15, 17, 22)
_GAP_PX = 8


class Foveation:
    """Pixels, actions and eyes for the frames of another env, B lanes.

    Arguments are those of :class:`foveasim.envs.wrappers.FoveateObservation`, and before them:

    Args:
        env: Whose spaces are those of one lane.
        lanes: B.

    Attributes:
        observation_space: Of one lane.
        action_space: Of one lane.
        pixels: Where the frames are.
        actions: How actions are taken apart.
        eyes: Who looks.
        keep: Entries of the env's own observation that are handed on.

    Raises:
        InvalidTypeError: An option of the wrong type.
        InvalidValueError: An option out of range, or spaces that do not fit; the message says what to do.
        UnknownNameError: An unknown retina or key.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any],
        lanes: int,
        *,
        retina: str | Retina,
        retina_options: dict[str, Any] | None = None,
        gaze: str,
        flat: bool,
        grid: tuple[int, int] = (5, 5),
        key: str | None = None,
        keep: Sequence[str] = (),
        belief: bool = False,
        half_life_ms: float | None = 500.0,
        step_ms: float | None = None,
        patch: bool = False,
        saccades: Saccades | None = None,
        px_per_deg: float | None = None,
        render_height_px: int = 360,
    ) -> None:
        shown, acted = (
            (env.single_observation_space, env.single_action_space)
            if isinstance(env, gym.vector.VectorEnv)
            else (env.observation_space, env.action_space)
        )
        self.lanes = lanes
        self.pixels = Pixels.find(shown, key)
        size = validation.size_hw("the env's picture", self.pixels.size)
        self.actions = MotorAndGaze(acted, gaze, flat, grid)
        if not isinstance(saccades, Saccades | None):
            raise InvalidTypeError(f"saccades must be foveasim.eye.saccade.Saccades(…); got {saccades!r}.")
        if half_life_ms is not None:
            validation.number("half_life_ms", half_life_ms, 1e-3, 1e15)
        if px_per_deg is not None:
            validation.number("px_per_deg", px_per_deg, 0, open_low=True)
        self.eyes = FrameEyes(
            lanes,
            size,
            retina=make_retina(retina, **(retina_options or {})),
            saccades=Saccades() if saccades is None else saccades,
            px_per_deg=geometry.default_px_per_deg(size) if px_per_deg is None else px_per_deg,
            belief=belief,
            half_life_ms=half_life_ms,
            step_ms=_step_ms(env, step_ms) if belief and half_life_ms is not None else 0.0,
            patch=patch,
        )
        seen = self.eyes.space().spaces
        self.keep = _kept(keep, shown, self.pixels, seen)
        kept = {name: shown[name] for name in self.keep} if isinstance(shown, gym.spaces.Dict) else {}
        self.observation_space = gym.spaces.Dict({**seen, **kept})
        self.action_space = self.actions.space()
        self.render_height_px = validation.whole("render_height_px", render_height_px, 32, 4096)

    def aim(self, gaze: NDArray[np.float32]) -> None:
        """Move all eyes as the gaze part of an action says, (B, 2) float32."""
        eyes = self.eyes
        eyes.move(self.actions.target_px(gaze, eyes.fixation_px, eyes.half_px, eyes.size))

    def observe(self, observation: Any) -> dict[str, Any]:
        """Return what the eyes see, and what is kept of the env's own observation, both with a lane axis."""
        return {**self.eyes.observe(), **{name: observation[name] for name in self.keep}}

    def draw(self, lane: int) -> NDArray[np.uint8]:
        """Draw one lane, see :func:`draw_gaze`."""
        eyes = self.eyes
        glimpse, made = eyes.glimpse, eyes.saccade
        path = torch.stack((made.start_px[lane], made.landing_px[lane])).numpy()
        frame, seen = eyes.frames[lane].numpy(), glimpse.image[lane].numpy()
        return draw_gaze(frame, seen, glimpse.acuity[lane].numpy(), path, self.render_height_px)


def draw_gaze(
    frame: NDArray[np.uint8],
    glimpse: NDArray[np.uint8],
    acuity: NDArray[np.uint8],
    path_px: NDArray[np.float32],
    height_px: int,
) -> NDArray[np.uint8]:
    """Draw a frame, and beside it what the eye sees of it.

    Both are marked with a dot where the eye is and a ring around as many pixels as have more than half of the acuity;
    a line in the frame shows the saccade that led there.

    Args:
        frame: (H, W, 3).
        glimpse: (H, W, 3).
        acuity: (H, W).
        path_px: (N, 2), px of the frame, fixations, the present one last.
        height_px: Of the picture.

    Returns:
        (h, w, 3) uint8, h and w even, as videos want them.
    """
    from foveasim.drawing.canvas import disc, fit_to, lines, ring  # here: most envs are never drawn

    height = 2 * round(height_px / 2)
    scale = height / frame.shape[0]
    width = 2 * round(frame.shape[1] * scale / 2)
    unit = height / 360
    ratio = np.array([width / frame.shape[1], scale], np.float32)
    points = path_px * ratio
    x, y = points[-1].tolist()
    radius = math.sqrt(np.count_nonzero(acuity > 127) / math.pi) * scale
    gap = 2 * round(_GAP_PX * unit / 2)
    canvas = np.full((height, 2 * width + gap, 3), _BACK, np.uint8)
    left, right = canvas[:, :width], canvas[:, width + gap :]
    for part, picture in ((left, frame), (right, glimpse)):
        drawn = np.array(fit_to(picture, (height, width)))
        if part is left:
            lines(drawn, points, _INK, 4 * unit)
            lines(drawn, points, _GAZE, 2 * unit)
        if 0 < radius < max(height, width) / 2:
            ring(drawn, x, y, radius, _INK, 4 * unit)
            ring(drawn, x, y, radius, _GAZE, 2 * unit)
        disc(drawn, x, y, 5 * unit, _INK)
        disc(drawn, x, y, 3.5 * unit, _GAZE)
        part[:] = drawn
    return canvas


def _step_ms(env: Any, step_ms: float | None) -> float:
    if step_ms is not None:
        return validation.number("step_ms", step_ms, 0)
    fps = env.metadata.get("render_fps")
    if not fps:
        raise InvalidValueError(
            "step_ms must say how long a step of the env takes, because belief fades with time and the env's metadata "
            "has no render_fps. Give step_ms=…, or half_life_ms=None to forget nothing."
        )
    return 1000 / float(fps)


def _kept(
    keep: Sequence[str], space: gym.Space[Any], pixels: Pixels, seen: Mapping[str, gym.Space[Any]]
) -> tuple[str, ...]:
    """Return the entries of the env's own observation that are handed on."""
    if isinstance(keep, str):
        raise InvalidTypeError(f"keep must be a tuple of names; got {keep!r}. Write ({keep!r},).")
    for name in keep:
        if not isinstance(space, gym.spaces.Dict) or name not in space.spaces:
            raise UnknownNameError(f"keep must name entries of the env's observation, {space}; got {name!r}.")
        if name == pixels.key:
            raise InvalidValueError(f"keep must not hold {name!r}: that is the picture, which only the eye may see.")
        if name in seen:
            raise InvalidValueError(f"keep must not hold {name!r}: what the eye sees has an entry of that name.")
    return tuple(keep)
