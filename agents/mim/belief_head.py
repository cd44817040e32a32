"""A small convolutional readout of a network's latent of belief, beside the linear ones.

What was seen lies somewhere else in every belief. A linear readout has weights of its own for every place; this one
shares what it finds between neighbouring places first, and forgets a part of it at random while it learns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim import validation
from foveasim.errors import WeightsError

__all__ = ["ConvHead", "HeadOptions", "load_head"]

_CHUNK = 512


@dataclass(frozen=True)
class HeadOptions:
    """Form of a convolutional readout and how it is fitted.

    Attributes:
        width: Channels after the latent is brought down.
        hidden: Width of the layer before the classes.
        dropout: Share of the units that are left out in a step; of the latent's channels half as much.
        epochs: Passes over the training beliefs. The last one counts: learning ends at a rate of 0.
        lr: Greatest learning rate of Adam.
        decay: Of the weights.
        batch: Beliefs a step.

    Raises:
        InvalidTypeError: Not numbers.
        InvalidValueError: Out of range.
    """

    width: int = 64
    hidden: int = 128
    dropout: float = 0.3
    epochs: int = 8
    lr: float = 2e-3
    decay: float = 0.05
    batch: int = 256

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "epochs", "batch"):
            validation.whole(name, getattr(self, name), 1, 1 << 16)
        validation.number("dropout", self.dropout, 0, 1, open_high=True)
        validation.number("lr", self.lr, 0, 1, open_low=True)
        validation.number("decay", self.decay, 0)


class ConvHead(nn.Module):
    """Scores of classes from a flattened latent.

    Args:
        shape: (C, h, w) of the latent.
        classes: How many there are.
        options: Its form.

    Attributes:
        strength: 0, for the card: it is regularised by dropout and decay.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, options: HeadOptions | None = None) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.options = options = HeadOptions() if options is None else options
        self.strength = 0.0
        channels, height, width = shape
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.reduce = nn.Conv2d(channels, options.width, 1)
        self.near = nn.Conv2d(options.width, options.width, 3, padding=1)
        self.whole = nn.Linear(options.width * height * width, options.hidden)
        self.answer = nn.Linear(options.hidden, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return the scores of the classes, (B, classes), of flattened latents (B, D)."""
        share, learning = self.options.dropout, self.training
        x = (features.reshape(-1, *self.shape).float() - self.mean[:, None, None]) * self.scale[:, None, None]
        x = F.relu(self.reduce(F.dropout2d(x, share / 2, learning)))
        x = x + F.relu(self.near(x))
        x = F.relu(self.whole(F.dropout(x.flatten(1), share, learning)))
        scores: Tensor = self.answer(F.dropout(x, share, learning))
        return scores

    def scores(self, features: Tensor) -> Tensor:
        """Return the score of every class, (N, classes) float32, without learning."""
        parts = torch.split(features, _CHUNK)
        with torch.inference_mode():
            return torch.cat([self(part.to(self.mean.device)).float() for part in parts])

    def predict(self, features: Tensor) -> Tensor:
        """Return the class of highest score, (N,) int64."""
        return self.scores(features).argmax(1)

    def config(self) -> dict[str, Any]:
        """Return what :func:`load_head` builds it from, as what JSON can hold."""
        return {"shape": list(self.shape), "classes": self.classes, "options": asdict(self.options)}


def load_head(tensors: dict[str, Tensor], config: dict[str, Any]) -> ConvHead:
    """Build a readout from what a file holds.

    Raises:
        WeightsError: It does not fit together, or is not finite.
    """
    try:
        channels, height, width = (int(side) for side in config["shape"])
        with torch.random.fork_rng(devices=[]):  # fresh weights that are overwritten
            head = ConvHead((channels, height, width), int(config["classes"]), HeadOptions(**config["options"]))
        head.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"the readout's head does not fit its config: {' '.join(str(error).split())[:200]}. Copy or fit it again."
        ) from error
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise WeightsError("the readout's head must be finite. Copy or fit it again.")
    return head.eval().requires_grad_(False)
