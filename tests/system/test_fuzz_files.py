"""The doors for files, fuzzed: pictures, scanpaths, networks, policies, archives, YAML; damaged, odd or huge."""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveasim import read_scanpaths
from foveasim.agents.gaze_policy.features import FeatureConfig
from foveasim.agents.gaze_policy.network import Actor, ActorConfig
from foveasim.agents.gaze_policy.policy_files import Policy, load_policy, save_policy
from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.weights_file import load_network, save_network, shipped_networks
from foveasim.agents.scanpath_model.agent import load_scanpath
from foveasim.cli.commands import main
from foveasim.errors import FoveasimError, SceneError, WeightsError
from foveasim.images.archives import unpack
from foveasim.scanpath.scanpath import Scanpath, read_csv, write_scanpaths
from foveasim.scenes.source import SceneSource, fit_picture, open_scenes
from foveasim.scenes.video import VideoScenes

Answers = Callable[..., object]

TINY = {"widths": [8, 8, 8], "blocks": [0, 0, 0]}
MOST_GROWTH_MB = 400
"""By how much a process may grow that opens a file which asks for more than there is."""


def damage(data: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Cut, flip, insert or repeat something."""
    kind = draw(st.sampled_from(("cut", "flip", "insert", "repeat", "zeros")))
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        wrong = bytearray(data)
        for at in {place, draw(st.integers(0, len(data) - 1)), draw(st.integers(0, min(64, len(data)) - 1))}:
            wrong[at] ^= draw(st.integers(1, 255))
        return bytes(wrong)
    if kind == "insert":
        return data[:place] + draw(st.binary(min_size=1, max_size=9)) + data[place:]
    if kind == "repeat":
        return data[:place] + data[place // 2 :]
    return data[:place] + bytes(len(data) - place)


def encoded(form: str) -> bytes:
    """A picture of 24 x 16 px in a format."""
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 24, 3), np.uint8))
    target = io.BytesIO()
    if form == "GIF":
        others = [image.rotate(90 * turn) for turn in (1, 2)]
        image.save(target, form, save_all=True, append_images=others, duration=40)
    else:
        image.save(target, form)
    return target.getvalue()


def check_picture(source: SceneSource) -> None:
    for time_ms in (0.0, 55.0, 1e4):
        found = source.picture(0, time_ms)
        assert found.image.dtype == np.uint8
        assert found.image.ndim == 3
        assert found.image.shape[2] == 3
        assert min(found.size) >= 8


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_right_or_explained(answers: Answers, tmp_path: Path, form: str) -> None:
    whole, path = encoded(form), tmp_path / f"picture.{form.lower()}"

    @given(st.data())
    def try_it(data: st.DataObject) -> None:
        path.write_bytes(damage(whole, data.draw))
        answers(lambda: check_picture(open_scenes(str(path))), str(path))

    try_it()


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16")
SIDES = st.one_of(st.integers(1, 20), st.sampled_from([7, 8, 9, 64]))


@given(st.sampled_from(MODES), SIDES, SIDES, st.integers(0, 2**32), st.sampled_from(["crop", "pad", "stretch"]))
def test_a_picture_of_any_kind_and_shape(
    answers: Answers, tmp_path_factory: pytest.TempPathFactory, mode: str, width: int, height: int, seed: int, fit: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "kind.tiff"
    rng = np.random.default_rng(seed)
    if mode in ("I", "F", "I;16"):
        kinds: dict[str, Any] = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
        image = Image.fromarray(rng.uniform(0, 1 if mode == "F" else 65535, (height, width)).astype(kinds[mode]))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        image = image.convert("RGB").convert("L").convert(mode) if mode == "LA" else image.convert(mode)
    image.save(path.with_suffix(".tiff" if mode != "P" else ".png"))
    answer = answers(lambda: open_scenes(str(path if mode != "P" else path.with_suffix(".png"))).picture(0), "kind")
    if isinstance(answer, FoveasimError):
        assert min(width, height) < 8
    else:
        assert answer.size == (height, width)  # type: ignore[attr-defined]
        assert fit_picture(answer, (9, 31), fit).size == (9, 31)  # type: ignore[arg-type]


def png(width: int, height: int) -> bytes:
    """A PNG of any size, grey, of rows that are never sent: some ten bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bomb.png", png(30_000, 30_000), "more than 100 megapixels|larger than 100 megapixels"),
        ("none.png", png(0, 0), "not an image|too small"),
        ("long.png", png(1, 10_000), "too small"),
        ("empty.jpg", b"", "not an image"),
        ("text.jpg", b"this is no picture\n" * 9, "not an image"),
        ("pickle.png", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.", "not an image"),
        ("movie.mp4", b"this is no video\n" * 9, "not a video"),
        ("movie.gif", b"GIF89a" + bytes(40), "not an image|too small|no frame|damaged"),
    ],
    ids=["bomb", "none", "long", "empty", "text", "pickle", "no video", "no gif"],
)
def test_files_that_are_no_scene(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SceneError, match=message) as found:
        open_scenes(str(path)).picture(0)
    assert str(path) in str(found.value)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_video_is_right_or_explained(answers: Answers, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 24))
    for frame in np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8):
        writer.write(frame)
    writer.release()
    whole = path.read_bytes()
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    @given(st.data())
    def try_it(data: st.DataObject) -> None:
        path.write_bytes(damage(whole, data.draw))
        answers(lambda: check_picture(VideoScenes(path)), str(path))

    try:
        try_it()
    finally:
        cv2.utils.logging.setLogLevel(level)


cells = st.one_of(
    st.sampled_from(["0", "1", "2", "3.5", "-4", "nan", "inf", "1e400", "1e39", "", " ", '"', "a,b", "é", "\0"]),
    st.text(max_size=3),
)
rows = st.lists(st.lists(cells, min_size=5, max_size=7).map(",".join), max_size=4)


@given(
    st.sampled_from(["image,subject,index,x,y,duration_ms", "image,subject,index,x,y,duration_ms,onset_ms", "a,b", ""]),
    rows,
)
def test_any_table_is_right_or_explained(
    answers: Answers, tmp_path_factory: pytest.TempPathFactory, header: str, lines: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "paths.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8", errors="replace")
    for found in (
        answers(lambda: read_csv(path), str(path)),
        answers(lambda: read_scanpaths(path), str(path)),
        answers(lambda: read_scanpaths(path, columns={"x": "x", "y": "y", "duration": "duration_ms"}), str(path)),
    ):
        assert isinstance(found, FoveasimError) or all(torch.isfinite(one.fixation_px).all() for one in found)  # type: ignore[attr-defined]


def test_a_damaged_table_is_right_or_explained(answers: Answers, tmp_path: Path) -> None:
    path = tmp_path / "paths.csv"
    write_scanpaths(
        path, [Scanpath(torch.rand(6, 2) * 90, torch.arange(6.0), torch.ones(6), "a", who) for who in ("1", "2")]
    )
    whole = path.read_bytes()

    @given(st.data())
    def try_it(data: st.DataObject) -> None:
        path.write_bytes(damage(whole, data.draw))
        answers(lambda: read_csv(path), str(path))

    try_it()


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture(scope="module")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "net.safetensors"
    save_network(path, make_network("unet", **TINY), {"note": "tiny"})
    return path


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    features = FeatureConfig()
    gain = features.channel("gain")
    actor = Actor(ActorConfig("cells", (4, 4), features.channels, features.count(0), gain, 16, width=4))
    save_policy(path, Policy(actor, features, "unet"))
    return path


LOADERS: dict[str, Callable[[Path], object]] = {"network": load_network, "policy": load_policy}


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


@pytest.mark.parametrize("kind", LOADERS)
def test_a_damaged_network_is_right_or_explained(
    answers: Answers, network_file: Path, policy_file: Path, tmp_path: Path, kind: str
) -> None:
    whole = (network_file if kind == "network" else policy_file).read_bytes()
    path = tmp_path / "file.safetensors"

    @given(st.data())
    def try_it(data: st.DataObject) -> None:
        path.write_bytes(damage(whole, data.draw))
        answers(lambda: LOADERS[kind](path), str(path))

    try_it()


json_atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.sampled_from([2**30, 2**62, 10**30, -1, 0.5]),
    st.floats(),
    st.text(max_size=3),
)
json_values = st.one_of(
    json_atoms, st.lists(json_atoms, max_size=4), st.dictionaries(st.text(max_size=3), json_atoms, max_size=2)
)


@pytest.mark.parametrize("kind", LOADERS)
def test_any_description_of_a_network_is_right_or_explained(
    answers: Answers, network_file: Path, policy_file: Path, tmp_path: Path, kind: str
) -> None:
    header, data = split(network_file if kind == "network" else policy_file)
    metadata = header["__metadata__"]
    path = tmp_path / "file.safetensors"

    @given(st.data())
    def try_it(draw: st.DataObject) -> None:
        told = dict(metadata)
        key = draw.draw(st.sampled_from(sorted(told)))
        if told[key].startswith("{") and draw.draw(st.booleans()):
            inside = json.loads(told[key])
            part = draw.draw(st.one_of(st.sampled_from(sorted(inside) or ["x"]), st.text(max_size=4)))
            inside[part] = draw.draw(json_values)
            told[key] = json.dumps(inside)
        else:
            told[key] = draw.draw(st.one_of(st.text(max_size=5), json_values.map(json.dumps)))
        path.write_bytes(safetensors({**header, "__metadata__": told}, data))
        answers(lambda: LOADERS[kind](path), str(path), "actor")

    try_it()


DTYPES = (
    "BOOL",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "F8_E8M0",
    "F4",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "F64",
    "I64",
    "U64",
    "C64",
    "X",
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_any_kind_are_right_or_explained(
    answers: Answers, network_file: Path, tmp_path: Path, dtype: str
) -> None:
    header, data = split(network_file)
    name = min((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    begin, end = header[name]["data_offsets"]
    for shape in ([], [end - begin], [(end - begin) // 2], [(end - begin) // 4], [0], [2**62, 4], [1, -1]):
        path = tmp_path / "file.safetensors"
        path.write_bytes(
            safetensors({**header, name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}, data)
        )
        answer = answers(lambda path=path: load_network(path), str(path))  # type: ignore[misc]
        assert isinstance(answer, WeightsError) or (dtype in ("F16", "BF16") and shape == [(end - begin) // 2])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
        b"PK\x03\x04" + bytes(60),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**40) + b"{}",
        safetensors(b"[" * 100_000),
        safetensors({"a": {"dtype": "F32", "shape": [2**48], "data_offsets": [0, 2**50]}}),
        safetensors({"__metadata__": {"format": "foveasim-network-1"}}),
        safetensors({"__metadata__": {"format": "foveasim-network-1", "network": "unet", "config": "[" * 100_000}}),
    ],
    ids=["empty", "json", "pickle", "zip", "long", "longer", "deep", "petabyte", "no tensors", "deep config"],
)
def test_files_that_are_no_network(answers: Answers, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    for load in (load_network, load_policy, lambda path: load_scanpath(str(path))):
        assert isinstance(answers(lambda load=load: load(path), str(path)), WeightsError)  # type: ignore[misc]


PETABYTES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"widths": [4096, 4096, 4096], "blocks": [6, 6, 6]}),
    "vit": ("vit", {"dim": 4096, "depth": 100, "decoder_depth": 100}),
    "lean": ("lean", {"width": 4096, "code": 4096, "neck": [4096, 4096], "blocks": [50, 50]}),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux, where ru_maxrss is in kB")
def test_a_file_cannot_ask_for_more_memory_than_it_is_long(tmp_path: Path, policy_file: Path) -> None:
    resource = pytest.importorskip("resource")
    paths = []
    for name, (network, config) in PETABYTES.items():
        told = {"format": "foveasim-network-1", "network": network, "config": json.dumps(config), "card": "{}"}
        paths.append(tmp_path / f"{name}.safetensors")
        paths[-1].write_bytes(safetensors({"__metadata__": told}))
    header, data = split(policy_file)
    told = header["__metadata__"]
    form = {**json.loads(told["actor"]), "width": 1 << 20, "channels": 1 << 20, "kind": "flat", "hidden": [10_000] * 60}
    header["__metadata__"] = {**told, "actor": json.dumps(form)}
    paths.append(tmp_path / "policy.safetensors")
    paths[-1].write_bytes(safetensors(header, data))
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    (tmp_path / "wide.png").write_bytes(png(9_999, 10_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        with pytest.raises(WeightsError, match=r"missing tensors|superfluous"):
            (load_policy if path.name.startswith("policy") else load_network)(path)
    for name, message in (("bomb.png", "100 megapixels"), ("wide.png", "damaged")):
        with pytest.raises(SceneError, match=message):
            open_scenes(str(tmp_path / name)).picture(0)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_GROWTH_MB


def yaml_documents() -> st.SearchStrategy[str]:
    keys = st.sampled_from(
        [
            "agent",
            "scenes",
            "seed",
            "retina",
            "retina_options",
            "agent_arguments",
            "network",
            "size",
            "budget",
            "out",
            "x",
        ]
    )
    values = st.one_of(
        json_values.map(json.dumps),
        st.sampled_from(["*a", "&a [*a]", "!!python/name:os.system", "{", "- 1", "? x", "<<: 1"]),
        st.text(max_size=6),
    )
    return st.one_of(st.lists(st.tuples(keys, values).map(": ".join), max_size=3).map("\n".join), st.text(max_size=20))


@given(yaml_documents())
def test_any_config_is_parsed_or_explained(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        status = main(["record", "--seconds", "-1", "--config", str(path)])  # -1: nothing is ever recorded
    except SystemExit as left:  # the parser's own way out, with a message on stderr
        status = int(str(left.code))
    assert status in (1, 2)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[bytes]:
    path = tmp_path / "whole.tar"
    with tarfile.open(path, "w") as made:
        for name in ("a/b.txt", "a/c.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 700
            made.addfile(entry, io.BytesIO(random.Random(0).randbytes(700)))
    yield path.read_bytes()
    path.unlink()


def test_a_damaged_archive_is_unpacked_or_explained_and_stays_inside(
    answers: Answers, tmp_path_factory: pytest.TempPathFactory, archive: bytes
) -> None:
    base = tmp_path_factory.mktemp("archives")

    @given(st.data(), st.integers(0, 2**62))
    def try_it(data: st.DataObject, number: int) -> None:
        place = base / f"{number}"
        place.mkdir(exist_ok=True)
        (place / "file.tar").write_bytes(damage(archive, data.draw))
        answers(lambda: unpack(place / "file.tar", place / "inside", max_bytes=100_000), "file.tar")
        assert {path.name for path in place.iterdir()} <= {"file.tar", "inside"}

    try_it()
    assert all(path.name.isdigit() for path in base.iterdir())


def test_a_zip_is_no_archive_of_scenes(tmp_path: Path) -> None:
    path = tmp_path / "scenes.tar"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.png", encoded("PNG"))
    with pytest.raises(SceneError, match="not a whole tar archive"):
        unpack(path, tmp_path / "inside", max_bytes=10_000)


def test_the_tests_know_a_network() -> None:
    assert "unet" in shipped_networks()
