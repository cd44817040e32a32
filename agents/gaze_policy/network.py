"""The networks of gaze policies, in plain torch: what a trained policy's file holds, and what an agent runs.

Stable-baselines3 trains them inside its own policies (:mod:`foveasim.agents.rl.sb3_model`); running them needs no
stable-baselines3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim import validation
from foveasim.errors import InvalidValueError

__all__ = ["KINDS", "Actor", "ActorConfig", "CellNet", "Memory", "Trunk"]

KINDS = ("cells", "point", "flat")
INITIAL_STOP_LOGIT = -3.0
"""Logarithm of the odds of stopping at the beginning of training: one in twenty."""

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}

Memory: TypeAlias = tuple[Tensor, Tensor]
"""Hidden and cell state of a recurrent policy, (layers, B, H) each."""


@dataclass(frozen=True)
class ActorConfig:
    """Form of a policy's network.

    Attributes:
        kind: "cells": a convolutional network gives each cell a score, on scenes of any shape. "point": the same
            network, whose features a multilayer perceptron turns into whatever action. "flat": a multilayer perceptron
            on all features in a row.
        grid: (rows, columns) that it was trained on. A policy that is ``rigid`` knows no other.
        channels: Of the maps.
        numbers: How many there are.
        gain_channel: Which of the maps is the gain, or None where it is not shown.
        outputs: 2 for a point, otherwise the number of cells.
        width: Channels of the convolutional network.
        prior: How much the score of a cell rises from no gain to the best at the beginning of training: at 20, a
            policy that was not trained samples cells within about a twentieth of the best, and its likeliest cell is
            that of the agent ``uncertainty``. 0 begins with all cells alike.
        hidden: Widths of the multilayer perceptron.
        activation: Its activation, "relu" or "tanh".
        memory: Width of an LSTM before it, 0 for none.
        squash: Whether its last step is a tanh.
        least_gain: Cells whose gain is below this share of the best cell's are never chosen.
        stop: Whether there is a further choice behind the cells, to stop looking; of "cells" only.
    """

    kind: Literal["cells", "point", "flat"]
    grid: tuple[int, int]
    channels: int
    numbers: int
    gain_channel: int | None
    outputs: int
    width: int = 16
    prior: float = 20.0
    hidden: tuple[int, ...] = ()
    activation: Literal["relu", "tanh"] = "relu"
    memory: int = 0
    squash: bool = False
    least_gain: float = 0.0
    stop: bool = False

    @property
    def rigid(self) -> bool:
        """Whether it works on the grid only that it was trained on, stretched over any scene."""
        return self.kind == "flat" or (self.kind == "point" and self.outputs > 2)

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InvalidTypeError: Something of the wrong type.
            InvalidValueError: Out of range, or a prior without the map that it goes by.
        """
        if self.kind not in KINDS:
            raise InvalidValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.activation not in ACTIVATIONS:
            raise InvalidValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}.")
        object.__setattr__(self, "grid", validation.size_hw("grid", tuple(self.grid), 1, 256))
        validation.whole("number of hidden layers", len(self.hidden), 0, 64)
        object.__setattr__(self, "hidden", tuple(validation.whole("hidden", n, 1, 10_000) for n in self.hidden))
        for name, minimum in (("channels", 1), ("numbers", 0), ("outputs", 2), ("width", 1), ("memory", 0)):
            validation.whole(name, getattr(self, name), minimum, 1 << 20)
        validation.number("prior", self.prior, 0)
        validation.number("least_gain", self.least_gain, 0, 1)
        if self.prior and self.kind != "flat" and self.gain_channel is None:
            raise InvalidValueError("prior goes by the map 'gain': show it to the policy, or give the prior 0.")
        if self.stop and self.kind != "cells":
            raise InvalidValueError(f"stop is for a policy of cells; got kind {self.kind!r}.")
        if self.gain_channel is not None:
            validation.whole("gain_channel", self.gain_channel, 0, self.channels - 1)


class CellNet(nn.Module):
    """Scores cells by what is around them and by the whole scene: three convolutions that reach 15 cells.

    The score is ``prior * exp(s) * gain + head``, with s learned and ``head`` 0 at the beginning, so that training
    begins at the choice of the greatest gain and changes it only where that pays.
    """

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.enter = nn.Conv2d(config.channels, width, 3, padding=1)
        self.numbers = nn.Linear(config.numbers, width)
        self.near = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.whole = nn.Linear(2 * width, width)
        self.far = nn.Conv2d(width, width, 3, padding=4, dilation=4)
        self.head = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]  # bias=True
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.stop: nn.Sequential | None = None
        if config.stop:
            self.stop = nn.Sequential(nn.Linear(2 * width + config.numbers, width), nn.ReLU(), nn.Linear(width, 1))
            nn.init.zeros_(self.stop[2].weight)  # type: ignore[arg-type]
            nn.init.constant_(self.stop[2].bias, INITIAL_STOP_LOGIT)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (B, rows * columns) and a summary of the scene (B, 2 width), float32.

        The score of stopping, where there is one, stands behind those of the cells. It is measured from what all of
        them weigh together, so that the odds of stopping do not depend on how many cells there are.

        Args:
            maps: (B, C, rows, columns) float32.
            numbers: (B, K) float32.
        """
        x = F.relu(self.enter(maps) + self.numbers(numbers)[:, :, None, None])
        x = x + F.relu(self.near(x) + self.whole(_summary(x))[:, :, None, None])
        x = x + F.relu(self.far(x))
        score = self.head(x)[:, 0]
        if self.config.prior and self.config.gain_channel is not None:
            score = score + self.config.prior * self.log_sharpness.exp() * maps[:, self.config.gain_channel]
        score, summary = score.flatten(1), _summary(x)
        if self.stop is not None:
            odds = self.stop(torch.cat((summary, numbers), 1))
            score = torch.cat((score, score.logsumexp(1, keepdim=True) + odds), 1)
        return score, summary


class Trunk(nn.Module):
    """From maps and numbers to one row of features.

    Of "cells": the scores, then the summary; of "point": the place where the scores lie on average, x and y, then the
    summary; of "flat": everything as it is.
    """

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.config = config
        self.net = None if config.kind == "flat" else CellNet(config)

    @property
    def features(self) -> int:
        """How many there are, on the grid of the config."""
        config, cells = self.config, math.prod(self.config.grid)
        if config.kind == "flat":
            return config.channels * cells + config.numbers
        return (cells + config.stop if config.kind == "cells" else 2) + 2 * config.width

    def forward(self, maps: Tensor, numbers: Tensor) -> Tensor:
        """Return (B, features) float32."""
        if self.net is None:
            return torch.cat((maps.flatten(1), numbers), 1)
        score, summary = self.net(maps, numbers)
        if self.config.kind == "cells":
            return torch.cat((score, summary), 1)
        rows, columns = maps.shape[2:]
        share = score.softmax(1).reshape(-1, rows, columns)
        x, y = (torch.linspace(1 / n - 1, 1 - 1 / n, n, device=maps.device) for n in (columns, rows))
        return torch.cat(((share.sum(1) @ x)[:, None], (share.sum(2) @ y)[:, None], summary), 1)


class Actor(nn.Module):
    """A whole policy: trunk, memory, multilayer perceptron, head.

    Args:
        config: Its form.
    """

    def __init__(self, config: ActorConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        width = self.trunk.features
        self.lstm = nn.LSTM(width, config.memory) if config.memory else None
        width = config.memory or width
        layers: list[nn.Module] = []
        for wide in config.hidden:
            layers += [nn.Linear(width, wide), ACTIVATIONS[config.activation]()]
            width = wide
        self.mlp = nn.Sequential(*layers)
        self.head = None if config.kind == "cells" else nn.Linear(width, config.outputs)

    def forward(self, maps: Tensor, numbers: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory | None]:
        """Return the scores of the cells and of stopping, or the point, (B, outputs) float32, and what to remember.

        Args:
            maps: (B, C, rows, columns) float32.
            numbers: (B, K) float32.
            memory: Of the last step; None at the beginning, and without an LSTM.
        """
        x: Any = self.trunk(maps, numbers)
        if self.head is None:
            return x[:, : maps.shape[2] * maps.shape[3] + self.config.stop], None
        if self.lstm is not None:
            x, memory = self.lstm(x[None], memory)
            x = x[0]
        x = self.head(self.mlp(x))
        return (x.tanh() if self.config.squash else x), memory


def _summary(x: Tensor) -> Tensor:
    """Return mean and maximum over cells, (B, 2 C)."""
    return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)
