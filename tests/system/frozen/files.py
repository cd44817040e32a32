"""What is read out of files: those that ship, and small ones of every kind that were recorded."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foveasim.agents.contract.observations import make_synthetic_observations
from foveasim.agents.gaze_policy.policy_files import Policy, load_policy, shipped_policy
from foveasim.agents.loading import make_agent
from foveasim.agents.mim.belief_readout import load_belief_readout
from foveasim.agents.mim.weights_file import load_network, read_card, read_dtype, read_tensors, shipped_networks
from foveasim.agents.readout.probe import LinearProbe
from foveasim.agents.scanpath_model.agent import load_scanpath
from foveasim.bench.table import Report
from foveasim.envs.tasks.classify import ClassifyEnv
from foveasim.images.object_masks import read_mask
from foveasim.recording.episode import read_episode
from foveasim.recording.replay import replay_episode
from foveasim.scanpath.readers import read_mit1003, read_osie_mat
from foveasim.scanpath.scanpath import Scanpath, read_csv
from foveasim.scanpath.trackers.reading import read_scanpaths
from frozen.digest import close, digest, here, json_digest, numbers
from frozen.paths import RECORDED
from frozen.record import COMPARE, HUMANS, PRETRAIN, TRAIN, command

__all__ = [
    "comparisons",
    "episodes",
    "networks",
    "others",
    "people",
    "policies",
    "pretraining",
    "readouts",
    "scanpaths",
    "shipped",
    "training",
]


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """Work in a copy of the recorded files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "baseline"
        shutil.copytree(RECORDED, folder)
        with contextlib.chdir(folder):
            yield folder


def _state(module: torch.nn.Module) -> str:
    return digest(dict(sorted(module.state_dict().items())))


def _network(path: str | Path) -> dict[str, Any]:
    network = load_network(path)
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    image = torch.from_numpy(np.stack((rows / 64, columns / 96, 0.5 + 0.5 * np.sin(rows / 5)))[None])
    acuity = torch.from_numpy(((rows - 30) ** 2 + (columns - 40) ** 2 < 400).astype(np.float32))[None, None]
    with torch.inference_mode():
        made = [one for one in network(image * acuity, acuity) if one is not None]
    return {
        "name": network.name,
        "config": network.config_dict(),
        "dtype": read_dtype(path),
        "card": {"keys": list(read_card(path)), "content": json_digest(read_card(path))},
        "parameters": _state(network),
        "output": [numbers(one, 2e-3) for one in made],
        "output to the bit": here(made),
    }


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "task": policy.task,
        "network": policy.network,
        "fingerprint": policy.fingerprint,
        "readout": policy.readout,
        "actor": json_digest(asdict(policy.actor.config)),
        "features": {"of": type(policy.features).__name__, **asdict(policy.features)},
        "card": {"keys": list(policy.card), "content": json_digest(policy.card)},
        "parameters": _state(policy.actor),
    }


def shipped() -> dict[str, Any]:
    """Return what the files that ship hold."""
    found: dict[str, Any] = {f"network {name}": _network(name) for name in shipped_networks()}
    found |= {f"policy {name}": _policy(shipped_policy(name)) for name in ("gaze", "search")}
    fitted = load_scanpath(None)
    found["scanpath"] = {
        "network": _state(fitted.network),
        "tables": digest(fitted.tables),
        "manners": {name: digest(parameters) for name, parameters in fitted.sampling.items()},
    }
    return found


def networks() -> dict[str, Any]:
    """Return what recorded networks hold and predict."""
    names = ("lean", "unet", "vit", "calibrated")
    found = {name: _network(RECORDED / "networks" / f"{name}.safetensors") for name in names}
    return found | {"pretrained": _network(RECORDED / "pretrain" / "vit.safetensors")}


def policies() -> dict[str, Any]:
    """Return what recorded policies hold, and what one does."""
    found = {name: _policy(load_policy(RECORDED / "train" / f"{name}.safetensors")) for name in ("policy", "last")}
    with copied():
        agent = make_agent("train/policy.safetensors", seed=1)
        (observation,) = make_synthetic_observations(3, 1, size=(48, 48), needs=("belief",))
        agent.reset(np.ones(3, np.bool_))
        action = agent.act(observation)
    found["acts"] = {"about": close(action, 1e-3), "to the bit": here(action)}
    return found


def readouts() -> dict[str, Any]:
    """Return what readouts on belief say, and what ``foveasim readout`` wrote."""
    found: dict[str, Any] = {}
    image = np.stack([one["belief"] for one in make_synthetic_observations(2, 1, size=(48, 48), needs=("belief",))])[0]
    acuity = make_synthetic_observations(2, 1, size=(48, 48), needs=("belief",))[0]["belief_acuity"][..., 0]
    with copied():
        for probe in ("ridge", "conv"):
            readout = load_belief_readout(f"networks/beliefs_{probe}.safetensors")
            with torch.inference_mode():
                said = readout(torch.from_numpy(image), torch.from_numpy(acuity))
            inner = readout.probe
            found[probe] = {
                "classes": list(readout.classes),
                "size": list(readout.size),
                "source": readout.source,
                "temperature": close([readout.temperature], 1e-6),
                "card": json_digest(readout.card),
                "parameters": digest(inner.weight, inner.bias) if isinstance(inner, LinearProbe) else _state(inner),
                "says": close(said, 1e-3),
                "says to the bit": here(said),
            }
        env = ClassifyEnv(
            scenes="labelled/val",
            readout="networks/beliefs_ridge.safetensors",
            size=(48, 48),
            retina_options={"hidden_ratio": 0.8},
        )
        observation, info = env.reset(seed=2)
        found["in an env"] = {"posterior": close(observation["posterior"], 1e-3), "label": info["label"]}
    whole = json.loads((RECORDED / "readout" / "readout.json").read_text())
    found["command"] = {"keys": list(whole), "content": json_digest(whole)}
    return found


def _tensors(path: str) -> dict[str, Any]:
    tensors, about = read_tensors(path)
    kept = dict(sorted(tensors.items()))
    values = [[float(one.double().mean()), float(one.double().square().mean().sqrt())] for one in kept.values()]
    return {"names": list(kept), "about": sorted(about), "values": close(values, 5e-3), "exact": here(kept)}


def pretraining() -> dict[str, Any]:
    """Return what two more steps from a checkpoint lead to; it had made 4."""
    with copied():
        said = command(*PRETRAIN, "--steps=6", "--resume")
        found = {
            "network": _tensors("pretrain/vit.safetensors"),
            "checkpoint": _tensors("pretrain/checkpoint.safetensors"),
        }
        counters = json.loads(read_tensors("pretrain/checkpoint.safetensors")[1]["counters"])
        found["counters"] = {name: counters[name] for name in ("step", "images")}
        found["changed"] = [line.strip() for line in said.splitlines() if "other than" in line]
    return found


def training() -> dict[str, Any]:
    """Return what 16 more saccades from a checkpoint of 32 lead to."""
    with copied():
        said = command(*TRAIN, "--steps=48", "--resume")
        found: dict[str, Any] = {name: _tensors(f"train/{name}.safetensors") for name in ("last", "checkpoint")}
        history = json.loads(Path("train/train.json").read_text())
        found["history"] = {key: [row["steps"] for row in history[key]] for key in ("training", "validation")}
        found["errors"] = close([row["error"] for row in history["validation"]], 1e-3)
        found["goes on"] = [line.strip() for line in said.splitlines() if "going on" in line or "other than" in line]
    return found


def episodes() -> dict[str, Any]:
    """Return whether recorded episodes are the same to the bit when they are played again."""
    found = {}
    with copied():
        for path in sorted(Path("episodes").glob("*.json")):
            episode = read_episode(path)
            outcome = replay_episode(episode)
            where = "" if outcome.same else f", differs from step {outcome.first} in {', '.join(outcome.parts)}"
            found[path.name] = {
                "kind": episode.kind,
                "made": json_digest(episode.made),
                "steps": digest(episode.steps),
                "again": f"{outcome.steps} steps{where}",
            }
    return found


_PASSING = ("versions", "config", "act_ms")
"""Of a comparison, what is not its result."""


def _content(path: str) -> dict[str, Any]:
    """Return the numbers and the names in a JSON file, the former within a tolerance."""
    flat: list[float | None] = []

    def form(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: form(one) for key, one in value.items() if key not in _PASSING}
        if isinstance(value, list):
            return [form(one) for one in value]
        if isinstance(value, float):
            flat.append(value)
            return "number"
        return value

    content = json.loads(Path(path).read_text(encoding="utf-8"))
    about = form(content)
    measured = np.array(flat, np.float64)
    place = np.linspace(0, len(measured) - 1, 40).astype(int)
    return {
        "keys": list(content),
        "form": json_digest(about),
        "numbers": len(measured),
        "some": close([measured.mean(), measured.std(), *measured[place]], 2e-3),
        "exact": here(measured),
        "config": {key: repr(value) for key, value in content["config"].items()},
    }


def _goes_on(words: tuple[str, ...], result: str) -> dict[str, Any]:
    """Return a recorded comparison, and the same when it goes on from the agents that were kept."""
    with copied():
        then = _content(result)
        Path(result).unlink()
        said = command(*words, "--resume")
        now = _content(result)
        done = [line.split()[0] for line in said.splitlines() if "was done before" in line]
        tables = {path.name: digest(path.read_bytes()) for path in sorted(Path(result).parent.glob("*.csv"))}
        kept = {path.name: digest(path.read_bytes()) for path in sorted((RECORDED / result).parent.glob("*.csv"))}
    then["config"].pop("resume")
    now["config"].pop("resume")
    return {"recorded": then, "again": now, "kept": done, "tables": {"recorded": kept, "again": {"all": here(tables)}}}


def comparisons() -> dict[str, Any]:
    """Return a comparison of agents and how it goes on."""
    return _goes_on(COMPARE, "compare/compare.json")


def people() -> dict[str, Any]:
    """Return a comparison with people and how it goes on."""
    return _goes_on(HUMANS, "humans/humans.json")


def _paths(paths: list[Scanpath]) -> dict[str, Any]:
    return {
        "of": [f"{one.image} {one.subject} {len(one)}" for one in paths][:12],
        "exact": digest([[one.fixation_px, one.onset_ms, one.duration_ms, one.image, one.subject] for one in paths]),
    }


def scanpaths() -> dict[str, Any]:
    """Return the scanpaths that are read of tables in all forms, and of Matlab files."""
    folder = RECORDED / "scanpaths"
    files = [
        *sorted(folder.glob("own*.csv")),
        RECORDED / "people" / "fixations.csv",
        RECORDED / "humans" / "scanpaths.csv",
    ]
    found: dict[str, Any] = {path.name: _paths(read_csv(path)) for path in files}
    named = {"image": "image", "subject": "subject", "x": "x", "y": "y"}
    lasting = {**named, "duration": "duration_ms"}
    found["duration.csv"] = _paths(read_scanpaths(folder / "duration.csv", columns=lasting))
    screen = {"image": "pic", "subject": "who", "x": "FPOGX", "y": "FPOGY", "onset": "t0 [s]", "end": "t1 [s]"}
    found["onset_end.tsv"] = _paths(
        read_scanpaths(folder / "onset_end.tsv", columns=screen, origin_px=(2.0, 3.0), image_size=(600, 800))
    )
    degrees: dict[str, Any] = {"units": "deg", "deg_origin_px": (400.0, 300.0), "px_per_deg": 24.0, "y_up": True}
    found["trial.csv"] = _paths(
        read_scanpaths(folder / "trial.csv", columns={**named, "onset": "onset"}, trial_ms=900.0, **degrees)
    )
    found["osie.mat"] = _paths(read_osie_mat(folder / "osie.mat"))
    found["mit1003"] = _paths(read_mit1003(folder / "mit1003"))
    agent = make_agent(
        "human_replay", scanpaths=str(RECORDED / "people" / "fixations.csv"), image="i1", size=(120, 160)
    )
    agent.reset(np.ones(2, np.bool_))
    acts = [agent.act({"fixation": np.zeros((2, 2), np.float32)}) for _ in range(3)]
    found["played by human_replay"] = close(np.stack(acts), 1e-4)
    return found


def others() -> dict[str, Any]:
    """Return what is read of masks, and of figures of speed."""
    masks = sorted((RECORDED / "masks").rglob("*.png"))
    found: dict[str, Any] = {f"{one.parent.name}/{one.name}": digest(read_mask(one, (48, 56))) for one in masks}
    report = Report.read(RECORDED / "bench.json")
    found["bench"] = [f"{row.name} {row.group} {row.unit} {row.value:.6g} {row.ratio_to}" for row in report.rows]
    return found
