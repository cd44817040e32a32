"""A room imports only from rooms that stand before it, and no two modules import each other, by whatever way."""

from __future__ import annotations

from pathlib import Path

import pytest
from rooms import ROOMS, arrows, circles, named, room, upward

KNOWN_ARROWS: frozenset[tuple[str, str]] = frozenset()
"""Upward imports, (module, imported), that are still there. Only ever taken from."""


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
