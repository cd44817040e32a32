"""Labelled images in three parts: one to train a readout on, one to choose by, one to test on."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveasim import validation as check
from foveasim.errors import InvalidValueError, SceneError
from foveasim.images.pool import centred
from foveasim.images.reading import SPLITS, read_pool, split_names
from foveasim.images.splits import ImageSource, remedy
from foveasim.scenes.source import SCENES, fit_picture, open_scenes

__all__ = ["LabelledData", "LabelledImages", "check_source", "read_labelled"]

VALIDATES = 5  # every fifth: the paper's 4,000 + 1,000 of STL-10


@dataclass(frozen=True, repr=False)
class LabelledImages:
    """Images and their classes.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64, indices into :attr:`LabelledData.classes`.
        names: N, what each is called in its source.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"LabelledImages({len(self)} images, size={self.images.shape[1:3]})"

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise InvalidValueError(f"images must be (N, H, W, 3) uint8; got {self.images.shape} {self.images.dtype}.")
        if self.labels.shape != (len(self.images),) or len(self.names) != len(self.images):
            raise InvalidValueError(
                f"labels and names must be one for each of {len(self.images)} images; "
                f"got {self.labels.shape} and {len(self.names)}."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> LabelledImages:
        """Return some of them, in the given order."""
        chosen = np.asarray(rows, np.int64)
        return LabelledImages(self.images[chosen], self.labels[chosen], tuple(self.names[i] for i in chosen))


@dataclass(frozen=True, repr=False)
class LabelledData:
    """Labelled images in three parts.

    Attributes:
        train: What a readout learns from.
        validation: What early stopping and every choice look at.
        test: What is reported, and looked at once.
        classes: Names of the classes, at least two.

    Raises:
        InvalidValueError: One class only, a part without images, an image in two parts, or a part with a class that
            the training part does not have.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={len(getattr(self, name))}" for name in ("train", "validation", "test"))
        return f"LabelledData({parts}, {len(self.classes)} classes)"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InvalidValueError(
                f"a readout needs at least two classes; got {', '.join(map(repr, self.classes)) or 'none'}. A class is "
                "a folder of images: DATA/CLASS/*.jpg, or DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg."
            )
        for name, part in (("training", self.train), ("validation", self.validation), ("test", self.test)):
            if len(part) == 0:
                raise InvalidValueError(
                    f"the {name} part has no images. With train and val folders, val needs at least two images a "
                    "class; with class folders only, nine images altogether. A test set of its own is given by test."
                )
        known = set(self.train.labels.tolist())
        for name, part in (("validation", self.validation), ("test", self.test)):
            strange = [self.classes[i] for i in sorted(set(part.labels.tolist()) - known)]
            if strange:
                raise InvalidValueError(
                    f"the {name} part has classes without training images: {', '.join(strange[:5])}. "
                    "The folders of both must have the same names."
                )


@dataclass(frozen=True)
class _Source:
    """Images whose classes still are names."""

    images: NDArray[np.uint8]
    classes: tuple[str, ...]
    names: tuple[str, ...]
    folders: bool

    def rows(self, names: Sequence[str]) -> NDArray[np.int64]:
        place = {name: row for row, name in enumerate(self.names)}
        return np.array([place[name] for name in names], np.int64)


def read_labelled(
    data: str,
    size: tuple[int, int] = (96, 96),
    *,
    test: str | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> LabelledData:
    """Read labelled images and part them.

    Args:
        data: A folder or a tar archive whose images lie in folders named after their classes, or a labelled scene
            source (:func:`foveasim.scenes.source.open_scenes`). How it is parted:

            - ``train``, ``val`` and ``test`` folders above the classes are the three parts;
            - with ``train`` and ``val``, ``train`` trains, and of each class of ``val``, sorted by name, even positions
              validate and odd ones test (:func:`foveasim.images.reading.split_names`, as in pretraining);
            - with ``train`` and ``test``, every fifth image of each class of ``train`` validates;
            - STL-10's binary files have ``train`` and ``test``;
            - with none of them, of nine images, sorted, the first tests, the second validates and seven train.
        size: (H, W) to crop around the centre and scale to, px.
        test: Another source that tests, the whole of it. ``data`` then only trains and validates: ``val`` where it has
            such a folder, otherwise every fifth image of each class.
        per_class: Keep that many training images of each class, drawn by ``seed``; None keeps all.
        seed: For ``per_class`` and for procedural scenes.

    Raises:
        SceneError: A source cannot be read.
        InvalidValueError: No labels, one class, a missing part, or a class that has no training images.
    """
    size = check.size_hw("size", size, 32)
    source = _read(data, "data", size, seed)
    parts = _part(source, data, test is not None)
    classes = tuple(sorted(set(source.classes)))
    where = {name: number for number, name in enumerate(classes)}

    def images(of: _Source, rows: NDArray[np.int64]) -> LabelledImages:
        labels = np.array([where[of.classes[row]] for row in rows], np.int64)
        return LabelledImages(of.images[rows], labels, tuple(of.names[row] for row in rows))

    if test is None:
        testing = images(source, parts[2])
    else:
        other = _read(test, "test", size, seed)
        strange = sorted(set(other.classes) - set(classes))
        if strange:
            raise InvalidValueError(
                f"test={test!r} has classes that data={data!r} does not have: {', '.join(strange[:5])}. "
                "The folders of both must have the same names."
            )
        testing = images(other, np.arange(len(other.names)))
    train = images(source, parts[0])
    if per_class is not None:
        train = _fewer(train, check.whole("per_class", per_class, 1, 2**31), seed)
    return LabelledData(train, images(source, parts[1]), testing, classes)


def _fewer(train: LabelledImages, per_class: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(train.labels == c))[:per_class] for c in np.unique(train.labels)]
    return train.take(np.sort(np.concatenate(chosen)))


def _read(spec: str, argument: str, size: tuple[int, int], seed: int) -> _Source:
    path = Path(spec).expanduser()
    if spec and (path.is_dir() or (path.is_file() and tarfile.is_tarfile(path))):
        whole = [str(path)]
        if ImageSource.of(str(path)).stl10:
            whole = [f"{path}@train", f"{path}@test"]
        return _read_pool(whole, argument, spec, size)
    stem, _, split = spec.rpartition("@")
    if stem and split in SPLITS:
        raise InvalidValueError(
            f"{argument} must be a whole data set; got {spec!r}. Give {stem!r}: a readout trains, chooses and tests on "
            "parts of its own."
        )
    check_source(argument, spec)
    source = open_scenes(spec, seed=seed)
    if source.moving:
        raise InvalidValueError(f"{argument}={spec!r} is moving; a readout needs still images with labels.")
    if not source.labels:
        raise _unlabelled(argument, spec)
    pictures = [fit_picture(source.picture(index), size, "crop") for index in range(len(source))]
    unknown = [p.name for p in pictures if not 0 <= p.label < len(source.labels)]
    if unknown:
        raise InvalidValueError(f"{argument}={spec!r} has images without a label: {', '.join(unknown[:5])}.")
    return _Source(
        np.stack([p.image for p in pictures]),
        tuple(source.labels[p.label] for p in pictures),
        tuple(f"{index:08d} {p.name}" for index, p in enumerate(pictures)),
        False,
    )


def check_source(argument: str, spec: str) -> None:
    """Refuse labelled data that are not there, before any work is done.

    Raises:
        SceneError: Neither a path nor a scene source; the message says where to get data.
    """
    path = Path(spec).expanduser()
    name = spec.partition(":")[0]
    if not path.exists() and name == spec and name not in SCENES and spec.rpartition("@")[2] not in SPLITS:
        raise SceneError(f"{argument}={spec!r}: no such folder, tar archive or scene source. {remedy(path)}")


def _read_pool(sources: list[str], argument: str, spec: str, size: tuple[int, int]) -> _Source:
    pool = read_pool(sources)
    outside = [name for name in pool.names if name.count("/") == 0 or name.split("/")[-2] in SPLITS]
    if outside:
        raise _unlabelled(argument, spec, outside[0])
    classes = tuple(name.split("/")[-2] for name in pool.names)
    return _Source(centred(pool, size), classes, pool.names, True)


def _unlabelled(argument: str, spec: str, example: str | None = None) -> SceneError:
    found = f", such as {example!r}" if example else ""
    return SceneError(
        f"{argument}={spec!r} has images without a label{found}. A readout needs images in folders named after their "
        "classes: DATA/CLASS/*.jpg, or DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg."
    )


def _part(source: _Source, spec: str, test_apart: bool) -> tuple[NDArray[np.int64], ...]:
    """Rows that train, validate and test."""
    names = source.names
    above = {name: set(name.split("/")[:-2]) if source.folders else set() for name in names}
    found = {part for part in ("train", "val", "test") if any(part in folders for folders in above.values())}

    def under(part: str) -> list[str]:
        return [name for name in names if part in above[name]]

    if found and "train" not in found:
        raise InvalidValueError(
            f"data={spec!r} has the folders {', '.join(sorted(found))} but no train: there is nothing to learn from. "
            "Give the folder above them, or the training images as data and the others as test."
        )
    if "val" in found and (test_apart or "test" in found):
        parts = [under("train"), under("val"), [] if test_apart else under("test")]
    elif test_apart or found == {"train", "test"}:
        rest, validating = _every_fifth(under("train") if found else list(names), source)
        parts = [rest, validating, [] if test_apart else under("test")]
    elif found == {"train"}:
        raise InvalidValueError(
            f"data={spec!r} has a train folder but neither val nor test. Put images that are not trained on beside it, "
            "or give them as test."
        )
    else:
        parts = [split_names(names, part) for part in ("train", "val", "test")]
    return tuple(source.rows(sorted(part)) for part in parts)


def _every_fifth(names: Sequence[str], source: _Source) -> tuple[list[str], list[str]]:
    """The names that stay in training, and of each class every fifth."""
    label = dict(zip(source.names, source.classes, strict=True))
    seen: dict[str, int] = {}
    rest: list[str] = []
    chosen: list[str] = []
    for name in sorted(names):
        position = seen.get(label[name], 0)
        seen[label[name]] = position + 1
        (chosen if position % VALIDATES == 0 else rest).append(name)
    return rest, chosen
