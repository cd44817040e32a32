from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from foveasim.agents.mim.figures import Bar, Curve, accuracies_figure, confusion_figure, curves_figure
from foveasim.errors import InvalidValueError


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None and min(image.shape[:2]) > 200
    return np.asarray(image[:, :, ::-1])


def share_of(image: np.ndarray, colour: str) -> float:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image.astype(int) - wanted).max(2) <= 3).mean())


def test_confusion_shows_the_diagonal(tmp_path: Path) -> None:
    perfect, wrong = np.eye(4, dtype=np.int64) * 10, np.roll(np.eye(4, dtype=np.int64), 1, 1) * 10
    pictures = []
    for name, counts in (("perfect", perfect), ("wrong", wrong)):
        confusion_figure(tmp_path / f"{name}.png", counts, ["a", "b", "c", "d"], name)
        pictures.append(read(tmp_path / f"{name}.png"))
    yellow = "#FDE725"  # viridis at 1
    assert all(share_of(picture, yellow) > 0.05 for picture in pictures)
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_confusion_of_many_classes_and_an_absent_one(tmp_path: Path) -> None:
    counts = np.zeros((60, 60), np.int64)
    counts[0, 1] = 3
    confusion_figure(tmp_path / "many.png", counts, [str(i) for i in range(60)])
    assert share_of(read(tmp_path / "many.png"), "#440154") > 0.3  # viridis at 0


def test_accuracies_are_as_high_as_they_are(tmp_path: Path) -> None:
    accuracies_figure(tmp_path / "low.png", [Bar("a", 0.2, 0.1, 0.3), Bar("b", 0.8, 0.7, 0.9)])
    accuracies_figure(tmp_path / "high.png", [Bar("a", 0.8, 0.7, 0.9), Bar("b", 0.8, 0.7, 0.9)])
    blue = "#0072B2"
    low, high = (share_of(read(tmp_path / f"{name}.png"), blue) for name in ("low", "high"))
    assert low / high == pytest.approx((0.2 + 0.8) / (0.8 + 0.8), rel=0.06)  # the lines of the intervals cover some
    accuracies_figure(tmp_path / "chance.png", [Bar("a", 0.8, 0.7, 0.9), Bar("b", 0.8, 0.7, 0.9)], chance=0.5)
    assert share_of(read(tmp_path / "chance.png"), blue) < 0.999 * high  # crossed by the line


def test_curves(tmp_path: Path) -> None:
    curves = [Curve("one", [0, 1], [0.0, 1.0], [0.1, 0.1]), Curve("floor", [0, 1], [0.5, 0.5], dashed=True)]
    single = [Curve("one", [0], [float("nan")]), Curve("two", [0, 1], [1.0, 0.0])]
    curves_figure(tmp_path / "curves.png", {"first": curves, "second": single, "third": curves}, "images")
    picture = read(tmp_path / "curves.png")
    assert share_of(picture, "#0072B2") > 0.001 and share_of(picture, "#D55E00") > 0.0005


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with pytest.raises(InvalidValueError, match="counts must be"):
        confusion_figure(path, np.zeros((2, 3), np.int64), ["a", "b"])
    with pytest.raises(InvalidValueError, match="bars must have"):
        accuracies_figure(path, [])
    with pytest.raises(InvalidValueError, match="bars must have"):
        accuracies_figure(path, [Bar("a", 0.5, 0.6, 0.7)])
    with pytest.raises(InvalidValueError, match="as many x as y"):
        Curve("a", [1.0], [1.0, 2.0])
    with pytest.raises(InvalidValueError, match="at least one"):
        Curve("a", [], [])
    with pytest.raises(InvalidValueError, match="panels"):
        curves_figure(path, {}, "x")
    with pytest.raises(InvalidValueError, match=r"end in \.png"):
        curves_figure(tmp_path / "x.pdf", {"a": [Curve("a", [1.0], [1.0])]}, "x")
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_late_and_without_a_window() -> None:
    code = (
        "import sys, foveasim.agents.mim.figures, foveasim.agents.mim.readout, foveasim.agents.mim.latent;"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
