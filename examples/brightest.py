"""An agent of one's own: look at the brightest place that has not been looked at yet.

Watch it:  foveasim watch --agent examples.brightest:Brightest
Check it:  foveasim check examples.brightest:Brightest
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


class Brightest:
    """Looks where the belief is brightest and not yet sharp."""

    needs = ("belief",)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Nothing to forget: what was seen is in the belief, and the env forgets that."""

    def act(self, observation: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Choose the next fixation, (B, 2) in [-1, 1]."""
        brightness = observation["belief"].mean(3)  # (B, H, W)
        unseen = 1 - observation["belief_acuity"][..., 0] / 255
        lanes, height, width = brightness.shape
        row, column = np.divmod((brightness * unseen).reshape(lanes, -1).argmax(1), width)
        return np.stack([(column + 0.5) / width, (row + 0.5) / height], 1).astype(np.float32) * 2 - 1
