"""A priori: samples of the closure against the truth, on states of test trajectories.

Where a problem knows the law of its closure, the law serves as measure only; no model sees it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import interrupts, random
from closure_jax.closure import StochasticClosure
from closure_jax.coupling.draw import FixedSteps, is_random
from closure_jax.data.dataset import Dataset
from closure_jax.evaluation import metrics
from closure_jax.evaluation.measures import OF_STATES, JudgingLaw, SampleMeasure, judge
from closure_jax.parallel import progress
from closure_jax.problems.base import Law, Problem

_EXAMPLES = 3  # states shown in full
_SHOWN = 2  # samples of each
_BLOCK = 256  # fields sampled at once
_TIMED = 64  # fields in one timed call
_HELD = 4  # states that are judged for each one of the validation split, by which a number of steps is chosen
_PATH_STEPS = 50  # sampler steps of the paths whose length is measured


def spread_states(dataset: Dataset, count: int, split: str = "test") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(time, vorticity, closure) of `count` states spread evenly over time, trajectories in turn: (count,), (count, n, n)."""
    trajectories, snapshots = dataset.vorticity[split].shape[:2]
    columns = np.round(np.linspace(0, snapshots - 1, count)).astype(int)
    rows = np.arange(count) % trajectories
    return dataset.time[columns], dataset.vorticity[split][rows, columns], dataset.closure[split][rows, columns]


def held_states(states: int, steps: Sequence[int]) -> int:
    """States of the validation split that are sampled beside `states` test states: none where no number of steps is chosen."""
    return max(1, states // _HELD) if len(steps) > 1 else 0


def evaluate(
    problem: Problem,
    dataset: Dataset,
    model: StochasticClosure,
    seed: int,
    states: int,
    samples: int,
    steps: Sequence[int],
    measures: Mapping[str, SampleMeasure] = MappingProxyType({}),
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The `a_priori` part of results.json, and arrays for the report.

    Numbers of sampler steps have a `validation_crps` too, by which one may be chosen without the states that judge it.

    Args:
      problem: knows the law of the closure, or does not: what needs it is then left out.
      dataset: trajectories; those of the validation split for `validation_crps` alone.
      model: the closure to judge.
      seed: of the samples.
      states: how many test states.
      samples: how many of each state.
      steps: numbers of sampler steps, each judged by itself.
      measures: beside those of the tables, by name.
    """
    times, vorticity, truth = spread_states(dataset, states)
    law = problem.law(vorticity)
    known = None if law is None else JudgingLaw(law, truth)
    by_steps, spectra = {}, []
    arrays: dict[str, np.ndarray] = {}
    chosen_by = held_states(states, steps)
    _, held, held_truth = spread_states(dataset, chosen_by, "validation")
    sampler = Sampler(model, seed, vorticity, samples, max(steps), held)
    shown = min(steps, key=lambda n: abs(n - model.steps))
    schedules = model.transport.schedules()
    schedule, *others = schedules
    bar = progress.bar(len(steps), "a priori", "setting")
    for count in steps:
        drawn, drawn_held = np.split(sampler.draw(count), [states])
        spectra.append(metrics.deviation_spectrum(drawn))
        by_steps[str(count)] = judge(drawn, truth, vorticity, known, measures) | sampler.milliseconds(count)
        if chosen_by:
            by_steps[str(count)]["validation_crps"] = metrics.ensemble_crps(drawn_held, held_truth[:, None])
        if count == shown:
            arrays |= {"a_priori_steps": np.array(count)} | _examples(times, vorticity, truth, law, drawn)
            arrays |= _by_state(times, truth, law, drawn)
        bar.update()
    bar.close()
    by_schedule = {}
    for other in others:
        spaced = Sampler(model.replace(transport=schedules[other]), seed, vorticity, samples, max(steps), held[:0])
        by_schedule[other] = {
            str(count): judge(spaced.draw(count), truth, vorticity, known, measures) for count in steps
        }
    arrays |= {"noise_spectrum_steps": np.array(steps), "noise_spectrum_model": np.array(spectra)}
    results: dict[str, Any] = {
        "states": states,
        "samples": samples,
        "times": times.tolist(),
        "schedule": schedule,
        "by_steps": by_steps,
        "by_schedule": by_schedule,
        "noise_spectrum": {"model": dict(zip(by_steps, spectra, strict=True))},
        "path": sampler.path_measures(min(_PATH_STEPS, max(steps))),
        "milliseconds": sampler.milliseconds_of_parts(),
        **{f"{name}_truth": measure(truth[:, None], vorticity) for name, measure in OF_STATES.items()},
    }
    if not is_random(FixedSteps(model, max(steps)), vorticity.shape[-1]):  # then a CRPS is the mean absolute error
        results["mean_absolute_error_mse"] = by_steps[str(max(steps))]["crps"]
    if known is not None:
        results |= {"floor": known.floor, "exact_standard_deviation": known.law.deviation}
        results["noise_spectrum"]["exact"] = known.law.spectrum
        results["exact_deviation_by_shell"] = np.sqrt(known.law.spectrum)
        arrays |= {
            "noise_spectrum_exact": known.law.spectrum,
            "noise_standard_deviation": np.array(known.law.deviation),
        }
    return results, arrays


def _examples(
    times: np.ndarray, vorticity: np.ndarray, truth: np.ndarray, law: Law | None, samples: np.ndarray
) -> dict[str, np.ndarray]:
    """Arrays of a few states in full, for the report.

    Args:
      times: (states,).
      vorticity, truth: (states, n, n).
      law: its mean is shown where it is known.
      samples: (states, samples, n, n).
    """
    rows = np.unique(np.linspace(0, len(times) - 1, min(_EXAMPLES, len(times))).astype(int))
    return {
        "a_priori_time": times[rows],
        "a_priori_vorticity": vorticity[rows],
        "a_priori_truth": truth[rows],
        **({} if law is None else {"a_priori_exact_mean": law.mean[rows]}),
        "a_priori_samples": samples[rows, :_SHOWN],
        "a_priori_mean": samples[rows].mean(axis=1),
        "a_priori_spread": samples[rows].std(axis=1, ddof=1),
        "closure_spectrum_truth": metrics.mean_spectrum(truth),
        "closure_spectrum_model": metrics.mean_spectrum(samples[:, 0]),
    }


def _by_state(times: np.ndarray, truth: np.ndarray, law: Law | None, samples: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of each state's time, relative error and spread, and where the law is known of its floor; see `_examples`."""
    variance = np.var(samples, axis=1, ddof=1, dtype=np.float64)
    return {
        "state_time": times,
        "state_error": metrics.relative_errors(samples.mean(axis=1), truth),
        "state_spread": np.sqrt(variance.mean(axis=(1, 2))),
        **({} if law is None else {"state_floor": metrics.relative_errors(law.mean, truth)}),
    }


class Sampler:
    """Samples of a model for fixed states, and their cost; one compiled program draws them for all numbers of sampler steps."""

    def __init__(
        self, model: StochasticClosure, seed: int, vorticity: np.ndarray, count: int, most: int, more: np.ndarray
    ):
        """Encodes the states.

        Args:
          model: the closure.
          seed: of all samples; see `draw`.
          vorticity: (states, n, n).
          count: samples of each state.
          most: the largest number of sampler steps that `draw` will be asked for.
          more: (others, n, n), states that are drawn too, behind the first ones; all else is of those.
        """
        states = np.concatenate([vorticity, more])
        self._model, self._shape, self._count = model, states.shape, count
        key, timing = random.stream(seed, "samples"), random.stream(seed, "timing")
        self._size = min(_BLOCK, len(states) * count)
        self._encode, self._decode = jax.jit(StochasticClosure.encode), jax.jit(StochasticClosure.decode)
        self._conditions = self._encode(model, states)
        self._timed_fields = jnp.asarray(np.resize(vorticity, (_TIMED, *vorticity.shape[1:])))
        self._timed_keys = jax.random.split(timing, _TIMED)
        fixed = _noise_grows(model, self._conditions)
        self._call = jax.jit(
            lambda model, fields, steps: model(timing, fields, steps), static_argnums=2 if fixed else ()
        )
        self._sample = jax.jit(
            lambda model, keys, condition, steps: model.sample_latent(
                model.latent_noise(keys, condition, steps), condition, steps
            ),
            static_argnums=3 if fixed else (),
        )

        def block(model, conditions, first, steps):
            number = first + jnp.arange(self._size)
            state, member = number // count, number % count
            keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(state, member)
            noise = model.latent_noise(keys, conditions[state], most)
            return model.decode(model.sample_latent(noise, conditions[state], steps))

        self._block = jax.jit(block)

    def draw(self, steps: int) -> np.ndarray:
        """(states, count, n, n); sample j of state i draws from part (i, j) of the stream `samples`. A state is encoded once."""
        total, parts = self._shape[0] * self._count, []
        for start in range(0, total, self._size):
            interrupts.check()
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

        @jax.jit
        def trajectory(model, keys, condition):
            return model.trajectory(model.latent_noise(keys, condition, steps), condition, steps)

        states = trajectory(self._model, self._timed_keys, self._encode(self._model, self._timed_fields))
        return {"steps": steps, **metrics.path_measures(np.asarray(states))}


def _noise_grows(model: StochasticClosure, conditions: jax.Array) -> bool:
    """Whether a sample of more steps needs more noise, as an SDE's does; each number of steps is then a program of its own."""

    def shapes(steps: int) -> list[tuple[int, ...]]:
        keys = jax.random.split(jax.random.key(0), len(conditions))
        noise = jax.eval_shape(lambda: model.latent_noise(keys, conditions, steps))
        return [leaf.shape for leaf in jax.tree.leaves(noise)]

    return shapes(1) != shapes(2)


def _milliseconds(function: Callable, *arguments: Any) -> float:
    """Median wall time of a call over its batch of `_TIMED`, compilation apart."""
    function(*arguments).block_until_ready()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / _TIMED * 1e3
