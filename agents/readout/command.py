"""How well a linear readout names the class of an image from a network's latent, beside its floors.

``foveasim readout unet --data ../shared/data/imagenette.tar --out runs/readout``

Three parts of the labelled images are kept apart: one trains, one decides when to stop and what to choose, and the
third is used once, for what is reported. Images are full and unmasked: acuity is 1 everywhere.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, readout and fine-tuning.
"""

from __future__ import annotations

import contextlib
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import __version__
from foveasim import validation as check
from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.mim.weights_file import save_network
from foveasim.agents.readout.features import extract, fresh_like
from foveasim.agents.readout.finetune import finetune
from foveasim.agents.readout.labelled import LabelledData, read_labelled
from foveasim.agents.readout.latent import load_snapshot
from foveasim.agents.readout.probe import PROBES, STRENGTHS, Labelled, ProbeOptions, accuracy, confusion, fit_probe
from foveasim.agents.readout.probe_solver import FeatureSpace
from foveasim.drawing.figures import Bar, accuracies_figure, confusion_figure
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.metrics.statistics import wilson
from foveasim.runs.outputs import check_folder, find_inputs

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["FEATURES", "PROBES", "ReadoutConfig", "ReadoutResult", "evaluate_probe", "read_out", "run"]

FEATURES = ("network", "random", "pixels")
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass
class ReadoutConfig:
    """What to read out, and by which probes.

    Attributes:
        weights: A network's file, a checkpoint or the name of a shipped network.
        data: Labelled images: a folder or tar archive with ``train/CLASS`` and ``val/CLASS`` or just ``CLASS`` folders,
            or a labelled scene source. How it is split is described at
            :func:`foveasim.agents.readout.labelled.read_labelled`.
        test: Labelled images that only test; None takes a part of ``data``.
        out: Folder for ``readout.json``, ``predictions.csv``, ``accuracy.png``, a ``confusion-*.png`` for each readout
            and, with ``finetune``, ``finetuned.safetensors``.
        overwrite: Write into a folder that is not empty, and replace files of a readout there.
        features: What to read out: ``network`` its latent, ``random`` the latent of the same network with fresh
            weights, ``pixels`` the image itself.
        probes: How: ``adam`` the paper's linear layer, ``lbfgs`` logistic regression with chosen regularisation,
            ``ridge`` least squares with chosen regularisation.
        finetune: Also train encoder and linear layer together, from the network's first probe on.
        per_class: Train on that many images of each class; None on all.
        lr: Learning rate of ``adam``.
        finetune_lr: Learning rate of fine-tuning.
        batch: Images a step of ``adam``.
        finetune_batch: Images a step of fine-tuning.
        patience: Epochs without a better validation accuracy after which ``adam`` and fine-tuning stop.
        epochs: Maximum number of epochs of each.
        strengths: Of the L2 regularisation that ``lbfgs`` and ``ridge`` try.
        evaluations: Maximum number of evaluations of the gradient that they make for each of them.
        precision: Of the features in memory: ``float32`` or ``float16``, half as large.
        memory_map: Keep the features in a temporary file in ``out`` instead of memory.
        size: Side of the square that images are cropped and scaled to, px.
        seed: Of fresh weights, of the order of images and of ``per_class``.
        threads: CPU threads, or None for torch's own choice.
        device: Where to compute.
    """

    weights: str = "unet"
    data: str = ""
    test: str | None = None
    out: str = "runs/readout"
    overwrite: bool = False
    features: list[str] = field(default_factory=lambda: list(FEATURES))
    probes: list[str] = field(default_factory=lambda: list(PROBES))
    finetune: bool = False
    per_class: int | None = None
    lr: float = 1e-4
    finetune_lr: float = 1e-5
    batch: int = 256
    finetune_batch: int = 64
    patience: int = 10
    epochs: int = 1000
    strengths: list[float] = field(default_factory=lambda: list(STRENGTHS))
    evaluations: int = 300
    precision: str = "float32"
    memory_map: bool = False
    size: int = 96
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        _some("features", self.features, FEATURES)
        _some("probes", self.probes, PROBES)
        if self.finetune and "network" not in self.features:
            raise InvalidValueError("finetune starts from a probe of the network; add 'network' to features.")
        if self.precision not in DTYPES:
            raise InvalidValueError(f"precision must be one of {', '.join(DTYPES)}; got {self.precision!r}.")
        self.options()
        check.number("finetune_lr", self.finetune_lr, 0, open_low=True)
        check.whole("finetune_batch", self.finetune_batch, 1, 2**31)
        check.whole("size", self.size, 32, 16384)
        check.seed_value("seed", self.seed)
        if not self.data:
            raise InvalidValueError("data must name labelled images: --data imagenette.tar; got none.")

    def options(self) -> ProbeOptions:
        """Return what concerns the probes."""
        return ProbeOptions(self.lr, self.batch, self.patience, self.epochs, tuple(self.strengths), self.evaluations)


def _some(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    if not given or len(set(given)) < len(given) or not set(given) <= set(known):
        raise InvalidValueError(f"{name} must be one or more of {', '.join(known)}, each once; got {given}.")


@dataclass(frozen=True)
class ReadoutResult:
    """How well one readout did.

    Attributes:
        features: ``network``, ``random``, ``pixels`` or ``finetuned``.
        probe: ``adam``, ``lbfgs`` or ``ridge``; of fine-tuning, the one that it started from.
        accuracy: Share of the test images that it named rightly.
        low: Lower end of its 95 % interval (Wilson).
        high: Upper end.
        validation: Accuracy on the validation images, by which it was chosen and so a little too high.
        dimension: Number of features.
        epochs: See :class:`foveasim.agents.mim.linear_probe.LinearProbe`.
        strength: The same.
        converged: The same.
        history: The same.
        seconds: How long it took, without extracting the features. What ``lbfgs`` and ``ridge`` share counts for the
            first of them.
        confusion: (C, C), test images of true class i (rows) called class j (columns).
        called: (N,) the class that each test image was given.
    """

    features: str
    probe: str
    accuracy: float
    low: float
    high: float
    validation: float
    dimension: int
    epochs: int
    strength: float
    converged: bool
    history: tuple[float, ...]
    seconds: float
    confusion: NDArray[np.int64]
    called: NDArray[np.int64]

    @property
    def name(self) -> str:
        """Features and probe, for files and figures."""
        return f"{self.features}-{self.probe}"


def evaluate_probe(
    features: str, probe: str, found: LinearProbe, validation: Labelled, test: Labelled, seconds: float
) -> ReadoutResult:
    """Test a readout, the only time that test images are used."""
    classes = len(found.bias)
    called = found.predict(test.features)
    counts = confusion(test.labels, called, classes)
    right = int(np.trace(counts))
    return ReadoutResult(
        features,
        probe,
        right / len(test),
        *wilson(right, len(test)),
        validation=accuracy(found, validation),
        dimension=found.weight.shape[1],
        epochs=found.epochs,
        strength=found.strength,
        converged=found.converged,
        history=found.history,
        seconds=seconds,
        confusion=counts,
        called=called.cpu().numpy(),
    )


class _ProgressBar:
    """The progress bar, where there is a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self.progress.add_task("", total=None)

    def start(self, text: str, total: int | None = None) -> None:
        """Begin something new."""
        self.progress.remove_task(self._task)  # reset() would keep the total of the task before
        self._task = self.progress.add_task(text, total=total)

    def images(self, count: int) -> None:
        """So many more images are done."""
        self.progress.advance(self._task, count)

    def round(self, text: str) -> Callable[[int, float], None]:
        """What to call after each epoch."""
        self.start(text)

        def show(done: int, right: float) -> None:
            self.progress.update(self._task, completed=done, description=f"{text}: validation {100 * right:.1f} %")

        return show


def read_out(
    network: MimNetwork | None,
    data: LabelledData,
    probes: Sequence[str],
    options: ProbeOptions | None = None,
    *,
    name: str | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    seed: int = 0,
) -> list[ReadoutResult]:
    """Read out one network, without printing and without files: for sweeps over many networks.

    Args:
        network: Whose latent, computed where it is; None takes the pixels.
        data: Labelled images, read once for many networks by
            :func:`foveasim.agents.readout.labelled.read_labelled`.
        probes: One or more of :data:`PROBES`, each once.
        options: How they are fitted; None takes the defaults.
        name: What the features are called in the results; None takes ``network`` or ``pixels``.
        device: Where the features are and the probes are fitted.
        precision: Of the features: ``float32`` or ``float16``.
        seed: Of what ``adam`` starts from and the order of its images.

    Returns:
        One result for each probe, in their order.

    Raises:
        InvalidValueError: No such probe or precision, or a latent that is not finite.

    Example::

        data = read_labelled("imagenette.tar")
        for path in paths:
            (found,) = read_out(load_network(path), data, ["ridge"])
            print(path, found.accuracy, found.low, found.high)
    """
    _some("probes", probes, PROBES)
    if precision not in DTYPES:
        raise InvalidValueError(f"precision must be one of {', '.join(DTYPES)}; got {precision!r}.")
    options = ProbeOptions() if options is None else options
    kind = name if name is not None else "pixels" if network is None else "network"
    where, dtype = torch.device(device), DTYPES[precision]
    train, validation, test = (
        extract(network, part, where, dtype) for part in (data.train, data.validation, data.test)
    )
    return [r for r, _ in _evaluate_probes(kind, probes, (train, validation, test), len(data.classes), options, seed)]


def _evaluate_probes(
    kind: str,
    probes: Sequence[str],
    parts: tuple[Labelled, Labelled, Labelled],
    classes: int,
    options: ProbeOptions,
    seed: int,
    watch: Callable[[str], Callable[[int, float], None]] | None = None,
) -> Iterator[tuple[ReadoutResult, LinearProbe]]:
    """Fit and test one probe after the other; those that need it share what is known about the training features."""
    train, validation, test = parts
    space: FeatureSpace | None = None
    for probe in probes:
        advance = None if watch is None else watch(f"{probe} on {kind}")
        begun = time.perf_counter()
        if probe != "adam" and space is None:
            space = FeatureSpace(train.features)
        found = fit_probe(probe, train, validation, classes, options, seed=seed, space=space, advance=advance)
        yield evaluate_probe(kind, probe, found, validation, test, time.perf_counter() - begun), found


def run(config: ReadoutConfig) -> list[ReadoutResult]:
    """Read out the features that a config names, print a table and write the figures.

    Args:
        config: What to read out, and by which probes.

    Returns:
        One result for each pair of features and probe, and one of fine-tuning.

    Raises:
        WeightsError: The network cannot be used, or the folder cannot be written to.
        SceneError: The data cannot be read or has no labels.
        InvalidValueError: One class, a missing part, or an option out of range.
    """
    from rich.console import Console

    if config.threads is not None:
        torch.set_num_threads(check.whole("threads", config.threads, 1, 4096))
    console = Console()
    reads = find_inputs(config.weights, sources=(config.data, config.test))
    folder = check_folder(config.out, reads, overwrite=config.overwrite)
    network = load_snapshot(config.weights, config.device).network
    data = read_labelled(
        config.data, (config.size, config.size), test=config.test, per_class=config.per_class, seed=config.seed
    )
    console.print(
        f"{len(data.classes)} classes, {len(data.train):,} training, {len(data.validation):,} validation and "
        f"{len(data.test):,} test images",
        highlight=False,
    )
    try:
        bar = _ProgressBar(console)
        with bar.progress:
            results = list(_results(config, network, data, bar, console))
        _write(results, data, config)
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    _print_table(results, data, config, console)
    return results


def _results(
    config: ReadoutConfig, network: MimNetwork, data: LabelledData, bar: _ProgressBar, console: Console
) -> Iterator[ReadoutResult]:
    device = torch.device(config.device)
    started_from: tuple[str, LinearProbe] | None = None
    for kind in config.features:
        seer = {"network": network, "random": fresh_like(network, config.seed), "pixels": None}[kind]
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=config.out)) if config.memory_map else None
            bar.start(f"features of {kind}", len(data.train) + len(data.validation) + len(data.test))
            train, validation, test = (
                extract(
                    seer,
                    part,
                    device,
                    DTYPES[config.precision],
                    file=None if place is None else Path(place) / f"{number}.bin",
                    advance=bar.images,
                )
                for number, part in enumerate((data.train, data.validation, data.test))
            )
            parts = train, validation, test
            evaluated = _evaluate_probes(
                kind, config.probes, parts, len(data.classes), config.options(), config.seed, bar.round
            )
            for result, found in evaluated:
                _print_result(result, console)
                yield result
                if kind == "network" and started_from is None:
                    started_from = result.probe, found
            del train, validation, test, parts, evaluated
    if config.finetune and started_from is not None:
        yield _finetuned(config, network, data, started_from, bar, console)


def _finetuned(
    config: ReadoutConfig,
    network: MimNetwork,
    data: LabelledData,
    start: tuple[str, LinearProbe],
    bar: _ProgressBar,
    console: Console,
) -> ReadoutResult:
    begun = time.perf_counter()
    probe_name, probe = start
    found = finetune(
        network,
        probe,
        data.train,
        data.validation,
        lr=config.finetune_lr,
        batch=config.finetune_batch,
        patience=config.patience,
        epochs=config.epochs,
        seed=config.seed,
        advance=bar.round("fine-tuning"),
    )
    device = torch.device(config.device)
    seconds = time.perf_counter() - begun
    validation, test = (extract(network, part, device) for part in (data.validation, data.test))
    result = evaluate_probe("finetuned", probe_name, found, validation, test, seconds)
    _print_result(result, console)
    card = {
        "network": network.name,
        "config": network.config_dict(),
        "finetuned_from": Path(config.weights).name,
        "finetuned_on": Path(config.data).name,
        "classes": list(data.classes),
        "lr": config.finetune_lr,
        "epochs": found.epochs,
        "seed": config.seed,
        "test_accuracy": result.accuracy,
    }
    # float16 would round away steps of 1e-5
    save_network(Path(config.out) / "finetuned.safetensors", network, card, dtype="float32")
    return result


def _chance(data: LabelledData) -> float:
    """Test accuracy of the best constant answer."""
    return float(np.bincount(data.test.labels).max() / len(data.test))


def _details(result: ReadoutResult) -> str:
    if result.probe != "adam" and result.features != "finetuned":
        text = f"strength {result.strength:g}, {result.epochs} evaluations"
    else:
        text = f"epoch {result.epochs} of {len(result.history)}"
    return text if result.converged else f"{text}, stopped by its limit"


def _print_result(result: ReadoutResult, console: Console) -> None:
    right = f"{100 * result.accuracy:.1f} % [{100 * result.low:.1f}, {100 * result.high:.1f}]"
    console.print(f"{result.name}: {right}, {_details(result)}", highlight=False, markup=False, soft_wrap=True)


def _write(results: Sequence[ReadoutResult], data: LabelledData, config: ReadoutConfig) -> None:
    folder = Path(config.out)
    for result in results:
        title = f"{result.name}: {100 * result.accuracy:.1f} % of {len(data.test):,} test images"
        confusion_figure(folder / f"confusion-{result.name}.png", result.confusion, data.classes, title)
    bars = [Bar(r.name, r.accuracy, r.low, r.high) for r in results]
    accuracies_figure(folder / "accuracy.png", bars, chance=_chance(data), title=Path(config.data).name)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "true", *(r.name for r in results)])
        for row, (name, label) in enumerate(zip(data.test.names, data.test.labels.tolist(), strict=True)):
            writer.writerow([name, data.classes[label], *(data.classes[int(r.called[row])] for r in results)])
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    count = len(data.classes)
    whole = {
        "foveasim": __version__,
        "torch": torch.__version__,
        "config": asdict(config),
        "classes": list(data.classes),
        "images": {name: np.bincount(part.labels, minlength=count).tolist() for name, part in parts.items()},
        "chance": _chance(data),
        "readouts": [_record(result) for result in results],
    }
    (folder / "readout.json").write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _record(result: ReadoutResult) -> dict[str, object]:
    record = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "called"}
    return {**record, "confusion": result.confusion.tolist()}


def _print_table(results: Sequence[ReadoutResult], data: LabelledData, config: ReadoutConfig, console: Console) -> None:
    from rich.table import Table

    table = Table(
        title=f"readout of {Path(config.weights).name}, chance {100 * _chance(data):.1f} %", title_justify="left"
    )
    for title in ("features", "probe"):
        table.add_column(title)
    for title in ("test %", "95 %", "validation %", "units", "seconds"):
        table.add_column(title, justify="right")
    for r in results:
        figures = (f"{100 * r.accuracy:.1f}", f"{100 * r.low:.1f}-{100 * r.high:.1f}", f"{100 * r.validation:.1f}")
        table.add_row(r.features, r.probe, *figures, f"{r.dimension:,}", f"{r.seconds:.0f}")
    console.print(table)
    console.print(f"wrote readout.json and figures to {config.out}", highlight=False, soft_wrap=True)
