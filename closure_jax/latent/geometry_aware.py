"""Geometry-aware regularisation: latent distances follow diffusion-potential distances between near fields.

    1e-3 * mean over pairs of exp(-zeta d) (d_latent - d)^2          (arXiv 2602.17089)

With the published constants the term does nothing: on 18,000 real fields d of random pairs is 19 to 199, and the largest
weight 4e-9. `scale="neighbourhood"`, the default, measures both distances in units of their own neighbourhood:

    exp(-zeta d / s) (d_latent / l - d / s)^2

s is the mean potential distance of a field to the edge of the nearest tenth of its batch, so that the weight is e^-zeta there
and fades outside; l is the mean Euclidean distance of the same pairs as normalised fields, counted per entry and taken to the
latent's size, so that near latents need neither shrink nor swell. `scale="published"` is s = l = 1, the formula above.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from closure_jax.latent import distances


@dataclasses.dataclass(frozen=True)
class GeometryAware:
    """The regulariser of one autoencoder.

    Attributes:
      weight: factor of the term in the loss.
      zeta: decay of a pair's weight with distance.
      unit: s above, potential distance.
      length: l above, latent distance that corresponds to it.
    """

    weight: float
    zeta: float
    unit: float
    length: float

    def __call__(
        self, latent: Float[Array, " batch *latent"], potential_rows: Float[Array, "batch landmarks"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The term and its measures, from the whole global batch.

        Args:
          latent: (batch, r, r, c).
          potential_rows: (batch, M) of `diffusion_potential.potential`.
        Returns:
          weighted term, and {"regulariser": unweighted term, "regulariser_weight": mean pair weight exp(-zeta d / s)}.
        """
        d = distances.pairwise(potential_rows) / self.unit
        pair_weight = jnp.exp(-self.zeta * d)
        term = distances.mean_over_pairs(pair_weight * (distances.pairwise(latent) / self.length - d) ** 2)
        return self.weight * term, {
            "regulariser": term,
            "regulariser_weight": distances.mean_over_pairs(pair_weight),
        }


def neighbourhood(
    potential_rows: Float[np.ndarray, "points landmarks"],
    fields: Float[np.ndarray, "points n n"],
    batch_size: int,
    latent_size: int,
    seed: int = 0,
    batches: int = 16,
) -> tuple[float, float]:
    """(s, l) of the module's docstring, as means over random batches.

    Args:
      potential_rows: (N, M) of `diffusion_potential.potential`.
      fields: (N, n, n), normalised.
      batch_size: fields of a batch; all N where there are fewer.
      latent_size: entries of a latent, r r c.
      seed: of the choice of the batches.
      batches: how many.
    """
    size = min(batch_size, len(fields))
    nearest = max(1, round(size / 10))
    units, lengths = [], []
    rng, pairwise = np.random.default_rng(seed), jax.jit(distances.pairwise)
    for _ in range(batches):
        rows = rng.choice(len(fields), size, replace=False)
        d = np.asarray(pairwise(potential_rows[rows]))
        euclidean = np.asarray(pairwise(fields[rows]))
        edge = np.argsort(d, axis=1)[:, nearest]
        units.append(d[np.arange(size), edge].mean())
        lengths.append(euclidean[np.arange(size), edge].mean())
    per_entry = np.mean(lengths) / np.sqrt(fields[0].size)
    return float(np.mean(units)), float(per_entry * np.sqrt(latent_size))
