from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.metrics.multimatch import multimatch, time_delay_embedding
from foveasim.scanpath.scanpath import Scanpath

SIZE = (600, 800)

# multimatch-gaze 0.1.3, docomparison(..., screensize=[800, 600], grouping=False) on the paths of ``formula``
REFERENCE = {
    (3, 1, 3, 7): (0.73280652524, 0.327419273595, 0.880919941754, 0.549960571627, 0.739051828043),
    (9, 1, 9, 4): (0.921705683476, 0.725295372069, 0.905217046241, 0.724464158411, 0.870192307692),
    (12, 5, 7, 2): (0.849896463021, 0.742633994886, 0.825486616859, 0.774131030865, 0.65187959471),
    (5, 11, 16, 3): (0.879933351842, 0.759850921825, 0.866836891891, 0.817571931984, 0.770212765957),
}


def path(rows: object) -> Scanpath:
    """A path of (x, y, duration)."""
    values = torch.tensor(np.asarray(rows), dtype=torch.float32).reshape(-1, 3)
    return Scanpath(values[:, :2], torch.cumsum(values[:, 2], 0) - values[:, 2], values[:, 2])


def formula(count: int, start: int) -> Scanpath:
    i = np.arange(count) + start
    return path(np.stack((37.0 * i * i % 800, 53.0 * i**3 % 600, 80.0 + 91 * i % 300), 1))


def random_rows(count: int, seed: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = rng.integers(3, 17)
        found.append(np.column_stack((rng.random((n, 2)) * (800, 600), rng.integers(40, 600, n))).astype(np.float32))
    return found


@pytest.mark.parametrize("case", REFERENCE, ids=str)
def test_values_of_the_package(case: tuple[int, int, int, int]) -> None:
    n, a, k, b = case
    assert np.allclose(multimatch([formula(n, a)], [formula(k, b)], SIZE)[0, 0], REFERENCE[case], atol=1e-9)


def test_agrees_with_the_package_on_random_pairs() -> None:
    package = pytest.importorskip("multimatch_gaze", reason="needs multimatch-gaze: foveasim[test]")
    first, second = random_rows(6, 0), random_rows(6, 1)
    scores = multimatch([path(rows) for rows in first], [path(rows) for rows in second], SIZE)
    kind = [("start_x", float), ("start_y", float), ("duration", float)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            records = [np.array([tuple(row) for row in rows.tolist()], dtype=kind) for rows in (a, b)]
            theirs = [float(np.asarray(v).item()) for v in package.docomparison(*records, [800, 600])]
            assert np.allclose(scores[i, j], theirs, atol=1e-9)


def test_equal_paths_score_one_and_pairs_are_symmetric() -> None:
    paths = [path(rows) for rows in random_rows(8, 2)]
    scores = multimatch(paths, paths, SIZE)
    assert np.allclose(scores[np.arange(8), np.arange(8)], 1)
    assert np.allclose(scores, scores.swapaxes(0, 1))
    assert scores.min() >= 0
    assert scores.max() <= 1 + 1e-12


def test_each_number_sees_its_own_difference() -> None:
    rows = np.array([(100, 100, 200), (300, 100, 100), (300, 400, 300), (500, 500, 150)], np.float64)
    one = path(rows)

    def against(changed: object) -> list[float]:
        return [round(float(v), 9) for v in multimatch([one], [path(changed)], SIZE)[0, 0]]

    assert against(rows + np.array((60, 80, 0))) == [1, 1, 1, 0.9, 1]
    assert against(rows * (1, 1, 0.5)) == [1, 1, 1, 1, 0.5]
    turned = (rows[:, :2] - 100) @ np.array([[0, 1], [-1, 0]]) + 100
    shape, direction, length, _, _ = against(np.column_stack((turned, rows[:, 2])))
    assert direction == 0.5
    assert length == 1
    assert shape < 1


def test_directions_on_both_sides_of_the_left_are_near_each_other() -> None:
    down_left = path([(700, 300, 1), (400, 303, 1), (100, 306, 1)])
    up_left = path([(700, 300, 1), (400, 297, 1), (100, 294, 1)])
    assert multimatch([down_left], [up_left], SIZE)[0, 0, 1] == pytest.approx(1 - 2 * np.arctan(0.01) / np.pi)


def test_short_paths_have_no_score_and_still_ones_do() -> None:
    short, still = path([(1, 1, 1), (2, 2, 2)]), path([(5, 5, 0)] * 3)
    scores = multimatch([short, still], [still, still], SIZE)
    assert np.isnan(scores[0]).all()
    assert np.allclose(scores[1], 1)


def test_embedding_finds_a_part_in_the_whole() -> None:
    whole = path(random_rows(1, 3)[0])
    part = Scanpath(whole.fixation_px[:3], whole.onset_ms[:3], whole.duration_ms[:3])
    assert time_delay_embedding([part], [whole], SIZE)[0, 0] == pytest.approx(1)
    assert time_delay_embedding([whole], [part], SIZE)[0, 0] < 1  # its windows are not all in the part
    corner, other = path([(0, 0, 1)]), path([(800, 0, 1)])
    assert time_delay_embedding([corner], [other], SIZE)[0, 0] == pytest.approx(np.exp(-1))
    assert np.isnan(time_delay_embedding([corner], [path([])], SIZE)[0, 0])


def test_embedding_agrees_with_its_definition() -> None:
    first, second = random_rows(4, 4), random_rows(5, 5)
    scores = time_delay_embedding([path(rows) for rows in first], [path(rows) for rows in second], SIZE)
    for p, a in enumerate(first):
        for q, b in enumerate(second):
            a2, b2 = a[:, :2].astype(float) / 800, b[:, :2].astype(float) / 800
            found = []
            for k in range(1, min(len(a2), len(b2)) + 1):
                nearest = [
                    min(np.linalg.norm(a2[i : i + k] - b2[j : j + k], axis=1).mean() for j in range(len(b2) - k + 1))
                    for i in range(len(a2) - k + 1)
                ]
                found.append(np.exp(-np.mean(nearest)))
            assert scores[p, q] == pytest.approx(np.mean(found))
