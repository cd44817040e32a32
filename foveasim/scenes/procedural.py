"""Procedural scenes: drawn from a seed, so they need no files and any of them can be made alone, in any order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.geometry import resolution
from foveasim.images.picture import Picture, PictureCache, check_index, describe_source
from foveasim.rng import Stream, normal, uniform

__all__ = [
    "CheckerboardScenes",
    "GratingScenes",
    "NoiseScenes",
    "ProceduralScenes",
    "ShapeScenes",
    "UniformScenes",
]

_CONTRAST = 0.2
"""Root-mean-square contrast of noise: black and white are then 5 standard deviations away, so that hardly a pixel is
clipped."""

_CHROMA = 0.3
"""Amplitude of noise's two colour-opponent channels as a part of that of its luminance. In nature, too, they vary far
less than luminance does (Ruderman, Cronin and Chiao 1998)."""

Float = NDArray[np.float64]


class ProceduralScenes(ABC):
    """Base of the sources below: numbered pictures, each a pure function of (seed, index, size).

    Args:
        size: (H, W) in px.
        count: Number of pictures.
        seed: Different seeds give different pictures.
        px_per_deg: Of the pictures' pixels; None makes the short side span 27.4 degrees.
        cache_bytes: Bound on the pictures that are cached.

    Raises:
        InvalidTypeError: An argument of a wrong type.
        InvalidValueError: An argument out of range.
    """

    moving = False
    labels: tuple[str, ...] = ()
    kind = "procedural"

    def __init__(
        self,
        *,
        size: tuple[int, int] = (256, 256),
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        self.size = validation.size_hw("size", size)
        self.seed = validation.seed_value("seed", seed)
        self._count = validation.whole("count", count, 1, 1 << 53)  # as far as a number drawn in [0, 1) reaches all
        self._px_per_deg = resolution(px_per_deg, self.size)
        self._cache = PictureCache(cache_bytes)

    def __repr__(self) -> str:
        return describe_source(self, f"size={self.size}", f"seed={self.seed}")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return self._count

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return a picture, always the same one for an index.

        Raises:
            InvalidTypeError: ``index`` is not a whole number.
            InvalidValueError: ``index`` is out of range.
        """
        index = check_index(index, len(self))
        found = self._cache.get(index)
        if found is None:
            levels = self.paint(index)
            image = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
            found = Picture(np.ascontiguousarray(image), -1, f"{self.kind} {index}", self._px_per_deg)
            self._cache.put(index, found)
        return found

    @abstractmethod
    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64; what lies outside of 0 to 1 is clipped."""

    def _draw(self, draw: Callable[..., torch.Tensor], index: int, part: int, count: int) -> Float:
        """Draw ``count`` numbers that belong to one part of one picture."""
        key = [torch.tensor([value], dtype=torch.int64) for value in (self.seed, index, part)]
        numbers: Float = draw(*key, Stream.CONTENT, count)[0].numpy()
        return numbers


class NoiseScenes(ProceduralScenes):
    """Pink colour noise: amplitude falls as 1 / frequency, as it does in photographs of nature.

    Mean 0.5; root-mean-square contrast of the luminance 0.2.

    Reference:
        Field 1987, "Relations between the statistics of natural images and the response properties of cortical cells",
        J. Opt. Soc. Am. A 4, 2379-2394: amplitude spectra that fall as 1 / frequency.
    """

    kind = "noise"

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64; what lies outside of 0 to 1 is clipped."""
        return self._pink(index, part=0)

    def _pink(self, index: int, part: int) -> Float:
        height, width = self.size
        white = self._draw(normal, index, part, 3 * height * width).reshape(3, height, width)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        frequency[0, 0] = 1.0
        spectrum = np.fft.rfft2(white) / frequency
        spectrum[:, 0, 0] = 0.0
        fields = np.fft.irfft2(spectrum, s=self.size)
        fields *= 0.5 * _CONTRAST / fields.std(axis=(1, 2), keepdims=True)
        light, red_green, blue_yellow = fields * np.array([1.0, _CHROMA, _CHROMA])[:, None, None]
        return 0.5 + np.stack((light + red_green, light - red_green, light + blue_yellow), axis=2)


class ShapeScenes(NoiseScenes):
    """Discs and turned rectangles of random colours on a textured background: things to look at, and gaps between them.

    Args:
        shapes: Smallest and largest number of shapes.
        arguments: Those of :class:`ProceduralScenes`.

    Raises:
        InvalidValueError: ``shapes`` is not (minimum, maximum) with 0 <= minimum <= maximum.
    """

    kind = "shapes"

    def __init__(
        self,
        *,
        size: tuple[int, int] = (256, 256),
        shapes: tuple[int, int] = (4, 10),
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(size=size, count=count, seed=seed, px_per_deg=px_per_deg, cache_bytes=cache_bytes)
        if len(shapes) != 2 or not 0 <= shapes[0] <= shapes[1]:
            raise InvalidValueError(f"shapes must be (minimum, maximum) with 0 <= minimum <= maximum; got {shapes!r}.")
        self.shapes = (int(shapes[0]), int(shapes[1]))

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64; what lies outside of 0 to 1 is clipped."""
        height, width = self.size
        short = min(self.size)
        head = self._draw(uniform, index, 1, 4)
        levels = self._pink(index, part=0) - 0.5 + 0.25 + 0.5 * head[1:4]
        y, x = np.mgrid[0.5:height:1.0, 0.5:width:1.0]
        number = self.shapes[0] + int(head[0] * (self.shapes[1] - self.shapes[0] + 1))
        for one in range(number):
            u = self._draw(uniform, index, 2 + one, 9)
            right, down = x - u[0] * width, y - u[1] * height
            radius = short * (0.05 + 0.15 * u[2])
            if u[3] < 0.5:
                outside = np.hypot(right, down) - radius
            else:
                angle = math.pi * u[4]
                along = math.cos(angle) * right + math.sin(angle) * down
                across = math.cos(angle) * down - math.sin(angle) * right
                outside = np.maximum(np.abs(along) - radius, np.abs(across) - radius * (0.4 + 0.6 * u[5]))
            cover = np.clip(0.5 - outside, 0, 1)[..., None]  # antialiased over one pixel
            levels = levels * (1 - cover) + u[6:9] * cover
        return levels


class GratingScenes(ProceduralScenes):
    """Sinusoidal gratings of random orientation, wavelength, phase and contrast, of mean 0.5.

    Wavelengths run from 4 px to a quarter of the short side, evenly on a logarithmic axis.
    """

    kind = "grating"

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64; what lies outside of 0 to 1 is clipped."""
        height, width = self.size
        u = self._draw(uniform, index, 0, 4)
        angle, phase, contrast = math.pi * u[0], 2 * math.pi * u[1], 0.2 + 0.8 * u[2]
        wavelength = 4.0 * (max(4.0, min(self.size) / 4) / 4.0) ** u[3]
        y, x = np.mgrid[0.5:height:1.0, 0.5:width:1.0]
        wave = np.sin(2 * math.pi / wavelength * (math.cos(angle) * x + math.sin(angle) * y) + phase)
        return np.repeat((0.5 + 0.5 * contrast * wave)[..., None], 3, axis=2)


class UniformScenes(ProceduralScenes):
    """One flat colour each: whatever an eye does, it must see this colour.

    Args:
        colour: (R, G, B) from 0 to 255 for every picture, or None for random ones.
        arguments: Those of :class:`ProceduralScenes`.

    Raises:
        InvalidValueError: ``colour`` is not three numbers from 0 to 255.
    """

    kind = "uniform"

    def __init__(
        self,
        *,
        size: tuple[int, int] = (256, 256),
        colour: tuple[int, int, int] | None = None,
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(size=size, count=count, seed=seed, px_per_deg=px_per_deg, cache_bytes=cache_bytes)
        if colour is not None and (len(colour) != 3 or not all(0 <= value <= 255 for value in colour)):
            raise InvalidValueError(f"colour must be (R, G, B) from 0 to 255; got {colour!r}.")
        self.colour = colour

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64 from 0 to 1."""
        colour = self._draw(uniform, index, 0, 3) if self.colour is None else np.array(self.colour) / 255
        return np.tile(colour, (*self.size, 1))


class CheckerboardScenes(ProceduralScenes):
    """Black and white checkerboards, shifted at random.

    Args:
        cell_px: Side of a cell, or None for random ones from 4 px to a quarter of the short side.
        arguments: Those of :class:`ProceduralScenes`.

    Raises:
        InvalidTypeError: ``cell_px`` is not a whole number.
        InvalidValueError: ``cell_px`` is under 1.
    """

    kind = "checkerboard"

    def __init__(
        self,
        *,
        size: tuple[int, int] = (256, 256),
        cell_px: int | None = None,
        count: int = 10_000,
        seed: int = 0,
        px_per_deg: float | None = None,
        cache_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(size=size, count=count, seed=seed, px_per_deg=px_per_deg, cache_bytes=cache_bytes)
        if cell_px is not None and validation.seed_value("cell_px", cell_px) < 1:
            raise InvalidValueError(f"cell_px must be at least 1; got {cell_px!r}.")
        self.cell_px = cell_px

    def paint(self, index: int) -> Float:
        """Return picture ``index``, (H, W, 3) float64, 0 or 1."""
        height, width = self.size
        u = self._draw(uniform, index, 0, 3)
        cell = self.cell_px or 4 + int(u[0] * max(1, min(self.size) // 4 - 3))
        down, right = int(u[1] * 2 * cell), int(u[2] * 2 * cell)
        rows, cols = (np.arange(height) + down) // cell, (np.arange(width) + right) // cell
        return np.repeat(((rows[:, None] + cols[None]) % 2).astype(np.float64)[..., None], 3, axis=2)
