from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.metrics.scanmatch import nearest_distances, scanmatch, string_edit_distance
from foveasim.scanpath.scanpath import Scanpath
from foveasim.types import Frame

SIZE = (600, 800)


def path(points: object, duration_ms: object = None) -> Scanpath:
    xy = torch.tensor(np.asarray(points), dtype=torch.float32).reshape(-1, 2)
    lasts = torch.full((len(xy),), 200.0) if duration_ms is None else torch.tensor(duration_ms, dtype=torch.float32)
    return Scanpath(xy, torch.cumsum(lasts, 0) - lasts, lasts)


def cells(*columns_rows: tuple[int, int]) -> Scanpath:
    """A path through the middles of cells of 50 px."""
    return path([(50 * column + 25, 50 * row + 25) for column, row in columns_rows])


def random_paths(count: int, seed: int) -> list[Scanpath]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 17, count)
    return [path(rng.random((n, 2)) * (800, 600), rng.uniform(20, 600, n)) for n in lengths]


def slow_scanmatch(a: Scanpath, b: Scanpath, threshold: float, gap: float, bin_ms: float | None) -> float:
    """The definition, cell by cell."""
    strings = []
    for one in (a, b):
        string = []
        for (x, y), lasts in zip(one.fixation_px.tolist(), one.duration_ms.tolist(), strict=True):
            cell = (min(int(x * 16 / 800), 15), min(int(y * 12 / 600), 11))
            string += [cell] * (1 if bin_ms is None else round(int(lasts) / bin_ms))
        strings.append(string)
    first, second = strings
    if not first or not second:
        return float("nan")
    table = {(i, 0): gap * i for i in range(len(first) + 1)} | {(0, j): gap * j for j in range(len(second) + 1)}
    for i, (ax, ay) in enumerate(first, start=1):
        for j, (bx, by) in enumerate(second, start=1):
            score = threshold - float(np.hypot(ax - bx, ay - by))
            table[i, j] = max(table[i - 1, j - 1] + score, table[i - 1, j] + gap, table[i, j - 1] + gap)
    return table[len(first), len(second)] / (threshold * max(len(first), len(second)))


def test_equal_strings_score_one_and_no_other_does() -> None:
    paths = random_paths(12, 0)
    scores = scanmatch(paths, paths, SIZE)
    assert np.allclose(np.diag(scores), 1)
    assert (scores - np.eye(12) < 1).all()
    assert scores.min() >= 0
    assert np.allclose(scores, scores.T)


def test_scores_that_one_can_work_out() -> None:
    far, near, here = cells((15, 11)), cells((1, 1)), cells((0, 0))
    assert scanmatch([here], [near], SIZE)[0, 0] == pytest.approx((3.5 - 2**0.5) / 3.5)
    assert scanmatch([here], [far], SIZE)[0, 0] == 0  # facing none is better
    two = cells((0, 0), (15, 11))
    assert scanmatch([here], [two], SIZE)[0, 0] == pytest.approx(0.5)
    assert scanmatch([here], [two], SIZE, gap=-1)[0, 0] == pytest.approx((3.5 - 1) / 7)
    assert scanmatch([here], [far], SIZE, gap=-9.0)[0, 0] == pytest.approx((3.5 - np.hypot(15, 11)) / 3.5)
    order = scanmatch([cells((0, 0), (8, 8))], [cells((8, 8), (0, 0))], SIZE)[0, 0]
    assert order == pytest.approx(0.5)


@pytest.mark.parametrize(("threshold", "gap", "bin_ms"), [(3.5, 0.0, None), (5.2, -0.4, None), (3.5, 0.0, 50.0)])
def test_all_pairs_agree_with_the_definition(threshold: float, gap: float, bin_ms: float | None) -> None:
    first, second = random_paths(8, 1), random_paths(9, 2)
    scores = scanmatch(first, second, SIZE, threshold=threshold, gap=gap, bin_ms=bin_ms)
    expected = [[slow_scanmatch(a, b, threshold, gap, bin_ms) for b in second] for a in first]
    assert scores.shape == (8, 9)
    assert np.allclose(scores, expected, equal_nan=True)


def test_points_beyond_the_edge_belong_to_the_cells_there() -> None:
    corner = path([(800, 600), (-3, 610.5)])
    assert scanmatch([corner], [cells((15, 11), (0, 11))], SIZE)[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("duration_ms", "symbols"), [(24.9, 0), (25.0, 0), (25.9, 0), (26.0, 1), (74.9, 1), (75.0, 2), (125.0, 2), (126, 3)]
)
def test_a_duration_is_rounded_to_symbols_half_to_even(duration_ms: float, symbols: int) -> None:
    held = path([(10, 10)], [duration_ms])
    reference = path([(10, 10)], [500.0])  # ten symbols
    score = scanmatch([held], [reference], SIZE, bin_ms=50)[0, 0]
    assert np.isnan(score) if symbols == 0 else score == pytest.approx(symbols / 10)


def test_an_empty_string_has_no_score() -> None:
    empty = path(np.zeros((0, 2)))
    scores = scanmatch([empty, cells((0, 0))], [empty, cells((0, 0))], SIZE)
    assert np.isnan(scores[0]).all()
    assert scores[1, 1] == 1


def test_the_size_of_the_image_does_not_matter_but_the_grid_does() -> None:
    first, second = random_paths(5, 3), random_paths(5, 4)
    half_first = [one.with_frame(Frame((600, 800))).rescale(Frame((300, 400))) for one in first]
    half_second = [one.with_frame(Frame((600, 800))).rescale(Frame((300, 400))) for one in second]
    assert np.allclose(scanmatch(first, second, SIZE), scanmatch(half_first, half_second, (300, 400)))
    assert scanmatch(first, second, SIZE, grid=(8, 6)).mean() > scanmatch(first, second, SIZE).mean()


def test_wrong_settings_are_refused() -> None:
    one = [cells((0, 0))]
    with pytest.raises(InvalidTypeError, match="grid"):
        scanmatch(one, one, SIZE, grid=[16, 12])  # type: ignore[arg-type]
    for options, message in (
        ({"grid": (0, 12)}, "grid"),
        ({"threshold": 0.0}, "threshold"),
        ({"gap": 1.0}, "gap"),
        ({"bin_ms": 0.0}, "bin_ms"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            scanmatch(one, one, SIZE, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="first must hold at least one"):
        scanmatch([], one, SIZE)


def five(*symbols: int) -> Scanpath:
    """A path through cells of the 5 x 5 grid."""
    return path([(160 * (symbol % 5) + 80, 120 * (symbol // 5) + 60) for symbol in symbols])


@pytest.mark.parametrize(
    ("first", "second", "edits"),
    [
        ((0, 6, 12), (0, 12), 1),
        ((1, 2, 3), (1, 2, 3), 0),
        ((1, 2, 3), (4, 5, 6), 3),
        ((), (3, 4), 2),
        ((1, 2), (2, 1), 2),
    ],
)
def test_edits_that_one_can_count(first: tuple[int, ...], second: tuple[int, ...], edits: int) -> None:
    assert string_edit_distance([five(*first)], [five(*second)], SIZE)[0, 0] == edits
    share = string_edit_distance([five(*first)], [five(*second)], SIZE, normalised=True)[0, 0]
    assert share == pytest.approx(edits / max(len(first), len(second)))


def test_edit_distance_is_a_distance() -> None:
    paths = random_paths(10, 5)
    edits = string_edit_distance(paths, paths, SIZE)
    assert np.array_equal(edits, edits.T)
    assert np.array_equal(np.diag(edits), np.zeros(10))
    through = edits[:, :, None] + edits[None, :, :]
    assert (edits[:, None, :] <= through).all()
    assert np.isnan(string_edit_distance([path([])], [path([])], SIZE, normalised=True)[0, 0])


def test_nearest_of_people_leaves_oneself_out() -> None:
    paths = [five(0, 1, 2), five(0, 1, 3), five(9, 9, 9)]
    edits = string_edit_distance(paths, paths, SIZE)
    assert nearest_distances(edits, same=True).tolist() == [1, 1, 3]
    assert nearest_distances(edits).tolist() == [0, 0, 0]
    assert np.array_equal(np.diag(edits), np.zeros(3))  # the matrix itself is left as it was


def test_longer_common_beginnings_need_fewer_edits() -> None:
    whole = five(1, 7, 13, 19, 24, 3)
    distances = [string_edit_distance([five(*(1, 7, 13, 19, 24, 3)[:n])], [whole], SIZE)[0, 0] for n in range(7)]
    assert all(more == less + 1 for more, less in pairwise(distances))
