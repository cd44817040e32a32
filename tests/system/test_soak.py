"""The soak: what counts as growth, and a short one; ``tests/system/stress/soak.py --minutes 30`` is the long one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from foveasim.drawing.render import LATEST
from foveasim.viewer.session import Session

SCRIPT = Path(__file__).parent / "stress" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


def test_growth_is_told_from_noise(soak: ModuleType) -> None:
    noise = np.random.default_rng(0).normal(0, 2, 40)

    def rounds(mb: float = 0.0, handles: float = 0.0, slower: float = 0.0) -> list[object]:
        """Forty rounds in which something grows by so much a round."""
        return [
            soak.Round(
                i, 500 + mb * i + noise[i - 1], 0, int(10 + handles * i), 3, {"disc": 5 * i * (1 + slower * i)}, i
            )
            for i in range(1, 41)
        ]

    assert soak.judge(rounds()).faults == []
    for grown, fault in (
        ({"mb": 2}, "memory grew"),
        ({"handles": 0.1}, "handles grew"),
        ({"slower": 0.02}, "disc takes"),
    ):
        (said,) = soak.judge(rounds(**grown)).faults
        assert fault in said
    with pytest.raises(ValueError, match="too short"):
        soak.judge(rounds()[:7])


def test_an_endless_scanpath_costs_no_more_to_draw() -> None:
    """A frame took as long as the scanpath was: the soak found it."""
    session = Session("shapes", "centre", "disc", budget=0, threaded=False)
    for number in range(LATEST + 40):
        session.point(10.0 + number % 50, 20.0)
    view = session.current_view()
    assert len(view.fixation_px) == len(view.errors) == LATEST
    assert view.earlier + LATEST == session.fixations > LATEST
    assert tuple(view.fixation_px[-1]) == (10.0 + (LATEST + 39) % 50, 20.0)
    session.close()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_nothing_grows() -> None:
    """For as many minutes as FOVEASIM_SOAK_MINUTES says, three by default."""
    minutes = os.environ.get("FOVEASIM_SOAK_MINUTES", "3")
    done = subprocess.run([sys.executable, SCRIPT, "--minutes", minutes], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
