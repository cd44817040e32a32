"""Digests of values, and values that are compared within a tolerance."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import platform
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["ABOUT", "close", "defaults", "differences", "digest", "here", "json_digest", "machine", "numbers"]

ABOUT = "tolerance"
"""Key of a dictionary whose ``values`` are compared within it."""

HERE = "on the same machine"
"""Key of digests that count only where processor and libraries are those of the frozen values: other ones round floats
otherwise in the last bits."""

_LIBRARIES = ("torch", "numpy", "numba", "opencv-python-headless", "pillow")


def machine() -> dict[str, str]:
    """Return on what floats depend to the bit: processor and libraries."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    told = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    names = [told[key] for key in ("model name", "cpu family", "model", "stepping") if key in told]
    found = {"processor": ", ".join(names) or platform.processor() or platform.machine()}
    return found | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def here(*values: Any) -> dict[str, str]:
    """Return a digest that counts only on the same machine."""
    return {HERE: digest(*values)}


def digest(*values: Any) -> str:
    """Return the first 16 hexadecimal digits of SHA-256 of values: dtypes, shapes and bytes; keys in their order."""
    found = hashlib.sha256()
    _feed(found.update, values)
    return found.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, Mapping):
        update(f"dict {len(value)} ".encode())
        for key, one in value.items():
            update(f"{key!r}: ".encode())
            _feed(update, one)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(update, {field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, torch.Tensor):
        update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        update(value.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype == object:
        update(f"objects {value.shape} ".encode())
        for one in value.ravel():
            _feed(update, one)
    elif isinstance(value, np.ndarray | np.generic):
        update(f"{type(value).__name__} {value.dtype.str} {value.shape} ".encode() + value.tobytes())
    elif isinstance(value, list | tuple):
        update(f"{type(value).__name__} {len(value)} ".encode())
        for one in value:
            _feed(update, one)
    elif isinstance(value, bytes):
        update(f"bytes {len(value)} ".encode() + value)
    elif value is None or isinstance(value, bool | int | float | str):
        update(f"{type(value).__name__} {value!r} ".encode())
    elif isinstance(value, Path):
        raise TypeError(f"a path has no digest that survives another folder; got {value}.")
    else:
        raise TypeError(f"no digest of a {type(value).__name__}.")


def json_digest(value: Any) -> str:
    """Return a digest of what JSON can hold; floats count with 6 digits."""
    if isinstance(value, Mapping):
        return digest([[str(key), json_digest(one)] for key, one in value.items()])
    if isinstance(value, list | tuple):
        return digest([json_digest(one) for one in value])
    return digest(f"{value:.6g}" if isinstance(value, float) else value)


def close(values: Any, tolerance: float) -> dict[str, Any]:
    """Return numbers that are compared within a tolerance, rounded well below it."""
    array = np.asarray(torch.as_tensor(values).detach().cpu() if isinstance(values, torch.Tensor) else values)
    flat = [None if np.isnan(value) else round(float(value), 5) + 0.0 for value in array.astype(np.float64).ravel()]
    return {"shape": list(array.shape), "values": flat, ABOUT: tolerance}


def numbers(value: Any, tolerance: float) -> dict[str, Any]:
    """Return a summary of an array: shape, dtype, and mean, spread and a few values within a tolerance."""
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    flat = array.astype(np.float64).ravel()
    chosen = flat[np.linspace(0, flat.size - 1, min(6, flat.size)).astype(int)]
    summary = close([flat.mean(), flat.std(), *chosen], tolerance)
    return {"dtype": str(array.dtype), "of": list(array.shape), **summary}


def differences(frozen: Any, now: Any, place: str = "", *, same_machine: bool = True) -> list[str]:
    """Return where two results differ, and how, a line each."""
    if isinstance(frozen, dict) and isinstance(now, dict):
        if HERE in frozen and HERE in now and not same_machine:
            return []
        if ABOUT in frozen and "values" in frozen:
            return _numbers_differ(frozen, now, place)
        found = [f"{place}/{key}: is gone (was {_short(frozen[key])})" for key in frozen.keys() - now.keys()]
        found += [f"{place}/{key}: is new ({_short(now[key])})" for key in now.keys() - frozen.keys()]
        found.sort()
        shared = [key for key in frozen if key in now]
        for key in shared:
            found += differences(frozen[key], now[key], f"{place}/{key}", same_machine=same_machine)
        if not found and shared != [key for key in now if key in frozen]:
            found.append(f"{place}: the same keys in another order: {', '.join(now)}")
        return found
    same = type(frozen) is type(now) and frozen == now
    return [] if same else [f"{place}: was {_short(frozen)}, is {_short(now)}"]


def _numbers_differ(frozen: dict[str, Any], now: dict[str, Any], place: str) -> list[str]:
    about = {key: value for key, value in frozen.items() if key not in ("values", ABOUT)}
    others = {key: value for key, value in now.items() if key not in ("values", ABOUT)}
    if about != others or len(frozen["values"]) != len(now.get("values", ())):
        return [f"{place}: was {about}, {len(frozen['values'])} values; is {others}"]
    was, found = np.array(frozen["values"], np.float64), np.array(now["values"], np.float64)
    away = np.abs(was - found)
    away[np.isnan(was) & np.isnan(found)] = 0
    if not away.size or bool((away <= frozen[ABOUT]).all()):
        return []
    worst = int(np.nanargmax(np.where(np.isnan(away), np.inf, away)))
    return [f"{place}: value {worst} was {was[worst]:g}, is {found[worst]:g}; allowed are {frozen[ABOUT]:g}"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def defaults(made: Callable[..., Any]) -> dict[str, str]:
    """Return the parameters of a class or function in their order, and the repr of what each is by default."""
    found = {}
    for name, parameter in inspect.signature(made).parameters.items():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = "required" if parameter.default is parameter.empty else repr(parameter.default)
        found[star + name] = type(parameter.default).__name__ if " at 0x" in text or "foveasim." in text else text
    return found
