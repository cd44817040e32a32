"""The judge of a comparison: one network predicts the scene from what each agent has seen of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.measures import judge_images
from foveasim.agents.mim.predictor import Predictor

__all__ = ["Judge", "Scenes"]


@dataclass(frozen=True, eq=False)
class Scenes:
    """What is looked at.

    Attributes:
        image: (S, H, W, 3) uint8.
        name: S names.
    """

    image: NDArray[np.uint8]
    name: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), px."""
        return self.image.shape[1], self.image.shape[2]


class Judge:
    """Predicts scenes from beliefs by the network that is common to all agents, and measures the error.

    Every belief is judged once: agents begin with the same glimpse, and some look the same way whatever the seed.

    Args:
        imaginer: The network.
        scenes: The truth.
        batch: Beliefs at a time.
    """

    def __init__(self, imaginer: Predictor, scenes: Scenes, batch: int) -> None:
        self.imaginer, self.scenes, self.batch = imaginer, scenes, batch
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def judge(
        self,
        which: NDArray[np.int64],
        image: NDArray[np.uint8],
        acuity: NDArray[np.uint8],
        keep: Sequence[int] = (),
    ) -> tuple[NDArray[np.float64], dict[int, tuple[NDArray[np.uint8], NDArray[np.float32] | None]]]:
        """Measure what a network makes of beliefs.

        Args:
            which: (B,) the scene of each.
            image: (B, H, W, 3) uint8.
            acuity: (B, H, W) uint8.
            keep: Lanes whose prediction is wanted.

        Returns:
            (B, K) float64, one column for each of ``NUMBERS``; and lane → prediction (H, W, 3) uint8 and standard
            deviation (H, W) or None, for the lanes wanted.
        """
        keys = [_digest(*parts) for parts in zip(which.tolist(), image, acuity, strict=True)]
        first = {key: lane for lane, key in reversed(list(enumerate(keys))) if key not in self._known}
        todo = sorted({*first.values(), *keep})
        pictures: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32] | None]] = {}
        for start in range(0, len(todo), self.batch):
            lanes = np.array(todo[start : start + self.batch])
            seen, sharp = torch.from_numpy(image[lanes]), torch.from_numpy(acuity[lanes])
            prediction = self.imaginer.predict(seen, sharp)
            guess = prediction.image.float().cpu()
            truth = torch.from_numpy(self.scenes.image[which[lanes]])
            rows = judge_images(guess, truth, seen, sharp)
            for place, lane in enumerate(lanes.tolist()):
                self._known[keys[lane]] = rows[place]
                if lane in keep:
                    std = None if prediction.std is None else prediction.std[place].float().cpu().numpy()
                    pictures[lane] = (guess[place] * 255).round().to(torch.uint8).numpy(), std
        return np.stack([self._known[key] for key in keys]), pictures


def _digest(scene: int, image: NDArray[np.uint8], acuity: NDArray[np.uint8]) -> bytes:
    found = hashlib.blake2b(scene.to_bytes(8, "little"), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    found.update(np.ascontiguousarray(acuity).data)
    return found.digest()
