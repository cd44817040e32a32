"""Draws what happens as an RGB array: a pure function, which the window and the recorder show.

The picture holds the scene with its scanpath, what the eye sees, what it remembers, what the mind predicts, a heat map,
the course of the prediction error and a status line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim.drawing.canvas import (
    Colour,
    Image,
    Rect,
    blend_rect,
    colour_map,
    disc,
    fit_text,
    fit_to,
    lines,
    ring,
    text,
    text_width,
    wrap_text,
)
from foveasim.drawing.layout import Layout, arrange
from foveasim.errors import InvalidValueError

__all__ = ["LATEST", "Heat", "View", "layout_of", "render"]

BACK: Colour = (15, 17, 22)
PANEL: Colour = (23, 26, 33)
GRID: Colour = (42, 47, 58)
DIM: Colour = (134, 142, 158)
TEXT: Colour = (232, 235, 241)
GAZE: Colour = (255, 181, 71)
PATH: Colour = (236, 242, 250)
INK: Colour = (18, 20, 26)
ALERT: Colour = (255, 92, 99)


class Heat(NamedTuple):
    """A map over the scene.

    Attributes:
        name: Its title: "error", "acuity", "uncertainty".
        values: (h, w) uint8 at any resolution, 0 for ``low`` and 255 for ``high``.
        low: What the low end of the colour bar says.
        high: What its high end says.
    """

    name: str
    values: NDArray[np.uint8]
    low: str
    high: str


LATEST = 100
"""How many fixations are worth drawing: more hide the scene, and a frame would take the longer the longer it is."""


@dataclass(frozen=True)
class View:
    """Everything that one picture shows. The scene, glimpse, belief and prediction may differ in size, not in shape.

    Attributes:
        scene: (H, W, 3) uint8.
        glimpse: (h, w, 3) uint8, what the eye sees.
        belief: (h, w, 3) uint8, what it has seen so far.
        prediction: (h, w, 3) uint8, what the mind predicts, or None without a network.
        heat: The heat map, or None.
        fixation_px: (N, 2) float32, px of the scene, the fixations so far or the last :data:`LATEST`, oldest first.
        gaze_px: (x, y), px of the scene, where the eye points at this moment.
        moving: Whether a saccade is in flight.
        fovea_px: Radius of the fovea, px of the scene; 0 draws none.
        earlier: How many fixations came before these.
        errors: Prediction error after each of these fixations, grey levels; NaN where it is not known.
        past_errors: The same of earlier scenes, drawn faintly as long as ``earlier`` is 0.
        plot: Title and unit of what is plotted.
        budget: Fixations on this scene, the length of the plot; 0 without an end.
        agent: Its name.
        retina: Its name.
        scene_name: The scene's name.
        reward: Reward of the last fixation, or None.
        target: (S, S, 3) uint8, what is to be found in the scene, or None.
        found: Whether it was.
        speed: How fast time runs, 1 for real time.
        fps: Frames per second, or None.
        paused: Whether time stands still.
        recording: Whether a video is being recorded.
        toast: A short message about what just happened.
        alert: A message that stays, such as the error of an agent.
        help: Controls and what they do, listed over the picture; () lists none.
    """

    scene: Image
    glimpse: Image
    belief: Image
    prediction: Image | None = None
    heat: Heat | None = None
    fixation_px: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    gaze_px: tuple[float, float] = (0.0, 0.0)
    moving: bool = False
    fovea_px: float = 0.0
    earlier: int = 0
    errors: tuple[float, ...] = ()
    past_errors: tuple[tuple[float, ...], ...] = ()
    plot: tuple[str, str] = ("prediction error", "RMSE of the mind's picture, grey levels")
    budget: int = 0
    agent: str = ""
    retina: str = ""
    scene_name: str = ""
    reward: float | None = None
    target: Image | None = None
    found: bool = False
    speed: float = 1.0
    fps: float | None = None
    paused: bool = False
    recording: bool = False
    toast: str = ""
    alert: str = ""
    help: tuple[tuple[str, str], ...] = ()


def layout_of(view: View, size: tuple[int, int]) -> Layout:
    """Return where the panels of a view lie in a picture of (H, W) px."""
    return arrange(size, (view.scene.shape[0], view.scene.shape[1]), 2 + (view.prediction is not None))


def render(view: View, size: tuple[int, int]) -> Image:
    """Draw a view.

    Args:
        view: What to show.
        size: (H, W) of the picture, px; each side at least :data:`foveasim.drawing.layout.MIN_SIDE_PX`.

    Returns:
        (H, W, 3) uint8, freshly made.

    Raises:
        InvalidValueError: ``size`` is too small, or a picture of the view is not (H, W, 3) uint8.
    """
    for name in ("scene", "glimpse", "belief", "prediction", "target"):
        image = getattr(view, name)
        if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
            raise InvalidValueError(f"{name} must be (H, W, 3) uint8; got {image.shape} {image.dtype}.")
    layout, corner = layout_of(view, size), None
    if view.target is not None:
        layout, corner = _with_corner(layout)
    titles, pictures = _panels(view)
    canvas = _backdrop(layout, titles, view.plot).copy()
    for rect, picture in zip(layout.images, pictures, strict=True):
        if picture is not None:
            rect.crop(canvas)[:] = fit_to(picture, (rect.height, rect.width))
    _draw_heat(canvas, layout, view)
    _draw_scanpath(canvas, layout, view)
    for index, rect in enumerate(layout.images[1:], start=1):
        _draw_gaze(rect.crop(canvas), layout.scale * (1 if index == 1 else 0.7), view, plain=True)
    _draw_plot(canvas, layout, view)
    if corner is not None and view.target is not None:
        _draw_target(canvas, layout, corner, view.target, view.found)
    _draw_status(canvas, layout, view)
    if view.alert:
        _draw_alert(canvas, layout, view.alert)
    if view.toast:
        _draw_toast(canvas, layout, view.toast)
    if view.help:
        _draw_help(canvas, layout, view.help)
    return canvas


def _panels(view: View) -> tuple[tuple[str, ...], tuple[Image | None, ...]]:
    """Return titles and pictures in the order of the layout; the heat map's picture is drawn by its own function."""
    heat = view.heat.name if view.heat is not None else "error"
    if view.prediction is None:
        return ("scene", "what it remembers", "what the eye sees", heat), (view.scene, view.belief, view.glimpse, None)
    titles = ("scene", "what the mind predicts", "what the eye sees", "what it remembers", heat)
    return titles, (view.scene, view.prediction, view.glimpse, view.belief, None)


@lru_cache(maxsize=16)
def _backdrop(layout: Layout, titles: tuple[str, ...], plot: tuple[str, str]) -> Image:
    """Draw what stays the same from frame to frame."""
    canvas = np.empty((*layout.size, 3), np.uint8)
    canvas[:] = BACK
    px = layout.px(14)
    for rect, title in zip(layout.images, titles, strict=True):
        rect.crop(canvas)[:] = PANEL
        text(canvas, rect.x, rect.y - layout.px(8), fit_text(title, px, rect.width), px, TEXT)
    layout.plot.crop(canvas)[:] = PANEL
    title, unit = plot
    width = text(canvas, layout.plot.x, layout.plot.y - layout.px(8), title, px, TEXT)
    if width + layout.px(12) + text_width(unit, layout.px(12)) <= layout.plot.width:
        right = layout.plot.x + layout.plot.width
        text(canvas, right, layout.plot.y - layout.px(8), unit, layout.px(12), DIM, align="right")
    return canvas


@lru_cache(maxsize=16)
def _has_bar(layout: Layout, width: int, heat: str, low: str, high: str) -> bool:
    """Whether there is room for the colour bar and its two labels beside the name of the heat map."""
    labels = text_width(low, layout.px(12)) + text_width(high, layout.px(12)) + layout.px(52) + 2 * layout.px(6)
    return text_width(heat, layout.px(14)) + layout.px(12) + labels <= width


def _draw_heat(canvas: Image, layout: Layout, view: View) -> None:
    rect = layout.images[-1]
    if view.heat is None:
        return
    rect.crop(canvas)[:] = colour_map(fit_to(view.heat.values, (rect.height, rect.width)))
    if not _has_bar(layout, rect.width, view.heat.name, view.heat.low, view.heat.high):
        return
    px, y = layout.px(12), rect.y - layout.px(8)
    x = rect.x + rect.width
    x -= text(canvas, x, y, view.heat.high, px, DIM, align="right") + layout.px(6)
    bar = Rect(x - layout.px(52), y - layout.px(8), layout.px(52), layout.px(7))
    bar.crop(canvas)[:] = colour_map(np.linspace(0, 255, bar.width).astype(np.uint8))[None]
    text(canvas, bar.x - layout.px(6), y, view.heat.low, px, DIM, align="right")


def _draw_scanpath(canvas: Image, layout: Layout, view: View) -> None:
    rect = layout.images[0]
    under = rect.crop(canvas)
    ratio = np.array([rect.width / view.scene.shape[1], rect.height / view.scene.shape[0]], np.float32)
    points = view.fixation_px * ratio
    gaze = np.array(view.gaze_px, np.float32) * ratio
    over = under.copy()
    if len(points):
        path_points = np.concatenate((points, gaze[None])) if view.moving else points
        lines(over, path_points, INK, 4 * layout.scale)
        lines(over, path_points, PATH, 1.6 * layout.scale)
    radius = max(5.0, 9.5 * layout.scale)
    px = max(7, layout.px(11))
    for index, (x, y) in enumerate(points):
        latest = index == len(points) - 1 and not view.moving
        disc(over, x, y, radius + 1.2 * layout.scale, INK)
        disc(over, x, y, radius, GAZE if latest else PATH)
        number = str(view.earlier + index + 1)
        small = px if len(number) < 3 else round(px * 0.8)
        text(over, float(x), float(y), number, small, INK, align="centre", middle=True)
    under[:] = _mixed(under, over, 0.86)
    _draw_gaze(under, layout.scale, view, plain=not view.moving and len(points) > 0)


def _mixed(under: Image, over: Image, opacity: float) -> Image:
    return cv2.addWeighted(over, opacity, under, 1 - opacity, 0).astype(np.uint8, copy=False)


def _draw_gaze(under: Image, scale: float, view: View, *, plain: bool) -> None:
    """Draw the ring of the fovea and, where ``plain`` is not set, the eye itself as a dot."""
    ratio = under.shape[1] / view.scene.shape[1]
    x, y = view.gaze_px[0] * ratio, view.gaze_px[1] * under.shape[0] / view.scene.shape[0]
    radius = view.fovea_px * ratio
    if 0 < radius < max(under.shape):
        ring(under, x, y, radius, INK, 3.4 * scale)
        ring(under, x, y, radius, GAZE, 2 * scale)
    if not plain:
        disc(under, x, y, 6.5 * scale, INK)
        disc(under, x, y, 5 * scale, GAZE)


def _ticks(high: float) -> tuple[float, list[float]]:
    """Return the upper end of an axis from 0 and at most five round ticks on it."""
    raw = max(high, 1e-6) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * (1 - 1e-9))
    count = math.ceil(high / step - 1e-9)
    return step * max(count, 1), [step * i for i in range(max(count, 1) + 1)]


def _draw_plot(canvas: Image, layout: Layout, view: View) -> None:
    rect, px = layout.plot, layout.px(11)
    past_errors = () if view.earlier else view.past_errors
    curves = (*past_errors, view.errors)
    known = [value for curve in curves for value in curve if math.isfinite(value)]
    top, ticks = _ticks(max(known, default=50.0))
    label = max(text_width(f"{tick:g}", px) for tick in ticks)
    left, right = rect.x + label + layout.px(16), rect.x + rect.width - layout.px(16)
    upper, lower = rect.y + layout.px(14), rect.y + rect.height - layout.px(26)
    if right - left < 4 * px or lower - upper < 2 * px:
        return
    first = view.earlier + 1
    last = max(first + 1, view.budget, *(view.earlier + len(curve) for curve in curves))

    def place(index: float, value: float) -> tuple[float, float]:
        return left + (index - first) / (last - first) * (right - left), lower - value / top * (lower - upper)

    if lower - upper < 1.5 * px * len(ticks):
        ticks = [ticks[0], ticks[-1]]
    for tick in ticks:
        y = place(first, tick)[1]
        lines(canvas, [(left, y), (right, y)], GRID, layout.scale)
        text(canvas, left - layout.px(8), y, f"{tick:g}", px, DIM, align="right", middle=True)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if (last - first) / s * 3 * px <= right - left)
    for index in sorted({first, *range(step * (first // step + 1), last + 1, step)}):
        if index == first or index - first > step / 2:
            x = place(index, 0)[0]
            text(canvas, x, lower + layout.px(17), str(index), px, DIM, align="centre")
    for age, curve in enumerate(reversed(past_errors)):
        shade = 0.5 * 0.75**age
        faint = tuple(round(p + (d - p) * shade) for p, d in zip(PANEL, DIM, strict=True))
        points = [place(i + 1, value) for i, value in enumerate(curve) if math.isfinite(value)]
        lines(canvas, points, (faint[0], faint[1], faint[2]), 1.4 * layout.scale)
    now = [(first + i, value) for i, value in enumerate(view.errors) if math.isfinite(value)]
    points = [place(*each) for each in now]
    lines(canvas, points, GAZE, 2 * layout.scale)
    for x, y in points:
        disc(canvas, x, y, 3.2 * layout.scale, GAZE)
    if points:
        x, y = points[-1]
        string = f"{now[-1][1]:.1f}"
        beside = x + layout.px(10) + text_width(string, layout.px(13)) <= right + layout.px(12)
        place_x = x + layout.px(10) if beside else x
        place_y = y - (0 if beside else layout.px(14))
        text(canvas, place_x, place_y, string, layout.px(13), TEXT, align="left" if beside else "right", middle=beside)


def _with_corner(layout: Layout) -> tuple[Layout, Rect]:
    """Return a layout whose plot leaves room for a square at its right end, and the square."""
    plot = layout.plot
    side = min(plot.height, plot.width // 3)
    corner = Rect(plot.x + plot.width - side, plot.y, side, side)
    return replace(layout, plot=plot._replace(width=plot.width - side - layout.px(16))), corner


def _draw_target(canvas: Image, layout: Layout, corner: Rect, target: Image, found: bool) -> None:
    """Show what is to be found beside the plot."""
    colour, px = (GAZE if found else TEXT), layout.px(14)
    title = fit_text("found" if found else "to be found", px, corner.width)
    text(canvas, corner.x, corner.y - layout.px(8), title, px, colour)
    rim = layout.px(3) if found else 0
    corner.crop(canvas)[:] = GAZE if found else PANEL
    inner = Rect(corner.x + rim, corner.y + rim, max(1, corner.width - 2 * rim), max(1, corner.height - 2 * rim))
    inner.crop(canvas)[:] = fit_to(target, (inner.height, inner.width))


def _draw_status(canvas: Image, layout: Layout, view: View) -> None:
    rect, px = layout.status, layout.px(13)
    y = rect.y + rect.height / 2
    right = float(rect.x + rect.width)
    states = [("? help", DIM)] if view.fps is not None else []  # only a window has keys
    if view.paused:
        states.append(("paused", GAZE))
    if view.recording:
        states.append(("rec", ALERT))
    for string, colour in states:
        right -= text(canvas, right, y, string, px, colour, align="right", middle=True)
        if string == "rec":
            disc(canvas, right - layout.px(9), y, 4.5 * layout.scale, ALERT)
            right -= layout.px(16)
        right -= layout.px(18)
    count = view.earlier + len(view.fixation_px)
    parts = [("agent", view.agent)] if view.agent else []
    parts += [
        ("retina", view.retina),
        ("scene", view.scene_name),
        ("fixation", f"{count}/{view.budget}" if view.budget else str(count)),
    ]
    if view.reward is not None:
        parts.append(("reward", f"{view.reward:+.3f}"))
    if view.speed != 1:
        parts.append(("speed", f"{view.speed:g}"))
    if view.fps is not None:
        parts.append(("fps", f"{view.fps:.0f}"))
    x = float(rect.x)
    for name, value in parts:
        fitted = fit_text(value, px, layout.px(230))
        width = text_width(name, px) + layout.px(6) + text_width(fitted, px)
        if x + width > right:
            continue
        x += text(canvas, x, y, name, px, DIM, middle=True) + layout.px(6)
        x += text(canvas, x, y, fitted, px, TEXT, middle=True) + layout.px(20)


def _draw_alert(canvas: Image, layout: Layout, message: str) -> None:
    rect, px = layout.images[0], layout.px(13)
    pad = layout.px(12)
    rows = wrap_text(message, px, rect.width - 2 * pad - layout.px(4), max(1, (rect.height - 2 * pad) // layout.px(19)))
    height = min(rect.height, len(rows) * layout.px(19) + 2 * pad - layout.px(6))
    blend_rect(canvas, Rect(rect.x, rect.y, rect.width, height), INK, 0.86)
    Rect(rect.x, rect.y, layout.px(4), height).crop(canvas)[:] = ALERT
    for i, row in enumerate(rows):
        text(canvas, rect.x + pad + layout.px(4), rect.y + pad + layout.px(10) + i * layout.px(19), row, px, TEXT)


def _draw_toast(canvas: Image, layout: Layout, message: str) -> None:
    px = layout.px(15)
    fitted = fit_text(message, px, layout.size[1] - layout.px(80))
    width, height = text_width(fitted, px) + layout.px(36), layout.px(38)
    rect = Rect((layout.size[1] - width) // 2, layout.status.y - height - layout.px(14), width, height)
    if rect.x < 0 or rect.y < 0:
        return
    blend_rect(canvas, rect, (46, 52, 66), 0.94)
    text(canvas, layout.size[1] / 2, rect.y + height / 2, fitted, px, TEXT, align="centre", middle=True)


def _draw_help(canvas: Image, layout: Layout, keys: tuple[tuple[str, str], ...]) -> None:
    canvas[:] = _mixed(canvas, np.full_like(canvas, BACK), 0.72)
    # the list must fit: text shrinks before a line is lost
    line = min(layout.px(26), max(8, (layout.size[0] - layout.px(80)) // len(keys)))
    px = max(6, min(layout.px(15), round(line * 0.62)))
    left = max(text_width(key, px) for key, _ in keys)
    width = left + 2 * px + max(text_width(what, px) for _, what in keys)
    pad = layout.px(28)
    card = Rect(
        max(0, (layout.size[1] - width) // 2 - pad),
        max(0, (layout.size[0] - line * len(keys)) // 2 - pad),
        min(layout.size[1], width + 2 * pad),
        min(layout.size[0], line * len(keys) + 2 * pad),
    )
    card.crop(canvas)[:] = PANEL
    y = (layout.size[0] - line * len(keys)) / 2 + line / 2
    x = (layout.size[1] - width) / 2
    for key, what in keys:
        text(canvas, x + left, y, key, px, GAZE, align="right", middle=True)
        text(canvas, x + left + 2 * px, y, what, px, TEXT, middle=True)
        y += line
