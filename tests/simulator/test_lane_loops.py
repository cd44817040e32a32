"""A look of many lanes: which of them, and the memory that they are given."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from foveasim.simulator.lane_loops import Rooms, spans_of

LARGE = 64, (96, 96)
SMALL = 1, (96, 96)


@pytest.mark.parametrize(
    ("lanes", "spans"),
    [
        ([1, 1, 0, 1], [(0, 2), (3, 4)]),
        ([0, 1, 0, 1, 1, 0], [(1, 2), (3, 5)]),
        ([1, 1, 1], [(0, 3)]),
        ([0, 0], []),
    ],
)
def test_neighbouring_lanes_are_one_span(lanes: list[int], spans: list[tuple[int, int]]) -> None:
    assert spans_of(np.array(lanes, bool)) == spans


@pytest.mark.parametrize("room", [SMALL, LARGE])
def test_rooms_are_of_the_shape_asked_for_and_nobody_elses(room: tuple[int, tuple[int, int]]) -> None:
    rooms = Rooms()
    held = [rooms.fresh(*room) for _ in range(12)]  # more than are kept in mind
    for number, pair in enumerate(held):
        for array in pair:
            assert array.flags.c_contiguous
            assert array.flags.writeable
            array[:] = number
    assert held[0][0].shape == (room[0], *room[1], 3)
    assert held[0][1].shape == (room[0], *room[1])
    for number, pair in enumerate(held):
        assert all((array == number).all() for array in pair)


def test_memory_is_given_again_once_nobody_holds_it() -> None:
    rooms = Rooms()
    image, acuity = rooms.fresh(*LARGE)
    first = image.ctypes.data, acuity.ctypes.data
    del image, acuity
    image, acuity = rooms.fresh(*LARGE)
    assert (image.ctypes.data, acuity.ctypes.data) == first


@pytest.mark.parametrize(
    "view", [lambda image: image[3, 5:9][None], torch.from_numpy, memoryview, lambda image: image.view(np.int8).T]
)
def test_whoever_holds_a_view_holds_the_room(view: object) -> None:
    rooms = Rooms()
    image, _ = rooms.fresh(*LARGE)
    image[:] = 1
    mine = view(image)  # type: ignore[operator]
    del image
    for _ in range(5):
        rooms.fresh(*LARGE)[0][:] = 2
    assert (np.asarray(mine) == 1).all()


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda rooms: pickle.loads(pickle.dumps(rooms))])
def test_a_copy_has_rooms_of_its_own(make_copy: object) -> None:
    rooms = Rooms()
    where = rooms.fresh(*LARGE)[0].ctypes.data
    other = make_copy(rooms).fresh(*LARGE)  # type: ignore[operator]
    again = rooms.fresh(*LARGE)
    assert again[0].ctypes.data == where != other[0].ctypes.data
