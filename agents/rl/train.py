"""Training of gaze policies by reinforcement learning: ``foveasim train``.

``foveasim train --preset ppo --data natural.tar@train --validate natural.tar@val --out runs/gaze``

Eyes look at scenes; a frozen network predicts what they do not see, and how much each saccade lowers its error is the
reward. The policy sees features of the same prediction (:mod:`foveasim.agents.rl.features`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from foveasim.agents.rl.train_config import TrainConfig
from foveasim.atomic import make_folder, remove_parts
from foveasim.check import check_device
from foveasim.errors import InvalidValueError
from foveasim.signals import Stop

__all__ = ["Run", "TrainConfig", "run"]


class Run(Protocol):
    """A run that was opened."""

    def run(self) -> int:
        """Train, and return the exit status."""


def run(config: TrainConfig, open_run: Callable[[TrainConfig, Path, Stop], Run] | None = None) -> int:
    """Train a gaze policy. Ctrl-C ends the run after a step, with everything written.

    Args:
        config: How.
        open_run: What builds the run from config, folder and what asks for an end; None goes by ``config.engine``.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM. In ``out``: ``policy.safetensors``, the best on the scenes of validation (the
        last without any), ``last.safetensors``, ``checkpoint.safetensors`` (for ``resume``), ``train.json`` and
        ``curve.png``.

    Raises:
        FoveasimError: An option that cannot be used, data that cannot be read, a folder that holds a run already.
        MissingDependencyError: stable-baselines3 or sb3-contrib is not installed, or Ray for the engine rllib.
    """
    check_device(config.device)
    out = Path(config.out).expanduser()
    _check_folder(out, config)
    threads = torch.get_num_threads()
    stop = Stop("stopping after this step; Ctrl-C again stops at once")
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with stop.listening(), _own_random_state():
            remove_parts(out)  # of a run that was killed while it wrote
            if config.test:
                from foveasim.agents.rl.task_test import run_test  # here: it opens what training does

                return run_test(config, out)
            training = (open_run or _open_run)(config, out, stop)
            stop.patient = True  # until now there is nothing to keep
            return training.run()
    finally:
        torch.set_num_threads(threads)


def _open_run(config: TrainConfig, out: Path, stop: Stop) -> Run:
    if config.engine == "rllib":
        from foveasim.agents.rl.rllib import RllibTraining  # here: it needs Ray

        return RllibTraining(config, out, stop)
    from foveasim.agents.rl.training import Training  # here: it needs stable-baselines3

    return Training(config, out, stop)


def _check_folder(out: Path, config: TrainConfig) -> None:
    """Refuse a folder that cannot be written to, or that holds a run already.

    Raises:
        InvalidValueError: See above.
    """
    there = (out / "checkpoint.safetensors").exists()
    if there and not (config.resume or config.overwrite):
        raise InvalidValueError(
            f"{out} holds a run already. Go on with it by --resume, begin anew by --overwrite, or choose another --out."
        )
    if config.resume and not there:
        raise InvalidValueError(f"there is nothing to resume in {out}: no checkpoint.safetensors. Leave out --resume.")
    if config.resume and config.overwrite:
        raise InvalidValueError("give --resume or --overwrite, not both.")
    try:
        make_folder(out)
    except OSError as error:
        raise InvalidValueError(
            f"out must be a folder that can be written to; got {out}: {error.strerror or error}. Choose another --out."
        ) from error


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Put the global random state back, which stable-baselines3 seeds and draws from."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
