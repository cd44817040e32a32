from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import save_network
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.experiments.paper.command import PaperConfig
from foveasim.experiments.paper.figures import Column, Sheet, sheets_figure
from foveasim.experiments.paper.findings import ClaimResult, IntervalEstimate, Runs, evaluate_claims, spearman
from foveasim.experiments.paper.report import write_report
from foveasim.experiments.paper.run import LatentSnapshot, RunResult

PATCHES, PERIPHERY, AUTOENCODER = "paper/random_patches", "paper/periphery", "paper/autoencoder"
IMAGES = 400


def result(
    condition: str, right: float | np.ndarray, seed: int = 0, network: str = "lean", fall: float = 1.0
) -> RunResult:
    """A run whose covariance ends at ``fall`` of what it began with."""
    if isinstance(right, float):
        right = (np.random.default_rng((seed, len(condition))).uniform(size=IMAGES) < right).astype(np.uint8)
    baseline = condition in ("random", "pixels")
    points = [
        LatentSnapshot(seen, {**measures(), "covariance": 100.0 * fall ** (seen / 20_000)})
        for seen in (0, 10_000, 20_000)
        if not baseline
    ]
    accuracy = float(right.mean())
    seen, error = (0, None) if baseline else (20_000, 0.01 + seed / 1000)
    return RunResult(
        network, condition, seed, seen, 1000, accuracy, 0.0, 1.0, 0.5, 0.1, len(right), right, error, None, None, points
    )


def measures() -> dict[str, float]:
    names = ("covariance_floor", "unit_sparsity", "population_sparsity", "effective_dimension", "constant_share")
    return dict(zip(names, (4.0, 0.3, 0.4, 9.0, 0.0), strict=True))


def always(answer: int) -> np.ndarray:
    return np.full(IMAGES, answer, np.uint8)


def found(results: list[RunResult], claim: str, network: str = "lean") -> ClaimResult:
    (one,) = [f for f in evaluate_claims(Runs(results)) if f.claim == claim and f.network == network]
    return one


def folder_of(path: Path, **changes: object) -> Path:
    (path / "paper.json").write_text(json.dumps({**asdict(PaperConfig(data="birds")), **changes}), encoding="utf-8")
    return path


def quiet() -> Console:
    return Console(quiet=True)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_condition_that_is_always_right_is_above_one_that_never_is(seeds: int) -> None:
    results = [result(PATCHES, always(1), s) for s in range(seeds)]
    results += [result(AUTOENCODER, always(0), s) for s in range(seeds)]
    one = found(results, "random patches above plain autoencoder")
    assert one.verdict == "held" and one.estimate == IntervalEstimate(1.0, 1.0, 1.0)
    swapped = [replace(r, condition={PATCHES: AUTOENCODER, AUTOENCODER: PATCHES}[r.condition]) for r in results]
    one = found(swapped, "random patches above plain autoencoder")
    assert one.verdict == "did not hold" and one.estimate == IntervalEstimate(-1.0, -1.0, -1.0)


@pytest.mark.parametrize("seeds", [(1, 1), (3, 3), (3, 2)])
def test_equal_conditions_are_not_decided(seeds: tuple[int, int]) -> None:
    right = (np.arange(IMAGES) % 3 == 0).astype(np.uint8)
    results = [result(PATCHES, right, s) for s in range(seeds[0])]
    results += [result(AUTOENCODER, right, s) for s in range(seeds[1])]
    one = found(results, "random patches above plain autoencoder")
    assert one.verdict == "not decided" and one.estimate is not None
    assert one.estimate.low == one.estimate.high == 0  # not a rounding error of one sign


def test_interval_of_one_seed_is_that_of_a_share() -> None:
    """The standard error of a share p of N images is sqrt(p (1 - p) / N)."""
    right = (np.arange(IMAGES) < 0.3 * IMAGES).astype(np.uint8)
    accuracy = Runs([result(PATCHES, right)]).accuracy("lean", PATCHES)
    error = (0.3 * 0.7 / IMAGES) ** 0.5
    assert accuracy.value == pytest.approx(0.3)
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_interval_covers_the_seeds_where_images_do_not_matter() -> None:
    """Seeds that are always right or never: the mean over two drawn of two is 0, 1/2 or 1."""
    runs = Runs([result(PATCHES, always(seed), seed) for seed in (0, 1)])
    assert set(runs.bootstrap_accuracy("lean", PATCHES)) == {0.0, 0.5, 1.0}
    assert np.mean(runs.bootstrap_accuracy("lean", PATCHES) == 0.5) == pytest.approx(0.5, abs=0.05)
    assert runs.accuracy("lean", PATCHES) == IntervalEstimate(0.5, 0.0, 1.0)


def test_test_images_are_drawn_jointly() -> None:
    """The second is right wherever the first is and on one image more: on its images alone both would vary."""
    first = (np.arange(IMAGES) < IMAGES // 2).astype(np.uint8)
    second = (np.arange(IMAGES) < IMAGES // 2 + 20).astype(np.uint8)
    difference = Runs([result(PATCHES, second), result(AUTOENCODER, first)]).difference("lean", PATCHES, AUTOENCODER)
    assert difference.value == pytest.approx(0.05) and difference.low > 0.025 and difference.high < 0.075


def test_draws_repeat_and_do_not_depend_on_other_conditions() -> None:
    results = [result(PATCHES, 0.5, s) for s in range(3)]
    first = Runs(results).bootstrap_accuracy("lean", PATCHES)
    assert (first == Runs([*results, result(AUTOENCODER, 0.2)]).bootstrap_accuracy("lean", PATCHES)).all()
    assert (first != Runs(results, seed=1).bootstrap_accuracy("lean", PATCHES)).any()


def test_covariance_that_falls_and_that_rises() -> None:
    results = [result(PATCHES, 0.5, s, fall=0.25) for s in range(3)]
    results += [result(AUTOENCODER, 0.5, s, fall=2.0) for s in range(3)]
    falls = found(results, "covariance falls: random patches")
    assert falls.verdict == "held" and falls.estimate is not None
    assert falls.estimate.value == pytest.approx(np.log(4))
    assert "100.0 untrained, 50.0 at the first snapshot, 100.0 at most, 25.0 at the end: × 0.25" in falls.figures
    assert found(results, "covariance does not fall: plain autoencoder").verdict == "held"
    further = found(results, "covariance falls further than in the plain autoencoder: random patches")
    assert further.verdict == "held" and further.estimate is not None
    assert further.estimate.value == pytest.approx(np.log(8)) and "factor of 8.00" in further.figures
    assert found(results, "covariance falls: masked periphery").verdict == "not run"
    fallen = [replace(r, condition=AUTOENCODER) for r in results[:3]]
    assert found(fallen, "covariance does not fall: plain autoencoder").verdict == "did not hold"
    one = found(results[:1], "covariance falls: random patches")
    assert one.verdict == "not decided" and "(no interval)" in one.figures


def test_missing_conditions_are_not_run_and_jitter_is_only_reported() -> None:
    results = [result(PERIPHERY, 0.9), result("paper/periphery_crops_jitter", 0.1), result("pixels", 0.1)]
    verdicts = {f.claim: f.verdict for f in evaluate_claims(Runs(results))}
    assert verdicts["crops help masked periphery"] == "not run"
    assert verdicts["masked periphery above raw pixels"] == "held"
    assert verdicts["jitter besides crops, periphery"] == "reported"
    assert verdicts["jitter instead of nothing, periphery"] == "not run"


def test_ours_is_only_decided_at_the_same_number_of_images() -> None:
    ours = result("foveasim/best", always(1))
    claim = "ours: foveasim/best above random patches"
    assert found([ours, result(PATCHES, always(0))], claim).verdict == "held"
    more = found([replace(ours, images_seen=30_000), result(PATCHES, always(0))], claim)
    assert more.verdict == "not decided" and "30,000 and 20,000 images" in more.figures


def test_order_of_conditions_between_two_networks() -> None:
    names = [PATCHES, PERIPHERY, AUTOENCODER, "paper/fovea_filter"]
    levels = [np.arange(IMAGES) < share * IMAGES for share in (0.8, 0.6, 0.4, 0.2)]
    first = [result(name, level.astype(np.uint8)) for name, level in zip(names, levels, strict=True)]
    same = [replace(r, network="vit") for r in first]
    claim, both = "the order of the conditions carries over", "lean and vit"
    one = found([*first, *same], claim, both)
    assert one.verdict == "held" and one.estimate == IntervalEstimate(1.0, 1.0, 1.0)
    turned = [replace(r, condition=name) for r, name in zip(same, names[::-1], strict=True)]
    one = found([*first, *turned], claim, both)
    assert one.verdict == "did not hold" and one.estimate == IntervalEstimate(-1.0, -1.0, -1.0)
    assert found([*first[:3], *same], claim, both).verdict == "not run"


def test_spearman() -> None:
    a = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0]])
    b = np.array([[10.0, 20.0, 30.0, 25.0], [1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]])
    # 1 - 6 · 2 / (4 · 15); with the tie Pearson's of (1, 2, 3, 4) and (1, 2.5, 2.5, 4)
    assert spearman(a, b)[:2] == pytest.approx([0.8, 4.5 / (5 * 4.5) ** 0.5])
    assert np.isnan(spearman(a, b)[2])


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="same test images"):
        Runs([])
    with pytest.raises(InvalidValueError, match="same test images"):
        Runs([result(PATCHES, always(1)), result(PERIPHERY, always(1)[1:])])
    with pytest.raises(InvalidValueError, match="each run once"):
        Runs([result(PATCHES, always(1)), result(PATCHES, always(1))])
    with pytest.raises(WeightsError, match=r"paper\.json"):
        write_report([result(PATCHES, always(1))], tmp_path, "birds", quiet())


def test_report_of_two_networks(tmp_path: Path) -> None:
    shares = {PATCHES: 0.7, PERIPHERY: 0.65, "paper/periphery_no_crops": 0.4, AUTOENCODER: 0.3, "mine/odd_one": 0.5}
    results = [
        result(name, share, seed, network, 0.5 if name != AUTOENCODER else 2.0)
        for network in ("lean", "vit")
        for name, share in {**shares, "random": 0.2}.items()
        for seed in (0, 1)
        if (network, name) != ("vit", AUTOENCODER)
    ]
    results.append(result("pixels", 0.25))
    console = Console(record=True, width=140, file=None, quiet=False)
    with console.capture():
        write_report(results, folder_of(tmp_path), "birds", console)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| crops help masked periphery | **held**: " in text
    assert "| masked periphery above plain autoencoder | **held**: " in text and " | not run |" in text
    assert "the order of the conditions carries over" in text and "have one seed" not in text
    assert "mine/odd_one" in text and "![Test accuracy" in text and "reconstructions.png)" not in text
    assert "lean paper/periphery seed 0: lean/paper/periphery/seed-0/lean.safetensors is not there" in text
    for name, minimum in (("accuracy.png", (800, 1200)), ("latent.png", (1200, 1000))):
        picture = cv2.imread(str(tmp_path / name))
        assert picture is not None and picture.shape[0] >= minimum[0] and picture.shape[1] >= minimum[1]
        assert picture.std() > 10
    assert {path.name for path in tmp_path.iterdir()} == {
        *("paper.json", "paper.csv", "report.md", "accuracy.png", "latent.png")
    }


def test_csv_round_trip(tmp_path: Path) -> None:
    results = [result(PATCHES, 0.7, 3, fall=0.5), result("pixels", 0.2)]
    write_report(results, folder_of(tmp_path), "birds", quiet())
    with (tmp_path / "paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row, one in zip(rows, results, strict=True):
        assert (row["network"], row["condition"], int(row["seed"])) == (one.network, one.condition, one.seed)
        assert float(row["accuracy"]) == one.accuracy and int(row["images_seen"]) == one.images_seen
    assert float(rows[0]["masked_error"]) == results[0].masked_error and rows[1]["masked_error"] == ""
    assert float(rows[0]["covariance_untrained"]) == 100 and float(rows[0]["covariance_last"]) == 50
    assert rows[1]["covariance_last"] == ""


def test_one_seed_and_nothing_but_floors(tmp_path: Path) -> None:
    write_report([result(PATCHES, 0.7), result("pixels", 0.2)], folder_of(tmp_path), "birds", quiet())
    assert "**Some conditions have one seed.**" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "accuracy.png").is_file()
    write_report([result("pixels", 0.2)], tmp_path, "birds", quiet())
    assert not (tmp_path / "accuracy.png").exists() and not (tmp_path / "latent.png").exists()
    assert "accuracy.png" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_sheets_show_every_picture_in_its_place(tmp_path: Path) -> None:
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    pictures[0], pictures[1] = (0, 114, 178), (213, 94, 0)
    columns = [Column("", "image", pictures), Column("eye", "seen", pictures), Column("eye", "there", pictures)]
    sheets_figure(tmp_path / "x.png", [Sheet("one", columns), Sheet("two", columns[:1])])
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture is not None
    blue, vermillion = ((np.abs(picture - np.array(c)).max(2) < 4).mean() for c in ((178, 114, 0), (0, 94, 213)))
    assert blue == pytest.approx(vermillion, rel=0.05) and blue > 0.2  # 4 pictures of each, of one size
    with pytest.raises(InvalidValueError, match="at least one"):
        sheets_figure(tmp_path / "x.png", [])
    with pytest.raises(InvalidValueError, match="of one shape"):
        Sheet("x", [columns[0], Column("", "", pictures[:1])])


def test_reconstructions_of_trained_networks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("red", (0, 0, 255)), ("blue", (255, 0, 0))):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(18):
            picture = rng.integers(0, 60, (40, 40, 3)) + np.array(colour) * 0.7
            cv2.imwrite(str(folder / f"{number:02d}.png"), picture.astype(np.uint8))
    data = str(tmp_path / "data")
    torch.manual_seed(0)
    network = make_network("lean")
    names = [PATCHES, AUTOENCODER, "foveasim/best", "paper/covert_object"]
    for name in names:
        (tmp_path / "lean" / name / "seed-0").mkdir(parents=True)
        save_network(tmp_path / "lean" / name / "seed-0" / "lean.safetensors", network, {})
    results = [result(name, 0.5) for name in names]
    folder_of(tmp_path, data=data, size=48, masks=str(tmp_path))
    write_report(results, tmp_path, data, quiet())
    picture = cv2.imread(str(tmp_path / "reconstructions.png"))
    assert picture is not None and picture.shape[0] > 400 and picture.shape[1] > 900
    red, blue = ((np.abs(picture.astype(int) - c).max(2) < 70).mean() for c in ((30, 30, 208), (208, 30, 30)))
    assert red > 0.05 and blue > 0.05  # both classes, the one sorted first too
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "reconstructions.png)" in text and "covert_object seed 0: its eye needs masks" in text
