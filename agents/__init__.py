"""Who looks: what an agent is, how a name becomes one, and the loop that lets it look. The face of all agents."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "AGENTS": "foveasim.agents.loading:AGENTS",
    "Agent": "foveasim.agents.interface:Agent",
    "AgentContract": "foveasim.agents.contract.check:AgentContract",
    "AttentionEntropy": "foveasim.agents.builtin.predictive:AttentionEntropy",
    "DwellTimeAgent": "foveasim.experiments.humans.free_viewing:DwellTimeAgent",
    "Imagines": "foveasim.agents.interface:Imagines",
    "Observation": "foveasim.agents.interface:Observation",
    "PriorityMapAgent": "foveasim.experiments.humans.free_viewing:PriorityMapAgent",
    "StopWhenSure": "foveasim.agents.evaluation.stopping:StopWhenSure",
    "accuracy_by_glimpse": "foveasim.agents.evaluation.stopping:accuracy_by_glimpse",
    "agent_action_mode": "foveasim.agents.interface:agent_action_mode",
    "agent_name": "foveasim.agents.interface:agent_name",
    "agent_needs": "foveasim.agents.interface:agent_needs",
    "check_agent": "foveasim.agents.contract.check:check_agent",
    "draw_glimpses": "foveasim.agents.evaluation.stopping:draw_glimpses",
    "draw_slopes": "foveasim.agents.evaluation.search_slopes:draw_slopes",
    "make_agent": "foveasim.agents.loading:make_agent",
    "mim": "foveasim.agents.mim",
    "read_trials": "foveasim.agents.evaluation.search_slopes:read_trials",
    "record_glimpses": "foveasim.agents.evaluation.stopping:record_glimpses",
    "rl": "foveasim.agents.rl",
    "search_slope": "foveasim.agents.evaluation.search_slopes:search_slope",
    "stop_early": "foveasim.agents.evaluation.stopping:stop_early",
    "threshold_within": "foveasim.agents.evaluation.stopping:threshold_within",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
