"""An eye for somebody else's env: what the single and the vector wrapper share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry, validation
from foveasim.envs.wrappers.spaces import MotorAndGaze, Pixels
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye import belief as beliefs
from foveasim.eye.retina import Retina, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.rng import Key
from foveasim.simulator.lane_loops import sense_and_integrate
from foveasim.types import Belief, Glimpse, Saccade, Scene

__all__ = ["Foveation", "FrameEyes", "draw_gaze"]


class FrameEyes:
    """B eyes that are shown a new frame at every step. They move, look and remember as a ``Simulator``'s do.

    Time is the frames': a step takes ``step_ms``, however long the saccade.

    Args:
        lanes: B.
        size: (H, W) of the frames, px.
        retina: What the eyes deliver.
        saccades: What they can do.
        px_per_deg: Pixels of a frame for one degree of visual angle.
        belief: Whether they remember.
        half_life_ms: Time after which half of a memory's acuity is lost; None forgets nothing.
        step_ms: How long a step takes; used by forgetting only.
        patch: Whether the retina's own receptors are observed.

    Attributes:
        saccade: The last movements.
        frames: (B, H, W, 3) uint8, what was looked at.
        half_px: (1, 2) float32, half the frame's width and height.

    Raises:
        InvalidValueError: The retina has no patch.
    """

    def __init__(
        self,
        lanes: int,
        size: tuple[int, int],
        *,
        retina: Retina,
        saccades: Saccades,
        px_per_deg: float,
        belief: bool = False,
        half_life_ms: float | None = None,
        step_ms: float = 0.0,
        patch: bool = False,
    ) -> None:
        self.lanes, self.size, self.retina, self.saccades = lanes, size, retina, saccades
        self._px_per_deg = torch.full((lanes,), px_per_deg)
        self._step_ms = torch.full((lanes,), step_ms)
        self.half_px = torch.tensor([[size[1] / 2, size[0] / 2]])
        self._untitled = torch.full((lanes,), -1), ("",) * lanes, torch.zeros(lanes, dtype=torch.float64)
        self._seed, self._episode, self._step = torch.zeros(3, lanes, dtype=torch.int64).unbind(0)
        self._key = Key(self._seed, self._episode, self._step)  # a live view
        self._seeded = False
        centre, still = geometry.centre_px(size, lanes), torch.zeros(lanes)
        self.saccade = Saccade(centre, centre.clone(), centre.clone(), still, still.clone())
        self._patch = patch
        self._belief = beliefs.empty(lanes, size) if belief else None
        forgets = belief and half_life_ms is not None
        self._forgetting = beliefs.Forgetting(lanes, size, half_life_ms, "cpu") if forgets and half_life_ms else None
        self._coverage = np.zeros((2, lanes), np.float32)
        blank = torch.full((lanes, *size, 3), beliefs.UNSEEN, dtype=torch.uint8)
        self.frames = blank
        self._glimpse = self._sense(blank)
        if patch and self._glimpse.patch is None:
            raise InvalidValueError(
                f"retina {retina.name!r} has no patch; use patch=False or window, multiscale, log_polar."
            )

    def space(self) -> gym.spaces.Dict:
        """Return the space of what one eye sees."""
        image = gym.spaces.Box(0, 255, (*self.size, 3), np.uint8)
        map_ = gym.spaces.Box(0, 255, (*self.size, 1), np.uint8)
        spaces: dict[str, gym.Space[Any]] = {
            "glimpse": image,
            "acuity": map_,
            "fixation": gym.spaces.Box(-1.0, 1.0, (2,), np.float32),
        }
        if self._belief is not None:
            spaces |= {"belief": image, "belief_acuity": map_}
        if self._patch and self._glimpse.patch is not None:
            _, scales, height, width, _ = self._glimpse.patch.shape
            spaces["patch"] = gym.spaces.Box(0, 255, (height, width, 3 * scales), np.uint8)
        return gym.spaces.Dict(spaces)

    @property
    def fixation_px(self) -> Tensor:
        """Where the eyes are, (B, 2) float32."""
        return self.saccade.landing_px

    def begin(self, lanes: NDArray[np.bool_], seed: int | Sequence[int | None] | None = None) -> None:
        """Put eyes at the centre, with nothing remembered and without looking yet.

        Args:
            lanes: (B,) bool, which.
            seed: Of their noise: lane i is seeded ``seed + i``, or by the i-th of a list, in which None draws one. None
                goes on to the next episode of each lane's seed, or draws one where there is none yet.

        Raises:
            InvalidTypeError: A seed that is not a whole number.
            InvalidValueError: A seed out of range, or a list of the wrong length.
        """
        at = torch.from_numpy(np.flatnonzero(lanes))
        if seed is None and self._seeded:
            self._episode[at] += 1
        else:
            self._seed[at] = torch.tensor([self._lane_seed(seed, lane) for lane in at.tolist()])
            self._episode[at] = 0
        self._step[at] = 0
        self._seeded = True
        still = Saccade(*(self.half_px.expand(self.lanes, 2),) * 3, *(torch.zeros(self.lanes),) * 2)
        self.saccade = self.saccade.select(torch.from_numpy(lanes), still)
        if self._belief is not None:
            self._belief.image[at], self._belief.acuity[at] = beliefs.UNSEEN, 0
        if self._forgetting is not None:
            self._forgetting.exact[at] = 0

    def _lane_seed(self, seed: object, lane: int) -> int:
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
            if len(seed) != self.lanes:
                raise InvalidValueError(f"seed must be a number or a list of {self.lanes}; got {len(seed)}.")
            seed, lane = seed[lane], 0
        if seed is None:
            return int(np.random.SeedSequence().generate_state(1)[0])
        if not isinstance(seed, int | np.integer):
            raise InvalidTypeError(f"seed must be a whole number or a list of {self.lanes}; got {seed!r}.")
        return validation.seed_value("seed", seed) + lane

    def move(self, target_px: Tensor) -> None:
        """Move all eyes, and let the time of a step pass.

        Args:
            target_px: (B, 2) float32, px, finite. Gaze stops at the edge of the frame.
        """
        self.saccade = self.saccades.execute(self.fixation_px, target_px, self.size, self._px_per_deg, self._key)
        self._step += 1
        if self._belief is not None and self._forgetting is not None:
            self._forgetting.decay(self._belief.acuity, self._step_ms)

    def sense(self, frames: Tensor) -> None:
        """Look at frames, (B, H, W, 3) uint8, which are not written to."""
        self.frames = frames
        self._glimpse = self._sense(frames)
        if self._belief is not None:
            self._remember(self._belief, self._glimpse)
            if self._forgetting is not None:
                self._forgetting.update(self._belief.acuity, self._glimpse.acuity)

    def sense_lanes(self, frames: Tensor, lanes: NDArray[np.bool_]) -> None:
        """Look with some eyes only, (B,) bool, after they began anew within a step; the glimpses of the others stay."""
        at = torch.from_numpy(np.flatnonzero(lanes))
        self.frames = frames
        seen, fresh = self._glimpse, self._sense(frames[at], at)
        patch = None if seen.patch is None or fresh.patch is None else seen.patch.index_copy(0, at, fresh.patch)
        self._glimpse = Glimpse(
            seen.image.index_copy(0, at, fresh.image), seen.acuity.index_copy(0, at, fresh.acuity), patch
        )
        if self._belief is not None:
            self._belief.image[at], self._belief.acuity[at] = fresh.image, fresh.acuity
        if self._forgetting is not None:
            self._forgetting.exact[at] = fresh.acuity.to(torch.float32)

    def _sense(self, frames: Tensor, at: Tensor | None = None) -> Glimpse:
        """Look with the eyes at some lanes, (K,) int64, or with all."""
        label, name, time_ms = self._untitled
        scale, key, gaze = self._px_per_deg, self._key, self.fixation_px
        if at is not None:
            label, name, time_ms = label[at], name[: len(at)], time_ms[at]
            scale, key, gaze = scale[at], Key(key.seed[at], key.episode[at], key.step[at]), gaze[at]
        return self.retina.sense(self.retina.prepare(Scene(frames, label, scale, name, time_ms)), gaze, key)

    def _remember(self, belief: Belief, glimpse: Glimpse) -> None:
        """Integrate the glimpse in place, by the kernel: 8 us at 96 x 96, where ``beliefs.integrate`` takes 160."""
        rows = belief.image.view(self.lanes, self.size[0], -1).numpy()
        seen = glimpse.image.numpy(), glimpse.acuity.numpy()
        sense_and_integrate(None, seen, (rows, belief.acuity.numpy()), self._coverage, None, 0, self.lanes)

    @property
    def belief(self) -> Belief | None:
        """What is remembered, where anything is: a live view."""
        return self._belief

    @property
    def glimpse(self) -> Glimpse:
        """What the eyes see now."""
        return self._glimpse

    def observe(self) -> dict[str, NDArray[Any]]:
        """Return what the eyes see, fresh arrays with a lane axis."""
        seen = self._glimpse
        observation = {
            "glimpse": seen.image.numpy(),
            "acuity": seen.acuity.numpy()[..., None],
            "fixation": ((self.fixation_px - self.half_px) / self.half_px).numpy(),
        }
        if self._belief is not None:
            observation["belief"] = self._belief.image.numpy().copy()
            observation["belief_acuity"] = self._belief.acuity.numpy()[..., None].copy()
        if self._patch and seen.patch is not None:
            observation["patch"] = seen.patch.permute(0, 2, 3, 1, 4).flatten(3).numpy()
        return observation

    def info(self) -> dict[str, NDArray[np.float32]]:
        """Return ``fixation_px`` and ``target_px`` (B, 2), ``amplitude_deg`` and ``duration_ms`` (B,), fresh arrays."""
        made = self.saccade
        parts = {
            "fixation_px": made.landing_px,
            "target_px": made.target_px,
            "amplitude_deg": made.amplitude_deg,
            "duration_ms": made.duration_ms,
        }
        return {name: part.numpy().copy() for name, part in parts.items()}


_GAZE, _INK, _BACK = (255, 181, 71), (18, 20, 26), (15, 17, 22)
_GAP_PX = 8


class Foveation:
    """Pixels, actions and eyes for the frames of another env, B lanes.

    Arguments are those of :class:`foveasim.envs.wrappers.observation.FoveateObservation`, and before them:

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
        observed, acted = (
            (env.single_observation_space, env.single_action_space)
            if isinstance(env, gym.vector.VectorEnv)
            else (env.observation_space, env.action_space)
        )
        self.lanes = lanes
        self.pixels = Pixels.find(observed, key)
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
        self.keep = _check_keep(keep, observed, self.pixels, seen)
        passed_on = {name: observed[name] for name in self.keep} if isinstance(observed, gym.spaces.Dict) else {}
        self.observation_space = gym.spaces.Dict({**seen, **passed_on})
        self.action_space = self.actions.space()
        self.render_height_px = validation.whole("render_height_px", render_height_px, 32, 4096)

    def aim(self, gaze: NDArray[np.float32]) -> None:
        """Move all eyes as the gaze part of an action says, (B, 2) float32."""
        eyes = self.eyes
        eyes.move(self.actions.target_px(gaze, eyes.fixation_px, eyes.half_px, eyes.size))

    def observe(self, observation: Any) -> dict[str, Any]:
        """Return what the eyes see, and what is passed on of the env's own observation, both with a lane axis."""
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
            "step_ms must be the duration of a step of the env, because belief fades with time and the env's metadata "
            "has no render_fps. Give step_ms=…, or half_life_ms=None to forget nothing."
        )
    return 1000 / float(fps)


def _check_keep(
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
