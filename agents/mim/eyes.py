"""Eyes that move over a batch of images: where they fixate, and what they have seen in the end."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import belief as beliefs
from foveasim.errors import InvalidValueError
from foveasim.geometry import default_px_per_deg
from foveasim.retina import Prepared, Retina
from foveasim.rng import Key
from foveasim.types import Belief, Glimpse, Scene

__all__ = ["as_scene", "draw_fixations", "look"]

WALK_SPREAD = 0.25  # standard deviation of a walk's start and steps, as a share of a side


def as_scene(image: NDArray[np.uint8] | Tensor) -> Scene:
    """Put images before an eye, (B, H, W, 3) uint8, their short side 27.4 degrees wide."""
    tensor = torch.as_tensor(image).contiguous()
    lanes, device = len(tensor), tensor.device
    return Scene(
        image=tensor,
        label=torch.full((lanes,), -1, dtype=torch.int64, device=device),
        px_per_deg=torch.full((lanes,), default_px_per_deg((tensor.shape[1], tensor.shape[2])), device=device),
        name=("",) * lanes,
        time_ms=torch.zeros(lanes, device=device),
    )


def draw_fixations(
    rng: np.random.Generator, lanes: int, count: int, size: tuple[int, int], walk_share: float = 0.0
) -> NDArray[np.float32]:
    """Draw fixations anywhere in the scene.

    Args:
        rng: Source of randomness.
        lanes: B.
        count: Fixations of each lane.
        size: (H, W), px.
        walk_share: Share of the lanes that walk: a normal start around the centre, then normal steps, reflected at the
            edges. The others fixate uniformly.

    Returns:
        (B, count, 2) float32, px.
    """
    uniform = rng.uniform(size=(lanes, count, 2))
    walk = 0.5 + np.cumsum(rng.normal(scale=WALK_SPREAD, size=(lanes, count, 2)), axis=1)
    walk = 1 - np.abs(1 - np.mod(walk, 2))  # reflection at 0 and 1
    walks = rng.uniform(size=lanes) < walk_share
    place = np.where(walks[:, None, None], walk, uniform)
    return (place * [size[1], size[0]]).astype(np.float32)


def look(
    scene: Scene, retina: Retina, fixation_px: NDArray[np.float32] | Tensor, count: NDArray[np.int64], seed: int = 0
) -> Belief:
    """Let every lane fixate its points one after the other.

    Args:
        scene: B lanes.
        retina: The eye.
        fixation_px: (B, K, 2) float32, px.
        count: (B,) how many of the K each lane takes, 1 to K.
        seed: For retinas that draw random numbers.

    Returns:
        What each lane has seen: the sharpest view of every pixel.

    Raises:
        InvalidValueError: A count out of range.
    """
    points = torch.as_tensor(fixation_px, dtype=torch.float32)
    if len(count) != len(points) or count.min() < 1 or count.max() > points.shape[1]:
        raise InvalidValueError(f"count must be {len(points)} numbers from 1 to {points.shape[1]}; got {count}.")
    # The lanes that look longest come first, so that those still looking are always a prefix: no lane is worked on
    # after its last fixation, and prefixes of the tensors are views.
    order = torch.from_numpy(np.argsort(-count, kind="stable")).to(scene.image.device)
    prepared = retina.prepare(scene).take(order)
    points = points.to(scene.image.device)[order]
    belief = beliefs.empty(len(points), prepared.size, scene.image.device)
    for step in range(int(count.max())):
        looking = int((count > step).sum())
        key = Key.of(seed, looking, step, scene.image.device) if retina.needs_key else None
        glimpse = retina.sense(_first(prepared, looking), points[:looking, step].contiguous(), key)
        _see(Belief(belief.image[:looking], belief.acuity[:looking]), glimpse)
    back = torch.argsort(order)
    return Belief(belief.image[back], belief.acuity[back])


def _first(prepared: Prepared, count: int) -> Prepared:
    return Prepared(prepared.image[:count], prepared.px_per_deg[:count], tuple(p[:count] for p in prepared.parts))


def _see(belief: Belief, glimpse: Glimpse) -> None:
    """Integrate a glimpse in place: on a CPU by the kernel, 10 times quicker than torch's masked copies."""
    if belief.image.device.type == "cpu":
        from foveasim.kernels import integrate_belief

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
