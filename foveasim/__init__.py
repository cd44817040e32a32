"""foveasim: watch a machine look.

Importing it registers the Gymnasium ids; nothing heavy is loaded before it is used.
"""

from gymnasium.envs.registration import register

__all__ = ["__version__"]

__version__ = "0.1.0"

register(
    id="foveasim/Glimpse-v0",
    entry_point="foveasim.envs.single:FoveaEnv",
    vector_entry_point="foveasim.envs.vector:FoveaVectorEnv",
)
register(
    id="foveasim/Classify-v0",
    entry_point="foveasim.envs.classify:ClassifyEnv",
    vector_entry_point="foveasim.envs.classify:ClassifyVectorEnv",
)
register(
    id="foveasim/Search-v0",
    entry_point="foveasim.envs.search:SearchEnv",
    vector_entry_point="foveasim.envs.search:SearchVectorEnv",
)
