"""The people with whom an agent is compared: their scanpaths, the images they saw, and statistics of all people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveasim import metrics, validation
from foveasim.errors import InvalidValueError
from foveasim.images.files import FileScenes
from foveasim.scanpath.scanpath import Scanpath, read_csv

__all__ = ["IMAGE_SUFFIXES", "People", "read_people"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Of the files in ``images/``, in the order in which they are looked for."""

_ELSEWHERE = 20_000  # fixations on other images, for the shuffled AUC


@dataclass(frozen=True, eq=False)
class People:
    """Scanpaths of people on S images, and on the images that agents may be trained on.

    Attributes:
        name: S names.
        image: (S, H, W, 3) uint8.
        size: (H, W) of the images in which the fixations are given, px.
        px_per_deg: Of that size.
        paths: For each image the scanpaths of people, px of ``size``.
        training: Scanpaths on other images.
    """

    name: tuple[str, ...]
    image: NDArray[np.uint8]
    size: tuple[int, int]
    px_per_deg: float
    paths: tuple[tuple[Scanpath, ...], ...]
    training: tuple[Scanpath, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the images, px: what an eye is shown, and the grid of all maps."""
        return self.image.shape[1], self.image.shape[2]

    @property
    def image_px_per_deg(self) -> float:
        """Of the images."""
        return self.px_per_deg * self.image_size[0] / self.size[0]

    @property
    def sigma_px(self) -> float:
        """Width of the Gaussian of all maps, px of the images: one degree."""
        return self.image_px_per_deg

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(T,) fixations of each training scanpath."""
        return np.array([len(path) for path in self.training])

    @cached_property
    def durations_ms(self) -> NDArray[np.float32]:
        """(F,) of each training fixation."""
        return np.concatenate([path.duration_ms.numpy() for path in self.training]).astype(np.float32)

    @cached_property
    def training_px(self) -> NDArray[np.float32]:
        """(F, 2) every training fixation, px of ``size``."""
        return np.concatenate([path.fixation_px.numpy() for path in self.training])

    @cached_property
    def centre_bias(self) -> NDArray[np.float64]:
        """(H, W) density of the training fixations on the grid of the images, with 0.1 % uniform."""
        return metrics.fixation_density(self.to_image_px(self.training_px), self.image_size, self.sigma_px)

    @cached_property
    def elsewhere_px(self) -> NDArray[np.float32]:
        """(E, 2) px of the images: a fixed draw of training fixations, the negatives of the shuffled AUC."""
        count = len(self.training_px)
        chosen = np.random.default_rng(0).permutation(count)[:_ELSEWHERE]
        return self.to_image_px(self.training_px[chosen])

    def to_image_px(self, fixation_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Carry fixations (N, 2) over from ``size`` to the images."""
        ratio = np.array(self.image_size[::-1]) / np.array(self.size[::-1])
        points: NDArray[np.float32] = (fixation_px * ratio).astype(np.float32)
        return points


def read_people(
    folder: str | Path,
    *,
    split: str = "test",
    training: str = "train",
    size: tuple[int, int] = (600, 800),
    px_per_deg: float = 24.0,
    limit: int | None = None,
) -> People:
    """Read a folder of images and scanpaths.

    It holds ``images/NAME.jpg``, ``fixations.csv`` with the columns of :mod:`foveasim.scanpath.scanpath`, where
    ``image`` is NAME, and ``splits.json``, which maps the names of splits to lists of NAMEs.

    Args:
        folder: Where.
        split: The images to be scored on.
        training: The split from which baselines, lengths, durations and the centre bias are taken.
        size: (H, W) of the images in which the fixations are given, px. The files may be smaller.
        px_per_deg: Of that size. The default is OSIE's, 24 px of 600 x 800.
        limit: The first so many images of the split; None for all.

    Raises:
        InvalidValueError: A file is missing or wrong, the splits share images, an image has fewer than 2 people, or
            images differ in size or are not of the shape of ``size``.
        SceneError: An image that cannot be read.
    """
    folder = Path(folder).expanduser()
    size = validation.size_hw("size", tuple(size), 8)
    validation.number("px_per_deg", px_per_deg, 0, open_low=True)
    splits = _read_splits(folder / "splits.json", (split, training))
    shared = set(splits[split]) & set(splits[training])
    if shared:
        raise InvalidValueError(
            f"the splits {split!r} and {training!r} must not share images; both hold {sorted(shared)[0]!r}."
        )
    names = splits[split][: None if limit is None else validation.whole("limit", limit, 1, 10**6)]
    groups = metrics.group_by_image(read_csv(folder / "fixations.csv"))
    few = [name for name in names if len(groups.get(name, ())) < 2]
    if few:
        raise InvalidValueError(
            f"{folder / 'fixations.csv'} must hold scanpaths of two people or more on every image of {split!r}; "
            f"of {few[0]!r} it holds {len(groups.get(few[0], ()))}."
        )
    known = tuple(path for name in splits[training] for path in groups.get(name, ()) if len(path))
    if not known:
        raise InvalidValueError(f"{folder / 'fixations.csv'} holds no scanpath on the images of {training!r}.")
    return People(
        tuple(names),
        _read_images(folder / "images", names, size),
        size,
        float(px_per_deg),
        tuple(tuple(groups[name]) for name in names),
        known,
    )


def _read_splits(path: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValueError(
            f"cannot read {path}: {error.strerror}. A folder of scanpaths holds images/, fixations.csv and "
            "splits.json; see docs/humans.md."
        ) from error
    except ValueError as error:
        raise InvalidValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(found, Mapping):
        raise InvalidValueError(f"{path} must map the names of splits to lists of images; got {type(found).__name__}.")
    splits = {}
    for name in wanted:
        if name not in found:
            raise InvalidValueError(f"{path} has no split {name!r}; it has {', '.join(map(str, found))}.")
        if not isinstance(found[name], list) or not found[name]:
            raise InvalidValueError(f"{path}: the split {name!r} must be a list of images, at least one.")
        splits[name] = [str(one) for one in found[name]]
    return splits


def _read_images(folder: Path, names: Iterable[str], size: tuple[int, int]) -> NDArray[np.uint8]:
    paths = []
    for name in names:
        if Path(name).name != name:
            raise InvalidValueError(f"an image must be named by its file without suffix; got {name!r}.")
        files = [folder / f"{name}{suffix}" for suffix in IMAGE_SUFFIXES]
        here = [file for file in files if file.is_file()]
        if not here:
            raise InvalidValueError(f"no image {files[0]}, nor with the suffix {', '.join(IMAGE_SUFFIXES[1:])}.")
        paths.append(here[0])
    source = FileScenes(paths)
    images = [source.picture(i).image for i in range(len(paths))]
    shape = images[0].shape
    for path, image in zip(paths, images, strict=True):
        if image.shape != shape:
            raise InvalidValueError(f"images must be of one size; {path} is {image.shape[:2]}, others {shape[:2]}.")
    if abs(shape[0] / shape[1] - size[0] / size[1]) > 0.01:
        raise InvalidValueError(
            f"images must have the shape of size={size}, in which fixations are given; {paths[0]} is {shape[:2]}."
        )
    return np.stack(images)
