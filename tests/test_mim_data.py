from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from foveasim.agents.mim.data import ImagePool, centred, crops, read_pool, split_names
from foveasim.errors import InvalidValueError, SceneError


def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size, 3), colour[::-1], np.uint8)
    assert cv2.imwrite(str(path), image)


def pool(*images: np.ndarray) -> ImagePool:
    return ImagePool(tuple(images), tuple("ab"[: len(images)]), np.arange(len(images)))


def test_splits_by_position_cover_everything_once() -> None:
    names = [f"x/{i:03d}.jpg" for i in range(100)]
    parts = {split: split_names(names[::-1], split) for split in ("train", "val", "test")}
    assert parts["test"] == names[0::9] and parts["val"] == names[1::9]
    assert sorted([*parts["train"], *parts["val"], *parts["test"]]) == names == split_names(names, "all")


def test_splits_by_folder_go_by_class() -> None:
    names = [f"set/{part}/{cls}/{i}.jpg" for part in ("train", "val") for cls in "ab" for i in range(3)]
    assert split_names(names, "train") == [n for n in names if "/train/" in n]
    assert split_names(names, "val") == [f"set/val/{cls}/{i}.jpg" for cls in "ab" for i in (0, 2)]
    assert split_names(names, "test") == [f"set/val/{cls}/1.jpg" for cls in "ab"]
    with pytest.raises(InvalidValueError, match="train, val, test"):
        split_names(names, "training")


def test_folder_and_tar_give_the_same_pool(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / "set" / "sub" / f"{i}.png", (i, 2 * i, 3 * i))
    (tmp_path / "set" / "notes.txt").write_text("not an image")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")
    folder, tar = read_pool([str(tmp_path / "set")]), read_pool([str(tmp_path / "set.tar")])
    assert len(folder) == len(tar) == 4
    for one, two, colour in zip(folder.images, tar.images, range(4), strict=True):
        assert one.shape == (40, 60, 3) and one.dtype == np.uint8
        assert (one == two).all() and (one == [colour, 2 * colour, 3 * colour]).all()
    both = read_pool([str(tmp_path / "set@train"), str(tmp_path / "set.tar")])
    assert both.source.tolist() == [0, 0, 1, 1, 1, 1]


def test_damaged_images_are_named_and_skipped(tmp_path: Path) -> None:
    write(tmp_path / "good.png", (1, 2, 3))
    (tmp_path / "bad.jpg").write_bytes(b"no")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped 2 damaged images: bad.jpg, empty.jpg"):
        assert read_pool([str(tmp_path)]).names == ("good.png",)


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such folder"):
        read_pool([str(tmp_path / "none.tar")])
    with pytest.raises(SceneError, match="no readable image"):
        read_pool([str(tmp_path)])
    (tmp_path / "a.tar").write_bytes(b"not a tar file")
    with pytest.raises(SceneError, match="tar archive"):
        read_pool([str(tmp_path / "a.tar")])
    with pytest.raises(InvalidValueError, match="at least one"):
        read_pool([])


def test_crops_repeat_with_their_seed_and_stay_in_the_image() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (120, 200, 3)).copy()
    first, again, other = (crops(pool(ramp), np.random.default_rng(s), 16, (32, 48)) for s in (1, 1, 2))
    assert first.shape == (16, 32, 48, 3) and first.dtype == np.uint8
    assert (first == again).all() and not (first == other).all()
    slope = first[:, 0, -1, 0].astype(int) - first[:, 0, 0, 0]
    assert (slope > 0).any() and (slope < 0).any()  # mirrored or not
    # A crop of a share s of the area is sqrt(s) wide, times the root of an aspect ratio up to 4/3.
    assert (np.abs(slope) >= 200 * (0.2 * 3 / 4 * 0.6) ** 0.5 - 8).all()


def test_whole_crop_of_a_fitting_image_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for crop in crops(pool(image), rng, 8, (64, 64), scale=(1.0, 1.0)):
        assert (crop == image).all() or (crop == image[:, ::-1]).all()


def test_shares_choose_the_source() -> None:
    dark, light = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    drawn = crops(pool(dark, light), np.random.default_rng(0), 400, (8, 8), shares=(0.25, 0.75))
    share = (drawn[:, 0, 0, 0] == 255).mean()
    assert abs(share - 0.75) < 0.08  # 3.7 standard deviations
    assert (crops(pool(dark, light), np.random.default_rng(0), 50, (8, 8), shares=(1, 0)) == 0).all()
    with pytest.raises(InvalidValueError, match="one number >= 0 for each"):
        crops(pool(dark, light), np.random.default_rng(0), 4, (8, 8), shares=(1,))


def test_centred_takes_the_middle() -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    assert (centred(pool(image), (10, 10)) == 200).all()
