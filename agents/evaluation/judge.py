"""The judge of a comparison: one network predicts the scene from what each agent has seen of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.measures import measure_predictions
from foveasim.agents.mim.predictor import Predictor

__all__ = ["BeliefJudge", "Scenes"]


@dataclass(frozen=True, eq=False)
class Scenes:
    """The scenes of a comparison.

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


class BeliefJudge:
    """Predicts scenes from beliefs with the network that all agents share, and measures the error.

    Every belief is scored once: agents begin with the same glimpse, and some look the same way whatever the seed.

    Args:
        predictor: The network.
        scenes: The truth.
        batch: Beliefs at a time.
    """

    def __init__(self, predictor: Predictor, scenes: Scenes, batch: int) -> None:
        self.predictor, self.scenes, self.batch = predictor, scenes, batch
        self._scores: dict[bytes, NDArray[np.float64]] = {}

    def score(
        self,
        which: NDArray[np.int64],
        image: NDArray[np.uint8],
        acuity: NDArray[np.uint8],
        picture_lanes: Sequence[int] = (),
    ) -> tuple[NDArray[np.float64], dict[int, tuple[NDArray[np.uint8], NDArray[np.float32] | None]]]:
        """Measure what a network makes of beliefs.

        Args:
            which: (B,) the scene of each.
            image: (B, H, W, 3) uint8.
            acuity: (B, H, W) uint8.
            picture_lanes: Lanes whose prediction is returned, too.

        Returns:
            (B, K) float64, one column for each of ``NUMBERS``; and lane → prediction (H, W, 3) uint8 and standard
            deviation (H, W) or None, for ``picture_lanes``.
        """
        keys = [_digest(*parts) for parts in zip(which.tolist(), image, acuity, strict=True)]
        first = {key: lane for lane, key in reversed(list(enumerate(keys))) if key not in self._scores}
        todo = sorted({*first.values(), *picture_lanes})
        pictures: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32] | None]] = {}
        for start in range(0, len(todo), self.batch):
            lanes = np.array(todo[start : start + self.batch])
            seen, sharp = torch.from_numpy(image[lanes]), torch.from_numpy(acuity[lanes])
            prediction = self.predictor.predict(seen, sharp)
            guess = prediction.image.float().cpu()
            truth = torch.from_numpy(self.scenes.image[which[lanes]])
            rows = measure_predictions(guess, truth, seen, sharp)
            for place, lane in enumerate(lanes.tolist()):
                self._scores[keys[lane]] = rows[place]
                if lane in picture_lanes:
                    std = None if prediction.std is None else prediction.std[place].float().cpu().numpy()
                    pictures[lane] = (guess[place] * 255).round().to(torch.uint8).numpy(), std
        return np.stack([self._scores[key] for key in keys]), pictures


def _digest(scene: int, image: NDArray[np.uint8], acuity: NDArray[np.uint8]) -> bytes:
    found = hashlib.blake2b(scene.to_bytes(8, "little"), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    found.update(np.ascontiguousarray(acuity).data)
    return found.digest()
