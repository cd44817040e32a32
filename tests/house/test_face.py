"""The public face: names that a package offers lazily, and what users' code, docs and examples may import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pkgutil
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

import foveasim
from foveasim.lazy_names import lazy_names

ROOT = Path(__file__).resolve().parents[2]
LAZY = ("foveasim", "foveasim.envs", "foveasim.agents", "foveasim.agents.mim", "foveasim.agents.rl")
FACES = (*LAZY, "foveasim.envs.wrappers", "foveasim.errors", "foveasim.metrics")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
COMMANDS = re.compile(r"python -m foveasim[\w.]*")
DOTTED = re.compile(r"\bfoveasim((?:\.(?!(?:mp4|gif)\b)[A-Za-z_]\w*)+)")  # foveasim.mp4 is a file


def is_module(path: str) -> bool:
    """Whether this is the full name of a module."""
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("package", LAZY)
def test_a_table_and_its_stub_say_the_same(package: str) -> None:
    module = importlib.import_module(package)
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    offered = {}
    for statement in ast.parse(stub.read_text(encoding="utf-8")).body:
        for one in statement.names if isinstance(statement, ast.ImportFrom) else ():
            assert one.asname is not None, f"{stub}: write {one.name} as {one.name}, or type checkers think it private"
            assert isinstance(statement, ast.ImportFrom)
            path = f"{statement.module}.{one.name}"
            offered[one.asname] = path if is_module(path) else f"{statement.module}:{one.name}"
    assert offered == module._NAMES
    assert all(path.startswith("foveasim.") for path in offered.values()), "it imports foveasim's own modules only"
    assert set(module.__all__) - {"__version__"} == set(offered)


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_there_under_its_own_name(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module._NAMES) <= set(dir(module))
    for name in module._NAMES:
        found = getattr(module, name)
        assert vars(module)[name] is found, "asked for once, it is an ordinary attribute"
        if inspect.isroutine(found) or inspect.isclass(found):
            assert found.__name__ == name


@pytest.mark.parametrize("package", LAZY)
def test_no_module_takes_the_place_of_a_name(package: str) -> None:
    module = importlib.import_module(package)
    inside = {one.name for one in pkgutil.iter_modules(module.__path__)}
    taken = [name for name, path in module._NAMES.items() if name in inside and path != f"{package}.{name}"]
    assert not taken, f"importing {package}.{taken[0]} would hide the object of that name; rename the module"


def test_a_name_that_is_not_there() -> None:
    assert not hasattr(foveasim, "Simulater")
    with pytest.raises(AttributeError, match=r"'foveasim' has no attribute 'Simulater'.*dir\(foveasim\)"):
        foveasim.Simulater  # type: ignore[attr-defined]  # noqa: B018
    find, names = lazy_names("foveasim", {"array": "numpy:array", "linear": "numpy.linalg"})
    assert {"array", "linear", "__version__"} <= set(names())
    try:
        assert (find("array"), find("linear")) == (np.array, np.linalg)
    finally:
        del foveasim.array, foveasim.linear  # type: ignore[attr-defined]


def test_import_loads_neither_torch_nor_numba_and_registers_the_ids() -> None:
    code = (
        "import sys, json, gymnasium, foveasim; "
        "print(json.dumps([sorted(set(sys.modules) & {'torch', 'numba', 'cv2'}), "
        "[id for id in gymnasium.registry if id.startswith('foveasim/')]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], ["foveasim/Glimpse-v0", "foveasim/Classify-v0", "foveasim/Search-v0"]]


def test_help_says_what_is_public() -> None:
    said = pydoc.plain(pydoc.render_doc(foveasim))
    head = said[: said.index("PACKAGE CONTENTS")]
    left_out = {name for name in foveasim.__all__ if not re.search(rf"\b{name}\b", head)}
    assert not left_out - {"__version__"}
    assert "may move" in head


# What users read


def python_code(page: Path) -> Iterator[str]:
    """Yield the Python of a page or of an example."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        yield text
    else:
        yield from re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def deep_imports(code: str) -> list[str]:
    """Return what a piece of Python imports of foveasim that no face offers."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            faults += [a.name for a in node.names if a.name.split(".")[0] == "foveasim" and a.name not in FACES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "foveasim":
            offered = importlib.import_module(str(node.module)).__all__ if node.module in FACES else ()
            faults += [f"{node.module}.{a.name}" for a in node.names if a.name not in offered]
    return faults


def deep_names(text: str) -> list[str]:
    """Return the dotted names of foveasim in a text that no face offers; commands with ``-m`` are no names."""
    faults = []
    for match in DOTTED.finditer(COMMANDS.sub("", text)):
        face, parts = "foveasim", match[1].split(".")[1:]
        while parts and f"{face}.{parts[0]}" in FACES:
            face, parts = f"{face}.{parts[0]}", parts[1:]
        if parts and parts[0] not in importlib.import_module(face).__all__:
            faults.append(match[0])
    return faults


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_readers_are_shown_the_face_only(page: Path) -> None:
    assert not [fault for code in python_code(page) for fault in deep_imports(code)]
    assert not deep_names(page.read_text(encoding="utf-8"))


def test_the_readers_test_can_fail() -> None:
    assert deep_imports("from foveasim.scanpath.scanpath import read_csv\nimport foveasim.simulator.simulator") == [
        "foveasim.scanpath.scanpath.read_csv",
        "foveasim.simulator.simulator",
    ]
    assert deep_imports("from foveasim import metrics, gone") == ["foveasim.gone"]
    assert deep_imports("import foveasim\nfrom foveasim.envs.wrappers import FoveateObservation") == []
    assert deep_names("`foveasim.scanpath.scanpath.read_csv`, `foveasim.metrics.nss`, foveasim.agents.mim.train") == [
        "foveasim.scanpath.scanpath.read_csv"
    ]
    assert deep_names("python -m foveasim.agents.scanpath_model.fit; foveasim.foveate(picture, point)") == []
    assert len(PAGES) > 10 and len(EXAMPLES) > 5


# What things look like


def short(thing: object) -> bool:
    """Whether the ``repr`` says what a thing is in a line."""
    said = repr(thing)
    return type(thing).__name__ in said and len(said) < 240 and "\n" not in said and " object at 0x" not in said


@pytest.mark.parametrize("name", [*foveasim.agents.AGENTS])
def test_agents_say_what_they_are(name: str) -> None:
    agent = foveasim.make_agent(name)
    assert short(agent) and foveasim.agents.agent_name(agent) in repr(agent)


@pytest.mark.parametrize("name", ["photos", "noise", "shapes", "gratings", "uniform", "search", "signs"])
def test_scene_sources_say_what_they_are(name: str) -> None:
    source = foveasim.open_scenes(name)
    assert short(source) and f"({len(source)} scenes" in repr(source)
    assert short(source.picture(0))


def test_joined_and_fitted_scenes_say_what_they_are() -> None:
    pictures = np.zeros((5, 32, 48, 3), np.uint8)
    source = foveasim.open_scenes(pictures, label=[0, 0, 1, 1, 1], labels=("a", "b"))
    assert repr(source) == "ArrayScenes(5 scenes, 2 classes, size=(32, 48))"
    assert repr(foveasim.open_scenes([pictures, "noise"])) == "JoinedScenes(10005 scenes, ArrayScenes, NoiseScenes)"
    assert repr(foveasim.open_scenes(pictures[0])) == "ArrayScenes(1 scene, size=(32, 48))"


def test_eyes_and_what_they_see_say_what_they_are() -> None:
    eyes = foveasim.Simulator("noise", "full", lanes=2, size=(32, 48))
    assert repr(eyes) == "Simulator(2 lanes, NoiseScenes(10000 scenes, size=(256, 256), seed=0), Full(), size=(32, 48))"
    eyes.reset(seed=0)
    assert repr(eyes.belief) == "Belief(image=uint8 (2, 32, 48, 3), acuity=uint8 (2, 32, 48))"
    assert f"name={tuple(eyes.names)}" in repr(eyes.scene)
    assert short(eyes.scene) and short(eyes.glimpse) and short(eyes.saccade)
    assert "… 9 in all" in repr(foveasim.as_scene(np.zeros((9, 32, 48, 3), np.uint8)))


def test_scanpaths_and_networks_say_what_they_are(network: str) -> None:
    path = foveasim.Scanpath(torch.rand(3, 2), torch.tensor([0.0, 250, 600]), torch.tensor([200.0, 300, 400]), "beach")
    assert repr(path) == "Scanpath(image='beach', subject='', 3 fixations, 1.00 s)"
    assert "1 fixation," in repr(foveasim.Scanpath(torch.rand(1, 2), torch.zeros(1), torch.ones(1)))
    assert "0 fixations, 0.00 s" in repr(foveasim.Scanpath(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0)))
    predictor = foveasim.Predictor(network)
    count = sum(parameter.numel() for parameter in predictor.network.parameters())
    assert short(predictor) and f"UNetNetwork('unet', {count:,} parameters)" in repr(predictor)


def test_rollouts_and_episodes_say_what_they_are() -> None:
    env = foveasim.RecordEpisode(gym.make("foveasim/Glimpse-v0", scenes="noise", retina="disc", budget=2))
    found = foveasim.rollout(foveasim.make_agent("centre"), env, episodes=3)
    assert repr(found).startswith("Rollout(3 episodes, 3 finished, 2 steps each, mean return ")
    env.reset(seed=0)
    for _ in range(2):
        env.step(env.action_space.sample())
    assert repr(env.episode) == "Episode('env', 'foveasim/Glimpse-v0', 3 steps)"
