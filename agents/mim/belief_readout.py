"""A readout on belief: the class of a scene of which an eye has seen a few glimpses.

``foveasim readout`` asks what a network makes of whole images. Here they were seen as an eye sees them, glimpse by
glimpse, so that the readout can judge what a gaze policy has found out: ``foveasim/Classify-v0`` takes its file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.belief_head import ConvHead, load_head
from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.mim.network import MimNetwork, fill_unseen, to_float
from foveasim.agents.mim.resize import shrink
from foveasim.agents.mim.weights_file import load_network, read_tensors, shipped_networks, write_tensors
from foveasim.errors import InvalidValueError, WeightsError

__all__ = ["BeliefReadout", "belief_features", "fingerprint_network", "load_belief_readout"]

FORMAT = "foveasim-belief-readout-1"
SHORT_SIDE_PX = 96
"""Scenes with a longer short side are shrunk to it for the network, as where it predicts."""

AT_ONCE = 64  # beliefs that a network sees at a time
_HEAD = "head."  # before the names of a convolutional readout's tensors


@dataclass(frozen=True, eq=False, repr=False)
class BeliefReadout:
    """Class probabilities from belief: a function of a frozen network's latent, linear or a small net, then a softmax.

    Attributes:
        network: Whose latent is read.
        classes: Names of the C classes.
        probe: Weights (C, D) and bias (C,), or a convolutional head.
        temperature: By which scores are multiplied before the softmax, chosen on validation scenes, so that the
            probabilities are as sure as they are right.
        size: (H, W) of the scenes, px: another one would have another latent.
        source: The network's file, or the name of a shipped one; None for one that has none.
        card: How it was fitted and how well it does, for people; JSON.

    Reference:
        Guo, Pleiss, Sun and Weinberger 2017, On calibration of modern neural networks, ICML (temperature scaling).
    """

    network: MimNetwork
    classes: tuple[str, ...]
    probe: LinearProbe | ConvHead
    temperature: float
    size: tuple[int, int]
    source: str | None = None
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        of = f"{self.network!r}, {type(self.probe).__name__}, size={self.size}"
        return f"BeliefReadout({len(self.classes)} classes, {of})"

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the logarithm of each class's probability.

        Args:
            image: (B, H, W, 3) uint8, belief.
            acuity: (B, H, W) uint8.

        Returns:
            (B, C) float32, where belief is.

        Raises:
            InvalidTypeError: Not uint8.
            InvalidValueError: Another size than the readout was fitted to.
        """
        if tuple(image.shape[1:3]) != self.size:
            raise InvalidValueError(
                f"belief must be of the size that the readout was fitted to, {self.size}; got "
                f"{tuple(image.shape[1:3])}. Make the env with size={self.size}, or fit a readout to the other one."
            )
        return self.read(belief_features(self.network, image, acuity)).to(image.device)

    def read(self, latent: Tensor) -> Tensor:
        """Return the same from a latent that is at hand, (B, C, h, w) or flattened, on its device."""
        return (self.temperature * self.probe.scores(latent.flatten(1))).log_softmax(1)

    def to(self, device: str | torch.device) -> BeliefReadout:
        """Return the same on another device."""
        probe: LinearProbe | ConvHead
        if isinstance(self.probe, ConvHead):
            probe = self.probe.to(device)
        else:
            probe = LinearProbe(self.probe.weight.to(device), self.probe.bias.to(device))
        moved = self.network.to(device)
        return BeliefReadout(moved, self.classes, probe, self.temperature, self.size, self.source, self.card)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the readout, safetensors with its config as JSON. The network stays in its own file, which is named.

        Args:
            path: The file, ``….safetensors``.

        Raises:
            WeightsError: The network has no file, or the folder cannot be written to.
        """
        if self.source is None:
            raise WeightsError(
                "a readout names its network's file, and this network has none. Save it by "
                "foveasim.agents.mim.weights_file.save_network and fit the readout to the file."
            )
        config: dict[str, Any] = {
            "network": self.source,
            "fingerprint": fingerprint_network(self.network),
            "classes": list(self.classes),
            "temperature": self.temperature,
            "size": list(self.size),
            "card": self.card,
        }
        if isinstance(self.probe, ConvHead):
            config["head"] = self.probe.config()
            tensors = {f"{_HEAD}{name}": value.half() for name, value in self.probe.state_dict().items()}
        else:
            tensors = {"weight": self.probe.weight.float(), "bias": self.probe.bias.float()}
        write_tensors(path, tensors, {"format": FORMAT, "config": json.dumps(config)})


def fingerprint_network(network: MimNetwork) -> str:
    """Return the SHA-256 of a network's name and weights, in hexadecimal."""
    content = hashlib.sha256(network.name.encode())
    for key, value in sorted(network.state_dict().items()):
        content.update(key.encode())
        content.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return content.hexdigest()


def load_belief_readout(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> BeliefReadout:
    """Load a readout and its network, which is looked for where it was and beside the readout's own file.

    Raises:
        WeightsError: Missing, truncated, damaged, no readout, or its network is missing or another one.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} holds tensors but no readout of belief (format {metadata.get('format')!r}, expected {FORMAT!r}). "
            "One is fitted by foveasim.agents.readout.belief_readout_fit.fit_belief_readout."
        )
    try:
        config = json.loads(metadata["config"])
        source, classes = str(config["network"]), tuple(str(name) for name in config["classes"])
        temperature = validation.number("temperature", config["temperature"], 0, open_low=True)
        size = validation.size_hw("size", config["size"])
        card = dict(config["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its config is missing or damaged ({error}). Copy or fit it again.") from error
    network = load_network(_beside(source, Path(path)), device)
    if config.get("fingerprint") != fingerprint_network(network):
        raise WeightsError(
            f"{path} was fitted to another network than {source!r} now holds. Fit it again, or put back the network."
        )
    shape = network.latent_shape(seen_size(size))
    if "head" in config:
        head = load_head({name.removeprefix(_HEAD): value for name, value in tensors.items()}, config["head"])
        if head.shape != shape or head.classes != len(classes):
            raise WeightsError(
                f"{path}: its head is for {head.classes} classes and the latent {head.shape}; expected {len(classes)} "
                f"and {shape}. Copy or fit it again."
            )
        return BeliefReadout(network, classes, head.to(device), temperature, size, source, card)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    width = int(np.prod(shape))
    wanted = ((len(classes), width), (len(classes),))
    came = tuple(None if one is None else tuple(one.shape) for one in (weight, bias))
    if weight is None or bias is None or came != wanted:
        raise WeightsError(f"{path}: weight and bias must be {wanted}; got {came}. Copy or fit it again.")
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise WeightsError(f"{path}: weight and bias must be finite. Copy or fit it again.")
    probe = LinearProbe(weight.float().to(device), bias.float().to(device))
    return BeliefReadout(network, classes, probe, temperature, size, source, card)


def _beside(source: str, readout: Path) -> str:
    """Where the network is: a shipped one, where it was, or a file of that name beside the readout."""
    if source in shipped_networks() or Path(source).is_file():
        return source
    near = readout.parent / Path(source).name
    return str(near) if near.is_file() else source


def seen_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) in px at which the network sees a scene."""
    scale = SHORT_SIDE_PX / min(size)
    return size if scale >= 1 else (round(size[0] * scale), round(size[1] * scale))


def belief_features(network: MimNetwork, image: Tensor, acuity: Tensor) -> Tensor:
    """Return the flattened latent of belief, (B, D) float32, where the network is.

    Args:
        network: Frozen.
        image: (B, H, W, 3) uint8; pixels of acuity 0 may hold anything, the network never sees them.
        acuity: (B, H, W) uint8.

    Raises:
        InvalidTypeError: Not uint8.
        InvalidValueError: Wrong shapes, a side under 32 px, or a latent that is not finite.
    """
    device, found = next(network.parameters()).device, []
    with torch.inference_mode():
        for start in range(0, len(image), AT_ONCE):
            seen, sharp = to_float(*(x[start : start + AT_ONCE].to(device) for x in (image, acuity)))
            size = seen_size((seen.shape[2], seen.shape[3]))
            if size != seen.shape[2:]:
                seen, sharp = shrink(seen, sharp, size)
            found.append(network.encode(fill_unseen(seen, sharp), sharp).flatten(1))
        features = torch.cat(found)
    if not bool(torch.isfinite(features).all()):
        raise InvalidValueError(f"the latent of {network.name!r} is not finite. Did its training diverge?")
    return features
