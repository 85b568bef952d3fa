"""The network of a generator of one call for a local term, x = m(condition) + noise: residual convolutions that wrap.

A subgrid term depends on the resolved field near by, and a network that sees no further learns it from fewer fields than one
that is free to use all of the plane. Linear in z about its value at z = 0, so that this value is the mean of the law.
"""

from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from closure_jax.errors import check, one_of, positive
from closure_jax.models import layers


class LocalGenerator(nn.Module):
    """Residual blocks of the condition; from what they make, the mean and the amplitudes of local noise at each point.

        h = blocks(conv(condition))
        x = conv(h) + sum over noise channels of amplitude(h) conv(z)

    The interface is that of `velocity_field`: `encode_condition` makes mean and amplitudes, `velocity` adds the noise.

    Attributes:
      width: channels of a layer.
      depth: residual blocks, of two convolutions of 3 x 3 points each.
      kernel: points on a side of the first convolution and of those of the noise: 1, 3, 5 or 7.
      noise_width: noise channels, each with an amplitude that depends on the condition; 0: the same noise at all states.
      precision: of its products, one of `layers.PRECISIONS`; parameters are float32 with any.
      channels: of x and z.
      times: 0.
    """

    width: int = 32
    depth: int = 4
    kernel: int = 5
    noise_width: int = 8
    precision: str = "high"
    channels: int = 1
    times: int = 0

    linear_in_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "precision", layers.PRECISIONS)
        check(self.kernel in (1, 3, 5, 7), f"kernel={self.kernel}: expected 1, 3, 5 or 7 points a side")
        positive(self, "width", most=layers.MOST_WIDTH)
        positive(self, "depth", most=layers.MOST_DEPTH)
        check(
            0 <= self.noise_width <= layers.MOST_WIDTH,
            f"noise_width={self.noise_width}: expected a number from 0 to {layers.MOST_WIDTH:,}",
        )
        check(self.times == 0, "kind=local: a generator sees no transport time, expected transport.process = score")

    def setup(self) -> None:
        self.first = layers.PeriodicConv(self.width, self.kernel)
        self.blocks = [layers.ResidualBlock(self.width, groups=0, zero_init=True) for _ in range(self.depth)]
        self.to_mean = layers.PeriodicConv(self.channels)
        self.noise = layers.PeriodicConv(max(1, self.noise_width), self.kernel, use_bias=False)
        self.to_noise = layers.dense(self.channels, use_bias=False)
        if self.noise_width:
            self.amplitude = layers.dense(self.noise_width)

    def encode_condition(
        self, condition: Float[Array, "batch r r c"]
    ) -> tuple[Float[Array, "batch r r channels"], Float[Array, "batch r r amplitudes"] | None]:
        """(mean, amplitudes of the noise channels; None where they are the same at all states)."""
        h = self.first(condition)
        for block in self.blocks:
            h = block(h)
        h = nn.silu(h)
        return self.to_mean(h), self.amplitude(h) if self.noise_width else None

    def velocity(
        self,
        x: Float[Array, "batch r r c"],
        features: tuple[Float[Array, "batch r r channels"], Float[Array, "batch r r amplitudes"] | None],
    ) -> Float[Array, "batch r r channels"]:
        """A sample from z, here x, and what `encode_condition` gave."""
        mean, amplitudes = features
        noise = self.noise(x)
        return mean + self.to_noise(noise if amplitudes is None else amplitudes * noise)

    def __call__(
        self, x: Float[Array, "batch r r c"], condition: Float[Array, "batch r r c"]
    ) -> Float[Array, "batch r r channels"]:
        return self.velocity(x, self.encode_condition(condition))
