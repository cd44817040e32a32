from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.agents.mim.ensemble import Ensemble
from foveasim.agents.mim.network import MimNetwork, Output, make_network
from foveasim.agents.mim.networks.unet import UNetConfig
from foveasim.agents.mim.weights_file import load_network, read_card, save_network
from foveasim.agents.pretraining.trainer import Batch, std_loss
from foveasim.agents.readout.calibration import LEVELS, CalibrateConfig, average_ranks, reliability, run
from foveasim.cli.commands import main
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.eye.retina import make_retina


class Knowing(MimNetwork):
    """Answers mid-grey, and a standard deviation that grows from left to right."""

    config_type = UNetConfig
    name = "knowing"

    def __init__(self, factor: float = 1.0, step: float = 0.0) -> None:
        super().__init__(UNetConfig())
        self.factor, self.step = factor, step

    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        ramp = torch.linspace(0.02, 0.12, image.shape[3]).expand(len(image), 1, image.shape[2], -1)
        grey = torch.full_like(image, 0.5 + self.step)
        return Output(grey, grey[:, :, ::16, ::16], torch.where(acuity < 1, self.factor * ramp, 0.0))


def gaussian_scenes(count: int = 8, side: int = 64) -> np.ndarray:
    """Scenes whose spread around mid-grey is what ``Knowing`` says."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.02, 0.12, side)[None, None, :, None]
    scenes = 127.5 + 255 * ramp * rng.normal(size=(count, side, side, 3))
    return scenes.round().clip(0, 255).astype(np.uint8)


def test_ranks_share_ties() -> None:
    assert average_ranks(np.array([2.0, 0.0, 2.0, 2.0, -1.0])).tolist() == [3.0, 1.0, 3.0, 3.0, 0.0]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_gaussian_errors_are_covered_as_they_should_be(factor: float) -> None:
    found = reliability(Knowing(factor), gaussian_scenes(), make_retina("disc", hidden_ratio=0.8), (1, 4))
    assert [one.fixations for one in found] == [1, 4] and found[0].pixels > found[1].pixels > 1000
    for one in found:
        assert one.scale == pytest.approx(1 / factor, rel=0.03)
        for level, share in zip(LEVELS, one.coverage, strict=True):
            z = factor * float(torch.special.ndtri(torch.tensor((1 + level) / 2)))
            assert share == pytest.approx(math.erf(z / 2**0.5), abs=0.025)
        assert np.allclose(np.array(one.predicted) / factor, one.observed, rtol=0.08)
        # of |N(0, s)| averaged over three channels: it follows s closely, and not exactly
        assert 0.6 < one.rank_correlation < 0.95


def test_a_constant_standard_deviation_knows_nothing() -> None:
    class Flat(Knowing):
        def forward(self, image: Tensor, acuity: Tensor) -> Output:
            output = super().forward(image, acuity)
            return output._replace(std=torch.full_like(acuity, 0.1))

    (one,) = reliability(Flat(), gaussian_scenes(), make_retina("disc"), (1,))
    assert one.rank_correlation == 0


def test_the_likelihood_in_closed_form() -> None:
    error, sigma = 0.3, 0.2
    target = torch.full((1, 3, 4, 4), 0.5)
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., :2] = 1
    batch = Batch(target, 1 - weight, target, weight)
    std = torch.full((1, 1, 4, 4), sigma)
    for beta in (0.0, 0.5, 1.0):
        expected = 0.5 * (error**2 / sigma**2 + math.log(sigma**2)) * sigma ** (2 * beta)
        assert std_loss(target + error, std, batch, beta).item() == pytest.approx(expected, rel=1e-5)
    with_gradient = (target + error).requires_grad_()
    std.requires_grad_()
    std_loss(with_gradient, std, batch, 0.5).backward()
    assert with_gradient.grad is None  # the picture is fitted by its squared error alone
    assert std.grad is not None and bool((std.grad[..., :2] < 0).all()) and not bool(std.grad[..., 2:].any())


def test_the_likelihood_is_least_at_the_true_standard_deviation() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(1, 3, 64, 64)
    batch = Batch(target, torch.zeros(1, 1, 64, 64), target, torch.ones(1, 1, 64, 64))
    wrong = 0.07 * torch.randn(target.shape, generator=generator)
    losses = [std_loss(wrong, torch.full((1, 1, 64, 64), s), batch, 0.0).item() for s in (0.05, 0.07, 0.09)]
    assert losses[1] < min(losses[0], losses[2])


def test_where_networks_disagree_the_ensemble_is_unsure() -> None:
    image, acuity = torch.rand(2, 3, 32, 48), torch.zeros(2, 1, 32, 48)
    acuity[:, :, :, :8] = 1
    one, other = Knowing(), Knowing(step=0.2)
    together = Ensemble([one, other])
    assert together.predicts_std
    output = together(image, acuity)
    torch.testing.assert_close(output.image, torch.full_like(image, 0.6))
    own = one(image, acuity).std
    assert output.std is not None and own is not None
    torch.testing.assert_close(output.std[..., 8:], (own[..., 8:] ** 2 + 0.1**2).sqrt())
    assert not bool(output.std[..., :8].any())
    with pytest.raises(InvalidValueError, match="at least two; got 1"):
        Ensemble([one])


def test_networks_without_a_standard_deviation_have_one_together() -> None:
    image, acuity = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    one, other = make_network("paper").eval(), make_network("paper").eval()
    with torch.no_grad():
        a, b = one(image, acuity).image, other(image, acuity).image
        output = Ensemble([one, other])(image, acuity)
    assert output.std is not None
    torch.testing.assert_close(output.std, ((a - b).square() / 4).mean(1, keepdim=True).sqrt(), rtol=1e-4, atol=1e-6)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = make_network("unet", widths=(16, 16, 16), blocks=(0, 0, 1))
    card = {"network": "unet", "parameters": 1, "trained_on": [], "training_images": 0, "licence": "", "retinas": {}}
    card |= {"fixations": [1, 1], "size_px": 32, "steps": 1, "batch": 1, "images_seen": 1, "minutes": 0, "lr": 0.1}
    card |= {"precision": "float32", "seed": 0, "command": "", "config": network.config_dict()}
    save_network(tmp_path / "own.safetensors", network, card)
    return tmp_path / "own.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(gaussian_scenes(4)):
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    return tmp_path / "images"


def config(weights: Path, folder: Path, **changes: Any) -> CalibrateConfig:
    values = {"weights": str(weights), "data": str(folder), "size": 64, "out": str(weights.parent / "r.png")}
    return CalibrateConfig(**(values | {"fixations": [1, 3]} | changes))


def test_fitting_makes_ninety_percent_intervals_cover_ninety_percent(weights: Path, folder: Path) -> None:
    before = run(config(weights, folder, retinas={"disc": {}}, fixations=[1], fit=True))[0]
    assert before.coverage[LEVELS.index(0.9)] > 0.95  # an untrained network says 0.2
    after = run(config(weights, folder, retinas={"disc": {}}, fixations=[1], overwrite=True))[0]
    assert after.coverage[LEVELS.index(0.9)] == pytest.approx(0.9, abs=0.01)
    assert after.scale == pytest.approx(1, abs=0.01)
    assert load_network(weights).config.std_scale == pytest.approx(before.scale)
    assert read_card(weights)["calibrated_on"] == ["images"]
    assert "std_scale" in weights.with_suffix(".md").read_text()


def test_the_picture_is_drawn(weights: Path, folder: Path) -> None:
    assert len(run(config(weights, folder))) == 4
    picture = cv2.imread(str(weights.parent / "r.png"))
    assert picture is not None and picture.std() > 10


def test_what_cannot_be_used_is_refused(weights: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidValueError, match=r"out must end in \.png"):
        run(config(weights, folder, out="r.jpg"))
    with pytest.raises(InvalidValueError, match="'full' hides nothing"):
        run(config(weights, folder, retinas={"full": {}}))
    save_network(weights, make_network("unet", widths=(16, 16, 16), blocks=(0, 0, 1), std=False), {})
    with pytest.raises(InvalidValueError, match="predicts no standard deviation"):
        run(config(weights, folder))
    assert main(["calibrate", str(weights), "--data", str(folder)]) == 1
    assert "predicts no standard deviation" in capsys.readouterr().err


def test_a_shipped_network_is_not_written_to(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("unet", widths=(16, 16, 16), blocks=(0, 0, 1))
    monkeypatch.setattr("foveasim.agents.readout.calibration.load_network", lambda *_: network)
    with pytest.raises(WeightsError, match="'unet' is the name of a shipped network"):
        run(config(Path("unet"), folder, out=str(tmp_path / "r.png"), fit=True))
