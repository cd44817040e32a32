from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.scanpath.scanpath import Scanpath, read_csv, write_scanpaths

HEADER = "image,subject,index,x,y,duration_ms\n"


def make(image: str = "coffee", subject: str = "saliency", count: int = 3) -> Scanpath:
    generator = torch.Generator().manual_seed(count)
    duration_ms = torch.rand(count, generator=generator) * 400
    return Scanpath(
        torch.rand(count, 2, generator=generator) * 600, torch.cumsum(duration_ms, 0), duration_ms, image, subject
    )


def test_a_file_reads_back_to_the_last_bit(tmp_path: Path) -> None:
    written = [make(count=5), make(subject="centre", count=1), make(image="a, “quoted” naïve\nname", count=2)]
    read = read_csv(write_scanpaths(tmp_path / "scanpaths.csv", written))
    assert [(p.image, p.subject) for p in read] == [(p.image, p.subject) for p in written]
    for one, other in zip(written, read, strict=True):
        assert torch.equal(one.fixation_px, other.fixation_px)
        assert torch.equal(one.onset_ms, other.onset_ms)
        assert torch.equal(one.duration_ms, other.duration_ms)
    assert [path.name for path in tmp_path.iterdir()] == ["scanpaths.csv"]


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
    with pytest.raises(InvalidValueError, match="missing columns x, y, duration_ms"):
        read_csv(tmp_path / "short.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InvalidValueError, match="got nothing"):
        read_csv(tmp_path / "empty.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InvalidValueError, match="not a CSV file"):
        read_csv(tmp_path / "picture.csv")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = write_scanpaths(tmp_path / "kept.csv", [make()])
    before = file.read_bytes()
    with pytest.raises(InvalidValueError, match="differ in image or subject"):
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
    half = path.rescale((600, 800), (300, 400))
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
