"""The inner loops of a step on the CPU: noise, saccades and belief, in numba, one lane after the other.

Every kernel slices a row before it indexes it: numba then knows that the slice is contiguous and LLVM vectorises the
loop over its bytes; signed offsets into a flat array would block that (measured: 5 to 18 times slower). Compiled code
is kept (:mod:`foveasim.jit`), so only the first run after an installation pays for compiling.

This module is imported by whoever needs it, when it needs it: numba takes 0.4 s to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from foveasim.jit import is_compiled, jit
from foveasim.rng import GOLDEN, MIX1, MIX2, UNIT

__all__ = [
    "NORM",
    "NORM_AWAY",
    "PX",
    "copy_bytes",
    "draw_uniform",
    "execute_saccades",
    "integrate_belief",
    "jit",
    "mean_acuity",
    "mix",
    "move_lanes",
    "remember_glimpses",
]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PX, NORM, NORM_AWAY = 0, 1, 2
_WORDS = 128  # of 8 bytes: what a sum of 16 bits holds of two bytes of each
_EVEN = np.uint64(0x00FF00FF00FF00FF)

BOOL = NDArray[np.bool_]


def _copy_bytes(context: Any, out: Any, source: Any) -> Any:
    memcpy: Any = cgutils.raw_memcpy

    def generate(target: Any, builder: Any, signature: Any, given: Any) -> Any:
        pairs = zip(signature.args, given, strict=True)
        to, of = (target.make_array(kind)(target, builder, value) for kind, value in pairs)
        memcpy(builder, to.data, of.data, to.nitems, 1)
        return target.get_dummy_value()

    return types.void(out, source), generate


def _copy_bytes_in_python(out: U8, source: U8) -> None:
    out[:] = source[: out.size]


copy_bytes = cast("Callable[[U8, U8], None]", intrinsic(_copy_bytes)) if is_compiled() else _copy_bytes_in_python
"""In kernels, copies the second (n,) array into the first, of n or fewer bytes, by C's memcpy.

Short runs take half as long as a loop with its remainder (measured: 49 rows of a disc, 0.25 us). NumPy's way, a slice
assignment, guards against overlap with a temporary array, at several times the cost. Kernels of other files may use it,
other than kernels of this one: it stays as it is.
"""


@jit
def _finalise(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX2)
    return z ^ (z >> np.uint64(31))


@jit
def mix(seed: int, episode: int, step: int, stream: int, index: int) -> float:
    """Draw one uniform number in [0, 1). Equals ``rng.uniform(...)[lane, index]``."""
    golden = np.uint64(GOLDEN)
    key = _finalise(np.uint64(seed) + golden)
    key = _finalise((key ^ np.uint64(episode)) + golden)
    key = _finalise((key ^ np.uint64(step)) + golden)
    key = _finalise((key ^ np.uint64(stream)) + golden)
    value = _finalise(key + np.uint64(index + 1) * golden)
    return float(value >> np.uint64(11)) * UNIT


@jit
def draw_uniform(key: I64, stream: int, out: F64) -> None:
    """Draw what ``rng.uniform`` draws.

    Args:
        key: (3, B) int64: seed, episode, step.
        stream: A ``rng.Stream``.
        out: (B, count) float64, written.
    """
    for b in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[b, i] = mix(key[0, b], key[1, b], key[2, b], stream, i)


@jit
def mean_acuity(flat: U8) -> np.float32:
    """Return the mean of (n,) uint8 acuity, 0 to 1. Kernels of other files use it, too: it stays as it is.

    As one run, not row by row, where adding up the last vector would cost as much.
    """
    whole = flat.size // 8 * 8
    words = flat[:whole].view(np.uint64)
    total = 0
    # Eight bytes at once, in four sums of 16 bits: half the time of widening each byte to 32 bits.
    for start in range(0, words.size, _WORDS):
        run = words[start : start + _WORDS]
        sums = np.uint64(0)
        for i in range(run.size):
            sums = np.uint64(sums + (run[i] & _EVEN) + ((run[i] >> np.uint64(8)) & _EVEN))
        for shift in range(0, 64, 16):
            total += int((sums >> np.uint64(shift)) & np.uint64(0xFFFF))
    for i in range(whole, flat.size):
        total += flat[i]
    return np.float32(total / (255.0 * flat.size))


@jit
def _integrate(image: U8, acuity: U8, new_image: U8, new_acuity: U8, mask: U8) -> None:
    """Integrate one lane: (H, 3 W) and (H, W); ``mask`` is room for a row of an image.

    The bytes to take are marked and taken without a branch, in loops that are vectorised each by itself (measured at
    96 x 96 and 512 x 512: 4 and 50 us; pixel by pixel: 6 and 140 us).
    """
    height, width = acuity.shape
    for y in range(height):
        old, new, row, new_row = acuity[y], new_acuity[y], image[y], new_image[y]
        for x in range(width):
            newer = np.uint8(255) if new[x] >= old[x] else np.uint8(0)
            mask[3 * x], mask[3 * x + 1], mask[3 * x + 2] = newer, newer, newer
            old[x] = max(old[x], new[x])
        for i in range(3 * width):
            row[i] ^= (row[i] ^ new_row[i]) & mask[i]


@jit
def integrate_belief(image: U8, acuity: U8, new_image: U8, new_acuity: U8, coverage: F32) -> None:
    """Take over every pixel that is now seen at least as sharply as it is remembered, in place.

    Args:
        image: (B, H, 3 W) uint8, updated.
        acuity: (B, H, W) uint8, updated.
        new_image: (B, H, 3 W) uint8, the glimpse.
        new_acuity: (B, H, W) uint8.
        coverage: (B,) float32, written: mean acuity afterwards, 0 to 1.
    """
    mask = np.empty(image.shape[2], np.uint8)
    for b in range(len(acuity)):
        _integrate(image[b], acuity[b], new_image[b], new_acuity[b], mask)
        coverage[b] = mean_acuity(acuity[b].reshape(acuity[b].size))


@jit
def remember_glimpses(
    image: U8,
    acuity: U8,
    new_image: U8,
    new_acuity: U8,
    coverage: F32,
    copy: U8,
    acuity_copy: U8,
    begin: int,
    end: int,
) -> None:
    """Do what :func:`integrate_belief` does in some lanes, and copy the outcome while it is in the processor's cache.

    Args:
        image: As in :func:`integrate_belief`, as are ``acuity`` and ``new_acuity``.
        acuity: (B, H, W) uint8, updated.
        new_image: (B, H, W, 3) uint8, the glimpse.
        new_acuity: (B, H, W) uint8.
        coverage: (2, B) float32, mean acuity afterwards and before, 0 to 1, written.
        copy: (B, H, W, 3) uint8, written; (0, 0, 0, 0): no copies are made.
        acuity_copy: (B, H, W) uint8, written.
        begin: The first lane.
        end: The lane behind the last.
    """
    mask = np.empty(image.shape[2], np.uint8)
    for b in range(begin, end):
        _integrate(image[b], acuity[b], new_image[b].reshape(image.shape[1], image.shape[2]), new_acuity[b], mask)
        coverage[1, b] = coverage[0, b]
        coverage[0, b] = mean_acuity(acuity[b].reshape(acuity[b].size))
        if copy.size > 0:
            copy_bytes(copy[b].reshape(copy[b].size), image[b].reshape(image[b].size))
            copy_bytes(acuity_copy[b].reshape(acuity_copy[b].size), acuity[b].reshape(acuity[b].size))


@jit
def execute_saccades(
    start: F32,
    target: F32,
    size: I64,
    px_per_deg: F32,
    key: I64,
    stream: int,
    limits: F32,
    landing: F32,
    amplitude: F32,
    duration: F32,
) -> None:
    """Land eyes where they are aimed, within what an eye can do. The twin of ``Saccades.execute``.

    Args:
        start: (B, 2) float32, px.
        target: (B, 2) float32, px.
        size: (2,) int64, (H, W).
        px_per_deg: (B,) float32.
        key: (3, B) int64: seed, episode, step.
        stream: Stream of the endpoint scatter.
        limits: (4,) float32: greatest amplitude in deg (infinite: none), scatter, slope in ms/deg, intercept in ms.
        landing: (B, 2) float32, px, written.
        amplitude: (B,) float32, deg, written.
        duration: (B,) float32, ms, written.
    """
    height, width = np.float32(size[0]), np.float32(size[1])
    for b in range(start.shape[0]):
        dx, dy = target[b, 0] - start[b, 0], target[b, 1] - start[b, 1]
        reach = np.sqrt(dx * dx + dy * dy)
        max_px = limits[0] * px_per_deg[b]
        if reach > max_px:
            dx, dy, reach = dx * (max_px / reach), dy * (max_px / reach), max_px
        if limits[1] > 0 and reach > 0:
            u = mix(key[0, b], key[1, b], key[2, b], stream, 0)
            angle = 2 * np.pi * mix(key[0, b], key[1, b], key[2, b], stream, 1)
            spread = np.sqrt(-2 * np.log1p(-u)) * limits[1] * reach
            dx += np.float32(spread * np.cos(angle))
            dy += np.float32(spread * np.sin(angle))
        x = min(max(start[b, 0] + dx, np.float32(0)), width)
        y = min(max(start[b, 1] + dy, np.float32(0)), height)
        landing[b, 0], landing[b, 1] = x, y
        dx, dy = x - start[b, 0], y - start[b, 1]
        degrees = np.sqrt(dx * dx + dy * dy) / px_per_deg[b]
        amplitude[b] = degrees
        duration[b] = limits[2] * degrees + limits[3] if degrees > 0 else np.float32(0)


@jit
def move_lanes(
    points: F32,
    aim: F32,
    unit: int,
    moving: BOOL,
    size: I64,
    px_per_deg: F32,
    key: I64,
    stream: int,
    limits: F32,
    dwell_ms: float,
    reals: F32,
    clock: F64,
) -> bool:
    """Make one saccade in every lane that moves and let time pass there: all of a simulator's step but the looking.

    Few arguments, because a call takes 0.06 us for each.

    Args:
        points: (3, B, 2) float32, px: the fixation, updated; the saccade's start and target, written.
        aim: (B, 2) float32.
        unit: What aims are in: ``PX``, ``NORM`` normalised scene coordinates, ``NORM_AWAY`` the same from the fixation.
        moving: (B,) bool; the other lanes stay, and no time passes for them.
        size: As in :func:`execute_saccades`, as are ``px_per_deg``, ``stream`` and ``limits``.
        px_per_deg: (B,) float32.
        key: (3, B) int64: seed, episode, step; the step is counted on.
        stream: Stream of the endpoint scatter.
        limits: (4,) float32.
        dwell_ms: Rest at the new fixation, ms.
        reals: (at least 2, B) float32: the saccade's amplitude in deg and its duration in ms, written.
        clock: (B,) float64, ms, updated.

    Returns:
        Whether normalised aims lie in [-1, 1]; NaN does not. Otherwise nothing was done.
    """
    fixation, start, target = points[0], points[1], points[2]
    amplitude, duration = reals[0], reals[1]
    if unit != PX:
        for b in range(fixation.shape[0]):
            if not (abs(aim[b, 0]) <= 1 and abs(aim[b, 1]) <= 1):
                return False
    for b in range(fixation.shape[0]):
        for i in range(2):
            here, goal = fixation[b, i], aim[b, i]
            if unit != PX:
                half = np.float32(size[1 - i] / 2)
                goal = goal * half + (half if unit == NORM else here)
            start[b, i] = here
            target[b, i] = goal if moving[b] else here
    execute_saccades(start, target, size, px_per_deg, key, stream, limits, fixation, amplitude, duration)
    for b in range(fixation.shape[0]):
        if moving[b]:
            clock[b] += np.float64(duration[b]) + dwell_ms
            key[2, b] += 1
        else:
            fixation[b, 0], fixation[b, 1] = start[b, 0], start[b, 1]
            amplitude[b] = duration[b] = np.float32(0)
    return True
