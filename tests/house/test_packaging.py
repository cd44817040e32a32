"""The sdist builds the wheel, the wheel holds foveasim and nothing else, and it works away from the checkout."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

BUILD_FILES = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "constraints.txt",
)
DATA_FOLDERS = {
    "agents/pretraining/presets": "foveasim/agents/pretraining/presets",
    "agents/rl/presets": "foveasim/agents/rl/presets",
    "foveasim/images/photos": "foveasim/images/photos",
    "agents/mim/weights": "foveasim/agents/mim/weights",
    "agents/gaze_policy/weights": "foveasim/agents/gaze_policy/weights",
    "agents/scanpath_model/weights": "foveasim/agents/scanpath_model/weights",
}
IMPORT_ALL = """
import importlib, json, sys
names = sys.argv[1:]
print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))
"""


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it; made in a copy, to leave the checkout clean."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILD_FILES:
        shutil.copy2(root / name, source / name)
    for folder in ("foveasim", "envs", "agents", "tests"):
        shutil.copytree(root / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    """What the wheel holds."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_only_foveasim(wheel_names: set[str]) -> None:
    folders = {name.split("/")[0] for name in wheel_names}
    info = {folder for folder in folders if folder.endswith(".dist-info")}
    assert len(info) == 1
    assert folders - info == {"foveasim"}
    assert not [name for name in wheel_names if "__pycache__" in name or name.endswith((".pyc", ".nbi", ".nbc"))]


def test_wheel_holds_every_module(wheel_names: set[str], module_files: dict[str, Path]) -> None:
    expected = set()
    for module, path in module_files.items():
        stem = module.replace(".", "/")
        expected.add(f"{stem}/__init__.py" if path.name == "__init__.py" else f"{stem}.py")
    missing = expected - wheel_names
    assert not missing, f"name the package under [tool.setuptools] in pyproject.toml: {sorted(missing)}"
    assert {name for name in wheel_names if name.endswith(".py")} == expected


def test_wheel_holds_the_data(wheel_names: set[str], root: Path) -> None:
    assert "foveasim/py.typed" in wheel_names
    for folder, target in DATA_FOLDERS.items():
        files = [path for path in (root / folder).rglob("*") if path.is_file()]
        assert files, f"{folder} is empty"
        for path in files:
            inside = f"{target}/{path.relative_to(root / folder).as_posix()}"
            assert inside in wheel_names, f"add {path.name} to [tool.setuptools.package-data] in pyproject.toml"


def test_wheel_holds_the_stubs(wheel_names: set[str], module_files: dict[str, Path]) -> None:
    stubs = {module: path.with_suffix(".pyi") for module, path in module_files.items() if path.name == "__init__.py"}
    expected = {f"{module.replace('.', '/')}/__init__.pyi" for module, path in stubs.items() if path.is_file()}
    assert "foveasim/__init__.pyi" in expected
    assert {name for name in wheel_names if name.endswith(".pyi")} == expected


def test_wheel_declares_its_command_and_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = archive.read(f"{info}/METADATA").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert scripts["console_scripts"]["foveasim"] == "foveasim.cli.commands:entry"
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_sdist_holds_what_builds_a_wheel_and_no_tests(built: Path, module_files: dict[str, Path], root: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(BUILD_FILES) <= names
    assert {path.relative_to(root).as_posix() for path in module_files.values()} <= names
    folders = {name.split("/")[0] for name in names if "/" in name and not name.startswith("foveasim.egg-info")}
    assert folders == {"foveasim", "envs", "agents"}
    assert max(sdist.stat().st_size, *(wheel.stat().st_size for wheel in built.glob("*.whl"))) < 20e6


def test_mypy_follows_the_packages_to_their_folders(root: Path, tmp_path: Path) -> None:
    shutil.copy2(root / "pyproject.toml", tmp_path)
    shutil.copytree(root / "typings", tmp_path / "typings", symlinks=True)
    for folder in ("foveasim", "envs", "agents", "agents/deeper"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "envs" / "number.py").write_text('NUMBER: int = "one"\n')
    (tmp_path / "agents" / "deeper" / "word.py").write_text(
        "from foveasim.envs.number import NUMBER\nWORD: str = NUMBER\n"
    )
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert 'number.py:1: error: Incompatible types in assignment (expression has type "str"' in done.stdout
    assert 'word.py:2: error: Incompatible types in assignment (expression has type "int"' in done.stdout
    assert "Found 2 errors in 2 files" in done.stdout


def pip_python() -> str:
    """Return a Python that has pip; .venv has none of its own."""
    for python in (sys.executable, getattr(sys, "_base_executable", sys.executable)):
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("needs pip")


def test_wheel_works_outside_the_checkout(built: Path, tmp_path: Path, module_files: dict[str, Path]) -> None:
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "installed"
    pip = [pip_python(), "-m", "pip", "--python", sys.executable, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)

    # -S leaves .pth files unread, and with them the editable install of the checkout.
    places = os.pathsep.join([str(target), *site.getsitepackages()])
    environment = {**os.environ, "PYTHONPATH": places, "HOME": str(tmp_path), "SDL_VIDEODRIVER": "dummy"}

    def python(*arguments: str) -> str:
        command = [sys.executable, "-S", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    names = [name for name in module_files if not name.endswith("__main__")]
    files = dict(zip(names, json.loads(python("-c", IMPORT_ALL, *names)).values(), strict=True))
    outside = {name: path for name, path in files.items() if not Path(path).is_relative_to(target)}
    assert not outside

    info = python(
        "-c", "import sys; from foveasim.cli.commands import main; sys.argv = ['foveasim', 'info']; sys.exit(main())"
    )
    assert "0.1.0" in info
    assert "torch" in info
