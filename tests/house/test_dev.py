"""Faults of the machine and of agents: each with one clear line, and nothing half written left behind.

What a fault does to one part alone is tested beside that part: cameras and videos in test_video, downloads in
test_download, the window in test_viewer, files in test_kills.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import read_tensors, save_network
from foveasim.cli.commands import main
from foveasim.cli.watch import WatchConfig, open_window
from foveasim.drawing.movie import Mp4Movie
from foveasim.runs import interrupts

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX paths and signals"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pygame.*"),
]

TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [0, 0]}


@pytest.fixture(autouse=True)
def _my_agents(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setitem(sys.modules, "my_agents", sys.modules[__name__])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two labelled parts, and a network."""
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    for part in ("train/one", "train/two", "val/one", "val/two"):
        (folder / part).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / part / f"{i}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder / "small.safetensors", make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    return folder


def pretrain(data: Path, out: Path) -> list[str]:
    return [
        *("pretrain", f"--data={data}/train/one", f"--out={out}", "--steps=2", "--batch=2", "--size=32", "--threads=1"),
        f"--network_options={json.dumps(TINY)}",
    ]


def train(data: Path, out: Path) -> list[str]:
    return [
        *("train", "--data=photos", "--limit=2", "--size=48x48", f"--network={data}/small.safetensors", "--budget=2"),
        *("--lanes=2", "--against=[]", "--steps=4", '--options={"n_steps":2,"batch_size":4,"n_epochs":1}'),
        *('--features={"cells":4}', "--threads=1", f"--out={out}"),
    ]


def compare(data: Path, out: Path) -> list[str]:
    return [
        *("compare", "centre", "--data=noise", "--limit=1", "--size=48x48", f"--network={data}/small.safetensors"),
        *("--fixations=2", "--seeds=1", "--show=0", "--resamples=100", "--threads=1", f"--out={out}"),
    ]


def paper(data: Path, out: Path) -> list[str]:
    return ["paper", str(data), f"--out={out}", "--epochs=1", "--size=32"]


def record(out: Path, *more: str) -> list[str]:
    words = ["record", f"--out={out}", "--scenes=uniform", "--agent=centre", "--network=none", "--size=160x160"]
    return [*words, "--seconds=0.3", "--fps=10", *more]


def record_frames(data: Path, out: Path) -> list[str]:
    return record(out)


def record_mp4(data: Path, out: Path) -> list[str]:
    return record(out / "a.mp4")


def record_gif(data: Path, out: Path) -> list[str]:
    return record(out / "a.gif")


def get(data: Path, out: Path) -> list[str]:
    return ["data", "get", "imagenette", str(out), "--url=http://127.0.0.1:9/nothing"]


COMMANDS: list[Callable[[Path, Path], list[str]]] = [
    *(pretrain, train, compare, paper, record_frames, record_mp4, record_gif, get)
]


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *said: str) -> None:
    """See that a command ends with one line that says so."""
    capsys.readouterr()
    assert main(words) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1 and "Traceback" not in complaint, complaint
    assert complaint.startswith(f"foveasim {words[0]}: ")
    for part in said:
        assert part in complaint, complaint


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("fault", ["a file is in the way", "no permission"])
def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    command: Callable[[Path, Path], list[str]],
    fault: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*of: object, **named: object) -> None:
        raise AssertionError("began to work")

    monkeypatch.setattr("foveasim.agents.rl.engine_sb3.Training.__init__", work)
    monkeypatch.setattr("foveasim.agents.pretraining.trainer.Trainer.train_step", work)
    monkeypatch.setattr("foveasim.agents.evaluation.scene_runner.SceneRunner.run", work)
    monkeypatch.setattr("foveasim.recording.record._write_frames", work)
    monkeypatch.setattr("foveasim.experiments.paper.command._run_all", work)
    if fault == "no permission":
        out = Path("/sys/kernel/foveasim")  # refuses root, too
        if not out.parent.is_dir():
            pytest.skip("needs /sys/kernel")
    else:
        (tmp_path / "file").write_text("in the way")
        out = tmp_path / "file" / "out"
    refused(command(data, out), capsys, str(out.parent))
    assert not tmp_path.joinpath("file").is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("command", [train, compare], ids=lambda command: command.__name__)
def test_a_read_only_folder_is_told_before_any_work(
    command: Callable[[Path, Path], list[str]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for folder in (data, *data.parents[:2], tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    words = command(data, out)
    monkeypatch.setattr(
        "foveasim.experiments.compare.command.read_scenes", lambda *of, **options: pytest.fail("began to work")
    )
    os.seteuid(65534)
    try:
        refused(words, capsys, str(out), "Permission denied", "Choose another --out")
    finally:
        os.seteuid(0)


# Disks


@pytest.fixture(params=[20, 150], ids="{} kB".format)
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk that is full after so many kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "none", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs root that may mount a disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
@pytest.mark.parametrize("command", [pretrain, train, compare, record_frames, record_mp4, record_gif])
def test_a_disk_that_fills_up_is_told_and_nothing_half_stays(
    command: Callable[[Path, Path], list[str]], small_disk: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command in (record_mp4, record_gif):
        (small_disk / "ballast").write_bytes(bytes(os.statvfs(small_disk).f_bfree * os.statvfs(small_disk).f_frsize))
        refused(command(data, small_disk), capsys, str(small_disk), "No space left on device")
        assert [path.name for path in small_disk.iterdir()] == ["ballast"]
        return
    out = small_disk / "out"
    if command is record_frames:
        for frame in range(os.statvfs(small_disk).f_bfree - 3):
            (small_disk / f"ballast-{frame}").write_bytes(bytes(4096))
    refused(command(data, out), capsys, str(out), "No space left on device")
    for path in out.rglob("*") if out.exists() else ():
        assert path.suffix != ".part", path
        if path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()


# Screens, cameras, videos


def test_no_screen_records_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    words = ["watch", "--scenes=uniform", "--agent=centre", "--network=none", "--size=160x160", "--seconds=0.2"]
    assert main(words) == 0
    assert "There is no display" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foveasim.gif", "foveasim.mp4"]


def test_a_window_needs_no_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("SDL_AUDIODRIVER", "no such driver")
    window = open_window(WatchConfig(scenes="uniform", agent="centre", network=None, size=(160, 160)))
    try:
        window.tick(33)
        assert pygame.mixer is None or not pygame.mixer.get_init()
    finally:
        window.close()


def test_a_window_that_is_closed_while_it_records_leaves_a_whole_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    config = WatchConfig(scenes="uniform", agent="centre", network=None, size=(160, 160), folder=str(tmp_path))
    window = open_window(config)
    try:
        window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_v, mod=0, unicode="v"))
        for _ in range(3):
            window.tick(33)
            time.sleep(0.05)
        assert window.recording
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        window.run()
    finally:
        window.close()
    (path,) = tmp_path.iterdir()
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) >= 1 and video.read()[0]


def test_no_camera_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class NoCamera:
        def __init__(self, device: int) -> None:
            pass

        def isOpened(self) -> bool:
            return False

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", NoCamera)
    refused([*record(tmp_path / "a.mp4"), "--scenes=webcam"], capsys, "webcam 0 cannot be opened", "Connect one")
    assert list(tmp_path.iterdir()) == []


def film(path: Path, frames: int) -> Path:
    with Mp4Movie(path, 30, (64, 64)) as movie:
        for i in range(frames):
            movie.add(np.full((64, 64, 3), 40 + 5 * i, np.uint8))
    return path


def test_a_video_that_ends_begins_again(tmp_path: Path) -> None:
    short = film(tmp_path / "short.mp4", 3)
    assert main([*record(tmp_path / "a.mp4"), f"--scenes={short}", "--seconds=1"]) == 0
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 10


@pytest.mark.filterwarnings("default")
def test_a_video_that_breaks_off_is_told_and_its_last_frame_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = cv2.VideoWriter(str(tmp_path / "cut.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 64))
    draws = np.random.default_rng(0)
    for _ in range(30):
        whole.write(draws.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole.release()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    assert main([*record(tmp_path / "a.mp4"), f"--scenes={cut}", "--seconds=1"]) == 0
    said = capfd.readouterr().err
    assert "cut.avi breaks off after frame" in said and "Traceback" not in said
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 10


# Agents


class Looks:
    """An agent; what is wrong with it is said by its name."""

    name = "looks"

    def __init__(self, seed: int = 0) -> None:
        pass

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        pass

    def act(self, observation: Mapping[str, Any]) -> Any:
        return np.zeros((len(observation["fixation"]), 2), np.float32)


class Raises(Looks):
    def act(self, observation: Mapping[str, Any]) -> Any:
        raise RuntimeError("no idea where to look")


class ReturnsNone(Looks):
    def act(self, observation: Mapping[str, Any]) -> Any:
        return None


class Slow(Looks):
    looks = 0

    def act(self, observation: Mapping[str, Any]) -> Any:
        self.looks += 1
        if self.looks == 3:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(10)
        return super().act(observation)


@pytest.mark.parametrize(
    ("agent", "said"),
    [("Raises", "raised RuntimeError: no idea where to look"), ("ReturnsNone", "must be real numbers; got None")],
)
@pytest.mark.parametrize("command", ["record", "compare", "check"])
def test_an_agent_that_fails_is_named(
    command: str, agent: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"my_agents:{agent}"
    if command == "check":
        assert main(["check", spec]) == 1
        found = capsys.readouterr()
        assert f"{spec} breaks the contract: acts" in found.out and "Traceback" not in found.out + found.err
        return
    words = compare(data, tmp_path / "out") if command == "compare" else record(tmp_path / "a.mp4")
    changed = [word.replace("--agent=centre", f"--agent={spec}") for word in words]
    refused([spec if word == "centre" else word for word in changed], capsys, spec, said)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_agent_that_takes_ten_seconds_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(interrupts, "GRACE_S", 0.1)
    words = [word.replace("--agent=centre", "--agent=my_agents:Slow") for word in record(tmp_path / "a.mp4")]
    words += ["--seconds=9"]
    began_s = time.monotonic()
    assert main(words) == 130
    assert time.monotonic() - began_s < 9
    assert "interrupted; what was recorded until then is saved" in capsys.readouterr().out
    assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) >= 1
