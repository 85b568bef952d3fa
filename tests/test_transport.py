"""Paths, loss and samplers against the Gaussian case, where the best drift, its loss and its samples are known exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.errors import UserError
from closure_jax.transport import TRANSPORTS, paths

PATHS = {
    name: kind()
    for name, kind in TRANSPORTS.items()
    if name not in ("conditional_mean", "diffusion", "mean_flow", "score")
}
STD = 0.255  # of x given c below; the noise of the closure's latents has about this
MANY = 5.0  # standard deviations of an estimate; draws are fixed, so a pass stays a pass


def mean_of(condition):
    """m(c) of the example x | c ~ Normal(m(c), STD^2)."""
    return 0.5 + jnp.sin(condition)


def moments(path, tau):
    """Variance of x_tau given c, its covariance with the target, and the target's variance, all for one entry."""
    source = 0.0 if path.from_condition else 1.0
    wiener = tau if path.stochastic else 0.0
    variance = (1 - tau) ** 2 * (source + wiener) + tau**2 * STD**2
    covariance = tau * STD**2 - (1 - tau) * (source + wiener)
    return variance, covariance, STD**2 + source + wiener


def best_drift(path, condition):
    """E[target | x_tau, c]."""

    def drift(x_tau, tau):
        tau = tau.reshape(tau.shape + (1,) * (x_tau.ndim - 1))
        variance, covariance, _ = moments(path, tau)
        start = condition if path.from_condition else 0.0
        # at tau = 0 a source known exactly has variance 0, and x_tau is its mean
        slope = covariance / jnp.where(variance == 0, 1.0, variance)
        return mean_of(condition) - start + slope * (x_tau - (1 - tau) * start - tau * mean_of(condition))

    return drift


def batch(count, size, seed=0):
    """Keys (count,) and conditions (count, size)."""
    condition = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return jax.random.split(jax.random.key(seed), count), jnp.asarray(condition)


def sources(path, keys, condition):
    """What the sampler starts from."""
    noise = path.noise(keys, condition.shape[1:], 1)
    return path.source(noise.get("source", condition), condition)


def sampler(path, field, keys, condition, most=50):
    """steps -> samples; noise of `most` steps and one compiled program serve all numbers up to it."""
    noise = path.noise(keys, condition.shape[1:], most)
    return jax.jit(lambda steps: path.sample(field, noise, condition, steps))


# --- paths ---


@dataclasses.dataclass(frozen=True)
class Trigonometric(paths.FlowMatching):
    """A path that is not straight, as a fork would write it: the variance of normal data stays 1 on the way."""

    def alpha(self, tau):
        return jnp.cos(np.pi / 2 * tau)

    def beta(self, tau):
        return jnp.sin(np.pi / 2 * tau)


class TrigonometricSDE(Trigonometric):
    """The same with the default Brownian part, gamma = alpha."""

    stochastic = True


class Curved(TrigonometricSDE):
    """A Brownian part of its own."""

    def gamma(self, tau):
        return 0.3 * (1 - tau**2)


FORKS = {"trigonometric": Trigonometric(), "trigonometric_sde": TrigonometricSDE()}
ALL_PATHS = {**PATHS, **FORKS, "curved": Curved()}


@pytest.mark.parametrize("name", ALL_PATHS)
def test_the_target_is_the_derivative_of_the_path_with_the_wiener_process_held(name, x64):
    path = ALL_PATHS[name]
    z, x, n = np.random.default_rng(0).normal(size=(3, 5))
    tau = jnp.asarray(0.37)
    transit, derivative = jax.jvp(lambda t: path.in_transit(z, x, n, t)[0], (tau,), (1.0,))
    actual_transit, target = path.in_transit(z, x, n, tau)
    gamma = path.gamma(tau) if path.stochastic else 0.0
    expected = path.alpha(tau) * z + path.beta(tau) * x + gamma * np.sqrt(tau) * n
    np.testing.assert_allclose(actual_transit, expected, rtol=1e-12)
    # in all of d x_tau / d tau, W = sqrt(tau) n moves too: gamma n / (2 sqrt(tau)) more than the target
    np.testing.assert_allclose(target, derivative - gamma * n / (2 * np.sqrt(tau)), rtol=1e-12)
    np.testing.assert_allclose(transit, expected, rtol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_published_paths_have_the_published_targets_and_ends(name, x64):
    path = PATHS[name]
    z, x, n = np.random.default_rng(0).normal(size=(3, 5))
    tau = jnp.asarray(0.37)
    wiener = np.sqrt(tau) * n if path.stochastic else 0.0
    transit, target = path.in_transit(z, x, n, tau)
    np.testing.assert_allclose(transit, (1 - tau) * z + tau * x + (1 - tau) * wiener, rtol=1e-12)
    np.testing.assert_allclose(target, x - z - wiener, rtol=1e-12)
    np.testing.assert_allclose(path.in_transit(z, x, n, jnp.asarray(0.0))[0], z, atol=1e-15)
    np.testing.assert_allclose(path.in_transit(z, x, n, jnp.asarray(1.0))[0], x, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in TRANSPORTS if name != "conditional_mean"])
@pytest.mark.slow
def test_noise_is_standard_normal_and_independent(name):
    keys, _ = batch(64, 256)
    drawn = TRANSPORTS[name]().noise(keys, (8, 8, 1), 3)
    assert (
        drawn.keys()
        == {
            "diffusion": {"source", "increments"},
            "flow_matching": {"source"},
            "interpolant_gaussian": {"source", "increments"},
            "interpolant_empirical": {"increments"},
            "mean_flow": {"source"},
            "score": {"source"},
        }[name]
    )
    parts = [drawn["source"]] if "source" in drawn else []
    parts += list(np.swapaxes(drawn["increments"], 0, 1)) if "increments" in drawn else []
    flat = np.stack([np.ravel(part) for part in parts])
    assert flat.shape == (len(parts), 64 * 64)
    error = MANY / np.sqrt(flat.shape[1])
    np.testing.assert_array_less(np.abs(flat.mean(axis=1)), error)
    np.testing.assert_array_less(np.abs(np.mean(flat**2, axis=1) - 1), np.sqrt(2) * error)
    np.testing.assert_array_less(np.abs(np.mean(flat**4, axis=1) - 3), np.sqrt(96) * error)
    np.testing.assert_array_less(
        np.abs(flat @ flat.T / flat.shape[1] - np.eye(len(flat)))[~np.eye(len(flat), dtype=bool)], error
    )
    # noise for more steps begins as that for fewer
    more = TRANSPORTS[name]().noise(keys, (8, 8, 1), 5)
    for part in drawn:
        np.testing.assert_array_equal(drawn[part], more[part][:, :3] if part == "increments" else more[part])


def test_sources_are_the_condition_or_the_noise_which_can_be_mirrored():
    keys, condition = batch(64, 256)
    np.testing.assert_array_equal(sources(PATHS["interpolant_empirical"], keys, condition), condition)
    for path in (PATHS["flow_matching"], PATHS["interpolant_gaussian"], paths.Diffusion(t_max=0.5)):
        noise = path.noise(keys, condition.shape[1:], 2)
        z = path.source(noise["source"], condition)
        scale = float(path.std(0.5)) if isinstance(path, paths.Diffusion) else 1.0
        np.testing.assert_allclose(z, scale * noise["source"], rtol=1e-6)
        assert abs(np.mean(z * condition)) < MANY * scale / np.sqrt(z.size)
        mirrored = jax.tree.map(lambda numbers: -numbers, noise)
        starts = path.trajectory(lambda x, tau: 0 * x, mirrored, condition, 2)
        np.testing.assert_allclose(starts[0], -z, rtol=1e-6)


def test_what_makes_no_path_or_no_target_is_refused():
    class Ends(paths.FlowMatching):
        def beta(self, tau):
            return 0.9 * tau

    class BrownianODE(paths.FlowMatching):
        def gamma(self, tau):
            return 1 - tau

    cases = {
        "prediction=data: expected target, since gamma of Curved": lambda: Curved(prediction="data"),
        "prediction=noise: expected one of data, target": lambda: paths.FlowMatching(prediction="noise"),
        "data_scale=0.0: expected a number above 0": lambda: paths.InterpolantGaussian(data_scale=0.0),
        "Ends: expected alpha to go from 1 to 0, beta from 0 to 1": Ends,
        "BrownianODE.gamma: expected 0": BrownianODE,
    }
    for message, make in cases.items():
        with pytest.raises(UserError) as refused:
            make()
        assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
    for path in (Trigonometric, TrigonometricSDE, Curved):
        path(prediction="data" if path is not Curved else "target")


@pytest.mark.parametrize("name", PATHS | FORKS)
def test_target_from_exact_data_is_the_target_as_the_guess_becomes_certain(name, x64):
    path = ALL_PATHS[name]
    z, x, n = np.random.default_rng(0).normal(size=(3, 3, 5))
    tau = jnp.array([0.0, 0.4, 0.98])
    transit, target = jax.vmap(path.in_transit)(z, x, n, tau)
    # the share of x_tau / tau in the guess of x is (scale tau / (1 - tau))^2, and errs by up to |target| / (1 - tau)
    actual = dataclasses.replace(path, data_scale=1e-6).target_from_data(x, transit, tau)
    np.testing.assert_allclose(actual, target, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 0.4, 3.0])
def test_target_from_data_is_the_target_of_the_precision_weighted_guess(scale, x64):
    x_tau, data = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 1))
    tau = np.array([0.1, 0.5, 0.99])
    t = tau[:, None, None, None]
    precision_data, precision_transit = scale**-2, (t / (1 - t)) ** 2
    guess = (precision_data * data + precision_transit * x_tau / t) / (precision_data + precision_transit)
    actual = dataclasses.replace(PATHS["flow_matching"], data_scale=scale).target_from_data(data, x_tau, tau)
    np.testing.assert_allclose(actual, (guess - x_tau) / (1 - t), rtol=1e-10)
    # and back: on every path x = x_tau + (1 - tau) target
    np.testing.assert_allclose(x_tau + (1 - t) * actual, guess, rtol=1e-10)


def test_target_from_the_conditional_mean_is_the_best_drift_at_the_scale_of_the_spread(x64):
    path = PATHS["flow_matching"]
    _, condition = batch(5, 8)
    condition = condition.astype(float)
    x_tau = np.random.default_rng(1).normal(size=(5, 8))
    tau = jnp.array([0.0, 0.2, 0.6, 0.95, 1.0])  # finite at the end too
    actual = dataclasses.replace(path, data_scale=STD).target_from_data(mean_of(condition), x_tau, tau)
    np.testing.assert_allclose(actual, best_drift(path, condition)(x_tau, tau), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 0.4, 3.0])
@pytest.mark.parametrize("name", ["flow_matching", "trigonometric"])
def test_target_from_the_mean_of_gaussian_data_is_the_exact_expectation(name, scale, x64):
    """With x ~ Normal(m, scale^2) and z ~ Normal(0, 1), x_tau and target are jointly Gaussian: E[target | x_tau] is linear."""
    path = dataclasses.replace(ALL_PATHS[name], data_scale=scale)
    mean, x_tau = np.random.default_rng(3).normal(size=(2, 5, 4))
    tau = np.array([0.0, 0.2, 0.5, 0.9, 1.0])[:, None]
    if name == "trigonometric":
        alpha, beta = np.cos(np.pi / 2 * tau), np.sin(np.pi / 2 * tau)
        alpha_slope, beta_slope = -np.pi / 2 * beta, np.pi / 2 * alpha
    else:
        alpha, beta, alpha_slope, beta_slope = 1 - tau, tau, -1.0, 1.0
    covariance = alpha_slope * alpha + beta_slope * beta * scale**2
    expected = beta_slope * mean + covariance / (alpha**2 + beta**2 * scale**2) * (x_tau - beta * mean)
    np.testing.assert_allclose(
        path.target_from_data(mean, x_tau, jnp.asarray(tau[:, 0])), expected, rtol=1e-9, atol=1e-9
    )


# --- loss ---


def draws_of_loss(path, count=2000, size=50):
    """Keys, conditions and x | c."""
    keys, condition = batch(count, size)
    x = mean_of(condition) + STD * np.random.default_rng(1).normal(size=condition.shape).astype(np.float32)
    return keys, condition, x


@pytest.mark.parametrize("name", PATHS)
def test_loss_of_the_best_drift_is_the_conditional_variance_and_no_change_lowers_it(name):
    path = PATHS[name]
    keys, condition, x = draws_of_loss(path)
    best = best_drift(path, condition)

    @jax.jit
    def loss(offset, slope):
        return path.loss(lambda y, t: best(y, t) + offset + slope * y, keys, condition, x)[0]

    # E over tau of var(target) - cov^2 / var(x_tau), by the midpoint rule; for flow matching it is pi STD / 2
    tau = (np.arange(4000) + 0.5) / 4000
    variance, covariance, of_target = moments(path, tau)
    curve = of_target - covariance**2 / variance
    minimum = np.mean(curve)
    if name == "flow_matching":
        np.testing.assert_allclose(minimum, np.pi * STD / 2, rtol=1e-6)
    # an example's entries share tau (spread of `curve`); given tau, squares of normals have twice the squared mean
    error = np.sqrt((np.var(curve) + 2 * np.mean(curve**2) / condition.shape[1]) / len(keys))
    lowest = float(loss(0.0, 0.0))
    assert abs(lowest - minimum) < MANY * error
    # the residual is orthogonal to every function g of x_tau: a change e g of the drift costs e^2 mean(g^2), and nothing at
    # first order up to the deviation of the mean of residual times g
    e = 0.1
    for plus, minus in [(loss(e, 0.0), loss(-e, 0.0)), (loss(0.0, e), loss(0.0, -e))]:
        square = (plus + minus - 2 * lowest) / (2 * e**2)
        assert abs(plus - minus) / (4 * e) < MANY * np.sqrt(curve.max() * square / condition.size)
        assert lowest < min(plus, minus)


def test_loss_of_an_example_depends_on_its_own_key_and_pair():
    path = PATHS["interpolant_gaussian"]
    keys, condition, x = draws_of_loss(path, count=8, size=6)
    loss = jax.jit(lambda keys, c, x: path.loss(best_drift(path, c), keys, c, x)[0])
    parts = [loss(keys[i : i + 4], condition[i : i + 4], x[i : i + 4]) for i in (0, 4)]
    whole = loss(keys, condition, x)
    np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-5)
    np.testing.assert_allclose(loss(keys[::-1], condition[::-1], x[::-1]), whole, rtol=1e-5)
    assert abs(loss(keys[::-1], condition, x) / whole - 1) > 1e-3


# --- samplers ---


def spread_of_flow_matching(steps):
    """Deviation of Euler samples with the best drift, over STD: each step multiplies x - E x by 1 + h slope."""
    tau = np.arange(steps) / steps
    variance, covariance, _ = moments(PATHS["flow_matching"], tau)
    return np.prod(1 + covariance / variance / steps) / STD


def test_few_euler_steps_of_exact_flow_matching_lack_spread():
    # the share of the spread that is left; at two steps STD / (1 + STD^2)
    fractions = {1: 0.0, 2: 0.24, 4: 0.53, 5: 0.61, 10: 0.78, 50: 0.95}
    path = PATHS["flow_matching"]
    keys, condition = batch(64, 64)
    z = np.asarray(sources(path, keys, condition))
    sample = sampler(path, best_drift(path, condition), keys, condition)
    assert abs(spread_of_flow_matching(2) - STD / (1 + STD**2)) < 1e-12
    for steps, fraction in fractions.items():
        exact = spread_of_flow_matching(steps)
        assert abs(exact - fraction) < 0.03  # a latent's entries have several deviations, here one
        expected = mean_of(condition) + exact * STD * z
        np.testing.assert_allclose(sample(steps), expected, atol=2e-6 * np.sqrt(steps))


@pytest.mark.parametrize("name", ["interpolant_gaussian", "interpolant_empirical"])
@pytest.mark.slow
def test_interpolants_recover_mean_and_variance(name):
    path, steps = PATHS[name], 200
    keys, condition = batch(512, 64)
    sample = sampler(path, best_drift(path, condition), keys, condition, steps)
    deviation = np.asarray(sample(steps) - mean_of(condition)) / STD

    # the variance that Euler-Maruyama of this linear equation has, no noise in the last step
    variance, covariance, _ = moments(path, np.arange(steps) / steps)
    slope = covariance / np.where(variance == 0, 1.0, variance)
    discrete = variance[0]
    for k in range(steps):
        noise = path.gamma(k / steps) ** 2 / steps if k < steps - 1 else 0.0
        discrete = (1 + slope[k] / steps) ** 2 * discrete + noise
    error = np.sqrt(2 / deviation.size)
    assert abs(deviation.mean()) < MANY / np.sqrt(deviation.size)
    assert abs(deviation.var() / (discrete / STD**2) - 1) < MANY * error
    assert abs(discrete / STD**2 - 1) < 3 / (STD * steps)  # weak order one, stiffness 1 / STD at the end
    # entries and examples are independent
    assert abs(np.mean(deviation[:, 1:] * deviation[:, :-1])) < MANY / np.sqrt(deviation.size)
    assert abs(np.mean(deviation[1:] * deviation[:-1])) < MANY / np.sqrt(deviation.size)


@pytest.mark.parametrize("name", ["interpolant_gaussian", "interpolant_empirical"])
@pytest.mark.slow
def test_one_step_of_an_interpolant_is_the_source_moved_by_the_drift(name):
    path = PATHS[name]
    keys, condition = batch(4, 8)
    drift = best_drift(path, condition)
    z = sources(path, keys, condition)
    expected = z + drift(z, jnp.zeros(4))
    sample = sampler(path, drift, keys, condition)
    np.testing.assert_allclose(sample(1), expected, atol=1e-6)
    assert np.abs(sample(2) - expected).max() > 1e-2


def test_an_interpolant_adds_noise_in_all_steps_but_the_last():
    path = PATHS["interpolant_empirical"]
    keys, condition = batch(256, 64)
    sample = sampler(path, lambda x, tau: 0 * x, keys, condition, 3)
    for steps in (2, 3):
        end = sample(steps)
        # the sum of (1 - tau)^2 / steps over tau = 0, 1 / steps, ...; the last step's part would be 8 % more at three
        expected = sum((1 - k / steps) ** 2 / steps for k in range(steps - 1))
        np.testing.assert_allclose(np.mean((end - condition) ** 2), expected, rtol=MANY * np.sqrt(2 / condition.size))


@pytest.mark.parametrize("name", ["flow_matching", "interpolant_gaussian"])
def test_a_sample_depends_on_its_own_key_and_condition_only(name):
    path = PATHS[name]
    keys, condition = batch(6, 5)

    @jax.jit
    def sample(keys, condition):
        return path.sample(best_drift(path, condition), path.noise(keys, condition.shape[1:], 3), condition, 3)

    whole = np.asarray(sample(keys, condition))
    order = np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(sample(keys[order], condition[order]), whole[order], atol=1e-5)
    parts = np.concatenate([sample(keys[i : i + 2], condition[i : i + 2]) for i in (0, 2, 4)])
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert np.abs(sample(keys[order], condition) - whole).min(axis=1).max() > 1e-3


@pytest.mark.parametrize("name", ["flow_matching", "interpolant_gaussian"])
@pytest.mark.slow
def test_a_traced_number_of_steps_gives_what_a_static_one_gives(name):
    path = PATHS[name]
    keys, condition = batch(4, 8)

    def sample(steps):  # noise of just so many steps
        return path.sample(best_drift(path, condition), path.noise(keys, condition.shape[1:], steps), condition, steps)

    traced, static = sampler(path, best_drift(path, condition), keys, condition, 9), jax.jit(sample, static_argnums=0)
    for steps in (1, 7):
        np.testing.assert_allclose(traced(steps), static(steps), atol=1e-5)


def test_noise_that_does_not_suffice_is_refused():
    path = PATHS["interpolant_gaussian"]
    keys, condition = batch(4, 8)
    with pytest.raises(UserError, match="steps=4: the noise suffices for 3 sampler steps"):
        path.sample(lambda x, tau: x, path.noise(keys, (8,), 3), condition, 4)
    with pytest.raises(UserError, match="expected steps to be static"):
        jax.eval_shape(lambda steps: path.noise(keys, (8,), steps), 3)


def test_a_static_number_of_steps_can_be_differentiated(x64):
    path = PATHS["flow_matching"]
    keys, condition = batch(4, 8)
    condition = condition.astype(float)
    z, noise = sources(path, keys, condition), path.noise(keys, condition.shape[1:], 3)

    def mean_square(slope):
        return jnp.mean(path.sample(lambda x, tau: slope * x, noise, condition, 3) ** 2)

    # x_3 = (1 + slope / 3)^3 z
    expected = 2 * (1 + 0.5 / 3) ** 5 * np.mean(np.square(z))
    np.testing.assert_allclose(jax.jit(jax.grad(mean_square))(0.5), expected, rtol=1e-12)


# --- training ---


@pytest.mark.slow
def test_training_recovers_a_linear_gaussian_law():
    """x | c ~ Normal(slope c, STD^2): a linear field a c + b x_tau, trained as a guess of the data, must find a = slope, b = 0.

    By the exact target at data_scale = STD that is the minimum of the expected loss, and 50 Euler steps with the field give
    samples p c + q z, p and q by a recursion: p = slope, and q is that of `spread_of_flow_matching`.
    """
    slope, steps, count, size = 0.7, 50, 2000, 16
    path = paths.FlowMatching(prediction="data", data_scale=STD)
    keys, condition = batch(count, size)
    x = slope * condition + STD * np.random.default_rng(1).normal(size=condition.shape).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(weights):
        return path.loss(lambda x_tau, tau: weights[0] * condition + weights[1] * x_tau, keys, condition, x)[0]

    # the loss is quadratic in (a, b): its minimum by one step of Newton's method
    at_zero = np.asarray(gradient(jnp.zeros(2)), np.float64)
    hessian = np.stack([gradient(axis) - at_zero for axis in jnp.eye(2)]).astype(np.float64)
    weights = np.linalg.solve(hessian, -at_zero)
    # least squares: the estimate's covariance is at most 2 max(variance of the residual) Hessian^-1 / (numbers seen)
    variance, covariance, of_target = moments(path, np.linspace(0, 1, 400))
    residual = np.max(of_target - covariance**2 / variance)
    error = np.sqrt(2 * residual * np.diag(np.linalg.inv(hessian)) / condition.size)
    np.testing.assert_array_less(error, 0.02)
    np.testing.assert_array_less(np.abs(weights - [slope, 0]), MANY * error)

    def law(weights):
        p, q = jnp.array(0.0), jnp.array(1.0)
        for tau in np.arange(steps) / steps:
            width = (1 - tau) ** 2 + STD**2 * tau**2
            of_state, of_data = (STD**2 * tau - (1 - tau)) / width, (1 - tau) / width
            growth = 1 + (of_state + of_data * weights[1]) / steps
            p, q = growth * p + of_data * weights[0] / steps, growth * q
        return jnp.stack([p, q])

    trained = np.asarray(law(jnp.asarray(weights)))
    change = MANY * np.abs(jax.jacobian(law)(jnp.asarray(weights))) @ error
    np.testing.assert_array_less(np.abs(trained - [slope, spread_of_flow_matching(steps) * STD]), change + 1e-6)

    keys, condition = batch(count, size, seed=5)
    a, b = weights
    sample = np.asarray(sampler(path, lambda x_tau, tau: a * condition + b * x_tau, keys, condition)(steps))
    regression = np.mean(sample * condition) / np.mean(condition**2)
    left = sample - trained[0] * condition
    assert abs(regression - trained[0]) < MANY * trained[1] / np.sqrt(np.sum(condition**2))
    assert abs(left.mean()) < MANY * trained[1] / np.sqrt(left.size)
    assert abs(left.var() / trained[1] ** 2 - 1) < MANY * np.sqrt(2 / left.size)
