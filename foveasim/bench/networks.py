"""The networks, predicting and learning, and the pipeline that feeds them: what is to be measured of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from foveasim.agents.mim.network import NETWORKS, make_network
from foveasim.agents.mim.predictor import Predictor
from foveasim.agents.pretraining.augmentations import AugmentedBatches, as_float
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.gaze_sequences import PreparedPictures, draw_fixations, sense_sequence
from foveasim.agents.pretraining.trainer import Trainer
from foveasim.bench.timing import Case, Setting, pictures, rate_case
from foveasim.eye.foveated import as_scene
from foveasim.eye.retina import make_retina
from foveasim.images.pool import ImagePool

__all__ = ["TECHNIQUES", "network_cases"]

SIDE = 96
BATCH = 128
TRAINING_BATCH = 32
_N_IMAGES = 256

TECHNIQUES: dict[str, tuple[str, dict[str, Any]]] = {
    "foveate": ("pyramid", {"preset": "paper"}),
    "random_patches": ("patches", {"hidden_ratio": 0.6}),
    "periphery": ("disc", {"hidden_ratio": 0.8}),
}
"""The paper's masking techniques, by what its code calls them: retina and options."""


def _pool(seed: int) -> ImagePool:
    return ImagePool.of(list(pictures(SIDE, _N_IMAGES, seed)))


def _predict(network: str, batch: int, setting: Setting) -> Iterator[Callable[[], int]]:
    predictor = Predictor(make_network(network))
    image = torch.from_numpy(pictures(SIDE, batch, setting.seed).copy())
    eye, centre = make_retina("disc"), torch.full((batch, 2), SIDE / 2)
    glimpse = eye.sense(eye.prepare(as_scene(image)), centre)

    def work() -> int:
        predictor.predict(glimpse.image, glimpse.acuity)
        return batch

    yield work


def _train(network: str, setting: Setting) -> Iterator[Callable[[], int]]:
    """Steps of ``foveasim pretrain``, the pipeline included."""
    retina, options = TECHNIQUES["periphery"]
    with TemporaryDirectory() as out:
        config = PretrainConfig(
            out=out,
            network=network,
            retinas={retina: options},
            gaze="centre",
            max_fixations=1,
            batch=TRAINING_BATCH,
            steps=10**6,
            seed=setting.seed,
        )
        trainer = Trainer(config, _pool(setting.seed))

        def work() -> int:
            trainer.train_step()
            return TRAINING_BATCH

        yield work


def _pipeline(technique: str, variant: str, setting: Setting) -> Iterator[Callable[[], int]]:
    """Batches as a network takes them: what was seen, (B, 3, H, W) float32, its acuity and the target."""
    name, options = TECHNIQUES[technique]
    batches, retina = (
        AugmentedBatches(_pool(setting.seed), (SIDE, SIDE), crops=variant == "crops"),
        make_retina(name, **options),
    )
    prepared = PreparedPictures(batches, retina) if variant == "prepared" else None
    rng = np.random.default_rng(setting.seed)
    points, count = draw_fixations(rng, BATCH, 1, (SIDE, SIDE), gaze="centre"), np.ones(BATCH, np.int64)

    def work() -> int:
        drawn = batches.draw(rng, BATCH)
        scene, ready = prepared.take(drawn.index) if prepared is not None else (as_scene(drawn.image), None)
        seen = sense_sequence(scene, retina, points, count, prepared=ready)
        for part in (seen.image, scene.image):
            as_float(part).permute(0, 3, 1, 2)
        as_float(seen.acuity)
        return BATCH

    yield work


def network_cases() -> list[Case]:
    """Return predictions and training of every network, and the pipeline by masking technique."""
    cases = []
    for name in NETWORKS:
        for batch in (64, 1):
            predict = functools.partial(_predict, name, batch)
            about = f"predictions at {SIDE}x{SIDE}, {'one at a time' if batch == 1 else f'{batch} at once'}"
            against = "network/paper/predict/64" if name != "paper" and batch == 64 else ""
            cases.append(rate_case(f"network/{name}/predict/{batch}", about, "images/s", predict, against))
        about = f"training steps of {TRAINING_BATCH}, with the pipeline"
        against = "network/paper/train" if name != "paper" else ""
        cases.append(rate_case(f"network/{name}/train", about, "images/s", functools.partial(_train, name), against))
    for technique in TECHNIQUES:
        # Prepared once pays where preparing is work: a pyramid, not a disc or squares.
        for variant in ("crops", "whole", "prepared")[: 3 if technique == "foveate" else 2]:
            about = {"crops": "random crops", "whole": "whole pictures", "prepared": "whole pictures, prepared once"}[
                variant
            ]
            work = functools.partial(_pipeline, technique, variant)
            cases.append(rate_case(f"pipeline/{technique}/{variant}", f"batches of {about}", "images/s", work))
    return cases
