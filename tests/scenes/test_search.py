"""Search displays and sign scenes: repeatable, what their names promise, and where things lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scenes.search import COLOURS, SEARCH_KINDS, SHAPES, Item, SearchScenes, SearchSource, paint_item, portrait
from foveasim.scenes.signs import SignScenes

PHOTOS = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)


def scenes(**more: Any) -> SearchScenes:
    return SearchScenes(**{"photos": PHOTOS, "seed": 3, **more})


def around(source: SearchScenes, index: int, item: int) -> np.ndarray:
    """The pixels of one item's square."""
    display, half = source.display(index), source.item_px / 2
    x, y = (display.items_px[item] - half).astype(int)
    return source.picture(index).image[y : y + source.item_px, x : x + source.item_px]


def colours(patch: np.ndarray) -> set[tuple[int, ...]]:
    """The pure colours of a patch that are those of items."""
    known = {tuple(np.rint(np.array(c) * 255).astype(int).tolist()) for c in COLOURS}
    return known & set(map(tuple, patch.reshape(-1, 3).tolist()))


@pytest.mark.parametrize("kind", SEARCH_KINDS)
def test_displays_repeat_in_any_order_and_splits_share_none(kind: str) -> None:
    one, two, test = scenes(kinds=kind), scenes(kinds=kind), scenes(kinds=kind, split="test")
    ahead = [one.picture(index).image for index in range(4)]
    assert np.array_equal(two.picture(3).image, ahead[3])
    np.testing.assert_array_equal(two.display(2).items_px, one.display(2).items_px)
    np.testing.assert_array_equal(two.display(2).target, one.display(2).target)
    assert not any(np.array_equal(test.picture(i).image, image) for i in range(4) for image in ahead)
    assert isinstance(one, SearchSource)
    assert one.picture(0).size == one.size == (96, 96)


@pytest.mark.parametrize("kind", SEARCH_KINDS)
def test_items_lie_apart_inside_the_scene_and_away_from_its_middle(kind: str) -> None:
    source = scenes(kinds=kind, set_sizes=(1, 7, 20), size=(96, 128))
    sizes = set()
    for index in range(30):
        display = source.display(index)
        sizes.add(display.set_size)
        places, radius = display.items_px, display.radius_px
        assert (places >= radius).all()
        assert (places <= np.array([128, 96]) - radius).all()
        away = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(places))
        assert (away >= 2 * radius).all()
        assert (np.hypot(*(places - [64, 48]).T) > radius).all()
    assert sizes == {1, 7, 20}


def test_where_the_target_lies_does_not_depend_on_set_size() -> None:
    middle = np.array([48, 48])
    eccentricity = {
        n: np.mean([np.hypot(*(scenes(set_sizes=(n,)).display(i).items_px[0] - middle)) for i in range(150)])
        for n in (2, 16)
    }
    assert eccentricity[2] == pytest.approx(eccentricity[16], rel=0.1)


def test_a_colour_target_differs_by_its_colour_alone() -> None:
    source = scenes(kinds="colour", set_sizes=(9,))
    for index in range(6):
        patches = [around(source, index, item) for item in range(9)]
        target, others = colours(patches[0]), [colours(patch) for patch in patches[1:]]
        assert len(target) == 1
        assert all(other == others[0] != target for other in others)
        masks = [(patch != 128).any(2) for patch in patches]
        assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_a_shape_target_differs_by_its_shape_alone() -> None:
    source = scenes(kinds="shape", set_sizes=(9,))
    for index in range(6):
        patches = [around(source, index, item) for item in range(9)]
        assert len({frozenset(colours(patch)) for patch in patches}) == 1
        masks = [(patch != 128).any(2) for patch in patches]
        assert all(np.array_equal(mask, masks[1]) for mask in masks[1:])
        assert not np.array_equal(masks[0], masks[1])


def test_distractors_of_a_conjunction_share_one_feature_each() -> None:
    source = scenes(kinds="conjunction", set_sizes=(9,))
    for index in range(6):
        patches = [around(source, index, item) for item in range(9)]
        hues, masks = [colours(p) for p in patches], [(p != 128).any(2) for p in patches]
        same_hue = [hue == hues[0] for hue in hues[1:]]
        same_shape = [np.array_equal(mask, masks[0]) for mask in masks[1:]]
        assert all(a != b for a, b in zip(same_hue, same_shape, strict=True))
        assert sum(same_hue) == 4


def test_the_targets_picture_is_the_target_as_large_as_it_is() -> None:
    for kind in ("colour", "shape", "conjunction"):
        source = scenes(kinds=kind)
        for index in range(4):
            target = source.display(index).target
            assert target.shape == (36, 36, 3)
            np.testing.assert_array_equal(target[12:24, 12:24], around(source, index, 0))
            assert (target[:11] == 128).all()
    large = scenes(size=(256, 256))
    assert large.display(0).target.shape == (48, 48, 3)


def test_photographs_of_the_splits_differ_and_the_targets_shows_nothing_else() -> None:
    flat = np.arange(1, 9, dtype=np.uint8)[:, None, None, None] * np.full((8, 64, 64, 3), 30, np.uint8)
    for split, own in (("train", {30, 90, 150, 210}), ("test", {60, 120, 180, 240})):
        source = scenes(kinds="photos", photos=flat, split=split, set_sizes=(5,))
        for index in range(8):
            levels = [int(around(source, index, item)[6, 6, 0]) for item in range(5)]
            ground = int(np.median(source.picture(index).image))
            assert {*levels, ground} <= own
            assert levels[0] not in {*levels[1:], ground}


def test_shapes_have_their_area_and_are_clipped_at_the_edge() -> None:
    radius, area = 20.0, {}
    for shape in ("disc", "square"):
        levels = np.zeros((64, 64, 3))
        paint_item(levels, Item(shape, (1.0, 1.0, 1.0)), (32.0, 32.0), radius)
        area[shape] = levels[..., 0].sum()
    assert area["disc"] == pytest.approx(np.pi * (0.88 * radius) ** 2, rel=0.01)
    assert area["square"] == pytest.approx(area["disc"], rel=0.02)
    half = np.zeros((64, 64, 3))
    paint_item(half, Item("disc", (1.0, 1.0, 1.0)), (0.0, 32.0), radius)
    assert half[..., 0].sum() == pytest.approx(area["disc"] / 2, rel=0.02)
    outside = np.zeros((8, 8, 3))
    paint_item(outside, Item("disc", (1.0, 1.0, 1.0)), (-50.0, 90.0), radius)
    assert not outside.any()


def test_letters_turn_by_quarters_clockwise() -> None:
    upright, turned = np.zeros((2, 40, 40, 3))
    paint_item(upright, Item("T", (1.0,) * 3), (20.0, 20.0), 16)
    paint_item(turned, Item("T", (1.0,) * 3, angle=np.pi / 2), (20.0, 20.0), 16)
    np.testing.assert_allclose(turned, np.rot90(upright, -1), atol=1e-9)
    assert upright[:10].sum() > 2 * upright[30:].sum()
    assert "T" in SHAPES
    assert (portrait(Item("L", (1.0,) * 3), 6, 36)[0] == 128).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kinds": "texture"}, InvalidValueError, "colour, shape"),
        ({"kinds": ()}, InvalidValueError, "kinds"),
        ({"split": "val"}, InvalidValueError, "train, test"),
        ({"set_sizes": 8}, InvalidTypeError, r"Write \(8,\)"),
        ({"set_sizes": (60,)}, InvalidValueError, "smaller item_px"),
        ({"set_sizes": (0,)}, InvalidValueError, "set_sizes"),
        ({"item_px": 4}, InvalidValueError, "item_px"),
        ({"kinds": "photos", "photos": PHOTOS[:2]}, InvalidValueError, "at least two for each split"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scenes(**options)


def test_an_index_out_of_range_is_named() -> None:
    with pytest.raises(InvalidValueError, match="from 0 to"):
        scenes(count=5).display(5)


def test_signs_show_their_class_in_the_cells_of_the_code_and_nowhere_else() -> None:
    source = SignScenes(classes=8, seed=2, count=160)
    assert len(source.labels) == 8
    code = source.code_norm
    assert code.shape == (3, 2)
    light = np.zeros((160, 5, 5), bool)
    for index in range(160):
        picture = source.picture(index)
        assert picture.label == index % 8
        centre = (np.arange(5) * 19.2 + 9.6).astype(int)
        level = picture.image[np.ix_(centre, centre)][..., 0].astype(int)
        light[index] = level > 128
        for bit, (x, y) in enumerate(code):
            column, row = int((x + 1) * 2.5), int((y + 1) * 2.5)
            assert light[index, row, column] == bool((picture.label >> (2 - bit)) & 1)
    tells = np.abs(np.corrcoef(light.reshape(160, 25).T, (np.arange(160) % 8) >= 4)[-1, :-1])
    assert (tells > 0.99).sum() == 1
    assert np.sort(tells)[-2] < 0.3


def test_splits_of_signs_share_the_code_and_no_scene() -> None:
    train, test = SignScenes(), SignScenes(split="test")
    np.testing.assert_array_equal(train.code_norm, test.code_norm)
    assert not any(np.array_equal(train.picture(i).image, test.picture(j).image) for i in range(8) for j in range(8))
    assert any(not np.array_equal(train.code_norm, SignScenes(seed=s).code_norm) for s in range(1, 4))
    assert np.abs(train.code_norm).max(1).min() == pytest.approx(0.8)


def test_bad_signs_are_named() -> None:
    with pytest.raises(InvalidValueError, match="cells"):
        SignScenes(cells=(2, 2))
    with pytest.raises(InvalidValueError, match="train, test"):
        SignScenes(split="all")
    with pytest.raises(InvalidValueError, match="classes"):
        SignScenes(classes=1)
