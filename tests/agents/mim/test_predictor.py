from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.agents.mim.network import NETWORKS, MimNetwork, make_network
from foveasim.agents.mim.predictor import Predictor, compose
from foveasim.agents.mim.resize import shrink
from foveasim.errors import InvalidTypeError, InvalidValueError


def seen(height: int = 96, width: int = 96, lanes: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    acuity = np.zeros((lanes, height, width), np.uint8)
    acuity[:, height // 4 : height // 2, width // 4 : width // 2] = 255
    acuity[:, height // 2 :, : width // 4] = 100
    return {"glimpse": rng.integers(0, 256, (lanes, height, width, 3), dtype=np.uint8), "acuity": acuity}


def live(name: str) -> MimNetwork:
    network = make_network(name)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return network


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize("size", [(96, 96), (70, 101), (200, 300)])
def test_sharp_where_seen_and_predicted_elsewhere(name: str, size: tuple[int, int]) -> None:
    observation = seen(*size)
    prediction = Predictor(live(name)).imagine(observation)
    image = prediction.image.numpy()
    assert image.shape == (2, *size, 3) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 1
    sharp = observation["acuity"] == 255
    np.testing.assert_allclose(image[sharp], observation["glimpse"][sharp] / 255, atol=1e-6)
    assert image[~sharp].std() > 0
    assert prediction.latent is not None and len(prediction.latent) == 2


def test_belief_comes_before_the_glimpse() -> None:
    observation = seen()
    belief = {"belief": 255 - observation["glimpse"], "belief_acuity": 255 - observation["acuity"]}
    predictor = Predictor(live("unet"))
    both, alone = predictor.imagine({**observation, **belief}), predictor.imagine(belief)
    assert torch.equal(both.image, alone.image)
    assert not torch.equal(both.image, predictor.imagine(observation).image)


def test_tensors_and_arrays_give_the_same() -> None:
    observation = seen()
    predictor = Predictor(live("unet"))
    tensors = {key: torch.from_numpy(value) for key, value in observation.items()}
    assert torch.equal(predictor.imagine(observation).image, predictor.imagine(tensors).image)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_hidden_pixels_have_no_influence_at_any_size(name: str) -> None:
    # Neither has the colour of an empty belief: a network that reads only the image must not meet black holes.
    for size in ((96, 96), (192, 256)):
        observation = seen(*size)
        changed = {**observation, "glimpse": observation["glimpse"].copy()}
        changed["glimpse"][observation["acuity"] == 0] ^= 255
        predictor = Predictor(live(name))
        assert torch.equal(predictor.imagine(observation).image, predictor.imagine(changed).image)


@pytest.mark.parametrize("size", [(96, 96), (192, 192)])
def test_networks_are_given_the_mean_of_what_was_seen(size: tuple[int, int]) -> None:
    observation = seen(*size)
    observation["glimpse"][:] = 77
    observation["glimpse"][observation["acuity"] == 0] = 0
    given: list[torch.Tensor] = []
    network = live("paper")
    network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    Predictor(network).imagine(observation)
    torch.testing.assert_close(given[0], torch.full((2, 3, 96, 96), 77 / 255))


def test_shrink_leaves_hidden_pixels_out_of_the_colour() -> None:
    image = torch.zeros(1, 3, 4, 4)
    acuity = torch.zeros(1, 1, 4, 4)
    image[..., 0, 0], acuity[..., 0, 0] = 0.8, 1.0
    colour, small = shrink(image, acuity, (2, 2))
    torch.testing.assert_close(colour[0, :, 0, 0], torch.full((3,), 0.8))
    assert small[0, 0].tolist() == [[0.25, 0.0], [0.0, 0.0]]


def test_shrink_keeps_the_sharpness_of_a_blurred_view() -> None:
    # Blurred to a quarter of the pixel grid, a view is half as sharp as a grid of half the pixels, and as sharp as one
    # of a quarter of them.
    image, acuity = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 1, 64, 64), 0.25)
    for side, expected in ((32, 0.5), (16, 1.0), (8, 1.0)):
        colour, small = shrink(image, acuity, (side, side))
        torch.testing.assert_close(small, torch.full_like(small, expected))
        torch.testing.assert_close(colour, torch.full_like(colour, 0.5))


def test_detail_of_a_blurred_view_survives_shrinking() -> None:
    # An untrained unet adds nothing, so the view must come back as it is, its pixel noise included.
    observation = seen(192, 192)
    observation["acuity"][:] = 200
    image = Predictor(make_network("unet")).imagine(observation).image
    np.testing.assert_allclose(image.numpy(), observation["glimpse"] / 255, atol=1e-6)


def test_a_uniform_scene_is_predicted_uniform_by_an_untrained_unet() -> None:
    observation = seen(192, 144)
    observation["glimpse"][:] = 77
    image = Predictor(make_network("unet")).imagine(observation).image
    torch.testing.assert_close(image, torch.full_like(image, 77 / 255))


def test_compose_keeps_only_what_is_fully_sharp() -> None:
    image, reconstruction = torch.zeros(1, 3, 1, 3), torch.ones(1, 3, 1, 3)
    acuity = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    assert compose(image, acuity, reconstruction)[0, 0, 0].tolist() == [1.0, 1.0, 0.0]


def test_errors_say_what_is_missing() -> None:
    predictor = Predictor(live("unet"))
    with pytest.raises(InvalidValueError, match=r"'acuity'; it has glimpse"):
        predictor.imagine({"glimpse": seen()["glimpse"]})
    with pytest.raises(InvalidValueError, match=r"'belief_acuity'"):
        predictor.imagine({**seen(), "belief": seen()["glimpse"]})
    with pytest.raises(InvalidTypeError, match="uint8"):
        predictor.imagine({"glimpse": seen()["glimpse"] / 255, "acuity": seen()["acuity"]})
    with pytest.raises(InvalidValueError, match="short_side_px"):
        Predictor(live("unet"), short_side_px=16)


@pytest.mark.parametrize("size", [(96, 96), (200, 300)])
def test_it_says_how_sure_it_is(size: tuple[int, int]) -> None:
    observation = seen(*size)
    std = Predictor(live("unet")).imagine(observation).std
    assert std is not None and std.shape == (2, *size) and std.dtype == torch.float32
    sharp = torch.from_numpy(observation["acuity"] == 255)
    assert not bool(std[sharp].any()) and bool((std[~sharp] > 0).all()) and std.max() <= 1
    assert Predictor(live("paper")).imagine(observation).std is None


def test_several_networks_predict_together() -> None:
    observation, networks = seen(), [live("unet"), make_network("unet")]
    alone = [Predictor(network).imagine(observation) for network in networks]
    together = Predictor(networks).imagine(observation)
    torch.testing.assert_close(together.image, (alone[0].image + alone[1].image) / 2)
    assert together.std is not None and alone[0].std is not None and alone[1].std is not None
    hidden = torch.from_numpy(observation["acuity"] < 255)
    assert bool((together.std[hidden] >= torch.minimum(alone[0].std, alone[1].std)[hidden] - 1e-6).all())
    with pytest.raises(InvalidValueError, match="at least two; got 0"):
        Predictor([])
