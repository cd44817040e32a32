"""The report of a comparison with people: one HTML file with the scanpaths of people and of agents side by side."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim import __version__
from foveasim.experiments.humans.files import HumanComparison
from foveasim.experiments.humans.scores import SCORES, ScanpathScores
from foveasim.experiments.humans.table import LIKE_PEOPLE, cautions, in_order, value_of
from foveasim.runs.whole_files import write_atomically

__all__ = ["page_data", "render_page", "write_page"]

JPEG_QUALITY = 85
LONG_SIDE_PX = 480

_SCORE_NAMES = (
    "scanmatch",
    "scanmatch_duration",
    "self_scanmatch",
    "amplitude_js",
    "direction_js",
    "scanmatch_kl",
    "nss_path",
    "nss_map",
    "auc",
    "sauc",
    "information",
    "cnss",
    "cig",
    "sequence",
    "edits_best",
    "stde",
)


def write_page(path: Path, found: HumanComparison, report_images: Sequence[int]) -> None:
    """Write the report.

    Args:
        path: The file, ``….html``.
        found: What was found.
        report_images: Numbers of the images whose scanpaths are in it.

    Raises:
        OSError: The file cannot be written; an older one is untouched then.
    """
    write_atomically(path, render_page(page_data(found, report_images)).encode())


def render_page(data: Mapping[str, Any]) -> str:
    """Return the page that shows data, from :func:`page_data`. Nothing in it can end the script that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":  # in JSON they stand in strings only; this way the page has no tag that the data wrote
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return _PAGE.replace("DATA", text)


def page_data(found: HumanComparison, report_images: Sequence[int]) -> dict[str, Any]:
    """Return the data of the page, as JSON can hold it."""
    people, order = found.people, in_order(found.scores)
    height, width = people.size
    return {
        "version": __version__,
        "whole": found.whole,
        "size": [width, height],
        "facts": [
            f"{len(people.name)} images",
            f"{len(people.paths[0])} people",
            f"{found.config['count']} scanpaths of an agent on each image",
            f"retina {found.config['retina']}",
            f"{people.px_per_deg:g} px a degree",
        ],
        "scores": [
            {"name": name, "title": SCORES[name].title, "digits": SCORES[name].digits}
            for name in _SCORE_NAMES
            if any(math.isfinite(value_of(one, name)) for one in order)  # nobody may have had a priority map
        ],
        "rows": [_row(one) for one in order],
        "images": [
            {
                "name": people.name[place],
                "jpeg": _jpeg(people.image[place]),
                "scanmatch": [_finite(float(one.images["scanmatch"][place]), 3) for one in order],
                "paths": [[_path(path, width, height) for path in one.paths[place]] for one in order],
            }
            for place in report_images
        ],
    }


def _row(one: ScanpathScores) -> dict[str, Any]:
    values = {}
    for name in _SCORE_NAMES:
        estimate = one.estimates.get(name)
        ends = (math.nan, math.nan) if estimate is None else (estimate.low, estimate.high)
        unlike = one.kind == "agent" and value_of(one, name) > LIKE_PEOPLE.get(name, math.inf)
        values[name] = [*(_finite(v, 4) for v in (value_of(one, name), *ends)), unlike]
    return {
        "label": one.label,
        "kind": one.kind,
        "privileged": one.privileged,
        "own_durations": one.own_durations,
        "cautions": cautions(one) if one.kind == "agent" else [],
        "values": values,
    }


def _path(path: Any, width: int, height: int) -> list[list[float]]:
    points = path.fixation_px.numpy() / np.array([width, height])
    return [
        [round(float(x), 4), round(float(y), 4), round(float(ms))]
        for (x, y), ms in zip(points, path.duration_ms.tolist(), strict=True)
    ]


def _finite(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _jpeg(image: NDArray[np.uint8]) -> str:
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    file = cv2.imencode(".jpg", np.ascontiguousarray(small[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return base64.b64encode(file.tobytes()).decode()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Against people · foveasim</title>
<style>
:root { color-scheme: light dark; --back: #fbfbfa; --panel: #fff; --text: #1b1e24; --dim: #5b6270; --line: #d9dce2;
  --bad: #b42318; --gaze: #d97706; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1116; --panel: #171a21; --text: #e8ebf1; --dim: #98a1b2;
  --line: #2c313c; --bad: #ff7a70; --gaze: #ffb547; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 20px; }
h1 { font-size: 22px; margin: 0; } .dim { color: var(--dim); }
.bar { display: flex; gap: 10px; align-items: center; flex-wrap: wrap; margin: 12px 0; }
button, select { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: 4px 10px; }
input[type=range] { accent-color: var(--gaze); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
figure { margin: 0; } figcaption { font-size: 14px; margin-bottom: 3px; }
figure.people figcaption b { color: var(--gaze); }
canvas { width: 100%; display: block; border-radius: 4px; background: var(--line); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 500; white-space: normal; vertical-align: bottom; }
th:not(:first-child) { min-width: 8em; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--back); }
tr.people td { font-weight: 600; } tr.floor td { color: var(--dim); } .bad { color: var(--bad); }
.range { color: var(--dim); font-size: 12px; }
</style>
</head>
<body>
<main>
<h1>Against people</h1>
<p class="dim" id="facts"></p>
<p class="bad" id="early" hidden>The comparison was ended early: only the agents that were done are here.</p>
<div id="looking">
<div class="bar">
<label for="image">image</label><select id="image"></select>
<label for="which">scanpath</label><input id="which" type="range" min="0" step="1"><output id="said"></output>
<label><input id="all" type="checkbox" checked> all others, faintly</label>
</div>
<div class="grid" id="grid"></div>
<p class="dim">Discs are fixations in order; their area grows with the duration. Keys: ← → scanpath, ↑ ↓ image.</p>
</div>
<h2>Scores</h2>
<div class="wide"><table><thead><tr id="head"></tr></thead><tbody id="rows"></tbody></table></div>
<p class="dim">Brackets are 95 % bootstrap intervals over images. Nobody is like people by ScanMatch alone: an agent
that always looks at the one best place scores as people do. Its ScanMatch among its own scanpaths, its amplitude JS and
its SM-KL show it; what speaks against an agent is red. * sees the hidden scene.</p>
<ul id="cautions"></ul>
<noscript><p>This page needs JavaScript, which it holds itself; it loads nothing.</p></noscript>
</main>
<script id="data" type="application/json">DATA</script>
<script>
"use strict";
// Everything that came from a file name is shown by textContent only, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent), at = (id) => document.getElementById(id);
const make = (tag, text, kind) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
};
const show = (v, digits) => v === null ? "–" : v.toFixed(digits).replace("-", "−");
const pictures = data.images.map((one) => {
  const image = new Image();
  image.onload = () => draw();
  image.src = "data:image/jpeg;base64," + one.jpeg;
  return image;
});
let place = 0, which = 0;

function drawPath(pen, path, width, height, strong) {
  pen.lineJoin = "round";
  pen.globalAlpha = strong ? 1 : 0.28;
  for (const [size, colour] of strong ? [[4, "rgba(0,0,0,.6)"], [1.8, "#fff"]] : [[1.2, "#ffb547"]]) {
    pen.lineWidth = size; pen.strokeStyle = colour; pen.beginPath();
    path.forEach(([x, y], i) => i ? pen.lineTo(x * width, y * height) : pen.moveTo(x * width, y * height));
    pen.stroke();
  }
  pen.textAlign = "center"; pen.textBaseline = "middle"; pen.font = "600 11px system-ui, sans-serif";
  path.forEach(([x, y, ms], i) => {
    const radius = strong ? Math.max(6, 0.5 * Math.sqrt(ms)) : 2;
    pen.beginPath(); pen.arc(x * width, y * height, radius, 0, 2 * Math.PI);
    pen.fillStyle = strong ? "rgba(255,181,71,.88)" : "#ffb547"; pen.fill();
    if (!strong) return;
    pen.lineWidth = 1.2; pen.strokeStyle = "rgba(0,0,0,.7)"; pen.stroke();
    pen.fillStyle = "#12141a"; pen.fillText(String(i + 1), x * width, y * height + 0.5);
  });
  pen.globalAlpha = 1;
}

function draw() {
  if (!data.images.length) return;
  const one = data.images[place], ratio = Math.min(window.devicePixelRatio || 1, 3);
  at("image").value = place; at("which").value = which;
  at("said").textContent = `number ${which + 1}`;
  data.rows.forEach((row, r) => {
    const node = at("canvas" + r), width = node.clientWidth || 300, height = width * data.size[1] / data.size[0];
    node.width = Math.round(width * ratio); node.height = Math.round(height * ratio); node.style.height = height + "px";
    const pen = node.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (pictures[place].complete) pen.drawImage(pictures[place], 0, 0, width, height);
    pen.fillStyle = "rgba(0,0,0,.25)"; pen.fillRect(0, 0, width, height);
    const paths = one.paths[r], mine = which % Math.max(paths.length, 1);
    if (at("all").checked) paths.forEach((path, k) => { if (k !== mine) drawPath(pen, path, width, height, false); });
    if (paths.length) drawPath(pen, paths[mine], width, height, true);
    at("score" + r).textContent = one.scanmatch[r] === null ? "" : ` ScanMatch here ${show(one.scanmatch[r], 2)}`;
  });
  document.documentElement.dataset.drawn = `${place}/${which}`;
}

function begin() {
  at("facts").textContent = data.facts.join(" · ") + ` · foveasim ${data.version}`;
  at("early").hidden = data.whole;
  at("looking").hidden = !data.images.length;
  data.images.forEach((one, i) => at("image").append(new Option(one.name, i)));
  const most = Math.max(1, ...data.images.flatMap((one) => one.paths.map((paths) => paths.length)));
  at("which").max = most - 1;
  data.rows.forEach((row, r) => {
    const figure = make("figure", undefined, row.kind), caption = make("figcaption");
    const canvas = make("canvas"), score = make("span", "", "dim");
    canvas.id = "canvas" + r; score.id = "score" + r;
    caption.append(make("b", row.label + (row.privileged ? " *" : "")), score);
    figure.append(caption, canvas); at("grid").append(figure);
  });
  at("head").append(make("th", ""), ...data.scores.map((s) => make("th", s.title)));
  for (const row of data.rows) {
    const line = make("tr", undefined, row.kind);
    line.append(make("td", row.label + (row.privileged ? " *" : "")));
    for (const s of data.scores) {
      const [value, low, high, unlike] = row.values[s.name];
      const cell = make("td", show(value, s.digits), unlike ? "bad" : "");
      if (low !== null) cell.append(make("span", ` [${show(low, s.digits)}, ${show(high, s.digits)}]`, "range"));
      line.append(cell);
    }
    at("rows").append(line);
    for (const caution of row.cautions) at("cautions").append(make("li", `${row.label}: ${caution}`, "bad"));
  }
  const turn = (v, by, n) => (v + by + n) % n;
  at("image").addEventListener("change", (e) => { place = Number(e.target.value); draw(); });
  at("which").addEventListener("input", (e) => { which = Number(e.target.value); draw(); });
  at("all").addEventListener("change", draw);
  addEventListener("keydown", (e) => {
    if (e.target instanceof HTMLSelectElement || e.target.type === "range" || !data.images.length) return;
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[e.key];
    if (!step) return;
    e.preventDefault(); place = turn(place, step[0], data.images.length); which = turn(which, step[1], most); draw();
  });
  addEventListener("resize", draw);
  draw();
}

begin();
</script>
</body>
</html>
"""
