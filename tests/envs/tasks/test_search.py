"""Visual search: what is found, what it pays, what is shown, and that single, vector and seeds agree."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from foveasim.agents.builtin.seek import Seek
from foveasim.agents.evaluation.search_slopes import Slope, Trials, draw_slopes, read_trials, search_slope
from foveasim.agents.loading import make_agent
from foveasim.agents.rollout import rollout
from foveasim.drawing.render import GAZE
from foveasim.envs import FoveaVectorEnv
from foveasim.envs.tasks.search import SearchEnv, SearchVectorEnv
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError
from foveasim.images.picture import Picture
from foveasim.scenes.search import Display, SearchScenes

ID = "foveasim/Search-v0"
SMALL: dict[str, Any] = {"size": (64, 64), "item_px": 8, "count": 50}


def make(**options: Any) -> SearchEnv:
    return SearchEnv(**{**SMALL, **options})


def many(lanes: int, **options: Any) -> SearchVectorEnv:
    return SearchVectorEnv(lanes, **{**SMALL, **options})


def norm(point_px: np.ndarray, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return (2 * point_px / np.array(size[::-1]) - 1).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"action_mode": "grid", "stop": True}, {"kinds": ("photos", "letters"), "action_mode": "relative"}],
    ids=str,
)
def test_both_checkers_pass_without_a_warning(options: dict[str, Any]) -> None:
    env = gym.make(ID, **SMALL, **options).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
        check_env_for_sb3(env, skip_render_check=True)


def test_it_is_made_by_id_as_one_env_and_as_many() -> None:
    assert isinstance(gym.make(ID, **SMALL).unwrapped, SearchEnv)
    envs = gym.make_vec(ID, num_envs=3, **SMALL)
    assert isinstance(envs.unwrapped, SearchVectorEnv)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert envs.observation_space["target"].shape == (3, 36, 36, 3)


def test_landing_on_the_target_is_paid_and_ends_the_episode() -> None:
    env = make(cost_per_s=0.2)
    _, info = env.reset(seed=4)
    assert not info["found"]
    _, reward, terminated, truncated, info = env.step(norm(info["sought_px"]))
    assert (terminated, truncated, info["found"]) == (True, False, True)
    assert info["reward_terms"]["found"] == 1
    assert reward == pytest.approx(1 - 0.2 * info["reaction_ms"] / 1000, abs=1e-6)
    assert info["reaction_ms"] == info["clock_ms"] > 250
    assert info["distance_deg"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("share", "found"), [(0.98, True), (1.02, False)])
def test_the_target_is_as_large_as_its_radius(share: float, found: bool) -> None:
    env = make()
    _, info = env.reset(seed=1)
    radius = env.lanes.source.display(0).radius_px
    place = info["sought_px"] + np.array([0.6, 0.8]) * radius * share
    _, _, terminated, _, info = env.step(norm(place))
    assert terminated is found is info["found"]
    assert info["distance_deg"] == pytest.approx(share * radius * (96 / 3.5) / 64, rel=1e-4)


def test_missing_costs_the_time_that_it_takes_until_the_budget_ends_it() -> None:
    env = make(budget=3)
    env.reset(seed=0)
    total, steps, terminated = 0.0, 0, False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        total, steps = total + reward, steps + 1
        assert not truncated
    assert steps == 3
    assert not info["found"]
    assert total == pytest.approx(-0.1 * info["clock_ms"] / 1000, rel=1e-5)


def test_giving_up_costs_nothing_more() -> None:
    env = make(stop=True)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.array([0.5, 0.5, 1.0], np.float32))
    assert (reward, terminated, info["found"]) == (0, True, False)


def test_an_eye_that_begins_on_the_target_has_to_move_to_it() -> None:
    env = make()
    where = env.reset(seed=0)[1]["sought_px"]
    _, info = env.reset(seed=0, options={"fixation": norm(where)})
    assert not info["found"]
    assert env.step(norm(where))[4]["found"]


def test_the_target_is_shown_and_changes_with_the_episode() -> None:
    env = make(kinds="colour")
    targets = []
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        display = env.lanes.source.display(int(env.simulator.index[0]))
        np.testing.assert_array_equal(observation["target"], display.target)
        targets.append(observation["target"].tobytes())
    assert len(set(targets)) > 2
    before = observation["target"].copy()
    env.reset(seed=0)
    np.testing.assert_array_equal(observation["target"], before)


class Altered(SearchScenes):
    """Displays of which some pixels are changed, and the target's place with them."""

    def __init__(self, changed: np.ndarray, away_px: float, **options: Any) -> None:
        super().__init__(**options)
        self._changed, self._away_px = changed, away_px

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        found = super().picture(index)
        image = np.where(self._changed[..., None], 255 - found.image, found.image)
        return Picture(image, found.label, found.name, found.px_per_deg)

    def display(self, index: int) -> Display:
        found = super().display(index)
        return Display(found.kind, found.items_px + self._away_px, found.radius_px, found.px_per_deg, found.target)


@pytest.mark.parametrize("retina", ["disc", "two_spot", "window"])
def test_hidden_pixels_and_the_targets_place_never_reach_an_observation(retina: str) -> None:
    path = [np.array(p, np.float32) for p in ((0.3, -0.2), (-0.9, 0.8), (0.1, 0.1))]

    def episode(changed: np.ndarray, away_px: float) -> list[dict[str, np.ndarray]]:
        source = Altered(changed, away_px, **SMALL)
        env = SearchEnv(scenes=source, size=(64, 64), retina=retina, belief=True)
        seen = [env.reset(seed=3)[0]]
        return seen + [env.step(action)[0] for action in path]

    # The target is put far outside of the scene in both, so that neither episode ends early.
    seen = episode(np.zeros((64, 64), bool), 500.0)
    hidden = seen[-1]["belief_acuity"][..., 0] == 0
    assert hidden.any()
    for before, after in zip(seen, episode(hidden, 900.0), strict=True):
        for key in before:
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_lane_i_is_the_single_env(mode: str) -> None:
    lanes = 3
    envs = many(lanes, autoreset_mode=mode, kinds=("colour", "photos"), budget=4)
    ones = [make(kinds=("colour", "photos"), budget=4) for _ in range(lanes)]
    observation, info = envs.reset(seed=11)
    for lane, env in enumerate(ones):
        alone, alone_info = env.reset(seed=11 + lane)
        assert info["set_size"][lane] == alone_info["set_size"]
        for key, value in alone.items():
            np.testing.assert_array_equal(observation[key][lane], value, err_msg=key)
    done, ends = [False] * lanes, 0
    for step in range(12):
        actions = np.random.default_rng(step).uniform(-1, 1, (lanes, 2)).astype(np.float32)
        if step % 3 == 1:
            actions[0] = norm(envs.task_info()["sought_px"][0])
        observation, reward, terminated, _, info = envs.step(actions)
        for lane, env in enumerate(ones):
            if done[lane] and mode == "NextStep":
                (alone, single_info), gain, ended = env.reset(), 0.0, False
            else:
                alone, gain, ended, _, single_info = env.step(actions[lane])
            lane_info = info["final_info"] if ended and mode == "SameStep" else info
            for key in ("found", "set_size", "reaction_ms", "distance_deg"):
                assert lane_info[key][lane] == pytest.approx(single_info[key], abs=1e-5), key
            if ended and mode == "SameStep":
                np.testing.assert_array_equal(info["final_obs"][lane]["target"], alone["target"])
                alone, _ = env.reset()
            for key, value in alone.items():
                np.testing.assert_array_equal(observation[key][lane], value, err_msg=key)
            assert reward[lane] == pytest.approx(gain, abs=1e-7)
            assert terminated[lane] == ended
            done[lane], ends = ended and mode == "NextStep", ends + ended
    assert ends >= 6


def test_a_copy_goes_on_by_itself() -> None:
    envs = many(2)
    envs.reset(seed=0)
    twin = copy.deepcopy(envs)
    sought = norm(envs.task_info()["sought_px"])
    assert twin.step(sought)[4]["found"].all()
    assert not envs.task_info()["found"].any()
    assert envs.step(sought)[2].all()


def test_tensors_and_arrays_say_the_same() -> None:
    arrays, tensors = many(2), many(2, output="torch")
    arrays.reset(seed=0), tensors.reset(seed=0)
    action = norm(arrays.task_info()["sought_px"])
    one, two = arrays.step(action), tensors.step(torch.from_numpy(action))
    assert isinstance(two[0]["target"], torch.Tensor)
    np.testing.assert_array_equal(one[0]["target"], two[0]["target"].numpy())
    np.testing.assert_allclose(one[1], two[1].numpy())


@pytest.mark.gpu
def test_a_gpu_searches_as_the_cpu_does() -> None:
    here, there = many(3), many(3, device="cuda")
    here.reset(seed=0), there.reset(seed=0)
    action = norm(here.task_info()["sought_px"])
    action[1] = 0
    one, two = here.step(action), there.step(torch.from_numpy(action).cuda())
    assert two[0]["target"].device.type == two[1].device.type == "cuda"
    np.testing.assert_allclose(one[1], two[1].cpu().numpy(), atol=1e-5)
    assert two[2].tolist() == [True, False, True]


def test_splits_show_different_displays() -> None:
    train, test = make(split="train"), make(split="test")
    assert not np.array_equal(train.reset(seed=0)[1]["sought_px"], test.reset(seed=0)[1]["sought_px"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reward": "coverage"}, InvalidValueError, "reward"),
        ({"scenes": "photos"}, InvalidTypeError, "search source"),
        (
            {"scenes": SearchScenes(size=(64, 64)), "kinds": "colour", "size": (64, 64)},
            InvalidValueError,
            "kinds: cannot",
        ),
        ({"scenes": SearchScenes(), "size": (64, 64)}, InvalidValueError, r"\(96, 96\)"),
        ({"cost_per_s": -1}, InvalidValueError, "cost_per_s"),
        ({"kinds": "sounds"}, InvalidValueError, "conjunction"),
        ({"budget": 0}, InvalidValueError, "budget"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SearchEnv(**options)


def test_a_picture_without_a_target_is_refused() -> None:
    env = make()
    with pytest.raises(InvalidValueError, match="no target"):
        env.reset(seed=0, options={"scene": np.zeros((64, 64, 3), np.uint8)})
    first = env.reset(seed=0, options={"scene": 7})[1]
    np.testing.assert_array_equal(first["sought_px"], env.lanes.source.display(7).items_px[0])


def test_the_plain_env_has_no_task() -> None:
    env = FoveaVectorEnv(2, scenes=np.zeros((1, 32, 32, 3), np.uint8), size=(32, 32))
    assert env.task_spaces() == {}
    assert "target" not in env.reset(seed=0)[0]


# Agents and the slope


@pytest.fixture(scope="module")
def searched() -> dict[str, Trials]:
    played = {}
    for name in ("random", "foveasim.agents.builtin.seek:Seek"):
        envs = many(16, kinds="colour", belief=True, autoreset_mode="SameStep", budget=12, split="test")
        played[name.rpartition(":")[2]] = read_trials(rollout(make_agent(name), envs, episodes=96, seed=0))
    return played


def test_looking_for_the_target_finds_it_sooner_than_looking_anywhere(searched: dict[str, Trials]) -> None:
    seek, random = searched["Seek"], searched["random"]
    np.testing.assert_array_equal(seek.set_size, random.set_size)
    assert seek.found.mean() > 0.9 > 0.4 > random.found.mean()
    assert seek.fixations.mean() < random.fixations.mean() / 2
    assert (seek.reaction_ms > 250).all()


def test_seeking_is_seeded_lane_by_lane_and_forgets() -> None:
    envs = many(3, kinds="letters", belief=True)
    seen = [envs.reset(seed=5)[0]]
    seen += [envs.step(np.full((3, 2), x, np.float32))[0] for x in (-0.5, 0.5)]
    whole = Seek(seed=1)
    whole.reset(np.ones(3, bool))
    chosen = [whole.act(observation) for observation in seen]
    alone = Seek(seed=2)
    alone.reset(np.ones(1, bool))
    for observation, choice in zip(seen, chosen, strict=True):
        np.testing.assert_allclose(alone.act({k: v[1:2] for k, v in observation.items()})[0], choice[1], atol=1e-6)
    whole.reset(np.ones(3, bool))
    assert all(not tried for tried in whole._tried)


def test_seeking_never_returns_to_where_it_has_been() -> None:
    agent = Seek()
    agent.reset(np.ones(1, bool))
    env = many(1, kinds="colour", belief=True)
    observation = env.reset(seed=0)[0]
    first = agent.act(observation)
    second = agent.act({**observation, "fixation": first})
    assert np.hypot(*((first - second)[0] * 32)) > 3


def test_seeking_needs_a_target() -> None:
    agent = Seek()
    agent.reset(np.ones(1, bool))
    with pytest.raises(AgentError, match="Search-v0"):
        agent.act({"fixation": np.zeros((1, 2), np.float32)})


def line(sizes: np.ndarray, times: np.ndarray, found: np.ndarray | None = None) -> Trials:
    hit = np.ones(len(sizes), bool) if found is None else found
    return Trials(sizes, hit, times, np.ones(len(sizes), np.int64))


def test_slope_of_a_straight_line_is_exact_and_of_noise_is_covered() -> None:
    sizes = np.repeat([4, 8, 16], 50)
    exact = search_slope(line(sizes, 400 + 20.0 * sizes))
    assert (exact.ms_per_item, exact.intercept_ms) == pytest.approx((20, 400))
    assert exact.high - exact.low == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(exact.mean_ms, [480, 560, 720])
    rng, inside = np.random.default_rng(0), 0
    for _ in range(200):
        noisy = search_slope(line(sizes, 400 + 20.0 * sizes + sizes * rng.normal(0, 10, len(sizes))))
        inside += noisy.low <= 20 <= noisy.high
    assert 180 <= inside <= 200


def test_misses_count_or_are_dropped() -> None:
    sizes = np.array([4, 4, 8, 8, 8])
    times, found = np.array([100.0, 100, 200, 200, 500]), np.array([True, True, True, True, False])
    assert search_slope(line(sizes, times, found)).mean_ms.tolist() == [100, 300]
    dropped = search_slope(line(sizes, times, found), misses="drop")
    assert dropped.mean_ms.tolist() == [100, 200]
    assert dropped.found.tolist() == [1, pytest.approx(2 / 3)]
    with pytest.raises(InvalidValueError, match="misses"):
        search_slope(line(sizes, times), misses="ignore")
    with pytest.raises(InvalidValueError, match="set sizes"):
        search_slope(line(np.full(9, 4), np.ones(9)))


def test_slopes_are_drawn(searched: dict[str, Trials], tmp_path: Any) -> None:
    slopes: dict[str, Slope] = {name: search_slope(trials) for name, trials in searched.items()}
    draw_slopes(tmp_path / "slopes.png", slopes, "search")
    assert (tmp_path / "slopes.png").stat().st_size > 10_000
    with pytest.raises(InvalidValueError, match=r"\.png"):
        draw_slopes(tmp_path / "slopes.pdf", slopes)
    with pytest.raises(InvalidValueError, match="at least one"):
        draw_slopes(tmp_path / "none.png", {})


def test_trials_are_read_off_searches_only() -> None:
    plain = FoveaVectorEnv(1, scenes=np.zeros((1, 32, 32, 3), np.uint8), size=(32, 32), budget=2)
    with pytest.raises(InvalidValueError, match="Search-v0"):
        read_trials(rollout(make_agent("centre"), plain, episodes=1))
    with pytest.raises(InvalidValueError, match="finished"):
        read_trials(rollout(make_agent("centre"), many(1), steps=2))


def test_a_picture_of_the_env_shows_what_is_to_be_found() -> None:
    env = gym.make("foveasim/Search-v0", kinds="colour", render_mode="rgb_array")
    _, info = env.reset(seed=0)
    target = env.unwrapped.lanes.source.display(env.unwrapped.simulator.index.item()).target  # type: ignore[attr-defined]
    sought = env.render()
    assert isinstance(sought, np.ndarray)
    env.step((info["sought_px"] / 48 - 1).astype(np.float32))
    found = env.render()
    assert isinstance(found, np.ndarray)
    colour = target[18, 18]
    below = slice(int(0.72 * len(sought)), None)  # the plot's row

    def count(picture: np.ndarray, what: object) -> int:
        return int((picture[below, : int(0.75 * picture.shape[1])] == what).all(2).sum())

    assert count(sought, colour) > 100
    assert count(found, GAZE) > count(sought, GAZE) + 50
