"""One run of the paper's comparison: pretraining, readout and latent of one network, condition and seed."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.mim.weights_file import load_network, read_card
from foveasim.agents.pretraining.command import train
from foveasim.agents.pretraining.config import PRESETS, PretrainConfig
from foveasim.agents.pretraining.trainer import CHECKPOINT
from foveasim.agents.readout.command import ReadoutResult, read_out
from foveasim.agents.readout.features import fresh_like
from foveasim.agents.readout.labelled import LabelledData, read_labelled
from foveasim.agents.readout.latent_measures import LatentMeasures, latents, measure_batches
from foveasim.errors import WeightsError
from foveasim.images.object_masks import Unmasked, with_masks
from foveasim.images.pool import ImagePool
from foveasim.images.reading import read_pool
from foveasim.images.splits import ImageSource
from foveasim.runs.whole_files import write_atomically

__all__ = [
    "QUICK",
    "UNTRAINED",
    "Job",
    "LatentSnapshot",
    "RunResult",
    "SharedOptions",
    "follow_parent",
    "pretraining_part",
    "run_job",
]

UNTRAINED = ("random", "pixels")
"""Baselines that need no training: the latent of a network with fresh weights, and the pixels themselves."""

QUICK: dict[str, Any] = {
    "batch": 16,
    "optimizer": "adamw",
    "lr": 1e-3,
    "schedule": "cosine",
    "weight_decay": 0.02,
    "ema_decay": 0.999,
}
"""The recipe for small budgets: many small steps. After four epochs of Imagenette, masked periphery, batches of 16 left
a masked error of 0.0566 and a readout of 51.1 % (validation), of 64 with twice the learning rate 0.0571 and 49.7 %."""

BATCH = 512  # images in which units are correlated, as in the paper


@dataclass(frozen=True)
class SharedOptions:
    """The options that all runs of a comparison share.

    The fields are those of :class:`foveasim.experiments.paper.command.PaperConfig`.
    """

    data: str
    unlabelled: list[str]
    test: str | None
    out: str
    epochs: float
    recipe: str
    options: dict[str, Any]
    masks: str | None
    probes: list[str]
    snapshots: int
    latent_images: int
    size: int
    precision: str
    threads: int | None
    device: str

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a result to be of the same comparison."""
        names = ("epochs", "recipe", "options", "probes", "snapshots", "latent_images", "size", "precision")
        identity = {"data": Path(self.data).name, **{name: getattr(self, name) for name in names}}
        known: dict[str, Any] = json.loads(json.dumps(identity))  # a tuple is a list in the file
        return known


class Job(NamedTuple):
    """One run.

    Attributes:
        network: Name of the network.
        condition: Name of a preset, or one of ``UNTRAINED``.
        seed: Its seed.
    """

    network: str
    condition: str
    seed: int

    def __str__(self) -> str:
        """For a line of progress."""
        return f"{self.network} {self.condition} seed {self.seed}"

    def folder(self, shared: SharedOptions) -> Path:
        """Where its files are."""
        return Path(shared.out) / self.network / self.condition / f"seed-{self.seed}"

    def done(self, shared: SharedOptions) -> bool:
        """Whether its result is there, and of this comparison.

        Raises:
            WeightsError: It is of another one.
        """
        path = self.folder(shared) / "result.json"
        if not path.is_file():
            return False
        identity = json.loads(path.read_text(encoding="utf-8"))["plan"]
        if identity != shared.identity():
            other = {k: v for k, v in shared.identity().items() if identity.get(k) != v}
            raise WeightsError(
                f"{path} is of another comparison, which differs in {', '.join(other)}. Choose another folder by out, "
                "or give the options of the first."
            )
        return True

    def result(self, shared: SharedOptions) -> RunResult:
        """Read its result."""
        record = json.loads((self.folder(shared) / "result.json").read_text(encoding="utf-8"))
        record["latent"] = [LatentSnapshot(**point) for point in record["latent"]]
        record["right"] = np.unpackbits(np.frombuffer(bytes.fromhex(record["right"]), np.uint8), count=record["tested"])
        return RunResult(**{f.name: record[f.name] for f in fields(RunResult)})

    def progress(self, shared: SharedOptions) -> float:
        """Share of its training that is done, by its log."""
        try:
            last = (self.folder(shared) / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
            return float(json.loads(last).get("progress", 0.0))
        except (OSError, IndexError, ValueError):
            return 0.0


@dataclass(frozen=True)
class LatentSnapshot:
    """Measures of the latent at one snapshot of the training.

    Attributes:
        images_seen: How many images it had been trained on.
        measures: Mean over batches, by the names of :class:`foveasim.agents.readout.latent_measures.LatentMeasures`.
    """

    images_seen: int
    measures: dict[str, float]


@dataclass(frozen=True)
class RunResult:
    """What one run found.

    Attributes:
        network: Name of the network.
        condition: Name of the preset, or one of ``UNTRAINED``.
        seed: Its seed.
        images_seen: Images of its training.
        parameters: Of the network; 0 for pixels.
        accuracy: Share of the test images that the readout named rightly.
        low: Lower end of its 95 % interval.
        high: Upper end.
        validation: Accuracy on the validation images.
        chance: Test accuracy of the best constant answer.
        tested: Number of test images.
        right: (tested,) uint8, 1 for each test image that was named rightly.
        masked_error: Loss on the validation images under the run's own eyes; None for a baseline.
        images_s: Images a second of its training, pipeline included.
        minutes: Of its training.
        latent: Over training, from the untrained network on; empty for pixels.
        probe: How classes were read out.
        others: Test accuracies of other probes, by their names.
    """

    network: str
    condition: str
    seed: int
    images_seen: int
    parameters: int
    accuracy: float
    low: float
    high: float
    validation: float
    chance: float
    tested: int
    right: NDArray[np.uint8]
    masked_error: float | None
    images_s: float | None
    minutes: float | None
    latent: list[LatentSnapshot]
    probe: str = "adam"
    others: dict[str, float] = field(default_factory=dict)


@functools.lru_cache(maxsize=1)
def _labelled(data: str, test: str | None, size: int) -> LabelledData:
    return read_labelled(data, (size, size), test=test)


@functools.lru_cache(maxsize=1)
def _unlabelled(data: tuple[str, ...], cache: str, masks: str | None, unmasked: Unmasked) -> ImagePool:
    pool = read_pool(list(data), cache=cache)
    return pool if masks is None else with_masks(pool, masks, unmasked)


def pretraining_part(data: str) -> str:
    """Return the part of labelled data that is pretrained on without its labels; STL-10 has one for nothing else."""
    path = Path(data).expanduser()
    return f"{data}@unlabeled" if path.exists() and ImageSource.of(str(path)).stl10 else f"{data}@train"


def pretrain_config(job: Job, shared: SharedOptions) -> PretrainConfig:
    """Return how a run trains.

    Raises:
        InvalidValueError: An option out of range, or a condition that needs masks without any.
    """
    values = PRESETS.values(job.condition)
    if shared.recipe == "quick":
        values.update(QUICK)
    folder = job.folder(shared)
    return PretrainConfig(
        **{
            **values,
            **shared.options,
            "data": shared.unlabelled or [pretraining_part(shared.data)],
            "network": job.network,
            "out": str(folder),
            "masks": shared.masks,
            "epochs": shared.epochs,
            "seed": job.seed,
            "size": shared.size,
            "snapshots": shared.snapshots,
            "precision": shared.precision,
            "device": shared.device,
            "resume": (folder / CHECKPOINT).is_file(),
        }
    )


def follow_parent() -> None:
    """End this worker when the process that started it ends, however that came about: nobody would want its result.

    A Ctrl-C reaches all processes of a terminal; it is for the one that started this to end its workers in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)  # what it trains has a checkpoint

    threading.Thread(target=watch, daemon=True).start()


def run_job(job: Job, shared: SharedOptions) -> str:
    """Do one run and write its result.

    Returns:
        A line that says what it found.

    Raises:
        FoveasimError: It could not be done.
    """
    begun = time.perf_counter()
    if shared.threads is not None:
        torch.set_num_threads(shared.threads)
    cv2.setNumThreads(1)
    data = _labelled(shared.data, shared.test, shared.size)
    measured: dict[str, Any] = {"images_seen": 0, "masked_error": None, "images_s": None, "minutes": None}
    network: MimNetwork | None = None
    points: list[LatentSnapshot] = []
    if job.condition == "random":
        options = shared.options.get("network_options", {})
        network = fresh_like(make_network(job.network, **options), job.seed).to(shared.device)
    elif job.condition != "pixels":
        network, measured, points = _trained(job, shared, data)
    found, *others = read_out(network, data, shared.probes, device=shared.device, seed=job.seed)
    measured["others"] = {other.probe: other.accuracy for other in others}
    _write(job, shared, found, network, {**measured, "latent": points}, data)
    minutes = (time.perf_counter() - begun) / 60
    return f"{job}: {100 * found.accuracy:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}], {minutes:.1f} minutes"


def _trained(
    job: Job, shared: SharedOptions, data: LabelledData
) -> tuple[MimNetwork, dict[str, Any], list[LatentSnapshot]]:
    config = pretrain_config(job, shared)
    masks = shared.masks if config.loss == "object" or config.attends_objects else None
    trainer = train(config, _unlabelled(tuple(config.data), f"{shared.out}/cache", masks, config.unmasked), quiet=True)
    measured = {
        "images_seen": trainer.images,
        "masked_error": trainer.validation_loss(data.validation.images),
        "images_s": trainer.images / max(trainer.elapsed_s, 1e-9),
        "minutes": trainer.elapsed_s / 60,
    }
    fresh = fresh_like(trainer.network, job.seed)
    images = _some(data, shared.latent_images)
    snapshots = sorted(job.folder(shared).glob("step-*.safetensors"))
    points = [
        _snapshot(fresh, 0, images),
        *(_snapshot(load_network(path, shared.device), read_card(path)["images_seen"], images) for path in snapshots),
    ]
    return load_network(job.folder(shared) / f"{job.network}.safetensors", shared.device), measured, points


def _some(data: LabelledData, count: int) -> NDArray[np.uint8]:
    """Validation images, of all classes in every batch, the same for all runs."""
    order = np.random.default_rng(0).permutation(len(data.validation))[:count]
    return data.validation.images[order]


def _snapshot(network: MimNetwork, images_seen: int, images: NDArray[np.uint8]) -> LatentSnapshot:
    mean: LatentMeasures = measure_batches(latents(network, images), BATCH)[0]
    return LatentSnapshot(images_seen, asdict(mean))


def _write(
    job: Job,
    shared: SharedOptions,
    found: ReadoutResult,
    network: MimNetwork | None,
    measured: dict[str, Any],
    data: LabelledData,
) -> None:
    right = (found.called == data.test.labels).astype(np.uint8)
    record = {
        "plan": shared.identity(),
        **job._asdict(),
        "parameters": 0 if network is None else sum(p.numel() for p in network.parameters()),
        "accuracy": found.accuracy,
        "low": found.low,
        "high": found.high,
        "validation": found.validation,
        "probe": found.probe,
        "chance": float(np.bincount(data.test.labels).max() / len(data.test)),
        "tested": len(data.test),
        "right": np.packbits(right).tobytes().hex(),
        **{**measured, "latent": [asdict(point) for point in measured["latent"]]},
    }
    folder = job.folder(shared)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "result.json", (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Free some space.") from error
