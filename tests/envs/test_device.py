"""The env's way of working on a GPU, walked on the CPU: the same steps, and none that waits for the device."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from foveasim.envs import vector
from foveasim.envs.actions import ActionCode
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.eye.masks import Disc
from foveasim.eye.pyramid import Pyramid
from foveasim.eye.retina import Prepared
from foveasim.simulator.simulator import Simulator
from foveasim.types import Glimpse

LANES, BUDGET = 5, 4
WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "lift_fresh"}
"""Operators after which the host knows what the device worked out; or, the last, that bring a number there from here,
for which it waits as well."""


class NeverWaits(TorchDispatchMode):
    """Refuses the operators for which the host would wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in WAITING:
            raise AssertionError(f"aten::{name} waits for the device")
        if name in ("index", "index_put", "index_put_"):
            for index in args[1]:
                if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                    raise AssertionError(f"aten::{name} by a mask waits for the device")
        return func(*args, **(kwargs or {}))


def refuse(name: str) -> Any:
    def call(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{name} waits for the device")

    return call


def disc_sense(self: Disc, prepared: Prepared, fixation_px: Tensor, key: Any = None, zoom: Any = None) -> Glimpse:
    return self._sense_torch(prepared, self.spots(prepared, fixation_px, key))


def pyramid_sense(self: Pyramid, prepared: Prepared, fixation_px: Tensor, key: Any = None, zoom: Any = None) -> Glimpse:
    return self._sense_torch(prepared, fixation_px, prepared.parts[1])


@pytest.fixture
def as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of a device, though the tensors are here."""
    monkeypatch.setattr(vector, "Simulator", functools.partial(Simulator, kernels=False))
    monkeypatch.setattr(Disc, "sense", disc_sense)
    monkeypatch.setattr(Pyramid, "sense", pyramid_sense)
    monkeypatch.setattr(
        ActionCode, "validate", lambda self, action, lanes, values=True: self._validate_on_device(action, lanes)
    )


def make(retina: str, **options: Any) -> FoveaVectorEnv:
    envs = FoveaVectorEnv(LANES, scenes="noise", retina=retina, budget=BUDGET, size=(48, 64), belief=True, **options)
    envs.reset(seed=3)
    return envs


@pytest.mark.parametrize("operation", [torch.Tensor.item, torch.Tensor.nonzero, bool, lambda x: x[x > 0]])
def test_the_guard_sees_what_waits(operation: Any) -> None:
    with NeverWaits(), pytest.raises(AssertionError, match="waits for the device"):
        operation(torch.ones(1))
    with NeverWaits(), pytest.raises(AssertionError, match="waits for the device"):
        torch.tensor([1.0])


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
@pytest.mark.parametrize("action_mode", ["absolute", "relative"])
@pytest.mark.usefixtures("as_device")
def test_no_step_within_an_episode_waits_for_the_device(
    retina: str, action_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    envs = make(retina, action_mode=action_mode)
    actions = torch.rand(BUDGET, LANES, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    envs.step(actions[0])  # tables are brought to the device once
    with monkeypatch.context() as guarded, NeverWaits():
        for name in ("tolist", "numpy", "cpu"):
            guarded.setattr(torch.Tensor, name, refuse(name))
        for name in ("from_numpy", "tensor"):
            guarded.setattr(torch, name, refuse(name))
        for action in actions[1 : BUDGET - 1]:
            observation, reward, terminated, truncated, info = envs.step(action)
    for value in (*observation.values(), reward, terminated, truncated, info["fixation_px"]):
        assert isinstance(value, Tensor)
    assert not terminated.any() and not truncated.any()


@pytest.mark.parametrize("retina", ["disc", "pyramid"])
@pytest.mark.parametrize("autoreset_mode", ["NextStep", "SameStep"])
def test_a_device_comes_to_the_same(retina: str, autoreset_mode: str, request: pytest.FixtureRequest) -> None:
    here = make(retina, autoreset_mode=autoreset_mode)
    request.getfixturevalue("as_device")
    there = make(retina, autoreset_mode=autoreset_mode)
    actions = torch.rand(2 * BUDGET + 3, LANES, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for number, action in enumerate(actions):
        if number == 2:  # from here on the lanes' steps differ
            mask = np.arange(LANES) < 2
            here.reset(options={"reset_mask": mask})
            there.reset(options={"reset_mask": mask})
        with pytest.MonkeyPatch.context() as alone:
            alone.setattr(ActionCode, "validate", lambda self, action, lanes, values=True: action.numpy().copy())
            mine = here.step(action)
        theirs = there.step(action)
        for key, value in mine[0].items():
            exact = value.dtype == np.uint8
            off = np.abs(value.astype(np.float64) - theirs[0][key].numpy()).max()
            assert off <= (1 if exact else 1e-5), (number, key)
        assert np.allclose(mine[1], theirs[1].numpy(), atol=1e-4)
        assert np.array_equal(mine[2], theirs[2].numpy()), number
        assert np.array_equal(mine[3], theirs[3].numpy())
        assert np.array_equal(there._steps, there.simulator.step_count.numpy())
