"""Time is float64 ms: after a day, a week or an epoch's start it is still told to a fraction of a millisecond."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from foveasim.eye.saccade import Saccades
from foveasim.images.picture import Picture
from foveasim.scanpath.fixations import find_fixations_idt, find_fixations_ivt
from foveasim.scanpath.scanpath import Scanpath
from foveasim.simulator.simulator import Simulator

DAY_MS = 86_400_000.0
EPOCH_MS = 1_700_000_000_123.0
ONSETS_MS = [0.0, 280.0, 520.0, 860.0]


class Film:
    """A scene whose grey level counts its frames, 200 a second."""

    moving = True
    labels = ()

    def __len__(self) -> int:
        return 1

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        return Picture(np.full((32, 32, 3), int(time_ms / 5) % 251, np.uint8), -1, "film", 3.5)


@pytest.mark.parametrize("kernels", [True, False])
def test_steps_of_a_minute_add_up_exactly(kernels: bool) -> None:
    eyes = Simulator("noise", "disc", size=(16, 16), saccades=Saccades(dwell_ms=60_000), kernels=kernels)
    eyes.reset(seed=0)
    stay = eyes.fixation_px.clone()
    for _ in range(30_000):
        eyes.advance(stay)
    assert eyes.clock_ms.dtype == torch.float64
    assert eyes.clock_ms.tolist() == [30_000 * 60_000.0]


@pytest.mark.parametrize("kernels", [True, False])
def test_a_film_goes_on_after_a_week(kernels: bool) -> None:
    eyes = Simulator(Film(), "full", size=(32, 32), saccades=Saccades(dwell_ms=5), kernels=kernels)
    eyes.reset(seed=0)
    eyes.clock_ms.fill_(7 * DAY_MS)
    shown = []
    for _ in range(4):
        eyes.step(eyes.fixation_px.clone())
        shown.append(int(eyes.scene_image(0)[0, 0, 0]))
    first = int(7 * DAY_MS / 5)
    assert shown == [(first + 1 + frame) % 251 for frame in range(4)]
    assert eyes.state.clone().clock_ms.tolist() == eyes.scene.time_ms.tolist() == [7 * DAY_MS + 20]


@pytest.mark.parametrize("start_ms", [EPOCH_MS, 10 * DAY_MS])
def test_a_scanpath_keeps_absolute_times(start_ms: float) -> None:
    onset_ms = torch.tensor(ONSETS_MS, dtype=torch.float64) + start_ms
    path = Scanpath(torch.zeros(4, 2), onset_ms, torch.full((4,), 200.0))
    assert path.onset_ms.dtype == path.duration_ms.dtype == torch.float64
    assert (path.onset_ms - start_ms).tolist() == ONSETS_MS
    assert (Scanpath(torch.zeros(4, 2), onset_ms.tolist(), [1.0] * 4).onset_ms - start_ms).tolist() == ONSETS_MS


@pytest.mark.parametrize("find", [find_fixations_ivt, find_fixations_idt])
def test_fixations_are_found_on_the_clock_of_an_epoch(find: object) -> None:
    gaze_px = np.repeat([[100.0, 100.0], [300.0, 200.0]], 150, axis=0)
    time_ms = np.arange(300) * 2.0
    here = find(time_ms, gaze_px, 30.0)  # type: ignore[operator]
    there = find(time_ms + EPOCH_MS, gaze_px, 30.0)  # type: ignore[operator]
    assert len(here) == 2
    assert (there.onset_ms - EPOCH_MS).tolist() == here.onset_ms.tolist()
    assert there.duration_ms.tolist() == here.duration_ms.tolist()
