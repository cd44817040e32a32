""".ci/run on made-up machines: it installs what is missing, as root; says what it cannot; and tests in any case."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")

PROGRAMS = ("chromium", "Xvfb", "xdotool")
PIP = f"""#!{shutil.which("bash")}
if [[ "$*" == "-m pip --version" ]]; then exit 0; fi
echo "python3 $* CI=$CI"
"""


class Machine:
    """A clone of nothing but .ci/run, and a PATH of programs that note how they were called."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.bin, self.log, self.clone = folder / "bin", folder / "log", folder / "clone"
        self.bin.mkdir()
        (self.clone / ".ci").mkdir(parents=True)
        shutil.copy2(root / ".ci" / "run", self.clone / ".ci")
        for name in ("bash", "dirname", "env", "cat", "ln"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.program("python3", PIP)
        self.program("sleep")
        self.program("id", "echo 0")

    def program(self, name: str, source: str = "") -> None:
        path = self.bin / name
        path.write_text(source if source.startswith("#!") else f"#!{shutil.which('bash')}\n{source}\n")
        path.chmod(0o755)

    def apt_get(self, failures: int, brings: tuple[str, ...] = PROGRAMS) -> None:
        """Install an apt-get whose first installations fail."""
        link = "\n".join(f"ln -sf {self.bin}/sleep {self.bin}/{name}" for name in brings)
        self.program(
            "apt-get",
            f'echo "$DEBIAN_FRONTEND apt-get $*" >> {self.log}; [[ "$*" == *update* ]] && exit 0\n'
            f"[[ -t 0 || -n $(cat) ]] && exit 3\n"
            f"tries=$(<{self.log}); tries=${{tries//[^+]/}}; echo + >> {self.log}\n"
            f"(( ${{#tries}} < {failures} )) && exit 100\n{link}",
        )

    def run(self, *arguments: str, ci: str | None = None) -> tuple[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "DEBIAN_FRONTEND")}
        environment |= {"PATH": str(self.bin)} | ({} if ci is None else {"CI": ci})
        command = [str(self.clone / ".ci" / "run"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, input="y\n", timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def calls(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line != "+"] if self.log.exists() else []


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Machine:
    return Machine(root, tmp_path)


UPDATE = " apt-get -q update"
INSTALL = "noninteractive apt-get -q install -y --no-install-recommends"


@pytest.mark.parametrize("failures", [0, 2])
def test_root_installs_what_is_missing_and_tries_again(machine: Machine, failures: int) -> None:
    machine.apt_get(failures)
    said, errors = machine.run()
    assert machine.calls() == [UPDATE, f"{INSTALL} chromium xvfb xdotool"] * (failures + 1)
    assert said == "python3 dev test CI=true\n"
    assert errors.count("apt-get failed") == failures and "not here" not in errors


def test_what_cannot_be_installed_is_said_and_tests_run(machine: Machine) -> None:
    machine.apt_get(9)
    said, errors = machine.run()
    assert len(machine.calls()) == 6
    assert "not here: chromium xvfb xdotool. As root on Debian: apt-get update && apt-get install" in errors
    assert said == "python3 dev test CI=true\n"


@pytest.mark.parametrize("kind", ["no apt-get", "not root"])
def test_without_apt_get_or_root_it_says_what_is_missing(machine: Machine, kind: str) -> None:
    machine.program("google-chrome")
    if kind == "not root":
        machine.apt_get(0)
        machine.program("id", "echo 1000")
    said, errors = machine.run("-x", ci="")
    assert machine.calls() == []
    assert errors.startswith("ci: not here: xvfb xdotool. As root on Debian:")
    assert said == "python3 dev test -x CI=\n"


def test_where_everything_is_nothing_is_installed(machine: Machine) -> None:
    machine.apt_get(0)
    for name in PROGRAMS:
        machine.program(name)
    assert machine.run(ci="true") == ("python3 dev test CI=true\n", "")
    assert machine.calls() == []


def test_a_debian_without_pip_gets_one(machine: Machine) -> None:
    machine.program("python3", PIP.replace("exit 0", "exit 1"))
    machine.apt_get(0)
    machine.run()
    assert machine.calls() == [UPDATE, f"{INSTALL} python3-pip chromium xvfb xdotool"]
