"""Options of a pretraining run: :class:`PretrainConfig`, and the presets that ship, YAML files in ``presets/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from foveasim import validation
from foveasim.errors import InvalidValueError
from foveasim.presets import Presets

__all__ = ["PRESETS", "PretrainConfig"]


def _default_retinas() -> dict[str, dict[str, Any]]:
    return {"disc": {"hidden_ratio": 0.8}, "pyramid": {}}


@dataclass
class PretrainConfig:
    """How to pretrain.

    Attributes:
        data: Images to train on: folders, tar archives, STL-10's binary files; ``PATH`` or ``PATH@SPLIT``.
        shares: How often each of them is drawn from; None draws every image equally often.
        cache: Folder in which decoded images are cached and memory-mapped, for data larger than memory; None decodes
            them into memory.
        validate: Images for validation, as ``data``; empty for none.
        out: Folder for the network, checkpoints, log and picture.
        network: Name of a network.
        network_options: Fields of its config.
        start_from: A network's file or shipped name whose weights to start from; None for fresh ones.
        retinas: Masking techniques: retinas by name with their options; each batch uses one. ``full`` hides nothing.
        retina_shares: How often each is used, in their order; None uses them equally often.
        gaze: ``free`` fixates anywhere in the scene, ``centre`` its centre, as the paper does.
        max_fixations: Each lane makes 1 to this many fixations before the prediction.
        skew: How much oftener few fixations are drawn than many: 1 draws all numbers equally often; 2, with 8 at most,
            a single one 35 % of the time, where little is known and much is left to learn.
        walk_share: Share of lanes whose free gaze walks from the centre.
        human_share: Share of lanes whose free gaze is spread as people's is; the others fixate uniformly.
        centre_share: Share of lanes of free gaze, of all kinds, that begin at the centre.
        size: Side of what the network sees, px.
        crops: Random resized crops; otherwise the whole picture, cropped around its centre to a square.
        scale: Smallest and largest share of an image's area in a crop.
        mirror: Show half of the crops mirrored.
        jitter: Colour jitter, 0.8 of brightness, contrast and saturation, 0.2 of hue, in 80 % of the images.
        oblong_share: Share of batches of a third more width or height than ``size``.
        std_weight: How much the likelihood of the errors counts beside the squared error, for networks that predict
            their standard deviation.
        std_beta: How much surer pixels count less in that likelihood: each is weighted by its variance to this power.
        loss: Where the squared error counts: ``hidden`` weighs each pixel by 1 - acuity, ``object`` the same times how
            surely it belongs to the main object, ``all`` every pixel alike (a plain autoencoder, with the retina
            ``full``).
        masks: Folder of the main objects' masks, as ``foveasim segment`` writes; needed by the loss ``object`` and by
            covert attention, ``two_spot`` with ``attend: object``.
        unmasked: Images without a usable mask: ``drop`` them, or ``keep`` them and count them as object everywhere.
        batch: Images a step, over all processes together.
        epochs: How often to see every image, or None.
        minutes: How long to train, or None.
        steps: How many steps to train, or None. Give one of the three.
        optimizer: ``adamw``, or ``adam``, whose weight decay is an L2 penalty on all parameters, as the paper's.
        lr: Greatest learning rate.
        schedule: ``cosine`` warms up over 3 % of the run and comes down to 1 % of ``lr``; ``constant``.
        weight_decay: Of ``adamw``, on weights but not on biases.
        ema_decay: Of the moving average of the weights, which is what gets saved; 0 saves the weights themselves.
        precision: ``float32``, or ``bfloat16`` for the network's forward and backward pass: quick on GPUs and on CPUs
            with AMX, slow on others.
        compile: Let ``torch.compile`` compile the network, on GPUs.
        seed: Of everything random.
        threads: CPU threads, or None for torch's own choice.
        device: Where to train.
        checkpoint_minutes: Time between checkpoints.
        checkpoint_steps: Also after so many steps; None goes by time alone.
        snapshots: Copies of the network to keep along the run, evenly over it, as ``step-*.safetensors``.
        validate_minutes: Time between validations.
        resume: Go on from the checkpoint in ``out``. With ``steps`` or ``epochs`` on a CPU the result is the same to
            the bit as that of an uninterrupted run.
        overwrite: Begin anew in a folder that is not empty, and replace files of a run there.
        tensorboard: Also log there, with pictures; needs tensorboard.
        licence: Terms of the data, for the model card.
        command: The command of this run, for the model card.
    """

    data: list[str] = field(default_factory=list)
    shares: list[float] | None = None
    cache: str | None = None
    validate: list[str] = field(default_factory=list)
    out: str = "runs/pretrain"
    network: str = "lean"
    network_options: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    retinas: dict[str, dict[str, Any]] = field(default_factory=_default_retinas)
    retina_shares: list[float] | None = None
    gaze: Literal["free", "centre"] = "free"
    max_fixations: int = 8
    skew: float = 1.0
    walk_share: float = 0.25
    human_share: float = 0.0
    centre_share: float = 0.0
    size: int = 96
    crops: bool = True
    scale: tuple[float, float] = (0.2, 1.0)
    mirror: bool = True
    jitter: bool = False
    oblong_share: float = 0.0
    loss: Literal["hidden", "object", "all"] = "hidden"
    std_weight: float = 0.05
    std_beta: float = 0.5
    masks: str | None = None
    unmasked: Literal["drop", "keep"] = "drop"
    batch: int = 32
    epochs: float | None = None
    minutes: float | None = None
    steps: int | None = None
    optimizer: Literal["adamw", "adam"] = "adamw"
    lr: float = 2e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    checkpoint_minutes: float = 2.0
    checkpoint_steps: int | None = None
    snapshots: int = 0
    validate_minutes: float = 5.0
    resume: bool = False
    overwrite: bool = False
    tensorboard: bool = False
    licence: str = ""
    command: str = ""

    def __post_init__(self) -> None:
        budgets = {"epochs": self.epochs, "minutes": self.minutes, "steps": self.steps}
        if sum(value is not None for value in budgets.values()) != 1:
            given = ", ".join(f"{name}={value}" for name, value in budgets.items() if value is not None)
            remedy = " One that a preset sets is switched off by None (--epochs null)." if given else ""
            raise InvalidValueError(
                f"give epochs, minutes or steps, one of the three; got {given or 'none of them'}.{remedy}"
            )
        for name in ("minutes", "epochs", "lr", "skew", "checkpoint_minutes", "validate_minutes"):
            value = getattr(self, name)
            if value is not None:
                validation.number(name, value, 0, open_low=True)
        for name, minimum in (
            ("steps", 1),
            ("max_fixations", 1),
            ("size", 32),
            ("batch", 1),
            ("checkpoint_steps", 1),
            ("snapshots", 0),
            ("threads", 1),
        ):
            whole = getattr(self, name)
            if whole is not None:
                validation.whole(name, whole, minimum, 2**31)
        for name in ("walk_share", "human_share", "centre_share", "oblong_share", "std_beta"):
            validation.number(name, getattr(self, name), 0, 1)
        if self.walk_share + self.human_share > 1:
            raise InvalidValueError(
                f"walk_share and human_share must together be at most 1; got {self.walk_share} and {self.human_share}."
            )
        validation.number("std_weight", self.std_weight, 0)
        validation.number("weight_decay", self.weight_decay, 0)
        validation.number("ema_decay", self.ema_decay, 0, 1, open_high=True)
        low, high = self.scale = (self.scale[0], self.scale[1])  # a preset gives a list
        validation.number("scale", low, 0, 1, open_low=True)
        validation.number("scale", high, low, 1)
        validation.seed_value("seed", self.seed)
        self._check_choices()
        self._check_retinas()

    @property
    def attends_objects(self) -> bool:
        """Whether a retina attends the main object, which needs ``masks``."""
        return any(options.get("attend") == "object" for options in self.retinas.values())

    def _check_choices(self) -> None:
        for name, known in (
            ("gaze", ("free", "centre")),
            ("loss", ("hidden", "object", "all")),
            ("unmasked", ("drop", "keep")),
            ("optimizer", ("adamw", "adam")),
            ("schedule", ("cosine", "constant")),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in known:
                raise InvalidValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")

    def _check_retinas(self) -> None:
        if not self.retinas:
            raise InvalidValueError("retinas must name at least one retina; got none.")
        if self.retina_shares is not None and (
            len(self.retina_shares) != len(self.retinas) or min(self.retina_shares) < 0 or sum(self.retina_shares) <= 0
        ):
            raise InvalidValueError(
                f"retina_shares must be one number >= 0 for each of {', '.join(self.retinas)}; "
                f"got {self.retina_shares}."
            )
        if "full" in self.retinas and self.loss != "all":
            raise InvalidValueError(
                f"retina 'full' hides nothing, so that the loss {self.loss!r} has nothing to predict. Use loss='all' "
                "(--loss all) for a plain autoencoder."
            )
        if self.masks is None and (self.loss == "object" or self.attends_objects):
            option = "loss='object'" if self.loss == "object" else "attend='object'"
            raise InvalidValueError(
                f"{option} needs the masks of the main objects. Make them by `foveasim segment DATA MASKS` and give "
                "masks='MASKS' (--masks MASKS)."
            )


PRESETS = Presets("foveasim.agents.pretraining", PretrainConfig)
"""Those that ship."""
