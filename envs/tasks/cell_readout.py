"""A readout without a network: naive Bayes over the mean colours of cells, of which unseen ones count for nothing."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.errors import InvalidValueError, SceneError
from foveasim.registry import Registry
from foveasim.scenes.source import FittedScenes, SceneSource

__all__ = ["READOUT_FILES", "CellReadout", "Readout", "fit_cells"]

_MIN_STD = 0.02  # of a cell's colour, 5 grey levels: what a glimpse and quantisation may add
_TEMPERATURES = np.geomspace(0.001, 1, 31)


@runtime_checkable
class Readout(Protocol):
    """Names the class of what has been seen. It is frozen: the same belief gives the same answer."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the C classes."""
        ...

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return how sure each class is.

        Args:
            image: (B, H, W, 3) uint8, what was seen. Not to be written to, nor stored.
            acuity: (B, H, W) uint8, 0 where nothing was.

        Returns:
            (B, C) float32, the logarithm of each class's probability.
        """


READOUT_FILES = Registry[Readout]("kind of readout file")
"""What reads the file of a readout. Networks stand above the envs: their readouts are named here, not imported."""

READOUT_FILES.add("belief", "foveasim.agents.mim.belief_readout:load_belief_readout")


@dataclass(frozen=True, eq=False)
class CellReadout:
    """Gaussian naive Bayes on the mean colours of the cells of a grid.

    A class's score is -temperature / 2 times the sum, over cells and colour channels, of the cell's mean acuity times
    its squared distance from the class's mean in standard deviations. A cell that was not seen adds nothing, which is
    what it ought to add where cells are independent. Neighbouring cells of photographs are not: the temperature, chosen
    when fitting, makes up for that on average.

    Attributes:
        classes: Names of the C classes.
        mean: (C, 3, rows, cols) float32 in [0, 1].
        std: (3, rows, cols) float32, within classes.
        temperature: Weight of the evidence, 1 where cells and channels are independent.

    Reference:
        Bishop 2006, Pattern recognition and machine learning, section 8.2.2 (naive Bayes).
    """

    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    temperature: float = 1.0

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the logarithm of each class's probability, (B, C) float32; see :class:`Readout`.

        On the CPU a lane's answer has the same bits whatever lanes are beside it.
        """
        cells = self.mean.shape[2], self.mean.shape[3]
        if image.device.type != "cpu":
            colour, weight = _cell_colours(image, acuity, cells)
            return self.scores(colour, weight).log_softmax(1)
        colours, weights = _cell_means(image.numpy(), acuity.numpy(), cells)
        log_probability = np.empty((len(image), len(self.mean)), np.float32)
        _kernels().weigh_classes(
            colours, weights, self.mean.cpu().numpy(), self.std.cpu().numpy(), float(self.temperature), log_probability
        )
        return torch.from_numpy(log_probability)

    def scores(self, colour: Tensor, weight: Tensor) -> Tensor:
        """Return the log-likelihood of every class up to a constant, (B, C).

        Args:
            colour: (B, 3, rows, cols) float32, mean colour of what was seen of each cell.
            weight: (B, 1, rows, cols) float32 in [0, 1], mean acuity of each cell.
        """
        mean, std = self.mean.to(colour), self.std.to(colour)
        # |x - m|² = x² - 2xm + m²; x² is the same for all classes.
        precision = weight / std.square()
        across = (precision * colour).flatten(1) @ mean.flatten(1).T - precision.flatten(1) @ mean.flatten(
            1
        ).T.square() / 2
        return self.temperature * across


def fit_cells(
    source: SceneSource,
    size: tuple[int, int],
    fit: str = "crop",
    *,
    cells: tuple[int, int] = (8, 8),
    max_scenes: int = 256,
    seed: int = 0,
) -> CellReadout:
    """Fit a readout to labelled scenes, seen in full.

    Args:
        source: Labelled scenes.
        size: (H, W) to which they are fitted, px.
        fit: How.
        cells: (rows, columns).
        max_scenes: How many scenes are read; of more, so many are drawn.
        seed: Of the draw.

    Raises:
        InvalidValueError: Scenes without classes, or of one class only.
        SceneError: A scene cannot be read.
    """
    rows, cols = validation.size_hw("cells", cells, 1, 64)
    if len(source.labels) < 2:
        raise InvalidValueError(f"scenes must have at least two classes; got {source.labels!r}.")
    fitted = FittedScenes(source, size, fit, cache_bytes=0)
    count = min(validation.whole("max_scenes", max_scenes, 2, 1 << 31), len(source))
    wanted = np.random.default_rng(seed).choice(len(source), count, replace=False).tolist()
    colours, labels = [], []
    for index in wanted:
        picture = fitted.picture(index)
        if not 0 <= picture.label < len(source.labels):
            raise SceneError(
                f"{picture.name}: has no class. Give scenes that all have one, such as folders of classes."
            )
        labels.append(picture.label)
        image = np.require(picture.image, requirements="W")[None]
        colours.append(_cell_means(image, np.full(image.shape[:3], 255, np.uint8), (rows, cols))[0])
    colour, label = np.concatenate(colours), np.array(labels)
    if len(set(labels)) < 2:
        raise InvalidValueError("scenes must be of at least two classes; those looked at are of one.")
    # In NumPy, whose sums do not depend on the number of threads, as those of torch's matrix products do.
    of_class = [colour[label == one] if one in labels else colour for one in range(len(source.labels))]
    means = np.stack([some.mean(0) for some in of_class])
    stds = np.sqrt(np.square(colour - means[label]).mean(0)).clip(min=_MIN_STD)
    mean, std = torch.from_numpy(means.astype(np.float32)), torch.from_numpy(stds.astype(np.float32))
    plain = CellReadout(source.labels, mean, std)
    scores = plain.scores(torch.from_numpy(colour), torch.ones(len(colour), 1, rows, cols, dtype=torch.float64))
    loss = [float(F.cross_entropy(scores * float(one), torch.from_numpy(label))) for one in _TEMPERATURES]
    return CellReadout(source.labels, mean, std, float(_TEMPERATURES[int(np.argmin(loss))]))


def _cell_colours(image: Tensor, acuity: Tensor, cells: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the mean colour of what was seen of each cell, weighted by acuity, and each cell's mean acuity."""
    sharp = acuity[:, None].float() / 255
    seen = image.permute(0, 3, 1, 2).float() / 255 * sharp
    weight = F.adaptive_avg_pool2d(sharp, cells)
    return F.adaptive_avg_pool2d(seen, cells) / weight.clamp(min=1e-6), weight


def _cell_means(
    image: NDArray[np.uint8], acuity: NDArray[np.uint8], cells: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do what ``_cell_colours`` does, by kernels: (B, 3, rows, cols) and (B, rows, cols) float64."""
    colour, weight = np.empty((len(image), 3, *cells)), np.empty((len(image), *cells))
    _kernels().sum_cells(image, acuity, colour, weight)
    return colour, weight


@functools.cache
def _kernels() -> ModuleType:
    """At first use: numba takes 0.4 s to import."""
    return importlib.import_module("foveasim.envs.tasks.cell_readout_kernels")
