"""A linear classifier of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["CHUNK", "LinearProbe"]

CHUNK = 2048  # rows turned to float32 at a time


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of features as they are (standardisation is part of its weights).

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        epochs: Epochs of Adam until the best one, or evaluations of the gradient by L-BFGS, over all strengths.
        strength: Of the L2 regularisation that was chosen; 0 for none.
        converged: Whether it stopped because it was done and not because a limit was reached.
        history: Validation accuracy after each epoch, or for each strength.
    """

    weight: Tensor
    bias: Tensor
    epochs: int = 0
    strength: float = 0.0
    converged: bool = True
    history: tuple[float, ...] = ()

    def scores(self, features: Tensor) -> Tensor:
        """Return the score of every class, (N, C) float32."""
        parts = [part.to(self.weight) @ self.weight.T + self.bias for part in torch.split(features, CHUNK)]
        return torch.cat(parts)

    def predict(self, features: Tensor) -> Tensor:
        """Return the class of highest score, (N,) int64."""
        return self.scores(features).argmax(1)
