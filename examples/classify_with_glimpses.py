"""Learn where to look for a scene's class, and when to stop: env, features, PPO, accuracy against glimpses.

python examples/classify_with_glimpses.py --steps 20000 --out runs/glimpses.png
python examples/classify_with_glimpses.py --data imagenette.tar --readout beliefs.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from jsonargparse import auto_cli

from foveasim import open_scenes
from foveasim.agents import accuracy_by_glimpse, draw_glimpses, record_glimpses, stop_early, threshold_within
from foveasim.agents.mim import LabelledData, read_labelled
from foveasim.agents.rl import (
    ActorConfig,
    BeliefPredictor,
    ClassifyFeatureConfig,
    ClassifyFeatureExtractor,
    GlimpseVecEnv,
    Policy,
    TaskAgent,
    TaskObservation,
    actor_of,
    make_model,
)


@dataclass
class Options:
    """What to train.

    Attributes:
        data: Labelled images, such as imagenette.tar; empty for signs, of which two discs tell the class.
        readout: A readout of belief fitted to them (docs/tasks.md); empty for signs.
        steps: Saccades in all.
        lanes: Eyes at once.
        budget: Saccades an episode.
        cost: Of a glimpse, nats.
        episodes: Scenes of the test.
        network: That the policy looks ahead with: a shipped name or a file.
        size: Side of the scenes, px.
        out: The picture.
        seed: Of everything random.
    """

    data: str = ""
    readout: str = ""
    steps: int = 20_000
    lanes: int = 32
    budget: int = 7
    cost: float = 0.05
    episodes: int = 200
    network: str = "unet"
    size: int = 96
    out: str = "glimpses.png"
    seed: int = 0


def eyes(
    options: Options, data: LabelledData | None, part: str, lanes: int, **more: Any
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Make eyes before the scenes of a part of the data: train, validation or test."""
    made: dict[str, Any] = {"size": (options.size, options.size), "budget": options.budget}
    if data is not None:
        images = getattr(data, part)
        scenes = open_scenes(images.images, label=images.labels.tolist(), labels=data.classes)
        made |= {"scenes": scenes, "readout": options.readout}
    else:
        made["split"] = "test" if part == "test" else "train"
    return gym.make_vec("foveasim/Classify-v0", num_envs=lanes, cost_per_glimpse=options.cost, **made, **more)


def main(options: Options) -> None:
    """Train, then compare with random gaze and stop early."""
    data = read_labelled(options.data, (options.size, options.size)) if options.data else None
    envs = eyes(options, data, "train", options.lanes, autoreset_mode="SameStep")
    # The policy sees what a frozen network makes of belief, and what the readout says: 12 x 12 cells and some numbers.
    belief_predictor = BeliefPredictor(options.network)
    feature_config = ClassifyFeatureConfig(classes=len(envs.unwrapped.classes))  # type: ignore[attr-defined]
    lanes = TaskObservation(envs, ClassifyFeatureExtractor(feature_config, belief_predictor))
    # It chooses a cell, or to stop. It begins where the network is least sure, and hardly ever stops.
    rows, columns = lanes.grid
    cells = rows * columns
    form = ActorConfig(
        "cells", lanes.grid, feature_config.channels, lanes.count, feature_config.channel("gain"), cells, stop=True
    )
    ppo = {"n_steps": 16, "batch_size": 128, "n_epochs": 4, "learning_rate": "lin_0.001", "gamma": 0.95}
    model = make_model("ppo", GlimpseVecEnv(lanes), form, seed=options.seed, device="cpu", options=ppo)
    model.learn(options.steps)
    lanes.close()

    policy = Policy(actor_of(model, form), feature_config, options.network, task="classify")
    found = {}
    for name in ("random", "learned"):
        known = []
        for part in ("validation", "test"):
            looks = eyes(options, data, part, min(40, options.episodes), stop=False, autoreset_mode="Disabled")
            agent: Any = name if name == "random" else TaskAgent(policy, stop=False, belief_predictor=belief_predictor)
            known.append(record_glimpses(agent, looks, options.episodes, seed=1000))  # type: ignore[arg-type]
        found[name] = known[1]
        accuracy = ", ".join(f"{100 * value:.0f}" for value in accuracy_by_glimpse(known[1])[:, 0])
        # The threshold is chosen on validation scenes, so that it costs a point at most, and judged on others.
        early = stop_early(known[1], [threshold_within(known[0], 0.01)])
        print(f"{name}: {accuracy} % after 1 to {options.budget + 1} glimpses")
        print(f"  stopping when sure: {100 * early.accuracy[0]:.0f} % after {early.glimpses[0]:.1f} glimpses")
    draw_glimpses(options.out, found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(auto_cli(Options, as_positional=False))
