"""Encoders and decoders between fields (batch, n, n) and latents (batch, r, r, channels)."""

import flax.linen as nn
from jaxtyping import Array, Float

from closure_jax.models import layers


class IdentityEncoder(nn.Module):
    """Physical space as its own latent; no parameters."""

    @nn.compact
    def __call__(self, field: Float[Array, "batch n n"]) -> Float[Array, "batch n n 1"]:
        return field[..., None]


class IdentityDecoder(nn.Module):
    """The inverse of `IdentityEncoder`."""

    @nn.compact
    def __call__(self, latent: Float[Array, "batch n n 1"]) -> Float[Array, "batch n n"]:
        return latent[..., 0]


class CompactEncoder(nn.Module):
    """From fields to latents of `latent_resolution`^2 points, with all work done at that resolution.

    A linear path (Fourier truncation) carries the scales that the latent grid resolves; residual blocks on space-to-depth
    patches add what it cannot see.
    """

    latent_resolution: int
    channels: int = 1
    width: int = 32
    blocks: int = 3
    precision: str = "high"  # see `autoencoders`

    @nn.compact
    def __call__(self, field: Float[Array, "batch n n"]) -> Float[Array, "batch r r {self.channels}"]:
        x = field[..., None]
        low = layers.resample(x, self.latent_resolution)
        h = layers.space_to_depth(x, x.shape[1] // self.latent_resolution)
        h = layers.PeriodicConv(self.width)(h)
        for _ in range(self.blocks):
            h = layers.ResidualBlock(self.width, groups=0, zero_init=True)(h)
        linear = nn.Dense(self.channels, use_bias=False, kernel_init=nn.initializers.ones)(low)
        return linear + layers.PeriodicConv(self.channels, kernel_init=nn.initializers.zeros)(nn.silu(h))


class CompactDecoder(nn.Module):
    """From latents to fields of `resolution`^2 points; the mirror of `CompactEncoder`."""

    resolution: int
    width: int = 32
    blocks: int = 3
    precision: str = "high"  # see `autoencoders`

    @nn.compact
    def __call__(
        self, latent: Float[Array, "batch r r channels"]
    ) -> Float[Array, "batch {self.resolution} {self.resolution}"]:
        factor = self.resolution // latent.shape[1]
        linear = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.constant(1.0 / latent.shape[-1]))(latent)
        h = layers.PeriodicConv(self.width)(latent)
        for _ in range(self.blocks):
            h = layers.ResidualBlock(self.width, groups=0, zero_init=True)(h)
        patches = layers.PeriodicConv(factor**2, kernel_init=nn.initializers.zeros)(nn.silu(h))
        return (layers.resample(linear, self.resolution) + layers.depth_to_space(patches, factor))[..., 0]


class PublishedEncoder(nn.Module):
    """The encoder of arXiv 2602.17089: from n^2 to (n / 2^halvings)^2 points.

    conv to w, residual to 2w, stride-2 conv, residual to 4w, stride-2 conv, residual, attention (8 heads), residual, group norm
    and SiLU, conv. The published one halves twice; each further of the `halvings` is a residual to 4w and a stride-2 conv more.

    Attributes:
      channels: of the latent.
      width: w, published 64.
      halvings: of the points a side, at least 1; published 2.
      precision: how products are formed, see `layers.PRECISIONS`.
    """

    channels: int = 1
    width: int = 64
    halvings: int = 2
    precision: str = "high"  # see `autoencoders`

    @nn.compact
    def __call__(
        self, field: Float[Array, "batch n n"]
    ) -> Float[Array, "batch n//{2**self.halvings} n//{2**self.halvings} {self.channels}"]:
        w = self.width
        x = layers.PeriodicConv(w)(field[..., None])
        x = layers.ResidualBlock(2 * w)(x)
        x = layers.PeriodicConv(2 * w, stride=2)(x)
        for _ in range(self.halvings - 1):
            x = layers.ResidualBlock(4 * w)(x)
            x = layers.PeriodicConv(4 * w, stride=2)(x)
        x = layers.ResidualBlock(4 * w)(x)
        x = layers.SelfAttention(heads=8)(x)
        x = layers.ResidualBlock(4 * w)(x)
        x = nn.silu(layers.GroupNorm(min(32, 4 * w))(x))
        return layers.PeriodicConv(self.channels)(x)


class PublishedDecoder(nn.Module):
    """The decoder of arXiv 2602.17089: from r^2 to (2^halvings r)^2 points.

    conv to 4w, residual, attention (4 heads), residual, upsampling conv, residual to 2w, upsampling conv, residual to w, group
    norm and SiLU, conv. Upsampling is that of nearest neighbours, by 2; each further of the `halvings` is a residual and an
    upsampling conv of 4w more.

    Attributes:
      width, halvings, precision: as of `PublishedEncoder`.
    """

    width: int = 64
    halvings: int = 2
    precision: str = "high"  # see `autoencoders`

    @nn.compact
    def __call__(
        self, latent: Float[Array, "batch r r channels"]
    ) -> Float[Array, "batch {2**self.halvings}*r {2**self.halvings}*r"]:
        w = self.width
        x = layers.PeriodicConv(4 * w)(latent)
        x = layers.ResidualBlock(4 * w)(x)
        x = layers.SelfAttention(heads=4)(x)
        for _ in range(self.halvings - 1):
            x = layers.ResidualBlock(4 * w)(x)
            x = layers.PeriodicConv(4 * w, upsample=True)(x)
        x = layers.ResidualBlock(2 * w)(x)
        x = layers.PeriodicConv(2 * w, upsample=True)(x)
        x = layers.ResidualBlock(w)(x)
        x = nn.silu(layers.GroupNorm(min(32, w))(x))
        return layers.PeriodicConv(1)(x)[..., 0]
