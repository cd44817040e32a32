"""The presets that ship, and how the command line takes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from foveasim.agents.pretraining.config import PRESETS, PretrainConfig
from foveasim.agents.pretraining.trainer import Trainer
from foveasim.cli.commands import COMMANDS, _parse, main
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.images.pool import ImagePool

LEAN: dict[str, Any] = {"network": "lean", "network_options": {"width": 8, "code": 8, "neck": (8, 8)}}
PAPER = (
    *("random_patches", "random_patches_blurry", "random_patches_object", "periphery", "periphery_blurry"),
    *("periphery_no_crops", "periphery_jitter", "periphery_crops_jitter", "periphery_object"),
    *("periphery_published_fill", "fovea_filter", "autoencoder", "covert_random", "covert_object"),
)


def pool() -> ImagePool:
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    mask = np.zeros((48, 48), np.uint8)
    mask[10:30, 10:30] = 255
    return ImagePool.of(images, objects=[mask] * 4)


def parsed(*words: str) -> PretrainConfig:
    config: PretrainConfig = _parse("pretrain", COMMANDS["pretrain"], list(words))
    return config


def test_every_condition_of_the_paper_has_a_preset() -> None:
    assert {f"paper/{name}" for name in PAPER} <= set(PRESETS.names())
    assert "foveasim/best" in PRESETS.names()


@pytest.mark.parametrize("name", PRESETS.names())
def test_a_step_of_every_preset(name: str, tmp_path: Path) -> None:
    values = PRESETS.values(name)
    small: dict[str, Any] = {**LEAN, "size": 48, "batch": 4, "epochs": None, "steps": 2, "out": str(tmp_path)}
    masks = {"masks": "unused"} if name.endswith("_object") else {}
    config = PretrainConfig(**{**values, **small, **masks})
    trainer = Trainer(config, pool())
    before = {key: value.detach().clone() for key, value in trainer.parameters.items()}
    for _ in range(2):
        loss = float(trainer.train_step())
        assert math.isfinite(loss) and loss > 0
    assert any(not torch.equal(value, before[key]) for key, value in trainer.parameters.items())
    batch = trainer.draw(0)
    if config.loss != "all":
        assert bool((batch.weight > 0).any()) and bool((batch.weight <= 1 - batch.acuity).all())
    assert trainer.sample(2, 0).image.shape == (2, 3, 48, 48)


@pytest.mark.parametrize("name", [f"paper/{name}" for name in PAPER])
def test_the_papers_schedule(name: str) -> None:
    values = PRESETS.values(name)
    assert values["network"] == "paper" and values["batch"] == 512 and values["epochs"] == 500
    assert values["optimizer"] == "adam" and values["weight_decay"] == 1e-8 and values["schedule"] == "constant"
    masked_periphery = next(iter(values["retinas"])) in ("disc", "two_spot")
    assert values["lr"] == (1e-4 if masked_periphery else 5e-4)
    assert values["scale"] == [0.08, 1.0] and not values["mirror"]
    assert values["gaze"] == "centre" and values["max_fixations"] == 1
    assert values.get("loss", "hidden") == {"autoencoder": "all"}.get(
        name.removeprefix("paper/"), "object" if name.endswith(("periphery_object", "patches_object")) else "hidden"
    )


def test_what_a_preset_says_is_what_a_run_is_told() -> None:
    for name in PRESETS.names():
        needs = {"masks": "unused"} if name.endswith("_object") else {}
        config = PretrainConfig(**{**PRESETS.values(name), **needs})
        by_command_line = parsed("--preset", name, *(f"--{key}={value}" for key, value in needs.items()))
        assert vars(by_command_line) == vars(config)


@pytest.mark.parametrize("name", ["paper/periphery_object", "paper/random_patches_object", "paper/covert_object"])
def test_presets_that_need_masks_say_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--preset", name, "--data", "somewhere"]) == 1
    assert "foveasim segment" in capsys.readouterr().err


def test_options_override_a_preset_wherever_they_stand(tmp_path: Path) -> None:
    for words in (["--preset", "paper/periphery", "--lr", "1e-3"], ["--lr", "1e-3", "--preset=paper/periphery"]):
        config = parsed(*words)
        assert config.lr == 1e-3 and config.network == "paper" and config.retinas == {"disc": {"hidden_ratio": 0.8}}
    mine = tmp_path / "my.yaml"
    mine.write_text("batch: 64\nretinas:\n  patches: {hidden_ratio: 0.5}\n")
    for words in (
        ["--preset", "paper/periphery", "--config", str(mine)],
        ["--config", str(mine), "--preset", "paper/periphery"],
    ):
        config = parsed(*words, "--data", "a", "--data", "b")
        assert (
            config.batch == 64 and config.optimizer == "adam" and config.retinas == {"patches": {"hidden_ratio": 0.5}}
        )
        assert config.data == ["a", "b"]


def test_another_budget_takes_the_place_of_the_presets() -> None:
    assert parsed("--preset=paper/periphery", "--epochs=null", "--steps=9").steps == 9


def test_an_unknown_preset_lists_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--preset", "nonsense"]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "no preset 'nonsense'" in printed
    assert all(name in printed for name in PRESETS.names())
    for near in ("periphery", "paper/perifery", "paper/Periphery"):
        assert main(["pretrain", f"--preset={near}"]) == 1
        assert "Did you mean 'paper/periphery'?" in capsys.readouterr().err
    with pytest.raises(UnknownNameError, match="foveasim/best"):
        PRESETS.file("best")
    with pytest.raises(UnknownNameError):
        PRESETS.file("../presets/paper/periphery")


def test_a_preset_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--preset", "paper/periphery", "--preset=paper/autoencoder"]) == 1
    assert "once; got paper/periphery and paper/autoencoder" in capsys.readouterr().err
    assert main(["pretrain", "--preset"]) == 1
    assert "followed by a name" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["info", "--preset", "paper/periphery"])
    assert "preset" in capsys.readouterr().err


def test_print_config_shows_what_a_preset_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["pretrain", "--preset", "paper/fovea_filter", "--lr", "3e-4", "--print_config"])
    assert left.value.code == 0
    preset = yaml.safe_load(capsys.readouterr().out)
    assert preset["retinas"] == {"pyramid": {"preset": "paper"}} and preset["lr"] == 3e-4 and preset["epochs"] == 500
    assert set(preset) >= set(PretrainConfig.__dataclass_fields__)
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(preset))
    assert vars(parsed("--config", str(file))) == vars(parsed("--preset=paper/fovea_filter", "--lr=3e-4"))


def test_help_tells_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    printed = capsys.readouterr().out
    assert "--preset NAME" in printed and all(name in printed.replace("\n", " ") for name in PRESETS.names())


def test_a_preset_with_an_unknown_option_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "odd.yaml").write_text("speed: 3\n")
    monkeypatch.setattr(PRESETS, "folder", tmp_path)
    assert PRESETS.names() == ["mine/odd"]
    with pytest.raises(InvalidTypeError, match="'speed'"):
        PRESETS.values("mine/odd")


def test_a_preset_runs_from_the_command_line(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pool().images):
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    small = ["--size=32", "--batch=4", "--epochs=2", "--network=lean", "--threads=1", f"--out={tmp_path / 'out'}"]
    assert main(["pretrain", "--preset=paper/random_patches", f"--data={tmp_path / 'images'}", *small]) == 0
    torch.set_num_threads(threads)
    page = (tmp_path / "out" / "lean.md").read_text()
    assert "2 steps of 4 views" in page and "Adam, lr 0.0005 (constant)" in page
    assert "patches {'hidden_ratio': 0.6}; one fixation at the centre" in page


def test_values_out_of_range_are_refused_in_presets_too() -> None:
    with pytest.raises(InvalidValueError, match="batch"):
        PretrainConfig(**{**PRESETS.values("paper/periphery"), "batch": 0})
