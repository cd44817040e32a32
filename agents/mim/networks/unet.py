"""A small residual U-Net, the network that ships with the package.

Reference:
    Ronneberger, Fischer, Brox (2015), U-Net; Shi et al. (2016), Real-time single image super-resolution using sub-pixel
    convolution; Zhang, Dauphin, Ma (2019), Fixup; Kendall, Gal (2017), What uncertainties do we need, section 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim import validation
from foveasim.agents.mim.network import MimNetwork, Output, check_input, margin, visible_mean
from foveasim.errors import InvalidValueError

__all__ = ["UNetConfig", "UNetNetwork"]

START_STD = 0.2  # about the error of the visible mean, what an untrained network answers
MIN_LOG_STD = math.log(1 / 512)  # half a grey level


@dataclass(frozen=True)
class UNetConfig:
    """Config of :class:`UNetNetwork`.

    Attributes:
        widths: Channels at strides 4, 8 and 16.
        blocks: Residual blocks at strides 4, 8 and 16; those at 4 and 8 stand on the way down and again on the way up.
        std: Whether it predicts the standard deviation of its error.
        std_scale: Factor of that, found by ``foveasim calibrate`` on images that were not trained on.
    """

    widths: tuple[int, int, int] = (48, 96, 160)
    blocks: tuple[int, int, int] = (1, 1, 3)
    std: bool = True
    std_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value, minimum, maximum in (("widths", self.widths, 8, 4096), ("blocks", self.blocks, 0, 100)):
            if len(value) != 3:
                raise InvalidValueError(f"{name} must be three whole numbers; got {value!r}.")
            object.__setattr__(
                self, name, tuple(validation.whole(name, n, minimum, maximum) for n in value)
            )  # JSON gives lists
        if not isinstance(self.std, bool):
            raise InvalidValueError(f"std must be True or False; got {self.std!r}.")
        validation.number("std_scale", self.std_scale, 0, open_low=True)


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), the identity at the start of training (Fixup: no normalisation is needed)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]  # bias=True
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))  # type: ignore[no-any-return]


class UNetNetwork(MimNetwork):
    """A residual U-Net on a 4-pixel grid, quick enough for a live window.

    The image enters with its hidden pixels (acuity 0) set to the mean colour of what was seen, and that colour
    subtracted, so a hidden pixel is 0 and cannot leak; acuity is the fourth channel. What comes out is weighted by
    1 - acuity, so that sharp pixels stay as they are, and added to the same image: an untrained network answers "the
    mean of what I saw". With ``std``, a fourth channel comes out, the logarithm of the standard deviation. The latent
    is the grid at stride 16, before decoding.
    """

    config_type = UNetConfig
    name = "unet"
    fills_unseen = True

    def __init__(self, config: UNetConfig | None = None) -> None:
        config = UNetConfig() if config is None else config
        super().__init__(config)
        (c4, c8, c16), (n4, n8, n16) = config.widths, config.blocks

        def stage(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(_Residual(width) for _ in range(count)))

        self.stem = nn.Conv2d(4 * 16, c4, 1)
        self.down4, self.down8 = stage(c4, n4), stage(c8, n8)
        self.to8, self.to16 = nn.Conv2d(4 * c4, c8, 1), nn.Conv2d(4 * c8, c16, 1)
        self.middle = stage(c16, n16)
        self.from16, self.from8 = nn.Conv2d(c16, 4 * c8, 1), nn.Conv2d(c8, 4 * c4, 1)
        self.up8, self.up4 = stage(c8, n8), stage(c4, n4)
        outputs = 4 if config.std else 3
        self.head = nn.Conv2d(c4, outputs * 16, 3, 1, 1)  # 3x3: with 1x1 the borders of the 4 px cells show
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias[: 3 * 16] = 0  # type: ignore[index]  # bias=True
            self.head.bias[3 * 16 :] = math.log(START_STD)  # type: ignore[index]

    @property
    def predicts_std(self) -> bool:
        """Whether it predicts a standard deviation."""
        return bool(self.config.std)

    def encode(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the latent, (B, widths[2], ceil(H / 16), ceil(W / 16)) float; see :meth:`MimNetwork.encode`."""
        return self._encode(image, acuity)[-1]

    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        """Predict the whole scene; see :meth:`MimNetwork.forward`. Sides are padded to multiples of 16 inside."""
        height, width = image.shape[2:]
        base, at4, at8, latent = self._encode(image, acuity)
        x = self.up8(at8 + F.pixel_shuffle(self.from16(F.relu(latent)), 2))
        x = self.up4(at4 + F.pixel_shuffle(self.from8(F.relu(x)), 2))
        out = F.pixel_shuffle(self.head(F.relu(x)), 4)[:, :, :height, :width].to(base.dtype)
        # Without the factor an unasked-for residual of 0.05 (rms) falls on sharp pixels, where the loss has no weight.
        predicted = (base + (1 - acuity) * out[:, :3]).clamp(0, 1)
        if not self.config.std:
            return Output(predicted, latent)
        std = (
            self.config.std_scale * out[:, 3:].float().clamp(MIN_LOG_STD, 0).exp()
        )  # values are from 0 to 1, so that no error's is above 1
        return Output(predicted, latent, torch.where(acuity < 1, std, 0.0))

    def _encode(self, image: Tensor, acuity: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the filled image, the grids at strides 4 and 8, and the latent."""
        check_input(image, acuity)
        mean = visible_mean(image, acuity)
        base = torch.where(acuity > 0, image, mean)
        seen = F.pad(torch.cat((base - mean, acuity), 1), margin(image, 16))  # the margin is hidden, too
        at4 = self.down4(self.stem(F.pixel_unshuffle(seen, 4)))
        at8 = self.down8(self.to8(F.pixel_unshuffle(at4, 2)))
        return base, at4, at8, self.middle(self.to16(F.pixel_unshuffle(at8, 2)))
