"""Distances between all pairs of a batch, and between a few points and all of a set."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_BLOCK = 1024  # rows of the matrix of distances that are in memory at once


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


def in_blocks(
    points: Float[np.ndarray, "points entries"],
) -> Iterator[tuple[int, Float[np.ndarray, "rows points"]]]:
    """(first row, squared distances of a block of rows to all points), block after block; a point's own is 0."""
    size = min(_BLOCK, len(points))  # the last block reaches back over rows that were, so that one program serves
    for start in range(0, len(points), size):
        first = min(start, len(points) - size)
        squared = np.array(_squared(points[first : first + size], points))[start - first :]
        squared[np.arange(len(squared)), start + np.arange(len(squared))] = 0.0
        yield start, squared


@jax.jit
def _squared(rows: Float[Array, "rows entries"], points: Float[Array, "points entries"]) -> Float[Array, "rows points"]:
    products = jnp.matmul(rows, points.T, precision="highest")
    squared = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(points**2, axis=1)[None, :] - 2 * products
    return jnp.maximum(squared, 0.0)


def nearest(points: Float[np.ndarray, "points entries"], count: int) -> Int[np.ndarray, "points count"]:
    """The nearest `count` others of each point, the nearest first; as many as there are where there are fewer."""
    count, centred = min(count, len(points) - 1), points - points.mean(axis=0)
    found = np.empty((len(points), count), np.int32)
    for start, squared in in_blocks(centred):
        local = np.arange(len(squared))
        squared[local, start + local] = np.inf
        columns = np.argpartition(squared, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(squared, columns, axis=1), axis=1)
        found[start : start + len(squared)] = np.take_along_axis(columns, order, axis=1)
    return found
