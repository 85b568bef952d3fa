"""Distances between all pairs of a batch, and which of them are neighbours."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def pairwise(x: Float[Array, " batch *field"]) -> Float[Array, "batch batch"]:
    """Euclidean distances between the rows of (batch, ...): (batch, batch), with a gradient that is 0 at distance 0."""
    rows = x.reshape(x.shape[0], -1)
    rows = rows - jnp.mean(rows, axis=0)
    squares = jnp.sum(rows**2, axis=1)
    products = jnp.matmul(rows, rows.T, precision="highest")
    squared = jnp.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
    squared = squared * (1 - jnp.eye(len(rows), dtype=rows.dtype))
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def mean_over_pairs(values: Float[Array, "batch batch"]) -> Float[Array, ""]:
    """Mean of (batch, batch) over the pairs of different examples."""
    count = values.shape[0]
    return jnp.sum(values * (1 - jnp.eye(count, dtype=values.dtype))) / (count * (count - 1))
