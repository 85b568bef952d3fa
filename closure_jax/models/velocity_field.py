"""The transport network: two Fourier-operator branches, one for the state in transit and one for the condition.

Any other network is a Flax module with the same interface:

    encode_condition(condition)       (batch, r, r, c) -> features, of any form; runs once a sample
    velocity(x, features, *times)     (batch, r, r, c), features, each time (batch,) -> (batch, r, r, channels); once a step
    __call__(x, condition, *times)    velocity(x, encode_condition(condition), *times), which initialises all parameters

Its fields `channels` (those of x) and `times` (how many transport times it is given) are set by the program that builds it; all
other fields are configuration.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from closure_jax.errors import check, one_of, positive
from closure_jax.models import layers


def check_time_features(count: int) -> None:
    """Raises UserError where an embedding of so many sines and cosines of a time can't be."""
    check(
        2 <= count <= layers.MOST_WIDTH and count % 2 == 0,
        f"time_features={count}: expected an even whole number from 2 to {layers.MOST_WIDTH:,}",
    )


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
    """Velocity or score network after arXiv 2602.17089: state and condition branch, two 1x1 layers, dense, dense. The published
    one, to the letter, is `published_field.PublishedVelocityField`.

    The condition branch does not see time or state: `encode_condition` runs once a sample, `velocity` once a sampler step.
    Transport times have an embedding each, which are added; without any there is none.

    Attributes:
      width: channels of the state branch.
      modes: Fourier modes kept in each direction; at most half of the points of a line.
      depth: Fourier layers of the state branch.
      condition_width: channels of the condition branch.
      condition_depth: Fourier layers of the condition branch.
      condition_gated: its layers multiply two linear operators of the condition, as advection does.
      hidden: channels of the last hidden layer.
      channels: of the state.
      times: transport times that the network is given.
      time_features: width of a time's embedding, an even number.
      time_scale: deviation of the embedding's frequencies.
      precision: of its products but those of Fourier layers, one of `layers.PRECISIONS`; parameters are float32 with any.
    """

    width: int = 20
    modes: int = 4
    depth: int = 4
    condition_width: int = 20
    condition_depth: int = 4
    condition_gated: bool = False
    hidden: int = 128
    channels: int = 1
    times: int = 1
    time_features: int = 256
    time_scale: float = 30.0
    precision: str = "high"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "modes", "time_scale")
        one_of(self, "precision", layers.PRECISIONS)
        positive(self, "width", "condition_width", "hidden", most=layers.MOST_WIDTH)
        positive(self, "depth", "condition_depth", most=layers.MOST_DEPTH)
        check_time_features(self.time_features)

    def setup(self) -> None:
        self.condition_branch = FourierBranch(
            self.condition_width, self.modes, self.condition_depth, self.condition_gated
        )
        self.state_branch = FourierBranch(self.width, self.modes, self.depth)
        embeddings = [
            layers.TimeEmbedding(self.time_features, self.time_features, self.time_scale) for _ in range(self.times)
        ]
        if embeddings:  # the first has the name that it has in a network of one time
            self.time_embedding, self.further_time_embeddings = embeddings[0], embeddings[1:]
        widths = (self.width, self.condition_width)
        self.mix = layers.JoinedDense(widths, sum(widths)), layers.dense(sum(widths))
        self.hidden_layer = layers.dense(self.hidden)
        self.output_layer = nn.Dense(self.channels, kernel_init=nn.initializers.zeros)

    def encode_condition(self, condition: Float[Array, "batch r r c"]) -> Float[Array, "r r batch features"]:
        """The condition's share of the first 1x1 layer, of width + condition_width features."""
        return self.mix[0].second(self.condition_branch(condition))

    def velocity(
        self,
        x: Float[Array, "batch r r c"],
        features: Float[Array, "r r batch features"],
        *times: Float[Array, " batch"],
    ) -> Float[Array, "batch r r channels"]:
        """The network's output from the state, what `encode_condition` gave, and the transport times.

        Raises:
          UserError: not as many times as the field `times` says.
        """
        check(len(times) == self.times, f"{len(times)} transport times: expected times = {self.times} of the network")
        h = nn.gelu(self.mix[0](self.state_branch(x, self._embedded(times)), features))
        h = nn.gelu(self.hidden_layer(nn.gelu(self.mix[1](h))))
        return self.output_layer(h).transpose(2, 1, 0, 3)

    def _embedded(self, times: tuple[Float[Array, " batch"], ...]) -> Float[Array, "batch features"] | None:
        """The sum of the times' embeddings."""
        if not times:
            return None
        embedded = self.time_embedding(times[0])
        for embedding, tau in zip(self.further_time_embeddings, times[1:], strict=True):
            embedded = embedded + embedding(tau)
        return embedded

    def __call__(
        self, x: Float[Array, "batch r r c"], condition: Float[Array, "batch r r c"], *times: Float[Array, " batch"]
    ) -> Float[Array, "batch r r channels"]:
        return self.velocity(x, self.encode_condition(condition), *times)
