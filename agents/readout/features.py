"""Features of labelled images: the latent of a network, or the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from foveasim.agents.mim.network import MimNetwork, make_network
from foveasim.agents.readout.labelled import LabelledImages
from foveasim.agents.readout.latent_measures import latents
from foveasim.agents.readout.probe import Labelled

__all__ = ["extract", "fresh_like"]

PIXELS = 64  # images turned to float at a time, which the processor's cache holds


def fresh_like(network: MimNetwork, seed: int) -> MimNetwork:
    """Return a network of the same kind and config with fresh weights, frozen, where the other one is."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        fresh = make_network(network.name, **network.config_dict())
    return fresh.to(next(network.parameters()).device).eval().requires_grad_(False)


def extract(
    network: MimNetwork | None,
    images: LabelledImages,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    file: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Labelled:
    """Turn labelled images into labelled features.

    Args:
        network: Whose latent, flattened; None takes the pixels, in [0, 1].
        images: The images.
        device: Where the features are to be.
        dtype: Theirs.
        file: Keep them in this file, memory-mapped on the CPU; None keeps them in memory.
        advance: Called with the number of images done since the last call.

    Raises:
        InvalidValueError: A latent that is not finite in ``dtype``.
    """
    count = len(images)
    width = images.images[0].size if network is None else latents(network, images.images[:1]).shape[1]
    if file is None:
        features = torch.empty(count, width, dtype=dtype, device=device)
    else:
        features = torch.from_file(str(file), shared=True, size=count * width, dtype=dtype).view(count, width)
    if network is None:
        for start in range(0, count, PIXELS):
            part = torch.from_numpy(images.images[start : start + PIXELS]).flatten(1)
            features[start : start + len(part)] = part.to(device) / 255
            if advance is not None:
                advance(len(part))
    else:
        latents(network, images.images, out=features, advance=advance)
    return Labelled(features, torch.from_numpy(images.labels).to(features.device))
