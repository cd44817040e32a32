from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.metrics.pairs import bootstrap_mean, group_by_image, mean_pairs, pack_paths
from foveasim.scanpath.scanpath import Scanpath


def path(count: int, image: str = "a", subject: str = "1") -> Scanpath:
    return Scanpath(torch.arange(2.0 * count).reshape(count, 2), torch.zeros(count), torch.ones(count), image, subject)


def test_packed_paths_hold_every_fixation_in_order() -> None:
    packed = pack_paths("first", [path(2), path(0), path(3)])
    assert packed.start.tolist() == [0, 2, 2, 5]
    assert packed.lengths.tolist() == [2, 0, 3]
    assert packed.fixation_px.tolist() == [[0, 1], [2, 3], [0, 1], [2, 3], [4, 5]]
    assert packed.duration_ms.dtype == np.float64


def test_what_is_not_a_group_of_scanpaths_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match=r"got one Scanpath. Write \[first\]"):
        pack_paths("first", path(2))  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="second must be a sequence of Scanpath"):
        pack_paths("second", [path(1), 3])  # type: ignore[list-item]
    with pytest.raises(InvalidValueError, match="at least one"):
        pack_paths("first", [])


def test_groups_keep_the_order() -> None:
    paths = [path(1, "b", "1"), path(1, "a", "1"), path(1, "b", "2")]
    groups = group_by_image(paths)
    assert list(groups) == ["b", "a"]
    assert [one.subject for one in groups["b"]] == ["1", "2"]


def test_pairs_of_the_same_are_half_of_the_matrix_without_its_diagonal() -> None:
    scores = np.ones((15, 15)) - np.eye(15) * 100
    assert mean_pairs(scores, same=True) == mean_pairs(np.ones((7, 15)), same=False).__class__(1.0, 105, 0)
    lopsided = np.array([[9.0, 1.0], [3.0, 9.0]])
    assert mean_pairs(lopsided, same=True).mean == 2.0
    assert mean_pairs(lopsided).mean == 5.5


def test_undefined_pairs_are_counted_and_left_out() -> None:
    found = mean_pairs(np.array([[0.5, np.nan, 0.25]]))
    assert (found.mean, found.pairs, found.undefined) == (0.375, 3, 1)
    none = mean_pairs(np.full((2, 2), np.nan))
    assert np.isnan(none.mean)
    assert none.undefined == 4
    with pytest.raises(InvalidValueError, match=r"\(N, N\); got \(2, 3\)"):
        mean_pairs(np.zeros((2, 3)), same=True)
    with pytest.raises(InvalidValueError, match=r"scores\[\.\.\., k\]"):
        mean_pairs(np.zeros((2, 3, 5)))


def test_bootstrap_holds_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = bootstrap_mean(values, seed=1)
    half = 1.96 * values.std() / 20
    assert found.count == 400
    assert abs(found.mean - values.mean()) < 1e-12
    assert abs(found.low - (values.mean() - half)) < 0.1 * half
    assert abs(found.high - (values.mean() + half)) < 0.1 * half
    assert bootstrap_mean(values, seed=1) == found
    assert bootstrap_mean(values, seed=2) != found
    narrow = bootstrap_mean(values, seed=1, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one"),
        ([1.0, np.nan], {}, "value 1 is nan"),
        ([1.0], {"draws": 0}, "draws"),
        ([1.0], {"level": 1.0}, "level"),
    ],
)
def test_bootstrap_refuses(values: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        bootstrap_mean(values, 0, **options)  # type: ignore[arg-type]
