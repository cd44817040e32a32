from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from foveasim.drawing.canvas import Rect, colour_map, fit_text, fit_to, text, text_width, wrap_text
from foveasim.drawing.layout import MIN_SIDE_PX, arrange
from foveasim.drawing.render import GAZE, PATH, Heat, View, layout_of, render
from foveasim.errors import InvalidValueError

SIZES = [(720, 1280), (1280, 720), (1440, 2560), (MIN_SIDE_PX, MIN_SIDE_PX), (240, 900), (900, 240), (333, 517)]
SCENES = [(96, 96), (300, 451), (480, 360), (100, 1000), (1000, 100)]


def view(height: int = 90, width: int = 120, **changes: object) -> View:
    def flat(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return np.full((height, width, 3), level, np.uint8)

    made = View(
        scene=flat(60),
        glimpse=flat(90),
        belief=flat(120),
        prediction=flat(150),
        heat=Heat("error", np.zeros((12, 16), np.uint8), "0", "64"),
        fixation_px=np.array([[60, 45], [30, 20]], np.float32),
        gaze_px=(30.0, 20.0),
        fovea_px=10,
        errors=(40.0, 30.0),
        budget=8,
        agent="saliency",
        retina="pyramid",
        scene_name="coffee",
        reward=0.1,
        fps=60.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names are the caller's


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("small", [2, 3])
def test_panels_lie_inside_apart_and_in_the_shape_of_the_scene(
    size: tuple[int, int], scene: tuple[int, int], small: int
) -> None:
    layout = arrange(size, scene, small)
    assert len(layout.images) == 2 + small
    rects = (*layout.images, layout.plot, layout.status)
    taken = np.zeros(size, int)
    for rect in rects:
        assert rect.x >= 0 and rect.y >= 0 and rect.x + rect.width <= size[1] and rect.y + rect.height <= size[0]
        taken[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] += 1
    assert taken.max() == 1
    assert layout.images[0][2:] == layout.images[1][2:]
    for rect in layout.images:
        aspect = scene[1] / scene[0]
        assert abs(rect.width - aspect * rect.height) <= max(1, aspect)  # to the pixel


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (1080, 1920), (600, 2000)])
def test_panels_use_the_window(size: tuple[int, int]) -> None:
    layout = arrange(size, (300, 400), 3)
    assert sum(r.width * r.height for r in layout.images) > 0.33 * size[0] * size[1]


def test_a_window_that_is_too_small_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="160"):
        render(view(), (MIN_SIDE_PX - 1, 500))


def test_window_points_lead_to_scene_points_and_back() -> None:
    layout = arrange((720, 1280), (90, 120), 3)
    for index, rect in enumerate(layout.images):
        assert layout.scene_point(rect.x, rect.y, (90, 120)) == (0, 0)
        middle = layout.scene_point(rect.x + rect.width / 2, rect.y + rect.height / 2, (90, 120))
        assert middle == pytest.approx((60, 45))
        assert layout.panel_at(rect.x + 1, rect.y + 1) == index
        assert layout.scene_point_clamped(-100, 1e6, (90, 120), index) == (0, 90)
    assert layout.scene_point(0, 0, (90, 120)) is None
    assert layout.panel_at(layout.plot.x + 1, layout.plot.y + 1) is None


def test_the_picture_shows_each_image_in_its_panel() -> None:
    displayed = view(fixation_px=np.zeros((0, 2), np.float32), fovea_px=0, moving=True)
    picture = render(displayed, (720, 1280))
    assert picture.shape == (720, 1280, 3)
    assert picture.dtype == np.uint8
    for rect, level in zip(layout_of(displayed, (720, 1280)).images, (60, 150, 90, 120), strict=False):
        panel = rect.crop(picture)
        assert (panel[rect.height // 2, rect.width // 2] == level).all()
        assert (panel[-1, -1] == level).all()


def test_without_a_prediction_its_panel_shows_what_is_remembered() -> None:
    displayed = view(prediction=None, fixation_px=np.zeros((0, 2), np.float32), fovea_px=0, moving=True)
    layout = layout_of(displayed, (720, 1280))
    assert len(layout.images) == 4
    assert (layout.images[1].crop(render(displayed, (720, 1280)))[-1, -1] == 120).all()


def test_rendering_is_pure() -> None:
    displayed = view()
    before = {name: getattr(displayed, name).copy() for name in ("scene", "glimpse", "belief", "prediction")}
    first = render(displayed, (720, 1280))
    stored = first.copy()
    first[:] = 0  # whoever gets a picture may draw on it
    second = render(displayed, (720, 1280))
    assert np.array_equal(second, stored)
    for name, image in before.items():
        assert np.array_equal(getattr(displayed, name), image)


def test_the_name_of_the_heat_map_is_whole_and_the_colour_bar_beside_it_where_there_is_room() -> None:
    name, wide = Heat("uncertainty", np.zeros((12, 12), np.uint8), "0", "64"), 0
    for size in ((720, 1280), (500, 800), (480, 640)):
        picture = render(view(90, 90, heat=name), size)
        layout = layout_of(view(90, 90, heat=name), size)
        rect, px = layout.images[-1], layout.px(14)
        title = picture[rect.y - layout.title_px : rect.y, rect.x : rect.x + rect.width]
        alone = np.full((layout.title_px, rect.width, 3), picture[0, 0], np.uint8)
        width = text(alone, 0, layout.title_px - layout.px(8), "uncertainty", px, (236, 239, 244))
        ink = (np.abs(title.astype(int) - picture[0, 0]).max(2) > 40).any(0)
        assert ink[: int(width)].any() and width <= rect.width
        assert not ink[int(width) + 1 : int(width) + layout.px(10)].any()  # no ellipsis, no bar over it
        wide += bool(ink[int(width) + layout.px(10) :].any())
    assert wide >= 1


def test_a_changed_array_is_drawn_anew_and_a_read_only_one_from_memory() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    assert fit_to(image, (32, 32)).max() == 0
    image[:] = 200
    assert fit_to(image, (32, 32)).min() == 200
    image.flags.writeable = False
    assert fit_to(image, (32, 32)) is fit_to(image, (32, 32))


def test_the_last_fixation_and_the_moving_eye_are_marked() -> None:
    displayed = view(fovea_px=0)
    rect = layout_of(displayed, (720, 1280)).images[0]
    scale = rect.width / 120

    def colour(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], x: float, y: float) -> list[int]:
        return [int(v) for v in rect.crop(picture)[round(y * scale) - 7, round(x * scale)]]  # above the number

    def near(one: list[int], other: tuple[int, int, int]) -> bool:
        return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 40

    picture = render(displayed, (720, 1280))
    assert near(colour(picture, 30, 20), GAZE)
    assert near(colour(picture, 60, 45), PATH)
    flying = render(replace(displayed, moving=True, gaze_px=(90.0, 70.0)), (720, 1280))
    assert near(colour(flying, 30, 20), PATH)
    under = rect.crop(flying)[round(70 * scale), round(90 * scale)]
    assert tuple(int(v) for v in under) == GAZE


@pytest.mark.parametrize("size", [(720, 1280), (MIN_SIDE_PX, MIN_SIDE_PX), (300, 200)])
def test_every_part_draws_at_every_size(size: tuple[int, int]) -> None:
    plain = render(view(), size)
    for change in (
        {"help": (("Space", "pause"), ("?", "help")) * 9},
        {"toast": "saved " + "x" * 300},
        {"alert": "agent raised ValueError: " + "long words " * 40},
        {"paused": True, "recording": True},
    ):
        assert not np.array_equal(render(view(**change), size), plain)


def test_the_plot_draws_any_course() -> None:
    size = (720, 1280)
    for errors in ((), (0.0,), (math.nan,), (math.nan, 20.0, math.nan), tuple(range(500)), (1e-9, 1e9)):
        assert render(view(errors=errors, budget=0, past_errors=((1.0, 2.0), ())), size).shape == (*size, 3)
    one, other = render(view(errors=(40.0, 30.0)), size), render(view(errors=(40.0, 10.0)), size)
    plot = layout_of(view(), size).plot
    assert not np.array_equal(plot.crop(one), plot.crop(other))


def test_a_wrong_image_is_named() -> None:
    with pytest.raises(InvalidValueError, match="glimpse must be"):
        render(view(glimpse=np.zeros((90, 120), np.uint8)), (720, 1280))
    with pytest.raises(InvalidValueError, match="prediction must be"):
        render(view(prediction=np.zeros((90, 120, 3), np.float32)), (720, 1280))


def test_text_is_placed_clipped_and_shortened() -> None:
    canvas = np.zeros((40, 200, 3), np.uint8)
    width = text(canvas, 20, 30, "fixation", 16, (255, 255, 255))
    columns = np.flatnonzero(canvas.max((0, 2)))
    assert 20 <= columns[0] <= 24
    assert columns[-1] <= 20 + width
    text(canvas, -30, 5, "beyond every edge " * 20, 30, (255, 255, 255))
    for string in ("a scene of a very long name", "é ü 日本 → naïve"):
        assert text_width(fit_text(string, 16, 80), 16) <= 80
    assert fit_text("anything", 16, 1) == ""
    rows = wrap_text("one two three four five six seven", 16, 60, 3)
    assert len(rows) == 3
    assert max(text_width(row, 16) for row in rows) <= 60


def test_colour_maps_rise_in_brightness() -> None:
    ramp = colour_map(np.arange(256, dtype=np.uint8)[None])[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert ramp[0] < 5
    assert ramp[-1] > 230
    assert (np.diff(ramp) > -1).all()


def test_a_rectangle_holds_its_upper_left_edges_only() -> None:
    rect = Rect(10, 20, 30, 40)
    assert rect.contains(10, 20)
    assert not rect.contains(40, 20)
    assert not rect.contains(10, 60)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_to_be_found_is_shown_and_marked_once_it_is(size: tuple[int, int]) -> None:
    target = np.zeros((18, 18, 3), np.uint8)
    target[:] = (250, 10, 200)
    plain, sought, found = (
        render(view(**more), size) for more in ({}, {"target": target}, {"target": target, "found": True})
    )

    def count(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], colour: object) -> int:
        return int((picture == colour).all(2).sum())

    assert count(plain, target[0, 0]) == 0 and count(sought, target[0, 0]) >= 36
    assert count(found, GAZE) >= count(sought, GAZE) + 8
    with pytest.raises(InvalidValueError, match="target must be"):
        render(view(target=target[..., 0]), size)
