"""Train a gaze policy on what a network predicts, without `foveasim train`: env, reward, features, PPO, file, agent.

python examples/train_saccades.py --steps 20000 --out runs/saccades.safetensors
foveasim watch --agent runs/saccades.safetensors --retina disc
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jsonargparse import auto_cli

from foveasim import Agent, make_agent
from foveasim.agents.rl import (
    ActorConfig,
    BeliefPredictor,
    FeatureConfig,
    FeatureObservation,
    GlimpseVecEnv,
    Policy,
    PredictionReward,
    RewardWeights,
    actor_of,
    fingerprint_weights,
    make_model,
    save_policy,
)


@dataclass
class Options:
    """What to train.

    Attributes:
        steps: Saccades in all.
        lanes: Eyes at once.
        budget: Saccades an episode.
        scenes: A name such as photos, or a folder of images.
        network: The frozen network: a shipped name or a file.
        size: Side of the scenes, px.
        out: Where the policy goes.
        seed: Of everything random.
    """

    steps: int = 20_000
    lanes: int = 32
    budget: int = 8
    scenes: str = "photos"
    network: str = "unet"
    size: int = 96
    out: str = "runs/saccades.safetensors"
    seed: int = 0


def final_error(envs: PredictionReward, agent: Agent, seed: int) -> float:
    """Let an agent look at one scene in every lane; return the mean squared error of the prediction at the end."""
    observation, _ = envs.reset(seed=seed)
    agent.reset(np.ones(envs.num_envs, np.bool_))
    while True:
        observation, _, terminated, _, info = envs.step(agent.act(observation))
        if terminated.all():
            return float(info["final_info"]["prediction_error"].mean())


def main(options: Options) -> None:
    """Train, save, load, compare."""
    made: dict[str, Any] = {"retina": "disc", "retina_options": {"hidden_ratio": 0.8}, "budget": options.budget}
    eyes = gym.make_vec(
        "foveasim/Glimpse-v0",
        num_envs=options.lanes,
        scenes=options.scenes,
        size=(options.size, options.size),
        belief=True,
        privileged=True,  # for the reward alone: the policy never sees the scene
        autoreset_mode="SameStep",
        **made,
    )
    # How much a saccade lowers the error of a frozen network's prediction, minus a thousandth for each ms of flight.
    belief_predictor = BeliefPredictor(options.network)
    judged = PredictionReward(eyes, belief_predictor, RewardWeights(prediction_gain=100.0, saccade_ms=0.001))
    # The policy sees 12 x 12 cells of what the network made of belief, and chooses a cell.
    feature_config = FeatureConfig(cells=12)
    lanes = FeatureObservation(judged, feature_config)

    rows, columns = lanes.grid
    form = ActorConfig(
        "cells", lanes.grid, feature_config.channels, lanes.count, feature_config.channel("gain"), rows * columns
    )
    ppo = {"n_steps": 16, "batch_size": 128, "n_epochs": 4, "learning_rate": 1e-3, "gamma": 0.6, "ent_coef": 0.002}
    model = make_model("ppo", GlimpseVecEnv(lanes), form, seed=options.seed, device="cpu", options=ppo)

    def tell(local: dict[str, Any], _: Any) -> bool:
        if local["n_steps"] == 0:  # a new rollout
            episodes = [episode["r"] for episode in model.ep_info_buffer or ()]
            print(f"{model.num_timesteps:7,} saccades, return {np.mean(episodes) if episodes else np.nan:.3f}")
        return True

    model.learn(options.steps, callback=tell)

    policy = Policy(
        actor_of(model, form), feature_config, options.network, fingerprint_weights(belief_predictor.predictor.network)
    )
    save_policy(options.out, policy)
    for name in ("random", "uncertainty", options.out):
        arguments = {"network": belief_predictor.predictor.network} if name == "uncertainty" else {}
        agent = make_agent(name, seed=0, **arguments)
        print(f"{name}: error {1000 * final_error(judged, agent, 1000):.2f} × 10⁻³ after {options.budget} saccades")
    lanes.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(auto_cli(Options, as_positional=False))
