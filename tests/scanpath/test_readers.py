from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.scanpath.readers import ReadOptions, read_mit1003, read_osie_mat, read_scanpaths, read_tracker_csv
from foveasim.scanpath.scanpath import COLUMNS, read_csv

TABLE = (
    "image,subject,x,y,t,len,t2\nbeach,ann,10,20,100,200,300\nbeach,ann,30,40,340,160,500\nbeach,bob,5,6,90,50,140\n"
)


def table(folder: Path, text: str = TABLE) -> Path:
    file = folder / "export.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_durations_alone_follow_each_other(tmp_path: Path) -> None:
    ann, bob = read_tracker_csv(table(tmp_path), duration="len")
    assert (ann.image, ann.subject, bob.subject) == ("beach", "ann", "bob")
    assert ann.fixation_px.tolist() == [[10, 20], [30, 40]]
    assert ann.onset_ms.tolist() == [0, 200]
    assert ann.duration_ms.tolist() == [200, 160]
    assert bob.onset_ms.tolist() == [0]


@pytest.mark.parametrize("times", [{"duration": "len"}, {"end": "t2"}])
def test_onsets_are_taken_as_they_are(tmp_path: Path, times: dict[str, Any]) -> None:
    ann, bob = read_tracker_csv(table(tmp_path), onset="t", **times)
    assert ann.onset_ms.tolist() == [100, 340]
    assert ann.duration_ms.tolist() == [200, 160]
    assert bob.onset_ms.tolist() == [90]


def test_onsets_alone_last_to_the_next_and_to_the_end_of_the_trial(tmp_path: Path) -> None:
    ann, bob = read_tracker_csv(table(tmp_path), onset="t", trial_ms=3000)
    assert ann.duration_ms.tolist() == [240, 2660]
    assert bob.duration_ms.tolist() == [2910]
    with pytest.raises(InvalidValueError, match="row 3, column t: begins after the trial's 300 ms"):
        read_tracker_csv(table(tmp_path), onset="t", trial_ms=300)


def test_seconds_semicolons_and_names_of_ones_own(tmp_path: Path) -> None:
    file = table(tmp_path, "\ufeffTRIAL;WHO;FPOGX;FPOGY;FPOGD\n1;ann;10;20;0.2\n1;ann;30;40;0.16\n")
    (path,) = read_tracker_csv(
        file, image="TRIAL", subject="WHO", x="FPOGX", y="FPOGY", duration="FPOGD", seconds=True, delimiter=";"
    )
    assert path.duration_ms.tolist() == [200, 160]
    assert path.onset_ms.tolist() == [0, 200]


def test_degrees_and_places_on_the_screen_become_px_of_the_image(tmp_path: Path) -> None:
    file = table(tmp_path, "image,subject,x,y,len\na,b,1,-2,100\n")
    options: dict[str, Any] = {"units": "deg", "origin_px": (400, 300), "px_per_deg": 24}
    assert read_tracker_csv(file, duration="len", **options)[0].fixation_px.tolist() == [[424, 252]]
    assert read_tracker_csv(file, duration="len", y_up=True, **options)[0].fixation_px.tolist() == [[424, 348]]
    file = table(tmp_path, "image,subject,x,y,len\na,b,960,540,100\n")
    (path,) = read_tracker_csv(file, duration="len", origin_px=(560, 240))
    assert path.fixation_px.tolist() == [[400, 300]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("beach,ann,left,20,9,9,9", r"row 5, column x: expected a finite number; got 'left'"),
        ("beach,ann,1,nan,9,9,9", "row 5, column y: expected a finite number; got 'nan'"),
        ("beach,ann,1,,9,9,9", "row 5, column y: expected a finite number; got ''"),
        ("beach,ann,1,2,9,-9,9", "row 5, column len: expected 0 or more; got '-9'"),
        ("beach,bob,1,2,9,9,9", "row 5, column t: begins before the fixation in the row above"),
        ("beach,ann,1,2,9", "row 5: 5 fields where the header has 7"),
    ],
)
def test_a_wrong_row_is_named_with_its_column(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        read_tracker_csv(table(tmp_path, TABLE + row + "\n"), onset="t", duration="len")


def test_an_end_before_its_beginning_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="row 5, column t2: ends before it begins"):
        read_tracker_csv(table(tmp_path, TABLE + "beach,cy,1,2,9,9,8\n"), onset="t", end="t2")


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"no column 'FPOGX', 'TIME'; the columns are image, subject, x, y"):
        read_tracker_csv(table(tmp_path), x="FPOGX", duration="TIME")
    with pytest.raises(InvalidValueError, match=r"nowhere\.csv"):
        read_tracker_csv(tmp_path / "nowhere.csv", duration="len")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got none"),
        ({"onset": "t"}, "Onsets alone do not tell"),
        ({"duration": "len", "end": "t2"}, "got duration and end"),
        ({"duration": "len", "trial_ms": 3000.0}, "got duration and trial_ms"),
        ({"duration": "len", "units": "deg"}, "needs origin_px"),
        ({"duration": "len", "units": "cm"}, "'px' or 'deg'"),
        ({"duration": "len", "px_per_deg": 24.0}, "for units='deg'"),
        ({"duration": "len", "units": "deg", "origin_px": (1.0, 1.0), "px_per_deg": 0.0}, "px_per_deg"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        read_tracker_csv(table(tmp_path), **options)
    with pytest.raises(InvalidTypeError, match="origin_px"):
        read_tracker_csv(table(tmp_path), duration="len", origin_px=[1, 2])  # type: ignore[arg-type]


def savemat(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    io = pytest.importorskip("scipy.io", reason="needs scipy: foveasim[matlab]")
    io.savemat(file, content)
    return file


def cell(items: list[Any]) -> np.ndarray[tuple[int, ...], np.dtype[np.object_]]:
    """A Matlab cell array, (N, 1)."""
    found = np.empty((len(items), 1), dtype=object)
    for i, item in enumerate(items):
        found[i, 0] = item
    return found


def stimulus(name: str, *subjects: tuple[list[float], list[float], list[float]]) -> dict[str, Any]:
    people = [{"fix_x": [x], "fix_y": [y], "fix_duration": [lasts]} for x, y, lasts in subjects]
    return {"img": name, "subjects": cell(people)}


def test_osie_as_its_authors_store_it(tmp_path: Path) -> None:
    content = cell(
        [
            stimulus("1001.jpg", ([10.5, 20.0], [30.0, 40.0], [239.0, 142.0]), ([7.0], [8.0], [99.0])),
            stimulus("1002.jpg", ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [1.0, 2.0, 3.0])),
        ]
    )
    paths = read_osie_mat(savemat(tmp_path / "fixations.mat", {"fixations": content}))
    assert [(path.image, path.subject, len(path)) for path in paths] == [
        ("1001", "1", 2),
        ("1001", "2", 1),
        ("1002", "1", 3),
    ]
    assert paths[0].fixation_px.tolist() == [[10.5, 30], [20, 40]]
    assert paths[0].onset_ms.tolist() == [0, 239]
    assert paths[0].duration_ms.tolist() == [239, 142]


def test_other_matlab_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="the file has no field 'fixations'"):
        read_osie_mat(savemat(tmp_path / "other.mat", {"allFixations": 1.0}))
    uneven = cell([stimulus("1.jpg", ([1.0, 2.0], [1.0], [1.0]))])
    with pytest.raises(InvalidValueError, match=r"fixations\{1\}.subjects\{1\} has .* different lengths"):
        read_osie_mat(savemat(tmp_path / "uneven.mat", {"fixations": uneven}))
    (tmp_path / "not.mat").write_bytes(b"\x89PNG" * 99)
    with pytest.raises(InvalidValueError, match="is not a Matlab file"):
        read_osie_mat(tmp_path / "not.mat")
    with pytest.raises(InvalidValueError, match=r"cannot read scanpaths from .*gone\.mat"):
        read_osie_mat(tmp_path / "gone.mat")


def test_without_scipy_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(FoveasimError, match="pip install scipy"):
        read_osie_mat(tmp_path / "fixations.mat")


def test_mit1003_is_raw_gaze(tmp_path: Path) -> None:
    rest = [np.full((60, 2), place) for place in ((300.0, 200.0), (100.0, 50.0), (500.0, 350.0))]
    samples = np.concatenate(rest)
    samples[90:94] = -1  # a blink of 17 ms, which is bridged
    name = "i05june05_static_street_boston_p1010764"
    savemat(tmp_path / "hp" / f"{name}.mat", {name[:31]: {"DATA": {"eyeData": samples}}})
    (path,) = read_mit1003(tmp_path)
    assert (path.image, path.subject) == (name, "hp")
    assert path.fixation_px.tolist() == [[100, 50], [500, 350]]
    assert all(abs(lasts - 250) < 20 for lasts in path.duration_ms.tolist())
    assert len(read_mit1003(tmp_path, drop_first=False)[0]) == 3
    with pytest.raises(InvalidValueError, match="Give the folder DATA"):
        read_mit1003(tmp_path / "hp")
    savemat(tmp_path / "kae" / "x.mat", {"x": {"other": 1.0}})
    with pytest.raises(InvalidValueError, match="not laid out as MIT1003"):
        read_mit1003(tmp_path)


def same(found: list[Any], expected: list[Any]) -> bool:
    """Whether two readers found the same scanpaths."""
    parts = ("fixation_px", "onset_ms", "duration_ms")
    return len(found) == len(expected) > 0 and all(
        (a.image, a.subject) == (b.image, b.subject)
        and all(getattr(a, part).tolist() == getattr(b, part).tolist() for part in parts)
        for a, b in zip(found, expected, strict=True)
    )


def test_one_reader_takes_every_file(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(f"{','.join(COLUMNS)}\nbeach,ann,0,10,20,200\nbeach,ann,1,30,40,100\n")
    assert same(read_scanpaths(own), read_csv(own)) and same(read_scanpaths(str(own)), read_csv(own))
    export = table(tmp_path)
    options: ReadOptions = {"onset": "t", "end": "t2", "origin_px": (1.0, 2.0)}
    assert same(read_scanpaths(export, **options), read_tracker_csv(export, onset="t", end="t2", origin_px=(1.0, 2.0)))


def test_one_reader_takes_matlab_files_and_folders(tmp_path: Path) -> None:
    content = cell([stimulus("1001.jpg", ([10.5, 20.0], [30.0, 40.0], [239.0, 142.0]))])
    osie = savemat(tmp_path / "osie" / "fixations.mat", {"fixations": content})
    assert same(read_scanpaths(osie), read_osie_mat(osie))
    savemat(tmp_path / "DATA" / "hp" / "i.mat", {"i": {"DATA": {"eyeData": np.full((60, 2), 300.0)}}})
    folder = tmp_path / "DATA"
    assert same(read_scanpaths(folder, drop_first=False), read_mit1003(folder, drop_first=False))
    assert [len(path) for path in read_scanpaths(folder)] == [0]


def test_the_options_of_the_one_reader_are_those_of_the_others() -> None:
    others = [*inspect.signature(read_tracker_csv).parameters, *inspect.signature(read_mit1003).parameters]
    assert {*ReadOptions.__annotations__} == {*others} - {"path", "folder"}


def test_options_of_another_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTypeError, match=r"no option 'colour'. It takes image, subject, x, y, onset"):
        read_scanpaths(table(tmp_path), colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidValueError, match=r"drop_first must not be given for .*which is read as a table"):
        read_scanpaths(table(tmp_path), drop_first=True)
    with pytest.raises(InvalidValueError, match=r"which is read as MIT1003.s folder\. Leave it out"):
        read_scanpaths(tmp_path, x="FPOGX")
    with pytest.raises(InvalidValueError, match=r"x must not be given for .*OSIE's fixations.mat"):
        read_scanpaths(tmp_path / "fixations.mat", x="FPOGX")
    with pytest.raises(InvalidValueError, match=r"missing columns.*say which holds what: read_scanpaths\(path, image="):
        read_scanpaths(table(tmp_path))
    with pytest.raises(InvalidValueError, match=r"cannot read scanpaths from .*gone\.csv"):
        read_scanpaths(tmp_path / "gone.csv")
