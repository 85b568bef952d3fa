"""Geometry-aware regularisation: latent distances follow diffusion-potential distances between near fields.

    1e-3 * mean over pairs of exp(-zeta d) (d_latent - d)^2          (arXiv 2602.17089)

With the published constants the term does nothing: on 18,000 real fields d of random pairs is 19 to 199, and the largest
weight 4e-9. `scale="published"` is that formula. `scale="neighbourhood"` measures both distances in units of their own
neighbourhood:

    exp(-zeta d / s) (d_latent / l - d / s)^2

s is a potential distance and l the mean Euclidean distance of the same pairs as normalised fields, counted per entry and taken to
the latent's size, so that near latents need neither shrink nor swell. Which pairs these are depends on the batches:

- `pairs="neighbours"`: half of a batch are neighbours of the other half, drawn from the `knn` nearest of each in potential
  distance; s is the mean distance to the last of them in the training set. The weight is e^-zeta there, and next to nothing of
  fields far away.
- `pairs="random"`: fields at random, of which none are neighbours in a set of thousands; s is the mean distance to the edge of
  the nearest tenth of a batch. All pairs then weigh nearly alike, and the term asks for a simplex.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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
        pair_weight, d, d_latent = self.pairs(latent, potential_rows)
        term = distances.mean_over_pairs(pair_weight * (d_latent - d) ** 2)
        return self.weight * term, {
            "regulariser": term,
            "regulariser_weight": distances.mean_over_pairs(pair_weight),
        }

    def pairs(
        self, latent: Float[Array, " batch *latent"], potential_rows: Float[Array, "batch landmarks"]
    ) -> tuple[Float[Array, "batch batch"], Float[Array, "batch batch"], Float[Array, "batch batch"]]:
        """Of all pairs of a batch: weight exp(-zeta d / s), potential distance d / s and latent distance d_latent / l."""
        d = distances.pairwise(potential_rows) / self.unit
        return jnp.exp(-self.zeta * d), d, distances.pairwise(latent) / self.length


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


def edge_of_neighbours(
    potential_rows: Float[np.ndarray, "points landmarks"],
    fields: Float[np.ndarray, "points n n"],
    nearest: Int[np.ndarray, "points knn"],
    latent_size: int,
) -> tuple[float, float]:
    """(s, l) of the module's docstring, from the last of each point's nearest.

    Args:
      potential_rows: (N, M) of `diffusion_potential.potential`.
      fields: (N, n, n), normalised.
      nearest: (N, knn) of `distances.nearest`, of the potential's rows.
      latent_size: entries of a latent, r r c.
    """
    last = nearest[:, -1]
    unit = np.linalg.norm(potential_rows - potential_rows[last], axis=1).mean()
    length = np.linalg.norm((fields - fields[last]).reshape(len(fields), -1), axis=1).mean()
    return float(unit), float(length * np.sqrt(latent_size / fields[0].size))


Encode = Callable[[Float[np.ndarray, "batch n n"]], Float[np.ndarray, " batch *latent"]]
"""Normalised fields to their latents."""


def effect(
    term: GeometryAware,
    potential_rows: Float[np.ndarray, "points landmarks"],
    fields: Float[np.ndarray, "points n n"],
    encoders: Sequence[Encode],
    batches: Iterable[Int[np.ndarray, " batch"]],
) -> dict[str, float | None]:
    """What the term did to a latent.

    Args:
      term: of the training.
      potential_rows: (N, M) of the training fields.
      fields: (N, n, n), normalised.
      encoders: the trained one, and, if there is one, that of the same data and seed which was trained for reconstruction alone.
      batches: rows of the training's batches, whose second halves stand near the first.

    Returns:
      near_far_weight: mean weight of the pairs that stand side by side over that of all others; None where these weigh nothing,
        as in a batch of two.
      term_ratio: the term of the trained latent over that of the other.
      term_ratio_best_factor: the same, each latent multiplied by the factor that makes its term least: what is left is not the
        latent's scale, which a reconstruction leaves free.
      The last two are None where there is one encoder.
    """
    pairs = jax.jit(term.pairs)
    near, far, sums = [], [], np.zeros((len(encoders), 3))
    for rows in batches:
        size = len(rows)
        beside = np.eye(size, k=size - size // 2, dtype=bool)
        beside, others = beside | beside.T, ~(beside | beside.T | np.eye(size, dtype=bool))
        for encode, sum_of in zip(encoders, sums, strict=True):
            weight, d, d_latent = (np.asarray(x, np.float64) for x in pairs(encode(fields[rows]), potential_rows[rows]))
            sum_of += [(weight * x)[beside | others].sum() for x in (d**2, d * d_latent, d_latent**2)]
            near.append(weight[beside].sum() / max(1, beside.sum()))  # the same of each encoder
            far.append(weight[others].sum() / max(1, others.sum()))
    far_weight = float(np.mean(far))
    found: dict[str, float | None] = {"near_far_weight": float(np.mean(near)) / far_weight if far_weight else None}
    of_d, both, of_latent = sums.T
    for name, left in (
        ("term_ratio", of_d - 2 * both + of_latent),
        ("term_ratio_best_factor", of_d - both**2 / of_latent),
    ):
        found[name] = float(left[0] / left[1]) if len(encoders) > 1 else None
    return found
