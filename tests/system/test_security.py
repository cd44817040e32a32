"""Nothing that is read runs code, leaves its folder or asks for more than it may: by the source, by crafted files."""

from __future__ import annotations

import ast
import base64
import gzip
import io
import json
import os
import pickle
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from foveasim.agents.gaze_policy.policy_files import load_policy
from foveasim.agents.loading import make_agent
from foveasim.agents.mim.weights_file import load_network
from foveasim.agents.rl.sb3_agent import algorithm_of
from foveasim.cli.commands import main
from foveasim.errors import AgentError, FoveasimError, SceneError, UntrustedError, WeightsError
from foveasim.images import archives
from foveasim.images.archives import unpack
from foveasim.images.reading import read_pool
from foveasim.scenes.source import open_scenes
from foveasim.trust import guarded

# The source

UNSAFE_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "shelve",
    "code",
}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
UNSAFE_CALLS = {
    "os": {
        "system",
        "popen",
        "execl",
        "execle",
        "execlp",
        "execv",
        "execve",
        "execvp",
        "spawnl",
        "spawnv",
        "startfile",
    },
    "runpy": {"run_path", "run_module"},
    "shutil": {"unpack_archive"},
    "subprocess": {"getoutput", "getstatusoutput"},
    "tempfile": {"mktemp"},
    "yaml": {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"},
}
UNPICKLERS = {"torch": {"load", "hub"}, "np": {"DataSource"}, "pd": {"read_pickle"}}
EXTRACTORS = {"extractall", "extract"}
LOADERS_BY_NAME = {"foveasim/registry.py", "foveasim/cli/commands.py", "agents/rl/sb3_agent.py"}
"""Where a module is imported by a name that is not written there: the resolver, the command line, saved models."""

LOADERS_BY_NAME |= {"foveasim/bench/peers.py", "agents/rl/engine_rllib.py"}
"""And of one library, some parts that are named in the same file."""

LOADERS_BY_NAME |= {"foveasim/lazy_names.py"}
"""And what a package's own table offers: modules of foveasim, which tests/house/test_face.py holds it to."""


def faults(source: str, file: str = "") -> list[str]:
    """Return what in a module could run code or leave a folder."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = f"line {getattr(node, 'lineno', 0)}"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"{line}: imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_NAMES:
            found.append(f"{line}: {node.func.id}")
        for keyword in node.keywords:
            constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else "?"
            if keyword.arg in ("shell", "allow_pickle") and constant is not False:
                found.append(f"{line}: {keyword.arg}")
        if not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        called = node.func.attr
        if called in UNSAFE_CALLS.get(owner, ()) or called in UNPICKLERS.get(owner, ()):
            found.append(f"{line}: {owner}.{called}")
        if called in EXTRACTORS or (called == "load" and owner.startswith("algorithm") and file not in LOADERS_BY_NAME):
            found.append(f"{line}: {called}")
        plain = node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        if called == "import_module" and not plain and file not in LOADERS_BY_NAME:
            found.append(f"{line}: import_module of a name that is not written here")
    return found


def test_no_module_can_run_what_it_reads(
    module_faults: Callable[[Callable[[str, str], Iterable[str]]], list[str]],
    module_files: dict[str, Path],
    root: Path,
) -> None:
    found = module_faults(lambda module, source: faults(source, module_files[module].relative_to(root).as_posix()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(x)",
        "exec(x)",
        "compile(x, '', 'exec')",
        "__import__(x)",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "yaml.load(f, Loader=L)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "archive.extractall(p)",
        "importlib.import_module(name)",
        "algorithm.load(path)",
    ],
)
def test_the_faults_are_noticed(source: str) -> None:
    assert faults(source)
    assert not faults("import json\njson.loads(x)\nyaml.safe_load(f)\nnp.load(f, allow_pickle=False)\nre.compile(x)")


# Crafted files


class Mark:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_mark_is_left_where_something_runs(mark: Path) -> None:
    pickle.loads(pickle.dumps(Mark(mark)))
    assert mark.is_dir()


def pickled(mark: Path, kind: str) -> bytes:
    if kind == "pickle":
        return pickle.dumps(Mark(mark))
    target = io.BytesIO()
    if kind == "torch":
        torch.save({"weight": Mark(mark)}, target)
    elif kind == "numpy":
        np.savez(target, a=np.array([Mark(mark)], dtype=object))
    else:
        hidden = base64.b64encode(pickle.dumps(Mark(mark))).decode()
        settings = {
            "policy_class": {"__module__": "stable_baselines3.common.policies", ":serialized:": hidden},
            "clip_range": {":serialized:": hidden},
        }
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("data", json.dumps(settings))
            archive.writestr("policy.pth", pickle.dumps(Mark(mark)))
    return target.getvalue()


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy", "model"])
def test_a_pickle_by_any_name_is_not_opened(mark: Path, kind: str) -> None:
    for ending in (
        ".safetensors",
        ".zip",
        ".pt",
        ".pth",
        ".pkl",
        ".ckpt",
        ".png",
        ".tar",
        ".mp4",
        ".gif",
        ".npy",
        ".npz",
    ):
        path = Path(f"file{ending}")
        path.write_bytes(pickled(mark, kind))
        for opens in (load_network, load_policy, make_agent, open_scenes):
            with pytest.raises(FoveasimError):
                opens(str(path))  # type: ignore[operator]
        unpacked = Path("unpacked")
        with pytest.raises(FoveasimError):
            unpack(path, unpacked, max_bytes=10_000)
        assert not mark.exists(), f"{kind} ran as {path}"


@pytest.mark.parametrize("command", ["record", "check"])
def test_a_model_needs_trust_and_the_error_says_so(
    mark: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.zip").write_bytes(pickled(mark, "model"))
    named = ["model.zip"] if command == "check" else ["--agent", "model.zip", "--seconds", "0.1"]
    assert main([command, *named]) == 1
    said = capsys.readouterr().err
    assert "can run any code" in said
    assert "--trust" in said
    assert not mark.exists()


def test_trust_from_a_file_is_none(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.zip").write_bytes(pickled(mark, "model"))
    Path("config.yaml").write_text("agent: model.zip\nagent_arguments: {trust: true}\nseconds: 0.1\n", encoding="utf-8")
    assert main(["record", "--config", "config.yaml"]) == 1
    assert "--trust" in capsys.readouterr().err
    Path("config.yaml").write_text("trust: true\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["record", "--config", "config.yaml"])
    assert not mark.exists()


def test_a_trusted_model_of_another_kind_is_explained(mark: Path) -> None:
    for name, content, said in (
        ("empty.zip", b"", "must be a zip that stable-baselines3 saved"),
        ("none.zip", b"PK\x05\x06" + bytes(18), "must be a zip that stable-baselines3 saved"),
    ):
        Path(name).write_bytes(content)
        with guarded({}, trusts=True), pytest.raises(AgentError, match=said):
            make_agent(name)
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(1 << 27))
    with guarded({}, trusts=True), pytest.raises(AgentError, match="settings claim 134,217,728 bytes"):
        make_agent("bomb.zip")
    with zipfile.ZipFile("odd.zip", "w") as archive:
        archive.writestr("data", json.dumps({"policy_class": {"__module__": "planted.policies"}}))
    with guarded({}, trusts=True), pytest.raises(AgentError, match=r"its policy is of 'planted\.policies'"):
        make_agent("odd.zip")
    assert not mark.exists()


@pytest.mark.slow  # importing stable-baselines3 takes seconds
def test_a_model_of_ones_own_runs_with_trust(mark: Path) -> None:
    gym = pytest.importorskip("gymnasium")
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("foveasim/Glimpse-v0", scenes="noise", size=(40, 40), retina="disc")
    options = {"net_arch": [4], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    for algorithm in (sb3.PPO, sb3.A2C):
        model = algorithm("MultiInputPolicy", env, n_steps=64, policy_kwargs=options, seed=0, device="cpu")
        model.save("model.zip")
        assert algorithm_of("model.zip") == f"stable_baselines3:{algorithm.__name__}"
        with pytest.raises(UntrustedError, match="add --trust"):
            make_agent("model.zip")
        with guarded({}, trusts=True):
            agent = make_agent("model.zip", seed=3)
        observation, _ = env.reset(seed=0)
        agent.reset(np.ones(1, bool))
        assert agent.act({key: value[None] for key, value in observation.items()}).shape == (1, 2)


@pytest.mark.parametrize(
    "text",
    [
        "agent: !!python/object/apply:os.mkdir [it_ran]",
        "agent: !!python/object/new:os.mkdir [it_ran]",
        "agent: !!python/name:os.mkdir",
        "agent_arguments: {x: !!python/object/apply:os.mkdir [it_ran]}",
        "!!python/object/apply:os.mkdir [it_ran]",
        "agent_arguments: {x: {class_path: planted.Agent}}",
        "agent_arguments: {x: [{class_path: planted.Agent}]}",
        "agent_arguments.x.class_path: planted.Agent",
        "agent_arguments: nested.yaml",
        "agent_arguments: '{x: {class_path: planted.Agent}}'",
        "retina_options: {x: {class_path: planted.Agent, init_args: {}}}",
        "agent_arguments: {seed: {class_path: subprocess.Popen, init_args: {args: [mkdir, it_ran]}}}",
        "agent: {class_path: subprocess.Popen, init_args: {args: [mkdir, it_ran]}}",
    ],
)
@pytest.mark.parametrize("trust", [[], ["--trust"]])
def test_yaml_makes_no_objects(planted: Path, text: str, trust: list[str]) -> None:
    Path("nested.yaml").write_text("x: {class_path: planted.Agent}\n", encoding="utf-8")
    Path("config.yaml").write_text(f"{text}\n", encoding="utf-8")
    try:
        status = main(["record", "--seconds", "-1", "--config", "config.yaml", *trust])
    except SystemExit as left:
        status = int(str(left.code))
    assert status in (1, 2)
    assert not planted.exists()


BILLION = "\n".join(["x0: &x0 [1]", *(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 10))])
"""Ten aliases of ten aliases ..."""

MERGED = "\n".join(
    ["x0: &x0 {a: 1}", *(f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 10)}], b{n}: 1}}" for n in range(1, 7))]
)
"""The same by merge keys, of which PyYAML makes gigabytes of pairs before it makes a dict of seven."""


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: &a [*a, *a]", BILLION, MERGED], ids=["deep", "endless", "billion", "merged"]
)
def test_yaml_is_no_bomb(mark: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(text, encoding="utf-8")
    tracemalloc.start()
    try:
        with pytest.raises(SystemExit) as left:
            main(["record", "--seconds", "-1", "--config", "config.yaml"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
    assert left.value.code == 2
    assert "nested more than 100 deep" in (said := capsys.readouterr().err) or "more than 100,000 parts" in said


def test_presets_name_no_code(root: Path) -> None:
    presets = sorted(root.glob("agents/*/presets/**/*.yaml"))
    assert presets
    for path in presets:
        assert ":" not in json.dumps(list(yaml.safe_load(path.read_text(encoding="utf-8")).values())).replace('": ', "")


def test_a_library_cannot_be_shadowed_by_a_folder(mark: Path) -> None:
    for name in ("json", "torch", "foveasim", "gymnasium"):
        Path(f"{name}.py").write_text(f"import os; os.mkdir({str(mark)!r})", encoding="utf-8")
    main(["info"])
    assert sys.path.index(os.getcwd()) == len(sys.path) - 1  # noqa: PTH109
    assert not mark.exists()


# Archives; tests/images/test_archives.py has links, devices, absolute paths and `..`


def header_bomb(kind: bytes) -> bytes:
    """A compressed archive of which one entry's header is 64 MB long; 60 kB."""
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = kind, 1 << 26
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes((1 << 26) + (1 << 14)), 1)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_cannot_be_a_bomb(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "imagenette2.tar.gz"
    path.write_bytes(header_bomb(kind))
    tracemalloc.start()
    try:
        for opens in (
            lambda: unpack(path, tmp_path / "out", max_bytes=1 << 40),
            lambda: open_scenes("imagenette", path=path, split="train"),
            lambda: read_pool(str(path)),
        ):
            with pytest.raises(SceneError, match="archive"):
                opens()
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.glob("out/*"))


def test_an_archive_cannot_have_entries_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 20)
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as archive:
        for number in range(40):
            archive.addfile(tarfile.TarInfo(f"{number}"))
    with pytest.raises(SceneError, match="more than 20 entries"):
        unpack(tmp_path / "many.tar.gz", tmp_path / "out", max_bytes=10_000)


def test_a_zip_bomb_writes_no_more_than_it_may(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("zeros")
        entry.size = 1 << 24
        archive.addfile(entry, io.BytesIO(bytes(1 << 24)))
    with pytest.raises(SceneError, match="unpacks to more than 100,000 bytes"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out", max_bytes=100_000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) < 100_000


def test_a_folder_that_is_a_link_is_not_followed_out(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "a").symlink_to(outside)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("a/b.txt")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"no"))
    with pytest.raises(SceneError):
        unpack(tmp_path / "a.tar", inside, max_bytes=1000)
    assert not list(outside.iterdir())


def test_weights_with_a_name_that_is_a_device(tmp_path: Path) -> None:
    for name in ("/dev/zero", "/dev/stdin", str(tmp_path), "no/such"):
        with pytest.raises(WeightsError):
            load_network(Path(name))
