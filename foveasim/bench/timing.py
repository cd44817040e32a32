"""How a benchmark measures: cases, warm-up, repeats and their spread, and the images that everything looks at."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim.scenes.source import open_scenes

__all__ = ["EPISODE", "Case", "Setting", "SkippedError", "Spread", "pictures", "rate", "rate_case", "spread"]

EPISODE = 16
"""Steps of an episode, in every env that is measured."""

Work = Callable[[], int]


class SkippedError(Exception):
    """A case cannot run here; the message says what it would need."""


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        seconds: About how long each repeat lasts.
        repeats: How many there are.
        threads: Of torch and OpenCV.
        seed: Of everything random.
    """

    seconds: float = 1.0
    repeats: int = 5
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Spread:
    """A median between two quartiles."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """Something that can be measured.

    Attributes:
        name: "group/what/…", unique.
        about: One line for ``--list``.
        unit: Of its figures.
        measure: Returns one figure, under "", or several, under what their rows' names end with.
        ratio_to: Name of the row that it is compared with, "" for none.
    """

    name: str
    about: str
    unit: str
    measure: Callable[[Setting], dict[str, Spread]]
    ratio_to: str = ""

    @property
    def group(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles.

    Example:
        >>> spread([1.0, 2.0, 3.0, 4.0, 10.0])
        Spread(value=3.0, low=2.0, high=4.0)
    """
    low, middle, high = np.percentile(np.asarray(values, float), [25, 50, 75]).tolist()
    return Spread(middle, low, high)


def rate(work: Work, setting: Setting, clock: Callable[[], float] = time.perf_counter) -> Spread:
    """Return how much work is done in a second.

    The first call compiles what has to be compiled; then it goes on for half a repeat before anything is counted. A
    repeat ends with the first call that ends after ``seconds``, so a call that takes longer is a repeat of its own.

    Args:
        work: Does some of it and returns how much; a call should take 0.1 ms or more.
        setting: How often and how long.
        clock: Seconds.
    """
    work()
    warm_until = clock() + setting.seconds / 2
    while clock() < warm_until:
        work()
    rates = []
    for _ in range(setting.repeats):
        done, start = 0, clock()
        now = start
        while now - start < setting.seconds:
            done += work()
            now = clock()
        rates.append(done / (now - start))
    return spread(rates)


def rate_case(
    name: str,
    about: str,
    unit: str,
    prepare: Callable[[Setting], Iterator[Work]],
    ratio_to: str = "",
) -> Case:
    """Return a case that measures a rate.

    Args:
        name: See :class:`Case`.
        about: Likewise.
        unit: Likewise.
        prepare: Generator that makes ready, yields the work, and cleans up.
        ratio_to: See :class:`Case`.
    """
    ready: Callable[[Setting], AbstractContextManager[Work]] = contextmanager(prepare)

    def measure(setting: Setting) -> dict[str, Spread]:
        with ready(setting) as work:
            return {"": rate(work, setting)}

    return Case(name, about, unit, measure, ratio_to)


@functools.lru_cache(maxsize=8)
def pictures(side: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Return square crops of the shipped photos, which every case and peer looks at.

    Args:
        side: px.
        count: N.
        seed: Where and how large the crops are: half to all of a photo's short side.

    Returns:
        (N, side, side, 3) uint8, read-only, C-contiguous.
    """
    rng, photos = np.random.default_rng(seed), open_scenes("photos")
    made = np.empty((count, side, side, 3), np.uint8)
    for number in range(count):
        photo = photos.picture(number % len(photos)).image
        short = min(photo.shape[:2])
        cut = int(rng.integers(short // 2, short + 1))
        top, left = (int(rng.integers(extent - cut + 1)) for extent in photo.shape[:2])
        part = photo[top : top + cut, left : left + cut]
        way = cv2.INTER_AREA if cut >= side else cv2.INTER_LINEAR
        made[number] = cv2.resize(part, (side, side), interpolation=way)
    made.flags.writeable = False
    return made
