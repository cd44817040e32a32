from __future__ import annotations

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from foveasim.agents.pretraining.augmentations import crops
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.images.pool import ImagePool, centred
from foveasim.images.reading import read_pool, split_names


def write(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size, 3), colour[::-1], np.uint8)
    assert cv2.imwrite(str(path), image)


def pool(*images: np.ndarray) -> ImagePool:
    return ImagePool.of(images, "ab"[: len(images)], np.arange(len(images)))


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


def test_photos_are_those_of_the_package_unless_a_folder_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "astronaut.jpg" in read_pool("photos").names and len(read_pool("photos@test")) == 1
    (tmp_path / "photos").mkdir()
    write(tmp_path / "photos" / "mine.png", (1, 2, 3))
    assert read_pool("photos").names == ("mine.png",)


def test_damaged_images_are_named_and_skipped(tmp_path: Path) -> None:
    write(tmp_path / "good.png", (1, 2, 3))
    (tmp_path / "bad.jpg").write_bytes(b"no")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"skipped 2 images .*: bad.jpg, empty.jpg\n  bad.jpg: not an image"):
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


def test_a_pool_is_one_block_with_views_into_it() -> None:
    images = [np.full((h, w, 3), n, np.uint8) for n, (h, w) in enumerate([(9, 12), (10, 8), (20, 30)])]
    masks = [np.full((9, 12), 7, np.uint8), None, np.full((20, 30), 9, np.uint8)]
    made = ImagePool.of(images, ["a", "b", "c"], np.array([0, 0, 1]), masks)
    assert made.offset.tolist() == [0, 3 * 108, 3 * 188] and made.pixels.size == 3 * 788
    assert made.size.tolist() == [[9, 12], [10, 8], [20, 30]]
    assert all((one == two).all() and one.base is made.pixels for one, two in zip(made.images, images, strict=True))
    assert made.objects is not None and made.objects.size == 788
    assert made.objects[:108].tolist() == [7] * 108 and not made.objects[108:188].any()
    assert made.has_object.tolist() == [True, False, True]
    assert len(ImagePool.of([])) == 0
    assert ImagePool.of(images).names == ("0", "1", "2")


def test_pools_that_do_not_fit_together_are_refused() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InvalidTypeError, match="image 0 is float64"):
        ImagePool.of([image.astype(float)])  # type: ignore[list-item]
    with pytest.raises(InvalidValueError, match=r"image 0 is \(8, 8\)"):
        ImagePool.of([image[..., 0]])
    with pytest.raises(InvalidValueError, match=r"mask 0 must be \(8, 8\)"):
        ImagePool.of([image], objects=[np.zeros((4, 4), np.uint8)])
    with pytest.raises(InvalidValueError, match=r"names must be \(1,\)"):
        ImagePool.of([image], ["a", "b"])
    one = ImagePool.of([image])
    with pytest.raises(InvalidValueError, match="pixels must be flat and at least 192"):
        ImagePool(one.pixels[:-1], one.offset, one.size, one.names, one.source)
    with pytest.raises(InvalidValueError, match="objects is None"):
        ImagePool(one.pixels, one.offset, one.size, one.names, one.source, None, np.array([True]))


def test_centred_is_a_view_where_sizes_fit() -> None:
    images = [np.full((16, 16, 3), n, np.uint8) for n in range(3)]
    made = ImagePool.of(images)
    whole = centred(made, (16, 16))
    assert (whole == np.stack(images)).all() and np.shares_memory(whole, made.pixels)


@pytest.fixture
def stl10(tmp_path: Path) -> Path:
    """Two images of each split, pixel (x, y) of image n: x + n, y, 100 n."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    x, y = np.meshgrid(np.arange(96), np.arange(96), indexing="ij")  # stored column by column
    for split in ("unlabeled", "train", "test"):
        planes = [np.stack((x + n, y, np.full_like(x, 100 * n))) for n in range(2)]
        (folder / f"{split}_X.bin").write_bytes(np.stack(planes).astype(np.uint8).tobytes())
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes(bytes([2, 1]))
    (folder / "class_names.txt").write_text("airplane bird")
    return tmp_path


def test_stl10_is_read_from_its_binary_files(stl10: Path) -> None:
    for spec in (stl10, stl10 / "stl10_binary"):
        made = read_pool(str(spec))
        assert made.names == ("unlabeled_000000", "unlabeled_000001")
        assert made.images[1].shape == (96, 96, 3)
        assert made.images[1][30, 20].tolist() == [21, 30, 100]
    train = read_pool(f"{stl10}@train")
    assert train.names == ("train/bird/000000", "train/airplane/000001")
    with pytest.raises(InvalidValueError, match="unlabeled, train, test; got 'val'"):
        read_pool(f"{stl10}@val")


@pytest.mark.parametrize("name", ["stl10_binary", "imagenette2-160", "imagenette.tar"])
def test_missing_data_sets_name_the_command_that_gets_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(SceneError, match=f"foveasim data get {name[:5]}.* {tmp_path}$"):
        read_pool(f"{tmp_path / name}@train")


def test_a_cache_is_mapped_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        write(tmp_path / "set" / f"{i}.png", (i, 50, 60), (20 + i, 30))
    specs, cache = [str(tmp_path / "set")], tmp_path / "cache"
    fresh = read_pool(specs)
    cached = read_pool(specs, cache=cache)
    monkeypatch.setattr("foveasim.images.splits._decode", None)  # nothing is decoded again
    again = read_pool(specs, cache=str(cache))
    for other in (cached, again):
        assert (other.pixels == fresh.pixels).all() and not other.pixels.flags.writeable
        assert (other.offset == fresh.offset).all() and (other.size == fresh.size).all()
        assert other.names == fresh.names and (other.source == fresh.source).all()
    assert crops(again, np.random.default_rng(0), 4, (16, 16)).shape == (4, 16, 16, 3)


def test_a_stale_or_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    file, cache = tmp_path / "set" / "0.png", tmp_path / "cache"
    write(file, (1, 2, 3))
    spec = str(tmp_path / "set")
    read_pool(spec, cache=cache)
    raw = next(cache.glob("*.raw"))
    raw.write_bytes(raw.read_bytes()[:-1])
    assert read_pool(spec, cache=cache).images[0][0, 0].tolist() == [1, 2, 3]
    next(cache.glob("*.json")).write_text("{")
    assert read_pool(spec, cache=cache).images[0][0, 0].tolist() == [1, 2, 3]
    write(file, (9, 8, 7))
    os.utime(file, ns=(1, 1))
    assert read_pool(spec, cache=cache).images[0][0, 0].tolist() == [9, 8, 7]
    write(tmp_path / "set" / "1.png", (5, 5, 5))
    assert len(read_pool(spec, cache=cache)) == 2
    assert len(list(cache.iterdir())) == 2  # what was stale is gone
    write(tmp_path / "other" / "1.png", (5, 5, 5))
    read_pool(str(tmp_path / "other"), cache=cache)
    assert len(list(cache.iterdir())) == 4  # other sources have files of their own


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set" / "0.png", (1, 2, 3))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foveasim.images.pool_cache.json.dumps", full)
    with pytest.raises(SceneError, match=r"No space left on device.*Make room"):
        read_pool(str(tmp_path / "set"), cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    monkeypatch.undo()
    assert len(read_pool(str(tmp_path / "set"), cache=tmp_path / "cache")) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="cannot cache the decoded images"):
        read_pool(str(tmp_path / "set"), cache=tmp_path / "file")


def test_a_folder_may_bring_its_own_splits(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("1", "2", "3"):
        assert cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["1", "3"], "test": ["2"]}')
    for path in (tmp_path, tmp_path / "images"):
        assert [Path(n).name for n in read_pool(f"{path}@train").names] == ["1.png", "3.png"]
        assert [Path(n).name for n in read_pool(f"{path}@test").names] == ["2.png"]
        assert len(read_pool(str(path))) == 3
    with pytest.raises(SceneError, match="has no list 'val'"):
        read_pool(f"{tmp_path}@val")
    splits.write_text("not JSON")
    with pytest.raises(SceneError, match=r"splits\.json: has no list 'train'"):
        read_pool(f"{tmp_path}@train")
