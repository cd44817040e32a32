"""The doors of the envs, fuzzed: constructors, options of reset, actions, and fixations on and beyond every edge."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveasim.envs.single import FoveaEnv
from foveasim.envs.tasks.classify import ClassifyVectorEnv
from foveasim.envs.tasks.search import SearchVectorEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades
from foveasim.geometry import clamp_px
from foveasim.scenes.source import ArrayScenes
from foveasim.simulator.simulator import Simulator

Answers = Callable[..., object]

SMALL: dict[str, Any] = {"scenes": "noise", "size": (32, 40), "retina": "disc"}
LONGEST_SIDE_PX = 300
"""Sizes that are allowed and larger than this are left out: they are right, and slow."""

numbers = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, -(2**70), 0.5, -0.5, 1e-300, 1e300, 2.0**53]),
    st.floats(),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-5, 5)),
)
words = st.sampled_from(
    [
        "",
        " ",
        "disc",
        "pyramid",
        "grid",
        "torch",
        "centre",
        "crop",
        "os:system",
        ":",
        "a:b:c",
        "no_such",
        "cpu",
        "é",
        "\0",
    ]
)
arrays = st.sampled_from(
    [
        np.zeros(3),
        np.array(3),
        np.zeros((8, 8), np.uint8),
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((2, 9, 9, 3)),
        np.array([None, 1]),
        torch.zeros(2),
        torch.zeros(0, 2),
        torch.full((1, 2), float("nan")),
    ]
)
odd = st.sampled_from([object(), int, print, b"ab", {1: 2}, {"a": 1}, {}, set(), range(3), 1 + 2j, ..., [[1], [1, 2]]])
atoms = st.one_of(st.none(), st.booleans(), numbers, words)
anything = st.one_of(atoms, st.lists(atoms, max_size=4), st.tuples(atoms, atoms), arrays, odd)

KEYS = (
    "num_envs",
    "scenes",
    "retina",
    "retina_options",
    "size",
    "fit",
    "budget",
    "action_mode",
    "grid",
    "zoom",
    "stop",
)
KEYS += ("belief", "patch", "privileged", "reward", "reward_options", "start", "saccades", "half_life_ms", "cache_mb")
KEYS += ("threads", "autoreset_mode", "output", "device", "render_mode")


def affordable(options: dict[str, Any]) -> bool:
    """Whether what is asked for is refused, or small enough to be tried by the thousand."""
    lanes, size = options.get("num_envs", 1), options.get("size", (1, 1))
    many = isinstance(lanes, int | np.integer) and 64 < lanes <= 1 << 20
    sides = size if isinstance(size, list | tuple) else ()
    large = any(isinstance(side, int | np.integer) and LONGEST_SIDE_PX < side <= 16384 for side in sides)
    threads = options.get("threads")
    return not (many or large or (isinstance(threads, int | np.integer) and 8 < threads <= 1024))


def try_env(make: Callable[..., Any], options: dict[str, Any]) -> None:
    env = make(**options)
    try:
        observation, _ = env.reset(seed=1)
        assert env.observation_space.contains(observation) or options.get("output") == "torch"
        env.step(env.action_space.sample())
    finally:
        env.close()


@given(st.dictionaries(st.sampled_from(KEYS), anything, min_size=1, max_size=2).filter(affordable))
def test_any_option_is_right_or_explained(answers: Answers, options: dict[str, Any]) -> None:
    if not callable(options.get("reward")) or isinstance(options["reward"], type):  # one of one's own does as it likes
        answers(lambda: try_env(FoveaVectorEnv, {**SMALL, **options}), *options, "scenes", "images", "spec", "names")


@given(st.dictionaries(st.sampled_from(("render_mode", "render_size", "device", "size")), anything, min_size=1))
def test_any_option_of_the_single_env(answers: Answers, options: dict[str, Any]) -> None:
    if affordable(options):
        answers(lambda: try_env(FoveaEnv, {**SMALL, **options}), *options)


@given(
    st.sampled_from(("kinds", "set_sizes", "item_px", "split", "count", "scene_seed", "budget", "cost_per_s")), anything
)
def test_any_option_of_search(answers: Answers, name: str, value: object) -> None:
    options = {"size": (64, 64), "retina": "disc", name: value}
    answers(lambda: try_env(SearchVectorEnv, options), name, "seed", "scenes")


@given(st.sampled_from(("readout_scenes", "cost_per_glimpse", "lapse", "split", "stop", "budget", "readout")), anything)
def test_any_option_of_classify(answers: Answers, name: str, value: object) -> None:
    answers(lambda: try_env(ClassifyVectorEnv, {"size": (32, 32), "retina": "disc", "scenes": 3, name: value}))


@pytest.fixture(scope="module")
def pair() -> FoveaVectorEnv:
    return FoveaVectorEnv(2, **SMALL)


@given(st.sampled_from(("seed", "options", "scene", "fixation", "reset_mask")), anything)
def test_any_option_of_reset(answers: Answers, pair: FoveaVectorEnv, name: str, value: object) -> None:
    asked: Any = {name: value} if name in ("seed", "options") else {"options": {name: value}}
    answers(lambda: pair.reset(**asked), name, "scenes", "images", "index", "cannot import", "names nothing")
    with pytest.raises(InvalidValueError):  # whatever came, the env is as good as before
        pair.reset(options={"fixation": (2, 0)})
    first, _ = pair.reset(seed=5)
    again, _ = pair.reset(seed=5)
    assert all((first[key] == again[key]).all() for key in first)


def cast(rows: list[tuple[float, float]], kind: str) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        return np.array(rows, np.float64).astype(kind)


floats = st.lists(st.tuples(st.floats(), st.floats()), max_size=3)
actions = st.one_of(
    anything,
    st.lists(anything, min_size=2, max_size=2),
    st.lists(st.lists(st.one_of(numbers, words), min_size=2, max_size=2), min_size=2, max_size=2),
    st.builds(cast, floats, st.sampled_from(["f8", "f4", "O", "c16"])),
)
MODES: list[dict[str, Any]] = [{}, {"action_mode": "relative"}, {"action_mode": "grid"}, {"zoom": True, "stop": True}]
MODES[3]["retina"] = "pyramid"


@pytest.mark.parametrize("options", MODES, ids=lambda options: "+".join(options) or "absolute")
def test_any_action_moves_as_the_space_says_or_is_explained(answers: Answers, options: dict[str, Any]) -> None:
    env = FoveaVectorEnv(2, **{**SMALL, **options})

    @given(actions)
    def try_action(action: object) -> None:
        env.reset(seed=3)
        before = env.simulator.fixation_px.clone()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = answers(lambda: env.step(action), "action")
        if isinstance(answer, FoveasimError):
            assert torch.equal(env.simulator.fixation_px, before), "refused, and moved all the same"
        else:
            given_ = np.asarray(action.detach() if isinstance(action, torch.Tensor) else action)
            assert env.action_space.contains(given_.astype(env.action_space.dtype))
            assert env.observation_space.contains(answer[0])  # type: ignore[index]

    try_action()


@pytest.mark.parametrize("action", [[["0.5", "0.5"]] * 2, [[True, False]] * 2, [[1j, 0]] * 2, [[None, 0]] * 2])
def test_what_numpy_would_take_for_numbers_is_refused(pair: FoveaVectorEnv, action: object) -> None:
    pair.reset(seed=0)
    with pytest.raises(InvalidTypeError, match="action must be real numbers"):
        pair.step(action)


edges = st.one_of(
    st.floats(-5, 70, width=32),
    st.sampled_from([0.0, -0.0, 56.0, 40.0, 55.99999, 39.99999, 56.00001, -1e-30, 1e-45, 3.4e38, -3.4e38, 2.0**31]),
)


@pytest.mark.parametrize("retina", sorted(set(RETINAS.names()) - {"two_spot"}))
def test_beyond_an_edge_is_at_the_edge(retina: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    far, near = (Simulator(ArrayScenes(image), retina, 1) for _ in range(2))

    @given(st.lists(st.tuples(edges, edges), min_size=1, max_size=4))
    def try_path(path: list[tuple[float, float]]) -> None:
        far.reset(seed=0)
        near.reset(seed=0)
        for point in path:
            target = torch.tensor([point])
            far.step(target)
            near.step(clamp_px(target, (40, 56)))
            assert torch.equal(far.fixation_px, near.fixation_px)
            assert torch.equal(far.glimpse.image, near.glimpse.image)
            assert torch.equal(far.glimpse.acuity, near.glimpse.acuity)
            assert 0 <= float(far.coverage) <= 1
            assert torch.isfinite(far.clock_ms).all()

    try_path()


@given(st.sampled_from(sorted(RETINAS.names())), st.data())
def test_any_option_of_a_retina(answers: Answers, retina: str, data: st.DataObject) -> None:
    fields = [*RETINAS.factory(retina).__dataclass_fields__, "no_such"]  # type: ignore[attr-defined]
    name = data.draw(st.sampled_from(fields))
    value = data.draw(anything)
    options = {"retina": retina, "retina_options": {name: value}}
    answers(lambda: try_env(FoveaVectorEnv, {**SMALL, **options}), name, "scene.objects", "objects")


@given(st.sampled_from(sorted(Saccades.__dataclass_fields__)), anything)
def test_any_option_of_saccades(answers: Answers, name: str, value: Any) -> None:
    answers(lambda: try_env(FoveaVectorEnv, {**SMALL, "saccades": Saccades(**{name: value})}), name)


@pytest.mark.parametrize("env_id", ["foveasim/Glimpse-v0", "foveasim/Search-v0", "foveasim/Classify-v0"])
def test_a_petabyte_is_refused_before_it_is_asked_for(env_id: str) -> None:
    with pytest.raises(InvalidValueError, match=r"num_envs \(lanes\) and size must fit in this machine's memory"):
        gym.make_vec(env_id, num_envs=1 << 20, size=(8192, 8192), retina="disc")


def test_seeds_end_where_the_last_lane_has_none(pair: FoveaVectorEnv) -> None:
    pair.reset(seed=2**63 - 2)
    with pytest.raises(InvalidValueError, match=r"seed must be from 0 to 2\*\*63 - 2"):
        pair.reset(seed=2**63 - 1)
