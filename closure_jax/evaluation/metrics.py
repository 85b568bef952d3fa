"""Measures of samples against the truth and against the exact law. Fields are (states, n, n), samples (states, E, n, n)."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from closure_jax.physics import spectral


def relative_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Mean over states of ||estimate - truth|| / ||truth||, Frobenius norms (the published metric)."""
    return float(np.mean(relative_errors(estimate, truth)))


def relative_errors(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """||estimate - truth|| / ||truth|| of each state, (states,)."""
    difference = np.linalg.norm((estimate - truth).reshape(len(truth), -1), axis=1)
    return difference / np.linalg.norm(truth.reshape(len(truth), -1), axis=1)


def unbiased_relative_error(samples: np.ndarray, truth: np.ndarray) -> float:
    """`relative_error` of the mean of infinitely many samples, from E: what the finite number adds is taken off.

    A state's squared error is ||mean - truth||^2 - variance / E, the mean of <x_i - truth, x_j - truth> over pairs i != j. It has
    the right expectation, and may be negative near zero: its root keeps the sign until states are averaged, else a perfect
    law would never have 0. The average is cut at 0.

    Args:
      samples: (states, E, n, n).
      truth: (states, n, n).
    """
    of_mean = np.var(samples, axis=1, ddof=1, dtype=np.float64) / samples.shape[1]
    square = np.sum((samples.mean(axis=1, dtype=np.float64) - truth) ** 2 - of_mean, axis=(1, 2))
    size = np.linalg.norm(truth.reshape(len(truth), -1), axis=1)
    return float(np.maximum(0, np.mean(np.sign(square) * np.sqrt(np.abs(square)) / size)))


def rms_spread(samples: np.ndarray) -> float:
    """Root mean square, over points and states, of the ensemble's standard deviation (ddof 1)."""
    return float(np.sqrt(np.mean(np.var(samples, axis=1, ddof=1, dtype=np.float64))))


def ensemble_crps(samples: np.ndarray, observations: np.ndarray) -> float:
    """Fair continuous ranked probability score, mean over points, states and observations.

        mean |x_i - y| - 1 / (2 E (E - 1)) sum_ij |x_i - x_j|       (Ferro 2014, fair for finite ensembles)

    Args:
      samples: (states, E, n, n).
      observations: (states, O, n, n); each is scored against all samples.
    """
    scores = [_state_crps(x, y) for x, y in zip(samples, observations, strict=True)]
    return float(np.mean(scores))


@jax.jit
def _state_crps(x: jax.Array, y: jax.Array) -> jax.Array:
    count = x.shape[0]
    distance = jnp.mean(jax.lax.map(lambda one: jnp.mean(jnp.abs(x - one)), y))
    ordered = jnp.sort(x, axis=0)
    rank = (2.0 * jnp.arange(1, count + 1) - count - 1).reshape(-1, 1, 1)
    mutual = 2.0 * jnp.mean(jnp.sum(rank * ordered, axis=0)) / (count * (count - 1))
    return distance - 0.5 * mutual


def gaussian_crps(mean: np.ndarray, deviation: float, observation: np.ndarray) -> float:
    """CRPS of Normal(mean, deviation^2) at the observations, mean over points: what the exact law scores."""
    z = (observation - mean) / deviation
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    score = deviation * (z * erf(z / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.mean(score))


def deviation_spectrum(samples: np.ndarray) -> np.ndarray:
    """Spectrum of the samples about their own mean, unbiased, mean over states: (n // 2 + 1,)."""
    count = samples.shape[1]
    spectra = [np.asarray(_mean_spectrum(x - x.mean(axis=0))) for x in samples]
    return np.mean(spectra, axis=0) * count / (count - 1)


@jax.jit
def _mean_spectrum(fields: jax.Array) -> jax.Array:
    return jnp.mean(spectral.power_spectrum(fields), axis=0)


def mean_spectrum(fields: np.ndarray) -> np.ndarray:
    """Mean power spectrum of (count, n, n): (n // 2 + 1,)."""
    return np.asarray(_mean_spectrum(fields))


def log_spectrum_error(spectrum: np.ndarray, exact: np.ndarray, share: float = 0.99) -> float:
    """Mean absolute log ratio over the shells that carry `share` of the exact spectrum, strongest first."""
    if exact.sum() <= 0:
        return float("nan")
    order = np.argsort(exact)[::-1]
    carried = order[: int(np.searchsorted(np.cumsum(exact[order]), share * exact.sum())) + 1]
    return float(np.mean(np.abs(np.log(np.maximum(spectrum[carried], 1e-30) / exact[carried]))))


def path_measures(states: np.ndarray) -> dict[str, float]:
    """How long and how straight the sampler's paths are, mean over the batch, per entry (root mean square).

    Args:
      states: (steps + 1, batch, ...), source first.
    Returns:
      "length" sum of the steps' sizes, "displacement" from source to sample, "straightness" displacement over length: 1 for
      a straight line. The noise of an SDE counts: its length grows with the number of steps.
    """
    flat = states.reshape(*states.shape[:2], -1).astype(np.float64)
    sizes = np.sqrt(np.mean(np.diff(flat, axis=0) ** 2, axis=2))
    length, displacement = sizes.sum(axis=0), np.sqrt(np.mean((flat[-1] - flat[0]) ** 2, axis=1))
    return {
        "length": float(length.mean()),
        "displacement": float(displacement.mean()),
        "straightness": float(np.mean(displacement / length)),
    }
