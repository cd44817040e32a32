"""What the agent ``scanpath`` learns from: views of eyes that know nothing of where people looked on the image.

An eye that is led along a person's scanpath sees sharply where people look, and what is sharp would tell where that is.
Each eye is therefore led along a scanpath that a person made on another image; an agent that looks by itself knows no
more of people either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.mim.expected_gain import cell_grid
from foveasim.agents.mim.weights_file import read_tensors, write_tensors
from foveasim.agents.scanpath_model.backbone import LEVELS
from foveasim.agents.scanpath_model.network import SalienceHead, SalienceNetwork
from foveasim.agents.scanpath_model.prior import MEMORY
from foveasim.envs.observation import ObservationCode
from foveasim.errors import InvalidValueError
from foveasim.eye.retina import Retina
from foveasim.metrics.people import People
from foveasim.scanpath.scanpath import Scanpath
from foveasim.scenes.source import ArrayScenes
from foveasim.simulator.simulator import Simulator

__all__ = [
    "Beliefs",
    "Histories",
    "collect_beliefs",
    "hash_inputs",
    "histories",
    "read_beliefs",
    "salience_of",
    "write_beliefs",
]

_AT_ONCE = 4
_MAX_STEPS = 14


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What the backbone makes of whole images, and of what eyes that were led along other scanpaths saw of them.

    Attributes:
        levels: (N, C, h, w) float16 for the C of ``LEVELS``.
        acuity: (N, 1, rows, columns) float16.
        rows: (N, 3) int64: number of the image, of the person whose next fixation it predicts, and of that
            fixation, as many as the eye had made; the last two are -1 where the whole image was seen.
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
    guide_paths: Sequence[Scanpath],
    *,
    seed: int = 0,
    lanes: int = 50,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Beliefs:
    """Lead an eye over each image along a scanpath from another one, and keep what it had seen before every fixation.

    Args:
        people: Who viewed which images. One of them is drawn for each image, whose fixations are to be predicted.
        retina: With which eye.
        network: Whose backbone.
        guide_paths: Scanpaths to be led along, px of ``people.size``; one of another image is drawn for each image.
        seed: Of both.
        lanes: Eyes at a time.
        on_progress: Called with the number of images that are done.

    Raises:
        InvalidValueError: All guide paths are of one of the images.
    """
    draws = np.random.default_rng(seed)
    height, width = people.image_size
    grid = cell_grid(people.image_size)
    person = [int(draws.integers(len(group))) for group in people.paths]
    guides = [_draw_guide(guide_paths, name, draws) for name in people.name]
    points = [people.to_image_px(path.fixation_px.numpy()) for path in guides]
    steps = [min(len(path), len(group[k])) for path, group, k in zip(guides, people.paths, person, strict=True)]
    source = ArrayScenes(people.image, px_per_deg=people.image_px_per_deg)
    code, half = ObservationCode(belief=True), np.array([[width / 2, height / 2]], np.float32)
    views: list[tuple[list[Tensor], Tensor]] = []
    rows: list[tuple[int, int, int]] = []
    with torch.inference_mode():
        for start in range(0, len(people.image), lanes):
            which = range(start, min(start + lanes, len(people.image)))
            views += _levels(network, people.image[which.start : which.stop], None, grid)
            rows += [(image, -1, -1) for image in which]
            simulator = Simulator(source, retina, len(which), size=people.image_size)
            simulator.reset(seed=list(which), index=list(which))
            for step in range(min(_MAX_STEPS, max(steps[image] for image in which))):
                going = [lane for lane, image in enumerate(which) if steps[image] > step]
                seen = code.build(simulator, half, np.ones((len(which), 1), np.float32))
                views += _levels(network, seen["belief"][going], seen["belief_acuity"][going][..., 0], grid)
                rows += [(which[lane], person[which[lane]], step) for lane in going]
                aims = np.stack([points[image][min(step, len(points[image]) - 1)] for image in which])
                simulator.step(torch.from_numpy(np.clip(aims, 0, 2 * half).astype(np.float32)))
            on_progress(len(which))
    levels = tuple(torch.cat([part[0][level] for part in views]) for level in range(len(LEVELS)))
    return Beliefs(levels, torch.cat([part[1] for part in views]), torch.tensor(rows))


def _draw_guide(guide_paths: Sequence[Scanpath], name: str, draws: np.random.Generator) -> Scanpath:
    """Draw a scanpath that was not made on an image."""
    if all(path.image == name for path in guide_paths):
        raise InvalidValueError(
            f"guide_paths must hold scanpaths of other images than {name!r}; got {len(guide_paths)} of it."
        )
    while (path := guide_paths[int(draws.integers(len(guide_paths)))]).image == name:
        pass
    return path


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


def hash_inputs(people: People, guide_paths: Sequence[Scanpath], retina: str, seed: int) -> str:
    """Return what beliefs depend on, as hexadecimal digits: two that differ are of different people, eyes or seeds."""
    digest = hashlib.sha256(f"{people.name} {people.size} {people.px_per_deg} {retina} {seed}".encode())
    digest.update(np.ascontiguousarray(people.image).data)
    for paths in (*people.paths, guide_paths):
        for path in paths:
            digest.update(f"{path.image} {path.subject} ".encode() + path.fixation_px.numpy().tobytes())
    return digest.hexdigest()


def write_beliefs(path: Path, beliefs: Beliefs, inputs_hash: str) -> None:
    """Write beliefs to a safetensors file.

    Args:
        path: The file.
        beliefs: What was seen.
        inputs_hash: See :func:`hash_inputs`.

    Raises:
        WeightsError: The file cannot be written.
    """
    tensors = {f"level{place}": maps for place, maps in enumerate(beliefs.levels)}
    write_tensors(path, {**tensors, "acuity": beliefs.acuity, "rows": beliefs.rows}, {"of": inputs_hash})


def read_beliefs(path: Path, inputs_hash: str) -> Beliefs:
    """Read what :func:`write_beliefs` wrote.

    Args:
        path: The file.
        inputs_hash: See :func:`hash_inputs`.

    Raises:
        InvalidValueError: The file holds what others saw.
        WeightsError: The file cannot be used.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("of") != inputs_hash:
        raise InvalidValueError(
            f"{path} holds what was seen of other people, by another eye or with another seed. Remove it, or choose "
            "another folder for work."
        )
    levels = tuple(tensors[f"level{place}"] for place in range(len(LEVELS)))
    return Beliefs(levels, tensors["acuity"], tensors["rows"])
