"""Kills tiny runs of every command that works for long, looks at every file that is left, and goes on.

``python tests/system/stress/kill.py --kills 200 --seed 0``

A kill is one of three, drawn by the seed: ``kill -9`` at a random moment; before the n-th time that a file of the run
is opened, renamed or removed; or in the midst of writing a file, at a random byte (``RLIMIT_FSIZE``). A fifth of the
trials are SIGINT or SIGTERM at a random moment instead, after which the run must end in order within five seconds. Then
every file of the run must be whole and at most one checkpoint interval lost; the run goes on, is perhaps killed again,
and must end as one that nobody disturbed, to the bit, with nothing unfinished left behind.

Runs are forked from one process that has imported everything, so that a kill costs a second instead of five.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tiny_runs import Work, archive_of_noise, look_at, served, tell, told, works

from foveasim.agents.pretraining.trainer import Trainer
from foveasim.agents.rl import engine_sb3 as rl_training  # noqa: F401  # imported before the fork
from foveasim.cli import commands
from foveasim.runs.progress import TrainingDisplay

END_S = 5.0
"""How long a run may take after a signal, in time of the processor: the clock is that of everything else that runs."""


@dataclass(frozen=True)
class Plan:
    """How a run ends: ``moment`` (s), ``touch`` (which), ``byte`` (where), ``SIGINT`` or ``SIGTERM`` (s), or ``""``."""

    kind: str = ""
    at: float = 0.0


def start(words: list[str], out: Path, plan: Plan, log: Path) -> int:
    """Start a run and return its process."""
    for place in range(2):
        tell(place, 0)
    ends = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # a signal waits until the run takes it as the script does
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process
    status = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        _count_steps()
        _count_touches(out, int(plan.at) if plan.kind == "touch" else 0)
        if plan.kind == "byte":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(plan.at), resource.RLIM_INFINITY))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = commands.main(words)
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        raise
    finally:
        sys.stdout.flush()
        os._exit(status)


def _count_steps() -> None:
    """Note how far a run is, in memory that outlives it."""
    train_step, update_steps = Trainer.train_step, TrainingDisplay.update_steps

    def stepped(self: Trainer) -> torch.Tensor:
        loss = train_step(self)
        tell(0, self.step)
        return loss

    def counted(self: TrainingDisplay, done: int) -> None:
        tell(0, done)
        update_steps(self, done)

    Trainer.train_step, TrainingDisplay.update_steps = stepped, counted  # type: ignore[method-assign]


def _count_touches(out: Path, deadly: int) -> None:
    """Count what happens to files of the run, and die before one of them."""
    prefix = str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
            return
        if not str(arguments[0]).startswith(prefix) or (event == "open" and arguments[1] in ("r", "rb")):
            return
        tell(1, told(1) + 1)
        if told(1) == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def follow(process: int, plan: Plan, began_s: float) -> tuple[int, float, float]:
    """Wait for a run to end, as its plan says.

    Returns:
        Its status, and after a signal how long it took, in s of the processor and of the clock.
    """
    sent_s = used_s = 0.0
    while True:
        done, status, used = os.wait4(process, os.WNOHANG)
        now = time.monotonic()
        if done:
            took = (used.ru_utime + used.ru_stime - used_s, now - sent_s) if sent_s else (0.0, 0.0)
            return os.waitstatus_to_exitcode(status), *took
        if plan.kind in ("moment", "SIGINT", "SIGTERM") and not sent_s and now - began_s >= plan.at:
            sent_s, used_s = now, _used_s(process)
            os.kill(process, signal.SIGKILL if plan.kind == "moment" else signal.Signals[plan.kind])
        assert now - began_s < 300, "a run hangs"
        time.sleep(0.002)


def _used_s(process: int) -> float:
    """Return how long a process has used the processor, s."""
    numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def draw(draws: np.random.Generator, work: Work) -> Plan:
    """Draw how a run ends."""
    kind = str(draws.choice(["moment", "touch", "byte", "SIGINT", "SIGTERM"], p=[0.3, 0.3, 0.2, 0.1, 0.1]))
    if kind == "touch":
        return Plan(kind, int(draws.integers(1, work.touched + 1)))
    if kind == "byte":
        return Plan(kind, int(np.exp(draws.uniform(np.log(50), np.log(work.largest)))))
    return Plan(kind, float(draws.uniform(0, work.took_s)))


class Trials:
    """Kills runs, and keeps count."""

    def __init__(self, folder: Path, seed: int, only: str) -> None:
        self.folder, self.draws = folder, np.random.default_rng(seed)
        self.archive = archive_of_noise()
        url, self.server = served(self.archive)
        self.works = {k: w for k, w in works(folder / "data", url, self.archive).items() if only in k}
        self.count: Counter[str] = Counter()
        self.slowest_end_s, self.slowest_clock_s, self.exact, self.unfinished = 0.0, 0.0, True, 0

    def learn(self) -> None:
        """Run everything undisturbed: here, so that runs find modules, kernels and fonts in memory, and as a run."""
        for name, work in self.works.items():
            out = self.folder / "undisturbed" / name.replace(" ", "-")
            out.mkdir(parents=True)
            words = work.words(out)
            if name != "paper":  # whose work is done by processes of its own
                with (self.folder / "log").open("w") as log, contextlib.redirect_stdout(log):
                    assert commands.main(words) == 0, f"{name}: {(self.folder / 'log').read_text()}"
                shutil.rmtree(out)
                out.mkdir()
                words = work.words(out)
            began_s = time.monotonic()
            status, *_ = follow(start(words, out, Plan(), self.folder / "log"), Plan(), began_s)
            assert status == 0, f"{name}: {(self.folder / 'log').read_text()}"
            work.took_s, work.touched = time.monotonic() - began_s, told(1)
            assert not look_at(out, self.archive), f"{name} leaves unfinished files"
            work.expected = work.result(out)
            work.largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
            print(f"{name}: {work.took_s:.2f} s, {work.touched} touches, {len(work.expected)} results", flush=True)

    def trial(self) -> None:
        """Kill a run, perhaps again, and let it come to its end."""
        names = list(self.works)
        shares = np.array([self.works[name].share for name in names])
        name = str(self.draws.choice(names, p=shares / shares.sum()))
        work, out = self.works[name], self.folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        self.exact, self.unfinished = True, 0
        words = work.words(out)
        while True:
            plan = draw(self.draws, work)
            self._end(name, work, words, out, plan)
            words = work.again(out)
            if self.draws.uniform() < 0.5:
                break
        status, *_ = follow(start(words, out, Plan(), self.folder / "log"), Plan(), time.monotonic())
        said = (self.folder / "log").read_text()
        assert status == 0, f"{name} after {plan}: {said}"
        look_at(out, self.archive)
        assert not [*out.rglob(".*")], f"{name} after {plan}: unfinished files stay: {sorted(out.rglob('.*'))}"
        result = work.result(out)
        assert result.keys() == work.expected.keys(), f"{name} after {plan}: {result.keys() ^ work.expected.keys()}"
        other = [key for key, value in work.expected.items() if result[key] != value]
        assert not (self.exact and other), f"{name} after {plan}: {other[:3]} differ from an undisturbed run"
        self.count["ended as undisturbed" if not other else "ended, from another moment than an undisturbed run"] += 1

    def _end(self, name: str, work: Work, words: list[str], out: Path, plan: Plan) -> None:
        began_s = time.monotonic()
        status, took_s, clock_s = follow(start(words, out, plan, self.folder / "log"), plan, began_s)
        said = (self.folder / "log").read_text(errors="replace")
        where = f"{name}, {plan}, status {status}: {said[-2000:]}"
        assert "Traceback" not in said, where
        unfinished = look_at(out, self.archive)
        if plan.kind.startswith("SIG"):
            assert status in (0, 130) and took_s < END_S, f"{took_s:.1f} s; {where}"
            self.slowest_clock_s = max(self.slowest_clock_s, clock_s)
            assert unfinished <= self.unfinished, where  # none of its own
            # A policy's run that was asked to end is saved between two rollouts of its own, where episodes go on.
            self.exact = self.exact and (name != "train" or status == 0)
            self.slowest_end_s = max(self.slowest_end_s, took_s)
            self.unfinished = unfinished
            self.count[f"{plan.kind} {'ended in order' if status else 'came too late'}"] += 1
            return
        if plan.kind == "byte" and status == 1:  # another program wrote, such as ffmpeg, and the run said so
            assert "cannot write" in said, where
        else:
            assert status in (0, -signal.SIGKILL, -signal.SIGXFSZ), where
        if status == 0:
            self.count["was done before it was killed"] += 1
            return
        self.unfinished = unfinished
        self.count[f"killed: {plan.kind}"] += 1
        self.count[f"killed: {name}"] += 1
        self.count["kills"] += 1
        self.count["kills that left unfinished files"] += unfinished > 0
        if work.lost is not None:
            lost, most = work.lost(out)
            assert lost <= most, f"lost {lost} steps, {most} may be; {where}"


@contextlib.contextmanager
def trials(seed: int, only: str) -> Iterator[Trials]:
    """Make everything ready in a folder of its own."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder = Path(tempfile.mkdtemp(prefix="foveasim-kill-"))
    made = Trials(folder, seed, only)
    gc.freeze()  # or every run would copy what it collects
    try:
        made.learn()
        yield made
    finally:
        os.kill(made.server, signal.SIGKILL)
        os.waitpid(made.server, 0)
    shutil.rmtree(folder)  # kept where something failed


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands whose name holds this")
    chosen = parser.parse_args()
    began_s = time.monotonic()
    with trials(chosen.seed, chosen.only) as made:
        try:
            while made.count["kills"] < chosen.kills:
                made.trial()
        except KeyboardInterrupt:
            print("stopped")
        finally:
            for what, number in sorted(made.count.items()):
                print(f"{number:5}  {what}")
            print(
                f"slowest end in order: {made.slowest_end_s:.2f} s of processor, {made.slowest_clock_s:.2f} s of clock"
            )
            print(f"{time.monotonic() - began_s:.0f} s in all", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
