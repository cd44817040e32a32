"""The report of a comparison: one HTML file in which a person steps through scanpaths, without any network."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim import __version__
from foveasim.agents.evaluation.measures import MEASURES
from foveasim.agents.evaluation.scene_runner import AgentRun, FixationFrame
from foveasim.drawing.figures import styles
from foveasim.experiments.compare.files import Comparison
from foveasim.experiments.compare.statistics import ComparisonResult
from foveasim.runs.whole_files import write_atomically

__all__ = ["render_page", "report_data", "write_report"]

LONG_SIDE_PX = 320
"""Longest side of a picture in the report; larger scenes are shrunk to it."""

JPEG_QUALITY = 85
"""At 96 px about 3 kB a picture; below 80 the seen disc shows blocks."""

ERROR_FULL = 0.5
"""Mean absolute error of a pixel's channels that the error map shows at its full colour."""

_HOLE = re.compile(r"<!--(TITLE|SCRIPT|DATA)-->")


def write_report(path: Path, comparison: Comparison) -> None:
    """Write the report of a comparison.

    Args:
        path: The file, ``….html``.
        comparison: What was found.

    Raises:
        OSError: The file cannot be written; an older one is untouched then.
    """
    write_atomically(path, render_page(report_data(comparison)).encode())


def render_page(data: Mapping[str, Any]) -> str:
    """Return the page that shows data, from :func:`report_data`. Nothing in it can end the script that holds it."""
    here = files("foveasim.player")
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":  # in JSON they stand in strings only; this way the page has no tag that the data wrote
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    parts = {
        "TITLE": html.escape(str(data["title"])),
        "SCRIPT": here.joinpath("page.js").read_text(encoding="utf-8"),
        "DATA": text,
    }
    return _HOLE.sub(lambda hole: parts[hole[1]], here.joinpath("page.html").read_text(encoding="utf-8"))


def report_data(comparison: Comparison) -> dict[str, Any]:
    """Return the data of the page, as JSON can hold it.

    Args:
        comparison: What was found.
    """
    result, scenes = comparison.result, comparison.scenes
    album = _Album()
    report_scenes = sorted(set.intersection(*(set(one.frames) for one in comparison.runs)))
    full_std = _std_full(comparison.runs)
    stories = [
        {
            "name": scenes.name[scene],
            "number": scene,
            "image": album.picture(scenes.image[scene]),
            "agents": [
                [_frame(album, frame, scenes.image[scene], full_std) for frame in one.frames[scene]]
                for one in comparison.runs
            ],
        }
        for scene in report_scenes
    ]
    found = {
        "title": "Who looks best",
        "version": __version__,
        "whole": comparison.whole,
        "facts": _facts(comparison),
        "size": list(scenes.size),
        "measure": comparison.config["measure"],
        "measures": [
            {
                "name": name,
                "title": measure.title,
                "unit": measure.unit,
                "scale": measure.scale,
                "digits": measure.digits,
                "lower": measure.lower_is_better,
                "curves": result.curves[name].tolist(),
                "area": result.area[name].tolist(),
                "difference": result.differences["area"][name][:, result.labels.index(result.reference)].tolist(),
                "gap": result.gap["area"][name].tolist(),
            }
            for name, measure in MEASURES.items()
        ],
        "agents": _agents(result),
        "reference": result.reference,
        "ceiling": result.ceiling,
        "std_full": full_std,
        "error_full": ERROR_FULL,
        "stories": stories,
        "images": album.images,
    }
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def _facts(comparison: Comparison) -> list[list[str]]:
    config = comparison.config
    specs = [config["data"]] if isinstance(config["data"], str) else config["data"]
    data = ", ".join(Path(spec).name for spec in specs)  # where it lay is nobody's business
    options = ", ".join(f"{name} {value}" for name, value in config["retina_options"].items())
    height, width = comparison.scenes.size
    return [
        ["scenes", f"{len(comparison.scenes.name)} of {data}, {width} × {height} px"],
        ["eye", f"{config['retina']}{f' ({options})' if options else ''}"],
        ["judged by", comparison.network],
        ["fixations", f"{config['fixations']}, the first at the centre"],
        ["runs", f"{config['seeds']} of each agent"],
    ]


def _agents(result: ComparisonResult) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "privileged": privileged,
            "colour": style.colour,
            "line": style.line,
            "sharp": share.tolist(),
            "amplitude": figures.amplitude_median_deg,
            "returns": figures.return_rate,
            "act_ms": figures.act_ms,
            "lanes": figures.lanes,
        }
        for label, privileged, style, share, figures in zip(
            result.labels, result.privileged, styles(result.labels), result.shares, result.saccades, strict=True
        )
    ]


def _frame(album: _Album, frame: FixationFrame, scene: NDArray[np.uint8], full_std: float | None) -> dict[str, Any]:
    error = np.abs(frame.prediction.astype(np.int16) - scene.astype(np.int16)).mean(2) / 255
    values = {}
    for name, measure in MEASURES.items():
        above = frame.numbers[measure.numerator]
        below = frame.numbers[measure.denominator] if measure.denominator else 1.0
        values[name] = above / below if below else math.nan
    return {
        "x": frame.fixation_px[0] / scene.shape[1],
        "y": frame.fixation_px[1] / scene.shape[0],
        "glimpse": album.picture(frame.glimpse),
        "belief": album.picture(frame.belief),
        "prediction": album.picture(frame.prediction),
        "std": None if frame.std is None or full_std is None else album.heat(frame.std / full_std),
        "error": album.heat(error / ERROR_FULL),
        "sharp": frame.numbers["sharp"],
        "values": values,
    }


def _std_full(runs: Sequence[AgentRun]) -> float | None:
    """Return the standard deviation that maps show at their full colour: that of the surest 99.5 % of all pixels."""
    maps = [m.std for one in runs for frames in one.frames.values() for m in frames if m.std is not None]
    return max(float(np.quantile(np.stack(maps), 0.995)), 1e-6) if maps else None


class _Album:
    """The pictures of a report, each once.

    Attributes:
        images: JPEG files in base64.
    """

    def __init__(self) -> None:
        self.images: list[str] = []
        self._places: dict[str, int] = {}

    def picture(self, image: NDArray[np.uint8]) -> int:
        """Take in an image (H, W, 3) uint8, and return its number."""
        return self._add(np.ascontiguousarray(_small(image)[..., ::-1]))

    def heat(self, values: NDArray[np.floating[Any]]) -> int:
        """Take in a map (H, W), 1 for its full colour, and return its number."""
        return self._add(_small((255 * np.clip(values, 0, 1)).round().astype(np.uint8)))

    def _add(self, image: NDArray[np.uint8]) -> int:
        file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1]
        text = base64.b64encode(file.tobytes()).decode()
        if text not in self._places:
            self._places[text] = len(self.images)
            self.images.append(text)
        return self._places[text]


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = LONG_SIDE_PX / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _finite(value: Any) -> Any:
    """Replace what JSON cannot hold by null, and spare digits that nobody sees."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
