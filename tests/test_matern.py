"""Noise with a memory by scale, and the drag that balances it: the process, its fit, and what it leaves of a mode's variance."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.coupling import Matern, NoClosure, matern
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.base import Windows
from closure_jax.errors import UserError
from closure_jax.physics import spectral
from tests.test_coupling_rules import Linear, members

pytestmark = pytest.mark.usefixtures("x64")
N = 8
SHELLS = spectral.shells(N)[0].max() + 1


def of_process(steps):
    """Its matrices A and L: (z, y) a step later is A (z, y) + L (u, v)."""
    a, b, c, d, p, q, r = (value.item() for value in matern.process(np.array([steps])))
    return np.array([[a, b], [c, d]]), np.array([[p, 0], [q, r]])


def test_a_step_of_the_process_is_exact():
    for steps in (0.3, 1.0, 7.0, 300.0):
        moved, fresh = of_process(steps)
        np.testing.assert_allclose(moved @ moved.T + fresh @ fresh.T, np.eye(2), atol=1e-12)
        for lag in (1, 2, 10):
            expected = (1 + lag / steps) * np.exp(-lag / steps)
            assert np.linalg.matrix_power(moved, lag)[0, 0] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(of_process(0.0)[0], 0, atol=1e-300)  # white


def overlap(one, other):
    return matern.overlap(np.array([one]), np.array([other])).item()


def test_two_memories_overlap_by_the_integral_of_their_product():
    lags = np.linspace(0, 400, 400_001)
    for one, other in ((2.0, 5.0), (5.0, 2.0), (3.0, 3.0)):
        product = (1 + lags / one) * (1 + lags / other) * np.exp(-lags / one - lags / other)
        assert overlap(one, other) == pytest.approx(np.trapezoid(product, lags), rel=1e-6)
    assert matern.overlap(np.zeros(2), np.array([0.0, 3.0])).tolist() == [0, 0]


def test_carried_noise_has_its_memory_in_each_shell_and_stays_white_in_space():
    steps, count, times = np.array([0.0, 0.0, 8.0, 2.0]), 512, 4
    rule, draw = Matern(tuple(steps), (0.0,)), Linear(amplitude=1.0)
    keys, w = members(count)
    carry, fields = rule.begin(draw, keys, w), []
    for number in range(times):
        closure, carry = rule.closure(draw, carry, keys, number, w)
        fields.append(np.fft.rfft2(np.asarray(closure)[0]) / N)
    shell, weight = spectral.shells(N)
    for index in range(SHELLS):
        of_shell = (shell == index) * weight
        own = steps[min(index, len(steps) - 1)]
        for lag in range(times):
            found = np.sum((fields[0] * np.conj(fields[lag])).real * of_shell) / (count * of_shell.sum())
            expected = (1 + lag / own) * np.exp(-lag / own) if own else float(lag == 0)
            error = 5 * np.sqrt(2 / (count * of_shell.sum()))
            assert found == pytest.approx(expected, abs=error), (index, lag)


def test_cuts_change_nothing():
    keys, w = members(2)
    dynamics = Coupled(lambda w_hat, closure_hat: w_hat + closure_hat, 1.0, Linear(), Matern((9.0, 2.0), (0.1, 0.0)))
    begun = dynamics.begin(keys, w)
    whole = dynamics.advance(keys, begun, 4, 6)
    cut = dynamics.advance(keys, dynamics.advance(keys, begun, 4, 2), 6, 4)
    np.testing.assert_array_equal(dynamics.vorticity(cut), dynamics.vorticity(whole))


def test_the_drag_takes_the_vorticity_back_shell_by_shell():
    keys, w = members(1)
    x = 2 * np.pi * np.arange(N) / N
    w = w + jnp.asarray(np.cos(x)[:, None] + np.cos(3 * x)[None])
    rule, draw = Matern((0.0,), (0.0, 0.5, 0.0, 2.0)), Linear(amplitude=0.0)
    closure, _ = rule.closure(draw, rule.begin(draw, keys, w), keys, 0, w)
    expected = -0.5 * np.cos(x)[:, None] - 2.0 * np.cos(3 * x)[None]
    np.testing.assert_allclose(closure[0, 0], expected, atol=1e-12)


def along(steps, shape, rng):
    """Fields of a Matern process by shell of each step, (window, time, n, n), of variance 1 in each mode."""
    windows, times = shape
    rule, draw = Matern(tuple(steps), (0.0,)), Linear(amplitude=1.0)
    keys, w = jax.random.split(jax.random.key(rng), windows)[None], jnp.zeros((1, windows, N, N))

    def body(carry, number):
        closure, carry = rule.closure(draw, carry, keys, number, w)
        return carry, closure[0]

    fields = jax.lax.scan(body, rule.begin(draw, keys, w), jnp.arange(times))[1]
    return np.swapaxes(np.asarray(fields), 0, 1)


def test_the_fit_finds_memory_and_drag():
    interval, dt, sigma, amplitude = 2, 0.01, 0.7, 3.0
    slow, fast = np.full(SHELLS, 20.0), np.array([4.0] * 3 + [1.5] * (SHELLS - 3))
    vorticity = amplitude * along(slow, (64, 120), 1)[:, ::interval]
    residual = sigma * along(fast, (64, 120), 2)[:, ::interval]
    windows = Windows(vorticity, residual - 1.5 * vorticity, interval * dt, dt)
    draw = Linear(rate=1.5)  # its mean is known
    rule = Matern().fit(draw, windows)
    np.testing.assert_allclose(rule.memory_steps[1:4], fast[1:4], rtol=0.1)
    expected = matern.overlap(fast, slow) * dt * (sigma / amplitude) ** 2
    np.testing.assert_allclose(rule.drag[1:4], expected[1:4], rtol=0.15)
    assert rule.fit(draw, windows) is rule
    given = Matern(memory_steps=(5.0,)).fit(draw, windows)
    assert given.memory_steps == (5.0,) and given.drag[2] > rule.drag[3] > 0
    assert Matern(drag=(0.0,)).fit(draw, windows) == Matern(rule.memory_steps, (0.0,))


def test_what_an_estimated_mean_is_wrong_by_is_no_part_of_the_residual():
    interval, dt = 2, 0.01
    fast = np.full(SHELLS, 8.0)
    vorticity, residual = (
        along(np.full(SHELLS, s), (40, 120), seed)[:, ::interval] for s, seed in ((20.0, 1), (8.0, 2))
    )
    windows = Windows(vorticity, residual, interval * dt, dt)
    known, estimated = (Matern().fit(draw, windows) for draw in (Linear(), Linear(even=1.0, secret=True)))
    np.testing.assert_allclose(known.memory_steps[1:4], fast[1:4], rtol=0.15)
    np.testing.assert_allclose(estimated.memory_steps[1:4], known.memory_steps[1:4], rtol=0.25)
    np.testing.assert_allclose(estimated.drag[1:4], known.drag[1:4], rtol=0.25)


def test_what_is_white_has_neither_memory_nor_drag():
    rng = np.random.default_rng(0)
    vorticity, residual = rng.standard_normal((2, 32, 12, N, N))
    rule = Matern().fit(Linear(), Windows(vorticity, residual, 0.1, 0.01))
    assert max(rule.memory_steps) == max(rule.drag) == 0


def test_balanced_noise_leaves_a_mode_its_variance():
    # w' = (1 - dt (rate + drag)) w + dt sigma z + kick, z with a memory: stationary covariances of (w, z, y), exactly. What the
    # noise adds without the drag is taken back but for the second order of its part in the variance.
    dt, rate, sigma, steps, enstrophy = 0.02, 2.0, 0.3, 5.0, 1.0
    moved, fresh = of_process(steps)
    kick = enstrophy * (1 - (1 - dt * rate) ** 2)
    flow = 1 / -np.log(1 - dt * rate)  # steps in which w falls to 1/e
    time = 20 * matern._time(np.array([np.exp(-20 / flow)])).item()  # of a Matern process that agrees at 20 steps
    drag = dt * overlap(steps, time) * sigma**2 / enstrophy

    def variance(sigma, drag):
        step = np.zeros((3, 3))
        step[0] = [1 - dt * (rate + drag), dt * sigma, 0]
        step[1:, 1:] = moved
        noise = np.zeros((3, 3))
        noise[0, 0], noise[1:, 1:] = kick, fresh @ fresh.T
        covariance = np.eye(3)
        for _ in range(2_000):
            covariance = step @ covariance @ step.T + noise
        return covariance[0, 0]

    assert variance(0.0, 0.0) == pytest.approx(enstrophy, rel=1e-9)
    added = variance(sigma, 0.0) - enstrophy
    assert added > 0.005
    assert abs(variance(sigma, drag) - enstrophy) < 0.15 * added


def test_mistakes_are_refused_in_one_line():
    draw, (keys, w) = Linear(), members(2)
    for name, values in (("memory_steps", (1.0, -2.0)), ("drag", (float("nan"),))):
        with pytest.raises(UserError, match=f"^{name}=.*: expected numbers that are finite and not negative.*$"):
            Matern(**{name: values})
    with pytest.raises(UserError, match=r"^memory_steps=, drag=: expected the rule to be fitted .*$"):
        Matern(memory_steps=(1.0,)).begin(draw, keys, w)
    with pytest.raises(UserError, match=r"^memory_steps=: 1 training trajectories of 4 snapshots.*$"):
        Matern().fit(draw, Windows(np.zeros((1, 4, N, N)), np.zeros((1, 4, N, N)), 0.1, 0.01))

    @dataclasses.dataclass(frozen=True)
    class Shaped(Linear):
        shape: tuple[int, ...] = ()

        def noise(self, keys, vorticity):
            return {"z": jnp.zeros((len(keys), *self.shape))}

    # (8, 8, 8, 1) has eight sampler steps before fields of eight points: no memory along the steps
    for shape in ((5,), (4, 6), (5, 5, 1), (10, 8, 8, 1), (8, 8, 8, 1)):
        said = re.escape(f"kind=matern: noise of shape {shape} for each member, expected square fields")
        with pytest.raises(UserError, match=f"^{said}.*use coupling.kind=ar1$"):
            Matern((1.0,), (0.0,)).begin(Shaped(shape=shape), keys, w)


def test_a_closure_without_noise_has_the_drag_alone():
    keys, w = members(2)
    w = w + 3.0
    silent, rule = NoClosure(), Matern((3.0,), (0.5,))
    carry = rule.begin(silent, keys, w)
    closure, carry = rule.closure(silent, carry, keys, 0, w)
    np.testing.assert_allclose(closure, -0.5 * w, atol=1e-12)
    assert carry == ((), ())
