"""No transport: the conditional mean by least squares, the deterministic closure that a stochastic one is held against.

The minimum of E |g(condition) - x|^2 is E[x | condition]. As a sample it has no spread.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax.transport.base import Field, Noise, Steps
from closure_jax.transport.one_call import OneCall


@dataclasses.dataclass(frozen=True)
class ConditionalMean(OneCall):
    """One network call a sample, the same each time: a generator at z = 0, trained by the mean squared error."""

    def noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps) -> Noise:
        """(): nothing is random."""
        del keys, shape, steps
        return ()

    def loss(
        self,
        field: Field,
        keys: Key[Array, " batch"],
        condition: Float[Array, " batch *shape"],
        x: Float[Array, "batch ..."],
        decode: Callable[[jax.Array], jax.Array] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The mean squared error.

        Args:
          field: the network as a function of zeros, the condition bound.
          keys: not used.
          condition: shape of what the network gives.
          x: the truth.
          decode: from what the network gives to what is scored, of which x is then the truth.
        """
        del keys
        mean = field(jnp.zeros_like(condition))
        return jnp.mean(((mean if decode is None else decode(mean)) - x) ** 2), {}

    def sample(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> Float[Array, " batch *shape"]:
        """The mean.

        Raises:
          UserError: a number of steps that is not 1.
        """
        self.check_steps(steps)
        return field(jnp.zeros_like(condition))

    def trajectory(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: int
    ) -> Float[Array, "states batch *shape"]:
        """0, and the mean."""
        mean = self.sample(field, noise, condition, steps)
        return jnp.stack([jnp.zeros_like(mean), mean])
