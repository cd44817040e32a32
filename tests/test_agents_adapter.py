"""A stable-baselines3 model in hand is an agent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import Env, spaces

from foveasim.agents.base import agent_action_mode, agent_needs, make_agent
from foveasim.agents.contract import check_agent
from foveasim.agents.practice import practice_observations
from foveasim.agents.rl.adapter import PredictAgent
from foveasim.errors import AgentError, InvalidValueError

BOX = spaces.Box(-1, 1, (2,), np.float32)
SEEN = spaces.Dict({"fixation": BOX, "time": spaces.Box(0, 1, (1,), np.float32)})


@pytest.fixture(autouse=True)
def _one_thread():
    # Where another program keeps the cores busy, two threads on maps this small wait for each other: 40 s, not 1.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Recurrent:
    """Counts its steps in its state; samples from torch's global generator, as stable-baselines3 does."""

    def __init__(self, observation_space=SEEN, action_space=BOX):
        self.observation_space, self.action_space = observation_space, action_space

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert set(observation) == set(self.observation_space.spaces)
        count = np.zeros(len(observation["fixation"])) if state is None else state[0]
        count = np.where(episode_start, 0, count) + 1
        noise = 0 if deterministic else torch.rand(len(count)).numpy() / 10
        return np.repeat((count / 100 + noise)[:, None], 2, 1).astype(np.float32), (count,)


def test_a_recurrent_state_is_kept_and_forgotten_by_lane():
    agent = make_agent(Recurrent())
    observation = practice_observations(2, 1)[0]
    agent.reset(np.ones(2, bool))
    assert [agent.act(observation)[0, 0] for _ in range(2)] == pytest.approx([0.01, 0.02])
    agent.reset(np.array([False, True]))
    assert agent.act(observation)[:, 0].tolist() == pytest.approx([0.03, 0.01])
    agent.reset(np.ones(3, bool))
    assert agent.act(practice_observations(3, 1)[0])[:, 0].tolist() == pytest.approx([0.01] * 3)


def test_sampling_repeats_and_leaves_the_global_generator_alone():
    observation = practice_observations(2, 1)[0]
    before = torch.random.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        agent = make_agent(Recurrent(), seed=seed, deterministic=False)
        agent.reset(np.ones(2, bool))
        drawn.append(np.stack([agent.act(observation) for _ in range(3)]))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert len(np.unique(drawn[0][:, 0, 0] - [0.01, 0.02, 0.03])) == 3
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_it_declares():
    wide = spaces.Dict({**SEEN.spaces, "belief": BOX, "belief_acuity": BOX})
    agent = PredictAgent(Recurrent(wide, spaces.Discrete(9)))
    assert (agent_needs(agent), agent_action_mode(agent), agent.name) == (("belief",), "grid", "Recurrent")
    assert agent_action_mode(make_agent(Recurrent(), action_mode="relative")) == "relative"
    with pytest.raises(InvalidValueError, match="action_mode must be one of"):
        make_agent(Recurrent(), action_mode="polar")
    with pytest.raises(AgentError, match="must see a Dict"):
        make_agent(Recurrent(BOX))
    with pytest.raises(AgentError, match="last reset had 0 lanes"):
        make_agent(Recurrent()).act(practice_observations(1, 1)[0])


class Tiny(Env):
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self):
        image = spaces.Box(0, 255, (40, 40, 3), np.uint8)
        self.observation_space = spaces.Dict({"glimpse": image, "belief": image, "fixation": BOX})
        self.action_space = BOX

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, True, False, {}


def test_a_real_model_keeps_the_contract():
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO("MultiInputPolicy", Tiny(), n_steps=2, batch_size=2, policy_kwargs={"net_arch": [8]}, seed=0)
    agent = make_agent(model)
    assert agent_needs(agent) == ("belief",)
    findings = check_agent(lambda seed: make_agent(model, seed=seed), size=(40, 40), limit_ms=10_000)
    assert {finding.level for finding in findings} <= {"pass", "note"}, findings
