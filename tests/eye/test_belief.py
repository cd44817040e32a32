"""Belief: the sharpest view wins, the newest wins ties, forgetting has its half-life, nothing is changed in place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidValueError
from foveasim.eye import belief as beliefs
from foveasim.types import Belief, Glimpse


def glimpse(value: int, acuity: int | Tensor, size: tuple[int, int] = (8, 8)) -> Glimpse:
    image = torch.full((1, *size, 3), value, dtype=torch.uint8)
    sharp = torch.full((1, *size), acuity, dtype=torch.uint8) if isinstance(acuity, int) else acuity
    return Glimpse(image, sharp)


def test_an_empty_belief_is_mid_grey_and_unseen() -> None:
    empty = beliefs.empty(2, (9, 12))
    assert empty.image.shape == (2, 9, 12, 3)
    assert bool((empty.image == 127).all())
    assert int(empty.acuity.sum()) == 0
    assert beliefs.coverage(empty).tolist() == [0, 0]
    with pytest.raises(InvalidValueError, match="size"):
        beliefs.empty(1, (4, 12))


def test_the_sharper_view_of_every_pixel_wins() -> None:
    left, right = torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
    left[..., :4], left[..., 4:], right[..., :4], right[..., 4:] = 200, 50, 60, 255
    held = beliefs.integrate(beliefs.integrate(beliefs.empty(1, (8, 8)), glimpse(10, left)), glimpse(20, right))
    assert bool((held.image[..., :4, :] == 10).all())
    assert bool((held.image[..., 4:, :] == 20).all())
    assert held.acuity[0, 0].tolist() == [200] * 4 + [255] * 4
    assert beliefs.coverage(held).item() == pytest.approx((200 + 255) / 2 / 255)


def test_the_newest_view_wins_a_tie() -> None:
    held = beliefs.integrate(beliefs.integrate(beliefs.empty(1, (8, 8)), glimpse(10, 255)), glimpse(20, 255))
    assert bool((held.image == 20).all())


def test_without_forgetting_acuity_never_falls() -> None:
    generator = torch.Generator().manual_seed(0)
    held, before = beliefs.empty(1, (8, 8)), torch.zeros(1)
    for _ in range(20):
        acuity = torch.randint(0, 256, (1, 8, 8), dtype=torch.uint8, generator=generator)
        newer = beliefs.integrate(held, glimpse(3, acuity))
        assert bool((newer.acuity >= held.acuity).all())
        assert torch.equal(newer.acuity, torch.maximum(held.acuity, acuity))
        assert beliefs.coverage(newer) >= before
        held, before = newer, beliefs.coverage(newer)
    full = beliefs.integrate(held, glimpse(3, 255))
    assert beliefs.coverage(full).item() == 1


def test_half_of_acuity_is_left_after_a_half_life() -> None:
    keep = beliefs.retained_share(torch.tensor([0.0, 250.0, 500.0, 1000.0, 5000.0]), 500)
    torch.testing.assert_close(keep, torch.tensor([1, 2**-0.5, 0.5, 0.25, 2**-10]))
    assert beliefs.retained_share(torch.tensor([1e9]), None).tolist() == [1]
    forgetting, held = remember(200, half_life_ms=500)
    forgetting.decay(held.acuity, torch.tensor([500.0]))
    assert bool((held.acuity == 100).all())
    assert bool((held.image == 10).all())
    for half_life in (0, -1, float("nan")):
        with pytest.raises(InvalidValueError, match="half_life_ms"):
            beliefs.retained_share(torch.tensor([1.0]), half_life)


def remember(acuity: int, half_life_ms: float) -> tuple[beliefs.Forgetting, Belief]:
    forgetting = beliefs.Forgetting(1, (8, 8), half_life_ms, "cpu")
    held = beliefs.integrate(beliefs.empty(1, (8, 8)), glimpse(10, acuity))
    forgetting.update(held.acuity, glimpse(10, acuity).acuity)
    return forgetting, held


def test_a_dimmed_memory_gives_way_to_a_coarser_view() -> None:
    forgetting, held = remember(200, half_life_ms=500)
    assert bool((beliefs.integrate(held, glimpse(20, 120)).image == 10).all())
    forgetting.decay(held.acuity, torch.tensor([500.0]))
    assert bool((beliefs.integrate(held, glimpse(20, 120)).image == 20).all())


@pytest.mark.parametrize("looks", [1, 10, 1000])
def test_forgetting_does_not_depend_on_how_often_one_looks(looks: int) -> None:
    forgetting, held = remember(255, half_life_ms=5000)
    for _ in range(looks):
        forgetting.decay(held.acuity, torch.tensor([5000.0 / looks]))
        forgetting.update(held.acuity, glimpse(20, 0).acuity)
    assert int(held.acuity[0, 0, 0]) in (126, 127)


def test_everything_is_forgotten_in_the_end() -> None:
    forgetting, held = remember(255, half_life_ms=500)
    forgetting.decay(held.acuity, torch.tensor([500.0 * 9]))
    assert int(held.acuity.sum()) == 0


def test_integrating_is_pure() -> None:
    held, new = beliefs.integrate(beliefs.empty(1, (8, 8)), glimpse(10, 200)), glimpse(20, 220)
    copies = held.clone(), new.clone()
    beliefs.integrate(held, new)
    assert torch.equal(held.image, copies[0].image)
    assert torch.equal(held.acuity, copies[0].acuity)
    assert torch.equal(new.image, copies[1].image)
    assert torch.equal(new.acuity, copies[1].acuity)


def test_lanes_forget_by_themselves() -> None:
    forgetting = beliefs.Forgetting(2, (8, 8), 500, "cpu")
    acuity = torch.full((2, 8, 8), 200, dtype=torch.uint8)
    forgetting.update(acuity, acuity)
    forgetting.decay(acuity, torch.tensor([0.0, 500.0]))
    assert acuity[:, 0, 0].tolist() == [200, 100]


def test_sizes_must_fit() -> None:
    with pytest.raises(InvalidValueError, match=r"glimpse\.image must have the belief's shape \(1, 8, 8, 3\)"):
        beliefs.integrate(beliefs.empty(1, (8, 8)), glimpse(1, 1, (8, 9)))
