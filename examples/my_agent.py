"""An agent of one's own, from the class to the table: write it, check it, compare it, watch it.

python examples/my_agent.py            checks the agent below and compares it with built-in ones
python examples/my_agent.py --watch    and opens the window: keys are shown there

The same by the commands that it uses, from this folder, for an agent in any module:

foveasim check my_agent:Contours
foveasim compare random gaussian uncertainty mine=my_agent:Contours --data photos --out runs/mine
foveasim watch --agent my_agent:Contours --agent_arguments '{reach: 0.2}'
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import foveasim

NAME = "my_agent:Contours"
"""How foveasim finds it: the module, which must be importable, and the class."""


class Contours:
    """Follows contours: looks where what it knows is full of edges and, right beside, something is still unknown.

    That is a whole agent: a class with ``reset`` and ``act``. Nothing is inherited and nothing registered.

    Args:
        reach: How far from a place its edges count, as a share of the scene's short side.
        seed: Of lane 0; lane i has ``seed + i``, so that each eye does the same alone and among others.
    """

    name = "contours"  # what people read
    needs = ("belief",)  # asks for belief and belief_acuity, the sharpest view of each pixel so far

    def __init__(self, reach: float = 0.15, seed: int = 0) -> None:
        self.reach, self.seed = reach, seed
        self._visits: list[list[NDArray[np.float32]]] = []

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Forget what lanes remember whose episode is over; (B,) bool marks them."""
        if len(self._visits) != len(lanes):
            self._visits = [[] for _ in lanes]
        for lane in np.flatnonzero(lanes):
            self._visits[lane] = []

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Choose the next fixation of every eye.

        Args:
            observation: ``belief`` (B, H, W, 3) uint8, ``belief_acuity`` (B, H, W, 1) uint8, ``fixation`` (B, 2), and
                more; the lane axis is there with one eye, too. What is hidden is in none of them.

        Returns:
            (B, 2) float32: x and y, -1 to 1 from the top-left corner to the bottom-right one.
        """
        chosen = np.zeros((len(observation["fixation"]), 2), np.float32)
        for lane in range(len(chosen)):
            chosen[lane] = self._choose(observation["belief"][lane], observation["belief_acuity"][lane, ..., 0], lane)
            self._visits[lane].append(chosen[lane])
        return chosen

    def _choose(self, belief: NDArray[np.uint8], acuity: NDArray[np.uint8], lane: int) -> NDArray[np.float32]:
        """Return the best place for one eye."""
        height, width = acuity.shape
        grey = cv2.cvtColor(belief, cv2.COLOR_RGB2GRAY).astype(np.float32)
        known = acuity.astype(np.float32) / 255
        spread = self.reach * min(height, width)
        # The edge of what was seen is no contour of the scene: it counts where the neighbours are known, too.
        inside = cv2.erode(known, np.ones((3, 3), np.uint8))
        edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) * inside
        # Beyond the scene there is nothing to see, so that a glimpse at its very edge is half lost.
        unknown = cv2.GaussianBlur(1 - known, (0, 0), spread, borderType=cv2.BORDER_CONSTANT)
        worth = cv2.GaussianBlur(edges, (0, 0), 2 * spread) * unknown**2
        x, y = np.meshgrid((np.arange(width) + 0.5) / width * 2 - 1, (np.arange(height) + 0.5) / height * 2 - 1)
        for visit in self._visits[lane]:
            worth *= 1 - np.exp(-((x - visit[0]) ** 2 + (y - visit[1]) ** 2) / (2 * self.reach**2))
        # Nothing to go by, in a scene without edges: any place, drawn by the lane's own seed.
        if worth.max() <= 0:
            random = np.random.default_rng([self.seed + lane, len(self._visits[lane])])
            return random.uniform(-1, 1, 2).astype(np.float32)
        row, column = np.unravel_index(worth.argmax(), worth.shape)
        return np.array([x[row, column], y[row, column]], np.float32)


def main(scenes: int = 8, out: str = "runs/mine", watch: bool = False) -> int:
    """Check it, compare it, and watch it where asked for.

    Args:
        scenes: How many photographs the comparison shows; all agents get the same.
        out: Where its tables, figures and HTML report go.
        watch: Whether to open the window.

    Returns:
        0 where all went well.
    """
    status = foveasim.main(["check", NAME])
    if status:
        return status  # the table says which rule is broken, and what to do
    rivals = ["random", "gaussian", "uncertainty"]
    options = ["--data=photos", f"--limit={scenes}", "--seeds=2", "--overwrite", f"--out={out}"]
    status = foveasim.main(["compare", *rivals, f"mine={NAME}", *options])
    if watch:
        return foveasim.main(["watch", "--agent", NAME])
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--out", default="runs/mine")
    parser.add_argument("--watch", action="store_true")
    raise SystemExit(main(**vars(parser.parse_args())))
