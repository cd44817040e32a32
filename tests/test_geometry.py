"""Pixels, degrees and normalised coordinates: worked numbers, round trips, edges."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from foveasim import geometry

SIZES = [(96, 96), (96, 128), (480, 640), (1, 3), (1080, 1920), (97, 53)]


def spread(count: int = 200) -> Tensor:
    """Points all over the normalised scene and a little beyond."""
    steps = torch.arange(count, dtype=torch.float32)
    return torch.stack((torch.sin(steps * 1.7) * 1.2, torch.cos(steps * 2.3) * 1.2), 1)


@pytest.mark.parametrize(
    ("point_px", "point_norm"),
    [
        ((0, 0), (-1, -1)),
        ((0.5, 0.5), (-0.9921875, -0.98958333)),
        ((64, 48), (0, 0)),
        ((128, 96), (1, 1)),
        ((96, 24), (0.5, -0.5)),
    ],
)
def test_worked_numbers_of_a_scene_of_96_x_128(point_px: tuple[float, float], point_norm: tuple[float, float]) -> None:
    size = (96, 128)
    torch.testing.assert_close(geometry.px_to_norm(torch.tensor(point_px), size), torch.tensor(point_norm).float())
    torch.testing.assert_close(
        geometry.norm_to_px(torch.tensor(point_norm).float(), size), torch.tensor(point_px).float()
    )


@pytest.mark.parametrize("size", SIZES)
def test_round_trips(size: tuple[int, int]) -> None:
    points = spread()
    torch.testing.assert_close(geometry.px_to_norm(geometry.norm_to_px(points, size), size), points, atol=1e-6, rtol=0)
    px = geometry.norm_to_px(points, size)
    torch.testing.assert_close(geometry.rescale_px(geometry.rescale_px(px, size, (31, 77)), (31, 77), size), px)


@pytest.mark.parametrize("size", SIZES)
def test_rescaling_keeps_the_normalised_place(size: tuple[int, int]) -> None:
    points = spread()
    carried = geometry.rescale_px(geometry.norm_to_px(points, (96, 128)), (96, 128), size)
    torch.testing.assert_close(geometry.px_to_norm(carried, size), points, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2), (0, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_leading_axes_and_dtypes_are_kept(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    points = torch.zeros(shape, dtype=dtype)
    results = [
        geometry.norm_to_px(points, (96, 128)),
        geometry.px_to_norm(points, (96, 128)),
        geometry.rescale_px(points, (96, 128), (48, 64)),
        geometry.clamp_px(points, (96, 128)),
    ]
    assert all((result.shape, result.dtype) == (points.shape, dtype) for result in results)


def test_x_is_the_width_and_y_the_height() -> None:
    right = geometry.norm_to_px(torch.tensor([1.0, 0.0]), (10, 1000))
    down = geometry.norm_to_px(torch.tensor([0.0, 1.0]), (10, 1000))
    assert right.tolist() == [1000, 5]
    assert down.tolist() == [500, 10]


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_the_origin(size: tuple[int, int]) -> None:
    centre = geometry.centre_px(size, lanes=3)
    assert centre.shape == (3, 2)
    assert centre.dtype == torch.float32
    torch.testing.assert_close(geometry.px_to_norm(centre, size), torch.zeros(3, 2), atol=1e-6, rtol=0)
    centre[0] = 0  # lanes must not share memory
    assert centre[1].tolist() == [size[1] / 2, size[0] / 2]


def test_no_point_of_a_scene_is_beyond_one() -> None:
    # An observation's fixation must lie in Box(-1, 1): rounding may not carry the edge of any scene past it.
    for side in range(1, 4097):
        edges = torch.tensor([[0.0, 0.0], [side, side]])
        assert geometry.px_to_norm(edges, (side, side)).abs().max() <= 1
        assert float(geometry.clamp_px(geometry.norm_to_px(torch.ones(1, 2), (side, side)), (side, side)).max()) == side


def test_gaze_stops_at_the_edge_and_inside_stays_where_it_is() -> None:
    points = torch.tensor([[-5.0, 10.0], [200.0, 96.5], [0.0, 0.0], [128.0, 96.0], [63.25, 12.5]])
    clamped = geometry.clamp_px(points, (96, 128))
    assert clamped.tolist() == [[0, 10], [128, 96], [0, 0], [128, 96], [63.25, 12.5]]
    assert torch.equal(geometry.clamp_px(clamped, (96, 128)), clamped)
    assert points[0].tolist() == [-5, 10]


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_centre_lies_in_its_pixel(size: tuple[int, int]) -> None:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    index = torch.stack((columns, rows), -1)
    assert torch.equal(geometry.pixel_index(index + 0.5, size), index)
    assert torch.equal(geometry.pixel_index(index.to(torch.float32), size), index)


def test_points_on_and_beyond_the_edges_belong_to_the_nearest_pixel() -> None:
    points = torch.tensor([[0.0, 0.0], [128.0, 96.0], [127.999, 95.999], [-3.0, 500.0], [500.0, -3.0]])
    index = geometry.pixel_index(points, (96, 128))
    assert index.dtype == torch.int64
    assert index.tolist() == [[0, 0], [127, 95], [127, 95], [0, 95], [127, 0]]


def test_distance_in_degrees() -> None:
    a, b = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert geometry.distance_deg(a, b, 1.0).tolist() == [5, 0]
    assert geometry.distance_deg(a, b, torch.tensor([2.5, 9.0])).tolist() == [2, 0]
    assert torch.equal(geometry.distance_deg(a, b, 3.5), geometry.distance_deg(b, a, 3.5))


@pytest.mark.parametrize("size", SIZES)
def test_the_short_side_spans_the_default_angle(size: tuple[int, int]) -> None:
    px_per_deg = geometry.default_px_per_deg(size)
    assert math.isclose(min(size) / px_per_deg, 96 / 3.5)
    assert geometry.default_px_per_deg((size[1], size[0])) == px_per_deg


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (4, 3), (8, 8)])
def test_grid_cells_tile_the_scene(rows: int, cols: int) -> None:
    grid = geometry.grid_norm(rows, cols)
    assert grid.shape == (rows * cols, 2)
    assert grid.dtype == torch.float32
    torch.testing.assert_close(grid.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    # Seen as pixels of a scene of rows x cols, cell i lies in the middle of pixel (i mod cols, i div cols).
    px = geometry.norm_to_px(grid, (rows, cols))
    expected = torch.tensor([[i % cols + 0.5, i // cols + 0.5] for i in range(rows * cols)])
    torch.testing.assert_close(px, expected, atol=1e-5, rtol=0)


def test_grid_goes_row_by_row() -> None:
    assert geometry.grid_norm(2, 2).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
