"""The process behind ``foveasim bench --only 'memory/*'``: many lanes over scenes in a memory-mapped file.

python -m foveasim.bench_memory FILE LANES SCENES EPISODES SEED
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import foveasim  # noqa: F401  # registers the ids
from foveasim.scenes.source import ArrayScenes

__all__ = ["peak_mb", "play"]

_SIDE = 96
_BUDGET = 2  # short episodes: memory comes of new scenes, not of steps


def play(path: Path, lanes: int, scenes: int, episodes: int, seed: int) -> int:
    """Play episodes before scenes that are mapped from a file; return the number of steps.

    Args:
        path: File of the scenes, made here. It is sparse: what the scenes show makes no difference to memory.
        lanes: B.
        scenes: How many.
        episodes: That every lane plays.
        seed: Of the scenes drawn and the actions.
    """
    with path.open("wb") as file:
        file.truncate(scenes * _SIDE * _SIDE * 3)
    images = np.memmap(path, np.uint8, "r", shape=(scenes, _SIDE, _SIDE, 3))
    source = ArrayScenes(images)
    options: dict[str, Any] = {
        "scenes": source,
        "retina": "pyramid",
        "size": (_SIDE, _SIDE),
        "budget": _BUDGET,
        "belief": True,
    }
    envs = gym.make_vec("foveasim/Glimpse-v0", num_envs=lanes, **options)
    envs.reset(seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(episodes * (_BUDGET + 1)):
        envs.step(rng.uniform(-1, 1, (lanes, 2)).astype(np.float32))
    envs.close()
    return episodes * _BUDGET * lanes


def peak_mb() -> float:
    """Return the most memory that this process ever held, MB of 10^6 bytes; pages of mapped files count."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:6]))
    print(peak_mb())
