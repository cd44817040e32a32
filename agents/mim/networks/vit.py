"""A small vision transformer in the manner of a masked autoencoder, to see which findings carry over.

Reference:
    He, Chen, Xie, Li, Dollár, Girshick (2022), Masked autoencoders are scalable vision learners, arXiv:2111.06377.
    Dosovitskiy et al. (2021), An image is worth 16x16 words, arXiv:2010.11929 (patches as tokens).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveasim import validation
from foveasim.agents.mim.network import MimNetwork, Output, check_input, margin, visible_mean
from foveasim.errors import InvalidValueError

__all__ = ["ViTConfig", "ViTNetwork", "positions"]


@dataclass(frozen=True)
class ViTConfig:
    """Config of :class:`ViTNetwork`.

    Attributes:
        dim: Width of a token, a multiple of 4 and of ``heads``.
        depth: Blocks of the encoder.
        heads: Attention heads of each block.
        decoder_depth: Blocks of the decoder.
        patch: Side of a patch, px.
    """

    dim: int = 128
    depth: int = 4
    heads: int = 4
    decoder_depth: int = 2
    patch: int = 8

    def __post_init__(self) -> None:
        validation.whole("dim", self.dim, 8, 4096)
        validation.whole("heads", self.heads, 1, 256)
        validation.whole("depth", self.depth, 1, 100)
        validation.whole("decoder_depth", self.decoder_depth, 1, 100)
        validation.whole("patch", self.patch, 2, 32)
        if self.dim % 4 or self.dim % self.heads:
            raise InvalidValueError(
                f"dim must be a multiple of 4 (positions) and of heads; got dim {self.dim}, heads {self.heads}."
            )


def positions(height: int, width: int, dim: int) -> Tensor:
    """Return sines and cosines of where each cell of a grid lies, in cells: computed, so that any grid has them.

    Args:
        height: Rows.
        width: Columns.
        dim: A multiple of 4.

    Returns:
        (height * width, dim) float32, row by row: sin x, cos x, sin y, cos y, each at dim / 4 frequencies from 1 down
        to 1 / 100.

    Example:
        >>> positions(1, 2, 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.8415, 0.5403, 0.0000, 1.0000]])

    Reference:
        Vaswani et al. (2017), Attention is all you need, section 3.5; in two dimensions as by He et al. (2022), where
        frequencies go down to 1 / 10000: over a dozen cells, most of those waves are constant.
    """
    frequency = 100.0 ** -(torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (x, y)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


class _Attention(nn.Module):
    """Every token asks all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._by_head(layer, x) for layer in (self.query, self.key, self.value))
        found = F.scaled_dot_product_attention(query, key, value)
        return self.out(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def weights(self, x: Tensor) -> Tensor:
        """Return how much each token asks each other one, (B, heads, T, T), rows of sum 1."""
        query, key = self._by_head(self.query, x), self._by_head(self.key, x)
        logits: Tensor = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        return logits.softmax(3)

    def _by_head(self, layer: nn.Linear, x: Tensor) -> Tensor:
        return layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Attention, then two layers on each token alone, each normalised before and added to what was there."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = _Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class ViTNetwork(MimNetwork):
    """A transformer over patches of 8 px: at 96x96, 144 tokens, the paper's code of 12x12x128, and 0.42 GFLOP forward.

    A token is made from the pixels of its patch and their acuity. Pixels that were not seen have the mean colour of
    what was, which is subtracted, so that they are 0 and cannot leak; the prediction is that mean and what the decoder
    adds to it. A patch of which nothing was seen is a learned mask token. A masked autoencoder would leave such patches
    out of its encoder; here acuity is graded and of any shape, the number of hidden patches differs between the lanes
    of a batch, and the latent must have a value everywhere, so that they stay.

    The latent is what the encoder's last normalisation gives: unlike the paper's it has negative responses. Nothing
    but the latent and the mean colour reaches the decoder.

    Reference:
        He et al. (2022), arXiv:2111.06377: pre-norm blocks, fixed positions, light decoder, Xavier-uniform weights.
    """

    config_type = ViTConfig
    name = "vit"
    fills_unseen = True

    def __init__(self, config: ViTConfig | None = None) -> None:
        config = ViTConfig() if config is None else config
        super().__init__(config)
        dim, patch = config.dim, config.patch

        def stage(count: int) -> nn.Sequential:
            return nn.Sequential(*(_Block(dim, config.heads) for _ in range(count)), nn.LayerNorm(dim))

        self.embed = nn.Linear(4 * patch**2, dim)
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.encoder, self.decoder = stage(config.depth), stage(config.decoder_depth)
        self.head = nn.Linear(dim, 3 * patch**2)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            # With evenly spread attention, mask tokens stay without news for hundreds of steps: on ramps of any
            # direction the error after 100 steps, relative to the mean colour's, was 0.92 at gain 1 and 0.73 at 2.
            if isinstance(layer, _Attention):
                nn.init.xavier_uniform_(layer.query.weight, gain=2)
                nn.init.xavier_uniform_(layer.key.weight, gain=2)
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.zeros_(self.head.weight)  # untrained, it answers the mean of what was seen

    def encode(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return the latent, (B, dim, ceil(H / patch), ceil(W / patch)) float; see :meth:`MimNetwork.encode`."""
        check_input(image, acuity)
        return self._encode(image, acuity, visible_mean(image, acuity))

    def decode(self, latent: Tensor) -> Tensor:
        """Return what a latent adds to the mean colour, (B, 3, patch h, patch w) float."""
        tokens = self.head(self.decoder(self._placed(latent.flatten(2).transpose(1, 2), latent.shape[2:])))
        return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, latent.shape[2:]), self.config.patch)

    def attention(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return what each patch asks of each other one in the decoder's last layer.

        Args:
            image: (B, 3, H, W) float in [0, 1], H and W at least 32.
            acuity: (B, 1, H, W) float in [0, 1].

        Returns:
            (B, heads, T, T) float, rows of sum 1; the T patches row by row, as in the latent.

        Raises:
            InvalidValueError: Wrong shapes or a side under 32 px.
        """
        latent = self.encode(image, acuity)
        tokens = self._placed(latent.flatten(2).transpose(1, 2), latent.shape[2:])
        *before, last, _ = self.decoder
        for block in before:
            tokens = block(tokens)
        weights: Tensor = last.attention.weights(last.norm1(tokens))  # type: ignore[operator, union-attr]
        return weights

    def attention_entropy(self, image: Tensor, acuity: Tensor) -> Tensor:
        """Return how widely each patch asks: the entropy of :meth:`attention`, summed over heads.

        Args:
            image: As in :meth:`attention`, as is ``acuity``.
            acuity: (B, 1, H, W) float in [0, 1].

        Returns:
            (B, ceil(H / patch), ceil(W / patch)) float, nats, 0 to ``heads`` * log(T).

        Reference:
            Pardyl et al. (2023), Active visual exploration based on attention-map entropy, IJCAI.
        """
        entropy: Tensor = torch.special.entr(self.attention(image, acuity)).sum((1, 3))
        rows = -(-image.shape[2] // self.config.patch)
        return entropy.reshape(len(entropy), rows, -1)

    def forward(self, image: Tensor, acuity: Tensor) -> Output:
        """Predict the whole scene; see :meth:`MimNetwork.forward`. Sides are padded to whole patches inside."""
        check_input(image, acuity)
        mean = visible_mean(image, acuity)
        latent = self._encode(image, acuity, mean)
        added = self.decode(latent)[:, :, : image.shape[2], : image.shape[3]]
        return Output((mean + added.to(mean.dtype)).clamp(0, 1), latent)

    def _encode(self, image: Tensor, acuity: Tensor, mean: Tensor) -> Tensor:
        seen = torch.cat((torch.where(acuity > 0, image - mean, 0.0), acuity), 1)
        patches = F.pixel_unshuffle(F.pad(seen, margin(image, self.config.patch)), self.config.patch)
        tokens = self.embed(patches.flatten(2).transpose(1, 2))
        hidden = patches[:, 3 * self.config.patch**2 :].flatten(2).amax(1) <= 0  # acuity comes last
        tokens = torch.where(hidden[:, :, None], self.mask_token.to(tokens.dtype), tokens)
        tokens = self.encoder(self._placed(tokens, patches.shape[2:]))
        return tokens.transpose(1, 2).unflatten(2, patches.shape[2:])  # type: ignore[no-any-return]

    def _placed(self, tokens: Tensor, grid: torch.Size) -> Tensor:
        # In the parameters' dtype, also under autocast: from bfloat16 tokens, torch 2.13's CPU sums the gradients of a
        # normalisation's weights in bfloat16, and over 16 images of 96 px they come out 70 % wrong.
        return tokens + positions(grid[0], grid[1], self.config.dim).to(self.mask_token)
