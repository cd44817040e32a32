"""Masks of the main object: GrabCut finds it, the command writes and resumes, the pool gets them back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from foveasim.agents.segmentation import segment
from foveasim.agents.segmentation.mask_sheet import COLUMNS, TILE_PX, mask_sheet
from foveasim.agents.segmentation.segment import SegmentConfig, object_confidence, run
from foveasim.cli.commands import main
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.images.object_masks import is_usable, mask_paths, read_mask, read_masks, with_masks
from foveasim.images.pool import ImagePool
from foveasim.images.reading import read_pool


def disc_picture(
    size: tuple[int, int] = (96, 128), centre: tuple[int, int] = (75, 40), radius: int = 20, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red disc on blue, both a little noisy, and where the disc is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    colour = np.where(inside[..., None], [200, 60, 40], [60, 90, 160])
    return (colour + rng.normal(0, 12, (*size, 3))).clip(0, 255).astype(np.uint8), np.asarray(inside)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def save(path: Path, image: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five discs in two folders, and a plain picture, which has no object."""
    folder = tmp_path / "data"
    for number in range(5):
        picture, _ = disc_picture((48, 64), (25 + 3 * number, 20 + 2 * number), 9, number)
        save(folder / f"class{number % 2}" / f"{number}.png", picture[:, :, ::-1])
    save(folder / "plain.png", np.full((40, 40, 3), 127, np.uint8))
    return folder


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (300, 220)])
def test_an_object_that_stands_out_is_found(size: tuple[int, int]) -> None:
    centre, radius = (int(0.58 * size[1]), int(0.42 * size[0])), min(size) // 5
    picture, inside = disc_picture(size, centre, radius)
    confidence = object_confidence(picture)
    assert confidence.shape == size
    assert confidence.dtype == np.uint8
    assert overlap(confidence >= 128, inside) > 0.92  # half a pixel of 64 x 64 px around a disc of this size is 0.07
    assert overlap(confidence >= 204, inside) > 0.87
    assert bool((confidence[inside & (cv2.erode(inside.astype(np.uint8), np.ones((9, 9))) > 0)] >= 204).all())
    assert is_usable(confidence)


def test_confidence_is_graded() -> None:
    levels = np.unique(object_confidence(disc_picture()[0]))
    assert levels[0] == 0
    assert levels[-1] == 255
    assert len(levels) > 10


@pytest.mark.parametrize("size", [(96, 96), (8, 8), (1, 1), (3, 2000)])
def test_where_nothing_stands_out_nothing_is_sure(size: tuple[int, int]) -> None:
    for picture in (
        np.full((*size, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8),
    ):
        assert not is_usable(object_confidence(picture))


def test_masks_repeat_with_their_seed_whatever_was_drawn_before() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = np.asarray(cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC), np.uint8)
    first = object_confidence(picture, seed=1)
    object_confidence(disc_picture()[0], seed=9)
    assert np.array_equal(object_confidence(picture, seed=1), first)


def test_usable_is_100_sure_pixels_and_not_the_whole() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask.reshape(-1)[:99] = 255
    mask.reshape(-1)[200:400] = 203
    assert not is_usable(mask)
    mask.reshape(-1)[99] = 204
    assert is_usable(mask)
    mask.reshape(-1)[:9000] = 255
    assert is_usable(mask)
    mask.reshape(-1)[:9001] = 255
    assert not is_usable(mask)


def test_run_writes_a_mask_for_each_image(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(SegmentConfig(data=[str(data)], out=str(out), workers=2))
    assert (report.images, report.usable, report.too_small, report.nearly_whole, report.made) == (6, 5, 1, 0, 6)
    assert report.unusable == ("plain.png",)
    for name in ("class0/0", "class1/1", "class0/2", "class1/3", "class0/4", "plain"):
        mask = cv2.imread(str(out / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.dtype == np.uint8
        assert mask.shape == ((40, 40) if name == "plain" else (48, 64))
    record = json.loads((out / "segment.json").read_text())
    assert (record["images"], record["usable"], record["settings"]) == (6, 5, {"side": 64, "seed": 0})
    sheet = cv2.imread(str(out / "segment.png"))
    assert sheet is not None
    assert sheet.shape[1] > COLUMNS * TILE_PX
    assert not list(out.rglob("*.part"))


def test_masks_do_not_depend_on_the_workers(data: Path, tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    for workers in (1, 3):
        run(SegmentConfig(data=str(data), out=str(tmp_path / str(workers)), workers=workers))
    assert cv2.getNumThreads() == threads
    for path in sorted((tmp_path / "1").rglob("*.png")):
        assert path.read_bytes() == (tmp_path / "3" / path.relative_to(tmp_path / "1")).read_bytes()


def test_masks_that_are_there_are_kept_and_counted(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = SegmentConfig(data=[str(data)], out=str(out), workers=1)
    before = run(config)
    save(out / "class0" / "0.png", np.zeros((48, 64), np.uint8))
    (out / "class1" / "1.png").unlink()
    again = run(replace(config, resume=True))
    assert again.made == 1
    assert again.usable == before.usable - 1
    assert again.unusable == ("class0/0.png", "plain.png")
    saved = read_mask(out / "class0" / "0.png", (48, 64))
    assert saved is not None
    assert not saved.any()


def test_a_stopped_run_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, left = tmp_path / "out", [2]

    def stopping(image: NDArray[np.uint8], side: int, seed: int) -> NDArray[np.uint8]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return object_confidence(image, side, seed)

    config = SegmentConfig(data=[str(data)], out=str(out), workers=1)
    monkeypatch.setattr(segment, "object_confidence", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert len(list(out.rglob("*.png"))) == 2
    assert not list(out.rglob("*.part"))
    monkeypatch.undo()
    assert run(replace(config, resume=True)).made == 4


def test_masks_made_otherwise_are_not_mixed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(SegmentConfig(data=[str(data)], out=str(out)))
    with pytest.raises(InvalidValueError, match=r"holds masks made with .*'seed': 0.*Choose another folder"):
        run(SegmentConfig(data=[str(data)], out=str(out), seed=1, resume=True))
    assert run(SegmentConfig(data=[str(data)], out=str(out), seed=1, overwrite=True)).made == 6


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", str(data), str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "usable" in printed
    assert "83.3" in printed
    (tmp_path / "file").write_text("")
    assert main(["segment", str(data), str(tmp_path / "file")]) == 1
    assert "Choose another --out" in capsys.readouterr().err


def test_options_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="side"):
        SegmentConfig(side=8)
    with pytest.raises(InvalidValueError, match="workers"):
        SegmentConfig(workers=0)
    with pytest.raises(InvalidValueError, match="seed"):
        SegmentConfig(seed=2**31)
    with pytest.raises(InvalidTypeError, match="seed"):
        SegmentConfig(seed=0.5)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InvalidValueError, match="data must name"):
        run(SegmentConfig())


def test_names_are_mirrored() -> None:
    names = ["a/b/1.JPEG", "./c.png", "unlabeled_000007", "d/v1.5", "e.f/g.webp"]
    wanted = ["m/a/b/1.png", "m/c.png", "m/unlabeled_000007.png", "m/d/v1.5.png", "m/e.f/g.png"]
    assert [path.as_posix() for path in mask_paths("m", names)] == wanted


@pytest.mark.parametrize("name", ["../a.png", "a/../../b.png", "/etc/a.png", "", "."])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    with pytest.raises(SceneError, match="leads out"):
        mask_paths("m", [name])


def test_two_images_may_not_share_a_mask() -> None:
    with pytest.raises(SceneError, match=r"share the mask a/1\.png"):
        mask_paths("m", ["a/1.png", "b/1.png", "a/1.jpg"])


def test_a_mask_of_another_size_is_scaled_and_of_another_shape_refused(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15] = 255
    save(tmp_path / "a.png", mask)
    whole = read_mask(tmp_path / "a.png", (40, 60))
    assert whole is not None
    assert whole.shape == (40, 60)
    assert bool((whole[:, :28] == 255).all() and (whole[:, 32:] == 0).all())
    small = read_mask(tmp_path / "a.png", (10, 14))  # 10 x 15, a pixel short
    assert small is not None
    assert small.shape == (10, 14)
    for size in ((30, 20), (40, 40), (20, 40)):
        with pytest.raises(SceneError, match=rf"a\.png: the mask is 20 x 30 px and its image {size[0]} x {size[1]}"):
            read_mask(tmp_path / "a.png", size)


def test_files_that_are_no_masks_are_named(tmp_path: Path) -> None:
    save(tmp_path / "colour.png", np.zeros((9, 9, 3), np.uint8))
    save(tmp_path / "cutout.png", np.zeros((9, 9, 4), np.uint8))
    save(tmp_path / "deep.png", np.zeros((9, 9), np.uint16))
    for name in ("colour", "cutout", "deep"):
        with pytest.raises(SceneError, match=rf"{name}\.png: a mask must be 8-bit greyscale"):
            read_mask(tmp_path / f"{name}.png", (9, 9))
    for content in (b"", b"not a picture"):
        (tmp_path / "damaged.png").write_bytes(content)
        with pytest.raises(SceneError, match=r"damaged\.png: not an image.*foveasim segment"):
            read_mask(tmp_path / "damaged.png", (9, 9))
    assert read_mask(tmp_path / "none.png", (9, 9)) is None


def masked_pool(folder: Path) -> tuple[ImagePool, list[NDArray[np.uint8]]]:
    """Four pictures of several sizes; the second has no mask, the third one that is too small."""
    rng = np.random.default_rng(0)
    sizes = ((20, 30), (16, 16), (25, 14), (12, 40))
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    masks = [rng.integers(0, 256, size, dtype=np.uint8) // 64 * 85 for size in sizes]
    masks[2] = np.where(np.arange(14) == 0, 255, np.zeros((25, 14))).astype(np.uint8)
    for number in (0, 2, 3):
        save(folder / f"x/{number}.png", masks[number])
    return ImagePool.of(images, [f"x/{n}.jpg" for n in range(4)], np.array([0, 0, 1, 1])), masks


def test_images_without_a_usable_mask_are_kept_whole(tmp_path: Path) -> None:
    pool, masks = masked_pool(tmp_path)
    got = with_masks(pool, tmp_path, "keep")
    assert got.has_object.tolist() == [True, False, False, True]
    assert got.objects is not None
    assert got.objects.size == got.pixels.size // 3
    assert np.shares_memory(got.pixels, pool.pixels)
    for number, (start, (h, w)) in enumerate(zip(got.offset.tolist(), got.size.tolist(), strict=True)):
        part = got.objects[start // 3 : start // 3 + h * w].reshape(h, w)
        assert np.array_equal(part, masks[number]) if number in (0, 3) else bool((part == 255).all())


def test_images_without_a_usable_mask_are_dropped(tmp_path: Path) -> None:
    pool, masks = masked_pool(tmp_path)
    got = with_masks(pool, tmp_path, "drop")
    assert got.names == ("x/0.jpg", "x/3.jpg")
    assert got.source.tolist() == [0, 1]
    assert got.has_object.tolist() == [True, True]
    assert got.objects is not None
    for place, number in enumerate((0, 3)):
        assert np.array_equal(got.images[place], pool.images[number])
        start, (h, w) = int(got.offset[place]) // 3, got.size[place].tolist()
        assert np.array_equal(got.objects[start : start + h * w].reshape(h, w), masks[number])


def test_masks_are_read_in_the_images_order(tmp_path: Path) -> None:
    pool, masks = masked_pool(tmp_path)
    got = list(read_masks(tmp_path, pool.names[::-1], pool.size[::-1]))
    assert [mask is None for mask in got] == [False, False, True, False]
    assert np.array_equal(got[3], masks[0])  # type: ignore[arg-type]


def test_missing_masks_are_explained(tmp_path: Path) -> None:
    pool, _ = masked_pool(tmp_path)
    with pytest.raises(SceneError, match=r"no such folder of masks.*foveasim segment"):
        with_masks(pool, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match=r"no usable mask for any of 4 images \(0 have one\).*empty/x/0\.png"):
        with_masks(pool, tmp_path / "empty")
    with pytest.raises(InvalidValueError, match="unmasked must be 'keep' or 'drop'; got 'ignore'"):
        with_masks(pool, tmp_path, "ignore")  # type: ignore[arg-type]  # that is what is tested


def test_the_sheet_shows_usable_and_unusable_masks(tmp_path: Path) -> None:
    pool, _ = masked_pool(tmp_path)
    save(tmp_path / "x/1.png", np.zeros((16, 16), np.uint8))
    paths = mask_paths(tmp_path, pool.names)
    sheet = mask_sheet(pool, paths, np.array([True, False, False, True]))
    assert sheet.shape[0] > 2 * TILE_PX
    assert bool((sheet == [255, 0, 255]).all(2).any())
    none = mask_sheet(pool, paths, np.zeros(4, np.bool_))
    assert none.shape == sheet.shape
    paths[0].unlink()
    with pytest.raises(SceneError, match=r"0\.png: the mask is gone"):
        mask_sheet(pool, paths, np.ones(4, np.bool_))


def test_most_photographs_have_a_usable_mask(shared_data: Path) -> None:
    pool = read_pool(f"{shared_data / 'imagenette.tar'}@val")
    chosen = np.linspace(0, len(pool) - 1, 40).astype(int).tolist()
    assert sum(is_usable(object_confidence(pool.images[n])) for n in chosen) >= 20
