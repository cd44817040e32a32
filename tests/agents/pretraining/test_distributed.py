"""Several processes on one machine, joined by gloo, against a single one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from foveasim.agents.mim.weights_file import load_network, read_tensors
from foveasim.agents.pretraining.distributed import ProcessGroup, join_processes
from foveasim.cli.commands import main
from foveasim.errors import FoveasimError, InvalidValueError

TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [1, 0]}
LR = 1e-3

# Sent to whoever is asked, when it has made three steps.
AT_STEP_THREE = """
import os, signal
from foveasim.agents.pretraining.trainer import Trainer
from foveasim.cli.commands import entry
step = Trainer.train_step
def watched(self):
    if self.step == 3 and str(self.processes.rank) in os.environ["WHO"]:
        {act}
    return step(self)
Trainer.train_step = watched
entry()
"""
# Where it was started with Ctrl-C ignored, in the background of a shell.
LISTENS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight small pictures."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        picture = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (48, 40), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), picture)
    return tmp_path / "images"


def words(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("pretrain", f"--data={folder}", f"--out={out}", "--steps=8", "--batch=8", "--size=32", "--threads=1"),
        *(f"--network_options={json.dumps(TINY)}", f"--lr={LR}", "--jitter", "--checkpoint_steps=2", *more),
    ]


def torchrun(program: list[str], *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run two processes of one thread each; ``--standalone`` finds a free port itself."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [*launcher, *program, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_train_the_network_of_one(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    (folder / "9.png").write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(words(folder, tmp_path / "one")) == 0
    torch.set_num_threads(threads)
    alone, complained = capsys.readouterr()
    assert complained.count("skipped 1 images that cannot be read: 9.png") == 1
    joint = torchrun(["-m", "foveasim"], *words(folder, tmp_path / "two"))
    assert joint.returncode == 0, joint.stderr
    # The second process is silent: one line about the data, the figures once, one about the file.
    assert len(joint.stdout.splitlines()) == len(alone.splitlines()) == 3
    assert "on 2 x cpu" in joint.stdout and joint.stdout.count("wrote ") == 1
    assert joint.stderr.count("9.png: not an image") == 1
    names = [{path.name for path in (tmp_path / run).iterdir()} for run in ("one", "two")]
    assert (
        names[0]
        == names[1]
        == {
            *("checkpoint.safetensors", "lean.md", "lean.safetensors", "log.jsonl", "pictures.png"),
        }
    )
    (expected, about), (found, also) = (
        read_tensors(tmp_path / run / "checkpoint.safetensors") for run in ("one", "two")
    )
    counters, others = json.loads(about["counters"]), json.loads(also["counters"])
    assert (counters["step"], counters["images"]) == (others["step"], others["images"]) == (8, 64)
    # Means of two halves are added in another order than the mean of all: gradients differ by float32's last bits,
    # which Adam, dividing by their size, passes on as a share of lr. 3e-8 is what is usual; lr / 100 is where a
    # wrong gradient would be far beyond: without the other half, weights differ by up to 8 lr.
    for name, value in expected.items():
        if name.startswith(("network.", "ema.")):
            torch.testing.assert_close(found[name], value, rtol=0, atol=LR / 100, msg=name)
    logs = [json.loads((tmp_path / run / "log.jsonl").read_text()) for run in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-5)  # of the whole batch, not of a half
    # and goes on alone to where it would have come
    (folder / "9.png").unlink()
    assert main(words(folder, tmp_path / "two", "--resume", "--steps=10")) == 0
    torch.set_num_threads(threads)
    assert load_network(tmp_path / "two" / "lean.safetensors").config.width == 8


@pytest.mark.slow
@pytest.mark.parametrize("who", ["0", "1"])
def test_when_one_process_dies_the_other_does_not_wait_for_ever(tmp_path: Path, folder: Path, who: str) -> None:
    program = tmp_path / "dies.py"
    program.write_text(AT_STEP_THREE.format(act="os.kill(os.getpid(), signal.SIGKILL)"))
    ended = torchrun([str(program)], *words(folder, tmp_path / "out"), WHO=who)
    assert ended.returncode == 1
    assert "exitcode  : -9" in ended.stderr
    counters = json.loads(read_tensors(tmp_path / "out" / "checkpoint.safetensors")[1]["counters"])
    assert counters["step"] == 2


@pytest.mark.slow
def test_ctrl_c_lets_the_first_process_write_its_checkpoint(tmp_path: Path, folder: Path) -> None:
    program = tmp_path / "stops.py"
    program.write_text(LISTENS + AT_STEP_THREE.format(act="os.kill(os.getpid(), signal.SIGINT)"))
    ended = torchrun([str(program)], *words(folder, tmp_path / "out"), WHO="01")
    assert ended.returncode == 1  # torchrun's own; that of the processes is 130
    assert "exitcode  : 130" in ended.stderr and "another process" not in ended.stderr
    assert "stopped after step 4" in ended.stdout
    counters = json.loads(read_tensors(tmp_path / "out" / "checkpoint.safetensors")[1]["counters"])
    assert counters["step"] == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch=7"], "batch must be a multiple of the 2 processes; got 7"),
        (["--steps=null", "--minutes=1"], "give epochs or steps instead of minutes"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    tmp_path: Path, folder: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from contextlib import nullcontext

    from foveasim.agents.pretraining import command

    monkeypatch.setattr(command, "join_processes", lambda device: nullcontext((ProcessGroup(1, 2), device)))
    assert main(words(folder, tmp_path / "out", *more)) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


DISAGREES = """
import torch
from foveasim.agents.pretraining.distributed import join_processes
with join_processes("cpu") as (processes, device):
    processes.require_equal("number of cats", 3, torch.device(device))
    tensors = [torch.full((2, 3), float(processes.rank)), torch.tensor(4.0 * processes.rank)]
    processes.average_(tensors)
    processes.wait()
    if processes.first:
        print(processes, processes.part(10), tensors, flush=True)
    processes.wait()
    try:
        processes.require_equal("number of images", 10 + processes.rank, torch.device(device))
    except ValueError as error:
        print(str(error) * processes.first, end="", flush=True)
"""


def test_means_and_agreement_in_closed_form(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(DISAGREES)
    ended = torchrun([str(program)])
    assert ended.returncode == 0, ended.stderr
    assert "ProcessGroup(rank=0, count=2) slice(0, 5, None)" in ended.stdout
    assert "[0.5000, 0.5000, 0.5000]" in ended.stdout and "tensor(2.)" in ended.stdout
    assert "all processes must have the same number of images; they have from 10 to 11" in ended.stdout


def test_that_another_process_is_gone_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("[../third_party/gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    for name in ("all_reduce", "barrier"):
        monkeypatch.setattr(torch.distributed, name, gone)
    processes = ProcessGroup(0, 2)
    with pytest.raises(FoveasimError, match=r"another process of this run has ended.*--resume true"):
        processes.average_([torch.ones(2)])
    with pytest.raises(FoveasimError, match="another process"):
        processes.require_equal("number", 1, torch.device("cpu"))
    with pytest.raises(FoveasimError, match="another process"):
        processes.wait()


def test_a_single_process_joins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    tensor = torch.ones(3)
    with join_processes("cpu") as (processes, device):
        assert (processes, device) == (ProcessGroup(0, 1), "cpu") and processes.first
        processes.average_([tensor])
        processes.require_equal("number", 1, torch.device("cpu"))
        processes.wait()
    assert bool((tensor == 1).all()) and not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs no accelerator")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    variables: dict[str, Any] = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidValueError, match="0 GPUs, and this is its process 2"), join_processes("cuda"):
        pass
