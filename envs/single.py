"""One eye: the Gymnasium env that is a vector env with one lane."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from foveasim import validation
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import InvalidValueError

__all__ = ["FoveaEnv"]

_MIN_DRAWN_PX = 160  # foveasim.drawing.layout.MIN_SIDE_PX, which stands above the envs


class FoveaEnv(gym.Env[dict[str, NDArray[Any]], Any]):
    """Free viewing with one eye.

    Everything is as in :class:`foveasim.envs.vector.FoveaVectorEnv`, which this env holds one lane of, without the lane
    axis and in NumPy: its sections Description, Observation Space, Action Space, Rewards, Starting State, Episode End
    and Arguments hold here too.

    ## Version History
    * v0: first version.

    Args:
        render_mode: None, "human" (a window), "rgb_array" (``render()`` returns a picture) or "rgb_array_list" (it
            returns the pictures since the last call).
        render_size: (H, W) of what is drawn, px.
        **options: Of ``FoveaVectorEnv``.

    Raises:
        InvalidValueError: An option out of range.
        UnknownNameError: An unknown name.
        SceneError: Scenes that cannot be read.
        NoDisplayError: A window was requested where there is no display.

    Example:
        >>> env = gym.make("foveasim/Glimpse-v0", retina="disc")
        >>> observation, info = env.reset(seed=0, options={"scene": 0, "fixation": (0.2, -0.4)})
        >>> observation["glimpse"].shape
        (96, 96, 3)
    """

    many: ClassVar[type[FoveaVectorEnv]] = FoveaVectorEnv
    """The env of many lanes that this is one lane of."""

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array", "rgb_array_list"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self, render_mode: str | None = None, render_size: tuple[int, int] = (480, 854), **options: Any
    ) -> None:
        if render_mode is not None:
            validation.choice("render_mode", render_mode, self.metadata["render_modes"])
            render_size = validation.size_hw("render_size", render_size, _MIN_DRAWN_PX)
        refused = sorted({"num_envs", "autoreset_mode", "output", "device"} & set(options))
        if refused:
            raise InvalidValueError(f"{', '.join(refused)}: only for the vector env; use gym.make_vec.")
        self.render_mode = render_mode
        self.render_size = render_size
        drawn = None if render_mode is None else "rgb_array"
        self.lanes = self.many(1, autoreset_mode=AutoresetMode.DISABLED, render_mode=drawn, **options)
        self.observation_space = self.lanes.single_observation_space
        self.action_space = self.lanes.single_action_space
        self._frames: list[NDArray[np.uint8]] = []
        self._window: Any = None
        if render_mode == "human":
            from foveasim.drawing.env_render import FrameWindow

            self._window = FrameWindow(render_size, self.metadata["render_fps"])

    @property
    def simulator(self) -> Any:
        """The simulator of the one lane."""
        return self.lanes.simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seed of the scenes and of all noise. None goes on to the next episode of the last seed.
            options: ``scene`` and ``fixation``, see ``FoveaVectorEnv.reset``.

        Returns:
            Observation and info.
        """
        super().reset(seed=None if seed is None else validation.seed_value("seed", seed))
        if seed is None and not self.lanes.seeded:
            seed = int(self.np_random.integers(2**31))
        self.lanes.begin(seed, options)
        self._show(begin=True)
        simulator = self.lanes.simulator
        info = self._info()
        info["scene"], info["label"] = simulator.names[0], simulator.label.item()
        info["seed"], info["episode_number"] = simulator.seed.item(), simulator.episode.item()
        return {key: value[0] for key, value in self.lanes.observe().items()}, info

    def step(self, action: Any) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Move the eye. Arguments, returns and errors as in ``FoveaVectorEnv.step``, without the lane axis."""
        lanes = self.lanes
        if not lanes.seeded:
            raise gym.error.ResetNeeded("call reset() before step().")
        try:
            terms, reward, terminated, _ = lanes.move(np.asarray(action)[None])
        except InvalidValueError as error:
            expected, shape = self.action_space.shape, np.shape(action)
            if shape == expected:
                raise
            raise InvalidValueError(f"action must have the shape {expected}; got {shape}.") from error
        if self.render_mode is not None:
            self._show()
        info = self._info()
        info["reward_terms"] = {name: term.item() for name, term in terms.items()}
        observation = {key: value[0] for key, value in lanes.observe().items()}
        return observation, reward.item(), terminated.item(), False, info

    def _info(self) -> dict[str, Any]:
        seen = self.lanes.simulator.measured
        info = {
            "fixation_px": seen.fixation_px[0].copy(),
            "target_px": seen.target_px[0].copy(),
            "amplitude_deg": seen.amplitude_deg.item(),
            "duration_ms": seen.duration_ms.item(),
            "clock_ms": seen.clock_ms.item(),
            "coverage": seen.coverage.item(),
        }
        for name, value in self.lanes.task_info().items():
            info[name] = value[0].item() if value.ndim == 1 else value[0]
        return info

    def render(self) -> Any:
        """Return a picture, (H, W, 3) uint8, a list of them, or None, as ``render_mode`` says."""
        if self.render_mode == "rgb_array":
            return self.lanes.draw(0, self.render_size)
        if self.render_mode == "rgb_array_list":
            frames, self._frames = self._frames, []
            return frames
        return None

    def close(self) -> None:
        """Close the window and the scene source."""
        self.lanes.close()
        if self._window is not None:
            self._window.close()
            self._window = None

    def _show(self, begin: bool = False) -> None:
        if self.render_mode == "rgb_array_list":
            if begin:
                self._frames = []
            self._frames.append(self.lanes.draw(0, self.render_size))
        elif self._window is not None:
            self._window.show(self.lanes.draw(0, self.render_size))
