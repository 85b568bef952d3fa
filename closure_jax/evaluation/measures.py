"""What is said of samples and of rollouts, in tables; names are keys of results.json.

A new measure is an entry of the table whose arguments it needs, or an argument `measures` of `a_priori.evaluate` and
`a_posteriori.evaluate`, which an experiment passes without an entry.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from closure_jax.evaluation import calibration, metrics, statistics
from closure_jax.evaluation.statistics import Statistics
from closure_jax.problems.base import Law, Problem

VERSION = 3
"""Of the tables; results.json has it in its settings, and an evaluation of another version is stale.

1 (and results without): `over_floor` and `excess_error` hold what a finite number of samples adds; no calibration. 2: free of
it; `conditional_smoothness` in the latents' own units, coverage of 80 and 90 % of ensembles too small to say, decorrelation times
that short rollouts make themselves. 3: none of these.
"""

Value = float | Sequence[float] | Mapping[str, float] | Mapping[str, float | list[float]]
"""A number, a list of them, or an object of both; what is undefined is nan, and null in results.json."""

SampleMeasure = Callable[[np.ndarray, np.ndarray], Value]
"""(samples (states, samples, n, n), truth (states, n, n)) -> value."""

RolloutMeasure = Callable[[np.ndarray, np.ndarray, Problem], Sequence[float] | Mapping[str, Sequence[float]]]
"""(ensemble, true ensemble, problem) -> a number for each time, or some by name; ensembles are (time, states, members, n, n)."""


@dataclasses.dataclass(frozen=True)
class JudgingLaw:
    """The law of the closure with one draw of it for each state, `truth` (states, n, n)."""

    law: Law
    truth: np.ndarray

    @functools.cached_property
    def floor(self) -> float:
        """Relative error of the exact mean: what no model can beat."""
        return metrics.relative_error(self.law.mean, self.truth)

    @functools.cached_property
    def crps(self) -> float:
        """CRPS of the exact law; nan without noise."""
        law = self.law
        return metrics.gaussian_crps(law.mean, law.deviation, self.truth) if law.deviation > 0 else float("nan")


StateMeasure = Callable[[np.ndarray, np.ndarray], Value]
"""(samples (states, samples, n, n), vorticity (states, n, n)) -> value; the truth is asked as one sample a state."""

LawMeasure = Callable[[np.ndarray, JudgingLaw], Value]
"""(samples (states, samples, n, n), law) -> value; entered where a problem knows its law."""


def _mean_error(samples: np.ndarray, truth: np.ndarray) -> float:
    return metrics.relative_error(samples.mean(axis=1), truth)


def _ratio(value: float, unit: float) -> float:
    return value / unit if unit > 0 else float("nan")


def _unbiased_square(samples: np.ndarray) -> float:
    """Variance that the mean of finitely many samples has about that of infinitely many."""
    return metrics.rms_spread(samples) ** 2 / samples.shape[1]


def _r2(samples: np.ndarray, truth: np.ndarray) -> float:
    """1 - (mean square error of the mean of samples, without what their finite number adds) / variance of the truth."""
    error = float(np.mean((samples.mean(axis=1, dtype=np.float64) - truth) ** 2)) - _unbiased_square(samples)
    return 1 - _ratio(error, float(np.var(truth, dtype=np.float64)))


def _correlation(samples: np.ndarray, truth: np.ndarray) -> float:
    """Of the mean of samples with the truth over points and states, without what their finite number takes off."""
    mean = samples.mean(axis=1, dtype=np.float64)
    variance = float(np.var(mean)) - _unbiased_square(samples)
    product = float(np.mean((mean - mean.mean()) * (truth - truth.mean(dtype=np.float64))))
    return _ratio(product, float(np.sqrt(max(0.0, variance) * np.var(truth, dtype=np.float64))))


def _transfer(sign: int) -> StateMeasure:
    """Enstrophy that the closure gives (sign 1) or takes (-1), mean over points of w H where it has this sign, per time."""
    return lambda samples, vorticity: float(
        np.mean(sign * np.maximum(sign * samples * vorticity[:, None], 0), dtype=np.float64)
    )


OF_SAMPLES: dict[str, SampleMeasure] = {
    "relative_error": _mean_error,
    "spread": lambda samples, truth: metrics.rms_spread(samples),
    "mean_squared_error": lambda samples, truth: float(np.mean((samples.mean(axis=1) - truth) ** 2)),
    "crps": lambda samples, truth: metrics.ensemble_crps(samples, truth[:, None]),
    "coverage": lambda samples, truth: calibration.coverage(samples, truth[:, None]),
    "spread_over_error": lambda samples, truth: calibration.spread_over_error(samples, truth[:, None]),
    "energy_score": calibration.energy_score,
    "rank_histogram": calibration.rank_histogram,
    "deviation_by_shell": lambda samples, truth: calibration.deviation_by_shell(samples),
    "r2": _r2,
    "correlation": _correlation,
}
"""Of samples against one draw of the truth for each state."""

OF_STATES: dict[str, StateMeasure] = {"transfer_forward": _transfer(-1), "transfer_back": _transfer(1)}
"""Of samples and the state that they belong to; the truth's own value stands beside, as NAME_truth."""

OF_LAW: dict[str, LawMeasure] = {
    "over_floor": lambda samples, known: _ratio(metrics.unbiased_relative_error(samples, known.truth), known.floor),
    "excess_error": lambda samples, known: metrics.unbiased_relative_error(samples, known.law.mean),
    "spread_ratio": lambda samples, known: _ratio(metrics.rms_spread(samples), known.law.deviation),
    "noise_spectrum_error": lambda samples, known: metrics.log_spectrum_error(
        metrics.deviation_spectrum(samples), known.law.spectrum
    ),
    "crps_ratio": lambda samples, known: metrics.ensemble_crps(samples, known.truth[:, None]) / known.crps,
}
"""Of samples against the law, where it is known."""


def by_time(measure: Callable[[np.ndarray, np.ndarray], float]) -> RolloutMeasure:
    """A measure of two ensembles (states, members, n, n) as one of rollouts, time by time."""
    return lambda fields, truth, problem: [measure(one, true) for one, true in zip(fields, truth, strict=True)]


OF_ROLLOUTS: dict[str, RolloutMeasure] = {
    "relative_error": by_time(lambda fields, truth: metrics.relative_error(fields.mean(axis=1), truth.mean(axis=1))),
    "spread": by_time(lambda fields, truth: metrics.rms_spread(fields)),
    "crps": by_time(metrics.ensemble_crps),
}
"""Of an ensemble against that of the true system; the model and every baseline alike."""


def _coverage_by_time(fields: np.ndarray, truth: np.ndarray, problem: Problem) -> dict[str, list[float]]:
    """Coverage of the true members at each time, by level."""
    found = [calibration.coverage(one, true) for one, true in zip(fields, truth, strict=True)]
    return {level: [one[level] for one in found] for level in found[0]}


OF_SPREAD: dict[str, RolloutMeasure] = {
    "coverage": _coverage_by_time,
    "spread_over_error": by_time(calibration.spread_over_error),
}
"""The same of ensembles that are random: each true member in turn is the truth."""


OF_STATISTICS: dict[str, Callable[[Statistics, Statistics], float]] = {
    "spectrum_error": statistics.spectrum_error,
    "enstrophy_flux_error": statistics.enstrophy_flux_error,
    "tail_error": statistics.tail_error,
    "decorrelation_time": lambda model, truth: model.decorrelation_time,
}
"""Of an ensemble's statistics over the whole rollout against the truth's."""


def judge(
    samples: np.ndarray,
    truth: np.ndarray,
    vorticity: np.ndarray,
    known: JudgingLaw | None,
    more: Mapping[str, SampleMeasure],
) -> dict[str, Value]:
    """All measures of the samples, by name.

    Args:
      samples: (states, samples, n, n).
      truth, vorticity: (states, n, n).
      known: the law, where it is known; its measures are left out otherwise.
      more: measures beside the table's.
    """
    found = {name: measure(samples, truth) for name, measure in (OF_SAMPLES | dict(more)).items()}
    found |= {name: measure(samples, vorticity) for name, measure in OF_STATES.items()}
    return found | {name: measure(samples, known) for name, measure in OF_LAW.items() if known is not None}
