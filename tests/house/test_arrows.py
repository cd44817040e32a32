"""A room imports only from rooms that stand before it, and no two modules import each other, by whatever way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

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

KNOWN_ARROWS: frozenset[tuple[str, str]] = frozenset()
"""Upward imports, (module, imported), that are still there. Only ever taken from."""

PATH = re.compile(r"foveasim(\.\w+)+(:\w*)?")
TABLE_ENTRY = re.compile(r"foveasim(\.\w+)+:\w+")


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


def arrows(files: Mapping[str, Path]) -> dict[tuple[str, str], list[int]]:
    """Return which module of the house names which, and in what lines."""
    found: dict[tuple[str, str], list[int]] = {}
    for module, path in files.items():
        if module.endswith("__main__"):
            continue
        face = path.name == "__init__.py"
        for name, line in named(path.read_text(encoding="utf-8"), face=face):
            target = name
            while target and target not in files:
                target = target.rpartition(".")[0]
            # A string such as an entry point's group names the package and no more.
            if target and (target != "foveasim" or name in ("foveasim", "foveasim.__version__")):
                pair = module, target
                if pair[0] != pair[1]:
                    found.setdefault(pair, []).append(line)
    return found


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


def test_every_module_stands_in_a_room(module_files: dict[str, Path]) -> None:
    homeless = {module for module in module_files if room(module) not in ROOMS}
    assert not homeless, f"add the folder of {sorted(homeless)} to ROOMS, where it belongs in the order"


def test_imports_lead_to_rooms_that_stand_before(module_files: dict[str, Path]) -> None:
    found = arrows(module_files)
    new = {f"{here} -> {there} (lines {found[here, there]})" for here, there in upward(found) - KNOWN_ARROWS}
    assert not new, f"these lead upwards: {sorted(new)}"
    assert upward(found) >= KNOWN_ARROWS, "some of KNOWN_ARROWS are gone: take them from the list"


def test_no_modules_import_each_other(module_files: dict[str, Path]) -> None:
    assert circles(arrows(module_files)) == []


def written(folder: Path, **modules: str) -> dict[str, Path]:
    """Write modules, ``a__b`` for ``foveasim.a.b``, and return where they are."""
    files = {}
    for name, source in modules.items():
        path = folder / f"{name}.py"
        path.write_text(source)
        files[f"foveasim.{name.replace('__', '.')}"] = path
    return files


@pytest.mark.parametrize(
    "source",
    [
        "import foveasim.cli.parser",
        "from foveasim.cli import parser",
        "def f():\n    from foveasim.cli.parser import parse",
        "def f():\n    return load_object('foveasim.cli.parser:parse')",
        "def f(name):\n    return load_object(f'foveasim.cli.parser:{name}')",
        "def f():\n    return {'a': 'foveasim.cli.parser:parse'}['a']",
        "TYPES = {'a': 'foveasim.cli.parser:parse', 'b': 3}",
    ],
)
def test_an_upward_import_is_noticed(source: str, tmp_path: Path) -> None:
    files = written(tmp_path, runs__progress=source, cli__parser="", cli="")
    assert upward(arrows(files)) == {("foveasim.runs.progress", "foveasim.cli.parser")}


@pytest.mark.parametrize(
    "source",
    [
        "THINGS.add('a', 'foveasim.cli.parser:parse')",
        "_OPENERS = {'.zip': 'foveasim.cli.parser:parse'}",
        "for name, path in {'a': 'foveasim.cli.parser:parse'}.items():\n    THINGS.add(name, path)",
        '"""See :func:`foveasim.cli.parser.parse`."""',
    ],
)
def test_a_registry_table_may_name_what_stands_above(source: str, tmp_path: Path) -> None:
    assert upward(arrows(written(tmp_path, runs__progress=source, cli__parser="", cli=""))) == set()


def test_a_face_may_be_lazy_and_no_more() -> None:
    lazy = "if TYPE_CHECKING:\n    from foveasim.cli import a\ndef __getattr__(name):\n    from foveasim.cli import b"
    assert list(named(lazy, face=True)) == []
    assert list(named("from foveasim.cli import a", face=True)) == [("foveasim.cli.a", 1)]


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    inside = "def f():\n    import foveasim.runs.a"
    files = written(tmp_path, runs__a="import foveasim.runs.b", runs__b="import foveasim.runs.c", runs__c=inside)
    assert circles(arrows(files)) == [["foveasim.runs.a", "foveasim.runs.b", "foveasim.runs.c"]]
    assert circles(arrows({name: path for name, path in files.items() if not name.endswith("c")})) == []
