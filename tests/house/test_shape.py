"""The report at the end of ./dev lint: what is over a limit is listed, worst first, and what is not is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def shape(root: Path, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, str(root / ".ci" / "shape"), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def arguments(count: int) -> str:
    return ", ".join(f"a{i}" for i in range(count))


def test_nothing_large_is_a_report_of_nothing(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "envs" / "a.py", "x = 1\n" * 600)
    write(tmp_path / "envs" / "b.py", "def f():\n" + "    x = 1\n" * 49)
    write(tmp_path / "envs" / "c.py", f"def f({arguments(8)}): pass\nclass A:\n    def f(self, {arguments(8)}): pass\n")
    write(tmp_path / "envs" / "d.py", "class A:\n" + "".join(f"    x{i}: int\n" for i in range(20)))
    for i in range(8):
        write(tmp_path / "envs" / f"e{i}.py", "")
    write(tmp_path / "envs" / "__init__.py", "")
    said = shape(root, tmp_path)
    assert [line.rpartition(": ")[2] for line in said] == ["none"] * 5


def test_what_is_over_a_limit_is_listed_worst_first(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "agents" / "long.py", "x = 1\n" * 601)
    write(tmp_path / "agents" / "longer.py", "x = 1\n" * 700)
    write(tmp_path / "agents" / "f.py", "class A:\n    def f(self):\n" + "        x = 1\n" * 50)
    write(tmp_path / "agents" / "g.py", f"def f(*, {arguments(8)}, **rest):\n    def g({arguments(10)}): pass\n")
    own = "".join(f"        self.y{i} = self.y0 = {i}\n" for i in range(11))
    fields = "".join(f"    x{i}: int = 0\n" for i in range(10))
    write(tmp_path / "agents" / "h.py", f"class A:\n{fields}    def f(self):\n{own}")
    for i in range(13):
        write(tmp_path / "agents" / "deep" / f"e{i}.py", "")
    assert shape(root, tmp_path) == [
        "folders over 12 modules: 1",
        "     13  agents/deep/",
        "modules over 600 lines: 2",
        "    700  agents/longer.py",
        "    601  agents/long.py",
        "classes over 20 attributes: 1",
        "     21  agents/h.py:1 A",
        "functions over 50 lines: 1",
        "     51  agents/f.py:2 A.f",
        "functions over 8 arguments: 2",
        "     10  agents/g.py:2 f.g",
        "      9  agents/g.py:1 f",
    ]


def test_configs_and_constructors_of_envs_are_left_out(root: Path, tmp_path: Path) -> None:
    fields = "".join(f"    x{i}: int = 0\n" for i in range(21))
    checks = "    def __post_init__(self): pass\n"
    write(tmp_path / "envs" / "a.py", f"@dataclass(frozen=True)\nclass A:\n{fields}{checks}")
    write(tmp_path / "envs" / "b.py", f"class MyEnv(Base[int]):\n    def __init__(self, {arguments(9)}): pass\n")
    write(tmp_path / "envs" / "c.py", f"class My(gym.Env[int, int]):\n    def __init__(self, {arguments(9)}): pass\n")
    assert not [line for line in shape(root, tmp_path) if line.startswith(" ")]
    write(tmp_path / "envs" / "a.py", f"@dataclass\nclass AConfig:\n{fields}    def run(self): pass\n")
    write(tmp_path / "envs" / "b.py", f"class MyEnv:\n    def step(self, {arguments(9)}): pass\n")
    write(tmp_path / "envs" / "c.py", f"class My:\n    def __init__(self, {arguments(9)}): pass\n")
    assert [line.strip() for line in shape(root, tmp_path) if line.startswith(" ")] == [
        "21  envs/a.py:2 AConfig (a config)",
        "9  envs/b.py:2 MyEnv.step",
        "9  envs/c.py:2 My.__init__",
    ]


def test_of_each_kind_fifteen_are_shown(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "examples" / "a.py", "".join(f"def f{i}({arguments(9 + i)}): pass\n" for i in range(18)))
    said = shape(root, tmp_path)
    assert said[-17:-15] == ["functions over 8 arguments: 18", "     26  examples/a.py:18 f17"]
    assert said[-1] == "  and 3 more"
