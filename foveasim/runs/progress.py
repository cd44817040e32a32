"""The progress of a policy's training: a bar or lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["TrainingDisplay"]


class TrainingDisplay:
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

    def print_line(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update_steps(self, done: int) -> None:
        """Move the bar."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=done)

    def update_share(self, done: float) -> None:
        """Move the bar to a share, 0 to 1, of something that comes before the training."""
        if not self._bar.disable:
            self._bar.update(self._task, completed=done * self._total)

    def update_figures(self, row: Mapping[str, float]) -> None:
        """Show the figures of the last interval."""
        text = f"{row['steps']:,} saccades · {row['saccades_s']:.0f}/s"
        text += "".join(f" · {name} {row[name]:.3f}" for name in ("return", "explained_variance") if name in row)
        if self._bar.disable:
            self.print_line(text)
        else:
            self._bar.update(self._task, figures=text)
