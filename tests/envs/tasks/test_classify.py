"""Classification from glimpses: rewards add up, the readout judges what was seen, stopping early pays."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch import Tensor

from foveasim.agents.evaluation.stopping import (
    Glimpses,
    StopWhenSure,
    accuracy_by_glimpse,
    draw_glimpses,
    record_glimpses,
    stop_as_requested,
    stop_early,
    threshold_within,
)
from foveasim.agents.loading import make_agent
from foveasim.agents.rollout import rollout
from foveasim.envs.tasks.cell_readout import CellReadout, fit_cells
from foveasim.envs.tasks.classify import ClassifyEnv, ClassifyVectorEnv
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError, SceneError, WeightsError
from foveasim.scenes.signs import SignScenes
from foveasim.scenes.source import ArrayScenes

ID = "foveasim/Classify-v0"
PICTURES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
SCENES = ArrayScenes(PICTURES, label=[0, 1, 2] * 2, labels=("a", "b", "c"))
CODE = SignScenes().code_norm
QUIET = {"stop": False, "budget": 2, "autoreset_mode": "Disabled"}


class SeenShare:
    """Says class a with the probability of a third and two thirds of the share of the scene that was seen."""

    classes = ("a", "b", "c")
    calls = 0

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        self.calls += len(image)
        seen = acuity.float().mean((1, 2)) / 255
        first = 1 / 3 + 2 / 3 * seen
        return torch.stack((first, (1 - first) / 2, (1 - first) / 2), 1).log()


def make(**options: Any) -> ClassifyEnv:
    return ClassifyEnv(**{"scenes": SCENES, "readout": SeenShare(), "size": (32, 32), **options})


def many(lanes: int, **options: Any) -> ClassifyVectorEnv:
    return ClassifyVectorEnv(lanes, **{"scenes": SCENES, "readout": SeenShare(), "size": (32, 32), **options})


def signs(lanes: int, **options: Any) -> ClassifyVectorEnv:
    return ClassifyVectorEnv(lanes, **{"stop": False, "budget": 4, "autoreset_mode": "Disabled", **options})


@pytest.mark.parametrize("options", [{}, {"action_mode": "grid"}, {"stop": False, "action_mode": "relative"}], ids=str)
def test_both_checkers_pass_without_a_warning(options: dict[str, Any]) -> None:
    env = gym.make(ID, scenes=SCENES, readout=SeenShare(), size=(48, 48), **options).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env, skip_render_check=True)


def test_it_is_made_by_id_without_further_ado() -> None:
    env = gym.make(ID).unwrapped
    assert isinstance(env, ClassifyEnv)
    assert env.action_space.shape == (3,)
    assert env.observation_space["posterior"].shape == (4,)
    envs = gym.make_vec(ID, num_envs=2, scenes=SCENES, readout=SeenShare(), size=(32, 32))
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)


def test_gains_add_up_to_what_was_learned_and_glimpses_cost() -> None:
    env = make(budget=4, cost_per_glimpse=0.125, lapse=0.1)
    observation, info = env.reset(seed=0, options={"scene": 0})
    assert (info["label"], info["glimpses"]) == (0, 1)
    first, total = info["log_likelihood"], 0.0
    for step in range(1, 5):
        action = np.array([0.9 if step % 2 else -0.9, 0.3 * step - 0.7, -1], np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        total += reward
        assert info["reward_terms"]["glimpse_cost"] == -0.125
        seen = env.simulator.coverage.item()
        expected = 0.9 * (1 / 3 + 2 / 3 * seen) + 0.1 / 3
        assert observation["posterior"][0] == pytest.approx(expected, abs=1e-4)
        assert info["log_likelihood"] == pytest.approx(math.log(expected), abs=1e-4)
        assert info["glimpses"] == step + 1
        assert (terminated, truncated) == (step == 4, False)
    assert total == pytest.approx(info["log_likelihood"] - first - 4 * 0.125, abs=1e-5)
    assert first < info["log_likelihood"] < 0


def test_knowing_more_of_a_wrong_class_is_punished() -> None:
    env = make(cost_per_glimpse=0)
    env.reset(seed=0, options={"scene": 1})
    _, reward, _, _, info = env.step(np.array([0.9, 0.9, -1], np.float32))
    assert reward < 0
    assert not info["correct"]
    assert info["predicted"] == 0


def test_stopping_gains_and_costs_nothing() -> None:
    env = make()
    _, before = env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.array([0.9, 0.9, 1], np.float32))
    assert (reward, terminated) == (0, True)
    assert info["glimpses"] == 1
    assert info["log_likelihood"] == before["log_likelihood"]


def test_looking_twice_at_one_place_only_costs() -> None:
    env = make(cost_per_glimpse=0.25)
    env.reset(seed=0)
    assert env.step(np.array([0, 0, -1], np.float32))[1] == pytest.approx(-0.25)


def test_no_answer_costs_more_than_the_lapse_allows() -> None:
    class Wrong(SeenShare):
        def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
            return torch.tensor([[0.0, -math.inf, -math.inf]]).expand(len(image), 3)

    env = make(readout=Wrong(), lapse=0.03)
    _, info = env.reset(seed=0, options={"scene": 1})
    assert info["log_likelihood"] == pytest.approx(math.log(0.01), rel=1e-5)
    assert env.lanes.min_log_likelihood == pytest.approx(math.log(0.01))


@pytest.mark.parametrize("retina", ["disc", "patches", "pyramid"])
def test_hidden_pixels_never_reach_an_observation(retina: str) -> None:
    class Mean(SeenShare):
        def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
            return (image.float() * (acuity > 0)[..., None]).mean((1, 2)).log_softmax(1)

    path = [np.array(p, np.float32) for p in ((0.3, -0.2, -1), (-0.9, 0.8, -1))]

    def episode(images: np.ndarray) -> list[dict[str, np.ndarray]]:
        env = make(scenes=ArrayScenes(images, label=[0, 1], labels=("a", "b", "c")), retina=retina, readout=Mean())
        seen = [env.reset(seed=3, options={"scene": 1})[0]]
        return seen + [env.step(action)[0] for action in path]

    seen = episode(PICTURES[:2])
    altered = PICTURES[:2].copy()
    hidden = seen[-1]["belief_acuity"][..., 0] == 0
    altered[1][hidden] = 255 - altered[1][hidden]
    for before, after in zip(seen, episode(altered), strict=True):
        for key in before:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)


def test_the_class_never_reaches_an_observation() -> None:
    observations = []
    for labels in ([0] * 6, [2] * 6):
        env = make(scenes=ArrayScenes(PICTURES, label=labels, labels=("a", "b", "c")))
        observations.append([env.reset(seed=0)[0], env.step(np.array([0.5, 0.5, -1], np.float32))[0]])
    for one, two in zip(*observations, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], two[key], err_msg=key)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_lane_i_is_the_single_env(mode: str) -> None:
    lanes = 3
    envs = many(lanes, autoreset_mode=mode, budget=3)
    ones = [make(budget=3) for _ in range(lanes)]
    observation, _ = envs.reset(seed=11)
    for lane, env in enumerate(ones):
        for key, value in env.reset(seed=11 + lane)[0].items():
            np.testing.assert_allclose(observation[key][lane], value, atol=1e-6, err_msg=key)
    done = [False] * lanes
    for step in range(9):
        actions = np.random.default_rng(step).uniform(-1, 1, (lanes, 3)).astype(np.float32)
        observation, reward, terminated, _, info = envs.step(actions)
        for lane, env in enumerate(ones):
            if done[lane] and mode == "NextStep":
                (alone, single_info), gain, ended = env.reset(), 0.0, False
            else:
                alone, gain, ended, _, single_info = env.step(actions[lane])
            lane_info = info["final_info"] if ended and mode == "SameStep" else info
            for key in ("predicted", "correct", "log_likelihood", "glimpses"):
                assert lane_info[key][lane] == pytest.approx(single_info[key], abs=1e-5), key
            if ended and mode == "SameStep":
                alone, _ = env.reset()
            for key, value in alone.items():
                np.testing.assert_allclose(observation[key][lane], value, atol=1e-6, err_msg=key)
            assert reward[lane] == pytest.approx(gain, abs=1e-6)
            assert terminated[lane] == ended
            done[lane] = ended and mode == "NextStep"


def test_the_readout_is_asked_once_for_each_glimpse() -> None:
    readout = SeenShare()
    envs = many(4, readout=readout, autoreset_mode="SameStep", budget=2)
    envs.reset(seed=0)
    assert readout.calls == 4
    envs.step(np.tile(np.array([0.5, 0.5, -1], np.float32), (4, 1)))
    assert readout.calls == 8
    stops = np.tile(np.array([0.5, 0.5, -1], np.float32), (4, 1))
    stops[0, 2] = 1
    envs.step(stops)  # three looks, one stop; all end and look anew
    assert readout.calls == 8 + 3 + 4


def test_classes_may_come_in_another_order() -> None:
    class Other(SeenShare):
        classes = ("c", "a", "b")

    one, two = make(), make(readout=Other())
    first, second = (env.reset(seed=0)[0]["posterior"] for env in (one, two))
    np.testing.assert_allclose(second, first[[1, 2, 0]], atol=1e-6)


def test_classes_may_be_called_as_their_folders_are() -> None:
    class Folders(SeenShare):
        classes = ("cassette_player", "English springer", "n01440764")

    named = ArrayScenes(PICTURES, label=[0, 1, 2] * 2, labels=("tench", "cassette player", "english_springer"))
    posterior = make(scenes=named, readout=Folders()).reset(seed=0)[0]["posterior"]
    assert posterior.argmax() == 1


def test_a_copy_goes_on_by_itself() -> None:
    envs = many(2)
    envs.reset(seed=0)
    twin = copy.deepcopy(envs)
    action = np.tile(np.array([0.8, 0.8, -1], np.float32), (2, 1))
    np.testing.assert_allclose(twin.step(action)[1], envs.step(action)[1])


@pytest.mark.gpu
def test_a_gpu_judges_as_the_cpu_does() -> None:
    here, there = many(3), many(3, device="cuda")
    here.reset(seed=0), there.reset(seed=0)
    action = np.tile(np.array([0.8, 0.8, -1], np.float32), (3, 1))
    one, two = here.step(action), there.step(torch.from_numpy(action).cuda())
    assert two[0]["posterior"].device.type == two[1].device.type == "cuda"
    np.testing.assert_allclose(one[1], two[1].cpu().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scenes": PICTURES}, InvalidValueError, "two classes"),
        ({"readout": "cells"}, InvalidValueError, "readout_scenes"),
        ({"readout_scenes": SCENES}, InvalidValueError, "for readout='cells'"),
        ({"readout": print}, InvalidTypeError, "classes"),
        ({"readout": "/no/such.safetensors"}, WeightsError, "no weights file"),
        ({"scenes": ArrayScenes(PICTURES, label=[0] * 6, labels=("a", "d"))}, InvalidValueError, "it knows a, b, c"),
        ({"reward": "coverage"}, InvalidValueError, "reward"),
        ({"lapse": 0}, InvalidValueError, "lapse"),
        ({"cost_per_glimpse": -1}, InvalidValueError, "cost_per_glimpse"),
        ({"scenes": SCENES, "split": "test"}, InvalidTypeError, "split"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def test_a_readout_that_says_no_probabilities_is_refused() -> None:
    class Scores(SeenShare):
        def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
            return torch.ones(len(image), 3)

    class Short(SeenShare):
        def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
            return torch.zeros(len(image), 2)

    class Broken(SeenShare):
        def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
            return torch.full((len(image), 3), math.nan)

    with pytest.raises(InvalidValueError, match="log_softmax"):
        make(readout=Scores()).reset(seed=0)
    with pytest.raises(InvalidValueError, match="log_softmax"):
        make(readout=Broken()).reset(seed=0)
    with pytest.raises(InvalidTypeError, match=r"\(1, 3\)"):
        make(readout=Short()).reset(seed=0)


def test_scenes_without_a_class_are_refused() -> None:
    half = ArrayScenes(PICTURES, label=[0, -1] * 3, labels=("a", "b", "c"))
    with pytest.raises(InvalidValueError, match="array 1"):
        make(scenes=half).reset(seed=0, options={"scene": 1})
    with pytest.raises(SceneError, match="no class"):
        fit_cells(half, (32, 32))
    with pytest.raises(InvalidValueError, match="no class"):
        make().reset(seed=0, options={"scene": PICTURES[0]})


# The readout without a network


def test_cells_are_judged_as_bayes_says() -> None:
    mean = torch.tensor([0.25, 0.75])[:, None, None, None].expand(2, 3, 1, 2).clone()
    readout = CellReadout(("dark", "light"), mean, torch.full((3, 1, 2), 0.5))
    image = torch.full((3, 8, 16, 3), 191, dtype=torch.uint8)
    acuity = torch.zeros(3, 8, 16, dtype=torch.uint8)
    acuity[1, :, :8], acuity[2] = 255, 255
    odds = readout(image, acuity).exp()
    value = 191 / 255
    one_cell = 3 * ((value - 0.25) ** 2 - (value - 0.75) ** 2) / (2 * 0.5**2)
    expected = [1 / (1 + math.exp(-cells * one_cell)) for cells in (0, 1, 2)]
    np.testing.assert_allclose(odds[:, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(odds.sum(1), 1, rtol=1e-6)


def test_unseen_pixels_say_nothing_to_cells() -> None:
    readout = fit_cells(SignScenes(), (96, 96), max_scenes=40)
    scene = torch.from_numpy(SignScenes(split="test").picture(0).image)[None]
    acuity = torch.zeros(1, 96, 96, dtype=torch.uint8)
    acuity[:, 20:50, 10:70] = 255
    other = torch.where(acuity[..., None] > 0, scene, 255 - scene)
    torch.testing.assert_close(readout(scene, acuity), readout(other, acuity))


def test_knowing_where_to_look_is_enough_after_three_glimpses() -> None:
    class Knows:
        step = 0

        def reset(self, lanes: np.ndarray) -> None:
            self.step = 0

        def act(self, observation: Any) -> np.ndarray:
            self.step += 1
            return np.repeat(CODE[(self.step - 1) % 2][None], len(observation["fixation"]), 0)

    env = signs(40, split="test")
    known = record_glimpses(Knows(), env, 80, seed=0)
    right = accuracy_by_glimpse(known)[:, 0]
    assert right[0] < 0.45
    assert right[2] == 1
    anywhere = accuracy_by_glimpse(record_glimpses("random", env, 80, seed=0))[:, 0]
    assert anywhere[2] < 0.6
    np.testing.assert_array_equal(known.label, record_glimpses("random", env, 80, seed=0).label)


def test_each_scene_is_shown_once_where_no_number_is_asked_for() -> None:
    scenes = SignScenes(split="test", count=25)
    env = gym.make_vec(ID, num_envs=10, scenes=scenes, readout_scenes=SignScenes(), **QUIET)
    known = record_glimpses("centre", env)
    assert known.posterior.shape == (25, 3, 4)
    np.testing.assert_array_equal(known.label, [scenes.picture(i).label for i in range(25)])
    assert known.stop_requested is None
    likely = np.log(known.posterior[np.arange(25), :, known.label])
    np.testing.assert_allclose(known.log_likelihood, likely)


# Stopping


class Wishes:
    """Looks at one corner, and wishes to stop when little of its budget is left."""

    name = "wishes"

    def reset(self, lanes: Any) -> None: ...

    def act(self, observation: Any) -> Any:
        wish = np.where(observation["time"][:, 0] <= 0.5, 1, -1) * (np.arange(len(observation["time"])) % 2 == 0)
        return np.stack((np.full(len(wish), -0.5), np.full(len(wish), 0.5), wish), 1).astype(np.float32)


def test_stopping_as_wished_is_what_the_env_does() -> None:
    scenes = SignScenes(split="test", count=6)
    options = {"num_envs": 6, "scenes": scenes, "readout_scenes": SignScenes()}
    known = record_glimpses(Wishes(), gym.make_vec(ID, **options, **QUIET))
    assert known.stop_requested is not None
    assert known.stop_requested.tolist() == [[False, True, True], [False] * 3] * 3
    stop_requested = stop_as_requested(known)
    assert stop_requested.glimpses.tolist() == [2.5]
    env = gym.make_vec(ID, **options, budget=2, autoreset_mode="Disabled")
    observation, info = env.reset(options={"scene": np.arange(6)})
    for _ in range(2):
        observation, _, terminated, _, info = env.step(Wishes().act(observation))
    assert terminated.all()
    assert info["glimpses"].mean() == stop_requested.glimpses[0]
    assert info["correct"].mean() == pytest.approx(stop_requested.accuracy[0])
    with pytest.raises(InvalidValueError, match="only looked"):
        stop_as_requested(record_glimpses("centre", gym.make_vec(ID, **options, **QUIET)))


def test_stopping_when_sure_is_what_the_curve_says() -> None:
    recorded = record_glimpses("random", signs(10), 30, seed=4)
    curve = stop_early(recorded, [0.6])
    envs = signs(10, stop=True, autoreset_mode="SameStep")
    played = rollout(StopWhenSure("random", 0.6, seed=4), envs, episodes=30, seed=4)
    last = (np.arange(30), played.length - 1)
    assert played.info["glimpses"][last].mean() == pytest.approx(curve.glimpses[0])
    assert played.info["correct"][last].mean() == pytest.approx(curve.accuracy[0])


def test_stopping_in_a_grid_is_the_last_cell() -> None:
    env = make(action_mode="grid", grid=(8, 8))
    agent = StopWhenSure("foveasim.agents.builtin.scripted:Centre", 0.2)
    agent.gaze.action_mode = "grid"
    agent.action_mode = "grid"
    agent.gaze.act = lambda observation: np.zeros(len(observation["fixation"]), np.int64)
    observation, _ = env.reset(seed=0)
    action = agent.act({key: value[None] for key, value in observation.items()})
    assert action.tolist() == [64]
    assert env.step(int(action[0]))[2]


def test_stopping_needs_a_posterior() -> None:
    agent = StopWhenSure(make_agent("centre"), 0.5)
    with pytest.raises(AgentError, match="Classify-v0"):
        agent.act({"fixation": np.zeros((1, 2), np.float32)})
    with pytest.raises(InvalidValueError, match="threshold"):
        StopWhenSure("random", 2)


def three_scenes() -> Glimpses:
    sure = np.array([[0.5, 0.7, 0.9], [0.8, 0.8, 0.8], [0.5, 0.6, 0.65]])
    return Glimpses(np.stack((sure, 1 - sure), 2).astype(np.float32), np.array([0, 0, 1]))


def test_the_stopping_curve_is_arithmetic() -> None:
    curve = stop_early(three_scenes(), [0.0, 0.69, 1.0])
    np.testing.assert_allclose(curve.glimpses, [1, (2 + 1 + 3) / 3, 3])
    np.testing.assert_allclose(curve.accuracy, [2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(accuracy_by_glimpse(three_scenes())[:, 0], 2 / 3)
    assert (curve.low < curve.accuracy).all()
    assert (curve.accuracy < curve.high).all()
    assert threshold_within(three_scenes(), 0) == 0
    # One scene in 20 is only right after the second glimpse; it is sure of nothing before.
    sure = np.full((20, 2), 0.9)
    sure[0] = 0.6, 0.9
    right = np.ones((20, 2), bool)
    right[0, 0] = False
    posterior = np.where(right[..., None], np.stack((sure, 1 - sure), 2), np.stack((1 - sure, sure), 2))
    late = Glimpses(posterior.astype(np.float32), np.zeros(20, np.int64))
    assert threshold_within(late, 0.05, sure=0) == 0  # one in 20 is lost
    lost = 1.96 * np.std([1] + [0] * 19, ddof=1) / math.sqrt(20)
    assert threshold_within(late, 0.05) > 0.6 > threshold_within(late, 0.0501 + lost)
    assert stop_early(late, [threshold_within(late, 0.05)]).accuracy[0] == 1
    with pytest.raises(InvalidValueError, match="thresholds"):
        stop_early(three_scenes(), [])


def test_the_threshold_keeps_accuracy() -> None:
    sure = np.array([[0.6, 0.9]] * 3 + [[0.95, 0.97]])
    posterior = np.stack((sure, 1 - sure), 2).astype(np.float32)
    posterior[:3, 0] = posterior[:3, 0, ::-1]
    glimpses = Glimpses(posterior, np.zeros(4, np.int64))
    chosen = threshold_within(glimpses, 0.01)
    assert 0.6 < chosen <= 0.95
    stopped = stop_early(glimpses, [chosen])
    assert (stopped.accuracy[0], stopped.glimpses[0]) == (1, (3 * 2 + 1) / 4)


def test_curves_are_drawn(tmp_path: Any) -> None:
    draw_glimpses(tmp_path / "glimpses.png", {"three": three_scenes()}, "signs")
    assert (tmp_path / "glimpses.png").stat().st_size > 10_000
    wishes = dataclasses.replace(three_scenes(), stop_requested=np.eye(3, dtype=bool))
    draw_glimpses(tmp_path / "wishes.png", {"three": wishes}, "signs")
    assert (tmp_path / "wishes.png").read_bytes() != (tmp_path / "glimpses.png").read_bytes()  # a star
    with pytest.raises(InvalidValueError, match="at least one"):
        draw_glimpses(tmp_path / "none.png", {})


def test_only_envs_that_go_on_are_recorded() -> None:
    with pytest.raises(InvalidValueError, match="stop=False"):
        record_glimpses("random", many(2), 2)
    with pytest.raises(InvalidTypeError, match="Classify-v0"):
        record_glimpses("random", gym.make_vec("foveasim/Glimpse-v0", num_envs=1, scenes=PICTURES, size=(32, 32)), 1)
