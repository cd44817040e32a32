"""A racing driver who sees sharply only where he looks: FoveateObservation around Gymnasium's CarRacing.

python examples/foveate_carracing.py                   a driver of a few lines; drive.gif shows the game and his gaze
python examples/foveate_carracing.py --steps 500000    PPO learns to drive and to look, and then drives

It needs Box2D: pip install box2d
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FilterObservation, MaxAndSkipObservation
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from foveasim.agents.rl import GlimpseVecEnv
from foveasim.envs.wrappers import FoveateObservation


@dataclass(frozen=True)
class Options:
    """What the command line offers.

    Attributes:
        retina: What the driver sees.
        steps: Of training, each four frames long; 0 lets the driver of a few lines drive.
        drive: Steps that are shown, each four frames long.
        lanes: Cars that train at once.
        rollout: Steps of each car between two updates.
        seed: Of the tracks and the training.
        out: Where the picture goes.
    """

    retina: str = "pyramid"
    steps: int = 0
    drive: int = 150
    lanes: int = 8
    rollout: int = 128
    seed: int = 0
    out: str = "drive.gif"


def make_env(retina: str) -> gym.Env[Any, Any]:
    """Return the game with an eye. An action is one array: steer, gas, brake, and where to look, (x, y)."""
    game = gym.make("CarRacing-v3", render_mode="rgb_array")
    game = MaxAndSkipObservation(game, skip=4)  # four frames of 20 ms a step
    eye = FoveateObservation(game, retina=retina, flat=True, belief=True, step_ms=80, render_height_px=300)
    return FilterObservation(eye, ["belief", "belief_acuity", "fixation"])


def make_lanes(options: Options, lanes: int) -> VecEnv:
    """Return several games as stable-baselines3 wants them; what was seen in the last four steps shows what moves."""
    envs = SyncVectorEnv([lambda: make_env(options.retina)] * lanes, autoreset_mode=AutoresetMode.SAME_STEP)
    return VecFrameStack(GlimpseVecEnv(envs), 4)


def train(options: Options) -> PPO:
    """Let PPO learn where to drive and where to look."""
    lanes, batch = make_lanes(options, options.lanes), min(256, options.lanes * options.rollout)
    model = PPO("MultiInputPolicy", lanes, n_steps=options.rollout, batch_size=batch, seed=options.seed, verbose=1)
    return model.learn(options.steps)


def drive_by_hand(seen: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Steer to where the road goes, as far as it was seen, slow down before bends, and look where it goes."""
    newest = seen["belief"][..., -3:].astype(np.int16)
    red, green, blue = newest[..., 0], newest[..., 1], newest[..., 2]
    road = (abs(red - green) < 40) & (abs(blue - green) < 40) & (green > 60)  # it is grey, grass is green
    road &= seen["belief_acuity"][..., -1] > 40
    near, far, farthest = (_column(road[:, rows]) - 48 for rows in (slice(54, 62), slice(34, 44), slice(20, 28)))
    gas, brake = 0.12 * (abs(far) < 8), 0.1 * (abs(far) > 12)
    gaze = (farthest + 0.5) / 48, np.full_like(far, 24 / 48 - 1)
    action = np.stack([0.03 * near + 0.02 * far, gas, brake, *gaze], 1)
    return np.clip(action, -1, 1).astype(np.float32)


def _column(rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean column of what is marked in each lane, 48 where nothing is."""
    weight = rows.sum(1).astype(float)
    total = weight.sum(1)
    return np.where(total > 0, (weight * np.arange(weight.shape[1])).sum(1) / np.maximum(total, 1), 48.0)


def main(options: Options) -> None:
    """Train where asked for, drive, and write what was seen."""
    model = train(options) if options.steps else None
    lanes = make_lanes(options, 1)
    lanes.seed(options.seed)
    seen: Any = lanes.reset()
    pictures, total = [np.asarray(lanes.get_images()[0])], 0.0
    for _ in range(options.drive):
        action = drive_by_hand(seen) if model is None else model.predict(seen, deterministic=True)[0]
        seen, reward, done, _ = lanes.step(action)
        total += float(reward[0])
        if done[0]:
            break
        pictures.append(np.asarray(lanes.get_images()[0]))
    print(f"reward {total:.0f} in {len(pictures) - 1} steps")
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
