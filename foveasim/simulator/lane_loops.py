"""One glimpse of many lanes on the CPU: few at a time, so that what one kernel writes the next finds in the cache."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.eye.retina import NOTHING_KNOWN, SensePlan, load_kernels
from foveasim.types import LaneMeasurements

__all__ = ["BufferPool", "LaneRange", "LaneThreads", "lane_ranges", "measure", "sense_and_integrate", "sense_and_widen"]

U8 = NDArray[np.uint8]
Pair = tuple[U8, U8]
LaneRange = tuple[int, int]
"""Neighbouring lanes: the first, and the one behind the last."""

_LANES_PER_BLOCK = 16  # lanes whose glimpses and beliefs, 0.1 MB each at 96 x 96, the cache of a core holds
_MIN_LANES_PER_THREAD = 16  # below, handing over costs more than is won: 30 us
_MIN_REUSED_BYTES = 1 << 20  # bytes: smaller images cost the system nothing
_MAX_BUFFERS = 8  # twice what one glimpse takes, glimpse and belief: a caller holds the last while the next is made
_NO_COPY = (np.empty((0, 0, 0, 0), np.uint8), np.empty((0, 0, 0), np.uint8))


def measure(image: Any, acuity: Any, points: Any, reals: Any, clocks: Any, key: Any) -> LaneMeasurements:
    """Return views of belief and of the rows of a simulator's numbers, arrays or tensors, by their names."""
    return LaneMeasurements(
        image, acuity, points[0], points[2], reals[0], reals[1], clocks[0], key[2], reals[2], reals[3]
    )


def lane_ranges(lanes: NDArray[np.bool_]) -> list[LaneRange]:
    """Return the marked lanes, (B,) bool, in order, neighbours together.

    Example:
        >>> lane_ranges(np.array([True, True, False, True]))
        [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(lanes, prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def sense_and_widen(
    plan: SensePlan | None, seen: Pair, known: U8, coverage: NDArray[np.float32], begin: int, end: int
) -> None:
    """Sense in some lanes, and note what they have seen.

    Args:
        plan: Of the retina; None where ``seen`` is there already.
        seen: Image (B, H, W, 3) and acuity (B, H, W) of the glimpses.
        known: (B, H, W), the greatest acuity of each pixel so far, updated.
        coverage: (2, B) float32, its mean afterwards and before, 0 to 1, written.
        begin: The first lane.
        end: The lane behind the last.
    """
    if plan is not None and plan.widens:
        plan.kernel(*plan.arguments, *seen, known, coverage, begin, end)
        return
    if plan is not None:
        plan.kernel(*plan.arguments, *seen, begin, end)
    load_kernels().widen_coverage(known, seen[1], coverage, begin, end)


def sense_and_integrate(
    plan: SensePlan | None,
    seen: Pair,
    belief: Pair,
    coverage: NDArray[np.float32],
    copy: Pair | None,
    begin: int,
    end: int,
) -> None:
    """Sense in some lanes, and integrate what they have seen into belief.

    Args:
        plan: As in :func:`sense_and_widen`, as are ``seen``, ``coverage``, ``begin`` and ``end``.
        seen: Image (B, H, W, 3) and acuity (B, H, W) of the glimpses.
        belief: Image (B, H, 3 W) and acuity (B, H, W), updated.
        coverage: (2, B) float32, written.
        copy: Image (B, H, W, 3) and acuity for a copy of belief, written, or None.
        begin: The first lane.
        end: The lane behind the last.
    """
    remember = _load_remember_kernel()
    for first in range(begin, end, _LANES_PER_BLOCK):
        last = min(first + _LANES_PER_BLOCK, end)
        if plan is not None:
            plan.kernel(*plan.arguments, *seen, *(NOTHING_KNOWN if plan.widens else ()), first, last)
        remember(*belief, *seen, coverage, *(copy or _NO_COPY), first, last)


@functools.cache
def _load_remember_kernel() -> Callable[..., None]:
    from foveasim.eye.kernels.step import remember_glimpses  # at first use: numba takes 0.4 s to import

    return remember_glimpses


class BufferPool:
    """Unwritten arrays for what eyes see; where they are large, their memory is reused once nobody holds them.

    The system takes large arrays back when they are let go of, and to fetch and clear pages anew costs several times a
    glimpse (measured, 256 lanes with belief: 33 us a lane instead of 18). A copy begins with none.
    """

    def __init__(self) -> None:
        self._buffers: list[tuple[U8, weakref.ref[U8]]] = []

    def __reduce__(self) -> tuple[type[BufferPool], tuple[()]]:
        return BufferPool, ()

    def allocate(self, lanes: int, size: tuple[int, int]) -> Pair:
        """Return an image, (B, H, W, 3) uint8, and an acuity, (B, H, W) uint8, which nobody else holds."""
        height, width = size
        if 3 * lanes * height * width < _MIN_REUSED_BYTES:
            return np.empty((lanes, height, width, 3), np.uint8), np.empty((lanes, height, width), np.uint8)
        return self._array((lanes, height, width, 3)), self._array((lanes, height, width))

    def _array(self, shape: tuple[int, ...]) -> U8:
        count = math.prod(shape)
        free = (memory for memory, holder in self._buffers if holder() is None and memory.size == count)
        memory = next(free, None)
        if memory is None:
            memory = np.empty(count, np.uint8)
        # Views of views hold the first of them, so that it lives for as long as anybody holds any.
        flat = np.frombuffer(memory.data, np.uint8)
        others = [entry for entry in self._buffers if entry[0] is not memory]
        self._buffers = [*others[1 - _MAX_BUFFERS :], (memory, weakref.ref(flat))]
        return flat.reshape(shape)


class LaneThreads:
    """Threads that share lanes. A copy has threads of its own.

    Args:
        count: How many, the caller's included.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = validation.whole("threads", count, 1, 1024)
        self._others: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[type[LaneThreads], tuple[int]]:
        return LaneThreads, (self.count,)

    def run(self, lane_range: LaneRange, work: Callable[..., None], *arguments: Any) -> None:
        """Call ``work(*given, begin, end)`` for some lanes, each of which is worked on by one thread."""
        begin, end = lane_range
        parts = min(self.count, (end - begin) // _MIN_LANES_PER_THREAD) if self.count > 1 else 1
        if parts < 2:
            work(*arguments, begin, end)
            return
        if self._others is None:
            self._others = ThreadPoolExecutor(self.count - 1, "foveasim-lanes")
        edges = [begin + (end - begin) * part // parts for part in range(parts + 1)]
        others = [self._others.submit(work, *arguments, *edge) for edge in pairwise(edges[1:])]
        work(*arguments, *edges[:2])
        for other in others:
            other.result()
