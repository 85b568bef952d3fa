"""The transport network: two Fourier-operator branches, one for the state in transit and one for the condition."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from closure_jax.models import layers


class FourierBranch(nn.Module):
    """Lift to `width`, then `depth` Fourier layers: (batch, x, y, c) -> (y, x, batch, width), as `layers.SpectralConv` wants it.

    A layer is GELU(spectral(x) + 1x1(x) [+ dense(time)]); a gated one is x + a b with (a, b) = spectral(x) + 1x1(x), a product
    of two linear operators of the state, which is the form of the advection term.
    """

    width: int
    modes: int
    depth: int = 4
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        x = layers.dense(self.width)(x.transpose(2, 1, 0, 3))
        features = 2 * self.width if self.gated else self.width
        for _ in range(self.depth):
            h = layers.SpectralConv(features, self.modes)(x) + layers.dense(features)(x)
            if time is not None:
                h = h + layers.dense(features)(time)
            x = x + jnp.prod(jnp.stack(jnp.split(h, 2, axis=-1)), axis=0) if self.gated else nn.gelu(h)
        return x


class FourierVelocityField(nn.Module):
    """Velocity or score network of arXiv 2602.17089: state and condition branch, two 1x1 layers, dense, dense.

    The condition branch does not see time or state: `encode_condition` runs once a sample, `velocity` once a sampler step.
    """

    width: int = 20
    modes: int = 4
    depth: int = 4
    condition_width: int = 20
    condition_depth: int = 4
    condition_gated: bool = False
    hidden: int = 128
    channels: int = 1
    time_features: int = 256
    time_scale: float = 30.0

    def setup(self) -> None:
        self.condition_branch = FourierBranch(
            self.condition_width, self.modes, self.condition_depth, self.condition_gated
        )
        self.state_branch = FourierBranch(self.width, self.modes, self.depth)
        self.time_embedding = layers.TimeEmbedding(self.time_features, self.time_features, self.time_scale)
        widths = (self.width, self.condition_width)
        self.mix = [layers.JoinedDense(widths, sum(widths)), layers.dense(sum(widths))]
        self.hidden_layer = layers.dense(self.hidden)
        self.output_layer = nn.Dense(self.channels, kernel_init=nn.initializers.zeros)

    def encode_condition(self, condition: jax.Array) -> jax.Array:
        """(batch, r, r, c) -> its share of the first 1x1 layer, (r, r, batch, width + condition_width)."""
        return self.mix[0].second(self.condition_branch(condition))

    def velocity(self, x_tau: jax.Array, tau: jax.Array, features: jax.Array) -> jax.Array:
        """State (batch, r, r, c), time (batch,) and what `encode_condition` gave -> (batch, r, r, channels)."""
        h = nn.gelu(self.mix[0](self.state_branch(x_tau, self.time_embedding(tau)), features))
        h = nn.gelu(self.hidden_layer(nn.gelu(self.mix[1](h))))
        return self.output_layer(h).transpose(2, 1, 0, 3)

    def __call__(self, x_tau: jax.Array, tau: jax.Array, condition: jax.Array) -> jax.Array:
        return self.velocity(x_tau, tau, self.encode_condition(condition))
