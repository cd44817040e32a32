"""`foveasim compare`: agents are run, a network judges, files are written."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor

from foveasim.agents.evaluation.entries import choose_references, default_agents, open_entries
from foveasim.agents.evaluation.judge import BeliefJudge, Scenes
from foveasim.agents.evaluation.scene_runner import LANE_SEEDS, AgentRun, Entry, SceneRunner
from foveasim.agents.evaluation.scenes import read_scenes
from foveasim.agents.loading import AGENTS, make_agent
from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.mim.predictor import Predictor
from foveasim.agents.pretraining.prediction_error import evaluate
from foveasim.cli.commands import main
from foveasim.errors import AgentError, InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.experiments.compare.command import CompareConfig, compare, run
from foveasim.experiments.compare.table import GAP, WIDE, show_table
from foveasim.eye.retina import make_retina
from foveasim.types import Prediction


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """Five small scenes."""
    return read_scenes("shapes", (48, 64), limit=5)


@functools.cache
def untrained() -> MimNetwork:
    """One network for all tests: another one has other weights."""
    return make_network("lean")


class Counting(Predictor):
    """Counts the beliefs that it predicts from."""

    def __init__(self) -> None:
        super().__init__(untrained())
        self.count = 0

    def predict(self, image: Tensor, acuity: Tensor) -> Prediction:
        self.count += len(image)
        return super().predict(image, acuity)


def run_agents(
    scenes: Scenes, *agents: Any, retina: str = "disc", predictor: Predictor | None = None, **options: Any
) -> Any:
    """Let agents look; return their runs."""
    judge = BeliefJudge(predictor or Counting(), scenes, 3)
    runner = SceneRunner(
        scenes, make_retina(retina), judge, **{"fixations": 3, "seeds": (0, 1), "lanes": 100, **options}
    )
    return [
        runner.run(Entry(str(agent), str(agent), lambda seed, agent=agent: make_agent(agent, seed=seed)))
        for agent in agents
    ]


def test_shapes_and_the_start_at_the_centre(scenes: Scenes) -> None:
    (found,) = run_agents(scenes, "random")
    assert found.fixation_px.shape == (2, 5, 3, 2)
    assert (found.fixation_px[:, :, 0] == [32, 24]).all()
    assert found.amplitude_deg.shape == (2, 5, 2)
    assert all(values.shape == (2, 5, 3) and np.isfinite(values).all() for values in found.numbers.values())
    assert (np.diff(found.numbers["coverage"], axis=2) >= 0).all()


def test_no_two_looks_draw_alike_and_batches_change_nothing(scenes: Scenes) -> None:
    (whole,), (parts,) = run_agents(scenes, "random"), run_agents(scenes, "random", lanes=2)
    assert np.array_equal(whole.fixation_px, parts.fixation_px)
    for name, values in whole.numbers.items():
        assert values == pytest.approx(parts.numbers[name], rel=1e-4, abs=1e-6)
    second = whole.fixation_px[:, :, 1].reshape(-1, 2)
    assert len(np.unique(second, axis=0)) == 10


def test_retinas_that_draw_do_so_by_scene_and_seed() -> None:
    image = read_scenes("noise", (48, 64), limit=1).image
    alike = Scenes(np.repeat(image, 3, 0), ("a", "b", "c"))  # the same scene thrice: only what is drawn differs
    (whole,), (parts,) = (
        run_agents(alike, "centre", retina="patches"),
        run_agents(alike, "centre", retina="patches", lanes=2),
    )
    first = whole.numbers["mse"][..., 0]
    assert len(np.unique(first)) == 6
    assert first == pytest.approx(parts.numbers["mse"][..., 0], rel=1e-4)


def test_a_belief_is_judged_once(scenes: Scenes) -> None:
    predictor = Counting()
    centre, raster = run_agents(scenes, "centre", "raster", predictor=predictor)
    assert predictor.count == 5 + 2 * 5  # the first view, which both share with all seeds, and two more of raster
    for name in ("mse", "ssim", "coverage"):
        assert (centre.numbers[name] == centre.numbers[name][:1, :, :1]).all()
        assert (centre.numbers[name][..., 0] == raster.numbers[name][..., 0]).all()


def test_the_judge_says_what_evaluate_says() -> None:
    images = read_scenes("shapes", (64, 64), limit=4).image
    network = untrained()
    retina = make_retina("disc", hidden_ratio=0.8)
    one = Scenes(images, ("",) * 4)
    judge = BeliefJudge(Predictor(network), one, 4)
    runner = SceneRunner(one, retina, judge, fixations=1, seeds=(0,), lanes=4)
    numbers = runner.run(Entry("centre", "centre", lambda seed: make_agent("centre"))).numbers
    from foveasim.agents.pretraining import prediction_error as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_fixations", lambda *a, **k: np.full((4, 1, 2), 32, np.float32))
        expected = evaluate(network, images, retina, (1,))
    ratio = numbers["hidden_error"].sum() / numbers["fill_error"].sum()
    assert ratio == pytest.approx(expected.relative[0], rel=1e-4)
    assert numbers["hidden_error"].sum() / numbers["hidden_px"].sum() == pytest.approx(expected.mse[0], rel=1e-4)


class Peeks:
    """Looks at the brightest pixel of the hidden scene."""

    needs = ("scene",)

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        scene = observation["scene"].sum(3)
        lanes, height, width = scene.shape
        row, column = np.divmod(scene.reshape(lanes, -1).argmax(1), width)
        return np.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), 1).astype(np.float32)


def test_agents_get_what_they_need(scenes: Scenes) -> None:
    (found,) = run_agents(scenes, Peeks)
    assert found.privileged
    for scene, image in enumerate(scenes.image):
        x, y = found.fixation_px[0, scene, 1]
        assert image[int(y), int(x)].sum() == image.sum(2).max()


class Steps:
    """Goes right by a quarter of the scene."""

    action_mode = "relative"
    times: ClassVar[list[float]] = []

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        assert lanes.all()

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        self.times.append(float(observation["time"][0, 0]))
        return np.tile(np.float32([0.5, 0]), (len(observation["fixation"]), 1))


class Cells:
    """Looks at the last cell of a 2 x 2 grid."""

    action_mode, grid = "grid", (2, 2)

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.int64]:
        return np.full(len(observation["fixation"]), 3)


def test_actions_are_read_as_the_agent_means_them(scenes: Scenes) -> None:
    steps, cells = run_agents(scenes, Steps, Cells)
    assert steps.fixation_px[0, 0].tolist() == [[32, 24], [48, 24], [64, 24]]
    assert set(Steps.times) == {1.0, 0.5}
    assert cells.fixation_px[0, 0, 1].tolist() == [48, 36]


class Breaks:
    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        raise ZeroDivisionError("no way")


class Strays(Breaks):
    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.full((len(observation["fixation"]), 2), 3, np.float32)


class Small(Cells):
    size = (32, 32)


class Receptors(Cells):
    needs = ("patch",)


@pytest.mark.parametrize(
    ("agent", "message"),
    [(Breaks, "ZeroDivisionError: no way"), (Strays, r"in \[-1, 1\]"), (Small, "32 x 32"), (Receptors, "receptors")],
)
def test_what_an_agent_does_wrong_names_it(scenes: Scenes, agent: type, message: str) -> None:
    with pytest.raises(AgentError, match=message) as raised:
        run_agents(scenes, agent)
    assert agent.__name__ in str(raised.value)


def test_moments_are_those_of_the_first_seed(scenes: Scenes) -> None:
    (found,) = run_agents(scenes, "random", report_scenes=(1, 4), lanes=2, retina="pyramid")
    assert list(found.frames) == [1, 4]
    for scene, frames in found.frames.items():
        assert [m.fixation_px for m in frames] == [tuple(p) for p in found.fixation_px[0, scene].tolist()]
        assert [m.numbers["mse"] for m in frames] == pytest.approx(found.numbers["mse"][0, scene].tolist(), rel=1e-4)
        assert np.array_equal(frames[0].glimpse, frames[0].belief)
        assert not np.array_equal(frames[1].glimpse, frames[1].belief)
        assert frames[0].std is None


# who takes part


def test_default_agents_are_each_once_and_fair() -> None:
    names = default_agents()
    assert {"random", "walk", "spectral_residual"} <= set(names)
    assert "human" not in names
    assert not {"oracle", "beam_oracle", "seek", "search_policy"} & set(names)
    factories = [AGENTS.factory(name) for name in names]
    assert len(set(factories)) == len(factories)


class Wants:
    """Takes what a comparison has to give."""

    def __init__(self, network: object, retina: object = None, colour: object = "", seed: int = 0) -> None:
        self.got = (network, retina, colour, seed)

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.zeros((len(observation["fixation"]), 2), np.float32)


def test_agents_share_what_the_comparison_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS._factories, "wants", Wants)
    common = {"network": "shared", "retina": "eye", "device": "cpu"}
    entries, left_out = open_entries(
        ["wants", "own=wants", "random"], {"own": {"network": "mine", "colour": 1}}, common
    )
    assert not left_out
    assert [entry.label for entry in entries] == ["wants", "own", "random"]
    first, second = (cast("Wants", entry.make(7)) for entry in entries[:2])
    assert first.got == ("shared", "eye", "", 7)
    assert second.got == ("mine", "eye", 1, 7)


class Refuses(Wants):
    def __init__(self, seed: int = 0) -> None:
        raise AgentError("not here")


def test_only_agents_that_nobody_named_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AGENTS, "_factories", {"refuses": Refuses, "centre": "foveasim.agents.builtin.scripted:Centre"})
    entries, left_out = open_entries([], {}, {})
    assert [entry.label for entry in entries][:1] == ["centre"]
    assert "not here" in left_out[0]
    with pytest.raises(AgentError, match="not here"):
        open_entries(["refuses"], {}, {})


def test_mistakes_in_names_are_told() -> None:
    with pytest.raises(InvalidValueError, match="twice"):
        open_entries(["random", "random"], {}, {})
    with pytest.raises(UnknownNameError, match="Did you mean 'random'"):
        open_entries(["randm"], {}, {})
    with pytest.raises(InvalidValueError, match="agent_arguments"):
        open_entries(["random"], {"walk": {}}, {})
    with pytest.raises(InvalidTypeError, match="wings"):
        open_entries(["random"], {"random": {"wings": 2}}, {})
    with pytest.raises(InvalidValueError, match="ceiling must be among"):
        choose_references(["random"], None, "oracle")
    assert choose_references(["walk", "random", "oracle"], None, None) == ("random", "oracle")
    assert choose_references(["walk"], None, None) == ("walk", None)


@pytest.mark.parametrize(
    "options",
    [
        {"fixations": 0},
        {"seeds": 0},
        {"seed": -1},
        {"measure": "beauty"},
        {"data": []},
        {"limit": 0},
        {"size": (8, 8)},
        {"resamples": 1},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        CompareConfig(**{"data": "shapes", **options})


def test_lane_seeds_stay_apart() -> None:
    config = CompareConfig(data="shapes", seeds=4096)
    assert (config.seeds - 1) * LANE_SEEDS + LANE_SEEDS - 1 < 2**32


def test_scenes_come_from_folders_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, level in (("b.png", 200), ("a.png", 100)):
        Image.fromarray(np.full((40, 50, 3), level, np.uint8)).save(tmp_path / name)
    found = read_scenes(str(tmp_path), (32, 32))
    assert [Path(name).name for name in found.name] == ["a.png", "b.png"]
    assert found.image[:, 0, 0, 0].tolist() == [100, 200]
    assert len(read_scenes(str(tmp_path), (32, 32), limit=1).name) == 1


# the command

SMALL = ["--data", "shapes", "--limit", "3", "--size", "48x48", "--fixations", "3", "--seeds", "2"]


def test_the_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["compare", "random", "near=gaussian", *SMALL, "--agent_arguments", '{"near": {"sd": 0.1}}', "--show", "1"]
    assert main([*words, "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert "random" in output
    assert "near" in output
    assert {path.name for path in out.iterdir()} == {
        *("compare.json", "curves.csv", "fixations.csv", "differences.csv", "report.html"),
        *("error_fixations.png", "error_sharp.png", "differences.png", "saccades.png"),
    }
    found = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert found["whole"]
    assert found["versions"]["foveasim"]
    assert found["config"]["retina_options"] == {"hidden_ratio": 0.8}
    assert list(found["agents"]) == ["random", "near"]
    near = found["agents"]["near"]
    assert np.shape(near["fixation_px"]) == (2, 3, 3, 2)
    assert np.shape(near["scenes"]["mse"]) == (2, 3, 3)
    assert near["curves"]["mse"][2]["value"] == pytest.approx(np.mean(near["scenes"]["mse"], (0, 1))[2], rel=1e-6)
    with (out / "fixations.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 * 3
    row = next(r for r in rows if (r["agent"], r["scene"], r["seed"], r["fixation"]) == ("near", "2", "1", "3"))
    assert float(row["mse"]) == pytest.approx(near["scenes"]["mse"][1][2][2], rel=1e-5)
    with (out / "curves.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 3

    assert main([*words, "--out", str(out)]) == 1
    assert "is not empty: it holds " in capsys.readouterr().err
    assert main(["compare", "walkk", *SMALL, "--out", str(out), "--overwrite"]) == 1  # with --overwrite it goes on
    assert "walkk" in capsys.readouterr().err


def test_an_unknown_agent_stops_before_anything_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "random", "walkk", *SMALL, "--out", str(tmp_path / "run")]) == 1
    assert "Did you mean 'walk'?" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_ctrl_c_keeps_the_agents_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SceneRunner.run

    def stopped(self: SceneRunner, entry: Entry, *rest: Any) -> AgentRun:
        if entry.label == "walk":
            raise KeyboardInterrupt
        return whole(self, entry, *rest)

    monkeypatch.setattr(SceneRunner, "run", stopped)
    options: dict[str, Any] = {"data": "shapes", "limit": 2, "size": (48, 48), "fixations": 2, "seeds": 1, "show": 0}
    config = CompareConfig(["centre", "walk"], **options, out=str(tmp_path / "run"), reference="walk")
    assert run(config) == 130
    found = json.loads((tmp_path / "run" / "compare.json").read_text(encoding="utf-8"))
    assert (list(found["agents"]), found["whole"], found["reference"]) == (["centre"], False, "centre")
    with pytest.raises(KeyboardInterrupt):
        compare(CompareConfig(["walk", "centre"], **options))
    assert main(["compare", "walk", *SMALL, "--out", str(tmp_path / "none")]) == 130


def test_the_same_comparison_twice_is_the_same() -> None:
    config = CompareConfig(["random", "walk"], data="noise", limit=3, size=(48, 48), fixations=3, seeds=2, show=0)
    first, again = compare(config), compare(config)
    for name, curve in first.result.curves.items():
        assert np.array_equal(curve, again.result.curves[name])
    assert first.result.reference == "random"


def test_every_column_is_whole_in_a_terminal_of_80() -> None:
    config = CompareConfig(
        ["random", "walk"], data="noise", limit=3, size=(48, 48), fixations=3, seeds=2, show=0, ceiling="walk"
    )
    result = compare(config).result
    for width in (80, 100, WIDE + GAP):
        console = Console(width=width, record=True, file=io.StringIO())
        show_table(console, result, "mse", 3, 2)
        output = console.export_text()
        head = next(line for line in output.splitlines() if "gap closed" in line)
        assert "sharp" in head and len(head) <= width
        assert all(len(line) == len(head) for line in output.splitlines() if line.startswith("│"))
        assert output.count("]") == output.count("[")  # no interval is cut


def test_a_file_gets_every_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["compare", "random", *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert "returns" in capsys.readouterr().out
