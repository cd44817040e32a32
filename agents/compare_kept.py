"""What a comparison keeps of every agent that is done, so that a run that was killed can go on with the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import __version__
from foveasim.agents.evaluation.agent_cache import KeptFiles
from foveasim.agents.evaluation.judge import Scenes
from foveasim.agents.evaluation.measures import NUMBERS
from foveasim.agents.evaluation.scene_runner import Entry, Looked, Moment
from foveasim.agents.mim.network import MimNetwork

__all__ = ["Kept"]

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
        digest = hashlib.sha256(json.dumps([__version__, dict(options), list(scenes.name)], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(scenes.image).data)
        for name, value in network.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        self._files = KeptFiles(out, digest.hexdigest(), "other scenes, another network or other options")

    def take(self, entry: Entry) -> Looked | None:
        """Return what an agent did in the run that goes on, None where it was not done.

        Raises:
            InvalidValueError: The run was another one.
        """
        found = self._files.take(_name(entry))
        if found is None:
            return None
        tensors, told = found
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
            "privileged": looked.privileged,
            "act_ms": looked.act_ms,
            "lanes": looked.lanes,
            "moments": {
                scene: [(*moment.fixation_px, dict(moment.numbers)) for moment in rows]
                for scene, rows in looked.moments.items()
            },
        }
        self._files.keep(_name(looked), tensors, told)

    def forget(self) -> None:
        """Remove everything that was kept."""
        self._files.forget()


def _name(entry: Entry | Looked) -> str:
    return f"{entry.label}={entry.spec}"


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
