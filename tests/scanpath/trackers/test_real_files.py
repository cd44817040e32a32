"""Eye trackers' files as they are written: real, shortened ones; values are worked out by hand from their text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveasim import read_scanpaths
from foveasim.errors import InvalidValueError
from foveasim.scanpath.scanpath import Scanpath
from foveasim.types import Frame


def seen_in(path: Scanpath, size: tuple[int, int], scale: float) -> bool:
    """Whether a scanpath's frame has a size, and a degree of so many px."""
    frame = path.frame
    return frame is not None and frame.size == size and frame.px_per_deg == pytest.approx(scale)


@pytest.fixture(scope="session")
def real(shared_data: Path) -> Path:
    folder = shared_data / "trackers"
    if not folder.is_dir():
        pytest.skip("no data packs of eye trackers")
    return folder


def points(paths: list[Scanpath]) -> list[list[float]]:
    return [[round(value, 2) for value in point] for path in paths for point in path.fixation_px.tolist()]


def test_a_real_eyelink_file_of_one_eye(real: Path) -> None:
    paths = read_scanpaths(real / "eyelink_monocular.asc")
    # EFIX L 2154563 2154695 133 141.0 132.2, after TRIALID 1 at 2154562; EFIX L 2339246 2339290 45 638.5 531.8
    assert [(p.subject, p.trial, p.onset_ms.tolist(), p.duration_ms.tolist()) for p in paths] == [
        ("sub_1", "1", [2154563.0], [133.0]),
        ("sub_1", "3", [2339246.0], [45.0]),
    ]
    assert points(paths) == [[141.0, 132.2], [638.5, 531.8]]
    # GAZE_COORDS 0 0 1279 1023; END ... RES 37.17 37.75
    assert all(seen_in(path, (1024, 1280), 37.46) for path in paths)


@pytest.mark.parametrize(
    ("eye", "lasts", "places"),
    [
        ("left", [107.0, 129.0], [[961.2, 540.5], [959.6, 533.7]]),
        ("right", [111, 129], [[956.3, 541.9], [945.6, 539.6]]),
    ],
)
def test_a_real_eyelink_file_of_both_eyes(real: Path, eye: Any, lasts: list[float], places: list[list[float]]) -> None:
    file = real / "eyelink_binocular.asc"
    before, trial = read_scanpaths(file, eye=eye)
    assert (before.trial, trial.trial, trial.subject) == ("", "I902C_low", "sub_6")
    assert [*before.duration_ms.tolist(), *trial.duration_ms.tolist()] == lasts
    assert points([before, trial]) == places
    assert seen_in(trial, (1080, 1920), 46.835)
    assert [p.trial for p in read_scanpaths(file, eye=eye, trial_message=r"start_trial (\d+)")] == ["", "0"]
    with pytest.raises(InvalidValueError, match=r"both eyes; give eye='left' or eye='right'"):
        read_scanpaths(file)


def test_a_real_eyelink_files_samples_give_its_fixations(real: Path) -> None:
    parsed = read_scanpaths(real / "eyelink_binocular.asc", eye="left")
    found = read_scanpaths(real / "eyelink_binocular.asc", eye="left", fixations="ivt")
    for one, other in zip(parsed, found, strict=True):
        assert abs(float(one.onset_ms[0] - other.onset_ms[0])) <= 10
        assert np.abs((one.fixation_px - other.fixation_px).numpy()).max() < 1


def test_real_tobii_studio_fixations(real: Path) -> None:
    (path,) = read_scanpaths(real / "tobii_studio_fixations.tsv")
    assert (path.subject, path.trial, len(path)) == ("P01", "Rec 62", 1482)
    # 19 154 550 550 453 · 20 703 550 616 453 … 1500 697150 0 100 71; Screen resolution: 1280 x 1024
    assert path.fixation_px[[0, 1, -1]].tolist() == [[550, 453], [616, 453], [100, 71]]
    assert path.onset_ms[[0, 1, -1]].tolist() == [154, 703, 697150]
    assert path.duration_ms[[0, 1, -1]].tolist() == [550, 550, 0]
    assert path.frame == Frame((1024, 1280))
    assert int(path.outside().sum()) == 20
    assert len(read_scanpaths(real / "tobii_studio_fixations.tsv", outside="drop")[0]) == 1462
    with pytest.raises(InvalidValueError, match=r"20 of 1482 fixations lie outside.*outside='drop'"):
        read_scanpaths(real / "tobii_studio_fixations.tsv", outside="error")


def test_real_tobii_studio_samples_without_a_fixation(real: Path) -> None:
    assert read_scanpaths(real / "tobii_studio_all_data.tsv") == []


def test_real_begaze_events(real: Path) -> None:
    (path,) = read_scanpaths(real / "begaze_events.txt", eye="right")
    assert (path.image, path.subject, path.trial, len(path)) == ("S67-scrrec.avi", "S67", "1", 56)
    # Fixation R,1,1,167531377718,167531619504,241786,951.83,791.40 … 1,56,167554605710,…,700840,841.61,569.27
    assert points([path])[0] == [951.83, 791.4] and points([path])[-1] == [841.61, 569.27]
    assert path.onset_ms[[0, -1]].tolist() == [167531377.718, 167554605.71]
    assert path.duration_ms[[0, -1]].tolist() == [241.786, 700.84]
    assert path.frame is None
