"""Pictures are read in a few formats by name, whatever a file is called: no content starts a program."""

from __future__ import annotations

import ast
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from foveasim.errors import SceneError
from foveasim.images.datasets import open_imagenette
from foveasim.images.object_masks import read_mask
from foveasim.images.picture import open_image, read_picture
from foveasim.images.reading import read_pool
from foveasim.images.splits import SUFFIXES as POOL_SUFFIXES
from foveasim.metrics.people import IMAGE_SUFFIXES as HUMANS_SUFFIXES
from foveasim.scenes.source import open_scenes
from foveasim.scenes.video import VideoScenes, is_animated
from foveasim.trust import FORMATS, IMAGE_SUFFIXES

REFUSED = r"its content is EPS; PNG, JPEG, .* are read\)\. Convert it to PNG or JPEG"
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8))


def encoded(form: str) -> bytes:
    target = io.BytesIO()
    IMAGE.save(target, form)
    return target.getvalue()


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Ghostscript, or what stands in for it, would leave behind."""
    marker, program = tmp_path / "gs-was-here", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return marker


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ghostscript is a shell script")
def test_the_stand_in_would_be_started(marker: Path) -> None:
    with Image.open(io.BytesIO(encoded("EPS"))) as image, pytest.raises(Exception):  # noqa: B017  # it draws nothing
        image.load()
    assert marker.exists()


@pytest.mark.parametrize("name", ["pic.png", "a.jpg", "a.gif", "a.eps", "a.tga"])
def test_a_picture_starts_no_program(marker: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded("EPS"))
    for door in (
        lambda: read_picture(path),
        lambda: open_scenes(str(path)).picture(0),
        lambda: is_animated(path),
        lambda: read_mask(path, (16, 24)),
        *([lambda: VideoScenes(path)] if name == "a.gif" else []),
    ):
        with pytest.raises(SceneError, match=rf"{name}.*{REFUSED}"):
            door()
    assert not marker.exists()


def test_a_folder_a_pool_and_an_archive_start_no_program(marker: Path, tmp_path: Path) -> None:
    folder = tmp_path / "imagenette2-160" / "train" / "n01440764"
    folder.mkdir(parents=True)
    (folder / "good.png").write_bytes(encoded("PNG"))
    (folder / "pic.png").write_bytes(encoded("EPS"))
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        file.add(folder.parents[1], folder.parents[1].name)
    with pytest.warns(UserWarning, match=rf"skipped 1 of 2 image files:\n.*pic\.png.*{REFUSED}"):
        open_scenes(str(folder)).picture(0)
    with pytest.warns(UserWarning, match=rf"skipped 1 of 2 image files:\n.*pic\.png.*{REFUSED}"):
        open_imagenette(archive, split="train").picture(0)
    for source in (folder, archive):
        with pytest.warns(UserWarning, match=rf"skipped 1 images that cannot be read: .*pic\.png\n.*{REFUSED}"):
            assert len(read_pool([str(source)]).names) == 1
    (folder / "good.png").unlink()
    with (
        pytest.warns(UserWarning, match="skipped 1"),
        pytest.raises(SceneError, match=rf"no readable image(.|\n)*pic\.png: .*{REFUSED}"),
    ):
        read_pool([str(folder)])
    assert not marker.exists()


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_is_read_whatever_the_file_is_called(form: str, tmp_path: Path) -> None:
    if form not in Image.SAVE:
        Image.init()
    if form not in Image.SAVE or form not in Image.OPEN:
        pytest.skip(f"this Pillow has no {form}")
    path = tmp_path / (f"picture{FORMATS[form][0]}" if form == "TGA" else "picture.xyz")
    path.write_bytes(encoded(form))
    assert read_picture(path).size == (16, 24)


@pytest.mark.parametrize("form", ["ICO", "PCX", "SGI", "DDS"])
def test_other_formats_are_named(form: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(form))
    with pytest.raises(SceneError, match=rf"picture\.png: not an image.*its content is {form}; .*Convert it"):
        open_image(path)


def test_a_format_without_a_mark_goes_by_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded("TGA"))
    with pytest.raises(SceneError, match="damaged, or none of PNG"):
        read_picture(path)


def test_the_endings_searched_for_are_those_of_the_formats_read() -> None:
    assert {*POOL_SUFFIXES, *HUMANS_SUFFIXES} <= IMAGE_SUFFIXES
    Image.init()
    for form, suffixes in FORMATS.items():
        assert {Image.registered_extensions().get(suffix, form) for suffix in suffixes} == {form}


def openers(source: str) -> list[str]:
    """Return where a module opens a picture by a reader that goes by the content."""
    tree = ast.parse(source)
    named = {"Image": "Image"}  # by which name a module knows PIL.Image
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "PIL":
            named |= {alias.asname or alias.name: alias.name for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL."):
            found += [f"{node.lineno}: {node.module}.{alias.name}" for alias in node.names]
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if node.attr == "open" and "Image" in (named.get(owner), owner.rsplit(".", 1)[-1]):
            found.append(f"{node.lineno}: {owner}.open")
        if node.attr in ("imread", "mimread", "imreadmulti", "read_image"):
            found.append(f"{node.lineno}: {owner}.{node.attr}")
    return found


def test_pictures_are_opened_in_one_place(
    module_faults: Callable[..., list[str]],
) -> None:
    found = module_faults(lambda module, source: [f"line {one}" for one in openers(source)])
    assert len(found) == 1, found
    assert "picture.py" in found[0]


@pytest.mark.parametrize(
    "source",
    [
        "from PIL import Image\nImage.open(f)",
        "from PIL import Image as Picture\nPicture.open(f)",
        "import PIL.Image\nPIL.Image.open(f)",
        "from PIL.Image import open as look\nlook(f)",
        "import matplotlib.pyplot as plt\nplt.imread(f)",
        "import cv2\ncv2.imread(f)",
        "from PIL import Image\nopener = Image.open",
    ],
)
def test_another_opener_is_noticed(source: str) -> None:
    assert openers(source)
    assert not openers("from PIL import Image\nImage.fromarray(a)\npath.open()\nzipfile.open(f)")
