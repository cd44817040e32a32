"""The baselines: scanpaths that owe nothing to the image, or nothing to looking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.loading import make_agent
from foveasim.experiments.humans.free_viewing import AgentScanpaths, FreeViewingRunner
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["BASELINES", "run_baselines"]

BASELINES = ("uniform", "centre", "shuffled", "walk", "raster", "stays")
"""Anywhere · a Gaussian with the mean and the spread of training fixations · people on other images · as people's eyes
move, blind to the scene (the agent ``walk``) · as one reads a page (the agent ``raster``) · always at the centre."""


def run_baselines(
    runner: FreeViewingRunner, on_progress: Callable[[int], None] = lambda count: None
) -> list[AgentScanpaths]:
    """Run the baselines, with as many scanpaths of the same lengths as agents make.

    Args:
        runner: The one that runs the agents.
        on_progress: Called with the number of scanpaths that were made since the last call.
    """
    people = runner.people
    draws = np.random.default_rng((runner.seed, 2))
    extent = np.array(people.size[::-1], np.float64)
    shape = (*runner.lengths.shape, int(runner.lengths.max()), 2)
    mean, spread = people.training_px.mean(0, dtype=np.float64), people.training_px.std(0, dtype=np.float64)
    baselines = [
        _draw_baseline("uniform", runner, draws.uniform(0, 1, shape) * extent, draws),
        _draw_baseline("centre", runner, np.clip(draws.normal(mean, spread, shape), 0, extent), draws),
        _draw_shuffled(runner, draws),
    ]
    on_progress(3 * runner.lengths.size)
    angle = min(people.size) / people.px_per_deg
    agents = {"walk": ("walk", {"short_side_deg": angle}), "raster": ("raster", {}), "stays": ("centre", {})}
    for label, (name, arguments) in agents.items():
        entry = Entry(
            label,
            name,
            lambda seed, name=name, arguments=arguments: make_agent(name, seed=seed, **arguments),  # type: ignore[misc]
        )
        baselines.append(runner.run(entry, on_progress))
    return baselines


def _draw_baseline(
    label: str, runner: FreeViewingRunner, points: NDArray[np.float64], draws: np.random.Generator
) -> AgentScanpaths:
    durations = draws.choice(runner.people.durations_ms, points.shape[:3])
    paths = []
    for place, name in enumerate(runner.people.name):
        group = []
        for k, count in enumerate(runner.lengths[place].tolist()):
            duration = torch.from_numpy(durations[place, k, :count].copy())
            fixation = torch.from_numpy(points[place, k, :count].astype(np.float32))
            group.append(Scanpath(fixation, torch.cumsum(duration, 0) - duration, duration, name, f"{k}"))
        paths.append(tuple(group))
    return AgentScanpaths(label, label, False, False, tuple(paths), None)


def _draw_shuffled(runner: FreeViewingRunner, draws: np.random.Generator) -> AgentScanpaths:
    """Show on each image scanpaths that people made on others: of each person in turn, on an image drawn at random."""
    people = runner.people
    paths = []
    for place in range(len(people.name)):
        others = [i for i in range(len(people.name)) if i != place]
        if not others:
            group = tuple(people.training[i] for i in draws.choice(len(people.training), runner.count))
        else:
            images = [people.paths[i] for i in draws.choice(others, runner.count)]
            group = tuple(image[k % len(image)] for k, image in enumerate(images))
        paths.append(group)
    return AgentScanpaths("shuffled", "shuffled", False, True, tuple(paths), None)
