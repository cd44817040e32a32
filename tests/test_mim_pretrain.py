from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim import belief as beliefs
from foveasim.agents.mim import evaluate as evaluation_module
from foveasim.agents.mim import pretrain
from foveasim.agents.mim.data import ImagePool
from foveasim.agents.mim.evaluate import evaluate
from foveasim.agents.mim.eyes import as_scene, draw_fixations, look
from foveasim.agents.mim.files import load_network, read_card
from foveasim.agents.mim.network import make_network, to_float
from foveasim.agents.mim.pretrain import PretrainConfig, Trainer, run
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.retina import make_retina

SMALL: dict[str, Any] = {"widths": (16, 16, 16), "blocks": (0, 0, 1)}


def noise(lanes: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (lanes, *size, 3), dtype=np.uint8)


def ramps(count: int = 4) -> np.ndarray:
    """Scenes whose hidden part follows from any visible part: grey levels rising from left to right."""
    row = np.linspace(0, 255, 48).astype(np.uint8)
    return np.broadcast_to(row[None, None, :, None], (count, 48, 48, 3)).copy()


def ramp_pool() -> ImagePool:
    images = ramps()
    return ImagePool(tuple(images), tuple("abcd"), np.zeros(4, np.int64))


def config(out: Path, **changes: Any) -> PretrainConfig:
    values: dict[str, Any] = {
        "data": ["unused"],
        "out": str(out),
        "network_options": SMALL,
        "size": 48,
        "batch": 8,
        "steps": 6,
        "scale": (0.8, 1.0),
        "lr": 4e-3,
    }
    return PretrainConfig(**{**values, **changes})


@pytest.mark.parametrize("name", ["disc", "pyramid", "patches"])
def test_look_equals_one_lane_at_a_time(name: str) -> None:
    image, retina = noise(4), make_retina(name)
    scene = as_scene(image)
    points = draw_fixations(np.random.default_rng(1), 4, 5, (48, 64), 0.5)
    count = np.array([2, 5, 1, 3])
    together = look(scene, retina, points, count)
    if retina.needs_key:  # what is drawn goes by the lane's place among those still looking
        assert bool((together.acuity > 0).any()) and bool((together.acuity == 0).any())
        return
    for lane in range(4):
        alone = beliefs.empty(1, (48, 64))
        for step in range(count[lane]):
            fixation = torch.from_numpy(points[lane : lane + 1, step])
            alone = beliefs.integrate(alone, retina(as_scene(image[lane : lane + 1]), fixation))
        assert torch.equal(together.image[lane], alone.image[0])
        assert torch.equal(together.acuity[lane], alone.acuity[0])


def test_look_refuses_counts_out_of_range() -> None:
    for count in (np.array([0]), np.array([3]), np.array([1, 1])):
        with pytest.raises(InvalidValueError, match="from 1 to 2"):
            look(as_scene(noise(1)), make_retina("disc"), np.zeros((1, 2, 2), np.float32), count)


def test_fixations_cover_the_scene_and_walks_stay_central() -> None:
    size = (50, 100)
    uniform = draw_fixations(np.random.default_rng(0), 2000, 4, size, 0.0)
    walk = draw_fixations(np.random.default_rng(0), 2000, 4, size, 1.0)
    for points in (uniform, walk):
        assert points.min() >= 0 and (points <= [100, 50]).all()
    # uniform on [0, w] has mean w / 2 and standard deviation w / sqrt(12)
    np.testing.assert_allclose(uniform.reshape(-1, 2).std(0), np.array([100, 50]) / 12**0.5, rtol=0.03)
    np.testing.assert_allclose(walk.reshape(-1, 2).mean(0), [50, 25], rtol=0.03)
    assert (walk[:, 0].std(0) < uniform[:, 0].std(0)).all()
    again = draw_fixations(np.random.default_rng(0), 2000, 4, size, 1.0)
    assert (walk == again).all()


def test_untrained_lean_has_relative_error_one() -> None:
    found = evaluate(make_network("lean", **SMALL), noise(6, (48, 48)), make_retina("disc"), (1, 3), repeats=2)
    assert found.relative == pytest.approx((1.0, 1.0))
    assert found.mse == pytest.approx(found.fill_mse)
    assert found.images == 12
    assert found.hidden[0] > found.hidden[1] > 0.2
    assert "3 fixations: relative error 1.000" in str(found)


class _Oracle(torch.nn.Module):
    """Knows the scene: relative error 0. Knows it with an error of 0.1: mse 0.01."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: torch.Tensor, acuity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full_like(image, 100 / 255 + self.error), image


def test_relative_error_in_closed_form() -> None:
    images = np.full((3, 48, 48, 3), 100, np.uint8)
    images[:, 24:, 24:] = 200  # something for the filling to be wrong about
    perfect = np.full((3, 48, 48, 3), 100, np.uint8)
    oracle: Any = _Oracle(0.1)
    found = evaluate(oracle, perfect, make_retina("disc"), (1,))
    assert found.mse == pytest.approx((0.01,), rel=1e-4)
    assert found.fill_mse == pytest.approx((0.0,), abs=1e-9)
    oracle = _Oracle(0.0)
    assert evaluate(oracle, images, make_retina("disc"), (1,)).relative[0] > 0


def test_evaluation_repeats_and_refuses_nothing_to_do() -> None:
    network = make_network("lean", **SMALL)
    one, two = (evaluate(network, noise(3, (48, 48)), make_retina("disc"), (2,), seed=5) for _ in range(2))
    assert one == two
    with pytest.raises(InvalidValueError, match="at least 1"):
        evaluate(network, noise(0, (48, 48)), make_retina("disc"))
    with pytest.raises(InvalidValueError, match="at least 1"):
        evaluate(network, noise(1, (48, 48)), make_retina("disc"), (0,))


def test_it_learns_what_can_be_learned(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=120, batch=16, lr=8e-3, retinas={"disc": {}}), ramp_pool())
    while trainer.progress < 1:
        trainer.train_step()
    found = evaluate(trainer.network, ramps(), make_retina("disc"), (1, 4))
    assert max(found.relative) < 0.5  # 1 is the visible mean, 0 is perfect
    with trainer.averaged() as network:
        assert evaluate(network, ramps(), make_retina("disc"), (1,)).relative[0] < 0.5


def test_batches_hide_what_the_loss_asks_for(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, oblong_share=0.5, retinas={"disc": {"hidden_ratio": 0.8}}), ramp_pool())
    shapes = set()
    for step in range(8):
        image, acuity, target = trainer.draw(step)
        shapes.add(tuple(image.shape[2:]))
        sharp = (acuity == 1).expand_as(image)
        assert torch.equal(image[sharp], target[sharp])
        assert not torch.equal(image[~sharp], target[~sharp])
        assert image.shape == target.shape == (8, 3, *acuity.shape[2:])
    assert shapes == {(48, 48), (48, 64), (64, 48)}
    for a, b in zip(trainer.draw(3), trainer.draw(3), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = Trainer(config(tmp_path / "whole"), ramp_pool())
    for _ in range(6):
        whole.train_step()
    first = Trainer(config(tmp_path / "cut"), ramp_pool())
    for _ in range(3):
        first.train_step()
    first.save()
    second = Trainer(config(tmp_path / "cut", resume=True), ramp_pool())
    assert second.step == 3 and second.images == 24 and second.elapsed_s == pytest.approx(first.elapsed_s)
    for _ in range(3):
        second.train_step()
    for name, parameter in whole.parameters.items():
        torch.testing.assert_close(second.parameters[name], parameter, rtol=0, atol=1e-7)
        torch.testing.assert_close(second.ema[name], whole.ema[name], rtol=0, atol=1e-7)


def test_an_earlier_run_is_not_overwritten(tmp_path: Path) -> None:
    Trainer(config(tmp_path), ramp_pool()).save()
    with pytest.raises(WeightsError, match="resume"):
        Trainer(config(tmp_path), ramp_pool())
    with pytest.raises(WeightsError, match="does not fit"):
        Trainer(config(tmp_path, resume=True, network_options={"widths": (8, 8, 8)}), ramp_pool())
    with pytest.raises(WeightsError, match="no weights file"):
        Trainer(config(tmp_path / "new", resume=True), ramp_pool())


def test_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, steps=1000, lr=1.0), ramp_pool())
    rates = []
    for step in range(1001):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates[15] == pytest.approx(0.5) and max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[31:]))


def test_run_writes_everything_and_starts_from_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, image in enumerate(noise(12, (60, 70))):
        assert cv2.imwrite(str(tmp_path / f"{i:02d}.png"), image)
    out = tmp_path / "out"
    arguments = [
        f"--data=['{tmp_path}@train']",
        f"--validate=['{tmp_path}@val']",
        f"--out={out}",
        f"--network_options={json.dumps(SMALL)}",
        "--steps=2",
        "--size=48",
        "--batch=4",
        "--validate_minutes=0.000001",
        "--checkpoint_minutes=0.000001",
        "--licence=made for the test",
    ]
    pretrain.main(arguments)
    assert {p.name for p in out.iterdir()} == {
        "checkpoint.safetensors",
        "lean.md",
        "lean.safetensors",
        "log.jsonl",
        "pictures.png",
    }
    card = read_card(out / "lean.safetensors")
    assert card["trained_on"] == [f"{tmp_path.name}@train"] and card["steps"] == 2 and card["images_seen"] == 8
    assert str(tmp_path) not in json.dumps(card) and "made for the test" in (out / "lean.md").read_text()
    assert "relative_error_8" in (out / "log.jsonl").read_text()
    picture = cv2.imread(str(out / "pictures.png"))
    assert picture is not None and picture.shape == (2 * 48, 6 * 48, 3)
    image, acuity = to_float(torch.zeros(1, 48, 48, 3, dtype=torch.uint8), torch.zeros(1, 48, 48, dtype=torch.uint8))
    assert load_network(out / "lean.safetensors")(image, acuity)[0].shape == image.shape
    pretrain.main([*arguments, "--resume=true"])  # done already: only writes the results again
    capsys.readouterr()
    evaluation_module.main([f"--weights={out / 'lean.safetensors'}", f"--data=['{tmp_path}@test']", "--size=48"])
    assert "8 fixations: relative error" in capsys.readouterr().out
    before = load_network(out / "lean.safetensors").state_dict()
    evaluation_module.main(
        [
            f"--weights={out / 'lean.safetensors'}",
            f"--data=['{tmp_path}@test']",
            "--size=48",
            "--fixations=[2]",
            "--update_card=true",
        ]
    )
    card = read_card(out / "lean.safetensors")
    assert card["steps"] == 2 and list(card["test"]) == ["2"] and card["tested_on"] == [f"{tmp_path.name}@test"]
    assert f"Test: {tmp_path.name}@test" in (out / "lean.md").read_text()
    for name, value in load_network(out / "lean.safetensors").state_dict().items():
        assert torch.equal(value, before[name])
    other = config(tmp_path / "other", start_from=str(out / "lean.safetensors"))
    started = Trainer(other, ramp_pool())
    assert torch.equal(
        started.parameters["stem.weight"], load_network(out / "lean.safetensors").state_dict()["stem.weight"]
    )
    with pytest.raises(WeightsError, match="start_from"):
        Trainer(
            config(tmp_path / "x", start_from=str(out / "lean.safetensors"), network_options={"widths": (8, 8, 8)}),
            ramp_pool(),
        )


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foveasim.agents.mim import progress

    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    trainer = Trainer(config(tmp_path), ramp_pool())
    with (
        progress.TrainingLog(tmp_path) as log,
        pytest.raises(InvalidValueError, match="lower lr"),
    ):
        log.step(trainer, torch.tensor(float("nan")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 5.0}, "one of the two"),
        ({"steps": None}, "one of the two"),
        ({"steps": 0}, "steps"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"size": 16}, "size"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"walk_share": 1.5}, "walk_share"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"retinas": {}}, "at least one retina"),
        ({"retina_shares": [1.0]}, "for each of disc, pyramid"),
        ({"seed": -1}, "seed"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        config(tmp_path, **changes)


def test_run_needs_data(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="at least one folder"):
        run(config(tmp_path, data=[]))
