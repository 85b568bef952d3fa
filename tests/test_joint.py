"""The joint latent: its moment term and loss against brute force, and its one phase."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built
from scipy import integrate, stats

from closure_jax import closure
from closure_jax.data.dataset import FIELDS
from closure_jax.latent.joint import moment_divergence
from closure_jax.parallel import devices
from closure_jax.training import steps

WEIGHTS = {"closure": 3.0, "vorticity": 0.5, "moments": 0.2}


def test_the_term_is_the_divergence_from_a_standard_normal():
    # entries at the moments (mean, deviation) exactly: two examples at mean -+ deviation
    pairs = [(0.3, 1.4), (-0.8, 0.6)]
    latent = jnp.stack([jnp.array([m - s for m, s in pairs]), jnp.array([m + s for m, s in pairs])])

    def divergence(mean, deviation):
        p, q = stats.norm(mean, deviation), stats.norm()
        return integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean - 12, mean + 12)[0]

    expected = np.mean([divergence(*pair) for pair in pairs])
    assert float(moment_divergence(latent)) == pytest.approx(expected, rel=1e-5)


def test_the_term_is_zero_for_standard_moments_and_finite_for_a_dead_entry():
    assert float(moment_divergence(jnp.array([[-1.0], [1.0]]))) == pytest.approx(0, abs=1e-6)
    dead = jnp.ones((4, 2))
    value, gradient = jax.value_and_grad(moment_divergence)(dead)
    assert value > 1 and np.isfinite(gradient).all()


@pytest.fixture(scope="module")
def case():
    """An experiment, parameters that are nowhere zero, a batch of six, and their keys."""
    experiment = built("tiny", "diffusion", "joint")
    (phase,) = experiment.program.phases(experiment)
    params = phase.start(jax.random.key(0), {})
    params = jax.tree.map(lambda p: p + 0.05 * np.cos(np.arange(p.size, dtype="f")).reshape(p.shape), params)
    rng, n = np.random.default_rng(0), experiment.data.resolution
    batch = {field: rng.standard_normal((6, n, n)).astype(np.float32) for field in FIELDS}
    return experiment, params, batch, jax.random.split(jax.random.key(3), 6)


def loss_of(experiment, weights) -> steps.Loss:
    loss = steps.joint_loss(*experiment.autoencoder_modules(), experiment.network, experiment.transport, weights)
    return devices.alone(loss)


@pytest.mark.slow
def test_the_loss_is_the_sum_of_its_parts(case):
    experiment, params, batch, keys = case
    encoder, decoder = experiment.autoencoder_modules()
    total, measures = jax.jit(loss_of(experiment, WEIGHTS))(params, batch, keys)

    expected, latents = 0.0, {}
    for field in FIELDS:
        latents[field] = jax.jit(encoder.apply)(params[field]["encoder"], batch[field])
        rebuilt = jax.jit(decoder.apply)(params[field]["decoder"], latents[field])
        expected += WEIGHTS[field] * np.mean((np.asarray(rebuilt) - batch[field]) ** 2)
    z = np.asarray(latents["closure"], np.float64)
    variance, mean = z.var(axis=0), z.mean(axis=0)
    expected += WEIGHTS["moments"] * np.mean(0.5 * (variance + mean**2 - 1 - np.log(variance)))
    field = closure.bind(experiment.network, params["network"], latents["vorticity"])
    pair = (latents["vorticity"], latents["closure"])
    transport = jax.jit(lambda k, *pair: experiment.transport.loss(field, k, *pair)[0])(keys, *pair)
    assert float(measures["transport"]) == pytest.approx(float(transport), rel=1e-5)
    assert float(total) == pytest.approx(float(expected + transport), rel=1e-5)


@pytest.mark.slow
def test_the_transport_loss_reaches_both_encoders_and_no_decoder(case):
    experiment, params, batch, keys = case
    loss = loss_of(experiment, {"closure": 0.0, "vorticity": 0.0, "moments": 0.0})
    gradient = jax.jit(jax.grad(lambda p: loss(p, batch, keys)[0]))(params)
    sizes = {
        (field, half): sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient[field][half]))
        for field in FIELDS
        for half in ("encoder", "decoder")
    }
    assert sizes["vorticity", "encoder"] > 0 and sizes["closure", "encoder"] > 0
    assert sizes["vorticity", "decoder"] == sizes["closure", "decoder"] == 0


def test_the_joint_space_is_trained_in_one_phase_and_the_others_in_three():
    for latent, names in (
        ("joint", ["joint"]),
        ("ga", ["autoencoder_vorticity", "autoencoder_closure", "transport"]),
    ):
        experiment = built("tiny", "flow_matching", latent)
        assert [phase.name for phase in experiment.program.phases(experiment)] == names
