from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveasim.drawing.movie import GIF_MAX_BYTES, GifMovie, Mp4Movie, open_movie
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError, UnknownNameError
from foveasim.eye.retina import make_retina
from foveasim.recording.record import RecordConfig, record
from foveasim.scanpath.scanpath import read_csv

SIZE = (90, 160)


class Broken:
    """An agent that raises."""

    def reset(self, lanes: NDArray[np.bool_]) -> None: ...

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        raise RuntimeError("no idea where to look")


def config(out: Path, changes: dict[str, Any] | None = None, **more: Any) -> RecordConfig:
    settings: dict[str, Any] = {"network": None, "size": (180, 320), "seconds": 0.5, "out": str(out)}
    return RecordConfig(**(settings | (changes or {}) | more))


def plain(level: int) -> NDArray[np.uint8]:
    return np.full((*SIZE, 3), level, np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    movie = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, frame = movie.read()
        if not found:
            break
        frames.append(np.asarray(frame[:, :, ::-1], np.uint8))
    movie.release()
    return frames


def test_mp4_holds_what_was_added(tmp_path: Path) -> None:
    with open_movie(tmp_path / "a.mp4", 10, SIZE) as movie:
        for level in (40, 120, 200):
            movie.add(plain(level))
    frames = frames_of(tmp_path / "a.mp4")
    assert len(frames) == 3
    for frame, level in zip(frames, (40, 120, 200), strict=True):
        assert np.abs(frame.astype(int) - level).max() <= 4
    head = (tmp_path / "a.mp4").read_bytes()
    assert b"avc1" in head
    assert head.index(b"moov") < head.index(b"mdat")  # plays before it is loaded whole
    assert names(tmp_path) == ["a.mp4"]


def test_mp4_of_an_odd_size_loses_a_line(tmp_path: Path) -> None:
    with Mp4Movie(tmp_path / "odd.mp4", 10, (91, 161)) as movie:
        movie.add(np.zeros((91, 161, 3), np.uint8))
    assert frames_of(tmp_path / "odd.mp4")[0].shape == (90, 160, 3)


def test_gif_holds_what_was_added_for_as_long(tmp_path: Path) -> None:
    with GifMovie(tmp_path / "a.gif", 10, SIZE) as movie:
        for level in (0, 0, 100, 200):
            movie.add(plain(level))
    with Image.open(tmp_path / "a.gif") as gif:
        total, levels = 0, []
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            total += gif.info["duration"]
            levels.append(np.asarray(gif.convert("RGB"))[0, 0, 0])
        assert gif.info["loop"] == 0
    assert total == 400
    assert np.abs(np.array(levels, int) - [0, 100, 200]).max() <= 8


def test_gif_of_many_frames_a_second_keeps_its_time(tmp_path: Path) -> None:
    with GifMovie(tmp_path / "fast.gif", 60, SIZE) as movie:
        for index in range(90):
            movie.add(plain(index * 2))
    with Image.open(tmp_path / "fast.gif") as gif:
        total = 0
        for index in range(getattr(gif, "n_frames", 1)):
            gif.seek(index)
            total += gif.info["duration"]
    assert total == pytest.approx(1500, abs=70)


def test_gif_is_made_smaller_until_it_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveasim.drawing.movie.GIF_MAX_BYTES", GIF_MAX_BYTES // 20)
    noise = np.random.default_rng(0).integers(0, 255, (8, 360, 640, 3), np.uint8)
    with GifMovie(tmp_path / "noise.gif", 10, (360, 640)) as movie:
        for picture in noise:
            movie.add(picture)
    assert (tmp_path / "noise.gif").stat().st_size <= GIF_MAX_BYTES // 20


def test_frames_are_exact(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    with open_movie(tmp_path / "frames", 10, SIZE) as movie:
        movie.add(picture)
        movie.add(plain(7))
    assert names(tmp_path / "frames") == ["frame-000001.png", "frame-000002.png"]
    with Image.open(tmp_path / "frames" / "frame-000001.png") as image:
        assert np.array_equal(np.asarray(image), picture)
    with pytest.raises(InvalidValueError, match="not an empty folder"):
        open_movie(tmp_path / "frames", 10, SIZE)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_movie_keeps_the_old_file_until_it_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    movie = open_movie(path, 10, SIZE, overwrite=True)
    movie.add(plain(0))
    assert path.read_bytes() == b"old"
    movie.discard()
    assert path.read_bytes() == b"old"
    with open_movie(path, 10, SIZE, overwrite=True):
        pass
    assert path.read_bytes() == b"old"  # without a picture there is no movie
    with pytest.raises(KeyboardInterrupt), open_movie(path, 10, SIZE, overwrite=True) as movie:
        movie.add(plain(0))
        raise KeyboardInterrupt
    assert path.read_bytes()[:3] != b"old"
    assert names(tmp_path) == [name]


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    movie = GifMovie(tmp_path / "full.gif", 10, SIZE)
    movie._spool.close()
    movie._spool = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(FoveasimError, match=r"cannot write .*full\.gif after 0 pictures: No space left"):
        movie.add(plain(0))
    assert names(tmp_path) == []


def test_an_encoder_that_dies_is_said(tmp_path: Path) -> None:
    movie = Mp4Movie(tmp_path / "a.mp4", 10, SIZE)
    movie._ffmpeg.kill()
    movie._ffmpeg.wait()
    with pytest.raises(FoveasimError, match=r"cannot write .*a\.mp4"):
        for _ in range(100):
            movie.add(plain(0))
        movie.close()
    assert names(tmp_path) == []


def test_what_cannot_be_a_movie_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"unknown ending '\.avi'"):
        open_movie(tmp_path / "a.avi", 10, SIZE)
    with pytest.raises(InvalidValueError, match="does not exist"):
        open_movie(tmp_path / "no" / "a.mp4", 10, SIZE)
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(InvalidValueError, match="it is a folder"):
        open_movie(tmp_path / "folder.gif", 10, SIZE)
    with pytest.raises(InvalidValueError, match="fps"):
        open_movie(tmp_path / "a.gif", 0, SIZE)
    movie = open_movie(tmp_path / "a.gif", 10, SIZE)
    with pytest.raises(InvalidValueError, match="picture must be"):
        movie.add(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InvalidTypeError, match="uint8"):
        movie.add(np.zeros((*SIZE, 3), np.float32))  # type: ignore[arg-type]
    movie.close()
    with pytest.raises(InvalidValueError, match="closed"):
        movie.add(plain(0))


def test_record_writes_movie_and_scanpaths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = config(tmp_path / "a.mp4", seconds=1.5, budget=3, agent="raster", scanpath=str(tmp_path / "a.csv"))
    assert record(made) == 0
    assert len(frames_of(tmp_path / "a.mp4")) == 45
    (path,) = read_csv(tmp_path / "a.csv")
    assert (path.image, path.subject, len(path)) == ("astronaut", "raster", 3)
    assert path.duration_ms[:2].tolist() == pytest.approx([300, 300], abs=0.01)
    said = capsys.readouterr().out
    assert "a.mp4" in said.replace("\n", "")
    assert names(tmp_path) == ["a.csv", "a.mp4", "a.mp4.episode.json"]


def test_a_scene_that_is_seen_twice_gives_two_scanpaths(tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(picture)
    made = config(
        tmp_path / "a.gif",
        scenes=str(picture),
        budget=2,
        agent="centre",
        seconds=3,
        fps=5.0,
        scanpath=str(tmp_path / "a.csv"),
    )
    assert record(made) == 0
    assert [path.subject for path in read_csv(tmp_path / "a.csv")] == ["centre", "centre 2", "centre 3"]


def test_the_same_config_records_the_same_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(config(tmp_path / name, agent="random", retina="patches", seconds=0.8, fps=10.0, seed=5))
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()
    record(config(tmp_path / "c", agent="random", retina="patches", seconds=0.8, fps=10.0, seed=6))
    last = "frame-000008.png"
    assert (tmp_path / "c" / last).read_bytes() != (tmp_path / "a" / last).read_bytes()


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foveasim.viewer.session import Session

    count = 0

    def interrupt(self: Session, dt_ms: float) -> None:
        nonlocal count
        count += 1
        if count == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "advance", interrupt)
    assert record(config(tmp_path / "a.mp4", seconds=100, scanpath=str(tmp_path / "a.csv"))) == 130
    assert len(frames_of(tmp_path / "a.mp4")) == 7
    assert len(read_csv(tmp_path / "a.csv")) == 1


def test_options_reach_retina_agent_and_saccades() -> None:
    made = config(
        Path("a"),
        retina="disc",
        retina_options={"hidden_ratio": 0.5},
        agent="raster",
        agent_arguments={"rows": 2, "cols": 2},
        max_amplitude_deg=3.0,
    )
    session = made.open_session(threaded=False)
    assert session.retina == make_retina("disc", hidden_ratio=0.5)
    start = session.gaze_px
    while session.fixations < 2 or session.in_flight:
        session.advance(50)
    step = np.hypot(session.gaze_px[0] - start[0], session.gaze_px[1] - start[1])
    assert step == pytest.approx(3 * min(session.size) / 27.4, rel=0.01)
    session.close()


def test_a_signal_during_the_end_of_a_movie_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movie = GifMovie(tmp_path / "a.gif", 10, SIZE)
    movie.add(plain(9))
    encode = GifMovie._encode

    def interrupted(self: GifMovie, *rest: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        encode(self, *rest)

    monkeypatch.setattr(GifMovie, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        movie.close()
    assert names(tmp_path) == ["a.gif"]


def test_an_agent_that_fails_ends_the_recording_with_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_agents", sys.modules[__name__])
    with pytest.raises(FoveasimError, match="Broken raised RuntimeError: no idea where to look"):
        record(config(tmp_path / "a.mp4", agent="my_agents:Broken"))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"out": "a.avi"}, InvalidValueError, "unknown ending"),
        ({"out": ""}, InvalidTypeError, "out must name a file"),
        ({"seconds": 0}, InvalidValueError, "seconds"),
        ({"fps": 1000.0}, InvalidValueError, "fps"),
        ({"size": (20, 20)}, InvalidValueError, "size"),
        ({"agent": "nobody"}, UnknownNameError, "nobody"),
        ({"retina": "nothing"}, UnknownNameError, "nothing"),
        ({"fovea": 9.0}, InvalidValueError, "fovea must be"),
        ({"scanpath": "no/such/folder.csv"}, InvalidValueError, "the folder .* does not exist"),
        ({"scanpath": "."}, InvalidValueError, "it is a folder"),
        ({"retina": "disc", "retina_options": {"hidden": 1}}, InvalidTypeError, "hidden"),
        ({"agent_arguments": {"nonsense": 1}}, InvalidTypeError, "nonsense"),
        ({"retina": "disc", "fovea": 4.0}, InvalidValueError, "fovea must be at most 2.24"),
        ({"scatter": -1.0}, InvalidValueError, "scatter"),
        ({"max_amplitude_deg": 0.0}, InvalidValueError, "max_amplitude_deg"),
        ({"network": "none.safetensors"}, FoveasimError, "none.safetensors"),
    ],
)
def test_wrong_configs_are_refused_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        record(config(Path("a.mp4"), changes))
    assert names(tmp_path) == []
