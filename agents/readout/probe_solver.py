"""The minimum of a regularised convex loss over linear functions of standardised features.

Logistic regression of 18,432 features from 9,469 images would read 700 MB twice for each evaluation of its gradient.
Where there are fewer images than features, they are read once here, for the N x N matrix of their products.

Reference:
    Liu, Nocedal (1989), On the limited memory BFGS method. Kimeldorf, Wahba (1971), representer theorem.
"""

from __future__ import annotations

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from foveasim.agents.mim.linear_probe import CHUNK

__all__ = ["CrossEntropy", "FeatureSpace", "ProbeLoss", "SquaredError", "minimise"]

BLOCK = 2**22  # float64 numbers at a time: 32 MB
COLUMNS = 2048  # features standardised at a time
DIRECTIONS = 128  # along which L-BFGS knows the curvature from the start
MEMORY = 10  # steps that L-BFGS remembers
SEARCHES = 30  # along a line at most


class ProbeLoss(ABC):
    """A convex loss of the scores; sums over images here, divided by their number by the caller."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @property
    @abstractmethod
    def curvature(self) -> float:
        """Second derivative for one score, about where the search begins."""

    @abstractmethod
    def response(self, scores: Tensor) -> Tensor:
        """What is compared with the one-hot target: their difference is the gradient, (N, C)."""

    @abstractmethod
    def curvature_along(self, response: Tensor, along: Tensor) -> Tensor:
        """Second derivative when the scores change by multiples of ``along`` (N, C)."""


class CrossEntropy(ProbeLoss):
    """Of the softmax of the scores: multinomial logistic regression."""

    @property
    def curvature(self) -> float:
        """Second derivative where all classes are as likely."""
        return (1 - 1 / self.classes) / self.classes

    def response(self, scores: Tensor) -> Tensor:
        """Probabilities."""
        return scores.softmax(1)

    def curvature_along(self, response: Tensor, along: Tensor) -> Tensor:
        """See :meth:`ProbeLoss.curvature_along`: the variance of ``along`` over the classes."""
        mean = (response * along).sum(1, keepdim=True)
        return (response * (along - mean).square()).sum()


class SquaredError(ProbeLoss):
    """Half the squared distance of the scores from the one-hot target: least squares."""

    @property
    def curvature(self) -> float:
        """Everywhere the same."""
        return 1.0

    def response(self, scores: Tensor) -> Tensor:
        """The scores."""
        return scores

    def curvature_along(self, response: Tensor, along: Tensor) -> Tensor:
        """See :meth:`ProbeLoss.curvature_along`."""
        return along.square().sum()


class FeatureSpace:
    """Linear functions of standardised features Z (N, D), in the shorter of two coordinates.

    With at least as many images as features, coordinates are the weights (D, C). With fewer, they are what every
    training image adds to the weights, (N, C): the weights of the minimum are Z'A for some A (representer theorem), the
    scores are ZZ'A, and the N x N matrix ZZ', formed once, replaces two passes over the features at each evaluation.

    A *vector* (M + 1 + N, C) is the M = min(N, D) coordinates, the bias, and the scores of the training images that the
    coordinates give without the bias, so that sums of vectors carry their scores along. Products of vectors are those
    of their weights and biases in either coordinates.

    Args:
        features: (N, D) float, on any device. They stay as they are: standardising is folded into the weights.

    Reference:
        Kimeldorf, Wahba (1971), representer theorem. Schölkopf, Smola (2002), Learning with kernels, section 4.2.
    """

    def __init__(self, features: Tensor) -> None:
        self.features = features
        self.mean, self.scale = _standard(features)
        self.size = min(features.shape)
        self.gram = _gram(features, self.mean, self.scale) if self.size < features.shape[1] else None
        self.directions, self.variance = self._principal(min(DIRECTIONS, self.size))
        self.weighed = self.directions[: self.size] if self.gram is None else self.directions[self.size + 1 :]

    def forward(self, weight: Tensor) -> Tensor:
        """Z times weights (D, K)."""
        plain = weight * self.scale[:, None]
        parts = [part.float() @ plain for part in torch.split(self.features, CHUNK)]
        return torch.cat(parts) - self.mean @ plain

    def back(self, values: Tensor) -> Tensor:
        """Z' times values (N, K)."""
        total = torch.zeros(len(self.mean), values.shape[1], device=values.device)
        for start in range(0, len(values), CHUNK):
            total.addmm_(self.features[start : start + CHUNK].float().T, values[start : start + CHUNK])
        return (total - self.mean[:, None] * values.sum(0)) * self.scale[:, None]

    def scores(self, coordinates: Tensor) -> Tensor:
        """Scores of the training images, (N, K), from coordinates (M, K)."""
        return self.forward(coordinates) if self.gram is None else self.gram @ coordinates

    def coordinates(self, values: Tensor) -> Tensor:
        """Coordinates of Z' times values (N, K)."""
        # Features are centred, so that a mean adds nothing but, with a weak regularisation, a large rounding error.
        return self.back(values) if self.gram is None else values - values.mean(0)

    def dot(self, vectors: Tensor, other: Tensor, *, bias: bool = True) -> Tensor:
        """Products of vectors (..., M + 1 + N, C) with another one, (...), with or without their biases."""
        size = self.size
        dual = other[:size] if self.gram is None else other[size + 1 :]
        found = vectors[..., :size, :].flatten(-2) @ dual.flatten()
        return found + vectors[..., size, :] @ other[size] if bias else found

    def classifier(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (C, D) and bias (C,) for features as they are."""
        point = vector[: self.size]
        plain = (point if self.gram is None else self.back(point)) * self.scale[:, None]
        return plain.T.contiguous(), vector[self.size] - self.mean @ plain

    def _principal(self, rank: int) -> tuple[Tensor, Tensor]:
        """Orthonormal vectors (M + 1 + N, K) along which the scores vary most, and that variance, smallest first.

        By subspace iteration, as in Halko, Martinsson, Tropp (2011), Finding structure with randomness, algorithm 4.4.
        """
        generator = torch.Generator().manual_seed(0)  # they only speed up the search for a minimum that is unique
        found = self.coordinates(torch.randn(len(self.features), rank, generator=generator).to(self.mean.device))
        for _ in range(3):
            basis = torch.linalg.qr(found)[0]
            seen = self.scores(basis)
            found = self.coordinates(seen)
        power, turn = torch.linalg.eigh((basis.T @ found).double())
        real = power >= 1e-6 * power[-1]  # the rest is rounding; all where no feature varies
        power, turn = power[real], turn[:, real]
        if self.gram is not None:  # unit coordinates have weights of squared length ``power``
            turn = turn * power.clamp(min=1e-30).rsqrt()
        vectors = torch.cat((basis, basis.new_zeros(1, rank), seen)) @ turn.float()
        return vectors, (power / len(self.features)).float()

    def precondition(self, slope: Tensor, curvature: float, strength: float) -> Tensor:
        """Divide a gradient by the curvature of the loss along the principal directions.

        Without it, latents whose variance lies in a few directions took over 100 evaluations for each strength and were
        still not done.
        """
        along = curvature * self.variance + strength
        share = self.weighed.T @ slope[: self.size]
        found = slope / along[0] + self.directions @ ((1 / along - 1 / along[0])[:, None] * share)
        found[self.size] = slope[self.size] / curvature
        return found


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and 1 / (standard deviation x sqrt(D)), 0 where a feature is constant."""
    count, width = features.shape
    shift = features[0].double()  # so that the sum of squares is of the size of the variance
    total, square = torch.zeros_like(shift), torch.zeros_like(shift)
    rows = min(max(BLOCK // width, 1), count)
    buffer = shift.new_empty(rows, width)  # the pages of fresh memory would cost more than the sums
    for part in torch.split(features, rows):
        away = torch.sub(part, shift, out=buffer[: len(part)])
        total += away.sum(0)
        square += away.square_().sum(0)
    away = total / count
    mean, std = away + shift, (square / count - away.square()).clamp(min=0).sqrt()
    varies = std > 1e-7 * mean.abs()  # a float32 constant comes back from a convolution with rounding errors
    return mean.float(), torch.where(varies, 1 / torch.where(varies, std, 1.0) / width**0.5, 0.0).float()


def _gram(features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """ZZ' of the standardised features, (N, N)."""
    count, width = features.shape
    gram = torch.zeros(count, count, device=features.device)
    rows = range(0, count, CHUNK)
    for left in range(0, width, COLUMNS):
        cut = slice(left, left + COLUMNS)
        part = features[:, cut].to(torch.float32, copy=True).sub_(mean[cut]).mul_(scale[cut])
        for start in rows:  # the lower triangle, which is half the work
            stop = min(start + CHUNK, count)
            gram[start:stop, :stop].addmm_(part[start:stop], part[:stop].T)
    for start in rows:
        stop = min(start + CHUNK, count)
        gram[:start, start:stop] = gram[start:stop, :start].T
        block = gram[start:stop, start:stop]
        # Not every processor's product of a matrix and its transpose is symmetric to the last bit.
        block.copy_(block.tril() + block.tril(-1).T)
    return gram


def minimise(
    loss: ProbeLoss,
    space: FeatureSpace,
    target: Tensor,
    start: Tensor,
    strength: float,
    evaluations: int,
    tolerance: float,
) -> tuple[Tensor, int, bool]:
    """Find the minimum of a loss, mean over the training images, plus ``strength`` / 2 times the squared weights.

    L-BFGS as in Nocedal, Wright (2006), Numerical optimization, algorithm 7.5. Along a line the scores of the
    training images change in proportion, so that searching it costs next to nothing.

    Args:
        loss: The loss.
        space: Of the training images.
        target: (N, C) float32, 1 for the class of an image and 0 for the others.
        start: A vector of the space.
        strength: Of the L2 regularisation, above 0.
        evaluations: Maximum number of evaluations of the gradient.
        tolerance: Done where the gradient, in units of the curvature, is shorter.

    Returns:
        The minimum as a vector, how often the gradient was evaluated, and whether the minimum was reached.
    """
    size, count, threads = space.size, len(target), torch.get_num_threads()
    point, memory = start, _LimitedMemory(space, start)
    before: tuple[Tensor, Tensor] | None = None
    fresh = False
    # All but the large products is many small operations. Where others used the two cores as well, threads that waited
    # for each other at each of them made 9,469 images of 18,432 features take 33 s instead of 11.
    with _threads(1):
        for used in range(1, evaluations + 1):
            error = (loss.response(point[size + 1 :] + point[size]) - target) / count
            with _threads(threads):
                part = space.coordinates(error) + strength * point[:size]
                seen = space.scores(part)
            slope = torch.cat((part, error.sum(0, keepdim=True), seen))
            down = space.precondition(slope, loss.curvature, strength)
            # Half of this is about how far the loss lies above its minimum.
            if float(space.dot(slope, down)) <= tolerance**2:
                if fresh:
                    return point, used, True
                # Rounding errors of many steps part the scores from the coordinates, which are what counts.
                with _threads(threads):
                    seen = space.scores(point[:size])
                point, before, fresh = torch.cat((point[: size + 1], seen)), None, True
                continue
            if before is not None:
                change = slope - before[1]
                memory.add(point - before[0], change, space.precondition(change, loss.curvature, strength))
            down = memory.direction(slope, down)
            before, fresh = (point, slope), False
            first = float(space.dot(slope, down))
            point = point + _search_line(loss, space, target, point, down, strength, first) * down
    return point, evaluations, False


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _LimitedMemory:
    """The last steps of L-BFGS, by which it improves on the curvature of the preconditioner.

    All at once instead of one after another, which is as many small operations less.

    Reference:
        Byrd, Nocedal, Schnabel (1994), Representations of quasi-Newton matrices, Math. Program. 63, theorem 2.2.
    """

    def __init__(self, space: FeatureSpace, like: Tensor) -> None:
        self.space = space
        self.steps, self.changes, self.preconditioned = (like.new_zeros(MEMORY, *like.shape) for _ in range(3))
        self.across, self.among = np.zeros((MEMORY, MEMORY)), np.zeros((MEMORY, MEMORY))
        self.order: list[int] = []  # rows in use, the oldest first

    def add(self, step: Tensor, change: Tensor, preconditioned: Tensor) -> None:
        """Store a step, how it changed the gradient, and that change preconditioned."""
        if float(self.space.dot(step, change)) <= 0:
            return  # only by rounding: the loss is convex
        row = self.order.pop(0) if len(self.order) == MEMORY else len(self.order)
        self.order.append(row)
        self.steps[row], self.changes[row], self.preconditioned[row] = step, change, preconditioned
        self.across[:, row] = self.space.dot(self.steps, change).cpu()
        self.among[:, row] = self.among[row] = self.space.dot(self.changes, preconditioned).cpu()

    def direction(self, slope: Tensor, preconditioned: Tensor) -> Tensor:
        """Minus the gradient divided by the curvature, from the gradient as it is and preconditioned."""
        if not self.order:
            return -preconditioned
        order, newest = np.ix_(self.order, self.order), self.order[-1]
        upper = np.triu(self.across[order])
        scale = self.across[newest, newest] / self.among[newest, newest]
        along = self.space.dot(self.steps, slope).double().cpu().numpy()[self.order]
        against = self.space.dot(self.changes, preconditioned).double().cpu().numpy()[self.order]
        first = np.linalg.solve(upper, along)
        second = np.linalg.solve(upper.T, upper.diagonal() * first - scale * (against - self.among[order] @ first))
        weights = np.zeros((2, MEMORY))
        weights[:, self.order] = scale * first, -second
        back, on = torch.from_numpy(weights).to(slope)
        known: Tensor = torch.tensordot(back, self.preconditioned, 1) + torch.tensordot(on, self.steps, 1)
        return known - preconditioned * float(scale)


def _search_line(
    loss: ProbeLoss, space: FeatureSpace, target: Tensor, point: Tensor, down: Tensor, strength: float, first: float
) -> float:
    """How far to go along a line, by Newton's method between bounds, until the slope is a twentieth of ``first``."""
    size, count = space.size, len(target)
    scores, along = point[size + 1 :] + point[size], down[size + 1 :] + down[size]
    across, square = (float(space.dot(one, down, bias=False)) for one in (point, down))
    low, high, length = 0.0, math.inf, 1.0
    for _ in range(SEARCHES):
        response = loss.response(scores + length * along)
        slope = float(((response - target) * along).sum()) / count + strength * (across + length * square)
        if abs(slope) <= abs(first) / 20:
            break
        curvature = float(loss.curvature_along(response, along)) / count + strength * square
        low, high = (length, high) if slope < 0 else (low, length)
        length = length - slope / curvature
        if not low < length < high:
            length = 2 * low if math.isinf(high) else (low + high) / 2
    return length
