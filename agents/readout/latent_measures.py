"""Measures of a latent code: redundancy, sparsity, effective dimension.

The covariance of D = 18,432 units would be a matrix of 1.4 GB. Every number here comes from the B x B Gram matrix of a
batch instead: for a batch Z of B standardised latents, the sum of the squared entries of Z'Z equals that of ZZ'.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, latent analysis: off-diagonal covariance, sparsity.
    Rolls, Tovee (1995) and Vinje, Gallant (2000), sparsity 1 - mean(r)² / mean(r²). Litwin-Kumar et al. (2017), Optimal
    degrees of synaptic connectivity, effective dimension as participation ratio of the covariance's eigenvalues.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.network import MimNetwork, to_float
from foveasim.errors import InvalidValueError

__all__ = ["LatentMeasures", "latents", "measure", "measure_batches"]


def latents(
    network: MimNetwork,
    images: NDArray[np.uint8],
    *,
    batch: int = 128,
    out: Tensor | None = None,
    advance: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the flattened latent of full, unmasked images (acuity 1 everywhere).

    Args:
        network: The network, on any device.
        images: (N, H, W, 3) uint8.
        batch: Images at a time.
        out: (N, D) to write to, such as a memory-mapped file; None makes float32 where the network is.
        advance: Called with the number of images done since the last call.

    Returns:
        (N, D).

    Raises:
        InvalidValueError: No images, or a latent that is not finite (in the dtype of ``out``).
    """
    if len(images) == 0:
        raise InvalidValueError("images must be (N, H, W, 3) with N of at least 1; got none.")
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        width = _encode(network, images[:1], device).shape[1]
        result = torch.empty(len(images), width, device=device) if out is None else out
        for start in range(0, len(images), batch):
            flat = _encode(network, images[start : start + batch], device).to(result)
            if not bool(torch.isfinite(flat).all()):
                raise InvalidValueError(
                    f"the latent of {network.name!r} is not finite in {result.dtype}. Did its training diverge?"
                )
            result[start : start + len(flat)] = flat
            if advance is not None:
                advance(len(flat))
    finally:
        network.train(was_training)
    return result


def _encode(network: MimNetwork, images: NDArray[np.uint8], device: torch.device) -> Tensor:
    part = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    sharp = torch.full(part.shape[:3], 255, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        latent = network.encode(*to_float(part, sharp))
    return latent.flatten(1)


@dataclass(frozen=True)
class LatentMeasures:
    """What a batch of latents is like.

    Attributes:
        covariance: Sum of the squared off-diagonal covariances of the standardised units, divided by the number of
            units. Units that are constant over the batch have none with any other.
        covariance_floor: What ``covariance`` would be on average for as many independent units in a batch of this size,
            from chance alone: L (L - 1) / (B - 1) / D with L units that are not constant.
        unit_sparsity: Of a unit over images, 1 - mean(r)² / mean(r²), mean over units that are not silent; 0 for a
            constant, 1 - 1/B for one that answers to one image of B.
        population_sparsity: Of an image over units, mean over images in which not all units are silent.
        effective_dimension: Participation ratio of the eigenvalues of the covariance of the latents as they are,
            (sum λ)² / sum λ²; at most B - 1.
        constant_share: Share of the units that are constant over the batch.
        negative_share: Share of the responses under zero. Sparsity is a measure of rates: with negative responses
            it rises as the mean nears zero, however many units answer.
    """

    covariance: float
    covariance_floor: float
    unit_sparsity: float
    population_sparsity: float
    effective_dimension: float
    constant_share: float
    negative_share: float


def measure(latent: Tensor, *, rectify: bool = False) -> LatentMeasures:
    """Measure one batch of latents.

    Args:
        latent: (B, D) float, B at least 2.
        rectify: Set negative responses to zero first.

    Raises:
        InvalidValueError: Wrong shape, or not finite.

    Example:
        >>> same = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # two units that are one
        >>> found = measure(same)
        >>> found.covariance, found.effective_dimension  # 2 x 1² / 2, one direction
        (1.0, 1.0)
    """
    if latent.ndim != 2 or latent.shape[0] < 2 or latent.shape[1] < 1:
        raise InvalidValueError(
            f"latent must be (B, D) with B of at least 2; got {tuple(latent.shape)}. Flatten it: latent.flatten(1)."
        )
    if not bool(torch.isfinite(latent).all()):
        raise InvalidValueError("latent must be finite; it has NaN or infinite numbers.")
    rates = latent.double()
    negative = float((rates < 0).double().mean())
    if rectify:
        rates = rates.clamp(min=0)
    count, units = rates.shape
    centred_ = rates - rates.mean(0)
    # A constant is left with rounding errors of its mean, which standardising would blow up to variance one.
    spread = centred_.square().mean(0).sqrt()
    live = spread > 1e-12 * rates.abs().amax(0).clamp(min=1e-300)
    alive = int(live.sum())
    standard = torch.where(live, centred_ / torch.where(live, spread, 1.0), 0.0)
    gram = standard @ standard.T / count
    off_diagonal = max(float(gram.square().sum()) - alive, 0.0)  # each live unit has variance one
    gram = centred_ @ centred_.T
    power = float(gram.square().sum())
    return LatentMeasures(
        covariance=off_diagonal / units,
        covariance_floor=alive * (alive - 1) / (count - 1) / units,
        unit_sparsity=_sparsity(rates, 0),
        population_sparsity=_sparsity(rates, 1),
        effective_dimension=float(gram.diagonal().sum()) ** 2 / power if alive else 0.0,
        constant_share=1 - alive / units,
        negative_share=negative,
    )


def _sparsity(rates: Tensor, axis: int) -> float:
    """1 - mean(r)² / mean(r²) along an axis, mean over the other one where there is any response; NaN where none is."""
    power = rates.square().mean(axis)
    some = power > 0
    if not bool(some.any()):
        return math.nan
    value = 1 - rates.mean(axis)[some].square() / power[some]
    return max(float(value.mean()), 0.0)  # below zero only by rounding


def measure_batches(
    latent: Tensor, batch: int = 512, *, rectify: bool = False
) -> tuple[LatentMeasures, LatentMeasures]:
    """Measure batch by batch, as published: the covariance depends on the size of a batch.

    Args:
        latent: (N, D).
        batch: B, at least 2; what is left over after whole batches is not measured. With fewer than ``batch`` rows, all
            of them are one batch.
        rectify: Set negative responses to zero first.

    Returns:
        Mean and standard deviation over the batches (0 for one batch).

    Raises:
        InvalidValueError: Fewer than two rows, or not finite.
    """
    size = min(validation.whole("batch", batch, 2, 2**31), len(latent))
    starts = range(0, len(latent) - size + 1, max(size, 1))
    found = [asdict(measure(latent[start : start + size], rectify=rectify)) for start in starts]
    table = {name: np.array([row[name] for row in found]) for name in found[0]}
    mean = LatentMeasures(**{name: float(column.mean()) for name, column in table.items()})
    std = LatentMeasures(**{name: float(column.std()) for name, column in table.items()})
    return mean, std
