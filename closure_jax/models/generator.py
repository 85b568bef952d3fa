"""The network of a generator of one call, x = m(condition) + L z: a mean made of products, and noise of any spectrum.

Advection is a sum of products of two fields that are linear in the vorticity, so the mean is built of such products, formed on a
grid fine enough that they do not alias (the 3/2 rule of Orszag 1971). Linear in z about its value at z = 0, so that this
value is the mean of the law that it generates.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from closure_jax.errors import check, one_of, positive
from closure_jax.models import layers


class ProductLayer(nn.Module):
    """(a b, a) with (a, b) two linear translation-invariant operators of x, on a grid that resolves the product's lowest modes.

    (y, x, batch, c) -> (y', x', batch, 2 width), with max(n, 3 modes) points a side.
    """

    width: int
    modes: int

    @nn.compact
    def __call__(self, x: Float[Array, "n n batch channels"]) -> Float[Array, "m m batch features"]:
        points = max(x.shape[0], 3 * self.modes)
        both = layers.SpectralConv(2 * self.width, self.modes)(x, points)
        a, b = jnp.split(both, 2, axis=-1)
        return jnp.concatenate([a * b, a], axis=-1)


class ProductGenerator(nn.Module):
    """Layers of products of the condition; noise by a filter of z, scaled at each point where `noise_width` is not 0.

        m = sum over layers of spectral(products) + head(products of the last layer)
        x = m + spectral(z) + sum over noise channels of amplitude(condition) spectral(z)

    The interface is that of `velocity_field`: `encode_condition` makes mean and amplitudes, `velocity` adds the noise.

    Attributes:
      width: products of a layer.
      modes: Fourier modes kept in each direction; at most half of the points of a line.
      depth: layers; each but the first sees the condition and what the layers before made.
      hidden: width of the head, two hidden GELU layers after a Fourier layer; 0: none.
      noise_width: noise channels whose amplitude depends on the condition, through the head; 0: the same noise at all states.
      precision: of its products but those of Fourier layers, one of `layers.PRECISIONS`; parameters are float32 with any.
      channels: of x and z.
      times: 0.
    """

    width: int = 16
    modes: int = 8
    depth: int = 2
    hidden: int = 64
    noise_width: int = 0
    precision: str = "high"
    channels: int = 1
    times: int = 0

    linear_in_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "modes")
        one_of(self, "precision", layers.PRECISIONS)
        positive(self, "width", most=layers.MOST_WIDTH)
        positive(self, "depth", most=layers.MOST_DEPTH)
        for name in ("hidden", "noise_width"):
            value = getattr(self, name)
            check(0 <= value <= layers.MOST_WIDTH, f"{name}={value}: expected a number from 0 to {layers.MOST_WIDTH:,}")
        check(
            self.hidden > 0 or self.noise_width == 0,
            f"noise_width={self.noise_width}: expected 0 without a head, or hidden above 0",
        )
        check(self.times == 0, "kind=products: a generator sees no transport time, expected transport.process = score")

    def setup(self) -> None:
        def spectral(features: int, scale: float) -> layers.SpectralConv:
            return layers.SpectralConv(features, self.modes, scale=scale)

        self.products = [ProductLayer(self.width, self.modes) for _ in range(self.depth)]
        self.between = [spectral(self.width, 1.0) for _ in range(self.depth - 1)]
        self.to_mean = [spectral(self.channels, 0.3) for _ in range(self.depth)]
        self.noise_filter = spectral(self.channels, 0.3)
        if self.hidden:
            self.head = spectral(self.hidden, 1.0), layers.dense(self.hidden)
            self.head_to_mean = nn.Dense(self.channels, kernel_init=nn.initializers.zeros)
        if self.noise_width:
            self.amplitude = nn.Dense(self.noise_width, kernel_init=nn.initializers.zeros)
            self.noise_channels = spectral(self.noise_width, 1.0)
            self.to_noise = nn.Dense(self.channels, use_bias=False)

    def encode_condition(
        self, condition: Float[Array, "batch r r c"]
    ) -> tuple[Float[Array, "r r batch channels"], Float[Array, "r r batch amplitudes"] | None]:
        """(mean, amplitudes of the noise channels; None without any)."""
        x = condition.transpose(2, 1, 0, 3)
        points, seen, mean, products = x.shape[0], x, jnp.zeros((), x.dtype), x
        for layer, number in zip(self.products, range(self.depth), strict=True):
            products = layer(seen)
            mean = mean + self.to_mean[number](products, points)
            if number + 1 < self.depth:
                seen = jnp.concatenate([seen, self.between[number](products, points)], axis=-1)
        if not self.hidden:
            return mean, None
        h = nn.gelu(self.head[1](nn.gelu(self.head[0](products, points))))
        return mean + self.head_to_mean(h), self.amplitude(h) if self.noise_width else None

    def velocity(
        self,
        x: Float[Array, "batch r r c"],
        features: tuple[Float[Array, "r r batch channels"], Float[Array, "r r batch amplitudes"] | None],
    ) -> Float[Array, "batch r r channels"]:
        """A sample from z, here x, and what `encode_condition` gave."""
        (mean, amplitudes), z = features, x.transpose(2, 1, 0, 3)
        sample = mean + self.noise_filter(z)
        if amplitudes is not None:
            sample = sample + self.to_noise(amplitudes * self.noise_channels(z))
        return sample.transpose(2, 1, 0, 3)

    def __call__(
        self, x: Float[Array, "batch r r c"], condition: Float[Array, "batch r r c"]
    ) -> Float[Array, "batch r r channels"]:
        return self.velocity(x, self.encode_condition(condition))
