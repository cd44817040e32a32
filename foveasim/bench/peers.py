"""Others that do the same, on the same images in the same run: ap_gym, and the published code of the paper.

Neither is part of foveasim: ap_gym comes from PyPI, FocusMIM from a checkout that is named on the command line.

ap_gym brings two dozen packages along, so an environment of its own may be wanted, here from a checkout::

    python -m venv peers
    peers/bin/pip install -c constraints.txt -e '.[rl]' ap_gym==0.7.1 Pillow aiohttp scipy
    peers/bin/foveasim bench --peers --out bench.json
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from foveasim.bench.networks import SIDE, TECHNIQUES
from foveasim.bench.timing import EPISODE, Case, Setting, pictures, rate_case
from foveasim.errors import FoveasimError
from foveasim.registry import describe

__all__ = ["AP_GYM_VERSION", "ap_gym_cases", "check_ap_gym", "focusmim_cases", "load_masked_dataset"]

AP_GYM_VERSION = "0.7.1"
_INSTALL = f"pip install ap_gym=={AP_GYM_VERSION} Pillow aiohttp scipy"
"""Pillow and aiohttp are not among its declared dependencies."""

_SENSORS = (12, 96)
_LANES = 256
_N_IMAGES = 256
_CLASSES = 10
_BATCH = 32


def check_ap_gym() -> str:
    """Return ap_gym's version.

    Raises:
        FoveasimError: It is not there, or not whole; the message says what to install.
    """
    try:
        importlib.import_module("ap_gym")
    except ImportError as error:
        missing = getattr(error, "name", None) or str(error)
        what = "ap_gym is not installed" if missing == "ap_gym" else f"ap_gym cannot be imported, it needs {missing}"
        raise FoveasimError(f"--peers: {what}. Install it: {_INSTALL}") from error
    try:
        return version("ap_gym")
    except PackageNotFoundError:
        return "unknown"


def _ap_gym_config(sensor: int, seed: int) -> Any:
    image = importlib.import_module("ap_gym.envs.image")
    base: Any = image.ImageClassificationDataset
    images = pictures(SIDE, _N_IMAGES, seed)

    def batch(self: Any, index: Any) -> tuple[Any, Any]:
        return images[index], np.asarray(index) % _CLASSES

    members = {
        "_get_num_classes": lambda self: _CLASSES,
        "_get_num_channels": lambda self: 3,
        "_get_length": lambda self: len(images),
        "_get_data_point_batch": batch,
    }
    in_memory = type("InMemory", (base,), members)
    return image.ImagePerceptionConfig(dataset=in_memory(), sensor_size=(sensor, sensor), step_limit=EPISODE)


def _ap_gym_actions(space: Any, seed: int, count: int) -> list[dict[str, Any]]:
    """Return actions with predictions of their classes, as ap_gym wants them at every step."""
    rng, shape = np.random.default_rng(seed), space["prediction"].shape
    space["action"].seed(seed)
    return [
        {"action": space["action"].sample(), "prediction": rng.normal(size=shape).astype(np.float32)}
        for _ in range(count)
    ]


def _ap_gym_single(sensor: int, setting: Setting) -> Iterator[Callable[[], int]]:
    """Make it as its users do: by its own ``make``, with the log wrapper that all of its image envs have."""
    peer, envs = (importlib.import_module(name) for name in ("ap_gym", "ap_gym.envs.image_classification"))
    config = _ap_gym_config(sensor, setting.seed)

    def make(**options: Any) -> Any:
        return peer.ActiveClassificationLogWrapper(envs.ImageClassificationEnv(config, **options))

    env = peer.make(EnvSpec("foveasim-bench/ApGym-v0", entry_point=make))
    env.reset(seed=setting.seed)
    actions = _ap_gym_actions(env.action_space, setting.seed, EPISODE)

    def work() -> int:
        env.reset()
        for action in actions:
            env.step(action)
        return EPISODE

    yield work
    env.close()


def _ap_gym_vector(sensor: int, setting: Setting) -> Iterator[Callable[[], int]]:
    peer, module = (importlib.import_module(name) for name in ("ap_gym", "ap_gym.envs.image_classification"))
    plain = module.ImageClassificationVectorEnv(_LANES, _ap_gym_config(sensor, setting.seed))
    envs = peer.ActiveClassificationVectorLogWrapper(plain)
    envs.reset(seed=setting.seed)
    actions = _ap_gym_actions(envs.action_space, setting.seed, EPISODE + 1)

    def work() -> int:
        for action in actions:
            envs.step(action)
        return EPISODE * _LANES

    yield work
    envs.close()


def ap_gym_cases() -> list[Case]:
    """Return ap_gym's image env, single through ``gym.make`` and its own vector env, by the side of its sensor."""
    cases = []
    for sensor in _SENSORS:
        size = f"{sensor}x{sensor}"
        single = functools.partial(_ap_gym_single, sensor)
        about = f"ap_gym on the same images, sensor {size}"
        name = f"peer/ap_gym/single/{size}"
        cases.append(rate_case(name, f"{about}, resets included", "steps/s", single))
        vector = functools.partial(_ap_gym_vector, sensor)
        name = f"peer/ap_gym/vector/{size}"
        cases.append(rate_case(name, f"{about}, {_LANES} lanes, resets included", "steps/s", vector))
    return cases


def load_masked_dataset(path: str | Path) -> Any:
    """Return the class that a checkout of FocusMIM masks images with.

    Its modules are called ``data``, as others may be: it is imported with the checkout first on the path, and what it
    brought into ``sys.modules`` under that name is taken out again.

    Raises:
        FoveasimError: No such checkout, or something that it imports is not there.
    """
    root = Path(path).expanduser().resolve()
    if not (root / "data" / "dataset.py").is_file():
        raise FoveasimError(
            f"--focusmim {path}: there is no data/dataset.py. Give the folder of a checkout: "
            "git clone https://github.com/RobinWeiler/FocusMIM"
        )

    def is_checkout_module(name: str) -> bool:
        return name == "data" or name.startswith("data.")

    with _IMPORT_LOCK:
        displaced = {name: sys.modules.pop(name) for name in list(sys.modules) if is_checkout_module(name)}
        sys.path.insert(0, str(root))
        try:
            found = importlib.import_module("data.dataset").MaskedDataset
        except ImportError as error:
            missing = getattr(error, "name", None) or str(error)
            raise FoveasimError(
                f"--focusmim {path}: its data/dataset.py needs {missing}, which cannot be imported here. "
                f"Install it: pip install {missing.partition('.')[0]}"
            ) from error
        except Exception as error:  # a torchvision built for another torch raises RuntimeError, for one
            raise FoveasimError(
                f"--focusmim {path}: its MaskedDataset in data/dataset.py cannot be used: {describe(error)}."
            ) from error
        finally:
            sys.path.remove(str(root))
            for name in [name for name in sys.modules if is_checkout_module(name)]:
                del sys.modules[name]
            sys.modules.update(displaced)
    return found


_IMPORT_LOCK = threading.Lock()


def _focusmim(dataset: Any, technique: str, crops: bool, setting: Setting) -> Iterator[Callable[[], int]]:
    from PIL import Image
    from torch.utils.data import default_collate

    images = [(Image.fromarray(image), 0) for image in pictures(SIDE, _N_IMAGES, setting.seed)]
    ratio = TECHNIQUES[technique][1].get("hidden_ratio", 0.5)
    masked = dataset(images, masking_mode=technique, masking_ratio=ratio, random_crop=crops, seed=setting.seed)
    rng = np.random.default_rng(setting.seed)

    def work() -> int:
        default_collate([masked[int(index)] for index in rng.integers(len(images), size=_BATCH)])
        return _BATCH

    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(setting.seed)
        yield work


def focusmim_cases(path: str | Path) -> list[Case]:
    """Return the published pipeline, image by image in this process, by masking technique.

    Raises:
        FoveasimError: See :func:`load_masked_dataset`.
    """
    dataset, cases = load_masked_dataset(path), []
    for technique in TECHNIQUES:
        for crops in (True, False):
            variant = "crops" if crops else "whole"
            work = functools.partial(_focusmim, dataset, technique, crops)
            about = f"FocusMIM's MaskedDataset, {'random crops' if crops else 'whole pictures'}, batches of {_BATCH}"
            cases.append(rate_case(f"peer/focusmim/{technique}/{variant}", about, "images/s", work))
    return cases
