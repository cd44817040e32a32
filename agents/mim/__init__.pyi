"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim.agents.mim.belief_readout import BeliefReadout as BeliefReadout
from foveasim.agents.mim.belief_readout import load_belief_readout as load_belief_readout
from foveasim.agents.mim.ensemble import Ensemble as Ensemble
from foveasim.agents.mim.network import NETWORKS as NETWORKS
from foveasim.agents.mim.network import MimNetwork as MimNetwork
from foveasim.agents.mim.network import Output as Output
from foveasim.agents.mim.network import make_network as make_network
from foveasim.agents.mim.predictor import Predictor as Predictor
from foveasim.agents.mim.weights_file import load_network as load_network
from foveasim.agents.mim.weights_file import save_network as save_network
from foveasim.agents.mim.weights_file import shipped_networks as shipped_networks
from foveasim.agents.pretraining.command import train as train
from foveasim.agents.pretraining.config import PRESETS as PRESETS
from foveasim.agents.pretraining.config import PretrainConfig as PretrainConfig
from foveasim.agents.pretraining.trainer import Trainer as Trainer
from foveasim.agents.readout.belief_readout_fit import BeliefFit as BeliefFit
from foveasim.agents.readout.belief_readout_fit import fit_belief_readout as fit_belief_readout
from foveasim.agents.readout.command import read_out as read_out
from foveasim.agents.readout.labelled import LabelledData as LabelledData
from foveasim.agents.readout.labelled import read_labelled as read_labelled
from foveasim.images.pool import ImagePool as ImagePool
from foveasim.images.reading import read_pool as read_pool
