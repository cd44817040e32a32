"""Compiles the kernels before anybody waits for them; numba would when a kernel is first called, and caches them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet

import numpy as np

from foveasim import geometry
from foveasim.eye.retina import RETINAS, Retina, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.images.picture import Picture

__all__ = ["compile_kernels"]

_SIZE = (96, 160)  # the smallest at which every retina chooses the array types that it has at full size
_HALF_LIFE_MS = 1000.0  # any: forgetting has kernels of its own


class _NoiseScene:
    """One scene of noise."""

    moving = False
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        image = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3), np.uint8)
        return Picture(image, -1, "noise", geometry.default_px_per_deg(_SIZE))


def compile_kernels(retinas: Iterable[Retina] = ()) -> int:
    """Run every kernel that a session runs, once, so that none is compiled while a person waits for a window.

    Where kernels have to be compiled, which happens once after an installation, a line in the terminal says so.

    Args:
        retinas: Retinas to run besides the registered ones.

    Returns:
        How many kernels had to be compiled, 0 where all came from numba's cache.
    """
    from rich.console import Console

    every = [*(make_retina(name) for name in _built_in()), *retinas]
    stop = threading.Event()
    status = Console(stderr=True).status("")
    displayed = False
    before = _compiled()
    with ThreadPoolExecutor(1, "foveasim-warm") as pool:
        work = pool.submit(_run_kernels, every, stop)
        try:
            while not _wait(work, 0.1):
                count = _compiled() - before
                if count:
                    status.update(f"compiling kernels, once after an installation, for about a minute: {count}")
                    if not displayed:
                        status.start()
                        displayed = True
        finally:
            stop.set()
            status.stop()
    return _compiled() - before


def _wait(work: Future[None], seconds: float) -> bool:
    try:
        work.result(seconds)
    except NotYet:
        if not work.done():
            return False
        work.result()
    return True


def _built_in() -> list[str]:
    """Return the retinas that ``R`` switches through, without those of packages that cannot be imported."""
    from foveasim.errors import FoveasimError

    names = []
    for name in RETINAS:
        try:
            make_retina(name)
        except FoveasimError:
            continue  # the window says so where it is chosen
        names.append(name)
    return names


def _run_kernels(retinas: Iterable[Retina], stop: threading.Event) -> None:
    from foveasim.agents.noise import LaneNoise
    from foveasim.viewer.display_eye import DisplayEye

    noise = LaneNoise()
    noise.reset(np.ones(1, np.bool_))
    noise.uniform(2)
    for retina in retinas:
        for half_life_ms in (None, _HALF_LIFE_MS):
            if stop.is_set():
                return
            display_eye = DisplayEye(
                _NoiseScene(), 0, retina, saccades=Saccades(scatter=0.1), half_life_ms=half_life_ms
            )
            display_eye.start_saccade((30.0, 30.0))
            display_eye.sense(100.0)
            display_eye.observation(0.5)


def _compiled() -> int:
    """Return how many kernels of this package numba did not find in its cache so far."""
    count = 0
    for name, module in list(sys.modules.copy().items()):
        if name.startswith("foveasim.") and module is not None:
            for value in list(vars(module).values()):
                misses = getattr(getattr(value, "stats", None), "cache_misses", None)
                if misses is not None and hasattr(value, "py_func"):
                    count += sum(misses.values())
    return count
