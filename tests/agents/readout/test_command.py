from __future__ import annotations

import csv
import dataclasses
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.mim.weights_file import load_network, read_card, save_network
from foveasim.agents.readout.command import ReadoutConfig, read_out, run
from foveasim.agents.readout.features import extract, fresh_like
from foveasim.agents.readout.finetune import finetune
from foveasim.agents.readout.labelled import LabelledData, LabelledImages, read_labelled
from foveasim.agents.readout.probe import Labelled, ProbeOptions, accuracy, fit_lbfgs
from foveasim.cli.commands import main
from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError

SMALL: dict[str, Any] = {"widths": (8, 8, 16), "blocks": (0, 0, 1)}
CLASSES = ("blue", "green", "red")

pytestmark = pytest.mark.usefixtures("one_thread")


def pictures(label: int, count: int, seed: int = 0) -> np.ndarray:
    """Noise, tinted by its class."""
    rng = np.random.default_rng((seed, label))
    images = rng.integers(0, 100, (count, 40, 44, 3), dtype=np.uint8)
    images[..., 2 - label] += 100
    return images


def write(folder: Path, counts: Sequence[int] = (6, 6, 6), seed: int = 0) -> Path:
    for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(pictures(label, count, seed)):
            assert cv2.imwrite(str(folder / name / f"{i:02d}.png"), image[:, :, ::-1])
    return folder


def colours(counts: Sequence[int], seed: int = 0) -> LabelledImages:
    images = np.concatenate([pictures(label, n, seed)[:, :32, :32] for label, n in enumerate(counts)])
    labels = np.repeat(np.arange(3), counts)
    return LabelledImages(images, labels, tuple(f"{i:03d}" for i in range(len(images))))


def stems(part: LabelledImages) -> list[str]:
    return ["/".join(Path(name).with_suffix("").parts[-2:]) for name in part.names]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        save_network(path, make_network("unet", **SMALL), {"images_seen": 5})
    return path


# --- parts -----------------------------------------------------------------------------------------------------------


def test_train_and_val_are_parted_by_the_rule_of_the_packs(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train", (3, 2, 4))
    write(tmp_path / "d" / "val", (4, 5, 2), 1)
    data = read_labelled(str(tmp_path / "d"), (32, 48))
    assert data.classes == CLASSES and data.train.images.shape == (9, 32, 48, 3)
    assert stems(data.validation) == ["blue/00", "blue/02", "green/00", "green/02", "green/04", "red/00"]
    assert stems(data.test) == ["blue/01", "blue/03", "green/01", "green/03", "red/01"]
    assert data.train.labels.tolist() == [0] * 3 + [1] * 2 + [2] * 4
    # the tint tells the class: every image has kept its own label
    for part in (data.train, data.validation, data.test):
        assert (part.images.mean((1, 2)).argmax(1) == 2 - part.labels).all()
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(tmp_path / "d", "d")
    packed = read_labelled(str(tmp_path / "d.tar"), (32, 48))
    assert stems(packed.test) == stems(data.test) and (packed.test.images == data.test.images).all()


def test_stl10_trains_and_tests_on_its_own_parts(tmp_path: Path) -> None:
    binary = tmp_path / "stl10" / "stl10_binary"
    binary.mkdir(parents=True)
    for part, count in (("train", 30), ("test", 20)):  # every picture is uniform, ten grey levels for each class
        labels = np.arange(count) % 10
        grey = np.repeat(labels * 10 + np.arange(count) // 10 + 100 * (part == "test"), 3 * 96 * 96).astype(np.uint8)
        grey.tofile(binary / f"{part}_X.bin")
        (labels + 1).astype(np.uint8).tofile(binary / f"{part}_y.bin")
    (binary / "class_names.txt").write_text("\n".join("abcdefghij") + "\n", encoding="utf-8")
    data = read_labelled(str(tmp_path / "stl10"), (32, 32))
    assert "".join(data.classes) == "abcdefghij"
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 10, 20)
    grey = data.test.images[:, 0, 0, 0].astype(int) - 100
    assert (grey // 10 == data.test.labels).all() and sorted(np.bincount(data.validation.labels)) == [1] * 10


def test_other_ways_to_part(tmp_path: Path) -> None:
    flat = write(tmp_path / "flat", (9, 9, 9))
    data = read_labelled(str(flat), (32, 32))
    assert stems(data.test) == ["blue/00", "green/00", "red/00"]
    assert stems(data.validation) == ["blue/01", "green/01", "red/01"] and len(data.train) == 21
    apart = read_labelled(str(flat), (32, 32), test=str(write(tmp_path / "apart", (2, 1, 0), 1)))
    assert stems(apart.validation) == [f"{c}/{i}" for c in CLASSES for i in ("00", "05")] and len(apart.train) == 21
    assert stems(apart.test) == ["blue/00", "blue/01", "green/00"]
    three = tmp_path / "three"
    for seed, part in enumerate(("train", "val", "test")):
        write(three / part, (2, 2, 2), seed)
    parts = read_labelled(str(three), (32, 32))
    assert [{n.split("/")[0] for n in p.names} for p in (parts.train, parts.validation, parts.test)] == [
        {"train"},
        {"val"},
        {"test"},
    ]
    two = tmp_path / "two"
    write(two / "train", (6, 6, 6))
    write(two / "test", (1, 1, 1))
    found = read_labelled(str(two), (32, 32))
    assert len(found.train) == 12 and len(found.validation) == 6 and len(found.test) == 3
    assert {n.split("/")[0] for n in found.validation.names} == {"train"}


def test_no_image_is_in_two_parts_and_few_can_be_drawn(tmp_path: Path) -> None:
    write(tmp_path / "train", (7, 5, 6))
    write(tmp_path / "val", (4, 4, 4), 1)
    data = read_labelled(str(tmp_path), (32, 32), per_class=5)
    names = [set(p.names) for p in (data.train, data.validation, data.test)]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    assert np.bincount(data.train.labels).tolist() == [5, 5, 5]
    again, other = (read_labelled(str(tmp_path), (32, 32), per_class=5, seed=s) for s in (0, 1))
    assert again.train.names == data.train.names != other.train.names
    assert other.test.names == data.test.names


class _Shades:
    """A labelled scene source."""

    moving = False
    labels: tuple[str, ...] = ("dark", "light")

    def __init__(self, moving: bool = False, labels: tuple[str, ...] = ("dark", "light"), label: int = 0) -> None:
        self.moving, self.labels, self.first = moving, labels, label

    def __len__(self) -> int:
        return 18

    def picture(self, index: int, time_ms: float = 0.0) -> Any:
        from foveasim.images.picture import Picture

        label = index % 2
        return Picture(np.full((40, 40, 3), 50 + 100 * label, np.uint8), self.first + label, f"p{index}", 1.0)


def test_labelled_scene_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    from foveasim.scenes.source import SCENES

    for name, options in {"shades": {}, "clip": {"moving": True}, "bare": {"labels": ()}, "odd": {"label": -1}}.items():
        monkeypatch.setitem(SCENES._factories, name, lambda options=options: _Shades(**options))
    data = read_labelled("shades", (32, 32))
    assert data.classes == ("dark", "light") and (len(data.train), len(data.validation), len(data.test)) == (14, 2, 2)
    for part in (data.train, data.validation, data.test):
        assert (part.images[:, 0, 0, 0] == 50 + 100 * part.labels).all()
    for name, message in {"clip": "moving", "bare": "without a label", "odd": "without a label: p0"}.items():
        with pytest.raises((InvalidValueError, SceneError), match=message):
            read_labelled(name, (32, 32))


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    assert cv2.imwrite(str(loose / "a.png"), pictures(0, 1)[0])
    with pytest.raises(SceneError, match=r"without a label, such as 'a\.png'"):
        read_labelled(str(loose))
    (loose / "train").mkdir()
    (loose / "a.png").rename(loose / "train" / "a.png")
    with pytest.raises(SceneError, match="without a label"):
        read_labelled(str(loose))
    one = write(tmp_path / "one", (9, 0, 0))
    with pytest.raises(InvalidValueError, match="at least two classes; got 'blue'"):
        read_labelled(str(one))
    write(tmp_path / "t" / "train")
    with pytest.raises(InvalidValueError, match="neither val nor test"):
        read_labelled(str(tmp_path / "t"))
    write(tmp_path / "t" / "val", (1, 1, 1))
    with pytest.raises(InvalidValueError, match="test part has no images"):
        read_labelled(str(tmp_path / "t"))
    write(tmp_path / "v" / "val")
    with pytest.raises(InvalidValueError, match="no train"):
        read_labelled(str(tmp_path / "v"))
    write(tmp_path / "m" / "train", (2, 2, 0))
    write(tmp_path / "m" / "val", (2, 2, 2))
    with pytest.raises(InvalidValueError, match="without training images: red"):
        read_labelled(str(tmp_path / "m"))
    with pytest.raises(InvalidValueError, match="does not have: blue"):
        read_labelled(str(write(tmp_path / "n", (0, 9, 9))), test=str(one))
    with pytest.raises(SceneError, match=r"no such folder.*foveasim data get"):
        read_labelled(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidValueError, match="whole data set"):
        read_labelled(f"{tmp_path / 't'}@train")
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(SceneError):
        read_labelled(str(tmp_path / "notes.txt"))
    with pytest.raises(InvalidTypeError, match="per_class"):
        read_labelled(str(tmp_path / "m"), per_class=1.5)  # type: ignore[arg-type]


# --- features --------------------------------------------------------------------------------------------------------


def test_features(tmp_path: Path) -> None:
    images, cpu = colours((3, 2, 1)), torch.device("cpu")
    pixels = extract(None, images, cpu)
    assert torch.equal(pixels.features, torch.from_numpy(images.images).flatten(1) / 255)
    assert pixels.labels.tolist() == [0, 0, 0, 1, 1, 2]
    network = make_network("unet", **SMALL)
    done: list[int] = []
    memory = extract(network, images, cpu, advance=done.append)
    assert memory.features.shape == (6, 16 * 4) and sum(done) == 6
    mapped = extract(network, images, cpu, torch.float16, file=tmp_path / "f.bin")
    assert (tmp_path / "f.bin").stat().st_size == 6 * 64 * 2
    torch.testing.assert_close(mapped.features.float(), memory.features, rtol=1e-2, atol=1e-2)
    one, two, other = fresh_like(network, 1), fresh_like(network, 1), fresh_like(network, 2)
    assert one.config == network.config and not any(p.requires_grad for p in one.parameters())
    assert torch.equal(one.get_parameter("stem.weight"), two.get_parameter("stem.weight"))
    assert not torch.equal(one.get_parameter("stem.weight"), other.get_parameter("stem.weight"))


# --- fine-tuning -----------------------------------------------------------------------------------------------------


class _Grey(MimNetwork):
    """Its latent is a weighted mean of the colours, which starts out grey and so says nothing about the class."""

    name = "grey"

    def __init__(self) -> None:
        super().__init__(None)
        self.mix = torch.nn.Parameter(torch.full((3, 3), 1 / 3) + 0.01 * torch.eye(3))
        self.decoder = torch.nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor, acuity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert bool((acuity == 1).all())
        latent = torch.einsum("bchw,dc->bd", image, self.mix)[:, :, None, None] / image[0, 0].numel()
        return image * self.decoder, latent


def test_finetuning_changes_the_encoder_and_keeps_the_best(weights: Path) -> None:
    network = _Grey()
    train, validation = colours((20, 20, 20)), colours((8, 8, 8), 1)
    start = LinearProbe(0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    before = accuracy(start, extract(network, validation, torch.device("cpu")))
    seen: list[tuple[int, float]] = []
    found = finetune(
        network, start, train, validation, lr=0.05, batch=16, patience=5, advance=lambda e, a: seen.append((e, a))
    )
    after = accuracy(found, extract(network, validation, torch.device("cpu")))
    assert before < 0.7 and after == 1.0 == found.history[found.epochs - 1]
    assert [a for _, a in seen] == list(found.history) and [e for e, _ in seen] == list(range(1, len(seen) + 1))
    assert found.converged and len(found.history) == found.epochs + 5
    assert float(network.decoder) == 1 and not network.mix.requires_grad and not network.training


def test_finetuning_that_only_harms_leaves_everything_as_it_was() -> None:
    network = _Grey()
    train, validation = colours((6, 6, 6)), colours((4, 4, 4), 1)
    cpu = torch.device("cpu")
    probe = fit_lbfgs(extract(network, train, cpu), extract(network, validation, cpu), 3)
    before = network.mix.detach().clone()
    upside_down = dataclasses.replace(train, labels=(train.labels + 1) % 3)
    found = finetune(network, probe, upside_down, validation, lr=0.05, patience=2)
    assert found.epochs == 0 and len(found.history) == 2
    assert torch.equal(network.mix, before) and torch.equal(found.weight, probe.weight)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "colours"
    write(path / "train", (8, 8, 8))
    write(path / "val", (6, 6, 6), 1)
    return path


def test_the_command_writes_everything(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [
        str(weights),
        f"--data={folder}",
        f"--out={out}",
        "--size=32",
        "--epochs=3",
        "--finetune",
        "--probes=[lbfgs]",
    ]
    assert main(["readout", *words, "--memory_map", "--precision=float16"]) == 0
    printed = capsys.readouterr().out
    assert "24 training, 9 validation and 9 test images" in printed and "chance 33.3 %" in printed
    names = ["network-lbfgs", "random-lbfgs", "pixels-lbfgs", "finetuned-lbfgs"]
    pngs = {"accuracy.png", *(f"confusion-{name}.png" for name in names)}
    assert {p.name for p in out.iterdir()} == pngs | {"readout.json", "predictions.csv", "finetuned.safetensors"}
    whole = json.loads((out / "readout.json").read_text())
    assert [f"{r['features']}-{r['probe']}" for r in whole["readouts"]] == names
    assert whole["images"] == {"train": [8, 8, 8], "validation": [3, 3, 3], "test": [3, 3, 3]}
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    for record, name in zip(whole["readouts"], names, strict=True):
        right = sum(row[name] == row["true"] for row in rows)
        assert record["accuracy"] == pytest.approx(right / 9) and np.trace(record["confusion"]) == right
        assert record["low"] <= record["accuracy"] <= record["high"]
        assert np.sum(record["confusion"]) == 9 and len(record["history"]) >= 1
    assert whole["readouts"][2]["accuracy"] == 1.0  # a tint is linear in the pixels
    assert read_card(out / "finetuned.safetensors")["finetuned_from"] == "small.safetensors"
    assert str(tmp_path) not in json.dumps(read_card(out / "finetuned.safetensors"))
    assert load_network(out / "finetuned.safetensors").config == load_network(weights).config


def test_a_run_repeats_and_never_learns_from_the_test_images(folder: Path, weights: Path, tmp_path: Path) -> None:
    config = ReadoutConfig(str(weights), str(folder), out=str(tmp_path / "a"), size=32, epochs=3, lr=0.01)
    config.features, config.finetune, config.overwrite = ["network"], True, True
    config.evaluations = 20
    first, second = run(config), run(config)
    other = tmp_path / "other"
    for path in folder.rglob("*.png"):
        target = other / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        image = cv2.imread(str(path))
        assert image is not None
        tests = "val" in path.parts and int(path.stem) % 2 == 1
        assert cv2.imwrite(str(target), 255 - image if tests else image)
    third = run(dataclasses.replace(config, data=str(other)))
    for a, b, c in zip(first, second, third, strict=True):
        assert (a.called == b.called).all() and a.history == b.history == c.history
        assert (a.validation, a.epochs, a.strength) == (c.validation, c.epochs, c.strength)
    assert any((a.called != c.called).any() for a, c in zip(first, third, strict=True))


def test_a_sweep_reads_out_as_the_command_does(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ReadoutConfig(str(weights), str(folder), out=str(tmp_path / "a"), size=32, epochs=3, lr=0.01, seed=2)
    config.features, config.strengths = ["network", "pixels"], [1e-2, 1e-3]
    results = run(config)
    assert [r.name for r in results] == [f"{f}-{p}" for f in config.features for p in ("adam", "lbfgs", "ridge")]
    capsys.readouterr()
    data = read_labelled(str(folder), (32, 32))
    network = load_network(weights)
    random, threads = torch.random.get_rng_state(), torch.get_num_threads()
    options = ProbeOptions(lr=0.01, epochs=3, strengths=(1e-2, 1e-3))
    quiet = [r for n in (network, None) for r in read_out(n, data, ["adam", "lbfgs", "ridge"], options, seed=2)]
    assert capsys.readouterr() == ("", "")
    assert torch.equal(random, torch.random.get_rng_state()) and threads == torch.get_num_threads()
    for a, b in zip(results, quiet, strict=True):
        assert a.name == b.name and a.history == b.history and (a.called == b.called).all()
        assert (a.accuracy, a.validation, a.strength, a.epochs) == (b.accuracy, b.validation, b.strength, b.epochs)
    (named,) = read_out(network, data, ["ridge"], name="periphery", precision="float16")
    assert named.name == "periphery-ridge" and named.dimension == 64
    with pytest.raises(InvalidValueError, match="probes must be"):
        read_out(network, data, [])
    with pytest.raises(InvalidValueError, match="precision"):
        read_out(network, data, ["ridge"], precision="int8")


def test_config_and_folder_errors(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes, message in (
        ({"data": ""}, "data must name"),
        ({"features": ["pixel"]}, "features must be"),
        ({"features": []}, "features must be"),
        ({"probes": ["adam", "adam"]}, "probes must be"),
        ({"features": ["pixels"], "finetune": True}, "finetune"),
        ({"precision": "int8"}, "precision"),
        ({"lr": 0.0}, "lr"),
        ({"strengths": []}, "strengths"),
        ({"finetune_lr": float("nan")}, "finetune_lr"),
        ({"patience": 0}, "patience"),
        ({"size": 16}, "size"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            ReadoutConfig(**{"data": "x", **changes})
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        run(ReadoutConfig(str(weights), str(folder), out=str(tmp_path / "file"), size=32))
    assert main(["readout", str(weights), "--data", str(tmp_path / "none.tar"), f"--out={tmp_path / 'out'}"]) == 1
    assert "no such folder" in capsys.readouterr().err
    with pytest.raises(InvalidValueError, match="one for each"):
        LabelledImages(np.zeros((2, 8, 8, 3), np.uint8), np.zeros(3, np.int64), ("a", "b"))
    some = colours((1, 1, 1))
    with pytest.raises(InvalidValueError, match="validation part has no images"):
        LabelledData(some, some.take([]), some, CLASSES)
    with pytest.raises(InvalidValueError, match="features must be"):
        Labelled(torch.zeros(2, 3), torch.zeros(3).long())
