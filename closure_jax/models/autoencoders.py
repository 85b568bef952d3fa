"""Autoencoders as pieces of the configuration: which modules lie between a field and its latent, and their sizes."""

import dataclasses
from typing import Protocol, runtime_checkable

import flax.linen as nn

from closure_jax.errors import check, one_of, positive
from closure_jax.models import autoencoder
from closure_jax.models.layers import MOST_DEPTH, MOST_WIDTH, PRECISIONS


@runtime_checkable
class Autoencoder(Protocol):
    """Encoder and decoder of a field; one piece serves vorticity and closure, each with parameters of its own."""

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(r, r, channels) of the latent of a field of resolution^2 points.

        Raises:
          UserError: such a field has no latent of this kind.
        """
        ...

    def modules(self, resolution: int) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder): (batch, n, n) -> (batch, r, r, channels) and back."""
        ...


@dataclasses.dataclass(frozen=True)
class Identity:
    """Physical space is its own latent; there is nothing to train."""

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(n, n, 1)."""
        return resolution, resolution, 1

    def modules(self, resolution: int) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder) without parameters."""
        del resolution
        return autoencoder.IdentityEncoder(), autoencoder.IdentityDecoder()


@dataclasses.dataclass(frozen=True)
class Published:
    """Residual blocks of 64 to 256 channels, attention, two halvings: arXiv 2602.17089; smaller latents by further halvings.

    Attributes:
      latent_resolution: points a side of the latent; a quarter of the field's, as published, or an eighth, and so on.
      latent_channels: channels of the latent.
      width: channels after the first convolution.
      precision: of all products but those that resample, one of `layers.PRECISIONS`.
    """

    latent_resolution: int = 16
    latent_channels: int = 1
    width: int = 64
    precision: str = "high"

    def __post_init__(self) -> None:
        positive(self, "latent_resolution", "latent_channels", "width", most=MOST_WIDTH)
        one_of(self, "precision", PRECISIONS)
        check(
            self.width == 16 or self.width % 32 == 0,
            f"width={self.width}: the published autoencoder normalises in groups and has 8 heads, expected 16 or a multiple of"
            " 32",
        )

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(r, r, channels)."""
        halvings = self._halvings(resolution)
        check(
            halvings >= 2 and resolution == 2**halvings * self.latent_resolution,
            f"latent_resolution={self.latent_resolution}: the published autoencoder halves twice or more, expected"
            f" data.resolution / 4 = {resolution // 4}, or a half, a quarter and so on of it",
        )
        return self.latent_resolution, self.latent_resolution, self.latent_channels

    def modules(self, resolution: int) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder)."""
        halvings = self._halvings(resolution)
        return (
            autoencoder.PublishedEncoder(self.latent_channels, self.width, halvings, precision=self.precision),
            autoencoder.PublishedDecoder(self.width, halvings, precision=self.precision),
        )

    def _halvings(self, resolution: int) -> int:
        """How often the field's grid is halved, at least."""
        return (resolution // self.latent_resolution).bit_length() - 1


@dataclasses.dataclass(frozen=True)
class Compact:
    """A linear path by Fourier truncation beside residual blocks at the latent's resolution: little work, little loss.

    Attributes:
      latent_resolution: points a side of the latent; a divisor of the field's.
      latent_channels: channels of the latent.
      width: channels of the residual blocks.
      blocks: how many.
      precision: of all products but those that resample, one of `layers.PRECISIONS`.
    """

    latent_resolution: int = 16
    latent_channels: int = 1
    width: int = 32
    blocks: int = 3
    precision: str = "high"

    def __post_init__(self) -> None:
        positive(self, "latent_resolution", "latent_channels", "width", most=MOST_WIDTH)
        one_of(self, "precision", PRECISIONS)
        positive(self, "blocks", most=MOST_DEPTH)

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(r, r, channels)."""
        check(
            resolution % self.latent_resolution == 0 and resolution > self.latent_resolution,
            f"latent_resolution={self.latent_resolution} does not divide data.resolution = {resolution}: expected a smaller"
            f" divisor, such as {resolution // 4}; for physical space itself autoencoder.kind = identity",
        )
        return self.latent_resolution, self.latent_resolution, self.latent_channels

    def modules(self, resolution: int) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder)."""
        return (
            autoencoder.CompactEncoder(
                self.latent_resolution, self.latent_channels, self.width, self.blocks, precision=self.precision
            ),
            autoencoder.CompactDecoder(resolution, self.width, self.blocks, precision=self.precision),
        )


AUTOENCODERS: dict[str, type] = {"identity": Identity, "published": Published, "compact": Compact}
"""Autoencoders by name."""
