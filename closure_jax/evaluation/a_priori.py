"""A priori: samples of the closure against the truth, on states of test trajectories.

The exact mean and the exact noise serve as measure only; no model sees them.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from closure_jax.closure import StochasticClosure
from closure_jax.config import build
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.physics import spectral

_EXAMPLES = 3  # states shown in full
_SHOWN = 2  # samples of each
_BLOCK = 256  # fields sampled at once
_TIMED = 64  # fields in one timed call
_PATH_STEPS = 50  # sampler steps of the paths whose length is measured


def test_states(dataset: Dataset, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time, vorticity, closure) of `count` states spread evenly over time, trajectories in turn: (count,), (count, n, n)."""
    trajectories, snapshots = dataset.vorticity["test"].shape[:2]
    columns = np.round(np.linspace(0, snapshots - 1, count)).astype(int)
    rows = np.arange(count) % trajectories
    return dataset.time[columns], dataset.vorticity["test"][rows, columns], dataset.closure["test"][rows, columns]


@dataclasses.dataclass(frozen=True)
class ExactLaw:
    """What samples are judged against; fields are (states, n, n).

    Attributes:
      truth: one draw of the true closure for each state.
      mean: E[H | w] = -u.grad(w).
      deviation: pointwise standard deviation of the noise.
      spectrum: variance of the noise by shell of wavenumber.
    """

    truth: np.ndarray
    mean: np.ndarray
    deviation: float
    spectrum: np.ndarray

    @functools.cached_property
    def floor(self) -> float:
        """Relative error of the exact mean: what no model can beat."""
        return metrics.relative_error(self.mean, self.truth)

    @functools.cached_property
    def crps(self) -> float:
        """CRPS of the exact law; nan without noise."""
        return metrics.gaussian_crps(self.mean, self.deviation, self.truth) if self.deviation > 0 else float("nan")


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else float("nan")


MEASURES: dict[str, Callable[[np.ndarray, ExactLaw], float]] = {
    "relative_error": lambda samples, law: metrics.relative_error(samples.mean(axis=1), law.truth),
    "over_floor": lambda samples, law: _ratio(metrics.relative_error(samples.mean(axis=1), law.truth), law.floor),
    "excess_error": lambda samples, law: metrics.relative_error(samples.mean(axis=1), law.mean),
    "spread": lambda samples, law: metrics.rms_spread(samples),
    "spread_ratio": lambda samples, law: _ratio(metrics.rms_spread(samples), law.deviation),
    "noise_spectrum_error": lambda samples, law: metrics.log_spectrum_error(
        metrics.deviation_spectrum(samples), law.spectrum
    ),
    "crps_ratio": lambda samples, law: metrics.ensemble_crps(samples, law.truth[:, None]) / law.crps,
    "mean_squared_error": lambda samples, law: float(np.mean((samples.mean(axis=1) - law.truth) ** 2)),
}
"""What is said of samples (states, E, n, n), by its name in results.json: the table where a new measure is entered."""


def judge(samples: np.ndarray, law: ExactLaw) -> dict[str, float]:
    """All measures of the samples."""
    return {name: measure(samples, law) for name, measure in MEASURES.items()}


def evaluate(
    config: ml_collections.ConfigDict, dataset: Dataset, model: StochasticClosure
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `a_priori` part of results.json, and arrays for the report."""
    ev = config.evaluation
    times, vorticity, truth = test_states(dataset, ev.states)
    flow = build.stored_flow(config)
    noise = build.noise(config, flow)
    deviation, exact_spectrum = noise.standard_deviation(), noise.shell_spectrum()
    exact_mean = np.asarray(spectral.advection(vorticity, flow.grid))
    law = ExactLaw(truth, exact_mean, deviation, exact_spectrum)
    key = jax.random.fold_in(jax.random.key(config.seed), 101)

    by_steps, spectra = {}, []
    arrays: dict[str, np.ndarray] = {}
    sampler = Sampler(model, key, vorticity, ev.samples)
    shown = min(ev.steps, key=lambda n: abs(n - model.steps))
    schedule, *others = model.path.schedules
    for steps in tqdm(ev.steps, desc="a priori", unit="setting", disable=None):
        samples = sampler.draw(steps)
        spectra.append(metrics.deviation_spectrum(samples))
        by_steps[str(steps)] = judge(samples, law) | sampler.milliseconds(steps)
        if steps == shown:
            arrays |= {"a_priori_steps": np.array(steps)} | _examples(times, vorticity, truth, exact_mean, samples)
    by_schedule = {}
    for other in others:
        spaced = Sampler(model.replace(path=model.path.with_schedule(other)), key, vorticity, ev.samples)
        by_schedule[other] = {str(steps): judge(spaced.draw(steps), law) for steps in ev.steps}
    arrays |= {
        "noise_spectrum_exact": exact_spectrum,
        "noise_spectrum_steps": np.array(ev.steps),
        "noise_spectrum_model": np.array(spectra),
        "noise_standard_deviation": np.array(deviation),
    }
    results = {
        "floor": law.floor,
        "states": ev.states,
        "samples": ev.samples,
        "times": times.tolist(),
        "exact_standard_deviation": deviation,
        "schedule": schedule,
        "by_steps": by_steps,
        "by_schedule": by_schedule,
        "noise_spectrum": {"exact": exact_spectrum, "model": dict(zip(by_steps, spectra, strict=True))},
        "path": sampler.path_measures(min(_PATH_STEPS, max(ev.steps))),
        "milliseconds": sampler.milliseconds_of_parts(),
    }
    return results, arrays


def _examples(
    times: np.ndarray, vorticity: np.ndarray, truth: np.ndarray, exact_mean: np.ndarray, samples: np.ndarray
) -> dict[str, np.ndarray]:
    """Arrays of a few states in full, for the report."""
    rows = np.unique(np.linspace(0, len(times) - 1, min(_EXAMPLES, len(times))).astype(int))
    return {
        "a_priori_time": times[rows],
        "a_priori_vorticity": vorticity[rows],
        "a_priori_truth": truth[rows],
        "a_priori_exact_mean": exact_mean[rows],
        "a_priori_samples": samples[rows, :_SHOWN],
        "a_priori_mean": samples[rows].mean(axis=1),
        "a_priori_spread": samples[rows].std(axis=1, ddof=1),
        "closure_spectrum_truth": metrics.mean_spectrum(truth),
        "closure_spectrum_model": metrics.mean_spectrum(samples[:, 0]),
    }


class Sampler:
    """Samples of a model for fixed states, and their cost; one compiled program serves all numbers of sampler steps."""

    def __init__(self, model: StochasticClosure, key: jax.Array, vorticity: np.ndarray, count: int):
        self._model, self._key, self._shape, self._count = model, key, vorticity.shape, count
        self._size = min(_BLOCK, len(vorticity) * count)
        self._encode, self._decode = jax.jit(StochasticClosure.encode), jax.jit(StochasticClosure.decode)
        self._conditions = self._encode(model, vorticity)
        self._timed_fields = jnp.asarray(np.resize(vorticity, (_TIMED, *vorticity.shape[1:])))
        self._timed_keys = jax.random.split(key, _TIMED)
        self._call = jax.jit(lambda model, fields, steps: model(key, fields, steps))
        self._sample = jax.jit(StochasticClosure.sample_latent)

        def block(model, conditions, first, steps):
            number = first + jnp.arange(self._size)
            state, member = number // count, number % count
            keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(state, member)
            return model.decode(model.sample_latent(keys, conditions[state], steps))

        self._block = jax.jit(block)

    def draw(self, steps: int) -> np.ndarray:
        """(states, count, n, n); sample j of state i draws from fold_in(fold_in(key, i), j). A state is encoded once."""
        total, parts = self._shape[0] * self._count, []
        for start in range(0, total, self._size):
            first = min(start, total - self._size)
            parts.append(np.asarray(self._block(self._model, self._conditions, first, steps))[start - first :])
        return np.concatenate(parts).reshape(self._shape[0], self._count, *self._shape[1:])

    def milliseconds(self, steps: int) -> dict[str, float]:
        """Per sample: of a whole call (encode, sample, decode), and of sampling alone with the condition encoded."""
        conditions = self._encode(self._model, self._timed_fields)
        return {
            "milliseconds_per_sample": _milliseconds(self._call, self._model, self._timed_fields, steps),
            "milliseconds_sampling": _milliseconds(self._sample, self._model, self._timed_keys, conditions, steps),
        }

    def milliseconds_of_parts(self) -> dict[str, float]:
        """Per field: of encoding the vorticity and of decoding the closure, which no number of sampler steps changes."""
        latent = self._encode(self._model, self._timed_fields)
        return {
            "encode": _milliseconds(self._encode, self._model, self._timed_fields),
            "decode": _milliseconds(self._decode, self._model, latent),
        }

    def path_measures(self, steps: int) -> dict[str, float]:
        """Length and straightness of the sampler's paths from source to sample, at a number of steps; see `metrics`."""
        states = jax.jit(StochasticClosure.trajectory, static_argnums=3)(
            self._model, self._timed_keys, self._encode(self._model, self._timed_fields), steps
        )
        return {"steps": steps, **metrics.path_measures(np.asarray(states))}


def _milliseconds(function: Callable, *arguments: Any) -> float:
    """Median wall time of a call over its batch of `_TIMED`, compilation apart."""
    function(*arguments).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / _TIMED * 1e3
