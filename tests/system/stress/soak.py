"""Many lanes and the window without a screen, for as long as you like: does anything grow?

python tests/system/stress/soak.py --minutes 30 [--lanes 256] [--out soak.json]

Round after round, in one process, the same work: steps of vector envs with several retinas and sources of scenes, in
which lanes end at odds and are reset in the middle; frames of the window, whose agent, retina and scenes are changed;
and now and then a fresh env, a fresh session and a recorded video. After each round the memory, the open file handles,
the threads and the processor time of a step and of a frame are noted. What grew beyond the bounds below fails.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from foveasim.envs import FoveaVectorEnv
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades
from foveasim.scenes.procedural import NoiseScenes

MOST_MB = 24.0
"""Bound on the growth of resident memory from the second quarter of a run to its last, MB of 10**6 bytes. The first
quarter fills caches. Five glimpses of 96 x 96 kept by mistake in each round would pass it in half an hour."""

MOST_HANDLES = 0
"""Bound on the growth of open file handles, and of threads."""

MOST_SLOWER = 1.25
"""Bound on the processor time of a step or a frame in the last quarter, over that in the second; in yardsticks, as the
same work takes half as long again while another process fills caches and memory."""

SIDE = 96
STEPS, FRAMES = 24, 90  # in each round
SHOWN = ("window", "stare")
RARELY = 5  # rounds from one fresh env, session and video to the next


@dataclass
class Round:
    """What was measured after a round.

    Attributes:
        seconds: Since the beginning.
        held_mb: Resident memory after what is free was handed back to the system, MB of 10**6 bytes.
        rss_mb: The same before: what the allocator has not handed back yet counts, too.
        handles: Open file handles.
        threads: Threads of Python.
        cost_ms: Processor time of a step or a frame of each workload.
        yard_ms: Processor time of work that is always the same and cannot grow.
    """

    seconds: float
    held_mb: float
    rss_mb: float
    handles: int
    threads: int
    cost_ms: dict[str, float]
    yard_ms: float


@dataclass
class Verdict:
    """What grew, from the second quarter of the rounds to the last.

    Attributes:
        rounds: How many.
        growth: By what.
        faults: What grew beyond its bound, one line each.
    """

    rounds: int
    growth: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def judge(rounds: Sequence[Round]) -> Verdict:
    """Compare the last quarter of the rounds with the second, median with median.

    Raises:
        ValueError: Fewer than eight rounds.
    """
    if len(rounds) < 8:
        raise ValueError(f"too short: {len(rounds)} rounds, and a verdict needs 8. Give it more minutes.")
    quarter = len(rounds) // 4
    early, late = rounds[quarter : 2 * quarter], rounds[-quarter:]

    def change(of: Callable[[Round], float]) -> tuple[float, float]:
        return statistics.median(map(of, early)), statistics.median(map(of, late))

    verdict = Verdict(len(rounds))
    before, after = change(lambda one: one.rss_mb)
    verdict.growth["memory with what is free, MB"] = after - before
    before, after = change(lambda one: one.held_mb)
    verdict.growth["memory, MB"] = after - before
    if after - before > MOST_MB:
        verdict.faults.append(f"memory grew from {before:.0f} to {after:.0f} MB; {MOST_MB:g} MB are allowed")
    for name in ("handles", "threads"):
        before, after = change(lambda one, name=name: getattr(one, name))  # type: ignore[misc]
        verdict.growth[name] = after - before
        if after - before > MOST_HANDLES:
            verdict.faults.append(f"{name} grew from {before:g} to {after:g}; {MOST_HANDLES} are allowed")
    for name in rounds[0].cost_ms:
        before, after = change(lambda one, name=name: one.cost_ms[name] / one.yard_ms)  # type: ignore[misc]
        verdict.growth[f"{name}, times"] = after / before
        if after > MOST_SLOWER * before:
            verdict.faults.append(f"{name} takes {after / before:.2f} times as long; {MOST_SLOWER:g} times is allowed")
    return verdict


def hand_back() -> None:
    """Let the allocator hand free memory back. It keeps gigabytes of free images between small blocks in use."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def rss_mb() -> float:
    """Return the resident memory of this process, MB of 10**6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def yardstick(room: NDArray[np.uint8]) -> float:
    """Return the processor time of some copying and counting, ms."""
    before = time.process_time()
    for half in range(40):
        np.copyto(room[half % 2], room[1 - half % 2])
        sum(range(10_000))
    return 1000 * (time.process_time() - before)


def handles() -> int:
    """Return how many files are open in this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Eyes:
    """A vector env that is stepped for good."""

    def __init__(self, lanes: int, number: int, **options: Any) -> None:
        self.mode = list(AutoresetMode)[number % 3]
        usual: dict[str, Any] = {"start": "random", "stop": True, "size": (SIDE, SIDE), "budget": 6, "cache_mb": 16}
        usual |= {"saccades": Saccades(scatter=0.1), "autoreset_mode": self.mode}
        self.env = FoveaVectorEnv(lanes, **{**usual, **options})
        self.rng = np.random.default_rng(number)
        self.env.reset(seed=number)

    def __call__(self, steps: int) -> None:
        """Make steps; lanes that have ended begin anew, and now and then so do others, with a new seed or without."""
        env, rng = self.env, self.rng
        for turn in range(steps):
            action = rng.uniform(-1, 1, (env.num_envs, 3)).astype(np.float32)
            action[:, 2] = action[:, 2] - 0.8 * (action[:, 2] > -0.2) * (action[:, 2] < 0.8)  # one in ten stops
            over = env.step(action)[2]
            mask = over if self.mode == AutoresetMode.DISABLED else np.zeros(env.num_envs, bool)
            if turn % 8 == 7:
                mask = mask | (rng.random(env.num_envs) < 0.2)
            if mask.any():
                seed = int(rng.integers(2**40)) if turn % 16 == 15 else None
                env.reset(seed=seed, options={"reset_mask": mask})


class Screen:
    """The window, on pygame's driver that shows nothing; its time goes by frames."""

    def __init__(self, number: int, folder: Path, **options: Any) -> None:
        from foveasim.cli.watch import WatchConfig, open_window

        self.window = open_window(WatchConfig(size=(360, 640), folder=str(folder), seed=number, **options))
        self.window.session.set_speed(4.0)
        self.turn = 0

    def __call__(self, frames: int) -> None:
        """Show frames; every so often the person looks at another scene, through another eye, or as another agent."""
        session = self.window.session
        for _ in range(frames):
            self.turn += 1
            self.window.tick(1000 / 60)
            if self.turn % 40 == 0:
                session.set_retina(("disc", "pyramid", "log_polar")[self.turn // 40 % 3])
            if self.turn % 60 == 0:
                session.set_agent(("walk", "saliency", "surprise")[self.turn // 60 % 3])
            if self.turn % 90 == 0:
                session.next_scene()

    def close(self) -> None:
        """Close the window."""
        self.window.close()


class Stare:
    """What the window does for a frame but showing it, before one scene for good: its scanpath has no end."""

    def __init__(self, number: int) -> None:
        from foveasim.cli.watch import WatchConfig

        config = WatchConfig(seed=number, size=(360, 640), budget=0, agent="walk", network=None, half_life_ms=2000.0)
        self.session = config.open_session(threaded=False)

    def __call__(self, frames: int) -> None:
        """Draw frames of a quarter of a second each."""
        from foveasim.drawing.render import render

        for _ in range(frames):
            self.session.advance(250)
            render(self.session.current_view(), (360, 640))

    def close(self) -> None:
        """Let go of the scenes."""
        self.session.close()


def workloads(lanes: int, folder: Path) -> dict[str, tuple[Callable[[int], None], int]]:
    """Return what is done in each round, and how many steps or frames of it."""
    pictures = np.random.default_rng(0).integers(0, 256, (400, SIDE, SIDE, 3), dtype=np.uint8)
    noise = {"scenes": NoiseScenes(size=(SIDE, SIDE), count=1500), "cache_mb": 8}  # more scenes than the cache may keep
    made: dict[str, tuple[Callable[[int], None], int]] = {
        "disc": (Eyes(lanes, 0, scenes=pictures, retina="disc", belief=True), STEPS),
        "pyramid": (Eyes(lanes, 1, scenes=pictures, retina="pyramid", belief=True), STEPS),
        "log_polar": (Eyes(lanes, 2, scenes="photos", retina="log_polar", belief=True, patch=True), STEPS),
        "patches": (Eyes(lanes, 3, retina="patches", belief=True, half_life_ms=900.0, **noise), STEPS),
        "window": (Screen(0, folder), FRAMES),
        "stare": (Stare(1), FRAMES),
    }
    return made


def fresh(lanes: int, number: int, folder: Path) -> None:
    """Make, use and leave behind an env, a session and a video."""
    from foveasim.recording.record import RecordConfig, record_frames

    env = Eyes(lanes, number, retina=RETINAS.names()[number % len(RETINAS.names())], belief=True)
    env(4)
    env.env.close()
    config = RecordConfig(seed=number, size=(180, 320), network=None)
    record_frames(config, [str(folder / f"{number % 2}.mp4")], 0.5, 10, overwrite=True)


def run(minutes: float, lanes: int, say: Callable[[str], None] = print) -> list[Round]:
    """Work for some minutes; returns what was measured. Ctrl-C ends it early."""
    torch.set_num_threads(1)
    rounds: list[Round] = []
    room = np.zeros((2, 256 * SIDE * SIDE * 3), np.uint8)
    with TemporaryDirectory() as name:
        folder = Path(name)
        work = workloads(lanes, folder)
        for number in range(len(RETINAS.names())):  # what is used for the first time is loaded, and stays
            fresh(lanes, number, folder)
        begin = told = time.monotonic()
        try:
            while time.monotonic() - begin < 60 * minutes or len(rounds) < 8:
                cost, yard = {}, [yardstick(room)]
                for kind, (do, times) in work.items():
                    before = time.process_time()
                    do(times)
                    cost[kind] = 1000 * (time.process_time() - before) / times
                yard.append(yardstick(room))
                if len(rounds) % RARELY == 0:
                    fresh(lanes, len(rounds) // RARELY, folder)
                gc.collect()  # or memory would be that of the moment, before or after a collection
                before_mb = rss_mb()
                hand_back()
                now = time.monotonic()
                grown = (rss_mb(), before_mb, handles(), threading.active_count())
                rounds.append(Round(now - begin, *grown, cost, statistics.mean(yard)))
                if now - told > 60:
                    told = now
                    last = rounds[-1]
                    steps = ", ".join(f"{kind} {ms:.2f} ms" for kind, ms in last.cost_ms.items())
                    say(
                        f"{last.seconds / 60:5.1f} min  {last.held_mb:.0f} MB held, {last.rss_mb:.0f} resident  "
                        f"{last.handles} handles  {last.threads} threads  {steps}"
                    )
        except KeyboardInterrupt:
            say("interrupted")
        finally:
            for do, _ in work.values():
                if isinstance(do, Screen | Stare):
                    do.close()
    return rounds


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; returns 0 where nothing grew, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--lanes", type=int, default=256)
    parser.add_argument("--out", type=Path, help="JSON file for all that was measured")
    options = parser.parse_args(words)
    if not sys.platform.startswith("linux"):
        print("soak: memory and handles are read from /proc, which only Linux has", file=sys.stderr)
        return 2
    rounds = run(options.minutes, options.lanes)
    verdict = judge(rounds)
    if options.out is not None:
        content = {"lanes": options.lanes, **asdict(verdict), "measured": [asdict(one) for one in rounds]}
        options.out.write_text(json.dumps(content, indent=1))
    steps = len(rounds) * sum(kind not in SHOWN for kind in rounds[0].cost_ms) * STEPS * options.lanes
    spent, frames = rounds[-1].seconds / 60, len(rounds) * FRAMES
    print(f"{spent:.1f} minutes, {len(rounds)} rounds, {steps:,} steps, {frames:,} frames of each kind")
    for name, by in verdict.growth.items():
        print(f"  {name}: {by:+.3g}" if "times" not in name else f"  {name}: {by:.3f}")
    for fault in verdict.faults:
        print(f"FAULT {fault}")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
