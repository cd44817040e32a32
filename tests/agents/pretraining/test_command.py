from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim.agents.mim.network import make_network, to_float
from foveasim.agents.mim.weights_file import load_network, read_card, read_tensors
from foveasim.agents.pretraining import log as progress
from foveasim.agents.pretraining.command import PretrainConfig, run, train
from foveasim.agents.pretraining.gaze_sequences import draw_fixations
from foveasim.agents.pretraining.prediction_error import evaluate
from foveasim.agents.pretraining.trainer import Trainer
from foveasim.cli.commands import main
from foveasim.errors import FoveasimError, InvalidValueError, SceneError, WeightsError
from foveasim.eye.retina import make_retina
from foveasim.images.pool import ImagePool

SMALL: dict[str, Any] = {"widths": (16, 16, 16), "blocks": (0, 0, 1)}
TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [0, 0]}


def noise(lanes: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (lanes, *size, 3), dtype=np.uint8)


def config(out: Path, **changes: Any) -> PretrainConfig:
    values: dict[str, Any] = {
        "data": ["unused"],
        "out": str(out),
        "network": "unet",
        "network_options": SMALL,
        "size": 48,
        "batch": 8,
        "steps": 6,
        "scale": (0.8, 1.0),
        "lr": 4e-3,
    }
    return PretrainConfig(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve small pictures."""
    (tmp_path / "images").mkdir()
    for number, image in enumerate(noise(12, (40, 48))):
        assert cv2.imwrite(str(tmp_path / "images" / f"{number:02d}.png"), image)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def words(folder: Path, out: Path, *more: str, steps: int = 12) -> list[str]:
    """Arguments of a quick run."""
    return [
        *("pretrain", f"--data={folder}", f"--out={out}", f"--steps={steps}", "--batch=4", "--size=32", "--threads=1"),
        *(f"--network_options={json.dumps(TINY)}", "--jitter", "--checkpoint_steps=3", *more),
    ]


def equal_runs(one: Path, two: Path) -> None:
    """Every tensor of the network and of the checkpoint is the same to the bit, and so are the counters."""
    for name in ("lean.safetensors", "checkpoint.safetensors"):
        (expected, about), (found, also) = read_tensors(one / name), read_tensors(two / name)
        assert expected.keys() == found.keys() and len(expected) > 10
        for key, value in expected.items():
            assert value.dtype == found[key].dtype and torch.equal(value, found[key]), key
        if "counters" in about:
            counters, others = json.loads(about["counters"]), json.loads(also["counters"])
            assert (counters["step"], counters["images"]) == (others["step"], others["images"])


def test_fixations_cover_the_scene_and_walks_stay_central() -> None:
    size = (50, 100)
    uniform = draw_fixations(np.random.default_rng(0), 2000, 4, size, 0.0)
    walk = draw_fixations(np.random.default_rng(0), 2000, 4, size, 1.0)
    for points in (uniform, walk):
        assert points.min() >= 0 and (points <= [100, 50]).all()
    # uniform on [0, w] has mean w / 2 and standard deviation w / sqrt(12)
    np.testing.assert_allclose(uniform.reshape(-1, 2).std(0), np.array([100, 50]) / 12**0.5, rtol=0.03)
    np.testing.assert_allclose(walk.reshape(-1, 2).mean(0), [50, 25], rtol=0.03)
    assert (walk[:, 0].std(0) < uniform[:, 0].std(0)).all()
    again = draw_fixations(np.random.default_rng(0), 2000, 4, size, 1.0)
    assert (walk == again).all()


def test_untrained_unet_has_relative_error_one() -> None:
    found = evaluate(make_network("unet", **SMALL), noise(6, (48, 48)), make_retina("disc"), (1, 3), repeats=2)
    assert found.relative == pytest.approx((1.0, 1.0))
    assert found.mse == pytest.approx(found.fill_mse)
    assert found.images == 12
    assert found.hidden[0] > found.hidden[1] > 0.2
    assert "3 fixations: relative error 1.000" in str(found)


class _Oracle(torch.nn.Module):
    """Knows the scene: relative error 0. Knows it with an error of 0.1: mse 0.01."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: torch.Tensor, acuity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full_like(image, 100 / 255 + self.error), image


def test_relative_error_in_closed_form() -> None:
    images = np.full((3, 48, 48, 3), 100, np.uint8)
    images[:, 24:, 24:] = 200  # something for the filling to be wrong about
    perfect = np.full((3, 48, 48, 3), 100, np.uint8)
    oracle: Any = _Oracle(0.1)
    found = evaluate(oracle, perfect, make_retina("disc"), (1,))
    assert found.mse == pytest.approx((0.01,), rel=1e-4)
    assert found.fill_mse == pytest.approx((0.0,), abs=1e-9)
    oracle = _Oracle(0.0)
    assert evaluate(oracle, images, make_retina("disc"), (1,)).relative[0] > 0


def test_evaluation_repeats_and_refuses_nothing_to_do() -> None:
    network = make_network("unet", **SMALL)
    one, two = (evaluate(network, noise(3, (48, 48)), make_retina("disc"), (2,), seed=5) for _ in range(2))
    assert one == two
    with pytest.raises(InvalidValueError, match="at least 1"):
        evaluate(network, noise(0, (48, 48)), make_retina("disc"))
    with pytest.raises(InvalidValueError, match="at least 1"):
        evaluate(network, noise(1, (48, 48)), make_retina("disc"), (0,))


def test_a_run_writes_everything(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    more = [f"--validate={folder}@val", "--validate_minutes=0.000001", "--checkpoint_minutes=0.000001"]
    arguments = words(folder, out, *more, "--snapshots=2", "--licence=made for the test", steps=4)
    arguments[1] += "@train"
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert (
        "8 images, lean with" in printed and "100 %" not in printed and f"wrote {out / 'lean.safetensors'}" in printed
    )
    assert {path.name for path in out.iterdir()} == {
        *("checkpoint.safetensors", "lean.md", "lean.safetensors", "log.jsonl", "pictures.png"),
        *("step-00000002.safetensors", "step-00000004.safetensors"),
    }
    card = read_card(out / "lean.safetensors")
    assert card["trained_on"] == ["images@train"] and card["steps"] == 4 and card["images_seen"] == 16
    assert read_card(out / "step-00000002.safetensors")["images_seen"] == 8
    assert str(tmp_path) not in json.dumps(card) and "made for the test" in (out / "lean.md").read_text()
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"validation_loss", "relative_error_8"} <= {key for row in rows for key in row}
    (noted,) = [row for row in rows if "loss" in row]
    assert noted["step"] == 4 and noted["progress"] == 1 and noted["images_s"] > 0
    picture = cv2.imread(str(out / "pictures.png"))
    assert picture is not None and picture.shape == (2 * 32, 6 * 32, 3)  # two validate; three columns an eye
    image, acuity = to_float(torch.zeros(1, 48, 48, 3, dtype=torch.uint8), torch.zeros(1, 48, 48, dtype=torch.uint8))
    assert load_network(out / "lean.safetensors")(image, acuity)[0].shape == image.shape
    assert main([*arguments, "--resume"]) == 0  # done already: only writes the results again
    assert read_card(out / "lean.safetensors")["steps"] == 4


def test_evaluation_adds_its_figures_to_the_card(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(words(folder, out, steps=1)) == 0
    file = out / "lean.safetensors"
    before = load_network(file).state_dict()
    capsys.readouterr()
    measure = ["evaluate", str(file), f"--data={folder}@test", "--size=48", "--fixations=[2]", "--repeats=1"]
    assert main(measure) == 0
    assert capsys.readouterr().out.startswith("2 fixations: relative error")
    assert "test" not in read_card(file)
    assert main([*measure, "--update_card"]) == 0
    card = read_card(file)
    assert card["steps"] == 1 and list(card["test"]) == ["2"] and card["tested_on"] == ["images@test"]
    assert "Test: images@test" in (out / "lean.md").read_text()
    for name, value in load_network(file).state_dict().items():
        assert torch.equal(value, before[name])


def test_a_killed_run_goes_on_to_the_same_result(tmp_path: Path, folder: Path) -> None:
    steps, whole, cut = 120, tmp_path / "whole", tmp_path / "cut"
    assert main(words(folder, whole, steps=steps)) == 0
    for _ in range(3):  # on a machine that is too busy to kill it in time, it is done first: once more
        for old in cut.glob("*"):
            old.unlink()
        started = subprocess.Popen([sys.executable, "-m", "foveasim", *words(folder, cut, steps=steps)])
        while not (cut / "checkpoint.safetensors").exists() and started.poll() is None:
            time.sleep(0.005)
        time.sleep(0.1)  # some steps beyond it, wherever that is
        started.send_signal(signal.SIGKILL)
        if started.wait() == -signal.SIGKILL:
            break
    assert started.returncode == -signal.SIGKILL
    step = json.loads(read_tensors(cut / "checkpoint.safetensors")[1]["counters"])["step"]
    assert 3 <= step < steps and step % 3 == 0
    assert main(words(folder, cut, "--resume", steps=steps)) == 0
    equal_runs(whole, cut)
    assert not list(cut.glob(".*"))


DIES_WHILE_WRITING = """
import os, signal
from foveasim.cli.commands import entry
sync, count = os.fsync, 0
def die(file):
    global count
    count += os.readlink(f"/proc/self/fd/{file}").endswith(".safetensors.part")
    if count == 4:  # checkpoint, network, checkpoint, network
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)
os.fsync = die
entry()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_run_killed_while_it_writes_leaves_whole_files(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    arguments = words(folder, out, "--validate_minutes=5")
    killed = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    (unfinished,) = out.glob(".*.part")
    assert unfinished.name.startswith(".lean.safetensors")
    assert json.loads(read_tensors(out / "checkpoint.safetensors")[1]["counters"])["step"] == 6
    assert read_card(out / "lean.safetensors")["steps"] == 3  # the older one, whole
    assert main([*arguments, "--resume"]) == 0
    assert not list(out.glob(".*"))  # what was not finished does not stay for ever
    assert main(words(folder, tmp_path / "whole")) == 0
    equal_runs(tmp_path / "whole", out)


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Press Ctrl-C so many times in the midst of a step, after the weights have changed and before it is counted."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def at(step: int, times: int) -> None:
        lerp, made = torch._foreach_lerp_, iter(range(1, 10**6))

        def pressing(*arguments: Any) -> None:
            if next(made) == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            lerp(*arguments)

        monkeypatch.setattr(torch, "_foreach_lerp_", pressing)

    yield at
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_finishes_the_step_and_writes_a_checkpoint(
    tmp_path: Path, folder: Path, press: Callable[[int, int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(words(folder, whole)) == 0
    press(5, 1)
    assert main(words(folder, cut)) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    printed = capfd.readouterr()
    assert "stopping after this step" in printed.err and "foveasim pretrain: stopped." in printed.err
    assert "stopped after step 5" in printed.out and "--resume true" in printed.out
    assert json.loads((cut / "log.jsonl").read_text().splitlines()[-1])["step"] == 5
    assert main(words(folder, cut, "--resume", "--lr=0.002")) == 0  # the default
    assert "other than" not in capfd.readouterr().out
    equal_runs(whole, cut)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, folder: Path, press: Callable[[int, int], None]) -> None:
    press(5, 2)
    assert main(words(folder, tmp_path / "out")) == 130
    counters = json.loads(read_tensors(tmp_path / "out" / "checkpoint.safetensors")[1]["counters"])
    assert counters["step"] == 3  # of the last checkpoint: none is written of half a step


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    pool = ImagePool.of(noise(4, (48, 48)))
    trainer = train(config(tmp_path), pool, quiet=True)
    log = tmp_path / "log.jsonl"
    (row,) = log.read_text().splitlines()
    later = row.replace('"step": 6', '"step": 9')
    log.write_text(f"{row}\n{later}\n{row[:20]}")  # killed after step 9, in the midst of a row
    again = train(config(tmp_path, resume=True, steps=8), pool, quiet=True)
    assert trainer.step == 6 and again.step == 8
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [6, 8]


def test_what_a_resumed_run_does_otherwise_is_said(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, tmp_path / "out", steps=3)) == 0
    capsys.readouterr()
    assert main(words(folder, tmp_path / "out", "--resume", "--lr=0.001", steps=6)) == 0
    printed = capsys.readouterr().out
    assert "other than in the run so far: lr 0.002 → 0.001" in printed and "steps 3 → 6" in printed


def test_tensorboard_holds_scalars_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    pool = ImagePool.of(noise(4, (48, 48)))
    train(config(tmp_path, tensorboard=True, validate_minutes=1e-6), pool, noise(3, (48, 48)), quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader, not of what is tested
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path)).Reload()
    tags = events.Tags()
    assert {"loss", "lr", "images_s", "validation_loss", "relative_error_1"} <= set(tags["scalars"])
    assert tags["images"] == ["seen_predicted_there"]
    validated = events.Scalars("validation_loss")
    assert [point.step for point in validated] == [8, 16, 24, 32, 40, 48, 48]  # images seen; each step, and the end
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert [point.value for point in validated] == pytest.approx(logged)
    recorded = events.Images("seen_predicted_there")[-1].encoded_image_string
    picture = cv2.imdecode(np.frombuffer(recorded, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture, cv2.imread(str(tmp_path / "pictures.png")))


def test_tensorboard_shows_pictures_without_validation_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recorded: list[int] = []
    pool = ImagePool.of(noise(4, (48, 48)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.TrainingLog, "picture", lambda self, trainer, sheet: recorded.append(trainer.step))
        train(config(tmp_path, tensorboard=True, checkpoint_steps=2), pool, quiet=True)
    assert recorded == [2, 4, 6, 6]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def broken(self: Trainer) -> torch.Tensor:
        loss = step(self)
        return loss * float("nan") if self.step == 4 else loss

    monkeypatch.setattr(Trainer, "train_step", broken)
    with pytest.raises(InvalidValueError, match=r"loss is nan at step 4.*lower lr: --resume true --lr 0.002"):
        train(config(tmp_path, checkpoint_steps=2), ImagePool.of(noise(4, (48, 48))), quiet=True)
    assert json.loads(read_tensors(tmp_path / "checkpoint.safetensors")[1]["counters"])["step"] == 2
    with pytest.raises(InvalidValueError, match=r"at step 6. Begin anew with a lower lr: --lr 0.002"):
        train(config(tmp_path / "none"), ImagePool.of(noise(4, (48, 48))), quiet=True)  # no checkpoint yet


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("full", ["log.jsonl", "pictures.png", "lean.safetensors", "checkpoint.safetensors", "lean.md"])
def test_a_full_disk_is_one_clear_line_and_older_files_stay(
    tmp_path: Path, folder: Path, full: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(words(folder, out, steps=3)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    fsync, open_ = os.fsync, Path.open

    def open_full(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return open_(Path("/dev/full") if self.name == full and "a" in mode else self, mode, *rest, **named)

    def sync_full(file: int) -> None:
        if Path(f"/proc/self/fd/{file}").readlink().name == f".{full}.part":
            raise OSError(28, "No space left on device")
        fsync(file)

    if full == "log.jsonl":
        monkeypatch.setattr(Path, "open", open_full)
    else:
        monkeypatch.setattr(os, "fsync", sync_full)
    capsys.readouterr()
    assert main(words(folder, out, "--resume", steps=6)) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and full in printed and "No space left on device" in printed
    monkeypatch.undo()
    assert (out / full).read_bytes() == before[full]
    assert not list(out.glob("*.part")) and not list(out.glob(".*"))
    assert main(words(folder, out, "--resume", steps=6)) == 0


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(words(folder, tmp_path / "file" / "out")) == 1
    printed = capsys.readouterr().err
    assert (
        printed.count("\n") == 1
        and "out must be a folder that can be written to" in printed
        and "Choose another" in printed
    )


def test_masks_come_into_the_run(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((40, 48), np.uint8)
    mask[10:30, 10:30] = 255
    for number in range(7):
        assert cv2.imwrite(str(masks / f"{number:02d}.png"), mask)
    requested = ["--loss=object", f"--masks={masks}"]
    assert main(words(folder, tmp_path / "drop", *requested, steps=1)) == 0
    assert "7 images" in capsys.readouterr().out
    assert main(words(folder, tmp_path / "keep", *requested, "--unmasked=keep", steps=1)) == 0
    assert "12 images" in capsys.readouterr().out
    assert main(words(folder, tmp_path / "none", "--loss=object", steps=1)) == 1
    assert "foveasim segment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 5.0}, "one of the three"),
        ({"steps": None}, "one of the three"),
        ({"epochs": 1.0}, "one of the three"),
        ({"steps": None, "epochs": 0.0}, "epochs"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"checkpoint_steps": 0}, "checkpoint_steps"),
        ({"snapshots": -1}, "snapshots"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"size": 16}, "size"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"walk_share": 1.5}, "walk_share"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"gaze": "left"}, "free, centre"),
        ({"loss": "some"}, "hidden, object, all"),
        ({"optimizer": "sgd"}, "adamw, adam"),
        ({"unmasked": "hide"}, "drop, keep"),
        ({"retinas": {}}, "at least one retina"),
        ({"retinas": {"full": {}}}, "--loss all"),
        ({"loss": "object"}, "foveasim segment"),
        ({"retinas": {"two_spot": {"attend": "object"}}}, "foveasim segment"),
        ({"retina_shares": [1.0]}, "for each of disc, pyramid"),
        ({"retina_shares": [0.0, 0.0]}, "for each of disc, pyramid"),
        ({"seed": -1}, "seed"),
    ],
)
def test_config_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "nonet"}, "unknown network"),
        ({"network_options": {"nothing": 1}}, "nothing"),
        ({"retinas": {"disk": {}}}, "Did you mean 'disc'"),
        ({"retinas": {"disc": {"hidden_ratio": 2}}}, "hidden_ratio"),
    ],
)
def test_what_cannot_be_trained_is_said_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    def read(*arguments: object, **more: object) -> None:
        raise AssertionError("images are read")

    monkeypatch.setattr("foveasim.agents.pretraining.command.read_pool", read)
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(FoveasimError, match=message):
        run(config(tmp_path, **changes))
    with pytest.raises(InvalidValueError, match=r"holds checkpoint\.safetensors\. Go on .* by --resume"):
        run(config(tmp_path))


def test_run_needs_data_and_a_device(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InvalidValueError, match="at least one folder"):
        run(config(out, data=[]))
    with pytest.raises(SceneError, match=r"foveasim data get stl10\|imagenette DIR"):
        run(config(out, data=[str(tmp_path / "nowhere")]))
    with pytest.raises(SceneError, match="foveasim data get stl10 "):
        run(config(out, data=[str(tmp_path / "stl10")]))
    with pytest.raises(InvalidValueError, match="--device cpu"):
        run(config(out, data=[str(folder)], device="gpu"))
    with pytest.raises(WeightsError, match="no checkpoint"):
        run(config(out, data=[str(folder)], resume=True))
