"""Videos, animated GIFs and webcams as scenes."""

import copy
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError
from foveasim.images.picture import Picture, fit_picture
from foveasim.scenes.source import FittedScenes, SceneSource, open_scenes
from foveasim.scenes.video import VideoScenes, WebcamScenes

FRAMES, FPS, STEP = 40, 25, 6
FRAME_MS = 1000 / FPS


def write_video(path: Path, code: str = "mp4v", frames: int = FRAMES, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a video whose frame n is grey of level n * STEP."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), FPS, (size[1], size[0]))
    if not writer.isOpened():
        pytest.skip(f"needs an OpenCV that writes {code}")
    for number in range(frames):
        writer.write(np.full((*size, 3), number * STEP, np.uint8))
    writer.release()
    return path


def write_gif(path: Path, durations_ms: list[int], **options: object) -> Path:
    frames = [Image.fromarray(np.full((48, 64, 3), 20 * (n + 1), np.uint8)) for n in range(len(durations_ms))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations_ms, loop=0, **options)
    return path


def number(picture: Picture) -> int:
    """Return which frame a picture is; codecs darken its grey by up to 4 levels."""
    return int(float(picture.image.mean()) + 4.5) // STEP


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


def test_a_video_is_one_moving_scene(video: Path) -> None:
    source = open_scenes(str(video))
    assert isinstance(source, SceneSource)
    assert source.moving is True
    assert len(source) == 1
    assert source.labels == ()
    found = source.picture(0)
    assert (found.size, found.name, found.label) == ((48, 64), "clip.mp4", -1)
    assert found.px_per_deg == pytest.approx(48 / 27.43, rel=1e-3)
    assert found.image.flags.c_contiguous
    assert open_scenes(video, px_per_deg=4.0).picture(0).px_per_deg == 4.0
    assert fit_picture(found, (96, 96)).size == (96, 96)
    assert source.duration_ms == pytest.approx(FRAMES * FRAME_MS)  # type: ignore[attr-defined]


def test_every_frame_at_its_time(video: Path) -> None:
    source = open_scenes(video)
    assert [number(source.picture(0, n * FRAME_MS)) for n in range(FRAMES)] == list(range(FRAMES))
    assert [number(source.picture(0, (n + 0.98) * FRAME_MS)) for n in range(FRAMES)] == list(range(FRAMES))


def test_a_frame_asked_for_again_is_the_same_array(video: Path) -> None:
    source = open_scenes(video)
    assert source.picture(0, 400.0).image is source.picture(0, 410.0).image


@pytest.mark.parametrize("suffix, code", [("mp4", "mp4v"), ("avi", "MJPG"), ("mkv", "XVID"), ("webm", "VP80")])
def test_jumps_in_time_are_exact(tmp_path: Path, suffix: str, code: str) -> None:
    source = open_scenes(write_video(tmp_path / f"clip.{suffix}", code))
    for wanted in (30, 5, 0, 39, 12, 11, 10, 38, 1):
        assert number(source.picture(0, wanted * FRAME_MS)) == wanted


def test_long_jumps_seek(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (64, 48))
    for frame in range(400):  # the position of a white bar tells the frame
        image = np.zeros((48, 64, 3), np.uint8)
        image[: frame // 20 + 1, : (frame % 20) * 3 + 3] = 255
        writer.write(image)
    writer.release()
    source = open_scenes(path)
    for wanted in (390, 100, 250, 0, 399):
        image = source.picture(0, wanted * FRAME_MS).image[..., 0] > 127
        assert (image[:, 0].sum() - 1) * 20 + (image[0].sum() - 3) // 3 == pytest.approx(wanted, abs=0.5)


def test_a_seek_that_lands_elsewhere_is_not_believed(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cv2.VideoCapture

    class LandsLate:
        def __init__(self, path: str) -> None:
            self._real = real(path)

        def set(self, what: int, value: float) -> bool:
            return bool(self._real.set(what, value + 2))

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

    monkeypatch.setattr(cv2, "VideoCapture", LandsLate)
    source = open_scenes(video)
    assert [number(source.picture(0, n * FRAME_MS)) for n in (20, 10, 11, 3)] == [20, 10, 11, 3]


def test_colours_are_rgb(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
    for _ in range(3):
        writer.write(np.broadcast_to(np.array([0, 0, 255], np.uint8), (48, 64, 3)).copy())  # OpenCV writes BGR
    writer.release()
    assert np.abs(open_scenes(tmp_path / "red.avi").picture(0).image.astype(int) - (255, 0, 0)).max() < 12


def test_it_loops_or_holds_its_last_frame(video: Path) -> None:
    looping, holding = open_scenes(video), open_scenes(video, loop=False)
    end = FRAMES * FRAME_MS
    assert number(looping.picture(0, end)) == 0
    assert number(looping.picture(0, 3 * end + 5 * FRAME_MS)) == 5
    assert number(holding.picture(0, end)) == FRAMES - 1
    assert number(holding.picture(0, 100 * end)) == FRAMES - 1
    assert number(holding.picture(0, 5 * FRAME_MS)) == 5


@pytest.mark.parametrize("suffix, code", [("avi", "MJPG"), ("mkv", "XVID")])
@pytest.mark.parametrize("loop", [True, False])
def test_a_video_that_breaks_off_holds_its_last_good_frame(
    tmp_path: Path, suffix: str, code: str, loop: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / f"cut.{suffix}", code)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_scenes(path, loop=loop)
    assert number(source.picture(0, 2 * FRAME_MS)) == 2
    with pytest.warns(UserWarning, match=rf"cut\.{suffix} breaks off after frame \d+ of {FRAMES}"):
        last = number(source.picture(0, (FRAMES - 1) * FRAME_MS))
    assert 2 < last < FRAMES - 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number(source.picture(0, (last - 1) * FRAME_MS)) == last - 1
        assert number(source.picture(0, (FRAMES - 2) * FRAME_MS)) == last
        assert number(source.picture(0, (FRAMES + 1) * FRAME_MS)) == (1 if loop else last)
    capfd.readouterr()


def test_a_length_that_the_container_does_not_know(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = VideoScenes(video)
    source._clip.count = None
    assert source.duration_ms == float("inf")
    assert number(source.picture(0, (FRAMES + 3) * FRAME_MS)) == 3  # the end is met on the way
    assert source.duration_ms == pytest.approx(FRAMES * FRAME_MS)


def test_a_length_overstated_by_a_frame_is_no_damage(video: Path) -> None:
    source = VideoScenes(video, loop=False)
    source._clip.count = FRAMES + 2
    assert number(source.picture(0, (FRAMES + 1) * FRAME_MS)) == FRAMES - 1
    assert source.duration_ms == pytest.approx(FRAMES * FRAME_MS)


def test_a_copy_opens_the_file_again(video: Path) -> None:
    source = open_scenes(video, px_per_deg=4.0, loop=False)
    source.picture(0, 20 * FRAME_MS)
    twin = copy.deepcopy(source)
    assert number(twin.picture(0)) == 0
    assert number(source.picture(0, 21 * FRAME_MS)) == 21
    assert number(twin.picture(0, 1e6)) == FRAMES - 1
    assert twin.picture(0).px_per_deg == 4.0


@pytest.mark.parametrize("time_ms", [-1.0, float("nan"), float("inf")])
def test_a_wrong_time_is_refused(video: Path, time_ms: float) -> None:
    with pytest.raises(InvalidValueError, match="time_ms"):
        open_scenes(video).picture(0, time_ms)


def test_a_video_has_one_scene(video: Path) -> None:
    with pytest.raises(InvalidValueError, match="index"):
        open_scenes(video).picture(1)


def test_what_is_no_video_is_refused(tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.avi").touch()
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size // 2])  # its index is at the end
    for name in ("text.mp4", "empty.avi", "cut.mp4"):
        with pytest.raises(SceneError, match=rf"{name}: not a video.*ffmpeg"):
            open_scenes(tmp_path / name)
    with pytest.raises(SceneError, match="no such file"):
        open_scenes("video", path=tmp_path / "gone.mp4")
    capfd.readouterr()


def test_a_time_base_is_no_frame_rate(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cv2.VideoCapture

    class Claims1000:
        def __init__(self, path: str) -> None:
            self._real = real(path)

        def isOpened(self) -> bool:
            return bool(self._real.isOpened())

        def get(self, what: int) -> float:
            return 1000.0 if what == cv2.CAP_PROP_FPS else float(self._real.get(what))

    monkeypatch.setattr(cv2, "VideoCapture", Claims1000)
    with pytest.raises(SceneError, match="no usable frame rate"):
        open_scenes(video)


def test_tiny_frames_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "tiny.avi", "MJPG", 3, (4, 64))
    with pytest.raises(SceneError, match=r"tiny\.avi: frames of 64 x 4 px"):
        open_scenes(tmp_path / "tiny.avi")


def test_video_and_pictures_in_one_list(video: Path) -> None:
    source = open_scenes([np.full((16, 16, 3), 9, np.uint8), video])
    assert source.moving is True
    assert number(source.picture(1, 7 * FRAME_MS)) == 7
    assert source.picture(0, 7 * FRAME_MS).image.max() == 9


def test_a_fitted_video_still_moves(video: Path) -> None:
    fitted = FittedScenes(open_scenes(video), (32, 32))
    assert fitted.moving is True
    assert [number(fitted.picture(0, n * FRAME_MS)) for n in (3, 9, 1)] == [3, 9, 1]
    assert fitted.picture(0).size == (32, 32)


# GIF


def test_a_gif_keeps_its_own_durations(tmp_path: Path) -> None:
    source = open_scenes(write_gif(tmp_path / "a.gif", [100, 300, 50]))
    level = [int(source.picture(0, t).image[0, 0, 0]) for t in (0, 99, 100, 399, 400, 449, 450, 551, 10, 420)]
    assert level == [20, 20, 40, 40, 60, 60, 20, 40, 20, 60]
    assert source.moving is True
    assert source.duration_ms == 450  # type: ignore[attr-defined]
    held = open_scenes(tmp_path / "a.gif", loop=False)
    assert int(held.picture(0, 5000).image[0, 0, 0]) == 60


def test_a_still_gif_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 64, 3), 33, np.uint8)).save(tmp_path / "still.gif")
    source = open_scenes(tmp_path / "still.gif")
    assert source.moving is False
    assert np.all(source.picture(0).image == 33)


def test_a_gif_that_breaks_off(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    frames = [Image.fromarray(one) for one in noise]
    path = tmp_path / "cut.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"cut\.gif breaks off after frame 2"):
        source = open_scenes(path)
    assert source.duration_ms == 200  # type: ignore[attr-defined]
    assert source.picture(0, 150).image.std() > 20


def test_a_gif_with_a_damaged_second_frame(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "second.gif", [100, 100])
    stored = path.read_bytes()
    second = stored.rindex(b"\x2c")  # the separator before the second frame's descriptor
    path.write_bytes(stored[: second + 5])
    with pytest.warns(UserWarning, match=r"second\.gif breaks off after frame 1"):
        source = open_scenes(path)
    assert np.all(source.picture(0, 150).image == 20)


def test_a_damaged_gif_is_refused(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "head.gif", [100, 100])
    path.write_bytes(path.read_bytes()[:13])
    with pytest.raises(SceneError, match=r"head\.gif"):
        open_scenes(path).picture(0)


# Webcam


class FakeCamera:
    """A camera of 500 frames a second that shows how many it has given, and is unplugged after ``lasts``."""

    lasts = 10**9
    opened = True

    def __init__(self, device: int) -> None:
        self.given = 0
        self.released = threading.Event()

    def isOpened(self) -> bool:
        return self.opened

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(0.002)
        self.given += 1
        if self.given > self.lasts:
            return False, None
        return True, np.full((48, 64, 3), (0, 0, min(self.given, 255)), np.uint8)

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCamera]]:
    class Camera(FakeCamera):
        pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    yield Camera


def test_a_webcam_gives_its_newest_frame(camera: type[FakeCamera]) -> None:
    source = open_scenes("webcam")
    assert isinstance(source, WebcamScenes)
    assert source.moving is True
    early = source.picture(0)
    time.sleep(0.1)
    late = source.picture(0)
    assert late.image[0, 0, 0] > early.image[0, 0, 0] + 5  # RGB: the camera counts in red
    assert late.image[0, 0, 2] == 0
    assert late.size == (48, 64)
    source.close()
    assert not source._thread.is_alive()


def test_an_unplugged_webcam_holds_its_last_frame(camera: type[FakeCamera]) -> None:
    camera.lasts = 3
    source = open_scenes("webcam")
    source._thread.join(2)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="webcam 0 gives no more pictures"):
        source.picture(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source.picture(0).image[0, 0, 0] == 3


def test_no_webcam_is_an_error(camera: type[FakeCamera]) -> None:
    camera.opened = False
    with pytest.raises(SceneError, match=r"webcam 0 cannot be opened\. Connect one"):
        open_scenes("webcam")
    camera.opened, camera.lasts = True, 0
    with pytest.raises(SceneError, match="no picture"):
        open_scenes("webcam")
    with pytest.raises(InvalidTypeError):
        open_scenes("webcam", device="0")
