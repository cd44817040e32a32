"""From what has been seen to a picture of the whole scene: sharp where seen, predicted where not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim import check
from foveasim.agents.mim.files import load_network
from foveasim.agents.mim.network import LEAST_SIDE_PX, MimNetwork, to_float
from foveasim.errors import InvalidTypeError, InvalidValueError
from foveasim.types import Prediction

__all__ = ["Imaginer", "compose", "shrink"]


def compose(image: Tensor, acuity: Tensor, reconstruction: Tensor) -> Tensor:
    """Put what was seen sharply over what was predicted.

    Args:
        image: (B, 3, H, W) float in [0, 1], what was seen.
        acuity: (B, 1, H, W) float in [0, 1].
        reconstruction: (B, 3, H, W) float in [0, 1].

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    return torch.where(acuity >= 1, image, reconstruction)


def shrink(image: Tensor, acuity: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Shrink what was seen by areas, so that hidden pixels have no part in the colours.

    Args:
        image: (B, 3, H, W) float.
        acuity: (B, 1, H, W) float in [0, 1].
        size: (h, w), px, no larger than (H, W).

    Returns:
        (B, 3, h, w) the mean colour of the pixels seen in each area, and (B, 1, h, w) the mean acuity of each area, 0
        where nothing was seen.
    """
    seen = (acuity > 0).to(image.dtype)
    colour = F.interpolate(torch.where(acuity > 0, image, 0.0), size, mode="area")
    share = F.interpolate(seen, size, mode="area")
    return colour / share.clamp(min=1e-6), F.interpolate(acuity, size, mode="area")


class Imaginer:
    """Predicts scenes from observations.

    Args:
        network: A network, the name of a shipped one or a ``.safetensors`` file.
        device: Where to compute.
        short_side_px: Scenes with a longer short side are shrunk to it for the network, whose prediction is scaled back
            and laid under what was seen at full resolution. Shipped networks were trained at 96 px. None never shrinks.

    Raises:
        WeightsError: The file cannot be used.
        InvalidValueError: ``short_side_px`` under 32.

    Example:
        >>> from foveasim.agents.mim.network import make_network
        >>> imaginer = Imaginer(make_network("lean"))
        >>> seen = {"belief": torch.zeros(1, 64, 96, 3).byte(), "belief_acuity": torch.zeros(1, 64, 96, 1).byte()}
        >>> imaginer.imagine(seen).image.shape
        torch.Size([1, 64, 96, 3])
    """

    def __init__(
        self,
        network: MimNetwork | str | os.PathLike[str] = "lean",
        device: str | torch.device = "cpu",
        *,
        short_side_px: int | None = 96,
    ) -> None:
        if short_side_px is not None:
            check.number("short_side_px", short_side_px, LEAST_SIDE_PX)
        self.device = torch.device(device)
        self.network = network if isinstance(network, MimNetwork) else load_network(network)
        self.network.to(self.device).eval()
        self.short_side_px = short_side_px

    def imagine(self, observation: Mapping[str, Any]) -> Prediction:
        """Predict the scene behind an observation.

        Args:
            observation: ``belief`` (B, H, W, 3) and ``belief_acuity`` (B, H, W, 1), uint8, where it has them, otherwise
                ``glimpse`` and ``acuity``; arrays or tensors. The last axis of acuity may be left out.

        Returns:
            ``image`` (B, H, W, 3) float32 in [0, 1] on the imaginer's device, equal to what was seen where acuity is
            255; ``latent`` (B, C, h, w).

        Raises:
            InvalidTypeError: Not uint8.
            InvalidValueError: A key is missing, or wrong shapes.
        """
        keys = ("belief", "belief_acuity") if "belief" in observation else ("glimpse", "acuity")
        for key in keys:
            if key not in observation:
                raise InvalidValueError(f"observation must have {key!r}; it has {', '.join(sorted(observation))}.")
        image, acuity = (torch.as_tensor(observation[key]) for key in keys)
        return self.predict(image, acuity[..., 0] if acuity.ndim == 4 else acuity)

    def predict(self, image: Tensor, acuity: Tensor) -> Prediction:
        """Predict the scene from what was seen of it; see :meth:`imagine`.

        Args:
            image: (B, H, W, 3) uint8.
            acuity: (B, H, W) uint8.
        """
        if not isinstance(image, Tensor) or not isinstance(acuity, Tensor):
            raise InvalidTypeError("image and acuity must be tensors; use imagine() for arrays.")
        with torch.inference_mode():
            seen, sharp = to_float(image.to(self.device), acuity.to(self.device))
            height, width = seen.shape[2:]
            short = min(height, width)
            if self.short_side_px is None or short <= self.short_side_px:
                reconstruction, latent = self.network(seen, sharp)
            else:
                scale = self.short_side_px / short
                size = (round(height * scale), round(width * scale))
                reconstruction, latent = self.network(*shrink(seen, sharp, size))
                reconstruction = F.interpolate(reconstruction, (height, width), mode="bilinear", align_corners=False)
            picture = compose(seen, sharp, reconstruction)
        return Prediction(picture.permute(0, 2, 3, 1), None, latent)
