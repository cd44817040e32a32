"""What is kept of agents that are done, and the folder that it lies in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from foveasim.agents.kept import KeptFiles, check_folder, kept_in
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


def test_a_folder_is_looked_at_before_the_work(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    check_folder(out, "compare.json", resume=False, overwrite=False)
    assert out.is_dir() and not list(out.iterdir())
    (out / ".table.csv.part").write_bytes(b"half")
    check_folder(out, "compare.json", resume=True, overwrite=False)
    assert not list(out.iterdir())
    (out / "compare.json").write_text("{}")
    with pytest.raises(InvalidValueError, match="holds a comparison already"):
        check_folder(out, "compare.json", resume=False, overwrite=False)
    kept_in(out).mkdir()
    with pytest.raises(InvalidValueError, match=r"not finished\. Go on with it by --resume"):
        check_folder(out, "compare.json", resume=False, overwrite=False)
    check_folder(out, "compare.json", resume=False, overwrite=True)
    with pytest.raises(InvalidValueError, match="not both"):
        check_folder(out, "compare.json", resume=True, overwrite=True)
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        check_folder(out / "compare.json", "compare.json", resume=False, overwrite=False)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user other than root")
def test_a_folder_that_is_read_only_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidValueError, match="out must be a folder that can be written to"):
        check_folder(tmp_path, "compare.json", resume=False, overwrite=False)
