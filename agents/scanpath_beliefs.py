"""What eyes that are led along the scanpaths of people see before each fixation, as the agent ``scanpath`` sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.humans_data import People
from foveasim.agents.mim.files import read_tensors, write_tensors
from foveasim.agents.predictive_gain import cell_grid
from foveasim.agents.scanpath_backbone import LEVELS
from foveasim.agents.scanpath_network import SalienceHead, SalienceNetwork
from foveasim.agents.scanpath_prior import MEMORY
from foveasim.envs.observation import ObservationCode
from foveasim.retina import Retina
from foveasim.scenes import ArrayScenes
from foveasim.simulator import Simulator

__all__ = ["Beliefs", "Histories", "collect_beliefs", "histories", "read_beliefs", "salience_of", "write_beliefs"]

_AT_ONCE = 16
_MOST_STEPS = 14


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What the backbone makes of whole images, and of what was seen of them before each fixation of some scanpaths.

    Attributes:
        levels: (N, C, h, w) float16 for the C of ``LEVELS``.
        acuity: (N, 1, rows, columns) float16.
        rows: (N, 3) int64: number of the image, of the person, and of the fixation that comes next; the last two are -1
            where the whole image was seen.
    """

    levels: tuple[Tensor, ...]
    acuity: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Histories:
    """Where people had looked before each of N fixations.

    Attributes:
        past: (N, 16, 2) float32 normalised, the fixations so far, the present one first, the start among them.
        count: (N,) int64 how many of them there are.
        target: (N, 2) float32 normalised, where the person looked next.
    """

    past: Tensor
    count: Tensor
    target: Tensor


def collect_beliefs(
    people: People,
    retina: Retina,
    network: SalienceNetwork,
    *,
    seed: int = 0,
    lanes: int = 50,
    tell: Callable[[int], None] = lambda images: None,
) -> Beliefs:
    """Lead an eye along the scanpath of one person on each image, and keep what it had seen before every fixation.

    Args:
        people: Whose scanpaths.
        retina: With which eye.
        network: Whose backbone.
        seed: Which person.
        lanes: Eyes at a time.
        tell: Called with the number of images that are done.
    """
    draws = np.random.default_rng(seed)
    height, width = people.shown_size
    grid = cell_grid(people.shown_size)
    person = [int(draws.integers(len(group))) for group in people.paths]
    points = [people.shown(group[k].fixation_px.numpy()) for group, k in zip(people.paths, person, strict=True)]
    source = ArrayScenes(people.image, px_per_deg=people.shown_px_per_deg)
    code, half = ObservationCode(belief=True), np.array([[width / 2, height / 2]], np.float32)
    kept: list[tuple[list[Tensor], Tensor]] = []
    rows: list[tuple[int, int, int]] = []
    with torch.inference_mode():
        for start in range(0, len(people.image), lanes):
            which = range(start, min(start + lanes, len(people.image)))
            kept += _levels(network, people.image[which.start : which.stop], None, grid)
            rows += [(image, -1, -1) for image in which]
            simulator = Simulator(source, retina, len(which), size=people.shown_size)
            simulator.reset(seed=list(which), index=list(which))
            longest = min(_MOST_STEPS, max(len(points[image]) for image in which))
            for step in range(longest):
                going = [lane for lane, image in enumerate(which) if len(points[image]) > step]
                seen = code.build(simulator, half, np.ones((len(which), 1), np.float32))
                kept += _levels(network, seen["belief"][going], seen["belief_acuity"][going][..., 0], grid)
                rows += [(which[lane], person[which[lane]], step) for lane in going]
                aims = np.stack([points[image][min(step, len(points[image]) - 1)] for image in which])
                simulator.step(torch.from_numpy(np.clip(aims, 0, 2 * half).astype(np.float32)))
            tell(len(which))
    levels = tuple(torch.cat([part[0][level] for part in kept]) for level in range(len(LEVELS)))
    return Beliefs(levels, torch.cat([part[1] for part in kept]), torch.tensor(rows))


def _levels(
    network: SalienceNetwork, image: NDArray[np.uint8], acuity: NDArray[np.uint8] | None, grid: tuple[int, int]
) -> list[tuple[list[Tensor], Tensor]]:
    """Return what the head works on, in parts, float16; without an acuity everything is sharp."""
    found = []
    for start in range(0, len(image), _AT_ONCE):
        pixels = torch.from_numpy(image[start : start + _AT_ONCE])
        sharp = torch.full_like(pixels[..., 0], 255) if acuity is None else torch.from_numpy(acuity[start:][:_AT_ONCE])
        levels, cells = network.levels(pixels, sharp, grid)
        found.append(([maps.half().contiguous() for maps in levels], cells.half()))
    return found


def histories(people: People, beliefs: Beliefs) -> Histories:
    """Return where people had looked, and where they looked next; of whole images nothing."""
    past, target = torch.zeros(len(beliefs.rows), MEMORY, 2), torch.zeros(len(beliefs.rows), 2)
    extent = torch.tensor(people.size[::-1], dtype=torch.float32)
    for n, (scene, person, step) in enumerate(beliefs.rows.tolist()):
        if step >= 0:
            norm = (people.paths[scene][person].fixation_px * (2 / extent) - 1).clamp(-1, 1)
            so_far = torch.cat((torch.zeros(1, 2), norm[:step])).flip(0)[:MEMORY]
            past[n, : len(so_far)] = so_far
            target[n] = norm[step]
    return Histories(past, (beliefs.rows[:, 2] + 1).clamp(0, MEMORY), target)


def salience_of(head: SalienceHead, beliefs: Beliefs, which: Tensor | None = None) -> Tensor:
    """Return log salience, early and late, of beliefs by their numbers, all without, (N, 2, rows, columns) float32."""
    numbers = torch.arange(len(beliefs.rows)) if which is None else which
    with torch.inference_mode():
        parts = [
            head([maps[part].float() for maps in beliefs.levels], beliefs.acuity[part].float())
            for part in torch.split(numbers, 64)
        ]
    return torch.cat(parts)


def write_beliefs(path: Path, beliefs: Beliefs) -> None:
    """Write beliefs to a safetensors file.

    Raises:
        WeightsError: The file cannot be written.
    """
    tensors = {f"level{place}": maps for place, maps in enumerate(beliefs.levels)}
    write_tensors(path, {**tensors, "acuity": beliefs.acuity, "rows": beliefs.rows}, {})


def read_beliefs(path: Path) -> Beliefs:
    """Read what :func:`write_beliefs` wrote.

    Raises:
        WeightsError: The file cannot be used.
    """
    tensors, _ = read_tensors(path)
    levels = tuple(tensors[f"level{place}"] for place in range(len(LEVELS)))
    return Beliefs(levels, tensors["acuity"], tensors["rows"])
