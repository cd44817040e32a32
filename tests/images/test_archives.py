"""Unpacking: what an archive must not do, and damage that must not go unnoticed."""

from __future__ import annotations

import io
import random
import sys
import tarfile
from pathlib import Path

import pytest

from foveasim.errors import SceneError
from foveasim.images.archives import unpack


def packed(files: dict[str, bytes]) -> bytes:
    """Return a .tar.gz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


# Content that cannot be compressed: gzip stores it as it is, and only its checksum tells damage.
ARCHIVE = packed(
    {"small/a.bin": random.Random(0).randbytes(60_000), "small/sub/b.bin": random.Random(1).randbytes(40_000)}
)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def archive_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, size, 0o777
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (entry("../out.txt", size=3), "leads out"),
        (entry("a/../../out.txt", size=3), "leads out"),
        (entry("a/../b.txt", size=3), "leads out"),
        (entry("/tmp/out.txt", size=3), "leads out"),
        (entry("..", tarfile.DIRTYPE), "leads out"),
        (entry("..\\out.txt", size=3), "leads out"),
        (entry("C:/out.txt", size=3), "leads out"),
        (entry("link", tarfile.SYMTYPE, "/etc"), "is a link"),
        (entry("link", tarfile.SYMTYPE, "small"), "is a link"),
        (entry("link", tarfile.LNKTYPE, "../../out.txt"), "is a link"),
        (entry("pipe", tarfile.FIFOTYPE), "is no plain file"),
        (entry("device", tarfile.CHRTYPE), "is no plain file"),
    ],
)
def test_archives_cannot_write_outside(tmp_path: Path, member: tarfile.TarInfo, message: str) -> None:
    path = archive_with(tmp_path / "bad.tar.gz", entry("fine.txt", size=2), member, entry("link/after.txt", size=3))
    with pytest.raises(SceneError, match=f"{message}.*was not unpacked"):
        unpack(path, tmp_path / "in" / "side", max_bytes=1000)
    assert listing(tmp_path) == ["bad.tar.gz", "in/side/fine.txt"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_unpacking_takes_neither_modes_nor_more_than_allowed(tmp_path: Path) -> None:
    path = archive_with(tmp_path / "a.tar.gz", entry("./a/b", size=600), entry("a/c", size=600))
    with pytest.raises(SceneError, match="more than 1,000 bytes"):
        unpack(path, tmp_path / "one", max_bytes=1000)
    written: list[int] = []
    unpack(path, tmp_path / "two", max_bytes=1200, report=written.append)
    assert listing(tmp_path / "two") == ["a/b", "a/c"] and sum(written) == 1200
    if sys.platform != "win32":
        (tmp_path / "plain").touch()
        assert (tmp_path / "two" / "a" / "b").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("cut", [20, 1000, 50_000, -3000, -8])
def test_truncated_archives_are_told(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.tar.gz").write_bytes(ARCHIVE[:cut])
    with pytest.raises(SceneError, match="not a whole tar archive"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", max_bytes=200_000)


def test_damaged_archives_are_told(tmp_path: Path) -> None:
    for place in (3, 200, 50_000, len(ARCHIVE) - 6):
        damaged = bytearray(ARCHIVE)
        damaged[place] ^= 0x55
        (tmp_path / "a.tar.gz").write_bytes(damaged)
        try:
            unpack(tmp_path / "a.tar.gz", tmp_path / str(place), max_bytes=200_000)
        except SceneError as error:
            assert "not a whole tar archive" in str(error)
        else:
            assert place == 3, "flags of gzip that change nothing"
    twice = archive_with(tmp_path / "twice.tar.gz", entry("a", size=3), entry("a", size=4))
    with pytest.raises(SceneError, match="not a whole tar archive"):
        unpack(twice, tmp_path / "twice", max_bytes=1000)
    below_a_file = archive_with(tmp_path / "below.tar.gz", entry("a", size=3), entry("a/b", size=4))
    with pytest.raises(SceneError, match="not a whole tar archive"):
        unpack(below_a_file, tmp_path / "below", max_bytes=1000)
