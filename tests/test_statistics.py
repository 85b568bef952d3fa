"""Statistics of rollouts against brute force and against known laws; measures of samples that need no law."""

import math

import numpy as np
import pytest

from closure_jax.evaluation import measures, scales, statistics
from closure_jax.evaluation.statistics import Statistics
from closure_jax.physics import spectral

N = 24
GRID = spectral.make_grid(N, 3.0)


def fields(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*shape, N, N)).astype(np.float32)


def test_spectrum_and_flux_are_those_of_a_sum_over_modes():
    w = fields(3, 2, 1)
    found = Statistics.of(w, GRID, 1.0)
    index = np.hypot(*np.meshgrid(np.fft.fftfreq(N, 1 / N), np.fft.fftfreq(N, 1 / N), indexing="ij"))
    flat = w.reshape(-1, N, N).astype(np.float64)
    advection = np.asarray(spectral.advection(flat.astype(np.float32), GRID), np.float64)
    enstrophy, flux = [], []
    for shell in range(N // 2 + 1):
        inside, of_shell = index < shell + 0.5, np.rint(index) == shell
        low = np.fft.ifft2(np.fft.fft2(flat) * inside).real
        flux.append(-np.mean(low * advection))
        enstrophy.append(0.5 * np.mean(np.fft.ifft2(np.fft.fft2(flat) * of_shell).real ** 2))
    np.testing.assert_allclose(found.enstrophy, enstrophy, rtol=1e-4)
    np.testing.assert_allclose(found.flux, flux, atol=2e-4 * np.abs(flux).max())
    assert abs(found.flux[-1]) < 1e-3 * np.abs(found.flux).max()  # advection makes no enstrophy


def test_scales_of_one_wave():
    k, points = 2 * 2 * math.pi / 3.0, np.arange(N) * 3.0 / N
    wave = (5 * np.cos(k * points)[:, None] * np.ones(N)).astype(np.float32)
    found = scales.of_flow(np.stack([wave, -wave]), GRID, 0.01, 1e-3)
    speed = 5 / k / math.sqrt(2)
    assert found == pytest.approx(
        {
            "rms_vorticity": 5 / math.sqrt(2),
            "rms_velocity": speed,
            "largest_velocity": 5 / k,
            "integral_length": 1.5,
            "reynolds": speed * 1.5 / 1e-3,
            "cfl": 5 / k * 0.01 * N / 3.0,
            "turnover_time": 2 * math.pi * math.sqrt(2) / 5,
        },
        rel=1e-5,
    )
    assert scales.of_flow(wave[None], GRID, 0.01, None)["reynolds"] is None


def test_errors_are_zero_of_the_truth_and_known_where_it_is_scaled():
    truth = Statistics.of(fields(4, 2, 2), GRID, 1.0)
    for measure in (statistics.spectrum_error, statistics.enstrophy_flux_error, statistics.tail_error):
        assert measure(truth, truth) == 0
    louder = Statistics.of(1.2 * fields(4, 2, 2), GRID, 1.0, truth.edges)
    assert statistics.spectrum_error(louder, truth) == pytest.approx(2 * math.log(1.2), rel=1e-4)
    assert statistics.enstrophy_flux_error(louder, truth) == pytest.approx(1.2**3 - 1, rel=1e-3)


def test_tails_are_compared_where_the_truth_is_rare():
    """Of normal vorticity, whose density at w is known: 1e-4 lies at 4.07 deviations."""
    truth = Statistics.of(fields(60, 4, 4), GRID, 1.0)
    wider = Statistics.of(1.2 * fields(60, 4, 4, seed=1), GRID, 1.0, truth.edges)
    at = 4.07
    expected = abs(0.5 * at**2 * (1 - 1 / 1.2**2) - math.log(1.2))
    assert statistics.tail_error(wider, truth) == pytest.approx(expected, rel=0.2)
    narrow = Statistics.of(0.1 * fields(60, 4, 4), GRID, 1.0, truth.edges)  # without a value out there
    assert 2 < statistics.tail_error(narrow, truth) < 20


def test_the_decorrelation_time_is_a_quarter_of_a_period():
    time, phase = np.arange(40) * 0.5, np.random.default_rng(0).uniform(0, 2 * np.pi, (2, 3, N, N))
    waves = np.cos(2 * np.pi * time[:, None, None, None, None] / 8.0 + phase)
    assert statistics.decorrelation_time(waves, 0.5) == pytest.approx(2.0, abs=0.03)
    assert math.isnan(statistics.decorrelation_time(np.broadcast_to(waves[:1], waves.shape), 0.5))  # still
    assert math.isnan(statistics.decorrelation_time(waves[:1], 0.5))
    drift = np.linspace(0, 1, 40)[:, None, None, None, None] * waves[:1]  # its mean over time alone makes a zero
    assert math.isnan(statistics.decorrelation_time(drift, 0.5))


def test_a_run_that_blew_up_has_no_statistics():
    truth, gone = Statistics.of(fields(4, 2, 2), GRID, 1.0), fields(4, 2, 2)
    gone[2, 1, 1, 3, 3] = np.inf
    for measure in measures.OF_STATISTICS.values():
        assert math.isnan(measure(Statistics.of(gone, GRID, 1.0, truth.edges), truth))


@pytest.mark.parametrize("count", [2, 8])
def test_r2_and_correlation_are_free_of_the_number_of_samples(count):
    mean, noise = fields(200, seed=2), fields(200, seed=3)
    truth = mean + 0.5 * noise
    samples = 0.8 * mean[:, None] + 0.5 * fields(200, count, seed=4)
    tolerance = 5 / math.sqrt(200 * N * N)
    expected = 1 - (0.2**2 + 0.5**2) / (1 + 0.5**2)
    assert measures.OF_SAMPLES["r2"](samples, truth) == pytest.approx(expected, abs=tolerance)
    assert measures.OF_SAMPLES["correlation"](samples, truth) == pytest.approx(1 / math.sqrt(1.25), abs=tolerance)


def test_transfers_are_sums_over_the_points_of_either_sign():
    samples, vorticity = fields(3, 2), fields(3, seed=1)
    product = samples * vorticity[:, None]
    forward, back = (measures.OF_STATES[f"transfer_{name}"](samples, vorticity) for name in ("forward", "back"))
    assert forward == pytest.approx(product[product < 0].sum() / product.size, rel=1e-5) and forward < 0 < back
    assert forward + back == pytest.approx(product.mean(), abs=1e-6)
