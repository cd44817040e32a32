"""YAML as it is read and written here: the core schema of YAML 1.2, and text that stays text."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from foveasim.agents.pretraining import config as pretrain_config
from foveasim.agents.rl import config as train_config
from foveasim.cli.commands import COMMANDS, _parse
from foveasim.yaml_core import dump_yaml, load_yaml

READ = {
    "000000000012": "000000000012",
    "007": "007",
    "0089": "0089",
    "-007": "-007",
    "00.5": "00.5",
    "'000000000012'": "000000000012",
    '"12"': "12",
    '"yes"': "yes",
    '"12:30"': "12:30",
    '"1e3"': "1e3",
    "'true'": "true",
    "'null'": "null",
    "''": "",
    "1_0": "1_0",
    "12:30": "12:30",
    "190:20:30.15": "190:20:30.15",
    "2001-01-01": "2001-01-01",
    "yes": "yes",
    "no": "no",
    "On": "On",
    "off": "off",
    "0b101": "0b101",
    "0x_": "0x_",
    "٣": "٣",
    "mine:Agent": "mine:Agent",
    "😀": "😀",
    "0": 0,
    "12": 12,
    "-3": -3,
    "+5": 5,
    "0o17": 15,
    "0x1F": 31,
    "1e3": 1000.0,
    "1e-4": 0.0001,
    "1E+2": 100.0,
    "1.5": 1.5,
    ".5": 0.5,
    "5.": 5.0,
    "-.inf": -math.inf,
    "true": True,
    "FALSE": False,
    "null": None,
    "~": None,
    "[007, 7, '7']": ["007", 7, "7"],
    "{a: 007, b: {c: '1e3'}}": {"a": "007", "b": {"c": "1e3"}},
}
"""What is written, and what it is."""


def same(found: Any, expected: Any) -> bool:
    return bool(repr(found) == repr(expected))  # 1, 1.0 and True are equal


def parsed(*words: str) -> Any:
    return _parse("watch", COMMANDS["watch"], list(words))


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_a_value_is_the_same_wherever_it_stands(tmp_path: Path, text: str, value: object) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"agent_arguments: {{x: {text}}}\nretina_options:\n  y: {text}\n", encoding="utf-8")
    assert same(load_yaml(text), value)
    assert same(parsed("--agent_arguments", f"{{x: {text}}}").agent_arguments, {"x": value})
    assert same(parsed("--agent_arguments.x", text).agent_arguments, {"x": value})
    assert same(parsed(f"--agent_arguments.x={text}").agent_arguments, {"x": value})
    assert same(parsed("--agent_arguments.x.z", text).agent_arguments, {"x": {"z": value}})
    from_file = parsed("--config", str(config))
    assert same((from_file.agent_arguments, from_file.retina_options), ({"x": value}, {"y": value}))
    argument = _parse("compare", COMMANDS["compare"], ["--data=a", "--agent_arguments", f"{{a: {{x: {text}}}}}"])
    assert same(argument.agent_arguments, {"a": {"x": value}})


def test_arguments_inside_of_one_are_all_taken() -> None:
    words = ["--agent_arguments.a.b", "007", "--agent_arguments.a.c", "2", "--agent_arguments.d", "no"]
    assert same(parsed(*words).agent_arguments, {"a": {"b": "007", "c": 2}, "d": "no"})


@pytest.mark.parametrize("text", ["007", "yes", "1e3", "12:30", "null", "12", "😀", "a: b", "'7'"])
def test_an_option_of_text_is_what_was_typed(text: str) -> None:
    assert same(parsed("--agent", text).agent, text)
    listed = _parse("evaluate", COMMANDS["evaluate"], ["--data", text, "--data=b"])
    assert same(listed.data, [text, "b"])


def test_options_of_numbers_and_of_yes_or_no_are_what_can_only_be_meant(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for text, value in (("007", 7), ("+010", 10), ("1_000", 1000), ("0x1F", 31)):
        config.write_text(f"seed: {text}", encoding="utf-8")
        assert same((parsed("--seed", text).seed, parsed("--config", str(config)).seed), (value, value))
    for text, number in (("1e-4", 0.0001), ("'1e-4'", 0.0001), ("2", 2.0)):
        config.write_text(f"speed: {text}", encoding="utf-8")
        assert same((parsed("--speed", text).speed, parsed("--config", str(config)).speed), (number, number))
    for text, expected in (("no", False), ("yes", True), ("on", True), ("false", False)):
        config.write_text(f"headless: {text}", encoding="utf-8")
        assert (parsed("--headless", text).headless, parsed("--config", str(config)).headless) == (expected, expected)


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("seed", "12:30", "--seed must be a whole number; got '12:30'"),
        ("seed", "!!int x", "'x' is no int"),
        ("seed", "1" * 5000, "a number has more than 300 digits"),
        ("speed", "1:30.5", "--speed must be a number; got '1:30.5'"),
        ("speed", "!!float 0xF", "'0xF' is no float"),
        ("headless", "maybe", "--headless must be true or false; got 'maybe'"),
        ("size", "[1:30, 20]", "--size must be whole numbers; got '1:30'"),
        ("agent_arguments", "{x: !!int x}", "'x' is no int"),
        ("agent_arguments", f"{{x: {'1' * 5000}}}", "a number has more than 300 digits"),
        ("agent_arguments", "{x: !!timestamp 2001-01-01}", "timestamp"),
        ("agent_arguments", "{x: &a {y: 1}, z: {<<: *a}}", "merge keys (<<) are not read"),
        ("agent_arguments", "'{x: 1}'", "--agent_arguments must be names and values"),
    ],
)
def test_what_cannot_be_is_said_without_a_traceback(
    tmp_path: Path, option: str, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{option}: {text}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        parsed("--config", str(config))
    assert left.value.code == 2
    assert expected in capsys.readouterr().err
    if option in ("seed", "speed", "agent_arguments"):
        with pytest.raises(SystemExit) as left:
            parsed(f"--{option}={text}")
        assert left.value.code == 2
        assert "error: " in capsys.readouterr().err


TEXTS = [
    *["007", "yes", "1e3", "12:30", "000000000012", "0o17", "1_0", "", "~", "a\nb", " x", "x: y", "- a", "<<", "="],
    *["2001-01-01", "2001-12-14t21:59:43.10-05:00", "😀", "\x85", "\x7f", "off", "Y", "1e-4", "-007", "+1", ".5"],
    *["1,000", ".inf", "NaN", "null", "true", "'q'", '"q"', "{a: b}", "0x1F", "0b1", "C:", "#x", "a #b"],
]


def test_what_is_written_is_read_the_same_here_and_by_yaml_1_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {f"x{n}": text for n, text in enumerate(TEXTS)}
    arguments |= {
        "list": ["007", 7, {"y": "1e3"}],
        "f": 0.0001,
        "i": 1,
        "b": True,
        "n": None,
        **dict.fromkeys(TEXTS, 1),
    }
    assert same(load_yaml(dump_yaml(arguments)), arguments)
    assert same(yaml.safe_load(dump_yaml(arguments)), arguments)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    del arguments["C:"], arguments[""]
    first.write_text(dump_yaml({"agent_arguments": arguments, "agent": "no", "out": "007"}), encoding="utf-8")
    with pytest.raises(SystemExit):
        parsed("--config", str(first), "--print_config")
    second.write_text(capsys.readouterr().out, encoding="utf-8")
    config = parsed("--config", str(second))
    assert same(config, parsed("--config", str(first)))
    assert same((config.agent_arguments, config.agent, config.out), (arguments, "no", "007"))
    assert type(config.out) is str and type(config.agent_arguments["x0"]) is str


def test_aliases_are_read_and_counted_before_they_are_made() -> None:
    assert load_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    lines = ["x0: &x0 [1, 1, 1]", *(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 30))]
    began = time.perf_counter()
    with pytest.raises(yaml.YAMLError, match="more than 100,000 parts"):
        load_yaml("\n".join(lines))
    with pytest.raises(yaml.YAMLError, match="more than 100,000 parts"):
        load_yaml("a: &a {b: *a}")
    assert time.perf_counter() - began < 5
    with pytest.raises(yaml.YAMLError, match="undefined alias"):
        load_yaml("*a")


def test_presets_hold_numbers_as_numbers() -> None:
    def texts(value: Any) -> list[str]:
        if isinstance(value, dict | list):
            return [text for part in (value.values() if isinstance(value, dict) else value) for text in texts(part)]
        return [value] if isinstance(value, str) else []

    for presets in (pretrain_config.PRESETS, train_config.PRESETS):
        for name in presets.names():
            assert not [text for text in texts(presets.values(name)) if text[:1].isdigit()], name
