"""How a training run shows itself: a progress bar or plain lines, log.jsonl and, where asked for, TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from foveasim.agents.mim.evaluate import Evaluation
from foveasim.errors import InvalidValueError, WeightsError

if TYPE_CHECKING:
    from foveasim.agents.mim.pretrain import Trainer

__all__ = ["TrainingLog"]

SHOW_EVERY_S = 1.0
LOG_EVERY_S = 15.0


class TrainingLog:
    """Reports a run to the terminal and to files.

    Args:
        folder: Where ``log.jsonl`` is appended to.
        tensorboard: Whether to write TensorBoard files there.

    Raises:
        WeightsError: The folder cannot be written to, or TensorBoard is not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f} %"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0, figures="")
        self._writer: Any = None
        self._losses: list[Tensor] = []
        self._shown_s = self._logged_s = time.monotonic()
        self._images: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "log.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise WeightsError(f"cannot write to {folder}: {error.strerror}. Choose another folder by out.") from error
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise WeightsError("tensorboard is not installed: pip install 'foveasim[rl]'.") from error
            self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def step(self, trainer: Trainer, loss: Tensor) -> None:
        """Take note of a step.

        Raises:
            InvalidValueError: The loss is not finite.
        """
        self._losses.append(loss)
        if self._images is None:
            self._images = trainer.images
        now = time.monotonic()
        if self._console.is_terminal and now - self._shown_s >= SHOW_EVERY_S:
            self._shown_s = now
            rate = trainer.images / max(trainer.elapsed_s, 1e-9)
            self._bar.update(self._task, completed=trainer.progress, figures=self._figures(trainer, rate, float(loss)))
        if now - self._logged_s >= LOG_EVERY_S:
            mean = float(sum(map(float, self._losses)) / len(self._losses))
            if not mean < float("inf"):
                raise InvalidValueError(
                    f"the loss is {mean} at step {trainer.step}. Go on from the last checkpoint with a lower lr."
                )
            rate = (trainer.images - self._images) / (now - self._logged_s)
            self._images, self._logged_s, self._losses = trainer.images, now, []
            self._record(trainer, {"loss": mean, "lr": trainer.learning_rate(), "images_s": rate})
            if not self._console.is_terminal:
                self.say(self._figures(trainer, rate, mean))

    def evaluation(self, trainer: Trainer, evaluation: Evaluation | None) -> None:
        """Take note of a validation."""
        if evaluation is None:
            return
        pairs = list(zip(evaluation.fixations, evaluation.relative, strict=True))
        self._record(trainer, {f"relative_error_{n}": value for n, value in pairs})
        figures = ", ".join(f"{value:.3f} after {n}" for n, value in pairs)
        self.say(f"step {trainer.step}: validation error relative to the visible mean {figures} fixations")

    def _figures(self, trainer: Trainer, rate: float, loss: float) -> str:
        left_s = trainer.elapsed_s * (1 - trainer.progress) / max(trainer.progress, 1e-6)
        return f"step {trainer.step} · loss {loss:.5f} · {rate:.0f} images/s · {left_s / 60:.1f} minutes left"

    def _record(self, trainer: Trainer, figures: dict[str, float]) -> None:
        row = {"step": trainer.step, "images": trainer.images, "minutes": trainer.elapsed_s / 60, **figures}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, trainer.images)
