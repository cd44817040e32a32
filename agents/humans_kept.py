"""What a comparison with people keeps of every agent that is done, so that a run that was killed can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveasim import __version__
from foveasim.agents.compare_looks import Entry
from foveasim.agents.humans_data import People
from foveasim.agents.humans_looks import Viewing, scanpath_of
from foveasim.agents.kept import KeptFiles

__all__ = ["KeptViewings"]


class KeptViewings:
    """The agents of a comparison with people that are done.

    Args:
        out: Folder of the comparison.
        options: Of the comparison, all that scanpaths depend on; anything that JSON can hold.
        people: Who is compared with.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], people: People) -> None:
        self._people = people
        facts = [__version__, dict(options), list(people.name), list(people.size), people.px_per_deg]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        digest.update(np.ascontiguousarray(people.image).data)
        for path in (*(path for group in people.paths for path in group), *people.training):
            # As float32, whose digest runs of 0.1 wrote down
            digest.update(path.fixation_px.numpy().tobytes() + path.duration_ms.numpy().astype(np.float32).tobytes())
        self._files = KeptFiles(out, digest.hexdigest(), "other people or other options")

    def take(self, entry: Entry) -> Viewing | None:
        """Return what an agent did in the run that goes on, None where it was not done.

        Raises:
            InvalidValueError: The run was another one.
        """
        found = self._files.take(f"{entry.label}={entry.spec}")
        if found is None:
            return None
        tensors, told = found
        count, lengths = tensors["counts"].shape[1], tensors["counts"].flatten().tolist()
        points, durations = (torch.split(tensors[name], lengths) for name in ("fixation_px", "duration_ms"))
        paths = [
            scanpath_of(point, duration, self._people.name[i // count], f"{i % count}")
            for i, (point, duration) in enumerate(zip(points, durations, strict=True))
        ]
        grouped = tuple(tuple(paths[i : i + count]) for i in range(0, len(paths), count))
        conditional = tensors["conditional"].numpy() if "conditional" in tensors else None
        return Viewing(entry.label, entry.spec, told["privileged"], told["own_durations"], grouped, conditional)

    def keep(self, viewing: Viewing) -> None:
        """Write down what an agent did.

        Raises:
            WeightsError: It cannot be written.
        """
        every = [path for group in viewing.paths for path in group]
        tensors = {
            "counts": torch.tensor([[len(path) for path in group] for group in viewing.paths]),
            "fixation_px": torch.cat([path.fixation_px for path in every]),
            "duration_ms": torch.cat([path.duration_ms for path in every]),
        }
        if viewing.conditional is not None:
            tensors["conditional"] = torch.from_numpy(viewing.conditional)
        told = {"privileged": viewing.privileged, "own_durations": viewing.own_durations}
        self._files.keep(f"{viewing.label}={viewing.spec}", tensors, told)

    def forget(self) -> None:
        """Remove everything that was kept."""
        self._files.forget()
