"""Tiny runs of every command that works for long, what each must come to, and what a whole file is."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import mmap
import os
import re
import struct
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import read_tensors, save_network
from foveasim.errors import WeightsError
from foveasim.images import download
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths

__all__ = ["Work", "archive_of_noise", "look_at", "served", "tell", "told", "works"]

TINY = {"width": 8, "code": 8, "neck": [8, 8], "blocks": [0, 0]}
PROGRESS = mmap.mmap(-1, 16)  # shared with the runs: steps done, files touched


def told(place: int) -> int:
    """Return a number that a run wrote."""
    return int(struct.unpack_from("q", PROGRESS, 8 * place)[0])


def tell(place: int, number: int) -> None:
    """Write a number that outlives the run."""
    struct.pack_into("q", PROGRESS, 8 * place, number)


@dataclass
class Work:
    """A command on tiny data.

    Attributes:
        words: Folder → arguments of a first run.
        again: Folder → arguments of the run that goes on.
        result: Folder → what must be the same at the end, by name.
        lost: Folder → how many steps are lost, and how many may be; None where nothing is counted.
        share: How often it is drawn.
    """

    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, Any]]
    lost: Callable[[Path], tuple[int, int]] | None = None
    share: float = 1.0
    expected: dict[str, Any] = field(default_factory=dict)
    took_s: float = 0.0
    touched: int = 0
    largest: int = 0


# What is written


def tensors_of(path: Path) -> dict[str, bytes]:
    """Return every tensor of a file, as bytes."""
    found, about = read_tensors(path)
    named = {f"{path.name} {name}": value.numpy().tobytes() for name, value in found.items()}
    if "counters" in about:
        counters = json.loads(about["counters"])
        named[f"{path.name} counters"] = f"{counters['step']} {counters['images']}".encode()
    return named


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    """Return what files hold."""
    return {name: (folder / name).read_bytes() for name in names}


def json_of(path: Path, *without: str) -> str:
    """Return what a JSON file holds, but for times and for some keys at its top."""
    found = json.loads(re.sub(r'"act_ms": [^,}]+', '"act_ms": 0', path.read_text(encoding="utf-8")))
    return json.dumps({key: value for key, value in found.items() if key not in without})


def whole(path: Path, archive: bytes) -> None:
    """See that a file is whole.

    Raises:
        AssertionError: It is not, or of a kind that is not known here.
    """
    kind, content = path.suffix, path.read_bytes()
    if path.name == "small.tar.gz.part":
        assert archive.startswith(content), f"{path} is no beginning of the archive"
    elif path.name == "small.tar.gz":
        assert content == archive, f"{path} is not the archive"
    elif kind == ".safetensors":
        read_tensors(path)
    elif kind == ".json":
        json.loads(content)
    elif kind == ".jsonl":
        for line in content.split(b"\n")[:-1]:  # behind it part of a line may stand, which the next run removes
            json.loads(line)
    elif kind in (".png", ".gif"):
        with Image.open(io.BytesIO(content)) as picture:
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                picture.load()
    elif kind == ".mp4":
        video = cv2.VideoCapture(str(path))
        count = sum(1 for _ in iter(lambda: video.read()[0], False))
        assert count == int(video.get(cv2.CAP_PROP_FRAME_COUNT)) > 0, f"{path} breaks off"
    elif kind == ".csv":
        rows = list(csv.reader(io.StringIO(content.decode())))
        assert content.endswith(b"\n") and len({len(row) for row in rows}) == 1, f"{path} breaks off"
    elif kind == ".html":
        assert content.rstrip().endswith(b"</html>"), f"{path} breaks off"
    elif kind == ".md":
        assert content.endswith(b"\n"), f"{path} breaks off"
    elif kind == ".bin":
        assert len(content) in (400_000, 300_000), f"{path} breaks off"
    elif kind == ".raw":
        pass  # of the pool cache: counts only with its .json, which says how long it must be
    else:
        raise AssertionError(f"{path}: what is this?")


def look_at(out: Path, archive: bytes) -> int:
    """See that every file under its own name, or kept for a resumed run, is whole; return how many others there are."""
    unfinished = 0
    for path in filter(Path.is_file, sorted(out.rglob("*"))):
        if any(part.startswith(".") and part != ".unfinished" for part in path.relative_to(out).parts):
            unfinished += 1
        else:
            whole(path, archive)
    return unfinished


# The runs


def images(folder: Path, count: int, side: int, seed: int, width: int = 56) -> Path:
    """Make pictures of noise."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(draws.integers(0, 256, (side, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def people(root: Path) -> Path:
    """Make a small set of people who looked at noise."""
    names = [path.stem for path in sorted(images(root / "images", 4, 60, 5, 80).iterdir())]
    draws, paths = np.random.default_rng(6), []
    for name in names:
        for person in range(3):
            points = torch.from_numpy(draws.uniform(20, 100, (4, 2)).astype(np.float32))
            paths.append(Scanpath(points, torch.arange(4) * 200.0, torch.full((4,), 200.0), name, f"p{person}"))
    write_scanpaths(root / "fixations.csv", paths)
    (root / "splits.json").write_text(json.dumps({"test": names[:2], "train": names[2:]}))
    return root


def served(archive: bytes) -> tuple[str, int]:
    """Serve an archive, slowly, from a process of its own; return its address and the process."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
            start = int(asked)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(archive) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(archive) - 1}/{len(archive)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for at in range(start, len(archive), 50_000):
                    self.wfile.write(archive[at : at + 50_000])
                    time.sleep(0.02)

        def log_message(self, *of: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    process = os.fork()
    if not process:
        server.serve_forever()
    url = f"http://127.0.0.1:{server.server_address[1]}/small.tar.gz"
    server.socket.close()
    return url, process


def archive_of_noise() -> bytes:
    """Return a .tar.gz of two files."""
    draws, packed = np.random.default_rng(7), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, size in (("small/a.bin", 400_000), ("small/sub/b.bin", 300_000)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(draws.bytes(size)))
    return packed.getvalue()


def works(data: Path, url: str, archive: bytes) -> dict[str, Work]:
    """Return every kind of run."""
    pictures, labelled = images(data / "images", 12, 48, 0), data / "labelled"
    for place, (split, name) in enumerate((s, n) for s in ("train", "val") for n in ("one", "two")):
        images(labelled / split / name, 8, 40, 10 + place)
    viewers = people(data / "people")
    small = data / "small.safetensors"
    torch.manual_seed(0)
    save_network(small, make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    download.DATASETS["small"] = download.Dataset(
        "Small",
        url,
        len(archive),
        hashlib.sha256(archive).hexdigest(),
        "small",
        800_000,
        {"*.bin": (1, 400_000)},
        "",
        "",
    )

    def resumed(words: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
        return lambda out: [*words(out), "--resume" if (out / "checkpoint.safetensors").exists() else "--overwrite"]

    def step_of(out: Path, key: str, number: str) -> int:
        with contextlib.suppress(WeightsError):
            return int(json.loads(read_tensors(out / "checkpoint.safetensors")[1][key])[number])
        return 0

    def pretrain(out: Path) -> list[str]:
        return [
            *("pretrain", f"--data={pictures}", f"--out={out}", "--steps=24", "--batch=4"),
            *("--size=32", "--threads=1", f"--network_options={json.dumps(TINY)}", "--jitter", "--snapshots=2"),
            *("--checkpoint_steps=4", f"--cache={out}/cache"),
        ]

    def pretrained(out: Path) -> dict[str, Any]:
        kept = sorted(path for path in out.glob("*.safetensors"))
        return {k: v for path in kept for k, v in tensors_of(path).items()} | contents(out, "pictures.png")

    def train(out: Path) -> list[str]:
        options = json.dumps({"n_steps": 4, "batch_size": 16, "n_epochs": 2})
        return [
            *("train", "--data=photos", "--limit=4", "--size=48x48", f"--network={small}", "--budget=3", "--lanes=4"),
            *("--validate=photos", "--validate_limit=2", "--against=[random]", f"--options={options}"),
            *('--features={"cells":6}', "--steps=96", "--evaluate_steps=32", f"--out={out}", "--threads=1"),
        ]

    def compare(out: Path) -> list[str]:
        return [
            *(
                "compare",
                "centre",
                "walk",
                "random",
                "--data=shapes",
                "--limit=3",
                "--size=48x48",
                f"--network={small}",
            ),
            *("--fixations=3", "--seeds=2", "--resamples=100", "--show=1", "--threads=1", f"--out={out}"),
        ]

    def human(out: Path) -> list[str]:
        return [
            *("humans", "walk", "centre", "random", f"--data={viewers}", "--size=120x160", "--px_per_deg=6"),
            *("--count=2", "--show=1"),
            *("--resamples=100", "--floors=no", "--jobs=1", f"--network={small}", f"--out={out}"),
        ]

    def paper(out: Path) -> list[str]:
        options = json.dumps({"network_options": TINY, "batch": 4, "checkpoint_steps": 2})
        return [
            *("paper", str(labelled), f"--out={out}", "--conditions=[paper/periphery]", "--seeds=[0]", "--epochs=4"),
            *(
                "--recipe=quick",
                f"--options={options}",
                "--probes=[ridge]",
                "--snapshots=1",
                "--size=32",
                "--threads=1",
            ),
        ]

    def found(out: Path) -> dict[str, Any]:
        results = sorted(out.rglob("result.json"))
        return {str(path.relative_to(out)): json_of(path, "images_s", "minutes") for path in results}

    def record(kind: str) -> Callable[[Path], list[str]]:
        def words(out: Path) -> list[str]:
            out.mkdir(exist_ok=True)
            return [
                *("record", "noise", f"--out={out}/movie{kind}", "--overwrite", "--agent=walk", "--network=none"),
                *("--fps=10", "--seconds=2", "--size=180x320", f"--scanpath={out}/paths.csv"),
            ]

        return words

    def recorded(out: Path) -> dict[str, Any]:
        return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()}

    def get(out: Path) -> list[str]:
        return ["data", "get", "small", str(out)]

    return {
        "pretrain": Work(
            pretrain, resumed(pretrain), pretrained, lambda out: (told(0) - step_of(out, "counters", "step"), 4), 4.0
        ),
        "train": Work(
            *(train, resumed(train)),
            lambda out: tensors_of(out / "policy.safetensors") | tensors_of(out / "checkpoint.safetensors"),
            lambda out: (told(0) - step_of(out, "counted", "steps"), 32 + 16),
            2.0,
        ),
        "compare": Work(
            *(compare, lambda out: [*compare(out), "--resume"]),
            lambda out: (
                {"compare.json": json_of(out / "compare.json", "config")}
                | contents(out, "curves.csv", "fixations.csv", "differences.csv")
            ),
        ),
        "humans": Work(
            *(human, lambda out: [*human(out), "--resume"]),
            lambda out: {"humans.json": json_of(out / "humans.json", "config")} | contents(out, "scanpaths.csv"),
        ),
        "paper": Work(paper, lambda out: [*paper(out), "--resume"], found, share=0.15),
        "record mp4": Work(record(".mp4"), record(".mp4"), recorded, share=0.5),
        "record gif": Work(record(".gif"), record(".gif"), recorded, share=0.5),
        "record frames": Work(record(""), record(""), recorded, share=0.5),
        "data get": Work(get, get, recorded, share=2.0),
    }
