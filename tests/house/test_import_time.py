"""``import foveasim`` is quick, and loads nothing that a server without a screen would not want."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import foveasim
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "loaded": sorted(set(sys.modules) - before)}))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The quickest of three imports; the first one may still be reading from a cold disk."""
    folder: Path = tmp_path_factory.mktemp("elsewhere")
    runs: list[dict[str, object]] = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", MEASURE], cwd=folder, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return min(runs, key=lambda run: float(str(run["seconds"])))


def test_import_is_quick(measured: dict[str, object]) -> None:
    seconds = measured["seconds"]
    assert isinstance(seconds, float)
    assert seconds < 0.5, f"import foveasim takes {seconds:.2f} s beyond torch; see python -X importtime"


@pytest.mark.parametrize("package", ["numba", "cv2", "pygame", "stable_baselines3", "matplotlib", "tensorboard"])
def test_import_leaves_heavy_packages_alone(measured: dict[str, object], package: str) -> None:
    loaded = measured["loaded"]
    assert isinstance(loaded, list)
    assert "foveasim" in loaded
    assert package not in loaded, f"import foveasim imports {package}; import it inside the function that needs it"
