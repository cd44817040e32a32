from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import pytest
import torch

from foveasim.agents.mim import make_network, save_network

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
def test_eight_glimpses(tmp_path: Path, retina: str) -> None:
    program = runpy.run_path(str(EXAMPLES / "eight_glimpses.py"))
    program["main"](program["Config"](out=str(tmp_path / "look.png"), retina=retina, fixations=3))
    picture = cv2.imread(str(tmp_path / "look.png"))
    assert picture is not None and picture.shape[1] > 300 and picture.std() > 20


def test_my_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    program = runpy.run_path(str(EXAMPLES / "my_agent.py"))
    assert program["main"](scenes=2, out=str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "keeps the contract" in said and "mine" in said
    assert (tmp_path / "report.html").is_file()


def test_classify_with_glimpses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("stable_baselines3")
    network = str(tmp_path / "net.safetensors")
    with torch.random.fork_rng():
        save_network(network, make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {}, dtype="float32")
        program = runpy.run_path(str(EXAMPLES / "classify_with_glimpses.py"))
        out = str(tmp_path / "glimpses.png")
        options = {"steps": 128, "lanes": 8, "budget": 2, "episodes": 8, "size": 48, "network": network, "out": out}
        program["main"](program["Options"](**options))
    assert capsys.readouterr().out.count("stopping when sure") == 2
    assert cv2.imread(out) is not None
