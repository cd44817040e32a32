"""The report of the paper's comparison: a table of the runs, figures, and for each finding whether it held."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foveasim.errors import WeightsError
from foveasim.experiments.paper.figures import draw_accuracies, draw_latent, draw_reconstructions
from foveasim.experiments.paper.findings import PUBLISHED, VERDICTS, ClaimResult, Runs, evaluate_claims, title_of
from foveasim.experiments.paper.run import BATCH, QUICK, UNTRAINED, RunResult, SharedOptions, pretraining_part
from foveasim.runs.whole_files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["write_report"]

LATENT = ("covariance", "covariance_floor", "unit_sparsity", "population_sparsity", "effective_dimension")
COLUMNS = [f.name for f in fields(RunResult) if f.name not in ("right", "latent")]
STAGES = {"untrained": 0, "last": -1}


def write_report(results: list[RunResult], folder: Path, data: str, console: Console) -> None:
    """Write ``paper.csv``, ``accuracy.png``, ``latent.png``, ``reconstructions.png`` and ``report.md``, and print it.

    Args:
        results: What the runs found, at least one.
        folder: Of the comparison, with ``paper.json``; reconstructions are of the networks that lie there.
        data: The labelled images.
        console: Where to print.

    Raises:
        InvalidValueError: No run, runs of different test images, or a run that is there twice.
        WeightsError: ``paper.json`` is missing, a network cannot be read, or the folder cannot be written to.
        SceneError: The data cannot be read.
    """
    runs = Runs(results)
    found = evaluate_claims(runs)
    try:
        config: dict[str, Any] = json.loads((folder / "paper.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"cannot read {folder / 'paper.json'}: {error.strerror or error}. A report is of a folder that "
            "`foveasim paper` wrote."
        ) from error
    shared = SharedOptions(**{name: config[name] for name in SharedOptions.__dataclass_fields__})
    try:
        write_atomically(folder / "paper.csv", _table(results).encode())
        drawn = {
            "accuracy.png": draw_accuracies(folder / "accuracy.png", runs),
            "latent.png": draw_latent(folder / "latent.png", runs),
        }
        picture = folder / "reconstructions.png"
        left_out = draw_reconstructions(picture, runs, folder, shared, data)
        drawn["reconstructions.png"] = len(left_out) < sum(len(runs.trained(network)) for network in runs.networks)
        for name, there in drawn.items():
            if not there:  # an earlier report's would show something else
                (folder / name).unlink(missing_ok=True)
        figures = [name for name, there in drawn.items() if there]
        write_atomically(
            folder / "report.md", ("\n".join(_report(runs, found, config, figures, left_out)) + "\n").encode()
        )
    except OSError as error:
        raise WeightsError(f"cannot write to {folder}: {error.strerror or error}. Choose another folder.") from error
    _show(runs, found, console)
    for line in left_out:
        console.print(f"not in reconstructions.png: {line}", highlight=False, soft_wrap=True)
    written = ", ".join(["paper.csv", *figures, "report.md"])
    console.print(f"wrote {written} to {folder}", highlight=False, soft_wrap=True)


def _table(results: Sequence[RunResult]) -> str:
    """One row for each run, as CSV; what was not measured is empty."""
    text = io.StringIO()
    extra = [f"{name}_{stage}" for name in LATENT for stage in STAGES]
    writer = csv.DictWriter(text, [*COLUMNS, *extra], lineterminator="\n")
    writer.writeheader()
    for result in results:
        points = sorted(result.latent, key=lambda point: point.images_seen)
        latent = {
            f"{name}_{stage}": points[place].measures[name]
            for name in LATENT
            for stage, place in STAGES.items()
            if points
        }
        others = json.dumps(result.others) if result.others else None
        row = {**{name: getattr(result, name) for name in COLUMNS}, "others": others, **latent}
        writer.writerow({name: "" if _missing(value) else value for name, value in row.items()})
    return text.getvalue()


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _conditions(runs: Runs) -> list[tuple[str, str]]:
    """Network and condition of every row of the tables; raw pixels once."""
    return [
        (network, condition)
        for condition in runs.conditions
        for place, network in enumerate(runs.networks)
        if runs.of(network, condition) and not (condition == "pixels" and place)
    ]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation over seeds; the mean alone of one seed, nothing of none."""
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def _accuracy_rows(runs: Runs) -> list[list[str]]:
    measured = [r for n in runs.networks for c in runs.conditions for r in runs.of(n, c)]
    others = sorted({probe for result in measured for probe in result.others})
    head = ["condition", "network", "accuracy, %", "95 %", *(f"by {probe}, %" for probe in others)]
    rows = [[*head, "seeds", "masked error", "images seen", "published, %"]]
    for network, condition in _conditions(runs):
        found, whole = runs.of(network, condition), runs.accuracy(network, condition)
        errors = [r.masked_error for r in found if r.masked_error is not None and not math.isnan(r.masked_error)]
        published = PUBLISHED.get(condition)
        rows.append(
            [
                title_of(condition),
                "" if condition == "pixels" else network,
                _spread([100 * float(r.right.mean()) for r in found]),
                f"{100 * whole.low:.1f} to {100 * whole.high:.1f}",
                *(_spread([100 * r.others[probe] for r in found if probe in r.others]) for probe in others),
                str(len(found)),
                _spread(errors, 4),
                "" if condition in UNTRAINED else _range([r.images_seen for r in found]),
                "" if published is None else f"{100 * published:.1f}",
            ]
        )
    return rows


def _latent_rows(runs: Runs) -> list[list[str]]:
    rows = [["condition", "network", "covariance", "by chance", "units", "population", "dimension"]]
    for network, condition in _conditions(runs):
        series = [sorted(r.latent, key=lambda p: p.images_seen) for r in runs.of(network, condition) if r.latent]
        if not series:
            continue
        both = [
            [float(np.mean([points[place].measures[name] for points in series])) for place in (0, -1)]
            for name in LATENT
        ]
        cells = [f"{a:.{n}f} → {b:.{n}f}" for (a, b), n in zip(both, (1, 1, 3, 3, 1), strict=True)]
        rows.append([title_of(condition), network, *cells])
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    lines = ["| " + " | ".join(row) + " |" for row in body]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines, ""]


def _claims(found: Sequence[ClaimResult]) -> dict[str, list[ClaimResult]]:
    """The findings of each network; those between networks are their own."""
    by_network: dict[str, list[ClaimResult]] = {}
    for finding in found:
        by_network.setdefault(finding.network, []).append(finding)
    return by_network


def _summary(runs: Runs, found: Sequence[ClaimResult]) -> list[str]:
    lines = []
    for network, findings in _claims(found).items():
        if network not in runs.networks:
            lines += [f"- **{network}**: {f.claim}: {f.verdict}. {f.figures}." for f in findings]
            continue
        decided = {v: [f.claim for f in findings if f.verdict == v] for v in VERDICTS}
        tested = sum(len(decided[v]) for v in VERDICTS[:3])
        lines.append(f"- **{network}**: {len(decided['held'])} of {tested} claims held.")
        for verdict in VERDICTS[1:3]:
            if decided[verdict]:
                lines.append(f"  - {verdict}: {'; '.join(decided[verdict])}.")
    same = _agreement(runs, found)
    return [*lines, *([f"- {same}"] if same else []), ""]


def _agreement(runs: Runs, found: Sequence[ClaimResult]) -> str:
    """How many claims got the same verdict with all networks."""
    verdicts: dict[str, list[str]] = {}
    for finding in found:
        if finding.network in runs.networks and finding.verdict in VERDICTS[:3]:
            verdicts.setdefault(finding.claim, []).append(finding.verdict)
    all_run = [v for v in verdicts.values() if len(v) == len(runs.networks) > 1]
    if not all_run:
        return ""
    same = sum(len(set(v)) == 1 for v in all_run)
    return f"{same} of {len(all_run)} claims got the same verdict with {' and '.join(runs.networks)}."


def _finding_rows(runs: Runs, found: Sequence[ClaimResult], *, claimed: bool) -> list[list[str]]:
    """One row for each claim, or for each difference about which nothing is claimed; a column for each network."""
    by_claim: dict[str, dict[str, ClaimResult]] = {}
    for finding in found:
        if finding.network in runs.networks and finding.claimed == claimed:
            by_claim.setdefault(finding.claim, {})[finding.network] = finding
    rows = [["finding" if claimed else "difference", *runs.networks]]
    for claim, cells in by_claim.items():
        rows.append([claim, *(_cell(cells[network]) for network in runs.networks)])
    return rows


def _cell(finding: ClaimResult) -> str:
    if finding.verdict == "not run":
        return "not run"
    return finding.figures if finding.verdict == "reported" else f"**{finding.verdict}**: {finding.figures}"


def _setup(runs: Runs, config: dict[str, Any]) -> list[str]:
    trained = [(network, c) for network in runs.networks for c in runs.trained(network)]
    results = [r for network, c in trained for r in runs.of(network, c)]
    sizes = {r.network: r.parameters for r in results}
    conditions = list(dict.fromkeys(title_of(c) for _, c in trained))
    seeds = sorted({r.seed for r in results})
    if config["recipe"] == "quick":
        recipe = "quick, " + ", ".join(f"{name} {value}" for name, value in QUICK.items())
    else:
        recipe = "published, as the presets say"
    overridden = ", ".join(f"{name} {value}" for name, value in config["options"].items())
    part = "unlabelled images" if pretraining_part(config["data"]).endswith("@unlabeled") else "training part"
    names = [Path(spec).name for spec in config["unlabelled"]] or [f"the {part} of {Path(config['data']).name}"]
    first = runs.of(*(trained[0] if trained else (runs.networks[0], runs.conditions[0])))[0]
    lines = [
        f"- Data: {Path(config['data']).name}; pretraining on {', '.join(names)}, {config['size']} px; readout "
        f"({config['probes'][0]}) tested on {first.tested:,} images, chance {100 * first.chance:.1f} %.",
        f"- Networks: {', '.join(f'{n} ({count:,} parameters)' for n, count in sizes.items()) or 'none trained'}.",
        f"- Conditions: {'; '.join(conditions) or 'none'}.",
        f"- Seeds: {', '.join(map(str, seeds)) or 'none'}; {len(results)} runs trained.",
        f"- Training: {config['epochs']:g} epochs{_seen(results)} (the paper: 500 epochs, 50 million images).",
        f"- Recipe: {recipe}{f'; with {overridden}' if overridden else ''}; {config['precision']}.",
    ]
    minutes = [r.minutes for r in results if r.minutes is not None and r.images_s is not None]
    if minutes:
        lines.append(f"- Time: {sum(minutes) / 60:.1f} hours of training on {config['device']}, all runs together.")
    return [*lines, ""]


def _seen(results: Sequence[RunResult]) -> str:
    return f", {_range([r.images_seen for r in results])} images a run" if results else ""


def _reading(runs: Runs) -> list[str]:
    one = any(len(runs.of(n, c)) == 1 for n in runs.networks for c in runs.trained(n))
    lines = [
        f"Accuracies are of a linear readout of the full images' latent. Intervals are 95 % percentile intervals of "
        f"{runs.draws:,} bootstrap draws, of test images (the same for all runs) and of seeds (independently for each "
        "condition). *Held*: the interval of the difference lies above 0. *Did not hold*: it lies below. *Not "
        "decided*: it contains 0. With few seeds a bootstrap takes the spread between seeds for a little smaller than "
        "it is, and no correction is made for the number of claims.",
    ]
    if one:
        lines += [
            "",
            "**Some conditions have one seed.** Their intervals are over test images alone and do not cover how much "
            "another seed would differ. Of their latent there is no interval, so that nothing about it is decided.",
        ]
    return [*lines, ""]


def _report(
    runs: Runs, found: Sequence[ClaimResult], config: dict[str, Any], figures: Sequence[str], left_out: Sequence[str]
) -> list[str]:
    lines = [
        f"# The paper's comparison on {Path(config['data']).name}",
        "",
        "Weiler, Brucklacher, Pennartz, Bohté (2024), *Masked Image Modeling as a Framework for Self-Supervised "
        "Learning across Eye Movements*, arXiv:2404.08526, repeated by `foveasim paper`.",
        "",
        "## What was run",
        "",
        *_setup(runs, config),
        "## What held",
        "",
        *_summary(runs, found),
        "## Accuracy",
        "",
    ]
    if "accuracy.png" in figures:
        lines += ["![Test accuracy of the linear readout](accuracy.png)", ""]
    lines += [
        *_markdown(_accuracy_rows(runs)),
        "Accuracy: mean ± standard deviation over seeds. Masked error: the loss on validation images under the "
        "condition's own eyes, so not comparable between conditions. Published: STL-10, read off the figure, ± 0.7.",
        "",
        "## Findings",
        "",
        *_reading(runs),
        *_markdown(_finding_rows(runs, found, claimed=True)),
        "Differences about which nothing is claimed:",
        "",
        *_markdown(_finding_rows(runs, found, claimed=False)),
    ]
    latent = _latent_rows(runs)
    if len(latent) > 1:
        lines += ["## Latent", ""]
        lines += ["![The latent over training](latent.png)", ""] if "latent.png" in figures else []
        lines += [
            *_markdown(latent),
            f"Untrained → last, mean over seeds, on validation images in batches of at most {BATCH}. Covariance: sum "
            "of the squared off-diagonal covariances of the standardised units, divided by their number; by chance: "
            "what as many independent units would have. Units, population: sparsity, 1 - mean(r)² / mean(r²).",
            "",
        ]
    lines += ["## Reconstructions", ""]
    if "reconstructions.png" in figures:
        lines += [
            "![What was seen, and what was predicted](reconstructions.png)",
            "",
            "What was seen sharply is shown as seen, and the rest as predicted; of the plain autoencoder, everything "
            "as predicted. Where a condition makes several fixations, the first image has one, the second two, and so "
            "on.",
            "",
        ]
    lines += [f"- Not in the picture: {line}." for line in left_out]
    return lines


def _show(runs: Runs, found: Sequence[ClaimResult], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    for title, rows in (
        ("readout of the latent", [row[:-1] for row in _accuracy_rows(runs)]),
        ("findings", _finding_rows(runs, found, claimed=True)),
        ("differences about which nothing is claimed", _finding_rows(runs, found, claimed=False)),
    ):
        table = Table(title=title, title_justify="left")
        for name in rows[0]:
            table.add_column(name, overflow="fold")
        for row in rows[1:]:
            table.add_row(*(escape(cell.replace("**", "")) for cell in row))
        console.print(table)
    for line in _summary(runs, found):
        if line:
            console.print(escape(line.replace("**", "")), highlight=False, soft_wrap=True)
