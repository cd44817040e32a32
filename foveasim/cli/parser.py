"""What is typed after a command, and YAML, become its config; what is wrong with it is explained in a line or two."""

from __future__ import annotations

import re
import sys
from argparse import HelpFormatter
from collections.abc import Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, set_dumper, set_loader
from jsonargparse.typing import register_type

from foveasim.errors import InvalidValueError
from foveasim.presets import Presets
from foveasim.yaml_core import dump_yaml, load_yaml

__all__ = ["parse", "typed_code"]

_CODE_OPTIONS = {
    "agent": "agent",
    "agents": "agent",
    "against": "agent",
    "gaze": "agent",
    "retina": "retina",
    "retinas": "retina",
    "scenes": "scene source",
    "photos": "scene source",
    "data": "scene source",
    "test": "scene source",
    "network": "network",
    "networks": "network",
}
"""What an option, or an argument inside of one, names, by its own name, where it may be ``package.module:Class``."""

_YES_OR_NO = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}

_NUMBERS = re.compile(r"(list\[|tuple\[)?(int|float)\b")
"""The type of an option of numbers."""

_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "dict": "names and values, as in '{{name: value}}' or --{name}.NAME VALUE",
}
"""What is expected of an option, by the type of its field."""

_WRONG_TYPE = re.compile(
    r'Parser key "(\w+)":\n\s+Expected a (?:<class \'(\w+)\'>|typing\.Literal\[(.*)\])\. Got value: (.*)', re.DOTALL
)


class _Text(str):
    """Text that was read from YAML: jsonargparse, which reads each text in an ``Any`` as YAML, leaves it as it is."""

    __slots__ = ()


register_type(_Text, lambda text: text)  # --print_config gives it to dump_yaml


class Parser(ArgumentParser):
    """Explains what is wrong with the words of a command, and what to type instead.

    Attributes:
        examples: Whole commands, for the end of the help.
        kinds: The options' types, as written in their dataclass.
    """

    examples: tuple[str, ...] = ()
    kinds: dict[str, str]

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Return the help, with examples at its end."""
        examples = ["", "examples:", *(f"  {line}" for line in self.examples), ""] if self.examples else []
        return super().format_help(formatter) + "\n".join(examples)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong, and leave with status 2."""
        self.print_usage(sys.stderr)
        sys.stderr.write(f"error: {self._explain(message)}\ntip: {self.prog} --help lists the options.\n")
        self.exit(2)

    def _explain(self, message: str) -> str:
        unknown = re.fullmatch(r"unrecognized arguments: (--(\S+?)(?:=.*)?|.*)", message, re.DOTALL)
        if unknown:
            if unknown[2] is None:
                return f"there is no use for {unknown[1]!r} here."
            near = get_close_matches(unknown[2], self.kinds, 1)
            return f"there is no option --{unknown[2]}.{f' Did you mean --{near[0]}?' if near else ''}"
        wrong = _WRONG_TYPE.fullmatch(message)
        if wrong is None or (wrong[2] or "str") not in _EXPECTED:
            return message
        name, kind, choices, value = wrong.groups()
        expected = _EXPECTED[kind].format(name=name) if kind else f"one of {choices.replace(chr(39), '')}"
        return f"--{name} must be {expected}; got {value!r}."


def parse(
    prog: str,
    config: Any,
    words: Sequence[str],
    *,
    positionals: Sequence[str] = (),
    summary: str = "",
    examples: Sequence[str] = (),
    presets: Presets | None = None,
) -> Any:
    """Return the config that was typed.

    Args:
        prog: The command, as people type it.
        config: Its dataclass.
        words: What was typed after it.
        positionals: Options that the first words without a name stand for, in their order.
        summary: What it does.
        examples: Whole commands, for the end of the help.
        presets: With whose options ``--preset NAME`` begins; None where there are none.

    Raises:
        FoveasimError: A preset or a size that is none.
        SystemExit: With status 2 where an option is unknown or a value cannot be understood, 0 after ``--help``.
    """
    kinds = _kinds(config)

    def load(text: str, path: str | None = None) -> Any:  # jsonargparse gives a path with a whole config alone
        value = _load(text)
        if path is not None and isinstance(value, dict):
            for name in [name for name in value if name in kinds]:
                value[name] = _convert_value(name, kinds[name], value[name])
        return value

    set_loader("foveasim", load, (yaml.YAMLError,))
    set_dumper("foveasim", dump_yaml)
    usage = [_usage_word(config, name, kinds[name], last=name == positionals[-1]) for name in positionals]
    parser = Parser(
        prog=prog,
        usage=" ".join([prog, *(["[--preset NAME]"] if presets else []), *usage, "[OPTIONS]"]),  # all fill a screen
        description=summary,
        exit_on_error=True,
        parser_mode="foveasim",
    )
    parser.examples, parser.kinds = tuple(examples), kinds
    parser.add_argument(
        "--config", action="config", help="YAML file with any of these options; what it names as code needs --trust"
    )
    parser.add_class_arguments(config, as_group=False)
    for action in parser._actions:  # docstrings have marks that a terminal does not show
        action.help = re.sub(r":\w+:`~?([^`]+)`", r"\1", action.help or "").replace("``", "") or action.help
    arguments = list(words)
    if presets is not None:
        arguments = _with_preset(arguments, presets)
        parser.description = (
            f"{parser.description}. --preset NAME begins with the options of a preset, which all others override: "
            f"{', '.join(presets.names())}"
        )
    try:
        normalized = _normalize_values(_normalize_words(arguments, kinds, positionals), kinds)
    except yaml.YAMLError as error:
        parser.error(str(error))
    values = vars(parser.instantiate(parser.parse_args(normalized)))
    return config(**{field.name: _unmark_texts(values[field.name]) for field in fields(config)})


def typed_code(config: Any, words: Sequence[str], positionals: Sequence[str]) -> dict[str, set[str]]:
    """Return the names of code that were typed, by what they were typed as: agent, retina, scene source, network.

    A name counts where it is the whole value of an option that names such a thing, ``--agent mine:Agent``, an item of
    its list, what follows a label, ``LABEL=mine:Agent``, or the value of an argument of that name,
    ``--agent_arguments.retina mine:Eye``. A file is none: one that came along with a config must not let it name code.

    Args:
        config: The command's dataclass.
        words: What was typed after the command.
        positionals: Options that the first words without a name stand for, in their order.

    Raises:
        InvalidValueError: A size that is none.
    """
    found: dict[str, set[str]] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                if name == "retinas":  # they are its keys
                    collect("retina", key)
                collect(str(key), part)
        elif isinstance(value, list):
            for part in value:
                collect(name, part)
        elif name in _CODE_OPTIONS and isinstance(value, str):
            spec = value.partition("=")[2] if name in ("agents", "against") and "=" in value else value
            if re.fullmatch(r"[\w.]+:[\w.]+", spec) and not Path(spec).exists():
                found.setdefault(_CODE_OPTIONS[name], set()).add(spec)

    kinds = _kinds(config)
    for word in _normalize_words(words, kinds, positionals):
        name, _, text = word.removeprefix("--").partition("=")
        if name.partition(".")[0] not in kinds:
            continue
        try:
            value = load_yaml(text)
        except yaml.YAMLError:  # the parser says what is wrong with it
            continue
        collect(name.rpartition(".")[2], value)
    return found


def _kinds(config: Any) -> dict[str, str]:
    """Return the options' types, as written in their dataclass."""
    return {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(config)}


def _usage_word(config: Any, name: str, kind: str, *, last: bool) -> str:
    """Return how the usage shows an option whose name may be left out."""
    field = next(field for field in fields(config) if field.name == name)
    only = re.fullmatch(r"Literal\['(\w+)'\]", kind)
    word = only[1] if only else name.upper() + (" ..." if last and "list[str]" in kind else "")
    return word if field.default is MISSING and field.default_factory is MISSING else f"[{word}]"


def _load(text: str) -> Any:
    """Read a value or a config for the parser, which would import and call what a ``class_path`` in it names.

    Raises:
        YAMLError: It names a class, or :func:`load_yaml` does not read it.
    """
    value = load_yaml(text)
    if isinstance(value, dict) and list(value.values()) == [None] and text.strip() == f"{next(iter(value))}:":
        return text  # a name that ends so, such as C:, is no mapping
    return _mark_texts(value)


def _mark_texts(value: Any) -> Any:
    """Return a value whose texts are marked as read.

    Raises:
        YAMLError: It names a class.
    """
    if isinstance(value, dict):
        if any("class_path" in str(key).split(".") for key in value):
            raise yaml.YAMLError("it names a class to be called by class_path, which is not allowed in options")
        return {key: _mark_texts(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_mark_texts(part) for part in value]
    return _Text(value) if isinstance(value, str) else value


def _unmark_texts(value: Any) -> Any:
    """Return a value without the marks."""
    if isinstance(value, dict):
        return {_unmark_texts(key): _unmark_texts(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_unmark_texts(part) for part in value)
    return str(value) if isinstance(value, str) else value


def _convert_value(name: str, kind: str, value: Any) -> Any:
    """Return an option's value, without texts where a number, or yes or no, is wanted: jsonargparse reads by YAML 1.1.

    It would read ``12:30`` as 750 and ``+010`` as 8, even where they are quoted. Where only a number can be meant,
    ``007`` is 7 and ``400_000`` is 400000; and where only true or false can be, ``no`` is false.

    Raises:
        YAMLError: A text that is no number, or neither yes nor no.
    """
    numbers = _NUMBERS.match(kind)
    if isinstance(value, list) and numbers and numbers[1]:
        return [_convert_value(name, kind, part) for part in value]
    if not isinstance(value, str):
        return value
    if numbers:
        if re.fullmatch(r"[-+]?[0-9]+(?:_[0-9]+)*", value):
            return int(value)
        if re.fullmatch(r"[-+]?[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", value):
            return float(value)
        expected = {"int": "whole numbers", "float": "numbers"} if numbers[1] else _EXPECTED
        raise yaml.YAMLError(f"--{name} must be {expected[numbers[2]]}; got {str(value)!r}.")
    if kind == "bool":
        if value.lower() not in _YES_OR_NO:
            raise yaml.YAMLError(f"--{name} must be {_EXPECTED[kind]}; got {str(value)!r}.")
        return _YES_OR_NO[value.lower()]
    return value


def _normalize_values(words: Sequence[str], kinds: dict[str, str]) -> list[str]:
    """Bring arguments of options, and numbers, into a form that jsonargparse cannot read in another way, as 007 as 7.

    It also takes only the last of ``--agent_arguments.a.b 1 --agent_arguments.a.c 2``; here ``a`` gets both.

    Raises:
        YAMLError: A value is not what a number or an argument may be.
    """
    normalized: list[str] = []
    inside: dict[str, dict[str, Any]] = {}
    for word in words:
        start, equals, text = word.partition("=")
        option, *path = start.removeprefix("--").split(".")
        if not equals or option not in kinds or not (path or _NUMBERS.match(kinds[option])):
            normalized.append(word)
        elif not path:
            normalized.append(f"--{option}={_to_flow_yaml(_convert_value(option, kinds[option], _load(text)))}")
        else:
            value, start = _load(text), f"--{option}.{path[0]}"
            if path[1:]:
                place = inside.setdefault(start, {})
                for name in path[1:-1]:
                    if not isinstance(place.get(name), dict):
                        place[name] = {}
                    place = place[name]
                place[path[-1]] = value
                value = inside[start]
            normalized.append(f"{start}={_to_flow_yaml(value)}")
    return normalized


def _to_flow_yaml(value: Any) -> str:
    """Return a value as YAML of one line, its texts quoted."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_to_flow_yaml(key)}: {_to_flow_yaml(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_to_flow_yaml, value))}]"
    return _quoted(value) if isinstance(value, str) else dump_yaml(value).partition("\n")[0]


def _quoted(text: str) -> str:
    """Return a text as YAML that is text whatever it looks like."""
    plain = (c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def _with_preset(words: Sequence[str], presets: Presets) -> list[str]:
    """Turn ``--preset NAME`` into the ``--config`` of its file, before every other option, so that those override it.

    Raises:
        InvalidValueError: No name after it, or two presets.
        UnknownNameError: No preset of that name.
    """
    rest, found = list(words), []
    for place in reversed(range(len(rest))):
        if rest[place] == "--preset":
            if place + 1 == len(rest):
                raise InvalidValueError("--preset must be followed by a name, as in --preset paper/periphery.")
            found.append(rest.pop(place + 1))
            rest.pop(place)
        elif rest[place].startswith("--preset="):
            found.append(rest.pop(place).partition("=")[2])
    if len(found) > 1:
        raise InvalidValueError(f"--preset must be given once; got {' and '.join(reversed(found))}.")
    return [*(f"--config={presets.file(name)}" for name in found), *rest]


def _normalize_words(words: Sequence[str], kinds: dict[str, str], positionals: Sequence[str]) -> list[str]:
    """Bring what people type into the one form that the parser takes, ``--option=value``.

    Arguments without a name get theirs, wherever they stand; all that are left over go to the last of them if it takes
    a list, as a shell's ``step-*`` does. A yes-or-no option may stand alone: ``--headless``. A list may be given as one
    plain value, of numbers with commas, or several times: ``--data A --data B``, ``--seeds 0,1``. A size may be
    ``240x426``, ``240,426`` or ``240 426``.

    Args:
        words: What was typed.
        kinds: The options' types, as written in their dataclass.
        positionals: Options that arguments without a name stand for, in their order.

    Raises:
        InvalidValueError: A size that is none, or an option that is given with and without its name.
    """
    rest, remaining_positionals = list(words), list(positionals)
    without_name: dict[str, str] = {}
    normalized: list[str] = []
    lists: dict[str, list[str]] = {}
    last = positionals[-1] if positionals and "list[str]" in kinds.get(positionals[-1], "") else ""
    while rest:
        word = rest.pop(0)
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", word)
        name = name if name in kinds else name.replace("-", "_")
        kind = kinds.get(name, "")
        if not name:
            if word.startswith("-") or not (remaining_positionals or last):
                normalized.append(word)  # the parser says what is wrong with it
                continue
            name = remaining_positionals.pop(0) if remaining_positionals else last
            kind = kinds.get(name, "")
            without_name[name] = value
        elif not equals:
            if name in ("help", "print_config"):
                normalized.append(word)
                continue
            if kind == "bool":
                has_value = rest and rest[0].lower() in _YES_OR_NO
                value = rest.pop(0) if has_value else "true"
            elif not rest:
                normalized.append(word)
                continue
            else:
                value = rest.pop(0)
                if kind.startswith("tuple[int, int]") and value.isdigit() and rest and rest[0].isdigit():
                    value = f"{value}x{rest.pop(0)}"
        if kind.startswith("tuple[int, int]"):
            value = _size(name, value)
        elif "list[str]" in kind and not value.startswith("["):
            lists.setdefault(name, []).append(value)
            continue
        elif kind.startswith(("list[int]", "list[float]")) and re.fullmatch(r"[-+.\de,]+", value):
            value = f"[{value}]"
        normalized.append(f"--{name}={value}")
    for name, value in without_name.items():
        repeated = [word for word in normalized if word.startswith(f"--{name}=")]
        if len(repeated) > 1:  # the parser would take the last and say nothing of the other
            raise InvalidValueError(
                f"{name} is given twice: as {value!r} without a name, and by --{name}. Give it once; a file to write "
                "to has an option of its own, such as --out."
            )
    for name, values in lists.items():
        alone = len(values) == 1 and not kinds[name].startswith("list[str]")  # an option that takes either
        normalized.append(f"--{name}=" + (values[0] if alone else f"[{','.join(map(_quoted, values))}]"))
    return normalized


def _size(name: str, value: str) -> str:
    """Return a height and a width as the parser takes them.

    Raises:
        InvalidValueError: Something else.
    """
    found = re.fullmatch(r"[\[(]?\s*(\d+)\s*[,x×]\s*(\d+)\s*[\])]?", value)
    if found is None:
        raise InvalidValueError(f"--{name} must be height and width, as in --{name} 240x426; got {value!r}.")
    return f"[{found[1]},{found[2]}]"
