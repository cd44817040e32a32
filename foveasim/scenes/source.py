"""Scene sources: where the pictures and videos come from that eyes look at."""

from __future__ import annotations

import difflib
import inspect
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from foveasim.errors import InvalidTypeError, InvalidValueError, SceneError, UnknownNameError
from foveasim.geometry import MIN_SIDE_PX, resolution
from foveasim.images.files import (
    FileScenes,
    is_labelled_folder,
    list_folder,
    open_file,
    open_folder,
    open_labelled,
    open_photos,
)
from foveasim.images.picture import (
    CACHE_BYTES,
    Picture,
    PictureCache,
    check_fit,
    check_index,
    describe_source,
    fit_picture,
)
from foveasim.registry import Registry

__all__ = [
    "SCENES",
    "VIDEO_SUFFIXES",
    "ArrayScenes",
    "FileScenes",
    "FittedScenes",
    "JoinedScenes",
    "Picture",
    "SceneSource",
    "fit_picture",
    "open_scenes",
]

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"))
"""Endings of the files that are opened as videos; an animated ``.gif`` is one as well."""


@runtime_checkable
class SceneSource(Protocol):
    """A numbered set of scenes. Anything with these four members is one."""

    @property
    def moving(self) -> bool:
        """Whether a picture depends on ``time_ms``."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, () where there are none; a picture's label is an index into it."""
        ...

    def __len__(self) -> int:
        """Return the number of scenes, at least 1."""
        ...

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return scene ``index``, as it looks ``time_ms`` after the episode began.

        Raises:
            InvalidValueError: ``index`` is out of range.
            SceneError: It cannot be read.
        """
        ...


class ArrayScenes:
    """Pictures in memory.

    Convention:
        Channels come last. (H, W, 3) is one colour picture and (N, H, W, 3) is N of them; (H, W), (H, W, 1), (N, H, W)
        and (N, H, W, 1) are grey. (3, H, W) and (N, 3, H, W) are refused rather than guessed.

    Args:
        images: uint8 array or tensor.
        label: N classes, -1 where None.
        labels: Names of the classes.
        px_per_deg: Of the pixels; None makes the short side span 27.4 degrees.

    Raises:
        InvalidTypeError: Not uint8.
        InvalidValueError: A shape other than the above, a side under 8 px, or not one label for each picture.
    """

    moving = False

    def __init__(
        self,
        images: NDArray[np.uint8] | Tensor,
        *,
        label: Sequence[int] | None = None,
        labels: tuple[str, ...] = (),
        px_per_deg: float | None = None,
    ) -> None:
        self._images = _image_array(images)
        count = len(self._images)
        if label is not None and len(label) != count:
            raise InvalidValueError(f"label must have one class for each of {count} pictures; got {len(label)}.")
        self.labels = labels
        self._label = [-1] * count if label is None else [int(one) for one in label]
        self._px_per_deg = resolution(px_per_deg, self._images.shape[1:3])

    def __repr__(self) -> str:
        return describe_source(self, f"size={self._images.shape[1:3]}")

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._images)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return one of the array's pictures, a view of it; see :meth:`SceneSource.picture`."""
        index = check_index(index, len(self))
        return Picture(self._images[index], self._label[index], f"array {index}", self._px_per_deg)


def _image_array(images: object) -> NDArray[np.uint8]:
    """Return (N, H, W, 3) uint8, contiguous; the rules are those of :class:`ArrayScenes`."""
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        came = f"{type(images).__name__} of {images.dtype}" if hasattr(images, "dtype") else type(images).__name__
        raise InvalidTypeError(
            f"images must be a uint8 array, 0-255; got {came}. From float in [0, 1]: (images * 255).astype('uint8')."
        )
    shape = array.shape
    if (array.ndim == 3 and shape[0] == 3 and shape[2] not in (1, 3)) or (
        array.ndim == 4 and shape[1] == 3 and shape[3] not in (1, 3)
    ):
        raise InvalidValueError(
            f"images must have their channels last, (N, H, W, 3); got {shape}. Move them: np.moveaxis(images, -3, -1). "
            "If these are three grey pictures, give (3, H, W, 1)."
        )
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[None] if shape[2] in (1, 3) else array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or len(array) == 0 or min(array.shape[1:3]) < MIN_SIDE_PX:
        raise InvalidValueError(
            f"images must be (H, W, 3), (N, H, W, 3) or grey, with sides of at least {MIN_SIDE_PX} px; got {shape}."
        )
    return np.ascontiguousarray(np.repeat(array, 3, axis=3) if array.shape[3] == 1 else array)


class JoinedScenes:
    """Several sources as one, in the given order.

    Classes of the same name become one class; ``labels`` lists them in the order in which they appear.

    Args:
        sources: At least one.

    Raises:
        SceneError: No source.
    """

    def __init__(self, sources: Sequence[SceneSource]) -> None:
        if not sources:
            raise SceneError("an empty list holds no scenes. Give at least one.")
        self._sources = tuple(sources)
        self._ends = [int(end) for end in np.cumsum([len(source) for source in sources])]
        self.moving = any(source.moving for source in sources)
        self.labels = tuple(dict.fromkeys(label for source in sources for label in source.labels))

    def __repr__(self) -> str:
        kinds = [type(source).__name__ for source in self._sources]
        return describe_source(self, *kinds[:3], *["…"] * (len(kinds) > 3))

    def __len__(self) -> int:
        """Return the number of scenes of all sources together."""
        return self._ends[-1]

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return a scene of the source that it belongs to; see :meth:`SceneSource.picture`."""
        index = check_index(index, len(self))
        number = bisect_right(self._ends, index)
        source = self._sources[number]
        found = source.picture(index - (self._ends[number - 1] if number else 0), time_ms)
        label = self.labels.index(source.labels[found.label]) if 0 <= found.label < len(source.labels) else -1
        return found if label == found.label else Picture(found.image, label, found.name, found.px_per_deg)


class FittedScenes:
    """A source whose pictures all have one size. What does not move is fitted once, not in every episode.

    Args:
        source: Where the pictures come from.
        size: (H, W) in px, or None to leave every picture as it is.
        fit: See :func:`fit_picture`.
        cache_bytes: Bound on the fitted pictures that are cached.

    Raises:
        InvalidTypeError: ``size`` is not a pair of whole numbers.
        InvalidValueError: ``size`` is out of range or ``fit`` is unknown.
    """

    def __init__(
        self, source: SceneSource, size: tuple[int, int] | None, fit: str = "crop", *, cache_bytes: int = CACHE_BYTES
    ) -> None:
        check_fit(size, fit)
        self.source = source
        self.size = size
        self.fit = fit
        self._cache = PictureCache(cache_bytes)

    @property
    def moving(self) -> bool:
        """Whether a picture depends on ``time_ms``."""
        return self.source.moving

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source.labels

    def __repr__(self) -> str:
        return describe_source(self, f"of {type(self.source).__name__}", f"size={self.size}", f"fit={self.fit!r}")

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.source)

    def picture(self, index: int, time_ms: float = 0.0) -> Picture:
        """Return a scene, fitted; see :meth:`SceneSource.picture`."""
        if self.source.moving or self.size is None:
            return fit_picture(self.source.picture(index, time_ms), self.size, self.fit)
        found = self._cache.get(check_index(index, len(self)))
        if found is None:
            found = fit_picture(self.source.picture(index, time_ms), self.size, self.fit)
            self._cache.put(index, found)
        return found


SCENES = Registry[SceneSource]("scene source")
"""Every kind of scene source by name. A factory takes its arguments by keyword."""

SCENES.add("photos", open_photos)
SCENES.add("folder", open_folder)
SCENES.add("labelled", open_labelled)
SCENES.add("file", open_file)
SCENES.add("arrays", ArrayScenes)
SCENES.add("video", "foveasim.scenes.video:VideoScenes")
SCENES.add("webcam", "foveasim.scenes.video:WebcamScenes")
SCENES.add("noise", "foveasim.scenes.procedural:NoiseScenes")
SCENES.add("shapes", "foveasim.scenes.procedural:ShapeScenes")
SCENES.add("gratings", "foveasim.scenes.procedural:GratingScenes")
SCENES.add("uniform", "foveasim.scenes.procedural:UniformScenes")
SCENES.add("checkerboard", "foveasim.scenes.procedural:CheckerboardScenes")
SCENES.add("stl10", "foveasim.images.datasets:Stl10Scenes")
SCENES.add("imagenette", "foveasim.images.datasets:open_imagenette")
SCENES.add("search", "foveasim.scenes.search:SearchScenes")
SCENES.add("signs", "foveasim.scenes.signs:SignScenes")


def open_scenes(spec: object, /, *, px_per_deg: float | None = None, seed: int = 0, **options: object) -> SceneSource:
    """Open what ``spec`` describes.

    Args:
        spec: One of

            - a registered name (``SCENES.names()``): ``"photos"``, ``"noise"``, ``"webcam"``, ... A file or folder of
              the same name is reached as ``"./photos"``;
            - the path of an image, of a video (:data:`VIDEO_SUFFIXES` or an animated GIF), of a folder of images, or of
              a labelled folder: one without images of its own whose sub-folders hold them;
            - a uint8 array or tensor, see :class:`ArrayScenes`;
            - ``"package.module:Class"``, which is imported and called;
            - a :class:`SceneSource`, which is returned itself;
            - a list of any of these, joined in this order.
        px_per_deg: Pixels for one degree of visual angle in the source's own pictures; None makes a picture's short
            side span 27.4 degrees.
        seed: Seed of procedural scenes; other sources have no use for it.
        options: Further arguments of the source: ``open_scenes("noise", size=(96, 96))``,
            ``open_scenes("clip.mp4", loop=False)``.

    Raises:
        SceneError: A file or folder is missing, empty, damaged or of an unknown kind.
        UnknownNameError: Neither a name nor a path; the message lists the names and the nearest one.
        InvalidTypeError: ``spec`` or an option is of a wrong type, or the source does not take it.
        InvalidValueError: An array of a wrong shape, or an option out of range.

    Example:
        >>> len(open_scenes(np.zeros((5, 96, 96, 3), np.uint8)))
        5
        >>> open_scenes("noise", size=(96, 128)).picture(3).size
        (96, 128)
    """
    if isinstance(spec, list | tuple):
        return _open_list(spec, px_per_deg, seed, options)
    if isinstance(spec, SceneSource) and not isinstance(spec, type):
        if px_per_deg is not None or options:
            given = ", ".join([*(["px_per_deg"] if px_per_deg is not None else []), *options])
            raise InvalidTypeError(f"{given} cannot be given along with an opened source; give it where you open it.")
        return spec
    name, arguments = _resolve(spec)
    made = _make(name, {**arguments, **options}, px_per_deg, seed)
    if not isinstance(made, SceneSource):
        raise InvalidTypeError(
            f"{name!r} made a {type(made).__name__}, which is no scene source: it needs len(), moving, labels and "
            "picture(index, time_ms)."
        )
    return made


def _open_list(specs: Sequence[object], px_per_deg: float | None, seed: int, options: dict[str, object]) -> SceneSource:
    """Open each; neighbouring image files share one source and so one cache."""
    sources: list[SceneSource] = []
    files: list[Path] = []

    def close_files() -> None:
        if files:
            sources.append(FileScenes(list(files), px_per_deg=px_per_deg))
            files.clear()

    for spec in specs:
        if not options and isinstance(spec, str | Path) and _resolve(spec)[0] == "file":
            files.append(Path(spec).expanduser())
        else:
            close_files()
            sources.append(open_scenes(spec, px_per_deg=px_per_deg, seed=seed, **options))
    close_files()
    return sources[0] if len(sources) == 1 else JoinedScenes(sources)


def _resolve(spec: object) -> tuple[str, dict[str, object]]:
    """Return the registered name (or ``module:Class``) that opens ``spec``, and the argument that it takes from it."""
    if isinstance(spec, np.ndarray | Tensor):
        return "arrays", {"images": spec}
    if not isinstance(spec, str | Path):
        raise InvalidTypeError(
            f"scenes must be a name, a path, a uint8 array, a scene source or a list of these; got {spec!r} "
            f"({type(spec).__name__}). Names: {', '.join(SCENES)}."
        )
    if isinstance(spec, str) and spec in SCENES:
        return spec, {}
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return "labelled" if is_labelled_folder(path) else "folder", {"path": path}
    if spec and path.exists():
        return _kind_of_file(path), {"path": path}
    if isinstance(spec, str) and ":" in spec and not {"/", "\\"} & set(spec):
        return spec, {}
    raise _not_found(spec, path)


def _kind_of_file(path: Path) -> str:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    if path.suffix.lower() == ".gif":
        from foveasim.scenes.video import is_animated

        return "video" if is_animated(path) else "file"
    return "file"


def _not_found(spec: str | Path, path: Path) -> SceneError | UnknownNameError:
    looks_like_path = isinstance(spec, Path) or bool({"/", "\\"} & set(spec)) or path.suffix != ""
    if looks_like_path:
        parent = path.parent
        near = _nearest(path.name, [entry.name for entry in list_folder(parent)]) if parent.is_dir() else ""
        where = "" if parent.is_dir() else f" There is no folder {parent} either."
        return SceneError(f"{spec}: no such file or folder.{where}{near} Check the path.")
    return UnknownNameError(
        f"scenes {str(spec)!r} is neither a scene source nor a file or folder.{_nearest(str(spec), SCENES)} "
        f"Choose from {', '.join(SCENES)}, or give a path, an array, or a class of your own as 'package.module:Class'."
    )


def _nearest(name: str, among: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(among), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _make(name: str, arguments: dict[str, object], px_per_deg: float | None, seed: int) -> object:
    """Call a factory, with ``seed`` if it takes one and ``px_per_deg`` if it is given."""
    if px_per_deg is not None:
        arguments["px_per_deg"] = px_per_deg
    if "seed" in inspect.signature(SCENES.factory(name)).parameters:
        arguments["seed"] = seed
    return SCENES.make(name, **arguments)
