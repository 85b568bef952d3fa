"""The solver against closed forms and definitions: its terms, its conservation laws, its orders in time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from closure_jax.errors import UserError
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral, stepper

pytestmark = pytest.mark.usefixtures("x64")
ROUNDING = 1e-12  # of double precision, after a few transforms


def coordinates(n, length=1.0):
    """x (n, 1) and y (1, n) of the grid's points."""
    line = np.arange(n) * length / n
    return line[:, None], line[None, :]


def random_field(n, cut, seed=0, std=1.0, batch=()):
    """Random real fields (*batch, n, n) of zero mean with no mode beyond |index| = `cut`."""
    radius = np.hypot(np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None, :])
    noise_hat = np.fft.rfft2(np.random.default_rng(seed).normal(size=(*batch, n, n)))
    field = np.fft.irfft2(noise_hat * ((radius > 0) & (radius <= cut)), s=(n, n))
    return std * field / field.std(axis=(-2, -1), keepdims=True)


def derivatives(field, length):
    """d/dx and d/dy of a band-limited field by numpy's full complex transform."""
    n = field.shape[-1]
    k = 2j * np.pi * np.fft.fftfreq(n, length / n)
    field_hat = np.fft.fft2(field)
    return np.fft.ifft2(k[:, None] * field_hat).real, np.fft.ifft2(k[None, :] * field_hat).real


def advection_by_definition(w, length):
    """-u.grad(w) of a field within the 2/3 rule, products taken on twice the grid, result cut to the 2/3 rule."""
    n = len(w)
    index = np.fft.fftfreq(n, 1 / n)
    inside = (np.abs(index)[:, None] < n / 3) & (np.abs(index)[None, :] < n / 3)
    kx, ky = 2 * np.pi / length * index[:, None], 2 * np.pi / length * index[None, :]
    w_hat = np.fft.fft2(w) * inside
    psi_hat = w_hat / np.where(kx**2 + ky**2 == 0, np.inf, kx**2 + ky**2)
    place = np.ix_(index.astype(int), index.astype(int))

    def fine(field_hat):
        padded = np.zeros((2 * n, 2 * n), complex)
        padded[place] = field_hat
        return np.fft.ifft2(padded).real * 4

    product = fine(1j * ky * psi_hat) * fine(1j * kx * w_hat) - fine(1j * kx * psi_hat) * fine(1j * ky * w_hat)
    return -np.fft.ifft2(np.fft.fft2(product)[place] * inside / 4).real


# --- terms ---


def test_advection_of_two_waves_is_the_product_worked_out_by_hand():
    for n, length in ((16, 1.0), (16, 2.5), (24, 1.0), (24, 2.5)):
        # w = cos kx + cos 2ky, psi = cos kx / k^2 + cos 2ky / 4k^2, u = -sin 2ky / 2k, v = sin kx / k:
        # -u.grad w = -(sin kx sin 2ky / 2 - 2 sin kx sin 2ky)
        grid = spectral.make_grid(n, length)
        x, y = coordinates(n, length)
        k = 2 * np.pi / length
        w = np.cos(k * x) + np.cos(2 * k * y)
        u, v = (spectral.to_physical(part) for part in spectral.velocity_hat(spectral.to_fourier(w), grid))
        np.testing.assert_allclose(u, -np.sin(2 * k * y) / (2 * k) + 0 * x, atol=ROUNDING)
        np.testing.assert_allclose(v, np.sin(k * x) / k + 0 * y, atol=ROUNDING)
        np.testing.assert_allclose(spectral.advection(w, grid), 1.5 * np.sin(k * x) * np.sin(2 * k * y), atol=ROUNDING)


def test_advection_is_the_dealiased_product_of_velocity_and_gradient():
    for n, length in ((16, 1.0), (24, 2.5)):
        w = np.random.default_rng(1).normal(size=(n, n))  # all modes, so that aliases would show
        expected = advection_by_definition(w, length)
        actual = spectral.advection(w, spectral.make_grid(n, length))
        np.testing.assert_allclose(actual, expected, atol=ROUNDING * np.abs(expected).max())


def test_advection_of_a_smooth_field_does_not_depend_on_the_resolution():
    fine, coarse = 128, 64
    w = random_field(fine, cut=10)  # products reach |index| 20, which the 2/3 rule keeps on 64^2
    expected = spectral.subsample(spectral.advection(w, spectral.make_grid(fine, 1.0)), coarse)
    actual = spectral.advection(spectral.subsample(w, coarse), spectral.make_grid(coarse, 1.0))
    np.testing.assert_allclose(actual, expected, atol=ROUNDING * np.abs(expected).max())


def test_single_precision_advection_loses_no_more_than_rounding():
    w = random_field(64, cut=10)
    grid = spectral.make_grid(64, 1.0)
    expected = spectral.advection(w, grid)
    with jax.enable_x64(False):
        actual = spectral.advection(w.astype(np.float32), grid)
        assert actual.dtype == np.float32
    # rounding of u v, 6e-8, times (k of the last mode kept / k of w)^2, about 10, and a few at the worst of 4096 points
    np.testing.assert_allclose(actual, expected, atol=5e-6 * np.abs(expected).max())


def test_advection_conserves_energy_enstrophy_and_mean():
    for n, length in ((16, 1.0), (24, 2.5)):
        grid = spectral.make_grid(n, length)
        w = np.random.default_rng(2).normal(size=(8, n, n))
        rate = np.asarray(spectral.advection(w, grid))
        lap = spectral.laplacian(grid)
        psi = spectral.to_physical(spectral.to_fourier(w) / np.where(lap == 0, np.inf, -lap))
        size = np.linalg.norm(rate, axis=(1, 2))
        for conserved in (w, psi, np.ones_like(w)):
            change = np.sum(conserved * rate, axis=(1, 2))
            np.testing.assert_array_less(np.abs(change), ROUNDING * size * np.linalg.norm(conserved, axis=(1, 2)))


def test_velocity_has_the_vorticity_as_curl_and_no_divergence_or_mean():
    for length in (1.0, 2.5):
        n = 16
        w = random_field(n, cut=7) + 3.0  # a mean vorticity has no velocity on a torus
        u_hat, v_hat = spectral.velocity_hat(spectral.to_fourier(w), spectral.make_grid(n, length))
        u, v = np.asarray(spectral.to_physical(u_hat)), np.asarray(spectral.to_physical(v_hat))
        (ux, uy), (vx, vy) = derivatives(u, length), derivatives(v, length)
        np.testing.assert_allclose(vx - uy, w - w.mean(), atol=ROUNDING * np.abs(w).max())
        np.testing.assert_allclose(ux + vy, 0, atol=ROUNDING * np.abs(ux).max())
        np.testing.assert_allclose([u.mean(), v.mean()], 0, atol=ROUNDING)


def test_laminar_flow_balances_forcing_and_diffusion():
    for length, wavenumber in ((1.0, 1), (2.5, 1), (2.5, 2)):
        n, nu = 16, 2e-3
        grid = spectral.make_grid(n, length)
        x, y = coordinates(n, length)
        k = 2 * np.pi * wavenumber / length
        forcing = 0.1 * (np.sin(k * (x + y)) + np.cos(k * (x + y)))
        laminar = spectral.to_fourier(forcing / (nu * 2 * k**2))
        flow = flow_lib.KolmogorovFlow(grid, nu, 0.1, wavenumber).with_advection()
        np.testing.assert_allclose(flow.forcing(), forcing, atol=ROUNDING)
        rate = spectral.to_physical(flow.explicit_terms(laminar) + flow.implicit_terms(laminar))
        # u.grad w vanishes by cancellation: its rounding has the scale of w^2
        np.testing.assert_allclose(rate, 0, atol=ROUNDING * (0.1 + np.max(forcing / (nu * 2 * k**2)) ** 2))


def test_implicit_solve_inverts_the_implicit_step():
    flow = flow_lib.KolmogorovFlow(spectral.make_grid(16, 2.5), 0.03)
    w_hat = spectral.to_fourier(random_field(16, cut=8))
    solution = flow.implicit_solve(w_hat, 0.7)
    np.testing.assert_allclose(solution - 0.7 * flow.implicit_terms(solution), w_hat, atol=1e-12 * np.abs(w_hat).max())


# --- spectra ---


def test_power_spectrum_sums_to_the_mean_square():
    w = random_field(16, cut=8, batch=(3,)) + 0.5  # up to the Nyquist lines, which count once, and with a mean
    np.testing.assert_allclose(spectral.power_spectrum(w).sum(axis=-1), np.mean(w**2, axis=(1, 2)), rtol=ROUNDING)


def test_one_wave_has_its_energy_and_enstrophy_in_one_shell():
    for mode, shell in (((3, 4), 5), ((0, 2), 2), ((-1, 2), 2), ((2, 2), 3)):
        n, length, amplitude = 16, 2.5, 1.7
        x, y = coordinates(n, length)
        k = 2 * np.pi / length * np.array(mode)
        w = amplitude * np.cos(k[0] * x + k[1] * y + 0.3)
        expected = np.zeros(n // 2 + 1)
        expected[shell] = amplitude**2 / 4  # mean(w^2) / 2
        np.testing.assert_allclose(spectral.enstrophy_spectrum(w), expected, atol=ROUNDING)
        energy = spectral.energy_spectrum(w, spectral.make_grid(n, length))
        np.testing.assert_allclose(energy, expected / np.sum(k**2), atol=ROUNDING)


# --- order in time ---

ORDERS = {
    # name: order without closure (diffusion and constant forcing), inviscid advection, both
    "semi_implicit_euler": (2, 1, 1),  # Crank-Nicolson where nothing else is left
    "backward_forward_euler": (1, 1, 1),
    "crank_nicolson_rk2": (2, 2, 2),
    "crank_nicolson_rk3": (2, 3, 2),  # diffusion caps it
    "crank_nicolson_rk4": (2, 4, 2),
    "imex_rk_sil3": (2, 2, 2),  # third order for linear explicit terms only: its sum of b c^2 is 7/18, not 1/3
}
ORDER_N, ORDER_TIME, ORDER_VISCOSITY = 16, 0.25, 0.02


def initial_state():
    return random_field(ORDER_N, cut=3, std=3.0)


@functools.cache
def solution(viscosity, steps=400):
    """The closed flow at ORDER_TIME by classical Runge-Kutta with `advection_by_definition`."""
    grid = spectral.make_grid(ORDER_N, 1.0)
    forcing = flow_lib.KolmogorovFlow(grid).forcing()
    lap = spectral.laplacian(grid)

    def rate(w):
        diffusion = np.fft.irfft2(viscosity * lap * np.fft.rfft2(w))
        return advection_by_definition(w, 1.0) + diffusion + forcing

    w, h = initial_state(), ORDER_TIME / steps
    for _ in range(steps):
        k1 = rate(w)
        k2 = rate(w + h / 2 * k1)
        k3 = rate(w + h / 2 * k2)
        k4 = rate(w + h * k3)
        w = w + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return w


def closed_form(viscosity):
    """The flow without closure at ORDER_TIME: every mode decays to its forced value."""
    flow = flow_lib.KolmogorovFlow(spectral.make_grid(ORDER_N, 1.0), viscosity)
    rate = viscosity * spectral.laplacian(flow.grid)
    forced = flow.forcing_hat() * np.expm1(rate * ORDER_TIME) / np.where(rate == 0, 1.0, rate)
    return np.fft.irfft2(np.fft.rfft2(initial_state()) * np.exp(rate * ORDER_TIME) + forced)


def test_every_stepper_has_an_expected_order():
    assert set(ORDERS) == set(stepper.STEPPERS)


@pytest.mark.parametrize("name", ORDERS)
def test_order_in_time(name):
    @functools.partial(jax.jit, static_argnums=0)
    def solve(closed, viscosity, steps):
        flow = flow_lib.KolmogorovFlow(spectral.make_grid(ORDER_N, 1.0), viscosity)
        step = stepper.STEPPERS[name](flow.with_advection() if closed else flow, ORDER_TIME / steps)
        w_hat = spectral.to_fourier(initial_state())
        return spectral.to_physical(jax.lax.fori_loop(0, steps, lambda _, w: step(w), w_hat))

    def order(closed, viscosity, exact):
        errors = [np.linalg.norm(solve(closed, viscosity, steps) - exact) for steps in (64, 128)]
        assert errors[1] < 0.02 * np.linalg.norm(exact)
        return np.log2(errors[0] / errors[1])

    measured = (
        order(False, ORDER_VISCOSITY, closed_form(ORDER_VISCOSITY)),
        order(True, 0.0, solution(0.0)),
        order(True, ORDER_VISCOSITY, solution(ORDER_VISCOSITY)),
    )
    # the next term of the error is a factor dt / T = 1 / 64 smaller, times a constant of order 10
    np.testing.assert_allclose(measured, ORDERS[name], atol=0.25)


def test_taylor_green_vortices_decay_at_the_viscous_rate():
    n, nu, dt, steps, length = 16, 1e-2, 1e-2, 50, 2.5
    x, y = coordinates(n, length)
    k = 2 * np.pi * 2 / length
    w = np.cos(k * x) * np.cos(k * y)  # eigenfunction of the Laplacian, so that u.grad w = 0
    flow = flow_lib.KolmogorovFlow(spectral.make_grid(n, length), nu, forcing_amplitude=0.0).with_advection()
    rate = nu * 2 * k**2
    step = stepper.STEPPERS["semi_implicit_euler"](flow, dt)
    actual = spectral.to_physical(jax.jit(stepper.repeated(step, steps))(spectral.to_fourier(w)))
    half = rate * dt / 2
    np.testing.assert_allclose(actual, w * ((1 - half) / (1 + half)) ** steps, atol=ROUNDING)
    # Crank-Nicolson: log((1 + h) / (1 - h)) = 2 h + 2 h^3 / 3 + ..., so the relative error is t rate (rate dt)^2 / 12
    bound = 1.01 * dt * steps * rate * (rate * dt) ** 2 / 12
    np.testing.assert_allclose(actual, w * np.exp(-rate * dt * steps), atol=bound)


# --- the exact closure ---


def test_exact_closure_is_advection_plus_the_noise_of_the_members_key():
    n = 16
    grid = spectral.make_grid(n, 1.0)
    process = noise_lib.QWienerNoise(grid, sigma=5e-3, kappa=10.0, alpha=0.005, dt=2e-3)
    keys = jax.random.split(jax.random.key(0), 3)
    w_hat = spectral.to_fourier(random_field(n, cut=4, seed=3, std=2.0, batch=(3,)))
    mean = flow_lib.exact_closure(grid, None)(keys, w_hat)
    expected = spectral.advection(spectral.to_physical(w_hat), grid)
    np.testing.assert_allclose(spectral.to_physical(mean), expected, atol=ROUNDING * np.abs(expected).max())
    noise = jax.jit(flow_lib.exact_closure(grid, process))(keys, w_hat) - mean
    draw = jax.jit(lambda key: process.sample_hat(key, np.float64))
    np.testing.assert_allclose(noise, jnp.stack(list(map(draw, keys))), atol=ROUNDING * np.abs(mean).max())


# --- rules of fields ---


def test_numbers_that_no_flow_has_are_refused():
    wrong = {"viscosity": (-1e-3, np.nan), "forcing_amplitude": (np.inf,), "forcing_wavenumber": (0, -1)}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(UserError, match=f"^{name}={value}: expected"):
                flow_lib.KolmogorovFlow(**{name: value})
