"""Training gaze policies by reinforcement learning or imitation; stable-baselines3's models as agents."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "ActorConfig": "foveasim.agents.gaze_policy.network:ActorConfig",
    "BeliefPredictor": "foveasim.agents.mim.predictor:BeliefPredictor",
    "ClassifyFeatureConfig": "foveasim.agents.gaze_policy.classify_features:ClassifyFeatureConfig",
    "ClassifyFeatureExtractor": "foveasim.agents.gaze_policy.classify_features:ClassifyFeatureExtractor",
    "FeatureConfig": "foveasim.agents.gaze_policy.features:FeatureConfig",
    "FeatureObservation": "foveasim.agents.rl.feature_env:FeatureObservation",
    "GlimpseVecEnv": "foveasim.agents.rl.vec_env:GlimpseVecEnv",
    "Policy": "foveasim.agents.gaze_policy.policy_files:Policy",
    "PredictionReward": "foveasim.agents.gaze_policy.rewards:PredictionReward",
    "RewardWeights": "foveasim.agents.gaze_policy.rewards:RewardWeights",
    "SB3Agent": "foveasim.agents.rl.sb3_agent:SB3Agent",
    "TaskAgent": "foveasim.agents.gaze_policy.policy_agents:TaskAgent",
    "TaskObservation": "foveasim.agents.rl.feature_env:TaskObservation",
    "actor_of": "foveasim.agents.rl.sb3_model:actor_of",
    "fingerprint_weights": "foveasim.agents.gaze_policy.policy_files:fingerprint_weights",
    "load_policy": "foveasim.agents.gaze_policy.policy_files:load_policy",
    "make_model": "foveasim.agents.rl.sb3_model:make_model",
    "save_policy": "foveasim.agents.gaze_policy.policy_files:save_policy",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
