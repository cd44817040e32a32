"""The Gaussian pyramid: exact on every device, constant on constants, centred, symmetric, as coarse as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.eye.gaussian_pyramid import _by_torch, gaussian_pyramid


def noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 9), (9, 1), (2, 3), (8, 8), (17, 33), (33, 17), (96, 96), (95, 131), (250, 70)]
)
@pytest.mark.parametrize("levels", [1, 2, 6, 9])
def test_the_kernel_and_torch_agree_to_the_bit(size: tuple[int, int], levels: int) -> None:
    image = noise(2, *size, 3)
    built = gaussian_pyramid(image, levels)
    assert built.shape == (2, levels, *size, 3)
    assert torch.equal(built, _by_torch(image, levels))


def test_level_0_is_the_image_and_is_not_touched() -> None:
    image = noise(2, 20, 30, 3)
    before = image.clone()
    built = gaussian_pyramid(image, 4)
    assert torch.equal(built[:, 0], before)
    built.fill_(0)
    assert torch.equal(image, before)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_constant_stays_constant(value: int) -> None:
    image = torch.full((1, 37, 50, 3), value, dtype=torch.uint8)
    assert bool((gaussian_pyramid(image, 6) == value).all())


def test_a_point_spreads_as_the_binomial_says() -> None:
    image = torch.zeros(1, 65, 65, 3, dtype=torch.uint8)
    image[0, 32, 32] = 255
    level = gaussian_pyramid(image, 2)[0, 1, :, :, 0].int()
    # Halved: 255 (6/16)^2 = 35.86 in the middle, 255 (6/16)(1/16) beside it, 255/256 at the corner.
    # Doubled: each neighbour weighs 6 and each corner 1 of 64.
    assert level[32, 32] == round((36 * 36 + 4 * 6 * 6 + 4 * 1 * 1) / 64)
    assert level.argmax() == 32 * 65 + 32
    assert torch.equal(level, level.T)
    assert torch.equal(level, level.flip(0))


@pytest.mark.parametrize("size", [(97, 65), (33, 33)])
def test_levels_are_not_displaced(size: tuple[int, int]) -> None:
    image = noise(1, *size, 3)
    for axis in (1, 2):
        assert torch.equal(gaussian_pyramid(image.flip(axis), 6).flip(axis + 1), gaussian_pyramid(image, 6))
    assert torch.equal(gaussian_pyramid(image.transpose(1, 2), 6).transpose(2, 3), gaussian_pyramid(image, 6))


@pytest.mark.parametrize("period", [2, 4, 8, 16, 32])
def test_each_level_halves_what_is_resolved(period: int) -> None:
    at = torch.arange(256)
    wave = (127.5 + 127 * torch.cos(2 * torch.pi * at / period)).round().to(torch.uint8)
    image = wave[None, None, :, None].expand(1, 256, 256, 3).contiguous()
    contrast = gaussian_pyramid(image, 7)[0, :, 64:192, 64:192, 0].double().std((1, 2))
    contrast = contrast / contrast[0]
    assert bool((contrast.diff() <= 0.005).all())
    octave = int(np.log2(period))
    assert contrast[octave] < 0.25  # finer than this level can carry
    if octave >= 3:
        assert contrast[octave - 3] > 0.7
