"""Average velocities against the Gaussian flow, where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built, refusal

from closure_jax.transport.mean_flow import MeanFlow

MEAN, DEVIATION = 0.7, 0.3  # of the data
KEYS = jax.random.split(jax.random.key(0), 64)


def deviation(tau):
    return jnp.sqrt((1 - tau) ** 2 + (tau * DEVIATION) ** 2)


def flow(x, tau, eta):
    """Where the exact flow takes x_tau: it keeps the place in units of the deviation."""
    return eta * MEAN + deviation(eta) / deviation(tau) * (x - tau * MEAN)


def velocity(x, tau):
    """E[x - z | x_tau]."""
    return jax.vmap(jax.grad(lambda eta, x, tau: flow(x, tau, eta)), (0, 0, 0))(tau, x, tau)


def exact_guess(transport):
    """The network whose average velocity is the exact one: `average` solved for the guess of the data."""

    def field(x, tau, eta):
        apart = eta > tau
        exact = jnp.where(apart, (flow(x, tau, eta) - x) / jnp.where(apart, eta - tau, 1.0), velocity(x, tau))
        a = transport.average(lambda x, tau, eta: jnp.zeros_like(x), jnp.ones_like(x), tau, eta)
        return (exact - a * x) / (1 - tau * a)

    return field


def states():
    rng = np.random.default_rng(0)
    tau, eta = np.sort(rng.uniform(size=(2, 64)), axis=0)
    return jnp.asarray(rng.normal(size=64)), jnp.asarray(tau), jnp.asarray(eta)


@pytest.mark.parametrize("scale", [0.3, 1.1])
def test_the_identity_gives_the_velocity_of_a_known_average(scale, x64):
    transport = MeanFlow(data_scale=scale)
    x, tau, eta = states()
    for end in (eta, tau):
        np.testing.assert_allclose(transport.velocity(exact_guess(transport), x, tau, end), velocity(x, tau), atol=1e-6)


def test_a_wrong_average_does_not_satisfy_it(x64):
    transport = MeanFlow()
    x, tau, eta = states()
    exact = exact_guess(transport)
    wrong = transport.velocity(lambda x, tau, eta: exact(x, tau, eta) + 0.1 * (eta - tau), x, tau, eta)
    assert jnp.abs(wrong - velocity(x, tau)).max() > 1e-3


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps_of_the_exact_average_ends_in_the_law(steps, x64):
    transport, condition = MeanFlow(data_scale=0.8), jnp.zeros((64, 1))
    noise = transport.noise(KEYS, (1,), steps)

    def field(x, tau, eta):
        return exact_guess(transport)(x[:, 0], tau, eta)[:, None]

    sample = transport.sample(field, noise, condition, steps)
    np.testing.assert_allclose(sample, MEAN + DEVIATION * noise["source"], atol=1e-9)
    states_on_the_way = transport.trajectory(field, noise, condition, steps)
    np.testing.assert_allclose(states_on_the_way[-1], sample, atol=1e-12)
    np.testing.assert_allclose(transport.mean(field, condition), MEAN, atol=1e-9)


def test_with_the_right_scale_the_mean_of_the_data_is_all_the_network_has_to_know(x64):
    transport = MeanFlow(data_scale=DEVIATION)
    noise = transport.noise(KEYS, (1,), 1)
    sample = transport.sample(lambda x, tau, eta: jnp.full_like(x, MEAN), noise, jnp.zeros((64, 1)), 1)
    np.testing.assert_allclose(sample, MEAN + DEVIATION * noise["source"], atol=1e-12)


@pytest.mark.slow
def test_the_loss_is_least_at_the_exact_average(x64):
    transport = MeanFlow(data_scale=0.8)
    keys = jax.random.split(jax.random.key(1), 20_000)
    data = (MEAN + DEVIATION * jax.random.normal(jax.random.key(2), (20_000,)))[:, None]

    def loss(shift, slope):
        def field(x, tau, eta):
            change = shift + slope * (eta - tau)[:, None]
            return exact_guess(transport)(x[:, 0], tau, eta)[:, None] + change

        return transport.loss(field, keys, jnp.zeros_like(data), data)[0]

    least = loss(0.0, 0.0)
    for change in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.3), (0.0, -0.3)):
        assert loss(*change) > least


@pytest.mark.slow
def test_the_velocity_alone_is_learned_at_equal_times_and_then_the_average(x64):
    """The loss of the flow does not see what the network says at two different times; its phase comes first."""
    transport = MeanFlow(data_scale=0.8, flow_steps=3)
    keys = jax.random.split(jax.random.key(1), 1000)
    data = (MEAN + DEVIATION * jax.random.normal(jax.random.key(2), (1000,)))[:, None]

    def loss(slope, shift=0.0):
        def field(x, tau, eta):
            return exact_guess(transport)(x[:, 0], tau, eta)[:, None] + slope * (eta - tau)[:, None] + shift

        return transport.flow().loss(field, keys, jnp.zeros_like(data), data)[0]

    assert loss(0.0) == loss(0.3) and loss(0.0, 0.1) > loss(0.0)
    experiment = built("tiny", "mean_flow", "ga", "transport.flow_steps=3")
    *_, flow, average = experiment.program.phases(experiment)
    assert (flow.name, average.name) == ("flow", "transport")
    assert (flow.training.settings.steps, average.training.settings.steps) == (3, 60)
    assert average.start(jax.random.key(0), {"flow": "its parameters"}) == "its parameters"
    said = refusal(
        lambda: built("tiny", "mean_flow", "ga", "latent.kind=joint", "program.kind=joint", "transport.flow_steps=3")
    )
    assert said.startswith("--config.transport.flow_steps=3: expected 0 with latent.kind = joint")


@pytest.mark.parametrize(
    ("field", "value"), [("data_scale", 0.0), ("equal_times", 1.0), ("adaptive_power", 2.0), ("flow_steps", -1)]
)
def test_impossible_fields_are_refused(field, value):
    assert refusal(lambda: MeanFlow(**{field: value})).startswith(f"{field}={value}: expected ")


def test_the_times_of_a_pair_have_the_stated_law():
    """The smaller and the larger of two uniform ones, (1/3, 2/3) in the mean; eta is tau in a share of the pairs."""
    seen = []

    class Looking(MeanFlow):
        def _learned(self, field, x, tau, eta):
            seen.append((np.asarray(tau), np.asarray(eta)))
            return x

    count, share = 20_000, 0.3
    keys = jax.random.split(jax.random.key(6), count)
    Looking(equal_times=share).loss(lambda *_: 0.0, keys, jnp.zeros((count, 1)), jnp.zeros((count, 1)))
    ((tau, eta),) = seen
    equal = tau == eta
    assert np.all(tau <= eta) and np.mean(equal) == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / count))
    for times, mean in ((tau[equal], 1 / 3), (tau[~equal], 1 / 3), (eta[~equal], 2 / 3)):
        assert np.mean(times) == pytest.approx(mean, abs=5 * np.sqrt(1 / 18 / len(times)))
