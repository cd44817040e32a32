from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from foveasim.agents.mim.network import make_network
from foveasim.agents.mim.networks.paper import PaperNetwork
from foveasim.agents.mim.networks.unet import UNetNetwork
from foveasim.agents.mim.weights_file import (
    load_network,
    read_card,
    read_tensors,
    save_network,
    shipped_networks,
    write_tensors,
)
from foveasim.agents.pretraining.prediction_error import evaluate
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.eye.retina import make_retina
from foveasim.images.pool import centred
from foveasim.images.reading import read_pool

BOUNDS = (0.82, 0.63, 0.48)
"""Greatest error of the shipped network after 1, 4 and 8 fixations, relative to filling with the visible mean."""

SMALL = {"widths": (8, 8, 8), "blocks": (0, 0, 1)}


def small(seed: int = 0) -> UNetNetwork:
    network = make_network("unet", **SMALL)
    assert isinstance(network, UNetNetwork)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def rewrite(path: Path, **changes: object) -> None:
    """Change the tensors or metadata of a file: None deletes."""
    tensors, metadata = read_tensors(path)
    for name, value in changes.items():
        target: dict[str, object] = metadata if name in metadata else tensors  # type: ignore[assignment]
        if value is None:
            target.pop(name.replace("__", "."))
        else:
            target[name.replace("__", ".")] = value
    write_tensors(path, tensors, metadata)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_saved_comes_back(tmp_path: Path, dtype: str) -> None:
    path, network = tmp_path / "new" / "net.safetensors", small()
    save_network(path, network, {"trained_on": ["photographs"], "figure": 0.5}, dtype=dtype)
    loaded = load_network(path)
    assert loaded.config == network.config and loaded.name == "unet"
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    for name, value in network.state_dict().items():
        expected = value if dtype == "float32" else value.half().float()
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], expected)
    assert read_card(path) == {"trained_on": ["photographs"], "figure": 0.5}
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


def test_paper_network_round_trip(tmp_path: Path) -> None:
    save_network(tmp_path / "p.safetensors", PaperNetwork(), {})
    assert load_network(tmp_path / "p.safetensors").name == "paper"


def test_another_state_is_saved_in_place_of_the_networks_own(tmp_path: Path) -> None:
    save_network(tmp_path / "n.safetensors", small(0), {}, dtype="float32", state=small(1).state_dict())
    assert torch.equal(load_network(tmp_path / "n.safetensors").state_dict()["stem.weight"], small(1).stem.weight)


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, small(), {"version": 1})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"No space left.*untouched.*Free some space"):
        save_network(path, small(1), {"version": 2})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(WeightsError, match="choose a folder"):
        save_network(tmp_path / "taken" / "net.safetensors", small(), {})


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, small(), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"truncated.*again"):
        load_network(path)


def test_pickle_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "net.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="can run code"):
        load_network(tmp_path / "net.pt")
    assert not (tmp_path / "exploded").exists()


def test_missing_file_suggests_the_nearest(tmp_path: Path) -> None:
    save_network(tmp_path / "unet2.safetensors", small(), {})
    with pytest.raises(WeightsError, match=r"Did you mean .*unet2.safetensors"):
        load_network(tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match="no shipped network 'unett'"):
        load_network("unett")


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for changes, message in (
        ({"stem__weight": None}, r"missing tensors stem\.weight"),
        ({"other": torch.zeros(2)}, "superfluous other"),
        ({"stem__bias": torch.zeros(3)}, r"must be \(8,\); got \(3,\)"),
        ({"stem__bias": torch.full((8,), float("nan"))}, "not finite"),
        ({"stem__bias": torch.zeros(8, dtype=torch.int64)}, "not finite float"),
        ({"network": "unheard-of"}, "known here: paper, "),
        ({"network": "os.path:join"}, "known here: paper, "),
        ({"config": json.dumps({"width": 3})}, "does not fit"),
        ({"config": json.dumps({"widths": [16, 8, 8]})}, "missing tensors|must be"),
        ({"config": "{"}, "damaged"),
        ({"format": "something else"}, "not a foveasim network"),
    ):
        save_network(path, small(), {})
        rewrite(path, **changes)
        with pytest.raises(WeightsError, match=message):
            load_network(path)


def test_foreign_safetensors_are_named(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="not a foveasim network"):
        load_network(tmp_path / "a.safetensors")


def test_diverged_parameters_are_not_saved(tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():
        network.stem.weight[0] = 1e6  # finite as float32 only
    with pytest.raises(InvalidValueError, match=r"stem.weight.*float16"):
        save_network(tmp_path / "n.safetensors", network, {})
    with pytest.raises(InvalidValueError, match="dtype"):
        save_network(tmp_path / "n.safetensors", network, {}, dtype="int8")


def test_unet_ships() -> None:
    assert "unet" in shipped_networks()
    network, card = load_network("unet"), read_card("unet")
    assert network.name == "unet"
    assert card["trained_on"] and card["licence"] and card["command"]
    assert all("/" not in name for name in card["trained_on"])


def test_shipped_unet_does_as_well_as_its_card_says(shared_data: Path) -> None:
    images = centred(read_pool([f"{shared_data / 'natural.tar'}@test"]), (96, 96))
    found = evaluate(load_network("unet"), images, make_retina("disc", hidden_ratio=0.8), (1, 4, 8))
    card = read_card("unet")["test"]
    for n, relative, bound in zip((1, 4, 8), found.relative, BOUNDS, strict=True):
        # The card has eight draws of fixations for each image, this one: its standard deviation is 0.017.
        assert relative == pytest.approx(card[str(n)]["relative_error"], abs=0.06)
        assert card[str(n)]["relative_error"] <= bound


def test_reading_a_network_does_not_load_the_compiler() -> None:
    code = "import sys; from foveasim.agents.mim.weights_file import load_network; load_network('unet');"
    code += "sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
