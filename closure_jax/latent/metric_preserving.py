"""Metric-preserving regularisation: latent distances to the nearest fields follow their Euclidean distances.

    1e-2 * mean over the 5 nearest neighbours in the batch of (d_latent - d_data)^2     (arXiv 2602.17089)

`scale="published"` takes the distances as they are: a latent of 256 entries is asked to be as wide as a field of 4,096.
`scale="entry"` divides each by the square root of its number of entries, so that neither is asked to swell.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from closure_jax.latent import distances


@dataclasses.dataclass(frozen=True)
class MetricPreserving:
    """The regulariser of one autoencoder.

    Attributes:
      weight: factor of the term in the loss.
      neighbours: how many nearest fields of the batch count for each.
      per_entry: divide distances by the square root of the number of entries.
    """

    weight: float
    neighbours: int
    per_entry: bool

    def __call__(
        self, latent: Float[Array, " batch *latent"], fields: Float[Array, "batch n n"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The term and its measures, from the whole global batch.

        Args:
          latent: (batch, r, r, c).
          fields: (batch, n, n), normalised.
        Returns:
          weighted term, and {"regulariser": unweighted term, "regulariser_weight": share of pairs that count}.
        """
        d_data, d_latent = distances.pairwise(fields), distances.pairwise(latent)
        if self.per_entry:
            d_data, d_latent = d_data / fields[0].size ** 0.5, d_latent / latent[0].size ** 0.5
        count = len(latent)
        nearest = min(self.neighbours, count - 1)
        itself = jnp.eye(count, dtype=bool)
        _, columns = jax.lax.top_k(-jnp.where(itself, jnp.inf, d_data), nearest)
        rows = jnp.arange(count)[:, None]
        term = jnp.mean((d_latent[rows, columns] - d_data[rows, columns]) ** 2)
        return self.weight * term, {"regulariser": term, "regulariser_weight": jnp.asarray(nearest / (count - 1))}
