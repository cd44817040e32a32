"""Training on several devices or machines: which of the processes this is, and how their gradients become one.

``torchrun --nproc-per-node 8 -m foveasim pretrain …`` starts the processes and numbers them by environment
variables. A program that was not started so is the only process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from foveasim.errors import FoveasimError, InvalidValueError

__all__ = ["ProcessGroup", "join_processes"]


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run.

    Attributes:
        rank: Which of them this is, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and the terminal."""
        return self.rank == 0

    def part(self, lanes: int) -> slice:
        """Return which lanes of a batch this process works on.

        Raises:
            InvalidValueError: They cannot be shared out evenly.
        """
        if lanes % self.count:
            raise InvalidValueError(f"batch must be a multiple of the {self.count} processes; got {lanes}.")
        each = lanes // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its mean over the processes, in one message.

        Raises:
            FoveasimError: Another process has ended.
        """
        if self.count == 1:
            return
        ours = list(tensors)
        flat = torch.cat([t.flatten() for t in ours])
        with _explain_lost_process():
            dist.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(ours, torch.split(flat, [t.numel() for t in ours]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def require_equal(self, what: str, number: int, device: torch.device) -> None:
        """Make sure that all processes come with the same number.

        Args:
            what: The number's name, for the error.
            number: This process's.
            device: Where this process trains.

        Raises:
            InvalidValueError: They do not.
            FoveasimError: Another process has ended.
        """
        if self.count == 1:
            return
        extremes = torch.tensor([number, -number], device=device)
        with _explain_lost_process():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        maximum, minimum = int(extremes[0]), -int(extremes[1])
        if maximum != minimum:
            raise InvalidValueError(
                f"all processes must have the same {what}; they have from {minimum} to {maximum}. Give every machine "
                "the same data and options, and an out that all of them see."
            )

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            FoveasimError: Another process has ended.
        """
        if self.count > 1:
            with _explain_lost_process():
                dist.barrier()


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Explain in one line that another process has ended, which has printed why."""
    try:
        yield
    except RuntimeError as error:
        raise FoveasimError(
            "another process of this run has ended, and this one cannot go on without it. Mend what that one complains "
            "of, and go on from the last checkpoint by --resume true."
        ) from error


@contextmanager
def join_processes(device: str) -> Iterator[tuple[ProcessGroup, str]]:
    """Join the processes that ``torchrun`` started, for as long as the block lasts.

    Args:
        device: ``"cuda"`` gives each process of a machine a GPU of its own.

    Yields:
        The processes, and this one's device.

    Raises:
        InvalidValueError: More processes than GPUs on this machine.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup(), device
        return
    gpu = torch.device(device).type == "cuda"
    if gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InvalidValueError(
                f"this machine has {torch.cuda.device_count()} GPUs, and this is its process {local + 1}. Start "
                "torchrun with --nproc-per-node of at most as many."
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpu else "gloo", device_id=torch.device(device) if gpu else None)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
