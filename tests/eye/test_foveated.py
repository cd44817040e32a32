"""One picture in, what an eye sees of it out: closed forms, one kind in and the same kind out, and refusals."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import foveasim
from foveasim import foveate
from foveasim.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye.retina import RETINAS
from foveasim.rng import Key

POINTS = np.array([[10.5, 20.5], [60.2, 40.0]], np.float32)
AT = ((20, 10), (40, 60))  # (row, column) of the pixels in which they lie


def noise(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("retina", [*RETINAS])
def test_a_uniform_picture_stays_uniform(retina: str) -> None:
    picture = np.full((2, 64, 96, 3), (77, 130, 200), np.uint8)
    for points in (POINTS, POINTS[::-1], [[0, 0], [96, 64]]):
        assert (foveate(picture, points, retina) == picture).all()


@pytest.mark.parametrize("retina", [*RETINAS])
def test_the_fixated_pixel_stays_sharp(retina: str) -> None:
    pictures = noise(2, 64, 96, 3)
    seen = foveate(pictures, POINTS, retina)
    for lane, at in enumerate(AT):
        assert (seen[lane][at] == pictures[lane][at]).all()
    assert retina == "full" or (seen != pictures).any()


@pytest.mark.parametrize("retina", [*RETINAS])
def test_a_batch_is_its_pictures_one_by_one(retina: str) -> None:
    pictures = noise(3, 64, 96, 3)
    points = np.array([[10.5, 20.5], [60.2, 40.0], [90.0, 5.0]])
    together = foveate(pictures, points, retina, seed=7)
    for i in range(3):
        alone = foveate(pictures[i], points[i], retina, seed=7 + i)
        assert alone.shape == (64, 96, 3) and (alone == together[i]).all()


@pytest.mark.parametrize("retina", [*RETINAS])
def test_it_is_what_the_retina_sees(retina: str) -> None:
    pictures, made = noise(2, 64, 96, 3), foveasim.make_retina(retina)
    key = Key.of(3, 2) if made.needs_key else None
    seen = made(foveasim.as_scene(pictures, 5.0), torch.from_numpy(POINTS), key).image
    assert (foveate(pictures, POINTS, retina, 5.0, seed=3) == seen.numpy()).all()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(64, 96, 3), (2, 64, 96, 3)], ids=["one", "batch"])
def test_the_same_kind_comes_back(shape: tuple[int, ...], dtype: str) -> None:
    levels, points = noise(*shape), POINTS if len(shape) == 4 else POINTS[0]
    expected = foveate(levels, points)
    array = levels if dtype == "uint8" else (levels / 255).astype(dtype)
    before = array.copy()
    seen, tensor = foveate(array, points), foveate(torch.from_numpy(array), torch.as_tensor(points))
    assert isinstance(seen, np.ndarray) and isinstance(tensor, torch.Tensor)
    assert seen.dtype == array.dtype and tensor.dtype == torch.from_numpy(array).dtype
    assert seen.shape == tuple(tensor.shape) == shape
    assert (array == before).all() and not np.shares_memory(seen, array)
    scale = 1 if dtype == "uint8" else 255
    for found in (seen.astype(np.float64), tensor.numpy().astype(np.float64)):
        assert np.abs(found * scale - expected).max() <= 1, "one grey level"
    assert (seen == tensor.numpy()).all()


def test_other_arrays_and_tensors_that_hold_a_picture() -> None:
    levels = noise(64, 96, 3)
    expected = foveate(levels, (10, 20))
    frozen = levels.copy()
    frozen.flags.writeable = False
    gradient = torch.from_numpy(levels / 255).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (foveate(frozen, (10, 20)) == expected).all()
        assert (foveate(np.asfortranarray(levels), (10, 20)) == expected).all()
        assert (foveate(levels[:, ::-1][:, ::-1], [10, 20]) == expected).all()
        assert (foveate((levels / 255).astype(">f4"), (10, 20)) * 255 - expected).max() <= 1
        assert not foveate(gradient, (10, 20)).requires_grad
    planes = torch.from_numpy(levels).permute(2, 0, 1).contiguous()
    assert (foveate(planes.permute(1, 2, 0), (10, 20)).numpy() == expected).all()
    full = foveate(levels, (10, 20), "full")
    full[:] = 0
    assert levels.any()


def test_retina_scale_and_seed_count() -> None:
    picture = noise(64, 96, 3)
    narrow = foveate(picture, (48, 32), "disc", retina_options={"hidden_ratio": 0.95})
    wide = foveate(picture, (48, 32), foveasim.make_retina("disc", hidden_ratio=0.5))
    assert (narrow == picture).sum() < (wide == picture).sum()
    assert (wide == foveate(picture, (48, 32), "disc", retina_options={"hidden_ratio": 0.5})).all()
    # 64 px of 27.4 degrees by default; a picture that spans more degrees is blurred nearer to the fixation
    assert (foveate(picture, (48, 32)) == foveate(picture, (48, 32), px_per_deg=64 / (96 / 3.5))).all()
    near, far = (np.abs(foveate(picture, (48, 32), px_per_deg=p) - picture.astype(int)).mean() for p in (20.0, 1.0))
    assert near < far
    assert (foveate(picture, (48, 32), "patches", seed=1) != foveate(picture, (48, 32), "patches", seed=2)).any()
    assert (foveate(picture, (-5, 1000)) == foveate(picture, (0, 64))).all()  # gaze stops at the edge


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("retina", [*RETINAS])
def test_the_view_stays_on_the_device(retina: str) -> None:
    pictures = noise(2, 64, 96, 3)
    seen = foveate(torch.from_numpy(pictures).cuda(), POINTS, retina)
    assert seen.is_cuda and (seen.cpu().int() - foveate(pictures, POINTS, retina).astype(np.int32)).abs().max() <= 1


ONE, TWO = noise(64, 96, 3), noise(2, 64, 96, 3)


@pytest.mark.parametrize(
    ("image", "point", "error", "message"),
    [
        (
            ONE[..., 0],
            (1, 1),
            InvalidValueError,
            r"got \(64, 96\). Give grey three channels: np.stack\(\[image\] \* 3, -1\)",
        ),
        (ONE[..., :1], (1, 1), InvalidValueError, r"Give grey three channels: np.concatenate\(\[image\] \* 3, -1\)"),
        (torch.zeros(3, 64, 96), (1, 1), InvalidValueError, r"Channels come last: torch.moveaxis\(image, -3, -1\)"),
        (TWO.transpose(0, 3, 1, 2), POINTS, InvalidValueError, r"Channels come last: np.moveaxis\(image, -3, -1\)"),
        (noise(64, 96, 4), (1, 1), InvalidValueError, r"image\[\.\.\., :3\]"),
        (noise(7, 96, 3), (1, 1), InvalidValueError, "sides of at least 8 px"),
        (TWO[:0], POINTS[:0], InvalidValueError, r"got \(0, 64, 96, 3\)"),
        (
            ONE.astype(np.float32),
            (1, 1),
            InvalidValueError,
            r"lie in \[0, 1\].*got values from 0 to 255.*Scale it",
        ),
        (ONE / 255 - 0.1, (1, 1), InvalidValueError, "got values from -0.1"),
        (np.where(ONE > 9, ONE / 255, np.nan), (1, 1), InvalidValueError, "nan.*Fill what is missing"),
        (np.full((8, 8, 3), np.inf), (1, 1), InvalidValueError, "inf"),
        (torch.full((8, 8, 3), torch.nan), (1, 1), InvalidValueError, "nan"),
        (ONE.astype(np.int64), (1, 1), InvalidTypeError, "uint8, 0 to 255, or floats, 0 to 1; got int64"),
        (torch.zeros(64, 96, 3, dtype=torch.bool), (1, 1), InvalidTypeError, "got torch.bool"),
        (ONE.astype(complex), (1, 1), InvalidTypeError, "got complex128"),
        (ONE.tolist(), (1, 1), InvalidTypeError, r"got list. Convert it: np.asarray\(image\)"),
        (ONE, POINTS[:1], InvalidValueError, r"got \(1, 2\). Take its row, fixation_px\[0\]"),
        (ONE, POINTS, InvalidValueError, r"\(2,\), \(x, y\), for one picture; got \(2, 2\)"),
        (ONE, 5, InvalidValueError, r"for one picture; got \(\)"),
        (ONE, (np.nan, 1), InvalidValueError, "must be finite"),
        (ONE, "ab", InvalidValueError, "fixation_px"),
        (ONE, ("a", "b"), InvalidTypeError, "fixation_px"),
        (TWO, [[1, 2], [3]], InvalidTypeError, "fixation_px"),
        (TWO, POINTS[0], InvalidValueError, r"Repeat it: np.tile\(fixation_px, \(2, 1\)\)"),
        (TWO[:1], POINTS[0], InvalidValueError, r"fixation_px\[None\]"),
        (TWO, noise(3, 2), InvalidValueError, r"\(2, 2\); got \(3, 2\)"),
    ],
)
def test_a_wrong_picture_or_point_is_explained(image: Any, point: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        foveate(image, point)


def test_wrong_options_are_explained() -> None:
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(InvalidValueError, match="px_per_deg"):
            foveate(ONE, (1, 1), px_per_deg=scale)
    with pytest.raises(InvalidTypeError, match="px_per_deg"):
        foveate(ONE, (1, 1), px_per_deg="3")  # type: ignore[call-overload]
    with pytest.raises(UnknownNameError, match="pyramid"):
        foveate(ONE, (1, 1), "pyramide")
    with pytest.raises(InvalidTypeError, match="hidden_ration"):
        foveate(ONE, (1, 1), "disc", retina_options={"hidden_ration": 0.5})
    with pytest.raises(InvalidTypeError, match="retina_options must be a dict"):
        foveate(ONE, (1, 1), "disc", retina_options=[1])  # type: ignore[call-overload]
    with pytest.raises(InvalidValueError, match="seed"):
        foveate(ONE, (1, 1), "patches", seed=-1)
