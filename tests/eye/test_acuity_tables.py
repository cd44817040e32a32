"""Acuity tables: offsets in their places, tables shared, bounded and built again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveasim.errors import InvalidValueError
from foveasim.eye.acuity_tables import AcuityTables, offset_distance_px, offset_index, signed_offset_index

CPU = torch.device("cpu")


class Built(list[tuple[Any, ...]]):
    """Counts what is built; a table of 8 bytes a pixel that says what it was built for."""

    def __call__(self, size: tuple[int, int], px_per_deg: float, zoom: float) -> tuple[NDArray[Any], ...]:
        self.append((size, px_per_deg, zoom))
        return (np.full(size, 100 * px_per_deg + zoom),)


def test_distances() -> None:
    distance = offset_distance_px((4, 5))
    assert distance.shape == (4, 9)
    assert distance[0, 4] == 0
    assert distance[3, 0] == distance[3, 8] == 5


@pytest.mark.parametrize("size", [(1, 1), (4, 5), (9, 2)])
def test_indices_find_offsets(size: tuple[int, int]) -> None:
    height, width = size
    gaze = torch.tensor([[0, 0], [width - 1, height - 1], [width // 2, height // 2]])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    dy, dx = y[None] - gaze[:, 1, None, None], x[None] - gaze[:, 0, None, None]
    down, across = np.meshgrid(np.arange(1 - height, height), np.arange(1 - width, width), indexing="ij")
    signed = signed_offset_index(gaze, size)
    assert torch.equal(torch.from_numpy(down).flatten()[signed], dy)
    assert torch.equal(torch.from_numpy(across).flatten()[signed], dx)
    distance = torch.from_numpy(offset_distance_px(size)).flatten()[offset_index(gaze, size)]
    torch.testing.assert_close(distance, torch.hypot(dx.double(), dy.double()))


def test_lanes_share_tables_to_three_digits_and_zooms_to_two() -> None:
    built = Built()
    tables = AcuityTables(built)
    assert tables.lookup((3, 3), torch.tensor([3.5, 3.5001, 7.0, 3.5])).tolist() == [0, 0, 1, 0]
    assert tables.lookup((3, 3), torch.tensor([3.5, 3.5]), torch.tensor([1.0, 1.51])).tolist() == [0, 2]
    assert built == []
    assert tables.arrays((3, 3))[0][:, 0, 0].tolist() == [351.0, 701.0, 351.5]
    assert len(built) == 3
    assert tables.arrays((3, 3)) is tables.arrays((3, 3))
    assert tables.lookup((3, 3), torch.tensor([8.0])).tolist() == [3]
    assert tables.arrays((3, 3))[0].shape == (4, 3, 3)
    assert len(built) == 4


def test_tensors_follow_the_arrays() -> None:
    tables = AcuityTables(Built())
    tables.lookup((2, 2), torch.tensor([1.0]))
    assert tables.tensors((2, 2), CPU)[0].shape == (1, 2, 2)
    assert tables.tensors((2, 2), CPU)[0] is tables.tensors((2, 2), CPU)[0]
    tables.lookup((2, 2), torch.tensor([2.0]))
    assert tables.tensors((2, 2), CPU)[0][:, 0, 0].tolist() == [101.0, 201.0]


def test_room_is_bounded_and_what_was_dropped_is_built_again() -> None:
    built = Built()
    tables = AcuityTables(built, max_bytes=2 * 8 * 100)
    for side in (10, 9, 8, 7):
        tables.lookup((side, side), torch.tensor([1.0, 2.0]))
        tables.tensors((side, side), CPU)
    assert len(built) == 8
    assert tables.arrays((7, 7))[0].shape == (2, 7, 7)
    assert len(built) == 8
    assert tables.arrays((10, 10))[0][:, 0, 0].tolist() == [101.0, 201.0]
    assert len(built) == 10
    big = (40, 40)
    tables.lookup(big, torch.tensor([1.0]))
    assert tables.arrays(big)[0].shape == (1, *big)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="prepared comes from another retina"):
        AcuityTables(Built()).arrays((8, 8))
