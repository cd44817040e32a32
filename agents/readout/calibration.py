"""Whether a network knows how sure it is: ``foveasim calibrate unet --data natural.tar@val``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from foveasim import validation
from foveasim.agents.mim.network import MimNetwork, Output
from foveasim.agents.mim.weights_file import load_network, read_card, read_dtype, save_network
from foveasim.agents.pretraining.model_card import write_markdown
from foveasim.agents.pretraining.prediction_error import sample_beliefs
from foveasim.drawing.figures import COLOURS, blank_figure, save_figure
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.eye.retina import Retina, make_retina
from foveasim.images.pool import centred
from foveasim.images.reading import read_pool
from foveasim.runs.outputs import check_output, choose_final_path, find_free_names, find_inputs
from foveasim.validation import check_device

__all__ = ["CalibrateConfig", "Reliability", "average_ranks", "reliability", "run"]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Probabilities of the intervals whose coverage is measured."""
_BINS = 12  # of the predicted standard deviation, as many pixels in each


def _half_width(level: float) -> float:
    """Return how many standard deviations a Gaussian's central interval of a probability reaches to each side."""
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))


@dataclass(frozen=True)
class Reliability:
    """How well predicted standard deviations match errors, over the pixels that the eye did not see sharply.

    Attributes:
        retina: Its name.
        fixations: After how many.
        rank_correlation: Spearman's, of the standard deviation of a pixel and its mean absolute error over channels,
            over all hidden pixels of all images.
        coverage: For each of :data:`LEVELS`, the share of hidden values (of each channel) that lie in that central
            interval of a Gaussian around the prediction.
        predicted: Mean predicted standard deviation of bins of as many pixels each, ascending.
        observed: Root mean squared error of those pixels.
        scale: Factor of the standard deviation with which 90 % of the values would lie in the interval of 90 %.
        pixels: Hidden pixels measured.
    """

    retina: str
    fixations: int
    rank_correlation: float
    coverage: tuple[float, ...]
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    scale: float
    pixels: int

    def __str__(self) -> str:
        """One line."""
        within = self.coverage[LEVELS.index(0.9)]
        return (
            f"{self.retina}, {self.fixations} fixation{'s'[: self.fixations > 1]}: rank correlation "
            f"{self.rank_correlation:.3f}, 90 % intervals cover {100 * within:.1f} %, "
            f"calibrated by a factor of {self.scale:.3f} ({self.pixels:,} pixels)"
        )


def average_ranks(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the ranks of (N,) values from 0, equal ones sharing the mean of theirs.

    Example:
        >>> average_ranks(np.array([3.0, 1.0, 3.0]))
        array([1.5, 0. , 1.5])
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts + 1) / 2)[place]
    return ranks


def reliability(
    network: MimNetwork,
    images: NDArray[np.uint8],
    retina: Retina,
    fixations: Sequence[int] = (1, 4, 8),
    *,
    start: str = "centre",
    repeats: int = 1,
    batch: int = 50,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Reliability, ...]:
    """Compare predicted standard deviations with errors, after each number of random fixations.

    Args:
        network: One that predicts them, on ``device``.
        images: (N, H, W, 3) uint8.
        retina: The eye.
        fixations: After how many.
        start: Where the first of them is: "random", or the "centre" of the scene.
        repeats: Times that each image is seen with other fixations.
        batch: Images at a time.
        seed: Of the fixations.
        device: Where to compute.

    Raises:
        InvalidValueError: The network predicts no standard deviation, the retina hides nothing, or as ``evaluate``.
    """
    found: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = [[] for _ in fixations]
    seen = sample_beliefs(
        images, retina, tuple(fixations), start=start, repeats=repeats, batch=batch, seed=seed, device=device
    )
    for column, image, acuity, target in seen:
        with torch.inference_mode():
            output = Output(*network(image, acuity))
            if output.std is None:
                raise InvalidValueError(
                    f"network {network.name!r} predicts no standard deviation. Use one that does, such as unet with "
                    "std: true."
                )
            hidden = acuity[:, 0] < 1
            error = (output.image.float() - target).abs().permute(0, 2, 3, 1)[hidden]
            found[column].append((output.std[:, 0][hidden].cpu().numpy(), error.cpu().numpy()))
    return tuple(
        _summary(retina.name, count, np.concatenate([s for s, _ in parts]), np.concatenate([e for _, e in parts]))
        for count, parts in zip(fixations, found, strict=True)
    )


def _summary(name: str, count: int, std: NDArray[np.float32], error: NDArray[np.float32]) -> Reliability:
    if len(std) < _BINS:
        raise InvalidValueError(f"after {count} fixations {name!r} hides nothing. Choose another retina, such as disc.")
    ranks = average_ranks(std), average_ranks(error.mean(1))
    correlation = float(np.corrcoef(*ranks)[0, 1]) if np.ptp(std) > 0 else 0.0
    ratio = error / std[:, None]
    order = np.array_split(np.argsort(std), _BINS)
    return Reliability(
        retina=name,
        fixations=count,
        rank_correlation=correlation,
        coverage=tuple(float((ratio <= _half_width(level)).mean()) for level in LEVELS),
        predicted=tuple(float(std[part].mean()) for part in order),
        observed=tuple(float(np.sqrt(np.square(error[part]).mean())) for part in order),
        scale=float(np.quantile(ratio, 0.9)) / _half_width(0.9),
        pixels=len(std),
    )


def draw(path: Path, found: Sequence[Reliability], title: str) -> None:
    """Draw the coverage of intervals and the observed against the predicted error, a panel each.

    Raises:
        InvalidValueError: The path does not end in ``.png``.
        OSError: It cannot be written.
    """
    figure = blank_figure(10, 4.6)
    left, right = figure.subplots(1, 2)
    retinas = list(dict.fromkeys(one.retina for one in found))
    for one in found:
        colour = COLOURS[retinas.index(one.retina) % len(COLOURS)]
        rank = [other.fixations for other in found if other.retina == one.retina].index(one.fixations)
        line = ("-", "--", ":", "-.")[rank % 4]
        name = f"{one.retina}, {one.fixations} fixation{'s' * (one.fixations > 1)}"
        left.plot(LEVELS, one.coverage, line, marker="o", markersize=3, color=colour, label=name)
        right.plot(one.predicted, one.observed, line, marker="o", markersize=3, color=colour)
    left.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    left.set(xlabel="probability of the interval", ylabel="share of hidden values in it", xlim=(0, 1), ylim=(0, 1))
    left.legend(fontsize="small", frameon=False)
    limit = max(max(one.predicted + one.observed) for one in found) * 1.05
    right.plot([0, limit], [0, limit], color="0.6", linewidth=0.8)
    right.set(xlabel="predicted standard deviation", ylabel="root mean squared error", xlim=(0, limit), ylim=(0, limit))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_aspect("equal")
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path)


@dataclass
class CalibrateConfig:
    """What to measure.

    Attributes:
        weights: A shipped network's name or a ``.safetensors`` file.
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``, or ``photos``; one or a list.
        retinas: Retinas by name with their options.
        fixations: After how many fixations to measure.
        start: Where the first of them is: ``random``, or the ``centre`` of the scene.
        repeats: Times that each image is seen with other fixations.
        size: Side of the square that images are cropped and scaled to, px.
        batch: Images at a time.
        seed: Of the fixations.
        device: Where to compute.
        out: Picture of the reliability, ``….png``. null writes reliability.png, or reliability-2.png and so on where
            that exists.
        overwrite: Replace a file of that name that exists.
        fit: Write the factor that calibrates the 90 % intervals into the weights file, the median over retinas and
            numbers of fixations. Fit on validation images, and measure on test images without this.
    """

    weights: str = "unet"
    data: list[str] | str = field(default_factory=list)
    retinas: dict[str, dict[str, Any]] = field(default_factory=lambda: {"disc": {"hidden_ratio": 0.8}, "pyramid": {}})
    fixations: list[int] = field(default_factory=lambda: [1, 4, 8])
    start: Literal["random", "centre"] = "centre"
    repeats: int = 1
    size: int = 96
    batch: int = 50
    seed: int = 0
    device: str = "cpu"
    out: str | None = None
    overwrite: bool = False
    fit: bool = False


def run(config: CalibrateConfig) -> tuple[Reliability, ...]:
    """Measure a network's reliability, print and draw it, and calibrate it if requested.

    Raises:
        WeightsError: The weights cannot be used, or not be written.
        SceneError: The data cannot be read.
        InvalidValueError: An option out of range, or a network that predicts no standard deviation.
    """
    check_device(config.device)
    side = validation.whole("size", config.size, 32, 4096)
    retinas = [make_retina(name, **options) for name, options in config.retinas.items()]
    out = find_free_names("reliability.png")[0] if config.out is None else Path(config.out)
    if out.suffix.lower() != ".png":
        raise InvalidValueError(f"out must end in .png; got {config.out!r}.")
    reads = find_inputs(config.weights, config.retinas, sources=config.data)
    check_output(out, reads, overwrite=config.overwrite, make_parent=True)
    network = load_network(config.weights, config.device)
    images = centred(read_pool(config.data), (side, side))
    found: list[Reliability] = []
    for retina in retinas:
        found += reliability(
            network,
            images,
            retina,
            config.fixations,
            start=config.start,
            repeats=config.repeats,
            batch=config.batch,
            seed=config.seed,
            device=config.device,
        )
    for one in found:
        print(one)
    try:
        out = choose_final_path(out, overwrite=config.overwrite)
        draw(out, found, f"{network.name}: {len(images)} images")
    except OSError as error:
        raise WeightsError(f"cannot write {out}: {error.strerror or error}. Choose another folder.") from error
    print(f"wrote {out}")
    if config.fit:
        scale = float(np.median([one.scale for one in found]))
        sources = [config.data] if isinstance(config.data, str) else config.data
        _write_scale(config.weights, network, scale, [Path(source).name for source in sources])
        print(f"wrote {config.weights}: its standard deviations are multiplied by {scale:.3f}")
    return tuple(found)


def _write_scale(path: str, network: MimNetwork, scale: float, data: Sequence[str]) -> None:
    if not Path(path).is_file():
        raise WeightsError(f"fit writes into a file, and {path!r} is the name of a shipped network. Give its file.")
    card: Mapping[str, Any] = read_card(path)
    network.config = replace(network.config, std_scale=network.config.std_scale * scale)
    card = {**card, "config": network.config_dict(), "calibrated_on": list(data)}
    save_network(path, network, card, dtype=read_dtype(path))
    write_markdown(Path(path).with_suffix(".md"), card)
