"""The resolver, what agents declare, and the noise of lanes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from foveasim.agents.interface import (
    Agent,
    Imagines,
    agent_action_mode,
    agent_grid,
    agent_name,
    agent_needs,
    agent_size,
    observed,
)
from foveasim.agents.loading import AGENTS, make_agent
from foveasim.agents.noise import LaneNoise
from foveasim.errors import (
    AgentError,
    InvalidTypeError,
    InvalidValueError,
    UnknownNameError,
    UntrustedError,
    WeightsError,
)
from foveasim.rng import Stream, uniform

ONE = np.ones(1, bool)


class Mine:
    def __init__(self, x: float = 0.25, seed: int = 0) -> None:
        self.x, self.seed = x, seed

    def reset(self, lanes):
        pass

    def act(self, observation):
        return np.full((len(observation["fixation"]), 2), self.x, np.float32)


class Unseeded:
    def __init__(self, x: float = 0.25) -> None:
        self.x = x

    reset = Mine.reset
    act = Mine.act


class Forwarding(Mine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class Incomplete:
    def act(self, observation):
        return None


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_name_makes_an_agent(name):
    agent = make_agent(name, seed=3)
    assert isinstance(agent, Agent)
    special = {"scene"} if "oracle" in name else {"target"} if name in ("seek", "search_policy") else set()
    assert set(agent_needs(agent)) <= {"belief", *special}
    assert agent_name(agent)


def test_the_names_that_are_promised():
    blind = {"centre", "random", "gaussian", "raster", "spiral", "walk"}
    assert blind | {"saliency", "itti_koch", "spectral_residual", "human"} <= set(AGENTS)
    assert {"uncertainty", "surprise", "information", "oracle", "beam_oracle"} <= set(AGENTS)


def test_a_class_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "my_gaze.py").write_text(
        "class Looker:\n"
        "    def __init__(self, x, seed=0):\n        self.x, self.seed = x, seed\n"
        "    def reset(self, lanes):\n        pass\n"
        "    def act(self, observation):\n        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    agent = make_agent("my_gaze:Looker", seed=5, x=0.5)
    assert (agent.x, agent.seed) == (0.5, 5)
    with pytest.raises(InvalidTypeError, match="missing a required argument: 'x'"):
        make_agent("my_gaze:Looker")
    with pytest.raises(UnknownNameError, match="Did you mean 'Looker'"):
        make_agent("my_gaze:Loker", x=0.5)


BROKEN = """
import numpy as np

class Fails:
    def __init__(self, seed=0):
        self.gain = {}["gain"]

class FailsInALibrary:
    def __init__(self):
        np.zeros(-1)

class FailsInFoveasim:
    def __init__(self):
        from foveasim.geometry import grid_norm
        grid_norm("a", 2)

class Refuses:
    def __init__(self):
        from foveasim.validation import number
        number("gain", 3, 0, 1)
"""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    (tmp_path / "broken_gaze.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "broken_gaze"
    sys.modules.pop("broken_gaze", None)


def test_a_class_that_raises_says_what_and_where(broken):
    with pytest.raises(
        AgentError, match=r"'broken_gaze:Fails'.*KeyError: 'gain' \(.*broken_gaze.py, line 6\)"
    ) as raised:
        make_agent("broken_gaze:Fails")
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(AgentError, match=r"ValueError: negative dimensions.*broken_gaze.py, line 10\)"):
        make_agent("broken_gaze:FailsInALibrary")
    with pytest.raises(AgentError, match=r"Error: .*broken_gaze.py, line 15\)"):
        make_agent("broken_gaze:FailsInFoveasim")
    with pytest.raises(InvalidValueError, match=r"^gain"):
        make_agent("broken_gaze:Refuses")


def test_a_module_that_cannot_be_imported_is_an_agents_error(tmp_path, monkeypatch):
    (tmp_path / "broken_syntax.py").write_text("class Looker\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AgentError, match=r"SyntaxError: expected ':' \(.*broken_syntax.py, line 1\)"):
        make_agent("broken_syntax:Looker")
    with pytest.raises(UnknownNameError, match="':B' names nothing"):
        make_agent(":B")


def make_mine(x=0.5, seed=0):
    return Mine(x, seed)


def test_a_function_is_called(tmp_path, monkeypatch):
    agent = make_agent(make_mine, seed=3, x=1.0)
    assert (agent.x, agent.seed) == (1.0, 3)
    with pytest.raises(InvalidTypeError, match="agent 'make_mine': got an unexpected keyword argument 'y'"):
        make_agent(make_mine, y=1)
    with pytest.raises(InvalidTypeError, match="agent 'Mine': got an unexpected keyword argument 'y'"):
        make_agent(Mine, y=1)
    with pytest.raises(AgentError, match=r"a int without reset\(\)"):
        make_agent(lambda: 7)
    (tmp_path / "my_maker.py").write_text(
        "from foveasim.agents.builtin.scripted import Spiral\ndef spiral():\n    return Spiral(0.5)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert agent_name(make_agent("my_maker:spiral")) == "spiral"


def test_the_seed_goes_to_whoever_takes_one():
    assert make_agent(Mine, seed=4, x=1.0).seed == 4
    assert make_agent(Unseeded, seed=4, x=1.0).x == 1.0
    assert make_agent(Forwarding, seed=4).seed == 4


def test_an_agent_in_hand_is_returned():
    agent = Mine()
    assert make_agent(agent) is agent
    with pytest.raises(AgentError, match="takes no arguments; got x"):
        make_agent(agent, x=0.5)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("randm", UnknownNameError, "Did you mean 'random'"),
        ("no_such_package:Agent", UnknownNameError, "no module named 'no_such_package'"),
        ("policy.safetensors", WeightsError, "no policy file.*foveasim train"),
        ("model.zip", UntrustedError, "pickled objects"),
        ("mine/gaze.py:Looker", AgentError, "Write mine.gaze:Looker"),
        (Incomplete, AgentError, r"without reset\(\)"),
        (7, AgentError, r"a int without reset\(\) and act\(\)"),
    ],
)
def test_what_is_no_agent(spec, error, message):
    with pytest.raises(error, match=message):
        make_agent(spec)


def test_a_seed_that_is_none():
    with pytest.raises(InvalidValueError, match="seed must be from 0"):
        make_agent("random", seed=-1)


def test_declarations():
    agent = Mine()
    assert (agent_needs(agent), agent_action_mode(agent), agent_name(agent)) == ((), "absolute", "Mine")
    agent.needs, agent.action_mode, agent.name = ["scene", "belief"], "grid", "me"
    assert (agent_needs(agent), agent_action_mode(agent), agent_name(agent)) == (("belief", "scene"), "grid", "me")
    agent.needs = "belief"
    with pytest.raises(AgentError, match=r"Write needs = \('belief',\)"):
        agent_needs(agent)
    agent.needs = ("hidden",)
    with pytest.raises(AgentError, match="choose from belief, scene, patch, target"):
        agent_needs(agent)
    agent.needs = ("patch",)
    assert agent_needs(agent) == ("patch",)
    agent.needs, agent.action_mode = 3, "polar"
    with pytest.raises(AgentError, match="must be a tuple of keys such as"):
        agent_needs(agent)
    with pytest.raises(AgentError, match="absolute, relative, grid"):
        agent_action_mode(agent)


def test_the_grid_and_the_size_that_an_agent_declares():
    agent = Mine()
    assert (agent_grid(agent), agent_size(agent)) == ((8, 8), None)
    agent.grid, agent.size = [3, 5], (48, 64)
    assert (agent_grid(agent), agent_size(agent)) == ((3, 5), (48, 64))
    agent.grid, agent.size = (0, 5), 48
    with pytest.raises(AgentError, match=r"Mine: grid must have sides of 1 to 256"):
        agent_grid(agent)
    with pytest.raises(AgentError, match=r"Mine: size must be a pair"):
        agent_size(agent)


def test_imagining_is_optional():
    assert not isinstance(Mine(), Imagines)


def test_observed_reads_arrays_and_tensors():
    assert observed({"time": torch.ones(2, 1)}, "time").tolist() == [[1], [1]]
    with pytest.raises(AgentError, match=r"it has time.*belief=True"):
        observed({"time": np.ones((2, 1))}, "belief")
    with pytest.raises(AgentError, match=r"must have 'patch'.*patch=True"):
        observed({"time": np.ones((2, 1))}, "patch")
    with pytest.raises(AgentError, match=r"must have 'depth'; it has time\.$"):
        observed({"time": np.ones((2, 1))}, "depth")


def test_naming_an_agent_does_not_load_the_others():
    heavy = "('numba', 'cv2', 'stable')"
    code = f"import sys, foveasim.agents.loading; print([m for m in sys.modules if m.startswith({heavy})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_noise_equals_its_torch_twin():
    noise = LaneNoise(11)
    noise.reset(np.ones(4, bool))
    noise.tick()
    noise.reset(np.array([False, True, False, False]))
    seed = torch.arange(4) + 11
    episode, step = torch.tensor([0, 1, 0, 0]), torch.tensor([1, 0, 1, 1])
    np.testing.assert_array_equal(noise.uniform(5), uniform(seed, episode, step, Stream.AGENT, 5).numpy())


def test_noise_refuses_lanes_that_do_not_fit():
    noise = LaneNoise()
    with pytest.raises(AgentError, match="before the first act"):
        noise.check(1)
    noise.reset(np.ones(3, bool))
    with pytest.raises(AgentError, match=r"lanes must be \(3,\), or all True"):
        noise.reset(np.array([True, False]))
    with pytest.raises(AgentError, match=r"\(B,\) bool; got \(3,\) int64"):
        noise.reset(np.array([0, 1, 2]))
    noise.reset(np.ones(2, bool))
    assert len(noise) == 2
