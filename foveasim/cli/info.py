"""What there is: versions, devices, networks, and the names that other commands take."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

__all__ = ["InfoConfig", "info"]

_PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "gymnasium",
    "stable-baselines3",
    "opencv-python-headless",
    "pygame",
    "pygame-ce",
    "safetensors",
    "Pillow",
)


@dataclass(frozen=True)
class InfoConfig:
    """There is nothing to choose."""


def info(config: InfoConfig) -> int:
    """Print what there is; ``foveasim info``.

    Returns:
        0.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    import foveasim
    from foveasim.agents.loading import AGENTS
    from foveasim.agents.mim.network import NETWORKS
    from foveasim.agents.mim.weights_file import shipped_networks
    from foveasim.envs.rewards import REWARDS
    from foveasim.eye.retina import RETINAS
    from foveasim.scenes.source import SCENES

    table = Table(title=f"foveasim {foveasim.__version__}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    table.add_row("packages", ", ".join(versions))
    table.add_row("devices", ", ".join(_devices(torch.get_num_threads())))
    table.add_row("env ids", "foveasim/Glimpse-v0, foveasim/Classify-v0, foveasim/Search-v0")
    table.add_row("scenes", ", ".join(SCENES))
    table.add_row("retinas", ", ".join(RETINAS))
    table.add_row("agents", ", ".join(AGENTS))
    table.add_row("rewards", ", ".join(REWARDS))
    table.add_row("networks", f"{', '.join(NETWORKS)} (to pretrain; not all have shipped weights)")
    table.add_row("shipped weights", f"{', '.join(shipped_networks()) or 'none'} (to watch with and evaluate)")
    Console().print(table)
    return 0


def _devices(threads: int) -> list[str]:
    import torch

    found = [f"cpu ({threads} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
