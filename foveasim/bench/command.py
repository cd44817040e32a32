"""How quick foveasim is here: one command, one run, a table and a JSON."""

from __future__ import annotations

import fnmatch
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from foveasim import __version__, validation
from foveasim.bench.table import GOALS, Change, Report, Row, add_ratios, compare_reports, compute_goals, same_machine
from foveasim.bench.timing import Case, Setting, SkippedError
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.registry import describe
from foveasim.runs.outputs import check_output, choose_final_path, find_inputs

__all__ = ["BenchConfig", "list_cases", "measure", "run", "select_cases"]

_PACKAGES = ("torch", "numpy", "numba", "gymnasium", "opencv-python-headless", "stable-baselines3", "pygame", "ap_gym")
_BUSY = 0.5
"""Load of other work, as a share of the cores, from which on figures are too low to be worth keeping."""


@dataclass
class BenchConfig:
    """What to measure, and how.

    Attributes:
        only: Which cases, by name: a pattern such as 'env/*', or several separated by commas.
        list: Only list the cases.
        seconds: About how long each repeat lasts; the window's are five times as long.
        repeats: How many of them, after a warm-up. Their median and quartiles are what is shown.
        threads: Of torch and OpenCV. The kernels have one.
        seed: Of scenes, actions and networks.
        out: File for the figures, as JSON.
        overwrite: Replace a file of that name that exists.
        against: Such a file of an earlier run: shows what got slower or faster.
        tolerance: Share by which a figure may be worse than there.
        peers: Also measure ap_gym, from PyPI, on the same images.
        focusmim: Checkout of FocusMIM, the paper's published code, whose pipeline to measure too.
    """

    only: str = "*"
    list: bool = False
    seconds: float = 1.0
    repeats: int = 5
    threads: int = 1
    seed: int = 0
    out: str | None = None
    overwrite: bool = False
    against: str | None = None
    tolerance: float = 0.1
    peers: bool = False
    focusmim: str | None = None

    def __post_init__(self) -> None:
        validation.number("seconds", self.seconds, 0, open_low=True)
        validation.number("tolerance", self.tolerance, 0, 1, open_high=True)
        validation.whole("repeats", self.repeats, 1, 10_000)
        validation.whole("threads", self.threads, 1, 4096)
        validation.seed_value("seed", self.seed)
        if not isinstance(self.only, str) or not self.only.strip(", "):
            raise InvalidTypeError(f"only must be a pattern such as 'env/*'; got {self.only!r}.")


def run(config: BenchConfig) -> int:
    """Measure; ``foveasim bench``.

    Args:
        config: What to measure.

    Returns:
        0; 1 if a case failed or got slower than ``against`` allows; 130 if Ctrl-C ended it. What was measured by then
        is shown and written.

    Raises:
        FoveasimError: No case of that name, a peer that is not installed, a file that cannot be read or written.
    """
    console = _console()
    cases = select_cases(list_cases(config), config.only)
    if config.list:
        _list(console, cases)
        return 0
    before = None if config.against is None else Report.read(config.against)
    if config.out is not None:
        reads = find_inputs(config.against)
        check_output(config.out, reads, overwrite=config.overwrite, make_parent=True)
    report = measure(config, cases, console)
    _show(console, report)
    if config.out is not None:
        out = choose_final_path(Path(config.out), overwrite=config.overwrite)
        report.write(out)
        console.print(f"written: {escape(str(out))}")
    slower = before is not None and _compare(console, before, report, config)
    return 130 if report.interrupted else int(slower or bool(report.failed))


def list_cases(config: BenchConfig) -> Sequence[Case]:
    """Return every case that a config has, in the order in which they are measured.

    Raises:
        FoveasimError: A peer was asked for that is not there.
    """
    from foveasim.bench.envs import env_cases
    from foveasim.bench.eyes import eye_cases
    from foveasim.bench.networks import network_cases
    from foveasim.bench.window import memory_case, window_cases

    cases = [*eye_cases(), *env_cases(), *network_cases(), *window_cases(), memory_case()]
    if config.peers or config.focusmim is not None:
        from foveasim.bench.peers import ap_gym_cases, check_ap_gym, focusmim_cases

        if config.peers:
            check_ap_gym()
            cases += ap_gym_cases()
        if config.focusmim is not None:
            cases += focusmim_cases(config.focusmim)
    return cases


def select_cases(cases: Iterable[Case], only: str) -> Sequence[Case]:
    """Return the cases whose name fits a pattern, or one of several separated by commas.

    Raises:
        InvalidValueError: None does.
    """
    listed = [*cases]
    patterns = [pattern.strip() for pattern in only.split(",") if pattern.strip()]
    fitting = [case for case in listed if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns)]
    if not fitting:
        groups = ", ".join(dict.fromkeys(f"{case.group}/*" for case in listed))
        raise InvalidValueError(
            f"only must fit the name of a case; {only!r} fits none. There are {groups}; see --list."
        )
    return fitting


def measure(config: BenchConfig, cases: Sequence[Case], console: Console) -> Report:
    """Measure cases one after the other; Ctrl-C ends it with what there is by then."""
    setting = Setting(config.seconds, config.repeats, config.threads, config.seed)
    machine = _machine(config.threads)
    _warn_busy(console, machine)
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    interrupted = False
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with _threads(config.threads), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        try:
            for case in cases:
                progress.update(task, description=case.name)
                try:
                    rows += _rows(case, setting)
                except SkippedError as error:
                    skipped[case.name] = str(error)
                except Exception as error:  # a peer's, or ours: the other figures are still of use
                    failed[case.name] = describe(error)
                progress.advance(task)
        except KeyboardInterrupt:
            interrupted = True
    machine["load_after"] = _load()
    rows = add_ratios(rows)
    rows += compute_goals(rows, GOALS)
    return Report(_versions(), machine, asdict(config), tuple(rows), skipped, failed, interrupted)


def _rows(case: Case, setting: Setting) -> Sequence[Row]:
    return [
        Row(
            f"{case.name}/{ending}" if ending else case.name,
            case.group,
            case.unit,
            figure.value,
            figure.low,
            figure.high,
            case.ratio_to,
        )
        for ending, figure in case.measure(setting).items()
    ]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch and OpenCV use so many threads for as long as the block lasts."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _machine(threads: int) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(),
        "threads": threads,
        "load_before": _load(),
    }


def _cpu() -> str:
    """Return the model of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _load() -> float | None:
    """Return how many processes wanted to run in the last minute, None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _versions() -> dict[str, str]:
    found = {"foveasim": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _warn_busy(console: Console, machine: dict[str, Any]) -> None:
    load = machine["load_before"]
    if load is not None and load > _BUSY * machine["cores"]:
        console.print(
            f"[yellow]The machine is busy (load {load:g} on {machine['cores']} cores): figures will be too low, "
            "ratios unsteady.[/yellow]"
        )


def _console() -> Console:
    """Return a console that is wide enough for the tables where nobody's terminal says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def _list(console: Console, cases: Sequence[Case]) -> None:
    widths = [max(len(getattr(case, part)) for case in cases) for part in ("name", "unit")]
    for case in cases:
        against = f" (to {case.ratio_to})" if case.ratio_to else ""
        line = f"{case.name:{widths[0]}}  {case.unit:{widths[1]}}  {case.about}{against}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _format_figure(value: float) -> str:
    """Write a figure with three digits or more, none of them behind the point where it is large.

    Example:
        >>> _format_figure(123456.7), _format_figure(12.345), _format_figure(0.01234)
        ('123,457', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _show(console: Console, report: Report) -> None:
    machine = report.machine
    loads = [machine["load_before"], machine["load_after"]]
    load = "" if None in loads else f", load {loads[0]:g} before and {loads[1]:g} after"
    options, repeats = report.options, report.options["repeats"]
    console.print(
        f"foveasim {report.versions['foveasim']}, torch {report.versions['torch']} on {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['threads']} thread(s){load}; median and quartiles of {repeats} repeats of "
        f"{options['seconds']:g} s",
        highlight=False,
    )
    figures = Table("case", "median", "quartiles", "unit", "ratio", "to", title_justify="left")
    goals = Table("goal", "here", "quartiles", "unit", "bound", "met", title_justify="left")
    for row in report.rows:
        spread = f"{_format_figure(row.low)} – {_format_figure(row.high)}"
        if row.group == "goal":
            met = "[green]yes[/green]" if row.met else "[red]no[/red]"
            goals.add_row(row.name.partition("/")[2], _format_figure(row.value), spread, row.unit, row.goal, met)
        else:
            ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
            figures.add_row(row.name, _format_figure(row.value), spread, row.unit, ratio, row.ratio_to if ratio else "")
    for table in (figures, goals):
        table.columns[0].overflow = "fold"
        for column in table.columns[1:3]:
            column.justify = "right"
        if table.row_count:
            console.print(table)
    for name, reason in report.skipped.items():
        console.print(f"skipped {name}: {escape(reason)}", highlight=False)
    for name, reason in report.failed.items():
        console.print(f"[red]failed[/red] {name}: {escape(reason)}", highlight=False)
    if report.interrupted:
        console.print("[yellow]Stopped by Ctrl-C: this is what was measured by then.[/yellow]")


def _compare(console: Console, before: Report, report: Report, config: BenchConfig) -> bool:
    """Show what changed; return whether anything got slower."""
    found = compare_reports(before, report, config.tolerance)
    file, same = escape(str(config.against)), same_machine(before, report)
    if not same:
        console.print(
            f"[yellow]{file} is of another machine or number of threads ({escape(str(before.machine.get('cpu')))}, "
            f"{before.machine.get('threads')}): only ratios are compared.[/yellow]"
        )
    _warn_drift(console, before, report, config.tolerance)
    changed = sorted((change for change in found if change.verdict != "same"), key=lambda change: change.gain)
    if changed:
        console.print(_changes_table(changed, file, same))
    slower = sum(change.verdict == "slower" for change in changed)
    console.print(
        f"{len(found)} figures compared with {file}: {slower} slower, {len(changed) - slower} faster by more than "
        f"{config.tolerance:.0%} and the spread; {len(report.rows) - len(found)} have nothing to compare with.",
        highlight=False,
    )
    return slower > 0


def _warn_drift(console: Console, before: Report, report: Report, tolerance: float) -> None:
    """Say so where copying bytes takes another time than it did: then the machine has changed, not foveasim."""
    for row in report.rows:
        old = before.row(row.name)
        if old is not None and row.name.startswith("floor/copy") and abs(row.value / old.value - 1) > tolerance:
            console.print(
                f"[yellow]{row.name} is {row.value / old.value:.2f} x of what it was: the machine itself is quicker or "
                "slower.[/yellow]"
            )


def _changes_table(changed: Sequence[Change], file: str, same: bool) -> Table:
    title = f"against {file}, foveasim before and now{'' if same else ', ratios'}"
    table = Table("case", "before", "now", "unit", "as good as before", title=title, title_justify="left")
    for change in changed:
        colour = "red" if change.verdict == "slower" else "green"
        figures = _format_figure(change.before), _format_figure(change.now)
        unit = change.unit if same or change.unit in ("x", "copies") else "of its reference"
        table.add_row(change.name, *figures, unit, f"[{colour}]{change.gain:.2f} x[/{colour}]")
    return table
