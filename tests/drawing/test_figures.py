from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from foveasim.drawing.figures import (
    Bar,
    Curve,
    Style,
    accuracies_figure,
    confusion_figure,
    curves_figure,
    panels_figure,
)
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


def test_curves_in_their_own_style_and_a_logarithmic_panel(tmp_path: Path) -> None:
    falling = Curve("falling", [0, 100_000], [1.0, 0.01], style=Style("#009E73", "--", "s"))
    pictures = []
    for logarithmic in ((), ("a",)):
        curves_figure(tmp_path / "x.png", {"a": [falling]}, "images", logarithmic=logarithmic)
        pictures.append(read(tmp_path / "x.png"))
    assert all(share_of(picture, "#009E73") > 0.0005 for picture in pictures)
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()


def test_panels_show_rows_of_bars_with_their_lines(tmp_path: Path) -> None:
    bars = [Bar("a", 0.5, 0.45, 0.55, [0.48, 0.52], 0.6, Style("#009E73")), Bar("b", 0.5, 0.5, 0.5)]
    rows = {"one": {"left": bars, "right": bars[1:]}, "two": {"left": [bars[0], None], "right": bars[1:]}}
    panels_figure(tmp_path / "bare.png", rows, {}, labels={})
    bare = read(tmp_path / "bare.png")
    blue, green = share_of(bare, "#0072B2"), share_of(bare, "#009E73")
    assert blue / green == pytest.approx(3 / 2, rel=0.1)  # 3 bars against 2 with dots on them
    floors = {"one": {"chance": 0.1, "pixels": 0.3, "random": 0.3}, "two": {"chance": 0.1}}
    panels_figure(tmp_path / "lines.png", rows, floors, labels={"dots": "a seed", "mark": "elsewhere"})
    line = "#262626"
    assert share_of(read(tmp_path / "lines.png"), line) > share_of(bare, line) + 0.002


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with pytest.raises(InvalidValueError, match="counts must be"):
        confusion_figure(path, np.zeros((2, 3), np.int64), ["a", "b"])
    with pytest.raises(InvalidValueError, match="bars must have"):
        accuracies_figure(path, [])
    with pytest.raises(InvalidValueError, match="bars must have"):
        accuracies_figure(path, [Bar("a", 0.5, 0.6, 0.7)])
    with pytest.raises(InvalidValueError, match="rows must be"):
        panels_figure(path, {"a": {"p": [Bar("a", 0.5, 0.5, 0.5)]}, "b": {"q": [None]}}, {}, labels={})
    with pytest.raises(InvalidValueError, match="rows must be"):
        panels_figure(path, {}, {}, labels={})
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
        "import sys, foveasim.drawing.figures, foveasim.agents.readout.command, foveasim.agents.readout.latent;"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
