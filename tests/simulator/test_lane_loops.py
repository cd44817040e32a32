"""Glimpses of many lanes: which of them, and the memory that they get."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from foveasim.simulator.lane_loops import BufferPool, lane_ranges

LARGE = 64, (96, 96)
SMALL = 1, (96, 96)


@pytest.mark.parametrize(
    ("lanes", "ranges"),
    [
        ([1, 1, 0, 1], [(0, 2), (3, 4)]),
        ([0, 1, 0, 1, 1, 0], [(1, 2), (3, 5)]),
        ([1, 1, 1], [(0, 3)]),
        ([0, 0], []),
    ],
)
def test_neighbouring_lanes_are_one_range(lanes: list[int], ranges: list[tuple[int, int]]) -> None:
    assert lane_ranges(np.array(lanes, bool)) == ranges


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_buffers_have_the_shape_asked_for_and_nobody_elses(shape: tuple[int, tuple[int, int]]) -> None:
    pool = BufferPool()
    held = [pool.allocate(*shape) for _ in range(12)]  # more than the pool remembers
    for number, pair in enumerate(held):
        for array in pair:
            assert array.flags.c_contiguous
            assert array.flags.writeable
            array[:] = number
    assert held[0][0].shape == (shape[0], *shape[1], 3)
    assert held[0][1].shape == (shape[0], *shape[1])
    for number, pair in enumerate(held):
        assert all((array == number).all() for array in pair)


def test_memory_is_reused_once_nobody_holds_it() -> None:
    pool = BufferPool()
    image, acuity = pool.allocate(*LARGE)
    first = image.ctypes.data, acuity.ctypes.data
    del image, acuity
    image, acuity = pool.allocate(*LARGE)
    assert (image.ctypes.data, acuity.ctypes.data) == first


@pytest.mark.parametrize(
    "view", [lambda image: image[3, 5:9][None], torch.from_numpy, memoryview, lambda image: image.view(np.int8).T]
)
def test_whoever_holds_a_view_holds_the_buffer(view: object) -> None:
    pool = BufferPool()
    image, _ = pool.allocate(*LARGE)
    image[:] = 1
    mine = view(image)  # type: ignore[operator]
    del image
    for _ in range(5):
        pool.allocate(*LARGE)[0][:] = 2
    assert (np.asarray(mine) == 1).all()


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))])
def test_a_copy_has_buffers_of_its_own(make_copy: object) -> None:
    pool = BufferPool()
    where = pool.allocate(*LARGE)[0].ctypes.data
    other = make_copy(pool).allocate(*LARGE)  # type: ignore[operator]
    again = pool.allocate(*LARGE)
    assert again[0].ctypes.data == where != other[0].ctypes.data
