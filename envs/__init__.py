"""The Gymnasium face of foveasim."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveasim.envs.single import FoveaEnv
    from foveasim.envs.vector import FoveaVectorEnv
    from foveasim.envs.wrappers import FoveateObservation, FoveateVectorObservation

__all__ = ["FoveaEnv", "FoveaVectorEnv", "FoveateObservation", "FoveateVectorObservation"]

_HOMES = {
    "FoveaEnv": "foveasim.envs.single:FoveaEnv",
    "FoveaVectorEnv": "foveasim.envs.vector:FoveaVectorEnv",
    "FoveateObservation": "foveasim.envs.wrappers:FoveateObservation",
    "FoveateVectorObservation": "foveasim.envs.wrappers_vector:FoveateVectorObservation",
}
"""Where each name lives; it is imported when asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from foveasim.registry import load_object

    return load_object(_HOMES[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
