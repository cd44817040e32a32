"""Receptors: exact pixels, box means, doubling scales, rings and wedges, mid-grey outside, CPU against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.receptors import LogPolar, Multiscale, Receptors, Window, _sum_areas
from foveasim.types import Glimpse, Scene


def scene_of(image: Tensor, px_per_deg: float | Tensor = 3.5) -> Scene:
    lanes = len(image)
    scale = px_per_deg if isinstance(px_per_deg, Tensor) else torch.full((lanes,), px_per_deg)
    return Scene(image, torch.full((lanes,), -1), scale, ("",) * lanes, torch.zeros(lanes))


def noise(lanes: int, size: tuple[int, int] = (60, 70), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (lanes, *size, 3), dtype=np.uint8))


def patch_of(glimpse: Glimpse) -> Tensor:
    assert glimpse.patch is not None
    return glimpse.patch


@pytest.mark.parametrize("side", [1, 8, 9])
def test_a_window_in_pixels_shows_exact_pixels(side: int) -> None:
    image = noise(1)
    glimpse = Window(size_deg=None, patch_px=side)(scene_of(image), torch.tensor([[30.2, 20.9]]))
    top, left = 20 - side // 2, 30 - side // 2
    crop = image[:, top : top + side, left : left + side]
    assert torch.equal(patch_of(glimpse)[:, 0], crop)
    assert torch.equal(glimpse.image[:, top : top + side, left : left + side], crop)
    assert int((glimpse.acuity == 255).sum()) == side**2
    assert int((glimpse.acuity > 0).sum()) == side**2


def test_receptors_average_their_boxes() -> None:
    image = noise(1)
    glimpse = Window(size_deg=24.0, patch_px=8)(scene_of(image, 1.0), torch.tensor([[30.5, 30.5]]))  # boxes of 3 px
    boxes = image[0, 18:42, 18:42].reshape(8, 3, 8, 3, 3).double().mean((1, 3))
    assert (patch_of(glimpse)[0, 0].double() - boxes).abs().max() <= 0.5
    reported = patch_of(glimpse)[0, 0].repeat_interleave(3, 0).repeat_interleave(3, 1)
    assert torch.equal(glimpse.image[0, 18:42, 18:42], reported)
    assert glimpse.acuity.unique().tolist() == [0, 85]


def test_what_a_window_hides_takes_the_mean_of_what_it_shows() -> None:
    glimpse = Window(size_deg=None, patch_px=8)(scene_of(noise(1)), torch.tensor([[1.0, 58.0]]))
    seen = glimpse.image[glimpse.acuity > 0]
    hidden = glimpse.image[glimpse.acuity == 0].unique(dim=0)
    assert hidden.tolist() == [[int(v) for v in (seen.double().mean(0) + 0.5).floor()]]


def test_receptors_beyond_the_scene_report_mid_grey() -> None:
    image = torch.full((1, 60, 70, 3), 200, dtype=torch.uint8)
    corner = torch.tensor([[0.0, 0.0]])
    patch = patch_of(Window(size_deg=None, patch_px=8)(scene_of(image), corner))[0, 0, ..., 0]
    assert bool((patch[4:, 4:] == 200).all())
    assert bool((patch[:4] == 127).all())
    assert bool((patch[:, :4] == 127).all())
    rings = patch_of(LogPolar()(scene_of(image), corner))[0, 0, ..., 0]
    assert rings.unique().tolist() == [127, 200]
    assert bool((rings[10:, 8] == 127).all())  # up and to the left there is nothing
    assert bool((rings[:, 40] == 200).all())  # down and to the right there is


def test_scales_double() -> None:
    image = noise(1, (100, 100))
    eye = Multiscale(size_deg=None, patch_px=8, scales=4)
    glimpse = eye(scene_of(image), torch.tensor([[50.5, 50.5]]))
    assert patch_of(glimpse).shape == (1, 4, 8, 8, 3)
    for scale in range(4):
        step, half = 2**scale, 4 * 2**scale
        crop = image[0, 50 - half : 50 + half, 50 - half : 50 + half].reshape(8, step, 8, step, 3).double().mean((1, 3))
        assert (patch_of(glimpse)[0, scale].double() - crop).abs().max() <= 0.5
        assert int((glimpse.acuity == round(255 / step)).sum()) == (8 * step) ** 2 - (scale > 0) * (4 * step) ** 2


def test_log_polar_is_sharp_in_the_middle_and_coarse_outside() -> None:
    image = noise(1, (97, 97))
    glimpse = LogPolar(rings=32, wedges=64, fovea_deg=1.0)(scene_of(image), torch.tensor([[48.5, 48.5]]))
    assert patch_of(glimpse).shape == (1, 1, 32, 64, 3)
    assert torch.equal(glimpse.image[0, 48, 48], image[0, 48, 48])
    assert torch.equal(patch_of(glimpse)[0, 0, 0, 32], image[0, 48, 48])  # the fovea first, to the right
    assert glimpse.acuity[0, 48, 48] == 255
    # Ring width (e + a) growth and arc e turn at e = 40 px, in the geometric mean.
    growth, turn = np.log1p(97 * 2**0.5 / 3.5) / 32, 2 * np.pi / 64
    side = (43.5 * growth * 40 * turn) ** 0.5
    assert abs(int(glimpse.acuity[0, 48, 88]) - 255 / side) < 0.1 * 255 / side


def test_log_polar_says_clockwise_from_the_left() -> None:
    image = torch.zeros(1, 97, 97, 3, dtype=torch.uint8)
    image[:, :30], image[:, 67:], image[:, 40:57, :30], image[:, 40:57, 67:] = 50, 100, 150, 200
    patch = patch_of(LogPolar()(scene_of(image), torch.tensor([[48.5, 48.5]])))[0, 0, 20, :, 0]
    assert patch[[0, 16, 32, 48]].tolist() == [150, 50, 200, 100]


def test_every_receptor_is_the_mean_of_what_it_covers() -> None:
    image = noise(1)
    eye, fixation = LogPolar(rings=12, wedges=16, fovea_deg=0.8), torch.tensor([[20.5, 33.5]])
    glimpse = eye(scene_of(image), fixation)
    total = image.double().sum((0, 1, 2))
    assert (glimpse.image.double().sum((0, 1, 2)) - total).abs().max() <= 0.5 * 60 * 70  # means keep the total
    for colour in glimpse.image[0].flatten(0, 1).unique(dim=0)[:40]:
        same = (glimpse.image[0] == colour).all(-1)
        assert (image[0][same].double().mean(0) - colour.double()).abs().max() <= 0.5 + 1e-9


def test_scaling_widens() -> None:
    assert Window(size_deg=4.0).scaled(1.5) == Window(size_deg=6.0)
    assert Window(size_deg=None, patch_px=10).scaled(1.5) == Window(size_deg=None, patch_px=15)
    assert Window(size_deg=None, patch_px=1).scaled(0.1) == Window(size_deg=None, patch_px=1)
    assert Multiscale(size_deg=2.0).scaled(2.0) == Multiscale(size_deg=4.0)
    assert LogPolar(fovea_deg=1.0).scaled(0.5) == LogPolar(fovea_deg=0.5)


@pytest.mark.parametrize("kind", [Window, Multiscale])
def test_a_zoomed_window_is_a_wider_one(kind: type[Window]) -> None:
    eye, wide = kind(size_deg=3.0), kind(size_deg=6.0)
    scene, fixation = scene_of(noise(1)), torch.tensor([[30.0, 30.0]])
    zoomed, expected = eye.sense(eye.prepare(scene), fixation, zoom=torch.tensor([2.0])), wide(scene, fixation)
    assert torch.equal(zoomed.image, expected.image)
    assert torch.equal(zoomed.acuity, expected.acuity)


def test_a_zoomed_log_polar_eye_stretches_every_ring() -> None:
    eye, scene, fixation = LogPolar(rings=16), scene_of(noise(1, (97, 97))), torch.tensor([[48.5, 48.5]])
    prepared = eye.prepare(scene)
    plain, wide = (
        eye.sense(prepared, fixation).acuity[0],
        eye.sense(prepared, fixation, zoom=torch.tensor([2.0])).acuity[0],
    )
    for away in (10, 16, 24):
        assert abs(int(wide[48, 48 + 2 * away]) - int(plain[48, 48 + away]) / 2) <= 1
    small = eye.sense(prepared, torch.tensor([[0.5, 0.5]]), zoom=torch.tensor([0.5])).acuity[0]
    assert small[0, 0] == 255
    assert small[96, 96] == 0  # beyond the last ring


@pytest.mark.parametrize("kind", [Window, Multiscale, LogPolar])
def test_the_kernels_and_torch_agree(kind: Any) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        height, width = size = (int(rng.integers(8, 110)), int(rng.integers(8, 110)))
        lanes = int(rng.integers(1, 5))
        eye: Receptors
        if kind is LogPolar:
            rings, wedges = int(rng.integers(2, 40)), int(rng.integers(4, 70))
            eye = LogPolar(rings=rings, wedges=wedges, fovea_deg=float(rng.uniform(0.1, 3)))
        else:
            size_deg = None if seed % 3 == 0 else float(rng.uniform(0.2, 20))
            eye = kind(size_deg=size_deg, patch_px=int(rng.integers(1, 30)), scales=int(rng.integers(1, 4)))
        scale = torch.from_numpy(rng.uniform(0.5, 9, lanes).astype(np.float32))
        prepared = eye.prepare(scene_of(noise(lanes, size, seed), scale))
        fixation = torch.from_numpy((rng.random((lanes, 2)) * (width, height)).astype(np.float32))
        for zoom in (None, torch.linspace(0.5, 2, lanes)):
            table = prepared.parts[0] if zoom is None else eye._acuity_tables.lookup(size, scale, zoom)
            here, there = eye.sense(prepared, fixation, zoom=zoom), eye._sense_torch(prepared, fixation, table)
            assert torch.equal(patch_of(here), patch_of(there))
            assert torch.equal(here.image, there.image)
            assert torch.equal(here.acuity, there.acuity)


def test_summed_areas_agree_with_torch() -> None:
    image = noise(2, (31, 17))
    sums = _sum_areas(image)
    expected = image.long().cumsum(1).cumsum(2)
    assert torch.equal(sums[:, 1:, 1:].long(), expected)
    assert int(sums[:, 0].abs().sum()) == int(sums[:, :, 0].abs().sum()) == 0


def test_sums_of_big_scenes_wrap_without_harm() -> None:
    image = torch.full((1, 2000, 4400, 3), 255, dtype=torch.uint8)  # 255 x 2000 x 4400 is more than 2^31
    glimpse = Window(size_deg=None, patch_px=8)(scene_of(image), torch.tensor([[4395.0, 1995.0]]))
    assert bool((glimpse.image == 255).all())


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        (Window, {"size_deg": 0}, InvalidValueError),
        (Window, {"size_deg": "9"}, InvalidTypeError),
        (Window, {"patch_px": 0}, InvalidValueError),
        (Window, {"patch_px": 2.5}, InvalidTypeError),
        (Multiscale, {"scales": 0}, InvalidValueError),
        (Multiscale, {"scales": 9}, InvalidValueError),
        (Multiscale, {"scales": True}, InvalidTypeError),
        (LogPolar, {"rings": 1}, InvalidValueError),
        (LogPolar, {"wedges": 3}, InvalidValueError),
        (LogPolar, {"wedges": 8.0}, InvalidTypeError),
        (LogPolar, {"fovea_deg": 0}, InvalidValueError),
    ],
)
def test_options_are_checked(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        kind(**options)
