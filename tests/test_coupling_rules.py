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
from closure_jax.coupling import COUPLINGS, Fresh, Held, Scaled
from closure_jax.coupling.advance import Coupled
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
    cases = [(Fresh(), 1), (Held(5), 5), (Held(20), 20), (Scaled(5), 1), (Scaled(20), 1), (Scaled(5, "own"), 1)]
    for rule, over_truth in cases:
        w = end(draw, rule, steps, count) - steps * DT * draw.drift
        assert np.mean(w**2) / (truth * over_truth) == pytest.approx(1, abs=ERRORS * standard_error(w)), rule


def test_a_scaled_draw_keeps_its_mean_and_has_a_period_th_of_its_variance():
    draw, period, (keys, w) = Linear(rate=2.0, drift=1.0), 5, members(64)
    for mean in ("antithetic", "own"):
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
    for rule in (Held(1), Scaled(1), Scaled(1, "own")):
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


# --- refusals --------------------------------------------------------------------------------------------------------


def test_impossible_rules_are_refused_in_one_line():
    for rule, fields in [(Scaled, {"period": 0}), (Scaled, {"mean": "exact"})]:
        ((name, value),) = fields.items()
        with pytest.raises(UserError, match=f"^{name}={value}: expected .*$"):
            rule(**fields)
    assert COUPLINGS["scaled"]() == Scaled(5, "antithetic")


def test_a_mean_that_a_draw_does_not_have_is_refused():
    keys, w = members(2)
    secret = Linear(secret=True)
    for rule in (Scaled(5, "own"), Scaled(1, "own")):
        for use in (rule.begin, lambda draw, keys, w, rule=rule: rule.closure(draw, (), keys, 0, w)):
            with pytest.raises(UserError, match="^mean=own: expected a draw that knows .*; mean=antithetic takes .*$"):
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
