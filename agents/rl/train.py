"""Training of gaze policies by reinforcement learning: ``foveasim train``.

``foveasim train --preset ppo --data natural.tar@train --validate natural.tar@val --out runs/gaze``

Eyes look at scenes; a frozen network predicts what they do not see, and how much each saccade lowers its error is the
reward. The policy sees features of the same prediction (:mod:`foveasim.agents.gaze_policy.features`).
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
from foveasim.errors import InvalidValueError
from foveasim.runs.interrupts import Stop
from foveasim.runs.outputs import check_folder, inputs_of
from foveasim.validation import check_device

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
    out = _check_folder(config)
    threads = torch.get_num_threads()
    stop = Stop("stopping after this step; Ctrl-C again stops at once")
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with stop.listening(), _own_random_state():
            if config.test:
                from foveasim.agents.rl.task_test import run_test  # here: it opens what training does

                return run_test(config, out)
            training = (open_run or _open_run)(config, out, stop)
            if config.overwrite:  # or a run that is killed before its first checkpoint would leave that of another
                (out / "checkpoint.safetensors").unlink(missing_ok=True)
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


def _check_folder(config: TrainConfig) -> Path:
    """Return the folder of a run; refuse one that cannot be written to, that holds something already, or that is read.

    Raises:
        InvalidValueError: See above.
    """
    sources = config.data, config.validate
    if config.test:  # writes no policy, so that what is tested may lie in the folder
        return check_folder(config.out, inputs_of(sources=sources), overwrite=config.overwrite)
    options = config.retina_options, config.task_options, config.policy_options, config.imitation
    reads = inputs_of(config.network, config.against, config.retina, *options, sources=sources)
    out = Path(config.out).expanduser()
    if config.resume and not (out / "checkpoint.safetensors").exists():
        raise InvalidValueError(
            f"there is nothing to resume in {out}: no checkpoint.safetensors. Leave out --resume, or begin anew by "
            "--overwrite."
        )
    return check_folder(out, reads, resume=config.resume, overwrite=config.overwrite)


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
