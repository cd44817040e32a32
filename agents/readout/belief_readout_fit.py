"""Fits a readout on belief to what an eye that looks at random has seen of labelled images."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import geometry
from foveasim import validation as check
from foveasim.agents.mim.belief_head import ConvHead, HeadOptions
from foveasim.agents.mim.belief_readout import AT_ONCE, BeliefReadout, belief_features, seen_size
from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.mim.network import MimNetwork
from foveasim.agents.mim.weights_file import load_network
from foveasim.agents.readout.labelled import LabelledData, LabelledImages
from foveasim.agents.readout.probe import STRENGTHS, Labelled, ProbeOptions, fit_probe
from foveasim.errors import InvalidValueError
from foveasim.eye.retina import make_retina
from foveasim.metrics.statistics import wilson
from foveasim.rng import Stream, uniform
from foveasim.scenes.source import ArrayScenes
from foveasim.simulator.simulator import Simulator

__all__ = ["BeliefFit", "fit_belief_readout", "fit_head"]

_PROBES = ("ridge", "lbfgs", "conv")
_CANDIDATES = 6  # places of which gaze that spreads takes the farthest from where it has been
_REACH = 0.8  # of the way to the edge, that it goes; near the edge a good part of a glimpse is lost
_TEMPERATURES = np.geomspace(0.1, 100, 121)
_WARM_SHARE = 0.2  # of the steps in which the learning rate rises
_SMOOTHING = 0.05  # of the labels (Szegedy et al. 2016): most beliefs leave open which of 10 classes it is


@dataclass(frozen=True)
class BeliefFit:
    """How beliefs come about and how they are read out.

    Attributes:
        retina: A retina's name.
        retina_options: Its options. It must see as the env's retina will.
        glimpses: Maximum number of glimpses that a belief consists of. Each number from 1 on is as frequent; the first
            glimpse is at the centre, the others anywhere, uniformly.
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
        data: Labelled images in three parts, of :func:`foveasim.agents.readout.labelled.read_labelled`.
        options: Of the fit; None takes the defaults.
        device: Where the network is and the readout is fitted.
        advance: Called with the number of beliefs seen since the last call.

    Returns:
        The readout. Its ``card`` holds its accuracy on one belief of each validation and test image.

    Raises:
        WeightsError: The network cannot be used.
        InvalidValueError: An option out of range.

    Example::

        data = read_labelled("imagenette.tar")
        readout = fit_belief_readout("unet", data)
        readout.save("beliefs.safetensors")
        env = gym.make("foveasim/Classify-v0", scenes=scenes, readout="beliefs.safetensors")
    """
    options = BeliefFit() if options is None else options
    seer = network if isinstance(network, MimNetwork) else load_network(network)
    seer = seer.to(device).eval()
    parts = [
        _extract_features(seer, part, options, beliefs, seed, advance)
        for part, beliefs, seed in ((data.train, options.beliefs, 0), (data.validation, 1, 1), (data.test, 1, 2))
    ]
    train, validation, test = parts
    classes = len(data.classes)
    probe: LinearProbe | ConvHead
    if options.probe == "conv":
        shape = seer.latent_shape(seen_size((data.train.images.shape[1], data.train.images.shape[2])))
        probe = fit_head(
            train, shape, classes, HeadOptions(**options.head), seed=options.seed, precision=options.precision
        )
    else:
        probe = fit_probe(options.probe, train, validation, classes, ProbeOptions(strengths=tuple(options.strengths)))
    scores = probe.scores(validation.features)
    losses = [float(F.cross_entropy(scores * float(one), validation.labels)) for one in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(losses))])
    right = int((probe.predict(test.features) == test.labels).sum())
    low, high = wilson(right, len(test))
    card = {
        "retina": options.retina,
        "retina_options": options.retina_options,
        "glimpses": options.glimpses,
        "beliefs": options.beliefs,
        "spread": options.spread,
        "mirror": options.mirror,
        "probe": options.probe,
        "strength": probe.strength,
        "seed": options.seed,
        "images": [len(data.train), len(data.validation), len(data.test)],
        "validation_accuracy": float((probe.predict(validation.features) == validation.labels).double().mean()),
        "validation_loss": min(losses),
        "test_accuracy": right / len(test),
        "test_interval": [low, high],
    }
    source = None if isinstance(network, MimNetwork) else os.fspath(network)
    size = (data.train.images.shape[1], data.train.images.shape[2])
    return BeliefReadout(seer, data.classes, probe, temperature, size, source, card)


def _extract_features(
    network: MimNetwork,
    images: LabelledImages,
    options: BeliefFit,
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
        pictures = images.images[rows]
        if options.mirror and part == 0:
            turned = (start + np.arange(len(rows))) % 2 == 1
            pictures = np.where(turned[:, None, None, None], pictures[:, :, ::-1], pictures)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            seen = belief_features(network, *_random_beliefs(pictures, options, part, start))
        if features is None:
            kind = torch.float16 if options.probe == "conv" else torch.float32  # 8 beliefs of 10,000 images take 1 GB
            features = torch.empty(len(order), seen.shape[1], device=device, dtype=kind)
        features[start : start + len(rows)] = seen
        if advance is not None:
            advance(len(rows))
    if features is None:
        raise InvalidValueError("images must be at least one; got none.")
    return Labelled(features, torch.from_numpy(images.labels[order]).to(device))


def _random_beliefs(images: NDArray[np.uint8], options: BeliefFit, part: int, first: int) -> tuple[Tensor, Tensor]:
    """Return belief of each image after 1 to ``glimpses`` glimpses, image and acuity."""
    count, size = len(images), (images.shape[1], images.shape[2])
    rows = torch.arange(first, first + count)
    key = torch.full_like(rows, options.seed), rows, torch.full_like(rows, part)
    kinds = _CANDIDATES if options.spread else 1
    drawn = uniform(*key, Stream.AGENT, 1 + 2 * options.glimpses * kinds + (options.spread > 0))
    glimpses = 1 + (drawn[:, 0] * options.glimpses).long()
    retina = make_retina(options.retina, **options.retina_options)
    eyes = Simulator(ArrayScenes(images), retina, count, size=size, cache_bytes=0)
    eyes.reset(seed=(options.seed + 3 * rows + part).tolist(), index=list(range(count)))
    places = 2 * drawn[:, 1 : 1 + 2 * options.glimpses * kinds].reshape(count, options.glimpses, kinds, 2) - 1
    spread_out = drawn[:, -1] < options.spread if options.spread else torch.zeros(count, dtype=torch.bool)
    past = torch.zeros(count, 1, 2, dtype=drawn.dtype)
    for step in range(1, int(glimpses.max())):
        tried = places[:, step - 1]
        far = (_REACH * tried[:, :, None] - past[:, None]).norm(dim=3).amin(2).argmax(1)
        farthest = _REACH * tried[torch.arange(count), far]
        place = torch.where(spread_out[:, None], farthest, tried[:, 0])
        past = torch.cat((past, place[:, None]), 1)
        eyes.advance(geometry.norm_to_px(place.float(), size), (glimpses > step).numpy())
        eyes.sense()
    return eyes.belief.image, eyes.belief.acuity


def fit_head(
    train: Labelled,
    shape: tuple[int, int, int],
    classes: int,
    options: HeadOptions | None = None,
    *,
    seed: int = 0,
    precision: str = "float32",
    on_progress: Callable[[float], None] = lambda share: None,
) -> ConvHead:
    """Fit a convolutional readout: cross-entropy, Adam with decoupled decay, a rate that rises and falls once.

    Args:
        train: Flattened latents, (N, D) float, which may be float16.
        shape: (C, h, w) of a latent.
        classes: How many there are.
        options: Of the fit; None takes the defaults.
        seed: Of the beginning, the order and what is left out.
        precision: "float32", or "bfloat16" for the products, quick on CPUs with AMX.
        on_progress: Called with the share that is done, 0 to 1.

    Raises:
        InvalidValueError: Features of another width, or another precision.

    Reference:
        Srivastava et al. 2014, Dropout, JMLR 15; Loshchilov and Hutter 2019, Decoupled weight decay regularization;
        Smith and Topin 2018, Super-convergence (the course of the rate).
    """
    if train.features.shape[1] != math.prod(shape):
        raise InvalidValueError(f"features must be (N, {math.prod(shape)}); got {tuple(train.features.shape)}.")
    if precision not in ("float32", "bfloat16"):
        raise InvalidValueError(f"precision must be float32 or bfloat16; got {precision!r}.")
    options = HeadOptions() if options is None else options
    device, count = train.features.device, len(train)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(check.seed_value("seed", seed))
        head = ConvHead(shape, classes, options).to(device)
        some = train.features[:: max(1, count // 4096)].float().reshape(-1, shape[0], shape[1] * shape[2])
        head.mean.copy_(some.mean((0, 2)))
        head.scale.copy_(1 / some.std((0, 2)).clamp_min(1e-3))
        optimizer = torch.optim.AdamW(head.parameters(), options.lr, weight_decay=options.decay)
        steps = options.epochs * math.ceil(count / options.batch)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
        done = 0
        for _ in range(options.epochs):
            for rows in torch.split(torch.randperm(count), options.batch):
                rows = rows.to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    logits = head(train.features[rows])
                loss = F.cross_entropy(logits.float(), train.labels[rows], label_smoothing=_SMOOTHING)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                rate.step()
                done += 1
                on_progress(done / steps)
    return head.eval().requires_grad_(False)


def _rate(share: float) -> float:
    """Return the learning rate relative to its greatest, at a share of the run."""
    if share < _WARM_SHARE:
        return 0.04 + 0.96 * share / _WARM_SHARE
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_SHARE) / (1 - _WARM_SHARE)))
