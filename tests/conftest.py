"""What every test shares: no screen, no network, the modules of the project, and the data packs where there are any."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis.configuration import set_hypothesis_home_dir

from foveasim import FoveasimError
from foveasim.agents.mim import make_network, save_network

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

# A run in the background (nohup, some CI) ignores Ctrl-C, and so would every process that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "house"))  # for rooms.py, which docs/draw_rooms.py reads the source with, too

# The doors are fuzzed with a few examples that are the same every time, or by thousands of new ones:
# pytest tests/test_fuzz_*.py --hypothesis-profile=thorough
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "foveasim-hypothesis")
ANY_SPEED: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(hypothesis.HealthCheck)}
hypothesis.settings.register_profile("quick", max_examples=20, derandomize=True, **ANY_SPEED)
hypothesis.settings.register_profile("thorough", max_examples=1000, print_blob=True, **ANY_SPEED)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def module_files() -> dict[str, Path]:
    """Full module name to file, for every module of the three folders."""
    from rooms import modules

    return modules()


@pytest.fixture(scope="session")
def module_faults(module_files: dict[str, Path]) -> Callable[[Callable[[str, str], Iterable[str]]], list[str]]:
    """Ask a rule of the house about every module, by name and source; returns all faults, each with its file."""

    def ask(rule: Callable[[str, str], Iterable[str]]) -> list[str]:
        return [
            f"{path.relative_to(ROOT).as_posix()}: {fault}"
            for module, path in module_files.items()
            for fault in rule(module, path.read_text(encoding="utf-8"))
        ]

    return ask


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch's: where the cores are busy, two on small maps wait for each other, 40 s instead of 1."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small network that was not trained: it fills what is hidden with the mean of what was seen."""
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(path, make_network("unet", widths=(8, 8, 8), blocks=(0, 0, 0)), {})
    return str(path)


@dataclass(frozen=True)
class Published:
    """What the authors' code of the paper gives for an image: values of arrays, and their places when flattened."""

    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    parameters: list[tuple[str, list[int]]]
    values: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
    places: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int32]]]

    def beside(self, name: str, computed: torch.Tensor) -> tuple[Any, Any]:
        """Return what was computed, and what was published, at the places that are known."""
        return computed.numpy().reshape(-1)[self.places[name]], self.values[name]


@pytest.fixture(scope="session", params=["a few values", "all values"])
def published(request: pytest.FixtureRequest, fixtures: Path) -> Published:
    """The published values: a few of them, which are in the repository, and all, where they lie beside the checkout."""
    whole = request.param == "all values"
    folder = ROOT.parent / "shared" / "reference" if whole else fixtures
    if not folder.is_dir():
        pytest.skip("needs ../shared/reference")
    parameters = json.loads((folder / "focusmim_parameters.json").read_text(encoding="utf-8"))
    with np.load(folder / "focusmim_reference.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    image = arrays.pop("image")
    values = {name: array.reshape(-1) for name, array in arrays.items() if not name.endswith("_index")}
    places = {name: np.arange(len(array)) if whole else arrays[f"{name}_index"] for name, array in values.items()}
    return Published(image, parameters, values, places)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of the few published values that are part of the repository."""
    return ROOT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the data packs beside the checkout; the test is skipped where there is none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs ../shared/data")
    return path


@pytest.fixture(scope="session")
def answers() -> Callable[..., object]:
    """Call something, and return what it answers, or the error that foveasim raised on purpose.

    Every other exception is a fault, and so is an error that does not speak: one that names none of the arguments it
    may be about, or says neither what was expected nor what to do.
    """

    def ask(call: Callable[[], object], *about: str) -> object:
        try:
            return call()
        except FoveasimError as error:
            message = str(error)
            assert not about or any(name in message for name in about), f"names none of {about}: {message}"
            assert len(message.split()) >= 5, f"says too little: {message}"
            assert SPEAKS.search(message), f"says neither what was expected nor what to do: {message}"
            return error

    return ask


SPEAKS = re.compile(
    r"\b(must|needs?|takes|give|use|check|remove|choose|copy|train|save|scale|convert|name|write|make|get|mend|register|fit|run|install"
    r"|cannot be|expected|allowed|not a|no such|only for|are for|too (large|small)|damaged|breaks? off)\b",
    re.IGNORECASE,
)


CI = os.environ.get("CI", "").lower() in ("1", "true")
ALLOWED_SKIPS = {
    r"needs (an|no) accelerator": "a machine has one or has none",
    r"needs (root|a user other than root)": "a run has one user",
    r"needs \.\./shared/": "data packs are not part of the repository; tests/fixtures holds what may be",
    r"needs an environment of its own": "Ray wants another Gymnasium, and ap_gym brings two dozen packages along",
}
"""What may be skipped on CI (where the environment variable CI is true), as the beginning of a reason, and why.

Every other skip fails the run there: CI is to have what tests need, and .ci/run brings it."""


def unexpected_skips(config: pytest.Config) -> list[str]:
    """Return the tests, and files, that were skipped for a reason that CI does not allow; none elsewhere."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if not CI or terminal is None:
        return []
    reasons = [(report.nodeid, str(report.longrepr[2])) for report in terminal.stats.get("skipped", ())]
    skipped = [(place, reason.removeprefix("Skipped: ")) for place, reason in reasons]
    return [f"{place}: {why}" for place, why in skipped if not any(re.match(allowed, why) for allowed in ALLOWED_SKIPS)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run on CI that skipped what it should not."""
    if session.exitstatus == pytest.ExitCode.OK and unexpected_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which skips CI does not allow."""
    if skipped := unexpected_skips(config):
        terminalreporter.section("skipped, which CI does not allow", red=True)
        for line in skipped:
            terminalreporter.line(line)
        terminalreporter.line(
            "Let .ci/run bring what is missing, or add the reason to ALLOWED_SKIPS of tests/conftest.py."
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an accelerator where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        local = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise AssertionError(f"a test tried to reach {address!r}; tests must not use the network")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What is there once something has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path / "it_ran"
    for name in set(sys.modules) - before:
        if name.startswith("planted"):
            del sys.modules[name]


_PLANTED = """
    import os
    import foveasim.agents.builtin.scripted as scripted
    os.mkdir({mark!r})
    Agent = scripted.Random
"""


@pytest.fixture
def planted(mark: Path) -> Path:
    """What is there once ``planted.py``, in the working folder, was imported."""
    Path("planted.py").write_text(textwrap.dedent(_PLANTED.format(mark=str(mark))), encoding="utf-8")
    return mark
