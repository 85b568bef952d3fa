"""The joint latent: its moment term and loss against brute force, over devices, and as a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from closure_jax import closure, config, devices
from closure_jax.config import build
from closure_jax.latent.joint import moment_divergence
from closure_jax.training import phases, steps
from closure_jax.transport import losses

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
    c = config.base("tiny", "diffusion", "joint")
    rng = np.random.default_rng(0)
    n = c.data.resolution
    params = {field: build.init_autoencoder(c, jax.random.key(i)) for i, field in enumerate(("vorticity", "closure"))}
    params["network"] = build.init_network(c, jax.random.key(2))
    params = jax.tree.map(lambda p: p + 0.05 * np.cos(np.arange(p.size, dtype="f")).reshape(p.shape), params)
    batch = {field: rng.standard_normal((6, n, n)).astype(np.float32) for field in ("vorticity", "closure")}
    return c, params, batch, jax.random.split(jax.random.key(3), 6)


def test_the_loss_is_the_sum_of_its_parts(case):
    c, params, batch, keys = case
    encoder, decoder = build.autoencoder_pair(c)
    network, path = build.network(c), build.path(c)
    loss = steps.joint_loss(encoder, decoder, network, path, "data", WEIGHTS)
    total, measures = jax.jit(devices.alone(loss))(params, batch, keys)

    expected, latents = 0.0, {}
    for field in ("vorticity", "closure"):
        latents[field] = jax.jit(encoder.apply)(params[field]["encoder"], batch[field])
        rebuilt = jax.jit(decoder.apply)(params[field]["decoder"], latents[field])
        expected += WEIGHTS[field] * np.mean((np.asarray(rebuilt) - batch[field]) ** 2)
    z = np.asarray(latents["closure"], np.float64)
    variance, mean = z.var(axis=0), z.mean(axis=0)
    expected += WEIGHTS["moments"] * np.mean(0.5 * (variance + mean**2 - 1 - np.log(variance)))
    drift = closure.bind_drift(network, path, "data", params["network"], latents["vorticity"])
    transport = jax.jit(lambda k, *pair: losses.transport_loss(path, drift, k, *pair))(keys, *latents.values())
    assert float(measures["transport"]) == pytest.approx(float(transport), rel=1e-5)
    assert float(total) == pytest.approx(float(expected + transport), rel=1e-5)


def test_the_transport_loss_reaches_both_encoders(case):
    c, params, batch, keys = case
    only_transport = {"closure": 0.0, "vorticity": 0.0, "moments": 0.0}
    loss = steps.joint_loss(*build.autoencoder_pair(c), build.network(c), build.path(c), "data", only_transport)
    gradient = jax.jit(jax.grad(lambda p: devices.alone(loss)(p, batch, keys)[0]))(params)
    sizes = {
        (field, half): sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient[field][half]))
        for field in ("vorticity", "closure")
        for half in ("encoder", "decoder")
    }
    assert sizes["vorticity", "encoder"] > 0 and sizes["closure", "encoder"] > 0
    assert sizes["vorticity", "decoder"] == sizes["closure", "decoder"] == 0


def test_published_weights_belong_to_the_process():
    assert config.base("paper", "diffusion", "joint").latent.joint.closure_weight == 100
    assert config.base("paper", "flow_matching", "joint").latent.joint.closure_weight == 1000


def test_the_joint_space_is_trained_in_one_phase():
    joint, ga = (phases.program_of(config.base("tiny", latent=latent)) for latent in ("joint", "ga"))
    assert list(joint.phases) == ["joint"]
    assert list(ga.phases) == ["autoencoder_vorticity", "autoencoder_closure", "transport"]
    assert set(phases.latent_spaces()) == {"physical", "recon", "mp", "ga", "joint"}
