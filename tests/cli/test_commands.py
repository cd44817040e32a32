"""The command line: commands, options, YAML, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from foveasim.cli.commands import COMMANDS, GROUPS, Command, _parse, main
from foveasim.errors import InvalidValueError


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: foveasim {name}" in capsys.readouterr().out


def test_no_command_shows_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wach"]) == 2
    assert "Did you mean 'watch'?" in capsys.readouterr().err


def test_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["watch", "--retinna", "disc"])
    assert stop.value.code == 2
    assert "retinna" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["watch", "--agents", "walk"], "there is no option --agents. Did you mean --agent?"),
        (["compare", "random", "--dta=photos"], "there is no option --dta. Did you mean --data?"),
        (["watch", "--wxyzq", "1"], "there is no option --wxyzq.\n"),
        (["info", "extra"], "there is no use for 'extra' here."),
        (["watch", "--speed", "fast"], "--speed must be a number; got 'fast'."),
        (["compare", "--seeds", "1.5"], "--seeds must be a whole number; got '1.5'."),
        (["watch", "--retina_options", "a=1"], "--retina_options must be names and values, as in '{name: value}'"),
        (["train", "--task", "look"], "--task must be one of view, search, classify; got 'look'."),
    ],
)
def test_a_misuse_says_what_to_type_instead(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_help_shows_what_stands_without_a_name_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for words, usage in (
        ("watch", "watch [SCENES] [OPTIONS]"),
        ("check", "check AGENT [OPTIONS]"),
        ("compare", "compare [AGENTS ...] [OPTIONS]"),
        ("data", "data get DATASET [FOLDER] [OPTIONS]"),
        ("train", "train [--preset NAME] [OPTIONS]"),
    ):
        with pytest.raises(SystemExit):
            main([words, "--help"])
        said = capsys.readouterr().out
        assert said.startswith(f"usage: foveasim {usage}\n")
        assert f"examples:\n  foveasim {words}" in said
        assert "``" not in said and ":func:" not in said


def test_every_command_is_in_one_group_and_its_examples_are_understood() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
    for command in COMMANDS.values():
        for line in command.examples:
            program, name, *words = line.split()
            assert program == "foveasim"
            if "--print_config" not in words:
                _parse(name, COMMANDS[name], words)


def test_info_names_versions_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for expected in ("torch", "pyramid", "saliency", "unet", "foveasim/Glimpse-v0"):
        assert expected in said


def test_check_passes_a_built_in_agent_and_fails_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table breaks the message
    assert main(["check", "centre"]) == 0
    (tmp_path / "my_broken_agents.py").write_text(
        "import numpy as np\n"
        "class Nowhere:\n"
        "    def reset(self, lanes): ...\n"
        "    def act(self, observation):\n"
        "        return np.full((len(observation['fixation']), 2), np.nan, np.float32)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", __import__("sys").path.copy())
    assert main(["check", "my_broken_agents:Nowhere"]) == 1
    assert "must be finite" in capsys.readouterr().out


def test_unknown_agent_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "walkk"]) == 1
    assert "Did you mean 'walk'?" in capsys.readouterr().err


def test_options_come_from_yaml_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "look.yaml"
    config.write_text("scenes: uniform\nseconds: 0.2\nfps: 10\nnetwork: none\nsize: [240, 320]\nagent: centre\n")
    out = tmp_path / "look.gif"
    assert main(["record", "--out", str(out), "--config", str(config), "--seconds", "0.3"]) == 0
    from PIL import Image

    with Image.open(out) as gif:
        assert gif.size == (320, 240)


def test_a_flag_may_stand_alone(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    words = ["--out", str(out), "--seconds", "0.2", "--fps", "10", "--network", "none", "--size", "[240,320]"]
    assert main(["watch", "uniform", "--headless", *words]) == 0
    assert len(list(out.glob("*.png"))) == 2


def parsed(*words: str) -> Any:
    return _parse(words[0], COMMANDS[words[0]], list(words[1:]))


def test_options_may_come_before_what_has_no_name() -> None:
    for words in (["--agent", "walk", "odd.png"], ["odd.png", "--agent", "walk"], ["--agent=walk", "odd.png"]):
        config = parsed("watch", *words)
        assert (config.agent, config.scenes) == ("walk", "odd.png")
    config = parsed("watch", "--headless", "odd.png", "--fullscreen", "false")
    assert (config.headless, config.fullscreen, config.scenes) == (True, False, "odd.png")
    with pytest.raises(SystemExit):
        parsed("watch", "one.png", "two.png")


@pytest.mark.parametrize("size", [["240", "426"], ["240x426"], ["240,426"], ["[240,426]"], ["(240, 426)"]])
def test_a_size_is_understood_however_it_is_written(size: list[str]) -> None:
    config = parsed("record", "--size", *size, "a.jpg")
    assert (tuple(config.size), config.scenes) == ((240, 426), "a.jpg")


@pytest.mark.parametrize("size", ["240", "big", "1,2,3", "-3x4"])
def test_what_is_no_size_is_refused_with_the_right_form(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidValueError, match="--size 240x426"):
        parsed("record", f"--size={size}")
    assert main(["record", f"--size={size}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_left_over_goes_to_a_last_list() -> None:
    config = parsed("latent", "a.safetensors", "--data", "images", "b.safetensors", "c.safetensors")
    assert config.weights == ["a.safetensors", "b.safetensors", "c.safetensors"]
    assert (config.data, parsed("latent", "unet").weights) == ("images", "unet")


@pytest.mark.parametrize("seeds", ["0,3", "[0, 3]", "[0,3]"])
def test_numbers_may_stand_without_brackets(seeds: str) -> None:
    assert parsed("paper", "data", "--seeds", seeds).seeds == [0, 3]
    assert parsed("paper", "data", "--seeds", "2").seeds == [2]
    words = ["--data=a", "--data=b", "--steps=1"]
    assert parsed("pretrain", *words, "--shares", "0.8,0.2").shares == [0.8, 0.2]
    assert parsed("pretrain", *words, "--shares", "null").shares is None


def test_a_misuse_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pretrain", "--lr", "nan"])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "usage: foveasim pretrain [--preset NAME] [OPTIONS]" and len(said) < 6


def test_retina_agent_and_saccades_have_options_of_their_own() -> None:
    words = ["--retina_options.preset", "paper", "--max_amplitude_deg", "5", "--scatter", "0.1"]
    config = parsed("watch", *words, "--agent_arguments", '{"temperature": 2}')
    assert config.retina_options == {"preset": "paper"}
    assert config.agent_arguments == {"temperature": 2}
    assert (config.max_amplitude_deg, config.scatter) == (5.0, 0.1)
    assert parsed("watch", "--retina_options", "{hidden_ratio: 0.5}").retina_options == {"hidden_ratio": 0.5}


def test_a_list_may_be_one_plain_value_or_several() -> None:
    assert parsed("evaluate", "unet", "--data", "folder").data == ["folder"]
    assert parsed("evaluate", "--data", "a", "--data=b").data == ["a", "b"]
    assert parsed("evaluate", "--data", "[a,b]").data == ["a", "b"]


def raising(error: Exception) -> Any:
    def run(config: object) -> int:
        raise error

    return run


def test_foveasim_errors_are_one_line_and_others_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command("foveasim.cli.info", "InfoConfig", "info", (), "")
    monkeypatch.setitem(COMMANDS, "info", command)
    monkeypatch.setattr("foveasim.cli.info.info", raising(InvalidValueError("no such thing")))
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "foveasim info: no such thing\n"
    monkeypatch.setattr("foveasim.cli.info.info", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["info"])


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def warn(config: object) -> int:
        warnings.warn("skipped 2 files:\n  a.png", UserWarning, stacklevel=2)
        return 0

    monkeypatch.setattr("foveasim.cli.info.info", warn)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["info"]) == 0
        assert capsys.readouterr().err == "foveasim: skipped 2 files: a.png\n"
    assert warnings.showwarning is before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("sent", [[signal.SIGTERM], [signal.SIGINT] * 3])
def test_signals_end_a_recording_and_leave_whole_files(tmp_path: Path, sent: list[signal.Signals]) -> None:
    words = ["record", "uniform", "--out", "a.mp4", "--seconds", "3000", "--network", "none", "--size", "160x160"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "foveasim", *words, "--scanpath", "a.csv"], cwd=tmp_path, env=environment
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size for path in tmp_path.glob(".a.*")):
            break
        time.sleep(0.05)  # the encoder has begun its file
    for one in sent:
        process.send_signal(one)
        time.sleep(0.01)
    assert process.wait(30) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.mp4", "a.mp4.episode.json"]
