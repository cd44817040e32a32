"""PPO for continuous actions in one file, in the manner of CleanRL: a program that knows Gymnasium and not foveasim."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

GAMMA, LAMBDA, CLIP, ENTROPY, VALUE = 0.99, 0.95, 0.2, 0.0, 0.5


def make_env(env_id: str, **options: Any) -> gym.Env[Any, Any]:
    env = gym.make(env_id, **options)
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.ClipAction(env)
    env = gym.wrappers.NormalizeObservation(env)
    env = gym.wrappers.TransformObservation(env, lambda seen: np.clip(seen, -10, 10), env.observation_space)
    return gym.wrappers.NormalizeReward(env, gamma=GAMMA)


class Agent(nn.Module):
    def __init__(self, seen: int, acted: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        self.mean = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, acted))
        self.log_std = nn.Parameter(torch.zeros(1, acted))

    def act(self, seen: torch.Tensor, action: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        choice = Normal(self.mean(seen), self.log_std.exp())
        action = choice.sample() if action is None else action
        return action, choice.log_prob(action).sum(1), choice.entropy().sum(1), self.critic(seen)[:, 0]


def train(env_id: str, updates: int = 2, lanes: int = 2, steps: int = 32, seed: int = 0, **options: Any) -> Agent:
    torch.manual_seed(seed)
    envs = gym.vector.SyncVectorEnv([lambda: make_env(env_id, **options)] * lanes)
    agent = Agent(envs.single_observation_space.shape[0], envs.single_action_space.shape[0])
    optimiser = torch.optim.Adam(agent.parameters(), lr=3e-4, eps=1e-5)
    seen, ended = torch.Tensor(envs.reset(seed=seed)[0]), torch.zeros(lanes)
    for _ in range(updates):
        rollout: list[list[torch.Tensor]] = [[], [], [], [], [], []]
        for _ in range(steps):
            with torch.no_grad():
                action, likelihood, _, value = agent.act(seen)
            after, reward, terminated, truncated, _ = envs.step(action.numpy())
            for column, entry in zip(
                rollout, (seen, action, likelihood, value, torch.Tensor(reward), ended), strict=True
            ):
                column.append(entry)
            seen, ended = torch.Tensor(after), torch.Tensor(terminated | truncated)
        old_seen, actions, likelihoods, values, rewards, ends = (torch.stack(column) for column in rollout)
        with torch.no_grad():
            next_value, running, advantages = agent.act(seen)[3], torch.zeros(lanes), torch.zeros_like(rewards)
            for t in reversed(range(steps)):
                going = 1 - (ended if t == steps - 1 else ends[t + 1])
                ahead = next_value if t == steps - 1 else values[t + 1]
                running = rewards[t] + GAMMA * ahead * going - values[t] + GAMMA * LAMBDA * going * running
                advantages[t] = running
        batch = [part.flatten(0, 1) for part in (old_seen, actions, likelihoods, advantages, advantages + values)]
        for part in torch.randperm(lanes * steps).split(16):
            s, a, old, gain, target = (whole[part] for whole in batch)
            _, now, entropy, value = agent.act(s, a)
            gain, ratio = (gain - gain.mean()) / (gain.std() + 1e-8), (now - old).exp()
            policy = torch.max(-gain * ratio, -gain * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = policy - ENTROPY * entropy.mean() + VALUE * ((value - target) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimiser.step()
    envs.close()
    return agent
