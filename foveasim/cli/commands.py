"""The command line: one dataclass and one function a command, options from the command line or from YAML."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn, TextIO

from foveasim import __version__
from foveasim.errors import FoveasimError
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
        examples: Whole commands, for the end of its help.
    """

    module: str
    config: str
    function: str
    positionals: tuple[str, ...]
    summary: str
    presets: str = ""
    examples: tuple[str, ...] = ()


COMMANDS = {
    "watch": Command(
        "foveasim.cli.watch",
        "WatchConfig",
        "watch",
        ("scenes",),
        "watch a machine look: the live window",
        examples=(
            "foveasim watch",
            "foveasim watch holiday.jpg --agent uncertainty --retina disc",
            "foveasim watch --agent mine:Brightest",
            "foveasim watch --headless --out look.mp4 --seconds 10",
        ),
    ),
    "record": Command(
        "foveasim.recording.record",
        "RecordConfig",
        "record",
        ("scenes",),
        "record video, GIF or frames, and scanpaths",
        examples=(
            "foveasim record holiday.jpg --out look.mp4 --agent walk --scanpath look.csv",
            "foveasim record --out look.gif --retina disc --size 360x640 --seconds 5",
            "foveasim record --replay look.mp4.episode.json",
        ),
    ),
    "compare": Command(
        "foveasim.experiments.compare.command",
        "CompareConfig",
        "run",
        ("agents",),
        "which agent looks best: curves, HTML report",
        examples=(
            "foveasim compare random saliency uncertainty oracle --data photos",
            "foveasim compare random mine:Brightest --data my/photos --retina pyramid --out runs/mine",
        ),
    ),
    "humans": Command(
        "foveasim.experiments.humans.command",
        "HumansConfig",
        "run",
        ("agents",),
        "how human is a gaze: agents against scanpaths of people",
        examples=("foveasim humans scanpath walk saliency --data osie --out runs/humans",),
    ),
    "train": Command(
        "foveasim.agents.rl.command",
        "TrainConfig",
        "run",
        (),
        "train a gaze policy by reinforcement learning",
        presets="foveasim.agents.rl.config",
        examples=(
            "foveasim train --preset ppo --data my/photos --out runs/gaze",
            "foveasim watch --agent runs/gaze/policy.safetensors --retina disc",
            "foveasim train --preset search --out runs/search",
        ),
    ),
    "tune": Command(
        "foveasim.agents.rl.tune", "TuneConfig", "run", (), "search for the options of train, by validation"
    ),
    "check": Command(
        "foveasim.agents.contract.check",
        "CheckConfig",
        "check",
        ("agent",),
        "try the contract on an agent",
        examples=("foveasim check mine:Brightest",),
    ),
    "pretrain": Command(
        "foveasim.agents.pretraining.command",
        "PretrainConfig",
        "run",
        (),
        "train the network that predicts",
        presets="foveasim.agents.pretraining.config",
        examples=(
            "foveasim pretrain --preset paper/periphery --data imagenette.tar@train --out runs/periphery",
            "foveasim watch --network runs/periphery/paper.safetensors --retina disc",
            "foveasim pretrain --preset paper/periphery --print_config",
        ),
    ),
    "evaluate": Command(
        "foveasim.agents.pretraining.evaluate",
        "EvaluateConfig",
        "run",
        ("weights",),
        "measure a network's predictions",
        examples=("foveasim evaluate unet --data my/photos",),
    ),
    "calibrate": Command(
        "foveasim.agents.readout.calibration",
        "CalibrateConfig",
        "run",
        ("weights",),
        "measure whether a network knows how sure it is",
        examples=("foveasim calibrate unet --data my/photos",),
    ),
    "readout": Command(
        "foveasim.agents.readout.command",
        "ReadoutConfig",
        "run",
        ("weights",),
        "linear readout of a network's latent",
        examples=("foveasim readout unet --data imagenette.tar --out runs/readout",),
    ),
    "latent": Command(
        "foveasim.agents.readout.latent",
        "LatentConfig",
        "run",
        ("weights",),
        "covariance, sparsity, dimension",
        examples=("foveasim latent runs/periphery/step-*.safetensors --data imagenette.tar@val --out runs/latent",),
    ),
    "segment": Command(
        "foveasim.agents.segmentation.segment",
        "SegmentConfig",
        "run",
        ("data", "out"),
        "find the main object of every image",
        examples=("foveasim segment imagenette.tar masks",),
    ),
    "paper": Command(
        "foveasim.experiments.paper.command",
        "PaperConfig",
        "run",
        ("data",),
        "repeat the paper's comparison and report on it",
        examples=("foveasim paper imagenette.tar --epochs 4 --recipe quick --out runs/quick",),
    ),
    "data": Command(
        "foveasim.images.download",
        "DataConfig",
        "run",
        ("action", "dataset", "folder"),
        "download data: data get stl10|imagenette DIR",
        examples=("foveasim data get imagenette data/imagenette",),
    ),
    "bench": Command(
        "foveasim.bench.command", "BenchConfig", "run", (), "measure how quick it is here, and what got slower"
    ),
    "info": Command("foveasim.cli.info", "InfoConfig", "info", (), "versions, devices, networks, names"),
}

GROUPS = {
    "watch and compare": ("watch", "record", "compare", "humans"),
    "gaze policies": ("train", "tune", "check"),
    "networks that predict": ("pretrain", "evaluate", "calibrate", "readout", "latent", "segment", "paper"),
    "besides": ("data", "bench", "info"),
}
"""The commands as ``foveasim --help`` lists them."""

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
        print(f"foveasim: there is no command {name!r}.{hint} foveasim --help lists them.", file=sys.stderr)
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
        from foveasim.runs.outputs import (  # here: it brings numpy, and `foveasim --help` has no use for it
            config_files,
            reading,
        )

        with (
            _plain_warnings(),
            guarded(_typed_code(command, options), trusts=options != typed),
            reading(config_files(options)),
        ):
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


def _parse(name: str, command: Command, words: Sequence[str]) -> Any:
    from foveasim.cli.parser import parse  # here: it takes 0.1 s to import, and `foveasim --help` has no use for it

    return parse(
        f"foveasim {name}",
        getattr(importlib.import_module(command.module), command.config),
        words,
        positionals=command.positionals,
        summary=command.summary,
        examples=command.examples,
        presets=importlib.import_module(command.presets).PRESETS if command.presets else None,
    )


def _typed_code(command: Command, words: Sequence[str]) -> dict[str, set[str]]:
    from foveasim.cli.parser import typed_code

    return typed_code(getattr(importlib.import_module(command.module), command.config), words, command.positionals)


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
    lines = []
    for group, names in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:{width}}  {COMMANDS[name].summary}" for name in names)]
    return "\n".join(
        [
            "usage: foveasim COMMAND [OPTIONS]",
            *lines,
            "",
            "foveasim COMMAND --help lists a command's options; each may also stand in a YAML file given by --config,",
            "and --print_config shows them all. Code runs only if its name (package.module:Class) is typed here as the",
            "agent, retina, scenes or network that it makes; with --trust also where a file names it, and where a",
            "model.zip of stable-baselines3 holds it.",
            "",
            "A file that --out names is replaced only with --overwrite, and what a command reads never is. A folder",
            "that is not empty takes --resume, to go on with the run in it, or --overwrite. Where no name is given,",
            "files get a number: foveasim-2.mp4.",
        ]
    )


if __name__ == "__main__":
    entry()
