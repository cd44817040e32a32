"""STL-10 and Imagenette as scene sources."""

from __future__ import annotations

import copy
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.images.archives import TarScenes
from foveasim.images.datasets import IMAGENETTE_CLASSES, Stl10Scenes, open_imagenette
from foveasim.images.files import FileScenes
from foveasim.images.picture import PictureCache
from foveasim.images.reading import split_names
from foveasim.scenes.source import SceneSource, open_scenes

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def stl10(folder: Path, images: np.ndarray, split: str = "train") -> Path:
    """Write (N, 96, 96, 3) images as STL-10 does, with the classes 1, 2, ..., 10, 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n")
    content = b"".join(image[:, :, c].tobytes(order="F") for image in images for c in range(3))
    (folder / f"{split}_X.bin").write_bytes(content)
    if split != "unlabeled":
        (folder / f"{split}_y.bin").write_bytes(bytes(i % 10 + 1 for i in range(len(images))))
    return folder


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("split", ["train", "test", "unlabeled"])
def test_stl10_gives_back_what_was_written(tmp_path: Path, split: str) -> None:
    images = noise(12)
    stl10(tmp_path / "stl10_binary", images, split)
    for path in (tmp_path, tmp_path / "stl10_binary"):
        source = open_scenes("stl10", path=path, split=split)
        assert isinstance(source, SceneSource) and len(source) == 12 and not source.moving
        labelled = split != "unlabeled"
        assert source.labels == (tuple(NAMES) if labelled else ())
        for index in (0, 5, 11):
            found = source.picture(index)
            assert found.image.dtype == np.uint8 and found.image.flags.c_contiguous
            assert (found.image == images[index]).all()
            assert found.label == (index % 10 if labelled else -1)
            assert found.px_per_deg == 3.5
    assert open_scenes("stl10", path=tmp_path, split=split, px_per_deg=5).picture(0).px_per_deg == 5


def test_stl10_byte_of_a_pixel(tmp_path: Path) -> None:
    content = bytearray(3 * 96 * 96)
    content[1 * 9216 + 7 * 96 + 20] = 99  # green of x = 7, y = 20
    stl10(tmp_path, noise(1), "unlabeled")
    (tmp_path / "unlabeled_X.bin").write_bytes(bytes(content))
    image = Stl10Scenes(tmp_path).picture(0).image
    assert image[20, 7, 1] == 99 and int(image.sum()) == 99


def test_stl10_batches(tmp_path: Path) -> None:
    images = noise(9)
    source = Stl10Scenes(stl10(tmp_path, images), split="train")
    chosen = [8, 0, 3, 3]
    batch = source.batch(chosen)
    assert batch.flags.c_contiguous and batch.flags.writeable and (batch == images[chosen]).all()
    assert (source.batch(np.arange(9, dtype=np.uint8)) == images).all()
    assert source.batch([]).shape == (0, 96, 96, 3)
    assert source.label.tolist() == list(range(9))
    source.label[:] = 0
    assert source.picture(4).label == 4


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([9], InvalidValueError, "from 0 to 8; got 9"),
        ([-1, 2], InvalidValueError, "got -1 to 2"),
        ([[0]], InvalidValueError, r"must be \(B,\); got \(1, 1\)"),
        ([0.0], InvalidTypeError, "whole numbers; got float64"),
        ([True], InvalidTypeError, "whole numbers; got bool"),
    ],
)
def test_stl10_refuses_indices(tmp_path: Path, indices: list[int], error: type[Exception], message: str) -> None:
    source = Stl10Scenes(stl10(tmp_path, noise(9)), split="train")
    with pytest.raises(error, match=message):
        source.batch(indices)


def test_stl10_is_mapped_and_copies_carry_no_pixels(tmp_path: Path) -> None:
    images = noise(3)
    source = Stl10Scenes(stl10(tmp_path, images, "unlabeled"))
    assert not any(isinstance(value, np.ndarray) and value.nbytes > 1000 for value in source.__getstate__().values())
    twin = copy.deepcopy(source)
    assert (twin.picture(2).image == images[2]).all()
    # The mapping follows the file: nothing was read ahead into memory of its own.
    with (tmp_path / "unlabeled_X.bin").open("r+b") as file:
        file.write(bytes(27648))
    assert not source.picture(0).image.any() and not twin.picture(0).image.any()
    source.picture(1).image[:] = 0
    assert (source.picture(1).image == images[1]).all()


def test_stl10_missing_names_the_command(tmp_path: Path) -> None:
    get = f"foveasim data get stl10 {tmp_path}"
    with pytest.raises(SceneError, match=f"gone: no such folder. Get it: {get}/gone"):
        open_scenes("stl10", path=tmp_path / "gone")
    with pytest.raises(SceneError, match=f"no STL-10 in this folder.*{get}$"):
        open_scenes("stl10", path=tmp_path)
    folder = stl10(tmp_path / "stl10_binary", noise(2), "unlabeled")
    with pytest.raises(SceneError, match=f"train_X.bin: cannot be read .*{get}$"):
        open_scenes("stl10", path=folder, split="train")
    archive = tmp_path / "stl10_binary.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(SceneError, match=f"'{get}' unpacks it without a download"):
        open_scenes("stl10", path=archive)
    with pytest.raises(SceneError, match=r"foveasim data get stl10 '.*two words'"):
        open_scenes("stl10", path=tmp_path / "two words")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train_X.bin", b"", "train_X.bin: 0 bytes are no whole number"),
        (
            "train_X.bin",
            bytes(27648 + 5),
            "27,653 bytes are no whole number of images of 27,648 bytes; the file is trunc",
        ),
        ("train_y.bin", bytes([1, 2, 3]), "3 labels for 2 images in train_X.bin"),
        ("train_y.bin", bytes([0, 1]), "from 1 to 10; got 0 to 1"),
        ("train_y.bin", bytes([1, 11]), "from 1 to 10; got 1 to 11"),
        ("train_y.bin", None, "train_y.bin: cannot be read"),
        ("class_names.txt", b"\n", "holds no class names"),
    ],
)
def test_stl10_damage_is_reported(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    folder = stl10(tmp_path / "stl10_binary", noise(2))
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(SceneError, match=f"{message}.*foveasim data get stl10 {tmp_path}$"):
        Stl10Scenes(tmp_path, split="train")


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="unlabeled, train, test; got 'val'"):
        Stl10Scenes(tmp_path, split="val")
    with pytest.raises(InvalidValueError, match="train, val, test, all; got 'valid'"):
        open_imagenette(tmp_path, split="valid")


def imagenette(folder: Path, classes: tuple[str, ...] = ("n01440764", "n03888257"), of_each: int = 3) -> Path:
    """Write a small Imagenette whose pixels tell split, class and number."""
    for s, split in enumerate(("train", "val")):
        for c, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(of_each):
                image = np.full((20, 30, 3), (100 * s, 50 * c, 10 * i), np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{name}_{i}.JPEG", quality=95)
    return folder


def pack(folder: Path, to: Path) -> Path:
    with tarfile.open(to, "w:gz" if to.suffix == ".tgz" else "w") as archive:
        archive.add(folder, folder.name)
    return to


def test_imagenette_folder_tar_and_tgz_are_the_same(tmp_path: Path) -> None:
    folder = imagenette(tmp_path / "imagenette2-160")
    (folder / "noisy_imagenette.csv").write_text("not an image")
    (folder / "train" / ".DS_Store").write_text("nor this")
    paths = [tmp_path, folder, pack(folder, tmp_path / "a.tar"), pack(folder, tmp_path / "a.tgz")]
    for split, count in {"train": 6, "val": 4, "test": 2, "all": 12}.items():
        sources = [open_scenes("imagenette", path=path, split=split) for path in paths]
        assert [type(source) for source in sources] == [FileScenes, FileScenes, TarScenes, TarScenes]
        for source in sources:
            assert isinstance(source, SceneSource) and len(source) == count
            assert source.labels == tuple(IMAGENETTE_CLASSES.values())
            for index in range(count):
                one, two = sources[0].picture(index), source.picture(index)
                assert (one.image == two.image).all() and (one.name, one.label) == (two.name, two.label)
    train = open_imagenette(paths[2], split="train")
    assert [train.picture(i).label for i in range(6)] == [0, 0, 0, 9, 9, 9]
    assert train.picture(4).name == "train/n03888257/n03888257_1.JPEG"
    assert np.abs(train.picture(4).image[10, 10].astype(int) - (0, 50, 10)).max() < 4


def test_imagenette_splits_are_those_of_pretraining(tmp_path: Path) -> None:
    folder = imagenette(tmp_path / "imagenette", of_each=5)
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*.JPEG")]
    for split in ("train", "val", "test", "all"):
        source = open_imagenette(folder, split=split)
        assert {source.picture(i).name for i in range(len(source))} == set(split_names(files, split))


def test_imagenette_classes_by_name_keep_the_usual_order(tmp_path: Path) -> None:
    folder = imagenette(tmp_path / "set", ("parachute", "English_springer", "tench"), 1)
    source = open_imagenette(folder, split="train")
    assert [source.labels[source.picture(i).label] for i in range(3)] == ["tench", "English springer", "parachute"]


def test_imagenette_of_the_data_pack(shared_data: Path) -> None:
    source = open_imagenette(shared_data / "imagenette.tar", split="test")
    assert len(source) == 1459
    counts = np.bincount([source.picture(i).label for i in range(0, 1459, 25)], minlength=10)
    assert (counts > 2).all()


def test_imagenette_missing_names_the_command(tmp_path: Path) -> None:
    get = f"foveasim data get imagenette {tmp_path}"
    with pytest.raises(SceneError, match=f"no such folder or archive. Get it: {get}/gone"):
        open_scenes("imagenette", path=tmp_path / "gone")
    with pytest.raises(SceneError, match=f"no Imagenette in this folder.*{get}$"):
        open_imagenette(tmp_path)
    (tmp_path / "imagenette2-160" / "train").mkdir(parents=True)
    with pytest.raises(SceneError, match=f"no image in train/CLASS or val/CLASS. Get it: {get}$"):
        open_imagenette(tmp_path)
    (tmp_path / "imagenette2").mkdir()
    with pytest.raises(SceneError, match=r"holds imagenette2-160, imagenette2\. Give the path of one"):
        open_imagenette(tmp_path)


def test_imagenette_refuses_other_classes(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="train/n02086240 is no class of Imagenette"):
        open_imagenette(imagenette(tmp_path / "imagewoof", ("n02086240",)))


def test_imagenette_truncated_archives_are_told(tmp_path: Path) -> None:
    folder = imagenette(tmp_path / "imagenette2-160")
    for name in ("a.tar", "a.tgz"):
        whole = pack(folder, tmp_path / name)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5 + 100])
        with pytest.raises(SceneError, match=rf"{name}: not a whole tar archive .*foveasim data get imagenette"):
            open_imagenette(whole)
    (tmp_path / "a.tar").write_bytes(b"<html>")
    with pytest.raises(SceneError, match="not a whole tar archive"):
        open_imagenette(tmp_path / "a.tar")


def test_unreadable_images_of_an_archive_are_named_and_skipped(tmp_path: Path) -> None:
    folder = imagenette(tmp_path / "imagenette2-160", of_each=2)
    (folder / "train" / "n01440764" / "n01440764_0.JPEG").write_bytes(b"no")
    with pytest.warns(UserWarning, match=r"skipped 1 of 4 image files:\n.*n01440764_0.JPEG: not an image"):
        source = open_imagenette(pack(folder, tmp_path / "a.tar"), split="train")
    assert len(source) == 3
    cut = folder / "train" / "n03888257" / "n03888257_1.JPEG"
    Image.fromarray(noise(1)[0]).save(cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        source = open_imagenette(pack(folder, tmp_path / "a.tar"), split="train")
    with pytest.raises(SceneError, match=r"n03888257_1.JPEG is damaged \(.*truncated"):
        source.picture(2)


def test_decoded_pictures_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    path = pack(imagenette(tmp_path / "imagenette2-160"), tmp_path / "a.tar")
    opened = open_imagenette(path)
    assert opened.picture(1) is opened.picture(1)
    none = open_imagenette(path, cache_bytes=0)
    assert none.picture(1) is not none.picture(1)
    assert isinstance(copy.deepcopy(opened)._cache, PictureCache) and len(copy.deepcopy(opened)._cache) == 0
