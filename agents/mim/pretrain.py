"""Pretraining by masked image modelling with eyes that move.

Each batch looks at random crops through one retina, one to eight fixations a lane; the network predicts the crop from
the sharpest view so far. The loss is the squared error weighted by 1 - acuity, for each image the sum divided by the
sum of the weights: where acuity is 0 or 1, the paper's sum over hidden pixels divided by their number.

``python -m foveasim.agents.mim.pretrain --data PHOTOS.tar --out runs/lean --minutes 60``

Reference:
    Weiler, Brucklacher, Pennartz, Bohté (2024), arXiv:2404.08526, loss and augmentation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveasim import check
from foveasim.agents.mim import card as model_card
from foveasim.agents.mim.data import ImagePool, centred, crops, read_pool
from foveasim.agents.mim.evaluate import Evaluation, evaluate
from foveasim.agents.mim.eyes import as_scene, draw_fixations, look
from foveasim.agents.mim.files import load_network, read_tensors, save_network, write_tensors
from foveasim.agents.mim.imagine import compose
from foveasim.agents.mim.network import MimNetwork, make_network, to_float
from foveasim.errors import InvalidValueError, WeightsError
from foveasim.retina import Retina, make_retina

__all__ = ["PretrainConfig", "Trainer", "run"]

CHECKPOINT = "checkpoint.safetensors"
PRECISIONS = ("float32", "bfloat16")
MAX_GRADIENT = 0.5  # norm; usual ones are 0.002 to 0.1, so that this only stops an explosion


def _default_retinas() -> dict[str, dict[str, Any]]:
    return {"disc": {"hidden_ratio": 0.8}, "pyramid": {}}


@dataclass
class PretrainConfig:
    """How to pretrain.

    Attributes:
        data: Folders or tar archives of images to train on, ``PATH`` or ``PATH@SPLIT`` with the split ``train``,
            ``val`` or ``test``.
        shares: How often each of them is drawn from; None draws every image equally often.
        validate: The same for validation; empty for none.
        out: Folder for the network, checkpoints, log and picture.
        network: Name of a network.
        network_options: Fields of its config.
        start_from: A network's file or shipped name whose weights to start from; None for fresh ones.
        retinas: Retinas by name with their options; each batch uses one.
        retina_shares: How often each is used, in their order; None uses them equally often.
        max_fixations: Each lane makes 1 to this many fixations.
        skew: How much oftener few fixations are drawn than many: 1 draws all numbers equally often; 2, with 8 at most,
            a single one 35 % of the time, which is where the least is known and most is left to learn.
        walk_share: Share of lanes that walk from the centre; the others fixate uniformly.
        size: Side of the crops, px.
        oblong_share: Share of batches of a third more width or height than ``size``.
        scale: Least and greatest share of an image's area in a crop.
        batch: Images a step.
        minutes: How long to train, or None.
        steps: How many steps to train, or None. Give one of the two.
        lr: Greatest learning rate; 3 % of the run warms up to it, a cosine brings it down to 1 % of it.
        weight_decay: Of AdamW, on weights but not on biases.
        ema_decay: Of the moving average of the weights, which is what gets saved.
        precision: ``float32``, or ``bfloat16`` for the network's forward and backward pass: twice as quick on CPUs with
            AMX or AVX512-BF16, slow on others.
        seed: Of everything random.
        threads: CPU threads, or None for torch's own choice.
        device: Where to train.
        checkpoint_minutes: Time between checkpoints.
        validate_minutes: Time between validations.
        resume: Go on from the checkpoint in ``out``.
        tensorboard: Also log there; needs tensorboard.
        licence: Terms of the data, for the model card.
        command: The command of this run, for the model card.
    """

    data: list[str] = field(default_factory=list)
    shares: list[float] | None = None
    validate: list[str] = field(default_factory=list)
    out: str = "runs/pretrain"
    network: str = "lean"
    network_options: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    retinas: dict[str, dict[str, Any]] = field(default_factory=_default_retinas)
    retina_shares: list[float] | None = None
    max_fixations: int = 8
    skew: float = 1.0
    walk_share: float = 0.25
    size: int = 96
    oblong_share: float = 0.1
    scale: tuple[float, float] = (0.2, 1.0)
    batch: int = 32
    minutes: float | None = None
    steps: int | None = None
    lr: float = 2e-3
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    precision: str = "float32"
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    checkpoint_minutes: float = 2.0
    validate_minutes: float = 5.0
    resume: bool = False
    tensorboard: bool = False
    licence: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise InvalidValueError(
                f"give minutes or steps, one of the two; got minutes={self.minutes}, steps={self.steps}."
            )
        for name, value, least in (
            ("minutes", self.minutes, 0),
            ("lr", self.lr, 0),
            ("skew", self.skew, 0),
            ("checkpoint_minutes", self.checkpoint_minutes, 0),
            ("validate_minutes", self.validate_minutes, 0),
        ):
            if value is not None:
                check.number(name, value, least, open_low=True)
        for name, whole, least in (
            ("steps", self.steps, 1),
            ("max_fixations", self.max_fixations, 1),
            ("size", self.size, 32),
            ("batch", self.batch, 1),
        ):
            if whole is not None:
                check.number(name, whole, least)
        for name, share in (("walk_share", self.walk_share), ("oblong_share", self.oblong_share)):
            check.number(name, share, 0, 1)
        check.number("weight_decay", self.weight_decay, 0)
        check.number("ema_decay", self.ema_decay, 0, 1, open_high=True)
        low, high = self.scale
        check.number("scale", low, 0, 1, open_low=True)
        check.number("scale", high, low, 1)
        check.seed_value("seed", self.seed)
        if self.precision not in PRECISIONS:
            raise InvalidValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}.")
        if not self.retinas:
            raise InvalidValueError("retinas must name at least one retina; got none.")
        if self.retina_shares is not None and (
            len(self.retina_shares) != len(self.retinas) or min(self.retina_shares) < 0 or sum(self.retina_shares) <= 0
        ):
            raise InvalidValueError(
                f"retina_shares must be one number >= 0 for each of {', '.join(self.retinas)}; "
                f"got {self.retina_shares}."
            )


class Trainer:
    """A training run: its network, optimizer and counters, and how they are saved.

    Batches are drawn from (seed, step), so that a resumed run sees what an uninterrupted one would have seen.

    Args:
        config: How to train.
        pool: The images.

    Raises:
        WeightsError: There is a checkpoint and ``resume`` is off, or none that fits and it is on.
    """

    def __init__(self, config: PretrainConfig, pool: ImagePool) -> None:
        self.config, self.pool = config, pool
        self.device = torch.device(config.device)
        self.checkpoint = Path(config.out) / CHECKPOINT
        self.retinas: list[Retina] = [make_retina(name, **options) for name, options in config.retinas.items()]
        shares = np.ones(len(self.retinas)) if config.retina_shares is None else np.array(config.retina_shares, float)
        self.chances = shares / shares.sum()
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(config.seed)
            self.network = make_network(config.network, **config.network_options)
        if config.start_from is not None:
            self._start_from(config.start_from)
        self.network.to(self.device)
        self.parameters = dict(self.network.named_parameters())
        self.ema = {name: p.detach().clone() for name, p in self.parameters.items()}
        weights = [p for p in self.parameters.values() if p.ndim > 1]
        biases = [p for p in self.parameters.values() if p.ndim <= 1]
        groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)
        self.step = 0
        self.elapsed_s = 0.0
        self.images = 0
        if config.resume:
            self._resume()
        elif self.checkpoint.exists():
            raise WeightsError(
                f"{self.checkpoint} is of an earlier run. Go on with it by resume=True (--resume true), choose another "
                "folder by out, or delete it."
            )

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.config.steps is not None:
            return min(1.0, self.step / self.config.steps)
        return min(1.0, self.elapsed_s / 60 / (self.config.minutes or 1.0))

    def learning_rate(self) -> float:
        """Return the learning rate at this progress: linear warm-up, then a cosine."""
        warm = 0.03
        if self.progress < warm:
            return self.config.lr * max(self.progress / warm, 0.01)
        phase = (self.progress - warm) / (1 - warm)
        return self.config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))

    def draw(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the batch of one step.

        Returns:
            What was seen, (B, 3, H, W), its acuity, (B, 1, H, W), and the target, (B, 3, H, W), float in [0, 1].
        """
        config = self.config
        rng = np.random.default_rng((config.seed, step))
        size = (config.size, config.size)
        if rng.uniform() < config.oblong_share:
            longer = config.size * 4 // 3
            size = (config.size, longer) if rng.uniform() < 0.5 else (longer, config.size)
        image = crops(self.pool, rng, config.batch, size, scale=config.scale, shares=config.shares)
        retina = self.retinas[int(rng.choice(len(self.retinas), p=self.chances))]
        points = draw_fixations(rng, config.batch, config.max_fixations, size, config.walk_share)
        share = rng.uniform(size=config.batch) ** config.skew
        count = 1 + (share * config.max_fixations).astype(np.int64)
        scene = as_scene(torch.from_numpy(image).to(self.device))
        belief = look(scene, retina, points, count, int(rng.integers(2**31)))
        return *to_float(belief.image, belief.acuity), scene.image.permute(0, 3, 1, 2).float() / 255

    def train_step(self) -> Tensor:
        """Make one step and return its loss, a detached scalar."""
        started = time.perf_counter()
        self.network.train()
        image, acuity, target = self.draw(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            reconstruction, _ = self.network(image, acuity)
        weight = 1 - acuity
        error = ((reconstruction.float() - target).square() * weight).sum((1, 2, 3)) / 3
        loss = (error / weight.sum((1, 2, 3)).clamp(min=1)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.parameters.values()), 1 - decay)
        self.step += 1
        self.images += len(image)
        self.elapsed_s += time.perf_counter() - started
        detached: Tensor = loss.detach()
        return detached

    def save(self) -> None:
        """Write the checkpoint: network, moving average, optimizer and counters."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"network.{name}"], tensors[f"ema.{name}"] = parameter, self.ema[name]
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = torch.as_tensor(value)
        counters = {"step": self.step, "elapsed_s": self.elapsed_s, "images": self.images}
        metadata = {"counters": json.dumps(counters), "config": json.dumps(asdict(self.config))}
        write_tensors(self.checkpoint, tensors, metadata)

    def _start_from(self, path: str) -> None:
        other = load_network(path)
        if (other.name, other.config) != (self.network.name, self.network.config):
            raise WeightsError(
                f"start_from={path!r} is a {other.name!r} with {other.config}; this run trains "
                f"{self.network.name!r} with {self.network.config}. Set network and network_options to match."
            )
        self.network.load_state_dict(other.state_dict())

    def _resume(self) -> None:
        tensors, metadata = read_tensors(self.checkpoint)
        try:
            counters = json.loads(metadata["counters"])
            for name, parameter in self.parameters.items():
                with torch.no_grad():
                    parameter.copy_(tensors[f"network.{name}"])
                    self.ema[name].copy_(tensors[f"ema.{name}"])
                keys = [k for k in tensors if k.startswith("adam.") and k.split(".", 2)[2] == name]
                state = {k.split(".", 2)[1]: tensors[k].to(self.device) for k in keys}
                self.optimizer.state[parameter] = state
            self.step, self.images = int(counters["step"]), int(counters["images"])
            self.elapsed_s = float(counters["elapsed_s"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(
                f"{self.checkpoint} does not fit this run ({error}). Resume with the network and network_options that "
                "it was started with, or choose another out."
            ) from error

    @contextlib.contextmanager
    def averaged(self) -> Iterator[MimNetwork]:
        """The network with the moving average of its weights, for as long as the block lasts."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.ema[name])
        try:
            yield self.network.eval()
        finally:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(own[name])

    def export(self, evaluation: Evaluation | None) -> Path:
        """Write the averaged network as float16 with its model card, and the card as Markdown beside it."""
        path = Path(self.config.out) / f"{self.config.network}.safetensors"
        written = model_card.training_card(self, evaluation)
        save_network(path, self.network, written, state=self.ema)
        model_card.write_markdown(path.with_suffix(".md"), written)
        return path


def run(config: PretrainConfig) -> Path:
    """Pretrain a network.

    Args:
        config: How.

    Returns:
        The network's file, ``OUT/NETWORK.safetensors``. Beside it: its model card, ``checkpoint.safetensors`` (for
        ``resume``), ``log.jsonl`` and ``pictures.png`` (rows of three: seen, predicted, there).

    Raises:
        InvalidValueError: An option out of range, or a loss that is not finite.
        SceneError: Data that cannot be read.
        WeightsError: A checkpoint that does not fit, or a folder that cannot be written to.
    """
    from foveasim.agents.mim.progress import TrainingLog

    if config.threads is not None:
        torch.set_num_threads(int(check.number("threads", config.threads, 1)))
    cv2.setNumThreads(1)  # crops are too small to share; its threads would fight with torch's
    pool = read_pool(config.data)
    held_out = centred(read_pool(config.validate), (config.size, config.size)) if config.validate else None
    trainer = Trainer(config, pool)
    evaluation: Evaluation | None = None
    saved_s, validated_s = trainer.elapsed_s, trainer.elapsed_s

    def validate() -> Evaluation | None:
        if held_out is None:
            return None
        retina = make_retina("disc", hidden_ratio=0.8)
        with trainer.averaged() as network:
            return evaluate(network, held_out, retina, device=config.device)

    with TrainingLog(Path(config.out), config.tensorboard) as log:
        log.say(f"{len(pool)} images, {sum(p.numel() for p in trainer.parameters.values()):,} parameters")
        try:
            while trainer.progress < 1:
                loss = trainer.train_step()
                log.step(trainer, loss)
                if trainer.elapsed_s - validated_s >= 60 * config.validate_minutes:
                    validated_s = trainer.elapsed_s
                    evaluation = validate()
                    log.evaluation(trainer, evaluation)
                if trainer.elapsed_s - saved_s >= 60 * config.checkpoint_minutes:
                    saved_s = trainer.elapsed_s
                    trainer.save()
                    trainer.export(evaluation)
        except KeyboardInterrupt:
            trainer.save()
            log.say(f"interrupted; {trainer.checkpoint} is written. Go on with --resume true.")
            raise
        evaluation = validate()
        log.evaluation(trainer, evaluation)
        trainer.save()
        path = trainer.export(evaluation)
        _write_pictures(trainer, held_out)
        log.say(f"wrote {path}")
    return path


def _write_pictures(trainer: Trainer, held_out: NDArray[np.uint8] | None, count: int = 8) -> None:
    """Write rows of what was seen, what was predicted and what was there, one to eight fixations."""
    config = trainer.config
    size = (config.size, config.size)
    rng = np.random.default_rng((config.seed, 2**40))  # a step that no training reaches
    images = crops(trainer.pool, rng, count, size) if held_out is None else held_out[:count]
    points = draw_fixations(rng, len(images), count, size)
    columns = []
    for retina in trainer.retinas:
        scene = as_scene(torch.from_numpy(images).to(trainer.device))
        belief = look(scene, retina, points, np.arange(1, len(images) + 1))
        with trainer.averaged() as network, torch.inference_mode():
            image, acuity = to_float(belief.image, belief.acuity)
            predicted = compose(image, acuity, network(image, acuity)[0]).permute(0, 2, 3, 1)
        seen = torch.where((belief.acuity > 0)[..., None], belief.image, 128)
        shown = (seen, (predicted * 255).round().to(torch.uint8), scene.image)
        columns += [np.concatenate(list(part.cpu().numpy()), axis=0) for part in shown]
    sheet = np.concatenate(columns, axis=1)
    cv2.imwrite(str(Path(config.out) / "pictures.png"), np.ascontiguousarray(sheet[:, :, ::-1]))


def main(arguments: list[str] | None = None) -> None:
    """Command line of ``python -m foveasim.agents.mim.pretrain``."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(description="Pretrain a network that predicts what an eye cannot see.")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(PretrainConfig, as_group=False)
    values = parser.parse_args(arguments).as_dict()
    names = {f.name for f in dataclasses.fields(PretrainConfig)}
    run(PretrainConfig(**{k: v for k, v in values.items() if k in names}))


if __name__ == "__main__":
    main()
