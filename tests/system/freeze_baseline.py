#!/usr/bin/env python3
"""Freeze what foveasim does today, for tests/system/test_baseline.py to compare with.

python tests/system/freeze_baseline.py [--record] [NAME ...]

Works out all parts anew, or those whose names begin so, and writes them into baseline.json; then look at the diff, for
every line of it is a change that users meet. --record also writes the small files of baseline/ anew: then the new
version reads nothing but its own files, so do this only where a format was changed on purpose.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from frozen import agents, episodes, files, promises
from frozen.digest import machine
from frozen.paths import FROZEN, RECORDED
from frozen.record import record

from foveasim.eye.retina import RETINAS

__all__ = ["PARTS", "read", "work_out"]

PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"episodes/{name}": partial(episodes.retina, name) for name in RETINAS},
    **{f"episodes/{one.__name__}": one for one in (episodes.rewards, episodes.search, episodes.classify)},
    "episodes/wrappers": episodes.wrappers,
    "seeds": episodes.seeds,
    "agents": lambda: {name: agents.agents(name) for name in agents.names()},
    "agents/privileged": agents.privileged,
    **{f"files/{name}": getattr(files, name) for name in files.__all__},
    **{f"promises/{name}": getattr(promises, name) for name in promises.__all__},
}
"""Everything that is frozen, by name."""


def work_out(name: str) -> dict[str, Any]:
    """Work out one part, with one thread, and return it as JSON brings it back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found: dict[str, Any] = json.loads(json.dumps(PARTS[name]()))
    finally:
        torch.set_num_threads(threads)
    return found


def read() -> dict[str, Any]:
    """Return what is frozen."""
    found: dict[str, Any] = json.loads(FROZEN.read_text(encoding="utf-8"))
    return found


def _text(values: dict[str, Any]) -> str:
    """Return JSON that people can compare: a line for each value, lists of plain values in one."""
    plain = re.compile(r"\[\n\s*([^\[\]{}]*?)\s*\]")  # a line break: not within text
    text = json.dumps(values, indent=1, ensure_ascii=False)
    return plain.sub(lambda found: "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]", text) + "\n"


def main() -> None:
    """Freeze."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    chosen = [name for name in PARTS if not options.names or name.startswith(tuple(options.names))]
    if not chosen:
        parser.error(f"names must begin as one of {', '.join(PARTS)}; got {', '.join(options.names)}")
    if options.record:
        record(RECORDED)
    before = read()["parts"] if FROZEN.exists() else {}
    parts = {name: work_out(name) if name in chosen else before[name] for name in PARTS}
    FROZEN.write_text(_text({"machine": machine(), "parts": parts}), encoding="utf-8")


if __name__ == "__main__":
    main()
