"""Measures against the law of the closure: perfect samples have perfect values, however many there are."""

import math

import numpy as np
import pytest

from closure_jax.evaluation import measures, metrics
from closure_jax.problems.base import Law

N, STATES = 32, 48
POINTS = N * N * STATES  # all independent


def draws(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_perfect_samples_reach_the_floor_at_any_size():
    """over_floor 1 and excess 0, where the errors of sample means are 3, 1.5 and 0.8 % over the floor, and floor / sqrt(E)."""
    mean, deviation = 1 + 0.3 * draws(STATES, N, N, seed=20), 0.1
    truth = mean + deviation * draws(STATES, N, N, seed=21)
    known = measures.JudgingLaw(Law(mean, deviation, np.ones(N // 2 + 1)), truth)
    for members in (16, 32, 64):
        samples = mean[:, None] + deviation * draws(STATES, members, N, N, seed=members)
        # <mean of samples - mean, mean - truth> over ||mean - truth||^2 has deviation 1 / sqrt(E points of a state)
        found = measures.OF_LAW["over_floor"](samples, known)
        assert found == pytest.approx(1, abs=5 / math.sqrt(members * POINTS))
        assert metrics.relative_error(samples.mean(axis=1), truth) / known.floor - 1 > 0.4 / members
        # ||mean of samples - mean||^2 less variance / E: chi^2 of N^2 numbers about its mean; its root has at most this deviation
        bound = known.floor / math.sqrt(members) * (2 / N**2) ** 0.25 / math.sqrt(STATES)
        assert 0 <= measures.OF_LAW["excess_error"](samples, known) < 5 * bound < 0.2 * known.floor / math.sqrt(members)
        shifted = measures.OF_LAW["excess_error"](samples + 0.05, known)
        assert shifted == pytest.approx(
            metrics.relative_error(mean + 0.05, mean), rel=5 * 0.1 / 0.05 / math.sqrt(members * POINTS)
        )


def test_without_spread_nothing_is_taken_off():
    samples, truth = np.repeat(draws(4, 1, 8, 8, seed=1), 5, axis=1), draws(4, 8, 8, seed=2)
    expected = metrics.relative_error(samples[:, 0], truth)
    assert metrics.unbiased_relative_error(samples, truth) == pytest.approx(expected, rel=1e-6)
