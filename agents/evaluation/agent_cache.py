"""What a long comparison keeps of every agent that is done, so that a run that was killed can go on with the others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from foveasim.agents.mim.weights_file import read_tensors, write_tensors
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.runs.outputs import UNFINISHED

__all__ = ["KeptFiles", "kept_in"]


class KeptFiles:
    """One file for each agent that is done, in a folder of their own.

    Args:
        out: Of the comparison; they lie in ``.unfinished`` below it.
        identity: Digest of all that the numbers depend on.
        differs: What differs in a comparison with another identity, for people: "other scenes or other options".
    """

    def __init__(self, out: Path, identity: str, differs: str) -> None:
        self.folder = kept_in(out)
        self._identity, self._differs = identity, differs

    def take(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what an agent left in the run that goes on, None where it was not done.

        Raises:
            InvalidValueError: The run was another one.
        """
        path = self._path(name)
        try:
            tensors, metadata = read_tensors(path)
            told = json.loads(metadata["told"])
        except (WeightsError, KeyError, ValueError):
            return None
        if told["identity"] != self._identity:
            raise InvalidValueError(
                f"{path.parent.parent} holds a comparison of {self._differs}. Give those of that one to go on with it, "
                "or --overwrite to begin anew."
            )
        return tensors, told

    def keep(self, name: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Write down what an agent leaves.

        Args:
            name: Of the agent, and of what it was named by.
            tensors: Arrays by name.
            told: Anything else that JSON can hold.

        Raises:
            WeightsError: It cannot be written.
        """
        write_tensors(self._path(name), tensors, {"told": json.dumps({**told, "identity": self._identity})})

    def forget(self) -> None:
        """Remove everything that was kept."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def kept_in(out: Path) -> Path:
    """Return where a comparison keeps the agents that are done, until it is."""
    return out / UNFINISHED
