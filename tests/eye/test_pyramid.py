"""The eccentricity-blur retina: resolution in closed form, the paper's filter, its published values, torch parity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.gaussian_pyramid import gaussian_pyramid
from foveasim.eye.pyramid import Pyramid, _paper_pyramid, _paper_pyramid_torch, paper_blend, relative_resolution
from foveasim.types import Scene


def scene_of(image: Tensor, px_per_deg: float | Tensor = 3.5) -> Scene:
    lanes = len(image)
    scale = px_per_deg if isinstance(px_per_deg, Tensor) else torch.full((lanes,), px_per_deg)
    return Scene(image, torch.full((lanes,), -1), scale, ("",) * lanes, torch.zeros(lanes))


def noise(lanes: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (lanes, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize("half_deg", [0.5, 2.3, 2.5, 10.0])
def test_resolution_halves_at_e2(half_deg: float) -> None:
    resolution = relative_resolution(np.array([0, half_deg, 3 * half_deg]), half_deg)
    np.testing.assert_allclose(resolution, [1, 0.5, 0.25])


def test_acuity_is_the_relative_resolution() -> None:
    glimpse = Pyramid(half_deg=2.0)(scene_of(noise(1, (50, 200)), 10.0), torch.tensor([[0.5, 20.5]]))
    e = np.arange(200) / 10
    np.testing.assert_array_equal(glimpse.acuity[0, 20].numpy(), np.round(255 * 2 / (2 + e)))
    assert glimpse.acuity[0, 20, 20] == 128  # 20 px are 2 degrees


def test_octaves_of_eccentricity_show_levels_of_the_pyramid() -> None:
    image = noise(1, (40, 300))
    glimpse = Pyramid(half_deg=1.0, levels=5)(scene_of(image, 10.0), torch.tensor([[0.5, 20.5]]))
    levels = gaussian_pyramid(image, 5)
    for level, column in enumerate((0, 10, 30, 70)):  # R = 1, 1/2, 1/4, 1/8
        assert torch.equal(glimpse.image[0, 20, column], levels[0, level, 20, column])
    beyond = glimpse.image[0, 20, 160:].short() - levels[0, 4, 20, 160:].short()
    assert beyond.abs().max() <= 1
    assert bool((glimpse.acuity[0, 20, 160:] == 16).all())  # what the coarsest level resolves: 255 / 16


def test_two_levels_are_blended_linearly() -> None:
    image = noise(1, (40, 300))
    column = 20  # e2 = 1 deg, 10 px/deg: R = 1/3, level log2(3) = 1.585
    glimpse = Pyramid(half_deg=1.0)(scene_of(image, 10.0), torch.tensor([[0.5, 20.5]]))
    near, far = gaussian_pyramid(image, 3)[0, 1:3, 20, column].double()
    share = np.log2(3) - 1
    assert (glimpse.image[0, 20, column] - (near * (1 - share) + far * share)).abs().max() <= 1.5


def test_scaling_moves_e2() -> None:
    assert Pyramid(half_deg=2.0).scaled(1.5) == Pyramid(half_deg=3.0)
    assert Pyramid(preset="paper").scaled(2.0) == Pyramid(preset="paper")


def test_zoom_stretches_and_coarsens() -> None:
    eye, scene, fixation = Pyramid(half_deg=2.0), scene_of(noise(1, (30, 200)), 10.0), torch.tensor([[0.5, 15.5]])
    wide = eye.sense(eye.prepare(scene), fixation, zoom=torch.tensor([2.0]))
    e = np.arange(200) / 10
    expected = 255 * np.maximum(2 / (2 + e / 2) / 2, 2.0**-5)
    assert np.abs(wide.acuity[0, 15].numpy() - expected).max() <= 0.5
    near = eye.sense(eye.prepare(scene), fixation, zoom=torch.tensor([0.5]))
    assert bool((near.acuity[0, 15, :11] == 255).all())  # as fine as the scene's pixels up to e2 / 2
    assert not Pyramid(preset="paper").zoomable


@pytest.mark.parametrize("seed", range(12))
def test_the_kernel_and_torch_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = size = (int(rng.integers(48, 130)), int(rng.integers(48, 130)))
    lanes = int(rng.integers(1, 5))
    eye = (Pyramid(), Pyramid(preset="paper"), Pyramid(half_deg=0.7, levels=3), Pyramid(levels=10))[seed % 4]
    scale = torch.from_numpy(rng.uniform(0.5, 20, lanes).astype(np.float32))
    fixation = torch.from_numpy((rng.random((lanes, 2)) * (width, height)).astype(np.float32))
    prepared = eye.prepare(scene_of(noise(lanes, size, seed), scale))
    table = prepared.parts[1]
    for zoom in (None, torch.linspace(0.5, 2, lanes)) if eye.zoomable else (None,):
        if zoom is not None:
            table = eye._acuity_tables.lookup(size, scale, zoom)
        here, there = eye.sense(prepared, fixation, zoom=zoom), eye._sense_torch(prepared, fixation, table)
        assert (here.image.short() - there.image.short()).abs().max() <= 1
        assert torch.equal(here.acuity, there.acuity)


def test_the_paper_shows_241_sharp_pixels() -> None:
    # The first band ends where R = sqrt(1/2) of its scaled edges; a disc of radius 8.7 px holds 241 lattice points.
    image = noise(1, (96, 96))
    glimpse = Pyramid(preset="paper")(scene_of(image), torch.tensor([[48.5, 48.5]]))
    sharp = glimpse.acuity == 255
    assert int(sharp.sum()) == 241
    assert torch.equal(glimpse.image[sharp], image[sharp])
    near, share = paper_blend(np.hypot(*np.mgrid[-48:48, -48:48]))
    assert int(((near == 0) & (share == 0)).sum()) == 241


def test_the_paper_in_closed_form() -> None:
    sigma, at = 0.248, np.array([0.0, 12.0, 30.0, 80.0, 200.0])
    near, share = paper_blend(at)
    r = 2.5 / (2.5 + at / 3.5)
    octave = 2.0 ** (np.arange(1, 6) - 3)
    edge = np.append(sigma * np.sqrt(np.log(2)) / (octave * np.sqrt(0.5)), 0)
    edge = (edge - edge[-1]) / (edge[0] - edge[-1])
    np.testing.assert_allclose(edge, [1, 0.5, 0.25, 0.125, 0.0625, 0])
    layer = np.array([max(i for i in range(1, 6) if edge[i] <= x <= edge[i - 1]) for x in r])
    assert layer.tolist() == [1, 2, 3, 4, 5]
    transfer = np.array([[np.exp(-0.5 * (o * x / sigma) ** 2) for o in octave] + [0] for x in r])
    for n, i in enumerate(layer):
        if i == 1:
            assert (near[n], share[n]) == (0, 0)
        else:
            blend = (0.5 - transfer[n, i]) / (transfer[n, i - 1] - transfer[n, i] + 1e-5)
            assert near[n] == i - 2
            assert share[n] == pytest.approx(1 - blend)


@pytest.mark.parametrize("size", [(48, 48), (96, 96), (97, 95), (49, 131), (63, 250), (160, 240)])
def test_the_papers_pyramid_is_the_same_by_the_kernel_and_by_torch(size: tuple[int, int]) -> None:
    image = noise(2, size)
    built, stepwise = _paper_pyramid(image), _paper_pyramid_torch(image)
    apart = (built.short() - stepwise.short()).abs()
    assert built.shape == (2, 6, *size, 3)
    assert apart.max() <= 1
    assert apart.float().mean() < 1e-3  # where a half is rounded up here and to even there


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_the_papers_pyramid_keeps_a_constant(value: int) -> None:
    image = torch.full((1, 63, 50, 3), value, dtype=torch.uint8)
    assert bool((_paper_pyramid(image) == value).all())


def test_the_papers_pyramid_halves_by_means_of_four() -> None:
    # Blocks of 2 x 2 px of one value: all but the blur (0.0003 a side) leaves their value, so level 1 is known.
    small = np.random.default_rng(1).integers(0, 256, (24, 24, 3)).astype(np.float64)
    image = torch.from_numpy(small.astype(np.uint8).repeat(2, 0).repeat(2, 1))[None]
    level = _paper_pyramid(image)[0, 1].double().numpy()
    middle = 9 * small[1:-1, 1:-1] + 3 * small[:-2, 1:-1] + 3 * small[1:-1, :-2] + small[:-2, :-2]
    assert np.abs(level[2:-2:2, 2:-2:2] - middle / 16).max() <= 1


def test_the_papers_filter_needs_48_px() -> None:
    with pytest.raises(InvalidValueError, match="at least 48 px a side; got 47 x 96"):
        Pyramid(preset="paper").prepare(scene_of(noise(1, (47, 96))))


@pytest.mark.parametrize(("name", "x", "y"), [("foveate_centre", 48, 48), ("foveate_off", 30, 60)])
def test_the_paper_agrees_with_its_published_filter(published: Any, name: str, x: int, y: int) -> None:
    image = torch.from_numpy(published.image)[None]
    # Array index 48 is the pixel whose middle is 48.5. Two grey levels: each of two levels and their blend is rounded.
    glimpse = Pyramid(preset="paper")(scene_of(image), torch.tensor([[x + 0.5, y + 0.5]]))
    ours, theirs = published.beside(name, glimpse.image[0].permute(2, 0, 1))
    assert len(ours) >= 1000
    assert np.abs(ours - theirs * 255).max() <= 2
    assert int((glimpse.acuity == 255).sum()) == 241


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"half_deg": 0}, InvalidValueError),
        ({"half_deg": float("nan")}, InvalidValueError),
        ({"half_deg": "2"}, InvalidTypeError),
        ({"levels": 1}, InvalidValueError),
        ({"levels": 11}, InvalidValueError),
        ({"levels": 2.5}, InvalidTypeError),
        ({"preset": "papr"}, InvalidValueError),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        Pyramid(**options)
