"""One function for every file of scanpaths: it recognises the format and calls its reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.scanpath.readers import MIT1003_PX_PER_DEG, read_mit1003, read_osie_mat
from foveasim.scanpath.scanpath import Scanpath, distinct_trials, read_csv
from foveasim.scanpath.text_table import read_text
from foveasim.scanpath.trackers.begaze import is_begaze, read_begaze
from foveasim.scanpath.trackers.bids import is_bids, read_bids
from foveasim.scanpath.trackers.columns import read_columns
from foveasim.scanpath.trackers.door import Look, admit, check_plausible, within
from foveasim.scanpath.trackers.eyelink import is_eyelink, read_eyelink
from foveasim.scanpath.trackers.gazepoint import is_gazepoint, read_gazepoint
from foveasim.scanpath.trackers.options import FORMATS, Options
from foveasim.scanpath.trackers.pupil import is_neon, is_pupil_core, read_neon, read_pupil_core
from foveasim.scanpath.trackers.tables import first_rows
from foveasim.scanpath.trackers.tobii import is_tobii, read_tobii
from foveasim.types import Frame

__all__ = ["read_scanpaths", "recognise"]


def recognise(path: Path, text: str) -> str:
    """Return the format of a file by what stands in it.

    Args:
        path: The file; of BIDS, whose tables have no header, the name counts.
        text: What it holds.

    Raises:
        InvalidValueError: None of the formats; the message says what was found and how to name the columns.
    """
    if is_bids(path):
        return "bids"
    if is_eyelink(text):
        return "eyelink"
    if is_begaze(text):
        return "begaze"
    headers = [cells for _, _, cells in first_rows(text)]
    for name, is_header in _HEADERS.items():
        if any(is_header(cells) for cells in headers):
            return name
    widest = max(headers, key=len, default=[])
    raise InvalidValueError(
        f"{path} is none of the files that are known: {', '.join(FORMATS)}. Its columns are "
        f"{', '.join(filter(None, widest)) or 'not to be seen'}. Name those that hold fixations: "
        "columns={'image': ..., 'subject': ..., 'x': ..., 'y': ..., 'onset': 'NAME [ms]', 'duration': 'NAME [ms]'}."
    )


def read_scanpaths(
    path: str | Path,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, object] | None = None,
    image: str | None = None,
    subject: str | None = None,
    trial: str | None = None,
    eye: Literal["left", "right"] | None = None,
    image_message: str | None = None,
    trial_message: str | None = None,
    fixations: Literal["file", "ivt", "idt"] | None = None,
    units: Literal["px", "fraction", "deg"] = "px",
    y_up: bool = False,
    deg_origin_px: tuple[float, float] | None = None,
    onset_unit: Literal["s", "ms", "us", "ns"] | None = None,
    duration_unit: Literal["s", "ms", "us", "ns"] | None = None,
    end_unit: Literal["s", "ms", "us", "ns"] | None = None,
    trial_ms: float | None = None,
    decimal: Literal[".", ","] = ".",
    delimiter: str | None = None,
    encoding: str | None = None,
    screen_px: tuple[int, int] | None = None,
    screen_width_cm: float | None = None,
    distance_cm: float | None = None,
    px_per_deg: float | None = None,
    origin_px: tuple[float, float] | Literal["centre"] | None = None,
    image_size: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    outside: Literal["keep", "drop", "error"] = "keep",
    plausible: bool = True,
    drop_first: bool = True,
) -> list[Scanpath]:
    r"""Read scanpaths from a file of any eye tracker, of foveasim, or of a data set, as it was written.

    The format is recognised by what stands in the file; a ``.mat`` file is OSIE's ``fixations.mat`` and a folder is
    MIT1003's ``DATA``, which need scipy. docs/metrics.md has a table of formats, with one line for each.
    An option that a format has no use for is refused.

    Convention:
        Sizes are (H, W), points (x, y) from the top-left corner, y down. Screens count in px of the screen: an image
        that is a part of it is said by ``image_size``, its size there, and ``origin_px``, where its corner is: with
        (560, 240) the middle of a 1920 x 1080 screen is (400, 300) of an image of 600 x 800. Degrees count from the
        middle of the screen, or of the image where nothing is said of a screen, or from ``deg_origin_px``: on 600 x 800
        with ``px_per_deg=24`` the point (1, -2) deg is (424, 252) px, and (424, 348) with ``y_up=True``.

    Args:
        path: The file, or MIT1003's folder. Of BIDS, the ``_physio`` or ``_physioevents`` file; the others are found
            beside it.
        format: A name out of ``foveasim``, ``eyelink``, ``tobii``, ``pupil_core``, ``neon``, ``gazepoint``, ``begaze``,
            ``bids``, ``osie``, ``mit1003`` and ``table``; None recognises it.
        columns: For any other table, which column holds what: ``x`` and ``y``, of the times ``duration``, ``onset`` and
            ``duration``, ``onset`` and ``end``, or ``onset`` with ``trial_ms``, and ``image``, ``subject``, ``trial``
            where there are such. A time's unit may stand behind its name, as in ``"start_timestamp[s]"``.
        where: Which rows of a table count: a value, or several, by column, as ``{"Eye movement type": "Fixation"}``.
        image: Name of the image where the file has none.
        subject: Name of the subject, likewise.
        trial: Name of the trial, likewise.
        eye: Which one, where both were recorded.
        image_message: Regular expression for the messages that name the image, in its one group.
        trial_message: Likewise for those with which a trial begins.
        fixations: "file": those of the file; "ivt" or "idt": found in the samples; None: the file's, and I-VT where it
            has only samples.
        units: Of x and y in ``columns``: "fraction" of the screen, or of the image where nothing is said of a screen.
        y_up: Whether y grows upwards in ``columns``.
        deg_origin_px: Where degrees count from, px.
        onset_unit: Of the column of onsets; None is ms, or what stands behind its name.
        duration_unit: Likewise.
        end_unit: Likewise.
        trial_ms: When a trial ends on the clock of ``onset``: a fixation lasts to the next one's onset.
        decimal: The decimal point.
        delimiter: Between cells; None for comma, tab or semicolon, whichever makes a header.
        encoding: Of the text; None for UTF-8, or UTF-16 with a byte order mark.
        screen_px: (H, W) of the screen, or of the scene camera, where the file does not say.
        screen_width_cm: Width of the screen; with ``distance_cm`` and its px it makes ``px_per_deg``.
        distance_cm: From eye to screen.
        px_per_deg: Pixels of a degree of visual angle.
        origin_px: (x, y) of the image's corner on the screen, or "centre".
        image_size: (H, W) of the image on the screen, or of each by its name.
        outside: What to do with fixations beyond the image: ``Scanpath.outside`` tells which they are.
        plausible: Whether to refuse what cannot be right: a fixation of over a minute, none over 5 ms, all of them
            within one pixel, most of them outside.
        drop_first: Of MIT1003, whether to leave out the first fixation of each trial, which rests where the fixation
            cross was.

    Returns:
        One scanpath for each trial. Trials that share image and subject and have no name of their own are numbered.
        The frame is the image's where it is known, else the screen's, else None.

    Raises:
        InvalidTypeError: An option of another type.
        InvalidValueError: No such file, an unknown format, a missing or contradictory option, or a wrong row; the
            message names the row or says what to give.
        FoveasimError: scipy is not installed, and the file is Matlab's.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "export.csv"
        >>> _ = file.write_text("TRIAL;USER;X;Y;LEN\nbeach;ann;400;300;0.2\n")
        >>> names = {"image": "TRIAL", "subject": "USER", "x": "X", "y": "Y", "duration": "LEN [s]"}
        >>> read_scanpaths(file, columns=names)[0].duration_ms.tolist()
        [200.0]
    """
    path = Path(path)
    options = Options(
        columns, where, image, subject, trial, eye, image_message, trial_message, fixations, units, y_up, deg_origin_px,
        onset_unit, duration_unit, end_unit, trial_ms, decimal, delimiter, encoding, screen_px, screen_width_cm,
        distance_cm, px_per_deg, origin_px, image_size, outside, plausible, drop_first,
    )  # fmt: skip
    if format is not None:
        validation.choice("format", format, FORMATS)
    elif columns is not None:
        format = "table"
    elif path.is_dir() or path.suffix.lower() == ".mat":
        format = "mit1003" if path.is_dir() else "osie"
    if format in ("osie", "mit1003"):
        return _of_matlab(path, format, options)
    _refuse_binary(path)
    text = "" if is_bids(path) else read_text(path, encoding)
    name = format or recognise(path, text)
    options.check_for(path, name)
    if name == "foveasim":
        own = _own(path, options)
        if plausible and not {"image_width_px", "px_per_deg"} & set(text.partition("\n")[0].split(",")):
            check_plausible(path, own)  # somebody else's, or an old one: what foveasim writes states its frame
        return distinct_trials(within(path, own, options))
    looks = read_bids(path, options) if name == "bids" else _READERS[name](path, text, options)
    return admit(path, name, looks, options)


def _refuse_binary(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InvalidValueError(f"cannot read scanpaths from {path}: {error.strerror}.") from error
    if head.startswith(b"SR_RESEARCH"):
        raise InvalidValueError(
            f"{path} is EyeLink's binary EDF; convert it by SR Research's edf2asc and give the .asc."
        )
    if head.startswith((b"MATLAB", b"\x89HDF")):
        raise InvalidValueError(f"{path} is a Matlab or HDF5 file, not a table of text; export it as CSV.")


def _of_matlab(path: Path, format: str, options: Options) -> list[Scanpath]:
    options.check_for(path, format)
    if format == "osie":
        return within(path, read_osie_mat(path), options)
    found = read_mit1003(path, drop_first=options.drop_first)
    if options.image_size is not None:
        found = _framed(path, found, options.image_size, MIT1003_PX_PER_DEG)
    return within(path, found, options)


def _framed(
    path: Path,
    found: Sequence[Scanpath],
    size: tuple[int, int] | Mapping[str, tuple[int, int]],
    px_per_deg: float | None,
) -> list[Scanpath]:
    """Say the size of the images, one for all or each by its name."""
    if not isinstance(size, Mapping):
        return [one.with_frame(Frame(size, px_per_deg)) for one in found]
    absent = sorted({one.image for one in found} - set(size))
    if absent:
        raise InvalidValueError(f"image_size must hold every image of {path}; got none for {absent[0]!r}. Add it.")
    return [one.with_frame(Frame(size[one.image], px_per_deg)) for one in found]


def _own(path: Path, options: Options) -> list[Scanpath]:
    found = read_csv(path)
    if options.image_size is not None:
        return _framed(path, found, options.image_size, options.px_per_deg)
    if options.px_per_deg is not None:
        if any(one.frame is None for one in found):
            raise InvalidValueError(f"px_per_deg needs the size of the images, too: give image_size=(H, W) for {path}.")
        return [one.with_frame(Frame(one.frame.size, options.px_per_deg)) for one in found if one.frame is not None]
    return found


def _is_own(cells: Sequence[str]) -> bool:
    return {"image", "subject", "index", "duration_ms"} <= set(cells)


_HEADERS: dict[str, Callable[[list[str]], bool]] = {
    "foveasim": _is_own,
    "gazepoint": is_gazepoint,
    "pupil_core": is_pupil_core,
    "neon": is_neon,
    "tobii": is_tobii,
}
_READERS: dict[str, Callable[[Path, str, Options], list[Look]]] = {
    "eyelink": read_eyelink,
    "tobii": read_tobii,
    "pupil_core": read_pupil_core,
    "neon": read_neon,
    "gazepoint": read_gazepoint,
    "begaze": read_begaze,
    "table": read_columns,
}
