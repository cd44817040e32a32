"""Names to objects: suggestions for a slip, paths, other packages' entry points, and arguments that do not fit."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from foveasim import registry
from foveasim.errors import FoveasimError, InvalidTypeError, SceneError, UnknownNameError
from foveasim.registry import Registry, load_object

GROUP = "foveasim.test_letters"
USERS_MODULE = """
class Omega:
    def __init__(self, size=1):
        self.size = size

class Box:
    Inner = Omega

NUMBER = 5
"""


class Letter:
    """What the registry of these tests makes."""

    def __init__(self, size: int = 1, bold: bool = False) -> None:
        self.size = size
        self.bold = bold


@pytest.fixture
def letters() -> Registry[Letter]:
    """A registry of three letters."""
    made: Registry[Letter] = Registry("letter", group=GROUP)
    for name in ("alpha", "beta", "gamma"):
        made.add(name, Letter)
    return made


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's module beside the script, importable by name."""
    name = "a_users_letters"
    (tmp_path / f"{name}.py").write_text(USERS_MODULE)
    (tmp_path / "needs_what_is_missing.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def plugin(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another installed package that announces a letter, and one that takes a built-in's name."""

    def installed(*, group: str) -> EntryPoints:
        points = [EntryPoint("omega", f"{module}:Omega", GROUP), EntryPoint("alpha", f"{module}:Omega", GROUP)]
        return EntryPoints(points).select(group=group)

    monkeypatch.setattr(registry, "entry_points", installed)


def test_make_passes_the_arguments(letters: Registry[Letter]) -> None:
    made = letters.make("beta", size=3, bold=True)
    assert (made.size, made.bold) == (3, True)
    assert letters.make("beta") is not letters.make("beta")


def test_names_come_in_the_order_of_registration(letters: Registry[Letter]) -> None:
    assert letters.names() == list(letters) == ["alpha", "beta", "gamma"]
    assert "beta" in letters
    assert "delta" not in letters
    assert 3 not in letters


@pytest.mark.parametrize(
    ("slip", "meant"), [("alfa", "alpha"), ("Beta", "beta"), ("gama", "gamma"), ("alpha ", "alpha")]
)
def test_a_slip_gets_a_suggestion_and_the_choices(letters: Registry[Letter], slip: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        letters.make(slip)
    message = str(raised.value)
    assert f"unknown letter {slip!r}. Did you mean {meant!r}?" in message
    assert "Choose from alpha, beta, gamma" in message
    assert "'package.module:Class'" in message


def test_what_resembles_nothing_gets_no_suggestion(letters: Registry[Letter]) -> None:
    with pytest.raises(UnknownNameError) as raised:
        letters.factory("zzzzzz")
    assert "Did you mean" not in str(raised.value)


def test_a_name_is_given_once(letters: Registry[Letter]) -> None:
    with pytest.raises(UnknownNameError, match="letter 'alpha' is already registered; choose another name"):
        letters.add("alpha", Letter)


def test_the_decorator_registers_and_returns_the_class(letters: Registry[Letter]) -> None:
    class Delta(Letter):
        """A fourth letter."""

    assert letters.register("delta")(Delta) is Delta
    assert type(letters.make("delta")) is Delta


@pytest.mark.parametrize("arguments", [{"colour": "red"}, {"size": 1, "wieght": 2}])
def test_arguments_that_do_not_fit_name_those_that_do(letters: Registry[Letter], arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidTypeError) as raised:
        letters.make("alpha", **arguments)
    message = str(raised.value)
    assert message.startswith("letter 'alpha': got an unexpected keyword argument")
    assert "It takes alpha(size: int = 1, bold: bool = False)" in message.replace("'", "")


def test_a_missing_argument_is_named() -> None:
    def need(size: int) -> Letter:
        return Letter(size)

    made: Registry[Letter] = Registry("letter")
    made.add("needy", need)
    with pytest.raises(InvalidTypeError, match="missing a required argument: 'size'"):
        made.make("needy")


def test_an_error_inside_a_factory_is_left_as_it_is() -> None:
    def broken() -> Letter:
        raise TypeError("from inside")

    made: Registry[Letter] = Registry("letter")
    made.add("broken", broken)
    with pytest.raises(TypeError, match=r"^from inside$") as raised:
        made.make("broken")
    assert not isinstance(raised.value, InvalidTypeError)


def test_a_path_is_imported_when_it_is_needed(module: str) -> None:
    made: Registry[Letter] = Registry("letter")
    made.add("omega", f"{module}:Omega")
    assert module not in sys.modules
    assert made.names() == ["omega"]
    assert module not in sys.modules
    assert made.make("omega", size=4).size == 4


def test_a_users_class_is_named_by_its_path(letters: Registry[Letter], module: str) -> None:
    assert letters.make(f"{module}:Omega", size=2).size == 2
    assert letters.make(f"{module}:Box.Inner").size == 1


def test_a_path_to_something_else_is_refused(letters: Registry[Letter], module: str) -> None:
    with pytest.raises(InvalidTypeError, match="must name a class or a function that makes a letter; got 5"):
        letters.make(f"{module}:NUMBER")


def test_a_slip_in_the_class_name_gets_a_suggestion(module: str) -> None:
    with pytest.raises(UnknownNameError, match=f"'{module}' has no 'Omgea'. Did you mean 'Omega'?"):
        load_object(f"{module}:Omgea")


def test_a_missing_module_says_what_to_do() -> None:
    with pytest.raises(UnknownNameError, match=r"no module named 'not_there_at_all'.*pip install -e"):
        load_object("not_there_at_all:Class")


def test_a_missing_module_inside_a_package_is_not_found(module: str) -> None:
    with pytest.raises(UnknownNameError, match=r"no module named 'email.not_there'.*Run from the folder"):
        load_object("email.not_there:Class")


def test_a_module_that_imports_what_is_missing_names_both_and_the_line(module: str) -> None:
    with pytest.raises(FoveasimError) as raised:
        load_object("needs_what_is_missing:Class")
    message = str(raised.value)
    assert "'needs_what_is_missing'" in message and "it imports 'a_package_that_is_not_there'" in message
    assert "needs_what_is_missing.py, line 1)" in message and "Install 'a_package_that_is_not_there'" in message
    assert "Run from the folder" not in message
    assert not isinstance(raised.value, UnknownNameError)
    assert isinstance(raised.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("source", "expected", "line", "cause"),
    [
        ("x = 1\ndef f(:\n    pass\n", "SyntaxError: invalid syntax", 2, SyntaxError),
        ("\n\nfrom math import tua\n", "ImportError: cannot import name 'tua'", 3, ImportError),
        ("x = 1\n\ny = x / 0\n", "ZeroDivisionError: division by zero", 3, ZeroDivisionError),
        ("import json\njson.loads('{')\n", "JSONDecodeError", 2, ValueError),  # raised inside the standard library
        ("import sys\nsys.exit(3)\n", "SystemExit: 3", 2, SystemExit),
        ("class Quiet(Exception): ...\nraise Quiet\n", "Quiet (", 2, Exception),
    ],
)
def test_a_module_that_cannot_be_imported_says_what_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str, line: int, cause: type[BaseException]
) -> None:
    (tmp_path / "broken_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    made: Registry[Letter] = Registry("letter", failure=InvalidTypeError)
    with pytest.raises(InvalidTypeError) as raised:
        made.make("broken_at_import:Class")
    message = str(raised.value)
    assert message.startswith("cannot import 'broken_at_import' of 'broken_at_import:Class': ")
    assert (
        expected in message and f"broken_at_import.py, line {line})" in message and "Mend what raises there" in message
    )
    assert isinstance(raised.value.__cause__, cause)
    with pytest.raises(FoveasimError) as raised_plainly:
        load_object("broken_at_import:Class")
    assert type(raised_plainly.value) is FoveasimError


def test_an_error_of_ours_at_import_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refuses_at_import.py").write_text(
        "from foveasim.errors import SceneError\nraise SceneError('no pictures')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SceneError, match=r"^no pictures$"):
        load_object("refuses_at_import:Class")


@pytest.mark.parametrize("path", [":B", "a_module:", "", ":", ".a:B", "a..b:C", "a_module:B."])
def test_a_path_with_an_empty_part_is_refused(path: str) -> None:
    with pytest.raises(UnknownNameError, match=r"write 'package\.module:Name'"):
        load_object(path)


@pytest.mark.usefixtures("plugin")
def test_other_packages_are_listed_and_made(letters: Registry[Letter]) -> None:
    assert letters.names() == ["alpha", "beta", "gamma", "omega"]
    assert "omega" in letters
    assert letters.make("omega", size=5).size == 5
    with pytest.raises(UnknownNameError, match="Did you mean 'omega'"):
        letters.make("omeega")


@pytest.mark.usefixtures("plugin")
def test_another_package_cannot_take_the_place_of_a_built_in(letters: Registry[Letter]) -> None:
    assert type(letters.make("alpha")) is Letter


@pytest.mark.usefixtures("plugin")
def test_a_registry_without_a_group_takes_no_plugins() -> None:
    made: Registry[Letter] = Registry("letter")
    assert made.names() == []
