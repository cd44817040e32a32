"""Who looks and who predicts: the protocol of an agent, agents by name, and what is measured of them."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "AGENTS": "foveasim.agents.base:AGENTS",
    "Agent": "foveasim.agents.base:Agent",
    "AgentContract": "foveasim.agents.contract:AgentContract",
    "AttentionEntropy": "foveasim.agents.predictive:AttentionEntropy",
    "Dwells": "foveasim.agents.humans_looks:Dwells",
    "Imagines": "foveasim.agents.base:Imagines",
    "Observation": "foveasim.agents.base:Observation",
    "Prioritises": "foveasim.agents.humans_looks:Prioritises",
    "StopWhenSure": "foveasim.agents.classify:StopWhenSure",
    "accuracy_by_glimpse": "foveasim.agents.classify:accuracy_by_glimpse",
    "agent_action_mode": "foveasim.agents.base:agent_action_mode",
    "agent_name": "foveasim.agents.base:agent_name",
    "agent_needs": "foveasim.agents.base:agent_needs",
    "check_agent": "foveasim.agents.contract:check_agent",
    "draw_glimpses": "foveasim.agents.classify:draw_glimpses",
    "draw_slopes": "foveasim.agents.search:draw_slopes",
    "make_agent": "foveasim.agents.base:make_agent",
    "mim": "foveasim.agents.mim",
    "read_trials": "foveasim.agents.search:read_trials",
    "record_glimpses": "foveasim.agents.classify:record_glimpses",
    "rl": "foveasim.agents.rl",
    "search_slope": "foveasim.agents.search:search_slope",
    "stop_early": "foveasim.agents.classify:stop_early",
    "threshold_within": "foveasim.agents.classify:threshold_within",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
