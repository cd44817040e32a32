"""Runs agents over scenes, each scene once for each seed, and records what each did and how it scored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim.agents.evaluation.judge import BeliefJudge, Scenes
from foveasim.agents.evaluation.measures import NUMBERS
from foveasim.agents.interface import (
    Agent,
    Imagines,
    agent_action_mode,
    agent_grid,
    agent_needs,
    agent_size,
    explain_missing_need,
)
from foveasim.envs.actions import ActionCode
from foveasim.envs.observation import ObservationCode
from foveasim.errors import AgentError, FoveasimError
from foveasim.eye.retina import Retina
from foveasim.registry import describe
from foveasim.scenes.source import ArrayScenes
from foveasim.simulator.simulator import Simulator

__all__ = ["LANE_SEEDS", "MAX_SCENES", "MAX_SEED", "AgentRun", "Entry", "FixationFrame", "SceneRunner"]

MAX_SCENES = LANE_SEEDS = 1 << 20
"""Scene i of seed s has the lane seed ``LANE_SEEDS * s + i``, so that no two draw the same numbers."""

MAX_SEED = (1 << 12) - 1
"""So that lane seeds stay below 2**32, the most that NumPy's older generators take."""


@dataclass(frozen=True)
class Entry:
    """An agent that takes part.

    Attributes:
        label: What it is called in tables.
        spec: What it was named by.
        make: Builds it from a seed.
    """

    label: str
    spec: str
    make: Callable[[int], Agent]


@dataclass(frozen=True, eq=False)
class FixationFrame:
    """The state after one fixation, as pictures and numbers, for the report.

    Attributes:
        fixation_px: (x, y).
        glimpse: (H, W, 3) uint8.
        belief: (H, W, 3) uint8.
        prediction: (H, W, 3) uint8.
        std: (H, W) float32, or None where the network has none.
        numbers: One for each of ``NUMBERS``.
    """

    fixation_px: tuple[float, float]
    glimpse: NDArray[np.uint8]
    belief: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    std: NDArray[np.float32] | None
    numbers: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class AgentRun:
    """What one agent did. K seeds, S scenes, N fixations.

    Attributes:
        label: What it is called.
        spec: What it was named by.
        privileged: Whether it saw the hidden scene.
        numbers: (K, S, N) float64 for each of ``NUMBERS``.
        fixation_px: (K, S, N, 2) float32.
        amplitude_deg: (K, S, N - 1) float32, of the saccade to each fixation but the first.
        act_ms: Time that the agent took for a step of one eye, among ``lanes`` eyes at once: median.
        lanes: How many those were.
        frames: Scene → N frames with the first seed, for the scenes of the report.
    """

    label: str
    spec: str
    privileged: bool
    numbers: Mapping[str, NDArray[np.float64]]
    fixation_px: NDArray[np.float32]
    amplitude_deg: NDArray[np.float32]
    act_ms: float
    lanes: int
    frames: Mapping[int, Sequence[FixationFrame]]


class SceneRunner:
    """Runs agents over scenes.

    Args:
        scenes: At what.
        retina: With which eye.
        judge: Measures what the network makes of a belief.
        fixations: N, the start at the centre among them.
        seeds: Each scene is run once with each.
        lanes: Scenes at a time.
        report_scenes: Scenes whose frames are recorded.
    """

    def __init__(
        self,
        scenes: Scenes,
        retina: Retina,
        judge: BeliefJudge,
        *,
        fixations: int,
        seeds: Sequence[int],
        lanes: int,
        report_scenes: Sequence[int] = (),
    ) -> None:
        self.scenes, self.judge, self.fixations = scenes, judge, fixations
        self.seeds, self.report_scenes = tuple(seeds), tuple(report_scenes)
        self.lanes = min(lanes, len(scenes.image))
        self._retina, self._source = retina, ArrayScenes(scenes.image)
        self._simulators: dict[int, Simulator] = {}

    def run(self, entry: Entry, on_progress: Callable[[int], None] = lambda count: None) -> AgentRun:
        """Run an agent on every scene, once for each seed.

        Args:
            entry: Who.
            on_progress: Called with the number of scenes that were done since the last call.

        Raises:
            AgentError: The agent raised something, sees only scenes of another size, or broke its protocol.
            FoveasimError: It cannot be built.
        """
        seeds, count, n = len(self.seeds), len(self.scenes.image), self.fixations
        rows = np.empty((seeds, count, n, len(NUMBERS)))
        fixation = np.empty((seeds, count, n, 2), np.float32)
        amplitude = np.empty((seeds, count, n - 1), np.float32)
        frames: dict[int, list[FixationFrame]] = {scene: [] for scene in self.report_scenes}
        times: list[float] = []
        privileged = False
        for place, seed in enumerate(self.seeds):
            for start in range(0, count, self.lanes):
                chunk = np.arange(start, min(start + self.lanes, count))
                agent = entry.make(LANE_SEEDS * seed + start)
                privileged = "scene" in agent_needs(agent)
                frame_lanes = (
                    {scene: int(scene) - start for scene in self.report_scenes if scene in chunk} if place == 0 else {}
                )
                for step, (simulator, took_ms) in enumerate(self._steps(entry.label, agent, chunk, seed)):
                    seen = simulator.measured
                    found, pictures = self.judge.score(
                        chunk, seen.belief, seen.belief_acuity, tuple(frame_lanes.values())
                    )
                    rows[place, chunk, step] = found
                    fixation[place, chunk, step] = seen.fixation_px
                    if step:
                        amplitude[place, chunk, step - 1] = seen.amplitude_deg
                        times.append(took_ms / len(chunk))
                    for scene, lane in frame_lanes.items():
                        x, y = seen.fixation_px[lane].tolist()
                        numbers = dict(zip(NUMBERS, found[lane].tolist(), strict=True))
                        glimpse, belief = simulator.seen[0][lane].copy(), seen.belief[lane].copy()
                        frames[scene].append(FixationFrame((x, y), glimpse, belief, *pictures[lane], numbers))
                on_progress(len(chunk))
        numbers = {name: rows[..., column] for column, name in enumerate(NUMBERS)}
        act_ms = float(np.median(times)) if times else 0.0
        return AgentRun(entry.label, entry.spec, privileged, numbers, fixation, amplitude, act_ms, self.lanes, frames)

    def _steps(
        self, label: str, agent: Agent, chunk: NDArray[np.int64], seed: int
    ) -> Iterator[tuple[Simulator, float]]:
        """Yield the simulator after each fixation, and how long the agent took to choose it, ms."""
        size, wanted = self.scenes.size, agent_size(agent)
        if wanted is not None and wanted != size:
            raise AgentError(
                f"agent {label!r} sees only scenes of {wanted[0]} x {wanted[1]} px; got {size[0]} x {size[1]}. "
                f"Use --size {wanted[0]}x{wanted[1]}."
            )
        needs = agent_needs(agent)
        simulator = self._simulator(len(chunk))
        simulator.reset(seed=(LANE_SEEDS * seed + chunk).tolist(), index=chunk.tolist())
        if "patch" in needs and simulator.glimpse.patch is None:
            raise AgentError(
                f"agent {label!r} needs the receptors of a retina; {self._retina.name!r} has none. "
                "Use --retina window, multiscale or log_polar."
            )
        observation_code = ObservationCode("belief" in needs, "patch" in needs, "scene" in needs)
        action_code = ActionCode(agent_action_mode(agent), agent_grid(agent))
        half = np.array([[size[1] / 2, size[0] / 2]], np.float32)
        yield simulator, 0.0
        threads = None if isinstance(agent, Imagines) else 1
        for made in range(self.fixations - 1):
            left = np.full((len(chunk), 1), 1 - made / (self.fixations - 1), np.float32)
            observation = observation_code.build(simulator, half, left)
            with _threads(threads):
                action, took_ms = _time_act(label, agent, observation, first=made == 0)
            try:
                checked = action_code.validate(action, len(chunk))
            except FoveasimError as error:
                raise AgentError(f"agent {label!r}: {error}") from error
            command = action_code.decode(checked, simulator.measured.fixation_px, half, size)
            simulator.step(torch.as_tensor(command.target_px))
            yield simulator, took_ms

    def _simulator(self, lanes: int) -> Simulator:
        if lanes not in self._simulators:
            self._simulators[lanes] = Simulator(self._source, self._retina, lanes, size=self.scenes.size)
        return self._simulators[lanes]


def _time_act(label: str, agent: Agent, observation: Mapping[str, Any], *, first: bool) -> tuple[Any, float]:
    """Return what an agent chooses, and how long it took, ms."""
    try:
        if first:
            agent.reset(np.ones(len(observation["fixation"]), np.bool_))
        start = time.perf_counter()
        action = agent.act(observation)
    except FoveasimError:
        raise
    except Exception as error:
        raise AgentError(
            f"agent {label!r} raised {describe(error)}. "
            f"{explain_missing_need(error) or 'Mend what raises there; try it by foveasim check.'}"
        ) from error
    return action, 1000 * (time.perf_counter() - start)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch work with so many threads for a while; None leaves it as it is.

    Small tensors are not worth a second thread, and take 30 times as long with it when the cores are busy.
    """
    before = torch.get_num_threads()
    if count is None or count == before or os.cpu_count() == 1:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
