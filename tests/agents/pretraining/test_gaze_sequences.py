"""Eyes that move over batches: what is filled where nothing was seen, pictures prepared once, where they look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from foveasim.agents.pretraining import gaze_sequences
from foveasim.agents.pretraining.augmentations import AugmentedBatches
from foveasim.agents.pretraining.gaze_sequences import PreparedPictures, draw_fixations, sense_sequence
from foveasim.errors import InvalidValueError
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import make_retina
from foveasim.images.pool import ImagePool
from foveasim.rng import Key
from foveasim.types import Belief

RETINAS: list[tuple[str, dict[str, Any]]] = [
    ("disc", {}),
    ("disc", {"fill": "image_mean"}),
    ("disc", {"fill": "blur"}),
    ("patches", {}),
    ("pyramid", {}),
    ("pyramid", {"preset": "paper"}),
]


def noise(lanes: int = 6, size: tuple[int, int] = (48, 64)) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (lanes, *size, 3), dtype=np.uint8))


def points(lanes: int, count: int, size: tuple[int, int] = (48, 64)) -> Any:
    return draw_fixations(np.random.default_rng(1), lanes, count, size)


@pytest.mark.parametrize(("name", "options"), RETINAS)
def test_one_fixation_is_the_glimpse_itself(name: str, options: dict[str, Any]) -> None:
    retina, scene, at = make_retina(name, **options), as_scene(noise()), points(6, 3)
    seen = sense_sequence(scene, retina, at, np.ones(6, np.int64), 5)
    glimpse = retina(scene, torch.from_numpy(at[:, 0]), Key.of(5, 6) if retina.needs_key else None)
    assert torch.equal(seen.image, glimpse.image) and torch.equal(seen.acuity, glimpse.acuity)


@pytest.mark.parametrize("counts", [[3] * 6, [1, 2, 3, 3, 2, 1]])
def test_what_several_fixations_leave_out_is_the_mean_of_what_they_saw(counts: list[int]) -> None:
    image, at = noise(), points(6, 3)
    retina = make_retina("disc", hidden_ratio=0.9)
    belief = sense_sequence(as_scene(image), retina, at, np.array(counts))
    for lane, count in enumerate(counts):
        scene = as_scene(image[lane : lane + 1])
        glimpses = [retina(scene, torch.from_numpy(at[lane : lane + 1, step])) for step in range(count)]
        seen = torch.stack([g.acuity[0] for g in glimpses]).amax(0) > 0
        mean = torch.round(image[lane][seen].double().mean(0))
        assert torch.equal(belief.acuity[lane] > 0, seen)
        assert torch.equal(belief.image[lane][seen], image[lane][seen])
        assert (belief.image[lane][~seen].double() - mean).abs().max() <= 1e-9


def test_fills_are_weighted_by_acuity_and_the_same_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    image = (
        torch.tensor([[10, 20, 30], [200, 100, 0], [7, 7, 7]], dtype=torch.uint8).view(1, 1, 3, 3).repeat(3, 1, 1, 1)
    )
    acuity = torch.tensor([[[255, 85, 0]], [[0, 0, 0]], [[1, 1, 1]]], dtype=torch.uint8)
    belief = Belief(image.clone(), acuity.clone())
    gaze_sequences._fill(belief)
    assert belief.image[0, 0, 2].tolist() == [58, 40, 23]  # (3 * 10 + 200) / 4 = 57.5, 40, 22.5
    assert belief.image[1, 0].tolist() == [[127] * 3] * 3
    assert torch.equal(belief.image[2], image[2])
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(np.where(rng.random((5, 20, 30)) < 0.5, 0, rng.integers(0, 256, (5, 20, 30))))
    one = Belief(noise(5, (20, 30)), weights.to(torch.uint8))
    two = Belief(one.image.clone(), one.acuity.clone())
    gaze_sequences._fill(one)
    gaze_sequences._fill_by_torch(two)
    assert torch.equal(one.image, two.image)


def test_hidden_pixels_have_no_influence() -> None:
    image, at = noise(), points(6, 4)
    retina, count = make_retina("disc", hidden_ratio=0.9), np.full(6, 4)
    belief = sense_sequence(as_scene(image), retina, at, count)
    other = torch.where((belief.acuity > 0)[..., None], image, 255 - image)
    assert torch.equal(sense_sequence(as_scene(other), retina, at, count).image, belief.image)


@pytest.mark.parametrize(("name", "options"), RETINAS)
@pytest.mark.parametrize("limit", [2 << 30, 0])
def test_prepared_pictures_show_the_same(name: str, options: dict[str, Any], limit: int) -> None:
    pool = ImagePool.of(list(noise(7).numpy()))
    batches, retina = AugmentedBatches(pool, (48, 64), crops=False), make_retina(name, **options)
    pictures = PreparedPictures(batches, retina, limit)
    assert pictures.cached == (limit > 0) and pictures.bytes >= pool.pixels.size
    index = np.array([3, 0, 3, 6, 1])
    scene, prepared = pictures.take(index)
    assert torch.equal(scene.image, noise(7)[torch.from_numpy(index)])
    at = points(5, 3)
    for count in (np.ones(5, np.int64), np.array([1, 3, 2, 3, 1]), np.full(5, 2)):
        one, two = (
            sense_sequence(scene, retina, at, count, 9, prepared=prepared),
            sense_sequence(scene, retina, at, count, 9),
        )
        assert torch.equal(one.image, two.image) and torch.equal(one.acuity, two.acuity)


def test_prepared_pictures_bring_their_objects() -> None:
    image = noise(4)
    masks = [np.full((48, 64), 10 * n, np.uint8) for n in range(4)]
    pool = ImagePool.of(list(image.numpy()), objects=masks)
    for limit in (2 << 30, 0):
        pictures = PreparedPictures(AugmentedBatches(pool, (48, 64), crops=False), make_retina("disc"), limit)
        scene = pictures.take(np.array([3, 1]))[0]
        assert scene.objects is not None and scene.objects.shape == (2, 48, 64)
        assert scene.objects[:, 0, 0].tolist() == [30, 10]


@pytest.mark.parametrize("options", [{}, {"crops": False, "mirror": True}, {"crops": False, "jitter": True}])
def test_only_whole_pictures_can_be_prepared(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="crops, mirror and jitter"):
        PreparedPictures(
            AugmentedBatches(ImagePool.of(list(noise(1).numpy())), (48, 64), **options), make_retina("disc")
        )


def test_what_does_not_fit_is_refused() -> None:
    scene, retina, at = as_scene(noise()), make_retina("disc"), points(6, 2)
    with pytest.raises(InvalidValueError, match="numbers from 1 to 2"):
        sense_sequence(scene, retina, at, np.full(6, 3))
    with pytest.raises(InvalidValueError, match="prepared must be of this scene"):
        sense_sequence(scene, retina, at, np.ones(6, np.int64), prepared=retina.prepare(as_scene(noise(5))))
    with pytest.raises(InvalidValueError, match="free, centre; got 'center'"):
        draw_fixations(np.random.default_rng(0), 1, 1, (48, 64), gaze="center")


def test_gaze_at_the_centre() -> None:
    rng = np.random.default_rng(0)
    at = draw_fixations(rng, 3, 2, (48, 65), gaze="centre")
    assert at.shape == (3, 2, 2) and at.dtype == np.float32
    assert at.reshape(-1, 2).tolist() == [[32.5, 24.0]] * 6
    assert rng.uniform() == np.random.default_rng(0).uniform()  # nothing was drawn


def test_free_gaze_stays_in_the_scene() -> None:
    for share in (0.0, 1.0):
        at = draw_fixations(np.random.default_rng(0), 500, 4, (48, 64), share)
        assert (at >= 0).all() and (at <= [64, 48]).all()
        assert np.abs(at.mean((0, 1)) - [32, 24]).max() < 2


def test_people_look_near_the_centre_in_short_steps_and_long_ones() -> None:
    at = draw_fixations(np.random.default_rng(0), 4000, 9, (48, 64), human_share=1.0) / [64, 48]
    assert (at >= 0).all() and (at <= 1).all()
    # of OSIE's 500 training images: spread 0.21 and 0.20 of a side, steps 0.20 and 0.17, their kurtosis 4.8 and 5.6
    np.testing.assert_allclose(at[:, 3:].std((0, 1)), [0.21, 0.20], atol=0.03)
    step = np.diff(at[:, 2:], axis=1)
    np.testing.assert_allclose(step.std((0, 1)), [0.20, 0.17], atol=0.03)
    assert ((step / step.std((0, 1))) ** 4).mean() > 3.5
    assert np.abs(at[:, 0] - 0.5).mean() < np.abs(at[:, 5] - 0.5).mean()


def test_a_share_begins_at_the_centre_and_the_kinds_share_the_lanes() -> None:
    at = draw_fixations(np.random.default_rng(0), 2000, 3, (48, 64), 0.3, human_share=0.3, centre_share=0.4)
    centred = (at[:, 0] == [32, 24]).all(1)
    assert 0.36 < centred.mean() < 0.44
    assert not (at[:, 1:] == [32, 24]).all(2).any()
    plain = draw_fixations(np.random.default_rng(0), 2000, 3, (48, 64), 0.3)
    assert 0.2 < (at[:, 1] != plain[:, 1]).any(1).mean() < 0.4  # only those that people look for differ
