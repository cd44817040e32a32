"""Files are the old one or the new one, whatever happens while they are written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from foveasim.runs import whole_files
from foveasim.runs.whole_files import make_folder, part_path, remove_parts, try_lock, whole_file, write_atomically

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks and links")


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old" and part_path(path).read_bytes() == b"new"
        raise ZeroDivisionError
    assert listing(path.parent) == ["a.json"] and path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert listing(path.parent) == ["a.json"] and path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    part_path(path).write_bytes(b"the beginning of something longer")
    write_atomically(path, b"new")
    assert listing(tmp_path) == ["a.json"] and path.read_bytes() == b"new"


def test_two_that_write_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole_file(path) as slow:
        slow.write(b"slow")
        write_atomically(path, b"quick")
        assert path.read_bytes() == b"quick"
    assert listing(tmp_path) == ["a.json"] and path.read_bytes() == b"slow"


def test_only_what_nobody_writes_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".dead.part").write_bytes(b"left behind")
    (tmp_path / "mine.part").write_bytes(b"a user's own")
    with whole_file(tmp_path / "living") as file:
        file.write(b"living")
        remove_parts(tmp_path)
        assert listing(tmp_path) == [".living.part", "mine.part"]
    assert listing(tmp_path) == ["living", "mine.part"]
    remove_parts(tmp_path / "missing")


def test_a_link_that_somebody_laid_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    part_path(tmp_path / "a").symlink_to(tmp_path / "theirs")
    write_atomically(tmp_path / "a", b"mine")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert (tmp_path / "a").read_bytes() == b"mine" and not (tmp_path / "a").is_symlink()


def test_the_longest_name_that_a_disk_takes(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        write_atomically(tmp_path / name, b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a", b"new")
    assert listing(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_a_lock_counts_where_there_are_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    path = tmp_path / "a"
    with path.open("wb") as one, path.open("rb") as two:
        assert try_lock(one) and not try_lock(two)  # type: ignore[arg-type]
        monkeypatch.setattr(fcntl, "flock", lambda *of: (_ for _ in ()).throw(OSError(95, "not supported")))
        assert try_lock(two)  # type: ignore[arg-type]
    assert whole_files.__all__ == sorted(whole_files.__all__)


def test_a_folder_is_made_and_tried(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert listing(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "b")
