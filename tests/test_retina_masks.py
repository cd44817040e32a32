"""Retinas that hide: the paper's disc, two spots, random patches, their fills, CPU against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.retina_masks import Disc, Masking, Patches, TwoSpot, disc_radius_px
from foveasim.rng import Key, Stream
from foveasim.types import Glimpse, Scene

FILLS = ("visible_mean", "image_mean", "blur")


def scene_of(image: Tensor, px_per_deg: float | Tensor = 3.5) -> Scene:
    lanes = len(image)
    scale = px_per_deg if isinstance(px_per_deg, Tensor) else torch.full((lanes,), px_per_deg)
    return Scene(image, torch.full((lanes,), -1), scale, ("",) * lanes, torch.zeros(lanes))


def noise(lanes: int, size: tuple[int, int] = (96, 96), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (lanes, *size, 3), dtype=np.uint8))


def by_torch(eye: Masking, scene: Scene, fixation: Tensor, key: Key) -> Glimpse:
    prepared = eye.prepare(scene)
    if isinstance(eye, Patches):
        return eye._sense_torch(prepared, key)
    assert isinstance(eye, Disc)
    return eye._sense_torch(prepared, eye.spots(prepared, fixation, key))


def rounded_mean(pixels: Tensor) -> list[int]:
    return [int(v) for v in (pixels.double().mean(0) + 0.5).floor()]


def test_the_disc_of_the_paper() -> None:
    assert disc_radius_px((96, 96), 0.8) == 24
    image = noise(1)
    glimpse = Disc(hidden_ratio=0.8)(scene_of(image), torch.tensor([[48.5, 48.5]]))
    visible = glimpse.acuity[0] == 255
    assert int(visible.sum()) == 1793
    y, x = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    assert torch.equal(visible, (x - 48) ** 2 + (y - 48) ** 2 <= 24**2)
    assert torch.equal(glimpse.image[0][visible], image[0][visible])
    assert bool((glimpse.acuity[0][~visible] == 0).all())


def test_hidden_pixels_take_the_mean_of_the_visible_ones() -> None:
    image = noise(2)
    for eye in (Disc(), TwoSpot(), Patches()):
        glimpse = eye(scene_of(image), torch.tensor([[3.0, 90.0], [48.0, 48.0]]), Key.of(0, 2))
        for lane in range(2):
            visible = glimpse.acuity[lane] == 255
            hidden = glimpse.image[lane][~visible]
            assert hidden.unique(dim=0).tolist() == [rounded_mean(image[lane][visible])]


def test_the_papers_fill_is_the_mean_of_the_whole_image_and_leaks() -> None:
    image = noise(1)
    glimpse = Disc(fill="image_mean")(scene_of(image), torch.tensor([[48.0, 48.0]]))
    fill = glimpse.image[glimpse.acuity == 0].unique(dim=0)
    assert (fill[0].double() - image.double().mean((0, 1, 2))).abs().max() <= 0.5
    assert Disc(fill="image_mean").leaks
    assert not Disc().leaks
    assert not Disc(fill="blur").leaks


def test_blur_blurs() -> None:
    y, x = np.mgrid[:96, :96]
    ramp = np.stack([x * 2, y * 2, 255 * ((x // 4) % 2)], -1).astype(np.uint8)[None]
    image = torch.from_numpy(ramp)
    centre = torch.tensor([[48.0, 48.0]])
    blurred, plain = Disc(fill="blur")(scene_of(image), centre), Disc()(scene_of(image), centre)
    hidden = plain.acuity == 0
    assert not torch.equal(blurred.image[hidden], plain.image[hidden])
    behind = blurred.image[hidden].double()
    assert len(behind.unique(dim=0)) > 100  # a uniform fill has one colour
    assert behind[:, 2].std() < 12  # stripes of 4 px are gone ...
    inner = hidden.clone()
    inner[:, :17], inner[:, 79:], inner[..., :17], inner[..., 79:] = False, False, False, False
    assert (blurred.image[inner][:, :2].double() - image[inner][:, :2].double()).abs().max() <= 1  # ... and ramps stay
    assert bool((blurred.acuity[hidden] == round(255 / 33)).all())


def test_radius_in_degrees() -> None:
    scene = scene_of(noise(2), torch.tensor([2.0, 4.0]))
    glimpse = Disc(radius_deg=5.0)(scene, torch.tensor([[48.5, 48.5], [48.5, 48.5]]))
    assert [int((row == 255).sum()) for row in glimpse.acuity[:, 48]] == [21, 41]
    point = Disc(radius_deg=0)(scene, torch.tensor([[0.0, 0.0], [96.0, 96.0]])).acuity
    assert [lane.nonzero().tolist() for lane in point] == [[[0, 0]], [[95, 95]]]


def test_scaling_multiplies_the_radius() -> None:
    assert Disc(radius_deg=3.0).scaled(2.0) == Disc(radius_deg=6.0)
    eye = Disc(hidden_ratio=0.9)
    assert disc_radius_px((960, 960), eye.scaled(2).hidden_ratio) == pytest.approx(
        2 * disc_radius_px((960, 960), 0.9), abs=1
    )
    assert eye.scaled(100).hidden_ratio == 0
    assert isinstance(TwoSpot().scaled(0.5), TwoSpot)
    assert Patches().scaled(2.0) == Patches()


def test_two_spots() -> None:
    lanes, image = 40, noise(1).expand(40, -1, -1, -1).contiguous()
    fixation, key = torch.full((lanes, 2), 48.5), Key.of(0, lanes)
    eye = TwoSpot(hidden_ratio=0.95)
    glimpse = eye(scene_of(image), fixation, key)
    alone = Disc(hidden_ratio=0.95)(scene_of(image), fixation).acuity
    attended = Disc(hidden_ratio=0.95)(
        scene_of(image), (key.uniform(Stream.MASK, 2).float() * torch.tensor([96.0, 96.0]))
    ).acuity
    assert torch.equal(glimpse.acuity, torch.maximum(alone, attended))
    assert len(glimpse.acuity.flatten(1).unique(dim=0)) > 30
    later = eye(scene_of(image), fixation, Key.of(0, lanes, step=1))
    assert not torch.equal(later.acuity, glimpse.acuity)


@pytest.mark.parametrize("size", [(96, 96), (40, 61), (9, 8)])
@pytest.mark.parametrize("ratio", [0.0, 0.29, 0.6, 0.999])
@pytest.mark.parametrize("patch_px", [1, 8, 13, 200])
def test_patches_hides_exactly_its_share(size: tuple[int, int], ratio: float, patch_px: int) -> None:
    eye = Patches(hidden_ratio=ratio, patch_px=patch_px)
    acuity = eye(scene_of(noise(3, size)), torch.ones(3, 2), Key.of(0, 3)).acuity
    corners = acuity[:, ::patch_px, ::patch_px]
    count = corners[0].numel()
    assert (corners == 0).sum((1, 2)).tolist() == [int(count * ratio)] * 3
    whole = corners.repeat_interleave(patch_px, 1).repeat_interleave(patch_px, 2)[:, : size[0], : size[1]]
    assert torch.equal(whole, acuity)


def test_the_patches_of_the_paper() -> None:
    acuity = Patches()(scene_of(noise(1)), torch.ones(1, 2), Key.of(0)).acuity
    assert int((acuity[:, ::8, ::8] == 0).sum()) == 86  # int(144 x 0.6)


def test_patches_are_hidden_alike_everywhere_and_wherever_the_eye_looks() -> None:
    lanes = 2000
    scene, key = scene_of(noise(1, (16, 16)).expand(lanes, -1, -1, -1).contiguous()), Key.of(0, lanes)
    acuity = Patches(patch_px=4, hidden_ratio=0.5)(scene, torch.ones(lanes, 2), key).acuity
    hidden = (acuity[:, ::4, ::4] == 0).double().mean(0)
    assert (hidden - 0.5).abs().max() < 5 * 0.5 / lanes**0.5
    assert torch.equal(Patches(patch_px=4, hidden_ratio=0.5)(scene, torch.full((lanes, 2), 9.0), key).acuity, acuity)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", [Disc, TwoSpot, Patches])
def test_the_kernels_and_torch_agree(kind: type[Disc | TwoSpot | Patches], fill: Any) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        height, width = size = (int(rng.integers(8, 120)), int(rng.integers(8, 120)))
        lanes = int(rng.integers(1, 6))
        options: dict[str, Any] = {"fill": fill, "hidden_ratio": float(rng.random())}
        if kind is Patches:
            options["patch_px"] = int(rng.integers(1, 20))
        elif seed % 2:
            options["radius_deg"] = float(rng.uniform(0, 9))
        eye = kind(**options)
        scene = scene_of(noise(lanes, size, seed), torch.from_numpy(rng.uniform(0.5, 9, lanes).astype(np.float32)))
        fixation = torch.from_numpy((rng.random((lanes, 2)) * (width, height)).astype(np.float32))
        key = Key.of(seed, lanes, step=seed)
        here, there = eye(scene, fixation, key), by_torch(eye, scene, fixation, key)
        assert torch.equal(here.acuity, there.acuity)
        assert torch.equal(here.image, there.image)


@pytest.mark.parametrize("kind", [Disc, TwoSpot, Patches])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fill": "grey"}, InvalidValueError),
        ({"hidden_ratio": 1.0}, InvalidValueError),
        ({"hidden_ratio": -0.1}, InvalidValueError),
        ({"hidden_ratio": float("nan")}, InvalidValueError),
        ({"hidden_ratio": None}, InvalidTypeError),
    ],
)
def test_options_are_checked(kind: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        kind(**options)


def test_lengths_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="radius_deg"):
        Disc(radius_deg=-1)
    with pytest.raises(InvalidValueError, match="patch_px"):
        Patches(patch_px=0)
    with pytest.raises(InvalidTypeError, match="patch_px"):
        Patches(patch_px=7.5)  # type: ignore[arg-type]  # that is what is tested
