from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
def test_eight_glimpses(tmp_path: Path, retina: str) -> None:
    program = runpy.run_path(str(EXAMPLES / "eight_glimpses.py"))
    program["main"](program["Config"](out=str(tmp_path / "look.png"), retina=retina, fixations=3))
    picture = cv2.imread(str(tmp_path / "look.png"))
    assert picture is not None and picture.shape[1] > 300 and picture.std() > 20
