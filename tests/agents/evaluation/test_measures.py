"""Image measures of a comparison: closed forms, and the values of kornia."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.measures import MEASURES, NUMBERS, measure_predictions


def judged(predicted: float, truth: int, acuity: NDArray[np.uint8]) -> dict[str, float]:
    """Measure a flat prediction of a flat scene of which the seen part is true and the rest mid-grey."""
    scene = torch.full((1, *acuity.shape, 3), truth, dtype=torch.uint8)
    seen = torch.where(torch.from_numpy(acuity)[None, ..., None] > 0, scene, 127).to(torch.uint8)
    guess = torch.full((1, *acuity.shape, 3), predicted)
    row = measure_predictions(guess, scene, seen, torch.from_numpy(acuity)[None])[0]
    return dict(zip(NUMBERS, row.tolist(), strict=True))


def test_numbers_of_a_flat_scene() -> None:
    acuity = np.zeros((10, 10), np.uint8)
    acuity[:, :4] = 255
    found = judged(0.5, 51, acuity)  # the scene is 0.2
    assert found["mse"] == pytest.approx(0.09, rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.09), rel=1e-5)
    assert found["hidden_px"] == 60
    assert found["hidden_error"] == pytest.approx(60 * 0.09, rel=1e-5)
    assert found["fill_error"] == pytest.approx(0, abs=1e-9)  # what was seen has the colour of the rest
    assert found["hidden_psnr"] == pytest.approx(found["psnr"], rel=1e-5)
    assert (found["sharp"], found["coverage"]) == pytest.approx((0.4, 0.4))
    assert found["hidden_similarity"] == pytest.approx(60 * found["ssim"], rel=1e-4)


def test_hidden_pixels_are_weighted_by_what_acuity_leaves() -> None:
    found = judged(0.5, 51, np.full((10, 10), 51, np.uint8))
    assert found["hidden_px"] == pytest.approx(80)
    assert found["hidden_error"] == pytest.approx(80 * 0.09, rel=1e-5)
    assert (found["sharp"], found["coverage"]) == pytest.approx((0, 0.2))
    assert judged(0.5, 51, np.full((10, 10), 128, np.uint8))["sharp"] == 1


def test_nothing_wrong_and_nothing_hidden() -> None:
    acuity = np.full((10, 10), 255, np.uint8)
    found = judged(51 / 255, 51, acuity)
    assert found["mse"] < 1e-12
    assert found["ssim"] == pytest.approx(1)
    assert found["hidden_px"] == 0
    assert np.isnan(found["hidden_psnr"])


def test_every_measure_is_made_of_numbers_that_there_are() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.numerator in NUMBERS
        assert measure.denominator in (*NUMBERS, "")


def test_ssim_of_flat_images_is_known() -> None:
    acuity = np.zeros((16, 16), np.uint8)
    acuity[:8] = 255
    found = judged(0.25, 191, acuity)
    truth = 191 / 255
    expected = (2 * 0.25 * truth + 1e-4) / (0.25**2 + truth**2 + 1e-4)  # no variance: the first factor alone
    assert found["ssim"] == pytest.approx(expected, abs=1e-3)
    assert found["hidden_similarity"] == pytest.approx(128 * expected, rel=1e-3)
    assert judged(truth, 191, acuity)["ssim"] == pytest.approx(1)
