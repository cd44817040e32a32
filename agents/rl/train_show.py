"""How the training of a policy shows itself: a bar or lines on the terminal, and a picture of its curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from foveasim.agents.mim.figures import COLOURS, blank_figure, save_figure

__all__ = ["Show", "draw_curve"]


class Show:
    """Reports a run to the terminal.

    Args:
        total: Saccades in all.
    """

    def __init__(self, total: int) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._total = total
        self._task = self._bar.add_task("", total=float(total), figures="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def steps(self, done: int) -> None:
        """Move the bar."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=done)

    def share(self, done: float) -> None:
        """Move the bar to a share, 0 to 1, of something that comes before the training."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=done * self._total)

    def figures(self, row: Mapping[str, float]) -> None:
        """Show what was noted."""
        text = f"{row['steps']:,} saccades · {row['saccades_s']:.0f}/s"
        text += "".join(f" · {name} {row[name]:.3f}" for name in ("return", "explained_variance") if name in row)
        if self._bar.disable:
            self.say(text)
        else:
            self._bar.update(self._task, figures=text)


def draw_curve(path: Path, history: Mapping[str, Any]) -> None:
    """Draw what a run has learned: return against saccades, and its validation beside that of other agents.

    Args:
        path: The file, ``….png``.
        history: What ``train.json`` holds.

    Raises:
        OSError: The file cannot be written.
    """
    validated = [row for row in history["validation"] if row["when"] != "before"]
    figure = blank_figure(9.2 if validated else 5.0, 3.6)
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    rows = [row for row in history["training"] if "return" in row]
    dot = "o" if len(rows) == 1 else None  # a line of one point shows nothing
    panels[0].plot([r["steps"] for r in rows], [r["return"] for r in rows], marker=dot, color=COLOURS[0], linewidth=1.2)
    panels[0].set(xlabel="saccades", ylabel="return of an episode", title="reward, sampled actions")
    if validated:
        axes = panels[1]
        # Of a task the error is minus the return.
        scale, what, title = 1000, "squared error, × 10⁻³", "validation, mean over fixations"
        if history.get("task", "view") != "view":
            scale, what, title = -1, "return of an episode", "validation, likeliest actions"
        steps, errors = [r["steps"] for r in validated], [scale * r["error"] for r in validated]
        axes.plot(steps, errors, "o-", markersize=3.5, color=COLOURS[0], label="policy")
        for label, colour in zip(history["references"], COLOURS[1:] * 9, strict=False):
            axes.axhline(scale * history["references"][label]["error"], color=colour, linestyle="--", label=label)
        axes.set(xlabel="saccades", ylabel=what, title=title)
        axes.legend(fontsize="small", frameon=False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.title.set_fontsize("medium")
    save_figure(figure, path)
