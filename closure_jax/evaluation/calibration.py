"""Calibration of an ensemble: whether the truth could be one of its members. Unbiased for any number of members.

Samples are (states, E, n, n) and truths (states, O, n, n), O draws of the truth of each state. Where a truth and the members
are draws of one law, its rank among them (how many are below it, 0 to E) is uniform at every point: what is said here is made
of ranks, of pairs, and of variances with one degree of freedom less. Ties of a truth with a member count as above it; laws of
fields are continuous. An ensemble without spread is not asked: coverage and ranks of it are nan.
"""

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax.evaluation import metrics

LEVELS = (50, 80, 90)
"""Nominal probabilities of the central intervals, per cent."""

BINS = 10
"""Of a rank histogram, whatever the number of members."""


def rank_shares(samples: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """(O, E + 1): share of the points, over all states, at which a truth has each rank among the members."""
    by_state = [np.asarray(_state_shares(x, y), np.float64) for x, y in zip(samples, truths, strict=True)]
    return np.stack(by_state).mean(axis=0)


@jax.jit
def _state_shares(x: jax.Array, y: jax.Array) -> jax.Array:
    def shares(one: jax.Array) -> jax.Array:
        return jnp.bincount(jnp.sum(x < one, axis=0).ravel(), length=len(x) + 1) / one.size

    return jax.lax.map(shares, y)


def share_below(shares: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Share of the points at which the ensemble gives the truth a probability under each of `probabilities`, (...).

    Rank r stands for the probabilities from r / (E + 1) to (r + 1) / (E + 1) alike, as in the non-randomised histogram of
    Czado, Gneiting & Held (Biometrics 65, 2009): for uniform ranks the share is the probability itself, at any E.

    Args:
      shares: (E + 1,) of one truth.
      probabilities: (...), from 0 to 1.
    """
    return np.interp(probabilities, np.linspace(0, 1, len(shares) + 1), np.cumsum([0.0, *shares]))


def coverage(samples: np.ndarray, truths: np.ndarray) -> dict[str, float]:
    """Share of the points at which a truth lies in the central interval of each level, by per cent as text.

    The order statistics i and E + 1 - i of a calibrated ensemble enclose the truth with probability (E + 1 - 2 i) / (E + 1).
    Between two such intervals their shares are interpolated, and beyond the last one 1 is the next; quantiles interpolated in
    value would cover less than they should, by an amount that depends on E and on the law. With under 3, 9 and 19 members the
    intervals of 50, 80 and 90 % reach beyond the last one: right on average, but blunt, since a truth far outside counts in part.
    nan without spread, and where `is_blunt`.
    """
    if not metrics.rms_spread(samples) > 0:
        return dict.fromkeys(map(str, LEVELS), float("nan"))
    shares, half = rank_shares(samples, truths).mean(axis=0), np.array(LEVELS) / 200
    covered = share_below(shares, 0.5 + half) - share_below(shares, 0.5 - half)
    blunt = [is_blunt(level, samples.shape[1]) for level in LEVELS]
    return dict(zip(map(str, LEVELS), np.where(blunt, np.nan, covered).tolist(), strict=True))


def is_blunt(level: float, members: float) -> bool:
    """Whether a truth outside of all members would count as covered by more than half; so it is of 80 and 90 % with under 4 and
    9 members. It counts by 1 - (E + 1) (1 - level) / 2."""
    return (members + 1) * (100 - level) < 100


def rank_histogram(samples: np.ndarray, truth: np.ndarray) -> dict[str, float | list[float]]:
    """Ranks of one truth a state, (states, n, n), and whether they are as flat as correlated points can be.

    The points of a field are not independent, so the statistic chi^2 = sum (share - 1 / bins)^2 is held against what it is
    when each member in turn takes the truth's place, in all states at once. Under calibration the truth and the members are
    exchangeable, and this permutation test is exact whatever the correlation.

    Returns:
      "share" in each of `BINS` equal bins of the rank over E + 1 (a rank on an edge counts in both by its overlap);
      "flatness", chi^2 over its mean over the members, expected near 1; "p_value", the share of truth and members with as
      large a chi^2, never under 1 / (E + 1).
    """
    if not metrics.rms_spread(samples) > 0:
        return {"share": [float("nan")] * BINS, "flatness": float("nan"), "p_value": float("nan")}
    pool = np.concatenate([truth[:, None], samples], axis=1)
    ranks = rank_shares(pool, pool)[:, :-1]  # nobody is above all of the pool and himself
    shares = np.array([np.diff(share_below(one, np.linspace(0, 1, BINS + 1))) for one in ranks])
    statistic = np.sum((shares - 1 / BINS) ** 2, axis=1)
    return {
        "share": shares[0].tolist(),
        "flatness": float(statistic[0] / statistic[1:].mean()),
        "p_value": float(np.mean(statistic >= statistic[0])),
    }


def spread_over_error(samples: np.ndarray, truths: np.ndarray) -> float:
    """sqrt((E + 1) / E) spread / error, both root mean squares over points, states and truths; 1 when calibrated.

    The error is that of the ensemble mean against one truth at a time (Fortin, Abaza, Anctil & Turcotte, J. Hydrometeorol. 15,
    2014). nan where there is no error, as at the start of a rollout.
    """
    squares = [
        np.mean((x.mean(axis=0, dtype=np.float64) - one) ** 2)
        for x, y in zip(samples, truths, strict=True)
        for one in y
    ]
    error, count = float(np.sqrt(np.mean(squares))), samples.shape[1]
    return float(np.sqrt((count + 1) / count)) * metrics.rms_spread(samples) / error if error > 0 else float("nan")


def energy_score(samples: np.ndarray, truth: np.ndarray) -> float:
    """Fair energy score of one truth a state, (states, n, n), mean over states: a CRPS of whole fields, least for the true law.

        mean |x_i - y| - 1 / (2 E (E - 1)) sum_ij |x_i - x_j|      (Gneiting & Raftery, J. Am. Stat. Assoc. 102, 2007)

    |.| is the root mean square over points, so that the score has the field's unit.
    """
    scores = []
    for x, y in zip(samples, truth, strict=True):
        count, points = len(x), y.size
        centred = np.concatenate([x, y[None]]).reshape(count + 1, points).astype(np.float64)
        centred -= x.reshape(count, points).mean(axis=0, dtype=np.float64)
        product = centred @ centred.T
        size = np.diag(product)
        distance = np.sqrt(np.maximum(size[:, None] + size - 2 * product, 0) / points)
        np.fill_diagonal(distance, 0)
        scores.append(distance[-1, :-1].mean() - distance[:-1, :-1].sum() / (2 * count * (count - 1)))
    return float(np.mean(scores))


def deviation_by_shell(samples: np.ndarray) -> list[float]:
    """Standard deviation of the samples in each shell of integer wavenumber, 0 to n / 2: the root of the unbiased spectrum."""
    return np.sqrt(metrics.deviation_spectrum(samples)).tolist()
