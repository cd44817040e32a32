"""A stable-baselines3 model in hand is an agent."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import Env, spaces

import foveasim.envs  # noqa: F401  # registers the ids
from foveasim.agents.contract.check import check_agent
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.interface import agent_action_mode, agent_grid, agent_needs
from foveasim.agents.loading import make_agent
from foveasim.agents.rl.sb3_agent import SB3Agent
from foveasim.agents.rollout import rollout
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.eye.retina import make_retina

BOX = spaces.Box(-1, 1, (2,), np.float32)
SEEN = spaces.Dict({"fixation": BOX, "time": spaces.Box(0, 1, (1,), np.float32)})


def image(channels, height=40, width=56):
    return spaces.Box(0, 255, (height, width, channels), np.uint8)


pytestmark = pytest.mark.usefixtures("one_thread")


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
    observation = make_synthetic_observations(2, 1)[0]
    agent.reset(np.ones(2, bool))
    assert [agent.act(observation)[0, 0] for _ in range(2)] == pytest.approx([0.01, 0.02])
    agent.reset(np.array([False, True]))
    assert agent.act(observation)[:, 0].tolist() == pytest.approx([0.03, 0.01])
    agent.reset(np.ones(3, bool))
    assert agent.act(make_synthetic_observations(3, 1)[0])[:, 0].tolist() == pytest.approx([0.01] * 3)


def test_sampling_repeats_and_leaves_the_global_generator_alone():
    observation = make_synthetic_observations(2, 1)[0]
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
    wide = spaces.Dict({**SEEN.spaces, "belief": image(3), "belief_acuity": image(1)})
    agent = SB3Agent(Recurrent(wide, spaces.Discrete(9)))
    assert (agent_needs(agent), agent_action_mode(agent), agent.name) == (("belief",), "grid", "Recurrent")
    assert agent_action_mode(make_agent(Recurrent(), action_mode="relative")) == "relative"
    with pytest.raises(InvalidValueError, match="action_mode must be one of"):
        make_agent(Recurrent(), action_mode="polar")
    with pytest.raises(AgentError, match="must see a Dict"):
        make_agent(Recurrent(BOX))
    with pytest.raises(AgentError, match="last reset had 0 lanes"):
        make_agent(Recurrent()).act(make_synthetic_observations(1, 1)[0])


def seeing(**extra):
    return spaces.Dict({**SEEN.spaces, **extra})


def test_the_size_and_the_needs_come_from_the_observation_space():
    agent = SB3Agent(Recurrent(seeing(glimpse=image(3), belief_acuity=image(1), scene=image(3))))
    assert (agent.size, agent.needs, agent.patch_shape) == ((40, 56), ("belief", "scene"), None)
    first = spaces.Box(0, 255, (3, 40, 56), np.uint8), spaces.Box(0, 255, (9, 12, 12), np.uint8)
    agent = SB3Agent(Recurrent(seeing(glimpse=first[0], patch=first[1])))
    assert (agent.size, agent.needs, agent.patch_shape) == ((40, 56), ("patch",), (12, 12, 9))
    for patch in ((12, 12, 9), (8, 40, 12)):
        space = spaces.Box(0, 255, patch, np.uint8)
        assert SB3Agent(Recurrent(seeing(glimpse=image(3), patch=space))).patch_shape == patch
    assert SB3Agent(Recurrent(seeing(patch=image(9, 12, 12)))).patch_shape == (12, 12, 9)
    assert SB3Agent(Recurrent(seeing(patch=first[1]))).patch_shape == (12, 12, 9)
    assert SB3Agent(Recurrent()).size is None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"depth": image(1)}, "'depth', which no foveasim env shows"),
        ({"glimpse": image(12)}, r"glimpse must be \(H, W, 3\).*it is \(40, 56, 12\).*VecFrameStack"),
        ({"glimpse": BOX}, r"glimpse must be \(H, W, 3\)"),
        ({"glimpse": image(3), "acuity": image(1, 20, 20)}, "must have one size"),
        ({"patch": BOX}, "patch must be"),
    ],
)
def test_a_model_that_sees_what_no_env_shows_is_refused(extra, message):
    with pytest.raises(AgentError, match=message):
        make_agent(Recurrent(seeing(**extra)))


def test_a_model_that_saw_normalised_observations_is_refused():
    model = Recurrent()
    model.get_vec_normalize_env = lambda: SimpleNamespace(norm_obs=False)
    assert make_agent(model).action_mode == "absolute"
    model.get_vec_normalize_env = lambda: SimpleNamespace(norm_obs=True)
    with pytest.raises(AgentError, match="norm_obs=False"):
        make_agent(model)


@pytest.mark.parametrize(
    ("cells", "grid", "expected"), [(9, None, (3, 3)), (64, None, (8, 8)), (12, (3, 4), (3, 4)), (16, (2, 8), (2, 8))]
)
def test_the_grid_comes_from_the_action_space(cells, grid, expected):
    agent = make_agent(Recurrent(action_space=spaces.Discrete(cells)), grid=grid)
    assert (agent.action_mode, agent_grid(agent)) == ("grid", expected)
    assert agent_grid(make_agent(Recurrent())) == (8, 8)


@pytest.mark.parametrize(
    ("space", "arguments", "error", "message"),
    [
        (spaces.Discrete(12), {}, AgentError, r"12 cells; no square grid has so many. Give the grid=\(rows, cols\)"),
        (spaces.Discrete(12), {"grid": (3, 3)}, AgentError, r"grid=\(3, 3\) has 9"),
        (spaces.Discrete(12), {"grid": 3}, AgentError, "grid must be a pair"),
        (spaces.Discrete(65), {}, AgentError, r"8 x 8 cells.*stop=False, or give its grid"),
        (spaces.Discrete(13), {"grid": (3, 4)}, AgentError, r"3 x 4 cells.*stop=False\.$"),
        (spaces.Discrete(9), {"action_mode": "absolute"}, InvalidValueError, "must be 'grid'"),
        (spaces.MultiDiscrete([64, 3]), {}, AgentError, "zoom=False and stop=False"),
        (spaces.Box(-1, 1, (3,), np.float32), {}, AgentError, "zoom=False and stop=False"),
        (spaces.Box(-1, 1, (4,), np.float32), {}, AgentError, "zoom=False and stop=False"),
        (spaces.Box(0, 1, (2,), np.float32), {}, AgentError, r"must act in Box\(-1, 1, \(2,\)\)"),
        (spaces.MultiBinary(2), {}, AgentError, "must act in"),
        (BOX, {"grid": (3, 4)}, InvalidValueError, "a grid is for a model that acts in Discrete"),
        (BOX, {"action_mode": "grid"}, InvalidValueError, "a grid is for a model that acts in Discrete"),
        (BOX, {"mode": "grid"}, InvalidTypeError, "unexpected keyword argument 'mode'"),
    ],
)
def test_actions_that_an_agent_cannot_take_are_refused(space, arguments, error, message):
    with pytest.raises(error, match=message):
        make_agent(Recurrent(action_space=space), **arguments)


def test_another_size_is_named():
    agent = make_agent(Recurrent(seeing(glimpse=image(3))))
    agent.reset(np.ones(2, bool))
    assert agent.act(make_synthetic_observations(2, 1, size=(40, 56))[0]).shape == (2, 2)
    with pytest.raises(
        AgentError, match=r"trained on glimpse of shape \(40, 56, 3\); the observation has \(32, 32, 3\)"
    ):
        agent.act(make_synthetic_observations(2, 1, size=(32, 32))[0])


def model_by_path():
    return Recurrent(action_space=spaces.Discrete(9))


def test_a_function_may_return_a_model():
    agent = make_agent(model_by_path, seed=4)
    assert isinstance(agent, SB3Agent) and agent.grid == (3, 3)


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
    results = check_agent(lambda seed: make_agent(model, seed=seed), limit_ms=10_000)
    assert {result.level for result in results} <= {"pass", "note"}, results


@pytest.mark.parametrize(
    ("options", "actions"),
    [
        ({"belief": True, "retina": "disc"}, {"action_mode": "absolute", "grid": (8, 8)}),
        (
            {"retina": make_retina("window", patch_px=40), "patch": True, "action_mode": "grid", "grid": (5, 5)},
            {"grid": (5, 5)},
        ),
    ],
)
def test_a_model_trained_on_the_env_looks_at_scenes(options, actions):
    sb3 = pytest.importorskip("stable_baselines3")
    envs = {"size": (48, 48), **options}
    env = gymnasium.make("foveasim/Glimpse-v0", **envs)
    model = sb3.PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    model.learn(8)
    assert model.observation_space["glimpse"].shape == (3, 48, 48)  # stable-baselines3 put VecTransposeImage around it
    agent = make_agent(lambda: model)
    assert agent.size == (48, 48)
    assert {name: getattr(agent, name) for name in actions} == actions
    lanes = gymnasium.make_vec("foveasim/Glimpse-v0", num_envs=3, **envs)
    assert agent.patch_shape == (lanes.single_observation_space["patch"].shape if "patch" in envs else None)
    observation, _ = lanes.reset(seed=5)
    agent.reset(np.ones(3, bool))
    # As the model itself, shown one eye at a time.
    alone = [model.predict({k: v[i] for k, v in observation.items()}, deterministic=True)[0] for i in range(3)]
    np.testing.assert_allclose(agent.act(observation), np.stack(alone), atol=1e-5)
    played = rollout(agent, lanes, steps=3, seed=5)
    assert np.isfinite(played.fixation_norm).all()
    results = check_agent(lambda seed: make_agent(model, seed=seed), limit_ms=10_000)
    assert {result.level for result in results} <= {"pass", "note"}, results


def posterior():
    return spaces.Box(0, 1, (4,), np.float32)


class Stops(Recurrent):
    """Always wishes to stop."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        lanes = len(observation["fixation"])
        if isinstance(self.action_space, spaces.Discrete):
            return np.full(lanes, self.action_space.n - 1), state
        return np.tile(np.array([0.5, -0.5, 1.0], np.float32), (lanes, 1)), state


def test_a_model_of_a_task_may_stop():
    three, task = spaces.Box(-1, 1, (3,), np.float32), seeing(posterior=posterior())
    shown = {**make_synthetic_observations(2, 1)[0], "posterior": np.full((2, 4), 0.25, np.float32)}
    fixation = np.array([[-0.9, 0.9], [0.1, -0.1]], np.float32)

    def act(model, **options):
        agent = make_agent(model, **options)
        agent.reset(np.ones(2, bool))
        return agent.act({**shown, "fixation": fixation}).tolist()

    assert act(Stops(task, three)) == [[0.5, -0.5, 1]] * 2
    assert act(Stops(task, three), stop=False) == [[0.5, -0.5]] * 2
    assert act(Stops(SEEN, three), stop=True) == [[0.5, -0.5, 1]] * 2
    assert act(Stops(task, spaces.Discrete(10))) == [9, 9]
    assert act(Stops(task, spaces.Discrete(10)), stop=False) == [6, 4]  # the cell that gaze is in
    with pytest.raises(AgentError, match="give stop=True"):
        make_agent(Stops(SEEN, three))
    with pytest.raises(AgentError, match="zoom=False"):
        make_agent(Stops(task, spaces.Box(-1, 1, (4,), np.float32)))


@pytest.mark.parametrize("name", ["Search", "Classify"])
def test_a_model_trained_on_a_task_does_it(name):
    sb3 = pytest.importorskip("stable_baselines3")
    options = {"size": (64, 64), "budget": 3}
    options |= {"belief": True, "kinds": "colour", "set_sizes": (4,)} if name == "Search" else {}
    env = gymnasium.make(f"foveasim/{name}-v0", **options)
    model = sb3.PPO("MultiInputPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    agent = make_agent(model)
    assert {"target"} <= set(agent.keys) if name == "Search" else {"posterior"} <= set(agent.keys)
    lanes = gymnasium.make_vec(f"foveasim/{name}-v0", num_envs=3, **options)
    observation, _ = lanes.reset(seed=5)
    agent.reset(np.ones(3, bool))
    alone = [model.predict({k: v[i] for k, v in observation.items()}, deterministic=True)[0] for i in range(3)]
    np.testing.assert_allclose(agent.act(observation), np.stack(alone), atol=1e-5)
    assert rollout(agent, lanes, episodes=3, seed=5).finished.all()
