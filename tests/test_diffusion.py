"""Variance-exploding diffusion: kernel, Karras times and the reverse SDE against closed forms for a Gaussian."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.errors import UserError
from closure_jax.transport.paths import Diffusion

PATH = Diffusion()


def exact_score(path, mean, deviation):
    """Score of x_tau where x is Normal(mean, deviation^2)."""
    return lambda x, tau: (mean - x) / (deviation**2 + path.std(tau)[:, None] ** 2)


def network_of(path, score):
    """The network of prediction = target whose target is the score: its input and output are scaled to order one."""

    def field(scaled, tau):
        std = path.std(tau)[:, None]
        return std * score(scaled * jnp.sqrt(1 + std**2), tau)

    return field


def sampled(path, deviation, steps, count=6000):
    mean = jnp.asarray(np.random.default_rng(0).normal(size=(count, 4)), jnp.float32)
    noise = path.noise(jax.random.split(jax.random.key(0), count), (4,), steps)
    return np.asarray(path.sample(network_of(path, exact_score(path, mean, deviation)), noise, mean, steps) - mean)


def test_the_target_is_the_score_of_the_transition_kernel(x64):
    x, tau = np.linspace(-1, 1, 6), 0.3
    normal = np.random.default_rng(1).normal(size=6)
    x_tau, target = PATH.in_transit(x, x, normal, tau)
    std = np.sqrt((30.0 ** (2 * tau) - 1) / (2 * np.log(30.0)))
    score = jax.vmap(jax.grad(lambda y, x: -0.5 * ((y - x) / std) ** 2))(x_tau, x)
    np.testing.assert_allclose(target, score, rtol=1e-10)


def test_the_noise_grows_as_the_sde_says(x64):
    # d std^2 / dtau = g^2
    for tau in (0.01, 0.4, 1.0):
        np.testing.assert_allclose(jax.grad(lambda t: PATH.std(t) ** 2)(tau), PATH.diffusion(tau) ** 2, rtol=1e-10)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_times_are_karras_times_and_then_zero(steps):
    times = np.array([PATH.time(i, steps) for i in range(steps + 1)])
    i = np.arange(steps)
    karras = (1.0 + i / (steps - 1) * (1e-3 ** (1 / 7) - 1.0)) ** 7
    np.testing.assert_allclose(times[:-1], karras, rtol=2e-5)
    assert times[-1] == 0 and times[-2] == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.slow
def test_the_sampler_recovers_mean_and_variance_of_a_gaussian():
    deviations = sampled(PATH, 0.13, 50)
    assert abs(deviations.mean()) < 5 * 0.13 / np.sqrt(deviations.size)
    assert deviations.std() / 0.13 == pytest.approx(1.0, abs=0.03)


@pytest.mark.slow
def test_few_steps_leave_too_much_spread_and_a_smaller_start_helps():
    few, many = (sampled(PATH, 0.13, steps).std() for steps in (10, 50))
    assert few > 1.1 * many
    assert sampled(dataclasses.replace(PATH, t_max=0.5), 0.13, 10).std() < few


@pytest.mark.slow
def test_ending_at_t_min_leaves_its_noise_in_the_samples():
    @dataclasses.dataclass(frozen=True)
    class EndsEarly(Diffusion):
        """Karras times without the 0."""

        def time(self, index, steps):
            return super().time(jnp.minimum(index, steps - 1), steps)

    # the closure's deviation in physical units, and the noise of t_min: sqrt(0.02^2 + 0.0317^2) / 0.02
    expected = np.sqrt(0.02**2 + float(PATH.std(1e-3)) ** 2) / 0.02
    assert expected == pytest.approx(1.87, abs=0.01)
    assert sampled(EndsEarly(), 0.02, 300, 1500).std() / 0.02 == pytest.approx(expected, rel=0.04)
    # the step to 0 draws x towards its mean, without noise
    last = 1 - 1e-3 * float(PATH.diffusion(1e-3)) ** 2 / (0.02**2 + float(PATH.std(1e-3)) ** 2)
    assert sampled(PATH, 0.02, 300, 1500).std() / 0.02 == pytest.approx(last * expected, rel=0.04)


def test_a_guess_of_the_data_that_is_the_mean_gives_the_exact_score(x64):
    x_tau, mean = np.random.default_rng(0).normal(size=(2, 3, 4))
    tau = jnp.array([1e-3, 0.3, 1.0])
    actual = dataclasses.replace(PATH, data_scale=0.13).target_from_data(mean, x_tau, tau)
    np.testing.assert_allclose(actual, exact_score(PATH, mean, 0.13)(x_tau, tau), rtol=1e-10)


@pytest.mark.slow
def test_the_weighted_loss_of_the_exact_score_is_its_closed_form_and_the_least():
    deviation, count = 0.5, 20000
    x = jnp.asarray(deviation * np.random.default_rng(0).normal(size=(count, 8)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), count)
    exact = network_of(PATH, exact_score(PATH, 0.0, deviation))
    loss = [float(PATH.loss(lambda y, t, f=f: f * exact(y, t), keys, x, x)[0]) for f in (0.9, 1.0, 1.1)]
    tau = np.linspace(*PATH.training_range, 20001)
    variance = np.asarray(PATH.std(tau)) ** 2
    # std^2 E|score - target|^2 = 1 - std^2 / (deviation^2 + std^2)
    assert loss[1] == pytest.approx(np.mean(deviation**2 / (deviation**2 + variance)), rel=0.03)
    assert loss[1] < min(loss[0], loss[2])


def test_the_networks_input_and_output_are_of_order_one():
    x = np.random.default_rng(0).normal(size=(4, 4000)).astype(np.float32)
    tau = jnp.array([1e-3, 0.1, 0.5, 1.0])
    x_tau = x + np.asarray(PATH.std(tau))[:, None] * np.random.default_rng(1).normal(size=x.shape)
    assert np.asarray(PATH.network_input(x_tau, tau)).std(axis=1) == pytest.approx(1.0, abs=0.05)
    output = PATH.target_from_output(np.ones((4, 2)), x_tau[:, :2], tau)
    np.testing.assert_allclose(output[:, 0] * PATH.std(tau), 1.0, rtol=1e-5)


def test_times_and_numbers_that_cannot_work_are_refused():
    cases = {
        "sigma=1.0: expected a number above 1": {"sigma": 1.0},
        "rho=0.0: expected a number above 0": {"rho": 0.0},
        "data_scale=-0.4: expected a number above 0": {"data_scale": -0.4},
        "spacing=even: expected one of karras, uniform": {"spacing": "even"},
        "t_min=0.0: expected a time above 0": {"t_min": 0.0},
        "t_max=1.5: expected a time above t_min = 0.001, up to t_train = 1.0": {"t_max": 1.5},
        "t_max=0.1: expected a time above t_min = 0.2": {"t_max": 0.1, "t_min": 0.2},
        "t_max=1.0: expected a time above t_min = 0.001, up to t_train = 0.5": {"t_train": 0.5},
        "rollout_t_max=1.1: expected a time above": {"rollout_t_max": 1.1},
        "rollout_t_max=-1.0: expected a time above": {"rollout_t_max": -1.0},
    }
    for message, fields in cases.items():
        with pytest.raises(UserError) as refused:
            Diffusion(**fields)
        assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
    Diffusion(t_max=0.8, t_train=0.8, rollout_t_max=0.8)
