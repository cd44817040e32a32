"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim import agents as agents
from foveasim import envs as envs
from foveasim import errors as errors
from foveasim import metrics as metrics
from foveasim.agents.interface import Agent as Agent
from foveasim.agents.loading import make_agent as make_agent
from foveasim.agents.mim.predictor import Predictor as Predictor
from foveasim.agents.rollout import Rollout as Rollout
from foveasim.agents.rollout import rollout as rollout
from foveasim.cli.commands import main as main
from foveasim.errors import FoveasimError as FoveasimError
from foveasim.experiments.compare.command import CompareConfig as CompareConfig
from foveasim.experiments.compare.command import compare as compare
from foveasim.eye.foveated import as_scene as as_scene
from foveasim.eye.foveated import foveate as foveate
from foveasim.eye.masks import Masking as Masking
from foveasim.eye.retina import Retina as Retina
from foveasim.eye.retina import make_retina as make_retina
from foveasim.eye.saccade import Saccades as Saccades
from foveasim.images.picture import Picture as Picture
from foveasim.recording.episode import read_episode as read_episode
from foveasim.recording.replay import RecordEpisode as RecordEpisode
from foveasim.recording.replay import replay_episode as replay_episode
from foveasim.scanpath.fixations import find_fixations_idt as find_fixations_idt
from foveasim.scanpath.fixations import find_fixations_ivt as find_fixations_ivt
from foveasim.scanpath.interchange import from_pymovements as from_pymovements
from foveasim.scanpath.interchange import from_pysaliency as from_pysaliency
from foveasim.scanpath.interchange import to_pymovements as to_pymovements
from foveasim.scanpath.interchange import to_pysaliency as to_pysaliency
from foveasim.scanpath.scanpath import Scanpath as Scanpath
from foveasim.scanpath.scanpath import write_scanpaths as write_scanpaths
from foveasim.scanpath.trackers.reading import read_scanpaths as read_scanpaths
from foveasim.scenes.source import SceneSource as SceneSource
from foveasim.scenes.source import open_scenes as open_scenes
from foveasim.simulator.simulator import Simulator as Simulator
from foveasim.types import Belief as Belief
from foveasim.types import Frame as Frame
from foveasim.types import Glimpse as Glimpse
from foveasim.types import Prediction as Prediction
from foveasim.types import Saccade as Saccade
from foveasim.types import Scene as Scene

__version__: str
