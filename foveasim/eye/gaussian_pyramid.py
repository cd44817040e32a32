"""Gaussian pyramids with every level brought back to full size, exact in integers on every device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gaussian_pyramid"]


def gaussian_pyramid(image: Tensor, levels: int) -> Tensor:
    """Blur images by octaves.

    Level l + 1 is level l filtered by the binomial (1, 4, 6, 4, 1) / 16 in both directions (mirrored at the border) and
    halved; each level is then doubled back to full size by the same filter's interpolating form. Numba on the CPU and
    torch elsewhere agree to the bit.

    Args:
        image: (B, H, W, 3) uint8.
        levels: L, at least 1.

    Returns:
        (B, L, H, W, 3) uint8; level 0 is the image, level l resolves 2**-l of its detail.

    Reference:
        Burt and Adelson (1983), The Laplacian pyramid as a compact image code, equations 1 and 2 (a = 0.375).
    """
    lanes, height, width, _ = image.shape
    if image.device.type == "cpu":
        from foveasim.eye.kernels.pyramids import build_pyramid

        out = torch.empty(lanes, levels, height, width, 3, dtype=torch.uint8)
        out[:, 0] = image
        build_pyramid(image.contiguous().view(lanes, height, -1).numpy(), out.view(lanes, levels, height, -1).numpy())
        return out
    return _by_torch(image, levels)


def _by_torch(image: Tensor, levels: int) -> Tensor:
    grown, small, sizes = [image], image.to(torch.int32), [(image.shape[1], image.shape[2])]
    for _ in range(1, levels):
        small = _halve(_halve(small, 1), 2).add_(128) >> 8
        larger = small
        for size in reversed(sizes):
            larger = (_double(_double(larger, 1, size[0]), 2, size[1]) + 32) >> 6
        grown.append(larger.to(torch.uint8))
        sizes.append((small.shape[1], small.shape[2]))
    return torch.stack(grown, 1)


def _halve(image: Tensor, axis: int) -> Tensor:
    extent = image.shape[axis]
    at = torch.arange(0, extent, 2, device=image.device)

    def taken(shift: int) -> Tensor:
        if extent == 1:
            return image
        index = (at + shift).abs() % (2 * extent - 2)
        return image.index_select(axis, torch.minimum(index, 2 * extent - 2 - index))

    return taken(-2) + taken(2) + 4 * (taken(-1) + taken(1)) + 6 * taken(0)


def _double(image: Tensor, axis: int, extent: int) -> Tensor:
    last = image.shape[axis] - 1
    at = torch.arange(extent, device=image.device)
    here = at // 2
    odd = (at % 2 == 1).view([-1 if a == axis else 1 for a in range(4)])
    left, mid = image.index_select(axis, (here - 1).clamp_min(0)), image.index_select(axis, here)
    right = image.index_select(axis, (here + 1).clamp_max(last))
    return torch.where(odd, 4 * (mid + right), left + right + 6 * mid)
