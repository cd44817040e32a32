"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim.agents import mim as mim
from foveasim.agents import rl as rl
from foveasim.agents.builtin.predictive import AttentionEntropy as AttentionEntropy
from foveasim.agents.contract.check import AgentContract as AgentContract
from foveasim.agents.contract.check import check_agent as check_agent
from foveasim.agents.evaluation.search_slopes import draw_slopes as draw_slopes
from foveasim.agents.evaluation.search_slopes import read_trials as read_trials
from foveasim.agents.evaluation.search_slopes import search_slope as search_slope
from foveasim.agents.evaluation.stopping import StopWhenSure as StopWhenSure
from foveasim.agents.evaluation.stopping import accuracy_by_glimpse as accuracy_by_glimpse
from foveasim.agents.evaluation.stopping import draw_glimpses as draw_glimpses
from foveasim.agents.evaluation.stopping import record_glimpses as record_glimpses
from foveasim.agents.evaluation.stopping import stop_early as stop_early
from foveasim.agents.evaluation.stopping import threshold_within as threshold_within
from foveasim.agents.interface import Agent as Agent
from foveasim.agents.interface import Imagines as Imagines
from foveasim.agents.interface import Observation as Observation
from foveasim.agents.interface import agent_action_mode as agent_action_mode
from foveasim.agents.interface import agent_name as agent_name
from foveasim.agents.interface import agent_needs as agent_needs
from foveasim.agents.loading import AGENTS as AGENTS
from foveasim.agents.loading import make_agent as make_agent
from foveasim.experiments.humans.free_viewing import DwellTimeAgent as DwellTimeAgent
from foveasim.experiments.humans.free_viewing import PriorityMapAgent as PriorityMapAgent
