"""``foveasim data get`` against a server on this machine: resuming, checking, unpacking, and every way to fail."""

from __future__ import annotations

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from foveasim.cli.commands import main
from foveasim.errors import InvalidValueError, SceneError, UnknownNameError
from foveasim.images import download
from foveasim.images.download import DATASETS, DataConfig, Dataset, DownloadError, get, run

NO_WAIT = (0.0, 0.0)


@dataclass
class Server:
    """What a server sends, and what it was asked for."""

    content: bytes = b""
    ranges: bool = True
    drop_after: list[int] = field(default_factory=list)  # bytes that each of the next answers breaks off after
    status: list[int] = field(default_factory=list)  # of the next answers
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False  # no length, and more than there should be
    stall: threading.Event | None = None  # wait for it in the middle
    requested: list[str | None] = field(default_factory=list)
    url: str = ""


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            requested = self.headers.get("Range")
            server.requested.append(requested)
            if server.status:
                self.send_error(server.status.pop(0))
                return
            start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested and server.ranges else 0
            if start and start >= len(server.content):
                self.send_error(416)
                return
            body = server.content[start:]
            self.send_response(206 if start else 200)
            sent = {"Content-Type": "application/gzip"}
            if not server.endless:
                sent["Content-Length"] = str(len(body))
            if start:
                sent["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            for name, value in {**sent, **server.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                if server.stall is not None:
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    server.stall.wait(20)
                elif server.drop_after:
                    self.wfile.write(body[: server.drop_after.pop(0)])
                else:
                    self.wfile.write(body + (b"more" if server.endless else b""))
            except ConnectionError:
                pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.url = f"http://127.0.0.1:{http.server_address[1]}/small.tar.gz"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def packed(files: dict[str, bytes]) -> bytes:
    """Return a .tar.gz; random content keeps its size."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


CONTENT = {"small/a.bin": os.urandom(60_000), "small/sub/b.bin": os.urandom(40_000), "._small": b"left out"}
ARCHIVE = packed(CONTENT)


@pytest.fixture
def small(server: Server) -> Dataset:
    """A data set of 0.1 MB, served."""
    server.content = ARCHIVE
    return of_archive(ARCHIVE, server.url)


def of_archive(archive: bytes, url: str) -> Dataset:
    return Dataset(
        title="Small",
        url=url,
        bytes=len(archive),
        sha256=hashlib.sha256(archive).hexdigest(),
        folder="small",
        unpacked_bytes=200_000,
        holds={"a.bin": (1, 60_000), "sub/*.bin": (1, None)},
        terms="anything",
        opened_by="open({path!r})",
    )


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = ["small/a.bin", "small/sub/b.bin"]


def test_get_downloads_checks_and_unpacks(tmp_path: Path, server: Server, small: Dataset) -> None:
    path = get(small, tmp_path / "new" / "data")
    assert path == tmp_path / "new" / "data" / "small"
    assert listing(path.parent) == WHOLE and not list(path.parent.glob(".*"))
    assert (path / "a.bin").read_bytes() == CONTENT["small/a.bin"]
    assert server.requested == [None]
    assert get(small, path.parent) == path
    assert server.requested == [None], "what is there is not downloaded again"


def test_the_archive_is_kept_on_request_and_used(tmp_path: Path, server: Server, small: Dataset) -> None:
    get(small, tmp_path, keep_archive=True)
    assert listing(tmp_path) == ["small.tar.gz", *WHOLE]
    (tmp_path / "small").rename(tmp_path / "elsewhere")
    get(small, tmp_path)
    assert server.requested == [None]
    assert "small.tar.gz" not in listing(tmp_path)


def test_a_lost_connection_is_gone_on_with(
    tmp_path: Path, server: Server, small: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    server.drop_after = [30_000, 20_000]
    get(small, tmp_path, waits_s=NO_WAIT)
    assert server.requested == [None, "bytes=30000-", "bytes=50000-"]
    assert listing(tmp_path) == WHOLE
    assert "at 0.0 of 0.1 MB; trying again in 0 s" in capsys.readouterr().out


def test_a_connection_lost_for_good_says_how_to_go_on(
    tmp_path: Path, server: Server, small: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    server.drop_after = [60_000, 0, 0]
    with pytest.raises(
        DownloadError, match=r"0\.1 MB are saved in .*part\. .*run the same command again, which goes on"
    ):
        get(small, tmp_path, waits_s=NO_WAIT)
    assert (tmp_path / "small.tar.gz.part").read_bytes() == ARCHIVE[:60_000]
    get(small, tmp_path)
    assert server.requested[-1] == "bytes=60000-"
    assert "going on at 0.1 MB" in capsys.readouterr().out
    assert listing(tmp_path) == WHOLE


def test_progress_earns_new_tries(
    tmp_path: Path, server: Server, small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveasim.images.download.PROGRESS_BYTES", 10_000)
    server.drop_after = [10_000] * 8
    get(small, tmp_path, waits_s=(0.0,))
    assert len(server.requested) == 9


def test_no_server_says_how_to_go_on(tmp_path: Path, server: Server, small: Dataset) -> None:
    nowhere = replace(small, url="http://127.0.0.1:9/small.tar.gz")
    with pytest.raises(DownloadError, match=r"refused.* Nothing was saved\. .*put the archive itself into"):
        get(nowhere, tmp_path, waits_s=NO_WAIT)
    (tmp_path / "small.tar.gz").write_bytes(ARCHIVE)
    get(nowhere, tmp_path)
    assert listing(tmp_path) == WHOLE


def test_a_server_without_ranges_begins_again(
    tmp_path: Path, server: Server, small: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ranges, server.drop_after = False, [30_000]
    get(small, tmp_path, waits_s=NO_WAIT)
    assert server.requested == [None, "bytes=30000-"]
    assert listing(tmp_path) == WHOLE
    assert "beginning again" in capsys.readouterr().out


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(tmp_path: Path, server: Server, small: Dataset) -> None:
    server.status = [503, 429]
    get(small, tmp_path / "busy", waits_s=NO_WAIT)
    server.requested, server.status = [], [404]
    with pytest.raises(DownloadError, match=r"HTTP 404 .*--url"):
        get(small, tmp_path / "gone", waits_s=NO_WAIT)
    assert len(server.requested) == 1


def test_another_file_is_refused(tmp_path: Path, server: Server, small: Dataset) -> None:
    server.content, server.headers = b"<html>Please log in</html>" * 3, {"Content-Type": "text/html"}
    with pytest.raises(DownloadError, match=r"is 78 bytes of text/html, not the [\d,]+ of the data set"):
        get(small, tmp_path)
    (tmp_path / "small.tar.gz.part").write_bytes(ARCHIVE[:100])
    with pytest.raises(DownloadError, match=r"HTTP 416 .*shorter"):
        get(small, tmp_path)
    server.content = ARCHIVE + b"longer"
    with pytest.raises(DownloadError, match="the file has changed"):
        get(small, tmp_path)
    assert (tmp_path / "small.tar.gz.part").stat().st_size == 100
    (tmp_path / "small.tar.gz.part").unlink()
    server.content, server.headers, server.endless = ARCHIVE, {}, True
    with pytest.raises(DownloadError, match="delivers more than"):
        get(replace(small, bytes=small.bytes - 50), tmp_path)


def test_a_range_that_was_not_asked_for_is_refused(tmp_path: Path, server: Server, small: Dataset) -> None:
    (tmp_path / "small.tar.gz.part").write_bytes(ARCHIVE[:100])
    server.headers = {"Content-Range": f"bytes 50-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"}
    with pytest.raises(DownloadError, match="requested bytes from 100, the server sent 50-"):
        get(small, tmp_path)


def test_a_wrong_checksum_removes_what_came(tmp_path: Path, server: Server, small: Dataset) -> None:
    server.content = ARCHIVE[:500] + b"?" + ARCHIVE[501:]
    with pytest.raises(DownloadError, match=rf"SHA-256 is \w+, not {small.sha256}.*It was removed.*--url"):
        get(small, tmp_path)
    assert listing(tmp_path) == []
    (tmp_path / "small.tar.gz").write_bytes(server.content)
    with pytest.raises(DownloadError, match="was not touched: remove it"):
        get(small, tmp_path)
    assert listing(tmp_path) == ["small.tar.gz"]


def test_a_part_that_is_too_long_is_begun_again(tmp_path: Path, server: Server, small: Dataset) -> None:
    (tmp_path / "small.tar.gz.part").write_bytes(ARCHIVE + b"x")
    get(small, tmp_path)
    assert server.requested == [None] and listing(tmp_path) == WHOLE


def test_a_whole_part_is_not_downloaded_again(tmp_path: Path, server: Server, small: Dataset) -> None:
    (tmp_path / "small.tar.gz.part").write_bytes(ARCHIVE)
    get(small, tmp_path)
    assert server.requested == [] and listing(tmp_path) == WHOLE


def test_what_is_there_but_not_whole_is_left_alone(tmp_path: Path, server: Server, small: Dataset) -> None:
    path = get(small, tmp_path)
    (path / "a.bin").write_bytes(b"1234")
    with pytest.raises(SceneError, match=r"not whole: a\.bin has 4 of 60,000 bytes\. Remove it and run"):
        get(small, tmp_path)
    (path / "a.bin").unlink()
    with pytest.raises(SceneError, match=r"0 of 1 files a\.bin"):
        get(small, tmp_path)
    assert listing(tmp_path) == ["small/sub/b.bin"] and server.requested == [None]


def test_remains_of_a_killed_run_are_cleared(tmp_path: Path, small: Dataset) -> None:
    (tmp_path / ".small.unfinished" / "small").mkdir(parents=True)
    (tmp_path / ".small.unfinished" / "small" / "a.bin").write_bytes(b"half")
    path = get(small, tmp_path)
    assert (path / "a.bin").read_bytes() == CONTENT["small/a.bin"]
    assert not (tmp_path / ".small.unfinished").exists()


def test_too_little_space_is_told_before(
    tmp_path: Path, server: Server, small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr("foveasim.images.download.shutil.disk_usage", lambda path: usage._replace(free=250_000))
    with pytest.raises(DownloadError, match=r"0\.0 GB are free, 0\.0 GB are needed\. .*another disk"):
        get(small, tmp_path)
    assert server.requested == []
    (tmp_path / "small.tar.gz.part").write_bytes(ARCHIVE[:60_000])  # what is there need not be stored again
    get(small, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_how_to_go_on(tmp_path: Path, small: Dataset) -> None:
    (tmp_path / "small.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"the disk of .* is full\. .*Free some space and run the same command"):
        get(small, tmp_path)


def test_a_disk_that_fills_up_while_unpacking_keeps_the_archive(
    tmp_path: Path, small: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        (tmp_path / ".small.unfinished").mkdir()
        raise OSError(28, "No space left on device", "a.bin")

    monkeypatch.setattr("foveasim.images.archives.unpack", full)
    with pytest.raises(DownloadError, match=r"is full\. 0\.1 MB are saved in .*small\.tar\.gz\."):
        get(small, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["small.tar.gz"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, small: Dataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"cannot write to .*file.* Choose another folder"):
        get(small, tmp_path / "file" / "data")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks")
def test_two_at_once_are_refused(tmp_path: Path, server: Server, small: Dataset) -> None:
    server.stall = threading.Event()
    errors: list[BaseException] = []

    def first() -> None:
        try:
            get(small, tmp_path, waits_s=NO_WAIT)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        while not server.requested:
            thread.join(0.01)
        with pytest.raises(DownloadError, match="another process is getting data"):
            get(small, tmp_path)
    finally:
        stall, server.stall = server.stall, None
        stall.set()
        thread.join(20)
    assert errors == [] and listing(tmp_path) == WHOLE


INTERRUPTED = """
import sys
from foveasim.cli import commands as cli
from foveasim.images import download
sys.path.insert(0, sys.argv[1])
download.DATASETS["small"] = download.Dataset("Small", sys.argv[2], int(sys.argv[3]), sys.argv[4], "small", 200_000,
                                              {}, "anything", "")
sys.exit(cli.main(["data", "get", "small", sys.argv[1]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_keeps_what_came_and_says_so(tmp_path: Path, server: Server, small: Dataset) -> None:
    server.stall = threading.Event()
    arguments = [str(tmp_path), small.url, str(small.bytes), small.sha256]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    part = tmp_path / "small.tar.gz.part"
    try:
        for _ in range(2000):
            if part.exists() and part.stat().st_size >= len(ARCHIVE) // 2:
                break
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        printed, complained = process.communicate(timeout=20)
    finally:
        server.stall.set()
        process.kill()
    assert process.returncode == 130
    assert re.search(r"0\.1 MB are saved in .*small\.tar\.gz\.part\. The same command goes on from there\.", printed)
    assert "Traceback" not in complained and "stopped" in complained
    assert part.read_bytes() == ARCHIVE[: len(ARCHIVE) // 2]
    server.stall = None
    get(small, tmp_path)
    assert server.requested == [None, f"bytes={len(ARCHIVE) // 2}-"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/small.tar.gz", "file:///etc/hostname", "small.tar.gz"])
def test_other_addresses_are_refused(tmp_path: Path, small: Dataset, url: str) -> None:
    with pytest.raises(InvalidValueError, match="must begin with http"):
        get(small, tmp_path, url=url)


def test_command_line(
    tmp_path: Path, server: Server, small: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, "small", replace(small, url="http://127.0.0.1:9/small.tar.gz"))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "get", "small", "two words", "--url", server.url, "--keep_archive"]) == 0
    assert listing(tmp_path / "two words") == ["small.tar.gz", *WHOLE]
    assert "Small is at two words/small (anything)." in capsys.readouterr().out
    assert main(["data", "get", "small", "--url", server.url]) == 0
    assert listing(tmp_path / "data") == WHOLE
    assert main(["data", "get", "smal"]) == 1
    assert "Did you mean 'small'? Choose from stl10, imagenette, small." in capsys.readouterr().err
    for words in (["data"], ["data", "set", "small"], ["data", "get", "small", "a", "b"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2


def test_unknown_data_sets_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no data set 'cifar'"):
        run(DataConfig("get", "cifar"))


def test_pinned_figures_fit_each_other() -> None:
    for name, dataset in DATASETS.items():
        assert re.fullmatch(r"[0-9a-f]{64}", dataset.sha256), name
        assert sum(count * (size or 0) for count, size in dataset.holds.values()) < dataset.unpacked_bytes
    assert DATASETS["stl10"].bytes == 2_640_397_119


def test_get_leaves_nothing_of_a_bad_archive(tmp_path: Path, server: Server) -> None:
    server.content = packed({"small/a": b"xx", "small/../../b": b"xxx"})
    folder = tmp_path / "data"
    with pytest.raises(SceneError, match="leads out"):
        get(of_archive(server.content, server.url), folder)
    assert listing(folder) == ["small.tar.gz"]
    assert not (folder / ".small.unfinished").exists() and not (tmp_path / "b").exists()


def test_get_refuses_an_archive_of_something_else(tmp_path: Path, server: Server) -> None:
    server.content = packed({"small/a.bin": bytes(60_000)})
    with pytest.raises(SceneError, match=r"does not hold the whole data set: 0 of 1 files sub/\*\.bin"):
        get(of_archive(server.content, server.url), tmp_path)
    assert listing(tmp_path) == ["small.tar.gz"]
