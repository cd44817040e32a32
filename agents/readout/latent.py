"""What the latent of a network is like, over training: redundancy, sparsity, effective dimension.

``foveasim latent 'runs/periphery/*.safetensors' --data ../shared/data/imagenette.tar@val --out runs/latent``
"""

from __future__ import annotations

import csv
import glob
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.network import NETWORKS, MimNetwork, make_network
from foveasim.agents.mim.weights_file import load_network, read_card, read_tensors, shipped_networks
from foveasim.agents.readout.latent_measures import LatentMeasures, latents, measure_batches
from foveasim.drawing.figures import Curve, curves_figure
from foveasim.errors import WeightsError
from foveasim.images.pool import centred
from foveasim.images.reading import read_pool
from foveasim.runs.outputs import check_folder, find_inputs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LatentConfig", "LatentRow", "NetworkSnapshot", "expand", "load_snapshot", "run"]

PANELS = {
    "covariance": "off-diagonal covariance",
    "unit_sparsity": "sparsity of units over images",
    "population_sparsity": "sparsity of the population",
    "effective_dimension": "effective dimension",
}


@dataclass(frozen=True)
class NetworkSnapshot:
    """A network at one moment of its training: one point of a curve.

    Attributes:
        series: What curve it belongs to: the folder of its file.
        weights: Its file or name.
        images_seen: How many images it was trained on, None where its file does not say.
        network: The network.
    """

    series: str
    weights: str
    images_seen: int | None
    network: MimNetwork


def load_snapshot(path_or_name: str, device: str = "cpu") -> NetworkSnapshot:
    """Load a network's file, a shipped network or the checkpoint of a training run (its averaged weights).

    Raises:
        WeightsError: It cannot be used.
    """
    path = Path(path_or_name)
    if path_or_name in shipped_networks():
        seen = read_card(path_or_name).get("images_seen")
        return NetworkSnapshot("shipped", path_or_name, seen, load_network(path_or_name, device))
    series = path.parent.name or "."
    if path.is_file():
        tensors, metadata = read_tensors(path)
        if "counters" in metadata and "format" not in metadata:
            seen, network = _from_checkpoint(path, tensors, metadata)
            return NetworkSnapshot(series, path_or_name, seen, network.to(device))
    network = load_network(path_or_name, device)
    return NetworkSnapshot(series, path_or_name, read_card(path_or_name).get("images_seen"), network)


def _from_checkpoint(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[int, MimNetwork]:
    try:
        config, seen = json.loads(metadata["config"]), int(json.loads(metadata["counters"])["images"])
        name = config["network"]
        if ":" in name or name not in NETWORKS:
            raise WeightsError(f"{path} is of the network {name!r}; known here: {', '.join(NETWORKS)}.")
        with torch.random.fork_rng(devices=[]):
            network = make_network(name, **config["network_options"])
        network.load_state_dict({k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} is not a checkpoint that can be read here ({error}).") from error
    return seen, network.eval().requires_grad_(False)


@dataclass
class LatentConfig:
    """What to measure.

    Attributes:
        weights: Networks' files, checkpoints or shipped names; a pattern such as ``runs/mim/step-*.safetensors``
            stands for the files that it fits. Several files of one folder make a curve over the images they have seen.
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``.
        out: Folder for ``latent.csv``, ``latent.json`` and ``latent.png``.
        overwrite: Write into a folder that is not empty, and replace files of that name there.
        untrained: Also measure each kind of network with fresh weights, the start of every curve.
        rectify: Set negative responses to zero first, for networks whose latent is not one of rates (``unet``).
        images: At most this many, spread evenly over the data.
        batch: Images in which units are correlated; the paper's is 512.
        size: Side of the square that images are cropped and scaled to, px.
        seed: Of the fresh weights.
        threads: CPU threads, or None for torch's own choice.
        device: Where to compute.
    """

    weights: str | list[str] = "unet"
    data: str | list[str] = ""
    out: str = "runs/latent"
    overwrite: bool = False
    untrained: bool = True
    rectify: bool = False
    images: int = 2048
    batch: int = 512
    size: int = 96
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        validation.whole("images", self.images, 2, 2**31)
        validation.whole("batch", self.batch, 2, 2**31)
        validation.whole("size", self.size, 32, 16384)
        validation.seed_value("seed", self.seed)


def expand(weights: str | Sequence[str]) -> list[str]:
    """Return the files and names that ``weights`` stands for, patterns resolved and sorted.

    Raises:
        WeightsError: None, or a pattern that fits no file.
    """
    found: list[str] = []
    for one in [weights] if isinstance(weights, str) else weights:
        if any(c in one for c in "*?[") and not Path(one).exists():
            files = sorted(glob.glob(one))  # noqa: PTH207  # the pattern may be absolute
            if not files:
                raise WeightsError(f"no file fits {one!r}. Check the folder.")
            found += files
        else:
            found.append(one)
    if not found:
        raise WeightsError("weights must name at least one network; got none.")
    return found


@dataclass(frozen=True)
class LatentRow:
    """What one network's latent is like.

    Attributes:
        series: What curve it belongs to.
        weights: Its file or name.
        network: Name of its kind.
        images_seen: How many images it was trained on, or None.
        units: D.
        mean: Over batches.
        std: Over batches.
    """

    series: str
    weights: str
    network: str
    images_seen: int | None
    units: int
    mean: LatentMeasures
    std: LatentMeasures

    def record(self) -> dict[str, float | int | str | None]:
        """Return one row of ``latent.csv``; NaN, where all units are silent, is None."""
        figures = {**asdict(self.mean), **{f"{name}_std": value for name, value in asdict(self.std).items()}}
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("mean", "std")},
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
        }


def run(config: LatentConfig) -> list[LatentRow]:
    """Measure the latents of networks, print a table and write ``latent.csv``, ``latent.json`` and ``latent.png``.

    Args:
        config: What to measure.

    Returns:
        One row for each network, the untrained ones first.

    Raises:
        WeightsError: A network cannot be used, or the folder cannot be written to.
        SceneError: The data cannot be read.
        InvalidValueError: An option out of range.
    """
    from rich.console import Console
    from rich.progress import track

    if config.threads is not None:
        torch.set_num_threads(validation.whole("threads", config.threads, 1, 4096))
    console = Console()
    weights = expand(config.weights)
    check_folder(config.out, find_inputs(weights, sources=config.data), overwrite=config.overwrite)
    snapshots = [load_snapshot(name, config.device) for name in weights]
    pool = read_pool([config.data] if isinstance(config.data, str) and config.data else list(config.data))
    images = centred(pool, (config.size, config.size))
    images = images[np.unique(np.linspace(0, len(images) - 1, min(config.images, len(images))).round().astype(int))]
    # Neighbours in a folder are of one class; a batch is to hold them all.
    images = images[np.random.default_rng(config.seed).permutation(len(images))]
    if config.untrained:
        snapshots = [*_fresh(snapshots, config), *snapshots]
    rows: list[LatentRow] = []
    for snapshot in track(snapshots, "latents", console=console, disable=not console.is_terminal):
        found = latents(snapshot.network, images)
        measured = measure_batches(found, config.batch, rectify=config.rectify)
        rows.append(
            LatentRow(
                snapshot.series,
                snapshot.weights,
                snapshot.network.name,
                snapshot.images_seen,
                found.shape[1],
                *measured,
            )
        )
    _write(rows, config, len(images))
    _show(rows, config, min(config.batch, len(images)), console)
    return rows


def _fresh(snapshots: Sequence[NetworkSnapshot], config: LatentConfig) -> list[NetworkSnapshot]:
    """An untrained network for every curve."""
    first: dict[tuple[str, str], NetworkSnapshot] = {}
    for snapshot in snapshots:
        first.setdefault(
            (snapshot.series, json.dumps([snapshot.network.name, snapshot.network.config_dict()])), snapshot
        )
    fresh = []
    for snapshot in first.values():
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(config.seed)
            network = make_network(snapshot.network.name, **snapshot.network.config_dict())
        fresh.append(
            NetworkSnapshot(snapshot.series, "untrained", 0, network.to(config.device).eval().requires_grad_(False))
        )
    return fresh


def _write(rows: list[LatentRow], config: LatentConfig, count: int) -> None:
    records = [row.record() for row in rows]
    whole = {"config": asdict(config), "images": count, "batch": min(config.batch, count), "rows": records}
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "latent.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
        (folder / "latent.json").write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        _draw(rows, folder / "latent.png")
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error


def _draw(rows: list[LatentRow], path: Path) -> None:
    known = all(row.images_seen is not None for row in rows)
    series: dict[str, list[LatentRow]] = {}
    for row in rows:
        series.setdefault(row.series, []).append(row)
    panels: dict[str, list[Curve]] = {title: [] for title in PANELS.values()}
    for name, members in series.items():
        ordered = sorted(members, key=lambda row: row.images_seen or 0) if known else members
        x = [float(row.images_seen or 0) if known else float(place) for place, row in enumerate(ordered)]
        for key, title in PANELS.items():
            y, spread = ([float(getattr(m, key)) for m in found] for found in _columns(ordered))
            panels[title].append(Curve(name, x, y, spread))
        floor = [row.mean.covariance_floor for row in ordered]
        panels[PANELS["covariance"]].append(Curve(f"{name}, by chance", x, floor, dashed=True))
    curves_figure(path, panels, "images seen in training" if known else "order of the files")


def _columns(rows: Sequence[LatentRow]) -> tuple[list[LatentMeasures], list[LatentMeasures]]:
    return [row.mean for row in rows], [row.std for row in rows]


def _show(rows: list[LatentRow], config: LatentConfig, batch: int, console: Console) -> None:
    from rich.table import Table

    table = Table(
        title=f"latents in batches of {batch} images (cov. = covariance, sp. = sparsity)", title_justify="left"
    )
    table.add_column("network", overflow="fold")
    for title in ("images", "cov. (chance)", "unit sp.", "pop. sp.", "dim."):
        table.add_column(title, justify="right")
    for row in rows:
        mean = row.mean
        table.add_row(
            f"{row.series}/{Path(row.weights).name.removesuffix('.safetensors')}",
            "?" if row.images_seen is None else f"{row.images_seen:,}",
            f"{mean.covariance:.1f} ({mean.covariance_floor:.1f})",
            f"{mean.unit_sparsity:.3f}",
            f"{mean.population_sparsity:.3f}",
            f"{mean.effective_dimension:.1f}",
        )
    console.print(table)
    constant = max(row.mean.constant_share for row in rows)
    if constant > 0.01:
        console.print(
            f"Up to {100 * constant:.0f} % of the units are constant over a batch: they lower the covariance without "
            "being decorrelated.",
            highlight=False,
        )
    if not config.rectify and any(row.mean.negative_share > 0 for row in rows):
        console.print(
            "Some responses are negative, so that their sparsity is not one of rates: see --rectify.", highlight=False
        )
    console.print(f"wrote latent.csv, latent.json and latent.png to {config.out}", highlight=False, soft_wrap=True)
