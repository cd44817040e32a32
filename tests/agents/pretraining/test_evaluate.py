from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim.agents.pretraining.evaluate import EvaluateConfig, run
from foveasim.cli.commands import main
from foveasim.errors import InvalidValueError, SceneError
from foveasim.images.reading import read_pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(2):
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    return tmp_path / "images"


def config(folder: Path, **changes: Any) -> EvaluateConfig:
    return EvaluateConfig(**({"data": str(folder), "size": 32, "repeats": 1, "fixations": [1]} | changes))


@pytest.mark.parametrize("retina", ["disc", "pyramid", "patches", "multiscale"])
def test_every_retina_works_with_the_default_options(folder: Path, retina: str) -> None:
    assert run(config(folder, retina=retina)).images == 2


def test_only_disc_hides_a_share_by_default(folder: Path) -> None:
    assert run(config(folder)) == run(config(folder, retina_options={"hidden_ratio": 0.8}))
    assert run(config(folder)) != run(config(folder, retina_options={"hidden_ratio": 0.5}))


def test_the_first_fixation_may_be_the_centre(folder: Path) -> None:
    centred = [run(config(folder, start="centre", seed=seed)).mse for seed in (0, 1)]
    assert centred[0] == centred[1] != run(config(folder)).mse
    later = [run(config(folder, start="centre", seed=seed, fixations=[2])).mse for seed in (0, 1)]
    assert later[0] != later[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "repeats must be a whole number from 1"),
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"retina": "full"}, "after 1 fixations 'full' hides nothing"),
        ({"size": 8}, "size must be"),
        ({"device": "gpu"}, "device must be one that is there; got 'gpu'. Use --device cpu"),
        ({"start": "middle"}, "start must be 'random' or 'centre'; got 'middle'"),
        ({"data": []}, "data must name at least one"),
        ({"data": ""}, "data must name at least one"),
    ],
)
def test_what_cannot_be_used_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        run(config(folder, **changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs no accelerator")
def test_a_missing_accelerator_is_said(folder: Path) -> None:
    with pytest.raises(InvalidValueError, match="got 'cuda'"):
        run(config(folder, device="cuda"))


@pytest.mark.parametrize("content", [b"just text", b"", b"\x1f\x8b\x08\x00 cut off"])
def test_a_file_that_is_no_archive_is_one_clear_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(SceneError, match=r"notes\.txt"):
        read_pool(str(tmp_path / "notes.txt"))
    assert main(["evaluate", "unet", "--data", str(tmp_path / "notes.txt")]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "notes.txt" in printed


def test_a_folder_given_once_on_the_command_line_is_a_list_of_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(folder), "--size", "32", "--repeats", "1", "--fixations", "[1]", "--retina", "window"]
    assert main(["evaluate", *words]) == 0
    assert "1 fixations" in capsys.readouterr().out
