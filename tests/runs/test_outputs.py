"""What commands write: nothing that is there is replaced unasked, and nothing that they read is replaced at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import save_network
from foveasim.cli.commands import COMMANDS, main
from foveasim.drawing import movie as movies
from foveasim.drawing.movie import Mp4Movie, open_movie
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.recording import record as recording
from foveasim.runs.outputs import (
    Inputs,
    check_folder,
    check_output,
    check_outputs,
    choose_final_path,
    find_free_names,
    find_inputs,
    reading,
    rename_part,
)

QUICK = ("--network=none", "--agent=centre", "--size=160x160", "--seconds=0.2", "--fps=10")
TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [0, 0]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands of a test are started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, side: int = 48) -> Path:
    path.parent.mkdir(exist_ok=True)
    draws = np.random.default_rng(len(path.name))
    Image.fromarray(draws.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return path


def video(path: Path) -> Path:
    with open_movie(path, 10, (64, 64)) as movie:
        for level in (40, 120, 200):
            movie.add(np.full((64, 64, 3), level, np.uint8))
    return path


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *said: str) -> None:
    """See that a command ends with one line that says so, and changes no file."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(words) == 1, words
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1, complaint
    for part in said:
        assert part in complaint, complaint
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


# What is read


@pytest.mark.parametrize("more", [(), ("--overwrite",)], ids=["plain", "overwrite"])
@pytest.mark.parametrize("command", [("watch", "--headless"), ("record",)], ids=["watch", "record"])
def test_the_video_that_is_looked_at_is_not_replaced(
    command: tuple[str, ...], more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    video(Path("mine.mp4"))
    Path("folder").mkdir()
    Path("soft.mp4").symlink_to("mine.mp4")
    Path("hard.mp4").hardlink_to("mine.mp4")
    for out in (
        "mine.mp4",
        "./mine.mp4",
        "folder/../mine.mp4",
        str(Path("mine.mp4").absolute()),
        "soft.mp4",
        "hard.mp4",
    ):
        refused([*command, "mine.mp4", f"--out={out}", *QUICK, *more], capsys, Path(out).name, "never replaced")
    refused([*command, "soft.mp4", "--out=mine.mp4", *QUICK, *more], capsys, "mine.mp4", "never replaced")


def test_the_table_that_is_replayed_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("people.csv").write_text(
        "image,subject,index,x,y,duration_ms\na.jpg,p1,0,400,300,250\na.jpg,p1,1,500,200,300\n"
    )
    words = ["record", "uniform", "--out=r.mp4", *QUICK, "--overwrite"]
    who = ["--agent=human_replay", '--agent_arguments={"scanpaths": "people.csv"}']
    refused([*words, *who, "--scanpath=people.csv"], capsys, "people.csv", "never replaced")
    assert main([*words, *who, "--scanpath=machine.csv"]) == 0
    assert Path("machine.csv").exists()


def test_a_config_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("look.yaml").write_text("seconds: 0.2\n")
    words = ["record", "uniform", *QUICK, "--out=r.mp4", "--config", "look.yaml", "--overwrite"]
    refused([*words, "--scanpath=look.yaml"], capsys, "look.yaml", "never replaced")


def test_a_picture_of_the_folder_that_is_looked_at_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("photos_here/a.png"))
    Image.new("RGB", (48, 48)).save("photos_here/b.gif")
    words = ["record", "photos_here", *QUICK]
    refused([*words, "--out=photos_here/b.gif", "--overwrite"], capsys, "b.gif", "never replaced")
    assert main([*words, "--out=photos_here/new.mp4"]) == 0
    assert main([*words, "--out=photos_here/new.mp4", "--overwrite"]) == 0  # no picture
    refused([*words, "--out=photos_here", "--overwrite"], capsys, "photos_here")  # a folder of frames


def test_an_input_given_first_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("own.png"))
    assert main(["record", "own.png", "--out=r.mp4", "--scanpath=r.csv", *QUICK]) == 0
    assert "own" in Path("r.csv").read_text()
    assert COMMANDS["record"].positionals == COMMANDS["watch"].positionals == ("scenes",)
    refused(["record", "own.png", "--scenes=uniform", "--out=s.mp4", *QUICK], capsys, "own.png", "given twice")
    refused(["record", "--scenes=uniform", "look.mp4", *QUICK], capsys, "look.mp4", "--out")


def test_what_names_a_file_is_an_input() -> None:
    for name in ("a.csv", "b.safetensors", "c.tar", "mine.py"):
        Path(name).touch()
    Path("pictures").mkdir()
    Path("unet").mkdir()
    found = find_inputs(
        {"deep": [{"scanpaths": "a.csv"}], "rows": 3},
        "LABEL=b.safetensors",
        "mine:Agent",
        "unet",
        None,
        sources="c.tar@val",
    )
    assert {path.name for path in found.files} == {"a.csv", "b.safetensors", "c.tar", "mine.py"}
    assert found.folders == ()  # the shipped network unet is no folder
    assert find_inputs(sources=["pictures", "c.tar"]) == Inputs((Path("c.tar"),), (Path("pictures"),))
    with reading(["a.csv"]):
        assert find_inputs().files == (Path("a.csv"),)
    assert find_inputs().files == ()


def test_the_case_of_letters_hides_nothing() -> None:
    Path("a.csv").touch()
    if not Path("A.CSV").exists():  # a disk that tells small letters from large ones has no second name for it
        os.link("a.csv", "A.CSV")
    with pytest.raises(InvalidValueError, match="never replaced"):
        check_output("A.CSV", find_inputs("a.csv"), overwrite=True)


# What is there already


@pytest.mark.parametrize("ending", [".mp4", ".gif", ""])
def test_a_recording_is_replaced_only_if_asked(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "uniform", *QUICK, f"--out=keep{ending}"]
    assert main([*words, "--seconds=0.5"]) == 0
    before = {path.name: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    refused(words, capsys, f"keep{ending}", "--overwrite")
    refused(["watch", *words[1:], "--headless"], capsys, f"keep{ending}", "--overwrite")
    assert main([*words, "--overwrite", "--agent=random"]) == 0
    after = {path.name: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    assert before.keys() >= after.keys() and all(before[name] != content for name, content in after.items())
    if not ending:
        assert listing(Path("keep")) == ["frame-000001.png", "frame-000002.png"]


def test_a_folder_of_frames_with_anything_else_in_it_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("mine/holiday.png"))
    refused(["record", "uniform", *QUICK, "--out=mine", "--overwrite"], capsys, "holiday.png", "no frame")


def test_two_recordings_of_one_name_keep_their_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "uniform", *QUICK, "--out=keep.mp4"]) == 0
    assert main(["record", "uniform", *QUICK, "--out=keep.gif", "--agent=random"]) == 0
    names = ["keep.gif", "keep.gif.episode.json", "keep.mp4", "keep.mp4.episode.json"]
    assert listing(Path()) == names
    agents = [json.loads(Path(name).read_text())["made"]["config"]["agent"] for name in names[1::2]]
    assert agents == ["random", "centre"]
    Path("keep.mp4.episode.json").rename("keep.episode.json")  # as it was called before
    capsys.readouterr()
    assert main(["record", "--replay", "keep.episode.json"]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize("taken", ["r.csv", "r.mp4.episode.json"])
def test_what_lies_beside_a_recording_is_not_replaced_either(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(taken).write_text("mine")
    words = ["record", "uniform", *QUICK, "--out=r.mp4", "--scanpath=r.csv"]
    refused(words, capsys, taken, "--overwrite")
    assert main([*words, "--overwrite"]) == 0
    assert Path(taken).read_text() != "mine"


def test_outputs_of_one_command_are_different_files(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "uniform", *QUICK, "--overwrite"]
    refused([*words, "--out=a.mp4", "--scanpath=./a.mp4"], capsys, "out", "scanpath", "different files")
    refused([*words, "--out=a.mp4", "--scanpath=a.mp4.episode.json"], capsys, "episode", "different files")
    Path("here").symlink_to(".")
    with pytest.raises(InvalidValueError, match="different"):
        check_outputs({"one": "a.csv", "two": "here/a.csv"})
    check_outputs({"one": "a.csv", "two": "b.csv", "three": None})


def test_names_that_nobody_gave_are_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    Path("foveasim.gif").write_bytes(b"mine")
    assert main(["watch", "uniform", "--headless", *QUICK]) == 0
    assert listing(Path()) == ["foveasim-2.gif", "foveasim-2.mp4", "foveasim.gif"]
    said = capsys.readouterr().out
    assert "foveasim-2.mp4" in said and "foveasim-2.gif" in said
    assert main(["record", "uniform", *QUICK]) == 0
    assert main(["record", "uniform", *QUICK]) == 0
    assert {"foveasim.mp4", "foveasim.mp4.episode.json", "foveasim-3.mp4", "foveasim-3.mp4.episode.json"} < set(
        listing(Path())
    )
    assert Path("foveasim.gif").read_bytes() == b"mine"
    Path("gone.mp4").symlink_to("nowhere")  # a link that leads nowhere is a name that is taken
    assert find_free_names("gone.mp4") == [Path("gone-2.mp4")]


def test_a_file_that_appears_meanwhile_stays_and_so_does_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames = recording._write_frames

    def meanwhile(*of: Any) -> None:
        write_frames(*of)
        for name in ("r.mp4", "r.csv"):
            Path(name).write_text("of another")

    monkeypatch.setattr(recording, "_write_frames", meanwhile)
    with pytest.warns(UserWarning, match=r"r\.(mp4|csv) has been written by somebody else meanwhile"):
        assert (
            recording.record(
                recording.RecordConfig(
                    "uniform", "centre", network=None, size=(160, 160), out="r.mp4", seconds=0.2, scanpath="r.csv"
                )
            )
            == 0
        )
    assert Path("r.mp4").read_text() == Path("r.csv").read_text() == "of another"
    assert listing(Path()) == ["r-2.csv", "r-2.mp4", "r-2.mp4.episode.json", "r.csv", "r.mp4"]


def test_a_name_is_given_to_one_only(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.csv").write_text("theirs")
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", lambda *of: (_ for _ in ()).throw(OSError("no links on this disk")))
        Path(".a.part").write_text("ours")
        with pytest.warns(UserWarning, match="meanwhile"):
            name = rename_part(Path(".a.part"), Path("a.csv"), overwrite=False)
        assert (name.name, name.read_text()) == (f"a-{2 if links else 3}.csv", "ours")
    with pytest.warns(UserWarning, match="meanwhile"):
        assert choose_final_path(Path("a.csv"), overwrite=False) == Path("a-4.csv")
    assert choose_final_path(Path("a.csv"), overwrite=True) == Path("a.csv")
    Path(".a.part").write_text("ours")
    assert rename_part(Path(".a.part"), Path("a.csv"), overwrite=True).read_text() == "ours"
    assert not Path(".a.part").exists()


def test_two_windows_that_record_at_once_keep_both_videos() -> None:
    ours = Mp4Movie("foveasim-0001.mp4", 10, (64, 64))
    ours.add(np.zeros((64, 64, 3), np.uint8))
    Path("foveasim-0001.mp4").write_bytes(b"of the other window")
    with pytest.warns(UserWarning, match="foveasim-0001-2"):
        assert ours.close() == Path("foveasim-0001-2.mp4")
    assert Path("foveasim-0001.mp4").read_bytes() == b"of the other window"


def test_files_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(InvalidTypeError, match="must name a file"):
        check_output("")
    with pytest.raises(InvalidValueError, match="it is a folder"):
        check_output(".")
    with pytest.raises(InvalidValueError, match="does not exist"):
        check_output("no/a.csv")
    assert check_output("made/a.csv", make_parent=True) == Path("made/a.csv")
    assert Path("made").is_dir()
    assert movies.check_frames(Path("frames")) is None


# Folders of runs


def test_a_folder_is_looked_at_before_the_work() -> None:
    out = Path("a/b")
    assert check_folder(out, overwrite=False, resume=False) == out
    assert out.is_dir() and not list(out.iterdir())
    (out / ".table.csv.part").write_bytes(b"half")
    (out / ".DS_Store").touch()
    check_folder(out, overwrite=False, resume=False)
    assert listing(out) == [".DS_Store"]
    (out / "compare.json").write_text("{}")
    with pytest.raises(
        InvalidValueError, match=r"holds compare\.json\. Go on .* by --resume, begin anew by --overwrite"
    ):
        check_folder(out, overwrite=False, resume=False)
    with pytest.raises(
        InvalidValueError, match=r"holds compare\.json\. Write into it by --overwrite, or choose another"
    ):
        check_folder(out, overwrite=False)
    check_folder(out, overwrite=False, resume=True)
    check_folder(out, overwrite=True, resume=False)
    (out / "compare.json").rename("compare.json")
    (out / ".unfinished").mkdir()
    with pytest.raises(InvalidValueError, match=r"holds \.unfinished\. Go on"):
        check_folder(out, overwrite=False, resume=False)
    with pytest.raises(InvalidValueError, match="not both"):
        check_folder(out, overwrite=True, resume=True)
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        check_folder("compare.json", overwrite=False)
    with pytest.raises(InvalidTypeError, match="must name a folder"):
        check_folder("", overwrite=False)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user other than root")
def test_a_folder_that_is_read_only_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        check_folder(tmp_path, overwrite=False)


def test_a_folder_that_is_read_is_not_written_to() -> None:
    picture(Path("data/a.png"))
    Path("run").mkdir()
    Path("run/best.safetensors").touch()
    Path("run/mine.yaml").touch()
    for overwrite, resume in ((True, False), (False, True), (False, False)):
        with pytest.raises(InvalidValueError, match="never replaced"):
            check_folder("data", find_inputs(sources="data"), overwrite=overwrite, resume=resume)
        with pytest.raises(InvalidValueError, match=r"reads run/best\.safetensors"):
            check_folder("run", find_inputs("run/best.safetensors"), overwrite=overwrite, resume=resume)
    check_folder("run", find_inputs("run/mine.yaml"), overwrite=True)  # no run writes that
    check_folder("data/new", find_inputs(sources="data"), overwrite=False)
    picture(Path("data/new/b.png"))
    with pytest.raises(InvalidValueError, match="never replaced"):
        check_folder("data/new", find_inputs(sources="data"), overwrite=True)


@pytest.fixture
def network(here: Path) -> str:
    save_network(here / "tiny.safetensors", make_network("lean", **TINY), {})
    return "tiny.safetensors"


def pretrain(network: str) -> list[str]:
    return ["pretrain", "--data=data", "--steps=1", "--batch=2", "--size=32", f"--network_options={json.dumps(TINY)}"]


def train(network: str) -> list[str]:
    return ["train", "--data=data", f"--network={network}"]


def compare(network: str) -> list[str]:
    words = ["--limit=1", "--size=48x48", "--fixations=2", "--seeds=1", "--show=0", "--resamples=100"]
    return ["compare", "centre", "--data=data", f"--network={network}", *words]


def humans(network: str) -> list[str]:
    return ["humans", "centre", "--data=data"]


def paper(network: str) -> list[str]:
    return ["paper", "data", "--epochs=1", "--size=32"]


def tune(network: str) -> list[str]:
    pytest.importorskip("optuna")
    return ["tune", "--data=data", "--validate=data"]


def segment(network: str) -> list[str]:
    return ["segment", "data", "--side=32"]


def readout(network: str) -> list[str]:
    return ["readout", network, "--data=data"]


def latent(network: str) -> list[str]:
    return ["latent", network, "--data=data", "--images=2", "--size=32", "--batch=2"]


@pytest.mark.parametrize(
    "command", [pretrain, train, compare, humans, paper, tune, segment, readout, latent], ids=lambda one: one.__name__
)
def test_no_command_writes_into_a_folder_that_holds_something(
    command: Callable[[str], list[str]], network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(Path("data/a.png"))
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("all of it")
    resumes = command not in (readout, latent)
    ways = ("--resume", "--overwrite") if resumes else ("--overwrite",)
    if command is paper:  # looks at its data before
        for part in ("train", "val"):
            for name in ("one", "two"):
                Path(f"data/{part}/{name}").mkdir(parents=True)
                picture(Path(f"data/{part}/{name}/a.png"))
    refused([*command(network), "--out=full"], capsys, "full is not empty: it holds thesis.txt", *ways)
    refused(
        [*command(network), "--out=data", "--overwrite"], capsys, *(() if command is humans else ("never replaced",))
    )


@pytest.mark.parametrize("command", [pretrain, compare, segment, latent], ids=lambda one: one.__name__)
def test_overwriting_begins_anew_and_keeps_what_is_not_its_own(
    command: Callable[[str], list[str]], network: str
) -> None:
    for name in "abcd":
        picture(Path(f"data/{name}.png"))
    Path("full").mkdir()
    for name in ("thesis.txt", "step-00000009.safetensors"):
        Path("full", name).write_text("all of it")
    words = [*command(network), "--out=full", *(["--threads=1"] if command is not segment else [])]
    assert main([*words, "--overwrite"]) == 0
    first = {path: path.stat().st_mtime_ns for path in Path("full").rglob("*.*") if path.suffix in (".png", ".json")}
    assert first
    assert Path("full/thesis.txt").read_text() == "all of it"
    assert Path("full/step-00000009.safetensors").exists() == (command is not pretrain)  # it would be of another run
    assert main([*words, "--overwrite"]) == 0
    assert all(path.stat().st_mtime_ns > before for path, before in first.items())


def test_masks_that_are_there_are_kept_by_resume(network: str) -> None:
    picture(Path("data/a.png"))
    assert main([*segment(network), "--out=masks"]) == 0
    Path("masks/a.png").write_bytes(made := Path("masks/a.png").read_bytes())
    before = Path("masks/a.png").stat().st_mtime_ns
    picture(Path("data/b.png"))
    assert main([*segment(network), "--out=masks"]) == 1
    assert main([*segment(network), "--out=masks", "--resume"]) == 0
    assert Path("masks/a.png").stat().st_mtime_ns == before and Path("masks/a.png").read_bytes() == made
    assert Path("masks/b.png").exists()


def test_calibrate_replaces_no_picture(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("data/a.png"))
    words = ["calibrate", network, "--data=data"]
    refused([*words, "--out=data/a.png", "--overwrite"], capsys, "never replaced")
    Path("mine.png").write_bytes(b"mine")
    refused([*words, "--out=mine.png"], capsys, "--overwrite")


def test_bench_replaces_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "--only=floor/copy*", "--seconds=0.001", "--repeats=1"]
    assert main([*words, "--out=new/here.json"]) == 0
    refused([*words, "--out=new/here.json"], capsys, "new/here.json", "--overwrite")
    refused([*words, "--out=new/here.json", "--against=new/here.json", "--overwrite"], capsys, "never replaced")
    assert main([*words, "--out=new/here.json", "--overwrite"]) == 0


def test_every_command_with_a_named_output_can_be_asked_to_overwrite() -> None:
    import importlib
    from dataclasses import fields

    for name, command in COMMANDS.items():
        names = {one.name for one in fields(getattr(importlib.import_module(command.module), command.config))}
        assert ("overwrite" in names) == ("out" in names), name
