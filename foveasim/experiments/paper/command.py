"""The paper's comparison: every condition with every seed, one after the other or side by side, and a report.

``foveasim paper ../shared/data/imagenette.tar --epochs 10 --recipe quick``

Each run pretrains a network, reads the classes of images out of its latent, and measures the latent along the training.
What a run found is one file, so that whatever stops the comparison costs at most the minutes since the last checkpoint,
and ``--resume`` goes on.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Literal

from foveasim import validation
from foveasim.agents.mim.network import make_network
from foveasim.agents.pretraining.config import PRESETS, PretrainConfig
from foveasim.agents.readout.command import PROBES
from foveasim.agents.readout.labelled import check_source
from foveasim.errors import FoveasimError, InvalidValueError, WeightsError
from foveasim.experiments.paper.run import UNTRAINED, Job, SharedOptions, follow_parent, pretrain_config, run_job
from foveasim.eye.retina import make_retina
from foveasim.images.splits import ImageSource
from foveasim.runs.interrupts import GRACE_S, InterruptFlag
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.runs.whole_files import write_atomically
from foveasim.validation import check_device

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["CONDITIONS", "PaperConfig", "run"]

CONDITIONS = (
    "paper/random_patches",
    "paper/periphery",
    "paper/periphery_no_crops",
    "paper/fovea_filter",
    "paper/autoencoder",
    "foveasim/best",
    "paper/random_patches_blurry",
    "paper/periphery_blurry",
)
"""The conditions of the published figure that need no masks of objects, and our own."""

SET_BY_THE_COMPARISON = {
    *("data", "network", "out", "masks", "epochs", "steps", "minutes", "seed", "size", "snapshots", "precision"),
    *("device", "threads", "resume", "overwrite", "validate", "validate_minutes", "cache"),
}
"""Options of ``foveasim pretrain`` that are no part of ``options``: each run has its own, or they would do nothing."""


@dataclass
class PaperConfig:
    """What to compare, and how long to train.

    Attributes:
        data: Labelled images, as ``foveasim readout`` takes them: a folder or tar archive with ``train/CLASS`` and
            ``val/CLASS``, or STL-10's folder. Classes are read out of all of them; the training part pretrains, without
            its labels (of STL-10 the unlabelled images), unless ``unlabelled`` names other images.
        unlabelled: Images to pretrain on, ``PATH`` or ``PATH@SPLIT``; empty for those of ``data``.
        test: Labelled images that only test; None takes a part of ``data``.
        out: Folder for the runs, the figures and the report.
        resume: Go on with the comparison in ``out``: only runs that are missing are done.
        overwrite: Begin anew in a folder that is not empty, and remove runs of these names there.
        conditions: Names of presets, of ``foveasim pretrain``.
        networks: Networks to train under each condition.
        seeds: Seeds of each condition.
        epochs: How often each run sees every image; the paper's is 500.
        recipe: ``published`` trains as the presets say; ``quick`` by AdamW with a cosine, batches of 16 and a moving
            average of the weights, which gets further in few epochs.
        options: Options of ``foveasim pretrain`` that override both, such as ``{lr: 1.0e-3}``; not those that the
            comparison sets itself.
        masks: Folder of the main objects' masks, for the conditions that need them.
        probes: How classes are read out: one or more of ``adam`` (the paper's), ``lbfgs`` and ``ridge``; the report
            goes by the first and shows the others beside it.
        snapshots: Points of the curves over training, besides the untrained network.
        latent_images: How many images those are measured on.
        size: Side of what the network sees, px.
        precision: ``float32`` or ``bfloat16``.
        workers: Runs side by side, each in a process of its own.
        threads: CPU threads of each, or None for torch's own choice.
        device: Where to train.
    """

    data: str = ""
    unlabelled: list[str] = field(default_factory=list)
    test: str | None = None
    out: str = "runs/paper"
    resume: bool = False
    overwrite: bool = False
    conditions: list[str] = field(default_factory=lambda: list(CONDITIONS))
    networks: list[str] = field(default_factory=lambda: ["lean"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    epochs: float = 500.0
    recipe: Literal["published", "quick"] = "published"
    options: dict[str, Any] = field(default_factory=dict)
    masks: str | None = None
    probes: list[str] = field(default_factory=lambda: ["adam", "ridge"])
    snapshots: int = 6
    latent_images: int = 2048
    size: int = 96
    precision: Literal["float32", "bfloat16"] = "float32"
    workers: int = 1
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.data:
            raise InvalidValueError("data must name labelled images, such as imagenette.tar; got none.")
        for name, values in (("conditions", self.conditions), ("networks", self.networks), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise InvalidValueError(f"{name} must be at least one, each once; got {values}.")
        for seed in self.seeds:
            validation.seed_value("seeds", seed)
        for condition in self.conditions:
            PRESETS.file(condition)
        validation.number("epochs", self.epochs, 0, open_low=True)
        validation.whole("snapshots", self.snapshots, 1, 1000)
        validation.whole("latent_images", self.latent_images, 2, 2**31)
        validation.whole("size", self.size, 32, 16384)
        validation.whole("workers", self.workers, 1, 1024)
        if not self.probes or len(set(self.probes)) < len(self.probes) or not set(self.probes) <= set(PROBES):
            raise InvalidValueError(f"probes must be one or more of {', '.join(PROBES)}, each once; got {self.probes}.")
        if self.recipe not in ("published", "quick"):
            raise InvalidValueError(f"recipe must be published or quick; got {self.recipe!r}.")
        known = {f.name for f in fields(PretrainConfig)} - SET_BY_THE_COMPARISON
        for name in self.options:
            if name not in known:
                reason = "the comparison sets it" if name in SET_BY_THE_COMPARISON else "there is none of that name"
                raise InvalidValueError(
                    f"options must be options of foveasim pretrain; got {name!r}, and {reason}. Choose from "
                    f"{', '.join(sorted(known))}."
                )

    def jobs(self) -> list[Job]:
        """Return every run, in their order: one seed of everything before the next seed."""
        baselines = [
            Job(network, baseline, seed) for seed in self.seeds for network in self.networks for baseline in UNTRAINED
        ]
        trained = [
            Job(network, condition, seed)
            for seed in self.seeds
            for network in self.networks
            for condition in self.conditions
        ]
        # what needs no training is the same for all networks (pixels) and for all seeds
        once = [job for job in baselines if job.condition != "pixels" or job[::2] == (self.networks[0], self.seeds[0])]
        return once + trained

    def shared_options(self) -> SharedOptions:
        """Return the options that all runs share."""
        values = asdict(self)
        return SharedOptions(**{name: values[name] for name in SharedOptions.__dataclass_fields__})


def run(config: PaperConfig) -> None:
    """Run what is missing of a comparison, then write its figures and its report.

    Args:
        config: What to compare.

    Raises:
        InvalidValueError: An option out of range.
        SceneError: The data cannot be read.
        WeightsError: The folder cannot be written to.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after every run has written its checkpoint.
    """
    from rich.console import Console

    from foveasim.experiments.paper.report import write_report

    check_device(config.device)
    console = Console()
    shared = config.shared_options()
    _refuse_early(config, shared)
    reads = find_inputs(config.options, sources=(config.data, config.unlabelled, config.test, config.masks))
    folder = check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    written = {name: value for name, value in asdict(config).items() if name not in ("resume", "overwrite")}
    try:
        write_atomically(folder / "paper.json", (json.dumps(written, indent=1) + "\n").encode())
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    jobs = config.jobs()
    if config.overwrite:
        for job in jobs:
            shutil.rmtree(job.folder(shared), ignore_errors=True)
    missing = [job for job in jobs if not job.done(shared)]
    console.print(f"{len(jobs)} runs, {len(jobs) - len(missing)} of them done", highlight=False)
    stop = InterruptFlag()
    try:
        with stop.listening():
            failed = _run_all(missing, config, console)
    except KeyboardInterrupt:
        done = sum(job.done(shared) for job in jobs)
        console.print(
            f"stopped: {done} of {len(jobs)} runs are done, and those that were on their way have their checkpoints. "
            "Go on with --resume.",
            highlight=False,
            soft_wrap=True,
        )
        raise
    found = [job.result(shared) for job in jobs if job.done(shared)]
    if found:
        write_report(found, folder, config.data, console)
    if failed:
        raise WeightsError(
            f"{len(failed)} of {len(jobs)} runs failed: {', '.join(str(job) for job in failed[:5])}. The report holds "
            "the others; try those that failed again by --resume."
        )


def _refuse_early(config: PaperConfig, shared: SharedOptions) -> None:
    """Raise what would stop a run, before the first begins: the last condition may begin days later."""
    check_source("data", config.data)
    if config.test is not None:
        check_source("test", config.test)
    for spec in config.unlabelled:
        ImageSource.of(spec)
    for network in config.networks:
        make_network(network, **config.options.get("network_options", {}))
    for job in config.jobs():
        if job.condition not in UNTRAINED:
            for name, options in pretrain_config(job, shared).retinas.items():
                make_retina(name, **options)


def _run_all(missing: list[Job], config: PaperConfig, console: Console) -> list[Job]:
    """Run jobs, ``workers`` at a time, and return those that failed."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    failed: list[Job] = []
    if not missing:
        return failed
    waiting = iter(missing)
    # Processes of their own, started afresh: a forked one would inherit torch's threads in whatever state they are.
    pool = ProcessPoolExecutor(config.workers, mp_context=get_context("spawn"), initializer=follow_parent)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        whole = bar.add_task("all runs", total=len(missing))
        running: dict[Future[str], tuple[Job, TaskID]] = {}
        try:
            _start(pool, waiting, config, bar, running)
            while running:
                done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for job, task in running.values():
                    bar.update(task, completed=job.progress(config.shared_options()))
                for future in done:
                    job, task = running.pop(future)
                    bar.remove_task(task)
                    bar.advance(whole)
                    try:
                        console.print(future.result(), highlight=False, soft_wrap=True)
                    except FoveasimError as error:
                        failed.append(job)
                        console.print(f"{job}: {error}", highlight=False, soft_wrap=True, style="red")
                    except BrokenExecutor as error:
                        raise WeightsError(
                            f"the process of {job} was ended from outside, mostly for want of memory. --resume "
                            "goes on from its checkpoint; fewer workers need less memory."
                        ) from error
                    _start(pool, waiting, config, bar, running)
        except BaseException:
            _end(pool)
            raise
    pool.shutdown()
    return failed


def _end(pool: ProcessPoolExecutor) -> None:
    """Let every worker finish its step and write its checkpoint; end those that take too long."""
    workers = list(pool._processes.values())
    for worker in workers:
        worker.terminate()
    pool.shutdown(wait=False, cancel_futures=True)
    until_s = time.monotonic() + GRACE_S + 1
    for worker in workers:
        worker.join(max(0.0, until_s - time.monotonic()))
        worker.kill()


def _start(
    pool: ProcessPoolExecutor,
    waiting: Iterator[Job],
    config: PaperConfig,
    bar: Progress,
    running: dict[Future[str], tuple[Job, TaskID]],
) -> None:
    """Start jobs until every worker has one."""
    while len(running) < config.workers:
        job = next(waiting, None)
        if job is None:
            return
        running[pool.submit(run_job, job, config.shared_options())] = job, bar.add_task(str(job), total=1.0)
