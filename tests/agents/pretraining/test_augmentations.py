"""Batches of views: crops in closed form, objects that go along, jitter, and torch beside the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.agents.pretraining import augmentations
from foveasim.agents.pretraining.augmentations import AugmentedBatches, as_float
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.pool import ImagePool


def random_pool(count: int = 12, *, objects: bool = False) -> ImagePool:
    rng = np.random.default_rng(0)
    sizes = rng.integers(40, 260, (count, 2))
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    return ImagePool.of(images, objects=[image[..., 1].copy() for image in images] if objects else None)


def ramp(height: int, width: int) -> ImagePool:
    """Red grows by one a pixel to the right, green by one a pixel downwards."""
    y, x = np.mgrid[:height, :width]
    return ImagePool.of([np.stack((x, y, np.zeros_like(x)), 2).astype(np.uint8)])


def colours(value: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, value.reshape(-1, 3).tolist()))


@pytest.mark.parametrize("options", [{}, {"mirror": True}, {"crops": False}, {"crops": False, "mirror": True}])
def test_a_uniform_image_stays_uniform(options: dict[str, Any]) -> None:
    pool = ImagePool.of([np.full((50, 170, 3), (1, 128, 255), np.uint8)])
    drawn = AugmentedBatches(pool, (33, 40), **options).draw(np.random.default_rng(0), 16)
    assert drawn.image.shape == (16, 33, 40, 3) and drawn.image.dtype == torch.uint8
    assert drawn.objects is None
    assert colours(drawn.image) == {(1, 128, 255)}


def test_the_whole_of_a_square_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    batches = AugmentedBatches(ImagePool.of([image]), (64, 64), scale=(1.0, 1.0))
    assert bool((batches.draw(np.random.default_rng(0), 4).image == torch.from_numpy(image)).all())


@pytest.mark.parametrize("side", [24, 96])  # smaller and larger than what is cut out
def test_a_ramp_stays_linear(side: int) -> None:
    batches = AugmentedBatches(ramp(200, 240), (side, side), scale=(0.05, 0.3))
    for crop in batches.draw(np.random.default_rng(0), 20).image.double():
        for line in (crop[side // 2, :, 0], crop[:, side // 2, 1]):
            inner = line[2:-2]
            steps = torch.linspace(0, 1, len(inner), dtype=torch.float64)
            assert (inner - (inner[0] + (inner[-1] - inner[0]) * steps)).abs().max() <= 1.01  # two roundings
            assert inner[-1] > inner[0]
        # each row of red is the same, as is each column of green, but for how halves are rounded
        assert (crop[..., 0] - crop[:1, :, 0]).abs().max() <= 1 and (crop[..., 1] - crop[:, :1, 1]).abs().max() <= 1


def test_crops_have_the_area_and_the_ratio_that_they_should() -> None:
    batches = AugmentedBatches(random_pool(1), (64, 64), scale=(0.08, 1.0))
    height, width = batches.pool.size[0].tolist()
    rng = np.random.default_rng(0)
    boxes = batches._boxes(rng, np.zeros(20000, np.int64), (64, 64)).box
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    area = h * w / (height * width)
    assert area.min() > 0.07 and area.max() <= 1
    assert abs(area.mean() - 0.54) < 4 * 0.27 / 20000**0.5 + 0.003  # uniform from 0.08 to 1, but for whole pixels
    free = area < 0.2  # where nothing bends
    ratio = np.log(w / h)[free]
    assert abs(ratio.mean()) < 0.02 and np.abs(ratio).max() < np.log(4 / 3) + 0.1
    assert (top == 0).any() and (top + h == height).any() and (left + w == width).any()


def test_the_ratio_bends_so_that_a_long_image_is_seen_whole() -> None:
    batches = AugmentedBatches(ramp(50, 240), (32, 32), scale=(1.0, 1.0))
    assert (
        batches._boxes(np.random.default_rng(0), np.zeros(9, np.int64), (32, 32)).box.tolist() == [[0, 0, 50, 240]] * 9
    )


@pytest.mark.parametrize("crops", [True, False])
def test_mirrored_views_are_the_same_turned_over(crops: bool) -> None:
    pool = random_pool(objects=True)
    plain, turned = (
        AugmentedBatches(pool, (30, 44), crops=crops, mirror=mirror).draw(np.random.default_rng(7), 64)
        for mirror in (False, True)
    )
    assert (plain.index == turned.index).all()
    assert plain.objects is not None and turned.objects is not None
    mirrored = 0
    for one, two, mask, its in zip(plain.image, turned.image, plain.objects, turned.objects, strict=True):
        if torch.equal(one, two):
            assert torch.equal(mask, its)
        else:
            assert torch.equal(one.flip(1), two) and torch.equal(mask.flip(1), its)
            mirrored += 1
    assert 16 <= mirrored <= 48


def test_the_same_state_draws_the_same_batch() -> None:
    batches = AugmentedBatches(random_pool(), (32, 32), mirror=True, jitter=True)
    first, again, other = (batches.draw(np.random.default_rng(seed), 16) for seed in (1, 1, 2))
    assert torch.equal(first.image, again.image) and (first.index == again.index).all()
    assert not torch.equal(first.image, other.image)
    assert batches.draw(np.random.default_rng(1), 4, (32, 56)).image.shape == (4, 32, 56, 3)


@pytest.mark.parametrize("options", [{}, {"mirror": True}, {"crops": False, "mirror": True}])
def test_objects_are_cut_exactly_like_the_image(options: dict[str, Any]) -> None:
    drawn = AugmentedBatches(random_pool(objects=True), (48, 36), **options).draw(np.random.default_rng(3), 32)
    assert drawn.objects is not None and drawn.objects.shape == (32, 48, 36)
    assert torch.equal(drawn.objects, drawn.image[..., 1])


def test_images_without_a_mask_have_no_object() -> None:
    images = [np.full((40, 40, 3), 9, np.uint8)] * 2
    pool = ImagePool.of(images, objects=[None, np.full((40, 40), 200, np.uint8)])
    for crops in (True, False):
        drawn = AugmentedBatches(pool, (32, 32), crops=crops).draw(np.random.default_rng(0), 20)
        assert drawn.objects is not None
        for index, mask in zip(drawn.index.tolist(), drawn.objects, strict=True):
            assert set(mask.flatten().tolist()) == {200 * index}


def test_shares_choose_the_source() -> None:
    images = [np.full((40, 40, 3), value, np.uint8) for value in (0, 0, 255)]
    pool = ImagePool.of(images, source=np.array([0, 0, 1]))
    drawn = AugmentedBatches(pool, (8, 8), shares=(0.25, 0.75)).draw(np.random.default_rng(0), 400)
    assert abs((drawn.image[:, 0, 0, 0] == 255).double().mean() - 0.75) < 0.08  # 3.7 standard deviations


@pytest.mark.parametrize("size", [(20, 28), (96, 96)])
def test_crops_by_torch_are_those_of_the_kernel(size: tuple[int, int]) -> None:
    pool = random_pool(objects=True)
    batches = AugmentedBatches(pool, size, mirror=True)
    rng = np.random.default_rng(0)
    boxes = batches._boxes(rng, rng.integers(len(pool), size=24), size)
    for of_objects in (False, True):
        here, there = (
            cut(boxes, size, of_objects=of_objects).short() for cut in (batches._cut_here, batches._cut_there)
        )
        assert here.shape == there.shape
        assert (here - there).abs().max() <= 1
        assert (here != there).double().mean() < 1e-3


def test_crops_are_those_of_antialiased_bilinear_resizing() -> None:
    batches = AugmentedBatches(random_pool(), (40, 52))
    rng = np.random.default_rng(0)
    boxes = batches._boxes(rng, rng.integers(12, size=24), (40, 52))
    cut = batches._cut_here(boxes, (40, 52), of_objects=False)
    for lane, (top, left, h, w) in enumerate(boxes.box.tolist()):
        part = torch.from_numpy(batches.pool.images[boxes.index[lane]][top : top + h, left : left + w].copy())
        planes = part.permute(2, 0, 1)[None].double()
        expected = torch.nn.functional.interpolate(planes, size=(40, 52), mode="bilinear", antialias=True)
        assert (expected[0].permute(1, 2, 0) - cut[lane]).abs().max() < 0.51


def test_whole_pictures_are_kept_and_copied() -> None:
    batches = AugmentedBatches(ramp(40, 40), (40, 40), crops=False)
    first = batches.draw(np.random.default_rng(0), 2).image
    first.fill_(0)
    assert batches.draw(np.random.default_rng(0), 2).image.any()
    assert batches.pool.pixels.any()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 0.4)}, "scale"),
        ({"shares": (1, 1)}, "one number >= 0 for each"),
        ({"shares": (float("nan"),)}, "one number >= 0 for each"),
        ({"size": (4, 4)}, "size"),
    ],
)
def test_options_are_checked(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidValueError, match=match):
        AugmentedBatches(ramp(40, 40), **options)


def test_empty_pools_and_batches_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one image"):
        AugmentedBatches(ImagePool.of([]))
    with pytest.raises(InvalidValueError, match="count"):
        AugmentedBatches(ramp(40, 40)).draw(np.random.default_rng(0), 0)


@pytest.mark.parametrize("shape", [(7, 3, 5, 3), (2, 9), (4,)])
def test_as_float_is_the_division_of_torch(shape: tuple[int, ...]) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert torch.equal(as_float(values), values.float() / 255)
    if len(shape) == 4:
        assert torch.equal(as_float(values.permute(0, 3, 1, 2)), values.permute(0, 3, 1, 2).float() / 255)
    with pytest.raises(InvalidTypeError, match="uint8"):
        as_float(values.float())


# Colour jitter


def changed(image: Tensor, change: int, factor: float) -> Tensor:
    """Apply one change alone: brightness, contrast, saturation or hue."""
    from foveasim.agents.pretraining.kernels import jitter_lanes

    factors = np.tile(np.array([1, 1, 1, 0], np.float32), (len(image), 1))
    factors[:, change] = factor
    out = image.clone()
    order = np.tile(np.arange(4), (len(image), 1))
    jitter_lanes(out.flatten(1).numpy(), factors, order, np.ones(len(image), np.bool_))
    return out


def noise(lanes: int = 8, side: int = 24) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (lanes, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize(("change", "none"), [(0, 1), (1, 1), (2, 1), (3, 0), (3, 1), (3, -1)])
def test_no_change_changes_nothing(change: int, none: float) -> None:
    assert (changed(noise(), change, none).short() - noise().short()).abs().max() == 0


def test_brightness_multiplies() -> None:
    image = noise()
    expected = (image.double() * 1.6).clamp(0, 255)
    assert (changed(image, 0, 1.6).double() - expected).abs().max() <= 0.5 + 1e-4
    assert not changed(image, 0, 0.0).any()


def test_contrast_keeps_the_mean_and_scales_around_it() -> None:
    image = (noise() // 4) + 96  # nothing is cut off
    grey = image.double() @ torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
    mean = grey.mean((1, 2)).view(-1, 1, 1, 1)
    assert (changed(image, 1, 0.5).double() - (mean + 0.5 * (image - mean))).abs().max() <= 0.5 + 1e-3
    assert (changed(image, 1, 0.0).double() - mean).abs().max() <= 0.5 + 1e-3


def test_grey_stays_grey_whatever_saturation_and_hue() -> None:
    grey = noise()[..., :1].expand(-1, -1, -1, 3).contiguous()
    for change, factor in ((2, 0.2), (2, 1.8), (3, 0.2), (3, -0.13)):
        assert (changed(grey, change, factor).short() - grey.short()).abs().max() <= 1  # 0.2989 + 0.587 + 0.114 < 1
    washed = changed(noise(), 2, 0.0)
    assert bool((washed == washed[..., :1]).all())


def test_hue_turns_the_colours() -> None:
    red, green, blue, yellow = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
    image = torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 1, 3, 3)
    assert changed(image, 3, 1 / 3)[0, 0].tolist() == [list(green), list(blue), list(red)]
    assert changed(image, 3, -1 / 3)[0, 0].tolist() == [list(blue), list(red), list(green)]
    assert changed(image, 3, 1 / 6)[0, 0, 0].tolist() == list(yellow)
    turned, plain = changed(noise(), 3, 0.17).short(), noise().short()
    assert (turned.amax(3) - plain.amax(3)).abs().max() <= 1 and (turned.amin(3) - plain.amin(3)).abs().max() <= 1


def test_four_images_in_five_are_jittered_in_orders_of_their_own() -> None:
    image = noise(1, 8).expand(600, -1, -1, -1).contiguous()
    shaken = image.clone()
    augmentations.shake(shaken, np.random.default_rng(0))
    share = (shaken != image).flatten(1).any(1).double().mean()
    assert abs(share - 0.8) < 0.06  # 3.7 standard deviations
    assert len({tuple(lane.flatten().tolist()) for lane in shaken}) > 400


def test_jitter_by_torch_is_that_of_the_kernel() -> None:
    image = noise(48)
    rng = np.random.default_rng(2)
    by_kernel, by_torch = image.clone(), image.clone()
    augmentations.shake(by_kernel, np.random.default_rng(2))
    applied = rng.uniform(size=48) < augmentations.CHANCE
    factors = np.empty((48, 4), np.float32)
    factors[:, :3], factors[:, 3] = rng.uniform(0.2, 1.8, (48, 3)), rng.uniform(-0.2, 0.2, 48)
    augmentations._by_torch(by_torch, factors, rng.permuted(np.tile(np.arange(4), (48, 1)), axis=1), applied)
    assert (by_kernel.short() - by_torch.short()).abs().max() <= 1
    assert torch.equal(by_kernel[~applied], image[~applied])
