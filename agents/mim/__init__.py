"""Networks that predict what the eye has not seen (masked image modelling), read from files and asked of a belief."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "NETWORKS": "foveasim.agents.mim.network:NETWORKS",
    "PRESETS": "foveasim.agents.pretraining.config:PRESETS",
    "BeliefFit": "foveasim.agents.readout.belief_readout_fit:BeliefFit",
    "BeliefReadout": "foveasim.agents.mim.belief_readout:BeliefReadout",
    "Ensemble": "foveasim.agents.mim.ensemble:Ensemble",
    "ImagePool": "foveasim.images.pool:ImagePool",
    "LabelledData": "foveasim.agents.readout.labelled:LabelledData",
    "MimNetwork": "foveasim.agents.mim.network:MimNetwork",
    "Output": "foveasim.agents.mim.network:Output",
    "Predictor": "foveasim.agents.mim.predictor:Predictor",
    "PretrainConfig": "foveasim.agents.pretraining.config:PretrainConfig",
    "Trainer": "foveasim.agents.pretraining.trainer:Trainer",
    "fit_belief_readout": "foveasim.agents.readout.belief_readout_fit:fit_belief_readout",
    "load_belief_readout": "foveasim.agents.mim.belief_readout:load_belief_readout",
    "load_network": "foveasim.agents.mim.weights_file:load_network",
    "make_network": "foveasim.agents.mim.network:make_network",
    "read_labelled": "foveasim.agents.readout.labelled:read_labelled",
    "read_out": "foveasim.agents.readout.command:read_out",
    "read_pool": "foveasim.images.reading:read_pool",
    "save_network": "foveasim.agents.mim.weights_file:save_network",
    "shipped_networks": "foveasim.agents.mim.weights_file:shipped_networks",
    "train": "foveasim.agents.pretraining.command:train",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
