"""The Gymnasium face of foveasim."""

from foveasim.envs.single import FoveaEnv
from foveasim.envs.vector import FoveaVectorEnv

__all__ = ["FoveaEnv", "FoveaVectorEnv"]
