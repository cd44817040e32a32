"""Agents against people, on a small set of made-up people and on what is known of real ones."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveasim import metrics
from foveasim.agents.evaluation.scene_runner import Entry
from foveasim.agents.loading import make_agent
from foveasim.agents.mim.predictor import Predictor
from foveasim.cli.commands import main
from foveasim.errors import AgentError, InvalidValueError
from foveasim.experiments.humans.baselines import BASELINES, run_baselines
from foveasim.experiments.humans.command import HumansConfig, humans, run
from foveasim.experiments.humans.free_viewing import FreeViewingRunner
from foveasim.experiments.humans.memo import CachedPredictor, cache_predictions
from foveasim.experiments.humans.page import page_data, render_page
from foveasim.experiments.humans.scores import SCORES, ScanpathScorer
from foveasim.experiments.humans.table import cautions, in_order, value_of
from foveasim.eye.retina import make_retina
from foveasim.metrics.people import People, read_people
from foveasim.scanpath.scanpath import Scanpath, read_csv, write_scanpaths

SIZE = (120, 160)  # of the fixations; the pictures are half as large

pytestmark = pytest.mark.usefixtures("one_thread")


def path(points: Any, image: str, subject: str, duration_ms: float = 200.0) -> Scanpath:
    points = torch.as_tensor(np.asarray(points, np.float32))
    duration = torch.full((len(points),), duration_ms)
    return Scanpath(points, torch.cumsum(duration, 0) - duration, duration, image, subject)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of 60 x 80 px, four people; on each image they look around a spot of its own."""
    root = tmp_path_factory.mktemp("people")
    (root / "images").mkdir()
    draws = np.random.default_rng(0)
    paths = []
    for number in range(5):
        name = f"scene{number}"
        Image.fromarray(draws.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        spot = draws.uniform((40, 30), (120, 90))
        for person in range(4):
            points = np.clip(draws.normal(spot, 9, (5 + person % 2, 2)), 0, (159, 119))
            paths.append(path(points, name, f"p{person}", 180 + 10 * person))
    write_scanpaths(root / "fixations.csv", paths)
    splits = {"test": ["scene0", "scene1", "scene2"], "train": ["scene3", "scene4"], "overlap": ["scene3"]}
    (root / "splits.json").write_text(json.dumps(splits))
    return root


@pytest.fixture(scope="module")
def people(folder: Path) -> People:
    return read_people(folder, size=SIZE, px_per_deg=6.0)


@pytest.fixture(scope="module")
def runner(people: People) -> FreeViewingRunner:
    return FreeViewingRunner(people, make_retina("pyramid"), 4, lanes=5)


def entry(agent: Any, **arguments: Any) -> Entry:
    return Entry("mine", "mine", lambda seed: make_agent(agent, seed=seed, **arguments))


# the data


def test_people_are_read(people: People) -> None:
    assert people.name == ("scene0", "scene1", "scene2")
    assert people.image.shape == (3, 60, 80, 3)
    assert [len(group) for group in people.paths] == [4, 4, 4]
    assert people.image_px_per_deg == people.sigma_px == 3.0
    assert sorted(set(people.lengths.tolist())) == [5, 6]
    assert len(people.training) == 8
    assert people.centre_bias.sum() == pytest.approx(1)
    assert people.to_image_px(np.array([[160, 120]], np.float32)).tolist() == [[80, 60]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "nothing"}, "has no split 'nothing'; it has test, train, overlap"),
        ({"split": "overlap"}, "must not share images; both hold 'scene3'"),
        ({"size": (100, 160)}, "must have the shape of size=(100, 160)"),
        ({"px_per_deg": math.nan}, "px_per_deg"),
        ({"limit": 0}, "limit"),
    ],
)
def test_people_that_cannot_be_read(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        read_people(folder, **{"size": SIZE, "px_per_deg": 6.0, **options})
    assert message in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"holds images/, fixations\.csv and splits\.json"):
        read_people(tmp_path)
    (tmp_path / "splits.json").write_text("[1]")
    with pytest.raises(InvalidValueError, match="must map the names of splits"):
        read_people(tmp_path)


def test_images_are_named_by_files_of_the_folder(folder: Path, tmp_path: Path) -> None:
    write_scanpaths(tmp_path / "fixations.csv", [path([[1, 1]], name, s) for name in ("../x", "b") for s in "pq"])
    (tmp_path / "splits.json").write_text(json.dumps({"test": ["../x"], "train": ["b"]}))
    with pytest.raises(InvalidValueError, match="named by its file without suffix"):
        read_people(tmp_path)


# looking


def test_scanpaths_leave_out_the_start_and_batches_change_nothing(people: People, runner: FreeViewingRunner) -> None:
    found = runner.run(entry("random"))
    again = FreeViewingRunner(people, make_retina("pyramid"), 4, lanes=12).run(entry("random"))
    assert [len(group) for group in found.paths] == [4, 4, 4]
    assert [[len(one) for one in group] for group in found.paths] == runner.lengths.tolist()
    for group, other in zip(found.paths, again.paths, strict=True):
        for one, same in zip(group, other, strict=True):
            assert torch.equal(one.fixation_px, same.fixation_px) and torch.equal(one.duration_ms, same.duration_ms)
            assert one.fixation_px[0].tolist() != [80, 60]
    firsts = {tuple(one.fixation_px[0].tolist()) for group in found.paths for one in group}
    assert len(firsts) == 12  # no two draw alike
    assert not found.own_durations
    assert set(found.paths[0][0].duration_ms.tolist()) <= set(people.durations_ms.tolist())


class Corner:
    """Looks at a corner for 77 ms, and says that it is twice as likely to look at the right half."""

    def __init__(self, seed: int = 0) -> None: ...

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.full((len(observation["fixation"]), 2), 1, np.float32)

    def dwell_ms(self) -> NDArray[np.float32]:
        return np.full(self.lanes, 77, np.float32)

    lanes = 5

    def priority(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.tile(np.array([[1, 2]], np.float32), (len(observation["fixation"]), 1, 1))


def test_durations_of_its_own_and_a_map_that_is_known(people: People) -> None:
    runner = FreeViewingRunner(people, make_retina("disc"), 4, lanes=1)
    agent = Entry("corner", "corner", lambda seed: _one_lane(Corner(seed)))
    found = runner.run(agent)
    assert found.own_durations and found.conditional is not None
    assert found.paths[1][2].fixation_px.tolist() == [[160, 120]] * len(found.paths[1][2])
    assert set(found.paths[1][2].duration_ms.tolist()) == {77}
    for place, group in enumerate(people.paths):
        ramp = np.interp(np.arange(80) + 0.5, [20, 60], [1, 2])  # bilinear between the middles of the two halves
        density = 0.99 * np.tile(ramp / (ramp.sum() * 60), (60, 1)) + 0.01 * people.centre_bias
        points = np.concatenate([people.to_image_px(one.fixation_px.numpy())[1:] for one in group])
        expected = [
            metrics.nss(density, points).mean(),
            metrics.auc(density, points).mean(),
            metrics.information_gain(density, people.centre_bias, points).mean(),
        ]
        assert found.conditional[place] == pytest.approx(expected, rel=1e-4)


def _one_lane(agent: Corner) -> Corner:
    agent.lanes = 1
    return agent


class Follows(Corner):
    """Has a map that is 1 in the cell that the eye fixates: it shows where the eye was led."""

    def priority(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        place = ((observation["fixation"] + 1) / 2 * np.array([8, 6])).astype(int).clip(0, (7, 5))
        maps = np.zeros((len(place), 6, 8), np.float32)
        maps[np.arange(len(place)), place[:, 1], place[:, 0]] = 1
        return maps


def test_the_eye_is_led_along_people(people: People) -> None:
    still = replace(people, paths=tuple(tuple(path([[130, 100]] * 3, name, s) for s in "ab") for name in people.name))
    scores = FreeViewingRunner(still, make_retina("disc"), 1, lanes=4).score_priority_maps(entry(Follows))
    assert (scores[:, 0] > 3).all()  # the person stays where the map is; from the centre it would be elsewhere
    assert (scores[:, 2] > 2).all()


class Counts(Corner):
    """Keeps what it was shown."""

    def __init__(self, seed: int = 0) -> None:
        self.fixations: list[NDArray[np.float32]] = []

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        self.fixations.append(observation["fixation"].copy())
        return np.full((len(observation["fixation"]), 2), 1 - 0.1 * len(self.fixations), np.float32)


def test_eyes_that_are_done_stay_where_they_are(people: People) -> None:
    agent = Counts()
    runner = FreeViewingRunner(people, make_retina("disc"), 4, lanes=5, conditional=False)
    agent.lanes = 5
    runner.lengths[0, 0], runner.lengths[0, 1:] = 2, 6
    with pytest.raises(AgentError, match="dwell_ms"):  # the second batch has other lanes: the first is all we want
        runner.run(Entry("counts", "counts", lambda seed: agent))
    fixation = np.stack(agent.fixations[:6])
    assert (fixation[3:, 0] == fixation[2, 0]).all()
    assert (fixation[1:, 1] != fixation[:-1, 1]).all()


def test_predictions_are_made_once_and_are_the_same() -> None:
    draws = np.random.default_rng(0)
    image, acuity = (draws.integers(0, 256, (3, 64, 96, n), dtype=np.uint8) for n in (3, 1))
    plain = Predictor("unet")
    predictor = CachedPredictor(plain)
    requested = []
    imagine = plain.imagine
    plain.imagine = lambda seen: requested.append(len(seen["belief"])) or imagine(seen)  # type: ignore[method-assign,func-returns-value]
    twice = np.array([0, 1, 0, 2])
    found = predictor.imagine({"belief": image[twice], "belief_acuity": acuity[twice]})
    again = predictor.imagine({"belief": image[2:], "belief_acuity": acuity[2:]})
    assert requested == [3]
    expected = imagine({"belief": image[twice], "belief_acuity": acuity[twice]})
    for name in ("image", "std", "latent"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert mine.shape == theirs.shape and torch.allclose(mine, theirs, atol=1e-5)
        assert torch.equal(getattr(again, name)[0], mine[3])


def test_only_agents_that_predict_remember() -> None:
    made = cache_predictions(entry("uncertainty"))
    first, second = made.make(0), made.make(1)
    assert isinstance(first.predictor, CachedPredictor)  # type: ignore[attr-defined]
    assert first.predictor is second.predictor  # type: ignore[attr-defined]
    assert not hasattr(cache_predictions(entry("random")).make(0), "predictor")


class Wrong(Corner):
    def dwell_ms(self) -> NDArray[np.float32]:
        return np.zeros((3, 3), np.float32)


class Negative(Corner):
    def priority(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return -super().priority(observation)


class Raises(Corner):
    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        raise KeyError("no such thing")


class Narrow(Corner):
    size = (96, 96)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (Wrong, "dwell_ms() must return (5,) ms"),
        (Raises, "raised KeyError"),
        (Narrow, "sees only scenes of 96 x 96 px; these are 60 x 80"),
    ],
)
def test_agents_that_break_the_protocol(runner: FreeViewingRunner, agent: Any, message: str) -> None:
    with pytest.raises(AgentError) as caught:
        runner.run(entry(agent))
    assert message in str(caught.value)


def test_a_priority_below_nothing_is_refused(runner: FreeViewingRunner) -> None:
    with pytest.raises(AgentError, match=r"priority\(\) must return .* finite numbers, 0 or more"):
        runner.score_priority_maps(entry(Negative))


# scores


def test_people_score_as_the_metrics_say(people: People) -> None:
    found = ScanpathScorer(people, 200).people_scores()
    expected = [metrics.mean_pairs(metrics.scanmatch(g, g, SIZE), same=True).mean for g in people.paths]
    assert found.images["scanmatch"] == pytest.approx(expected)
    assert value_of(found, "self_scanmatch") == value_of(found, "scanmatch") == value_of(found, "dss")
    assert found.pooled["scanmatch_kl"] == 0
    assert value_of(found, "nss_path") == value_of(found, "nss_map") > 2
    assert cautions(found) == []
    assert math.isnan(value_of(found, "cig"))
    estimate = found.estimates["scanmatch"]
    assert estimate is not None and estimate.low <= estimate.mean <= estimate.high


def test_who_does_what_one_person_did_scores_so(people: People, runner: FreeViewingRunner) -> None:
    found = runner.run(entry("random"))
    copies = tuple(tuple(group[0] for _ in range(4)) for group in people.paths)
    scores = ScanpathScorer(people, 200).score(replace(found, paths=copies))
    for place, group in enumerate(people.paths):
        expected = metrics.mean_pairs(metrics.scanmatch(group[:1], group, SIZE)).mean
        assert scores.images["scanmatch"][place] == pytest.approx(expected)
    assert value_of(scores, "self_scanmatch") == 1
    assert any("again and again" in caution for caution in cautions(scores))
    others = np.concatenate([people.to_image_px(one.fixation_px.numpy()) for one in people.paths[0][1:]])
    on_map = metrics.nss(
        metrics.fixation_map(others, (60, 80), 3.0), people.to_image_px(people.paths[0][0].fixation_px.numpy())
    ).mean()
    alone = ScanpathScorer(people, 200).score(replace(found, paths=tuple((group[0],) for group in people.paths)))
    assert alone.images["nss_path"][0] == pytest.approx(on_map)  # the first path: on the map of all but the first
    assert math.isnan(alone.images["self_scanmatch"][0])


def test_baselines_are_what_they_say(people: People, runner: FreeViewingRunner) -> None:
    baselines = {one.label: one for one in run_baselines(runner)}
    assert tuple(baselines) == BASELINES
    assert all(
        [[len(p) for p in g] for g in baselines[n].paths] == runner.lengths.tolist()
        for n in BASELINES
        if n != "shuffled"
    )
    assert (baselines["stays"].paths[0][0].fixation_px == torch.tensor([80.0, 60.0])).all()
    for group, own in zip(baselines["shuffled"].paths, people.paths, strict=True):
        assert not {one.image for one in group} & {own[0].image}
    points = np.concatenate([one.fixation_px.numpy() for group in baselines["centre"].paths for one in group])
    assert points.mean(0) == pytest.approx(people.training_px.mean(0), abs=12)
    uniform, shuffled = (
        ScanpathScorer(people, 200).score(baselines[name], "floor") for name in ("uniform", "shuffled")
    )
    assert value_of(uniform, "amplitude_js") > value_of(shuffled, "amplitude_js")


# the command


def test_the_command_writes_everything(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["humans", "random", "again=spiral", "--data", str(folder), "--size", "120x160", "--px_per_deg", "6"]
    words += ["--count", "3", "--resamples", "100", "--show", "2", "--lanes", "6", "--out", str(out)]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "people" in output and "ScanMatch alone" in output and "again" in output
    assert "durations of" in " ".join(output.split())
    names = {"scores.csv", "images.csv", "scanpaths.csv", "humans.json", "report.html"}
    assert {file.name for file in out.iterdir()} == names | {"scores.png", "saccades.png", "densities.png"}
    found = json.loads((out / "humans.json").read_text())
    assert set(found["rows"]) == {"people", "random", "again", *BASELINES}
    assert next(iter(found["rows"])) == "people"
    assert found["config"]["data"] == folder.name  # where it lay is nobody's business
    assert found["rows"]["again"]["cautions"]
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["score"] for row in rows} == set(SCORES) - {"cnss", "cauc", "cig"}
    assert len(read_csv(out / "scanpaths.csv")) == 3 * (4 + 8 * 3)
    assert main(words) == 1
    assert "is not empty: it holds " in capsys.readouterr().err


def test_misuse_is_told(folder: Path) -> None:
    with pytest.raises(InvalidValueError, match="data must name a folder"):
        HumansConfig(agents=["random"])
    config = HumansConfig(agents=["walk"], data=str(folder), size=SIZE, px_per_deg=6.0)
    with pytest.raises(InvalidValueError, match="Write my_walk=walk"):
        humans(config)
    with pytest.raises(InvalidValueError, match="count"):
        HumansConfig(data=str(folder), count=0)


def test_an_agent_that_fails_ends_it(folder: Path, tmp_path: Path) -> None:
    config = HumansConfig(
        agents=["wide=random"], data=str(folder), size=SIZE, px_per_deg=6.0, out=str(tmp_path / "x" / "y"), floors=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foveasim.agents.builtin.scripted.Random.act", lambda self, observation: np.zeros(3))
        with pytest.raises(AgentError, match="agent 'wide'"):
            run(config)


def test_the_page_holds_names_as_text_only(folder: Path) -> None:
    config = HumansConfig(
        agents=["x</script><b>=centre"], data=str(folder), size=SIZE, px_per_deg=6.0, floors=False, count=2
    )
    found = humans(config)
    data = page_data(found, [0, 2])
    assert [row["label"] for row in data["rows"]] == ["people", "x</script><b>"]
    assert len(data["images"]) == 2 and len(data["images"][0]["paths"][1]) == 2
    titles = {score["name"] for score in data["scores"]}
    assert "scanmatch" in titles and not titles & {"cnss", "cig"}  # nobody has a priority map
    text = render_page(data)
    assert "x</script>" not in text and "x\\u003c/script\\u003e\\u003cb\\u003e" in text
    held = text.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    assert json.loads(held) == data
    assert in_order(found.scores)[0].kind == "people"


# real people


def test_people_of_osie_score_as_known(shared_data: Path) -> None:
    people = read_people(shared_data / "osie")
    assert len(people.name) == 40 and len(people.training) == 7500
    scores = [metrics.mean_pairs(metrics.scanmatch(g, g, people.size), same=True).mean for g in people.paths]
    found = metrics.bootstrap_mean(scores, 0)
    assert (found.mean, found.low, found.high) == pytest.approx((0.399, 0.384, 0.415), abs=0.003)
