"""The documentation is there and tells the truth: docstrings, doctests, README code, links, ids and commands."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
ENV_ID = re.compile(r"foveasim/[A-Z]\w*-v\d+")
CODE = re.compile(r"`([^`\n]+)`")


def readme() -> str:
    """Return README.md, or nothing where there is none; a test of its own says so."""
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def markdown_files() -> list[Path]:
    """Return every Markdown file of the project."""
    folders = ("docs", "foveasim", "envs", "agents", "tests", "examples", "typings")
    return [*sorted(ROOT.glob("*.md")), *(path for name in folders for path in sorted((ROOT / name).rglob("*.md")))]


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the line and the code of every fenced block that is marked ``python``."""
    found = FENCE.finditer(text)
    return [(text[: m.start()].count("\n") + 1, m[2]) for m in found if m[1].strip() == "python"]


def code_parts(text: str) -> str:
    """Return the code of a Markdown text, blocks and spans, without the prose around it."""
    blocks = [m[2] for m in FENCE.finditer(text)]
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    return "\n".join([*blocks, *indented, *CODE.findall(FENCE.sub("", text))])


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Yield the relative links of a Markdown file that lead nowhere."""
    prose = FENCE.sub("", text)
    for match in LINK.finditer(prose):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        place, _, section = target.partition("#")
        file = path if not place else (path.parent / place)
        if not file.exists():
            yield target
        elif section and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
            if section not in {anchor(heading) for heading in headings}:
                yield target


def public_members(owner: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield a public class or function and, of a class, the public methods that it defines itself."""
    yield name, owner
    if inspect.isclass(owner):
        for key, value in vars(owner).items():
            plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            if not key.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
                yield f"{name}.{key}", plain


def documented(owner: object, full_name: str, member: object) -> bool:
    """Whether a class has a docstring of its own, or a function or method one that it may have inherited."""
    if inspect.isclass(member):
        own = member.__doc__ or ""
        return bool(own.strip()) and not own.startswith(f"{member.__name__}(")  # what @dataclass writes by itself
    attribute = full_name.rpartition(".")[2]
    found = (
        getattr(owner, attribute) if inspect.isclass(owner) else member
    )  # from the class: getdoc then sees its bases
    return bool((inspect.getdoc(found) or "").strip())


def place_of(member: object, module: ModuleType) -> str:
    """Return the file and line where something of a module is defined, or the module's file."""
    plain = member.fget if isinstance(member, property) else member
    path, line = Path(module.__file__ or module.__name__), 1
    with contextlib.suppress(TypeError, OSError):
        path, line = Path(inspect.getfile(plain)), max(1, inspect.getsourcelines(plain)[1])  # type: ignore[arg-type]
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"


def docstring_faults(module: ModuleType) -> list[str]:
    """Return what is public in a module and has no docstring."""
    bare = [] if (module.__doc__ or "").strip() else [f"{place_of(module, module)}: {module.__name__} has no docstring"]
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            bare += [
                f"{place_of(member, module)}: {full} has no docstring"
                for full, member in public_members(value, name)
                if not documented(value, full, member)
            ]
    return bare


def all_faults(module: ModuleType) -> list[str]:
    """Return the names in ``__all__`` that stand there twice or do not exist."""
    names = list(getattr(module, "__all__", ()))
    wrong = {name: "twice" for name in names if names.count(name) > 1}
    wrong |= {name: "but there is no such thing" for name in names if not hasattr(module, name)}
    return [f"{place_of(module, module)}: __all__ names {name}, {what}" for name, what in wrong.items()]


def doctest_faults(module: ModuleType) -> list[str]:
    """Run the examples of a module and return what its failures look like."""
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for found in doctest.DocTestFinder().find(module):
        runner.run(found, out=said.append)
    return said


def test_everything_public_has_a_docstring(module_files: dict[str, Path]) -> None:
    faults = [fault for name in module_files for fault in docstring_faults(importlib.import_module(name))]
    assert not faults, "\n".join(faults)


def test_all_lists_exist(module_files: dict[str, Path]) -> None:
    faults = [fault for name in module_files for fault in all_faults(importlib.import_module(name))]
    assert not faults, "\n".join(faults)


def test_doctests(module_files: dict[str, Path]) -> None:
    faults = [fault for name in module_files for fault in doctest_faults(importlib.import_module(name))]
    assert not faults, "\n".join(faults)


def test_the_rules_for_modules_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "poor.py"
    path.write_text(
        "__all__ = ['Poor', 'gone', 'rich', 'rich']\n"
        "class Poor:\n    'Says little.'\n    def act(self): pass\n    @property\n    def place(self): return 1\n"
        "def rich():\n    'Say one.\\n\\n    >>> 1 + 1\\n    3\\n    >>> 2\\n    2\\n    '\n",
        encoding="utf-8",
    )
    spec = importlib.util.spec_from_file_location("poor", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert all_faults(module) == [
        f"{path}:1: __all__ names rich, twice",
        f"{path}:1: __all__ names gone, but there is no such thing",
    ]
    module.__all__ = ["Poor", "rich"]
    assert docstring_faults(module) == [
        f"{path}:1: poor has no docstring",
        f"{path}:4: Poor.act has no docstring",
        f"{path}:5: Poor.place has no docstring",
    ]
    (said,) = doctest_faults(module)
    assert f'File "{path}", line 10' in said and "Expected:\n    3\nGot:\n    2" in said


def test_the_files_that_a_visitor_looks_for() -> None:
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"):
        assert len((ROOT / name).read_text(encoding="utf-8")) > 200, name


def test_links_lead_somewhere() -> None:
    faults = [
        f"{path.relative_to(ROOT)}: {target} leads nowhere"
        for path in markdown_files()
        for target in broken_links(path, path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("line", "code"), python_blocks(readme()), ids=lambda v: f"line{v}" if isinstance(v, int) else ""
)
def test_readme_code_runs(line: int, code: str, tmp_path: Path) -> None:
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy", "PYTHONPATH": str(tmp_path)}
    script = tmp_path / f"readme_line_{line}.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_readme_names_environments_that_exist() -> None:
    import gymnasium

    importlib.import_module("foveasim")
    named = set(ENV_ID.findall(readme()))
    assert "foveasim/Glimpse-v0" in named
    assert not named - set(gymnasium.registry)


def test_readme_names_commands_that_exist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from foveasim import main

    code = code_parts(readme())
    commands = set(re.findall(r"(?:^|[\s/])foveasim ([a-z][\w-]*)", code))
    assert "watch" in commands
    for command in sorted(commands):
        monkeypatch.setattr(sys, "argv", ["foveasim", command, "--help"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code in (0, None), f"README names 'foveasim {command}': {capsys.readouterr().err}"


def test_documents_name_dev_commands_that_exist() -> None:
    script = (ROOT / "dev").read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        named = set(re.findall(r"\./dev ([a-z]+)", code_parts(path.read_text(encoding="utf-8"))))
        assert named, path.name
        assert not [command for command in named if f"\n./dev {command}" not in script], path.name


def test_citation_names_the_paper() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    assert "2404.08526" in paper["url"]
    assert [author["family-names"] for author in paper["authors"]] == ["Weiler", "Brucklacher", "Pennartz", "Bohté"]
    assert citation["version"] == version("foveasim")


def test_link_check_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A heading\n[a](page.md) [b](#a-heading) [c](https://example.org) [d](gone.md) [e](page.md#gone)\n"
    page.write_text(text + '<img src="gone.gif">\n```\n[x](in-code.md)\n```\n', encoding="utf-8")
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == ["gone.md", "page.md#gone", "gone.gif"]


def test_python_blocks_are_found() -> None:
    assert python_blocks("a\n```python\nx = 1\n```\n```sh\nls\n```\n") == [(2, "x = 1\n")]
