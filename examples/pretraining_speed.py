"""How many images a second the pretraining pipeline makes on one core beside a plain loop, and what share of a step.

python examples/pretraining_speed.py --threads 2

Every row ends in float32: what the eye saw, (B, 3, 96, 96), its acuity and the target. The plain loop makes them one
image at a time, as the published code does. The images are noise: their content costs nothing.
"""

from __future__ import annotations

import argparse
import math
import timeit
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from foveasim.agents.mim import ImagePool, PretrainConfig, Trainer

SIDE = 96
TECHNIQUES: dict[str, tuple[str, dict[str, Any]]] = {
    "fovea filter": ("pyramid", {"preset": "paper"}),
    "random patches": ("patches", {"hidden_ratio": 0.6}),
    "masked periphery": ("disc", {"hidden_ratio": 0.8}),
}


def plain_crop(image: Tensor, rng: np.random.Generator) -> Tensor:
    """One random resized crop."""
    area, ratio = rng.uniform(0.08, 1) * SIDE**2, math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = (min(SIDE, round(math.sqrt(side))) for side in (area * ratio, area / ratio))
    top, left = rng.integers(SIDE - h + 1), rng.integers(SIDE - w + 1)
    part = image[None, :, top : top + h, left : left + w]
    return F.interpolate(part, (SIDE, SIDE), mode="bilinear", align_corners=False)[0]


def plain_blend(distance_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The finer of the two levels that the published filter blends at a distance, and the share of the coarser one."""
    resolution, number = 2.5 / (2.5 + distance_px / 3.5), np.arange(1, 6)
    octave = 2.0 ** (number - 3)
    edge = np.append(0.248 * np.sqrt(np.log(2)) / (octave * np.sqrt(0.5)), 0.0)
    edge = (edge - edge.min()) / (edge.max() - edge.min())
    transfer = [np.exp(-0.5 * (o * resolution / 0.248) ** 2) for o in octave] + [np.zeros_like(resolution)]
    near, share = np.zeros(resolution.shape, np.int64), np.zeros_like(resolution)
    for i in number[1:]:
        inside = (edge[i] <= resolution) & (resolution <= edge[i - 1])
        blend = (0.5 - transfer[i]) / (transfer[i - 1] - transfer[i] + 1e-5)
        near, share = np.where(inside, i - 2, near), np.where(inside, 1 - blend, share)
    return near, share


def plain_fovea(image: Tensor) -> tuple[Tensor, Tensor]:
    """The fovea filter as it was published: pyramid, layers and blend anew for each image."""
    taps = torch.exp(-0.5 * (torch.arange(-2.0, 3) / 0.248) ** 2)
    kernel = (taps[:, None] * taps / taps.sum() ** 2).expand(3, 1, 5, 5)
    level, levels = image[None], [image]
    for depth in range(1, 6):
        blurred = F.conv2d(F.pad(level, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
        level = F.interpolate(blurred, scale_factor=0.5, mode="bilinear", align_corners=False)
        grown = level
        for _ in range(depth):
            grown = F.interpolate(grown, scale_factor=2, mode="bilinear", align_corners=False)
        levels.append(grown[0])
    y, x = np.mgrid[:SIDE, :SIDE]
    near, share = (torch.from_numpy(part) for part in plain_blend(np.hypot(x - 48, y - 48)))
    seen = torch.zeros_like(image)
    for number, shown in enumerate(levels):
        seen += shown * (torch.where(near == number, 1 - share, 0) + torch.where(near + 1 == number, share, 0))
    return seen.clamp(0, 1), (share == 0).float()[None]


def plain_mask(image: Tensor, technique: str, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Hide patches or the periphery of one image under its mean colour."""
    shown = torch.ones(1, SIDE, SIDE)
    if technique == "random patches":
        for patch in rng.permutation(144)[: int(0.6 * 144)].tolist():
            row, column = patch // 12 * 8, patch % 12 * 8
            shown[:, row : row + 8, column : column + 8] = 0
    else:
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        shown = shown * ((x - 48) ** 2 + (y - 48) ** 2 <= int(math.sqrt(SIDE**2 * (1 - 0.8) / math.pi)) ** 2)
    return torch.where(shown == 1, image, image.mean((1, 2), keepdim=True)), shown


def plain_batch(images: np.ndarray, technique: str, crops: bool, count: int) -> tuple[Tensor, ...]:
    """The plain loop."""
    rng, made = np.random.default_rng(0), []
    for index in rng.integers(len(images), size=count):
        target = torch.from_numpy(images[index].transpose(2, 0, 1).copy()).float() / 255
        target = plain_crop(target, rng) if crops else target
        seen = plain_fovea(target) if technique == "fovea filter" else plain_mask(target, technique, rng)
        made.append((*seen, target))
    return tuple(torch.stack(parts) for parts in zip(*made, strict=True))


def trainer_of(technique: str, pool: ImagePool, out: str, **options: Any) -> Trainer:
    """What trains, and draws its batches itself: one fixation at the centre of each image."""
    name, eye = TECHNIQUES[technique]
    config = PretrainConfig(
        out=out, retinas={name: eye}, gaze="centre", max_fixations=1, scale=(0.08, 1.0), steps=10**6, **options
    )
    return Trainer(config, pool)


def pipeline(technique: str, pool: ImagePool, crops: bool, prepared: bool, batch: int) -> float:
    """Images a second of the pipeline of ``foveasim pretrain``."""
    with TemporaryDirectory() as out:
        trainer = trainer_of(technique, pool, out, crops=crops, mirror=False, batch=batch)
        trainer.pictures = trainer.pictures if prepared else None  # what is prepared once, of whole pictures
        return rate(lambda _: trainer.draw(0), batch)


def rate(work: Callable[[int], object], count: int) -> float:
    """Images a second of the quickest of 40 batches."""
    return count / min(timeit.repeat(partial(work, count), number=1, repeat=40))


def training(network: str, technique: str, pool: ImagePool, batch: int, precision: str) -> list[str]:
    """Images a second over ten seconds of training, and what share of them the pipeline takes."""
    with TemporaryDirectory() as out:
        trainer = trainer_of(technique, pool, out, network=network, batch=batch, precision=precision)
        trainer.train_step()  # to warm up
        trainer.images, trainer.elapsed_s, trainer.pipeline_s = 0, 0.0, 0.0
        while trainer.elapsed_s < 10:
            trainer.train_step()
    return [f"{trainer.images / trainer.elapsed_s:,.0f}", f"{trainer.pipeline_s / trainer.elapsed_s:.1%}"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="of training; the pipeline has one")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (512, SIDE, SIDE, 3), dtype=np.uint8)
    pool = ImagePool.of(list(images))

    table = Table("technique", "crops", "plain loop", "foveasim", "ratio", title="pipeline, one core, images/s")
    for technique in TECHNIQUES:
        for crops, how in ((True, "yes"), (False, "no"), (False, "no, prepared once")):
            plain = rate(partial(plain_batch, images, technique, crops), 16)
            ours = pipeline(technique, pool, crops, how.endswith("once"), options.batch)
            table.add_row(technique, how, f"{plain:,.0f}", f"{ours:,.0f}", f"{ours / plain:,.1f}")
    Console().print(table)

    torch.set_num_threads(options.threads)
    title = f"training with crops, {options.threads} thread(s), {options.precision}"
    table = Table("network", "technique", "images/s", "pipeline's share of a step", title=title)
    for network in ("lean", "paper"):
        for technique in TECHNIQUES:
            table.add_row(network, technique, *training(network, technique, pool, options.batch, options.precision))
    Console().print(table)
