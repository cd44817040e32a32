"""Masks of the main object by GrabCut, for the loss on the object only and for covert attention.

``foveasim segment imagenette.tar masks`` writes one greyscale PNG for each image; pretraining reads them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foveasim import __version__, validation
from foveasim.agents.segmentation.mask_sheet import mask_sheet
from foveasim.errors import InvalidValueError, SceneError
from foveasim.eye.masks import OBJECT_SURE
from foveasim.images.object_masks import MAX_OBJECT_SHARE, MIN_OBJECT_PX, mask_paths, read_mask
from foveasim.images.pool import ImagePool
from foveasim.images.reading import read_pool
from foveasim.runs.outputs import check_folder, find_inputs
from foveasim.runs.whole_files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SegmentConfig", "SegmentReport", "object_confidence", "run"]

# Shares of the picture, those that stand out most, that may be the object when a cut begins.
STARTS = (0.5, 0.35, 0.2)
SURELY_OBJECT, SURELY_BACKGROUND = 0.05, 0.08
MIN_SIDE = 16  # px, of what a cut works on; long thin pictures are distorted rather than thinner
CENTRE_SIGMA = 0.27  # of the side: how far from the middle objects are looked for
BORDER = 0.08  # of the short side: the strips that are taken for background
MIN_PIECE = 0.25  # of the largest piece; smaller ones are not of the main object
LINE_EVERY_S = 15.0


@dataclass
class SegmentConfig:
    """What to segment, and how.

    Attributes:
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``.
        out: Folder for the masks, ``segment.json`` and ``segment.png``.
        resume: Keep the masks that lie in ``out``, and make those that are missing.
        overwrite: Make all masks anew, and replace those that lie in ``out``.
        side: Square root of the number of pixels that a picture has while it is cut; larger is finer and slower.
        seed: Of the colour models' beginnings.
        workers: How many pictures are cut at the same time, None for one on each core. The masks do not depend on it.
        cache: Folder where the decoded images are cached; see :func:`foveasim.images.reading.read_pool`.
    """

    data: list[str] | str = field(default_factory=list)
    out: str = "runs/masks"
    resume: bool = False
    overwrite: bool = False
    side: int = 64
    seed: int = 0
    workers: int | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        validation.whole("side", self.side, 32, 4096)
        validation.whole("seed", self.seed, 0, 2**31 - 1 - len(STARTS))  # what OpenCV's generator takes
        if self.workers is not None:
            validation.whole("workers", self.workers, 1, 4096)


@dataclass(frozen=True)
class SegmentReport:
    """What came of it.

    Attributes:
        images: How many.
        usable: How many have a usable mask.
        too_small: How many have fewer than 100 sure pixels.
        nearly_whole: How many have more than nine tenths sure pixels.
        made: How many masks were made now; the others lay there.
        seconds: How long that took.
        median_share: Median share of sure pixels of the usable masks.
        unusable: Names of the images without a usable mask.
    """

    images: int
    usable: int
    too_small: int
    nearly_whole: int
    made: int
    seconds: float
    median_share: float
    unusable: tuple[str, ...]


def _standing_out(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each pixel's colour differs from that of the four borders, less so away from the middle, (H, W)."""
    height, width = lab.shape[:2]
    strip = max(2, round(BORDER * min(height, width)))
    pixels = lab.reshape(-1, 3)
    distances = np.empty((4, height * width), np.float32)
    for number, border in enumerate((lab[:strip], lab[-strip:], lab[:, :strip], lab[:, -strip:])):
        sample = border.reshape(-1, 3).astype(np.float64)
        mean = sample.mean(0)
        # 30, a standard deviation of 5.5 of Lab's 255: to a border of one colour, not all others are infinitely far.
        precision = np.linalg.inv((sample - mean).T @ (sample - mean) / len(sample) + 30 * np.eye(3))
        off = pixels - mean.astype(np.float32)
        distances[number] = np.sqrt(np.einsum("ni,ni->n", off @ precision.astype(np.float32), off))
    distances.sort(0)
    y, x = (np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5) / width - 0.5
    centre = np.exp(-0.5 * (y[:, None] ** 2 + x[None] ** 2) / CENTRE_SIGMA**2).astype(np.float32)
    # The border that differs most is left out: the object may reach over it.
    return np.asarray((distances[:3].mean(0).reshape(height, width) + 0.5) * centre, np.float32)


def _main_pieces(vote: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Leave out the pieces that are much smaller than the largest."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(vote.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    large = (area >= max(1, MIN_PIECE * area.max())).astype(np.float32)
    return np.asarray(large[labels], np.float32)


def object_confidence(image: NDArray[np.uint8], side: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """Estimate how surely each pixel belongs to the main object of a picture.

    What stands out in colour from the picture's borders, and lies towards its middle, begins as the object: once half
    of the picture, once 35 % and once 20 %. Each time GrabCut cuts object from background by a model of both their
    colours, first with the most outstanding pixels held to be the object, then free to give up these as well, as it
    does where the two do not differ. The confidence is the share of the six cuts that agree, softened at the outline.

    Args:
        image: (H, W, 3) uint8.
        side: Square root of the number of pixels that the picture has while it is cut.
        seed: Of the colour models' beginnings. OpenCV's generator of this thread is set to it.

    Returns:
        (H, W) uint8, 255 where all cuts agree on the object.

    Reference:
        Rother, Kolmogorov and Blake (2004), "GrabCut". That borders are background: Wei et al. (2012), "Geodesic
        saliency using background priors". That objects are in the middle: Tatler (2007).
    """
    height, width = image.shape[:2]
    scale = side / (height * width) ** 0.5
    rows, columns = (min(max(MIN_SIDE, round(extent * scale)), side * side // MIN_SIDE) for extent in (height, width))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.cvtColor(cv2.resize(image, (columns, rows), interpolation=method), cv2.COLOR_RGB2BGR)
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32), (0, 0), 1.0)
    strength = _standing_out(np.asarray(lab, np.float32))
    shares = np.quantile(strength, [1 - share for share in STARTS])
    surely, never = np.quantile(strength, [1 - SURELY_OBJECT, SURELY_BACKGROUND])
    votes = np.zeros((rows, columns), np.float32)
    for number, threshold in enumerate(shares):
        mask = np.where(strength >= threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        mask[strength >= surely], mask[strength <= never] = cv2.GC_FGD, cv2.GC_BGD
        cv2.setRNGSeed(seed + number)
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        for mode in (cv2.GC_INIT_WITH_MASK, cv2.GC_EVAL):
            cv2.grabCut(small, mask, (0, 0, 0, 0), background, foreground, 1, mode)
            votes += _main_pieces((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))
            mask[mask == cv2.GC_FGD] = cv2.GC_PR_FGD
    agreed = cv2.GaussianBlur(votes / (2 * len(STARTS)), (0, 0), 0.8)
    confidence = np.asarray(cv2.resize(agreed, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.rint(255 * confidence).clip(0, 255).astype(np.uint8)


def _png(image: NDArray[Any]) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def _sure_pixels(image: NDArray[np.uint8], path: Path, config: SegmentConfig) -> tuple[int, bool]:
    """Make a picture's mask where there is none; return how many of its pixels are sure and whether it was made."""
    mask = None if config.overwrite else read_mask(path, (image.shape[0], image.shape[1]))
    made = mask is None
    if mask is None:
        mask = object_confidence(image, config.side, config.seed)
        write_atomically(path, _png(mask))
    return int(np.count_nonzero(mask >= OBJECT_SURE)), made


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own beside the workers."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _segment(
    pool: ImagePool, paths: list[Path], config: SegmentConfig, advance: Callable[[int, int], None]
) -> tuple[NDArray[np.int64], int]:
    """Return how many sure pixels each mask has, and how many masks were made."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = config.workers or cores
    sure, made = np.zeros(len(pool), np.int64), 0
    block = 8 * workers  # small, so that Ctrl-C waits for few pictures
    threads = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(pool), block):
            chosen = range(start, min(start + block, len(pool)))
            done = list(threads.map(lambda n: _sure_pixels(pool.images[n], paths[n], config), chosen))
            sure[start : start + len(done)] = [count for count, _ in done]
            made += sum(new for _, new in done)
            advance(len(done), made)
    finally:
        threads.shutdown(cancel_futures=True)
    return sure, made


def _settings(config: SegmentConfig) -> dict[str, int]:
    """What a mask depends on, besides its picture."""
    return {"side": config.side, "seed": config.seed}


def _written(config: SegmentConfig) -> dict[str, Any]:
    """Return what the file holds of the options: the same for a run that was resumed."""
    return {name: value for name, value in asdict(config).items() if name not in ("resume", "overwrite")}


def _claim(folder: Path, config: SegmentConfig) -> None:
    """Note down how the masks of a folder are made, before the first is.

    Raises:
        InvalidValueError: They were made otherwise.
    """
    path = folder / "segment.json"
    before: Any = None
    if not config.overwrite:
        with suppress(OSError, ValueError):
            before = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(before, dict) and before.get("settings", _settings(config)) != _settings(config):
        raise InvalidValueError(
            f"{folder} holds masks made with {before['settings']}, not {_settings(config)}. Choose another folder by "
            "out, or make them anew by --overwrite."
        )
    if before is None:
        write_atomically(path, (json.dumps({"settings": _settings(config)}) + "\n").encode())


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]:.0f} images/s")
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    begun_s = printed_s = time.monotonic()
    finished = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, rate=0.0)

        def advance(count: int, made: int) -> None:
            nonlocal printed_s, finished
            finished += count
            now = time.monotonic()
            speed = made / max(now - begun_s, 1e-9)
            bar.update(task, advance=count, rate=speed)
            if not console.is_terminal and now - printed_s >= LINE_EVERY_S:
                printed_s = now
                console.print(f"{finished:,} of {total:,} images, {speed:.0f} images/s", highlight=False)

        yield advance


def run(config: SegmentConfig) -> SegmentReport:
    """Make a mask for every image that has none yet, print a table and write ``segment.json`` and ``segment.png``.

    It may be stopped at any moment and goes on with ``resume``: every mask that is there is whole.

    Args:
        config: What, and how.

    Returns:
        How many masks are usable.

    Raises:
        InvalidValueError: No data, an option out of range, a folder that is not empty, or masks in it that were made
            with other settings.
        SceneError: The data cannot be read, two images would share a mask, a mask that lies there cannot be used, or
            the folder cannot be written to.
    """
    from rich.console import Console

    console, reads = Console(), find_inputs(sources=config.data)
    folder = check_folder(config.out, reads, resume=config.resume, overwrite=config.overwrite)
    pool = read_pool(config.data, cache=config.cache, progress=True)
    paths = mask_paths(folder, pool.names)
    begun_s = time.monotonic()
    try:
        _claim(folder, config)
        with _one_thread_each(), _progress(console, len(pool)) as advance:
            sure, made = _segment(pool, paths, config, advance)
        share = sure / pool.size.astype(np.int64).prod(1)
        usable = (sure >= MIN_OBJECT_PX) & (share <= MAX_OBJECT_SHARE)
        report = _report(pool, sure, share, usable, made, time.monotonic() - begun_s)
        record = {"foveasim": __version__, "settings": _settings(config), "config": _written(config), **asdict(report)}
        write_atomically(folder / "segment.json", (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        write_atomically(folder / "segment.png", _png(cv2.cvtColor(mask_sheet(pool, paths, usable), cv2.COLOR_RGB2BGR)))
    except OSError as error:
        raise SceneError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another folder by out."
        ) from error
    _show(report, config, console)
    return report


def _report(
    pool: ImagePool,
    sure: NDArray[np.int64],
    share: NDArray[np.float64],
    usable: NDArray[np.bool_],
    made: int,
    seconds: float,
) -> SegmentReport:
    too_small = int((sure < MIN_OBJECT_PX).sum())
    return SegmentReport(
        images=len(pool),
        usable=int(usable.sum()),
        too_small=too_small,
        nearly_whole=int((~usable).sum()) - too_small,
        made=made,
        seconds=seconds,
        median_share=float(np.median(share[usable])) if usable.any() else 0.0,
        unusable=tuple(name for name, good in zip(pool.names, usable.tolist(), strict=True) if not good),
    )


def _show(report: SegmentReport, config: SegmentConfig, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"masks of the main object in {config.out}", title_justify="left")
    table.add_column("")
    table.add_column("images", justify="right")
    table.add_column("%", justify="right")
    for text, count in (
        ("all", report.images),
        ("usable", report.usable),
        (f"fewer than {MIN_OBJECT_PX} sure pixels", report.too_small),
        (f"more than {100 * MAX_OBJECT_SHARE:.0f} % sure", report.nearly_whole),
    ):
        table.add_row(text, f"{count:,}", f"{100 * count / report.images:.1f}")
    console.print(table)
    rate = f" in {report.seconds:.0f} s, {report.made / report.seconds:.0f} images/s" if report.made else ""
    console.print(
        f"{report.made:,} masks made{rate}; the median usable mask covers {100 * report.median_share:.0f} % of its "
        f"picture. Look at {Path(config.out) / 'segment.png'}.",
        highlight=False,
        soft_wrap=True,
    )
