"""Compiled code is kept where it can be and is never required; without numba the same kernels run in Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from foveasim.eye.kernels.step import mix
from foveasim.jit import jit

KERNEL = """
from foveasim.jit import jit

@jit
def double(number: int) -> int:
    return 2 * number
"""
COMPLAINT = "foveasim cannot cache compiled code"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Run:
    """Runs a program of which a module ``tiny`` has one small kernel, warnings being errors."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tiny.py").write_text(KERNEL)

    def run(program: str, through: Sequence[str] = (), **options: object) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment |= options.pop("env", {})  # type: ignore[arg-type]
        text = f"import sys\nsys.path.append({str(tmp_path / 'code')!r})\n{textwrap.dedent(program)}"
        found: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [*through, sys.executable, "-W", "error", "-c", text],
            env=environment,
            capture_output=True,
            text=True,
            **options,
        )
        assert found.returncode == 0, found.stderr
        return found

    return run


def test_without_a_place_for_a_cache_it_compiles_and_says_so_once(run: Run, tmp_path: Path) -> None:
    found = run(
        """
        from numba.core import caching
        from foveasim import jit
        jit._Places._locator_classes = []
        from tiny import double
        from foveasim.eye.kernels.step import mix
        print(double(21), 0 <= mix(1, 2, 3, 4, 5) < 1)
        """
    )
    assert found.stdout == "42 True\n"
    assert found.stderr.count(COMPLAINT) == 1 and found.stderr.count("\n") == 1
    assert "no locator available" in found.stderr and "Set NUMBA_CACHE_DIR" in found.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can become another user",
)
def test_another_user_without_a_home(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "from"
    folder.mkdir()
    folder.chmod(0o777)
    # It may read everything, wherever Python is installed, and write nothing.
    found = run(
        """
        from foveasim.eye.kernels.step import mix
        from tiny import double
        print(double(21), 0 <= mix(1, 2, 3, 4, 5) < 1)
        """,
        through=[
            *("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"),
            *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
        ],
        cwd=folder,
        env={"NUMBA_CACHE_DIR": "/proc/none"},
    )
    assert found.stdout == "42 True\n"
    assert found.stderr.count(COMPLAINT) == 1 and found.stderr.count("\n") == 1
    assert not list(folder.iterdir())  # numba alone makes a folder named "~" here


def test_no_home_makes_no_folder_of_that_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from foveasim.jit import _HomeLocator

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")  # what is made of a home that nobody knows
    assert _HomeLocator.from_function(run_nothing, __file__) is None
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert _HomeLocator.from_function(run_nothing, __file__) is not None


def run_nothing() -> None:
    pass


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files")
def test_a_full_disk_leaves_no_index_behind(run: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    program = """
        import resource
        from tiny import double
        limit = {limit}
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        print(double(21), double.stats.cache_hits != {{}})
        """
    # 2 KB hold the index, not the code: an index without its code could name that of an older source.
    found = run(program.format(limit=2048), env={"NUMBA_CACHE_DIR": str(cache)})
    assert found.stdout == "42 False\n"
    assert found.stderr.count(COMPLAINT) == 1 and "File too large" in found.stderr
    assert not list(cache.rglob("tiny*"))
    assert run(program.format(limit=0), env={"NUMBA_CACHE_DIR": str(cache)}).stdout == "42 False\n"
    assert {path.suffix for path in cache.rglob("tiny*")} == {".nbi", ".nbc"}
    assert run(program.format(limit=0), env={"NUMBA_CACHE_DIR": str(cache)}).stdout == "42 True\n"


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04\x95\xff\x00"])
def test_a_damaged_cache_is_made_anew(
    suffix: str, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib.util

    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "tiny.py").write_text(KERNEL)

    def double() -> tuple[int, bool]:
        spec = importlib.util.spec_from_file_location("tiny", tmp_path / "tiny.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.double(21), bool(module.double.stats.cache_hits)

    assert double() == (42, False)
    assert double() == (42, True)
    (path,) = (tmp_path / "cache").rglob(f"tiny*{suffix}")
    path.write_bytes(content)
    assert double() == (42, False)
    assert double() == (42, True)


EPISODES = """
    import hashlib
    import numpy as np
    from foveasim.agents.noise import LaneNoise
    from foveasim.envs.single import FoveaEnv

    found = hashlib.sha256()
    for retina in ("disc", "pyramid"):
        for belief in (False, True):
            env = FoveaEnv(scenes="noise", size=(24, 20), retina=retina, belief=belief)
            env.action_space.seed(3)
            observation, info = env.reset(seed=5)
            for step in range(4):
                for name in sorted(observation):
                    found.update(np.asarray(observation[name]).tobytes())
                observation, reward, *_, info = env.step(env.action_space.sample())
                found.update(np.float64(reward).tobytes())
    noise = LaneNoise(7)
    noise.reset(np.ones(3, bool))
    found.update(noise.uniform(4).tobytes())
    print(found.hexdigest())
    """


def test_python_alone_comes_to_the_same(run: Run) -> None:
    assert run(EPISODES).stdout == run(EPISODES, env={"NUMBA_DISABLE_JIT": "1"}).stdout


def test_in_python_integers_are_as_wide_as_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    def total(numbers: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> int:
        found = 0
        for i in range(numbers.size):
            found += numbers[i] * numbers[i]
        return found

    compiled = jit(total)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    numbers = np.full(9, 255, np.uint8)
    assert jit(total)(numbers) == compiled(numbers) == 9 * 255 * 255


def test_a_seed_wraps_around_in_python_as_compiled() -> None:
    assert mix.py_func is not None  # type: ignore[attr-defined]
    with np.errstate(all="ignore"):
        key = [np.int64(number) for number in (-1, 2**62, 3)]
        assert mix.py_func(*key, 4, 5) == mix(*key, 4, 5)  # type: ignore[attr-defined]


def test_kernels_are_compiled_by_one_function(module_faults: Callable[..., list[str]]) -> None:
    compiled = re.compile(r"\b(njit|numba\.jit|vectorize|cache=True)\b")
    faults = module_faults(lambda module, source: compiled.findall(source) if module != "foveasim.jit" else [])
    assert not faults, "\n".join(faults)
