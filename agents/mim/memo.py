"""Maps that are made once for each picture, however many eyes see it and however often."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from foveasim import validation

__all__ = ["MapMemory"]


class MapMemory:
    """Remembers what a function made of pictures: all eyes of one image begin with the same view.

    An agent that sees whole scenes gets the same picture at every step; in a comparison with people, fifteen eyes
    on each image see the same before their first saccade. The function must make the same of a picture whatever others
    stand beside it. Several threads may use it.

    Args:
        compute: (B, H, W, 3) uint8 and acuity (B, H, W) uint8, or None where all is sharp → (B, ...) maps.
        max_entries: Maps that are cached; the least recently used are dropped.

    Example:
        >>> memory = MapMemory(lambda image, acuity: image[..., 0].float().mean((1, 2)))
        >>> memory.look_up(torch.full((2, 4, 4, 3), 7, dtype=torch.uint8)).tolist()
        [7.0, 7.0]
    """

    def __init__(self, compute: Callable[[Tensor, Tensor | None], Tensor], max_entries: int = 1000) -> None:
        self._compute, self._max_entries = compute, validation.whole("max_entries", max_entries, 1, 10**6)
        self._cached: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = Lock()

    def look_up(self, image: Tensor, acuity: Tensor | None = None) -> Tensor:
        """Return the maps of pictures, (B, ...); those that are not known are made, each once.

        Args:
            image: (B, H, W, 3) uint8. On a GPU nothing is remembered: to compare costs more there than to compute.
            acuity: (B, H, W) uint8; None where everything is sharp.
        """
        if image.device.type != "cpu":
            return self._compute(image, acuity)
        names = _names(image, acuity)
        with self._lock:
            found = {name: self._cached[name] for name in names if name in self._cached}
        missing = [place for place, name in enumerate(names) if name not in found]
        first = list({names[place]: place for place in reversed(missing)}.values())
        if first:
            made = self._compute(image[first], None if acuity is None else acuity[first])
            found |= {names[place]: one for place, one in zip(first, made, strict=True)}
        with self._lock:
            for name in names:
                self._cached[name] = found[name]
                self._cached.move_to_end(name)
            while len(self._cached) > self._max_entries:
                self._cached.popitem(last=False)
        return torch.stack([found[name] for name in names])


def _names(image: Tensor, acuity: Tensor | None) -> list[bytes]:
    pixels = np.ascontiguousarray(image.numpy())
    sharp = None if acuity is None else np.ascontiguousarray(acuity.numpy())
    names = []
    for lane in range(len(pixels)):
        made = hashlib.blake2b(pixels[lane].data, digest_size=16, person=repr(pixels.shape[1:])[:16].encode())
        if sharp is not None:
            made.update(sharp[lane].data)
        names.append(made.digest())
    return names
