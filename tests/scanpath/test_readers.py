from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveasim import read_scanpaths
from foveasim.errors import FoveasimError, InvalidValueError
from foveasim.scanpath.readers import read_mit1003, read_osie_mat
from foveasim.types import Frame


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
    assert {path.frame for path in paths} == {Frame((600, 800), 24.0)}


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


def test_one_reader_takes_matlab_files_and_folders(tmp_path: Path) -> None:
    content = cell([stimulus("1001.jpg", ([10.5, 820.0], [30.0, 40.0], [239.0, 142.0]))])
    osie = savemat(tmp_path / "osie" / "fixations.mat", {"fixations": content})
    assert same(read_scanpaths(osie), read_osie_mat(osie)) and same(read_scanpaths(osie, "osie"), read_osie_mat(osie))
    (inside,) = read_scanpaths(str(osie), outside="drop")
    assert (inside.fixation_px.tolist(), inside.frame) == ([[10.5, 30]], Frame((600, 800), 24.0))
    savemat(tmp_path / "DATA" / "hp" / "i.mat", {"i": {"DATA": {"eyeData": np.full((60, 2), 300.0)}}})
    folder = tmp_path / "DATA"
    assert same(read_scanpaths(folder, drop_first=False), read_mit1003(folder, drop_first=False))
    assert [len(path) for path in read_scanpaths(folder)] == [0]
    for size in ((768, 1024), {"i": (768, 1024)}):
        assert [path.frame for path in read_scanpaths(folder, image_size=size)] == [Frame((768, 1024), 35.0)]


def test_options_of_another_file_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("image,subject,index,x,y,duration_ms\nbeach,ann,0,10,20,200\n")
    with pytest.raises(InvalidValueError, match=r"as foveasim, which has no use for drop_first; it .*columns="):
        read_scanpaths(table, drop_first=False)
    with pytest.raises(InvalidValueError, match=r"mit1003.*for eye; it takes drop_first, image_size, outside\. "):
        read_scanpaths(tmp_path, eye="left")
    with pytest.raises(InvalidValueError, match=r"osie.*no use for subject; it takes outside\. Remove it\.$"):
        read_scanpaths(tmp_path / "fixations.mat", subject="ann")
    with pytest.raises(InvalidValueError, match=r"cannot read scanpaths from .*gone\.csv"):
        read_scanpaths(tmp_path / "gone.csv")
    with pytest.raises(InvalidValueError, match=r"cannot read scanpaths from .*gone\.mat"):
        read_scanpaths(tmp_path / "gone.mat")
