"""Eyes that move over a batch of images: where they fixate, and what they have seen in the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.pretraining.augmentations import AugmentedBatches
from foveasim.errors import InvalidValueError
from foveasim.eye import belief as beliefs
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import Prepared, Retina
from foveasim.rng import Key
from foveasim.types import Belief, Glimpse, Scene

__all__ = ["GAZES", "PreparedPictures", "draw_fixations", "sense_sequence"]

GAZES = ("free", "centre")

PREPARED_AT_ONCE = 256
WALK_SPREAD = 0.25  # standard deviation of a walk's start and steps, as a share of a side

# How people look at photographs (Xu et al. 2014, OSIE: 7,500 scanpaths of 15 people, 500 images), x and y as shares
# of a side: the next fixation is centre + PULL * (this one - centre) + noise, whose kurtosis of 5 is nearly a
# Laplacian's, 6.
_HUMAN_START = (0.14, 0.11)  # standard deviation of the first fixation
_HUMAN_PULL = (0.57, 0.66)
_HUMAN_SPREAD = (0.18, 0.16)  # standard deviation of the noise


def draw_fixations(
    rng: np.random.Generator,
    lanes: int,
    count: int,
    size: tuple[int, int],
    walk_share: float = 0.0,
    *,
    human_share: float = 0.0,
    centre_share: float = 0.0,
    gaze: str = "free",
) -> NDArray[np.float32]:
    """Draw fixations anywhere in the scene.

    Args:
        rng: Source of randomness.
        lanes: B.
        count: Fixations of each lane.
        size: (H, W), px.
        walk_share: Share of the lanes that walk: a normal start around the centre, then normal steps, reflected at the
            edges.
        human_share: Share of the lanes whose fixations are spread as people's are: drawn to the centre, most steps
            short and some long. The others fixate uniformly.
        centre_share: Share of the lanes, of all kinds, whose first fixation is the centre.
        gaze: "free" for that; "centre" for (W / 2, H / 2) throughout, as in the paper. That draws nothing from ``rng``.

    Returns:
        (B, count, 2) float32, px.

    Raises:
        InvalidValueError: Unknown gaze.

    Reference:
        Xu, Jiang, Wang, Kankanhalli, Zhao (2014), Predicting human gaze beyond pixels, Journal of Vision 14(1):28: its
        training images' scanpaths gave the constants of the human-like kind.
    """
    if gaze not in GAZES:
        raise InvalidValueError(f"gaze must be one of {', '.join(GAZES)}; got {gaze!r}.")
    if gaze == "centre":
        return np.tile(np.array([size[1] / 2, size[0] / 2], np.float32), (lanes, count, 1))
    uniform = rng.uniform(size=(lanes, count, 2))
    walk = 0.5 + np.cumsum(rng.normal(scale=WALK_SPREAD, size=(lanes, count, 2)), axis=1)
    kind = rng.uniform(size=lanes)
    place = np.where((kind < walk_share)[:, None, None], _reflect(walk), uniform)
    if human_share > 0:
        human = (kind >= walk_share) & (kind < walk_share + human_share)
        place[human] = _like_people(rng, int(human.sum()), count)
    if centre_share > 0:
        place[rng.uniform(size=lanes) < centre_share, 0] = 0.5
    return (place * [size[1], size[0]]).astype(np.float32)


def _reflect(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fold what lies beyond 0 or 1 back."""
    folded: NDArray[np.float64] = 1 - np.abs(1 - np.mod(place, 2))
    return folded


def _like_people(rng: np.random.Generator, lanes: int, count: int) -> NDArray[np.float64]:
    """Return (B, count, 2) shares of the scene's width and height."""
    offset = np.empty((lanes, count, 2))
    noise = rng.laplace(scale=np.array(_HUMAN_SPREAD) / 2**0.5, size=(lanes, count, 2))
    offset[:, 0] = rng.normal(scale=_HUMAN_START, size=(lanes, 2))
    for step in range(1, count):
        offset[:, step] = _reflect(0.5 + np.array(_HUMAN_PULL) * offset[:, step - 1] + noise[:, step]) - 0.5
    return _reflect(0.5 + offset)


def sense_sequence(
    scene: Scene,
    retina: Retina,
    fixation_px: NDArray[np.float32] | Tensor,
    count: NDArray[np.int64],
    seed: int = 0,
    *,
    prepared: Prepared | None = None,
) -> Belief:
    """Let the eye of every lane fixate its points one after the other, and return its belief.

    What was not seen (acuity 0) is filled, so that a network which reads the image alone finds no holes in it: in lanes
    with one fixation as the retina fills it, in the others with the mean colour of what they saw, weighted by acuity.

    Args:
        scene: B lanes.
        retina: The eye.
        fixation_px: (B, K, 2) float32, px.
        count: (B,) how many of the K each lane takes, 1 to K.
        seed: For retinas that draw random numbers; lane i has seed + i.
        prepared: What this retina prepared of the scene; None prepares it.

    Returns:
        What each lane has seen: the sharpest view of every pixel.

    Raises:
        InvalidValueError: A count out of range, or something prepared that is not of this scene.
    """
    points = torch.as_tensor(fixation_px, dtype=torch.float32).to(scene.image.device)
    if len(count) != len(points) or count.min() < 1 or count.max() > points.shape[1]:
        raise InvalidValueError(f"count must be {len(points)} numbers from 1 to {points.shape[1]}; got {count}.")
    if prepared is None:
        prepared = retina.prepare(scene)
    elif prepared.image.shape != scene.image.shape:
        raise InvalidValueError(
            f"prepared must be of this scene, {tuple(scene.image.shape)}; got {tuple(prepared.image.shape)}. "
            "Give what retina.prepare(scene) returned."
        )
    device = scene.image.device
    # Where one glimpse is all, it is the answer: no belief is begun, and the image stays as the retina filled it.
    if count.max() == 1:
        glimpse = _glimpse(prepared, retina, points, 0, torch.arange(len(points), device=device) + seed)
        return Belief(glimpse.image, glimpse.acuity)
    # The lanes that look longest come first, so that those still looking are always a prefix: no lane is worked on
    # after its last fixation, and prefixes of the tensors are views.
    uneven = count.min() < count.max()
    order = torch.from_numpy(np.argsort(-count, kind="stable")).to(device)
    if uneven:  # sorting copies the pyramids
        prepared, points = _take(prepared, order), points[order]
    seeds = (order if uneven else torch.arange(len(points), device=device)) + seed
    belief = beliefs.empty(len(points), prepared.size, device)
    for step in range(int(count.max())):
        looking = int((count > step).sum())
        glimpse = _glimpse(_first(prepared, looking), retina, points[:looking], step, seeds[:looking])
        _see(_part(belief, looking), glimpse)
    _fill(_part(belief, int((count > 1).sum())))
    if not uneven:
        return belief
    back = torch.argsort(order)
    return Belief(belief.image[back], belief.acuity[back])


def _take(prepared: Prepared, lanes: Tensor) -> Prepared:
    """Do what ``Prepared.take`` does by whole rows: 12 us instead of 100 for six levels of 96 x 96."""
    parts = tuple(part.index_select(0, lanes) for part in prepared.parts)
    return Prepared(prepared.image.index_select(0, lanes), prepared.px_per_deg[lanes], parts)


def _glimpse(prepared: Prepared, retina: Retina, points: Tensor, step: int, seeds: Tensor) -> Glimpse:
    key = Key(seeds, torch.zeros_like(seeds), torch.full_like(seeds, step)) if retina.needs_key else None
    return retina.sense(prepared, points[:, step].contiguous(), key)


def _part(belief: Belief, lanes: int) -> Belief:
    return Belief(belief.image[:lanes], belief.acuity[:lanes])


def _first(prepared: Prepared, count: int) -> Prepared:
    return Prepared(prepared.image[:count], prepared.px_per_deg[:count], tuple(p[:count] for p in prepared.parts))


def _see(belief: Belief, glimpse: Glimpse) -> None:
    """Integrate a glimpse in place: on a CPU by the kernel, 10 times quicker than torch's masked copies."""
    if belief.image.device.type == "cpu":
        from foveasim.eye.kernels.step import integrate_belief

        lanes = len(belief.image)
        integrate_belief(
            belief.image.flatten(2).numpy(),
            belief.acuity.numpy(),
            glimpse.image.flatten(2).numpy(),
            glimpse.acuity.numpy(),
            np.empty(lanes, np.float32),
        )
    else:
        seen = beliefs.integrate(belief, glimpse)
        belief.image.copy_(seen.image)
        belief.acuity.copy_(seen.acuity)


def _fill(belief: Belief) -> None:
    """Paint what was not seen in the mean colour of what was, in place."""
    if belief.image.device.type == "cpu":
        from foveasim.agents.pretraining.kernels import fill_unseen

        fill_unseen(belief.image.flatten(2).numpy(), belief.acuity.numpy())
    else:
        _fill_by_torch(belief)


def _fill_by_torch(belief: Belief) -> None:
    image, acuity = belief.image, belief.acuity
    weight = acuity.sum((1, 2), dtype=torch.int64)[:, None]
    total = (image.to(torch.int64) * acuity[..., None]).sum((1, 2))
    mean = torch.where(weight > 0, (2 * total + weight) // (2 * weight).clamp_min(1), beliefs.UNSEEN)
    image.copy_(torch.where((acuity > 0)[..., None], image, mean.to(torch.uint8)[:, None, None]))


class PreparedPictures:
    """Whole pictures with what a retina prepares of them, made once: no pyramid is built twice.

    Args:
        batches: Draws whole pictures (``crops=False``), neither mirrored nor jittered: those are other pictures.
        retina: The eye.
        limit_bytes: Maximum that may be cached. Beyond it each batch is prepared anew: all or nothing, as ``cached``
            says.

    Attributes:
        cached: Whether everything prepared is cached.
        bytes: Size of the cache, pictures included.

    Raises:
        InvalidValueError: The pictures are cropped, mirrored or jittered.

    Example:
        A batch at fixations (B, K, 2), the same as without the pictures prepared:

        >>> from foveasim.images.reading import ImagePool
        >>> from foveasim.eye.retina import make_retina
        >>> pool = ImagePool.of([np.full((40, 40, 3), 9, np.uint8)])
        >>> pictures = PreparedPictures(AugmentedBatches(pool, (32, 32), crops=False), make_retina("pyramid"))
        >>> scene, prepared = pictures.take(np.array([0, 0]))
        >>> points = draw_fixations(np.random.default_rng(0), 2, 1, (32, 32))
        >>> sense_sequence(scene, pictures.retina, points, np.array([1, 1]), prepared=prepared).image.shape
        torch.Size([2, 32, 32, 3])
    """

    def __init__(self, batches: AugmentedBatches, retina: Retina, limit_bytes: int = 2 << 30) -> None:
        if batches.crops or batches.mirror or batches.jitter:
            raise InvalidValueError(
                "batches must hold whole pictures as they are, to be prepared once; set crops, mirror and jitter False."
            )
        self.batches, self.retina = batches, retina
        count = len(batches.pool)
        first = self._prepare(np.zeros(1, np.int64))[1]
        self.bytes = count * sum(part.nbytes for part in (first.image, *first.parts))
        self.cached = self.bytes <= limit_bytes
        if not self.cached:
            return
        mine = (first.image, first.px_per_deg, *first.parts)
        storage = [torch.empty(count, *part.shape[1:], dtype=part.dtype, device=part.device) for part in mine]
        for start in range(0, count, PREPARED_AT_ONCE):
            some = np.arange(start, min(start + PREPARED_AT_ONCE, count))
            prepared = self._prepare(some)[1]
            for whole, part in zip(storage, (prepared.image, prepared.px_per_deg, *prepared.parts), strict=True):
                whole[start : start + len(some)] = part
        self._all = Prepared(storage[0], storage[1], tuple(storage[2:]))

    def take(self, index: NDArray[np.int64]) -> tuple[Scene, Prepared]:
        """Return pictures as a scene, and what the retina prepared of it.

        Args:
            index: (B,) int64, which of the pool's images, such as ``AugmentedBatch.index``.
        """
        if not self.cached:
            return self._prepare(index)
        prepared = _take(self._all, torch.from_numpy(index).to(self.batches.device))
        objects = None if self.batches.pool.objects is None else self.batches.take(index)[1]
        return replace(as_scene(prepared.image), objects=objects), prepared

    def _prepare(self, index: NDArray[np.int64]) -> tuple[Scene, Prepared]:
        image, objects = self.batches.take(index)
        scene = replace(as_scene(image), objects=objects)
        return scene, self.retina.prepare(scene)
