"""Eye trackers' files as they are written: made ones of each form, and each fault."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foveasim import read_scanpaths
from foveasim.errors import InvalidValueError
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths
from foveasim.types import Frame


def write(folder: Path, text: str, name: str = "export.txt", encoding: str = "utf-8") -> Path:
    file = folder / name
    file.write_bytes(text.encode(encoding))
    return file


def about(paths: list[Scanpath]) -> list[tuple[Any, ...]]:
    """Image, subject, trial, points, onsets and durations of each, rounded."""
    return [
        (p.image, p.subject, p.trial, rounded(p.fixation_px), rounded(p.onset_ms), rounded(p.duration_ms))
        for p in paths
    ]


def rounded(values: torch.Tensor) -> Any:
    return np.round(values.numpy().astype(np.float64), 3).tolist()


def seen_in(path: Scanpath, size: tuple[int, int], scale: float) -> bool:
    """Whether a scanpath's frame has a size, and a degree of so many px."""
    frame = path.frame
    return frame is not None and frame.size == size and frame.px_per_deg == pytest.approx(scale)


# EyeLink

ASC = """** CONVERTED FROM D:\\study\\ann.edf using edfapi 4.2.1
** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED
MSG\t90 !CAL Quadrant center: centx, centy =
  7.1054e-15  132.75
MSG\t95 TRIALID beach 1
MSG\t96 GAZE_COORDS 0.00 0.00 1919.00 1079.00
MSG\t97 !V IMGLOAD CENTER ../images/beach.jpg 960 540
START\t100 \tRIGHT\tSAMPLES\tEVENTS
SAMPLES\tGAZE\tRIGHT\tRATE\t1000.00\tTRACKING\tCR
EVENTS\tGAZE\tRIGHT\tRATE\t1000.00
SFIX R   100
100\t  10.0\t  20.0\t 900.0\t...
101\t   .\t   .\t 0.0\t...
EFIX R   100\t299\t200\t  960.0\t  540.0\t   900
ESACC R  300\t339\t40\t  960.0\t  540.0\t  660.0\t 440.0\t  8.0\t 300
EFIX R   340\t589\t250\t  660.5\t  440.5\t   900
EBLINK R 600\t700\t101
END\t800 \tSAMPLES\tEVENTS\tRES\t  40.00\t  42.00
MSG\t900 TRIALID town 2
START\t1000 \tRIGHT\tSAMPLES\tEVENTS
EFIX R   1010.5\t1209\t199\t  700.0\t  500.0\t   900
MSG\t1300 -20 !V IMGLOAD FILL C:\\pics\\town.jpg
END\t1400 \tSAMPLES\tEVENTS\tRES\t  41.00\t  41.00
"""


def test_eyelink_trials_images_and_degrees(tmp_path: Path) -> None:
    paths = read_scanpaths(write(tmp_path, ASC))
    assert about(paths) == [
        ("beach.jpg", "ann", "beach 1", [[960, 540], [660.5, 440.5]], [100, 340], [200, 250]),
        ("town.jpg", "ann", "town 2", [[700, 500]], [1010.5], [199]),
    ]
    assert {path.frame for path in paths} == {Frame((1080, 1920), 41.0)}
    (beach, _) = read_scanpaths(write(tmp_path, ASC), image_size=(600, 800), origin_px="centre")
    assert beach.fixation_px.tolist() == [[400, 300], [100.5, 200.5]]
    assert beach.frame == Frame((600, 800), 41.0)
    (beach, town) = read_scanpaths(
        write(tmp_path, ASC), image_size={"beach.jpg": (600, 800), "town.jpg": (1000, 1900)}, origin_px="centre"
    )
    assert (beach.fixation_px[0].tolist(), town.fixation_px[0].tolist()) == ([400, 300], [690, 460])


def test_eyelink_without_trial_messages_goes_by_blocks(tmp_path: Path) -> None:
    text = ASC.replace("TRIALID", "BEGIN")
    assert [(p.trial, p.image) for p in read_scanpaths(write(tmp_path, text))] == [
        ("1", "beach.jpg"),
        ("2", "town.jpg"),
    ]
    paths = read_scanpaths(write(tmp_path, text), trial_message="BEGIN (.*)", image_message="BEGIN ([a-z]+)")
    assert [(p.trial, p.image) for p in paths] == [("beach 1", "beach"), ("town 2", "town")]


def test_eyelink_trials_with_several_images_part_at_them(tmp_path: Path) -> None:
    text = ASC.replace("ESACC R  300", "MSG\t330 !V IMGLOAD FILL sea.jpg\nESACC R  300")
    paths = read_scanpaths(write(tmp_path, text))
    assert [(p.image, p.trial, len(p)) for p in paths] == [
        ("beach.jpg", "beach 1", 1),
        ("sea.jpg", "beach 1", 1),
        ("town.jpg", "town 2", 1),
    ]
    lost = ASC.replace("  960.0\t  540.0\t   900", "  .\t  .\t   0")
    assert [len(p) for p in read_scanpaths(write(tmp_path, lost))] == [1, 1]


def test_eyelink_samples_alone_become_fixations(tmp_path: Path) -> None:
    lines = ["MSG\t0 DISPLAY_COORDS 0 0 1279 1023", "START\t1 \tLEFT\tRIGHT\tSAMPLES", "SAMPLES\tGAZE\tLEFT\tRIGHT"]
    for t in range(600):
        place = "  .\t  ." if 300 <= t < 310 else "300.0\t200.0" if t < 300 else "500.0\t400.0"
        lines.append(f"{t}\t{place}\t900.0\t{place}\t900.0\t.....")
    file = write(tmp_path, "\n".join([*lines, "END\t600 \tSAMPLES"]))
    with pytest.raises(InvalidValueError, match=r"gaze samples.*give px_per_deg=, or screen_px=, screen_width_cm="):
        read_scanpaths(file, eye="left")
    for method in ("ivt", "idt", None):
        (path,) = read_scanpaths(file, eye="left", px_per_deg=30.0, fixations=method)  # type: ignore[arg-type]
        assert path.fixation_px.tolist() == [[300, 200], [500, 400]]
        assert path.duration_ms.tolist() == [300, 290]
    half_ms = [f"{400 + i // 2}\t  300.0\t  200.0\t900.0\t..." for i in range(800)]  # 2000 Hz, whole ms
    right = write(tmp_path, "\n".join(["START\t400 \tRIGHT\tSAMPLES", *half_ms]), "right.asc")
    (path,) = read_scanpaths(right, px_per_deg=30.0, eye="right")
    assert path.duration_ms.tolist() == [400]
    with pytest.raises(InvalidValueError, match="holds no fixations"):
        read_scanpaths(file, eye="left", fixations="file")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "EFIX R   340\t589\t250\t  660.5",
            "EFIX R   340\t589\t250\t  left",
            r"row 16: expected a line EFIX .*edf2asc",
        ),
        ("EFIX R   340\t589\t250\t  660.5", "EFIX R   340\t589\t1e39\t  660.5", "row 16"),
        ("EVENTS\tGAZE", "EVENTS\tHREF", "HREF positions, which are not px"),
    ],
)
def test_a_damaged_eyelink_file_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        read_scanpaths(write(tmp_path, ASC.replace(old, new)))


def test_eyelink_patterns_that_find_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"no message that fits trial_message=.*TRIALID"):
        read_scanpaths(write(tmp_path, ASC), trial_message="XYZ (.*)")
    with pytest.raises(InvalidValueError, match="must hold one group"):
        read_scanpaths(write(tmp_path, ASC), trial_message="TRIALID .*")
    with pytest.raises(InvalidValueError, match="contradicts it"):
        read_scanpaths(write(tmp_path, ASC), screen_px=(768, 1024))
    with pytest.raises(InvalidValueError, match="edf2asc"):
        read_scanpaths(write(tmp_path, "SR_RESEARCH_COMBINED_FILE\0\0"))


# Tobii

LAB = (
    "Recording timestamp\tSensor\tParticipant name\tRecording name\tRecording resolution width\t"
    "Recording resolution height\tPresented Media name\tPresented Media width\tPresented Media height\t"
    "Eye movement type\tGaze event duration\tEye movement type index\t"
    "Fixation point X [MCS px]\tFixation point Y [MCS px]\tEvent\n"
)


def lab_row(
    time_us: int, medium: str, kind: str = "", lasts: str = "", index: str = "", x: str = "", y: str = ""
) -> str:
    sensor = "Eye Tracker" if kind else ""
    return f"{time_us}\t{sensor}\tP01\tR1\t1920\t1080\t{medium}\t1024\t768\t{kind}\t{lasts}\t{index}\t{x}\t{y}\t\n"


def lab_table() -> str:
    rows = [lab_row(0, "")]
    rows += [lab_row(100_000 + 16_667 * i, "a.png", "Fixation", "200", "1", "512", "384") for i in range(12)]
    rows.insert(6, lab_row(170_000, "a.png"))  # the row of an event, between two samples
    rows += [lab_row(310_000 + 16_667 * i, "a.png", "Saccade", "33", "1") for i in range(2)]
    rows += [lab_row(350_123 + 16_667 * i, "a.png", "Fixation", "250", "2", "100.5", "200") for i in range(15)]
    rows += [lab_row(700_000 + 16_667 * i, "b.png", "Fixation", "150", "3", "10", "20") for i in range(9)]
    rows += [lab_row(900_000 + 16_667 * i, "a.png", "Fixation", "100", "4", "30", "40") for i in range(6)]
    return LAB + "".join(rows)


def test_tobii_pro_lab_counts_microseconds_and_leaves_cells_empty(tmp_path: Path) -> None:
    paths = read_scanpaths(write(tmp_path, lab_table(), "lab.tsv"))
    assert about(paths) == [
        ("a.png", "P01", "R1", [[512, 384], [100.5, 200]], [100, 350.123], [200, 250]),
        ("b.png", "P01", "R1", [[10, 20]], [700], [150]),
        ("a.png", "P01", "R1 2", [[30, 40]], [900], [100]),
    ]
    assert {path.frame for path in paths} == {Frame((768, 1024))}
    with_comma = lab_table().replace("100.5", "100,5")
    assert read_scanpaths(write(tmp_path, with_comma, "lab.tsv"), decimal=",")[0].fixation_px[1].tolist() == [
        100.5,
        200,
    ]
    with pytest.raises(InvalidValueError, match=r"column Fixation point X \[MCS px\].*give decimal=','"):
        read_scanpaths(write(tmp_path, with_comma, "lab.tsv"))
    again = read_scanpaths(write(tmp_path, lab_table(), "lab.tsv", "utf-16"))
    assert about(again) == about(paths)


def test_tobii_timestamps_in_another_unit_are_told(tmp_path: Path) -> None:
    lines = lab_table().splitlines(keepends=True)
    in_ms = lines[:1] + [
        f"{int(time) // 1000}\t{rest}" for time, _, rest in (line.partition("\t") for line in lines[1:])
    ]
    file = write(tmp_path, "".join(in_ms), "lab.tsv")
    with pytest.raises(InvalidValueError, match="onset_unit='ms'"):
        read_scanpaths(file)
    assert read_scanpaths(file, onset_unit="ms")[0].onset_ms.tolist() == [100, 350]
    said = "".join(in_ms).replace("Recording timestamp", "Recording timestamp [ms]")
    assert read_scanpaths(write(tmp_path, said, "lab.tsv"))[0].onset_ms.tolist() == [100, 350]


def test_tobii_studio_3_and_pixels_of_the_screen(tmp_path: Path) -> None:
    header = (
        "ParticipantName\tRecordingName\tRecordingResolution\tMediaName\tMediaPosX (ADCSpx)\tMediaPosY (ADCSpx)\t"
        "MediaWidth\tMediaHeight\tRecordingTimestamp\tFixationIndex\tGazeEventType\tGazeEventDuration\t"
    )
    row = "P1\tR\t1920 x 1080\tx.jpg\t448\t156\t1024\t768\t{}\t{}\tFixation\t300\t{}\t{}\t\n"
    rows = "".join(row.format(time, 1 + time // 1000, 960, 540) for time in (1000, 1100, 1200, 2000, 2100))
    (path,) = read_scanpaths(write(tmp_path, header + "FixationPointX (MCSpx)\tFixationPointY (MCSpx)\t\n" + rows))
    assert about([path]) == [("x.jpg", "P1", "R", [[960, 540], [960, 540]], [1000, 2000], [300, 300])]
    (path,) = read_scanpaths(write(tmp_path, header + "FixationPointX\tFixationPointY\t\n" + rows))
    assert path.fixation_px.tolist() == [[512, 384], [512, 384]]
    assert path.frame == Frame((768, 1024))


def test_tobii_samples_become_fixations(tmp_path: Path) -> None:
    header = "RecordingTimestamp\tParticipantName\tMediaName\tMediaWidth\tMediaHeight\t"
    header += "GazePointX (MCSpx)\tGazePointY (MCSpx)\tValidityLeft\tValidityRight\n"
    rows = ""
    for i in range(120):
        place, seen = ("100\t100", 0) if i < 60 else ("-1\t-1", 4) if i < 66 else ("600\t300", 0)
        rows += f"{i * 8}\tann\tx.jpg\t1024\t768\t{place}\t{seen}\t{seen}\n"
    (path,) = read_scanpaths(write(tmp_path, header + rows), px_per_deg=30)
    assert about([path]) == [("x.jpg", "ann", "", [[100, 100], [600, 300]], [0, 528], [480, 432])]
    with pytest.raises(InvalidValueError, match="has no fixation points"):
        read_scanpaths(write(tmp_path, header + rows), px_per_deg=30, fixations="file")


# Pupil Labs, Gazepoint

CORE = "id,start_timestamp,duration,start_frame_index,norm_pos_x,norm_pos_y,dispersion,confidence\n"


def test_pupil_core_counts_seconds_and_milliseconds_from_the_bottom_left(tmp_path: Path) -> None:
    file = write(tmp_path, CORE + "1,1654.28,250.5,3,0.25,0.75,1.1,0.9\n2,1654.56,180,9,0.5,0.1,1.0,0.9\n")
    (path,) = read_scanpaths(file, screen_px=(720, 1280), image="desk", subject="ann")
    assert about([path]) == [("desk", "ann", "", [[320, 180], [640, 648]], [1654280, 1654560], [250.5, 180])]
    assert path.frame == Frame((720, 1280))
    with pytest.raises(InvalidValueError, match=r"fractions of the screen: give screen_px=\(H, W\)"):
        read_scanpaths(file)


def test_pupil_core_on_a_surface_takes_each_fixation_once(tmp_path: Path) -> None:
    header = "world_timestamp,world_index,fixation_id,start_timestamp,duration,norm_pos_x,norm_pos_y,on_surf\n"
    row = "{},{},{},{},200,{},0.5,{}\n"
    rows = [
        row.format(1, 1, 7, 1.0, 0.5, True),
        row.format(1.1, 2, 7, 1.0, 0.5, True),
        row.format(2, 3, 8, 2, 2, False),
    ]
    rows.append(row.format(3, 4, 9, 3, 0.25, "True"))
    (path,) = read_scanpaths(write(tmp_path, header + "".join(rows)), image_size=(600, 800))
    assert path.fixation_px.tolist() == [[400, 300], [200, 300]]
    assert path.onset_ms.tolist() == [1000, 3000]


def test_neon_counts_nanoseconds(tmp_path: Path) -> None:
    header = "section id,recording id,fixation id,start timestamp [ns],end timestamp [ns],duration [ms],"
    header += "fixation x [px],fixation y [px],azimuth [deg],elevation [deg]\n"
    start = 1_700_000_000_123_000_000
    rows = [
        f"s1,r1,{i},{start + ms * 1_000_000},0,{200 + i},{800 + i},600,0,0\n" for i, ms in enumerate((0, 280, 520, 860))
    ]
    rows.append(f"s2,r1,9,{start},0,100,5,6,0,0\n")
    one, two = read_scanpaths(write(tmp_path, header + "".join(rows)), screen_px=(1200, 1600))
    assert (one.onset_ms - one.onset_ms[0]).tolist() == [0, 280, 520, 860]
    assert one.onset_ms[0] == 1_700_000_000_123.0
    assert (one.subject, one.trial, two.trial) == ("r1", "s1", "s2")
    assert one.fixation_px[0].tolist() == [800, 600]


GAZEPOINT = "MEDIA_ID,MEDIA_NAME,CNT,TIME(2024/01/05 10:00:00.000),FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,\n"


def test_gazepoint_counts_fractions_of_the_screen_and_seconds(tmp_path: Path) -> None:
    rows = (
        "0,a.jpg,1,0.1,0.24,0.51,0.1,0.016,1,1,\n0,a.jpg,2,0.2,0.25,0.5,0.1,0.28,1,1,\n0,a.jpg,3,0.4,0.9,0.9,0.4,0,2,0,\n"
        "0,a.jpg,4,0.6,0.5,0.5,0.4,0.2,2,1,\n1,b.jpg,5,1.0,0.75,0.25,1.0,0.3,3,1,\n"
    )
    one, two = read_scanpaths(write(tmp_path, GAZEPOINT + rows), screen_px=(600, 800), subject="ann")
    assert about([one, two]) == [
        ("a.jpg", "ann", "", [[200, 300], [400, 300]], [100, 400], [280, 200]),
        ("b.jpg", "ann", "", [[600, 150]], [1000], [300]),
    ]


# SMI

SMI = """[BeGaze]
Subject:\tann
## Calibration Area:\t1680\t1050
## Stimulus Dimension [mm]:\t480\t300
## Head Distance [mm]:\t600

Table Header for Fixations:
Event Type\tTrial\tNumber\tStart\tEnd\tDuration\tLocation X\tLocation Y\tDispersion X

Table Header for User Events:
Event Type\tTrial\tNumber\tStart\tDescription

UserEvent\t1\t1\t1000000\t# Message: beach.jpg
Fixation L\t1\t1\t1000500\t1250500\t250000\t840.00\t525.00\t3
Saccade L\t1\t1\t1250500\t1290500\t40000\t840.00\t525.00\t900.00\t500.00
Fixation L\t1\t2\t1290500\t1490500\t200000\t900.00\t500.00\t3
Blink L\t1\t1\t1490500\t1600000\t109500
UserEvent\t2\t2\t3000000\t# Message: town.jpg
Fixation L\t2\t1\t3000500\t3180500\t180000\t100.00\t50.00\t3
"""


def test_smi_tables_one_after_the_other(tmp_path: Path) -> None:
    paths = read_scanpaths(write(tmp_path, SMI))
    assert about(paths) == [
        ("beach.jpg", "ann", "1", [[840, 525], [900, 500]], [1000.5, 1290.5], [250, 200]),
        ("town.jpg", "ann", "2", [[100, 50]], [3000.5], [180]),
    ]
    scale = 1680 / 480 * 2 * 600 * math.tan(math.radians(0.5))
    assert seen_in(paths[0], (1050, 1680), scale)
    with pytest.raises(InvalidValueError, match="row 16, column Location X"):
        read_scanpaths(write(tmp_path, SMI.replace("200000\t900.00", "200000\tnan")))
    with pytest.raises(InvalidValueError, match="holds left; got eye='right'"):
        read_scanpaths(write(tmp_path, SMI), eye="right")


# BIDS


def bids(folder: Path, *, events: bool, units: str = "pixel", stamp_units: str | None = None) -> Path:
    stem = "sub-07_task-look_run-2_recording-eye1"
    columns = ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"]
    facts: dict[str, Any] = {"Columns": columns, "SamplingFrequency": 500, "PhysioType": "eyetrack"}
    facts |= {name: {"Units": units} for name in columns[1:3]}
    if stamp_units is not None:
        facts["timestamp"] = {"Units": stamp_units}
    (folder / f"{stem}_physio.json").write_text(json.dumps(facts))
    rows = [f"{1000 + 2 * i}\t{'n/a' if i == 150 else 300 if i < 150 else 500}\t200\t900" for i in range(300)]
    path = folder / f"{stem}_physio.tsv.gz"
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    screen = {"ScreenResolution": [1024, 768], "ScreenSize": [0.4, 0.3], "ScreenDistance": 0.6}
    (folder / "sub-07_task-look_run-2_events.json").write_text(json.dumps({"StimulusPresentation": screen}))
    if events:
        (folder / f"{stem}_physioevents.json").write_text(
            json.dumps({"Columns": ["onset", "duration", "trial_type", "message"]})
        )
        text = "1000\t300\tfixation\tn/a\n1000\t0\tn/a\tTRIALID 3\n1300\t4\tsaccade\tn/a\n1304\t290\tfixation\tn/a"
        (folder / f"{stem}_physioevents.tsv.gz").write_bytes(gzip.compress(text.encode()))
    return path


@pytest.mark.parametrize("stamp_units", [None, "ms"])
def test_bids_events_and_samples(tmp_path: Path, stamp_units: str | None) -> None:
    (path,) = read_scanpaths(bids(tmp_path, events=True, stamp_units=stamp_units), image="x.png")
    assert (path.image, path.subject, path.trial) == ("x.png", "07", "3")
    assert path.fixation_px.tolist() == [[300, 200], [500, 200]]
    assert (path.onset_ms.tolist(), path.duration_ms.tolist()) == ([1000, 1304], [300, 290])
    scale = 1024 / 0.4 * 2 * 0.6 * math.tan(math.radians(0.5))
    assert seen_in(path, (768, 1024), scale)


def test_bids_samples_alone_become_fixations(tmp_path: Path) -> None:
    (path,) = read_scanpaths(bids(tmp_path, events=False))
    assert path.trial == "2"
    assert path.fixation_px.tolist() == [[300, 200], [500, 200]]
    assert path.onset_ms.tolist() == [1000, 1302]


def test_bids_without_its_json_or_units_is_told(tmp_path: Path) -> None:
    path = bids(tmp_path, events=False, units="furlong")
    with pytest.raises(InvalidValueError, match=r"Units of x_coordinate.*got 'furlong'"):
        read_scanpaths(path)
    (tmp_path / path.name.replace(".tsv.gz", ".json")).unlink()
    with pytest.raises(InvalidValueError, match=r"physio\.json must stand beside its table"):
        read_scanpaths(path)
    bids(tmp_path, events=False)
    path.write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(InvalidValueError, match="cannot read scanpaths"):
        read_scanpaths(path)


# foveasim's own, and what is none of these


def test_foveasims_own_file_comes_through_the_same_door(tmp_path: Path) -> None:
    own = Scanpath([[10.0, 20.0], [900.0, 30.0]], [0.0, 300.0], [250.0, 200.0], "a", "b", "", Frame((600, 800)))  # type: ignore[arg-type]
    file = write_scanpaths(tmp_path / "own.csv", [own])
    assert about(read_scanpaths(file)) == about([own])
    assert len(read_scanpaths(file, outside="drop")[0]) == 1
    assert read_scanpaths(file, px_per_deg=24)[0].frame == Frame((600, 800), 24.0)


def test_somebody_elses_fractions_in_foveasims_columns_are_told(tmp_path: Path) -> None:
    text = "image,subject,index,x,y,duration_ms\na,b,0,0.1,0.2,200\na,b,1,0.5,0.5,210\na,b,2,0.9,0.3,190\n"
    with pytest.raises(InvalidValueError, match="may be fractions of the screen"):
        read_scanpaths(write(tmp_path, text))
    assert len(read_scanpaths(write(tmp_path, text), plausible=False)[0]) == 3


def test_what_is_none_of_these_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"none of the files that are known.*columns are where, when.*columns="):
        read_scanpaths(write(tmp_path, "where,when\n1,2\n"))
    with pytest.raises(InvalidValueError, match=r"nowhere\.csv"):
        read_scanpaths(tmp_path / "nowhere.csv")
    with pytest.raises(InvalidValueError, match="format must be one of foveasim, eyelink"):
        read_scanpaths(write(tmp_path, SMI), "smi")
    with pytest.raises(InvalidValueError, match="read as begaze, which has no use for decimal"):
        read_scanpaths(write(tmp_path, SMI), decimal=",")
