"""docs/how-it-works.md tells the truth, names and order of calls alike, and the rooms are drawn as they are."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-it-works.md"
NAME = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(([^()\s#]+\.py)\)")
BARE = re.compile(r"(?<!\[)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`")
OTHERWISE = {"disc", "pyramid", "unet", "fixations.csv", "splits.json", "env.step", "pretrain"}
"""Code on the page that names nothing in a file: retinas, a network, files of a user's, words of a heading."""
Call = tuple[str, str]


def defined(source: str) -> set[str]:
    """Return the classes, functions, methods and assigned names of a module, those of a class as ``Class.name``."""

    def walk(body: list[ast.stmt], before: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield before + node.name
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{before}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            yield from (before + target.id for target in targets if isinstance(target, ast.Name))

    return set(walk(ast.parse(source).body, ""))


def name_faults(path: Path, text: str) -> list[str]:
    """Return the linked names of a page that are not defined in the file that they lead to."""
    faults = []
    for name, place in NAME.findall(text):
        file = path.parent / place
        if not file.is_file():
            faults.append(f"{name}: there is no file {place}")
        elif name not in defined(file.read_text(encoding="utf-8")):
            faults.append(f"{name}: not defined in {place}")
    return faults


def test_names_are_defined_where_the_page_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(NAME.findall(text)) > 60
    assert not name_faults(PAGE, text)
    assert sorted(set(BARE.findall(text)) - OTHERWISE) == [], "these are not linked"


def test_names_that_moved_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("X: int = 1\nclass A:\n    y = 2\n    def f(self): pass\ndef g():\n    z = 3\n")
    said = "".join(f"[`{name}`](a.py) " for name in ("X", "A", "A.y", "A.f", "g", "f", "z", "A.g")) + "[`g`](b.py)"
    assert name_faults(tmp_path / "page.md", said) == [
        *(f"{name}: not defined in a.py" for name in ("f", "z", "A.g")),
        "g: there is no file b.py",
    ]


def steps(heading: str) -> list[Call]:
    """Return file and name of what the numbered list under a heading of the page names, in its order."""
    _, _, below = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    section = below.partition("\n## ")[0]
    listed = section[section.index("\n1. ") :]
    return [
        ((PAGE.parent / place).resolve().relative_to(ROOT).as_posix(), name) for name, place in NAME.findall(listed)
    ]


def called(work: Callable[[], object]) -> list[Call]:
    """Return file and qualified name of every Python function of the checkout that runs, in all new threads as well."""
    calls: list[Call] = []
    files: dict[str, str] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        written = frame.f_code.co_filename
        if written not in files:
            path = Path(written).resolve() if Path(written).is_absolute() else Path("/")
            files[written] = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if files[written]:
            calls.append((files[written], frame.f_code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return calls


def not_called(told: list[Call], calls: list[Call], root: Path = ROOT) -> list[str]:
    """Return what was not called after what is told before it.

    Not looked for are kernels, whose compiled code no profiler sees, constants, and classes whose ``__init__`` was
    written by ``@dataclass``.
    """
    missed, at = [], 0
    for file, name in told:
        known = defined((root / file).read_text(encoding="utf-8"))
        inits = {f"{name}.__init__", f"{name}.__post_init__"} & known
        is_class = inits or any(other.startswith(f"{name}.") for other in known)
        wanted = {(file, one) for one in (inits if is_class else {name})}
        if "kernels" in file or name.isupper() or not wanted:
            continue
        place = next((i for i in range(at, len(calls)) if calls[i] in wanted), None)
        if place is None:
            missed.append(f"{name} of {file}")
        else:
            at = place
    return missed


def test_an_order_that_is_not_so_is_noticed(tmp_path: Path) -> None:
    source = "OF = 1\ndef f(): pass\nclass Own:\n    def __init__(self): pass\nclass Data:\n    x: int\n"
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    (tmp_path / "kernels.py").write_text("def k(): pass\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("def g(): pass\n", encoding="utf-8")
    calls = [("a.py", "f"), ("a.py", "Own.__init__"), ("b.py", "g"), ("a.py", "f")]
    so = [("a.py", "f"), ("a.py", "Own"), ("kernels.py", "k"), ("a.py", "OF"), ("a.py", "Data"), ("b.py", "g")]
    assert not_called(so, calls, tmp_path) == []
    not_so = [*so, ("a.py", "Own"), ("a.py", "f"), ("b.py", "g")]
    assert not_called(not_so, calls, tmp_path) == ["Own of a.py", "g of b.py"]
    told = "An action, through `env.step`"
    assert ("tests/house/test_how_it_works.py", "steps") in called(lambda: steps(told))


def test_an_action_goes_as_told() -> None:
    from foveasim.envs import FoveaEnv

    env = FoveaEnv(retina="disc", belief=True)
    env.reset(seed=0)
    told = steps("An action, through `env.step`")
    assert len(told) > 8 and not_called(told, called(lambda: env.step(np.zeros(2, np.float32)))) == []


def test_a_file_goes_as_told(tmp_path: Path) -> None:
    from foveasim.viewer.config import LookConfig
    from foveasim.viewer.window import Window

    draw_images(tmp_path, 1)
    config = LookConfig(scenes=str(tmp_path / "0.png"), agent="walk", network=None)

    def watch() -> None:
        window = Window(config.open_session(threaded=False), size=(240, 320), folder=tmp_path)
        window.tick(400)
        window.close()

    told = steps("A file name, to pixels in the window")
    assert len(told) > 12 and not_called(told, called(watch)) == []


def test_a_name_goes_as_told() -> None:
    from foveasim import make_agent, rollout
    from foveasim.envs import FoveaEnv

    env = FoveaEnv(retina="disc")
    told = steps("The name of an agent, to an agent that acts")
    assert len(told) > 10 and not_called(told, called(lambda: rollout(make_agent("walk"), env, steps=2))) == []


def test_a_batch_goes_as_told(tmp_path: Path) -> None:
    from foveasim.agents.pretraining.command import run
    from foveasim.agents.pretraining.config import PretrainConfig

    draw_images(tmp_path, 3)
    small = {"widths": [8, 8, 8], "blocks": [0, 0, 0]}
    config = PretrainConfig(
        data=[str(tmp_path)],
        out=str(tmp_path / "run"),
        network="unet",
        network_options=small,
        retinas={"pyramid": {}},
        size=32,
        batch=2,
        epochs=None,
        steps=2,
    )
    told = steps("A batch, through `pretrain`")
    assert len(told) > 12 and not_called(told, called(lambda: run(config))) == []


def test_people_go_as_told(tmp_path: Path) -> None:
    from foveasim.experiments.humans.command import HumansConfig, run

    (tmp_path / "images").mkdir()
    draw_images(tmp_path / "images", 3)
    splits = {"train": ["0"], "test": ["1", "2"]}
    (tmp_path / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    rows = [
        f"{image},{subject},{k},{(17 * k + 5 * subject) % 80},{(23 * k + 7 * image) % 60},200"
        for image in range(3)
        for subject in range(3)
        for k in range(4)
    ]
    table = "\n".join(["image,subject,index,x,y,duration_ms", *rows, ""])
    (tmp_path / "fixations.csv").write_text(table, encoding="utf-8")
    config = HumansConfig(
        ["walk"],
        data=str(tmp_path),
        size=(60, 80),
        px_per_deg=3,
        count=2,
        resamples=100,
        floors=False,
        jobs=1,
        out=str(tmp_path / "out"),
    )
    told = steps("A CSV of people, to the table of `foveasim humans`")
    assert len(told) > 12 and not_called(told, called(lambda: run(config))) == []


def draw_images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(folder / f"{number}.png")


def test_the_rooms_are_drawn_as_they_are() -> None:
    script = [sys.executable, str(ROOT / "docs" / "draw_rooms.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_picture_of_other_rooms_is_noticed(module_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import draw_rooms

    assert draw_rooms.faults(module_files) == []
    fewer = {name: path for name, path in module_files.items() if not name.startswith("foveasim.player")}
    said = "\n".join(draw_rooms.faults(fewer))
    assert "still shows: foveasim.player: " in said and "table of rooms" in said
    implied = draw_rooms.implied({("c", "b"): 1, ("b", "a"): 1, ("c", "a"): 1, ("d", "a"): 1})
    assert implied == {("c", "a")}
