"""The command line: one dataclass and one function a command, options from the command line or from YAML."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from foveasim import __version__
from foveasim.errors import FoveasimError

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: Where its config and its function are.
        config: Name of its dataclass.
        function: Name of its function: config → exit status.
        positionals: Options that the first arguments without a name stand for, in their order.
        summary: One line for the list of commands.
    """

    module: str
    config: str
    function: str
    positionals: tuple[str, ...]
    summary: str


COMMANDS = {
    "watch": Command("foveasim.viewer", "WatchConfig", "watch", ("scenes",), "watch a machine look: the live window"),
    "record": Command(
        "foveasim.record", "RecordConfig", "record", ("out",), "record video, GIF or frames, and scanpaths"
    ),
    "pretrain": Command("foveasim.agents.mim.pretrain", "PretrainConfig", "run", (), "train the network that predicts"),
    "evaluate": Command(
        "foveasim.agents.mim.evaluate", "EvaluateConfig", "run", ("weights",), "measure a network's predictions"
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
    "check": Command("foveasim.agents.contract", "CheckConfig", "check", ("agent",), "try the contract on an agent"),
    "info": Command("foveasim.info", "InfoConfig", "info", (), "versions, devices, networks, names"),
}


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
    # A user's own agents lie beside where they work, as they do for `python -m`.
    if os.getcwd() not in sys.path:  # noqa: PTH109  # sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    command = COMMANDS[name]
    try:
        if name in _SMALL_WORK:
            import torch

            torch.set_num_threads(1)
        config = _parse(name, command, words[1:])
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


def _parse(name: str, command: Command, words: list[str]) -> Any:
    from jsonargparse import ArgumentParser

    config: Any = getattr(importlib.import_module(command.module), command.config)
    nameless = f"; without their names, in this order: {', '.join(command.positionals)}" if command.positionals else ""
    parser = ArgumentParser(prog=f"foveasim {name}", description=command.summary + nameless, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_class_arguments(config, as_group=False)
    for position, option in enumerate(command.positionals[: len(words)]):
        if words[position].startswith("-"):
            break
        words[position] = f"--{option}={words[position]}"
    values = vars(parser.instantiate(parser.parse_args(_with_flags(words, config))))
    return config(**{field.name: values[field.name] for field in fields(config)})


def _with_flags(words: list[str], config: Any) -> list[str]:
    """Let a yes-or-no option stand alone: ``--headless`` is ``--headless=true``."""
    flags = {f"--{field.name}" for field in fields(config) if field.type in (bool, "bool")}
    following = [*words[1:], "--"][: len(words)]
    return [
        f"{word}=true" if word in flags and after.startswith("-") else word
        for word, after in zip(words, following, strict=True)
    ]


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
            "and --print_config shows them all.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
