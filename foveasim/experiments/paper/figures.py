"""The figures of the paper's comparison: accuracies, the latent over training, reconstructions."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.mim.predictor import compose
from foveasim.agents.mim.weights_file import load_network
from foveasim.agents.pretraining.augmentations import as_float
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.gaze_sequences import draw_fixations, sense_sequence
from foveasim.agents.readout.labelled import read_labelled
from foveasim.drawing.figures import (
    COLOURS,
    Bar,
    Curve,
    Style,
    blank_figure,
    curves_figure,
    panels_figure,
    save_figure,
)
from foveasim.errors import InvalidValueError
from foveasim.experiments.paper.findings import PUBLISHED, Runs, title_of
from foveasim.experiments.paper.run import UNTRAINED, Job, RunResult, SharedOptions, pretrain_config
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import make_retina

__all__ = ["Column", "Sheet", "draw_accuracies", "draw_latent", "draw_reconstructions", "sheets_figure"]

BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, _ = COLOURS
DARK = "#4D4D4D"  # of bars, on which black lines are to be seen
STYLES = {
    "paper/random_patches": Style(BLUE),
    "paper/random_patches_blurry": Style(BLUE, "--", "s"),
    "paper/random_patches_object": Style(BLUE, ":", "^"),
    "paper/periphery": Style(VERMILLION),
    "paper/periphery_blurry": Style(VERMILLION, "--", "s"),
    "paper/periphery_object": Style(VERMILLION, ":", "^"),
    "paper/periphery_published_fill": Style(VERMILLION, "-.", "v"),
    "paper/periphery_no_crops": Style(ORANGE),
    "paper/periphery_jitter": Style(ORANGE, "--", "s"),
    "paper/periphery_crops_jitter": Style(ORANGE, ":", "^"),
    "paper/fovea_filter": Style(GREEN),
    "paper/autoencoder": Style(DARK),
    "paper/covert_random": Style(SKY),
    "paper/covert_object": Style(SKY, "--", "s"),
    "foveasim/best": Style(PINK, "-", "D"),
}
"""A colour for each masking technique or augmentation, a line for what is varied in it (Okabe and Ito, 2008)."""

PANELS = {
    "masking technique": {
        "paper/random_patches": "random\npatches",
        "paper/periphery": "masked\nperiphery",
        "paper/covert_random": "covert,\nrandom",
        "paper/covert_object": "covert,\nobject",
        "paper/fovea_filter": "fovea\nfilter",
        "paper/autoencoder": "plain\nautoencoder",
        "foveasim/best": "foveasim/\nbest",
    },
    "augmentation (periphery)": {
        "paper/periphery_no_crops": "none",
        "paper/periphery": "crops",
        "paper/periphery_jitter": "jitter",
        "paper/periphery_crops_jitter": "crops +\njitter",
    },
    "loss and filling of hidden pixels": {
        "paper/random_patches": "patches,\nuniform",
        "paper/random_patches_blurry": "patches,\nblurry",
        "paper/random_patches_object": "patches,\nobject loss",
        "paper/periphery": "periphery,\nuniform",
        "paper/periphery_blurry": "periphery,\nblurry",
        "paper/periphery_published_fill": "periphery,\npublished",
        "paper/periphery_object": "periphery,\nobject loss",
    },
}
OTHERS = "other conditions"
LABELS = {
    "dots": "one seed",
    "interval": "95 % interval over test images and seeds",
    "mark": "published, on STL-10",
}
MEASURES = {
    "covariance": "off-diagonal covariance ÷ untrained",
    "unit_sparsity": "sparsity of units",
    "population_sparsity": "sparsity of the population",
    "effective_dimension": "effective dimension",
}
PICTURES = 3
MAX_ABREAST = 6  # conditions side by side
CHANCE = "by chance"
GAP_PX = 3  # between the pictures of a sheet


@dataclass(frozen=True)
class Column:
    """Pictures under each other.

    Attributes:
        group: Above it and its neighbours of the same group.
        name: Below that.
        pictures: (R, H, W, 3) uint8.
    """

    group: str
    name: str
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """Columns of pictures side by side.

    Attributes:
        title: Beside it.
        columns: Of equally many pictures of one size, at least one.
    """

    title: str
    columns: Sequence[Column]

    def __post_init__(self) -> None:
        shapes = {column.pictures.shape for column in self.columns}
        if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[-1] != 3 or not all(shape):
            raise InvalidValueError(
                f"sheet {self.title!r} must have columns (R, H, W, 3) of one shape, at least one; "
                f"got {[column.pictures.shape for column in self.columns]}."
            )


def _style(runs: Runs, condition: str) -> Style:
    """The look of a condition; of one that is not the paper's, the next grey."""
    if condition in STYLES:
        return STYLES[condition]
    number = [c for c in runs.conditions if c not in STYLES and c not in UNTRAINED].index(condition)
    return Style(("0.5", "0.7", "0.3")[number % 3], ("-", "--", ":")[number // 3 % 3], "X")


def _panels(runs: Runs) -> dict[str, dict[str, str]]:
    """Title → condition → name below its bar, of what was run. A panel of one bar would compare nothing."""
    placed = {c for panel in PANELS.values() for c in panel}
    others = {c: _wrapped(c) for c in runs.conditions if c not in placed and c not in UNTRAINED}
    panels = {title: {c: name for c, name in panel.items() if c in runs.conditions} for title, panel in PANELS.items()}
    first = next(iter(PANELS))
    chosen = {
        title: panel for title, panel in panels.items() if panel and (title == first or set(panel) - set(panels[first]))
    }
    return {**chosen, OTHERS: others} if others else chosen


def _wrapped(condition: str) -> str:
    *groups, name = condition.replace("_", " ").split("/")
    return "\n".join(line for part in (*(f"{group}/" for group in groups), name) for line in textwrap.wrap(part, 12))


def draw_accuracies(path: Path, runs: Runs) -> bool:
    """Draw the accuracies as the paper does, in three panels, with a row for each network.

    Args:
        path: The file, ``….png``.
        runs: The runs.

    Returns:
        Whether there was anything to draw.

    Raises:
        OSError: The file cannot be written.
    """
    panels = _panels(runs)
    rows = {
        network: {title: [_bar(runs, network, c, name) for c, name in names.items()] for title, names in panels.items()}
        for network in runs.networks
        if runs.trained(network)
    }
    if not rows:
        return False
    lines = {network: _baselines(runs, network) for network in rows}
    several = any(len(runs.of(network, c)) > 1 for network in rows for c in runs.trained(network))
    labels = {**LABELS, "interval": LABELS["interval"] if several else "95 % interval over test images, one seed"}
    if not any(c in PUBLISHED for network in rows for c in runs.trained(network)):
        del labels["mark"]
    panels_figure(path, rows, lines, labels=labels)
    return True


def _bar(runs: Runs, network: str, condition: str, name: str) -> Bar | None:
    found = runs.of(network, condition)
    if not found:
        return None
    mean, dots = runs.accuracy(network, condition), [float(result.right.mean()) for result in found]
    # A percentile interval can miss the mean where there are few images.
    low, high = min(mean.low, mean.value), max(mean.high, mean.value)
    return Bar(name, mean.value, low, high, dots, PUBLISHED.get(condition), _style(runs, condition))


def _baselines(runs: Runs, network: str) -> dict[str, float]:
    baselines = {
        title_of(baseline): runs.accuracy(network, baseline).value
        for baseline in UNTRAINED
        if runs.of(network, baseline)
    }
    return {**baselines, "chance": runs.of(network, runs.trained(network)[0])[0].chance}


def draw_latent(path: Path, runs: Runs) -> bool:
    """Draw the latent over training: one curve for each condition, its mean and standard deviation over seeds.

    Args:
        path: The file, ``….png``.
        runs: The runs.

    Returns:
        Whether there was anything to draw.

    Raises:
        OSError: The file cannot be written.
    """
    panels: dict[str, list[Curve]] = {}
    networks = [n for n in runs.networks if any(r.latent for c in runs.trained(n) for r in runs.of(n, c))]
    for network in networks:
        for measure, name in MEASURES.items():
            title = f"{network}: {name}" if len(networks) > 1 else name
            curves = [_curve(runs, network, c, measure) for c in runs.trained(network)]
            panels[title] = [curve for curve in curves if curve is not None]
            if measure == "covariance":
                everything = [r for c in runs.trained(network) for r in runs.of(network, c)]
                by_chance = _over_training(everything, "covariance_floor", "covariance")
                if by_chance is not None:
                    x, y = by_chance[:2]
                    panels[title].append(Curve(CHANCE, x, y, dashed=True, style=Style("0.45")))
    if not panels:
        return False
    logarithmic = [title for title in panels if title.endswith(MEASURES["covariance"])]
    curves_figure(path, panels, "images seen in training", logarithmic=logarithmic)
    return True


def _curve(runs: Runs, network: str, condition: str, measure: str) -> Curve | None:
    found = _over_training(runs.of(network, condition), measure, measure if measure == "covariance" else None)
    if found is None:
        return None
    x, y, spread, seeds = found
    return Curve(title_of(condition), x, y, spread if seeds > 1 else None, style=_style(runs, condition))


def _over_training(
    results: Sequence[RunResult], measure: str, relative_to: str | None
) -> tuple[list[float], list[float], list[float], int] | None:
    """Images seen, mean and standard deviation over runs of a measure, and the number of runs.

    Args:
        results: The runs.
        measure: What to take.
        relative_to: Divide it by this measure of the run's untrained network; None takes it as it is.
    """
    values: dict[int, list[float]] = {}
    some = [result for result in results if result.latent]
    for result in some:
        untrained = min(result.latent, key=lambda point: point.images_seen)
        unit = 1.0 if relative_to is None else untrained.measures[relative_to]
        for point in result.latent:
            values.setdefault(point.images_seen, []).append(point.measures[measure] / unit if unit else np.nan)
    x = sorted(values)
    mean = [float(np.mean(values[seen])) for seen in x]
    spread = [float(np.std(values[seen], ddof=1)) if len(values[seen]) > 1 else 0.0 for seen in x]
    return ([float(seen) for seen in x], mean, spread, len(some)) if x else None


def draw_reconstructions(path: Path, runs: Runs, folder: Path, shared: SharedOptions, data: str) -> list[str]:
    """Draw what the trained networks predict of a few validation images, each under the eyes that it was trained with.

    What was seen sharply is shown as seen and the rest as predicted; of the plain autoencoder, everything as predicted.
    Where a condition makes several fixations, the first image has one, the second two, and so on.

    Args:
        path: The file, ``….png``.
        runs: The runs.
        folder: Of the comparison, with ``NETWORK/CONDITION/seed-S/NETWORK.safetensors``.
        shared: What the runs share.
        data: The labelled images.

    Returns:
        What is not in the picture, and why.

    Raises:
        WeightsError: A network is there and cannot be read.
        SceneError: The data cannot be read.
        OSError: The file cannot be written.
    """
    left_out: list[str] = []
    found: dict[str, list[tuple[Path, str, PretrainConfig]]] = {}
    for network in runs.networks:
        for condition in runs.trained(network):
            job = Job(network, condition, runs.of(network, condition)[0].seed)
            file = folder / network / condition / f"seed-{job.seed}" / f"{network}.safetensors"
            if not file.is_file():
                left_out.append(f"{job}: {file.relative_to(folder)} is not there")
                continue
            config = pretrain_config(job, shared)
            if any(options.get("attend") == "object" for options in config.retinas.values()):
                left_out.append(f"{job}: its eye needs masks, which validation images do not have")
                continue
            found.setdefault(network, []).append((file, title_of(condition), config))
    if not found:
        return left_out
    part = read_labelled(data, (shared.size, shared.size)).validation
    # of different classes: rows are sorted by class
    images = part.images[np.linspace(0, len(part) - 1, PICTURES + 2).round().astype(int)[1:-1]]
    sheets = []
    for network, members in found.items():
        bands = -(-len(members) // MAX_ABREAST)
        for places in np.array_split(np.arange(len(members)), bands):
            columns = [Column("", "image", images)]
            for place in places:
                file, name, config = members[place]
                seen, predicted = _predict(file, config, images)
                columns += [Column(name, "seen", seen), Column(name, "predicted", predicted)]
            sheets.append(Sheet(network, columns))
    sheets_figure(path, sheets)
    return left_out


def _predict(file: Path, config: PretrainConfig, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], ...]:
    """What was seen and what was predicted, (B, H, W, 3) uint8 each."""
    name, options = next(iter(config.retinas.items()))
    scene, size = as_scene(images), (images.shape[1], images.shape[2])
    everywhere = torch.full(images.shape[:3], 255, dtype=torch.uint8)
    rng, max_fixations = np.random.default_rng(config.seed), config.max_fixations
    points = draw_fixations(rng, len(images), max_fixations, size, config.walk_share, gaze=config.gaze)
    count = np.minimum(np.arange(1, len(images) + 1), max_fixations)
    belief = sense_sequence(
        replace(scene, objects=everywhere), make_retina(name, **options), points, count, config.seed
    )
    seen, acuity = as_float(belief.image).permute(0, 3, 1, 2), as_float(belief.acuity)[:, None]
    with torch.inference_mode():
        predicted = load_network(file)(seen, acuity)[0].float()
    if config.loss != "all":
        predicted = compose(seen, acuity, predicted)
    drawn = (predicted.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return belief.image.numpy(), drawn.numpy()


def sheets_figure(path: str | os.PathLike[str], sheets: Sequence[Sheet], *, tile_in: float = 0.95) -> None:
    """Draw sheets of pictures under each other, each with the names of its columns.

    Args:
        path: The file, ``….png``.
        sheets: From top to bottom.
        tile_in: Side of a picture, inches.

    Raises:
        InvalidValueError: No sheet, or another ending.
        OSError: The file cannot be written.
    """
    if not sheets:
        raise InvalidValueError("sheets must be at least one; got none.")
    heights = [len(sheet.columns[0].pictures) * tile_in + 0.45 for sheet in sheets]
    figure = blank_figure(0.6 + tile_in * max(len(sheet.columns) for sheet in sheets), sum(heights))
    grid = figure.subplots(len(sheets), 1, squeeze=False, height_ratios=heights)
    widest = max(_montage(sheet).shape[1] for sheet in sheets)
    for axes, sheet in zip(grid[:, 0], sheets, strict=True):
        montage = _montage(sheet)
        # in the frame of the widest sheet, so that pictures are of one size in all of them
        axes.imshow(montage, interpolation="antialiased")
        axes.set(xlim=(0, widest), xticks=[], yticks=[], anchor="NW")
        axes.spines[:].set_visible(False)
        axes.set_ylabel(sheet.title, fontsize="small")
        side = sheet.columns[0].pictures.shape[2] + GAP_PX
        groups = [column.group for column in sheet.columns]
        for number, column in enumerate(sheet.columns):
            middle = number * side + (side - GAP_PX) / 2
            axes.annotate(
                column.name, (middle, 0), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=6.5
            )
            if number == 0 or groups[number - 1] != column.group:
                span = next((k for k in range(number, len(groups)) if groups[k] != column.group), len(groups)) - number
                axes.annotate(
                    column.group,
                    (number * side + (span * side - GAP_PX) / 2, 0),
                    (0, 12),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=7.5,
                )
    save_figure(figure, path)


def _montage(sheet: Sheet) -> NDArray[np.uint8]:
    """Return the pictures of a sheet in one, white between them, (H, W, 3) uint8."""
    count, height, width, _ = sheet.columns[0].pictures.shape
    size = (count * (height + GAP_PX) - GAP_PX, len(sheet.columns) * (width + GAP_PX) - GAP_PX, 3)
    montage = np.full(size, 255, np.uint8)
    for number, column in enumerate(sheet.columns):
        left = number * (width + GAP_PX)
        for row, picture in enumerate(column.pictures):
            top = row * (height + GAP_PX)
            montage[top : top + height, left : left + width] = picture
    return montage
