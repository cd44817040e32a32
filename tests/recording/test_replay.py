"""Episodes as files: recorded, read, played again, damaged, and untrusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FlattenObservation

from foveasim.agents.loading import make_agent
from foveasim.cli import commands
from foveasim.envs import FoveaVectorEnv
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError, UntrustedError
from foveasim.eye.masks import Disc
from foveasim.eye.retina import RETINAS
from foveasim.eye.saccade import Saccades
from foveasim.recording.episode import digests, read_episode
from foveasim.recording.record import RecordConfig, record
from foveasim.recording.replay import RecordEpisode, RecordingAgent, record_agent, replay_episode

RNG = np.random.default_rng(0)


def play(env: RecordEpisode, steps: int, **reset: Any) -> RecordEpisode:
    env.reset(**reset)
    for _ in range(steps):
        if env.step(env.action_space.sample())[2]:
            break
    return env


def make(task: str = "Glimpse", **more: Any) -> RecordEpisode:
    small = {} if task != "Glimpse" else {"scenes": "noise", "size": (48, 48), "belief": True}
    env = RecordEpisode(gym.make(f"foveasim/{task}-v0", **{"budget": 4, **small, **more}))
    env.action_space.seed(1)
    return env


def through_a_file(env: RecordEpisode, path: Path) -> Any:
    env.episode.write(path)
    return read_episode(path)


@pytest.mark.parametrize("retina", list(RETINAS))
def test_an_episode_comes_out_the_same(retina: str, tmp_path: Path) -> None:
    more = {"saccades": Saccades(scatter=0.2), "start": "random", "half_life_ms": 700.0, "stop": True}
    episode = through_a_file(play(make(retina=retina, **more), 9, seed=5), tmp_path / "a.json")
    assert replay_episode(episode).same
    assert 2 <= len(episode.steps) <= 5
    assert episode.steps[-1].ended


@pytest.mark.parametrize("more", [{"action_mode": "grid"}, {"action_mode": "grid", "zoom": True}, {"stop": True}])
@pytest.mark.parametrize("number", [0, 3])
def test_so_does_a_later_one_whatever_its_actions(number: int, more: dict[str, Any], tmp_path: Path) -> None:
    env = make(**more)
    env.reset(seed=2**40)
    for _ in range(number):
        env.reset()
    there = {"scene": 7, "fixation": (0.25, -0.5)} if number else {}
    episode = through_a_file(play(env, 9, options=there), tmp_path / "a.json")
    assert episode.made["episode_number"] == (number + 1)
    assert replay_episode(episode).same


@pytest.mark.parametrize("task", ["Search", "Classify"])
def test_so_do_tasks(task: str, tmp_path: Path) -> None:
    assert replay_episode(through_a_file(play(make(task), 9, seed=1), tmp_path / "a.json")).same


def test_a_lane_of_a_vector_env_is_played_by_its_seed() -> None:
    """Its observations are those that the file of the single env holds."""
    many = FoveaVectorEnv(3, scenes="noise", size=(48, 48), belief=True, budget=4)
    _, info = many.reset(seed=5)
    action = RNG.uniform(-1, 1, (3, 2)).astype(np.float32)
    observation = many.step(action)[0]
    env = make()
    env.reset(seed=int(info["seed"][2]))
    env.step(action[2])
    there = env.episode.steps[1].observation
    assert {**there, **digests({key: value[2] for key, value in observation.items()})} == there
    assert replay_episode(env.episode).same


def test_what_differs_is_named(tmp_path: Path) -> None:
    episode = through_a_file(play(make(), 9, seed=5), tmp_path / "a.json")
    steps = list(episode.steps)
    steps[1] = replace(steps[1], action=[0.5, 0.5])
    moved = replay_episode(replace(episode, steps=tuple(steps)))
    assert (moved.same, moved.first) == (False, 2)
    assert {"glimpse", "acuity", "fixation"} <= set(moved.parts) <= {*steps[0].observation, "reward"}
    assert "step 2 of 0 to 4 is the first, in glimpse" in str(moved)
    assert "All versions are the same" in str(moved)
    assert "The scene itself is the same." in str(moved)
    other = replay_episode(
        replace(episode, made={**episode.made, "seed": 6}, versions={**episode.versions, "torch": "2.0"})
    )
    assert (other.first, "(scene)" in other.parts) == (0, True)
    assert "is it the same file?" in str(other)
    assert "torch 2.0 (now " in str(other)
    steps = [*episode.steps[:3], replace(episode.steps[3], ended=True), episode.steps[4]]
    assert (short := replay_episode(replace(episode, steps=tuple(steps)))).first == 3
    assert short.parts == ("ended",)
    same = replay_episode(replace(episode, versions={**episode.versions, "torch": "2.0"}))
    assert same.same
    assert "identical: 5 steps. It was played with torch 2.0" in str(same)


def test_hashes_tell_dtype_shape_and_bits() -> None:
    zero = np.zeros(4, np.float32)
    kinds = [zero, zero.astype(np.float64), zero.reshape(2, 2), -zero, np.nextafter(zero, np.float32(1)), zero[:3]]
    assert len({digests({"a": kind})["a"] for kind in kinds}) == len(kinds)
    strided = np.arange(12, dtype=np.uint8).reshape(3, 4).T
    assert digests({"a": strided}) == digests({"a": strided.copy()})


def test_only_what_a_file_can_hold_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="scenes must be a plain value"):
        make(scenes=RNG.integers(0, 256, (9, 48, 48, 3), dtype=np.uint8))
    with pytest.raises(InvalidValueError, match=r"retina must be a plain value.*retina_options"):
        make(retina=Disc())
    with pytest.raises(InvalidValueError, match=r"options\['scene'\]"):
        make().reset(options={"scene": RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)})
    with pytest.raises(InvalidTypeError, match="without wrappers"):
        RecordEpisode(FlattenObservation(gym.make("foveasim/Glimpse-v0")))
    with pytest.raises(InvalidTypeError, match=r"gym\.make"):
        RecordEpisode(gym.make("CartPole-v1"))
    with pytest.raises(InvalidValueError, match=r"call reset\(\) first"):
        _ = make().episode
    with pytest.raises(InvalidValueError, match="cannot write"):
        play(make(), 1, seed=0).episode.write(tmp_path)


def test_a_file_that_names_code_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_eye.py").write_text("from foveasim.eye.masks import Disc\nclass Own(Disc): ...\n")
    episode = through_a_file(play(make(retina="own_eye:Own"), 2, seed=0), tmp_path / "a.json")
    with pytest.raises(UntrustedError, match="own_eye:Own"):
        replay_episode(episode)
    assert replay_episode(episode, trust=True).same
    assert commands.main(["record", "--replay", str(tmp_path / "a.json")]) == 1
    assert commands.main(["record", "--replay", str(tmp_path / "a.json"), "--trust"]) == 0


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (lambda c: c | {"format": "x"}, "'format' must be"),
    "a list": (lambda c: [c], "'format' must be"),
    "a later format": (lambda c: c | {"format_version": 2}, "Update foveasim"),
    "no steps": (lambda c: c | {"steps": []}, "no steps"),
    "no kind": (lambda c: {k: v for k, v in c.items() if k != "kind"}, "'kind' is missing"),
    "another kind": (lambda c: c | {"kind": "film"}, "kind must be"),
    "no seed": (lambda c: c | {"made": {**c["made"], "seed": None}}, "seed must be of type int"),
    "a wild seed": (lambda c: c | {"made": {**c["made"], "seed": -1}}, "seed must be from 0"),
    "odd steps": (lambda c: c | {"steps": [1, 2]}, "no whole episode"),
    "more in a step": (lambda c: c | {"steps": [{**c["steps"][0], "x": 1}]}, "unknown x"),
    "no hashes": (lambda c: c | {"steps": [{**c["steps"][0], "observation": {"a": 1}}]}, "must be hashes"),
    "a wild reward": (lambda c: c | {"steps": [{**c["steps"][0], "reward": "much"}]}, "reward of step 0"),
    "odd versions": (lambda c: c | {"versions": {"torch": 2}}, "versions must be text"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    play(make(), 2, seed=0).episode.write(tmp_path / "a.json")
    change, message = DAMAGE[damage]
    (tmp_path / "a.json").write_text(json.dumps(change(json.loads((tmp_path / "a.json").read_text()))))
    with pytest.raises(InvalidValueError, match=message):
        read_episode(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\x89PNG\r\n", b"[" * 100_000, b'{"format": NaN'])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InvalidValueError, match=r"a\.json is no episode"):
        read_episode(tmp_path / "a.json")
    with pytest.raises(InvalidValueError, match="cannot read"):
        read_episode(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"id": "os:system"}, "must be of an env of foveasim"),
        ({"id": "foveasim/Nothing-v0"}, "there is no env"),
        ({"kwargs": {"retina": "nothing"}}, "unknown retina"),
        ({"kwargs": {"scenes": "gone.png"}}, r"gone\.png: no such file"),
        ({"kwargs": {"saccades": {"scatter": 0, "legs": 2}}}, "unknown legs"),
    ],
)
def test_what_cannot_be_played_says_so(made: dict[str, Any], message: str) -> None:
    episode = play(make(), 1, seed=0).episode
    with pytest.raises(FoveasimError, match=message):
        replay_episode(replace(episode, made={**episode.made, **made}))


def test_actions_of_a_damaged_file_are_refused() -> None:
    episode = play(make(), 2, seed=0).episode
    for action, message in ((["left"], "must be numbers"), ([7.0, 0.0], r"in \[-1, 1\]")):
        with pytest.raises(FoveasimError, match=message):
            replay_episode(replace(episode, steps=(replace(episode.steps[0], action=action), *episode.steps[1:])))


# Recordings


def config(out: Path, **more: Any) -> RecordConfig:
    return RecordConfig(**{"network": None, "size": (180, 320), "seconds": 1.5, "fps": 10.0, "out": str(out)} | more)


@pytest.mark.parametrize(
    "more",
    [
        {"agent": "raster", "agent_arguments": {"rows": 2, "cols": 2}, "budget": 2, "half_life_ms": 500.0},
        {"agent": "random", "retina": "patches", "scatter": 0.1, "seed": 9, "fovea": 1.0, "max_amplitude_deg": 6.0},
        {"agent": "saliency", "retina": "disc", "retina_options": {"hidden_ratio": 0.6}, "fovea": 0.5, "speed": 2.0},
        {"agent": "seek", "scenes": "search"},
    ],
    ids=["raster", "random", "saliency", "seek"],
)
def test_a_recording_comes_out_the_same(
    more: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(config(tmp_path / "a.gif", **more)) == 0
    episode_file = tmp_path / "a.gif.episode.json"
    assert len(read_episode(episode_file).steps) >= 3
    assert commands.main(["record", "--replay", str(episode_file)]) == 0
    assert "identical" in capsys.readouterr().out
    content = json.loads(episode_file.read_text())
    for step in content["steps"]:
        step["action"] = [[0.9, 0.9]]
    episode_file.write_text(json.dumps(content))
    assert commands.main(["record", "--replay", str(episode_file)]) == 1
    assert "differs: step " in capsys.readouterr().out


def test_an_agent_that_predicts_does_so_while_it_is_noted(tmp_path: Path) -> None:
    assert record(config(tmp_path / "a.gif", agent="surprise", seconds=0.8)) == 0
    assert replay_episode(read_episode(tmp_path / "a.gif.episode.json")).same
    plain, seen = record_agent(make_agent("walk"), "walk"), record_agent(make_agent("surprise"), "surprise")
    assert not hasattr(plain, "imagine")
    assert hasattr(seen, "imagine")


def test_a_noted_agent_sees_no_more_than_it_asks_for() -> None:
    class Spy:
        keys: tuple[str, ...] = ()

        def reset(self, lanes: Any) -> None: ...

        def act(self, observation: Any) -> Any:
            self.keys = tuple(observation)
            return np.zeros((1, 2), np.float32)

    spy, seen = Spy(), {key: np.zeros(1) for key in ("glimpse", "acuity", "fixation", "time", "belief", "scene")}
    agent = RecordingAgent(spy, "spy")
    agent.act(seen)
    assert spy.keys == ("glimpse", "acuity", "fixation", "time")
    assert set(agent.steps[0].observation) == set(seen)


def test_without_an_episode_none_is_written(tmp_path: Path) -> None:
    assert record(config(tmp_path / "a", seconds=0.2, episode=False)) == 0
    assert record(config(tmp_path / "b", seconds=0.2, agent="human")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_camera_cannot_be_played_again(tmp_path: Path) -> None:
    record(config(tmp_path / "a.gif", agent="walk", seconds=0.5))
    episode = read_episode(tmp_path / "a.gif.episode.json")
    for change, message in (({"scenes": "webcam"}, "webcam"), ({"legs": 2}, "unknown legs")):
        made = {**episode.made, "config": {**episode.made["config"], **change}}
        with pytest.raises(InvalidValueError, match=message):
            replay_episode(replace(episode, made=made))
