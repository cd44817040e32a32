"""The command line: commands, options, YAML, errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveasim.cli import COMMANDS, main


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


def test_info_names_versions_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    for expected in ("torch", "pyramid", "saliency", "lean", "foveasim/Glimpse-v0"):
        assert expected in said


def test_check_passes_a_built_in_agent_and_fails_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert main(["record", str(out), "--config", str(config), "--seconds", "0.3"]) == 0
    from PIL import Image

    with Image.open(out) as gif:
        assert gif.size == (320, 240)


def test_a_flag_may_stand_alone(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    words = ["--out", str(out), "--seconds", "0.2", "--fps", "10", "--network", "none", "--size", "[240,320]"]
    assert main(["watch", "uniform", "--headless", *words]) == 0
    assert len(list(out.glob("*.png"))) == 2
