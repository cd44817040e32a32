"""The scenes that agents are compared on, or trained on: still images of one size, in the order of their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foveasim import validation
from foveasim.agents.evaluation.judge import Scenes
from foveasim.agents.evaluation.scene_runner import MAX_SCENES
from foveasim.errors import InvalidValueError
from foveasim.images.pool import centred
from foveasim.images.reading import read_pool
from foveasim.scenes.source import SCENES, FittedScenes, open_scenes

__all__ = ["read_scenes"]

_DEFAULT_LIMIT = 100  # scenes of a source that has no end, where no limit is given


def read_scenes(
    data: str | Sequence[str], size: tuple[int, int] = (96, 96), *, limit: int | None = None, seed: int = 0
) -> Scenes:
    """Read scenes, cropped around their centre and scaled to one size.

    Args:
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``, or one name such as photos, noise, shapes.
        size: (H, W), px.
        limit: The first so many scenes; None for all of them. Of made scenes, which have no end, 100 where it is None.
        seed: Of made scenes.

    Raises:
        FoveasimError: They cannot be read, or move; or an option out of range.
    """
    specs = [data] if isinstance(data, str) else list(data)
    height, width = validation.size_hw("size", tuple(size), 32)
    if limit is not None:
        validation.whole("limit", limit, 1, MAX_SCENES)
    if not data:
        raise InvalidValueError(
            "data must name images: a folder, a tar archive, PATH@SPLIT, or a name such as photos; got none."
        )
    if len(specs) == 1 and specs[0] in SCENES:
        source = open_scenes(specs[0], seed=seed)
        if source.moving:
            raise InvalidValueError(f"data must be still images, seen alike by all agents; {specs[0]!r} moves.")
        fitted = FittedScenes(source, (height, width))
        pictures = [fitted.picture(i) for i in range(min(len(source), _DEFAULT_LIMIT if limit is None else limit))]
        return Scenes(np.stack([picture.image for picture in pictures]), tuple(picture.name for picture in pictures))
    pool = read_pool(specs, progress=True)
    count = min(len(pool), len(pool) if limit is None else limit)
    if count > MAX_SCENES:
        raise InvalidValueError(f"data must be at most {MAX_SCENES:,} images; got {count:,}. Use --limit.")
    return Scenes(np.ascontiguousarray(centred(pool, (height, width))[:count]), pool.names[:count])
