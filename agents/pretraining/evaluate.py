"""How much better a network fills in what was not seen than the mean colour of what was.

``foveasim evaluate unet --data natural.tar@test``
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from foveasim import validation
from foveasim.agents.mim.weights_file import load_network
from foveasim.agents.pretraining.model_card import add_test
from foveasim.agents.pretraining.prediction_error import Evaluation, evaluate
from foveasim.eye.retina import make_retina
from foveasim.images.pool import centred
from foveasim.images.reading import read_pool

__all__ = ["EvaluateConfig", "run"]


@dataclass
class EvaluateConfig:
    """What to evaluate.

    Attributes:
        weights: A shipped network's name or a ``.safetensors`` file.
        data: Folders or tar archives of images, ``PATH`` or ``PATH@SPLIT``, or ``photos``; one or a list.
        retina: Name of a retina.
        retina_options: Its options; null gives disc the ``hidden_ratio`` 0.8 of the published figures, and others none.
        fixations: After how many fixations to measure.
        start: Where the first of them is: ``random``, or the ``centre`` of the scene.
        repeats: Times that each image is seen with other fixations. For 100 images, 8 repeats leave a standard
            deviation of 0.006.
        size: Side of the square that images are cropped and scaled to, px. Above 96 the network predicts at 96 px, and
            its prediction is scaled back.
        batch: Images at a time.
        seed: Of the fixations.
        device: Where to compute.
        update_card: Write the figures into the model card of the weights file, and into the page beside it.
    """

    weights: str = "unet"
    data: list[str] | str = field(default_factory=list)
    retina: str = "disc"
    retina_options: dict[str, Any] | None = None
    fixations: list[int] = field(default_factory=lambda: [1, 4, 8])
    start: Literal["random", "centre"] = "random"
    repeats: int = 8
    size: int = 96
    batch: int = 50
    seed: int = 0
    device: str = "cpu"
    update_card: bool = False


def run(config: EvaluateConfig) -> Evaluation:
    """Evaluate the network that a config names, and print the figures.

    Raises:
        WeightsError: The weights cannot be used.
        SceneError: The data cannot be read.
        InvalidValueError: An option out of range.
    """
    validation.check_device(config.device)
    side = validation.whole("size", config.size, 32, 4096)
    options = config.retina_options
    if options is None:
        options = {"hidden_ratio": 0.8} if config.retina == "disc" else {}
    retina = make_retina(config.retina, **options)
    validation.whole("repeats", config.repeats, 1, 10**6)
    validation.whole("batch", config.batch, 1, 10**6)
    network = load_network(config.weights, config.device)
    images = centred(read_pool(config.data), (side, side))
    found = evaluate(
        network,
        images,
        retina,
        tuple(config.fixations),
        start=config.start,
        repeats=config.repeats,
        batch=config.batch,
        seed=config.seed,
        device=config.device,
    )
    print(found)
    if config.update_card:
        add_test(config.weights, found, [config.data] if isinstance(config.data, str) else config.data)
    return found
