"""Linear readouts of features, fitted.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, readout: one linear layer, Adam 1e-4, until ten
    epochs without improvement. Liu, Nocedal (1989), On the limited
    memory BFGS method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation as check
from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.readout.probe_solver import CrossEntropy, FeatureSpace, ProbeLoss, SquaredError, minimise
from foveasim.errors import InvalidValueError

__all__ = [
    "PROBES",
    "STRENGTHS",
    "Labelled",
    "ProbeOptions",
    "accuracy",
    "confusion",
    "fit_adam",
    "fit_lbfgs",
    "fit_probe",
    "fit_ridge",
]

PROBES = ("adam", "lbfgs", "ridge")
STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


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


def accuracy(probe: LinearProbe, data: Labelled) -> float:
    """Return the share of right answers."""
    return float((probe.predict(data.features) == data.labels).double().mean())


def confusion(true: Tensor, called: Tensor, classes: int) -> NDArray[np.int64]:
    """Count images of true class i (rows) that were called class j (columns), (C, C)."""
    counts = torch.bincount(true.long() * classes + called.long(), minlength=classes * classes)
    return counts.reshape(classes, classes).cpu().numpy().astype(np.int64)


@dataclass(frozen=True)
class ProbeOptions:
    """How probes are fitted.

    Attributes:
        lr: Learning rate of ``adam``.
        batch: Images a step of ``adam``.
        patience: Epochs without a better validation accuracy after which ``adam`` stops.
        epochs: Maximum number of epochs of ``adam``.
        strengths: Of the L2 regularisation that ``lbfgs`` and ``ridge`` try.
        evaluations: Maximum number of evaluations of the gradient that they make for each of them.

    Raises:
        InvalidValueError: An option out of range.
    """

    lr: float = 1e-4
    batch: int = 256
    patience: int = 10
    epochs: int = 1000
    strengths: Sequence[float] = STRENGTHS
    evaluations: int = 300

    def __post_init__(self) -> None:
        check.number("lr", self.lr, 0, open_low=True)
        for name in ("batch", "patience", "epochs", "evaluations"):
            check.whole(name, getattr(self, name), 1, 2**31)
        _ordered(self.strengths)


def fit_probe(
    name: str,
    train: Labelled,
    validation: Labelled,
    classes: int,
    options: ProbeOptions | None = None,
    *,
    seed: int = 0,
    space: FeatureSpace | None = None,
    advance: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Fit one of :data:`PROBES`.

    Args:
        name: ``adam``, ``lbfgs`` or ``ridge``.
        train: What it learns from.
        validation: What it stops and chooses by; never the test images.
        classes: C.
        options: Of the fit; None takes the defaults.
        seed: For ``adam``; the minimum of the others is unique.
        space: Of the training features, for several fits to the same by ``lbfgs`` and ``ridge``.
        advance: Called after each epoch or strength with their number and the validation accuracy.

    Raises:
        InvalidValueError: No such probe, labels out of range or of one class.
    """
    options = ProbeOptions() if options is None else options
    if name == "adam":
        return fit_adam(
            train,
            validation,
            classes,
            lr=options.lr,
            batch=options.batch,
            patience=options.patience,
            epochs=options.epochs,
            seed=seed,
            advance=advance,
        )
    if name not in PROBES:
        raise InvalidValueError(f"name must be one of {', '.join(PROBES)}; got {name!r}.")
    fit = fit_lbfgs if name == "lbfgs" else fit_ridge
    return fit(
        train,
        validation,
        classes,
        strengths=options.strengths,
        evaluations=options.evaluations,
        space=space,
        advance=advance,
    )


def _ordered(strengths: Sequence[float]) -> list[float]:
    if not strengths:
        raise InvalidValueError("strengths must be at least one number above 0; got none.")
    return sorted((check.number("strengths", s, 0, open_low=True) for s in strengths), reverse=True)


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
        epochs: Maximum number of epochs.
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
    space: FeatureSpace | None = None,
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
        evaluations: Maximum number of evaluations of the gradient for each strength.
        tolerance: Done where the gradient, in units of the curvature, is shorter: the loss then lies about half the
            square of it above its minimum.
        space: Of the training features, for several fits to the same; None makes it, which is most of the work.
        advance: Called with the number of strengths done and the validation accuracy.

    Raises:
        InvalidValueError: Labels out of range or of one class, or an option out of range.
    """
    return _fit(CrossEntropy(classes), train, validation, strengths, evaluations, tolerance, space, advance)


def fit_ridge(
    train: Labelled,
    validation: Labelled,
    classes: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    evaluations: int = 300,
    tolerance: float = 1e-3,
    space: FeatureSpace | None = None,
    advance: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Fit regularised least squares to one-hot classes, its L2 regularisation chosen on validation.

    Minimised is half the squared distance of the C scores from 1 for the class of an image and 0 for the others, mean
    over images, plus ``strength`` / 2 times the squared weights. All else is as in :func:`fit_lbfgs`.

    Args:
        train: What it learns from.
        validation: What the strength is chosen by; never the test images.
        classes: C.
        strengths: To try, each above 0.
        evaluations: Maximum number of evaluations of the gradient for each strength.
        tolerance: Done where the gradient, in units of the curvature, is shorter.
        space: Of the training features, for several fits to the same; None makes it, which is most of the work.
        advance: Called with the number of strengths done and the validation accuracy.

    Raises:
        InvalidValueError: Labels out of range or of one class, or an option out of range.

    Reference:
        Hoerl, Kennard (1970), Ridge regression, Technometrics 12. Rifkin, Klautau (2004), In defense of one-vs-all
        classification, J. Mach. Learn. Res. 5: as accurate as other losses once the regularisation is chosen well.
    """
    return _fit(SquaredError(classes), train, validation, strengths, evaluations, tolerance, space, advance)


def _fit(
    loss: ProbeLoss,
    train: Labelled,
    validation: Labelled,
    strengths: Sequence[float],
    evaluations: int,
    tolerance: float,
    space: FeatureSpace | None,
    advance: Callable[[int, float], None] | None,
) -> LinearProbe:
    _check(train, validation, loss.classes)
    ordered = _ordered(strengths)
    check.whole("evaluations", evaluations, 1, 2**31)
    check.number("tolerance", tolerance, 0, open_low=True)
    space = FeatureSpace(train.features) if space is None else space
    target = F.one_hot(train.labels, loss.classes).float()
    point = torch.zeros(space.size + 1 + len(train), loss.classes, device=target.device)
    found: LinearProbe | None = None
    history: list[float] = []
    best, waited, total = -1.0, 0, 0
    for strength in ordered:
        point, used, converged = minimise(loss, space, target, point, strength, evaluations, tolerance)
        total += used
        probe = LinearProbe(*space.classifier(point))
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
