"""Procedural scenes: repeatable, and what their names promise."""

import numpy as np
import pytest
import torch

from foveasim.errors import InvalidValueError
from foveasim.scenes.source import open_scenes

PROCEDURAL = ("noise", "shapes", "gratings", "uniform", "checkerboard")


@pytest.mark.parametrize("name", PROCEDURAL)
def test_procedural_scenes_repeat_in_any_order(name: str) -> None:
    size = (40, 56)
    forward = open_scenes(name, seed=5, size=size)
    alone = open_scenes(name, seed=5, size=size)
    pictures = [forward.picture(i).image for i in range(4)]
    assert np.array_equal(alone.picture(3).image, pictures[3])
    assert np.array_equal(alone.picture(1).image, pictures[1])
    assert not np.array_equal(pictures[0], pictures[1])
    other = open_scenes(name, seed=6, size=size)
    assert any(not np.array_equal(other.picture(i).image, pictures[i]) for i in range(4))
    assert forward.picture(0).size == size
    assert len(forward) == 10_000


@pytest.mark.parametrize("name", PROCEDURAL)
def test_procedural_scenes_leave_global_random_state_alone(name: str) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    open_scenes(name, size=(16, 16)).picture(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_noise_is_pink() -> None:
    source = open_scenes("noise", size=(128, 128))
    spectra = [np.abs(np.fft.fft2(source.picture(i).image.mean(axis=2))) for i in range(8)]
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    band = (frequency > 0.03) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[band]), np.log(np.mean(spectra, axis=0)[band]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    image = source.picture(0).image
    assert image.mean() == pytest.approx(127.5, abs=1)
    assert ((image == 0) | (image == 255)).mean() < 1e-3


def test_uniform_is_flat_and_of_the_given_colour() -> None:
    image = open_scenes("uniform", colour=(10, 128, 255)).picture(7).image
    assert np.all(image == (10, 128, 255))
    assert np.ptp(open_scenes("uniform").picture(1).image, axis=(0, 1)).tolist() == [0, 0, 0]
    with pytest.raises(InvalidValueError, match="colour must"):
        open_scenes("uniform", colour=(0, 0, 256))


def test_checkerboard_cells() -> None:
    image = open_scenes("checkerboard", size=(96, 96), cell_px=12).picture(2).image[..., 0]
    assert set(np.unique(image)) == {0, 255}
    assert np.array_equal(image[:-12], 255 - image[12:])
    assert np.array_equal(image[:, :-12], 255 - image[:, 12:])
    with pytest.raises(InvalidValueError, match="cell_px"):
        open_scenes("checkerboard", cell_px=0)


def test_gratings_are_grey_waves_around_mid_grey() -> None:
    source = open_scenes("gratings", size=(128, 128))
    for index in range(8):
        image = source.picture(index).image.astype(float)
        assert np.array_equal(image[..., 0], image[..., 2])
        spectrum = np.abs(
            np.fft.fft2((image[..., 0] - image[..., 0].mean()) * np.outer(np.hanning(128), np.hanning(128)))
        )
        power = np.sort((spectrum**2).ravel())[::-1]
        assert power[:40].sum() / power.sum() > 0.95  # one frequency


def test_shapes_lie_on_their_background() -> None:
    bare = open_scenes("shapes", shapes=(0, 0), seed=2).picture(3).image.astype(int)
    full = open_scenes("shapes", shapes=(5, 5), seed=2).picture(3).image.astype(int)
    changed = np.abs(bare - full).max(axis=2) > 0
    assert 0.02 < changed.mean() < 0.8
    with pytest.raises(InvalidValueError, match="shapes must"):
        open_scenes("shapes", shapes=(5, 2))


@pytest.mark.parametrize("options", [{"count": 0}, {"seed": -1}, {"size": (4, 96)}, {"cache_bytes": -1}])
def test_wrong_options_of_procedural_scenes(options: dict[str, object]) -> None:
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        open_scenes("noise", **options)  # type: ignore[arg-type]
