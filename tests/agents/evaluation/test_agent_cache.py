"""What is cached of agents that are done, and the folder that it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foveasim.agents.evaluation.agent_cache import AgentCache, cache_folder
from foveasim.errors import InvalidValueError


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    cache = AgentCache(tmp_path, "a", "other scenes")
    assert cache.load("x=random") is None
    cache.save("x=random", {"points": torch.arange(3)}, {"lanes": 2})
    found = cache.load("x=random")
    assert found is not None
    assert found[0]["points"].tolist() == [0, 1, 2] and found[1]["lanes"] == 2
    assert cache.load("y=random") is None
    with pytest.raises(InvalidValueError, match="holds a comparison of other scenes"):
        AgentCache(tmp_path, "b", "other scenes").load("x=random")
    (file,) = cache_folder(tmp_path).iterdir()
    file.write_bytes(file.read_bytes()[:20])  # as no crash leaves it: it is made anew
    assert cache.load("x=random") is None
    cache.clear()
    cache.clear()
    assert not list(tmp_path.iterdir())
