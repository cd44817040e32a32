"""How human is a gaze: agents against the scanpaths of people who viewed the same images.

``foveasim humans scanpath walk saliency --data osie --out runs/humans``
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from foveasim import validation
from foveasim.agents.evaluation.entries import open_entries
from foveasim.agents.evaluation.scene_runner import MAX_SEED, Entry
from foveasim.agents.interface import agent_needs
from foveasim.errors import InvalidValueError
from foveasim.experiments.humans.baselines import BASELINES, run_baselines
from foveasim.experiments.humans.files import HumanComparison, ScanpathCache, write_humans
from foveasim.experiments.humans.free_viewing import FreeViewingRunner
from foveasim.experiments.humans.memo import cache_predictions
from foveasim.experiments.humans.scores import ScanpathScorer, ScanpathScores
from foveasim.experiments.humans.table import show_humans
from foveasim.eye.retina import Retina, make_retina
from foveasim.metrics.people import People, read_people
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.validation import check_device

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["HumansConfig", "humans", "run"]

_DEFAULT = ("saliency", "saliency_centre", "scanpath")


@dataclass
class HumansConfig:
    """Who is compared with which people, and how.

    Attributes:
        agents: Registered names, package.module:Class or policy files; LABEL=AGENT calls one by another name. The
            baselines take part too. Without any: saliency, saliency_centre and scanpath.
        agent_arguments: By label, such as {walk: {short_side_deg: 25}}. An agent with an argument ``network``,
            ``retina``, ``device`` or ``short_side_deg`` gets those of the comparison, unless it is given here.
        data: Folder with ``images/``, ``fixations.csv`` and ``splits.json``; see docs/humans.md.
        split: The images to score on.
        training: The split from which lengths, durations, baselines and the centre bias are taken.
        size: Height and width of the images in which the fixations are given, px. The files may be smaller.
        px_per_deg: Pixels of that size to a degree.
        limit: The first so many images; null for all.
        count: Scanpaths of each agent on each image.
        retina: Name of a retina.
        retina_options: Its options.
        network: What agents predict by that take an argument ``network``.
        floors: Whether the baselines take part, too: uniform, centre, shuffled, walk, raster and stays.
        conditional: Whether agents with a priority map are led along people's scanpaths, too: half of their time.
        resamples: Bootstrap samples of the images.
        seed: Of agents, lengths, durations and the bootstrap.
        show: How many images the report and the densities show, spread over all.
        lanes: Scanpaths that an agent makes at once.
        jobs: Agents that are at work at once.
        device: Where networks compute.
        out: Folder for scores, scanpaths, figures and the report.
        overwrite: Write into a folder that is not empty, and replace files of a comparison there.
        resume: Go on with a comparison that was killed or stopped: agents that were done do not view the images again.
    """

    agents: list[str] = field(default_factory=list)
    agent_arguments: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: str = ""
    split: str = "test"
    training: str = "train"
    size: tuple[int, int] = (600, 800)
    px_per_deg: float = 24.0
    limit: int | None = None
    count: int = 15
    retina: str = "pyramid"
    retina_options: dict[str, Any] = field(default_factory=dict)
    network: str = "unet"
    floors: bool = True
    conditional: bool = True
    resamples: int = 2000
    seed: int = 0
    show: int = 6
    lanes: int = 60
    jobs: int = 2
    device: str = "cpu"
    out: str = "runs/humans"
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        validation.whole("count", self.count, 1, 1000)
        validation.whole("resamples", self.resamples, 100, 1_000_000)
        validation.whole("seed", self.seed, 0, MAX_SEED)
        validation.whole("show", self.show, 0, 1000)
        validation.whole("lanes", self.lanes, 1, 10_000)
        validation.whole("jobs", self.jobs, 1, 256)
        if not self.data:
            raise InvalidValueError(
                "data must name a folder with images/, fixations.csv and splits.json, such as the OSIE pack; got none."
            )

    def make_retina(self) -> Retina:
        """Build the retina that this describes."""
        return make_retina(self.retina, **self.retina_options)


def run(config: HumansConfig) -> int:
    """Compare agents with people; ``foveasim humans``. Ctrl-C saves the results of the agents that are done.

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
    pack = Path(config.data).expanduser()
    named = config.agents, config.agent_arguments, config.retina, config.retina_options, config.network
    reads = find_inputs(*named, pack / "fixations.csv", pack / "splits.json", sources=pack / "images")
    out = check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    with stop.listening():
        found, cache = _humans(config, console, out)
        stop.finishing = True
        _write(out, found, config.show)
        if cache is not None and found.whole:
            cache.clear()
    show_humans(console, found.scores, len(found.people.name), config.count)
    console.print(f"{time.monotonic() - began:.0f} s; {out / 'report.html'}", markup=False, highlight=False)
    if not found.whole:
        console.print("interrupted; the results of the agents that were done are saved. Go on with --resume.")
    return 0 if found.whole else 130


def humans(config: HumansConfig, console: Console | None = None) -> HumanComparison:
    """Compare agents with people, and write nothing.

    Args:
        config: The options; ``out`` is not used.
        console: Where to show progress.

    Returns:
        What was found. After Ctrl-C, of the agents that were done.

    Raises:
        FoveasimError: See :func:`run`.
        KeyboardInterrupt: Ctrl-C before the first agent was done.
    """
    return _humans(config, console, None)[0]


def _humans(
    config: HumansConfig, console: Console | None, out: Path | None
) -> tuple[HumanComparison, ScanpathCache | None]:
    """Compare agents with people; cache those that are done below ``out``, if it is given."""
    check_device(config.device)
    people = read_people(
        config.data,
        split=config.split,
        training=config.training,
        size=config.size,
        px_per_deg=config.px_per_deg,
        limit=config.limit,
    )
    retina = config.make_retina()
    common = {
        "network": config.network,
        "retina": retina,
        "device": config.device,
        "short_side_deg": min(people.size) / people.px_per_deg,
    }
    entries, _ = open_entries(config.agents or _DEFAULT, config.agent_arguments, common)
    reserved = [entry.label for entry in entries if entry.label in ("people", *(BASELINES if config.floors else ()))]
    if reserved:
        name = reserved[0]
        raise InvalidValueError(
            f"agents must not have the label of people or of a baseline; got {name!r}. Write my_{name}={name}, "
            "or --floors no."
        )
    cache: ScanpathCache | None = None
    if out is not None:
        cache = ScanpathCache(out, _cache_identity(config), people)
        if not config.resume:
            cache.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the maps of one lane are too small for two, and agents share the cores by ``jobs``
    try:
        scorer = ScanpathScorer(people, config.resamples, config.seed)
        rows, whole = _run_agents(config, people, retina, scorer, entries, console, cache)
    finally:
        torch.set_num_threads(threads)
    return HumanComparison(asdict(config), people, (scorer.people_scores(), *rows), whole), cache


def _cache_identity(config: HumansConfig) -> dict[str, Any]:
    """Return the options that decide what an agent does."""
    names = ("agent_arguments", "count", "retina", "retina_options", "network", "conditional", "seed")
    return {name: getattr(config, name) for name in names}


def _run_agents(
    config: HumansConfig,
    people: People,
    retina: Retina,
    scorer: ScanpathScorer,
    entries: Sequence[Entry],
    console: Console | None,
    cache: ScanpathCache | None,
) -> tuple[list[ScanpathScores], bool]:
    """Run all agents on the images; return the scores of those that came to an end, and whether all did."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    ended = False

    def start(on_progress: Callable[[int], None]) -> tuple[FreeViewingRunner, Callable[[int], None]]:
        def report(count: int) -> None:
            if ended:
                raise KeyboardInterrupt
            on_progress(count)

        return FreeViewingRunner(
            people, retina, config.count, lanes=config.lanes, seed=config.seed, conditional=config.conditional
        ), report

    def run_agent(entry: Entry, on_progress: Callable[[int], None]) -> list[ScanpathScores]:
        runner, report = start(on_progress)
        scanpaths = None if cache is None else cache.load(entry)
        if scanpaths is not None:
            report(len(people.name) * config.count)
            if console is not None:
                console.print(f"{entry.label} was done before", markup=False, highlight=False)
        else:
            scanpaths = runner.run(cache_predictions(entry), report)
            if cache is not None:
                cache.save(scanpaths)
        return [scorer.score(scanpaths)]

    def run_all_baselines(on_progress: Callable[[int], None]) -> list[ScanpathScores]:
        runner, report = start(on_progress)
        return [scorer.score(baseline, "floor") for baseline in run_baselines(runner, report)]

    columns = (TextColumn("viewing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = len(people.name) * config.count * (len(entries) + (len(BASELINES) if config.floors else 0))
    hidden = console is None or not console.is_terminal
    with (
        Progress(*columns, console=console, transient=True, disable=hidden) as progress,
        ThreadPoolExecutor(config.jobs) as pool,
    ):
        task = progress.add_task("", total=total)

        def on_progress(count: int) -> None:
            progress.advance(task, count)

        # The longest work first, so that no core waits for it at the end.
        order = sorted(range(len(entries)), key=lambda place: not (config.conditional and _takes_long(entries[place])))
        begun = {place: pool.submit(run_agent, entries[place], on_progress) for place in order}
        waiting = [begun[place] for place in range(len(entries))]
        if config.floors:
            waiting.append(pool.submit(run_all_baselines, on_progress))
        whole = True
        try:
            for one in waiting:
                one.result()
        except BaseException as error:
            ended = True
            pool.shutdown(wait=True, cancel_futures=True)
            whole = False
            if not isinstance(error, KeyboardInterrupt) or not any(_done(one) for one in waiting):
                raise
        return [row for one in waiting if _done(one) for row in one.result()], whole


def _takes_long(entry: Entry) -> bool:
    """Whether an agent is led along people's scanpaths, too, by an eye that sees something else on each of them."""
    agent = entry.make(0)
    return hasattr(agent, "priority") and "scene" not in agent_needs(agent)


def _done(future: Future[list[ScanpathScores]]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _write(out: Path, found: HumanComparison, show: int) -> None:
    """Write everything; ``humans.json`` comes last, so that a folder with it is whole.

    Raises:
        InvalidValueError: The folder cannot be written to.
    """
    from foveasim.experiments.humans.figures import draw_densities, draw_distributions, draw_scores
    from foveasim.experiments.humans.page import write_page

    count = len(found.people.name)
    report_images = sorted({int(i) for i in np.linspace(0, count - 1, min(show, count)).round()})
    shareable = replace(found, config={**found.config, "data": Path(str(found.config["data"])).name})
    try:
        if len(found.scores) > 1:
            draw_scores(out / "scores.png", found.scores)
            draw_distributions(out / "saccades.png", found.scores, found.people)
        if report_images:
            draw_densities(out / "densities.png", found.scores, found.people, report_images)
        write_page(out / "report.html", shareable, report_images)
        write_humans(out, shareable)
    except OSError as error:
        raise InvalidValueError(f"cannot write into {out}: {error.strerror}. Choose another --out.") from error
