"""What is typed after a command, and YAML, become its config; what is wrong with it is said in a line or two."""

from __future__ import annotations

import json
import re
import sys
from argparse import HelpFormatter
from collections.abc import Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from foveasim.errors import InvalidValueError
from foveasim.presets import Presets

__all__ = ["parse"]

_MOST_YAML_PARTS, _MOST_YAML_DEPTH = 100_000, 100

_WANTED = {
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


class Parser(ArgumentParser):
    """Says what is wrong with the words of a command, and what to type instead.

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
        sys.stderr.write(f"error: {self._plainly(message)}\ntip: {self.prog} --help lists the options.\n")
        self.exit(2)

    def _plainly(self, message: str) -> str:
        stray = re.fullmatch(r"unrecognized arguments: (--(\S+?)(?:=.*)?|.*)", message, re.DOTALL)
        if stray:
            if stray[2] is None:
                return f"there is no use for {stray[1]!r} here."
            near = get_close_matches(stray[2], self.kinds, 1)
            return f"there is no option --{stray[2]}.{f' Did you mean --{near[0]}?' if near else ''}"
        wrong = _WRONG_TYPE.fullmatch(message)
        if wrong is None or (wrong[2] or "str") not in _WANTED:
            return message
        name, kind, choices, came = wrong.groups()
        wanted = _WANTED[kind].format(name=name) if kind else f"one of {choices.replace(chr(39), '')}"
        return f"--{name} must be {wanted}; got {came!r}."


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
    set_loader("foveasim", _load_yaml, (yaml.YAMLError,))
    kinds = {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(config)}
    shown = [_shown(config, name, kinds[name], last=name == positionals[-1]) for name in positionals]
    parser = Parser(
        prog=prog,
        usage=" ".join([prog, *(["[--preset NAME]"] if presets else []), *shown, "[OPTIONS]"]),  # all fill a screen
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
    given = list(words)
    if presets is not None:
        given = _with_preset(given, presets)
        parser.description = (
            f"{parser.description}. --preset NAME begins with the options of a preset, which all others override: "
            f"{', '.join(presets.names())}"
        )
    values = vars(parser.instantiate(parser.parse_args(_spell_out(given, kinds, positionals))))
    return config(**{field.name: values[field.name] for field in fields(config)})


def _shown(config: Any, name: str, kind: str, *, last: bool) -> str:
    """Return how the usage shows an option whose name may be left out."""
    field = next(field for field in fields(config) if field.name == name)
    only = re.fullmatch(r"Literal\['(\w+)'\]", kind)
    word = only[1] if only else name.upper() + (" ..." if last and "list[str]" in kind else "")
    return word if field.default is MISSING and field.default_factory is MISSING else f"[{word}]"


def _load_yaml(text: str) -> Any:
    """Read a value or a config for the parser, which would import and call what a ``class_path`` in it names.

    Raises:
        YAMLError: It names a class, or it is nested or repeated by aliases beyond use.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader) if len(text) > _MOST_YAML_DEPTH else ():
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_YAML_DEPTH:  # PyYAML's C loader calls itself and would end the process
            raise yaml.YAMLError(f"it is nested more than {_MOST_YAML_DEPTH} deep")
    waiting, seen = [get_loader("yaml")(text)], 0
    value = waiting[0]
    while waiting:
        part, seen = waiting.pop(), seen + 1
        if seen > _MOST_YAML_PARTS:  # a few aliases of aliases make billions, and one of itself never ends
            raise yaml.YAMLError(f"it has more than {_MOST_YAML_PARTS:,} parts")
        if isinstance(part, dict):
            if any("class_path" in str(key).split(".") for key in part):
                raise yaml.YAMLError("it names a class to be called by class_path, which is not allowed in options")
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return value


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


def _spell_out(words: Sequence[str], kinds: dict[str, str], positionals: Sequence[str]) -> list[str]:
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
    rest, nameless = list(words), list(positionals)
    without_name: dict[str, str] = {}
    spelled: list[str] = []
    lists: dict[str, list[str]] = {}
    last = positionals[-1] if positionals and "list[str]" in kinds.get(positionals[-1], "") else ""
    while rest:
        word = rest.pop(0)
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", word)
        name = name if name in kinds else name.replace("-", "_")
        kind = kinds.get(name, "")
        if not name:
            if word.startswith("-") or not (nameless or last):
                spelled.append(word)  # the parser says what is wrong with it
                continue
            name = nameless.pop(0) if nameless else last
            kind = kinds.get(name, "")
            without_name[name] = value
        elif not equals:
            if name in ("help", "print_config"):
                spelled.append(word)
                continue
            if kind == "bool":
                said = rest and rest[0].lower() in ("true", "false", "yes", "no")
                value = rest.pop(0) if said else "true"
            elif not rest:
                spelled.append(word)
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
        spelled.append(f"--{name}={value}")
    for name, value in without_name.items():
        twice = [word for word in spelled if word.startswith(f"--{name}=")]
        if len(twice) > 1:  # the parser would take the last and say nothing of the other
            raise InvalidValueError(
                f"{name} is given twice: as {value!r} without a name, and by --{name}. Give it once; a file to write "
                "to has an option of its own, such as --out."
            )
    for name, values in lists.items():
        alone = len(values) == 1 and not kinds[name].startswith("list[str]")  # an option that takes either
        spelled.append(f"--{name}={values[0] if alone else json.dumps(values)}")
    return spelled


def _size(name: str, value: str) -> str:
    """Return a height and a width as the parser takes them.

    Raises:
        InvalidValueError: Something else.
    """
    found = re.fullmatch(r"[\[(]?\s*(\d+)\s*[,x×]\s*(\d+)\s*[\])]?", value)
    if found is None:
        raise InvalidValueError(f"--{name} must be height and width, as in --{name} 240x426; got {value!r}.")
    return f"[{found[1]},{found[2]}]"
