"""What a policy sees that looks for a scene's class: what a frozen network makes of belief, and what a readout says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import validation
from foveasim.agents.gaze_policy.features import MAPS, NUMBERS, FeatureConfig, Features, featurise
from foveasim.agents.mim.belief_readout import BeliefReadout, belief_features, fingerprint_network
from foveasim.agents.mim.predictor import BeliefPrediction, BeliefPredictor, read_belief_state_on_device
from foveasim.envs.tasks.cell_readout import Readout
from foveasim.errors import AgentError, InvalidValueError

__all__ = ["CLASSIFY_NUMBERS", "ClassifyFeatureConfig", "ClassifyFeatureExtractor", "PredictingReadout"]

CLASSIFY_NUMBERS = {**NUMBERS, "posterior": 0, "confidence": 3}
"""Those of :data:`foveasim.agents.gaze_policy.features.NUMBERS`, and behind them ``posterior``: the probability of
each class; ``confidence``: the greatest of them, by how much the second is less, and the entropy, relative to that
of a guess."""


@dataclass(frozen=True)
class ClassifyFeatureConfig(FeatureConfig):
    """What a policy sees that looks for a class; see :class:`foveasim.agents.gaze_policy.features.FeatureConfig`.

    Attributes:
        numbers: Names of :data:`CLASSIFY_NUMBERS`, in their order.
        classes: How many there are.
    """

    known_maps: ClassVar[Mapping[str, int]] = MAPS
    known_numbers: ClassVar[Mapping[str, int]] = CLASSIFY_NUMBERS

    numbers: tuple[str, ...] = ("fixation", "time", "coverage", "variance", "best_gain", "posterior", "confidence")
    classes: int = 10

    def __post_init__(self) -> None:
        """Validate; see :class:`foveasim.agents.gaze_policy.features.FeatureConfig`."""
        super().__post_init__()
        validation.whole("classes", self.classes, 2, 1 << 16)

    def count(self, latent: int) -> int:
        """Return how many numbers there are, with a latent of so many channels."""
        return super().count(latent) + (self.classes if "posterior" in self.numbers else 0)


class ClassifyFeatureExtractor:
    """Makes features of the observations of ``foveasim/Classify-v0``.

    Args:
        config: What to make.
        belief_predictor: The frozen network.
        readout: Computes the posterior where the observation has none, as in the window; or None.
    """

    needs: tuple[str, ...] = ("belief",)

    def __init__(
        self, config: ClassifyFeatureConfig, belief_predictor: BeliefPredictor, readout: Readout | None = None
    ) -> None:
        self.config, self.belief_predictor, self.readout = config, belief_predictor, readout
        self.device = belief_predictor.device

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Do nothing: all there is to know is in the observation."""

    def extract_features(
        self,
        observation: Mapping[str, Any],
        grid: tuple[int, int],
        lanes: NDArray[np.intp] | None = None,
        predicted: tuple[Tensor, ...] = (),
    ) -> Features:
        """Return what the policy sees, on a grid of (rows, columns).

        Args:
            observation: Of the env.
            grid: (rows, columns).
            lanes: Has no meaning here; see
                :meth:`foveasim.agents.gaze_policy.search_features.SearchFeatureExtractor.extract_features`.
            predicted: Image, standard deviation and latent that the network has predicted for this observation already.

        Raises:
            AgentError: The observation lacks the posterior, and there is no readout; or it is of other classes.
        """
        if predicted:
            image, std, latent = predicted
            time = torch.as_tensor(observation["time"]).to(self.device, torch.float32)
            prediction = BeliefPrediction(
                read_belief_state_on_device(observation, self.device), image, std.square(), latent, time
            )
        else:
            prediction = self.belief_predictor.predict_from(observation)
        numbers = tuple(name for name in self.config.numbers if name in NUMBERS)
        plain = FeatureConfig(self.config.cells, self.config.maps, numbers)
        found = featurise(prediction, plain, grid)
        posterior = self._posterior(observation)
        top = posterior.topk(2, 1).values
        entropy = -(posterior * posterior.clamp_min(1e-12).log()).sum(1, keepdim=True)
        entropy = entropy / torch.tensor(float(self.config.classes)).log()
        more = {"posterior": posterior, "confidence": torch.cat((top[:, :1], top[:, :1] - top[:, 1:], entropy), 1)}
        many = torch.cat((found.numbers, *(more[name] for name in self.config.numbers if name in more)), 1)
        return Features(found.maps, many, found.points, found.gain)

    def _posterior(self, observation: Mapping[str, Any]) -> Tensor:
        if "posterior" in observation:
            posterior = torch.as_tensor(observation["posterior"]).to(self.device, torch.float32)
        elif self.readout is not None:
            image = torch.as_tensor(observation["belief"])
            acuity = torch.as_tensor(observation["belief_acuity"]).reshape(image.shape[:3])
            with torch.inference_mode():
                posterior = self.readout(image, acuity).exp().to(self.device, torch.float32)
        else:
            raise AgentError(
                f"a policy that looks for a class needs a 'posterior', and the observation has "
                f"{', '.join(observation)}. It is for foveasim/Classify-v0; elsewhere its readout must lie beside it."
            )
        if posterior.shape[1] != self.config.classes:
            raise AgentError(
                f"the policy was trained with {self.config.classes} classes, and the posterior has "
                f"{posterior.shape[1]}. Make the env with scenes of the same classes."
            )
        return posterior


class PredictingReadout:
    """A readout that also returns what its network predicts, so that one pass serves the readout and the policy.

    Args:
        readout: On the latent of a network.
        belief_predictor: The same network.

    Raises:
        InvalidValueError: Another network.
    """

    def __init__(self, readout: BeliefReadout, belief_predictor: BeliefPredictor) -> None:
        if fingerprint_network(readout.network) != fingerprint_network(belief_predictor.predictor.network):
            raise InvalidValueError(
                "the readout must be of the network that the policy looks ahead with. Give its name as network."
            )
        self.readout, self.belief_predictor = readout, belief_predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.readout.classes

    def __call__(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the logarithm of each class's probability, (B, C) float32, without decoding what is predicted."""
        device, precision = self.belief_predictor.device, self.belief_predictor.precision
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            latent = belief_features(self.belief_predictor.predictor.network, image, acuity)
        return self.readout.read(latent.float()).to(image.device)

    def think(self, image: Tensor, acuity: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the same, and the predicted image, its standard deviation and the latent."""
        picture, std, latent = self.belief_predictor.predict(image, acuity)
        return self.readout.read(latent), (picture, std, latent)
