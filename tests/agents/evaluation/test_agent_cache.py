"""What is kept of agents that are done, and the folder that it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveasim.agents.evaluation.agent_cache import KeptFiles, kept_in
from foveasim.errors import InvalidValueError


def test_what_is_kept_is_taken_again(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path, "a", "other scenes")
    assert files.take("x=random") is None
    files.keep("x=random", {"points": torch.arange(3)}, {"lanes": 2})
    found = files.take("x=random")
    assert found is not None
    assert found[0]["points"].tolist() == [0, 1, 2] and found[1]["lanes"] == 2
    assert files.take("y=random") is None
    with pytest.raises(InvalidValueError, match="holds a comparison of other scenes"):
        KeptFiles(tmp_path, "b", "other scenes").take("x=random")
    (file,) = kept_in(tmp_path).iterdir()
    file.write_bytes(file.read_bytes()[:20])  # as no crash leaves it: it is made anew
    assert files.take("x=random") is None
    files.forget()
    files.forget()
    assert not list(tmp_path.iterdir())
