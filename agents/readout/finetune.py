"""Fine-tuning: encoder and linear readout trained together.

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526: as the readout, with 1e-5 and the encoder unfrozen.
    Kumar et al. (2022), Fine-tuning can distort pretrained features: why it starts from a probe, not from chance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from foveasim import validation as check
from foveasim.agents.mim.linear_probe import LinearProbe
from foveasim.agents.mim.network import MimNetwork, to_float
from foveasim.agents.readout.features import extract
from foveasim.agents.readout.labelled import LabelledImages
from foveasim.agents.readout.probe import accuracy
from foveasim.errors import InvalidValueError

__all__ = ["finetune"]


def finetune(
    network: MimNetwork,
    probe: LinearProbe,
    train: LabelledImages,
    validation: LabelledImages,
    *,
    lr: float = 1e-5,
    batch: int = 64,
    patience: int = 10,
    epochs: int = 1000,
    seed: int = 0,
    advance: Callable[[int, float], None] | None = None,
) -> LinearProbe:
    """Train a network's encoder together with its linear readout, in place, and keep the best epoch on validation.

    Args:
        network: The network; what its latent does not depend on, the decoder, stays as it is.
        probe: The readout to start from.
        train: What it learns from: full images as they are.
        validation: What decides when to stop; never the test images.
        lr: Learning rate of Adam.
        batch: Images a step.
        patience: Stop after that many epochs without a better validation accuracy; the start counts as epoch 0.
        epochs: Maximum number of epochs.
        seed: Of the order of the images.
        advance: Called with the epoch and its validation accuracy.

    Returns:
        The readout that belongs to the network as it is now.

    Raises:
        InvalidValueError: The loss is not finite.
    """
    device = next(network.parameters()).device
    weight, bias = (t.detach().clone().to(device).requires_grad_() for t in (probe.weight, probe.bias))
    network.requires_grad_(True)
    optimizer = torch.optim.Adam([*network.parameters(), weight, bias], lr=lr)
    generator = torch.Generator().manual_seed(check.seed_value("seed", seed))
    labels = torch.from_numpy(train.labels).to(device)
    images = torch.from_numpy(train.images)

    def score() -> float:
        return accuracy(LinearProbe(weight.detach(), bias.detach()), extract(network, validation, device))

    def state() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in network.state_dict().items()}

    def head() -> tuple[Tensor, Tensor]:
        return weight.detach().clone(), bias.detach().clone()

    best, best_epoch, best_state, best_head = score(), 0, state(), head()
    history: list[float] = []
    waited = 0
    while waited < patience and len(history) < epochs:
        network.train()
        for rows in torch.split(torch.randperm(len(train), generator=generator), batch):
            seen = images[rows].to(device)
            sharp = torch.full(seen.shape[:3], 255, dtype=torch.uint8, device=device)
            latent = network.encode(*to_float(seen, sharp))
            loss = F.cross_entropy(latent.flatten(1) @ weight.T + bias, labels[rows.to(device)])
            if not bool(torch.isfinite(loss)):
                raise InvalidValueError(f"the loss of fine-tuning is {float(loss)}. Lower finetune_lr.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        history.append(score())
        waited += 1
        if history[-1] > best:
            best, best_epoch, waited = history[-1], len(history), 0
            best_state, best_head = state(), head()
        if advance is not None:
            advance(len(history), history[-1])
    network.load_state_dict(best_state)
    network.eval().requires_grad_(False)
    return LinearProbe(*best_head, best_epoch, 0.0, waited >= patience, tuple(history))
