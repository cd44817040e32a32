"""Agents that cheat: they see the hidden scene, and try what they would do on it. Upper references, not competitors.

An oracle asks for the observation key ``scene``, so that an env must be made with ``privileged=True``. It takes the
glimpse at every place of a grid, lets the network predict from each resulting belief, and compares with the truth. No
agent without the scene can know what it knows; how much of the way from ``random`` to it an agent covers says how good
its choices are. Nothing is learned from it about looking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from foveasim import validation
from foveasim.agents.builtin.predictive_base import Network, PredictiveAgent, best_place, in_chunks
from foveasim.agents.interface import Observation, observed
from foveasim.agents.mim.expected_gain import BeliefState, measure_acuity_table, shift_acuity_table, shrink_pixels
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.eye.foveated import as_scene
from foveasim.eye.gaussian_pyramid import gaussian_pyramid
from foveasim.eye.retina import Retina, make_retina
from foveasim.geometry import DEFAULT_SHORT_SIDE_DEG, grid_norm, norm_to_px
from foveasim.types import Belief, Glimpse

__all__ = ["METRICS", "BeamOracle", "Oracle", "blur_to_acuity"]

Metric = Callable[[Tensor, Tensor], Tensor]

METRICS: dict[str, Metric] = {
    "mse": lambda prediction, scene: (prediction - scene).square().mean((1, 2, 3)),
    "mae": lambda prediction, scene: (prediction - scene).abs().mean((1, 2, 3)),
}
"""Errors of predictions (N, H, W, 3) of scenes (N, H, W, 3), float32 in [0, 1]: (N,) each, over all pixels."""

_LEVELS = 6  # of the pyramid, as of the retina


class BeamOracle(PredictiveAgent):
    """Plans a few fixations ahead with the true scene in hand, by beam search. It cheats: an upper reference.

    From what was seen, every place of a grid is tried, and then every place after each of the ``width`` best sequences
    so far, ``depth`` times. Sequences are compared by the sum of the errors after each of their fixations, and of those
    that make the same fixations in another order only the best is kept. The best sequence of all is carried out to its
    end, and then the next one planned. The truth of a video may change meanwhile; where saccades scatter, the plan is
    not corrected.

    Each planned fixation costs ``width`` times rows times columns predictions; the first of a plan, a ``width``-th.

    Args:
        network: A network, the name of a shipped one, a ``.safetensors`` file, or anything with ``imagine``.
        grid: (rows, columns) of the places tried, the middles of cells.
        depth: Fixations planned at a time.
        width: Sequences kept.
        metric: What is to be small: a name of :data:`METRICS` or a function of the same form.
        retina: The retina that the env has, or its name, to take real glimpses with. None builds them from the acuity
            of the present glimpse: the same for ``disc``, and for ``pyramid`` within 3 grey levels; give the others.
        short_side_deg: Visual angle of the scene's short side, for the retina.
        device: Where to compute.
        seed: Seed of lane 0; lane i has ``seed + i``. It settles ties.

    Raises:
        InvalidTypeError: A metric that is neither a name nor a function; a number that is not whole.
        InvalidValueError: A grid, depth or width out of range, an unknown metric, a retina that draws random numbers.
        UnknownNameError: No retina of that name.
        WeightsError: The file cannot be used.
    """

    name = "beam_oracle"
    needs = ("belief", "scene")
    needs_std = False

    def __init__(
        self,
        network: Network = "unet",
        grid: tuple[int, int] = (6, 6),
        depth: int = 2,
        width: int = 3,
        metric: str | Metric = "mse",
        retina: str | Retina | None = None,
        short_side_deg: float = DEFAULT_SHORT_SIDE_DEG,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__(network, device, seed)
        self._points = grid_norm(*validation.size_hw("grid", grid, 1, 256)).to(self.device)
        self._depth, self._width = validation.whole("depth", depth, 1, 100), validation.whole("width", width, 1, 10_000)
        self._metric = _metric(metric)
        self._retina = None if retina is None else make_retina(retina)
        if self._retina is not None and self._retina.needs_key:
            raise InvalidValueError(
                f"retina must show the same at the same fixation; {self._retina.name!r} draws random numbers. "
                "Use retina=None, which goes by the acuity of the present glimpse."
            )
        self._short_side_deg = validation.number("short_side_deg", short_side_deg, 0, 360, open_low=True)
        self._plan = torch.zeros(0)  # (B, depth), places

    def choose_fixations(self, seen: BeliefState, observation: Observation) -> Tensor:
        """Return the next fixations of the plan, (B, 2) float32 in [-1, 1]."""
        lanes, at = len(seen.belief), self.noise.step % self._depth
        if len(self._plan) != lanes:
            self._plan = torch.zeros(lanes, self._depth, dtype=torch.int64, device=self.device)
        planning = np.flatnonzero(at == 0)
        if len(planning):
            which = torch.from_numpy(planning).to(self.device)
            scene = validation.image_batch("scene", torch.from_numpy(observed(observation, "scene"))).to(self.device)
            few = BeliefState(
                *(getattr(seen, name)[which] for name in ("belief", "acuity", "glimpse_acuity", "fixation"))
            )
            ties = self.ties(len(self._points))[which]
            self._plan[which] = self._search(few, shrink_pixels(scene[which], seen.size), ties)
        place = self._plan.gather(1, torch.from_numpy(at).to(self.device)[:, None])
        return self._points[place[:, 0]]

    def _search(self, seen: BeliefState, scene: Tensor, ties: Tensor) -> Tensor:
        """Return the places to fixate, (B, depth) int64; ``scene`` is (B, H, W, 3) uint8, ``ties`` (B, K)."""
        lanes, places = len(scene), len(self._points)
        glimpse = self._glimpses(seen, scene)
        belief = Belief(seen.belief[:, None], seen.acuity[:, None])
        spent = torch.zeros(lanes, 1, device=self.device)
        paths = torch.zeros(lanes, 1, 0, dtype=torch.int64, device=self.device)
        row = torch.arange(lanes, device=self.device)[:, None]
        for step in range(self._depth):
            beams = paths.shape[1]
            total = (spent[:, :, None] + self._errors(belief, glimpse, scene)).flatten(1)
            places_so_far = torch.cat(
                (
                    paths[:, :, None].expand(-1, -1, places, -1),
                    torch.arange(places, device=self.device)[None, None, :, None].expand(lanes, beams, -1, 1),
                ),
                3,
            ).flatten(1, 2)
            if step == self._depth - 1:
                worst = total.amax(1, keepdim=True)
                best = best_place(worst - total, ties.repeat(1, beams))
                return places_so_far[row[:, 0], best]
            selected = _distinct_best(total, places_so_far, self._width)
            spent, paths = total.gather(1, selected), places_so_far[row, selected]
            beam, place = selected // places, selected % places
            belief = _integrated(
                Belief(belief.image[row, beam], belief.acuity[row, beam]),
                Glimpse(glimpse.image[row, place], glimpse.acuity[row, place]),
            )
        raise AssertionError  # the last step returns

    def _errors(self, belief: Belief, glimpse: Glimpse, scene: Tensor) -> Tensor:
        """Return the error after each glimpse (B, K, …) on top of each belief (B, W, …): (B, W, K) float32."""
        errors = []
        for lane, beam, place in in_chunks(*belief.image.shape[:2], glimpse.image.shape[1]):
            known = _integrated(
                Belief(belief.image[lane, beam], belief.acuity[lane, beam]),
                Glimpse(glimpse.image[lane, place], glimpse.acuity[lane, place]),
            )
            image = self.predict_uncached(known.image, known.acuity).image.to(self.device)
            errors.append(self._metric(image, scene[lane].float() / 255))
        return torch.cat(errors).reshape(*belief.image.shape[:2], -1)

    def _glimpses(self, seen: BeliefState, scene: Tensor) -> Glimpse:
        """Return what the eye would see at each place, (B, K, H, W, 3) and (B, K, H, W) uint8."""
        lanes, places = len(scene), len(self._points)
        if self._retina is None:
            table = measure_acuity_table(seen.glimpse_acuity, seen.fixation)
            acuity = shift_acuity_table(table, self._points.expand(lanes, -1, -1))
            return Glimpse(blur_to_acuity(scene, acuity), acuity)
        scale = torch.full((lanes,), min(seen.size) / self._short_side_deg, device=self.device)
        prepared = self._retina.prepare(replace(as_scene(scene), px_per_deg=scale))
        fixation_px = norm_to_px(self._points, seen.size)
        found = [self._retina.sense(prepared, fixation_px[k].expand(lanes, 2).contiguous()) for k in range(places)]
        image = torch.stack([glimpse.image for glimpse in found], 1)
        return Glimpse(image, torch.stack([glimpse.acuity for glimpse in found], 1))


class Oracle(BeamOracle):
    """Tries every place of a grid with the true scene in hand and takes the best one. It cheats: an upper reference.

    One step ahead: the glimpse at each place is taken, belief integrated, the scene predicted, and gaze goes where the
    error over the whole scene is least. Greedy, and so no bound: :class:`BeamOracle` can do better over an episode.

    An action costs rows times columns predictions. Arguments and errors are those of :class:`BeamOracle`.
    """

    name = "oracle"

    def __init__(
        self,
        network: Network = "unet",
        grid: tuple[int, int] = (6, 6),
        metric: str | Metric = "mse",
        retina: str | Retina | None = None,
        short_side_deg: float = DEFAULT_SHORT_SIDE_DEG,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        super().__init__(network, grid, 1, 1, metric, retina, short_side_deg, device, seed)


def blur_to_acuity(scene: Tensor, acuity: Tensor) -> Tensor:
    """Show scenes as sharply as acuity says, as the retina ``pyramid`` does: at level -log2(acuity) of their pyramid.

    Args:
        scene: (B, H, W, 3) uint8.
        acuity: (B, K, H, W) uint8; where it is 0 the coarsest level is shown.

    Returns:
        (B, K, H, W, 3) uint8.
    """
    if bool(((acuity == 0) | (acuity == 255)).all()):
        return scene[:, None].expand(-1, acuity.shape[1], -1, -1, -1)
    levels = gaussian_pyramid(scene, _LEVELS)
    level_of_acuity = (-torch.log2(torch.arange(256, device=scene.device).clamp_min(1) / 255)).clamp_max(_LEVELS - 1)
    near = level_of_acuity.floor().clamp_max(_LEVELS - 2).long()
    weight = ((level_of_acuity - near) * 256).round().to(torch.int32)
    out = torch.empty(*acuity.shape, 3, dtype=torch.uint8, device=scene.device)
    for place in range(acuity.shape[1]):
        at = acuity[:, place].long()
        level = near[at][:, None, :, :, None].expand(-1, -1, -1, -1, 3)
        finer, coarser = (levels.gather(1, level + up)[:, 0].to(torch.int32) for up in (0, 1))
        share = weight[at][..., None]
        out[:, place] = ((finer * (256 - share) + coarser * share + 128) >> 8).to(torch.uint8)
    return out


def _integrated(belief: Belief, glimpse: Glimpse) -> Belief:
    """Do what ``foveasim.eye.belief.integrate`` does, for any number of leading axes."""
    newer = glimpse.acuity >= belief.acuity
    image = torch.where(newer[..., None], glimpse.image, belief.image)
    return Belief(image, torch.where(newer, glimpse.acuity, belief.acuity))


def _distinct_best(total: Tensor, paths: Tensor, count: int) -> Tensor:
    """Return the sequences of least error, no two of the same places, (B, N) int64, N at most ``count``.

    Args:
        total: (B, K) float.
        paths: (B, K, steps) int64.
        count: How many.
    """
    ranked = total.argsort(dim=1, stable=True)
    # The same places in another order have another order's error but the same sorted places: only the first is kept.
    places = paths.sort(2).values.gather(1, ranked[:, :, None].expand_as(paths))
    looked = min(ranked.shape[1], 4 * count)
    same = (places[:, :looked, None] == places[:, None, :looked]).all(3)
    first = ~same.tril(-1).any(2)
    order = (~first).to(torch.int8).argsort(dim=1, stable=True)
    return ranked.gather(1, order[:, : min(count, looked)])


def _metric(metric: str | Metric) -> Metric:
    if isinstance(metric, str):
        if metric not in METRICS:
            raise InvalidValueError(
                f"metric must be one of {', '.join(METRICS)} or a function of prediction and scene; got {metric!r}."
            )
        return METRICS[metric]
    if not callable(metric):
        raise InvalidTypeError(f"metric must be a name or a function of prediction and scene; got {metric!r}.")
    return metric
