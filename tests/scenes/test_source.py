"""Scene sources: names, photographs, folders, arrays and lists of them."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError, UnknownNameError
from foveasim.geometry import default_px_per_deg
from foveasim.images.files import FileScenes
from foveasim.images.picture import read_picture
from foveasim.scenes.source import SCENES, FittedScenes, JoinedScenes, Picture, SceneSource, open_scenes

PROCEDURAL = ("noise", "shapes", "gratings", "uniform", "checkerboard")


def flat(value: object, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.uint8), (*size, 3)).copy()


def save(path: Path, value: object = 100, size: tuple[int, int] = (16, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat(value, size)).save(path)
    return path


# Sources in general


@pytest.mark.parametrize("name", ["photos", *PROCEDURAL])
def test_every_named_source_keeps_the_contract(name: str) -> None:
    source = open_scenes(name)
    assert isinstance(source, SceneSource)
    assert len(source) >= 1
    assert source.moving is False
    for index in (0, len(source) - 1):
        found = source.picture(index)
        assert found.image.dtype == np.uint8
        assert found.image.ndim == 3
        assert found.image.shape[2] == 3
        assert found.image.flags.c_contiguous
        assert found.px_per_deg == pytest.approx(default_px_per_deg(found.size))
        assert found.label == -1
        assert found.name
    assert open_scenes(name, px_per_deg=5).picture(0).px_per_deg == 5


@pytest.mark.parametrize("index", [-1, 10_000, True, 1.0, "0"])
def test_an_index_out_of_range_is_refused(index: object) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match="index must"):
        open_scenes("uniform").picture(index)  # type: ignore[arg-type]


def test_all_names_are_known() -> None:
    files = {"photos", "folder", "labelled", "file", "arrays", "video", "webcam", "stl10", "imagenette"}
    tasks = {"search", "signs"}
    assert {*files, *tasks, *PROCEDURAL} == set(SCENES)
    for name in SCENES:
        assert callable(SCENES.factory(name))


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'photos'\?.*checkerboard"):
        open_scenes("fotos")


def test_a_missing_path_gets_the_nearest_file(tmp_path: Path) -> None:
    save(tmp_path / "kitchen.png")
    with pytest.raises(SceneError, match=r"no such file or folder.*'kitchen\.png'"):
        open_scenes(tmp_path / "kitchn.png")
    with pytest.raises(SceneError, match="There is no folder"):
        open_scenes(str(tmp_path / "gone" / "kitchen.png"))


@pytest.mark.parametrize("spec", [None, 3, 2.5, {"a": 1}, b"photos", object()])
def test_what_is_no_scene_is_refused(spec: object) -> None:
    with pytest.raises(InvalidTypeError, match="scenes must be a name, a path"):
        open_scenes(spec)


def test_an_option_that_a_source_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match="sise"):
        open_scenes("noise", sise=(96, 96))
    with pytest.raises(InvalidTypeError, match="loop"):
        open_scenes(save(tmp_path / "a.png"), loop=True)
    with pytest.raises(InvalidTypeError, match="path"):
        open_scenes("folder")


def test_an_opened_source_is_returned_itself() -> None:
    source = open_scenes("uniform")
    assert open_scenes(source) is source
    with pytest.raises(InvalidTypeError, match="px_per_deg cannot be given along"):
        open_scenes(source, px_per_deg=3)


class Mine:
    moving = False
    labels = ("only",)

    def __init__(self, grey: int = 7) -> None:
        self.grey = grey

    def __len__(self) -> int:
        return 2

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        return Picture(flat(self.grey), 0, "mine", 1.0)


def test_a_class_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_scenes.py").write_text(
        "import numpy as np\n"
        "from foveasim.scenes.source import Picture\n"
        "class Mine:\n"
        "    moving, labels = False, ()\n"
        "    def __init__(self, grey=7, seed=0): self.grey, self.seed = grey, seed\n"
        "    def __len__(self): return 1\n"
        "    def picture(self, index, time_ms=0.0):\n"
        "        return Picture(np.full((8, 8, 3), self.grey, np.uint8), -1, 'mine', 1.0)\n"
        "class Wrong:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = open_scenes("my_scenes:Mine", grey=9, seed=4)
    assert source.picture(0).image.max() == 9
    assert source.seed == 4  # type: ignore[attr-defined]
    with pytest.raises(InvalidTypeError, match="no scene source"):
        open_scenes("my_scenes:Wrong")
    with pytest.raises(UnknownNameError, match="Did you mean 'Mine'"):
        open_scenes("my_scenes:Mime")


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), "3"])
@pytest.mark.parametrize("spec", ["photos", "noise", np.zeros((8, 8, 3), np.uint8)], ids=["photos", "noise", "array"])
def test_a_wrong_px_per_deg_is_refused_at_opening(spec: object, bad: object) -> None:
    with pytest.raises((InvalidValueError, InvalidTypeError), match="px_per_deg"):
        open_scenes(spec, px_per_deg=bad)  # type: ignore[arg-type]


# Bundled photographs


def test_the_photographs_are_small_and_licensed() -> None:
    folder = Path(__import__("foveasim").__file__).parent / "images" / "photos"
    files = sorted(folder.glob("*.jpg"))
    licences = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert len(open_scenes("photos")) == len(files) >= 6
    assert sum(file.stat().st_size for file in files) < 1_000_000
    for file in files:
        line = next(line for line in licences.splitlines() if f"`{file.name}`" in line)
        assert "CC0" in line or "public domain" in line
        assert max(read_picture(file).size) <= 640


# Folders


def test_a_folder_is_sorted_and_skips_what_is_no_picture(tmp_path: Path) -> None:
    for number, name in enumerate(["b.png", "a.jpg", "C.PNG", "d.bmp"]):
        save(tmp_path / name, 10 * number)
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / ".hidden.png").write_text("not looked at")
    (tmp_path / "folder.png").mkdir()
    source = open_scenes(tmp_path)
    assert [source.picture(i).name for i in range(len(source))] == ["C.PNG", "a.jpg", "b.png", "d.bmp"]
    assert source.labels == ()


def test_corrupt_files_of_a_folder_are_named_counted_and_skipped_once(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    save(tmp_path / "tiny.png", size=(4, 4))
    with pytest.warns(UserWarning) as warned:
        source = open_scenes(tmp_path)
    assert len(warned) == 1
    message = str(warned[0].message)
    assert "skipped 3 of 4" in message
    assert all(name in message for name in ("empty.png", "text.jpg", "tiny.png"))
    assert "good.png" not in message
    assert len(source) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source.picture(0).name == "good.png"


def test_many_corrupt_files_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "z.png")
    for number in range(8):
        (tmp_path / f"{number}.png").touch()
    with pytest.warns(UserWarning, match=r"skipped 8 of 9(.|\n)*and 3 more"):
        open_scenes(tmp_path)


def test_a_folder_without_a_readable_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no image in this folder"):
        open_scenes(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(SceneError, match=r"none of 1 image files(.|\n)*a\.png"):
        open_scenes(tmp_path)


def test_a_labelled_folder(tmp_path: Path) -> None:
    for name, value in (("dog/2.png", 2), ("dog/1.png", 1), ("ant/x.png", 3)):
        save(tmp_path / name, value)
    (tmp_path / "no pictures").mkdir()
    (tmp_path / "README.txt").write_text("about")
    source = open_scenes(tmp_path)
    assert source.labels == ("ant", "dog")
    found = [source.picture(i) for i in range(3)]
    assert [one.name for one in found] == ["ant/x.png", "dog/1.png", "dog/2.png"]
    assert [one.label for one in found] == [0, 1, 1]
    assert [int(one.image[0, 0, 0]) for one in found] == [3, 1, 2]
    save(tmp_path / "own.png")  # with a picture of its own it is a plain folder
    assert open_scenes(tmp_path).labels == ()
    assert open_scenes("labelled", path=tmp_path).labels == ("ant", "dog")


def test_corrupt_files_do_not_shift_labels(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "broken.png").touch()
    save(tmp_path / "dog" / "1.png")
    with pytest.warns(UserWarning, match="broken"):
        source = open_scenes(tmp_path)
    assert source.labels == ("ant", "dog")
    assert source.picture(0).label == 1


def test_a_folder_of_labelled_folders_says_which_to_open(tmp_path: Path) -> None:
    save(tmp_path / "train" / "dog" / "1.png")
    with pytest.raises(SceneError, match=r"'train' is a labelled folder"):
        open_scenes(tmp_path)
    with pytest.raises(SceneError, match=r"'train' is a labelled folder"):
        open_scenes("labelled", path=tmp_path)


def test_opening_a_folder_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    assert len(open_scenes(tmp_path)) == 1


def test_a_real_folder(shared_data: Path) -> None:
    folder = next(path.parent for path in sorted((shared_data / "osie").rglob("*.jpg")))
    source = open_scenes(folder)
    assert len(source) == len(list(folder.glob("*.jpg")))
    assert source.picture(len(source) - 1).image.std() > 5


# Arrays


def test_one_array_is_not_copied() -> None:
    values = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    found = open_scenes(values).picture(0).image
    assert np.shares_memory(found, values)
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    "shape, count",
    [((16, 24), 1), ((16, 24, 1), 1), ((16, 24, 3), 1), ((5, 16, 24), 5), ((5, 16, 24, 1), 5), ((5, 16, 24, 3), 5)],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_array_shapes(shape: tuple[int, ...], count: int, kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    source = open_scenes(values if kind == "numpy" else torch.from_numpy(values))
    assert len(source) == count
    last = source.picture(count - 1)
    assert last.size == (16, 24)
    expected = values.reshape(count, 16, 24, -1)[-1]
    assert np.array_equal(last.image, np.broadcast_to(expected, (16, 24, 3)))


@pytest.mark.parametrize("shape", [(3, 16, 24), (5, 3, 16, 24)])
def test_channels_first_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match=r"channels last.*moveaxis"):
        open_scenes(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(16, 24, 4), (0, 16, 24, 3), (7, 24, 3), (16,), (1, 5, 16, 24, 3), (5, 16, 24, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match="got"):
        open_scenes(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, np.uint16])
def test_other_dtypes_are_refused(dtype: type) -> None:
    with pytest.raises(InvalidTypeError, match="uint8"):
        open_scenes(np.zeros((16, 24, 3), dtype))


def test_labels_of_arrays() -> None:
    source = open_scenes(np.zeros((2, 16, 24, 3), np.uint8), label=[1, 0], labels=("a", "b"))
    assert [source.picture(i).label for i in range(2)] == [1, 0]
    with pytest.raises(InvalidValueError, match="one class for each of 2"):
        open_scenes(np.zeros((2, 16, 24, 3), np.uint8), label=[1])


# Lists


def test_a_list_joins_everything(tmp_path: Path) -> None:
    save(tmp_path / "dir" / "dog" / "1.png", 1)
    save(tmp_path / "dir2" / "cat" / "2.png", 2)
    save(tmp_path / "dir2" / "dog" / "3.png", 3)
    specs = [
        save(tmp_path / "x.png", 4),
        str(save(tmp_path / "y.png", 5)),
        np.full((2, 16, 24, 3), 6, np.uint8),
        tmp_path / "dir",
        tmp_path / "dir2",
        Mine(7),
    ]
    source = open_scenes(specs)
    assert isinstance(source, JoinedScenes)
    assert len(source) == 9
    assert source.labels == ("dog", "cat", "only")
    found = [source.picture(i) for i in range(9)]
    assert [int(one.image[0, 0, 0]) for one in found] == [4, 5, 6, 6, 1, 2, 3, 7, 7]
    assert [one.label for one in found] == [-1, -1, -1, -1, 0, 1, 0, 2, 2]
    assert [one.name for one in found[:2]] == ["x.png", "y.png"]


def test_a_list_of_files_is_one_source_and_refuses_a_broken_one(tmp_path: Path) -> None:
    good = save(tmp_path / "a.png")
    assert isinstance(open_scenes([good, good]), FileScenes)
    (tmp_path / "b.png").touch()
    with pytest.raises(SceneError, match=r"b\.png"):
        open_scenes([good, tmp_path / "b.png"])
    with pytest.raises(SceneError, match="empty list"):
        open_scenes([])


# One size for all


def test_fitted_scenes_are_fitted_once() -> None:
    source = open_scenes("shapes", size=(64, 80))
    fitted = FittedScenes(source, (32, 32))
    assert isinstance(fitted, SceneSource)
    assert (len(fitted), fitted.moving, fitted.labels) == (len(source), False, ())
    assert fitted.picture(4).size == (32, 32)
    assert fitted.picture(4).px_per_deg == source.picture(4).px_per_deg / 2
    assert fitted.picture(4) is fitted.picture(4)
    assert not np.array_equal(fitted.picture(4).image, fitted.picture(5).image)
    assert FittedScenes(source, None).picture(4) is source.picture(4)
    assert FittedScenes(source, (64, 80)).picture(4) is source.picture(4)


def test_a_wrong_fit_is_refused_at_once() -> None:
    with pytest.raises(InvalidValueError, match="fit must"):
        FittedScenes(open_scenes("noise"), (32, 32), "squash")
    with pytest.raises(InvalidValueError, match="size must"):
        FittedScenes(open_scenes("noise"), (4, 4))
    with pytest.raises(InvalidValueError, match="index must"):
        FittedScenes(open_scenes("noise"), (32, 32)).picture(-1)


def test_a_pickled_source_opens_the_same_pictures(tmp_path: Path) -> None:
    source = open_scenes([save(tmp_path / "a.png", 1), save(tmp_path / "b.png", 2)])
    source.picture(1)
    twin = pickle.loads(pickle.dumps(source))
    assert np.array_equal(twin.picture(1).image, source.picture(1).image)


def test_pictures_are_decoded_once(tmp_path: Path) -> None:
    source = FileScenes([save(tmp_path / f"{i}.png") for i in range(3)])
    first = source.picture(0)
    assert source.picture(0) is first
    (tmp_path / "0.png").unlink()
    assert source.picture(0) is first
