from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.readout import probe_solver
from foveasim.agents.readout.probe import (
    PROBES,
    Labelled,
    ProbeOptions,
    accuracy,
    confusion,
    fit_adam,
    fit_lbfgs,
    fit_probe,
    fit_ridge,
)
from foveasim.agents.readout.probe_solver import CrossEntropy, FeatureSpace, ProbeLoss, SquaredError
from foveasim.errors import InvalidValueError
from foveasim.metrics.statistics import wilson

pytestmark = pytest.mark.usefixtures("one_thread")


def made(count: int, units: int = 12, classes: int = 4, seed: int = 0, noise: float = 1.0) -> Labelled:
    """Correlated features of very different scales and offsets, classes by a noisy linear rule."""
    rng = np.random.default_rng(seed)
    rule = np.random.default_rng(99)
    weight, mix = rule.normal(size=(units, classes)), rule.normal(size=(units, units))
    hidden = rng.normal(size=(count, units))
    labels = (hidden @ weight + noise * rng.normal(size=(count, classes))).argmax(1)
    features = (hidden @ mix) * rule.uniform(0.1, 10, units) + rule.uniform(-5, 5, units)
    return Labelled(torch.from_numpy(features).float(), torch.from_numpy(labels))


def naive_minimum(train: Labelled, classes: int, strength: float) -> torch.Tensor:
    """Scores of the training images at the minimum, by gradient descent to the end in float64."""
    x = train.features.double()
    x = (x - x.mean(0)) / x.std(0, unbiased=False) / x.shape[1] ** 0.5
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight], max_iter=1000, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        scores = x @ weight[:, :-1].T + weight[:, -1]
        loss = F.cross_entropy(scores, train.labels) + strength / 2 * weight[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    return (x @ weight[:, :-1].T + weight[:, -1]).detach()


@pytest.mark.parametrize("strength", [0.1, 1e-3])
@pytest.mark.parametrize(("count", "units"), [(200, 12), (30, 200)])
def test_lbfgs_finds_the_minimum(strength: float, count: int, units: int) -> None:
    train = made(count, units)
    found = fit_lbfgs(train, train, 4, strengths=[strength], tolerance=3e-4)
    assert found.strength == strength
    expected = naive_minimum(train, 4, strength)
    scores = found.scores(train.features).double()
    # a constant added to all scores changes nothing
    scores, expected = scores - scores.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(scores, expected, rtol=2e-2, atol=2e-3)


def standardised(features: torch.Tensor) -> torch.Tensor:
    x = features.double()
    return (x - x.mean(0)) / x.std(0, unbiased=False) / x.shape[1] ** 0.5


@pytest.mark.parametrize("strength", [0.1, 1e-3, 1e-6])
@pytest.mark.parametrize(("count", "units"), [(200, 12), (30, 200)])
def test_ridge_equals_its_closed_form(strength: float, count: int, units: int) -> None:
    train = made(count, units)
    found = fit_ridge(train, train, 4, strengths=[strength], tolerance=1e-5)
    assert found.converged and found.strength == strength
    x, target = standardised(train.features), F.one_hot(train.labels, 4).double()
    normal = x.T @ x / count + strength * torch.eye(units, dtype=torch.float64)
    weight = torch.linalg.solve(normal, x.T @ (target - target.mean(0)) / count)
    torch.testing.assert_close(found.scores(train.features).double(), x @ weight + target.mean(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("units", [5, 50])
@pytest.mark.parametrize("fit", [fit_lbfgs, fit_ridge])
def test_features_that_never_change_leave_the_commonest_class(units: int, fit: Callable[..., LinearProbe]) -> None:
    data = Labelled(torch.full((20, units), 0.7), torch.tensor([0] * 4 + [1] * 10 + [2] * 6))
    found = fit(data, data, 3)
    assert found.converged and found.predict(data.features).tolist() == [1] * 20 and not found.weight.any()
    assert bool(torch.isfinite(found.bias).all())


@pytest.mark.parametrize("shape", [(200, 12), (30, 200)])
def test_a_space_holds_standardised_features(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_solver, "BLOCK", 100)  # so that rows and columns come in several parts
    monkeypatch.setattr(probe_solver, "CHUNK", 11)
    monkeypatch.setattr(probe_solver, "COLUMNS", 7)
    features = torch.cat((made(*shape).features, torch.full((shape[0], 3), 0.1)), 1)
    z = torch.cat((standardised(features[:, :-3]) * (shape[1] / (shape[1] + 3)) ** 0.5, torch.zeros(shape[0], 3)), 1)
    space, generator = FeatureSpace(features), torch.Generator().manual_seed(0)
    close = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    assert (space.gram is None) == (shape[0] > shape[1])
    if space.gram is not None:
        torch.testing.assert_close(space.gram, z @ z.T, **close)
        assert torch.equal(space.gram, space.gram.T)
    weight, values = (torch.randn(n, 2, generator=generator) for n in (features.shape[1], len(features)))
    torch.testing.assert_close(space.forward(weight), z @ weight.double(), **close)
    torch.testing.assert_close(space.back(values), z.T @ values.double(), **close)
    # the classifier of a vector gives the scores that the vector carries, and products are those of the weights
    vectors = []
    for _ in range(2):
        coordinates = space.coordinates(torch.randn(len(features), 2, generator=generator))
        vectors.append(torch.cat((coordinates, torch.randn(1, 2, generator=generator), space.scores(coordinates))))
    plain, bias = space.classifier(vectors[0])
    scores = features @ plain.T + bias
    torch.testing.assert_close(scores, vectors[0][space.size + 1 :] + vectors[0][space.size], rtol=1e-3, atol=1e-3)
    weights = [c[0] / space.scale.clamp(min=1e-30) for c in (space.classifier(v) for v in vectors)]
    product = (weights[0] * weights[1]).sum()
    torch.testing.assert_close(space.dot(vectors[0], vectors[1], bias=False), product, rtol=1e-3, atol=1e-3)
    length = space.dot(space.directions.T[:, :, None], space.directions[:, -1:])
    assert float(length[-1]) == pytest.approx(1, abs=1e-3) and length[:-1].abs().max() < 1e-3


@pytest.mark.parametrize("loss", [CrossEntropy(3), SquaredError(3)])
def test_losses_know_their_curvature(loss: ProbeLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, along = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    step = 1e-5
    change = loss.response(scores + step * along) - loss.response(scores - step * along)
    assert float((change * along).sum() / (2 * step)) == pytest.approx(
        float(loss.curvature_along(loss.response(scores), along)), rel=1e-6
    )


@pytest.mark.parametrize("name", PROBES)
def test_probes_by_name(name: str) -> None:
    train, validation = made(60, 80), made(40, 80, seed=1)
    options = ProbeOptions(epochs=3, strengths=(1e-2, 1e-4))
    alone = fit_probe(name, train, validation, 4, options)
    shared = fit_probe(name, train, validation, 4, options, space=FeatureSpace(train.features))
    assert torch.equal(alone.weight, shared.weight) and alone.history == shared.history
    assert len(alone.history) == (3 if name == "adam" else 2)
    with pytest.raises(InvalidValueError, match="adam, lbfgs, ridge"):
        fit_probe("svm", train, validation, 4)


def test_lbfgs_does_not_mind_scale_offset_and_constant_features() -> None:
    train, validation = made(150), made(80, seed=1)
    base = fit_lbfgs(train, validation, 4)
    assert base.converged

    def changed(data: Labelled) -> Labelled:
        moved = data.features * torch.linspace(0.01, 50, 12) + 3
        return Labelled(torch.cat((moved, torch.full((len(data), 12), 0.3)), 1), data.labels)

    # twice the features, half of them constant: a strength counts half as much
    again = fit_lbfgs(changed(train), changed(validation), 4, strengths=[base.strength / 2])
    direct = fit_lbfgs(train, validation, 4, strengths=[base.strength])
    a, b = direct.scores(validation.features), again.scores(changed(validation).features)
    torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("units", [40, 90])
def test_lbfgs_chooses_on_validation(units: int) -> None:
    train, validation = made(60, units, noise=3.0), made(200, units, seed=1, noise=3.0)
    found = fit_lbfgs(train, validation, 4)
    each = [accuracy(fit_lbfgs(train, validation, 4, strengths=[s]), validation) for s in (1e-1, 1e-2, 1e-3)]
    assert found.history[:3] == pytest.approx(each, abs=0.02)
    assert max(found.history) == accuracy(found, validation)
    best = int(np.argmax(found.history))
    assert found.strength == pytest.approx(10.0 ** -(best + 1)) and len(found.history) <= best + 3
    calls: list[tuple[int, float]] = []
    fit_lbfgs(train, validation, 4, strengths=[1e-3, 1e-1], advance=lambda n, a: calls.append((n, a)))
    assert [n for n, _ in calls] == [1, 2] and calls[0][1] == pytest.approx(each[0])  # strongest first


def test_lbfgs_says_when_it_was_stopped() -> None:
    train = made(300)
    found = fit_lbfgs(train, train, 4, strengths=[1e-6], evaluations=5, tolerance=1e-6)
    assert not found.converged and found.epochs <= 40


def test_half_precision_features() -> None:
    train, validation = made(200), made(100, seed=1)
    half = [Labelled(d.features.half(), d.labels) for d in (train, validation)]
    assert abs(accuracy(fit_lbfgs(*half, 4), validation) - accuracy(fit_lbfgs(train, validation, 4), validation)) < 0.03
    assert fit_adam(*half, 4, lr=0.01, epochs=3).weight.dtype == torch.float32


def test_adam_learns_stops_and_keeps_the_best() -> None:
    train, validation = made(400, noise=0.2), made(200, seed=1, noise=0.2)
    seen: list[tuple[int, float]] = []
    found = fit_adam(train, validation, 4, lr=0.02, batch=32, advance=lambda e, a: seen.append((e, a)))
    assert found.converged and len(found.history) == found.epochs + 10
    assert accuracy(found, validation) == found.history[found.epochs - 1] == max(found.history) > 0.75
    assert [a for _, a in seen] == list(found.history)
    cut = fit_adam(train, validation, 4, lr=0.02, batch=32, epochs=2)
    assert not cut.converged and cut.history == found.history[:2]
    assert fit_adam(train, validation, 4, lr=0.02, batch=32, epochs=2, seed=1).history != cut.history


def test_adam_equals_torch_step_by_step() -> None:
    train = made(64)
    found = fit_adam(train, train, 4, lr=0.01, batch=64, epochs=1)
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(4, 13, generator=generator).mul_(2).sub_(1) / 12**0.5
    layer = torch.nn.Linear(12, 4)
    with torch.no_grad():
        layer.weight.copy_(start[:, :12])
        layer.bias.copy_(start[:, 12])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    F.cross_entropy(layer(train.features), train.labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    torch.testing.assert_close(found.weight, layer.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.bias, layer.bias.detach(), rtol=1e-4, atol=1e-5)


def test_no_global_randomness() -> None:
    train = made(50)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    fit_adam(train, train, 4, epochs=1)
    fit_lbfgs(train, train, 4, strengths=[0.1])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_equals_published_values(right: int, count: int, low: float, high: float) -> None:
    # 81 of 263: Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_wilson_covers() -> None:
    rng = np.random.default_rng(0)
    inside = [low <= 0.3 <= high for low, high in (wilson(int(n), 200) for n in rng.binomial(200, 0.3, 4000))]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    for wrong in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(InvalidValueError, match="right must be"):
            wilson(*wrong)
    assert all(math.isfinite(v) for v in wilson(1, 10**9))


def test_confusion_counts_rows_as_true() -> None:
    true, called = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 1, 1, 1])
    assert confusion(true, called, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]


def test_accuracy_of_a_known_classifier() -> None:
    probe = LinearProbe(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 0.5]))
    data = Labelled(torch.tensor([[1.0, 0.0], [1.0, 0.9], [0.0, 1.0], [0.2, 0.0]]), torch.tensor([0, 0, 1, 1]))
    assert probe.predict(data.features).tolist() == [0, 1, 1, 1]
    assert accuracy(probe, data) == 0.75


def test_refusals() -> None:
    train, one = made(20), Labelled(torch.zeros(3, 12), torch.zeros(3).long())
    for fit in (fit_adam, fit_lbfgs, fit_ridge):
        with pytest.raises(InvalidValueError, match="at least two classes"):
            fit(one, train, 4)
        with pytest.raises(InvalidValueError, match="12 features"):
            fit(train, Labelled(torch.zeros(3, 5), torch.zeros(3).long()), 4)
        with pytest.raises(InvalidValueError, match="from 0 to 1"):
            fit(train, train, 2)
    for options in ({"lr": 0.0}, {"batch": 0}, {"patience": 0}, {"epochs": 0}, {"seed": -1}):
        with pytest.raises(InvalidValueError, match=next(iter(options))):
            fit_adam(train, train, 4, **options)  # type: ignore[arg-type]
    for changes in ({"strengths": []}, {"strengths": [0.0]}, {"evaluations": 0}, {"tolerance": 0.0}):
        with pytest.raises(InvalidValueError, match=next(iter(changes))):
            fit_lbfgs(train, train, 4, **changes)  # type: ignore[arg-type]
        with pytest.raises(InvalidValueError, match=next(iter(changes))):
            fit_ridge(train, train, 4, **changes)  # type: ignore[arg-type]
    for wrong in ({"lr": 0.0}, {"batch": 0}, {"strengths": ()}, {"strengths": (-1.0,)}, {"evaluations": 0}):
        with pytest.raises(InvalidValueError, match=next(iter(wrong))):
            ProbeOptions(**wrong)  # type: ignore[arg-type]
