"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim.envs import wrappers as wrappers
from foveasim.envs.single import FoveaEnv as FoveaEnv
from foveasim.envs.tasks.classify import ClassifyEnv as ClassifyEnv
from foveasim.envs.tasks.classify import ClassifyVectorEnv as ClassifyVectorEnv
from foveasim.envs.tasks.search import SearchEnv as SearchEnv
from foveasim.envs.tasks.search import SearchVectorEnv as SearchVectorEnv
from foveasim.envs.vector import FoveaVectorEnv as FoveaVectorEnv
from foveasim.envs.wrappers.observation import FoveateObservation as FoveateObservation
from foveasim.envs.wrappers.vector import FoveateVectorObservation as FoveateVectorObservation
from foveasim.scenes.search import Display as Display
from foveasim.scenes.search import SearchSource as SearchSource
