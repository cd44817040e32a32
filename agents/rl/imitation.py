"""A warm start: a policy learns from what the one-step oracle knows before it learns from reward.

The oracle tries places on the true scene and sees by how much the prediction error would fall. That says more than its
choice alone: the policy learns from all the places that were tried. Episodes are walked in part by the oracle
and in part by the policy itself, so that it learns from states in which it will be (Ross, Gordon and Bagnell 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveasim import validation
from foveasim.agents.builtin.oracle import blur_to_acuity
from foveasim.agents.gaze_policy.features import Features
from foveasim.agents.mim.expected_gain import shift_acuity_table, shrink_pixels
from foveasim.agents.mim.predictor import BeliefPrediction, BeliefPredictor
from foveasim.agents.rl.feature_env import FeatureObservation
from foveasim.errors import InvalidValueError

__all__ = [
    "Demonstrations",
    "ImitationConfig",
    "candidate_cells",
    "collect_oracle_demonstrations",
    "fit",
    "hypothetical_beliefs",
    "true_gains",
]


@dataclass(frozen=True)
class ImitationConfig:
    """How the oracle is imitated.

    Attributes:
        candidates: Places that it tries at every fixation. Each costs a prediction.
        near: How closely they keep to the greatest predicted gain: its cell, and others drawn by the softmax of their
            share of it times this. At 12 most are within a tenth of it: a policy that begins there has only such
            choices to learn. At 0 half of them are of greatest gain in every other cell, and half are anywhere.
        epochs: Passes over what was collected.
        batch: Moments a step of the optimizer.
        lr: Its learning rate.
        oracle_share: Share of the saccades that the oracle makes; the policy makes the others.
    """

    candidates: int = 12
    near: float = 0.0
    epochs: int = 10
    batch: int = 128
    lr: float = 1e-3
    oracle_share: float = 0.3

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: Not numbers.
            InvalidValueError: Out of range.
        """
        validation.whole("candidates", self.candidates, 2, 10_000)
        validation.whole("epochs", self.epochs, 1, 100_000)
        validation.whole("batch", self.batch, 1, 1 << 20)
        validation.number("near", self.near, 0, 1000)
        validation.number("lr", self.lr, 0, 1, open_low=True)
        validation.number("oracle_share", self.oracle_share, 0, 1)


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """What the oracle found, of N moments with K candidates each.

    Attributes:
        maps: (N, C, rows, columns) float32, what the policy saw.
        numbers: (N, M) float32.
        cells: (N, K) int64, the cells that were tried.
        points: (N, K, 2) float32, where in them.
        gains: (N, K) float32, by how much the mean squared error of the prediction fell there.
    """

    maps: Tensor
    numbers: Tensor
    cells: Tensor
    points: Tensor
    gains: Tensor


def true_gains(
    belief_predictor: BeliefPredictor, prediction: BeliefPrediction, scene: Tensor, points: Tensor
) -> Tensor:
    """Return by how much the error of the prediction would fall at places, (B, K) float32.

    Glimpses are built from the acuity of the present one, as :class:`foveasim.agents.builtin.oracle.Oracle` does
    without a
    retina: the same for ``disc``, and for ``pyramid`` within 3 grey levels.

    Args:
        belief_predictor: The frozen network.
        prediction: Of B lanes.
        scene: (B, H, W, 3) uint8, the truth.
        points: (B, K, 2) float32 in [-1, 1].
    """
    belief, known = hypothetical_beliefs(prediction, scene, points)
    target = shrink_pixels(scene, prediction.seen.size).float() / 255
    error = (prediction.image - target).square().mean((1, 2, 3))
    image, _, _ = belief_predictor.predict(belief.flatten(0, 1), known.flatten(0, 1))
    tried = (image.reshape(belief.shape) - target[:, None]).square().mean((2, 3, 4))
    return error[:, None] - tried


def hypothetical_beliefs(prediction: BeliefPrediction, scene: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the beliefs after glimpses of places, (B, K, H, W, 3) and (B, K, H, W) uint8; see :func:`true_gains`."""
    truth = shrink_pixels(scene, prediction.seen.size)
    acuity = shift_acuity_table(prediction.acuity_table, points)
    glimpse = blur_to_acuity(truth, acuity)
    newer = acuity >= prediction.seen.acuity[:, None]
    belief = torch.where(newer[..., None], glimpse, prediction.seen.belief[:, None])
    return belief, torch.maximum(acuity, prediction.seen.acuity[:, None])


def collect_oracle_demonstrations(
    envs: FeatureObservation,
    act: Callable[[dict[str, NDArray[np.float32]]], NDArray[Any]],
    episodes: int,
    config: ImitationConfig,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Demonstrations:
    """Walk through episodes with the oracle at the policy's side.

    Args:
        envs: In the form "maps", with the scene behind it (``privileged=True``). It is reset.
        act: The policy's own actions for an observation.
        episodes: How many, rounded up to whole rounds of all lanes.
        config: How many places are tried, and where.
        seed: Of the env and of the candidates.
        on_progress: Called with the share that is done, 0 to 1.

    Raises:
        InvalidValueError: The env does not know the scene, or shows features in another form.
    """
    count = validation.whole("episodes", episodes, 1, 1 << 30)
    draws = torch.Generator().manual_seed(validation.seed_value("seed", seed))
    observation, _ = envs.reset(seed=seed)
    if envs.envs.scene is None or envs.form != "maps":
        raise InvalidValueError(
            "the oracle must know the hidden scene, and the policy see maps: make the env with privileged=True and "
            "FeatureObservation with form='maps'."
        )
    collected: list[tuple[Tensor, ...]] = []
    ended = 0
    while ended < count:
        features = envs.current_features
        with torch.inference_mode():
            if config.near:
                cells = near_cells(features, config.candidates, config.near, draws)
            else:
                cells = candidate_cells(features, config.candidates, draws)
            points = features.points.gather(1, cells[:, :, None].expand(-1, -1, 2))
            gains = true_gains(envs.envs.belief_predictor, envs.envs.current_prediction, envs.envs.scene, points)
            collected.append(tuple(one.cpu() for one in (features.maps, features.numbers, cells, points, gains)))
            best = gains.argmax(1).cpu()
        lane = torch.arange(len(best))
        cells, points = collected[-1][2], collected[-1][3]
        oracle = (cells if envs.actions == "cell" else points)[lane, best].numpy()
        by_oracle = (torch.rand(len(best), generator=draws) < config.oracle_share).numpy()
        own = act(observation)
        action = np.where(by_oracle if own.ndim == 1 else by_oracle[:, None], oracle, own)
        observation, _, terminated, truncated, _ = envs.step(action)
        ended += int(np.count_nonzero(terminated | truncated))
        on_progress(min(ended / count, 1.0))
    return Demonstrations(*(torch.cat(column).clone() for column in zip(*collected, strict=True)))


def candidate_cells(features: Features, count: int, draws: torch.Generator) -> Tensor:
    """Return cells to try, (B, K) int64: of greatest gain among a draw of twice as many, and drawn evenly."""
    lanes, cells = features.gain.shape
    order = torch.rand(lanes, cells, generator=draws).argsort(1).to(features.gain.device)
    count = min(count, cells)
    promising = (count + 1) // 2
    # The very best cells lie side by side and say little of one another: only half of all cells are in the draw.
    pool = order[:, : max(cells // 2, count)]
    ranked = pool.gather(1, features.gain.gather(1, pool).argsort(1, descending=True))
    rest = ranked[:, promising:]
    evenly = torch.rand(rest.shape, generator=draws).argsort(1)[:, : count - promising].to(rest.device)
    return torch.cat((ranked[:, :promising], rest.gather(1, evenly)), 1)


def near_cells(features: Features, count: int, near: float, draws: torch.Generator) -> Tensor:
    """Return cells to try, (B, K) int64: that of greatest gain, and others drawn without replacement by the softmax.

    Args:
        features: Of B lanes.
        count: K, or as many as there are cells.
        near: By which the share of the greatest gain is multiplied.
        draws: Makes it random.
    """
    noise = torch.empty(features.gain.shape).exponential_(generator=draws).log().to(features.gain.device)
    score = near * features.gain - noise  # the K greatest of Gumbel's perturbed scores are such a draw
    score.scatter_(1, features.gain.argmax(1, keepdim=True), torch.inf)
    return score.topk(min(count, score.shape[1]), 1).indices


def fit(
    demonstrations: Demonstrations,
    answer: Callable[[Tensor, Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    config: ImitationConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, float]:
    """Let a policy learn what the oracle found.

    Scores of cells learn to draw candidates of great true gain: the gain that is expected of a draw by their softmax
    rises, which is the policy gradient without its noise. Points learn the best candidate: squared distance. A tenth of
    the moments is held out, and what the policy knew after the epoch that did best there is kept, the beginning
    included: a few episodes can teach a policy less than it knows.

    Args:
        demonstrations: From :func:`collect_oracle_demonstrations`. The last tenth is held out.
        answer: From maps and numbers to scores of cells, (B, rows * columns), or to points, (B, 2).
        parameters: What learns.
        config: Epochs, batch and learning rate.
        seed: Of the order.
        device: Where the policy computes.
        on_progress: Called with the share that is done, 0 to 1.

    Returns:
        ``epoch``, the best one, 0 for none. Of scores: of the true gain of the best candidates on what was
        held out, the share that a random one has (``random``), and the one that the policy prefers ``before`` and
        ``after``. Of points: the mean squared distance from the best candidate ``before`` and ``after``.
    """
    count = len(demonstrations.gains)
    held = slice(count - max(1, count // 10), count)
    training = torch.arange(max(1, held.start))
    draws = torch.Generator().manual_seed(validation.seed_value("seed", seed))
    trainable = [one for one in parameters if one.requires_grad]
    optimizer = torch.optim.Adam(trainable, config.lr)
    found = _missed(demonstrations, held, answer, device)
    begun = best = found
    best_parameters, best_epoch = [one.detach().clone() for one in trainable], 0
    for epoch in range(config.epochs):
        for batch in torch.split(training[torch.randperm(len(training), generator=draws)], config.batch):
            loss = _loss(demonstrations, batch, answer, device)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = _missed(demonstrations, held, answer, device)
        if found < best:
            best, best_parameters, best_epoch = found, [one.detach().clone() for one in trainable], epoch + 1
        on_progress((epoch + 1) / config.epochs)
    with torch.no_grad():
        for one, value in zip(trainable, best_parameters, strict=True):
            one.copy_(value)
    if _of_points(demonstrations, answer, device):
        return {"epoch": float(best_epoch), "before": begun, "after": best}
    gains = demonstrations.gains[held]
    random = float(gains.mean() / gains.amax(1).mean().clamp_min(1e-12))
    return {"epoch": float(best_epoch), "random": random, "before": 1 - begun, "after": 1 - best}


def _loss(
    demonstrations: Demonstrations, batch: Tensor, answer: Callable[[Tensor, Tensor], Tensor], device: Any
) -> Tensor:
    outputs = answer(demonstrations.maps[batch].to(device), demonstrations.numbers[batch].to(device))
    gains = demonstrations.gains[batch].to(device)
    best, index = gains.max(1, keepdim=True)
    if outputs.shape[1] == 2:
        target = demonstrations.points[batch].to(device).gather(1, index[:, :, None].expand(-1, -1, 2))[:, 0]
        return (outputs - target).square().sum(1).mean()
    share = outputs.gather(1, demonstrations.cells[batch].to(device)).softmax(1)
    return -(share * gains).sum(1).mean() / best.mean().clamp_min(1e-12)


def _of_points(demonstrations: Demonstrations, answer: Callable[[Tensor, Tensor], Tensor], device: Any) -> bool:
    with torch.no_grad():
        return answer(demonstrations.maps[:1].to(device), demonstrations.numbers[:1].to(device)).shape[1] == 2


def _missed(
    demonstrations: Demonstrations, which: slice, answer: Callable[[Tensor, Tensor], Tensor], device: Any
) -> float:
    """Return the share of the best candidates' gain that the preferred ones lack, or the loss of a policy of points."""
    rows = torch.arange(len(demonstrations.gains))[which]
    with torch.no_grad():
        if _of_points(demonstrations, answer, device):
            return _loss(demonstrations, rows, answer, device).item()
        outputs = torch.cat(
            [
                answer(demonstrations.maps[part].to(device), demonstrations.numbers[part].to(device)).cpu()
                for part in torch.split(rows, 256)
            ]
        )
    gains = demonstrations.gains[which]
    chosen = outputs.gather(1, demonstrations.cells[which]).argmax(1, keepdim=True)
    return float(1 - gains.gather(1, chosen).mean() / gains.amax(1).mean().clamp_min(1e-12))
