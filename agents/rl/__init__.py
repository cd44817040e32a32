"""Gaze policies by reinforcement learning."""

from foveasim.lazy_names import lazy_names

_NAMES = {
    "ActorConfig": "foveasim.agents.rl.actors:ActorConfig",
    "ClassifyFeatureConfig": "foveasim.agents.rl.classify_features:ClassifyFeatureConfig",
    "ClassifySense": "foveasim.agents.rl.classify_features:ClassifySense",
    "FeatureConfig": "foveasim.agents.rl.features:FeatureConfig",
    "FeatureObservation": "foveasim.agents.rl.feature_env:FeatureObservation",
    "Foresight": "foveasim.agents.mim.predictor:Foresight",
    "GlimpseVecEnv": "foveasim.agents.rl.vec_env:GlimpseVecEnv",
    "Policy": "foveasim.agents.rl.policy_files:Policy",
    "PredictAgent": "foveasim.agents.rl.adapter:PredictAgent",
    "PredictionReward": "foveasim.agents.rl.rewards:PredictionReward",
    "RewardWeights": "foveasim.agents.rl.rewards:RewardWeights",
    "TaskAgent": "foveasim.agents.rl.task_agent:TaskAgent",
    "TaskObservation": "foveasim.agents.rl.task_env:TaskObservation",
    "actor_of": "foveasim.agents.rl.policies:actor_of",
    "fingerprint": "foveasim.agents.rl.policy_files:fingerprint",
    "load_policy": "foveasim.agents.rl.policy_files:load_policy",
    "make_model": "foveasim.agents.rl.policies:make_model",
    "save_policy": "foveasim.agents.rl.policy_files:save_policy",
}

__all__ = list(_NAMES)
__getattr__, __dir__ = lazy_names(__name__, _NAMES)
