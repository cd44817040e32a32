"""Linear readouts of features, and how sure their accuracy is.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, readout: one linear layer, Adam 1e-4, until ten
    epochs without improvement. Liu, Nocedal (1989), On the limited
    memory BFGS method. Wilson (1927), interval of a proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check
from foveasim.errors import InvalidValueError

__all__ = ["STRENGTHS", "Labelled", "LinearProbe", "accuracy", "confusion", "fit_adam", "fit_lbfgs", "wilson"]

CHUNK = 2048  # rows turned to float32 at a time
DIRECTIONS = 128  # in which L-BFGS is told the curvature
STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
ROUND = 10  # steps of L-BFGS between looks at the gradient
Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Labelled:
    """Features and their classes.

    Attributes:
        features: (N, D) float, on any device; may be float16 and memory-mapped.
        labels: (N,) int64, on the same device.

    Raises:
        InvalidValueError: Shapes that do not belong together, or nothing in them.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) == 0 or self.labels.shape != (len(self.features),):
            raise InvalidValueError(
                "features must be (N, D) and labels (N,) with N of at least 1; "
                f"got {tuple(self.features.shape)} and {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        """N."""
        return len(self.features)


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features as they are (standardisation is part of its weights).

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        epochs: Epochs of Adam until the best one, or evaluations of the loss by L-BFGS, over all strengths.
        strength: Of the L2 regularisation that was chosen; 0 for none.
        converged: Whether it stopped because it was done and not because a limit was reached.
        history: Validation accuracy after each epoch, or for each strength.
    """

    weight: Tensor
    bias: Tensor
    epochs: int = 0
    strength: float = 0.0
    converged: bool = True
    history: tuple[float, ...] = ()

    def scores(self, features: Tensor) -> Tensor:
        """Return the score of every class, (N, C) float32."""
        parts = [part.to(self.weight) @ self.weight.T + self.bias for part in torch.split(features, CHUNK)]
        return torch.cat(parts)

    def predict(self, features: Tensor) -> Tensor:
        """Return the class of highest score, (N,) int64."""
        return self.scores(features).argmax(1)


def accuracy(probe: LinearProbe, data: Labelled) -> float:
    """Return the share of right answers."""
    return float((probe.predict(data.features) == data.labels).double().mean())


def wilson(right: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's interval of a proportion, 95 % unless told.

    Args:
        right: Successes.
        count: Trials, at least 1.
        z: Quantile of the normal distribution.

    Raises:
        InvalidValueError: Not 0 <= right <= count, or no trial.

    Reference:
        Wilson (1927), Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22.

    Example:
        >>> low, high = wilson(50, 100)
        >>> round(low, 3), round(high, 3)
        (0.404, 0.596)
    """
    if count < 1 or not 0 <= right <= count:
        raise InvalidValueError(f"right must be from 0 to count, and count at least 1; got {right} of {count}.")
    share, weight = right / count, z * z / count
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / count + weight / (4 * count)) / (1 + weight)
    # At 0 and 1 the ends are exactly there; rounding would put the share outside its interval.
    low, high = (0.0 if right == 0 else middle - half), (1.0 if right == count else middle + half)
    return low, high


def confusion(true: Tensor, called: Tensor, classes: int) -> NDArray[np.int64]:
    """Count images of true class i (rows) that were called class j (columns), (C, C)."""
    counts = torch.bincount(true.long() * classes + called.long(), minlength=classes * classes)
    return counts.reshape(classes, classes).cpu().numpy().astype(np.int64)


def _check(train: Labelled, validation: Labelled, classes: int) -> None:
    if train.features.shape[1] != validation.features.shape[1]:
        raise InvalidValueError(
            f"validation must have {train.features.shape[1]} features as training has; "
            f"got {validation.features.shape[1]}."
        )
    for name, part in (("training", train), ("validation", validation)):
        if int(part.labels.min()) < 0 or int(part.labels.max()) >= classes:
            raise InvalidValueError(f"{name} labels must be from 0 to {classes - 1}; got {int(part.labels.max())}.")
    if len(torch.unique(train.labels)) < 2:
        raise InvalidValueError("training labels must be of at least two classes; got one.")


def fit_adam(
    train: Labelled,
    validation: Labelled,
    classes: int,
    *,
    lr: float = 1e-4,
    batch: int = 256,
    patience: int = 10,
    epochs: int = 1000,
    seed: int = 0,
    advance: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Train one linear layer as the paper does: Adam on features as they are, the best epoch on validation kept.

    Args:
        train: What it learns from.
        validation: What decides when to stop; never the test images.
        classes: C.
        lr: Learning rate.
        batch: Images a step.
        patience: Stop after that many epochs without a better validation accuracy.
        epochs: Most epochs.
        seed: Of the weights at the start and the order of the images.
        advance: Called with the epoch and its validation accuracy.

    Raises:
        InvalidValueError: Labels out of range or of one class, or an option out of range.
    """
    _check(train, validation, classes)
    check.number("lr", lr, 0, open_low=True)
    for name, value in (("batch", batch), ("patience", patience), ("epochs", epochs)):
        check.whole(name, value, 1, 2**31)
    generator = torch.Generator().manual_seed(check.seed_value("seed", seed))
    device, width = train.features.device, train.features.shape[1]
    start = torch.rand(classes, width + 1, generator=generator).mul_(2).sub_(1) / width**0.5  # as nn.Linear begins
    weight, bias = start[:, :width].contiguous().to(device), start[:, width].contiguous().to(device)
    optimizer = torch.optim.Adam([weight, bias], lr=lr)
    history: list[float] = []
    best, best_weight, best_bias = -1.0, weight.clone(), bias.clone()
    waited = 0
    while waited < patience and len(history) < epochs:
        for rows in torch.split(torch.randperm(len(train), generator=generator), batch):
            rows = rows.to(device)
            seen = train.features[rows].float()
            scores = seen @ weight.T + bias
            error = scores.softmax(1)
            error[torch.arange(len(rows), device=device), train.labels[rows]] -= 1
            weight.grad, bias.grad = error.T @ seen / len(rows), error.mean(0)
            optimizer.step()
        history.append(accuracy(LinearProbe(weight, bias), validation))
        waited += 1
        if history[-1] > best:
            best, waited = history[-1], 0
            best_weight, best_bias = weight.clone(), bias.clone()
        if advance is not None:
            advance(len(history), history[-1])
    done = history.index(best) + 1
    return LinearProbe(best_weight, best_bias, done, 0.0, waited >= patience, tuple(history))


def fit_lbfgs(
    train: Labelled,
    validation: Labelled,
    classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    evaluations: int = 300,
    tolerance: float = 1e-3,
    advance: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Fit multinomial logistic regression to standardised features, its L2 regularisation chosen on validation.

    Minimised is the mean cross-entropy plus ``strength`` / 2 times the squared weights, with features standardised by
    the training images and divided by the square root of their number, so that a strength means the same for any
    number of features. The minimum is unique. From the strongest to the weakest, each fit starts from the one before;
    the search ends when validation accuracy has not risen for two strengths. A tie goes to the stronger.

    Args:
        train: What it learns from.
        validation: What the strength is chosen by; never the test images.
        classes: C.
        strengths: To try, each above 0.
        evaluations: Most evaluations of the loss for each strength.
        tolerance: Done where the gradient, in units of the curvature, is shorter: the loss then lies about half the
            square of it above its minimum.
        advance: Called with the number of strengths done and the validation accuracy.

    Raises:
        InvalidValueError: Labels out of range or of one class, or an option out of range.
    """
    _check(train, validation, classes)
    if not strengths:
        raise InvalidValueError("strengths must be at least one number above 0; got none.")
    ordered = sorted((check.number("strengths", s, 0, open_low=True) for s in strengths), reverse=True)
    check.whole("evaluations", evaluations, 1, 2**31)
    check.number("tolerance", tolerance, 0, open_low=True)
    mean, scale = _standard(train.features)
    problem = _Logistic(train, classes, mean, scale)
    point = torch.zeros(classes, len(mean) + 1, device=mean.device)
    found: LinearProbe | None = None
    history: list[float] = []
    best, waited, total = -1.0, 0, 0
    for strength in ordered:
        point, used, converged = problem.minimise(point, strength, evaluations, tolerance)
        total += used
        probe = problem.probe(point)
        history.append(accuracy(probe, validation))
        waited += 1
        if found is None or history[-1] > best:
            best, waited = history[-1], 0
            found = LinearProbe(probe.weight, probe.bias, 0, strength, converged)
        if advance is not None:
            advance(len(history), history[-1])
        if waited == 2:
            break
    chosen = found if found is not None else probe
    return LinearProbe(chosen.weight, chosen.bias, total, chosen.strength, chosen.converged, tuple(history))


def _standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and 1 / (standard deviation x sqrt(D)), 0 where a feature is constant."""
    count, width = features.shape
    mean = torch.zeros(width, dtype=torch.float64, device=features.device)
    for part in torch.split(features, CHUNK):
        mean += part.double().sum(0)
    mean /= count
    square, largest = torch.zeros_like(mean), torch.zeros_like(mean)
    for part in torch.split(features, CHUNK):
        whole = part.double()
        square += (whole - mean).square().sum(0)
        largest = torch.maximum(largest, whole.abs().amax(0))
    std = (square / count).sqrt()
    varies = std > 1e-7 * largest  # a float32 constant comes back from a convolution with rounding errors
    return mean.float(), torch.where(varies, 1 / torch.where(varies, std, 1.0) / width**0.5, 0.0).float()


def _directions(train: Tensor, mean: Tensor, scale: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Directions (D, K) of greatest variance of the standardised features, and the variances (K,), smallest first.

    By subspace iteration, as in Halko, Martinsson, Tropp (2011), Finding structure with randomness, algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(0)  # they only speed up the search for a minimum that is unique
    found = torch.randn(len(mean), rank, generator=generator).to(mean.device) * scale[:, None].sign()
    small = torch.zeros(rank, rank, device=mean.device)
    for _ in range(3):
        found = torch.linalg.qr(found)[0]
        seen, small = torch.zeros_like(found), torch.zeros_like(small)
        for part in torch.split(train, CHUNK):
            standard = (part.float() - mean) * scale
            along = standard @ found
            seen += standard.T @ along
            small += along.T @ along
        last, found = found, seen
    variance, turn = torch.linalg.eigh(small.double() / len(train))
    return last @ turn.float(), variance.clamp(min=0).float()


class _Logistic:
    """The loss and its gradient over features that stay as they are: standardising is folded into the weights.

    L-BFGS moves in coordinates in which the loss is about as steep in every direction. Without them, latents whose
    variance lies in a few directions took over 100 evaluations for each strength and were still not done.
    """

    def __init__(self, train: Labelled, classes: int, mean: Tensor, scale: Tensor) -> None:
        self.train, self.mean, self.scale = train, mean, scale
        self.target = F.one_hot(train.labels, classes).float()
        self.curvature = (1 - 1 / classes) / classes  # of the cross-entropy where all classes are as likely
        rank = min(DIRECTIONS, len(train), len(mean))
        self.directions, self.variance = _directions(train.features, mean, scale, rank)

    def probe(self, point: Tensor) -> LinearProbe:
        """The classifier of features as they are, at a point (C, D + 1) of weights and bias."""
        weight = point[:, :-1] * self.scale
        return LinearProbe(weight, point[:, -1] - weight @ self.mean)

    def loss(self, point: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and regularisation, and their gradient."""
        probe, count = self.probe(point), len(self.train)
        total = torch.zeros((), dtype=torch.float64, device=point.device)
        slope, offset = torch.zeros_like(probe.weight), torch.zeros_like(probe.bias)
        for start in range(0, count, CHUNK):
            seen = self.train.features[start : start + CHUNK].float()
            target = self.target[start : start + CHUNK]
            logs = (seen @ probe.weight.T + probe.bias).log_softmax(1)
            total -= (logs * target).sum().double()
            error = logs.exp() - target
            slope += error.T @ seen
            offset += error.sum(0)
        weight = point[:, :-1]
        slope = (slope - offset[:, None] * self.mean) * self.scale / count + strength * weight
        value = total / count + strength / 2 * weight.double().square().sum()
        return value, torch.cat((slope, offset[:, None] / count), 1)

    def stretch(self, point: Tensor, strength: float, power: float) -> Tensor:
        """Multiply by a power of the root of the loss's curvature; -1 turns coordinates of the search into weights."""
        along = (self.curvature * self.variance + strength) ** (power / 2)
        rest, bias = along[0], self.curvature ** (power / 2)
        weight = point[:, :-1]
        weight = weight * rest + ((weight @ self.directions) * (along - rest)) @ self.directions.T
        return torch.cat((weight, point[:, -1:] * bias), 1)

    def minimise(self, start: Tensor, strength: float, evaluations: int, tolerance: float) -> tuple[Tensor, int, bool]:
        """Return the minimum, how often the loss was evaluated, and whether the minimum was reached."""
        point = self.stretch(start, strength, 1)
        used = 0

        def closure() -> Tensor:
            nonlocal used
            used += 1
            value, slope = self.loss(self.stretch(point, strength, -1), strength)
            point.grad = self.stretch(slope, strength, -1)
            return value

        rounds = min(ROUND, evaluations)
        solver = torch.optim.LBFGS(
            [point], max_iter=rounds, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        )
        converged = False
        while not converged and used < evaluations:
            solver.step(closure)  # type: ignore[no-untyped-call]
            closure()
            # In these coordinates half the squared gradient is about how far the loss lies above its minimum.
            converged = point.grad is not None and bool(point.grad.norm() <= tolerance)
        return self.stretch(point, strength, -1), used, converged
