"""Fits the agent ``scanpath`` to people: network, tables and weights, all on training images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import metrics
from foveasim.agents.humans_data import People
from foveasim.agents.mim.files import write_tensors
from foveasim.agents.predictive_gain import CELLS, cell_grid, see, shrink_pixels
from foveasim.agents.scanpath_network import SalienceNetwork, salience_inputs
from foveasim.agents.scanpath_prior import FEATURES, MEMORY, Tables, features, log_priority
from foveasim.envs.observation import ObservationCode
from foveasim.retina import Retina
from foveasim.scenes import ArrayScenes
from foveasim.simulator import Simulator

__all__ = ["Beliefs", "collect_beliefs", "fit_network", "fit_tables", "fit_weights", "save_scanpath"]

_QUANTILES = 65
_MOST_STEPS = 14
_COUNT_PRIOR = 5.0  # saccades added to each cell of the table, so that rare ones do not count as never


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What eyes that were led along the scanpaths of people had seen before each fixation.

    Attributes:
        image: (N, h, w, 3) uint8, the belief at the size at which the agent thinks.
        acuity: (N, h, w) uint8.
        scene: (N,) number of the image.
        past: (N, 16, 2) float32 normalised, the fixations so far, the present one first, the start among them.
        count: (N,) how many of them there are.
        target: (N, 2) float32 normalised, where the person looked next.
    """

    image: NDArray[np.uint8]
    acuity: NDArray[np.uint8]
    scene: NDArray[np.int64]
    past: Tensor
    count: Tensor
    target: Tensor


def collect_beliefs(people: People, retina: Retina, paths: int, *, seed: int = 0, lanes: int = 100) -> Beliefs:
    """Lead eyes along scanpaths of people, and keep what each had seen before every fixation.

    Args:
        people: Whose scanpaths.
        retina: With which eye.
        paths: Scanpaths of each image.
        seed: Which.
        lanes: Eyes at a time.
    """
    draws = np.random.default_rng(seed)
    jobs = [(i, int(k)) for i, group in enumerate(people.paths) for k in draws.choice(len(group), paths, replace=False)]
    source = ArrayScenes(people.image, px_per_deg=people.shown_px_per_deg)
    half = np.array([[people.shown_size[1] / 2, people.shown_size[0] / 2]], np.float32)
    code, cpu = ObservationCode(belief=True), torch.device("cpu")
    image, acuity, rows = [], [], []
    for start in range(0, len(jobs), lanes):
        part = jobs[start : start + lanes]
        simulator = Simulator(source, retina, len(part), size=people.shown_size)
        simulator.reset(seed=list(range(start, start + len(part))), index=[i for i, _ in part])
        points = [people.shown(people.paths[i][k].fixation_px.numpy()) for i, k in part]
        for step in range(min(_MOST_STEPS, max(map(len, points)))):
            going = [lane for lane, path in enumerate(points) if len(path) > step]
            left = np.ones((len(part), 1), np.float32)
            whole = code.build(simulator, half, left)
            seen = see({key: value[going] for key, value in whole.items()}, cpu)
            image.append(seen.belief.numpy())
            acuity.append(seen.acuity.numpy())
            rows += [(*part[lane], step) for lane in going]
            aims = np.stack([path[min(step, len(path) - 1)] for path in points])
            simulator.step(torch.from_numpy(np.clip(aims, 0, 2 * half).astype(np.float32)))
    return _beliefs(people, np.concatenate(image), np.concatenate(acuity), np.array(rows))


def _beliefs(people: People, image: NDArray[np.uint8], acuity: NDArray[np.uint8], rows: NDArray[np.int64]) -> Beliefs:
    """Add histories and targets to beliefs of (image, person, step)."""
    past = torch.zeros(len(rows), MEMORY, 2)
    target = torch.zeros(len(rows), 2)
    extent = torch.tensor(people.size[::-1], dtype=torch.float32)
    for n, (scene, person, step) in enumerate(rows.tolist()):
        norm = (people.paths[scene][person].fixation_px * (2 / extent) - 1).clamp(-1, 1)
        so_far = torch.cat((torch.zeros(1, 2), norm[:step])).flip(0)[:MEMORY]
        past[n, : len(so_far)] = so_far
        target[n] = norm[step]
    count = torch.from_numpy(rows[:, 2] + 1).clamp_max(MEMORY)
    return Beliefs(image, acuity, rows[:, 0], past, count, target)


def cells_of(point_norm: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the cells in which normalised points lie, (N,) int64."""
    rows, columns = grid
    column = ((point_norm[:, 0] + 1) / 2 * columns).long().clamp(0, columns - 1)
    row = ((point_norm[:, 1] + 1) / 2 * rows).long().clamp(0, rows - 1)
    return row * columns + column


def densities(people: People) -> Tensor:
    """Return where people looked on each image, (S, rows, columns) float32, each summing to 1."""
    grid = cell_grid(people.shown_size)
    found = []
    for group in people.paths:
        points = np.concatenate([path.fixation_px.numpy() for path in group])
        scaled = points * (np.array(grid[::-1]) / np.array(people.size[::-1]))
        smooth = metrics.fixation_map(scaled.astype(np.float32), grid, 0.8)
        found.append(torch.from_numpy(smooth / smooth.sum()))
    return torch.stack(found).float()


def fit_tables(people: People) -> Tables:
    """Return centre bias, saccades and durations of the training people of an image set; the weights are 0."""
    rows, columns = grid = cell_grid(people.shown_size)
    bias = F.adaptive_avg_pool2d(torch.from_numpy(people.centre_bias)[None, None], grid)[0, 0]
    bias = bias / bias.sum()
    counts = torch.zeros(2 * rows - 1, 2 * columns - 1, dtype=torch.float64)
    extent = torch.tensor(people.size[::-1], dtype=torch.float32)
    saccades = 0
    for path in people.training:
        norm = (path.fixation_px * (2 / extent) - 1).clamp(-1, 1)
        cell = cells_of(norm, grid)
        down = (cell[1:] // columns - cell[:-1] // columns) + rows - 1
        across = (cell[1:] % columns - cell[:-1] % columns) + columns - 1
        counts.view(-1).index_add_(0, down * (2 * columns - 1) + across, torch.ones(len(down), dtype=torch.float64))
        saccades += len(down)
    counts = _smooth((counts + counts.flip(1)) / 2, 0.6)  # people's left is their right
    independent = F.conv2d(bias[None, None], bias[None, None], padding=(rows - 1, columns - 1))[0, 0].flip(0, 1)
    odds = torch.log((counts + _COUNT_PRIOR) / (saccades * independent + _COUNT_PRIOR))
    quantiles = np.quantile(people.durations_ms, np.linspace(0, 1, _QUANTILES))
    return Tables(
        (bias.log() - bias.log().mean()).float(),
        odds.float(),
        people.size[0] / people.px_per_deg / rows,
        torch.zeros(len(FEATURES)),
        torch.from_numpy(quantiles).float(),
    )


def _smooth(table: Tensor, sd: float) -> Tensor:
    reach = torch.arange(-3, 4, dtype=table.dtype)
    tap = torch.exp(-reach.square() / (2 * sd**2))
    tap = tap / tap.sum()
    across = F.conv2d(table[None, None], tap[None, None, None], padding=(0, 3))
    return F.conv2d(across, tap[None, None, :, None], padding=(3, 0))[0, 0]


def fit_network(
    beliefs: Beliefs,
    people: People,
    tables: Tables,
    *,
    epochs: int,
    share: float = 0.5,
    seed: int = 0,
    tell: Callable[[int, float, SalienceNetwork], None] = lambda epoch, loss, network: None,
) -> SalienceNetwork:
    """Teach a network where people look on an image, from what an eye has seen of it.

    Args:
        beliefs: What was seen; whole images are added, so that the privileged variant needs no other network.
        people: Whose fixations.
        tables: Their centre bias, which the network is to go beyond.
        epochs: Times that the data are gone through.
        share: Of the beliefs, drawn anew each epoch.
        seed: Of everything drawn.
        tell: Called after each epoch with its number, the mean loss in nats, and the network.
    """
    torch.manual_seed(seed)
    draws = np.random.default_rng(seed)
    goal, whole = densities(people), shrink_pixels(torch.from_numpy(people.image), beliefs.image.shape[1:3])
    network = SalienceNetwork()
    taken, batch = int(len(beliefs.image) * share), 24
    steps = epochs * math.ceil((taken + len(whole)) / batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    full = np.full(whole.shape[1:3], 255, np.uint8)
    for epoch in range(epochs):
        network.train()
        seen = draws.permutation(len(beliefs.image))[:taken]
        order = draws.permutation(np.concatenate((seen, -1 - np.arange(len(whole)))))
        losses = []
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            image = np.stack([beliefs.image[i] if i >= 0 else whole[-1 - i].numpy() for i in chosen])
            acuity = np.stack([beliefs.acuity[i] if i >= 0 else full for i in chosen])
            target = goal[[beliefs.scene[i] if i >= 0 else -1 - i for i in chosen]]
            inputs = salience_inputs(torch.from_numpy(image), torch.from_numpy(acuity))
            if draws.random() < 0.5:
                inputs, target = inputs.flip(3), target.flip(2)
            found = torch.log_softmax((network(inputs) + tables.centre).flatten(1), 1)
            loss = -(target.flatten(1) * found).sum(1).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        tell(epoch, float(np.mean(losses)), network.eval())
    return network.eval()


def salience_of(network: SalienceNetwork, image: NDArray[np.uint8], acuity: NDArray[np.uint8]) -> Tensor:
    """Return log salience of many pictures, (N, rows, columns)."""
    with torch.inference_mode():
        parts = range(0, len(image), 32)
        found = [
            network(salience_inputs(torch.from_numpy(image[i : i + 32]), torch.from_numpy(acuity[i : i + 32])))
            for i in parts
        ]
    return torch.cat(found)


def fit_weights(salience: Tensor, beliefs: Beliefs, tables: Tables, size: tuple[int, int], side_deg: float) -> Tables:
    """Return tables with the weights under which the next fixations of people are most likely.

    Args:
        salience: (N, rows, columns) of the beliefs.
        beliefs: Histories and next fixations.
        tables: Without weights.
        size: (H, W) of the scenes.
        side_deg: Visual angle of their short side.
    """
    known = features(salience, beliefs.past, beliefs.count, tables, size, side_deg)
    cell = cells_of(beliefs.target, (salience.shape[1], salience.shape[2]))
    weights = torch.zeros(len(FEATURES), requires_grad=True)
    with torch.no_grad():
        for name in ("salience", "centre", "saccade"):
            weights[FEATURES.index(name)] = 1
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = torch.log_softmax(torch.einsum("bfk,f->bk", known, weights), 1)
        value = -found.gather(1, cell[:, None]).mean() + 1e-4 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Tables(tables.centre, tables.saccade, tables.cell_deg, weights.detach(), tables.duration_ms)


def log_likelihood(salience: Tensor, beliefs: Beliefs, tables: Tables, size: tuple[int, int], side_deg: float) -> float:
    """Return the mean log probability of the next fixations of people, in bits."""
    known = features(salience, beliefs.past, beliefs.count, tables, size, side_deg)
    cell = cells_of(beliefs.target, (salience.shape[1], salience.shape[2]))
    return float(log_priority(known, tables).gather(1, cell[:, None]).mean()) / math.log(2)


def save_scanpath(
    path: str | Path,
    network: SalienceNetwork,
    tables: Tables,
    sharpness: float,
    facts: Sequence[tuple[str, str]] = (),
) -> None:
    """Write what the agent ``scanpath`` needs, the network in half precision.

    Raises:
        WeightsError: The file cannot be written.
    """
    tensors = {f"network.{name}": tensor.half() for name, tensor in network.state_dict().items()}
    tensors |= {"centre": tables.centre, "saccade": tables.saccade.half(), "weights": tables.weights}
    tensors["duration_ms"] = tables.duration_ms
    card = {"cell_deg": tables.cell_deg, "sharpness": sharpness, "cells": CELLS, **dict(facts)}
    write_tensors(path, tensors, {"scanpath": json.dumps(card)})
