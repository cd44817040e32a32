"""Runs agents in free viewing of the images that people viewed, as often, and along where people looked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import metrics
from foveasim.agents.evaluation.scene_runner import LANE_SEEDS, Entry
from foveasim.agents.interface import Agent, Observation, agent_action_mode, agent_grid, agent_needs, agent_size
from foveasim.envs.actions import ActionCode
from foveasim.envs.observation import ObservationCode
from foveasim.errors import AgentError, FoveasimError
from foveasim.eye.retina import Retina
from foveasim.metrics.people import People
from foveasim.registry import describe
from foveasim.scanpath.scanpath import Scanpath
from foveasim.scenes.source import ArrayScenes
from foveasim.simulator.simulator import Simulator

__all__ = [
    "CONDITIONAL_SCORES",
    "AgentScanpaths",
    "DwellTimeAgent",
    "FreeViewingRunner",
    "PriorityMapAgent",
    "make_scanpath",
]

CONDITIONAL_SCORES = ("cnss", "cauc", "cig")
"""Scores of a priority map along the scanpaths of people."""

_PRIOR = 0.01  # of the centre bias in a priority map, so that no pixel is impossible
_STREAMS = "lengths", "durations"  # streams of the random numbers that stand in for what an agent does not have


@runtime_checkable
class PriorityMapAgent(Protocol):
    """An agent with a priority map: how likely it is to fixate each place next."""

    def priority(self, observation: Observation) -> NDArray[np.float32]:
        """Return how likely each place is to be fixated next, of every lane, and go on to the next step.

        Called in place of ``act``, with the same observations, while the eye follows somebody else: what the agent
        remembers of its own fixations it must take from ``observation["fixation"]``.

        Returns:
            (B, h, w) float, 0 or more, over the whole scene on a grid of any size.
        """


@runtime_checkable
class DwellTimeAgent(Protocol):
    """An agent with dwell times: how long each of its fixations lasts."""

    def dwell_ms(self) -> NDArray[np.float32]:
        """Return how long the fixation lasts that the last ``act`` chose, (B,) ms."""


@dataclass(frozen=True, eq=False)
class AgentScanpaths:
    """The scanpaths that one agent made, and what else is known of them.

    Attributes:
        label: What it is called.
        spec: What it was named by.
        privileged: Whether it saw the hidden scene.
        own_durations: Whether durations are its own; otherwise they are drawn from the training people.
        paths: For each image K scanpaths, px of ``People.size``, without the imposed start.
        conditional: (S, 3) float64 by ``CONDITIONAL_SCORES``, or None without a priority map.
    """

    label: str
    spec: str
    privileged: bool
    own_durations: bool
    paths: tuple[tuple[Scanpath, ...], ...]
    conditional: NDArray[np.float64] | None


class FreeViewingRunner:
    """Runs agents in free viewing, K scanpaths an image. Every eye begins at the centre, outside the scanpath.

    The length of a scanpath is drawn from those of the training people, the same for all agents; so are durations where
    an agent has none of its own.

    Args:
        people: Who viewed what.
        retina: With which eye.
        count: K.
        lanes: Scanpaths at a time; it changes nothing but time and memory.
        seed: Of lengths, durations and agents.
        conditional: Whether agents with a priority map are led along the scanpaths of people, too.
    """

    def __init__(
        self,
        people: People,
        retina: Retina,
        count: int = 15,
        *,
        lanes: int = 100,
        seed: int = 0,
        conditional: bool = True,
    ) -> None:
        self.people, self.count, self.seed, self._conditional = people, count, seed, conditional
        self._lanes, self._retina = lanes, retina
        self._source = ArrayScenes(people.image, px_per_deg=people.image_px_per_deg)
        self._simulators: dict[int, Simulator] = {}
        scenes = len(people.image)
        self.lengths = self._draws("lengths").choice(people.lengths, (scenes, count))

    def _draws(self, stream: str) -> np.random.Generator:
        return np.random.default_rng((self.seed, _STREAMS.index(stream)))

    def run(self, entry: Entry, on_progress: Callable[[int], None] = lambda count: None) -> AgentScanpaths:
        """Run an agent on every image, and score its priority map, where it has one, along people's scanpaths.

        Args:
            entry: Who.
            on_progress: Called with the number of scanpaths that were made since the last call, 0 between fixations;
                what it raises ends the run.

        Raises:
            AgentError: The agent raised something, sees only scenes of another size, or broke its protocol.
            FoveasimError: It cannot be built.
        """
        scenes, longest = len(self.people.image), int(self.lengths.max())
        points = np.full((scenes * self.count, longest, 2), np.nan, np.float32)
        drawn = self._draws("durations").choice(self.people.durations_ms, points.shape[:2])
        durations = drawn.astype(np.float32)
        length = self.lengths.ravel()
        own = privileged = maps = False
        for start in range(0, len(length), self._lanes):
            # By image: eyes on one image often see the same, and agents remember what they made of it.
            which = np.arange(start, min(start + self._lanes, len(length)))
            agent = self._agent(entry, start)
            own, maps = isinstance(agent, DwellTimeAgent), isinstance(agent, PriorityMapAgent)
            privileged = "scene" in agent_needs(agent)
            lanes = _Lanes(which // self.count, length[which], start)
            for step, (simulator, observation) in enumerate(self._steps(entry.label, agent, lanes)):
                on_progress(0)
                action = _call(entry.label, agent.act, observation)
                self._move(entry.label, agent, simulator, action, length[which] <= step)
                points[which, step] = simulator.measured.fixation_px
                if isinstance(agent, DwellTimeAgent):
                    durations[which, step] = _durations(entry.label, _call(entry.label, agent.dwell_ms), len(which))
            on_progress(len(which))
        ratio = np.array(self.people.size[::-1]) / np.array(self.people.image_size[::-1])
        paths = [
            make_scanpath(
                torch.from_numpy((points[i, :n] * ratio).astype(np.float32)),
                torch.from_numpy(durations[i, :n].copy()),
                self.people.name[i // self.count],
                f"{i % self.count}",
            )
            for i, n in enumerate(length.tolist())
        ]
        grouped = tuple(tuple(paths[i * self.count : (i + 1) * self.count]) for i in range(scenes))
        conditional = self.score_priority_maps(entry, on_progress) if maps and self._conditional else None
        return AgentScanpaths(entry.label, entry.spec, privileged, own, grouped, conditional)

    def score_priority_maps(
        self, entry: Entry, on_progress: Callable[[int], None] = lambda count: None
    ) -> NDArray[np.float64]:
        """Score the priority map of an agent whose eye is led along the scanpaths of people, (S, 3) float64.

        Fixation i is scored on the map that follows from the start at the centre and the person's fixations 0 to i - 1;
        the first is given. Maps are mixed with 1 % of the centre bias.

        Args:
            entry: Who.
            on_progress: Called with 0 between fixations; what it raises ends the run.

        Raises:
            AgentError: The agent raised something, or what it returned is no map.
        """
        people = self.people
        owner = np.array([i for i, paths in enumerate(people.paths) for path in paths if len(path) > 1], np.int64)
        paths = [path for paths in people.paths for path in paths if len(path) > 1]
        order = np.argsort([len(path) for path in paths], kind="stable")
        scores: list[list[NDArray[np.float64]]] = [[] for _ in people.image]
        for start in range(0, len(order), self._lanes):
            which = order[start : start + self._lanes]
            length = np.array([len(paths[i]) for i in which])
            target = np.zeros((len(which), int(length.max()), 2), np.float32)
            for lane, i in enumerate(which.tolist()):
                points = people.to_image_px(paths[i].fixation_px.numpy())
                target[lane, : len(points)] = np.clip(points, 0, np.array(people.image_size[::-1]))
                target[lane, len(points) :] = target[lane, len(points) - 1]
            agent = self._agent(entry, start)
            lanes = _Lanes(owner[which], length, start)
            for step, (simulator, observation) in enumerate(self._steps(entry.label, agent, lanes)):
                on_progress(0)
                maps = _call(entry.label, agent.priority, observation)  # type: ignore[attr-defined]
                going = np.flatnonzero(length > step)
                if step:
                    density = self._density(entry.label, maps, going, len(which))
                    point = target[going, step]
                    triple = (
                        metrics.nss(density, point),
                        metrics.auc(density, point),
                        metrics.information_gain(density, people.centre_bias, point),
                    )
                    for lane, row in zip(going.tolist(), np.stack(triple, 1), strict=True):
                        scores[int(owner[which[lane]])].append(row)
                simulator.step(torch.from_numpy(target[:, step]))
        return np.array([np.mean(rows, 0) if rows else np.full(3, np.nan) for rows in scores])

    def _density(self, label: str, maps: object, lanes: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """Return maps as densities on the grid of the images, (L, H, W) float64."""
        array = np.asarray(maps, np.float32)
        if array.ndim != 3 or len(array) != count or not np.isfinite(array).all() or (array < 0).any():
            raise AgentError(
                f"agent {label!r}: priority() must return ({count}, h, w) finite numbers, 0 or more; got {array.shape}."
            )
        chosen = torch.from_numpy(array[lanes])[:, None]
        wide = F.interpolate(chosen, self.people.image_size, mode="bilinear", align_corners=False)[:, 0].numpy()
        total = wide.sum((1, 2), dtype=np.float64)
        if not (total > 0).all():
            raise AgentError(f"agent {label!r}: priority() must be above 0 somewhere in every lane.")
        density: NDArray[np.float64] = (1 - _PRIOR) * wide / total[:, None, None] + _PRIOR * self.people.centre_bias
        return density

    def _agent(self, entry: Entry, start: int) -> Agent:
        agent = entry.make(LANE_SEEDS * self.seed + start)
        wanted, size = agent_size(agent), self.people.image_size
        if wanted is not None and wanted != size:
            raise AgentError(
                f"agent {entry.label!r} sees only scenes of {wanted[0]} x {wanted[1]} px; these are {size[0]} x "
                f"{size[1]}, and people saw them whole."
            )
        return agent

    def _steps(self, label: str, agent: Agent, lanes: _Lanes) -> Iterator[tuple[Simulator, Observation]]:
        """Yield what there is to see before each step; whoever takes it moves the eyes."""
        needs, size = agent_needs(agent), self.people.image_size
        simulator = self._simulator(len(lanes.scene))
        seeds = LANE_SEEDS * self.seed + lanes.start + np.arange(len(lanes.scene))
        simulator.reset(seed=seeds.tolist(), index=lanes.scene.tolist())
        if "patch" in needs and simulator.glimpse.patch is None:
            raise AgentError(
                f"agent {label!r} needs the receptors of a retina; {self._retina.name!r} has none. "
                "Use --retina window, multiscale or log_polar."
            )
        observation_code = ObservationCode("belief" in needs, "patch" in needs, "scene" in needs)
        half = np.array([[size[1] / 2, size[0] / 2]], np.float32)
        _call(label, agent.reset, np.ones(len(lanes.scene), np.bool_))
        for made in range(int(lanes.length.max())):
            left = np.maximum(0, 1 - made / lanes.length).astype(np.float32)[:, None]
            yield simulator, observation_code.build(simulator, half, left)

    def _move(self, label: str, agent: Agent, simulator: Simulator, action: object, done: NDArray[np.bool_]) -> None:
        """Move the eyes; those whose scanpath is at its end stay, so that what they see is known already."""
        size = self.people.image_size
        action_code = ActionCode(agent_action_mode(agent), agent_grid(agent))
        half = np.array([[size[1] / 2, size[0] / 2]], np.float32)
        try:
            checked = action_code.validate(action, simulator.lanes)
        except FoveasimError as error:
            raise AgentError(f"agent {label!r}: {error}") from error
        here = simulator.measured.fixation_px
        target = np.where(done[:, None], here, action_code.decode(checked, here, half, size).target_px)
        simulator.step(torch.from_numpy(target.astype(np.float32)))

    def _simulator(self, lanes: int) -> Simulator:
        if lanes not in self._simulators:
            self._simulators[lanes] = Simulator(self._source, self._retina, lanes, size=self.people.image_size)
        return self._simulators[lanes]


@dataclass(frozen=True, eq=False)
class _Lanes:
    """Eyes at work: (B,) the scene and the number of fixations of each, and the place of the first among all."""

    scene: NDArray[np.int64]
    length: NDArray[np.int64]
    start: int


def _call(label: str, method: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return method(*arguments)
    except FoveasimError:
        raise
    except Exception as error:
        raise AgentError(
            f"agent {label!r} raised {describe(error)}. Mend what raises there; try it by foveasim check."
        ) from error


def _durations(label: str, value: object, lanes: int) -> NDArray[np.float32]:
    array = np.asarray(value, np.float32)
    if array.shape != (lanes,) or not np.isfinite(array).all() or (array < 0).any():
        raise AgentError(f"agent {label!r}: dwell_ms() must return ({lanes},) ms, 0 or more; got {value!r}.")
    return array


def make_scanpath(fixation_px: Tensor, duration_ms: Tensor, image: str, subject: str) -> Scanpath:
    """Make the scanpath of fixations (N, 2) float32 that follow each other at once, for (N,) float32 ms each."""
    lasts = duration_ms.to(torch.float64)
    return Scanpath(fixation_px, torch.cumsum(lasts, 0) - lasts, lasts, image, subject)
