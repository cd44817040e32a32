"""Rollouts on single and vector envs, in every autoreset mode."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import foveasim.envs  # noqa: F401  # registers the ids
from foveasim.agents.loading import make_agent
from foveasim.agents.rollout import OneLane, add_lane, rollout
from foveasim.errors import InvalidValueError

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting(gymnasium.Env):
    """Goes where it is told; the reward of step k is k, and an episode has ``budget`` steps."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, budget=3, grid=False):
        self.budget = budget
        box = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({"fixation": box, "time": spaces.Box(0, 1, (1,), np.float32)})
        self.action_space = spaces.Discrete(4) if grid else box
        self.actions = []

    def _see(self):
        return {"fixation": self.at.copy(), "time": np.array([1 - self.step_count / self.budget], np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        self.at = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._see(), {}

    def step(self, action):
        self.step_count += 1
        self.actions.append(action)
        self.at = np.asarray(action, np.float32) if np.ndim(action) else np.zeros(2, np.float32)
        info = {"amplitude_deg": 2.0 * self.step_count, "name": "x"}
        return self._see(), float(self.step_count), self.step_count >= self.budget, False, info


class Tracing:
    """Answers the number of its own steps since the lane's reset, over ten."""

    def __init__(self):
        self.step = None

    def reset(self, lanes):
        self.step = np.zeros(len(lanes), int) if self.step is None else np.where(lanes, 0, self.step)

    def act(self, observation):
        self.step = self.step + 1
        return np.repeat(self.step[:, None] / 10, 2, 1).astype(np.float32)


def vector(mode, budgets=(3, 3)):
    return SyncVectorEnv([lambda b=b: Counting(b) for b in budgets], autoreset_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_episodes_are_cut_right_in_every_mode(mode):
    env = vector(mode)
    done = rollout(Tracing(), env, episodes=5, seed=1)
    assert done.length.tolist() == [3] * 5
    assert done.returns.tolist() == [6.0] * 5
    assert done.finished.all()
    assert done.lane.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(done.reward, [[1, 2, 3]] * 5)
    np.testing.assert_allclose(done.info["amplitude_deg"], [[2, 4, 6]] * 5)
    assert set(done.info) == {"amplitude_deg"}
    # Every episode begins where the env put the eye, then goes where the agent, reset with it, says.
    np.testing.assert_allclose(done.fixation_norm[:, 1:, 0], [[0.1, 0.2, 0.3]] * 5, atol=1e-6)
    assert len(np.unique(done.fixation_norm[:, 0], axis=0)) == 5
    env.close()


def test_all_modes_and_the_single_env_agree():
    done = [rollout(Tracing(), vector(mode, (2, 4)), episodes=4, seed=3) for mode in AutoresetMode]
    for other in done[1:]:
        np.testing.assert_array_equal(done[0].fixation_norm, other.fixation_norm)
        np.testing.assert_array_equal(done[0].reward, other.reward)
    assert np.isnan(done[0].reward[0, 2:]).all()
    alone = rollout(Tracing(), Counting(2), episodes=2, seed=3)
    np.testing.assert_array_equal(alone.fixation_norm, done[0].fixation_norm[:2, :3])


def test_episodes_are_shared_out_whatever_their_length():
    done = rollout(Tracing(), vector(AutoresetMode.NEXT_STEP, (1, 6)), episodes=4)
    assert np.bincount(done.lane).tolist() == [2, 2]


def test_steps_keep_the_unfinished_too():
    done = rollout(make_agent("random"), vector(AutoresetMode.SAME_STEP), steps=4)
    assert done.length.tolist() == [3, 1, 3, 1]
    assert done.finished.tolist() == [True, False, True, False]
    assert np.isnan(done.fixation_norm[1, 2:]).all()


def test_same_seed_same_rollout():
    one, two = (
        rollout(make_agent("random", seed=4), vector(AutoresetMode.NEXT_STEP), episodes=4, seed=9) for _ in "ab"
    )
    np.testing.assert_array_equal(one.fixation_norm, two.fixation_norm)


def test_a_discrete_action_reaches_a_single_env_as_a_number():
    class Cell(Tracing):
        def act(self, observation):
            return np.array([2])

    env = Counting(grid=True)
    rollout(Cell(), env, episodes=1)
    assert env.actions == [2, 2, 2] and all(isinstance(action, int) for action in env.actions)


def test_one_lane_is_a_vector_env():
    env = OneLane(Counting(1))
    observation, _ = env.reset(seed=[5])
    assert env.observation_space.contains(observation)
    _, reward, terminated, _, _ = env.step(np.zeros((1, 2), np.float32))
    assert reward.tolist() == [1.0] and terminated.tolist() == [True]
    _, reward, terminated, _, _ = env.step(np.zeros((1, 2), np.float32))
    assert reward.tolist() == [0.0] and terminated.tolist() == [False]
    assert add_lane({"time": np.ones(1)})["time"].shape == (1, 1)


@pytest.mark.parametrize("arguments", [{}, {"episodes": 1, "steps": 1}, {"steps": 0}, {"episodes": -1}])
def test_how_much(arguments):
    with pytest.raises(InvalidValueError, match=r"episodes|steps"):
        rollout(Tracing(), Counting(), **arguments)


@pytest.mark.parametrize("name", ["walk", "saliency"])
def test_a_lane_of_the_real_env_does_what_the_single_env_does(name):
    options = {"scenes": "shapes", "budget": 4, "belief": True}
    batch = gymnasium.make_vec("foveasim/Glimpse-v0", num_envs=3, **options)
    together = rollout(make_agent(name, seed=2), batch, episodes=6, seed=7)
    alone = rollout(make_agent(name, seed=2), gymnasium.make("foveasim/Glimpse-v0", **options), episodes=2, seed=7)
    assert together.lane.tolist() == [0, 0, 1, 1, 2, 2]
    assert together.length.tolist() == [4] * 6
    np.testing.assert_array_equal(together.fixation_norm[:2], alone.fixation_norm)
    np.testing.assert_allclose(together.returns[:2], alone.returns, rtol=1e-5)
    batch.close()
