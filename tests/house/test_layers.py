"""Rules of the house, read from the source: what may be imported where, what is unpickled, how long a file is."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CORE = ("", "eye", "images", "scenes", "simulator", "scanpath", "metrics")
"""The rooms in which a scene is looked at, whoever looks."""
CORE_EXEMPT = {"foveasim", "foveasim.__main__", "foveasim.images.download", "foveasim.images.reading"}
"""The ids of the envs, the start of the commands, and bars of progress."""
NOT_IN_CORE = {"gymnasium", "pygame", "stable_baselines3", "sb3_contrib", "jsonargparse", "rich", "tensorboard"}
LAZY = {"pygame", "stable_baselines3", "sb3_contrib", "tensorboard"}
DOORS = {
    "foveasim": {*LAZY, "numba", "cv2", "matplotlib"},
    "foveasim.envs": LAZY,
    "foveasim.agents": LAZY,
    "foveasim.agents.rl": LAZY,
    "foveasim.cli.commands": LAZY,
}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_LOADERS = {"torch", "PPO", "A2C", "DQN", "SAC", "TD3", "DDPG", "BaseAlgorithm", "RecurrentPPO"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "PyYAML",
    "cv2": "opencv-python-headless",
    "stable_baselines3": "stable-baselines3",
}


Rule = Callable[[str, str], Iterable[str]]


@dataclass(frozen=True)
class Import:
    """One imported module, or a name in it."""

    module: str
    line: int
    top: bool
    typing_only: bool


def is_core(module: str) -> bool:
    """Whether a module stands in the core."""
    room = module.split(".")[1] if module.count(".") > 1 else ""
    return room in CORE and module not in CORE_EXEMPT


def imports(tree: ast.Module) -> Iterator[Import]:
    """Yield what a file imports, anywhere in it; ``from a import b`` yields both ``a`` and ``a.b``."""

    def walk(node: ast.AST, top: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield Import(source, node.lineno, top, typing_only)
            yield from (Import(f"{source}.{alias.name}", node.lineno, top, typing_only) for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for statement in node.body:
                yield from walk(statement, top, True)
            for statement in node.orelse:
                yield from walk(statement, top, typing_only)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, top and not inside, typing_only)

    yield from walk(tree, True, False)


def import_faults(module: str, source: str) -> list[str]:
    """Return what is wrong with the imports of a module."""
    faults = []
    core, envs = is_core(module), module.startswith("foveasim.envs")
    for found in imports(ast.parse(source)):
        first = found.module.split(".")[0]
        if found.module.startswith("."):
            faults.append(f"line {found.line}: relative import; write the full name foveasim.…")
        if first in ("envs", "agents", "tests", "examples"):
            faults.append(f"line {found.line}: imports {found.module}; write foveasim.{found.module}")
        if core and first in NOT_IN_CORE:
            faults.append(f"line {found.line}: the core imports {first}")
        if (core or envs) and first in LAZY and found.top and not found.typing_only:
            faults.append(f"line {found.line}: imports {first} at the top; import it inside the function that needs it")
        if first in UNSAFE_MODULES:
            faults.append(f"line {found.line}: imports {first}; nothing is unpickled, use safetensors, JSON or CSV")
    return faults


def call_faults(source: str) -> list[str]:
    """Return the calls that would unpickle a file."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else ""
        if node.func.attr == "load" and name in UNSAFE_LOADERS:
            faults.append(f"line {node.lineno}: {name}.load unpickles; use safetensors")
        allow = [k for k in node.keywords if k.arg == "allow_pickle"]
        if any(not (isinstance(k.value, ast.Constant) and k.value.value is False) for k in allow):
            faults.append(f"line {node.lineno}: allow_pickle")
        if name == "yaml" and node.func.attr in ("load", "unsafe_load", "full_load"):
            faults.append(f"line {node.lineno}: yaml.{node.func.attr} can run code; use yaml.safe_load")
    return faults


def undeclared_faults(source: str, declared: set[str]) -> list[str]:
    """Return the imports of packages that are not among the declared ones, given in lower case."""
    known = {*sys.stdlib_module_names, "foveasim"}
    faults = []
    for found in imports(ast.parse(source)):
        name = found.module.split(".")[0]
        if name not in known and DISTRIBUTIONS.get(name, name.replace("_", "-")).lower() not in declared:
            known.add(name)
            faults.append(f"line {found.line}: imports {name}, which is not among the dependencies in pyproject.toml")
    return faults


def name_faults(path: Path) -> list[str]:
    """Return what in the path of a file, seen from the checkout, says nothing about what it holds."""
    return [
        f"{path}: {part!r} says nothing about what it holds"
        for part in path.with_suffix("").parts
        if part in VAGUE_NAMES
    ]


def user_import_faults(source: str) -> list[str]:
    """Return the imports of a test or an example that a user could not write."""
    found = [one for one in imports(ast.parse(source)) if one.module.split(".")[0] in ("", "envs", "agents")]
    return [f"line {one.line}: imports {one.module}; write the full name foveasim.…" for one in found]


def loaded_at_import(start: str, files: dict[str, Path]) -> dict[str, str]:
    """Return every module that importing ``start`` imports at the top of some file, and who asks for it."""
    waiting, reached = [(start, "you")], {}
    while waiting:
        module, asker = waiting.pop()
        if module in reached:
            continue
        reached[module] = asker
        parent = module.rpartition(".")[0]
        if parent:
            waiting.append((parent, module))
        if module in files:
            found = imports(ast.parse(files[module].read_text(encoding="utf-8")))
            waiting.extend((one.module, module) for one in found if one.top and not one.typing_only)
    return reached


def test_imports_keep_to_the_rules(module_faults: Callable[[Rule], list[str]]) -> None:
    faults = module_faults(import_faults)
    assert not faults, "\n".join(faults)


def test_nothing_is_unpickled(module_faults: Callable[[Rule], list[str]]) -> None:
    faults = module_faults(lambda _, source: call_faults(source))
    assert not faults, "\n".join(faults)


def test_all_faults_of_all_modules_are_told(
    module_faults: Callable[[Rule], list[str]], module_files: dict[str, Path], root: Path
) -> None:
    faults = module_faults(lambda module, _: (f"line 1: {module}", "line 2: again"))
    assert len(faults) == 2 * len(module_files) > 100
    assert {f"{path.relative_to(root).as_posix()}: line 1: {name}" for name, path in module_files.items()} <= {*faults}


def test_what_a_door_leaves_unloaded(module_files: dict[str, Path]) -> None:
    faults = [
        f"import {door} also imports {name}, for {asker}"
        for door, heavy in DOORS.items()
        for name, asker in loaded_at_import(door, module_files).items()
        if name.split(".")[0] in heavy
    ]
    assert not faults, "\n".join(faults)
    assert "torch" in loaded_at_import("foveasim.eye.retina", module_files)  # what is loaded is found


def test_third_party_packages_are_declared(module_faults: Callable[[Rule], list[str]], root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["rl"]]
    declared = {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}
    faults = module_faults(lambda _, source: undeclared_faults(source, declared))
    assert not faults, "\n".join(faults)


def test_undeclared_packages_are_noticed() -> None:
    source = "import json\nimport yaml\nfrom sb3_contrib import a\nimport scipy.io\nimport scipy"
    (fault,) = undeclared_faults(source, {"pyyaml", "sb3-contrib"})
    assert fault.startswith("line 4: imports scipy,")


def source_files(root: Path) -> list[Path]:
    """Return every Python file of the project, tests and examples included."""
    folders = ("foveasim", "envs", "agents", "tests", "examples")
    return [root / "dev", *(path for folder in folders for path in sorted((root / folder).rglob("*.py")))]


def test_files_are_named_for_what_they_hold(root: Path) -> None:
    faults = [fault for path in source_files(root) for fault in name_faults(path.relative_to(root))]
    assert not faults, "\n".join(faults)
    assert name_faults(Path("envs/utils.py")) and name_faults(Path("tests/common/test_a.py"))


def test_examples_and_tests_import_as_a_user_does(root: Path) -> None:
    faults = [
        f"{path.relative_to(root)}: {fault}"
        for path in source_files(root)
        if path.relative_to(root).parts[0] in ("tests", "examples")
        for fault in user_import_faults(path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)
    assert len(user_import_faults("from . import a\nimport envs.single\nfrom foveasim.envs import FoveaEnv")) == 3


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("foveasim.eye.retina", "import gymnasium as gym", "the core imports gymnasium"),
        ("foveasim.envs.single", "import pygame", "imports pygame at the top"),
        ("foveasim.agents.interface", "from . import scripted", "relative import"),
        ("foveasim.cli.commands", "import envs.single", "write foveasim.envs.single"),
        ("foveasim.cli.commands", "import pickle", "nothing is unpickled"),
    ],
)
def test_import_rules_can_fail(module: str, source: str, fault: str) -> None:
    assert any(fault in found for found in import_faults(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("foveasim.cli.commands", "from foveasim.agents.interface import Agent\nimport gymnasium"),
        ("foveasim.agents.interface", "from foveasim.envs import FoveaEnv"),
        ("foveasim.envs.single", "def render():\n    import pygame"),
        ("foveasim", "import gymnasium\ndef f():\n    import foveasim.envs"),
    ],
)
def test_import_rules_let_good_code_pass(module: str, source: str) -> None:
    assert import_faults(module, source) == []


@pytest.mark.parametrize(
    "source", ["torch.load('a.pt', weights_only=True)", "np.load(f, allow_pickle=True)", "PPO.load(p)", "yaml.load(f)"]
)
def test_unpickling_is_noticed(source: str) -> None:
    assert call_faults(source)
    assert not call_faults("np.load(f, allow_pickle=False)\nsafetensors.torch.load(data)")
