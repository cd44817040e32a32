"""What foveasim does is what it did when baseline.json was frozen.

Moving modules, splitting them, breaking circles of imports must change nothing that a user meets; a change on purpose
is frozen by ``python tests/system/freeze_baseline.py NAME``, and the diff of baseline.json says what it is.

Exact wherever it runs: every episode (observations, rewards, ends and infos, with dtypes and the order of keys; the
kernels are compiled without fused operations), streams of seeds, scenes, what files hold, and all public promises.
Within a tolerance that stands beside the values: whatever passes through torch, such as agents with networks,
predictions, readouts (that of Classify-v0 too), resumed runs. Of those there are digests too, which count only on the
machine (processor and versions of libraries) on which the values were frozen: there they are the same to the bit.

Modules are named in imports alone, and files by their place beside this one: both survive a move of foveasim's modules.
"""

from __future__ import annotations

import pytest
from freeze_baseline import PARTS, read, work_out
from frozen.digest import close, differences, here, machine
from frozen.paths import RECORDED

FOUND = read()
SAME = FOUND["machine"] == machine()


@pytest.mark.parametrize("name", list(PARTS))
def test_it_is_as_it_was(name: str) -> None:
    changed = differences(FOUND["parts"][name], work_out(name), name, same_machine=SAME)
    assert not changed, "\n" + "\n".join(changed[:40])


def test_all_parts_are_frozen() -> None:
    assert list(FOUND["parts"]) == list(PARTS)


def test_recorded_files_are_small_and_of_no_machine() -> None:
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    sizes = {path.relative_to(RECORDED).as_posix(): path.stat().st_size for path in files}
    assert max(sizes.values()) < 100_000 and sum(sizes.values()) < 1_000_000, sizes
    for path in files:
        if path.suffix in (".json", ".csv", ".jsonl", ".safetensors"):
            assert b"/home/" not in path.read_bytes() and b"/tmp/" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("frozen", "now", "said"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["/b: was 2, is 3"]),
        ({"a": 1}, {"a": 1.0}, ["/a: was 1, is 1.0"]),
        ({"a": 1}, {"b": 1}, ["/a: is gone (was 1)", "/b: is new (1)"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [": the same keys in another order: b, a"]),
        (close([1.0, 2.0], 0.1), close([1.0, 2.2], 0.1), [": value 1 was 2, is 2.2; allowed are 0.1"]),
        (close([1.0, float("nan")], 0.1), close([1.0, 2.2], 0.1), [": value 1 was nan, is 2.2; allowed are 0.1"]),
        (close([1.0, float("nan")], 0.1), close([1.05, float("nan")], 0.1), []),
        (close([1.0], 0.1), close([1.0, 1.0], 0.1), [": was {'shape': [1]}, 1 values; is {'shape': [2]}"]),
    ],
)
def test_differences_are_said(frozen: object, now: object, said: list[str]) -> None:
    assert differences(frozen, now) == said


def test_bits_count_on_the_same_machine_alone() -> None:
    frozen, now = {"x": here(1.0)}, {"x": here(1.0 + 1e-15)}
    assert len(differences(frozen, now, same_machine=True)) == 1
    assert not differences(frozen, now, same_machine=False)
