"""The noise of each coupling rule: the variance that it accumulates, in closed form, and the spread of the true flow.

The solver here only adds up its closure, w' = w + dt H, so that after K periods of s steps w is s dt (x_1 + ... + x_K), x_k the
fields that the rule gave. Each point of each member is an independent sum: n of them estimate a variance of Gaussians with the
relative standard error sqrt(2 / n).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax import random
from closure_jax.coupling import AR1, COUPLINGS, Extrapolated, Fresh, Held, Scaled
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.base import Windows
from closure_jax.coupling.draw import NoClosure
from closure_jax.errors import UserError
from closure_jax.physics import spectral
from closure_jax.problems.kolmogorov import Kolmogorov

pytestmark = pytest.mark.usefixtures("x64")
N, DT = 8, 0.01
ERRORS = 5  # standard errors that a correct estimate may be off


@dataclasses.dataclass(frozen=True)
class Linear:
    """H = drift - rate w + amplitude (z + even (z^2 - 1)), z standard normal at each point; its mean may be kept secret."""

    rate: float = 0.0
    amplitude: float = 0.7
    drift: float = 0.0
    even: float = 0.0
    secret: bool = False

    @property
    def linear_in_noise(self):
        return self.even == 0 and not self.secret

    def noise(self, keys, vorticity):
        return {"z": jax.vmap(lambda key: random.normal(key, vorticity.shape[1:], vorticity.dtype))(keys)}

    def draw(self, noise, vorticity):
        z = noise["z"]
        return self.drift - self.rate * vorticity + self.amplitude * (z + self.even * (z**2 - 1))

    def mean(self, vorticity):
        return None if self.secret else self.drift - self.rate * vorticity


def members(count, n=N):
    return jax.random.split(jax.random.key(7), count)[None], jnp.zeros((1, count, n, n))


def end(draw, rule, steps, count, dt=DT, step=None):
    """Vorticity (count, N, N) after `steps` from 0."""
    keys, w = members(count)
    dynamics = Coupled(step or (lambda w_hat, closure_hat: w_hat + dt * closure_hat), dt, draw, rule)
    state = jax.jit(dynamics.advance, static_argnums=3)(keys, dynamics.begin(keys, w), 0, steps)
    return np.asarray(dynamics.vorticity(state))[0]


def closure_of(rule, draw, keys, w, number=3):
    """The closure of the period from step `number`."""
    return np.asarray(jax.jit(lambda w: rule.closure(draw, rule.begin(draw, keys, w), keys, number, w)[0])(w))


def standard_error(fields):
    """Relative, of the variance of independent Gaussians with a known mean."""
    return np.sqrt(2 / fields.size)


def variance_of_sums(periods, correlation=0.0):
    """Of z_1 + ... + z_K, standard normal with the autocorrelation a^|i - j|: the formula of docs/coupling.md."""
    a = correlation
    return periods * (1 + a) / (1 - a) - 2 * a * (1 - a**periods) / (1 - a) ** 2


# --- accumulated variance --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_accumulated_variance_of_white_rules_is_their_formula():
    steps, count, draw = 40, 64, Linear(drift=0.3)
    truth = steps * DT**2 * draw.amplitude**2
    cases = [
        (Fresh(), 1),
        (Held(5), 5),
        (Held(20), 20),
        (Scaled(5), 1),
        (Scaled(20), 1),
        (Scaled(5, "own"), 1),
        (Scaled(5, "linear"), 1),
    ]
    for rule, over_truth in cases:
        w = end(draw, rule, steps, count) - steps * DT * draw.drift
        assert np.mean(w**2) / (truth * over_truth) == pytest.approx(1, abs=ERRORS * standard_error(w)), rule


@pytest.mark.slow
def test_extrapolated_draws_add_the_variance_of_their_formula():
    # a draw weighs 1 + a in its own period and -a in the next, 1 in all; the first one 1 - a in all, the last one 1 + a
    steps, draw = 60, Linear(drift=0.3)
    for period, count in ((1, 64), (5, 64), (20, 256)):
        w = end(draw, Extrapolated(period, "linear"), steps, count) - steps * DT * draw.drift
        a, periods = (period - 1) / (2 * period), steps // period
        expected = steps * DT**2 * draw.amplitude**2 * (1 + 2 * a**2 / periods)
        assert np.mean(w**2) / expected == pytest.approx(1, abs=ERRORS * standard_error(w)), period


@pytest.mark.slow
def test_extrapolated_draws_follow_a_mean_that_changes_to_second_order():
    draw = Linear(rate=2.0, drift=1.0, amplitude=0.0)
    fresh = end(draw, Fresh(), 160, 1)
    for mean in ("antithetic", "own", "linear"):
        for rule, order in ((Scaled, 1), (Extrapolated, 2)):
            errors = [np.abs(end(draw, rule(period, mean), 160, 1) - fresh).max() for period in (4, 8, 16)]
            # from 4 to 16 steps, and not 1: the error of a period is that of its delay, (s - 1) / 2 steps
            assert np.log(errors[2] / errors[1]) / np.log(15 / 7) == pytest.approx(order, abs=0.35), (mean, errors)
            assert errors[2] < (0.1, 0.02)[order - 1]


def test_an_extrapolated_run_may_be_cut_at_any_period():
    draw, rule, (keys, w) = Linear(rate=2.0), Extrapolated(5, "linear"), members(3)
    dynamics = Coupled(lambda w_hat, closure_hat: w_hat + DT * closure_hat, DT, draw, rule)
    begun = dynamics.begin(keys, w)
    half = dynamics.advance(keys, begun, 0, 10)
    whole, again = dynamics.advance(keys, begun, 0, 20), dynamics.advance(keys, half, 10, 10)
    np.testing.assert_allclose(dynamics.vorticity(again), dynamics.vorticity(whole), atol=1e-12)


def test_a_scaled_draw_keeps_its_mean_and_has_a_period_th_of_its_variance():
    draw, period, (keys, w) = Linear(rate=2.0, drift=1.0), 5, members(64)
    for mean in ("antithetic", "own", "linear"):
        closure, unscaled = (closure_of(rule, draw, keys, w + 0.2) for rule in (Scaled(period, mean), Held(period)))
        conditional = draw.drift - draw.rate * 0.2
        np.testing.assert_allclose(closure - conditional, (unscaled - conditional) / np.sqrt(period), atol=1e-12)


def test_an_antithetic_pair_holds_the_even_part_of_the_noise_unscaled():
    # variance of z + b (z^2 - 1) is 1, odd, and 2 b^2, even
    steps, period, count, b = 40, 5, 256, 0.6
    for mean, of_even in (("antithetic", period), ("own", 1)):
        w = end(Linear(amplitude=1.0, even=b), Scaled(period, mean), steps, count)
        expected = steps * DT**2 * (1 + of_even * 2 * b**2)
        # the sums are no Gaussians: the error of their mean square is taken from them
        error = np.std(w**2) / np.sqrt(w.size)
        assert np.mean(w**2) == pytest.approx(expected, abs=ERRORS * error), mean


def test_rules_of_one_step_are_fresh():
    draw, (keys, w) = Linear(rate=1.0), members(3)
    expected = closure_of(Fresh(), draw, keys, w)
    for rule in (Held(1), Scaled(1), Scaled(1, "own"), Extrapolated(1), AR1(1, 0.0), AR1(1, 0.0, "own")):
        np.testing.assert_array_equal(closure_of(rule, draw, keys, w), expected)
    assert np.std(expected) > 0.1


def test_without_noise_nothing_is_scaled():
    assert not np.any(end(NoClosure(), Scaled(5), 10, 2))


@pytest.mark.slow
def test_the_spread_of_an_ornstein_uhlenbeck_mode_is_right_at_any_period():
    # at ends of periods w' = (1 - s dt rate) w + c s dt amplitude z: stationary variance (c s dt amplitude)^2 / (1 - r^2), which
    # for c = 1 / sqrt(s) is dt amplitude^2 / (2 rate), that of the continuous process, times 1 / (1 - s dt rate / 2)
    rate, amplitude, dt, count = 2.0, 0.7, 2e-3, 128
    continuous = dt * amplitude**2 / (2 * rate)
    for period in (1, 5, 20):
        w = end(
            Linear(rate, amplitude), Scaled(period), 2_000, count, dt
        )  # 8 relaxation times: e^-16 of the start is left
        expected = continuous / (1 - period * dt * rate / 2)
        assert np.mean(w**2) / expected == pytest.approx(1, abs=ERRORS * standard_error(w)), period
        assert np.std(w) / np.sqrt(continuous) == pytest.approx(
            1, abs=period * dt * rate / 2 + ERRORS * standard_error(w) / 2
        )


# --- noise with a memory ---------------------------------------------------------------------------------------------


def test_the_variance_of_correlated_sums_is_the_sum_over_all_pairs():
    for periods, correlation in [(1, 0.5), (2, 0.0), (7, 0.3), (40, 0.95)]:
        lags = np.abs(np.subtract.outer(np.arange(periods), np.arange(periods)))
        assert variance_of_sums(periods, correlation) == pytest.approx(np.sum(correlation**lags), rel=1e-12)


def test_the_factor_gives_the_growth_of_noise_that_is_drawn_each_step():
    def growth(rule):  # of the variance, a step, in units of (dt sigma)^2: the slope of c^2 s^2 variance_of_sums(K) / s
        a, s = rule.correlation, rule.period
        return rule.factor**2 * s * (1 + a) / (1 - a)

    for steps in (0.0, 0.1, 2.0, 30.0, 1e4):
        truth = AR1(1, steps)
        assert truth.factor == 1
        for period in (2, 5, 20):
            rule = AR1(period, steps)
            assert growth(rule) == pytest.approx(growth(truth), rel=1e-9)
            assert rule.correlation == pytest.approx(truth.correlation**period, abs=1e-15)
    assert AR1(5, 0.0).factor == Scaled(5).factor and AR1(5, 1e-300).factor == Scaled(5).factor
    # far below the correlation time nothing is scaled: c^2 = 1 - (s^2 - 1) / (12 T^2) + O(T^-4)
    assert 1 - AR1(5, 100.0).factor ** 2 == pytest.approx(24 / 12 / 100**2, rel=1e-3)


@pytest.mark.slow
def test_the_accumulated_variance_of_carried_noise_is_its_formula():
    steps, correlation_steps, draw = 200, 8.0, Linear(drift=0.3)
    truth = variance_of_sums(steps, np.exp(-1 / correlation_steps))
    for period, count in ((1, 64), (5, 128), (20, 128)):
        rule = AR1(period, correlation_steps)
        w = (end(draw, rule, steps, count) - steps * DT * draw.drift) / (DT * draw.amplitude)
        expected = rule.factor**2 * period**2 * variance_of_sums(steps // period, rule.correlation)
        assert np.mean(w**2) / expected == pytest.approx(1, abs=ERRORS * standard_error(w)), period
        # both grow alike; what they differ by is a constant, (s^2 - 1) / 3 for T far above s, and less below
        assert -1e-9 <= expected - truth <= (period**2 - 1) / 3 + 1e-9


def windows_of(series, mean=0.0, interval=0.1, dt=0.01):
    """Windows of the closure `series` (window, time, n, n) at vorticity 0."""
    return Windows(np.zeros_like(series), series + mean, interval, dt)


def correlated(shape, correlation, rng):
    """Standard normal, AR(1) along axis 1."""
    noise = rng.standard_normal(shape)
    for i in range(1, shape[1]):
        noise[:, i] = correlation * noise[:, i - 1] + np.sqrt(1 - correlation**2) * noise[:, i]
    return noise


def test_the_fit_finds_the_correlation_of_the_residual():
    rng, shape = np.random.default_rng(0), (32, 8, N, N)
    draws = Linear(drift=0.3), Linear(drift=0.3, secret=True), Linear(drift=0.3, secret=True, even=0.6)
    for correlation in (0.6, 0.95):
        series = draws[0].amplitude * correlated(shape, correlation, rng)
        for draw in draws:
            fitted = AR1(5).fit(draw, windows_of(series, draw.drift))
            found = np.exp(-10 / fitted.correlation_steps)  # 10 steps are an interval
            # 4 antithetic pairs leave the mean the variance 2 even^2 / 4 of the residual's; n products of two such residuals
            error = (1 + draw.even**2 / 2) / np.sqrt(32 * 7 * N * N)
            assert found == pytest.approx(correlation, abs=ERRORS * error), (correlation, draw)
            assert fitted.correlation == pytest.approx(np.sqrt(found)) and fitted == fitted.fit(
                draw, windows_of(series)
            )
    assert AR1(5, 3.0).fit(draws[0], windows_of(series)) == AR1(5, 3.0)


def test_white_residuals_are_fitted_as_white():
    rng, shape, draw = np.random.default_rng(1), (32, 8, N, N), Linear(drift=0.3, secret=True)
    white = draw.amplitude * rng.standard_normal(shape)
    lasting = draw.amplitude * 0.3 * rng.standard_normal((32, 1, N, N))  # an error of the mean, the same all the time
    fleeting = draw.amplitude * correlated(shape, 0.1, rng)  # significant, and too little to be told from such an error
    for series in (white, white + lasting, fleeting[:6], 0 * white):
        fitted = AR1(5).fit(dataclasses.replace(draw, amplitude=0.7 * np.any(series)), windows_of(series, draw.drift))
        assert fitted.correlation_steps == 0 and fitted.correlation == 0 and fitted.factor == Scaled(5).factor


# --- refusals --------------------------------------------------------------------------------------------------------


def test_impossible_rules_are_refused_in_one_line():
    cases = [(rule, fields) for rule in (Scaled, AR1) for fields in ({"period": 0}, {"mean": "exact"})]
    for rule, fields in [*cases, (AR1, {"correlation_steps": -2.0}), (AR1, {"correlation_steps": float("inf")})]:
        ((name, value),) = fields.items()
        with pytest.raises(UserError, match=f"^{name}={value}: expected .*$"):
            rule(**fields)
    assert COUPLINGS["scaled"]() == Scaled(5, "antithetic") and COUPLINGS["ar1"]() == AR1(5, -1.0, "antithetic")
    draw, (keys, w) = Linear(), members(2)
    with pytest.raises(UserError, match="^correlation_steps=-1: expected the rule to be fitted .*$"):
        AR1().begin(draw, keys, w)
    short = windows_of(np.zeros((1, 4, N, N))), windows_of(np.zeros((4, 2, N, N))), windows_of(np.ones((4, 3, N, N)))
    for windows, what in zip(short, ("1 training traj", "4 training traj", "the residual's autocorr"), strict=True):
        with pytest.raises(
            UserError, match=f"^correlation_steps=-1: {what}.* expected .*; give a number of solver steps.*$"
        ):
            AR1().fit(draw, windows)


def test_a_mean_that_a_draw_does_not_have_is_refused():
    keys, w = members(2)
    secret = Linear(secret=True)
    expected = {
        "own": "^mean=own: expected a draw that knows .*; mean=antithetic takes .*$",
        "linear": "^mean=linear: expected a draw that is linear in its noise.*; mean=antithetic takes .*$",
    }
    for rule in (
        make(mean)
        for mean in expected
        for make in (lambda m: Scaled(5, m), lambda m: Scaled(1, m), lambda m: AR1(5, 2.0, m))
    ):
        carry = rule.begin(Linear(), keys, w)
        for use in (rule.begin, lambda draw, keys, w, rule=rule, carry=carry: rule.closure(draw, carry, keys, 0, w)):
            with pytest.raises(UserError, match=expected[rule.mean]):
                use(secret, keys, w)
    assert Scaled(5).begin(secret, keys, w) == ()


# --- the true flow ---------------------------------------------------------------------------------------------------


def kolmogorov():
    """The flow at 32^2, its noise as published, and members that start from one developed-looking state."""
    problem, count = Kolmogorov(stored_resolution=32, resolution=32), 128
    with jax.enable_x64(False):
        system = problem.truth()
        state = system.vorticity(system.initial(jax.random.split(jax.random.key(2), 1)))
    w = jnp.broadcast_to(jnp.asarray(state, float)[:, None], (1, count, 32, 32))
    return problem, w


@pytest.mark.slow
def test_the_exact_law_gives_the_true_spread_fresh_and_scaled_and_too_much_held():
    problem, w = kolmogorov()
    solver, truth, steps, period, count = problem.solver(), problem.truth(), 60, 5, w.shape[1]

    def variance(dynamics, seed):
        keys = jax.random.split(jax.random.key(seed), count)[None]
        state = jax.jit(dynamics.advance, static_argnums=3)(keys, dynamics.begin(keys, w), 0, steps)
        return float(np.mean(np.var(np.asarray(dynamics.vorticity(state)), axis=1, ddof=1)))

    # a shell of m modes carries its power p; the variance of each mode is estimated with the relative error sqrt(2 / dof)
    power = problem.law(np.zeros((1, 32, 32), np.float32)).spectrum
    shell, weight = spectral.shells(32)
    modes = np.bincount(shell.ravel(), weight.ravel())[: len(power)]  # independent real numbers in a shell
    error = np.sqrt(2 / (count - 1) * np.sum(power**2 / modes)) / np.sum(power)
    true = variance(truth, 0)
    rules = [(Fresh(), 1), (Scaled(period), 1), (Scaled(period, "own"), 1), (Held(period), period)]
    for seed, (rule, expected) in enumerate(rules, start=1):
        found = variance(Coupled(solver.step, solver.dt, problem.exact(), rule), seed) / true
        assert found / expected == pytest.approx(1, abs=ERRORS * np.sqrt(2) * error), rule
