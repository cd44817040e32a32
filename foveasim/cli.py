"""The command line: one dataclass and one function a command, options from the command line or from YAML."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, NoReturn, TextIO

from foveasim import __version__
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.presets import Presets
from foveasim.trust import guarded

__all__ = ["COMMANDS", "Command", "entry", "main"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Where its config and its function are.
        config: Name of its dataclass.
        function: Name of its function: config → exit status.
        positionals: Options that the first arguments without a name stand for, in their order.
        summary: One line for the list of commands.
        presets: Module whose ``PRESETS`` there are; empty where there are none.
    """

    module: str
    config: str
    function: str
    positionals: tuple[str, ...]
    summary: str
    presets: str = ""


COMMANDS = {
    "watch": Command("foveasim.viewer", "WatchConfig", "watch", ("scenes",), "watch a machine look: the live window"),
    "record": Command(
        "foveasim.record", "RecordConfig", "record", ("out",), "record video, GIF or frames, and scanpaths"
    ),
    "segment": Command(
        "foveasim.agents.mim.segment", "SegmentConfig", "run", ("data", "out"), "find the main object of every image"
    ),
    "pretrain": Command(
        "foveasim.agents.mim.pretrain",
        "PretrainConfig",
        "run",
        (),
        "train the network that predicts",
        presets="foveasim.agents.mim.pretrain_config",
    ),
    "paper": Command(
        "foveasim.agents.mim.paper", "PaperConfig", "run", ("data",), "repeat the paper's comparison and report on it"
    ),
    "evaluate": Command(
        "foveasim.agents.mim.evaluate", "EvaluateConfig", "run", ("weights",), "measure a network's predictions"
    ),
    "calibrate": Command(
        "foveasim.agents.mim.uncertainty",
        "CalibrateConfig",
        "run",
        ("weights",),
        "measure whether a network knows how sure it is",
    ),
    "data": Command(
        "foveasim.download",
        "DataConfig",
        "run",
        ("action", "dataset", "folder"),
        "download data: data get stl10|imagenette DIR",
    ),
    "readout": Command(
        "foveasim.agents.mim.readout", "ReadoutConfig", "run", ("weights",), "linear readout of a network's latent"
    ),
    "latent": Command(
        "foveasim.agents.mim.latent", "LatentConfig", "run", ("weights",), "covariance, sparsity, dimension"
    ),
    "train": Command(
        "foveasim.agents.rl.train",
        "TrainConfig",
        "run",
        (),
        "train a gaze policy by reinforcement learning",
        presets="foveasim.agents.rl.train_config",
    ),
    "tune": Command(
        "foveasim.agents.rl.tune", "TuneConfig", "run", (), "search for the options of train, by validation"
    ),
    "compare": Command(
        "foveasim.agents.compare", "CompareConfig", "run", ("agents",), "which agent looks best: curves, HTML report"
    ),
    "humans": Command(
        "foveasim.agents.humans",
        "HumansConfig",
        "run",
        ("agents",),
        "how human is a gaze: agents against scanpaths of people",
    ),
    "bench": Command("foveasim.bench", "BenchConfig", "run", (), "measure how quick it is here, and what got slower"),
    "check": Command("foveasim.agents.contract", "CheckConfig", "check", ("agent",), "try the contract on an agent"),
    "info": Command("foveasim.info", "InfoConfig", "info", (), "versions, devices, networks, names"),
}


_MOST_YAML_PARTS, _MOST_YAML_DEPTH = 100_000, 100

_SMALL_WORK = ("watch", "record", "check")
"""Commands whose tensors are too small for more than one thread of torch: two take 30 times as long when the cores are
busy (itti_koch on 96 x 96: 42 s against 1.4 s for a contract)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command and its options; None takes them from ``sys.argv``.

    Returns:
        Exit status: 0 done, 1 a check failed or an error, 2 a misuse, 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"foveasim {__version__}")
        return 0
    name = words[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"foveasim: there is no command {name!r}.{hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    # A user's own agents lie beside where they work, as they do for `python -m`; but last, so that no file of a folder
    # from elsewhere, called like a library, is imported in its place.
    if os.getcwd() not in sys.path:  # noqa: PTH109  # sys.path holds strings
        sys.path.append(os.getcwd())  # noqa: PTH109
    command, typed = COMMANDS[name], words[1:]
    options = [word for word in typed if word != "--trust"]
    try:
        if name in _SMALL_WORK:
            import torch

            torch.set_num_threads(1)
        with _plain_warnings(), guarded(options, trusts=options != typed):
            config = _parse(name, command, options)
            result = getattr(importlib.import_module(command.module), command.function)(config)
        return result if isinstance(result, int) else 0
    except FoveasimError as error:
        print(f"foveasim {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nfoveasim {name}: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # the interpreter flushes it on its way out
        return 0


def entry() -> NoReturn:
    """Run a command and leave: the ``foveasim`` script and ``python -m foveasim``."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end in order, as by Ctrl-C, for every command
    status = main()
    # The work is done and its files are whole: a late Ctrl-C must not turn the status into that of a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def _parse(name: str, command: Command, words: list[str]) -> Any:
    import yaml
    from jsonargparse import ArgumentParser, set_loader

    set_loader("foveasim", _load_yaml, (yaml.YAMLError,))
    config: Any = getattr(importlib.import_module(command.module), command.config)
    nameless = f"; without their names, in this order: {', '.join(command.positionals)}" if command.positionals else ""
    parser = ArgumentParser(
        prog=f"foveasim {name}",
        usage=f"foveasim {name} {'[--preset NAME] ' if command.presets else ''}[OPTIONS]",  # all would fill a screen
        description=command.summary + nameless,
        exit_on_error=True,
        parser_mode="foveasim",
    )
    parser.add_argument(
        "--config", action="config", help="YAML file with any of these options; what it names as code needs --trust"
    )
    parser.add_class_arguments(config, as_group=False)
    if command.presets:
        presets: Presets = importlib.import_module(command.presets).PRESETS
        words = _with_preset(words, presets)
        parser.description = (
            f"{parser.description}. --preset NAME begins with the options of a preset, which all others override: "
            f"{', '.join(presets.names())}"
        )
    kinds = {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(config)}
    values = vars(parser.instantiate(parser.parse_args(_spell_out(words, kinds, command.positionals))))
    return config(**{field.name: values[field.name] for field in fields(config)})


def _load_yaml(text: str) -> Any:
    """Read a value or a config for the parser, which would import and call what a ``class_path`` in it names.

    Raises:
        YAMLError: It names a class, or it is nested or repeated by aliases beyond use.
    """
    import yaml
    from jsonargparse import get_loader

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
        InvalidValueError: A size that is none.
    """
    rest, nameless = list(words), list(positionals)
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


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show warnings as one line for a person, without the place in the source that they come from."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"foveasim: {' '.join(str(message).split())}", file=file or sys.stderr)

    before, warnings.showwarning = warnings.showwarning, show
    try:
        yield
    finally:
        warnings.showwarning = before


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: foveasim COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "foveasim COMMAND --help lists a command's options; each may also stand in a YAML file given by --config,",
            "and --print_config shows them all. Code runs only if its name (package.module:Class) is typed here; with",
            "--trust also where a file names it, and where a model.zip of stable-baselines3 holds it.",
        ]
    )


if __name__ == "__main__":
    entry()
