"""The Gymnasium face of foveasim."""

from foveasim.envs.single import FoveaEnv
from foveasim.envs.vector import FoveaVectorEnv
from foveasim.envs.wrappers import FoveateObservation, FoveateVectorObservation

__all__ = ["FoveaEnv", "FoveaVectorEnv", "FoveateObservation", "FoveateVectorObservation"]
