"""The velocity or score network of arXiv 2602.17089 as the authors' release has it; interface as in `velocity_field`.

It differs from `velocity_field.FourierVelocityField` in four points: one dense layer of the time's embedding is shared by all
layers of the state branch; neither branch has an activation behind its last layer; the joined branches are narrowed to the
width of one; GELU is the exact one. The release gives each branch two channels more, the coordinates of the grid, which have no
place in a periodic problem: 4 `width` parameters. Its 181,037 (latent), 1,021,497 (physical) and 1,228,729 parameters (physical
diffusion) count those, and the `time_features` / 2 fixed frequencies of the embedding, which are not trained.
"""

import functools

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from closure_jax.errors import check, one_of, positive
from closure_jax.models import layers
from closure_jax.models.velocity_field import check_time_features

exact_gelu = functools.partial(nn.gelu, approximate=False)


class PublishedBranch(nn.Module):
    """Lift to `width`, then `depth` Fourier layers: (batch, x, y, c) -> (y, x, batch, width), as `layers.SpectralConv` wants it.

    A layer is spectral(x) + 1x1(x) [+ time], with a GELU between two layers; time (batch, width) is the same in each.
    """

    width: int
    modes: int
    depth: int

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        x = layers.dense(self.width)(x.transpose(2, 1, 0, 3))
        for number in range(self.depth):
            x = exact_gelu(x) if number else x
            x = layers.SpectralConv(self.width, self.modes)(x) + layers.dense(self.width)(x)
            x = x if time is None else x + time
        return x


class PublishedVelocityField(nn.Module):
    """State and condition branch, two 1x1 layers, dense, dense; see the module's docstring.

    Attributes:
      width: channels of both branches.
      modes: Fourier modes kept in each direction; at most half of the points of a line.
      depth: Fourier layers of each branch.
      hidden: channels of the last hidden layer.
      channels: of the state.
      times: transport times that the network is given; published 1.
      time_features: width of a time's embedding, an even number; published 256, of physical diffusion 512.
      time_scale: deviation of the embedding's frequencies.
      precision: of its products but those of Fourier layers, one of `layers.PRECISIONS`; parameters are float32 with any.
    """

    width: int = 20
    modes: int = 4
    depth: int = 4
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
        positive(self, "width", "hidden", most=layers.MOST_WIDTH)
        positive(self, "depth", most=layers.MOST_DEPTH)
        check_time_features(self.time_features)

    def setup(self) -> None:
        self.state_branch = PublishedBranch(self.width, self.modes, self.depth)
        self.condition_branch = PublishedBranch(self.width, self.modes, self.depth)
        self.time_embeddings = [
            layers.TimeEmbedding(self.time_features, self.time_features, self.time_scale) for _ in range(self.times)
        ]
        if self.times:
            self.time_layer = layers.dense(self.width)
        self.mix = layers.JoinedDense((self.width, self.width), self.width), layers.dense(self.width)
        self.hidden_layer = layers.dense(self.hidden)
        self.output_layer = nn.Dense(self.channels, kernel_init=nn.initializers.zeros)

    def encode_condition(self, condition: Float[Array, "batch r r c"]) -> Float[Array, "r r batch features"]:
        """The condition's share of the first 1x1 layer, of `width` features."""
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
        embedded = [embedding(tau) for embedding, tau in zip(self.time_embeddings, times, strict=True)]
        time = self.time_layer(sum(embedded[1:], embedded[0])) if embedded else None
        h = exact_gelu(self.mix[0](self.state_branch(x, time), features))
        h = exact_gelu(self.hidden_layer(exact_gelu(self.mix[1](h))))
        return self.output_layer(h).transpose(2, 1, 0, 3)

    def __call__(
        self, x: Float[Array, "batch r r c"], condition: Float[Array, "batch r r c"], *times: Float[Array, " batch"]
    ) -> Float[Array, "batch r r channels"]:
        return self.velocity(x, self.encode_condition(condition), *times)
