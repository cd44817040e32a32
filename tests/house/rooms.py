"""The rooms in their order, what each module imports by whatever way, and what it only names: read from the source."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"foveasim": "foveasim", "envs": "foveasim.envs", "agents": "foveasim.agents"}

ROOMS = (
    "foveasim",
    "foveasim.runs",
    "foveasim.eye.kernels",
    "foveasim.eye",
    "foveasim.images",
    "foveasim.scenes",
    "foveasim.simulator",
    "foveasim.scanpath",
    "foveasim.scanpath.trackers",
    "foveasim.metrics",
    "foveasim.drawing",
    "foveasim.player",
    "foveasim.envs",
    "foveasim.envs.tasks",
    "foveasim.envs.wrappers",
    "foveasim.agents",
    "foveasim.agents.mim",
    "foveasim.agents.mim.networks",
    "foveasim.agents.mim.engines",
    "foveasim.agents.builtin",
    "foveasim.agents.gaze_policy",
    "foveasim.agents.contract",
    "foveasim.agents.evaluation",
    "foveasim.agents.scanpath_model",
    "foveasim.agents.segmentation",
    "foveasim.agents.pretraining",
    "foveasim.agents.readout",
    "foveasim.agents.rl",
    "foveasim.experiments",
    "foveasim.experiments.compare",
    "foveasim.experiments.humans",
    "foveasim.experiments.paper",
    "foveasim.experiments.card",
    "foveasim.viewer",
    "foveasim.viewer.web",
    "foveasim.recording",
    "foveasim.bench",
    "foveasim.cli",
)
"""Folders in the order in which they stand: each imports only from itself and from those before it."""

PATH = re.compile(r"foveasim(\.\w+)+(:\w*)?")
TABLE_ENTRY = re.compile(r"foveasim(\.\w+)+:\w+")


def modules() -> dict[str, Path]:
    """Return the full name and the file of every module of the three folders."""
    found: dict[str, Path] = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [part for part in path.relative_to(ROOT / folder).with_suffix("").parts if part != "__init__"]
            found[".".join([package, *parts])] = path
    return found


def room(module: str) -> str:
    """Return the folder of a module of the house; a package stands in itself."""
    return module if module in ROOMS else module.rpartition(".")[0]


def is_table(node: ast.AST) -> bool:
    """Whether this is a dict of nothing but ``"module:Name"``, or adds one such name to a registry."""
    if isinstance(node, ast.Dict):
        held = [value.value for value in node.values if isinstance(value, ast.Constant)]
        return bool(held) and len(held) == len(node.values) and all(TABLE_ENTRY.fullmatch(str(one)) for one in held)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "add":
        return False
    return isinstance(node.func.value, ast.Name) and node.func.value.id.isupper()


def named(source: str, *, face: bool = False) -> Iterator[tuple[str, int]]:
    """Yield what a module imports, at any depth and by strings, and the line.

    A registry's table at the top of a module does not count: it is what lets a name stand for something above. Of a
    face, a package's ``__init__``, only what is imported along with it counts.
    """

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, int]]:
        if not inside and is_table(node):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.fullmatch(node.value) and not face:
            yield node.value.partition(":")[0], node.lineno
        elif face and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef)
        if not (face and deeper):
            for child in ast.iter_child_nodes(node):
                yield from walk(child, deeper)

    yield from walk(ast.parse(source), False)


def all_named(source: str) -> Iterator[tuple[str, int]]:
    """Yield what a module imports or names by strings, registries' tables and what a face offers among it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.fullmatch(node.value):
            yield node.value.partition(":")[0], node.lineno


def _resolved(module: str, names: Iterable[tuple[str, int]], files: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    """Yield the modules of the house, other than the module itself, that names stand for or stand in."""
    for name, line in names:
        target = name
        while target and target not in files:
            target = target.rpartition(".")[0]
        # A string such as an entry point's group names the package and no more.
        if target not in ("", module) and (target != "foveasim" or name in ("foveasim", "foveasim.__version__")):
            yield target, line


def arrows(files: Mapping[str, Path]) -> dict[tuple[str, str], list[int]]:
    """Return which module of the house imports which, and in what lines."""
    found: dict[tuple[str, str], list[int]] = {}
    for module, path in files.items():
        if module.endswith("__main__"):
            continue
        names = named(path.read_text(encoding="utf-8"), face=path.name == "__init__.py")
        for target, line in _resolved(module, names, files):
            found.setdefault((module, target), []).append(line)
    return found


def promises(files: Mapping[str, Path]) -> set[tuple[str, str]]:
    """Return which module names which without importing it: what stands in registries' tables and lazy faces."""
    imported = arrows(files)
    return {
        (module, target)
        for module, path in files.items()
        for target, _ in _resolved(module, all_named(path.read_text(encoding="utf-8")), files)
        if not module.endswith("__main__") and (module, target) not in imported
    }


def between_rooms(pairs: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """Return from which room to which other one pairs of modules lead, and how many of them do."""
    return Counter((room(here), room(there)) for here, there in pairs if room(here) != room(there))


def purposes(files: Mapping[str, Path]) -> dict[str, str]:
    """Return what every room that there is says of itself, in their order: the first line of its ``__init__``."""
    said = {}
    for name in ROOMS:
        if name in files:
            text = ast.get_docstring(ast.parse(files[name].read_text(encoding="utf-8"))) or ""
            said[name] = " ".join(text.partition("\n\n")[0].split())
    return said


def upward(found: Mapping[tuple[str, str], list[int]]) -> set[tuple[str, str]]:
    """Return the arrows that lead to a later room."""
    order = {name: number for number, name in enumerate(ROOMS)}
    return {pair for pair in found if order[room(pair[1])] > order[room(pair[0])]}


def circles(found: Mapping[tuple[str, str], list[int]]) -> list[list[str]]:
    """Return the groups of modules of which each leads to every other (Tarjan's components of more than one)."""
    leads: dict[str, set[str]] = {}
    for here, there in found:
        leads.setdefault(here, set()).add(there)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in sorted(leads.get(module, ())):
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            start = stack.index(module)
            group = stack[start:]
            del stack[start:]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(leads):
        if module not in number:
            visit(module)
    return groups
