"""The curve of a training: what a policy has learned by how many saccades."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveasim.drawing.figures import COLOURS, blank_figure, save_figure

__all__ = ["draw_curve"]


def draw_curve(path: Path, history: Mapping[str, Any]) -> None:
    """Draw what a run has learned: return against saccades, and its validation beside that of other agents.

    Args:
        path: The file, ``….png``.
        history: What ``train.json`` holds.

    Raises:
        OSError: The file cannot be written.
    """
    validated = [row for row in history["validation"] if row["when"] != "before"]
    figure = blank_figure(9.2 if validated else 5.0, 3.6)
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    rows = [row for row in history["training"] if "return" in row]
    dot = "o" if len(rows) == 1 else None  # a line of one point shows nothing
    panels[0].plot([r["steps"] for r in rows], [r["return"] for r in rows], marker=dot, color=COLOURS[0], linewidth=1.2)
    panels[0].set(xlabel="saccades", ylabel="return of an episode", title="reward, sampled actions")
    if validated:
        axes = panels[1]
        # Of a task the error is minus the return.
        scale, what, title = 1000, "squared error, × 10⁻³", "validation, mean over fixations"
        if history.get("task", "view") != "view":
            scale, what, title = -1, "return of an episode", "validation, likeliest actions"
        steps, errors = [r["steps"] for r in validated], [scale * r["error"] for r in validated]
        axes.plot(steps, errors, "o-", markersize=3.5, color=COLOURS[0], label="policy")
        for label, colour in zip(history["references"], COLOURS[1:] * 9, strict=False):
            axes.axhline(scale * history["references"][label]["error"], color=colour, linestyle="--", label=label)
        axes.set(xlabel="saccades", ylabel=what, title=title)
        axes.legend(fontsize="small", frameon=False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.title.set_fontsize("medium")
    save_figure(figure, path)
