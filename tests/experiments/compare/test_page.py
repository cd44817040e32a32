"""The HTML report: whole in itself, safe against what file names hold, and working in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveasim.agents.evaluation.judge import Scenes
from foveasim.agents.evaluation.measures import NUMBERS
from foveasim.agents.evaluation.scene_runner import AgentRun, FixationFrame
from foveasim.experiments.compare.files import Comparison
from foveasim.experiments.compare.page import LONG_SIDE_PX, render_page, report_data, write_report
from foveasim.experiments.compare.statistics import summarise

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>&\u2028'\".png"
SIZE = (48, 64)
FIXATIONS = 4


def comparison(
    *, std: bool = True, report_scenes: tuple[int, ...] = (0, 2), size: tuple[int, int] = SIZE
) -> Comparison:
    """Two agents, the second of which is better, on three scenes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    base = np.stack([x * 255 / size[1], y * 255 / size[0], np.full(size, 90)], 2).astype(np.uint8)
    image = np.stack([base, base[:, ::-1], base[::-1]])
    runs = []
    for place, label in enumerate(("random", f"mine {HOSTILE}")):
        points = rng.uniform(0.1, 0.9, (1, 3, FIXATIONS, 2)) * [size[1], size[0]]
        points[:, :, 0] = [size[1] / 2, size[0] / 2]
        falling = np.linspace(0.08, 0.02 - 0.01 * place, FIXATIONS)
        numbers = {name: np.ones((1, 3, FIXATIONS)) for name in NUMBERS}
        numbers |= {
            "mse": np.tile(falling, (1, 3, 1)) * rng.uniform(0.8, 1.2, (1, 3, 1)),
            "psnr": np.full((1, 3, FIXATIONS), np.inf),
            "sharp": np.tile(np.linspace(0.2, 0.6, FIXATIONS), (1, 3, 1)),
        }
        frames = {scene: frames_of(image[scene], points[0, scene], numbers, scene, std) for scene in report_scenes}
        amplitude = np.linalg.norm(np.diff(points, axis=2), axis=-1).astype(np.float32) / 1.75
        runs.append(AgentRun(label, label, place == 1, numbers, points.astype(np.float32), amplitude, 0.1, 3, frames))
    config = {"data": [f"/secret/place/{HOSTILE}@test"], "measure": "mse", "retina": "disc", "fixations": FIXATIONS}
    config |= {"seeds": 1, "retina_options": {"hidden_ratio": 0.8}}
    result = summarise(runs, size, reference="random", ceiling=runs[1].label, resamples=100)
    return Comparison(config, "unet", Scenes(image, ("one", "two", HOSTILE)), (0,), tuple(runs), result, True)


def frames_of(
    image: NDArray[np.uint8], points: NDArray[Any], numbers: dict[str, NDArray[Any]], scene: int, std: bool
) -> list[FixationFrame]:
    found = []
    for n, (px, py) in enumerate(points.tolist()):
        values = {name: float(number[0, scene, n]) for name, number in numbers.items()}
        wrong = (image // 2 + 20 * n).astype(np.uint8)
        deviation = np.full(image.shape[:2], 0.1 * n, np.float32) if std else None
        found.append(FixationFrame((px, py), image, image, wrong, deviation, values))
    return found


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the comparison above."""
    return render_page(report_data(comparison()))


def held(page: str) -> Any:
    """Return the data that a page holds, as a browser reads it."""
    found = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.findall(r"https?:|//[a-z]|@import|<link|<iframe|url\(|fetch\(|XMLHttp|<!--", page.replace("// ", ""))
    assert "default-src 'none'" in page
    assert len(re.findall("<script", page)) == 2


def test_what_file_names_hold_stays_text(page: str) -> None:
    assert "<img" not in page
    assert "document.title='broken'" not in page.replace("\\u003c", "").split('id="data"')[0]
    data = held(page)
    assert data["stories"][1]["name"] == HOSTILE
    assert data["agents"][1]["label"].endswith(HOSTILE)
    assert "innerHTML" not in page
    assert "insertAdjacent" not in page


def test_where_data_lay_is_not_told(page: str) -> None:
    assert "secret" not in page


def test_pictures_are_small_and_each_is_held_once() -> None:
    data = held(render_page(report_data(comparison(size=(300, 400)))))
    assert len(set(data["images"])) == len(data["images"])
    sizes = {Image.open(io.BytesIO(base64.b64decode(text))).size for text in data["images"]}
    assert sizes == {(LONG_SIDE_PX, 240)}
    story = data["stories"][0]
    assert all(frame["belief"] == story["image"] for path in story["agents"] for frame in path)


def test_numbers_and_maps_of_a_step() -> None:
    whole = comparison()
    data = report_data(whole)
    frame, recorded = data["stories"][1]["agents"][0][2], whole.runs[0].frames[2][2]
    assert (frame["x"] * 64, frame["y"] * 48) == pytest.approx(recorded.fixation_px, rel=1e-4)
    assert frame["values"]["mse"] == pytest.approx(recorded.numbers["mse"], rel=1e-4)
    assert frame["values"]["psnr"] is None  # infinite
    error = np.array(Image.open(io.BytesIO(base64.b64decode(data["images"][frame["error"]]))))
    expected = np.abs(recorded.prediction.astype(int) - whole.scenes.image[2]).mean(2) / 255 / data["error_full"] * 255
    assert np.abs(error - expected.clip(0, 255)).mean() < 3
    assert data["std_full"] == pytest.approx(0.3)
    assert data["measures"][0]["difference"][1][0] < 0


def test_a_network_without_uncertainty_has_no_map() -> None:
    data = report_data(comparison(std=False))
    assert data["std_full"] is None
    assert {m["std"] for s in data["stories"] for path in s["agents"] for m in path} == {None}


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", comparison())
    assert (tmp_path / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# in a browser


def browser() -> str:
    """The headless Chromium; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found


def opened(folder: Path, page: str, place: str, *options: str, after: str = "") -> str:
    """Open a page and return its document as it stands after a while.

    Args:
        folder: Where to put it.
        page: The page.
        place: What follows its name, "#step=2".
        options: Of the browser.
        after: JavaScript that runs when the page has begun, such as keys that are pressed.
    """
    file = folder / "report.html"
    file.write_text(page.replace("</body>", f"<script>{after}</script></body>"), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--window-size=1280,1000", *options]
    done = subprocess.run(
        [*command, "--dump-dom", f"{file.as_uri()}{place}"], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def pressed(*keys: str) -> str:
    """Return JavaScript that presses keys."""
    return f"for (const key of {json.dumps(keys)}) dispatchEvent(new KeyboardEvent('keydown', {{key}}));"


def text_of(document: str, id_: str) -> str:
    found = re.search(rf'id="{id_}"[^>]*>([^<]*)<', document)
    assert found is not None
    return found[1]


def test_a_browser_shows_the_scene_and_the_step_that_are_asked_for(tmp_path: Path, page: str) -> None:
    document = opened(tmp_path, page, "#scene=1&agent=random&step=3&measure=mse")
    assert 'data-drawn="1/0/2"' in document
    assert text_of(document, "where") == "fixation 3 of 4"
    assert text_of(document, "summary") == "squared error, whole scene, × 10⁻³"
    assert "<title>Who looks best · foveasim</title>" in document
    assert document.count('class="swatch"') == 2
    assert 'id="panel-std"' in document
    assert "<img" not in document  # what the names hold is text


def test_keys_step_play_and_choose(tmp_path: Path, page: str) -> None:
    keys = pressed("Home", "ArrowRight", "ArrowDown", "]", "t")
    document = opened(tmp_path, page, "#scene=0&agent=random", after=keys)
    assert 'data-drawn="1/1/1"' in document
    assert re.search(r'<html[^>]* data-theme="(dark|light)"', document)
    played = opened(tmp_path, page, "#scene=0&agent=random&step=2", after=pressed(" "))
    assert text_of(played, "where") == "fixation 4 of 4"
    assert text_of(played, "play") == "▶ play"


def test_a_report_without_scenes_or_uncertainty_still_opens(tmp_path: Path) -> None:
    document = opened(tmp_path, render_page(report_data(comparison(std=False, report_scenes=()))), "")
    assert text_of(document, "summary").startswith("squared error")
    assert 'id="panel-std"' not in document


def test_the_picture_is_not_blank(tmp_path: Path, page: str) -> None:
    shot = tmp_path / "shot.png"
    opened(tmp_path, page, "#scene=0&agent=random&step=2", f"--screenshot={shot}")
    if not shot.exists():  # a Chromium that either dumps or draws
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={shot}"]
        command += ["--virtual-time-budget=3000", "--window-size=1280,1000", f"--user-data-dir={tmp_path / 'profile'}"]
        place = f"{(tmp_path / 'report.html').as_uri()}#scene=0&agent=random&step=2"
        subprocess.run([*command, place], check=True, capture_output=True, timeout=120)
    pixels = np.array(Image.open(shot).convert("RGB")).astype(int)
    panels = pixels[180:480, 40:700]  # the scene is a colour ramp
    assert len(np.unique(panels.reshape(-1, 3), axis=0)) > 500
