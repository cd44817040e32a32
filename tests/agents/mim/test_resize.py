"""Views made smaller on the CPU: what ``shrink`` makes of them, and exact where that is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.agents.mim.resize import shrink, shrink_acuity, shrink_views


def views(height: int, width: int, hidden: float) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    image = draws.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    acuity = draws.integers(1, 256, (2, height, width), dtype=np.uint8)
    acuity[draws.random(acuity.shape) < hidden] = 0
    return image, acuity


@pytest.mark.parametrize("hidden", [0.0, 0.4, 1.0])
def test_whole_multiples_are_as_by_torch(hidden: float) -> None:
    image, acuity = views(64, 96, hidden)
    acuity[0, :32] = 0
    colour, sharp = shrink_views(image, acuity, (16, 24))
    expected, known = shrink(
        torch.from_numpy(image).permute(0, 3, 1, 2).float(), torch.from_numpy(acuity)[:, None].float() / 255, (16, 24)
    )
    assert np.abs(colour - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-3
    assert np.abs(sharp - known[:, 0].numpy()).max() < 1e-5
    assert (sharp[0, :8] == 0).all()
    assert np.array_equal(shrink_acuity(acuity, (16, 24)), sharp)


def test_a_pixel_across_a_border_counts_by_its_parts() -> None:
    image = np.zeros((1, 3, 3, 3), np.uint8)
    image[0, 1, 1] = 180
    acuity = np.full((1, 3, 3), 60, np.uint8)
    colour, sharp = shrink_views(image, acuity, (2, 2))
    assert colour == pytest.approx(np.full((1, 2, 2, 3), 180 / 9), abs=1e-3)  # a quarter of a pixel of 2.25
    assert sharp == pytest.approx(np.full((1, 2, 2), 1.5 * 60 / 255), abs=1e-6)


def test_hidden_pixels_have_no_part() -> None:
    image, acuity = views(30, 40, 0.5)
    other = np.where((acuity > 0)[..., None], image, 255 - image)
    for mine, theirs in zip(shrink_views(image, acuity, (12, 16)), shrink_views(other, acuity, (12, 16)), strict=True):
        assert np.array_equal(mine, theirs)
