"""Which agent looks best: what one network predicts of scenes from what each agent saw of them.

``foveasim compare random uncertainty oracle --data natural.tar@test --retina disc --out runs/compare``
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveasim import validation
from foveasim.agents.evaluation.entries import choose_references, open_entries
from foveasim.agents.evaluation.judge import BeliefJudge
from foveasim.agents.evaluation.measures import MEASURES
from foveasim.agents.evaluation.scene_runner import MAX_SCENES, MAX_SEED, AgentRun, Entry, SceneRunner
from foveasim.agents.evaluation.scenes import read_scenes
from foveasim.agents.mim.predictor import Predictor
from foveasim.errors import InvalidValueError
from foveasim.experiments.compare.files import AgentRunCache, Comparison, write_tables
from foveasim.experiments.compare.statistics import summarise
from foveasim.experiments.compare.table import GAP, WIDE, show_table
from foveasim.eye.retina import Retina, make_retina
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.validation import check_device

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CompareConfig", "compare", "run"]


@dataclass
class CompareConfig:
    """Which agents look at which scenes, and how they are judged.

    Attributes:
        agents: Registered names, package.module:Class or policy files; LABEL=AGENT calls one by another name. Without
            any, every registered agent takes part that looks by itself and sees no more than an eye does.
        agent_arguments: By label, such as {gaussian: {sd: 0.3}}. An agent with an argument ``network``, ``retina`` or
            ``device`` gets those of the comparison, unless it is given here.
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``, or one name such as photos, noise, shapes.
        limit: The first so many scenes; null for all of them. Of made scenes, which have no end, 100 where it is null.
        size: Height and width to which scenes are cropped and scaled, px.
        retina: Name of a retina.
        retina_options: Its options; null gives disc the ``hidden_ratio`` 0.8 of the published figures, and others none.
        network: The judge: it predicts each scene from what an agent has seen. A shipped name or a weights file.
        fixations: On each scene; the first is at its centre.
        seeds: Runs of each agent on each scene, with the seeds ``seed``, ``seed`` + 1, ...
        seed: The first seed, and that of the bootstrap.
        reference: Agent with which the others are compared; null for random, or the first where it takes no part.
        ceiling: Upper reference of the share of the gap that is closed; null for oracle, if it takes part.
        measure: By what the table is sorted and the differences are drawn: mse, hidden_mse, relative, psnr,
            hidden_psnr, ssim or hidden_ssim. All are in the files.
        resamples: Bootstrap samples of the scenes.
        show: How many scenes the HTML report steps through, spread over all.
        show_scenes: Or which, by their numbers from 0.
        lanes: Scenes of an agent at once.
        batch: Predictions at a time.
        threads: CPU threads; null for torch's own choice.
        device: Where the network computes.
        out: Folder for the figures and the report.
        overwrite: Write into a folder that is not empty, and replace files of a comparison there.
        resume: Go on with a comparison that was killed or stopped: agents that were done are not run again.
    """

    agents: list[str] = field(default_factory=list)
    agent_arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: list[str] | str = field(default_factory=list)
    limit: int | None = None
    size: tuple[int, int] = (96, 96)
    retina: str = "disc"
    retina_options: dict[str, Any] | None = None
    network: str = "unet"
    fixations: int = 8
    seeds: int = 3
    seed: int = 0
    reference: str | None = None
    ceiling: str | None = None
    measure: str = "mse"
    resamples: int = 2000
    show: int = 4
    show_scenes: list[int] = field(default_factory=list)
    lanes: int = 100
    batch: int = 50
    threads: int | None = None
    device: str = "cpu"
    out: str = "runs/compare"
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        validation.whole("fixations", self.fixations, 1, 10_000)
        validation.whole("seeds", self.seeds, 1, MAX_SEED + 1)
        validation.whole("seed", self.seed, 0, MAX_SEED + 1 - self.seeds)
        validation.whole("resamples", self.resamples, 100, 1_000_000)
        validation.whole("show", self.show, 0, 1000)
        validation.whole("lanes", self.lanes, 1, MAX_SCENES)
        validation.whole("batch", self.batch, 1, 10**6)
        validation.size_hw("size", tuple(self.size), 32)
        if self.limit is not None:
            validation.whole("limit", self.limit, 1, MAX_SCENES)
        if self.threads is not None:
            validation.whole("threads", self.threads, 1, 4096)
        if self.measure not in MEASURES:
            raise InvalidValueError(f"measure must be one of {', '.join(MEASURES)}; got {self.measure!r}.")
        if not self.data:
            raise InvalidValueError(
                "data must name images: a folder, a tar archive, PATH@SPLIT, or a name such as photos; got none."
            )

    def all_retina_options(self) -> dict[str, Any]:
        """Return the options of the retina, those that are meant by null too."""
        if self.retina_options is not None:
            return self.retina_options
        return {"hidden_ratio": 0.8} if self.retina == "disc" else {}

    def make_retina(self) -> Retina:
        """Build the retina that this describes."""
        return make_retina(self.retina, **self.all_retina_options())


def run(config: CompareConfig) -> int:
    """Compare agents; ``foveasim compare``. Ctrl-C saves the results of the agents that are done.

    Args:
        config: The options.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM.

    Raises:
        FoveasimError: A name, a file or a number that cannot be used, an agent that fails, or a folder that holds a
            comparison already.
        KeyboardInterrupt: Ctrl-C before the first agent was done.
    """
    from rich.console import Console

    console, began, stop = Console(), time.monotonic(), InterruptFlag()
    if not (console.is_terminal or "COLUMNS" in os.environ):
        console = Console(width=WIDE + GAP)  # a file has room for every column
    named = config.agents, config.agent_arguments, config.retina, config.retina_options, config.network
    reads = find_inputs(*named, sources=config.data)
    out = check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    with stop.listening():
        found, cache = _compare(config, console, out)
        stop.finishing = True
        _write(out, found)
        if cache is not None and found.whole:
            cache.clear()
    show_table(console, found.result, config.measure, len(found.scenes.name), config.seeds)
    console.print(f"{time.monotonic() - began:.0f} s; {out / 'report.html'}", markup=False, highlight=False)
    if not found.whole:
        console.print("interrupted; the results of the agents that were done are saved. Go on with --resume.")
    return 0 if found.whole else 130


def compare(config: CompareConfig, console: Console | None = None) -> Comparison:
    """Compare agents, and write nothing.

    Args:
        config: The options; ``out`` is not used.
        console: Where to show progress, and which agents were left out.

    Returns:
        What was found. After Ctrl-C, of the agents that were done.

    Raises:
        FoveasimError: See :func:`run`.
        KeyboardInterrupt: Ctrl-C before the first agent was done.
    """
    return _compare(config, console, None)[0]


def _compare(
    config: CompareConfig, console: Console | None, out: Path | None
) -> tuple[Comparison, AgentRunCache | None]:
    """Compare agents; cache those that are done below ``out``, if it is given."""
    check_device(config.device)
    scenes, retina = read_scenes(config.data, config.size, limit=config.limit, seed=config.seed), config.make_retina()
    predictor = Predictor(config.network, config.device)
    cache: AgentRunCache | None = None
    if out is not None:
        cache = AgentRunCache(out, _cache_identity(config), scenes, predictor.network)
        if not config.resume:
            cache.clear()
    common = {"network": predictor.network, "retina": retina, "device": config.device}
    threads = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        entries, left_out = open_entries(config.agents, config.agent_arguments, common)
        reference, ceiling = choose_references([entry.label for entry in entries], config.reference, config.ceiling)
        if console is not None:
            for line in left_out:
                console.print(line, markup=False, highlight=False)
        seeds = tuple(range(config.seed, config.seed + config.seeds))
        runner = SceneRunner(
            scenes,
            retina,
            BeliefJudge(predictor, scenes, config.batch),
            fixations=config.fixations,
            seeds=seeds,
            lanes=config.lanes,
            report_scenes=_report_scenes(config, len(scenes.name)),
        )
        runs, whole = _run_agents(runner, entries, console, cache)
    finally:
        torch.set_num_threads(threads)
    labels = [one.label for one in runs]
    result = summarise(
        runs,
        scenes.size,
        reference=reference if reference in labels else labels[0],
        ceiling=ceiling if ceiling in labels else None,
        resamples=config.resamples,
        seed=config.seed,
    )
    options = {**asdict(config), "retina_options": config.all_retina_options()}
    return Comparison(options, predictor.name, scenes, seeds, tuple(runs), result, whole), cache


def _cache_identity(config: CompareConfig) -> dict[str, Any]:
    """Return the options that decide what an agent does."""
    names = {"agent_arguments", "retina", "fixations", "seeds", "seed", "show", "show_scenes", "lanes"}
    chosen = {name: value for name, value in asdict(config).items() if name in names}
    return {**chosen, "retina_options": config.all_retina_options()}


def _report_scenes(config: CompareConfig, count: int) -> list[int]:
    """Return the scenes of the report."""
    if not config.show_scenes:
        return sorted({int(i) for i in np.linspace(0, count - 1, min(config.show, count)).round()})
    return [validation.whole("show_scenes", scene, 0, count - 1) for scene in dict.fromkeys(config.show_scenes)]


def _run_agents(
    runner: SceneRunner, entries: Sequence[Entry], console: Console | None, cache: AgentRunCache | None
) -> tuple[list[AgentRun], bool]:
    """Run all agents; return the runs that came to an end, and whether all did."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = len(entries) * len(runner.seeds) * len(runner.scenes.name)
    runs: list[AgentRun] = []
    hidden = console is None or not console.is_terminal
    try:
        with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
            task = progress.add_task("looking", total=total)
            for entry in entries:
                progress.update(task, description=escape(entry.label))
                found = None if cache is None else cache.load(entry)
                if found is not None and console is not None:
                    console.print(f"{entry.label} was done before", markup=False, highlight=False)
                if found is None:
                    found = runner.run(entry, lambda scenes: progress.advance(task, scenes))
                    if cache is not None:
                        cache.save(found)
                runs.append(found)
    except KeyboardInterrupt:
        if not runs:
            raise
        return runs, False
    return runs, True


def _write(out: Path, found: Comparison) -> None:
    """Write everything; ``compare.json`` comes last, so that a folder with it is whole.

    Raises:
        InvalidValueError: The folder cannot be written to.
    """
    from foveasim.experiments.compare.figures import draw_curves, draw_differences, draw_saccades, draw_shares
    from foveasim.experiments.compare.page import write_report

    measure = str(found.config["measure"])
    try:
        draw_curves(out / "error_fixations.png", found.result, measure)
        draw_shares(out / "error_sharp.png", found.result, measure)
        draw_differences(out / "differences.png", found.result, measure)
        draw_saccades(out / "saccades.png", found.result)
        write_report(out / "report.html", found)
        write_tables(out, found)
    except OSError as error:
        raise InvalidValueError(f"cannot write into {out}: {error.strerror}. Choose another --out.") from error
