"""Readouts on belief: fitted to what an eye saw, saved with their network's name, and used by Classify-v0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.mim.belief_readout import FORMAT, BeliefReadout, belief_features, load_belief_readout
from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.mim.weights_file import read_tensors, save_network, write_tensors
from foveasim.agents.readout.belief_readout_fit import BeliefFit, fit_belief_readout
from foveasim.agents.readout.labelled import LabelledData, LabelledImages
from foveasim.envs.tasks.cell_readout import Readout
from foveasim.envs.tasks.classify import ClassifyEnv
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.scenes.signs import SignScenes

SMALL = {"widths": (8, 8, 8), "blocks": (0, 0, 1)}
FIT = BeliefFit(retina_options={"hidden_ratio": 0.6}, glimpses=4)


def images(split: str, first: int, count: int) -> LabelledImages:
    scenes = SignScenes(classes=2, cells=(3, 3), split=split, size=(32, 32))
    found = [scenes.picture(first + i) for i in range(count)]
    labels = np.array([one.label for one in found])
    return LabelledImages(np.stack([one.image for one in found]), labels, tuple(one.name for one in found))


@pytest.fixture(scope="module")
def network() -> MimNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_network("unet", **SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def data() -> LabelledData:
    return LabelledData(images("train", 0, 200), images("train", 200, 60), images("test", 0, 100), ("sign 0", "sign 1"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, network: MimNetwork) -> Path:
    place = tmp_path_factory.mktemp("networks")
    save_network(place / "net.safetensors", network, {}, dtype="float32")
    return place


@pytest.fixture(scope="module")
def fitted(folder: Path, data: LabelledData) -> BeliefReadout:
    return fit_belief_readout(folder / "net.safetensors", data, FIT)


def belief(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(images("test", 0, count).images.copy())
    acuity = torch.zeros(count, 32, 32, dtype=torch.uint8)
    acuity[:, 4:20, 8:30] = 255
    return image, acuity


def test_it_names_classes_from_glimpses_better_than_chance(fitted: BeliefReadout) -> None:
    assert fitted.card["test_interval"][0] > 0.5
    assert fitted.card["images"] == [200, 60, 100]
    assert isinstance(fitted, Readout)


def test_answers_are_logarithms_of_probabilities_and_repeat(
    fitted: BeliefReadout, folder: Path, data: LabelledData
) -> None:
    log_probabilities = fitted(*belief())
    assert log_probabilities.shape == (3, 2)
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(3))
    again = fit_belief_readout(folder / "net.safetensors", data, FIT)
    torch.testing.assert_close(again(*belief()), log_probabilities)
    other = fit_belief_readout(folder / "net.safetensors", data, BeliefFit(**{**vars(FIT), "seed": 1}))
    assert not torch.equal(other(*belief()), log_probabilities)


def test_hidden_pixels_do_not_matter(fitted: BeliefReadout) -> None:
    image, acuity = belief()
    other = torch.where(acuity[..., None] > 0, image, 255 - image)
    torch.testing.assert_close(fitted(image, acuity), fitted(other, acuity))
    assert not torch.equal(fitted(image, acuity), fitted(255 - image, acuity))


def test_the_temperature_minimises_the_loss_on_validation(fitted: BeliefReadout) -> None:
    assert 0 < fitted.card["validation_loss"] < np.log(2)


def test_features_are_those_of_one_at_a_time(network: MimNetwork) -> None:
    image, acuity = belief(5)
    whole = belief_features(network, image, acuity)
    alone = torch.cat([belief_features(network, image[i : i + 1], acuity[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)


def test_larger_scenes_are_shrunk_for_the_network(network: MimNetwork) -> None:
    image = torch.full((1, 192, 192, 3), 90, dtype=torch.uint8)
    sharp = torch.full((1, 192, 192), 255, dtype=torch.uint8)
    small = belief_features(network, image[:, ::2, ::2].contiguous(), sharp[:, ::2, ::2].contiguous())
    torch.testing.assert_close(belief_features(network, image, sharp), small)


def test_a_file_gives_the_same_answers_and_the_env_takes_it(fitted: BeliefReadout, folder: Path) -> None:
    path = folder / "beliefs.safetensors"
    fitted.save(path)
    loaded = load_belief_readout(path)
    torch.testing.assert_close(loaded(*belief()), fitted(*belief()))
    assert (loaded.classes, loaded.size, loaded.card) == (fitted.classes, fitted.size, fitted.card)
    scenes = SignScenes(classes=2, cells=(3, 3), split="test", size=(32, 32))
    env = ClassifyEnv(scenes=scenes, readout=str(path), size=(32, 32), retina_options={"hidden_ratio": 0.6})
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["log_likelihood"] < 0
    with pytest.raises(InvalidValueError, match=r"\(32, 32\)"):
        ClassifyEnv(scenes=scenes, readout=path, size=(48, 48)).reset(seed=0)


def test_a_network_that_moved_along_with_its_readout_is_found(
    fitted: BeliefReadout, tmp_path: Path, folder: Path
) -> None:
    fitted.save(tmp_path / "beliefs.safetensors")
    tensors, metadata = read_tensors(tmp_path / "beliefs.safetensors")
    config = json.loads(metadata["config"])
    config["network"] = "/gone/net.safetensors"
    write_tensors(tmp_path / "beliefs.safetensors", tensors, {**metadata, "config": json.dumps(config)})
    with pytest.raises(WeightsError, match="no weights file"):
        load_belief_readout(tmp_path / "beliefs.safetensors")
    (tmp_path / "net.safetensors").write_bytes((folder / "net.safetensors").read_bytes())
    torch.testing.assert_close(load_belief_readout(tmp_path / "beliefs.safetensors")(*belief()), fitted(*belief()))


@pytest.mark.parametrize("damage", ["format", "config", "classes", "weight", "nan", "network"])
def test_damaged_files_are_named(damage: str, fitted: BeliefReadout, tmp_path: Path, network: MimNetwork) -> None:
    path = tmp_path / "beliefs.safetensors"
    fitted.save(path)
    tensors, metadata = read_tensors(path)
    config = json.loads(metadata["config"])
    changes: dict[str, Any] = {
        "format": ("no readout of belief", tensors, {**metadata, "format": "other"}),
        "config": ("config is missing or damaged", tensors, {"format": FORMAT, "config": "{"}),
        "classes": ("weight and bias", tensors, {**metadata, "config": json.dumps({**config, "classes": ["a"]})}),
        "weight": ("weight and bias", {"bias": tensors["bias"]}, metadata),
        "nan": ("finite", {**tensors, "bias": tensors["bias"] * torch.nan}, metadata),
        "network": ("another network", tensors, {**metadata, "config": json.dumps({**config, "fingerprint": "0"})}),
    }
    message, content, text = changes[damage]
    write_tensors(path, content, text)
    with pytest.raises(WeightsError, match=message):
        load_belief_readout(path)


def test_a_network_without_a_file_cannot_be_named(network: MimNetwork, data: LabelledData, tmp_path: Path) -> None:
    readout = fit_belief_readout(network, data, BeliefFit(**{**vars(FIT), "probe": "lbfgs", "beliefs": 2}))
    assert readout.card["beliefs"] == 2
    with pytest.raises(WeightsError, match="has none"):
        readout.save(tmp_path / "beliefs.safetensors")


def test_bad_options_are_named() -> None:
    with pytest.raises(InvalidValueError, match="ridge, lbfgs"):
        BeliefFit(probe="adam")
    with pytest.raises(InvalidValueError, match="glimpses"):
        BeliefFit(glimpses=0)
