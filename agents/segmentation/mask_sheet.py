"""A contact sheet of masks: pictures with the outline of their main object, for a person to judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveasim.errors import SceneError
from foveasim.eye.masks import OBJECT_SURE
from foveasim.images.object_masks import read_mask
from foveasim.images.pool import ImagePool

__all__ = ["mask_sheet"]

TILE_PX, GAP_PX, HEAD_PX = 128, 4, 30
COLUMNS = 10
ROWS = {True: 4, False: 2}  # of usable and unusable masks
OUTLINE = (255, 0, 255)  # magenta: the colour that photographs have least of
BACKGROUND = 24


def _tile(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with the outline of what is surely its object, dimmed elsewhere, in a square."""
    scale = TILE_PX / max(image.shape[:2])
    width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    picture, confidence = (
        cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        for part in (image, mask)
    )
    light = 0.4 + 0.6 * confidence[..., None].astype(np.float32) / 255
    displayed = np.asarray(np.rint(picture * light), np.uint8)
    outlines = cv2.findContours((confidence >= OBJECT_SURE).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(displayed, outlines, -1, OUTLINE, 1)
    tile = np.full((TILE_PX, TILE_PX, 3), BACKGROUND, np.uint8)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    tile[top : top + height, left : left + width] = displayed
    return tile


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of the numbers, evenly spread."""
    chosen = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
    return [numbers[place] for place in chosen]


def mask_sheet(pool: ImagePool, paths: Sequence[Path], usable: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw pictures with their masks, evenly spread over the pool, usable ones above and unusable ones below.

    Args:
        pool: The pictures.
        paths: The file of each one's mask.
        usable: (N,) bool, whether the mask of each is usable.

    Returns:
        (H, W, 3) uint8.

    Raises:
        SceneError: A mask is missing or cannot be read.
    """
    step = TILE_PX + GAP_PX
    blocks: list[NDArray[np.uint8]] = []
    for good, rows in ROWS.items():
        numbers = np.flatnonzero(usable == good).tolist()
        displayed = _spread(numbers, rows * COLUMNS)
        lines = max(1, -(-len(displayed) // COLUMNS))
        block = np.full((HEAD_PX + lines * step, COLUMNS * step + GAP_PX, 3), BACKGROUND, np.uint8)
        for place, number in enumerate(displayed):
            image = pool.images[number]
            mask = read_mask(paths[number], (image.shape[0], image.shape[1]))
            if mask is None:
                raise SceneError(f"{paths[number]}: the mask is gone. Run `foveasim segment` again.")
            top, left = HEAD_PX + place // COLUMNS * step, GAP_PX + place % COLUMNS * step
            block[top : top + TILE_PX, left : left + TILE_PX] = _tile(image, mask)
        canvas = Image.fromarray(block)
        text = f"{'usable' if good else 'not usable'}: {len(numbers):,} of {len(pool):,}; {len(displayed)} are shown"
        ImageDraw.Draw(canvas).text((GAP_PX + 2, 6), text, fill=(235, 235, 235), font=ImageFont.load_default(16))
        blocks.append(np.asarray(canvas, np.uint8))
    return np.concatenate(blocks)
