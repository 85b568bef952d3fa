"""The measures: each against its definition, a brute-force sum, an integral, or a known expectation."""

import math

import numpy as np
import pytest

from closure_jax.evaluation import metrics


def draws(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# --- relative error and spread ---------------------------------------------------------------------------------------


def test_relative_error_is_the_mean_of_the_ratios_of_norms():
    truth = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 10.0)])
    estimate = np.stack([np.full((4, 4), 1.5), np.full((4, 4), 9.0)])
    assert metrics.relative_error(estimate, truth) == pytest.approx((0.5 + 0.1) / 2)
    truth, estimate = draws(3, 8, 8), draws(3, 8, 8, seed=1)
    assert metrics.relative_error(truth, truth) == 0
    assert metrics.relative_error(0 * truth, truth) == pytest.approx(1)
    scaled = metrics.relative_error(1e3 * estimate, 1e3 * truth)  # it has no unit
    assert scaled == pytest.approx(metrics.relative_error(estimate, truth), rel=1e-5)


def test_spread_is_the_root_of_the_mean_variance_of_one_less():
    samples = draws(3, 5, 8, 8) * np.array([1.0, 2.0, 3.0])[:, None, None, None]
    variances = [np.var(state, axis=0, ddof=1).mean() for state in samples.astype(np.float64)]
    assert metrics.rms_spread(samples) == pytest.approx(math.sqrt(np.mean(variances)), rel=1e-6)


def test_the_square_of_the_spread_is_unbiased():
    for members in (2, 3, 20):
        samples = 0.02 * draws(40, members, 32, 32) + draws(40, 1, 32, 32, seed=1)
        assert metrics.rms_spread(samples) ** 2 == pytest.approx(0.02**2, rel=0.03)


def test_spread_is_zero_where_all_members_agree():
    assert metrics.rms_spread(np.repeat(draws(2, 1, 8, 8), 6, axis=1)) == 0


# --- continuous ranked probability score -----------------------------------------------------------------------------


def brute_force_crps(samples: np.ndarray, observations: np.ndarray) -> float:
    """mean |x_i - y| - 1 / (2 E (E - 1)) sum_ij |x_i - x_j|, by loops."""
    scores = []
    for x, y in zip(samples.astype(np.float64), observations.astype(np.float64), strict=True):
        count = len(x)
        mutual = sum(np.abs(x[i] - x[j]) for i in range(count) for j in range(count))
        for one in y:
            distance = sum(np.abs(member - one) for member in x) / count
            scores.append((distance - mutual / (2 * count * (count - 1))).mean())
    return float(np.mean(scores))


def test_fair_crps_is_the_double_sum():
    for members, observations in ((2, 1), (3, 4), (7, 2)):
        samples, observed = draws(3, members, 6, 6), draws(3, observations, 6, 6, seed=1) + 0.5
        expected = brute_force_crps(samples, observed)
        assert metrics.ensemble_crps(samples, observed) == pytest.approx(expected, rel=1e-5)


def test_crps_does_not_depend_on_the_order_of_the_members():
    samples, observed = draws(2, 9, 6, 6), draws(2, 3, 6, 6, seed=1)
    shuffled = samples[:, np.random.default_rng(2).permutation(9)]
    assert metrics.ensemble_crps(shuffled, observed) == pytest.approx(
        metrics.ensemble_crps(samples, observed), rel=1e-5
    )


def test_fair_crps_of_the_true_law_is_its_expectation_at_any_size():
    for members in (2, 5, 40):
        deviation = 0.02
        samples, observed = deviation * draws(12, members, 64, 64), deviation * draws(12, 1, 64, 64, seed=1)
        # 49,152 points: the mean score is known to better than 1 %
        expected = deviation / math.sqrt(math.pi)
        assert metrics.ensemble_crps(samples, observed) == pytest.approx(expected, rel=0.02)
        assert metrics.gaussian_crps(np.zeros_like(observed), deviation, observed) == pytest.approx(expected, rel=0.02)


def test_another_law_scores_worse_than_the_true_one():
    for scale, shift in ((0.3, 0.0), (3.0, 0.0), (1.0, 1.0)):
        samples, observed = draws(4, 10, 64, 64), draws(4, 1, 64, 64, seed=1)
        true = metrics.ensemble_crps(samples, observed)
        assert metrics.ensemble_crps(scale * samples + shift, observed) > 1.05 * true


def test_crps_of_members_that_agree_is_the_absolute_error():
    samples = np.repeat(draws(2, 1, 8, 8), 5, axis=1)
    observed = samples[:, :1] + 0.25
    assert metrics.ensemble_crps(samples, observed) == pytest.approx(0.25, rel=1e-5)


def test_gaussian_crps_is_the_integral_of_the_squared_difference_of_distributions():
    for mean, deviation, observation in ((0.0, 1.0, 0.0), (0.0, 1.0, 2.5), (0.3, 0.02, 0.25), (-1.0, 3.0, 4.0)):
        reach = 12 * deviation + abs(observation - mean)
        below, above = (
            np.linspace(*ends, 20_001) for ends in ((mean - reach, observation), (observation, mean + reach))
        )
        lower, upper = (0.5 * np.vectorize(math.erfc)((mean - x) / (deviation * math.sqrt(2))) for x in (below, above))
        expected = np.trapezoid(lower**2, below) + np.trapezoid((1 - upper) ** 2, above)
        found = metrics.gaussian_crps(np.full((2, 4, 4), mean), deviation, np.full((2, 4, 4), observation))
        assert found == pytest.approx(expected, rel=1e-4)


def test_published_noise_has_the_published_crps():
    observed = 0.01995 * draws(8, 128, 128)
    assert metrics.gaussian_crps(np.zeros_like(observed), 0.01995, observed) == pytest.approx(0.01125, rel=0.01)


# --- spectra ---------------------------------------------------------------------------------------------------------


def shell_sizes(n: int) -> np.ndarray:
    """How many wavevectors of the full plane round to each length up to n / 2."""
    index = np.fft.fftfreq(n, 1 / n)
    length = np.rint(np.hypot(index[:, None], index[None, :])).astype(int)
    return np.bincount(length.ravel())[: n // 2 + 1]


def test_mean_spectrum_of_a_wave_is_its_variance_in_its_shell():
    x = 2 * np.pi * np.arange(16) / 16
    waves = [a * np.cos(3 * x)[:, None] * np.ones(16) for a in (1.0, 2.0)]
    spectrum = metrics.mean_spectrum(np.float32(waves))
    np.testing.assert_allclose(spectrum, np.where(np.arange(9) == 3, (0.5 + 2.0) / 2, 0), rtol=2e-3, atol=1e-5)


def test_deviation_spectrum_is_unbiased_and_blind_to_the_mean():
    for members in (2, 3, 10):
        n, deviation, states = 16, 0.02, 600 // members
        samples = deviation * draws(states, members, n, n) + draws(states, 1, n, n, seed=1)
        expected = deviation**2 * shell_sizes(n) / n**2
        found = metrics.deviation_spectrum(samples)
        assert found.shape == (n // 2 + 1,)
        np.testing.assert_allclose(
            found[1:], expected[1:], rtol=0.12
        )  # at least 8 wavevectors a shell, 300 free fields
        assert found.sum() == pytest.approx(expected.sum(), rel=0.02)


def test_log_spectrum_error_of_a_known_ratio_counts_excess_and_lack_alike():
    exact = np.exp(-0.5 * np.arange(20))
    for factor in (0.5, 1.0, 3.0):
        found = metrics.log_spectrum_error(factor * exact, exact)
        assert found == pytest.approx(abs(math.log(factor)), abs=1e-12)
    both = metrics.log_spectrum_error(np.array([2, 0.5, 2, 0.5]), np.ones(4), share=1.0)
    assert both == pytest.approx(math.log(2))


def test_log_spectrum_error_looks_only_where_the_exact_spectrum_is():
    exact = np.array([0.0, 60.0, 39.5, 0.4, 0.1, 0.0])
    spectrum = np.array([7.0, 60.0, 39.5, 4e3, 1e9, 1.0])
    assert metrics.log_spectrum_error(spectrum, exact) == 0
    spectrum[2] *= math.e
    assert metrics.log_spectrum_error(spectrum, exact) == pytest.approx(0.5)
    assert metrics.log_spectrum_error(spectrum, exact, share=0.5) == 0


def test_a_spectrum_that_is_zero_has_a_finite_error_and_without_noise_there_is_none():
    assert math.isfinite(metrics.log_spectrum_error(np.zeros(4), np.ones(4)))
    assert math.isnan(metrics.log_spectrum_error(np.ones(4), np.zeros(4)))


# --- paths of a sampler ----------------------------------------------------------------------------------------------


def test_a_straight_path_has_its_displacement_as_length():
    x = draws(2, 4, 4, 1)
    states = np.stack([(1 - tau) * x[:1].repeat(3, 0) + tau * x[1:].repeat(3, 0) for tau in np.linspace(0, 1, 7)])
    found = metrics.path_measures(states)
    assert found["straightness"] == pytest.approx(1, rel=1e-6)
    assert found["length"] == pytest.approx(np.sqrt(np.mean((x[1] - x[0]) ** 2)), rel=1e-6)


def test_a_quarter_circle_is_as_straight_as_geometry_says():
    angle = np.linspace(0, np.pi / 2, 400)
    states = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]
    assert metrics.path_measures(states)["straightness"] == pytest.approx(math.sqrt(2) / (math.pi / 2), rel=1e-4)
