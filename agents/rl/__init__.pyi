"""What ``__init__.py`` offers, for type checkers and editors; a test holds the two equal."""

from foveasim.agents.gaze_policy.classify_features import ClassifyFeatureConfig as ClassifyFeatureConfig
from foveasim.agents.gaze_policy.classify_features import ClassifyFeatureExtractor as ClassifyFeatureExtractor
from foveasim.agents.gaze_policy.features import FeatureConfig as FeatureConfig
from foveasim.agents.gaze_policy.network import ActorConfig as ActorConfig
from foveasim.agents.gaze_policy.policy_agents import TaskAgent as TaskAgent
from foveasim.agents.gaze_policy.policy_files import Policy as Policy
from foveasim.agents.gaze_policy.policy_files import fingerprint_weights as fingerprint_weights
from foveasim.agents.gaze_policy.policy_files import load_policy as load_policy
from foveasim.agents.gaze_policy.policy_files import save_policy as save_policy
from foveasim.agents.gaze_policy.rewards import PredictionReward as PredictionReward
from foveasim.agents.gaze_policy.rewards import RewardWeights as RewardWeights
from foveasim.agents.mim.predictor import BeliefPredictor as BeliefPredictor
from foveasim.agents.rl.feature_env import FeatureObservation as FeatureObservation
from foveasim.agents.rl.feature_env import TaskObservation as TaskObservation
from foveasim.agents.rl.sb3_agent import SB3Agent as SB3Agent
from foveasim.agents.rl.sb3_model import actor_of as actor_of
from foveasim.agents.rl.sb3_model import make_model as make_model
from foveasim.agents.rl.vec_env import GlimpseVecEnv as GlimpseVecEnv
