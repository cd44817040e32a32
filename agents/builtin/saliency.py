"""Agents that look at what stands out, as far as they have seen it.

Salience is computed from the belief, what has been seen so far, never from the hidden scene. Two things then need care.
The border of what was seen is the strongest edge in the picture and belongs to no object: hidden pixels are therefore
filled smoothly from what surrounds them before anything is measured. And nothing stands out where nothing was seen:
salience is continued from the seen into the hidden in the same way, so that gaze follows a salient thing out of sight.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.interface import Observation, describe_agent, observed
from foveasim.agents.mim.memo import MapMemory
from foveasim.agents.noise import LaneNoise
from foveasim.errors import AgentError
from foveasim.validation import image_batch, number

__all__ = ["MAP_MEMORY", "IttiKoch", "SpectralResidual", "fill_hidden", "itti_koch_map", "spectral_residual_map"]

WORKING_SIDE = 96
"""Short side in px at which salience is computed; larger scenes are averaged down to it first."""

CHUNK = 16
"""Lanes computed at a time, so that their maps stay in the cache."""


def fill_hidden(image: Tensor, seen: Tensor) -> Tensor:
    """Fill what was not seen from what was, smoothly: push-pull over a pyramid of averages.

    Args:
        image: (B, C, H, W) float.
        seen: (B, 1, H, W) float in [0, 1], how far each pixel is to be trusted.

    Returns:
        (B, C, H, W): ``image`` where ``seen`` is 1. Zero in a lane that has seen nothing.

    Reference:
        Gortler, Grzeszczuk, Szeliski and Cohen 1996, The lumigraph, section 3.4.1 (pull and push).
    """
    levels = [(image * seen, seen)]
    while max(levels[-1][0].shape[-2:]) > 1:
        levels.append(tuple(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in levels[-1]))  # type: ignore[arg-type]
    total, weight = levels[-1]
    filled = total / weight.clamp_min(1e-6)
    for total, weight in reversed(levels[:-1]):
        filled = total + (1 - weight) * _resize(filled, total.shape[-2:])
    return filled


def itti_koch_map(image: Tensor, seen: Tensor | None = None) -> Tensor:
    """Compute the salience of every place by intensity, colour and orientation contrast.

    Args:
        image: (B, H, W, 3) uint8.
        seen: (B, H, W), 0 where ``image`` is not to be trusted; None: all of it is.

    Returns:
        (B, h, w) float32, 0 to 1 (all 0 where nothing stands out), over the whole scene on a coarser grid.

    Reference:
        Itti, Koch and Niebur 1998, A model of saliency-based visual attention for rapid scene analysis, IEEE TPAMI
        20:1254-1259: centre-surround differences (equations 1 to 4), normalisation N, equations 5 to 8. The paper takes
        centres at levels 2 to 4 of a 640 x 480 picture; for a short side of 96 px the same places are levels 0 to 2.
        Colour opponency is that of Walther and Koch 2006, Neural Networks 19:1395-1407, equations 3 and 4, by which a
        scene of one colour has no colour contrast.
    """
    rgb, trust = _prepare(image, seen)
    levels = [_features(rgb)]
    pixels = rgb
    while len(levels) < 6:
        pixels = _halve(pixels)
        levels.append(_features(pixels))
    size = levels[1].shape[-2:]
    total = torch.zeros(len(rgb), 7, *size, device=rgb.device)
    for centre in range(3):
        for step in (2, 3):
            near, far = levels[centre], levels[centre + step]
            contrast = (_resize(far, near.shape[-2:]) - near).abs_()
            # Normalised at no finer than the map's own size: maxima of single pixels are noise, and cost the most.
            total += _resize(_promote(_at_most(contrast, size)), size)
    intensity, colour = total[:, :1], total[:, 1:3].sum(1, keepdim=True)
    orientation = _promote(total[:, 3:]).sum(1, keepdim=True)
    return _finish(sum(_promote(part) for part in (intensity, colour, orientation)), trust)  # type: ignore[arg-type]


def spectral_residual_map(image: Tensor, seen: Tensor | None = None) -> Tensor:
    """Compute the salience of every place as what the smoothed log spectrum of the scene does not foretell.

    Args:
        image: (B, H, W, 3) uint8.
        seen: (B, H, W), 0 where ``image`` is not to be trusted; None: all of it is.

    Returns:
        (B, h, w) float32, 0 to 1 (all 0 where nothing stands out), over the whole scene on a coarser grid.

    Reference:
        Hou and Zhang 2007, Saliency detection: a spectral residual approach, CVPR, equations 5 to 9; 64 px and the
        Gaussian of 2.5 px are those of the authors' code.
    """
    rgb, trust = _prepare(image, seen)
    grey = rgb.mean(1, keepdim=True)
    scale = 64 / min(grey.shape[-2:])
    height, width = (max(8, round(side * scale)) for side in grey.shape[-2:])
    grey = F.interpolate(grey, (height, width), mode="area")
    varied = (grey.amax((1, 2, 3)) - grey.amin((1, 2, 3)) > 1 / 255)[:, None, None, None]
    # A picture that wraps around has edges that stand out more than anything in it: it fades into a grey margin.
    margin = 16
    padded = F.pad(grey, (margin, margin, margin, margin), mode="replicate") - grey.mean((2, 3), keepdim=True)
    padded = padded * _fade(height, margin, grey.device)[:, None] * _fade(width, margin, grey.device)
    spectrum = torch.fft.fft2(padded)
    log_amplitude = torch.log(spectrum.abs().clamp_min(1e-6))
    average = F.avg_pool2d(F.pad(log_amplitude, (1, 1, 1, 1), mode="circular"), 3, 1)
    residual = torch.polar(torch.exp(log_amplitude - average), spectrum.angle())
    salience = _smooth(torch.fft.ifft2(residual).abs().square(), 2.5)[..., margin:-margin, margin:-margin]
    if seen is not None:
        # The residual is nearly white, so where only a share a of the bandwidth was seen its energy is a² of the sharp
        # one: without this division the fovea stands out, whatever it looks at. Below 0.2 it would be noise.
        acuity = F.interpolate(seen[:, None].float() / 255, trust.shape[-2:], mode="area")
        acuity = F.interpolate(fill_hidden(acuity, trust), (height, width), mode="area")
        salience = salience / (acuity * (min(image.shape[1:3]) / 64)).clamp(0.2, 1).square()
    return _finish(torch.where(varied, salience, 0), trust)


class _Saliency(ABC):
    """Looks at the most salient place that it has not looked at lately."""

    name = "saliency"
    __repr__ = describe_agent

    def __init__(
        self, privileged: bool = False, ior_radius: float = 1 / 6, ior_half_life: float = 4.0, seed: int = 0
    ) -> None:
        self.needs: tuple[str, ...] = ("scene",) if privileged else ("belief",)
        if privileged:
            self.name = f"{self.name} (privileged)"
        self._radius = number("ior_radius", ior_radius, 0, 10, open_low=True)
        self._keep = 0.5 ** (1 / number("ior_half_life", ior_half_life, 0, open_low=True))
        self._noise = LaneNoise(seed)
        self._inhibition: Tensor | None = None

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear where the marked lanes, (B,) bool, have looked."""
        self._noise.reset(lanes)
        if self._inhibition is not None and len(self._inhibition) == len(lanes):
            fresh = torch.from_numpy(np.array(lanes)).to(self._inhibition.device)
            self._inhibition = self._inhibition * ~fresh[:, None, None]
        else:
            self._inhibition = None

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the most salient place that is not inhibited, (B, 2) float32 in [-1, 1]."""
        fixation = torch.from_numpy(observed(observation, "fixation").astype(np.float32))
        self._noise.check(len(fixation))
        salience = self.salience(observation)
        rows, cols = salience.shape[1:]
        y = (torch.arange(rows, device=salience.device) + 0.5) * (2 / rows) - 1
        x = (torch.arange(cols, device=salience.device) + 0.5) * (2 / cols) - 1
        fixation = fixation.to(salience.device)
        # Distances in half short sides, so that the inhibited region is round in the scene, not in [-1, 1].
        short = min(rows, cols)
        across = (x - fixation[:, :1]).square() * (cols / short) ** 2
        down = (y - fixation[:, 1:]).square() * (rows / short) ** 2
        distance2 = (down[:, :, None] + across[:, None, :]) / (2 * self._radius) ** 2
        here = torch.exp(-distance2.square())
        if self._inhibition is None or self._inhibition.shape != salience.shape:
            self._inhibition = torch.zeros_like(salience)
        self._inhibition = torch.maximum(self._inhibition * self._keep, here)
        ties = torch.from_numpy(self._noise.uniform(rows * cols).astype(np.float32)).to(salience.device)
        wanted = (salience + 0.01 * ties.reshape(salience.shape)) * (1 - self._inhibition)
        best = wanted.flatten(1).argmax(1)
        self._noise.tick()
        return torch.stack((x[best % cols], y[best // cols]), 1).cpu().numpy()

    def salience(self, observation: Observation) -> Tensor:
        """Return the map that the agent goes by, before inhibition of return, (B, h, w) float32, 0 to 1.

        Raises:
            AgentError: The observation lacks what the agent needs.
        """
        key = self.needs[0]
        for needed in (key, *(["belief_acuity"] if key == "belief" else [])):
            if needed not in observation:
                raise AgentError(
                    f"the agent {self.name!r} needs {needed!r}, and the observation has {', '.join(observation)}. "
                    + ("Make the env with belief=True." if key == "belief" else "It sees the whole scene.")
                )
        with torch.inference_mode():
            image = image_batch(key, torch.as_tensor(observation[key]))
            seen = torch.as_tensor(observation["belief_acuity"]).reshape(image.shape[:3]) if key == "belief" else None
            return self._map(image, seen)

    @abstractmethod
    def _map(self, image: Tensor, seen: Tensor | None) -> Tensor: ...


class IttiKoch(_Saliency):
    """Looks at what differs from its surround in intensity, colour or orientation, in what it has seen.

    The winner takes all, with 1 % of noise to settle ties. Where gaze has been is inhibited: fully at the fixation,
    by 1/e one radius away, fading from fixation to fixation.

    Args:
        privileged: See the whole scene, hidden pixels included; the agent's name then says so.
        ior_radius: Radius of inhibition of return, in short sides of the scene (Itti et al. 1998: one sixth).
        ior_half_life: Fixations after which half of the inhibition is left. People return less to the last five or so
            places that they searched (Klein 2000): with 4, the fifth is still inhibited by 0.42.
        seed: Seed of lane 0; lane i has ``seed + i``.

    Raises:
        InvalidValueError: A radius or half-life out of range.

    Reference:
        :func:`itti_koch_map`; Klein 2000, Inhibition of return, Trends in Cognitive Sciences 4:138-147.
    """

    name = "itti_koch"

    def _map(self, image: Tensor, seen: Tensor | None) -> Tensor:
        return MAP_MEMORY["itti_koch"].look_up(image, seen)


class SpectralResidual(_Saliency):
    """Looks at what the scene's own spectrum does not foretell, in what it has seen.

    Arguments, inhibition of return and errors are those of :class:`IttiKoch`.

    Reference:
        :func:`spectral_residual_map`.
    """

    name = "spectral_residual"

    def _map(self, image: Tensor, seen: Tensor | None) -> Tensor:
        return MAP_MEMORY["spectral_residual"].look_up(image, seen)


def _in_chunks(compute: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[[Tensor, Tensor | None], Tensor]:
    def computed(image: Tensor, seen: Tensor | None) -> Tensor:
        parts = [slice(start, start + CHUNK) for start in range(0, len(image), CHUNK)]
        return torch.cat([compute(image[part], None if seen is None else seen[part]) for part in parts])

    return computed


MAP_MEMORY = {
    "itti_koch": MapMemory(_in_chunks(itti_koch_map)),
    "spectral_residual": MapMemory(_in_chunks(spectral_residual_map)),
}
"""The last maps by name: an eye that stays or sees the whole scene, and every eye at its first view of a scene, has the
same again."""


def _prepare(image: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return filled pixels (B, 3, h, w) in [0, 1] and trust (B, 1, h, w), the short side at most WORKING_SIDE px."""
    rgb = image.permute(0, 3, 1, 2).float() / 255
    trust = torch.ones_like(rgb[:, :1]) if seen is None else (seen > 0).float()[:, None]
    scale = WORKING_SIDE / min(rgb.shape[-2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in rgb.shape[-2:]]
        share = F.interpolate(trust, size, mode="area")
        rgb = F.interpolate(rgb * trust, size, mode="area") / share.clamp_min(1e-6)
        trust = (share > 0.5).float()
    return (rgb if seen is None else fill_hidden(rgb, trust)), trust


def _finish(salience: Tensor, trust: Tensor) -> Tensor:
    """Continue salience into the hidden and scale it to 0-1, (B, 1, h, w) to (B, h, w)."""
    salience = fill_hidden(salience, F.interpolate(trust, salience.shape[-2:], mode="area"))
    peak = salience.amax((2, 3), keepdim=True)
    return torch.where(peak > 1e-6, salience / peak.clamp_min(1e-6), 0)[:, 0]


@lru_cache(maxsize=8)
def _gabors(device: torch.device) -> Tensor:
    """Return even and odd Gabor filters at 0, 45, 90 and 135 degrees, (8, 1, 7, 7), wavelength 5 px, no mean."""
    y, x = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    envelope = torch.exp(-(x * x + y * y) / (2 * 1.8**2))
    filters = []
    for phase in (0, math.pi / 2):
        for angle in (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4):
            wave = torch.cos((x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / 5) - phase)
            wave = envelope * (wave - (envelope * wave).sum() / envelope.sum())
            filters.append(wave / wave.abs().sum())
    return torch.stack(filters)[:, None].to(device)


def _features(rgb: Tensor) -> Tensor:
    """Return intensity, red-green, blue-yellow and four orientations, (B, 7, h, w)."""
    intensity = rgb.mean(1, keepdim=True)
    red, green, blue = rgb.unbind(1)
    brightest = rgb.amax(1)
    scale = torch.where(
        brightest > 0.1, 1 / brightest.clamp_min(0.1), 0
    )  # hue is noise in the dark (Itti 1998, p. 1255)
    opponent = torch.stack(((red - green) * scale, (blue - torch.minimum(red, green)) * scale), 1)
    wave = F.conv2d(F.pad(intensity, (3, 3, 3, 3), mode="replicate"), _gabors(rgb.device))
    return torch.cat((intensity, opponent, torch.hypot(wave[:, :4], wave[:, 4:])), 1)


def _halve(pixels: Tensor) -> Tensor:
    """Blur by the 5-tap binomial filter and take every second pixel (Burt and Adelson 1983)."""
    channels = pixels.shape[1]
    tap = torch.tensor([1.0, 4, 6, 4, 1], device=pixels.device) / 16
    pixels = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    pixels = F.conv2d(pixels, tap.reshape(1, 1, 1, 5).expand(channels, 1, 1, 5), stride=(1, 2), groups=channels)
    return F.conv2d(pixels, tap.reshape(1, 1, 5, 1).expand(channels, 1, 5, 1), stride=(2, 1), groups=channels)


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _at_most(maps: Tensor, size: torch.Size) -> Tensor:
    """Average the finest maps to the size of the next ones."""
    larger = maps.shape[-1] > size[-1]
    return F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False) if larger else maps


def _highest_around(maps: Tensor) -> Tensor:
    """Return the maximum of each 7 x 7 neighbourhood: many times as fast as ``max_pool2d`` on a CPU."""
    for step in (1, 2):  # 3 x 3, then every second one of those
        wide = F.pad(maps, (step, step, step, step), value=-1)
        wide = torch.maximum(torch.maximum(wide[..., : -2 * step], wide[..., step:-step]), wide[..., 2 * step :])
        maps = torch.maximum(
            torch.maximum(wide[..., : -2 * step, :], wide[..., step:-step, :]), wide[..., 2 * step :, :]
        )
    return maps


def _promote(maps: Tensor) -> Tensor:
    """Favour maps with one peak over maps with many: N of Itti et al. 1998, p. 1256, (B, C, h, w) each on its own.

    Each map is scaled to 0-1 and multiplied by (1 - m)², m the mean of its local maxima but the highest.
    """
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    spread = high - low
    scaled = torch.where(spread > 1e-4, (maps - low) / spread.clamp_min(1e-4), 0)
    peaks = (scaled == _highest_around(scaled)) & (scaled > 0.1)
    count = peaks.sum((2, 3), keepdim=True)
    others = ((scaled * peaks).sum((2, 3), keepdim=True) - 1) / (count - 1).clamp_min(1)
    return scaled * (1 - others.clamp_min(0)).square()


def _fade(extent: int, margin: int, device: torch.device) -> Tensor:
    """Return 1 over the extent, falling to 0 across the margins as a raised cosine, (extent + 2 margin,)."""
    fall = 0.5 + 0.5 * torch.cos(torch.arange(margin, device=device) * (math.pi / margin))
    return torch.cat((fall.flip(0), torch.ones(extent, device=device), fall))


def _smooth(maps: Tensor, sd_px: float) -> Tensor:
    reach = math.ceil(2 * sd_px)
    tap = torch.exp(-torch.arange(-reach, reach + 1, device=maps.device).square() / (2 * sd_px**2))
    tap = tap / tap.sum()
    maps = F.pad(maps, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(maps, tap.reshape(1, 1, 1, -1)), tap.reshape(1, 1, -1, 1))
