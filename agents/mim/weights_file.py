"""Files of trained networks: safetensors with the network's name, its config and a model card as JSON metadata.

A file is written under another name in the same folder, synced and renamed, so that a crash or a full disk leaves the
old file whole. Reading never unpickles and never imports: a file can name only a registered network.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from foveasim.agents.mim.network import NETWORKS, MimNetwork, make_network
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.runs.whole_files import write_atomically

__all__ = [
    "build_to_fit",
    "load_network",
    "read_card",
    "read_dtype",
    "read_tensors",
    "save_network",
    "shipped_networks",
    "write_tensors",
]

FORMAT = "foveasim-network-1"
M = TypeVar("M", bound=nn.Module)
DTYPES = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class _Found:
    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file so that ``path`` holds either the old file or the whole new one.

    Args:
        path: The file; its folder is made if it is missing.
        tensors: By name, on any device.
        metadata: Text by name.

    Raises:
        WeightsError: The folder cannot be written to or the disk is full.
    """
    target = Path(path)
    content = safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, dict(metadata))
    try:
        write_atomically(target, content)
    except OSError as error:
        raise WeightsError(
            f"cannot write {target} ({len(content) / 1e6:.1f} MB): {error.strerror or error}. An older file of that "
            "name is untouched. Free some space or choose a folder that you may write to."
        ) from error


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        Tensors by name, on the CPU, and the metadata.

    Raises:
        WeightsError: Missing, truncated or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.safetensors")], 1)
        hint = f" Did you mean {str(path.with_name(near[0]))!r}?" if near else ""
        raise WeightsError(
            f"no weights file {str(path)!r}.{hint} Give the path of a .safetensors file or the name of a shipped "
            f"network: {', '.join(shipped_networks())}."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({error}). Copy or train it again; other formats "
            "(.pt, .pth, .pkl) are not read, because they can run code."
        ) from error


class _Undrawn(TorchFunctionMode):
    """Draws no normal numbers: on the meta device torch would import its compiler for them, which takes 1.2 s."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.normal_ and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def build_to_fit(path: Path, what: str, build: Callable[[], M], tensors: Mapping[str, Tensor]) -> M:
    """Build a module for the tensors of a file, after making sure that they are its parameters.

    The config in a file can ask for any size. So the module is first built without memory, on torch's meta device, and
    for real only if the file holds tensors of just these shapes: what is asked for is then no more than the file is
    long. (A network of one's own that needs values when it is built cannot be built there, and is checked afterwards.)

    Args:
        path: The file, for messages.
        what: What it should be, for messages.
        build: Makes the module.
        tensors: What the file holds.

    Returns:
        The module, with fresh weights. No random state of the program changes.

    Raises:
        WeightsError: Tensors that are missing, superfluous, of another shape or not finite.
    """
    with torch.random.fork_rng(devices=[]):  # fresh weights are overwritten; a user's draws must not change
        try:
            with torch.device("meta"), _Undrawn():
                outline: M | None = build()
        except (NotImplementedError, RuntimeError):
            outline = None
        if outline is not None:
            _check_fit(path, what, outline.state_dict(), tensors)
        module = build()
    if outline is None:
        _check_fit(path, what, module.state_dict(), tensors)
    return module


def _check_fit(path: Path, what: str, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or extra:
        raise WeightsError(
            f"{path} does not fit {what}: missing tensors {_some(missing)}, superfluous {_some(extra)}. "
            "It was written by another version of it: train or download it again."
        )
    for key, value in tensors.items():
        if value.shape != wanted[key].shape:
            raise WeightsError(
                f"{path}: tensor {key!r} must be {tuple(wanted[key].shape)}; got {tuple(value.shape)}. "
                "Its config and its tensors do not belong together: train or download it again."
            )
        if not value.is_floating_point() or not bool(torch.isfinite(value.float()).all()):
            raise WeightsError(f"{path}: tensor {key!r} is not finite float numbers. Train or download it again.")


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}" if names else "none"


def save_network(
    path: str | os.PathLike[str],
    network: MimNetwork,
    card: Mapping[str, Any],
    *,
    dtype: str = "float16",
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network's parameters and its model card.

    Args:
        path: The file, ``….safetensors``.
        network: A registered network.
        card: What it was trained on, how, and how well it does; anything that JSON can hold.
        dtype: ``"float16"`` (half the size) or ``"float32"``.
        state: Parameters to write in place of the network's own, such as their moving average.

    Raises:
        InvalidValueError: Unknown dtype, or a parameter that is not finite or does not fit the dtype.
        WeightsError: The file cannot be written.
    """
    if dtype not in DTYPES:
        raise InvalidValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}.")
    tensors = {
        name: value.to(DTYPES[dtype]) for name, value in (network.state_dict() if state is None else state).items()
    }
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise InvalidValueError(f"parameter {name!r} is not finite in {dtype}. Training diverged: lower its lr.")
    metadata = {
        "format": FORMAT,
        "network": network.name,
        "config": json.dumps(network.config_dict()),
        "card": json.dumps(dict(card)),
    }
    write_tensors(path, tensors, metadata)


def shipped_networks() -> list[str]:
    """Return the names of the networks that come with the package."""
    folder = files("foveasim.agents.mim") / "weights"
    if not folder.is_dir():
        return []
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


@contextmanager
def _located(path_or_name: str | os.PathLike[str]) -> Iterator[Path]:
    """The file behind a path or the name of a shipped network."""
    text = os.fspath(path_or_name)
    if text in shipped_networks():
        with as_file(files("foveasim.agents.mim") / "weights" / f"{text}.safetensors") as path:
            yield path
        return
    if isinstance(path_or_name, str) and not Path(text).suffix and Path(text).name == text and not Path(text).exists():
        names = shipped_networks()
        near = difflib.get_close_matches(text, names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise WeightsError(
            f"no shipped network {text!r}.{hint} Choose from {', '.join(names)}, or give the path of a "
            ".safetensors file."
        )
    yield Path(text)


def _read(path_or_name: str | os.PathLike[str]) -> _Found:
    with _located(path_or_name) as path:
        tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} holds tensors but not a foveasim network (format {metadata.get('format')!r}, expected "
            f"{FORMAT!r}). A checkpoint of a training run lies beside the network that it exported: use that file."
        )
    return _Found(path, tensors, metadata)


def _json(found: _Found, key: str) -> Any:
    try:
        value = json.loads(found.metadata[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{found.path}: its {key} is missing or damaged. Copy or train it again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{found.path}: its {key} must be a JSON object; got {value!r}. Copy or train it again.")
    return value


def read_card(path_or_name: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the model card of a network's file.

    Raises:
        WeightsError: Missing or damaged.
    """
    card: dict[str, Any] = _json(_read(path_or_name), "card")
    return card


def read_dtype(path_or_name: str | os.PathLike[str]) -> str:
    """Return the number format of a network's file, ``"float16"`` or ``"float32"``.

    Raises:
        WeightsError: Missing or damaged, or of another format.
    """
    found = _read(path_or_name)
    formats = {value.dtype for value in found.tensors.values()}
    for name, dtype in DTYPES.items():
        if formats == {dtype}:
            return name
    raise WeightsError(f"{found.path} must hold float16 or float32 throughout; got {formats}. Train it again.")


def load_network(path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu") -> MimNetwork:
    """Load a trained network, frozen and ready to predict.

    Args:
        path_or_name: A ``.safetensors`` file or the name of a shipped network: ``"unet"``.
        device: Where to put it.

    Returns:
        The network in float32, in evaluation mode, its parameters not asking for gradients.

    Raises:
        WeightsError: Missing, truncated, of an unknown network, or with tensors that are missing, superfluous, of
            another shape or not finite.
    """
    found = _read(path_or_name)
    name, config = found.metadata.get("network", ""), _json(found, "config")
    if ":" in name or name not in NETWORKS:
        raise WeightsError(
            f"{found.path} is of the network {name!r}; known here: {', '.join(NETWORKS)}. "
            "Register its class in foveasim.agents.mim.network.NETWORKS before loading, or update foveasim."
        )
    try:
        network = build_to_fit(found.path, f"network {name!r}", lambda: make_network(name, **config), found.tensors)
    except WeightsError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{found.path}: its config does not fit network {name!r}: {error} Train or download it again."
        ) from error
    network.load_state_dict({key: value.float() for key, value in found.tensors.items()})
    return network.to(device).eval().requires_grad_(False)
