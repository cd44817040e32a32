"""A readout on belief: the class of a scene of which an eye has seen a few glimpses.

``foveasim readout`` asks what a network makes of whole images. Here they were seen as an eye sees them, glimpse by
glimpse, so that the readout can judge what a gaze policy has found out: ``foveasim/Classify-v0`` takes its file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check, geometry
from foveasim.agents.mim.belief_head import ConvHead, HeadOptions, fit_head, load_head
from foveasim.agents.mim.files import load_network, read_tensors, shipped_networks, write_tensors
from foveasim.agents.mim.imagine import shrink
from foveasim.agents.mim.labelled import LabelledData, LabelledImages
from foveasim.agents.mim.network import MimNetwork, fill_unseen, to_float
from foveasim.agents.mim.probe import STRENGTHS, Labelled, LinearProbe, ProbeOptions, fit_probe, wilson
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.retina import make_retina
from foveasim.rng import Stream, uniform
from foveasim.scenes import ArrayScenes
from foveasim.simulator import Simulator

__all__ = ["BeliefFit", "BeliefReadout", "belief_features", "fit_belief_readout", "load_belief_readout"]

FORMAT = "foveasim-belief-readout-1"
SHORT_SIDE_PX = 96
"""Scenes with a longer short side are shrunk to it for the network, as where it predicts."""

AT_ONCE = 64  # beliefs that a network sees at a time
_PROBES = ("ridge", "lbfgs", "conv")
_HEAD = "head."  # before the names of a convolutional readout's tensors
_CANDIDATES = 6  # places of which gaze that spreads takes the farthest from where it has been
_REACH = 0.8  # of the way to the edge, that it goes; near the edge a good part of a glimpse is lost
_TEMPERATURES = np.geomspace(0.1, 100, 121)


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
                "foveasim.agents.mim.files.save_network and fit the readout to the file."
            )
        config: dict[str, Any] = {
            "network": self.source,
            "fingerprint": fingerprint(self.network),
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


def fingerprint(network: MimNetwork) -> str:
    """Return a number that tells a network's weights from any others, SHA-256 in hexadecimal."""
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
            "One is fitted by foveasim.agents.mim.belief_readout.fit_belief_readout."
        )
    try:
        config = json.loads(metadata["config"])
        source, classes = str(config["network"]), tuple(str(name) for name in config["classes"])
        temperature = check.number("temperature", config["temperature"], 0, open_low=True)
        size = check.size_hw("size", config["size"])
        card = dict(config["card"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its config is missing or damaged ({error}). Copy or fit it again.") from error
    network = load_network(_beside(source, Path(path)), device)
    if config.get("fingerprint") != fingerprint(network):
        raise WeightsError(
            f"{path} was fitted to another network than {source!r} now holds. Fit it again, or put back the network."
        )
    shape = network.latent_shape(_seen_size(size))
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


def _seen_size(size: tuple[int, int]) -> tuple[int, int]:
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
            size = _seen_size((seen.shape[2], seen.shape[3]))
            if size != seen.shape[2:]:
                seen, sharp = shrink(seen, sharp, size)
            found.append(network.encode(fill_unseen(seen, sharp), sharp).flatten(1))
        features = torch.cat(found)
    if not bool(torch.isfinite(features).all()):
        raise InvalidValueError(f"the latent of {network.name!r} is not finite. Did its training diverge?")
    return features


@dataclass(frozen=True)
class BeliefFit:
    """How beliefs come about and how they are read out.

    Attributes:
        retina: A retina's name.
        retina_options: Its options. It must see as the env's retina will.
        glimpses: Most glimpses that a belief consists of. Each belief has 1 to so many, as often; the first at the
            centre, the others anywhere, uniformly.
        beliefs: Beliefs of each training image.
        spread: Share of the beliefs whose glimpses keep apart, as those of a policy do: the farthest of a few random
            places from where gaze has been.
        mirror: Whether every other belief is of the mirrored image.
        probe: "ridge", least squares, or "lbfgs", logistic regression; the regularisation is chosen on validation.
            "conv": a small convolutional net, which learns from many beliefs.
        head: Of "conv", options of :class:`foveasim.agents.mim.belief_head.HeadOptions`.
        precision: "float32", or "bfloat16" for the network and "conv", quick on CPUs with AMX and on GPUs.
        strengths: Of the regularisation that are tried.
        seed: Of the number of glimpses and where they fall.

    Raises:
        InvalidValueError: An option out of range.
    """

    retina: str = "disc"
    retina_options: dict[str, Any] = field(default_factory=lambda: {"hidden_ratio": 0.9})
    glimpses: int = 8
    beliefs: int = 1
    spread: float = 0.0
    mirror: bool = False
    probe: str = "ridge"
    head: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    strengths: Sequence[float] = STRENGTHS
    seed: int = 0

    def __post_init__(self) -> None:
        check.whole("glimpses", self.glimpses, 1, 1000)
        check.whole("beliefs", self.beliefs, 1, 1000)
        check.seed_value("seed", self.seed)
        if self.probe not in _PROBES:
            raise InvalidValueError(f"probe must be one of {', '.join(_PROBES)}; got {self.probe!r}.")
        check.number("spread", self.spread, 0, 1)
        if self.precision not in ("float32", "bfloat16"):
            raise InvalidValueError(f"precision must be float32 or bfloat16; got {self.precision!r}.")
        if self.head and self.probe != "conv":
            raise InvalidValueError(f"head is for probe='conv'; got {self.probe!r}.")
        HeadOptions(**self.head)


def fit_belief_readout(
    network: MimNetwork | str | os.PathLike[str],
    data: LabelledData,
    options: BeliefFit | None = None,
    *,
    device: str | torch.device = "cpu",
    advance: Callable[[int], None] | None = None,
) -> BeliefReadout:
    """Fit a readout to what an eye that looks at random has seen of labelled images.

    Args:
        network: A network's file, the name of a shipped one, or a network, which has no file to be saved by.
        data: Labelled images in three parts, of :func:`foveasim.agents.mim.labelled.read_labelled`.
        options: How; None takes the defaults.
        device: Where the network is and the readout is fitted.
        advance: Called with the number of beliefs seen since the last call.

    Returns:
        The readout. Its ``card`` tells its accuracy on one belief of each validation and test image.

    Raises:
        WeightsError: The network cannot be used.
        InvalidValueError: An option out of range.

    Example::

        data = read_labelled("imagenette.tar")
        readout = fit_belief_readout("unet", data)
        readout.save("beliefs.safetensors")
        env = gym.make("foveasim/Classify-v0", scenes=scenes, readout="beliefs.safetensors")
    """
    how = BeliefFit() if options is None else options
    seer = network if isinstance(network, MimNetwork) else load_network(network)
    seer = seer.to(device).eval()
    parts = [
        _see(seer, part, how, beliefs, seed, advance)
        for part, beliefs, seed in ((data.train, how.beliefs, 0), (data.validation, 1, 1), (data.test, 1, 2))
    ]
    train, validation, test = parts
    classes = len(data.classes)
    probe: LinearProbe | ConvHead
    if how.probe == "conv":
        shape = seer.latent_shape(_seen_size((data.train.images.shape[1], data.train.images.shape[2])))
        probe = fit_head(train, shape, classes, HeadOptions(**how.head), seed=how.seed, precision=how.precision)
    else:
        probe = fit_probe(how.probe, train, validation, classes, ProbeOptions(strengths=tuple(how.strengths)))
    scores = probe.scores(validation.features)
    losses = [float(F.cross_entropy(scores * float(one), validation.labels)) for one in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    right = int((probe.predict(test.features) == test.labels).sum())
    low, high = wilson(right, len(test))
    card = {
        "retina": how.retina,
        "retina_options": how.retina_options,
        "glimpses": how.glimpses,
        "beliefs": how.beliefs,
        "spread": how.spread,
        "mirror": how.mirror,
        "probe": how.probe,
        "strength": probe.strength,
        "seed": how.seed,
        "images": [len(data.train), len(data.validation), len(data.test)],
        "validation_accuracy": float((probe.predict(validation.features) == validation.labels).double().mean()),
        "validation_loss": min(losses),
        "test_accuracy": right / len(test),
        "test_interval": [low, high],
    }
    source = None if isinstance(network, MimNetwork) else os.fspath(network)
    size = (data.train.images.shape[1], data.train.images.shape[2])
    return BeliefReadout(seer, data.classes, probe, temperature, size, source, card)


def _see(
    network: MimNetwork,
    images: LabelledImages,
    how: BeliefFit,
    beliefs: int,
    part: int,
    advance: Callable[[int], None] | None,
) -> Labelled:
    """Look at every image, ``beliefs`` times over, and return the latents of what was seen."""
    device = next(network.parameters()).device
    order = np.tile(np.arange(len(images)), beliefs)
    features: Tensor | None = None
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        shown = images.images[rows]
        if how.mirror and part == 0:
            turned = (start + np.arange(len(rows))) % 2 == 1
            shown = np.where(turned[:, None, None, None], shown[:, :, ::-1], shown)
        with torch.autocast(device.type, torch.bfloat16, enabled=how.precision == "bfloat16"):
            seen = belief_features(network, *_glance(shown, how, part, start))
        if features is None:
            kind = torch.float16 if how.probe == "conv" else torch.float32  # 8 beliefs of 10,000 images take 1 GB
            features = torch.empty(len(order), seen.shape[1], device=device, dtype=kind)
        features[start : start + len(rows)] = seen
        if advance is not None:
            advance(len(rows))
    if features is None:
        raise InvalidValueError("images must be at least one; got none.")
    return Labelled(features, torch.from_numpy(images.labels[order]).to(device))


def _glance(images: NDArray[np.uint8], how: BeliefFit, part: int, first: int) -> tuple[Tensor, Tensor]:
    """Return belief of each image after 1 to ``glimpses`` glimpses, image and acuity."""
    count, size = len(images), (images.shape[1], images.shape[2])
    rows = torch.arange(first, first + count)
    key = torch.full_like(rows, how.seed), rows, torch.full_like(rows, part)
    kinds = _CANDIDATES if how.spread else 1
    drawn = uniform(*key, Stream.AGENT, 1 + 2 * how.glimpses * kinds + (how.spread > 0))
    glimpses = 1 + (drawn[:, 0] * how.glimpses).long()
    retina = make_retina(how.retina, **how.retina_options)
    eyes = Simulator(ArrayScenes(images), retina, count, size=size, cache_bytes=0)
    eyes.reset(seed=(how.seed + 3 * rows + part).tolist(), index=list(range(count)))
    places = 2 * drawn[:, 1 : 1 + 2 * how.glimpses * kinds].reshape(count, how.glimpses, kinds, 2) - 1
    keeps_apart = drawn[:, -1] < how.spread if how.spread else torch.zeros(count, dtype=torch.bool)
    past = torch.zeros(count, 1, 2, dtype=drawn.dtype)
    for step in range(1, int(glimpses.max())):
        tried = places[:, step - 1]
        far = (_REACH * tried[:, :, None] - past[:, None]).norm(dim=3).amin(2).argmax(1)
        farthest = _REACH * tried[torch.arange(count), far]
        place = torch.where(keeps_apart[:, None], farthest, tried[:, 0])
        past = torch.cat((past, place[:, None]), 1)
        eyes.advance(geometry.norm_to_px(place.float(), size), (glimpses > step).numpy())
        eyes.look()
    return eyes.belief.image, eyes.belief.acuity
