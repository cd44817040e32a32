"""Rewards that need a network: saccades are judged by what they did to the prediction of a frozen one.

The network belongs to the agent and is frozen, so that a reward does not depend on the state of any training. One
batched prediction a step serves the reward and what the policy sees next (:mod:`foveasim.agents.gaze_policy.features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.mim.expected_gain import shrink_pixels
from foveasim.agents.mim.predictor import BeliefPrediction, BeliefPredictor
from foveasim.envs.observation import batch_observations
from foveasim.errors import InvalidValueError

__all__ = ["PredictionReward", "RewardWeights", "prediction_error", "reward_terms"]

FLOOR = 0.02
"""Added to the predicted standard deviation where surprise is measured, in image units: 5 grey levels."""


@dataclass(frozen=True)
class RewardWeights:
    """How much each term counts; one of weight 0 is not computed.

    Attributes:
        prediction_gain: Of how much the mean squared error of the predicted scene fell, over all its pixels. Over an
            episode the gains sum to the error at its beginning minus that at its end; on natural scenes of 96 px and
            ``disc`` that is about 0.02, so that at 100 an episode earns about 2. It needs the hidden scene.
        surprise: Of the squared error of what was revealed over the variance predicted for it, each pixel of the scene
            weighted by the acuity it gained, averaged over the scene. A calibrated network expects as much as was newly
            seen, about 0.1 a glimpse. It needs nothing but what was seen.
        information_gain: Of how much the predicted variance fell, averaged over the scene. Its sum telescopes, too.
        coverage: Of how much the belief's acuity rose, averaged over the scene, 0 to 1.
        saccade_ms: Cost of a millisecond of saccade; one of 10 degrees takes about 43.
    """

    prediction_gain: float = 100.0
    surprise: float = 0.0
    information_gain: float = 0.0
    coverage: float = 0.0
    saccade_ms: float = 0.0

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidValueError: A weight that is not finite, a negative cost, or nothing that counts.
        """
        for field in fields(self):
            validation.number(field.name, getattr(self, field.name))
        validation.number("saccade_ms", self.saccade_ms, 0)
        if not any((self.prediction_gain, self.surprise, self.information_gain, self.coverage, self.saccade_ms)):
            raise InvalidValueError("weights must give at least one term a weight; got 0 for all.")


class PredictionReward(VectorWrapper):  # not generic before gymnasium 1.3
    """A foveasim vector env whose reward is what a saccade did to a network's prediction.

    The reward is the sum of ``info["reward_terms"]``, each term times its weight. ``info["prediction_error"]``, the
    mean squared error of the prediction after the saccade, is there where the scene is. In the same-step mode that the
    trainers use, the last saccade of an episode is judged by its own end, whose prediction is made in the same pass as
    that of the episode that begins. The step in which a lane begins anew, in next-step mode, earns nothing.

    The observation is that of the env without ``scene``, which is there for the reward only.

    Args:
        envs: A foveasim vector env with ``belief=True``, and ``privileged=True`` for ``prediction_gain``.
        belief_predictor: The frozen network.
        weights: What counts.

    Raises:
        InvalidValueError: The env does not show what the reward needs.

    Attributes:
        prediction: What the network makes of the present observation, without gradients.
        final: Which lanes ended in the last step, (K,) int64, and the prediction at their ends; None where none did.
        error: (B,) float32, the present mean squared error, or None without the scene.
        scene: (B, H, W, 3) uint8 on the network's device, the hidden scene, or None where the env does not show it.
    """

    def __init__(
        self, envs: VectorEnv[Any, Any, Any], belief_predictor: BeliefPredictor, weights: RewardWeights | None = None
    ) -> None:
        super().__init__(envs)
        self.belief_predictor, self.weights = belief_predictor, RewardWeights() if weights is None else weights
        space = envs.single_observation_space
        keys = tuple(space.spaces) if isinstance(space, gym.spaces.Dict) else ()
        if "belief" not in keys:
            raise InvalidValueError(f"envs must show belief; it shows {', '.join(keys) or space}. Use belief=True.")
        self._sees_scene = "scene" in keys
        if self.weights.prediction_gain and not self._sees_scene:
            raise InvalidValueError(
                "prediction_gain compares the prediction with the hidden scene: make the env with privileged=True "
                "(the wrapper keeps the scene from the policy), or give it the weight 0."
            )
        if isinstance(space, gym.spaces.Dict) and self._sees_scene:
            visible = gym.spaces.Dict({key: box for key, box in space.items() if key != "scene"})
            self._single_observation_space = visible
            self._observation_space = batch_observations(visible, self.num_envs)
        self._mode = envs.metadata["autoreset_mode"]
        self._waiting = np.zeros(self.num_envs, np.bool_)
        self.prediction: BeliefPrediction | None = None
        self.final: tuple[Tensor, BeliefPrediction] | None = None
        self.error: Tensor | None = None
        self.scene: Tensor | None = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes; see the env's own ``reset``."""
        observation, info = self.env.reset(seed=seed, options=options)
        mask = None if options is None else options.get("reset_mask")
        self._waiting &= False if mask is None else ~np.asarray(mask)
        self.final = None
        with torch.inference_mode():
            self.prediction = self.belief_predictor.predict_from(observation)
            self.error = self._error(self.prediction, observation)
        return self._without_scene(observation), self._with_error(info, self.error)

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any, dict[str, Any]]:
        """Move every eye; the reward is (B,) float64, or float32 on the device where the env's is a tensor.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        before, error_before = self.current_prediction, self.error
        observation, earned, terminated, truncated, info = self.env.step(actions)
        ended = np.flatnonzero(info["_final_obs"]) if "_final_obs" in info else np.zeros(0, np.int64)
        with torch.inference_mode():
            both = _with_finals(observation, info, ended)
            prediction = self.belief_predictor.predict_from(both)
            error = self._error(prediction, both)
            device, lanes = self.belief_predictor.device, self.num_envs
            reached = torch.arange(lanes, device=device)
            which = torch.from_numpy(ended).to(device)
            reached[which] = lanes + torch.arange(len(ended), device=device)
            after = prediction.lanes(reached) if len(ended) else prediction
            error_after = None if error is None else error[reached]
            duration = torch.as_tensor(info.get("final_info", info)["duration_ms"]).to(device, torch.float32)
            terms = reward_terms(self.weights, before, after, error_before, error_after, duration)
            if self._waiting.any():
                begun = torch.from_numpy(self._waiting).to(device)
                terms = {name: value.masked_fill(begun, 0) for name, value in terms.items()}
            self.prediction = prediction.lanes(slice(lanes)) if len(ended) else prediction
            self.final = (which, prediction.lanes(slice(lanes, None))) if len(ended) else None
            self.error = None if error is None else error[:lanes]
        if self._mode == AutoresetMode.NEXT_STEP:
            self._waiting = _array(terminated) | _array(truncated)
        tensors = isinstance(earned, Tensor)
        reported_terms = {name: value if tensors else value.cpu().numpy() for name, value in terms.items()}
        reward: Any = sum(terms.values())
        reward = reward if tensors else reward.cpu().numpy().astype(np.float64)
        info = self._with_error({**info, "reward_terms": reported_terms}, error_after)
        if "final_info" in info:
            info["final_info"] = self._with_error({**info["final_info"], "reward_terms": reported_terms}, error_after)
        return self._without_scene(observation), reward, terminated, truncated, info

    @property
    def current_prediction(self) -> BeliefPrediction:
        """The prediction from the present observation.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        if self.prediction is None:
            raise gym.error.ResetNeeded("call reset() first.")
        return self.prediction

    def _error(self, prediction: BeliefPrediction, observation: Mapping[str, Any]) -> Tensor | None:
        if not self._sees_scene:
            return None
        scene = torch.as_tensor(observation["scene"]).to(self.belief_predictor.device)
        self.scene = scene[: self.num_envs]
        return prediction_error(prediction, scene)

    def _with_error(self, info: dict[str, Any], error: Tensor | None) -> dict[str, Any]:
        if error is None:
            return info
        return {**info, "prediction_error": error.cpu().numpy(), "_prediction_error": np.ones(self.num_envs, np.bool_)}

    @staticmethod
    def _without_scene(observation: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in observation.items() if key != "scene"}


def prediction_error(prediction: BeliefPrediction, scene: Tensor) -> Tensor:
    """Return the mean squared error of predicted scenes, over all pixels and colours, (B,) float32.

    Larger scenes are first averaged down to the size at which the network predicts.

    Args:
        prediction: Of B lanes.
        scene: (B, H, W, 3) uint8.
    """
    truth = shrink_pixels(scene, prediction.seen.size).float() / 255
    return (prediction.image - truth).square().mean((1, 2, 3))


def reward_terms(
    weights: RewardWeights,
    before: BeliefPrediction,
    after: BeliefPrediction,
    error_before: Tensor | None,
    error_after: Tensor | None,
    duration_ms: Tensor,
) -> dict[str, Tensor]:
    """Judge B saccades.

    Args:
        weights: What counts.
        before: What was expected before the saccade.
        after: What is expected after it.
        error_before: (B,) mean squared error of the prediction before, or None where the scene is not known.
        error_after: The same after.
        duration_ms: (B,) float32, of the saccade.

    Returns:
        The terms of weight other than 0, times their weights, (B,) float32 each.

    Reference:
        Itti and Baldi 2009, Bayesian surprise attracts human attention, Vision Research 49:1295-1306, for the name;
        here it is the squared standardised error, as in :class:`foveasim.agents.builtin.predictive.Surprise`.
    """
    terms: dict[str, Tensor] = {}
    if weights.prediction_gain and error_before is not None and error_after is not None:
        terms["prediction_gain"] = weights.prediction_gain * (error_before - error_after)
    if weights.surprise:
        gained = (after.seen.acuity.float() - before.seen.acuity.float()).clamp_min(0) / 255
        wrong = (after.seen.belief.float() / 255 - before.image).square().mean(3)
        ratio = wrong / (before.variance + FLOOR**2)
        terms["surprise"] = weights.surprise * (gained * ratio).mean((1, 2))
    if weights.information_gain:
        removed = before.variance.mean((1, 2)) - after.variance.mean((1, 2))
        terms["information_gain"] = weights.information_gain * removed
    if weights.coverage:
        seen = [one.seen.acuity.float().mean((1, 2)) / 255 for one in (before, after)]
        terms["coverage"] = weights.coverage * (seen[1] - seen[0])
    if weights.saccade_ms:
        terms["saccade_cost"] = -weights.saccade_ms * duration_ms
    return terms


_NEEDED = ("belief", "belief_acuity", "acuity", "fixation", "time", "scene")


def _with_finals(observation: Mapping[str, Any], info: Mapping[str, Any], ended: NDArray[np.intp]) -> dict[str, Any]:
    """Return what is needed of an observation, with what the lanes that ended saw last behind the B present lanes."""
    found = {key: observation[key] for key in _NEEDED if key in observation}
    if not len(ended):
        return found
    finals = [info["final_obs"][lane] for lane in ended]
    joined: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Tensor):
            joined[key] = torch.cat(
                (value, torch.stack([torch.as_tensor(final[key], device=value.device) for final in finals]))
            )
        else:
            joined[key] = np.concatenate((value, np.stack([final[key] for final in finals])))
    return joined


def _array(value: Any) -> NDArray[np.bool_]:
    return value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
