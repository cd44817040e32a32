"""One picture of an episode: the scene, each glimpse, what was remembered, what was predicted, and how surely.

python examples/eight_glimpses.py --scenes my/photos --scene 3 --agent uncertainty --retina pyramid --out look.png
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from jsonargparse import auto_cli
from matplotlib.figure import Figure

import foveasim  # noqa: F401  # registers the ids
from foveasim import Predictor, make_agent
from foveasim.agents import agent_needs


@dataclass
class Config:
    """What to draw: ``fixations`` of an agent, the first at the centre, on one of the scenes."""

    out: str = "eight_glimpses.png"
    scenes: str = "photos"
    scene: int = 0
    agent: str = "uncertainty"
    network: str = "unet"
    retina: str = "disc"
    fixations: int = 8
    seed: int = 0


def main(config: Config) -> None:
    """Play the episode and draw it."""
    agent, predictor = make_agent(config.agent, seed=config.seed), Predictor(config.network)
    options = {"hidden_ratio": 0.8} if config.retina == "disc" else {}
    envs = gym.make_vec(
        "foveasim/Glimpse-v0",
        num_envs=1,
        scenes=config.scenes,
        retina=config.retina,
        retina_options=options,
        belief=True,
        privileged=True,
        budget=config.fixations,
    )
    observation, _ = envs.reset(seed=config.seed, options={"scene": config.scene})
    agent.reset(np.ones(1, bool))
    shown = {key: value for key, value in observation.items() if key != "scene"}
    steps = []
    for _ in range(config.fixations):
        prediction = predictor.imagine(shown)
        steps.append((observation, prediction))
        seen = observation if "scene" in agent_needs(agent) else shown
        observation, *_ = envs.step(agent.act(seen))
        shown = {key: value for key, value in observation.items() if key != "scene"}

    rows = ("glimpse", "remembered", "predicted", "how unsure")
    figure = Figure(figsize=(1.25 * (config.fixations + 1) + 0.6, 5.3), dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), config.fixations + 1, squeeze=False)
    scene = steps[0][0]["scene"][0]
    for row, name in enumerate(rows):
        for column in range(config.fixations + 1):
            axes[row, column].set(xticks=[], yticks=[])
            axes[row, column].spines[:].set_visible(False)
        axes[row, 1].set_ylabel(name, fontsize=9)
    height, width = scene.shape[:2]
    places = (np.concatenate([seen["fixation"] for seen, _ in steps]) + 1) / 2 * [width, height]
    axes[0, 0].imshow(scene)
    axes[0, 0].set_title("scene", fontsize=9)
    axes[1, 0].imshow(scene, alpha=0.55)
    axes[1, 0].plot(*places.T, "-o", color="#D55E00", markersize=3, linewidth=1)
    axes[1, 0].set_title("scanpath", fontsize=9)
    for axis in axes[2:, 0]:
        axis.set_visible(False)
    most = max(float(prediction.std.max()) for _, prediction in steps if prediction.std is not None)
    for column, (seen, prediction) in enumerate(steps, start=1):
        error = float(np.sqrt(np.square(prediction.image[0].numpy() - scene / 255).mean()))
        axes[0, column].imshow(seen["glimpse"][0])
        axes[0, column].set_title(f"{column}", fontsize=9)
        axes[1, column].imshow(seen["belief"][0])
        axes[2, column].imshow(prediction.image[0].numpy())
        axes[2, column].set_xlabel(f"rmse {255 * error:.0f}", fontsize=8, labelpad=2)
        axes[3, column].imshow(prediction.std[0].numpy(), cmap="inferno", vmin=0, vmax=most)
    figure.suptitle(f"{config.agent}, {config.retina}: the error is in grey levels", fontsize=9)
    figure.savefig(config.out)
    print(f"wrote {config.out}")


if __name__ == "__main__":
    main(auto_cli(Config, as_positional=False))
