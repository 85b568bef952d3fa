"""Diffusion-potential distances of a point cloud (PHATE; Moon et al., Nature Biotechnology 37, 2019), in JAX and SciPy.

100 principal components; alpha-decay kNN kernel (decay 40, bandwidth the distance to the knn-th neighbour, entries under
1e-4 dropped), symmetrised as (K + K^T) / 2; row-stochastic P; potential -log(P^t + 1e-7). The distance of two points is the
Euclidean one between their rows of the potential. Exact up to `landmarks` points; above, points are gathered into that many
clusters, the walk runs between clusters, and a point's row is the mean of the clusters' rows weighted by its transitions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

_DECAY = 40
_DROP = 1e-4
_FLOOR = 1e-7
_BLOCK = 1024


def potential(
    points: np.ndarray,
    knn: int = 10,
    diffusion_time: int = 10,
    components: int = 100,
    landmarks: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Rows whose Euclidean distances are the diffusion-potential distances.

    Args:
      points: (N, ...) fields, flattened.
      knn: neighbour that sets the bandwidth.
      diffusion_time: steps t of the random walk.
      components: principal components kept.
      landmarks: up to this many points the walk is exact.
      seed: of the random projection and of the first cluster centres.

    Returns:
      (N, M) float32, M = N where exact, else the number of landmark clusters.
    """
    reduced = principal_components(points.reshape(len(points), -1), components, seed)
    kernel = kernel_matrix(reduced, knn)
    if len(points) <= landmarks:
        walk = _row_stochastic(kernel).toarray()
        return _potential_of(walk, diffusion_time)
    labels = _clusters(reduced, landmarks, seed)
    member = scipy.sparse.csr_matrix((np.ones(len(labels)), (labels, np.arange(len(labels)))))
    to_points = member @ kernel
    to_landmarks = _row_stochastic(to_points.T.tocsr())
    walk = (_row_stochastic(to_points) @ to_landmarks).toarray()
    return np.asarray(to_landmarks.astype(np.float32) @ _potential_of(walk, diffusion_time), np.float32)


def principal_components(points: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Coordinates of (N, D) on its leading principal components, (N, min(components, N, D)), by subspace iteration."""
    centred = points - points.mean(axis=0)
    count = min(components, *centred.shape)
    width = min(count + 10, *centred.shape)
    if width == min(centred.shape):
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        return (left * values)[:, :count].astype(np.float32)
    basis = np.random.default_rng(seed).standard_normal((centred.shape[1], width)).astype(centred.dtype)
    for _ in range(4):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    left, values, _ = np.linalg.svd(centred @ basis, full_matrices=False)
    return (left * values)[:, :count].astype(np.float32)


@jax.jit
def _squared_distances(rows: jax.Array, points: jax.Array) -> jax.Array:
    products = jnp.matmul(rows, points.T, precision="highest")
    squared = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(points**2, axis=1)[None, :] - 2 * products
    return jnp.maximum(squared, 0.0)


def _blocks(points: np.ndarray):
    """(first row, squared distances of a block of rows to all points); the last block is padded, to compile once."""
    size = min(_BLOCK, len(points))
    for start in range(0, len(points), size):
        first = min(start, len(points) - size)
        block = np.array(_squared_distances(points[first : first + size], points))
        yield start, block[start - first :]


def kernel_matrix(points: np.ndarray, knn: int) -> scipy.sparse.csr_matrix:
    """Symmetrised alpha-decay kernel of (N, D) as a sparse (N, N) matrix; few entries a row survive the cut."""
    knn = min(knn, len(points) - 1)
    reach = (-np.log(_DROP)) ** (1 / _DECAY)
    rows, columns, values = [], [], []
    for start, squared in _blocks(points):
        local = np.arange(len(squared))
        squared[local, start + local] = 0.0
        bandwidth = np.sqrt(np.partition(squared, knn, axis=1)[:, knn])
        bandwidth = np.maximum(bandwidth, np.finfo(np.float32).tiny)
        with np.errstate(over="ignore"):  # where many points coincide, the bandwidth is next to nothing
            ratio = np.sqrt(squared) / bandwidth[:, None]
        row, column = np.nonzero(ratio <= reach)
        rows.append(start + row)
        columns.append(column)
        values.append(np.exp(-(ratio[row, column].astype(np.float64) ** _DECAY)))
    kernel = scipy.sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(points), len(points))
    )
    return ((kernel + kernel.T) / 2).tocsr()


def _row_stochastic(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    return scipy.sparse.diags(1.0 / np.asarray(matrix.sum(axis=1)).ravel()).dot(matrix).tocsr()


def _potential_of(walk: np.ndarray, diffusion_time: int) -> np.ndarray:
    return -np.log(np.linalg.matrix_power(walk.astype(np.float32), diffusion_time) + np.float32(_FLOOR))


def _clusters(points: np.ndarray, count: int, seed: int, iterations: int = 8) -> np.ndarray:
    """k-means labels of (N, D), (N,), without empty clusters."""
    centres = points[np.random.default_rng(seed).choice(len(points), count, replace=False)]
    labels = np.zeros(len(points), int)
    for _ in range(iterations):
        for start in range(0, len(points), _BLOCK):
            block = points[start : start + _BLOCK]
            labels[start : start + _BLOCK] = np.argmin(np.asarray(_squared_distances(block, centres)), axis=1)
        sizes = np.bincount(labels, minlength=count)
        member = scipy.sparse.csr_matrix(
            (np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(count, len(labels))
        )
        centres = np.where(sizes[:, None] > 0, member @ points / np.maximum(sizes, 1)[:, None], centres).astype(
            points.dtype
        )
    return np.unique(labels, return_inverse=True)[1]
