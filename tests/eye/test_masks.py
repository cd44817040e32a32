"""Retinas that hide: the paper's disc, two spots, random patches, their fills, CPU against torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.masks import (
    Disc,
    Masking,
    Patches,
    TwoSpot,
    _blur_torch,
    _blurred,
    disc_radius_px,
    object_centre_px,
)
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


def blobs(lanes: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Confidences with several smooth hills."""
    coarse = torch.rand(lanes, 1, 5, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)[:, 0]
    return (fine * 300).clamp(0, 255).to(torch.uint8)


def test_the_most_object_like_pixel_of_a_square_is_its_middle() -> None:
    objects = torch.zeros(5, 30, 50, dtype=torch.uint8)
    objects[0, 10:21, 30:41] = 204
    objects[1, 3:8, 4:9], objects[1, 12:27, 20:35] = 255, 255  # the larger of two
    objects[2, 10:14, 10:14] = 255  # the first of four
    objects[3, 10:21, 30:41], objects[3, 0:10] = 255, 203  # not sure, so not the object
    objects[4, 20:30, 0:9] = 255  # the scene's edge is one of the object's
    wanted = [[35.5, 15.5], [27.5, 19.5], [11.5, 11.5], [35.5, 15.5], [4.5, 24.5]]
    assert object_centre_px(objects).tolist() == wanted


def test_where_nothing_is_sure_the_most_confident_pixels_count() -> None:
    objects = torch.zeros(4, 21, 31, dtype=torch.uint8)
    objects[0, 5:10, 7:12] = 90
    objects[0, 6:9, 20:23] = 91
    objects[1, 20, 30] = 1
    objects[3] = 255
    assert object_centre_px(objects).tolist() == [[21.5, 7.5], [30.5, 20.5], [10.5, 10.5], [10.5, 10.5]]


@pytest.mark.parametrize("size", [(96, 96), (40, 61), (61, 8), (1, 7), (1, 1)])
def test_the_deepest_pixel_is_that_of_the_distance_transform(size: tuple[int, int]) -> None:
    import cv2

    objects = blobs(40, size)
    for lane, point in zip(objects.numpy(), object_centre_px(objects).tolist(), strict=True):
        inside = np.pad(lane >= min(204, int(lane.max())), 1).astype(np.uint8)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        row, column = np.unravel_index(np.rint(depth**2).argmax(), depth.shape)
        assert point == [column + 0.5, row + 0.5]


def test_the_object_is_attended() -> None:
    image, objects = noise(6), blobs(6, (96, 96))
    scene, fixation = replace(scene_of(image), objects=objects), torch.full((6, 2), 20.0)
    eye = TwoSpot(hidden_ratio=0.95, attend="object")
    glimpse = eye(scene, fixation)
    disc = Disc(hidden_ratio=0.95)
    attended = disc(scene, object_centre_px(objects)).acuity
    assert torch.equal(glimpse.acuity, torch.maximum(disc(scene, fixation).acuity, attended))
    assert torch.equal(eye(scene, fixation, Key.of(1, 6, step=3)).image, glimpse.image)
    there = by_torch(eye, scene, fixation, Key.of(0, 6))
    assert torch.equal(there.image, glimpse.image)
    assert torch.equal(there.acuity, glimpse.acuity)
    hidden = (glimpse.acuity == 0)[..., None]
    other = replace(scene, image=torch.where(hidden, 255 - image // 2, image))
    assert torch.equal(eye(other, fixation).image, glimpse.image)


def test_attending_the_object_needs_no_key_and_attending_at_random_does() -> None:
    assert TwoSpot().needs_key
    assert not TwoSpot(attend="object").needs_key
    assert replace(TwoSpot(attend="object"), attend="random").needs_key
    assert not TwoSpot(attend="object").scaled(0.5).needs_key


def test_lanes_with_objects_can_be_taken_and_put() -> None:
    scene, fixation = replace(scene_of(noise(3)), objects=blobs(3, (96, 96))), torch.full((3, 2), 50.0)
    eye, order = TwoSpot(attend="object"), torch.tensor([2, 0, 1])
    prepared = eye.prepare(scene)
    whole = eye.sense(prepared, fixation)
    assert torch.equal(eye.sense(prepared.take(order), fixation).image, whole.image[order])
    other = replace(scene_of(noise(1, seed=5)), objects=blobs(1, (96, 96), 5))
    prepared.put(1, eye.prepare(other))
    mixed = eye.sense(prepared, fixation).image
    assert torch.equal(mixed[1:2], eye(other, fixation[:1]).image)
    assert torch.equal(mixed[::2], whole.image[::2])


def test_missing_and_misshapen_objects_are_explained() -> None:
    scene, fixation, eye = scene_of(noise(2)), torch.ones(2, 2), TwoSpot(attend="object")
    with pytest.raises(InvalidValueError, match=r"needs scene\.objects, \(2, 96, 96\) uint8.*foveasim segment"):
        eye(scene, fixation)
    with pytest.raises(InvalidTypeError, match=r"scene\.objects must be uint8, 0-255; got torch\.float32"):
        eye(replace(scene, objects=torch.ones(2, 96, 96)), fixation)
    with pytest.raises(InvalidValueError, match=r"scene\.objects must be \(2, 96, 96\), as its image; got \(2, 96\)"):
        eye(replace(scene, objects=torch.ones(2, 96, dtype=torch.uint8)), fixation)
    with pytest.raises(InvalidValueError, match="attend must be one of random, object; got 'objects'"):
        TwoSpot(attend="objects")  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(InvalidValueError, match="prepared comes from another retina"):
        eye.sense(TwoSpot().prepare(scene), fixation)


@pytest.mark.parametrize("size", [(96, 96), (8, 8), (50, 97), (9, 40), (1, 5), (33, 17)])
def test_the_quick_blur_is_the_gaussian(size: tuple[int, int]) -> None:
    image = noise(3, size)
    image[1], image[2] = 255, (image[2] > 127) * 255
    off = (_blurred(image).int() - _blur_torch(image).int()).abs()
    assert int(off.max()) <= 1
    assert off.double().mean() < 0.05
    assert bool((_blurred(image)[1] == 255).all())


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
