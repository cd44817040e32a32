"""The Gymnasium face of foveasim: its envs, and in ``wrappers`` an eye for any other."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "ClassifyEnv": "foveasim.envs.tasks.classify:ClassifyEnv",
    "ClassifyVectorEnv": "foveasim.envs.tasks.classify:ClassifyVectorEnv",
    "Display": "foveasim.scenes.search:Display",
    "FoveaEnv": "foveasim.envs.single:FoveaEnv",
    "FoveaVectorEnv": "foveasim.envs.vector:FoveaVectorEnv",
    "FoveateObservation": "foveasim.envs.wrappers.observation:FoveateObservation",
    "FoveateVectorObservation": "foveasim.envs.wrappers.vector:FoveateVectorObservation",
    "SearchEnv": "foveasim.envs.tasks.search:SearchEnv",
    "SearchSource": "foveasim.scenes.search:SearchSource",
    "SearchVectorEnv": "foveasim.envs.tasks.search:SearchVectorEnv",
    "wrappers": "foveasim.envs.wrappers",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
