"""Visual search displays: one target among distractors, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.images.picture import Picture, check_index, fit_picture
from foveasim.rng import uniform
from foveasim.scenes.procedural import NoiseScenes
from foveasim.scenes.source import SceneSource, open_scenes

__all__ = [
    "COLOURS",
    "GREY",
    "SEARCH_KINDS",
    "SEARCH_SPLITS",
    "SHAPES",
    "TARGET_SIDE_PX",
    "Display",
    "Item",
    "SearchScenes",
    "SearchSource",
    "paint_item",
    "portrait",
]

GREY = 0.5
"""Level of the ground on which items lie, in all three channels."""

SHAPES = ("disc", "square", "T", "L", "grating", "crop")

COLOURS = (
    (0.86, 0.20, 0.18),  # red
    (0.16, 0.62, 0.22),  # green
    (0.20, 0.36, 0.92),  # blue
    (0.88, 0.76, 0.12),  # yellow
    (0.74, 0.24, 0.78),  # magenta
    (0.12, 0.72, 0.78),  # cyan
)
"""Hues a sixth of a turn apart, so that any two differ."""

_DISC, _SQUARE = 0.88, 0.78  # of the radius; equal areas: pi 0.88² = (2 x 0.78)²
_LONG, _THICK = 0.85, 0.2  # half length and half thickness of a letter's bars, of the radius
_WAVE = 0.7  # wavelength of a grating, of the radius
_CONTRAST = 0.42
_FEATHER_PX = 2.0  # the rim over which a crop fades

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Item:
    """One thing of a search display.

    Attributes:
        shape: One of :data:`SHAPES`.
        colour: (R, G, B) in [0, 1]; without meaning for gratings and crops.
        angle: Of letters and gratings, radians, clockwise as y points down.
        phase: Of a grating, radians.
        crop: (d, d, 3) float64 in [0, 1], what a crop shows, d twice the radius.
    """

    shape: str
    colour: tuple[float, float, float] = (GREY, GREY, GREY)
    angle: float = 0.0
    phase: float = 0.0
    crop: Float | None = None


def paint_item(levels: Float, item: Item, centre_px: tuple[float, float], radius_px: float) -> None:
    """Paint an item into a picture, in place, clipped at the edges.

    Args:
        levels: (H, W, 3) float64.
        item: What to paint.
        centre_px: (x, y), px.
        radius_px: Of the circle that it fills, px.
    """
    reach = radius_px + 1
    left, top = (max(0, math.floor(at - reach)) for at in centre_px)
    window = levels[top : max(0, math.ceil(centre_px[1] + reach)), left : max(0, math.ceil(centre_px[0] + reach))]
    y, x = np.mgrid[0 : window.shape[0], 0 : window.shape[1]] + 0.5
    x, y = x + (left - centre_px[0]), y + (top - centre_px[1])
    if item.crop is not None:
        cover = np.clip((radius_px - np.hypot(x, y)) / _FEATHER_PX, 0, 1)[..., None]
        column = np.clip((x[0] + radius_px).astype(int), 0, item.crop.shape[1] - 1)
        row = np.clip((y[:, 0] + radius_px).astype(int), 0, item.crop.shape[0] - 1)
        ink: Float | tuple[float, float, float] = item.crop[np.ix_(row, column)]
    elif item.shape == "grating":
        cover = _cover(np.hypot(x, y) - radius_px)
        along = math.cos(item.angle) * x + math.sin(item.angle) * y
        ink = (GREY + _CONTRAST * np.sin(along * (2 * math.pi / (_WAVE * radius_px)) + item.phase))[..., None]
    else:
        cover, ink = _cover(_distance(item, x / radius_px, y / radius_px) * radius_px), item.colour
    window *= 1 - cover
    window += np.asarray(ink) * cover


def _cover(outside_px: Float) -> Float:
    """Share of a pixel that lies inside, from its signed distance: antialiased over one pixel."""
    return np.clip(0.5 - outside_px, 0, 1)[..., None]


def _distance(item: Item, x: Float, y: Float) -> Float:
    """Signed distance from the outline, in radii, of points in radii."""
    if item.shape == "disc":
        return np.hypot(x, y) - _DISC
    if item.shape == "square":
        return _bar(x, y, _SQUARE, _SQUARE)
    cos, sin = math.cos(item.angle), math.sin(item.angle)
    x, y = cos * x + sin * y, cos * y - sin * x
    end = _LONG - _THICK
    if item.shape == "T":
        return np.minimum(_bar(x, y + end, _LONG, _THICK), _bar(x, y, _THICK, _LONG))
    return np.minimum(_bar(x, y - end, _LONG, _THICK), _bar(x + end, y, _THICK, _LONG))


def _bar(x: Float, y: Float, half_width: float, half_height: float) -> Float:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def portrait(item: Item, radius_px: float, side_px: int) -> NDArray[np.uint8]:
    """Return an item in the middle of a grey square, (side, side, 3) uint8: what to look for, as large as it is."""
    levels = np.full((side_px, side_px, 3), GREY)
    # On the same pixel phase as in the display, where items begin at whole pixels.
    middle = round(side_px / 2 - radius_px) + radius_px
    paint_item(levels, item, (middle, middle), radius_px)
    pixels: NDArray[np.uint8] = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    return pixels


SEARCH_KINDS = ("colour", "shape", "conjunction", "letters", "textures", "photos")
"""Feature search by colour or shape, search for a conjunction of both, T among L, gratings, crops of photographs."""

SEARCH_SPLITS = ("train", "test")

TARGET_SIDE_PX = 36
"""Smallest side of the picture of the target: what stable-baselines3's default network needs at least."""

_CELL = 1.5  # side of a cell of the grid that items lie on, in item diameters
_CROP = 0.3  # side of a crop, in short sides of its photograph
_CROPS_TRIED = 8
_CLUTTER = 0.3  # contrast of the noise behind gratings, of that of NoiseScenes: 0.06


@dataclass(frozen=True, eq=False)
class Display:
    """What there is to find.

    Attributes:
        kind: One of :data:`SEARCH_KINDS`.
        items_px: (N, 2) float32, px, the middles of all N items of the set; the target is the first.
        radius_px: Of an item. Gaze has found the target when it lands no farther from its middle.
        px_per_deg: Of the display's pixels.
        target: (S, S, 3) uint8, the target on grey, as large as in the display, but upright.
    """

    kind: str
    items_px: NDArray[np.float32]
    radius_px: float
    px_per_deg: float
    target: NDArray[np.uint8]

    @property
    def set_size(self) -> int:
        """Number of items, the target included."""
        return len(self.items_px)


@runtime_checkable
class SearchSource(SceneSource, Protocol):
    """A scene source that knows what is to be found in its pictures."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every picture, px."""
        ...

    def display(self, index: int) -> Display:
        """Return what is to be found in picture ``index``.

        Raises:
            InvalidValueError: ``index`` is out of range.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Plan:
    kind: str
    items: list[Item]
    places: Float
    ground: int  # the photograph behind, -1 for none


class SearchScenes(NoiseScenes):
    """Search displays drawn from a seed.

    Items lie in the cells of a grid, jittered, never over one another and never over the middle of the scene, where
    eyes start. Which cells are taken does not depend on which item is the target, so that set size does not go along
    with eccentricity.

    ===============  ===================================================================================
    kind             target and distractors
    ===============  ===================================================================================
    ``colour``       a disc or square among others of one other colour: feature search
    ``shape``        a disc among squares of its colour, or a square among discs: feature search
    ``conjunction``  half of the distractors share its colour, the others its shape
    ``letters``      T among L, or L among T, each turned by quarters
    ``textures``     a grating among gratings that are turned 45 to 90 degrees, before noise
    ``photos``       a round crop of one photograph among crops of others, before a photograph
    ===============  ===================================================================================

    Args:
        kinds: One or more of :data:`SEARCH_KINDS`; each display has one of them, drawn.
        set_sizes: How many items there may be, the target included; drawn.
        item_px: Diameter of an item; None takes an eighth of the short side.
        split: "train" or "test": displays of different draws, and other photographs. Of the photographs, sorted as
            their source does, even positions train and odd ones test.
        photos: Photographs of the kind ``photos``: a source, or what ``open_scenes`` takes.
        size: (H, W) in px.
        count: Number of displays.
        seed: Different seeds give different displays.
        px_per_deg: Of the displays' pixels; None makes the short side span 27.4 degrees.
        cache_bytes: Bound on the pictures that are cached.

    Raises:
        InvalidTypeError: An argument of a wrong type.
        InvalidValueError: An unknown kind or split, more items than there is room for, or less than two photographs.
        SceneError: Photographs that cannot be read.

    Reference:
        Treisman and Gelade 1980, A feature-integration theory of attention, Cognitive Psychology 12:97-136 (features
        and conjunctions); Wolfe 1998, What can 1 million trials tell us about visual search?, Psychological Science
        9:33-39 (letters, slopes).

    Example:
        >>> found = SearchScenes(kinds="conjunction", set_sizes=(8,)).display(0)
        >>> found.set_size, found.target.shape
        (8, (36, 36, 3))
    """

    kind = "search"

    def __init__(
        self,
        *,
        kinds: str | Sequence[str] = "conjunction",
        set_sizes: Sequence[int] = (4, 8, 16),
        item_px: int | None = None,
        split: str = "train",
        photos: object = "photos",
        size: tuple[int, int] = (96, 96),
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(size=size, count=count, seed=seed, px_per_deg=px_per_deg, cache_bytes=cache_bytes)
        if not isinstance(kinds, Sequence) or not kinds:
            raise InvalidValueError(f"kinds must be one or more of {', '.join(SEARCH_KINDS)}; got {kinds!r}.")
        several = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        self.kinds = tuple(validation.choice("kinds", kind, SEARCH_KINDS) for kind in several)
        self.split = validation.choice("split", split, SEARCH_SPLITS)
        short = min(self.size)
        self.item_px = validation.whole("item_px", short // 8 if item_px is None else item_px, 8, short)
        self._cells = _free_cells(self.size, self.item_px)
        set_sizes = set_sizes.tolist() if isinstance(set_sizes, np.ndarray) else set_sizes
        if not isinstance(set_sizes, Sequence) or isinstance(set_sizes, str) or not set_sizes:
            raise InvalidTypeError(
                f"set_sizes must be a list of whole numbers; got {set_sizes!r}. Write ({set_sizes},)."
            )
        if max(validation.whole("set_sizes", n, 1, 1 << 16) for n in set_sizes) > len(self._cells):
            raise InvalidValueError(
                f"set_sizes must be at most {len(self._cells)}, the room for items of {self.item_px} px in a scene of "
                f"{self.size}; got {tuple(set_sizes)}. Give a smaller item_px or a larger size."
            )
        self.set_sizes = tuple(int(n) for n in set_sizes)
        self._photos: SceneSource | None = None
        self._of_split: list[int] = []
        if "photos" in self.kinds:
            self._photos = open_scenes(photos)
            self._of_split = list(range(SEARCH_SPLITS.index(split), len(self._photos), 2))
            if self._photos.moving or len(self._of_split) < 2:
                raise InvalidValueError(
                    f"photos must be still pictures, at least two for each split; got {len(self._photos)}"
                    f"{' that move' if self._photos.moving else ''}."
                )

    @property
    def target_side_px(self) -> int:
        """Side of the picture of the target, px."""
        return max(TARGET_SIDE_PX, math.ceil(1.5 * self.item_px))

    def display(self, index: int) -> Display:
        """Return what is to be found in picture ``index``.

        Raises:
            InvalidTypeError: ``index`` is not a whole number.
            InvalidValueError: ``index`` is out of range.
        """
        plan, radius = self._plan(check_index(index, len(self))), self.item_px / 2
        target = plan.items[0]
        if target.shape in ("T", "L"):
            target = Item(target.shape, target.colour)
        picture = portrait(target, radius, self.target_side_px)
        return Display(plan.kind, plan.places.astype(np.float32), radius, self._px_per_deg, picture)

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64; what lies outside of 0 to 1 is clipped."""
        plan = self._plan(index)
        if plan.ground >= 0:
            levels = fit_picture(self._photo(plan.ground), self.size).image / 255.0
        elif plan.kind == "textures":
            levels = GREY + _CLUTTER * (self._pink(self._number(index), part=9) - 0.5)
        else:
            levels = np.full((*self.size, 3), GREY)
        for item, (x, y) in zip(plan.items, plan.places.tolist(), strict=True):
            paint_item(levels, item, (x, y), self.item_px / 2)
        return levels

    def _number(self, index: int) -> int:
        """What a display is drawn by: the splits share no number."""
        return 2 * index + SEARCH_SPLITS.index(self.split)

    def _plan(self, index: int) -> _Plan:
        number = self._number(index)
        head = self._draw(uniform, number, 1, 8)
        kind = self.kinds[int(head[0] * len(self.kinds))]
        count = self.set_sizes[int(head[1] * len(self.set_sizes))]
        where = self._draw(uniform, number, 2, 3 * len(self._cells)).reshape(3, -1)
        chosen = np.argsort(where[0])[:count]
        jitter = np.array([side / n for side, n in zip(self.size[::-1], self._shape()[::-1], strict=True)])
        jitter = np.maximum((jitter - self.item_px) / 2 - 1, 0)  # a gap of 2 px at least where cells allow it
        middle = self._cells[chosen] + (2 * where[1:, chosen].T - 1) * jitter
        radius = self.item_px / 2
        places = np.rint(middle - radius) + radius  # whole pixels: a crop is not resampled
        each = self._draw(uniform, number, 3, 2 * count).reshape(2, count)
        if kind == "photos":
            ground, items = self._crops(number, head, count)
            return _Plan(kind, items, places, ground)
        return _Plan(kind, _items(kind, head, each), places, -1)

    def _shape(self) -> tuple[int, int]:
        return _grid_shape(self.size, self.item_px)

    def _photo(self, number: int) -> Picture:
        if self._photos is None:
            raise InvalidValueError("these scenes have no photographs; give kinds with 'photos' among them.")
        return self._photos.picture(number)

    def _crops(self, number: int, head: Float, count: int) -> tuple[int, list[Item]]:
        """Return the photograph behind and the crops before it; the target's photograph gives nothing else."""
        target = int(head[2] * len(self._of_split))
        others = [photo for place, photo in enumerate(self._of_split) if place != target]
        ground = others[int(head[3] * len(others))]
        items = []
        for one in range(count):
            u = self._draw(uniform, number, 10 + one, 1 + 2 * _CROPS_TRIED)
            photo = self._of_split[target] if one == 0 else others[int(u[0] * len(others))]
            items.append(Item("crop", crop=_crop(self._photo(photo), u[1:].reshape(-1, 2), self.item_px)))
        return ground, items


def _items(kind: str, head: Float, each: Float) -> list[Item]:
    """Return the items of a display that shows no photographs, the target first."""
    count = each.shape[1]
    first = int(head[2] * len(COLOURS))
    other = (first + 1 + int(head[3] * (len(COLOURS) - 1))) % len(COLOURS)
    mine, theirs = COLOURS[first], COLOURS[other]
    shapes = ("disc", "square") if head[4] < 0.5 else ("square", "disc")
    if kind == "colour":
        return [Item(shapes[0], mine if one == 0 else theirs) for one in range(count)]
    if kind == "shape":
        return [Item(shapes[0 if one == 0 else 1], mine) for one in range(count)]
    if kind == "conjunction":
        parity = int(head[5] * 2)
        distractors = [
            Item(shapes[0], theirs) if (one + parity) % 2 else Item(shapes[1], mine) for one in range(count - 1)
        ]
        return [Item(shapes[0], mine), *distractors]
    if kind == "letters":
        letters = ("T", "L") if head[4] < 0.5 else ("L", "T")
        turns = np.floor(4 * each[0]) * (math.pi / 2)
        return [Item(letters[0 if one == 0 else 1], (0.95,) * 3, float(turns[one])) for one in range(count)]
    turned = math.pi * (head[6] + np.where(np.arange(count) == 0, 0.25 + 0.25 * head[7], 0))
    return [
        Item("grating", angle=angle, phase=phase)
        for angle, phase in zip(turned.tolist(), (2 * math.pi * each[1]).tolist(), strict=True)
    ]


def _grid_shape(size: tuple[int, int], item_px: int) -> tuple[int, int]:
    cell = _CELL * item_px
    return max(1, int(size[0] / cell)), max(1, int(size[1] / cell))


def _free_cells(size: tuple[int, int], item_px: int) -> Float:
    """Return the middles (N, 2), px, of the cells that items may lie in: not those at the middle of the scene."""
    rows, cols = _grid_shape(size, item_px)
    high, wide = size[0] / rows, size[1] / cols
    y, x = np.meshgrid((np.arange(rows) + 0.5) * high, (np.arange(cols) + 0.5) * wide, indexing="ij")
    middle = (np.abs(y - size[0] / 2) < 0.75 * high) & (np.abs(x - size[1] / 2) < 0.75 * wide)
    return np.stack((x[~middle], y[~middle]), 1)


def _crop(picture: Picture, u: Float, side_px: int) -> Float:
    """Return the window of most contrast among those tried, (side, side, 3) in [0, 1]: sky has none, things have."""
    image = picture.image
    side = max(8, round(_CROP * min(picture.size)))
    places = (u * (np.array(picture.size) - side + 1)).astype(int).tolist()
    windows = [image[y : y + side, x : x + side] for y, x in places]
    best = max(windows, key=lambda window: float(window[::4, ::4].mean(2).std()))
    fitted = fit_picture(Picture(np.ascontiguousarray(best), -1, picture.name, picture.px_per_deg), (side_px, side_px))
    return fitted.image / 255.0
