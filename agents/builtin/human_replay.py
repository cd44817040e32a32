"""A person's scanpath, replayed: what did that person's eye see, and what would a network have predicted?"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.noise import LaneNoise
from foveasim.errors import AgentError
from foveasim.scanpath.scanpath import Scanpath, read_csv

__all__ = ["HumanReplay"]

_EXAMPLE_SIZE = (600, 800)
_EXAMPLE = (
    (395.5, 265.7, 246),
    (390.6, 326.4, 136),
    (370.8, 404.2, 179),
    (341.2, 402.5, 433),
)


class HumanReplay:
    """Looks where a person looked, fixation by fixation, and stays at the last one.

    ``foveasim watch osie/images/1001.jpg --agent human_replay
    --agent_arguments '{scanpaths: osie/fixations.csv, image: "1001", subject: "3"}'``

    Where several lanes run, all replay the same scanpath. The eye begins where the env puts it, usually at the centre,
    which is not part of the scanpath.

    Args:
        scanpaths: A CSV file with the columns of :mod:`foveasim.scanpath.scanpath`. Without one, the first four
        fixations of one
            person on image 1001 of OSIE are shown (Xu et al. 2014, MIT licence, © 2014 NUS VIP), on whatever scene
            there is.
        image: Which image's, as it is named in the file.
        subject: Whose; None for the first on that image.
        size: (H, W) of the image in which the fixations are given, px; OSIE's by default. The scene may be of any size.
        seed: Not used: nothing is drawn.

    Raises:
        AgentError: No scanpath of that image and subject, or no image named; the message says which there are. Or
            fixations farther outside of ``size`` than half its extent: it is another one.
        InvalidValueError: A file that cannot be read, or a size out of range.

    Example:
        >>> agent = HumanReplay()
        >>> agent.reset(np.ones(1, bool))
        >>> agent.act({"fixation": np.zeros((1, 2), np.float32)}).astype(float).round(3).tolist()
        [[-0.011, -0.114]]
    """

    name = "human_replay"
    __repr__ = describe_agent

    def __init__(
        self,
        scanpaths: str | Path | None = None,
        image: str | None = None,
        subject: str | None = None,
        size: tuple[int, int] = _EXAMPLE_SIZE,
        seed: int = 0,
    ) -> None:
        size = validation.size_hw("size", tuple(size), 8)
        if scanpaths is None:
            if image is not None or subject is not None:
                raise AgentError("image and subject choose from a file; give scanpaths, the CSV file, too.")
            rows = np.array(_EXAMPLE, np.float32)
            points, durations = rows[:, :2], rows[:, 2]
            size = _EXAMPLE_SIZE
        else:
            path = _choose(str(scanpaths), image, subject)
            points, durations = path.fixation_px.numpy(), path.duration_ms.numpy()
            self.name = f"{self.name} ({path.image}, {path.subject})"
        extent = np.array(size[::-1], np.float64)
        norm = 2 * points / extent - 1
        if len(norm) and (np.abs(norm) > 2).any():
            raise _outside(points, size)
        # Trackers report fixations just off the picture; gaze stops at its edge, as the simulator's does.
        self._points = np.clip(norm, -1, 1).astype(np.float32)
        self._durations = durations.astype(np.float32)
        self._steps = LaneNoise(0)  # counts the steps of each lane; it draws nothing here
        self._dwell_ms = np.zeros(0, np.float32)

    def __len__(self) -> int:
        """Return the number of fixations."""
        return len(self._points)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Begin again in the marked lanes, (B,) bool."""
        self._steps.reset(lanes)

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the person's next fixation in every lane, (B, 2) float32 in [-1, 1]."""
        self._steps.check(len(observed(observation, "fixation")))
        at = np.minimum(self._steps.step, len(self._points) - 1)
        self._dwell_ms = self._durations[at]
        self._steps.tick()
        return self._points[at]

    def dwell_ms(self) -> NDArray[np.float32]:
        """Return how long the person rested at the fixations that the last ``act`` returned, (B,) float32 ms."""
        return self._dwell_ms


def _outside(points_px: NDArray[np.float32], size: tuple[int, int]) -> AgentError:
    """Return the error about fixations that cannot be of an image of a size."""
    x, y = np.abs(points_px).max(0).tolist()
    return AgentError(
        f"fixations reach ({x:g}, {y:g}) px, far outside of an image of {size[1]} x {size[0]} px. "
        "Give size, the height and width of the image in which the file gives them."
    )


@lru_cache(maxsize=2)
def _read(path: str, changed_ns: int) -> tuple[Scanpath, ...]:
    return tuple(path for path in read_csv(path) if len(path))


def _choose(file: str, image: str | None, subject: str | None) -> Scanpath:
    """Return the scanpath of an image and a subject.

    Raises:
        AgentError: There is none; the message says which there are.
        InvalidValueError: The file cannot be read.
    """
    place = Path(file).expanduser()
    found = _read(str(place), place.stat().st_mtime_ns if place.is_file() else 0)
    images = list(dict.fromkeys(path.image for path in found))
    if image is None and len(images) != 1:
        raise AgentError(f"image must name one of {len(images)} images of {file}: {_some(images)}.")
    wanted = images[0] if image is None else str(image)
    of_image = [path for path in found if path.image == wanted]
    if not of_image:
        raise AgentError(f"{file} has no scanpath on image {wanted!r}; it has those on {_some(images)}.")
    if subject is None:
        return of_image[0]
    of_subject = [path for path in of_image if path.subject == str(subject)]
    if not of_subject:
        subjects = list(dict.fromkeys(path.subject for path in of_image))
        raise AgentError(f"{file} has no scanpath of subject {str(subject)!r} on {wanted!r}; it has {_some(subjects)}.")
    return of_subject[0]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
