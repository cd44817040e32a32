"""An eye for any env with pixels, single and batched."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "FoveateObservation": "foveasim.envs.wrappers.observation:FoveateObservation",
    "FoveateVectorObservation": "foveasim.envs.wrappers.vector:FoveateVectorObservation",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
