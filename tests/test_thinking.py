"""Composing a prediction at two resolutions, and its error."""

from __future__ import annotations

import numpy as np
import pytest

from foveasim.thinking import compose_sharp, picture_error


def test_composing_keeps_detail_and_shows_the_guess() -> None:
    detail = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    acuity = np.zeros((64, 64), np.uint8)
    acuity[:, :32] = 255
    guess = np.full((8, 8, 3), 0.25, np.float32)
    shown = compose_sharp(guess, np.zeros((8, 8, 3), np.uint8), detail, acuity)
    assert np.array_equal(shown[:, :32], detail[:, :32])
    assert (np.abs(shown[:, 32:].astype(int) - 64) <= 1).all()


def test_the_error_counts_what_is_hidden() -> None:
    scene = np.full((8, 8, 3), 200, np.uint8)
    acuity = np.zeros((8, 8), np.uint8)
    acuity[:4] = 255
    error = picture_error(np.zeros((8, 8, 3), np.float32), scene, acuity, scene)
    assert error[:4].max() == 0
    assert error[4:].min() == pytest.approx(200)
