"""The contract: every built-in agent keeps it, and what breaks it is explained."""

from __future__ import annotations

import copy
import random
import time

import numpy as np
import pytest
import torch

from foveasim.agents.contract.check import RULES, AgentContract, CheckConfig, check, check_agent
from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.loading import AGENTS, make_agent
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.types import Prediction

pytestmark = pytest.mark.usefixtures("one_thread")


class Good:
    """Looks opposite to where it is, with noise of its own and a count of its steps."""

    def __init__(self, seed=0):
        self.draws = np.random.default_rng(seed)
        self.count = np.zeros(0)

    def reset(self, lanes):
        self.count = np.where(lanes, 0, self.count) if len(self.count) == len(lanes) else np.zeros(len(lanes))

    def act(self, observation):
        self.count = self.count + 1
        noise = self.draws.uniform(-0.1, 0.1, (len(self.count), 2))
        return (-0.5 * observation["fixation"] + 0.1 / self.count[:, None] + noise).astype(np.float32)


class NoLaneAxis(Good):
    def act(self, observation):
        return np.zeros(2, np.float32)


class FlatAction(Good):
    def act(self, observation):
        return np.zeros((len(self.count), 3), np.float32)


class NotANumber(Good):
    def act(self, observation):
        return super().act(observation) * np.float32("nan")


class InPixels(Good):
    def act(self, observation):
        return (super().act(observation) + 1) * 48


class WholeNumbers(Good):
    def act(self, observation):
        return super().act(observation).astype(np.int64)


class ReturnsNone(Good):
    def act(self, observation):
        super().act(observation)


class ReturnsList(Good):
    def act(self, observation):
        return super().act(observation).tolist()


class Raises(Good):
    def act(self, observation):
        return self.never_made


class NoReset:
    def act(self, observation):
        return np.zeros((1, 2), np.float32)


class WrongArity(Good):
    def act(self, observation, info):
        return super().act(observation)


class Unbuildable(Good):
    def __init__(self, seed=0):
        raise OSError("weights are missing")


class NeedsAString(Good):
    needs = "belief"


class Remembers(Good):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.sum = 0.0

    def act(self, observation):
        self.sum += float(observation["glimpse"][0].mean())
        return np.full((len(self.count), 2), np.sin(self.sum), np.float32)


class Unseeded(Good):
    def act(self, observation):
        return np.random.uniform(-1, 1, (len(self.count), 2)).astype(np.float32)  # noqa: NPY002


class SeedsGlobally(Good):
    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(seed)


class Mutates(Good):
    def act(self, observation):
        observation["fixation"] *= 0.5
        return super().act(observation)


class MixesLanes(Good):
    def act(self, observation):
        level = observation["glimpse"].mean() / 255
        return np.full((len(self.count), 2), level, np.float32)


class ResetsAll(Good):
    def reset(self, lanes):
        self.count = np.zeros(len(lanes))


class Slow(Good):
    def act(self, observation):
        time.sleep(0.005)
        return super().act(observation)


class OddCell(Good):
    action_mode = "grid"

    def act(self, observation):
        return np.full(len(self.count), -1)


class CellTooFar(OddCell):
    grid = (2, 3)

    def act(self, observation):
        return np.full(len(self.count), 6)


class HalfACell(OddCell):
    def act(self, observation):
        return np.full(len(self.count), 1.5)


class LastCell(OddCell):
    grid = (2, 3)

    def act(self, observation):
        return [5] * len(self.count)


class OddGrid(OddCell):
    grid = (2, 0)


class Words(Good):
    def act(self, observation):
        return [("left", "up")] * len(self.count)


class Tensors(Good):
    def act(self, observation):
        return torch.from_numpy(super().act(observation))


class SeesReceptors(Good):
    needs, patch_shape, size = ("patch",), (5, 7, 6), (40, 56)

    def act(self, observation):
        assert observation["patch"].shape == (len(self.count), 5, 7, 6)
        assert observation["glimpse"].shape == (len(self.count), 40, 56, 3)
        return super().act(observation)


class Cell(Good):
    action_mode = "grid"

    def act(self, observation):
        return np.full(len(self.count), 3)


class Dreamer(Good):
    scale, channels_first, std, kind = 1.0, False, None, Prediction

    def imagine(self, observation):
        image = torch.from_numpy(observation["glimpse"]).float() / 255 * self.scale
        if self.channels_first:
            image = image.permute(0, 3, 1, 2)
        return image if self.kind is None else Prediction(image, self.std)


class DreamsTooBright(Dreamer):
    scale = 255.0


class DreamsSideways(Dreamer):
    channels_first = True


class DreamsTensors(Dreamer):
    kind = None


class DreamsOddStd(Dreamer):
    std = torch.ones(3)


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_registered_agent_keeps_it(name):
    # what tries many places with a network takes a minute at 96 px
    small = {"size": (32, 40)} if "oracle" in name or name == "information" else {}
    results = check_agent(name, limit_ms=10_000, **small)
    assert {result.level for result in results} <= {"pass", "note"}, results
    assert {result.rule for result in results} >= set(RULES) - {"imagines"}


@pytest.mark.parametrize("name", ["itti_koch", "spectral_residual"])
def test_privileged_agents_keep_it_and_are_noted(name):
    results = check_agent(lambda seed: make_agent(name, privileged=True, seed=seed), limit_ms=10_000)
    assert {result.level for result in results} <= {"pass", "note"}
    assert "privileged" in next(result.message for result in results if result.rule == "declares")


@pytest.mark.parametrize(
    "cls",
    [Good, Cell, LastCell, Dreamer, ReturnsList, WholeNumbers, Tensors, SeesReceptors],  # as an env takes them
)
def test_a_good_agent_keeps_it(cls):
    results = check_agent(cls)
    assert {result.level for result in results} <= {"pass", "note"}, results
    assert ("imagines" in [result.rule for result in results]) == (cls is Dreamer)


@pytest.mark.parametrize(
    ("cls", "rule", "message", "remedy"),
    [
        (NoLaneAxis, "acts", "the shape (1, 2); got (2,)", "action[None]"),
        (
            FlatAction,
            "acts",
            "must return (1, 2) floats: action must have the shape (1, 2); got (1, 3)",
            "one (x, y) for each lane",
        ),
        (NotANumber, "acts", "must be finite and in [-1, 1]; lane 0 is [nan, nan]", "0 / 0"),
        (InPixels, "acts", "must be finite and in [-1, 1]; lane 0 is", "2 * x_px / width - 1"),
        (ReturnsNone, "acts", "returned None", "'return' missing"),
        (Words, "acts", "action must be real numbers", "NumPy array"),
        (OddCell, "acts", "from 0 to 63; got [-1]", "Count from 0"),
        (CellTooFar, "acts", "from 0 to 5; got [6]", "Another grid than 2 x 3"),
        (HalfACell, "acts", "whole numbers in grid mode; got float64", "NumPy array"),
        (OddGrid, "declares", "grid must have sides of 1 to 256", ""),
        (Raises, "acts", "AttributeError: 'Raises' object has no attribute 'never_made'", "Mend what raises"),
        (NoReset, "methods", "has no reset()", "def reset(self, lanes)"),
        (WrongArity, "methods", "act must take one argument", "def act(self, observation)"),
        (Unbuildable, "builds", "weights are missing", "Mend"),
        (NeedsAString, "declares", "must be a tuple of keys", ""),
        (Remembers, "forgets", "still changed the actions", "In reset(lanes), clear"),
        (Unseeded, "repeats", "acted differently", "np.random.default_rng(seed)"),
        (Mutates, "keeps inputs", "was changed: fixation", ".copy()"),
        (MixesLanes, "lanes", "depended on what the other lanes saw", "without axis="),
        (ResetsAll, "partial resets", "not marked acted differently", "state[lanes] = start"),
        (DreamsTooBright, "imagines", "in [0, 1]; it goes from", "Prediction"),
        (DreamsSideways, "imagines", "it is (1, 3, 96, 96)", "channels last"),
        (DreamsTensors, "imagines", "returned a Tensor", "Prediction"),
        (DreamsOddStd, "imagines", "std must be", "std=None"),
    ],
)
def test_what_breaks_it_is_explained(cls, rule, message, remedy):
    make = (lambda seed: cls()) if cls is NoReset else (lambda seed: cls(seed))
    failed = {result.rule: result for result in check_agent(make) if result.level == "fail"}
    assert rule in failed
    # One fault, one finding; only a memory that mixes lanes shows in two places.
    assert set(failed) <= {rule, *(("lanes", "partial resets") if cls is Remembers else ())}
    assert message in failed[rule].message
    assert remedy in failed[rule].remedy


class Unasked(Good):
    """Looks at belief, which it did not ask for."""

    def act(self, observation):
        return observation["belief_acuity"][:, 0, 0, :2]


def test_who_did_not_ask_for_belief_is_told_how():
    failed = [result for result in check_agent(Unasked) if result.level == "fail"]
    assert failed[0].message.startswith("KeyError: 'belief_acuity'")
    assert failed[0].remedy == "Ask for it: needs = ('belief',)."


def test_what_raises_is_shown_with_its_line():
    result = next(result for result in check_agent(Raises) if result.level == "fail")
    assert "return self.never_made" in result.message


@pytest.mark.parametrize(
    ("cls", "limit_ms", "rule", "message"),
    [(SeedsGlobally, 50, "own noise", "state of torch"), (Slow, 1, "quick", "more than 1 ms")],
)
def test_what_is_only_warned_of(cls, limit_ms, rule, message):
    results = check_agent(cls, limit_ms=limit_ms)
    assert not [result for result in results if result.level == "fail"]
    assert message in next(result.message for result in results if result.rule == rule and result.level == "warn")


def test_what_a_class_raises_when_it_is_built_is_shown_with_its_line():
    result = check_agent(Unbuildable)[0]
    assert (result.rule, result.level) == ("builds", "fail")
    assert "weights are missing" in result.message and "test_agents.py" in result.message


def test_rules_that_rest_on_a_failed_one_are_left_out():
    assert [result.rule for result in check_agent(NotANumber)] == ["builds", "methods", "declares", "acts"]
    rules = [result.rule for result in check_agent(Unseeded)]
    assert "quick" in rules and not {"forgets", "lanes", "partial resets"} & set(rules)


def test_one_rule_brings_those_that_it_rests_on():
    rules = [result.rule for result in check_agent(Good, only=["forgets"])]
    assert rules == ["builds", "methods", "declares", "acts", "repeats", "forgets"]
    with pytest.raises(InvalidValueError, match="only must name rules"):
        check_agent(Good, only=["polite"])


def test_an_agent_in_hand_is_copied():
    agent = Good(3)
    before = copy.deepcopy(agent.draws.bit_generator.state)
    assert {result.level for result in check_agent(agent)} <= {"pass", "note"}
    assert agent.draws.bit_generator.state == before
    with pytest.raises(InvalidTypeError, match="Give it a class or a name"):
        check_agent(7)


def test_the_global_random_state_is_put_back():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    check_agent(Unseeded)
    check_agent(SeedsGlobally)
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_the_command_prints_and_says_by_its_code(capsys, tmp_path, monkeypatch):
    assert check(CheckConfig("walk", arguments={"amplitude_deg": 3.0})) == 0
    assert "walk keeps the contract" in capsys.readouterr().out
    (tmp_path / "bad_gaze.py").write_text(
        "import numpy as np\nclass Bad:\n    def reset(self, lanes): ...\n"
        "    def act(self, observation): return np.full((len(observation['fixation']), 2), np.nan)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert check(CheckConfig("bad_gaze:Bad")) == 1
    printed = capsys.readouterr().out
    assert "action must be finite" in printed and "breaks the contract: acts" in printed
    assert "rest on 'acts' were not tried" in printed


def test_an_unknown_name_is_an_error_not_a_finding():
    with pytest.raises(UnknownNameError, match="Did you mean 'random'"):
        check(CheckConfig("randm"))


def test_practice_observations_are_what_an_env_gives():
    for observation in make_synthetic_observations(2, 3, size=(40, 60), needs=("belief", "scene", "patch")):
        shapes = {key: (value.shape, str(value.dtype)) for key, value in observation.items()}
        image, plane = ((2, 40, 60, 3), "uint8"), ((2, 40, 60, 1), "uint8")
        assert shapes == {
            "glimpse": image,
            "acuity": plane,
            "fixation": ((2, 2), "float32"),
            "time": ((2, 1), "float32"),
            "belief": image,
            "belief_acuity": plane,
            "scene": image,
            "patch": ((2, 12, 12, 12), "uint8"),
        }
        # The middle of the finest square is the pixel looked at, or one beside it.
        centre = (observation["fixation"] + 1) * np.array([60, 40]) / 2
        row, col = np.clip((centre[:, ::-1] + 0.5).astype(int), 0, (39, 59)).T
        assert np.array_equal(observation["patch"][:, 6, 6, :3], observation["scene"][[0, 1], row, col])
        shown = observation["belief_acuity"][..., 0] > 0
        assert np.array_equal(observation["belief"][shown], observation["scene"][shown])
        assert not np.array_equal(observation["scene"][0], observation["scene"][1])


class TestInherited(AgentContract):
    make = staticmethod(lambda seed: make_agent("walk", seed=seed))


def test_an_inherited_test_fails_with_the_remedy():
    class Mine(AgentContract):
        make = staticmethod(lambda seed: NotANumber(seed))

    with pytest.raises(AssertionError, match=r"(?s)acts: .*must be finite.*→ Look for 0 / 0"):
        Mine().test_lanes()
    assert [name for name in dir(Mine) if name.startswith("test_")] == sorted(
        f"test_{r.replace(' ', '_')}" for r in RULES
    )
