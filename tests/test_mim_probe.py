from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foveasim.agents.mim.probe import Labelled, LinearProbe, accuracy, confusion, fit_adam, fit_lbfgs, wilson
from foveasim.errors import InvalidValueError


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these sums are too small to share
    yield
    torch.set_num_threads(before)


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
    shown = found.scores(train.features).double()
    # a constant added to all scores changes nothing
    shown, expected = shown - shown.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(shown, expected, rtol=2e-2, atol=2e-3)


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


def test_lbfgs_chooses_on_validation() -> None:
    train, validation = made(60, 40, noise=3.0), made(200, 40, seed=1, noise=3.0)
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
    for fit in (fit_adam, fit_lbfgs):
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
