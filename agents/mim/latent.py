"""What the latent of a network is like, over training: redundancy, sparsity, effective dimension.

``foveasim latent 'runs/periphery/*.safetensors' --data ../shared/data/imagenette.tar@val --out runs/latent``

The covariance of D = 18,432 units would be a matrix of 1.4 GB. Every number here comes from the B x B Gram matrix of a
batch instead: for a batch Z of B standardised latents, the sum of the squared entries of Z'Z equals that of ZZ'.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, latent analysis: off-diagonal covariance and sparsity.
    Rolls, Tovee (1995) and Vinje, Gallant (2000), sparsity 1 - mean(r)² / mean(r²). Litwin-Kumar et al. (2017), Optimal
    degrees of synaptic connectivity, effective dimension as participation ratio of the covariance's eigenvalues.
"""

from __future__ import annotations

import csv
import glob
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check
from foveasim.agents.mim.data import centred, read_pool
from foveasim.agents.mim.files import load_network, read_card, read_tensors, shipped_networks
from foveasim.agents.mim.network import NETWORKS, MimNetwork, make_network, to_float
from foveasim.errors import InvalidValueError, WeightsError

__all__ = ["LatentConfig", "LatentMeasures", "LatentPoint", "latents", "load_point", "measure", "measure_batches", "run"]

CHECKPOINT = "network of a training run"


def latents(
    network: MimNetwork,
    images: NDArray[np.uint8],
    *,
    batch: int = 128,
    out: Tensor | None = None,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the flattened latent of full, unmasked images (acuity 1 everywhere).

    Args:
        network: The network, on any device.
        images: (N, H, W, 3) uint8.
        batch: Images at a time.
        out: (N, D) to write to, such as a memory-mapped file; None makes float32 where the network is.
        advance: Called with the number of images done since the last call.

    Returns:
        (N, D).

    Raises:
        InvalidValueError: No images, or a latent that is not finite (in the dtype of ``out``).
    """
    if len(images) == 0:
        raise InvalidValueError("images must be (N, H, W, 3) with N of at least 1; got none.")
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        for start in range(0, len(images), batch):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch])).to(device)
            with torch.inference_mode():
                latent = network(*to_float(part, torch.full(part.shape[:3], 255, dtype=torch.uint8, device=device)))[1]
            flat = latent.flatten(1)
            if out is None:
                out = torch.empty(len(images), flat.shape[1], device=device)
            out[start : start + len(flat)] = flat.to(out)
            if not bool(torch.isfinite(out[start : start + len(flat)]).all()):
                raise InvalidValueError(
                    f"the latent of {network.name!r} is not finite in {out.dtype}. Did its training diverge?"
                )
            if advance is not None:
                advance(len(flat))
    finally:
        network.train(was_training)
    assert out is not None  # noqa: S101  # at least one batch was made
    return out


@dataclass(frozen=True)
class LatentMeasures:
    """What a batch of latents is like.

    Attributes:
        covariance: Sum of the squared off-diagonal covariances of the standardised units, divided by the number of
            units. Units that are constant over the batch have none with any other.
        covariance_floor: What ``covariance`` would be on average for as many independent units in a batch of this size,
            from chance alone: L (L - 1) / (B - 1) / D with L units that are not constant.
        unit_sparsity: Of a unit over images, 1 - mean(r)² / mean(r²), mean over units that are not silent; 0 for a
            constant, 1 - 1/B for one that answers to one image of B.
        population_sparsity: Of an image over units, mean over images in which not all units are silent.
        effective_dimension: Participation ratio of the eigenvalues of the covariance of the latents as they are,
            (sum λ)² / sum λ²; at most B - 1.
        constant_share: Share of the units that are constant over the batch.
        negative_share: Share of the responses under zero. Sparsity is a measure of rates: with negative responses
            it rises as the mean nears zero, however many units answer.
    """

    covariance: float
    covariance_floor: float
    unit_sparsity: float
    population_sparsity: float
    effective_dimension: float
    constant_share: float
    negative_share: float


def measure(latent: Tensor, *, rectify: bool = False) -> LatentMeasures:
    """Measure one batch of latents.

    Args:
        latent: (B, D) float, B at least 2.
        rectify: Set negative responses to zero first.

    Raises:
        InvalidValueError: Wrong shape, or not finite.

    Example:
        >>> same = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # two units that are one
        >>> found = measure(same)
        >>> found.covariance, found.effective_dimension  # 2 x 1² / 2, one direction
        (1.0, 1.0)
    """
    if latent.ndim != 2 or latent.shape[0] < 2 or latent.shape[1] < 1:
        raise InvalidValueError(
            f"latent must be (B, D) with B of at least 2; got {tuple(latent.shape)}. Flatten it: latent.flatten(1)."
        )
    if not bool(torch.isfinite(latent).all()):
        raise InvalidValueError("latent must be finite; it has NaN or infinite numbers.")
    rates = latent.double()
    negative = float((rates < 0).double().mean())
    if rectify:
        rates = rates.clamp(min=0)
    count, units = rates.shape
    centred_ = rates - rates.mean(0)
    # A constant is left with rounding errors of its mean, which standardising would blow up to variance one.
    spread = centred_.square().mean(0).sqrt()
    live = spread > 1e-12 * rates.abs().amax(0).clamp(min=1e-300)
    alive = int(live.sum())
    standard = torch.where(live, centred_ / torch.where(live, spread, 1.0), 0.0)
    gram = standard @ standard.T / count
    off_diagonal = max(float(gram.square().sum()) - alive, 0.0)  # each live unit has variance one
    gram = centred_ @ centred_.T
    power = float(gram.square().sum())
    return LatentMeasures(
        covariance=off_diagonal / units,
        covariance_floor=alive * (alive - 1) / (count - 1) / units,
        unit_sparsity=_sparsity(rates, 0),
        population_sparsity=_sparsity(rates, 1),
        effective_dimension=float(gram.diagonal().sum()) ** 2 / power if alive else 0.0,
        constant_share=1 - alive / units,
        negative_share=negative,
    )


def _sparsity(rates: Tensor, axis: int) -> float:
    """1 - mean(r)² / mean(r²) along an axis, mean over the other one where there is any response; NaN where none is."""
    power = rates.square().mean(axis)
    some = power > 0
    if not bool(some.any()):
        return math.nan
    value = 1 - rates.mean(axis)[some].square() / power[some]
    return float(value.mean().clamp(0, 1))


def measure_batches(latent: Tensor, batch: int = 512, *, rectify: bool = False) -> tuple[LatentMeasures, LatentMeasures]:
    """Measure batch by batch, as published: the covariance depends on the size of a batch.

    Args:
        latent: (N, D).
        batch: B, at least 2; what is left over after whole batches is not measured. With fewer than ``batch`` rows, all
            of them are one batch.
        rectify: Set negative responses to zero first.

    Returns:
        Mean and standard deviation over the batches (0 for one batch).

    Raises:
        InvalidValueError: Fewer than two rows, or not finite.
    """
    size = min(check.whole("batch", batch, 2, 2**31), len(latent))
    starts = range(0, len(latent) - size + 1, max(size, 1))
    found = [asdict(measure(latent[start : start + size], rectify=rectify)) for start in starts]
    table = {name: np.array([row[name] for row in found]) for name in found[0]}
    mean = LatentMeasures(**{name: float(column.mean()) for name, column in table.items()})
    std = LatentMeasures(**{name: float(column.std()) for name, column in table.items()})
    return mean, std


@dataclass(frozen=True)
class LatentPoint:
    """One network of a curve.

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


def load_point(path_or_name: str, device: str = "cpu") -> LatentPoint:
    """Load a network's file, a shipped network or the checkpoint of a training run (its averaged weights).

    Raises:
        WeightsError: It cannot be used.
    """
    path = Path(path_or_name)
    if path_or_name in shipped_networks():
        seen = read_card(path_or_name).get("images_seen")
        return LatentPoint("shipped", path_or_name, seen, load_network(path_or_name, device))
    series = path.parent.name or "."
    if path.is_file():
        tensors, metadata = read_tensors(path)
        if "counters" in metadata and "format" not in metadata:
            seen, network = _from_checkpoint(path, tensors, metadata)
            return LatentPoint(series, path_or_name, seen, network.to(device))
    network = load_network(path_or_name, device)
    return LatentPoint(series, path_or_name, read_card(path_or_name).get("images_seen"), network)


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
        weights: Networks' files, checkpoints or shipped names; a pattern such as ``'runs/mim/step-*.safetensors'``
            stands for the files that it fits. Several files of one folder make a curve over the images they have seen.
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``.
        out: Folder for ``latent.csv``, ``latent.json`` and ``latent.png``.
        untrained: Also measure each kind of network with fresh weights, the start of every curve.
        rectify: Set negative responses to zero first, for networks whose latent is not one of rates (``lean``).
        images: At most this many, spread evenly over the data.
        batch: Images in which units are correlated; the paper's is 512.
        size: Side of the square that images are cropped and scaled to, px.
        seed: Of the fresh weights.
        threads: CPU threads, or None for torch's own choice.
        device: Where to compute.
    """

    weights: str | list[str] = "lean"
    data: str | list[str] = ""
    out: str = "runs/latent"
    untrained: bool = True
    rectify: bool = False
    images: int = 2048
    batch: int = 512
    size: int = 96
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        check.whole("images", self.images, 2, 2**31)
        check.whole("batch", self.batch, 2, 2**31)
        check.whole("size", self.size, 32, 16384)
        check.seed_value("seed", self.seed)


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
                raise WeightsError(f"no file fits {one!r}. Put the pattern in quotes, and check the folder.")
            found += files
        else:
            found.append(one)
    if not found:
        raise WeightsError("weights must name at least one network; got none.")
    return found


def run(config: LatentConfig) -> list[dict[str, float | int | str | None]]:
    """Measure the latents of networks, print a table and write the figures.

    Args:
        config: What to measure.

    Returns:
        The rows of ``latent.csv``: series, weights, network, images_seen, the fields of :class:`LatentMeasures`, and
        their standard deviations over batches with ``_std`` behind the name.

    Raises:
        WeightsError: A network cannot be used, or the folder cannot be written to.
        SceneError: The data cannot be read.
        InvalidValueError: An option out of range.
    """
    from rich.console import Console
    from rich.progress import track

    if config.threads is not None:
        torch.set_num_threads(check.whole("threads", config.threads, 1, 4096))
    console = Console()
    names = expand(config.weights)
    points = [load_point(name, config.device) for name in names]
    pool = read_pool([config.data] if isinstance(config.data, str) and config.data else list(config.data))
    images = centred(pool, (config.size, config.size))
    images = images[np.unique(np.linspace(0, len(images) - 1, min(config.images, len(images))).round().astype(int))]
    # Neighbours in a folder are of one class; a batch is to hold them all.
    images = images[np.random.default_rng(config.seed).permutation(len(images))]
    if config.untrained:
        points = [*_fresh(points, config), *points]
    rows: list[dict[str, float | int | str | None]] = []
    for point in track(points, "latents", console=console, disable=not console.is_terminal):
        found = latents(point.network, images, batch=128)
        mean, std = measure_batches(found, config.batch, rectify=config.rectify)
        rows.append(
            {
                **{"series": point.series, "weights": point.weights, "network": point.network.name},
                **{"images_seen": point.images_seen, "units": found.shape[1]},
                **asdict(mean),
                **{f"{name}_std": value for name, value in asdict(std).items()},
            }
        )
    _write(rows, config, len(images))
    _show(rows, config, console)
    return rows


def _fresh(points: Sequence[LatentPoint], config: LatentConfig) -> list[LatentPoint]:
    """An untrained network for every series."""
    first: dict[tuple[str, str], LatentPoint] = {}
    for point in points:
        if point.images_seen != 0:
            first.setdefault((point.series, json.dumps([point.network.name, point.network.config_dict()])), point)
    fresh = []
    for point in first.values():
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(config.seed)
            network = make_network(point.network.name, **point.network.config_dict())
        fresh.append(LatentPoint(point.series, "untrained", 0, network.to(config.device).eval().requires_grad_(False)))
    return fresh


def _write(rows: list[dict[str, float | int | str | None]], config: LatentConfig, count: int) -> None:
    from foveasim.agents.mim.figures import Curve, curves_figure

    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "latent.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        whole = {"config": asdict(config), "images": count, "batch": min(config.batch, count), "rows": _plain(rows)}
        (folder / "latent.json").write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    panels = {
        "covariance": "off-diagonal covariance",
        "unit_sparsity": "sparsity of units over images",
        "population_sparsity": "sparsity of the population",
        "effective_dimension": "effective dimension",
    }
    series: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        series.setdefault(str(row["series"]), []).append(number)
    known = all(row["images_seen"] is not None for row in rows)
    curves: dict[str, list[Curve]] = {title: [] for title in panels.values()}
    for name, members in series.items():
        if known:
            members = sorted(members, key=lambda n: float(rows[n]["images_seen"] or 0))
        x = [float(rows[n]["images_seen"] or 0) if known else float(place) for place, n in enumerate(members)]
        for key, title in panels.items():
            y, spread = ([float(rows[n][k] or 0) for n in members] for k in (key, f"{key}_std"))
            curves[title].append(Curve(name, x, y, spread))
        floor = [float(rows[n]["covariance_floor"] or 0) for n in members]
        curves[panels["covariance"]].append(Curve(f"{name}: chance", x, floor, None))
    curves_figure(folder / "latent.png", curves, "images seen in training" if known else "order of the files")


def _plain(rows: list[dict[str, float | int | str | None]]) -> list[dict[str, float | int | str | None]]:
    """JSON has no NaN."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]


def _show(rows: list[dict[str, float | int | str | None]], config: LatentConfig, console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)  # noqa: S101
    table = Table(title=f"latents, batches of {config.batch}", title_justify="left")
    titles = ("covariance", "by chance", "unit sparsity", "population sp.", "effective dim.", "constant", "negative")
    for title in ("series", "weights", "images seen", *titles):
        table.add_column(title, justify="left" if title in ("series", "weights") else "right")
    for row in rows:
        seen = row["images_seen"]
        figures = [f"{float(row[f.name] or 0):.3f}" for f in fields(LatentMeasures)]
        name = Path(str(row["weights"])).name
        table.add_row(str(row["series"]), name, "?" if seen is None else f"{seen:,}", *figures)
    console.print(table)
    if not config.rectify and any(float(row["negative_share"] or 0) > 0 for row in rows):
        console.print(
            "These latents have negative responses, so that their sparsity is not one of rates: see --rectify true.",
            highlight=False,
        )
    console.print(f"wrote latent.csv, latent.json and latent.png to {config.out}", highlight=False, soft_wrap=True)
