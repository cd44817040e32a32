from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.scanpath import COLUMNS, Scanpath, read_csv, write_scanpaths
from foveasim.types import Frame

HEADER = "image,subject,index,x,y,duration_ms\n"


def make(image: str = "coffee", subject: str = "saliency", count: int = 3) -> Scanpath:
    generator = torch.Generator().manual_seed(count)
    duration_ms = torch.rand(count, generator=generator) * 400
    return Scanpath(
        torch.rand(count, 2, generator=generator) * 600, torch.cumsum(duration_ms, 0), duration_ms, image, subject
    )


def test_a_file_reads_back_to_a_thousandth(tmp_path: Path) -> None:
    written = [
        replace(make(count=5), frame=Frame((720, 1280), 24.5)),
        replace(make(subject="centre", count=1), trial="2"),
        make(image="a, “quoted” naïve\nname", count=2),
        replace(make(count=2), frame=Frame((768, 1024))),
    ]
    read = read_csv(write_scanpaths(tmp_path / "scanpaths.csv", written))
    about = [[(p.image, p.subject, p.trial, p.frame) for p in paths] for paths in (written, read)]
    assert about[0] == about[1]
    for one, other in zip(written, read, strict=True):
        for name in ("fixation_px", "onset_ms", "duration_ms"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=6e-4, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["scanpaths.csv"]
    again = write_scanpaths(tmp_path / "again.csv", read).read_text()
    assert again == (tmp_path / "scanpaths.csv").read_text()


def test_numbers_are_written_as_people_write_them(tmp_path: Path) -> None:
    onset = torch.tensor([0.0, 0.1 + 0.2, 1_700_000_000_123.25], dtype=torch.float64)
    lasts = torch.tensor([299.99997, 200.0, 1e-5])
    path = Scanpath(
        [[800.00006, 0.125], [1 / 3, -1e-6], [10, 20]], onset, lasts, "1001", "1", "", Frame((600, 800), 24)
    )
    assert write_scanpaths(tmp_path / "path.csv", [path]).read_text().splitlines() == [
        ",".join(COLUMNS),
        "1001,1,,0,800,0.125,300,0,800,600,24",
        "1001,1,,1,0.333,0,200,0.3,800,600,24",
        "1001,1,,2,10,20,0,1700000000123.25,800,600,24",
    ]


@pytest.mark.parametrize("name", ["=1+1", "+a", "-b", "@c", "'=d", "''+e", "'quoted'", "plain"])
def test_a_name_is_no_formula_and_comes_back(tmp_path: Path, name: str) -> None:
    file = write_scanpaths(tmp_path / "names.csv", [make(image=name, subject=name)])
    with file.open(newline="") as rows:
        cells = list(csv.reader(rows))[1][:2]
    assert all(cell[0] not in "=+-@" for cell in cells)
    (read,) = read_csv(file)
    assert (read.image, read.subject) == (name, name)


def test_a_name_that_is_not_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    file = write_scanpaths(tmp_path / "names.csv", [make(image="caf\udce9.jpg")])
    assert read_csv(file)[0].image == r"caf\udce9.jpg"


def test_two_trials_of_one_person_on_one_image_stay_apart(tmp_path: Path) -> None:
    file = write_scanpaths(tmp_path / "two.csv", [make(), replace(make(count=2), trial="2")])
    assert [(path.subject, path.trial, len(path)) for path in read_csv(file)] == [
        ("saliency", "", 3),
        ("saliency", "2", 2),
    ]


def test_cells_are_stripped_and_the_frame_is_read(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text(
        "image, subject ,index,x_px,y_px,duration_ms,image_width_px,image_height_px,px_per_deg\n"
        "a.png, s1,0, 10 ,20,100,1024,768,\na.png,s1 ,1,30,40,100,1024,768,\nb.png,s1,0,3,4,50,,,\n"
    )
    one, other = read_csv(file)
    assert (one.subject, len(one), one.frame, other.frame) == ("s1", 2, Frame((768, 1024)), None)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    assert read_csv(file, frame=Frame((768, 1024), 30.0))[0].frame == Frame((768, 1024), 30.0)
    with pytest.raises(InvalidValueError, match=r"the one that the scanpath states.*rescale"):
        read_csv(file, frame=Frame((600, 800)))


def test_beyond_the_edges_is_told_and_left_out() -> None:
    points, times = torch.tensor([[-1, 5], [0, 0], [800, 600], [5, 600.5]]), torch.arange(4)
    path = Scanpath(points, times, times + 1, frame=Frame((600, 800)))
    assert path.outside().tolist() == [True, False, False, True]
    assert path.inside().onset_ms.tolist() == [1, 2]
    with pytest.raises(InvalidValueError, match="must have a frame"):
        replace(path, frame=None).outside()


def test_no_scanpath_writes_a_header_and_reads_as_none(tmp_path: Path) -> None:
    assert read_csv(write_scanpaths(tmp_path / "empty.csv", [])) == []


def test_without_onsets_fixations_follow_each_other(tmp_path: Path) -> None:
    file = tmp_path / "osie.csv"
    file.write_text(HEADER + "1001,1,0,398.2,162.8,239\n1001,1,1,386.3,117.7,142\n1001,2,0,1,2,0\n")
    first, second = read_csv(file)
    assert first.onset_ms.tolist() == [0, 239]
    assert first.duration_ms.tolist() == [239, 142]
    assert (second.subject, len(second)) == ("2", 1)


def test_extra_columns_order_and_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text(
        "\ufeffx,y,index,image,subject,duration_ms,pupil\n1,2,0,a,b,100,3.3\n\n4,5,1,a,b,50,\n", encoding="utf-8"
    )
    (path,) = read_csv(file)
    assert path.fixation_px.tolist() == [[1, 2], [4, 5]]


def test_two_runs_of_one_subject_split_where_the_index_restarts(tmp_path: Path) -> None:
    file = tmp_path / "twice.csv"
    file.write_text(HEADER + "a,b,0,1,1,1\na,b,1,1,1,1\na,b,0,2,2,2\n")
    assert [len(path) for path in read_csv(file)] == [2, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,b,0,1,nan,100\n", "row 2, column y: expected a finite number; got 'nan'"),
        ("a,b,0,1,2,3\na,b,1,left,2,100\n", "row 3, column x"),
        ("a,b,0,1,2,-3\n", "row 2, column duration_ms: expected 0 or more"),
        ("a,b,1,1,2,3\n", "row 2, column index: expected 0"),
        ("a,b,0,1,2,3\na,b,2,1,2,3\n", "row 3, column index: expected 1"),
        ("a,b,0,1,2,3\na,c,1,1,2,3\n", "row 3, column index: expected 0"),
        ("a,b,0,1e39,2,3\n", "row 2, column x: expected a finite number; got '1e39'"),
        ("a,b,0,1,1_0,3\n", "row 2, column y"),
        ("a,b,0,1,2,3\na\0,c,0,1,2,3\n", "row 3: holds a NUL"),
        ('a,b,0,1,2,3\n"a,c,0,1,2,3\n', "row 3 is not a row"),
        ("a,b,0,1,2\n", "row 2: 5 fields where the header has 6"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: str, message: str) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text(HEADER + rows)
    with pytest.raises(InvalidValueError, match=message):
        read_csv(file)


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"nowhere\.csv"):
        read_csv(tmp_path / "nowhere.csv")
    (tmp_path / "short.csv").write_text("image,subject,index\n")
    with pytest.raises(InvalidValueError, match="missing columns x_px, y_px, duration_ms"):
        read_csv(tmp_path / "short.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InvalidValueError, match="got nothing"):
        read_csv(tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes((HEADER + "a,b,0,1,2,3\ncafé,b,0,1,2,3\n").encode("latin-1"))
    with pytest.raises(InvalidValueError, match=r"latin\.csv row 3: byte 0xe9 is not UTF-8"):
        read_csv(tmp_path / "latin.csv")
    (tmp_path / "twice.csv").write_text("image,subject,index,x,y,x,duration_ms\na,b,0,1,2,3,4\n")
    with pytest.raises(InvalidValueError, match=r"twice\.csv row 1: two columns are named 'x'"):
        read_csv(tmp_path / "twice.csv")
    (tmp_path / "half.csv").write_text("image,subject,index,x,y,duration_ms,image_width_px\na,b,0,1,2,3,4\n")
    with pytest.raises(InvalidValueError, match="must come together"):
        read_csv(tmp_path / "half.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidValueError, match="not a CSV file"):
        read_csv(tmp_path / "picture.csv")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = write_scanpaths(tmp_path / "kept.csv", [make()])
    before = file.read_bytes()
    with pytest.raises(InvalidValueError, match="differ in image, subject or trial"):
        write_scanpaths(file, [make(), make()])
    assert file.read_bytes() == before
    with pytest.raises(InvalidValueError, match="does not exist"):
        write_scanpaths(tmp_path / "no" / "such.csv", [make()])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidValueError, match=r"cannot write .*folder\.csv"):
        write_scanpaths(tmp_path / "folder.csv", [make()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "kept.csv"]


def test_wrong_values_are_refused() -> None:
    one = torch.zeros(1)
    with pytest.raises(InvalidValueError, match="duration_ms must be \\(1,\\)"):
        Scanpath(torch.zeros(1, 2), one, torch.zeros(2))
    with pytest.raises(InvalidValueError, match="finite"):
        Scanpath(torch.tensor([[0.0, torch.nan]]), one, one)
    with pytest.raises(InvalidValueError, match="onset_ms must be finite"):
        Scanpath(torch.zeros(1, 2), torch.tensor([torch.inf]), one)
    with pytest.raises(InvalidValueError, match="0 or more"):
        Scanpath(torch.zeros(1, 2), one, -one - 1)
    with pytest.raises(InvalidValueError, match="fixation 1 begins before fixation 0"):
        Scanpath(torch.zeros(2, 2), torch.tensor([5.0, 4.0]), torch.zeros(2))
    with pytest.raises(InvalidTypeError, match="image must be text"):
        Scanpath(torch.zeros(1, 2), one, one, image=1001)  # type: ignore[arg-type]


def test_rescale_keeps_the_place_in_the_image() -> None:
    path = Scanpath(torch.tensor([[800.0, 300.0]]), torch.zeros(1), torch.ones(1), "1001", "1")
    with pytest.raises(InvalidValueError, match=r"with_frame"):
        path.rescale(Frame((300, 400)))
    path = path.with_frame(Frame((600, 800), 24.0))
    half = path.rescale(Frame((300, 400)))
    assert half.frame == Frame((300, 400), 12.0)
    assert half.fixation_px.tolist() == [[400, 150]]
    assert (half.image, half.subject) == ("1001", "1")


def test_three_images_of_osie_are_read(fixtures: Path) -> None:
    paths = read_csv(fixtures / "osie_fixations.csv")
    assert {path.image: path.subject for path in paths} == {"1009": "15", "1056": "15", "1086": "15"}
    assert len(paths) == 45
    assert sum(len(path) for path in paths) == 428
    assert paths[0].fixation_px[0].tolist() == pytest.approx([524.8, 312.7])
    assert (float(paths[0].onset_ms[1]), float(paths[0].duration_ms[0])) == (156, 156)


def test_osie_reads_as_its_readme_says(shared_data: Path) -> None:
    paths = read_csv(shared_data / "osie" / "fixations.csv")
    lengths = torch.tensor([len(path) for path in paths], dtype=torch.float32)
    assert len(paths) == 9600
    assert int(lengths.sum()) == 89867
    assert abs(float(lengths.mean()) - 9.36) < 0.01
