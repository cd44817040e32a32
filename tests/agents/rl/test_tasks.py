"""Policies for the tasks: what they see, the env that shows it, training, files, agents and the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

import foveasim  # noqa: F401  # registers the ids
from foveasim.agents.evaluation.entries import open_entries
from foveasim.agents.gaze_policy.classify_features import (
    ClassifyFeatureConfig,
    ClassifyFeatureExtractor,
    PredictingReadout,
)
from foveasim.agents.gaze_policy.features import FeatureConfig, featurise
from foveasim.agents.gaze_policy.network import Actor, ActorConfig
from foveasim.agents.gaze_policy.policy_agents import PolicyAgent, TaskAgent
from foveasim.agents.gaze_policy.policy_files import Policy, load_policy, save_policy
from foveasim.agents.gaze_policy.search_features import SearchFeatureConfig, SearchFeatureExtractor
from foveasim.agents.loading import make_agent
from foveasim.agents.mim.belief_head import ConvHead, HeadOptions, load_head
from foveasim.agents.mim.belief_readout import load_belief_readout
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.predictor import BeliefPredictor
from foveasim.agents.mim.weights_file import save_network
from foveasim.agents.readout.belief_readout_fit import BeliefFit, fit_belief_readout, fit_head
from foveasim.agents.readout.labelled import LabelledData, LabelledImages
from foveasim.agents.readout.probe import Labelled
from foveasim.agents.rl.command import record, run
from foveasim.agents.rl.config import TrainConfig
from foveasim.agents.rl.feature_env import TaskObservation
from foveasim.agents.rl.tasks import ClassifyTask, open_training_task
from foveasim.agents.rollout import rollout
from foveasim.errors import AgentError, InvalidValueError, WeightsError
from foveasim.scenes.signs import SignScenes

PPO = {"n_steps": 4, "batch_size": 16, "n_epochs": 1}


@pytest.fixture(autouse=True)
def _own_draws(one_thread: None) -> Any:
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network and a readout of its latent, both as files."""
    place = tmp_path_factory.mktemp("networks")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)).eval().requires_grad_(False)
        save_network(place / "net.safetensors", network, {}, dtype="float32")
    parts = []
    for split, first, count in (("train", 0, 60), ("train", 60, 30), ("test", 0, 30)):
        scenes = SignScenes(split=split, size=(48, 48))
        found = [scenes.picture(first + i) for i in range(count)]
        labels = np.array([one.label for one in found])
        parts.append(LabelledImages(np.stack([one.image for one in found]), labels, tuple(one.name for one in found)))
    data = LabelledData(*parts, SignScenes(size=(48, 48)).labels)
    fit = BeliefFit(beliefs=2, spread=0.5, mirror=True, probe="conv", head={"epochs": 2, "width": 8, "hidden": 8})
    fit_belief_readout(place / "net.safetensors", data, fit).save(place / "beliefs.safetensors")
    return place


def seen_in_full(kind: str, lanes: int = 4) -> tuple[dict[str, Any], np.ndarray]:
    """Observations of displays that were seen sharply everywhere, and where the targets lie."""
    envs = gym.make_vec("foveasim/Search-v0", num_envs=lanes, kinds=kind, belief=True, privileged=True)
    observation, info = envs.reset(seed=3)
    sharp = np.full_like(observation["belief_acuity"], 255)
    sought = info["sought_px"] / 48 - 1
    return {**observation, "belief": observation["scene"], "belief_acuity": sharp}, sought


# What a policy that searches sees


@pytest.mark.parametrize("kind", ["colour", "shape", "textures"])
def test_a_display_that_was_seen_in_full_gives_the_target_away(kind: str) -> None:
    observation, sought = seen_in_full(kind)
    extractor = SearchFeatureExtractor()
    extractor.reset(np.ones(4, bool))
    features = extractor.extract_features(observation, (12, 12))
    name = "gain" if kind == "colour" else "texture"
    value = features.maps[:, extractor.config.channel(name)].flatten(1)
    best = features.points[torch.arange(4), value.argmax(1)].numpy()
    away = np.hypot(*(48 * (best - sought)).T)  # px; an item's radius is 6
    assert np.sort(away)[-2] < 6 if name == "texture" else away.max() < 6
    assert value.max() <= 1.001


def test_where_gaze_has_landed_is_remembered_until_the_lane_begins_anew() -> None:
    observation, _ = seen_in_full("colour", 2)
    extractor = SearchFeatureExtractor(SearchFeatureConfig(maps=("tried", "gain"), numbers=()))
    with pytest.raises(AgentError, match="last reset had 0 lanes"):
        extractor.extract_features(observation, (12, 12))
    extractor.reset(np.ones(2, bool))
    corner = {**observation, "fixation": np.array([[-0.5, -0.5], [0.5, 0.5]], np.float32)}
    counts = [
        float(extractor.extract_features(each, (12, 12)).maps[:, 0].sum()) for each in (observation, corner, corner)
    ]
    assert 0 < counts[0] < counts[1] == counts[2]
    last = extractor.extract_features({k: v[1:] for k, v in observation.items()}, (12, 12), np.array([1]))
    assert last.maps.shape[0] == 1  # a last look at one lane, without remembering
    extractor.reset(np.array([True, False]))
    tried = extractor.extract_features(corner, (12, 12)).maps[:, 0].sum((1, 2))
    assert tried[0] < tried[1]
    fine = extractor.extract_features(corner, (48, 48)).maps  # a place a cell
    assert float(fine[:, 1][fine[:, 0] == 1].max()) == 0


def test_features_of_search_are_named_and_counted() -> None:
    config = SearchFeatureConfig()
    assert (config.channels, config.count(0), config.channel("gain")) == (10, 11, 0)
    with pytest.raises(InvalidValueError, match="maps must be among gain"):
        SearchFeatureConfig(maps=("std",))
    with pytest.raises(AgentError, match="needs 'target'"):
        SearchFeatureExtractor().extract_features({"fixation": np.zeros((1, 2))}, (12, 12))


@pytest.mark.parametrize("size", [(64, 96), (192, 160)])
def test_search_works_at_other_sizes(size: tuple[int, int]) -> None:
    envs = gym.make_vec("foveasim/Search-v0", num_envs=2, size=size, set_sizes=(4,), belief=True)
    observation, _ = envs.reset(seed=0)
    extractor = SearchFeatureExtractor()
    extractor.reset(np.ones(2, bool))
    grid = extractor.config.grid(size)
    features = extractor.extract_features(observation, grid)
    assert features.maps.shape == (2, 10, *grid)
    assert features.points.abs().max() <= 1
    assert bool(torch.isfinite(features.maps).all())


# What a policy that classifies sees


def test_features_of_classify_are_those_of_viewing_and_what_the_readout_says(folder: Path) -> None:
    envs = gym.make_vec("foveasim/Classify-v0", num_envs=3, size=(48, 48))
    observation, _ = envs.reset(seed=1)
    belief_predictor = BeliefPredictor(str(folder / "net.safetensors"))
    extractor = ClassifyFeatureExtractor(ClassifyFeatureConfig(cells=6, classes=4), belief_predictor)
    features = extractor.extract_features(observation, (6, 6))
    plain = featurise(belief_predictor.predict_from(observation), FeatureConfig(cells=6))
    torch.testing.assert_close(features.maps, plain.maps)
    torch.testing.assert_close(features.numbers[:, :6], plain.numbers)
    np.testing.assert_allclose(features.numbers[:, 6:10], observation["posterior"], rtol=1e-6)
    even = extractor.extract_features({**observation, "posterior": np.full((3, 4), 0.25, np.float32)}, (6, 6)).numbers[
        0, 10:
    ]
    assert even.tolist() == pytest.approx([0.25, 0, 1])
    with pytest.raises(AgentError, match="trained with 4 classes"):
        extractor.extract_features({**observation, "posterior": np.ones((3, 2), np.float32)}, (6, 6))
    with pytest.raises(AgentError, match="needs a 'posterior'"):
        extractor.extract_features({k: v for k, v in observation.items() if k != "posterior"}, (6, 6))


def test_one_pass_serves_the_readout_and_the_policy(folder: Path) -> None:
    """Features of an env whose readout thinks are those of one whose readout does not, also where lanes begin anew."""
    readout = load_belief_readout(folder / "beliefs.safetensors")
    belief_predictor = BeliefPredictor(str(folder / "net.safetensors"))
    seen = []
    for one in (PredictingReadout(readout, belief_predictor), readout):
        envs = gym.make_vec(
            "foveasim/Classify-v0", num_envs=3, size=(48, 48), readout=one, budget=2, autoreset_mode="SameStep"
        )
        lanes = TaskObservation(
            envs, ClassifyFeatureExtractor(ClassifyFeatureConfig(cells=6, classes=4), belief_predictor)
        )
        steps = [lanes.reset(seed=2)[0]]
        for actions in ([3, 36, 7], [35, 1, 2], [0, 0, 36]):
            observation, _, _, _, info = lanes.step(np.array(actions))
            steps.append(observation)
            steps += [last for last in info.get("final_obs", []) if last is not None]
        seen.append(steps)
    assert len(seen[0]) == len(seen[1]) > 4
    for ours, theirs in zip(*seen, strict=True):
        for key in ("maps", "numbers"):
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-5)
    other = BeliefPredictor(make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)))
    with pytest.raises(InvalidValueError, match="must be of the network"):
        PredictingReadout(readout, other)


# The env


def search_lanes(**options: Any) -> TaskObservation:
    given = {"num_envs": 3, "kinds": "colour", "belief": True, "budget": 2, "autoreset_mode": "SameStep", **options}
    return TaskObservation(gym.make_vec("foveasim/Search-v0", **given), SearchFeatureExtractor())


def test_the_env_keeps_its_spaces_and_ends_lanes() -> None:
    lanes = search_lanes()
    observation, _ = lanes.reset(seed=0)
    assert observation in lanes.observation_space
    assert lanes.single_action_space == gym.spaces.Discrete(144)
    ended = 0
    for step in range(4):
        observation, reward, terminated, _, info = lanes.step(np.full(3, 5 * step))
        assert observation in lanes.observation_space
        assert reward.shape == (3,)
        for lane in np.flatnonzero(terminated):
            assert info["final_obs"][lane] in lanes.single_observation_space
        ended += terminated.sum()
    assert ended >= 3
    with pytest.raises(InvalidValueError, match="from 0 to 143"):
        lanes.step(np.full(3, 144))


def test_the_choice_behind_the_cells_stops() -> None:
    lanes = search_lanes(stop=True, budget=9)
    lanes.reset(seed=0)
    assert lanes.single_action_space == gym.spaces.Discrete(145)
    terminated = lanes.step(np.array([144, 0, 144]))[2]
    assert terminated.tolist() == [True, False, True]
    assert lanes.action_masks().shape == (3, 145)
    assert lanes.action_masks().all()
    with pytest.raises(InvalidValueError, match="from 0 to 144"):
        lanes.step(np.full(3, 145))


def test_envs_that_cannot_be_shown_are_refused() -> None:
    for options, message in (
        ({"belief": False}, "must show belief"),
        ({"action_mode": "relative"}, "action_mode='absolute'"),
        ({"autoreset_mode": "NextStep"}, "autoreset_mode='SameStep'"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            search_lanes(**options)


# The policy's network


def test_the_odds_of_stopping_do_not_depend_on_the_cells() -> None:
    actor = Actor(ActorConfig("cells", (3, 3), 2, 1, 0, 9, stop=True, width=4))
    with torch.no_grad():
        for grid in ((3, 3), (9, 12)):
            score, _ = actor(torch.rand(5, 2, *grid), torch.rand(5, 1))
            assert score.shape == (5, grid[0] * grid[1] + 1)
            share = score.softmax(1)[:, -1]
            torch.testing.assert_close(share, torch.full((5,), -3.0).sigmoid())
    with pytest.raises(InvalidValueError, match="stop is for a policy of cells"):
        ActorConfig("point", (3, 3), 2, 1, 0, 2, stop=True)


def policy(stop: bool, bias: float = -3.0) -> Policy:
    feature_config = SearchFeatureConfig()
    with torch.random.fork_rng():
        actor = Actor(
            ActorConfig("cells", (12, 12), feature_config.channels, feature_config.count(0), 0, 144, stop=stop)
        ).eval()
    if stop:
        torch.nn.init.constant_(actor.trunk.net.stop[2].bias, bias)  # type: ignore[union-attr,index]
    return Policy(actor.requires_grad_(False), feature_config, "", task="search")


def test_a_policy_of_a_task_is_a_file_and_an_agent(tmp_path: Path) -> None:
    file = tmp_path / "seek.safetensors"
    save_policy(file, policy(stop=True))
    found = load_policy(file)
    assert (found.task, found.features, found.network) == ("search", SearchFeatureConfig(), "")
    envs = gym.make_vec("foveasim/Search-v0", num_envs=8, kinds="colour", belief=True, stop=True, split="test")
    agent = make_agent(str(file))
    assert isinstance(agent, TaskAgent)
    played = rollout(agent, envs, episodes=8, seed=0)
    assert played.length.max() <= 3  # untrained, it goes by likeness, and colours pop out
    assert played.info["found"][np.arange(8), played.length - 1].all()
    with pytest.raises(AgentError, match="trained to search"):
        PolicyAgent(found)
    with pytest.raises(InvalidValueError, match="task must be one of"):
        Policy(found.actor, found.features, "", task="view")


def test_stopping_is_a_matter_of_odds_and_patience() -> None:
    envs = gym.make_vec("foveasim/Search-v0", num_envs=4, belief=True, stop=True)
    observation, _ = envs.reset(seed=0)
    actions = {}
    for name, options in {
        "eager": {},
        "patient": {"patience": 3.0},
        "looks": {"stop": False},
        "drawn": {"deterministic": False},
    }.items():
        agent = TaskAgent(policy(stop=True, bias=1.0), **options)  # type: ignore[arg-type]
        agent.reset(np.ones(4, bool))
        actions[name] = agent.act(observation)
    assert (actions["eager"][:, 2] == 1).all()
    assert (actions["patient"][:, 2] == -1).all()
    assert actions["looks"].shape == (4, 2)
    np.testing.assert_array_equal(actions["looks"], actions["eager"][:, :2])
    assert set(actions["drawn"][:, 2]) <= {-1.0, 1.0}
    with pytest.raises(AgentError, match="was not trained to stop"):
        TaskAgent(policy(stop=False), stop=True)


def test_the_shipped_search_finds_what_random_gaze_does_not() -> None:
    found = {}
    for name in ("search_policy", "random"):
        envs = gym.make_vec(
            "foveasim/Search-v0", num_envs=10, belief=True, split="test", set_sizes=(8,), autoreset_mode="SameStep"
        )
        with torch.inference_mode():
            played = rollout(make_agent(name, seed=0), envs, episodes=10, seed=0)
        found[name] = played.info["found"][np.arange(10), played.length - 1].mean(), played.length.mean()
    assert found["search_policy"][0] == 1 > found["random"][0]
    assert found["search_policy"][1] < found["random"][1] / 2


def test_imitation_of_stopping_compares_it_with_looking(folder: Path, tmp_path: Path) -> None:
    task = open_training_task(config("classify", folder, tmp_path, imitate=4, imitation={"candidates": 3}))
    draws = np.random.default_rng(0)

    def act(seen: dict[str, Any]) -> Any:
        return draws.integers(0, 36, len(seen["maps"]))

    demonstrations = task.collect_demonstrations(act, 4, task.config.imitation_config(), 0, lambda share: None)
    assert demonstrations.cells.shape == demonstrations.gains.shape == (len(demonstrations.maps), 4)
    assert (demonstrations.cells[:, -1] == 36).all()
    assert (demonstrations.cells[:, :-1] < 36).all()
    assert (demonstrations.gains[:, -1] == 0).all()
    free = open_training_task(
        config(
            "classify",
            folder,
            tmp_path,
            imitate=4,
            imitation={"candidates": 3},
            task_options=task.config.task_options | {"cost_per_glimpse": 0.0},
        )
    )
    draws = np.random.default_rng(0)
    unpaid = free.collect_demonstrations(act, 4, task.config.imitation_config(), 0, lambda share: None)
    torch.testing.assert_close(unpaid.gains[:4, :-1] - demonstrations.gains[:4, :-1], torch.full((4, 3), 0.05))


# Training


def config(task: str, folder: Path, out: Path, **options: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "task": task,
        "network": str(folder / "net.safetensors"),
        "budget": 3,
        "lanes": 4,
        "steps": 32,
        "evaluate_steps": 16,
        "validate_limit": 20,
        "options": PPO,
        "out": str(out),
        "against": ["random"],
    }
    if task == "search":
        given |= {"retina": "pyramid", "task_options": {"kinds": ["colour"]}}
    else:
        given |= {"size": (48, 48), "features": {"cells": 6}}
        given["task_options"] = {"readout": str(folder / "beliefs.safetensors")}
    return TrainConfig(**(given | options))


def test_search_is_trained_from_who_knows_the_target_and_tested(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(config("search", folder, out, imitate=8, imitation={"epochs": 1}, against=["random", "seek"])) == 0
    log = json.loads((out / "train.json").read_text())
    assert [row["steps"] for row in log["validation"]] == [0, 0, 16, 32]
    assert set(log["validation"][0]["less_than"]) == {"random", "seek"}
    assert log["validation"][-1]["told"]["found"] == 1
    file = str(out / "policy.safetensors")
    capsys.readouterr()
    task_options = {"kinds": ["colour", "shape"], "set_sizes": [4, 8]}
    test = {"test": ["random", f"learned={file}"], "test_episodes": 12, "task_options": task_options}
    assert run(config("search", folder, tmp_path / "test", **test)) == 0
    assert "slope" in capsys.readouterr().out
    slopes = json.loads((tmp_path / "test" / "test.json").read_text())["slopes"]
    assert slopes["colour"]["learned"]["found_share"] == 1
    assert slopes["shape"]["random"]["set_sizes"] == [4, 8]
    assert (tmp_path / "test" / "slopes-shape.png").read_bytes()[:4] == b"\x89PNG"


def test_classify_is_trained_and_tested(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(config("classify", folder, out, imitate=4, imitation={"epochs": 1, "candidates": 3})) == 0
    log = json.loads((out / "train.json").read_text())
    assert {"accuracy", "glimpses"} == set(log["validation"][-1]["told"])
    assert run(config("classify", folder, out, steps=48, resume=True)) == 0
    file = out / "policy.safetensors"
    found = load_policy(file)
    assert (found.task, found.actor.config.stop) == ("classify", True)
    assert found.readout.endswith("beliefs.safetensors")
    capsys.readouterr()
    test = {"test": ["random", f"learned={file}"], "test_episodes": 16}
    assert run(config("classify", folder, tmp_path / "test", **test)) == 0
    assert "as it learned" in capsys.readouterr().out
    rows = json.loads((tmp_path / "test" / "test.json").read_text())["agents"]
    assert len(rows["random"]["accuracy"]) == 4
    assert rows["learned"]["accuracy"][0] == rows["random"]["accuracy"][0]  # the first glimpse is the same
    # Where nobody says how probable the classes are, as in the window, the policy's own readout does.
    agent = make_agent(str(file))
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=2, size=(48, 48), retina="disc", belief=True)
    agent.reset(np.ones(2, bool))
    assert agent.act(envs.reset(seed=0)[0]).shape == (2, 2)
    assert agent.imagine(envs.reset(seed=0)[0]).image.shape == (2, 48, 48, 3)  # type: ignore[attr-defined]


def test_policies_train_on_images_that_the_readout_was_not_fitted_to(folder: Path, tmp_path: Path) -> None:
    scenes = SignScenes(size=(48, 48))
    for index in range(90):
        picture = scenes.picture(index)
        place = tmp_path / "data" / scenes.labels[picture.label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.image).save(place / f"{index}.png")
    task = open_training_task(config("classify", folder, tmp_path / "run", data=str(tmp_path / "data")))
    assert isinstance(task, ClassifyTask) and task.data is not None
    names = {part: set(task.images(part).names) for part in ("train", "validation", "test", "held_out")}
    assert names["train"] | names["validation"] == names["held_out"] == set(task.data.validation.names)
    assert not names["train"] & names["validation"]
    assert names["test"] == set(task.data.test.names)
    plain = len(names["train"])
    labelled = task.images("train")
    assert len(labelled) == 2 * plain
    np.testing.assert_array_equal(labelled.images[plain:], labelled.images[:plain, :, ::-1])
    assert len(task.task_envs.simulator.scenes) == 2 * plain
    known = record(task, open_entries(["centre"], {}, {})[0][0], "test", task.config)
    np.testing.assert_array_equal(known.label, task.data.test.labels)  # each once, fewer than test_episodes
    few = tmp_path / "few"
    for name in scenes.labels[:2]:
        (few / name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(scenes.picture(0).image).save(few / name / f"{index}.png")
    with pytest.raises(InvalidValueError, match="at least two validation images"):
        open_training_task(config("classify", folder, tmp_path / "run", data=str(few)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "view", "test": ["random"]}, "test is for the tasks"),
        ({"task": "view", "task_options": {"kinds": "colour"}}, "task_options is for the tasks"),
        ({"task": "search", "data": ["photos"]}, "search has its own displays"),
        ({"task": "search", "policy": "point"}, "trained by a policy of cells"),
        ({"task": "search", "features": {"maps": ["std"]}}, "maps must be among gain"),
        ({"task": "classify", "validate": ["photos"]}, "keeps a part of its own scenes"),
        ({"task": "classify", "task_options": {"budget": 3}}, "must leave budget to the options"),
        ({"task": "seek"}, "task must be one of view, search, classify"),
    ],
)
def test_options_that_do_not_belong_to_a_task_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TrainConfig(**options)


# The convolutional readout


def test_a_head_learns_what_lies_anywhere() -> None:
    """A spot in one of two channels, anywhere: linear on the mean, and found again by the file."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (800,), generator=draws)
    latent = torch.randn(800, 2, 4, 4, generator=draws) * 0.3
    place = torch.randint(16, (800,), generator=draws)
    latent.flatten(2)[torch.arange(800), labels, place] += 3
    data = Labelled(latent.flatten(1), labels)
    head = fit_head(data, (2, 4, 4), 2, HeadOptions(width=8, hidden=16, epochs=6, batch=32, dropout=0.1), seed=1)
    assert float((head.predict(data.features) == labels).float().mean()) > 0.95
    again = load_head(head.state_dict(), head.config())
    torch.testing.assert_close(again.scores(data.features), head.scores(data.features))
    assert isinstance(again, ConvHead)
    assert not again.training
    same = fit_head(data, (2, 4, 4), 2, HeadOptions(width=8, hidden=16, epochs=6, batch=32, dropout=0.1), seed=1)
    torch.testing.assert_close(same.scores(data.features), head.scores(data.features))
    with pytest.raises(WeightsError, match="does not fit its config"):
        load_head(head.state_dict(), {**head.config(), "classes": 3})
    with pytest.raises(InvalidValueError, match=r"features must be \(N, 18\)"):
        fit_head(data, (2, 3, 3), 2)


def test_options_of_a_head_are_checked() -> None:
    for options, message in (
        ({"probe": "ridge", "head": {"width": 8}}, "head is for probe='conv'"),
        ({"probe": "conv", "head": {"dropout": 1.0}}, "dropout"),
        ({"spread": 2.0}, "spread"),
        ({"precision": "half"}, "precision must be"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            BeliefFit(**options)  # type: ignore[arg-type]
