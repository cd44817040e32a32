"""On CI a test is skipped only for a reason that is on the list; elsewhere it may be for any."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = """
import pytest

@pytest.mark.gpu
def test_device(): assert __import__("torch").cuda.is_available()

@pytest.mark.parametrize("reason", ["needs root", "needs a user other than root", "needs ../shared/data/osie",
    "needs an accelerator", "needs no accelerator", "needs an environment of its own: foveasim[ray]"])
def test_a(reason): pytest.skip(reason)

@pytest.mark.xfail
def test_known(): assert False
"""
OTHERS = """
import pytest

@pytest.mark.skipif(True, reason="needs Chromium: apt-get install chromium")
def test_browser(): pass

def test_peer(): pytest.importorskip("no_such_peer")

def test_rooted(): pytest.skip("is no root and needs root")
"""
WHOLE_FILE = """
import pytest
pytest.importorskip("no_such_module")
"""


def run(root: Path, folder: Path, ci: str | None, **sources: str) -> tuple[int, str]:
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy2(root / "tests" / "conftest.py", tests)
    shutil.copy2(root / "pyproject.toml", folder)
    for name, source in sources.items():
        (tests / f"test_{name}.py").write_text(source, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {} if ci is None else {"CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_ci_refuses_other_skips_and_names_them(root: Path, tmp_path: Path) -> None:
    status, said = run(root, tmp_path, "true", allowed=ALLOWED, others=OTHERS, whole=WHOLE_FILE)
    assert status == pytest.ExitCode.TESTS_FAILED, said
    told = said.partition("skipped, which CI does not allow")[2].splitlines()[1:]
    assert [re.sub(r": No module.*", "", line) for line in told[:4]] == [
        "tests/test_whole.py: could not import 'no_such_module'",
        "tests/test_others.py::test_browser: needs Chromium: apt-get install chromium",
        "tests/test_others.py::test_peer: could not import 'no_such_peer'",
        "tests/test_others.py::test_rooted: is no root and needs root",
    ]
    assert "ALLOWED_SKIPS" in told[4]


def test_ci_allows_what_is_on_the_list(root: Path, tmp_path: Path) -> None:
    status, said = run(root, tmp_path, "true", allowed=ALLOWED)
    assert status == pytest.ExitCode.OK, said
    assert "does not allow" not in said and re.search(r"\b[67] skipped, (1 passed, )?1 xfailed", said)


def test_elsewhere_any_reason_will_do(root: Path, tmp_path: Path) -> None:
    status, said = run(root, tmp_path, None, others=OTHERS)
    assert status == pytest.ExitCode.OK, said
    assert "3 skipped" in said and "does not allow" not in said
