"""The metric-preserving term against a brute-force double loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.latent.metric_preserving import MetricPreserving


@pytest.mark.parametrize("per_entry", [False, True])
def test_the_term_is_the_mean_over_the_nearest_neighbours_of_each_field(per_entry):
    rng = np.random.default_rng(0)
    fields, latent = rng.normal(size=(9, 6, 6)), rng.normal(size=(9, 3, 3, 1))
    total = 0.0
    for i in range(9):
        others = [j for j in range(9) if j != i]
        others.sort(key=lambda j, i=i: np.linalg.norm(fields[i] - fields[j]))
        for j in others[:5]:
            d_data, d_latent = np.linalg.norm(fields[i] - fields[j]), np.linalg.norm(latent[i] - latent[j])
            total += (d_latent / (3 if per_entry else 1) - d_data / (6 if per_entry else 1)) ** 2 / 45
    term, measures = MetricPreserving(1e-2, 5, per_entry)(jnp.asarray(latent), jnp.asarray(fields))
    assert float(measures["regulariser"]) == pytest.approx(total, rel=1e-4)
    assert float(term) == pytest.approx(1e-2 * total, rel=1e-4)
    assert float(measures["regulariser_weight"]) == pytest.approx(5 / 8)


def test_an_isometry_costs_nothing_and_has_a_finite_gradient():
    fields = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4, 4)))
    regulariser = MetricPreserving(1.0, 5, False)
    value, gradient = jax.value_and_grad(lambda z: regulariser(z, fields)[0])(fields[..., None])
    assert value == pytest.approx(0.0, abs=1e-10) and np.isfinite(gradient).all()


def test_a_batch_smaller_than_the_neighbourhood_uses_all_pairs():
    fields = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4)))
    _, measures = MetricPreserving(1.0, 5, False)(fields[..., None], fields)
    assert measures["regulariser_weight"] == 1.0
