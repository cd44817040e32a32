from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from foveasim.eye.retina import RETINAS, make_retina
from foveasim.eye.saccade import Saccades
from foveasim.scenes.source import open_scenes
from foveasim.viewer.compile_kernels import _compiled, compile_kernels
from foveasim.viewer.display_eye import DisplayEye


def test_a_window_compiles_nothing_after_warming_up() -> None:
    compile_kernels([make_retina("pyramid", preset="paper")])
    before, signatures = _compiled(), _signatures()
    for name in RETINAS:
        display_eye = DisplayEye(open_scenes("photos"), 0, make_retina(name), saccades=Saccades())
        display_eye.start_saccade((100.0, 90.0))
        display_eye.sense(300.0)
    assert _compiled() == before
    assert _signatures() == signatures


def test_a_retina_that_fails_is_no_silence() -> None:
    class Nothing:
        name = "nothing"

    with pytest.raises((TypeError, ValueError, AttributeError)):
        compile_kernels([Nothing()])  # type: ignore[list-item]


def test_a_fresh_installation_reports_compiling_and_later_runs_do_not(tmp_path: Path) -> None:
    code = (
        "import torch; torch.set_num_threads(1); from foveasim.eye.kernels import step as kernels;"
        "from foveasim.viewer import compile_kernels as warm; import numpy as np;"
    )
    code += "warm._built_in = lambda: [];"
    code += "warm._run_kernels = lambda retinas, stop: print('drawn', kernels.mix(1, 2, 3, 4, 5));"
    code += "print('compiled', warm.compile_kernels())"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout.split())
    assert int(outputs[0][-1]) > 0
    assert int(outputs[1][-1]) == 0
    assert outputs[0][1] == outputs[1][1]


def _signatures() -> int:
    """Count the compiled versions of every kernel."""
    return sum(
        len(value.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith("foveasim.")
        for value in vars(module).values()
        if hasattr(value, "py_func") and hasattr(value, "signatures")
    )
