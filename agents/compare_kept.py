"""What a comparison keeps of every agent that is done, so that a run that was killed can go on with the others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import __version__
from foveasim.agents.compare_judge import Scenes
from foveasim.agents.compare_looks import Entry, Looked, Moment
from foveasim.agents.compare_measures import NUMBERS
from foveasim.agents.mim.files import read_tensors, write_tensors
from foveasim.agents.mim.network import MimNetwork
from foveasim.errors import InvalidValueError, WeightsError

__all__ = ["Kept", "kept_in"]

_PICTURES = ("glimpse", "belief", "prediction", "std")


class Kept:
    """The agents of a comparison that are done, in a folder of their own.

    Args:
        out: Of the comparison; they lie in ``.unfinished`` below it.
        options: Of the comparison, all that its numbers depend on; anything that JSON can hold.
        scenes: What is looked at.
        network: Who judges.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], scenes: Scenes, network: MimNetwork) -> None:
        self.folder = kept_in(out)
        digest = hashlib.sha256(json.dumps([__version__, dict(options), list(scenes.name)], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(scenes.image).data)
        for name, value in network.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        self._identity = digest.hexdigest()

    def take(self, entry: Entry) -> Looked | None:
        """Return what an agent did in the run that goes on, None where it was not done.

        Raises:
            InvalidValueError: The run was another one.
        """
        path = self._path(entry)
        try:
            tensors, metadata = read_tensors(path)
            told = json.loads(metadata["told"])
        except (WeightsError, KeyError, ValueError):
            return None
        if told["identity"] != self._identity:
            raise InvalidValueError(
                f"{path.parent.parent} holds a comparison of other scenes, another network or other options. Give "
                "those of that one to go on with it, or --overwrite to begin anew."
            )
        arrays = {name: value.numpy() for name, value in tensors.items()}
        moments: dict[int, list[Moment]] = {int(scene): [] for scene in told["moments"]}
        for scene, rows in told["moments"].items():
            for place, (x, y, numbers) in enumerate(rows):
                pictures: dict[str, Any] = {name: arrays.get(f"{scene} {place} {name}") for name in _PICTURES}
                moments[int(scene)].append(Moment(fixation_px=(x, y), numbers=numbers, **pictures))
        return Looked(
            entry.label,
            entry.spec,
            told["privileged"],
            {name: arrays[f"number {name}"] for name in NUMBERS},
            arrays["fixation_px"],
            arrays["amplitude_deg"],
            told["act_ms"],
            told["lanes"],
            moments,
        )

    def keep(self, looked: Looked) -> None:
        """Write down what an agent did.

        Raises:
            WeightsError: It cannot be written.
        """
        tensors: dict[str, Tensor] = {
            **{f"number {name}": _tensor(values) for name, values in looked.numbers.items()},
            "fixation_px": _tensor(looked.fixation_px),
            "amplitude_deg": _tensor(looked.amplitude_deg),
        }
        for scene, rows in looked.moments.items():
            for place, moment in enumerate(rows):
                for name in _PICTURES:
                    if (picture := getattr(moment, name)) is not None:
                        tensors[f"{scene} {place} {name}"] = _tensor(picture)
        told = {
            "identity": self._identity,
            "privileged": looked.privileged,
            "act_ms": looked.act_ms,
            "lanes": looked.lanes,
            "moments": {
                scene: [(*moment.fixation_px, dict(moment.numbers)) for moment in rows]
                for scene, rows in looked.moments.items()
            },
        }
        write_tensors(self._path(looked), tensors, {"told": json.dumps(told)})

    def forget(self) -> None:
        """Remove everything that was kept."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _path(self, entry: Entry | Looked) -> Path:
        name = hashlib.sha256(f"{entry.label}={entry.spec}".encode()).hexdigest()[:16]
        return self.folder / f"{name}.safetensors"


def kept_in(out: Path) -> Path:
    """Return where a comparison keeps the agents that are done, until it is."""
    return out / ".unfinished"


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
