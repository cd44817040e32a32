"""Any table by named columns, what is refused at the door, and the way to pysaliency and pymovements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveasim import read_scanpaths
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.scanpath.interchange import from_pymovements, from_pysaliency, to_pymovements, to_pysaliency
from foveasim.scanpath.scanpath import Scanpath
from foveasim.types import Frame

TABLE = (
    "image,subject,x,y,t,len,t2\nbeach,ann,10,20,100,200,300\nbeach,ann,30,40,340,160,500\nbeach,bob,5,6,90,50,140\n"
)
NAMES = {"image": "image", "subject": "subject", "x": "x", "y": "y"}


def table(folder: Path, text: str = TABLE, encoding: str = "utf-8") -> Path:
    file = folder / "export.csv"
    file.write_bytes(text.encode(encoding))
    return file


def read(file: Path, **options: Any) -> list[Scanpath]:
    columns = NAMES | options.pop("columns", {})
    return read_scanpaths(file, columns=columns, **options)


def test_durations_alone_follow_each_other(tmp_path: Path) -> None:
    ann, bob = read(table(tmp_path), columns={"duration": "len"})
    assert (ann.image, ann.subject, bob.subject) == ("beach", "ann", "bob")
    assert ann.fixation_px.tolist() == [[10, 20], [30, 40]]
    assert ann.onset_ms.tolist() == [0, 200]
    assert ann.duration_ms.tolist() == [200, 160]
    assert bob.onset_ms.tolist() == [0]


@pytest.mark.parametrize("times", [{"duration": "len"}, {"end": "t2"}])
def test_onsets_are_taken_as_they_are(tmp_path: Path, times: dict[str, str]) -> None:
    ann, bob = read(table(tmp_path), columns={"onset": "t", **times})
    assert ann.onset_ms.tolist() == [100, 340]
    assert ann.duration_ms.tolist() == [200, 160]
    assert bob.onset_ms.tolist() == [90]


def test_onsets_alone_last_to_the_next_and_to_the_end_of_the_trial(tmp_path: Path) -> None:
    ann, bob = read(table(tmp_path), columns={"onset": "t"}, trial_ms=3000)
    assert ann.duration_ms.tolist() == [240, 2660]
    assert bob.duration_ms.tolist() == [2910]
    with pytest.raises(InvalidValueError, match="row 3: begins after the trial's 300 ms"):
        read(table(tmp_path), columns={"onset": "t"}, trial_ms=300)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"onset": "start [s]", "duration": "len"}, {}),
        ({"onset": "start[s]", "duration": "len[ms]"}, {}),
        ({"onset": "start [s]", "duration": "len"}, {"onset_unit": "s", "duration_unit": "ms"}),
    ],
)
def test_each_time_has_its_own_unit(tmp_path: Path, columns: dict[str, str], options: dict[str, Any]) -> None:
    name = "start [s]" if columns["onset"] == "start [s]" else "start"
    text = f"image,subject,x,y,{name},len\na,b,10,20,1700000000.123,250\na,b,30,40,1700000000.403,180\n"
    (path,) = read(table(tmp_path, text), columns=columns, **options)
    assert (path.onset_ms - 1_700_000_000_123.0).tolist() == [0, 280]
    assert path.duration_ms.tolist() == [250, 180]


def test_a_mark_semicolons_decimal_commas_and_a_preamble(tmp_path: Path) -> None:
    text = "\ufeffDevice;X3\n\nTRIAL;WHO;GX;GY;LEN;T\n1; ann ;10,5;20;0,2;0\n1;ann;30;40;0,16;0,3\n"
    columns = {"image": "TRIAL", "subject": "WHO", "x": "GX", "y": "GY", "duration": "LEN[s]", "onset": "T[s]"}
    for encoding in ("utf-8", "utf-16"):
        (path,) = read(table(tmp_path, text, encoding), columns=columns, decimal=",")
        assert path.subject == "ann"
        assert path.fixation_px.tolist() == [[10.5, 20], [30, 40]]
        assert path.duration_ms.tolist() == [200, 160]
        assert path.onset_ms.tolist() == [0, 300]
    with pytest.raises(InvalidValueError, match=r"row 4, column GX: .*got '10,5'.*give decimal=','"):
        read(table(tmp_path, text), columns=columns)


def test_latin_letters_are_read_once_their_encoding_is_said(tmp_path: Path) -> None:
    file = table(tmp_path, TABLE.replace("bob", "zoé"), "latin-1")
    with pytest.raises(InvalidValueError, match="row 4: byte 0xe9 is not UTF-8"):
        read(file, columns={"duration": "len"})
    assert read(file, columns={"duration": "len"}, encoding="latin-1")[1].subject == "zoé"


def test_rows_are_filtered(tmp_path: Path) -> None:
    text = "kind,image,subject,x,y,len\nFixation,a,b,1,2,200\nSaccade,a,b,,,30\nFixation,a,b,50,60,210\nBlink,a,b,,,9\n"
    (path,) = read(table(tmp_path, text), columns={"duration": "len"}, where={"kind": "Fixation"})
    assert path.fixation_px.tolist() == [[1, 2], [50, 60]]
    assert len(read(table(tmp_path, text), columns={"duration": "len"}, where={"kind": ["Fixation"], "x": 50})[0]) == 1
    with pytest.raises(InvalidValueError, match=r"no row of .* has fixation in column 'kind'.*'Blink', 'Fixation'"):
        read(table(tmp_path, text), columns={"duration": "len"}, where={"kind": "fixation"})
    with pytest.raises(InvalidValueError, match=r"where must name columns.*'sort'"):
        read(table(tmp_path, text), columns={"duration": "len"}, where={"sort": 1})


def test_degrees_fractions_and_places_on_the_screen_become_px_of_the_image(tmp_path: Path) -> None:
    file = table(tmp_path, "image,subject,x,y,len\na,b,1,-2,100\n")
    degrees: dict[str, Any] = {"units": "deg", "px_per_deg": 24, "columns": {"duration": "len"}}
    for size in ({"image_size": (600, 800)}, {"screen_px": (600, 800)}, {"deg_origin_px": (400, 300)}):
        assert read(file, **degrees, **size)[0].fixation_px.tolist() == [[424, 252]]
    (path,) = read(file, **degrees, image_size=(600, 800), y_up=True)
    assert path.fixation_px.tolist() == [[424, 348]]
    assert path.frame == Frame((600, 800), 24.0)
    file = table(tmp_path, "image,subject,x,y,len\na,b,0.25,0.5,100\n")
    for up, y in ((False, 0.5), (True, 0.5)):
        (path,) = read(file, units="fraction", image_size=(600, 800), columns={"duration": "len"}, y_up=up)
        assert path.fixation_px.tolist() == [[200, 600 * y]]
    (path,) = read(
        file,
        columns={"duration": "len"},
        units="fraction",
        screen_px=(1000, 2000),
        image_size=(600, 800),
        origin_px=(300, 200),
    )
    assert path.fixation_px.tolist() == [[200, 300]]
    file = table(tmp_path, "image,subject,x,y,len\na,b,960,540,100\n")
    for place in ((560, 240), "centre"):
        (path,) = read(
            file, columns={"duration": "len"}, screen_px=(1080, 1920), image_size=(600, 800), origin_px=place
        )
        assert path.fixation_px.tolist() == [[400, 300]]
        assert path.frame == Frame((600, 800))
    (path,) = read(file, columns={"duration": "len"}, screen_px=(1080, 1920), y_up=True)
    assert path.fixation_px.tolist() == [[960, 540]]


def test_a_degree_is_worked_out_of_screen_and_distance(tmp_path: Path) -> None:
    file = table(tmp_path, "image,subject,x,y,len\na,b,960,540,100\n")
    options: dict[str, Any] = {"columns": {"duration": "len"}, "screen_width_cm": 50, "distance_cm": 60}
    (path,) = read(file, screen_px=(1080, 1920), **options)
    assert path.frame is not None
    assert path.frame.px_per_deg == pytest.approx(1920 / 50 * 1.04723, rel=1e-4)  # 2 x 60 x tan(0.5 deg) cm
    with pytest.raises(InvalidValueError, match=r"give screen_px=\(H, W\)"):
        read(file, **options)
    with pytest.raises(InvalidValueError, match="got both"):
        read(file, screen_px=(1080, 1920), px_per_deg=30, **options)
    with pytest.raises(InvalidValueError, match="must come together"):
        read(file, columns={"duration": "len"}, distance_cm=60)


def test_trials_stay_apart_by_name_or_by_number(tmp_path: Path) -> None:
    text = "image,subject,x,y,t,len,no\na,s,1,2,0,200,1\na,s,30,40,250,200,1\na,s,5,6,0,210,2\nb,s,7,8,0,220,1\n"
    columns = {"onset": "t", "duration": "len"}
    with pytest.raises(InvalidValueError, match=r"row 4: its onset lies before .*columns=\{'trial': ...\}"):
        read(table(tmp_path, text), columns=columns)
    found = read(table(tmp_path, text), columns=columns | {"trial": "no"})
    assert [(path.image, path.trial, len(path)) for path in found] == [("a", "1", 2), ("a", "2", 1), ("b", "1", 1)]
    again = table(tmp_path, "image,subject,x,y,len\na,s,1,2,200\nb,s,3,4,210\na,s,50,60,220\n")
    assert [(path.image, path.trial) for path in read(again, columns={"duration": "len"})] == [
        ("a", ""),
        ("b", ""),
        ("a", "2"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("beach,ann,left,20,9,9,9", r"row 5, column x: expected a finite number; got 'left'"),
        ("beach,ann,1,nan,9,9,9", "row 5, column y: expected a finite number; got 'nan'"),
        ("beach,ann,1,,9,9,9", "row 5, column y: expected a finite number; got ''"),
        ("beach,ann,1e39,2,9,9,9", "row 5, column x: expected a finite number; got '1e39'"),
        ("beach,ann,1,2,9,-9,9", "row 5, column len: expected 0 or more; got '-9'"),
        ("beach,bob,1,2,9,9,9", "row 5: its onset lies before that of the row above"),
        ("beach,ann,1,2,9,9,9,9", "row 5: 8 fields where the header has 7"),
        ("bea\0ch,ann,1,2,9,9,9", "row 5: holds a NUL"),
    ],
)
def test_a_wrong_row_is_named_with_its_column(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        read(table(tmp_path, TABLE + row + "\n"), columns={"onset": "t", "duration": "len"})


def test_an_end_before_its_beginning_and_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="row 5: ends before it begins"):
        read(table(tmp_path, TABLE + "beach,cy,1,2,9,9,8\n"), columns={"onset": "t", "end": "t2"})
    with pytest.raises(InvalidValueError, match=r"export\.csv row 1: two columns are named 't'"):
        read(table(tmp_path, TABLE.replace("t2", "t")), columns={"onset": "t", "duration": "len"})
    with pytest.raises(InvalidValueError, match=r"no column 'FPOGX'; the columns are image, subject, x, y"):
        read(table(tmp_path), columns={"x": "FPOGX", "duration": "len"})


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "got none"),
        ({"onset": "t"}, {}, "Onsets alone do not tell"),
        ({"duration": "len", "end": "t2"}, {}, "got duration and end"),
        ({"duration": "len"}, {"trial_ms": 3000.0}, "got duration and trial_ms"),
        ({"duration": "len"}, {"units": "deg"}, "holds degrees from its middle: give screen_px"),
        ({"duration": "len"}, {"units": "deg", "image_size": (6, 8)}, "holds degrees: give px_per_deg="),
        ({"duration": "len"}, {"units": "cm"}, "units must be one of px, fraction, deg"),
        ({"duration": "len"}, {"units": "fraction"}, r"fractions of the screen: give screen_px=\(H, W\)"),
        ({"duration": "len"}, {"origin_px": (5, 5)}, r"give image_size=\(H, W\)"),
        ({"duration": "len"}, {"origin_px": "centre", "image_size": (60, 80)}, "needs the screen's size"),
        ({"duration": "len"}, {"screen_px": (60, 80), "image_size": (50, 50)}, "say where: origin_px='centre'"),
        ({"duration": "len"}, {"image_size": {"town": (60, 80)}}, "got none for 'beach'"),
        ({"duration": "len"}, {"outside": "drop"}, "needs the size of the image"),
        ({"duration": "len"}, {"eye": "left"}, "has no use for eye"),
        ({"duration": "len"}, {"px_per_deg": 0.0}, "px_per_deg"),
        ({"duration": "len", "pupil": "len"}, {}, "got pupil"),
        ({"duration": "len"}, {"delimiter": "--"}, "one character"),
        ({"duration": "len"}, {"encoding": "latin-99"}, "encoding must be one that Python knows"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, columns: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        read(table(tmp_path), columns=columns, **options)


def test_settings_of_another_type_are_refused(tmp_path: Path) -> None:
    for wrong in ({"origin_px": "left"}, {"origin_px": 3}, {"image": 7}, {"screen_px": 5}, {"columns": {"x": 3}}):
        with pytest.raises(InvalidTypeError):
            read(table(tmp_path), **{"columns": {"duration": "len"}, **wrong})


# Plausibility


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            ["1,2,250", "90,80,180"],
            {"duration_unit": "s"},
            r"a fixation lasts 250 s; .*duration_unit='ms', 'us' or 'ns'",
        ),
        (["1,2,0.25", "90,80,0.18"], {}, r"no fixation lasts longer than 0.25 ms; .*duration_unit='s'"),
        (["0.1,0.2,200", "0.9,0.7,200", "0.5,0.5,200"], {}, r"within one pixel .*units='fraction'"),
        (["900,20,200"] * 3 + ["10,20,200"], {"image_size": (600, 800)}, r"3 of 4 fixations lie outside .*origin_px"),
    ],
)
def test_what_cannot_be_right_is_refused(
    tmp_path: Path, rows: list[str], options: dict[str, Any], message: str
) -> None:
    file = table(tmp_path, "\n".join(["image,subject,x,y,len", *(f"a,b,{row}" for row in rows)]))
    with pytest.raises(InvalidValueError, match=message):
        read(file, columns={"duration": "len"}, **options)
    assert len(read(file, columns={"duration": "len"}, plausible=False, **options)[0]) == len(rows)


# Interchange


def paths() -> list[Scanpath]:
    def make(image: str, subject: str, trial: str, count: int) -> Scanpath:
        onset = torch.arange(count, dtype=torch.float64) * 300
        return Scanpath(
            torch.rand(count, 2) * 500, onset, onset / 10 + 200, image, subject, trial, Frame((600, 800), 24)
        )

    return [make("b.jpg", "ann", "", 3), make("a.jpg", "bob", "", 5), make("a.jpg", "ann", "", 1)]


def same(one: Scanpath, other: Scanpath) -> bool:
    pairs = ((one.fixation_px, other.fixation_px), (one.onset_ms, other.onset_ms), (one.duration_ms, other.duration_ms))
    return one.frame == other.frame and all(torch.allclose(a, b) for a, b in pairs)


def test_pysaliency_and_back() -> None:
    written, images = paths(), ["a.jpg", "b.jpg"]
    arguments = to_pysaliency(written, images)
    assert arguments["train_xs"].shape == arguments["train_ts"].shape == (3, 5)
    assert arguments["train_ns"].tolist() == [1, 0, 0]
    assert arguments["train_subjects"].tolist() == [0, 1, 0]
    assert arguments["train_ts"][1].tolist() == pytest.approx([0, 0.3, 0.6, 0.9, 1.2])
    assert np.isnan(arguments["train_xs"][0, 3:]).all()
    back = from_pysaliency(SimpleNamespace(**arguments), images, [(600, 800), (600, 800)], 24)
    assert [(path.image, path.subject) for path in back] == [("b.jpg", "0"), ("a.jpg", "1"), ("a.jpg", "0")]
    assert all(map(same, written, back))
    plain = SimpleNamespace(**{name: value for name, value in arguments.items() if name.startswith("train")})
    (first, *_) = from_pysaliency(plain, images, [(600, 800), (600, 800)])
    assert first.duration_ms.tolist() == pytest.approx([300, 300, 300])
    with pytest.raises(InvalidValueError, match=r"got none called 'b.jpg'"):
        to_pysaliency(written, ["a.jpg"])
    with pytest.raises(InvalidTypeError, match="without train_xs"):
        from_pysaliency(object(), images, [])
    with pytest.raises(InvalidValueError, match="every stimulus"):
        from_pysaliency(plain, ["a.jpg"], [(600, 800)])


class Frames:
    """A table as polars and pandas have it: columns, and each by its name."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


def test_pymovements_and_back() -> None:
    written = paths()
    columns = to_pymovements(written)
    assert columns["name"] == ["fixation"] * 9
    assert columns["offset"][1] == 300 + 230
    for events in (columns, Frames(columns), SimpleNamespace(frame=Frames(columns))):
        back = from_pymovements(events, Frame((600, 800), 24))
        assert [(p.image, p.subject, p.trial) for p in back] == [(p.image, p.subject, p.trial) for p in written]
        assert all(map(same, written, back))
    split = columns | {
        "location_x": [x for x, _ in columns["location"]],
        "location_y": [y for _, y in columns["location"]],
    }
    del split["location"], split["duration"]
    split["name"] = ["fixation.ivt", "saccade", *["fixation.ivt"] * 7]
    back = from_pymovements(split)
    assert [len(path) for path in back] == [2, 5, 1]
    assert back[0].duration_ms.tolist() == pytest.approx([200, 260])
    with pytest.raises(InvalidValueError, match="must have the columns location_x, location_y"):
        from_pymovements({"name": [], "onset": [], "duration": []})


# Damage


def test_a_damaged_recording_is_right_or_explained(
    answers: Callable[..., object], tmp_path: Path, recordings: list[bytes]
) -> None:
    file = tmp_path / "damaged.txt"

    @given(st.sampled_from(recordings), st.data())
    def try_it(whole: bytes, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(whole)))
        until = at + data.draw(st.integers(0, 40))
        file.write_bytes(whole[:at] + data.draw(st.binary(max_size=20)) + whole[until:])
        eye = data.draw(st.sampled_from([None, "left"]))
        found = answers(lambda: read_scanpaths(file, eye=eye, screen_px=(1080, 1920)), str(file), "screen", "format")
        assert isinstance(found, FoveasimError | list)

    try_it()


@pytest.fixture
def recordings() -> list[bytes]:
    asc = "MSG\t1 TRIALID 1\nSTART\t2 LEFT\nEFIX L 3\t103\t101\t10.0\t20.0\t9\n"
    asc += "EFIX L 203\t303\t101\t90.0\t80.0\t9\nEND\t400\n"
    gaze = "FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV\n0.1,0.2,0.1,0.2,1,1\n0.5,0.6,0.4,0.3,2,1\n"
    tobii = "Recording timestamp\tGaze event duration\tFixation point X\tFixation point Y\n"
    tobii += "1000\t200\t5\t6\n9000\t210\t7\t80\n"
    core = "id,start_timestamp,duration,norm_pos_x,norm_pos_y\n1,1.5,200,0.2,0.3\n2,1.9,250,0.7,0.8\n"
    smi = "Table Header for Fixations:\nEvent Type,Trial,Start,Duration,Location X,Location Y\n\n"
    smi += "Fixation L,1,1000,200000,10,20\nFixation L,1,300000,210000,90,80\n"
    return [text.encode() for text in (asc, gaze, tobii, core, smi)]
