from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.agents.mim.network import (
    NETWORKS,
    LeanNetwork,
    MimNetwork,
    PaperNetwork,
    make_network,
    to_float,
    visible_mean,
)
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference"


def seen(lanes: int = 2, height: int = 96, width: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (lanes, height, width, 3), dtype=np.uint8))
    acuity = torch.zeros(lanes, height, width, dtype=torch.uint8)
    acuity[:, height // 4 : height // 2, width // 4 : width // 2] = 255
    return image, acuity


def live(network: MimNetwork, seed: int = 0) -> MimNetwork:
    """The same network with every parameter drawn by the seed, none at its zero initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = (1 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.02
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return network.eval()


def in_memory(network: MimNetwork, memory_format: torch.memory_format) -> MimNetwork:
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
    return network


def rule_parameters() -> dict[str, Tensor]:
    """Parameters by the rule that the reference was computed with."""
    entries = json.loads((REFERENCE / "focusmim_parameters.json").read_text())
    found = {}
    for i, (name, shape) in enumerate(entries):
        n = int(np.prod(shape))
        scale = np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        found[name] = torch.from_numpy((np.sin(0.37 * np.arange(n) + i) * scale).reshape(shape).astype(np.float32))
    return found


def test_paper_network_agrees_with_the_authors_code() -> None:
    if not REFERENCE.is_dir():
        pytest.skip("the authors' reference values (../shared/reference) are not here")
    theirs = rule_parameters()
    network = PaperNetwork()
    mine: dict[str, Tensor] = {}
    for name in network.state_dict():
        side, block, layer, kind = name.split(".")
        renamed = {
            "conv1": "conv1" if side == "encoder" else "upconv1",
            "conv2": "conv2" if side == "encoder" else "upconv2",
            "skip": "match_dim",
        }[layer]
        mine[name] = theirs[f"{side}.{2 * int(block)}.{renamed}.{kind}"]
    network.load_state_dict(mine)
    unused = sum(p.numel() for p in theirs.values()) - sum(p.numel() for p in network.parameters())
    assert sum(p.numel() for p in theirs.values()) == 2_084_378
    assert unused == 2 * (2 * 32**2 + 2 * 64**2 + 2 * 128**2) + 4 * (32 + 64 + 128)  # skips of equal width
    with np.load(REFERENCE / "focusmim_reference.npz") as reference:
        image = torch.from_numpy(reference["image"])[None]
        with torch.inference_mode():
            reconstruction, latent = network(*to_float(image, torch.full((1, 96, 96), 255, dtype=torch.uint8)))
        # float32 sums in another order: the same network in float64 is 2.4e-5 from theirs, and this one 3.6e-5
        assert latent.shape == (1, 128, 12, 12)
        np.testing.assert_allclose(latent[0].numpy(), reference["cnn_latent"], atol=1e-5)
        np.testing.assert_allclose(reconstruction[0].numpy(), reference["cnn_reconstruction"], atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS.names())
@pytest.mark.parametrize("size", [(64, 64), (96, 96), (33, 50), (97, 131), (512, 512)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    image, acuity = to_float(*seen(1, *size))
    with torch.inference_mode():
        reconstruction, latent = live(make_network(name))(image, acuity)
    assert reconstruction.shape == (1, 3, *size)
    assert latent.ndim == 4 and latent.shape[0] == 1
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
    assert torch.isfinite(latent).all()


@pytest.mark.parametrize("name", NETWORKS.names())
def test_lanes_do_not_mix(name: str) -> None:
    network = live(make_network(name))
    image, acuity = to_float(*seen(3))
    with torch.inference_mode():
        together = network(image, acuity)[0]
        alone = network(image[1:2], acuity[1:2])[0]
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS.names())
def test_channels_last_gradients_equal_planar_ones(name: str) -> None:
    # Fails (or crashes) where a 1x1 stride-2 convolution from 3 channels or a transposed one to 3 channels meets
    # channels-last memory on torch 2.13's CPU.
    image, acuity = to_float(*seen(4, 64, 64))
    assert image.is_contiguous(memory_format=torch.channels_last)
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network = in_memory(live(make_network(name)), memory_format)
        reconstruction, latent = network(image.contiguous(memory_format=memory_format), acuity)
        (reconstruction.square().mean() + latent.square().mean()).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
        assert len(gradients[-1]) == len(list(network.parameters()))
    for planar, last in zip(*gradients, strict=True):
        assert (last - planar).norm() < 1e-2 * planar.norm()  # rounding may switch a single ReLU


def test_lean_does_not_leak_hidden_pixels() -> None:
    network = live(LeanNetwork())
    image, acuity = seen()
    other = torch.where((acuity > 0)[..., None], image, 255 - image)
    assert not torch.equal(image, other)
    with torch.inference_mode():
        a, b = network(*to_float(image, acuity)), network(*to_float(other, acuity))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_untrained_lean_answers_the_visible_mean() -> None:
    image, acuity = to_float(*seen(1))
    with torch.inference_mode():
        reconstruction, _ = LeanNetwork()(image, acuity)
    hidden = (acuity == 0).expand_as(image)
    mean = image[0, :, 24:48, 24:48].mean((1, 2))
    torch.testing.assert_close(visible_mean(image, acuity)[0, :, 0, 0], mean)
    torch.testing.assert_close(reconstruction[hidden], mean[:, None].expand(3, 96 * 96 - 24 * 24).flatten())
    torch.testing.assert_close(reconstruction[~hidden], image[~hidden])


def test_visible_mean_of_nothing_is_grey() -> None:
    assert visible_mean(torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)).flatten().tolist() == [0.5] * 3


def test_lean_follows_a_shift_of_brightness() -> None:
    network = live(LeanNetwork())
    image, acuity = seen(1)
    dark = image // 4
    with torch.inference_mode():
        low, high = network(*to_float(dark + 40, acuity))[0], network(*to_float(dark + 90, acuity))[0]
    inside = (low > 0) & (high < 1)
    assert inside.float().mean() > 0.9
    torch.testing.assert_close((high - low)[inside], torch.full_like(low, 50 / 255)[inside], atol=1e-4, rtol=0)


def test_lean_is_small_and_paper_has_the_published_encoder() -> None:
    assert sum(p.numel() for p in LeanNetwork().parameters()) <= 2_400_000
    encoder = sum(p.numel() for p in PaperNetwork().encoder.parameters())
    assert encoder == 1_116_064 - (2 * 32**2 + 2 * 64**2 + 2 * 128**2) - 2 * (32 + 64 + 128)


def test_paper_sees_acuity_only_as_a_fourth_channel() -> None:
    image, acuity = to_float(*seen(1))
    with torch.inference_mode():
        three, four = live(PaperNetwork()), live(make_network("paper", in_channels=4))
        assert torch.equal(three(image, acuity)[1], three(image, 1 - acuity)[1])
        assert not torch.equal(four(image, acuity)[1], four(image, 1 - acuity)[1])


def test_errors_say_what_to_do() -> None:
    image, acuity = to_float(*seen(1))
    network = LeanNetwork()
    with pytest.raises(InvalidValueError, match=r"acuity \(B, 1, H, W\)"):
        network(image, acuity[:, 0])
    with pytest.raises(InvalidValueError, match="at least 32 px"):
        network(image[..., :31], acuity[..., :31])
    with pytest.raises(InvalidTypeError, match="to_float"):
        network(seen(1)[0].permute(0, 3, 1, 2), acuity)
    with pytest.raises(InvalidTypeError, match="uint8"):
        to_float(torch.rand(1, 64, 64, 3), seen(1, 64, 64)[1])
    with pytest.raises(InvalidValueError, match=r"\(B, H, W\)"):
        to_float(seen(1)[0], seen(1, 64, 64)[1])
    with pytest.raises(InvalidTypeError, match="widths, blocks"):
        make_network("lean", width=3)
    with pytest.raises(InvalidValueError, match="widths must be three"):
        make_network("lean", widths=(1, 2))
    with pytest.raises(InvalidValueError, match=r"3 .* or 4"):
        make_network("paper", in_channels=5)
    with pytest.raises(UnknownNameError, match="lean"):
        make_network("leen")
