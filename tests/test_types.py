"""The dataclasses that pass between modules: select takes lanes from one of two values, clone lets go of the memory."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from torch import Tensor

from foveasim.errors import InvalidValueError
from foveasim.types import Belief, Glimpse, Lanes, Prediction, Saccade, Scene, State

LANES = 4


def scene(value: int) -> Scene:
    """A scene in which everything has the same value."""
    return Scene(
        image=torch.full((LANES, 8, 10, 3), value, dtype=torch.uint8),
        label=torch.full((LANES,), value),
        px_per_deg=torch.full((LANES,), float(value)),
        name=tuple(f"{value}-{lane}" for lane in range(LANES)),
        time_ms=torch.full((LANES,), float(value), dtype=torch.float64),
    )


def taught(value: int) -> Scene:
    """A scene of which somebody has said where the main object is."""
    return replace(scene(value), objects=torch.full((LANES, 8, 10), value, dtype=torch.uint8))


def belief(value: int) -> Belief:
    """A belief in which everything has the same value."""
    image = torch.full((LANES, 8, 10, 3), value, dtype=torch.uint8)
    return Belief(image, image[..., 0].clone())


def state(value: int) -> State:
    """A state in which everything has the same value."""
    whole = torch.full((LANES,), value)
    fixation_px = torch.full((LANES, 2), float(value))
    return State(scene(value), fixation_px, belief(value), whole.float(), whole.clone(), whole.clone(), whole.clone())


def saccade(value: int) -> Saccade:
    """A saccade in which everything has the same value."""
    point, number = torch.full((LANES, 2), float(value)), torch.full((LANES,), float(value))
    return Saccade(point, point.clone(), point.clone(), number, number.clone())


def leaves(value: Lanes) -> list[Tensor | tuple[str, ...]]:
    """Return every tensor and tuple inside."""
    found: list[Tensor | tuple[str, ...]] = []
    for field in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        found += leaves(inner) if isinstance(inner, Lanes) else [] if inner is None else [inner]
    return found


@pytest.mark.parametrize("make", [scene, taught, belief, state, saccade])
@pytest.mark.parametrize("marked", [[False] * 4, [True] * 4, [True, False, False, True]])
def test_select_takes_each_lane_whole(make: type[Lanes], marked: list[bool]) -> None:
    mine, theirs = make(1), make(2)  # type: ignore[call-arg]
    chosen = mine.select(torch.tensor(marked), theirs)
    assert type(chosen) is type(mine)
    for leaf in leaves(chosen):
        for lane, taken in enumerate(marked):
            expected = 2 if taken else 1
            if isinstance(leaf, tuple):
                assert leaf[lane] == f"{expected}-{lane}"
            else:
                assert bool((leaf[lane] == expected).all())


@pytest.mark.parametrize("make", [scene, taught, belief, state, saccade])
def test_select_keeps_dtypes_and_leaves_its_inputs_alone(make: type[Lanes]) -> None:
    mine, theirs = make(1), make(2)  # type: ignore[call-arg]
    chosen = mine.select(torch.tensor([True, False, True, False]), theirs)
    for got, before in zip(leaves(chosen), leaves(mine), strict=True):
        if isinstance(got, Tensor) and isinstance(before, Tensor):
            assert (got.dtype, got.shape) == (before.dtype, before.shape)
            got.zero_()
    for selected, value in ((mine, 1), (theirs, 2)):
        assert all(bool((leaf == value).all()) for leaf in leaves(selected) if isinstance(leaf, Tensor))


def test_select_of_a_select_is_the_last_word() -> None:
    lanes = torch.tensor([True, True, False, False])
    once = state(1).select(lanes, state(2))
    back = once.select(lanes, state(1))
    assert all(bool((leaf == 1).all()) for leaf in leaves(back) if isinstance(leaf, Tensor))
    assert back.scene.name == state(1).scene.name


def test_select_keeps_what_is_absent_absent() -> None:
    glimpse = Glimpse(belief(1).image, belief(1).acuity)
    assert glimpse.select(torch.ones(LANES, dtype=torch.bool), glimpse).patch is None
    prediction = Prediction(torch.zeros(LANES, 8, 10, 3))
    assert prediction.select(torch.ones(LANES, dtype=torch.bool), prediction).std is None


def test_select_refuses_what_only_one_has() -> None:
    lanes = torch.ones(LANES, dtype=torch.bool)
    with pytest.raises(InvalidValueError, match=r"objects must be given in both Scenes or in neither; .* this one"):
        taught(1).select(lanes, scene(2))
    with pytest.raises(InvalidValueError, match=r"objects must be given in both Scenes or in neither; .* the other"):
        scene(1).select(~lanes, taught(2))
    assert scene(1).select(lanes, scene(2)).objects is None


def test_select_refuses_names_of_another_number_of_lanes() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        scene(1).select(torch.tensor([True, False]), scene(2))


@pytest.mark.parametrize("make", [scene, taught, belief, state, saccade])
def test_clone_shares_no_memory(make: type[Lanes]) -> None:
    original = make(1)  # type: ignore[call-arg]
    copy = original.clone()
    for leaf in leaves(original):
        if isinstance(leaf, Tensor):
            leaf.fill_(7)
    assert type(copy) is type(original)
    assert all(bool((leaf == 1).all()) for leaf in leaves(copy) if isinstance(leaf, Tensor))


def test_clone_keeps_what_is_absent_absent() -> None:
    assert Glimpse(belief(1).image, belief(1).acuity).clone().patch is None
    assert scene(1).clone().objects is None


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        belief(1).image = torch.zeros(1)  # type: ignore[misc]
