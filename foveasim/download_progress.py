"""How a download shows itself: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

__all__ = ["DownloadProgress"]

LINE_EVERY_S = 15.0


class DownloadProgress:
    """Shows bytes that come in.

    Args:
        console: Where to; standard output where None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console() if console is None else console
        self._bars = Progress(
            TextColumn("{task.description:11}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self.report: Callable[[int], None] = lambda count: None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a piece of work.

        Args:
            what: A word for it.
            total: Its bytes.
            done: Those that were done before.

        Yields:
            Takes the bytes that were done since it was called last; it is ``report`` of this object as well.
        """
        task = self._bars.add_task(what, total=total, completed=done)
        said_s = time.monotonic()

        def report(count: int) -> None:
            nonlocal done, said_s
            done += count
            self._bars.update(task, completed=done)
            if not self._console.is_terminal and time.monotonic() - said_s >= LINE_EVERY_S:
                said_s = time.monotonic()
                self.say(f"{what}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB")

        self.report = report
        yield report
        self._bars.update(task, total=done, completed=done)  # unpacking knows only a bound on its total
