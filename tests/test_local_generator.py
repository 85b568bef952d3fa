"""The local generator: what it sees, and its noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import refusal

from closure_jax.models.local_generator import LocalGenerator

N = 24


@pytest.fixture(scope="module", params=[2, 0], ids=["amplitudes", "none"])
def generator(request):
    """(network, parameters that are not 0, a condition (3, N, N, 1), noise of that shape)."""
    network = LocalGenerator(width=4, depth=2, kernel=3, noise_width=request.param)
    c, z = jax.random.normal(jax.random.key(0), (2, 3, N, N, 1))
    params = jax.jit(network.init)(jax.random.key(1), z, c)
    return (
        network,
        jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params),
        c,
        z,
    )


def test_the_sample_is_linear_in_its_noise_and_moves_with_the_field(generator):
    network, params, c, z = generator
    call = jax.jit(network.apply)
    mean = call(params, 0 * z, c)
    np.testing.assert_allclose(call(params, 2 * z, c) - mean, 2 * (call(params, z, c) - mean), atol=1e-5)
    assert float(jnp.abs(call(params, z, c) - mean).max()) > 0.01
    moved = call(params, jnp.roll(z, (3, 5), (1, 2)), jnp.roll(c, (3, 5), (1, 2)))
    np.testing.assert_allclose(moved, jnp.roll(call(params, z, c), (3, 5), (1, 2)), atol=1e-5)


def test_a_point_sees_no_further_than_the_convolutions_reach(generator):
    """1 point by the first, 2 by each block, 1 by the last."""
    network, params, c, z = generator
    call, reach = jax.jit(network.apply), 1 + 2 * 2 + 1
    changed = np.asarray(jnp.abs(call(params, z, c.at[:, 7, 9].add(1.0)) - call(params, z, c)).max(axis=(0, 3)))
    index = np.arange(N)
    far = [np.minimum(np.abs(index - at), N - np.abs(index - at)) for at in (7, 9)]
    outside = np.maximum(*np.meshgrid(*far, indexing="ij")) > reach
    assert changed[outside].max() == 0 and changed[~outside].max() > 1e-3


def test_amplitudes_depend_on_the_state_where_they_are_asked_for(generator):
    network, params, c, z = generator
    call = jax.jit(network.apply)
    noise = [call(params, z, state) - call(params, 0 * z, state) for state in (c, 2 * c)]
    assert (float(jnp.abs(noise[0] - noise[1]).max()) > 1e-3) == (network.noise_width > 0)


def test_impossible_fields_are_refused():
    for fields, said in (
        ({"kernel": 4}, "kernel=4: expected 1, 3, 5 or 7"),
        ({"noise_width": -1}, "noise_width=-1"),
        ({"width": 0}, "width=0"),
        ({"depth": 100}, "depth=100"),
        ({"precision": "low"}, "precision=low"),
        ({"times": 1}, "kind=local: a generator sees no transport time"),
    ):
        assert refusal(lambda fields=fields: LocalGenerator(**fields)).startswith(said)
