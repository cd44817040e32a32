"""The report of ``foveasim humans`` in a browser: scanpaths and scores are shown, keys and controls work."""

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
from PIL import Image

from foveasim.experiments.humans.page import render_page

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)>&"


def data(images: int = 3) -> dict[str, Any]:
    """People with three scanpaths and an agent with two, on colour ramps."""
    y, x = np.mgrid[:60, :80]
    file = io.BytesIO()
    Image.fromarray(np.stack([x * 3, y * 4, 0 * x + 90], 2).astype(np.uint8)).save(file, "JPEG")
    picture = base64.b64encode(file.getvalue()).decode()
    paths = [[[[0.2, 0.3, 200], [0.5, 0.1 + 0.2 * k, 300], [0.8, 0.7, 150]] for k in range(n)] for n in (3, 2)]
    known = {"values": {"scanmatch": [0.4, 0.38, 0.42, False], "amplitude_js": [0.072, None, None, False]}}
    agent = {"values": {"scanmatch": [0.2, 0.18, 0.22, False], "amplitude_js": [None, None, None, False]}}
    agent["values"]["amplitude_js"] = [0.3, None, None, True]
    facts = {"privileged": False, "own_durations": True}
    return {
        "version": "0",
        "whole": False,
        "size": [80, 60],
        "facts": ["3 images", HOSTILE],
        "scores": [
            {"name": "scanmatch", "title": "ScanMatch", "digits": 3},
            {"name": "amplitude_js", "title": "amplitude JS", "digits": 3},
        ],
        "rows": [
            {"label": "people", "kind": "people", "cautions": [], **facts, **known},
            {"label": HOSTILE, "kind": "agent", "cautions": ["its saccades are long"], **facts, **agent},
        ],
        "images": [
            {"name": f"image {i}", "jpeg": picture, "scanmatch": [0.4, 0.1 * i], "paths": paths} for i in range(images)
        ],
    }


def opened(folder: Path, content: dict[str, Any], script: str = "", *options: str) -> str:
    """Open the page, run a script when it has begun, and return the document as it stands after that."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    file = folder / "report.html"
    file.write_text(render_page(content).replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--window-size=1280,1000", *options, "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_shows_people_and_agents(tmp_path: Path) -> None:
    document = opened(tmp_path, data())
    assert 'data-drawn="0/0"' in document
    assert "<title>Against people · foveasim</title>" in document  # what a name holds is text, and runs nothing
    assert "<img" not in document.split("<script")[0]
    assert document.count("<canvas") == 2
    assert "number 1</output>" in document
    cells = re.findall(r"<td[^>]*>([^<]*)", document)
    assert "0.400" in cells and "0.072" in cells and "0.200" in cells
    assert re.search(r'<td class="bad">0\.300', document)
    assert "its saccades are long" in document
    assert re.search(r'id="early"(?![^>]*hidden)', document)  # it was ended early, and says so


def test_keys_and_controls_choose_image_and_scanpath(tmp_path: Path) -> None:
    keys = json.dumps(["ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowUp"])
    script = f"for (const key of {keys}) dispatchEvent(new KeyboardEvent('keydown', {{key}}));"
    document = opened(tmp_path, data(), script)
    assert 'data-drawn="2/2"' in document  # up from the first image is the last
    assert "number 3</output>" in document
    assert "ScanMatch here 0.20" in document
    choose = "image.value = 1; image.dispatchEvent(new Event('change'));"
    choose += "which.value = 1; which.dispatchEvent(new Event('input')); all.click();"
    script = f"const [image, which, all] = ['image', 'which', 'all'].map((id) => document.getElementById(id)); {choose}"
    # The page's own script has names of its own at the top; a block keeps these apart.
    document = opened(tmp_path, data(), f"{{ {script} }}")
    assert 'data-drawn="1/1"' in document


def test_without_images_there_are_scores_alone(tmp_path: Path) -> None:
    document = opened(tmp_path, data(0))
    assert re.search(r'id="looking"[^>]*hidden', document)
    assert "0.400" in document


def test_the_canvas_is_not_blank(tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    document = opened(tmp_path, data(), "", f"--screenshot={shot}")
    if not shot.exists():
        pytest.skip("needs a Chromium that dumps and draws at once")
    assert document
    pixels = np.array(Image.open(shot).convert("RGB")).astype(int)
    assert len(np.unique(pixels[120:380, 20:660].reshape(-1, 3), axis=0)) > 500
