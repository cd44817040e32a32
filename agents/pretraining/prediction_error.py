"""How much better a network fills in what was not seen than the mean colour of what was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.network import MimNetwork, fill_unseen, to_float
from foveasim.agents.mim.predictor import TRAINED_PX, compose, predict_at
from foveasim.agents.pretraining.gaze_sequences import draw_fixations, sense_sequence
from foveasim.errors import InvalidValueError
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import Retina

__all__ = ["Evaluation", "evaluate", "sample_beliefs"]


@dataclass(frozen=True)
class Evaluation:
    """Squared errors where the eye did not see sharply, weighted by 1 - acuity.

    Attributes:
        fixations: After how many.
        relative: Error of the network divided by that of filling with the visible mean (of a blurred view: of showing
            the view): ratio of the sums over all images.
        mse: The network's error for each hidden pixel and channel, values from 0 to 1.
        fill_mse: That of the filling.
        hidden: Mean share of the scene that is hidden, acuity-weighted.
        images: Images times repeats.
    """

    fixations: tuple[int, ...]
    relative: tuple[float, ...]
    mse: tuple[float, ...]
    fill_mse: tuple[float, ...]
    hidden: tuple[float, ...]
    images: int

    def __str__(self) -> str:
        """One line for each number of fixations."""
        rows = zip(self.fixations, self.relative, self.mse, self.fill_mse, self.hidden, strict=True)
        return "\n".join(
            f"{n} fixations: relative error {relative:.3f} (mse {mse:.5f}, visible mean {fill:.5f}, "
            f"hidden {hidden:.3f})"
            for n, relative, mse, fill, hidden in rows
        )


def evaluate(
    network: MimNetwork,
    images: NDArray[np.uint8],
    retina: Retina,
    fixations: tuple[int, ...] = (1, 4, 8),
    *,
    start: str = "random",
    repeats: int = 1,
    batch: int = 50,
    seed: int = 0,
    device: str = "cpu",
) -> Evaluation:
    """Measure a network's error after some random fixations, drawn uniformly over the scene.

    Args:
        network: The network, on ``device``.
        images: (N, H, W, 3) uint8.
        retina: The eye.
        fixations: After how many.
        start: Where the first of them is: "random", or the "centre" of the scene.
        repeats: Times that each image is seen with other fixations.
        batch: Images at a time.
        seed: Of the fixations; the same for every network.
        device: Where to compute.

    Raises:
        InvalidValueError: No image, a number of fixations, repeats or images at a time under 1, an unknown start, a
            device that is not there, or a retina that hides nothing.
    """
    sums = np.zeros((3, len(fixations)))  # error, error of the filling, hidden pixels
    was_training = network.training
    network.eval()
    for column, image, acuity, target in sample_beliefs(
        images, retina, fixations, start=start, repeats=repeats, batch=batch, seed=seed, device=device
    ):
        with torch.inference_mode():
            predicted = compose(image, acuity, predict_at(network, image, acuity, TRAINED_PX).image)
            hidden = 1 - acuity
            errors = [((p - target).square() * hidden).sum() for p in (predicted, fill_unseen(image, acuity))]
        sums[:, column] += [float(errors[0]), float(errors[1]), float(hidden.sum())]
    network.train(was_training)
    error, fill, hidden_px = sums
    if not hidden_px.all():
        n = fixations[int(np.argmin(hidden_px))]
        raise InvalidValueError(
            f"retina must leave something hidden to predict; after {n} fixations {retina.name!r} hides nothing. "
            "Choose another, such as disc."
        )
    pixels = len(images) * repeats * images.shape[1] * images.shape[2]
    return Evaluation(
        fixations=tuple(fixations),
        relative=tuple((error / fill).tolist()),
        mse=tuple((error / hidden_px / 3).tolist()),
        fill_mse=tuple((fill / hidden_px / 3).tolist()),
        hidden=tuple((hidden_px / pixels).tolist()),
        images=len(images) * repeats,
    )


def sample_beliefs(
    images: NDArray[np.uint8],
    retina: Retina,
    fixations: tuple[int, ...],
    *,
    start: str = "random",
    repeats: int = 1,
    batch: int = 50,
    seed: int = 0,
    device: str = "cpu",
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield what eyes have seen of images after each number of random fixations.

    Args:
        images: As all others, see :func:`evaluate`.
        retina: The eye.
        fixations: After how many.
        start: Where the first of them is.
        repeats: Times that each image is seen with other fixations.
        batch: Images at a time.
        seed: Of the fixations.
        device: Where to compute.

    Yields:
        Which of the numbers of fixations; what was seen, (B, 3, H, W) float in [0, 1], and its acuity, (B, 1, H, W);
        what was there, (B, 3, H, W).

    Raises:
        InvalidValueError: As :func:`evaluate` says.
    """
    validation.whole("repeats", repeats, 1, 10**6)
    validation.whole("batch", batch, 1, 10**6)
    validation.check_device(device)
    if len(images) == 0:
        raise InvalidValueError("images must be (N, H, W, 3) with N of at least 1; got none.")
    if not fixations or min(fixations) < 1:
        raise InvalidValueError(f"fixations must be whole numbers of at least 1; got {fixations}.")
    if start not in ("random", "centre"):
        raise InvalidValueError(f"start must be 'random' or 'centre'; got {start!r}.")
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, repeat))
        points = draw_fixations(
            rng, len(images), max(fixations), images.shape[1:3], centre_share=float(start == "centre")
        )
        for first in range(0, len(images), batch):
            chosen = slice(first, first + batch)
            scene = as_scene(torch.from_numpy(images[chosen]).to(device))
            target = scene.image.permute(0, 3, 1, 2).float() / 255
            for column, n in enumerate(fixations):
                belief = sense_sequence(scene, retina, points[chosen], np.full(len(target), n), seed + repeat)
                yield column, *to_float(belief.image, belief.acuity), target
