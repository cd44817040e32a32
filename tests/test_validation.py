"""Validation at public doors: what is let through, what is refused, and that the message helps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.validation import image_batch, number, points, seed_value, size_hw


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), np.float64(0)])
def test_number_returns_a_float(value: object) -> None:
    result = number("hidden_ratio", value, 0, 1)
    assert type(result) is float
    assert result == value


@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf, -math.inf, np.float32("nan")])
def test_number_refuses_what_is_out_of_range(value: object) -> None:
    with pytest.raises(InvalidValueError, match=r"hidden_ratio must be a finite number in \[0, 1\]; got"):
        number("hidden_ratio", value, 0, 1)


@pytest.mark.parametrize("value", ["0.5", None, True, np.bool_(True), [0.5], 1j, torch.tensor(0.5)])
def test_number_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="hidden_ratio must be a number; got"):
        number("hidden_ratio", value)


def test_number_takes_open_ends_at_their_word() -> None:
    assert number("x", 0, 0, 1, open_high=True) == 0
    assert number("x", 1, 0, 1, open_low=True) == 1
    with pytest.raises(InvalidValueError, match=r"\(0, 1\]; got 0"):
        number("x", 0, 0, 1, open_low=True)
    with pytest.raises(InvalidValueError, match=r"\[0, 1\); got 1"):
        number("x", 1, 0, 1, open_high=True)


def test_number_without_a_range_still_refuses_infinity() -> None:
    assert number("x", -1e300) == -1e300
    with pytest.raises(InvalidValueError, match="finite"):
        number("x", math.inf)


@pytest.mark.parametrize("value", [(96, 128), [96, 128], (np.int64(96), np.int32(128)), torch.Size((96, 128))])
def test_size_returns_two_ints(value: object) -> None:
    size = size_hw("size", value)
    assert size == (96, 128)
    assert [type(side) for side in size] == [int, int]


@pytest.mark.parametrize("value", [96, "96", (96,), (96, 96, 3), (96.0, 96), (True, 96), None, ("a", "b")])
def test_size_refuses_what_is_no_pair(value: object) -> None:
    with pytest.raises(InvalidTypeError, match=r"size must be a pair \(H, W\) of whole numbers; got"):
        size_hw("size", value)


@pytest.mark.parametrize("value", [(7, 96), (96, 7), (0, 0), (-96, 96), (96, 16385)])
def test_size_refuses_sides_out_of_range(value: tuple[int, int]) -> None:
    with pytest.raises(InvalidValueError, match="8 to 16384 px"):
        size_hw("size", value)


def test_size_limits_are_inclusive() -> None:
    assert size_hw("size", (8, 16384)) == (8, 16384)
    assert size_hw("size", (2, 3), minimum=2, maximum=3) == (2, 3)


@pytest.mark.parametrize(
    "value",
    [
        [[1.5, 2.5], [3, 4]],
        np.array([[1.5, 2.5], [3, 4]]),
        np.array([[1.5, 2.5], [3, 4]], dtype=np.float16),
        torch.tensor([[1.5, 2.5], [3, 4]], dtype=torch.float64),
    ],
)
def test_points_become_float32(value: object) -> None:
    result = points("fixation_px", value, lanes=2)
    assert result.dtype == torch.float32
    assert result.tolist() == [[1.5, 2.5], [3.0, 4.0]]


def test_points_without_a_lane_axis_say_how_to_add_one() -> None:
    with pytest.raises(
        InvalidValueError, match=r"must be \(B, 2\); got \(2,\)\. Add a batch axis: fixation_px\[None\]\."
    ):
        points("fixation_px", [48, 48])


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2), (0,), (3,), ()])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match=r"fixation_px must be \(B, 2\); got"):
        points("fixation_px", np.zeros(shape))


def test_points_of_another_number_of_lanes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"must be \(4, 2\); got \(3, 2\)"):
        points("fixation_px", torch.zeros(3, 2), lanes=4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("lane", [0, 2])
def test_points_name_the_lane_that_is_not_finite(bad: float, lane: int) -> None:
    value = torch.zeros(3, 2)
    value[lane, 1] = bad
    with pytest.raises(InvalidValueError, match=f"finite; lane {lane} is"):
        points("fixation_px", value)


@pytest.mark.parametrize("value", ["somewhere", [["a", "b"]], [[1, 2], [3]], object()])
def test_points_that_are_no_numbers_are_refused(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="fixation_px must be points"):
        points("fixation_px", value)


def test_images_come_back_contiguous_and_unchanged() -> None:
    array = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    assert np.array_equal(image_batch("image", array).numpy(), array)
    turned = torch.from_numpy(array).permute(0, 2, 1, 3)
    assert not turned.is_contiguous()
    result = image_batch("image", turned)
    assert result.is_contiguous()
    assert torch.equal(result, turned)


@pytest.mark.parametrize(
    "value", [np.zeros((1, 4, 5, 3)), torch.zeros(1, 4, 5, 3), np.zeros((1, 4, 5, 3), np.int16), [[1]], None]
)
def test_images_of_another_dtype_are_refused(value: object) -> None:
    with pytest.raises(InvalidTypeError, match=r"image must be uint8 \(B, H, W, 3\), 0-255; got"):
        image_batch("image", value)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((4, 5, 3), r"Add a batch axis: image\[None\]"),
        ((1, 3, 4, 5), r"permute\(0, 2, 3, 1\)"),
        ((4, 5), r"got \(4, 5\)"),
        ((1, 4, 5, 4), r"got \(1, 4, 5, 4\)"),
        ((0, 4, 5, 3), r"got \(0, 4, 5, 3\)"),
    ],
)
def test_images_of_another_shape_are_refused_with_advice(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InvalidValueError, match=hint):
        image_batch("image", torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("value", [0, 7, 2**63 - 1, np.int64(3), np.uint8(9)])
def test_seeds_are_whole_numbers(value: object) -> None:
    seed = seed_value("seed", value)
    assert type(seed) is int
    assert seed == value


@pytest.mark.parametrize("value", [-1, 2**63, -(2**70)])
def test_seeds_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(InvalidValueError, match="seed must be from 0 to"):
        seed_value("seed", value)


@pytest.mark.parametrize("value", [1.0, "1", True, None, np.float64(1)])
def test_seeds_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="seed must be a whole number"):
        seed_value("seed", value)


def test_arrays_that_torch_does_not_take_as_they_are() -> None:
    for image in (np.zeros((2, 8, 9, 3), np.uint8)[:, ::-1], np.asfortranarray(np.zeros((2, 8, 9, 3), np.uint8))):
        assert image_batch("image", image).is_contiguous()
    frozen = np.arange(4, dtype=np.float32).reshape(2, 2)
    frozen.flags.writeable = False  # torch would warn
    assert points("fixation_px", frozen).tolist() == [[0, 1], [2, 3]]
    assert points("fixation_px", np.arange(4.0).reshape(2, 2)[::-1]).tolist() == [[2, 3], [0, 1]]
