"""YAML as this package reads and writes it: the core schema of YAML 1.2, without surprises.

PyYAML reads YAML 1.1, in which ``no`` is false, ``12:30`` is 750, ``1_0`` is 10, ``010`` is 8 and ``1e3`` is text. Here
only ``true`` and ``false`` are booleans and only what looks like a number is one. Digits after a leading zero stay
text, since they name something, as ``007`` a subject and ``000000000012`` an image of COCO; in this alone it departs
from YAML 1.2, which reads 7 and 12. What is quoted stays text.

Reference: YAML 1.2.2 (2021), section 10.3.2, https://yaml.org/spec/1.2.2/#1032-tag-resolution
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

__all__ = ["dump_yaml", "load_yaml"]

_MAX_PARTS, _MAX_DEPTH, _MAX_DIGITS = 100_000, 100, 300  # digits: what a float can hold, and Python can print

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, dict[str, bool | None]] = {
    "null": dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    "bool": {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False},
}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_MISREAD = re.compile(
    r"[-+]?\.?[0-9][-+0-9a-fA-FoOxX_:.,]*|[-+]?\.?(?:inf|nan)|y|n|yes|no|on|off|true|false|null|~|<<|=|", re.IGNORECASE
)
"""Text that some reader of YAML takes for something else."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Makes plain values only, and counts them before it makes them.

    It is PyYAML's slow loader: its C loader calls itself at each bracket and would end the process.
    """

    yaml_implicit_resolvers: ClassVar[Any] = {}
    yaml_constructors: ClassVar[Any] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._parts, self._depth = 0, 0
        self._parts_of: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node.

        Raises:
            YAMLError: Nested too deep, or aliases of aliases make too many parts.
        """
        event: Any = self.peek_event()
        before = self._parts
        if isinstance(event, yaml.AliasEvent):  # one of itself, which is not whole yet, never ends
            self._parts += self._parts_of.get(event.anchor, _MAX_PARTS) if event.anchor in self.anchors else 1
        else:
            self._parts += 1
        if self._parts > _MAX_PARTS:
            raise yaml.YAMLError(f"it has more than {_MAX_PARTS:,} parts")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._parts_of[event.anchor] = self._parts - before
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merge keys.

        Raises:
            YAMLError: There is one.
        """
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                problem = "merge keys (<<) are not read; write out what it has"
                raise ConstructorError(None, None, problem, key.start_mark)

    def read_scalar(self, node: yaml.Node) -> Any:
        """Return the null, boolean or number that a node is.

        Raises:
            YAMLError: Its tag says that it is one, as in ``!!int x``, and it is none; or the number is too long.
        """
        kind, text = node.tag.removeprefix(_TAG), str(self.construct_scalar(node))
        if kind in _WORDS and text in _WORDS[kind]:
            return _WORDS[kind][text]
        if kind in ("int", "float") and len(text) > _MAX_DIGITS:
            raise ConstructorError(None, None, f"a number has more than {_MAX_DIGITS} digits", node.start_mark)
        if kind == "int" and _INT.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float" and _FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1) if text[-1] in "fFnN" else text)
        raise ConstructorError(None, None, f"{text!r} is no {kind}", node.start_mark)


for _kind, _pattern, _first in (
    ("null", re.compile("(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(f"(?:{_INT.pattern})$"), list("-+0123456789")),
    ("float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789")),
    ("merge", re.compile("<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", _pattern, _first)
for _kind in ("null", "bool", "int", "float"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _Loader.read_scalar)
_Loader.add_constructor(f"{_TAG}str", _Loader.construct_yaml_str)
_Loader.add_constructor(f"{_TAG}seq", _Loader.construct_yaml_seq)
_Loader.add_constructor(f"{_TAG}map", _Loader.construct_yaml_map)
_Loader.add_constructor(None, _Loader.construct_undefined)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes what this reader, or one of YAML 1.1, would take for something other than text."""

    def represent_text(self, text: str) -> yaml.Node:
        """Return the node of a text."""
        style = '"' if not text.isprintable() else "'" if _MISREAD.fullmatch(text) else None
        return self.represent_scalar(f"{_TAG}str", str(text), style)


_Dumper.add_multi_representer(str, _Dumper.represent_text)
_Dumper.add_representer(str, _Dumper.represent_text)


def load_yaml(text: str) -> Any:
    """Read a document: dicts, lists, text, numbers, booleans and None; nothing for an empty one.

    Raises:
        YAMLError: It is no YAML, has a tag of another kind or a merge key, is nested more than 100 deep, or has more
            than 100,000 parts, those counted again that an alias repeats.

    Example:
        >>> load_yaml("{subject: 007, name: no, time: 12:30, lr: 1e-4, steps: 10}")
        {'subject': '007', 'name': 'no', 'time': '12:30', 'lr': 0.0001, 'steps': 10}
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def dump_yaml(value: Any) -> str:
    """Write a value so that :func:`load_yaml`, and readers of YAML 1.1, find the same text, in the same order.

    Example:
        >>> print(dump_yaml({"subject": "007", "name": "no", "out": "runs/a"}), end="")
        subject: '007'
        name: 'no'
        out: runs/a
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text
