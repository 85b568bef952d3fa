"""Calibration: coverage, ranks, spread over error and energy score of Gaussian ensembles, against loops and integrals."""

import math

import numpy as np
import pytest
from scipy import stats

from closure_jax.evaluation import calibration

N, STATES = 32, 48
POINTS = N * N * STATES  # all independent where fields are white


def draws(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def white(members: int, scale: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(samples of deviation `scale` about `shift`, truths of deviation 1 about 0), all points independent."""
    return shift + scale * draws(STATES, members, N, N, seed=members), draws(STATES, 1, N, N, seed=1)


def smooth(*shape: int, seed: int) -> np.ndarray:
    """Fields of unit variance whose points are strongly correlated: about twenty independent numbers each."""
    k = np.fft.fftfreq(N, 1 / N)
    envelope = np.exp(-(k[:, None] ** 2 + k**2) / 8)
    fields = np.fft.ifft2(envelope * np.fft.fft2(draws(*shape, N, N, seed=seed))).real
    return (fields * N / np.sqrt(np.sum(envelope**2))).astype(np.float32)


def enclosed(members: int, inner: int, scale: float) -> float:
    """Probability that a normal truth lies between the order statistics `inner` and E + 1 - inner of members `scale` times as
    large."""
    y = np.linspace(-9, 9, 4001)
    below = stats.binom(members, stats.norm.cdf(y / scale))
    return float(np.trapezoid(stats.norm.pdf(y) * (below.cdf(members - inner) - below.cdf(inner - 1)), y))


# --- coverage ----------------------------------------------------------------------------------------------------------


def test_a_calibrated_ensemble_covers_what_it_says_at_any_size():
    for members in (3, 8, 16, 17, 64):
        for level, covered in calibration.coverage(*white(members)).items():
            p = int(level) / 100
            if calibration.is_blunt(int(level), members):
                assert math.isnan(covered) and (level, members) in (("80", 3), ("90", 3), ("90", 8))
            else:
                assert covered == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / POINTS)), (members, level)


def test_an_ensemble_that_misses_by_far_is_never_said_to_cover_more_than_half():
    for members in range(2, 24):
        samples, _ = white(members)
        far = np.full_like(samples[:, :1], 50.0)
        found = [value for value in calibration.coverage(samples, far).values() if not math.isnan(value)]
        assert max(found, default=0.0) <= 0.5 + 1e-9, members


def test_coverage_is_that_of_order_statistics_counted_in_loops():
    samples, truths = draws(2, 19, 6, 6, seed=2), draws(2, 3, 6, 6, seed=3)
    found = calibration.coverage(samples, truths)
    for level, inner in (("50", 5), ("80", 2), ("90", 1)):  # (20 - 2 i) / 20
        inside = []
        for state, members in enumerate(samples):
            for truth in truths[state]:
                for place in np.ndindex(6, 6):
                    ordered = sorted(members[:, *place])
                    inside.append(ordered[inner - 1] < truth[place] < ordered[19 - inner])
        assert found[level] == pytest.approx(np.mean(inside))


def test_a_wrong_spread_covers_what_an_integral_says():
    for scale in (0.5, 2.0):
        found = calibration.coverage(*white(19, scale))
        for level, inner in (("50", 5), ("80", 2), ("90", 1)):
            p = enclosed(19, inner, scale)
            assert enclosed(19, inner, 1.0) == pytest.approx(int(level) / 100, abs=1e-6)
            assert found[level] == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / POINTS))
            assert (found[level] < int(level) / 100) == (scale < 1)


# --- ranks -------------------------------------------------------------------------------------------------------------


def test_rank_shares_are_counted_and_bins_take_their_overlap():
    samples, truths = draws(3, 6, 8, 8, seed=4), draws(3, 2, 8, 8, seed=5)
    shares = calibration.rank_shares(samples, truths)
    assert shares.shape == (2, 7)
    for number in range(2):
        ranks = (samples < truths[:, number, None]).sum(axis=1)
        np.testing.assert_allclose(shares[number], np.bincount(ranks.ravel(), minlength=7) / ranks.size, rtol=1e-6)
    found = calibration.rank_histogram(samples, truths[:, 0])["share"]
    for place in range(10):  # seven ranks in ten bins
        overlap = [max(0, min((r + 1) / 7, (place + 1) / 10) - max(r / 7, place / 10)) * 7 for r in range(7)]
        assert found[place] == pytest.approx(np.dot(overlap, shares[0]), abs=1e-6)
    assert sum(found) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_the_histogram_of_a_calibrated_ensemble_is_flat_at_any_size():
    for members in (4, 16, 64):
        found = calibration.rank_histogram(*[part if part.shape[1] > 1 else part[:, 0] for part in white(members)])
        np.testing.assert_allclose(found["share"], 0.1, atol=5 * math.sqrt(0.09 / POINTS))


def test_correlated_points_do_not_make_a_calibrated_ensemble_look_uneven():
    """Over repetitions flatness is near 1 and the p-value uniform; chi^2 of independent points would be far larger."""
    members, times = 16, 60
    found = [
        calibration.rank_histogram(smooth(4, members, seed=10 + i), smooth(4, seed=1000 + i)) for i in range(times)
    ]
    flatness, p_values = (np.array([one[name] for one in found]) for name in ("flatness", "p_value"))
    assert flatness.mean() == pytest.approx(1, abs=5 * flatness.std(ddof=1) / math.sqrt(times))
    expected, deviation = (members + 2) / (2 * (members + 1)), 1 / math.sqrt(12)  # of 1/17 ... 17/17
    assert p_values.mean() == pytest.approx(expected, abs=4 * deviation / math.sqrt(times))
    as_independent = np.mean([10 * 4 * N * N * np.sum((np.array(one["share"]) - 0.1) ** 2) / 9 for one in found])
    assert as_independent > 10  # of an expectation of 1


def test_a_wrong_spread_or_mean_is_found_in_the_ranks():
    truth = smooth(24, seed=6)
    for scale, shift in ((0.5, 0.0), (2.5, 0.0), (1.0, 1.0)):
        found = calibration.rank_histogram(shift + scale * smooth(24, 32, seed=7), truth)
        assert found["flatness"] > 4 and found["p_value"] == pytest.approx(1 / 33), (scale, shift)
    share = calibration.rank_histogram(0.5 * smooth(24, 32, seed=7), truth)["share"]
    assert min(share[0], share[-1]) > 0.15 > 0.1 > max(share[4:6])


# --- spread over error and energy score ----------------------------------------------------------------------------------


def test_spread_over_error_is_one_when_calibrated_and_else_what_variances_say():
    for members in (2, 16, 64):
        for scale, shift in ((1.0, 0.0), (0.5, 0.0), (2.0, 0.3)):
            expected = math.sqrt((1 + 1 / members) / (scale**2 / members + 1 + shift**2)) * scale
            found = calibration.spread_over_error(*white(members, scale, shift))
            # mean squares of POINTS normal numbers, or of (E - 1) times as many: each root is known to 1 / sqrt(2 POINTS)
            assert found == pytest.approx(expected, rel=5 / math.sqrt(POINTS)), (members, scale)
    assert math.isnan(calibration.spread_over_error(np.ones((2, 3, 4, 4)), np.ones((2, 5, 4, 4))))
    assert calibration.spread_over_error(np.ones((2, 3, 4, 4)), np.zeros((2, 5, 4, 4))) == 0


def test_each_truth_counts_alike():
    samples, truths = draws(3, 8, 6, 6, seed=8), draws(3, 5, 6, 6, seed=9)
    alone = [calibration.spread_over_error(samples, truths[:, i : i + 1]) for i in range(5)]
    squares = np.mean(np.array(alone) ** -2.0)  # the error is a root mean square over truths
    assert calibration.spread_over_error(samples, truths) == pytest.approx(squares**-0.5)
    alone = [calibration.coverage(samples, truths[:, i : i + 1])["80"] for i in range(5)]
    assert calibration.coverage(samples, truths)["80"] == pytest.approx(np.mean(alone))


def test_fair_energy_score_is_the_double_sum():
    for members in (2, 7):
        samples, truth = 3 + 0.02 * draws(3, members, 6, 6, seed=1), 3 + 0.02 * draws(3, 6, 6, seed=2)
        scores = []
        for x, y in zip(samples.astype(np.float64), truth.astype(np.float64), strict=True):
            mutual = sum(np.linalg.norm(a - b) / 6 for a in x for b in x)
            distance = np.mean([np.linalg.norm(a - y) / 6 for a in x])
            scores.append(distance - mutual / (2 * members * (members - 1)))
        assert calibration.energy_score(samples, truth) == pytest.approx(np.mean(scores), rel=1e-9)


def test_energy_score_of_the_true_law_is_its_expectation_at_any_size_and_the_least():
    """Half the mean distance of two draws; few points, so that fields do not all lie at one distance."""
    side, states = 2, 4000
    pair = math.sqrt(2) * stats.chi(side**2).mean() / side
    for members in (2, 5, 40):
        samples, truth = draws(states, members, side, side, seed=members), draws(states, side, side, seed=3)
        error = math.sqrt(2) * stats.chi(side**2).std() / side / math.sqrt(states)  # of one distance a state; larger
        true = calibration.energy_score(samples, truth)
        assert true == pytest.approx(pair / 2, abs=5 * error)
        for scale, shift in ((0.2, 0.0), (3.0, 0.0), (1.0, 1.5)):
            assert calibration.energy_score(scale * samples + shift, truth) > true + 0.02


def test_deviation_by_shell_is_that_of_the_law():
    samples = 0.02 * draws(100, 6, 16, 16, seed=1) + draws(100, 1, 16, 16, seed=2)
    index = np.fft.fftfreq(16, 1 / 16)
    modes = np.bincount(np.rint(np.hypot(index[:, None], index)).astype(int).ravel())[:9]
    found = calibration.deviation_by_shell(samples)
    error = 1 / np.sqrt(2 * 500 * modes)  # 500 free fields of that many real numbers in the shell
    assert np.all(np.abs(np.array(found) / (0.02 * np.sqrt(modes) / 16) - 1) < 5 * error)


def test_an_ensemble_without_spread_or_with_a_member_that_overflowed_has_no_ranks():
    truth = draws(2, 4, 4, seed=1)
    broken = draws(2, 3, 4, 4, seed=2)
    broken[0, 1] = np.inf
    for samples in (np.repeat(truth[:, None], 3, axis=1), broken):
        with np.errstate(invalid="ignore"):
            found = calibration.coverage(samples, truth[:, None]) | calibration.rank_histogram(samples, truth)
        assert np.isnan(np.concatenate([np.ravel(value) for value in found.values()])).all()
        assert len(found["share"]) == calibration.BINS
