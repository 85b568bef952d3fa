"""Latent geometry against definitions written out: distances, the terms that shape a latent, the diffusion potential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.latent import diffusion_potential, distances, geometry_aware, metric_preserving

EPSILON = np.finfo(np.float32).eps


def euclidean(points):
    """(N, N) distances of (N, ...) by differences."""
    rows = points.reshape(len(points), -1).astype(float)
    return np.sqrt(np.sum((rows[:, None] - rows[None, :]) ** 2, axis=-1))


def gaussian_cloud(count, size, seed=0):
    return np.random.default_rng(seed).standard_normal((count, size)).astype(np.float32)


def noisy_circle(count, size=8, noise=0.05, seed=0):
    """Points about a circle in the first two of `size` directions, in order of the angle."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    points = noise * rng.standard_normal((count, size))
    points[:, 0] += np.cos(angle)
    points[:, 1] += np.sin(angle)
    return points.astype(np.float32)


def pairs(matrix):
    """The entries of different points, each pair once."""
    return matrix[np.triu_indices(len(matrix), 1)]


# --- distances ---


def test_pairwise_distances_are_those_of_differences_far_from_the_origin_too():
    x = np.round(gaussian_cloud(12, 18).reshape(12, 3, 3, 2) * 64) / 64 + 1024  # exact in single precision
    actual = np.asarray(jax.jit(distances.pairwise)(x))
    # the expanded square errs by a few eps |x - mean|^2 = 18 eps, and the distances are 3 and more
    np.testing.assert_allclose(actual, euclidean(x), atol=20 * EPSILON * 18 / 3)
    np.testing.assert_array_equal(np.diag(actual), 0)


def test_gradient_of_distances_is_the_direction_and_is_zero_between_coincident_points(x64):
    x = np.random.default_rng(0).standard_normal((5, 3))
    x[3] = x[1]
    weights = np.random.default_rng(1).standard_normal((5, 5))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(weights * distances.pairwise(x))))(x)
    expected = np.zeros_like(x)
    for i in range(5):
        for j in range(5):
            d = np.linalg.norm(x[i] - x[j])
            if d > 0:
                expected[i] += (weights[i, j] + weights[j, i]) * (x[i] - x[j]) / d
    # coincident rows may have a rounded distance of 1e-8, whose gradient is their difference over it: none
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_gradient_of_distances_is_finite_where_all_points_coincide():
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(distances.pairwise(x) ** 2 + distances.pairwise(x))))(
        np.full((4, 6), 0.3)
    )
    np.testing.assert_array_equal(gradient, 0)


# --- geometry-aware regularisation ---

TERM = geometry_aware.GeometryAware(weight=1e-3, zeta=1.3, unit=2.5, length=0.7)


def test_geometry_aware_term_is_the_double_sum():
    latent, rows = gaussian_cloud(7, 8).reshape(7, 2, 2, 2), gaussian_cloud(7, 20, seed=1)
    total, of_weights = 0.0, 0.0
    for i in range(7):
        for j in range(7):
            if i != j:
                d = np.linalg.norm(rows[i] - rows[j]) / 2.5
                between = np.linalg.norm(latent[i] - latent[j])
                total += np.exp(-1.3 * d) * (between / 0.7 - d) ** 2 / (7 * 6)
                of_weights += np.exp(-1.3 * d) / (7 * 6)
    term, measures = jax.jit(TERM)(latent, rows)
    np.testing.assert_allclose(term, 1e-3 * total, rtol=1e-5)
    np.testing.assert_allclose(measures["regulariser"], total, rtol=1e-5)
    np.testing.assert_allclose(measures["regulariser_weight"], of_weights, rtol=1e-5)


def test_gradient_of_the_geometry_aware_term_is_that_of_finite_differences(x64):
    rng = np.random.default_rng(0)
    latent, rows, direction = rng.standard_normal((6, 8)), rng.standard_normal((6, 20)), rng.standard_normal((6, 8))
    value = jax.jit(lambda s: TERM(latent + s * direction, jnp.asarray(rows))[0])
    h = 1e-5  # truncation h^2 and rounding eps / h, both near 1e-10
    difference = (value(h) - value(-h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(value)(0.0), difference, rtol=1e-7)


def test_neighbourhood_is_the_edge_of_the_nearest_tenth():
    count, latent_size = 40, 7
    rows, fields = gaussian_cloud(count, 30), gaussian_cloud(count, 16, seed=1).reshape(count, 4, 4)
    d, between = euclidean(rows), euclidean(fields)
    edge = np.argsort(d, axis=1)[:, 4]  # the fourth neighbour of 40 points; column 0 is the point itself
    unit = np.mean([d[i, edge[i]] for i in range(count)])
    length = np.mean([between[i, edge[i]] for i in range(count)]) * np.sqrt(latent_size / 16)
    # a batch of all points is the same whatever the order
    actual = geometry_aware.neighbourhood(rows, fields, 100, latent_size, batches=2)
    np.testing.assert_allclose(actual, (unit, length), rtol=1e-5)


def test_latents_that_keep_the_distances_of_neighbours_pay_nothing():
    for repeats in [1, 2]:
        fields = gaussian_cloud(30, 16).reshape(30, 4, 4)
        latent = np.repeat(np.repeat(fields, repeats, axis=1), repeats, axis=2)[..., None]
        rows = 11.0 * fields.reshape(30, -1)
        unit, length = geometry_aware.neighbourhood(rows, fields, 30, latent[0].size)
        term = jax.jit(geometry_aware.GeometryAware(1.0, 1.0, unit, length))
        np.testing.assert_allclose(term(latent, rows)[0], 0, atol=1e-9)
        assert term(1.2 * latent, rows)[0] > 1e-3
        assert term(latent / 1.2, rows)[0] > 1e-3


def test_published_constants_are_inert_and_the_neighbourhood_scale_is_not():
    # distances of the diffusion potential are tens, and exp(-d) nothing
    cloud = noisy_circle(1000, size=16, noise=1e-3)
    rows = diffusion_potential.potential(cloud, knn=10, diffusion_time=10)[::25]  # a batch of 40 from a training set
    fields = cloud[::25].reshape(40, 4, 4)
    assert pairs(euclidean(rows)).min() > 15
    latent = gaussian_cloud(40, 16, seed=1).reshape(40, 4, 4, 1)
    published = geometry_aware.GeometryAware(1e-3, 1.0, 1.0, 1.0)
    unit, length = geometry_aware.neighbourhood(rows, fields, 40, 16)
    scaled = geometry_aware.GeometryAware(1e-3, 1.0, unit, length)
    evaluate = jax.jit(
        jax.value_and_grad(lambda term, x: term(x, jnp.asarray(rows)), argnums=1, has_aux=True), static_argnums=0
    )
    (_, inert), no_push = evaluate(published, latent)
    (_, active), push = evaluate(scaled, latent)
    assert inert["regulariser_weight"] < np.exp(-15)
    # the nearest tenth have weights of e^-1 and more on average (the exponential is convex, d / s has mean 1 at the edge)
    assert active["regulariser_weight"] > 4 / 39 * np.exp(-1) > 0.01
    assert np.abs(no_push).max() < 1e-5 * np.abs(push).max()


# --- metric-preserving regularisation ---


def test_metric_preserving_term_is_the_mean_over_the_nearest_neighbours_of_each_field():
    for neighbours, per_entry in [(5, False), (5, True), (20, True)]:
        rng = np.random.default_rng(0)
        fields, latent = rng.normal(size=(9, 6, 6)), rng.normal(size=(9, 3, 3, 1))
        total, count = 0.0, min(neighbours, 8)  # a small batch: all pairs
        for i in range(9):
            others = [j for j in range(9) if j != i]
            others.sort(key=lambda j, i=i: np.linalg.norm(fields[i] - fields[j]))
            for j in others[:count]:
                d_data, d_latent = np.linalg.norm(fields[i] - fields[j]), np.linalg.norm(latent[i] - latent[j])
                total += (d_latent / (3 if per_entry else 1) - d_data / (6 if per_entry else 1)) ** 2 / (9 * count)
        regulariser = metric_preserving.MetricPreserving(1e-2, neighbours, per_entry)
        term, measures = jax.jit(regulariser)(latent, fields)
        np.testing.assert_allclose([term, measures["regulariser"]], [1e-2 * total, total], rtol=1e-4)
        assert float(measures["regulariser_weight"]) == pytest.approx(count / 8)


def test_an_isometry_costs_nothing_and_has_a_finite_gradient():
    fields = jnp.asarray(gaussian_cloud(7, 16).reshape(7, 4, 4))
    regulariser = metric_preserving.MetricPreserving(1.0, 5, False)
    value, gradient = jax.jit(jax.value_and_grad(lambda z: regulariser(z, fields)[0]))(fields[..., None])
    assert value == pytest.approx(0.0, abs=1e-10) and np.isfinite(gradient).all()


# --- diffusion potential ---


def kernel_by_definition(points, knn):
    """Alpha-decay kernel, (N, N) dense, in double precision."""
    d = euclidean(points)
    bandwidth = np.sort(d, axis=1)[:, knn]  # column 0 is the point itself
    kernel = np.exp(-((d / bandwidth[:, None]) ** 40))
    kernel[kernel < 1e-4] = 0
    return (kernel + kernel.T) / 2


def normalised(matrix):
    return matrix / matrix.sum(axis=1, keepdims=True)


def potential_by_definition(points, knn, diffusion_time):
    walk = normalised(kernel_by_definition(points, knn))
    return -np.log(np.linalg.matrix_power(walk, diffusion_time) + 1e-7)


# Single precision: a squared distance from products errs by eps |x|^2 / d^2, 1e-5 for the nearest of these clouds; the power 40
# makes it 2e-4 of a kernel's entry, and t steps of the walk t times that at most.
KERNEL_ERROR = 2e-4


def test_kernel_is_the_alpha_decay_kernel_over_all_blocks():
    points = gaussian_cloud(distances._BLOCK + 76, 3)
    expected = kernel_by_definition(points, 7)
    actual = diffusion_potential.kernel_matrix(points, 7)
    np.testing.assert_allclose(actual.toarray(), expected, atol=10 * KERNEL_ERROR)
    assert actual.nnz < 0.02 * len(points) ** 2
    assert actual.data.min() > 0.99 * 1e-4 / 2


def test_coincident_points_have_a_kernel():
    points = np.repeat(
        np.arange(5, dtype=np.float32)[:, None], 4, axis=0
    )  # four at each place, bandwidth 0 up to knn = 3
    kernel = diffusion_potential.kernel_matrix(points, 3).toarray()
    np.testing.assert_array_equal(kernel, np.kron(np.eye(5), np.ones((4, 4))))


def test_potential_is_that_of_the_definition():
    for diffusion_time in [1, 10]:
        points = gaussian_cloud(60, 12)
        actual = diffusion_potential.potential(points.reshape(60, 3, 4), knn=5, diffusion_time=diffusion_time)
        expected = potential_by_definition(points, 5, diffusion_time)
        assert actual.shape == (60, 60) and actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, atol=diffusion_time * 2 * KERNEL_ERROR)


def test_landmark_potential_is_the_walk_between_clusters():
    points, knn, diffusion_time, landmarks = noisy_circle(120), 5, 4, 30
    reduced = diffusion_potential.principal_components(points, 8, 0)
    labels = diffusion_potential._clusters(reduced, landmarks, 0)
    assert labels.max() + 1 <= landmarks and len(np.unique(labels)) == labels.max() + 1
    kernel = kernel_by_definition(points, knn)
    member = (labels[None, :] == np.arange(labels.max() + 1)[:, None]).astype(float)
    to_landmarks = normalised(kernel @ member.T)
    walk = normalised(member @ kernel) @ to_landmarks
    expected = to_landmarks @ -np.log(np.linalg.matrix_power(walk, diffusion_time) + 1e-7)
    actual = diffusion_potential.potential(points, knn, diffusion_time, 8, landmarks, 0)
    np.testing.assert_allclose(actual, expected, atol=diffusion_time * 2 * KERNEL_ERROR)


def test_clusters_are_nearer_to_their_own_centre():
    places = 10.0 * gaussian_cloud(6, 4)
    points = (np.repeat(places, 20, axis=0) + 0.1 * gaussian_cloud(120, 4, seed=1)).astype(np.float32)
    labels = diffusion_potential._clusters(points, 12, 0)
    centres = np.stack([points[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    spread = np.linalg.norm(points - centres[labels], axis=1)
    nearest = np.min(np.linalg.norm(points[:, None] - centres[None, :], axis=-1), axis=1)
    assert np.mean(spread**2) < 1.1 * np.mean(nearest**2)


SUMMARIES = {1: {"exact": [13.6939, 86.6416, 29.0539, 96.7101], "landmarks": [10.8059, 45.4991, 8.24468, 64.3058]}}
"""By version of the method: the mean of the rows, the mean distance, and two distances, exact and by landmarks."""


def test_other_distances_need_another_version():
    points = noisy_circle(200)
    found = {}
    for name, landmarks in (("exact", 200), ("landmarks", 40)):
        rows = diffusion_potential.potential(points, knn=5, diffusion_time=6, components=6, landmarks=landmarks)
        d = euclidean(rows)
        found[name] = [rows.mean(), pairs(d).mean(), d[0, 10], d[50, 150]]
    stored = SUMMARIES[diffusion_potential.VERSION]
    for name, numbers in found.items():
        np.testing.assert_allclose(
            numbers, stored[name], rtol=1e-3, err_msg=f"{name}: raise VERSION, store these numbers"
        )


def test_landmarks_keep_the_distances_of_the_exact_potential():
    points = noisy_circle(400)
    exact = euclidean(diffusion_potential.potential(points, knn=10, diffusion_time=10))
    approximate = euclidean(diffusion_potential.potential(points, knn=10, diffusion_time=10, landmarks=100))
    assert np.corrcoef(pairs(exact), pairs(approximate))[0, 1] > 0.95
    # and both follow the circle: nearer in angle, which is the order of the points, is nearer in potential
    for d in (exact, approximate):
        assert np.mean(np.diag(d, 1)) < np.mean(np.diag(d, 40)) < np.mean(np.diag(d, 200))


@pytest.mark.slow
def test_principal_components_are_those_of_the_svd():
    for count, size in [(50, 20), (100, 70), (70, 100)]:
        components, decay = 12, 0.8
        rng = np.random.default_rng(0)
        values = decay ** np.arange(min(count, size))
        left, _ = np.linalg.qr(rng.standard_normal((count, len(values))))
        right, _ = np.linalg.qr(rng.standard_normal((size, len(values))))
        points = (left * values) @ right.T + 5.0
        left, values, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
        expected = (left * values)[:, :components]
        actual = diffusion_potential.principal_components(points, components, seed=3)
        assert actual.shape == (count, components) and actual.dtype == np.float32
        sign = np.sign(np.sum(actual * expected, axis=0))
        # with ten spare directions an iteration leaves (decay^11)^2 of what is discarded: 3e-9 after four
        np.testing.assert_allclose(actual * sign, expected, atol=2 * EPSILON * np.abs(expected).max())


def test_more_components_than_there_are_change_nothing():
    points = gaussian_cloud(20, 6)
    reduced = diffusion_potential.principal_components(points, 100, seed=0)
    assert reduced.shape == (20, 6)
    np.testing.assert_allclose(euclidean(reduced), euclidean(points), atol=20 * EPSILON)
