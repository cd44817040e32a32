"""Counter-based noise: a number is a pure function of (seed, episode, step, stream, index).

No generator is carried along, so lane i of a batch draws what a single eye with the same seed draws, whatever happened
in the other lanes, and any step can be repeated alone. The mixing function is the finaliser of SplitMix64 (Steele, Lea
and Flood 2014; constants of Stafford's Mix13), applied once for each part of the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

__all__ = ["Key", "Stream", "bits", "normal", "uniform"]

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, SplitMix64's increment
MIX1 = 0xBF58476D1CE4E5B9
MIX2 = 0x94D049BB133111EB
UNIT = 1.0 / (1 << 53)


class Stream(IntEnum):
    """What a number is drawn for; different streams are independent."""

    SCENE = 1
    SCATTER = 2
    FIXATION = 3
    MASK = 4
    CONTENT = 5
    AGENT = 6


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(value: Tensor, count: int) -> Tensor:
    """Logical right shift of int64; torch's own is arithmetic."""
    return (value >> count) & ((1 << (64 - count)) - 1)


def _finalise(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _signed(MIX1)
    z = (z ^ _shift(z, 27)) * _signed(MIX2)
    return z ^ _shift(z, 31)


def bits(seed: Tensor, episode: Tensor, step: Tensor, stream: int, count: int) -> Tensor:
    """Draw raw bits, the torch twin of ``kernels.mix``.

    Args:
        seed: (B,) int64.
        episode: (B,) int64.
        step: (B,) int64.
        stream: A :class:`Stream`.
        count: Numbers a lane.

    Returns:
        (B, count) int64, every bit random.
    """
    golden = _signed(GOLDEN)
    key = _finalise(seed + golden)
    for part in (episode, step, torch.full_like(seed, int(stream))):
        key = _finalise((key ^ part) + golden)
    index = torch.arange(1, count + 1, dtype=torch.int64, device=seed.device)
    return _finalise(key[:, None] + index * golden)


def uniform(seed: Tensor, episode: Tensor, step: Tensor, stream: int, count: int) -> Tensor:
    """Draw uniform numbers in [0, 1).

    Returns:
        (B, count) float64. Arguments as in :func:`bits`.

    Example:
        >>> zero = torch.zeros(1, dtype=torch.int64)
        >>> bool((uniform(zero, zero, zero, Stream.MASK, 4) < 1).all())
        True
    """
    return _shift(bits(seed, episode, step, stream, count), 11).to(torch.float64) * UNIT


def normal(seed: Tensor, episode: Tensor, step: Tensor, stream: int, count: int) -> Tensor:
    """Draw standard normal numbers (Box and Muller 1958).

    Returns:
        (B, count) float64. Arguments as in :func:`bits`.
    """
    pairs = (count + 1) // 2
    u = uniform(seed, episode, step, stream, 2 * pairs)
    radius = torch.sqrt(-2 * torch.log1p(-u[:, 0::2]))  # 1 - u is never 0
    angle = 2 * math.pi * u[:, 1::2]
    return torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), 2).flatten(1)[:, :count]


@dataclass(frozen=True)
class Key:
    """Which episode and step of which seed a random number belongs to, lane by lane.

    Attributes:
        seed: (B,) int64.
        episode: (B,) int64.
        step: (B,) int64.
    """

    seed: Tensor
    episode: Tensor
    step: Tensor

    @classmethod
    def of(cls, seed: int, lanes: int = 1, step: int = 0, device: torch.device | str = "cpu") -> Key:
        """Return the key of lanes seeded seed, seed + 1, … at a step of their first episode."""
        seeds = torch.arange(seed, seed + lanes, dtype=torch.int64, device=device)
        return cls(seeds, torch.zeros_like(seeds), torch.full_like(seeds, step))

    def uniform(self, stream: int, count: int) -> Tensor:
        """Return (B, count) float64 in [0, 1)."""
        return uniform(self.seed, self.episode, self.step, stream, count)

    def normal(self, stream: int, count: int) -> Tensor:
        """Return (B, count) float64, standard normal."""
        return normal(self.seed, self.episode, self.step, stream, count)
