"""Diffusion-potential distances of a point cloud (PHATE; Moon et al., Nature Biotechnology 37, 2019), in JAX and SciPy.

100 principal components; alpha-decay kNN kernel (decay 40, bandwidth the distance to the knn-th neighbour, entries under
1e-4 dropped), symmetrised as (K + K^T) / 2; row-stochastic P; potential -log(P^t + 1e-7). The distance of two points is the
Euclidean one between their rows of the potential. Exact up to `landmarks` points; above, points are gathered into that many
clusters, the walk runs between clusters, and a point's row is the mean of the clusters' rows weighted by its transitions.
"""

import warnings

import numpy as np
import scipy.cluster.vq
import scipy.sparse
from jaxtyping import Float, Int

from closure_jax.latent import distances

VERSION = 1
"""Stands in the name of stored potentials: raise it whenever the same points give other distances."""

_DECAY = 40
_DROP = 1e-4
_FLOOR = 1e-7
_ITERATIONS = 8  # of k-means


def potential(
    points: Float[np.ndarray, " points *field"],
    knn: int = 10,
    diffusion_time: int = 10,
    components: int = 100,
    landmarks: int = 2000,
    seed: int = 0,
) -> Float[np.ndarray, "points landmarks"]:
    """Rows whose Euclidean distances are the diffusion-potential distances.

    Args:
      points: (N, ...), one field a point; fields are flattened.
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
    to_points = scipy.sparse.csr_matrix(member @ kernel)
    to_landmarks = _row_stochastic(scipy.sparse.csr_matrix(to_points.T))
    walk = scipy.sparse.csr_matrix(_row_stochastic(to_points) @ to_landmarks).toarray()
    return np.asarray(to_landmarks.astype(np.float32) @ _potential_of(walk, diffusion_time), np.float32)


def principal_components(
    points: Float[np.ndarray, "points entries"], components: int, seed: int
) -> Float[np.ndarray, "points components"]:
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


def kernel_matrix(points: Float[np.ndarray, "points entries"], knn: int) -> scipy.sparse.csr_matrix:
    """Symmetrised alpha-decay kernel of (N, D) as a sparse (N, N) matrix; few entries a row survive the cut."""
    knn = min(knn, len(points) - 1)
    reach = (-np.log(_DROP)) ** (1 / _DECAY)
    rows, columns, values = [], [], []
    for start, squared in distances.in_blocks(points):
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
    return scipy.sparse.csr_matrix((kernel + kernel.T) / 2)


def _row_stochastic(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Each row over its sum."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return scipy.sparse.csr_matrix(scipy.sparse.diags(1.0 / sums) @ matrix)


def _potential_of(walk: Float[np.ndarray, "states states"], diffusion_time: int) -> Float[np.ndarray, "states states"]:
    return -np.log(np.linalg.matrix_power(walk.astype(np.float32), diffusion_time) + np.float32(_FLOOR))


def _clusters(points: Float[np.ndarray, "points entries"], count: int, seed: int) -> Int[np.ndarray, " points"]:
    """Labels 0, 1, ... of (N, D) by k-means from `count` of the points, (N,); a cluster that loses all its points is left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        _, labels = scipy.cluster.vq.kmeans2(
            points, count, iter=_ITERATIONS, minit="points", rng=np.random.default_rng(seed)
        )
    return np.unique(labels, return_inverse=True)[1]
