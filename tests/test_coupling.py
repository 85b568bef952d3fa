"""The closure inside the solver: rules for its noise in time against loops by hand and closed forms, and what they may carry."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax import random
from closure_jax.coupling import AR1, COUPLINGS, EnsembleMean, Extrapolated, Fresh, Held, Scaled, base, ensemble
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.draw import NoClosure, is_random
from closure_jax.errors import UserError, check
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral, stepper
from closure_jax.problems.kolmogorov import ExactLaw, StochasticFlow

pytestmark = pytest.mark.usefixtures("x64")
ROUNDING = 1e-12  # of double precision, after a few transforms
N, DT = 16, 2e-3
GRID = spectral.make_grid(N, 1.0)
FLOW = flow_lib.KolmogorovFlow(GRID, viscosity=2e-3)
STILL = flow_lib.KolmogorovFlow(GRID, viscosity=0.0, forcing_amplitude=0.0)
NOISE = noise_lib.QWienerNoise(GRID, sigma=5e-3, kappa=10.0, alpha=0.005, dt=DT)  # 100 times the published one
EXACT = ExactLaw(GRID, NOISE)
STATES, MEMBERS = 2, 3


def members(states=STATES, count=MEMBERS):
    """Keys (states, count) and smooth vorticity (states, count, N, N)."""
    radius = np.hypot(np.fft.fftfreq(N, 1 / N)[:, None], np.fft.rfftfreq(N, 1 / N)[None, :])
    field_hat = np.fft.rfft2(np.random.default_rng(3).standard_normal((states, count, N, N)))
    field = np.fft.irfft2(field_hat * ((radius > 0) & (radius <= 4)), s=(N, N))
    keys = jax.random.split(jax.random.key(0), states * count).reshape(states, count)
    return keys, jnp.asarray(2 * field / field.std(axis=(-2, -1), keepdims=True))


def coupled(draw, coupling, flow=FLOW, **changes):
    return Coupled(stepper.euler_maruyama(flow, DT), DT, draw, coupling, **changes)


def run(dynamics, keys, vorticity, start, steps, cut=None):
    """Vorticity after `steps`; with `cut`, the run is stopped and continued there."""
    advance = jax.jit(dynamics.advance, static_argnums=3)
    state = dynamics.begin(keys, vorticity)
    if cut is not None:
        state = advance(keys, state, start, cut)
        start, steps = start + cut, steps - cut
    return dynamics.vorticity(advance(keys, state, start, steps))


def ensemble_of(dynamics, vorticity, chunk):
    """Fields of a rollout of one time unit, which runs in single precision."""
    with jax.enable_x64(False):
        return ensemble.rollout(dynamics, np.float32(vorticity), jax.random.key(1), 1, "test", chunk).fields


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=ROUNDING * np.abs(expected).max())


# --- the rules that ship -----------------------------------------------------------------------------------------------


def test_a_draw_is_held_for_its_period():
    keys, w = members()
    period, start, steps = 3, 7, 9
    flat, closure = keys.reshape(-1), flow_lib.exact_closure(GRID, NOISE)
    sample = jax.jit(lambda number, state: closure(jax.vmap(lambda key: jax.random.fold_in(key, number))(flat), state))
    step = jax.jit(stepper.euler_maruyama(FLOW, DT))
    expected = spectral.to_fourier(w.reshape(-1, N, N))
    for number in range(start, start + steps):
        if (number - start) % period == 0:
            closure_hat = sample(number, expected)
        expected = step(expected, closure_hat)
    actual = run(coupled(EXACT, Held(period)), keys, w, start, steps)
    assert_same(actual.reshape(-1, N, N), spectral.to_physical(expected))


@pytest.mark.slow
def test_fresh_is_held_for_one_step_and_the_truth_is_the_exact_law_drawn_afresh():
    keys, w = members()
    fresh = run(coupled(EXACT, Fresh(white_noise=1e-3)), keys, w, 2, 6)
    np.testing.assert_array_equal(
        run(coupled(EXACT, Fresh()), keys, w, 2, 6), run(coupled(EXACT, Held(1)), keys, w, 2, 6)
    )
    assert np.abs(fresh - run(coupled(EXACT, Fresh()), keys, w, 2, 6)).max() > 1e-6
    truth = StochasticFlow(FLOW, NOISE, noise_lib.GaussianRandomField(GRID, 2.5, 7.0), N)
    assert_same(run(coupled(EXACT, Fresh()), keys, w, 2, 6), run(truth, keys, w, 2, 6))


def test_without_noise_a_coupled_run_is_the_bare_solver():
    keys, w = members()
    bare = stepper.STEPPERS["semi_implicit_euler"]
    for draw, flow in ((ExactLaw(GRID, None), FLOW.with_advection()), (NoClosure(), FLOW)):
        expected = jax.jit(stepper.repeated(bare(flow, DT), 10))(spectral.to_fourier(w))
        assert_same(run(coupled(draw, Fresh()), keys, w, 0, 10), spectral.to_physical(expected))
        assert not is_random(draw, N)
    assert is_random(EXACT, N)


@pytest.mark.slow
def test_a_run_may_be_cut_anywhere_and_members_do_not_meet():
    keys, w = members()
    dynamics = coupled(EXACT, Held(2, white_noise=1e-2))
    whole = run(dynamics, keys, w, 4, 12)
    assert_same(run(dynamics, keys, w, 4, 12, cut=6), whole)
    assert_same(run(dynamics, keys[::-1, ::-1], w[::-1, ::-1], 4, 12), whole[::-1, ::-1])
    other_noise = run(dynamics, keys, w, 5, 12)
    assert np.abs(other_noise - whole).max() > 1e-3 * np.abs(whole).max()


def test_white_noise_has_its_deviation_and_depends_on_member_and_step():
    keys, w = members(8, 8)
    rule = Fresh(white_noise=0.3)
    first, _ = rule.closure(NoClosure(), (), keys, 0, w)
    second, _ = rule.closure(NoClosure(), (), keys, 1, w)
    flat = np.stack([first, second]).reshape(2, -1)  # 16,384 numbers each
    error = 5 / np.sqrt(flat.shape[1])
    np.testing.assert_allclose(flat.std(axis=1) / 0.3, 1, atol=error)
    assert abs(np.corrcoef(flat)[0, 1]) < error and abs(np.corrcoef(flat[0], np.roll(flat[0], N * N))[0, 1]) < error


@pytest.mark.parametrize("rule", [Held(4, white_noise=1e-2), EnsembleMean(4, white_noise=1e-2)])
def test_published_white_noise_is_added_anew_to_what_is_held_at_each_further_step(rule):
    keys, w = members()
    step, w_hat = stepper.euler_maruyama(FLOW, DT), spectral.to_fourier(w)
    for number in range(8):
        if number % 4 == 0:
            closure, _ = rule.closure(EXACT, (), keys, number, spectral.to_physical(w_hat))
        else:
            closure, _ = closure + Fresh(white_noise=1e-2).closure(NoClosure(), (), keys, number, w)[0], None
        w_hat = step(w_hat, spectral.to_fourier(closure))
    assert_same(run(coupled(EXACT, rule), keys, w, 0, 8), spectral.to_physical(w_hat))
    assert rule.between() is not None and dataclasses.replace(rule, white_noise=0.0).between() is None


def test_members_that_all_get_the_mean_of_their_draws_do_not_spread():
    keys, w = members(2, 6)
    w = jnp.broadcast_to(w[:, :1], w.shape)
    mean, own = (run(coupled(EXACT, rule), keys, w, 0, 20) for rule in (EnsembleMean(5), Held(5)))
    assert EnsembleMean.crosses_members and not Held.crosses_members
    assert np.std(mean, axis=1).max() < 1e-6 < 1e-4 < np.std(own, axis=1).max()
    # the noise of the mean of six draws; the next periods differ by what the noise did to the states
    np.testing.assert_allclose(mean[:, 0], np.mean(own, axis=1), atol=0.1 * np.std(own, axis=1).max())


def test_the_variance_of_held_noise_grows_by_the_period():
    # only noise acts, so that w is its sum: variance (steps / period) (period dt)^2 var(H)
    steps, count = 20, 128
    keys, _ = members(1, count)

    class NoiseAlone(ExactLaw):
        def draw(self, noise, vorticity):
            return spectral.to_physical(jax.vmap(NOISE.field_hat)(noise))

    for period in (1, 5):
        w = run(coupled(NoiseAlone(GRID, NOISE), Held(period), STILL), keys, jnp.zeros((1, count, N, N)), 0, steps)
        expected = steps * period * DT**2 * NOISE.standard_deviation() ** 2
        # a field has about 1 / (2 pi alpha) = 32 independent modes: deviation of the estimate sqrt(2 / 4096) = 2.2 %
        np.testing.assert_allclose(np.mean(w**2), expected, rtol=0.1)


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """H = -rate w + amplitude z, z standard normal at each point: each mode is an Ornstein-Uhlenbeck process."""

    rate: float
    amplitude: float

    def noise(self, keys, vorticity):
        return jax.vmap(lambda key: random.normal(key, vorticity.shape[1:], vorticity.dtype))(keys)

    def draw(self, noise, vorticity):
        return self.amplitude * noise - self.rate * vorticity

    def mean(self, vorticity):
        return -self.rate * vorticity


@pytest.mark.slow
def test_a_linear_closure_gives_modes_of_the_stationary_variance():
    # with r = (1 - h) / (1 + h), h = dt nu k^2 / 2, s = dt / (1 + h) (1 + r + ... + r^(p - 1)), a mode at ends of periods is
    # the autoregression w' = (r^p - s rate) w + s amplitude z, whose stationary variance is (s amplitude)^2 / (1 - a^2)
    dt, nu, rate, amplitude, count = 0.05, 0.02, 2.0, 0.7, 400
    flow = flow_lib.KolmogorovFlow(GRID, nu, forcing_amplitude=0.0)
    kx, ky = np.meshgrid(np.fft.fftfreq(N, 1 / N), np.fft.rfftfreq(N, 1 / N), indexing="ij")
    h = dt * nu * (2 * np.pi) ** 2 * (kx**2 + ky**2) / 2
    r = (1 - h) / (1 + h)
    keys = jax.random.split(jax.random.key(5), count)[None]
    for rule in (Fresh(), Held(4)):
        period = rule.period
        s = dt / (1 + h) * sum(r**j for j in range(period))
        a = r**period - s * rate
        expected = (s * amplitude) ** 2 / (1 - a**2) * N**2  # of |w_hat|^2: N^2 for white noise at the points
        dynamics = Coupled(stepper.euler_maruyama(flow, dt), dt, Relaxation(rate, amplitude), rule)
        w = run(dynamics, keys, jnp.zeros((1, count, N, N)), 0, 80)  # 8 relaxation times: e^-16 of the start is left
        power = np.mean(np.abs(np.fft.rfft2(w[0])) ** 2, axis=0)
        # |w_hat|^2 is exponential, or chi-square of one degree on the real modes: deviation at most sqrt(2 / count)
        np.testing.assert_allclose(power / expected, 1, atol=5 * np.sqrt(2 / count))
        assert np.abs(np.mean(power / expected) - 1) < 5 * np.sqrt(2 / (count * N * (N // 2 + 1)))


def test_impossible_rules_are_refused(unchecked):
    cases = [(Held, {"period": 0}), (Held, {"period": -3}), (Held, {"white_noise": -1.0})]
    cases += [(Fresh, {"white_noise": float("nan")}), (Held, {"white_noise": float("inf")})]
    cases += [(rule, {"period": value}) for rule in (Held, AR1, Scaled) for value in (2.5, "a", True, None)]
    cases += [(Held, {"white_noise": "a"}), (AR1, {"correlation_steps": "a"})]
    for rule, fields in cases:
        ((name, value),) = fields.items()
        with pytest.raises(UserError, match=f"^{name}={value}: expected "):
            rule(**fields)
    assert {name: COUPLINGS[name]().period for name in ("held", "fresh")} == {"held": 5, "fresh": 1}
    with pytest.raises(UserError, match="^period=7: expected a divisor of the steps in one time unit, 1 / dt = 500"):
        ensemble.rollout(coupled(NoClosure(), Held(7)), np.zeros((1, 1, N, N)), jax.random.key(0), 1, "refused")


def test_wrong_calls_of_the_coupled_solver_are_refused_in_one_line_also_under_jit(unchecked):
    keys, w = members()
    closed = coupled(EXACT, Held(5))
    state, begin = closed.begin(keys, w), jax.jit(closed.begin)
    old = jax.random.split(jax.random.PRNGKey(0), (STATES, MEMBERS))

    class OfOneGrid(ExactLaw):
        def noise(self, keys, vorticity):
            check(vorticity.shape[1:] == (N, N), "another grid")
            return super().noise(keys, vorticity)

    cases = {
        "draw=NoneType: expected a closure": lambda: coupled(None, Held(5)),
        "draw=NoClosure: expected a closure": lambda: coupled(NoClosure, Held(5)),
        "coupling=str: expected a rule": lambda: coupled(EXACT, "held"),
        "coupling=Held: expected a rule": lambda: coupled(EXACT, Held),
        "step=None: expected step(": lambda: Coupled(None, DT, EXACT, Held(5)),
        "vorticity of shape (3, 16, 16): expected (state, member, n, n)": lambda: begin(keys, w[0]),
        "vorticity of shape (2, 3, 16, 8): expected (state, member": lambda: closed.begin(keys, w[..., :8]),
        "vorticity of shape (2, 3, 8, 8): expected fields of the solver's grid": lambda: begin(keys, w[..., :8, :8]),
        "another grid": lambda: coupled(OfOneGrid(GRID, NOISE), Held(5)).begin(keys, w[..., :8, :8]),
        "vorticity of type int": lambda: begin(keys, w.astype(int)),
        "vorticity of type list": lambda: closed.begin(keys, [w]),
        "keys of shape (6,): expected one for each member, (2, 3)": lambda: begin(keys.reshape(-1), w),
        "keys of shape (2,): expected": lambda: closed.advance(keys[:, 0], state, 0, 5),
        "keys of type uint32: expected those of jax.random.key": lambda: begin(old, w),
        "key of type int: expected a random key": lambda: closed.begin(0, w),
        "steps=12: expected a static number of solver steps that is a multiple of the period, 5": lambda: (
            closed.advance(keys, state, 0, 12)
        ),
        "steps=-5: expected a static number": lambda: closed.advance(keys, state, 0, -5),
        "steps=JitTracer": lambda: jax.jit(closed.advance)(keys, state, 0, 5),
    }
    for message, call in cases.items():
        with pytest.raises(UserError) as refused:
            call()
        assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.slow
def test_gradient_of_a_coupled_run_is_that_of_finite_differences():
    keys, w = members()
    weights = w[0, 0]
    for rule in (Held(2), Fresh(), Scaled(2), Scaled(2, "own"), Extrapolated(2), AR1(2, 3.0)):

        def loss(inputs, rule=rule):
            amplitude, viscosity, sigma = inputs
            flow = flow_lib.KolmogorovFlow(GRID, viscosity)
            end = run(coupled(Louder(GRID, NOISE, sigma), rule, flow, remat=True), keys, amplitude * w, 0, 10)
            return jnp.mean(end**2) + jnp.mean(weights * end)

        inputs = np.array([1.3, 2e-2, 2.0])
        gradient = jax.jit(jax.grad(loss))(inputs)
        value = jax.jit(loss)
        for i in range(3):
            # truncation h^2 and rounding eps / h, both near 1e-9 of the value at h = 3e-5
            h = 3e-5 * inputs[i] * np.eye(3)[i]
            difference = (value(inputs + h) - value(inputs - h)) / (2 * h[i])
            np.testing.assert_allclose(gradient[i], difference, rtol=1e-6, err_msg=str(rule))


@dataclasses.dataclass(frozen=True)
class Louder(ExactLaw):
    """The exact law with its noise times a factor, which may be traced."""

    factor: Any = 1.0

    def draw(self, noise, vorticity):
        return super().draw(self.factor * noise, vorticity)


@pytest.mark.slow
def test_cuts_and_chunks_change_nothing_whatever_a_rule_carries():
    keys, w = members()
    held = run(coupled(EXACT, Held(2)), keys, w, 4, 12)
    for rule in (Scaled(2), AR1(2, 20.0), AR1(2, 0.0)):
        dynamics = coupled(EXACT, rule)
        whole = run(dynamics, keys, w, 4, 12)
        assert_same(run(dynamics, keys, w, 4, 12, cut=6), whole)
        assert np.abs(held - whole).max() > 1e-3 * np.abs(whole).max()
        slow = dataclasses.replace(dynamics, dt=0.02, step=stepper.euler_maruyama(FLOW, 0.02))
        together, cut = (ensemble_of(slow, w, chunk) for chunk in (6, 2))
        np.testing.assert_allclose(cut, together, atol=1e-5 * np.abs(together).max())


def test_a_carried_noise_has_its_correlation_in_time():
    a, count, periods = 0.6, 64, 3
    rule, draw = AR1(2, -2 / np.log(a)), Relaxation(0.0, 1.0)
    keys = jax.random.split(jax.random.key(2), count)[None]
    w = jnp.zeros((1, count, N, N))
    carry, closures = rule.begin(draw, keys, w), []
    for period in range(periods):
        closure, carry = rule.closure(draw, carry, keys, rule.period * period, w)
        closures.append(np.asarray(closure).ravel() / rule.factor)
    error = 5 / np.sqrt(count * N * N)
    expected = a ** np.abs(np.subtract.outer(np.arange(periods), np.arange(periods)))
    np.testing.assert_allclose(np.cov(closures), expected, atol=np.sqrt(2) * error)


# --- rules that a fork may bring ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MemberMean:
    """Every member gets the mean of the draws of its state's members."""

    period: int = 1
    crosses_members: ClassVar[bool] = True

    def fit(self, draw, windows):
        return self

    def begin(self, draw, keys, vorticity):
        return ()

    def closure(self, draw, carry, keys, number, vorticity):
        noise = base.draw_noise(draw, base.keys_of_step(keys, number), vorticity)
        fields = base.draw_closure(draw, noise, vorticity)
        return jnp.broadcast_to(fields.mean(axis=1, keepdims=True), fields.shape), carry


def test_a_rule_across_members_sees_whole_states_whatever_the_chunk():
    _, w = members()
    dynamics = coupled(EXACT, MemberMean())
    dynamics = dataclasses.replace(dynamics, dt=0.02, step=stepper.euler_maruyama(STILL, 0.02))
    fields = ensemble_of(dynamics, w, chunk=2)
    moved = fields[-1] - fields[0]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-5 * np.abs(moved).max())
    assert np.abs(moved[0] - moved[1]).max() > 0.1 * np.abs(moved).max()  # states do not meet


@pytest.mark.parametrize(
    ("instantaneous", "rule", "order"), [(False, Held(1), 1), (True, Held(1), 2), (True, Extrapolated(4), 2)]
)
def test_the_closure_of_an_instant_is_followed_to_second_order(instantaneous, rule, order):
    # dw/dt = -w from 1, all of it by the closure; the rule makes up for what holding costs, and the solver for the step
    keys = jax.random.split(jax.random.key(0), 1)[None]

    def error(dt):
        def step(vorticity_hat, closure_hat):
            return vorticity_hat + dt * closure_hat

        closed = Coupled(step, dt, Relaxation(1.0, 0.0), rule, instantaneous=instantaneous)
        steps = round(0.96 / dt)
        w = run(closed, keys, jnp.ones((1, 1, N, N)), 0, steps, cut=steps // 2)
        return abs(float(w[0, 0, 0, 0]) - np.exp(-0.96))

    assert np.log2(error(0.02) / error(0.01)) == pytest.approx(order, abs=0.2)
