"""Progress of a training run: a progress bar or plain lines, log.jsonl and, on request, TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from foveasim.agents.pretraining.prediction_error import Evaluation
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.runs.whole_files import write_atomically

if TYPE_CHECKING:
    from foveasim.agents.pretraining.trainer import Trainer

__all__ = ["TrainingLog"]

SHOW_EVERY_S = 1.0
LOG_EVERY_S = 15.0


class TrainingLog:
    """Reports a run to the terminal and to files.

    Args:
        folder: Where ``log.jsonl`` is appended to.
        tensorboard: Whether to write TensorBoard files there.
        after: The run so far. What an earlier process noted of later steps, and was killed before their checkpoint, is
            removed: they are made again. None keeps all.
        quiet: Nothing on the terminal.

    Raises:
        WeightsError: The folder cannot be written to, or TensorBoard is not installed.
    """

    def __init__(
        self, folder: Path, tensorboard: bool = False, *, after: Trainer | None = None, quiet: bool = False
    ) -> None:
        self._console = Console(quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0, figures="")
        self._writer: Any = None
        self._losses: list[Tensor] = []
        self._shown_s = self._logged_s = time.monotonic()
        self._since: tuple[int, float, float] | None = None  # images, elapsed_s and pipeline_s at the last note
        self._path = folder / "log.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if after is not None and self._path.is_file():
                _cut(self._path, after.step)
            self._file = self._path.open("ab", buffering=0)  # on a full disk nothing waits to be written at the end
        except OSError as error:
            raise WeightsError(f"cannot write to {folder}: {error.strerror}. Choose another folder by out.") from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise WeightsError("tensorboard is not installed: pip install 'foveasim[rl]'.") from error
            self._writer = SummaryWriter(str(folder), purge_step=None if after is None else after.images + 1)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        if self._writer is not None:
            with self._writing():
                self._writer.close()

    def print(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def step(self, trainer: Trainer, loss: Tensor) -> None:
        """Log a step.

        Raises:
            InvalidValueError: The loss is not finite.
            WeightsError: The log cannot be written.
        """
        self._losses.append(loss)
        if self._since is None:  # the first step may compile
            self._since = trainer.images, trainer.elapsed_s, trainer.pipeline_s
        now = time.monotonic()
        if not self._bar.disable and now - self._shown_s >= SHOW_EVERY_S:
            self._shown_s = now
            self._bar.update(self._task, completed=trainer.progress, figures=self._figures(trainer, float(loss)))
        if now - self._logged_s >= LOG_EVERY_S:
            self.note(trainer)

    def check(self, trainer: Trainer) -> float:
        """Return the mean loss of the steps since the last note.

        Raises:
            InvalidValueError: It is not finite.
        """
        mean = sum(map(float, self._losses)) / max(len(self._losses), 1)
        if not math.isfinite(mean):
            lower = f"--lr {trainer.config.lr / 2:g}"
            remedy = f"Begin anew with a lower lr: {lower}."
            if trainer.checkpoint.is_file():
                remedy = f"Go on from the last checkpoint with a lower lr: --resume true {lower}."
            raise InvalidValueError(f"the loss is {mean} at step {trainer.step}. {remedy}")
        return mean

    def note(self, trainer: Trainer) -> None:
        """Write down loss, learning rate and speed of the steps since the last note, if there were any.

        Raises:
            InvalidValueError: The loss is not finite.
            WeightsError: The log cannot be written.
        """
        mean = self.check(trainer)
        if not self._losses:
            return
        rate, figures = self._speed(trainer)[0], self._figures(trainer, mean)
        self._since = trainer.images, trainer.elapsed_s, trainer.pipeline_s
        self._losses, self._logged_s = [], time.monotonic()
        self._record(trainer, {"loss": mean, "lr": trainer.learning_rate(), "images_s": rate})
        if not self._bar.disable:
            self._bar.update(self._task, completed=trainer.progress, figures=figures)
        else:
            self.print(figures)

    def evaluation(self, trainer: Trainer, evaluation: Evaluation) -> None:
        """Log a validation."""
        pairs = list(zip(evaluation.fixations, evaluation.relative, strict=True))
        self._record(trainer, {f"relative_error_{n}": value for n, value in pairs})
        figures = ", ".join(f"{value:.3f} after {n}" for n, value in pairs)
        self.print(f"step {trainer.step}: validation error relative to the visible mean {figures} fixations")

    def figure(self, trainer: Trainer, name: str, value: float) -> None:
        """Log a figure."""
        self._record(trainer, {name: value})
        self.print(f"step {trainer.step}: {name.replace('_', ' ')} {value:.5f}")

    def picture(self, trainer: Trainer, sheet: NDArray[np.uint8]) -> None:
        """Show a picture, (H, W, 3) uint8, in TensorBoard."""
        if self._writer is not None:
            with self._writing():
                self._writer.add_image("seen_predicted_there", sheet, trainer.images, dataformats="HWC")

    def _speed(self, trainer: Trainer) -> tuple[float, float]:
        """Return images a second, and the share of that time that the pipeline took, since the last note."""
        images, elapsed_s, pipeline_s = self._since or (0, 0.0, 0.0)
        if trainer.elapsed_s == elapsed_s:  # a single step
            images, elapsed_s, pipeline_s = 0, 0.0, 0.0
        took_s = max(trainer.elapsed_s - elapsed_s, 1e-9)
        return (trainer.images - images) / took_s, (trainer.pipeline_s - pipeline_s) / took_s

    def _figures(self, trainer: Trainer, loss: float) -> str:
        left_s = trainer.elapsed_s * (1 - trainer.progress) / max(trainer.progress, 1e-6)
        rate, share = self._speed(trainer)
        return (
            f"step {trainer.step} · loss {loss:.5f} · {rate:.0f} images/s (pipeline {share:.0%}) · {_time(left_s)} left"
        )

    def _record(self, trainer: Trainer, figures: dict[str, float]) -> None:
        row = {
            "step": trainer.step,
            "images": trainer.images,
            "minutes": trainer.elapsed_s / 60,
            "progress": trainer.progress,
            **figures,
        }
        with self._writing():
            self._file.write((json.dumps(row) + "\n").encode())
            if self._writer is not None:
                for name, value in figures.items():
                    self._writer.add_scalar(name, value, trainer.images)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WeightsError(
                f"cannot write {self._path}: {error.strerror or error}. Free some space, and go on from the last "
                "checkpoint by --resume true."
            ) from error


def _time(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> _time(42), _time(605), _time(9000)
        ('42 s', '10 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _cut(path: Path, step: int) -> None:
    """Remove the rows of later steps, and one that was not written to its end."""
    rows: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step and line.endswith(b"\n"):
            rows.append(line)
    write_atomically(path, b"".join(rows))
