"""Random fields against their law: variances mode by mode and in space, by shell, in time and on other domains."""

import functools

import jax
import numpy as np

from closure_jax import random
from closure_jax.physics import noise as noise_lib
from closure_jax.physics import spectral

PUBLISHED = {"sigma": 5e-5, "kappa": 10.0, "alpha": 0.005, "dt": 1e-3}
INITIAL = {"alpha": 2.5, "tau": 7.0}
MANY = 5.0  # standard deviations of an estimate; draws are fixed, so a pass stays a pass


def q_wiener(n, length=1.0, **changes):
    return noise_lib.QWienerNoise(spectral.make_grid(n, length), **(PUBLISHED | changes))


def initial_field(n, length=1.0):
    return noise_lib.GaussianRandomField(spectral.make_grid(n, length), **INITIAL)


@functools.cache
def draws(noise, count):
    """(count, n, n // 2 + 1) from keys of one seed."""
    return np.asarray(jax.jit(jax.vmap(noise.sample_hat))(jax.random.split(jax.random.key(0), count)))


def index_radius(n):
    """|k| L / (2 pi) of all modes of the full plane, (n, n); the Nyquist lines, which stand for two modes, are nan."""
    index = np.fft.fftfreq(n, 1 / n)
    index[n // 2] = np.nan
    return np.hypot(index[:, None], index[None, :])


def mode_variances(n, length=1.0, sigma=0.0, kappa=0.0, alpha=0.0, dt=1.0):
    """Variance of each mode's term of sigma dW/dt as the formula of `QWienerNoise` writes it, full plane, (n, n)."""
    k = index_radius(n) / length
    return np.nan_to_num(sigma**2 * kappa / dt * np.exp(-alpha * (2 * np.pi * k) ** 2 / 2) ** 2)


# --- Q-Wiener noise ---


def test_the_published_noise_has_the_published_deviation():
    noise = q_wiener(64)
    # the sum over modes is the integral up to exp(-1 / (4 alpha)) = e^-50 (Poisson), and amplitudes under 1e-8 are dropped
    closed_form = 5e-5 * np.sqrt(10.0 / (4 * np.pi * 0.005 * 1e-3))
    np.testing.assert_allclose(noise.standard_deviation(), closed_form, rtol=1e-7)
    assert abs(closed_form - 0.01995) < 5e-6
    mean_part = noise.shell_spectrum()[0]
    np.testing.assert_allclose(mean_part, (5e-5) ** 2 * 10.0 / 1e-3, rtol=1e-12)
    assert abs(np.sqrt(closed_form**2 - mean_part) - 0.01931) < 5e-6
    assert abs(np.sqrt(mean_part * 1e-3 * 10.0) - 5e-4) < 1e-12  # the mean vorticity wanders: after 10 units


def test_deviation_and_shells_are_sums_over_the_modes_of_the_grid():
    for n, length in [(64, 2.0), (32, 0.5), (16, 1.0)]:
        noise = q_wiener(n, length)
        variances = mode_variances(n, length, **PUBLISHED)
        np.testing.assert_allclose(noise.standard_deviation(), np.sqrt(variances.sum()), rtol=1e-7)
        shell = np.rint(np.nan_to_num(index_radius(n), nan=n)).astype(int)
        by_shell = [variances[shell == s].sum() for s in range(n // 2 + 1)]
        np.testing.assert_allclose(noise.shell_spectrum(), by_shell, atol=1e-7 * max(by_shell))


def test_deviation_grows_with_the_domain_where_the_smoothing_stays():
    # modes lie closer: the integral over k takes L^2 times as many
    closed_form = 5e-5 * np.sqrt(10.0 / (4 * np.pi * 0.005 * 1e-3)) * 2.0
    np.testing.assert_allclose(q_wiener(64, 2.0).standard_deviation(), closed_form, rtol=1e-7)


def test_a_stretched_domain_with_stretched_smoothing_has_the_same_pattern():
    np.testing.assert_allclose(draws(q_wiener(32, 2.0, alpha=4 * 0.005), 4), draws(q_wiener(32), 4), rtol=1e-6)


def test_the_noise_is_white_at_the_step():
    # variance 1 / dt: the same key at a quarter of the step gives twice the field
    quarter = draws(q_wiener(32, dt=0.25e-3), 4)
    np.testing.assert_allclose(quarter, 2 * draws(q_wiener(32), 4), rtol=1e-6)


def test_draws_have_the_pointwise_deviation_and_no_mean():
    noise, count = q_wiener(32), 2000
    field = np.fft.irfft2(draws(noise, count))
    # independent modes of a field: (sum a^2)^2 / sum a^4 = 1 / (2 pi alpha) = 32, so 64,000 in all
    modes = count / (2 * np.pi * 0.005)
    np.testing.assert_allclose(np.mean(field**2) / noise.standard_deviation() ** 2, 1, atol=MANY * np.sqrt(2 / modes))
    at_points = field[:, ::8, ::8]
    variance_at_points = np.mean(at_points**2, axis=0) / noise.standard_deviation() ** 2
    np.testing.assert_allclose(variance_at_points, 1, atol=MANY * np.sqrt(2 / count))
    np.testing.assert_allclose(at_points.mean(axis=0), 0, atol=MANY * noise.standard_deviation() / np.sqrt(count))
    skewness = np.mean((at_points / noise.standard_deviation()) ** 3, axis=0)
    np.testing.assert_allclose(skewness, 0, atol=MANY * np.sqrt(15 / count))


def test_draws_have_the_expected_spectrum_by_shell():
    n, count = 32, 2000
    noise = q_wiener(n)
    measured = np.asarray(spectral.power_spectrum(np.fft.irfft2(draws(noise, count)))).mean(axis=0)
    variances = mode_variances(n, **PUBLISHED)
    shell = np.rint(np.nan_to_num(index_radius(n), nan=n)).astype(int)
    for s in range(11):  # beyond, single precision's rounding of the transform shows
        part = variances[shell == s]
        freedom = part.sum() ** 2 / np.sum(
            part**2
        )  # of a weighted chi-square: one degree for each mode of the full plane
        np.testing.assert_allclose(
            measured[s] / part.sum(), 1, atol=MANY * np.sqrt(2 / (freedom * count)), err_msg=f"{s=}"
        )
    np.testing.assert_allclose(noise.shell_spectrum()[:11], [variances[shell == s].sum() for s in range(11)], rtol=1e-6)


def real_parts(field_hat, top):
    """The independent real numbers of half-plane coefficients up to index `top`, standardised by the caller: (count, dof)."""
    half = [field_hat[:, ix, iy] for iy in range(top + 1) for ix in range(-top, top + 1) if iy > 0 or ix > 0]
    half = np.stack(half, axis=1)
    return np.concatenate([half.real, half.imag, field_hat[:, 0, :1].real], axis=1)


def test_modes_are_independent_with_the_variance_of_the_double_sum():
    n, top, count = 8, 3, 4000
    noise = q_wiener(n)
    variances = mode_variances(n, **PUBLISHED)
    # Re sum over k and -k: half-plane parts have half the mode's variance; k = 0, real, has it all; n^2 of the transform
    half = [variances[ix, iy] / 2 for iy in range(top + 1) for ix in range(-top, top + 1) if iy > 0 or ix > 0]
    expected = n**4 * np.array([*half, *half, variances[0, 0]])
    numbers = real_parts(draws(noise, count), top) / np.sqrt(expected)
    covariance = numbers.T @ numbers / count
    off = covariance - np.diag(np.diag(covariance))
    np.testing.assert_allclose(off, 0, atol=MANY / np.sqrt(count))
    np.testing.assert_allclose(np.diag(covariance), 1, atol=MANY * np.sqrt(2 / count))


def test_a_draw_is_the_transform_of_a_real_field():
    for noise in [q_wiener(32), q_wiener(8), initial_field(16)]:
        field_hat = draws(noise, 8)
        back = np.asarray(spectral.to_fourier(spectral.to_physical(field_hat)))
        np.testing.assert_allclose(back, field_hat, atol=1e-6 * np.abs(field_hat).max())


def test_draws_of_different_keys_are_uncorrelated():
    noise, count = q_wiener(32), 2000
    field = np.fft.irfft2(draws(noise, count)).reshape(count, -1) / noise.standard_deviation()
    # a pair's mean product has variance 1 / (independent modes) = 2 pi alpha
    for lag in (1, 2, 7):
        correlation = np.mean(field[lag:] * field[:-lag])
        assert abs(correlation) < MANY * np.sqrt(2 * np.pi * 0.005 / (count - lag)), lag


def test_a_key_gives_the_same_field_alone_and_in_a_batch():
    noise = q_wiener(16)
    keys = jax.random.split(jax.random.key(0), 3)
    alone = np.stack(list(map(jax.jit(noise.sample_hat), keys)))
    np.testing.assert_allclose(alone, draws(noise, 3), atol=1e-6 * np.abs(alone).max())


def test_flat_draws_are_those_of_jax():
    key = jax.random.key(3)
    np.testing.assert_array_equal(random.normal(key, (2, 3, 4)), jax.random.normal(key, (2, 3, 4)))


def test_double_precision_is_drawn_in_full(x64):
    field_hat = np.asarray(q_wiener(16).sample_hat(jax.random.key(0), np.float64))
    assert field_hat.dtype == np.complex128
    back = np.fft.rfft2(np.fft.irfft2(field_hat))
    np.testing.assert_allclose(back, field_hat, atol=1e-13 * np.abs(field_hat).max())
    assert np.any(field_hat.real != field_hat.real.astype(np.float32))


# --- initial vorticity ---


def brute_force_fields(n, top, count):
    """The defining double sum over the full plane, term by term: (count, n, n)."""
    rng = np.random.default_rng(0)
    line = np.arange(n) / n
    x, y = line[:, None], line[None, :]
    field = np.zeros((count, n, n))
    for kx in range(-top, top + 1):
        for ky in range(-top, top + 1):
            if kx == ky == 0:
                continue
            amplitude = np.sqrt(2) * 7.0**1.5 * (4 * np.pi**2 * (kx**2 + ky**2) + 7.0**2) ** -1.25
            a, b = rng.normal(size=(2, count, 1, 1))
            field += amplitude * ((a + 1j * b) * np.exp(2j * np.pi * (kx * x + ky * y))).real
    return field


def test_initial_vorticity_has_the_law_of_the_double_sum():
    n, top, count = 8, 3, 4000
    oracle = np.fft.rfft2(brute_force_fields(n, top, count))
    actual = draws(initial_field(n), count)
    k = 2 * np.pi * index_radius(n)[:, : n // 2 + 1]
    formula = np.nan_to_num(2 * 7.0**3 * (k**2 + 49.0) ** -2.5)
    formula[0, 0] = 0
    carried = formula > 0
    expected = n**4 * formula[carried]  # E|c|^2: two parts with half of the mode's variance each
    # |c|^2 is exponential: its mean over draws has the relative deviation 1 / sqrt(count)
    for sample in (oracle, actual):
        power = np.mean(np.abs(sample) ** 2, axis=0)
        np.testing.assert_allclose(power[carried] / expected, 1, atol=MANY / np.sqrt(count))
        np.testing.assert_allclose(power[~carried], 0, atol=1e-10 * power.max())


def test_initial_vorticity_on_another_domain_is_the_same_pattern():
    np.testing.assert_allclose(draws(initial_field(16, 2.5), 4), draws(initial_field(16), 4), rtol=1e-6)
