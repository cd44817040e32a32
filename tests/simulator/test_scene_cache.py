"""The scene cache: scenes that lanes share, what is cached, copies of it, mapped files."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidValueError
from foveasim.eye.retina import Retina, make_retina
from foveasim.images.picture import Picture
from foveasim.scenes.source import ArrayScenes, FittedScenes
from foveasim.simulator.scene_cache import SceneCache

SIZE = (16, 24)
IMAGES = np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3), dtype=np.uint8)
PYRAMID = 6 * IMAGES[0].nbytes
CPU = torch.device("cpu")
COPIES = pytest.mark.parametrize(
    "make_copy", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))], ids=["deepcopy", "pickle"]
)


class Counting(ArrayScenes):
    """Notes which pictures are asked for."""

    def __init__(self, images: Any = IMAGES) -> None:
        super().__init__(images, label=list(range(len(images))))
        self.requested: list[int] = []

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        self.requested.append(index)
        return super().picture(index, time_ms)


def scene_cache(
    source: Any, retina: str | Retina = "pyramid", lanes: int = 3, cache_bytes: int = 1 << 30, **more: Any
) -> SceneCache:
    return SceneCache(source, make_retina(retina), lanes, SIZE, "crop", cache_bytes, CPU, **{"share": True, **more})


def images(made: SceneCache) -> np.ndarray:
    assert made.current is not None
    return made.current.unshared().image.numpy()


@pytest.mark.parametrize("retina", ["pyramid", "disc"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("cache_bytes", [0, 20_000, 1 << 30])
def test_each_lane_has_its_scene_before_it(retina: str, share: bool, cache_bytes: int) -> None:
    made = scene_cache(Counting(), retina, 4, cache_bytes, share=share)
    rng, standing = np.random.default_rng(1), {}
    for turn in range(60):
        lane = int(rng.integers(4)) if turn > 3 else turn
        if turn % 7 == 6:
            image = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            assert made.place_picture(lane, Picture(image, -1, "given", 3.5)) == ("given", -1)
        else:
            index = int(rng.integers(9))
            image = IMAGES[index]
            assert made.place(lane, index) == (f"array {index}", index)
        standing[lane] = image
        for other, expected in standing.items():
            assert np.array_equal(images(made)[other], expected)


def test_a_scene_is_prepared_once_for_all_lanes_and_episodes() -> None:
    source = Counting()
    made = scene_cache(source, lanes=5)
    for _ in range(3):
        for lane in range(5):
            made.place(lane, lane % 2)
    assert source.requested == [0, 1]
    assert made.current is not None
    assert made.current.rows is not None
    assert made.current.rows.tolist() == [0, 1, 0, 1, 0]


def test_the_scene_not_seen_for_longest_makes_room() -> None:
    source = Counting()
    made = scene_cache(source, lanes=2, cache_bytes=6 * PYRAMID + 100)  # half of it is for pyramids: three
    for lane, index in ((0, 0), (1, 1), (0, 2), (0, 3), (0, 2), (1, 3)):
        made.place(lane, index)
    assert made.current is not None
    assert len(made.current.image) == 3
    source.requested.clear()
    made._fitted = FittedScenes(source, SIZE, cache_bytes=0)  # so that what is not prepared is asked for
    made.place(1, 2)
    made.place(1, 0)
    assert source.requested == [0]


def test_px_per_deg_is_the_lanes_own() -> None:
    made = scene_cache(Counting(), lanes=2)
    for lane, scale in ((0, 3.0), (1, 5.0), (0, 7.0)):
        made.place_picture(lane, Picture(IMAGES[0], -1, "", scale))
    assert made.current is not None
    assert made.current.px_per_deg.tolist() == [7.0, 5.0]


def test_what_does_not_fit_prepared_is_kept_fitted() -> None:
    source = Counting()
    made = scene_cache(source, lanes=1, cache_bytes=6 * PYRAMID + 100)  # three pyramids, and all nine pictures
    for _ in range(2):
        for index in range(9):
            made.place(0, index)
    assert source.requested == list(range(9))


@COPIES
@pytest.mark.parametrize("share", [True, False])
def test_a_copy_goes_on_alone_and_takes_what_stands_before_its_lanes(
    make_copy: Callable[[Any], Any], share: bool
) -> None:
    made = scene_cache(Counting(), lanes=3, share=share)
    for index in range(9):
        made.place(index % 3, index)
    twin = make_copy(made)
    assert np.array_equal(images(twin), IMAGES[6:])
    twin.place(0, 2)
    assert np.array_equal(images(twin), IMAGES[[2, 7, 8]])
    assert np.array_equal(images(made), IMAGES[6:])
    made.place(1, 3)
    assert np.array_equal(images(made), IMAGES[[6, 3, 8]])
    assert len(pickle.dumps(made)) < IMAGES.nbytes + 4 * PYRAMID


def test_bounds_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="cache_bytes"):
        scene_cache(Counting(), cache_bytes=-1)
    with pytest.raises(InvalidValueError, match="index must be from 0 to 8"):
        scene_cache(Counting()).place(0, 9)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_mapped_file_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "scenes.raw"
    many = np.random.default_rng(0).integers(0, 256, (8000, *SIZE, 3), dtype=np.uint8)
    path.write_bytes(many.tobytes())
    made = scene_cache(ArrayScenes(np.memmap(path, np.uint8, "r", shape=many.shape)), "disc", 2, 0)
    for index in range(0, 8000, 16):
        made.place(0, index)
        assert np.array_equal(images(made)[0], many[index])
    text = Path("/proc/self/smaps").read_text()
    resident_kb = int(text[text.index(str(path)) :].split("Rss:")[1].split()[0])
    assert resident_kb <= 2 * 2048 < many.nbytes / 1024
