"""PPO learns to drive a car and to look at the road: CarRacing with an eye that sees only where it looks.

python examples/learn_to_drive.py --steps 300000                 the driver chooses where to look
python examples/learn_to_drive.py --steps 300000 --gaze random   the eye wanders
python examples/learn_to_drive.py --steps 300000 --retina full   no eye: everything is seen

It needs Box2D: pip install box2d
"""

from __future__ import annotations

import argparse
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

from foveasim.agents.rl import GlimpseVecEnv
from foveasim.envs.wrappers import FoveateVectorObservation


@dataclass(frozen=True)
class Options:
    """What the command line offers."""

    retina: str = "disc"
    gaze: str = "learned"  # or "random"
    steps: int = 300_000  # of training, four frames each
    lanes: int = 8  # cars that train at once
    rollout: int = 128  # steps of each car between two updates
    drives: int = 20  # how many are judged; the first is shown
    length: int = 250  # of a drive, in steps
    seed: int = 0  # of the training; the tracks of the drives are those of seed + 1000 and so on
    out: str = "drive.gif"


class QuickRacing(CarRacing):
    """CarRacing, four frames a step, of which it draws only the last, at a quarter of the size."""

    skips, idle = False, 0

    def __init__(self, patience: int) -> None:
        super().__init__("rgb_array", continuous=False)
        self.patience = patience  # steps without reward after which a drive is cut off, in training

    def step(self, action: Any) -> Any:
        """Take four steps of the game; its own reset takes one without an action."""
        if action is None:
            self.idle = 0
            return super().step(action)
        total, ended = 0.0, False
        for left in (3, 2, 1, 0):
            self.skips = left > 0
            _, reward, ended, _, info = super().step(action)
            total += reward
            if ended:
                break
        self.skips = False
        self.state = self._render("") if self.state is None else self.state
        self.idle = 0 if total > 0 else self.idle + 1
        return self.state, total, ended, self.idle >= self.patience, info

    def _render(self, mode: str) -> Any:
        if self.skips:
            return None
        self.surf, angle = pygame.Surface((250, 200)), -self.car.hull.angle
        zoom = 1.5 * (0.1 * max(1 - self.t, 0) + ZOOM * min(self.t, 1))
        shift = pygame.math.Vector2(*self.car.hull.position).rotate_rad(angle) * -zoom + (125, 50)
        self._render_road(zoom, shift, angle)
        self.car.draw(self.surf, zoom, shift, angle, False)
        self.surf = pygame.transform.flip(self.surf, False, True)
        self._render_indicators(250, 200)
        return self._create_image_array(self.surf, (96, 96))


class Sight(VecEnvWrapper):
    """What was seen, and how sharply, as one picture; and an eye that wanders, where that is asked for."""

    def __init__(self, lanes: VecEnv, gaze: str, seed: int) -> None:
        super().__init__(lanes, Dict(image=Box(0, 255, (48, 48, 2), np.uint8), fixation=Box(-1, 1, (2,))))
        self.wanders, self.random = gaze == "random", np.random.default_rng(seed)

    def reset(self) -> Any:  # noqa: D102
        return _see(self.venv.reset())

    def step_async(self, actions: NDArray[Any]) -> None:  # noqa: D102
        if self.wanders:
            actions = np.stack((actions[:, 0], self.random.integers(25, size=len(actions))), 1)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:  # noqa: D102
        seen, reward, done, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = _see(info["terminal_observation"])
        return _see(seen), reward, done, infos


def _see(seen: Any) -> dict[str, NDArray[Any]]:
    return {"image": np.concatenate((seen["belief"][..., :1], seen["belief_acuity"]), -1), "fixation": seen["fixation"]}


def make_lanes(options: Options, lanes: int, patience: int = 1000) -> VecEnv:
    """Return several games, each with an eye that chooses one of 25 places at every step."""

    def make() -> Any:
        game = TimeLimit(QuickRacing(patience), options.length)
        return GrayscaleObservation(ResizeObservation(game, (48, 48)))

    games = SyncVectorEnv([make] * lanes, autoreset_mode=AutoresetMode.SAME_STEP)
    how = {"retina": options.retina, "retina_options": {"hidden_ratio": 0.9} if options.retina == "disc" else {}}
    eyes = FoveateVectorObservation(games, **how, flat=True, belief=True, step_ms=80, render_height_px=300)
    return VecFrameStack(Sight(GlimpseVecEnv(eyes), options.gaze, options.seed), 3)


def train(options: Options) -> PPO:
    """Let PPO learn where to drive and where to look."""
    lanes = VecNormalize(make_lanes(options, options.lanes, patience=25), norm_obs=False)
    how = {"n_steps": options.rollout, "batch_size": min(256, options.lanes * options.rollout), "n_epochs": 4}
    model = PPO("MultiInputPolicy", lanes, learning_rate=4e-4, ent_coef=0.005, seed=options.seed, verbose=1, **how)
    return model.learn(options.steps)


def main(options: Options) -> None:
    """Train, drive, and write what was seen."""
    model = train(options)
    lanes = make_lanes(options, options.drives)
    lanes.seed(options.seed + 1000)
    seen: Any = lanes.reset()
    pictures, totals, going = [np.asarray(lanes.get_images()[0])], np.zeros(options.drives), np.ones(options.drives)
    while going.any():
        action = model.predict(seen, deterministic=False)[0]
        seen, reward, done, _ = lanes.step(action)
        totals += reward * going
        going[done] = 0
        if going[0]:
            pictures.append(np.asarray(lanes.get_images()[0]))
    error = totals.std() / max(len(totals), 2) ** 0.5
    print(f"reward {totals.mean():.0f} (standard error {error:.0f}) of {options.drives} drives")
    # One palette for all frames, so that nothing flickers.
    palette = Image.fromarray(np.concatenate(pictures[-1::-20])).quantize(160, Image.Quantize.FASTOCTREE)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=80, loop=0)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    main(Options(**vars(parser.parse_args())))
