"""Model cards: what a network was trained on, how, and how well it does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveasim.agents.mim.weights_file import load_network, read_card, read_dtype, save_network
from foveasim.agents.pretraining.config import PretrainConfig
from foveasim.agents.pretraining.prediction_error import Evaluation
from foveasim.errors import WeightsError
from foveasim.runs.whole_files import write_atomically

_OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam"}
_LOSSES = {"hidden": "what was hidden", "object": "what was hidden of the main object", "all": "every pixel"}

__all__ = ["TrainingRecord", "add_test", "evaluation_dict", "training_card", "write_markdown"]


def _name(spec: str) -> str:
    """A data source without the folders of the machine that it lay on."""
    return Path(spec).name


def evaluation_dict(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return an evaluation as a card holds it: figures by number of fixations."""
    rows = zip(evaluation.fixations, evaluation.relative, evaluation.mse, evaluation.fill_mse, strict=True)
    return {
        str(n): {"relative_error": round(relative, 4), "mse": round(mse, 6), "visible_mean_mse": round(fill, 6)}
        for n, relative, mse, fill in rows
    }


@dataclass(frozen=True)
class TrainingRecord:
    """Facts of a training run so far.

    Attributes:
        config: Its options.
        network: The config of its network, as what JSON can hold.
        parameters: How many numbers are trained.
        training_images: How many there are.
        steps: Done so far.
        images_seen: Views, so far.
        elapsed_s: Time of the steps, s.
    """

    config: PretrainConfig
    network: dict[str, Any]
    parameters: int
    training_images: int
    steps: int
    images_seen: int
    elapsed_s: float


def training_card(record: TrainingRecord, evaluation: Evaluation | None) -> dict[str, Any]:
    """Describe a training run so far."""
    config = record.config
    return {
        "network": config.network,
        "config": record.network,
        "parameters": record.parameters,
        "trained_on": [_name(spec) for spec in config.data],
        "shares": config.shares,
        "training_images": record.training_images,
        "licence": config.licence,
        "command": config.command,
        "retinas": config.retinas,
        "gaze": config.gaze,
        "walk_share": config.walk_share,
        "human_share": config.human_share,
        "centre_share": config.centre_share,
        "fixations": [1, config.max_fixations],
        "loss": config.loss,
        "crops": config.crops,
        "jitter": config.jitter,
        "skew": config.skew,
        "size_px": config.size,
        "steps": record.steps,
        "images_seen": record.images_seen,
        "minutes": round(record.elapsed_s / 60, 1),
        "batch": config.batch,
        "lr": config.lr,
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        "precision": config.precision,
        "seed": config.seed,
        "validated_on": [_name(spec) for spec in config.validate],
        "validation": {} if evaluation is None else evaluation_dict(evaluation),
    }


def add_test(path: str | os.PathLike[str], evaluation: Evaluation, data: Sequence[str]) -> None:
    """Write test figures into the card of a network's file and into the page beside it.

    Args:
        path: A ``.safetensors`` file; the tensors in it stay as they are.
        evaluation: The figures.
        data: What they were measured on.

    Raises:
        WeightsError: The file cannot be read or written.
    """
    path = Path(path)
    card = {**read_card(path), "test": evaluation_dict(evaluation), "tested_on": [_name(spec) for spec in data]}
    save_network(path, load_network(path), card, dtype=read_dtype(path))
    write_markdown(path.with_suffix(".md"), card)


def _table(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = ["| fixations | relative error | mse | mse of the visible mean |", "| --- | --- | --- | --- |"]
    for n, row in figures.items():
        lines.append(f"| {n} | {row['relative_error']:.3f} | {row['mse']:.5f} | {row['visible_mean_mse']:.5f} |")
    return lines


def _fixations(card: Mapping[str, Any]) -> str:
    minimum, maximum = card["fixations"]
    where = "at the centre" if card.get("gaze") == "centre" else "anywhere" + _kinds_of_gaze(card)
    return f"{minimum} to {maximum} fixations {where}" if maximum > minimum else f"one fixation {where}"


def _kinds_of_gaze(card: Mapping[str, Any]) -> str:
    kinds = {"walk_share": "walking", "human_share": "spread as people's", "centre_share": "beginning at the centre"}
    shares = [f"{100 * card[name]:.0f} % {kind}" for name, kind in kinds.items() if card.get(name)]
    return f" ({', '.join(shares)})" if shares else ""


def write_markdown(path: str | os.PathLike[str], card: Mapping[str, Any]) -> None:
    """Write a card as a page for people.

    Args:
        path: The page, ``….md``.
        card: From :func:`training_card`; ``test`` and ``tested_on`` are shown where it has them.

    Raises:
        WeightsError: The folder cannot be written to.
    """
    retinas = "; ".join(f"{name} {options}" if options else name for name, options in card["retinas"].items())
    lines = [
        f"# {card['network']}",
        "",
        "Predicts a scene from what a moving eye has seen of it (`foveasim.agents.mim`): masked image modelling across "
        "eye movements, after Weiler, Brucklacher, Pennartz and Bohté (2024), arXiv:2404.08526.",
        "",
        f"- Network: `{card['network']}` {card['config']}, {card['parameters']:,} parameters",
        f"- Trained on: {', '.join(card['trained_on'])} ({card['training_images']:,} images)",
        f"- Terms of the data: {card['licence'] or 'not stated'}",
        f"- Eyes: {retinas}; {_fixations(card)}; "
        f"{card['size_px']} px {'crops' if card.get('crops', True) else 'pictures'}",
        f"- Training: {card['steps']:,} steps of {card['batch']} views ({card['images_seen']:,} views, "
        f"{card['minutes']} minutes), {_OPTIMIZERS[card.get('optimizer', 'adamw')]}, lr {card['lr']} "
        f"({card.get('schedule', 'cosine')}), {card['precision']}, seed {card['seed']}",
        f"- Loss: squared error on {_LOSSES[card.get('loss', 'hidden')]}"
        + ("; its standard deviation by likelihood" if card["config"].get("std") else "")
        + (f", calibrated on {', '.join(card['calibrated_on'])}" if card.get("calibrated_on") else ""),
        "",
    ]
    if card["command"]:
        lines += ["```sh", card["command"], "```", ""]
    lines += [
        "Relative error: squared error on hidden pixels after random fixations of `disc` with hidden ratio 0.8, "
        "divided by that of filling with the mean colour of what was seen.",
        "",
    ]
    for title, where in (("test", "tested_on"), ("validation", "validated_on")):
        if card.get(title):
            lines += [f"## {title.capitalize()}: {', '.join(card[where])}", "", *_table(card[title]), ""]
    lines += [
        "## Limits",
        "",
        "It answers the mean of what is possible, so that unseen regions come out blurred. It has seen photographs of "
        "objects, animals and places at 96 px; at other sizes let `Predictor` shrink the view. It was not trained on "
        "other kinds of images and must not be used to reconstruct hidden content as if it were evidence.",
    ]
    try:
        write_atomically(Path(path), ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}. Choose another folder.") from error
