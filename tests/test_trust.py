"""What a command may import: a name that was typed as what it names, and what a file names only with ``--trust``."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from foveasim.agents.evaluation.entries import open_entries
from foveasim.cli.commands import COMMANDS, main
from foveasim.cli.parser import typed_code
from foveasim.errors import UntrustedError
from foveasim.experiments.compare.command import CompareConfig
from foveasim.trust import check_code, check_pickle, guarded

BY_FILE = {
    "agent": "agent: {code}",
    "scenes": "scenes: {code}",
    "retina": "retina: {code}",
    "retina with options": "retina: {code}\nretina_options: {{a: 1}}",
}


@pytest.mark.parametrize("command", ["record", "watch"])
@pytest.mark.parametrize("text", BY_FILE.values(), ids=BY_FILE)
def test_a_config_cannot_name_code(planted: Path, text: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(text.format(code="planted:Agent") + "\nseconds: 0.01\n", encoding="utf-8")
    assert main([command, "--config", "config.yaml"]) == 1
    assert "'planted:Agent' names code" in (printed := capsys.readouterr().err)
    assert "add --trust" in printed
    assert not planted.exists()


def test_a_list_of_agents_cannot_either(planted: Path) -> None:
    with guarded({}), pytest.raises(UntrustedError, match="'planted:Agent' names code"):
        open_entries(["random", "mine=planted:Agent"], {}, {})
    assert not planted.exists()
    sys.path.append(str(planted.parent))
    with guarded({"agent": ["planted:Agent"]}):
        open_entries(["random", "mine=planted:Agent"], {}, {})
    assert planted.exists()


@pytest.mark.parametrize("named", [{"retina": "planted:Agent"}, {"scenes": "planted:Agent"}, {"id": "planted:Env-v0"}])
def test_a_recorded_episode_cannot_either(
    planted: Path, named: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["record", "noise", "--out", "good.gif", "--network", "none", "--agent", "centre", "--seconds", "0.04"])
    content = json.loads(Path("good.gif.episode.json").read_text(encoding="utf-8"))
    if "id" in named:
        content["kind"] = "env"
        content["made"] = {"id": named["id"], "kwargs": {}, "seed": 0, "episode_number": 0, "options": {}}
    else:
        content["made"]["config"] |= named
    Path("bad.episode.json").write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert main(["record", "--replay", "bad.episode.json"]) == 1
    printed = capsys.readouterr().err
    assert "'planted:Agent' names code" in printed or "id must be of an env of foveasim" in printed
    assert not planted.exists()


@pytest.mark.parametrize("words", [["--trust"], ["--agent", "planted:Agent"], ["--agent=planted:Agent"]])
def test_what_is_typed_or_trusted_runs(planted: Path, words: list[str]) -> None:
    Path("config.yaml").write_text("agent: planted:Agent\nseconds: -1\n", encoding="utf-8")
    assert main(["record", "--config", "config.yaml", *words]) == 1  # of -1 seconds; by then the agent is there
    assert planted.exists() or words


SCENES_OF_MINE = {"scene source": {"mine:Scenes"}}
EYE_AND_NETWORK = {"retina": {"mine:Eye"}, "network": {"my:Net"}}

ELSEWHERE = {
    "label of an output": ["record", "--out", "A=planted:Agent"],
    "part of an output": ["record", "--out", "runs-planted:Agent"],
    "output": ["record", "--out", "planted:Agent"],
    "title": ["record", "--scanpath=see planted:Agent"],
    "list": ["record", "--agent_arguments", "{note: [planted:Agent]}"],
    "argument": ["record", "--agent_arguments.note", "planted:Agent"],
    "agent with a label": ["record", "--agent", "A=planted:Agent"],
    "data": ["evaluate", "--data", "down/planted:Agent@train"],
    "list of data": ["evaluate", "--data", "[down/planted:Agent@train, planted:Agent]"],
    "weights": ["evaluate", "planted:Agent"],
    "reference": ["compare", "--reference=planted:Agent", "--data", "noise", "--limit", "1"],
    "checked agent": ["check", "--arguments.note=planted:Agent"],
}
"""A config names a retina, or an agent, of which the words only hold the name."""


@pytest.mark.parametrize("words", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_name_typed_as_something_else_is_none(
    planted: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = {"check": "agent: planted:Agent", "compare": "agents: [planted:Agent]"}
    Path("config.yaml").write_text(text.get(words[0], "retina: planted:Agent"), encoding="utf-8")
    assert main([*words, "--config", "config.yaml"]) == 1
    assert not planted.exists()
    assert "'planted:Agent' names code" in capsys.readouterr().err


def test_an_episode_is_not_named_by_the_output_either(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["record", "noise", "--out", "good.gif", "--network", "none", "--agent", "centre", "--seconds", "0.04"])
    content = json.loads(Path("good.gif.episode.json").read_text(encoding="utf-8"))
    content["made"]["config"]["retina"] = "planted:Agent"
    Path("down").mkdir()
    Path("down/a-planted:Agent").write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert main(["record", "--out", "x-planted:Agent", "--replay", "down/../down/a-planted:Agent"]) == 1
    assert "'planted:Agent' names code" in capsys.readouterr().err
    assert not planted.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["watch", "--agent", "mine:Agent"], {"agent": {"mine:Agent"}}),
        (["watch", "--agent=mine.agents:Agent", "mine:Scenes"], {"agent": {"mine.agents:Agent"}, **SCENES_OF_MINE}),
        (["watch", "--retina=mine:Eye"], {"retina": {"mine:Eye"}}),
        (["check", "mine:Agent"], {"agent": {"mine:Agent"}}),
        (["compare", "random", "B=mine:Agent", "yours:Agent"], {"agent": {"mine:Agent", "yours:Agent"}}),
        (["humans", "--agents", "[a:A, B=b:B]", "--out", "c:C"], {"agent": {"a:A", "b:B"}}),
        (["train", "--against", "mine:Agent"], {"agent": {"mine:Agent"}}),
        (["pretrain", "--retinas", "{mine:Eye: {a: b:B}}", "--network", "my:Net"], EYE_AND_NETWORK),
        (["watch", "--agent_arguments", "{retina: mine:Eye, note: a:A}"], {"retina": {"mine:Eye"}}),
        (["watch", "--agent_arguments.retina", "mine:Eye"], {"retina": {"mine:Eye"}}),
        (["compare", "--agent_arguments", "{a: {retina: mine:Eye}}"], {"retina": {"mine:Eye"}}),
        (["readout", "--data", "mine:Scenes"], SCENES_OF_MINE),
        (["watch", "--agent", "see mine:Agent"], {}),
        (["watch", "--agent", "A=mine:Agent"], {}),
        (["watch", "--agent", "down/mine:Agent"], {}),
        (["train", "--preset", "mine:Agent"], {}),
        (["watch", "--config", "mine:Agent"], {}),
        (["watch", "--agent", "[", "--no_such_option", "mine:Agent"], {}),
    ],
)
def test_what_counts_as_typed_and_as_what(words: list[str], named: dict[str, set[str]]) -> None:
    command = COMMANDS[words[0]]
    config = getattr(importlib.import_module(command.module), command.config)
    assert typed_code(config, words[1:], command.positionals) == named


def test_a_name_counts_as_typed_only_whole_and_for_its_kind(mark: Path) -> None:
    with guarded({"agent": {"mine:Agent", "yours:Agent"}, "retina": {"mine:Eye"}}):
        for name in ("mine:Agent", "yours:Agent"):
            check_code(name, "agent")
        check_code("mine:Eye", "retina")
        for name in ("mine:Age", "ine:Agent", "os:system", "mine:Agent.act", "mine:Eye"):
            with pytest.raises(UntrustedError, match=f"names code.* as an agent.* --agent {name}"):
                check_code(name, "agent")
        with pytest.raises(UntrustedError, match=r"as a scene source.* --scenes mine:Eye"):
            check_code("mine:Eye", "scene source")
    check_code("os:system", "agent")  # in a Python program, whose author wrote it
    with pytest.raises(UntrustedError, match="pickled objects"):
        check_pickle("model.zip")


def test_a_file_of_that_name_types_none(mark: Path) -> None:
    Path("planted:Agent").mkdir()  # as the shell writes it for *
    assert typed_code(CompareConfig, ["random", "planted:Agent"], ("agents",)) == {}
