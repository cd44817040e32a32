"""A pretraining run: its network, optimizer and counters, what a step does, and how all of it is saved."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim.agents.mim.network import MimNetwork, Output, make_network
from foveasim.agents.mim.weights_file import load_network, read_tensors, save_network, write_tensors
from foveasim.agents.pretraining import model_card
from foveasim.agents.pretraining.augmentations import AugmentedBatches, as_float
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.distributed import ProcessGroup
from foveasim.agents.pretraining.gaze_sequences import PreparedPictures, draw_fixations, sense_sequence
from foveasim.agents.pretraining.grow import grow
from foveasim.agents.pretraining.prediction_error import Evaluation
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import Prepared, Retina, make_retina
from foveasim.images.pool import ImagePool
from foveasim.types import Belief

__all__ = ["Batch", "Trainer", "masked_error", "refuse_early", "std_loss"]

CHECKPOINT = "checkpoint.safetensors"
# Options that may change on the way without the result becoming another.
NOT_OF_THE_RESULT = {
    *(
        "resume",
        "overwrite",
        "out",
        "cache",
        "command",
        "licence",
        "validate",
        "tensorboard",
        "start_from",
        "snapshots",
    ),
    *("checkpoint_minutes", "checkpoint_steps", "validate_minutes", "device", "threads"),
}
MAX_GRADIENT = 0.5  # norm; usual ones are 0.002 to 0.1, so that this only stops an explosion


@dataclass(frozen=True)
class Batch:
    """What a network learns from in one step.

    Attributes:
        image: (B, 3, H, W) float in [0, 1], what was seen; hidden pixels as the retina fills them.
        acuity: (B, 1, H, W) float in [0, 1].
        target: (B, 3, H, W) float in [0, 1], what was there.
        weight: (B, 1, H, W) float, how much an error at each pixel counts.
    """

    image: Tensor
    acuity: Tensor
    target: Tensor
    weight: Tensor


def masked_error(reconstruction: Tensor, batch: Batch) -> Tensor:
    """Return the squared error over what counts, for each image divided by its weight: mean over images.

    Where acuity is 0 or 1, it is the paper's sum over hidden pixels divided by their number.

    Reference:
        Weiler et al. (2024), loss.
    """
    error = ((reconstruction.float() - batch.target).square() * batch.weight).sum((1, 2, 3)) / 3
    return (error / batch.weight.sum((1, 2, 3)).clamp(min=1)).mean()


def std_loss(reconstruction: Tensor, std: Tensor, batch: Batch, beta: float) -> Tensor:
    """Return how unlikely the errors are under a Gaussian of the predicted standard deviation, mean over images.

    The reconstruction counts as given: it is fitted by :func:`masked_error` alone. With ``beta`` 0 this is the mean
    negative log-likelihood of a channel without its constant, dominated by the surest pixels; each pixel is weighted by
    its variance to the power ``beta``.

    Args:
        reconstruction: (B, 3, H, W) float.
        std: (B, 1, H, W) float32, above 0 where the weight is.
        batch: What was seen and what was there.
        beta: 0 to 1.

    Reference:
        Seitzer, Tavakoli, Antic, Martius (2022), On the pitfalls of heteroscedastic uncertainty estimation with
        probabilistic neural networks, equation 4.
    """
    error = (reconstruction.detach().float() - batch.target).square().mean(1, keepdim=True)
    variance = std.square().clamp(min=1e-8)
    likelihood = 0.5 * (error / variance + variance.log()) * variance.detach() ** beta * batch.weight
    return (likelihood.sum((1, 2, 3)) / batch.weight.sum((1, 2, 3)).clamp(min=1)).mean()


def _everywhere(image: Tensor) -> Tensor:
    """Objects, (B, H, W) uint8, of images whose main object is not known: all of the picture."""
    return torch.full(image.shape[:3], 255, dtype=torch.uint8, device=image.device)


def refuse_early(config: PretrainConfig) -> None:
    """Raise what a :class:`Trainer` would, before images are read for minutes.

    Raises:
        InvalidValueError: An unknown network or retina, or options that it does not take.
    """
    for name, options in config.retinas.items():
        make_retina(name, **options)
    with torch.random.fork_rng(devices=[]):
        make_network(config.network, **config.network_options)


def _refuse_earlier_run(checkpoint: Path) -> None:
    if checkpoint.exists():
        raise WeightsError(
            f"{checkpoint} is of an earlier run. Go on with it by resume=True (--resume), begin anew by overwrite=True "
            "(--overwrite), or choose another folder by out."
        )


class Trainer:
    """A training run.

    Batches are drawn from (seed, step), so that a resumed run sees what an uninterrupted one would have seen.

    Args:
        config: How to train.
        pool: The images; with objects where the config asks for them.
        processes: The processes that train together.

    Attributes:
        changes: Options that a resumed run sets otherwise than the run so far did, for people to read.

    Raises:
        WeightsError: There is a checkpoint and neither ``resume`` nor ``overwrite`` is on, or none that fits and
            ``resume`` is on.
    """

    def __init__(self, config: PretrainConfig, pool: ImagePool, processes: ProcessGroup | None = None) -> None:
        self.config, self.pool, self.processes = config, pool, ProcessGroup() if processes is None else processes
        self.device = torch.device(config.device)
        self.checkpoint = Path(config.out) / CHECKPOINT
        self.steps = config.steps
        if config.epochs is not None:
            self.steps = max(1, round(config.epochs * len(pool) / config.batch))
        self.batches = AugmentedBatches(
            pool,
            (config.size, config.size),
            crops=config.crops,
            scale=config.scale,
            mirror=config.mirror,
            jitter=config.jitter,
            shares=config.shares,
            device=config.device,
        )
        self.retinas: list[Retina] = [make_retina(name, **options) for name, options in config.retinas.items()]
        # Whole pictures are the same at every step, and so is what the one retina prepares of them.
        always = not (config.crops or config.mirror or config.jitter or config.oblong_share) and len(self.retinas) == 1
        self.pictures = PreparedPictures(self.batches, self.retinas[0]) if always else None
        shares = np.ones(len(self.retinas)) if config.retina_shares is None else np.array(config.retina_shares, float)
        self.chances = shares / shares.sum()
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(config.seed)
            self.network = make_network(config.network, **config.network_options)
        if config.start_from is not None:
            self._start_from(config.start_from)
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.forward: Any = torch.compile(self.network) if config.compile else self.network
        self.parameters = dict(self.network.named_parameters())
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer = self._make_optimizer()
        self.step = 0
        self.elapsed_s = 0.0
        self.pipeline_s = 0.0
        self.images = 0
        self.changes: list[str] = []
        if config.resume:
            self._resume()
        elif not config.overwrite:
            _refuse_earlier_run(self.checkpoint)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config, parameters = self.config, list(self.parameters.values())
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        weights, biases = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.steps is not None:
            return min(1.0, self.step / self.steps)
        return min(1.0, self.elapsed_s / 60 / (self.config.minutes or 1.0))

    def learning_rate(self) -> float:
        """Return the learning rate at this progress: constant, or a linear warm-up and then a cosine."""
        if self.config.schedule == "constant":
            return self.config.lr
        warm = 0.03
        if self.progress < warm:
            return self.config.lr * max(self.progress / warm, 0.01)
        phase = (self.progress - warm) / (1 - warm)
        return self.config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))

    def draw(self, step: int) -> Batch:
        """Draw the lanes of one step's batch that this process works on."""
        config = self.config
        rng = np.random.default_rng((config.seed, step))
        size = (config.size, config.size)
        if rng.uniform() < config.oblong_share:
            longer = config.size * 4 // 3
            size = (config.size, longer) if rng.uniform() < 0.5 else (longer, config.size)
        part = self.processes.part(config.batch)
        drawn = self.batches.draw(rng, config.batch, size, part)
        prepared = None if self.pictures is None else self.pictures.take(drawn.index)[1]
        return self._sense(rng, drawn.image, drawn.objects, part, prepared)

    def _sense(
        self,
        rng: np.random.Generator,
        image: Tensor,
        objects: Tensor | None,
        part: slice,
        prepared: Prepared | None = None,
    ) -> Batch:
        """Return what eyes see of lanes ``part`` of a batch of ``config.batch``."""
        config, lanes, size = self.config, max(self.config.batch, part.stop), (image.shape[1], image.shape[2])
        retina = self.retinas[int(rng.choice(len(self.retinas), p=self.chances))]
        points = self._fixations(rng, lanes, size)
        share = rng.uniform(size=lanes) ** config.skew
        count = 1 + (share * config.max_fixations).astype(np.int64)
        seed = int(rng.integers(2**31)) + part.start  # a lane draws from seed + its place in the whole batch
        scene = replace(as_scene(image), objects=_everywhere(image) if objects is None else objects)
        return self._batch(
            image, sense_sequence(scene, retina, points[part], count[part], seed, prepared=prepared), objects
        )

    def _fixations(self, rng: np.random.Generator, lanes: int, size: tuple[int, int]) -> NDArray[np.float32]:
        config = self.config
        return draw_fixations(
            rng,
            lanes,
            config.max_fixations,
            size,
            config.walk_share,
            human_share=config.human_share,
            centre_share=config.centre_share,
            gaze=config.gaze,
        )

    def _batch(self, image: Tensor, belief: Belief, objects: Tensor | None) -> Batch:
        acuity = as_float(belief.acuity)[:, None]
        weight = torch.ones_like(acuity) if self.config.loss == "all" else 1 - acuity
        if self.config.loss == "object" and objects is not None:
            weight = weight * as_float(objects)[:, None]
        seen, target = (as_float(part).permute(0, 3, 1, 2) for part in (belief.image, image))
        return Batch(seen, acuity, target, weight)

    def train_step(self) -> Tensor:
        """Make one step and return its loss, a detached scalar."""
        started = time.perf_counter()
        self.network.train()
        batch = self.draw(self.step)
        self.pipeline_s += time.perf_counter() - started
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            reconstruction, _, std = Output(*self.forward(batch.image, batch.acuity))
        loss = total = masked_error(reconstruction, batch)
        if std is not None:
            total = loss + self.config.std_weight * std_loss(reconstruction, std, batch, self.config.std_beta)
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        detached = loss.detach().clone()
        self.processes.average_([detached, *(p.grad for p in self.parameters.values() if p.grad is not None)])
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - decay)
        self.step += 1
        self.images += self.config.batch
        self.elapsed_s += time.perf_counter() - started
        return detached

    def sample(self, count: int, place: int, images: NDArray[np.uint8] | None = None) -> Batch:
        """Return pictures for people: the same at every call, after one fixation, two, and so on.

        Args:
            count: B, of training images.
            place: Which of the retinas.
            images: (B, H, W, 3) uint8 to show instead of training images.
        """
        rng, config = np.random.default_rng((self.config.seed, 2**41)), self.config  # a step that no training reaches
        if images is None:
            drawn = self.batches.draw(rng, count)
            image, objects = drawn.image, drawn.objects
        else:
            image, objects = torch.from_numpy(images).to(self.device), None
        size = (image.shape[1], image.shape[2])
        points = self._fixations(rng, len(image), size)
        fixations = np.minimum(np.arange(1, len(image) + 1), config.max_fixations)
        scene = replace(as_scene(image), objects=_everywhere(image) if objects is None else objects)
        return self._batch(image, sense_sequence(scene, self.retinas[place], points, fixations, config.seed), objects)

    def validation_loss(self, images: NDArray[np.uint8]) -> float:
        """Return the loss on images that were not trained on, under the run's own eyes, always the same fixations.

        Args:
            images: (N, H, W, 3) uint8.
        """
        rng, total, step = np.random.default_rng((self.config.seed, 2**40)), 0.0, self.config.batch
        with self.averaged() as network, torch.inference_mode():
            for start in range(0, len(images), step):
                part = torch.from_numpy(images[start : start + step]).to(self.device)
                batch = self._sense(rng, part, None, slice(0, len(part)))
                total += float(masked_error(network(batch.image, batch.acuity)[0], batch)) * len(part)
        return total / len(images)

    def save(self) -> None:
        """Write the checkpoint: network, moving average, optimizer and counters."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"network.{name}"], tensors[f"ema.{name}"] = parameter, self.ema[name]
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
        counters = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "pipeline_s": self.pipeline_s,
            "images": self.images,
        }
        metadata = {"counters": json.dumps(counters), "config": json.dumps(asdict(self.config))}
        write_tensors(self.checkpoint, tensors, metadata)

    def _start_from(self, path: str) -> None:
        other = load_network(path)
        try:
            grow(self.network, other)
        except InvalidValueError as error:
            raise WeightsError(f"start_from={path!r}: {error} Set network and network_options to match.") from error

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            raise WeightsError(
                f"there is no checkpoint {self.checkpoint} to resume from. Start the run without resume (by "
                "--overwrite where its folder is not empty), or give its folder as out; of several machines all must "
                "see that folder."
            )
        tensors, metadata = read_tensors(self.checkpoint)
        try:
            counters, before = json.loads(metadata["counters"]), json.loads(metadata["config"])
            if before["network"] != self.config.network:
                raise ValueError(f"it is of the network {before['network']!r}, this run's is {self.config.network!r}")
            for name, parameter in self.parameters.items():
                with torch.no_grad():
                    parameter.copy_(tensors[f"network.{name}"])
                    self.ema[name].copy_(tensors[f"ema.{name}"])
                keys = [k for k in tensors if k.startswith("adam.") and k.split(".", 2)[2] == name]
                state = {k.split(".", 2)[1]: tensors[k].to(self.device) for k in keys}
                for key, value in state.items():
                    if value.shape == parameter.shape:  # files hold no memory format
                        state[key] = torch.empty_like(parameter).copy_(value)
                self.optimizer.state[parameter] = state
            self.step, self.images = int(counters["step"]), int(counters["images"])
            self.elapsed_s = float(counters["elapsed_s"])
            self.pipeline_s = float(counters["pipeline_s"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"{self.checkpoint} does not fit this run ({error}). Resume with the network and network_options that "
                "it was started with, or choose another out."
            ) from error
        now = json.loads(json.dumps(asdict(self.config)))
        self.changes = [
            f"{name} {before.get(name)!r} → {value!r}"
            for name, value in now.items()
            if name not in NOT_OF_THE_RESULT and before.get(name) != value
        ]

    @contextlib.contextmanager
    def averaged(self) -> Iterator[MimNetwork]:
        """A copy of the network with the moving average of its weights, for as long as the block lasts.

        A copy, so that whatever ends the block, the weights of the training are never touched.
        """
        network = copy.deepcopy(self.network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(self.ema[name])
        yield network.eval()

    def export(self, evaluation: Evaluation | None, name: str | None = None) -> Path:
        """Write the averaged network with its model card, and the card as Markdown beside it.

        Args:
            evaluation: Figures for the card.
            name: Of the file, without its ending; None is that of the network.
        """
        path = Path(self.config.out) / f"{name or self.network.name}.safetensors"
        record = model_card.TrainingRecord(
            config=self.config,
            network=self.network.config_dict(),
            parameters=sum(p.numel() for p in self.parameters.values()),
            training_images=len(self.pool),
            steps=self.step,
            images_seen=self.images,
            elapsed_s=self.elapsed_s,
        )
        written = model_card.training_card(record, evaluation)
        save_network(path, self.network, written, state=self.ema)
        if name is None:
            model_card.write_markdown(path.with_suffix(".md"), written)
        return path
