"""Presets that ship: named YAML files of options, in the folder ``presets`` of the package whose command they serve."""

from __future__ import annotations

import difflib
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from foveasim.errors import InvalidTypeError, UnknownNameError

__all__ = ["Presets"]


class Presets:
    """The presets of one command.

    Args:
        package: Whose folder ``presets`` holds them.
        config: The dataclass whose fields they set.

    Example:
        >>> from foveasim.agents.rl.config import PRESETS
        >>> PRESETS.values("search")["task"]
        'search'
    """

    def __init__(self, package: str, config: type[Any]) -> None:
        self.folder = Path(str(files(package) / "presets"))
        self._options = {field.name for field in fields(config)}

    def names(self) -> list[str]:
        """Return their names: paths in the folder without the ending, such as ``ppo`` or ``paper/periphery``."""
        return sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.yaml"))

    def file(self, name: str) -> Path:
        """Return the YAML file of one.

        Raises:
            UnknownNameError: There is none of that name; the message lists them.
        """
        names = self.names()
        if name not in names:
            near = difflib.get_close_matches(name, names, 1) or [one for one in names if one.endswith(f"/{name}")]
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"there is no preset {name!r}.{hint} There are {', '.join(names)}.")
        return self.folder / f"{name}.yaml"

    def values(self, name: str) -> dict[str, Any]:
        """Return what one sets, for ``Config(**values, data=[…])``; lists stay lists.

        Raises:
            UnknownNameError: There is none of that name.
            InvalidTypeError: It sets an option that there is not.
        """
        from foveasim.yaml_core import load_yaml

        path = self.file(name)
        values: dict[str, Any] = load_yaml(path.read_text(encoding="utf-8"))
        unknown = sorted(values.keys() - self._options)
        if unknown:
            raise InvalidTypeError(f"{path}: there is no option {unknown[0]!r}.")
        return values
