"""The results of the agents that are done, on disk, so that a comparison that was killed goes on with the others."""

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

__all__ = ["AgentCache", "cache_folder"]


class AgentCache:
    """Results of the agents that are done: one file for each, in a folder of their own.

    Args:
        out: Of the comparison; they lie in ``.unfinished`` below it.
        identity: Digest of all that the numbers depend on.
        differs: What differs in a comparison with another identity, for people: "other scenes or other options".
    """

    def __init__(self, out: Path, identity: str, differs: str) -> None:
        self.folder = cache_folder(out)
        self._identity, self._differs = identity, differs

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was saved of an agent, None where it was not done.

        Raises:
            InvalidValueError: It was saved by another comparison.
        """
        path = self._path(name)
        try:
            tensors, header = read_tensors(path)
            metadata = json.loads(header["told"])
        except (WeightsError, KeyError, ValueError):
            return None
        if metadata["identity"] != self._identity:
            raise InvalidValueError(
                f"{path.parent.parent} holds a comparison of {self._differs}. Give those of that one to go on with it, "
                "or --overwrite to begin anew."
            )
        return tensors, metadata

    def save(self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Save the results of an agent.

        Args:
            name: Of the agent, and of what it was named by.
            tensors: Arrays by name.
            metadata: Anything else that JSON can hold.

        Raises:
            WeightsError: It cannot be written.
        """
        write_tensors(self._path(name), tensors, {"told": json.dumps({**metadata, "identity": self._identity})})

    def clear(self) -> None:
        """Remove everything that was saved."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def cache_folder(out: Path) -> Path:
    """Return the folder in which a comparison caches the agents that are done, until all are."""
    return out / UNFINISHED
