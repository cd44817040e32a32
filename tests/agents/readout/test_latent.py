from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim.agents.mim.network import make_network, to_float
from foveasim.agents.mim.weights_file import save_network, write_tensors
from foveasim.agents.pretraining.command import PretrainConfig, Trainer
from foveasim.agents.readout.latent import LatentConfig, expand, load_snapshot, run
from foveasim.agents.readout.latent_measures import latents, measure, measure_batches
from foveasim.cli.commands import main
from foveasim.errors import InvalidValueError, SceneError, WeightsError
from foveasim.images.pool import ImagePool

SMALL: dict[str, Any] = {"widths": (16, 16, 16), "blocks": (0, 0, 1)}

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(count: int, units: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, units)))


def folder_of_images(path: Path, count: int = 12) -> Path:
    path.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (count, 40, 50, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        assert cv2.imwrite(str(path / f"{i:02d}.png"), image)
    return path


@pytest.mark.parametrize(("count", "units"), [(20, 7), (7, 20), (12, 12)])
def test_gram_identity_equals_the_naive_covariance_matrix(count: int, units: int) -> None:
    latent = normal(count, units) @ normal(units, units, 1) + 3
    found = measure(latent)
    covariance = np.corrcoef(latent.numpy(), rowvar=False)
    off = covariance - np.diag(np.diag(covariance))
    assert found.covariance == pytest.approx((off**2).sum() / units, rel=1e-9)
    values = np.linalg.eigvalsh(np.cov(latent.numpy(), rowvar=False))
    assert found.effective_dimension == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)
    rates = latent.numpy()
    unit = 1 - rates.mean(0) ** 2 / (rates**2).mean(0)
    population = 1 - rates.mean(1) ** 2 / (rates**2).mean(1)
    assert found.unit_sparsity == pytest.approx(unit.mean(), rel=1e-9)
    assert found.population_sparsity == pytest.approx(population.mean(), rel=1e-9)


def test_identical_units() -> None:
    one = normal(50, 1)
    found = measure(one.expand(50, 6))
    assert found.covariance == pytest.approx(5.0)  # 6 x 5 entries of 1, divided by 6
    assert found.effective_dimension == pytest.approx(1.0)
    opposite = torch.cat((one, -2 * one), 1)
    assert measure(opposite).covariance == pytest.approx(1.0)  # the sign does not matter


def test_orthogonal_units_have_no_covariance() -> None:
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # Hadamard, means 0
    found = measure(signs)
    assert found.covariance == pytest.approx(0.0, abs=1e-12)
    assert found.effective_dimension == pytest.approx(3.0)


def test_independent_units_lie_at_the_floor() -> None:
    found = [measure(normal(30, 40, seed)) for seed in range(40)]
    floor = found[0].covariance_floor
    assert floor == pytest.approx(40 * 39 / 29 / 40)
    mean, error = np.mean([f.covariance for f in found]), np.std([f.covariance for f in found]) / 40**0.5
    assert abs(mean - floor) < 4 * error and error < 0.01 * floor


def test_one_hot_responses() -> None:
    found = measure(torch.eye(10))
    assert found.population_sparsity == pytest.approx(1 - 1 / 10)
    assert found.unit_sparsity == pytest.approx(1 - 1 / 10)
    assert found.covariance == pytest.approx(9 * (1 / 9) ** 2)  # each pair correlates by -1 / 9
    assert found.effective_dimension == pytest.approx(9.0)


def test_constant_units_have_no_part_in_the_covariance_but_count() -> None:
    latent = torch.cat((normal(40, 4), torch.full((40, 4), 0.1, dtype=torch.float64)), 1)
    found, alone = measure(latent), measure(latent[:, :4])
    assert found.constant_share == 0.5
    assert found.covariance == pytest.approx(alone.covariance / 2)
    assert found.covariance_floor == pytest.approx(alone.covariance_floor / 2)
    assert found.effective_dimension == pytest.approx(alone.effective_dimension)
    uniform = measure(torch.full((5, 3), 0.3))
    assert (uniform.unit_sparsity, uniform.population_sparsity) == pytest.approx((0.0, 0.0))
    assert uniform.covariance == uniform.effective_dimension == 0 and uniform.constant_share == 1


def test_silence_has_no_sparsity() -> None:
    silent = measure(torch.zeros(4, 3))
    assert math.isnan(silent.unit_sparsity) and math.isnan(silent.population_sparsity)
    half = torch.eye(4)
    half[0] = 0  # one silent image, and one silent unit
    assert measure(half).population_sparsity == pytest.approx(1 - 1 / 4)
    assert measure(half).unit_sparsity == pytest.approx(1 - 1 / 4)


def test_invariances() -> None:
    latent = normal(25, 9).abs()
    base = measure(latent)
    rng = np.random.default_rng(3)
    shuffled = measure(latent[torch.from_numpy(rng.permutation(25))][:, torch.from_numpy(rng.permutation(9))])
    for name, value in dataclasses.asdict(base).items():
        assert getattr(shuffled, name) == pytest.approx(value, rel=1e-9)
    scaled = measure(latent * torch.from_numpy(rng.uniform(0.1, 10, 9)))  # unit by unit
    assert scaled.covariance == pytest.approx(base.covariance, rel=1e-9)
    assert scaled.unit_sparsity == pytest.approx(base.unit_sparsity, rel=1e-9)
    shifted = measure(latent + 5)
    assert shifted.covariance == pytest.approx(base.covariance, rel=1e-9)
    assert shifted.effective_dimension == pytest.approx(base.effective_dimension, rel=1e-9)
    assert shifted.unit_sparsity < base.unit_sparsity
    turn = torch.linalg.qr(normal(9, 9, 5))[0]
    assert measure(latent @ turn).effective_dimension == pytest.approx(base.effective_dimension, rel=1e-9)


def test_rectified_rates() -> None:
    latent = normal(30, 5)
    found = measure(latent, rectify=True)
    assert found.negative_share == pytest.approx(float((latent < 0).double().mean()))
    assert dataclasses.replace(found, negative_share=0.0) == measure(latent.clamp(min=0))


def test_no_matrix_of_units_by_units_is_made() -> None:
    found = measure(torch.rand(4, 400_000))  # 1.3 TB as a covariance matrix
    assert found.covariance == pytest.approx(found.covariance_floor, rel=0.01)


def test_batches() -> None:
    latent = normal(25, 6)
    mean, std = measure_batches(latent, 10)
    parts = [measure(latent[:10]), measure(latent[10:20])]
    assert mean.covariance == pytest.approx((parts[0].covariance + parts[1].covariance) / 2)
    assert std.covariance == pytest.approx(abs(parts[0].covariance - parts[1].covariance) / 2)
    whole, none = measure_batches(latent, 512)
    assert whole == measure(latent) and none.covariance == 0


def test_measure_refuses() -> None:
    for wrong in (torch.zeros(1, 3), torch.zeros(3), torch.zeros(2, 3, 3)):
        with pytest.raises(InvalidValueError, match="B of at least 2"):
            measure(wrong)
    with pytest.raises(InvalidValueError, match="finite"):
        measure(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))


def test_latents_are_those_of_full_images() -> None:
    network = make_network("unet", **SMALL)
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    found = latents(network, images, batch=2)
    image, acuity = to_float(torch.from_numpy(images), torch.full((5, 48, 48), 255, dtype=torch.uint8))
    with torch.no_grad():
        expected = network(image, acuity)[1].flatten(1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert network.training  # left as it was
    half = torch.empty(5, found.shape[1], dtype=torch.float16)
    done: list[int] = []
    assert latents(network, images, batch=2, out=half, advance=done.append) is half and done == [2, 2, 1]
    torch.testing.assert_close(half.float(), found, rtol=1e-2, atol=1e-2)
    with pytest.raises(InvalidValueError, match="at least 1"):
        latents(network, images[:0])
    torch.nn.init.constant_(network.get_parameter("to16.bias"), 1e6)
    with pytest.raises(InvalidValueError, match="finite in"):
        latents(network, images, out=half)


def test_run_over_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data")
    for seen in (2000, 1000):
        network = make_network("unet", **SMALL)
        save_network(tmp_path / f"runs/mim/{seen}.safetensors", network, {"images_seen": seen})
    out = tmp_path / "out"
    words = [str(tmp_path / "runs/mim/*.safetensors"), f"--data={data}", f"--out={out}", "--size=48", "--batch=5"]
    assert main(["latent", *words]) == 0
    printed = capsys.readouterr().out
    assert "mim/untrained" in printed and "2,000" in printed and "negative" in printed
    with (out / "latent.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["images_seen"], row["network"]) for row in rows] == [("0", "unet"), ("1000", "unet"), ("2000", "unet")]
    assert all(float(row["covariance"]) > 0 and float(row["covariance_std"]) >= 0 for row in rows)
    whole = json.loads((out / "latent.json").read_text())
    assert whole["images"] == 12 and whole["batch"] == 5
    assert whole["rows"][1]["covariance"] == pytest.approx(float(rows[1]["covariance"]))
    picture = cv2.imread(str(out / "latent.png"))
    assert picture is not None and picture.std() > 10


def test_run_repeats_and_measures_what_measure_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder_of_images(tmp_path / "data")
    save_network(tmp_path / "a.safetensors", make_network("unet", **SMALL), {})
    config = LatentConfig(
        weights=[str(tmp_path / "a.safetensors")], data=[str(data)], out=str(tmp_path / "out"), size=48, images=9
    )
    config.overwrite = True
    first, second = run(config), run(config)
    assert first == second and [row.weights for row in first] == ["untrained", str(tmp_path / "a.safetensors")]
    assert first[1].images_seen is None and first[1].units == 16 * 9
    assert len(run(dataclasses.replace(config, untrained=False))) == 1
    assert "constant" not in capsys.readouterr().out
    silent = make_network("unet", **SMALL)
    torch.nn.init.constant_(silent.get_parameter("to16.bias"), -1e3)
    save_network(tmp_path / "a.safetensors", silent, {})
    assert run(dataclasses.replace(config, rectify=True))[1].mean.constant_share == 1
    assert "Up to 100 % of the units are constant" in capsys.readouterr().out


def test_a_checkpoint_is_a_point(tmp_path: Path) -> None:
    images = tuple(np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8))
    pool = ImagePool.of(images, tuple("abcd"))
    out = tmp_path / "run"
    config = PretrainConfig(data=["x"], out=str(out), network="unet", network_options=SMALL, size=48, batch=4, steps=2)
    trainer = Trainer(config, pool)
    trainer.train_step()
    trainer.save()
    snapshot = load_snapshot(str(trainer.checkpoint))
    assert (snapshot.series, snapshot.images_seen) == ("run", 4)
    for name, value in trainer.ema.items():
        assert torch.equal(snapshot.network.get_parameter(name), value)
    metadata = {"counters": json.dumps({"images": 1}), "config": json.dumps({"network": "os:system"})}
    write_tensors(out / "evil.safetensors", {"ema.x": torch.zeros(1)}, metadata)
    with pytest.raises(WeightsError, match="known here"):
        load_snapshot(str(out / "evil.safetensors"))
    metadata["config"] = json.dumps({"network": "unet", "network_options": {}})
    write_tensors(out / "other.safetensors", {"ema.x": torch.zeros(1)}, metadata)
    with pytest.raises(WeightsError, match="not a checkpoint"):
        load_snapshot(str(out / "other.safetensors"))


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WeightsError, match="no file fits"):
        expand(str(tmp_path / "*.safetensors"))
    with pytest.raises(WeightsError, match="at least one"):
        expand([])
    with pytest.raises(InvalidValueError, match="at least one folder"):
        run(LatentConfig(weights="unet"))
    with pytest.raises(SceneError, match="no such folder"):
        run(LatentConfig(weights="unet", data=str(tmp_path / "nowhere")))
    for changes in ({"batch": 1}, {"images": 1}, {"size": 8}, {"seed": -1}):
        with pytest.raises(InvalidValueError, match=next(iter(changes))):
            LatentConfig(**changes)
    assert main(["latent", "unett", "--data", str(tmp_path)]) == 1
    assert "Did you mean 'unet'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    save_network(tmp_path / "a.safetensors", make_network("unet", **SMALL), {})
    data = folder_of_images(tmp_path / "data", 3)
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        run(LatentConfig(weights=str(tmp_path / "a.safetensors"), data=str(data), out=str(tmp_path / "file"), size=48))
