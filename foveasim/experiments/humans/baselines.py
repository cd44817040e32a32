"""What is to be beaten: scanpaths that owe nothing to the image, or nothing to looking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.loading import make_agent
from foveasim.experiments.humans.free_viewing import Viewer, Viewing
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["FLOORS", "view_floors"]

FLOORS = ("uniform", "centre", "shuffled", "walk", "raster", "stays")
"""Anywhere · a Gaussian with the mean and the spread of training fixations · people on other images · as people's eyes
move, blind to the scene (the agent ``walk``) · as one reads a page (the agent ``raster``) · always at the centre."""


def view_floors(viewer: Viewer, tell: Callable[[int], None] = lambda viewed: None) -> list[Viewing]:
    """Make the floors, with as many scanpaths of the same lengths as agents make.

    Args:
        viewer: Of the agents.
        tell: Called with the number of scanpaths that were made since the last call.
    """
    people = viewer.people
    draws = np.random.default_rng((viewer.seed, 2))
    extent = np.array(people.size[::-1], np.float64)
    shape = (*viewer.lengths.shape, int(viewer.lengths.max()), 2)
    mean, spread = people.training_px.mean(0, dtype=np.float64), people.training_px.std(0, dtype=np.float64)
    found = [
        _floor("uniform", viewer, draws.uniform(0, 1, shape) * extent, draws),
        _floor("centre", viewer, np.clip(draws.normal(mean, spread, shape), 0, extent), draws),
        _shuffled(viewer, draws),
    ]
    tell(3 * viewer.lengths.size)
    angle = min(people.size) / people.px_per_deg
    agents = {"walk": ("walk", {"short_side_deg": angle}), "raster": ("raster", {}), "stays": ("centre", {})}
    for label, (name, arguments) in agents.items():
        entry = Entry(
            label,
            name,
            lambda seed, name=name, arguments=arguments: make_agent(name, seed=seed, **arguments),  # type: ignore[misc]
        )
        found.append(viewer.view(entry, tell))
    return found


def _floor(label: str, viewer: Viewer, points: NDArray[np.float64], draws: np.random.Generator) -> Viewing:
    durations = draws.choice(viewer.people.durations_ms, points.shape[:3])
    paths = []
    for place, name in enumerate(viewer.people.name):
        group = []
        for k, count in enumerate(viewer.lengths[place].tolist()):
            duration = torch.from_numpy(durations[place, k, :count].copy())
            fixation = torch.from_numpy(points[place, k, :count].astype(np.float32))
            group.append(Scanpath(fixation, torch.cumsum(duration, 0) - duration, duration, name, f"{k}"))
        paths.append(tuple(group))
    return Viewing(label, label, False, False, tuple(paths), None)


def _shuffled(viewer: Viewer, draws: np.random.Generator) -> Viewing:
    """Show on each image scanpaths that people made on others: of each person in turn, on an image drawn at random."""
    people = viewer.people
    paths = []
    for place in range(len(people.name)):
        others = [i for i in range(len(people.name)) if i != place]
        if not others:
            group = tuple(people.training[i] for i in draws.choice(len(people.training), viewer.count))
        else:
            images = [people.paths[i] for i in draws.choice(others, viewer.count)]
            group = tuple(image[k % len(image)] for k, image in enumerate(images))
        paths.append(group)
    return Viewing("shuffled", "shuffled", False, True, tuple(paths), None)
