"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim import agents as agents
from foveasim import envs as envs
from foveasim import errors as errors
from foveasim import metrics as metrics
from foveasim.agents.compare import CompareConfig as CompareConfig
from foveasim.agents.compare import compare as compare
from foveasim.agents.interface import Agent as Agent
from foveasim.agents.loading import make_agent as make_agent
from foveasim.agents.mim.imagine import Predictor as Predictor
from foveasim.agents.runner import Rollout as Rollout
from foveasim.agents.runner import rollout as rollout
from foveasim.cli import main as main
from foveasim.episode import read_episode as read_episode
from foveasim.errors import FoveasimError as FoveasimError
from foveasim.fixations import find_fixations_idt as find_fixations_idt
from foveasim.fixations import find_fixations_ivt as find_fixations_ivt
from foveasim.foveated import as_scene as as_scene
from foveasim.foveated import foveate as foveate
from foveasim.interchange import from_pymovements as from_pymovements
from foveasim.interchange import from_pysaliency as from_pysaliency
from foveasim.interchange import to_pymovements as to_pymovements
from foveasim.interchange import to_pysaliency as to_pysaliency
from foveasim.picture import Picture as Picture
from foveasim.replay import RecordEpisode as RecordEpisode
from foveasim.replay import replay_episode as replay_episode
from foveasim.retina import Retina as Retina
from foveasim.retina import make_retina as make_retina
from foveasim.retina_masks import Masking as Masking
from foveasim.saccade import Saccades as Saccades
from foveasim.scanpath import Scanpath as Scanpath
from foveasim.scanpath import write_scanpaths as write_scanpaths
from foveasim.scenes import SceneSource as SceneSource
from foveasim.scenes import open_scenes as open_scenes
from foveasim.simulator import Simulator as Simulator
from foveasim.trackers.reading import read_scanpaths as read_scanpaths
from foveasim.types import Belief as Belief
from foveasim.types import Frame as Frame
from foveasim.types import Glimpse as Glimpse
from foveasim.types import Prediction as Prediction
from foveasim.types import Saccade as Saccade
from foveasim.types import Scene as Scene

__version__: str
