"""Record small files of every kind that foveasim writes; once, so that later versions are seen to read them."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from PIL import Image

from foveasim.agents.evaluation.agent_cache import AgentCache
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import save_network
from foveasim.agents.readout.belief_readout_fit import BeliefFit, fit_belief_readout
from foveasim.agents.readout.labelled import read_labelled
from foveasim.cli.commands import main
from foveasim.eye.saccade import Saccades
from foveasim.recording.replay import RecordEpisode
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths
from foveasim.scenes.source import open_scenes

__all__ = ["COMPARE", "HUMANS", "NETWORKS", "PRETRAIN", "TRAIN", "command", "record"]

NETWORKS: dict[str, dict[str, Any]] = {
    "lean": {"width": 8, "code": 8, "neck": (8, 8), "blocks": (0, 1)},
    "unet": {"widths": (8, 8, 8), "blocks": (0, 0, 1)},
    "vit": {"dim": 16, "depth": 1, "heads": 2, "decoder_depth": 1},
}
"""Of the published network none is small enough."""

UNET = "--network=networks/unet.safetensors"
PRETRAIN = (
    *("pretrain", "--data=[labelled/train]", "--out=pretrain", "--batch=4", "--size=32", "--threads=1", "--jitter"),
    *("--network=vit", '--network_options={"dim":8,"depth":1,"heads":2,"decoder_depth":1,"patch":4}'),
    *("--snapshots=0", "--checkpoint_steps=2"),
)
TRAIN = (
    *("train", "--data=labelled/train", "--size=48x48", UNET, "--budget=3", "--lanes=4", "--out=train", "--threads=1"),
    *("--options", json.dumps({"n_steps": 4, "batch_size": 16, "n_epochs": 1}), '--features={"cells":4}'),
    *("--validate=labelled/val", "--validate_limit=2", "--against=[random]", "--evaluate_steps=16"),
    '--policy_options={"width":4}',
)
COMPARE = (
    *("compare", "centre", "walk", "random", "--data=labelled/val", "--limit=3", "--size=32x32", UNET, "--show=1"),
    *("--fixations=3", "--seeds=1", "--resamples=100", "--threads=1", "--out=compare"),
)
HUMANS = (
    *("humans", "walk", "centre", "--data=people", "--size=120x160", "--px_per_deg=6", UNET, "--count=2", "--show=1"),
    *("--resamples=100", "--floors=no", "--jobs=1", "--out=humans"),
)
TRACKER = {
    "duration.csv": "image,subject,x,y,duration_ms\na,p,10,20,200\na,p,30.5,8,150\nb,p,1,2,90\n",
    "onset_end.tsv": "pic\twho\tFPOGX\tFPOGY\tt0\tt1\na\tp\t10\t20\t0.1\t0.3\na\tp\t30\t8\t0.35\t0.5\n",
    "trial.csv": "image,subject,x,y,onset\na,p,1,-2,0\na,p,-3,4,240\n",
    "own_without_onsets.csv": "image,subject,index,x,y,duration_ms\na,p,0,10,20,200\na,p,1,30.5,8,150\nb,q,0,1,2,90\n",
    "own_further_columns.csv": (
        "pupil,image,subject,index,x,y,duration_ms,onset_ms\n3,a,p,0,1,2,200,5\n3,a,p,1,3,4,150,250\n"
    ),
}


def command(*words: str) -> str:
    """Run a command of foveasim here and return what it printed.

    Raises:
        RuntimeError: It did not end well.
    """
    said = io.StringIO()
    threads = torch.get_num_threads()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(list(words))
    finally:
        torch.set_num_threads(threads)
    if status != 0:
        raise RuntimeError(f"foveasim {' '.join(words)} ended with {status}: {said.getvalue()}")
    return said.getvalue()


def record(folder: Path) -> None:
    """Write all files into a folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        _pictures()
        _networks()
        command(*PRETRAIN, "--steps=4")
        command(*TRAIN, "--steps=32")
        for text, name in ((COMPARE, "compare"), (HUMANS, "humans")):
            with _cached_agents():
                command(*text)
            assert (Path(name) / ".unfinished").is_dir()
        command("readout", "networks/unet.safetensors", "--data=labelled", "--out=readout", "--size=32", "--epochs=2")
        command("segment", "labelled/val", "masks", "--workers=1")
        command("bench", "--only=floor/*", "--seconds=0.01", "--repeats=2", "--out=bench.json")
        _episodes()
        _scanpaths()
        for path in filter(Path.is_file, sorted(Path().rglob("*"))):
            if (
                path.suffix in (".html", ".md", ".gif")
                or (path.suffix == ".png" and path.parts[0] not in PICTURES)
                or path.name == "segment.png"
            ):
                path.unlink()


PICTURES = ("labelled", "people", "masks")


@contextlib.contextmanager
def _cached_agents() -> Iterator[None]:
    """Leave the cache of the agents that are done, as one that was killed at its end would."""
    with patch.object(AgentCache, "clear"):
        yield


def _save(folder: Path, names: Sequence[str], kind: str, size: tuple[int, int], seed: int) -> None:
    folder.mkdir(parents=True)
    source = open_scenes(kind, size=size, count=len(names), seed=seed)
    for index, name in enumerate(names):
        Image.fromarray(np.asarray(source.picture(index).image) // 16 * 16).save(folder / f"{name}.png", optimize=True)


def _pictures() -> None:
    for place, (split, count) in enumerate((("train", 6), ("val", 4))):
        for kind, label in (("shapes", "one"), ("gratings", "two")):
            _save(Path("labelled", split, label), [f"{label}{i}" for i in range(count)], kind, (48, 56), place)
    names, draws, paths = ["i0", "i1", "i2", "i3"], np.random.default_rng(6), []
    _save(Path("people", "images"), names, "shapes", (60, 80), 3)
    for name in names:
        for person in range(3):
            points = torch.from_numpy(draws.uniform(20, 100, (4, 2)).round(1).astype(np.float32))
            paths.append(Scanpath(points, torch.arange(4) * 250.0, torch.full((4,), 220.0), name, f"p{person}"))
    write_scanpaths("people/fixations.csv", paths)
    Path("people", "splits.json").write_text(json.dumps({"test": names[:2], "train": names[2:]}) + "\n")


def _networks() -> None:
    Path("networks").mkdir()
    for name, options in NETWORKS.items():
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = make_network(name, **options)
            with torch.no_grad():
                for value in network.parameters():  # fresh ones begin with zeros, which would hide what they change
                    value.add_(0.05 * torch.randn(value.shape))
        dtype = "float32" if name == "unet" else "float16"
        save_network(f"networks/{name}.safetensors", network, {"images_seen": 7, "note": "of noise"}, dtype=dtype)
    options_ = json.dumps(NETWORKS["unet"])
    words = ("--out=unet", "--network=unet", f"--network_options={options_}", "--snapshots=0", "--steps=2")
    command(*PRETRAIN, *words)  # for calibration wants a network with a card
    shutil.copy("unet/unet.safetensors", "networks/calibrated.safetensors")
    shutil.rmtree("unet")
    words = ("--data=labelled/val", "--fixations=[1,2]", "--size=32", "--out=reliability.png", "--fit=true")
    command("calibrate", "networks/calibrated.safetensors", *words)
    data = read_labelled("labelled", (48, 48))
    for probe in ("ridge", "conv"):
        head = {"width": 4, "epochs": 2} if probe == "conv" else {}
        fit = BeliefFit(glimpses=3, probe=probe, head=head)
        fit_belief_readout("networks/unet.safetensors", data, fit).save(f"networks/beliefs_{probe}.safetensors")


def _episodes() -> None:
    Path("episodes").mkdir()
    saccades = Saccades(12.0, 0.1)
    chosen: dict[str, tuple[str, dict[str, Any]]] = {
        "glimpse": ("Glimpse", {"scenes": "shapes", "size": (48, 48), "saccades": saccades, "belief": True}),
        "glimpse_log_polar": (
            "Glimpse",
            {"scenes": "photos", "retina": "log_polar", "size": (48, 48), "patch": True, "zoom": True, "stop": True},
        ),
        "glimpse_grid": (
            "Glimpse",
            {"scenes": "noise", "retina": "disc", "size": (48, 48), "action_mode": "grid", "half_life_ms": 500.0},
        ),
        "search": ("Search", {"kinds": ["letters"], "count": 8}),
        "classify": ("Classify", {"size": (48, 48), "retina_options": {"hidden_ratio": 0.8}}),
    }
    for name, (task, options) in chosen.items():
        env = RecordEpisode(gym.make(f"foveasim/{task}-v0", budget=4, **options))
        env.reset(seed=9)
        env.reset(options={"fixation": (0.25, -0.5)})
        env.action_space.seed(1)
        over = False
        while not over:
            action = env.action_space.sample()
            if options.get("stop") or task == "Classify":
                action[-1] = -0.5
            *_, over, _, _ = env.step(action)
        env.episode.write(f"episodes/{name}.episode.json")
        env.close()
    words = ("--scenes=shapes", "--agent=walk", "--retina=disc", "--network=none", "--fps=10", "--seconds=2")
    Path("scanpaths").mkdir()
    command("record", "episodes/session.gif", *words, "--size=180x320", "--budget=4", "--scanpath=scanpaths/own.csv")


def _scanpaths() -> None:
    from scipy.io import savemat

    for name, text in TRACKER.items():
        Path("scanpaths", name).write_text(text)
    looks = [
        {"fix_x": [1.0, 2.0], "fix_y": [3.0, 4.5], "fix_duration": [200.0, 180.0]},
        {"fix_x": [7.0, 8.0], "fix_y": [9.0, 1.0], "fix_duration": [90.0, 95.0]},
    ]
    people = [
        {"img": "1001.jpg", "subjects": np.array(looks, object)},
        {"img": "1002.jpg", "subjects": np.array(looks[::-1], object)},
    ]
    savemat("scanpaths/osie.mat", {"fixations": np.array(people, object)}, do_compression=True)
    gaze = np.repeat(np.array([[50.0, 60.0], [200.0, 90.0], [30.0, 150.0]]), 40, 0)
    gaze[55:58] = -1
    Path("scanpaths", "mit1003", "ajs").mkdir(parents=True)
    savemat("scanpaths/mit1003/ajs/i05.mat", {"i05": {"DATA": {"eyeData": gaze}}}, do_compression=True)
