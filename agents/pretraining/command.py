"""Pretraining by masked image modelling: ``foveasim pretrain``.

Eyes look at a batch of images through one retina, one or several fixations a lane; the network predicts the images from
what was seen.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526.
"""

from __future__ import annotations

import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.mim.predictor import compose
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.distributed import ProcessGroup, join_processes
from foveasim.agents.pretraining.log import TrainingLog
from foveasim.agents.pretraining.prediction_error import Evaluation, evaluate
from foveasim.agents.pretraining.trainer import Trainer, refuse_early
from foveasim.errors import FoveasimError, InvalidValueError, WeightsError
from foveasim.eye.retina import make_retina
from foveasim.images.object_masks import with_masks
from foveasim.images.pool import ImagePool, centred
from foveasim.images.reading import read_pool
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.runs.whole_files import remove_parts, write_atomically
from foveasim.validation import check_device

__all__ = ["PretrainConfig", "Trainer", "run", "train"]

PICTURES = 8  # rows of the final picture


def run(config: PretrainConfig) -> Path:
    """Pretrain a network; under ``torchrun``, on several devices or machines at once.

    Args:
        config: How.

    Returns:
        The network's file, ``OUT/NETWORK.safetensors``. Beside it: its model card, ``checkpoint.safetensors`` (for
        ``resume``), ``log.jsonl`` and ``pictures.png`` (rows of three: seen, predicted, there).

    Raises:
        InvalidValueError: An option out of range, a loss that is not finite, or a folder that is not empty or cannot be
            written to.
        SceneError: Data that cannot be read.
        WeightsError: A checkpoint that does not fit, or a folder that cannot be written to.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(1)  # pictures are too small to share; its threads would fight with torch's
    with join_processes(config.device) as (processes, device):
        check_device(device)
        processes.part(config.batch)
        if processes.count > 1 and config.minutes is not None:
            raise InvalidValueError("several processes cannot share a time: give epochs or steps instead of minutes.")
        return _run(replace(config, device=device), processes)


def _run(config: PretrainConfig, processes: ProcessGroup) -> Path:
    refuse_early(config)
    if processes.first:  # which writes; the others would find its files
        reads = find_inputs(
            *(config.start_from, config.network_options, config.retinas),
            sources=(config.data, config.validate, config.masks),
        )
        check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    with warnings.catch_warnings():
        if not processes.first:  # the first has printed it of the same data
            warnings.simplefilter("ignore")
        pool = read_pool(config.data, cache=config.cache, progress=processes.first)
    if config.masks is not None:
        pool = with_masks(pool, config.masks, config.unmasked)
    held_out = centred(read_pool(config.validate), (config.size, config.size)) if config.validate else None
    trainer = train(config, pool, held_out, processes=processes)
    return Path(config.out) / f"{trainer.network.name}.safetensors"


def train(
    config: PretrainConfig,
    pool: ImagePool,
    held_out: NDArray[np.uint8] | None = None,
    *,
    processes: ProcessGroup | None = None,
    quiet: bool = False,
) -> Trainer:
    """Pretrain on images that are in memory; see :func:`run`.

    Args:
        config: How; its ``data``, ``masks`` and ``validate`` are not read.
        pool: The images.
        held_out: (N, size, size, 3) uint8 for validation.
        processes: The processes that train together.
        quiet: Write to the folder, but nothing to the terminal.

    Returns:
        The trainer at the end of its run.
    """
    processes = ProcessGroup() if processes is None else processes
    trainer = Trainer(config, pool, processes)
    processes.require_equal("number of images", len(pool), trainer.device)
    processes.require_equal("number of steps done", trainer.step, trainer.device)
    if not processes.first:
        with _whole_steps(processes) as stop:  # which the first process does, and leaves the others without it
            try:
                while trainer.progress < 1:
                    trainer.train_step()
            except FoveasimError as error:
                if stop.requested:
                    raise KeyboardInterrupt from error
                raise
    else:
        remove_parts(Path(config.out))  # of a run that was killed while it wrote
        if config.overwrite:
            _remove_run(trainer)
        with TrainingLog(Path(config.out), config.tensorboard, after=trainer, quiet=quiet) as log:
            log.print(
                f"{len(pool):,} images, {config.network} with "
                f"{sum(p.numel() for p in trainer.parameters.values()):,} parameters on "
                f"{processes.count} x {config.device}"
            )
            if trainer.progress >= 1:
                log.print(f"nothing is left to do: {trainer.checkpoint} is at step {trainer.step}")
            for change in trainer.changes:
                log.print(f"other than in the run so far: {change}")
            _train(trainer, log, held_out)
    processes.wait()
    return trainer


def _remove_run(trainer: Trainer) -> None:
    """Remove what an earlier run in the folder would leave among the files of this one, or be resumed from."""
    trainer.checkpoint.unlink(missing_ok=True)
    for snapshot in trainer.checkpoint.parent.glob("step-*.safetensors"):
        if re.fullmatch(r"step-\d{8}\.safetensors", snapshot.name):
            snapshot.unlink()


@contextmanager
def _whole_steps(processes: ProcessGroup) -> Iterator[InterruptFlag]:
    """Let Ctrl-C and SIGTERM wait for the end of a step, so that the checkpoint is not of half a one.

    ``torchrun`` passes a Ctrl-C on to all its processes: the first stops, the others are there until it has finished
    its step. A second Ctrl-C stops a single process at once. Who calls this with a handler of Ctrl-C of their own keeps
    it.

    Yields:
        Whether to stop.
    """
    alone = processes.count == 1
    stop = InterruptFlag("stopping after this step; Ctrl-C again stops at once" if alone else "", never_raise=not alone)
    stop.graceful = True
    if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN):
        yield stop
        return
    with stop.listening():
        yield stop


def _train(trainer: Trainer, log: TrainingLog, held_out: NDArray[np.uint8] | None) -> None:
    config = trainer.config
    evaluation: Evaluation | None = None
    saved_s, validated_s = trainer.elapsed_s, trainer.elapsed_s
    snapshots = int(trainer.progress * config.snapshots)
    with _whole_steps(trainer.processes) as stop:
        while trainer.progress < 1:
            if stop.requested:
                _leave(trainer, log, stop)
            try:
                loss = trainer.train_step()
            except KeyboardInterrupt:
                if trainer.checkpoint.is_file():
                    log.print(f"stopped in the middle of a step. Go on from {trainer.checkpoint} with --resume true.")
                raise
            log.step(trainer, loss)
            if int(trainer.progress * config.snapshots) > snapshots:
                snapshots = int(trainer.progress * config.snapshots)
                trainer.export(None, f"step-{trainer.step:08d}")
            if held_out is not None and trainer.elapsed_s - validated_s >= 60 * config.validate_minutes:
                validated_s = trainer.elapsed_s
                evaluation = _validate(trainer, log, held_out, stop)
            by_steps = config.checkpoint_steps is not None and trainer.step % config.checkpoint_steps == 0
            if by_steps or trainer.elapsed_s - saved_s >= 60 * config.checkpoint_minutes:
                saved_s = trainer.elapsed_s
                log.check(trainer)
                trainer.save()
                trainer.export(evaluation)
                if held_out is None and config.tensorboard:
                    log.picture(trainer, _sheet(trainer, None))
        log.note(trainer)
        if held_out is not None:
            evaluation = _validate(trainer, log, held_out, stop)
        stop.finishing = True
        trainer.save()
        path = trainer.export(evaluation)
        sheet = _sheet(trainer, held_out)
        log.picture(trainer, sheet)
        _write_picture(Path(config.out) / "pictures.png", sheet)
        log.print(f"wrote {path}")


def _leave(trainer: Trainer, log: TrainingLog, stop: InterruptFlag) -> NoReturn:
    """Write what there is, say how to go on, and end.

    Raises:
        KeyboardInterrupt: Always.
    """
    stop.finishing = True
    log.note(trainer)
    trainer.save()
    log.print(f"stopped after step {trainer.step}: {trainer.checkpoint} is written. Go on with --resume true.")
    raise KeyboardInterrupt


def _validate(
    trainer: Trainer, log: TrainingLog, held_out: NDArray[np.uint8], stop: InterruptFlag
) -> Evaluation | None:
    """Measure how good the network is, for as long as nobody asks for an end: that may take longer than many steps.

    Raises:
        KeyboardInterrupt: Somebody did; the checkpoint is written.
    """
    try:
        with stop.interruptible():
            return _measure(trainer, log, held_out)
    except KeyboardInterrupt:
        _leave(trainer, log, stop)


def _measure(trainer: Trainer, log: TrainingLog, held_out: NDArray[np.uint8]) -> Evaluation | None:
    """Measure the loss under the run's own eyes and, where something is hidden, the error after some fixations."""
    log.figure(trainer, "validation_loss", trainer.validation_loss(held_out))
    log.picture(trainer, _sheet(trainer, held_out))
    if trainer.config.loss == "all":
        return None
    retina = make_retina("disc", hidden_ratio=0.8)
    with trainer.averaged() as network:
        evaluation = evaluate(network, held_out, retina, device=trainer.config.device)
    log.evaluation(trainer, evaluation)
    return evaluation


def _sheet(trainer: Trainer, held_out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Rows of what was seen, what was predicted and what was there: three columns for each retina.

    Returns:
        (H, W, 3) uint8.
    """
    held = None if held_out is None else held_out[:: max(1, len(held_out) // PICTURES)][:PICTURES]
    columns = []
    for place in range(len(trainer.retinas)):
        batch = trainer.sample(PICTURES, place, held)
        with trainer.averaged() as network, torch.inference_mode():
            predicted = network(batch.image, batch.acuity)[0]
            if trainer.config.loss != "all":
                predicted = compose(batch.image, batch.acuity, predicted)
        panels = (batch.image, predicted, batch.target)
        columns += [torch.cat(list(part.float().clamp(0, 1)), 1) for part in panels]
    sheet = torch.cat(columns, 2).permute(1, 2, 0)
    return (sheet * 255).round().to(torch.uint8).cpu().numpy()


def _write_picture(path: Path, sheet: NDArray[np.uint8]) -> None:
    done, content = cv2.imencode(".png", np.ascontiguousarray(sheet[:, :, ::-1]))
    try:
        write_atomically(path, content.tobytes() if done else b"")
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}. Free some space.") from error
