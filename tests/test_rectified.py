"""Rectified flow matching: straight paths on a Gaussian, and the pairs that it learns again from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built, refusal

from closure_jax import closure
from closure_jax.training import two_phase
from closure_jax.transport.paths import FlowMatching

MEAN, DEVIATION = 0.7, 0.3  # of the data
COUNT = 512


def straight(x, tau):
    """E[target | x_tau] for pairs z, MEAN + DEVIATION z, which is what the exact flow makes of z: paths do not cross."""
    tau = tau.reshape(-1, 1)
    z = (x - tau * MEAN) / (1 - tau + tau * DEVIATION)
    return MEAN + (DEVIATION - 1) * z


def test_pairs_of_the_exact_flow_are_straight_and_independent_ones_are_not(x64):
    path, keys = FlowMatching(rectify=1), jax.random.split(jax.random.key(0), COUNT)
    z = jax.random.normal(jax.random.key(1), (COUNT, 1))
    data, condition = MEAN + DEVIATION * z, jnp.zeros((COUNT, 1))
    coupled, _ = path.loss(straight, keys, condition, data, source=z)
    independent, _ = path.loss(straight, keys, condition, data)
    assert coupled == pytest.approx(0, abs=1e-20) and independent > 0.1


@pytest.mark.parametrize("steps", [1, 7])
def test_any_number_of_steps_of_a_straight_flow_ends_in_the_law(steps, x64):
    path, keys = FlowMatching(rectify=1), jax.random.split(jax.random.key(0), COUNT)
    noise = path.noise(keys, (1,), steps)
    sample = path.sample(straight, noise, jnp.zeros((COUNT, 1)), steps)
    np.testing.assert_allclose(sample, MEAN + DEVIATION * noise["source"], atol=1e-12)


def test_one_step_of_a_rectified_flow_is_no_mean():
    condition = jnp.zeros((3, 1))
    assert FlowMatching(rectify=1).mean(straight, condition) is None
    assert FlowMatching().mean(straight, condition) is not None


@pytest.mark.slow
def test_a_pair_is_a_noise_and_what_the_network_makes_of_it():
    experiment = built("tiny", "flow_matching", "ga", "transport.rectify=2", "transport.rectify_steps=3")
    names = [phase.name for phase in experiment.program.phases(experiment)]
    assert names == ["autoencoder_vorticity", "autoencoder_closure", "transport", "rectified_1", "rectified_2"]
    params = experiment.init_network(jax.random.key(0))
    condition = np.random.default_rng(0).standard_normal((5, *experiment.latent_shape)).astype(np.float32)
    pairs = two_phase._pairs(experiment, 1, params, condition, "train")
    np.testing.assert_array_equal(pairs["condition"], condition)
    field = closure.bind(experiment.network, params, condition)
    sample = jax.jit(lambda z: experiment.transport.sample(field, {"source": z}, condition, 3))(pairs["source"])
    np.testing.assert_allclose(pairs["target"], sample, atol=1e-5)
    others = (
        two_phase._pairs(experiment, *which)["source"]
        for which in (
            (2, params, condition, "train"),
            (1, params, condition, "validation"),
        )
    )
    assert all(np.abs(other - pairs["source"]).min() > 0 for other in others)


def test_what_cannot_be_rectified_is_refused():
    assert refusal(lambda: FlowMatching(rectify=-1)).startswith("rectify=-1: expected ")
    assert refusal(lambda: FlowMatching(rectify_steps=0)).startswith("rectify_steps=0: expected ")
    said = refusal(lambda: built("tiny", "flow_matching", "joint", "transport.rectify=1"))
    assert said.startswith("--config.transport.rectify=1: expected 0 with latent.kind = joint")
