"""A racing driver who sees sharply only where he looks: FoveateObservation around Gymnasium's CarRacing.

python examples/foveate_carracing.py                                a driver of a few lines; drive.gif shows his gaze
python examples/foveate_carracing.py --steps 100000                 PPO learns to drive and to look, and then drives
python examples/foveate_carracing.py --steps 100000 --gaze random   PPO learns to drive while the eye wanders

It needs Box2D: pip install box2d
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pygame
from gymnasium.envs.box2d.car_racing import ZOOM, CarRacing
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import GrayscaleObservation, ResizeObservation, TimeLimit
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from foveasim.agents.rl.vec_env import GlimpseVecEnv
from foveasim.envs import FoveateVectorObservation


@dataclass(frozen=True)
class Options:
    """What the command line offers; ``retina`` and ``gaze`` ("learned", "random"), of training and drives."""

    retina: str = "disc"
    gaze: str = "learned"
    steps: int = 0  # of training, four frames each; 0 lets the driver of a few lines drive
    lanes: int = 8  # cars that train at once
    rollout: int = 128  # steps of each car between two updates
    drives: int = 1  # how many are judged; the first is shown
    length: int = 250  # of a drive, in steps
    seed: int = 0  # of the training; the tracks of the drives are those of seed + 1000 and so on
    out: str = "drive.gif"


class QuickRacing(CarRacing):
    """CarRacing, four frames a step, of which it draws the last, at a quarter of the size: ten times as quick."""

    skips, idle = False, 0

    def __init__(self, patience: int) -> None:
        super().__init__(render_mode="rgb_array", continuous=False)
        self.patience = patience  # steps without reward after which a drive is cut off, in training

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action is None:  # the game's own reset takes this step
            self.idle = 0
            return super().step(action)  # type: ignore[no-any-return]
        total, ended = 0.0, False
        for left in (3, 2, 1, 0):
            self.skips = left > 0
            _, reward, ended, _, info = super().step(action)
            total += reward
            if ended:
                break
        self.skips = False
        self.state = self._render("state_pixels") if self.state is None else self.state
        self.idle = 0 if total > 0 else self.idle + 1
        return self.state, total, ended, self.idle >= self.patience, info

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or self.skips:
            return None if self.skips else super()._render(mode)
        self.surf, angle = pygame.Surface((250, 200)), -self.car.hull.angle
        zoom = 1.5 * (0.1 * max(1 - self.t, 0) + ZOOM * min(self.t, 1))
        shift = pygame.math.Vector2(*self.car.hull.position).rotate_rad(angle) * -zoom + (125, 50)
        self._render_road(zoom, shift, angle)
        self.car.draw(self.surf, zoom, shift, angle, False)
        self.surf = pygame.transform.flip(self.surf, False, True)
        self._render_indicators(250, 200)
        return self._create_image_array(self.surf, (96, 96))


    def _draw_colored_polygon(
        self, surface: Any, poly: Any, color: Any, zoom: float, translation: Any, angle: float, clip: bool = True
    ) -> None:
        """Draw what is near the car, and no more."""
        x, y = self.car.hull.position
        if not clip or abs(poly[0][0] - x) + abs(poly[0][1] - y) < 70 + 400 * max(1 - self.t, 0):
            turned = [pygame.math.Vector2(*point).rotate_rad(angle) * zoom + translation for point in poly]
            pygame.draw.polygon(surface, color, turned)
