"""Fits the agent ``scanpath`` to people.

    python -m foveasim.agents.scanpath_model.fit --data osie --out mine.safetensors

People's training images teach the network, the tables and the weights; on the validation images is chosen when to stop
and how sharply to draw. The backbone comes from the shipped file and stays as it is. What eyes saw of the images is the
longest part, and is kept in ``--work`` as it comes: a run that was ended goes on from there.
"""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim import metrics
from foveasim import validation as check
from foveasim.agents.mim.expected_gain import CELLS, cell_grid
from foveasim.agents.mim.weights_file import write_tensors
from foveasim.agents.scanpath_model.agent import load_scanpath
from foveasim.agents.scanpath_model.network import EARLY, SalienceHead, SalienceNetwork
from foveasim.agents.scanpath_model.prior import FEATURES, SamplingParameters, Tables, features, log_priority
from foveasim.agents.scanpath_model.sampling import choose_sampling
from foveasim.agents.scanpath_model.training_views import (
    Beliefs,
    Histories,
    collect_beliefs,
    hash_inputs,
    histories,
    read_beliefs,
    salience_of,
    write_beliefs,
)
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.eye.retina import make_retina
from foveasim.metrics.people import People, read_people
from foveasim.runs.outputs import check_output, choose_final_path
from foveasim.scanpath.scanpath import Scanpath

__all__ = ["FitConfig", "cells_of", "fit", "fit_head", "fit_tables", "fit_weights", "main", "save_scanpath"]

_QUANTILES = 65
_COUNT_PRIOR = 5.0  # saccades added to each cell of the table, so that rare ones do not count as never
_AMPLITUDES = 30
_BATCH = 24
_MAX_FIXATIONS = 2500  # fixations for fifteen weights


@dataclass
class FitConfig:
    """What is fitted to whom.

    Attributes:
        data: Folder with ``images/``, ``fixations.csv`` and ``splits.json``; see docs/humans.md.
        out: The file to write, ``….safetensors``.
        overwrite: Replace a file of that name that exists.
        work: Folder for what eyes saw of the images, 110 kB a fixation; a run goes on from what lies there.
        training: Split to learn from.
        validation: Split to choose on.
        retina: With which eye.
        epochs: Times that the data are gone through.
        seed: Of everything drawn.
    """

    data: str = ""
    out: str = "scanpath.safetensors"
    overwrite: bool = False
    work: str = "runs/scanpath"
    training: str = "train"
    validation: str = "val"
    retina: str = "pyramid"
    epochs: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise InvalidValueError("data must name a folder with images/, fixations.csv and splits.json; got none.")
        check.whole("epochs", self.epochs, 1, 10_000)
        check.whole("seed", self.seed, 0, 2**31)


def fit(config: FitConfig, on_message: Callable[[str], None] = print) -> None:
    """Fit the agent and write its file.

    Args:
        config: What to whom.
        on_message: Takes one line for each thing that is done.

    Raises:
        FoveasimError: The data or the files cannot be used.
    """
    check_output(config.out, overwrite=config.overwrite, make_parent=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps of one picture are too small for two
    try:
        training = read_people(config.data, split=config.training, training=config.validation)
        validation = read_people(config.data, split=config.validation, training=config.training)
        guide_paths = [path for group in training.paths for path in group]
        network = copy.deepcopy(load_scanpath(None).network)  # that of all agents stays as it is
        parts = [
            (training, _seen(config, training, guide_paths, network, "training", 1, on_message)),
            (validation, _seen(config, validation, guide_paths, network, "validation", 3, on_message)),
        ]
        sampling, head, tables = fit_all(*parts, epochs=config.epochs, seed=config.seed, on_message=on_message)
    finally:
        torch.set_num_threads(threads)
    network.head.load_state_dict(head.state_dict())
    out = choose_final_path(Path(config.out), overwrite=config.overwrite)
    save_scanpath(out, network, tables, sampling, {"retina": config.retina})
    on_message(f"{out}")


def _seen(
    config: FitConfig,
    people: People,
    guide_paths: Sequence[Scanpath],
    network: SalienceNetwork,
    name: str,
    seed: int,
    on_message: Callable[[str], None],
) -> Beliefs:
    path = Path(config.work).expanduser() / f"{name}.safetensors"
    inputs_hash = hash_inputs(people, guide_paths, config.retina, config.seed + seed)
    if path.is_file():
        return read_beliefs(path, inputs_hash)
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        on_message(f"{name}: {done} of {len(people.name)} images")

    retina = make_retina(config.retina)
    found = collect_beliefs(people, retina, network, guide_paths, seed=config.seed + seed, on_progress=count)
    write_beliefs(path, found, inputs_hash)
    return found


Part = tuple[People, Beliefs]


def fit_all(
    training: Part, validation: Part, *, epochs: int, seed: int, on_message: Callable[[str], None]
) -> tuple[dict[str, SamplingParameters], SalienceHead, Tables]:
    """Fit everything to what was seen; return how to draw by what is seen, the head and the tables.

    Args:
        training: People, and what eyes saw of their images.
        validation: To choose on.
        epochs: Times that the data are gone through.
        seed: Of everything drawn.
        on_message: Takes one line for each thing that is done.
    """
    people, seen = validation
    tables = fit_tables(people)
    head = fit_head(training, validation, tables, epochs=epochs, seed=seed, on_message=on_message)
    size, angle = people.image_size, min(people.size) / people.px_per_deg
    sampling = {}
    for mode in ("belief", "scene"):
        maps, history = _paired(head, *training, mode)
        some = slice(None, None, math.ceil(len(maps) / _MAX_FIXATIONS))
        part = Histories(history.past[some], history.count[some], history.target[some])
        fitted = fit_weights(maps[some], part, tables, size, angle)
        bits = log_likelihood(*_paired(head, people, seen, mode), fitted, size, angle)
        cells = math.prod(cell_grid(size))
        on_message(f"{mode}: {bits + math.log2(cells):.3f} bits a fixation over uniform, validation")
        sampling[mode] = choose_sampling(_by_step(head, seen, mode), people, fitted, seed=seed, on_message=on_message)
    return sampling, head, tables


def _paired(head: SalienceHead, people: People, beliefs: Beliefs, mode: str) -> tuple[Tensor, Histories]:
    """Return the maps by which each next fixation is chosen, and the histories; whole images serve as ``scene``."""
    led = beliefs.rows[:, 2] >= 0
    every = histories(people, beliefs)
    history = Histories(every.past[led], every.count[led], every.target[led])
    if mode == "belief":
        return salience_of(head, beliefs, led.nonzero()[:, 0]), history
    return _whole(head, beliefs)[beliefs.rows[led, 0]], history


def _whole(head: SalienceHead, beliefs: Beliefs) -> Tensor:
    """Return the maps of whole images in their order."""
    numbers = (beliefs.rows[:, 2] < 0).nonzero()[:, 0]
    return salience_of(head, beliefs, numbers[beliefs.rows[numbers, 0].argsort()])


def _by_step(head: SalienceHead, beliefs: Beliefs, mode: str) -> Tensor:
    """Return the maps of each image at each step, (S, T, 2, rows, columns); beyond a scanpath its last stays."""
    if mode == "scene":
        return _whole(head, beliefs)[:, None]
    scenes, steps = int(beliefs.rows[:, 0].max()) + 1, int(beliefs.rows[:, 2].max()) + 1
    place = torch.full((scenes, steps), -1)
    for number, (scene, _, step) in enumerate(beliefs.rows.tolist()):
        if step >= 0:
            place[scene, step] = number
    for step in range(1, steps):
        place[:, step] = torch.where(place[:, step] < 0, place[:, step - 1], place[:, step])
    maps = salience_of(head, beliefs, place.flatten())
    return maps.reshape(scenes, steps, *maps.shape[1:])


def cells_of(point_norm: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the cells in which normalised points lie, (N,) int64."""
    rows, columns = grid
    column = ((point_norm[:, 0] + 1) / 2 * columns).long().clamp(0, columns - 1)
    row = ((point_norm[:, 1] + 1) / 2 * rows).long().clamp(0, rows - 1)
    return row * columns + column


def densities(people: People) -> Tensor:
    """Return where people looked on each image, early and late, (S, 2, rows, columns) float32, each summing to 1."""
    grid = cell_grid(people.image_size)
    scale = np.array(grid[::-1]) / np.array(people.size[::-1])
    found = []
    for group in people.paths:
        for part in (slice(None, EARLY), slice(EARLY, None)):
            points = np.concatenate([path.fixation_px[part].numpy() for path in group])
            smooth = metrics.fixation_map((points * scale).astype(np.float32), grid, 0.8)
            found.append(torch.from_numpy((smooth + 1e-12) / (smooth + 1e-12).sum()))
    return torch.stack(found).float().reshape(len(people.paths), 2, *grid)


def fit_tables(people: People) -> Tables:
    """Return centre bias, saccades and durations of the training people of an image set; the weights are 0."""
    rows, columns = grid = cell_grid(people.image_size)
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
        torch.zeros(_AMPLITUDES),
        torch.from_numpy(quantiles).float(),
    )


def _smooth(table: Tensor, sd: float) -> Tensor:
    reach = torch.arange(-3, 4, dtype=table.dtype)
    tap = torch.exp(-reach.square() / (2 * sd**2))
    tap = tap / tap.sum()
    across = F.conv2d(table[None, None], tap[None, None, None], padding=(0, 3))
    return F.conv2d(across, tap[None, None, :, None], padding=(3, 0))[0, 0]


def fit_head(
    training: Part,
    validation: Part,
    tables: Tables,
    *,
    epochs: int,
    seed: int = 0,
    on_message: Callable[[str], None] = lambda line: None,
) -> SalienceHead:
    """Teach a head where people look on an image, from what an eye has seen of it; the best epoch's is returned.

    Args:
        training: People, and what eyes saw of their images. Each epoch takes half of that and all whole images,
            so that the privileged variant needs no other head; half of all is shown with right for left.
        validation: On which the best epoch is chosen.
        tables: People's centre bias, which the head is to go beyond.
        epochs: Times that the data are gone through.
        seed: Of everything drawn.
        on_message: Takes one line for each epoch.
    """
    draws = np.random.default_rng(seed)
    (_, seen), goal, other = training, densities(training[0]), densities(validation[0])
    whole = (seen.rows[:, 2] < 0).numpy()
    led, whole = np.flatnonzero(~whole), np.flatnonzero(whole)
    taken = len(led) // 2
    steps = epochs * math.ceil((taken + len(whole)) / _BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = SalienceHead()
        _scale(head, seen)
        optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
        best, best_head = math.inf, copy.deepcopy(head)
        for epoch in range(epochs):
            head.train()
            order = torch.from_numpy(draws.permutation(np.concatenate((draws.permutation(led)[:taken], whole))))
            losses = []
            for chosen in torch.split(order, _BATCH):
                levels = [maps[chosen].float() for maps in seen.levels]
                sharp, target = seen.acuity[chosen].float(), goal[seen.rows[chosen, 0]]
                if draws.random() < 0.5:
                    levels, sharp, target = [maps.flip(3) for maps in levels], sharp.flip(3), target.flip(3)
                loss = _loss(head(levels, sharp), target, tables)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                losses.append(float(loss.detach()))
            reached = float(_loss(salience_of(head.eval(), validation[1]), other[validation[1].rows[:, 0]], tables))
            on_message(f"epoch {epoch + 1}: {np.mean(losses):.4f} nats, validation {reached:.4f}")
            if reached < best:
                best, best_head = reached, copy.deepcopy(head)
    return best_head.eval()


def _scale(head: SalienceHead, seen: Beliefs) -> None:
    """Set mean and spread of the channels."""
    some = [maps[::17].float() for maps in seen.levels]
    head.mean.copy_(torch.cat([maps.mean((0, 2, 3)) for maps in some]))
    head.spread.copy_(torch.cat([maps.std((0, 2, 3)) + 1e-3 for maps in some]))


def _loss(salience: Tensor, target: Tensor, tables: Tables) -> Tensor:
    """Return the cross entropy of densities (N, 2, rows, columns), nats."""
    found = torch.log_softmax((salience + tables.centre).flatten(2), 2)
    return -(target.flatten(2) * found).sum(2).mean()


def fit_weights(salience: Tensor, history: Histories, tables: Tables, size: tuple[int, int], side_deg: float) -> Tables:
    """Return tables with the weights under which the next fixations of people are most likely.

    Args:
        salience: (N, 2, rows, columns), early and late.
        history: N histories and next fixations.
        tables: Without weights.
        size: (H, W) of the scenes.
        side_deg: Visual angle of their short side.
    """
    flat = replace(tables, amplitude=torch.zeros_like(tables.amplitude))
    known = features(salience, history.past, history.count, flat, size, side_deg)
    cell = cells_of(history.target, (salience.shape[2], salience.shape[3]))
    weights = torch.zeros(len(FEATURES), requires_grad=True)
    with torch.no_grad():
        for name in ("salience", "centre", "saccade"):
            weights[FEATURES.index(name)] = 1
    optimiser = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = torch.log_softmax(torch.einsum("bfk,f->bk", known, weights), 1)
        value = -found.gather(1, cell[:, None]).mean() + 1e-4 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach()
    found[FEATURES.index("amplitude")] = 1
    return replace(tables, weights=found)


def log_likelihood(
    salience: Tensor, history: Histories, tables: Tables, size: tuple[int, int], side_deg: float
) -> float:
    """Return the mean log probability of the next fixations of people, in bits."""
    known = features(salience, history.past, history.count, tables, size, side_deg)
    cell = cells_of(history.target, (salience.shape[2], salience.shape[3]))
    return float(log_priority(known, tables).gather(1, cell[:, None]).mean()) / math.log(2)


def save_scanpath(
    path: str | Path,
    network: SalienceNetwork,
    tables: Tables,
    sampling: Mapping[str, SamplingParameters],
    extra_metadata: Mapping[str, str] | None = None,
) -> None:
    """Write what the agent ``scanpath`` needs, the network in half precision.

    Args:
        path: The file.
        network: Backbone and head.
        tables: Centre bias, saccades and durations.
        sampling: How to draw, by ``belief`` and ``scene``.
        extra_metadata: More for the file's metadata.

    Raises:
        WeightsError: The file cannot be written.
    """
    tensors = {f"network.{name}": tensor.half() for name, tensor in network.state_dict().items()}
    tensors |= {"centre": tables.centre, "saccade": tables.saccade.half(), "duration_ms": tables.duration_ms}
    for name, parameters in sampling.items():
        tensors |= {f"{name}.weights": parameters.weights.clone(), f"{name}.amplitude": parameters.amplitude.clone()}
    card = {"cell_deg": tables.cell_deg, "cells": CELLS, **(extra_metadata or {})}
    card["sharpness"] = {name: parameters.sharpness for name, parameters in sampling.items()}
    write_tensors(path, tensors, {"scanpath": json.dumps(card)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit from the command line; return 0, or 1 after an error that is printed."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="python -m foveasim.agents.scanpath_model.fit", description="fit the agent scanpath")
    parser.add_class_arguments(FitConfig, as_group=False)
    try:
        fit(FitConfig(**vars(parser.parse_args(arguments))))
    except FoveasimError as error:
        print(f"scanpath_fit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
