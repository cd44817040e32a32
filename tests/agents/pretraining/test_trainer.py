from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import read_tensors, save_network
from foveasim.agents.pretraining.command import train
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.distributed import ProcessGroup
from foveasim.agents.pretraining.prediction_error import evaluate
from foveasim.agents.pretraining.trainer import Batch, Trainer, masked_error
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.eye.retina import make_retina
from foveasim.images.pool import ImagePool

SMALL: dict[str, Any] = {"widths": (16, 16, 16), "blocks": (0, 0, 1)}


def ramps(count: int = 4, side: int = 48) -> np.ndarray:
    """Scenes whose hidden part follows from any visible part: grey levels rising from left to right."""
    row = np.linspace(0, 255, side).astype(np.uint8)
    return np.broadcast_to(row[None, None, :, None], (count, side, side, 3)).copy()


def ramp_pool() -> ImagePool:
    return ImagePool.of(ramps())


def noise_pool(count: int = 6, side: int = 96, objects: bool = False) -> ImagePool:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[: side // 2], mask[: side // 4] = 51, 255
    return ImagePool.of(images, objects=[mask] * count if objects else None)


def config(out: Path, **changes: Any) -> PretrainConfig:
    values: dict[str, Any] = {
        "data": ["unused"],
        "out": str(out),
        "network": "unet",
        "network_options": SMALL,
        "size": 48,
        "batch": 8,
        "steps": 6,
        "scale": (0.8, 1.0),
        "lr": 4e-3,
    }
    return PretrainConfig(**{**values, **changes})


def still(out: Path, **changes: Any) -> PretrainConfig:
    """The paper's eye: one fixation at the centre of a whole picture, 96 x 96."""
    values: dict[str, Any] = {"size": 96, "gaze": "centre", "max_fixations": 1, "crops": False, "mirror": False}
    return config(out, **{**values, "retinas": {"disc": {"hidden_ratio": 0.8}}, **changes})


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=120, batch=16, lr=8e-3, retinas={"disc": {}}), ramp_pool())
    while trainer.progress < 1:
        trainer.train_step()
    found = evaluate(trainer.network, ramps(), make_retina("disc"), (1, 4))
    assert max(found.relative) < 0.5  # 1 is the visible mean, 0 is perfect
    with trainer.averaged() as network:
        assert evaluate(network, ramps(), make_retina("disc"), (1,)).relative[0] < 0.5


def test_a_plain_autoencoder_learns_as_the_paper_trains_it(tmp_path: Path) -> None:
    options: dict[str, Any] = {"loss": "all", "retinas": {"full": {}}, "optimizer": "adam", "schedule": "constant"}
    rest: dict[str, Any] = {"ema_decay": 0.0, "weight_decay": 1e-8, "network": "lean", "size": 32, "steps": 60}
    small = {"width": 8, "code": 16, "neck": (8, 8), "blocks": (1, 1)}
    trainer = Trainer(config(tmp_path, **options, **rest, network_options=small), ImagePool.of(ramps(side=32)))
    assert type(trainer.optimizer) is torch.optim.Adam and trainer.learning_rate() == 4e-3
    losses = [float(trainer.train_step()) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    for name, parameter in trainer.parameters.items():  # no average: what is saved is what was trained
        assert torch.equal(trainer.ema[name], parameter)


def test_batches_hide_what_the_loss_asks_for(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, oblong_share=0.5, retinas={"disc": {"hidden_ratio": 0.8}}), ramp_pool())
    shapes = set()
    for step in range(8):
        batch = trainer.draw(step)
        shapes.add(tuple(batch.image.shape[2:]))
        sharp = (batch.acuity == 1).expand_as(batch.image)
        assert torch.equal(batch.image[sharp], batch.target[sharp])
        assert not torch.equal(batch.image[~sharp], batch.target[~sharp])
        assert torch.equal(batch.weight, 1 - batch.acuity)
        assert batch.image.shape == batch.target.shape == (8, 3, *batch.acuity.shape[2:])
    assert shapes == {(48, 48), (48, 64), (64, 48)}
    for a, b in zip(vars(trainer.draw(3)).values(), vars(trainer.draw(3)).values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(trainer.draw(3).target, trainer.draw(4).target)


def test_the_gaze_at_the_centre_shows_the_papers_disc(tmp_path: Path) -> None:
    batch = Trainer(still(tmp_path), noise_pool()).draw(0)
    rows, columns = np.mgrid[:96, :96]
    disc = torch.from_numpy((rows - 48) ** 2 + (columns - 48) ** 2 <= 24**2)  # around (48, 48), radius 24 px
    assert int(disc.sum()) == 1793  # as published
    assert torch.equal(batch.acuity, disc.float().expand(8, 1, 96, 96))


def test_pictures_without_crops_are_the_images_themselves(tmp_path: Path) -> None:
    pool = noise_pool()
    batch = Trainer(still(tmp_path), pool).draw(0)
    known = torch.from_numpy(np.stack(pool.images)).permute(0, 3, 1, 2).float() / 255
    for target in batch.target:
        assert (target == known).flatten(1).all(1).sum() == 1


@pytest.mark.parametrize(
    ("loss", "retina", "weight"),
    [
        ("hidden", {"disc": {"hidden_ratio": 0.8}}, 96 * 96 - 1793),
        ("hidden", {"patches": {"hidden_ratio": 0.6}}, 86 * 64),  # int(0.6 * 144) squares of 8 px
        ("hidden", {"disc": {"hidden_ratio": 0.8, "fill": "blur"}}, (96 * 96 - 1793) * (1 - 8 / 255)),  # acuity 1 / 33
        ("all", {"full": {}}, 96 * 96),
        ("all", {"disc": {"hidden_ratio": 0.8}}, 96 * 96),
        # the upper quarter is the object for sure, the next one for a fifth; the disc's rows 24 to 47 hide a part of it
        ("object", {"disc": {"hidden_ratio": 0.8}}, 24 * 96 + 0.2 * (24 * 96 - (1793 - 49) / 2)),
    ],
)
def test_the_loss_in_closed_form(tmp_path: Path, loss: str, retina: dict[str, Any], weight: float) -> None:
    masks = {"masks": "unused"} if loss == "object" else {}
    trainer = Trainer(still(tmp_path, loss=loss, retinas=retina, **masks), noise_pool(objects=loss == "object"))
    batch = trainer.draw(0)
    np.testing.assert_allclose(batch.weight.sum((1, 2, 3)), weight, rtol=1e-5)
    assert float(masked_error(batch.target, batch)) == 0
    assert float(masked_error(batch.target + 0.1, batch)) == pytest.approx(0.01, rel=1e-4)
    free = (batch.weight == 0).float()  # what does not count may be anything
    assert float(masked_error(batch.target + 5 * free, batch)) == 0
    one = torch.zeros_like(batch.target)
    one[0, 0, 0, 0] = 0.3  # an error of 0.3 in one channel of one pixel of the first of eight images
    expected = 0.09 * float(batch.weight[0, 0, 0, 0]) / weight / 3 / 8
    assert float(masked_error(batch.target + one, batch)) == pytest.approx(expected, rel=1e-4)


def test_images_without_anything_that_counts_do_not_break_the_loss() -> None:
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    nothing = Batch(image, torch.ones(2, 1, 32, 32), image, torch.zeros(2, 1, 32, 32))
    assert float(masked_error(image + 1, nothing)) == 0


def test_covert_attention_shows_the_object(tmp_path: Path) -> None:
    eyes = {"two_spot": {"hidden_ratio": 0.95, "attend": "object"}}
    trainer = Trainer(still(tmp_path, retinas=eyes, masks="unused"), noise_pool(objects=True))
    acuity = trainer.draw(0).acuity[:, 0]
    assert bool((acuity[:, 48, 48] == 1).all())
    assert bool((acuity[:, 11, 11] == 1).all())  # deepest inside the upper 24 rows, the first of its row
    assert bool((acuity[:, 80, 80] == 0).all())


@pytest.mark.parametrize(("name", "max_fixations"), [("disc", 8), ("pyramid", 8), ("patches", 8), ("two_spot", 8)])
def test_processes_share_out_the_same_batch(tmp_path: Path, name: str, max_fixations: int) -> None:
    more: dict[str, Any] = {"jitter": True, "oblong_share": 0.5, "scale": (0.1, 1.0)}
    options, pool = config(tmp_path, retinas={name: {}}, max_fixations=max_fixations, **more), noise_pool(objects=True)
    whole = Trainer(options, pool)
    parts = [Trainer(options, pool, ProcessGroup(rank, 4)) for rank in range(4)]
    for step in range(3):
        expected = whole.draw(step)
        shared = [part.draw(step) for part in parts]
        for field in vars(expected):
            assert torch.equal(torch.cat([getattr(part, field) for part in shared]), getattr(expected, field))


@pytest.mark.parametrize(("network", "options"), [("unet", SMALL), ("lean", {"width": 8, "code": 16, "neck": (8, 8)})])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, network: str, options: dict[str, Any]) -> None:
    both: dict[str, Any] = {"network": network, "network_options": options, "jitter": True}
    whole = Trainer(config(tmp_path / "whole", **both), ramp_pool())
    for _ in range(6):
        whole.train_step()
    first = Trainer(config(tmp_path / "cut", **both), ramp_pool())
    for _ in range(3):
        first.train_step()
    first.save()
    second = Trainer(config(tmp_path / "cut", resume=True, **both), ramp_pool())
    assert second.step == 3 and second.images == 24 and second.elapsed_s == pytest.approx(first.elapsed_s)
    assert second.changes == []
    for _ in range(3):
        second.train_step()
    whole.save()
    second.save()
    expected, found = (read_tensors(trainer.checkpoint)[0] for trainer in (whole, second))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_resumed_run_says_what_it_does_otherwise(tmp_path: Path) -> None:
    Trainer(config(tmp_path), ramp_pool()).save()
    assert Trainer(config(tmp_path, resume=True, lr=1e-3, threads=1), ramp_pool()).changes == ["lr 0.004 → 0.001"]


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    Trainer(config(tmp_path), ramp_pool()).save()
    with pytest.raises(WeightsError, match="resume"):
        Trainer(config(tmp_path), ramp_pool())
    with pytest.raises(WeightsError, match="does not fit"):
        Trainer(config(tmp_path, resume=True, network_options={"widths": (8, 8, 8)}), ramp_pool())
    with pytest.raises(WeightsError, match="of the network 'unet', this run's is 'lean'"):
        Trainer(config(tmp_path, resume=True, network="lean", network_options={}), ramp_pool())
    with pytest.raises(WeightsError, match=r"no checkpoint .*new.* without resume"):
        Trainer(config(tmp_path / "new", resume=True), ramp_pool())


def test_speed_leaves_out_the_first_step_which_may_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: Trainer) -> torch.Tensor:
        first = self.step == 0
        self.step, self.images = self.step + 1, self.images + self.config.batch
        self.elapsed_s += 10.0 if first else 0.5
        self.pipeline_s += 9.0 if first else 0.05
        return torch.tensor(0.1)

    monkeypatch.setattr(Trainer, "train_step", step)
    train(config(tmp_path, steps=6), ramp_pool())
    assert "16 images/s (pipeline 10%)" in capsys.readouterr().out  # 8 images in 0.5 s


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64])
def test_a_damaged_checkpoint_is_said(tmp_path: Path, content: bytes) -> None:
    trainer = Trainer(config(tmp_path), ramp_pool())
    trainer.save()
    trainer.checkpoint.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated"):
        Trainer(config(tmp_path, resume=True), ramp_pool())


def test_only_a_network_of_the_same_form_can_be_started_from(tmp_path: Path) -> None:
    network = make_network("unet", **SMALL)
    for parameter in network.parameters():
        parameter.data.fill_(0.25)
    save_network(tmp_path / "own.safetensors", network, {})
    started = Trainer(config(tmp_path, start_from=str(tmp_path / "own.safetensors")), ramp_pool())
    assert all(bool((parameter == 0.25).all()) for parameter in started.parameters.values())
    assert all(bool((value == 0.25).all()) for value in started.ema.values())
    with pytest.raises(WeightsError, match="start_from"):
        other = {"network_options": {"widths": (8, 8, 8)}, "start_from": str(tmp_path / "own.safetensors")}
        Trainer(config(tmp_path / "x", **other), ramp_pool())


def test_a_smaller_network_grows_into_a_larger_one_that_predicts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = make_network("unet", widths=(16, 16, 16), blocks=(0, 0, 1), std=False).eval()
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_network(tmp_path / "small.safetensors", small, {}, dtype="float32")
    options = {"widths": (24, 32, 48), "blocks": (1, 1, 2)}
    grown = Trainer(
        config(tmp_path, network_options=options, start_from=str(tmp_path / "small.safetensors")), ramp_pool()
    )
    image, acuity = torch.rand(2, 3, 48, 48), (torch.rand(2, 1, 48, 48) > 0.5).float()
    with torch.no_grad():
        expected, found = small(image, acuity), grown.network.eval()(image, acuity)
    assert expected.std is None and found.std is not None
    assert expected.image.std() > 0.05
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-5)


def test_it_learns_how_sure_it_can_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = np.full((64, 32, 32, 3), 128, np.uint8)
    images[:, :, 16:] = rng.integers(0, 256, (64, 32, 16, 3))  # uniform noise: a standard deviation of 0.29
    run = config(tmp_path, size=32, crops=False, mirror=False, steps=150, retinas={"disc": {"hidden_ratio": 0.8}})
    trainer = Trainer(run, ImagePool.of(images))
    for _ in range(150):
        trainer.train_step()
    batch = trainer.draw(200)
    with torch.no_grad():
        std = trainer.network.eval()(batch.image, batch.acuity).std
    assert std is not None
    hidden = batch.acuity < 1
    assert std[..., 18:][hidden[..., 18:]].mean().item() == pytest.approx(255 / 256 / 12**0.5, abs=0.05)
    assert std[..., :14][hidden[..., :14]].mean() < 0.08


def test_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=1000, lr=1.0), ramp_pool())
    rates = []
    for step in range(1001):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates[15] == pytest.approx(0.5) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[31:]))
    constant = Trainer(config(tmp_path, steps=1000, lr=0.5, schedule="constant"), ramp_pool())
    for step in (0, 500, 1000):
        constant.step = step
        assert constant.learning_rate() == 0.5


def test_budgets(tmp_path: Path) -> None:
    epochs = Trainer(config(tmp_path, steps=None, epochs=10.0), ramp_pool())
    assert epochs.steps == 5  # 4 images, 8 at a time
    timed = Trainer(config(tmp_path, steps=None, minutes=2.0), ramp_pool())
    timed.elapsed_s = 30.0
    assert timed.progress == 0.25


def test_the_average_and_the_weights_change_places_only_for_a_while(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), ramp_pool())
    for _ in range(3):
        trainer.train_step()
    own = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    with pytest.raises(ZeroDivisionError), trainer.averaged() as network:
        assert all(torch.equal(value, trainer.ema[name]) for name, value in network.named_parameters())
        assert not all(torch.equal(value, own[name]) for name, value in network.named_parameters())
        raise ZeroDivisionError
    assert all(torch.equal(value, own[name]) for name, value in trainer.parameters.items())


def test_the_moving_average_in_closed_form(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, ema_decay=0.5), ramp_pool())
    name = next(iter(trainer.parameters))
    average = trainer.parameters[name].detach().clone()
    for step in range(6):
        trainer.train_step()
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * trainer.parameters[name].detach()
    torch.testing.assert_close(trainer.ema[name], average)


def test_validation_looks_the_same_each_time_and_reads_the_average(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), ramp_pool())
    images = np.random.default_rng(0).integers(0, 256, (11, 48, 48, 3), dtype=np.uint8)
    before = trainer.validation_loss(images)
    assert trainer.validation_loss(images) == before and math.isfinite(before)
    with torch.no_grad():
        trainer.parameters["stem.weight"].add_(1.0)
    assert trainer.validation_loss(images) == before
    with torch.no_grad():
        for value in trainer.ema.values():
            value.add_(0.1)
    assert trainer.validation_loss(images) != before


def test_pictures_are_the_same_each_time_and_of_every_eye(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, retinas={"disc": {}, "patches": {}}), ramp_pool())
    for place in range(2):
        one, two = trainer.sample(3, place), trainer.sample(3, place)
        assert torch.equal(one.image, two.image) and one.image.shape == (3, 3, 48, 48)
    target = trainer.sample(3, 0, ramps(2)).target
    assert torch.equal(target, torch.from_numpy(ramps(2)).permute(0, 3, 1, 2).float() / 255)


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    assert ProcessGroup(1, 3).part(6) == slice(2, 4)
    with pytest.raises(InvalidValueError, match="multiple of the 3 processes; got 7"):
        ProcessGroup(0, 3).part(7)
